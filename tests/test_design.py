"""Information against the closed forms of normal laws, quadrature and exhaustive search."""

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
from pathwise_gp import design

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


NUMBERS = jnp.arange(4.0)[:, None]


def draws(s, seed=0, covariance=K, mean=0.0):
    root = np.linalg.cholesky(covariance + 1e-12 * np.eye(len(covariance)))
    return Draws(mean + jax.random.normal(jax.random.key(seed), (s, len(covariance))) @ root.T)


def normal(f):
    return dist.Normal(f, math.sqrt(NOISE))


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
    # Two draws with half of the paths each, all of a draw alike: as many chances as there are draws.
    alike = Draws(jnp.repeat(draws(s).values[:, None], 3, axis=1))
    once, thrice = (design.information_gain(p, NUMBERS, NOISE, correct_bias=False) for p in (draws(s), alike))
    np.testing.assert_allclose(thrice.standard_error, once.standard_error, rtol=0.05)


def test_gain_and_entropy_of_posterior_paths():
    paths = pgp.PathwiseSampler(POSTERIOR, n_features=1024).sample_paths(KEY, 4_000)
    value, error = design.information_gain(paths, X, NOISE)
    assert abs(value - EXACT) < 4 * error + 0.01 * EXACT
    entropy = design.joint_entropy(paths, X, NOISE)
    exact = scipy.stats.multivariate_normal(np.zeros(4), K + NOISE * np.eye(4)).entropy()
    assert abs(entropy - exact) < 4 * error + 0.01 * EXACT
    # Many sets at once, a noise of each input, and derivatives in the inputs.
    few = paths[:50]
    sets = jnp.stack([jnp.asarray(X), jnp.asarray(X) + 0.3])
    noise = jnp.asarray([0.1, 0.2, 0.3, 0.4])
    both = design.information_gain(few, sets, noise)
    assert both.value.shape == both.standard_error.shape == (2,)
    for i in range(2):
        np.testing.assert_allclose(both.value[i], design.information_gain(few, sets[i], noise).value, rtol=1e-9)
    gain = lambda x: design.information_gain(few, x, NOISE).value
    slope, h = jax.grad(gain)(sets[1]), 1e-6
    step = h * jnp.eye(4)[1][:, None]
    np.testing.assert_allclose(slope[1, 0], (gain(sets[1] + step) - gain(sets[1] - step)) / (2 * h), rtol=1e-5)


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
def test_nested_estimates_are_their_definition(contrastive):
    paths, s = draws(5), 5
    value, _ = design.nested_information_gain(paths, NUMBERS, normal, KEY, contrastive=contrastive)
    y = np.asarray(normal(paths.values).sample(KEY))
    density = np.exp(scipy.stats.norm(paths.values[None], math.sqrt(NOISE)).logpdf(y[:, None]).sum(-1))  # of y, by path
    counted = np.ones((s, s)) if contrastive else 1 - np.eye(s)
    expected = np.log(np.diag(density)) - np.log((counted * density).sum(1) / counted.sum(1))
    np.testing.assert_allclose(value, expected.mean(), rtol=1e-9)


@pytest.mark.usefixtures("standard_promotion")
def test_nested_estimate_of_a_binary_observation():
    # One observation: the gain is H(E p) − E H(p), by quadrature.
    paths = Draws(0.4 + 1.5 * jax.random.normal(KEY, (3_000, 1)))
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
    share = float((paths.values > 0).mean())
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
    np.testing.assert_allclose(found, [exact, 0], atol=2e-5)
    assert exact > 0.1
    apart = design.gaussian_bald(100.0 * np.arange(5)[:, None], np.ones((5, 1)))
    np.testing.assert_allclose(apart, math.log(5), rtol=1e-9)
    np.testing.assert_allclose(jax.grad(lambda m: design.gaussian_bald(m, variances)[1])(means)[:, 0], 0, atol=1e-12)


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
    # A maximum far below the mean or above it.
    far = design.max_value_entropy(np.asarray([60.0, -60]), np.ones(2), np.zeros(1))
    np.testing.assert_allclose(far, [0.5 * math.log(2 * math.pi) + math.log(60) - 0.5, 0], atol=1e-3)
    assert np.isfinite(jax.grad(lambda v: design.max_value_entropy(jnp.zeros(()), v, maxima))(0.0))


def gain_of(indices, covariance, noise):
    indices = list(indices)
    block = covariance[np.ix_(indices, indices)]
    return 0.5 * np.linalg.slogdet(np.eye(len(indices)) + block / noise[indices][:, None])[1]


@pytest.mark.parametrize("kind", ["posterior", "paths"])
def test_a_greedy_batch_is_found_one_after_the_other(kind):
    candidates = jnp.asarray(RNG.uniform(-1.5, 1.5, (9, 1)))
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
    np.testing.assert_array_equal(batch.points, candidates[jnp.asarray(chosen)])
    totals = [gain_of(chosen[: t + 1], full, noise) for t in range(4)]
    np.testing.assert_allclose(np.cumsum(batch.gains), totals, rtol=1e-9)
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


@pytest.mark.usefixtures("no_hook", "standard_promotion")
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: design.path_variance(draws(1), NUMBERS), "`paths` must be at least two"),
        (lambda: design.path_variance(lambda X: X[:, 0], NUMBERS), "`paths` must map inputs of axes"),
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
        (lambda: design.greedy_batch(design.PathCovariance(GOOD), NUMBERS, 5, NOISE), "`n_points` must be at most 4"),
        (lambda: design.greedy_batch(K, NUMBERS, 2, NOISE), "`covariance` must be a function"),
        (lambda: design.greedy_batch(lambda X, Z: jnp.zeros(2), NUMBERS, 2, NOISE), "`covariance` must map"),
    ],
)
def test_design_refuses(call, words):
    with pytest.raises(ValueError, match=words):
        call()
