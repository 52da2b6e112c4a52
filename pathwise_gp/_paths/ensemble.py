"""Paths of many posteriors, one for each draw of the hyperparameters."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks
from .._functionals import dim_of
from .._modules import Printed, shown
from .._numerics.blocks import as_bytes
from .._numerics.dependence import depends
from .._scaling import Standardisation
from .._types import AnyArray, Key
from .paired import at_own_inputs, check_own_inputs, map_paired


class PathEnsemble(Printed, eqx.Module):
    """Paths under each of several draws of the hyperparameters: an equally weighted sample of the whole posterior.

    `len(ensemble)` is the number of draws; `ensemble[i]` the paths of draw i; slices and arrays of indices give smaller
    ensembles. Draws may have more axes, of chains and of draws, and behind them of the members of a plate: then `ensemble[i]`
    is the ensemble of a chain. Those of all `outputs` have the axis of the outputs last.

    **Fields:**

    - `varying`: the paths' leaves that differ between draws, the axes of the draws before their own; None for the others.
    - `common`: the leaves that all draws have in common (such as the training inputs), stored once.
    - `n_axes`: how many axes draws have; part of the structure.
    """

    varying: Any
    common: Any
    n_axes: int = eqx.field(static=True, default=1)

    def __call__(self, X: Float[AnyArray, "*n d"], *, block_bytes: int | None = None) -> Float[Array, "..."]:
        """Values of all paths of all draws at all inputs.

        **Arguments:** `X`: inputs, `*n d`; `block_bytes`: as for a `PathwiseFunction`.

        **Returns:** the values, `draws *s *n` (`chains draws *s *n`). Draws are evaluated one after the other: memory
        beyond the values is that of one draw.

        **Raises:** ValueError where the last axis of `X` is not the input dimension.
        """
        return _evaluate(self, self._as_inputs(X), as_bytes(block_bytes))

    def paired(self, X: Float[AnyArray, "..."]) -> Float[Array, "..."]:
        """Values of each path of each draw at inputs of its own.

        **Arguments:** `X`: inputs, `draws *s *n d` (`chains draws *s *n d`).

        **Returns:** the values, `draws *s *n`.

        **Raises:** ValueError where the leading axes of `X` are not those of the paths, or its last not the dimension.
        """
        return _evaluate_paired(self, check_own_inputs(self._as_inputs(X), self.shape))

    def observe(self, X: Float[AnyArray, "*n d"], key: Key, noise_var: Any = None) -> Float[Array, "..."]:
        """Draws of new observations y* = f(x) + ε of each path of each draw, with independent normal noise.

        **Arguments:** `X`: inputs, `*n d`; `key`: of the noise, used up; `noise_var`: its variance, a scalar, or in
        the shape that the paths of one draw take; unless given that of each draw.

        **Returns:** `draws *s *n`. **Raises:** ValueError as a call, and where `noise_var` is not known, negative or of
        another shape.
        """
        noise_var = None if noise_var is None else _checks.floating(noise_var, "noise_var")
        return _observe(self, self._as_inputs(X), _checks.key(key), noise_var)

    def over_boxes(self, boxes: Float[Array, "q 2 d"], rule: Callable[[Any], Array]) -> Float[Array, "..."]:
        """Integrals over boxes of each path of each draw: see `PathwiseFunction.over_boxes`."""
        return _map(self, lambda paths: paths.over_boxes(boxes, rule) if hasattr(paths, "over_boxes") else rule(paths))

    def condition(self, posterior: Any, key: Key, n_new: int | None = None) -> "PathEnsemble":
        """The same functions under each draw, now through the observations that its posterior has and they have not: see
        `PathwiseFunction.condition`. One draw after the other.

        **Arguments:** `posterior`: a `Batched` of the posteriors of the draws, given more (`posterior_of(ensemble)` has them
        where they were not kept); of paths under fantasies their posterior; `key`: of the new ε, used up; `n_new`: how many
        observations are new, which has to be given under jit where there is room for more.

        **Returns:** an ensemble with these axes. **Raises:** ValueError as `PathwiseFunction.condition`, and where the
        posterior has not the axes of the draws.
        """
        _check_axes(self, posterior)
        keys = jax.random.split(_checks.key(key), math.prod(self._axes))
        if n_new is None:
            n_new = posterior.member(0).new_to(self._member(0))
        if n_new == 0:
            return self
        going_on = lambda paths, posterior, key: paths.condition(posterior, key, n_new)
        return _go_on(self, posterior, going_on, keys)

    def without(self, posterior: Any, numbers: Any) -> "PathEnsemble":
        """The same functions under each draw without some of the observations: see `PathwiseFunction.without`.

        **Arguments:** `posterior`: as of `condition`, of these paths; `numbers`: which. **Returns:** an ensemble with
        these axes. **Raises:** ValueError as `PathwiseFunction.without`, and where the posterior has not the axes of the
        draws.
        """
        _check_axes(self, posterior)
        return _go_on(self, posterior, lambda paths, posterior: paths.without(posterior, numbers))

    def leave_one_out(self, posterior: Any) -> Float[Array, "..."]:
        """Each path of each draw where each observation was made, without that one: see `PathwiseFunction.leave_one_out`.

        **Arguments:** `posterior`: as of `condition`, of these paths. **Returns:** `draws *s n`. **Raises:** as `without`.
        """
        _check_axes(self, posterior)
        return _left_out(self, posterior)

    def map(self, function: Callable[[Any], Any]) -> Any:
        """What a function makes of the paths of each draw: compiled once, and called on one draw after the other.

        **Arguments:** `function`: maps paths with axes `*s` to a pytree of arrays, such as a zero or an integral of each.
        Each new function is compiled anew.

        **Returns:** the pytree, with the axes of the draws in front of its arrays.
        """
        return _map(self, function)

    def __len__(self) -> int:
        return jax.tree.leaves(self.varying)[0].shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes `draws *s` of the paths (`chains draws *s`)."""
        one = lambda: eqx.combine(jax.tree.map(lambda leaf: leaf[0], self._flat()), self.common)
        return (*self._axes, *eqx.filter_eval_shape(one).shape)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The axes of the draws."""
        return self._axes

    @property
    def smoothness(self) -> float:
        """How often the paths can be differentiated: see `PathwiseFunction.smoothness`."""
        return eqx.combine(self.varying, self.common).smoothness

    @property
    def mean_path(self) -> "PathEnsemble":
        """The posterior mean under each draw, as an ensemble with the axes of the draws."""
        (made,) = self._parts(lambda paths: (paths.mean_path,), 1)
        return made

    @property
    def outputs(self) -> "PathEnsemble":
        """All outputs under each draw, as functions of the inputs without the number of the output: see
        `PathwiseFunction.outputs`."""
        (made,) = self._parts(lambda paths: (paths.outputs,), 1)
        return made

    def rescaled(self, scaling: Standardisation) -> "PathEnsemble":
        """Paths of standardised data in the original units: `Standardisation.original`."""
        (made,) = self._parts(lambda paths: (paths.rescaled(scaling),), 1)
        return made

    def components(self) -> tuple["PathEnsemble", ...]:
        """For a sum of kernels: the part of each of them in the same draws; see `PathwiseFunction.components`.

        **Returns:** one ensemble for each part, with the axes of this one.
        """
        first = jax.tree.map(lambda leaf: leaf[0], self._flat())
        count = len(eqx.filter_eval_shape(lambda: eqx.combine(first, self.common).components()))
        return self._parts(lambda paths: paths.components(), count)

    def __getitem__(self, index: Any) -> Any:
        index = _checks.index(index, len(self), "Draw")
        varying = jax.tree.map(lambda leaf: leaf[index], self.varying)
        if isinstance(index, slice) or np.ndim(index) > 0:
            return PathEnsemble(varying, self.common, self.n_axes)
        return (
            eqx.combine(varying, self.common)
            if self.n_axes == 1
            else PathEnsemble(varying, self.common, self.n_axes - 1)
        )

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def _printed(self) -> dict[str, Any]:
        paths = eqx.combine(self.varying, self.common)
        return {"shape": self.shape, "n_features": paths.weights.shape[-1], "inputs": shown(paths.inputs)} | {
            "kernel": paths.kernel
        }

    def _as_inputs(self, X: Any) -> Array:
        inputs = eqx.combine(self.varying.inputs, self.common.inputs)
        return _checks.inputs(X, dim_of(inputs)).astype(inputs.dtype)

    @property
    def _axes(self) -> tuple[int, ...]:
        """The axes of the draws."""
        return jax.tree.leaves(self.varying)[0].shape[: self.n_axes]

    def _parts(self, function: Callable[[Any], tuple[Any, ...]], count: int) -> "tuple[PathEnsemble, ...]":
        """What a function makes of the paths of each draw."""
        flat = self._flat()
        first = jax.tree.map(lambda leaf: leaf[0], flat)
        part = lambda i: lambda varying: function(eqx.combine(varying, self.common))[i]
        made = (map_draws(part(i), (first,), (flat,)) for i in range(count))
        return tuple(PathEnsemble(self._unflat(varying), common, self.n_axes) for varying, common in made)

    def _member(self, number: Any) -> Any:
        """The paths of one draw, by its number when their axes are made one."""
        return eqx.combine(jax.tree.map(lambda leaf: leaf[number], self._flat()), self.common)

    def _flat(self) -> Any:
        """What varies, with the axes of the draws made one."""
        s = math.prod(self._axes)
        return jax.tree.map(lambda leaf: leaf.reshape(s, *leaf.shape[self.n_axes :]), self.varying)

    def _unflat(self, varying: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.reshape(*self._axes, *leaf.shape[1:]), varying)


def map_draws(
    draw: Callable[..., Any], first: tuple[Any, ...], all_of_them: tuple[Any, ...], batch_size: int = 1
) -> tuple[Any, Any]:
    """The fields of an ensemble: `draw` of each of many arguments, and once what does not depend on them.

    **Arguments:** `draw`; `first`: its arguments for one member; `all_of_them`: the same with a leading axis; `batch_size`:
    members worked on at once.
    """
    pick, common = separate(draw, first)
    # In batches `lax.map` cannot handle arrays without entries, such as the weights of a mean.
    batch = batch_size if batch_size > 1 else None
    return jax.lax.map(lambda one: pick(draw(*one)), all_of_them, batch_size=batch), common


def separate(draw: Callable[..., Any], first: tuple[Any, ...]) -> tuple[Callable[[Any], Any], Any]:
    """What picks the leaves that depend on the arguments of `draw` from what it returns; and the others."""
    varies = depends(lambda *one: eqx.filter(draw(*one), eqx.is_array), *first)
    arrays, rest = eqx.partition(draw(*first), eqx.is_array)
    pick = lambda made: eqx.filter(eqx.filter(made, eqx.is_array), varies)
    return pick, eqx.combine(eqx.filter(arrays, varies, inverse=True), rest)


def _check_axes(ensemble: PathEnsemble, posterior: Any) -> None:
    axes = getattr(posterior, "batch_shape", None)
    if axes != ensemble.batch_shape or not hasattr(posterior, "member"):
        raise ValueError(
            f"`posterior` must hold one posterior for each draw, with the axes {ensemble.batch_shape}: "
            f"`posterior_of(ensemble)`, and what `map` makes of that; got a {type(posterior).__name__} with axes {axes}."
        )


@eqx.filter_jit
def _go_on(ensemble: PathEnsemble, posterior: Any, step: Callable[..., Any], *args: Array) -> PathEnsemble:
    def draw(varying: Any, number: Any, *own: Array) -> Any:
        return step(eqx.combine(varying, ensemble.common), posterior.member(number), *own)

    every = (ensemble._flat(), jnp.arange(math.prod(ensemble.batch_shape)), *args)
    varying, common = map_draws(draw, jax.tree.map(lambda leaf: leaf[0], every), every)
    return PathEnsemble(ensemble._unflat(varying), common, ensemble.n_axes)


@eqx.filter_jit
def _left_out(ensemble: PathEnsemble, posterior: Any) -> Float[Array, "..."]:
    numbers = jnp.arange(math.prod(ensemble.batch_shape))
    values = jax.lax.map(lambda i: ensemble._member(i).leave_one_out(posterior.member(i)), numbers)
    return values.reshape(*ensemble.batch_shape, *values.shape[1:])


@eqx.filter_jit
def _map(ensemble: PathEnsemble, function: Callable[[Any], Any]) -> Any:
    # Derivatives recompute what a draw needs instead of keeping it.
    one = jax.checkpoint(lambda varying: function(eqx.combine(varying, ensemble.common)), prevent_cse=False)
    made = jax.lax.map(one, ensemble._flat())
    return jax.tree.map(lambda leaf: leaf.reshape(*ensemble._axes, *leaf.shape[1:]), made)


@eqx.filter_jit
def _evaluate(ensemble: PathEnsemble, X: Float[Array, "*n d"], block_bytes: int | None) -> Float[Array, "..."]:
    one = lambda varying: eqx.combine(varying, ensemble.common)(X, block_bytes=block_bytes)
    values = jax.lax.map(jax.checkpoint(one, prevent_cse=False), ensemble._flat())
    return values.reshape(*ensemble._axes, *values.shape[1:])


@eqx.filter_jit
def _observe(ensemble: PathEnsemble, X: Float[Array, "*n d"], key: Key, noise_var: Any) -> Float[Array, "..."]:
    def one(draw: Any) -> Float[Array, "..."]:
        varying, own_key = draw
        return eqx.combine(varying, ensemble.common).observe(X, own_key, noise_var)

    keys = jax.random.split(key, math.prod(ensemble._axes))
    values = jax.lax.map(jax.checkpoint(one, prevent_cse=False), (ensemble._flat(), keys))
    return values.reshape(*ensemble._axes, *values.shape[1:])


@eqx.filter_jit
def _evaluate_paired(ensemble: PathEnsemble, X: Float[Array, "..."]) -> Float[Array, "..."]:
    flat, axes = ensemble._flat(), ensemble.shape[len(ensemble._axes) :]

    def one(varying: Any, inputs: Float[Array, "..."]) -> Float[Array, "..."]:
        return at_own_inputs(eqx.combine(varying, ensemble.common), inputs, axes)

    shared = [leaf.size for leaf in jax.tree.leaves(ensemble.common) if eqx.is_array(leaf)]
    per_row = max([leaf[0].size for leaf in jax.tree.leaves(flat)] + shared)
    rows = math.prod(X.shape[len(ensemble._axes) : -1])
    return map_paired(one, flat, X, ensemble._axes, rows * per_row)
