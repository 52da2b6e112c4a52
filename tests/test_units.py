"""Nothing depends on units: every public computation follows y → a·y + b and x → c·x + d.

A row computes something of a problem in some units and says it back in the units of the base problem, where all must agree:
to rounding for powers of two, which change no digit of a number, and to what the change of digits costs for others. Decisions
(which point, how many, whether it converged) must be the same.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import pathwise_gp as pgp
from pathwise_gp import (
    acquisition,
    calculus,
    design,
    ensembles,
    level_sets,
    numpyro_bridge as bridge,
    optimise,
    rollout,
    scores,
)
from pathwise_gp.estimator import PathwiseGPRegressor

pytestmark = pytest.mark.usefixtures("standard_promotion")

KEY = jax.random.key(0)
N = 8
RNG = np.random.default_rng(0)
X = np.linspace(-1.0, 1.0, N)[:, None] + 0.05 * RNG.normal(size=(N, 1))
Y = np.sin(3 * X[:, 0]) + 0.1 * RNG.normal(size=N)
AT = np.array([[-0.73], [0.11], [0.62], [1.3]])
PLANE = RNG.uniform(-1, 1, (N, 2))
N_FEATURES = 32


class Units(NamedTuple):
    """y → a·y + b, x → c·x + d; and the tolerance that goes with them."""

    a: float
    b: float
    c: float
    d: float
    tolerance: float

    def x(self, value):
        return self.c * jnp.asarray(value) + self.d

    def y(self, value):
        return self.a * jnp.asarray(value) + self.b

    # The same back.
    def of_x(self, value):
        return (np.asarray(value) - self.d) / self.c

    def of_y(self, value):
        return (np.asarray(value) - self.b) / self.a

    def of_dx(self, value):
        return np.asarray(value) / self.c

    def of_dy(self, value, x=0):
        """A difference of values, times the x-th power of a difference of inputs."""
        return np.asarray(value) / (self.a * self.c**x)

    def of_variance(self, value):
        return np.asarray(value) / self.a**2

    def of_density(self, value, n=1):
        return np.asarray(value) + n * np.log(self.a)

    # The problem in these units.
    @property
    def noise(self):
        return jnp.asarray(0.02 * self.a**2)

    @property
    def kernel(self):
        return pgp.RBF(1.1 * self.a**2, 0.6 * self.c)

    @property
    def bounds(self):
        return self.x(jnp.asarray([[-1.2], [1.2]]))

    def prior(self, kernel=None):
        return pgp.GPPrior(kernel=self.kernel if kernel is None else kernel, X=self.x(X), mean=self.y(0.3))

    def posterior(self, kernel=None, noise=None):
        return self.prior(kernel).condition(self.y(Y), self.noise if noise is None else noise)

    def paths(self, n_paths=4, posterior=None):
        sampler = pgp.PathwiseSampler(self.posterior() if posterior is None else posterior, N_FEATURES)
        return sampler.sample_paths(KEY, n_paths)

    def sparse(self):
        return pgp.SparseGPPrior(kernel=self.kernel, Z=self.x(X[::2]), mean=self.y(0.3))


BASE = Units(1.0, 0.0, 1.0, 0.0, 0.0)
SHIFTED = {
    "powers of two": Units(2.0**20, 0.0, 2.0**-20, 0.0, 1e-9),
    "other powers of two": Units(2.0**-20, 0.0, 2.0**20, 0.0, 1e-9),
    "large and small": Units(1e6, 0.0, 1e-6, 0.0, 1e-7),
    "small and large": Units(1e-6, 0.0, 1e6, 0.0, 1e-7),
    "offsets": Units(1e-3, 10.0, 1e3, 1e7, 1e-6),
}

ROWS: dict[str, Callable[[Units], dict[str, Any]]] = {}
COVERED: set[str] = set()


def row(*names: str):
    """A row that covers these public names."""

    def keep(function):
        ROWS[function.__name__] = function
        COVERED.update(names)
        return function

    return keep


@row("GPPrior", "ConditionedGP", "LeaveOneOut", "Prediction", "RBF", "ConstantMean")
def moments(u):
    posterior, at = u.posterior(), u.x(AT)
    loo = posterior.leave_one_out()
    return {
        "mean": u.of_y(posterior.mean(at)),
        "variance": u.of_variance(posterior.variance(at)),
        "of an observation": u.of_variance(posterior.predict(at).variance),
        "covariance": u.of_variance(posterior.covariance(at)),
        "evidence": u.of_density(posterior.log_marginal_likelihood(), N),
        "density": u.of_density(u.prior().log_prob(u.y(Y), u.noise), N),
        "left out": u.of_y(loo.mean),
        "their variance": u.of_variance(loo.variance),
        "their density": u.of_density(loo.log_density),
    }


@row("draw", "Drawn", "ConjugateGradients", "RandomPivots", "BlockProjections", "Cholesky", "Estimate")
def solved_by_iterations(u):
    solver, at = pgp.ConjugateGradients(1e-12, preconditioner=pgp.RandomPivots(4)), u.x(AT)
    drawn = pgp.draw(u.prior(), u.y(Y), u.noise, KEY, 2, N_FEATURES, solver=solver)
    some = u.prior().condition(u.y(Y), u.noise, solver=pgp.BlockProjections(1e-9, 5, block=4, throw=False))
    return {
        "values": u.of_y(drawn.paths(at)),
        "mean": u.of_y(drawn.posterior.mean(at)),
        "passes": drawn.report.passes,
        "evidence": u.of_density(drawn.posterior.estimate_log_marginal_likelihood(KEY, 4).value, N),
        "after some passes": u.of_y(some.mean(at)),
    }


@row()
def without_noise(u):
    """Where the covariance is singular, and something is added."""
    posterior = u.prior(pgp.RBF(1.1 * u.a**2, 300.0 * u.c)).condition(u.y(jnp.full(N, 0.4)), 0.0)
    return {"jitter": u.of_variance(posterior.jitter), "mean": u.of_y(posterior.mean(u.x(AT)))}


@row("PathwiseSampler", "PathwiseFunction", "stack", "concatenate", "QuasiMonteCarlo", "feature_error", "Sum")
def paths(u):
    kernel = u.kernel + pgp.Matern(1.5, 0.2 * u.a**2, 0.3 * u.c)
    posterior = u.posterior(kernel)
    drawn, at = u.paths(posterior=posterior), u.x(AT)
    prior = u.prior(kernel).sample_paths(KEY, 2, N_FEATURES)
    parts = drawn.components()
    return {
        "values": u.of_y(drawn(at)),
        "observed": u.of_y(drawn.observe(at, KEY)),
        "mean": u.of_y(drawn.mean_path(at)),
        "variance": u.of_variance(drawn.marginal_variance(at)),
        "prior": u.of_y(prior(at)),
        "part": u.of_dy(parts[1](at)),
        "stacked": u.of_y(pgp.stack([drawn[0], drawn[1]])(at)),
        "joined": u.of_y(pgp.concatenate([drawn, drawn])(at)),
        "error": pgp.feature_error(posterior, at, N_FEATURES),
        "enough": pgp.PathwiseSampler(posterior, tolerance=0.3).n_features,
    }


@row("posterior_of", "SparsePosterior", "loo_pit", "loo_crps", "ExactKnowledgeGradient")
def updating(u):
    at, new, y = u.x(AT), u.x(AT[:2] + 0.05), u.y(Y[:2])
    start = u.posterior()
    posterior = start.with_room(N + 2).condition(new, y, u.noise)
    drawn = u.paths(posterior=start)
    went, sampler = (
        drawn.condition(posterior, KEY),
        pgp.DecoupledPathwiseSampler(
            u.sparse(), pgp.WhitenedGuide(jnp.zeros(len(u.sparse().Z)), 0.3 * jnp.eye(len(u.sparse().Z))), N_FEATURES
        ),
    )
    sparse = sampler.posterior().condition(new, y, u.noise)
    exact = acquisition.ExactKnowledgeGradient(posterior, at, u.noise)
    return {
        "mean": u.of_y(posterior.mean(at)),
        "variance": u.of_variance(posterior.variance(at)),
        "paths": u.of_y(went(at)),
        "left out": u.of_y(went.leave_one_out(posterior)),
        "fewer": u.of_y(went.without(posterior, 0)(at)),
        "again": u.of_y(pgp.posterior_of(went).mean(at)),
        "sparse": u.of_y(sparse.mean(at)),
        "its variance": u.of_variance(sparse.variance(at)),
        "its paths": u.of_y(sampler.sample_paths(KEY, 2).condition(sparse, KEY)(at)),
        "pit": scores.loo_pit(went, posterior, KEY),
        "crps": u.of_dy(scores.loo_crps(went, posterior, KEY)),
        "knowledge": u.of_dy(exact(at)),
    }


@row("standardise", "Standardisation")
def standardised(u):
    """The prior is always the same; what comes of it is said in the units of the data."""
    inputs, y, at = np.asarray(u.x(X)), np.asarray(u.y(Y)), u.x(AT)
    scaling = pgp.standardise(inputs, y)
    posterior = pgp.GPPrior(kernel=pgp.RBF(1.0, 0.7), X=scaling.inputs(inputs)).condition(scaling.values(y), 0.02)
    drawn = scaling.original(pgp.PathwiseSampler(posterior, N_FEATURES).sample_paths(KEY, 2))
    original = scaling.original(posterior)
    return {
        "inputs": scaling.inputs(inputs),
        "mean": u.of_y(original.mean(at)),
        "covariance": u.of_variance(original.covariance(at)),
        "evidence": u.of_density(original.log_marginal_likelihood(), N),
        "paths": u.of_y(drawn(at)),
        "slope": u.of_dy(jax.vmap(jax.grad(drawn[0]))(at), -1),
        "observed": u.of_y(drawn.observe(at, KEY)),
    }


@row("HilbertSpace", "MonteCarlo", "Orthogonal", "Nystrom")
def other_bases(u):
    posterior, at, found = u.posterior(), u.x(AT[:3]), {}
    for basis in (pgp.HilbertSpace(), pgp.MonteCarlo(), pgp.Orthogonal(), pgp.Nystrom()):
        drawn = pgp.PathwiseSampler(posterior, N_FEATURES, features=basis).sample_paths(KEY, 2)
        found[type(basis).__name__] = u.of_y(drawn(at))
    return found


@row("Matern", "RationalQuadratic", "Periodic", "Cosine", "SpectralMixture", "Product", "Warped", "ActiveDims", "White")
def kernels(u):
    made = {
        "Matern": pgp.Matern(0.5, u.a**2, u.c),
        "RationalQuadratic": pgp.RationalQuadratic(u.a**2, u.c, 1.3),
        "Periodic": pgp.Periodic(u.a**2, 1.0, 2.0 * u.c),
        "Cosine": pgp.Cosine(u.a**2, 2.0 * u.c),
        "SpectralMixture": pgp.SpectralMixture([u.a**2], [[0.5 / u.c]], [[0.3 / u.c]]),
        "Product": pgp.RBF(u.a**2, u.c) * pgp.Periodic(1.0, 1.0, 2.0 * u.c) + pgp.White(0.01 * u.a**2),
        "Warped": pgp.Warped(pgp.RBF(u.a**2, 1.0), Standardised(jnp.asarray(u.d), jnp.asarray(u.c))),
        "ActiveDims": pgp.ActiveDims(pgp.RBF(u.a**2, u.c), (0,)),
    }
    drawn = lambda kernel: drawn_and_mean(u.prior(kernel), u.y(Y), u.noise, u.x(AT))[0]
    return {name: u.of_y(drawn(kernel)) for name, kernel in made.items()}


@eqx.filter_jit
def drawn_and_mean(prior, y, noise, at):
    """Values of two paths, and of the mean."""
    posterior = prior.condition(y, noise)
    return pgp.PathwiseSampler(posterior, N_FEATURES).sample_paths(KEY, 2)(at), posterior.mean(at)


class Standardised(eqx.Module):
    centre: Any
    scale: Any

    def __call__(self, x):
        return (x - self.centre) / self.scale


@row("Linear", "Polynomial", "Constant", "ArcCosine")
def kernels_with_an_origin(u):
    """In the unit of x; their origin stays where it is."""
    made = {
        "Linear": pgp.Linear((u.a / u.c) ** 2) + pgp.Constant(u.a**2),
        "Polynomial": pgp.Polynomial(u.a**2 / u.c**4, u.c**2, 2),
        "ArcCosine": pgp.ArcCosine((u.a / u.c) ** 2, 1) + pgp.Constant(u.a**2),
    }
    found = {}
    for name, kernel in made.items():
        drawn, mean = drawn_and_mean(pgp.GPPrior(kernel=kernel, X=u.c * X), u.a * Y, u.noise, u.c * AT)
        found[name] = np.concatenate([u.of_dy(drawn).ravel(), u.of_dy(mean)])
    return found


@row(
    "SparseGPPrior",
    "WhitenedGuide",
    "FullRankGuide",
    "MeanFieldGuide",
    "DeltaGuide",
    "NaturalGuide",
    "optimal_guide",
    "elbo",
)
@row("DecoupledPathwiseSampler", "inducing_points")
def sparse(u):
    prior, at, data = u.sparse(), u.x(AT), (u.x(X), u.y(Y), u.noise)
    m = prior.Z.shape[0]
    mean, root = jnp.linspace(-0.5, 0.5, m), 0.3 * jnp.eye(m) + 0.05 * jnp.tril(jnp.ones((m, m)))
    precision = jnp.linalg.inv(root @ root.T)
    guides = {
        "optimal": pgp.optimal_guide(prior, *data),
        "whitened": pgp.WhitenedGuide(mean, root),
        "full rank": pgp.FullRankGuide(u.y(mean), u.a * root),
        "mean field": pgp.MeanFieldGuide(u.y(mean), u.a * jnp.full(m, 0.2)),
        "delta": pgp.DeltaGuide(u.y(mean)),
    }
    if u.b == 0:  # its natural parameters know no mean
        guides["natural"] = pgp.NaturalGuide(precision @ mean / u.a, -0.5 * precision / u.a**2)
    found = {"bound": u.of_density(bridge.sgpr_factor("bound", prior, *data), N)}
    for name, guide in guides.items():
        drawn = pgp.DecoupledPathwiseSampler(prior, guide, N_FEATURES).sample_paths(KEY, 2)
        found[f"paths, {name}"] = u.of_y(drawn(at))
        # The divergence from a point mass is a density too, of m values.
        n = N + m if name == "delta" else N
        found[f"bound, {name}"] = u.of_density(pgp.elbo(prior, guide, *data), n)
    chosen = pgp.inducing_points(u.kernel, u.x(X), 4)
    return found | {"points": u.of_x(chosen)}


@row("laplace", "Laplace")
def laplace(u):
    found = pgp.laplace(u.prior(), u.y(Y), Noisy(0.2 * jnp.asarray(u.a)))
    mean, variance = found.latent_moments(u.x(AT))
    drawn = found.sample_paths(KEY, 2, N_FEATURES)
    return {
        "mean": u.of_y(mean),
        "variance": u.of_variance(variance),
        "paths": u.of_y(drawn(u.x(AT))),
        "evidence": u.of_density(found.log_marginal_likelihood, N),
        "converged": found.converged,
        "steps": found.steps,
    }


class Noisy(eqx.Module):
    scale: Any

    def __call__(self, f):
        return dist.StudentT(5.0, f, self.scale)


@row("fit", "Fit")
def fit(u):
    found = pgp.fit(u.prior(), u.y(Y), u.noise, tolerance=1e-7)
    kernel = found.prior.kernel
    return {
        "density": u.of_density(found.log_density, N),
        "converged": found.converged,
        "values": np.log([kernel.variance / u.a**2, kernel.lengthscale / u.c, found.noise_var / u.a**2]),
        "mean": u.of_y(found.prior.mean.value),
    }


@row("PathwiseGPRegressor")
def estimator(u):
    found = PathwiseGPRegressor(random_state=0, n_features=N_FEATURES).fit(np.asarray(u.x(X)), np.asarray(u.y(Y)))
    mean, deviation = found.predict(np.asarray(u.x(AT)), return_std=True)
    return {"mean": u.of_y(mean), "deviation": u.of_dy(deviation), "converged": found.converged_}


@row("AllOutputs", "OutputMeans", "OutputPaths", "Kronecker", "Coregionalised")
@row("Index", "Categorical", "with_outputs")
def outputs(u):
    """Each output in units of its own."""
    return values_of_outputs(jnp.asarray([u.a, 1 / u.a]), jnp.asarray(0.6 * u.c), u.x(X), u.x(AT))


@eqx.filter_jit
def values_of_outputs(own, lengthscale, inputs, at):
    kernel = pgp.Coregionalised(pgp.RBF(1.1, lengthscale), own[:, None] * jnp.asarray([[0.8], [0.5]]), 0.3 * own**2)
    both = jnp.stack([jnp.asarray(Y), jnp.cos(jnp.asarray(X[:, 0]))], axis=1)
    prior = pgp.GPPrior(kernel=kernel, X=pgp.AllOutputs(inputs, 2), mean=pgp.OutputMeans(0.2 * own))
    posterior = prior.condition(own * both, 0.02 * own**2)
    drawn = pgp.PathwiseSampler(posterior, N_FEATURES).sample_paths(KEY, 2)
    rows, there = pgp.with_outputs(inputs, 2).reshape(-1, 2), pgp.with_outputs(at, 2)
    dense = pgp.GPPrior(kernel=kernel, X=rows).condition((own * both).reshape(-1), jnp.tile(0.02 * own**2, N))
    return {
        "mean": posterior.mean(there) / own,
        "variance": posterior.variance(there) / own**2,
        "left out": posterior.leave_one_out().mean.reshape(-1, 2) / own,
        "density": prior.log_prob(own * both, 0.02 * own**2),  # the product of the units is 1
        "paths": drawn(there) / own,
        "all": drawn.outputs(at) / own,
        "one": drawn.outputs.output(1)(at) / own[1],
        "dense": dense.mean(there) / own,
    }


@row("Values", "Derivative", "Directional", "Gradient", "Hessian", "Laplacian", "Integral", "LinearFunctional")
def functionals(u):
    return values_of_functionals(*map(jnp.asarray, u[:4]))


@eqx.filter_jit
def values_of_functionals(a, b, c, d):
    """Slopes in units of values by those of inputs, integrals in their product."""
    x = lambda value: c * jnp.asarray(value) + d
    at, box, width = x(AT), x([[-0.5], [0.8]]), 1.3
    observed = [
        (x(X), a * jnp.asarray(Y) + b, 0.02 * a**2),
        (pgp.Gradient(x(X[:3])), a / c * jnp.full((3, 1), 0.7), 0.1 * (a / c) ** 2),
        (pgp.Laplacian(x(X[3:5])), a / c**2, 0.3 * (a / c**2) ** 2),
        (pgp.Integral(box), c * (0.2 * a + b * width), 0.01 * (a * c) ** 2),
        (pgp.Values(x(X[5:])) - pgp.Values(x(X[:3])), 0.1 * a, 0.02 * a**2),
    ]
    L, y, noise = map(list, zip(*observed, strict=True))
    prior = pgp.GPPrior(kernel=pgp.RBF(1.1 * a**2, 0.6 * c), X=L, mean=0.3 * a + b)
    posterior = prior.condition(y, noise)
    own = pgp.LinearFunctional(lambda f, X: calculus.laplacian(f)(X), at)
    return {
        "mean": (posterior.mean(at) - b) / a,
        "slope": posterior.mean(pgp.Derivative(at, (0,))) * c / a,
        "along": posterior.mean(pgp.Directional(at, [2.0])) * c / a,
        "own": posterior.mean(own) * c**2 / a,
        "curvature": posterior.variance(pgp.Hessian(at)) * c**4 / a**2,
        "integral": (posterior.mean(pgp.Integral(box)) / c - b * width) / a,
        "doubt": posterior.variance(pgp.Integral(box)) / (a * c) ** 2,
    }


@row("Batched", "PathEnsemble")
def ensembles_of_draws(u):
    arguments = (u.x(X), u.y(Y), u.kernel, u.y(0.3), u.noise, jnp.log(u.a))
    samples = {"RBF.variance": u.a**2 * jnp.asarray([0.8, 1.3])}
    ensemble = bridge.posterior_paths(model, samples, KEY, *arguments, n_paths=2, n_features=16)
    mean, deviation = ensembles.Predictor(ensemble).predict_mean_std(u.x(AT))
    left_out = bridge.leave_one_out(model, samples, KEY, *arguments)
    return {"mean": u.of_y(mean), "deviation": u.of_dy(deviation), "left out": u.of_density(left_out)}


def model(X, y, kernel, mean, noise, log_scale):
    """With its units as arguments: it is compiled once."""
    prior = pgp.GPPrior(kernel=bridge.lift(kernel, {"variance": dist.LogNormal(2 * log_scale, 1.0)}), X=X, mean=mean)
    bridge.gp_factor("obs", prior, y, noise)
    return prior


@row("PathDerivative", "VectorField", "gradient", "jacobian", "hessian", "laplacian", "divergence", "curl")
@row("directional_derivative")
def derivatives(u):
    drawn, at = u.paths(), u.x(AT)
    return {
        "gradient": u.of_dy(calculus.gradient(drawn)(at), -1),
        "hessian": u.of_dy(calculus.hessian(drawn)(at), -2),
        "laplacian": u.of_dy(calculus.laplacian(drawn)(at), -2),
        "jacobian": u.of_dy(calculus.jacobian([drawn, drawn])(at), -1),
        "divergence": u.of_dy(calculus.divergence([drawn])(at), -1),
        "along": u.of_dy(calculus.directional_derivative(drawn, jnp.asarray([u.c]))(at)),
    }


class Scaled(eqx.Module):
    """A function in other units. Its numbers are leaves: other ones are no other program."""

    function: Callable[..., Any]
    centre: jax.Array = eqx.field(converter=jnp.asarray)
    scale: jax.Array = eqx.field(converter=jnp.asarray)

    def __call__(self, X):
        return (self.function(X) - self.centre) / self.scale


class Coordinate(eqx.Module):
    """The first coordinate in other units."""

    centre: Any
    scale: Any
    level: Any = 0.0

    def __call__(self, X):
        return (X[..., 0] - self.centre) / self.scale - self.level


class Mirrored(eqx.Module):
    """A function of inputs mirrored at a point."""

    function: Callable[..., Any]
    centre: Any

    def __call__(self, X):
        return self.function(2 * self.centre - X)


@row("integrate", "integrate_exactly", "inner_product", "circulation", "flux", "gauss_legendre", "sparse_grid", "line")
@row("surface", "Quadrature")
def integrals(u):
    drawn, bounds = u.paths(), u.bounds
    width = u.c * 2.4
    exactly = calculus.integrate_exactly(drawn, bounds)
    rule = calculus.gauss_legendre(bounds, 12)
    along = calculus.line(lambda t: jnp.asarray([u.d]) + t * u.c * jnp.ones(1), -1.0, 1.0, 12)
    centred = lambda f: Scaled(f, u.b, 1.0)
    line = Coordinate(jnp.asarray(u.d), jnp.asarray(u.c))
    return {
        "exactly": u.of_dy(exactly - u.b * width, 1),
        "by a rule": u.of_dy(calculus.integrate(centred(drawn), rule), 1),
        "sparse grid": u.of_dy(calculus.integrate(centred(drawn), calculus.sparse_grid(bounds, 3)), 1),
        "inner product": u.of_dy(calculus.inner_product(centred(drawn), line, rule), 1),
        "along a line": u.of_dy(calculus.integrate(centred(drawn), along), 1),
        "circulation": u.of_dy(calculus.circulation(calculus.VectorField((centred(drawn),)), along), 1),
    }


@row("crossings", "first_crossing", "Crossings", "excursion_volume", "coverage_function", "CoverageFunction")
@row("vorobev_expectation", "VorobevExpectation", "vorobev_deviation", "contours")
def sets(u):
    drawn, bounds, level = u.paths(), u.bounds[:, 0], u.y(0.1)
    found = level_sets.crossings(drawn, level, bounds, 64, 6)
    points = u.x(np.linspace(-1, 1, 30)[:, None])
    weights = jnp.full(30, u.c * 2 / 30)
    coverage = level_sets.coverage_function(drawn, level)(points)
    expectation = level_sets.vorobev_expectation(coverage, weights)
    plane = pgp.GPPrior(kernel=u.kernel, X=u.x(PLANE), mean=u.y(0.0)).condition(u.y(Y), u.noise)
    path = pgp.PathwiseSampler(plane, N_FEATURES).sample_paths(KEY, 1)[0]
    curves = level_sets.contours(path, level, u.x(np.array([[-1.0, -1.0], [1.0, 1.0]])), 12)
    return {
        "where": np.nan_to_num(u.of_x(found.locations)),
        "upward": found.upward,
        "count": found.count,
        "first": np.nan_to_num(u.of_x(level_sets.first_crossing(drawn, level, bounds, 64))),
        "volume": u.of_dx(level_sets.excursion_volume(drawn, level, points, weights)),
        "coverage": coverage,
        "inside": expectation.inside,
        "expected volume": u.of_dx(expectation.volume),
        "deviation": u.of_dx(level_sets.vorobev_deviation(coverage, weights, expectation.inside)),
        "contours": u.of_x(np.concatenate(curves)),
        "how many": len(curves),
    }


@row("minimise", "maximise", "Optimum", "credible_intervals", "minimise_over", "maximise_over", "Choice")
def optima(u):
    drawn = u.paths()
    settings = {"n_screen": 64, "n_restarts": 4}
    low, high = optimise.minimise(drawn, u.bounds, KEY, **settings), optimise.maximise(drawn, u.bounds, KEY, **settings)
    right = Coordinate(jnp.asarray(u.d), jnp.asarray(u.c), 0.2)
    held = optimise.minimise(drawn, u.bounds, KEY, constraints=right, **settings)
    intervals = optimise.credible_intervals(low, 0.8)
    found = {"least": u.of_y(intervals[1]), "where least": u.of_x(intervals[0])}
    listed = optimise.minimise_over(drawn, u.x(AT), constraints=right)
    found |= {
        "listed": u.of_y(listed.values),
        "row": listed.indices,
        "row on top": optimise.maximise_over(drawn, u.x(AT)).indices,
    }
    for name, optimum in (("low", low), ("high", high), ("held", held)):
        found |= {name: u.of_y(optimum.values), f"where {name}": u.of_x(optimum.points)}
        found |= {f"{name} converged": optimum.converged, f"{name} feasible": optimum.feasible}
    return found


@row(
    "ExpectedImprovement",
    "LogExpectedImprovement",
    "ConstrainedExpectedImprovement",
    "LogConstrainedExpectedImprovement",
)
@row("ProbabilityOfImprovement", "ProbabilityOfFeasibility", "Exceedance", "UpperConfidenceBound", "Quantile")
@row("KnowledgeGradient", "OneShotKnowledgeGradient", "thompson_sample", "AbstractAcquisition")
def acquisitions(u):
    drawn, at, best, a = u.paths(16), u.x(AT[:3]), u.y(-0.4), jnp.log(jnp.asarray(u.a))
    posterior, settings = u.posterior(), {"n_screen": 64, "n_restarts": 4, "max_steps": 30}
    held = [Scaled(drawn, u.y(0.2), 1.0)]
    ei, log_ei = acquisition.ExpectedImprovement(drawn, best), acquisition.LogExpectedImprovement(drawn, best)
    kg = acquisition.KnowledgeGradient(drawn, u.x(X), KEY, u.noise)
    one = acquisition.OneShotKnowledgeGradient(posterior.mean, posterior.covariance, KEY, u.noise, best, n_fantasies=4)
    found = {
        "ei": u.of_dy(ei(at)),
        "log ei": log_ei(at) - a,
        "constrained": u.of_dy(acquisition.ConstrainedExpectedImprovement(drawn, held, best)(at)),
        "log constrained": acquisition.LogConstrainedExpectedImprovement(drawn, held, best)(at) - a,
        "pi": acquisition.ProbabilityOfImprovement(drawn, best)(at),
        "log pi": acquisition.ProbabilityOfImprovement(drawn, best, log=True)(at),
        "feasible": acquisition.ProbabilityOfFeasibility(held)(at),
        "exceedance": acquisition.Exceedance(drawn, best)(at),
        "ucb": -u.of_y(-acquisition.UpperConfidenceBound(drawn, 2.0)(at)),
        "quantile": -u.of_y(-acquisition.Quantile(drawn, 0.2)(at)),
        "kg": u.of_dy(kg(at)),
    }
    for name, function in (("ei", log_ei), ("kg", kg)):
        optimum = function.optimise(u.bounds, KEY, **settings)
        found |= {f"where {name}": u.of_x(optimum.points), f"{name} converged": optimum.converged}
    pair = log_ei.optimise(u.bounds, KEY, 2, **settings)
    one_shot = one.optimise(u.bounds, KEY, **settings)
    thompson = acquisition.thompson_sample(drawn, u.bounds, KEY, **settings)
    found |= {"two": pair.values - a, "one shot": u.of_x(one_shot.points), "thompson": u.of_x(thompson.points)}
    return found


@row(
    "HypervolumeImprovement", "LogHypervolumeImprovement", "hypervolume", "non_dominated", "pareto_front", "ParetoFront"
)
def fronts(u):
    drawn, at = u.paths(16), u.x(AT)
    both = [drawn, Mirrored(drawn, jnp.asarray(u.d))]
    front, reference, seen = (
        optimise.pareto_front(both, at),
        u.y(jnp.asarray([0.3, 0.2])),
        u.y(jnp.asarray([[-0.4, 0.1]])),
    )
    ehvi = acquisition.HypervolumeImprovement(both, reference, seen)(at[:3])
    log_ehvi = acquisition.LogHypervolumeImprovement(both, reference, seen)(at[:3])
    return {
        "front": u.of_y(front.values),
        "mask": front.mask,
        "same mask": optimise.non_dominated(front.values),
        "volume": u.of_variance(optimise.hypervolume(front.values, reference)),
        "ehvi": u.of_variance(ehvi),
        "log ehvi": log_ehvi - 2 * jnp.log(jnp.asarray(u.a)),
    }


@row("greedy_batch", "Batch", "PathCovariance", "path_variance", "joint_entropy_search", "max_value_entropy")
@row("gaussian_bald", "information_gain", "joint_entropy", "Estimate", "nested_information_gain", "bald")
def designs(u):
    drawn, posterior, at = u.paths(16), u.posterior(), u.x(AT)
    optimum = optimise.minimise(drawn, u.bounds, KEY, n_screen=64, n_restarts=4)
    batch = design.greedy_batch(design.PathCovariance(drawn), u.x(np.linspace(-1, 1, 12)[:, None]), 3, u.noise)
    pairs = at.reshape(2, 2, 1)
    mean, variance = posterior.mean(at), posterior.variance(at)
    means = jnp.stack([mean, mean + 0.3 * u.a])
    nested = design.nested_information_gain(drawn, pairs, Observed(jnp.sqrt(u.noise)), KEY)
    return {
        "batch": batch.indices,
        "gains": batch.gains,
        "variance": u.of_variance(design.path_variance(drawn, at)),
        "search": design.joint_entropy_search(posterior.mean, posterior.covariance, at, optimum, u.noise),
        "max value": design.max_value_entropy(-mean, variance, -optimum.values),
        "bald": design.gaussian_bald(means, jnp.stack([variance, 2 * variance])),
        "gain": design.information_gain(drawn, pairs, u.noise).value,
        "entropy": design.joint_entropy(drawn, pairs, u.noise) - 2 * np.log(u.a),
        "nested": nested.value,
        "votes": design.bald(Scaled(drawn, u.b, u.a), at, vote, jnp.arange(2)),
    }


class Observed(eqx.Module):
    scale: Any

    def __call__(self, f):
        return dist.Normal(f, self.scale)


def vote(f):
    return dist.Bernoulli(logits=f)


@row("observe", "crps", "energy_score", "variogram_score", "log_score", "interval_score", "pit", "coverage")
def scored(u):
    found = values_of_scores(u.paths(16)(u.x(X)), u.y(Y), u.noise)
    of_dy = dict.fromkeys(("crps", "energy", "interval"), u.of_dy)
    back = of_dy | {"observed": u.of_y, "log": u.of_density, "variogram": lambda value: value / u.a}
    return {name: back.get(name, np.asarray)(value) for name, value in found.items()}


@eqx.filter_jit
def values_of_scores(values, y, noise):
    return {
        "observed": scores.observe(values, noise, KEY),
        "crps": scores.crps(values, y),
        "energy": scores.energy_score(values, y),
        "variogram": scores.variogram_score(values, y, 0.5),
        "log": -scores.log_score(values, y, noise),
        "interval": scores.interval_score(values, y, 0.8),
        "pit": scores.pit(values, y),
        "coverage": scores.coverage(values, y, jnp.asarray([0.5, 0.8])),
    }


class Controlled(eqx.Module):
    centre: Any
    scale: Any

    def __call__(self, state):
        return 0.1 * (state - self.centre) / self.scale


@row("rollout", "Rollout", "returns")
def rolled(u):
    """A state in the unit of x; its increments are in that unit too."""
    prior = pgp.GPPrior(
        kernel=pgp.RBF(0.04 * u.c**2, jnp.asarray([0.6 * u.c, 1.0])), X=jnp.concatenate([u.x(X), X[::-1]], axis=1)
    )
    dynamics = pgp.PathwiseSampler(prior.condition(0.1 * u.c * jnp.asarray(Y), 1e-4 * u.c**2), N_FEATURES).sample_paths(
        KEY, 3
    )
    found = rollout.rollout(
        [dynamics], Controlled(jnp.asarray(u.d), jnp.asarray(u.c)), u.x(jnp.asarray([0.2])), 4, increments=True
    )
    return {"states": u.of_x(found.states), "actions": found.actions}


SEARCHED = {
    "where low",
    "where high",
    "where held",
    "where least",
    "where ei",
    "where kg",
    "two",
    "one shot",
    "thompson",
}


@pytest.fixture(scope="module")
def base():
    return {}


@pytest.mark.parametrize("units", SHIFTED)
@pytest.mark.parametrize("name", ROWS)
def test_nothing_depends_on_units(name, units, base):
    if name not in base:
        base[name] = ROWS[name](BASE)
    found = ROWS[name](SHIFTED[units])
    assert found.keys() <= base[name].keys()
    for quantity, value in found.items():
        wanted = np.asarray(base[name][quantity])
        if wanted.dtype.kind in "biu":
            np.testing.assert_array_equal(value, wanted, err_msg=quantity)
        else:
            assert np.all(np.isfinite(wanted)), quantity
            # A search ends where the values are flat to rounding.
            tolerance = max(SHIFTED[units].tolerance, 1e-5 if quantity in SEARCHED else 0.0)
            atol = tolerance * max(1.0, float(np.max(np.abs(wanted))))
            np.testing.assert_allclose(value, wanted, rtol=0, atol=atol, err_msg=quantity)


# Structure, words, and what is made of the above.
EXEMPT = {
    *("AbstractBasis", "AbstractFeatures", "AbstractFunctional", "AbstractGuide", "AbstractKernel", "AbstractSolver"),
    *("Coordinates", "Report"),
    *("PrecisionWarning", "ScaleWarning", "Spectrum", "ZeroMean"),
}


def test_every_public_computation_is_in_the_table():
    public = {name for name in vars(pgp) if not name.startswith("_") and not inspect.ismodule(getattr(pgp, name))}
    for module in (acquisition, calculus, design, level_sets, optimise, rollout, scores):
        public |= {
            n
            for n, v in vars(module).items()
            if callable(v) and getattr(v, "__module__", "").startswith(module.__name__) and n[0] != "_"
        }
    assert public - COVERED - EXEMPT == set()
    assert public >= EXEMPT and not (EXEMPT & COVERED)
