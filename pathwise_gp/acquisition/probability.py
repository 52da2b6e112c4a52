"""Probabilities of what an evaluation may show."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _fields
from .._paths.paired import axes_of
from .base import (
    AbstractAcquisition,
    as_bandwidth,
    as_functions,
    gain_of,
    largest,
    log_mean,
    log_probability,
    probability,
    samples_of,
)


class ProbabilityOfImprovement(AbstractAcquisition):
    """P(g(x) > g_best), as the mean of Φ((g_i(x) − g_best)/h) over paths, which has a gradient; of q inputs that of the best.

    **Fields:**

    - `paths`, `best`, `maximise`: as of `ExpectedImprovement`.
    - `bandwidth`: h in units of f, a scalar; the standard deviation of g over S paths times S^(−1/3) unless given: its
      bias, of the order of S^(−2/3), is below the Monte-Carlo error. A small one gives the share of paths.
    - `log`: whether to give the logarithm, which has a gradient also where the probability underflows.

    **Raises:** ValueError as `ExpectedImprovement`, and where `bandwidth` is not positive, or not given for a single path.
    Source: Kushner (1964); Azzalini (1981) for the order of the bandwidth.
    """

    paths: Callable[..., Any]
    best: Float[Array, "..."] = eqx.field(converter=_fields.array("best"))
    bandwidth: Float[Array, ""] | None = eqx.field(converter=as_bandwidth, default=None)
    maximise: bool = eqx.field(static=True, default=False, converter=_fields.flag("maximise"))
    log: bool = eqx.field(static=True, default=False, converter=_fields.flag("log"))

    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        return _exceeds(self, X, self.best)


class Exceedance(AbstractAcquisition):
    """P(f(x) < c), or P(f(x) > c) with `maximise=True`; of q inputs, that it holds at one or more of them.

    **Fields:** `paths`; `threshold`: c, a scalar; `bandwidth`, `log`: as of `ProbabilityOfImprovement`; `maximise`.

    **Raises:** ValueError where `threshold` is not a finite scalar, or as `ProbabilityOfImprovement`.
    """

    paths: Callable[..., Any]
    threshold: Float[Array, ""] = eqx.field(converter=_fields.scalar("threshold"))
    bandwidth: Float[Array, ""] | None = eqx.field(converter=as_bandwidth, default=None)
    maximise: bool = eqx.field(static=True, default=False, converter=_fields.flag("maximise"))
    log: bool = eqx.field(static=True, default=False, converter=_fields.flag("log"))

    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        return _exceeds(self, X, self.threshold)


class ProbabilityOfFeasibility(AbstractAcquisition):
    """P(c_j(x) ≤ 0 for all j), as the mean over paths of Π_j Φ(−c_ij(x)/h_j); of q inputs, that one or more are so.

    **Fields:** `paths`: of the constraint, or a tuple of those of several, of which path i of one belongs to path i of the
    others; `bandwidth`, `log`: as of `ProbabilityOfImprovement`, the bandwidth of each constraint its own unless given.

    **Raises:** ValueError where the numbers of paths differ, or as `ProbabilityOfImprovement`. Source: Gardner et al. (2014).
    """

    paths: tuple[Any, ...] = eqx.field(converter=as_functions("paths"))
    bandwidth: Float[Array, ""] | None = eqx.field(converter=as_bandwidth, default=None)
    log: bool = eqx.field(static=True, default=False, converter=_fields.flag("log"))

    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        logs = log_feasible(self.paths, X, self.bandwidth)
        if not self.log:
            return jnp.mean(1 - jnp.prod(1 - jnp.exp(logs), axis=2), axis=0)
        one = logs[:, :, 0]
        for j in range(1, X.shape[1]):  # P(A or B) = P(A) + P(B) P(not A)
            one = jnp.logaddexp(one, logs[:, :, j] + jnp.log1p(-jnp.exp(jnp.minimum(one, -jnp.finfo(one.dtype).eps))))
        return log_mean(one)


def improvement_of(acquisition: Any, X: Float[Array, "n q d"], gain: Float[Array, "s ..."], best: Array) -> Array:
    """The gain beyond that of the best value, which is one for all paths or one for each."""
    axes, _ = axes_of(acquisition.paths, X.shape[-1], X.dtype)
    if best.shape not in ((), axes):
        raise ValueError(f"`best` must be a scalar or one value for each path, of shape {axes}; got {best.shape}.")
    best = best.astype(gain.dtype).reshape(-1, *(1,) * (gain.ndim - 1))
    return gain - jnp.broadcast_to(best if acquisition.maximise else -best, gain.shape)


def _exceeds(acquisition: Any, X: Float[Array, "n q d"], best: Array) -> Float[Array, "n"]:
    gain = largest(gain_of(acquisition.paths, X, acquisition.maximise), 2)
    beyond = improvement_of(acquisition, X, gain, best)
    if acquisition.log:
        return log_mean(log_probability(beyond, acquisition.bandwidth))
    return jnp.mean(probability(beyond, acquisition.bandwidth), axis=0)


def log_feasible(constraints: tuple[Any, ...], X: Float[Array, "n q d"], bandwidth: Array | None) -> Array:
    """log Π_j Φ(−c_ij(x)/h_j), `s n q`."""
    found = [log_probability(-samples_of(constraint, X), bandwidth) for constraint in constraints]
    if len({one.shape for one in found}) > 1:
        raise ValueError(f"Constraints must have as many paths each; got {[one.shape[0] for one in found]}.")
    return jnp.sum(jnp.stack(found), axis=0)
