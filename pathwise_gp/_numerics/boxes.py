"""Boxes, and what has no integral over one in closed form."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class NoClosedForm(ValueError):
    """An integral over a box is not known in closed form."""

    def __init__(self, part: str, name: str):
        super().__init__(
            f"`paths` has {part} `{name}`, whose integral over a box has no closed form here: use `integrate` with a rule."
        )


class Box(NamedTuple):
    lower: Float[Array, "d"]
    upper: Float[Array, "d"]

    @property
    def middle(self) -> Float[Array, "d"]:
        return (self.lower + self.upper) / 2

    @property
    def width(self) -> Float[Array, "d"]:
        return self.upper - self.lower

    @property
    def volume(self) -> Float[Array, ""]:
        return jnp.prod(self.width)

    def along(self, columns: Sequence[int]) -> "Box":
        return Box(self.lower[np.asarray(columns, int)], self.upper[np.asarray(columns, int)])

    def across(self, columns: Sequence[int]) -> "Box":
        """The dimensions that are not among these."""
        return self.along([i for i in range(self.lower.shape[0]) if i not in columns])

    def over(self, scale: Float[Array, "d"]) -> "Box":
        """In units of a scale."""
        return Box(self.lower / scale, self.upper / scale)


# Of a rule for widths of at most one lengthscale.
_NODES = 12


def double_integral_on_lines(
    box: Box,
    other: Box,
    profile: Callable[[Float[Array, "..."]], Float[Array, "..."]],
    twice: Callable[[Float[Array, "..."]], Float[Array, "..."]],
    powers: np.ndarray,
) -> Float[Array, "d"]:
    """∬ k(|x − z|) dx dz over two intervals of each dimension, by second differences of F(a) = ∫₀ᵃ (a − s) k(s) ds.

    F is taken from a power series up to 1, where its closed form cancels. For narrow intervals that do not overlap the
    differences would cancel; there k is smooth, and a Gauss rule is exact to rounding.

    **Arguments:** `profile`: k, and `twice`: F in closed form, each of a ≥ 0; `powers`: the coefficients of k about 0.
    """
    degrees = np.arange(len(powers))
    coefficients = (powers / ((degrees + 1) * (degrees + 2))).tolist()

    def F(t: Float[Array, "d"]) -> Float[Array, "d"]:
        a = jnp.where(t < 0, -t, t)  # with a slope at 0
        near, far = jnp.minimum(a, 1), jnp.maximum(a, 1)
        series = jnp.zeros_like(a)
        for c in reversed(coefficients):
            series = c + near * series
        return jnp.where(a > 1, twice(far), near * near * series)

    exact = (
        F(box.upper - other.lower)
        - F(box.upper - other.upper)
        - F(box.lower - other.lower)
        + F(box.lower - other.upper)
    )
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    points = [
        (one.middle[:, None] + one.width[:, None] / 2 * jnp.asarray(nodes, one.lower.dtype)[None, :])
        for one in (box, other)
    ]
    apart = jnp.abs(points[0][:, :, None] - points[1][:, None, :])
    rule = jnp.asarray(np.outer(weights, weights) / 4, apart.dtype)
    narrow = jnp.sum(rule[None, :, :] * profile(apart), axis=(1, 2)) * box.width * other.width
    disjoint = (box.upper <= other.lower) | (box.lower >= other.upper)
    return jnp.where(disjoint & (jnp.maximum(box.width, other.width) <= 1), narrow, exact)
