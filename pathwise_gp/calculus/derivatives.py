"""Differential operators on paths: each makes a function of inputs `*n d` from another one."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks
from .._functionals.operators import (
    AbstractOperator,
    AlongOperator,
    CurlOperator,
    DivergenceOperator,
    Function,
    GradientOperator,
    HessianOperator,
    LaplacianOperator,
)
from .._numerics.pointwise import as_points, find_axes, in_blocks, real
from .._types import AnyArray


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
    return PathDerivative(_function(paths), GradientOperator())


def jacobian(paths: Function | Sequence[Function]) -> PathDerivative:
    """∂f_q/∂x_j of vector-valued functions: `*n d → *s *n p d`. Costs d forward derivatives.

    **Arguments:** `paths`: a callable that maps `*n d` to `*s *n p`, or a sequence of p callables that map it to `*s *n`.

    **Returns:** the Jacobian matrices, a callable.

    **Raises:** ValueError where `paths` is neither, or has not as many derivatives.
    """
    return PathDerivative(_field(paths), GradientOperator())


def hessian(paths: Function) -> PathDerivative:
    """∂²f/∂x_i∂x_j: `*n d → *s *n d d`. Costs d(d + 1)/2 second derivatives, by forward over forward.

    **Arguments:** `paths`: a callable that maps `*n d` to `*s *n`.

    **Returns:** the matrices, a callable.

    **Raises:** ValueError where `paths` is not callable, or has not as many derivatives.
    """
    return PathDerivative(_function(paths), HessianOperator())


def laplacian(paths: Function) -> PathDerivative:
    """Δf = Σ_i ∂²f/∂x_i²: `*n d → *s *n`; of a vector-valued function that of each component.

    Costs d second derivatives; no Hessian is formed.

    **Arguments:** `paths`: a callable that maps `*n d` to `*s *n` or `*s *n p`.

    **Returns:** the Laplacian, a callable.

    **Raises:** ValueError where `paths` is not callable, or has not as many derivatives.
    """
    return PathDerivative(_function(paths), LaplacianOperator())


def divergence(paths: Function | Sequence[Function]) -> PathDerivative:
    """∇·F = Σ_i ∂F_i/∂x_i: `*n d → *s *n`. Costs d forward derivatives.

    **Arguments:** `paths`: a callable that maps `*n d` to `*s *n d` (a gradient, paths of d outputs), or a sequence of d
    callables that map it to `*s *n`.

    **Returns:** the divergence, a callable; called with inputs whose dimension is not the number of components it raises a
    ValueError.

    **Raises:** ValueError where `paths` is neither, or has not as many derivatives.
    """
    return PathDerivative(_field(paths), DivergenceOperator())


def curl(paths: Function | Sequence[Function]) -> PathDerivative:
    """∇×F: in three dimensions a vector, `*n 3 → *s *n 3`; in two the scalar ∂F₂/∂x₁ − ∂F₁/∂x₂, `*n 2 → *s *n`.

    Costs d forward derivatives.

    **Arguments:** `paths`: a callable that maps `*n d` to `*s *n d`, or a sequence of d callables that map it to `*s *n`.

    **Returns:** the curl, a callable; called with inputs of another dimension it raises a ValueError.

    **Raises:** ValueError where `paths` is neither, or has not as many derivatives.
    """
    return PathDerivative(_field(paths), CurlOperator())


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
    return PathDerivative(_function(paths), AlongOperator(v))


def _function(paths: Any) -> Function:
    if callable(paths):
        return paths
    raise ValueError(f"`paths` must be callable, a function of inputs `*n d`; got {type(paths).__name__}.")


def _field(paths: Any) -> Function:
    return VectorField(tuple(paths)) if isinstance(paths, (list, tuple)) else _function(paths)
