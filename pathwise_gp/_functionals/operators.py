"""Differential operators on functions that treat points one by one."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._numerics.pointwise import real

Function = Callable[..., Any]


class AbstractOperator(eqx.Module):
    """What is made of a function that treats points one by one."""

    @abc.abstractmethod
    def __call__(self, function: Function, X: Float[Array, "*n d"], n_axes: int) -> Float[Array, "..."]:
        """The derivatives at all points. Needs no more than forward derivatives of the function.

        **Arguments:** `function`: maps `*n d` to `*s *n`, and behind it the components of a field; `X`: `*n d`; `n_axes`:
        how many axes `*s *n` are.
        """

    @property
    def of_fields(self) -> bool:
        """Whether it is of functions that have as many components as the inputs have dimensions."""
        return False

    @property
    def order(self) -> int:
        """Of the derivatives that it takes."""
        return 1


def derivative(function: Function, X: Float[Array, "*n d"], v: Float[Array, "d"]) -> Float[Array, "..."]:
    """The derivative along v, at all points: another point's direction does not matter to a point."""
    return jax.jvp(function, (X,), (jnp.broadcast_to(v, X.shape),))[1]


def _along_axes(X: Float[Array, "*n d"], function: Callable[..., Any]) -> Float[Array, "..."]:
    """Of each unit vector e_i what a function makes of it, on a new last axis.

    One after the other: all at once the matrix products of a path take three times as long, and d times the memory.
    """
    return jnp.moveaxis(jax.lax.map(function, jnp.eye(X.shape[-1], dtype=X.dtype)), 0, -1)


def _sum_along_axes(X: Float[Array, "*n d"], function: Callable[..., Any], one: Any) -> Float[Array, "..."]:
    """The sum over the unit vectors of what a function makes of them, of which no two are kept; `one`: the shape of each."""
    basis = jnp.eye(X.shape[-1], dtype=X.dtype)
    add = lambda total, e: (total + function(e), None)
    return jax.lax.scan(add, jnp.zeros(one.shape, one.dtype), basis)[0]


class GradientOperator(AbstractOperator):
    def __call__(self, function: Function, X: Float[Array, "*n d"], n_axes: int) -> Float[Array, "..."]:
        return _along_axes(X, lambda e: derivative(function, X, e))


class HessianOperator(AbstractOperator):
    @property
    def order(self) -> int:
        return 2

    def __call__(self, function: Function, X: Float[Array, "*n d"], n_axes: int) -> Float[Array, "..."]:
        d = X.shape[-1]
        basis, (rows, columns) = jnp.eye(d, dtype=X.dtype), np.triu_indices(d)
        second = lambda pair: derivative(lambda Y: derivative(function, Y, pair[0]), X, pair[1])
        upper = jnp.moveaxis(jax.lax.map(second, (basis[rows], basis[columns])), 0, -1)
        entry = np.zeros((d, d), int)
        entry[rows, columns] = entry[columns, rows] = np.arange(len(rows))
        return upper[..., entry]


class LaplacianOperator(AbstractOperator):
    @property
    def order(self) -> int:
        return 2

    def __call__(self, function: Function, X: Float[Array, "*n d"], n_axes: int) -> Float[Array, "..."]:
        second = lambda e: derivative(lambda Y: derivative(function, Y, e), X, e)
        # Of the shape of the values, which takes no derivatives to find.
        return _sum_along_axes(X, second, jax.eval_shape(function, X))


class DivergenceOperator(AbstractOperator):
    @property
    def of_fields(self) -> bool:
        return True

    def __call__(self, function: Function, X: Float[Array, "*n d"], n_axes: int) -> Float[Array, "..."]:
        def diagonal(e: Float[Array, "d"]) -> Float[Array, "..."]:
            values = derivative(function, X, e)
            _check_components(values.shape, n_axes, X.shape[-1], "divergence")
            return jnp.matmul(values, e.astype(values.dtype), precision=jax.lax.Precision.HIGHEST)

        return _sum_along_axes(X, diagonal, jax.eval_shape(diagonal, jax.ShapeDtypeStruct(X.shape[-1:], X.dtype)))


class CurlOperator(AbstractOperator):
    @property
    def of_fields(self) -> bool:
        return True

    def __call__(self, function: Function, X: Float[Array, "*n d"], n_axes: int) -> Float[Array, "..."]:
        if X.shape[-1] not in (2, 3):
            raise ValueError(f"The curl is of fields in two or three dimensions; got `X` of shape {X.shape}.")
        J = GradientOperator()(function, X, n_axes)
        _check_components(J.shape[:-1], n_axes, X.shape[-1], "curl")
        turn = lambda i, j: J[..., j, i] - J[..., i, j]
        if X.shape[-1] == 2:
            return turn(0, 1)
        return jnp.stack([turn(1, 2), turn(2, 0), turn(0, 1)], axis=-1)


class AlongOperator(AbstractOperator):
    """The derivative along a vector, or along a field of vectors."""

    v: Any

    def __call__(self, function: Function, X: Float[Array, "*n d"], n_axes: int) -> Float[Array, "..."]:
        v = self.v
        if isinstance(v, Array):
            if v.shape != X.shape[-1:]:
                raise ValueError(f"`v` has {v.shape[0]} dimension(s), but the inputs have {X.shape[-1]}.")
            return derivative(function, X, v.astype(X.dtype))
        directions = real(v, "v")(X)
        if directions.shape != X.shape:
            raise ValueError(
                f"`v` must map inputs of shape {X.shape} to directions of the same shape; it returned {directions.shape}."
            )
        return jax.jvp(function, (X,), (directions.astype(X.dtype),))[1]


def _check_components(shape: tuple[int, ...], n_axes: int, dim: int, name: str) -> None:
    if shape[n_axes:] != (dim,):
        raise ValueError(
            f"`{name}` needs a field with as many components as the inputs have dimensions, {dim}; of the axes {shape} of "
            f"the values of `paths`, those behind the axes of the points are {shape[n_axes:]}."
        )
