"""A Gaussian process at its inducing points."""

import equinox as eqx
from jaxtyping import Array, Float

from .. import _checks, _means
from .._kernels import AbstractKernel
from .._numerics.linalg import CholeskyFactor
from .base import AbstractPrior, as_jitter, check_prior


class SparseGPPrior(AbstractPrior):
    """f ~ GP(m, k) with inducing values u ~ N(m(Z), k(Z, Z) + jitter) at the inducing points Z.

    **Fields:**

    - `kernel`: k.
    - `Z`: the inducing points, `m d`.
    - `mean`: m, a callable that maps `n d` to `n`, or a number; zero unless given.
    - `jitter`: variance added to the diagonal of k(Z, Z), a scalar; √eps times the mean of the diagonal unless given: u is
      f(Z) plus independent noise of this variance.

    **Raises:** ValueError where `Z` is not a finite `m d` array, the kernel does not fit d, or `jitter` is negative.
    """

    kernel: AbstractKernel
    Z: Float[Array, "m d"] = eqx.field(converter=lambda Z: _checks.points(Z, "Z"))
    mean: _means.Mean = eqx.field(converter=_means.as_mean, default_factory=_means.ZeroMean)
    jitter: Float[Array, ""] | None = eqx.field(converter=as_jitter, default=None)

    def factor(self) -> CholeskyFactor:
        """Cholesky factor of k(Z, Z) + jitter, `m m`; NaN where that is not positive definite."""
        return self.factor_at(self.Z)

    def checked_factor(self) -> CholeskyFactor:
        """The same, or an error where k(Z, Z) is not positive definite."""
        return self.check_factor(_factor(self), self.Z, "Z")

    def __check_init__(self):
        check_prior(self, self.Z, "Z")


@eqx.filter_jit
def _factor(prior: SparseGPPrior) -> CholeskyFactor:
    return prior.factor()
