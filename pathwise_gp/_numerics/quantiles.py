"""Quantiles of radii, at standard normal scores: q(z) = F⁻¹(Φ(z)).

A score keeps the digits of both tails, which a probability near 1 does not.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.polynomial import Chebyshev

# Scores up to this size; beyond it lies less than 1e−20 of the law.
_LARGEST_SCORE = 9.2
# Enough for nine digits of any radius, down to one dimension and the tails of a Cauchy.
_DEGREE = 96
_NEWTON_STEPS = 12
# Below this a Gamma variable is described by two terms of its series.
_SMALL = 1e-6


def radius(scores: Float[Array, "n"], dim: int, nu: float | None) -> Float[Array, "n"]:
    """Quantiles of ‖ω‖ for ω with the multivariate t law of 2ν degrees of freedom on ℝᵈ; the normal law where ν is None.

    ‖ω‖² is χ²_d, or d times an F(d, 2ν) variable. The logarithm of the quantile is a smooth function of the score, and d and
    ν are known when tracing: so it is a Chebyshev polynomial, fitted then, that is evaluated.
    """
    limit = _LARGEST_SCORE
    series = Chebyshev.interpolate(lambda z: _log_radius(z, dim, nu), _DEGREE, domain=[-limit, limit])
    x = jnp.clip(scores, -limit, limit) / limit
    zero = jnp.zeros_like(x)

    def clenshaw(carry, coefficient):
        first, second = carry
        return (2 * x * first - second + coefficient, first), None

    coefficients = jnp.asarray(series.coef[:0:-1], x.dtype)
    (first, second), _ = jax.lax.scan(clenshaw, (zero, zero), coefficients)
    return jnp.exp(x * first - second + float(series.coef[0]))


def _log_radius(scores: np.ndarray, dim: int, nu: float | None) -> np.ndarray:
    from scipy import special  # a third of the time that the package takes to import

    tail = special.ndtr(-np.abs(scores))
    lower = scores < 0
    if nu is None:
        half = np.where(lower, special.gammaincinv(dim / 2, tail), special.gammainccinv(dim / 2, tail))
        return 0.5 * np.log(2 * half)
    # χ²_d / (χ²_d + χ²_2ν) has the law Beta(d/2, ν); near 1 it is its complement that has digits.
    share = special.betaincinv(dim / 2, nu, tail)
    rest = special.betaincinv(nu, dim / 2, tail)
    odds = np.where(lower, share / (1 - share), (1 - rest) / rest)
    return 0.5 * np.log(2 * nu * odds)


@jax.custom_jvp
def log_gamma(scores: Float[Array, "n"], shape: Float[Array, ""]) -> Float[Array, "n"]:
    """Logarithms of quantiles of the Gamma law of a shape and rate 1, differentiable in the shape.

    By Newton's method for log F(eᵗ) = log p below the median and for the logarithm of the upper tail above it. Both are
    concave in t, so that the steps approach from one side and cannot go astray.
    """
    lower = scores < 0
    log_tail = jax.scipy.special.log_ndtr(-jnp.abs(scores))
    # F(x) ≤ x^α/Γ(α + 1): the first start lies to the left of the root. The second is that of Wilson & Hilferty (1931), good
    # for all but small shapes and low tails.
    bound = (jax.scipy.special.log_ndtr(scores) + jax.scipy.special.gammaln(shape + 1)) / shape
    cube = 1 - 1 / (9 * shape) + scores / (3 * jnp.sqrt(shape))
    t = jnp.where(cube > 0.3, jnp.log(shape) + 3 * jnp.log(jnp.maximum(cube, 0.3)), bound)
    tiny = jnp.finfo(t.dtype).tiny

    def step(_, t):
        x = jnp.exp(t)
        log_slope = shape * t - x - jax.scipy.special.gammaln(shape)  # of F in t
        log_f = jnp.where(x < _SMALL, _log_small(shape, t), jnp.log(jnp.maximum(_lower(shape, x), tiny)))
        log_s = jnp.log(jnp.maximum(_upper(shape, x), tiny))
        down = (log_f - log_tail) * jnp.exp(log_f - log_slope)
        up = (log_tail - log_s) * jnp.exp(log_s - log_slope)
        # Where a tail underflows the slope means nothing: halve or double x.
        return t - jnp.clip(jnp.where(lower, down, up), -1.0, 1.0)

    return jax.lax.fori_loop(0, _NEWTON_STEPS, step, t)


def _log_small(shape: Float[Array, ""], t: Float[Array, "n"]) -> Float[Array, "n"]:
    """log F(eᵗ) up to squares of eᵗ: F = x^α/Γ(α + 1) · (1 − αx/(α + 1) + …)."""
    return shape * t - jax.scipy.special.gammaln(shape + 1) + jnp.log1p(-shape * jnp.exp(t) / (shape + 1))


def _lower(shape: Float[Array, ""], x: Float[Array, "n"]) -> Float[Array, "n"]:
    return jax.scipy.special.gammainc(jnp.broadcast_to(shape, x.shape), x)


def _upper(shape: Float[Array, ""], x: Float[Array, "n"]) -> Float[Array, "n"]:
    return jax.scipy.special.gammaincc(jnp.broadcast_to(shape, x.shape), x)


@log_gamma.defjvp
def _log_gamma_jvp(primals, tangents):
    (scores, shape), (dscores, dshape) = primals, tangents
    t = log_gamma(scores, shape)
    x = jnp.exp(t)
    # At a fixed probability: dx/dα = −(∂F/∂α)/(∂F/∂x); for small x of the two terms of `_log_small`.
    by_shape = (
        jax.lax.random_gamma_grad(  # pyright: ignore[reportCallIssue]
            jnp.broadcast_to(shape, x.shape), jnp.maximum(x, _SMALL)
        )
        / x
    )
    small = (jax.scipy.special.digamma(shape + 1) - t + x / (shape + 1) ** 2) / (shape - shape * x / (shape + 1))
    by_shape = jnp.where(x < _SMALL, small, by_shape)
    density = jnp.exp(-0.5 * scores**2 - 0.5 * math.log(2 * math.pi))
    by_score = density * jnp.exp(-(shape * t - x - jax.scipy.special.gammaln(shape)))
    return t, by_shape * dshape + by_score * dscores
