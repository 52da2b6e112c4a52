"""NUTS end to end, by the library and by others: the same priors, seeds and start, the same densities."""

import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from harness import Compiled, Row
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import init_to_value, MCMC, NUTS
from numpyro.infer.util import log_density

import pathwise_gp as pgp
from pathwise_gp import numpyro_bridge as bridge

# How often the sampling that is compiled is timed; the contenders take turns.
_TURNS = 3
# No step is longer than 63 leapfrogs: at first, before its length is adapted, a thousand would be possible.
_DEPTH = 6


class Work(NamedTuple):
    """A posterior of hyperparameters.

    **Fields:** `title`; `X`, `y`; `sites`: the prior of each, by name; `noise`: the variance, or its prior;
    `ours`, `by_hand` (the matrix of X), `tinygp`, `gpjax`: functions that make a kernel of the values of sites (ours of a
    function that samples them); `counts`: of draws to warm up and to keep.
    """

    title: str
    X: np.ndarray
    y: np.ndarray
    sites: dict[str, dist.Distribution]
    noise: float | dist.Distribution
    ours: Callable[[Callable[[], dict]], Any]
    by_hand: Callable[[dict, Any], Any]
    tinygp: Callable[[Any, dict], Any]
    gpjax: Callable[[Any, dict], Any]
    counts: tuple[int, int]


def _squared(X: Any, lengthscale: Any) -> Any:
    scaled = X / lengthscale
    return jnp.sum((scaled[:, None] - scaled[None]) ** 2, axis=-1)


def of_the_readme(n: int) -> Work:
    X = np.linspace(-1.5, 1.5, n)[:, None]
    prior = dist.LogNormal(math.log(0.3), 0.3)
    return Work(
        f"the model of the README, n = {n}",
        X,
        np.sin(3 * X[:, 0]),
        {"RBF.lengthscale": prior},
        0.02,
        lambda sample: bridge.lift(pgp.RBF(1.0, 0.3), {"lengthscale": prior}),  # a site of the same name
        lambda t, X: jnp.exp(-0.5 * _squared(X, t["RBF.lengthscale"])),
        lambda of, t: of.kernels.ExpSquared(t["RBF.lengthscale"], of.kernels.L2Distance()),
        lambda of, t: of.kernels.RBF(lengthscale=t["RBF.lengthscale"], variance=1.0),
        (200, 100),
    )


def of_lengthscales(n: int) -> Work:
    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, (n, 3))

    def tinygp(of: Any, t: dict) -> Any:
        return t["variance"] * of.transforms.Linear(
            1 / t["lengthscale"], of.kernels.ExpSquared(distance=of.kernels.L2Distance())
        )

    return Work(
        f"a lengthscale for each of three dimensions, n = {n}",
        X,
        np.sin(X.sum(1)) + 0.1 * rng.standard_normal(n),
        {
            "lengthscale": dist.LogNormal(jnp.zeros(3), 0.5).to_event(1),
            "variance": dist.LogNormal(0.0, 0.5),
        },
        dist.LogNormal(-4.0, 0.5),
        lambda sample: pgp.RBF((t := sample())["variance"], t["lengthscale"]),
        lambda t, X: t["variance"] * jnp.exp(-0.5 * _squared(X, t["lengthscale"])),
        tinygp,
        lambda of, t: of.kernels.RBF(lengthscale=t["lengthscale"], variance=t["variance"]),
        (200, 200),
    )


def of_three_terms(n: int) -> Work:
    rng = np.random.default_rng(0)
    X = np.sort(rng.uniform(0, 10, n))[:, None]
    x = X[:, 0]
    names = ("trend", "season", "rough")
    sites: dict[str, dist.Distribution] = {f"{name} variance": dist.LogNormal(0.0, 1.0) for name in names}
    sites |= {
        f"{name} lengthscale": dist.LogNormal(math.log(at), 0.5)
        for name, at in zip(names, (4.0, 1.0, 0.5), strict=True)
    }
    parts = lambda t: [(t[f"{name} variance"], t[f"{name} lengthscale"]) for name in names]

    def ours(sample: Callable[[], dict]) -> Any:
        (v, a), (w, b), (u, c) = parts(sample())
        return pgp.RBF(v, a) + pgp.Periodic(w, b, 1.0) + pgp.Matern(1.5, u, c)

    def by_hand(t: dict, X: Any) -> Any:
        (v, a), (w, b), (u, c) = parts(t)
        distance = jnp.abs(X - X.T)
        scaled = math.sqrt(3) * distance / c
        season = jnp.exp(-2 * (jnp.sin(jnp.pi * distance) / b) ** 2)
        return v * jnp.exp(-0.5 * (distance / a) ** 2) + w * season + u * (1 + scaled) * jnp.exp(-scaled)

    def tinygp(of: Any, t: dict) -> Any:
        (v, a), (w, b), (u, c) = parts(t)
        season = of.kernels.ExpSineSquared(jnp.asarray(1.0), gamma=2 / b**2)
        return v * of.kernels.ExpSquared(a) + w * season + u * of.kernels.Matern32(c)

    def gpjax(of: Any, t: dict) -> Any:
        (v, a), (w, b), (u, c) = parts(t)
        k = of.kernels
        season = k.Periodic(lengthscale=b / 2, variance=w, period=1.0)
        return k.RBF(lengthscale=a, variance=v) + season + k.Matern32(lengthscale=c, variance=u)

    return Work(
        f"a sum of three kernels, n = {n}",
        X,
        0.3 * x + np.sin(2 * np.pi * x) + 0.3 * np.sin(5 * x**1.2) + 0.1 * rng.standard_normal(n),
        sites,
        dist.LogNormal(-4.0, 0.5),
        ours,
        by_hand,
        tinygp,
        gpjax,
        (30, 30),
    )


def models_of(work: Work) -> dict[str, Callable[..., Any] | str]:
    """Each contender as a model of NumPyro, or why it is missing."""
    noise = lambda: work.noise if isinstance(work.noise, float) else numpyro.sample("noise", work.noise)
    sample = lambda: {name: numpyro.sample(name, prior) for name, prior in work.sites.items()}

    def ours(X: Any, y: Any) -> None:
        bridge.gp_factor("obs", pgp.GPPrior(kernel=work.ours(sample), X=X), y, noise_var=noise())

    def by_hand(X: Any, y: Any) -> None:
        A = work.by_hand(sample(), X) + noise() * jnp.eye(len(X))
        numpyro.sample("obs", dist.MultivariateNormal(jnp.zeros(len(X)), A), obs=y)

    models: dict[str, Callable[..., Any] | str] = {"pathwise_gp": ours, "written by hand": by_hand}
    try:
        import tinygp

        def with_tinygp(X: Any, y: Any) -> None:
            process = tinygp.GaussianProcess(work.tinygp(tinygp, sample()), X, diag=noise())
            numpyro.sample("obs", process.numpyro_dist(), obs=y)

        models["tinygp"] = with_tinygp
    except ImportError as e:
        models["tinygp"] = f"not installed ({e.name})"
    try:
        import gpjax

        def with_gpjax(X: Any, y: Any) -> None:
            kernel = work.gpjax(gpjax, sample())
            prior = gpjax.gps.Prior(mean_function=gpjax.mean_functions.Zero(), kernel=kernel, jitter=0.0)
            posterior = prior * gpjax.likelihoods.Gaussian(obs_stddev=jnp.sqrt(noise()))
            numpyro.factor("obs", gpjax.objectives.conjugate_mll(posterior, gpjax.Dataset(X, y[:, None])))

        models["GPJax"] = with_gpjax
    except ImportError as e:
        models["GPJax"] = f"not installed ({e.name})"
    return models


def row(work: Work, smoke: bool) -> Row:
    X, y = jnp.asarray(work.X), jnp.asarray(work.y)
    priors = work.sites if isinstance(work.noise, float) else work.sites | {"noise": work.noise}
    start = {name: prior.mean for name, prior in priors.items()}
    models = models_of(work)
    missing = {name: model for name, model in models.items() if isinstance(model, str)}
    there = {name: model for name, model in models.items() if not isinstance(model, str)}
    density = lambda model: log_density(model, (X, y), {}, start)[0]
    values = [float(jax.jit(density, static_argnums=0)(model)) for model in there.values()]
    np.testing.assert_allclose(values, values[0], rtol=1e-6)
    title = f"NUTS: {work.title}, {X.dtype}"
    if smoke:  # a chain takes longer to compile than everything else here
        return Row(title, {}, (), tuple(f"{name}: {reason}" for name, reason in missing.items()))

    n_warmup, n_samples = work.counts
    again, first = {}, {}
    for name, model in there.items():
        kernel = NUTS(model, init_strategy=init_to_value(values=start), max_tree_depth=_DEPTH)
        chain = MCMC(kernel, num_warmup=n_warmup, num_samples=n_samples, progress_bar=False)
        jax.clear_caches()
        began = time.process_time()
        with Compiled() as compiled:
            chain.run(jax.random.key(1), X, y)
            jax.block_until_ready(chain.get_samples())
        first[name] = (time.process_time() - began, compiled.count)
        again[name] = functools.partial(_going_on(kernel, n_samples, X, y), chain.last_state)
        jax.block_until_ready(again[name]())
    seconds: dict[str, list[float]] = {name: [] for name in again}
    for _ in range(_TURNS):
        for name, work_again in again.items():
            began = time.perf_counter()
            jax.block_until_ready(work_again())
            seconds[name].append(time.perf_counter() - began)
    notes = []
    for name, work_again in again.items():
        draws, steps = work_again()
        took = float(np.median(seconds[name]))
        ess = min(float(np.min(effective_sample_size(np.asarray(v)[None]))) for v in draws.values())
        cpu, programs = first[name]
        notes.append(
            f"{name}: **{1e3 * took / int(steps):.3g} ms** a leapfrog step ({int(steps) / n_samples:.1f} a draw), "
            f"{ess / took:.3g} effective draws a second; the first time {cpu:.3g} CPU s for {n_warmup} + {n_samples} draws, "
            f"{programs} programs"
        )
    return Row(title, {}, (), tuple(notes + [f"{name}: {reason}" for name, reason in missing.items()]))


def _going_on(kernel: NUTS, n_samples: int, X: Any, y: Any) -> Callable[[Any], Any]:
    """Draws from where a chain has got to, and their leapfrog steps, as one program: a run of NumPyro may compile anew."""

    def step(state: Any, _: None) -> Any:
        state = kernel.sample(state, (X, y), {})
        return state, (state.z, state.num_steps)

    def draw(state: Any) -> Any:
        draws, steps = jax.lax.scan(step, state, None, n_samples)[1]
        return draws, jnp.sum(steps)

    return jax.jit(draw)


ROWS = {
    "nuts": lambda smoke: row(of_the_readme(28), smoke),
    "nuts-lengthscales": lambda smoke: row(of_lengthscales(20 if smoke else 200), smoke),
    "nuts-sum": lambda smoke: row(of_three_terms(20 if smoke else 500), smoke),
}
