"""Paths of many posteriors, one for each draw of the hyperparameters."""

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks
from .._features import NoFeatures
from .._numerics.blocks import as_bytes
from .._numerics.dependence import depends
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

    def __call__(self, X: Float[AnyArray, "*n d"], *, block_bytes: int | None = None) -> Float[Array, "..."]:
        """Values of all paths of all draws at all inputs.

        **Arguments:** `X`: inputs, `*n d`; `block_bytes`: as for a `PathwiseFunction`.

        **Returns:** the values, `draws *s *n`. Draws are evaluated one after the other: memory beyond the values is that
        of one draw.

        **Raises:** ValueError where the last axis of `X` is not the input dimension.
        """
        inputs = self.varying.inputs if self.common.inputs is None else self.common.inputs
        X = _checks.inputs(X, inputs.shape[-1]).astype(inputs.dtype)
        return _evaluate(self, X, as_bytes(block_bytes))

    def __len__(self) -> int:
        return jax.tree.leaves(self.varying)[0].shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes `draws *s` of the paths."""
        return (len(self), *jax.eval_shape(lambda: self._member(0).weights).shape[:-1])

    @property
    def mean_path(self) -> "PathEnsemble":
        """The posterior mean under each draw, as an ensemble of axes `(draws,)`."""
        dtype = jax.eval_shape(lambda: self._member(0).weights).dtype
        weights = jnp.zeros((len(self), 0), dtype)

        def mean_of(part: PathwiseFunction, weights: Any) -> PathwiseFunction:
            where = lambda p: (p.features, p.weights, p.coefficients)
            values = (NoFeatures(), weights, part.mean_coefficients)
            return eqx.tree_at(where, part, values, is_leaf=lambda leaf: leaf is None)

        return PathEnsemble(mean_of(self.varying, weights), mean_of(self.common, None))

    def components(self) -> tuple["PathEnsemble", ...]:
        """For a sum of kernels: the part of each of them in the same draws; see `PathwiseFunction.components`.

        **Returns:** one ensemble for each part, with the axes of this one.
        """
        first = jax.tree.map(lambda leaf: leaf[0], self.varying)
        count = len(eqx.filter_eval_shape(lambda: self._member(0).components()))
        part = lambda i: lambda varying: eqx.combine(varying, self.common).components()[i]
        return tuple(PathEnsemble(*map_draws(part(i), (first,), (self.varying,))) for i in range(count))

    def __getitem__(self, index: Any) -> "PathwiseFunction | PathEnsemble":
        index = _checks.index(index, len(self), "Draw")
        if isinstance(index, slice) or np.ndim(index) > 0:
            return PathEnsemble(jax.tree.map(lambda leaf: leaf[index], self.varying), self.common)
        return self._member(index)

    def __iter__(self) -> Iterator[PathwiseFunction]:
        return (self._member(i) for i in range(len(self)))

    def _member(self, index: Any) -> PathwiseFunction:
        return eqx.combine(jax.tree.map(lambda leaf: leaf[index], self.varying), self.common)


def map_draws(
    draw: Callable[..., PathwiseFunction], first: tuple[Any, ...], all_of_them: tuple[Any, ...], batch_size: int = 1
) -> tuple[PathwiseFunction, PathwiseFunction]:
    """The fields of an ensemble: `draw` of each of many arguments, and once what does not depend on them.

    **Arguments:** `draw`; `first`: its arguments for one member; `all_of_them`: the same with a leading axis; `batch_size`:
    members worked on at once.
    """
    varies = depends(lambda *one: eqx.filter(draw(*one), eqx.is_array), *first)
    arrays, rest = eqx.partition(draw(*first), eqx.is_array)
    common = eqx.combine(eqx.filter(arrays, varies, inverse=True), rest)
    one_of_them = lambda one: eqx.filter(eqx.filter(draw(*one), eqx.is_array), varies)
    # In batches `lax.map` cannot handle arrays without entries, such as the weights of a mean.
    varying = jax.lax.map(one_of_them, all_of_them, batch_size=batch_size if batch_size > 1 else None)
    return varying, common


@eqx.filter_jit
def _evaluate(ensemble: PathEnsemble, X: Float[Array, "*n d"], block_bytes: int | None) -> Float[Array, "..."]:
    return jax.lax.map(
        lambda varying: eqx.combine(varying, ensemble.common)(X, block_bytes=block_bytes), ensemble.varying
    )
