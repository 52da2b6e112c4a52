"""Trigonometric bases (Rahimi & Recht 2007)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._numerics.linalg import inner
from .._numerics.trigonometry import cos_turns
from .._types import Key
from .base import AbstractFeatures


class FourierFeatures(AbstractFeatures):
    """φ_j(x) = a_j cos(2π(x·ω_j + b_j)).

    **Fields:** `frequencies`: ω, `f d`, in turns (cycles) per unit of the input; `phases`: b, `f`, in turns (a phase of −¼
    makes a cosine a sine); `amplitudes`: a, `f`.
    """

    frequencies: Float[Array, "f d"]
    phases: Float[Array, "f"]
    amplitudes: Float[Array, "f"]

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n f"]:
        cast = lambda leaf: leaf.astype(X.dtype)
        turns = inner(X, cast(self.frequencies)) + cast(self.phases)[None, :]
        return cast(self.amplitudes)[None, :] * cos_turns(turns)


def random_fourier(
    frequencies: Float[Array, "h d"], weights: Float[Array, "h"], n_features: int, key: Key
) -> FourierFeatures:
    """The basis whose kernel is the mean of weight · cos(2πω·(x − z)) over h = ⌈n_features / 2⌉ sampled frequencies.

    Each frequency gives a cosine and a sine, which makes the variance of the process exact at every point; with an odd
    number of features the last frequency gives one cosine with a random phase instead, which is right on average.
    """
    h = frequencies.shape[0]
    pairs = n_features // 2
    amplitudes = jnp.sqrt(weights / h)
    zero = jnp.zeros_like(amplitudes[:pairs])
    phase = jax.random.uniform(key, (h - pairs,), amplitudes.dtype)
    return FourierFeatures(
        frequencies=jnp.concatenate([frequencies[:pairs], frequencies]),
        phases=jnp.concatenate([zero - 0.25, zero, phase]),
        amplitudes=jnp.concatenate([amplitudes[:pairs], amplitudes[:pairs], 2**0.5 * amplitudes[pairs:]]),
    )
