"""Work on many rows in blocks, so that temporaries stay bounded (and in the cache) whatever the number of rows."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_BLOCK_BYTES = 2**22


def map_rows(
    function: Callable[[Float[Array, "b d"]], Float[Array, "*s b"]], X: Float[Array, "n d"], width: int
) -> Float[Array, "*s n"]:
    """`function(X)` for a function that treats rows alike, a block of rows at a time.

    **Arguments:**

    - `function`: maps `b d` to `*s b`.
    - `X`: the rows.
    - `width`: entries of the largest temporary per row; a block's temporary takes about 4 MiB.

    **Returns:** `*s n`, the same as `function(X)`. Reverse-mode derivatives recompute a block's temporaries instead of
    keeping them.
    """
    n = X.shape[0]
    rows = max(64, _BLOCK_BYTES // (max(width, 1) * X.dtype.itemsize))
    n_blocks = -(-n // rows)
    if n_blocks <= 1:
        return function(X)
    rows = -(-n // n_blocks)  # even blocks: padding is less than one row a block
    # Padding repeats a real row, so that no value arises that the data could not have.
    padded = jnp.pad(X, ((0, n_blocks * rows - n), (0, 0)), mode="edge")
    blocks = jax.lax.map(jax.checkpoint(function), padded.reshape(n_blocks, rows, X.shape[1]))
    joined = jnp.moveaxis(blocks, 0, -2)
    return joined.reshape(*joined.shape[:-2], n_blocks * rows)[..., :n]
