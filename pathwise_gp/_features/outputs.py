"""Bases of several outputs."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._numerics.outputs import inner_of_each, own_output
from .base import AbstractFeatures, as_features


class OutputFeatures(AbstractFeatures):
    """φ((x, i)) = ψ(x) ⊗ R_i, the basis of a kernel of the inputs times B = R Rᵀ of the number i of the output, which is the
    last column.

    **Fields:** `features`: ψ, of all columns but the last; `root`: R, `p c`.
    """

    features: AbstractFeatures = eqx.field(converter=as_features)
    root: Float[Array, "p c"]

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n fc"]:
        rows = self.root.astype(X.dtype)[X[:, -1].astype(int)]
        return (self.features(X[:, :-1])[:, :, None] * rows[:, None, :]).reshape(X.shape[0], -1)

    def draws(self, X: Float[Array, "n d"], weights: Float[Array, "s fc"]) -> Float[Array, "s n"]:
        # Of all outputs that of each row: the products of features with columns of the root are not made for every row.
        basis, by_output = self.by_output(weights, self.root.shape[0])
        return own_output(inner_of_each(by_output, basis(X[:, :-1])), X[:, -1])

    def covers(self, X: Float[Array, "n d"]) -> Literal[True] | Bool[Array, ""]:
        return self.features.covers(X[:, :-1])

    def about(self, point: Float[Array, "d"]) -> "OutputFeatures":
        return OutputFeatures(self.features.about(point[:-1]), self.root)

    def by_output(self, weights: Float[Array, "*s fc"], p: int) -> "tuple[AbstractFeatures, Float[Array, '*s p f']]":
        root = self.root[:p].astype(weights.dtype)
        split = weights.reshape(*weights.shape[:-1], -1, root.shape[1])
        return self.features, jnp.einsum("pc,...fc->...pf", root, split, precision=jax.lax.Precision.HIGHEST)

    def in_units(self, of_inputs: Any, scale: Float[Array, "p"]) -> "OutputFeatures":
        return OutputFeatures(of_inputs(self.features), self.root * scale.astype(self.root.dtype)[:, None])
