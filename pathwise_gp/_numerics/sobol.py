"""Scrambled Sobol points."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from .._types import Key

# Random numbers for each coordinate: a matrix of bits and a shift.
BITS = 33


def sobol(key: Key, n: int, dim: int) -> UInt32[Array, "n dim"]:
    """The first `n` points of a Sobol sequence, scrambled, as numerators over 2³².

    A random lower-triangular matrix of bits for each coordinate keeps the sequence a low-discrepancy one, and a random shift
    makes each point uniform (Matoušek 1998, "random linear scrambling"; the sequence: Joe & Kuo 2008).

    **Arguments:** `key`; `n`, at least 1, and `dim`, at least 1: known when tracing.

    **Returns:** `n dim`.
    """
    return scrambled_sobol(jax.random.bits(key, (dim, BITS), jnp.uint32), n)


def scrambled_sobol(random: UInt32[Array, "dim b"], n: int) -> UInt32[Array, "n dim"]:
    """`sobol` with random bits for its scramble."""
    dim = random.shape[0]
    bits = max(1, (n - 1).bit_length())
    directions = jnp.asarray(_directions(bits, dim))
    # Column p of the matrix says what the bit p (from the highest) of a point becomes: itself, and random bits below it.
    place = 31 - jnp.arange(32, dtype=jnp.uint32)
    one = jnp.uint32(1)
    below = (one << place) - one
    columns = (random[:, :32] & below[None, :]) | (one << place)[None, :]
    scrambled = _combine(_bits(directions, place), columns[:, None, :])
    index = jnp.arange(n, dtype=jnp.uint32)
    points = _combine(_bits(index, jnp.arange(bits, dtype=jnp.uint32))[:, None, :], scrambled[None, :, :])
    return points ^ random[None, :, 32]


def _bits(x: UInt32[Array, "..."], places: UInt32[Array, "b"]) -> UInt32[Array, "... b"]:
    """The bits of x, 0 or 1, along a new last axis."""
    return (x[..., None] >> places.reshape((1,) * x.ndim + (-1,))) & jnp.uint32(1)


def _combine(bits: UInt32[Array, "..."], vectors: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """The exclusive or, along the last axis, of the vectors whose bit is 1."""
    last = max(bits.ndim, vectors.ndim) - 1
    return jax.lax.reduce(bits * vectors, jnp.uint32(0), jax.lax.bitwise_xor, (last,))


# Of coordinates 2 to 21: a primitive polynomial over the field of two elements, its coefficients as bits, and the first
# numbers of its recurrence (Joe & Kuo 2008). They are here, as what has all of them takes half a second to import.
_TABLE = (
    (0b11, (1,)),
    (0b111, (1, 3)),
    (0b1011, (1, 3, 1)),
    (0b1101, (1, 1, 1)),
    (0b10011, (1, 1, 3, 3)),
    (0b11001, (1, 3, 5, 13)),
    (0b100101, (1, 1, 5, 5, 17)),
    (0b101001, (1, 1, 5, 5, 5)),
    (0b101111, (1, 1, 7, 11, 19)),
    (0b110111, (1, 1, 5, 1, 1)),
    (0b111011, (1, 1, 1, 3, 11)),
    (0b111101, (1, 3, 5, 5, 31)),
    (0b1000011, (1, 3, 3, 9, 7, 49)),
    (0b1011011, (1, 1, 1, 15, 21, 21)),
    (0b1100001, (1, 3, 1, 13, 27, 49)),
    (0b1100111, (1, 1, 1, 15, 7, 5)),
    (0b1101101, (1, 3, 1, 15, 13, 25)),
    (0b1110011, (1, 1, 5, 5, 19, 61)),
    (0b10000011, (1, 3, 7, 11, 23, 15, 103)),
    (0b10001001, (1, 3, 7, 13, 13, 15, 69)),
)


def _directions(bits: int, dim: int) -> np.ndarray:
    """Direction numbers, `dim bits`: point i of the sequence is the exclusive or of those of the bits of i, whose order is
    that of Gray codes."""
    if dim <= 1 + len(_TABLE):
        of_first = [1] * bits
        numbers = np.array([of_first, *(_recurrence(*row, bits) for row in _TABLE[: dim - 1])], np.uint32)
        return numbers << np.arange(31, 31 - bits, -1, dtype=np.uint32)
    from scipy.stats import qmc

    sequence = qmc.Sobol(dim, scramble=False, bits=32).random_base2(bits)
    points = (sequence * 2.0**32).astype(np.uint64).astype(np.uint32)
    # In that order points 2ᵏ − 1 and 2ᵏ differ by direction k.
    powers = 2 ** np.arange(bits)
    return (points[powers] ^ points[powers - 1]).T


def _recurrence(polynomial: int, first: tuple[int, ...], bits: int) -> list[int]:
    """mⱼ = mⱼ₋ₛ ⊕ 2ˢmⱼ₋ₛ ⊕ Σₖ aₖ 2ᵏ mⱼ₋ₖ, with the sum that of bits, for a polynomial of degree s with coefficients a."""
    degree, numbers = len(first), list(first)
    while len(numbers) < bits:
        following = numbers[-degree] ^ (numbers[-degree] << degree)
        for k in range(1, degree):
            if polynomial >> (degree - k) & 1:
                following ^= numbers[-k] << k
        numbers.append(following)
    return numbers[:bits]
