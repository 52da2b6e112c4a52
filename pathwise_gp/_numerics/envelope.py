"""The expected maximum of lines in a random variable that is symmetric about 0."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# From here on φ(c) − cΦ(−c) loses more digits as a difference than so many terms of the continued fraction leave out.
_FAR, _TERMS = 4.0, 32


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def expected_gain(intercepts: Float[Array, "m"], slopes: Float[Array, "m"], dim: int) -> Float[Array, ""]:
    """E max_i (a_i + b_i R) − max_i a_i, a sum of terms that are not negative.

    R is a standard normal variable, or for `dim` > 1 of either sign with the size of a vector of so many of them: Z = R U
    with a direction U of its own, so that the mean over directions is the expectation over Z.

    Of the lines that are largest somewhere, in the order of their slopes, each neighbours i and j add (b_j − b_i) E(R − |c|)₊
    with c where they meet (Frazier et al. 2009, equation 14). They are found one after the other to both sides of 0, from the
    line that is largest there: the next is the one that crosses the last first. Of the intercepts the derivatives are the
    probabilities that a line is the largest, less 1 for the one of largest intercept; of the slopes E[R; i is largest].

    **Arguments:** intercepts a and slopes b, `m`; `dim`. **Returns:** a scalar; NaN where one of them is.
    """
    return _walk(intercepts, slopes, dim, derivatives=False)[0]


@expected_gain.defjvp
def _expected_gain_jvp(dim: int, primals: Any, tangents: Any) -> tuple[Array, Array]:
    intercepts, slopes = primals
    value, by_intercept, by_slope = _walk(intercepts, slopes, dim, derivatives=True)
    return value, jnp.sum(by_intercept * tangents[0]) + jnp.sum(by_slope * tangents[1])


def _walk(a: Float[Array, "m"], b: Float[Array, "m"], dim: int, derivatives: bool) -> tuple[Array, Array, Array]:
    """The value, and its derivatives by intercepts and slopes (0 unless they are asked for)."""
    # Beyond it the density is 0 in this dtype.
    limit = math.sqrt(-2 * math.log(float(jnp.finfo(a.dtype).tiny)))
    first, zero = jnp.argmax(a), jnp.zeros_like(a)

    def next_of(b: Float[Array, "m"], i: Int[Array, ""]) -> tuple[Int[Array, ""], Float[Array, ""], Bool[Array, ""]]:
        steeper = b > b[i]
        at = jnp.where(steeper, (a[i] - a) / jnp.where(steeper, b - b[i], jnp.ones_like(b)), jnp.inf)
        j = jnp.argmin(at)
        return j, at[j], steeper[j] & (at[j] < limit)

    def one_side(b: Float[Array, "m"]) -> tuple[Array, Array, Array]:
        def step(state: Any) -> Any:
            i, (j, c, _), (value, by_a, by_b) = state
            excess, tail, size = upper(c, dim)
            value = value + (b[j] - b[i]) * excess
            if derivatives:
                by_a = by_a.at[i].add(-tail).at[j].add(tail)
                by_b = by_b.at[i].add(-size).at[j].add(size)
            # Lines that meet in one point may have left the order of rounding.
            k, at, found = next_of(b, j)
            return j, (k, jnp.maximum(at, c), found), (value, by_a, by_b)

        j, c, found = next_of(b, first)
        start = first, (j, jnp.maximum(c, 0), found), (0 * jnp.sum(a + b), zero, zero)
        return jax.lax.while_loop(lambda state: state[1][2], step, start)[2]

    value, by_a, by_b = jax.vmap(one_side)(jnp.stack([b, -b]))
    return jnp.sum(value), jnp.sum(by_a, axis=0), by_b[0] - by_b[1]


def upper(c: Float[Array, "..."], dim: int) -> tuple[Array, Array, Array]:
    """E(R − c)₊, P(R > c) and E[R; R > c] for c ≥ 0, to the digits of the density: sums of what is positive.

    With P_k = P(χ_k > c) they are a half of the integral of P_dim, of P_dim, and of E χ_dim · P_{dim+1}.
    """
    # P_{k+2} = P_k + (c²/2)^{k/2} e^{−c²/2} / Γ(k/2 + 1), whose integral from c on is w_k P_{k+1}.
    density = jnp.exp(-0.5 * c * c)
    P = {0: jnp.zeros_like(c), 1: 2 * jax.scipy.stats.norm.cdf(-c)}
    for k in range(dim):
        P[k + 2] = P[k] + density * c**k * (2 ** (-k / 2) / math.gamma(k / 2 + 1))
    excess = _normal_excess(c) if dim % 2 else jnp.zeros_like(c)
    for k in range(dim % 2, dim - 1, 2):
        excess = excess + 0.5 * math.gamma((k + 1) / 2) / (math.sqrt(2) * math.gamma(k / 2 + 1)) * P[k + 1]
    size = math.sqrt(2) * math.gamma((dim + 1) / 2) / math.gamma(dim / 2)
    return excess, 0.5 * P[dim], 0.5 * size * P[dim + 1]


def _normal_excess(c: Float[Array, "..."]) -> Float[Array, "..."]:
    """φ(c) − cΦ(−c)."""
    near, far = jnp.minimum(c, _FAR), jnp.maximum(c, _FAR)
    # Φ(−c) = φ(c)/(c + k) with k = 1/(c + 2/(c + 3/(c + …))), so that the difference is φ(c) k/(c + k).
    k = far
    for n in range(_TERMS, 0, -1):
        k = n / k if n == 1 else far + n / k
    density = jax.scipy.stats.norm.pdf(c)
    return jnp.where(c < _FAR, density - c * jax.scipy.stats.norm.cdf(-near), density * (k / (far + k)))
