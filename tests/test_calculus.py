"""Derivatives and integrals of paths against closed forms, finite differences and each other."""

import dataclasses
import functools
import math
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
from tables import CALLS, Counted

import pathwise_gp as pgp
from pathwise_gp import calculus

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X2 = RNG.uniform(-1, 1, (12, 2))
Y2 = np.sin(3 * X2[:, 0]) + X2[:, 1]
TEST2 = RNG.uniform(-1, 1, (5, 2))
BOX2 = np.asarray([[-1.0, -0.6], [0.9, 1.2]])


def posterior(kernel, dim=2, mean=0.0, dtype=None):
    X = jnp.asarray(X2[:, :dim], dtype)
    return pgp.GPPrior(kernel=kernel, X=X, mean=mean, jitter=1e-6).condition(jnp.asarray(Y2, dtype), 0.01)


def draw(kernel, n_paths=3, n_features=64, dim=2, mean=0.0, **options):
    sampler = pgp.PathwiseSampler(posterior(kernel, dim, mean), n_features=n_features, **options)
    return sampler.sample_paths(KEY, n_paths)


def doubled(leaf):
    return jnp.asarray(np.stack([leaf, 2 * np.asarray(leaf)]))


PATHS = draw(pgp.RBF(1.2, [0.6, 0.9]))
OTHERS = draw(pgp.RBF(0.8, [0.5, 0.5]))
PATHS1 = draw(pgp.RBF(1.2, 0.5), dim=1)
ENSEMBLE = pgp.PathEnsemble(
    varying=jax.tree.map(doubled, eqx.filter(PATHS, lambda a: a is PATHS.weights)),
    common=eqx.filter(PATHS, lambda a: a is not PATHS.weights),
)
BATCHES = {"one": PATHS[1], "batch": PATHS, "ensemble": ENSEMBLE}


def scalar(X):
    """sin(x) e^{2y}, twice: as two paths."""
    f = jnp.sin(X[..., 0]) * jnp.exp(2 * X[..., 1])
    return jnp.stack([f, 3 * f])


def field(X):
    """(x²y, −xy + y³)."""
    x, y = X[..., 0], X[..., 1]
    return jnp.stack([x**2 * y, -x * y + y**3], axis=-1)


def space(X):
    """(yz, x²z, x + y² + z²)."""
    x, y, z = X[..., 0], X[..., 1], X[..., 2]
    return jnp.stack([y * z, x**2 * z, x + y**2 + z**2], axis=-1)


def differences(function, X, h=1e-5):
    """Central differences, on a new last axis."""
    X, d = np.asarray(X), X.shape[-1]
    return np.stack([(function(X + h * e) - function(X - h * e)) / (2 * h) for e in np.eye(d)], axis=-1)


# --- derivatives


def test_closed_forms():
    x, y = TEST2.T
    s, c, e = np.sin(x), np.cos(x), np.exp(2 * y)
    check = lambda operator, wanted: np.testing.assert_allclose(operator(scalar)(TEST2)[1], 3 * wanted, rtol=1e-12)
    check(calculus.gradient, np.stack([c * e, 2 * s * e], -1))
    check(calculus.hessian, np.stack([np.stack([-s, 2 * c], -1), np.stack([2 * c, 4 * s], -1)], -1) * e[:, None, None])
    check(calculus.laplacian, 3 * s * e)
    check(lambda f: calculus.directional_derivative(f, np.asarray([2.0, -1.0])), (2 * c - 2 * s) * e)
    turned = lambda X: jnp.stack([-X[..., 1], X[..., 0]], axis=-1)
    check(lambda f: calculus.directional_derivative(f, turned), (-y * c + 2 * x * s) * e)
    J = np.moveaxis(np.array([[2 * x * y, x**2], [-y, -x + 3 * y**2]]), -1, 0)
    np.testing.assert_allclose(calculus.jacobian(field)(TEST2), J, rtol=1e-12)
    np.testing.assert_allclose(calculus.divergence(field)(TEST2), 2 * x * y - x + 3 * y**2, rtol=1e-12)
    np.testing.assert_allclose(calculus.curl(field)(TEST2), -y - x**2, rtol=1e-12)
    X = RNG.normal(size=(4, 3))
    x, y, z = X.T
    np.testing.assert_allclose(calculus.divergence(space)(X), 2 * z, rtol=1e-12)
    np.testing.assert_allclose(
        calculus.curl(space)(X), np.stack([2 * y - x**2, y - 1, 2 * x * z - z], -1), rtol=1e-9, atol=1e-14
    )


@pytest.mark.parametrize("kind", BATCHES)
def test_shapes_follow_the_paths_and_values_finite_differences(kind):
    paths = BATCHES[kind]
    s = paths.shape
    gradient, hessian, laplacian = calculus.gradient(paths), calculus.hessian(paths), calculus.laplacian(paths)
    slopes, bends = np.asarray(gradient(TEST2)), np.asarray(hessian(TEST2))
    np.testing.assert_allclose(slopes, differences(paths, TEST2), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(bends, differences(gradient, TEST2), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(laplacian(TEST2), np.trace(bends, axis1=-2, axis2=-1), rtol=1e-10, atol=1e-11)
    shape = lambda f, X: eqx.filter_eval_shape(f, X).shape
    assert shape(gradient, TEST2[0]) == (*s, 2)
    assert shape(laplacian, TEST2[0]) == s == gradient.shape
    assert shape(gradient, TEST2[:4].reshape(2, 2, 2)) == (*s, 2, 2, 2)
    assert shape(gradient, TEST2[:0]) == (*s, 0, 2)
    if kind == "one":  # of one path by reverse derivatives
        np.testing.assert_allclose(slopes, jax.vmap(jax.grad(paths))(TEST2), rtol=1e-10)


def test_a_derivative_is_a_path_like_its_own():
    gradient = calculus.gradient(PATHS)
    values = np.asarray(gradient(TEST2))
    assert len(gradient) == 3
    np.testing.assert_allclose(np.stack([path(TEST2) for path in gradient]), values, rtol=1e-12)
    np.testing.assert_allclose(gradient[1:](TEST2), values[1:], rtol=1e-12)
    own = np.broadcast_to(TEST2, (3, 5, 2)) + np.arange(3.0)[:, None, None]
    wanted = np.stack([path(x) for path, x in zip(gradient, own, strict=True)])
    np.testing.assert_allclose(jax.jit(gradient.paired)(own), wanted, rtol=1e-10)
    for copied in (pickle.loads(pickle.dumps(gradient)), jax.tree.map(lambda leaf: leaf, gradient)):
        np.testing.assert_array_equal(copied(TEST2), values)
    np.testing.assert_allclose(eqx.filter_jit(lambda g, X: g(X))(gradient, TEST2), values, rtol=1e-12)
    np.testing.assert_allclose(jax.vmap(gradient, out_axes=1)(TEST2), values, rtol=1e-10)


def test_one_dimension():
    f = lambda X: jnp.sin(3 * X[..., 0])
    x = TEST2[:, :1]
    np.testing.assert_allclose(calculus.gradient(f)(x), 3 * np.cos(3 * x), rtol=1e-12)
    np.testing.assert_allclose(calculus.hessian(f)(x), -9 * np.sin(3 * x)[:, :, None], rtol=1e-12)
    np.testing.assert_allclose(calculus.laplacian(f)(x), -9 * np.sin(3 * x[:, 0]), rtol=1e-12)
    np.testing.assert_allclose(calculus.divergence(calculus.gradient(f))(x), -9 * np.sin(3 * x[:, 0]), rtol=1e-12)
    np.testing.assert_allclose(calculus.gradient(f)(x[0]), 3 * np.cos(3 * x[0]), rtol=1e-12)


@functools.cache
def outputs():
    """Paths of two outputs in two dimensions."""
    kernel = pgp.Coregionalised(pgp.RBF(1.2, 0.7), np.array([[1.0], [0.5]]), np.array([0.2, 0.3]))
    mean = pgp.OutputMeans(np.array([0.3, -0.2]))
    prior = pgp.GPPrior(kernel=kernel, X=pgp.AllOutputs(X2, 2), mean=mean, jitter=1e-6)
    posterior = prior.condition(np.stack([Y2, -X2[:, 1]], axis=1), 0.01)
    return pgp.PathwiseSampler(posterior, n_features=64).sample_paths(KEY, 2).outputs


@functools.cache
def with_own_features():
    return draw(0.7 * pgp.RBF(1.2, 0.8), n_features=16, mean=0.4, share_features=False)


def test_paths_of_several_outputs_are_fields():
    paths = outputs()
    divergence = calculus.divergence(paths)
    J, values = np.asarray(calculus.jacobian(paths)(TEST2)), np.asarray(divergence(TEST2))
    assert J.shape == (2, 5, 2, 2)
    np.testing.assert_allclose(J, differences(paths, TEST2), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(values, J[..., 0, 0] + J[..., 1, 1], rtol=1e-10)
    np.testing.assert_allclose(divergence(TEST2[0]), values[:, 0], rtol=1e-10)
    own = np.broadcast_to(TEST2, (2, 5, 2))
    np.testing.assert_allclose(jax.jit(divergence.paired)(own), values, rtol=1e-10)
    values = np.moveaxis(np.asarray(paths(RULE2.points)), 1, -1) @ WEIGHTS2
    np.testing.assert_allclose(calculus.integrate(paths, RULE2), values, rtol=1e-12)
    np.testing.assert_allclose(calculus.integrate_exactly(paths[1], BOX2), values[1], rtol=1e-10, atol=1e-10)
    ensemble = pgp.PathEnsemble(
        varying=jax.tree.map(doubled, eqx.filter(paths, lambda a: a is paths.weights)),
        common=eqx.filter(paths, lambda a: a is not paths.weights),
    )
    exact = np.asarray(calculus.integrate_exactly(ensemble, BOX2))
    np.testing.assert_allclose(exact[0], values, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(exact, calculus.integrate(ensemble, RULE2), rtol=1e-10, atol=1e-10)


def test_no_points_and_no_paths():
    none, tests = PATHS[:0], lambda X: jnp.stack([X[..., 0], X[..., 1], X[..., 0]])
    assert calculus.gradient(none)(TEST2).shape == (0, 5, 2)
    assert calculus.divergence(calculus.gradient(none))(TEST2[:0]).shape == (0, 0)
    assert calculus.integrate(none, RULE2).shape == calculus.integrate_exactly(none, BOX2).shape == (0,)
    assert calculus.inner_product(none, tests, RULE2).shape == (0, 3)
    assert calculus.inner_product(tests, none, RULE2).shape == (3, 0)
    assert calculus.flux(lambda X: jnp.zeros((0, *X.shape)), SPHERE).shape == (0,)
    assert calculus.integrate_exactly(with_own_features()[:0], BOX2).shape == (0,)


def test_what_functions_may_return():
    inside = lambda X: X[..., 0] > 0.5
    share = WEIGHTS2 @ np.asarray(POINTS2[:, 0] > 0.5)
    for made in (inside, lambda X: inside(X).astype(int)):
        np.testing.assert_allclose(calculus.integrate(made, RULE2), share, rtol=1e-12)
    product = calculus.inner_product(inside, lambda X: 0.5 * jnp.ones_like(X[..., 0]), RULE2)
    np.testing.assert_allclose(product, share / 2, rtol=1e-12)
    assert jax.eval_shape(lambda rule: calculus.integrate(lambda X: [X[..., 1], X[..., 0]], rule), RULE2).shape == (2,)
    np.testing.assert_array_equal(calculus.gradient(inside)(TEST2), 0)
    turned = calculus.line(lambda t: [jnp.cos(t), jnp.sin(t)], 0.0, 1.0, 3)
    np.testing.assert_allclose(np.sum(turned.weights), 1.0, rtol=1e-12)
    # A point by itself needs no axis of points.
    np.testing.assert_allclose(calculus.gradient(lambda x: jnp.sum(x**2))(TEST2[0]), 2 * TEST2[0], rtol=1e-12)
    field_of_lists = calculus.VectorField([lambda X: X[..., 0], lambda X: X[..., 1]])
    np.testing.assert_array_equal(field_of_lists(TEST2), TEST2)


def test_sums_over_dimensions_do_not_keep_their_terms():
    f = lambda X: jnp.sin(jnp.sum(X, axis=-1)[None, :] * jnp.arange(1.0, 26.0)[:, None])
    for operator in (calculus.laplacian(f), calculus.divergence(lambda X: f(X)[..., None] * X[None])):
        temporaries = [
            jax.jit(operator).lower(jnp.zeros((500, d))).compile().memory_analysis().temp_size_in_bytes for d in (2, 40)
        ]
        # The derivative of a field has 40 components in place of 2; beyond that there is one sum of values, not 40 terms.
        components = 38 if operator.operator.of_fields else 0
        assert temporaries[1] - temporaries[0] < (components + 10) * 25 * 500 * 8


def test_single_precision_stays():
    to_single = lambda leaf: jnp.asarray(np.asarray(leaf, np.float32))
    paths, X, box = jax.tree.map(to_single, (PATHS, TEST2, BOX2))
    for operator in (calculus.gradient, calculus.hessian, calculus.laplacian):
        values = operator(paths)(X)
        assert values.dtype == jnp.float32
        assert np.isfinite(values).all()
    rule = calculus.gauss_legendre(box, 12)
    assert rule.points.dtype == rule.weights.dtype == jnp.float32
    exact, approximate = calculus.integrate_exactly(paths, box), calculus.integrate(paths, rule)
    assert exact.dtype == approximate.dtype == jnp.float32
    np.testing.assert_allclose(exact, approximate, rtol=1e-4, atol=1e-4)


def test_operators_compose():
    gradient = calculus.gradient(PATHS)
    np.testing.assert_allclose(calculus.divergence(gradient)(TEST2), calculus.laplacian(PATHS)(TEST2), rtol=1e-10)
    np.testing.assert_allclose(calculus.jacobian(gradient)(TEST2), calculus.hessian(PATHS)(TEST2), rtol=1e-10)
    np.testing.assert_allclose(calculus.curl(gradient)(TEST2), 0, atol=1e-12)
    by_parts = calculus.laplacian(gradient)(TEST2)
    np.testing.assert_allclose(by_parts, calculus.gradient(calculus.laplacian(PATHS))(TEST2), rtol=1e-8, atol=1e-9)
    # In space, and the divergence of a curl.
    X = RNG.normal(size=(4, 3))
    rough = calculus.VectorField(tuple(lambda X, a=a: jnp.sin(X[..., a] * X[..., a - 1]) * X[..., 0] for a in range(3)))
    np.testing.assert_allclose(calculus.divergence(calculus.curl(rough))(X), 0, atol=1e-12)
    np.testing.assert_allclose(calculus.curl(calculus.gradient(lambda X: jnp.sin(X).prod(-1)))(X), 0, atol=1e-13)


def test_fields_of_several_paths():
    parts = (PATHS, OTHERS)
    J = np.asarray(calculus.jacobian(parts)(TEST2))
    assert J.shape == (3, 5, 2, 2)
    np.testing.assert_allclose(J[..., 1, :], calculus.gradient(parts[1])(TEST2), rtol=1e-10)
    np.testing.assert_allclose(calculus.divergence(parts)(TEST2), J[..., 0, 0] + J[..., 1, 1], rtol=1e-10)
    np.testing.assert_allclose(calculus.curl(parts)(TEST2), J[..., 1, 0] - J[..., 0, 1], rtol=1e-10)
    whole = calculus.VectorField(parts)
    assert whole.shape == (3,)
    values = np.asarray(whole(TEST2))
    np.testing.assert_allclose(whole[2](TEST2), values[2], rtol=1e-10)
    own = np.broadcast_to(TEST2, (3, 5, 2))
    np.testing.assert_allclose(whole.paired(own), values, rtol=1e-10)


def test_many_points_are_taken_in_blocks():
    X = RNG.uniform(-1, 1, (2, 1500, 2))
    for operator in (calculus.gradient, calculus.hessian, calculus.laplacian):
        whole, some = np.asarray(operator(PATHS)(X)), np.asarray(operator(PATHS)(X[1, 7::300]))
        np.testing.assert_allclose(whole[:, 1, 7::300], some, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(
        np.asarray(calculus.jacobian(field)(X))[1, 7::300], calculus.jacobian(field)(X[1, 7::300]), rtol=1e-12
    )

    def temporaries(n):
        compiled = eqx.filter_jit(calculus.hessian(PATHS)).lower(jnp.zeros((n, 2))).compile().compiled
        return compiled.memory_analysis().temp_size_in_bytes - n * 3 * 4 * 8

    assert temporaries(80_000) < 1.5 * temporaries(20_000) + 60_000 * 3 * 4 * 8


def test_other_paths_of_the_structure_compile_nothing_anew():
    first, second = (dataclasses.replace(PATHS, kernel=Counted(pgp.RBF(v, [0.6, 0.6]))) for v in (1.0, 1.1))
    gradient = lambda paths, v: (
        calculus.gradient(paths)(TEST2),
        calculus.directional_derivative(paths, np.asarray([v, 1.0]))(TEST2),
        calculus.integrate(paths, calculus.gauss_legendre(BOX2 * v, 5)),
    )
    gradient(first, 1.0)
    CALLS.clear()
    gradient(second, 1.1)
    gradient(calculus.gradient(first).paths, 1.2)
    assert not CALLS


def test_derivatives_in_the_hyperparameters():
    @jax.jit
    @jax.value_and_grad
    def value(lengthscale):
        paths = draw(pgp.RBF(1.2, lengthscale), n_paths=2)
        box = BOX2 * lengthscale
        return jnp.sum(calculus.gradient(paths)(TEST2) ** 2) + jnp.sum(calculus.integrate_exactly(paths, box))

    above, below = (value(0.7 + step)[0] for step in (1e-5, -1e-5))
    np.testing.assert_allclose(value(0.7)[1], (above - below) / 2e-5, rtol=1e-5)


def test_derivatives_have_the_covariance_of_the_kernels_derivatives():
    # Of a prior: Cov(∂_i f(x), ∂_j f(z)) = ∂_{x_i} ∂_{z_j} k(x, z), and of a posterior what its mean and covariance give.
    kernel, n = pgp.RBF(1.2, [0.6, 0.9]), 1000
    made = posterior(kernel)
    paths = pgp.PathwiseSampler(made, n_features=1024).sample_paths(KEY, n)
    points = TEST2[:2]
    values = np.asarray(calculus.gradient(paths)(points)).reshape(n, 4)
    A = kernel(X2, X2) + (0.01 + 1e-6) * np.eye(12)

    @jax.jit
    def moments(X):
        k = lambda x, z: kernel(x, z) - kernel(x, X2) @ jnp.linalg.solve(A, kernel(X2, z))
        second = jax.vmap(jax.vmap(jax.jacfwd(jax.grad(k, 0), 1), (None, 0)), (0, None))
        return jax.vmap(jax.grad(made.mean))(X), jnp.swapaxes(second(X, X), 1, 2)

    mean, covariance = (np.asarray(found).reshape(4, -1) for found in moments(points))
    sd = np.sqrt(np.diag(covariance))
    assert (np.abs(values.mean(0) - mean[:, 0]) < 4.5 * sd / n**0.5).all()
    error = np.sqrt((np.outer(sd, sd) ** 2 + covariance**2) / n)
    # 1024 features leave a hundredth of the variance.
    assert (np.abs(np.cov(values.T) - covariance) < 4.5 * error + 0.01 * np.outer(sd, sd)).all()


# --- rules


def monomial_integral(powers, bounds):
    lower, upper = np.asarray(bounds)
    return np.prod([(b ** (p + 1) - a ** (p + 1)) / (p + 1) for p, a, b in zip(powers, lower, upper, strict=True)])


def of_rule(rule, powers):
    return float(np.sum(rule.weights * np.prod(np.asarray(rule.points) ** np.asarray(powers), axis=1)))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_gauss_legendre_is_exact_to_its_degree(n):
    rule = calculus.gauss_legendre(BOX2, [n, n + 1])
    for powers in [(2 * n - 1, 0), (2 * n - 1, 2 * n + 1), (0, 2 * n + 1)]:
        np.testing.assert_allclose(of_rule(rule, powers), monomial_integral(powers, BOX2), rtol=1e-12)
    assert abs(of_rule(rule, (2 * n, 0)) / monomial_integral((2 * n, 0), BOX2) - 1) > 1e-4


@pytest.mark.parametrize(("dim", "level"), [(1, 3), (2, 1), (2, 3), (3, 2), (4, 3), (6, 2)])
def test_sparse_grids_are_exact_to_their_total_degree(dim, level):
    bounds = np.stack([np.linspace(-1, -0.3, dim), np.linspace(0.5, 1.2, dim)])
    rule = calculus.sparse_grid(bounds, level)
    assert len(np.unique(np.round(rule.points, 12), axis=0)) == len(rule.points)
    for _ in range(20):
        powers = np.bincount(RNG.integers(0, dim, 2 * level + 1), minlength=dim)
        np.testing.assert_allclose(of_rule(rule, powers), monomial_integral(powers, bounds), rtol=1e-10, atol=1e-12)
    # Beyond it is not; in one dimension a rule of 2^level + 1 points is exact to a higher degree.
    powers = np.zeros(dim, int)
    powers[: min(dim, level + 1)] = 2
    if dim > level:
        assert abs(of_rule(rule, powers) / monomial_integral(powers, bounds) - 1) > 1e-4
    if level == 1:
        assert len(rule.points) == 2 * dim + 1


def test_rules_in_many_dimensions():
    for dim in (20, 70):
        bounds = np.stack([np.zeros(dim), np.ones(dim)])
        rule = calculus.sparse_grid(bounds, 1)
        assert rule.points.shape == (2 * dim + 1, dim)
        powers = np.eye(dim, dtype=int)[3] * 3
        np.testing.assert_allclose(of_rule(rule, powers), 1 / 4, rtol=1e-10)
        np.testing.assert_allclose(calculus.gauss_legendre(bounds, 1).points, np.full((1, dim), 0.5))
    rule = calculus.sparse_grid(bounds, 2)
    np.testing.assert_allclose(of_rule(rule, powers // 3 * 2 + np.eye(dim, dtype=int)[9] * 3), 1 / 12, rtol=1e-8)


def test_fine_rules():
    # Of 2¹⁸ + 1 points in one dimension: their weights take no matrix.
    rule = calculus.sparse_grid(np.array([[0.0], [2.0]]), 18)
    assert rule.points.shape == (2**18 + 1, 1)
    np.testing.assert_allclose(rule.weights @ np.abs(np.asarray(rule.points)[:, 0] - 1.0), 1.0, rtol=1e-8)


def test_sparse_grids_converge():
    f = lambda X: jnp.exp(X.sum(-1))
    bounds = np.stack([np.zeros(4), np.ones(4)])
    exact = (math.e - 1) ** 4
    errors = [abs(calculus.integrate(f, calculus.sparse_grid(bounds, k)) / exact - 1) for k in (1, 3, 5)]
    assert errors[0] > 100 * errors[1] > 1e4 * errors[2]
    assert errors[2] < 1e-9


def circle(t):
    return jnp.stack([0.2 + 0.5 * jnp.cos(t), 0.5 * jnp.sin(t)])


def sphere(u):
    polar, azimuth = u[0], u[1]
    return 0.7 * jnp.stack([jnp.sin(polar) * jnp.cos(azimuth), jnp.sin(polar) * jnp.sin(azimuth), jnp.cos(polar)])


SPHERE = calculus.surface(sphere, np.array([[0.0, 0.0], [np.pi, 2 * np.pi]]), 24)


def test_lines():
    rule = calculus.line(circle, 0.0, 2 * np.pi, 20)
    np.testing.assert_allclose(np.sum(rule.weights), np.pi, rtol=1e-12)
    np.testing.assert_allclose(
        calculus.integrate(lambda X: X[..., 0] ** 2, rule), np.pi * (0.2**2 + 0.5**2 / 2), rtol=1e-12
    )
    # A gradient has the difference of its potential, on a path of three dimensions too.
    helix = lambda t, xp=jnp: xp.stack([xp.cos(t), xp.sin(t), t**2])
    f = lambda X: X[..., 0] * X[..., 2] + X[..., 1]
    in_space = calculus.line(helix, 0.3, 1.5, 20)
    work = calculus.circulation(calculus.gradient(f), in_space)
    np.testing.assert_allclose(work, f(helix(1.5, np)) - f(helix(0.3, np)), rtol=1e-12)
    assert in_space.normals is None
    # The same curve from its end to its beginning: its right is what was its left.
    there, back = calculus.line(circle, 0.2, 1.5, 20), calculus.line(circle, 1.5, 0.2, 20)
    np.testing.assert_allclose(np.sum(back.weights), 0.5 * 1.3, rtol=1e-12)
    for name in ("points", "weights", "tangents", "normals"):
        sign = -1 if name in ("tangents", "normals") else 1
        np.testing.assert_allclose(getattr(back, name), sign * np.asarray(getattr(there, name))[::-1], atol=1e-14)
    length = lambda a: jnp.sum(calculus.line(lambda t: a * circle(t), 0.0, a, 20).weights)
    np.testing.assert_allclose(jax.jit(jax.grad(length))(0.8), 0.8, rtol=1e-8)


def test_surfaces():
    np.testing.assert_allclose(np.sum(SPHERE.weights), 4 * np.pi * 0.49, rtol=1e-12)
    np.testing.assert_allclose(SPHERE.normals, np.asarray(SPHERE.points) / 0.7, atol=1e-12)
    np.testing.assert_allclose(calculus.integrate(lambda X: X[..., 2] ** 2, SPHERE), 4 * np.pi * 0.7**4 / 3, rtol=1e-10)
    # A disc in the plane by polar coordinates, and a torus in four dimensions.
    disc = calculus.surface(
        lambda u: u[0] * jnp.stack([jnp.cos(u[1]), jnp.sin(u[1])]), np.array([[0.0, 0.0], [2.0, 2 * np.pi]]), 9
    )
    np.testing.assert_allclose(np.sum(disc.weights), 4 * np.pi, rtol=1e-12)
    assert disc.normals is None
    torus = lambda u: jnp.stack([jnp.cos(u[0]), jnp.sin(u[0]), 2 * jnp.cos(u[1]), 2 * jnp.sin(u[1])])
    flat = calculus.surface(torus, np.array([[0.0, 0.0], [2 * np.pi, 2 * np.pi]]), 9)
    np.testing.assert_allclose(np.sum(flat.weights), 8 * np.pi**2, rtol=1e-12)


# --- integrals


def test_theorems_on_paths():
    """Gauss's in the plane and Green's on a disc, for fields of Gaussian processes; Gauss's in space on a ball."""
    disc = calculus.surface(
        lambda u: circle(u[1]) * u[0] + (1 - u[0]) * jnp.asarray([0.2, 0.0]),
        np.array([[0.0, 0.0], [1.0, 2 * np.pi]]),
        30,
    )
    edge = calculus.line(circle, 0.0, 2 * np.pi, 40)
    whole = calculus.VectorField((PATHS, OTHERS))
    out = calculus.flux(whole, edge)
    assert out.shape == (3,)
    np.testing.assert_allclose(out, calculus.integrate(calculus.divergence(whole), disc), rtol=1e-9, atol=1e-10)
    around = calculus.circulation(whole, edge)
    np.testing.assert_allclose(around, calculus.integrate(calculus.curl(whole), disc), rtol=1e-9, atol=1e-10)
    # Green's first identity: ∫ ∇f·∇g + f Δg = ∫ f ∂g/∂n.
    f, g = PATHS[0], PATHS[1]
    weak = calculus.inner_product(calculus.gradient(f), calculus.gradient(g), disc)
    weak = float(weak) + float(calculus.inner_product(f, calculus.laplacian(g), disc))
    normal = lambda X: f(X)[..., None] * calculus.gradient(g)(X)
    np.testing.assert_allclose(weak, calculus.flux(normal, edge), rtol=1e-9)
    ball = calculus.surface(lambda v: v[0] * sphere(v[1:]), np.array([[0.0, 0.0, 0.0], [1.0, np.pi, 2 * np.pi]]), 12)
    np.testing.assert_allclose(np.sum(ball.weights), 4 / 3 * np.pi * 0.7**3, rtol=1e-10)
    inner = calculus.integrate(calculus.divergence(space), ball)
    np.testing.assert_allclose(calculus.flux(space, SPHERE), inner, atol=1e-10)


def test_integrals_of_many_points_are_taken_in_blocks():
    rule = calculus.gauss_legendre(BOX2, 70)
    weights, points = np.asarray(rule.weights), np.asarray(rule.points)
    values = np.asarray(ENSEMBLE(points))
    np.testing.assert_allclose(calculus.integrate(PATHS, rule), values[0] @ weights, rtol=1e-12)
    np.testing.assert_allclose(calculus.integrate(PATHS, RULE2), values[0] @ weights, rtol=1e-10)
    np.testing.assert_allclose(
        calculus.integrate(field, rule), weights @ np.asarray(jax.jit(field)(points)), rtol=1e-12
    )
    tests = lambda X, xp=jnp: xp.stack([X[..., 0], xp.sin(X[..., 1]), xp.ones_like(X[..., 0])])
    products = calculus.inner_product(ENSEMBLE, tests, rule)
    assert products.shape == (2, 3, 3)
    wanted = np.einsum("asn,tn,n->ast", values, tests(points, np), weights)
    np.testing.assert_allclose(products, wanted, rtol=1e-10, atol=1e-12)
    # Reverse derivatives over blocks are those of one block.
    slope = lambda n: jax.jit(
        jax.grad(lambda a: calculus.integrate(PATHS[0], calculus.gauss_legendre(BOX2 * a, n)) ** 2)
    )
    np.testing.assert_allclose(slope(70)(0.9), slope(20)(0.9), rtol=1e-10)
    # Any points and weights are a rule.
    mine = calculus.Quadrature(points[5:10], weights[5:10])
    np.testing.assert_allclose(calculus.integrate(PATHS, mine), values[0, :, 5:10] @ weights[5:10], rtol=1e-12)

    def temporaries(m):
        rule = calculus.Quadrature(jnp.zeros((m, 2)), jnp.ones(m))
        compiled = jax.jit(lambda r: calculus.integrate(PATHS, r)).lower(rule).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(80_000) < 2 * temporaries(20_000)


RULE2 = calculus.gauss_legendre(BOX2, 30)
POINTS2, WEIGHTS2 = np.asarray(RULE2.points), np.asarray(RULE2.weights)
KERNELS = {
    "rbf": lambda: pgp.RBF(1.2, [0.6, 0.9]),
    "scaled": lambda: 0.7 * pgp.RBF(1.2, 0.8),
    "sum": lambda: 0.3 * pgp.RBF(1.0, [0.5, 1.1]) + pgp.Constant(0.5) + pgp.White(0.1),
    "multiples of sums": lambda: (
        0.7 * (pgp.RBF(1.2, 0.8) + 0.6 * pgp.Constant(0.5)) + pgp.White(0.1) * pgp.RBF(1.0, 1.0)
    ),
    "additive": lambda: pgp.ActiveDims(pgp.RBF(1.2, 0.8), [1]) + 0.4 * pgp.ActiveDims(pgp.RBF(1.0, 0.6), [0]),
    "product": lambda: (
        pgp.ActiveDims(pgp.RBF(1.2, 0.8), [1]) * (pgp.ActiveDims(pgp.RBF(1.0, 0.6), [0]) + pgp.Constant(0.3))
    ),
    "one of two": lambda: 0.5 * pgp.ActiveDims(pgp.RBF(1.2, 0.8), [1]),
    "nested": lambda: pgp.ActiveDims(pgp.ActiveDims(pgp.RBF(1.2, 0.8), [1]) * pgp.Constant(0.6), [1, 0]),
}
BASES = {"fourier": pgp.MonteCarlo(), "hilbert": pgp.HilbertSpace([[-1.5, -1.5], [1.5, 1.5]])}


def with_kernel(kernel, base="fourier", paths=PATHS):
    """Paths with another kernel and a basis of it; what their weights are does not matter to an integral."""
    features = kernel.features(16, paths.inputs.shape[1], key=KEY, basis=BASES[base])
    n = jax.eval_shape(features, paths.inputs).shape[1]
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(3, n)))
    return dataclasses.replace(
        paths, kernel=kernel, features=features, weights=weights, prior_mean=pgp.ConstantMean(0.4)
    )


@eqx.filter_jit
def exact_and_quadrature(kernel, base):
    """Of paths, and of their features and their update, each by itself."""
    paths = with_kernel(kernel, base)
    update = dataclasses.replace(paths, weights=0 * paths.weights)
    return [(calculus.integrate_exactly(f, BOX2), f(RULE2.points) @ RULE2.weights) for f in (paths, update)]


@pytest.mark.parametrize(
    ("name", "base"),
    [*[(name, "fourier") for name in KERNELS], ("rbf", "hilbert"), ("product", "hilbert"), ("one of two", "hilbert")],
)
def test_closed_forms_are_the_quadrature(name, base):
    for exact, values in exact_and_quadrature(KERNELS[name](), base):
        np.testing.assert_allclose(exact, values, rtol=1e-10, atol=1e-10)


def test_closed_forms_of_single_paths_and_own_features():
    paths = with_own_features()
    values = np.asarray(paths(RULE2.points)) @ WEIGHTS2
    np.testing.assert_allclose(calculus.integrate_exactly(paths, BOX2), values, rtol=1e-10, atol=1e-10)
    one = calculus.integrate_exactly(paths[1], BOX2)
    assert one.shape == ()
    np.testing.assert_allclose(one, values[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5, 3.5])
def test_closed_forms_of_matern_kernels_are_the_quadrature(nu):
    knots = np.r_[-1.3, np.sort(X2[(X2[:, 0] < 0.9), 0]), 0.9]  # where the kernel is not smooth
    nodes, weights = np.polynomial.legendre.leggauss(20)
    half = np.diff(knots)[:, None] / 2
    points = (knots[:-1, None] + half * (1 + nodes)).reshape(-1, 1)
    rule = calculus.Quadrature(points, (half * weights).reshape(-1))

    @jax.jit
    def both(end):
        paths = with_kernel(pgp.Matern(nu, 1.2, 0.5), paths=PATHS1)
        # The tail of the spectrum holds frequencies that need a finer rule.
        slow = eqx.tree_at(lambda p: p.features.frequencies, paths, jnp.clip(paths.features.frequencies, -6, 6))
        area = lambda f, b: calculus.integrate_exactly(f, jnp.stack([jnp.asarray([-1.3]), b[None]]))
        found = [(area(f, end), calculus.integrate(f, rule)) for f in (paths.mean_path, slow)]
        # The derivative in the upper bound is the path there, also where that is an input.
        last = jnp.max(paths.inputs)
        return [*found, (jax.grad(area, 1)(paths.mean_path, last), paths.mean_path(last[None]))]

    (mean, by_rule), (slow, slow_by_rule), (slope, value) = both(0.9)
    np.testing.assert_allclose(mean, by_rule, rtol=1e-11)
    np.testing.assert_allclose(slow, slow_by_rule, atol=1e-11)
    np.testing.assert_allclose(slope, value, rtol=1e-10)


def test_closed_forms_of_ensembles_and_priors():
    exact = calculus.integrate_exactly(ENSEMBLE, BOX2)
    np.testing.assert_allclose(exact, calculus.integrate(ENSEMBLE, RULE2), rtol=1e-10)
    # In eight dimensions, where no grid would do, against a mean of the kernel itself.
    one = jnp.ones(1)
    parts = {"coefficients": one, "mean_coefficients": one, "noise": one, "kernel": pgp.RBF(1.0, 1.5)}
    mean = dataclasses.replace(PATHS.mean_path, inputs=jnp.zeros((1, 8)), **parts)
    box = np.stack([np.full(8, -1.0), np.full(8, 1.0)])
    factor = 1.5 * math.sqrt(2 * math.pi) * math.erf(1 / (1.5 * math.sqrt(2)))
    np.testing.assert_allclose(calculus.integrate_exactly(mean, box), mean(np.zeros(8)) * factor**8, rtol=1e-12)


def test_the_integral_of_the_posterior_has_its_variance():
    """Bayesian quadrature: mean zᵀA⁻¹y and variance ∬k − zᵀA⁻¹z with z = ∫k(x, X)dx (O'Hagan 1991)."""
    variance, scale, noise, n = 1.3, 0.5, 0.05, 2000
    X = np.linspace(-1, 1, 6)[:, None]
    y = np.cos(2 * X[:, 0])
    prior = pgp.GPPrior(kernel=pgp.RBF(variance, scale), X=X, jitter=1e-10)
    a, b = -1.2, 1.5
    k = lambda x, z: variance * np.exp(-0.5 * (x - z) ** 2 / scale**2)
    z = np.array([scipy.integrate.quad(k, a, b, args=(x,))[0] for x in X[:, 0]])
    double = scipy.integrate.dblquad(k, a, b, a, b)[0]
    weights = np.linalg.solve(k(X, X.T) + (noise + 1e-10) * np.eye(6), z)
    paths = pgp.PathwiseSampler(prior.condition(y, noise), n_features=1024).sample_paths(KEY, n)
    bounds = np.array([[a], [b]])
    np.testing.assert_allclose(calculus.integrate_exactly(paths.mean_path, bounds), weights @ y, rtol=1e-8)
    values = np.asarray(calculus.integrate_exactly(paths, bounds))
    wanted = double - z @ weights
    assert abs(values.mean() - weights @ y) < 4 * math.sqrt(wanted / n)
    assert abs(values.var() / wanted - 1) < 4 * math.sqrt(2 / n) + 0.01


# --- errors

REFUSED = {
    "not callable": (lambda: calculus.gradient(3.0), "`paths` must be callable"),
    "direction, shape": (
        lambda: calculus.directional_derivative(PATHS, np.ones((2, 2))),
        r"`v` must have shape \(d,\)",
    ),
    "direction, dim": (lambda: calculus.directional_derivative(PATHS, np.ones(3))(TEST2), "`v` has 3 dimension"),
    "direction, NaN": (
        lambda: calculus.directional_derivative(PATHS, np.asarray([1.0, np.nan])),
        "`v` must be finite",
    ),
    "field of directions": (
        lambda: calculus.directional_derivative(PATHS, lambda X: X[..., 0])(TEST2),
        "`v` must map inputs",
    ),
    "inputs": (lambda: calculus.gradient(PATHS)(TEST2[:, :1]), "`X` must be the input dimension, 2"),
    "scalar input": (lambda: calculus.gradient(PATHS)(jnp.asarray(1.0)), "`X` must be the input dimension"),
    "divergence": (lambda: calculus.divergence(space)(np.zeros((4, 5))), "needs a field with as many components"),
    # Paths of one output, where the number of points or of paths is that of the dimensions.
    "divergence, points": (lambda: calculus.divergence(PATHS)(TEST2[:2]), "`divergence` needs a field"),
    "divergence, paths": (lambda: calculus.divergence(PATHS[:2])(TEST2[0]), "`divergence` needs a field"),
    "divergence, paired": (
        lambda: calculus.divergence(PATHS).paired(np.zeros((3, 2, 2))),
        "`divergence` needs a field",
    ),
    "divergence, matrices": (
        lambda: calculus.divergence(calculus.hessian(PATHS))(TEST2),
        "`divergence` needs a field",
    ),
    "curl, points": (lambda: calculus.curl(PATHS)(TEST2[:2]), "`curl` needs a field"),
    "curl, paths": (lambda: calculus.curl(PATHS[:2])(TEST2[0]), "`curl` needs a field"),
    "curl": (lambda: calculus.curl(space)(np.zeros((4, 5))), "two or three dimensions"),
    "no parts": (lambda: calculus.divergence([]), "`parts` must be a list or tuple"),
    "paths as parts": (lambda: calculus.VectorField(PATHS), "`parts` must be a list or tuple"),
    "parts": (lambda: calculus.divergence([PATHS, PATHS[0]])(TEST2), "must have the same axes"),
    "not pointwise": (lambda: calculus.gradient(lambda x: jnp.sum(x**2))(TEST2), "`paths` must map inputs"),
    "no array": (lambda: calculus.gradient(lambda x: {"x": x})(TEST2), "`paths` must return an array"),
    "a number": (lambda: calculus.integrate(lambda X: 1.0, SPHERE), "`paths` must map inputs"),
    "test function, a number": (
        lambda: calculus.inner_product(PATHS, lambda X: 1.0, RULE2),
        "`test_function` must map inputs",
    ),
    "flux, a number": (lambda: calculus.flux(lambda X: 1.0, SPHERE), "`field` must map inputs"),
    "integral, not pointwise": (
        lambda: calculus.integrate(jnp.sum, SPHERE),
        "`paths` must map inputs",
    ),
    "rule": (lambda: calculus.integrate(PATHS, (1, 2)), "`rule` must be a Quadrature"),
    "test function": (lambda: calculus.inner_product(PATHS, 1.0, SPHERE), "`test_function` must be callable"),
    "components": (
        lambda: calculus.inner_product(PATHS, field, calculus.gauss_legendre(BOX2, 2)),
        "must have the same components",
    ),
    "tangents": (lambda: calculus.circulation(space, SPHERE), "`rule` has no tangents"),
    "normals": (lambda: calculus.flux(field, calculus.gauss_legendre(BOX2, 2)), "`rule` has no normals"),
    "flux": (lambda: calculus.flux(lambda X: X[..., 0], SPHERE), "`field` must have as many components"),
    "weights": (lambda: calculus.Quadrature(np.zeros((3, 2)), np.ones(2)), r"`weights` must have shape \(3,\)"),
    "points": (lambda: calculus.Quadrature(np.zeros(3), np.ones(3)), r"`points` must have shape \(n, d\)"),
    "vectors": (
        lambda: calculus.Quadrature(np.zeros((3, 2)), np.ones(3), tangents=np.ones((3, 1))),
        "`tangents` must have the shape of `points`",
    ),
    "vectors, NaN": (
        lambda: calculus.Quadrature(np.zeros((3, 2)), np.ones(3), normals=np.full((3, 2), np.nan)),
        "`normals` must be finite",
    ),
    "bounds": (lambda: calculus.gauss_legendre(np.zeros(2), 3), r"`bounds` must have shape \(2, d\)"),
    "corners": (lambda: calculus.gauss_legendre(BOX2[::-1], 3), "`bounds` must hold the lower corner first"),
    "bounds, NaN": (lambda: calculus.sparse_grid(BOX2 * np.nan, 3), "`bounds` must be finite"),
    "n": (lambda: calculus.gauss_legendre(BOX2, 0), "`n` must be at least 1"),
    "n, too few": (lambda: calculus.gauss_legendre(BOX2, [3]), "`n` must be one number, or one for each"),
    "n, too many": (lambda: calculus.gauss_legendre(BOX2, 10_000), "`n` asks for 100000000 points"),
    "n, on a line": (
        lambda: calculus.gauss_legendre(BOX2, [1, 3000]),
        "3000 points in one dimension, .* split the box",
    ),
    "line, n": (lambda: calculus.line(circle, 0.0, 1.0, 10**6), "1000000 points in one dimension, .* several rules"),
    "level": (lambda: calculus.sparse_grid(BOX2, 1.5), "`level` must be a whole number"),
    "level, too high": (lambda: calculus.sparse_grid(BOX2, 25), "`level` 25 in 2 dimensions asks for more"),
    "level, far too high": (
        lambda: calculus.sparse_grid(BOX2[:, :1], 10**9),
        "`level` 1000000000 in 1 dimensions asks",
    ),
    "level, dimensions": (
        lambda: calculus.sparse_grid(np.stack([np.zeros(400), np.ones(400)]), 9),
        "`level` 9 in 400 dimensions asks",
    ),
    "line, ends": (lambda: calculus.line(circle, np.zeros(2), 1.0, 3), "`a` must be a scalar"),
    "line, infinite": (lambda: calculus.line(circle, 0.0, np.inf, 3), "`b` must be finite"),
    "line, curve": (lambda: calculus.line(lambda t: t, 0.0, 1.0, 3), "`curve` must return a point"),
    "surface": (lambda: calculus.surface(lambda u: u[:1], BOX2, 3), "`parametrisation` must map 2"),
    "closed form, function": (lambda: calculus.integrate_exactly(field, BOX2), "must be a PathwiseFunction"),
    "closed form, bounds": (lambda: calculus.integrate_exactly(PATHS, BOX2[:, :1]), "`bounds` has 1 dimension"),
    "closed form, kernel": (
        lambda: calculus.integrate_exactly(
            dataclasses.replace(PATHS, kernel=pgp.RationalQuadratic(1.0, 1.0, 1.0)), BOX2
        ),
        "the kernel `RationalQuadratic`, whose integral over a box has no closed form here: use `integrate`",
    ),
    "closed form, dimension": (
        lambda: calculus.integrate_exactly(dataclasses.replace(PATHS, kernel=pgp.Matern(1.5, 1.0, 1.0)), BOX2),
        "Matern in 2",
    ),
    "closed form, product": (
        lambda: calculus.integrate_exactly(
            dataclasses.replace(PATHS, kernel=pgp.RBF(1.0, 1.0) * pgp.Linear(1.0)), BOX2
        ),
        r"the kernel `RBF \* Linear`",
    ),
    "closed form, factors of one dimension": (
        lambda: calculus.integrate_exactly(
            dataclasses.replace(PATHS, kernel=pgp.RBF(1.0, 1.0) * pgp.ActiveDims(pgp.RBF(1.0, 1.0), [0])), BOX2
        ),
        r"the kernel `RBF \* RBF`",
    ),
    "closed form, mean": (
        lambda: calculus.integrate_exactly(dataclasses.replace(PATHS, prior_mean=lambda X: X[:, 0]), BOX2),
        "the mean `function`",
    ),
    "closed form, mean of outputs": (
        lambda: calculus.integrate_exactly(dataclasses.replace(outputs(), prior_mean=lambda X: X), BOX2),
        "the mean `function`",
    ),
}


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize("name", REFUSED)
def test_wrong_uses_are_named(name):
    call, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        call()


def test_a_box_beyond_that_of_the_basis_is_refused():
    exact = eqx.filter_jit(lambda k, box: calculus.integrate_exactly(with_kernel(k, "hilbert"), box))
    with pytest.raises(RuntimeError, match="`bounds` reaches beyond the box"):
        exact(pgp.RBF(1.2, 0.8), 2 * BOX2)


ROUGH = {"Matern 1/2": (pgp.Matern(0.5, 1.0, 1.0), 0), "Matern 3/2": (pgp.Matern(1.5, 1.0, 1.0), 1)}


@pytest.mark.parametrize("name", ROUGH)
def test_derivatives_that_do_not_exist_are_refused(name):
    kernel, smoothness = ROUGH[name]
    paths = dataclasses.replace(PATHS, kernel=kernel)
    ensemble = pgp.PathEnsemble(varying=eqx.filter(paths, False), common=paths, n_axes=1)
    once = {
        "gradient": calculus.gradient,
        "jacobian": calculus.jacobian,
        "along": lambda f: calculus.directional_derivative(f, np.ones(2)),
        "divergence": lambda f: calculus.divergence([f, f]),
        "curl": lambda f: calculus.curl([f, PATHS]),
    }
    twice = {
        "hessian": calculus.hessian,
        "laplacian": calculus.laplacian,
        "nested": lambda f: calculus.gradient(calculus.directional_derivative(f, np.ones(2))),
        "divergence of a gradient": lambda f: calculus.divergence(calculus.gradient(f)),
    }
    for order, operators in ((1, once), (2, twice)):
        for operator in operators.values():
            if smoothness >= order:
                operator(paths)
                continue
            with pytest.raises(
                ValueError, match=f"have {smoothness} derivatives.* one of order .* was asked for|have -?[01] deriv"
            ):
                operator(paths)
            with pytest.raises(ValueError, match="derivatives in each direction"):
                operator(ensemble)
    if smoothness:
        assert np.all(np.isfinite(calculus.gradient(paths)(TEST2)))
    with pytest.raises(
        ValueError, match=f"`paths` of `Matern` have {smoothness} derivatives in each direction, and one of order 2"
    ):
        calculus.hessian(paths)
    # The mean is made of kernels, and twice as smooth; integrals and searches need no derivative that is one.
    assert paths.mean_path.smoothness == 2 * smoothness
    assert np.all(np.isfinite(calculus.integrate(paths, RULE2)))
    rough = dataclasses.replace(outputs(), kernel=kernel)
    with pytest.raises(ValueError, match=f"have {smoothness} derivatives"):
        calculus.laplacian(rough)
