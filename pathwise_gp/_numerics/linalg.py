"""Products, the jitter, Cholesky factors and the Gaussian log density."""

import math
from typing import Any, TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .lapack import change_of_factor, cholesky, eigh, one_at_a_time, solve_lower
from .solution import AbstractSolution, Solved

# Triangular matrices up to this size are inverted by substitution.
_SUBSTITUTION = 128


def inner(A: Float[Array, "n k"], B: Float[Array, "m k"]) -> Float[Array, "n m"]:
    """A Bᵀ in the full precision of the dtype (accelerators would round float32 factors to 10 bits)."""
    return jnp.matmul(A, B.T, precision=jax.lax.Precision.HIGHEST)


def add_diagonal(K: Float[Array, "n n"], diagonal: Float[Array, "n"]) -> Float[Array, "n n"]:
    return K + diagonal[:, None] * jnp.eye(K.shape[0], dtype=K.dtype)


def seen(K: Float[Array, "n n"], mask: Bool[Array, "n"] | None) -> Float[Array, "n n"]:
    """K with the rows and columns that are masked (False) those of the identity: factors, determinants and solves are then
    those of the block that is left."""
    if mask is None:
        return K
    return jnp.where(mask[:, None] & mask[None, :], K, jnp.eye(K.shape[0], dtype=K.dtype))


def _settle(
    A: Float[Array, "n n"],
    scale: Float[Array, "n"],
    floor: Float[Array, "n"],
    first: Float[Array, ""],
    bound: Float[Array, ""],
) -> tuple[Float[Array, "n n"], Float[Array, ""]]:
    """Lower Cholesky factor L of A + τ diag(scale), with as little τ as the factorisation needs: nothing, or `first` and then
    ten times more at each step, up to `bound`. A factor is enough where it is finite and no pivot Lᵢᵢ² is below `floor`.

    In a batch (under vmap) each matrix goes its own way.

    **Returns:** the factor, NaN where the bound was not enough; and τ.
    """

    def enough(lower: Array) -> Bool[Array, ""]:
        pivots = jnp.diagonal(lower)
        return jnp.all(jnp.isfinite(pivots) & (pivots * pivots >= floor))

    def failed(state: tuple[Array, Array, Array]) -> Bool[Array, ""]:
        lower, _, following = state
        return ~enough(lower) & (following <= bound)

    def add_more(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        _, _, more = state
        return cholesky(add_diagonal(A, more * scale)), more, 10 * more

    start = (cholesky(A), jnp.zeros_like(first), first)
    lower, tau, _ = jax.lax.while_loop(failed, add_more, start)
    return lower, tau


_settle_each = one_at_a_time(_settle)


@jax.custom_jvp
def settled_cholesky(
    A: Float[Array, "n n"],
    scale: Float[Array, "n"],
    floor: Float[Array, "n"],
    first: Float[Array, ""],
    bound: Float[Array, ""],
) -> tuple[Float[Array, "n n"], Float[Array, ""]]:
    """See `_settle`; with derivatives."""
    return _settle_each(A, scale, floor, first, bound)


@settled_cholesky.defjvp
def _settled_cholesky_jvp(primals, tangents):
    # A loop of unknown length has no reverse derivative, and how much is added does not vary: what differentiates is the
    # factor of the matrix that it ended with.
    lower, tau = settled_cholesky(*primals)
    return (lower, tau), (change_of_factor(lower, tangents[0]), jnp.zeros_like(tau))


@jax.custom_jvp
def guarded_cholesky(A: Float[Array, "n n"]) -> tuple[Float[Array, "n n"], Bool[Array, ""]]:
    """Lower Cholesky factor of A, and whether there is one: if not, the identity stands for it, with zero derivatives, so
    that nothing made of it is NaN."""
    lower = cholesky(A)
    ok = jnp.all(jnp.isfinite(jnp.diagonal(lower)))
    return jnp.where(ok, lower, jnp.eye(A.shape[0], dtype=A.dtype)), ok


@guarded_cholesky.defjvp
def _guarded_cholesky_jvp(primals, tangents):
    lower, ok = guarded_cholesky(*primals)
    dlower = jnp.where(ok, change_of_factor(lower, tangents[0]), jnp.zeros_like(lower))
    no_tangent: Any = np.zeros((), jax.dtypes.float0)
    return (lower, ok), (dlower, no_tangent)


def semidefinite_part(A: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """A symmetric matrix with what is below zero left out: V max(Λ, 0) Vᵀ."""
    return jnp.maximum(A, 0) if A.shape[0] == 1 else _semidefinite_part(A)


@jax.custom_jvp
def _semidefinite_part(A: Float[Array, "n n"]) -> Float[Array, "n n"]:
    values, vectors = eigh(A)
    return inner(vectors * jnp.maximum(values, 0)[None, :], vectors)


@_semidefinite_part.defjvp
def _semidefinite_part_jvp(primals, tangents):
    # V (F ∘ VᵀdA V) Vᵀ with F the divided differences of max(λ, 0), which exist where eigenvalues are equal (Higham 2008,
    # theorem 3.11).
    values, vectors = eigh(*primals)
    kept, size = jnp.maximum(values, 0), jnp.abs(values)
    sums, sizes = kept[:, None] + kept[None, :], size[:, None] + size[None, :]
    differences = jnp.where(sizes > 0, sums / jnp.where(sizes > 0, sizes, jnp.ones_like(sizes)), jnp.zeros_like(sizes))
    inside = differences * inner(inner(vectors.T, tangents[0].T), vectors.T)
    return _semidefinite_part(*primals), inner(inner(vectors, inside), vectors)


class CholeskyFactor(AbstractSolution):
    """A = L Lᵀ by its lower factor L, shape `n n`. Right-hand sides carry the n axis last.

    With a `mask`, `n`, A is what `seen` makes of it, and entries of right-hand sides that are masked count as 0.
    """

    lower: Float[Array, "n n"]
    mask: Bool[Array, "n"] | None = None

    if TYPE_CHECKING:
        # A checker puts the field that the abstract class names first.

        def __init__(self, lower: Float[Array, "n n"], mask: Bool[Array, "n"] | None = None) -> None: ...

    def whiten(self, B: Float[Array, "*s n"]) -> Float[Array, "*s n"]:
        """L⁻¹ b for each vector b of B."""
        return self._triangular(self._seen(B), transpose=False)

    def solve(self, B: Float[Array, "*s n"]) -> Float[Array, "*s n"]:
        """A⁻¹ b for each vector b of B."""
        return self.whiten_back(self.whiten(B))

    def whiten_back(self, B: Float[Array, "*s n"]) -> Float[Array, "*s n"]:
        """L⁻ᵀ b for each vector b of B: `solve` is this of `whiten`."""
        return self._triangular(B, transpose=True)

    def colour(self, Z: Float[Array, "*s n"]) -> Float[Array, "*s n"]:
        """L z for each vector z of Z."""
        return inner(_rows(Z), self.lower).reshape(Z.shape)

    @property
    def grows(self) -> bool:
        return True

    def solved(self, B: Float[Array, "*s n"], start: Float[Array, "*s n"] | None = None) -> Solved:
        return Solved(self.solve(B), None)

    def explained(self, B: Float[Array, "s n"]) -> Float[Array, "s"]:
        white = self.whiten(B)
        return jnp.sum(white * white, axis=1)

    def between(self, B: Float[Array, "s n"], C: Float[Array, "r n"] | None = None) -> Float[Array, "s r"]:
        white = self.whiten(B)
        return inner(white, white if C is None else self.whiten(C))

    @property
    def factor(self) -> "CholeskyFactor":
        return self

    def inverse_rows(self, places: Int[Array, "m"], at_the_end: bool) -> Float[Array, "m n"]:
        m, n = places.shape[0], self.lower.shape[0]
        unit = jnp.eye(m, dtype=self.lower.dtype)
        if not at_the_end:
            return self.solve(jnp.zeros((m, n), unit.dtype).at[:, places].set(unit))
        # Of places at the end L⁻¹E is 0 above them, and one solve less is to be made.
        if (
            m == 1
        ):  # to a slice of one entry each layout is as good: XLA would turn the factor round in each step of a loop
            corner = jnp.diagonal(self.lower)[places][:, None]
        else:
            corner = jax.lax.dynamic_slice(self.lower, (places[0], places[0]), (m, m))
        white = jnp.zeros((m, n), unit.dtype)
        white = jax.lax.dynamic_update_slice_in_dim(white, CholeskyFactor(corner).whiten(unit), places[0], axis=1)
        return self.whiten_back(white)

    def inverse_diagonal(self) -> Float[Array, "n"]:
        """The diagonal of A⁻¹."""
        return jnp.sum(_triangular_inverse(self.lower) ** 2, axis=0)

    def log_det(self) -> Float[Array, ""]:
        """log |A|."""
        return 2 * jnp.sum(jnp.log(jnp.diagonal(self.lower)))

    def is_finite(self) -> Bool[Array, ""]:
        """Whether the factorisation succeeded."""
        return jnp.all(jnp.isfinite(jnp.diagonal(self.lower)))

    def _triangular(self, B: Float[Array, "*s n"], *, transpose: bool) -> Float[Array, "*s n"]:
        return solve_lower(self.lower, _rows(B).T, transpose=transpose).T.reshape(B.shape)


def _rows(B: Float[Array, "*s n"]) -> Float[Array, "s n"]:
    """All leading axes made one (where n is 0 their product cannot be left to `reshape`)."""
    return B.reshape(math.prod(B.shape[:-1]), B.shape[-1])


def inverse_factor(A: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Lower-triangular T with A⁻¹ = T Tᵀ, for a symmetric positive definite A.

    With both axes reversed a lower factor becomes an upper one: A = U Uᵀ, and T = U⁻ᵀ.
    """
    upper = cholesky(A[::-1, ::-1])[::-1, ::-1]
    return _triangular_inverse(upper.T)


def _triangular_inverse(L: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """L⁻¹ by halves, so that the work is done by matrix products, which run several times faster than substitution."""
    n = L.shape[0]
    if n <= _SUBSTITUTION:
        return solve_lower(L, jnp.eye(n, dtype=L.dtype))
    half = n // 2
    top, bottom = _triangular_inverse(L[:half, :half]), _triangular_inverse(L[half:, half:])
    corner = -inner(bottom, inner(top.T, L[half:, :half]))  # inner(A, B) is A Bᵀ
    return jnp.block([[top, jnp.zeros_like(L[:half, half:])], [corner, bottom]])


def inverse(L: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """(L Lᵀ)⁻¹ by halves, of which each is a solve and two products: less work than L⁻¹ and L⁻ᵀL⁻¹, one after the other.

    With W = L₂₁L₁₁⁻¹ and P the inverse of L₂₂L₂₂ᵀ the blocks are (L₁₁L₁₁ᵀ)⁻¹ + WᵀPW, −PW and P.
    """
    n = L.shape[0]
    if n <= _SUBSTITUTION:
        T = solve_lower(L, jnp.eye(n, dtype=L.dtype))
        return inner(T.T, T.T)
    half = n // 2
    first = L[:half, :half]
    Wt = solve_lower(first, L[half:, :half].T, transpose=True)
    last = inverse(L[half:, half:])
    corner = inner(last, Wt)
    return jnp.block([[inverse(first) + inner(Wt, corner.T), -corner.T], [-corner, last]])


@jax.custom_jvp
def gaussian_log_density(K: Float[Array, "n n"], residual: Float[Array, "n"]) -> Float[Array, ""]:
    """log N(residual | 0, K).

    Where K is not positive definite the value is −inf and every derivative is zero, so that a sampler rejects the
    step instead of carrying a NaN along. Its derivative, ½ tr((ααᵀ − K⁻¹) dK) with α = K⁻¹ residual (Rasmussen &
    Williams 2006, equation 5.9), holds to any order.
    """
    return _density(K, residual)


# All of it for one matrix after the other: in a batch that is faster than one step after the other, for the caches.
@one_at_a_time
def _density(K: Float[Array, "n n"], residual: Float[Array, "n"]) -> Float[Array, ""]:
    return density_of(CholeskyFactor(cholesky(K)), residual)


@jax.custom_jvp
def _density_and_precision(
    K: Float[Array, "n n"], residual: Float[Array, "n"]
) -> tuple[Float[Array, ""], Float[Array, "n n"]]:
    """The log density and K⁻¹ from one factorisation; K⁻¹ is zero where K is not positive definite."""
    return _density_and_precision_each(K, residual)


@one_at_a_time
def _density_and_precision_each(
    K: Float[Array, "n n"], residual: Float[Array, "n"]
) -> tuple[Float[Array, ""], Float[Array, "n n"]]:
    factor = CholeskyFactor(cholesky(K))
    precision = inverse(factor.lower)
    return density_of(factor, residual), jnp.where(factor.is_finite(), precision, jnp.zeros_like(precision))


def density_of(factor: CholeskyFactor, residual: Float[Array, "n"]) -> Float[Array, ""]:
    """log N(residual | 0, A) from the factor of A; −inf where there is none."""
    white = factor.whiten(residual)
    n = residual.shape[0]
    value = -0.5 * jnp.sum(white * white) - 0.5 * factor.log_det() - 0.5 * n * math.log(2 * math.pi)
    return jnp.where(factor.is_finite(), value, -jnp.inf)


@gaussian_log_density.defjvp
def _gaussian_log_density_jvp(primals, tangents):
    (value, _), (tangent, _) = jax.jvp(_density_and_precision, primals, tangents)
    return value, tangent


@_density_and_precision.defjvp
def _density_and_precision_jvp(primals, tangents):
    (K, residual), (dK, dresidual) = primals, tangents
    value, P = _density_and_precision(K, residual)
    alpha = inner(P, residual[None, :])[:, 0]
    tangent = 0.5 * jnp.sum((alpha[:, None] * alpha[None, :] - P) * dK) - jnp.sum(alpha * dresidual)
    return (value, P), (tangent, -inner(inner(P, dK), P))  # P and dK are symmetric
