"""Pivoted Cholesky factorisation, which looks at as many rows of a matrix as it takes steps."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Pivots(NamedTuple):
    """K ≈ RᵀR by m rows of K.

    **Fields:** `chosen`: their numbers, all different, in the order of the choice, `m`; `rows`: R, `m n`, of which column
    `chosen[i]` is 0 below entry i; `found`: False where rounding was all that was left, and the row of R is 0, `m`.
    """

    chosen: Int[Array, "m"]
    rows: Float[Array, "m n"]
    found: Bool[Array, "m"]


def pivoted_cholesky(row: Callable[[Int[Array, ""]], Float[Array, "n"]], diagonal: Float[Array, "n"], m: int) -> Pivots:
    """Each row is that of the largest variance given those before: `row(i)` gives row i of K. In O(n m²)."""
    n = diagonal.shape[0]
    rounding = n * jnp.finfo(diagonal.dtype).eps * diagonal

    def step(i: Int[Array, ""], state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        rows, left, chosen, found = state
        pivot = jnp.argmax(left)
        enough = left[pivot] > rounding[pivot]
        new = (row(pivot) - rows[:, pivot] @ rows) / jnp.sqrt(
            jnp.where(enough, left[pivot], jnp.ones_like(left[pivot]))
        )
        new = jnp.where(enough, new, jnp.zeros_like(new))
        # A row is chosen once, also where rounding is all that is left.
        left = jnp.where(left == -jnp.inf, left, jnp.maximum(left - new * new, 0)).at[pivot].set(-jnp.inf)
        return rows.at[i].set(new), left, chosen.at[i].set(pivot), found.at[i].set(enough)

    start = (jnp.zeros((m, n), diagonal.dtype), diagonal, jnp.zeros((m,), int), jnp.zeros((m,), bool))
    rows, _, chosen, found = jax.lax.fori_loop(0, m, step, start)
    return Pivots(chosen, rows, found)
