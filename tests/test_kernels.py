"""Kernels against their formulas in plain numpy: values, shapes, derivatives, dtypes and the laws of pytrees."""

import copy
import math
import pickle
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import special
from tables import CONSTANT, KERNELS, LINEAR, matern, PERIODIC, points, RBF

import pathwise_gp as pgp

NAMES = list(KERNELS)
SINGLE = [name for name in NAMES if not set("+*") & set(name)]  # neither sums nor products
CASES = [(name, dim) for name, row in KERNELS.items() for dim in (1, 3) if dim in row.dims]


@eqx.filter_jit
def evaluate(kernel, X, Z):
    return kernel(X, Z), kernel(X, X), kernel.diag(X)


def inputs(dim, name="RBF"):
    """Two sets of points that share one, the first with one of its own repeated: the same shapes in all tests."""
    row = KERNELS[name]
    X, Z = row.points(8, dim), row.points(4, dim, seed=1)
    X[5], Z[0] = X[3], X[2]
    return X, Z


@pytest.mark.parametrize(("name", "dim"), CASES)
def test_matrix_is_the_formula(name, dim):
    row, (X, Z) = KERNELS[name], inputs(dim, name)
    kernel = row.make(dim)
    # Logarithms of Bessel functions of order 10 lose two digits.
    np.testing.assert_allclose(evaluate(kernel, X, Z)[0], row.formula(kernel, X, Z), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("name", "dim"), CASES)
def test_matrix_is_symmetric_and_positive(name, dim):
    _, K, diagonal = map(np.asarray, evaluate(KERNELS[name].make(dim), *inputs(dim, name)))
    np.testing.assert_allclose(K, K.T, rtol=1e-14, atol=1e-15)
    eigenvalues = np.linalg.eigvalsh(K)
    assert eigenvalues.min() >= -1e-10 * eigenvalues.max()
    np.testing.assert_allclose(diagonal, np.diag(K), rtol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_shapes(name):
    row = KERNELS[name]
    kernel = row.make(3)
    X, Z = row.points(6, 3).reshape(2, 3, 3), row.points(4, 3, seed=1)

    def evaluate(X, Z):
        return (
            (kernel(X, Z), kernel(X[1, 2], Z), kernel(X, Z[3]), kernel(X[1, 2], Z[3]), kernel.diag(X)),
            (kernel.diag(Z[0]), kernel(X[:, :0], Z)),
            kernel(X.reshape(6, 3), Z),
        )

    found = jax.jit(evaluate)(X, Z) if name in SINGLE else jax.eval_shape(evaluate, X, Z)
    (whole, from_point, to_point, pair, diagonal), (one, none), flat = found
    assert (whole.shape, from_point.shape, to_point.shape, pair.shape) == ((2, 3, 4), (4,), (2, 3), ())
    assert (diagonal.shape, one.shape, none.shape) == ((2, 3), (), (2, 0, 4))
    if name not in SINGLE:
        return
    # Alone, a pair may be summed in another order than in a matrix.
    for part, expected in ((whole, flat.reshape(2, 3, 4)), (from_point, flat[5]), (to_point, flat[:, 3].reshape(2, 3))):
        np.testing.assert_allclose(part, expected, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(pair, flat[5, 3], rtol=1e-13, atol=1e-15)


@eqx.filter_jit
def derivatives(kernel, x, z):
    """First and second in x, mixed, and first in the fields, of k(x, z). In one go, as each would go through k anew."""
    fields, rest = eqx.partition(kernel, eqx.is_inexact_array)

    def first(x, z):
        k = lambda fields, x: eqx.combine(fields, rest)(x, z)
        by_field, gradient = jax.grad(k, (0, 1))(fields, x)
        return gradient, (gradient, ravel_pytree(by_field)[0])

    (hessian, mixed), (gradient, by_field) = jax.jacfwd(first, (0, 1), has_aux=True)(x, z)
    return gradient, hessian, mixed, by_field


# Central differences of fourth order: their error is h⁴/30 times a fifth derivative, or h⁴/90 times a sixth, of
# the order 1e3; rounding adds 1e-15 (1e-13 for the logarithms of Bessel functions) over h, or h².
STEP = 1e-2
OFFSETS = np.array([-2, -1, 1, 2])
FIRST, SECOND = np.array([1, -8, 8, -1]) / 12, np.array([-1, 16, 16, -1]) / 12


def numeric(function, x, i):
    """The first and second derivative in one entry of x."""
    around = np.array([function(x + STEP * o * np.eye(x.size)[i]) for o in OFFSETS])
    return FIRST @ around / STEP, (SECOND @ around - 2.5 * function(x)) / STEP**2


def two_points(row):
    x, z = np.array([0.3, -0.2, 0.5]), np.array([-0.2, 0.4, 0.1])
    if row.continuous(3) == 2:
        x[2], z[2] = 1, 2
    return x, z


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_at_different_points(name):
    row = KERNELS[name]
    kernel, x, z = row.make(3), *two_points(row)
    gradient, hessian, mixed, by_field = derivatives(kernel, x, z)
    value = lambda kernel, x, z: row.formula(kernel, x[None], z[None])[0, 0]
    for i in range(row.continuous(3)):
        first, second = numeric(lambda x: value(kernel, x, z), x, i)
        np.testing.assert_allclose(gradient[i], first, atol=2e-6)
        np.testing.assert_allclose(hessian[i, i], second, atol=2e-5)
        for j in range(row.continuous(3)):
            by_z = lambda x: numeric(lambda z: value(kernel, x, z), z, j)[0]
            np.testing.assert_allclose(mixed[i, j], numeric(by_z, x, i)[0], atol=1e-5)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-13)
    flat, unravel = ravel_pytree(kernel)
    flat = np.asarray(flat)
    for i in range(flat.size):
        first, _ = numeric(lambda flat: value(unravel(jnp.asarray(flat)), x, z), flat, i)
        np.testing.assert_allclose(by_field[i], first, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_at_coincident_points(name):
    row = KERNELS[name]
    kernel, x = row.make(3), two_points(row)[0]
    gradient, hessian, mixed, by_field = derivatives(kernel, x, x)
    for derivative in (gradient, hessian, mixed, by_field):
        assert np.all(np.isfinite(derivative))
    if row.smooth >= 6:
        for i in range(row.continuous(3)):
            first, second = numeric(lambda y: row.formula(kernel, y[None], x[None])[0, 0], x, i)
            np.testing.assert_allclose(gradient[i], first, atol=2e-6)
            np.testing.assert_allclose(hessian[i, i], second, atol=2e-5)
    flat, unravel = ravel_pytree(kernel)
    flat = np.asarray(flat)
    for i in range(flat.size):
        first, _ = numeric(lambda flat: row.formula(unravel(jnp.asarray(flat)), x[None], x[None])[0, 0], flat, i)
        np.testing.assert_allclose(by_field[i], first, atol=2e-6)


def along_a_line(kernel, order):
    """The derivatives of k(x, 0) in x, of an order and of the one below, at 0."""
    derivative = lambda x: kernel.matrix(jnp.reshape(x, (1, 1)), jnp.zeros((1, 1)))[0, 0]
    for _ in range(order - 1):
        derivative = jax.grad(derivative)
    below, value = jax.jit(jax.value_and_grad(derivative))(jnp.asarray(0.0))
    return value, below


ELL, VARIANCE = 0.7, 1.9


@pytest.mark.parametrize(
    ("kernel", "order", "expected"),
    [
        (pgp.RBF(VARIANCE, ELL), 2, -1 / ELL**2),
        (pgp.RBF(VARIANCE, ELL), 4, 3 / ELL**4),
        (pgp.RBF(VARIANCE, ELL), 6, -15 / ELL**6),
        (pgp.Matern(1.5, VARIANCE, ELL), 2, -3 / ELL**2),
        (pgp.Matern(2.5, VARIANCE, ELL), 2, -5 / (3 * ELL**2)),
        (pgp.Matern(2.5, VARIANCE, ELL), 4, 25 / ELL**4),
        (pgp.Matern(3.5, VARIANCE, ELL), 2, -7 / (5 * ELL**2)),
        (pgp.Matern(3.5, VARIANCE, ELL), 4, 49 / (5 * ELL**4)),
        (pgp.Matern(3.5, VARIANCE, ELL), 6, -343 / ELL**6),
        (pgp.RationalQuadratic(VARIANCE, ELL, 1.6), 2, -1 / ELL**2),
        (pgp.RationalQuadratic(VARIANCE, ELL, 1.6), 4, 3 * (1 + 1 / 1.6) / ELL**4),
        (pgp.Periodic(VARIANCE, ELL, 1.3), 2, -((2 * math.pi / 1.3) ** 2) / ELL**2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, pgp.AbstractKernel) else "",
)
def test_even_derivatives_at_coincident_points(kernel, order, expected):
    # (−1)^{order/2} E ωᵒʳᵈᵉʳ over the spectral law: of a Student-t with 2ν degrees of freedom for Matérn-ν.
    value, below = along_a_line(kernel, order)
    np.testing.assert_allclose(value, VARIANCE * expected, rtol=1e-12)
    assert below == 0


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5])
def test_derivatives_in_the_lengthscale_of_a_matrix_are_finite(nu):
    # The diagonal of k(X, X) is where x = x': a plain square root gives NaN there.
    X = jnp.asarray(points(4, 2))
    kernel = pgp.Matern(nu, 1.0, jnp.asarray([0.8, 1.2]))
    gradient = eqx.filter_jit(eqx.filter_grad(lambda kernel: jnp.sum(kernel(X, X))))(kernel)
    assert np.all(np.isfinite(gradient.lengthscale)) and np.all(np.asarray(gradient.lengthscale) > 0)


@pytest.mark.parametrize("name", NAMES)
def test_single_precision(name):
    kernel = KERNELS[name].make(3)
    X, Z = (points.astype(np.float32) for points in inputs(3, name))
    single = evaluate(kernel, X, Z)
    for value, expected in zip(single, evaluate(kernel, X.astype(float), Z.astype(float)), strict=True):
        assert (value.dtype, expected.dtype) == (jnp.float32, jnp.float64)
        np.testing.assert_allclose(value, expected, atol=1e-5 * np.abs(expected).max())
    many = eqx.filter_eval_shape(derivatives, kernel, X[2], Z[0])
    assert all(derivative.dtype == jnp.float32 for derivative in many[:3])
    if name in SINGLE:
        assert all(np.all(np.isfinite(derivative)) for derivative in derivatives(kernel, X[2], Z[0]))


def test_single_precision_far_from_the_origin():
    # ‖x/ℓ‖² of 1e10 beside distances of 1.
    X = (1e4 + np.arange(8) / 8).astype(np.float32)[:, None]
    kernel = pgp.RBF(1.0, 0.1)
    single, double = evaluate(kernel, X, X)[0], evaluate(kernel, X.astype(float), X.astype(float))[0]
    # x/ℓ = 1e5 is rounded to 6e-3, and the slope of k is at most 0.6, for either point.
    np.testing.assert_allclose(single, double, atol=8e-3)
    np.testing.assert_array_equal(np.diag(single), np.ones(8))


def test_inputs_of_other_dtypes_are_converted(no_hook):
    X, Z = points(3, 2).astype(np.float32), points(2, 2)
    with jax.numpy_dtype_promotion("standard"):
        assert eqx.filter_eval_shape(RBF, X, Z).dtype == jnp.float64
    whole = np.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(*eqx.filter_jit(lambda Z: [RBF(whole, Z), RBF(whole.astype(float), Z)])(Z))


@pytest.mark.parametrize("nu", [10.5, 20.5, 49.5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_matern_of_high_order(nu, dtype):
    r = np.linspace(0, 50, 401).astype(dtype)
    a = np.sqrt(2 * nu) * r[1:].astype(float)
    log = (1 - nu) * np.log(2) - special.gammaln(nu) + nu * np.log(a) + np.log(special.kve(nu, a)) - a
    expected = np.concatenate([[1.0], np.exp(log)])
    kernel = pgp.Matern(nu, 1.0, 1.0)
    zero = np.zeros((1, 1), dtype)

    @jax.jit
    def with_slope(r):
        slope = jax.vmap(jax.grad(lambda x: kernel.matrix(x[None, None], jnp.asarray(zero))[0, 0]))
        return kernel(r[:, None], zero)[:, 0], slope(r)

    values, slope = with_slope(r)
    assert values.dtype == slope.dtype == dtype
    # The polynomial has ν steps, each rounding to eps or so.
    np.testing.assert_allclose(values, expected, rtol=0, atol=4 * nu * np.finfo(dtype).eps)
    assert np.all(np.isfinite(slope)) and np.all(np.asarray(slope) <= 0)


@eqx.filter_jit
def identity(kernel):
    return kernel


@pytest.mark.parametrize("name", NAMES)
def test_pytree_laws(name, tmp_path):
    kernel, (X, Z) = KERNELS[name].make(3), inputs(3, name)
    copies = {
        "tree map": jax.tree.map(lambda leaf: leaf, kernel),
        "jit": identity(kernel),
        "pickle": pickle.loads(pickle.dumps(kernel)),
        "deepcopy": copy.deepcopy(kernel),
    }
    eqx.tree_serialise_leaves(tmp_path / "kernel.eqx", kernel)
    blank = jax.tree.map(jnp.zeros_like, kernel)
    copies["file"] = eqx.tree_deserialise_leaves(tmp_path / "kernel.eqx", blank)
    expected = evaluate(kernel, X, Z)[0]
    for way, other in copies.items():
        assert jax.tree.structure(other) == jax.tree.structure(kernel), way
        np.testing.assert_array_equal(evaluate(other, X, Z)[0], expected, err_msg=way)
    assert all(eqx.is_inexact_array(leaf) and not leaf.weak_type for leaf in jax.tree.leaves(kernel))

    changed = eqx.tree_at(lambda k: jax.tree.leaves(k)[0], kernel, replace_fn=lambda leaf: 2 * leaf)
    value = evaluate(changed, X, Z)[0]
    np.testing.assert_allclose(value, KERNELS[name].formula(changed, X, Z), rtol=1e-12, atol=1e-13)


@eqx.filter_jit
def evaluate_stacked(kernels, X, Z):
    return eqx.filter_vmap(lambda kernel: kernel(X, Z))(kernels)


@pytest.mark.parametrize("name", NAMES)
def test_stacked_kernels_are_a_loop(name):
    kernel, (X, Z) = KERNELS[name].make(3), inputs(3, name)
    kernels = [jax.tree.map(lambda leaf: factor * leaf, kernel) for factor in (1.0, 0.7, 1.6)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *kernels)
    loop = [evaluate(kernel, X, Z)[0] for kernel in kernels]
    # Fused in another way, by rounding only.
    np.testing.assert_allclose(evaluate_stacked(stacked, X, Z), loop, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_no_retrace_for_another_kernel_of_one_structure(name):
    traces = []

    @eqx.filter_jit
    def count(kernel):
        traces.append(None)
        return jax.tree.leaves(kernel)[0]

    kernel = KERNELS[name].make(3)
    for other in (kernel, jax.tree.map(lambda leaf: 1.5 * leaf, kernel), copy.deepcopy(kernel), KERNELS[name].make(3)):
        count(other)
    count(identity(kernel))
    assert len(traces) == 1


def test_values_given_as_numbers_integers_and_arrays_are_one_structure():
    kernels = [pgp.RBF(1.0, 2.0), pgp.RBF(1, 2), pgp.RBF(np.float64(1), np.array(2)), pgp.RBF(jnp.ones(()), 2.0)]
    assert len({(jax.tree.structure(k), *(leaf.aval for leaf in jax.tree.leaves(k))) for k in kernels}) == 1


def names(kernel):
    return [type(k).__name__ for k in kernel.kernels]


def test_sums_and_products_are_flat():
    two, three = RBF + LINEAR, (RBF + LINEAR) + matern(1.5)
    assert isinstance(two, pgp.Sum) and names(three) == ["RBF", "Linear", "Matern"]
    assert names(matern(1.5) + two) == ["Matern", "RBF", "Linear"]
    assert names(two + two) == ["RBF", "Linear"] * 2
    assert names(1.0 + two + 2) == ["Constant", "RBF", "Linear", "Constant"]
    product = 2.0 * RBF * LINEAR
    assert isinstance(product, pgp.Product) and names(product) == ["Constant", "RBF", "Linear"]
    assert names(PERIODIC * product * 3) == ["Periodic", "Constant", "RBF", "Linear", "Constant"]
    assert names(two * product) == ["Sum", "Constant", "RBF", "Linear"]
    assert names(product + two) == ["Product", "RBF", "Linear"]
    assert names(RBF + jnp.asarray(2.0)) == names(RBF + np.float64(2.0)) == ["RBF", "Constant"]
    assert names(np.float64(2.0) * RBF) == names(jnp.asarray(2.0) * RBF) == ["Constant", "RBF"]


def test_terms_and_factors():
    assert RBF.terms(3) == (RBF,) and RBF.factors(3) == (RBF,)
    assert (RBF + (LINEAR + CONSTANT)).terms(3) == (RBF, LINEAR, CONSTANT)
    assert (RBF * (LINEAR * CONSTANT)).factors(3) == (RBF, LINEAR, CONSTANT)
    inside = pgp.ActiveDims(RBF + LINEAR, (0, 2))
    assert [type(term.kernel).__name__ for term in inside.terms(3)] == ["RBF", "Linear"]
    assert [term.dims for term in inside.terms(3)] == [(0, 2), (0, 2)]
    assert [type(f.kernel).__name__ for f in pgp.ActiveDims(RBF * LINEAR, (1,)).factors(3)] == ["RBF", "Linear"]


@pytest.mark.parametrize("name", NAMES)
def test_terms_add_up(name):
    kernel, (X, Z) = KERNELS[name].make(3), inputs(3, name)
    terms = kernel.terms(3)
    assert not any(isinstance(term, pgp.Sum) for term in terms)
    total = sum(np.asarray(evaluate(term, X, Z)[0]) for term in terms)
    np.testing.assert_allclose(total, evaluate(kernel, X, Z)[0], rtol=1e-13, atol=1e-14)


def test_active_dims_see_nothing_else():
    kernel = pgp.ActiveDims(pgp.RBF(1.0, [0.5, 2.0]), [2, 0])
    X, Z = points(4, 3), points(3, 3, seed=1)
    (value, *_), (expected, *_) = evaluate(kernel, X, Z), evaluate(kernel.kernel, X[:, [2, 0]], Z[:, [2, 0]])
    np.testing.assert_array_equal(value, expected)
    moved = X + np.array([0.0, 5.0, 0.0])
    np.testing.assert_array_equal(evaluate(kernel, moved, Z)[0], value)
    assert kernel.dims == (2, 0)


def test_limits():
    X, gaussian = points(5, 2), pgp.RBF(1.0, 0.8)
    limit = KERNELS["RBF"].formula(gaussian, X, X)
    wide = pgp.RationalQuadratic(1.0, 0.8, 1e8)
    np.testing.assert_allclose(evaluate(wide, X, X)[0], limit, atol=1e-7)  # r⁴/8α
    # Matérn-ν differs from its limit by terms of order r⁴/8ν.
    np.testing.assert_allclose(evaluate(pgp.Matern(60.5, 1.0, 0.8), X, X)[0], limit, atol=5e-3)


def test_a_kernel_needs_its_matrix_only():
    class Triangle(pgp.AbstractKernel):
        width: jax.Array

        def matrix(self, X, Z):
            return jnp.maximum(1 - jnp.abs(X[:, None, 0] - Z[None, :, 0]) / self.width, 0)

    kernel = 2.0 * Triangle(jnp.asarray(1.0)) + CONSTANT
    X = np.linspace(0, 2, 5)[:, None]
    np.testing.assert_allclose(kernel(X, X), 2 * np.maximum(1 - np.abs(X - X.T), 0) + 0.4, rtol=1e-14)
    np.testing.assert_allclose(kernel.diag(X), np.full(5, 2.4), rtol=1e-14)
    with pytest.raises(TypeError, match="abstract"):
        pgp.AbstractKernel()


@pytest.mark.parametrize("name", KERNELS)
def test_smoothness_is_half_the_number_of_derivatives_of_the_kernel(name):
    row = KERNELS[name]
    for dim in row.dims:
        smoothness = row.make(dim).smoothness(dim)
        assert smoothness == row.smooth / 2 if row.smooth < 8 else smoothness >= 4


def test_a_kernel_that_does_not_say_how_smooth_it_is_is_believed_with_a_warning():
    class Own(pgp.AbstractKernel):
        def matrix(self, X, Z):
            return 1 + X @ Z.T

    with pytest.warns(UserWarning, match="`Own` does not say how often.*method `smoothness"):
        assert Own().smoothness(2) == np.inf
    with pytest.warns(UserWarning, match="`Own`"):
        assert (Own() + pgp.Matern(1.5, 1.0, 1.0)).smoothness(2) == 1


def test_features_of_a_kernel_of_ones_own_are_any_callable():
    class Phi(eqx.Module):
        def __call__(self, X):
            return jnp.concatenate([jnp.ones_like(X), X], axis=1)

    class Affine(pgp.AbstractKernel):
        basis: Any = Phi()

        def matrix(self, X, Z):
            return 1 + X @ Z.T

        def basis_size(self, dim):
            return 1 + dim

        def features(self, n_features, dim, *, key, basis):
            return self.basis

    X = jnp.linspace(-1, 1, 6)[:, None]
    at = jnp.asarray([[0.3], [2.0]])
    for kernel in (Affine(), Affine() + pgp.RBF(0.1, 1.0), 2.0 * Affine()):
        posterior = pgp.GPPrior(kernel=kernel, X=X).condition(X[:, 0], 0.1)
        paths = pgp.PathwiseSampler(posterior, 64).sample_paths(jax.random.key(0), 2)
        assert paths(at).shape == (2, 2)
        if not isinstance(kernel, pgp.Sum):  # the basis is exact
            np.testing.assert_allclose(paths.marginal_variance(at), posterior.variance(at), rtol=1e-9)
    for wrong, words in ((3, "must return a basis.*got int"), (lambda X: X[:, 0], r"made shape \(1,\)")):
        posterior = pgp.GPPrior(kernel=Affine(wrong), X=X).condition(X[:, 0], 0.1)
        with pytest.raises(ValueError, match=words):
            pgp.PathwiseSampler(posterior, 8).sample_paths(jax.random.key(0))


def test_the_order_of_an_arc_cosine_kernel_may_be_a_whole_float():
    X = jnp.asarray([[0.5, 1.0], [-1.0, 0.2]])
    np.testing.assert_array_equal(*(evaluate(pgp.ArcCosine(1.0, order), X, X)[0] for order in (1.0, 1)))
    with pytest.raises(ValueError, match=r"must be 0, 1 or 2; got 1\.5"):
        pgp.ArcCosine(1.0, 1.5)


def test_a_category_that_there_is_not_is_named_under_plain_jit():
    kernel = pgp.Coregionalised(pgp.RBF(1.0, 1.0), np.ones((2, 1)), [0.1, 0.1])
    with pytest.raises(Exception, match="`X` holds a value that is not one of the categories"):
        jax.jit(lambda X: kernel(X, X))(jnp.asarray([[0.5, 2.0]])).block_until_ready()
