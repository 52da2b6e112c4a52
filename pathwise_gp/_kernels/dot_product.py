"""Kernels of the inner product, whose bases are exact."""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks, _fields
from .._features import (
    AbstractBasis,
    ConstantFeatures,
    Coordinates,
    LinearFeatures,
    MonomialFeatures,
    QuasiMonteCarlo,
)
from .._numerics.linalg import inner
from .._types import Key
from .base import AbstractKernel, Spectrum


class Linear(AbstractKernel):
    """k(x, z) = variance · x·z: linear functions through the origin, with d exact features.

    **Fields:** `variance`: a scalar, positive, in squared units of the values per squared unit of the input.

    **Raises:** ValueError where it is not positive or not a scalar.
    """

    variance: Float[Array, ""] = eqx.field(converter=_fields.positive)

    def smoothness(self, dim: int) -> float:
        return math.inf

    def matrix(self, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return self.variance.astype(X.dtype) * inner(X, Z)

    def diagonal(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return self.variance.astype(X.dtype) * jnp.sum(X * X, axis=1)

    def basis_size(self, dim: int) -> int:
        return dim

    def features(
        self, n_features: int, dim: int, *, key: Key, basis: AbstractBasis = QuasiMonteCarlo()
    ) -> LinearFeatures:
        _checks.count(n_features, "n_features")
        return LinearFeatures(jnp.sqrt(self.variance))

    def __check_init__(self):
        _fields.check_scalar(self, "variance")


class Polynomial(AbstractKernel):
    """k(x, z) = variance · (x·z + offset)ᵖ: polynomials of degree p, with C(d + p, p) exact features, the monomials.

    **Fields:**

    - `variance`: a scalar, positive; in squared units of the values per 2p-th power of the unit of the input.
    - `offset`: a scalar, positive, in squared units of the input: the weight of the lower degrees.
    - `degree`: p, a whole number of at least 1; part of the structure, not a leaf.

    **Raises:** ValueError where a field is not positive, not a scalar, or `degree` is not a whole number of at least 1.
    Source: Rasmussen & Williams (2006), section 4.2.2.
    """

    variance: Float[Array, ""] = eqx.field(converter=_fields.positive)
    offset: Float[Array, ""] = eqx.field(converter=_fields.positive)
    degree: int = eqx.field(static=True, default=2, converter=_fields.count("Polynomial.degree"))

    def smoothness(self, dim: int) -> float:
        return math.inf

    def matrix(self, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
        base = inner(X, Z) + self.offset.astype(X.dtype)
        return self.variance.astype(X.dtype) * base**self.degree

    def diagonal(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        base = jnp.sum(X * X, axis=1) + self.offset.astype(X.dtype)
        return self.variance.astype(X.dtype) * base**self.degree

    def basis_size(self, dim: int) -> int:
        return math.comb(dim + self.degree, self.degree)

    def features(
        self, n_features: int, dim: int, *, key: Key, basis: AbstractBasis = QuasiMonteCarlo()
    ) -> MonomialFeatures:
        _checks.count(n_features, "n_features")
        return MonomialFeatures(jnp.sqrt(self.variance), jnp.sqrt(self.offset), self.degree)

    def __check_init__(self):
        _fields.check_scalar(self, "variance", "offset")


class Constant(AbstractKernel):
    """k(x, z) = variance: constant functions, with one exact feature.

    **Fields:** `variance`: a scalar, positive, in squared units of the values.

    **Raises:** ValueError where it is not positive or not a scalar.
    """

    variance: Float[Array, ""] = eqx.field(converter=_fields.positive)

    def smoothness(self, dim: int) -> float:
        return math.inf

    def matrix(self, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return jnp.full((X.shape[0], Z.shape[0]), self.variance.astype(X.dtype))

    def diagonal(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return jnp.full((X.shape[0],), self.variance.astype(X.dtype))

    def basis_size(self, dim: int) -> int:
        return 1

    def coordinates(self, dim: int) -> Coordinates:
        return Coordinates(0)

    def spectrum(self, normals: Float[Array, "h r"], dim: int) -> Spectrum:
        h = normals.shape[0]
        return Spectrum(jnp.zeros((h, dim), self.variance.dtype), jnp.broadcast_to(self.variance, (h,)))

    def features(
        self, n_features: int, dim: int, *, key: Key, basis: AbstractBasis = QuasiMonteCarlo()
    ) -> ConstantFeatures:
        _checks.count(n_features, "n_features")
        return ConstantFeatures(jnp.sqrt(self.variance))

    def __check_init__(self):
        _fields.check_scalar(self, "variance")
