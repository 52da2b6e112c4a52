"""Data in units in which a prior is easily said, and back."""

from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from . import _checks, _tables
from ._features import AbstractFeatures, NoFeatures, RescaledFeatures
from ._kernels import AbstractKernel, Constant, Sum, Warped
from ._modules import Printed
from ._types import AnyArray


class Affine(Printed, eqx.Module):
    """z ↦ (z − offset) / scale along the last axis, or of all entries. **Fields:** `offset`, `scale`: `d`, or scalars."""

    offset: Float[Array, "..."]
    scale: Float[Array, "..."]

    def __call__(self, z: Any) -> Any:
        return self._of(z, lambda z, offset, scale: (z - offset) / scale)

    def inverse(self, z: Any) -> Any:
        return self._of(z, lambda z, offset, scale: z * scale + offset)

    def _of(self, z: Any, function: Callable[..., Any]) -> Any:
        """In double precision of what is NumPy's, so that years or seconds keep their digits until they are small."""
        if isinstance(z, np.ndarray) and _checks.is_concrete(self.offset) and _checks.is_concrete(self.scale):
            return function(z.astype(float), np.asarray(self.offset, float), np.asarray(self.scale, float))
        spread = lambda leaf: jnp.broadcast_to(leaf.astype(z.dtype), z.shape)
        return function(z, spread(self.offset), spread(self.scale))


class Standardisation(Printed, eqx.Module):
    """An invertible change of units of inputs and values, x ↦ (x − x₀)/c and y ↦ (y − y₀)/a; made by `standardise`.

    A prior is put on the standardised data, and `original` says back in the original units what comes of it: posteriors,
    paths and ensembles of paths, with their moments, derivatives and new observations.

    **Fields:** `input`: x₀ and c, `d` each, or None where inputs stay as they are; `value`: y₀ and a, scalars, or `p` each
    of several outputs.

    **Raises:** at use, ValueError where an argument does not fit.
    """

    input: Affine | None
    value: Affine

    def inputs(self, X: Any) -> Float[Array, "*n d"]:
        """Standardised inputs, `*n d`; NumPy arrays are taken in double precision until they are."""
        if self.input is None:
            return _checks.floating(X, "X")
        X = _numbers(X, "X")
        return _checks.inputs(self.input(_last(X, self.input.offset, "X")), self.input.offset.shape[0])

    def values(self, y: Any) -> Float[Array, "..."]:
        """Standardised values, `*n`, or `*n p` of several outputs."""
        return _checks.floating(self.value(_last(_numbers(y, "y"), self.value.offset, "y")), "y")

    def variances(self, variance: Any) -> Float[Array, "..."]:
        """Variances, such as that of the noise, in the units of standardised values: divided by a²."""
        variance = _last(_checks.floating(variance, "variance"), self.value.scale, "variance")
        return variance / _square(self.value.scale, variance)

    def original_inputs(self, X: Float[AnyArray, "*n d"]) -> Float[Array, "*n d"]:
        """The inputs of which `inputs` makes these."""
        there = _checks.floating(X, "X")
        return there if self.input is None else self.input.inverse(_last(there, self.input.offset, "X"))

    def original_values(self, y: Float[AnyArray, "..."]) -> Float[Array, "..."]:
        """The values of which `values` makes these."""
        return self.value.inverse(_last(_checks.floating(y, "y"), self.value.offset, "y"))

    def original_variances(self, variance: Float[AnyArray, "..."]) -> Float[Array, "..."]:
        """Variances in the original units: times a²."""
        there = _last(_checks.floating(variance, "variance"), self.value.scale, "variance")
        return there * _square(self.value.scale, there)

    def original(self, model: Any) -> Any:
        """A posterior of standardised data, its paths or an ensemble of paths, in the original units.

        **Arguments:** `model`: what `condition` returns, or what a sampler draws. **Returns:** one of the same type, which
        takes original inputs and gives original values: the same process, so that nothing is solved or drawn anew. Its
        kernel is a²·k((x − x₀)/c). **Raises:** ValueError where it is something else.
        """
        if not hasattr(model, "rescaled"):
            raise ValueError(
                f"`model` must be a posterior or paths of one; got {type(model).__name__}. Values and variances at "
                "inputs are read by `original_values` and `original_variances`."
            )
        return model.rescaled(self)

    def of_inputs(self, kernel: AbstractKernel) -> AbstractKernel:
        """k((x − x₀)/c)."""
        return kernel if self.input is None else Warped(kernel, self.input)

    def of_kernel(self, kernel: AbstractKernel) -> AbstractKernel:
        """a²·k((x − x₀)/c), a sum where k is one; of several outputs with units of their own, B in these."""
        if self.value.scale.ndim:
            return kernel.in_units(self.of_inputs, self.value.scale)
        parts = tuple(Constant(self.value.scale**2) * self.of_inputs(part) for part in kernel.summands())
        return parts[0] if len(parts) == 1 else Sum(parts)

    def of_features(
        self, features: AbstractFeatures, scale: Float[Array, "..."], axes: tuple[int, ...] = ()
    ) -> AbstractFeatures:
        """scale·φ((x − x₀)/c), of each output where it has one for each; of features with leading axes, which then all of
        their arrays have."""
        if isinstance(features, NoFeatures):
            return features
        if scale.ndim:
            one = jnp.ones((), scale.dtype)
            return features.in_units(lambda basis: RescaledFeatures(basis, self._to_standard, one), scale)
        repeat = lambda leaf: jnp.broadcast_to(leaf, (*axes, *leaf.shape))
        return RescaledFeatures(features, *jax.tree.map(repeat, (self._to_standard, scale)))

    @property
    def _to_standard(self) -> Affine:
        return Affine(jnp.zeros(()), jnp.ones(())) if self.input is None else self.input

    def of_mean(self, mean: Callable[..., Any]) -> Callable[..., Any]:
        """y₀ + a·m((x − x₀)/c)."""
        return (_OriginalMeans if self.value.scale.ndim else _OriginalMean)(mean, self)


class _OriginalMean(Printed, eqx.Module):
    mean: Callable[..., Any]
    scaling: Standardisation

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n ..."]:
        return self.scaling.value.inverse(jnp.asarray(self.mean(self.scaling._to_standard(X))))


class _OriginalMeans(Printed, eqx.Module):
    """Of several outputs with units of their own, whose number is the last column."""

    mean: Callable[..., Any]
    scaling: Standardisation

    def __call__(self, X: Float[Array, "n e"]) -> Float[Array, "n"]:
        number, value = X[..., -1], self.scaling.value
        standard = jnp.concatenate([self.scaling._to_standard(X[..., :-1]), number[..., None]], axis=-1)
        scale, offset = (leaf.astype(X.dtype)[number.astype(int)] for leaf in (value.scale, value.offset))
        return jnp.asarray(self.mean(standard)) * scale + offset


def standardise(
    X: Float[AnyArray, "n d"],
    y: Float[AnyArray, "..."],
    mask: Bool[AnyArray, "n"] | None = None,
    *,
    keep: Iterable[int] = (),
) -> Standardisation:
    """The change of units in which the columns of X, and y, have mean 0 and standard deviation 1.

    A kernel with a variance and lengthscales near 1 and no mean is then a sensible start for `fit`, or a prior of
    hyperparameters: whatever the units were.

    **Arguments:** `X`: inputs, `n d`; `y`: observations, `n`, or `n p` of several outputs; `mask`: False for points that were
    not observed, whose `y` does not count, `n`; `keep`: columns of `X` that stay as they are, such as those of categories
    or of the numbers of outputs.

    **Returns:** the change of units. What is constant is only shifted.

    **Raises:** ValueError where `X` is not `n d`, a shape does not fit, or an entry is not finite.
    """
    inputs, values = _numbers(X, "X"), _numbers(y, "y")
    if inputs.ndim != 2 or 0 in inputs.shape:
        raise ValueError(f"`X` must have shape (n, d); got {inputs.shape}.")
    if values.ndim not in (1, 2) or values.shape[0] != inputs.shape[0]:
        raise ValueError(f"`y` must have shape ({inputs.shape[0]},), or (n, p) of several outputs; got {values.shape}.")
    there = None if mask is None else _checks.as_mask(mask, (inputs.shape[0],))
    _checks.finite(inputs, "X")
    if there is None:
        _checks.finite(values, "y", _checks.MASK)
    columns = [range(inputs.shape[1])[_checks.index(i, inputs.shape[1], "Column")] for i in keep]
    kept = np.isin(np.arange(inputs.shape[1]), columns)
    return Standardisation(None if kept.all() else _moments(inputs, None, kept), _moments(values, there, None))


def _moments(z: Any, mask: Any, kept: np.ndarray | None) -> Affine:
    """Mean and standard deviation along the first axis, of what is not masked; 0 and 1 of the columns that are kept."""
    np_ = np if isinstance(z, np.ndarray) and _checks.is_concrete(mask) else jnp
    there = np.ones(z.shape[0], bool) if mask is None else np_.asarray(mask)
    there = np_.broadcast_to(there.reshape(-1, *(1,) * (z.ndim - 1)), z.shape)
    z = np_.where(there, z, np_.zeros_like(z))
    number = np_.sum(there, axis=0).astype(z.dtype)
    mean = np_.sum(z, axis=0) / number
    off = np_.where(there, z - np_.broadcast_to(mean, z.shape), np_.zeros_like(z))
    deviation = np_.sqrt(np_.sum(off * off, axis=0) / number)
    # The mean of a constant is off by rounding.
    rounding = 16 * float(jnp.finfo(z.dtype).eps) * np_.max(np_.abs(z), axis=0)
    scale = np_.where(deviation > rounding, deviation, np_.ones_like(deviation))
    if kept is not None:
        mean, scale = np_.where(kept, np_.zeros_like(mean), mean), np_.where(kept, np_.ones_like(scale), scale)
    dtype = jnp.result_type(float) if np_ is np else z.dtype
    return Affine(jnp.asarray(mean, dtype), jnp.asarray(scale, dtype))


def _numbers(x: Any, name: str) -> Any:
    """What is NumPy's, or a table, in double precision; and arrays of JAX."""
    if isinstance(x, jax.Array):
        return _checks.floating(x, name)
    _tables.refuse_columns(x, name)
    try:
        given = np.asarray(x)
    except ValueError:
        given = np.asarray("")
    return given.astype(float) if given.dtype.kind in "fiu" else _checks.floating(x, name)


def _last(z: Any, like: Array, name: str) -> Any:
    """`z`, whose last axis is that of the scales, if they have one."""
    if like.ndim and z.shape[-1:] != like.shape:
        raise ValueError(f"The last axis of `{name}` must have length {like.shape[0]}; got shape {z.shape}.")
    return z


def _square(scale: Array, like: Array) -> Array:
    return jnp.broadcast_to(scale.astype(like.dtype) ** 2, like.shape)
