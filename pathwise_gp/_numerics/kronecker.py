"""Systems with a covariance K ⊗ B + I ⊗ D: n points, each with p outputs of their own noise."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .linalg import inner


class KroneckerFactor(eqx.Module):
    """A = K ⊗ B + I ⊗ diag(D), by the eigenvectors of K and of D^{−½} B D^{−½} (Rakitsch et al. 2013). Vectors are matrices
    `n p`.

    It takes O(n³ + p³) where the dense matrix takes O(n³p³).

    **Fields:** `K`: `n n`; `B`: `p p`; `noise`: D, `p`; `vectors`, `values`: of K; `output_vectors`, `output_values`: of
    the other.
    """

    K: Float[Array, "n n"]
    B: Float[Array, "p p"]
    noise: Float[Array, "p"]
    vectors: Float[Array, "n n"]
    values: Float[Array, "n"]
    output_vectors: Float[Array, "p p"]
    output_values: Float[Array, "p"]

    def solve(self, R: Float[Array, "*s n p"]) -> Float[Array, "*s n p"]:
        """A⁻¹ r for each matrix r of R."""
        flat = R.reshape(-1, *R.shape[-2:])
        return jax.vmap(lambda r: _solve(self, r))(flat).reshape(R.shape)

    def multiply(self, R: Float[Array, "n p"]) -> Float[Array, "n p"]:
        """A r."""
        return inner(inner(self.K, R.T), self.B) + R * self.noise[None, :]

    def spectrum(self) -> Float[Array, "n p"]:
        """Eigenvalues of D^{−½}AD^{−½}; at least 1."""
        return self.values[:, None] * self.output_values[None, :] + 1

    def log_density(self, R: Float[Array, "n p"]) -> Float[Array, ""]:
        """log N(r | 0, A), with derivatives of first order."""
        return _log_density(self, R)

    def is_finite(self) -> Array:
        """Whether the decompositions succeeded."""
        return jnp.all(jnp.isfinite(self.values)) & jnp.all(jnp.isfinite(self.output_values))


def factorise(K: Float[Array, "n n"], B: Float[Array, "p p"], noise: Float[Array, "p"]) -> KroneckerFactor:
    """The factor of K ⊗ B + I ⊗ diag(noise)."""
    # Eigenvectors of repeated eigenvalues have no derivatives. What is made of them has: `_solve` gives it from K, B and D.
    fixed = jax.lax.stop_gradient
    scale = 1 / jnp.sqrt(fixed(noise))
    values, vectors = jnp.linalg.eigh(fixed(K))
    output_values, output_vectors = jnp.linalg.eigh(fixed(B) * scale[:, None] * scale[None, :])
    # Both are positive semidefinite: what is below zero is rounding.
    return KroneckerFactor(K, B, noise, vectors, jnp.maximum(values, 0), output_vectors, jnp.maximum(output_values, 0))


@jax.custom_jvp
def _solve(factor: KroneckerFactor, R: Float[Array, "n p"]) -> Float[Array, "n p"]:
    scale = 1 / jnp.sqrt(factor.noise)
    U, V = factor.vectors, factor.output_vectors
    turned = inner(inner(U.T, (R * scale[None, :]).T), V.T) / factor.spectrum()
    return inner(inner(U, turned.T), V) * scale[None, :]


@_solve.defjvp
def _solve_jvp(primals, tangents):
    # d(A⁻¹r) = A⁻¹(dr − dA A⁻¹r), to any order.
    (factor, R), (dfactor, dR) = primals, tangents
    X = _solve(factor, R)
    dAX = inner(inner(dfactor.K, X.T), factor.B) + inner(inner(factor.K, X.T), dfactor.B.T) + X * dfactor.noise[None, :]
    return X, _solve(factor, dR - dAX)


@jax.custom_jvp
def _log_density(factor: KroneckerFactor, R: Float[Array, "n p"]) -> Float[Array, ""]:
    n = R.shape[0]
    log_det = jnp.sum(jnp.log(factor.spectrum())) + n * jnp.sum(jnp.log(factor.noise))
    value = -0.5 * jnp.sum(R * _solve(factor, R)) - 0.5 * log_det - 0.5 * R.size * math.log(2 * math.pi)
    return jnp.where(factor.is_finite(), value, -jnp.inf)


@_log_density.defjvp
def _log_density_jvp(primals, tangents):
    # ½ tr((ααᵀ − A⁻¹) dA) − αᵀdr with α = A⁻¹r (Rasmussen & Williams 2006, equation 5.9).
    (factor, R), (dfactor, dR) = primals, tangents
    value = _log_density(factor, R)
    alpha = _solve(factor, R)
    dA_alpha = (
        inner(inner(dfactor.K, alpha.T), factor.B)
        + inner(inner(factor.K, alpha.T), dfactor.B.T)
        + alpha * dfactor.noise[None, :]
    )
    U, V, inverse = factor.vectors, factor.output_vectors, 1 / factor.spectrum()
    scale = 1 / jnp.sqrt(factor.noise)
    along = jnp.sum(U * inner(dfactor.K, U.T), axis=0)  # diag(UᵀdK U)
    turned = dfactor.B * scale[:, None] * scale[None, :]
    across = jnp.sum(V * inner(turned, V.T), axis=0)
    by_noise = jnp.sum(V * V * (dfactor.noise / factor.noise)[:, None], axis=0)
    trace = (
        jnp.sum(along * jnp.sum(inverse * factor.output_values[None, :], axis=1))
        + jnp.sum(across * jnp.sum(inverse * factor.values[:, None], axis=0))
        + jnp.sum(by_noise * jnp.sum(inverse, axis=0))
    )
    tangent = 0.5 * jnp.sum(alpha * dA_alpha) - 0.5 * trace - jnp.sum(alpha * dR)
    return value, jnp.where(factor.is_finite(), tangent, jnp.zeros_like(tangent))
