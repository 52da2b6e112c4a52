"""What samplers draw: the law of the Gaussian inputs, independence of paths, and moments with the features averaged over.

Statistical tests use a fixed key, and four standard errors of the Monte-Carlo mean as their tolerance.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from tables import CALLS, Counted

import pathwise_gp as pgp

N, M = 6, 4
RNG = np.random.default_rng(1)
X = jnp.asarray(np.sort(RNG.uniform(-1, 1, (N, 1)), axis=0))
Z = jnp.linspace(-1, 1, M)[:, None]
Y = jnp.sin(3 * X[:, 0])
TEST = jnp.asarray([[-1.3], [-0.2], [0.5], [1.6]])
KERNEL = pgp.RBF(variance=1.4, lengthscale=0.6)
NOISE = jnp.linspace(0.05, 0.4, N)
POSTERIOR = pgp.GPPrior(kernel=KERNEL, X=X, jitter=0.02).condition(Y, NOISE)
SPARSE = pgp.SparseGPPrior(kernel=KERNEL, Z=Z, jitter=0.02)
GUIDE = pgp.FullRankGuide([0.3, -0.2, 0.5, 1.0], 0.3 * jnp.eye(M) + 0.2 * jnp.tril(jnp.ones((M, M))))


@pytest.mark.parametrize("share_features", [True, False], ids=["shared", "own"])
def test_other_values_of_one_shape_compile_nothing_anew(share_features):
    def workflow(seed):
        rng = np.random.default_rng(seed)
        inputs = jnp.asarray(rng.uniform(-1, 1, (N, 1)))
        prior = pgp.GPPrior(kernel=Counted(pgp.RBF(*rng.uniform(0.5, 1.5, 2))), X=inputs)
        y = jnp.asarray(rng.normal(size=N))
        prior.log_prob(y, rng.uniform(0.1, 1.0))
        posterior = prior.condition(y, rng.uniform(0.1, 1.0))
        posterior.mean(TEST), posterior.variance(TEST), posterior.covariance(TEST)
        paths = pgp.PathwiseSampler(posterior, 16, share_features=share_features).sample_paths(jax.random.key(seed), 3)
        paths(TEST + seed), paths.paired(jnp.stack([TEST] * 3)), paths.mean_path(TEST), paths[seed](TEST[0])
        paths.marginal_variance(TEST)
        pgp.PathwiseSampler(posterior, 16, share_features=share_features).sample_paths(jax.random.key(seed), 3)(TEST)
        prior.sample_paths(jax.random.key(seed), 2, n_features=16)(TEST)

    workflow(0)
    assert CALLS
    CALLS.clear()
    workflow(1)
    workflow(2)
    assert not CALLS


def exact(n_features, share_features):
    return pgp.PathwiseSampler(POSTERIOR, n_features, share_features=share_features)


def decoupled(n_features, share_features):
    return pgp.DecoupledPathwiseSampler(SPARSE, GUIDE, n_features, share_features=share_features)


def of_prior(n_features, share_features):
    return POSTERIOR.prior, n_features, share_features


@eqx.filter_jit
def _paths(sampler, key, n_paths):
    if isinstance(sampler, tuple):
        prior, n_features, share_features = sampler
        return prior.sample_paths(key, n_paths, n_features, share_features=share_features)
    return sampler.sample_paths(key, n_paths)


@eqx.filter_jit
def replicas(sampler, keys, n_paths):
    """Values of the paths of one call for each key, `r s n`."""
    return jax.lax.map(lambda key: _paths(sampler, key, n_paths)(TEST), keys, batch_size=64)


def keys(seed, r):
    return jax.random.split(jax.random.key(seed), r)


def within(samples, expected):
    """The mean of independent samples is within four standard errors of what is expected."""
    samples = np.asarray(samples)
    error = np.abs(samples.mean(axis=0) - expected)
    np.testing.assert_array_less(error, 4 * samples.std(axis=0, ddof=1) / math.sqrt(len(samples)))


def assert_standard_normal(values):
    """All entries are independent N(0, 1): a Kolmogorov–Smirnov test, and no correlation between rows or columns."""
    values = np.asarray(values)
    assert stats.kstest(values.ravel(), "norm").pvalue > 1e-4
    for matrix in (values, values.T):
        correlation = np.corrcoef(matrix)
        off = correlation[~np.eye(len(correlation), dtype=bool)]
        # Of k correlations of n pairs the largest is below 4/√n plus √(2 log k / n).
        assert np.abs(off).max() < (4 + math.sqrt(2 * math.log(off.size))) / math.sqrt(matrix.shape[1])


def closed_form(make):
    if make is exact:
        return np.asarray(POSTERIOR.mean(TEST)), np.asarray(POSTERIOR.covariance(TEST))
    if make is of_prior:
        return np.zeros(len(TEST)), np.asarray(KERNEL(TEST, TEST))
    A = np.asarray(KERNEL(Z, Z)) + 0.02 * np.eye(M)
    H = np.asarray(KERNEL(TEST, Z)) @ np.linalg.inv(A)
    T = np.tril(np.asarray(GUIDE.scale_tril))
    return H @ np.asarray(GUIDE.mean), np.asarray(KERNEL(TEST, TEST)) - H @ (A - T @ T.T) @ H.T


@pytest.mark.parametrize("n_features", [1, 16])
@pytest.mark.parametrize("share_features", [True, False])
@pytest.mark.parametrize("make", [exact, decoupled, of_prior])
def test_moments_over_draws_are_those_of_the_posterior(make, share_features, n_features):
    values = replicas(make(n_features, share_features), keys(3, 4000), 2)
    mean, covariance = closed_form(make)
    pooled = np.asarray(values).mean(axis=1)  # the two paths of a call may share features: a call is one sample
    within(pooled, mean)
    centred = np.asarray(values) - mean
    within((centred[..., :, None] * centred[..., None, :]).mean(axis=1), covariance)


@pytest.mark.parametrize("make", [exact, decoupled, of_prior])
def test_within_one_call_own_features_have_the_covariance_of_the_posterior(make):
    # With features shared, the covariance of the paths of one call is off by that set of features; with own ones it is not.
    values = np.asarray(_paths(make(4, False), jax.random.key(3), 6000)(TEST))
    mean, covariance = closed_form(make)
    within(values, mean)
    within((values - mean)[:, :, None] * (values - mean)[:, None, :], covariance)


@pytest.mark.parametrize("share_features", [True, False])
@pytest.mark.parametrize("make", [exact, decoupled, of_prior])
def test_paths_are_independent(make, share_features):
    r = 3000
    mean, covariance = closed_form(make)
    first = np.asarray(replicas(make(32, share_features), keys(4, r), 2))
    second = np.asarray(replicas(make(32, share_features), keys(5, r), 2))
    pairs = [(first[:, 0], first[:, 1]), (first[:, 0], second[:, 0]), (first[:, 1], second[:, 0])]
    for one, other in pairs:
        for i in range(len(TEST)):
            assert abs(np.corrcoef(one[:, i], other[:, i])[0, 1]) < 4 / math.sqrt(r)
        within((one + other - 2 * mean) ** 2, 2 * np.diagonal(covariance))


def test_paths_of_one_call_differ_in_weights_and_noise():
    sampler = exact(16, True)
    paths = sampler.sample_paths(jax.random.key(6), 500)
    assert_standard_normal(paths.weights)
    # ε = y − m(X) − φ(X)ᵀw − A α, in units of its standard deviation.
    prior_draw = np.asarray(paths.weights @ paths.features(X).T)
    A = np.asarray(KERNEL(X, X)) + np.diag(np.asarray(NOISE) + 0.02)
    noise = (np.asarray(Y) - prior_draw - np.asarray(paths.coefficients) @ A) / np.sqrt(np.asarray(NOISE) + 0.02)
    assert_standard_normal(noise)
    # Noise and weights are independent: path by path, and in the order in which one key would draw both.
    for one in (np.asarray(paths.weights)[:, :N].ravel(), np.asarray(paths.weights).ravel()[: noise.size]):
        assert abs(np.corrcoef(one, noise.ravel())[0, 1]) < 4 / math.sqrt(noise.size)


def test_inducing_values_and_jitter_are_drawn_anew_for_each_path():
    paths = decoupled(16, True).sample_paths(jax.random.key(7), 2000)
    # u − ε = A α + m(Z) + φ(Z)ᵀw has covariance S + jitter.
    A = np.asarray(KERNEL(Z, Z)) + 0.02 * np.eye(M)
    values = np.asarray(paths.coefficients) @ A + np.asarray(paths.weights @ paths.features(Z).T)
    T = np.tril(np.asarray(GUIDE.scale_tril))
    white = np.linalg.solve(np.linalg.cholesky(T @ T.T + 0.02 * np.eye(M)), (values - np.asarray(GUIDE.mean)).T).T
    assert_standard_normal(white[:500])
    within(values, np.asarray(GUIDE.mean))


def test_own_features_differ_between_paths_and_shared_ones_are_one_set():
    own = exact(8, False).sample_paths(jax.random.key(8), 3).features
    assert own.frequencies.shape == (3, 8, 1)
    assert len(np.unique(np.asarray(own.frequencies))) == 3 * 4
    shared = exact(8, True).sample_paths(jax.random.key(8), 3).features
    assert shared.frequencies.shape == (8, 1)


def test_fourth_moment_of_one_random_cosine():
    # f = √2 w cos(·) with a uniform phase: E[f⁴] = 4 · 3 · 3/8 = 4.5 where the normal has 3.
    draw = eqx.filter_jit(POSTERIOR.prior.sample_paths)
    paths = draw(jax.random.key(9), 40000, 1, share_features=False, features=pgp.MonteCarlo())
    values = np.asarray(paths(TEST[:1]))[:, 0] / math.sqrt(1.4)
    within(values**4, 4.5)


def test_the_same_key_gives_the_same_paths_and_another_key_others():
    sampler = exact(16, True)
    one, again, other = (sampler.sample_paths(jax.random.key(k), 2)(TEST) for k in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(np.asarray(one - other)).min() > 1e-3
    raw = sampler.sample_paths(jax.random.PRNGKey(1), 2)(TEST)
    np.testing.assert_array_equal(one, raw)


def test_factorisation_is_made_once(monkeypatch):
    sampler = exact(16, True)
    text = str(jax.make_jaxpr(lambda key: sampler.sample_paths(key, 2).weights)(jax.random.key(0)))
    assert "triangular_solve" in text
    assert "cholesky" not in text


def test_one_training_point_and_repeated_points():
    one = pgp.GPPrior(kernel=KERNEL, X=X[:1]).condition(Y[:1], 0.1)
    np.testing.assert_allclose(one.mean(X[:1]), Y[:1] * 1.4 / (1.4 + 0.1), rtol=1e-12)
    assert pgp.PathwiseSampler(one).sample_paths(jax.random.key(0), 3)(TEST).shape == (3, 4)
    twice = pgp.GPPrior(kernel=KERNEL, X=jnp.concatenate([X, X]), jitter=0.0).condition(jnp.concatenate([Y, Y]), 0.2)
    once = pgp.GPPrior(kernel=KERNEL, X=X, jitter=0.0).condition(Y, 0.1)
    np.testing.assert_allclose(twice.mean(TEST), once.mean(TEST), atol=1e-12)
    np.testing.assert_allclose(twice.variance(TEST), once.variance(TEST), atol=1e-12)
