"""The whole chain from prior to paths: chains of every kind, what ArviZ makes of them, and simulation-based calibration."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS
from scipy import stats

import pathwise_gp as pgp
from pathwise_gp import numpyro_bridge as bridge

pytestmark = pytest.mark.usefixtures("standard_promotion")

CHAINS = """
import json, warnings
import jax, numpy as np, numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS
import pathwise_gp as pgp
from pathwise_gp import numpyro_bridge as bridge

jax.config.update("jax_enable_x64", True)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that ArviZ will be another one day
    import arviz
X = np.linspace(-1, 1, 12)[:, None]
Y = np.sin(3 * X[:, 0]) + 0.1 * np.cos(20 * X[:, 0])


def model(X, y):
    kernel = bridge.lift(pgp.RBF(1.0, 0.4), {"*": dist.LogNormal(-0.5, 0.3)})
    prior = pgp.GPPrior(kernel=kernel, X=X, jitter=1e-6)
    bridge.gp_factor("obs", prior, y, 0.02)
    return prior


mcmc = MCMC(NUTS(model), num_warmup=60, num_samples=60, num_chains=2, chain_method="vectorized", progress_bar=False)
mcmc.run(jax.random.key(0), X, Y)
samples = mcmc.get_samples(group_by_chain=True)
data = arviz.from_numpyro(mcmc, log_likelihood=False)
pointwise = bridge.leave_one_out(model, samples, jax.random.key(2), X, Y, group_by_chain=True)
data.add_groups(log_likelihood={"obs": np.asarray(pointwise)})
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of a weight or two that vary
    loo = arviz.loo(data, pointwise=True)
summary = arviz.summary(data)
draws = [samples[name].reshape(-1).tolist() for name in ("RBF.variance", "RBF.lengthscale")]
joint = np.asarray(arviz.from_numpyro(mcmc).log_likelihood["obs"]).tolist()
print(json.dumps({
    "elpd": float(loo.elpd_loo), "each": np.asarray(loo.loo_i).tolist(), "names": list(data.posterior),
    "groups": sorted(data.groups()), "stats": sorted(data.sample_stats), "rows": list(summary.index), "draws": draws,
    "joint": joint,
}))
"""


@pytest.fixture(scope="module")
def chains():
    done = subprocess.run([sys.executable, "-c", CHAINS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_arviz_finds_its_groups_and_leaves_out_one_at_a_time(chains):
    assert {"posterior", "sample_stats", "observed_data", "log_likelihood"} <= set(chains["groups"])
    assert "diverging" in chains["stats"]
    assert chains["names"] == chains["rows"] == ["RBF.lengthscale", "RBF.variance"]
    # Against refitting without each observation, by quadrature over the hyperparameters.
    X = np.linspace(-1, 1, 12)[:, None]
    y = np.sin(3 * X[:, 0]) + 0.1 * np.cos(20 * X[:, 0])
    grid = np.linspace(-1.6, 0.6, 41)
    a, b = (part.ravel() for part in np.meshgrid(grid, grid, indexing="ij"))

    def both(variance, scale):
        posterior = pgp.GPPrior(kernel=pgp.RBF(jnp.exp(variance), jnp.exp(scale)), X=X, jitter=1e-6).condition(y, 0.02)
        return posterior.log_marginal_likelihood(), posterior.leave_one_out().log_density

    whole, left = jax.jit(jax.vmap(both))(a, b)
    prior = stats.norm(-0.5, 0.3).logpdf(a) + stats.norm(-0.5, 0.3).logpdf(b)
    others = np.asarray(whole)[:, None] - np.asarray(left) + prior[:, None]  # density of all others, and prior
    weights = np.exp(others - others.max(0))
    exact = np.log((weights / weights.sum(0) * np.exp(left)).sum(0))
    np.testing.assert_allclose(chains["each"], exact, atol=0.15)
    assert abs(chains["elpd"] - exact.sum()) < 0.4
    # The one factor that NumPyro sees is the joint density of all observations.
    one = lambda v, s: pgp.GPPrior(kernel=pgp.RBF(v, s), X=X, jitter=1e-6).log_prob(y, 0.02)
    expected = jax.vmap(one)(*map(jnp.asarray, chains["draws"]))
    np.testing.assert_allclose(np.ravel(chains["joint"]), expected, rtol=1e-6)


N, NOISE, DRAWS, TESTS = 6, 0.05, 63, 256
X = np.linspace(-1, 1, N)[:, None]
POINTS = jnp.asarray([[-0.5], [0.1], [1.4]])


def model(X, y):
    kernel = bridge.lift(
        pgp.RBF(1.0, 0.5), {"variance": dist.LogNormal(0.0, 0.4), "lengthscale": dist.LogNormal(-0.5, 0.4)}
    )
    prior = pgp.GPPrior(kernel=kernel, X=X, jitter=1e-6)
    bridge.gp_factor("obs", prior, y, NOISE)
    return prior


def ranks(*replayed):
    """Ranks of f*(x) and of the hyperparameters among posterior draws, for data and f* from the model, `tests k`: of the same
    draws, those of the paths of each model that is replayed."""

    def one(key):
        key_theta, key_f, key_noise, key_nuts, key_paths = jax.random.split(key, 5)
        theta = jnp.exp(jnp.asarray([0.0, -0.5]) + 0.4 * jax.random.normal(key_theta, (2,)))
        # The truth by the Cholesky factor of the joint covariance: no part of what is tested.
        both = jnp.concatenate([jnp.asarray(X), POINTS])
        distance = (both - both.T) ** 2
        K = theta[0] * jnp.exp(-0.5 * distance / theta[1] ** 2) + 1e-6 * jnp.eye(len(both))
        f = jnp.linalg.cholesky(K) @ jax.random.normal(key_f, (len(both),))
        y = f[:N] + NOISE**0.5 * jax.random.normal(key_noise, (N,))
        mcmc = MCMC(NUTS(model), num_warmup=100, num_samples=DRAWS * 5, thinning=5, progress_bar=False)
        mcmc.run(key_nuts, X, y)
        draws = mcmc.get_samples()
        found = []
        for each in replayed:
            ensemble = bridge.posterior_paths(each, draws, key_paths, X, y, n_features=64, share_features=False)
            values = jnp.concatenate(
                [ensemble(POINTS)[:, 0], draws["RBF.variance"][:, None], draws["RBF.lengthscale"][:, None]], 1
            )
            found.append(jnp.sum(values < jnp.concatenate([f[N:], theta])[None, :], axis=0))
        return found

    return map(np.asarray, jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(5), TESTS)))


def uniformity(ranks, bins=8):
    """p-values of a χ² test that ranks are uniform, for each quantity."""
    counts = [np.bincount(column * bins // (DRAWS + 1), minlength=bins) for column in ranks.T]
    return np.asarray([stats.chisquare(count).pvalue for count in counts])


def test_ranks_of_the_truth_are_uniform():
    """Simulation-based calibration (Talts et al. 2018) of prior, data, NUTS and paths, in two hyperparameters and three
    points, one of them outside the data."""

    # Paths conditioned as if there were a tenth of the noise are too narrow: that it can fail.
    def overconfident(X, y):
        prior = model(X, y)
        return prior.condition(y, NOISE / 10)

    found, narrow = ranks(model, overconfident)
    assert (uniformity(found) > 0.002).all(), uniformity(found)
    assert uniformity(narrow)[:2].min() < 0.002
