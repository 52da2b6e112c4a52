"""Modules of one structure, stacked along leading axes."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, SupportsIndex, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from . import _checks
from ._modules import Printed

ModuleT = TypeVar("ModuleT", bound=eqx.Module)


def as_batch_shape(shape: Sequence[SupportsIndex]) -> tuple[int, ...]:
    if not isinstance(shape, (tuple, list)) or not shape:
        raise ValueError(f"`batch_shape` must be a tuple of at least one axis; got {shape!r}.")
    return tuple(_checks.count(length, "batch_shape") for length in shape)


class Batched(Printed, eqx.Module, Generic[ModuleT]):
    """Modules of one structure, stacked: kernels, priors or posteriors of several groups, each with numbers of its own.

    `batched[i]`, `len(batched)` and iteration go along the first of the axes `*b`; `batched.map(f)` calls f with each module.
    The modules themselves know nothing of the axes, so that a lengthscale for each of three groups is never taken for
    one for each of three dimensions.

    **Fields:**

    - `stacked`: a module, all of whose arrays have the axes `*b` in front of their own. It is storage, not to be called.
    - `batch_shape`: the axes `*b`, part of the structure.

    **Raises:** ValueError where an array has not these axes.
    """

    stacked: ModuleT
    batch_shape: tuple[int, ...] = eqx.field(static=True, converter=as_batch_shape)

    def map(self, function: Callable[..., Any], *args: Any) -> Any:
        """What a function makes of each module: compiled, or traced, once for all of them.

        **Arguments:** `function`: called with a module, and with what belongs to it of each of `args`; `*args`: pytrees whose
        arrays have the axes `*b` in front. What all modules share the function closes over.

        **Returns:** of modules a `Batched`; of anything else the pytree with the axes `*b` in front of its arrays.

        **Raises:** ValueError where an array of `args` has not these axes.
        """
        for leaf in jax.tree.leaves(eqx.filter(args, eqx.is_array)):
            _check_axes(leaf, self.batch_shape, "An array given to `map`")
        made = eqx.filter_vmap(function, in_axes=eqx.if_array(0), out_axes=eqx.if_array(0))(
            *self._flat((self.stacked, *args))
        )
        shaped = self._shaped(made)
        return Batched(shaped, self.batch_shape) if isinstance(made, eqx.Module) else shaped

    def member(self, number: Any) -> ModuleT:
        """One module, by its number when all axes are made one; the number may be traced."""
        return self.take(self.stacked, _checks.index(number, math.prod(self.batch_shape), "Module"))

    def take(self, tree: Any, number: Any) -> Any:
        """What belongs to one module of a pytree with the axes `*b` in front of its arrays."""
        return _map_arrays(lambda leaf: leaf[number], self._flat(tree))

    def __len__(self) -> int:
        return self.batch_shape[0]

    def __getitem__(self, index: Any) -> "ModuleT | Batched[ModuleT]":
        index = _checks.index(index, len(self), "Module")
        stacked = _map_arrays(lambda leaf: leaf[index], self.stacked)
        if isinstance(index, slice) or np.ndim(index) > 0:
            length = np.empty(len(self))[np.asarray(index) if not isinstance(index, slice) else index].shape
            return Batched(stacked, (*length, *self.batch_shape[1:]))
        return stacked if len(self.batch_shape) == 1 else Batched(stacked, self.batch_shape[1:])

    def __iter__(self) -> "Iterator[ModuleT | Batched[ModuleT]]":
        return (self[i] for i in range(len(self)))

    def _flat(self, tree: Any) -> Any:
        """The axes `*b` made one."""
        size, axes = math.prod(self.batch_shape), len(self.batch_shape)
        return _map_arrays(lambda leaf: leaf.reshape(size, *leaf.shape[axes:]), tree)

    def _shaped(self, tree: Any) -> Any:
        return _map_arrays(lambda leaf: leaf.reshape(*self.batch_shape, *leaf.shape[1:]), tree)

    def __check_init__(self):
        for leaf in jax.tree.leaves(eqx.filter(self.stacked, eqx.is_array)):
            _check_axes(leaf, self.batch_shape, f"An array of the stacked `{type(self.stacked).__name__}`")


def unstack(module: Any) -> tuple[Any, tuple[int, ...]]:
    """A module and its leading axes, which are () for all that is not `Batched`."""
    return (module.stacked, module.batch_shape) if isinstance(module, Batched) else (module, ())


def spread(tree: Any, axes: tuple[int, ...], batch_shape: tuple[int, ...]) -> Any:
    """Arrays with leading axes `axes` repeated to `batch_shape`, as arrays are broadcast."""
    if axes == batch_shape:
        return tree
    missing = (1,) * (len(batch_shape) - len(axes))

    def repeat(leaf: Any) -> Any:
        own = leaf.shape[len(axes) :]
        return jnp.broadcast_to(leaf.reshape(*missing, *axes, *own), (*batch_shape, *own))

    return _map_arrays(repeat, tree)


def _map_arrays(function: Callable[[Any], Any], tree: Any) -> Any:
    return jax.tree.map(lambda leaf: function(leaf) if eqx.is_array(leaf) else leaf, tree)


def _check_axes(leaf: Any, batch_shape: tuple[int, ...], what: str) -> None:
    if leaf.shape[: len(batch_shape)] != batch_shape:
        raise ValueError(f"{what} must have the leading axes {batch_shape}; got shape {leaf.shape}.")
