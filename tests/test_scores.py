"""Scores against their definitions, closed forms and finite differences; calibration of draws that are calibrated."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import pathwise_gp as pgp
from pathwise_gp import scores

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
S, N, K = 9, 4, 3
DRAWS, Y = RNG.normal(size=(S, N, K)), RNG.normal(size=(N, K))


def by_pairs(draws, y, fair):
    """The energy score of one vector, from its definition."""
    s = len(draws)
    near = np.mean([np.linalg.norm(x - y) for x in draws])
    spread = sum(np.linalg.norm(x - z) for x in draws for z in draws)
    return near - spread / (2 * (s * (s - 1) if fair else s * s))


@pytest.mark.parametrize("fair", [True, False])
def test_scores_are_their_definitions(fair):
    crps = scores.crps(DRAWS, Y, fair=fair)
    expected = [[by_pairs(DRAWS[:, i, j, None], Y[i, j], fair) for j in range(K)] for i in range(N)]
    np.testing.assert_allclose(crps, expected, rtol=1e-12)
    np.testing.assert_allclose(scores.energy_score(DRAWS[..., None], Y[..., None], fair=fair), crps, rtol=1e-12)
    energy = scores.energy_score(DRAWS, Y, fair=fair)
    np.testing.assert_allclose(energy, [by_pairs(DRAWS[:, i], Y[i], fair) for i in range(N)], rtol=1e-12)
    # One vector, and several axes of draws.
    one = scores.energy_score(DRAWS[:, 1], Y[1], fair=fair)
    np.testing.assert_allclose(one, energy[1], rtol=1e-12)
    np.testing.assert_allclose(scores.crps(DRAWS.reshape(3, 3, N, K), Y, fair=fair), crps, rtol=1e-12)


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0])
def test_the_variogram_score_is_its_definition(p):
    weights = RNG.uniform(size=(K, K))
    for w in (None, weights):
        found = scores.variogram_score(DRAWS, Y, p, w)
        full = np.ones((K, K)) if w is None else w
        expected = [
            sum(
                full[i, j] * (abs(y[i] - y[j]) ** p - np.mean(np.abs(draws[:, i] - draws[:, j]) ** p)) ** 2
                for i in range(K)
                for j in range(K)
            )
            for draws, y in zip(DRAWS.swapaxes(0, 1), Y, strict=True)
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_log_score_is_that_of_the_mixture():
    values, y = DRAWS[:, :, 0], Y[:, 0]
    each = RNG.uniform(0.5, 2, (S, N))
    for variances, full in ((0.3, np.full((S, N), 0.3)), (each[0], np.tile(each[0], (S, 1))), (each, each)):
        density = scipy.stats.norm(values, np.sqrt(full)).pdf(y).mean(0)
        np.testing.assert_allclose(scores.log_score(values, y, variances), -np.log(density), rtol=1e-12)
    by_draw = scores.log_score(values.reshape(3, 3, N), y, each[:3, :1].reshape(3, 1, 1))
    repeated = np.repeat(each[:3, :1], 3, axis=0)
    np.testing.assert_allclose(by_draw, -np.log(scipy.stats.norm(values, np.sqrt(repeated)).pdf(y).mean(0)), rtol=1e-12)
    far = scores.log_score(jnp.zeros((2, 1)), jnp.full(1, 1e3), 1.0)  # where densities underflow
    np.testing.assert_allclose(far, 0.5e6 + 0.5 * math.log(2 * math.pi), rtol=1e-12)


def gaussian_crps(y, mean, sd):
    """Gneiting & Raftery (2007), section 4.2."""
    z = (y - mean) / sd
    return sd * (z * (2 * scipy.stats.norm.cdf(z) - 1) + 2 * scipy.stats.norm.pdf(z) - 1 / math.sqrt(math.pi))


@pytest.mark.parametrize("s", [2, 5])
def test_the_fair_score_has_no_bias_and_the_plain_one_that_of_its_size(s):
    repeats, y, sd, rng = 40_000, 0.7, 1.3, np.random.default_rng(s)
    draws = 0.2 + sd * rng.normal(size=(s, repeats))
    exact = gaussian_crps(y, 0.2, sd)
    fair, plain = (np.asarray(scores.crps(draws, np.full(repeats, y), fair=fair)) for fair in (True, False))
    error = fair.std() / math.sqrt(repeats)
    assert abs(fair.mean() - exact) < 4 * error
    # ½ E|X − X′| = sd/√π comes with a factor (S − 1)/S.
    bias = sd / math.sqrt(math.pi) / s
    assert abs(plain.mean() - exact - bias) < 4 * plain.std() / math.sqrt(repeats)
    assert bias > 10 * error
    # The energy score too, of vectors: ½ E‖X − X′‖ = sd Γ(3/2)/Γ(1) of two entries.
    pairs = 0.2 + sd * rng.normal(size=(s, repeats, 2))
    fair, plain = (np.asarray(scores.energy_score(pairs, np.full((repeats, 2), y), fair=f)) for f in (True, False))
    bias = sd * math.gamma(1.5) / s
    assert abs((plain - fair).mean() - bias) < 4 * (plain - fair).std() / math.sqrt(repeats)


def test_many_draws_give_the_closed_form():
    y = np.linspace(-3, 3, 7)
    draws = 0.5 + 2 * np.random.default_rng(0).normal(size=(20_000, 7))
    exact = gaussian_crps(y, 0.5, 2.0)
    # |X − y| has a variance of at most E(X − y)²; the other term adds less.
    error = np.sqrt((4 + (y - 0.5) ** 2) / 20_000)
    assert (np.abs(scores.crps(draws, y) - exact) < 4 * error).all()
    level = 0.8
    z = scipy.stats.norm.ppf(0.9)
    lower, upper = 0.5 - 2 * z, 0.5 + 2 * z
    outside = np.maximum(lower - y, 0) + np.maximum(y - upper, 0)
    # A quantile's standard error is √(p(1 − p)/S)/density; each end counts up to 2/α = 10 times.
    error = 2 * 10 * math.sqrt(0.09 / 20_000) / (scipy.stats.norm.pdf(z) / 2)
    assert (np.abs(scores.interval_score(draws, y, level) - (upper - lower + 10 * outside)) < 4 * error).all()


def correlated(rho, mean, sd, seed, shape):
    z = np.random.default_rng(seed).normal(size=(*shape, 3))
    mixed = math.sqrt(rho) * z[..., :1] + math.sqrt(1 - rho) * z
    return mean + sd * (mixed if rho else z)


SCORES = {
    "crps": lambda x, y: scores.crps(x, y).mean(-1),
    "plain crps": lambda x, y: scores.crps(x, y, fair=False).mean(-1),
    "energy": scores.energy_score,
    "variogram": scores.variogram_score,
    "interval": lambda x, y: scores.interval_score(x, y, 0.8).mean(-1),
    "log": lambda x, y: scores.log_score(x, y, 0.1).mean(-1),
}


COMPILED = {name: jax.jit(score) for name, score in SCORES.items()}


@pytest.mark.parametrize("name", SCORES)
def test_the_law_that_made_the_observations_scores_best(name):
    repeats, s = 4_000, 40
    score = lambda x, y: np.asarray(COMPILED[name](x, y))
    law = {"rho": 0.5, "mean": 0.0, "sd": 1.0}
    y = correlated(**law, seed=0, shape=(repeats,))
    if name == "log":  # the draws are means there
        y = y + math.sqrt(0.1) * np.random.default_rng(2).normal(size=y.shape)
    others = [{"sd": 0.6}, {"sd": 1.6}, {"mean": 0.5}, {"rho": 0.0}]
    if name in ("crps", "plain crps", "interval", "log"):
        others = others[:3]  # of one entry at a time
    if name == "variogram":
        others = [others[i] for i in (0, 1, 3)]
    best = score(correlated(**law, seed=1, shape=(s, repeats)), y)
    for other in others:
        difference = score(correlated(**(law | other), seed=1, shape=(s, repeats)), y) - best
        assert difference.mean() > 4 * difference.std() / math.sqrt(repeats), other


X = np.linspace(-1, 1, 8)[:, None]
TEST = np.linspace(-1.2, 1.2, 5)[:, None]
AT_TEST = np.sin(3 * TEST[:, 0]) + 0.1


def predicted(theta):
    """Draws of observations at the test points, and values of paths, from hyperparameters."""
    lengthscale, variance, noise = jnp.exp(theta)
    posterior = pgp.GPPrior(kernel=pgp.RBF(variance, lengthscale), X=X, jitter=1e-6).condition(
        np.sin(3 * X[:, 0]), noise
    )
    values = pgp.PathwiseSampler(posterior, n_features=32).sample_paths(KEY, 6)(TEST)
    return values, scores.observe(values, noise, jax.random.key(1)), noise


OBJECTIVES = {
    "crps": lambda values, draws, noise: scores.crps(draws, AT_TEST).mean(),
    "energy": lambda values, draws, noise: scores.energy_score(draws, AT_TEST),
    "variogram": lambda values, draws, noise: scores.variogram_score(draws, AT_TEST),
    "log": lambda values, draws, noise: scores.log_score(values, AT_TEST, noise).mean(),
    "interval": lambda values, draws, noise: scores.interval_score(draws, AT_TEST, 0.5).mean(),
}


def test_derivatives_in_the_hyperparameters_are_differences():
    theta = np.log([0.5, 1.2, 0.05])

    def objectives(theta):
        parts = predicted(theta)
        found = jnp.stack([objective(*parts) for objective in OBJECTIVES.values()])
        return found, found

    compiled, h = jax.jit(jax.jacrev(objectives, has_aux=True)), 1e-6
    jacobian = np.asarray(compiled(theta)[0])
    for i in range(3):
        ends = [np.asarray(compiled(theta + sign * h * np.eye(3)[i])[1]) for sign in (1, -1)]
        np.testing.assert_allclose(jacobian[:, i], (ends[0] - ends[1]) / (2 * h), rtol=2e-5, atol=1e-7)
    assert (np.abs(jacobian).max(axis=1) > 1e-3).all()


def test_derivatives_are_finite_at_ties():
    same = jnp.zeros((3, 4))
    total = lambda x: sum(
        jnp.sum(score(x, jnp.zeros(4))) for score in (scores.crps, scores.energy_score, scores.variogram_score)
    )
    assert np.isfinite(jax.jit(jax.grad(total))(same)).all()
    assert np.isfinite(jax.jit(jax.grad(lambda v: jnp.sum(scores.observe(same, v, KEY))))(0.0))


def test_calibrated_draws_look_calibrated():
    s, many, rng = 9, 20_000, np.random.default_rng(0)
    # Uniform numbers, and normal ones made of them.
    even, even_y = rng.uniform(size=(s, many)), rng.uniform(size=many)
    draws, y = scipy.stats.norm.ppf(even), scipy.stats.norm.ppf(even_y)
    u = scores.pit(draws, y, jax.random.key(2))
    assert scipy.stats.kstest(u, "uniform").pvalue > 0.01
    # At whole places p (S + 1) exactly.
    whole, between = np.asarray([0.2, 0.6, 0.8]), np.asarray([0.1, 0.45, 0.7])
    error = lambda p: 4 * np.sqrt(p * (1 - p) / many)
    assert (np.abs(scores.coverage(draws, y, whole) - whole) < error(whole)).all()
    # Between them of uniform draws only; of normal ones about as much off as is said.
    assert (np.abs(scores.coverage(even, even_y, between) - between) < error(between)).all()
    assert abs(np.asarray(scores.coverage(draws, y, between))[2] - 0.7234) < error(0.7) < 0.02
    for sd, (low, high) in ((0.5, (0.0, 0.55)), (2.0, (0.87, 1.0))):
        assert scipy.stats.kstest(scores.pit(sd * draws, y, jax.random.key(2)), "uniform").pvalue < 1e-6
        assert low < np.asarray(scores.coverage(sd * draws, y, whole))[2] < high


def test_pit_of_ties_is_uniform_with_a_key():
    rng = np.random.default_rng(0)
    counts, draws = rng.poisson(0.7, 2_000).astype(float), rng.poisson(0.7, (4, 2_000)).astype(float)
    assert scipy.stats.kstest(scores.pit(draws, counts, jax.random.key(2)), "uniform").pvalue > 0.01
    np.testing.assert_allclose(scores.pit(np.asarray([[0.0], [1], [1], [3]]), np.ones(1)), [(1 + 0.5 * 3) / 5])


@pytest.mark.usefixtures("standard_promotion")
def test_single_precision_and_jit():
    draws, y = DRAWS.astype(np.float32), Y.astype(np.float32)
    for name, score in SCORES.items():
        found = COMPILED[name](draws, y)
        assert found.dtype == jnp.float32, name
        np.testing.assert_allclose(found, score(DRAWS, Y), rtol=1e-4, atol=1e-5)
    # Far from zero, where squares and differences lose digits.
    moved = [(part + np.float32(1000)) for part in (draws, y)]
    np.testing.assert_allclose(scores.crps(*moved), scores.crps(draws, y), rtol=2e-3, atol=3e-4)


def test_many_draws_need_no_integers_of_more_than_32_bits():
    with jax.enable_x64(False):
        s = 46_342
        draws = jnp.linspace(0, 1, s, dtype=jnp.float32)[:, None]
        for fair in (True, False):
            # E|X − ½| − ½ E|X − X′| of a uniform law.
            np.testing.assert_allclose(scores.crps(draws, jnp.full(1, 0.5), fair=fair), 1 / 4 - 1 / 6, rtol=1e-3)
        # The energy score takes S² distances of so many: its divisor alone.
        pairs = scores._pairs(s, True)
        assert isinstance(pairs, float)
        np.testing.assert_allclose(jnp.ones((), jnp.float32) / pairs, 1 / (s * (s - 1)), rtol=1e-6)
        assert np.isfinite(jax.jit(lambda x, y: scores._energy(x, y, pairs))(draws[:3], draws[0]))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda v: scores.observe(jnp.zeros((1, 2)), v, KEY), "`noise_var` must not be negative or NaN"),
        (lambda v: scores.log_score(jnp.zeros((2, 1)), jnp.zeros(1), v), "`variances` must be positive"),
        (
            lambda v: scores.coverage(jnp.zeros((9, 1)), jnp.zeros(1), v + 2.5),
            "`levels` must be above 0 and, with 9 draws",
        ),
        (lambda v: scores.interval_score(jnp.zeros((9, 1)), jnp.zeros(1), v + 1), "`level` must be above 0"),
    ],
)
def test_traced_values_are_refused_when_they_are_known(call, words):
    with pytest.raises(Exception, match=words):
        jax.block_until_ready(jax.jit(call)(-1.0))


GOOD = np.zeros((5, 3)), np.zeros(3)


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: scores.crps(np.zeros((5, 4)), GOOD[1]), "`samples` must have axes of draws followed by those of `y`"),
        (lambda: scores.crps(GOOD[1], GOOD[1]), "`samples` must have axes of draws"),
        (lambda: scores.crps(np.zeros((1, 3)), GOOD[1]), "one draw, of which there is no fair score"),
        (lambda: scores.crps(GOOD[0], GOOD[1], fair=1), "`fair` must be True or False"),
        (lambda: scores.crps(np.full((5, 3), np.nan), GOOD[1]), "`samples` must be finite"),
        (lambda: scores.crps(GOOD[0], np.full(3, np.inf)), "`y` must be finite"),
        (lambda: scores.energy_score(np.zeros(4), np.zeros(())), "`y` must have a last axis"),
        (lambda: scores.variogram_score(*GOOD, 0.0), "`p` must be positive"),
        (lambda: scores.variogram_score(*GOOD, 0.5, np.ones((2, 2))), r"`weights` must have shape \(3, 3\)"),
        (lambda: scores.variogram_score(*GOOD, 0.5, -np.ones((3, 3))), "`weights` must not be negative"),
        (lambda: scores.log_score(*GOOD, 0.0), "`variances` must be positive"),
        (lambda: scores.log_score(*GOOD, np.ones(5)), "`variances` must be a scalar, have shape"),
        (lambda: scores.log_score(np.zeros((5, 4)), GOOD[1], 1.0), "`means` must have axes of draws"),
        (lambda: scores.coverage(*GOOD, 0.9), "`levels` must be above 0 and, with 5 draws, at most 0.6667"),
        (lambda: scores.interval_score(*GOOD, 0.9), "`level` must be above 0"),
        (lambda: scores.interval_score(*GOOD, np.ones(2) / 2), "`level` must be a scalar"),
        (lambda: scores.observe(GOOD[0], -1.0, KEY), "`noise_var` must not be negative"),
        (lambda: scores.observe(GOOD[0], np.ones(3), KEY), "`noise_var` must be a scalar or have 2 axes"),
    ],
)
def test_scores_refuse(call, words):
    with pytest.raises(ValueError, match=words):
        call()
