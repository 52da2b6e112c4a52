"""What was observed of a function: covariances, moments of paths, and conditions that paths keep, by second routes."""

import functools
import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS
from scipy import interpolate, stats
from tables import KERNELS

import pathwise_gp as pgp
from pathwise_gp import calculus, numpyro_bridge as bridge

RNG = np.random.default_rng(0)
KERNEL = pgp.RBF(1.3, [0.8, 1.1])
X = RNG.uniform(-1, 1, (3, 2))
TEST = RNG.uniform(-1, 1, (4, 2))
BOXES = np.array([[[-0.5, 0.0], [0.3, 0.9]], [[0.1, -1.0], [1.0, 0.2]]])
V = RNG.normal(size=(3, 2))
M = RNG.normal(size=(2, 6))
LINE = calculus.line(lambda t: jnp.stack([jnp.cos(t), jnp.sin(t)]), 0.0, 1.5, 8)
OPERATOR = lambda u, X: -calculus.laplacian(u)(X) + 2 * u(X)


# By hand all is a matrix of what this makes of a function: its value and derivatives at the points, (1, ∂₀, ∂₁, ∂₀∂₀, ∂₀∂₁,
# ∂₁∂₁) of each, and its values at the nodes of rules.
NODES, WEIGHTS = [LINE.points], [LINE.weights]
for box in BOXES:
    nodes, weights = np.polynomial.legendre.leggauss(12)
    grid = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
    NODES.append(box.mean(0) + grid * (box[1] - box[0]) / 2)
    WEIGHTS.append(np.outer(weights, weights).reshape(-1) * np.prod(box[1] - box[0]) / 4)
RULES = [np.repeat(np.arange(3) == i, [len(w) for w in WEIGHTS]) * np.concatenate(WEIGHTS) for i in range(3)]
NODES = np.concatenate(NODES)


def jet(*order):
    """Some of the derivatives at each point."""
    return np.pad(np.kron(np.eye(3), np.eye(6)[list(order)]), ((0, 0), (0, len(NODES))))


def rule(i):
    return np.concatenate([np.zeros(18), RULES[i]])[None]


along = V[:, :1] * jet(1) + V[:, 1:] * jet(2)
laplacian = jet(3) + jet(5)
# A functional, and its matrix.
FUNCTIONALS = {
    "values": (pgp.Values(X), jet(0)),
    "derivative": (pgp.Derivative(X, (0,)), jet(1)),
    "mixed derivative": (pgp.Derivative(X, (0, 1)), jet(4)),
    "second derivative": (pgp.Derivative(X, (1, 1)), jet(5)),
    "directional": (pgp.Directional(X, V), along),
    "gradient": (pgp.Gradient(X), jet(1, 2)),
    "hessian": (pgp.Hessian(X), jet(3, 4, 5)),
    "laplacian": (pgp.Laplacian(X), laplacian),
    "boxes": (pgp.Integral(BOXES), np.concatenate([rule(1), rule(2)])),
    "average": (pgp.Integral(BOXES[0], weight=2.5), 2.5 * rule(1)),
    "line": (pgp.Integral(LINE), rule(0)),
    "function": (pgp.LinearFunctional(OPERATOR, X), 2 * jet(0) - laplacian),
    "multiple": (2.0 * pgp.Laplacian(X), 2 * laplacian),
    "multiples": (V[:, 0] * pgp.Values(X), V[:, :1] * jet(0)),
    "difference": (pgp.Values(X) - pgp.Directional(X, V), jet(0) - along),
    "mixture": (M @ pgp.Gradient(X), M @ jet(1, 2)),
    "list": (None, np.concatenate([jet(0), rule(2), jet(1, 2)])),
}
FUNCTIONALS["list"] = (
    pgp.GPPrior(kernel=KERNEL, X=[X, pgp.Integral(BOXES[1]), pgp.Gradient(X)]).functional,
    FUNCTIONALS["list"][1],
)


class Bump(eqx.Module):
    """A mean function."""

    def __call__(self, X):
        return jnp.sin(X[:, 0]) * X[:, 1]


def formula(X, Z):
    return 1.3 * np.exp(-0.5 * np.sum(((X[:, None] - Z[None]) / np.array([0.8, 1.1])) ** 2, axis=2))


@functools.cache
def by_hand():
    """The covariances of the jets with each other and with values elsewhere, and the jets of features and of a mean."""

    def jet_of(f):
        return lambda x: jnp.concatenate([f(x)[None], jax.grad(f)(x), jax.hessian(f)(x)[np.triu_indices(2)]])

    def k(x, z):
        return 1.3 * jnp.exp(-0.5 * jnp.sum(((x - z) / jnp.asarray([0.8, 1.1])) ** 2))

    @jax.jit
    def jets(X, Z):
        of_value = lambda z: jax.vmap(jet_of(lambda x: k(x, z)))(X).reshape(-1)
        # Of each entry of the jet in x, the jet in z.
        both = lambda x, z: jax.vmap(lambda e: jet_of(lambda z: jnp.dot(e, jet_of(lambda x: k(x, z))(x)))(z))(
            jnp.eye(6)
        )
        square = jax.vmap(lambda x: jax.vmap(lambda z: both(x, z))(X))(X)  # n n 6 6
        features = jax.vmap(lambda e: jax.vmap(jet_of(lambda x: jnp.dot(e, FEATURES(x[None])[0])))(X).reshape(-1))(
            jnp.eye(5)
        )
        mean = jax.vmap(jet_of(lambda x: Bump()(x[None])[0]))(X).reshape(-1)
        return square.transpose(0, 2, 1, 3).reshape(18, 18), jax.vmap(of_value)(Z).T, features, mean

    square, cross, features, mean = map(np.asarray, jets(jnp.asarray(X), jnp.asarray(np.concatenate([NODES, TEST]))))
    n = len(NODES)
    gram = np.block([[square, cross[:, :n]], [cross[:, :n].T, formula(NODES, NODES)]])
    at_test = np.concatenate([cross[:, n:], formula(NODES, TEST)])
    features = np.concatenate([features.T, np.asarray(FEATURES(jnp.asarray(NODES)))])
    return gram, at_test, features, np.concatenate([mean, np.asarray(Bump()(NODES))])


FEATURES = jax.jit(lambda: pgp.RBF(1.0, 0.9).features(5, 2, key=jax.random.key(0)))()
OTHER = pgp.GPPrior(kernel=KERNEL, X=[pgp.Derivative(X, (1,)), pgp.Integral(BOXES[0])]).functional


@eqx.filter_jit
def made(L):
    cross = L.cross(KERNEL, OTHER)
    return L.gram(KERNEL), cross, L.of_kernel(KERNEL, jnp.asarray(TEST)).T, L.of_features(FEATURES), L.of_mean(Bump())


@pytest.mark.parametrize("name", FUNCTIONALS)
def test_covariances_by_a_second_route(name):
    L, W = FUNCTIONALS[name]
    assert W.shape[0] == L.size == math.prod(L.shape)
    (gram, at_test, features, mean), other = by_hand(), np.concatenate([jet(2), rule(1)])
    wanted = (W @ gram @ W.T, W @ gram @ other.T, W @ at_test, W @ features, W @ mean)
    for part, found, expected in zip(("gram", "cross", "kernel", "features", "mean"), made(L), wanted, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10, err_msg=part)


SOME = ["gradient", "boxes", "function", "difference"]
L = pgp.GPPrior(kernel=KERNEL, X=[FUNCTIONALS[name][0] for name in SOME]).functional
W = np.concatenate([FUNCTIONALS[name][1] for name in SOME])
NOISE, Y = RNG.uniform(0.05, 0.3, L.size), RNG.normal(size=L.size)


@functools.cache
def posterior_of_some():
    return pgp.GPPrior(kernel=KERNEL, X=L, mean=Bump()).condition(Y, NOISE)


def moments(update, sizes):
    """The exact mean and covariance of paths that are affine in their Gaussian inputs."""

    def values(*inputs):
        return update(*(part[None] for part in inputs))(TEST)[0]

    zero = tuple(jnp.zeros(size) for size in sizes)
    J = jnp.concatenate(jax.jacfwd(values, argnums=tuple(range(len(sizes))))(*zero), axis=1)
    return values(*zero), J @ J.T


def test_exact_paths_have_the_moments_of_their_features():
    sampler = pgp.PathwiseSampler(posterior_of_some(), n_features=5)
    mean, covariance = eqx.filter_jit(moments)(lambda w, e: sampler.update(FEATURES, w, e), (5, L.size))
    gram, at_test, features, m = by_hand()
    K, cross = W @ gram @ W.T, W @ at_test
    G = np.linalg.solve(K + np.diag(NOISE), cross).T
    np.testing.assert_allclose(mean, Bump()(TEST) + G @ (Y - W @ m), rtol=1e-9, atol=1e-9)
    draw = np.asarray(FEATURES(jnp.asarray(TEST))) - G @ W @ features
    np.testing.assert_allclose(covariance, draw @ draw.T + G * NOISE @ G.T, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(posterior_of_some().mean(TEST), mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        posterior_of_some().covariance(TEST), formula(TEST, TEST) - G @ cross, rtol=1e-9, atol=1e-9
    )


def test_sparse_paths_have_the_moments_of_their_features():
    q = L.size
    prior = pgp.SparseGPPrior(kernel=KERNEL, Z=L, mean=Bump(), jitter=0.05)
    guide = pgp.FullRankGuide(Y, 0.1 * jnp.eye(q) + 0.02 * jnp.tril(jnp.ones((q, q))))
    sampler, settled = pgp.DecoupledPathwiseSampler(prior, guide, 5), prior.settled()
    path = lambda w, z, e: sampler.update(settled, FEATURES, w, guide.transform(z, prior), e)
    mean, covariance = eqx.filter_jit(moments)(path, (5, q, q))
    gram, at_test, features, m = by_hand()
    T, jitter = np.asarray(guide.scale_tril), 0.05 * np.eye(q)
    G = np.linalg.solve(W @ gram @ W.T + jitter, W @ at_test).T
    np.testing.assert_allclose(mean, Bump()(TEST) + G @ (Y - W @ m), rtol=1e-9, atol=1e-9)
    draw = np.asarray(FEATURES(jnp.asarray(TEST))) - G @ W @ features
    np.testing.assert_allclose(covariance, draw @ draw.T + G @ (T @ T.T + jitter) @ G.T, rtol=1e-9, atol=1e-9)


def test_moments_of_what_is_asked():
    gram, at_test, _, m = by_hand()
    K, m = W @ gram @ W.T, W @ m
    A = K + np.diag(NOISE)
    np.testing.assert_allclose(posterior_of_some().mean(L), m + K @ np.linalg.solve(A, Y - m), rtol=1e-9, atol=1e-9)
    wanted = K - K @ np.linalg.solve(A, K)
    np.testing.assert_allclose(posterior_of_some().covariance(L), wanted, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(posterior_of_some().variance(L.parts[0]), np.diagonal(wanted)[:6], rtol=1e-8, atol=1e-9)
    cross = (W @ at_test).T @ np.linalg.solve(A, np.diag(NOISE))
    np.testing.assert_allclose(posterior_of_some().covariance(TEST, L), cross, rtol=1e-8, atol=1e-9)
    log_density = stats.multivariate_normal(m, A).logpdf(Y)
    np.testing.assert_allclose(posterior_of_some().log_marginal_likelihood(), log_density, rtol=1e-10)
    np.testing.assert_allclose(posterior_of_some().prior.log_prob(Y, NOISE), log_density, rtol=1e-10)
    # Many points are taken a block at a time.
    X = RNG.uniform(-1, 1, (300, 2))
    variance = jax.jit(lambda X: pgp.Gradient(X).in_parts(lambda part: part.of_mean(Bump()), 2**14))(jnp.asarray(X))
    np.testing.assert_allclose(
        variance, np.stack([np.cos(X[:, 0]) * X[:, 1], np.sin(X[:, 0])], axis=1).reshape(-1), rtol=1e-12
    )


# --- conditions without noise

LEFT, RIGHT = jnp.zeros((1, 1)), jnp.ones((1, 1))
CONDITIONS = {
    "a rod": (pgp.RBF(1.0, 0.4), [-pgp.Laplacian(np.linspace(0.1, 0.9, 5)[:, None]), LEFT, RIGHT], [1.0, 0.0, 0.3]),
    "rough": (
        pgp.Matern(2.5, 2.0, 0.6),
        [
            LEFT,
            pgp.Derivative(LEFT, (0,)),
            pgp.Values(RIGHT) - pgp.Values(LEFT),
            pgp.Integral(np.array([[0.2], [0.7]])),
        ],
        [0.5, 1.0, 0.3, 0.2],
    ),
    "short": (
        # Variances of 1, 1e4 and 8e8.
        pgp.RBF(1.0, 0.01),
        [np.linspace(0, 1, 5)[:, None], pgp.Gradient(np.linspace(0, 1, 4)[:, None]), pgp.Laplacian(RIGHT / 3)],
        [1.0, 30.0, -1e4],
    ),
    # A jitter is needed, in the unit of each row.
    "close": (
        pgp.RBF(1.0, 0.01),
        [np.linspace(0, 0.02, 12)[:, None], pgp.Gradient(np.linspace(0, 0.02, 12)[:, None])],
        [1.0, 0.0],
    ),
    # Boxes of many lengthscales, and kernels without a closed form, whose features have one.
    "a long box": (pgp.RBF(1.0, 0.1), [pgp.Integral(np.array([[0.0], [20.0]])), LEFT], [1.0, 0.5]),
    "a rough square": (pgp.Matern(1.5, 1.0, 0.2), [pgp.Integral(np.array([[0.0, 0.0], [1.0, 1.0]])), X], [0.3, 0.2]),
    "a rule": (pgp.RationalQuadratic(1.0, 0.5, 1.2), [pgp.Integral(np.array([[0.0], [1.0]])), LEFT], [0.7, 0.1]),
}


VARIANCES = eqx.filter_jit(lambda L, kernel: L.diagonal(kernel))


@pytest.mark.parametrize("name", CONDITIONS)
def test_paths_obey_what_they_were_given(name):
    kernel, observed, y = CONDITIONS[name]
    posterior = pgp.GPPrior(kernel=kernel, X=observed).condition(y, 0.0, check_scales=False)
    L = posterior.prior.functional
    paths = pgp.PathwiseSampler(posterior, n_features=128).sample_paths(jax.random.key(2), 30)
    y = np.concatenate([np.full(part.size, value) for part, value in zip(L.parts, y, strict=True)])
    assert name != "close" or np.min(posterior.jitter) > 0
    scale = np.sqrt(np.asarray(VARIANCES(L, kernel)))
    assert np.max(np.abs(np.asarray(L(paths)) - y) / scale) < 1e-6
    # In the structure of what was observed, and by the operators of calculus.
    assert [np.shape(block) for block in L.blocks(L(paths))] == [(30, *part.shape) for part in L.parts]
    assert np.max(np.abs(np.asarray(posterior.mean(observed)) - y) / scale) < 1e-6
    if L.dim == 2:
        return
    # What is asked of a derivative of the paths is asked of the paths.
    slope = calculus.gradient(paths)(np.linspace(0, 1, 4)[:, None])
    np.testing.assert_allclose(pgp.Gradient(np.linspace(0, 1, 4)[:, None])(paths), slope[..., 0], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("own", [True, False])
def test_integrals_of_paths_given_functionals(own):
    """In closed form by `calculus` as by the functional, of single paths, of own features and of ensembles too."""
    kernel, box = pgp.RBF(1.0, 0.4), np.array([[-0.3], [1.2]])
    posterior = pgp.GPPrior(kernel=kernel, X=[GRID, pgp.Gradient(GRID)], mean=0.3).condition(OBSERVED, [1e-2, 1e-1])
    paths = pgp.PathwiseSampler(posterior, 64, share_features=not own).sample_paths(jax.random.key(0), 3)
    by_rule = calculus.integrate(paths, calculus.gauss_legendre(box, 60))
    np.testing.assert_allclose(pgp.Integral(box)(paths)[:, 0], by_rule, rtol=1e-9)
    np.testing.assert_allclose(calculus.integrate_exactly(paths, box), by_rule, rtol=1e-9)
    np.testing.assert_allclose(pgp.Integral(box)(paths[1]), by_rule[1:2], rtol=1e-9)
    assert paths.smoothness == math.inf


def test_variances_are_the_diagonal():
    names = ["values", "directional", "gradient", "hessian", "boxes", "multiples", "list"]
    found = DIAGONAL([FUNCTIONALS[name][0] for name in names], 2.0 * KERNEL)
    for name, gram, diagonal in zip(names, *found, strict=True):
        np.testing.assert_allclose(diagonal, np.diagonal(gram), rtol=1e-10, err_msg=name)


DIAGONAL = eqx.filter_jit(lambda Ls, kernel: ([L.gram(kernel) for L in Ls], [L.diagonal(kernel) for L in Ls]))


def test_noise_is_that_of_each_block():
    observed, sd = [X, pgp.Gradient(X)], np.repeat([0.1, 0.02], [3, 6])
    posterior = pgp.GPPrior(kernel=KERNEL, X=observed).condition([Y[:3], Y[3:9].reshape(3, 2)], [0.1**2, 0.02**2])
    np.testing.assert_allclose(posterior.noise, sd**2, rtol=1e-12)
    np.testing.assert_array_equal(posterior.y, Y[:9])
    paths = pgp.PathwiseSampler(posterior, n_features=256).sample_paths(jax.random.key(3), 2000)
    # y − L f = (noise) A⁻¹(y − L m − L φᵀw − ε) has the variance that the closed form says.
    off = np.asarray(posterior.prior.functional(paths)) - Y[:9]
    A = np.asarray(GRAM(posterior.prior.functional, KERNEL)) + np.diag(sd**2)
    P = np.linalg.inv(A)
    wanted = np.diag(sd**2) - sd[:, None] ** 2 * P * sd[None, :] ** 2
    mean = -(sd**2) * (P @ Y[:9])
    assert np.all(np.abs(off.mean(0) - mean) < 4 * np.sqrt(np.diag(wanted) / 2000))
    assert np.all(np.abs(off.var(0) / np.diag(wanted) - 1) < 4 * math.sqrt(2 / 2000) + 0.05)


def test_one_block_left_out():
    posterior = pgp.GPPrior(kernel=KERNEL, X=[X, pgp.Gradient(X)]).condition([Y[:3], Y[3:9].reshape(3, 2)], 0.05)
    both, slopes = posterior.leave_one_out(), posterior.leave_one_out(1)
    assert slopes.mean.shape == (3, 2)
    np.testing.assert_array_equal(np.ravel(slopes.log_density), both.log_density[3:])
    A = np.asarray(GRAM(posterior.prior.functional, KERNEL)) + 0.05 * np.eye(9)
    rest = np.arange(9) != 4
    mean = A[4, rest] @ np.linalg.solve(A[np.ix_(rest, rest)], Y[:9][rest])
    np.testing.assert_allclose(slopes.mean[0, 1], mean, rtol=1e-10)
    with pytest.raises(ValueError, match="`block` must be the number"):
        posterior.leave_one_out(2)


def test_what_was_not_observed_has_no_say():
    mask = [np.array([True, False, True]), np.array([[True, False]] * 3)]
    y = [np.array([1.0, np.nan, 2.0]), np.array([[0.1, np.nan], [0.2, np.nan], [0.3, np.nan]])]
    prior = pgp.GPPrior(kernel=KERNEL, X=[X, pgp.Gradient(X)])
    seen = pgp.GPPrior(kernel=KERNEL, X=[X[[0, 2]], pgp.Derivative(X, (0,))])
    wanted = seen.condition([y[0][[0, 2]], y[1][:, 0]], 0.01)
    np.testing.assert_allclose(prior.log_prob(y, 0.01, mask), wanted.log_marginal_likelihood(), rtol=1e-10)
    np.testing.assert_allclose(prior.condition(y, 0.01, mask).mean(TEST), wanted.mean(TEST), rtol=1e-9)


# --- kernels

SMOOTH = {name: row for name, row in KERNELS.items() if row.smooth >= 2}


@pytest.mark.parametrize("name", SMOOTH)
def test_slopes_of_every_kernel_at_coincident_points(name):
    """Covariances of values and slopes against differences of the formula, at points of which some are the same."""
    row, dim = SMOOTH[name], SMOOTH[name].dims[-1] if SMOOTH[name].dims[-1] < 8 else 3
    kernel = row.make(dim)
    P = np.asarray(row.points(3, dim, 1))
    P[2] = P[0]
    v = np.zeros(dim)
    v[: row.continuous(dim)] = np.linspace(0.6, 1.0, row.continuous(dim))
    L = pgp.GPPrior(kernel=kernel, X=[P, pgp.Directional(P, v)]).functional
    made = np.asarray(eqx.filter_jit(lambda kernel, L: L.gram(kernel))(kernel, L))
    h = 1e-3
    # Fourth-order differences along v, in each argument.
    steps, weights = np.array([-2, -1, 1, 2]) * h, np.array([1, -8, 8, -1]) / (12 * h)
    formula = lambda a, b: row.formula(kernel, P + a * v, P + b * v)
    first = sum(w * formula(0, s) for s, w in zip(steps, weights, strict=True))
    second = sum(
        u * w * formula(r, s) for r, u in zip(steps, weights, strict=True) for s, w in zip(steps, weights, strict=True)
    )
    wanted = np.block([[formula(0, 0), first], [first.T, second]])
    # Of kernels with one derivative the second difference at a point is of the order of the step.
    rtol = 1e-6 if row.smooth > 4 else 0.02
    np.testing.assert_allclose(made, wanted, rtol=rtol, atol=rtol * np.abs(wanted).max())


def quadrature(k, box, other):
    """∬ k(|x − z|) by Gauss rules, piece by piece between the kinks."""
    nodes, weights = np.polynomial.legendre.leggauss(30)

    def pieces(ends):
        fine = np.concatenate([np.linspace(p, q, 7)[:-1] for p, q in itertools.pairwise(ends)] + [ends[-1:]])
        half = np.diff(fine) / 2
        return ((fine[:-1] + half)[:, None] + half[:, None] * nodes).reshape(-1), (half[:, None] * weights).reshape(-1)

    (a, b), (c, d) = box, other
    outer, total = pieces(np.unique(np.clip([a, b, c, d], a, b))), 0.0
    for x, w in zip(*outer, strict=True):
        z, v = pieces(np.unique(np.clip([c, d, x], c, d)))
        total += w * (v @ k(np.abs(x - z)))
    return total


RADIAL = {
    "rbf": pgp.RBF(1.3, [0.7, 0.9, 1.2]),
    "rough": pgp.Matern(1.5, 1.3, [0.7, 0.9, 1.2]),
    "smooth": pgp.Matern(4.5, 1.3, 0.8),
    "heavy": pgp.RationalQuadratic(1.3, 0.8, 1.5),
    "sum": pgp.RBF(1.3, 0.7) + pgp.Matern(2.5, 0.4, [0.7, 0.9, 1.2]),
}


class Plain(pgp.AbstractKernel):
    """A kernel without formulas of its own."""

    kernel: pgp.AbstractKernel

    def matrix(self, X, Z):
        return self.kernel.matrix(X, Z)

    def smoothness(self, dim):
        return self.kernel.smoothness(dim)


@pytest.mark.parametrize("name", RADIAL)
def test_formulas_are_derivatives(name):
    """Gradients and Laplacians of radial kernels by the chain rule, at points of which some are the same."""
    kernel = RADIAL[name]
    Z, P = RNG.uniform(-1, 1, (2, 3)), RNG.uniform(-1, 1, (3, 3))
    P[0] = Z[1]
    parts = [pgp.Gradient(P)] + [pgp.Laplacian(P)] * (kernel.smoothness(3) >= 2)
    for formula, derivative in zip(*(FORMULAS(parts, k, jnp.asarray(Z)) for k in (kernel, Plain(kernel))), strict=True):
        np.testing.assert_allclose(formula, derivative, rtol=1e-9, atol=1e-10 * float(jnp.max(jnp.abs(derivative))))


FORMULAS = eqx.filter_jit(
    lambda parts, kernel, Z: [
        m for L in parts for m in (L.gram(kernel), L.of_kernel(kernel, Z), L.cross(kernel, parts[0]))
    ]
)


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5])
def test_double_integrals_against_quadrature(nu):
    kernel = pgp.Matern(nu, 1.3, 0.7) + pgp.RBF(0.5, 0.4)
    polynomial = {0.5: lambda a: 1, 1.5: lambda a: 1 + a, 2.5: lambda a: 1 + a + a * a / 3}[nu]

    def k(r):
        a = math.sqrt(2 * nu) * r / 0.7
        return 1.3 * polynomial(a) * np.exp(-a) + 0.5 * np.exp(-0.5 * (r / 0.4) ** 2)

    intervals = np.array([[0.0, 1.0], [0.5, 0.8], [1.5, 1.52], [-3.0, 2.0], [0.0, 0.001], [0.001, 0.002]])
    gram = np.asarray(GRAM(pgp.Integral(intervals[:, :, None]), kernel))
    wanted = [[quadrature(k, box, other) for other in intervals] for box in intervals]
    np.testing.assert_allclose(gram, wanted, rtol=1e-12)
    np.testing.assert_allclose(gram, gram.T, rtol=1e-12)
    # Over a rectangle a product of kernels, one of each dimension, is a product of integrals.
    other = pgp.Matern(nu, 1.3, 0.7)
    product = pgp.ActiveDims(other, (1,)) * pgp.ActiveDims(pgp.RBF(0.5, 0.4), (0,))
    rectangles = np.stack([intervals, intervals[::-1]], axis=-1)
    lines = [
        np.asarray(GRAM(pgp.Integral(own[:, :, None]), k))
        for own, k in zip((intervals, intervals[::-1]), (pgp.RBF(0.5, 0.4), other), strict=True)
    ]
    np.testing.assert_allclose(GRAM(pgp.Integral(rectangles), product), lines[0] * lines[1], rtol=1e-12)


GRAM = eqx.filter_jit(lambda L, kernel: L.gram(kernel))


PRODUCT = lambda nu: pgp.ActiveDims(pgp.Matern(nu, 1.0, 0.4), (0,)) * pgp.ActiveDims(pgp.Matern(nu, 1.0, 1.2), (1,))


@pytest.mark.parametrize(
    ("kernel", "interval"),
    [
        (pgp.RBF(0.5, [0.8, 1.3]), (38.2672, 38.3211)),
        (PRODUCT(0.5), (23.9890, 24.0189)),
        (PRODUCT(1.5), (33.6815, 33.7267)),
        (PRODUCT(2.5), (36.3118, 36.3624)),
    ],
    ids=["RBF", "Matern 1/2", "Matern 3/2", "Matern 5/2"],
)
def test_double_integrals_are_in_published_intervals(kernel, interval):
    """Three standard errors of Monte Carlo about ∬k over [−1, 2] × [−3, 3], of Emukit's tests."""
    found = GRAM(pgp.Integral(np.array([[-1.0, -3.0], [2.0, 3.0]])), kernel)
    assert interval[0] < float(found[0, 0]) < interval[1]


def test_one_rule_on_both_sides():
    """Of kernels without a closed form for both integrals the covariance is symmetric, and one of a rule."""
    kernel = pgp.RBF(1.0, 0.5) + pgp.RationalQuadratic(1.0, 0.5, 1.2)
    L = pgp.GPPrior(kernel=kernel, X=[pgp.Integral(np.array([[0.0], [1.0]]), nodes=3), LEFT]).functional
    gram = np.asarray(GRAM(L, kernel))
    np.testing.assert_allclose(gram, gram.T, rtol=1e-14)
    nodes, weights = np.polynomial.legendre.leggauss(3)
    P = np.r_[(nodes + 1) / 2, 0.0][:, None]
    W = np.zeros((2, 4))
    W[0, :3], W[1, 3] = weights / 2, 1
    np.testing.assert_allclose(gram, W @ np.asarray(kernel(P, P)) @ W.T, rtol=1e-12)


class IntegratedBrownianMotion(pgp.AbstractKernel):
    """∫ (x − u)₊ (z − u)₊ du from 0, with derivatives of its two pieces also where they meet."""

    def matrix(self, X, Z):
        x, z = X, Z.T
        return jnp.where(x <= z, x * x * (3 * z - x), z * z * (3 * x - z)) / 6

    def smoothness(self, dim):
        return 1.0


def test_posterior_means_are_splines():
    """Integrated Brownian motion with a line of large variance: natural, clamped and Hermite cubic splines (Wahba 1990)."""
    kernel = IntegratedBrownianMotion() + pgp.Polynomial(1e5, 1.0, 1)
    knots, y, slopes = np.array([0.1, 0.4, 0.5, 0.9]), np.array([0.3, -0.5, 0.2, 0.1]), np.array([1.0, -2.0, 0.5, 0.3])
    at, ends = knots[:, None], knots[[0, 3], None]
    grid = np.linspace(0.1, 0.9, 17)
    for observed, values, spline in (
        (at, y, interpolate.CubicSpline(knots, y, bc_type="natural")),
        (
            [at, pgp.Derivative(ends, (0,))],
            [y, slopes[[0, 3]]],
            interpolate.CubicSpline(knots, y, bc_type=((1, 1.0), (1, 0.3))),
        ),
        ([at, pgp.Gradient(at)], [y, slopes[:, None]], interpolate.CubicHermiteSpline(knots, y, slopes)),
    ):
        posterior = pgp.GPPrior(kernel=kernel, X=observed).condition(values, 0.0, check_scales=False)
        np.testing.assert_allclose(posterior.mean(grid[:, None]), spline(grid), atol=2e-6)


def test_outputs_compared():
    """Differences of outputs say nothing of their sum."""
    kernel = pgp.Coregionalised(pgp.Matern(2.5, 1.0, 0.5), jnp.ones((2, 1)), jnp.full(2, 0.3))
    at = lambda i: np.concatenate([np.linspace(0, 1, 4)[:, None], np.full((4, 1), float(i))], axis=1)
    difference = pgp.Values(at(1)) - pgp.Values(at(0))
    posterior = pgp.GPPrior(kernel=kernel, X=difference).condition(np.full(4, 0.4), 0.0)
    both = np.asarray(posterior.mean(at(0))), np.asarray(posterior.mean(at(1)))
    np.testing.assert_allclose(both[1] - both[0], 0.4, rtol=1e-10)
    np.testing.assert_allclose(both[1] + both[0], 0.0, atol=1e-10)
    slopes = pgp.GPPrior(kernel=kernel, X=[at(0), pgp.Derivative(at(1), (0,))]).condition([1.0, 0.0], 0.0)
    np.testing.assert_allclose(slopes.mean(pgp.Directional(at(1), [1.0, 0.0])), 0.0, atol=1e-10)


# --- other models


def test_inducing_functionals_at_their_best_are_the_exact_posterior(standard_promotion):
    """Inducing values that are all that was observed leave nothing out; also where the data are functionals."""
    L = [X, pgp.Gradient(X), pgp.Integral(BOXES)]
    y, noise = [Y[:3], Y[3:9].reshape(3, 2), Y[9:11]], [0.1, 0.2, 0.05]
    exact = pgp.GPPrior(kernel=KERNEL, X=L).condition(y, noise)
    sparse = pgp.SparseGPPrior(kernel=KERNEL, Z=L)
    guide = pgp.optimal_guide(sparse, L, y, noise)
    paths = pgp.DecoupledPathwiseSampler(sparse, guide, 64).sample_paths(jax.random.key(0), 2)
    np.testing.assert_allclose(paths.mean_path(TEST), exact.mean(TEST), rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(guide.predict(sparse, TEST, 0.0).variance, exact.variance(TEST), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(pgp.elbo(sparse, guide, L, y, noise), exact.log_marginal_likelihood(), rtol=1e-7)
    bound = bridge.sgpr_factor
    with numpyro.handlers.seed(rng_seed=0), numpyro.handlers.trace() as trace:
        bound("y", sparse, L, y, noise)
    np.testing.assert_allclose(trace["y"]["fn"].bound, exact.log_marginal_likelihood(), rtol=1e-7)
    sd = np.sqrt(np.repeat(noise, [3, 6, 2]))
    likelihood = lambda f: dist.Normal(f, sd)
    stochastic = eqx.filter_jit(bridge.svgp_factor)("y", sparse, guide, exact.prior.functional, Y[:11], likelihood)
    np.testing.assert_allclose(stochastic, exact.log_marginal_likelihood(), rtol=1e-7)


def test_laplace_of_slopes_is_exact_under_a_normal_likelihood():
    prior = pgp.GPPrior(kernel=KERNEL, X=[X, pgp.Gradient(X)])
    found = pgp.laplace(prior, Y[:9], lambda f: dist.Normal(f, 0.3))
    mean, variance = found.latent_moments(TEST)
    exact = prior.condition(Y[:9], 0.09)
    np.testing.assert_allclose(mean, exact.mean(TEST), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(variance, exact.variance(TEST), rtol=1e-6, atol=1e-8)


GRID = np.linspace(0, 1, 5)[:, None]
OBSERVED = [np.sin(4 * GRID[:, 0]), 4 * np.cos(4 * GRID)]


def model(y, dy):
    kernel = pgp.RBF(1.0, numpyro.sample("lengthscale", dist.LogNormal(-1.0, 0.5)))
    prior = pgp.GPPrior(kernel=kernel, X=[GRID, pgp.Gradient(GRID)])
    bridge.gp_factor("y", prior, None if y is None else [y, dy], [1e-2, 1e-1])
    return prior


def test_nuts_with_slopes_against_quadrature(standard_promotion):
    mcmc = MCMC(NUTS(model), num_warmup=150, num_samples=500, progress_bar=False)
    mcmc.run(jax.random.key(0), *map(jnp.asarray, OBSERVED))
    samples = np.log(np.asarray(mcmc.get_samples()["lengthscale"]))
    grid = np.linspace(-2.5, 0.5, 300)
    x = GRID
    r = x - x.T

    def log_density(t):
        s = np.exp(t)
        K = np.exp(-0.5 * r**2 / s**2)
        gram = np.block([[K, K * r / s**2], [-K * r / s**2, K * (1 / s**2 - r**2 / s**4)]])
        A = gram + np.diag(np.repeat([1e-2, 1e-1], 5))
        y = np.concatenate([part.reshape(-1) for part in OBSERVED])
        return -0.5 * y @ np.linalg.solve(A, y) - 0.5 * np.linalg.slogdet(A)[1] - 0.5 * ((t + 1) / 0.5) ** 2

    weights = np.exp([log_density(t) for t in grid])
    weights /= weights.sum()
    mean = weights @ grid
    sd = math.sqrt(weights @ (grid - mean) ** 2)
    ess = float(numpyro.diagnostics.effective_sample_size(samples[None]))
    assert abs(samples.mean() - mean) < 4 * sd / math.sqrt(ess)
    assert abs(samples.std() / sd - 1) < 4 / math.sqrt(2 * ess) + 0.02
    paths = bridge.posterior_paths(
        model, {"lengthscale": np.exp(samples[:3])}, jax.random.key(1), *OBSERVED, n_features=64
    )
    assert paths(GRID).shape == (3, 1, 5)


def test_latent_values_are_blocks():
    prior = pgp.GPPrior(kernel=KERNEL, X=[X, pgp.Gradient(X)])
    with numpyro.handlers.seed(rng_seed=0), numpyro.handlers.trace() as trace:
        f, df = bridge.gp_sample("u", prior)
    assert (f.shape, df.shape) == ((3,), (3, 2))
    z = np.asarray(trace["u.white"]["value"])
    A = np.asarray(GRAM(prior.functional, KERNEL)) + np.diag(np.asarray(prior.smooth_jitter(prior.functional)))
    np.testing.assert_allclose(np.concatenate([f, df.reshape(-1)]), np.linalg.cholesky(A) @ z, rtol=1e-9, atol=1e-12)
    assert bridge.posterior_paths(
        lambda: (bridge.gp_sample("u", prior), prior)[1], {"u.white": z[None]}, jax.random.key(0), n_features=16
    )(TEST).shape == (1, 1, 4)


def test_parts_and_errors():
    kernel = pgp.RBF(1.0, 0.4) + pgp.Matern(2.5, 0.3, 0.8)
    posterior = pgp.GPPrior(kernel=kernel, X=[GRID, pgp.Gradient(GRID)]).condition(OBSERVED, [1e-2, 1e-1])
    paths = pgp.PathwiseSampler(posterior, 256).sample_paths(jax.random.key(0), 2)
    np.testing.assert_allclose(sum(part(GRID) for part in paths.components()), paths(GRID), rtol=1e-9, atol=1e-12)
    few, many = (float(pgp.feature_error(posterior, GRID, n, n_draws=2)) for n in (16, 1024))
    assert many < 0.1 * few
    # With the posterior's law in the features, the variance of a path is the posterior's.
    fine = pgp.PathwiseSampler(posterior, 1024).sample_paths(jax.random.key(0), 2)
    np.testing.assert_allclose(fine.marginal_variance(GRID), posterior.variance(GRID), rtol=4 * many)


def test_each_member_of_a_plate_has_its_slopes(standard_promotion):
    y = np.stack([np.concatenate([part.reshape(-1) for part in OBSERVED])] * 2) * np.array([[1.0], [2.0]])

    def model(y):
        with numpyro.plate("groups", 2):
            kernels = bridge.lift(pgp.RBF(1.0, 0.4), {"lengthscale": dist.LogNormal(-1.0, 0.5)}, "k")
        priors = kernels.map(lambda kernel: pgp.GPPrior(kernel=kernel, X=[GRID, pgp.Gradient(GRID)]))
        bridge.gp_factor("y", priors, y, 0.1)
        return priors

    scales = np.array([0.3, 0.5])
    seeded = numpyro.handlers.seed(numpyro.handlers.substitute(model, data={"k.lengthscale": scales}), rng_seed=0)
    trace = numpyro.handlers.trace(seeded).get_trace(y)
    density = trace["y"]["fn"].log_prob(y)
    for i, scale in enumerate(scales):
        alone = pgp.GPPrior(kernel=pgp.RBF(1.0, scale), X=[GRID, pgp.Gradient(GRID)]).log_prob(y[i], 0.1)
        np.testing.assert_allclose(density[i], alone, rtol=1e-10)


def test_fit_with_slopes(standard_promotion):
    """Hyperparameters that are those of the density, found with noise that is known, of each block."""
    prior = pgp.GPPrior(kernel=pgp.RBF(1.0, 0.5), X=[GRID, pgp.Gradient(GRID)])
    found = pgp.fit(prior, OBSERVED, [1e-4, 1e-4])
    assert found.converged
    np.testing.assert_allclose(found.log_density, found.prior.log_prob(OBSERVED, [1e-4, 1e-4]), rtol=1e-8)
    for factor in (0.98, 1.02):
        moved = eqx.tree_at(lambda p: p.kernel.lengthscale, found.prior, factor * found.prior.kernel.lengthscale)
        assert moved.log_prob(OBSERVED, [1e-4, 1e-4]) < found.log_density


@pytest.mark.parametrize("a", [1e-6, 1e5])
def test_units_of_inputs_and_values(a):
    """Inputs in units of c, values in units of a: slopes in a/c, integrals in a·c."""
    c = 1e3
    box = np.array([[0.1], [0.6]])

    def posterior(c, a):
        kernel = pgp.RBF(a**2, 0.4 * c)
        prior = pgp.GPPrior(kernel=kernel, X=[c * GRID, pgp.Gradient(c * GRID), pgp.Integral(c * box)])
        noise = [0.01 * a**2, 0.1 * (a / c) ** 2, 1e-4 * (a * c) ** 2]
        return prior.condition([a * OBSERVED[0], a / c * OBSERVED[1], 0.2 * a * c], noise)

    one, other = posterior(1.0, 1.0), posterior(c, a)
    grid = np.linspace(0, 1, 7)[:, None]
    np.testing.assert_allclose(other.mean(c * grid) / a, one.mean(grid), rtol=1e-8)
    np.testing.assert_allclose(
        other.variance(pgp.Laplacian(c * grid)) * (c**2 / a) ** 2, one.variance(pgp.Laplacian(grid)), rtol=1e-6
    )


def test_single_precision():
    with jax.enable_x64(False):
        prior = pgp.GPPrior(kernel=pgp.RBF(1.0, 0.4), X=[GRID.astype("f4"), pgp.Gradient(GRID.astype("f4"))])
        posterior = prior.condition([part.astype("f4") for part in OBSERVED], [1e-2, 1e-1])
        single = np.asarray(posterior.mean(GRID.astype("f4")))
        assert single.dtype == np.float32
        paths = pgp.PathwiseSampler(posterior, 64).sample_paths(jax.random.key(0), 2)
        assert paths(GRID.astype("f4")).dtype == np.float32
    prior = pgp.GPPrior(kernel=pgp.RBF(1.0, 0.4), X=[GRID, pgp.Gradient(GRID)])
    np.testing.assert_allclose(single, prior.condition(OBSERVED, [1e-2, 1e-1]).mean(GRID), atol=2e-5)


def test_nearly_coincident_points_in_single_precision():
    with jax.enable_x64(False):
        close = np.array([[0.0], [1e-15], [0.3]], "f4")
        for kernel in (pgp.Matern(2.5, 1.0, 1.0), pgp.Matern(3.5, 1.0, 1.0)):
            assert np.all(np.isfinite(GRAM(pgp.Laplacian(close), kernel)))
        # Differences lose digits, and are linear all the same.
        quotient = pgp.LinearFunctional(lambda f, X: (f(X + 1e-4) - f(X)) / 1e-4, close)
        assert quotient.shape == (3,)


def test_slopes_of_a_matern_kernel_at_one_point():
    """5/(3ℓ²) in every direction, and nothing between directions."""
    gram = GRAM(pgp.Gradient(np.zeros((2, 3))), pgp.Matern(2.5, 1.2, 0.5))
    np.testing.assert_allclose(gram, np.tile(1.2 * 5 / 3 / 0.5**2 * np.eye(3), (2, 2)), rtol=1e-12, atol=1e-12)


def test_batches_of_integrals():
    """The size of what each member observes, whatever axes the batch adds."""
    boxes = np.array([[[0.0], [1.0]], [[1.0], [1.5]]])
    L = [pgp.Integral(boxes), M[:, :5] @ pgp.Values(GRID)]
    kernels = pgp.Batched(eqx.filter_vmap(lambda scale: pgp.RBF(1.0, scale))(jnp.asarray([0.3, 0.5, 0.7])), (3,))
    priors = kernels.map(lambda kernel: pgp.GPPrior(kernel=kernel, X=L))
    y = RNG.normal(size=(3, 4))
    density = bridge.GPMarginal(priors, 0.1).log_prob(y)
    alone = [
        pgp.GPPrior(kernel=pgp.RBF(1.0, s), X=L).log_prob(row, 0.1) for s, row in zip((0.3, 0.5, 0.7), y, strict=True)
    ]
    np.testing.assert_allclose(density, alone, rtol=1e-10)


def test_functions_of_ones_own():
    jump = lambda u, X, v: u(X + v[None, :]) - u(X)
    L = pgp.LinearFunctional(jump, X, [0.5, 0.0])
    assert L.points.shape == X.shape  # v is none of them
    np.testing.assert_allclose(
        L.gram(KERNEL), (pgp.Values(X + np.array([0.5, 0.0])) - pgp.Values(X)).gram(KERNEL), rtol=1e-12
    )
    # Inputs and all else may be traced, also where the kernel has a domain.
    density = lambda B: pgp.GPPrior(kernel=NAMES, X=pgp.LinearFunctional(lambda u, X: 2 * u(X), B)).log_prob(Y[:2], 0.1)
    np.testing.assert_allclose(jax.jit(density)(jnp.asarray(NUMBERED)), density(NUMBERED), rtol=1e-12)
    posterior = pgp.GPPrior(kernel=KERNEL, X=L).condition(1.0, 0.1)
    paths = pgp.PathwiseSampler(posterior, 16).sample_paths(jax.random.key(0), 2)
    np.testing.assert_allclose(jax.jit(lambda p, X: p(X))(paths, jnp.asarray(TEST)), paths(TEST), rtol=1e-12)


def test_a_functional_is_a_pytree():
    assert jax.tree.structure(eqx.filter_jit(lambda L: L)(L)) == jax.tree.structure(L)
    paths = pgp.PathwiseSampler(posterior_of_some(), n_features=8).sample_paths(jax.random.key(1), 2)
    np.testing.assert_allclose(eqx.filter_jit(lambda p, X: p(X))(paths, jnp.asarray(TEST)), paths(TEST), rtol=1e-12)
    stacked = pgp.stack([paths[0], paths[1]])
    np.testing.assert_array_equal(stacked(TEST), paths(TEST))
    # Where it lies can be learnt.
    density = lambda X: pgp.GPPrior(kernel=KERNEL, X=[TEST, pgp.Gradient(X)]).log_prob(Y[:10], 0.1)
    slope = jax.grad(density)(jnp.asarray(X))
    h = 1e-5 * V
    np.testing.assert_allclose(np.sum(slope * V), (density(X + h) - density(X - h)) / 2e-5, rtol=1e-6)


NAMES = pgp.Coregionalised(pgp.RBF(1.0, 1.0), jnp.ones((2, 1)), jnp.ones(2))
NUMBERED = np.array([[0.1, 0.0], [0.2, 1.0]])
REFUSED = {
    "order": (
        lambda: pgp.GPPrior(kernel=pgp.Matern(1.5, 1.0, 1.0), X=pgp.Laplacian(X)),
        "order 2.*`Matern` have 1 in each",
    ),
    "order of a function": (
        lambda: pgp.GPPrior(kernel=pgp.Matern(1.5, 1.0, 1.0), X=pgp.LinearFunctional(OPERATOR, X)),
        "order 2.*`Matern`",
    ),
    "order of a part": (lambda: pgp.GPPrior(kernel=pgp.Matern(0.5, 1.0, 1.0), X=[X, 2.0 * pgp.Gradient(X)]), "order 1"),
    "order of a product": (
        lambda: pgp.GPPrior(kernel=KERNEL * pgp.Matern(1.5, 1.0, 1.0), X=pgp.Hessian(X)),
        r"`RBF \* Matern` have 1",
    ),
    "order asked": (lambda: POSTERIOR_OF_MATERN.mean(pgp.Laplacian(X)), "order 2"),
    "paths": (lambda: pgp.Laplacian(X)(PATHS_OF_MATERN), "`paths` have 1 derivatives"),
    "not paths": (lambda: pgp.Laplacian(X)(3.0), "must be a function of inputs"),
    "columns of outputs": (lambda: pgp.GPPrior(kernel=NAMES, X=pgp.Gradient(NUMBERED)), "along column 1"),
    "direction of outputs": (
        lambda: pgp.GPPrior(kernel=NAMES, X=pgp.Directional(NUMBERED, [1.0, 0.5])),
        "along column 1",
    ),
    "an output": (lambda: pgp.GPPrior(kernel=NAMES, X=pgp.Derivative(NUMBERED + 0.5, (0,))), "one of the categories"),
    "dimension": (lambda: pgp.GPPrior(kernel=KERNEL, X=pgp.Gradient(GRID)), "lengthscale"),
    "dimensions of parts": (
        lambda: pgp.GPPrior(kernel=KERNEL, X=[X, pgp.Gradient(GRID)]),
        r"one dimension; got \[1, 2\]",
    ),
    "dims": (lambda: pgp.Derivative(X, (0, 2)), "from 0 to 1"),
    "no dims": (lambda: pgp.Derivative(X, ()), "one at least"),
    "v": (lambda: pgp.Directional(X, np.ones(3)), "`Directional.v` must have shape"),
    "boxes": (lambda: pgp.Integral(np.ones((2, 2))), "the lower corner of each box first"),
    "shape of boxes": (lambda: pgp.Integral(np.ones(3)), r"`boxes` must have shape \(q, 2, d\)"),
    "weights": (lambda: pgp.Integral(BOXES, weight=np.ones(3)), "one number for each box"),
    "nodes of a rule": (lambda: pgp.Integral(LINE, nodes=3), "`nodes` is for boxes"),
    "square": (lambda: pgp.LinearFunctional(lambda u, X: u(X) ** 2, X), "must be linear"),
    "offset": (lambda: pgp.LinearFunctional(lambda u, X: u(X) + 1, X), "must be linear"),
    "closure": (lambda: pgp.LinearFunctional(lambda u, a: a * u(jnp.asarray(X)), 2.0), "what it closes over"),
    "values mixed": (lambda: pgp.LinearFunctional(lambda u, X: u(X) - jnp.mean(u(X)), X), "each of the functions"),
    "values turned": (lambda: pgp.LinearFunctional(lambda u, X: jnp.roll(u(X), 1) - u(X), X), "each of the functions"),
    "other dimension": (lambda: OF_POINTS.variance(pgp.Gradient(GRID)), r"1 dimension\(s\), but the prior has 2"),
    "other dimension of data": (
        lambda: pgp.optimal_guide(pgp.SparseGPPrior(kernel=pgp.RBF(1.0, 1.0), Z=X), pgp.Gradient(GRID), Y[:5], 0.1),
        r"1 dimension\(s\), but the prior has 2",
    ),
    "integral over outputs": (
        lambda: pgp.GPPrior(kernel=NAMES, X=pgp.Integral(BOXES[0])),
        r"column\(s\) \[1\]",
    ),
    "columns of outputs, traced": (
        lambda: jax.jit(lambda B: pgp.GPPrior(kernel=NAMES, X=pgp.Gradient(B)).log_prob(Y[:4], 0.1))(NUMBERED),
        "along column 1",
    ),
    "outputs": (lambda: pgp.Laplacian(X)(lambda X: jnp.stack([X[..., 0]] * 3, axis=-1)), "one value a point"),
    "not symmetric": (
        lambda: pgp.GPPrior(kernel=KERNEL, X=pgp.Hessian(X)).condition(np.arange(12.0).reshape(3, 2, 2), 0.1),
        "not symmetric",
    ),
    "no call": (lambda: pgp.LinearFunctional(lambda u, X: X, X), "no inputs"),
    "axes": (lambda: pgp.LinearFunctional(lambda u, X: jnp.sum(u(X)), X), "keep the axes"),
    "sum": (lambda: pgp.Values(X) + pgp.Gradient(X), "one shape"),
    "factor": (lambda: np.ones(4) * pgp.Values(X), "one for each of its values"),
    "matrix": (lambda: np.ones((2, 4)) @ pgp.Values(X), r"shape \(r, 3\)"),
    "length of y": (lambda: TWO.condition([Y[:3]], 0.1), "`y` must be a list of 2"),
    "shape of y": (lambda: TWO.condition([Y[:3], Y[:4]], 0.1), r"`y\[1\]` must be a number or have the shape"),
    "noise": (lambda: TWO.condition([Y[:3], Y[3:9]], [0.1, -0.2]), "`noise_var` must not be negative"),
    "NaN": (lambda: TWO.condition([Y[:3], np.full(6, np.nan)], 0.1), "`y` must be finite"),
    "points": (lambda: pgp.Gradient(X[0]), r"`X` must have shape \(n, d\)"),
    "units": (lambda: pgp.standardise(X, Y[:3]).original(posterior_of_some()), "in the units that it was made in"),
}
OF_POINTS = pgp.GPPrior(kernel=pgp.RBF(1.0, 1.0), X=X).condition(Y[:3], 0.1)
TWO = pgp.GPPrior(kernel=KERNEL, X=[X, pgp.Gradient(X)])
POSTERIOR_OF_MATERN = pgp.GPPrior(kernel=pgp.Matern(1.5, 1.0, 1.0), X=X).condition(Y[:3], 0.1)
PATHS_OF_MATERN = pgp.PathwiseSampler(POSTERIOR_OF_MATERN, 4).sample_paths(jax.random.key(0), 2)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, no_hook):
    wrong, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        wrong()
