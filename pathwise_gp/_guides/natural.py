"""q(u) by its natural parameters."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks, _fields
from .._numerics.linalg import CholeskyFactor, inverse_factor
from .._priors import SparseGPPrior
from .base import AbstractGuide, check_moments


class NaturalGuide(AbstractGuide):
    """q(u) = N(μ, S) by θ₁ = S⁻¹μ and θ₂ = −½ S⁻¹.

    **Fields:** `natural_vector`: θ₁, `m`; `natural_matrix`: θ₂, `m m`, negative definite, of which only the lower triangle
    counts.

    **Raises:** ValueError where a field is not finite, the shapes do not fit each other, or θ₂ is not negative definite.
    Source: Hensman et al. (2013), section 3.3.
    """

    natural_vector: Float[Array, "m"] = eqx.field(converter=_fields.real)
    natural_matrix: Float[Array, "m m"] = eqx.field(converter=_fields.real)

    def size(self) -> int:
        return self.natural_vector.shape[0]

    def moments(self, prior: SparseGPPrior) -> tuple[Float[Array, "m"], Float[Array, "m m"]]:
        scale = inverse_factor(self._precision()).astype(prior.Z.dtype)
        vector = self.natural_vector.astype(prior.Z.dtype)
        white = jnp.sum(scale * vector[:, None], axis=0)  # Tᵀθ₁, and μ = T Tᵀθ₁
        return CholeskyFactor(scale).colour(white), scale

    def _precision(self) -> Float[Array, "m m"]:
        lower = jnp.tril(self.natural_matrix)
        return -2 * (lower + jnp.tril(lower, -1).T)

    def __check_init__(self):
        check_moments(self, "natural_vector", "natural_matrix")
        finite = jnp.all(jnp.isfinite(inverse_factor(self._precision())))
        if _checks.is_concrete(finite) and not bool(finite):
            raise ValueError(
                "`NaturalGuide.natural_matrix` must be negative definite; its Cholesky factorisation failed."
            )
