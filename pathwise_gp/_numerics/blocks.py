"""Work on many rows in blocks, so that temporaries stay bounded (and in the cache) whatever the number of rows."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .. import _checks

# Large enough for the matrix products to run at full speed, small enough for the cache and to be of no account.
_BLOCK_BYTES = 12 * 2**20


def map_rows(
    function: Callable[[Float[Array, "b d"]], Float[Array, "..."]],
    X: Float[Array, "n d"],
    width: int,
    block_bytes: int | None = None,
    axis: int = -1,
) -> Float[Array, "..."]:
    """`function(X)` for a function that treats rows alike, a block of rows at a time.

    **Arguments:**

    - `function`: maps `b d` to `*s b`.
    - `X`: the rows.
    - `width`: entries of the largest temporary per row.
    - `block_bytes`: what a block's temporary may take, where that is more than 64 rows of it; 12 MiB unless given.
    - `axis`: 0 where the function maps to `b *s`.

    **Returns:** `*s n`, the same as `function(X)`. Reverse-mode derivatives recompute a block's temporaries instead of
    keeping them.
    """
    n = X.shape[0]
    rows, starts = _even(n, max(width, 1) * X.dtype.itemsize, block_bytes)
    if rows == n:
        return function(X)

    def write(result: Float[Array, "..."], start: Int[Array, ""]) -> tuple[Float[Array, "..."], None]:
        # Into the result, of which there is no second copy.
        values = jax.checkpoint(function, prevent_cse=False)(jax.lax.dynamic_slice_in_dim(X, start, rows))
        return jax.lax.dynamic_update_slice_in_dim(result, values, start, axis=axis), None

    one = jax.eval_shape(function, X[:rows])
    shape = (*one.shape[:-1], n) if axis == -1 else (n, *one.shape[1:])
    result, _ = jax.lax.scan(write, jnp.zeros(shape, one.dtype), jnp.asarray(starts))
    return result


def matrix_by_rows(
    function: Callable[[Float[Array, "b d"]], Float[Array, "b m"]], X: Float[Array, "n d"], width: int
) -> Float[Array, "n m"]:
    """`map_rows` for a matrix of which each row belongs to one of X: its reverse-mode derivative takes the cotangent a block
    at a time from where it is, of which `map_rows` makes a copy, and there may be a second copy of the result."""
    n = X.shape[0]
    rows, starts = _even(n, max(width, 1) * X.dtype.itemsize, None)
    if rows == n:
        return function(X)
    block = lambda start: function(jax.lax.dynamic_slice_in_dim(X, start, rows))
    blocks = jax.lax.map(jax.checkpoint(block, prevent_cse=False), jnp.asarray(starts))
    again = len(starts) * rows - n
    if again == 0:
        return blocks.reshape(n, -1)
    return jnp.concatenate([blocks[:-1].reshape(-1, blocks.shape[-1]), blocks[-1, again:]])


def _even(n: int, row_bytes: int, block_bytes: int | None) -> tuple[int, np.ndarray]:
    """The rows of each of some blocks of one size, and where they start: the last one overlaps the one before it."""
    n_blocks = -(-n // max(64, (_BLOCK_BYTES if block_bytes is None else block_bytes) // row_bytes))
    rows = -(-n // max(1, n_blocks))
    return rows, np.minimum(np.arange(-(-n // max(1, rows))) * rows, n - rows)


def as_bytes(block_bytes: Any) -> int | None:
    """A number of bytes, or None."""
    return None if block_bytes is None else _checks.count(block_bytes, "block_bytes")
