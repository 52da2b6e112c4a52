"""Optima against closed forms, scipy, a grid and finite differences."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from jaxtyping import Array, Float
from tables import CALLS, Counted

import pathwise_gp as pgp
from pathwise_gp import optimise
from pathwise_gp.optimise import finite

RNG = np.random.default_rng(0)
KEY = jax.random.key(3)
X = RNG.uniform(-1, 1, (8, 2))
Y = np.sin(3 * X[:, 0]) + X[:, 1] ** 2
BOX = np.asarray([[-1.0, -1.0], [1.0, 1.5]])
SMALL = {"n_screen": 256, "n_restarts": 6}


def draw(seed, n_paths=5, lengthscale=0.6, **options):
    kernel = Counted(pgp.Matern(2.5, 1.0, lengthscale))
    posterior = pgp.GPPrior(kernel=kernel, X=X).condition(Y, 0.01)
    return pgp.PathwiseSampler(posterior, 64, **options).sample_paths(jax.random.key(seed), n_paths)


@pytest.fixture(scope="module")
def paths():
    return draw(0)


@pytest.fixture(scope="module")
def found(paths):
    return optimise.minimise(paths, BOX, KEY, **SMALL)


class Bowls(eqx.Module):
    """b·x + ½ (x − c)ᵀ A (x − c), one for each centre c."""

    centres: Float[Array, "s d"]
    curvatures: Float[Array, "s d d"]
    slopes: Float[Array, "s d"]

    def __init__(self, centres, curvatures=None, slopes=None):
        s, d = np.shape(centres)
        curvatures = np.broadcast_to(np.eye(d) if curvatures is None else curvatures, (s, d, d))
        slopes = np.zeros((s, d)) if slopes is None else slopes
        self.centres, self.curvatures, self.slopes = (jnp.asarray(a, float) for a in (centres, curvatures, slopes))

    def __call__(self, X):
        off = X[None] - self.centres.reshape(-1, *(1,) * (X.ndim - 1), X.shape[-1])
        values = 0.5 * jnp.einsum("s...i,sij,s...j->s...", off, self.curvatures, off)
        return values + jnp.einsum("...i,si->s...", X, self.slopes)


@eqx.filter_jit
def value_and_gradient(function, sign, x):
    return jax.value_and_grad(lambda x: sign * function(x))(x)


def by_scipy(function, bounds, n_starts=20, sign=1.0):
    """The least of many descents from the best points of a dense design."""
    low, high = np.asarray(bounds)
    design = low + (high - low) * RNG.uniform(size=(2000, low.size))
    starts = design[np.argsort(sign * np.asarray(function(design)))[:n_starts]]
    both = lambda x: [np.asarray(part) for part in value_and_gradient(function, sign, x)]
    options = {"jac": True, "method": "L-BFGS-B", "bounds": list(zip(low, high, strict=True))}
    runs = [scipy.optimize.minimize(both, x, **options, options={"ftol": 1e-15, "gtol": 1e-9}) for x in starts]
    return min(runs, key=lambda run: run.fun)


def test_optima_of_paths_are_those_of_brute_force(paths, found):
    assert found.points.shape == (5, 2)
    assert found.values.shape == found.converged.shape == found.feasible.shape == (5,)
    assert found.converged.all()
    assert found.feasible.all()
    np.testing.assert_allclose(paths.paired(found.points), found.values, rtol=1e-12)
    for i in range(5):
        best = by_scipy(paths[i], BOX)
        np.testing.assert_allclose(found.values[i], best.fun, atol=1e-9)
        np.testing.assert_allclose(found.points[i], best.x, atol=1e-6)
    on_the_boundary = np.isin(found.points, BOX)
    assert on_the_boundary.any()
    assert not on_the_boundary.all()


def test_quadratic_functions_have_their_optima_in_and_on_the_box():
    centres = np.asarray([[0.3, -0.2], [2.0, 0.4], [0.1, -5.0], [3.0, 4.0], [-1.0, 0.5], [2.0, 0.4]])
    # In the last row coupled coordinates: what is free adapts to what is held.
    curvatures = [*[np.diag([1.0, 30.0])] * 5, [[2.0, 1.5], [1.5, 2.0]]]
    found = optimise.minimise(Bowls(centres, curvatures), BOX, KEY, **SMALL)
    points, expected = np.asarray(found.points), np.clip(centres, BOX[:1], BOX[1:])
    expected[5] = [1.0, 0.4 - 1.5 * (1 - 2.0) / 2.0]
    np.testing.assert_allclose(points, expected, atol=1e-8)
    # On the boundary to the last digit.
    outside = (centres < BOX[0]) | (centres > BOX[1])
    np.testing.assert_array_equal(points[outside], expected[outside])
    assert found.converged.all()
    # The corner of largest distance.
    far = optimise.maximise(Bowls(centres[:1]), BOX, KEY, **SMALL)
    np.testing.assert_array_equal(far.points, [[-1.0, 1.5]])
    np.testing.assert_allclose(far.values, 0.5 * (1.3**2 + 1.7**2), rtol=1e-14)


def rosenbrock(X):
    return jnp.sum(100 * (X[..., 1:] - X[..., :-1] ** 2) ** 2 + (1 - X[..., :-1]) ** 2, axis=-1)


def test_a_curved_valley_in_five_dimensions():
    box = np.stack([np.full(5, -2.0), np.full(5, 3.0)])
    found = optimise.minimise(rosenbrock, box, KEY, max_steps=500, **SMALL)
    assert found.converged
    np.testing.assert_allclose(found.points, np.ones(5), atol=1e-5)
    # With a bound in the way of it: scipy's value.
    box[1, 2] = 0.5
    found = optimise.minimise(rosenbrock, box, KEY, max_steps=500, **SMALL)
    np.testing.assert_allclose(found.values, by_scipy(jax.jit(rosenbrock), box).fun, rtol=1e-7)
    assert np.asarray(found.points)[2] == 0.5


def test_all_kinds_of_functions_have_the_same_optima(paths, found):
    own = draw(0, share_features=False)
    own = pgp.stack([own[:2], own[3:]])
    grid = np.stack(np.meshgrid(*np.linspace(*BOX, 60).T), axis=-1)
    least = np.asarray(own(grid)).min(axis=(2, 3))
    values = np.asarray(optimise.minimise(own, BOX, KEY, **SMALL).values)
    assert values.shape == (2, 2)
    assert (values <= least + 1e-9).all()
    assert (values > least - 0.02).all()
    # Of a function without `paired` all paths are evaluated at the points of each.
    for got, want in zip(optimise.minimise(lambda X: 1.0 * paths(X), BOX, KEY, **SMALL)[:2], found[:2], strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_maximise_and_candidates(paths):
    largest = optimise.maximise(paths, BOX, KEY, **SMALL)
    assert largest.converged.all()
    for i in (0, 3):
        np.testing.assert_allclose(largest.values[i], -by_scipy(paths[i], BOX, sign=-1.0).fun, atol=1e-9)
    # A hole that no design finds.
    hole = lambda X: -jnp.exp(-0.5 * jnp.sum(((X - 0.123) / 1e-4) ** 2, axis=-1))
    search = lambda *points: optimise.minimise(hole, BOX, KEY, candidates=np.asarray(points), **SMALL).values
    assert search([0.5, 0.5], [0.2, 0.2]) > -1e-3
    np.testing.assert_allclose(search([0.5, 0.5], [0.12302, 0.12298]), -1, rtol=1e-12)


def test_flags_say_when_it_has_not_converged():
    class Root(eqx.Module):
        """2 + a √(x − c) + a y²."""

        scale: Float[Array, ""]
        start: Float[Array, ""]

        def __call__(self, X):
            return 2 + self.scale * (jnp.sqrt(X[..., 0] - self.start) + X[..., 1] ** 2)

    search = lambda *numbers: optimise.minimise(Root(*(jnp.asarray(x, float) for x in numbers)), BOX, KEY, **SMALL)
    nothing = search(1.0, np.nan)
    assert np.isnan(nothing.values)
    assert not nothing.converged
    # Values that are undefined in a part of the box are gone around.
    root = search(1.0, 0.3)
    assert np.isfinite(root.values)
    assert np.asarray(root.points)[0] < 0.31
    flat = search(0.0, -2.0)
    assert flat.converged
    assert flat.values == 2
    box = np.stack([np.full(5, -2.0), np.full(5, 3.0)])
    assert not optimise.minimise(rosenbrock, box, KEY, max_steps=2, **SMALL).converged


def test_the_optimum_of_lines_is_at_an_end_with_the_right_probability():
    # f(x) = w x with a posterior w ~ N(m, v): the minimum is at the lower end where w > 0.
    x, y, noise = np.asarray([[0.5], [1.0]]), np.asarray([0.2, 0.3]), 0.4
    posterior = pgp.GPPrior(kernel=pgp.Linear(1.0), X=x, jitter=1e-12).condition(y, noise)
    paths = pgp.PathwiseSampler(posterior, 4).sample_paths(jax.random.key(1), 2000)
    found = optimise.minimise(paths, np.asarray([[-1.0], [1.0]]), KEY, n_screen=8, n_restarts=2)
    place, values = np.asarray(found.points), np.asarray(found.values)
    precision = 1 + np.sum(x**2) / noise
    mean = np.sum(x[:, 0] * y) / noise / precision
    law = scipy.stats.norm(mean, precision**-0.5)
    at_lower = place[:, 0] == -1
    assert (at_lower | (place[:, 0] == 1)).all()
    p = law.sf(0)
    assert abs(at_lower.mean() - p) < 4 * np.sqrt(p * (1 - p) / 2000)
    # The value is −|w|.
    expected = law.expect(lambda w: -abs(w))
    assert abs(values.mean() - expected) < 4 * values.std() / 2000**0.5
    ends = optimise.credible_intervals(found, 0.8)
    np.testing.assert_array_equal(ends[0][:, 0], [-1, 1])
    np.testing.assert_allclose(ends[1], np.quantile(values, [0.1, 0.9]), rtol=1e-12)
    some = found._replace(feasible=jnp.asarray(np.arange(2000) % 2 == 0))
    np.testing.assert_allclose(
        optimise.credible_intervals(some, 0.8)[1], np.quantile(values[::2], [0.1, 0.9]), rtol=1e-12
    )
    # A path that is NaN says nothing of the place either.
    values, place = values.copy(), place.copy()
    values[0], place[0] = np.nan, 100.0
    spoilt = some._replace(values=jnp.asarray(values), points=jnp.asarray(place))
    assert (np.asarray(optimise.credible_intervals(spoilt, 0.9999)[0]) <= BOX[1].max()).all()


def disc(X):
    return jnp.sum(X**2, axis=-1) - 0.64


def test_constraints_against_closed_forms():
    slopes = np.asarray([[1.0, 1.0], [1.0, 0.0], [-3.0, 1.0]])
    # The last is a bowl with its optimum inside of the disc: a constraint that does not bind changes nothing.
    line = Bowls(
        [*np.zeros((3, 2)), [0.1, 0.05]], np.asarray([0, 0, 0, 1])[:, None, None] * np.eye(2), [*slopes, [0.0, 0.0]]
    )
    found = optimise.minimise(line, BOX, KEY, constraints=disc, **SMALL)
    lengths = np.linalg.norm(slopes, axis=1)
    np.testing.assert_allclose(found.points[:3], -0.8 * slopes / lengths[:, None], atol=1e-6)
    np.testing.assert_allclose(found.values[:3], -0.8 * lengths, rtol=1e-7)
    np.testing.assert_allclose(found.points[3], [0.1, 0.05], atol=1e-7)
    assert found.converged.all()
    assert found.feasible.all()
    # Two constraints, of which one is slack, and each path with a right-hand side of its own; the last has no solution.
    sides = jnp.asarray([0.5, 0.1, -5.0])
    at_least = lambda X: -X[None, :, 0] - X[None, :, 1] - sides[:, None]  # x + y ≥ −side
    sums = lambda X: jnp.broadcast_to(X[:, 0] + X[:, 1], (3, X.shape[0]))
    found = optimise.minimise(sums, BOX, KEY, constraints=(disc, at_least), **SMALL)
    np.testing.assert_allclose(found.values[:2], [-0.5, -0.1], rtol=1e-6)
    np.testing.assert_array_equal(found.feasible, [True, True, False])
    np.testing.assert_array_equal(found.converged, [True, True, False])


def test_constraints_that_are_paths_and_other_values_that_compile_nothing_anew(paths):
    others = draw(7)
    search = lambda paths, others, box, tolerance: optimise.minimise(
        paths, box, KEY, constraints=others, tolerance=tolerance, **SMALL
    )
    found = search(paths, others, BOX, 1e-7)
    more = draw(8, lengthscale=0.5), draw(9, lengthscale=0.5)
    CALLS.clear()
    search(*more, BOX + 1, 1.1e-7)
    assert not CALLS
    axis = [np.linspace(low, high, 300) for low, high in BOX.T]
    grid = np.stack(np.meshgrid(*axis), axis=-1).reshape(-1, 2)
    f, g = np.asarray(paths(grid)), np.asarray(others(grid))
    best = np.where(g <= 0, f, np.inf).min(axis=1)
    kept, values = np.asarray(found.feasible), np.asarray(found.values)
    np.testing.assert_array_equal(kept, np.isfinite(best))
    assert kept.sum() >= 3
    # Not above the best of the grid, and below it by no more than its spacing allows.
    assert (values[kept] <= best[kept] + 1e-6).all()
    assert (values[kept] >= best[kept] - 0.03).all()
    excess = np.asarray(others.paired(found.points))[kept]
    assert (excess <= 1e-6).all()
    assert (np.abs(excess) < 1e-6).any()


LIST = np.random.default_rng(2).uniform([-1, -1], [1, 1.5], (300, 2))


@pytest.mark.parametrize("maximise", [False, True])
def test_the_best_of_a_list_is_that_of_all_values(paths, maximise, monkeypatch):
    monkeypatch.setattr(finite, "_VALUES", 5 * 128)  # in three blocks, which overlap
    f, held = np.asarray(paths(LIST)), draw(7)
    g, sign = np.asarray(held(LIST)), -1 if maximise else 1
    search = optimise.maximise_over if maximise else optimise.minimise_over
    found = search(paths, LIST)
    np.testing.assert_array_equal(found.indices, np.argmin(sign * f, axis=1))
    np.testing.assert_array_equal(found.points, LIST[np.asarray(found.indices)])
    np.testing.assert_allclose(found.values, (sign * f).min(axis=1) * sign, rtol=1e-12)
    assert found.converged.all()
    assert found.feasible.all()
    # Under constraints of each path, and one that is known.
    right = lambda X: 0.2 - X[..., 0]
    both = search(paths, choices=LIST, constraints=(held, right))
    allowed = (g <= 0) & (LIST[:, 0] >= 0.2)
    kept = np.asarray(both.feasible)
    np.testing.assert_array_equal(kept, allowed.any(axis=1))
    assert kept.sum() >= 2
    best = np.argmin(np.where(allowed, sign * f, np.inf), axis=1)
    np.testing.assert_array_equal(np.asarray(both.indices)[kept], best[kept])
    if maximise:
        return
    # Where nothing is allowed, what exceeds least in units of the range.
    none = search(paths, LIST, constraints=(lambda X: 3.0 + X[..., 1] ** 2, lambda X: 100.0 + 0 * X[..., 0]))
    assert not none.feasible.any()
    np.testing.assert_array_equal(none.indices, np.argmin(f, axis=1))  # the second, whose range is none
    least = search(paths, LIST, constraints=lambda X: 3.0 + X[..., 1] ** 2)
    np.testing.assert_array_equal(least.indices, np.full(5, np.argmin(LIST[:, 1] ** 2)))


def test_the_best_of_a_list_of_other_functions(paths, found):
    # Of two that are as good the first; what is NaN comes last, and a path that is one path is a scalar.
    steps = lambda X: jnp.where(X[..., 0] < 0, jnp.nan, jnp.ceil(X[..., 0]))
    one = optimise.minimise_over(steps, np.asarray([[-1.0], [2.0], [0.5], [0.7]]))
    assert (one.indices, one.values, one.converged) == (2, 1.0, True)
    assert one.points.shape == (1,)
    assert not optimise.minimise_over(steps, np.asarray([[-1.0], [-2.0], [-3.0], [-4.0]])).converged
    stacked = optimise.minimise_over(pgp.stack([paths, draw(1)]), LIST)
    assert stacked.indices.shape == (2, 5)

    @jax.jit
    @jax.value_and_grad
    def total(a):
        return jnp.sum(optimise.minimise_over(lambda X: a * paths(X), LIST).values)

    np.testing.assert_allclose(total(1.0), [np.sum(stacked.values[0])] * 2, rtol=1e-10)
    points = np.asarray(found.points)
    ends = optimise.credible_intervals(optimise.minimise_over(paths, np.concatenate([LIST, points])), 0.999)[0]
    np.testing.assert_allclose(ends, [points.min(axis=0), points.max(axis=0)], atol=0.01)


def test_what_a_function_closes_over_has_the_same_derivative():
    @jax.jit
    @jax.value_and_grad
    def value(theta):
        function = lambda X: jnp.sum((X - theta) ** 2, axis=-1) + theta**2
        return optimise.minimise(function, BOX, KEY, **SMALL).values

    np.testing.assert_allclose(value(0.3), (0.09, 0.6), atol=1e-9)

    # The constraint x ≥ θ of an objective that has no θ: by its multiplier.
    @jax.jit
    @jax.grad
    def held(theta):
        function = lambda X: jnp.sum(X**2, axis=-1)
        return optimise.minimise(function, BOX, KEY, constraints=lambda X: theta - X[..., 0], **SMALL).values

    np.testing.assert_allclose(held(0.3), 0.6, rtol=1e-5)


def test_many_points_with_little_noise_converge():
    rng = np.random.default_rng(4)
    X = rng.uniform(-1, 1, (500, 2))
    posterior = pgp.GPPrior(kernel=pgp.Matern(2.5, 1.0, 0.5), X=X).condition(np.sin(3 * X).sum(1), 1e-5)
    paths = pgp.PathwiseSampler(posterior, 128).sample_paths(KEY, 8)
    found = optimise.minimise(paths, BOX, KEY, **SMALL)
    assert found.converged.all()


def test_one_of_several_outputs_is_searched():
    kernel = pgp.Coregionalised(pgp.RBF(1.0, 0.7), np.ones((3, 1)), np.ones(3))
    prior = pgp.GPPrior(kernel=kernel, X=pgp.AllOutputs(X, 3), mean=pgp.OutputMeans([0.5, -1.0, 2.0]))
    posterior = prior.condition(np.stack([Y, -Y, Y**2], axis=1), 0.05)
    outputs = pgp.PathwiseSampler(posterior, 128).sample_paths(KEY, 4).outputs
    values, means = np.asarray(outputs(X)), np.asarray(outputs.mean_path(X))
    each = [outputs.output(q) for q in range(2)]
    for q, one in enumerate(each):
        np.testing.assert_allclose(one(X), values[..., q], rtol=1e-12)
        np.testing.assert_allclose(one.mean_path(X), means[..., q], rtol=1e-12)
    found = optimise.minimise(each[0], BOX, KEY, constraints=each[1], **SMALL)
    there = np.asarray(outputs.paired(found.points))
    np.testing.assert_allclose(there[:, 0], found.values, rtol=1e-10)
    assert (there[:, 1] < 1e-5).all()
    with pytest.raises(ValueError, match=r"`paths\.output\(0\)`"):
        optimise.minimise(outputs, BOX, KEY, **SMALL)
    with pytest.raises(IndexError, match="Output 3 was asked for, but there are 3"):
        outputs.output(3)


def test_bounds_are_checked_at_run_time_too():
    run = eqx.filter_jit(lambda bounds: optimise.minimise(disc, bounds, KEY, **SMALL).values)
    with pytest.raises(Exception, match="its lower row below its upper row"):
        run(BOX[::-1]).block_until_ready()


@pytest.mark.parametrize("constrained", [False, True])
def test_derivatives_of_the_value_follow_from_the_envelope_theorem(paths, found, constrained):
    trees = (paths, draw(7)) if constrained else (paths,)
    start = optimise.minimise(paths, BOX, KEY, constraints=trees[1:], tolerance=1e-7, **SMALL) if constrained else found
    kept, candidates = np.asarray(start.converged), np.asarray(start.points)
    assert kept.sum() >= 2
    arrays, rest = eqx.partition(trees, eqx.is_inexact_array)
    rng = np.random.default_rng(1)
    direction = jax.tree.map(lambda leaf: 0.1 * np.abs(leaf).max() * rng.normal(size=leaf.shape), arrays)

    @jax.jit
    @jax.value_and_grad
    def total(step):
        moved = jax.tree.map(lambda leaf, by: leaf + step * by, arrays, direction)
        f, *g = eqx.combine(moved, rest)
        options = {"n_screen": 8, "n_restarts": 6, "tolerance": 1e-10, "constraints": tuple(g)}
        best = optimise.minimise(f, BOX, KEY, candidates=candidates, **options)
        # Points have no derivatives.
        still = jnp.sum(best.points) - jax.lax.stop_gradient(jnp.sum(best.points))
        return jnp.sum(jnp.where(kept, best.values, 0)) + still

    slope, h = total(0.0)[1], 3e-5
    np.testing.assert_allclose(slope, (total(h)[0] - total(-h)[0]) / (2 * h), rtol=2e-5)
    assert abs(slope) > 1e-3


def test_a_bar_shows_the_steps(paths, capsys):
    shown = optimise.minimise(Bowls(X[:5]), BOX, KEY, progress=True, **SMALL)
    jax.effects_barrier()
    assert "0 of 30 searches going on" in capsys.readouterr().err
    np.testing.assert_allclose(shown.points, X[:5], atol=1e-8)
    one = optimise.minimise(paths[0], BOX, KEY, constraints=lambda X: X[..., 0], progress=True, **SMALL)
    jax.effects_barrier()
    assert "6 of 6 searches solved" in capsys.readouterr().err
    assert one.values.shape == one.feasible.shape == ()
    assert one.feasible
    np.testing.assert_allclose(paths[0](one.points), one.values, rtol=1e-12)


def test_in_single_precision_and_under_jit_and_vmap(paths, found):
    single = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float32)), paths)
    got = optimise.minimise(single, BOX, KEY, **SMALL)
    assert {got.points.dtype, got.values.dtype} == {jnp.dtype("float32")}
    assert got.converged.all()
    np.testing.assert_allclose(got.values, found.values, atol=2e-4)
    boxes, centres = np.stack([BOX, BOX / 2]), X[:2]
    search = lambda box: optimise.minimise(Bowls(centres), box, KEY, **SMALL).points
    both = eqx.filter_jit(eqx.filter_vmap(search))(jnp.asarray(boxes))
    np.testing.assert_allclose(both, np.clip(centres[None], boxes[:, :1], boxes[:, 1:]), atol=1e-8)


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((3, BOX), {}, "`paths` must be a function .* got int"),
        ((lambda X: X, BOX), {}, r"`paths` must map inputs of shape \(n, 2\) to real values of shape \(\*s, n\)"),
        ((disc, BOX[0]), {}, r"`bounds` must have shape \(2, d\)"),
        ((disc, BOX[::-1]), {}, "its lower row below its upper row"),
        ((disc, BOX * np.inf), {}, "`bounds` must be finite"),
        ((draw(0), np.asarray([np.zeros(3), np.ones(3)])), {}, "must be the input dimension, 2"),
        ((disc, BOX), {"n_screen": 0}, "`n_screen` must be at least 1"),
        ((disc, BOX), {"n_restarts": 9, "n_screen": 8}, "`n_restarts` must be at most `n_screen`, 8; got 9"),
        ((disc, BOX), {"max_steps": 0}, "`max_steps` must be at least 1"),
        ((disc, BOX), {"tolerance": 0.0}, "`tolerance` must be positive"),
        ((disc, BOX), {"constraints": draw(0)}, r"`constraints` must have the axes of `paths`, \(\), or none"),
        ((disc, BOX), {"constraints": [3]}, "`constraints` must be a function"),
        ((disc, BOX), {"candidates": np.ones((3, 1))}, "The last axis of `candidates`"),
    ],
)
def test_minimise_refuses(arguments, options, words):
    with pytest.raises(ValueError, match=words):
        optimise.minimise(*arguments, KEY, **options)


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize(
    ("choices", "options", "words"),
    [
        (np.zeros(3), {}, r"`choices` must have shape \(n, d\)"),
        (np.zeros((0, 2)), {}, "`choices` must hold at least one point"),
        (np.full((3, 2), np.nan), {}, "`choices` must be finite"),
        (np.zeros((3, 2)), {"constraints": 3}, "`constraints` must be a function"),
        (np.zeros((3, 2)), {"constraints": draw(0)}, r"`constraints` must have the axes of `paths`, \(\), or none"),
    ],
)
def test_lists_are_checked(choices, options, words):
    with pytest.raises(ValueError, match=words):
        optimise.minimise_over(disc, choices, **options)


@pytest.mark.usefixtures("no_hook")
def test_intervals_refuse(found):
    with pytest.raises(ValueError, match="`probability` must be a number between 0 and 1"):
        optimise.credible_intervals(found, 1.0)
    with pytest.raises(ValueError, match="`optimum` must be of several paths"):
        optimise.credible_intervals(jax.tree.map(lambda a: jnp.asarray(np.asarray(a)[0]), found))
    none = found._replace(feasible=jnp.asarray(np.zeros(5, bool)))
    with pytest.raises(ValueError, match="`optimum` must have a path with a feasible and finite optimum"):
        optimise.credible_intervals(none)
    with pytest.raises(TypeError, match="n_start"):
        optimise.maximise(disc, BOX, KEY, n_start=3)
