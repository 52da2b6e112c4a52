"""q(u) with independent inducing values."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _fields
from .._priors import SparseGPPrior
from .base import AbstractGuide, check_moments


class MeanFieldGuide(AbstractGuide):
    """q(u) = N(mean, diag(scale²)).

    **Fields:** `mean`: of the inducing values, `m` (the prior's mean included); `scale`: their standard deviations, `m`,
    positive.

    **Raises:** ValueError where a field is not finite, a scale is not positive or the shapes do not fit each other.
    """

    mean: Float[Array, "m"] = eqx.field(converter=_fields.real)
    scale: Float[Array, "m"] = eqx.field(converter=_fields.positive)

    def size(self) -> int:
        return self.mean.shape[0]

    def moments(self, prior: SparseGPPrior) -> tuple[Float[Array, "m"], Float[Array, "m m"]]:
        return self.mean.astype(prior.Z.dtype), jnp.diag(self.scale.astype(prior.Z.dtype))

    def __check_init__(self):
        check_moments(self, "mean", "scale", square=False)
