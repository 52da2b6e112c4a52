"""What a guide is: a Gaussian q(u) over the inducing values."""

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks, _fields
from .._functionals import AbstractFunctional, dim_of, size_of, Values
from .._kernels import check_valid
from .._modules import Printed
from .._numerics.linalg import CholeskyFactor, inner
from .._paths.observations import new_noise, noise_of_kernel
from .._priors import Prediction, SparseGPPrior
from .._types import AnyArray, Key


class AbstractGuide(Printed, eqx.Module):
    """q(u) = N(μ, T Tᵀ) over the inducing values u of a sparse prior, with T lower triangular.

    To write one, give `moments`; override the rest where the parametrisation allows something better.
    """

    @abc.abstractmethod
    def size(self) -> int:
        """The number m of inducing values."""

    @abc.abstractmethod
    def moments(self, prior: SparseGPPrior) -> tuple[Float[Array, "m"], Float[Array, "m m"]]:
        """The mean μ and the lower-triangular T of q(u): u = μ + T z with z ~ N(0, I)."""

    def sample(self, key: Key, prior: SparseGPPrior, shape: tuple[int, ...] = ()) -> Float[Array, "*s m"]:
        """Draws of u.

        **Arguments:** `key`; `prior`: with m inducing points; `shape`: axes `*s` of independent draws.

        **Returns:** `*s m`. **Raises:** ValueError where the guide does not fit the prior.
        """
        self.check(prior)
        z = jax.random.normal(_checks.key(key), (math.prod(shape), self.size()), prior.Z.dtype)
        return self.transform(z, prior).reshape(*shape, self.size())

    def transform(self, z: Float[Array, "s m"], prior: SparseGPPrior) -> Float[Array, "s m"]:
        """u = μ + T z for each row z."""
        mean, scale = self.moments(prior)
        return mean[None, :] + inner(z, scale)

    def log_prob(self, u: Float[AnyArray, "*s m"], prior: SparseGPPrior) -> Float[Array, "*s"]:
        """log q(u).

        **Arguments:** `u`: inducing values, `*s m`; `prior`: with m inducing points.

        **Returns:** `*s`. **Raises:** ValueError where a size does not fit.
        """
        self.check(prior)
        u = _checks.floating(u, "u").astype(prior.Z.dtype)
        if u.ndim == 0 or u.shape[-1] != self.size():
            raise ValueError(f"The last axis of `u` must be the {self.size()} inducing values; got shape {u.shape}.")
        return self._log_prob(u.reshape(-1, u.shape[-1]), prior).reshape(u.shape[:-1])

    def _log_prob(self, u: Float[Array, "s m"], prior: SparseGPPrior) -> Float[Array, "s"]:
        mean, scale = self.moments(prior)
        white = solve_lower(scale, u - mean[None, :])
        constant = 0.5 * mean.size * math.log(2 * math.pi)
        return -0.5 * jnp.sum(white * white, axis=1) - half_log_det(scale) - constant

    def kl_divergence(self, prior: SparseGPPrior) -> Float[Array, ""]:
        """KL(q(u) ‖ p(u)) with p(u) = N(m(Z), k(Z, Z) + jitter).

        **Arguments:** `prior`: with m inducing points. **Returns:** a scalar. **Raises:** ValueError where the guide does
        not fit the prior.
        """
        self.check(prior)
        mean, scale = self.moments(prior)
        lower = prior.checked_factor().lower
        difference = mean - prior.mean_at(prior.functional)
        return kl_to_standard(solve_lower(lower, difference[None, :])[0], solve_lower(lower, scale.T).T)

    def predict(self, prior: SparseGPPrior, X: Float[AnyArray, "*n d"], noise_var: Any) -> Prediction:
        """Mean and variance of new observations y* = f(x) + ε under u ~ q: those of f, with the noise.

        **Arguments:** `prior`: with m inducing points; `X`: inputs, `*n d`; `noise_var`: variance of the noise, a scalar or
        `*n`; 0 for f itself. Noise of the kernel (`White`) comes on top.

        **Returns:** mean and variance, `*n` each. **Raises:** ValueError where the guide does not fit the prior, the last
        axis of `X` is not d, or `noise_var` is negative or of another shape.
        """
        self.check(prior)
        X = _checks.inputs(X, dim_of(prior.Z)).astype(prior.Z.dtype)
        flat = check_valid(prior.kernel, X.reshape(-1, X.shape[-1]), "X")
        noise_var = new_noise(noise_var, None, X)
        mean, variance = _marginals(prior, self, prior.checked_factor().lower, Values(flat))
        noise_var = noise_var + noise_of_kernel(prior.kernel, X)
        return Prediction(mean.reshape(X.shape[:-1]), jnp.maximum(variance, 0).reshape(X.shape[:-1]) + noise_var)

    def check(self, prior: SparseGPPrior) -> None:
        """Raises where the guide does not fit the prior."""
        m = size_of(prior.Z)
        if self.size() != m:
            raise ValueError(
                f"`{type(self).__name__}` has {self.size()} inducing values, but the prior has {m} inducing points `Z`."
            )

    def __check_init__(self):
        _fields.check(self)


def marginals(
    prior: SparseGPPrior, guide: AbstractGuide, lower: Float[Array, "m m"], asked: AbstractFunctional
) -> tuple[Float[Array, "n"], Float[Array, "n"]]:
    """Mean and variance of what is asked of f with u ~ q; `lower` is the factor of k(Z, Z) + jitter."""
    mean, scale = guide.moments(prior)
    white_mean = solve_lower(lower, (mean - prior.mean_at(prior.functional))[None, :])
    white_scale = solve_lower(lower, scale.T)  # (L⁻¹T)ᵀ

    def block(part: AbstractFunctional) -> Float[Array, "2 b"]:
        white = solve_lower(lower, part.cross(prior.kernel, prior.functional))
        spread = inner(white, white_scale)
        variance = part.diagonal(prior.kernel) - jnp.sum(white * white, axis=1) + jnp.sum(spread * spread, axis=1)
        return jnp.stack([inner(white_mean, white)[0], variance])

    update, variance = asked.in_parts(block, prior.functional.width)
    return prior.mean_at(asked) + update, variance


_marginals = eqx.filter_jit(marginals)


def solve_lower(lower: Float[Array, "m m"], B: Float[Array, "s m"]) -> Float[Array, "s m"]:
    """T⁻¹ b for each row b of B."""
    return CholeskyFactor(lower).whiten(B)


def half_log_det(lower: Float[Array, "m m"]) -> Float[Array, ""]:
    """½ log |T Tᵀ|. The sign of an entry of the diagonal is a matter of convention, and an optimiser may change it."""
    return jnp.sum(jnp.log(jnp.abs(jnp.diagonal(lower))))


def kl_to_standard(mean: Float[Array, "m"], scale: Float[Array, "m m"]) -> Float[Array, ""]:
    """KL(N(mean, scale scaleᵀ) ‖ N(0, I)) for a lower-triangular scale."""
    return 0.5 * (jnp.sum(scale * scale) + jnp.sum(mean * mean) - mean.size) - half_log_det(scale)


def check_moments(guide: eqx.Module, mean: str, scale: str, *, square: bool = True) -> None:
    """Raises where the fields of a guide are not finite or do not fit each other."""
    _fields.check(guide)
    name, m = type(guide).__name__, getattr(guide, mean).shape
    if len(m) != 1 or m[0] == 0:
        raise ValueError(f"`{name}.{mean}` must have shape (m,); got {m}.")
    wanted = (m[0], m[0]) if square else m
    if getattr(guide, scale).shape != wanted:
        raise ValueError(
            f"`{name}.{scale}` must have shape {wanted} to go with {m[0]} inducing values; "
            f"got {getattr(guide, scale).shape}."
        )
