"""The best Gaussian guide for a Gaussian likelihood."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._numerics.linalg import add_diagonal, CholeskyFactor, inner, inverse_factor
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
