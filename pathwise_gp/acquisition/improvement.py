"""How much better than the best so far."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _fields
from .._paths.paired import axes_of
from .base import (
    AbstractAcquisition,
    as_bandwidth,
    as_functions,
    as_temperature,
    deviation,
    fat_softplus,
    gain_of,
    largest,
    log_mean,
)
from .probability import improvement_of, log_feasible

# Of the smooth positive part, in standard deviations of the gain.
_TEMPERATURE = 0.01


class ExpectedImprovement(AbstractAcquisition):
    """EI(x) = E max(0, g(x) − g_best); of q inputs E max(0, max_j g(x_j) − g_best).

    Where no path improves it is 0 and has no gradient, and a search ends there: search with `LogExpectedImprovement`.

    **Fields:**

    - `paths`: of f.
    - `best`: the best value of f so far, a scalar; with noise it is not known, and may be that of each path over the inputs
      evaluated, `*s` (`paths(X).min(axis=-1)`).
    - `maximise`: whether large values of f are sought.

    **Raises:** ValueError where `best` is not finite or does not fit the paths. Source: Jones et al. (1998), equation 14.
    """

    paths: Callable[..., Any]
    best: Float[Array, "..."] = eqx.field(converter=_fields.array("best"))
    maximise: bool = eqx.field(static=True, default=False, converter=_fields.flag("maximise"))

    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        gain = largest(gain_of(self.paths, X, self.maximise), 2)
        return jnp.mean(jnp.maximum(improvement_of(self, X, gain, self.best), 0), axis=0)


class LogExpectedImprovement(AbstractAcquisition):
    """log E τ φ((g(x) − g_best)/τ) with the positive part made smooth, φ(z) = log(1 + eᶻ) + 0.1/(1 + z²).

    It differs from log EI by O(τ²) where paths improve, and has a gradient where none does: the tail of φ falls as 1/z², so
    that it is still worth being near. The maximum over q inputs is not smoothed.

    **Fields:**

    - `paths`, `best`, `maximise`: as of `ExpectedImprovement`.
    - `temperature`: τ in units of f, a scalar; a hundredth of the standard deviation of g over the paths unless given.

    **Raises:** ValueError as `ExpectedImprovement`, and where `temperature` is not positive, or not given for a single path.
    Source: Ament et al. (2023), section 4 and appendix A.
    """

    paths: Callable[..., Any]
    best: Float[Array, "..."] = eqx.field(converter=_fields.array("best"))
    temperature: Float[Array, ""] | None = eqx.field(converter=as_temperature, default=None)
    maximise: bool = eqx.field(static=True, default=False, converter=_fields.flag("maximise"))

    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        gain = largest(gain_of(self.paths, X, self.maximise), 2)
        return log_mean(_log_improvement(self, gain, improvement_of(self, X, gain, self.best)))


class ConstrainedExpectedImprovement(AbstractAcquisition):
    """E max_j max(0, g(x_j) − g_best) 1{c(x_j) ≤ 0}: the improvement counts where the same path of all constraints allows it.

    Where none does it is flat: search with `LogConstrainedExpectedImprovement`.

    **Fields:**

    - `paths`: of f; `constraints`: those of one or several c, as of `ProbabilityOfFeasibility`, with its `bandwidth`: path i
      of theirs belongs to path i of f.
    - `best`: the best feasible value so far, as of `ExpectedImprovement`. While there is none use `ProbabilityOfFeasibility`.
    - `maximise`: as there.

    **Raises:** ValueError as these. Source: Gardner et al. (2014); Letham et al. (2019).
    """

    paths: Callable[..., Any]
    constraints: tuple[Any, ...] = eqx.field(converter=as_functions("constraints"))
    best: Float[Array, "..."] = eqx.field(converter=_fields.array("best"))
    bandwidth: Float[Array, ""] | None = eqx.field(converter=as_bandwidth, default=None)
    maximise: bool = eqx.field(static=True, default=False, converter=_fields.flag("maximise"))

    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        gain, feasible = gain_of(self.paths, X, self.maximise), _feasible(self, X)
        improvement = improvement_of(self, X, gain, self.best)
        return jnp.mean(largest(jnp.maximum(improvement, 0) * jnp.exp(feasible), 2), axis=0)


class LogConstrainedExpectedImprovement(AbstractAcquisition):
    """log E max_j τ φ((g(x_j) − g_best)/τ) Φ(−c(x_j)/h): the constrained improvement with the smooth positive part of
    `LogExpectedImprovement`. It has a gradient where no path improves or none is feasible.

    **Fields:** `paths`, `constraints`, `best`, `bandwidth`, `maximise`: as of `ConstrainedExpectedImprovement`;
    `temperature`: τ, as of `LogExpectedImprovement`.

    **Raises:** ValueError as these. Source: Ament et al. (2023), section 4.
    """

    paths: Callable[..., Any]
    constraints: tuple[Any, ...] = eqx.field(converter=as_functions("constraints"))
    best: Float[Array, "..."] = eqx.field(converter=_fields.array("best"))
    temperature: Float[Array, ""] | None = eqx.field(converter=as_temperature, default=None)
    bandwidth: Float[Array, ""] | None = eqx.field(converter=as_bandwidth, default=None)
    maximise: bool = eqx.field(static=True, default=False, converter=_fields.flag("maximise"))

    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        gain, feasible = gain_of(self.paths, X, self.maximise), _feasible(self, X)
        improvement = improvement_of(self, X, gain, self.best)
        return log_mean(largest(_log_improvement(self, gain, improvement) + feasible, 2))


def _feasible(acquisition: Any, X: Float[Array, "n q d"]) -> Float[Array, "s n q"]:
    found = log_feasible(acquisition.constraints, X, acquisition.bandwidth)
    s = math.prod(axes_of(acquisition.paths, X.shape[-1], X.dtype)[0])
    if found.shape[0] != s:
        raise ValueError(f"`constraints` must have as many paths as `paths`, {s}; got {found.shape[0]}.")
    return found


def _log_improvement(acquisition: Any, gain: Float[Array, "s ..."], improvement: Float[Array, "s ..."]) -> Array:
    """log τ φ(improvement/τ), with the temperature given or that of the gain."""
    if acquisition.temperature is not None:
        tau = jnp.broadcast_to(acquisition.temperature.astype(gain.dtype), gain.shape[1:])
    elif gain.shape[0] == 1:
        raise ValueError("`temperature` must be given where there is one path only.")
    else:
        # Where paths hardly differ, enough for the square of the quotient.
        least = jnp.finfo(gain.dtype).eps * jnp.max(jnp.abs(jax.lax.stop_gradient(improvement)), axis=0)
        tau = jnp.maximum(_TEMPERATURE * deviation(gain), least)
    z = improvement / tau[None]
    return jnp.log(tau)[None] + jnp.log(fat_softplus(z))
