"""Kernels of infinitely wide one-layer networks."""

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _fields
from .._features import AbstractBasis, AbstractFeatures, Coordinates, QuasiMonteCarlo, RectifiedFeatures
from .._numerics.distances import squared_distances
from .._types import Key
from .base import AbstractKernel


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _angular(order: int, s: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """J_n(θ) of Cho & Saul (2009), equations 4 to 6, as a function of s = 2(1 − cos θ), the squared chord."""
    half = jnp.sqrt(jnp.clip(s, 0, 4)) / 2  # sin(θ/2)
    rest = jnp.sqrt(jnp.clip(4 - s, 0, 4)) / 2
    outer = 2 * jnp.arctan2(rest, half)  # π − θ, without a difference
    sine, cosine = 2 * half * rest, 1 - s / 2
    if order == 0:
        return outer
    if order == 1:
        return sine + outer * cosine
    return 3 * sine * cosine + outer * (1 + 2 * cosine**2)


@_angular.defjvp
def _angular_jvp(order, primals, tangents):
    # dJ_n/ds = −(n²/2) J_{n−1}: as with the Matérn kernels, no root is differentiated while a derivative of k exists.
    (s,), (ds,) = primals, tangents
    if order > 0:
        return _angular(order, s), -(order**2) / 2 * _angular(order - 1, s) * ds
    inside = (s > 0) & (s < 4)
    sine = jnp.sqrt(jnp.where(inside, s * (4 - s), jnp.ones_like(s))) / 2
    # J_0 has a kink at either end: 0 there, the mean of the two sides.
    return _angular(0, s), jnp.where(inside, -1 / (2 * sine), jnp.zeros_like(s)) * ds


def _as_order(order: int | float) -> Any:
    return int(order) if isinstance(order, float) and order.is_integer() else order


class ArcCosine(AbstractKernel):
    """k(x, z) = variance · ‖x‖ⁿ‖z‖ⁿ J_n(θ)/π, with the angle θ between x and z: a wide layer of steps (n = 0), ramps (ReLU,
    n = 1) or half parabolas (n = 2), without a bias. Add a constant input, by `Warped`, for one.

    k(x, x) = variance · ‖x‖²ⁿ · (1, 1, 3)ₙ. In one dimension its basis is exact.

    **Fields:**

    - `variance`: positive; of the process at a point of length 1 for orders 0 and 1, a third of that for order 2.
    - `order`: n = 0, 1 or 2; part of the structure, not a leaf.

    **Raises:** ValueError where `order` is something else or `variance` is not a positive scalar. Source: Cho & Saul (2009),
    equation 3.
    """

    variance: Float[Array, ""] = eqx.field(converter=_fields.positive)
    order: int = eqx.field(static=True, default=1, converter=_as_order)

    def smoothness(self, dim: int) -> float:
        return float(self.order)

    def matrix(self, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
        (x, units, at_zero), (z, others, other_at_zero) = _polar(X), _polar(Z)
        # The squared chord by differences, right for small angles. The origin is at a right angle to everything.
        chords = squared_distances(units, others, jnp.ones((X.shape[1],), X.dtype))
        chords = chords + at_zero[:, None] + other_at_zero[None, :]
        radial = (x[:, None] * z[None, :]) ** self.order
        return self.variance.astype(X.dtype) / math.pi * radial * _angular(self.order, chords)

    def diagonal(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        x, _, at_zero = _polar(X)
        angular = (1 - at_zero / 2) if self.order == 0 else jnp.full_like(x, (1, 1, 3)[self.order])
        return self.variance.astype(X.dtype) * x ** (2 * self.order) * angular

    def basis_size(self, dim: int) -> int | None:
        return 2 if dim == 1 else None

    def coordinates(self, dim: int) -> Coordinates:
        return Coordinates(dim, (), ((0, dim),))

    def is_stationary(self, dim: int) -> bool:
        return False

    def random_features(self, normals: Float[Array, "h r"], weights: Float[Array, "h"], dim: int) -> RectifiedFeatures:
        # The features are homogeneous: the length of a normal direction is averaged over, E‖z‖²ⁿ = d(d + 2)…(d + 2n − 2).
        directions = normals / jnp.sqrt(jnp.sum(normals * normals, axis=1, keepdims=True))
        moment = math.prod(dim + 2 * i for i in range(self.order))
        amplitudes = jnp.sqrt(2 * moment / normals.shape[0] * self.variance.astype(weights.dtype) * weights)
        return RectifiedFeatures(directions, amplitudes, self.order)

    def features(
        self, n_features: int, dim: int, *, key: Key, basis: AbstractBasis = QuasiMonteCarlo()
    ) -> AbstractFeatures:
        if dim > 1:
            return super().features(n_features, dim, key=key, basis=basis)
        directions = jnp.asarray([[1.0], [-1.0]], self.variance.dtype)
        scale = jnp.sqrt((1, 1, 3)[self.order] * self.variance)
        return RectifiedFeatures(directions, jnp.broadcast_to(scale, (2,)), self.order)

    def __check_init__(self):
        _fields.check_scalar(self, "variance")
        if isinstance(self.order, bool) or not isinstance(self.order, int) or self.order not in (0, 1, 2):
            raise ValueError(f"`ArcCosine.order` must be 0, 1 or 2; got {self.order!r}.")


def _polar(X: Float[Array, "n d"]) -> tuple[Float[Array, "n"], Float[Array, "n d"], Float[Array, "n"]]:
    """Lengths, unit vectors (0 at the origin), and 1 where a point is the origin."""
    squares = jnp.sum(X * X, axis=1)
    apart = squares > 0
    lengths = jnp.sqrt(jnp.where(apart, squares, jnp.ones_like(squares)))
    zero = jnp.zeros_like(lengths)
    return jnp.where(apart, lengths, zero), X / lengths[:, None], jnp.where(apart, zero, zero + 1)
