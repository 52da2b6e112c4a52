"""Bases that are exact with finitely many functions."""

import itertools
import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
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


class MonomialFeatures(AbstractFeatures):
    """All monomials of x and c up to a total degree p, scaled so that φ(x)ᵀφ(z) = scale² (x·z + c²)ᵖ.

    There are C(d + p, p), one for each way to write p = m₀ + m₁ + … + m_d: √(p!/Πmᵢ!) c^m₀ Π xᵢ^mᵢ (the multinomial theorem).

    **Fields:** `scale`, `constant` (c): scalars; `degree`: p.
    """

    scale: Float[Array, ""]
    constant: Float[Array, ""]
    degree: int = eqx.field(static=True)

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n f"]:
        n, dim = X.shape
        # Each monomial as the p letters it is a product of; the last letter is the constant.
        letters = np.array(list(itertools.combinations_with_replacement(range(dim + 1), self.degree)))
        counts = [math.prod(math.factorial(int(m)) for m in np.bincount(word)) for word in letters]
        ways = np.sqrt(math.factorial(self.degree) / np.array(counts, float))
        alphabet = jnp.concatenate([X, jnp.full((n, 1), self.constant.astype(X.dtype))], axis=1)
        product = jnp.broadcast_to(self.scale.astype(X.dtype) * jnp.asarray(ways, X.dtype)[None, :], (n, len(letters)))
        for letter in letters.T:
            product = product * alphabet[:, letter]
        return product


class TableFeatures(AbstractFeatures):
    """φ(x) = row x of a table, for inputs that are whole numbers. **Fields:** `table`: `p f`."""

    table: Float[Array, "p f"]

    def __call__(self, X: Float[Array, "n 1"]) -> Float[Array, "n f"]:
        return self.table.astype(X.dtype)[X[:, 0].astype(int)]


class NoFeatures(AbstractFeatures):
    """The empty basis, of functions that are known to be zero: no features."""

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n 0"]:
        return jnp.zeros((X.shape[0], 0), X.dtype)

    def by_output(self, weights: Float[Array, "*s 0"], p: int) -> "tuple[AbstractFeatures, Float[Array, '*s p 0']]":
        return self, jnp.zeros((*weights.shape[:-1], p, 0), weights.dtype)

    def in_units(self, of_inputs: Any, scale: Float[Array, "p"]) -> "NoFeatures":
        return self

    def split(self, n_terms: int) -> tuple[tuple[AbstractFeatures, np.ndarray], ...]:
        return ((self, np.arange(0)),) * n_terms
