"""The Hilbert-space basis: eigenfunctions of the Laplacian on a box (Solin & Särkkä 2020)."""

import itertools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .. import _checks, _fields
from .._numerics.trigonometry import sin_turns
from .._types import Key, Numbers
from .base import AbstractFeatures
from .box import inside, widened
from .sampling import AbstractBasis

# Of each feature kept in several dimensions, so many are looked at.
_CANDIDATES = 4


class SineFeatures(AbstractFeatures):
    """φ_j(x) = a_j Π_i sin(π j_i (x_i − c_i + L_i) / (2L_i)), for x in a box inside c ± L.

    **Fields:** `orders`: j, `f d`, whole numbers; `amplitudes`: a, `f`; `centre`, `half_width` (L), `lower` and `upper` (the
    box): `d`.
    """

    orders: Float[Array, "f d"]
    amplitudes: Float[Array, "f"]
    centre: Float[Array, "d"]
    half_width: Float[Array, "d"]
    lower: Float[Array, "d"]
    upper: Float[Array, "d"]

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n f"]:
        cast = lambda leaf: leaf.astype(X.dtype)
        half_width = cast(self.half_width)[None, :]
        quarter_turns = (X - cast(self.centre)[None, :] + half_width) / (4 * half_width)
        product = jnp.broadcast_to(cast(self.amplitudes)[None, :], (X.shape[0], self.amplitudes.shape[0]))
        for i in range(X.shape[1]):
            product = product * sin_turns(quarter_turns[:, i, None] * cast(self.orders)[None, :, i])
        return product

    def covers(self, X: Float[Array, "n d"]) -> Bool[Array, ""]:
        return inside(X, self.lower, self.upper)


def _as_box(box: Numbers) -> Array:
    box = _checks.floating(box, "box")
    if box.ndim != 2 or box.shape[0] != 2 or box.shape[1] == 0:
        raise ValueError(f"`box` must have shape (2, d), the lower and the upper corner; got {box.shape}.")
    _checks.finite(box, "box")
    if _checks.is_concrete(box) and np.any(np.asarray(box)[0] > np.asarray(box)[1]):
        raise ValueError(f"`box` must hold the lower corner first; got {np.asarray(box)}.")
    return box


class HilbertSpace(AbstractBasis):
    """A deterministic basis for few dimensions: k(x, z) ≈ Σ_j S(√λ_j) φ_j(x) φ_j(z) with the eigenvalues λ_j and
    eigenfunctions φ_j of the Laplacian on a box, and the spectral density S of the kernel.

    Given as `features=` to a sampler. In one dimension its error falls exponentially for smooth kernels; in d dimensions it
    takes the d-th power of the number of features, so that random ones win from four on. It serves stationary kernels with a
    spectral density (RBF, Matérn, rational quadratic, spectral mixtures), their sums, and products of these and exact bases.
    In several dimensions it keeps those of largest density among the 4F eigenfunctions of least |j|², so that lengthscales
    should not differ by much in units of the box.

    **Fields:**

    - `box`: the region where paths will be evaluated, `2 d`, lower and upper corner; unless given, the range of the points
      that the paths are conditioned on, widened by a quarter on each side. Outside it paths raise an error.
    - `boundary`: half the width of the region of the eigenfunctions, in units of half the box, above 1; unless given, as much
      as brings the correlation with the nearest image behind the boundary to 1e-4 (Riutort-Mayol et al. 2023 give rules of
      thumb for the same).

    **Raises:** ValueError where `box` is not `2 d` or its corners are exchanged, or `boundary` is not above 1. Source:
    Solin & Särkkä (2020), equations 20 and 60.
    """

    box: Float[Array, "2 d"] | None = eqx.field(converter=_fields.optional(_as_box), default=None)
    boundary: float | int | None = eqx.field(static=True, default=None)

    @property
    def multiplies(self) -> bool:
        return True

    @property
    def remedy(self) -> str:
        return (
            "give `HilbertSpace` a larger `boundary`, or none. For a kernel that is not smooth random features are better: "
            "`features=QuasiMonteCarlo()`"
        )

    def fit(self, X: Float[Array, "n d"]) -> "HilbertSpace":
        if self.box is not None:
            if self.box.shape[1] != X.shape[1]:
                raise ValueError(f"`box` has {self.box.shape[1]} dimension(s), but the inputs have {X.shape[1]}.")
            return self
        if X.shape[0] == 0:
            raise ValueError("`HilbertSpace` needs a `box` where there are no points to find one from.")
        return HilbertSpace(jnp.stack(widened(X)), self.boundary)

    def select(self, dims: tuple[int, ...]) -> "HilbertSpace":
        box = None if self.box is None else self.box[:, np.asarray(dims)]
        return HilbertSpace(box, self.boundary)

    def warp(self) -> "HilbertSpace":
        return HilbertSpace(None, self.boundary)

    def features(self, kernel: Any, n_features: int, dim: int, *, key: Key) -> SineFeatures:
        if self.box is None:
            raise ValueError(
                "`HilbertSpace` needs a `box` here: no points are known to find one from, or a transform hides them "
                "(use random features for `Warped`)."
            )
        if self.box.shape[1] != dim:
            raise ValueError(f"`box` has {self.box.shape[1]} dimension(s), but the inputs have {dim}.")
        reach = kernel.reach(dim)
        if reach is None:
            raise NotImplementedError(
                f"`{kernel.label()}` has no spectral density here, which `HilbertSpace` needs: use random features for it."
            )
        lower, upper = self.box[0], self.box[1]
        centre, half = (lower + upper) / 2, (upper - lower) / 2
        # The nearest image of a point of the box lies twice the gap away from it.
        half_width = half + reach.astype(half.dtype) / 2
        if self.boundary is not None:  # a side of no width has the boundary that the kernel needs
            half_width = jnp.where(half > 0, half * self.boundary, half_width)
        orders = jnp.asarray(_lowest_orders(_CANDIDATES * n_features if dim > 1 else n_features, dim), half.dtype)
        density = kernel.spectral_density(orders / (4 * half_width)[None, :])
        if dim > 1:
            chosen = jax.lax.top_k(jax.lax.stop_gradient(density), n_features)[1]
            orders, density = orders[chosen], density[chosen]
        amplitudes = jnp.sqrt(density.astype(half.dtype) / jnp.prod(half_width))
        return SineFeatures(orders, amplitudes, centre, half_width, lower, upper)

    def __check_init__(self):
        boundary = self.boundary
        if boundary is not None and (isinstance(boundary, bool) or not isinstance(boundary, (int, float))):
            raise ValueError(f"`HilbertSpace.boundary` must be a Python number above 1, or None; got {boundary!r}.")
        if boundary is not None and not 1 < boundary < math.inf:
            raise ValueError(f"`HilbertSpace.boundary` must be above 1; got {boundary!r}.")


def _lowest_orders(n: int, dim: int) -> np.ndarray:
    """The `n` multi-indices j ≥ 1 of least |j|², `n d`."""
    if dim == 1:
        return np.arange(1, n + 1)[:, None]
    # A ball octant that holds n of them: its volume, and a shell of one more on each axis.
    volume = math.pi ** (dim / 2) / math.gamma(dim / 2 + 1) / 2**dim
    side = math.ceil((n / volume) ** (1 / dim)) + dim
    side = min(side, n)
    if side**dim > 10**7:
        raise ValueError(f"`HilbertSpace` is for few dimensions; got {dim}. Use random features.")
    grid = np.array(list(itertools.product(range(1, side + 1), repeat=dim)))
    return grid[np.argsort(np.sum(grid**2, axis=1), kind="stable")[:n]]
