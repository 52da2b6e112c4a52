"""Hard numbers: the jitter policy, single precision, and data of every size."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import LINEAR, points, RBF

import pathwise_gp as pgp
from pathwise_gp._checks import distinct
from pathwise_gp._numerics.distances import squared_distances
from pathwise_gp._numerics.linalg import settled_cholesky

KEY = jax.random.key(0)


def settle(A, scale=None, floor=0.0, first=1e-12, bound=1e-3):
    A = jnp.asarray(A)
    n = A.shape[0]
    scale, floor = jnp.ones(n) if scale is None else jnp.asarray(scale), jnp.broadcast_to(jnp.asarray(floor), (n,))
    return settled_cholesky(A, scale, floor, *(jnp.asarray(v, A.dtype) for v in (first, bound)))


def indefinite(lowest, n=6):
    """A symmetric matrix with one eigenvalue below zero, or just above."""
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0]
    return (Q * np.r_[lowest, np.linspace(0.5, 1.5, n - 1)]) @ Q.T


def test_jitter_rises_by_decades_and_no_further_than_needed():
    for lowest, expected in ((0.1, 0.0), (-3e-12, 1e-11), (-5e-6, 1e-5), (-2e-5, 1e-4), (-5e-4, 1e-3)):
        A = indefinite(lowest)
        lower, tau = settle(A)
        np.testing.assert_allclose(tau, expected, rtol=1e-12)
        np.testing.assert_allclose(lower @ lower.T, A + expected * np.eye(6), atol=1e-14)
    lower, _ = settle(indefinite(-0.1))  # past the bound
    assert np.all(np.isnan(np.diagonal(lower)))
    # In proportion to the scale of each row: as for the matrix with all scales 1.
    units = 10.0 ** np.arange(-3, 3)
    lower, tau = settle(indefinite(-5e-6) * np.outer(units, units), units**2)
    np.testing.assert_allclose(tau, 1e-5, rtol=1e-12)
    np.testing.assert_allclose(lower / units[:, None], settle(indefinite(-5e-6))[0], atol=1e-10)
    # A pivot that is rounding is as good as none.
    lower, tau = settle(np.diag([1.0, 1e-9, 1, 1, 1, 1]), floor=np.r_[0.0, 1e-8, np.zeros(4)], first=1e-7)
    np.testing.assert_allclose(tau, 1e-7)


def test_a_bad_matrix_in_a_batch_does_not_change_its_neighbours():
    batch = jnp.asarray(np.stack([indefinite(v) for v in (0.1, -5e-6, -0.1, 0.2)]))
    lower, tau = jax.jit(jax.vmap(settle))(batch)
    for i in (0, 1, 3):
        alone, own = settle(batch[i])
        np.testing.assert_allclose(lower[i], alone, rtol=1e-13)
        assert tau[i] == own
    assert tau[0] == tau[3] == 0 and np.all(np.isnan(np.diagonal(lower[2])))


def test_derivative_of_a_settled_factor():
    A, weights = indefinite(-5e-6), np.random.default_rng(1).normal(size=(6, 6))
    direction = np.random.default_rng(2).normal(size=(6, 6))
    direction = direction + direction.T
    # Of the matrix that it ended with: where something was added, of A + 1e-5 I.
    for matrix, plain in ((A, A + 1e-5 * np.eye(6)), (indefinite(0.3), indefinite(0.3))):
        gradient = jax.grad(lambda A: jnp.sum(weights * settle(A)[0]))(jnp.asarray(matrix))
        h = 1e-8
        up, down = (np.sum(weights * np.linalg.cholesky(plain + s * h * direction)) for s in (1, -1))
        np.testing.assert_allclose(np.sum(gradient * direction), (up - down) / (2 * h), rtol=1e-4)
        forward = jax.jvp(lambda A: settle(A)[0], (jnp.asarray(matrix),), (jnp.asarray(direction),))[1]
        np.testing.assert_allclose(np.sum(weights * forward), np.sum(gradient * direction), rtol=1e-9)


def repeated(jitter=None, dtype=float):
    """A prior whose covariance is singular: each point twice."""
    X = np.repeat(points(6, 2), 2, axis=0).astype(dtype)
    return pgp.GPPrior(kernel=pgp.RBF(2.0, 0.9), X=X, jitter=jitter)


def test_posterior_reports_the_jitter_it_used():
    y = np.zeros(12)
    enough = repeated(jitter=0.25).condition(y, 0.0)
    np.testing.assert_array_equal(enough.jitter, np.full(12, 0.25))  # as given
    raised = repeated().condition(y, 0.0)
    np.testing.assert_allclose(raised.jitter, 10 * 12 * np.finfo(float).eps * 2.0, rtol=1e-12)  # the first step
    np.testing.assert_allclose(raised.noise, raised.jitter)  # and the same in ε
    assert raised.prior.jitter is None  # the prior stays as it was given
    paths = pgp.PathwiseSampler(raised, 64).sample_paths(KEY, 2)
    np.testing.assert_array_equal(paths.noise, raised.noise)
    # It is the posterior of a prior with that jitter, one for each point.
    again = repeated(jitter=raised.jitter).condition(y, 0.0)
    np.testing.assert_allclose(raised.factor.lower, again.factor.lower, atol=1e-7)
    np.testing.assert_array_equal(again.jitter, raised.jitter)
    # Under jit the same.
    jitted = eqx.filter_jit(lambda: repeated().condition(y, 0.0))()
    np.testing.assert_allclose(jitted.jitter, raised.jitter, rtol=1e-12)
    # Noise at some of the points, of very different variances: each has its own, and where there is none needed, nothing.
    kernel = pgp.Linear(1.0) + pgp.Constant(1.0)
    X = jnp.asarray([[0.0], [1.0], [1e3], [1e3], [1e6]])
    line = np.asarray([1.0, 2.0, 1001.0, 1001.0, 1000001.0])
    two = pgp.GPPrior(kernel=kernel, X=X).condition(line, 0.0)
    np.testing.assert_allclose(two.jitter, 50 * np.finfo(float).eps * (1 + X[:, 0] ** 2), rtol=1e-12)
    np.testing.assert_allclose(two.mean(X), line, rtol=1e-6)
    np.testing.assert_array_equal(pgp.GPPrior(kernel=kernel, X=X).condition(line, 1e-3).jitter, np.zeros(5))


def test_noise_free_values_are_met_to_a_millionth():
    X = np.linspace(0, 6, 40)[:, None]
    for scale in (0.5, 1.0, 5.0):
        y = np.sin(X[:, 0] / scale)
        posterior = pgp.GPPrior(kernel=pgp.RBF(1.0, scale), X=X).condition(y, 0.0)
        np.testing.assert_allclose(posterior.mean(X), y, atol=2e-6)
        assert np.all(posterior.variance(X) < 1e-12)
    # Where the factorisation does not need it, nothing is added.
    np.testing.assert_array_equal(
        pgp.GPPrior(kernel=pgp.Matern(0.5, 1.0, 1.0), X=X).condition(y, 0.0).jitter, np.zeros(40)
    )


SAME, STEP = np.r_[0.0, 0.4, 0.4, 1.0], np.linspace(-1, 1, 25)


@pytest.mark.parametrize(
    ("X", "y", "where"),
    [(SAME, np.r_[0.0, 1.0, 0.0, 0.5], "1, 2"), (STEP, np.sign(STEP), r"\d+, \d+, ")],
    ids=["two values", "a step"],
)
def test_contradictions_without_noise_are_an_error_that_says_where(X, y, where):
    prior = pgp.GPPrior(kernel=pgp.RBF(1.0, 0.5), X=X[:, None])
    for unit in (1.0, 1e-5, 1e5):
        with pytest.raises(ValueError, match=f"`y` without noise contradicts itself .* at point.s. {where}"):
            pgp.GPPrior(kernel=pgp.RBF(unit**2, 0.5), X=X[:, None]).condition(unit * y, 0.0)
    with pytest.raises(Exception, match="`y` without noise contradicts itself"):
        jax.block_until_ready(eqx.filter_jit(lambda y: prior.condition(y, 0.0).coefficients)(y))
    # With noise, or a jitter, of any size it is none; nor are equal values at one point.
    prior.condition(y, 1e-6)
    pgp.GPPrior(kernel=pgp.RBF(1.0, 0.5), X=X[:, None], jitter=1e-6).condition(y, 0.0)
    prior.condition(np.cos(X), 0.0)
    prior.condition(np.zeros(len(X)), 0.0)


def test_precision_that_cannot_carry_the_model_is_said():
    X = np.linspace(1959.0, 2024.0, 66, dtype=np.float32)[:, None]
    y = np.sin(X[:, 0])
    kernel = jax.tree.map(
        lambda leaf: leaf.astype("float32"), pgp.Constant(100.0) + pgp.Linear(1.0) + pgp.RBF(0.1, 5.0)
    )
    prior = pgp.GPPrior(kernel=kernel, X=X)
    with pytest.warns(pgp.PrecisionWarning, match="more than a hundredth of the noise was added.*float64"):
        prior.condition(y, 0.0025)
    with pytest.warns(pgp.PrecisionWarning, match="rounding takes its place.*float64"):
        assert prior.log_prob(y, 0.0025) == -np.inf
    with pytest.warns(pgp.PrecisionWarning, match="more than a millionth of the variance was added"):
        prior.condition(np.zeros_like(y), 0.0)
    with pytest.warns(pgp.PrecisionWarning, match="rounding takes its place"):
        prior.condition(y, 40.0)  # factorised as it is, but with a noise of the size of the rounding
    # One point, whose factorisation is as good as any: the variance that is left of a million is not to be had.
    one = pgp.GPPrior(kernel=pgp.RBF(np.float32(1e6), np.float32(1.0)), X=X[:1]).condition(y[:1], 0.01)
    with pytest.warns(pgp.PrecisionWarning, match="rounding takes its place"):
        one.variance(X[:1])
    double = pgp.GPPrior(kernel=pgp.Constant(100.0) + pgp.Linear(1.0) + pgp.RBF(0.1, 5.0), X=X.astype(float))
    assert not np.any(double.condition(y, 0.0025).jitter)  # and no warning


def test_jitter_of_inducing_points_is_added_too():
    Z = np.repeat(points(4, 2), 2, axis=0)
    prior = pgp.SparseGPPrior(kernel=RBF, Z=Z)
    settled = prior.settled()
    np.testing.assert_allclose(settled.jitter, 80 * np.finfo(float).eps * RBF.diag(Z), rtol=1e-12)
    assert bool(settled.factor.is_finite())
    paths = pgp.DecoupledPathwiseSampler(prior, pgp.WhitenedGuide(np.zeros(8), np.eye(8)), 64).sample_paths(KEY, 2)
    np.testing.assert_array_equal(paths.noise, settled.jitter)
    assert np.all(np.isfinite(paths(points(3, 2))))
    apart = pgp.SparseGPPrior(kernel=RBF, Z=np.unique(Z, axis=0))
    assert not np.any(apart.settled().jitter)
    # What the guide leaves open is little beside it: said.
    close = pgp.WhitenedGuide(np.zeros(8), 1e-8 * np.eye(8))
    with pytest.warns(pgp.PrecisionWarning, match="fiftieth of the guide's variance"):
        pgp.DecoupledPathwiseSampler(prior, close, 64).sample_paths(KEY, 2)


def test_past_the_bound_there_is_an_error(no_hook):
    prior = pgp.GPPrior(kernel=Indefinite(), X=points(3, 1), jitter=1e-9)
    message = r"not even with a jitter that was raised by decades to 0.001 of the variance of each.*larger `jitter`"
    with pytest.raises(ValueError, match=message):
        prior.condition(np.zeros(3), 1e-6)
    with pytest.raises(Exception, match="raised by decades"):
        jax.block_until_ready(eqx.filter_jit(lambda: prior.condition(np.zeros(3), 1e-6).coefficients)())


def test_gradients_through_a_raised_jitter_are_finite():
    def variance(lengthscale):
        prior = pgp.GPPrior(kernel=pgp.RBF(1.0, lengthscale), X=np.repeat(points(4, 2), 2, axis=0), jitter=0.0)
        return jnp.sum(prior.condition(np.ones(8), 0.0).mean(points(3, 2, seed=1)))

    value, gradient = jax.jit(jax.value_and_grad(variance))(jnp.asarray(0.8))
    h = 1e-4
    numeric = (variance(jnp.asarray(0.8 + h)) - variance(jnp.asarray(0.8 - h))) / (2 * h)
    assert np.isfinite(value)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-2)


# The reference workflow: 28 points of a sine and a cosine, noise 0.15.
X28 = np.linspace(-1.5, 1.5, 28)[:, None]
Y28 = np.sin(3 * X28[:, 0]) + 0.3 * np.cos(7 * X28[:, 0])
GRID = np.linspace(-2, 2, 41)[:, None]


def workflow(dtype, basis):
    kernel = pgp.RBF(np.asarray(1.0, dtype), np.asarray(0.3, dtype))
    prior = pgp.GPPrior(kernel=kernel, X=X28.astype(dtype), jitter=np.asarray(1e-6, dtype))
    posterior = prior.condition(Y28.astype(dtype), np.asarray(0.15**2, dtype))
    sampler = pgp.PathwiseSampler(posterior, 256, features=basis)
    return posterior, sampler


@pytest.mark.parametrize("basis", [pgp.QuasiMonteCarlo(), pgp.HilbertSpace()], ids=["random", "Hilbert"])
def test_single_precision_agrees_with_double(basis):
    # The same draw: the basis and Gaussian inputs of double precision, rounded.
    double, sampler = workflow(np.float64, basis)
    drawn = sampler.sample_paths(KEY, 8)
    noise = jax.random.normal(jax.random.key(1), (8, 28))
    single, rounded = workflow(np.float32, basis)
    cast = lambda tree: jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)
    paths = sampler.update(drawn.features, drawn.weights, noise)
    others = rounded.update(cast(drawn.features), cast(drawn.weights), cast(noise))
    grid32 = GRID.astype(np.float32)
    assert others(grid32).dtype == jnp.float32
    np.testing.assert_allclose(others(grid32), paths(GRID), atol=1e-3)
    slope = lambda p, x: jax.vmap(jax.grad(p))(x)
    np.testing.assert_allclose(
        slope(others[2], jnp.asarray(grid32)),
        slope(paths[2], jnp.asarray(GRID)),
        atol=1e-3 * np.abs(slope(paths[2], jnp.asarray(GRID))).max(),
    )
    np.testing.assert_allclose(single.mean(grid32), double.mean(GRID), atol=1e-3)
    np.testing.assert_allclose(single.variance(grid32), double.variance(GRID), atol=1e-3)
    by_lengthscale = lambda prior, noise_var: (
        eqx.filter_grad(lambda p: p.log_prob(Y28, noise_var))(prior).kernel.lengthscale
    )
    np.testing.assert_allclose(by_lengthscale(single.prior, 0.0225), by_lengthscale(double.prior, 0.0225), rtol=1e-3)


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e3, 1e5])
@pytest.mark.parametrize("dim", [1, 6, 80])
def test_single_precision_distances_wherever_the_inputs_lie(offset, dim):
    X = (points(40, dim) + offset).astype(np.float32)
    Z = np.concatenate([X[:5], (points(10, dim, seed=1) + offset).astype(np.float32)])
    lengthscale = np.full(dim, 0.4, np.float32)
    got = squared_distances(jnp.asarray(X), jnp.asarray(Z), jnp.asarray(lengthscale))
    exact = np.sum(((X[:, None].astype(float) - Z[None].astype(float)) / 0.4) ** 2, axis=2)
    np.testing.assert_allclose(got, exact, rtol=2e-6, atol=0)
    assert np.all(np.diagonal(got)[:5] == 0)
    kernel = pgp.RBF(1.0, np.float32(0.4))
    np.testing.assert_allclose(kernel(X, Z), np.exp(-exact / 2), atol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e6])
def test_single_precision_paths_far_from_the_origin(offset):
    # Inputs on a grid that float32 has exactly, thousands of periods from 0: features are made about the data.
    x = offset + np.arange(16)[:, None]
    kernel = pgp.RBF(1.0, 3.0)
    values = []
    for dtype in (np.float32, np.float64):
        prior = pgp.GPPrior(
            kernel=jax.tree.map(lambda leaf: leaf.astype(dtype), kernel), X=x.astype(dtype), jitter=1e-5
        )
        paths = pgp.PathwiseSampler(prior.condition(np.sin(np.arange(16)), 0.01), 512).sample_paths(KEY, 1)
        values.append(np.asarray(paths.marginal_variance(x)))
    np.testing.assert_allclose(values[0], values[1], rtol=5e-2)
    np.testing.assert_allclose(values[1], prior.condition(np.sin(np.arange(16)), 0.01).variance(x), rtol=5e-2)


def check(prior, y, noise_var, test, rtol=0.1):
    """Paths are finite, and their mean and variance are the posterior's, as far as the features allow."""
    posterior = prior.condition(y, noise_var)
    paths = pgp.PathwiseSampler(posterior, 2048).sample_paths(KEY, 4)
    assert np.all(np.isfinite(paths(test)))
    np.testing.assert_allclose(paths.mean_path(test), posterior.mean(test), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(paths.marginal_variance(test), posterior.variance(test), rtol=rtol)
    return posterior, paths


def test_one_point():
    prior = pgp.GPPrior(kernel=RBF, X=np.zeros((1, 2)))
    posterior, _ = check(prior, np.ones(1), 0.1, points(5, 2))
    np.testing.assert_allclose(posterior.mean(np.zeros(2)), 1.3 / 1.4)


def test_repeated_points_are_more_observations_of_one_value():
    X, y = points(3, 2), np.array([0.3, -0.2, 0.9])
    posterior, _ = check(
        pgp.GPPrior(kernel=RBF, X=np.repeat(X, 4, axis=0), jitter=0.0), np.repeat(y, 4), 0.4, points(5, 2, 1)
    )
    once = pgp.GPPrior(kernel=RBF, X=X, jitter=0.0).condition(y, 0.1)
    np.testing.assert_allclose(posterior.mean(points(5, 2, 1)), once.mean(points(5, 2, 1)), rtol=1e-9)
    np.testing.assert_allclose(posterior.variance(points(5, 2, 1)), once.variance(points(5, 2, 1)), rtol=1e-9)


def test_constant_values():
    X = points(10, 2)
    check(pgp.GPPrior(kernel=RBF, X=X), np.full(10, 7.0), 0.1, points(4, 2, 1))
    level = pgp.GPPrior(kernel=RBF, X=X, mean=7.0).condition(np.full(10, 7.0), 0.1)
    np.testing.assert_array_equal(level.mean(points(4, 2, 1)), np.full(4, 7.0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_hundred_dimensions(dtype):
    X, test = points(20, 100).astype(dtype), points(5, 100, 1).astype(dtype)
    for kernel in (pgp.RBF(1.0, 0.7), pgp.Matern(2.5, 1.0, np.full(100, 0.7)), pgp.ArcCosine(1.0, 1)):
        posterior = pgp.GPPrior(kernel=kernel, X=X).condition(X[:, 0].astype(dtype), 0.1)
        paths = pgp.PathwiseSampler(posterior, 2048).sample_paths(KEY, 2)
        assert np.all(np.isfinite(paths(test)))
        np.testing.assert_allclose(paths.marginal_variance(test), posterior.variance(test), rtol=0.15)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_units_of_the_input_do_not_matter(scale, dtype):
    # The same data in other units, and the lengthscale with them.
    X, y, test = points(12, 2), np.sin(np.arange(12.0)), points(5, 2, 1)
    values = []
    for s in (1.0, scale):
        kernel = pgp.Matern(2.5, np.asarray(1.0, dtype), np.asarray(0.6 * s, dtype)) + pgp.Linear(
            np.asarray(0.5 / s**2, dtype)
        )
        posterior = pgp.GPPrior(kernel=kernel, X=(s * X).astype(dtype), jitter=1e-5).condition(y, 0.05)
        paths = pgp.PathwiseSampler(posterior, 256).sample_paths(KEY, 3)
        inputs = (s * test).astype(dtype)
        values.append((posterior.mean(inputs), posterior.variance(inputs), paths(inputs)))
    atol = 2e-3 if dtype == np.float32 else 1e-9
    for one, other in zip(*values, strict=True):
        np.testing.assert_allclose(one, other, atol=atol)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("lengthscale", [1e-3, 1e3])
def test_lengthscales_far_from_the_spacing(lengthscale, dtype):
    X, y = points(12, 2).astype(dtype), np.sin(np.arange(12.0)).astype(dtype)
    kernel = pgp.RBF(np.asarray(1.0, dtype), np.asarray(lengthscale, dtype))
    posterior = pgp.GPPrior(kernel=kernel, X=X, jitter=1e-4).condition(y, 0.1, check_scales=False)
    paths = pgp.PathwiseSampler(posterior, 1024).sample_paths(KEY, 3)
    test = points(5, 2, 1).astype(dtype)
    assert np.all(np.isfinite(paths(test)))
    if lengthscale < 1:  # every point on its own: the prior elsewhere
        np.testing.assert_allclose(posterior.mean(test), 0, atol=1e-6)
        np.testing.assert_allclose(paths.marginal_variance(test), 1.0, rtol=0.1)
    else:  # a constant: twelve observations of one value
        level = np.sum(y) / (12 + 0.1001)
        np.testing.assert_allclose(posterior.mean(test), level, atol=1e-3)
        np.testing.assert_allclose(paths(test), np.asarray(paths(test))[:, :1] * np.ones(5), atol=1e-2)


def test_white_noise_joins_the_noise_of_observations():
    X, y, test = points(8, 2), np.sin(np.arange(8.0)), points(4, 2, 1)
    white = pgp.GPPrior(kernel=RBF + LINEAR + pgp.White(0.3), X=X, jitter=1e-6)
    plain = pgp.GPPrior(kernel=RBF + LINEAR, X=X, jitter=1e-6)
    np.testing.assert_allclose(white.log_prob(y, 0.1), plain.log_prob(y, 0.4), rtol=1e-12)
    a, b = white.condition(y, 0.1), plain.condition(y, 0.4)
    np.testing.assert_allclose(a.noise, b.noise, rtol=1e-12)
    np.testing.assert_allclose(a.mean(test), b.mean(test), rtol=1e-10)
    np.testing.assert_allclose(a.variance(X), b.variance(X), rtol=1e-9)  # of f: at the inputs too
    assert np.all(np.isfinite(white.condition(y, 0.0).mean(test)))  # noise of its own is enough
    paths = [pgp.PathwiseSampler(p, 128).sample_paths(KEY, 3) for p in (a, b)]
    np.testing.assert_allclose(paths[0](X), paths[1](X), atol=1e-9)
    # A product is noise whose variance is the product at a point.
    scaled = pgp.GPPrior(kernel=RBF + pgp.White(0.3) * LINEAR, X=X, jitter=1e-6).condition(y, 0.1)
    np.testing.assert_allclose(scaled.noise, 0.1 + 1e-6 + 0.3 * 0.6 * np.sum(X**2, axis=1), rtol=1e-12)
    # The optimal sparse guide sees it.
    sparse = [pgp.SparseGPPrior(kernel=k, Z=X[:4], jitter=1e-6) for k in (RBF + pgp.White(0.3), RBF)]
    guides = [pgp.optimal_guide(p, X, y, v) for p, v in zip(sparse, (0.1, 0.4), strict=True)]
    np.testing.assert_allclose(guides[0].mean, guides[1].mean, rtol=1e-9)
    np.testing.assert_allclose(
        pgp.elbo(sparse[0], guides[0], X, y, 0.1), pgp.elbo(sparse[1], guides[1], X, y, 0.4), rtol=1e-10
    )
    np.testing.assert_array_equal(np.asarray(pgp.White(0.3)(X, X)), 0)  # the covariance of a function that is 0


def test_deep_kernels_learn():
    # The weights of a network inside a kernel get gradients, through the likelihood and through a path.
    network = eqx.nn.MLP(2, 3, 8, 1, key=jax.random.key(1))
    X, y = points(10, 2), np.sin(np.arange(10.0))

    def loss(network):
        prior = pgp.GPPrior(kernel=pgp.Warped(pgp.RBF(1.0, 0.8), network), X=X, jitter=1e-4)
        return -prior.log_prob(y, 0.1)

    def value(network):
        prior = pgp.GPPrior(kernel=pgp.Warped(pgp.RBF(1.0, 0.8), network), X=X, jitter=1e-4)
        return pgp.PathwiseSampler(prior.condition(y, 0.1), 32).sample_paths(KEY, 1)(points(3, 2, 1)).sum()

    for function in (loss, value):
        gradient = eqx.filter_jit(eqx.filter_grad(function))(network)
        bias = gradient.layers[0].bias
        h = 1e-6
        step = lambda s: eqx.tree_at(lambda n: n.layers[0].bias, network, network.layers[0].bias.at[0].add(s))
        numeric = (function(step(h)) - function(step(-h))) / (2 * h)
        np.testing.assert_allclose(bias[0], numeric, rtol=1e-5, atol=1e-8)
        assert all(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(eqx.filter(gradient, eqx.is_array)))


def test_a_covariance_of_nothing_or_of_infinity_is_an_error_and_not_a_loop():
    with pytest.raises(ValueError, match="not positive definite"):
        pgp.GPPrior(kernel=pgp.Linear(1.0), X=jnp.zeros((1, 1))).condition(jnp.zeros(1), 0.0)
    with pytest.raises(ValueError, match="not positive definite"):
        pgp.SparseGPPrior(kernel=pgp.White(1.0), Z=jnp.zeros((2, 1))).settled()
    far = jnp.asarray([[1e8], [2e8]], jnp.float32)
    with pytest.raises(ValueError, match="not positive definite"):
        pgp.GPPrior(kernel=pgp.Polynomial(1.0, 1.0, 5), X=far).condition(jnp.zeros(2, jnp.float32), 0.1)


def test_a_small_noise_beside_a_large_variance_survives_a_product():
    X = points(3, 2).astype(np.float32)
    kernel = 2.0 * (pgp.RBF(1e4, 0.2) + pgp.White(1e-3))
    np.testing.assert_allclose(kernel.noise(jnp.asarray(X)), 2e-3, rtol=1e-6)


def test_inputs_outside_the_domain_are_an_error_under_jit_too():
    kernel, y = pgp.Index(np.ones((3, 1)), np.ones(3)), np.ones(3)
    bad = np.array([[0.0], [7.0], [1.5]])
    for function in (
        lambda X: pgp.GPPrior(kernel=kernel, X=X).condition(y, 0.1).coefficients,
        lambda X: pgp.GPPrior(kernel=kernel, X=X).log_prob(y, 0.1),
        lambda X: pgp.SparseGPPrior(kernel=kernel, Z=X).checked_factor().lower,
    ):
        with pytest.raises(Exception, match="not one of the categories"):
            jax.block_until_ready(eqx.filter_jit(function)(bad))


def test_outputs_on_a_grid_have_the_jitter_policy():
    X = np.linspace(-1, 1, 100)[:, None].astype(np.float32)
    y = np.stack([np.sin(3 * X[:, 0]), np.cos(3 * X[:, 0])], axis=1)
    kernel = pgp.Coregionalised(pgp.RBF(1.0, 0.3), np.array([[1.0], [0.5]]), [0.1, 0.1])
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), kernel)
    prior = pgp.GPPrior(kernel=single, X=pgp.AllOutputs(X, 2))
    with pytest.warns(pgp.PrecisionWarning, match="rounding takes its place"):
        assert prior.log_prob(y, 1e-9) == -jnp.inf  # in float32 the noise is rounding
    gradient = jax.jit(jax.grad(lambda noise: prior.log_prob(y, noise)))(jnp.asarray(1e-9, jnp.float32))
    assert gradient == 0
    with pytest.warns(pgp.PrecisionWarning, match="more than a hundredth of the noise was added"):
        posterior = prior.condition(y, 1e-9)
    # To each output in proportion to its own variance.
    jitter, variances = np.asarray(posterior.jitter), np.asarray(prior.functional.diagonal(single))
    assert np.all(jitter > 1e-9) and np.all(jitter <= 1.2e-3)
    np.testing.assert_allclose(jitter / variances, jitter[0] / variances[0], rtol=1e-6)
    np.testing.assert_allclose(posterior.noise, 1e-9 + jitter, rtol=1e-6)
    np.testing.assert_allclose(posterior.mean(pgp.with_outputs(X, 2)), y, atol=1e-2)
    assert not np.any(prior.condition(y, 0.01).jitter)  # not needed
    all_outputs = pgp.AllOutputs(X.astype(float), 2)
    double = pgp.GPPrior(kernel=kernel, X=all_outputs)
    assert not np.any(double.condition(y, 1e-9).jitter) and np.isfinite(double.log_prob(y, 1e-9))
    with pytest.raises(ValueError, match="not positive definite in float64, not even with a jitter"):
        wrong = pgp.Coregionalised(Indefinite(), np.ones((2, 1)), [0.1, 0.1])
        pgp.GPPrior(kernel=wrong, X=all_outputs).condition(y, 0.1)


class Indefinite(pgp.AbstractKernel):
    """Covariances larger than the variances: no covariance function."""

    def matrix(self, X, Z):
        return jnp.where(X[:, None, 0] == Z[None, :, 0], 0.1, 1.0)


DAYS = 2459000.5 + 0.02 * np.arange(100)


def test_distinct_inputs_that_single_precision_makes_equal_are_an_error():
    with jax.enable_x64(False):
        kernel = pgp.Matern(2.5, 1.0, 0.3)
        y = np.sin(6 * (DAYS - DAYS[0]))
        for make in (np.asarray, list, lambda x: np.asarray(x * 1e9, np.int64)):
            with pytest.raises(
                ValueError, match=r"Column 1 of `X` has 100 distinct values, of which [89] are.*jax_enable_x64.*offset"
            ):
                pgp.GPPrior(kernel=kernel, X=np.stack([np.arange(100), make(DAYS)], axis=1))
        with pytest.raises(ValueError, match="Column 0 of `Z`"):
            pgp.SparseGPPrior(kernel=kernel, Z=DAYS[:, None])
        paths = pgp.GPPrior(kernel=kernel, X=np.linspace(0, 1, 4)[:, None]).sample_paths(KEY, n_features=8)
        with pytest.raises(ValueError, match="Column 0 of `X`"):
            paths(DAYS[:, None])
        # A coarser grid of values is none: neither an offset removed, nor days apart, nor more points than there are numbers.
        posterior = pgp.GPPrior(kernel=kernel, X=(DAYS - 2459000.0)[:, None]).condition(y, 0.0025)
        assert posterior.prior.X.dtype == "float32"
        pgp.GPPrior(kernel=kernel, X=(2459000.5 + np.arange(100.0))[:, None])
        distinct(np.random.default_rng(0).uniform(1, 2, (2_000_000, 1)), "X")
        paths(np.full((3, 1), 2459000.3))
    pgp.GPPrior(kernel=kernel, X=DAYS[:, None])  # nothing is lost in double precision


def test_observations_whose_spread_single_precision_loses_are_an_error():
    X, wave = np.linspace(0, 6, 20)[:, None], np.sin(np.linspace(0, 6, 20))
    with jax.enable_x64(False):
        prior = pgp.GPPrior(kernel=pgp.RBF(1.0, 1.0), X=X, mean=1e9)
        for y, mask in ((1e9 + wave, None), (np.r_[1e9 + wave[:-1], np.nan], np.arange(20) < 19)):
            with pytest.raises(
                ValueError, match=r"`y` has a standard deviation of 0.7.*steps of 1[0-9]*: call .*jax_enable_x64"
            ):
                prior.condition(y, 0.1, mask)
        pgp.GPPrior(kernel=pgp.RBF(1.0, 1.0), X=X, mean=340.0).condition(340 + wave, 0.1)
        # The deviation of equal numbers is 0, or a rounding error.
        for same in (1e9, 0.1):
            pgp.GPPrior(kernel=pgp.RBF(1.0, 1.0), X=X, mean=same).condition(np.full(20, same), 0.1)
        kernel = pgp.Coregionalised(pgp.RBF(1.0, 1.0), np.ones((2, 1)), [0.1, 0.1])
        with pytest.raises(ValueError, match=r"`y` has a standard deviation of 0.7"):
            pgp.GPPrior(kernel, pgp.AllOutputs(X, 2)).condition(np.stack([1e12 * wave, 1e9 + wave], axis=1), 0.1)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_refused(dtype, no_hook):
    X = jnp.arange(4.0, dtype=dtype)[:, None]
    with pytest.raises(ValueError, match=f"`X` has dtype {jnp.dtype(dtype)}, whose (8|11) bits .* cast it"):
        pgp.GPPrior(kernel=RBF, X=X)
    prior = pgp.GPPrior(kernel=RBF, X=X.astype("float32"))
    with pytest.raises(ValueError, match=r"`y` has dtype .*float16"):
        prior.condition(X[:, 0], 0.1)
    with pytest.raises(ValueError, match=r"has dtype .*float16"):
        pgp.RBF(jnp.ones((), dtype), 1.0)
