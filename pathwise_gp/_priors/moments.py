"""Moments of a posterior."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._functionals import AbstractFunctional, as_functional
from .._means import evaluate
from .._numerics.blocks import map_rows
from .._numerics.solution import Estimate
from .._types import Key
from .leave_one_out import leave_one_out, LeaveOneOut


@eqx.filter_jit
def leave_one_out_of(posterior: Any) -> LeaveOneOut:
    found = leave_one_out(posterior.y, posterior.coefficients, posterior.solution.inverse_diagonal())
    mask = posterior.mask
    if mask is None:
        return found
    L = posterior.prior.functional
    variance, _ = variance_of(posterior, L)
    elsewhere = LeaveOneOut(L.apply(posterior.mean_path), variance + posterior.noise, jnp.zeros_like(posterior.y))
    choose = lambda here, there: jnp.where(mask, here, jnp.broadcast_to(there, here.shape))
    return jax.tree.map(choose, found, elsewhere)


@eqx.filter_jit
def log_marginal_likelihood_of(posterior: Any) -> Float[Array, "*t"]:
    y = posterior.y
    log_det = posterior.solution.log_det()
    residual = y - jnp.broadcast_to(posterior.prior.mean_at(posterior.observed), y.shape)
    square = posterior.solution.explained(residual.reshape(-1, y.shape[-1])).reshape(y.shape[:-1])
    return -0.5 * (square + log_det + _number(posterior) * math.log(2 * math.pi))


def _number(posterior: Any) -> Any:
    """How many observations were made."""
    y, mask = posterior.y, posterior.mask
    return y.shape[-1] if mask is None else jnp.sum(mask).astype(y.dtype)


@eqx.filter_jit
def estimated_evidence_of(posterior: Any, key: Key, n_probes: int) -> Estimate:
    y = posterior.y
    residual = y - jnp.broadcast_to(posterior.prior.mean_at(posterior.observed), y.shape)
    U = jax.random.normal(key, (n_probes, y.shape[-1]), y.dtype)
    log_det, error = posterior.solution.estimated_log_det(U)
    # The coefficients are 0 where nothing was observed.
    square = jnp.sum(residual * posterior.coefficients, axis=-1)
    return Estimate(-0.5 * (square + log_det + _number(posterior) * math.log(2 * math.pi)), 0.5 * error)


@eqx.filter_jit
def mean_of(posterior: Any, X: Float[Array, "n d"]) -> Float[Array, "t n"]:
    prior, L = posterior.prior, posterior.prior.functional
    coefficients = posterior.coefficients.reshape(-1, L.size)
    block = lambda rows: L.along(prior.kernel, rows, coefficients)
    return evaluate(prior.mean, X)[None, :] + map_rows(block, X, L.width)


@eqx.filter_jit
def variance_of(posterior: Any, X: Any) -> tuple[Float[Array, "n"], Bool[Array, ""]]:
    """The variance, and whether it is rounding somewhere and should not be: where all that was observed has noise, and in low
    precision also away from what has none."""
    prior, seen = posterior.prior, posterior.observed
    asked = as_functional(X)
    eps = float(jnp.finfo(asked.dtype).eps)
    known = prior.noise_at(seen, posterior.noise_var) <= 0
    known = known if posterior.mask is None else known & posterior.mask
    own = jnp.maximum(seen.diagonal(prior.kernel), jnp.finfo(asked.dtype).tiny)

    def block(part: AbstractFunctional) -> Float[Array, "2 b"]:
        k = part.cross(prior.kernel, prior.functional)
        before = part.diagonal(prior.kernel)
        variance = before - posterior.solution.explained(k)
        rounding = variance < _DIGITS * eps * before
        if _DIGITS * eps > _OF_VARIANCE:
            # At a point without noise little is left, and the difference has no digits to lose.
            there = jnp.max(jnp.where(known[None, :], k * k / own[None, :], jnp.zeros_like(k)), axis=1)
            rounding = rounding & (there < (1 - _DIGITS * eps) * before)
        else:
            rounding = rounding & ~jnp.any(known)
        return jnp.stack([variance, rounding.astype(variance.dtype)])

    variance, rounding = asked.in_parts(block, seen.width)
    return jnp.maximum(variance, 0), jnp.any(rounding > 0)


# A variance of so many times the rounding of the difference that it is has two digits; one of so much of the variance before
# is as good as none.
_DIGITS, _OF_VARIANCE = 60.0, 1e-6


@eqx.filter_jit
def covariance_of(posterior: Any, X: Any, Z: Any) -> Float[Array, "n m"]:
    kernel, seen, between = posterior.prior.kernel, posterior.prior.functional, posterior.solution.between
    left = as_functional(X)
    if Z is None:
        return left.gram(kernel) - between(left.cross(kernel, seen))
    right = as_functional(Z)
    return left.cross(kernel, right) - between(left.cross(kernel, seen), right.cross(kernel, seen))
