"""Kernels of transformed inputs."""

import operator
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._features import AbstractFeatures, SelectedFeatures
from .._types import Key
from .base import AbstractKernel, Spectrum


def _as_dims(dims: Any) -> tuple[int, ...]:
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
        columns = jnp.asarray(self.dims)
        return self.kernel.matrix(X[:, columns], Z[:, columns])

    def diagonal(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return self.kernel.diagonal(X[:, jnp.asarray(self.dims)])

    def check_dim(self, dim: int) -> None:
        if max(self.dims) >= dim:
            raise ValueError(f"`ActiveDims.dims` is {self.dims}, but the inputs have {dim} dimension(s).")
        self.kernel.check_dim(len(self.dims))

    def terms(self) -> tuple[AbstractKernel, ...]:
        return tuple(ActiveDims(term, self.dims) for term in self.kernel.terms())

    def factors(self) -> tuple[AbstractKernel, ...]:
        return tuple(ActiveDims(factor, self.dims) for factor in self.kernel.factors())

    def basis_size(self, dim: int) -> int | None:
        return self.kernel.basis_size(len(self.dims))

    def spectrum(self, n: int, dim: int, *, key: Key) -> Spectrum | None:
        spectrum = self.kernel.spectrum(n, len(self.dims), key=key)
        if spectrum is None:
            return None
        frequencies = jnp.zeros((n, dim), spectrum.frequencies.dtype)
        return Spectrum(frequencies.at[:, jnp.asarray(self.dims)].set(spectrum.frequencies), spectrum.weights)

    def features(self, n_features: int, dim: int, *, key: Key) -> AbstractFeatures:
        self.check_dim(dim)
        return SelectedFeatures(self.kernel.features(n_features, len(self.dims), key=key), self.dims)

    def __check_init__(self):
        if not isinstance(self.kernel, AbstractKernel):
            raise ValueError(f"`ActiveDims.kernel` must be a kernel; got {self.kernel!r}.")
        if not self.dims or len(set(self.dims)) < len(self.dims) or min(self.dims) < 0:
            raise ValueError(f"`ActiveDims.dims` must be different indices, 0 or above; got {self.dims}.")
