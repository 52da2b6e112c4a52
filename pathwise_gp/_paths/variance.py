"""The variance of a path, without Monte Carlo."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._features import AbstractFeatures
from .._functionals import AbstractFunctional
from .._kernels import AbstractKernel
from .._numerics.blocks import map_rows
from .._numerics.linalg import CholeskyFactor, inner


def path_variance(
    kernel: AbstractKernel,
    factor: CholeskyFactor,
    noise: Float[Array, "n"],
    spread: Float[Array, "n n"] | None,
    features: AbstractFeatures,
    L: AbstractFunctional,
    X: Float[Array, "b d"],
) -> Float[Array, "b"]:
    """‖φ(x) − φ(L)ᵀg‖² + gᵀ(Σ + S)g with g = A⁻¹k(L, x), at each x of X: a path is affine in w, ε and u.

    **Arguments:** `factor`: of A = L k Lᵀ + Σ; `noise`: the diagonal of Σ, `n`; `spread`: a root of S, `n n`, or None for
    S = 0; `features`: φ.

    **Returns:** the variances, `b`.
    """
    at_inputs = L.of_features(features)

    def block(rows: Float[Array, "b d"]) -> Float[Array, "b"]:
        g = factor.solve(L.of_kernel(kernel, rows))
        prior = features(rows) - inner(g, at_inputs.T)
        variance = jnp.sum(prior * prior, axis=1) + jnp.sum(g * g * noise[None, :], axis=1)
        if spread is None:
            return variance
        value = inner(g, spread.T)
        return variance + jnp.sum(value * value, axis=1)

    return map_rows(block, X, L.width + at_inputs.shape[1])
