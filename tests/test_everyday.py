"""What models are made of every day, each beside the same model written by hand in NumPyro: one density, one gradient, and an
inference of each kind that ends in paths.

The inferences run in a process of their own with two devices and a limit of time, so that one that hangs is a failure:
`python tests/test_everyday.py FILE` runs them.
"""

import json
import os
import pathlib
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import autoguide, log_likelihood, MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.util import potential_energy
from scipy import special, stats

import pathwise_gp as pgp
from pathwise_gp import numpyro_bridge as bridge

pytestmark = pytest.mark.usefixtures("standard_promotion")

JITTER = 1e-6
rng = np.random.default_rng(0)
X = np.sort(rng.uniform(-1, 1, (7, 1)), axis=0)
Y = np.sin(3 * X[:, 0]) + 0.1 * rng.normal(size=7)
SIZES = (6, 3, 1)  # of groups
MASKS = np.arange(6) < np.asarray(SIZES)[:, None]
XS, YS = rng.uniform(-1, 1, (3, 6, 1)), rng.normal(size=(3, 6))
X2 = rng.uniform(-1, 1, (8, 2))
SEEN = np.arange(8) % 4 != 1
Y2 = np.where(SEEN, np.sin(3 * X2[:, 0]) + X2[:, 1] + 0.05 * rng.normal(size=8), np.nan)
POSITIVE = dist.LogNormal(-0.5, 0.4)


def rbf(variance, lengthscale, X, Z):
    return variance * jnp.exp(-0.5 * (X[:, None, 0] - Z[None, :, 0]) ** 2 / lengthscale**2)


def matern(variance, lengthscale, X, Z):
    r = jnp.sqrt(3.0) * jnp.abs(X[:, None, 0] - Z[None, :, 0]) / lengthscale
    return variance * (1 + r) * jnp.exp(-r)


def plus(K, variance):
    return K + variance * jnp.eye(len(K))


def white(name, K, mean=0.0):
    """f = m + L z."""
    z = numpyro.sample(f"{name}.white", dist.Normal(0.0, 1.0).expand([len(K)]).to_event(1))
    return mean + jnp.linalg.cholesky(plus(K, JITTER)) @ z


# ------------------------------------------------------------------ groups of different sizes, which share what they know


def groups():
    mu, tau = numpyro.sample("mu", dist.Normal(-0.5, 0.5)), numpyro.sample("tau", dist.HalfNormal(0.5))
    kernel = bridge.lift(pgp.RBF(1.0, 1.0), {"variance": POSITIVE})
    with numpyro.plate("group", 3):
        kernels = bridge.lift(kernel, {"lengthscale": dist.LogNormal(mu, tau)})
        noise = numpyro.sample("noise", dist.LogNormal(-3.0, 0.5))
        priors = kernels.map(lambda kernel, X: pgp.GPPrior(kernel=kernel, X=X, jitter=JITTER), XS)
        bridge.gp_factor("obs", priors, np.where(MASKS, YS, np.nan), noise, MASKS)
    return priors


def groups_by_hand():
    mu, tau = numpyro.sample("mu", dist.Normal(-0.5, 0.5)), numpyro.sample("tau", dist.HalfNormal(0.5))
    variance = numpyro.sample("RBF.variance", POSITIVE)
    with numpyro.plate("group", 3):
        scale = numpyro.sample("RBF.lengthscale", dist.LogNormal(mu, tau))
        noise = numpyro.sample("noise", dist.LogNormal(-3.0, 0.5))
    for g, n in enumerate(SIZES):
        A = plus(rbf(variance, scale[g], XS[g, :n], XS[g, :n]), noise[g] + JITTER)
        numpyro.sample(f"obs{g}", dist.MultivariateNormal(jnp.zeros(n), A), obs=YS[g, :n])


def mean_of_groups(draw, Z):
    def one(g, n):
        here, scale, variance = XS[g, :n], draw["RBF.lengthscale"][g], draw["RBF.variance"]
        A = plus(rbf(variance, scale, here, here), draw["noise"][g] + JITTER)
        return rbf(variance, scale, Z, here) @ jnp.linalg.solve(A, YS[g, :n])

    return jnp.stack([one(g, n) for g, n in enumerate(SIZES)])


# ------------------------------------------------------------------ inputs that were measured with an error


def inputs():
    kernel = bridge.lift(pgp.Matern(1.5, 1.0, 0.5), {"*": POSITIVE})
    prior = pgp.GPPrior(kernel=kernel, X=X, mean=0.3, jitter=JITTER)
    prior = bridge.lift(prior, {"X": dist.Normal(X, 0.1).to_event(2)})
    bridge.gp_factor("obs", prior, Y, 0.02)
    return prior


def inputs_by_hand():
    variance, scale = numpyro.sample("Matern.variance", POSITIVE), numpyro.sample("Matern.lengthscale", POSITIVE)
    there = numpyro.sample("GPPrior.X", dist.Normal(X, 0.1).to_event(2))
    A = plus(matern(variance, scale, there, there), 0.02 + JITTER)
    numpyro.sample("obs", dist.MultivariateNormal(jnp.full(7, 0.3), A), obs=Y)


def mean_of_inputs(draw, Z):
    there, theta = draw["GPPrior.X"], (draw["Matern.variance"], draw["Matern.lengthscale"])
    A = plus(matern(*theta, there, there), 0.02 + JITTER)
    return 0.3 + matern(*theta, Z, there) @ jnp.linalg.solve(A, Y - 0.3)


# ------------------------------------------------------------------ noise that depends on the input


def noisy():
    level = bridge.lift(pgp.RBF(1.0, 0.5), {"lengthscale": POSITIVE}, name="level")
    spread = bridge.lift(pgp.RBF(0.5, 1.0), {"variance": POSITIVE}, name="spread")
    f, g = (pgp.GPPrior(kernel=k, X=X, mean=m, jitter=JITTER) for k, m in ((level, 0.0), (spread, -2.0)))
    values = bridge.gp_sample("f", f), bridge.gp_sample("g", g)
    with numpyro.plate("rows", 7):
        numpyro.sample("obs", dist.Normal(values[0], jnp.exp(values[1])), obs=Y)
    return f, g


def noisy_by_hand():
    scale, variance = numpyro.sample("level.lengthscale", POSITIVE), numpyro.sample("spread.variance", POSITIVE)
    f, g = white("f", rbf(1.0, scale, X, X)), white("g", rbf(variance, 1.0, X, X), -2.0)
    numpyro.sample("obs", dist.Normal(f, jnp.exp(g)).to_event(1), obs=Y)


def mean_of_noisy(draw, Z):
    def through(z, variance, scale, mean):
        K = plus(rbf(variance, scale, X, X), JITTER)
        return mean + rbf(variance, scale, Z, X) @ jnp.linalg.solve(K, jnp.linalg.cholesky(K) @ z)

    return jnp.stack(
        [
            through(draw["f.white"], 1.0, draw["level.lengthscale"], 0.0),
            through(draw["g.white"], draw["spread.variance"], 1.0, -2.0),
        ]
    )


# ------------------------------------------------------------------ outliers


def outliers():
    kernel = bridge.lift(pgp.RBF(1.0, 0.5), {"*": POSITIVE})
    prior = pgp.GPPrior(kernel=kernel, X=X, jitter=JITTER)
    f = bridge.gp_sample("f", prior)
    scale = numpyro.sample("scale", dist.HalfNormal(0.5))
    with numpyro.plate("rows", 7):
        numpyro.sample("obs", dist.StudentT(4.0, f, scale), obs=Y)
    return prior


def outliers_by_hand():
    variance, scale = numpyro.sample("RBF.variance", POSITIVE), numpyro.sample("RBF.lengthscale", POSITIVE)
    f = white("f", rbf(variance, scale, X, X))
    numpyro.sample("obs", dist.StudentT(4.0, f, numpyro.sample("scale", dist.HalfNormal(0.5))).to_event(1), obs=Y)


def mean_of_outliers(draw, Z):
    variance, scale = draw["RBF.variance"], draw["RBF.lengthscale"]
    K = plus(rbf(variance, scale, X, X), JITTER)
    return rbf(variance, scale, Z, X) @ jnp.linalg.solve(K, jnp.linalg.cholesky(K) @ draw["f.white"])


# ------------------------------------------------------------------ a sum of what single inputs do, and points without values


def additive():
    of = (pgp.RBF(1.0, 0.5), 0), (pgp.Matern(1.5, 1.0, 0.5), 1), (pgp.Linear(1.0), 1)
    kernel = pgp.Sum(tuple(pgp.ActiveDims(kernel, [dim]) for kernel, dim in of))
    kernel = bridge.lift(kernel, {"*": POSITIVE}, name="k")
    noise = numpyro.sample("noise", dist.LogNormal(-3.0, 0.5).expand([8]).to_event(1))
    prior = pgp.GPPrior(kernel=kernel, X=X2, mean=0.3, jitter=JITTER)
    bridge.gp_factor("obs", prior, Y2, noise, SEEN)
    return prior


TERMS = (
    "k.kernels[0].kernel.variance",
    "k.kernels[0].kernel.lengthscale",
    "k.kernels[1].kernel.variance",
    "k.kernels[1].kernel.lengthscale",
    "k.kernels[2].kernel.variance",
)


def terms(draw, X, Z):
    a, b, c, d, e = (draw[name] for name in TERMS)
    return jnp.stack(
        [rbf(a, b, X[:, :1], Z[:, :1]), matern(c, d, X[:, 1:], Z[:, 1:]), e * X[:, 1, None] * Z[None, :, 1]]
    )


def additive_by_hand():
    draw = {name: numpyro.sample(name, POSITIVE) for name in TERMS}
    noise = numpyro.sample("noise", dist.LogNormal(-3.0, 0.5).expand([8]).to_event(1))
    here = X2[SEEN]
    A = terms(draw, here, here).sum(0) + jnp.diag(noise[np.flatnonzero(SEEN)] + JITTER)
    numpyro.sample("obs", dist.MultivariateNormal(jnp.full(6, 0.3), A), obs=Y2[SEEN])


def parts_of_additive(draw, Z):
    here = X2[SEEN]
    A = terms(draw, here, here).sum(0) + jnp.diag(draw["noise"][np.flatnonzero(SEEN)] + JITTER)
    return terms(draw, Z, here) @ jnp.linalg.solve(A, Y2[SEEN] - 0.3)


def mean_of_additive(draw, Z):
    return 0.3 + parts_of_additive(draw, Z).sum(0)


class Everyday(NamedTuple):
    """A model, the same by hand, the mean of its process given a draw, and the inferences that it is run by."""

    model: Callable[[], Any]
    by_hand: Callable[[], Any]
    mean: Callable[..., Any]
    Z: np.ndarray
    methods: tuple[str, ...]


CHAINS = ("vectorized", "sequential", "parallel")
TEST = np.linspace(-1.2, 1.2, 4)[:, None]
MODELS = {
    "groups": Everyday(groups, groups_by_hand, mean_of_groups, TEST, CHAINS),
    "inputs": Everyday(inputs, inputs_by_hand, mean_of_inputs, TEST, ("vectorized",)),
    "noise": Everyday(noisy, noisy_by_hand, mean_of_noisy, TEST, ("parallel",)),
    "outliers": Everyday(outliers, outliers_by_hand, mean_of_outliers, TEST, ("vectorized", "MAP")),
    "additive": Everyday(additive, additive_by_hand, mean_of_additive, X2[:4] + 0.1, ("SVI",)),
}


def unknowns(function):
    """Shapes of the sites that are not observed."""

    def values(key):
        trace = handlers.trace(handlers.seed(function, key)).get_trace()
        return {k: site["value"] for k, site in trace.items() if site["type"] == "sample" and not site["is_observed"]}

    return {k: value.shape for k, value in jax.eval_shape(values, jax.random.key(0)).items()}


@pytest.mark.parametrize("name", MODELS)
def test_the_density_is_that_of_the_model_by_hand(name):
    row = MODELS[name]
    shapes = unknowns(row.model)
    assert shapes == unknowns(row.by_hand)
    # Of unconstrained values, as NUTS sees it.
    both = [
        jax.jit(jax.value_and_grad(lambda z, function=function: potential_energy(function, (), {}, z)))
        for function in (row.model, row.by_hand)
    ]
    for seed in range(4):
        rng = np.random.default_rng(seed)
        z = {k: 0.7 * rng.normal(size=shape) for k, shape in shapes.items()}
        (value, slope), (wanted, wanted_slope) = (function(z) for function in both)
        np.testing.assert_allclose(value, wanted, rtol=1e-8)
        scale = max(np.abs(part).max() for part in wanted_slope.values())
        for site in shapes:
            np.testing.assert_allclose(slope[site], wanted_slope[site], rtol=0, atol=1e-8 * scale)


# ------------------------------------------------------------------ inference


def infer(model, method, key):
    """Draws by chain, as a method finds them."""
    if method in CHAINS:
        kernel = NUTS(model, max_tree_depth=3)
        mcmc = MCMC(kernel, num_warmup=4, num_samples=4, num_chains=2, chain_method=method, progress_bar=False)
        mcmc.run(key)
        return mcmc.get_samples(group_by_chain=True), mcmc

    @jax.jit  # as a guide finds its first values one operation at a time
    def by_guide(key):
        guide = {"SVI": autoguide.AutoNormal, "MAP": autoguide.AutoDelta}[method](model)
        result = SVI(model, guide, numpyro.optim.Adam(0.05), Trace_ELBO()).run(key, 20, progress_bar=False)
        return guide.sample_posterior(key, result.params, sample_shape=(2, 4)), result.losses

    return by_guide(key)


def main(file):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that ArviZ will be another one day
        import arviz
    jax.config.update("jax_enable_x64", True)
    results = {}
    for name, row in MODELS.items():
        for method in row.methods:
            draws, found = infer(row.model, method, jax.random.key(0))
            draws = {k: v for k, v in draws.items() if k not in ("f", "g")}  # deterministic
            settings = {"n_paths": 2, "n_features": 16, "group_by_chain": True}
            ensemble = bridge.posterior_paths(row.model, draws, jax.random.key(1), **settings)
            ensembles = ensemble if isinstance(ensemble, tuple) else (ensemble,)
            record = results[f"{name}, {method}"] = {
                "draws": draws,
                "paths": [e(row.Z) for e in ensembles],
                "means": [e.mean_path(row.Z) for e in ensembles],
            }
            if name == "additive":
                record["parts"] = [part.mean_path(row.Z) for part in ensemble.components()]
            if name == "groups" and method == "parallel":
                left = bridge.leave_one_out(row.model, draws, jax.random.key(2), group_by_chain=True)
                record |= loo(arviz.from_numpyro(found, log_likelihood=False), np.asarray(left)[..., MASKS])
            if name == "outliers" and method == "vectorized":
                record |= loo(arviz.from_numpyro(found))
            if not isinstance(found, MCMC):
                record["losses"] = found
    listed = jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), results | {"devices": jax.local_device_count()})
    pathlib.Path(file).write_text(json.dumps(listed))


def loo(data, pointwise=None):
    import arviz

    if pointwise is not None:
        data.add_groups(log_likelihood={"obs": pointwise})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a few draws are few
        found = arviz.loo(data, pointwise=True)
    return {"pointwise": data.log_likelihood["obs"].values, "loo": found.loo_i.values, "elpd": found.elpd_loo}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    file = tmp_path_factory.mktemp("everyday") / "found.json"
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, __file__, str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=os.environ | {"XLA_FLAGS": flags},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(file.read_text())


RUNS = [(name, method) for name, row in MODELS.items() for method in row.methods]


@pytest.mark.parametrize(("name", "method"), RUNS, ids=[", ".join(run) for run in RUNS])
def test_inference_ends_in_paths_of_its_draws(name, method, found):
    assert found["devices"] == 2
    row, run = MODELS[name], found[f"{name}, {method}"]
    draws = {site: np.asarray(value) for site, value in run["draws"].items()}
    assert {value.shape[:2] for value in draws.values()} == {(2, 4)}
    assert all(np.isfinite(value).all() for value in draws.values())
    if method == "MAP":
        assert all(np.ptp(value, axis=(0, 1)).max() == 0 for value in draws.values())
    else:
        for value in draws.values():
            assert not np.allclose(value[0], value[1])  # chains of their own
    if "losses" in run:
        assert np.mean(run["losses"][-5:]) < np.mean(run["losses"][:5])
    wanted = np.asarray(jax.jit(jax.vmap(jax.vmap(lambda draw: row.mean(draw, row.Z))))(draws))
    means, paths = (np.asarray(run[kind]) for kind in ("means", "paths"))
    means, paths = (np.moveaxis(v, 0, 2) if len(v) > 1 else v[0] for v in (means, paths))  # processes behind draws
    assert np.isfinite(paths).all()
    assert paths.shape == (*wanted.shape[:-1], 2, len(row.Z))
    np.testing.assert_allclose(means, wanted, rtol=0, atol=1e-7 * np.abs(wanted).max())
    if name == "additive":
        parts = np.asarray(jax.jit(jax.vmap(jax.vmap(lambda draw: parts_of_additive(draw, row.Z))))(draws))
        np.testing.assert_allclose(np.asarray(run["parts"][:-1]), np.moveaxis(parts, 2, 0), rtol=0, atol=1e-9)
        np.testing.assert_allclose(run["parts"][-1], 0.3)  # the mean


def test_chains_of_every_kind_draw_the_same(found):
    runs = [found[f"groups, {method}"]["draws"] for method in CHAINS]
    for other in runs[1:]:
        for site, value in runs[0].items():
            np.testing.assert_allclose(other[site], value, rtol=1e-5)


def likelihood_of_outliers(draw):
    K = plus(rbf(draw["RBF.variance"], draw["RBF.lengthscale"], X, X), JITTER)
    return dist.StudentT(4.0, jnp.linalg.cholesky(K) @ draw["f.white"], draw["scale"]).log_prob(Y)


def left_out_of_groups(draw):
    """log p(y) - log p(all but one), by which a point is left out."""

    def density(g, there):
        """Of some points of a group: the others are 0 with a variance of 1, independently."""
        A = plus(rbf(draw["RBF.variance"], draw["RBF.lengthscale"][g], XS[g], XS[g]), draw["noise"][g] + JITTER)
        A = jnp.where(there[:, None] & there[None, :], A, np.eye(6))
        others = stats.norm.logpdf(0.0) * np.sum(~there)
        return dist.MultivariateNormal(np.zeros(6), A).log_prob(np.where(there, YS[g], 0.0)) - others

    return jnp.stack(
        [
            density(g, MASKS[g]) - density(g, MASKS[g] & (np.arange(6) != i))
            for g, n in enumerate(SIZES)
            for i in range(n)
        ]
    )


@pytest.mark.parametrize(
    ("run", "by_hand"), [("outliers, vectorized", likelihood_of_outliers), ("groups, parallel", left_out_of_groups)]
)
def test_arviz_leaves_out_each_observation(run, by_hand, found):
    draws = {site: np.asarray(value) for site, value in found[run]["draws"].items()}
    values = np.asarray(jax.jit(jax.vmap(jax.vmap(by_hand)))(draws))
    np.testing.assert_allclose(found[run]["pointwise"], values, rtol=1e-8, atol=1e-8)
    # So few draws that no tail is smoothed: plain importance weights.
    plain = np.log(8) - special.logsumexp(-values.reshape(8, -1), axis=0)
    np.testing.assert_allclose(found[run]["loo"], plain, rtol=1e-6)
    np.testing.assert_allclose(found[run]["elpd"], np.sum(plain), rtol=1e-6)


def test_the_likelihood_of_each_observation_is_that_of_a_plate():
    """Which is what ArviZ looks for; without the plate it would be one number for all."""
    draws = {"RBF.variance": 0.8, "RBF.lengthscale": 0.6, "scale": 0.2, "f.white": np.linspace(-1, 1, 7)}
    each = lambda model: lambda draws: log_likelihood(model, draws)["obs"]
    stacked = {site: np.asarray(value)[None] for site, value in draws.items()}
    wanted = jax.jit(jax.vmap(likelihood_of_outliers))(stacked)
    np.testing.assert_allclose(jax.jit(each(outliers))(stacked), wanted, rtol=1e-8)
    assert jax.eval_shape(each(outliers_by_hand), stacked).shape == (1,)


if __name__ == "__main__":
    main(sys.argv[1])
