"""Kernels of the inner product, whose bases are exact."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks, _fields
from .._features import ConstantFeatures, LinearFeatures
from .._numerics.linalg import inner
from .._types import Key
from .base import AbstractKernel


class Linear(AbstractKernel):
    """k(x, z) = variance · x·z: linear functions through the origin, with d exact features.

    **Fields:** `variance`: a scalar, positive, in squared units of the values per squared unit of the input.

    **Raises:** ValueError where it is not positive or not a scalar.
    """

    variance: Float[Array, ""] = _fields.positive()

    def matrix(self, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return self.variance.astype(X.dtype) * inner(X, Z)

    def diagonal(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return self.variance.astype(X.dtype) * jnp.sum(X * X, axis=1)

    def basis_size(self, dim: int) -> int:
        return dim

    def features(self, n_features: int, dim: int, *, key: Key) -> LinearFeatures:
        _checks.count(n_features, "n_features")
        return LinearFeatures(jnp.sqrt(self.variance))

    def __check_init__(self):
        _fields.check_scalar(self, "variance")


class Constant(AbstractKernel):
    """k(x, z) = variance: constant functions, with one exact feature.

    **Fields:** `variance`: a scalar, positive, in squared units of the values.

    **Raises:** ValueError where it is not positive or not a scalar.
    """

    variance: Float[Array, ""] = _fields.positive()

    def matrix(self, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return jnp.full((X.shape[0], Z.shape[0]), self.variance.astype(X.dtype))

    def diagonal(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return jnp.full((X.shape[0],), self.variance.astype(X.dtype))

    def basis_size(self, dim: int) -> int:
        return 1

    def features(self, n_features: int, dim: int, *, key: Key) -> ConstantFeatures:
        _checks.count(n_features, "n_features")
        return ConstantFeatures(jnp.sqrt(self.variance))

    def __check_init__(self):
        _fields.check_scalar(self, "variance")
