"""Likelihoods of latent processes: sampled, bounded and approximated, and the paths that each ends in."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from scipy import special, stats
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import ConstantKernel, RBF

import pathwise_gp as pgp
from pathwise_gp import numpyro_bridge as bridge

N = 10
X = np.linspace(-1, 1, N)[:, None]
Y = np.sin(3 * X[:, 0]) + 0.1 * np.cos(20 * X[:, 0])
TEST = jnp.linspace(-1.3, 1.3, 5)[:, None]
KEY = jax.random.key(0)

pytestmark = pytest.mark.usefixtures("standard_promotion")

# Latent processes, likelihood and observations of each.
KINDS = {
    "bernoulli": (1, lambda f: dist.Bernoulli(logits=f), (Y > 0).astype(int)),
    "poisson": (1, lambda f: dist.Poisson(jnp.exp(f)), np.arange(N) % 4),
    "student": (1, lambda f: dist.StudentT(4.0, f, 0.3), Y),
    "negative binomial": (1, lambda f: dist.NegativeBinomial2(jnp.exp(f), 3.0), np.arange(N) % 5),
    "categorical": (
        3,
        lambda *f: dist.Categorical(logits=jnp.stack(f, axis=-1)),
        np.arange(N) // 4,
    ),
    "heteroscedastic": (2, lambda f, g: dist.Normal(f, jnp.exp(g - 1)), Y),
}
# The log density of each in SciPy.
LOG_DENSITIES = {
    "bernoulli": lambda y, f: special.log_expit(np.where(y == 1, f, -f)),
    "poisson": lambda y, f: stats.poisson(np.exp(f)).logpmf(y),
    "student": lambda y, f: stats.t(4.0, f, 0.3).logpdf(y),
    "negative binomial": lambda y, f: stats.nbinom(3.0, 3 / (3 + np.exp(f))).logpmf(y),
    "categorical": lambda y, *f: np.choose(y, special.log_softmax(f, axis=0)),
    "heteroscedastic": lambda y, f, g: stats.norm(f, np.exp(g - 1)).logpdf(y),
}
POISSON = KINDS["poisson"][1]
KERNELS = [pgp.RBF(1.2, 0.6), pgp.Matern(2.5, 0.7, 0.8), pgp.RBF(0.9, 0.7)]


def priors_of(kind):
    return tuple(pgp.GPPrior(kernel=kernel, X=X, jitter=1e-6) for kernel in KERNELS[: KINDS[kind][0]])


def model(kind, y):
    priors = priors_of(kind)
    latent = [bridge.gp_sample(f"f{j}", prior) for j, prior in enumerate(priors)]
    numpyro.sample("y", KINDS[kind][1](*latent).to_event(1), obs=y)
    return priors


TRAINED = ["bernoulli", "poisson"]
N_PATHS = 4000


@functools.cache
def nuts(kind):
    """Draws of each site, few or, where a guide is to be compared with them, many."""
    warmup, samples = (300, 3000) if kind in TRAINED else (60, 40)
    mcmc = MCMC(NUTS(model), num_warmup=warmup, num_samples=samples, progress_bar=False)
    mcmc.run(KEY, kind, KINDS[kind][2])
    return {name: np.asarray(value) for name, value in mcmc.get_samples().items()}


def latent_moments(kind, draws):
    """Mean and standard deviation of each f(X), and the standard error of the mean, from draws."""
    values = [draws[f"f{j}"] for j in range(KINDS[kind][0])]
    sizes = [numpyro.diagnostics.effective_sample_size(v[None]) for v in values]
    return [(v.mean(0), v.std(0), v.std(0) / np.sqrt(size)) for v, size in zip(values, sizes, strict=True)]


@functools.cache
def approximated(kind):
    """Laplace's approximation, and paths of it."""
    priors = priors_of(kind)
    found = pgp.laplace(priors if len(priors) > 1 else priors[0], KINDS[kind][2], KINDS[kind][1])
    return found, found.sample_paths(KEY, N_PATHS, 64)


@eqx.filter_jit
def predicted(paths, y):
    return paths(TEST), paths.log_density(X, y)


@pytest.mark.parametrize("kind", KINDS)
def test_each_likelihood_ends_in_latent_and_predictive_paths(kind):
    p, likelihood, y = KINDS[kind]
    draws = nuts(kind)
    few = {name: value[:: len(value) // 40] for name, value in draws.items()}
    white = {name: value for name, value in few.items() if name.endswith(".white")}
    ensembles = bridge.posterior_paths(model, white, KEY, kind, y, n_paths=3, n_features=64)
    assert len(ensembles) == p
    for j, ensemble in enumerate(ensembles):
        # Without noise: but for the jitter each path meets the latent values of its draw.
        np.testing.assert_allclose(ensemble(X), np.repeat(few[f"f{j}"][:, None], 3, 1), atol=6e-3)
    found, laplace = approximated(kind)
    assert found.converged
    guides = [pgp.WhitenedGuide(guide.mean, guide.scale_tril) for guide in found.guides]
    sparse = [pgp.SparseGPPrior(kernel=prior.kernel, Z=X, jitter=1e-6) for prior in priors_of(kind)]
    decoupled = tuple(
        pgp.DecoupledPathwiseSampler(s, g, 64).sample_paths(KEY, N_PATHS) for s, g in zip(sparse, guides, strict=True)
    )
    for latent, shape in ((ensembles, (40, 3)), (laplace, (N_PATHS,)), (decoupled, (N_PATHS,))):
        paths = bridge.PredictivePaths(latent, likelihood, KEY)
        drawn, density = map(np.asarray, predicted(paths, y))
        assert drawn.shape == (*shape, 5)
        assert paths.distribution(TEST).support(drawn).all()
        np.testing.assert_allclose(drawn, paths(TEST), rtol=1e-9, atol=1e-11)
        expected = LOG_DENSITIES[kind](y, *[np.asarray(one(X)) for one in paths.paths])
        expected = np.log(np.mean(np.exp(expected), axis=tuple(range(len(shape)))))
        np.testing.assert_allclose(density, expected, rtol=1e-9)
    # Draws by NUTS and the normal approximation at the mode agree as far as the one is normal and the others are few.
    moments = [found.latent_moments(X)] if p == 1 else found.latent_moments(X)
    if kind == "heteroscedastic":  # where the mode is at small noise, and far from the mean
        return
    for (mean, sd, error), (mode, variance) in zip(latent_moments(kind, draws), moments, strict=True):
        assert (np.abs(mean - mode) < 0.5 * np.sqrt(variance) + 5 * error).all()
        assert (sd < 2.2 * np.sqrt(variance)).all()
        assert (sd > 0.4 * np.sqrt(variance)).all()


@pytest.mark.parametrize("kind", TRAINED)
def test_a_trained_guide_agrees_with_long_nuts(kind):
    _, likelihood, y = KINDS[kind]
    ((mean, sd, error),) = latent_moments(kind, nuts(kind))
    sparse, start = pgp.SparseGPPrior(kernel=KERNELS[0], Z=X, jitter=1e-6), pgp.WhitenedGuide(np.zeros(N), np.eye(N))

    def learning():
        bridge.svgp_factor("elbo", sparse, bridge.learn(start, "*"), X, y, likelihood)

    optimiser = bridge.natural_gradients(optax.sgd(0.1), step_size=0.5)
    guide = bridge.place(start, trained(learning, optimiser, 60))
    m, scale = moments(guide, sparse)
    width = np.sqrt((np.asarray(scale) ** 2).sum(1))
    # The best normal distribution is not the posterior: means differ by a tenth of a standard deviation, and it is narrower.
    assert (np.abs(m - mean) < 0.1 * sd + 4.5 * error).all()
    np.testing.assert_allclose(width / sd, 1, atol=0.12)
    # Paths of the guide are draws of it.
    values = np.asarray(pgp.DecoupledPathwiseSampler(sparse, guide, 64).sample_paths(KEY, N_PATHS)(X))
    np.testing.assert_allclose(values.std(0) / width, 1, atol=4.5 / (2 * N_PATHS) ** 0.5)
    assert (np.abs(values.mean(0) - m) < 4.5 * width / N_PATHS**0.5).all()


@eqx.filter_jit
def moments(guide, prior):
    return guide.moments(prior)


def trained(model, optimiser, steps):
    """The parameters after steps of an optimiser, the first values of which SVI would find one operation at a time."""
    svi = SVI(model, lambda: None, optimiser, Trace_ELBO())
    return jax.jit(lambda key: svi.run(key, steps, progress_bar=False).params)(KEY)


def natural_step(guide, step_size):
    prior = pgp.SparseGPPrior(kernel=pgp.RBF(1.2, 0.5), Z=np.linspace(-1, 1, 4)[:, None], mean=0.2, jitter=1e-6)

    def learning():
        learnt = bridge.learn(guide, "*")
        bridge.svgp_factor("elbo", prior, learnt, X, Y, lambda f: dist.Normal(f, 0.3))

    optimiser = bridge.natural_gradients(optax.sgd(0.1), type(guide).__name__, step_size=step_size)
    return prior, bridge.place(guide, stepped(learning, optimiser))


def stepped(model, optimiser):
    """The parameters after one update of SVI."""
    svi = SVI(model, lambda: None, optimiser, Trace_ELBO())
    return jax.jit(lambda key: svi.get_params(svi.update(svi.init(key))[0]))(KEY)


START, ROOT = np.array([3.0, -1.0, 0.5, 2.0]), 0.7 * np.eye(4)


@pytest.mark.parametrize("kind", [pgp.WhitenedGuide, pgp.FullRankGuide])
def test_a_natural_step_of_one_ends_in_the_optimal_guide(kind):
    prior, found = natural_step(kind(START, ROOT + 0.3 * np.tril(np.ones((4, 4)))), 1.0)
    best = pgp.optimal_guide(prior, X, Y, 0.09)
    for got, wanted in zip(moments(found, prior), moments(best, prior), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-8)


def test_a_natural_step_is_a_mixture_of_natural_parameters():
    start = pgp.WhitenedGuide(START, ROOT)
    prior, found = natural_step(start, 0.25)
    best = pgp.optimal_guide(prior, X, Y, 0.09)
    precision = lambda g: np.linalg.inv(np.asarray(g.scale_tril) @ np.asarray(g.scale_tril).T)
    mixed = 0.75 * precision(start) + 0.25 * precision(best)
    np.testing.assert_allclose(precision(found), mixed, rtol=1e-8, atol=1e-8)
    vector = 0.75 * precision(start) @ START + 0.25 * precision(best) @ np.asarray(best.mean)
    np.testing.assert_allclose(found.mean, np.linalg.solve(mixed, vector), rtol=1e-8)


def test_a_natural_step_that_is_too_long_is_halved():
    # At f = 8 the curvature of this density is of the other sign: a whole step would leave no covariance.
    prior = pgp.SparseGPPrior(kernel=pgp.RBF(1.0, 0.5), Z=X[:2], jitter=1e-6)
    start = pgp.WhitenedGuide(np.array([8.0, 8.0]), 0.1 * np.eye(2))

    def learning():
        bridge.svgp_factor(
            "e", prior, bridge.learn(start, "*"), X[:2], Y[:2], lambda f: dist.Cauchy(f, 0.05), n_data=2000
        )

    params = stepped(learning, bridge.natural_gradients(optax.sgd(0.1), step_size=1.0))
    assert all(np.isfinite(value).all() for value in params.values())
    assert not np.array_equal(params["WhitenedGuide.mean"], start.mean)


def test_other_parameters_move_by_the_optimiser_given():
    prior = pgp.SparseGPPrior(kernel=pgp.RBF(1.2, 0.5), Z=X[::3], jitter=1e-6)
    start = pgp.WhitenedGuide(np.zeros(4), np.eye(4))

    def learning():
        learnt, guide = bridge.learn(prior, "kernel.*"), bridge.learn(start, "*")
        bridge.svgp_factor("elbo", learnt, guide, X, Y, lambda f: dist.Normal(f, 0.3))

    params = trained(learning, bridge.natural_gradients(optax.adam(0.05), step_size=0.5), 500)
    free = bridge.place(prior, params, ignore_others=True)
    # The bound at the optimal guide has its maximum there.
    slope = jax.jit(
        jax.grad(
            lambda log: pgp._guides.optimal.collapsed_bound(
                bridge.place(prior, {"kernel.variance": jnp.exp(log[0]), "kernel.lengthscale": jnp.exp(log[1])}),
                X,
                Y,
                0.09,
            )
        )
    )(np.log([free.kernel.variance, free.kernel.lengthscale]))
    assert np.abs(slope).max() < 0.05
    assert abs(free.kernel.variance - 1.2) > 0.05


@pytest.mark.parametrize("kind", ["poisson", "heteroscedastic", "categorical"])
def test_random_latent_values_give_the_bound_on_average(kind):
    p, likelihood, y = KINDS[kind]
    sparse = [pgp.SparseGPPrior(kernel=kernel, Z=X[::3], jitter=1e-6) for kernel in KERNELS[:p]]
    guides = [pgp.WhitenedGuide(0.3 * np.arange(4.0), 0.5 * np.eye(4)) for _ in range(p)]

    def bound(key, **options):
        with handlers.seed(rng_seed=key):
            return bridge.svgp_factor("b", sparse, guides, X, y, likelihood, **options)

    exact = jax.jit(lambda key: bound(key, n_points=30 if p < 3 else 16))(KEY)
    values = np.asarray(jax.jit(jax.vmap(lambda key: bound(key, n_samples=5)))(jax.random.split(KEY, 2000)))
    assert abs(values.mean() - exact) < 4.5 * values.std() / 2000**0.5
    assert values.std() > 0.01


def test_laplace_is_scikit_learns():
    rng = np.random.default_rng(0)
    inputs, test = rng.uniform(-2, 2, (25, 2)), rng.uniform(-2, 2, (6, 2))
    y = (np.sin(2 * inputs[:, 0]) + inputs[:, 1] + 0.3 * rng.normal(size=25) > 0).astype(int)
    kernel = ConstantKernel(1.7) * RBF([0.8, 1.1])
    other = GaussianProcessClassifier(kernel, optimizer=None, max_iter_predict=1000).fit(inputs, y).base_estimator_
    theta = jnp.asarray(other.kernel_.theta)

    def at(theta):
        v = jnp.exp(theta)
        prior = pgp.GPPrior(kernel=pgp.RBF(v[0], v[1:]), X=inputs, jitter=1e-10)
        found = pgp.laplace(prior, y, lambda f: dist.Bernoulli(logits=f))
        return found.log_marginal_likelihood, found

    (value, found), slope = eqx.filter_jit(eqx.filter_value_and_grad(at, has_aux=True))(theta)
    evidence, gradient = other.log_marginal_likelihood(np.asarray(theta), eval_gradient=True)
    np.testing.assert_allclose(value, evidence, rtol=1e-8)
    np.testing.assert_allclose(found.log_marginal_likelihood, evidence, rtol=1e-8)
    np.testing.assert_allclose(slope, gradient, rtol=1e-6)
    mean, variance = found.latent_moments(test)
    cross = other.kernel_(inputs, test)
    white = np.linalg.solve(other.L_, other.W_sr_[:, None] * cross)
    np.testing.assert_allclose(mean, cross.T @ (y - other.pi_), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(variance, other.kernel_.diag(test) - (white**2).sum(0), rtol=1e-6)
    # Paths are draws of the approximation.
    values = np.asarray(found.sample_paths(KEY, 2000, 512)(test))
    assert (np.abs(values.mean(0) - mean) < 4.5 * np.sqrt(variance / 2000)).all()
    np.testing.assert_allclose(values.std(0) / np.sqrt(variance), 1, atol=4.5 / (2 * 2000) ** 0.5 + 0.03)


def test_laplace_of_a_normal_likelihood_is_exact():
    prior = pgp.GPPrior(kernel=KERNELS[0], X=X, mean=0.2, jitter=1e-6)
    exact = prior.condition(Y, 0.09)
    found = pgp.laplace(prior, Y, lambda f: dist.Normal(f, 0.3))
    # The density of y by conditioning counts the jitter twice: here f has it, there only the noise does.
    np.testing.assert_allclose(found.log_marginal_likelihood, exact.log_marginal_likelihood(), rtol=1e-6)
    mean, variance = found.latent_moments(TEST)
    np.testing.assert_allclose(mean, exact.mean(TEST), atol=1e-5)
    np.testing.assert_allclose(variance, exact.variance(TEST), atol=1e-5)


@pytest.mark.parametrize("kind", ["heteroscedastic", "categorical"])
def test_laplace_of_several_processes_is_the_curvature_at_the_mode(kind):
    p, likelihood, y = KINDS[kind]
    priors = priors_of(kind)
    found, paths = approximated(kind)
    grams = eqx.filter_jit(lambda priors: [prior.kernel(X, X) for prior in priors])(priors)
    lowers = [np.linalg.cholesky(gram + 1e-6 * np.eye(N)) for gram in np.asarray(grams)]

    def log_joint(v):
        v = v.reshape(p, N)
        f = [lower @ one for lower, one in zip(lowers, v, strict=True)]
        return likelihood(*f).log_prob(y).sum() - 0.5 * (v**2).sum()

    mode = np.asarray(found.whitened_mean).reshape(-1)
    value, slope, hessian = jax.jit(lambda v: (*jax.value_and_grad(log_joint)(v), jax.hessian(log_joint)(v)))(mode)
    np.testing.assert_allclose(slope, 0, atol=1e-7)
    precision = -np.asarray(hessian)
    covariance, scale = np.linalg.inv(precision), np.asarray(found.whitened_scale_tril)
    np.testing.assert_allclose(scale @ scale.T, covariance, rtol=1e-6, atol=1e-8)
    evidence = value - 0.5 * np.linalg.slogdet(precision)[1]
    np.testing.assert_allclose(found.log_marginal_likelihood, evidence, rtol=1e-9)
    # The paths of the processes are drawn together: their values at X have the joint covariance.
    values = np.concatenate([path(X) for path in paths], axis=1)
    root = np.zeros((p * N, p * N))
    for j, lower in enumerate(lowers):
        root[j * N : (j + 1) * N, j * N : (j + 1) * N] = lower
    joint = root @ covariance @ root.T
    spread = np.sqrt((np.outer(np.diag(joint), np.diag(joint)) + joint**2) / N_PATHS)
    assert (np.abs(np.cov(values.T) - joint) < 5 * spread + 3e-3).all()
    off = joint[:N, N:]
    assert np.abs(off).max() > 10 * spread[:N, N:].max()  # which is not zero


def test_laplace_differentiates_what_the_likelihood_closes_over():
    prior = priors_of("student")[0]

    @jax.jit
    @jax.value_and_grad
    def evidence(scale):
        return pgp.laplace(prior, Y, lambda f: dist.StudentT(4.0, f, scale)).log_marginal_likelihood

    h = 1e-5
    difference = (evidence(0.3 + h)[0] - evidence(0.3 - h)[0]) / (2 * h)
    np.testing.assert_allclose(evidence(0.3)[1], difference, rtol=1e-5)


def test_laplace_where_the_likelihood_is_not_log_concave():
    # Far outliers: Newton's own step would go downhill.
    y, likelihood = np.where(np.arange(N) == 4, 8.0, Y), lambda f: dist.StudentT(2.0, f, 0.1)
    found = pgp.laplace(priors_of("student")[0], y, likelihood)
    assert found.converged
    assert found.latent_moments(X)[0][4] < 2
    stopped = pgp.laplace(priors_of("student")[0], y, likelihood, max_steps=1)
    assert not stopped.converged


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("level", [1.0, 30.0, 1000.0])
def test_laplace_says_that_it_has_found_the_mode(level, dtype):
    y = np.random.default_rng(0).poisson(level * np.exp(Y))
    kernel = pgp.RBF(np.asarray(1.0, dtype), np.asarray(0.6, dtype))
    prior = pgp.GPPrior(kernel=kernel, X=X.astype(dtype), mean=float(np.log(level)), jitter=1e-4)
    found = pgp.laplace(prior, y, POISSON)
    assert found.converged
    assert found.steps < 12


def test_predictive_paths_of_several_outputs():
    paths = lambda X: np.stack([X[:, 0] + 0.1 * s for s in range(3)])[:, :, None] * np.array([1.0, -1.0])  # s n p
    y = np.stack([Y, -Y], axis=1)
    predictive = bridge.PredictivePaths(paths, lambda f: dist.Normal(f, 0.5).to_event(1), KEY)
    assert predictive(X).shape == (3, N, 2)
    expected = np.log(np.mean(np.exp(stats.norm(paths(X), 0.5).logpdf(y).sum(-1)), axis=0))
    np.testing.assert_allclose(predictive.log_density(X, y), expected, rtol=1e-9)


def test_laplace_in_single_precision_compiles_once():
    traces = []

    def likelihood(f):
        traces.append(f.dtype)
        return dist.Bernoulli(logits=f)

    prior = lambda scale: pgp.GPPrior(
        kernel=pgp.RBF(jnp.float32(1.2), jnp.float32(scale)), X=X.astype("float32"), jitter=1e-5
    )
    y = KINDS["bernoulli"][2]
    found = pgp.laplace(prior(0.6), y, likelihood)
    assert set(traces) == {jnp.dtype("float32")}
    count = len(traces)
    wide = pgp.laplace(priors_of("bernoulli")[0], y, KINDS["bernoulli"][1])
    assert found.converged
    np.testing.assert_allclose(found.latent_moments(X)[0], wide.latent_moments(X)[0], atol=2e-3)
    np.testing.assert_allclose(found.log_marginal_likelihood, wide.log_marginal_likelihood, atol=2e-3)
    assert found.sample_paths(KEY, 2, 32)(TEST).dtype == jnp.float32
    count = len(traces)
    pgp.laplace(prior(0.8), 1 - y, likelihood)
    assert len(traces) == count


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64], ids=["float32", "float64"])
def test_the_bounds_hold_in_both_precisions_and_compile_once(dtype):
    count = []

    def likelihood(f):
        count.append(f.dtype)
        return dist.Poisson(jnp.exp(f))

    cast = lambda x: np.asarray(x, dtype)
    Z, y = cast(X[::3]), KINDS["poisson"][2]

    @jax.jit
    def bounds(scale, mean, X, y):
        prior = pgp.SparseGPPrior(kernel=pgp.RBF(cast(1.2), scale), Z=Z, jitter=1e-4)
        guide = pgp.WhitenedGuide(mean, 0.5 * jnp.eye(4, dtype=dtype))
        with handlers.seed(rng_seed=0):
            value = bridge.svgp_factor("b", prior, guide, X, y, likelihood)
            return value, bridge.sgpr_factor("c", prior, X, y.astype(dtype), 0.1)

    found = bounds(cast(0.5), cast([0.1, 0.2, 0.3, 0.4]), cast(X), y)
    assert [value.dtype for value in found] == [dtype] * 2
    assert set(count) == {jnp.dtype(dtype)}
    again = bounds(cast(0.6), cast([0.0, 0.2, 0.3, 0.4]), cast(X), y)
    assert len(count) == 1
    assert not np.allclose(found, again)
    if dtype == jnp.float64:
        prior = pgp.SparseGPPrior(kernel=pgp.RBF(1.2, 0.5), Z=Z, jitter=1e-4)
        noise = pgp.optimal_guide(prior, X, y.astype(float), 0.1)
        np.testing.assert_allclose(found[1], pgp.elbo(prior, noise, X, y.astype(float), 0.1), rtol=1e-9)
    else:
        wide = pgp.SparseGPPrior(kernel=pgp.RBF(1.2, 0.5), Z=X[::3], jitter=1e-4)
        with handlers.seed(rng_seed=0):
            np.testing.assert_allclose(found[1], bridge.sgpr_factor("c", wide, X, y.astype(float), 0.1), rtol=1e-3)


def test_collapsed_bound_is_minus_infinity_where_there_is_no_density():
    same = np.zeros((3, 1))

    def bound(scale):
        prior = pgp.SparseGPPrior(kernel=pgp.RBF(1.0, scale), Z=same, jitter=0.0)
        return bridge.sgpr_factor("b", prior, X, Y, 0.1)

    with pytest.warns(pgp.PrecisionWarning, match="rounding takes its place"):
        assert bound(0.5) == -np.inf
    value, slope = jax.jit(jax.value_and_grad(bound))(0.5)
    assert value == -np.inf
    assert slope == 0
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(bound)))(np.array([0.5, 0.7]))
    assert (values == -np.inf).all()
    assert not slopes.any()

    def sampled():
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
        # Nearly the same points: some steps have no factor in single precision.
        Z = jnp.linspace(0, 0.3, 5, dtype=jnp.float32)[:, None]
        kernel = bridge.place(pgp.RBF(jnp.float32(1.0), jnp.float32(1.0)), {"lengthscale": scale})
        bridge.sgpr_factor("b", pgp.SparseGPPrior(kernel=kernel, Z=Z, jitter=0.0), X.astype("float32"), Y, 0.1)

    mcmc = MCMC(
        NUTS(sampled, init_strategy=numpyro.infer.init_to_value(values={"scale": 0.05})),
        num_warmup=60,
        num_samples=30,
        progress_bar=False,
    )
    mcmc.run(KEY)
    draws = mcmc.get_samples()["scale"]
    assert np.isfinite(draws).all()
    assert len(np.unique(draws)) > 2  # it moves, with a step that suits few places


def test_decoupled_paths_have_the_moments_of_the_exact_posterior():
    """Fifty inducing points for data of the model: means within 2 % of a prior sd, sds within 3 %, of the exact ones."""
    rng = np.random.default_rng(1)
    inputs, at = np.sort(rng.uniform(-5, 5, 400))[:, None], np.linspace(-5, 5, 60)[:, None]
    kernel, matrix = pgp.RBF(1.0, 0.5), lambda A, B: np.exp(-0.5 * ((A - B.T) / 0.5) ** 2)
    K, cross = matrix(inputs, inputs) + 1e-6 * np.eye(400), matrix(at, inputs)
    y = np.linalg.cholesky(K) @ rng.normal(size=400) + 0.2 * rng.normal(size=400)
    gain = np.linalg.solve(K + 0.04 * np.eye(400), cross.T)
    mean, sd = gain.T @ y, np.sqrt(1 - np.sum(gain * cross.T, axis=0))
    sparse = pgp.SparseGPPrior(kernel=kernel, Z=pgp.inducing_points(kernel, inputs, 50), jitter=1e-6)
    guide = pgp.optimal_guide(sparse, inputs, y, 0.04)
    paths = pgp.DecoupledPathwiseSampler(sparse, guide, 2048).sample_paths(KEY, 4000)
    values = np.asarray(paths(at))
    np.testing.assert_allclose(paths.mean_path(at), mean, atol=0.005)
    assert np.abs(values.mean(0) - mean).max() < 0.005 + 4.5 * sd.max() / 4000**0.5
    assert np.abs(values.std(0) / sd - 1).max() < 0.03 + 4.5 / (2 * 4000) ** 0.5


PRIOR = pgp.GPPrior(kernel=KERNELS[0], X=X)
SPARSE = pgp.SparseGPPrior(kernel=KERNELS[0], Z=X[:2])
GUIDE = pgp.WhitenedGuide(jnp.zeros(2), jnp.eye(2))
NORMAL = lambda f: dist.Normal(f, 0.1)
FOUND = functools.cache(lambda: pgp.laplace(priors_of("poisson")[0], KINDS["poisson"][2], POISSON))
REFUSED = {
    "laplace, prior": (lambda: pgp.laplace(SPARSE, Y, NORMAL), "`prior` must be a GPPrior, or a sequence"),
    "laplace, no prior": (lambda: pgp.laplace([], Y, NORMAL), "`prior` must be a GPPrior, or a sequence"),
    "laplace, inputs": (
        lambda: pgp.laplace([PRIOR, pgp.GPPrior(kernel=KERNELS[0], X=X[:3])], Y, lambda f, g: NORMAL(f)),
        r"as many inputs; got \[10, 3\]",
    ),
    "laplace, y": (lambda: pgp.laplace(PRIOR, Y[:3], NORMAL), r"`y` must have a leading axis of 10.*\(3,\)"),
    "laplace, nan": (lambda: pgp.laplace(PRIOR, np.nan * Y, NORMAL), "`y` must be finite"),
    "laplace, shape": (lambda: pgp.laplace(PRIOR, Y, lambda f: NORMAL(f).to_event(1)), r"it gave shape \(\)"),
    "laplace, white noise": (
        lambda: pgp.laplace(pgp.GPPrior(kernel=KERNELS[0] + pgp.White(0.1), X=X), Y, NORMAL),
        "holds `White`, which is noise",
    ),
    "laplace, points": (lambda: FOUND().latent_moments(X[:, 0]), r"must have shape \(n, d\)"),
    "laplace, paths": (lambda: FOUND().sample_paths(KEY, 0), "`n_paths` must be at least 1"),
    "natural, optimiser": (
        lambda: bridge.natural_gradients("adam"),
        "must be an optax GradientTransformation; got str",
    ),
    "natural, step": (
        lambda: bridge.natural_gradients(optax.sgd(0.1), step_size=1.5),
        "`step_size` must be above 0 and at most 1",
    ),
    "natural, guide": (
        lambda: bridge.natural_gradients(optax.sgd(0.1), "Other").init({"RBF.variance": jnp.ones(())}),
        r"Other\.mean, Other\.scale_tril, which the model does not learn; it learns RBF\.variance",
    ),
    "expectation of both kinds": (
        lambda: bridge.svgp_factor("b", SPARSE, GUIDE, X, Y, NORMAL, n_points=3, n_samples=3),
        "`n_points` for quadrature or `n_samples`.*not both",
    ),
    "random values without a key": (
        lambda: bridge.svgp_factor("b", SPARSE, GUIDE, X, Y, NORMAL, n_samples=3),
        "`n_samples` needs a key",
    ),
    "predictive, paths": (lambda: bridge.PredictivePaths(3, NORMAL, KEY), "`paths` must be a path"),
    "predictive, no paths": (lambda: bridge.PredictivePaths([], NORMAL, KEY), "`paths` must be a path"),
    "predictive, shapes": (
        lambda: bridge.PredictivePaths([lambda X: X[:, 0], lambda X: X], lambda f, g: NORMAL(f), KEY)(X),
        "with the axes of the values of the paths",
    ),
    "predictive, events": (
        lambda: bridge.PredictivePaths(lambda X: X[:, 0], lambda f: NORMAL(f).to_event(1), KEY).log_density(X, Y),
        r"whose last axes are those of the inputs, \(10,\); got \(\)",
    ),
    "predictive, outputs": (
        lambda: bridge.PredictivePaths(lambda X: jnp.ones((4, 10, 3)), NORMAL, KEY).log_density(X, Y),
        r"got \(4, 10, 3\).*to_event\(1\)",
    ),
    "predictive, y": (
        lambda: bridge.PredictivePaths(lambda X: X[:, 0], NORMAL, KEY).log_density(X, Y[:, None]),
        r"`y` must have shape \(10,\); got \(10, 1\)",
    ),
    "predictive, nan": (
        lambda: bridge.PredictivePaths(lambda X: X[:, 0], NORMAL, KEY).log_density(X, np.nan * Y),
        "`y` must be finite",
    ),
    "predictive, values": (
        lambda: bridge.PredictivePaths(lambda X: X[:, 0], lambda f: f, KEY)(X),
        "must return a distribution",
    ),
    "collapsed, noise": (
        lambda: bridge.sgpr_factor("b", SPARSE, X, Y, 0.0),
        "`noise_var` must be positive",
    ),
}


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize("name", REFUSED)
def test_wrong_uses_are_named(name):
    call, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        call()
