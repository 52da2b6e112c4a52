"""Pivoted Cholesky factorisation, which looks at as many rows of a matrix as it takes steps."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._types import Key


class Pivots(NamedTuple):
    """K ≈ RᵀR by m rows of K.

    **Fields:** `chosen`: their numbers, all different, in the order of the choice, `m`; `rows`: R, `m n`, of which column
    `chosen[i]` is 0 below entry i; `found`: False where rounding was all that was left, and the row of R is 0, `m`.
    """

    chosen: Int[Array, "m"]
    rows: Float[Array, "m n"]
    found: Bool[Array, "m"]


class Largest(NamedTuple):
    """The largest of some scores: its `number`, and what other arrays have there, `column`."""

    number: Int[Array, ""]
    column: Float[Array, "k"]


def largest(scores: Float[Array, "n"], *values: Float[Array, "..."]) -> Largest:
    """Of arrays whose last axis is that of the scores."""
    number = jnp.argmax(scores)
    at = lambda array: jnp.take(array.reshape(-1, array.shape[-1]), number[None], axis=1, mode="clip")[:, 0]
    return Largest(number, jnp.concatenate([at(array) for array in values]))


def pivoted_cholesky(
    row: Callable[[Int[Array, ""]], Float[Array, "n"]],
    diagonal: Float[Array, "n"],
    m: int,
    key: Key | None = None,
    largest: Callable[..., Largest] = largest,
) -> Pivots:
    """Each row is that of the largest variance given those before, or, with a key, one drawn in proportion to what is left
    of the variances (Chen et al. 2024, algorithm 2.1): `row(i)` gives row i of K. In O(n m²)."""
    n = diagonal.shape[0]
    rounding = n * jnp.finfo(diagonal.dtype).eps * diagonal

    def step(i: Int[Array, ""], state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        rows, left, chosen, found = state
        score = left
        if key is not None:
            # The largest of logarithms with Gumbel noise is a draw in proportion.
            noise = jax.random.gumbel(jax.random.fold_in(key, i), (n,), diagonal.dtype)
            score = jnp.log(jnp.maximum(left, 0)) + noise
        pivot, column = largest(score, left, rounding, rows)
        variance = column[0]
        enough = variance > column[1]
        new = (row(pivot) - column[2:] @ rows) / jnp.sqrt(jnp.where(enough, variance, jnp.ones_like(variance)))
        new = jnp.where(enough, new, jnp.zeros_like(new))
        # A row is chosen once, also where rounding is all that is left.
        left = jnp.where(left == -jnp.inf, left, jnp.maximum(left - new * new, 0)).at[pivot].set(-jnp.inf)
        return rows.at[i].set(new), left, chosen.at[i].set(pivot), found.at[i].set(enough)

    start = (jnp.zeros((m, n), diagonal.dtype), diagonal, jnp.zeros((m,), int), jnp.zeros((m,), bool))
    rows, _, chosen, found = jax.lax.fori_loop(0, m, step, start)
    return Pivots(chosen, rows, found)
