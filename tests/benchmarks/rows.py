"""The rows of the benchmark. Each is a function that makes its `Row`; `smoke` makes all sizes tiny."""

import functools
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import nuts
import peers
import scale
import scipy.linalg
from harness import Compiled, PeakMemory, Row, seconds, Target

import pathwise_gp as pgp
from pathwise_gp import acquisition, numpyro_bridge as bridge

OURS, LIMIT = "pathwise_gp", "limit: "


def ready(work: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: jax.block_until_ready(work())


def problem(n: int, dim: int, n_tests: int, n_features: int, n_paths: int, lengthscale: float = 1.0) -> peers.Problem:
    rng, dtype = np.random.default_rng(0), jnp.result_type(float)
    X, tests = rng.uniform(-2, 2, (n, dim)), rng.uniform(-2, 2, (n_tests, dim))
    y = np.sin(X.sum(1)) + 0.1 * rng.standard_normal(n)
    return peers.Problem(X.astype(dtype), y.astype(dtype), tests.astype(dtype), n_features, n_paths, lengthscale)


def posterior_of(p: peers.Problem) -> pgp.ConditionedGP:
    kernel = pgp.RBF(1.0, jnp.full((p.X.shape[1],), p.lengthscale))
    return pgp.GPPrior(kernel=kernel, X=p.X).condition(p.y, p.noise_var)


def paths_of(p: peers.Problem) -> pgp.PathwiseFunction:
    return pgp.PathwiseSampler(posterior_of(p), p.n_features).sample_paths(jax.random.key(0), p.n_paths)


def products(p: peers.Problem) -> Callable[[], Any]:
    """The two matrix products that the values at the test points take."""
    keys = jax.random.split(jax.random.key(1), 4)
    shapes = [(p.n_paths, p.n_features), (len(p.tests), p.n_features), (p.n_paths, len(p.X)), (len(p.tests), len(p.X))]
    factors = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]
    work = jax.jit(lambda a, b, c, d: jnp.matmul(a, b.T, precision="highest") + jnp.matmul(c, d.T, precision="highest"))
    return ready(lambda: work(*factors))


def large(smoke: bool) -> peers.Problem:
    return problem(60, 4, 128, 64, 8) if smoke else problem(2000, 4, 4096, 1024, 256)


def small(smoke: bool) -> peers.Problem:
    return problem(28, 1, 200, 64 if smoke else 1024, 64, 0.3)


def evaluate_large(smoke: bool) -> Row:
    p = large(smoke)
    paths, tests, botorch = paths_of(p), jnp.asarray(p.tests), peers.botorch(p)
    sizes = f"N = {len(p.tests)}, n = {len(p.X)}, F = {p.n_features}, S = {p.n_paths}, D = 4, {tests.dtype}"
    limit = LIMIT + "the two matrix products"
    features, kernel_block = jax.jit(lambda f, X: f(X)), jax.jit(lambda k, X, Z: k.matrix(X, Z))
    return Row(
        f"Evaluate: {sizes}",
        {
            limit: products(p),
            OURS: ready(lambda: paths(tests)),
            "its features alone": ready(lambda: features(paths.features, tests)),
            "its kernel block alone": ready(lambda: kernel_block(paths.kernel, tests, paths.inputs)),
            "GPJax": peers.gpjax(p).evaluate,
            "BoTorch": botorch.evaluate,
            "BoTorch in no_grad()": botorch.evaluate_no_grad,
        },
        (
            Target(OURS, limit, at_most=1.25),
            Target("BoTorch in no_grad()", OURS, at_least=25),
            Target("GPJax", OURS, at_least=3),
        ),
    )


def evaluate_small(smoke: bool) -> Row:
    p = small(smoke)
    paths, tests, botorch = paths_of(p), jnp.asarray(p.tests), peers.botorch(p)
    limit = LIMIT + "one jitted matrix product"
    product = jax.jit(lambda a, b: jnp.matmul(a, b.T, precision="highest"))
    factors = jax.random.normal(jax.random.key(0), (p.n_paths, p.n_features)), jnp.zeros((len(tests), p.n_features))
    inside = eqx.filter_jit(lambda paths, X: paths(X))

    @jax.jit
    def jitted(X: Any) -> Any:
        return paths(X)

    return Row(
        f"Evaluate, small: N = {len(tests)}, n = {len(p.X)}, F = {p.n_features}, S = {p.n_paths}, D = 1, {tests.dtype}",
        {
            limit: ready(lambda: product(*factors)),
            OURS: ready(lambda: paths(tests)),
            "the same in a jitted function of paths and points": ready(lambda: inside(paths, tests)),
            "the same in a jitted function of points": ready(lambda: jitted(tests)),
            "GPJax": peers.gpjax(p).evaluate,
            "BoTorch": botorch.evaluate,
            "BoTorch in no_grad()": botorch.evaluate_no_grad,
        },
        (Target("BoTorch in no_grad()", OURS, at_least=10), Target(OURS, limit, at_most=3)),
    )


def draw_large(smoke: bool) -> Row:
    p = large(smoke)
    posterior = posterior_of(p)
    sampler, key = pgp.PathwiseSampler(posterior, p.n_features), jax.random.key(0)
    features = sampler.sample_paths(key, 1).features
    right = jax.random.normal(key, (p.n_paths, len(p.X)))
    solve = functools.partial(jax.scipy.linalg.solve_triangular, lower=True)
    work = jax.jit(lambda f, X, lower, right: (f(X), solve(lower, solve(lower, right.T), trans=1)))
    limit = LIMIT + "features at X and JAX's two triangular solves"
    return Row(
        f"Draw after conditioning: n = {len(p.X)}, F = {p.n_features}, S = {p.n_paths}, D = 4, {right.dtype}",
        {
            limit: ready(lambda: work(features, posterior.prior.X, posterior.factor.lower, right)),
            OURS: ready(lambda: sampler.sample_paths(key, p.n_paths)),
            "GPJax": peers.gpjax(p).draw,
            "BoTorch": peers.botorch(p).draw,
        },
        (Target(OURS, limit, at_most=1.5), Target("BoTorch", OURS, at_least=80)),
    )


def draw_small(smoke: bool) -> Row:
    p = small(smoke)
    sampler, key = pgp.PathwiseSampler(posterior_of(p), p.n_features), jax.random.key(0)
    tests = jnp.asarray(p.tests)
    peer_torch, peer_jax = peers.botorch(p), peers.gpjax(p)
    return Row(
        f"Draw, small: n = {len(p.X)}, F = {p.n_features}, S = {p.n_paths}, D = 1, {tests.dtype}; those without paths draw "
        f"jointly at {len(tests)} points",
        {
            OURS: ready(lambda: sampler.sample_paths(key, p.n_paths)),
            "the same and the values": ready(lambda: sampler.sample_paths(key, p.n_paths)(tests)),
            "GPJax": peer_jax.draw,
            "BoTorch": peer_torch.draw,
            "tinygp, jointly": peers.tinygp(p),
            "scikit-learn, jointly": peers.scikit_learn(p),
        },
        (Target("BoTorch", OURS, at_least=10),),
    )


def own_frequencies(smoke: bool) -> Row:
    p = problem(60, 4, 64, 64, 4) if smoke else problem(500, 4, 1024, 256, 256)
    sampler = pgp.PathwiseSampler(posterior_of(p), p.n_features, share_features=False)
    paths, tests = sampler.sample_paths(jax.random.key(0), p.n_paths), jnp.asarray(p.tests)
    basis: Any = paths.features

    @jax.jit
    def by_native_cosines(basis: Any, weights: Any, X: Any) -> Any:
        # One path after the other, so that neither holds all features at once.
        def one(path: Any) -> Any:
            omega, phase, amplitude, w = path
            turns = jnp.matmul(X, omega.T, precision="highest") + phase[None, :]
            return jnp.matmul(jnp.cos(2 * math.pi * turns), amplitude * w, precision="highest")

        return jax.lax.map(one, (basis.frequencies, basis.phases, basis.amplitudes, weights))

    prior_alone = jax.jit(lambda f, w, X: pgp._paths.evaluate_prior(f, w, pgp.Values(X), share_features=False))
    return Row(
        f"A set of frequencies per path: N = {len(tests)}, F = {p.n_features}, S = {p.n_paths}, D = 4, {tests.dtype}",
        {
            "prior draws by jnp.cos": ready(lambda: by_native_cosines(basis, paths.weights, tests)),
            "prior draws": ready(lambda: prior_alone(basis, paths.weights, tests)),
            "paths": ready(lambda: paths(tests)),
        },
        (Target("prior draws by jnp.cos", "prior draws", at_least=8),),
    )


def _model(X: Any, y: Any) -> pgp.GPPrior:
    priors = {"lengthscale": dist.LogNormal(-1.2, 0.3), "variance": dist.LogNormal(0.0, 0.3)}
    prior = pgp.GPPrior(kernel=bridge.lift(pgp.RBF(1.0, 0.3), priors), X=X, jitter=1e-4)
    bridge.gp_factor("obs", prior, y, noise_var=0.01)
    return prior


def ensemble(smoke: bool) -> Row:
    n_draws, n_paths = (5, 2) if smoke else (120, 8)
    p = small(smoke)
    X, y, tests = (jnp.asarray(a) for a in (p.X, p.y, p.tests))
    rng = np.random.default_rng(0)
    samples = {
        f"RBF.{name}": jnp.asarray(centre * np.exp(0.2 * rng.standard_normal(n_draws)), X.dtype)
        for name, centre in (("lengthscale", 0.3), ("variance", 1.0))
    }
    key = jax.random.key(0)

    def at_once() -> Any:
        return bridge.posterior_paths(_model, samples, key, X, y, n_paths=n_paths, n_features=p.n_features)(tests)

    def loop() -> Any:
        values = []
        for i in range(n_draws):
            kernel = pgp.RBF(samples["RBF.variance"][i], samples["RBF.lengthscale"][i])
            posterior = pgp.GPPrior(kernel=kernel, X=X, jitter=1e-4).condition(y, 0.01)
            sampler = pgp.PathwiseSampler(posterior, p.n_features)
            values.append(sampler.sample_paths(jax.random.fold_in(key, i), n_paths)(tests))
        return jnp.stack(values)

    def loop_of_operations() -> Any:
        # As a script without a library has it: the formulas, one JAX operation at a time.
        values = []
        for i in range(n_draws):
            variance, lengthscale = samples["RBF.variance"][i], samples["RBF.lengthscale"][i]
            k = lambda A, B, v=variance, s=lengthscale: v * jnp.exp(-0.5 * ((A - B.T) / s) ** 2)
            lower = jnp.linalg.cholesky(k(X, X) + (0.01 + 1e-4) * jnp.eye(len(X)))
            for j in range(n_paths):
                keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, i), j), 4)
                omega = jax.random.normal(keys[0], (p.n_features, 1)) / lengthscale
                phase = jax.random.uniform(keys[1], (p.n_features,), maxval=2 * math.pi)
                w = jax.random.normal(keys[2], (p.n_features,))
                phi = lambda A, o=omega, b=phase, v=variance: jnp.sqrt(2 * v / p.n_features) * jnp.cos(A @ o.T + b)
                residual = y - phi(X) @ w - jnp.sqrt(0.01 + 1e-4) * jax.random.normal(keys[3], y.shape)
                alpha = jax.scipy.linalg.cho_solve((lower, True), residual)
                values.append(phi(tests) @ w + k(tests, X) @ alpha)
        return jnp.stack(values)

    script = "loop over draws, operation by operation"
    return Row(
        f"Ensemble: {n_draws} draws of hyperparameters, {n_paths} paths each, {len(tests)} points, n = {len(X)}, {X.dtype}",
        {OURS: ready(at_once), "loop over draws with the library": ready(loop), script: ready(loop_of_operations)},
        (Target(script, OURS, at_least=50),),
        (_with_compilation(at_once, loop_of_operations),),
    )


def _with_compilation(ours: Callable[[], Any], loop: Callable[[], Any]) -> str:
    """The first calls."""
    times = []
    for work in (ours, loop):
        jax.clear_caches()
        times.append(seconds(ready(work)))
    first, other = times
    return f"with compilation: loop / {OURS}: **{other / first:.3g}** (≥ 5): {other:.3g} s and {first:.3g} s"


def gradient(smoke: bool) -> Row:
    p = problem(40, 6, 8, 64, 4) if smoke else problem(500, 6, 64, 1024, 64)
    paths = paths_of(p)
    points = jax.random.uniform(jax.random.key(1), (p.n_paths, len(p.tests), 6), minval=-2, maxval=2)
    total = lambda X, paths: jnp.sum(paths.paired(X))
    derivative = eqx.filter_jit(jax.grad(total))
    values = eqx.filter_jit(lambda X, paths: paths.paired(X))
    return Row(
        f"Gradient: {p.n_paths} paths at {len(p.tests)} points each, n = {len(p.X)}, F = {p.n_features}, D = 6, float32",
        {"values": ready(lambda: values(points, paths)), "gradients": ready(lambda: derivative(points, paths))},
        (Target("gradients", "values", at_most=3),),
    )


def growth(smoke: bool) -> Row:
    p = problem(40, 4, 8, 64, 4) if smoke else problem(500, 4, 8, 1024, 64)
    paths, notes = paths_of(p), []
    counts = (100, 1000) if smoke else (10_000, 100_000, 1_000_000)
    for count in counts:
        X = jax.random.uniform(jax.random.key(1), (count, 4), minval=-2, maxval=2)
        jax.block_until_ready(paths(X))
        with PeakMemory() as memory:
            start = time.perf_counter()
            values = jax.block_until_ready(paths(X))
            taken = time.perf_counter() - start
        above = (memory.above - values.nbytes) / 2**20
        notes.append(
            f"N = {count:,}: {taken:.3g} s, {1e6 * taken / count:.3g} µs a point; memory above the result {above:.0f} MiB"
        )
        del values
    return Row(f"Growth: S = {p.n_paths}, n = {len(p.X)}, F = {p.n_features}, {X.dtype}", {}, (), tuple(notes))


def evidence(smoke: bool) -> Row:
    """The value and the gradient in all hyperparameters, a length for each dimension."""
    p = problem(40, 3, 8, 64, 4) if smoke else problem(1000, 3, 8, 64, 4)
    X, y, start = jnp.asarray(p.X), jnp.asarray(p.y), jnp.asarray([0.0, 0.0, 0.0, 0.0, -4.0])
    kernel_of = lambda z: pgp.RBF(jnp.exp(z[3]), jnp.exp(z[:3]))
    log_prob = lambda z, X, y: pgp.GPPrior(kernel=kernel_of(z), X=X).log_prob(y, jnp.exp(z[4]))

    def by_hand(z: Any, X: Any, y: Any) -> Any:
        scaled = X / jnp.exp(z[:3])
        K = jnp.exp(z[3] - 0.5 * jnp.sum((scaled[:, None] - scaled[None]) ** 2, axis=-1))
        lower = jnp.linalg.cholesky(K + jnp.exp(z[4]) * jnp.eye(len(X)))
        white = jax.scipy.linalg.solve_triangular(lower, y, lower=True)
        return -0.5 * jnp.sum(white**2) - jnp.sum(jnp.log(jnp.diagonal(lower))) - 0.5 * len(y) * math.log(2 * math.pi)

    contenders = {OURS: log_prob, "written by hand, differentiated by JAX": by_hand}
    if not isinstance(peer := peers.tinygp_evidence(), str):
        contenders["tinygp"] = peer
    calls = {name: jax.jit(jax.value_and_grad(function)) for name, function in contenders.items()}
    values = [float(call(start, X, y)[0]) for call in calls.values()]
    np.testing.assert_allclose(values, values[0], rtol=1e-6)
    pass_over_kernel = eqx.filter_jit(lambda z, X: kernel_of(z).matrix(X, X))
    A = np.asfortranarray(pass_over_kernel(start, X) + math.exp(-4.0) * np.eye(len(y)))

    def limit() -> Any:
        factor, _ = scipy.linalg.lapack.dpotrf(A, lower=1)
        scipy.linalg.lapack.dpotri(factor, lower=1, overwrite_c=1)
        return jax.block_until_ready(pass_over_kernel(start, X))

    least = LIMIT + "LAPACK's Cholesky factor and inverse, and the kernel"
    return Row(
        f"Evidence: value and gradient, n = {len(y)}, D = 3, {X.dtype}",
        {least: limit} | {name: ready(functools.partial(call, start, X, y)) for name, call in calls.items()},
        (Target(OURS, least, at_most=1.15),),
    )


def solve(smoke: bool) -> Row:
    """The mean and seven paths, by each solver; and how its time grows, at passes that are given."""
    p = problem(60, 8, 8, 64, 7) if smoke else problem(4000, 8, 8, 1024, 7)
    X, y = jnp.asarray(p.X), jnp.asarray(p.y)
    key, settings = jax.random.key(0), {"block": min(500, len(y) // 4), "throw": False}
    passes = pgp.BlockProjections(1e-6, 10, cache=0, **settings)
    solvers = {
        "Cholesky": pgp.Cholesky(),
        "conjugate gradients": pgp.ConjugateGradients(),
        "block projections, 20 passes": pgp.BlockProjections(1e-6, 20, **settings),
        "block projections, 10 passes, nothing held": passes,
        "the same for half of the points": passes,
    }
    kernel = pgp.Matern(1.5, 1.0, jnp.full((8,), 2 * p.lengthscale))
    draw = lambda X, y, solver: pgp.draw(pgp.GPPrior(kernel, X), y, p.noise_var, key, p.n_paths, solver=solver).paths
    calls = {name: eqx.filter_jit(functools.partial(draw, solver=solver)) for name, solver in solvers.items()}
    sizes = {name: len(y) // 2 if "half" in name else len(y) for name in calls}
    whole, half = list(calls)[-2:]
    return Row(
        f"Solve: the mean and {p.n_paths} paths, n = {len(y)}, D = 8, {X.dtype}",
        {name: ready(functools.partial(call, X[: sizes[name]], y[: sizes[name]])) for name, call in calls.items()},
        (Target(whole, half, at_most=4.6),),
    )


def processes(smoke: bool) -> Row:
    """A solve by two processes, which share the machine, beside one."""
    if smoke:  # a process takes longer to start than everything else here
        return Row("Two processes", {"two processes": "not with small sizes"})
    sizes, name = ["--n", "13500", "--dim", "8"], "projections, not cached"
    taken = {}
    for count in (1, 2):
        options = [*sizes, "--processes", str(count)]
        row, failed = scale.run_apart(name, options, scale.parsed([name, *options]))
        if failed:
            raise RuntimeError(row)
        taken[count] = float(row.split("|")[4])
    ratio = (
        f"core-seconds of two processes {taken[2]:.1f}, of one {taken[1]:.1f}: **{taken[2] / taken[1]:.3g}** (≤ 1.1)"
    )
    return Row("Two processes: the mean and 7 paths, n = 13500, D = 8, 20 passes, nothing held", {}, (), (ratio,))


def _problem_to_update(smoke: bool) -> tuple[pgp.ConditionedGP, Any, Any]:
    """A posterior of n points with room for 8 more, and these."""
    n = 24 if smoke else 1000
    p = problem(n + 8, 4, 8, 64, 4)
    prior = pgp.GPPrior(kernel=pgp.RBF(1.0, jnp.full((4,), p.lengthscale)), X=p.X[:n])
    posterior = prior.condition(p.y[:n], p.noise_var, capacity=n + 8)
    return posterior, jnp.asarray(p.X[n:]), jnp.asarray(p.y[n:])


def update_posterior(smoke: bool) -> Row:
    posterior, X, y = _problem_to_update(smoke)
    append = eqx.filter_jit(lambda posterior, X, y: posterior.condition(X, y))
    remove = eqx.filter_jit(lambda posterior, numbers: posterior.without(numbers))
    anew = eqx.filter_jit(lambda prior, y, noise_var, mask: prior.condition(y, noise_var, mask))
    full = posterior.condition(X, y)
    plain = anew(full.prior, full.y, full.noise_var, full.mask)
    again, one, eight = "all of them anew", "one new observation", "eight"
    all_again = _scan(lambda full, at: anew(full.prior, jnp.roll(full.y, at), full.noise_var, full.mask), plain)
    one_more = _scan(lambda posterior, at: posterior.condition(X[at][None], y[at][None]), posterior)
    often, in_turn = "eight times anew, in a scan", "one new observation, eight times in a scan"
    return Row(
        f"Update: n = {posterior.size} and room for 8 more, D = 4, {X.dtype}; in a jitted function",
        {
            again: ready(lambda: anew(full.prior, full.y, full.noise_var, full.mask)),
            one: ready(lambda: append(posterior, X[:1], y[:1])),
            eight: ready(lambda: append(posterior, X, y)),
            often: all_again,
            in_turn: one_more,
            "the oldest taken out": ready(lambda: remove(full, jnp.asarray([0]))),
            "one, called outside of jit": ready(lambda: posterior.condition(X[:1], y[:1])),
        },
        tuple(Target(slow, fast, at_least=10) for slow, fast in ((again, one), (again, eight), (often, in_turn))),
    )


def update_paths(smoke: bool) -> Row:
    posterior, X, y = _problem_to_update(smoke)
    n_features, n_paths = (64, 4) if smoke else (1024, 64)
    key, posterior_key = jax.random.split(jax.random.key(0))
    paths = pgp.PathwiseSampler(posterior, n_features).sample_paths(posterior_key, n_paths)
    ones, eights = posterior.condition(X[:1], y[:1]), posterior.condition(X, y)
    go_on = {m: eqx.filter_jit(functools.partial(_gone_on, n_new=m)) for m in (1, 8)}
    draw = eqx.filter_jit(lambda posterior, key: pgp.PathwiseSampler(posterior, n_features).sample_paths(key, n_paths))
    plain = eights.prior.condition(eights.y, eights.noise_var, eights.mask)
    again, one, eight = "drawn anew", "through one new observation", "through eight"
    often, in_turn = (
        "posterior and paths anew, eight times in a scan",
        "through one new observation, eight times in a scan",
    )

    def both_again(carry: tuple[Any, Any], at: Any) -> tuple[Any, Any]:
        full, _ = carry
        full = full.prior.condition(jnp.roll(full.y, at), full.noise_var, full.mask, check_scales=False)
        return full, draw(full, jax.random.fold_in(key, at))

    def both_go_on(carry: tuple[Any, Any], at: Any) -> tuple[Any, Any]:
        posterior, paths = carry
        posterior = posterior.condition(X[at][None], y[at][None])
        return posterior, paths.condition(posterior, jax.random.fold_in(key, at), 1)

    return Row(
        f"Update of paths: n = {posterior.size}, F = {n_features}, S = {n_paths}, D = 4, {X.dtype}; the posterior given, "
        "or in a scan with it",
        {
            again: ready(lambda: draw(eights, key)),
            one: ready(lambda: go_on[1](paths, ones, key)),
            eight: ready(lambda: go_on[8](paths, eights, key)),
            often: _scan(both_again, (plain, draw(plain, key))),
            in_turn: _scan(both_go_on, (posterior, paths)),
        },
        tuple(Target(slow, fast, at_least=10) for slow, fast in ((again, one), (again, eight), (often, in_turn))),
    )


def _scan(step: Callable[[Any, Any], Any], start: Any) -> Callable[[], Any]:
    """Eight steps from a number of 0 to 7, in one program."""
    arrays, rest = eqx.partition(start, eqx.is_array)

    @jax.jit
    def run(arrays: Any) -> Any:
        one = lambda carry, at: (eqx.filter(step(eqx.combine(carry, rest), at), eqx.is_array), None)
        return jax.lax.scan(one, arrays, jnp.arange(8))[0]

    return ready(lambda: run(arrays))


def _gone_on(paths: Any, posterior: Any, key: Any, n_new: int) -> Any:
    return paths.condition(posterior, key, n_new)


def optimisation(smoke: bool) -> Row:
    """A loop of Thompson sampling at given hyperparameters, from eight points on; all of it is timed."""
    n_rounds, batch = (2, 2) if smoke else (8, 4)
    dim, n_start, n_features = 4, 8, 64 if smoke else 512
    n_screen, n_restarts = (32, 2) if smoke else (1024, 8)
    kernel, noise_var = pgp.Matern(2.5, 1.0, jnp.full((dim,), 0.5)), 1e-4
    start = np.random.default_rng(0).uniform(size=(n_start, dim))
    f = lambda X: np.sum((np.asarray(X) - 0.3) ** 2, axis=-1)
    bounds = jnp.stack([jnp.zeros(dim), jnp.ones(dim)])

    def loop(capacity: int | None, rounds: int, times: list[float] | None = None) -> Any:
        posterior = pgp.GPPrior(kernel=kernel, X=start).condition(f(start), noise_var, capacity=capacity)
        for number in range(rounds):
            begun = time.perf_counter()
            key_paths, key_search = jax.random.split(jax.random.fold_in(jax.random.key(0), number))
            paths = pgp.PathwiseSampler(posterior, n_features).sample_paths(key_paths, batch)
            found = acquisition.thompson_sample(paths, bounds, key_search, n_screen=n_screen, n_restarts=n_restarts)
            points = found.points.reshape(batch, dim)
            posterior = jax.block_until_ready(posterior.condition(points, f(points)))
            if times is not None:
                times.append(time.perf_counter() - begun)
        return posterior

    total, notes = n_start + n_rounds * batch, []
    # Without room every round compiles: a few of them are enough.
    for name, capacity, rounds in ((OURS, total, n_rounds), ("without room", None, 1 if smoke else 3)):
        if not smoke:
            jax.clear_caches()
        times: list[float] = []
        with Compiled() as compiled:
            loop(capacity, rounds, times)
        later = f", the others {1e3 * float(np.median(times[1:])):.0f} ms" if rounds > 1 else ""
        notes.append(
            f"{name}, with compilation: round 1 {times[0]:.2f} s{later}; {compiled.count} programs in {rounds} rounds"
        )
    peer = peers.botorch_loop(start, f, noise_var, n_rounds, batch, n_screen, n_restarts)
    if not isinstance(peer, str) and not smoke:
        notes.append(f"BoTorch, the first time: {seconds(peer):.2f} s")
    return Row(
        f"Bayesian optimisation: {n_rounds} rounds of {batch} Thompson samples, n = {n_start} to {total}, D = {dim}, "
        f"F = {n_features}, {bounds.dtype}",
        {OURS: ready(lambda: loop(total, n_rounds)), "BoTorch": peer},
        (Target("BoTorch", OURS, at_least=2),),
        tuple(notes),
    )


def start(smoke: bool) -> Row:
    """Time to import, and to compile; each import in a fresh process."""

    def python(code: str) -> float:
        command = [
            sys.executable,
            "-c",
            f"import time; t = time.perf_counter(); {code}; print(time.perf_counter() - t)",
        ]
        # As a user has it, whose second import finds compiled files.
        kept = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}
        return float(subprocess.run(command, capture_output=True, text=True, check=True, env=kept).stdout)

    both, bridge_too = "import jax, equinox", "import pathwise_gp.numpyro_bridge"
    codes = {
        both: both,
        OURS: "import pathwise_gp",
        "pathwise_gp.numpyro_bridge": bridge_too,
        "numpyro": "import numpyro",
    }
    found: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(1 if smoke else 5):
        for name, code in codes.items():
            found[name].append(python(code))
    least = {name: min(times) for name, times in found.items()}
    p = small(smoke)
    tests, key = jnp.asarray(p.tests), jax.random.key(0)
    posterior = jax.block_until_ready(posterior_of(p))
    sampler = pgp.PathwiseSampler(posterior, p.n_features)
    drawing = time.perf_counter()
    paths = jax.block_until_ready(sampler.sample_paths(key, p.n_paths))
    calling = time.perf_counter()
    jax.block_until_ready(paths(tests))
    done = time.perf_counter()
    notes = [f"import, least of {len(found[both])}: " + ", ".join(f"{name} {t:.2f} s" for name, t in least.items())]
    notes.append(f"import of {OURS} / of jax and equinox: **{least[OURS] / least[both]:.3g}** (≤ 1.3)")
    notes.append(f"first `sample_paths` {calling - drawing:.2f} s, first call of the paths {done - calling:.2f} s")
    return Row("Start", {}, (), tuple(notes))


# By name: the row, and whether it runs in float64.
ROWS = {
    "evaluate": (evaluate_large, False),
    "evaluate64": (evaluate_large, True),
    "evaluate-small": (evaluate_small, False),
    "draw": (draw_large, False),
    "draw64": (draw_large, True),
    "draw-small": (draw_small, False),
    "own-frequencies": (own_frequencies, False),
    "ensemble": (ensemble, False),
    "gradient": (gradient, False),
    "evidence": (evidence, True),
    **{name: (row, True) for name, row in nuts.ROWS.items()},
    "growth": (growth, False),
    "solve": (solve, False),
    "processes": (processes, False),
    "update": (update_posterior, False),
    "update64": (update_posterior, True),
    "update-paths": (update_paths, False),
    "update-paths64": (update_paths, True),
    "optimisation": (optimisation, True),
    "start": (start, False),
}
