"""The box in which a basis holds."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# By how much of its width the range of the data is widened on each side.
_MARGIN = 0.25


def widened(X: Float[Array, "n d"]) -> tuple[Float[Array, "d"], Float[Array, "d"]]:
    """The corners of the range of some points, widened by a quarter on each side."""
    lower, upper = jnp.min(X, axis=0), jnp.max(X, axis=0)
    margin = _MARGIN * (upper - lower)
    return lower - margin, upper + margin


def inside(X: Float[Array, "n d"], lower: Float[Array, "d"], upper: Float[Array, "d"]) -> Bool[Array, ""]:
    """Whether all points are in a box, which is widened by rounding, so that its corners are inside."""
    slack = 1e-4 * (upper - lower)
    low, high = (corner.astype(X.dtype)[None, :] for corner in (lower - slack, upper + slack))
    return jnp.all((low <= X) & (high >= X))
