"""Acquisitions against their closed forms on a Gaussian, brute force and finite differences."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm
from tables import CALLS, Counted

import pathwise_gp as pgp
from pathwise_gp import acquisition as acq, optimise

KEY = jax.random.key(5)
X = np.linspace(-1, 1, 6)[:, None]
Y = np.sin(3 * X[:, 0])
TEST = np.linspace(-1.2, 1.2, 7)[:, None]
BEST = -0.6
S = 4000
SIGNS = [False, True]


def posterior(kernel=lambda k: k, dtype=jnp.float64, scale=1.0):
    k = kernel(pgp.RBF(jnp.asarray(1.0, dtype), jnp.asarray(0.5, dtype)))
    return pgp.GPPrior(kernel=k, X=jnp.asarray(X, dtype)).condition(jnp.asarray(scale * Y, dtype), 0.2)


def draw(seed, n_paths, n_features=128, **options):
    return pgp.PathwiseSampler(posterior(**options), n_features).sample_paths(jax.random.key(seed), n_paths)


@pytest.fixture(scope="module")
def paths():
    return draw(0, S)


@pytest.fixture(scope="module")
def few():
    return draw(1, 12, kernel=Counted)


@eqx.filter_jit
def both_forms(made, X):
    """Of the first of each set of inputs alone, and of all of them together: in one program."""
    return made(X[:, 0]), made.joint(X)


number = lambda x: jnp.asarray(x, jnp.float64)


class Shifted(eqx.Module):
    """Paths, higher by a number."""

    paths: pgp.PathwiseFunction
    by: jax.Array = eqx.field(converter=number)

    def __call__(self, X):
        return self.paths(X) + self.by


@pytest.fixture(scope="module")
def moments(paths):
    """Mean and standard deviation that the paths have for the features they hold: exact, as they are affine."""
    return np.asarray(posterior().mean(TEST)), np.sqrt(np.asarray(paths.marginal_variance(TEST)))


def within(got, want, values, n=S):
    """Equal up to the Monte-Carlo standard error of the mean of `values` over paths."""
    values, want = np.asarray(values), np.asarray(want)
    error = values.std(axis=0) / n**0.5
    # Where less than a path in all is expected to count, they say nothing of their error: the variance of values between 0
    # and M is at most M times their mean.
    rare = np.sqrt(np.max(values) * np.abs(want) / n)
    error = np.where(n * np.abs(want) < np.max(values), np.maximum(error, rare), error)
    np.testing.assert_array_less(np.abs(np.asarray(got) - want), 4.2 * error + 1e-5)


@pytest.mark.parametrize("maximise", SIGNS)
def test_expected_improvement_is_its_closed_form(paths, moments, maximise):
    mean, sd = moments
    best = -BEST if maximise else BEST
    u = (mean - best if maximise else best - mean) / sd
    gains = np.maximum((np.asarray(paths(TEST)) - best) * (1 if maximise else -1), 0)
    got = acq.ExpectedImprovement(paths, best, maximise)(TEST)
    assert got.shape == (7,)
    np.testing.assert_allclose(got, gains.mean(0), rtol=1e-12)
    closed = sd * (u * norm.cdf(u) + norm.pdf(u))
    within(got, closed, gains)
    # The log form is the log of it up to the temperature, a hundredth.
    log = np.asarray(acq.LogExpectedImprovement(paths, best, maximise=maximise)(TEST))
    known = gains.mean(0) > 0.01
    assert known.sum() >= 3
    np.testing.assert_allclose(np.exp(log)[known], gains.mean(0)[known], rtol=5e-3)
    small = acq.LogExpectedImprovement(paths, best, 1e-6, maximise)(TEST)
    np.testing.assert_allclose(np.exp(small)[known], gains.mean(0)[known], rtol=1e-7)


@pytest.mark.parametrize("maximise", SIGNS)
def test_probabilities_are_their_closed_forms(paths, moments, maximise):
    mean, sd = moments
    for bandwidth in (None, 0.05, 0.3):
        h = sd * S ** (-1 / 3) if bandwidth is None else bandwidth
        # Smoothed by a normal distribution it is that of a Gaussian with its variance added.
        p = norm.cdf((BEST - mean) / np.sqrt(sd**2 + h**2))
        p = 1 - p if maximise else p
        error = np.sqrt(p * (1 - p))  # at most
        for made in (acq.ProbabilityOfImprovement, acq.Exceedance):
            got = np.asarray(made(paths, BEST, bandwidth, maximise)(TEST))
            np.testing.assert_array_less(np.abs(got - p), 4.2 * error / S**0.5 + 1e-9)
    share = acq.Exceedance(paths, BEST, 1e-9, maximise)(TEST)
    np.testing.assert_allclose(share, ((np.asarray(paths(TEST)) > BEST) == maximise).mean(0), atol=1e-12)
    f = np.asarray(paths(TEST))
    smooth = norm.cdf((BEST - f) / (f.std(0) * S ** (-1 / 3))).mean(0)
    got = acq.Exceedance(paths, BEST, maximise=maximise)(TEST)
    np.testing.assert_allclose(got, 1 - smooth if maximise else smooth, rtol=1e-9)
    # The rule for the bandwidth costs less than the Monte-Carlo error.
    exact, smoothed = (norm.cdf((BEST - mean) / np.sqrt(sd**2 + k * sd**2 * S ** (-2 / 3))) for k in (0, 1))
    assert (np.abs(exact - smoothed) < 0.5 * np.sqrt(exact * (1 - exact) / S)).all()


def test_feasibility_and_constrained_improvement(paths, moments):
    mean, sd = moments
    other = draw(2, S)
    h = S ** (-1 / 3)
    p = norm.cdf(-mean / sd / np.sqrt(1 + h**2))
    got = acq.ProbabilityOfFeasibility((paths, other))(TEST)
    both = norm.cdf(-np.asarray(paths(TEST)) / (sd * h)) * norm.cdf(-np.asarray(other(TEST)) / (sd * h))
    sds = np.sqrt(np.asarray(other.marginal_variance(TEST)))
    want = p * norm.cdf(-mean / sds / np.sqrt(1 + h**2))
    within(got, want, both)
    # Objective and constraint are independent here: the expectation of the product is the product.
    u = (BEST - mean) / sd
    closed = sd * (u * norm.cdf(u) + norm.pdf(u)) * norm.cdf(-mean / sds / np.sqrt(1 + h**2))
    got = acq.ConstrainedExpectedImprovement(paths, other, BEST)(TEST)
    products = np.maximum(BEST - np.asarray(paths(TEST)), 0) * norm.cdf(-np.asarray(other(TEST)) / (sds * h))
    within(got, closed, products)
    # Of a path with itself: it improves on BEST < 0 only where it is feasible.
    same = acq.ConstrainedExpectedImprovement(paths, (paths,), BEST, 1e-9)(TEST)
    np.testing.assert_allclose(same, acq.ExpectedImprovement(paths, BEST)(TEST), rtol=1e-10, atol=1e-14)


def test_logarithms_are_those_of_the_plain_forms(few):
    """And have gradients far out, where these underflow."""
    pairs = np.stack([TEST, TEST[::-1]], axis=1)
    for make in (
        lambda log: acq.ProbabilityOfImprovement(few, BEST, log=log),
        lambda log: acq.ProbabilityOfFeasibility((few, Shifted(few, -0.3)), log=log),
    ):
        for log, plain in zip(both_forms(make(True), pairs), both_forms(make(False), pairs), strict=True):
            np.testing.assert_allclose(log, np.log(plain), rtol=1e-9)
    # With a small temperature and bandwidth all but the tail of the smooth positive part is the plain form.
    plain = both_forms(acq.ConstrainedExpectedImprovement(few, few, 0.2, 1e-3), pairs)
    log = both_forms(acq.LogConstrainedExpectedImprovement(few, few, 0.2, 1e-5, 1e-3), pairs)
    np.testing.assert_allclose(np.exp(log), plain, atol=1e-5)  # τ log 2 and the tail
    far = Shifted(few, 1e3)

    @jax.jit
    @jax.vmap
    @jax.jacrev
    def slopes(x):
        return (
            acq.ProbabilityOfImprovement(few, -1e3, log=True)(x),
            acq.ProbabilityOfFeasibility(far, log=True)(x),
            acq.LogConstrainedExpectedImprovement(few, far, -1e3)(x),
        )

    for found in slopes(jnp.asarray(TEST)):
        assert np.isfinite(found).all()
        assert (np.abs(found) > 0).all()


def test_paths_that_are_all_the_same_somewhere_leave_no_nan():
    for dtype in (jnp.float64, jnp.float32):
        lines = lambda X, dtype=dtype: jnp.asarray([1.0, -1.0, 0.5], dtype)[:, None] * X[..., 0].reshape(1, -1)
        found = jax.jit(jax.value_and_grad(lambda x, best: acq.LogExpectedImprovement(lines, best)(x[None])[0]))
        for best in (-1.0, 0.0, 1e6):
            value, slope = found(jnp.zeros(1, dtype), best)
            assert np.isfinite(value)
            assert np.isfinite(slope).all()


def test_a_batch_is_found_together(few):
    box = np.asarray([[-1.2], [1.2]])
    made = acq.UpperConfidenceBound(few, 2.0, maximise=True)
    options = {"n_screen": 256, "n_restarts": 8}
    pair = made.optimise(box, KEY, 2, **options)
    assert pair.points.shape == (2, 1)
    grid = np.linspace(-1.2, 1.2, 61)
    everywhere = made.joint(np.stack(np.meshgrid(grid, grid), axis=-1)[..., None])
    assert pair.values >= np.max(everywhere) - 1e-9
    np.testing.assert_allclose(made.joint(pair.points), pair.values, rtol=1e-12)
    other = acq.UpperConfidenceBound(draw(2, 12, kernel=Counted), 3.0, maximise=True)
    CALLS.clear()
    other.optimise(box + 0.1, jax.random.key(7), 2, **options)
    assert not CALLS


class Near(acq.AbstractAcquisition):
    """−Σ_j |x_j − c|² of a batch, each of whose points wants to be at c."""

    paths: Callable
    centre: jax.Array

    def of(self, X):
        return -jnp.sum((X - self.centre) ** 2, axis=(1, 2))


SQUARE = np.asarray([[0.0, 0.0], [1.0, 1.0]])
SEARCH = {"n_screen": 64, "n_restarts": 3}
right = lambda X: 0.5 - X[..., 0]


class Half(eqx.Module):
    """a·x + b ≤ 0."""

    normal: jax.Array = eqx.field(converter=number)
    offset: jax.Array = eqx.field(converter=number)

    def __call__(self, X):
        return X @ self.normal + self.offset


class Farther(eqx.Module):
    """|x₁ − x₂| ≥ r."""

    distance: jax.Array = eqx.field(converter=number)

    def __call__(self, X):
        return self.distance**2 - jnp.sum((X[..., 0, :] - X[..., 1, :]) ** 2, axis=-1)


apart = Farther(0.4)


@pytest.mark.parametrize("q", [1, 8])
def test_a_constraint_holds_for_every_input_of_a_batch(q):
    search = lambda centre, *held: Near(right, np.asarray([[centre]])).optimise(
        SQUARE, KEY, q, constraints=held, **SEARCH
    )
    found = search([0.2, 0.1], Half([-1.0, 0.0], 0.5), Half([-1.0, -1.0], 0.9))  # x₀ ≥ ½ and x₀ + x₁ ≥ 0.9
    assert found.points.shape == (q, 2)
    assert found.converged
    assert found.feasible
    np.testing.assert_allclose(found.points, np.broadcast_to([0.5, 0.4], (q, 2)), atol=1e-5)
    # What cannot be is said of a batch of which one input alone would do.
    none = search([0.2, 0.1], Half([0.0, 0.0], 0.1), Half([-1.0, -1.0], 0.9))
    assert not none.feasible
    assert not none.converged
    # Of eight hardly a set of the design meets what each input has to, in a twentieth of the box.
    few = search([0.5, 0.5], Half([-1.0, 0.0], 0.95), Half([0.0, 0.0], -1.0))
    assert few.feasible
    np.testing.assert_allclose(few.values, -q * 0.45**2, rtol=1e-5)


def test_constraints_of_a_batch_are_joint():
    near = Near(right, jnp.asarray([[[0.5, 0.5]]]))
    found = near.optimise(SQUARE, KEY, 2, joint_constraints=apart, **SEARCH)
    np.testing.assert_allclose(found.values, -2 * 0.2**2, rtol=1e-6)
    np.testing.assert_allclose(np.sum(found.points, axis=0), 1, atol=1e-5)
    assert found.converged
    assert found.feasible
    both = near.optimise(SQUARE, KEY, 2, joint_constraints=[apart], constraints=Half([1.0, 0.0], -0.5), **SEARCH)
    points = np.asarray(both.points)
    assert (points[:, 0] <= 0.5 + 1e-6).all()
    np.testing.assert_allclose(np.linalg.norm(points[0] - points[1]), 0.4, rtol=1e-6)
    np.testing.assert_allclose(both.values, -2 * 0.2**2, rtol=1e-6)


def test_candidates_of_a_batch_are_inputs_or_sets():
    """Holes that no design finds, one for each input of a pair."""

    class Holes(acq.AbstractAcquisition):
        paths: Callable
        centres: jax.Array

        def of(self, X):
            off = jnp.sum(((X[:, :, None] - self.centres[None, None]) / 1e-4) ** 2, axis=3)
            return jnp.sum(jnp.max(jnp.exp(-0.5 * off), axis=1), axis=1)

    at = np.asarray([[0.123, 0.456], [0.789, 0.321]])
    holes, near = Holes(right, jnp.asarray(at)), at + 2e-5
    found = lambda q, candidates: holes.optimise(SQUARE, KEY, q, candidates=candidates, **SEARCH).values
    # A set of three takes what is missing from the design.
    assert found(3, near * 0.5) < 1e-3
    for candidates in (near, near[::-1]):
        np.testing.assert_allclose(found(3, candidates), 2, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(found(2, np.stack([near * 0.5, near])), 2, rtol=1e-10, atol=1e-14)
    # Of many, each is in some set.
    far = np.concatenate([np.full((4, 2), 0.05), near[:1], np.full((4, 2), 0.9)])
    np.testing.assert_allclose(found(2, far), 1, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ["log EI", "KG"])
def test_batches_of_a_list_are_those_of_brute_force(few, name):
    made = MADE[name](few)
    choices = np.linspace(-1.2, 1.2, 12)[:, None]
    if name == "log EI":
        one, alone = made.optimise_over(choices), np.asarray(made(choices))
        assert one.indices == np.argmax(alone)
        np.testing.assert_allclose(one.values, np.max(alone), rtol=1e-12)
        np.testing.assert_array_equal(one.points, choices[np.asarray(one.indices)])
    pairs = np.asarray([(i, j) for i in range(12) for j in range(12) if i != j])
    values = np.asarray(made.joint(choices[pairs]))
    here = choices[pairs][..., 0]
    for most, least in ((9.0, 0.0), (0.9, 0.5), (9.0, 5.0)):
        held = {"constraints": Half([1.0], -most), "joint_constraints": Farther(least)}
        two = made.optimise_over(choices, 2, **held)
        allowed = (here <= most).all(axis=1) & (np.abs(here[:, 0] - here[:, 1]) >= least)
        assert two.feasible == allowed.any()
        if allowed.any():
            assert two.converged
            assert len(set(two.indices.tolist())) == 2
            np.testing.assert_allclose(two.values, np.where(allowed, values, -np.inf).max(), rtol=1e-10, atol=1e-14)
        else:  # the one that is nearest to it, of those that an exchange leads to
            assert set(two.indices.tolist()) == {0, 11}


def test_exchanges_end_where_none_improves():
    """Where the best addition to the best is no part of the best pair."""

    class Table(acq.AbstractAcquisition):
        paths: Callable
        worth: jax.Array

        def of(self, X):
            i = X[:, :, 0].astype(int)
            return self.worth[i[:, 0], i[:, -1]]

    def search(worth, q=2, n=20):
        """Of a table of 20 rows, of which only the first n are worth anything."""
        whole = np.full((20, 20), -99.0)
        whole[:n, :n] = worth
        return Table(right, jnp.asarray(whole)).optimise_over(np.arange(20.0)[:, None], q)

    worth = np.asarray([[5.0, 1.0, 0.0], [1.0, 4.0, 9.0], [0.0, 9.0, 3.0]])
    assert search(worth, n=3).values == 9
    assert search(worth, 1, n=3).values == 5
    for seed in range(6):  # no exchange improves, though neither row need be among the best alone
        worth = np.random.default_rng(seed).normal(size=(20, 20))
        worth = worth + worth.T + np.diag(np.linspace(9, 0, 20))
        found = search(worth)
        np.fill_diagonal(worth, -np.inf)
        np.testing.assert_allclose(found.values, worth[np.asarray(found.indices)].max(), rtol=1e-12)
    # All values NaN: nothing has converged, and it ends.
    assert not search(worth * np.nan).converged
    with pytest.raises(ValueError, match="`q` must be at most the number of choices, 20; got 21"):
        search(worth, 21)


def test_constraints_of_the_one_shot_form_hold_for_inputs_and_maxima():
    inputs = np.asarray(jax.random.uniform(jax.random.key(3), (6, 2)))
    law = pgp.GPPrior(kernel=pgp.Matern(2.5, 0.3, 0.6), X=inputs).condition(np.sum((inputs - 0.2) ** 2, axis=1), 1e-3)
    made = acq.OneShotKnowledgeGradient(law.mean, law.covariance, KEY, 1e-3, 0.0, q=2, n_fantasies=3)
    options = {"n_screen": 32, "n_restarts": 2, "max_steps": 100}
    held = {"constraints": Half([-1.0, -1.0], 1.2), "joint_constraints": apart}
    found = made.optimise(SQUARE, KEY, candidates=inputs, **held, **options)
    assert found.feasible
    assert found.converged
    points = np.asarray(found.points)
    assert (np.sum(points, axis=-1) >= 1.2 - 1e-5).all()
    assert np.linalg.norm(points[0] - points[1]) >= 0.4 - 1e-5
    # Its value is that of maxima among what is allowed.
    axis = np.linspace(0, 1, 41)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    finite = made(made.complete(points, grid[np.sum(grid, axis=1) >= 1.2]))
    np.testing.assert_allclose(found.values, finite, atol=2e-3)
    assert found.values > finite


def test_the_one_shot_form_screens_its_candidates():
    hole = jnp.asarray([[0.123, 0.456]])
    at = lambda X: jnp.exp(-0.5 * jnp.sum(((X - hole) / 1e-3) ** 2, axis=-1))
    nothing = lambda X: 0 * X[..., 0]  # is known, and only of the hole can anything be learnt
    known = lambda X, Z: at(X)[:, None] * at(Z)[None]
    made = acq.OneShotKnowledgeGradient(nothing, known, KEY, 1e-6, 0.0, n_fantasies=2)
    found = made.optimise(SQUARE, KEY, candidates=hole[None] + 1e-4, n_screen=16, n_restarts=2, max_steps=20)
    np.testing.assert_allclose(found.points, hole, atol=5e-3)


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize(
    ("q", "options", "words"),
    [
        (2, {"constraints": lambda X: X}, r"`constraints` must map inputs of shape \(n, 2\)"),
        (
            2,
            {"constraints": lambda X: jnp.stack([X[..., 0], X[..., 1]])},
            r"must have the axes of `paths`, \(\), or none; got \(2,\)",
        ),
        (2, {"joint_constraints": right}, r"`joint_constraints` must map `\*n 2 2`"),
        (1, {"joint_constraints": 3}, "`joint_constraints` must be a function"),
        (2, {"candidates": jnp.zeros((3, 4))}, "The last axis of `candidates` must be the input dimension, 2"),
        (2, {"candidates": jnp.zeros((3, 3, 2))}, r"sets of 2 of them, `m 2 d`; got \(3, 3, 2\)"),
        (2, {"candidates": jnp.zeros((0, 2, 2))}, "`candidates` must hold at least one point"),
    ],
)
def test_a_search_of_batches_refuses(q, options, words):
    with pytest.raises(ValueError, match=words):
        Near(right, jnp.zeros((1, 1, 2))).optimise(SQUARE, KEY, q, **options, **SEARCH)


@pytest.mark.parametrize("maximise", SIGNS)
def test_bounds_and_quantiles(paths, moments, maximise):
    mean, sd = moments
    gain = mean if maximise else -mean
    got = acq.UpperConfidenceBound(paths, 4.0, maximise)(TEST)
    # Standard errors of a mean and of a standard deviation.
    np.testing.assert_array_less(np.abs(got - (gain + 2 * sd)), 4.2 * sd * np.sqrt((1 + 4 / 2) / S))
    u = norm.ppf(0.9)
    got = acq.Quantile(paths, 0.9, maximise)(TEST)
    np.testing.assert_array_less(np.abs(got - (gain + u * sd)), 4.2 * sd * np.sqrt(0.09 / S) / norm.pdf(u))
    # Of two inputs together, and twice the same input, which is one: by the reparameterisation of |z|.
    twice = acq.UpperConfidenceBound(paths, 4.0, maximise).joint(np.stack([TEST, TEST], axis=1))
    np.testing.assert_array_less(np.abs(twice - (gain + 2 * sd)), 4.2 * sd * np.sqrt((1 + 4 * (np.pi / 2 - 1)) / S))


@pytest.mark.parametrize("maximise", SIGNS)
def test_joint_forms_against_brute_force(paths, maximise):
    batch = jnp.asarray(np.random.default_rng(0).uniform(-1.2, 1.2, (3, 4, 1)))
    f = np.asarray(paths(batch))  # s 3 4
    gain = (f if maximise else -f) - (BEST if maximise else -BEST)
    top = np.maximum(gain.max(axis=2), 0)
    got = acq.ExpectedImprovement(paths, BEST, maximise).joint(batch)
    np.testing.assert_allclose(got, top.mean(0), rtol=1e-12)
    # And that of the normal law of the q values, drawn afresh in numpy from the same features.
    law = posterior()
    for i in range(3):
        cov, m = np.asarray(law.covariance(batch[i])), np.asarray(law.mean(batch[i]))
        z = np.random.default_rng(i).multivariate_normal(m, cov, 200_000)
        fresh = np.maximum(((z - BEST) * (1 if maximise else -1)).max(axis=1), 0)
        error = 4.2 * top[:, i].std() / S**0.5 + 4.2 * fresh.std() / 200_000**0.5
        assert abs(got[i] - fresh.mean()) < error + 0.02 * fresh.mean()  # and the features'
    log = acq.LogExpectedImprovement(paths, BEST, 1e-6, maximise).joint(batch)
    np.testing.assert_allclose(np.exp(log), top.mean(0), rtol=1e-6)
    share = acq.ProbabilityOfImprovement(paths, BEST, 1e-9, maximise).joint(batch)
    np.testing.assert_allclose(share, (gain > 0).any(axis=2).mean(0), atol=1e-12)
    any_of = acq.ProbabilityOfFeasibility(paths, 1e-9).joint(batch)
    np.testing.assert_allclose(any_of, (f <= 0).any(axis=2).mean(0), atol=1e-12)
    level = acq.Quantile(paths, 0.8, maximise).joint(batch)
    np.testing.assert_allclose(level, np.quantile((f if maximise else -f).max(axis=2), 0.8, axis=0), rtol=1e-12)
    both = acq.ConstrainedExpectedImprovement(paths, (paths,), BEST, 1e-9, maximise).joint(batch)
    np.testing.assert_allclose(both, (np.maximum(gain, 0) * (f <= 0)).max(axis=2).mean(0), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("maximise", SIGNS)
def test_knowledge_gradient_is_that_of_the_posterior(maximise):
    law, noise = posterior(), 0.1
    x = np.asarray([[0.45], [1.1]] if maximise else [[-0.45], [-1.1]])
    points = np.linspace(-1, 1, 9)[:, None]
    # The exact one: the largest of lines in a standard normal z, by quadrature; of both inputs together by draws of two.
    sign = 1 if maximise else -1
    every = np.concatenate([points, x])
    means, covariance = sign * np.asarray(law.mean(every)), np.asarray(law.covariance(every))
    exact = []
    for at in ([9], [10], [9, 10]):
        here = [*range(9), *at]
        mean, observed = means[here], covariance[np.ix_(at, at)] + noise * np.eye(len(at))
        slopes = np.linalg.solve(np.linalg.cholesky(observed), covariance[np.ix_(here, at)].T).T
        if len(at) == 1:
            exact.append(expected_largest(mean, slopes[:, 0]))
        else:
            z = np.random.default_rng(0).normal(size=(400_000, 2))
            exact.append((mean + z @ slopes.T).max(axis=1).mean() - mean.max())
    runs = []
    for seed in range(6):
        key, draws = jax.random.key(seed), draw(100 + seed, S)
        made = acq.KnowledgeGradient(draws, points, key, noise, maximise)
        alone, together = both_forms(made, np.stack([x, x[::-1]]))
        runs.append([*alone, together[0]])
    runs = np.asarray(runs)
    error = runs.std(axis=0, ddof=1) / 6**0.5
    assert (np.abs(runs.mean(axis=0) - exact) < 4 * error + 0.01 * np.asarray(exact)).all()  # the bias is of order 1/S
    assert (error < 0.2 * np.asarray(exact)).all()


def test_knowledge_of_two_draws_of_the_hyperparameters_is_the_average_of_both(few):
    other = draw(2, 12, kernel=Counted)
    value = lambda paths: np.asarray(acq.KnowledgeGradient(paths, X, KEY, 0.01)(TEST))
    got, each = value(pgp.stack([few, other])), [value(few), value(other)]
    np.testing.assert_allclose(got, (each[0] + each[1]) / 2, rtol=1e-9, atol=1e-12)
    assert ((each[0] > 1e-3) & (each[1] > 1e-3)).any()
    assert (got > -1e-12).all()


GRID = np.linspace(-1.3, 1.3, 401)[:, None]


def expected_largest(mean, slopes):
    """E max_j (m_j + s_j z) − max_j m_j for a standard normal z."""
    z = np.linspace(-8, 8, 4001)
    return np.trapezoid((mean[:, None] + slopes[:, None] * z).max(axis=0) * norm.pdf(z), z) - mean.max()


@pytest.mark.parametrize("maximise", SIGNS)
def test_one_shot_knowledge_gradient(maximise):
    law, noise, sign = posterior(), 0.1, 1 if maximise else -1
    x, pair = np.asarray([[0.45], [-0.45], [1.1]]), np.asarray([[[-0.45], [0.9]]])
    every = np.concatenate([GRID, x, pair[0]])
    mean, covariance = sign * np.asarray(law.mean(every))[:401], np.asarray(law.covariance(every))
    made = lambda seed, **options: acq.OneShotKnowledgeGradient(
        law.mean, law.covariance, jax.random.key(seed), noise, sign * np.max(mean), maximise=maximise, **options
    )
    exact = [expected_largest(mean, covariance[:401, i] / np.sqrt(covariance[i, i] + noise)) for i in range(401, 404)]
    runs = []
    for seed in range(12):
        one_shot = made(seed, n_fantasies=512)
        full = np.asarray(one_shot.complete(x[:, None], GRID))
        np.testing.assert_array_equal(one_shot.points(full), x[:, None])
        runs.append(np.asarray(one_shot(full)))
    error = np.std(runs, axis=0, ddof=1) / 12**0.5
    assert (np.abs(np.mean(runs, axis=0) - exact) < 4 * error).all()
    assert (error < 0.02 * np.asarray(exact)).all()
    # Other maxima than those of the candidates are no better, by more than the grid is coarse.
    assert (np.asarray(one_shot(full + 0.1)) < runs[-1]).all()
    # Two observations at once, by draws.
    slopes = np.linalg.solve(np.linalg.cholesky(covariance[404:, 404:] + noise * np.eye(2)), covariance[404:, :401])
    found = (mean + np.random.default_rng(0).normal(size=(20_000, 2)) @ slopes).max(axis=1) - mean.max()
    runs = [np.asarray((two := made(seed, q=2, n_fantasies=512))(two.complete(pair, GRID)))[0] for seed in range(6)]
    error = np.hypot(np.std(runs, ddof=1) / 6**0.5, np.std(found) / 20_000**0.5)
    assert abs(np.mean(runs) - np.mean(found)) < 4 * error


@pytest.mark.parametrize("q", [1, 2])
def test_the_search_of_the_one_shot_form_finds_its_largest_value(q):
    law = posterior()
    made = acq.OneShotKnowledgeGradient(
        law.mean, law.covariance, KEY, 0.1, 0.0, q=q, n_fantasies=8 // q, maximise=q == 2
    )
    found = made.optimise(np.asarray([[-1.3], [1.3]]), jax.random.key(1), n_restarts=4)
    assert found.points.shape == (q, 1)
    inputs = GRID[:, None] if q == 1 else np.asarray([[[-1.0], [0.2]], [[0.3], [0.8]]])
    best = np.max(made(made.complete(inputs, GRID)))
    assert found.values > best - (1e-6 if q == 1 else 0)
    if q == 1:  # as near the best on a grid as a grid can be
        assert found.converged
        assert found.values < best + 1e-3


MADE = {
    "EI": lambda p: acq.ExpectedImprovement(p, BEST),
    "log EI": lambda p: acq.LogExpectedImprovement(p, BEST),
    "log EI, max": lambda p: acq.LogExpectedImprovement(p, 9.0, 0.1, maximise=True),
    "PI": lambda p: acq.ProbabilityOfImprovement(p, BEST),
    "exceedance": lambda p: acq.Exceedance(p, 0.1, 0.2, True),
    "feasibility": lambda p: acq.ProbabilityOfFeasibility((p, p)),
    "constrained EI": lambda p: acq.ConstrainedExpectedImprovement(p, p, 0.2),
    "log PI": lambda p: acq.ProbabilityOfImprovement(p, BEST, log=True),
    "log feasibility": lambda p: acq.ProbabilityOfFeasibility((p, p), log=True),
    "log constrained EI": lambda p: acq.LogConstrainedExpectedImprovement(p, p, 0.2),
    "UCB": lambda p: acq.UpperConfidenceBound(p, 2.0),
    "quantile": lambda p: acq.Quantile(p, 0.3),
    "KG": lambda p: acq.KnowledgeGradient(p, X, KEY, 0.1),
}


@eqx.filter_jit
@eqx.filter_value_and_grad(has_aux=True)
def sum_with_gradients(args):
    made, X, Y = args
    alone, together = made(X[:, 0]), made.joint(Y)
    return jnp.sum(alone) + jnp.sum(together), (alone, together)


@pytest.mark.parametrize("name", MADE)
def test_gradients_in_the_inputs_and_the_parameters(few, name):
    made = MADE[name](few)
    x, h = np.asarray([[-1.13], [-0.42]]), 1e-6
    steps = h * np.asarray([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])[:, :, None]
    near = jnp.asarray(x + steps)
    # One input each, and the two together.
    (_, (alone, together)), (leaves, by_alone, by_both) = sum_with_gradients((made, near, near))
    slopes = lambda values: (np.asarray(values)[1::2] - np.asarray(values)[2::2]) / (2 * h)
    np.testing.assert_allclose(by_alone[0, :, 0], slopes(alone), atol=1e-7)
    np.testing.assert_allclose(by_both[0, :, 0], slopes(together), atol=1e-7)
    assert np.abs(by_both[0]).max() > 1e-4
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(leaves))


def test_the_log_form_has_a_gradient_where_no_path_improves(few):
    x, best = np.asarray([0.3]), -8.0
    both = eqx.filter_jit(lambda made, x: jax.value_and_grad(made)(x))
    ei, log = (both(made(few, best), x) for made in (acq.ExpectedImprovement, acq.LogExpectedImprovement))
    assert ei[1] == 0
    assert np.isfinite(log[0])
    assert log[1] != 0
    # The smooth positive part rises everywhere, and at a known value nothing is NaN.
    z = np.linspace(-1e4, 50, 4001)
    constant = lambda X: X[..., 0]
    values = acq.LogExpectedImprovement(constant, 0.0, 1.0, True)(z[:, None])
    assert (np.diff(values) > 0).all()
    pinned = lambda X: jnp.stack([X[..., 0], X[..., 0]])
    for made in (acq.LogExpectedImprovement(pinned, BEST), acq.Exceedance(pinned, 0.0)):
        assert all(np.isfinite(found).all() for found in both(made, x))


@pytest.mark.parametrize("name", ["log EI", "quantile", "KG"])
def test_the_search_finds_the_largest_value(few, name):
    made = MADE[name](few)
    box = np.asarray([[-1.2], [1.2]])
    search = made.optimise if name == "KG" else lambda *args, **options: optimise.maximise(made, *args, **options)
    found = search(box, KEY, n_screen=64, n_restarts=3)
    grid = np.linspace(-1.2, 1.2, 1001)[:, None]
    values = np.asarray(made(np.concatenate([grid, found.points.reshape(1, 1)])))
    assert found.values >= values[:-1].max() - 1e-6
    np.testing.assert_allclose(values[-1], found.values, rtol=1e-12)


def test_paths_of_many_axes_a_best_of_each_and_blocks(few):
    two = pgp.stack([few, few[::-1]])
    values = np.asarray(two(TEST))
    assert values.shape == (2, 12, 7)
    best = np.asarray(few(X)).min(axis=1)
    one = acq.ExpectedImprovement(few, best)(TEST)
    np.testing.assert_allclose(one, np.maximum(best[:, None] - values[0], 0).mean(0), rtol=1e-12)
    both = acq.ExpectedImprovement(two, np.stack([best, best[::-1]]))(TEST)
    np.testing.assert_allclose(both, one, rtol=1e-12)
    ei = acq.ExpectedImprovement(few, BEST)
    assert ei(TEST[0]).shape == ()
    assert ei(TEST.reshape(7, 1, 1)).shape == (7, 1)
    # In more than one block of rows.
    many = np.linspace(-1, 1, 200_000)[:, None]
    np.testing.assert_allclose(ei(many)[:5], ei(many[:5]), rtol=1e-12)


def test_other_values_compile_nothing_anew():
    run = lambda seed: acq.ExpectedImprovement(draw(seed, 12, kernel=Counted), 0.1 * seed)(TEST + seed)
    run(0)
    CALLS.clear()
    run(1)
    assert not CALLS


def test_in_single_precision(few):
    every = eqx.filter_jit(lambda paths, X: {name: make(paths)(X) for name, make in MADE.items()})
    plain = every(few, jnp.asarray(TEST))
    to_single = lambda leaf: jnp.asarray(np.asarray(leaf, np.float32))
    for name, got in every(jax.tree.map(to_single, few), to_single(TEST)).items():
        assert got.dtype == np.float32
        if name == "KG":  # whose noise is drawn in this precision
            assert np.isfinite(got).all()
        else:
            np.testing.assert_allclose(got, plain[name], atol=2e-3, err_msg=name)


def test_thompson_samples_are_the_optima_of_the_paths(few):
    box = np.asarray([[-1.2], [1.2]])
    batch = acq.thompson_sample(few, box, KEY, n_screen=64, n_restarts=12)
    assert batch.points.shape == (12, 1)
    values = np.asarray(few(np.linspace(-1.2, 1.2, 2001)[:, None]))
    np.testing.assert_allclose(batch.values, values.min(axis=1), atol=1e-5)
    largest = acq.thompson_sample(P, box, KEY, maximise=True, n_screen=64, n_restarts=3)
    np.testing.assert_allclose(largest.points, [[1.2], [-1.2]])


P = lambda X: jnp.stack([X[..., 0], -X[..., 0]])


def ONE_SHOT(mean=lambda X: X[..., 0], covariance=lambda X, Z: X @ Z.T, n_fantasies=2):
    return acq.OneShotKnowledgeGradient(mean, covariance, KEY, 0.1, 0.0, n_fantasies=n_fantasies)


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: acq.ExpectedImprovement(P, jnp.nan), "`best` must be finite"),
        (
            lambda: acq.ExpectedImprovement(P, jnp.zeros(3))(TEST),
            r"one value for each path, of shape \(2,\); got \(3,\)",
        ),
        (lambda: acq.ExpectedImprovement(P, jnp.zeros((2, 1)))(TEST), r"of shape \(2,\); got \(2, 1\)"),
        (lambda: acq.Exceedance(P, 0.0, log=1), "`log` must be True or False"),
        (lambda: acq.ExpectedImprovement(lambda X: X, 0.0)(jnp.zeros((1, 1))), r"`paths` must map inputs of shape"),
        (lambda: acq.ExpectedImprovement(P, 0.0, maximise=1), "`maximise` must be True or False"),
        (lambda: acq.LogExpectedImprovement(P, 0.0, -1.0), "`temperature` must be positive"),
        (lambda: acq.LogExpectedImprovement(lambda X: X[..., 0], 0.0)(TEST), "`temperature` must be given"),
        (lambda: acq.Exceedance(P, 0.0, 0.0), "`bandwidth` must be positive"),
        (lambda: acq.Exceedance(P, jnp.zeros(2)), "`threshold` must be a scalar"),
        (lambda: acq.Exceedance(lambda X: X[..., 0], 0.0)(TEST), "`bandwidth` must be given"),
        (lambda: acq.UpperConfidenceBound(P, 0.0), "`beta` must be positive"),
        (lambda: acq.Quantile(P, 1.0), "`level` must be between 0 and 1"),
        (lambda: acq.ProbabilityOfFeasibility(()), "`paths` must be a function"),
        (lambda: acq.ProbabilityOfFeasibility((P, lambda X: P(X)[:1]), 0.1)(TEST), "as many paths each"),
        (lambda: acq.ConstrainedExpectedImprovement(P, 3, 0.0), "`constraints` must be a function"),
        (
            lambda: acq.ConstrainedExpectedImprovement(P, lambda X: P(X)[:1], 0.0, 0.1)(TEST),
            "`constraints` must have as many paths as `paths`, 2; got 1",
        ),
        (lambda: acq.KnowledgeGradient(P, X[:, 0], KEY, 0.1), r"`candidates` must have shape \(n, d\)"),
        (lambda: acq.KnowledgeGradient(lambda X: X[..., 0], X, KEY, 0.1)(TEST), "a last path axis of two or more"),
        (lambda: ONE_SHOT(n_fantasies=0), "`n_fantasies` must be at least 1"),
        (lambda: ONE_SHOT()(jnp.zeros(4)), "coordinates of 1 inputs and 2 maxima"),
        (lambda: ONE_SHOT().complete(jnp.zeros((2, 2, 1)), X), r"`X` must have shape \(\*n, 1, d\)"),
        (lambda: ONE_SHOT().complete(jnp.zeros((2, 1, 2)), X), "The last axis of `candidates`"),
        (lambda: ONE_SHOT(mean=lambda X: X)(jnp.zeros(3)), "`mean` must map"),
        (lambda: ONE_SHOT(covariance=lambda X, Z: X)(jnp.zeros(3)), "`covariance` must map"),
        (lambda: acq.ExpectedImprovement(P, 0.0)(0.3), r"`X` must have shape \(\*n, d\), or"),
        (lambda: acq.ExpectedImprovement(P, 0.0).joint(TEST[0]), r"or \(\*n, q, d\) with q > 0"),
        (lambda: acq.ExpectedImprovement(lambda X: X, 0.0)(TEST), r"`paths` must map inputs of shape \(n, 1\)"),
    ],
)
def test_acquisitions_refuse(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.fixture(scope="module")
def exact():
    made = acq.ExactKnowledgeGradient(posterior(), np.linspace(-1.2, 1.2, 15)[:, None], 0.2, KEY, n_fantasies=512)
    return lambda **fields: eqx.tree_at(lambda a: [getattr(a, name) for name in fields], made, list(fields.values()))


def largest_mean_by_quadrature(post, candidates, x, noise, sign):
    """E max μ' − max μ over a grid of Z, one or two, from the moments."""
    everywhere = np.concatenate([candidates, x])
    inside = np.asarray(post.covariance(x)) + noise * np.eye(len(x))
    slopes = np.linalg.solve(np.linalg.cholesky(inside), np.asarray(post.covariance(x, everywhere)))
    z = np.linspace(-8, 8, 40001 if len(x) == 1 else 801)
    weights = norm.pdf(z) * (z[1] - z[0])
    grid = np.stack(np.meshgrid(*[z] * len(x), indexing="ij"), axis=-1).reshape(-1, len(x))
    every = np.prod(np.stack(np.meshgrid(*[weights] * len(x), indexing="ij"), axis=-1), axis=-1).reshape(-1)
    mean = sign * np.asarray(post.mean(everywhere))
    return every @ np.max(mean[None] + grid @ slopes, axis=1) - mean.max()


@pytest.mark.parametrize("maximise", SIGNS)
def test_exact_knowledge_gradient_against_quadrature(exact, maximise):
    made = acq.ExactKnowledgeGradient(posterior(), exact().candidates, 0.2, maximise=maximise)
    sign = 1 if maximise else -1
    want = [largest_mean_by_quadrature(posterior(), exact().candidates, x[None], 0.2, sign) for x in TEST]
    np.testing.assert_allclose(made(TEST), want, rtol=0, atol=2e-9)
    assert np.all(made(TEST) >= 0)


def test_exact_knowledge_gradient_is_that_of_conditioning_anew(exact):
    x, nodes = TEST[2:3], np.polynomial.hermite_e.hermegauss(300)
    scale = np.sqrt(np.asarray(posterior().variance(x)) + 0.2)
    y = np.asarray(posterior().mean(x)) + scale * nodes[0][:, None]
    again = -np.asarray(posterior().condition(x, y, 0.2).mean(np.concatenate([exact().candidates, x])))
    now = -np.asarray(posterior().mean(np.concatenate([exact().candidates, x])))
    # Gauss-Hermite rules see kinks to about the inverse of the number of their nodes.
    want = nodes[1] / nodes[1].sum() @ again.max(axis=1) - now.max()
    np.testing.assert_allclose(exact()(x)[0], want, rtol=0, atol=1e-4)


def test_exact_knowledge_gradient_of_a_batch(exact):
    sets = np.stack([TEST[:3], TEST[3:6]], axis=1)
    want = [largest_mean_by_quadrature(posterior(), exact().candidates, x, 0.2, -1) for x in sets]
    # Of two the directions are at equal angles; what is left is the error of the quadrature, the square of its step.
    np.testing.assert_allclose(exact().joint(sets), want, rtol=0, atol=5e-6)
    # Two observations of one input tell what one with half of the noise tells.
    twice, halved = exact().joint(np.stack([TEST[:3]] * 2, axis=1)), exact(noise_var=jnp.asarray(0.1))(TEST[:3])
    np.testing.assert_allclose(twice, halved, rtol=1e-4, atol=0)
    with pytest.raises(ValueError, match="`key` must be given"):
        acq.ExactKnowledgeGradient(posterior(), exact().candidates, 0.2).joint(sets)


class Through(eqx.Module):
    """f(x) = w x with a normal w of mean 0: its lines all meet in one point."""

    variance: jax.Array

    def mean(self, X):
        return 0 * X[..., 0]

    def covariance(self, X, Z):
        return self.variance * X @ Z.T


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_exact_knowledge_of_lines_that_meet_and_coincide(dtype):
    """E max_a a s|Z| = s √(2/π) of a in {−1, …, 1}, each of them twice; where nothing is learnt 0, and no gradient is NaN."""
    points = jnp.asarray([[0.0], [0.5], [1.0], [-1.0], [-1.0], [1.0], [0.0]], dtype)
    x = jnp.asarray([[0.5, 0.25], [0.0, 0.0], [1.0, 1.0], [0.5, -0.5]], dtype)[..., None]

    @jax.jit
    def values(x, v, noise):
        made = acq.ExactKnowledgeGradient(Through(v), points, noise, KEY)
        total = lambda x: (jnp.sum(made(x[:, 0])) + jnp.sum(made.joint(x)), (made(x[:, 0]), made.joint(x)))
        return jax.value_and_grad(total, has_aux=True)(x)

    for v, noise in ((0.7, 0.1), (0.7, 0.0), (0.0, 0.1), (0.0, 0.0)):
        (_, found), slopes = values(x, jnp.asarray(v, dtype), jnp.asarray(noise, dtype))
        assert np.isfinite(slopes).all()
        for of_x, got, rtol in ((x[:, :1], found[0], 1e-5), (x, found[1], 1e-3)):  # those of a rule of directions
            square = np.sum(np.asarray(of_x, float) ** 2, axis=(1, 2))
            known = v * square + noise == 0
            want = v * np.sqrt(np.where(known, 0, square / np.where(known, 1, v * square + noise)) * 2 / np.pi)
            np.testing.assert_allclose(got, want, rtol=rtol, atol=0)
            assert got.dtype == dtype


def test_exact_knowledge_of_draws_with_their_own_noise(exact):
    noise, scales = jnp.asarray([0.1, 0.3]), jnp.asarray([0.5, 0.8])
    conditioned = lambda scale, noise: pgp.GPPrior(pgp.RBF(1.0, scale), X).condition(jnp.asarray(Y), noise)
    draws = pgp.Batched(eqx.filter_vmap(conditioned)(scales, noise), (2,))
    value = lambda posterior, noise: acq.ExactKnowledgeGradient(posterior, exact().candidates, noise)(TEST)
    each = [np.asarray(value(draws[i], noise[i])) for i in range(2)]
    np.testing.assert_allclose(value(draws, noise), (each[0] + each[1]) / 2, rtol=1e-10)
    assert (np.abs(each[0] - each[1]) > 1e-4).any()


def test_exact_knowledge_gradient_is_near_that_of_paths(exact, paths):
    sampled = acq.KnowledgeGradient(paths, exact().candidates, KEY, 0.2)
    np.testing.assert_allclose(exact()(TEST), sampled(TEST), rtol=0, atol=2e-3)


def test_exact_knowledge_gradient_where_nothing_is_learnt():
    noiseless = pgp.GPPrior(pgp.RBF(1.0, 0.5), X).condition(Y, 0.0)
    # Every candidate twice, and the inputs among them.
    made = acq.ExactKnowledgeGradient(noiseless, np.concatenate([TEST, TEST, X]), 0.0)
    here = np.concatenate([X, TEST])
    values, slopes = made(here), jax.vmap(jax.grad(made))(jnp.asarray(here))
    assert np.all(values[:6] < 1e-7)  # the root of what rounding leaves of a variance
    assert np.all(values[6:] > 0)
    assert np.all(np.isfinite(slopes))


def test_the_search_of_the_exact_form(exact):
    found = exact().optimise(np.array([[-1.2], [1.2]]), KEY, n_screen=64, n_restarts=4)
    grid = np.linspace(-1.2, 1.2, 301)[:, None]
    assert float(exact()(found.points)[0]) > float(np.max(exact()(grid))) - 1e-9
    listed = exact().optimise_over(grid[::20], q=1)
    assert int(listed.indices[0]) == int(np.argmax(exact()(grid[::20])))
    step, x = 1e-6, jnp.asarray([0.3])
    by_differences = (exact()(x + step) - exact()(x - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(exact())(x)[0], by_differences, rtol=1e-6, atol=1e-8)


def test_exact_knowledge_of_several_posteriors_in_units_and_in_single_precision(exact):
    both = pgp.Batched(jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), posterior()), (2,))
    here = exact()(TEST)
    np.testing.assert_allclose(acq.ExactKnowledgeGradient(both, exact().candidates, 0.2)(TEST), here, rtol=1e-9)
    scaled = pgp.GPPrior(pgp.RBF(1e6, 0.5), X).condition(1e3 * Y, 0.2e6)
    found = acq.ExactKnowledgeGradient(scaled, exact().candidates, 0.2e6)(TEST)
    np.testing.assert_allclose(found, 1e3 * here, rtol=1e-7)
    single = acq.ExactKnowledgeGradient(posterior(dtype=jnp.float32), jnp.asarray(exact().candidates, jnp.float32), 0.2)
    np.testing.assert_allclose(single(jnp.asarray(TEST, jnp.float32)), here, rtol=0, atol=2e-6)
    for wrong, words in (
        (lambda: acq.ExactKnowledgeGradient(paths, TEST, 0.2), "must have a `mean` and a `covariance`"),
        (lambda: acq.ExactKnowledgeGradient(posterior(), TEST, -0.2), "`noise_var` must not be negative"),
    ):
        with pytest.raises(ValueError, match=words):
            wrong()
