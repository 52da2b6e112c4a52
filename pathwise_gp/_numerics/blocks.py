"""Work on many rows in blocks, so that temporaries stay bounded (and in the cache) whatever the number of rows."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .. import _checks

# Large enough for the matrix products to run at full speed, small enough for the cache and to be of no account.
_BLOCK_BYTES = 12 * 2**20


def map_rows(
    function: Callable[[Float[Array, "b d"]], Float[Array, "*s b"]],
    X: Float[Array, "n d"],
    width: int,
    block_bytes: int | None = None,
) -> Float[Array, "*s n"]:
    """`function(X)` for a function that treats rows alike, a block of rows at a time.

    **Arguments:**

    - `function`: maps `b d` to `*s b`.
    - `X`: the rows.
    - `width`: entries of the largest temporary per row.
    - `block_bytes`: what a block's temporary may take, where that is more than 64 rows of it; 12 MiB unless given.

    **Returns:** `*s n`, the same as `function(X)`. Reverse-mode derivatives recompute a block's temporaries instead of
    keeping them.
    """
    n = X.shape[0]
    at_most = _BLOCK_BYTES if block_bytes is None else block_bytes
    rows = max(64, at_most // (max(width, 1) * X.dtype.itemsize))
    n_blocks = -(-n // rows)
    if n_blocks <= 1:
        return function(X)
    rows = -(-n // n_blocks)  # even blocks
    starts = jnp.minimum(jnp.arange(n_blocks) * rows, n - rows)  # the last one overlaps the one before it

    def write(result: Float[Array, "*s n"], start: Int[Array, ""]) -> tuple[Float[Array, "*s n"], None]:
        # Into the result, of which there is no second copy.
        values = jax.checkpoint(function, prevent_cse=False)(jax.lax.dynamic_slice_in_dim(X, start, rows))
        return jax.lax.dynamic_update_slice_in_dim(result, values, start, axis=-1), None

    one = jax.eval_shape(function, X[:rows])
    result, _ = jax.lax.scan(write, jnp.zeros((*one.shape[:-1], n), one.dtype), starts)
    return result


def as_bytes(block_bytes: Any) -> int | None:
    """A number of bytes, or None."""
    return None if block_bytes is None else _checks.count(block_bytes, "block_bytes")
