"""What modules of the package have in common: how they are printed, and what is said where one is taken for a function."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.core
import numpy as np

# An array of so many entries is printed as numbers, of more as its shape; so many characters fit on a line.
_ENTRIES, _WIDTH = 8, 100


class Printed:
    """What modules print: their fields, with the values of hyperparameters and of short vectors, and the shapes of others."""

    def _printed(self) -> Mapping[str, Any]:
        """What is printed, by name; a class with fields that tell a reader little says something else."""
        return _fields_of(self)

    def __repr__(self) -> str:
        try:
            return _call(type(self).__name__, self._printed())
        except (AttributeError, IndexError, TypeError):  # a pytree whose leaves are no arrays
            return _call(type(self).__name__, _fields_of(self))

    def __hash__(self) -> int:
        try:
            return super().__hash__()
        except TypeError as e:
            raise TypeError(
                f"A `{type(self).__name__}` holds arrays and has no hash, which `jax.jit(f)` takes of a function f: write "
                "`equinox.filter_jit(f)`, or `jax.jit(lambda X: f(X))`."
            ) from e


def _fields_of(module: Any) -> dict[str, Any]:
    fields = dataclasses.fields(module)
    return {field.name: _value_of(module, field) for field in fields if not _is_default(module, field)}


def _value_of(module: Any, field: dataclasses.Field[Any]) -> Any:
    value = getattr(module, field.name, None)
    # Matrices with a domain are hyperparameters, others are data.
    hyperparameter = hasattr(field.metadata.get("converter"), "domain")
    return Shape(value) if _rank(value) > 1 and not hyperparameter else value


def _rank(value: Any) -> int:
    return value.ndim if isinstance(value, (jax.Array, np.ndarray)) else 0


class Shape:
    """An array of which the shape is printed, however small it is."""

    def __init__(self, array: Any):
        self.array = array

    def __repr__(self) -> str:
        dtype = self.array.dtype
        name = f"{dtype.kind}{8 * dtype.itemsize}" if dtype.kind in "fiu" else dtype.name
        return f"{name}[{','.join(map(str, self.array.shape))}]"


def shown(value: Any) -> Any:
    """What is printed of data: the shape of an array, and modules as they are."""
    return Shape(value) if _rank(value) else value


def _is_default(module: Any, field: dataclasses.Field[Any]) -> bool:
    """Whether a field is None, or what it is unless given, as far as that has no arrays."""
    value = getattr(module, field.name, None)
    if value is None or field.default_factory is type(value):
        return True
    return isinstance(value, (bool, int, float, str)) and type(field.default) is type(value) and value == field.default


def _call(name: str, values: Mapping[str, Any]) -> str:
    """`name(a=…, b=…)`, on lines of their own where they do not fit on one."""
    parts = [f"{key}={_text(value)}" for key, value in values.items()]
    return _joined(f"{name}(", parts, ")")


def _joined(start: str, parts: list[str], end: str) -> str:
    one_line = f"{start}{', '.join(parts)}{end}"
    if len(one_line) <= _WIDTH and "\n" not in one_line:
        return one_line
    inner = ",\n".join(parts).replace("\n", "\n  ")
    return f"{start}\n  {inner}\n{end}"


def _text(value: Any) -> str:
    if isinstance(value, (jax.Array, np.ndarray)):
        return _of_array(value)
    if isinstance(value, (tuple, list)):
        return _joined("(", [_text(part) for part in value], ",)" if len(value) == 1 else ")")
    if isinstance(value, dict):
        return _joined("{", [f"{key!r}: {_text(part)}" for key, part in value.items()], "}")
    if isinstance(value, eqx.Module) and not isinstance(value, Printed):
        name = type(value).__name__
        text = _call(name, _fields_of(value))
        return text if "\n" not in text else f"{name}(…)"  # a network
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    return repr(value)


def _of_array(array: Any) -> str:
    if isinstance(array, jax.core.Tracer) or array.size > _ENTRIES or array.dtype.kind not in "fiub":
        return repr(Shape(array))
    return _of_numbers(np.asarray(array).tolist())


def _of_numbers(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_of_numbers, value))}]"
    return repr(float(f"{value:.5g}")) if isinstance(value, float) else str(value)
