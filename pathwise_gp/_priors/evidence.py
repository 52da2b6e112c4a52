"""The log density of what is observed at the training inputs X of a prior."""

import math
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._numerics.lapack import cholesky
from .._numerics.linalg import CholeskyFactor, density_of, gaussian_log_density, seen
from .._solvers.jitter import FOR_A_DENSITY, is_lost

# A prior with training inputs X.
PriorT = TypeVar("PriorT", bound=Any)


def without(prior: PriorT, mask: Bool[Array, "n"] | None) -> PriorT:
    """A prior in which what was not observed has no say."""
    if mask is None:
        return prior
    seen = _where(prior.functional, mask)
    return eqx.tree_at(lambda p: p.X, prior, seen.X if isinstance(prior.X, jax.Array) else seen)


@eqx.filter_jit
def _where(L: Any, mask: Bool[Array, "n"]) -> Any:
    return L.where(mask)


@eqx.filter_jit
def log_prob(
    prior: Any, y: Float[Array, "n"], noise_var: Float[Array, "..."], mask: Bool[Array, "n"] | None
) -> Float[Array, ""]:
    """`log_density`, compiled."""
    return log_density(prior, y, noise_var, mask)


@eqx.filter_jit
def log_prob_and_whether_lost(
    prior: Any, y: Float[Array, "n"], noise_var: Float[Array, "..."], mask: Bool[Array, "n"] | None
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """The log density, and whether the noise is lost in rounding."""
    A, residual, unseen = _system(prior, y, noise_var, mask)
    factor = CholeskyFactor(cholesky(A))
    n_eps = jnp.asarray(y.shape[0] * jnp.finfo(A.dtype).eps, A.dtype)
    pivots = jnp.diagonal(factor.lower) ** 2
    noise = prior.noise_at(prior.functional, noise_var)
    lost = ~factor.is_finite() | is_lost(pivots, noise, jnp.diagonal(A), FOR_A_DENSITY * n_eps)
    return density_of(factor, residual) + unseen, lost


def log_density(
    prior: Any, y: Float[Array, "n"], noise_var: Float[Array, "..."], mask: Bool[Array, "n"] | None
) -> Float[Array, ""]:
    """`GPPrior.log_prob` of values that have been checked."""
    A, residual, unseen = _system(without(prior, mask), y, noise_var, mask)
    return gaussian_log_density(A, residual) + unseen


def _system(
    prior: Any, y: Float[Array, "n"], noise_var: Float[Array, "..."], mask: Bool[Array, "n"] | None
) -> tuple[Float[Array, "n n"], Float[Array, "n"], Float[Array, ""]]:
    """A and y − m(X), and what is to be added to their log density for what was not observed, which is left in them as
    independent standard normal values, all 0."""
    L = prior.functional
    residual = y - prior.mean_at(L)
    covariance = prior.covariance_at(L, noise_var, mask)
    if mask is None:
        return covariance, residual, jnp.zeros((), residual.dtype)
    unseen = 0.5 * math.log(2 * math.pi) * jnp.sum(~mask).astype(residual.dtype)
    return seen(covariance, mask), jnp.where(mask, residual, jnp.zeros_like(residual)), unseen
