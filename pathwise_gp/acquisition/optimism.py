"""How good it may be: bounds, quantiles and single draws."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks, _fields
from .._types import AnyArray, Key
from ..optimise import maximise as _maximise, minimise as _minimise, Optimum
from .base import AbstractAcquisition, deviation, gain_of, largest


class UpperConfidenceBound(AbstractAcquisition):
    """Mean plus √β standard deviations of the gain: for minimisation the lower bound of f with its sign changed.

    Of q inputs E max_j (μ_j + √(βπ/2) |g(x_j) − μ_j|), which for a Gaussian process and q = 1 is the same.

    **Fields:** `paths`; `beta`: β, a positive scalar; `maximise`.

    **Raises:** ValueError where `beta` is not positive. Source: Srinivas et al. (2010), equation 6; Wilson et al. (2017),
    table 1.
    """

    paths: Callable[..., Any]
    beta: Float[Array, ""] = eqx.field(converter=_fields.scalar("beta", positive=True))
    maximise: bool = eqx.field(static=True, default=False, converter=_fields.flag("maximise"))

    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        gain = gain_of(self.paths, X, self.maximise)
        mean, beta = jnp.mean(gain, axis=0), self.beta.astype(gain.dtype)
        if X.shape[1] == 1:
            return (mean + jnp.sqrt(beta) * deviation(gain))[:, 0]
        bound = mean[None] + jnp.sqrt(beta * math.pi / 2) * jnp.abs(gain - mean[None])
        return jnp.mean(largest(bound, 2), axis=0)


class Quantile(AbstractAcquisition):
    """A quantile of the gain over paths; of q inputs, of the largest of their gains.

    **Fields:** `paths`; `level`: a scalar between 0 and 1, above a half for an optimist, also in minimisation; `maximise`.

    **Raises:** ValueError where `level` is not between 0 and 1. Source: Kaufmann et al. (2012), algorithm 1.
    """

    paths: Callable[..., Any]
    level: Float[Array, ""] = eqx.field(converter=_fields.scalar("level"))
    maximise: bool = eqx.field(static=True, default=False, converter=_fields.flag("maximise"))

    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        gain = largest(gain_of(self.paths, X, self.maximise), 2)
        return jnp.quantile(gain, self.level.astype(gain.dtype), axis=0)

    def __check_init__(self):
        if _checks.is_concrete(self.level) and not 0 < float(self.level) < 1:
            raise ValueError(f"`level` must be between 0 and 1; got {self.level}.")


def thompson_sample(
    paths: Callable[..., Any], bounds: Float[AnyArray, "2 d"], key: Key, *, maximise: bool = False, **options: Any
) -> Optimum:
    """Thompson sampling: the optimum of each path, at which to evaluate next. q independent paths make a batch of q.

    **Arguments:** `paths`, `bounds`, `key`, `options`: as of `optimise.minimise`; `maximise`: whether to seek large values.
    **Returns:** the optimum of each path, whose `points` are the batch, `*s d`. **Raises:** as `optimise.minimise`. Source:
    Thompson (1933); Hernández-Lobato et al. (2017) for batches.
    """
    return (_maximise if _checks.flag(maximise, "maximise") else _minimise)(paths, bounds, key, **options)
