"""Bases that are exact with finitely many functions."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .base import AbstractFeatures


class ConstantFeatures(AbstractFeatures):
    """φ(x) = scale: one feature. **Fields:** `scale`: a scalar."""

    scale: Float[Array, ""]

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n 1"]:
        return jnp.full((X.shape[0], 1), self.scale.astype(X.dtype))


class LinearFeatures(AbstractFeatures):
    """φ(x) = scale · x: d features. **Fields:** `scale`: a scalar."""

    scale: Float[Array, ""]

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n d"]:
        return self.scale.astype(X.dtype) * X


class NoFeatures(AbstractFeatures):
    """The empty basis, of functions that are known to be zero: no features."""

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n 0"]:
        return jnp.zeros((X.shape[0], 0), X.dtype)
