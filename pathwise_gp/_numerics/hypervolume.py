"""Volumes dominated by points of two or three coordinates, all of which are to be large."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Points that are compared with all others at once.
_ROWS = 128


class Staircase(NamedTuple):
    """What a front leaves undominated above a reference, as strips in x, cut into slabs in z, each above a height in y.

    Strip i lies between the edges x_i and x_{i+1}, with x_0 infinite, and slab k between z_k and z_{k+1}: there y is free
    above the height Y_ki = max {y_j : x_j ≥ x_i, z_j ≥ z_k}. Two coordinates are one slab.

    **Fields:** `x`: x_1, …, x_m and the reference; `z`: as `x`, or None; `heights`: Y, slabs by strips.
    """

    x: Float[Array, "*s i"]
    z: Float[Array, "*s k"] | None
    heights: Float[Array, "*s k i"]


def staircase(front: Float[Array, "m p"], reference: Float[Array, "p"]) -> Staircase:
    """That of points, of which some may be dominated, equal, or no better than the reference: their strips have no width.

    **Arguments:** `front`: `m p` with p = 2 or 3; `reference`. **Returns:** m + 1 strips, and as many slabs of p = 3.
    """
    front = jnp.maximum(jnp.concatenate([front, reference[None]]), reference[None])
    front = front[jnp.argsort(-front[:, 0])]
    under = lambda y: jnp.concatenate([reference[1:2], jax.lax.cummax(y)[:-1]])
    if front.shape[1] == 2:
        return Staircase(front[:, 0], None, under(front[:, 1])[None])
    z = -jnp.sort(-front[:, 2])
    # Points that do not reach a slab have the height of the reference there.
    heights = jax.vmap(lambda z_k: under(jnp.where(front[:, 2] >= z_k, front[:, 1], reference[1])))(z)
    top = jnp.full((1, front.shape[0]), reference[1], front.dtype)
    return Staircase(front[:, 0], z, jnp.concatenate([top, heights[:-1]]))


def volume_beyond(
    stairs: Staircase, point: Float[Array, "p"], above: Callable[[Float[Array, "..."], int], Float[Array, "..."]]
) -> Float[Array, ""]:
    """What a point dominates beyond a front: Σ_ki [a(x − x_{i+1}) − a(x − x_i)] [a(z − z_{k+1}) − a(z − z_k)] a(y − Y_ki).

    **Arguments:** `stairs`; `point`; `above`: the positive part a, of differences in the coordinate of a number; a convex and
    increasing function that is smooth in its place makes the volume smooth, and positive everywhere.
    """
    parts = lambda gap, i: above(gap, i) - jnp.concatenate([jnp.zeros(1, gap.dtype), above(gap, i)[:-1]])
    widths = parts(point[0] - stairs.x, 0)
    slabs = jnp.ones(1, widths.dtype) if stairs.z is None else parts(point[2] - stairs.z, 2)

    def add(total: Float[Array, ""], slab: tuple[Array, Array]) -> tuple[Float[Array, ""], None]:
        depth, heights = slab
        return total + depth * jnp.sum(widths * above(point[1] - heights, 1)), None

    total, _ = jax.lax.scan(jax.checkpoint(add), jnp.zeros((), widths.dtype), (slabs, stairs.heights))
    return total


def volume_of(points: Float[Array, "m p"], reference: Float[Array, "p"]) -> Float[Array, ""]:
    """What points dominate above a reference."""
    x, z, heights = staircase(points, reference)
    widths = x[:-1] - x[1:]
    depths = jnp.ones(1, x.dtype) if z is None else z[:-1] - z[1:]
    below = heights[-depths.size :, 1:] - reference[1]
    return jnp.sum(depths[:, None] * widths[None, :] * below)


def undominated(points: Float[Array, "m p"]) -> Bool[Array, "m"]:
    """Whether no other point is as large in all coordinates and larger in one. Equal points do not dominate each other; one
    with a NaN is dominated, and dominates none."""
    unknown = jnp.any(jnp.isnan(points), axis=1)

    def free(point: Float[Array, "p"]) -> Bool[Array, ""]:
        as_large, larger = points >= point[None], points > point[None]
        return ~jnp.any(jnp.all(as_large, axis=1) & jnp.any(larger, axis=1))

    return jax.lax.map(free, points, batch_size=min(_ROWS, points.shape[0])) & ~unknown
