"""Solves by many devices, in one process or in several: `python tests/devices.py DIRECTORY RANK PROCESSES ADDRESS`.

What comes out is written to DIRECTORY by each process, `RANK.npz`. `XLA_FLAGS` says how many virtual devices a process has.
"""

import dataclasses
import pathlib
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import pathwise_gp as pgp
from pathwise_gp._numerics.pivots import pivoted_cholesky
from pathwise_gp._placement import divisible

N, DIM = 46, 2  # a number of observations that no number of devices but two divides


# What is solved by several processes, and by the devices of one.
SEVERAL, TOGETHER = ("conjugate gradients", "held projections"), ("held", "projections")


def solvers():
    pivots = pgp.RandomPivots(12)
    return {
        "conjugate gradients": pgp.ConjugateGradients(1e-9, cache=0, preconditioner=pivots),
        "held projections": pgp.BlockProjections(1e-7, 2000, block=10),
        "held": pgp.ConjugateGradients(1e-9, preconditioner=pivots),
        "projections": pgp.BlockProjections(1e-7, 2000, cache=0, block=10),
    }


def data():
    """Inputs, observations, noise and a mask."""
    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, (N, DIM))
    y = np.sin(X.sum(axis=1)) + 0.1 * rng.standard_normal(N)
    return X, y, np.linspace(0.01, 0.05, N), np.arange(N) % 7 > 0


def prior_of(X):
    return pgp.GPPrior(pgp.Matern(2.5, 1.3, [0.8, 1.1]), X)


AT = np.linspace(-1, 1, 3 * DIM).reshape(3, DIM)


@eqx.filter_jit
def solved(prior, y, noise_var, mask, solver, with_gradient):
    """A draw and what is asked of it, in one program."""
    draw = lambda prior: pgp.draw(prior, y, noise_var, jax.random.key(3), 3, 16, mask=mask, solver=solver)
    drawn, of_kernel = draw(prior), eqx.filter_grad(lambda prior: jnp.sum(draw(prior).paths(AT)))
    return {
        "coefficients": drawn.paths.coefficients,
        "mean": drawn.posterior.mean(AT),
        "paths": drawn.paths(AT),
        "slopes": jax.vmap(jax.grad(drawn.paths[1]))(jnp.asarray(AT)),
        "gradient": of_kernel(prior).kernel.lengthscale if with_gradient else jnp.zeros(DIM),
        "residuals": drawn.report.residuals,
        "passes": drawn.report.passes,
    }


@eqx.filter_jit
def pivots_of(solver, system):
    A = solver.covariance(system)
    row, variances = lambda i: A.row(i)[0], A.variances[0]
    return pivoted_cholesky(row, variances, 12, jax.random.key(0), A.layout.largest).chosen


def asked(prior, y, noise_var, mask, solver, directory):
    """What a user asks for line after line, outside of jit."""
    posterior = prior.condition(y, noise_var, mask, solver=solver)
    draw = lambda solver, start=None: pgp.draw(
        prior, y, noise_var, jax.random.key(3), 3, 16, mask=mask, solver=solver, start=start
    )
    some = draw(dataclasses.replace(solver, max_passes=4, throw=False))
    rest = draw(solver, restored(some.solutions, directory))
    return {
        "variance": posterior.variance(AT),
        "pivots": pivots_of(solver, prior.system(prior.functional, jnp.asarray(noise_var), mask)),
        "some residuals": some.report.residuals,
        "rest": rest.paths(AT),
        "rest passes": rest.report.passes,
    }


def restored(solutions, directory):
    """The same after a way through a file, to which each process writes its own part."""
    import orbax.checkpoint as ocp

    like = jax.ShapeDtypeStruct(solutions.shape, solutions.dtype, sharding=solutions.sharding)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(directory / "checkpoint", {"solutions": solutions})
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(directory / "checkpoint", {"solutions": like})["solutions"]


def refused(prior, y, noise_var, mask, solver):
    """The errors of a solve that ends too early, and of observations that are not finite, outside of jit and in it."""
    early = dataclasses.replace(solver, max_passes=1)
    condition = lambda prior, y, noise_var, mask, solver: prior.condition(y, noise_var, mask, solver=solver).mean(AT)
    jitted, missing = eqx.filter_jit(condition), y * jnp.nan
    found = {}
    for name, call in {
        "early": lambda: condition(prior, y, noise_var, mask, early),
        "missing": lambda: condition(prior, missing, noise_var, mask, solver),
        "early under jit": lambda: jitted(prior, y, noise_var, mask, early),
        "missing under jit": lambda: jitted(prior, missing, noise_var, mask, solver),
    }.items():
        try:
            jax.block_until_ready(call())
            found[f"error: {name}"] = "none"
        except Exception as error:
            found[f"error: {name}"] = str(error)
    return found


def main(directory, rank, processes, address):
    mesh = jax.make_mesh((jax.device_count(),), ("rows",))
    arrays = data()
    if processes > 1:  # of which each makes its own rows alone
        own = slice(rank * (N // processes), (rank + 1) * (N // processes))
        rows = NamedSharding(mesh, PartitionSpec("rows"))
        arrays = [jax.make_array_from_process_local_data(rows, values[own]) for values in arrays]
    X, y, noise_var, mask = (divisible(jnp.asarray(values)) for values in arrays)
    prior, results = prior_of(X), {}
    for i, name in enumerate(SEVERAL if processes > 1 else TOGETHER):
        solver = dataclasses.replace(solvers()[name], mesh=mesh)
        found = solved(prior, y, noise_var, mask, solver, i == 0)
        results |= {f"{name}: {quantity}": values for quantity, values in found.items()}
    solver = dataclasses.replace(solvers()["conjugate gradients"], mesh=mesh)
    if processes > 1:
        results |= asked(prior, *arrays[1:], solver, directory)
    whole = jax.jit(lambda values: values, out_shardings=NamedSharding(mesh, PartitionSpec()))(results)
    np.savez(directory / f"{rank}.npz", **whole, **refused(prior, y, noise_var, mask, solver))


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    _, directory, rank, processes, address = sys.argv
    if int(processes) > 1:
        jax.distributed.initialize(address, int(processes), int(rank))
    main(pathlib.Path(directory), int(rank), int(processes), address)
