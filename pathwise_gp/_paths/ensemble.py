"""Paths of many posteriors, one for each draw of the hyperparameters."""

import operator
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from .. import _checks
from .._features import NoFeatures
from .._types import AnyArray
from .function import PathwiseFunction


class PathEnsemble(eqx.Module):
    """Paths under each of several draws of the hyperparameters: an equally weighted sample of the whole posterior.

    `len(ensemble)` is the number of draws; `ensemble[i]` the paths of draw i; slices and arrays of indices give smaller
    ensembles.

    **Fields:**

    - `varying`: the paths' leaves that differ between draws, with a leading axis of one a draw; None for the others.
    - `common`: the leaves that all draws have in common (such as the training inputs), stored once.
    """

    varying: PathwiseFunction
    common: PathwiseFunction

    def __call__(self, X: Float[AnyArray, "*n d"]) -> Float[Array, "..."]:
        """Values of all paths of all draws at all inputs.

        **Arguments:** `X`: inputs, `*n d`.

        **Returns:** the values, `draws *s *n`. Draws are evaluated one after the other: memory beyond the values is that
        of one draw.

        **Raises:** ValueError where the last axis of `X` is not the input dimension.
        """
        one = jax.eval_shape(lambda: self._member(0).inputs)
        X = _checks.inputs(X, one.shape[1]).astype(one.dtype)
        return _evaluate(self, X)

    def __len__(self) -> int:
        return jax.tree.leaves(self.varying)[0].shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes `draws *s` of the paths."""
        return (len(self), *jax.eval_shape(lambda: self._member(0).weights).shape[:-1])

    @property
    def mean_path(self) -> "PathEnsemble":
        """The posterior mean under each draw, as an ensemble of axes `(draws,)`."""
        length = len(self)

        def mean_of(part: PathwiseFunction, weights: Any) -> PathwiseFunction:
            return PathwiseFunction(
                mean=part.mean,
                features=NoFeatures(),
                weights=weights,
                kernel=part.kernel,
                inputs=part.inputs,
                coefficients=part.mean_coefficients,
                mean_coefficients=part.mean_coefficients,
            )

        dtype = jax.eval_shape(lambda: self._member(0).weights).dtype
        weights = jax.numpy.zeros((length, 0), dtype)
        return PathEnsemble(mean_of(self.varying, weights), mean_of(self.common, None))

    def __getitem__(self, index: Any) -> "PathwiseFunction | PathEnsemble":
        if isinstance(index, tuple) or index is None or index is Ellipsis:
            raise TypeError(f"An ensemble is indexed by a number, a slice or an array of draws; got {index!r}.")
        if isinstance(index, slice) or np.ndim(index) > 0:
            return PathEnsemble(jax.tree.map(lambda leaf: leaf[index], self.varying), self.common)
        if _checks.is_concrete(index):
            index = operator.index(index)
            if not -len(self) <= index < len(self):  # an array would clamp it to the last draw
                raise IndexError(f"Draw {index} was asked for, but there are {len(self)}.")
        return self._member(index)

    def __iter__(self) -> Iterator[PathwiseFunction]:
        return (self._member(i) for i in range(len(self)))

    def _member(self, index: Any) -> PathwiseFunction:
        return eqx.combine(jax.tree.map(lambda leaf: leaf[index], self.varying), self.common)


@eqx.filter_jit
def _evaluate(ensemble: PathEnsemble, X: Float[Array, "*n d"]) -> Float[Array, "..."]:
    return jax.lax.map(lambda varying: eqx.combine(varying, ensemble.common)(X), ensemble.varying)
