"""Crossings against known roots, and excursion sets against closed forms."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from tables import CALLS, Counted

import pathwise_gp as pgp
from pathwise_gp import calculus, level_sets

KEY = jax.random.key(0)
BOUNDS = np.array([-2.0, 2.0])
X = np.linspace(-1, 1, 6)[:, None]
Y = np.sin(3 * X[:, 0])


def draw(kernel, n_paths=5, n_features=64, **options):
    posterior = pgp.GPPrior(kernel=kernel, X=X, jitter=1e-6).condition(Y, 0.01)
    return pgp.PathwiseSampler(posterior, n_features=n_features, **options).sample_paths(KEY, n_paths)


PATHS = draw(pgp.RBF(1.0, 0.4))
ENSEMBLE = pgp.PathEnsemble(
    varying=jax.tree.map(
        lambda a: jnp.asarray(np.stack([a, 2 * np.asarray(a)])), eqx.filter(PATHS, lambda a: a is PATHS.weights)
    ),
    common=eqx.filter(PATHS, lambda a: a is not PATHS.weights),
)


class Waves(eqx.Module):
    """sin(ax), for several a."""

    frequencies: jax.Array

    def __call__(self, X):
        a, x = self.frequencies, X[..., 0]
        return jnp.sin(jax.lax.expand_dims(a, range(a.ndim, a.ndim + x.ndim)) * jax.lax.expand_dims(x, range(a.ndim)))


# --- crossings


def test_known_roots():
    f = Waves(jnp.asarray([np.pi, 2 * np.pi, 0.1]))
    found = level_sets.crossings(f, 0.5, np.array([0.0, 3.0]), 100, 4)
    np.testing.assert_allclose(found.locations[0, :4], np.array([1, 5, 13, 17]) / 6, atol=1e-14)
    np.testing.assert_allclose(found.locations[1, :4], np.array([1, 5, 13, 17]) / 12, atol=1e-14)
    assert np.isnan(found.locations[2]).all()
    np.testing.assert_array_equal(found.upward, [[True, False, True, False]] * 2 + [[False] * 4])
    np.testing.assert_array_equal(found.count, [4, 6, 0])
    np.testing.assert_array_equal(found.truncated, [False, True, False])
    np.testing.assert_array_equal(found.mask, [[True] * 4, [True] * 4, [False] * 4])
    down = level_sets.crossings(f, 0.5, np.array([0.0, 3.0]), 100, 4, direction="down")
    np.testing.assert_allclose(down.locations[1, :3], np.array([5, 17, 29]) / 12, atol=1e-14)
    np.testing.assert_array_equal(down.count, [2, 3, 0])
    assert not down.upward.any()
    first = level_sets.first_crossing(f, 0.5, np.array([0.2, 3.0]), 100)
    np.testing.assert_allclose(first, [5 / 6, 5 / 12, np.inf], atol=1e-14)
    first = level_sets.first_crossing(f, 0.5, np.array([0.2, 3.0]), 100, direction="up")
    np.testing.assert_allclose(first, [13 / 6, 13 / 12, np.inf], atol=1e-14)
    # More places than cells of the grid, and a single function.
    few = level_sets.crossings(Waves(jnp.asarray(1.0)), 0.0, np.array([1.0, 4.0]), 3, 5)
    assert few.locations.shape == (5,)
    np.testing.assert_allclose(few.locations[0], np.pi, atol=1e-14)


# Functions with their roots, on a grid of spacing ½ that holds 0.5, but neither 0.1 nor 0.3.
HARD = [
    (lambda x: (x - 0.1) ** 3, [0.1]),  # flat at the root
    (lambda x: (x - 0.3) ** 5, [0.3]),  # flatter
    (lambda x: jnp.sinh(x - 0.1) ** 3, [0.1]),
    (lambda x: (x - 0.1) * ((x - 0.1) ** 2 + 1e-14), [0.1]),  # steps shrink slowly first, and then at once
    (lambda x: jnp.cbrt(x - 0.1), [0.1]),  # steep at the root
    (lambda x: jnp.arctan(50 * (x - 0.3)), [0.3]),  # where Newton's method alone diverges
    (lambda x: jnp.exp(20 * (x - 0.1)) - 1, [0.1]),
    (lambda x: jnp.where(x > 0.3, 1.0, -1.0), [0.3]),  # a jump
    (lambda x: -((x - 0.5) ** 2), []),  # touches from below at a point of the grid
    (lambda x: (x - 0.5) ** 2 * (x + 0.5), [-0.5]),
    (lambda x: x - 0.5, [0.5]),  # a root at a point of the grid,
    (lambda x: -(x - 0.5), [0.5]),  # either way
    (lambda x: (x + 2) * (x - 1), [1.0]),  # on the level where it begins
    (lambda x: 0 * x, []),
]


def test_hard_roots():
    together = lambda X: jnp.stack([function(X[..., 0]) for function, _ in HARD])
    found = level_sets.crossings(together, 0.0, BOUNDS, 9, 3)
    count, places = np.asarray(found.count), np.asarray(found.locations)
    for i, (_, roots) in enumerate(HARD):
        assert count[i] == len(roots), i
        np.testing.assert_allclose(places[i, : len(roots)], roots, atol=4e-15, err_msg=str(i))
    # Whole numbers; and what touches from above between points of a grid that does not hold 0.
    jump = level_sets.crossings(lambda X: jnp.where(X[..., 0] > 0.3, 1, -1), 0.0, BOUNDS, 9, 3)
    np.testing.assert_allclose(np.asarray(jump.locations)[0], 0.3, atol=4e-15)
    assert level_sets.crossings(lambda X: X[..., 0] ** 2, 0.0, np.array([-2.0, 1.75]), 9, 3).count == 0


def test_places_that_are_not_taken_do_not_spoil_derivatives():
    # √(ax) = 1 at x = 1/a; it has no derivative where the grid begins, nor in the middle of it.
    for start in (0.0, -3.0):

        def root(a, start=start):
            f = lambda X: jnp.sign(X[..., 0]) * jnp.sqrt(a * jnp.abs(X[..., 0]))
            return level_sets.first_crossing(f, 1.0, np.array([start, 3.0]), 9) + many(f, start)

        def many(f, start):
            found = level_sets.crossings(f, 1.0, np.array([start, 3.0]), 9, 2)
            return jnp.sum(jnp.where(found.mask, found.locations, 0.0))

        np.testing.assert_allclose(jax.jit(jax.grad(root))(1.3), -2 / 1.3**2, rtol=1e-10)


def test_crossings_of_derivatives_of_functions():
    waves = lambda X: jnp.stack([jnp.sin(X[..., 0]), jnp.cos(X[..., 0])])
    found = level_sets.crossings(calculus.directional_derivative(waves, jnp.ones(1)), 0.0, BOUNDS, 64, 3)
    np.testing.assert_array_equal(found.count, [2, 1])
    np.testing.assert_allclose(found.locations[0, :2], [-np.pi / 2, np.pi / 2], atol=1e-14)
    np.testing.assert_allclose(found.locations[1, 0], 0, atol=1e-14)


def test_no_paths_and_no_points():
    found = level_sets.crossings(PATHS[:0], 0.0, BOUNDS, 9, 3)
    assert found.locations.shape == (0, 3)
    assert found.count.shape == (0,)
    assert level_sets.excursion_volume(PATHS[:0], 0.0, X, np.ones(6)).shape == (0,)
    assert level_sets.coverage_function(PATHS, 0.0)(X[:0]).shape == (0,)
    assert level_sets.coverage_function(PATHS, 0.0)(np.zeros((2, 0, 1))).shape == (2, 0)


@pytest.mark.parametrize("part", ["locations", "upward", "count", "truncated"])
def test_paths_that_are_not_finite_are_an_error_under_jit(part):
    log = lambda a: lambda X: jnp.log(a * X[..., 0])
    run = eqx.filter_jit(lambda a: getattr(level_sets.crossings(log(a), 0.0, BOUNDS, 9, 2), part))
    with pytest.raises(RuntimeError, match="`paths` on the grid must be finite"):
        run(jnp.asarray(1.0))


def test_excursions_of_paths_that_are_not_finite_are_an_error_under_jit():
    log = lambda a: lambda X: jnp.log(a * X[..., 0])
    with pytest.raises(RuntimeError, match="`paths` at the points of `X` must be finite"):
        eqx.filter_jit(lambda a: level_sets.coverage_function(log(a), 0.0)(X))(jnp.asarray(1.0))
    with pytest.raises(RuntimeError, match="`paths` at `points` must be finite"):
        eqx.filter_jit(lambda a: level_sets.excursion_volume(log(a), 0.0, X, np.ones(6)))(jnp.asarray(1.0))


@pytest.mark.parametrize("kind", ["one", "batch", "chains", "derivative", "function"])
def test_each_path_is_on_the_level_at_its_own_crossings(kind):
    paths = {
        "one": PATHS[2],
        "batch": PATHS,
        "chains": pgp.PathEnsemble(jax.tree.map(lambda a: a[None], ENSEMBLE.varying), ENSEMBLE.common, 2),
        "derivative": calculus.directional_derivative(ENSEMBLE, np.ones(1)),
        "function": lambda X: 1 * PATHS(X),
    }[kind]
    found = level_sets.crossings(paths, 0.2, BOUNDS, 65, 8)
    shape = {"one": (), "batch": (5,), "chains": (1, 2, 5), "function": (5,)}.get(kind, (2, 5))
    assert found.locations.shape == (*shape, 8)
    assert found.count.shape == shape
    assert found.count.max() > 3
    assert not found.truncated.any()
    flat = np.where(found.mask, found.locations, 0.0).reshape(-1, 8)
    all_of_them = lambda x: np.asarray(paths(x[:, None])).reshape(-1, 8)
    rows = np.stack([all_of_them(x)[i] for i, x in enumerate(flat)])
    np.testing.assert_allclose(rows[np.asarray(found.mask).reshape(-1, 8)], 0.2, atol=1e-12)
    # As many as there are changes of side, in order.
    grid = np.asarray(paths(np.linspace(-2, 2, 65)[:, None])) > 0.2
    np.testing.assert_array_equal(found.count, (grid[..., 1:] != grid[..., :-1]).sum(-1))
    steps = np.diff(np.asarray(found.locations), axis=-1)
    assert (steps[~np.isnan(steps)] > 0).all()


def test_derivatives_are_those_of_the_implicit_function():
    # sin(ax) = c: x = asin(c)/a, (π − asin(c))/a.
    def roots(a, c):
        found = level_sets.crossings(Waves(jnp.stack([a, 2 * a])), c, np.array([0.1, 3.0]), 50, 4)
        return jnp.where(found.mask, found.locations, 0.0)

    a, c = jnp.asarray(1.1), jnp.asarray(0.4)
    angles = np.array([[math.asin(0.4), np.pi - math.asin(0.4)], [math.asin(0.4), np.pi - math.asin(0.4)]])
    scale = np.array([[1.1], [2.2]])
    forward, second = jax.jacfwd(roots, (0, 1)), jax.jacfwd(jax.jacrev(roots))
    derivatives = jax.jit(lambda a, c: (*forward(a, c), jax.jacrev(roots)(a, c), second(a, c)))
    in_a, in_c, backward, second = map(np.asarray, derivatives(a, c))
    np.testing.assert_allclose(in_a[:, :2], -angles / scale / 1.1, rtol=1e-12)
    np.testing.assert_allclose(in_c[:, :2], np.array([1, -1]) / math.cos(math.asin(0.4)) / scale, rtol=1e-12)
    np.testing.assert_allclose(backward, in_a, rtol=1e-12)
    np.testing.assert_allclose(second[:, :2], 2 * angles / scale / 1.1**2, rtol=1e-10)


def test_derivatives_of_first_passage_reach_the_kernel():
    def total(lengthscale):
        first = level_sets.first_crossing(draw(pgp.RBF(1.0, lengthscale), n_paths=3), 0.1, BOUNDS, 65)
        return jnp.sum(jnp.where(jnp.isfinite(first), first, 0.0))

    at, h = jnp.asarray(0.5), 1e-5
    compiled = jax.jit(jax.value_and_grad(total))
    np.testing.assert_allclose(compiled(at)[1], (compiled(at + h)[0] - compiled(at - h)[0]) / (2 * h), rtol=1e-5)


def test_crossings_in_single_precision_under_jit_and_vmap():
    f = Waves(jnp.asarray([3.0, 4.0], jnp.float32))
    run = eqx.filter_jit(lambda f, c: level_sets.crossings(f, c, jnp.asarray([0.5, 3.0], jnp.float32), 50, 4))
    found = run(f, jnp.asarray(0.0, jnp.float32))
    assert found.locations.dtype == jnp.float32
    np.testing.assert_allclose(found.locations[0, :2], np.array([np.pi / 3, 2 * np.pi / 3]), rtol=3e-7)
    many = jax.vmap(lambda c: run(f, c).locations)(jnp.asarray([0.0, 0.1], jnp.float32))
    np.testing.assert_array_equal(many[0], found.locations)
    np.testing.assert_allclose(np.sin(3 * many[1, 0, :2].astype(float)), 0.1, atol=1e-6)


def test_crossings_on_the_box_of_a_basis():
    box = jnp.asarray([[-2.0], [2.0]])
    paths = draw(pgp.RBF(1.0, 0.4), features=pgp.HilbertSpace(box))
    found = level_sets.crossings(paths, 0.0, BOUNDS, 65, 8)
    values = paths.paired(jnp.where(found.mask, found.locations, 0.0)[..., None])
    np.testing.assert_allclose(values[np.asarray(found.mask)], 0, atol=1e-12)


def test_crossings_of_other_paths_compile_nothing_anew():
    first, second = (dataclasses.replace(PATHS, kernel=Counted(pgp.RBF(v, 0.4))) for v in (1.0, 1.2))
    run = lambda paths, c: (
        level_sets.crossings(paths, c, BOUNDS + c, 20, 4).count,
        level_sets.coverage_function(paths, c)(X + c),
        level_sets.excursion_volume(paths, c, X + c, np.full(6, 0.1)),
    )
    run(first, 0.1)
    CALLS.clear()
    run(second, 0.2)
    assert not CALLS


def test_the_mean_number_of_crossings_is_rices():
    # Of a stationary process with kernel k: (T/π) √(−k″(0)/k(0)) exp(−c²/2k(0)) in length T (Rice 1944).
    n, n_scan, length, c = 600, 65, 3.0, 0.7
    paths = pgp.GPPrior(kernel=pgp.RBF(1.3, 0.5), X=X).sample_paths(KEY, n, n_features=64)
    # With its features held a path has this kernel, of cosines and sines in pairs.
    amplitudes, turns = np.asarray(paths.features.amplitudes), 2 * np.pi * np.asarray(paths.features.frequencies)[:, 0]
    k = lambda r: np.sum(amplitudes**2 * np.cos(turns * r)) / 2
    rate = length / math.pi * math.sqrt(np.sum((amplitudes * turns) ** 2) / 2 / k(0)) * math.exp(-(c**2) / (2 * k(0)))
    # The scan sees a change of side between neighbours, 2 (Φ(c) − Φ₂(c, c; ρ)) for each cell: nearly all crossings.
    ends = k(0) * np.eye(2) + k(length / (n_scan - 1)) * (1 - np.eye(2))
    below = scipy.stats.multivariate_normal(cov=ends).cdf(np.full(2, c))
    seen = (n_scan - 1) * 2 * (scipy.stats.norm.cdf(c / math.sqrt(k(0))) - below)
    assert 0.998 * rate < seen < rate
    found = level_sets.crossings(paths, c, np.array([-1.0, -1.0 + length]), n_scan, 8)
    assert not found.truncated.any()
    count = np.asarray(found.count)
    assert abs(count.mean() - seen) < 4 * count.std() / n**0.5
    # Up and down take turns.
    assert (np.abs(2 * found.upward.sum(-1) - count) <= 1).all()


# --- excursion sets


def test_coverage_of_a_gaussian():
    n, c = 4000, 0.3
    posterior = pgp.GPPrior(kernel=pgp.RBF(1.0, 0.4), X=X, jitter=1e-6).condition(Y, 0.3)
    paths = pgp.PathwiseSampler(posterior, n_features=64).sample_paths(KEY, n)
    points = np.linspace(-1.5, 1.5, 12)[:, None]
    coverage = level_sets.coverage_function(paths, c)
    # With the features held a path is normal, with the mean of the posterior and a variance of its own.
    p = scipy.stats.norm.cdf((posterior.mean(points) - c) / np.sqrt(paths.marginal_variance(points)))
    assert (np.abs(coverage(points) - p) < 4.5 * np.sqrt(p * (1 - p) / n)).all()
    assert coverage(points[0]).shape == ()
    np.testing.assert_array_equal(coverage(points.reshape(3, 4, 1)).reshape(-1), coverage(points))
    np.testing.assert_array_equal(eqx.filter_jit(lambda c, X: c(X))(coverage, points), coverage(points))
    # The mean volume is the integral of the coverage.
    weights = np.full(12, 3 / 12)
    volumes = level_sets.excursion_volume(paths, c, points, weights)
    assert volumes.shape == (n,)
    np.testing.assert_allclose(volumes.mean(), weights @ np.asarray(coverage(points)), rtol=1e-10)
    np.testing.assert_allclose(volumes[:5], (np.asarray(paths[:5](points)) > c) @ weights, rtol=1e-12)
    assert level_sets.coverage_function(ENSEMBLE, c)(points).shape == (12,)
    assert level_sets.excursion_volume(ENSEMBLE, c, points, weights).shape == (2, 5)


def test_many_points_are_taken_in_blocks():
    points = np.linspace(-1.5, 1.5, 9001)[:, None]
    values = np.asarray(PATHS(points)) > 0.1
    np.testing.assert_allclose(level_sets.coverage_function(PATHS, 0.1)(points), values.mean(0), rtol=1e-12)
    inside = lambda X: X[..., 0] > 0.25
    np.testing.assert_array_equal(level_sets.coverage_function(inside, 0.5)(points), points[:, 0] > 0.25)
    weights = np.linspace(0, 1, 9001)
    np.testing.assert_allclose(level_sets.excursion_volume(PATHS, 0.1, points, weights), values @ weights, rtol=1e-12)


# Discs of random radius about 0: f_i(x) = R_i − |x|, R uniform on [0.5, 1.5] at the middles of 2000 equal parts.
RADII = 0.5 + (np.arange(2000) + 0.5) / 2000
N = 3000
RINGS = (np.arange(N) + 0.5) / N * 1.6
DISC = np.stack([RINGS * np.cos(RINGS), RINGS * np.sin(RINGS)], axis=1)  # a design in rings
AREAS = 2 * np.pi * RINGS * 1.6 / N


class Discs(eqx.Module):
    radii: jax.Array

    def __call__(self, X):
        return self.radii[:, None] - jnp.sqrt(jnp.sum(X * X, axis=-1))[None, :]


def test_vorobev_on_discs():
    coverage = level_sets.coverage_function(Discs(jnp.asarray(RADII)), 0.0)(DISC)
    p = np.clip(1.5 - RINGS, 0, 1)
    np.testing.assert_allclose(coverage, p, atol=1e-3)
    found = level_sets.vorobev_expectation(coverage, AREAS)
    square = (1.5**3 - 0.5**3) / 3  # E R²
    radius = math.sqrt(square)
    np.testing.assert_allclose(found.mean_volume, np.pi * square, rtol=1e-3)
    np.testing.assert_allclose(found.volume, np.pi * square, rtol=2e-3)
    assert found.volume >= found.mean_volume * (1 - 1e-12)
    np.testing.assert_allclose(found.threshold, 1.5 - radius, atol=2e-3)
    np.testing.assert_array_equal(found.inside, np.asarray(coverage) >= found.threshold)
    np.testing.assert_allclose(RINGS[np.asarray(found.inside)].max(), radius, atol=2e-3)
    # E |πR² − πr²|, by the integral over R on either side of r.
    integral = lambda a, b: (b**3 - a**3) / 3
    exact = np.pi * (integral(radius, 1.5) - square * (1.5 - radius) + square * (radius - 0.5) - integral(0.5, radius))
    np.testing.assert_allclose(level_sets.vorobev_deviation(coverage, AREAS), exact, rtol=2e-3)
    # By drawing: the symmetric difference of each disc; and no other disc of the volume's like does better.
    sets = np.asarray(Discs(jnp.asarray(RADII[25::50]))(jnp.asarray(DISC))) > 0
    drawn = ((sets != np.asarray(found.inside)[None]) @ AREAS).mean()
    np.testing.assert_allclose(level_sets.vorobev_deviation(coverage, AREAS, found.inside), drawn, rtol=5e-3)
    shifted = np.sqrt((DISC[:, 0] - 0.2) ** 2 + DISC[:, 1] ** 2) < radius
    assert level_sets.vorobev_deviation(coverage, AREAS, shifted) > exact


def test_vorobev_of_sets_that_are_known():
    weights = RNG.uniform(0.1, 1, 1000)
    known = RNG.uniform(size=1000) < 0.3
    found = level_sets.vorobev_expectation(known.astype(float), weights)
    np.testing.assert_array_equal(found.inside, known)
    assert level_sets.vorobev_deviation(known.astype(float), weights) == 0
    for value in (0.0, 1.0):
        found = level_sets.vorobev_expectation(np.full(1000, value), weights)
        assert bool(found.inside.all()) == (value == 1)
        assert bool(found.inside.any()) == (value == 1)
    # Points of equal coverage come all or none.
    found = level_sets.vorobev_expectation(np.array([0.9, 0.5, 0.5, 0.1]), np.ones(4))
    np.testing.assert_array_equal(found.inside, [True, True, True, False])
    assert (found.threshold, found.volume, found.mean_volume) == (0.5, 3, 2)
    np.testing.assert_allclose(level_sets.vorobev_deviation(np.array([0.9, 0.5, 0.5, 0.1]), np.ones(4)), 1.2)


RNG = np.random.default_rng(0)


def test_contours():
    box = np.array([[-1.5, -1.0], [1.5, 2.0]])
    lines = level_sets.contours(lambda X: jnp.sum(X * X, axis=-1), 0.64, box, 200)
    assert len(lines) == 1
    np.testing.assert_allclose(np.hypot(*lines[0].T), 0.8, atol=1e-4)
    np.testing.assert_array_equal(lines[0][0], lines[0][-1])
    # The first axis is x.
    (line,) = level_sets.contours(lambda X: X[..., 0], 0.25, box, 5)
    np.testing.assert_allclose(line[:, 0], 0.25, atol=1e-12)
    assert level_sets.contours(lambda X: X[..., 0], 9.0, box, 5) == []


outputs = lambda X: X * jnp.arange(1.0, 7.0)[None]


REFUSED = {
    "level": (lambda: level_sets.crossings(PATHS, np.zeros(2), BOUNDS), "`level` must be a scalar"),
    "level, NaN": (lambda: level_sets.crossings(PATHS, np.nan, BOUNDS), "`level` must be finite"),
    "bounds": (lambda: level_sets.crossings(PATHS, 0.0, BOUNDS[:, None]), r"`bounds` must have shape \(2,\)"),
    "order": (lambda: level_sets.crossings(PATHS, 0.0, BOUNDS[::-1]), "`bounds` must be in ascending order"),
    "scan": (lambda: level_sets.crossings(PATHS, 0.0, BOUNDS, 1), "`n_scan` must be at least 2"),
    "places": (lambda: level_sets.crossings(PATHS, 0.0, BOUNDS, 9, 0), "`max_crossings` must be at least 1"),
    "direction": (lambda: level_sets.first_crossing(PATHS, 0.0, BOUNDS, direction="left"), "`direction` must be"),
    "shape": (
        lambda: level_sets.crossings(lambda X: jnp.stack([X[:, 0]] * 2, 1), 0.0, BOUNDS),
        "`paths` must map inputs",
    ),
    "NaN": (
        lambda: level_sets.crossings(lambda X: jnp.log(X[..., 0]), 0.0, BOUNDS),
        "`paths` on the grid must be finite",
    ),
    # As many outputs as points.
    "outputs": (
        lambda: level_sets.crossings(lambda X: X * jnp.arange(1.0, 10.0)[None], 0.0, BOUNDS, 9),
        "one value a point",
    ),
    "coverage, outputs": (lambda: level_sets.coverage_function(outputs, 0.0)(X), "one value a point"),
    "volume, outputs": (
        lambda: level_sets.excursion_volume(outputs, 0.0, X, np.ones(6)),
        "one value a point",
    ),
    "coverage, NaN": (
        lambda: level_sets.coverage_function(lambda X: jnp.log(X[..., 0]), 0.0)(X),
        "`paths` at the points of `X` must be finite",
    ),
    "coverage, no paths": (lambda: level_sets.coverage_function(PATHS[:0], 0.0)(X), "`paths` must hold at least one"),
    "volume, infinite": (
        lambda: level_sets.excursion_volume(lambda X: 1 / (X[..., 0] - X[2, 0]), 0.0, X, np.ones(6)),
        "`paths` at `points` must be finite",
    ),
    "contours, NaN": (
        lambda: level_sets.contours(lambda X: jnp.log(X[..., 0]), 0.0, np.array([[-1.0, 0.0], [1.0, 1.0]]), 5),
        "`path` on the grid must be finite",
    ),
    "coverage, paths": (lambda: level_sets.coverage_function(3.0, 0.0), "`paths` must be callable"),
    "coverage, input": (lambda: level_sets.coverage_function(PATHS, 0.0)(jnp.asarray(1.0)), "`X` must be the input"),
    "coverage, shape": (
        lambda: level_sets.coverage_function(lambda X: jnp.stack([X[:, 0]] * 2, 1), 0.0)(X),
        "`paths` must map inputs",
    ),
    "points": (
        lambda: level_sets.excursion_volume(PATHS, 0.0, X[:, 0], np.ones(6)),
        r"`points` must have shape \(n, d\)",
    ),
    "weights": (lambda: level_sets.excursion_volume(PATHS, 0.0, X, np.ones(5)), r"`weights` must have shape \(6,\)"),
    "negative": (lambda: level_sets.excursion_volume(PATHS, 0.0, X, -np.ones(6)), "`weights` must not be negative"),
    "probabilities": (lambda: level_sets.vorobev_expectation(np.full(3, 1.2), np.ones(3)), "`coverage` must hold prob"),
    "coverage": (
        lambda: level_sets.vorobev_expectation(np.ones((3, 1)), np.ones(3)),
        r"`coverage` must have shape \(n,\)",
    ),
    "inside": (
        lambda: level_sets.vorobev_deviation(np.ones(3), np.ones(3), np.ones(3)),
        "`inside` must have dtype bool",
    ),
    "contours, batch": (
        lambda: level_sets.contours(lambda X: jnp.ones((2, len(X))), 0.0, np.array([[0.0, 0.0], [1.0, 1.0]]), 5),
        "`path` must be one function",
    ),
    "contours, n": (lambda: level_sets.contours(PATHS, 0.0, np.eye(2), 1), "`n` must be at least 2"),
    "contours, bounds": (lambda: level_sets.contours(PATHS, 0.0, BOUNDS), r"`bounds` must have shape \(2, 2\)"),
}


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize("name", REFUSED)
def test_wrong_uses_are_named(name):
    call, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        call()
