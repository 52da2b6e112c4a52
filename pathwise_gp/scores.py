"""Scores of probabilistic predictions made of draws, and checks of their calibration.

Samples are draws of *what was observed*: values of paths with the noise of the observations on them (`observe`). Axes of
`samples` before those of `y` are axes of draws, so the values of a batch of paths, `s n`, and of an ensemble, `draws s n`,
both fit observations `n`. Lower scores are better throughout. All but `pit` and `coverage`, which count, are differentiable
in samples that are: with paths drawn inside the function (a fixed key), in their hyperparameters.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from . import _checks
from ._paths.observations import observed_with
from ._types import AnyArray, Key, Number


def observe(
    values: Float[AnyArray, "..."], noise_var: Number | Float[AnyArray, "..."], key: Key
) -> Float[Array, "..."]:
    """Draws of observations: values of paths with independent normal noise.

    **Arguments:** `values`: of paths, `*s *n`; `noise_var`: variance of the noise, a scalar, or with as many axes as
    `values` and each of them equal to it or 1 (`draws 1 1` for a noise of each draw); `key`.

    **Returns:** `*s *n`, differentiable in both.

    **Raises:** ValueError where shapes do not fit, or a variance is negative (at run time under jit).
    """
    values = _real(values, "values")
    noise_var = _checks.floating(noise_var, "noise_var").astype(values.dtype)
    _checks.positive(noise_var, "noise_var", or_zero=True)
    noise_var = _required(noise_var >= 0, noise_var, "noise_var", "not be negative or NaN")
    noise_var = _broadcast(noise_var, "noise_var", values.shape)
    return observed_with(values, noise_var, _checks.key(key))


def crps(samples: Float[AnyArray, "..."], y: Float[AnyArray, "..."], *, fair: bool = True) -> Float[Array, "..."]:
    """Continuous ranked probability score, E|X − y| − ½ E|X − X′|, of each observation; lower is better, in the units of y.

    From S draws: (1/S) Σ|xᵢ − y| − c Σᵢ (2i − S − 1) x₍ᵢ₎ with the ordered draws x₍ᵢ₎, in O(S log S). c = 1/(S(S − 1)),
    which has no bias for the score of the law of the draws ("fair", Ferro 2014), or c = 1/S², the score of the
    draws' own distribution function.

    **Arguments:** `samples`: draws of the observations, `*s *n`; `y`: observations, `*n`; `fair`: which of the two.

    **Returns:** `*n`.

    **Raises:** ValueError where shapes do not fit, an entry is not finite, or a fair score is asked of one draw. Source:
    Gneiting & Raftery (2007), equation 21; Zamo & Naveau (2018).
    """
    samples, y = _pair(samples, y, 0)
    s = _draws(samples, _checks.flag(fair, "fair"))
    return _crps(samples, y, _pairs(s, fair))


def energy_score(
    samples: Float[AnyArray, "..."], y: Float[AnyArray, "..."], *, fair: bool = True
) -> Float[Array, "..."]:
    """Energy score, E‖X − y‖ − ½ E‖X − X′‖, of vectors along the last axis; lower is better, in the units of y.

    For vectors of one entry it is the CRPS. Observations `n` of one process are one vector: the score is of their joint law.
    Those of k outputs at n inputs, `n k`, are n vectors. It takes O(S²) distances, made for one draw at a time.

    **Arguments:** `samples`: draws, `*s *n k`; `y`: observations, `*n k`; `fair`: as of `crps`.

    **Returns:** `*n`; a scalar for one vector.

    **Raises:** as `crps`. Source: Gneiting & Raftery (2007), equation 22.
    """
    samples, y = _pair(samples, y, 1)
    s = _draws(samples, _checks.flag(fair, "fair"))
    return _energy(samples, y, _pairs(s, fair))


def variogram_score(
    samples: Float[AnyArray, "..."],
    y: Float[AnyArray, "..."],
    p: Number = 0.5,
    weights: Float[AnyArray, "k k"] | None = None,
) -> Float[Array, "..."]:
    """Variogram score, Σᵢⱼ wᵢⱼ (|yᵢ − yⱼ|ᵖ − E|Xᵢ − Xⱼ|ᵖ)², of vectors along the last axis; lower is better.

    It sees wrong correlations, to which the energy score is nearly blind, and not a constant added to all entries. The mean
    over S draws makes it larger by about Σ wᵢⱼ Var|Xᵢ − Xⱼ|ᵖ/S.

    **Arguments:** `samples`: draws, `*s *n k`; `y`: observations, `*n k`; `p`: the order, positive; `weights`: of pairs of
    entries, `k k`, not negative; 1 unless given.

    **Returns:** `*n`; a scalar for one vector.

    **Raises:** ValueError where shapes do not fit, an entry is not finite, `p` is not positive or a weight is negative.
    Source: Scheuerer & Hamill (2015).
    """
    samples, y = _pair(samples, y, 1)
    k = y.shape[-1]
    p = _checks.floating(p, "p").astype(y.dtype)
    if p.shape != ():
        raise ValueError(f"`p` must be a scalar; got shape {p.shape}.")
    _checks.positive(p, "p")
    pairs = jnp.ones((k, k), y.dtype) if weights is None else _checks.floating(weights, "weights").astype(y.dtype)
    if pairs.shape != (k, k):
        raise ValueError(f"`weights` must have shape {(k, k)}, one for each pair of entries; got {pairs.shape}.")
    _checks.positive(pairs, "weights", or_zero=True)

    return _variogram(samples, y, p, pairs)


def log_score(
    means: Float[AnyArray, "..."],
    y: Float[AnyArray, "..."],
    variances: Number | Float[AnyArray, "..."],
) -> Float[Array, "..."]:
    """Logarithmic score, −log (1/S) Σᵢ N(y | fᵢ, σᵢ²), of each observation; lower is better, in nats.

    The paths' values are means, not draws of observations: the mixture over the paths is the predictive density. The mean
    over S paths makes the score larger by about half its relative variance over S; where the noise is much smaller than the
    spread of the paths that is much.

    **Arguments:** `means`: values of paths, `*s *n`; `y`: observations, `*n`; `variances`: of the noise, positive: a scalar,
    `*n`, or with as many axes as `means`, each of them equal to it or 1 (`draws 1 1` for a noise of each draw).

    **Returns:** `*n`.

    **Raises:** ValueError where shapes do not fit, an entry is not finite, or a variance is not positive (at run time under
    jit). Source: Gneiting & Raftery (2007), section 4.1.
    """
    shape = np.shape(means)
    means, y = _pair(means, y, 0, "means")
    variances = _checks.floating(variances, "variances").astype(y.dtype)
    _checks.positive(variances, "variances")
    variances = _required(variances > 0, variances, "variances", "be positive")
    variances = _broadcast(variances, "variances", shape, y.shape).reshape(means.shape)
    return _log_score(means, y, variances)


def interval_score(samples: Float[AnyArray, "..."], y: Float[AnyArray, "..."], level: Number) -> Float[Array, "..."]:
    """Interval score (Winkler score) of the central interval [l, u] of a level 1 − α, (u − l) + (2/α)((l − y)₊ + (y − u)₊);
    lower is better, in the units of y.

    **Arguments:** `samples`: draws of the observations, `*s *n`; `y`: observations, `*n`; `level`: as `coverage` has them.

    **Returns:** `*n`.

    **Raises:** as `coverage`. Source: Gneiting & Raftery (2007), equation 43.
    """
    samples, y = _pair(samples, y, 0)
    level = _levels(level, "level", samples.shape[0], y.dtype)
    if level.shape != ():
        raise ValueError(f"`level` must be a scalar; got shape {level.shape}.")
    lower, upper = _central(samples, level[None])
    outside = jnp.maximum(lower[0] - y, 0) + jnp.maximum(y - upper[0], 0)
    return upper[0] - lower[0] + 2 / (1 - level) * outside


def pit(samples: Float[AnyArray, "..."], y: Float[AnyArray, "..."], key: Key | None = None) -> Float[Array, "..."]:
    """Probability integral transform: the place of each observation among its draws, between 0 and 1.

    (a + V (b + 1))/(S + 1) with a draws below y and b equal to it. With V uniform on [0, 1] it is uniform, whatever S is and
    however many ties there are, where y is as one more draw. A histogram that is a hump shows a predictive law that is too
    wide, a bowl one that is too narrow, a slope a bias.

    **Arguments:** `samples`: draws of the observations, `*s *n`; `y`: observations, `*n`; `key`: of V, which is ½ where none
    is given: then the values are S + 1 points (without ties), and only nearly uniform.

    **Returns:** `*n`.

    **Raises:** ValueError where shapes do not fit or an entry is not finite. Source: Czado, Gneiting & Held (2009); for
    draws, Hamill (2001).
    """
    samples, y = _pair(samples, y, 0)
    return _pit(samples, y, None if key is None else _checks.key(key))


def loo_pit(paths: Any, posterior: Any, key: Key) -> Float[Array, "..."]:
    """`pit` of each observation among what paths predict of it that are conditioned on all others: a check of calibration on
    the data at hand, without fitting anew. Of a model that is right it is nearly uniform.

    **Arguments:** `paths`: draws of the posterior, `*s`, or an ensemble of them; `posterior`: theirs (of an ensemble
    `posterior_of(ensemble)`); `key`: of the noise of the predictions and of V, used up.

    **Returns:** one for each observation that was made, `n`. **Raises:** ValueError as `paths.leave_one_out`, and where a
    mask is not known, under jit. Source: Gelfand, Dey & Chang (1992); Czado, Gneiting & Held (2009).
    """
    of_noise, of_place = jax.random.split(_checks.key(key))
    return pit(*_left_out(paths, posterior, of_noise), of_place)


def loo_crps(paths: Any, posterior: Any, key: Key, *, fair: bool = True) -> Float[Array, "..."]:
    """`crps` of what paths predict of each observation that are conditioned on all others; lower is better, in the units
    of y.

    **Arguments:** as of `loo_pit`, and `fair` as of `crps`. **Returns:** `n`. **Raises:** as `loo_pit` and `crps`.
    """
    return crps(*_left_out(paths, posterior, _checks.key(key)), fair=fair)


def _left_out(paths: Any, posterior: Any, key: Key) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Draws of each observation without itself, and the observations."""
    values, axes = paths.leave_one_out(posterior), getattr(posterior, "batch_shape", ())
    one = posterior.member(0) if axes else posterior
    y, noise = one.y, posterior.map(lambda member: member.noise) if axes else one.noise
    behind = (1,) * (values.ndim - noise.ndim)
    noise = jnp.broadcast_to(noise.reshape(*noise.shape[: len(axes)], *behind, *noise.shape[len(axes) :]), values.shape)
    samples = observed_with(values, noise, key)
    mask = getattr(one, "mask", None)
    if mask is None:
        return samples, y
    if not _checks.is_concrete(mask):
        raise ValueError("Which observations were made is not known under jit: use `paths.leave_one_out` and the mask.")
    there = np.flatnonzero(np.asarray(mask))
    return samples[..., there], y[there]


def coverage(
    samples: Float[AnyArray, "..."], y: Float[AnyArray, "..."], levels: Number | Float[AnyArray, "..."]
) -> Float[Array, "..."]:
    """The fraction of all observations inside the central intervals of some levels: of calibrated draws, the levels.

    An interval ends at the sample quantiles of probability (1 ± level)/2, at place p (S + 1) of the ordered draws. Where that
    is a whole number an observation that is as one more draw lies inside with probability `level`, whatever S is. Between two
    draws the quantile is interpolated, and the probability differs from the level by an amount of order 1/S that depends on
    the law: 0.02 at level 0.7 of nine normal draws, none of uniform ones.

    **Arguments:** `samples`: draws of the observations, `*s *n`; `y`: observations, `*n`; `levels`: `*l`, between 0 and
    (S − 1)/(S + 1), beyond which S draws have no quantile.

    **Returns:** `*l`. The observations at nearby inputs are not independent, so a binomial standard error is too small.

    **Raises:** ValueError where shapes do not fit, an entry is not finite, or a level is outside that range (at run time
    under jit).
    """
    samples, y = _pair(samples, y, 0)
    levels = _levels(levels, "levels", samples.shape[0], y.dtype)
    flat = levels.reshape(-1)
    lower, upper = _central(samples, flat)
    inside = (lower <= y[None]) & (y[None] <= upper)
    return jnp.mean(inside.astype(y.dtype), axis=tuple(range(1, 1 + y.ndim))).reshape(levels.shape)


def _real(x: Any, name: str) -> Array:
    x = _checks.floating(x, name)
    _checks.finite(x, name)
    return x if _checks.is_concrete(x) else _required(jnp.isfinite(x), x, name, "be finite")


_UNSCORED = "Leave out what was not observed: `samples[..., ok]` and `y[ok]` with `ok = jnp.isfinite(y)`."


def _pair(samples: Any, y: Any, event_axes: int, name: str = "samples") -> tuple[Array, Array]:
    """Samples with all axes of draws made one, `s *n`, and observations, `*n`, in one dtype."""
    samples, y = _real(samples, name), _checks.observed(_checks.floating(y, "y"), _UNSCORED, given=y)
    if y.ndim < event_axes:
        raise ValueError("`y` must have a last axis, of the entries of a vector; got a scalar. Pass `y[None]`.")
    n_axes = samples.ndim - y.ndim
    if n_axes < 1 or samples.shape[n_axes:] != y.shape:
        raise ValueError(
            f"`{name}` must have axes of draws followed by those of `y`, {y.shape}; got shape {samples.shape}."
        )
    s = math.prod(samples.shape[:n_axes])
    if s == 0 or y.size == 0:
        raise ValueError(f"`{name}` must hold at least one draw of one observation; got shape {samples.shape}.")
    return samples.reshape(s, *y.shape), y.astype(samples.dtype)


def _draws(samples: Array, fair: bool) -> int:
    if fair and samples.shape[0] < 2:
        raise ValueError("`samples` holds one draw, of which there is no fair score: draw more, or pass `fair=False`.")
    return samples.shape[0]


def _pairs(s: int, fair: bool) -> float:
    """How many pairs of draws a mean is over: of many draws more than single-precision integers hold."""
    return float(s * (s - 1) if fair else s * s)


def _required(ok: Array, x: Array, name: str, what: str) -> Array:
    """`x`, or an error where a value that is known only at run time is not as it must be."""
    return _checks.require(jnp.all(ok), x, f"`{name}` must {what}.")


def _broadcast(x: Array, name: str, shape: tuple[int, ...], also: tuple[int, ...] = ()) -> Array:
    """`x` with all of `shape`: from a scalar, from `also`, which are its last axes, or from axes of length 1."""
    if x.shape in ((), also):
        x = x.reshape((1,) * (len(shape) - x.ndim) + x.shape)
    if x.ndim != len(shape) or any(here not in (1, there) for here, there in zip(x.shape, shape, strict=True)):
        raise ValueError(
            f"`{name}` must be a scalar{f', have shape {also}' if also else ''} or have {len(shape)} axes, each of length 1 "
            f"or as in {shape}; got shape {x.shape}."
        )
    return jnp.broadcast_to(x, shape)


def _norm(x: Array) -> Array:
    """Lengths of vectors along the last axis, with a derivative of zero at zero, where there is none."""
    square = jnp.sum(x * x, axis=-1)
    zero = square == 0
    return jnp.where(zero, jnp.zeros_like(square), jnp.sqrt(jnp.where(zero, jnp.ones_like(square), square)))


@jax.jit
def _crps(samples: Float[Array, "s *n"], y: Float[Array, "*n"], pairs: Any) -> Float[Array, "*n"]:
    s = samples.shape[0]
    # About y: differences of large numbers would lose digits.
    errors = jnp.sort(samples - y[None], axis=0)
    ranks = jnp.reshape(2 * jnp.arange(1, s + 1) - s - 1, (s,) + (1,) * y.ndim).astype(y.dtype)
    return jnp.mean(jnp.abs(errors), axis=0) - jnp.sum(ranks * errors, axis=0) / pairs


@jax.jit
def _log_score(means: Float[Array, "s *n"], y: Float[Array, "*n"], variances: Float[Array, "s *n"]) -> Array:
    densities = -0.5 * ((y[None] - means) ** 2 / variances + jnp.log(variances) + math.log(2 * math.pi))
    return math.log(means.shape[0]) - jax.nn.logsumexp(densities, axis=0)


@jax.jit
def _pit(samples: Float[Array, "s *n"], y: Float[Array, "*n"], key: Key | None) -> Float[Array, "*n"]:
    below = jnp.sum(samples < y[None], axis=0).astype(y.dtype)
    ties = jnp.sum(samples == y[None], axis=0).astype(y.dtype)
    place = jnp.full(y.shape, 0.5, y.dtype) if key is None else jax.random.uniform(key, y.shape, y.dtype)
    return (below + place * (ties + 1)) / (samples.shape[0] + 1)


@jax.jit
def _energy(samples: Float[Array, "s *n k"], y: Float[Array, "*n k"], pairs: Any) -> Float[Array, "*n"]:
    def spread(total: Array, one: Array) -> tuple[Array, None]:
        return total + jnp.sum(_norm(samples - one[None]), axis=0), None

    zero = jnp.zeros(y.shape[:-1], y.dtype)
    total, _ = jax.lax.scan(jax.checkpoint(spread, prevent_cse=False), zero, samples)
    return jnp.mean(_norm(samples - y[None]), axis=0) - total / (2 * pairs)


@jax.jit
def _variogram(
    samples: Float[Array, "s *n k"], y: Float[Array, "*n k"], p: Float[Array, ""], weights: Float[Array, "k k"]
) -> Float[Array, "*n"]:
    def variogram(x: Array) -> Array:
        difference = x[..., :, None] - x[..., None, :]
        # |0|ᵖ has no derivative for p ≤ 1: entries that are equal have none.
        equal = difference == 0
        size = jnp.where(equal, jnp.ones_like(difference), jnp.abs(difference))
        return jnp.where(equal, jnp.zeros_like(difference), size**p)

    def add(total: Array, one: Array) -> tuple[Array, None]:
        return total + variogram(one), None

    zero = jnp.zeros((*y.shape, y.shape[-1]), y.dtype)
    total, _ = jax.lax.scan(jax.checkpoint(add, prevent_cse=False), zero, samples)
    squares = (variogram(y) - total / samples.shape[0]) ** 2
    return jnp.einsum("...ij,ij->...", squares, weights, precision=jax.lax.Precision.HIGHEST)


def _levels(levels: Any, name: str, s: int, dtype: Any) -> Array:
    levels = _real(levels, name).astype(dtype)
    largest = (s - 1) / (s + 1)
    wanted = f"be above 0 and, with {s} draws, at most {largest:.4g}"
    ok = (levels > 0) & (levels <= largest * (1 + 1e-6))
    if _checks.is_concrete(levels) and not bool(jnp.all(ok)):
        raise ValueError(f"`{name}` must {wanted}; got {levels}. Higher ones need more draws.")
    return _required(ok, levels, name, f"{wanted}: higher ones need more draws")


@jax.jit
def _central(samples: Float[Array, "s *n"], levels: Float[Array, "l"]) -> tuple[Array, Array]:
    """Ends of central intervals, `l *n`: quantiles p at place p (S + 1), counted from 1, of the ordered draws."""
    s = samples.shape[0]
    ordered = jnp.sort(samples, axis=0)

    def quantile(p: Float[Array, "l"]) -> Array:
        place = jnp.clip(p * (s + 1) - 1, 0, s - 1)
        low = jnp.clip(jnp.floor(place).astype(int), 0, max(s - 2, 0))
        share = jnp.reshape(place - low.astype(place.dtype), (-1,) + (1,) * (samples.ndim - 1))
        return (1 - share) * ordered[low] + share * ordered[jnp.minimum(low + 1, s - 1)]

    return quantile((1 - levels) / 2), quantile((1 + levels) / 2)
