"""The exponential function of negative numbers."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# For float32 and float64: the type of the bits, the length of the mantissa, the bias of the exponent, the terms of the
# series on |r| ≤ ½ log 2 (the first left out is 0.35^8/8! = 5e-9, 0.35^14/14! = 4e-18), and log 2 in two parts, of which
# the first has so few digits that its product with a whole number of ten bits is exact.
_PARTS = {
    32: (jnp.int32, 23, 127, 8, 0.693359375, -2.1219444005469057e-4),
    64: (jnp.int64, 52, 1023, 14, 0.6931471803691238, 1.9082149292705877e-10),
}


@jax.custom_jvp
def decay(x: Float[Array, "*a"]) -> Float[Array, "*a"]:
    """exp(−x) for x ≥ 0: e^{−x} = 2^{−n} e^r with |r| ≤ ½ log 2, and a polynomial for e^r.

    `jnp.exp` prepares for arguments of either sign, infinities and subnormal results, at twice the cost. Here results below
    the smallest normal number are 0.

    **Arguments:** `x`: at least 0, or NaN, any shape, float32 or float64.

    **Returns:** the exponentials, same shape and dtype, to a few units in the last place.
    """
    bits, mantissa, bias, terms, high, low = _PARTS[jnp.finfo(x.dtype).bits]
    y = jnp.maximum(-x, -bias * math.log(2))
    n = jnp.round(y * (1 / math.log(2)))
    # The last bits of so large a number count in ones: they hold n, and with the bias it is an exponent.
    shifted = n + (1.5 * 2.0**mantissa + bias)
    r = (y - n * high) - n * low
    total = jnp.full_like(r, 1 / math.factorial(terms - 1))
    for k in reversed(range(terms - 1)):
        total = total * r + 1 / math.factorial(k)
    exponent = jax.lax.shift_left(jax.lax.bitcast_convert_type(shifted, bits), jnp.asarray(mantissa, bits))
    return total * jax.lax.bitcast_convert_type(exponent, x.dtype)


# Bits have no derivative; this one holds to any order.
decay.defjvps(lambda dx, value, x: -decay(x) * dx)
