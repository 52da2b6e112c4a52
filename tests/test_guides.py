"""Guides over inducing values: densities, divergences, draws, the optimum and the bound."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import pathwise_gp as pgp

N, M = 9, 4
RNG = np.random.default_rng(2)
X = jnp.asarray(RNG.uniform(-1, 1, (N, 1)))
Z = jnp.linspace(-1, 1, M)[:, None]
Y = jnp.asarray(np.sin(3 * np.asarray(X)[:, 0]) + 1.0)
NOISE = jnp.linspace(0.05, 0.3, N)
KERNEL = pgp.RBF(1.3, 0.7)
JITTER = 0.05


def trend(x):
    return 1.0 + 0.5 * x[..., 0]


PRIOR = pgp.SparseGPPrior(kernel=KERNEL, Z=Z, mean=trend, jitter=JITTER)
A = np.asarray(KERNEL(Z, Z)) + JITTER * np.eye(M)
M_Z = np.asarray(trend(Z))
TRIL = np.tril(RNG.normal(size=(M, M))) * 0.3 + 0.7 * np.eye(M)
MU = RNG.normal(size=M)
S = TRIL @ TRIL.T
L = np.linalg.cholesky(A)
GARBAGE = np.triu(RNG.normal(size=(M, M)), 1)

GUIDES = {
    "full rank": (pgp.FullRankGuide(MU, TRIL + GARBAGE), MU, S),
    "negative diagonal": (pgp.FullRankGuide(MU, -TRIL + GARBAGE), MU, S),
    "mean field": (pgp.MeanFieldGuide(MU, [0.2, 0.5, 1.0, 2.0]), MU, np.diag([0.04, 0.25, 1.0, 4.0])),
    "whitened": (pgp.WhitenedGuide(MU, TRIL + GARBAGE), M_Z + L @ MU, L @ S @ L.T),
    "natural": (pgp.NaturalGuide(np.linalg.solve(S, MU), -0.5 * np.tril(np.linalg.inv(S)) + GARBAGE), MU, S),
}


@pytest.fixture(params=GUIDES)
def case(request):
    return GUIDES[request.param]


def test_log_prob(case):
    guide, mean, covariance = case
    u = RNG.normal(size=(2, 3, M))
    wanted = stats.multivariate_normal(mean, covariance).logpdf(u)
    np.testing.assert_allclose(guide.log_prob(jnp.asarray(u), PRIOR), wanted, rtol=1e-9)
    assert guide.log_prob(u[0, 0], PRIOR).shape == ()


def test_kl_divergence(case):
    guide, mean, covariance = case
    difference = mean - M_Z
    wanted = 0.5 * (
        np.trace(np.linalg.solve(A, covariance))
        + difference @ np.linalg.solve(A, difference)
        - M
        + np.linalg.slogdet(A)[1]
        - np.linalg.slogdet(covariance)[1]
    )
    np.testing.assert_allclose(guide.kl_divergence(PRIOR), wanted, rtol=1e-9)


def test_sample(case):
    guide, mean, covariance = case
    draws = np.asarray(guide.sample(jax.random.key(0), PRIOR, (5000,)))
    assert guide.sample(jax.random.key(0), PRIOR).shape == (M,)
    assert guide.sample(jax.random.key(0), PRIOR, (2, 3)).shape == (2, 3, M)
    for samples, expected in (
        (draws, mean),
        ((draws - mean)[:, :, None] * (draws - mean)[:, None, :], covariance),
    ):
        error = np.abs(samples.mean(0) - expected)
        np.testing.assert_array_less(error, 4 * samples.std(0) / math.sqrt(len(draws)))


def test_divergence_from_the_prior_itself_is_zero():
    itself = pgp.FullRankGuide(M_Z, L)
    whitened = pgp.WhitenedGuide(jnp.zeros(M), jnp.eye(M))
    np.testing.assert_allclose(itself.kl_divergence(PRIOR), 0, atol=1e-12)
    np.testing.assert_allclose(whitened.kl_divergence(PRIOR), 0, atol=1e-12)


def test_delta_guide():
    guide = pgp.DeltaGuide(MU)
    np.testing.assert_array_equal(guide.sample(jax.random.key(0), PRIOR, (2,)), np.stack([MU, MU]))
    np.testing.assert_array_equal(guide.log_prob(jnp.stack([guide.location, guide.location + 1]), PRIOR), [0, -np.inf])
    wanted = -stats.multivariate_normal(M_Z, A).logpdf(MU)
    np.testing.assert_allclose(guide.kl_divergence(PRIOR), wanted, rtol=1e-10)


def q_ff():
    """k(X, Z)(k(Z, Z) + jitter)⁻¹k(Z, X)."""
    k = np.asarray(KERNEL(X, Z))
    return k, k @ np.linalg.solve(A, k.T)


@pytest.mark.parametrize("noise_var", [0.1, NOISE], ids=["scalar", "per point"])
def test_the_optimal_guide_attains_the_collapsed_bound(noise_var):
    guide = pgp.optimal_guide(PRIOR, X, Y, noise_var)
    _, Q = q_ff()
    noise = np.broadcast_to(np.asarray(noise_var), (N,))
    # Titsias (2009), equation 9.
    trace = np.sum((np.asarray(KERNEL.diag(X)) - np.diagonal(Q)) / noise)
    wanted = stats.multivariate_normal(np.asarray(trend(X)), Q + np.diag(noise)).logpdf(np.asarray(Y)) - 0.5 * trace
    np.testing.assert_allclose(pgp.elbo(PRIOR, guide, X, Y, noise_var), wanted, rtol=1e-9)
    # It is the maximum: the gradient there is zero, and others are below.
    gradient = jax.grad(lambda g: pgp.elbo(PRIOR, g, X, Y, noise_var))(guide)
    np.testing.assert_allclose(gradient.mean, 0, atol=1e-9)
    np.testing.assert_allclose(np.tril(gradient.scale_tril), 0, atol=1e-9)
    for other, _, _ in GUIDES.values():
        assert pgp.elbo(PRIOR, other, X, Y, noise_var) < wanted
    exact = pgp.GPPrior(kernel=KERNEL, X=X, mean=trend, jitter=0.0).log_prob(Y, noise_var)
    assert wanted < exact


def test_the_optimal_guide_is_that_of_the_paper():
    guide = pgp.optimal_guide(PRIOR, X, Y, NOISE)
    k, _ = q_ff()
    # Titsias (2009), equation 10, with a mean and noise per point.
    precision = A + k.T @ np.diag(1 / np.asarray(NOISE)) @ k
    mean = M_Z + A @ np.linalg.solve(precision, k.T @ ((np.asarray(Y) - np.asarray(trend(X))) / np.asarray(NOISE)))
    covariance = A @ np.linalg.solve(precision, A)
    got_mean, scale = guide.moments(PRIOR)
    np.testing.assert_allclose(got_mean, mean, atol=1e-10)
    np.testing.assert_allclose(scale @ scale.T, covariance, atol=1e-10)
    np.testing.assert_array_equal(np.triu(guide.scale_tril, 1), 0)


def test_elbo_by_quadrature():
    guide, mean, covariance = GUIDES["full rank"]
    k, _ = q_ff()
    H = k @ np.linalg.inv(A)
    f_mean = np.asarray(trend(X)) + H @ (mean - M_Z)
    f_sd = np.sqrt(np.asarray(KERNEL.diag(X)) - np.sum(H * (k - H @ covariance), axis=1))
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    f = f_mean[:, None] + f_sd[:, None] * nodes
    densities = stats.norm.logpdf(np.asarray(Y)[:, None], f, np.sqrt(np.asarray(NOISE))[:, None])
    expected = np.sum(densities @ weights) / math.sqrt(2 * math.pi)
    wanted = expected - float(guide.kl_divergence(PRIOR))
    np.testing.assert_allclose(pgp.elbo(PRIOR, guide, X, Y, NOISE), wanted, rtol=1e-9)


def test_with_inducing_points_at_the_training_points_the_bound_is_the_likelihood():
    prior = pgp.SparseGPPrior(kernel=KERNEL, Z=X, mean=trend, jitter=1e-9)
    guide = pgp.optimal_guide(prior, X, Y, NOISE)
    exact = pgp.GPPrior(kernel=KERNEL, X=X, mean=trend, jitter=0.0).condition(Y, NOISE)
    np.testing.assert_allclose(pgp.elbo(prior, guide, X, Y, NOISE), exact.log_marginal_likelihood(), atol=1e-6)
    paths = pgp.DecoupledPathwiseSampler(prior, guide, 16).sample_paths(jax.random.key(0), 2)
    np.testing.assert_allclose(paths.mean_path(Z), exact.mean(Z), atol=1e-6)


def test_float32_guides_are_float32():
    prior = pgp.SparseGPPrior(kernel=KERNEL, Z=Z.astype(jnp.float32), mean=trend, jitter=JITTER)
    guide = pgp.optimal_guide(prior, X.astype(jnp.float32), Y.astype(jnp.float32), NOISE.astype(jnp.float32))
    assert guide.mean.dtype == jnp.float32
    wanted = pgp.optimal_guide(PRIOR, X, Y, NOISE)
    np.testing.assert_allclose(guide.mean, wanted.mean, atol=1e-4)
    paths = pgp.DecoupledPathwiseSampler(prior, guide, 16).sample_paths(jax.random.key(0), 2)
    assert paths(X.astype(jnp.float32)).dtype == jnp.float32
