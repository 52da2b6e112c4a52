"""Bases made of bases."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .. import _checks
from .base import AbstractFeatures, as_features
from .exact import NoFeatures


def _as_parts(parts: Iterable[Any]) -> tuple[AbstractFeatures, ...]:
    return tuple(map(as_features, parts))


class ConcatenatedFeatures(AbstractFeatures):
    """The basis of a sum of kernels: the terms' features side by side.

    **Fields:** `parts`: bases; `blocks`: of what each consists: the number of a term of the sum and how many features it has,
    in their order.
    """

    parts: tuple[AbstractFeatures, ...] = eqx.field(converter=_as_parts)
    blocks: tuple[tuple[tuple[int, int], ...], ...] = eqx.field(static=True)

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n f"]:
        return jnp.concatenate([part(X) for part in self.parts], axis=1)

    def covers(self, X: Float[Array, "n d"]) -> Literal[True] | Bool[Array, ""]:
        return _checks.every(part.covers(X) for part in self.parts)

    def about(self, point: Float[Array, "d"]) -> "ConcatenatedFeatures":
        return ConcatenatedFeatures(tuple(part.about(point) for part in self.parts), self.blocks)

    def split(self, n_terms: int) -> tuple[tuple[AbstractFeatures, np.ndarray], ...]:
        return tuple(self._of(i) for i in range(n_terms))

    def _of(self, i: int) -> tuple[AbstractFeatures, np.ndarray]:
        kept, columns, first = [], [np.arange(0)], 0
        for part, blocks in zip(self.parts, self.blocks, strict=True):
            start = 0
            for term, n in blocks:
                if term == i:
                    kept.append((part if len(blocks) == 1 else part.block(start, start + n), ((i, n),)))
                    columns.append(first + start + np.arange(n))
                start += n
            first += start
        parts, own = zip(*kept, strict=True) if kept else ((), ())
        return (ConcatenatedFeatures(parts, own) if kept else NoFeatures()), np.concatenate(columns)


def side_by_side(parts: Sequence[AbstractFeatures], terms: Sequence[tuple[int, int]]) -> ConcatenatedFeatures:
    """The bases of terms of a sum as one; `terms`: the number of the term of each, and how many features it has."""
    joined, blocks = [parts[0]], [[terms[0]]]
    for part, term in zip(parts[1:], terms[1:], strict=True):
        both = joined[-1].beside(part)
        if both is None:
            joined.append(part)
            blocks.append([term])
        else:
            joined[-1] = both
            blocks[-1].append(term)
    return ConcatenatedFeatures(tuple(joined), tuple(map(tuple, blocks)))


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


class RescaledFeatures(AbstractFeatures):
    """A basis in other units, a·φ(g(·)): of transformed inputs, and larger by a factor.

    **Fields:** `features`: φ; `transform`: g, which maps `n d` to `n d`; `scale`: a, a scalar.
    """

    features: AbstractFeatures = eqx.field(converter=as_features)
    transform: Callable[[Float[Array, "n d"]], Float[Array, "n d"]]
    scale: Float[Array, "..."]

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n f"]:
        return self.scale.astype(X.dtype) * self.features(self.transform(X))

    def covers(self, X: Float[Array, "n d"]) -> Literal[True] | Bool[Array, ""]:
        return self.features.covers(self.transform(X))

    def split(self, n_terms: int) -> tuple[tuple[AbstractFeatures, np.ndarray], ...]:
        return tuple(
            (part if isinstance(part, NoFeatures) else RescaledFeatures(part, self.transform, self.scale), own)
            for part, own in self.features.split(n_terms)
        )
