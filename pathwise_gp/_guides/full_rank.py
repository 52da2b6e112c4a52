"""q(u) with a full covariance."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _fields
from .._priors import SparseGPPrior
from .base import AbstractGuide, check_moments


class FullRankGuide(AbstractGuide):
    """q(u) = N(mean, T Tᵀ) with T the lower triangle of `scale_tril`.

    **Fields:** `mean`: of the inducing values, `m` (the prior's mean included); `scale_tril`: `m m`, of which what stands
    above the diagonal does not count.

    **Raises:** ValueError where a field is not finite or the shapes do not fit each other.
    """

    mean: Float[Array, "m"] = eqx.field(converter=_fields.real)
    scale_tril: Float[Array, "m m"] = eqx.field(converter=_fields.lower_cholesky)

    def size(self) -> int:
        return self.mean.shape[0]

    def moments(self, prior: SparseGPPrior) -> tuple[Float[Array, "m"], Float[Array, "m m"]]:
        return self.mean.astype(prior.Z.dtype), jnp.tril(self.scale_tril).astype(prior.Z.dtype)

    def __check_init__(self):
        check_moments(self, "mean", "scale_tril")
