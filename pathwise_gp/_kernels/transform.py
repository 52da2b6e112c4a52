"""Kernels of transformed inputs."""

import operator
from collections.abc import Callable, Iterable
from typing import Any, Literal, SupportsIndex

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._features import (
    AbstractBasis,
    AbstractFeatures,
    Coordinates,
    QuasiMonteCarlo,
    SelectedFeatures,
    WarpedFeatures,
)
from .._types import Key
from .base import AbstractKernel, Spectrum


def _as_dims(dims: Iterable[SupportsIndex]) -> tuple[int, ...]:
    try:
        return tuple(operator.index(i) for i in dims)
    except TypeError as e:
        raise ValueError(f"`ActiveDims.dims` must be a sequence of whole numbers; got {dims!r}.") from e


class ActiveDims(AbstractKernel):
    """k(x, z) = kernel(x[dims], z[dims]): a kernel of some of the input dimensions.

    **Fields:**

    - `kernel`: of as many dimensions as are named.
    - `dims`: indices of the dimensions it sees, counted from 0; part of the structure, not a leaf.

    **Raises:** ValueError where `dims` is empty, repeats an index, holds a negative one, or one beyond the inputs.
    """

    kernel: AbstractKernel
    dims: tuple[int, ...] = eqx.field(static=True, converter=_as_dims)

    def matrix(self, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return self.kernel.matrix(self._select(X), self._select(Z))

    def diagonal(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return self.kernel.diagonal(self._select(X))

    def noise(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return self.kernel.noise(self._select(X))

    def check_dim(self, dim: int) -> None:
        if max(self.dims) >= dim:
            raise ValueError(f"`ActiveDims.dims` is {self.dims}, but the inputs have {dim} dimension(s).")
        self.kernel.check_dim(len(self.dims))

    def valid(self, X: Float[Array, "n d"]) -> Literal[True] | Bool[Array, ""]:
        return self.kernel.valid(self._select(X))

    def has_basis(self, dim: int) -> bool:
        return self.kernel.has_basis(len(self.dims))

    def smoothness(self, dim: int) -> float:
        return self.kernel.smoothness(len(self.dims))

    def categories(self, dim: int) -> tuple[int, ...]:
        return tuple(self.dims[i] for i in self.kernel.categories(len(self.dims)))

    def terms(self, dim: int) -> tuple[AbstractKernel, ...]:
        return tuple(ActiveDims(term, self.dims) for term in self.kernel.terms(len(self.dims)))

    def factors(self, dim: int) -> tuple[AbstractKernel, ...]:
        return tuple(ActiveDims(factor, self.dims) for factor in self.kernel.factors(len(self.dims)))

    def basis_size(self, dim: int) -> int | None:
        return self.kernel.basis_size(len(self.dims))

    def coordinates(self, dim: int) -> Coordinates | None:
        return self.kernel.coordinates(len(self.dims))

    def is_stationary(self, dim: int) -> bool:
        return self.kernel.is_stationary(len(self.dims))

    def spectrum(self, normals: Float[Array, "h r"], dim: int) -> Spectrum:
        spectrum = self.kernel.spectrum(normals, len(self.dims))
        frequencies = jnp.zeros((normals.shape[0], dim), spectrum.frequencies.dtype)
        return spectrum._replace(frequencies=frequencies.at[:, np.asarray(self.dims)].set(spectrum.frequencies))

    def random_features(self, normals: Float[Array, "h r"], weights: Float[Array, "h"], dim: int) -> AbstractFeatures:
        return SelectedFeatures(self.kernel.random_features(normals, weights, len(self.dims)), self.dims)

    def features(
        self, n_features: int, dim: int, *, key: Key, basis: AbstractBasis = QuasiMonteCarlo()
    ) -> AbstractFeatures:
        self.check_dim(dim)
        selected = self.kernel.features(n_features, len(self.dims), key=key, basis=basis.select(self.dims))
        return SelectedFeatures(selected, self.dims)

    def label(self) -> str:
        return self.kernel.label()

    def _select(self, X: Float[Array, "n d"]) -> Float[Array, "n k"]:
        return X[:, np.asarray(self.dims)]

    def __check_init__(self):
        if not isinstance(self.kernel, AbstractKernel):
            raise ValueError(f"`ActiveDims.kernel` must be a kernel; got {self.kernel!r}.")
        if not self.dims or len(set(self.dims)) < len(self.dims) or min(self.dims) < 0:
            raise ValueError(f"`ActiveDims.dims` must be different indices, 0 or above; got {self.dims}.")


class _PointwiseMap(eqx.Module):
    """A map of one point, applied to many, with its arrays in their dtype."""

    transform: Callable[..., Any]

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n ..."]:
        cast = lambda leaf: leaf.astype(X.dtype) if eqx.is_inexact_array(leaf) else leaf
        transform = jax.tree.map(cast, self.transform)
        return jax.vmap(lambda x: jnp.atleast_1d(transform(x)))(X)


class Warped(AbstractKernel):
    """k(x, z) = kernel(g(x), g(z)): a kernel of transformed inputs, which in general is not stationary.

    With a neural network for g it is a deep kernel (Wilson et al. 2016); the arrays of g get gradients like any field.

    **Fields:**

    - `kernel`: of as many dimensions as g returns.
    - `transform`: g, a callable that maps one point, `d`, to `k` numbers (or to a scalar): any Equinox module, such as
      `equinox.nn.MLP`, or a function.

    **Raises:** ValueError where `kernel` is not a kernel or `transform` not callable; at use, where `transform` does not
    take a point of the inputs or does not return a vector that the kernel fits.
    """

    kernel: AbstractKernel
    transform: Callable[..., Any]

    def matrix(self, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return self.kernel.matrix(self._map(X), self._map(Z))

    def diagonal(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return self.kernel.diagonal(self._map(X))

    def noise(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return self.kernel.noise(self._map(X))

    def check_dim(self, dim: int) -> None:
        self.kernel.check_dim(self._dim(dim))

    def valid(self, X: Float[Array, "n d"]) -> Literal[True] | Bool[Array, ""]:
        return self.kernel.valid(self._map(X))

    def has_basis(self, dim: int) -> bool:
        return self.kernel.has_basis(self._dim(dim))

    def smoothness(self, dim: int) -> float:
        # The transform is believed to have as many derivatives.
        return self.kernel.smoothness(self._dim(dim))

    def terms(self, dim: int) -> tuple[AbstractKernel, ...]:
        return tuple(Warped(term, self.transform) for term in self.kernel.terms(self._dim(dim)))

    def factors(self, dim: int) -> tuple[AbstractKernel, ...]:
        return tuple(Warped(factor, self.transform) for factor in self.kernel.factors(self._dim(dim)))

    def basis_size(self, dim: int) -> int | None:
        return self.kernel.basis_size(self._dim(dim))

    def coordinates(self, dim: int) -> Coordinates | None:
        return self.kernel.coordinates(self._dim(dim))

    def is_stationary(self, dim: int) -> bool:
        return False

    def random_features(self, normals: Float[Array, "h r"], weights: Float[Array, "h"], dim: int) -> AbstractFeatures:
        return WarpedFeatures(self.kernel.random_features(normals, weights, self._dim(dim)), self._map)

    def features(
        self, n_features: int, dim: int, *, key: Key, basis: AbstractBasis = QuasiMonteCarlo()
    ) -> AbstractFeatures:
        self.check_dim(dim)
        features = self.kernel.features(n_features, self._dim(dim), key=key, basis=basis.warp())
        return WarpedFeatures(features, self._map)

    def label(self) -> str:
        return self.kernel.label()

    @property
    def _map(self) -> _PointwiseMap:
        return _PointwiseMap(self.transform)

    def _dim(self, dim: int) -> int:
        """The number of dimensions that the transform returns."""
        point = np.zeros((1, dim), np.result_type(jnp.result_type(float)))
        try:
            image = eqx.filter_eval_shape(_PointwiseMap.__call__, self._map, point)
        except Exception as e:
            raise ValueError(
                f"`Warped.transform` must map one point, shape ({dim},), to a vector; it failed: {e}"
            ) from e
        if len(image.shape) != 2 or image.shape[1] == 0:
            raise ValueError(
                f"`Warped.transform` must map one point, shape ({dim},), to a vector; it returned shape {image.shape[1:]}."
            )
        return image.shape[1]

    def __check_init__(self):
        if not isinstance(self.kernel, AbstractKernel):
            raise ValueError(f"`Warped.kernel` must be a kernel; got {self.kernel!r}.")
        if not callable(self.transform):
            raise ValueError(f"`Warped.transform` must be callable; got {self.transform!r}.")
