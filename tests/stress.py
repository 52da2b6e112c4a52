"""Calls every batched entry of the library a thousand times: `make stress`, or `python tests/stress.py [ENTRY ...]`.

Batches of LAPACK's calls have stopped for good on a CPU, with every thread idle (see pathwise_gp/_numerics/lapack.py). Each
entry runs in a process of its own; one that does not come back is named and ended.
"""

import faulthandler
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro import handlers

import pathwise_gp as pgp
from pathwise_gp import acquisition, design, numpyro_bridge as bridge
from pathwise_gp._guides.optimal import collapsed_bound

# Seconds that no call takes, and none that compiles.
TIMEOUT, COMPILES = 240, 1200
# Members of the batch, points, calls: more calls of what is cheap, a thousand in all.
SIZES = ((512, 20, 300), (2, 200, 150), (32, 100, 150), (128, 60, 150), (7, 20, 200), (300, 100, 30), (16, 200, 20))


def data(n: int) -> tuple[jax.Array, jax.Array]:
    x = jnp.linspace(-2, 2, n)
    return x[:, None], jnp.sin(2 * x)


def prior(n: int, lengthscale: jax.Array) -> pgp.GPPrior:
    return pgp.GPPrior(kernel=pgp.Matern(2.5, 1.0, lengthscale), X=data(n)[0])


def sparse(n: int, lengthscale: jax.Array) -> pgp.SparseGPPrior:
    return pgp.SparseGPPrior(kernel=pgp.Matern(2.5, 1.0, lengthscale), Z=data(n)[0][:: max(1, n // 20)])


def evidence(n: int, lengthscale: jax.Array) -> Any:
    return jax.value_and_grad(lambda scale: prior(n, scale).log_prob(data(n)[1], 0.01))(lengthscale)


def evidence_of_batches(n: int, lengthscale: jax.Array) -> Any:
    """vmap of vmap, in a loop."""
    one = jax.value_and_grad(lambda scale: prior(n, scale).log_prob(data(n)[1], 0.01))
    return jax.lax.scan(lambda sum_, f: (sum_ + jax.vmap(one)(f * lengthscale)[1].sum(), None), 0.0, jnp.ones((2, 2)))[
        0
    ]


def curvature(n: int, lengthscale: jax.Array) -> Any:
    return jax.hessian(lambda scale: prior(n, scale).log_prob(data(n)[1], 0.01))(lengthscale)


def latent(n: int, lengthscale: jax.Array) -> Any:
    """The factor of a process and its derivative, as `gp_sample` has it."""
    _, y = data(n)

    def square(scale: jax.Array) -> jax.Array:
        model = lambda: bridge.gp_sample("f", prior(n, scale))
        return jnp.sum(handlers.substitute(handlers.seed(model, 0), {"f.white": y})() ** 2)

    return jax.value_and_grad(square)(lengthscale)


def leave_one_out(n: int, lengthscale: jax.Array) -> Any:
    def score(scale: jax.Array) -> jax.Array:
        found = prior(n, scale).condition(data(n)[1], 0.01).leave_one_out()
        return jnp.sum(found.log_density)

    return jax.value_and_grad(score)(lengthscale)


def moments(n: int, lengthscale: jax.Array) -> Any:
    X, y = data(n)
    posterior = prior(n, lengthscale).condition(y, 0.01)
    return posterior.mean(X + 0.1), posterior.variance(X + 0.1)


def paths(n: int, lengthscale: jax.Array) -> Any:
    X, y = data(n)
    sampler = pgp.PathwiseSampler(prior(n, lengthscale).condition(y, 0.01), 16, features=pgp.Orthogonal())
    return sampler.sample_paths(jax.random.key(0), 2)(X + 0.1)


def iterations(n: int, lengthscale: jax.Array) -> Any:
    """Systems of covariances that differ, by both iterative solvers."""
    X, y = data(n)
    pivots = pgp.ConjugateGradients(max_passes=5, throw=False, preconditioner=pgp.RandomPivots(8))
    solvers = pivots, pgp.BlockProjections(max_passes=3, throw=False, block=max(2, n // 4))
    draw = lambda solver: pgp.draw(prior(n, lengthscale), y, 0.1, jax.random.key(0), 2, 16, solver=solver)
    return [draw(solver).paths(X + 0.1) for solver in solvers]


def bound(n: int, lengthscale: jax.Array) -> Any:
    X, y = data(n)
    return jax.value_and_grad(lambda scale: collapsed_bound(sparse(n, scale), X, y, jnp.asarray(0.01)))(lengthscale)


def guide(n: int, lengthscale: jax.Array) -> Any:
    X, y = data(n)
    there = sparse(n, lengthscale)
    found = pgp.optimal_guide(there, X, y, 0.01)
    return pgp.DecoupledPathwiseSampler(there, found, 16).sample_paths(jax.random.key(0), 2)(X)


def laplace(n: int, lengthscale: jax.Array) -> Any:
    y = (data(n)[1] > 0).astype(jnp.int32)
    likelihood = lambda f: dist.Bernoulli(logits=f)
    evidence = lambda scale: pgp.laplace(prior(n, scale), y, likelihood, max_steps=10).log_marginal_likelihood
    return jax.value_and_grad(evidence)(lengthscale)


def laplace_of_two(n: int, lengthscale: jax.Array) -> Any:
    """A likelihood whose curvature is indefinite, of two processes."""
    n = min(n, 60)
    likelihood = lambda f, g: dist.StudentT(3.0, f, jnp.exp(g))
    both = lambda scale: pgp.laplace([prior(n, scale)] * 2, data(n)[1], likelihood, max_steps=5).log_marginal_likelihood
    return jax.value_and_grad(both)(lengthscale)


def grid(n: int, lengthscale: jax.Array) -> Any:
    X, y = data(n)

    def density(scale: jax.Array) -> jax.Array:
        kernel = pgp.Coregionalised(pgp.Matern(2.5, 1.0, scale), [[1.0], [0.5]], [0.1, 0.1])
        return pgp.GPPrior(kernel, pgp.AllOutputs(X, 2)).log_prob(jnp.stack([y, -y], axis=1), 0.01)

    return jax.value_and_grad(density)(lengthscale)


def fit(n: int, lengthscale: jax.Array) -> Any:
    n = min(n, 60)
    return pgp.fit(
        prior(n, lengthscale), data(n)[1] + 0.1 * jnp.cos(9 * data(n)[0][:, 0]), 0.01, max_steps=3
    ).log_density


def marginal(n: int, lengthscale: jax.Array) -> Any:
    """The distribution of NumPyro, drawn and evaluated."""
    law = bridge.GPMarginal(prior(n, lengthscale), 0.01)
    return law.log_prob(law.sample(jax.random.key(0)))


def information(n: int, lengthscale: jax.Array) -> Any:
    X, _ = data(n)
    drawn = prior(n, lengthscale).sample_paths(jax.random.key(0), 8, 16)
    return jax.grad(lambda at: design.information_gain(drawn, at[None], 0.01).value[0])(X[:5])


def knowledge(n: int, lengthscale: jax.Array) -> Any:
    X, _ = data(n)
    drawn = prior(n, lengthscale).sample_paths(jax.random.key(0), 8, 16)
    gradient = acquisition.KnowledgeGradient(drawn, X[:5], jax.random.key(1), 0.01)
    return jax.grad(gradient.joint)(X[:2] + 0.1)


def one_shot(n: int, lengthscale: jax.Array) -> Any:
    X, y = data(n)
    there = prior(n, lengthscale).condition(y, 0.01)
    found = acquisition.OneShotKnowledgeGradient(
        there.mean, there.covariance, jax.random.key(1), noise_var=0.01, best=0.0, q=2, n_fantasies=4
    )
    return jax.grad(found)(X[:6, 0])


def error(n: int, lengthscale: jax.Array) -> Any:
    n = min(n, 60)
    X, y = data(n)
    return pgp.feature_error(prior(n, lengthscale).condition(y, 0.01), X[:20] + 0.01, 16, n_draws=1)


ENTRIES: dict[str, Callable[[int, jax.Array], Any]] = {
    f.__name__: f
    for f in (
        evidence,
        evidence_of_batches,
        curvature,
        latent,
        leave_one_out,
        moments,
        paths,
        iterations,
        bound,
        guide,
        laplace,
        laplace_of_two,
        grid,
        fit,
        marginal,
        information,
        knowledge,
        one_shot,
        error,
    )
}


def batched(entry: str, n: int) -> Any:
    """An entry under vmap: of lengthscales `m`."""
    return eqx.filter_jit(jax.vmap(partial(ENTRIES[entry], n)))


def run(entry: str, sizes: tuple[tuple[int, int, int], ...] = SIZES) -> None:
    rng = np.random.default_rng(0)
    for members, n, calls in sizes:
        function, started = batched(entry, n), time.perf_counter()
        for call in range(calls):
            faulthandler.dump_traceback_later(TIMEOUT if call else COMPILES, exit=True)
            jax.block_until_ready(function(jnp.asarray(rng.uniform(0.3, 1, members))))
        print(f"{entry}: {members} of {n} points, {calls} calls, {time.perf_counter() - started:.0f} s", flush=True)
    faulthandler.cancel_dump_traceback_later()


def main() -> int:
    if sys.argv[1:2] == ["--here"]:
        run(sys.argv[2])
        return 0
    stopped = []
    for entry in sys.argv[1:] or ENTRIES:
        for x64 in ("0", "1"):
            done = subprocess.run(
                [sys.executable, __file__, "--here", entry], env=os.environ | {"JAX_ENABLE_X64": x64}, check=False
            )
            if done.returncode:
                stopped.append(f"{entry} ({'double' if x64 == '1' else 'single'} precision)")
    print(f"stopped or failed: {', '.join(stopped)}" if stopped else "all came back")
    return bool(stopped)


if __name__ == "__main__":
    sys.exit(main())
