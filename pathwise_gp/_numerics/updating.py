"""Cholesky factors of matrices that lose rows."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def without_rows(lower: Float[Array, "n n"], numbers: Int[Array, "k"]) -> Float[Array, "n n"]:
    """The lower factor of a matrix some of whose rows and columns are made those of the identity, in O(n²) for each.

    What row i said of those below it is theirs again: their block L of the factor becomes that of L Lᵀ + l lᵀ, with l the
    entries of column i below the diagonal.
    """

    def without_one(upper: Float[Array, "n n"], i: Int[Array, ""]) -> tuple[Float[Array, "n n"], None]:
        here = jnp.arange(upper.shape[0]) == i
        below = jnp.where(jnp.arange(upper.shape[0]) > i, upper[i], jnp.zeros_like(upper[i]))
        upper = jnp.where(here[:, None] | here[None, :], jnp.eye(upper.shape[0], dtype=upper.dtype), upper)
        return _with_more(upper, below), None

    # By rows of Lᵀ, which lie in one piece in memory.
    upper, _ = jax.lax.scan(without_one, lower.T, numbers)
    return upper.T


def _with_more(upper: Float[Array, "n n"], x: Float[Array, "n"]) -> Float[Array, "n n"]:
    """The upper factor of UᵀU + x xᵀ, by one rotation for each row (Gill et al. 1974, method C1)."""

    def rotate(x: Float[Array, "n"], at: tuple[Int[Array, ""], Float[Array, "n"]]) -> tuple[Array, Array]:
        j, row = at
        radius = jnp.sqrt(row[j] * row[j] + x[j] * x[j])
        cosine, sine = row[j] / radius, x[j] / radius
        return cosine * x - sine * row, cosine * row + sine * x

    return jax.lax.scan(rotate, x, (jnp.arange(x.shape[0]), upper))[1]
