"""Systems with a covariance K ⊗ B + I ⊗ D: n points, each with p outputs of their own noise."""

import math
from collections.abc import Callable
from typing import Any, TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .lapack import eigh
from .linalg import inner
from .solution import AbstractSolution, Solved

# Of the largest eigenvalue of a matrix, in units of eps, what an eigenvalue may be off by.
_ROUNDING = 8


class KroneckerFactor(AbstractSolution):
    """A = K ⊗ B + I ⊗ diag(D), by the eigenvectors of K and of D^{−½} B D^{−½} (Rakitsch et al. 2013). A vector `np` is a
    matrix `n p`, one row after the other.

    It takes O(n³ + p³) where the dense matrix takes O(n³p³).

    **Fields:** `K`: `n n`; `B`: `p p`; `noise`: D, `p`; `vectors`, `values`: of K; `output_vectors`, `output_values`: of
    the other; `mask`: None, as nothing is missing.
    """

    K: Float[Array, "n n"]
    B: Float[Array, "p p"]
    noise: Float[Array, "p"]
    vectors: Float[Array, "n n"]
    values: Float[Array, "n"]
    output_vectors: Float[Array, "p p"]
    output_values: Float[Array, "p"]
    mask: Bool[Array, "q"] | None = None

    if TYPE_CHECKING:
        # A checker puts the field that the abstract class names first.

        def __init__(
            self,
            K: Float[Array, "n n"],
            B: Float[Array, "p p"],
            noise: Float[Array, "p"],
            vectors: Float[Array, "n n"],
            values: Float[Array, "n"],
            output_vectors: Float[Array, "p p"],
            output_values: Float[Array, "p"],
            mask: Bool[Array, "q"] | None = None,
        ) -> None: ...

    @property
    def grows(self) -> bool:
        return False

    def solved(self, B: Float[Array, "*s q"], start: Float[Array, "*s q"] | None = None) -> Solved:
        return Solved(self.solve(B), None)

    def solve(self, B: Float[Array, "*s q"]) -> Float[Array, "*s q"]:
        return jax.vmap(lambda r: _solve(self, r))(self._matrices(B)).reshape(B.shape)

    def explained(self, B: Float[Array, "s q"]) -> Float[Array, "s"]:
        return jnp.sum(B * self.solve(B), axis=1)

    def between(self, B: Float[Array, "s q"], C: Float[Array, "r q"] | None = None) -> Float[Array, "s r"]:
        return inner(self.solve(B), B if C is None else C)

    def inverse_rows(self, places: Int[Array, "m"], at_the_end: bool) -> Float[Array, "m q"]:
        unit = jnp.zeros((places.shape[0], self.K.shape[0] * self.B.shape[0]), self.K.dtype)
        return self.solve(unit.at[jnp.arange(places.shape[0]), places].set(1))

    def colour(self, Z: Float[Array, "*s q"]) -> Float[Array, "*s q"]:
        """A root of A times each vector z of Z. It has no derivatives."""
        scale, spread = jnp.sqrt(self.noise)[None, :], jnp.sqrt(self.spectrum())
        one = lambda z: inner(inner(self.vectors, (z * spread).T), self.output_vectors) * scale
        return jax.vmap(one)(self._matrices(Z)).reshape(Z.shape)

    def inverse_diagonal(self) -> Float[Array, "q"]:
        U, V = self.vectors**2, self.output_vectors**2
        return (inner(inner(U, (1 / self.spectrum()).T), V) / self.noise[None, :]).reshape(-1)

    def log_det(self) -> Float[Array, ""]:
        return _log_det(self)

    @property
    def factor(self) -> Any:
        raise ValueError(
            "The posterior of a full grid of outputs is solved by the Kronecker structure of its covariance and has no "
            "Cholesky factor, which feature errors, fantasies and room for more (`capacity`) need. Condition with "
            "`solver=Cholesky()`."
        )

    def spectrum(self) -> Float[Array, "n p"]:
        """Eigenvalues of D^{−½}AD^{−½}; at least 1."""
        return self.values[:, None] * self.output_values[None, :] + 1

    def log_density(self, r: Float[Array, "q"]) -> Float[Array, ""]:
        """log N(r | 0, A), with derivatives of first order."""
        return _log_density(self, self._matrices(r)[0])

    def is_definite(self) -> Bool[Array, ""]:
        """Whether A is positive definite in the precision of its dtype: the noise is above the rounding of its eigenvalues.

        Where it is not a dense factorisation would fail; here nothing does, but what comes out is rounding.
        """
        finite = jnp.all(jnp.isfinite(self.values)) & jnp.all(jnp.isfinite(self.output_values))
        return finite & (jnp.min(self.noise) > 0) & (self.rounding() <= 1)

    def rounding(self) -> Float[Array, ""]:
        """What an eigenvalue of D^{−½}AD^{−½}, of which the least is 1, may be off by: no unit enters."""
        return rounding_of(self.values, self.output_values)

    def _matrices(self, B: Float[Array, "*s q"]) -> Float[Array, "s n p"]:
        return B.reshape(math.prod(B.shape[:-1]), self.K.shape[0], self.B.shape[0])


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
def _log_det(factor: KroneckerFactor) -> Float[Array, ""]:
    return jnp.sum(jnp.log(factor.spectrum())) + factor.K.shape[0] * jnp.sum(jnp.log(factor.noise))


@_log_det.defjvp
def _log_det_jvp(primals, tangents):
    return _log_det(*primals), _trace(primals[0], tangents[0], lambda x: x)


def _trace(factor: KroneckerFactor, dfactor: KroneckerFactor, kept: Callable[[Array], Array]) -> Float[Array, ""]:
    """tr(A⁻¹ dA), of what is `kept` of the eigenvectors and all that is divided by."""
    U, V, inverse = map(kept, (factor.vectors, factor.output_vectors, 1 / factor.spectrum()))
    scale, per_noise = kept(1 / jnp.sqrt(factor.noise)), kept(1 / factor.noise)
    along = jnp.sum(U * inner(dfactor.K, U.T), axis=0)  # diag(UᵀdK U)
    turned = dfactor.B * scale[:, None] * scale[None, :]
    across = jnp.sum(V * inner(turned, V.T), axis=0)
    by_noise = jnp.sum(V * V * (dfactor.noise * per_noise)[:, None], axis=0)
    return (
        jnp.sum(along * jnp.sum(inverse * factor.output_values[None, :], axis=1))
        + jnp.sum(across * jnp.sum(inverse * factor.values[:, None], axis=0))
        + jnp.sum(by_noise * jnp.sum(inverse, axis=0))
    )


@jax.custom_jvp
def _log_density(factor: KroneckerFactor, R: Float[Array, "n p"]) -> Float[Array, ""]:
    value = -0.5 * jnp.sum(R * _solve(factor, R)) - 0.5 * _log_det(factor) - 0.5 * R.size * math.log(2 * math.pi)
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
    trace = _trace(factor, dfactor, zero_if_not)
    tangent = 0.5 * jnp.sum(alpha * _change(factor, dfactor, alpha)) - 0.5 * trace - jnp.sum(alpha * dR)
    return value, tangent
