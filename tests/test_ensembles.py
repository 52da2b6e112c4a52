"""Predictions of weighted members against numpy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pathwise_gp as pgp
from pathwise_gp._paths.ensemble import map_draws
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
    np.testing.assert_allclose(quantiles, expected, rtol=1e-12)
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


def test_batches_in_a_sequence_are_flattened():
    """Paths of several posteriors, which cannot be put into one batch."""
    other = pgp.GPPrior(kernel=pgp.Matern(1.5, 2.0, 0.5), X=X[:4]).condition(X[:4, 1], 0.1)
    two = pgp.PathwiseSampler(other, n_features=8).sample_paths(KEY, 2)
    for batches, weights, each in (
        ([PATHS, two], None, np.ones(8)),
        ([PATHS, two], [1.0, 3.0], [1 / 6] * 6 + [1.5] * 2),
        ([PATHS[:2], two], [[1.0, 2.0], [3.0, 4.0]], [1.0, 2, 3, 4]),
        ([PATHS[:2], two], [1.0, 3.0], [1.0, 1, 3, 3]),
        ([PATHS[0], two], [1.0, 3.0], [1.0, 1.5, 1.5]),
        ([NESTED], [[1.0, 3.0]], [1.0, 1, 1, 3, 3, 3]),
    ):
        predictor = Predictor(batches, weights)
        values = np.stack([member(TEST) for member in predictor.members])
        assert values.shape == (len(each), 4)
        np.testing.assert_allclose(predictor.predict(TEST), np.average(values, axis=0, weights=each), rtol=1e-9)
        low = predictor.quantiles(TEST, 0.4)
        np.testing.assert_allclose(
            low, np.quantile(values, 0.4, axis=0, weights=each, method="inverted_cdf"), rtol=1e-9
        )


TWO = pgp.Coregionalised(pgp.RBF(1.0, 0.9), np.ones((2, 1)), np.ones(2))
MULTI = (
    pgp.PathwiseSampler(pgp.GPPrior(kernel=TWO, X=pgp.AllOutputs(X, 2)).condition(X, 0.1), 8)
    .sample_paths(KEY, 3)
    .outputs
)


def pair_of(path):
    """An ensemble of two draws, which scale the weights."""
    made = lambda scale: eqx.tree_at(lambda p: p.weights, path, scale * path.weights)
    return pgp.PathEnsemble(*map_draws(made, (jnp.asarray(1.0),), (jnp.asarray([1.0, 2.0]),)))


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize("kind", ["paths", "ensemble", "function", "sequence"])
def test_outputs_are_not_taken_for_inputs(kind):
    # With one input, and with as many inputs as outputs, the shape of the values alone does not tell.
    paths = {"paths": MULTI, "ensemble": pair_of(MULTI), "function": MULTI.__call__, "sequence": [MULTI, MULTI]}[kind]
    for inputs in (TEST[0], TEST[:2]):
        with pytest.raises(ValueError, match=r"`paths` must map inputs.*take one: `paths.output\(0\)`"):
            Predictor(paths).predict(inputs)
    single = pair_of(PATHS)
    mean = Predictor(single, [[1.0] * 6, [0.0] * 6]).predict(TEST)
    np.testing.assert_allclose(mean, PATHS(TEST).mean(0), rtol=1e-9)


def test_weights_are_those_of_any_first_axes():
    nested = pgp.stack([NESTED, NESTED])  # 2 2 3
    values = np.asarray(nested(TEST))
    for weights in ([1.0, 2], RNG.uniform(size=(2, 2)), RNG.uniform(size=(2, 2, 3))):
        full = np.broadcast_to(np.reshape(weights, (*np.shape(weights), *(1,) * (3 - np.ndim(weights)))), (2, 2, 3))
        expected = np.average(values.reshape(12, 4), axis=0, weights=full.reshape(12))
        np.testing.assert_allclose(Predictor(nested, weights).predict(TEST), expected, rtol=1e-9)


class Constants(eqx.Module):
    values: jax.Array

    def __call__(self, X):
        return jnp.broadcast_to(self.values[:, None], (len(self.values), len(X)))


@pytest.mark.usefixtures("standard_promotion")
def test_quantiles_of_many_members_in_single_precision():
    """Of members 0, …, S − 1 the least place with q of the weight: 4 S eps would be a hundredth of 40 000 members."""
    one, q = jnp.zeros((1, 1), jnp.float32), np.asarray([0.025, 0.5, 0.9, 0.975])
    for s in (500, 40_000):
        found = Predictor(Constants(jnp.arange(s, dtype=jnp.float32))).quantiles(one, q)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found[:, 0], np.ceil(q * s - 1e-6) - 1, atol=1)
    # The first of these has less than half of the weight, by half of a weight that is as small as a rounding error.
    tiny = Predictor(Constants(jnp.arange(3, dtype=jnp.float32)), [1.0, 1e-7, 1.0])
    assert tiny.quantiles(one, np.float32(0.5)) == 1


@pytest.mark.parametrize("kind", ["batch", "sequence"])
def test_many_inputs_are_taken_in_blocks(kind):
    largest = []

    def paths(inputs):
        largest.append(inputs.shape[0])
        return jnp.arange(1.0, 1_001)[:, None] * jnp.sin(inputs[None, :, 0])

    many = jnp.linspace(0, 1, 5_000)[:, None]
    predictor = Predictor(paths if kind == "batch" else [paths])
    np.testing.assert_allclose(predictor.predict(many), 500.5 * jnp.sin(many[:, 0]), rtol=1e-9)
    np.testing.assert_allclose(predictor.quantiles(many, 0.5), 500 * jnp.sin(many[:, 0]), rtol=1e-9)
    assert max(n for n in largest if n != 7919) < 2_000


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
        (lambda: Predictor(PATHS).quantiles(TEST, 1.2), r"`q` must lie between 0 and 1; got 1\.2"),
        (lambda: Predictor([PATHS, PATHS[:2]], np.ones((2, 6))).predict(TEST), r"axes of the members, \(2,\)"),
        (lambda: Predictor(PATHS).predict(1.0), "`X` must have a last axis"),
    ],
)
def test_it_refuses(call, words):
    with pytest.raises(ValueError, match=words):
        call()
