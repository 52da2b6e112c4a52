"""The best Gaussian guide for a Gaussian likelihood, and the bound it attains."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks
from .._kernels import check_valid
from .._numerics.blocks import map_rows
from .._numerics.linalg import add_diagonal, CholeskyFactor, inner, inverse_factor
from .._priors import SparseGPPrior
from .._types import AnyArray, Number
from .base import AbstractGuide, solve_lower
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
    X, y, noise_var = _check_data(prior, X, y, noise_var)
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


def elbo(
    prior: SparseGPPrior,
    guide: AbstractGuide,
    X: Float[AnyArray, "n d"],
    y: Float[AnyArray, "n"],
    noise_var: Number | Float[AnyArray, "n"],
) -> Float[Array, ""]:
    """Evidence lower bound Σ_i E_q[log N(y_i | f(x_i), noise_i)] − KL(q(u) ‖ p(u)), in closed form.

    **Arguments:** as for `optimal_guide`, with a `guide` of m values.

    **Returns:** a scalar, at most the log marginal likelihood (but for a `DeltaGuide`, which has no density).

    **Raises:** ValueError where shapes do not fit, values are not finite or `noise_var` is not positive. Source: Hensman
    et al. (2013), equation 4.
    """
    X, y, noise_var = _check_data(prior, X, y, noise_var)
    if not isinstance(guide, AbstractGuide):
        raise ValueError(f"`guide` must be a guide over inducing values; got {type(guide).__name__}.")
    guide.check(prior)
    return _elbo(prior, guide, prior.checked_factor().lower, X, y, noise_var)


@eqx.filter_jit
def _elbo(
    prior: SparseGPPrior,
    guide: AbstractGuide,
    lower: Float[Array, "m m"],
    X: Float[Array, "n d"],
    y: Float[Array, "n"],
    noise_var: Float[Array, "n"],
) -> Float[Array, ""]:
    mean, scale = guide.moments(prior)
    white_mean = solve_lower(lower, (mean - prior.mean_at(prior.Z))[None, :])
    white_scale = solve_lower(lower, scale.T)  # (L⁻¹T)ᵀ

    def block(rows: Float[Array, "b d"]) -> Float[Array, "2 b"]:
        white = solve_lower(lower, prior.kernel.matrix(rows, prior.Z))
        spread = inner(white, white_scale)
        variance = prior.kernel.diagonal(rows) - jnp.sum(white * white, axis=1) + jnp.sum(spread * spread, axis=1)
        return jnp.stack([inner(white_mean, white)[0], variance])

    f_mean, f_variance = map_rows(block, X, prior.Z.shape[0])
    residual = y - prior.mean_at(X) - f_mean
    expected = -0.5 * (jnp.log(noise_var) + (residual * residual + f_variance) / noise_var + math.log(2 * math.pi))
    return jnp.sum(expected) - guide.kl_divergence(prior)


def _check_data(
    prior: SparseGPPrior, X: Any, y: Any, noise_var: Any
) -> tuple[Float[Array, "n d"], Float[Array, "n"], Float[Array, "n"]]:
    if not isinstance(prior, SparseGPPrior):
        raise ValueError(f"`prior` must be a SparseGPPrior; got {type(prior).__name__}.")
    dtype, dim = prior.Z.dtype, prior.Z.shape[1]
    X = _checks.inputs(_checks.points(X, "X"), dim).astype(dtype)
    n = X.shape[0]
    y = _checks.vector(y, n, "y", "X").astype(dtype)
    X = check_valid(prior.kernel, X, "X")
    noise = jnp.broadcast_to(_checks.noise_variance(noise_var, n).astype(dtype), (n,))
    return X, y, noise + prior.kernel.noise(X)
