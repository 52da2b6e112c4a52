"""A Gaussian process at its inducing points."""

from typing import TYPE_CHECKING

import equinox as eqx
from jaxtyping import Array, Float

from .. import _checks, _fields, _means
from .._functionals import AbstractFunctional, as_functional, Asked, Observed, observed
from .._kernels import KernelT
from .._numerics.linalg import CholeskyFactor
from .._solvers.jitter import Settled
from .._types import Number, Numbers
from .base import AbstractPrior, check_prior, checked_functional, not_definite


class SparseGPPrior(AbstractPrior[KernelT]):
    """f ~ GP(m, k) with inducing values u ~ N(m(Z), k(Z, Z) + jitter) at the inducing points Z.

    **Fields:**

    - `kernel`: k.
    - `Z`: the inducing points, `m d`; or m other numbers that are linear in f, such as slopes or averages: a functional, or a
      list of these and of points.
    - `mean`: m, a callable that maps `n d` to `n`, or a number; zero unless given.
    - `jitter`: variance added to the diagonal of k(Z, Z), a scalar or one for each point, `m`: u is f(Z) plus independent
      noise of this variance. None unless given. What the factorisation needs beyond it is added by decades from 10·m·eps of
      each point's own variance; `settled` says what was used.

    **Raises:** ValueError where `Z` is not a finite `m d` array, the kernel does not fit d, or `jitter` is negative.
    """

    kernel: KernelT
    Z: Observed = eqx.field(converter=observed("Z"))
    mean: _means.AnyMean = eqx.field(converter=_means.as_mean, default_factory=_means.ZeroMean)
    jitter: Float[Array, "..."] | None = eqx.field(converter=_fields.positive, default=None)

    if TYPE_CHECKING:
        # A checker puts the fields that the abstract class names before all others; they come in the order above.

        def __init__(
            self, kernel: KernelT, Z: Asked, mean: _means.Mean | Number = ..., jitter: Numbers | None = None
        ) -> None: ...

    def factor(self) -> CholeskyFactor:
        """Cholesky factor of k(Z, Z) + jitter, `m m`, smooth in the hyperparameters (without a jitter given, with 10·m·eps of
        each variance); NaN where that is not positive definite."""
        return self.factor_at(self.functional)

    @property
    def functional(self) -> AbstractFunctional:
        return as_functional(self.Z).suited_to(self.kernel)

    def settled(self) -> Settled:
        """The factor of k(Z, Z) with as much jitter as was given and is needed, and what that is; or an error where no jitter
        is enough."""
        found = _settle(self.checked())
        return _checks.verdict(found, not_definite(found, self.functional, "Z"))

    def checked(self) -> "SparseGPPrior[KernelT]":
        """This prior, or an error where an input is outside the kernel's domain (at run time under jit)."""
        return eqx.tree_at(lambda prior: prior.Z, self, checked_functional(self.kernel, self.Z, "Z"))

    def checked_factor(self) -> CholeskyFactor:
        """The factor alone."""
        return self.settled().factor

    def __check_init__(self):
        check_prior(self, self.Z, "Z")


@eqx.filter_jit
def _settle(prior: SparseGPPrior) -> Settled:
    return prior.settle_at(prior.functional)
