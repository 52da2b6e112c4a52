"""Acquisition functions: what an evaluation at given inputs is worth, as an average over paths.

All of them are to be maximised over their inputs. They work on the gain g = −f, or g = f with `maximise=True`: unless that is
given, small values of f are sought. Paths are any function that maps `*n d` to `*s *n`; the average goes over all axes
`*s`, draws of hyperparameters included, so that an ensemble gives the acquisition of the whole posterior.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from . import _checks
from ._numerics.blocks import map_rows
from ._types import AnyArray, Key
from .optimise import maximise as _maximise, minimise as _minimise, Optimum

# Of the smooth positive part: the weight of its tail, and its temperature in standard deviations of the gain.
_TAIL, _TEMPERATURE = 0.1, 0.01


def _array(name: str, *, scalar: bool = True, positive: bool = False, **kwargs: Any) -> Any:
    """A field that holds a finite array, or None where that is its default."""

    def convert(x: Any) -> Any:
        if x is None and "default" in kwargs:
            return None
        x = _checks.floating(x, name)
        (_checks.positive if positive else _checks.finite)(x, name)
        if scalar and x.ndim:
            raise ValueError(f"`{name}` must be a scalar; got shape {x.shape}.")
        return x

    return eqx.field(converter=convert, **kwargs)


def _several(name: str) -> Any:
    """A field that holds a tuple of functions."""

    def convert(x: Any) -> tuple[Any, ...]:
        found = (x,) if callable(x) else tuple(x) if isinstance(x, Iterable) else ()
        if not found or not all(callable(one) for one in found):
            raise ValueError(f"`{name}` must be a function that maps `*n d` to `*s *n`, or several; got {x!r}.")
        return found

    return eqx.field(converter=convert)


def _maximise_field() -> Any:
    return eqx.field(static=True, default=False, converter=lambda x: _checks.flag(x, "maximise"))


class AbstractAcquisition(eqx.Module):
    """What an evaluation is worth: `acquisition(X)` of each input alone, `acquisition.joint(X)` of q inputs together. A
    subclass gives `of`."""

    paths: eqx.AbstractVar[Any]

    def __call__(self, X: Float[AnyArray, "*n d"]) -> Float[Array, "*n"]:
        """The value of an evaluation at each input.

        **Arguments:** `X`: inputs, `*n d`. **Returns:** `*n`. Memory beyond that is that of a block of inputs.
        """
        X = _checks.floating(X, "X")
        return self.joint(X[..., None, :] if X.ndim else X)

    def joint(self, X: Float[AnyArray, "*n q d"]) -> Float[Array, "*n"]:
        """The value of q evaluations made together.

        **Arguments:** `X`: inputs, `*n q d`. **Returns:** `*n`; for q = 1 what a call gives.
        """
        X = _checks.floating(X, "X")
        if X.ndim < 2 or X.shape[-2] == 0:
            raise ValueError(f"`X` must have shape (*n, d), or (*n, q, d) with q > 0 in `joint`; got {X.shape}.")
        return _joint(self, X)

    @abstractmethod
    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        """The value of each of n sets of q inputs."""

    def width(self, q: int, samples: int) -> int:
        """Entries of the largest temporary for a set of q inputs, for so many paths."""
        return q * samples


@eqx.filter_jit
def _joint(acquisition: AbstractAcquisition, X: Float[Array, "*n q d"]) -> Float[Array, "*n"]:
    q, d = X.shape[-2:]
    paths = acquisition.paths[0] if isinstance(acquisition.paths, tuple) else acquisition.paths
    samples = eqx.filter_eval_shape(paths, jax.ShapeDtypeStruct((1, d), X.dtype)).size
    of = lambda rows: acquisition.of(rows.reshape(-1, q, d))
    return map_rows(of, X.reshape(-1, q * d), acquisition.width(q, samples)).reshape(X.shape[:-2])


def _samples(paths: Any, X: Float[Array, "n q d"]) -> Float[Array, "s n q"]:
    """Values of all paths, their axes made one."""
    values = paths(X)
    if values.shape[values.ndim - 2 :] != X.shape[:-1]:
        raise ValueError(f"`paths` must map inputs `*n d` to `*s *n`; inputs {X.shape} gave values {values.shape}.")
    return values.reshape(-1, *X.shape[:-1])


def _gain(paths: Any, X: Float[Array, "n q d"], maximise: bool) -> Float[Array, "s n q"]:
    return _samples(paths, X) if maximise else -_samples(paths, X)


def _largest(values: Array, axis: int) -> Array:
    """The maximum along an axis, with the derivative of one entry. That of `jnp.max` finds the entry by comparing values, and
    is NaN where compiled code computes them twice and rounds them differently."""
    place = jnp.expand_dims(jnp.argmax(values, axis=axis), axis)
    return jnp.squeeze(jnp.take_along_axis(values, place, axis=axis), axis)


def _improvement(gain: Float[Array, "s n"], best: Array, maximise: bool) -> Float[Array, "s n"]:
    """The gain beyond that of the best value, which is one for all paths or one for each."""
    best, s = best.astype(gain.dtype).reshape(-1, 1), gain.shape[0]
    if best.shape[0] not in (1, s):
        raise ValueError(f"`best` must be a scalar or one value for each of the {s} paths; got {best.shape[0]}.")
    return gain - jnp.broadcast_to(best if maximise else -best, gain.shape)


def _deviation(values: Float[Array, "s ..."]) -> Float[Array, "..."]:
    """The standard deviation over paths, kept from 0 by the rounding unit."""
    eps, tiny = jnp.finfo(values.dtype).eps, jnp.finfo(values.dtype).tiny
    floor = eps**2 * jnp.mean(jax.lax.stop_gradient(values) ** 2, axis=0) + tiny
    return jnp.sqrt(jnp.var(values, axis=0) + floor)


def _probability(values: Float[Array, "s ..."], bandwidth: Array | None) -> Float[Array, "s ..."]:
    """Whether each value is above 0, made smooth: Φ(value / h)."""
    s = values.shape[0]
    if bandwidth is not None:
        h = jnp.broadcast_to(bandwidth.astype(values.dtype), values.shape[1:])
    elif s == 1:
        raise ValueError("`bandwidth` must be given where there is one path only.")
    else:
        h = _deviation(values) * s ** (-1 / 3)
    return jax.scipy.stats.norm.cdf(values / h[None])


class ExpectedImprovement(AbstractAcquisition):
    """EI(x) = E max(0, g(x) − g_best); of q inputs E max(0, max_j g(x_j) − g_best).

    **Fields:**

    - `paths`: of f.
    - `best`: the best value of f so far, a scalar; with noise it is not known, and may be that of each path over the inputs
      evaluated, `*s` (`paths(X).min(axis=-1)`).
    - `maximise`: whether large values of f are sought.

    **Raises:** ValueError where `best` is not finite or does not fit the paths. Source: Jones et al. (1998), equation 14.
    """

    paths: Callable[..., Any]
    best: Float[Array, "..."] = _array("best", scalar=False)
    maximise: bool = _maximise_field()

    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        gain = _largest(_gain(self.paths, X, self.maximise), 2)
        return jnp.mean(jnp.maximum(_improvement(gain, self.best, self.maximise), 0), axis=0)


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
    best: Float[Array, "..."] = _array("best", scalar=False)
    temperature: Float[Array, ""] | None = _array("temperature", positive=True, default=None)
    maximise: bool = _maximise_field()

    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        gain = _largest(_gain(self.paths, X, self.maximise), 2)
        if self.temperature is not None:
            tau = jnp.broadcast_to(self.temperature.astype(gain.dtype), gain.shape[1:])
        elif gain.shape[0] == 1:
            raise ValueError("`temperature` must be given where there is one path only.")
        else:
            tau = _TEMPERATURE * _deviation(gain)
        z = _improvement(gain, self.best, self.maximise) / tau[None]
        return jnp.log(tau) + jnp.log(jnp.mean(jax.nn.softplus(z) + _TAIL / (1 + z * z), axis=0))


class ProbabilityOfImprovement(AbstractAcquisition):
    """P(g(x) > g_best), as the mean of Φ((g_i(x) − g_best)/h) over paths, which has a gradient; of q inputs that of the best.

    **Fields:**

    - `paths`, `best`, `maximise`: as of `ExpectedImprovement`.
    - `bandwidth`: h in units of f, a scalar; the standard deviation of g over S paths times S^(−1/3) unless given: its
      bias, of the order of S^(−2/3), is below the Monte-Carlo error. A small one gives the share of paths.

    **Raises:** ValueError as `ExpectedImprovement`, and where `bandwidth` is not positive, or not given for a single path.
    Source: Kushner (1964); Azzalini (1981) for the order of the bandwidth.
    """

    paths: Callable[..., Any]
    best: Float[Array, "..."] = _array("best", scalar=False)
    bandwidth: Float[Array, ""] | None = _array("bandwidth", positive=True, default=None)
    maximise: bool = _maximise_field()

    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        return _exceeds(self, X, self.best)


def _exceeds(acquisition: Any, X: Float[Array, "n q d"], best: Array) -> Float[Array, "n"]:
    gain = _largest(_gain(acquisition.paths, X, acquisition.maximise), 2)
    return jnp.mean(_probability(_improvement(gain, best, acquisition.maximise), acquisition.bandwidth), axis=0)


class Exceedance(AbstractAcquisition):
    """P(f(x) < c), or P(f(x) > c) with `maximise=True`; of q inputs, that it holds at one or more of them.

    **Fields:** `paths`; `threshold`: c, a scalar; `bandwidth`: as of `ProbabilityOfImprovement`; `maximise`.

    **Raises:** ValueError where `threshold` is not a finite scalar, or as `ProbabilityOfImprovement`.
    """

    paths: Callable[..., Any]
    threshold: Float[Array, ""] = _array("threshold")
    bandwidth: Float[Array, ""] | None = _array("bandwidth", positive=True, default=None)
    maximise: bool = _maximise_field()

    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        return _exceeds(self, X, self.threshold)


class ProbabilityOfFeasibility(AbstractAcquisition):
    """P(c_j(x) ≤ 0 for all j), as the mean over paths of Π_j Φ(−c_ij(x)/h_j); of q inputs, that one or more are so.

    **Fields:** `paths`: of the constraint, or a tuple of those of several, of which path i of one belongs to path i of the
    others; `bandwidth`: as of `ProbabilityOfImprovement`, of each constraint its own unless given.

    **Raises:** ValueError where the numbers of paths differ, or as `ProbabilityOfImprovement`. Source: Gardner et al. (2014).
    """

    paths: tuple[Any, ...] = _several("paths")
    bandwidth: Float[Array, ""] | None = _array("bandwidth", positive=True, default=None)

    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        none = jnp.prod(1 - _feasible(self.paths, X, self.bandwidth), axis=2)
        return jnp.mean(1 - none, axis=0)


def _feasible(constraints: tuple[Any, ...], X: Float[Array, "n q d"], bandwidth: Array | None) -> Array:
    found = [_probability(-_samples(constraint, X), bandwidth) for constraint in constraints]
    if len({one.shape for one in found}) > 1:
        raise ValueError(f"Constraints must have as many paths each; got {[one.shape[0] for one in found]}.")
    return jnp.prod(jnp.stack(found), axis=0)


class ConstrainedExpectedImprovement(AbstractAcquisition):
    """E max_j max(0, g(x_j) − g_best) 1{c(x_j) ≤ 0}: the improvement counts where the same path of all constraints allows it.

    **Fields:**

    - `paths`: of f; `constraints`: those of one or several c, as of `ProbabilityOfFeasibility`, with its `bandwidth`: path i
      of theirs belongs to path i of f.
    - `best`: the best feasible value so far, as of `ExpectedImprovement`. While there is none use `ProbabilityOfFeasibility`.
    - `maximise`: as there.

    **Raises:** ValueError as these. Source: Gardner et al. (2014); Letham et al. (2019).
    """

    paths: Callable[..., Any]
    constraints: tuple[Any, ...] = _several("constraints")
    best: Float[Array, "..."] = _array("best", scalar=False)
    bandwidth: Float[Array, ""] | None = _array("bandwidth", positive=True, default=None)
    maximise: bool = _maximise_field()

    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        gain = _gain(self.paths, X, self.maximise)
        s, n, q = gain.shape
        improvement = _improvement(gain.reshape(s, n * q), self.best, self.maximise).reshape(s, n, q)
        feasible = _feasible(self.constraints, X, self.bandwidth)
        if feasible.shape[0] != s:
            raise ValueError(f"`constraints` must have as many paths as `paths`, {s}; got {feasible.shape[0]}.")
        return jnp.mean(_largest(jnp.maximum(improvement, 0) * feasible, 2), axis=0)


class UpperConfidenceBound(AbstractAcquisition):
    """Mean plus √β standard deviations of the gain: for minimisation the lower bound of f with its sign changed.

    Of q inputs E max_j (μ_j + √(βπ/2) |g(x_j) − μ_j|), which for a Gaussian process and q = 1 is the same.

    **Fields:** `paths`; `beta`: β, a positive scalar; `maximise`.

    **Raises:** ValueError where `beta` is not positive. Source: Srinivas et al. (2010), equation 6; Wilson et al. (2017),
    table 1.
    """

    paths: Callable[..., Any]
    beta: Float[Array, ""] = _array("beta", positive=True)
    maximise: bool = _maximise_field()

    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        gain = _gain(self.paths, X, self.maximise)
        mean, beta = jnp.mean(gain, axis=0), self.beta.astype(gain.dtype)
        if X.shape[1] == 1:
            return (mean + jnp.sqrt(beta) * _deviation(gain))[:, 0]
        bound = mean[None] + jnp.sqrt(beta * math.pi / 2) * jnp.abs(gain - mean[None])
        return jnp.mean(_largest(bound, 2), axis=0)


class Quantile(AbstractAcquisition):
    """A quantile of the gain over paths; of q inputs, of the largest of their gains.

    **Fields:** `paths`; `level`: a scalar between 0 and 1, above a half for an optimist, also in minimisation; `maximise`.

    **Raises:** ValueError where `level` is not between 0 and 1. Source: Kaufmann et al. (2012), algorithm 1.
    """

    paths: Callable[..., Any]
    level: Float[Array, ""] = _array("level")
    maximise: bool = _maximise_field()

    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        gain = _largest(_gain(self.paths, X, self.maximise), 2)
        return jnp.quantile(gain, self.level.astype(gain.dtype), axis=0)

    def __check_init__(self):
        if _checks.is_concrete(self.level) and not 0 < float(self.level) < 1:
            raise ValueError(f"`level` must be between 0 and 1; got {self.level}.")


class KnowledgeGradient(AbstractAcquisition):
    """E max_a μ'(a) − max_a μ(a): what an observation adds to the largest posterior mean of g over a finite set.

    Each path makes the observation that it would give, y_i = g_i(x) + ε_i, and μ' is the mean given y_i under the
    covariances of the paths themselves: μ'(a) = μ(a) + C(a, x)(V(x) + σ²)⁻¹(y_i − μ(x)). The set is `candidates` and x; the
    value is never negative. Covariances of a sample need many paths, some hundred, under each draw of the hyperparameters:
    moments are those over the last path axis, and what is before it is averaged. Optimising over a continuum of a (the
    one-shot form) is left out.

    **Fields:**

    - `paths`: of f, with one path axis or more.
    - `candidates`: the points among which the best mean is sought, `m d`, fixed.
    - `key`: of ε, the same at every x; `noise_var`: σ², a positive scalar.
    - `maximise`: whether large values of f are sought.

    **Raises:** ValueError where shapes do not fit, `noise_var` is not positive, or the last path axis has one path. Source:
    Frazier et al. (2009); Scott et al. (2011).
    """

    paths: Callable[..., Any]
    candidates: Float[Array, "m d"] = eqx.field(converter=lambda X: _checks.points(X, "candidates"))
    key: Key
    noise_var: Float[Array, ""] = _array("noise_var", positive=True)
    maximise: bool = _maximise_field()

    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        n, q, m = *X.shape[:2], self.candidates.shape[0]
        there = self.paths(self.candidates)
        if there.ndim < 2 or there.shape[-2] < 2:
            raise ValueError(f"`paths` must have a last path axis of two or more; candidates gave {there.shape}.")
        s = there.shape[-2]
        there = (there if self.maximise else -there).reshape(-1, s, 1, m)
        here = _gain(self.paths, X, self.maximise).reshape(-1, s, n, q)
        gain = jnp.concatenate([jnp.broadcast_to(there, (*here.shape[:3], m)), here], axis=3)
        mean = jnp.mean(gain, axis=1)
        off = gain - mean[:, None]
        noise = jax.random.normal(self.key, (s, q), gain.dtype) * jnp.sqrt(self.noise_var.astype(gain.dtype))
        seen = off[..., m:] + (noise - jnp.mean(noise, axis=0, keepdims=True))[None, :, None, :]
        covariance = jnp.einsum("gsna,gsnq->gnaq", off, off[..., m:]) / (s - 1)
        observed = covariance[:, :, m:] + self.noise_var.astype(gain.dtype) * jnp.eye(q, dtype=gain.dtype)[None, None]
        weights = jnp.linalg.solve(observed, jnp.einsum("gsnq->gnqs", seen))
        updated = mean[..., None] + jnp.einsum("gnaq,gnqs->gnas", covariance, weights)
        return jnp.mean(jnp.mean(_largest(updated, 2), axis=2) - _largest(mean, 2), axis=0)

    def width(self, q: int, samples: int) -> int:
        return 2 * samples * (q + self.candidates.shape[0])


def thompson_sample(
    paths: Callable[..., Any], bounds: Float[AnyArray, "2 d"], key: Key, *, maximise: bool = False, **options: Any
) -> Optimum:
    """Thompson sampling: the optimum of each path, at which to evaluate next. q independent paths make a batch of q.

    **Arguments:** `paths`, `bounds`, `key`, `options`: as of `optimise.minimise`; `maximise`: whether to seek large values.
    **Returns:** the optimum of each path, whose `points` are the batch, `*s d`. **Raises:** as `optimise.minimise`. Source:
    Thompson (1933); Hernández-Lobato et al. (2017) for batches.
    """
    return (_maximise if _checks.flag(maximise, "maximise") else _minimise)(paths, bounds, key, **options)
