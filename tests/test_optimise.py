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
BOX = jnp.asarray([[-1.0, -1.0], [1.0, 1.5]])
SMALL = {"n_screen": 256, "n_restarts": 6}


def draw(seed, n_paths=5, lengthscale=0.6, dtype=jnp.float64, noise=0.01, kernel=lambda k: k, **options):
    kernel = kernel(pgp.Matern(2.5, jnp.asarray(1.0, dtype), jnp.asarray(lengthscale, dtype)))
    posterior = pgp.GPPrior(kernel=kernel, X=jnp.asarray(X, dtype)).condition(jnp.asarray(Y, dtype), noise)
    return pgp.PathwiseSampler(posterior, 64, **options).sample_paths(jax.random.key(seed), n_paths)


@pytest.fixture(scope="module")
def paths():
    return draw(0)


@pytest.fixture(scope="module")
def found(paths):
    return optimise.minimise(paths, BOX, KEY, **SMALL)


class Bowls(eqx.Module):
    """½ (x − c)ᵀ A (x − c), one for each centre c."""

    centres: Float[Array, "s d"]
    curvature: Float[Array, "d d"]

    def __call__(self, X):
        off = X[None] - self.centres.reshape(-1, *(1,) * (X.ndim - 1), X.shape[-1])
        return 0.5 * jnp.einsum("...i,ij,...j", off, self.curvature, off)


def by_scipy(path, bounds, n_starts=20):
    """The least of many descents from the best points of a dense design."""
    low, high = np.asarray(bounds)
    design = low + (high - low) * RNG.uniform(size=(2000, low.size))
    starts = design[np.argsort(path(design))[:n_starts]]
    value_and_grad = jax.jit(jax.value_and_grad(path))
    function = lambda x: [np.asarray(part) for part in value_and_grad(x)]
    options = {"jac": True, "method": "L-BFGS-B", "bounds": list(zip(low, high, strict=True))}
    runs = [scipy.optimize.minimize(function, x, **options, options={"ftol": 1e-15, "gtol": 1e-9}) for x in starts]
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
    centres = jnp.asarray([[0.3, -0.2], [2.0, 0.4], [0.1, -5.0], [3.0, 4.0], [-1.0, 0.5]])
    separable = optimise.minimise(Bowls(centres, jnp.diag(jnp.asarray([1.0, 30.0]))), BOX, KEY, **SMALL)
    expected = jnp.clip(centres, BOX[:1], BOX[1:])
    np.testing.assert_allclose(separable.points, expected, atol=1e-8)
    # On the boundary to the last digit.
    outside = np.asarray(expected != centres)
    np.testing.assert_array_equal(np.asarray(separable.points)[outside], np.asarray(expected)[outside])
    assert separable.converged.all()
    # Coupled coordinates: what is free adapts to what is held.
    A = jnp.asarray([[2.0, 1.5], [1.5, 2.0]])
    coupled = optimise.minimise(Bowls(centres[1:2], A), BOX, KEY, **SMALL)
    np.testing.assert_allclose(coupled.points[0], [1.0, 0.4 - 1.5 * (1 - 2.0) / 2.0], atol=1e-8)
    # The corner of largest distance.
    far = optimise.maximise(Bowls(centres[:1], jnp.eye(2)), BOX, KEY, **SMALL)
    np.testing.assert_array_equal(far.points[0], [-1.0, 1.5])
    np.testing.assert_allclose(far.values[0], 0.5 * (1.3**2 + 1.7**2), rtol=1e-14)


def test_a_curved_valley_in_five_dimensions():
    def rosenbrock(X):
        return jnp.sum(100 * (X[..., 1:] - X[..., :-1] ** 2) ** 2 + (1 - X[..., :-1]) ** 2, axis=-1)

    box = jnp.stack([jnp.full(5, -2.0), jnp.full(5, 3.0)])
    found = optimise.minimise(rosenbrock, box, KEY, max_steps=500, **SMALL)
    assert found.converged
    np.testing.assert_allclose(found.points, 1, atol=1e-5)
    # With a bound in the way of it: scipy's value.
    box = box.at[1, 2].set(0.5)
    found = optimise.minimise(rosenbrock, box, KEY, max_steps=500, **SMALL)
    np.testing.assert_allclose(found.values, by_scipy(lambda x: rosenbrock(jnp.asarray(x)), box).fun, rtol=1e-7)
    assert found.points[2] == 0.5


def test_all_kinds_of_functions_have_the_same_optima(paths, found):
    close = lambda got, want: [np.testing.assert_allclose(g, w, atol=1e-6) for g, w in zip(got, want, strict=True)]
    one = optimise.minimise(paths[2], BOX, KEY, **SMALL)
    assert one.values.shape == ()
    close(one[:2], [part[2] for part in found[:2]])
    own = draw(0, share_features=False)
    own = pgp.stack([own[:2], own[3:]])
    grid = np.stack(np.meshgrid(*np.linspace(*np.asarray(BOX), 60).T), axis=-1)
    least = np.asarray(own(grid)).min(axis=(2, 3))
    values = optimise.minimise(own, BOX, KEY, **SMALL).values
    assert values.shape == (2, 2)
    assert (values <= least + 1e-9).all()
    assert (values > least - 0.02).all()
    # Of a function without `paired` all paths are evaluated at the points of each.
    close(optimise.minimise(lambda X: 1.0 * paths(X), BOX, KEY, **SMALL)[:2], found[:2])
    other = draw(1)
    leaves = jax.tree.map(lambda *leaf: jnp.stack(leaf), *(eqx.filter(p, eqx.is_array) for p in (paths, other)))
    ensemble = pgp.PathEnsemble(leaves, eqx.filter(paths, eqx.is_array, inverse=True))
    of_both = [jnp.stack(parts) for parts in zip(found, optimise.minimise(other, BOX, KEY, **SMALL), strict=True)]
    close(optimise.minimise(ensemble, BOX, KEY, **SMALL)[:2], of_both[:2])


def test_maximise_and_candidates(paths):
    largest = optimise.maximise(paths, BOX, KEY, **SMALL)
    assert largest.converged.all()
    for i in (0, 3):
        best = by_scipy(lambda x: -paths[i](x), BOX)
        np.testing.assert_allclose(largest.values[i], -best.fun, atol=1e-9)
    # A hole that no design finds.
    hole = lambda X: -jnp.exp(-0.5 * jnp.sum(((X - 0.123) / 1e-4) ** 2, axis=-1))
    assert optimise.minimise(hole, BOX, KEY, **SMALL).values > -1e-3
    near = jnp.asarray([[0.5, 0.5], [0.12302, 0.12298]])
    found = optimise.minimise(hole, BOX, KEY, candidates=near, **SMALL)
    np.testing.assert_allclose(found.values, -1, rtol=1e-12)


def test_flags_say_when_it_has_not_converged(paths):
    assert not optimise.minimise(paths, BOX, KEY, max_steps=2, **SMALL).converged.any()
    nothing = optimise.minimise(lambda X: X[..., 0] * jnp.nan, BOX, KEY, **SMALL)
    assert np.isnan(nothing.values)
    assert not nothing.converged
    # Values that are undefined in a part of the box are gone around.
    root = optimise.minimise(lambda X: jnp.sqrt(X[..., 0] - 0.3) + X[..., 1] ** 2, BOX, KEY, **SMALL)
    assert np.isfinite(root.values)
    assert root.points[0] < 0.31
    flat = optimise.minimise(lambda X: 0 * X[..., 0] + 2.0, BOX, KEY, **SMALL)
    assert flat.converged
    assert flat.values == 2


def test_the_optimum_of_lines_is_at_an_end_with_the_right_probability():
    # f(x) = w x with a posterior w ~ N(m, v): the minimum is at the lower end where w > 0.
    x, y, noise = jnp.asarray([[0.5], [1.0]]), jnp.asarray([0.2, 0.3]), 0.4
    posterior = pgp.GPPrior(kernel=pgp.Linear(1.0), X=x, jitter=1e-12).condition(y, noise)
    paths = pgp.PathwiseSampler(posterior, 4).sample_paths(jax.random.key(1), 2000)
    found = optimise.minimise(paths, jnp.asarray([[-1.0], [1.0]]), KEY, n_screen=8, n_restarts=2)
    precision = 1 + float(jnp.sum(x**2)) / noise
    mean = float(jnp.sum(x[:, 0] * y)) / noise / precision
    law = scipy.stats.norm(mean, precision**-0.5)
    at_lower = np.asarray(found.points[:, 0] == -1)
    assert (at_lower | np.asarray(found.points[:, 0] == 1)).all()
    p = law.sf(0)
    assert abs(at_lower.mean() - p) < 4 * np.sqrt(p * (1 - p) / 2000)
    # The value is −|w|.
    expected = law.expect(lambda w: -abs(w))
    assert abs(found.values.mean() - expected) < 4 * found.values.std() / 2000**0.5
    points, values = optimise.credible_intervals(found, 0.8)
    np.testing.assert_array_equal(points[:, 0], [-1, 1])
    np.testing.assert_allclose(values, np.quantile(found.values, [0.1, 0.9]), rtol=1e-12)
    some = found._replace(feasible=jnp.arange(2000) % 2 == 0)
    np.testing.assert_allclose(
        optimise.credible_intervals(some, 0.8)[1], np.quantile(found.values[::2], [0.1, 0.9]), rtol=1e-12
    )
    # A path that is NaN says nothing of the place either.
    spoilt = some._replace(values=found.values.at[0].set(jnp.nan), points=found.points.at[0].set(100.0))
    assert (optimise.credible_intervals(spoilt, 0.9999)[0] <= BOX[1].max()).all()


def disc(X):
    return jnp.sum(X**2, axis=-1) - 0.64


def test_constraints_against_closed_forms():
    slopes = jnp.asarray([[1.0, 1.0], [1.0, 0.0], [-3.0, 1.0]])
    line = lambda X: jnp.einsum("sd,nd->sn", slopes, X)
    found = optimise.minimise(line, BOX, KEY, constraints=disc, **SMALL)
    expected = -0.8 * slopes / jnp.linalg.norm(slopes, axis=1, keepdims=True)
    np.testing.assert_allclose(found.points, expected, atol=1e-6)
    np.testing.assert_allclose(found.values, -0.8 * jnp.linalg.norm(slopes, axis=1), rtol=1e-7)
    assert found.converged.all()
    assert found.feasible.all()
    # Two constraints, of which one is slack, and each path with a right-hand side of its own; the last has no solution.
    sides = jnp.asarray([0.5, 0.1, -5.0])
    at_least = lambda X: -X[None, :, 0] - X[None, :, 1] - sides[:, None]  # x + y ≥ −side
    found = optimise.minimise(lambda X: line(X)[:1].repeat(3, 0), BOX, KEY, constraints=(disc, at_least), **SMALL)
    np.testing.assert_allclose(found.values[:2], [-0.5, -0.1], rtol=1e-6)
    np.testing.assert_array_equal(found.feasible, [True, True, False])
    np.testing.assert_array_equal(found.converged, [True, True, False])
    # A constraint that does not bind changes nothing.
    free = optimise.minimise(Bowls(slopes[:2] / 10, jnp.eye(2)), BOX, KEY, constraints=disc, **SMALL)
    np.testing.assert_allclose(free.points, slopes[:2] / 10, atol=1e-7)


def test_constraints_that_are_paths(paths):
    others = draw(7)
    found = optimise.minimise(paths, BOX, KEY, constraints=others, **SMALL)
    axis = [np.linspace(low, high, 300) for low, high in np.asarray(BOX).T]
    grid = np.stack(np.meshgrid(*axis), axis=-1).reshape(-1, 2)
    f, g = np.asarray(paths(grid)), np.asarray(others(grid))
    best = np.where(g <= 0, f, np.inf).min(axis=1)
    np.testing.assert_array_equal(found.feasible, np.isfinite(best))
    assert found.feasible.sum() >= 3
    kept = np.asarray(found.feasible)
    # Not above the best of the grid, and below it by no more than its spacing allows.
    assert (found.values[kept] <= best[kept] + 1e-6).all()
    assert (found.values[kept] >= best[kept] - 0.03).all()
    assert (others.paired(found.points)[kept] <= 1e-6).all()
    assert (np.abs(others.paired(found.points)[kept]) < 1e-6).any()


LIST = jnp.asarray(np.random.default_rng(2).uniform([-1, -1], [1, 1.5], (300, 2)))


@pytest.mark.parametrize("maximise", [False, True])
def test_the_best_of_a_list_is_that_of_all_values(paths, maximise, monkeypatch):
    monkeypatch.setattr(finite, "_VALUES", 5 * 128)  # in three blocks, which overlap
    f, held = np.asarray(paths(LIST)), draw(7)
    g, sign = np.asarray(held(LIST)), -1 if maximise else 1
    search = optimise.maximise_over if maximise else optimise.minimise_over
    found = search(paths, LIST)
    np.testing.assert_array_equal(found.indices, np.argmin(sign * f, axis=1))
    np.testing.assert_array_equal(found.points, LIST[found.indices])
    np.testing.assert_allclose(found.values, (sign * f).min(axis=1) * sign, rtol=1e-12)
    assert found.converged.all()
    assert found.feasible.all()
    # Under constraints of each path, and one that is known.
    right = lambda X: 0.2 - X[..., 0]
    both = search(paths, choices=LIST, constraints=(held, right))
    allowed = (g <= 0) & (np.asarray(LIST)[:, 0] >= 0.2)
    np.testing.assert_array_equal(both.feasible, allowed.any(axis=1))
    kept = np.asarray(both.feasible)
    assert kept.sum() >= 2
    best = np.argmin(np.where(allowed, sign * f, np.inf), axis=1)
    np.testing.assert_array_equal(both.indices[kept], best[kept])
    # Where nothing is allowed, what exceeds least in units of the range.
    none = search(paths, LIST, constraints=(lambda X: 3.0 + X[..., 1] ** 2, lambda X: 100.0 + 0 * X[..., 0]))
    assert not none.feasible.any()
    np.testing.assert_array_equal(none.indices, np.argmin(sign * f, axis=1))  # the second, whose range is none
    least = search(paths, LIST, constraints=lambda X: 3.0 + X[..., 1] ** 2)
    np.testing.assert_array_equal(least.indices, np.argmin(np.asarray(LIST)[:, 1] ** 2))


def test_the_best_of_a_list_of_other_functions(paths, found):
    # Of two that are as good the first; what is NaN comes last, and a path that is one path is a scalar.
    steps = lambda X: jnp.where(X[..., 0] < 0, jnp.nan, jnp.ceil(X[..., 0]))
    one = optimise.minimise_over(steps, jnp.asarray([[-1.0], [2.0], [0.5], [0.7]]))
    assert (one.indices, one.values, one.converged) == (2, 1.0, True)
    assert one.points.shape == (1,)
    nothing = optimise.minimise_over(steps, jnp.asarray([[-1.0], [-2.0]]))
    assert not nothing.converged
    stacked = optimise.minimise_over(pgp.stack([paths, draw(1)]), LIST)
    assert stacked.indices.shape == (2, 5)
    np.testing.assert_array_equal(stacked.points[0], optimise.minimise_over(lambda X: 1.0 * paths(X), LIST).points)
    slope = jax.grad(lambda a: jnp.sum(optimise.minimise_over(lambda X: a * paths(X), LIST).values))(1.0)
    np.testing.assert_allclose(slope, jnp.sum(stacked.values[0]), rtol=1e-10)
    ends = optimise.credible_intervals(optimise.minimise_over(paths, jnp.concatenate([LIST, found.points])), 0.999)[0]
    np.testing.assert_allclose(ends, [found.points.min(axis=0), found.points.max(axis=0)], atol=0.01)


def shifted(paths, direction, step):
    return jax.tree.map(lambda leaf, by: leaf + step * by, paths, direction)


def test_what_a_function_closes_over_has_the_same_derivative():
    def value(theta, constraints=()):
        function = lambda X: jnp.sum((X - theta) ** 2, axis=-1) + theta**2
        return optimise.minimise(function, BOX, KEY, constraints=constraints, **SMALL).values

    np.testing.assert_allclose(jax.value_and_grad(value)(0.3), (0.09, 0.6), atol=1e-9)
    # The constraint x ≥ θ of an objective that has no θ: by its multiplier.
    held = lambda theta: optimise.minimise(
        lambda X: jnp.sum(X**2, axis=-1), BOX, KEY, constraints=lambda X: theta - X[..., 0], **SMALL
    )
    np.testing.assert_allclose(jax.grad(lambda theta: held(theta).values)(0.3), 0.6, rtol=1e-5)


def test_many_points_with_little_noise_converge():
    rng = np.random.default_rng(4)
    X = rng.uniform(-1, 1, (500, 2))
    posterior = pgp.GPPrior(kernel=pgp.Matern(2.5, 1.0, 0.5), X=X).condition(np.sin(3 * X).sum(1), 1e-5)
    paths = pgp.PathwiseSampler(posterior, 128).sample_paths(KEY, 8)
    found = optimise.minimise(paths, BOX, KEY, **SMALL)
    assert found.converged.all()


def test_one_of_several_outputs_is_searched():
    kernel = pgp.Coregionalised(pgp.RBF(1.0, 0.7), np.ones((3, 1)), np.ones(3))
    posterior = pgp.MultiOutputGPPrior(kernel=kernel, X=X, mean=np.asarray([0.5, -1.0, 2.0])).condition(
        np.stack([Y, -Y, Y**2], axis=1), 0.05
    )
    outputs = pgp.MultiOutputPathwiseSampler(posterior, 32).sample_paths(KEY, 4)
    for q in range(3):
        np.testing.assert_allclose(outputs.output(q)(X), outputs(X)[..., q], rtol=1e-12)
        np.testing.assert_allclose(outputs.output(q).mean_path(X), outputs.mean_path(X)[..., q], rtol=1e-12)
    found = optimise.minimise(outputs.output(0), BOX, KEY, constraints=outputs.output(1), **SMALL)
    np.testing.assert_allclose(outputs.paired(found.points)[:, 0], found.values, rtol=1e-10)
    assert (outputs.paired(found.points)[:, 1] < 1e-5).all()
    with pytest.raises(ValueError, match=r"`paths\.output\(0\)`"):
        optimise.minimise(outputs, BOX, KEY, **SMALL)
    with pytest.raises(IndexError, match="Output 3 was asked for, but there are 3"):
        outputs.output(3)


def test_bounds_are_checked_at_run_time_too(paths):
    run = eqx.filter_jit(lambda bounds: optimise.minimise(paths, bounds, KEY, **SMALL).values)
    with pytest.raises(Exception, match="its lower row below its upper row"):
        run(BOX[::-1]).block_until_ready()


@pytest.mark.parametrize("constrained", [False, True])
def test_derivatives_of_the_value_follow_from_the_envelope_theorem(paths, constrained):
    trees = (paths[:3], draw(7)[:3]) if constrained else (paths[:3],)
    arrays, rest = eqx.partition(trees, eqx.is_inexact_array)
    rng = np.random.default_rng(1)
    direction = jax.tree.map(lambda leaf: 0.1 * jnp.abs(leaf).max() * jnp.asarray(rng.normal(size=leaf.shape)), arrays)
    start = optimise.minimise(trees[0], BOX, KEY, constraints=trees[1:], **SMALL)
    kept = np.asarray(start.converged)
    assert kept.sum() >= 2

    def search(arrays):
        f, *g = eqx.combine(arrays, rest)
        options = {"n_screen": 8, "n_restarts": 6, "tolerance": 1e-10}
        return optimise.minimise(f, BOX, KEY, constraints=tuple(g), candidates=start.points, **options)

    def total(arrays):
        best = search(arrays)  # whose points have no derivatives
        return (
            jnp.sum(jnp.where(kept, best.values, 0))
            + jnp.sum(best.points)
            - jax.lax.stop_gradient(jnp.sum(best.points))
        )

    gradient = eqx.filter_grad(total)(arrays)
    slope = sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
    h = 3e-5
    ends = [total(shifted(arrays, direction, sign * h)) for sign in (1, -1)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * h), rtol=2e-5)
    assert abs(slope) > 1e-3


def test_other_values_compile_nothing_anew():
    run = lambda seed: optimise.minimise(
        draw(seed, 2, 0.5 + 0.1 * seed, kernel=Counted),
        BOX + seed,
        jax.random.key(seed),
        tolerance=1e-6 + 1e-7 * seed,
        constraints=draw(seed + 5, 2, kernel=Counted),
        **SMALL,
    )
    run(0)
    CALLS.clear()
    run(1)
    assert not CALLS


def test_a_bar_shows_the_steps(paths, found, capsys):
    shown = optimise.minimise(paths, BOX, KEY, progress=True, **SMALL)
    jax.effects_barrier()
    assert "0 of 30 searches going on" in capsys.readouterr().err
    np.testing.assert_allclose(shown.points, found.points, atol=1e-8)  # another program
    optimise.minimise(paths[0], BOX, KEY, constraints=lambda X: X[..., 0], progress=True, **SMALL)
    jax.effects_barrier()
    assert "6 of 6 searches solved" in capsys.readouterr().err


def test_in_single_precision_and_under_jit_and_vmap():
    single = draw(0, dtype=jnp.float32)
    got = optimise.minimise(single, np.asarray(BOX), KEY, **SMALL)
    assert {got.points.dtype, got.values.dtype} == {jnp.dtype("float32")}
    assert got.converged.all()
    high = jax.tree.map(lambda leaf: leaf.astype(float), single)
    near = optimise.minimise(high, BOX, KEY, candidates=got.points, **SMALL)
    np.testing.assert_allclose(got.values, near.values, atol=2e-4)
    boxes = jnp.stack([BOX, BOX / 2])
    centres = jnp.asarray(X[:2])
    search = lambda box: optimise.minimise(Bowls(centres, jnp.eye(2)), box, KEY, **SMALL).points
    both = eqx.filter_jit(eqx.filter_vmap(search))(boxes)
    np.testing.assert_allclose(both, jnp.clip(centres[None], boxes[:, :1], boxes[:, 1:]), atol=1e-8)


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((3, BOX), {}, "`paths` must be a function .* got int"),
        ((lambda X: X, BOX), {}, r"`paths` must map inputs of shape \(n, 2\) to real values of shape \(\*s, n\)"),
        ((disc, BOX[0]), {}, r"`bounds` must have shape \(2, d\)"),
        ((disc, BOX[::-1]), {}, "its lower row below its upper row"),
        ((disc, BOX * jnp.inf), {}, "`bounds` must be finite"),
        ((draw(0), jnp.zeros((2, 3)).at[1].set(1)), {}, "must be the input dimension, 2"),
        ((disc, BOX), {"n_screen": 0}, "`n_screen` must be at least 1"),
        ((disc, BOX), {"n_restarts": 9, "n_screen": 8}, "`n_restarts` must be at most `n_screen`, 8; got 9"),
        ((disc, BOX), {"max_steps": 0}, "`max_steps` must be at least 1"),
        ((disc, BOX), {"tolerance": 0.0}, "`tolerance` must be positive"),
        ((disc, BOX), {"constraints": draw(0)}, r"`constraints` must have the axes of `paths`, \(\), or none"),
        ((disc, BOX), {"constraints": [3]}, "`constraints` must be a function"),
        ((disc, BOX), {"candidates": jnp.ones((3, 1))}, "The last axis of `candidates`"),
    ],
)
def test_minimise_refuses(arguments, options, words):
    with pytest.raises(ValueError, match=words):
        optimise.minimise(*arguments, KEY, **options)


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize(
    ("choices", "options", "words"),
    [
        (jnp.zeros(3), {}, r"`choices` must have shape \(n, d\)"),
        (jnp.zeros((0, 2)), {}, "`choices` must hold at least one point"),
        (jnp.full((3, 2), jnp.nan), {}, "`choices` must be finite"),
        (jnp.zeros((3, 2)), {"constraints": 3}, "`constraints` must be a function"),
        (jnp.zeros((3, 2)), {"constraints": draw(0)}, r"`constraints` must have the axes of `paths`, \(\), or none"),
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
        optimise.credible_intervals(jax.tree.map(lambda a: a[0], found))
    none = found._replace(feasible=jnp.isnan(found.values))
    with pytest.raises(ValueError, match="`optimum` must have a path with a feasible and finite optimum"):
        optimise.credible_intervals(none)
    with pytest.raises(TypeError, match="n_start"):
        optimise.maximise(disc, BOX, KEY, n_start=3)
