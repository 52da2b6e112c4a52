"""What the priors share: a kernel, a mean, points, and the jitter."""

from typing import Any, Generic

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .. import _checks, _means
from .._kernels import AbstractKernel, check_valid, KernelT
from .._modules import Printed
from .._numerics.lapack import cholesky
from .._numerics.linalg import add_diagonal, CholeskyFactor
from .jitter import LARGEST, settle, Settled, smooth


class AbstractPrior(Printed, eqx.Module, Generic[KernelT]):
    """A Gaussian process and the points at which it is looked at."""

    kernel: eqx.AbstractVar[KernelT]
    mean: eqx.AbstractVar[_means.AnyMean]
    jitter: eqx.AbstractVar[Float[Array, "..."] | None]

    def noise_at(self, X: Float[Array, "n d"], noise_var: Float[Array, "..."] | None = None) -> Float[Array, "n"]:
        """The variances of what is observed at X beside f: the noise given and that of the kernel; none for f itself."""
        if noise_var is None:
            return jnp.zeros((X.shape[0],), X.dtype)
        return jnp.broadcast_to(noise_var.astype(X.dtype), (X.shape[0],)) + self.kernel.noise(X)

    def given_jitter(self, X: Float[Array, "n d"]) -> Float[Array, "n"] | None:
        """The jitter that was asked for, at each point."""
        return None if self.jitter is None else jnp.broadcast_to(self.jitter.astype(X.dtype), (X.shape[0],))

    def smooth_jitter(
        self,
        X: Float[Array, "n d"],
        noise_var: Float[Array, "..."] | None = None,
        mask: Bool[Array, "n"] | None = None,
    ) -> Float[Array, "n"]:
        """What is added to the diagonal of a density that is to be smooth in the hyperparameters: the jitter given, else
        10·n·eps of its own variance to each point without noise."""
        given = self.given_jitter(X)
        return smooth(self.kernel.diagonal(X), self.noise_at(X, noise_var), mask) if given is None else given

    def covariance_at(
        self,
        X: Float[Array, "n d"],
        noise_var: Float[Array, "..."] | None = None,
        mask: Bool[Array, "n"] | None = None,
    ) -> Float[Array, "n n"]:
        """k(X, X) with the noise and `smooth_jitter` added."""
        added = self.noise_at(X, noise_var) + self.smooth_jitter(X, noise_var, mask)
        return add_diagonal(self.kernel.matrix(X, X), added)

    def factor_at(self, X: Float[Array, "n d"], noise_var: Float[Array, "..."] | None = None) -> CholeskyFactor:
        """The Cholesky factor of `covariance_at`; NaN where that is not positive definite."""
        return CholeskyFactor(cholesky(self.covariance_at(X, noise_var)))

    def settle_at(
        self,
        X: Float[Array, "n d"],
        noise_var: Float[Array, "..."] | None = None,
        mask: Bool[Array, "n"] | None = None,
    ) -> Settled:
        """The factor of k(X, X) with noise, and with as much jitter as was given and is needed."""
        return settle(self.kernel.matrix(X, X), self.noise_at(X, noise_var), self.given_jitter(X), mask)

    def mean_at(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return _means.evaluate(self.mean, X)


def not_definite(settled: Settled, X: Float[Array, "n d"], name: str) -> tuple[Bool[Array, ""], str]:
    """Whether a factorisation failed, and the error where it did."""
    return settled.failed, (
        f"The covariance matrix of the {X.shape[0]} points `{name}` is not positive definite in {X.dtype}, not even with a "
        f"jitter that was raised by decades to {LARGEST} of the variance of each. Give a larger `jitter` or noise, remove "
        "(nearly) repeated points, shorten a lengthscale that is long beside the spread of the points, subtract an offset "
        "from the inputs of a linear kernel, or compute in float64."
    )


def check_prior(prior: Any, X: Array, name: str) -> None:
    """Raises where the parts of a prior do not fit each other."""
    if not isinstance(prior.kernel, AbstractKernel):
        raise ValueError(f"`{type(prior).__name__}.kernel` must be a kernel; got {prior.kernel!r}.")
    _checks.finite(X, name)
    prior.kernel.check_dim(X.shape[1])
    if _checks.is_concrete(X):
        check_valid(prior.kernel, X, name)
    check_jitter(prior.jitter, X.shape[0])


def check_jitter(jitter: Array | None, n: int) -> None:
    """Raises where a jitter is given that is not a number of at least zero, or one for each of n points."""
    if jitter is None:
        return
    jitter = _checks.floating(jitter, "jitter")
    if jitter.shape not in ((), (n,)):
        raise ValueError(f"`jitter` must be a scalar, or one for each point, shape ({n},); got shape {jitter.shape}.")
    _checks.positive(jitter, "jitter", or_zero=True)
