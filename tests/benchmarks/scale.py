"""Times what solves for very many observations: `python tests/benchmarks/scale.py [SOLVER ...] [--n 20000] [--data FILE]
[--devices 2] [--processes 2] [--fit]`.

The data are drawn, or `X`, `y` and `test_mask` (whole, or packed by bits; a column for each split) of a file NAME.npz.
The kernel is then Matérn's, with the scales in a file of JSON: `{NAME: {SPLIT: {noise_scale, signal_scale, lengthscale}}}`.
Inputs and observations are standardised by the training rows.

Each solver runs in a process of its own, whose memory is that of all of it; compilation is not in the seconds. `--devices`
are virtual ones of each process, and of several `--processes` on this machine each reads its own rows alone; core-seconds and
memory are those of all of them together.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import resource
import socket
import subprocess
import sys
import time
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import pathwise_gp as pgp

SOLVERS = {
    "cholesky": pgp.Cholesky(),
    "cg": pgp.ConjugateGradients(1e-2, preconditioner=pgp.RandomPivots(512), throw=False),
    "cg, not cached": pgp.ConjugateGradients(1e-2, preconditioner=pgp.RandomPivots(512), throw=False, cache=0),
    "projections": pgp.BlockProjections(1e-2, 20, block=2000, throw=False),
    "projections, not cached": pgp.BlockProjections(1e-2, 20, block=2000, throw=False, cache=0),
}


# Stochastic dual descent with the settings of its authors (Lin et al. 2024, algorithm 1): rows of a step, momentum, and n
# times the step size.
BASELINE, BATCH, MOMENTUM, RATE = "dual descent", 512, 0.9, 50.0


class Descended(NamedTuple):
    """**Fields:** `passes`: how often as many rows were taken as there are; `residuals`."""

    passes: Any
    residuals: Any


def dual_descent(prior: Any, y: Any, noise_var: Any, key: Any, n_paths: int, passes: int) -> tuple[Any, Descended]:
    """Paths with coefficients by stochastic dual descent."""
    keys, n = jax.random.split(key, 3), len(y)
    steps = passes * n // BATCH
    drawn = prior.sample_paths(keys[0], n_paths)
    epsilon = jnp.sqrt(noise_var) * jax.random.normal(keys[1], (n_paths, n), y.dtype)
    B = jnp.concatenate([y[None], y[None] - drawn(prior.X) - epsilon])
    kernel, X, share = prior.kernel, prior.X, min(1.0, 100 / steps)

    def step(state: Any, key: Any) -> tuple[Any, None]:
        alpha, velocity, average = state
        rows = jax.random.randint(key, (BATCH,), 0, n)
        ahead = alpha + MOMENTUM * velocity
        gradient = ahead @ kernel.matrix(X[rows], X).T + noise_var * ahead[:, rows] - B[:, rows]
        velocity = (MOMENTUM * velocity).at[:, rows].add(-RATE / BATCH * gradient)
        alpha = alpha + velocity
        return (alpha, velocity, share * alpha + (1 - share) * average), None

    zero = jnp.zeros_like(B)
    (_, _, found), _ = jax.lax.scan(step, (zero, zero, zero), jax.random.split(keys[2], steps))
    product = jax.lax.map(lambda x: found @ kernel.matrix(x[None], X)[0], X, batch_size=256).T
    residual = B - product - noise_var * found
    paths = dataclasses.replace(
        drawn, inputs=X, coefficients=found[1:], mean_coefficients=found[0], noise=jnp.full((n,), noise_var)
    )
    return paths, Descended(jnp.asarray(passes), jnp.linalg.norm(residual, axis=1) / jnp.linalg.norm(B, axis=1))


def data_of(arguments: argparse.Namespace) -> tuple[Any, ...]:
    """Inputs and observations to learn from and to test with, the kernel and the variance of the noise."""
    if arguments.data is None:
        rng, n, dim = np.random.default_rng(0), arguments.n, arguments.dim
        X = rng.uniform(-2, 2, (n + n // 10, dim)).astype(np.float32)
        y = np.sin(3 * X).sum(axis=1) + 0.3 * rng.standard_normal(len(X))
        test = np.arange(len(X)) >= n
        kernel, noise_var = pgp.Matern(1.5, np.float32(1), np.full(dim, 0.7, np.float32)), 0.09 / y[~test].var()
    else:
        with np.load(arguments.data) as file:
            X, y, mask = file["X"], file["y"], file["test_mask"]
            packed = mask.dtype == np.uint8 and mask.shape[0] < len(y)
            mask = np.unpackbits(mask, axis=0, count=len(y)) if packed else mask
        test = mask.reshape(len(y), -1)[:, arguments.split].astype(bool)
        scales = json.loads(arguments.hyperparameters.read_text())[arguments.data.stem][str(arguments.split)]
        kernel = pgp.Matern(1.5, np.float32(scales["signal_scale"] ** 2), np.asarray(scales["lengthscale"], np.float32))
        noise_var = scales["noise_scale"] ** 2

    def standardised(values: Any) -> Any:
        values = values.astype(np.float64)
        sd = values[~test].std(axis=0)
        return ((values - values[~test].mean(axis=0)) / np.where(sd > 0, sd, 1)).astype(np.float32)

    X = X if arguments.data is None else standardised(X)
    y = standardised(y)
    return X[~test], y[~test], X[test], y[test], kernel, np.float32(noise_var)


def spread(mesh: Any, X: Any, y: Any) -> tuple[Any, ...]:
    """Inputs, observations and a mask as global arrays, of which a process makes those of its own rows."""
    n, k = len(y), mesh.size
    each = (
        -(-n // k) * k // jax.process_count()
    )  # of each process; the last has copies of its last row, which are masked
    first = jax.process_index() * each
    rows = np.minimum(np.arange(first, first + each), n - 1)
    place = lambda values: jax.make_array_from_process_local_data(
        NamedSharding(mesh, PartitionSpec(mesh.axis_names)), values
    )
    return place(X[rows]), place(y[rows]), place(np.arange(first, first + each) < n)


def run_here(name: str, arguments: argparse.Namespace) -> str:
    if arguments.processes > 1:
        if hasattr(os, "sched_setaffinity"):  # each on cores of its own, as on machines of their own
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, cores[arguments.rank :: arguments.processes] or cores)
        jax.distributed.initialize(arguments.address, arguments.processes, arguments.rank)
    X, y, X_test, y_test, kernel, noise_var = data_of(arguments)
    solver, mask = SOLVERS.get(name), None
    if jax.device_count() > 1:
        solver = dataclasses.replace(solver, mesh=jax.make_mesh((jax.device_count(),), ("rows",)))
        X, y, mask = spread(solver.mesh, X, y)
        mask = None if bool(jnp.all(mask)) else mask
    prior = pgp.GPPrior(kernel, X)

    @eqx.filter_jit
    def work(prior: Any, y: Any, mask: Any, key: Any) -> Any:
        if name == BASELINE:
            return dual_descent(prior, y, noise_var, key, arguments.paths, arguments.passes)
        drawn = pgp.draw(prior, y, noise_var, key, arguments.paths, mask=mask, solver=solver, check_scales=False)
        return drawn.paths, drawn.report

    inputs = prior, jnp.asarray(y), mask, jax.random.key(0)
    compiled = work.lower(*inputs).compile()
    begun, cpu = time.perf_counter(), time.process_time()
    paths, report = jax.block_until_ready(compiled(*inputs))
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    mean, values = eqx.filter_jit(lambda paths, X: (paths.mean_path(X), paths(X)))(paths, X_test)
    variance = jnp.var(values, axis=0, ddof=1) + noise_var
    error = float(jnp.sqrt(jnp.mean((mean - y_test) ** 2)))
    nll = float(0.5 * jnp.mean(jnp.log(2 * jnp.pi * variance) + (mean - y_test) ** 2 / variance))
    passes, residual = ("", "") if report is None else (int(report.passes), f"{float(jnp.max(report.residuals)):.2g}")
    return f"{cpu} {memory}\n| {name} | {passes} | {residual} | {{:.1f}} | {wall:.1f} | {{:.2f}} | {error:.4f} | {nll:.3f} |"


def fit_here(name: str, arguments: argparse.Namespace) -> str:
    """A search for the hyperparameters from scratch."""
    X, y, _, _, kernel, _ = data_of(arguments)
    start = pgp.Matern(kernel.nu, np.float32(1), np.full(X.shape[1], np.sqrt(X.shape[1]), np.float32))
    solver = None if name == "cholesky" else SOLVERS[name]
    search = lambda: jax.block_until_ready(
        pgp.fit(pgp.GPPrior(start, X), y, np.float32(0.1), solver=solver, max_steps=arguments.steps)
    )
    search()
    begun, cpu = time.perf_counter(), time.process_time()
    found = search()
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    steps, memory = int(found.steps[0]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    error = "" if found.standard_error is None else f"{float(found.standard_error) / len(y):.4f}"
    density = f"{float(found.log_density) / len(y):.4f} | {error} | {bool(found.converged)}"
    row = f"| {name} | {steps} | {{:.1f}} | {cpu / max(steps, 1):.2f} | {wall:.1f} | {{:.2f}} | {density} |"
    return f"{cpu} {memory}\n{row}"


def run_apart(name: str, rest: list[str], arguments: argparse.Namespace) -> tuple[str, bool]:
    """The row of a solver, and whether it failed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={arguments.devices}"
    command = [sys.executable, __file__, name, *rest, "--here", "--address", address, "--rank"]
    settings = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "env": os.environ | {"XLA_FLAGS": flags},
    }
    running = [subprocess.Popen([*command, str(i)], **settings) for i in range(arguments.processes)]
    ended = [process.communicate() for process in running]
    if any(process.returncode for process in running):
        said = next(error for process, (_, error) in zip(running, ended, strict=True) if process.returncode)
        return f"| {name} | {said.strip().splitlines()[-1][:200]} |", True
    said = [output.splitlines()[-2:] for output, _ in ended]
    taken = [[float(number) for number in numbers.split()] for numbers, _ in said]
    return said[0][1].format(*map(sum, zip(*taken, strict=True))), False


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    known = [*SOLVERS, BASELINE]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("solvers", nargs="*", metavar="SOLVER", help=f"any of {', '.join(map(repr, known))}")
    parser.add_argument("--n", type=int, default=20_000, help="of data that are drawn")
    parser.add_argument("--dim", type=int, default=3, help="of data that are drawn")
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--hyperparameters", type=pathlib.Path)
    parser.add_argument("--split", type=int, default=0)
    parser.add_argument("--paths", type=int, default=7)
    parser.add_argument("--passes", type=int, default=20, help=f"of {BASELINE!r}")
    parser.add_argument("--fit", action="store_true", help="search for the hyperparameters, from scratch")
    parser.add_argument("--steps", type=int, default=200, help="of a search, at the most")
    parser.add_argument("--devices", type=int, default=1, help="virtual ones, of each process")
    parser.add_argument("--processes", type=int, default=1, help="that solve together")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if unknown := set(arguments.solvers) - set(known):
        parser.error(f"no such solver: {', '.join(sorted(unknown))}")
    return arguments


def main() -> int:
    arguments = parsed()
    if arguments.here:
        print((fit_here if arguments.fit else run_here)(arguments.solvers[0], arguments))
        return 0
    X = data_of(arguments)[0]
    name = arguments.data.stem if arguments.data else "drawn"
    print(f"### {name}: n = {len(X):,}, D = {X.shape[1]}, {arguments.paths} paths\n")
    titles = "| solver | passes | largest residual | core-seconds | seconds | GiB | RMSE | NLL |"
    if arguments.fit:
        titles = "| solver | steps | core-seconds | a step | seconds | GiB | log density a point | error | converged |"
    print(f"{titles}\n{'| --- ' * (titles.count('|') - 1)}|", flush=True)
    failed = 0
    rest = [word for word in sys.argv[1:] if word not in arguments.solvers]
    for name in arguments.solvers or SOLVERS:
        line, wrong = run_apart(name, rest, arguments)
        failed += wrong
        print(line, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
