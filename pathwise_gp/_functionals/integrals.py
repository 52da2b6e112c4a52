"""Integrals over boxes, and by any rule."""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks, _fields
from .._kernels import AbstractKernel
from .._kernels.integrals import has_integrals
from .._types import Numbers
from .base import AbstractFunctional
from .functions import times
from .operators import Function
from .quadrature import Quadrature

# Points in each dimension of the rule for kernels without a closed form; from the fifth dimension on the last.
_NODES = (32, 16, 10, 6, 4)


def _as_domain(boxes: Numbers | Quadrature) -> Array | Quadrature:
    if isinstance(boxes, Quadrature):
        return boxes
    boxes = _checks.floating(boxes, "boxes")
    if boxes.ndim not in (2, 3) or boxes.shape[-2] != 2 or 0 in boxes.shape:
        raise ValueError(
            f"`boxes` must have shape (q, 2, d), or (2, d) of one box, the lower and the upper corner; got {boxes.shape}. A "
            "rule is a `calculus.Quadrature`."
        )
    _checks.finite(boxes, "boxes")
    if _checks.is_concrete(boxes) and not bool(np.all(np.asarray(boxes)[..., 0, :] < np.asarray(boxes)[..., 1, :])):
        raise ValueError(
            "`boxes` must hold the lower corner of each box first, below the upper one in every dimension."
        )
    return boxes


class Integral(AbstractFunctional):
    """∫ f dx over boxes, or by a rule of points and weights.

    Over boxes it is in closed form where the kernel has one for the integral of both of its arguments: RBF kernels, Matérn
    kernels of one dimension, constants, multiples and sums of these and products of them over different dimensions. For other
    kernels it is by a product of Gauss-Legendre rules in each box, on both sides, which wants two nodes or more for each
    lengthscale, and kinks of the kernel leave an error of their own.

    **Fields:**

    - `domain`: lower and upper corners, `q 2 d`, or of one box `2 d`; or a `calculus.Quadrature`, a rule on a line, on a
      surface or any other.
    - `weight`: a factor, a scalar or one for each box: one over the volume makes averages.
    - `nodes`: points in each dimension for kernels without a closed form; 32, 16, 10, 6, 4 from one dimension to five unless
      given. Part of the structure.
    - `by_rule`: whether the rule is taken for every kernel.

    **Raises:** ValueError where a shape does not fit, a corner is not finite, or the lower one is not below the upper one.
    """

    domain: Float[Array, "..."] | Quadrature = eqx.field(converter=_as_domain)
    weight: Float[Array, "..."] = eqx.field(converter=_fields.array("weight"), default=1.0)
    nodes: int | None = eqx.field(static=True, converter=_fields.optional(_fields.count("nodes")), default=None)
    by_rule: bool = eqx.field(static=True, converter=_fields.flag("by_rule"), default=False)

    def apply(self, f: Function) -> Float[Array, "*s q"]:
        rule = lambda f: _by_rule(f, *self._points())
        own = None if self._has_rule else getattr(f, "over_boxes", None)
        return times(rule(f) if own is None else own(self._boxes, rule), self.weight)

    def suited_to(self, kernel: AbstractKernel) -> "Integral":
        if isinstance(self.domain, Quadrature):
            return self
        if columns := kernel.categories(self.dim):
            raise ValueError(
                f"`Integral` over boxes runs over column(s) {list(columns)} of the inputs, which hold numbers of categories "
                f"or outputs for `{kernel.label()}`: give a `calculus.Quadrature` whose points have one of them."
            )
        # One rule for all, or a closed form for all: mixed, the covariance would not be symmetric, and paths miss what they
        # are given.
        closed = self.by_rule or has_integrals(kernel, self.dim)
        return self if closed else dataclasses.replace(self, by_rule=True)

    @property
    def width(self) -> int:
        return max(self.size, math.prod(jax.eval_shape(self._points)[1].shape)) if self._has_rule else self.size

    @property
    def shape(self) -> tuple[int, ...]:
        return () if isinstance(self.domain, Quadrature) else self.domain.shape[:-2]

    @property
    def points(self) -> Float[Array, "p d"]:
        return self.domain.points if isinstance(self.domain, Quadrature) else self.domain.reshape(-1, self.dim)

    @property
    def dim(self) -> int:
        return self._corners.shape[-1]

    @property
    def dtype(self) -> Any:
        return self._corners.dtype

    @property
    def _has_rule(self) -> bool:
        return self.by_rule or isinstance(self.domain, Quadrature)

    @property
    def _corners(self) -> Float[Array, "... d"]:
        return self.domain.points if isinstance(self.domain, Quadrature) else self.domain

    @property
    def _boxes(self) -> Float[Array, "q 2 d"]:
        return self._corners.reshape(-1, 2, self.dim)

    def __check_init__(self):
        if self.weight.shape not in ((), self.shape):
            raise ValueError(f"`weight` must be a scalar, or one number for each box; got shape {self.weight.shape}.")
        if isinstance(self.domain, Quadrature) and self.nodes is not None:
            raise ValueError("`nodes` is for boxes; a rule has its own points.")

    def _points(self) -> tuple[Float[Array, "q r d"], Float[Array, "q r"]]:
        """Of the rule of each integral."""
        if isinstance(self.domain, Quadrature):
            return self.domain.points[None], self.domain.weights[None].astype(self.dtype)
        boxes, d = self._boxes, self.dim
        n = self.nodes or _NODES[min(d, len(_NODES)) - 1]
        nodes, weights = np.polynomial.legendre.leggauss(n)
        grid = np.stack(np.meshgrid(*[nodes] * d, indexing="ij"), axis=-1).reshape(1, -1, d)
        products = np.stack(np.meshgrid(*[weights] * d, indexing="ij"), axis=-1).reshape(1, -1, d).prod(axis=2)
        half = (boxes[:, 1] - boxes[:, 0]) / 2
        middle = (boxes[:, 1] + boxes[:, 0]) / 2
        points = middle[:, None, :] + half[:, None, :] * jnp.asarray(grid, half.dtype)
        return points, jnp.prod(half, axis=1)[:, None] * jnp.asarray(products, half.dtype)


def _by_rule(f: Function, points: Float[Array, "q r d"], weights: Float[Array, "q r"]) -> Float[Array, "*s q"]:
    q, r, d = points.shape
    values = f(points.reshape(q * r, d))
    values = values.reshape(*values.shape[:-1], q, r)
    return jnp.einsum("...qr,qr->...q", values, weights.astype(values.dtype), precision="highest")
