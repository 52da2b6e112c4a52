"""A basis for any kernel: what it says of some points determines the rest (Nyström's method)."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .. import _fields
from .._numerics.lapack import cholesky
from .._numerics.linalg import add_diagonal, CholeskyFactor, seen
from .._numerics.pivots import pivoted_cholesky
from .._numerics.sobol import sobol
from .._types import Key
from .base import AbstractFeatures
from .box import inside, widened
from .sampling import AbstractBasis

# Points to choose from beside those that are given, and how many are chosen, or given, at the most.
_SPREAD, _MOST, _GIVEN = 512, 512, 2048
# What is added to their covariance, in units of the rounding of its factor.
_ROUNDINGS = 10


class NystromFeatures(AbstractFeatures):
    """φ(x) = L⁻¹k(Z, x) with k(Z, Z) = L Lᵀ: φ(x)ᵀφ(z) = k(x, Z)k(Z, Z)⁻¹k(Z, z), which is k(x, z) where x or z is in Z.

    It holds in a box, beyond which the points Z say little. A value costs O(f²).

    **Fields:** `kernel`: k; `points`: Z, `f d`; `factor`: of k(Z, Z); `found`: False for points that say nothing new, whose
    features are 0, `f`; `lower`, `upper`: the box, `d`.
    """

    kernel: Any
    points: Float[Array, "f d"]
    factor: Float[Array, "f f"]
    found: Bool[Array, "f"]
    lower: Float[Array, "d"]
    upper: Float[Array, "d"]

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n f"]:
        k = self.kernel.matrix(X, self.points.astype(X.dtype))
        return CholeskyFactor(self.factor.astype(X.dtype), self.found).whiten(k)

    def covers(self, X: Float[Array, "n d"]) -> Bool[Array, ""]:
        return inside(X, self.lower, self.upper)


class Nystrom(AbstractBasis):
    """Features from some points of the region of the data: for a kernel of which only its values are known (a Gibbs kernel,
    one of a user's own), for which it is the default.

    Of the points that paths are conditioned on and 512 more, spread over their range widened by a quarter on each side, those
    are chosen, one after the other, where the variance given those before is largest: at most as many as the features that
    were asked for, and 512. The variance of a path is too small by what they leave open, of which `feature_error` tells.
    Outside of that range paths raise an error.

    **Fields:** `points`: the region, `n d`; unless given, the points that paths are conditioned on.

    **Raises:** ValueError where `points` is not a finite `n d` array, and, when features are made, where there are none.
    Source: Williams & Seeger (2001); the choice, Burt et al. (2020), section 4.2.
    """

    points: Float[Array, "n d"] | None = eqx.field(converter=_fields.optional(_fields.points("points")), default=None)

    @property
    def multiplies(self) -> bool:
        return False

    def select(self, dims: tuple[int, ...]) -> "Nystrom":
        return Nystrom(None if self.points is None else self.points[:, np.asarray(dims)])

    def warp(self) -> "Nystrom":
        return Nystrom()

    def fit(self, X: Float[Array, "n d"]) -> "Nystrom":
        return self if self.points is not None else Nystrom(X)

    def features(self, kernel: Any, n_features: int, dim: int, *, key: Key) -> NystromFeatures:
        if self.points is None or self.points.shape[0] == 0:
            raise ValueError(
                f"`{kernel.label()}` has no basis of its own, and `Nystrom` needs `points` to make one from: none are known "
                "here, or a transform hides them."
            )
        # Which points are chosen has no derivative.
        given = jax.lax.stop_gradient(self.points[:: -(-self.points.shape[0] // _GIVEN)])
        lower, upper = widened(given)
        uniform = (sobol(jax.random.key(0), _SPREAD, dim).astype(given.dtype) + 0.5) * 2.0**-32
        spread = lower[None, :] + uniform * (upper - lower)[None, :]
        # Where the kernel has a domain of its own the box may leave it.
        candidates = jnp.concatenate([given, spread]) if kernel.valid(given) is True else given
        m = min(n_features, candidates.shape[0], _MOST)
        fixed = jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_array(leaf) else leaf, kernel)
        row = lambda i: fixed.matrix(candidates[i][None, :], candidates)[0]
        chosen, _, found = pivoted_cholesky(row, fixed.diagonal(candidates), m)
        Z = candidates[chosen]
        K = kernel.matrix(Z, Z)
        rounding = m * jnp.finfo(Z.dtype).eps * jnp.diagonal(K)
        factor = cholesky(seen(add_diagonal(K, _ROUNDINGS * rounding), found))
        return NystromFeatures(kernel, Z, factor, found, lower, upper)
