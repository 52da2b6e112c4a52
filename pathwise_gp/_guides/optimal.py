"""The best Gaussian guide for a Gaussian likelihood."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._numerics.linalg import add_diagonal, CholeskyFactor, guarded_cholesky, inner, inverse_factor
from .._priors import SparseGPPrior
from .._types import AnyArray, Number
from .bound import check_data
from .whitened import WhitenedGuide


def optimal_guide(
    prior: SparseGPPrior, X: Float[AnyArray, "n d"], y: Float[AnyArray, "n"], noise_var: Number | Float[AnyArray, "n"]
) -> WhitenedGuide:
    """The q(u) that maximises the evidence lower bound under Gaussian noise.

    With A = L⁻¹ k(Z, X) noise^{−½} and B = I + A Aᵀ, the whitened values have q(v) = N(B⁻¹A noise^{−½}(y − m(X)), B⁻¹).
    B has no eigenvalue below 1, so its factorisation is stable; no covariance is inverted.

    **Arguments:** `prior`: with inducing points `m d`; `X`: training inputs, `n d`; `y`: observations, `n`; `noise_var`:
    variance of the noise, a scalar or one per point.

    **Returns:** a `WhitenedGuide` of m values.

    **Raises:** ValueError where shapes do not fit, values are not finite, `noise_var` is not positive, or k(Z, Z) with the
    jitter is not positive definite. Source: Titsias (2009), equation 10.
    """
    X, y, noise_var = check_data(prior, X, y, noise_var)
    return _optimal(prior, prior.checked_factor(), X, y, noise_var)


@eqx.filter_jit
def _optimal(
    prior: SparseGPPrior,
    factor: CholeskyFactor,
    X: Float[Array, "n d"],
    y: Float[Array, "n"],
    noise_var: Float[Array, "n"],
) -> WhitenedGuide:
    scale = jnp.sqrt(noise_var)
    A = factor.whiten(prior.kernel.matrix(X, prior.Z) / scale[:, None])  # n m: the transpose of the paper's
    B = add_diagonal(inner(A.T, A.T), jnp.ones_like(A[0]))
    T = inverse_factor(B)
    target = jnp.sum(A * ((y - prior.mean_at(X)) / scale)[:, None], axis=0)
    return WhitenedGuide(mean=inner(T, inner(target[None, :], T.T))[:, 0], scale_tril=T)


def collapsed_bound(
    prior: SparseGPPrior, X: Float[AnyArray, "n d"], y: Float[AnyArray, "n"], noise_var: Any
) -> Float[Array, ""]:
    """The evidence lower bound at the optimal guide, log N(y | m(X), Q + noise) − ½ Σᵢ (k(xᵢ, xᵢ) − Qᵢᵢ)/noiseᵢ with
    Q = k(X, Z) k(Z, Z)⁻¹ k(Z, X) (Titsias 2009, equation 9).

    Where k(Z, Z) with the jitter as given is not positive definite it is −inf with zero derivatives.
    """
    X, y, noise_var = check_data(prior, X, y, noise_var)
    return _collapsed(prior, X, y, noise_var)


@eqx.filter_jit
def _collapsed(
    prior: SparseGPPrior, X: Float[Array, "n d"], y: Float[Array, "n"], noise_var: Float[Array, "n"]
) -> Float[Array, ""]:
    scale = jnp.sqrt(noise_var)
    lower, ok = guarded_cholesky(prior.covariance_at(prior.Z))
    A = CholeskyFactor(lower).whiten(prior.kernel.matrix(X, prior.Z) / scale[:, None])  # n m
    root, also_ok = guarded_cholesky(add_diagonal(inner(A.T, A.T), jnp.ones_like(A[0])))
    residual = (y - prior.mean_at(X)) / scale
    fitted = CholeskyFactor(root).whiten(inner(residual[None, :], A.T))[0]
    fit = jnp.sum(residual * residual) - jnp.sum(fitted * fitted)
    log_det = CholeskyFactor(root).log_det() + jnp.sum(jnp.log(noise_var))
    left_out = jnp.sum(prior.kernel.diagonal(X) / noise_var) - jnp.sum(A * A)
    value = -0.5 * (fit + log_det + left_out + y.shape[0] * math.log(2 * math.pi))
    return jnp.where(ok & also_ok, value, -jnp.inf)
