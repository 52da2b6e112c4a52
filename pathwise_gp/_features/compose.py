"""Bases made of bases."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .base import AbstractFeatures


class ConcatenatedFeatures(AbstractFeatures):
    """The basis of a sum of kernels: the parts' features side by side."""

    parts: tuple[AbstractFeatures, ...]

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n f"]:
        return jnp.concatenate([part(X) for part in self.parts], axis=1)


class ProductFeatures(AbstractFeatures):
    """The basis of a product of kernels: every product of one feature from each part."""

    parts: tuple[AbstractFeatures, ...]

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n f"]:
        n = X.shape[0]
        product = jnp.ones((n, 1), X.dtype)
        for part in self.parts:
            product = (product[:, :, None] * part(X)[:, None, :]).reshape(n, -1)
        return product


class SelectedFeatures(AbstractFeatures):
    """A basis that sees some of the input dimensions. **Fields:** `features`; `columns`: their indices, `k`."""

    features: AbstractFeatures
    columns: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n f"]:
        return self.features(X[:, jnp.asarray(self.columns)])
