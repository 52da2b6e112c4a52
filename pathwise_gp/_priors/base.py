"""What the priors share: a kernel, a mean, points, and the jitter."""

import abc
from typing import Any, Generic

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .. import _checks, _means
from .._functionals import AbstractFunctional, as_functional, check_functional
from .._kernels import AbstractKernel, KernelT, require_valid
from .._modules import Printed
from .._numerics.lapack import cholesky
from .._numerics.linalg import add_diagonal, CholeskyFactor
from .._solvers import Cholesky, System
from .._solvers.jitter import settle, Settled, smooth


class AbstractPrior(Printed, eqx.Module, Generic[KernelT]):
    """A Gaussian process and the points at which it is looked at."""

    kernel: eqx.AbstractVar[KernelT]
    mean: eqx.AbstractVar[_means.AnyMean]
    jitter: eqx.AbstractVar[Float[Array, "..."] | None]

    @property
    @abc.abstractmethod
    def functional(self) -> AbstractFunctional:
        """What is looked at: the functional of what is observed, or of the inducing values."""

    def noise_at(self, L: AbstractFunctional, noise_var: Float[Array, "..."] | None = None) -> Float[Array, "q"]:
        """The variances of what is observed by L beside L f: the noise given and that of the kernel; none for L f itself."""
        if noise_var is None:
            return jnp.zeros((L.size,), L.dtype)
        return L.spread(noise_var.astype(L.dtype)) + L.noise(self.kernel)

    def given_jitter(self, L: AbstractFunctional) -> Float[Array, "q"] | None:
        """The jitter that was asked for, of each value."""
        return None if self.jitter is None else L.spread(self.jitter.astype(L.dtype))

    def system(
        self, L: AbstractFunctional, noise_var: Float[Array, "..."], mask: Bool[Array, "q"] | None = None
    ) -> System:
        """What is to be solved of what is observed by L."""
        return System(self.kernel, L, noise_var, self.jitter, mask)

    def smooth_jitter(
        self,
        L: AbstractFunctional,
        noise_var: Float[Array, "..."] | None = None,
        mask: Bool[Array, "q"] | None = None,
    ) -> Float[Array, "q"]:
        """What is added to the diagonal of a density that is to be smooth in the hyperparameters: the jitter given, else
        10·q·eps of its own variance to each value without noise."""
        given = self.given_jitter(L)
        return smooth(L.diagonal(self.kernel), self.noise_at(L, noise_var), mask) if given is None else given

    def covariance_at(
        self,
        L: AbstractFunctional,
        noise_var: Float[Array, "..."] | None = None,
        mask: Bool[Array, "q"] | None = None,
    ) -> Float[Array, "q q"]:
        """L k Lᵀ with the noise and `smooth_jitter` added."""
        added = self.noise_at(L, noise_var) + self.smooth_jitter(L, noise_var, mask)
        return add_diagonal(L.gram(self.kernel), added)

    def factor_at(self, L: AbstractFunctional, noise_var: Float[Array, "..."] | None = None) -> CholeskyFactor:
        """The Cholesky factor of `covariance_at`; NaN where that is not positive definite."""
        return CholeskyFactor(cholesky(self.covariance_at(L, noise_var)))

    def settle_at(
        self,
        L: AbstractFunctional,
        noise_var: Float[Array, "..."] | None = None,
        mask: Bool[Array, "q"] | None = None,
    ) -> Settled:
        """The factor of L k Lᵀ with noise, and with as much jitter as was given and is needed."""
        return settle(L.gram(self.kernel), self.noise_at(L, noise_var), self.given_jitter(L), mask)

    def mean_at(self, L: AbstractFunctional) -> Float[Array, "q"]:
        """L m."""
        return L.of_mean(self.mean)


def not_definite(settled: Settled, L: AbstractFunctional, name: str) -> tuple[Bool[Array, ""], str]:
    """Whether a factorisation failed, and the error where it did."""
    return settled.failed, Cholesky().failure(L, name)


def checked_functional(kernel: AbstractKernel, X: Any, name: str) -> Any:
    """Points or a functional, or an error where one looks outside the kernel's domain (at run time under jit)."""
    valid = as_functional(X).valid(kernel)
    if valid is True:
        return X
    if isinstance(X, AbstractFunctional):
        arrays, rest = eqx.partition(X, eqx.is_array)
        leaves, structure = jax.tree.flatten(arrays)
        return eqx.combine(jax.tree.unflatten(structure, [require_valid(valid, leaves[0], name), *leaves[1:]]), rest)
    return require_valid(valid, X, name)


def check_prior(prior: Any, X: Any, name: str) -> None:
    """Raises where the parts of a prior do not fit each other."""
    if not isinstance(prior.kernel, AbstractKernel):
        raise ValueError(f"`{type(prior).__name__}.kernel` must be a kernel; got {prior.kernel!r}.")
    L = as_functional(X)
    _checks.finite(L.points, name)
    check_functional(L, prior.kernel)
    if _checks.is_concrete(L.points):
        require_valid(L.valid(prior.kernel), L.points, name)
    check_jitter(prior.jitter, L)


def check_jitter(jitter: Array | None, L: AbstractFunctional) -> None:
    """Raises where a jitter is given that is not a number of at least zero, or one for each value or output."""
    if jitter is None:
        return
    jitter = _checks.floating(jitter, "jitter")
    if jitter.shape not in _checks.variance_shapes(L.size, L.n_each):
        raise ValueError(
            f"`jitter` must be a scalar, or one for each point, shape ({L.size},); got shape {jitter.shape}."
        )
    _checks.positive(jitter, "jitter", or_zero=True)
