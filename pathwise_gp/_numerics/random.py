"""Random numbers of several keys by one loop of the generator: to compile a loop takes a tenth of a second, and more than to
run it for most of what is drawn."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from .._types import Key, Keys

# As many numbers that are not used are made in less than a millisecond.
_UNUSED = 2**15


def bits(keys: Keys, sizes: Sequence[int]) -> tuple[UInt32[Array, "n"], ...]:
    """`jax.random.bits(key, (size,), uint32)` of each of the keys."""
    return _of_each(lambda key, size: jax.random.bits(key, (size,), jnp.uint32), keys, sizes)


def normals(keys: Keys, shapes: Sequence[tuple[int, ...]], dtype: Any) -> tuple[Float[Array, "..."], ...]:
    """`jax.random.normal(key, shape, dtype)` of each of the keys."""
    drawn = _of_each(lambda key, size: jax.random.normal(key, (size,), dtype), keys, list(map(math.prod, shapes)))
    return tuple(flat.reshape(shape) for flat, shape in zip(drawn, shapes, strict=True))


def _of_each(draw: Callable[[Key, int], Array], keys: Keys, sizes: Sequence[int]) -> tuple[Array, ...]:
    # What a key gives for a size begins with what it gives for a smaller one.
    most = max(sizes)
    if min(sizes) == 0 or len(sizes) * most - sum(sizes) > _UNUSED:
        return tuple(draw(keys[i], size) for i, size in enumerate(sizes))
    drawn = jax.vmap(lambda key: draw(key, most))(keys)
    return tuple(row[:size] for row, size in zip(drawn, sizes, strict=True))
