"""Fields of modules, and the domain that the values of a field live in."""

import dataclasses
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from . import _checks

Domain = Literal["positive", "real", "lower_cholesky", "simplex"]


def _field(domain: Domain, **kwargs: Any) -> Any:
    return eqx.field(converter=_convert, metadata={"domain": domain}, **kwargs)


def _convert(x: Any) -> Any:
    # A converter does not know its field's name: what cannot be converted is left for `check`, which does.
    try:
        return _checks.floating(x, "value")
    except ValueError:
        return x


def positive(**kwargs: Any) -> Any:
    """A field of positive numbers."""
    return _field("positive", **kwargs)


def real(**kwargs: Any) -> Any:
    """A field of real numbers."""
    return _field("real", **kwargs)


def lower_cholesky(**kwargs: Any) -> Any:
    """A field that holds a square root of a covariance, of which only the lower triangle counts."""
    return _field("lower_cholesky", **kwargs)


def simplex(**kwargs: Any) -> Any:
    """A field whose last axis holds weights: at least 0, and 1 in all."""
    return _field("simplex", **kwargs)


def domain(field: dataclasses.Field[Any]) -> Domain:
    """The domain of a dataclass field; the real numbers unless the field says otherwise."""
    return field.metadata.get("domain", "real")


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
        if "domain" not in field.metadata:
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
