"""All outputs at points."""

import math
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .. import _fields
from .._features import AbstractFeatures
from .._kernels import AbstractKernel, with_outputs
from .._numerics.blocks import map_rows
from .._numerics.linalg import inner
from .._numerics.outputs import inner_of_each, own_output
from .base import AbstractFunctional
from .of_points import AbstractOfPoints
from .operators import Function
from .values import as_points, Values


class AllOutputs(AbstractOfPoints):
    """f((x, i)) at points x for each number i of an output, of a function whose last input is that number: the values on a
    full grid of points and outputs, `n p`.

    They are those at `with_outputs(X, n_outputs)`. Under a kernel that is a product, as `Coregionalised` is, their covariance
    is k(X, X) ⊗ B: products of matrices as large as the points and the outputs stand for it wherever it is applied, and
    where all of them are observed it is solved in O(n³ + p³) (`Kronecker`).

    Observations are `n p`, and so is a mask. A variance of the noise (or a jitter) may be one number, one for each output,
    `p`, or one for each value.

    **Fields:** `X`: the points, `n d`, without the number of the output; `n_outputs`: p, at least 1, part of the structure.

    **Raises:** ValueError where `X` is not a finite `n d` array, or `n_outputs` is less than 1.
    """

    X: Float[Array, "n d"] = eqx.field(converter=as_points)
    n_outputs: int = eqx.field(static=True, converter=_fields.count("AllOutputs.n_outputs"))

    def apply(self, f: Function) -> Float[Array, "*s q"]:
        # Paths of such a kernel are functions of the points with one weight for each output.
        by_output = getattr(f, "at_outputs", None)
        values = None if by_output is None else by_output(self.X, self.n_outputs)
        if values is None:
            return f(self.points)
        return values.reshape(*values.shape[:-2], -1)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.X.shape[-2], self.n_outputs)

    @property
    def points(self) -> Float[Array, "q e"]:
        return with_outputs(self.X, self.n_outputs).reshape(self.size, self.dim)

    @property
    def dim(self) -> int:
        return self.X.shape[-1] + 1

    @property
    def grid(self) -> tuple[Float[Array, "n d"], int]:
        return self.X, self.n_outputs

    def spread(self, values: Float[Array, "..."]) -> Float[Array, "q"]:
        return self.of_outputs(values) if values.shape == (self.n_outputs,) else super().spread(values)

    def of_outputs(self, values: Float[Array, "p"]) -> Float[Array, "q"]:
        return jnp.broadcast_to(values[: self.n_outputs], self.shape).reshape(-1)

    def flatten_variances(self, values: Any, name: str) -> Any:
        shape, p = np.shape(values), self.n_outputs
        if shape not in ((p,), (), self.shape, (self.size,)):
            raise ValueError(
                f"`{name}` must be a number, one for each output, shape ({p},), or one for each value, {self.shape}; got "
                f"{shape}."
            )
        return values if shape == (p,) else self.flatten(values, name)

    def expanded(self, variances: Any) -> Any:
        if np.shape(variances) != (self.n_outputs,):
            return variances
        np_ = jnp if isinstance(variances, jax.Array) else np
        return np_.broadcast_to(np_.asarray(variances), self.shape)

    def by_output(
        self, B: Float[Array, "k p"], coefficients: Float[Array, "*s q"]
    ) -> "tuple[Float[Array, 'n d'], Float[Array, '*s k n']]":
        alpha = coefficients.reshape(-1, self.n_outputs)
        loaded = inner(alpha, B[:, : self.n_outputs]).reshape(*coefficients.shape[:-1], self.X.shape[0], B.shape[0])
        return self.X, jnp.swapaxes(loaded, -1, -2)

    def of_draws(self, features: AbstractFeatures, weights: Float[Array, "s f"]) -> Float[Array, "s q"]:
        parts = features.by_output(weights, self.n_outputs)
        if parts is None:
            return super().of_draws(features, weights)
        basis, by_output = parts
        return _point_by_point(inner_of_each(by_output, basis(self.X)))

    def along(
        self, kernel: AbstractKernel, Z: Float[Array, "m e"], coefficients: Float[Array, "s q"]
    ) -> Float[Array, "s m"]:
        parts = kernel.outputs(self.dim)
        if parts is None:
            return super().along(kernel, Z, coefficients)
        X, by_output = self.by_output(parts[1].astype(self.X.dtype), coefficients)
        return own_output(inner_of_each(by_output, parts[0].matrix(Z[:, :-1], X)), Z[:, -1])

    def of_kernel(self, kernel: AbstractKernel, Z: Float[Array, "m e"]) -> Float[Array, "m q"]:
        parts = kernel.outputs(self.dim)
        if parts is None:
            return kernel.matrix(Z, self.points)
        K, rows = parts[0].matrix(Z[:, :-1], self.X), self._covariance(parts[1]).T[Z[:, -1].astype(int)]
        return (K[:, :, None] * rows[:, None, :]).reshape(Z.shape[0], -1)

    def cross(self, kernel: AbstractKernel, other: AbstractFunctional) -> Float[Array, "q r"]:
        parts, grid = kernel.outputs(self.dim), other.grid
        if parts is None or grid is None:
            return other.of_kernel(kernel, self.points)
        return jnp.kron(Values(self.X).cross(parts[0], Values(grid[0])), self._covariance(parts[1])[:, : grid[1]])

    def times(self, kernel: AbstractKernel, other: AbstractFunctional, V: Float[Array, "s r"]) -> Float[Array, "s q"]:
        parts, grid = kernel.outputs(self.dim), other.grid
        if parts is None or grid is None:
            return super().times(kernel, other, V)
        # (K ⊗ B) v is K V Bᵀ.
        X, by_output = AllOutputs(*grid).by_output(self._covariance(parts[1]), V)
        return _point_by_point(inner_of_each(by_output, parts[0].matrix(self.X, X)))

    def gram(self, kernel: AbstractKernel) -> Float[Array, "q q"]:
        parts = kernel.outputs(self.dim)
        if parts is None:
            return Values(self.points).gram(kernel)
        return jnp.kron(Values(self.X).gram(parts[0]), self._covariance(parts[1])[:, : self.n_outputs])

    def diagonal(self, kernel: AbstractKernel) -> Float[Array, "q"]:
        return self._of_each(kernel, lambda kernel, X: kernel.diagonal(X))

    def noise(self, kernel: AbstractKernel) -> Float[Array, "q"]:
        return self._of_each(kernel, lambda kernel, X: kernel.noise(X))

    def valid(self, kernel: AbstractKernel) -> Literal[True] | Bool[Array, ""]:
        parts = kernel.outputs(self.dim)
        known = parts is not None and self.n_outputs <= parts[1].shape[0]
        return parts[0].valid(self.X) if parts is not None and known else super().valid(kernel)

    def where(self, mask: Bool[Array, "q"]) -> "AllOutputs":
        seen = jnp.any(mask.reshape(self.shape), axis=1)
        return self.of_rows(Values(self.X).where(seen).X)

    def take(self, numbers: Any) -> AbstractFunctional:
        p = self.n_outputs
        if isinstance(numbers, tuple) and numbers == tuple(i + j for i in numbers[::p] if i % p == 0 for j in range(p)):
            return self.of_rows(self.X[np.asarray(numbers[::p], int) // p])
        return Values(self.points[np.asarray(numbers) if isinstance(numbers, tuple) else numbers])

    @property
    def one_by_one(self) -> bool:
        return True

    def of_rows(self, rows: Float[Array, "b d"]) -> "AllOutputs":
        return AllOutputs(rows, self.n_outputs)

    def in_parts(
        self, function: Callable[[AbstractFunctional], Float[Array, "*s b"]], width: int, block_bytes: int | None = None
    ) -> Float[Array, "*s q"]:
        def block(rows: Float[Array, "b d"]) -> Float[Array, "*s p b"]:
            values = function(self.of_rows(rows))
            return jnp.swapaxes(values.reshape(*values.shape[:-1], *self.of_rows(rows).shape), -1, -2)

        values = jnp.swapaxes(map_rows(block, self.X, width * self.n_outputs, block_bytes), -1, -2)
        return values.reshape(*values.shape[:-2], math.prod(values.shape[-2:]))

    def rescaled(self, scaling: Any) -> "AllOutputs":
        return self.of_rows(scaling.original_inputs(self.X))

    def _of_each(
        self, kernel: AbstractKernel, variances: Callable[[AbstractKernel, Array], Array]
    ) -> Float[Array, "q"]:
        """Variances, of which each is that of the point times that of the output."""
        parts = kernel.outputs(self.dim)
        if parts is None:
            return variances(kernel, self.points)
        of_outputs = jnp.diagonal(self._covariance(parts[1]))
        return (variances(parts[0], self.X)[:, None] * of_outputs[None, :]).reshape(-1)

    def _covariance(self, B: Float[Array, "k k"]) -> Float[Array, "p k"]:
        """The rows of B of the outputs that are looked at."""
        return B[: self.n_outputs].astype(self.X.dtype)


def _point_by_point(values: Float[Array, "s p n"]) -> Float[Array, "s np"]:
    return jnp.swapaxes(values, 1, 2).reshape(values.shape[0], -1)
