"""Values at points."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .. import _checks, _means
from .._features import AbstractFeatures
from .._kernels import AbstractKernel
from .._numerics.blocks import map_rows, matrix_by_rows
from .._types import Numbers
from .base import AbstractFunctional
from .of_points import AbstractOfPoints
from .operators import Function


def as_points(X: Numbers) -> Array:
    """Points `n d`, or an error."""
    # The library makes these of inputs that have been looked at, of none too.
    return X if isinstance(X, Array) and X.ndim == 2 else _checks.points(X, "X")


class Values(AbstractOfPoints):
    """f(X): the values at points, which an array `X` stands for wherever a functional is taken.

    **Fields:** `X`: the points, `n d`. **Raises:** ValueError where it is not a finite `n d` array.
    """

    X: Float[Array, "n d"] = eqx.field(converter=as_points)

    def apply(self, f: Function) -> Float[Array, "*s n"]:
        return f(self.X)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.X.shape[-2],)

    def of_mean(self, mean: Function) -> Float[Array, "n"]:
        return _means.evaluate(mean, self.X)

    def of_features(self, features: AbstractFeatures) -> Float[Array, "n f"]:
        return features(self.X)

    def of_draws(self, features: AbstractFeatures, weights: Float[Array, "s f"]) -> Float[Array, "s n"]:
        return features.draws(self.X, weights)

    def times(self, kernel: AbstractKernel, other: AbstractFunctional, V: Float[Array, "s q"]) -> Float[Array, "s n"]:
        return other.along(kernel, self.X, V)

    def of_kernel(self, kernel: AbstractKernel, Z: Float[Array, "m d"]) -> Float[Array, "m n"]:
        return kernel.matrix(Z, self.X)

    def cross(self, kernel: AbstractKernel, other: AbstractFunctional) -> Float[Array, "n q"]:
        return map_rows(lambda rows: other.of_kernel(kernel, rows), self.X, other.width, axis=0)

    def gram(self, kernel: AbstractKernel) -> Float[Array, "n n"]:
        # A reverse-mode derivative has temporaries as large as the matrix, several for each dimension: of some rows at once.
        return matrix_by_rows(lambda rows: kernel.matrix(rows, self.X), self.X, (2 + self.dim) * self.size)

    def diagonal(self, kernel: AbstractKernel) -> Float[Array, "n"]:
        return kernel.diagonal(self.X)

    def noise(self, kernel: AbstractKernel) -> Float[Array, "n"]:
        return kernel.noise(self.X)

    def by_output(
        self, B: Float[Array, "p p"], coefficients: Float[Array, "*s n"]
    ) -> "tuple[Float[Array, 'n d'], Float[Array, '*s p n']]":
        loading = B[:, self.X[:, -1].astype(int)]
        alpha = coefficients[..., None, :]
        return self.X[:, :-1], alpha * loading.reshape(*(1,) * (alpha.ndim - 2), *loading.shape)

    def of_outputs(self, values: Float[Array, "p"]) -> Float[Array, "n"]:
        return values[self.X[:, -1].astype(int)]

    @property
    def width(self) -> int:
        return self.X.shape[-2]

    def where(self, mask: Bool[Array, "n"]) -> "Values":
        # What was not observed may lie anywhere.
        return Values(jnp.where(mask[:, None], self.X, self.X[jnp.argmax(mask)][None, :]))

    def of_rows(self, rows: Float[Array, "b d"]) -> "Values":
        return Values(rows)

    def in_parts(
        self, function: Callable[[AbstractFunctional], Float[Array, "*s b"]], width: int, block_bytes: int | None = None
    ) -> Float[Array, "*s n"]:
        return map_rows(lambda rows: function(Values(rows)), self.X, width, block_bytes)

    def rescaled(self, scaling: Any) -> "Values":
        return Values(scaling.original_inputs(self.X))
