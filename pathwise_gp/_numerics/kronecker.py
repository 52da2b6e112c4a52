"""Systems with a covariance K ⊗ B + I ⊗ D: n points, each with p outputs of their own noise."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .lapack import eigh
from .linalg import inner

# Of the largest eigenvalue of a matrix, in units of eps, what an eigenvalue may be off by.
_ROUNDING = 8


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

    def colour(self, Z: Float[Array, "*s n p"]) -> Float[Array, "*s n p"]:
        """A root of A times each matrix z of Z: of standard normal ones, draws with covariance A. It has no derivatives."""
        scale = jnp.sqrt(self.noise)[None, :]
        stretched = Z * jnp.sqrt(self.spectrum())
        one = lambda z: inner(inner(self.vectors, z.T), self.output_vectors) * scale
        return jax.vmap(one)(stretched.reshape(-1, *Z.shape[-2:])).reshape(Z.shape)

    def inverse_diagonal(self) -> Float[Array, "n p"]:
        """The diagonal of A⁻¹."""
        U, V = self.vectors**2, self.output_vectors**2
        return inner(inner(U, (1 / self.spectrum()).T), V) / self.noise[None, :]

    def spectrum(self) -> Float[Array, "n p"]:
        """Eigenvalues of D^{−½}AD^{−½}; at least 1."""
        return self.values[:, None] * self.output_values[None, :] + 1

    def log_density(self, R: Float[Array, "n p"]) -> Float[Array, ""]:
        """log N(r | 0, A), with derivatives of first order."""
        return _log_density(self, R)

    def is_definite(self) -> Bool[Array, ""]:
        """Whether A is positive definite in the precision of its dtype: the noise is above the rounding of its eigenvalues.

        Where it is not a dense factorisation would fail; here nothing does, but what comes out is rounding.
        """
        finite = jnp.all(jnp.isfinite(self.values)) & jnp.all(jnp.isfinite(self.output_values))
        return finite & (jnp.min(self.noise) > 0) & (self.rounding() <= 1)

    def rounding(self) -> Float[Array, ""]:
        """What an eigenvalue of D^{−½}AD^{−½}, of which the least is 1, may be off by: no unit enters."""
        return rounding_of(self.values, self.output_values)


def rounding_of(values: Float[Array, "n"], output_values: Float[Array, "*k p"]) -> Float[Array, "*k"]:
    """The rounding of eigenvalues of D^{−½}AD^{−½}, given those of K and of D^{−½}BD^{−½}."""
    largest = jnp.max(values) * jnp.max(output_values, axis=-1)
    return jax.lax.stop_gradient(_ROUNDING * jnp.finfo(values.dtype).eps * largest)


def scaled(B: Float[Array, "p p"], noise: Float[Array, "p"]) -> Float[Array, "p p"]:
    """D^{−½} B D^{−½}."""
    scale = 1 / jnp.sqrt(noise)
    return B * scale[:, None] * scale[None, :]


def factorise(K: Float[Array, "n n"], B: Float[Array, "p p"], noise: Float[Array, "p"]) -> KroneckerFactor:
    """The factor of K ⊗ B + I ⊗ diag(noise)."""
    # Eigenvectors of repeated eigenvalues have no derivatives. What is made of them has: `_solve` gives it from K, B and D.
    fixed = jax.lax.stop_gradient
    values, vectors = eigh(fixed(K))
    # No covariance has eigenvalues as far below zero as this: NaN, which is seen, instead of clipping them.
    indefinite = values[0] < -K.shape[0] * _ROUNDING * jnp.finfo(K.dtype).eps * jnp.abs(values[-1])
    values = jnp.where(indefinite, jnp.nan, values)
    output_values, output_vectors = eigh(scaled(fixed(B), fixed(noise)))
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
    return X, _solve(factor, dR - _change(factor, dfactor, X))


def _change(factor: KroneckerFactor, dfactor: KroneckerFactor, R: Float[Array, "n p"]) -> Float[Array, "n p"]:
    """dA r = (dK ⊗ B + K ⊗ dB + I ⊗ dD) r."""
    by_input, by_output = inner(inner(dfactor.K, R.T), factor.B), inner(inner(factor.K, R.T), dfactor.B.T)
    return by_input + by_output + R * dfactor.noise[None, :]


@jax.custom_jvp
def _log_density(factor: KroneckerFactor, R: Float[Array, "n p"]) -> Float[Array, ""]:
    n = R.shape[0]
    log_det = jnp.sum(jnp.log(factor.spectrum())) + n * jnp.sum(jnp.log(factor.noise))
    value = -0.5 * jnp.sum(R * _solve(factor, R)) - 0.5 * log_det - 0.5 * R.size * math.log(2 * math.pi)
    return jnp.where(factor.is_definite(), value, -jnp.inf)


@_log_density.defjvp
def _log_density_jvp(primals, tangents):
    # ½ tr((ααᵀ − A⁻¹) dA) − αᵀdr with α = A⁻¹r (Rasmussen & Williams 2006, equation 5.9).
    (factor, R), (dfactor, dR) = primals, tangents
    value = _log_density(factor, R)
    # Zeros where there is no density, so that no NaN is left for the reverse derivative to multiply by zero.
    ok = factor.is_definite()
    zero_if_not = lambda x: jnp.where(ok, x, jnp.zeros_like(x))
    alpha = zero_if_not(_solve(factor, R))
    U, V, inverse = map(zero_if_not, (factor.vectors, factor.output_vectors, 1 / factor.spectrum()))
    scale, per_noise = zero_if_not(1 / jnp.sqrt(factor.noise)), zero_if_not(1 / factor.noise)
    along = jnp.sum(U * inner(dfactor.K, U.T), axis=0)  # diag(UᵀdK U)
    turned = dfactor.B * scale[:, None] * scale[None, :]
    across = jnp.sum(V * inner(turned, V.T), axis=0)
    by_noise = jnp.sum(V * V * (dfactor.noise * per_noise)[:, None], axis=0)
    trace = (
        jnp.sum(along * jnp.sum(inverse * factor.output_values[None, :], axis=1))
        + jnp.sum(across * jnp.sum(inverse * factor.values[:, None], axis=0))
        + jnp.sum(by_noise * jnp.sum(inverse, axis=0))
    )
    tangent = 0.5 * jnp.sum(alpha * _change(factor, dfactor, alpha)) - 0.5 * trace - jnp.sum(alpha * dR)
    return value, tangent
