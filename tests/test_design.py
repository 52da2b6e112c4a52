"""Information against the closed forms of normal laws, quadrature and exhaustive search."""

import functools
import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

import pathwise_gp as pgp
from pathwise_gp import design, optimise
from pathwise_gp._paths.ensemble import map_draws
from pathwise_gp.design.entropy_search import _cut as cut

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
NOISE = 0.1
POSTERIOR = pgp.GPPrior(kernel=pgp.RBF(1.0, 0.5), X=np.zeros((1, 1)), jitter=1e-6).condition(np.zeros(1), NOISE)
X = np.linspace(-1, 1, 4)[:, None]
K = np.asarray(POSTERIOR.covariance(X))
EXACT = 0.5 * np.linalg.slogdet(np.eye(4) + K / NOISE)[1]


class Draws(eqx.Module):
    """Exact draws at the points of `X`, whose numbers are the inputs: no features, so that all error is of the draws."""

    values: jax.Array

    def __call__(self, numbers):
        return self.values[..., jnp.round(numbers[..., 0]).astype(int)]


NUMBERS = jnp.asarray(np.arange(4.0)[:, None])


ROOT = np.linalg.cholesky(K + 1e-12 * np.eye(len(K)))


@functools.partial(jax.jit, static_argnames="s")
def draws(s, seed=0):
    return Draws(jax.random.normal(jax.random.key(seed), (s, len(K))) @ ROOT.T)


def normal(f):
    return dist.Normal(f, math.sqrt(NOISE))


TWO = pgp.Coregionalised(pgp.RBF(1.0, 0.9), np.ones((2, 1)), np.ones(2))
BOTH = np.stack([np.sin(X[:, 0]), 100 + X[:, 0]], axis=1)
MULTI = (
    pgp.PathwiseSampler(pgp.GPPrior(kernel=TWO, X=pgp.AllOutputs(X, 2)).condition(BOTH, 0.1, check_scales=False), 8)
    .sample_paths(KEY, 5)
    .outputs
)


def pair_of(path):
    """An ensemble of two draws, which scale the same paths."""
    made = lambda scale: eqx.tree_at(
        lambda p: (p.weights, p.coefficients), path, (scale * path.weights, path.coefficients)
    )
    return pgp.PathEnsemble(*map_draws(made, (jnp.asarray(1.0),), (jnp.asarray([1.0, 2.0]),)))


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize("kind", ["paths", "ensemble", "function"])
def test_outputs_are_not_taken_for_inputs(kind):
    # With one input, and with as many inputs as outputs, the shape of the values alone does not tell.
    paths = {"paths": MULTI, "ensemble": pair_of(MULTI), "function": MULTI.__call__}[kind]
    one, two = jnp.asarray(X[0]), jnp.asarray(X[:2])
    binary = lambda f: dist.Bernoulli(logits=f)
    for call in (
        lambda: design.path_variance(paths, one),
        lambda: design.path_variance(paths, two),
        lambda: design.PathCovariance(paths)(one, two),
        lambda: design.information_gain(paths, two, NOISE),
        lambda: design.nested_information_gain(paths, two, normal, KEY),
        lambda: design.bald(paths, two, binary, jnp.arange(2)),
    ):
        with pytest.raises(ValueError, match=r"`paths` must map inputs of shape \(n, 1\).* take one: `paths.output"):
            call()
    if kind == "ensemble":
        single = pair_of(pgp.PathwiseSampler(POSTERIOR, n_features=8).sample_paths(KEY, 3))
        values = np.asarray(single(two)).reshape(6, 2)
        np.testing.assert_allclose(design.path_variance(single, two), values.var(0, ddof=1), rtol=1e-9)


@pytest.mark.usefixtures("standard_promotion")
def test_many_inputs_are_taken_in_blocks():
    slopes, asked = jax.random.normal(KEY, (1_000, 1)), []

    def paths(inputs):
        asked.append(math.prod(inputs.shape[:-1]))
        flat = inputs[..., 0].reshape(1, -1)
        return (slopes * flat + jnp.cos(9 * slopes * flat)).reshape(1_000, *inputs.shape[:-1])

    many = jnp.asarray(RNG.uniform(-1, 1, (4_001, 1)))
    some = RNG.choice(4_001, 20)
    for function in (
        lambda x: design.path_variance(paths, x),
        lambda x: design.bald(paths, x, lambda f: dist.Bernoulli(logits=f), jnp.arange(2)),
        lambda x: design.information_gain(paths, x[:, None], NOISE).value,
    ):
        asked.clear()
        found = function(many)
        # Apart from the number that shapes are asked for.
        assert max(n for n in asked if n != 7919) < 2_100
        np.testing.assert_allclose(found[some], function(many[some]), rtol=1e-9)


def test_moments_are_those_of_numpy():
    values = RNG.normal(size=(2, 3, 4))
    paths = Draws(jnp.asarray(values))
    flat = values.reshape(6, 4)
    np.testing.assert_allclose(design.path_variance(paths, NUMBERS), flat.var(0, ddof=1), rtol=1e-12)
    found = design.PathCovariance(paths)(NUMBERS, NUMBERS[:2])
    np.testing.assert_allclose(found, np.cov(flat.T)[:, :2], rtol=1e-12)
    np.testing.assert_allclose(design.PathCovariance(paths)(NUMBERS[1], NUMBERS[3]), np.cov(flat.T)[1, 3], rtol=1e-12)


def replicates(estimate, repeats):
    """Mean and standard deviation of an estimate over batches of paths, and the root mean square of its standard errors."""
    found = jax.jit(jax.vmap(estimate))(jnp.arange(repeats))
    return found.value.mean(), found.value.std(ddof=1), jnp.sqrt((found.standard_error**2).mean())


@pytest.mark.parametrize("correct_bias", [True, False])
def test_gain_of_paths_is_the_closed_form(correct_bias):
    s, repeats = 60, 4_000
    estimate = lambda seed: design.information_gain(draws(s, seed), NUMBERS, NOISE, correct_bias=correct_bias)
    mean, sd, error = replicates(estimate, repeats)
    M = K @ np.linalg.inv(K + NOISE * np.eye(4))
    bias = (np.trace(M) ** 2 + np.trace(M @ M)) / (4 * (s - 1))
    chance = sd / math.sqrt(repeats)
    assert abs(mean - EXACT + (0 if correct_bias else bias)) < 4 * chance + 0.05 * bias
    assert bias > 12 * chance
    assert abs(error / sd - 1) < 0.15
    # Draws of three paths each, all of a draw alike: as many chances as there are draws.
    alike = Draws(jnp.repeat(draws(s).values[:, None], 3, axis=1))
    once, thrice = (design.information_gain(p, NUMBERS, NOISE, correct_bias=False) for p in (draws(s), alike))
    np.testing.assert_allclose(thrice.standard_error, once.standard_error, rtol=0.05)


def test_gain_where_inputs_coincide_and_noise_is_small():
    # W = c 11ᵀ, of which the determinant of I + W is 1 + q c: far from it is what is left of a product in single precision.
    values = jax.random.normal(KEY, (50, 1), jnp.float32)
    for noise in (1e-4, 1e-8, 1e-10):
        c = float(np.var(np.asarray(values, float), ddof=1)) / noise
        found = design.information_gain(Draws(values), jnp.zeros((6, 1), jnp.float32), noise, correct_bias=False)
        np.testing.assert_allclose(found.value, 0.5 * math.log1p(6 * c), rtol=1e-5)
        assert found.value.dtype == jnp.float32
        corrected = design.information_gain(Draws(values), jnp.zeros((6, 1), jnp.float32), noise).value
        np.testing.assert_allclose(corrected - found.value, 2 / (4 * 49), rtol=1e-3)  # one direction of variance
    two = design.information_gain(draws(2), NUMBERS, NOISE)
    assert np.isfinite(two.value)
    assert np.isnan(two.standard_error)
    assert design.information_gain(draws(3), NUMBERS, NOISE).standard_error > 0


def test_gain_and_entropy_of_posterior_paths():
    paths = pgp.PathwiseSampler(POSTERIOR, n_features=1024).sample_paths(KEY, 4_000)
    value, error = design.information_gain(paths, X, NOISE)
    assert abs(value - EXACT) < 4 * error + 0.01 * EXACT
    entropy = design.joint_entropy(paths, X, NOISE)
    exact = scipy.stats.multivariate_normal(np.zeros(4), K + NOISE * np.eye(4)).entropy()
    assert abs(entropy - exact) < 4 * error + 0.01 * EXACT
    # Many sets at once, a noise of each input, and derivatives in the inputs.
    few = paths[:50]
    sets = np.stack([X, X + 0.3])
    noise = np.asarray([0.1, 0.2, 0.3, 0.4])
    both = design.information_gain(few, sets, noise)
    assert both.value.shape == both.standard_error.shape == (2,)
    alone = [design.information_gain(few, one, noise).value for one in sets]
    np.testing.assert_allclose(both.value, alone, rtol=1e-9)
    gain = lambda x: design.information_gain(few, x, NOISE).value
    both, h = jax.jit(jax.value_and_grad(gain)), 1e-6
    step = h * np.eye(4)[1][:, None]
    difference = (float(both(sets[1] + step)[0]) - float(both(sets[1] - step)[0])) / (2 * h)
    np.testing.assert_allclose(np.asarray(both(sets[1])[1])[1, 0], difference, rtol=1e-5)


def test_nested_estimates_bound_the_closed_form():
    s, repeats = 200, 300
    half = 0.5 * np.linalg.slogdet(np.eye(2) + K[:2, :2] / NOISE)[1]
    found = {}
    for contrastive in (False, True):
        estimate = lambda seed, c=contrastive: design.nested_information_gain(
            draws(s, seed), NUMBERS[:2], normal, jax.random.key(1_000 + seed), contrastive=c
        )
        mean, sd, error = found[contrastive] = replicates(estimate, repeats)
        assert abs(error / sd - 1) < 0.25
        assert abs(mean - half) < 0.05 * half
    chance = 4 * found[True][1] / math.sqrt(repeats)
    assert found[True][0] - chance < half < found[False][0] + chance
    assert found[True][0] + 0.01 < found[False][0]


@pytest.mark.parametrize("contrastive", [True, False])
@pytest.mark.parametrize("axes", [(6,), (3, 2), (1, 6)])
def test_nested_estimates_are_their_definition(contrastive, axes):
    values = np.asarray(draws(6).values)
    paths = Draws(jnp.asarray(values.reshape(*axes, 4)))
    numbers = np.asarray(NUMBERS)
    sets = np.stack([numbers[:3], numbers[1:]])
    found = design.nested_information_gain(paths, sets, normal, KEY, contrastive=contrastive)
    assert found.value.shape == found.standard_error.shape == (2,)
    # Those of a draw are left out together; one draw alone is no sample of draws.
    draw = np.arange(6) // (2 if axes == (3, 2) else 1)
    counted = np.ones((6, 6)) if contrastive else 1.0 * (draw[:, None] != draw)
    for i in range(2):
        here = values[:, i : i + 3]
        y = here + math.sqrt(NOISE) * np.asarray(jax.random.normal(KEY, here.shape))
        density = np.exp(scipy.stats.norm(here[None], math.sqrt(NOISE)).logpdf(y[:, None]).sum(-1))  # of y, by path
        expected = np.log(np.diag(density)) - np.log((counted * density).sum(1) / counted.sum(1))
        np.testing.assert_allclose(found.value[i], expected.mean(), rtol=1e-9)


def test_nested_estimates_bound_the_gain_of_an_ensemble():
    """Ten draws of which the 40 paths are nearly alike: what they share must not tell who observed."""
    sd, n_draws, repeats = 0.1, 10, 100
    exact = 0.5 * math.log(1 + 1 / sd**2)

    def both(key):
        key_draws, key_paths, key_y = jax.random.split(key, 3)
        centres = math.sqrt(0.99) * jax.random.normal(key_draws, (n_draws, 1, 1))
        paths = Draws(centres + 0.1 * jax.random.normal(key_paths, (n_draws, 40, 1)))
        gain = lambda c: design.nested_information_gain(
            paths, NUMBERS[:1], lambda f: dist.Normal(f, sd), key_y, contrastive=c
        )
        return gain(False).value, gain(True).value

    upper, lower = map(np.asarray, jax.jit(jax.vmap(both))(jax.random.split(KEY, repeats)))
    chance = 4 / math.sqrt(repeats)
    assert upper.mean() > exact + chance * upper.std()
    assert lower.mean() < exact - chance * lower.std()


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("contrastive", [True, False])
def test_derivatives_of_nested_estimates(contrastive):
    """Of a binary observation, the mean over the keys against the derivative of the expectation, by enumeration."""
    slopes = np.asarray([2.0, -0.5, 0.8])
    paths = lambda X: slopes[:, None] * X[None, :, 0]
    binary = lambda f: dist.Bernoulli(logits=f)
    counted = np.ones((3, 3)) if contrastive else 1 - np.eye(3)

    @jax.value_and_grad
    def expectation(x):
        p = jax.nn.sigmoid(slopes * x)
        p = jnp.stack([1 - p, p])  # of y, by path
        mean = p @ counted / counted.sum(0)[None, :]  # of y, by the path that made it
        return jnp.sum(p * jnp.log(p / mean)) / 3

    gain = lambda x, key: design.nested_information_gain(paths, x[None, None], binary, key, contrastive=contrastive)
    keys = jax.random.split(KEY, 2_000)
    of_key = jax.value_and_grad(lambda x, key: gain(x, key).value)
    found = jax.jit(jax.vmap(of_key, in_axes=(None, 0)))(0.9, keys)
    for got, exact in zip(map(np.asarray, found), jax.jit(expectation)(0.9), strict=True):
        assert abs(got.mean() - exact) < 4 * got.std() / math.sqrt(len(keys))
        assert abs(exact) > 12 * got.std() / math.sqrt(len(keys))
    # Of a normal one, through the observations: that of the value with its key.
    value = lambda x: design.nested_information_gain(paths, x[None, None], normal, KEY, contrastive=contrastive).value
    both = jax.jit(jax.value_and_grad(value))
    difference = (both(0.9 + 1e-5)[0] - both(0.9 - 1e-5)[0]) / 2e-5
    np.testing.assert_allclose(both(0.9)[1], difference, rtol=1e-6)


@pytest.mark.usefixtures("standard_promotion")
def test_nested_estimate_of_a_binary_observation():
    # One observation: the gain is H(E p) − E H(p), by quadrature.
    paths = Draws(jnp.asarray(0.4 + 1.5 * np.random.default_rng(0).normal(size=(3_000, 1))))
    entropy = lambda p: -(scipy.special.xlogy(p, p) + scipy.special.xlogy(1 - p, 1 - p))
    law = scipy.stats.norm(0.4, 1.5)
    over = lambda g: scipy.integrate.quad(lambda f: law.pdf(f) * g(scipy.special.expit(f)), -12, 12)[0]
    exact = entropy(over(lambda p: p)) - over(entropy)
    likelihood = lambda f: dist.Bernoulli(logits=f)
    value, error = design.nested_information_gain(paths, NUMBERS[:1], likelihood, jax.random.key(1))
    assert abs(value - exact) < 4 * error
    found = design.bald(paths, NUMBERS[:1], likelihood, jnp.arange(2))
    assert found.shape == (1,)
    assert abs(found[0] - exact) < error  # no observations are drawn
    assert 4 * error < exact
    # Certain observations, whose logarithms are infinite.
    certain = lambda f: dist.Bernoulli(probs=jnp.where(f > 0, 1.0, 0.0))
    share = np.mean(np.asarray(paths.values) > 0)
    np.testing.assert_allclose(design.bald(paths, NUMBERS[:1], certain, jnp.arange(2)), entropy(share), rtol=1e-6)


def test_bald_of_hyperparameters_is_that_of_the_mixture():
    means, variances = (
        np.asarray([[0.0, 0.0], [1.5, 0.0], [-0.5, 0.0]]),
        np.asarray([[0.5, 0.3], [1.0, 0.3], [0.8, 0.3]]),
    )
    found = design.gaussian_bald(means, variances)
    mixture = lambda y: scipy.stats.norm(means[:, 0], np.sqrt(variances[:, 0])).pdf(y).mean()
    entropy = scipy.integrate.quad(lambda y: -mixture(y) * np.log(mixture(y)), -8, 9)[0]
    exact = entropy - scipy.stats.norm(0, np.sqrt(variances[:, 0])).entropy().mean()
    np.testing.assert_allclose(found, [exact, 0], atol=1e-9)
    assert exact > 0.1
    # A narrow component inside a wide one, of which the wide one's own nodes see nothing.
    law = scipy.stats.norm([0.0, 1.0], [1.0, 0.01])
    mixture = lambda y: law.pdf(y).mean()
    pieces = [-9, 0.9, 0.95, 0.99, 1, 1.01, 1.05, 1.1, 10]
    entropy = sum(
        scipy.integrate.quad(lambda y: -mixture(y) * np.log(mixture(y)), *ends, epsabs=1e-12)[0]
        for ends in itertools.pairwise(pieces)
    )
    exact = entropy - law.entropy().mean()
    np.testing.assert_allclose(exact, 0.6572, atol=5e-5)
    for offset in (0.0, 1000.0):
        found = design.gaussian_bald(offset + np.asarray([0.0, 1.0]), np.asarray([1.0, 1e-4]))
        np.testing.assert_allclose(found, exact, atol=1e-8)
    narrow = design.gaussian_bald(np.float32([0, 1]), np.float32([1, 1e-4]))
    np.testing.assert_allclose(narrow, exact, atol=1e-5)
    moved = lambda m: design.gaussian_bald(jnp.stack([jnp.zeros_like(m), m]), np.asarray([1.0, 1e-2]))
    both = jax.jit(jax.value_and_grad(moved))
    difference = (both(1 + 1e-5)[0] - both(1 - 1e-5)[0]) / 2e-5
    np.testing.assert_allclose(both(1.0)[1], difference, rtol=1e-5)
    apart = design.gaussian_bald(100.0 * np.arange(5)[:, None], np.ones((5, 1)))
    np.testing.assert_allclose(apart, math.log(5), rtol=1e-9)
    slope = jax.jit(jax.grad(lambda m: design.gaussian_bald(m, variances)[1]))(means)
    np.testing.assert_allclose(np.asarray(slope)[:, 0], np.zeros(3), atol=1e-12)


def test_max_value_entropy_is_that_of_a_truncated_normal_law():
    mean, variance, maxima = np.asarray([0.0, 0.5]), np.asarray([1.0, 0.25]), np.asarray([0.3, 1.2, 2.0])
    expected = [
        np.mean(
            [
                scipy.stats.norm(m, math.sqrt(v)).entropy()
                - scipy.stats.truncnorm(-40, (top - m) / math.sqrt(v), m, math.sqrt(v)).entropy()
                for top in maxima
            ]
        )
        for m, v in zip(mean, variance, strict=True)
    ]
    np.testing.assert_allclose(design.max_value_entropy(mean, variance, maxima), expected, rtol=1e-6)
    assert design.max_value_entropy(np.ones(()), np.zeros(()), maxima) == 0
    assert np.isfinite(jax.jit(jax.grad(lambda v: design.max_value_entropy(jnp.zeros(()), v, maxima)))(0.0))


def far_below(x):
    """What a standard normal law loses and keeps that is cut off above −x: with a scale of x, f = −x − w/x has a density like
    exp(−w − w²/2x²)."""
    integral = lambda p: scipy.integrate.quad(lambda w: w**p * math.exp(-w - 0.5 * (w / x) ** 2), 0, 60, epsrel=1e-13)[
        0
    ]
    whole, mean, square = (integral(p) / integral(0) for p in range(3))
    loss = 0.5 * math.log(2 * math.pi) + math.log(x / integral(0)) - mean / 2
    return loss * whole, (square - mean**2) / x**2


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(("dtype", "rtol"), [(jnp.float32, 3e-6), (jnp.float64, 1e-12)])
def test_maxima_far_below_what_is_foreseen(dtype, rtol):
    x = np.asarray([2.5, 3.99, 4.01, 5, 10, 60, 600, 1e4, 1e5, 1e6])
    losses, left = np.asarray([far_below(one) for one in x]).T
    one, zero = jnp.ones((), dtype), jnp.zeros(1, dtype)
    mean = jnp.asarray(x, dtype)
    found = design.max_value_entropy(mean, jnp.ones_like(mean), zero)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, losses, rtol=rtol)
    assert design.max_value_entropy(-mean[-1], one, zero) == 0
    # d/dx of the loss by a difference of the reference, and nothing that is not a number at the ends of the range.
    entropy = lambda m: design.max_value_entropy(m, one, zero)
    slopes = jax.jit(jax.vmap(jax.grad(entropy)))(mean)
    differences = [(far_below(a * (1 + 1e-4))[0] - far_below(a * (1 - 1e-4))[0]) / (2e-4 * a) for a in x]
    np.testing.assert_allclose(slopes, differences, rtol=1e-3 if dtype == jnp.float32 else 1e-6)
    ends = jnp.asarray([-1e30, 1e30], dtype)
    for function in (entropy, lambda m: cut(m)[1]):
        assert np.isfinite(jax.jit(jax.vmap(jax.value_and_grad(function)))(ends)).all()
    # What `joint_entropy_search` asks of the same law.
    np.testing.assert_allclose(jax.jit(cut)(-mean)[1], left, rtol=2e-4 if dtype == jnp.float32 else 1e-10)


POINTS = jnp.asarray([[-0.6], [0.7]])


def law_at(points):
    """A posterior that is neither flat nor symmetric, as functions and as the moments at some points."""
    posterior = pgp.GPPrior(kernel=pgp.RBF(1.0, 0.8), X=np.zeros((1, 1))).condition(np.ones(1), 0.2)
    return posterior, np.asarray(posterior.mean(points)), np.asarray(posterior.covariance(points))


@pytest.mark.parametrize("maximise", [False, True])
def test_joint_entropy_search_is_the_variance_of_a_law_that_is_cut_off(maximise):
    sign = 1 if maximise else -1
    x = np.asarray([[-1.0], [0.3], [0.7], [40.0]])
    posterior, mean, covariance = law_at(np.concatenate([x, POINTS]))
    values = sign * np.asarray([0.4, 1.7])
    expected = []
    for i in range(len(x)):
        after = []
        for j, value in enumerate(values, start=len(x)):
            given = mean[i] + covariance[i, j] / covariance[j, j] * (value - mean[j])
            sd = math.sqrt(max(covariance[i, i] - covariance[i, j] ** 2 / covariance[j, j], 1e-15))
            cut = scipy.stats.truncnorm(-np.inf, sign * (value - given) / sd, 0, sd)
            after.append(math.log(NOISE) if (x[i] == POINTS[j - len(x)]).all() else math.log(cut.var() + NOISE))
        expected.append(0.5 * math.log(covariance[i, i] + NOISE) - 0.5 * np.mean(after))
    found = optimise.Optimum(POINTS, jnp.asarray(values), *(jnp.ones(2, bool),) * 2)
    search = lambda x, optimum=found: design.joint_entropy_search(
        posterior.mean, posterior.covariance, x, optimum, NOISE, maximise=maximise
    )
    here = np.asarray(search(x))
    np.testing.assert_allclose(here, expected, rtol=1e-6)
    if not maximise:  # axes of any number, single precision, and derivatives
        np.testing.assert_array_equal(search(x.reshape(2, 2, 1)), here.reshape(2, 2))
        np.testing.assert_allclose(search(x.astype(np.float32)), expected, rtol=1e-4)
        both = jax.jit(jax.value_and_grad(lambda z: search(z[None, None])[0]))
        difference = (both(0.2 + 1e-5)[0] - both(0.2 - 1e-5)[0]) / 2e-5
        np.testing.assert_allclose(both(0.2)[1], difference, rtol=1e-6)
    # An optimum that the data hold to be all but impossible leaves next to no variance.
    beyond = optimise.Optimum(POINTS, mean[-2:] - sign * np.asarray([400.0, 40.0]), *(jnp.ones(2, bool),) * 2)
    left = np.exp(2 * (0.5 * np.log(np.diag(covariance)[3] + NOISE) - np.asarray(search(x, beyond))[3])) - NOISE
    assert 0 <= left < 1e-3


@pytest.mark.parametrize("maximise", [False, True])
def test_joint_entropy_search_of_two_places_is_the_mutual_information(maximise):
    """With two places only, the value at one of them given the optimum has a normal law cut off: what is left out is that an
    observation is not normal, whose entropy is a little less."""
    sign = 1 if maximise else -1
    posterior, mean, covariance = law_at(POINTS)
    grid = np.linspace(-7, 7, 2801)
    step = grid[1] - grid[0]
    density = scipy.stats.norm(mean[0], math.sqrt(covariance[0, 0])).pdf(grid)
    slope = covariance[0, 1] / covariance[0, 0]
    centre, sd = mean[1] + slope * (grid - mean[0]), math.sqrt(covariance[1, 1] - slope * covariance[0, 1])
    first_is_best = scipy.stats.norm.cdf(sign * (grid - centre) / sd)
    after = lambda variance: 0.5 * np.log(2 * math.pi * math.e * (variance + NOISE))
    noise_entropy = after(0)
    share = density * first_is_best * step
    cut = scipy.stats.truncnorm(-np.inf, sign * (grid - centre) / sd, 0, sd).var()
    use = share > 1e-9
    before = after(covariance[1, 1])
    matched = before - share[use] @ after(cut[use]) - (1 - share.sum()) * noise_entropy
    # The entropy of an observation of the second place, given the first one is best and what it is: a numerical integral.
    exact = before - (1 - share.sum()) * noise_entropy
    y = np.linspace(-9, 9, 1801)
    for i in np.flatnonzero(use)[::20]:
        total = sd**2 + NOISE
        inner = (sd**2 * y + NOISE * centre[i]) / total
        inside = scipy.stats.norm.cdf(sign * (grid[i] - inner) / math.sqrt(sd**2 * NOISE / total))
        p = scipy.stats.norm.pdf(y, centre[i], math.sqrt(total)) * inside / first_is_best[i]
        exact += 20 * share[i] * np.trapezoid(p * np.log(np.maximum(p, 1e-300)), y)
    rng = np.random.default_rng(1)
    f = rng.multivariate_normal(mean, covariance, 20_000)
    best = (sign * f).argmax(axis=1)
    runs = []
    for block in np.split(np.arange(20_000), 20):
        values = jnp.asarray(f[block, best[block]])
        optimum = optimise.Optimum(POINTS[best[block]], values, *(jnp.ones(1000, bool),) * 2)
        options = {"maximise": maximise}
        runs.append(
            design.joint_entropy_search(posterior.mean, posterior.covariance, POINTS, optimum, NOISE, **options)[1]
        )
    error = np.std(runs, ddof=1) / 20**0.5
    assert abs(np.mean(runs) - matched) < 4 * error
    assert matched < exact < 1.1 * matched


def gain_of(indices, covariance, noise):
    indices = list(indices)
    block = covariance[np.ix_(indices, indices)]
    return 0.5 * np.linalg.slogdet(np.eye(len(indices)) + block / noise[indices][:, None])[1]


@pytest.mark.parametrize("kind", ["posterior", "paths"])
def test_a_greedy_batch_is_found_one_after_the_other(kind):
    candidates = RNG.uniform(-1.5, 1.5, (9, 1))
    noise = RNG.uniform(0.05, 0.3, 9)
    if kind == "posterior":
        covariance = POSTERIOR.covariance
    else:
        covariance = design.PathCovariance(pgp.PathwiseSampler(POSTERIOR, n_features=16).sample_paths(KEY, 20))
    full = np.asarray(covariance(candidates, candidates))
    batch = design.greedy_batch(covariance, candidates, 4, noise)
    chosen = []
    for _ in range(4):
        left = [i for i in range(9) if i not in chosen]
        chosen.append(max(left, key=lambda i: gain_of([*chosen, i], full, noise)))
    np.testing.assert_array_equal(batch.indices, chosen)
    np.testing.assert_array_equal(batch.points, candidates[chosen])
    totals = [gain_of(chosen[: t + 1], full, noise) for t in range(4)]
    np.testing.assert_allclose(np.cumsum(np.asarray(batch.gains)), totals, rtol=1e-9)
    best = max(gain_of(chosen, full, noise) for chosen in itertools.combinations(range(9), 4))
    assert (1 - math.exp(-1)) * best <= totals[-1] <= best * (1 + 1e-9)
    everything = design.greedy_batch(covariance, candidates, 9, 0.1)
    assert sorted(np.asarray(everything.indices)) == list(range(9))


@pytest.mark.usefixtures("standard_promotion")
def test_single_precision():
    narrow = Draws(draws(50).values.astype(jnp.float32))
    numbers = NUMBERS.astype(jnp.float32)
    gain = design.information_gain(narrow, numbers, NOISE)
    assert gain.value.dtype == jnp.float32
    np.testing.assert_allclose(gain.value, design.information_gain(draws(50), NUMBERS, NOISE).value, rtol=1e-4)
    batch = design.greedy_batch(design.PathCovariance(narrow), numbers, 2, NOISE)
    assert batch.gains.dtype == jnp.float32
    assert design.nested_information_gain(narrow, numbers, normal, KEY).value.dtype == jnp.float32
    assert design.max_value_entropy(*(jnp.ones(2, jnp.float32),) * 3).dtype == jnp.float32


GOOD = draws(5)


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda v: design.information_gain(GOOD, NUMBERS, v).value, "`noise_var` must be finite and positive"),
        (lambda v: design.greedy_batch(POSTERIOR.covariance, NUMBERS, 2, v).gains, "`noise_var` must be finite"),
        (
            lambda v: design.max_value_entropy(jnp.ones(()), v, jnp.ones(1)),
            "`variance` must be finite and not negative",
        ),
        (lambda v: design.gaussian_bald(jnp.ones(2), jnp.stack([v, 1 + v])), "`variances` must be finite and positive"),
        (
            lambda v: design.joint_entropy_search(POSTERIOR.mean, POSTERIOR.covariance, NUMBERS, OPTIMUM, v),
            "`noise_var` must be finite",
        ),
        (lambda v: design.bald(GOOD, NUMBERS, normal, v + jnp.arange(2.0)), "`support` must sum to 1"),
        (
            lambda v: (
                design.greedy_batch(lambda X, Z: jnp.sqrt(v) * POSTERIOR.covariance(X, Z), NUMBERS, 2, NOISE).gains
            ),
            "`covariance` gave NaN",
        ),
    ],
)
def test_traced_values_are_refused_when_they_are_known(call, words):
    with pytest.raises(Exception, match=words):
        jax.block_until_ready(jax.jit(call)(-1.0))


OPTIMUM = optimise.Optimum(NUMBERS, jnp.ones(4), *(jnp.ones(4, bool),) * 2)


@pytest.mark.usefixtures("no_hook", "standard_promotion")
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: design.path_variance(draws(1), NUMBERS), "`paths` must be at least two"),
        (lambda: design.path_variance(lambda X: X[:, 0], NUMBERS), "`paths` must be at least two"),
        (lambda: design.path_variance(lambda X: X[None], NUMBERS), "`paths` must map inputs of shape"),
        (lambda: design.path_variance(GOOD, 1.0), "`X` must have a last axis"),
        (lambda: design.information_gain(GOOD, NUMBERS[0], NOISE), "`X` must have shape"),
        (lambda: design.information_gain(GOOD, NUMBERS, 0.0), "`noise_var` must be positive"),
        (
            lambda: design.information_gain(GOOD, NUMBERS, np.ones(3)),
            r"`noise_var` must be a scalar or have shape \(4,\)",
        ),
        (lambda: design.information_gain(GOOD, NUMBERS, NOISE, correct_bias=1), "`correct_bias` must be True or False"),
        (
            lambda: design.nested_information_gain(GOOD, NUMBERS, lambda f: dist.Normal(f, 1.0).to_event(1), KEY),
            "`likelihood`",
        ),
        (lambda: design.bald(GOOD, NUMBERS, normal, jnp.zeros(1)), "`support` must hold at least two"),
        (
            lambda: design.bald(GOOD, NUMBERS, lambda f: dist.Poisson(jnp.exp(f)), jnp.arange(2)),
            "`support` must sum to 1",
        ),
        (lambda: design.gaussian_bald(np.ones((2, 3)), np.ones(3)), "`means` and `variances` must have the same shape"),
        (lambda: design.gaussian_bald(np.ones(3), np.zeros(3)), "`variances` must be positive"),
        (
            lambda: design.max_value_entropy(np.ones(3), np.ones(2), np.ones(2)),
            "`mean` and `variance` must have the same",
        ),
        (lambda: design.max_value_entropy(np.ones(()), np.ones(()), np.asarray([np.nan])), "`maxima` must be finite"),
        (
            lambda: design.joint_entropy_search(
                lambda X: X[:, 0], K, NUMBERS, optimise.Optimum(NUMBERS, np.ones(3), None, None), NOISE
            ),
            r"`optimum` must hold points `\*s d` and values `\*s`",
        ),
        (
            lambda: design.joint_entropy_search(
                lambda X: X, POSTERIOR.covariance, NUMBERS, optimise.Optimum(NUMBERS, np.ones(4), None, None), NOISE
            ),
            "`mean` must map",
        ),
        (
            lambda: design.joint_entropy_search(
                POSTERIOR.mean, POSTERIOR.mean, NUMBERS, optimise.Optimum(NUMBERS, np.ones(4), None, None), [NOISE]
            ),
            "`noise_var` must be a scalar",
        ),
        (lambda: design.greedy_batch(design.PathCovariance(GOOD), NUMBERS, 5, NOISE), "`n_points` must be at most 4"),
        (lambda: design.greedy_batch(K, NUMBERS, 2, NOISE), "`covariance` must be a function"),
        (
            lambda: design.greedy_batch(POSTERIOR.covariance, NUMBERS, 2, np.ones(3)),
            r"\(4,\), one for each of the `candidates`",
        ),
        (
            lambda: design.greedy_batch(design.PathCovariance(Draws(GOOD.values * jnp.nan)), NUMBERS, 2, NOISE),
            "`covariance` gave NaN",
        ),
        (lambda: design.greedy_batch(lambda X, Z: jnp.zeros(2), NUMBERS, 2, NOISE), "`covariance` must map"),
    ],
)
def test_design_refuses(call, words):
    with pytest.raises(ValueError, match=words):
        call()
