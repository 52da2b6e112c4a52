"""Finite bases: E[φ(x)ᵀφ(z)] = k(x, z), the laws of the frequencies, sizes, dtypes and derivatives."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import special
from tables import arc, BEND, KERNELS, LINEAR, matern, mixture, PERIODIC, points, RBF

import pathwise_gp as pgp
from pathwise_gp._features import (
    AbstractRandomBasis,
    ConcatenatedFeatures,
    FourierFeatures,
    PairedFeatures,
    ProductFeatures,
)
from pathwise_gp._kernels.periodic import _bessel_ratio

DIMS = (1, 3, 8)
RANDOM = [(name, dim) for name, row in KERNELS.items() for dim in row.random]
EXACT = [(name, dim) for name, row in KERNELS.items() for dim in row.dims if row.make(dim).basis_size(dim) is not None]
RQ = pgp.RationalQuadratic(variance=1.1, lengthscale=0.8, alpha=1.6)


@eqx.filter_jit
def draw(kernel, n_features, dim, seed=0):
    """A basis; compiled whole, which takes less time than to compile its steps one by one."""
    return kernel.features(n_features, dim, key=jax.random.key(seed))


def sizes_of(kernel, n_features, dim):
    """The number of features of the basis, and of each of its parts."""

    def evaluate(X):
        features = kernel.features(n_features, dim, key=jax.random.key(0))
        return features(X), [part(X) for part in getattr(features, "parts", ())]

    values, parts = eqx.filter_eval_shape(evaluate, jax.ShapeDtypeStruct((2, dim), float))
    assert values.shape[0] == 2
    return values.shape[1], [part.shape[1] for part in parts]


def gram(kernel, key, X, n_features, basis=pgp.QuasiMonteCarlo()):
    """φ(X)φ(X)ᵀ for one draw of the basis."""
    phi = kernel.features(n_features, X.shape[1], key=key, basis=basis)(X)
    return phi @ phi.T


@eqx.filter_jit
def _replicas(kernel, keys, X, n_features, basis):
    return jax.vmap(lambda key: gram(kernel, key, X, n_features, basis))(keys)


def replicas(kernel, X, n_features, n_replicas, seed=0, basis=pgp.QuasiMonteCarlo()):
    keys = jax.random.split(jax.random.key(seed), n_replicas)
    return np.asarray(_replicas(kernel, keys, jnp.asarray(X), n_features, basis))


class Compiled(AbstractRandomBasis):
    """A rule whose draws are one program for all kernels that ask for the same ones."""

    rule: AbstractRandomBasis

    def normals(self, key, n, coordinates, dtype):
        return _normals(self.rule, key, n, coordinates, dtype)


@functools.partial(jax.jit, static_argnames=("rule", "n", "coordinates", "dtype"))
def _normals(rule, key, n, coordinates, dtype):
    return rule.normals(key, n, coordinates, dtype)


def replicas_by_steps(kernel, X, n_features, n_replicas, seed=0, basis=pgp.QuasiMonteCarlo()):
    """The same step by step: cheaper than a program for each kernel where many kernels have the same steps."""
    keys = jax.random.split(jax.random.key(seed), n_replicas)
    return np.asarray(jax.vmap(lambda key: gram(kernel, key, jnp.asarray(X), n_features, Compiled(basis)))(keys))


def assert_mean(samples, expected, scale=1.0):
    """The mean of independent samples is within four of its standard errors; a constant is right to rounding."""
    error = np.abs(samples.mean(0) - expected)
    standard_error = samples.std(0, ddof=1) / math.sqrt(len(samples))
    assert np.all(error <= 4 * standard_error + 1e-12 * scale), (error / (standard_error + 1e-12 * scale)).max()


# One number for all of them, so that they share their programs.
REPLICAS = 1000
RULES = {
    "plain": pgp.MonteCarlo(),
    "orthogonal": pgp.Orthogonal(),
    "sequence": pgp.QuasiMonteCarlo(tail=1.0),
    "tail": pgp.QuasiMonteCarlo(),
    "far tail": pgp.QuasiMonteCarlo(tail=5),
}


@pytest.mark.parametrize(("name", "dim"), RANDOM)
def test_features_have_the_kernel_as_their_mean(name, dim):
    row = KERNELS[name]
    X, kernel = row.points(4, dim, seed=1), row.make(dim)
    drawn = replicas_by_steps if kernel.is_stationary(dim) else replicas
    assert_mean(drawn(kernel, X, 16, REPLICAS), row.formula(kernel, X, X), scale=10)


SEVERAL = [
    "RBF ARD",
    "Matern 1/2",
    "RationalQuadratic",
    "SpectralMixture",
    "Periodic",
    "ArcCosine 1",
    "RBF + Matern 5/2",
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", SEVERAL)
def test_every_rule_has_the_kernel_as_its_mean(name, rule):
    X, kernel = points(4, 3, seed=3), KERNELS[name].make(3)
    # Eight frequencies: too few for a low-discrepancy sequence to hide that its weights are wrong.
    samples = replicas_by_steps(kernel, X, 16, REPLICAS, basis=RULES[rule])
    assert_mean(samples, KERNELS[name].formula(kernel, X, X), scale=10)


@pytest.mark.parametrize(
    ("n_features", "rule"),
    [(1, rule) for rule in RULES] + [(n, "tail") for n in (2, 3, 7)] + [(7, "orthogonal"), (8, "plain")],
)
def test_features_of_any_number_are_unbiased(n_features, rule):
    X = points(4, 2, seed=2)
    kernel = pgp.RBF(variance=1.3, lengthscale=[0.8, 1.1])
    samples = replicas(kernel, X, n_features, 2000, basis=RULES[rule])
    assert sizes_of(kernel, n_features, 2)[0] == n_features
    assert_mean(samples, KERNELS["RBF"].formula(kernel, X, X))
    if n_features % 2 == 0 and "tail" not in rule:  # a sine for each cosine: the variance is exact in every draw
        np.testing.assert_allclose(np.diagonal(samples, axis1=1, axis2=2), 1.3, rtol=1e-13)


FALLING = [
    ("RBF", 1),
    ("RBF ARD", 8),
    ("Matern 1/2", 3),
    ("Matern 5/2", 1),
    ("RationalQuadratic", 3),
    ("Periodic", 3),
    ("SpectralMixture", 3),
    ("ArcCosine 0", 3),
    ("RBF + Matern 5/2", 3),
    ("RBF * Matern 5/2", 1),
    ("Linear * RBF", 3),
    ("Periodic * RBF", 1),
    ("ArcCosine 1 * RBF", 3),
    ("Warped RBF * Warped Matern 5/2 * Periodic", 1),
]


def mean_square_error(kernel, X, n_features, n_replicas, seed, basis):
    """Of φφᵀ off the diagonal, and the relative standard error of that."""
    errors = replicas(kernel, X, n_features, n_replicas, seed, basis) - np.asarray(kernel(X, X))
    squares = np.mean(errors[:, *np.triu_indices(4, 1)] ** 2, axis=1)
    return squares.mean(), squares.std(ddof=1) / math.sqrt(len(squares)) / squares.mean()


@pytest.mark.parametrize(("name", "dim"), FALLING)
def test_error_falls_as_the_root_of_the_number_of_features(name, dim):
    row = KERNELS[name]
    kernel, X = row.make(dim), row.points(4, dim, seed=1)
    few, many = (32 * dim, 512 * dim) if name == "Linear * RBF" else (64, 1024) if "+" in name else (16, 256)
    if name == "RationalQuadratic":  # each of its frequencies takes a solution by Newton's method
        few, many = 4, 64
    (coarse, coarse_error), (fine, fine_error) = (
        mean_square_error(kernel, X, n, replicas, seed, pgp.MonteCarlo())
        for seed, (n, replicas) in enumerate([(few, REPLICAS), (many, 200)])
    )
    # The mean square is the variance of one frequency over the number of frequencies: 16 times less. The tolerance is
    # four standard errors of the ratio.
    assert abs(coarse / fine / 16 - 1) < 4 * math.hypot(coarse_error, fine_error)
    assert math.hypot(coarse_error, fine_error) < 0.15


@pytest.mark.parametrize(
    ("name", "dim"), [("RBF", 1), ("RBF", 3), ("Matern 1/2", 3), ("RationalQuadratic", 3), ("SpectralMixture", 1)]
)
def test_a_sequence_is_better_than_independent_draws(name, dim):
    kernel, X = KERNELS[name].make(dim), points(4, dim, seed=1)
    n_replicas = 600 if name == "Matern 1/2" else 200  # the least gain needs the most draws to be seen
    n_features = (
        64 if name == "RationalQuadratic" else 256
    )  # each of its frequencies takes a solution by Newton's method
    plain, error = mean_square_error(kernel, X, n_features, 200, 0, pgp.MonteCarlo())
    for rule in ("sequence", "tail"):
        even, even_error = mean_square_error(kernel, X, n_features, n_replicas, 1, RULES[rule])
        # Measured: from two thirds (three dimensions, the roughest) to a ten-thousandth of the mean square.
        assert even + 4 * even_error * even < plain * (1 - 4 * error)


@pytest.mark.parametrize(("name", "dim"), EXACT)
def test_exact_bases_give_the_kernel(name, dim):
    row = KERNELS[name]
    X, Z = row.points(5, dim, seed=4), row.points(3, dim, seed=5)
    kernel = row.make(dim)
    features = draw(kernel, 1, dim)
    phi, psi = features(jnp.asarray(X)), features(jnp.asarray(Z))
    assert phi.shape == (5, kernel.basis_size(dim))
    np.testing.assert_allclose(phi @ psi.T, row.formula(kernel, X, Z), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("lengthscale", [0.2, 0.7, 1.0, 5.0])
def test_periodic_basis_is_exact_with_enough_harmonics(lengthscale):
    # The weight of harmonic j is about exp(−(jℓ)²/2) / ℓ for short lengthscales: 1e−16 at j = 60 for ℓ = 0.15.
    X = np.linspace(-3, 4, 9)[:, None]
    kernel = pgp.Periodic(variance=1.7, lengthscale=lengthscale, period=1.3)
    np.testing.assert_allclose(replicas(kernel, X, 121, 1)[0], kernel(X, X), atol=1e-12)


def test_periodic_basis_times_linear_is_exact():
    X = points(5, 1, seed=4)
    kernel = PERIODIC * LINEAR
    np.testing.assert_allclose(replicas(kernel, X, 61, 1)[0], kernel(X, X), atol=1e-12)


@pytest.mark.parametrize("n_features", [1, 2, 3, 4, 5, 8])
def test_periodic_basis_with_few_features_is_right_on_average(n_features):
    X = points(5, 1, seed=4)
    kernel = pgp.Periodic(variance=1.2, lengthscale=0.25, period=1.4)
    samples = replicas(kernel, X, n_features, 3000)
    assert sizes_of(kernel, n_features, 1)[0] == n_features
    assert_mean(samples, np.asarray(kernel(X, X)))
    if n_features % 2 and n_features > 1:  # the last harmonic is a pair
        np.testing.assert_allclose(np.diagonal(samples, axis1=1, axis2=2), 1.2, rtol=1e-13)


def test_second_derivatives_of_sampled_harmonics_are_unbiased():
    x = jnp.asarray([[0.0], [0.4]])

    def value(lengthscale, key):
        spectrum = pgp.Periodic(1.2, lengthscale, 1.4).spectrum(jax.random.normal(key, (1, 1)), 1)
        return spectrum.weights[0] * jnp.cos(2 * jnp.pi * spectrum.frequencies[0, 0] * 0.4)

    second = jax.grad(jax.grad(value))
    samples = jax.jit(jax.vmap(second, in_axes=(None, 0)))(jnp.asarray(0.9), jax.random.split(jax.random.key(0), 20000))
    exact = jax.jit(jax.grad(jax.grad(lambda ell: pgp.Periodic(1.2, ell, 1.4).matrix(x, x)[0, 1])))(0.9)
    assert_mean(np.asarray(samples), exact)


def test_bessel_ratio():
    orders, arguments = np.meshgrid(np.array([1.0, 2, 3, 10, 40]), np.logspace(-4, 6, 41), indexing="ij")
    ratio = np.asarray(_bessel_ratio(jnp.asarray(orders), jnp.asarray(arguments)))
    below = special.ive(orders - 1, arguments)
    seen = below > 1e-250  # scipy underflows at high orders of small arguments
    expected = special.ive(orders, arguments)[seen] / below[seen]
    # The continued fraction has a fixed number of steps, enough for lengthscales down to 0.01 (a = 1e4).
    long = arguments[seen] <= 1e4
    np.testing.assert_allclose(ratio[seen][long], expected[long], rtol=1e-12)
    np.testing.assert_allclose(ratio[seen][~long], expected[~long], rtol=1e-8)
    np.testing.assert_allclose(ratio[~seen], (arguments / (2 * orders))[~seen], rtol=1e-6)  # the limit of small a
    assert seen.sum() > 180


@pytest.mark.parametrize(
    ("kernel", "where"),
    [
        (pgp.Periodic(variance=1.2, lengthscale=0.9, period=1.4), lambda k: (k.lengthscale, k.period)),
        (PERIODIC * RBF, lambda k: (k.kernels[0].lengthscale,)),
        (matern(2.5), lambda k: (k.lengthscale,)),
        (RQ, lambda k: (k.lengthscale, k.alpha)),
    ],
    ids=["Periodic", "Product", "Matern", "RationalQuadratic"],
)
def test_derivatives_in_hyperparameters_are_unbiased(kernel, where):
    X = jnp.asarray(points(4, 2, seed=6))

    @jax.jit
    def derivatives(keys, values):
        replaced = lambda v: eqx.tree_at(where, kernel, tuple(v))
        one = lambda key: jax.jacfwd(lambda v: gram(replaced(v), key, X, 16))(values)
        return jax.vmap(one)(keys), jax.jacfwd(lambda v: replaced(v).matrix(X, X))(values)

    samples, exact = derivatives(jax.random.split(jax.random.key(0), 1500), jnp.stack(where(kernel)))
    for field in range(exact.shape[-1]):
        assert np.abs(exact[..., field]).max() > 0.01
        assert_mean(np.asarray(samples[..., field]), np.asarray(exact[..., field]))


def test_matern_frequencies_are_multivariate_t():
    # Over pairs at distance 1 in five dimensions, off the axes: 0.483. One t a coordinate would give 0.366.
    kernel = pgp.Matern(nu=1.5, variance=1.0, lengthscale=1.0)
    direction = np.array([1.0, -2, 3, -1, 1])
    X = np.stack([np.zeros(5), direction / np.linalg.norm(direction), np.eye(5)[0]])
    samples = replicas(kernel, X, 16, 4000)
    expected = (1 + math.sqrt(3)) * math.exp(-math.sqrt(3))
    assert round(expected, 3) == 0.483
    assert_mean(samples[:, 0, 1:], expected)
    assert samples[:, 0, 1].std() / math.sqrt(4000) < (0.483 - 0.366) / 20


@eqx.filter_jit
def spectrum(kernel, n, dim):
    normals = jax.random.normal(jax.random.key(0), (n, kernel.coordinates(dim).number))
    return kernel.spectrum(normals, dim)[:2]


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5])
def test_law_of_matern_radii(nu):
    kernel = pgp.Matern(nu=nu, variance=1.0, lengthscale=0.5)
    frequencies, weights = spectrum(kernel, 20_000, 3)
    assert np.all(np.asarray(weights) == 1)
    # ‖2πℓω‖²/d is F-distributed with (d, 2ν) degrees of freedom: its share in each tenth is binomial.
    squares = np.sum((np.pi * np.asarray(frequencies)) ** 2, axis=1) / 3
    assert_uniform(special.fdtr(3, 2 * nu, squares))


@pytest.mark.parametrize("alpha", [0.3, 1.0, 20.0])
def test_law_of_rational_quadratic_radii(alpha):
    kernel = pgp.RationalQuadratic(variance=1.0, lengthscale=0.5, alpha=alpha)
    frequencies, weights = spectrum(kernel, 4_000, 3)
    assert np.all(np.asarray(weights) == 1)
    # E τ = 1 and Var τ = 1/α, of which ‖2πℓω‖² = τ ‖z‖² inherits its mean.
    assert_mean(np.sum((np.pi * np.asarray(frequencies)) ** 2, axis=1), 3.0)


def assert_uniform(u):
    """The share of draws in each tenth is within four standard errors of a tenth."""
    shares = np.histogram(u, bins=10, range=(0, 1))[0] / len(u)
    assert np.all(np.abs(shares - 0.1) < 4 * math.sqrt(0.1 * 0.9 / len(u)))


def test_product_of_stationary_kernels_adds_frequencies():
    kernel = RBF * matern(2.5)
    features = draw(kernel, 9, 3)
    assert isinstance(features, FourierFeatures)
    assert features.frequencies.shape == (9, 3)
    # The spectral law is a convolution: variances of the frequencies add.
    frequencies, weights = spectrum(kernel, 4000, 2)
    np.testing.assert_allclose(weights, 1.3 * 1.4, rtol=1e-13)
    variance = 1 / 0.9**2 + (2.5 / 1.5) / 0.8**2
    assert_mean((2 * np.pi * np.asarray(frequencies)) ** 2, variance)
    assert not (RBF * LINEAR).is_stationary(2)


def test_product_with_linear_multiplies_bases():
    X = jnp.asarray(points(4, 3, seed=7))
    features = draw(LINEAR * RBF, 120, 3)
    assert isinstance(features, ProductFeatures)
    linear, fourier = features.parts
    expected = np.einsum("ni,nj->nij", linear(X), fourier(X)).reshape(4, -1)
    np.testing.assert_array_equal(features(X), expected)
    assert fourier(X).shape == (4, 40)  # 120 features over the 3 of the linear factor


def test_product_of_sums_distributes():
    kernel = (RBF + LINEAR) * (matern(2.5) + 0.5)
    terms = kernel.terms(3)
    assert [tuple(type(k).__name__ for k in term.kernels) for term in terms] == [
        ("RBF", "Matern"),
        ("RBF", "Constant"),
        ("Linear", "Matern"),
        ("Linear", "Constant"),
    ]
    X = points(4, 3, seed=8)
    np.testing.assert_allclose(sum(term(X, X) for term in terms), kernel(X, X), rtol=1e-13)
    assert isinstance(draw(kernel, 32, 3), ConcatenatedFeatures)
    # The random terms have 32 among them: 12 and 10 for the two that are stationary, 10 times 3 for the product with a linear
    # kernel; the exact term has its 3.
    assert sizes_of(kernel, 32, 3) == (55, [12, 10, 30, 3])


@pytest.mark.parametrize(
    ("kernel", "n_features", "sizes"),
    [
        (RBF + matern(2.5), 10, [10]),
        (RBF + matern(2.5) + RQ, 11, [11]),
        (RBF + matern(2.5) + RQ, 1, [6]),  # a pair for each at the least
        (RBF + matern(2.5) + pgp.ArcCosine(1.0, 1), 10, [8, 2]),  # two pairs, two pairs and one
        (RBF + LINEAR + 1.0, 10, [10, 3, 1]),
        (RBF + LINEAR, 1, [1, 3]),
        (RBF + LINEAR * LINEAR, 10, [10, 9]),
        (RBF + pgp.White(0.5) + LINEAR, 10, [10, 3]),
        (RBF + matern(0.5) + LINEAR, 12, [12, 3]),
        (mixture(3), 9, [9]),
        (mixture(3) + RBF, 9, [9]),
        (pgp.ActiveDims(RBF, (0, 2)) + pgp.ActiveDims(LINEAR, (1,)), 8, [8, 1]),
    ],
    ids=lambda value: str(value) if isinstance(value, (int, list)) else "",
)
def test_features_are_divided_among_terms(kernel, n_features, sizes):
    assert sizes_of(kernel, n_features, 3) == (sum(sizes), sizes)


@pytest.mark.parametrize(
    ("kernel", "n_features", "size"),
    [
        (RBF, 7, 7),
        (2.0 * RBF, 7, 7),
        (LINEAR * RBF, 120, 120),  # 40 random ones for each of three
        (LINEAR * RBF, 60, 96),  # 32 at the least
        (LINEAR * RBF, 2, 6),  # but no more than were asked for
        (RBF * matern(2.5), 7, 7),
        (LINEAR, 100, 3),
        (pgp.Constant(1.0), 100, 1),
        (pgp.ActiveDims(RBF, (1,)), 5, 5),
        (pgp.ActiveDims(PERIODIC, (1,)), 8, 8),
        (PERIODIC, 8, 8),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_number_of_features(kernel, n_features, size):
    assert sizes_of(kernel, n_features, 3)[0] == size


def test_terms_of_a_sum_are_independent():
    # The same frequencies in both terms would show as a correlation between the parts of one basis.
    X = jnp.asarray(points(2, 2, seed=9))

    @eqx.filter_jit
    def parts(keys):
        def one(key):
            both = (RBF + RBF).features(8, 2, key=key, basis=pgp.MonteCarlo()).split(2)
            return jnp.stack([(part(X) @ part(X).T)[0, 1] for part, _ in both])

        return jax.vmap(one)(keys)

    first, second = np.asarray(parts(jax.random.split(jax.random.key(0), 1000))).T
    assert_mean(first, np.asarray(RBF(X, X))[0, 1])
    assert_mean((first - first.mean()) * (second - second.mean()), 0.0)


def test_terms_share_the_features_equally_whatever_their_variance():
    """The data may pin the largest term, and leave open the smallest."""
    large, small, middle = (pgp.RBF(v, 0.8) for v in (9.0, 1e-6, 3.0))
    shapes = lambda n: eqx.filter_eval_shape(draw, large + small + middle, n, 2)
    counts = lambda n: [size for part in shapes(n).blocks for _, size in part]
    assert counts(400) == [134, 134, 132]
    assert counts(12) == [4, 4, 4]
    assert counts(2) == [2, 2, 2]  # a pair for each at the least
    # The variance of a term is right whatever its number (but for the weights of the tail).
    parts = eqx.filter_jit(
        lambda X: [part(X) for part, _ in draw(large + small + middle, 400, 2).split(3)]  # in one program
    )(jnp.asarray(points(2, 2)))
    for phi, variance in zip(parts, (9.0, 1e-6, 3.0), strict=True):
        np.testing.assert_allclose(np.sum(np.asarray(phi) ** 2, axis=1), variance, rtol=0.05)


def test_products_of_random_bases_pair_their_draws():
    X = jnp.asarray(points(4, 3, seed=7))
    features = draw(arc(1) * RBF, 12, 3)
    assert isinstance(features, PairedFeatures) and features.n_draws == 6
    fourier, ramps = (part(X) for part in features.parts)
    assert fourier.shape == (4, 12) and ramps.shape == (4, 6)
    expected = np.concatenate([fourier[:, :6] * ramps, fourier[:, 6:] * ramps], axis=1) * np.sqrt(6)
    np.testing.assert_allclose(features(X), expected, rtol=1e-14)


class Bare(pgp.AbstractKernel):
    """A kernel that gives nothing but its matrix."""

    def matrix(self, X, Z):
        return jnp.ones((X.shape[0], Z.shape[0]), X.dtype)


@pytest.mark.parametrize(
    "kernel", [Bare(), Bare() + RBF, 2.0 * Bare(), LINEAR * Bare(), pgp.ActiveDims(Bare(), (0,))], ids=str
)
def test_kernel_without_features_is_named(kernel):
    with pytest.raises(
        NotImplementedError,
        match=r"`Bare` has no basis of its own.*`spectrum` if it is stationary, or a method `features`",
    ):
        kernel.features(8, 2, key=jax.random.key(0))


@pytest.mark.parametrize("kernel", [Bare() * Bare(), Bare() * RBF, arc(1) * Bare()], ids=["two", "one", "last"])
def test_product_of_kernels_without_features_is_named(kernel):
    with pytest.raises(NotImplementedError, match=r"(Bare|ArcCosine) \* (Bare|RBF)` has no basis of its own"):
        kernel.features(8, 2, key=jax.random.key(0))


def test_factors_of_a_deterministic_product_have_keys_of_their_own():
    # With few harmonics each factor samples its tail, and the same draw in both would not average to the product.
    both = pgp.ActiveDims(pgp.Periodic(1.0, 0.4, 1.0), (0,)) * pgp.ActiveDims(pgp.Periodic(1.0, 0.4, 1.0), (1,))
    X = points(4, 2, seed=1)
    basis = pgp.HilbertSpace(np.array([[-2.0, -2.0], [2.0, 2.0]]))
    assert_mean(replicas(both, X, 16, 4000, basis=basis), np.asarray(both(X, X)))


def test_white_noise_has_no_features():
    for kernel in (pgp.White(1.0), 2.0 * pgp.White(1.0), pgp.White(1.0) * RBF):
        with pytest.raises(NotImplementedError, match="`White` is noise, not a function"):
            kernel.features(8, 2, key=jax.random.key(0))


@pytest.mark.parametrize("name", [*SEVERAL, "Cosine * RBF", "Warped RBF", "Coregionalised"])
def test_features_follow_the_dtype_of_the_inputs(name):
    @eqx.filter_jit
    def evaluate(kernel, X, Y):
        features = kernel.features(8, 3, key=jax.random.key(0))
        return features(X), features(Y)

    X = KERNELS[name].points(3, 3, seed=10)
    single, double = evaluate(KERNELS[name].make(3), jnp.asarray(X, jnp.float32), jnp.asarray(X))
    assert (single.dtype, double.dtype) == (jnp.float32, jnp.float64)
    # Frequencies of the heaviest tail here (Matern 1/2) reach some 20 turns, of which float32 keeps 2e-6.
    np.testing.assert_allclose(single, double, atol=1e-4)


@pytest.mark.parametrize("name", KERNELS)
def test_features_of_a_single_precision_kernel(name):
    kernel = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), KERNELS[name].make(3))

    def evaluate(kernel, X):
        features = kernel.features(8, 3, key=jax.random.key(0))
        return features, features(X)

    out = eqx.filter_eval_shape(evaluate, kernel, jax.ShapeDtypeStruct((3, 3), jnp.float32))
    inexact = [leaf for leaf in jax.tree.leaves(out) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    assert {leaf.dtype for leaf in inexact} == {jnp.dtype(jnp.float32)}


FIXED = {
    "RBF": (pgp.RBF(variance=1.3, lengthscale=[0.8, 1.1]), 2),
    "Matern": (pgp.Matern(nu=1.5, variance=1.3, lengthscale=[0.8, 1.1]), 2),
    "Linear": (LINEAR, 2),
    "Constant": (pgp.Constant(variance=0.7), 2),
    "Periodic": (PERIODIC, 1),
    "Periodic short": (pgp.Periodic(variance=1.2, lengthscale=0.3, period=1.7), 1),
    "RationalQuadratic": (RQ, 2),
    "Cosine": (pgp.Cosine(variance=1.2, period=[0.9, 1.4]), 2),
    "SpectralMixture": (mixture(2), 2),
    "Polynomial": (pgp.Polynomial(variance=0.7, offset=0.6, degree=3), 2),
    "ArcCosine": (arc(2), 2),
    "Warped": (pgp.Warped(RBF, BEND), 2),
    "RBF * Matern + Linear * RBF": (RBF * matern(2.5) + LINEAR * RBF, 2),
}


@pytest.mark.parametrize("name", FIXED)
def test_derivatives_through_a_fixed_draw(name):
    kernel, dim = FIXED[name]
    X = jnp.asarray(points(3, dim, seed=11))
    weights = jnp.asarray(points(3, 3, seed=12))
    flat, unravel = ravel_pytree(kernel)
    # A sampled harmonic jumps where its weight does not: enough of them that none is left to sample.
    n_features = 61 if "Periodic" in name else 9

    def objective(flat):
        return jnp.sum(weights * gram(unravel(flat), jax.random.key(3), X, n_features))

    # Central differences: h²/6 times a third derivative of order 1e3, and rounding of 1e-16/h.
    h = 1e-5
    steps = h * np.eye(flat.size)
    flats = np.asarray(flat) + np.concatenate([np.zeros((1, flat.size)), steps, -steps])
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(objective)))(flats)
    above, below = np.split(np.asarray(values[1:]), 2)
    np.testing.assert_allclose(gradients[0], (above - below) / (2 * h), rtol=1e-6, atol=1e-8)


def test_features_are_a_pytree():
    kernel = (RBF + LINEAR) * (matern(2.5) + 0.5)
    X, keys = jnp.asarray(points(4, 3)), jax.random.split(jax.random.key(0), 3)
    many = eqx.filter_jit(eqx.filter_vmap(lambda key: kernel.features(12, 3, key=key)))(keys)
    values = eqx.filter_jit(eqx.filter_vmap(lambda features, X: features(X), in_axes=(eqx.if_array(0), None)))(many, X)
    draw_and_evaluate = eqx.filter_jit(lambda key: kernel.features(12, 3, key=key)(X))
    for key, value in zip(keys, values, strict=True):
        np.testing.assert_allclose(draw_and_evaluate(key), value, rtol=1e-12, atol=1e-13)


def test_same_key_same_features_other_key_other_features():
    X = jnp.asarray(points(4, 3))
    values = [draw(RBF, 8, 3, jnp.asarray(seed))(X) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(values[0], values[1])
    assert np.abs(values[0] - values[2]).max() > 0.1


class Gibbs(pgp.AbstractKernel):
    """The kernel of Gibbs (1997) with lengthscale 0.2 + slope·|x|: not stationary, and of no coordinate."""

    variance: jax.Array
    slope: jax.Array

    def matrix(self, X, Z):
        x, z = (0.2 + self.slope * jnp.abs(points[:, 0]) for points in (X, Z))
        squares = x[:, None] ** 2 + z[None, :] ** 2
        return self.variance * jnp.sqrt(2 * x[:, None] * z[None, :] / squares) * jnp.exp(-((X - Z.T) ** 2) / squares)

    def smoothness(self, dim):
        return math.inf


def test_a_kernel_without_a_basis_has_one_from_points():
    X = jnp.linspace(0, 3, 12)[:, None]
    at, y = jnp.linspace(-0.4, 3.4, 7)[:, None], jnp.sin(5 / (X[:, 0] + 0.5))
    gibbs = Gibbs(jnp.asarray(1.3), jnp.asarray(0.5))
    posterior = pgp.GPPrior(kernel=gibbs, X=X).condition(y, 0.01)
    paths = pgp.PathwiseSampler(posterior, 128).sample_paths(jax.random.key(0), 3)
    np.testing.assert_allclose(paths.marginal_variance(at), posterior.variance(at), rtol=1e-6)
    assert pgp.feature_error(posterior, at, 128) < 1e-6 < pgp.feature_error(posterior, at, 6)
    with pytest.raises(ValueError, match=r"outside the box .*`Nystrom` `points`"):
        paths(jnp.asarray([[4.0]]))
    # A rule that is given is kept: one with points of its own holds further out, and another one says that it cannot.
    wide = pgp.PathwiseSampler(posterior, 64, features=pgp.Nystrom(jnp.linspace(-2, 6, 30)[:, None])).sample_paths(
        jax.random.key(0)
    )
    assert np.isfinite(wide(jnp.asarray([[6.0]]))).all()
    with pytest.raises(NotImplementedError, match="`Gibbs` has no spectral density"):
        pgp.PathwiseSampler(posterior, 16, features=pgp.HilbertSpace()).sample_paths(jax.random.key(0))
    # Terms of a sum keep their own parts; draws of a prior and inducing points have the same basis.
    parts = pgp.GPPrior(kernel=gibbs + pgp.Linear(0.1), X=X).condition(y, 0.01)
    drawn = pgp.PathwiseSampler(parts, 64).sample_paths(jax.random.key(0), 2)
    np.testing.assert_allclose(sum(part(at) for part in drawn.components()), drawn(at), atol=1e-9)
    assert pgp.GPPrior(kernel=gibbs, X=X).sample_paths(jax.random.key(0), 2, 32)(at).shape == (2, 7)

    def value(slope):
        prior = pgp.GPPrior(kernel=Gibbs(jnp.asarray(1.3), slope), X=X)
        return jnp.sum(pgp.PathwiseSampler(prior.condition(y, 0.01), 24).sample_paths(jax.random.key(0), 2)(at))

    h = 1e-5
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(value)))(0.5 + h * np.arange(-1, 2))
    np.testing.assert_allclose(slopes[1], (values[2] - values[0]) / (2 * h), rtol=1e-3)


def test_points_that_say_nothing_new_are_no_features():
    """More features than a kernel of finite rank has."""

    class Affine(pgp.AbstractKernel):
        def matrix(self, X, Z):
            return 1 + X @ Z.T

    X = jnp.linspace(-1, 1, 6)[:, None]
    posterior = pgp.GPPrior(kernel=Affine(), X=X).condition(X[:, 0], 0.1)
    paths = pgp.PathwiseSampler(posterior, 32).sample_paths(jax.random.key(0), 2)
    np.testing.assert_allclose(paths.marginal_variance(X), posterior.variance(X), rtol=1e-6)
    assert int(jnp.sum(paths.features.found)) == 2
