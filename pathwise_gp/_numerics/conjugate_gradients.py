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
from jaxtyping import Array, Bool, Float, Int

from .lapack import cholesky, qr
from .linalg import CholeskyFactor, inner
from .solution import Report


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

    def _inside(self, V: Float[Array, "s n"]) -> Float[Array, "s n"]:
        along = inner(V, self.basis) * self.shrink[None, :]
        return V + inner(along, self.basis.T)


def preconditioner(rows: Float[Array, "k n"], diagonal: Float[Array, "n"]) -> Preconditioner:
    """Of RᵀR + D with few rows R: with R D^{−½} = U diag(σ) Z, (I + Zᵀσ²Z)^{−½} = I + Zᵀ((1 + σ²)^{−½} − 1)Z."""
    scale = 1 / jnp.sqrt(diagonal)
    Q, R = qr((rows * scale[None, :]).T)
    # From the singular values, not from their squares, of which single precision would lose the small ones.
    U, sigma, _ = jnp.linalg.svd(R, full_matrices=False)
    root = jnp.sqrt(1 + sigma * sigma)
    return Preconditioner(scale, inner(U.T, Q), 1 / root - 1)


class Found(NamedTuple):
    """**Fields:** `x`: `s n`; `residual`: B − A x, `s n`, computed from x; `report`."""

    x: Float[Array, "s n"]
    residual: Float[Array, "s n"]
    report: Report


class _Steps(NamedTuple):
    """**Fields:** `x`; `residual`, of the recurrence; `Q`, `P` and `C` above, as rows; how many `passes`; the `largest`
    residual; whether the recurrence is still `sound`; `history`."""

    x: Float[Array, "s n"]
    residual: Float[Array, "s n"]
    Q: Float[Array, "r n"]
    P: Float[Array, "r n"]
    C: Float[Array, "r s"]
    passes: Int[Array, ""]
    largest: Float[Array, ""]
    sound: Bool[Array, ""]
    history: Float[Array, "k 2"]


class _Rounds(NamedTuple):
    x: Float[Array, "s n"]
    residual: Float[Array, "s n"]
    passes: Int[Array, ""]
    largest: Float[Array, ""]
    before: Float[Array, ""]
    history: Float[Array, "k 2"]


def block_conjugate_gradients(
    matmul: Callable[[Float[Array, "s n"]], Float[Array, "s n"]],
    B: Float[Array, "s n"],
    E: Preconditioner,
    tolerance: float,
    max_passes: int,
    start: Float[Array, "s n"] | None = None,
) -> Found:
    """A⁻¹b for each vector b of B, until ‖b − Ax‖ ≤ tolerance·‖b‖ for each, or for `max_passes` products with A: `matmul`.

    What ends is the residual computed from x: where rounding has taken the recurrence away from it, it begins anew, as long
    as that halves the residual.
    """
    norm = jnp.sqrt(jnp.sum(B * B, axis=1))
    scale = jnp.where(norm > 0, norm, jnp.ones_like(norm))[:, None]
    B = B / scale
    history = jnp.full((max_passes + 1, 2), jnp.nan, B.dtype)
    x = jnp.zeros_like(B) if start is None else start / scale
    residual = B if start is None else B - matmul(x)

    def step(at: _Steps) -> _Steps:
        V = E(at.P)
        T = matmul(V)
        # α = (PᵀÂP)⁻¹ from the rows of V, for rounding: it is symmetric there.
        factor = CholeskyFactor(cholesky(inner(V, T)))
        alpha_C = factor.solve(at.C.T)  # Cᵀα, as rows
        x, residual = at.x + inner(alpha_C, V.T), at.residual - inner(alpha_C, T.T)
        T = E.transposed(T)
        Q, S = qr((at.Q - inner(factor.solve(jnp.eye(T.shape[0], dtype=T.dtype)), T.T)).T)
        largest, mean = _worst(residual)
        sound = jnp.isfinite(largest)
        keep = lambda new, old: jnp.where(sound, new, old)
        passes = at.passes + 1
        return _Steps(
            x=keep(x, at.x),
            residual=keep(residual, at.residual),
            Q=Q.T,
            P=Q.T + inner(S, at.P.T),
            C=inner(S, at.C.T),
            passes=passes,
            largest=keep(largest, at.largest),
            sound=sound,
            history=at.history.at[passes].set(jnp.stack([largest, mean])),
        )

    def going(at: _Steps) -> Bool[Array, ""]:
        return at.sound & (at.largest > tolerance) & (at.passes < max_passes)

    def from_residual(at: _Rounds) -> _Rounds:
        Q, C = qr(E.transposed(at.residual).T)
        first = _Steps(at.x, at.residual, Q.T, Q.T, C, at.passes, at.largest, jnp.ones((), bool), at.history)
        last = jax.lax.while_loop(going, step, first)
        residual = B - matmul(last.x)
        return _Rounds(last.x, residual, last.passes, _worst(residual)[0], at.largest, last.history)

    def worth_it(at: _Rounds) -> Bool[Array, ""]:
        return (at.largest > tolerance) & (at.largest < 0.5 * at.before) & (at.passes < max_passes)

    largest, mean = _worst(residual)
    first = _Rounds(
        x,
        residual,
        jnp.zeros((), int),
        largest,
        jnp.full_like(largest, jnp.inf),
        history.at[0].set(jnp.stack([largest, mean])),
    )
    last = jax.lax.while_loop(worth_it, from_residual, first)
    residuals = jnp.sqrt(jnp.sum(last.residual * last.residual, axis=1))
    report = Report(residuals, last.passes, jnp.all(residuals <= tolerance), last.history)
    return Found(last.x * scale, last.residual * scale, report)


def _worst(residual: Float[Array, "s n"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    norms = jnp.sqrt(jnp.sum(residual * residual, axis=1))
    return jnp.max(norms), jnp.mean(norms)
