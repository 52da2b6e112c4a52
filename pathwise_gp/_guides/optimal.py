"""The best Gaussian guide for a Gaussian likelihood."""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._functionals import AbstractFunctional, Asked
from .._numerics.linalg import add_diagonal, CholeskyFactor, guarded_cholesky, inner, inverse_factor
from .._priors import SparseGPPrior
from .._solvers.jitter import drowns_guide, first_step, say_beside_guide, say_lost, Settled
from .._types import Numbers
from .bound import check_data
from .whitened import WhitenedGuide


def optimal_guide(prior: SparseGPPrior, X: Asked, y: Numbers, noise_var: Numbers) -> WhitenedGuide:
    """The q(u) that maximises the evidence lower bound under Gaussian noise.

    With A = L⁻¹ k(Z, X) noise^{−½} and B = I + A Aᵀ, the whitened values have q(v) = N(B⁻¹A noise^{−½}(y − m(X)), B⁻¹).
    B has no eigenvalue below 1, so its factorisation is stable; no covariance is inverted.

    **Arguments:** `prior`: with inducing points `m d`; `X`: inputs, `n d`, or a functional; `y`: observations, `n`;
    `noise_var`: variance of the noise (the square of its standard deviation), a scalar or one per point.

    **Returns:** a `WhitenedGuide` of m values.

    **Raises:** ValueError where shapes do not fit, values are not finite, `noise_var` is not positive, or k(Z, Z) with the
    jitter is not positive definite. Source: Titsias (2009), equation 10.

    **Warns:** outside jit, `PrecisionWarning` where the jitter that was needed is large beside what the guide leaves open, or
    the noise is lost in the rounding of the dtype.
    """
    data = check_data(prior, X, y, noise_var)
    guide, drowned, lost = _optimal(prior, prior.settled(), *data)
    say_beside_guide(drowned, prior.Z.dtype)
    say_lost(lost, prior.Z.dtype, "X")
    return guide


# Of an eigenvalue of I + A Aᵀ, of which the least is 1, what rounding may be: a tenth of a standard deviation.
_LOST = 0.2
# Of the noise, what the variances that the inducing points leave out may be off by: a hundredth in the bound for each point.
_OF_THE_BOUND = 2e-2


@eqx.filter_jit
def _optimal(
    prior: SparseGPPrior,
    settled: Settled,
    X: AbstractFunctional,
    y: Float[Array, "n"],
    noise_var: Float[Array, "n"],
) -> tuple[WhitenedGuide, Bool[Array, ""], Bool[Array, ""]]:
    scale = jnp.sqrt(noise_var)
    A = settled.factor.whiten(
        X.cross(prior.kernel, prior.functional) / scale[:, None]
    )  # n m: the transpose of the paper's
    B = add_diagonal(inner(A.T, A.T), jnp.ones_like(A[0]))
    T = inverse_factor(B)
    target = jnp.sum(A * ((y - prior.mean_at(X)) / scale)[:, None], axis=0)
    guide = WhitenedGuide(mean=inner(T, inner(target[None, :], T.T))[:, 0], scale_tril=T)
    drowned = drowns_guide(settled.added, inner(settled.factor.lower, T.T))
    lost = jnp.finfo(X.dtype).eps * jnp.sum(A * A) > _LOST
    return guide, drowned, lost


def collapsed_bound(prior: SparseGPPrior, X: Asked, y: Numbers, noise_var: Numbers) -> Float[Array, ""]:
    """The evidence lower bound at the optimal guide, log N(y | m(X), Q + noise) − ½ Σᵢ (k(xᵢ, xᵢ) − Qᵢᵢ)/noiseᵢ with
    Q = k(X, Z) k(Z, Z)⁻¹ k(Z, X) (Titsias 2009, equation 9).

    Where k(Z, Z) with the jitter as given is not positive definite it is −inf with zero derivatives.
    """
    data = check_data(prior, X, y, noise_var)
    bound, lost = _collapsed(prior, *data)
    say_lost(lost, prior.Z.dtype, "X")
    return bound


@eqx.filter_jit
def _collapsed(
    prior: SparseGPPrior, X: AbstractFunctional, y: Float[Array, "n"], noise_var: Float[Array, "n"]
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    scale = jnp.sqrt(noise_var)
    lower, ok = guarded_cholesky(prior.covariance_at(prior.functional))
    A = CholeskyFactor(lower).whiten(X.cross(prior.kernel, prior.functional) / scale[:, None])  # n m
    root, also_ok = guarded_cholesky(add_diagonal(inner(A.T, A.T), jnp.ones_like(A[0])))
    residual = (y - prior.mean_at(X)) / scale
    fitted = CholeskyFactor(root).whiten(inner(residual[None, :], A.T))[0]
    fit = jnp.sum(residual * residual) - jnp.sum(fitted * fitted)
    log_det = CholeskyFactor(root).log_det() + jnp.sum(jnp.log(noise_var))
    signal = jnp.sum(X.diagonal(prior.kernel) / noise_var)
    left_out = signal - jnp.sum(A * A)
    step = first_step(lower.shape[0], X.dtype) if prior.jitter is None else jnp.finfo(X.dtype).eps
    lost = ~(ok & also_ok) | (step * signal > _OF_THE_BOUND * y.shape[0])
    value = -0.5 * (fit + log_det + left_out + y.shape[0] * math.log(2 * math.pi))
    return jnp.where(ok & also_ok, value, -jnp.inf), lost
