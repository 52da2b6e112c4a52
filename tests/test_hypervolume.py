"""Several objectives: hypervolumes against inclusion and exclusion, quadrature and published constants."""

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
    found = optimise.hypervolume(sets, reference)
    want = [by_inclusion_and_exclusion(one, reference) for one in sets.reshape(6, 8, p)]
    np.testing.assert_allclose(found.reshape(-1), want, rtol=1e-12)
    np.testing.assert_allclose(optimise.hypervolume(-sets, -reference, maximise=True), found, rtol=1e-12)
    # Of none it is nothing, of one its box, and of what is not known unknown.
    assert optimise.hypervolume(np.zeros((0, p)), reference) == 0
    np.testing.assert_allclose(optimise.hypervolume(np.zeros((1, p)), reference), reference.prod(), rtol=1e-14)
    unknown = optimise.hypervolume(np.where(np.arange(8)[:, None] == 3, np.nan, sets[0, 0]), reference)
    assert np.isnan(unknown)
    # The derivative in the points, by differences.
    value = lambda Y: optimise.hypervolume(Y, reference)
    Y, direction = jnp.asarray(RNG.uniform(size=(6, p))), jnp.asarray(RNG.normal(size=(6, p)))
    slope = jnp.vdot(jax.grad(value)(Y), direction)
    np.testing.assert_allclose(slope, (value(Y + 1e-6 * direction) - value(Y - 1e-6 * direction)) / 2e-6, rtol=1e-6)


def branin_currin(X):
    """Of BoTorch's test functions, to be minimised over the unit square."""
    u, v = 15 * X[..., 0] - 5, 15 * X[..., 1]
    branin = (v - 5.1 / (4 * np.pi**2) * u**2 + 5 / np.pi * u - 6) ** 2 + 10 * (1 - 1 / (8 * np.pi)) * jnp.cos(u) + 10
    x, y = X[..., 0], X[..., 1]
    ratio = (2300 * x**3 + 1900 * x**2 + 2092 * x + 60) / (100 * x**3 + 500 * x**2 + 4 * x + 20)
    decay = jnp.where(y > 0, 1 - jnp.exp(-0.5 / jnp.where(y > 0, y, 1)), 1)
    return jnp.stack([branin, decay * ratio], axis=-1)


# BoTorch: BraninCurrin._ref_point and ._max_hv.
REFERENCE, LARGEST = np.asarray([18.0, 6.0]), 59.36011874867746


def test_branin_currin_has_the_published_hypervolume():
    axis = np.linspace(0, 1, 401)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)

    def front(points):
        """By the first objective in order, in NumPy."""
        values = np.asarray(branin_currin(points))
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


def outputs(n_paths=6, p=2):
    kernel = pgp.Coregionalised(pgp.RBF(1.0, 0.7), np.ones((p, 1)), np.ones(p))
    Y = np.stack([np.sin(3 * X[:, 0]), np.cos(2 * X[:, 1]), X[:, 0] - X[:, 1]], axis=1)[:, :p]
    posterior = pgp.MultiOutputGPPrior(kernel=kernel, X=X, mean=np.zeros(p)).condition(Y, 0.05)
    return pgp.MultiOutputPathwiseSampler(posterior, 32).sample_paths(KEY, n_paths), Y


@pytest.mark.parametrize("p", [2, 3])
def test_fronts_of_paths(p):
    paths, _ = outputs(p=p)
    points = RNG.uniform(-1, 1, (40, 2))
    front = optimise.pareto_front(paths, points)
    np.testing.assert_allclose(front.values, paths(points), rtol=1e-12)
    np.testing.assert_array_equal(front.mask, optimise.non_dominated(paths(points)))
    assert front.points[front.mask[2]].shape == (int(front.mask[2].sum()), 2)
    # The same from one function for each objective, whose axes may be many.
    each = [paths.output(q) for q in range(p)]
    np.testing.assert_array_equal(optimise.pareto_front(each, points).mask, front.mask)
    stacked = [pgp.stack([one[:3], one[3:]]) for one in each]
    np.testing.assert_array_equal(optimise.pareto_front(stacked, points).mask, front.mask.reshape(2, 3, 40))
    volumes = optimise.hypervolume(front.values, np.full(p, 1.5))
    alone = [optimise.hypervolume(front.values[i][front.mask[i]], np.full(p, 1.5)) for i in range(6)]
    np.testing.assert_allclose(volumes, alone, rtol=1e-12)


@pytest.mark.parametrize("p", [2, 3])
@pytest.mark.parametrize("q", [1, 3])
def test_improvement_is_the_difference_of_two_hypervolumes(p, q):
    paths, Y = outputs(p=p)
    batch, reference = RNG.uniform(-1, 1, (5, q, 2)), np.full(p, 0.8)
    f = np.asarray(paths(batch))  # s n q p
    observed = np.concatenate([Y, Y[:1], Y[:1] + 0.1, np.full((1, p), 3.0)])
    whole = lambda front: np.asarray(
        [[optimise.hypervolume(np.concatenate([front[s], one]), reference) for one in f[s]] for s in range(6)]
    )
    for front, fronts in (
        (observed, np.stack([observed] * 6)),
        (paths(X), np.asarray(paths(X))),
        (Y[:0], np.stack([Y[:0]] * 6)),
    ):
        before = np.asarray([[optimise.hypervolume(one, reference)] for one in fronts])
        want = (whole(fronts) - before).mean(axis=0)
        made = acq.HypervolumeImprovement(paths, reference, front)
        np.testing.assert_allclose(made.joint(batch), want, atol=1e-12)
        assert (want > 0).any()
        # Without a temperature the smooth form is the same.
        log = acq.LogHypervolumeImprovement(paths, reference, front, np.full(p, 1e-5))
        np.testing.assert_allclose(jnp.exp(log.joint(batch)), want, atol=2e-4)
        near = acq.LogHypervolumeImprovement(paths, reference, front).joint(batch)
        np.testing.assert_allclose(jnp.exp(near)[want > 0.05], want[want > 0.05], rtol=0.1)
    each = [lambda X, one=paths.output(i): -one(X) for i in range(p)]
    turned = acq.HypervolumeImprovement(each, -reference, -observed, maximise=True)
    np.testing.assert_allclose(turned.joint(batch), acq.HypervolumeImprovement(paths, reference, observed).joint(batch))


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
    draws = [jnp.asarray(mean[i] + sd[i] * z[i]) for i in range(2)]
    paths = [lambda X, f=f: jnp.broadcast_to(f.reshape(-1, *(1,) * (X.ndim - 1)), (S, *X.shape[:-1])) for f in draws]
    got = acq.HypervolumeImprovement(paths, reference, seen[None])(jnp.zeros((1, 1)))[0]
    ei = lambda i, best: (u := (best - mean[i]) / sd[i], sd[i] * (u * norm.cdf(u) + norm.pdf(u)))[1]
    # To the left of the point all below the reference, and else below the point.
    want = ei(0, seen[0]) * ei(1, reference[1]) + (ei(0, reference[0]) - ei(0, seen[0])) * ei(1, seen[1])
    f = np.stack(draws)
    each = np.maximum(reference[:, None] - f, 0).prod(0) - np.maximum(
        reference[:, None] - np.maximum(f, seen[:, None]), 0
    ).prod(0)
    np.testing.assert_allclose(got, each.mean(), rtol=1e-10)
    assert abs(got - want) < 4 * each.std() / S**0.5


@pytest.mark.parametrize("p", [2, 3])
def test_gradients_of_improvements(p):
    paths, Y = outputs(p=p)
    x, reference = jnp.asarray([[0.3, -0.2], [-0.5, 0.8]]), np.full(p, 0.8)
    for made in (acq.HypervolumeImprovement(paths, reference, Y), acq.LogHypervolumeImprovement(paths, reference, Y)):
        value = eqx.filter_jit(lambda x, made=made: made.joint(x[None])[0])
        direction = jnp.asarray(RNG.normal(size=(2, 2)))
        slope = jnp.vdot(jax.grad(value)(x), direction)
        np.testing.assert_allclose(slope, (value(x + 1e-6 * direction) - value(x - 1e-6 * direction)) / 2e-6, rtol=1e-5)
        assert abs(slope) > 1e-3
        leaves = jax.tree.leaves(eqx.filter_grad(lambda m, x: m.joint(x[None])[0])(made, x))
        assert all(np.isfinite(leaf).all() for leaf in leaves)
    # Where no path improves the logarithm still has one, and leads to where they do.
    far = acq.LogHypervolumeImprovement(paths, np.full(p, -8.0), Y)
    plain = acq.HypervolumeImprovement(paths, np.full(p, -8.0), Y)
    assert plain(x[0]) == 0
    assert np.isfinite(far(x[0]))
    assert (jnp.abs(jax.grad(far)(x[0])) > 0).all()


def test_the_search_finds_the_largest_improvement():
    paths, Y = outputs()
    box = jnp.asarray([[-1.0, -1.0], [1.0, 1.0]])
    made = acq.LogHypervolumeImprovement(paths, np.full(2, 0.8), Y)
    options = {"n_screen": 128, "n_restarts": 3}
    found = made.optimise(box, KEY, **options)
    axis = np.linspace(-1, 1, 41)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    assert found.values >= made(grid).max() - 1e-9
    held = made.optimise(box, KEY, 2, constraints=lambda X: X[..., 0] + 0.3, discrete={1: [-1.0, 0.0, 0.5]}, **options)
    assert held.feasible
    assert (held.points[:, 0] <= -0.3 + 1e-5).all()
    assert set(np.asarray(held.points[:, 1])) <= {-1.0, 0.0, 0.5}
    chosen = made.optimise_over(grid[::20], 2)
    assert chosen.values >= made.joint(grid[::20][jnp.asarray([[0, 1], [3, 7]])]).max()


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
