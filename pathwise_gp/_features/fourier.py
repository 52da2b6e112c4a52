"""Trigonometric bases (Rahimi & Recht 2007)."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._numerics.linalg import inner
from .._numerics.trigonometry import cos_turns
from .base import AbstractFeatures


class FourierFeatures(AbstractFeatures):
    """φ_j(x) = a_j cos(2π((x − c)·ω_j + b_j)).

    **Fields:** `frequencies`: ω, `f d`, in turns (cycles) per unit of the input; `phases`: b, `f`, in turns (a phase of −¼
    makes a cosine a sine); `amplitudes`: a, `f`; `centre`: c, `d`, 0 unless given.
    """

    frequencies: Float[Array, "f d"]
    phases: Float[Array, "f"]
    amplitudes: Float[Array, "f"]
    centre: Float[Array, "d"] | None = None

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n f"]:
        cast = lambda leaf: leaf.astype(X.dtype)
        if self.centre is not None:
            X = X - cast(self.centre)[None, :]
        turns = inner(X, cast(self.frequencies)) + cast(self.phases)[None, :]
        return cast(self.amplitudes)[None, :] * cos_turns(turns)

    def about(self, point: Float[Array, "d"]) -> "FourierFeatures":
        # The process is stationary, so its law does not depend on the origin; the turns, and what is lost of them, do.
        return dataclasses.replace(self, centre=point)

    def beside(self, other: AbstractFeatures) -> "FourierFeatures | None":
        if not isinstance(other, FourierFeatures) or self.centre is not None or other.centre is not None:
            return None
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), self, other)

    def block(self, start: int, stop: int) -> "FourierFeatures":
        # Where each path has features of its own, the leaves have a leading axis, which a constructor's shapes have not.
        kept = (self.frequencies[..., start:stop, :], self.phases[..., start:stop], self.amplitudes[..., start:stop])
        return eqx.tree_at(lambda basis: (basis.frequencies, basis.phases, basis.amplitudes), self, kept)


def fourier_pairs(frequencies: Float[Array, "h d"], weights: Float[Array, "h"]) -> FourierFeatures:
    """A cosine and a sine for each of h frequencies, first all cosines: the mean of weight · cos(2πω·(x − z))."""
    amplitudes = jnp.sqrt(weights / frequencies.shape[0])
    zero = jnp.zeros_like(amplitudes)
    return FourierFeatures(
        frequencies=jnp.concatenate([frequencies, frequencies]),
        phases=jnp.concatenate([zero, zero - 0.25]),
        amplitudes=jnp.concatenate([amplitudes, amplitudes]),
    )


def random_fourier(
    frequencies: Float[Array, "h d"],
    weights: Float[Array, "h"],
    phase: Float[Array, ""] | None = None,
) -> FourierFeatures:
    """The basis whose kernel is the mean of weight · cos(2πω·(x − z)) over h ≥ ⌈n_features / 2⌉ sampled frequencies.

    Each frequency gives a cosine and a sine, so that the variance of the process is the same at every point; with an odd
    number of features the last frequency gives one cosine with a random `phase` instead, which is right on average.
    """
    h = frequencies.shape[0]
    pairs = fourier_pairs(frequencies, weights)
    if phase is None:
        return pairs
    return FourierFeatures(
        frequencies=pairs.frequencies[:-1],
        phases=pairs.phases[:-1].at[h - 1].set(phase),
        amplitudes=pairs.amplitudes[:-1].at[h - 1].multiply(2**0.5),
    )
