"""Functions that treat points one by one, a block of points at a time."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks
from .blocks import map_rows

# Points that are worked on at once: enough for matrix products to run at full speed.
_POINTS = 2048
_SOME = 64  # points, to find shapes with


class Axes(NamedTuple):
    """The axes of the values of a function at many points, `*s *n *v`, but for those of the points."""

    paths: tuple[int, ...]
    components: tuple[int, ...]


def as_points(X: Any) -> Array:
    """Inputs of shape (*n, d), where the dimension is not known."""
    X = _checks.floating(X, "X")
    if X.ndim == 0 or X.shape[-1] == 0:
        raise ValueError(f"The last axis of `X` must be the input dimension; got shape {X.shape}.")
    return X


def as_array(values: Any, like: Float[Array, "..."], name: str) -> Array:
    """What a function returned, which may be numbers or a list of arrays; whole numbers and truth values as real ones."""
    try:
        values = jnp.asarray(values)
    except (TypeError, ValueError) as e:
        raise ValueError(f"`{name}` must return an array of numbers; it returned {type(values).__name__}.") from e
    # Weights, a level, directions would be rounded to the whole numbers of the values.
    return values if jnp.issubdtype(values.dtype, jnp.inexact) else values.astype(like.dtype)


def real(function: Callable[..., Any], name: str = "paths") -> Callable[[Any], Array]:
    """The function, with values that are an array of inexact numbers whatever it returns."""
    return lambda X: as_array(function(X), X, name)


def find_axes(function: Callable[..., Any], X: Float[Array, "*n d"], name: str = "paths") -> Axes:
    """Axes of the values of a function of many points, found from their shapes at two numbers of points.

    **Raises:** ValueError where it does not treat points one by one: no axis of the values grows with the points.
    """
    one, two = (
        eqx.filter_eval_shape(real(function, name), jax.ShapeDtypeStruct((n, X.shape[-1]), X.dtype)).shape
        for n in (_SOME, _SOME + 1)
    )
    if len(one) == len(two):
        differing = [i for i, (a, b) in enumerate(zip(one, two, strict=True)) if a != b]
        if len(differing) == 1 and (one[differing[0]], two[differing[0]]) == (_SOME, _SOME + 1):
            return Axes(one[: differing[0]], one[differing[0] + 1 :])
    raise ValueError(
        f"`{name}` must map inputs `*n d` to values `*s *n`; of {_SOME} points of {X.shape[-1]} dimension(s) it makes "
        f"shape {one}, of {_SOME + 1} shape {two}."
    )


def require_scalar(function: Callable[..., Any], X: Float[Array, "*n d"], name: str = "paths") -> tuple[int, ...]:
    """The axes `*s` of a function with one value a point."""
    axes = find_axes(function, X, name)
    if axes.components:
        raise ValueError(
            f"`{name}` must map inputs `*n d` to values `*s *n`, one value a point; its values have the axes "
            f"{axes.components} behind those of the points. Take one output, such as `lambda X: {name}(X)[..., 0]`."
        )
    return axes.paths


def in_blocks(function: Callable[..., Any], X: Float[Array, "*n d"], axis: int) -> Float[Array, "..."]:
    """`function(X)`, `*s *n *v`, for a function that treats points one by one; `axis` is that of the points."""
    if math.prod(X.shape[:-1]) <= _POINTS:
        return function(X)
    flat = X.reshape(-1, X.shape[-1])
    last = lambda block: jnp.moveaxis(function(block), axis, -1)
    values = map_rows(last, flat, width=1, block_bytes=_POINTS * X.dtype.itemsize)
    values = jnp.moveaxis(values, -1, axis)
    return values.reshape(*values.shape[:axis], *X.shape[:-1], *values.shape[axis + 1 :])


def sum_in_blocks(
    part: Callable[..., Float[Array, "..."]],
    points: Float[Array, "m d"],
    weights: Float[Array, "m"],
    *others: Float[Array, "m d"],
) -> Float[Array, "..."]:
    """The sum of `part(points, weights, *others)` over blocks of points, for a part that is linear in the weights."""
    m = points.shape[0]
    n_blocks = -(-m // _POINTS)
    if n_blocks <= 1:
        return part(points, weights, *others)
    rows = -(-m // n_blocks)
    missing = n_blocks * rows - m
    # What fills the last block is a point of the rule, where paths are defined, with no weight.
    fill = lambda a: jnp.concatenate([a, jnp.broadcast_to(a[:1], (missing, *a.shape[1:]))])
    filled = (fill(points), jnp.concatenate([weights, jnp.zeros((missing,), weights.dtype)]), *map(fill, others))
    blocks = tuple(a.reshape(n_blocks, rows, *a.shape[1:]) for a in filled)

    def add(total: Float[Array, "..."], block: Any) -> tuple[Float[Array, "..."], None]:
        return total + jax.checkpoint(part, prevent_cse=False)(*block), None

    one = jax.eval_shape(part, *(a[0] for a in blocks))
    total, _ = jax.lax.scan(add, jnp.zeros(one.shape, one.dtype), blocks)
    return total
