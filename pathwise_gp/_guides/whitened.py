"""q(u) in the coordinates in which the prior is standard."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _fields
from .._numerics.linalg import inner
from .._priors import SparseGPPrior
from .base import AbstractGuide, check_moments, kl_to_standard


class WhitenedGuide(AbstractGuide):
    """u = m(Z) + L v with q(v) = N(mean, T Tᵀ), L Lᵀ = k(Z, Z) + jitter, and T the lower triangle of `scale_tril`.

    The prior of v is N(0, I) whatever the hyperparameters, so an optimiser of both need not follow one with the other.

    **Fields:** `mean`: of v, `m`; `scale_tril`: `m m`, of which what stands above the diagonal does not count.

    **Raises:** ValueError where a field is not finite or the shapes do not fit each other. Source: Hensman et al. (2015),
    section 4.
    """

    mean: Float[Array, "m"] = eqx.field(converter=_fields.real)
    scale_tril: Float[Array, "m m"] = eqx.field(converter=_fields.lower_cholesky)

    def size(self) -> int:
        return self.mean.shape[0]

    def moments(self, prior: SparseGPPrior) -> tuple[Float[Array, "m"], Float[Array, "m m"]]:
        factor = prior.checked_factor()
        mean, scale = self._whitened(prior)
        return prior.mean_at(prior.functional) + factor.colour(mean), inner(factor.lower, scale.T)

    def kl_divergence(self, prior: SparseGPPrior) -> Float[Array, ""]:
        self.check(prior)
        return kl_to_standard(*self._whitened(prior))

    def _whitened(self, prior: SparseGPPrior) -> tuple[Float[Array, "m"], Float[Array, "m m"]]:
        return self.mean.astype(prior.Z.dtype), jnp.tril(self.scale_tril).astype(prior.Z.dtype)

    def __check_init__(self):
        check_moments(self, "mean", "scale_tril")
