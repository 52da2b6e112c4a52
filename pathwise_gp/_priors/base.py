"""What the priors share: a kernel, a mean, points, and the jitter."""

from typing import Any, TypeVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .. import _checks, _means
from .._kernels import AbstractKernel, check_valid
from .._numerics.linalg import add_diagonal, cholesky, CholeskyFactor, default_jitter, seen, settled_cholesky

# In units of the mean of the diagonal: past this a jitter is a noise that ought to be asked for.
LARGEST_JITTER = 1e-3


def _as_jitter(jitter: Any) -> Array | None:
    return None if jitter is None else _checks.floating(jitter, "jitter")


def jitter_field() -> Any:
    """A field for a jitter, which is not set unless given."""
    return eqx.field(converter=_as_jitter, default=None, metadata={"domain": "positive"})


class AbstractPrior(eqx.Module):
    """A Gaussian process and the points at which it is looked at."""

    kernel: eqx.AbstractVar[AbstractKernel]
    mean: eqx.AbstractVar[_means.Mean]
    jitter: eqx.AbstractVar[Float[Array, ""] | None]

    def jitter_at(self, X: Float[Array, "n d"]) -> Float[Array, ""]:
        """What is added to the diagonal of k(X, X) for numerical reasons: the given jitter, else √eps times its mean.

        The process that is conditioned on is f(X) plus independent noise of this variance, in the solve and in the draws
        alike.
        """
        if self.jitter is None:
            return default_jitter(self.kernel.diagonal(X))
        return self.jitter.astype(X.dtype)

    def diagonal_at(self, X: Float[Array, "n d"], noise_var: Float[Array, "..."] | None = None) -> Float[Array, "n"]:
        """The variances added to the diagonal: jitter, and for observations the noise given and that of the kernel."""
        diagonal = jnp.broadcast_to(self.jitter_at(X), (X.shape[0],))
        if noise_var is None:
            return diagonal
        return diagonal + jnp.broadcast_to(noise_var.astype(X.dtype), (X.shape[0],)) + self.kernel.noise(X)

    def covariance_at(
        self, X: Float[Array, "n d"], noise_var: Float[Array, "..."] | None = None
    ) -> Float[Array, "n n"]:
        """k(X, X) with `diagonal_at` added."""
        return add_diagonal(self.kernel.matrix(X, X), self.diagonal_at(X, noise_var))

    def factor_at(self, X: Float[Array, "n d"], noise_var: Float[Array, "..."] | None = None) -> CholeskyFactor:
        """The Cholesky factor of `covariance_at` with the jitter as given; NaN where that is not positive definite."""
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
            f"The covariance matrix of the {X.shape[0]} points `{name}` is not positive definite in {X.dtype}, not even with "
            f"a jitter{shown} on its diagonal: it was raised by decades to {LARGEST_JITTER} of the mean variance. Give a "
            "larger `jitter` or noise, remove (nearly) repeated points, shorten a lengthscale that is long beside the "
            "spread of the points, or compute in float64.",
        )
        return CholeskyFactor(lower, factor.mask)


PriorT = TypeVar("PriorT", bound=AbstractPrior)


def settle(
    prior: PriorT,
    X: Float[Array, "n d"],
    noise_var: Float[Array, "..."] | None = None,
    mask: Bool[Array, "n"] | None = None,
) -> tuple[PriorT, CholeskyFactor]:
    """A prior with a jitter that factors `covariance_at`, and the factor: the one place where the jitter is decided.

    It is the given one where that is enough. Else it rises by decades from ten times that (or eps times the mean of the
    diagonal) to 1e-3 times the mean of the diagonal; where that is not enough the factor is NaN. Of points that are masked
    the factor knows nothing.
    """
    given, mean = prior.jitter_at(X), jnp.mean(prior.kernel.diagonal(X))
    first = jnp.maximum(10 * given, jnp.finfo(X.dtype).eps * mean)
    covariance = seen(prior.covariance_at(X, noise_var), mask)
    lower, jitter = settled_cholesky(covariance, given, first, LARGEST_JITTER * mean)
    settled = eqx.tree_at(lambda p: p.jitter, prior, jitter, is_leaf=lambda leaf: leaf is None)
    return settled, CholeskyFactor(lower, mask)


def check_prior(prior: Any, X: Array, name: str) -> None:
    """Raises where the parts of a prior do not fit each other."""
    if not isinstance(prior.kernel, AbstractKernel):
        raise ValueError(f"`{type(prior).__name__}.kernel` must be a kernel; got {prior.kernel!r}.")
    _checks.finite(X, name)
    prior.kernel.check_dim(X.shape[1])
    if _checks.is_concrete(X):
        check_valid(prior.kernel, X, name)
    check_jitter(prior.jitter)


def check_jitter(jitter: Array | None) -> None:
    """Raises where a jitter is given that is not a scalar of at least zero."""
    if jitter is None:
        return
    if jitter.ndim != 0:
        raise ValueError(f"`jitter` must be a scalar; got shape {jitter.shape}.")
    _checks.positive(jitter, "jitter", or_zero=True)
