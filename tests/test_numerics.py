"""Trigonometry of turns, distances, blocks of rows, and linear algebra, against plain numpy and scipy."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from scipy import special, stats
from scipy.stats import qmc

import pathwise_gp as pgp
from pathwise_gp._numerics import blocks, distances, exponential, random
from pathwise_gp._numerics.blocks import map_rows, matrix_by_rows
from pathwise_gp._numerics.dependence import depends
from pathwise_gp._numerics.distances import squared_distances
from pathwise_gp._numerics.linalg import (
    _density_and_precision,
    add_diagonal,
    cholesky,
    CholeskyFactor,
    gaussian_log_density,
    inner,
    inverse_factor,
)
from pathwise_gp._numerics.quantiles import log_gamma, radius
from pathwise_gp._numerics.sobol import _directions, sobol
from pathwise_gp._numerics.trigonometry import cos_turns, sin_turns

TURNS = {"cos": cos_turns, "sin": sin_turns}
# A few units in the last place of 1: 6e-8 in float32, 1.1e-16 in float64.
ACCURACY = {jnp.float32: 5e-7, jnp.float64: 2e-15}


def exact_turns(name, u):
    """cos(2πu) and sin(2πu) in float64, the angle reduced to an eighth of a turn without rounding."""
    u = np.asarray(u, np.float64)
    eighths = np.round(4 * u)  # u − eighths / 4 is exact: both are multiples of the last place of u
    angle = 2 * np.pi * (u - eighths / 4)
    cos, sin = np.cos(angle), np.sin(angle)
    quadrant = (eighths % 4).astype(int)
    values = {"cos": [cos, -sin, -cos, sin], "sin": [sin, cos, -sin, -cos]}[name]
    return np.choose(quadrant, values)


@pytest.mark.parametrize("dtype", ACCURACY, ids=["float32", "float64"])
def test_decay_is_the_exponential_of_a_negative(dtype):
    info = np.finfo(dtype)
    largest = -np.log(info.tiny.astype(np.float64))  # of those with a normal result
    rng = np.random.default_rng(0)
    x = np.concatenate([np.geomspace(1e-30, 1, 2_000), rng.uniform(0, largest - 0.4, 20_000), [0.0]]).astype(dtype)
    # As users compile it: the compiler may not take the steps of the reduction apart.
    decay = jax.jit(exponential.decay, compiler_options={"xla_backend_optimization_level": 3})
    values = decay(jnp.asarray(x))
    assert values.dtype == dtype
    exact = np.exp(-x.astype(np.longdouble))
    assert np.abs(np.asarray(values, np.longdouble) / exact - 1).max() < 3 * info.eps
    assert values[-1] == 1
    far = jnp.asarray([largest + 1, largest + 30, 1e30, np.inf], dtype)
    np.testing.assert_array_equal(decay(far), 0)
    assert jnp.isnan(decay(jnp.asarray(np.nan, dtype)))
    # From either side of where the whole part changes, and at the end.
    steps = (np.log(2) * (np.arange(60) + 0.5)).astype(dtype)
    for at in (steps, np.nextafter(steps, dtype(0))):
        np.testing.assert_allclose(decay(jnp.asarray(at)), np.exp(-at.astype(np.float64)), rtol=3 * info.eps)


def test_decay_has_derivatives_of_every_order():
    x = jnp.asarray([0.0, 0.3, 5.0])
    function = exponential.decay
    for order in range(1, 5):
        function = jax.grad(function) if order % 2 else jax.jacfwd(function)
        np.testing.assert_allclose(jax.vmap(function)(x), (-1) ** order * np.exp(-x), rtol=1e-14)


@pytest.mark.parametrize("dtype", ACCURACY, ids=["float32", "float64"])
@pytest.mark.parametrize("size", [0.5, 3.0, 1e3, 1e6])
@pytest.mark.parametrize("name", TURNS)
def test_turns_are_accurate(name, size, dtype):
    u = np.random.default_rng(0).uniform(-size, size, 20_000).astype(dtype)
    u = np.concatenate([u, np.arange(-8, 9).astype(dtype) / 8])
    values = TURNS[name](jnp.asarray(u))
    assert values.dtype == dtype
    np.testing.assert_allclose(np.asarray(values, np.float64), exact_turns(name, u), rtol=0, atol=ACCURACY[dtype])
    assert np.abs(values).max() <= 1 + ACCURACY[dtype]


@pytest.mark.parametrize("dtype", ACCURACY, ids=["float32", "float64"])
def test_turns_of_huge_angles(dtype):
    # Past the reciprocal of the unit in the last place all angles are whole turns.
    u = jnp.asarray([1e20, -1e30, 2.0 / jnp.finfo(dtype).eps], dtype)
    np.testing.assert_array_equal(cos_turns(u), np.ones(3))
    np.testing.assert_array_equal(sin_turns(u), np.zeros(3))


def test_sine_of_small_angles_keeps_its_digits():
    u = jnp.asarray([1e-30, -1e-12, 1e-7, 1e-3])
    np.testing.assert_allclose(sin_turns(u), np.sin(2 * np.pi * np.asarray(u)), rtol=1e-15)


def test_turns_of_nan_and_inf_are_nan():
    u = jnp.asarray([jnp.nan, jnp.inf, -jnp.inf])
    assert np.all(np.isnan(cos_turns(u))) and np.all(np.isnan(sin_turns(u)))


@pytest.mark.parametrize("dtype", ACCURACY, ids=["float32", "float64"])
@pytest.mark.parametrize("name", TURNS)
def test_derivatives_of_turns(name, dtype):
    # Including the points at which the rounding jumps (halves) and the polynomial is folded (quarters).
    u = jnp.concatenate([jnp.linspace(-2, 2, 33), jnp.asarray([0.123, 17.77])]).astype(dtype)
    cycle = {
        "cos": [("cos", 1), ("sin", -1), ("cos", -1), ("sin", 1)],
        "sin": [("sin", 1), ("cos", 1), ("sin", -1), ("cos", -1)],
    }[name]
    derivative = TURNS[name]
    for order in range(4):
        base, sign = cycle[order]
        values = jax.vmap(derivative)(u)
        assert values.dtype == dtype
        expected = sign * (2 * np.pi) ** order * exact_turns(base, u)
        np.testing.assert_allclose(values, expected, rtol=0, atol=2 * ACCURACY[dtype] * (2 * np.pi) ** order)
        derivative = jax.grad(derivative)


@pytest.mark.parametrize("dim", [1, 3, distances._UNROLLED, distances._UNROLLED + 6])
@pytest.mark.parametrize("dtype", ACCURACY, ids=["float32", "float64"])
def test_squared_distances_far_from_the_origin(dim, dtype):
    # At 1e4 the expansion ‖x‖² + ‖z‖² − 2x·z would be off by 1e8 · 6e-8 · dim = 6 · dim in float32.
    rng = np.random.default_rng(1)
    X = (1e4 + rng.uniform(0, 2, (7, dim))).astype(dtype)
    Z = (1e4 + rng.uniform(0, 2, (5, dim))).astype(dtype)
    Z[0] = X[0]
    scale = np.linspace(0.3, 3.0, dim).astype(dtype)
    expected = np.sum(((X.astype(float)[:, None, :] - Z.astype(float)[None, :, :]) / scale) ** 2, axis=2)
    values = squared_distances(jnp.asarray(X), jnp.asarray(Z), jnp.asarray(scale))
    assert (values.shape, values.dtype) == ((7, 5), dtype)
    # Differences of inputs so close are exact; what rounds is a quotient, a square and a sum of dim terms, all positive.
    np.testing.assert_allclose(values, expected, rtol=(dim + 6) * float(jnp.finfo(dtype).eps))
    assert values[0, 0] == 0


@pytest.mark.parametrize("dim", [2, distances._UNROLLED + 1])
def test_squared_distances_are_smooth_at_coincident_points(dim):
    x = jnp.linspace(0, 1, dim)
    square = lambda x, z: squared_distances(x[None, :], z[None, :], jnp.ones(dim))[0, 0]
    derivatives = jax.jit(lambda *xz: [d(square)(*xz) for d in (jax.grad, jax.hessian)])
    gradient, hessian = derivatives(x, x)
    mixed = jax.jit(jax.jacfwd(jax.grad(square), argnums=1))(x, x)
    np.testing.assert_array_equal(gradient, np.zeros(dim))
    np.testing.assert_array_equal(hessian, 2 * np.eye(dim))
    np.testing.assert_array_equal(mixed, -2 * np.eye(dim))


@pytest.mark.parametrize("dim", [3, distances._UNROLLED + 1])
@pytest.mark.parametrize("dtype", ACCURACY, ids=["float32", "float64"])
def test_derivatives_of_squared_distances(dtype, dim):
    rng, info = np.random.default_rng(3), jnp.finfo(dtype)
    # Far from the origin, in a region of ten lengthscales.
    X, Z = ((1e4 + rng.uniform(-5, 5, (n, dim))).astype(dtype) for n in (7, 5))
    scale = rng.uniform(0.5, 2.0, dim).astype(dtype)
    G = rng.normal(size=(7, 5)).astype(dtype)
    function = squared_distances
    arguments = [jnp.asarray(a) for a in (X, Z, scale)]
    _, pull = jax.vjp(function, *arguments)
    got = pull(jnp.asarray(G))
    X64, Z64, s64, G64 = (a.astype(np.float64) for a in (X, Z, scale, G))
    difference = X64[:, None] - Z64[None]
    slope = 2 * G64[:, :, None] * difference / s64**2
    expected = [slope.sum(1), -slope.sum(0), -(slope * difference / s64).sum((0, 1))]
    for value, exact in zip(got, expected, strict=True):
        assert value.dtype == dtype
        np.testing.assert_allclose(value, exact, rtol=0, atol=40 * info.eps * np.abs(exact).max())
    # Forwards, along all three at once and along each alone.
    along = [jnp.asarray(rng.normal(size=a.shape).astype(dtype)) for a in arguments]
    parts = [
        jax.jvp(lambda a, i=i: function(*arguments[:i], a, *arguments[i + 1 :]), (arguments[i],), (along[i],))[1]
        for i in range(3)
    ]
    dX, dZ, ds = (np.asarray(a, np.float64) for a in along)
    wanted = [
        (2 * difference / s64**2 * dX[:, None]).sum(-1),
        -(2 * difference / s64**2 * dZ[None]).sum(-1),
        -(2 * difference**2 / s64**3 * ds).sum(-1),
    ]
    tolerance = 40 * info.eps * max(np.abs(w).max() for w in wanted)
    for part, exact in zip(parts, wanted, strict=True):
        np.testing.assert_allclose(part, exact, rtol=0, atol=tolerance)
    both = jax.jvp(function, tuple(arguments), tuple(along))[1]
    np.testing.assert_allclose(both, sum(wanted), rtol=0, atol=2 * tolerance)


def test_squared_distances_both_ways_agree(monkeypatch):
    X, Z = jnp.asarray(np.random.default_rng(2).normal(size=(2, 6, 9)))
    scale = jnp.linspace(0.5, 2.0, 9)
    unrolled = squared_distances(X, Z, scale)
    monkeypatch.setattr(distances, "_UNROLLED", 4)
    np.testing.assert_allclose(squared_distances(X, Z, scale), unrolled, rtol=1e-14)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 64 rows at most, which is their least size."""
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 1)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 128, 150, 257])
def test_map_rows_is_the_function(n, small_blocks):
    X = jnp.asarray(np.random.default_rng(3).normal(size=(n, 3)))
    sizes = []

    def function(rows):
        sizes.append(rows.shape[0])
        return jnp.stack([jnp.sum(jnp.sin(rows), axis=1), jnp.prod(rows, axis=1)])

    values = map_rows(function, X, 10)
    assert max(sizes) <= 64
    np.testing.assert_allclose(values, function(X), rtol=1e-14)


@pytest.mark.parametrize("axes", [(), (2,), (2, 3)])
def test_map_rows_keeps_leading_axes(axes, small_blocks):
    X = jnp.asarray(np.random.default_rng(4).normal(size=(130, 2)))
    scale = jnp.asarray(np.random.default_rng(5).normal(size=axes))
    function = lambda rows: scale[..., None] * jnp.expand_dims(rows[:, 0] * rows[:, 1], range(len(axes)))
    values = map_rows(function, X, 10)
    assert values.shape == (*axes, 130)
    np.testing.assert_array_equal(values, function(X))


def test_map_rows_has_the_derivatives_of_the_function(small_blocks):
    X = jnp.asarray(np.random.default_rng(6).normal(size=(150, 2)))
    weights = jnp.asarray(np.random.default_rng(7).normal(size=150))

    def total(apply, X, scale):
        return jnp.sum(weights * apply(lambda rows: jnp.sin(scale * rows[:, 0]) * rows[:, 1] ** 3, X))

    in_blocks = lambda X, scale: total(lambda f, X: map_rows(f, X, 10), X, scale)
    whole = lambda X, scale: total(lambda f, X: f(X), X, scale)

    def derivatives(function):
        second = jax.grad(jax.grad(function, 1), 1)
        return jax.jit(lambda *args: (*jax.grad(function, (0, 1))(*args), second(*args)))(X, jnp.asarray(1.3))

    for got, expected in zip(derivatives(in_blocks), derivatives(whole), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("n", [1, 64, 65, 150, 192])
def test_matrix_by_rows_is_the_function_with_its_derivatives(n, small_blocks):
    X = jnp.asarray(np.random.default_rng(8).normal(size=(n, 2)))
    G = jnp.asarray(np.random.default_rng(9).normal(size=(n, n)))
    sizes = []

    def total(apply, X, scale):
        def function(rows):
            sizes.append(rows.shape[0])
            return jnp.exp(-scale * jnp.sum((rows[:, None] - X[None]) ** 2, axis=2))

        return jnp.sum(G * apply(function, X))

    def derivatives(apply):
        function = lambda X, scale: total(apply, X, scale)
        forward = lambda X, scale: jax.jvp(function, (X, scale), (jnp.cos(X), scale))
        second = jax.grad(jax.grad(function, 1), 1)
        return jax.jit(lambda *args: (forward(*args), jax.grad(function, (0, 1))(*args), second(*args)))(
            X, jnp.asarray(1.3)
        )

    got = derivatives(lambda function, X: matrix_by_rows(function, X, 10))
    assert max(sizes) <= 64
    for a, b in zip(*map(jax.tree.leaves, (got, derivatives(lambda function, X: function(X)))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def test_map_rows_bounds_the_temporaries():
    X, rows = jnp.zeros((200_000, 1)), []

    def function(block):
        rows.append(block.shape[0])
        return block[:, 0]

    jax.eval_shape(lambda X: map_rows(function, X, 1000), X)
    assert max(rows) * 1000 * 8 <= blocks._BLOCK_BYTES


def spd(n, seed=0):
    A = np.random.default_rng(seed).normal(size=(n, n))
    return A @ A.T + n * np.eye(n)


K, RESIDUAL = spd(4), np.array([0.3, -1.2, 0.7, 2.0])
INDEFINITE = np.diag([1.0, 2.0, -1.0, 3.0])


def test_gaussian_log_density_is_scipys():
    expected = scipy.stats.multivariate_normal(np.zeros(4), K).logpdf(RESIDUAL)
    np.testing.assert_allclose(gaussian_log_density(jnp.asarray(K), jnp.asarray(RESIDUAL)), expected, rtol=1e-13)


def _of_parameters(theta):
    """A density of two parameters of the covariance and one of the residual."""
    base, other = jnp.asarray(K), jnp.asarray(spd(4, seed=1))
    covariance = jnp.exp(theta[0]) * base + theta[1] ** 2 * other
    return gaussian_log_density(covariance, jnp.asarray(RESIDUAL) + jnp.sin(theta[2]) * jnp.arange(4.0))


THETA = jnp.asarray([0.2, 0.7, -0.4])


def test_gradient_of_gaussian_log_density():
    value = jax.jit(_of_parameters)
    # Central differences: h² times a third derivative of order 10, and rounding of 1e-15 / h.
    h = 1e-5
    numeric = [(value(THETA + h * e) - value(THETA - h * e)) / (2 * h) for e in np.eye(3)]
    for differentiate in (jax.grad, jax.jacfwd):
        np.testing.assert_allclose(jax.jit(differentiate(_of_parameters))(THETA), numeric, rtol=1e-8, atol=1e-8)


def test_hessian_of_gaussian_log_density():
    gradient = jax.jit(jax.grad(_of_parameters))
    h = 1e-5
    numeric = [(gradient(THETA + h * e) - gradient(THETA - h * e)) / (2 * h) for e in np.eye(3)]
    for hessian in (jax.hessian(_of_parameters), jax.jacrev(jax.grad(_of_parameters))):
        np.testing.assert_allclose(jax.jit(hessian)(THETA), numeric, rtol=1e-8, atol=1e-8)


def test_third_derivative_of_gaussian_log_density():
    second = jax.jit(jax.grad(jax.grad(lambda t: _of_parameters(jnp.stack([t, THETA[1], THETA[2]])))))
    third = jax.jit(jax.grad(second))
    h = 1e-5
    numeric = (second(THETA[0] + h) - second(THETA[0] - h)) / (2 * h)
    np.testing.assert_allclose(third(THETA[0]), numeric, rtol=1e-7)


def test_gradient_of_gaussian_log_density_by_entries():
    # ½(ααᵀ − K⁻¹), Rasmussen & Williams (2006), equation 5.9.
    by_covariance, by_residual = jax.grad(gaussian_log_density, (0, 1))(jnp.asarray(K), jnp.asarray(RESIDUAL))
    alpha = np.linalg.solve(K, RESIDUAL)
    np.testing.assert_allclose(by_covariance, 0.5 * (np.outer(alpha, alpha) - np.linalg.inv(K)), rtol=1e-11)
    np.testing.assert_allclose(by_residual, -alpha, rtol=1e-12)


def test_gaussian_log_density_of_an_indefinite_matrix():
    matrix, residual = jnp.asarray(INDEFINITE), jnp.asarray(RESIDUAL)
    assert gaussian_log_density(matrix, residual) == -np.inf

    @jax.jit
    def derivatives(*args):
        return [d(gaussian_log_density, (0, 1))(*args) for d in (jax.grad, jax.jacfwd, jax.hessian)]

    for derivative in jax.tree.leaves(derivatives(matrix, residual)):
        np.testing.assert_array_equal(derivative, np.zeros(derivative.shape))


def test_gaussian_log_density_spares_a_good_neighbour():
    both = jnp.stack([jnp.asarray(K), jnp.asarray(INDEFINITE), jnp.full((4, 4), jnp.nan)])
    residual = jnp.asarray(RESIDUAL)
    for function in (gaussian_log_density, jax.grad(gaussian_log_density), jax.hessian(gaussian_log_density)):
        many = jax.jit(jax.vmap(function, (0, None)))(both, residual)
        np.testing.assert_allclose(many[0], jax.jit(function)(both[0], residual), rtol=1e-12, atol=1e-15)
        if many.ndim > 1:
            np.testing.assert_array_equal(many[1:], np.zeros_like(many[1:]))
        else:
            np.testing.assert_array_equal(many[1:], [-np.inf, -np.inf])


def test_gaussian_log_density_in_single_precision():
    matrix, residual = jnp.asarray(K, jnp.float32), jnp.asarray(RESIDUAL, jnp.float32)
    value, gradient = jax.jit(jax.value_and_grad(gaussian_log_density))(matrix, residual)
    assert value.dtype == gradient.dtype == jnp.float32
    np.testing.assert_allclose(value, gaussian_log_density(jnp.asarray(K), jnp.asarray(RESIDUAL)), rtol=1e-6)


FACTOR = CholeskyFactor(cholesky(jnp.asarray(K)))


def test_cholesky():
    np.testing.assert_allclose(FACTOR.lower, np.linalg.cholesky(K), rtol=1e-13, atol=1e-14)
    assert bool(FACTOR.is_finite())
    assert not bool(CholeskyFactor(cholesky(jnp.asarray(INDEFINITE))).is_finite())


@pytest.mark.parametrize("axes", [(), (5,), (2, 3), (0,)])
def test_factor_acts_along_the_last_axis(axes):
    B = np.random.default_rng(8).normal(size=(*axes, 4))
    lower = np.linalg.cholesky(K)
    apply = lambda matrix: np.einsum("ij,...j->...i", matrix, B)
    for got, expected in (
        (FACTOR.solve(jnp.asarray(B)), apply(np.linalg.inv(K))),
        (FACTOR.whiten(jnp.asarray(B)), apply(np.linalg.inv(lower))),
        (FACTOR.colour(jnp.asarray(B)), apply(lower)),
    ):
        assert got.shape == B.shape
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)


def test_whiten_and_colour_are_inverse():
    B = jnp.asarray(np.random.default_rng(9).normal(size=(3, 4)))
    np.testing.assert_allclose(FACTOR.colour(FACTOR.whiten(B)), B, rtol=1e-13, atol=1e-14)


def test_log_det():
    np.testing.assert_allclose(FACTOR.log_det(), np.linalg.slogdet(K)[1], rtol=1e-14)


def test_factor_is_a_pytree():
    many = eqx.filter_vmap(lambda scale: CholeskyFactor(cholesky(scale * jnp.asarray(K))))(jnp.asarray([1.0, 4.0]))
    log_dets = eqx.filter_vmap(lambda factor: factor.log_det())(many)
    np.testing.assert_allclose(log_dets[1] - log_dets[0], 4 * math.log(4), rtol=1e-13)


@pytest.mark.parametrize("n", [1, 4, 9])
def test_inverse_factor(n):
    A = spd(n, seed=2)
    T = np.asarray(inverse_factor(jnp.asarray(A)))
    np.testing.assert_array_equal(T, np.tril(T))
    assert np.all(np.diag(T) > 0)
    np.testing.assert_allclose(T @ T.T, np.linalg.inv(A), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("n", [1, 128, 129, 300])
def test_density_and_precision(n):
    A, r = spd(n), np.random.default_rng(1).normal(size=n)
    value, P = _density_and_precision(jnp.asarray(A), jnp.asarray(r))
    np.testing.assert_allclose(P, np.linalg.inv(A), rtol=0, atol=1e-15 * np.abs(P).max() * n)
    np.testing.assert_allclose(value, stats.multivariate_normal(np.zeros(n), A).logpdf(r), rtol=1e-12)


def test_inverse_factor_of_an_indefinite_matrix_is_nan():
    assert np.all(np.isnan(np.diag(inverse_factor(jnp.asarray(INDEFINITE)))))


def test_inverse_factor_of_an_ill_conditioned_matrix():
    # The numbers 1 beside 1e14 are kept to 1e14 · 1.1e-16 = 1e-2; without the 1e14 the trace of the inverse is 5.
    A = np.eye(6) + 1e14 * np.ones((6, 6))
    T = np.asarray(inverse_factor(jnp.asarray(A)))
    assert np.all(np.isfinite(T))
    np.testing.assert_allclose(np.sum((T @ T.T) * (np.eye(6) - 1 / 6)), 5, rtol=0.1)


@pytest.mark.parametrize("dtype", ACCURACY, ids=["float32", "float64"])
def test_inner_and_add_diagonal(dtype):
    A = jnp.asarray(np.random.default_rng(10).normal(size=(3, 5)), dtype)
    B = jnp.asarray(np.random.default_rng(11).normal(size=(2, 5)), dtype)
    exact = np.asarray(A, float) @ np.asarray(B, float).T
    np.testing.assert_allclose(inner(A, B), exact, rtol=0, atol=20 * float(jnp.finfo(dtype).eps))
    diagonal = jnp.asarray([1.0, 2.0, 6.0], dtype)
    added = add_diagonal(jnp.ones((3, 3), dtype), diagonal)
    np.testing.assert_array_equal(added, 1 + np.diag([1.0, 2.0, 6.0]))
    assert added.dtype == inner(A, B).dtype == dtype


def test_depends_follows_values_through_compiled_functions():
    constant = jnp.ones(3)

    @jax.jit
    def inner(x, c):
        return x + c, c, 2 * c

    def function(x):
        both, passed, doubled = inner(x, constant)
        looped = jax.lax.scan(lambda carry, step: (carry + step, None), jnp.zeros(()), x)[0]
        return {"both": both, "passed": passed, "doubled": doubled, "looped": looped, "own": constant + 1}

    got = depends(function, jnp.zeros(3))
    assert got == {"both": True, "passed": False, "doubled": False, "looped": True, "own": False}


def test_sobol_points_are_those_of_the_sequence_scrambled():
    # A scramble keeps which points share an elementary interval: in each coordinate, 2ᵐ points fill 2ᵐ cells; two by two they
    # fill boxes of equal volume as the plain sequence does.
    points = np.asarray(sobol(jax.random.key(0), 64, 5))
    plain = qmc.Sobol(5, scramble=False).random_base2(6)
    assert points.dtype == np.uint32
    for i in range(5):
        np.testing.assert_array_equal(np.sort(points[:, i] >> 26), np.arange(64))
    boxes = lambda u, i, j, a: np.bincount(
        (u[:, i] * 2**a).astype(int) * 2 ** (6 - a) + (u[:, j] * 2 ** (6 - a)).astype(int), minlength=64
    )
    for i, j, a in ((0, 1, 3), (0, 1, 2), (0, 2, 3)):
        np.testing.assert_array_equal(np.sort(boxes(points / 2.0**32, i, j, a)), np.sort(boxes(plain, i, j, a)))
    # Prefixes, other keys, other scrambles.
    np.testing.assert_array_equal(sobol(jax.random.key(0), 40, 5)[:33], sobol(jax.random.key(0), 33, 5))
    assert np.all(points != np.asarray(sobol(jax.random.key(1), 64, 5)))
    assert sobol(jax.random.key(0), 1, 1).shape == (1, 1)
    discrepancy = qmc.discrepancy(np.asarray(sobol(jax.random.key(2), 500, 3)) / 2.0**32)
    assert discrepancy < 0.1 * qmc.discrepancy(np.random.default_rng(0).uniform(size=(500, 3)))


@pytest.mark.parametrize("sizes", [(5, 3), (0, 4), (2, 3 * 2**15)], ids=["one loop", "an empty one", "a loop for each"])
@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey], ids=["typed", "raw"])
def test_numbers_of_several_keys_are_those_of_each(sizes, make):
    keys = jax.random.split(make(0), 2)
    shapes = [(2, size) for size in sizes]
    for key, size, shape, b, z in zip(
        keys, sizes, shapes, random.bits(keys, sizes), random.normals(keys, shapes, jnp.float64), strict=True
    ):
        np.testing.assert_array_equal(b, jax.random.bits(key, (size,), jnp.uint32))
        np.testing.assert_array_equal(z, jax.random.normal(key, shape))


@pytest.mark.parametrize("dim", [1, 2, 21, 22])
def test_directions_are_scipys(dim):
    # Joe & Kuo's numbers, in a table for the first coordinates; the points of a sequence are the sums of theirs.
    whole = (qmc.Sobol(dim, scramble=False, bits=32).random_base2(12) * 2.0**32).astype(np.uint64)
    directions = _directions(12, dim)
    assert directions.dtype == np.uint32
    for k in range(12):
        np.testing.assert_array_equal(whole[2**k] ^ whole[2**k - 1], directions[:, k])


def test_each_sobol_point_is_uniform():
    keys = jax.random.split(jax.random.key(0), 4000)
    points = np.asarray(jax.jit(jax.vmap(lambda key: sobol(key, 3, 2)))(keys)) / 2.0**32
    for i in range(3):
        for j in range(2):
            assert stats.kstest(points[:, i, j], "uniform").pvalue > 1e-4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("nu", [None, 0.5, 2.5, 49.5])
@pytest.mark.parametrize("dim", [1, 2, 8, 100])
def test_radius(dim, nu, dtype):
    z = np.linspace(-8, 8, 161)
    got = radius(jnp.asarray(z, dtype), dim, nu)
    assert got.dtype == dtype
    tail = special.ndtr(-np.abs(z))
    if nu is None:
        half = np.where(z < 0, special.gammaincinv(dim / 2, tail), special.gammainccinv(dim / 2, tail))
        expected = np.sqrt(2 * half)
    else:
        share, rest = special.betaincinv(dim / 2, nu, tail), special.betaincinv(nu, dim / 2, tail)
        expected = np.sqrt(2 * nu * np.where(z < 0, share / (1 - share), (1 - rest) / rest))
    np.testing.assert_allclose(got, expected, rtol=2e-4 if dtype == np.float32 else 1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [0.02, 0.3, 1.0, 7.0, 300.0])
def test_log_gamma_quantile(shape, dtype):
    z = np.linspace(-8, 8, 161)
    got = jax.jit(log_gamma)(jnp.asarray(z, dtype), jnp.asarray(shape, dtype))
    assert got.dtype == dtype
    tail = special.ndtr(-np.abs(z))
    x = np.where(z < 0, special.gammaincinv(shape, tail), special.gammainccinv(shape, tail))
    seen = x > 1e-200
    expected = np.where(seen, np.log(np.where(seen, x, 1)), (special.log_ndtr(z) + special.gammaln(shape + 1)) / shape)
    rtol, atol = (2e-6, 2e-4) if dtype == np.float32 else (1e-12, 3e-13)
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)


@jax.jit
def log_gamma_with_derivatives(z, shape):
    by_score = jax.vmap(jax.grad(lambda z: log_gamma(z[None], shape)[0]))(z)
    return log_gamma(z, shape), jax.jacfwd(log_gamma, argnums=1)(z, shape), by_score


@pytest.mark.parametrize("shape", [0.02, 0.3, 1.0, 7.0, 300.0])
def test_log_gamma_derivatives(shape):
    z, h = jnp.linspace(-5, 5, 21), 1e-5
    at = lambda z, shape: log_gamma_with_derivatives(z, jnp.asarray(shape))
    _, by_shape, by_score = at(z, shape)
    numeric = (at(z, shape * (1 + h))[0] - at(z, shape * (1 - h))[0]) / (2 * h * shape)
    np.testing.assert_allclose(by_shape, numeric, rtol=1e-6)
    np.testing.assert_allclose(by_score, (at(z + h, shape)[0] - at(z - h, shape)[0]) / (2 * h), rtol=1e-6)


def test_orthogonal_draws():
    coordinates = pgp.Coordinates(4, (0,), ((1, 4),))
    draw = jax.jit(lambda key: pgp.Orthogonal().normals(key, 7, coordinates, np.float64)[0])
    z = np.asarray(jax.vmap(draw)(jax.random.split(jax.random.key(0), 4000)))
    directions = z[:, :, 1:]
    for start in (0, 3):  # the seventh stands alone
        block = directions[:, start : start + 3]
        gram = np.einsum("kid,kjd->kij", block, block)
        np.testing.assert_allclose(gram[:, ~np.eye(3, dtype=bool)], 0, atol=1e-12)
    for i in (0, 2, 6):  # each row is standard normal
        for j in range(4):
            assert stats.kstest(z[:, i, j], "norm").pvalue > 1e-4
    lengths = np.sum(directions**2, axis=2)
    assert stats.kstest(lengths[:, 1], stats.chi2(3).cdf).pvalue > 1e-4
    assert abs(np.corrcoef(lengths[:, 0], lengths[:, 1])[0, 1]) < 4 / np.sqrt(4000)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tail", [1.0, 2.0, 4.0])
def test_scores_of_a_sequence(tail, dtype):
    # The weighted share of scores below a value is its probability, in the far tails too.
    rule, n = pgp.QuasiMonteCarlo(tail), 2**14
    z, weights = (np.asarray(v, float) for v in rule.normals(jax.random.key(0), n, pgp.Coordinates(1, (0,)), dtype))
    np.testing.assert_allclose(weights.mean(), 1, rtol=1e-4)
    for value in (-3.0, -1.0, 0.0, 1.0, 3.0):
        np.testing.assert_allclose(np.mean(weights * (z[:, 0] > value)), special.ndtr(-value), rtol=2e-2, atol=1e-4)
    assert np.all(np.isfinite(z)) and (tail == 1 or z.max() > 5)
