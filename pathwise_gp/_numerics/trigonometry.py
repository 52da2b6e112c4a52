"""Sine and cosine of an angle given in turns (one turn is 2π)."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# sin(2πw) = w Σ_k c_k w^{2k} on |w| ≤ ¼. The first term left out is below half a unit in the last place of 1:
# (π/2)^13/13! = 6e-8 for six terms, (π/2)^23/23! = 1e-18 for eleven.
_COEFFICIENTS = [(-1) ** k * (2 * math.pi) ** (2 * k + 1) / math.factorial(2 * k + 1) for k in range(11)]


def _sin_quarter(w: Float[Array, "*a"]) -> Float[Array, "*a"]:
    terms = 6 if jnp.finfo(w.dtype).bits <= 32 else 11
    square = w * w
    total = jnp.full_like(w, _COEFFICIENTS[terms - 1])
    for c in reversed(_COEFFICIENTS[: terms - 1]):
        total = total * square + c
    return total * w


@jax.custom_jvp
def cos_turns(u: Float[Array, "*a"]) -> Float[Array, "*a"]:
    """cos(2πu). `jnp.cos` spends most of its time on reducing huge arguments; in turns that is one rounding.

    **Arguments:** `u`: angles in turns, any shape.

    **Returns:** the cosines, same shape and dtype, to about one unit in the last place of 1 (plus that of `u`).
    """
    return _sin_quarter(0.25 - jnp.abs(u - jnp.round(u)))


@jax.custom_jvp
def sin_turns(u: Float[Array, "*a"]) -> Float[Array, "*a"]:
    """sin(2πu); see `cos_turns`."""
    v = u - jnp.round(u)
    size = jnp.abs(v)
    return _sin_quarter(jnp.sign(v) * jnp.minimum(size, 0.5 - size))


# Rounding has no useful derivative, so both carry their own, which holds to any order.
cos_turns.defjvps(lambda du, _, u: -2 * math.pi * sin_turns(u) * du)
sin_turns.defjvps(lambda du, _, u: 2 * math.pi * cos_turns(u) * du)
