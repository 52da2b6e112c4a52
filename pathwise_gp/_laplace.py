"""Laplace's approximation: the posterior of latent values under any likelihood as a normal one at its mode."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from . import _checks
from ._features import AbstractBasis, QuasiMonteCarlo
from ._functionals import dim_of, size_of, Values
from ._guides import WhitenedGuide
from ._guides.bound import marginals, pointwise_log_prob
from ._modules import Printed
from ._numerics.lapack import cholesky
from ._numerics.linalg import CholeskyFactor, inner, inverse_factor, semidefinite_part
from ._paths import PathwiseFunction
from ._priors import GPPrior, SparseGPPrior
from ._samplers import DecoupledPathwiseSampler
from ._samplers.decoupled import through
from ._solvers.jitter import drowns_guide, say_beside_guide
from ._types import AnyArray, Key

_HALVINGS = 20


class Laplace(Printed, eqx.Module):
    """q(f(X)) = N(f̂, (K⁻¹ + W)⁻¹) at the mode f̂, with W the negative second derivatives of the log likelihood; made by
    `laplace`.

    It is held in the coordinates v of f(X) = m(X) + L v, L Lᵀ = k(X, X) + jitter, in which the prior is standard, as a guide
    whose inducing points are the training inputs. For p latent processes q is joint.

    **Fields:**

    - `priors`: of each process, with Z = X, `n d`; `guides`: the q(v) of each process alone.
    - `whitened_mean`: v̂, `p n`; `whitened_scale_tril`: a root of the covariance of all of v, `pn pn`.
    - `log_marginal_likelihood`: its approximation, log p(y | f̂) − ½ v̂ᵀv̂ − ½ log |I + LᵀWL|, a scalar, which may be
      differentiated in the hyperparameters.
    - `converged`: whether the mode was found; `steps`: of Newton's method.
    """

    priors: tuple[SparseGPPrior, ...]
    guides: tuple[WhitenedGuide, ...]
    whitened_mean: Float[Array, "p n"]
    whitened_scale_tril: Float[Array, "k k"]
    log_marginal_likelihood: Float[Array, ""]
    converged: Bool[Array, ""]
    steps: Int[Array, ""]
    several: bool = eqx.field(static=True)

    def latent_moments(self, X: Float[AnyArray, "n d"]) -> Any:
        """Mean and variance of f(x) at inputs.

        **Arguments:** `X`: inputs, `n d`. **Returns:** mean and variance, `n` each; for several processes a tuple of these.
        **Raises:** ValueError where `X` is not a finite `n d` array of the dimension of the training inputs.
        """
        X = _checks.inputs(_checks.points(X, "X"), dim_of(self.priors[0].Z)).astype(self.priors[0].Z.dtype)
        found = tuple(_moments(prior, guide, X) for prior, guide in zip(self.priors, self.guides, strict=True))
        return found if self.several else found[0]

    def sample_paths(
        self,
        key: Key,
        n_paths: int = 1,
        n_features: int = 1024,
        *,
        features: AbstractBasis = QuasiMonteCarlo(),
        share_features: bool = True,
    ) -> Any:
        """Independent draws of the latent functions.

        **Arguments:** as of `GPPrior.sample_paths`. **Returns:** paths with one axis of length `n_paths`; for several
        processes a tuple of these, of which path i of one belongs to path i of the others.
        """
        key = _checks.key(key)
        n_paths, n_features = _checks.count(n_paths, "n_paths"), _checks.count(n_features, "n_features")
        samplers = tuple(
            DecoupledPathwiseSampler(prior, guide, n_features, features=features, share_features=share_features)
            for prior, guide in zip(self.priors, self.guides, strict=True)
        )
        paths, drowned = _sample(self, samplers, key, n_paths)
        say_beside_guide(drowned, self.whitened_mean.dtype)
        return paths if self.several else paths[0]


def laplace(
    prior: GPPrior | Sequence[GPPrior],
    y: Any,
    likelihood: Callable[..., Any],
    *,
    max_steps: int = 100,
    tolerance: float | None = None,
) -> Laplace:
    """Laplace's approximation to the posterior of f(X), by Newton's method with halved steps, in O((pn)³) a step.

    **Arguments:**

    - `prior`: with n training inputs; for a likelihood of several latent processes, independent a priori, a sequence of
      priors with the same inputs.
    - `y`: observations with a leading axis of n.
    - `likelihood`: a function, defined once (each new one is compiled anew), that maps latent values f, `n`, to a
      distribution of y with a method `log_prob`, such as one of NumPyro: `lambda f: dist.Bernoulli(logits=f)`; of several
      processes one argument each: `lambda f, g: dist.Normal(f, jnp.exp(g))`. Each observation may depend on the values at
      its own input alone, and twice differentiably.
    - `max_steps`: of Newton's method.
    - `tolerance`: the mode counts as found where Newton's decrement, twice what another step would gain in log density, is
      at most this; the square root of the rounding unit unless given.

    **Returns:** the approximation, whose `converged` says whether the mode was found.

    **Raises:** ValueError where shapes do not fit, `y` is not finite, `likelihood` returns another shape, or a kernel holds
    `White`. Source: Rasmussen & Williams (2006), section 3.4 and algorithm 3.1.
    """
    several = isinstance(prior, (tuple, list))
    priors: tuple[Any, ...] = tuple(prior) if several else (prior,)
    if not priors or not all(isinstance(p, GPPrior) for p in priors):
        raise ValueError(f"`prior` must be a GPPrior, or a sequence of them; got {prior!r}.")
    X = priors[0].X
    n = size_of(X)
    if any(size_of(p.X) != n for p in priors):
        raise ValueError(f"All of `prior` must have as many inputs; got {[size_of(p.X) for p in priors]}.")
    for p in priors:
        if any(term.basis_size(dim_of(p.X)) == 0 for term in p.kernel.terms(dim_of(p.X))):
            raise ValueError("The kernel of `prior` holds `White`, which is noise: give it to `likelihood` instead.")
    given, y = y, jnp.asarray(y)
    if y.ndim == 0 or y.shape[0] != n:
        raise ValueError(f"`y` must have a leading axis of {n}, one entry for each input; got shape {y.shape}.")
    if jnp.issubdtype(y.dtype, jnp.floating):
        y = _checks.observed(y, _checks.LEAVE_OUT, given=given)
    if tolerance is None:
        tolerance = float(jnp.finfo(X.dtype).eps) ** 0.5
    sparse = tuple(
        SparseGPPrior(kernel=p.kernel, Z=p.X, mean=p.mean, jitter=p.jitter) for p in map(GPPrior.checked, priors)
    )
    factors = tuple(p.checked_factor().lower for p in sparse)
    # As arrays: neither is compiled in.
    limits = jnp.asarray(_checks.count(max_steps, "max_steps")), jnp.asarray(tolerance, X.dtype)
    return _laplace(sparse, factors, y, likelihood, *limits, several)


class _Point(NamedTuple):
    """v, the log posterior density of it (less a constant), its gradient, and W."""

    v: Float[Array, "p n"]
    value: Float[Array, ""]
    gradient: Float[Array, "p n"]
    curvature: Float[Array, "n p p"]


@eqx.filter_jit
def _laplace(
    priors: tuple[SparseGPPrior, ...],
    factors: tuple[Float[Array, "n n"], ...],
    y: Array,
    likelihood: Any,
    max_steps: Int[Array, ""],
    tolerance: Float[Array, ""],
    several: bool,
) -> Laplace:
    p, n, dtype = len(priors), size_of(priors[0].Z), priors[0].Z.dtype

    def log_likelihood(f: Float[Array, "p n"]) -> Float[Array, "n"]:
        return pointwise_log_prob(likelihood, list(f), y).astype(dtype)

    # What the likelihood closes over may be differentiated, but not through the search for the mode.
    converted, constants = jax.closure_convert(log_likelihood, jnp.zeros((p, n), dtype))
    fixed = jax.lax.stop_gradient
    means = jnp.stack([prior.mean_at(prior.functional) for prior in priors])
    lowers = jnp.stack(factors)

    def at(v: Float[Array, "p n"], lowers: Array, means: Array, constants: Any) -> _Point:
        f = means + jnp.einsum("pij,pj->pi", lowers, v, precision=jax.lax.Precision.HIGHEST)
        slope = jax.grad(lambda f: jnp.sum(converted(f, *constants)))
        # An observation depends on the values at its own input: p products with the second derivatives give them all.
        columns = [jax.jvp(slope, (f,), (jnp.zeros_like(f).at[j].set(1),))[1] for j in range(p)]
        back = jnp.einsum("pij,pi->pj", lowers, slope(f), precision=jax.lax.Precision.HIGHEST)
        value = jnp.sum(converted(f, *constants)) - 0.5 * jnp.sum(v * v)
        return _Point(v, value, back - v, -jnp.moveaxis(jnp.stack(columns), 2, 0))

    def precision(curvature: Float[Array, "n p p"], lowers: Array) -> Float[Array, "k k"]:
        """I + LᵀWL, of all processes."""
        blocks = [[inner(lowers[i].T, (lowers[j] * curvature[:, i, j][:, None]).T) for j in range(p)] for i in range(p)]
        return jnp.block(blocks) + jnp.eye(p * n, dtype=dtype)

    here = lambda v: at(v, fixed(lowers), fixed(means), fixed(constants))

    def going(state: tuple[_Point, Array, Array, Array]) -> Bool[Array, ""]:
        _, step, moved, _ = state
        return (step < max_steps) & moved

    def advance(state: tuple[_Point, Array, Array, Array]) -> tuple[_Point, Array, Array, Array]:
        point, step, _, _ = state
        # Where the likelihood is not log-concave W may be indefinite, and a step by it lead downhill.
        root = CholeskyFactor(cholesky(precision(jax.vmap(semidefinite_part)(point.curvature), fixed(lowers))))
        direction = root.solve(point.gradient.reshape(-1)).reshape(p, n)
        far = jnp.sum(direction * point.gradient) > tolerance

        def worse(tried: tuple[Array, _Point, Array]) -> Bool[Array, ""]:
            _, other, halvings = tried
            return ~(other.value > point.value) & (halvings < _HALVINGS) & far

        def halve(tried: tuple[Array, _Point, Array]) -> tuple[Array, _Point, Array]:
            size, _, halvings = tried
            return size / 2, here(point.v + size / 2 * direction), halvings + 1

        whole = jnp.ones((), dtype)
        tried = (whole, here(point.v + direction), jnp.zeros((), int))
        _, other, _ = jax.lax.while_loop(worse, halve, tried)
        moved = (other.value > point.value) & far
        return (
            jax.tree.map(lambda new, old: jnp.where(moved, new, old), other, point),
            step + moved.astype(int),
            moved,
            ~far,
        )

    start = here(jnp.zeros((p, n), dtype))
    yes = jnp.asarray(True)
    point, steps, _, found = jax.lax.while_loop(going, advance, (start, jnp.zeros((), int), yes, ~yes))
    definite = jnp.all(jnp.isfinite(cholesky(precision(point.curvature, fixed(lowers)))))
    # One more step of Newton's method, whose derivative in the hyperparameters is that of the mode (implicit function).
    curvature = jnp.where(definite, point.curvature, jax.vmap(semidefinite_part)(point.curvature))
    root = CholeskyFactor(cholesky(precision(curvature, fixed(lowers))))
    v = fixed(point.v)
    v = v + root.solve(at(v, lowers, means, constants).gradient.reshape(-1)).reshape(p, n)
    final = at(v, lowers, means, constants)
    B = precision(jnp.where(definite, final.curvature, jax.vmap(semidefinite_part)(final.curvature)), lowers)
    scale = inverse_factor(B)
    guides = tuple(WhitenedGuide(v[j], _marginal(scale, j, n) if p > 1 else scale) for j in range(p))
    density = final.value - 0.5 * CholeskyFactor(cholesky(B)).log_det()
    converged = found & definite & jnp.isfinite(density)
    return Laplace(priors, guides, v, scale, density, converged, steps, several)


def _marginal(scale: Float[Array, "k k"], j: int, n: int) -> Float[Array, "n n"]:
    """A lower-triangular root of the covariance of process j alone."""
    rows = scale[j * n : (j + 1) * n]
    return cholesky(inner(rows, rows))


@eqx.filter_jit
def _moments(
    prior: SparseGPPrior, guide: WhitenedGuide, X: Float[Array, "n d"]
) -> tuple[Float[Array, "n"], Float[Array, "n"]]:
    mean, variance = marginals(prior, guide, prior.checked_factor().lower, Values(X))
    return mean, jnp.maximum(variance, 0)


@eqx.filter_jit
def _sample(
    found: Laplace, samplers: tuple[DecoupledPathwiseSampler, ...], key: Key, n_paths: int
) -> tuple[tuple[PathwiseFunction, ...], Bool[Array, ""]]:
    key_values, *keys = jax.random.split(key, 1 + len(samplers))
    p, n = found.whitened_mean.shape
    z = jax.random.normal(key_values, (n_paths, p * n), found.whitened_mean.dtype)
    v = found.whitened_mean[None, :, :] + inner(z, found.whitened_scale_tril).reshape(n_paths, p, n)
    paths, drowned = [], jnp.zeros((), bool)
    for j, (sampler, key_process) in enumerate(zip(samplers, keys, strict=True)):
        prior = sampler.prior
        settled = prior.settled()
        values = prior.mean_at(prior.functional)[None, :] + settled.factor.colour(v[:, j])
        paths.append(through(sampler, settled, jax.random.split(key_process, 3), values))
        drowned = drowned | drowns_guide(settled.added, sampler.guide.moments(prior)[1])
    return tuple(paths), drowned
