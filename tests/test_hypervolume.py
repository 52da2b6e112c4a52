"""Several objectives: hypervolumes against inclusion and exclusion, quadrature and published constants."""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import pathwise_gp as pgp
from pathwise_gp import acquisition as acq, optimise

KEY = jax.random.key(4)
RNG = np.random.default_rng(0)


def by_inclusion_and_exclusion(points, reference):
    """Of the boxes between the reference and each point, all of which are to be small: the volume of their union."""
    points = np.asarray(points).reshape(-1, len(reference))
    total = 0.0
    for r in range(1, len(points) + 1):
        for chosen in itertools.combinations(points, r):
            total += (-1) ** (r + 1) * np.prod(np.maximum(np.asarray(reference) - np.max(chosen, axis=0), 0))
    return total


def with_awkward_points(p):
    """Some that are dominated, equal, tied in a coordinate, or not better than the reference."""
    points = RNG.uniform(size=(8, p))
    points[1], points[2, 0], points[3] = points[0], points[0, 0], points[4] + 0.1
    points[5, -1], points[6] = 1.3, 2.0
    return points


@pytest.mark.parametrize("p", [2, 3])
def test_hypervolume_is_that_of_the_union_of_boxes(p):
    reference = np.linspace(1.0, 1.2, p)
    sets = np.stack([with_awkward_points(p) for _ in range(6)]).reshape(2, 3, 8, p)
    found = np.asarray(optimise.hypervolume(sets, reference))
    want = [by_inclusion_and_exclusion(one, reference) for one in sets.reshape(6, 8, p)]
    np.testing.assert_allclose(found.reshape(-1), want, rtol=1e-12)
    np.testing.assert_allclose(optimise.hypervolume(-sets, -reference, maximise=True), found, rtol=1e-12)
    # Of none it is nothing, of one its box, and of what is not known unknown.
    assert optimise.hypervolume(np.zeros((0, p)), reference) == 0
    np.testing.assert_allclose(optimise.hypervolume(np.zeros((1, p)), reference), reference.prod(), rtol=1e-14)
    unknown = optimise.hypervolume(np.where(np.arange(8)[:, None] == 3, np.nan, sets), reference)
    assert np.isnan(unknown).all()
    # The derivative in the points, by differences.
    value = jax.jit(jax.value_and_grad(lambda Y: optimise.hypervolume(Y, reference)))
    Y, direction = RNG.uniform(size=(6, p)), RNG.normal(size=(6, p))
    slope = np.vdot(value(Y)[1], direction)
    ends = [float(value(Y + step * direction)[0]) for step in (1e-6, -1e-6)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-6, rtol=1e-6)


def branin_currin(X, xp=jnp):
    """Of BoTorch's test functions, to be minimised over the unit square."""
    u, v = 15 * X[..., 0] - 5, 15 * X[..., 1]
    branin = (v - 5.1 / (4 * np.pi**2) * u**2 + 5 / np.pi * u - 6) ** 2 + 10 * (1 - 1 / (8 * np.pi)) * xp.cos(u) + 10
    x, y = X[..., 0], X[..., 1]
    ratio = (2300 * x**3 + 1900 * x**2 + 2092 * x + 60) / (100 * x**3 + 500 * x**2 + 4 * x + 20)
    decay = xp.where(y > 0, 1 - xp.exp(-0.5 / xp.where(y > 0, y, 1)), 1)
    return xp.stack([branin, decay * ratio], axis=-1)


# BoTorch: BraninCurrin._ref_point and ._max_hv.
REFERENCE, LARGEST = np.asarray([18.0, 6.0]), 59.36011874867746


def test_branin_currin_has_the_published_hypervolume():
    axis = np.linspace(0, 1, 401)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)

    def front(points):
        """By the first objective in order, in NumPy."""
        values = np.asarray(branin_currin(points, np))
        order = np.lexsort((values[:, 1], values[:, 0]))
        least = np.minimum.accumulate(values[order, 1])
        kept = order[np.concatenate([[True], values[order[1:], 1] < least[:-1]])]
        return points[kept], values[kept]

    points, coarse = front(points)
    near = points[:, None] + np.random.default_rng(0).uniform(-1, 1, (len(points), 700, 2)) / 400
    found = optimise.hypervolume(front(np.clip(near, 0, 1).reshape(-1, 2))[1], REFERENCE)
    assert optimise.hypervolume(coarse, REFERENCE) < found
    # The published one is that of a front that a genetic algorithm found: from below.
    assert LARGEST < found < 1.001 * LARGEST
    mask = optimise.pareto_front(branin_currin, np.asarray(RNG.uniform(size=(200, 2)))).mask
    assert 3 < mask.sum() < 40


@pytest.mark.parametrize("p", [2, 3, 4])
def test_fronts_are_those_of_brute_force(p):
    values = RNG.integers(0, 4, (3, 150, p)).astype(float)  # many are equal
    values[1, 5, 0] = np.nan
    better = (values[:, :, None] <= values[:, None]).all(-1) & (values[:, :, None] < values[:, None]).any(-1)
    want = ~better.any(axis=1) & ~np.isnan(values).any(axis=2)
    np.testing.assert_array_equal(optimise.non_dominated(values), want)
    np.testing.assert_array_equal(optimise.non_dominated(-values, maximise=True), want)
    assert want[0].sum() >= 1


X = RNG.uniform(-1, 1, (7, 2))


@functools.cache
def outputs(p=2):
    """Six paths of p outputs, and what was observed."""
    kernel = pgp.Coregionalised(pgp.RBF(1.0, 0.7), np.ones((p, 1)), np.ones(p))
    Y = np.stack([np.sin(3 * X[:, 0]), np.cos(2 * X[:, 1]), X[:, 0] - X[:, 1]], axis=1)[:, :p]
    posterior = pgp.GPPrior(kernel, pgp.AllOutputs(X, p), pgp.OutputMeans(np.zeros(p))).condition(Y, 0.05)
    return pgp.PathwiseSampler(posterior, 128, features=pgp.MonteCarlo()).sample_paths(KEY, 6).outputs, Y


@pytest.mark.parametrize("p", [2, 3])
def test_fronts_of_paths(p):
    paths, _ = outputs(p)
    points, reference = RNG.uniform(-1, 1, (40, 2)), np.full(p, 1.5)
    front = optimise.pareto_front(paths, points)
    values, mask = np.asarray(front.values), np.asarray(front.mask)
    np.testing.assert_allclose(values, paths(points), rtol=1e-12)
    np.testing.assert_array_equal(mask, optimise.non_dominated(values))
    assert front.points[mask[2]].shape == (mask[2].sum(), 2)
    # The same from one function for each objective, whose axes may be many.
    each = [paths.output(q) for q in range(p)]
    if p == 2:
        np.testing.assert_array_equal(optimise.pareto_front(each, points).mask, mask)
    stacked = [pgp.stack([one[:3], one[3:]]) for one in each]
    np.testing.assert_array_equal(optimise.pareto_front(stacked, points).mask, mask.reshape(2, 3, 40))
    # What is behind others adds nothing.
    alone = optimise.hypervolume(np.where(mask[..., None], values, 9.0), reference)
    np.testing.assert_allclose(optimise.hypervolume(values, reference), alone, rtol=1e-12)


@eqx.filter_jit
def of_three_forms(paths, reference, front, X):
    """The improvement, its smooth form with hardly a temperature, and with that which it has by itself."""
    smooth = [
        acq.LogHypervolumeImprovement(paths, reference, front, *width).joint(X)
        for width in ((jnp.full_like(reference, 1e-5),), ())
    ]
    return acq.HypervolumeImprovement(paths, reference, front).joint(X), *map(jnp.exp, smooth)


@pytest.mark.parametrize(("p", "q"), [(2, 1), (2, 3), (3, 3)])
def test_improvement_is_the_difference_of_two_hypervolumes(p, q):
    paths, Y = outputs(p)
    batch, reference = RNG.uniform(-1, 1, (5, q, 2)), np.full(p, 0.8)
    f = np.asarray(paths(batch))  # s n q p
    observed = np.concatenate([Y, Y[:1], Y[:1] + 0.1, np.full((1, p), 3.0)])

    def whole(fronts):
        """Hypervolumes of the front of each path with what it has at each batch."""
        both = np.concatenate([np.broadcast_to(fronts[:, None], (6, 5, *fronts.shape[1:])), f], axis=2)
        return np.asarray(optimise.hypervolume(both, reference))

    given = [observed, np.asarray(paths(X)), Y[:0]]
    for front in given if q == 3 else given[:1]:
        fronts = np.broadcast_to(front, (6, *front.shape[-2:]))
        before = np.asarray(optimise.hypervolume(fronts, reference))
        want = (whole(fronts) - before[:, None]).mean(axis=0)
        exact, cold, near = of_three_forms(paths, jnp.asarray(reference), jnp.asarray(front), batch)
        np.testing.assert_allclose(exact, want, atol=1e-12)
        assert (want > 0).any()
        # Without a temperature the smooth form is the same.
        np.testing.assert_allclose(cold, want, atol=2e-4)
        np.testing.assert_allclose(np.asarray(near)[want > 0.05], want[want > 0.05], rtol=0.1)
    if q == 3:
        each = [lambda X, one=paths.output(i): -one(X) for i in range(p)]
        turned = acq.HypervolumeImprovement(each, -reference, -observed, maximise=True)
        plain = acq.HypervolumeImprovement(paths, reference, observed)
        np.testing.assert_allclose(turned.joint(batch), plain.joint(batch))


def test_expected_improvement_of_independent_normals_is_its_closed_form():
    """Of one point in the front the sum over its strips of products of one-dimensional expected improvements."""
    S = 20_000
    z = np.random.default_rng(1).normal(size=(2, S))
    mean, sd, reference, seen = (
        np.asarray([0.2, -0.1]),
        np.asarray([0.5, 0.8]),
        np.asarray([1.0, 1.0]),
        np.asarray([0.1, 0.3]),
    )
    draws = [mean[i] + sd[i] * z[i] for i in range(2)]
    paths = [lambda X, f=f: jnp.broadcast_to(f.reshape(-1, *(1,) * (X.ndim - 1)), (S, *X.shape[:-1])) for f in draws]
    got = acq.HypervolumeImprovement(paths, reference, seen[None])(np.zeros((1, 1)))
    ei = lambda i, best: (u := (best - mean[i]) / sd[i], sd[i] * (u * norm.cdf(u) + norm.pdf(u)))[1]
    # To the left of the point all below the reference, and else below the point.
    want = ei(0, seen[0]) * ei(1, reference[1]) + (ei(0, reference[0]) - ei(0, seen[0])) * ei(1, seen[1])
    f = np.stack(draws)
    each = np.maximum(reference[:, None] - f, 0).prod(0) - np.maximum(
        reference[:, None] - np.maximum(f, seen[:, None]), 0
    ).prod(0)
    np.testing.assert_allclose(got, [each.mean()], rtol=1e-10)
    assert abs(got[0] - want) < 4 * each.std() / S**0.5


@eqx.filter_jit
@eqx.filter_value_and_grad
def value_and_slopes(arguments):
    made, x = arguments
    return made.joint(x[None])[0]


@pytest.mark.parametrize("p", [2, 3])
def test_gradients_of_improvements(p):
    paths, Y = outputs(p)
    x, reference = np.asarray([[0.3, -0.2], [-0.5, 0.8]]), np.full(p, 0.8)
    for made in (acq.HypervolumeImprovement(paths, reference, Y), acq.LogHypervolumeImprovement(paths, reference, Y)):
        direction = RNG.normal(size=(2, 2))
        _, (leaves, slope) = value_and_slopes((made, jnp.asarray(x)))
        ends = [float(value_and_slopes((made, jnp.asarray(x + step * direction)))[0]) for step in (1e-6, -1e-6)]
        np.testing.assert_allclose(np.vdot(slope, direction), (ends[0] - ends[1]) / 2e-6, rtol=1e-5)
        assert np.abs(np.vdot(slope, direction)) > 1e-3
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(leaves))
    # Where no path improves the logarithm still has one, and leads to where they do.
    far = acq.LogHypervolumeImprovement(paths, np.full(p, -8.0), Y)
    plain = acq.HypervolumeImprovement(paths, np.full(p, -8.0), Y)
    assert value_and_slopes((plain, jnp.asarray(x)))[0] == 0
    value, (_, slope) = value_and_slopes((far, jnp.asarray(x)))
    assert np.isfinite(value)
    assert (np.abs(slope) > 0).all()


def test_the_search_finds_the_largest_improvement():
    paths, Y = outputs()
    box = np.asarray([[-1.0, -1.0], [1.0, 1.0]])
    made = acq.LogHypervolumeImprovement(paths, np.full(2, 0.8), Y)
    found = made.optimise(box, KEY, n_screen=128, n_restarts=3)
    axis = np.linspace(-1, 1, 41)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    assert found.values >= np.max(made(grid)) - 1e-9
    some = grid[::20]
    pairs = np.stack([some[[i, j]] for i, j in ((0, 1), (3, 7))])
    assert made.optimise_over(some, 2).values >= np.max(made.joint(pairs))


P = lambda X: jnp.stack([X[..., 0], -X[..., 0]], axis=-1)
TWO = np.asarray([1.0, 1.0])


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: optimise.hypervolume(np.zeros((3, 2)), np.zeros(4)),
            "`reference` must hold a value of each of two or three",
        ),
        (
            lambda: optimise.hypervolume(np.zeros((3, 2)), np.zeros(3)),
            r"`values` must have shape \(\*s, m, 3\); got \(3, 2\)",
        ),
        (lambda: optimise.hypervolume(np.zeros((3, 2)), TWO * np.nan), "`reference` must be finite"),
        (lambda: optimise.hypervolume(np.zeros((3, 2)), TWO, maximise=1), "`maximise` must be True or False"),
        (lambda: optimise.non_dominated(np.zeros(3)), r"`values` must be those of m points .* got shape \(3,\)"),
        (lambda: optimise.pareto_front(P, np.zeros(3)), r"`points` must have shape \(n, d\)"),
        (lambda: optimise.pareto_front(3, X), "`paths` must be a function"),
        (lambda: optimise.pareto_front(lambda X: X[..., 0], X), r"values of several objectives, `\*s n p`"),
        (lambda: optimise.pareto_front([P, P], X), "`paths` must map inputs of shape"),
        (
            lambda: optimise.pareto_front([lambda X: X[..., 0], lambda X: X.T[:1]], X),
            r"must have the same axes; got \[\(\), \(1,\)\]",
        ),
        (lambda: acq.HypervolumeImprovement(P, TWO, np.zeros(2)), "`front` must hold the values of m points"),
        (
            lambda: acq.HypervolumeImprovement(P, TWO, np.zeros((2, 3))),
            "`front` must have the 2 objectives of `reference`",
        ),
        (lambda: acq.HypervolumeImprovement(P, TWO, np.full((1, 2), np.nan)), "`front` must be finite"),
        (
            lambda: acq.HypervolumeImprovement((P, P, P), TWO, np.zeros((1, 2))),
            "or one for each of 2 objectives; got 3",
        ),
        (lambda: acq.HypervolumeImprovement(P, np.zeros(3), np.zeros((1, 3)))(X), "`paths` must have the 3 objectives"),
        (
            lambda: acq.HypervolumeImprovement(P, TWO, np.zeros((4, 1, 2)))(X),
            r"`\*s m 2` with the axes \(\) of the paths; got \(4, 1, 2\)",
        ),
        (lambda: acq.HypervolumeImprovement(P, TWO, np.zeros((1, 2))).joint(np.zeros((9, 2))), "`q` must be at most 8"),
        (lambda: acq.LogHypervolumeImprovement(P, TWO, np.zeros((1, 2)))(X), "`temperature` must be given where"),
        (lambda: acq.LogHypervolumeImprovement(P, TWO, np.zeros((1, 2)), 0.1), r"`temperature` must have shape \(2,\)"),
        (lambda: acq.LogHypervolumeImprovement(P, TWO, np.zeros((1, 2)), -TWO), "`temperature` must be positive"),
    ],
)
def test_objectives_are_checked(make, words):
    with pytest.raises(ValueError, match=words):
        make()
