"""Fields of modules by address.

An address is the dotted path to a field, such as `lengthscale` or `kernels[0].lengthscale`; a pattern in which `*` stands for
any characters, such as `*.lengthscale`; or a function that picks a field, as in `equinox.tree_at`.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, overload, TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from . import _checks, _fields
from ._batched import Batched, spread, unstack

ModuleT = TypeVar("ModuleT", bound=eqx.Module)
ValueT = TypeVar("ValueT")
Address = str | Callable[[Any], Any]
# A checker takes no dictionary whose keys are known to be strings for one whose keys may be either.
Addressed = Mapping[str, ValueT] | Mapping[Address, ValueT]


class Leaf(eqx.Module):
    """A field with an address: how to get at it, its value and its domain."""

    get: Callable[[Any], Any] = eqx.field(static=True)
    value: Array
    domain: _fields.Domain = eqx.field(static=True)


@overload
def place(
    module: ModuleT, values: Addressed[Any], name: str | None = None, *, ignore_others: bool = False
) -> ModuleT: ...


@overload
def place(
    module: ModuleT,
    values: Addressed[Any],
    name: str | None = None,
    *,
    ignore_others: bool = False,
    batch_shape: tuple[int, ...],
) -> Batched[ModuleT]: ...


def place(
    module: Any,
    values: Addressed[Any],
    name: str | None = None,
    *,
    ignore_others: bool = False,
    batch_shape: tuple[int, ...] = (),
) -> Any:
    """Puts values into fields of a module: the same module with other numbers.

    **Arguments:**

    - `module`: any Equinox module.
    - `values`: for addresses of fields, or for the names of their sites (`RBF.lengthscale`), the values. All of a pattern's
      fields get the one value.
    - `name`: what the names of the sites begin with, the name of the class unless given.
    - `ignore_others`: whether names that do not begin so are passed over: the sites of other modules in a draw or in the
      parameters of `SVI`.
    - `batch_shape`: axes `*b` in front of those of the fields, such as that of the draws, for stacked values. A value without
      them is for all modules.

    **Returns:** a module of the same type; with a `batch_shape`, a `Batched` of them.

    **Raises:** ValueError, with a list of the fields there are, where an address is unknown or given twice, or a value has
    not the shape of its field or lies outside its domain.
    """
    prefix = prefix_of(module, name)
    module, axes = unstack(module)
    if axes and batch_shape:
        raise ValueError("`batch_shape` is for a module that is not `Batched` already; this one is.")
    leaves = leaves_of(module)
    chosen: dict[str, Array] = {}
    for address, value in _checks.mapping(values, "values").items():
        if ignore_others and isinstance(address, str) and not address.startswith(f"{prefix}."):
            continue
        short = address.removeprefix(f"{prefix}.") if isinstance(address, str) else address
        for canonical in resolve(module, leaves, short, prefix, "values"):
            if canonical in chosen:
                raise ValueError(f"`values` names the field {canonical!r} twice. {listed(leaves)}")
            chosen[canonical] = _check_value(value, f"{prefix}.{canonical}", leaves[canonical], batch_shape)
    if batch_shape:
        module, axes = spread(module, (), batch_shape), batch_shape
    placed = put(module, leaves, chosen)
    return Batched(placed, axes) if axes else placed


def put(module: ModuleT, leaves: Mapping[str, Leaf], values: Mapping[str, Array]) -> ModuleT:
    """The module with other values at canonical addresses."""
    if not values:
        return module
    return eqx.tree_at(lambda m: [leaves[address].get(m) for address in values], module, list(values.values()))


def prefix_of(module: Any, name: str | None) -> str:
    if not isinstance(module, eqx.Module):
        raise ValueError(f"`module` must be an Equinox module; got {type(module).__name__}.")
    return type(unstack(module)[0]).__name__ if name is None else name


def leaves_of(module: eqx.Module) -> dict[str, Leaf]:
    """The array fields of a module, nested ones too, by address."""
    return dict(_walk(module, "", lambda m: m))


def _walk(node: Any, address: str, get: Callable[[Any], Any]) -> Iterator[tuple[str, Leaf]]:
    if isinstance(node, eqx.Module):
        for field in dataclasses.fields(node):
            if field.metadata.get("static", False):
                continue
            value, inner = getattr(node, field.name), f"{address}.{field.name}".lstrip(".")
            getter = lambda m, get=get, attribute=field.name: getattr(get(m), attribute)
            if eqx.is_inexact_array(value):
                yield inner, Leaf(getter, value, _fields.domain(field))
            else:
                yield from _walk(value, inner, getter)
    elif isinstance(node, (tuple, list, dict)):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            inner = f"{address}[{key}]"
            getter = lambda m, get=get, key=key: get(m)[key]
            if eqx.is_inexact_array(value):
                yield inner, Leaf(getter, value, "real")
            else:
                yield from _walk(value, inner, getter)


def resolve(module: eqx.Module, leaves: Mapping[str, Leaf], address: Any, prefix: str, argument: str) -> list[str]:
    """The canonical addresses that an address stands for, at least one."""
    if isinstance(address, str):
        if address in leaves:
            return [address]
        if "*" in address:
            pattern = re.compile(".*".join(map(re.escape, address.split("*"))))
            if found := [a for a in leaves if pattern.fullmatch(a)]:
                return found
            raise ValueError(
                f"`{argument}` has the pattern {address!r}, which no field of {prefix} fits. {listed(leaves)}"
            )
        canonical = re.sub(r"\s+|(?<=\[)0+(?=\d)", "", address)
        if canonical in leaves:
            return [canonical]
    elif callable(address):
        return [_picked(module, leaves, address, prefix, argument)]
    raise ValueError(f"`{argument}` names {address!r}, which is not a field of {prefix}. {listed(leaves)}")


def _picked(
    module: eqx.Module, leaves: Mapping[str, Leaf], pick: Callable[[Any], Any], prefix: str, argument: str
) -> str:
    # The module with each field replaced by its address shows which one is picked, also where two fields are one array.
    labelled = eqx.tree_at(lambda m: [leaf.get(m) for leaf in leaves.values()], module, [_Label(a) for a in leaves])
    try:
        picked = pick(labelled)
    except Exception as e:
        raise ValueError(f"A function in `{argument}` failed to pick a field of {prefix}: {e}. {listed(leaves)}") from e
    if not isinstance(picked, _Label):
        raise ValueError(
            f"A function in `{argument}` must pick one field of {prefix}; it picked {picked!r}. {listed(leaves)}"
        )
    return picked.address


class _Label:
    """Stands for a field."""

    def __init__(self, address: str):
        self.address = address

    def __repr__(self) -> str:
        return self.address


def listed(leaves: Mapping[str, Leaf]) -> str:
    return "Its fields are: " + ", ".join(
        f"{a} ({leaf.domain}, shape {leaf.value.shape})" for a, leaf in leaves.items()
    )


def _check_value(value: Any, site: str, leaf: Leaf, batch_shape: tuple[int, ...]) -> Array:
    value, stacked = _checks.floating(value, site), (*batch_shape, *leaf.value.shape)
    if value.shape not in (leaf.value.shape, stacked):
        hint = f" (or {stacked} with the axes of the batch)" if batch_shape else ""
        raise ValueError(
            f"The value of `{site}` has shape {value.shape}, but the field has shape {leaf.value.shape}{hint}."
        )
    _checks.finite(value, site)
    if not _fields.lies_in(value, leaf.domain):
        raise ValueError(
            f"The value of `{site}` is outside the field's domain, {leaf.domain}; got {np.asarray(value)}."
        )
    return jnp.broadcast_to(value.astype(leaf.value.dtype), stacked)
