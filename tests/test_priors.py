"""Priors and posteriors: the closed forms, the jitter, and the laws of pytrees for everything that paths are made of."""

import copy
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import pathwise_gp as pgp

N, M, DIM = 8, 4, 2
RNG = np.random.default_rng(5)
X = jnp.asarray(RNG.uniform(-1, 1, (N, DIM)))
Z = jnp.asarray(RNG.uniform(-1, 1, (M, DIM)))
Y = jnp.asarray(RNG.normal(size=N))
TEST = jnp.asarray(RNG.uniform(-1, 1, (2, 3, DIM)))
NOISE = jnp.linspace(0.1, 0.4, N)
KERNEL = pgp.RBF(1.2, [0.5, 0.9])


def trend(x):
    return 1.0 + x[..., 0]


def normal(jitter, noise_var, mean=trend):
    covariance = np.asarray(KERNEL(X, X)) + np.diag(np.broadcast_to(noise_var, (N,)) + jitter)
    return stats.multivariate_normal(np.asarray(mean(X)), covariance)


@pytest.mark.parametrize("noise_var", [0.2, NOISE], ids=["scalar", "per point"])
@pytest.mark.parametrize("jitter", [0.0, 0.1, None])
def test_log_marginal_likelihood(jitter, noise_var):
    prior = pgp.GPPrior(kernel=KERNEL, X=X, mean=trend, jitter=jitter)
    added = 0.0 if jitter is None else jitter
    wanted = normal(added, noise_var).logpdf(np.asarray(Y))
    np.testing.assert_allclose(prior.log_prob(Y, noise_var), wanted, rtol=1e-10)
    np.testing.assert_allclose(prior.condition(Y, noise_var).log_marginal_likelihood(), wanted, rtol=1e-10)


def test_gradient_of_the_likelihood_is_that_of_differences():
    def value(kernel, noise_var):
        return pgp.GPPrior(kernel=kernel, X=X, mean=trend).log_prob(Y, noise_var)

    gradient = eqx.filter_grad(lambda v: value(*v))((KERNEL, NOISE))
    step = 1e-6
    for where in (lambda v: v[0].variance, lambda v: v[0].lengthscale, lambda v: v[1]):
        leaf = where((KERNEL, NOISE))
        direction = jnp.asarray(RNG.normal(size=leaf.shape))
        up, down = (eqx.tree_at(where, (KERNEL, NOISE), leaf + s * step * direction) for s in (1, -1))
        numeric = (value(*up) - value(*down)) / (2 * step)
        np.testing.assert_allclose(jnp.sum(where(gradient) * direction), numeric, rtol=1e-6, atol=1e-7)


def test_memory_of_the_gradient_of_the_likelihood(monkeypatch):
    """Beyond its inputs five matrices, whatever the dimension, and a block in which there are some for each dimension."""
    monkeypatch.setattr("pathwise_gp._numerics.blocks._BLOCK_BYTES", 1)
    n, d = 600, 26

    def density(scales, X, y, noise_var):
        return pgp.GPPrior(kernel=pgp.Matern(1.5, 1.0, scales), X=X).log_prob(y, noise_var)

    shapes = [jax.ShapeDtypeStruct(shape, float) for shape in ((d,), (n, d), (n,), ())]
    memory = jax.jit(jax.grad(density, (0, 3))).lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes <= 8 * n * (5 * n + 64 * (d + 2))


def test_posterior_shapes_follow_the_inputs_and_values_agree_in_blocks(monkeypatch):
    posterior = pgp.GPPrior(kernel=KERNEL, X=X, mean=trend).condition(Y, NOISE)
    assert posterior.mean(TEST).shape == posterior.variance(TEST).shape == (2, 3)
    assert posterior.mean(TEST[0, 0]).shape == posterior.variance(TEST[0, 0]).shape == ()
    assert posterior.covariance(TEST).shape == (2, 3, 2, 3)
    assert posterior.covariance(TEST, TEST[0, 0]).shape == (2, 3)
    np.testing.assert_allclose(posterior.variance(X), np.diagonal(posterior.covariance(X)), atol=1e-12)
    many = jnp.asarray(RNG.normal(size=(150, DIM)))
    mean, variance = posterior.mean(many), posterior.variance(many)
    monkeypatch.setattr("pathwise_gp._numerics.blocks._BLOCK_BYTES", 1)
    jax.clear_caches()
    np.testing.assert_allclose(posterior.mean(many), mean, atol=1e-12)
    np.testing.assert_allclose(posterior.variance(many), variance, atol=1e-12)
    jax.clear_caches()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_jitter_of_a_smooth_density(dtype):
    """Of each point without noise a little of its own variance, of others nothing; or what was given."""
    kernel = 3.0 * KERNEL * pgp.Linear(1.0)
    prior = pgp.GPPrior(kernel=kernel, X=X.astype(dtype))
    noise = jnp.where(jnp.arange(N) % 2 == 0, 0.1, 0.0).astype(dtype)
    own = 10 * N * np.finfo(dtype).eps * np.asarray(kernel.diag(X))
    jitter = prior.smooth_jitter(prior.functional, noise)
    assert jitter.dtype == dtype
    np.testing.assert_allclose(jitter, np.where(np.arange(N) % 2 == 0, 0, own), rtol=1e-5)
    np.testing.assert_allclose(prior.smooth_jitter(prior.functional), own, rtol=1e-5)
    given = pgp.GPPrior(kernel=kernel, X=X.astype(dtype), jitter=np.asarray(0.2, dtype))
    np.testing.assert_array_equal(given.smooth_jitter(given.functional, noise), np.full(N, 0.2, dtype))


def test_a_noise_free_matrix_of_many_points_is_factorised_in_float32():
    prior = pgp.SparseGPPrior(kernel=pgp.RBF(1.0, 1.0), Z=jnp.linspace(-3, 3, 200, dtype=jnp.float32)[:, None])
    assert np.all(np.isfinite(prior.checked_factor().lower))
    assert np.all(np.isfinite(prior.factor().lower))


def test_a_failed_factorisation_is_raised_by_decades_and_rejected_by_the_likelihood():
    X32 = jnp.linspace(-1, 1, 100, dtype=jnp.float32)[:, None]
    prior = pgp.GPPrior(kernel=pgp.RBF(1.0, 5.0), X=X32, jitter=1e-9)
    y = jnp.zeros(100, jnp.float32)
    with pytest.warns(pgp.PrecisionWarning, match="`jitter` given did not suffice and was raised"):
        posterior = prior.condition(y, 1e-9)
    assert np.all(posterior.jitter > 1e-9) and np.all(posterior.jitter <= 1e-3)
    with pytest.warns(pgp.PrecisionWarning, match="rounding takes its place"):
        assert prior.log_prob(y, 1e-9) == -jnp.inf  # as given: a sampler of hyperparameters moves on
    assert eqx.filter_jit(lambda y: prior.log_prob(y, 1e-9))(y) == -jnp.inf  # nothing is known yet, nothing is said


def test_nan_is_an_error_under_jit_and_in_a_mean():
    prior = pgp.GPPrior(kernel=KERNEL, X=X)
    with pytest.raises(Exception, match="`y` must be finite; got NaN or inf"):
        eqx.filter_jit(lambda y: prior.condition(y, 0.1).coefficients)(Y.at[2].set(jnp.nan)).block_until_ready()
    with pytest.raises(ValueError, match="`y` and the mean at `X` must be finite"):
        pgp.GPPrior(kernel=KERNEL, X=X, mean=lambda x: jnp.log(x[..., 0])).condition(Y, 0.1)


def test_a_mean_is_any_callable_or_a_number():
    class Network(eqx.Module):
        layer: eqx.nn.Linear

        def __call__(self, x):
            return jax.vmap(self.layer)(x)[:, 0]

    network = Network(eqx.nn.Linear(DIM, 1, key=jax.random.key(0)))
    for mean in (trend, network, 2.0, 3, pgp.ConstantMean(1.0), pgp.ZeroMean()):
        prior = pgp.GPPrior(kernel=KERNEL, X=X, mean=mean)
        values = prior.mean(X) if callable(mean) else jnp.full(N, float(mean))
        posterior = prior.condition(values, 0.1)
        np.testing.assert_allclose(posterior.coefficients, 0, atol=1e-12)
    gradient = eqx.filter_grad(lambda p: p.log_prob(Y, 0.1))(pgp.GPPrior(kernel=KERNEL, X=X, mean=network))
    assert np.all(np.asarray(gradient.mean.layer.weight) != 0)


def objects():
    prior = pgp.GPPrior(kernel=KERNEL + pgp.Linear(0.5), X=X, mean=trend)
    posterior = prior.condition(Y, NOISE)
    sparse = pgp.SparseGPPrior(kernel=KERNEL, Z=Z, mean=1.0, jitter=1e-6)
    mean, scale = RNG.normal(size=M), np.tril(RNG.normal(size=(M, M))) + 2 * np.eye(M)
    guides = [
        pgp.FullRankGuide(mean, scale),
        pgp.MeanFieldGuide(mean, np.ones(M)),
        pgp.WhitenedGuide(mean, scale),
        pgp.DeltaGuide(mean),
        pgp.NaturalGuide(mean, -scale @ scale.T),
    ]
    samplers = [
        pgp.PathwiseSampler(posterior, 10),
        pgp.PathwiseSampler(posterior, 10, share_features=False),
        pgp.DecoupledPathwiseSampler(sparse, guides[0], 10),
    ]
    return [prior, posterior, sparse, *guides, *samplers]


def value_of(thing):
    """Something that every leaf of the thing enters."""
    if isinstance(thing, pgp.GPPrior):
        return thing.log_prob(Y, NOISE)
    if isinstance(thing, pgp.ConditionedGP):
        return thing.variance(TEST).sum() + thing.log_marginal_likelihood() + thing.mean(TEST).sum()
    if isinstance(thing, pgp.SparseGPPrior):
        return thing.factor().log_det() + thing.mean_at(thing.functional).sum()
    if isinstance(thing, pgp.AbstractGuide):
        sparse = pgp.SparseGPPrior(kernel=KERNEL, Z=Z, mean=1.0, jitter=1e-6)
        return thing.kl_divergence(sparse) + thing.sample(jax.random.key(0), sparse).sum()
    return thing.sample_paths(jax.random.key(0), 2)(TEST).sum()


@pytest.mark.parametrize("i", range(11))
def test_pytree_laws(i, tmp_path):
    thing = objects()[i]
    expected = value_of(thing)
    again = [
        jax.tree.map(lambda leaf: leaf, thing),
        eqx.filter_jit(lambda t: t)(thing),
        copy.deepcopy(thing),
        pickle.loads(pickle.dumps(thing)),
    ]
    eqx.tree_serialise_leaves(tmp_path / "thing.eqx", thing)
    blank = jax.tree.map(lambda leaf: jnp.zeros_like(leaf) if eqx.is_array(leaf) else leaf, thing)
    again.append(eqx.tree_deserialise_leaves(tmp_path / "thing.eqx", blank))
    for copied in again:
        assert type(copied) is type(thing)
        assert jax.tree.structure(copied) == jax.tree.structure(thing)
        np.testing.assert_array_equal(value_of(copied), expected)
    np.testing.assert_allclose(eqx.filter_jit(value_of)(thing), expected, rtol=1e-10)
    # Everything that varies is a leaf: moving any of them moves the value, and the derivatives are finite.
    gradient = eqx.filter_jit(eqx.filter_grad(value_of))(thing)
    leaves = jax.tree.leaves(eqx.filter(gradient, eqx.is_inexact_array))
    assert leaves
    assert all(np.all(np.isfinite(leaf)) for leaf in leaves)
    # A batch along a new axis is a loop.
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]) if eqx.is_array(leaf) else leaf, thing)
    values = eqx.filter_vmap(value_of, in_axes=(eqx.if_array(0),))(batch)
    np.testing.assert_allclose(values, jnp.stack([expected, expected]), rtol=1e-8)


def test_modules_are_immutable():
    for thing in objects():
        with pytest.raises(AttributeError):
            thing.kernel = KERNEL
