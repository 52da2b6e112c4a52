"""Features of wide one-layer networks."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._numerics.linalg import inner
from .base import AbstractFeatures


class RectifiedFeatures(AbstractFeatures):
    """φ_j(x) = a_j Θ(v_j·x) (v_j·x)ⁿ: steps, ramps (ReLU) or half parabolas; Θ(0) = ½.

    **Fields:** `directions`: v, `f d`; `amplitudes`: a, `f`; `order`: n = 0, 1 or 2.
    """

    directions: Float[Array, "f d"]
    amplitudes: Float[Array, "f"]
    order: int = eqx.field(static=True)

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n f"]:
        a = inner(X, self.directions.astype(X.dtype))
        shape = jnp.heaviside(a, jnp.asarray(0.5, a.dtype)) if self.order == 0 else jnp.maximum(a, 0) ** self.order
        return self.amplitudes.astype(X.dtype)[None, :] * shape
