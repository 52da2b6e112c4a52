"""A Gaussian process at its inducing points."""

from typing import TYPE_CHECKING

import equinox as eqx
from jaxtyping import Array, Float

from .. import _checks, _fields, _means
from .._kernels import check_valid, KernelT
from .._numerics.linalg import CholeskyFactor
from .._types import Number, Numbers
from .base import AbstractPrior, check_prior, not_definite
from .jitter import Settled


class SparseGPPrior(AbstractPrior[KernelT]):
    """f ~ GP(m, k) with inducing values u ~ N(m(Z), k(Z, Z) + jitter) at the inducing points Z.

    **Fields:**

    - `kernel`: k.
    - `Z`: the inducing points, `m d`.
    - `mean`: m, a callable that maps `n d` to `n`, or a number; zero unless given.
    - `jitter`: variance added to the diagonal of k(Z, Z), a scalar or one for each point, `m`: u is f(Z) plus independent
      noise of this variance. None unless given. What the factorisation needs beyond it is added by decades from 10·m·eps of
      each point's own variance; `settled` says what was used.

    **Raises:** ValueError where `Z` is not a finite `m d` array, the kernel does not fit d, or `jitter` is negative.
    """

    kernel: KernelT
    Z: Float[Array, "m d"] = eqx.field(converter=_fields.points("Z"))
    mean: _means.AnyMean = eqx.field(converter=_means.as_mean, default_factory=_means.ZeroMean)
    jitter: Float[Array, "..."] | None = eqx.field(converter=_fields.positive, default=None)

    if TYPE_CHECKING:
        # A checker puts the fields that the abstract class names before all others; they come in the order above.

        def __init__(
            self, kernel: KernelT, Z: Numbers, mean: _means.Mean | Number = ..., jitter: Numbers | None = None
        ) -> None: ...

    def factor(self) -> CholeskyFactor:
        """Cholesky factor of k(Z, Z) + jitter, `m m`, smooth in the hyperparameters (without a jitter given, with 10·m·eps of
        each variance); NaN where that is not positive definite."""
        return self.factor_at(self.Z)

    def settled(self) -> Settled:
        """The factor of k(Z, Z) with as much jitter as was given and is needed, and what that is; or an error where no jitter
        is enough."""
        Z = check_valid(self.kernel, self.Z, "Z")
        found = _settle(self if Z is self.Z else eqx.tree_at(lambda prior: prior.Z, self, Z))
        return _checks.verdict(found, not_definite(found, self.Z, "Z"))

    def checked_factor(self) -> CholeskyFactor:
        """The factor alone."""
        return self.settled().factor

    def __check_init__(self):
        check_prior(self, self.Z, "Z")


@eqx.filter_jit
def _settle(prior: SparseGPPrior) -> Settled:
    return prior.settle_at(prior.Z)
