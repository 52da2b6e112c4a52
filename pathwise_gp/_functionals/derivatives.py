"""Derivatives at points."""

import abc
import operator
from collections.abc import Callable, Iterable
from typing import Any, SupportsIndex

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks, _fields
from .._kernels import AbstractKernel
from .._numerics.blocks import map_rows
from .._numerics.pointwise import real
from .base import AbstractFunctional
from .functions import AbstractFunction
from .of_points import AbstractOfPoints
from .operators import derivative, Function, GradientOperator, LaplacianOperator


class AbstractAtPoints(AbstractOfPoints):
    """What treats points one by one: k values of each."""

    @abc.abstractmethod
    def derivatives(self, f: Function) -> Float[Array, "..."]:
        """`*s n`, and behind it the axes of the values of a point."""

    @property
    def axes(self) -> tuple[int, ...]:
        """Those of the values of a point."""
        return ()

    def of_rows(self, rows: Float[Array, "b r"]) -> "AbstractAtPoints":
        return eqx.tree_at(lambda L: L.X, self, rows)

    def apply(self, f: Function) -> Float[Array, "*s q"]:
        values = self.derivatives(f)
        return values.reshape(*values.shape[: values.ndim - 1 - len(self.axes)], self.size)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.X.shape[-2], *self.axes)

    @property
    def order(self) -> int:
        return 1

    def diagonal(self, kernel: AbstractKernel) -> Float[Array, "q"]:
        # Of each point by itself: a Gram matrix of all would be as large as what is not asked for.
        one = lambda row: jnp.diagonal(self.of_rows(row[None, :]).gram(kernel))
        k = self.size // self.shape[0]
        return map_rows(lambda rows: jax.vmap(one)(rows).T, self.rows, k * k).T.reshape(-1)

    def in_parts(
        self, function: Callable[[AbstractFunctional], Float[Array, "*s b"]], width: int, block_bytes: int | None = None
    ) -> Float[Array, "*s q"]:
        k = self.size // self.shape[0]

        def of_rows(rows: Float[Array, "b r"]) -> Float[Array, "*s k b"]:
            values = function(self.of_rows(rows))
            return jnp.swapaxes(values.reshape(*values.shape[:-1], rows.shape[0], k), -1, -2)

        values = map_rows(of_rows, self.rows, k * width, block_bytes)
        return jnp.swapaxes(values, -1, -2).reshape(*values.shape[:-2], self.size)


def _as_dims(dims: Iterable[SupportsIndex]) -> tuple[int, ...]:
    try:
        return tuple(operator.index(i) for i in dims)
    except TypeError as e:
        raise ValueError(f"`Derivative.dims` must be a sequence of whole numbers; got {dims!r}.") from e


class Derivative(AbstractAtPoints):
    """∂ᵏf/∂x_i∂x_j… at points, one value each.

    **Fields:** `X`: the points, `n d`; `dims`: the dimensions i, j, … along which derivatives are taken one after the other,
    `(0,)` for the first derivative along the first, `(0, 0)` for its second; part of the structure.

    **Raises:** ValueError where `X` is not a finite `n d` array, or `dims` is empty or names a dimension that there is not.
    """

    X: Float[Array, "n d"] = eqx.field(converter=_fields.points("X"))
    dims: tuple[int, ...] = eqx.field(static=True, converter=_as_dims)

    def derivatives(self, f: Function) -> Float[Array, "*s n"]:
        f = real(f)
        for i in self.dims:
            f = _along(f, i)
        return f(self.X)

    @property
    def order(self) -> int:
        return len(self.dims)

    def __check_init__(self):
        d = self.X.shape[-1]
        if not self.dims or not all(0 <= i < d for i in self.dims):
            raise ValueError(
                f"`Derivative.dims` must name dimensions from 0 to {d - 1}, one at least; got {self.dims}."
            )


def _along(f: Function, i: int) -> Function:
    return lambda X: derivative(f, X, jnp.zeros((X.shape[-1],), X.dtype).at[i].set(1))


class Directional(AbstractAtPoints):
    """v·∇f at points, one value each; v is not normalised.

    **Fields:** `X`: the points, `n d`; `v`: the direction, `d`, or one for each point, `n d`.

    **Raises:** ValueError where `X` is not a finite `n d` array, or `v` not finite or of another shape.
    """

    X: Float[Array, "n d"] = eqx.field(converter=_fields.points("X"))
    v: Float[Array, "..."] = eqx.field(converter=_fields.array("v"))

    def derivatives(self, f: Function) -> Float[Array, "*s n"]:
        v = jnp.broadcast_to(self.v.astype(self.X.dtype), self.X.shape)
        return jax.jvp(real(f), (self.X,), (v,))[1]

    @property
    def rows(self) -> Float[Array, "n r"]:
        return jnp.concatenate([self.X, jnp.broadcast_to(self.v.astype(self.X.dtype), self.X.shape)], axis=1)

    def of_rows(self, rows: Float[Array, "b r"]) -> "Directional":
        d = self.X.shape[-1]
        return Directional(rows[:, :d], rows[:, d:])

    def __check_init__(self):
        if self.v.shape not in (self.X.shape[-1:], self.X.shape):
            raise ValueError(
                f"`Directional.v` must have shape {self.X.shape[-1:]}, or {self.X.shape} of one direction for each point; "
                f"got {self.v.shape}."
            )


class Gradient(AbstractAtPoints):
    """∇f at points: values of shape `n d`, all first derivatives of each point.

    **Fields:** `X`: the points, `n d`. **Raises:** ValueError where it is not a finite `n d` array.
    """

    X: Float[Array, "n d"] = eqx.field(converter=_fields.points("X"))

    def derivatives(self, f: Function) -> Float[Array, "*s n d"]:
        known = f.gradients(self.X) if isinstance(f, AbstractFunction) else None
        return GradientOperator()(real(f), self.X, 0) if known is None else known

    @property
    def axes(self) -> tuple[int, ...]:
        return self.X.shape[-1:]


class Hessian(AbstractAtPoints):
    """The second derivatives at points: values of shape `n d(d+1)/2`, the upper triangle of each matrix row by row, since the
    lower one says the same. Observations may also be given as symmetric matrices, `n d d`.

    **Fields:** `X`: the points, `n d`. **Raises:** ValueError where it is not a finite `n d` array.
    """

    X: Float[Array, "n d"] = eqx.field(converter=_fields.points("X"))

    def derivatives(self, f: Function) -> Float[Array, "*s n k"]:
        basis = jnp.eye(self.X.shape[-1], dtype=self.X.dtype)
        rows, columns = self._triangle
        second = lambda pair: derivative(lambda Y: derivative(real(f), Y, pair[0]), self.X, pair[1])
        return jnp.moveaxis(jax.lax.map(second, (basis[rows], basis[columns])), 0, -1)

    @property
    def axes(self) -> tuple[int, ...]:
        return (len(self._triangle[0]),)

    @property
    def order(self) -> int:
        return 2

    def flatten(self, values: Any, name: str) -> Any:
        if np.shape(values) == (*self.X.shape, self.X.shape[-1]):
            rows, columns = self._triangle
            values = values if _checks.is_concrete(values) and isinstance(values, np.ndarray) else jnp.asarray(values)
            mirrored = np.all(np.asarray(values) == np.swapaxes(values, 1, 2)) if _checks.is_concrete(values) else True
            if not mirrored:
                raise ValueError(f"`{name}` holds matrices of second derivatives that are not symmetric.")
            values = values[:, rows, columns]
        return super().flatten(values, name)

    @property
    def _triangle(self) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = np.triu_indices(self.X.shape[-1])
        return rows, columns


class Laplacian(AbstractAtPoints):
    """Δf = Σ_i ∂²f/∂x_i² at points, one value each.

    **Fields:** `X`: the points, `n d`. **Raises:** ValueError where it is not a finite `n d` array.
    """

    X: Float[Array, "n d"] = eqx.field(converter=_fields.points("X"))

    def derivatives(self, f: Function) -> Float[Array, "*s n"]:
        known = f.laplacians(self.X) if isinstance(f, AbstractFunction) else None
        return LaplacianOperator()(real(f), self.X, 0) if known is None else known

    @property
    def order(self) -> int:
        return 2
