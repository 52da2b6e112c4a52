"""Predictions of weighted members against numpy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pathwise_gp as pgp
from pathwise_gp.ensembles import Predictor

RNG = np.random.default_rng(0)
X, TEST = RNG.normal(size=(5, 2)), jnp.asarray(RNG.normal(size=(4, 2)))
KEY = jax.random.key(0)
POSTERIOR = pgp.GPPrior(kernel=pgp.RBF(1.0, 0.8), X=X, jitter=1e-6).condition(X[:, 0], 0.1)
PATHS = pgp.PathwiseSampler(POSTERIOR, n_features=8).sample_paths(KEY, 6)
NESTED = pgp.stack([PATHS[:3], PATHS[3:]])
WEIGHTS = np.asarray([1.0, 0.0, 3.0, 0.5, 0.5, 1.0])
Q = np.asarray([0.0, 0.1, 0.25, 0.5, 0.8, 1.0])


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_moments_and_quantiles_are_those_of_numpy(weights):
    predictor = Predictor(PATHS, weights)
    values = np.asarray(PATHS(TEST))
    w = np.ones(6) if weights is None else weights
    mean = np.average(values, axis=0, weights=w)
    np.testing.assert_allclose(predictor.predict(TEST), mean, rtol=1e-12)
    sd = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=w))
    for found, expected in zip(predictor.predict_mean_std(TEST), (mean, sd), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    quantiles = predictor.quantiles(TEST, Q)
    kept = w > 0  # numpy counts members of weight 0 at q = 0
    expected = np.quantile(values[kept], Q, axis=0, weights=w[kept], method="inverted_cdf")
    np.testing.assert_array_equal(quantiles, expected)
    np.testing.assert_allclose(predictor.quantiles(TEST[0], 0.5), quantiles[3, 0], rtol=1e-12)
    shaped = predictor.quantiles(TEST.reshape(2, 2, 2), Q.reshape(2, 3))
    np.testing.assert_allclose(shaped.reshape(6, 4), quantiles, rtol=1e-12)


def test_thirds_and_tenths_are_exact():
    constants = [lambda X, c=c: jnp.full(X.shape[:-1], c) for c in (3.0, 1.0, 2.0)]
    np.testing.assert_array_equal(Predictor(constants).quantiles(TEST[0], [1 / 3, 2 / 3]), [1.0, 2.0])
    tenths = Predictor([lambda X, c=c: jnp.full(X.shape[:-1], 1.0 * c) for c in range(10)])
    np.testing.assert_array_equal(tenths.quantiles(TEST[0], np.arange(1, 11) / 10), np.arange(10.0))
    assert Predictor(constants, [0, 0, 5]).quantiles(TEST[0], 0.0) == 2.0


def test_members_are_functions_in_the_order_of_the_weights():
    for paths, weights in ((PATHS, WEIGHTS), (NESTED, WEIGHTS.reshape(2, 3)), (list(PATHS), WEIGHTS)):
        predictor = Predictor(paths, weights)
        values = jnp.stack([member(TEST) for member in predictor.members])
        np.testing.assert_allclose(values, PATHS(TEST), rtol=1e-9)
        np.testing.assert_allclose(predictor.predict(TEST), np.average(values, axis=0, weights=WEIGHTS), rtol=1e-9)
    # Weights of the first axis are shared.
    shared = Predictor(NESTED, [1.0, 3.0]).predict(TEST)
    np.testing.assert_allclose(shared, (PATHS[:3](TEST).mean(0) + 3 * PATHS[3:](TEST).mean(0)) / 4, rtol=1e-9)
    assert Predictor(PATHS[0:1]).members[0].shape == ()


def test_it_is_a_pytree_with_derivatives():
    predictor = Predictor(PATHS, WEIGHTS)
    compiled = eqx.filter_jit(lambda p, x: p.predict_mean_std(x))
    np.testing.assert_allclose(compiled(predictor, TEST), predictor.predict_mean_std(TEST), rtol=1e-12)
    slope = jax.grad(predictor.predict)(TEST[0])
    np.testing.assert_allclose(
        slope, np.average([jax.grad(p)(TEST[0]) for p in PATHS], axis=0, weights=WEIGHTS), rtol=1e-9
    )
    assert np.isfinite(jax.grad(lambda x: Predictor([PATHS[0]]).predict_mean_std(x)[1])(TEST[0])).all()


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Predictor([]), "`paths` must hold at least one function"),
        (lambda: Predictor([PATHS, 1]), "`paths` must be a function, or a sequence"),
        (lambda: Predictor(PATHS, -WEIGHTS), "`weights` must not be negative"),
        (lambda: Predictor(PATHS, 0 * WEIGHTS), "`weights` must not all be 0"),
        (lambda: Predictor(PATHS, WEIGHTS[:4]).predict(TEST), r"`weights` must have the axes of the members, \(6,\)"),
        (lambda: Predictor(PATHS[0]).predict(TEST), "`paths` must give values of several members"),
        (lambda: Predictor(jnp.sin).members, "`members` are those of paths"),
        (lambda: Predictor(PATHS).quantiles(TEST, 1.2), "`q` must lie between 0 and 1"),
    ],
)
def test_it_refuses(call, words):
    with pytest.raises(ValueError, match=words):
        call()
