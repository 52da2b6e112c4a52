"""Scrambled Sobol points."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from .._types import Key


def sobol(key: Key, n: int, dim: int) -> UInt32[Array, "n dim"]:
    """The first `n` points of a Sobol sequence, scrambled, as numerators over 2³².

    A random lower-triangular matrix of bits for each coordinate keeps the sequence a low-discrepancy one, and a random shift
    makes each point uniform (Matoušek 1998, "random linear scrambling"; the sequence: Joe & Kuo 2008).

    **Arguments:** `key`; `n`, at least 1, and `dim`, at least 1: known when tracing.

    **Returns:** `n dim`.
    """
    bits = max(1, (n - 1).bit_length())
    directions = jnp.asarray(_directions(bits, dim))
    # Column p of the matrix says what the bit p (from the highest) of a point becomes: itself, and random bits below it.
    place = 31 - jnp.arange(32, dtype=jnp.uint32)
    one = jnp.uint32(1)
    below = (one << place) - one
    random = jax.random.bits(key, (dim, 33), jnp.uint32)
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


def _directions(bits: int, dim: int) -> np.ndarray:
    """Direction numbers, `dim bits`: point i of the sequence is the exclusive or of those of the bits of i."""
    from scipy.stats import qmc  # takes most of a second to import

    sequence = qmc.Sobol(dim, scramble=False, bits=32).random_base2(bits)
    points = (sequence * 2.0**32).astype(np.uint64).astype(np.uint32)
    # In the order of Gray codes, points 2ᵏ − 1 and 2ᵏ differ by direction k.
    powers = 2 ** np.arange(bits)
    return (points[powers] ^ points[powers - 1]).T
