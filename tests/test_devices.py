"""What many devices solve together is what one of them solves alone."""

import copy
import dataclasses
import os
import pathlib
import pickle
import socket
import subprocess
import sys

import devices
import jax
import numpy as np
import pytest

import pathwise_gp as pgp
from pathwise_gp._numerics.layout import Layout
from pathwise_gp._progress import ProgressBar

SCRIPT = pathlib.Path(devices.__file__)
ALONE = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("rows",))


def start(directory, n_devices, n_processes):
    """The script in processes of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={n_devices}"
    command = [sys.executable, str(SCRIPT), str(directory)]
    return [
        subprocess.Popen(
            [*command, str(rank), str(n_processes), address],
            env=os.environ | {"XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(n_processes)
    ]


def ended(processes, directory):
    """What each of them found."""
    said = [process.communicate(timeout=600)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(text[-3000:] for text in said)
    found = [dict(np.load(directory / f"{rank}.npz")) for rank in range(len(processes))]
    # XLA says where an array goes through one device for want of a better way.
    assert not any("rematerialization" in text for text in said), said[0][-3000:]
    return found


@pytest.fixture(scope="module")
def alone():
    """One device without a mesh."""
    X, *rest = devices.data()
    prior, found, data = devices.prior_of(X), {}, tuple(map(jax.numpy.asarray, rest))
    for i, name in enumerate(devices.SEVERAL):
        results = devices.solved(prior, *data, devices.solvers()[name], i == 0)
        found |= {f"{name}: {quantity}": values for quantity, values in results.items()}
    return found


def test_two_processes_find_what_one_finds(alone, tmp_path):
    found, other = ended(start(tmp_path, 1, 2), tmp_path)
    for name, values in found.items():
        np.testing.assert_array_equal(other[name], values, err_msg=name)
    same(found, alone, devices.SEVERAL)
    X, y, noise_var, mask = devices.data()
    prior, solver = devices.prior_of(X), devices.solvers()["conjugate gradients"]
    system = prior.system(prior.functional, jax.numpy.asarray(noise_var), jax.numpy.asarray(mask))
    np.testing.assert_array_equal(found["pivots"], devices.pivots_of(solver, system))
    exact = pgp.draw(prior, y, noise_var, jax.random.key(3), 3, 16, mask=mask)
    close = lambda name, wanted: np.testing.assert_allclose(found[name], wanted, rtol=0, atol=1e-6, err_msg=name)
    close("variance", exact.posterior.variance(devices.AT))
    # What was cut off, saved and restored needs fewer passes than the whole.
    close("rest", exact.paths(devices.AT))
    assert 0.01 < found["some residuals"].max() < 1
    assert found["rest passes"] < found["conjugate gradients: passes"]
    refused(found)


def test_three_devices_find_what_one_finds(alone, tmp_path):
    (found,) = ended(start(tmp_path, 3, 1), tmp_path)
    same(found, alone, devices.TOGETHER)
    refused(found)


def same(found, alone, names):
    """Quantities of solvers, of which the first is of conjugate gradients and the second of projections."""
    for name, other in zip(names, devices.SEVERAL, strict=True):
        for quantity in ("coefficients", "mean", "paths", "slopes", "residuals", "passes", "gradient"):
            # Sums are in another order. Derivatives are a solve of their own, which ends at its tolerance.
            tolerance = 1e-6 if quantity == "gradient" else 1e-10
            values, wanted = found[f"{name}: {quantity}"], alone[f"{other}: {quantity}"]
            np.testing.assert_allclose(values, wanted, rtol=0, atol=tolerance, err_msg=f"{name}: {quantity}")


def refused(found):
    for name in ("early", "early under jit"):
        assert "did not reach its tolerance of 1e-09" in str(found[f"error: {name}"]), name
    for name in ("missing", "missing under jit"):
        assert "`y` must be finite" in str(found[f"error: {name}"]), name


def test_a_layout_is_the_same_on_any_number_of_devices():
    V = np.random.default_rng(0).standard_normal((2, 23))
    for n_blocks in (1, 4, 23):
        layout = Layout(n=23, n_blocks=n_blocks)
        wide = dataclasses.replace(layout, mesh=ALONE)
        assert (wide.each, wide.width, wide.n_devices) == (layout.each, layout.width, 1)
        np.testing.assert_array_equal(layout.unfold(layout.fold(jax.numpy.asarray(V))), V)
        np.testing.assert_array_equal(wide.fold(jax.numpy.asarray(V)), layout.fold(jax.numpy.asarray(V)))
        filled = np.asarray(layout.filled)
        np.testing.assert_array_equal(np.asarray(layout.numbers)[filled], np.arange(23))


def test_a_solver_with_a_mesh_is_saved():
    solver = pgp.BlockProjections(1e-6, block=20, mesh=ALONE)
    assert pickle.loads(pickle.dumps(solver)) == copy.deepcopy(solver) == solver and solver.mesh == ALONE
    X, y, noise_var, mask = devices.data()
    posterior = devices.prior_of(X).condition(y, noise_var, mask, solver=solver)
    again = pickle.loads(pickle.dumps(posterior))
    np.testing.assert_array_equal(again.mean(devices.AT), posterior.mean(devices.AT))
    np.testing.assert_allclose(again.variance(devices.AT), posterior.variance(devices.AT), rtol=1e-12)
    state = solver.__getstate__() | {"mesh": (np.array([7]), ("rows",))}
    with pytest.raises(ValueError, match=r"of 1 device\(s\), of which 1 are not here"):
        object.__new__(pgp.BlockProjections).__setstate__(state)


def test_a_mesh_of_any_kind_of_axes():
    explicit = jax.sharding.Mesh(ALONE.devices, ("rows",), axis_types=(jax.sharding.AxisType.Explicit,))
    X, y, noise_var, mask = devices.data()
    place = lambda values: jax.device_put(
        values, jax.sharding.NamedSharding(explicit, jax.sharding.PartitionSpec("rows"))
    )
    solver = pgp.ConjugateGradients(1e-9, mesh=explicit, preconditioner=pgp.RandomPivots(12))
    posterior = devices.prior_of(place(X)).condition(*map(place, (y, noise_var, mask)), solver=solver)
    wanted = devices.prior_of(X).condition(y, noise_var, mask)
    np.testing.assert_allclose(posterior.mean(devices.AT), wanted.mean(devices.AT), rtol=0, atol=1e-7)
    assert solver.mesh == ALONE


@pytest.mark.parametrize("solver", [pgp.ConjugateGradients, pgp.BlockProjections])
def test_a_mesh_is_a_mesh(solver):
    with pytest.raises(ValueError, match=r"`mesh` must be a `jax.sharding.Mesh`, such as .*; got 2"):
        solver(mesh=2)


def test_one_process_shows_how_far_it_is(monkeypatch, capsys):
    for process, shown in ((1, False), (0, True)):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        bar = ProgressBar(2, "step")
        bar._show(1, False, "")
        bar._show(2, True, "")
        assert ("2/2" in capsys.readouterr().err) == shown
