"""Bases made of bases."""

import functools
from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .. import _checks
from .base import AbstractFeatures
from .exact import NoFeatures


class ConcatenatedFeatures(AbstractFeatures):
    """The basis of a sum of kernels: the parts' features side by side.

    **Fields:** `parts`: bases; `sizes`: how many features each has; `terms`: the number of the term of the sum that each
    stands for.
    """

    parts: tuple[AbstractFeatures, ...]
    sizes: tuple[int, ...] = eqx.field(static=True)
    terms: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n f"]:
        joined = [self.parts[0]]
        for part in self.parts[1:]:
            both = joined[-1].beside(part)
            joined[-1:] = [joined[-1], part] if both is None else [both]
        return jnp.concatenate([part(X) for part in joined], axis=1)

    def covers(self, X: Float[Array, "n d"]) -> Literal[True] | Bool[Array, ""]:
        return _checks.every(part.covers(X) for part in self.parts)

    def about(self, point: Float[Array, "d"]) -> "ConcatenatedFeatures":
        return ConcatenatedFeatures(tuple(part.about(point) for part in self.parts), self.sizes, self.terms)

    def split(self, n_terms: int) -> tuple[tuple[AbstractFeatures, np.ndarray], ...]:
        starts = np.cumsum([0, *self.sizes[:-1]])
        return tuple(self._of(i, starts) for i in range(n_terms))

    def _of(self, i: int, starts: np.ndarray) -> tuple[AbstractFeatures, np.ndarray]:
        every = zip(self.parts, self.sizes, self.terms, starts, strict=True)
        kept = [(part, n, start) for part, n, term, start in every if term == i]
        if not kept:  # noise
            return NoFeatures(), np.arange(0)
        parts, sizes, _ = zip(*kept, strict=True)
        columns = np.concatenate([np.arange(start, start + n) for _, n, start in kept])
        return ConcatenatedFeatures(parts, sizes, (i,) * len(parts)), columns


class ProductFeatures(AbstractFeatures):
    """The basis of a product of kernels: every product of one feature from each part."""

    parts: tuple[AbstractFeatures, ...]

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

    parts: tuple[AbstractFeatures, ...]
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

    features: AbstractFeatures
    columns: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n f"]:
        return self.features(X[:, np.asarray(self.columns)])

    def covers(self, X: Float[Array, "n d"]) -> Literal[True] | Bool[Array, ""]:
        return self.features.covers(X[:, np.asarray(self.columns)])

    def about(self, point: Float[Array, "d"]) -> "SelectedFeatures":
        return SelectedFeatures(self.features.about(point[np.asarray(self.columns)]), self.columns)


class WarpedFeatures(AbstractFeatures):
    """A basis of transformed inputs. **Fields:** `features`; `transform`: maps `n d` to `n k`."""

    features: AbstractFeatures
    transform: Callable[[Float[Array, "n d"]], Float[Array, "n k"]]

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n f"]:
        return self.features(self.transform(X))

    def about(self, point: Float[Array, "d"]) -> "WarpedFeatures":
        return WarpedFeatures(self.features.about(self.transform(point[None, :])[0]), self.transform)
