"""What an observation tells about the optimum of a function."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks
from .._numerics.blocks import map_rows
from .._types import AnyArray, Number
from ..optimise import Optimum
from .draws import covariances, required_positive, variances

# Below so many standard deviations the law that is left is described by a continued fraction, which has converged in double
# precision after so many terms.
_FAR, _TERMS = -4.0, 24


def max_value_entropy(
    mean: Float[AnyArray, "*n"], variance: Float[AnyArray, "*n"], maxima: Float[AnyArray, "s"]
) -> Float[Array, "*n"]:
    """Information of f(x) about the largest value of f (max-value entropy search).

    Mean over the maxima y* of γ φ(γ)/(2 Φ(γ)) − log Φ(γ), γ = (y* − μ(x))/σ(x). For a minimum negate `mean` and the minima.

    **Arguments:** `mean`, `variance`: of f(x), in closed form or of paths, `*n`; `maxima`: the largest values of paths, `s`.

    **Returns:** in nats, `*n`: 0 where the variance is 0.

    **Raises:** ValueError where shapes do not fit, an entry is not finite or a variance is negative (at run time under jit).
    Source: Wang & Jegelka (2017), equation 6.
    """
    mean, variance = _checks.floating(mean, "mean"), _checks.floating(variance, "variance")
    maxima = _checks.floating(maxima, "maxima").astype(mean.dtype)
    if mean.shape != variance.shape or maxima.ndim != 1 or maxima.shape[0] == 0:
        got = f"got {mean.shape}, {variance.shape} and {maxima.shape}"
        raise ValueError(f"`mean` and `variance` must have the same shape and `maxima` one axis of paths; {got}.")
    _checks.finite(mean, "mean")
    _checks.finite(maxima, "maxima")
    _checks.positive(variance, "variance", or_zero=True)
    variance = required_positive(variance.astype(mean.dtype), "variance", or_zero=True)
    return _max_value_entropy(mean, variance, maxima)


@jax.jit
def _max_value_entropy(
    mean: Float[Array, "*n"], variance: Float[Array, "*n"], maxima: Float[Array, "s"]
) -> Float[Array, "*n"]:
    known = variance == 0
    sd = jnp.sqrt(jnp.where(known, jnp.ones_like(mean), variance))
    gamma = (maxima.reshape(-1, *(1,) * mean.ndim) - mean[None]) / sd[None]
    information, _ = _cut(gamma)
    return jnp.where(known, jnp.zeros_like(mean), jnp.mean(information, axis=0))


def joint_entropy_search(
    mean: Callable[..., Any],
    covariance: Callable[..., Any],
    X: Float[AnyArray, "*n d"],
    optimum: Optimum,
    noise_var: Number,
    *,
    maximise: bool = False,
) -> Float[Array, "*n"]:
    """Information of an observation at x about the optimum of f, its place and its value together (joint entropy search).

    ½ log (v(x) + σ²) less the mean over the optima (x*, f*) of ½ log (v*(x) + σ²), with v* the variance of f(x) given that
    f(x*) = f* and that f(x) is no better: that of a normal distribution cut off at f*. Two things are left out: that f is no
    better elsewhere, and that the observation is not quite normal.

    **Arguments:**

    - `mean`, `covariance`: of f, which map `*n d` to `*n`, and `*n d` with `*m d` to `*n *m`: `posterior.mean` and
      `posterior.covariance`, or of paths `paths.mean_path` and `PathCovariance(paths)`.
    - `X`: inputs, `*n d`.
    - `optimum`: of paths, by `optimise.minimise`.
    - `noise_var`: σ², a positive scalar.
    - `maximise`: whether the optima are largest values.

    **Returns:** in nats, `*n`, at least 0. Takes the covariances of all inputs with all optima, a block of inputs at a time.

    **Raises:** ValueError where shapes do not fit, an entry is not finite, or `noise_var` is not positive (at run time under
    jit). Source: Hvarfner, Hutter & Nardi (2022); Tu et al. (2022).
    """
    X = _checks.floating(X, "X")
    places, values = (_checks.floating(part, "optimum").astype(X.dtype) for part in (optimum.points, optimum.values))
    if X.ndim == 0 or places.shape != (*values.shape, X.shape[-1]) or values.size == 0:
        got = f"got {places.shape}, {values.shape} and {X.shape}"
        raise ValueError(f"`optimum` must hold points `*s d` and values `*s`, and `X` inputs `*n d`; {got}.")
    for part in (X, places, values):
        _checks.finite(part, "X" if part is X else "optimum")
    noise = _checks.floating(noise_var, "noise_var").astype(X.dtype)
    if noise.ndim:
        raise ValueError(f"`noise_var` must be a scalar; got shape {noise.shape}.")
    _checks.positive(noise, "noise_var")
    noise = required_positive(noise, "noise_var")
    sign = 1 if _checks.flag(maximise, "maximise") else -1
    flat, places = X.reshape(-1, X.shape[-1]), places.reshape(-1, X.shape[-1])
    found = _joint_entropy_search(mean, covariance, flat, places, values.reshape(-1), noise, sign)
    return found.reshape(X.shape[:-1])


@eqx.filter_jit
def _joint_entropy_search(
    mean: Any,
    covariance: Any,
    X: Float[Array, "n d"],
    places: Float[Array, "s d"],
    values: Float[Array, "s"],
    noise: Float[Array, ""],
    sign: int,
) -> Float[Array, "n"]:
    def means(X: Float[Array, "m d"]) -> Float[Array, "m"]:
        found = jnp.asarray(mean(X))
        if found.shape != X.shape[:1]:
            raise ValueError(f"`mean` must map `*n d` to `*n`: for inputs of shape {X.shape} it gave {found.shape}.")
        return found.astype(X.dtype)

    variance, there = (jnp.maximum(variances(covariance, points), 0) for points in (X, places))
    # Where the data tell f(x*), f* tells nothing more; what is left of its variance is rounding.
    known = there <= jnp.finfo(X.dtype).eps * jnp.maximum(jnp.max(variance), jnp.max(there))
    scale = jnp.where(known, jnp.ones_like(there), there)
    beyond = values - means(places)

    def block(rows: Float[Array, "b dv"]) -> Float[Array, "b"]:
        x, before = rows[:, :-1], rows[:, -1]
        slope = covariances(covariance, x, places) / scale[None, :]
        slope = jnp.where(known[None, :], jnp.zeros_like(slope), slope)
        given = means(x)[:, None] + slope * beyond[None, :]
        # At the optimum itself nothing is left but rounding; against the noise this is none.
        floor = jnp.finfo(X.dtype).eps * (before + noise)[:, None]
        left = jnp.maximum(before[:, None] - slope * slope * there[None, :], floor)
        _, share = _cut(sign * (values[None, :] - given) / jnp.sqrt(left))
        return 0.5 * jnp.log(before + noise) - 0.5 * jnp.mean(jnp.log(left * share + noise), axis=1)

    return map_rows(block, jnp.concatenate([X, variance[:, None]], axis=1), places.shape[0])


@jax.jit
def _cut(gamma: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Of a standard normal law that is cut off above γ: the entropy that it loses, γr/2 − log Φ(γ) with r = φ(γ)/Φ(γ), and
    the variance that is left, 1 − γr − r²."""
    # Far below zero both are differences of nearly equal numbers. There r = x + d at x = −γ, with the continued fraction
    # d = 1/(x + 2/(x + 3/(x + …))) (Abramowitz & Stegun 1964, equation 26.2.14), of which all terms are positive.
    far = gamma < _FAR
    x = jnp.where(far, -gamma, jnp.full_like(gamma, -_FAR))
    c = jnp.zeros_like(x)
    for k in range(_TERMS, 2, -1):
        c = k / (x + c)
    t = 2 / (x + c)
    d = 1 / (x + t)
    far_loss = 0.5 * math.log(2 * math.pi) + jnp.log(x + d) - 0.5 * x * d
    far_share = d * d * (1 + t * (t - c))  # t (x + c) = 2
    near = jnp.where(far, jnp.full_like(gamma, _FAR), gamma)
    log_cdf = jax.scipy.special.log_ndtr(near)
    r = jnp.exp(-0.5 * near * near - 0.5 * math.log(2 * math.pi) - log_cdf)
    return jnp.where(far, far_loss, 0.5 * near * r - log_cdf), jnp.where(far, far_share, 1 - near * r - r * r)
