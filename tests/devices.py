"""Solves by one device or by many, in one process or in several: `python tests/devices.py FILE RANK PROCESSES ADDRESS`.

What comes out is written to FILE, an archive of NumPy's, by the first process. `XLA_FLAGS` says how many virtual devices a
process has.
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

N, DIM = 46, 2


def solvers():
    return {
        "conjugate gradients": pgp.ConjugateGradients(1e-9, cache=0, preconditioner=pgp.RandomPivots(12)),
        "held": pgp.ConjugateGradients(1e-9, preconditioner=pgp.RandomPivots(12)),
        "projections": pgp.BlockProjections(1e-7, 2000, cache=0, block=12),
        "held projections": pgp.BlockProjections(1e-7, 2000, block=12),
    }


def data():
    """Inputs, observations, noise and a mask, the same for all."""
    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, (N, DIM))
    y = np.sin(X.sum(axis=1)) + 0.1 * rng.standard_normal(N)
    return X, y, np.linspace(0.01, 0.05, N), np.arange(N) % 7 > 0


def spread(mesh, values):
    """A global array, of which a process makes its own rows alone."""
    each = len(values) // jax.process_count()
    own = values[jax.process_index() * each :][:each]
    return jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec("rows")), own)


@eqx.filter_jit
def solved(prior, y, noise_var, mask, solver):
    """A draw, and what is asked of it."""
    drawn = pgp.draw(prior, y, noise_var, jax.random.key(3), 3, 16, mask=mask, solver=solver)

    def slope(prior):
        return jnp.sum(pgp.draw(prior, y, noise_var, jax.random.key(3), 3, 16, mask=mask, solver=solver).paths(jnp.ones((2, DIM))))

    at = jnp.linspace(-1, 1, 2 * DIM).reshape(2, DIM)
    return {
        "coefficients": drawn.paths.coefficients,
        "mean": drawn.posterior.mean(at),
        "paths": drawn.paths(at),
        "gradient": eqx.filter_grad(slope)(prior).kernel.lengthscale,
        "slopes": jax.vmap(jax.grad(drawn.paths[1]))(at),
        "residuals": drawn.report.residuals,
        "passes": drawn.report.passes,
    }


def main(file, rank, processes, address):
    if processes > 1:
        jax.distributed.initialize(address, processes, rank)
    mesh = jax.make_mesh((jax.device_count(),), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    X, y, noise_var, mask = data()
    if processes > 1:
        X, y, noise_var, mask = (spread(mesh, values) for values in (X, y, noise_var, mask))
    prior = pgp.GPPrior(pgp.Matern(2.5, 1.3, [0.8, 1.1]), X)
    results = {}
    for name, solver in solvers().items():
        found = solved(prior, jnp.asarray(y), jnp.asarray(noise_var), jnp.asarray(mask), dataclasses.replace(solver, mesh=mesh))
        results |= {f"{name}: {quantity}": values for quantity, values in found.items()}
    solver = dataclasses.replace(solvers()["conjugate gradients"], mesh=mesh)
    results |= asked(prior, y, noise_var, mask, solver, file)
    whole = jax.jit(lambda values: values, out_shardings=NamedSharding(mesh, PartitionSpec()))(results)
    if rank == 0:
        np.savez(file, **whole)


def asked(prior, y, noise_var, mask, solver, file):
    """What a user asks for one line after the other, outside of jit."""
    posterior = prior.condition(y, noise_var, mask, solver=solver)
    at = np.linspace(-1, 1, 3 * DIM).reshape(3, DIM)
    paths = pgp.PathwiseSampler(posterior, 16).sample_paths(jax.random.key(3), 2)
    return {
        "asked: mean": posterior.mean(at),
        "asked: variance": posterior.variance(at),
        "asked: paths": paths(at),
    }


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
