"""A Gaussian process at its inducing points."""

import equinox as eqx
from jaxtyping import Array, Float

from .. import _checks, _means
from .._kernels import AbstractKernel, check_valid
from .._numerics.linalg import CholeskyFactor
from .base import AbstractPrior, check_prior, jitter_field, settle


class SparseGPPrior(AbstractPrior):
    """f ~ GP(m, k) with inducing values u ~ N(m(Z), k(Z, Z) + jitter) at the inducing points Z.

    **Fields:**

    - `kernel`: k.
    - `Z`: the inducing points, `m d`.
    - `mean`: m, a callable that maps `n d` to `n`, or a number; zero unless given.
    - `jitter`: variance added to the diagonal of k(Z, Z), a scalar; √eps times the mean of the diagonal unless given: u is
      f(Z) plus independent noise of this variance. Where it does not suffice it is raised by decades.

    **Raises:** ValueError where `Z` is not a finite `m d` array, the kernel does not fit d, or `jitter` is negative.
    """

    kernel: AbstractKernel
    Z: Float[Array, "m d"] = eqx.field(converter=lambda Z: _checks.points(Z, "Z"))
    mean: _means.Mean = eqx.field(converter=_means.as_mean, default_factory=_means.ZeroMean)
    jitter: Float[Array, ""] | None = jitter_field()

    def factor(self) -> CholeskyFactor:
        """Cholesky factor of k(Z, Z) + jitter, `m m`; NaN where that is not positive definite."""
        return self.factor_at(self.Z)

    def settled(self) -> "tuple[SparseGPPrior, CholeskyFactor]":
        """This prior with a jitter that factors k(Z, Z), raised by decades where the given one does not, and the factor; or
        an error where none does."""
        Z = check_valid(self.kernel, self.Z, "Z")
        prior, factor = _settle(self if Z is self.Z else eqx.tree_at(lambda prior: prior.Z, self, Z))
        return prior, prior.check_factor(factor, self.Z, "Z")

    def checked_factor(self) -> CholeskyFactor:
        """The factor alone."""
        return self.settled()[1]

    def __check_init__(self):
        check_prior(self, self.Z, "Z")


@eqx.filter_jit
def _settle(prior: SparseGPPrior) -> tuple[SparseGPPrior, CholeskyFactor]:
    return settle(prior, prior.Z)
