"""What iterations for A x = b have in common: relative residuals, a start, and an end that is measured."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .solution import Report

Product = Callable[[Float[Array, "s *n"]], Float[Array, "s *n"]]


class Found(NamedTuple):
    """**Fields:** `x`: `s *n`; `residual`: B − A x, `s *n`, computed from x; `report`."""

    x: Float[Array, "s *n"]
    residual: Float[Array, "s *n"]
    report: Report


class Progress(NamedTuple):
    """**Fields:** `x`; `residual`: b − A x, as far as a recurrence knows it; how many `passes`; the `largest` norm of a
    residual; `history`, as in `Report`."""

    x: Float[Array, "s *n"]
    residual: Float[Array, "s *n"]
    passes: Int[Array, ""]
    largest: Float[Array, ""]
    history: Float[Array, "k 2"]

    def after_a_pass(self, x: Float[Array, "s *n"], residual: Float[Array, "s *n"]) -> "Progress":
        largest, mean = _norms(residual)
        passes = self.passes + 1
        return Progress(x, residual, passes, largest, self.history.at[passes].set(jnp.stack([largest, mean])))


def in_rounds(
    matmul: Product,
    B: Float[Array, "s *n"],
    tolerance: float,
    max_passes: int,
    start: Float[Array, "s *n"] | None,
    run: Callable[[Float[Array, "s *n"], Progress], Progress],
) -> Found:
    """A⁻¹b for each vector b of B, until ‖b − Ax‖ ≤ tolerance·‖b‖ for each, or for `max_passes` passes.

    `run` goes on, given right-hand sides of norm 1, until its recurrence says that it is done. What ends is the residual
    computed from x: where rounding has taken the recurrence away from it, `run` begins anew from there, as long as that
    halves the residual.
    """
    norm = _lengths(B)
    scale = jnp.where(norm > 0, norm, jnp.ones_like(norm)).reshape(-1, *(1,) * (B.ndim - 1))
    B = B / scale
    x = jnp.zeros_like(B) if start is None else start / scale
    residual = B if start is None else B - matmul(x)
    largest, mean = _norms(residual)
    history = jnp.full((max_passes + 1, 2), jnp.nan, B.dtype).at[0].set(jnp.stack([largest, mean]))
    first = Progress(x, residual, jnp.zeros((), int), largest, history)

    def one_round(state: tuple[Progress, Array]) -> tuple[Progress, Array]:
        at, _ = state
        last = run(B, at)
        residual = B - matmul(last.x)
        return last._replace(residual=residual, largest=_norms(residual)[0]), at.largest

    def worth_it(state: tuple[Progress, Array]) -> Bool[Array, ""]:
        at, before = state
        return (at.largest > tolerance) & (at.largest < 0.5 * before) & (at.passes < max_passes)

    last, _ = jax.lax.while_loop(worth_it, one_round, (first, jnp.full_like(largest, jnp.inf)))
    residuals = _lengths(last.residual)
    report = Report(residuals, last.passes, jnp.all(residuals <= tolerance), last.history)
    return Found(last.x * scale, last.residual * scale, report)


def _norms(residual: Float[Array, "s *n"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    norms = _lengths(residual)
    return jnp.max(norms), jnp.mean(norms)


def _lengths(V: Float[Array, "s *n"]) -> Float[Array, "s"]:
    return jnp.sqrt(jnp.sum(V * V, axis=tuple(range(1, V.ndim))))
