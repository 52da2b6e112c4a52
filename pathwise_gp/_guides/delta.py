"""q(u) at one point."""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _fields
from .._priors import SparseGPPrior
from .base import AbstractGuide, half_log_det, solve_lower


class DeltaGuide(AbstractGuide):
    """u = location, with certainty. Paths through it vary as the prior does given those values.

    Its density against the counting measure is 1 at `location`, so `kl_divergence` is −log p(location), whose minimum is
    the maximum a posteriori.

    **Fields:** `location`: the inducing values, `m`.

    **Raises:** ValueError where it is not finite or not a vector.
    """

    location: Float[Array, "m"] = eqx.field(converter=_fields.real)

    def size(self) -> int:
        return self.location.shape[0]

    def moments(self, prior: SparseGPPrior) -> tuple[Float[Array, "m"], Float[Array, "m m"]]:
        location = self.location.astype(prior.Z.dtype)
        return location, jnp.zeros((location.size, location.size), location.dtype)

    def _log_prob(self, u: Float[Array, "s m"], prior: SparseGPPrior) -> Float[Array, "s"]:
        hit = jnp.all(u == self.location.astype(u.dtype)[None, :], axis=1)
        return jnp.where(hit, jnp.zeros_like(u[:, 0]), -jnp.inf)

    def kl_divergence(self, prior: SparseGPPrior) -> Float[Array, ""]:
        self.check(prior)
        lower = prior.checked_factor().lower
        difference = self.location.astype(prior.Z.dtype) - prior.mean_at(prior.functional)
        white = solve_lower(lower, difference[None, :])
        return 0.5 * jnp.sum(white * white) + half_log_det(lower) + 0.5 * difference.size * math.log(2 * math.pi)

    def __check_init__(self):
        _fields.check(self)
        if self.location.ndim != 1 or self.location.size == 0:
            raise ValueError(f"`DeltaGuide.location` must have shape (m,); got {self.location.shape}.")
