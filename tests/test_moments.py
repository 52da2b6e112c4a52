"""Means and covariances of paths without Monte Carlo.

A path is affine in its Gaussian inputs, so with the features held fixed its value at zero is its mean and its Jacobian gives
its covariance, exactly.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import pathwise_gp as pgp

N, M, DIM = 7, 5, 2
RNG = np.random.default_rng(3)
X = RNG.normal(size=(N, DIM))
Z = RNG.normal(size=(M, DIM))
TEST = RNG.normal(size=(6, DIM))
Y = RNG.normal(size=N)
POINTWISE = np.linspace(0.05, 0.6, N)


def trend(x):
    return 1.5 + 0.7 * x[..., 0] - x[..., 1] ** 2


RANDOM = pgp.RBF(variance=1.3, lengthscale=[0.8, 1.4])
EXACT = (
    0.7 * pgp.Linear(variance=1.2) + pgp.Constant(variance=0.8) + pgp.Linear(variance=0.5) * pgp.Linear(variance=0.9)
)

# noise variance, mean, jitter
SETTINGS = {
    "plain": (0.1, 0.0, 1e-8),
    "mean": (0.1, trend, 1e-8),
    "noise per point": (POINTWISE, 0.0, 1e-8),
    "large jitter": (0.1, 0.0, 0.5),
    "all": (POINTWISE, trend, 0.3),
}


def mean_of(mean, x):
    return mean(x) if callable(mean) else np.full(len(x), mean)


@eqx.filter_jit
def moments(paths_of, inputs, x):
    """Mean and covariance of the one path that standard normal inputs, all zero here, lead to."""
    flat, unravel = ravel_pytree(inputs)
    value = lambda z: paths_of(unravel(z))(x)[0]
    jacobian = jax.jacfwd(value)(flat)
    return value(flat), jacobian @ jacobian.T, value(jnp.ones_like(flat)) - value(flat) - jnp.sum(jacobian, axis=1)


class Exact(eqx.Module):
    sampler: pgp.PathwiseSampler
    features: eqx.Module

    def __call__(self, inputs):
        return self.sampler.update(self.features, *inputs)


class Sparse(eqx.Module):
    sampler: pgp.DecoupledPathwiseSampler
    features: eqx.Module

    def __call__(self, inputs):
        weights, z, noise = inputs
        prior, guide = self.sampler.prior, self.sampler.guide
        return self.sampler.update(prior.settled(), self.features, weights, guide.transform(z, prior), noise)


def close(got, wanted, atol):
    np.testing.assert_allclose(got, wanted, rtol=0, atol=atol)


def exact_case(kernel, noise_var, mean, jitter, share_features):
    prior = pgp.GPPrior(kernel=kernel, X=jnp.asarray(X), mean=mean, jitter=jitter)
    sampler = pgp.PathwiseSampler(prior.condition(jnp.asarray(Y), noise_var), 21, share_features=share_features)
    drawn = sampler.sample_paths(jax.random.key(0), 1)
    one = drawn.features if share_features else drawn[0].features
    inputs = (jnp.zeros_like(drawn.weights), jnp.zeros((1, N)))
    return sampler, one, moments(Exact(sampler, drawn.features), inputs, jnp.asarray(TEST))


@pytest.mark.parametrize("share_features", [True, False])
@pytest.mark.parametrize("setting", SETTINGS)
def test_exact_paths_have_the_moments_of_their_features(setting, share_features):
    noise_var, mean, jitter = SETTINGS[setting]
    _, features, (got_mean, got_covariance, rest) = exact_case(RANDOM, noise_var, mean, jitter, share_features)
    k = lambda a, b: np.asarray(RANDOM(a, b))
    sigma = np.diag(np.broadcast_to(noise_var, (N,)) + jitter)
    H = k(TEST, X) @ np.linalg.inv(k(X, X) + sigma)
    phi, phi_test = np.asarray(features(jnp.asarray(X))), np.asarray(features(jnp.asarray(TEST)))
    spread = phi_test - H @ phi
    close(rest, 0, 1e-9)
    close(got_mean, mean_of(mean, TEST) + H @ (Y - mean_of(mean, X)), 1e-9)
    close(got_covariance, spread @ spread.T + H @ sigma @ H.T, 1e-9)


@pytest.mark.parametrize("setting", SETTINGS)
def test_exact_paths_with_an_exact_basis_have_the_posterior_moments(setting):
    noise_var, mean, jitter = SETTINGS[setting]
    sampler, _, (got_mean, got_covariance, _) = exact_case(EXACT, noise_var, mean, jitter, True)
    k = lambda a, b: 0.7 * 1.2 * a @ b.T + 0.8 + 0.45 * (a @ b.T) ** 2
    H = k(TEST, X) @ np.linalg.inv(k(X, X) + np.diag(np.broadcast_to(noise_var, (N,)) + jitter))
    posterior_mean = mean_of(mean, TEST) + H @ (Y - mean_of(mean, X))
    posterior_covariance = k(TEST, TEST) - H @ k(X, TEST)
    close(got_mean, posterior_mean, 1e-8)
    close(got_covariance, posterior_covariance, 1e-8)
    # The closed forms of the posterior itself, by the same numbers.
    posterior = sampler.posterior
    close(posterior.mean(TEST), posterior_mean, 1e-9)
    close(posterior.covariance(TEST), posterior_covariance, 1e-9)
    close(posterior.covariance(TEST[:2], TEST), posterior_covariance[:2], 1e-9)
    close(posterior.variance(TEST), np.diagonal(posterior_covariance), 1e-9)


_A = RNG.normal(size=(M, M))
_TRIL = np.tril(0.4 * _A) + 0.5 * np.eye(M)
_MU = RNG.normal(size=M)
# What stands above the diagonal must not count.
_WITH_GARBAGE = _TRIL + np.triu(RNG.normal(size=(M, M)), 1)
_S = _TRIL @ _TRIL.T

# The guide, and its mean and covariance from m(Z) and the Cholesky factor of k(Z, Z) + jitter.
GUIDES = {
    "full rank": (pgp.FullRankGuide(_MU, _WITH_GARBAGE), lambda m, L: (_MU, _S)),
    "mean field": (
        pgp.MeanFieldGuide(_MU, np.arange(1.0, M + 1)),
        lambda m, L: (_MU, np.diag(np.arange(1.0, M + 1) ** 2)),
    ),
    "whitened": (pgp.WhitenedGuide(_MU, _WITH_GARBAGE), lambda m, L: (m + L @ _MU, L @ _S @ L.T)),
    "delta": (pgp.DeltaGuide(_MU), lambda m, L: (_MU, np.zeros((M, M)))),
    "natural": (
        pgp.NaturalGuide(np.linalg.solve(_S, _MU), np.tril(-0.5 * np.linalg.inv(_S)) + np.triu(np.ones((M, M)), 1)),
        lambda m, L: (_MU, _S),
    ),
}


def sparse_case(kernel, guide, mean, jitter, share_features=True):
    prior = pgp.SparseGPPrior(kernel=kernel, Z=jnp.asarray(Z), mean=mean, jitter=jitter)
    sampler = pgp.DecoupledPathwiseSampler(prior, guide, 21, share_features=share_features)
    drawn = sampler.sample_paths(jax.random.key(0), 1)
    one = drawn.features if share_features else drawn[0].features
    inputs = (jnp.zeros_like(drawn.weights), jnp.zeros((1, M)), jnp.zeros((1, M)))
    return drawn, one, moments(Sparse(sampler, drawn.features), inputs, jnp.asarray(TEST))


@pytest.mark.parametrize(("mean", "jitter"), [(0.0, 1e-6), (trend, 0.3)])
@pytest.mark.parametrize("name", GUIDES)
def test_sparse_paths_have_the_moments_of_their_features(name, mean, jitter):
    guide, moments_of = GUIDES[name]
    drawn, features, (got_mean, got_covariance, rest) = sparse_case(RANDOM, guide, mean, jitter, name != "delta")
    k = lambda a, b: np.asarray(RANDOM(a, b))
    A = k(Z, Z) + jitter * np.eye(M)
    mu, S = moments_of(mean_of(mean, Z), np.linalg.cholesky(A))
    H = k(TEST, Z) @ np.linalg.inv(A)
    spread = np.asarray(features(jnp.asarray(TEST))) - H @ np.asarray(features(jnp.asarray(Z)))
    close(rest, 0, 1e-9)
    posterior_mean = mean_of(mean, TEST) + H @ (mu - mean_of(mean, Z))
    close(got_mean, posterior_mean, 1e-9)
    close(drawn.mean_path(TEST), posterior_mean, 1e-9)
    close(got_covariance, spread @ spread.T + H @ (S + jitter * np.eye(M)) @ H.T, 1e-9)


@pytest.mark.parametrize("name", GUIDES)
def test_sparse_paths_with_an_exact_basis_have_the_moments_of_the_sparse_posterior(name):
    # Hensman et al. (2015), equation 5: k** − k*Z A⁻¹ (A − S) A⁻¹ kZ*.
    guide, moments_of = GUIDES[name]
    jitter = 0.2
    _, _, (got_mean, got_covariance, _) = sparse_case(EXACT, guide, trend, jitter)
    k = lambda a, b: 0.7 * 1.2 * a @ b.T + 0.8 + 0.45 * (a @ b.T) ** 2
    A = k(Z, Z) + jitter * np.eye(M)
    mu, S = moments_of(trend(Z), np.linalg.cholesky(A))
    H = k(TEST, Z) @ np.linalg.inv(A)
    close(got_mean, trend(TEST) + H @ (mu - trend(Z)), 1e-8)
    close(got_covariance, k(TEST, TEST) - H @ (A - S) @ H.T, 1e-8)
