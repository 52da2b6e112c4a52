"""Draws of functions at inputs, and their sample moments."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks
from .._numerics.blocks import map_rows
from .._paths.paired import axes_of
from .._types import AnyArray

# Inputs whose prior variance is asked for at once.
_BATCH = 64


class PathCovariance(eqx.Module):
    """The sample covariance of paths as a function of two sets of inputs; of S paths it has rank S − 1.

    **Fields:** `paths`: maps `*n d` to `*s *n`. **Raises:** at a call, ValueError where there is one path, or `paths` gives
    other axes.
    """

    paths: Callable[..., Any]

    def __call__(self, X: Float[AnyArray, "*n d"], Z: Float[AnyArray, "*m d"]) -> Float[Array, "..."]:
        """**Arguments:** `X`: `*n d`; `Z`: `*m d`. **Returns:** `*n *m`."""
        return _path_covariance(self.paths, as_inputs(X), as_inputs(Z))


def path_variance(paths: Callable[..., Any], X: Float[AnyArray, "*n d"]) -> Float[Array, "*n"]:
    """Sample variance of the values of all paths, over S − 1: for an ensemble that within draws and between them.

    To measure where it is largest is uncertainty sampling (MacKay 1992). Many inputs are taken a block at a time.

    **Arguments:** `paths`; `X`: inputs, `*n d`. **Returns:** `*n`. **Raises:** ValueError where there is one path, or `paths`
    gives other axes than `*s *n`.
    """
    return _path_variance(paths, as_inputs(X))


@eqx.filter_jit
def _path_covariance(paths: Any, X: Float[Array, "*n d"], Z: Float[Array, "*m d"]) -> Float[Array, "..."]:
    left, right = centred(paths, X), centred(paths, Z)
    flat = lambda values: values.reshape(values.shape[0], math.prod(values.shape[1:]))
    product = jnp.matmul(flat(left).T, flat(right), precision=jax.lax.Precision.HIGHEST) / (left.shape[0] - 1)
    return product.reshape(*left.shape[1:], *right.shape[1:])


@eqx.filter_jit
def _path_variance(paths: Any, X: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    def block(rows: Float[Array, "b d"]) -> Float[Array, "b"]:
        values = centred(paths, rows)
        return jnp.sum(values * values, axis=0) / (values.shape[0] - 1)

    rows = X.reshape(math.prod(X.shape[:-1]), X.shape[-1])
    return map_rows(block, rows, math.prod(draw_axes(paths, X))).reshape(X.shape[:-1])


def as_inputs(X: Any) -> Array:
    X = _checks.floating(X, "X")
    if X.ndim == 0 or X.shape[-1] == 0:
        raise ValueError(f"`X` must have a last axis, of the input dimension; got shape {X.shape}.")
    return X


def draw_axes(paths: Any, X: Float[Array, "*n d"]) -> tuple[int, ...]:
    """The axes `*s` of the paths, which are at least two. Not read off the values at `X`, of which an axis of outputs could
    be taken for one of inputs where it has the same length."""
    axes, _ = axes_of(paths, X.shape[-1], X.dtype)
    if math.prod(axes) < 2:
        raise ValueError("`paths` must be at least two: one has no variance.")
    return axes


def draws_at(paths: Any, X: Float[Array, "*n d"]) -> Float[Array, "s r *n"]:
    """Values with the first axis of paths, the others made one, and the axes of the inputs."""
    axes, n = draw_axes(paths, X), X.shape[:-1]
    values = jnp.asarray(paths(X))
    if values.shape != (*axes, *n):
        raise ValueError(f"`paths` must map inputs of axes {n} to axes of paths followed by these; got {values.shape}.")
    return values.reshape(axes[0], math.prod(axes[1:]), *n)


def values_at(paths: Any, X: Float[Array, "*n d"]) -> Float[Array, "s *n"]:
    values = draws_at(paths, X)
    return values.reshape(values.shape[0] * values.shape[1], *values.shape[2:])


def centred(paths: Any, X: Float[Array, "*n d"]) -> Float[Array, "s *n"]:
    values = values_at(paths, X)
    return values - jnp.mean(values, axis=0, keepdims=True)


def noise_of(noise_var: Any, n: int, dtype: Any) -> Float[Array, "n"]:
    noise = required_positive(_checks.noise_variance(noise_var, n).astype(dtype), "noise_var")
    return jnp.broadcast_to(noise, (n,))


def required_positive(x: Float[Array, "..."], name: str, *, or_zero: bool = False) -> Float[Array, "..."]:
    """`x`, or an error where an entry is not finite and positive (or zero): at run time under jit."""
    if _checks.is_concrete(x):
        _checks.positive(x, name, or_zero=or_zero)
        return x
    ok = jnp.all(jnp.isfinite(x) & (x >= 0 if or_zero else x > 0))
    return _checks.require(ok, x, f"`{name}` must be finite and {'not negative' if or_zero else 'positive'}.")


def covariances(covariance: Any, X: Float[Array, "*n d"], Z: Float[Array, "*m d"]) -> Float[Array, "..."]:
    """The covariance of two sets of inputs, `*n *m`, by a function that is given."""
    found, shape = jnp.asarray(covariance(X, Z)), (*X.shape[:-1], *Z.shape[:-1])
    if found.shape != shape:
        wrong = f"for inputs of shapes {X.shape} and {Z.shape} it gave {found.shape}"
        raise ValueError(f"`covariance` must map `*n d` and `*m d` to `*n *m`: {wrong}.")
    return found.astype(X.dtype)


def variances(covariance: Any, X: Float[Array, "n d"]) -> Float[Array, "n"]:
    """The variance at each input, by the same."""
    one = jax.checkpoint(lambda x: covariances(covariance, x, x), prevent_cse=False)
    return jax.lax.map(one, X, batch_size=min(_BATCH, X.shape[0]))
