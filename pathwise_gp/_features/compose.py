"""Bases made of bases."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .. import _checks
from .base import AbstractFeatures, as_features
from .exact import NoFeatures
from .fourier import FourierFeatures


def _as_parts(parts: Iterable[Any]) -> tuple[AbstractFeatures, ...]:
    return tuple(map(as_features, parts))


class ConcatenatedFeatures(AbstractFeatures):
    """The basis of a sum of kernels: the parts' features side by side.

    **Fields:** `parts`: bases; `sizes`: how many features each has; `terms`: the number of the term of the sum that each
    stands for. A part of Fourier features may stand for several terms: then its number is −1, and its features say which.
    """

    parts: tuple[AbstractFeatures, ...] = eqx.field(converter=_as_parts)
    sizes: tuple[int, ...] = eqx.field(static=True)
    terms: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n f"]:
        return jnp.concatenate([part(X) for part in self.parts], axis=1)

    def covers(self, X: Float[Array, "n d"]) -> Literal[True] | Bool[Array, ""]:
        return _checks.every(part.covers(X) for part in self.parts)

    def about(self, point: Float[Array, "d"]) -> "ConcatenatedFeatures":
        return ConcatenatedFeatures(tuple(part.about(point) for part in self.parts), self.sizes, self.terms)

    def split(self, n_terms: int) -> tuple[tuple[AbstractFeatures, np.ndarray], ...]:
        starts = np.cumsum([0, *self.sizes[:-1]])
        return tuple(self._of(i, starts) for i in range(n_terms))

    def _of(self, i: int, starts: np.ndarray) -> tuple[AbstractFeatures, np.ndarray]:
        every = zip(self.parts, self.sizes, self.terms, starts, strict=True)
        kept = [(part, n, term, start) for part, n, term, start in every if term in (i, -1)]
        if not kept:  # noise
            return NoFeatures(), np.arange(0)
        parts = tuple(_of_term(part, i) if term == -1 else part for part, _, term, _ in kept)
        columns = np.concatenate([np.arange(start, start + n) for _, n, _, start in kept])
        return ConcatenatedFeatures(parts, tuple(n for _, n, _, _ in kept), (i,) * len(parts)), columns


def _of_term(part: AbstractFeatures, i: int) -> FourierFeatures:
    """Fourier features of which those of other terms are zero."""
    assert isinstance(part, FourierFeatures) and part.term is not None
    kept = jnp.where(part.term == i, part.amplitudes, jnp.zeros_like(part.amplitudes))
    # Not built anew: where each path has features of its own, their leaves have a leading axis.
    return eqx.tree_at(lambda f: (f.amplitudes, f.term), part, (kept, None))


class ProductFeatures(AbstractFeatures):
    """The basis of a product of kernels: every product of one feature from each part."""

    parts: tuple[AbstractFeatures, ...] = eqx.field(converter=_as_parts)

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n f"]:
        n = X.shape[0]
        product = jnp.ones((n, 1), X.dtype)
        for part in self.parts:
            product = (product[:, :, None] * part(X)[:, None, :]).reshape(n, -1)
        return product

    def covers(self, X: Float[Array, "n d"]) -> Literal[True] | Bool[Array, ""]:
        return _checks.every(part.covers(X) for part in self.parts)

    def about(self, point: Float[Array, "d"]) -> "ProductFeatures":
        return ProductFeatures(tuple(part.about(point) for part in self.parts))


class PairedFeatures(AbstractFeatures):
    """The basis of a product of kernels whose bases are random: draw i of each part with draw i of the others.

    A part consists of `n_draws` independent draws, and each of its draws has the part's kernel as its mean (a cosine and its
    sine, or one ramp); so has the product of one draw from each, and there are as many as the parts have.

    **Fields:** `parts`: bases whose features are ordered with the number of the draw last; `n_draws`.
    """

    parts: tuple[AbstractFeatures, ...] = eqx.field(converter=_as_parts)
    n_draws: int = eqx.field(static=True)

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n f"]:
        n = X.shape[0]
        draws = [part(X).reshape(n, -1, self.n_draws) for part in self.parts]
        pair = lambda a, b: (a[:, :, None, :] * b[:, None, :, :]).reshape(n, -1, self.n_draws)
        # Each part carries 1/√h, of which the product needs one.
        return functools.reduce(pair, draws).reshape(n, -1) * self.n_draws ** ((len(draws) - 1) / 2)

    def about(self, point: Float[Array, "d"]) -> "PairedFeatures":
        return PairedFeatures(tuple(part.about(point) for part in self.parts), self.n_draws)


class SelectedFeatures(AbstractFeatures):
    """A basis that sees some of the input dimensions. **Fields:** `features`; `columns`: their indices, `k`."""

    features: AbstractFeatures = eqx.field(converter=as_features)
    columns: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n f"]:
        return self.features(X[:, np.asarray(self.columns)])

    def covers(self, X: Float[Array, "n d"]) -> Literal[True] | Bool[Array, ""]:
        return self.features.covers(X[:, np.asarray(self.columns)])

    def about(self, point: Float[Array, "d"]) -> "SelectedFeatures":
        return SelectedFeatures(self.features.about(point[np.asarray(self.columns)]), self.columns)


class WarpedFeatures(AbstractFeatures):
    """A basis of transformed inputs. **Fields:** `features`; `transform`: maps `n d` to `n k`."""

    features: AbstractFeatures = eqx.field(converter=as_features)
    transform: Callable[[Float[Array, "n d"]], Float[Array, "n k"]]

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n f"]:
        return self.features(self.transform(X))

    def about(self, point: Float[Array, "d"]) -> "WarpedFeatures":
        return WarpedFeatures(self.features.about(self.transform(point[None, :])[0]), self.transform)
