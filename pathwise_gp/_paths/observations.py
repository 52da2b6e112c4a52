"""The noise of new observations."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks
from .._kernels import AbstractKernel
from .._types import Key


def new_noise(noise_var: Any, known: Float[Array, "..."] | None, X: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    """The variance of the noise of new observations at some inputs: what is given, else what is known of it, for all of them
    or for each output, whose number is the last column."""
    axes, dtype = X.shape[:-1], X.dtype
    if noise_var is None:
        if known is None:
            raise ValueError(
                "`noise_var` of new observations is not known here: give it, a scalar or one for each of them. (It was given "
                "for each point, or what was observed are latent values, whose likelihood `bridge.PredictivePaths` takes.)"
            )
        known = known.astype(dtype)
        return jnp.broadcast_to(known, axes) if known.ndim == 0 else known[X[..., -1].astype(int)]
    noise_var = _checks.floating(noise_var, "noise_var").astype(dtype)
    if noise_var.shape != axes[len(axes) - noise_var.ndim :]:
        raise ValueError(
            f"`noise_var` must be a scalar or have the last of the axes {axes} of the new observations; got shape "
            f"{noise_var.shape}."
        )
    _checks.positive(noise_var, "noise_var", or_zero=True)
    message = "`noise_var` must not be negative."
    noise_var = _checks.require(jnp.all(noise_var >= 0), noise_var, message)
    return jnp.broadcast_to(noise_var, axes)


def noise_of_kernel(kernel: AbstractKernel, X: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    """The variance of the noise that belongs to a kernel (`White`)."""
    return kernel.noise(X.reshape(-1, X.shape[-1])).reshape(X.shape[:-1])


def observed_with(values: Float[Array, "..."], noise_var: Float[Array, "..."], key: Key) -> Float[Array, "..."]:
    """Values with independent noise, whose variances have the last of their axes."""
    # The root has no derivative at 0: where there is no noise it has none.
    none = noise_var == 0
    root = jnp.where(none, jnp.zeros_like(noise_var), jnp.sqrt(jnp.where(none, jnp.ones_like(noise_var), noise_var)))
    noise = jax.random.normal(key, values.shape, values.dtype)
    return values + jnp.broadcast_to(root, values.shape) * noise
