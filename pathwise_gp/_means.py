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


def _as_values(values: Any) -> Any:
    return values if callable(values) else _fields.real(values)


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


class OutputMeans(Printed, eqx.Module):
    """m((x, i)) = values[i], or m(x)_i: a mean for each of several outputs, whose number i is the last column of the inputs.

    **Fields:** `values`: a number for each output, `p`, in units of the values; or a callable that maps `n d` to `n p`.

    **Raises:** ValueError where it is neither; at use, where a callable makes something else.
    """

    values: Any = eqx.field(converter=_as_values)

    def __call__(self, X: Float[Array, "*n e"]) -> Float[Array, "*n"]:
        numbers = X[..., -1].astype(int)
        if not callable(self.values):
            return self.values.astype(X.dtype)[numbers]
        flat = X[..., :-1].reshape(-1, X.shape[-1] - 1)
        rows = jnp.asarray(self.values(flat))
        if rows.ndim != 2 or rows.shape[0] != flat.shape[0]:
            raise ValueError(
                f"`OutputMeans.values` must map inputs of shape {flat.shape} to one value per point and output, (n, p); it "
                f"returned shape {rows.shape}."
            )
        own = jnp.take_along_axis(rows.astype(X.dtype), numbers.reshape(-1, 1), axis=1)
        return own.reshape(X.shape[:-1])

    def __check_init__(self):
        if not callable(self.values) and self.values.ndim != 1:
            raise ValueError(
                f"`OutputMeans.values` must have one number for each output, shape (p,), or be a callable; got "
                f"{self.values.shape}."
            )


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


class _MeanOfOutput(Printed, eqx.Module):
    mean: Mean
    q: int = eqx.field(static=True)

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return self.mean(jnp.concatenate([X, jnp.full((X.shape[0], 1), self.q, X.dtype)], axis=1))


@mean_integral.register
def _(mean: _MeanOfOutput, _: Box):
    of_all = mean.mean.values if isinstance(mean.mean, OutputMeans) else mean.mean
    raise NoClosedForm("the mean", type(of_all).__name__)


@functools.singledispatch
def of_output(mean: Any, q: int) -> Mean:
    """The mean of output q, of inputs without its number."""
    return _MeanOfOutput(mean, q)


@of_output.register(ZeroMean)
@of_output.register(ConstantMean)
def _(mean: Mean, _: int) -> Mean:
    return mean


@of_output.register
def _(mean: OutputMeans, q: int) -> Mean:
    return _MeanOfOutput(mean, q) if callable(mean.values) else ConstantMean(mean.values[q])
