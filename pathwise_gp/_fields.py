"""Fields of modules, and the domain that the values of a field live in."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, overload, SupportsIndex, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from . import _checks
from ._types import Numbers

T = TypeVar("T")
S = TypeVar("S")

Domain = Literal["positive", "real", "lower_cholesky", "simplex"]


@dataclasses.dataclass(frozen=True)
class Converter:
    """Makes an array of what is given for a field, and says which domain it lives in: `equinox.field(converter=positive)`.

    A checker takes the type of an argument from the converter, where it stands in the class body itself.
    """

    domain: Domain

    @overload
    def __call__(self, x: None) -> None: ...
    @overload
    def __call__(self, x: Numbers) -> Array: ...
    def __call__(self, x: Any) -> Any:
        # A converter does not know its field's name: what cannot be converted is left for `check`, which does.
        try:
            return _checks.floating(x, "value")
        except ValueError:
            return x


positive, real = Converter("positive"), Converter("real")
# A square root of a covariance, of which only the lower triangle counts.
lower_cholesky = Converter("lower_cholesky")
# The last axis holds weights: at least 0, and 1 in all.
simplex = Converter("simplex")


def domain(field: dataclasses.Field[Any]) -> Domain:
    """The domain of a dataclass field; the real numbers unless its converter says otherwise."""
    return getattr(field.metadata.get("converter"), "domain", "real")


def points(name: str) -> Callable[[Numbers], Array]:
    """A converter of a finite set of inputs, `n d`."""
    return lambda X: _checks.points(X, name)


def array(name: str, *, positive: bool = False) -> Callable[[Numbers], Array]:
    """A converter of finite numbers."""

    def convert(x: Any) -> Array:
        x = _checks.floating(x, name)
        (_checks.positive if positive else _checks.finite)(x, name)
        return x

    return convert


def scalar(name: str, *, positive: bool = False) -> Callable[[Numbers], Array]:
    """A converter of one finite number."""
    convert = array(name, positive=positive)

    def convert_one(x: Any) -> Array:
        x = convert(x)
        if x.ndim:
            raise ValueError(f"`{name}` must be a scalar; got shape {x.shape}.")
        return x

    return convert_one


def count(name: str) -> Callable[[SupportsIndex], int]:
    """A converter of a whole number of at least 1."""
    return lambda n: _checks.count(n, name)


def fraction(name: str) -> Callable[[Any], float]:
    """A converter of a number between 0 and 1, neither of them."""

    def convert(x: Any) -> float:
        try:
            x = float(x)
        except (TypeError, ValueError) as e:
            raise ValueError(f"`{name}` must be a number, known when tracing; got {x!r}.") from e
        if not 0 < x < 1:
            raise ValueError(f"`{name}` must be between 0 and 1; got {x}.")
        return x

    return convert


def flag(name: str) -> Callable[[bool], bool]:
    """A converter of True or False."""
    return lambda x: _checks.flag(x, name)


def optional(convert: Callable[[T], S]) -> Callable[[T | None], S | None]:
    """A converter of what may be None."""
    return lambda x: None if x is None else convert(x)


def lies_in(value: Array, domain: Domain) -> bool:
    """Whether a value is in a domain; True where it is not known while tracing."""
    if not _checks.is_concrete(value):
        return True
    known = np.asarray(value)
    if domain == "positive":
        return bool(np.all(known > 0))
    if domain == "simplex":
        off = np.abs(known.sum(axis=-1) - 1)
        return bool(np.all(known >= 0) and np.all(off <= 100 * np.finfo(known.dtype).eps * known.shape[-1]))
    return True


def unconstrained(value: Array, domain: Domain) -> Array:
    """The point of the unconstrained space that stands for a value."""
    return jnp.log(value) if domain in ("positive", "simplex") else value


def constrained(point: Array, domain: Domain) -> Array:
    """The value in the domain that a point of the unconstrained space stands for."""
    # A matrix whose lower triangle counts has no bounds of its own.
    return {"positive": jnp.exp, "simplex": jax.nn.softmax}.get(domain, lambda value: value)(point)


def check(module: eqx.Module) -> None:
    """Raises where a concrete field of `module` is not finite or has left its domain."""
    for field in dataclasses.fields(module):
        if not isinstance(field.metadata.get("converter"), Converter):
            continue
        name = f"{type(module).__name__}.{field.name}"
        value = _checks.floating(getattr(module, field.name), name)
        if domain(field) == "positive":
            _checks.positive(value, name)
        else:
            _checks.finite(value, name)
        if domain(field) == "simplex" and (value.ndim == 0 or not lies_in(value, "simplex")):
            raise ValueError(
                f"`{name}` must hold weights of at least 0 that add up to 1 along the last axis; got {value}."
            )


def check_scalar(module: eqx.Module, *names: str) -> None:
    """Raises where one of the named fields is not a scalar."""
    check(module)  # what is not a number has no shape
    for name in names:
        value = getattr(module, name)
        if value.ndim != 0:
            raise ValueError(f"`{type(module).__name__}.{name}` must be a scalar; got shape {value.shape}.")


def check_per_dimension(module: eqx.Module, *names: str) -> None:
    """Raises where one of the named fields is neither a scalar nor a vector."""
    check(module)
    for name in names:
        value = getattr(module, name)
        if value.ndim > 1 or value.size == 0:
            raise ValueError(
                f"`{type(module).__name__}.{name}` must be a scalar or a vector with one entry per input dimension; "
                f"got shape {value.shape}."
            )


def check_length(module: eqx.Module, dim: int, *names: str) -> None:
    """Raises where one of the named fields is a vector that does not fit inputs of `dim` dimensions."""
    for name in names:
        value = getattr(module, name)
        if value.shape not in ((), (dim,)):
            raise ValueError(
                f"`{type(module).__name__}.{name}` must be a scalar or have shape ({dim},), one entry per input "
                f"dimension; got shape {value.shape}."
            )
