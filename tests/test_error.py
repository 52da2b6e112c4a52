"""How good a path is: its variance in closed form, the error of a basis, the Hilbert-space basis, and parts of a sum."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import special
from tables import arc, KERNELS, LINEAR, matern, mixture, points, RBF

import pathwise_gp as pgp
from pathwise_gp._features import size
from pathwise_gp._features.hilbert import SineFeatures
from pathwise_gp._samplers import error as module

DIM, N = 2, 9
RNG = np.random.default_rng(7)
X, TEST, Y = points(N, DIM), points(5, DIM, seed=1), RNG.normal(size=N)
KEY = jax.random.key(0)


def conditioned(kernel, **kwargs):
    return pgp.GPPrior(kernel=kernel, X=X, jitter=1e-6, **kwargs).condition(Y, np.linspace(0.05, 0.2, N))


@eqx.filter_jit
def values(functions, X):
    """Of several functions, in one program."""
    return jax.tree.map(lambda function: function(X), functions, is_leaf=callable)


@eqx.filter_jit
def components(paths):
    return paths.components()


def matrix(kernel, X, Z):
    """A matrix of an RBF kernel in NumPy."""
    return KERNELS["RBF"].formula(kernel, X, Z)


@pytest.mark.parametrize("share_features", [True, False])
def test_marginal_variance_is_that_of_many_paths(share_features):
    posterior = conditioned(RBF + LINEAR)
    paths = pgp.PathwiseSampler(posterior, 16, share_features=share_features).sample_paths(KEY, 3)
    # By the affine map from the weights and noise: no Monte Carlo either, and by another route.
    k = lambda X, Z: matrix(RBF, X, Z) + KERNELS["Linear"].formula(LINEAR, X, Z)
    H = k(TEST, X) @ np.linalg.inv(k(X, X) + np.diag(posterior.noise))
    both, got = jnp.concatenate([X, TEST]), paths.marginal_variance(TEST)
    for i in range(3):
        features = paths.features if share_features else paths[i].features
        phi, phi_test = np.split(np.asarray(values(features, both)), [N])
        expected = np.sum((phi_test - H @ phi) ** 2, axis=1) + H**2 @ np.asarray(posterior.noise)
        np.testing.assert_allclose(got if share_features else got[i], expected, rtol=1e-9)
        np.testing.assert_allclose(paths[i].marginal_variance(TEST), expected, rtol=1e-9)
    with pytest.raises(ValueError, match="this is a mean"):
        paths.mean_path.marginal_variance(TEST)


def test_marginal_variance_of_sparse_paths_and_of_the_prior():
    prior = pgp.SparseGPPrior(kernel=LINEAR + 1.0, Z=X[:4], jitter=0.1)
    tril = np.tril(RNG.normal(size=(4, 4)))
    paths = pgp.DecoupledPathwiseSampler(prior, pgp.FullRankGuide(np.zeros(4), tril)).sample_paths(KEY, 2)
    k, A = prior.kernel, np.asarray(prior.kernel(X[:4], X[:4])) + 0.1 * np.eye(4)
    H = np.asarray(k(TEST, X[:4])) @ np.linalg.inv(A)
    # Hensman et al. (2015), equation 5; the basis is exact.
    expected = np.diagonal(np.asarray(k(TEST, TEST)) - H @ (A - tril @ tril.T) @ H.T)
    np.testing.assert_allclose(paths.marginal_variance(TEST), expected, rtol=1e-9)
    drawn = pgp.GPPrior(kernel=k, X=X).sample_paths(KEY, 2)
    np.testing.assert_allclose(drawn.marginal_variance(TEST), k.diag(TEST), rtol=1e-12)
    assert drawn.marginal_variance(TEST.reshape(5, 1, 2)).shape == (5, 1)


def test_feature_error_is_that_of_the_joint_law_of_neighbours_and_of_distant_values():
    posterior, keys = conditioned(RBF), jax.random.split(jax.random.key(3), 2)
    correlation = matrix(RBF, TEST, TEST) - 10 * np.eye(len(TEST))  # of others
    H = matrix(RBF, TEST, X) @ np.linalg.inv(matrix(RBF, X, X) + np.diag(posterior.noise))
    exact, squares, single = np.asarray(posterior.covariance(TEST)), [], []
    drawn = jax.jit(lambda key: RBF.features(32, DIM, key=key)(jnp.concatenate([X, TEST])))
    for key in keys:
        phi, phi_test = np.split(np.asarray(drawn(key)), [N])
        covariance = (phi_test - H @ phi) @ (phi_test - H @ phi).T + (H * np.asarray(posterior.noise)) @ H.T
        for i in range(5):
            near, across = int(np.argmax(correlation[i])), (i + 2) % 5
            group = [i, near, across if across != near else (i + 3) % 5]
            block = np.ix_(group, group)
            squares.append((np.linalg.eigvals(np.linalg.solve(exact[block], covariance[block])).real - 1) ** 2)
        single.append((covariance[0, 0] / exact[0, 0] - 1) ** 2)
    got = pgp.feature_error(posterior, TEST, 32, key=jax.random.key(3), n_draws=2)
    np.testing.assert_allclose(got, math.sqrt(np.mean(squares)), rtol=1e-6)
    # At one input it is that of the variance.
    alone = pgp.feature_error(posterior, TEST[:1], 32, key=jax.random.key(3), n_draws=2)
    np.testing.assert_allclose(alone, math.sqrt(np.mean(single)), rtol=1e-6)
    assert pgp.feature_error(conditioned(LINEAR + 1.0), TEST, 1) < 1e-8  # an exact basis has none
    np.testing.assert_array_equal(
        pgp.feature_error(posterior, TEST, 32), pgp.feature_error(posterior, TEST.reshape(5, 1, 2), 32)
    )


def pinned(kernel, X, y, noise):
    return pgp.GPPrior(kernel=kernel, X=X).condition(y, noise)


MONTHS = np.arange(-15.0, 15.0, 1 / 4)[:, None]
CASES = {
    "a slow trend and small irregularities": lambda: pinned(
        pgp.RBF(2000.0, 100.0) + pgp.Matern(1.5, 0.3, 0.5),
        np.arange(0.0, 60.0)[:, None],
        0.02 * np.arange(60.0) ** 2,
        0.01,
    ),
    "Mauna Loa": lambda: pinned(
        pgp.RBF(66.0**2, 67.0)
        + pgp.RBF(2.4**2, 90.0) * pgp.Periodic(1.0, 1.3, 1.0)
        + pgp.RationalQuadratic(0.66**2, 1.2, 0.78)
        + pgp.RBF(0.18**2, 0.13),
        MONTHS,
        0.1 * MONTHS[:, 0] + 3 * np.sin(2 * np.pi * MONTHS[:, 0]),
        0.19**2,
    ),
    "weights of a spectral mixture": lambda: pinned(
        pgp.SpectralMixture([2000.0, 0.3], [[0.0], [0.3]], [[0.003], [0.3]]),
        np.arange(0.0, 60.0)[:, None],
        0.02 * np.arange(60.0) ** 2,
        0.01,
    ),
    "additive": lambda: pinned(
        pgp.ActiveDims(pgp.RBF(500.0, 4.0), (0,)) + pgp.ActiveDims(pgp.Matern(1.5, 0.1, 0.7), (1,)),
        np.random.default_rng(0).uniform(-3, 3, (60, 2)),
        20 * np.sin(np.random.default_rng(0).uniform(-3, 3, (60, 2))[:, 0]),
        0.01,
    ),
}


@eqx.filter_jit
def covariance_and_solve(posterior, at):
    prior = posterior.prior
    return posterior.covariance(at), posterior.factor.solve(prior.kernel.matrix(at, prior.X))


@eqx.filter_jit
def features_of_paths(posterior, at, n_features, seed):
    """The features that paths have, at some inputs and at those of the data."""
    features = pgp.PathwiseSampler(posterior, n_features).sample_paths(jax.random.key(seed)).features
    return features(at), features(posterior.prior.X)


@pytest.mark.parametrize("name", CASES)
def test_a_small_term_that_the_data_leave_open_beside_a_large_one_that_they_pin(name):
    """The covariance of paths given their features, by the affine map: deviations within 3 %, correlations within 0.05."""
    posterior = CASES[name]()
    X = posterior.prior.X
    low, high = np.asarray(X).min(axis=0), np.asarray(X).max(axis=0)
    at = jnp.asarray(low + np.array([0.341, 0.475, 0.482, 0.71])[:, None] * (high - low))
    exact, G = map(np.asarray, covariance_and_solve(posterior, at))
    deviation, noise = np.sqrt(np.diag(exact)), np.asarray(posterior.noise)
    errors = {}
    for n in (256, 1024):
        off = []
        for seed in range(2):
            phi_at, phi = map(np.asarray, features_of_paths(posterior, at, n, jnp.asarray(seed)))
            rest = phi_at - G @ phi
            covariance = rest @ rest.T + (G * noise) @ G.T
            path = np.sqrt(np.diag(covariance))
            off.append([np.abs(path / deviation - 1).max()])
            off[-1].append(np.abs(covariance / np.outer(path, path) - exact / np.outer(deviation, deviation)).max())
        errors[n] = np.max(off, axis=0)
    assert errors[1024][0] < 0.03 and errors[1024][1] < 0.05, errors
    assert errors[1024][0] < errors[256][0]


def test_low_discrepancy_features_with_a_tail_are_the_best():
    # The published table: Matérn-5/2, four dimensions, 200 points, 1024 features. Of joint laws, independent draws 0.15, the
    # sequence over all five coordinates 0.11, with the tail 0.05 (of variances alone 0.12 to 0.17, 0.06 and 0.03).
    rng = np.random.default_rng(1)
    X, test = rng.normal(size=(200, 4)), rng.normal(size=(200, 4))
    posterior = pgp.GPPrior(kernel=pgp.Matern(2.5, 1.0, 1.0), X=X).condition(rng.normal(size=200), 0.01)
    error = {
        rule: float(pgp.feature_error(posterior, test, 1024, features=rule, n_draws=8))
        for rule in (pgp.MonteCarlo(), pgp.Orthogonal(), pgp.QuasiMonteCarlo(1.0), pgp.QuasiMonteCarlo())
    }
    plain, orthogonal, sequence, tail = error.values()
    assert 0.1 < plain < 0.2 and orthogonal < 0.2
    assert sequence < 0.12 and tail < 0.055


def test_tolerance_chooses_the_number_of_features(monkeypatch):
    posterior = conditioned(RBF)
    loose, tight = (pgp.PathwiseSampler(posterior, tolerance=t).n_features for t in (0.1, 0.01))
    assert loose < tight and math.log2(tight) % 1 == 0
    probes = points(300, DIM, seed=5) * 0.9  # inside the box of the inputs, other points than it looked at
    assert pgp.feature_error(posterior, probes, tight, key=jax.random.key(9)) < 0.02
    assert pgp.PathwiseSampler(conditioned(LINEAR), tolerance=1e-6).n_features == 64
    hilbert = pgp.PathwiseSampler(posterior, tolerance=1e-4, features=pgp.HilbertSpace())
    assert hilbert.n_features <= 1024
    # It gives up at 32768; each number on the way is a program.
    assert module._MOST == 32768
    monkeypatch.setattr(module, "_MOST", 256)
    with pytest.raises(ValueError, match="is not reached with 256 features, whose error is"):
        pgp.PathwiseSampler(conditioned(matern(0.5)), tolerance=1e-6, features=pgp.HilbertSpace(boundary=1.05))


def test_tolerance_with_categories():
    # A box is no place to look for an error where a column holds categories.
    k = pgp.Coregionalised(RBF, np.array([[0.5], [0.4]]), [0.3, 0.3])
    rows = np.c_[X, np.arange(N) % 2]
    posterior = pgp.GPPrior(kernel=k, X=rows).condition(Y, 0.1)
    assert pgp.PathwiseSampler(posterior, tolerance=0.1).n_features in (64, 128, 256, 512, 1024)


DENSITIES = {
    "RBF": pgp.RBF(1.3, 0.7),
    "Matern 1/2": pgp.Matern(0.5, 1.3, 0.7),
    "Matern 5/2": pgp.Matern(2.5, 1.3, 0.7),
    "RationalQuadratic": pgp.RationalQuadratic(1.3, 0.7, 1.6),
    "RationalQuadratic 300": pgp.RationalQuadratic(1.3, 0.7, 300.0),
    "RationalQuadratic 0.6": pgp.RationalQuadratic(1.3, 0.7, 0.6),
}


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("name", DENSITIES)
def test_spectral_density_gives_the_kernel(name, dim):
    # k(r) = ∫ S(s) A_d s^{d−1} Λ_d(2πsr) ds with A_d the area of the sphere and Λ_d the mean of a plane wave over it
    # (Rasmussen & Williams 2006, equation 4.7), by the trapezoidal rule in log s up to 60 cycles.
    kernel = DENSITIES[name]
    u = np.linspace(-45, math.log(60), 20001)
    s = np.exp(u)
    frequencies = np.zeros((s.size, dim))
    frequencies[:, 0] = s
    density = np.asarray(kernel.spectral_density(jnp.asarray(frequencies)))
    r = np.array([0.3, 0.9])
    covariances = kernel(np.pad(r[:, None], ((0, 0), (0, dim - 1))), np.zeros((1, dim)))[:, 0]
    order, area = dim / 2 - 1, 2 * np.pi ** (dim / 2) / special.gamma(dim / 2)
    for distance, covariance in zip(r, covariances, strict=True):
        x = 2 * np.pi * s * distance
        wave = special.gamma(dim / 2) * (2 / x) ** order * special.jv(order, x)
        value = np.trapezoid(density * area * s**dim * wave, u)
        # What lies beyond 60 cycles is 2e-4 for the roughest.
        np.testing.assert_allclose(value, covariance, atol=3e-4 if name == "Matern 1/2" else 2e-6)


@pytest.mark.parametrize(
    "kernel",
    [pgp.RBF(1.3, [0.5, 0.9]), pgp.Matern(2.5, 1.3, [0.5, 0.9]), mixture(2)],
    ids=lambda kernel: type(kernel).__name__,
)
def test_spectral_density_with_a_scale_for_each_dimension(kernel):
    # A two-dimensional Fourier sum over a grid of frequencies.
    grid = (np.arange(-400, 400) + 0.5) / 40
    frequencies = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    density = np.asarray(kernel.spectral_density(jnp.asarray(frequencies)))
    for t in ([0.0, 0.0], [0.3, 0.0], [-0.2, 0.5]):
        value = np.sum(density * np.cos(2 * np.pi * frequencies @ np.array(t))) / 40**2
        np.testing.assert_allclose(value, kernel(np.array(t), np.zeros(2)), atol=1e-4)


@pytest.mark.parametrize(
    ("kernel", "dim", "n_features", "atol"),
    [
        (RBF, 1, 64, 1e-3),
        (pgp.RBF(1.3, [0.8, 1.6]), 2, 512, 1e-3),
        (matern(2.5), 1, 128, 1e-3),
        (pgp.RationalQuadratic(1.1, 0.8, 3.0), 1, 256, 1e-3),
        (mixture(1), 1, 128, 1e-3),
        (RBF + matern(2.5), 1, 256, 1e-3),
        (RBF * LINEAR + 0.5, 2, 1024, 5e-3),
        (RBF * pgp.Periodic(1.2, 1.1, 1.7), 1, 2048, 1e-3),
        (pgp.ActiveDims(RBF, (1,)) * pgp.ActiveDims(matern(2.5), (0,)), 2, 64**2, 5e-3),
        (2.0 * pgp.ActiveDims(RBF, (1,)) + pgp.Cosine(1.0, 2.0), 2, 64, 2e-3),
    ],
    ids=str,
)
def test_hilbert_space_basis_is_the_kernel_inside_its_box(kernel, dim, n_features, atol):
    X, Z = points(6, dim), points(5, dim, seed=1)
    basis = pgp.HilbertSpace(np.array([[-1.5] * dim, [1.5] * dim]))
    phi, psi = eqx.filter_jit(lambda k, X, Z: [k.features(n_features, dim, key=KEY, basis=basis)(x) for x in (X, Z)])(
        kernel, jnp.asarray(X), jnp.asarray(Z)
    )
    np.testing.assert_allclose(phi @ psi.T, kernel(X, Z), atol=atol)


def test_hilbert_space_box_comes_from_the_data():
    posterior = conditioned(RBF)
    paths = pgp.PathwiseSampler(posterior, 256, features=pgp.HilbertSpace()).sample_paths(KEY, 4)
    features = paths.features
    assert isinstance(features, SineFeatures)
    width = X.max(axis=0) - X.min(axis=0)
    np.testing.assert_allclose(features.lower, X.min(axis=0) - width / 4)
    np.testing.assert_allclose(features.upper, X.max(axis=0) + width / 4)
    np.testing.assert_allclose(paths.marginal_variance(TEST), posterior.variance(TEST), rtol=1e-3)
    with pytest.raises(ValueError, match="outside the box"):
        paths(X.max(axis=0) + width)
    with pytest.raises(Exception, match="outside the box"):
        jax.block_until_ready(eqx.filter_jit(paths)(X.max(axis=0) + width))
    wide = pgp.HilbertSpace(np.array([[-9.0, -9.0], [9.0, 9.0]]))
    narrow = pgp.HilbertSpace(np.array([[-0.1, -0.1], [0.1, 0.1]]))
    with pytest.raises(Exception, match="`box` does not contain the points"):
        jax.block_until_ready(pgp.PathwiseSampler(posterior, 64, features=narrow).sample_paths(KEY, 4).weights)
    with pytest.raises(Exception, match="outside the box"):
        jax.block_until_ready(pgp.feature_error(posterior, TEST, 64, features=narrow))
    paths = pgp.PathwiseSampler(posterior, 4096, features=wide).sample_paths(KEY, 4)
    far = 8 * TEST / np.abs(TEST).max()
    np.testing.assert_allclose(paths.marginal_variance(far), posterior.variance(far), rtol=2e-2)


def test_boundary_factor():
    basis = lambda boundary: pgp.HilbertSpace(np.array([[-1.0], [3.0]]), boundary)
    half_width = lambda b: float(RBF.features(8, 1, key=KEY, basis=basis(b)).half_width[0])
    assert half_width(1.5) == 3.0
    # exp(−r²/2) is 1e-4 at r = 4.29: that far is the nearest image.
    np.testing.assert_allclose(half_width(None), 2 + 0.9 * math.sqrt(2 * math.log(1e4)) / 2, rtol=1e-3)


# Parts of a sum, for bases of all kinds: shared frequencies, exact ones, products of sums, noise.
PARTS = {
    "exact": (LINEAR + pgp.Polynomial(0.4, 0.5, 2) + 0.7, True),
    "random": (RBF + matern(2.5) + LINEAR + pgp.White(0.2), False),
    "nested": (pgp.Sum((RBF + 0.5, 2.0 * (matern(1.5) + LINEAR), arc(1), RBF * (LINEAR + 1.0))), False),
}


@pytest.mark.parametrize("share_features", [True, False])
@pytest.mark.parametrize("name", PARTS)
def test_parts_add_up_and_are_posteriors_of_their_own(name, share_features):
    kernel, exact = PARTS[name]
    posterior = conditioned(kernel)
    paths = pgp.PathwiseSampler(posterior, 64, share_features=share_features).sample_paths(KEY, 3)
    parts = components(paths)
    assert len(parts) == len(kernel.kernels) and all(part.shape == (3,) for part in parts)
    of_parts, whole, of_one, one, means = values_of_parts(paths, parts, jnp.asarray(TEST))
    np.testing.assert_allclose(sum(map(np.asarray, of_parts)), whole, atol=1e-10)
    np.testing.assert_allclose(sum(map(np.asarray, of_one)), one, atol=1e-10)
    A, crosses, diagonals = matrices_of_parts(kernel, X, TEST)
    A = np.asarray(A) + np.diag(posterior.noise)
    if exact and share_features:
        mean, variance = moments_of_parts(pgp.PathwiseSampler(posterior), paths.features, jnp.asarray(TEST))
    for i, (mean_path, cross, diagonal) in enumerate(zip(means, map(np.asarray, crosses), diagonals, strict=True)):
        # The joint Gaussian of f_i(TEST) and y: cov(f_i, y) = k_i.
        np.testing.assert_allclose(mean_path, cross @ np.linalg.solve(A, Y), atol=1e-9)
        if exact and share_features:
            np.testing.assert_allclose(mean[i], mean_path, atol=1e-9)
            expected = np.asarray(diagonal) - np.sum(cross * np.linalg.solve(A, cross.T).T, axis=1)
            np.testing.assert_allclose(variance[i], expected, atol=1e-8)


@eqx.filter_jit
def values_of_parts(paths, parts, x):
    """Of the parts and the whole, for all paths and for one of them, and the means of the parts."""
    one = paths[1]
    return (
        [part(x) for part in parts],
        paths(x),
        [part(x) for part in one.components()],
        one(x),
        [part.mean_path(x) for part in parts],
    )


@eqx.filter_jit
def matrices_of_parts(kernel, X, x):
    return kernel(X, X), [k(x, X) for k in kernel.kernels], [k.diag(x) for k in kernel.kernels]


@eqx.filter_jit
def moments_of_parts(sampler, features, x):
    """Mean and variance of each part, from its affine map from the weights and the noise."""
    flat, unravel = ravel_pytree((jnp.zeros((1, size(features, DIM))), jnp.zeros((1, N))))
    values = lambda z: jnp.stack([part(x)[0] for part in sampler.update(features, *unravel(z)).components()])
    return values(flat), jnp.sum(jax.jacfwd(values)(flat) ** 2, axis=2)


def test_the_law_of_a_part():
    # Many draws of each part against the closed form of its posterior.
    kernel = pgp.RBF(1.0, 0.6) + pgp.Linear(0.8)
    posterior = conditioned(kernel)
    paths = pgp.PathwiseSampler(posterior, 2048).sample_paths(jax.random.key(5), 4000)
    formulas = [KERNELS["RBF"].formula, KERNELS["Linear"].formula]
    A = sum(formula(k, X, X) for formula, k in zip(formulas, kernel.kernels, strict=True)) + np.diag(posterior.noise)
    of_parts = values(components(paths), jnp.asarray(TEST))
    for drawn, formula, k in zip(map(np.asarray, of_parts), formulas, kernel.kernels, strict=True):
        cross = formula(k, TEST, X)
        mean = cross @ np.linalg.solve(A, Y)
        covariance = formula(k, TEST, TEST) - cross @ np.linalg.solve(A, cross.T)
        sd = np.sqrt(np.diagonal(covariance))
        assert np.all(np.abs(drawn.mean(0) - mean) < 4 * sd / math.sqrt(4000))
        # Of the variance 2.2 % is the standard error; the basis adds less than one.
        assert np.all(np.abs(drawn.var(0) / sd**2 - 1) < 4 * math.sqrt(2 / 4000) + 0.01)
        correlation = np.corrcoef(drawn.T) - covariance / np.outer(sd, sd)
        assert np.abs(correlation).max() < 4 / math.sqrt(4000) + 0.01


def test_a_mean_is_a_part_of_its_own():
    posterior = conditioned(RBF + LINEAR, mean=lambda Z: 1 + Z[:, 0])
    paths = pgp.PathwiseSampler(posterior, 32).sample_paths(KEY, 3)
    mean_path = paths.components()[2].mean_path
    (first, second, mean), whole, mean_path = values((paths.components(), paths, mean_path), jnp.asarray(TEST))
    np.testing.assert_allclose(mean, np.tile(1 + TEST[:, 0], (3, 1)))
    np.testing.assert_allclose(first + second + mean, whole, atol=1e-12)
    np.testing.assert_allclose(mean_path, 1 + TEST[:, 0])


def test_a_kernel_that_is_no_sum_has_one_part():
    paths = pgp.PathwiseSampler(conditioned(2.0 * RBF), 32).sample_paths(KEY, 3)
    (part,) = paths.components()
    np.testing.assert_array_equal(part(TEST), paths(TEST))
    with pytest.raises(ValueError, match="a part of one has the solve of the whole"):
        pgp.PathwiseSampler(conditioned(RBF + LINEAR), 32).sample_paths(KEY, 3).components()[0].marginal_variance(TEST)
    (mean,) = paths.mean_path.components()
    np.testing.assert_array_equal(mean(TEST), paths.mean_path(TEST))


def test_parts_of_the_mean_of_a_sparse_posterior():
    prior = pgp.SparseGPPrior(kernel=RBF + LINEAR, Z=X[:4], jitter=1e-3)
    paths = pgp.DecoupledPathwiseSampler(prior, pgp.DeltaGuide(np.ones(4)), 32).sample_paths(KEY, 2)
    parts, whole, parts_of_mean, mean = values(
        (paths.components(), paths, paths.mean_path.components(), paths.mean_path), jnp.asarray(TEST)
    )
    np.testing.assert_allclose(sum(map(np.asarray, parts)), whole, atol=1e-10)
    np.testing.assert_allclose(sum(map(np.asarray, parts_of_mean)), mean, atol=1e-10)
