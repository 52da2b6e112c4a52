"""Preconditioned conjugate gradients for a block of right-hand sides, which share their search directions.

With E Eᵀ the preconditioner, Â x̂ = Eᵀ b with Â = Eᵀ A E is solved for all columns at once. With residuals R = Q C, Q
orthonormal, the step is

    P ← Q + P Sᵀ,  α = (Pᵀ Â P)⁻¹,  X ← X + P α C,  Q S ← Q − Â P α (a QR factorisation),  C ← S C

(Dubrulle 2001, algorithm BCGrQ), which does not break down where some columns converge before others or depend on each other.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .iterations import Found, in_rounds, Product, Progress
from .lapack import cholesky, Orthogonal, qr, singular
from .linalg import CholeskyFactor, inner

# How a matrix with many rows is taken apart.
Triangular = Callable[[Float[Array, "n k"]], Orthogonal]


class Preconditioner(eqx.Module):
    """E = D^{−½}(I + Zᵀ diag(shrink) Z) with E Eᵀ = (RᵀR + D)⁻¹, for R of few rows.

    **Fields:** `scale`: D^{−½}, `n`; `basis`: Z, orthonormal rows, `k n`; `shrink`: `k`.
    """

    scale: Float[Array, "n"]
    basis: Float[Array, "k n"]
    shrink: Float[Array, "k"]

    def __call__(self, V: Float[Array, "s n"]) -> Float[Array, "s n"]:
        """E v for each vector v of V."""
        return self._inside(V) * self.scale[None, :]

    def transposed(self, V: Float[Array, "s n"]) -> Float[Array, "s n"]:
        """Eᵀv."""
        return self._inside(V * self.scale[None, :])

    def inverse_transposed(self, V: Float[Array, "s n"]) -> Float[Array, "s n"]:
        """E⁻ᵀv: of standard normal vectors, draws with the covariance RᵀR + D."""
        along = inner(V, self.basis) * (1 / (1 + self.shrink) - 1)[None, :]
        return (V + inner(along, self.basis.T)) / self.scale[None, :]

    def log_det(self) -> Float[Array, ""]:
        """log |RᵀR + D|."""
        return -2 * (jnp.sum(jnp.log(self.scale)) + jnp.sum(jnp.log1p(self.shrink)))

    def _inside(self, V: Float[Array, "s n"]) -> Float[Array, "s n"]:
        along = inner(V, self.basis) * self.shrink[None, :]
        return V + inner(along, self.basis.T)


def preconditioner(rows: Float[Array, "k n"], diagonal: Float[Array, "n"], qr: Triangular = qr) -> Preconditioner:
    """Of RᵀR + D with few rows R: with R D^{−½} = U diag(σ) Z, (I + Zᵀσ²Z)^{−½} = I + Zᵀ((1 + σ²)^{−½} − 1)Z."""
    scale = 1 / jnp.sqrt(diagonal)
    Q, R = qr((rows * scale[None, :]).T)
    # From the singular values, not from their squares, of which single precision would lose the small ones.
    U, sigma = singular(R)
    root = jnp.sqrt(1 + sigma * sigma)
    return Preconditioner(scale, inner(U.T, Q), 1 / root - 1)


class _Steps(NamedTuple):
    """**Fields:** `at`; `Q`, `P` and `C` above, as rows; whether the recurrence is still `sound`."""

    at: Progress
    Q: Float[Array, "r n"]
    P: Float[Array, "r n"]
    C: Float[Array, "r s"]
    sound: Bool[Array, ""]


def block_conjugate_gradients(
    matmul: Product,
    B: Float[Array, "s n"],
    E: Preconditioner,
    tolerance: float,
    max_passes: int,
    start: Float[Array, "s n"] | None = None,
    qr: Triangular = qr,
) -> Found:
    """`in_rounds`, of block conjugate gradients."""

    def step(steps: _Steps) -> _Steps:
        at = steps.at
        V = E(steps.P)
        T = matmul(V)
        # α = (PᵀÂP)⁻¹ from the rows of V, for rounding: it is symmetric there.
        factor = CholeskyFactor(cholesky(inner(V, T)))
        alpha_C = factor.solve(steps.C.T)  # Cᵀα, as rows
        new = at.after_a_pass(at.x + inner(alpha_C, V.T), at.residual - inner(alpha_C, T.T))
        alpha = factor.solve(jnp.eye(T.shape[0], dtype=T.dtype))
        Q, S = qr((steps.Q - inner(alpha, E.transposed(T).T)).T)
        sound = jnp.isfinite(new.largest)
        keep = lambda new, old: jnp.where(sound, new, old)
        new = new._replace(
            x=keep(new.x, at.x), residual=keep(new.residual, at.residual), largest=keep(new.largest, at.largest)
        )
        return _Steps(new, Q.T, Q.T + inner(S, steps.P.T), inner(S, steps.C.T), sound)

    def going(steps: _Steps) -> Bool[Array, ""]:
        return steps.sound & (steps.at.largest > tolerance) & (steps.at.passes < max_passes)

    def run(_: Float[Array, "s n"], at: Progress) -> Progress:
        Q, C = qr(E.transposed(at.residual).T)
        return jax.lax.while_loop(going, step, _Steps(at, Q.T, Q.T, C, jnp.ones((), bool))).at

    return in_rounds(matmul, B, tolerance, max_passes, start, run)
