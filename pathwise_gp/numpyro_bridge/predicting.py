"""Observations that paths predict."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks
from .._types import AnyArray, Key


def _as_tuple(paths: Callable[..., Any] | Sequence[Callable[..., Any]]) -> tuple[Any, ...]:
    found = tuple(paths) if isinstance(paths, Sequence) else (paths,)
    if not found or not all(callable(path) for path in found):
        raise ValueError(
            f"`paths` must be a path, an ensemble or another function, or a sequence of such; got {paths!r}."
        )
    return found


class PredictivePaths(eqx.Module):
    """Paths of latent values as draws of what would be observed: y(·) ~ likelihood(f(·)) for each path f.

    **Fields:**

    - `paths`: paths or an ensemble of them, or any function that maps `*n d` to `*s *n`; for a likelihood of several latent
      processes a sequence of such, of the same axes.
    - `likelihood`: maps their values to a NumPyro distribution of the same axes: `lambda f: dist.Poisson(jnp.exp(f))`,
      `lambda f, g: dist.Normal(f, jnp.exp(g))`. What differs between draws has their axis: with noise of shape `draws`
      and paths `draws S *n`, `lambda f: dist.Normal(f, noise[:, None, None])`, for one axis of inputs.
    - `key`: of the observations. Calls with as many inputs use the same random numbers: for inputs a block at a time, give
      each block a key of its own (`equinox.tree_at`).

    **Raises:** ValueError where the paths give values of different shapes, or the distribution has another.
    """

    paths: tuple[Callable[..., Any], ...] = eqx.field(converter=_as_tuple)
    likelihood: Callable[..., Any]
    key: Key = eqx.field(converter=_checks.key)

    def __call__(self, X: Float[AnyArray, "*n d"]) -> Array:
        """Draws of observations.

        **Arguments:** `X`: inputs, `*n d`. **Returns:** observations, `*s *n`, independent at the inputs of one call given
        the paths, and followed by the axes of one observation if it has any.
        """
        return self.distribution(X).sample(self.key)

    def distribution(self, X: Float[AnyArray, "*n d"]) -> Any:
        """The distribution of observations at inputs, `*n d`, given each path: of batch shape `*s *n`."""
        values = [path(X) for path in self.paths]
        shapes = {value.shape for value in values}
        found = self.likelihood(*values)
        if len(shapes) > 1 or not hasattr(found, "batch_shape") or not shapes & {found.batch_shape, found.shape()}:
            raise ValueError(
                f"`likelihood` must return a distribution with the axes of the values of the paths, {sorted(shapes)}; got "
                f"{getattr(found, 'batch_shape', found)}."
            )
        return found

    def log_density(self, X: Float[AnyArray, "*n d"], y: Any) -> Float[Array, "*n"]:
        """Log predictive density of each observation: that of the mixture over all paths.

        **Arguments:** `X`: inputs, `*n d`; `y`: observations, `*n`, followed by the axes of one. **Returns:** `*n`.
        **Raises:** ValueError where `y` has another shape or is not finite, or the distribution has axes behind those of the
        inputs (of several outputs: make them those of an event, by `to_event(1)`).
        """
        given, y = y, jnp.asarray(y)
        found, points = self.distribution(X), np.shape(X)[:-1]
        axes = tuple(range(len(found.batch_shape) - len(points)))
        if found.batch_shape[len(axes) :] != points:
            raise ValueError(
                f"`likelihood` must return a distribution whose last axes are those of the inputs, {points}; got "
                f"{found.batch_shape}. Make further axes those of an event: `to_event(1)`."
            )
        if y.shape != (*points, *found.event_shape):
            raise ValueError(f"`y` must have shape {(*points, *found.event_shape)}; got {y.shape}.")
        if jnp.issubdtype(y.dtype, jnp.floating):
            y = _checks.observed(y, _checks.LEAVE_OUT, given=given)
        values = found.log_prob(y)
        return jax.scipy.special.logsumexp(values, axis=axes) - math.log(math.prod(found.batch_shape[: len(axes)]))
