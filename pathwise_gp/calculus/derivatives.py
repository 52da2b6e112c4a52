"""Differential operators on paths: each makes a function of inputs `*n d` from another one."""

import abc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks
from .._types import AnyArray
from .pointwise import as_points, in_blocks

Function = Callable[..., Any]


class AbstractOperator(eqx.Module):
    """What `PathDerivative` makes of a function that treats points one by one."""

    @abc.abstractmethod
    def __call__(self, function: Function, X: Float[Array, "*n d"]) -> Float[Array, "..."]:
        """The derivatives at all points. Needs no more than forward derivatives of the function."""


class PathDerivative(eqx.Module):
    """Derivatives of paths as a function of the input, with the axes `*s` of the paths.

    A value of a path depends on its own point only, so one forward derivative of the call gives the derivative in one
    direction at all points of all paths; nothing is traced for each path or point. Many points are taken a block at a time,
    so that temporaries stay bounded.

    `len`, `[i]`, iteration, `shape` and `paired` are there where the paths have them.

    **Fields:** `paths`: a callable that maps `*n d` to `*s *n`; `operator`: what is done with it.
    """

    paths: Function
    operator: AbstractOperator

    def __call__(self, X: Float[AnyArray, "*n d"]) -> Float[Array, "..."]:
        """The derivatives at all inputs.

        **Arguments:** `X`: inputs, `*n d`.

        **Returns:** `*s *n`, and behind it the axes that the operator adds.

        **Raises:** ValueError where the paths refuse `X`, or the operator the dimension or the values of the paths.
        """
        return _apply(self, as_points(X))

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes `*s` of the paths."""
        return self.paths.shape  # pyright: ignore[reportFunctionMemberAccess]

    @property
    def paired(self) -> Function:
        """Derivatives of each path at inputs of its own, `*s *n d`: see `PathwiseFunction.paired`."""
        function: Function = self.paths.paired  # pyright: ignore[reportFunctionMemberAccess]
        return lambda X: self.operator(function, as_points(X))

    def __len__(self) -> int:
        return len(self.paths)  # pyright: ignore[reportArgumentType]

    def __getitem__(self, index: Any) -> "PathDerivative":
        return PathDerivative(self.paths[index], self.operator)  # pyright: ignore[reportIndexIssue]

    def __iter__(self) -> Iterator["PathDerivative"]:
        return (self[i] for i in range(len(self)))


@eqx.filter_jit
def _apply(derivative: PathDerivative, X: Float[Array, "*n d"]) -> Float[Array, "..."]:
    operator = derivative.operator
    return in_blocks(lambda block: operator(derivative.paths, block), X)


class VectorField(eqx.Module):
    """p scalar functions as one that maps `*n d` to `*s *n p`. **Fields:** `parts`: callables, each `*n d` to `*s *n`.

    Draws of independent processes, say: the first path of each part belongs to the first draw of the field, and so on.

    **Raises:** ValueError where there are no parts, or one is not callable.
    """

    parts: tuple[Function, ...]

    def __call__(self, X: Float[AnyArray, "*n d"]) -> Float[Array, "..."]:
        """The values of all parts.

        **Arguments:** `X`: inputs, `*n d`. **Returns:** `*s *n p`. **Raises:** ValueError where shapes differ between parts.
        """
        return self._stack([part(X) for part in self.parts])

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes `*s` of the parts."""
        return self.parts[0].shape  # pyright: ignore[reportFunctionMemberAccess]

    @property
    def paired(self) -> Function:
        """Values of each path at inputs of its own, `*s *n d`."""
        functions: list[Function] = [part.paired for part in self.parts]  # pyright: ignore[reportFunctionMemberAccess]
        return lambda X: self._stack([function(X) for function in functions])

    def __len__(self) -> int:
        return len(self.parts[0])  # pyright: ignore[reportArgumentType]

    def __getitem__(self, index: Any) -> "VectorField":
        return VectorField(tuple(part[index] for part in self.parts))  # pyright: ignore[reportIndexIssue]

    def __iter__(self) -> Iterator["VectorField"]:
        return (self[i] for i in range(len(self)))

    def _stack(self, values: list[Array]) -> Float[Array, "..."]:
        if len({value.shape for value in values}) > 1:
            raise ValueError(
                f"The parts of a vector field must have the same axes; got {[value.shape for value in values]}."
            )
        return jnp.stack(values, axis=-1)

    def __check_init__(self):
        if not isinstance(self.parts, tuple) or not self.parts or not all(map(callable, self.parts)):
            raise ValueError(f"`parts` must be a sequence of at least one path; got {self.parts!r}.")


def gradient(paths: Function) -> PathDerivative:
    """∇f: all first derivatives, as a function `*n d → *s *n d`.

    Costs d forward derivatives, each little more than a value. For one path in many dimensions
    `jax.vmap(jax.grad(path))`, whose cost does not grow with d, is faster. A path must have the derivatives that are asked
    for: those of a Matérn kernel have ν − ½.

    **Arguments:** `paths`: a callable that maps `*n d` to `*s *n`.

    **Returns:** the gradient, itself a callable with the axes of the paths.

    **Raises:** ValueError where `paths` is not callable.
    """
    return PathDerivative(_function(paths), _Gradient())


def jacobian(paths: Function | Sequence[Function]) -> PathDerivative:
    """∂f_q/∂x_j of vector-valued functions: `*n d → *s *n p d`. Costs d forward derivatives.

    **Arguments:** `paths`: a callable that maps `*n d` to `*s *n p`, or a sequence of p callables that map it to `*s *n`.

    **Returns:** the Jacobian matrices, a callable.

    **Raises:** ValueError where `paths` is neither.
    """
    return PathDerivative(_field(paths), _Gradient())


def hessian(paths: Function) -> PathDerivative:
    """∂²f/∂x_i∂x_j: `*n d → *s *n d d`. Costs d(d + 1)/2 second derivatives, by forward over forward.

    **Arguments:** `paths`: a callable that maps `*n d` to `*s *n`.

    **Returns:** the matrices, a callable.

    **Raises:** ValueError where `paths` is not callable.
    """
    return PathDerivative(_function(paths), _Hessian())


def laplacian(paths: Function) -> PathDerivative:
    """Δf = Σ_i ∂²f/∂x_i²: `*n d → *s *n`; of a vector-valued function that of each component.

    Costs d second derivatives; no Hessian is formed.

    **Arguments:** `paths`: a callable that maps `*n d` to `*s *n` or `*s *n p`.

    **Returns:** the Laplacian, a callable.

    **Raises:** ValueError where `paths` is not callable.
    """
    return PathDerivative(_function(paths), _Laplacian())


def divergence(paths: Function | Sequence[Function]) -> PathDerivative:
    """∇·F = Σ_i ∂F_i/∂x_i: `*n d → *s *n`. Costs d forward derivatives.

    **Arguments:** `paths`: a callable that maps `*n d` to `*s *n d` (a gradient, paths of d outputs), or a sequence of d
    callables that map it to `*s *n`.

    **Returns:** the divergence, a callable; called with inputs whose dimension is not the number of components it raises a
    ValueError.

    **Raises:** ValueError where `paths` is neither.
    """
    return PathDerivative(_field(paths), _Divergence())


def curl(paths: Function | Sequence[Function]) -> PathDerivative:
    """∇×F: in three dimensions a vector, `*n 3 → *s *n 3`; in two the scalar ∂F₂/∂x₁ − ∂F₁/∂x₂, `*n 2 → *s *n`.

    Costs d forward derivatives.

    **Arguments:** `paths`: a callable that maps `*n d` to `*s *n d`, or a sequence of d callables that map it to `*s *n`.

    **Returns:** the curl, a callable; called with inputs of another dimension it raises a ValueError.

    **Raises:** ValueError where `paths` is neither.
    """
    return PathDerivative(_field(paths), _Curl())


def directional_derivative(paths: Function, v: Float[AnyArray, "d"] | Function) -> PathDerivative:
    """v·∇f, the derivative along a direction (v is not normalised): `*n d → *s *n`. Costs one forward derivative.

    **Arguments:**

    - `paths`: a callable that maps `*n d` to `*s *n`, or `*s *n p`.
    - `v`: the direction, `d`; or a field of directions, a callable that maps `*n d` to `*n d`.

    **Returns:** the derivative, a callable; called with inputs of a dimension that is not that of `v` it raises a ValueError.

    **Raises:** ValueError where `paths` is not callable, or `v` is neither a finite vector nor callable.
    """
    if not callable(v):
        v = _checks.floating(v, "v")
        if v.ndim != 1:
            raise ValueError(f"`v` must have shape (d,), one entry for each input dimension; got {v.shape}.")
        _checks.finite(v, "v")
    return PathDerivative(_function(paths), _Along(v))


def _function(paths: Any) -> Function:
    if callable(paths):
        return paths
    raise ValueError(f"`paths` must be callable, a function of inputs `*n d`; got {type(paths).__name__}.")


def _field(paths: Any) -> Function:
    return VectorField(tuple(paths)) if isinstance(paths, (list, tuple)) else _function(paths)


def _derivative(function: Function, X: Float[Array, "*n d"], v: Float[Array, "d"]) -> Float[Array, "..."]:
    """The derivative along v, at all points: another point's direction does not matter to a point."""
    return jax.jvp(function, (X,), (jnp.broadcast_to(v, X.shape),))[1]


def _along_axes(X: Float[Array, "*n d"], function: Callable[..., Any]) -> Float[Array, "..."]:
    """Of each unit vector e_i what a function makes of it, on a new last axis.

    One after the other: all at once the matrix products of a path take three times as long, and d times the memory.
    """
    return jnp.moveaxis(jax.lax.map(function, jnp.eye(X.shape[-1], dtype=X.dtype)), 0, -1)


class _Gradient(AbstractOperator):
    def __call__(self, function: Function, X: Float[Array, "*n d"]) -> Float[Array, "..."]:
        return _along_axes(X, lambda e: _derivative(function, X, e))


class _Hessian(AbstractOperator):
    def __call__(self, function: Function, X: Float[Array, "*n d"]) -> Float[Array, "..."]:
        d = X.shape[-1]
        basis, (rows, columns) = jnp.eye(d, dtype=X.dtype), np.triu_indices(d)
        second = lambda pair: _derivative(lambda Y: _derivative(function, Y, pair[0]), X, pair[1])
        upper = jnp.moveaxis(jax.lax.map(second, (basis[rows], basis[columns])), 0, -1)
        entry = np.zeros((d, d), int)
        entry[rows, columns] = entry[columns, rows] = np.arange(len(rows))
        return upper[..., entry]


class _Laplacian(AbstractOperator):
    def __call__(self, function: Function, X: Float[Array, "*n d"]) -> Float[Array, "..."]:
        second = lambda e: _derivative(lambda Y: _derivative(function, Y, e), X, e)
        return jnp.sum(_along_axes(X, second), axis=-1)


class _Divergence(AbstractOperator):
    def __call__(self, function: Function, X: Float[Array, "*n d"]) -> Float[Array, "..."]:
        def diagonal(e: Float[Array, "d"]) -> Float[Array, "..."]:
            values = _derivative(function, X, e)
            _check_components(values, X.shape[-1], "divergence")
            return jnp.matmul(values, e.astype(values.dtype), precision=jax.lax.Precision.HIGHEST)

        return jnp.sum(_along_axes(X, diagonal), axis=-1)


class _Curl(AbstractOperator):
    def __call__(self, function: Function, X: Float[Array, "*n d"]) -> Float[Array, "..."]:
        if X.shape[-1] not in (2, 3):
            raise ValueError(f"The curl is of fields in two or three dimensions; got `X` of shape {X.shape}.")
        J = _Gradient()(function, X)
        _check_components(J[..., 0], X.shape[-1], "curl")
        turn = lambda i, j: J[..., j, i] - J[..., i, j]
        if X.shape[-1] == 2:
            return turn(0, 1)
        return jnp.stack([turn(1, 2), turn(2, 0), turn(0, 1)], axis=-1)


class _Along(AbstractOperator):
    """The derivative along a vector, or along a field of vectors."""

    v: Any

    def __call__(self, function: Function, X: Float[Array, "*n d"]) -> Float[Array, "..."]:
        v = self.v
        if isinstance(v, Array):
            if v.shape != X.shape[-1:]:
                raise ValueError(f"`v` has {v.shape[0]} dimension(s), but the inputs have {X.shape[-1]}.")
            return _derivative(function, X, v.astype(X.dtype))
        directions = v(X)
        if directions.shape != X.shape:
            raise ValueError(
                f"`v` must map inputs of shape {X.shape} to directions of the same shape; it returned {directions.shape}."
            )
        return jax.jvp(function, (X,), (directions.astype(X.dtype),))[1]


def _check_components(values: Array, dim: int, name: str) -> None:
    if values.ndim == 0 or values.shape[-1] != dim:
        raise ValueError(
            f"`{name}` needs a field with as many components as the inputs have dimensions, {dim}; the values of `paths` "
            f"have the axes {values.shape}."
        )
