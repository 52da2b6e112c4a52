"""Differential operators on paths: each makes a function of inputs `*n d` from another one."""

import abc
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks
from .._types import AnyArray
from .pointwise import as_points, find_axes, in_blocks, real

Function = Callable[..., Any]


class AbstractOperator(eqx.Module):
    """What `PathDerivative` makes of a function that treats points one by one."""

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


class PathDerivative(eqx.Module):
    """Derivatives of paths as a function of the input, with the axes `*s` of the paths.

    A value of a path depends on its own point only, so one forward derivative of the call gives the derivative in one
    direction at all points of all paths; nothing is traced for each path or point. Many points are taken a block at a time,
    so that temporaries stay bounded.

    `len`, `[i]`, iteration, `shape` and `paired` are there where the paths have them.

    **Fields:** `paths`: a callable that maps `*n d` to `*s *n`; `operator`: what is done with it.

    **Raises:** ValueError where the paths say that they have not as many derivatives. What does not say is believed.
    """

    paths: Function
    operator: AbstractOperator

    def __call__(self, X: Float[AnyArray, "*n d"]) -> Float[Array, "..."]:
        """The derivatives at all inputs.

        **Arguments:** `X`: inputs, `*n d`.

        **Returns:** `*s *n`, and behind it the axes that the operator adds.

        **Raises:** ValueError where the paths refuse `X` or do not treat its points one by one, or the operator refuses the
        dimension or the values of the paths.
        """
        return _apply(self, as_points(X))

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes `*s` of the paths."""
        return self.paths.shape  # pyright: ignore[reportFunctionMemberAccess]

    @property
    def smoothness(self) -> float:
        """How often the derivatives can be differentiated again."""
        return getattr(self.paths, "smoothness", math.inf) - self.operator.order

    @property
    def paired(self) -> Function:
        """Derivatives of each path at inputs of its own, `*s *n d`: see `PathwiseFunction.paired`."""
        function = real(self.paths.paired)  # pyright: ignore[reportFunctionMemberAccess]

        def paired(X: Float[AnyArray, "..."]) -> Float[Array, "..."]:
            X = as_points(X)
            return self.operator(function, X, X.ndim - 1)

        return paired

    def __len__(self) -> int:
        return len(self.paths)  # pyright: ignore[reportArgumentType]

    def __getitem__(self, index: Any) -> "PathDerivative":
        return PathDerivative(self.paths[index], self.operator)  # pyright: ignore[reportIndexIssue]

    def __iter__(self) -> Iterator["PathDerivative"]:
        return (self[i] for i in range(len(self)))

    def __check_init__(self):
        if self.smoothness < 0:
            order, kernel = self.operator.order, getattr(self.paths, "kernel", None)
            of = f" of `{kernel.label()}`" if kernel is not None else ""
            raise ValueError(
                f"`paths`{of} have {self.smoothness + order:g} derivatives in each direction, and one of order {order} was "
                "asked for: what comes out would grow with the number of features. Take a smoother kernel, or differences."
            )


@eqx.filter_jit
def _apply(derivative: PathDerivative, X: Float[Array, "*n d"]) -> Float[Array, "..."]:
    operator, function = derivative.operator, real(derivative.paths)
    # One point needs no axis of points; only the components of a field must be told from the paths.
    s = len(find_axes(function, X).paths) if X.ndim > 1 or operator.of_fields else 0
    return in_blocks(lambda block: operator(function, block, s + block.ndim - 1), X, s)


def _as_parts(parts: Sequence[Function]) -> Any:
    return tuple(parts) if isinstance(parts, list) else parts


class VectorField(eqx.Module):
    """p scalar functions as one that maps `*n d` to `*s *n p`.

    Draws of independent processes, say: the first path of each part belongs to the first draw of the field, and so on.

    **Fields:** `parts`: a list or tuple of callables, each `*n d` to `*s *n`.

    **Raises:** ValueError where there are no parts, or one is not callable.
    """

    parts: tuple[Function, ...] = eqx.field(converter=_as_parts)

    def __call__(self, X: Float[AnyArray, "*n d"]) -> Float[Array, "..."]:
        """The values of all parts.

        **Arguments:** `X`: inputs, `*n d`. **Returns:** `*s *n p`. **Raises:** ValueError where shapes differ between parts.
        """
        X = as_points(X)
        return self._stack([real(part)(X) for part in self.parts])

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes `*s` of the parts."""
        return self.parts[0].shape  # pyright: ignore[reportFunctionMemberAccess]

    @property
    def smoothness(self) -> float:
        """How often all parts can be differentiated."""
        return min(getattr(part, "smoothness", math.inf) for part in self.parts)

    @property
    def paired(self) -> Function:
        """Values of each path at inputs of its own, `*s *n d`."""
        functions = [real(part.paired) for part in self.parts]  # pyright: ignore[reportFunctionMemberAccess]
        return lambda X: self._stack([function(as_points(X)) for function in functions])

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
        parts: Any = self.parts
        if not isinstance(parts, tuple) or not parts or not all(map(callable, parts)):
            got = [type(part).__name__ for part in parts] if isinstance(parts, tuple) else type(parts).__name__
            raise ValueError(f"`parts` must be a list or tuple of at least one callable; got {got}.")


def gradient(paths: Function) -> PathDerivative:
    """∇f: all first derivatives, as a function `*n d → *s *n d`.

    Costs d forward derivatives, each little more than a value. For one path in many dimensions
    `jax.vmap(jax.grad(path))`, whose cost does not grow with d, is faster. A path must have the derivatives that are asked
    for: those of a Matérn kernel have ν − ½, and more are refused.

    **Arguments:** `paths`: a callable that maps `*n d` to `*s *n`.

    **Returns:** the gradient, itself a callable with the axes of the paths.

    **Raises:** ValueError where `paths` is not callable, or has not as many derivatives.
    """
    return PathDerivative(_function(paths), _Gradient())


def jacobian(paths: Function | Sequence[Function]) -> PathDerivative:
    """∂f_q/∂x_j of vector-valued functions: `*n d → *s *n p d`. Costs d forward derivatives.

    **Arguments:** `paths`: a callable that maps `*n d` to `*s *n p`, or a sequence of p callables that map it to `*s *n`.

    **Returns:** the Jacobian matrices, a callable.

    **Raises:** ValueError where `paths` is neither, or has not as many derivatives.
    """
    return PathDerivative(_field(paths), _Gradient())


def hessian(paths: Function) -> PathDerivative:
    """∂²f/∂x_i∂x_j: `*n d → *s *n d d`. Costs d(d + 1)/2 second derivatives, by forward over forward.

    **Arguments:** `paths`: a callable that maps `*n d` to `*s *n`.

    **Returns:** the matrices, a callable.

    **Raises:** ValueError where `paths` is not callable, or has not as many derivatives.
    """
    return PathDerivative(_function(paths), _Hessian())


def laplacian(paths: Function) -> PathDerivative:
    """Δf = Σ_i ∂²f/∂x_i²: `*n d → *s *n`; of a vector-valued function that of each component.

    Costs d second derivatives; no Hessian is formed.

    **Arguments:** `paths`: a callable that maps `*n d` to `*s *n` or `*s *n p`.

    **Returns:** the Laplacian, a callable.

    **Raises:** ValueError where `paths` is not callable, or has not as many derivatives.
    """
    return PathDerivative(_function(paths), _Laplacian())


def divergence(paths: Function | Sequence[Function]) -> PathDerivative:
    """∇·F = Σ_i ∂F_i/∂x_i: `*n d → *s *n`. Costs d forward derivatives.

    **Arguments:** `paths`: a callable that maps `*n d` to `*s *n d` (a gradient, paths of d outputs), or a sequence of d
    callables that map it to `*s *n`.

    **Returns:** the divergence, a callable; called with inputs whose dimension is not the number of components it raises a
    ValueError.

    **Raises:** ValueError where `paths` is neither, or has not as many derivatives.
    """
    return PathDerivative(_field(paths), _Divergence())


def curl(paths: Function | Sequence[Function]) -> PathDerivative:
    """∇×F: in three dimensions a vector, `*n 3 → *s *n 3`; in two the scalar ∂F₂/∂x₁ − ∂F₁/∂x₂, `*n 2 → *s *n`.

    Costs d forward derivatives.

    **Arguments:** `paths`: a callable that maps `*n d` to `*s *n d`, or a sequence of d callables that map it to `*s *n`.

    **Returns:** the curl, a callable; called with inputs of another dimension it raises a ValueError.

    **Raises:** ValueError where `paths` is neither, or has not as many derivatives.
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


def _sum_along_axes(X: Float[Array, "*n d"], function: Callable[..., Any]) -> Float[Array, "..."]:
    """The sum over the unit vectors of what a function makes of them, of which no two are kept."""
    basis = jnp.eye(X.shape[-1], dtype=X.dtype)
    one = jax.eval_shape(function, basis[0])
    add = lambda total, e: (total + function(e), None)
    return jax.lax.scan(add, jnp.zeros(one.shape, one.dtype), basis)[0]


class _Gradient(AbstractOperator):
    def __call__(self, function: Function, X: Float[Array, "*n d"], n_axes: int) -> Float[Array, "..."]:
        return _along_axes(X, lambda e: _derivative(function, X, e))


class _Hessian(AbstractOperator):
    @property
    def order(self) -> int:
        return 2

    def __call__(self, function: Function, X: Float[Array, "*n d"], n_axes: int) -> Float[Array, "..."]:
        d = X.shape[-1]
        basis, (rows, columns) = jnp.eye(d, dtype=X.dtype), np.triu_indices(d)
        second = lambda pair: _derivative(lambda Y: _derivative(function, Y, pair[0]), X, pair[1])
        upper = jnp.moveaxis(jax.lax.map(second, (basis[rows], basis[columns])), 0, -1)
        entry = np.zeros((d, d), int)
        entry[rows, columns] = entry[columns, rows] = np.arange(len(rows))
        return upper[..., entry]


class _Laplacian(AbstractOperator):
    @property
    def order(self) -> int:
        return 2

    def __call__(self, function: Function, X: Float[Array, "*n d"], n_axes: int) -> Float[Array, "..."]:
        second = lambda e: _derivative(lambda Y: _derivative(function, Y, e), X, e)
        return _sum_along_axes(X, second)


class _Divergence(AbstractOperator):
    @property
    def of_fields(self) -> bool:
        return True

    def __call__(self, function: Function, X: Float[Array, "*n d"], n_axes: int) -> Float[Array, "..."]:
        def diagonal(e: Float[Array, "d"]) -> Float[Array, "..."]:
            values = _derivative(function, X, e)
            _check_components(values.shape, n_axes, X.shape[-1], "divergence")
            return jnp.matmul(values, e.astype(values.dtype), precision=jax.lax.Precision.HIGHEST)

        return _sum_along_axes(X, diagonal)


class _Curl(AbstractOperator):
    @property
    def of_fields(self) -> bool:
        return True

    def __call__(self, function: Function, X: Float[Array, "*n d"], n_axes: int) -> Float[Array, "..."]:
        if X.shape[-1] not in (2, 3):
            raise ValueError(f"The curl is of fields in two or three dimensions; got `X` of shape {X.shape}.")
        J = _Gradient()(function, X, n_axes)
        _check_components(J.shape[:-1], n_axes, X.shape[-1], "curl")
        turn = lambda i, j: J[..., j, i] - J[..., i, j]
        if X.shape[-1] == 2:
            return turn(0, 1)
        return jnp.stack([turn(1, 2), turn(2, 0), turn(0, 1)], axis=-1)


class _Along(AbstractOperator):
    """The derivative along a vector, or along a field of vectors."""

    v: Any

    def __call__(self, function: Function, X: Float[Array, "*n d"], n_axes: int) -> Float[Array, "..."]:
        v = self.v
        if isinstance(v, Array):
            if v.shape != X.shape[-1:]:
                raise ValueError(f"`v` has {v.shape[0]} dimension(s), but the inputs have {X.shape[-1]}.")
            return _derivative(function, X, v.astype(X.dtype))
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
