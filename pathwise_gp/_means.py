"""Mean functions. Any callable that maps inputs `n d` to values `n` is one."""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from . import _fields
from ._modules import Printed
from ._numerics.boxes import Box, NoClosedForm
from ._types import Number

Mean: TypeAlias = Callable[[Any], Any]
# Of a field: which mean a prior was given, and what it has, a checker does not know.
AnyMean: TypeAlias = Any


class ZeroMean(Printed, eqx.Module):
    """m(x) = 0."""

    def __call__(self, X: Float[Array, "*n d"]) -> Float[Array, "*n"]:
        return jnp.zeros(X.shape[:-1], X.dtype)


class ConstantMean(Printed, eqx.Module):
    """m(x) = value. **Fields:** `value`: a scalar, in units of the values."""

    value: Float[Array, ""] = eqx.field(converter=_fields.real)

    def __call__(self, X: Float[Array, "*n d"]) -> Float[Array, "*n"]:
        return jnp.broadcast_to(self.value.astype(X.dtype), X.shape[:-1])

    def __check_init__(self):
        _fields.check(self)
        _fields.check_scalar(self, "value")


def as_mean(mean: Mean | Number) -> Mean:
    """`mean` if it is callable, a constant mean if it is a number."""
    if callable(mean):
        return mean
    shape = np.shape(mean)
    if shape != ():
        raise ValueError(
            f"`mean` must be a number, or a callable that maps `n d` to `n`; got an array of shape {shape}. "
            "Observations are not given to the prior: `GPPrior(kernel, X).condition(y, noise_var)`."
        )
    try:
        return ConstantMean(mean)
    except ValueError as e:
        raise ValueError(f"`mean` must be a number, or a callable that maps `n d` to `n`; got {mean!r}.") from e


def evaluate(mean: Mean, X: Float[Array, "n d"]) -> Float[Array, "n"]:
    """m(X) in the dtype of X, or an error where it is not one value per point."""
    values = jnp.asarray(mean(X))
    if values.shape != (X.shape[0],):
        raise ValueError(
            f"`mean` must map inputs of shape {X.shape} to one value per point, shape ({X.shape[0]},); "
            f"it returned shape {values.shape}."
        )
    return values.astype(X.dtype)


@functools.singledispatch
def mean_integral(mean: Any, _: Box) -> Float[Array, ""]:
    """∫ m dx over a box."""
    raise NoClosedForm("the mean", type(mean).__name__)


@mean_integral.register
def _(_: ZeroMean, box: Box):
    return jnp.zeros((), box.lower.dtype)


@mean_integral.register
def _(mean: ConstantMean, box: Box):
    return mean.value.astype(box.lower.dtype) * box.volume
