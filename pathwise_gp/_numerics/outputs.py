"""Values of several outputs, of which each input has its own."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .linalg import inner


def inner_of_each(V: Float[Array, "s p f"], rows: Float[Array, "n f"]) -> Float[Array, "s p n"]:
    """The inner products of the vectors of each output with all rows."""
    s, p, f = V.shape
    return inner(V.reshape(s * p, f), rows).reshape(s, p, rows.shape[0])


def own_output(values: Float[Array, "s p n"], numbers: Float[Array, "n"]) -> Float[Array, "s n"]:
    """Of the values of all outputs at each input that of its own."""
    return jnp.take_along_axis(values, numbers.astype(int)[None, None, :], axis=1)[:, 0]
