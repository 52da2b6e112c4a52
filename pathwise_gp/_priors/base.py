"""What the priors share: a kernel, a mean, points, and the jitter."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks, _means
from .._kernels import AbstractKernel
from .._numerics.linalg import add_diagonal, cholesky, CholeskyFactor, default_jitter


def as_jitter(jitter: Any) -> Array | None:
    return None if jitter is None else _checks.floating(jitter, "jitter")


class AbstractPrior(eqx.Module):
    """A Gaussian process and the points at which it is looked at."""

    kernel: eqx.AbstractVar[AbstractKernel]
    mean: eqx.AbstractVar[_means.Mean]
    jitter: eqx.AbstractVar[Float[Array, ""] | None]

    def jitter_at(self, X: Float[Array, "n d"]) -> Float[Array, ""]:
        """What is added to the diagonal of k(X, X) for numerical reasons: the given jitter, else √eps times its mean.

        This is the one place where it is decided. The process that is conditioned on is f(X) plus independent noise of
        this variance, in the solve and in the draws alike.
        """
        if self.jitter is None:
            return default_jitter(self.kernel.diagonal(X))
        return self.jitter.astype(X.dtype)

    def covariance_at(
        self, X: Float[Array, "n d"], noise_var: Float[Array, "..."] | None = None
    ) -> Float[Array, "n n"]:
        """k(X, X) with the jitter, and the noise if there is any, on its diagonal."""
        return add_diagonal(self.kernel.matrix(X, X), self.diagonal_at(X, noise_var))

    def diagonal_at(self, X: Float[Array, "n d"], noise_var: Float[Array, "..."] | None = None) -> Float[Array, "n"]:
        """The variances added to the diagonal: jitter plus noise."""
        diagonal = jnp.broadcast_to(self.jitter_at(X), (X.shape[0],))
        if noise_var is None:
            return diagonal
        return diagonal + jnp.broadcast_to(noise_var.astype(X.dtype), (X.shape[0],))

    def factor_at(self, X: Float[Array, "n d"], noise_var: Float[Array, "..."] | None = None) -> CholeskyFactor:
        """The Cholesky factor of `covariance_at`; NaN where that is not positive definite."""
        return CholeskyFactor(cholesky(self.covariance_at(X, noise_var)))

    def mean_at(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return _means.evaluate(self.mean, X)

    def check_factor(self, factor: CholeskyFactor, X: Float[Array, "n d"], name: str) -> CholeskyFactor:
        """The factor, or an error where the factorisation failed."""
        jitter = self.jitter_at(X)
        shown = f" of {float(jitter):.3g}" if _checks.is_concrete(jitter) else ""
        lower = _checks.require(
            factor.is_finite(),
            factor.lower,
            f"The covariance matrix of the {X.shape[0]} points `{name}` is not positive definite in {X.dtype} with the "
            f"jitter{shown} on its diagonal. Raise `jitter`, remove (nearly) repeated points, shorten a lengthscale that "
            "is long beside the spread of the points, or compute in float64.",
        )
        return CholeskyFactor(lower)


def check_prior(prior: Any, X: Array, name: str) -> None:
    """Raises where the parts of a prior do not fit each other."""
    if not isinstance(prior.kernel, AbstractKernel):
        raise ValueError(f"`{type(prior).__name__}.kernel` must be a kernel; got {prior.kernel!r}.")
    _checks.finite(X, name)
    prior.kernel.check_dim(X.shape[1])
    if prior.jitter is not None:
        if prior.jitter.ndim != 0:
            raise ValueError(f"`jitter` must be a scalar; got shape {prior.jitter.shape}.")
        _checks.positive(prior.jitter, "jitter", or_zero=True)
