"""Boxes with discrete coordinates against all combinations of their values."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pathwise_gp as pgp
from pathwise_gp import acquisition as acq, optimise

KEY = jax.random.key(2)
CENTRES = np.asarray([[0.3, 2.4, 1.2], [0.7, -0.6, 3.9], [0.1, 1.6, 0.4]])
A = np.asarray([[2.0, 1.0, 0.3], [1.0, 2.0, 0.5], [0.3, 0.5, 1.0]])
BOX = np.asarray([[-1.0, -3.0, 0.0], [1.0, 3.0, 4.0]])
SMALL = {"n_screen": 256, "n_restarts": 4}


def bowls(X):
    off = X[None] - jnp.asarray(CENTRES).reshape(-1, *(1,) * (X.ndim - 1), 3)
    return 0.5 * jnp.einsum("...i,ij,...j", off, A, off)


def plane(X):
    return jnp.sum(X, axis=-1) - 1.5


def best_of_all(columns, held):
    """For each path the least value over all combinations: in the one free coordinate x₀ that of a parabola."""
    found = []
    for centre in np.asarray(CENTRES):
        best = (np.inf, None)
        for z in columns:
            x0 = np.clip(centre[0] - (np.asarray(A)[0, 1:] @ (np.asarray(z) - centre[1:])) / float(A[0, 0]), -1, 1)
            x0 = min(x0, 1.5 - sum(z)) if held else x0
            off = np.asarray([x0, *z]) - centre
            if x0 >= -1:
                best = min(best, (0.5 * off @ np.asarray(A) @ off, (x0, *z)))
        found.append(best)
    return np.asarray([value for value, _ in found]), np.asarray([point for _, point in found])


FEW = {1: range(-3, 4), 2: [0.0, 1.5, 4.0]}
ROWS = {(1, 2): [[0.0, 1.0], [2.0, 4.0], [1.0, 1.0], [-1.0, 3.5]]}


@pytest.mark.parametrize(("discrete", "held"), [(FEW, True), (ROWS, False)], ids=["columns, held", "rows"])
def test_mixed_boxes_of_quadratics_against_all_combinations(discrete, held):
    columns = itertools.product(*discrete.values()) if discrete is FEW else ROWS[1, 2]
    values, points = best_of_all(list(columns), held)
    found = optimise.minimise(bowls, BOX, KEY, discrete=discrete, constraints=[plane] if held else [], **SMALL)
    np.testing.assert_allclose(found.values, values, atol=1e-6)
    there = np.asarray(found.points)
    np.testing.assert_allclose(there[:, 0], points[:, 0], atol=1e-6)
    np.testing.assert_array_equal(there[:, 1:], points[:, 1:])  # to the last digit
    assert found.converged.all()
    assert found.feasible.all()


def test_all_columns_may_be_discrete():
    discrete = {0: [-1.0, 0.0, 0.5], 1: range(-3, 4), 2: np.asarray([0.0, 1.5, 4.0])}
    grid = np.asarray(list(itertools.product(*discrete.values())))
    found = optimise.maximise(bowls, BOX, KEY, discrete=discrete, **SMALL)
    exact = optimise.maximise_over(bowls, grid)
    np.testing.assert_array_equal(found.points, exact.points)
    assert found.converged.all()
    # Candidates are moved to the nearest of the values.
    hole = lambda X: (
        -jnp.exp(-jnp.sum(((X - jnp.broadcast_to(jnp.asarray([0.5, 2.0, 1.5]), X.shape)) / 1e-3) ** 2, axis=-1))
    )
    near = optimise.minimise(
        hole, BOX, KEY, discrete=discrete, n_screen=1, n_restarts=1, candidates=np.asarray([[0.4, 2.2, 1.9]])
    )
    np.testing.assert_array_equal(near.points, [0.5, 2.0, 1.5])


def test_every_one_of_few_combinations_is_searched():
    """Of which one has the least value in a valley so narrow that no point of a design says so."""

    def valleys(X):
        x, k = X[..., 0], X[..., 1]
        return jnp.where(k == 31, 1e7 * (x - 0.37123) ** 2 - 5, (x - 0.01 * k) ** 2)

    box = np.asarray([[0.0, 0.0], [1.0, 31.0]])
    found = optimise.minimise(valleys, box, KEY, discrete={1: range(32)}, n_restarts=1)
    np.testing.assert_allclose(found.points, [0.37123, 31], atol=1e-6)
    np.testing.assert_allclose(found.values, -5, rtol=1e-9)


def test_many_combinations_are_searched_by_exchanges():
    columns = {1: range(-3, 4), 2: np.linspace(0, 4, 33)}
    values, points = best_of_all(list(itertools.product(*columns.values())), False)
    found = optimise.minimise(bowls, BOX, KEY, discrete=columns, n_screen=512, n_restarts=8)
    np.testing.assert_allclose(found.values, values, atol=1e-9)
    np.testing.assert_array_equal(np.asarray(found.points)[:, 1:], points[:, 1:])
    assert found.converged.all()
    # From one start of which nothing is known: no change of one coordinate gains anything.
    one = optimise.minimise(bowls, BOX, KEY, discrete=columns, n_screen=1, n_restarts=1)
    place, least = np.asarray(one.points), np.asarray(one.values)
    assert one.converged.all()
    assert (least < 1).all()
    moved = []
    for column, among in columns.items():
        for value in among:
            moved.append(place.copy())
            moved[-1][:, column] = value
    there = np.asarray(jax.jit(bowls)(np.stack(moved)))  # s v s
    assert (np.einsum("svs->sv", there) >= least[:, None] - 1e-9).all()


def test_paths_of_a_mixed_box():
    rng = np.random.default_rng(0)
    X = np.stack([rng.uniform(size=12), rng.integers(0, 4, 12)], axis=1)
    kernel = pgp.ActiveDims(pgp.RBF(1.0, 0.3), [0]) * pgp.ActiveDims(pgp.RBF(1.0, 2.0), [1])
    posterior = pgp.GPPrior(kernel=kernel, X=X).condition(np.sin(5 * X[:, 0] + X[:, 1]), 0.01)
    paths = pgp.PathwiseSampler(posterior, 64, features=pgp.MonteCarlo()).sample_paths(KEY, 4)
    box = np.asarray([[0.0, 0.0], [1.0, 3.0]])
    batch = acq.thompson_sample(paths, box, KEY, discrete={1: range(4)}, **SMALL)
    axis = np.linspace(0, 1, 201)
    grid = np.stack(np.meshgrid(axis, np.arange(4.0)), axis=-1).reshape(-1, 2)
    everywhere = np.asarray(paths(grid))
    np.testing.assert_array_equal(np.asarray(batch.points)[:, 1], grid[everywhere.argmin(axis=1), 1])
    least, values = everywhere.min(axis=1), np.asarray(batch.values)
    assert (values <= least + 1e-9).all()
    assert (values >= least - 0.01).all()


def test_batches_of_a_mixed_box():
    """Of two inputs, of which each has the constraint, and both together one that tells them apart."""
    box, axis = np.asarray([[0.0, 0.0], [1.0, 3.0]]), np.linspace(0, 1, 21)
    grid = np.stack(np.meshgrid(axis, np.arange(4.0)), axis=-1).reshape(-1, 2)
    waves = lambda X: jnp.stack([jnp.sin(a * X[..., 0] + X[..., 1]) for a in (3.0, 5.0, 9.0)])
    ucb = acq.UpperConfidenceBound(waves, 2.0)
    options = {
        "constraints": lambda X: X[..., 0] - 0.7,
        "joint_constraints": lambda X: 1 - jnp.abs(X[..., 0, 1] - X[..., 1, 1]),
    }
    pair = ucb.optimise(box, KEY, 2, discrete={1: range(4)}, **options, **SMALL)
    points = np.asarray(pair.points)
    assert pair.feasible
    assert (points[:, 0] <= 0.7 + 1e-5).all()
    assert abs(points[0, 1] - points[1, 1]) >= 1
    assert set(points[:, 1]) <= {0.0, 1.0, 2.0, 3.0}
    chosen = ucb.optimise_over(grid, 2, **options)
    assert pair.values >= chosen.values - 1e-9


def test_the_one_shot_form_in_a_mixed_box():
    mean = lambda X: jnp.sin(7 * X[..., 0]) + 0.1 * X[..., 1]
    scales = jnp.asarray([0.3, 1.5])
    covariance = lambda X, Z: jnp.exp(-0.5 * jnp.sum(((X[:, None] - Z[None]) / scales[None, None]) ** 2, axis=2))
    made = acq.OneShotKnowledgeGradient(mean, covariance, KEY, 0.01, 0.0, n_fantasies=3)
    box = np.asarray([[0.0, 0.0], [1.0, 3.0]])
    found = made.optimise(box, KEY, discrete={1: range(4)}, n_screen=32, n_restarts=2, max_steps=50)
    place = np.asarray(found.points)
    assert place[0, 1] in {0.0, 1.0, 2.0, 3.0}
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 51), np.arange(4.0)), axis=-1).reshape(-1, 2)
    # Its value is that of maxima which are in the box too, and no other input of a grid is worth more.
    worth = np.asarray(made(made.complete(np.concatenate([place[None], grid[:, None]]), grid)))
    np.testing.assert_allclose(found.values, worth[0], atol=2e-3)
    assert found.values >= worth[1:].max() - 1e-6


def test_the_derivative_of_a_mixed_optimum():
    @jax.jit
    @jax.value_and_grad
    def value(shift):
        moved = lambda X: bowls(X - shift)
        held = lambda X: plane(X - shift)
        return jnp.sum(optimise.minimise(moved, BOX, KEY, discrete=FEW, constraints=held, **SMALL).values)

    h = 1e-4
    difference = (value(0.01 + h)[0] - value(0.01 - h)[0]) / (2 * h)
    np.testing.assert_allclose(value(0.01)[1], difference, rtol=1e-4)


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize(
    ("discrete", "words"),
    [
        ({}, "`discrete` must name a column"),
        ([1, 2], "`discrete` must map columns to the values that they take; got list"),
        ({"x": [0.0]}, "columns, numbers from 0 or tuples of them; got 'x'"),
        ({3: [0.0]}, "must name each of the 3 columns once at most, from 0; got 3"),
        ({-1: [0.0]}, "must name each of the 3 columns once"),
        ({1: [0.0], (1, 2): [[0.0, 0.0]]}, "must name each of the 3 columns once"),
        ({1: []}, r"`discrete\[1\]` must be a vector of values, one or more; got shape \(0, 1\)"),
        ({(1, 2): [0.0, 1.0]}, r"`discrete\[\(1, 2\)\]` must be rows of 2 values"),
        ({1: [0.0, np.nan]}, r"`discrete\[1\]` must be finite"),
        ({1: [0.0, 3.5]}, r"`discrete\[1\]` must lie within `bounds`"),
    ],
)
def test_discrete_columns_are_checked(discrete, words):
    with pytest.raises(ValueError, match=words):
        optimise.minimise(bowls, BOX, KEY, discrete=discrete, **SMALL)
