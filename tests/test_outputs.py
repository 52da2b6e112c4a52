"""Several outputs: on a grid, with numbers in a column, and observed at inputs of their own."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import pathwise_gp as pgp

RNG = np.random.default_rng(5)
N, P, DIM = 6, 3, 2
X, TEST = RNG.normal(size=(N, DIM)), RNG.normal(size=(4, DIM))
Y = RNG.normal(size=(N, P))
NOISE = np.array([0.1, 0.3, 0.05])
MEANS = np.array([0.5, -1.0, 0.2])
KAPPA = np.array([0.4, 0.4, 0.4])
# Independent outputs of one variance: eigenvalues of B are all the same, and have no derivatives of their own.
LOADINGS = {"correlated": RNG.normal(size=(P, 2)), "independent": np.zeros((P, 0))}
INDEXED = pgp.with_outputs(X, P).reshape(N * P, DIM + 1)


def kernel(name):
    return pgp.Coregionalised(pgp.RBF(1.3, 0.9) + pgp.Linear(0.4), LOADINGS[name], KAPPA)


def grid(kernel, noise_var=NOISE):
    prior = pgp.MultiOutputGPPrior(kernel=kernel, X=X, mean=MEANS, jitter=1e-3)
    return prior, prior.condition(Y, noise_var)


def dense(kernel, noise_var=NOISE):
    """The same with an observation for each input and output."""
    mean = lambda Z: jnp.asarray(MEANS)[Z[:, -1].astype(int)]
    prior = pgp.GPPrior(kernel=kernel, X=INDEXED, mean=mean, jitter=1e-3)
    noise = jnp.tile(noise_var, N)
    return prior, prior.condition(Y.reshape(-1), noise), noise


def close(got, wanted, atol=1e-10):
    np.testing.assert_allclose(got, wanted, rtol=0, atol=atol)


@pytest.mark.parametrize("name", LOADINGS)
def test_the_grid_is_the_dense_process(name):
    (prior, posterior), (dense_prior, dense_posterior, noise) = grid(kernel(name)), dense(kernel(name))
    close(prior.log_prob(Y, NOISE), dense_prior.log_prob(Y.reshape(-1), noise))
    indexed_test = pgp.with_outputs(TEST, P)
    assert posterior.mean(TEST).shape == posterior.variance(TEST).shape == (4, P)
    close(posterior.mean(TEST), dense_posterior.mean(indexed_test))
    close(posterior.variance(TEST), dense_posterior.variance(indexed_test))
    close(posterior.mean(TEST[0]), posterior.mean(TEST)[0])
    # A noise of one value is that of all outputs.
    close(prior.log_prob(Y, 0.1), dense_prior.log_prob(Y.reshape(-1), 0.1))


@pytest.mark.parametrize("name", LOADINGS)
def test_derivatives_on_the_grid_are_those_of_the_dense_process(name):
    values = {
        "likelihood": (
            lambda k, noise: grid(k, noise)[0].log_prob(Y, noise),
            lambda k, noise: dense(k, noise)[0].log_prob(Y.reshape(-1), jnp.tile(noise, N)),
        ),
        "mean and variance": (
            lambda k, noise: jnp.sum(grid(k, noise)[1].mean(TEST) ** 2 + grid(k, noise)[1].variance(TEST)),
            lambda k, noise: (
                jnp.sum(dense(k, noise)[1].mean(pgp.with_outputs(TEST, P)) ** 2)
                + jnp.sum(dense(k, noise)[1].variance(pgp.with_outputs(TEST, P)))
            ),
        ),
    }
    for what, functions in values.items():
        got, wanted = (
            ravel_pytree(eqx.filter_jit(eqx.filter_grad(lambda pair: f(*pair)))((kernel(name), jnp.asarray(NOISE))))[0]
            for f in functions
        )
        assert np.abs(wanted).max() > 0.1
        np.testing.assert_allclose(got, wanted, atol=1e-9, err_msg=what)


@eqx.filter_jit
def grid_moments(sampler, features, x):
    c = sum(sampler.posterior.prior.kernel.W.shape)
    n_features = features(x).shape[1]
    flat, unravel = ravel_pytree((jnp.zeros((1, c, n_features)), jnp.zeros((1, N, P))))
    value = lambda z: sampler.update(features, *unravel(z))(x)[0].reshape(-1)
    jacobian = jax.jacfwd(value)(flat)
    return value(flat), jacobian @ jacobian.T


@pytest.mark.parametrize("name", LOADINGS)
def test_moments_of_paths_on_a_grid(name):
    # With an exact basis those of the posterior; with random features those of the process that has them for a kernel.
    index = pgp.Index(LOADINGS[name], KAPPA)
    for base in (pgp.Linear(0.7) + pgp.Polynomial(0.3, 0.8, 2), pgp.RBF(1.3, 0.9)):
        posterior = grid(pgp.Coregionalised(base, index.W, KAPPA))[1]
        sampler = pgp.MultiOutputPathwiseSampler(posterior, 20)
        paths = sampler.sample_paths(jax.random.key(0), 2)
        mean, covariance = grid_moments(sampler, paths.features, jnp.asarray(TEST))
        close(mean.reshape(4, P), posterior.mean(TEST))
        B = np.asarray(index.covariance())
        sigma = np.kron(np.eye(N), np.diag(NOISE + 1e-3))
        K, cross = np.asarray(base(X, X)), np.asarray(base(TEST, X))
        H = np.kron(cross, B) @ np.linalg.inv(np.kron(K, B) + sigma)
        root = np.asarray(index.root())
        phi, phi_test = (np.kron(np.asarray(paths.features(jnp.asarray(x))), root) for x in (X, TEST))
        spread = phi_test - H @ phi
        close(covariance, spread @ spread.T + H @ sigma @ H.T, 1e-9)
        close(paths.marginal_variance(TEST).reshape(-1), np.diagonal(covariance), 1e-9)
        if base.basis_size(DIM) is not None:
            close(paths.marginal_variance(TEST), posterior.variance(TEST), 1e-9)


def test_draws_on_a_grid():
    posterior = grid(kernel("correlated"))[1]
    sampler = pgp.MultiOutputPathwiseSampler(posterior, 64)
    paths = sampler.sample_paths(jax.random.key(1), 4000)
    values = np.asarray(paths(TEST))
    assert values.shape == (4000, 4, P)
    standard_error = np.sqrt(np.asarray(paths.marginal_variance(TEST)) / 4000)
    assert np.all(np.abs(values.mean(0) - posterior.mean(TEST)) < 4 * standard_error)
    # The variance of a sample variance of a normal is 2σ⁴/n.
    assert np.all(np.abs(values.var(0) / np.asarray(paths.marginal_variance(TEST)) - 1) < 4 * math.sqrt(2 / 4000))
    # One path, one point, and the laws of a pytree.
    one = paths[3]
    assert (paths.shape, one.shape, one(TEST).shape, one(TEST[0]).shape) == ((4000,), (), (4, P), (P,))
    close(one(TEST), values[3])
    close(paths[:2](TEST.reshape(2, 2, DIM)), values[:2].reshape(2, 2, 2, P))
    close(paths.mean_path(TEST), posterior.mean(TEST))
    assert len(paths[:5]) == 5 and [path.shape for path in paths[:3]] == [()] * 3
    close(eqx.filter_jit(lambda p, x: p(x))(paths[:3], TEST), values[:3])
    assert jax.jacobian(one)(jnp.asarray(TEST[0])).shape == (P, DIM)
    # X is stored once, whatever the number of outputs and paths.
    assert paths.inputs.shape == (N, DIM)
    with pytest.raises(TypeError, match="no len"):
        len(one)
    with pytest.raises(ValueError, match="this is a mean"):
        paths.mean_path.marginal_variance(TEST)


def test_independent_outputs_are_independent():
    posterior = grid(kernel("independent"))[1]
    values = np.asarray(pgp.MultiOutputPathwiseSampler(posterior, 256).sample_paths(jax.random.key(2), 4000)(TEST))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        for a in range(4):
            correlation = np.corrcoef(values[:, a, i], values[:, a, j])[0, 1]
            assert abs(correlation) < 4 / math.sqrt(4000)
    # What one output saw does not move another.
    other = Y.copy()
    other[:, 1] += 3.0
    prior = posterior.prior
    moved = prior.condition(other, NOISE).mean(TEST) - posterior.mean(TEST)
    close(moved[:, [0, 2]], 0)
    assert np.abs(moved[:, 1]).max() > 0.1
    shared = grid(kernel("correlated"))[0]
    moved = shared.condition(other, NOISE).mean(TEST) - shared.condition(Y, NOISE).mean(TEST)
    assert np.abs(moved[:, [0, 2]]).min() > 1e-3


def test_outputs_observed_at_inputs_of_their_own():
    # Output 0 at four inputs, output 1 at two, output 2 nowhere; one input twice.
    rows = np.concatenate([np.c_[X[:4], np.zeros(4)], np.c_[X[3:5], np.ones(2)], np.c_[X[:1], np.zeros(1)]])
    y = RNG.normal(size=7)
    for name in LOADINGS:
        k = kernel(name)
        posterior = pgp.GPPrior(kernel=k, X=rows, jitter=0.0).condition(y, 0.2)
        index, base = k.index().covariance(), k.kernel
        full = lambda a, b: (
            np.asarray(base(a[:, :-1], b[:, :-1]))
            * np.asarray(index)[np.ix_(a[:, -1].astype(int), b[:, -1].astype(int))]
        )
        at = np.asarray(pgp.with_outputs(TEST, P)).reshape(-1, DIM + 1)
        H = full(at, rows) @ np.linalg.inv(full(rows, rows) + 0.2 * np.eye(7))
        close(posterior.mean(at), H @ y)
        close(posterior.covariance(at), full(at, at) - H @ full(rows, at))
        paths = pgp.PathwiseSampler(posterior, 4096).sample_paths(jax.random.key(0), 3)
        assert paths(at).shape == (3, 4 * P) and paths(pgp.with_outputs(TEST, P)).shape == (3, 4, P)
        np.testing.assert_allclose(paths.marginal_variance(at), posterior.variance(at), rtol=0.2)
        if name == "independent":  # nothing is known of output 2
            close(posterior.mean(at).reshape(4, P)[:, 2], 0)
            close(posterior.variance(at).reshape(4, P)[:, 2], 0.4 * base.diag(TEST))


def test_with_outputs():
    grid = np.asarray(pgp.with_outputs(X, 2))
    assert grid.shape == (N, 2, DIM + 1)
    np.testing.assert_array_equal(grid[:, 1, :-1], X)
    np.testing.assert_array_equal(grid[..., -1], np.tile([0.0, 1.0], (N, 1)))
    assert pgp.with_outputs(X.astype(np.float32), 2).dtype == jnp.float32


def test_grid_in_single_precision():
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), kernel("correlated"))
    prior = pgp.MultiOutputGPPrior(kernel=single, X=X.astype(np.float32), mean=MEANS, jitter=1e-3)
    posterior = prior.condition(Y, NOISE)
    paths = pgp.MultiOutputPathwiseSampler(posterior, 16).sample_paths(jax.random.key(0), 2)
    assert posterior.mean(TEST).dtype == paths(TEST).dtype == paths.marginal_variance(TEST).dtype == jnp.float32
    close(posterior.mean(TEST), grid(kernel("correlated"))[1].mean(TEST), 1e-4)
    close(posterior.variance(TEST), grid(kernel("correlated"))[1].variance(TEST), 1e-4)


def test_mean_of_a_grid_may_be_a_function_or_a_number():
    k = kernel("correlated")
    trend = lambda Z: jnp.stack([Z[:, 0], 0 * Z[:, 0] + 1, Z[:, 1]], axis=1)
    prior = pgp.MultiOutputGPPrior(kernel=k, X=X, mean=trend, jitter=1e-3)
    centred = pgp.MultiOutputGPPrior(kernel=k, X=X, jitter=1e-3).condition(Y - np.asarray(trend(X)), NOISE)
    posterior = prior.condition(Y, NOISE)
    close(posterior.mean(TEST), centred.mean(TEST) + trend(TEST))
    draw = lambda p: pgp.MultiOutputPathwiseSampler(p, 8).sample_paths(jax.random.key(0), 2)
    close(draw(posterior)(TEST), draw(centred)(TEST) + trend(TEST)[None])
    close(pgp.MultiOutputGPPrior(kernel=k, X=X, mean=2.0).mean_at(jnp.asarray(TEST)), 2.0)
