"""What is asked of values that come in by a door: each failure names the argument and says what to do."""

import operator
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float

from . import _tables
from ._placement import divisible, hung_on, known


class PrecisionWarning(UserWarning):
    """What was computed is not the model as it was given, to the digits that matter: something was added to the covariance to
    factorise it, or the rounding of the dtype is as large as the noise. The message says what to do."""


class ScaleWarning(UserWarning):
    """Data are far from what the prior expects of them: observations many prior standard deviations from the prior mean, or
    inputs that are all uncorrelated. The message says what to do; `check_scales=False` of `condition` turns it off."""


# What stands between the line of a user and ours.
_BETWEEN = {"pathwise_gp", "equinox", "jax", "jaxtyping", "beartype"}


def warn(message: str, category: type[Warning] = PrecisionWarning) -> None:
    """A warning at the line that called the package, wherever in the package it arises."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in _BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def is_concrete(x: Any) -> bool:
    return not isinstance(x, jax.core.Tracer)


def floating(x: Any, name: str) -> Array:
    """`x` as a floating-point array; integers are converted, anything else is an error."""
    x = divisible(x)
    if isinstance(x, jax.Array) and not x.weak_type and jnp.issubdtype(x.dtype, jnp.floating):
        return _enough_bits(x, name)
    if isinstance(x, str):  # which NumPy would take for the name of a dtype
        raise ValueError(f"`{name}` must be an array of numbers; got the string {x!r}.")
    _tables.refuse_columns(x, name)
    try:
        array = jnp.asarray(x)
    except (TypeError, ValueError) as e:
        if isinstance(x, (list, tuple)) and x and all(isinstance(entry, str) for entry in x):
            _tables.refuse_columns(np.asarray(x), name)
        raise ValueError(f"`{name}` must be an array of numbers; got {type(x).__name__}.") from e
    if jnp.issubdtype(array.dtype, jnp.integer):
        array = array.astype(jnp.result_type(float))
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"`{name}` must be real numbers; got dtype {array.dtype}.")
    # Weakly typed leaves would lose their weakness in a round trip through a file, and then retrace.
    return _enough_bits(jax.lax.convert_element_type(array, array.dtype), name)


def _enough_bits(x: Array, name: str) -> Array:
    """`x`, or an error where its dtype has so few bits that no covariance can be factorised in it."""
    if jnp.finfo(x.dtype).bits < 32:
        raise ValueError(
            f"`{name}` has dtype {x.dtype}, whose {jnp.finfo(x.dtype).nmant + 1} bits of precision are too few for a "
            "covariance to be factorised: cast it with `.astype('float32')` or to float64."
        )
    return x


# A column is as good as it can be in a dtype that tells a million values of its range apart.
_FINE = 1e-6
# Of distinct values, how many may become equal; of the standard deviation of observations, what rounding may be.
_MERGED, _COARSE = 0.1, 1e-2


def _rounding(x: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Numbers that are to be taken in less than their precision, and the spacing there of numbers as large as the largest of
    each column; None where nothing is lost."""
    given = None if isinstance(x, jax.Array) or not is_concrete(x) else np.asarray(x)
    eps = float(jnp.finfo(jnp.result_type(float)).eps)
    if given is None or given.dtype.kind not in "fiu" or given.size == 0 or eps < np.finfo(np.single).eps:
        return None
    given = given.reshape(-1, given.shape[-1] if given.ndim > 1 else 1).astype(np.double)
    return given, eps * np.nanmax(np.abs(given), axis=0)


def distinct(x: Any, name: str) -> None:
    """Raises where distinct values of a column of inputs become equal in the precision that they are taken in."""
    found = _rounding(x)
    if found is None:
        return
    given, rounding = found
    for i in np.flatnonzero(rounding > _FINE * np.ptp(given, axis=0)):
        there, kept = (np.unique(values).size for values in (given[:, i], given[:, i].astype(np.single)))
        if kept < (1 - _MERGED) * there:
            raise ValueError(
                f"Column {i} of `{name}` has {there} distinct values, of which {kept} are left in single precision, JAX's "
                "default: call `jax.config.update('jax_enable_x64', True)` first, or subtract an offset from the column."
            )


def resolved(y: Any, name: str, mask: Array | None = None) -> None:
    """Raises where the spread of observations, or of one column of them, is lost in the precision that they are taken in."""
    if mask is not None and is_concrete(mask) and not isinstance(y, jax.Array):
        y = np.asarray(y)[known(mask)]
    found = _rounding(y)
    if found is None:
        return
    # The deviation of equal numbers is rounding, where it is not 0.
    differ = np.nanmin(found[0], axis=0) < np.nanmax(found[0], axis=0)
    for spread, rounding in zip(np.nanstd(found[0], axis=0)[differ], found[1][differ], strict=True):
        if rounding > _COARSE * spread:
            raise ValueError(
                f"`{name}` has a standard deviation of {spread:.3g}, of which single precision, JAX's default, keeps steps "
                f"of {rounding:.3g}: call `jax.config.update('jax_enable_x64', True)` first, or subtract an offset."
            )


MISSING = "Remove or impute those entries first."


def finite(x: Array | np.ndarray, name: str, remedy: str = MISSING) -> None:
    """Raises where a concrete `x` holds NaN or inf."""
    if not is_concrete(x):
        return
    bad = ~np.isfinite(known(x))
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"`{name}` must be finite; got {int(bad.sum())} NaN or inf entries, the first at index {where}. {remedy}"
        )


# A run that failed has no value, and is data all the same.
MASK = "Points that were not observed, such as runs that failed, go into `mask=`, False there: `mask=jnp.isfinite(y)`."
LEAVE_OUT = (
    "Leave out points that were not observed, such as runs that failed: `X[ok]`, `y[ok]` with `ok = jnp.isfinite(y)`; "
    "`GPPrior.condition`, `log_prob`, `fit` and `gp_factor` take them with a `mask=`."
)


def observed(
    y: Array, remedy: str = MASK, mask: Any = None, given: Any = None, name: str = "y", mesh: Mesh | None = None
) -> Array:
    """Observations with 0 where there is none, or an error where one is NaN or inf: now where they are known, by themselves
    or by the array that was given for them, else at run time under jit."""
    here = y if mask is None else jnp.where(mask, y, jnp.zeros_like(y))
    told = given if isinstance(given, np.ndarray) and not is_concrete(y) else y
    if is_concrete(told) and is_concrete(mask):
        told = known(told)
        finite(told if mask is None else np.where(known(mask), told, np.zeros_like(told)), name, remedy)
        return here
    return require(jnp.all(jnp.isfinite(here)), here, f"`{name}` must be finite; got NaN or inf. {remedy}", mesh)


def points(X: Any, name: str) -> Array:
    """A finite set of inputs of shape (n, d), n >= 1."""
    given, X = X, floating(X, name)
    if X.ndim != 2:
        hint = f" For one input dimension pass `{_tables.column(name, given)}`." if X.ndim == 1 else ""
        raise ValueError(f"`{name}` must have shape (n, d); got {X.shape}.{hint}")
    if X.shape[0] == 0 or X.shape[1] == 0:
        raise ValueError(f"`{name}` must hold at least one point of at least one dimension; got shape {X.shape}.")
    finite(X, name, _tables.in_words_of(given, MISSING))
    distinct(given, name)
    return X


def inputs(X: Any, dim: int, name: str = "X") -> Array:
    """Inputs of shape (*n, d) for functions of `dim` dimensions."""
    given, X = X, floating(X, name)
    if X.ndim == 0 or X.shape[-1] != dim:
        column = _tables.column(name, given)
        hint = f" Pass `{column}` for a set of one-dimensional inputs." if dim == 1 and X.ndim == 1 else ""
        raise ValueError(f"The last axis of `{name}` must be the input dimension, {dim}; got shape {X.shape}.{hint}")
    distinct(given, name)
    return X


def vector(y: Any, n: int, name: str, like: str) -> Array:
    """A finite vector with one entry for each of the n points of `like`."""
    given, y = y, _of_length(y, n, name, like)
    finite(y, name)
    resolved(given, name)
    return y


def _of_length(y: Any, n: int, name: str, like: str) -> Array:
    given, y = y, floating(y, name)
    if y.shape != (n,):
        hint = f" Pass `{_tables.values(name, given)}`." if y.shape == (n, 1) else ""
        raise ValueError(f"`{name}` must have shape ({n},), one value for each point of `{like}`; got {y.shape}.{hint}")
    return y


def positive(x: Array, name: str, *, or_zero: bool = False) -> None:
    """Raises where a concrete `x` holds something that is not a finite number above zero (or zero)."""
    finite(x, name)
    if is_concrete(x) and not bool(np.all(known(x) >= 0 if or_zero else known(x) > 0)):
        wanted = "not be negative" if or_zero else "be positive"
        raise ValueError(f"`{name}` must {wanted}; got {known(x)}.")


def variance_shapes(n: int, n_outputs: int | None) -> tuple[tuple[int, ...], ...]:
    """The shapes of a variance: one, one for each of n values, and one for each output."""
    return ((), (n,)) if n_outputs is None else ((), (n,), (n_outputs,))


def noise_variance(
    noise_var: Any, n: int, *, or_zero: bool = False, like: str = "X", n_outputs: int | None = None
) -> Array:
    """Noise variance, a scalar or one per point (or output), as an array of shape () or (n,), positive or also zero."""
    noise_var = floating(noise_var, "noise_var")
    if noise_var.shape not in variance_shapes(n, n_outputs):
        raise ValueError(
            f"`noise_var` must be a scalar or have shape ({n},), one variance for each point of `{like}`; "
            f"got shape {noise_var.shape}."
        )
    positive(noise_var, "noise_var", or_zero=or_zero)
    return noise_var


def as_mask(mask: Any, shape: tuple[int, ...]) -> Array:
    """What says of each observation whether it was made."""
    if is_concrete(mask):
        with jax.ensure_compile_time_eval():  # so that it is known under jit too
            mask = jnp.asarray(divisible(mask))
    if mask.dtype != bool or mask.shape != shape:
        raise ValueError(
            f"`mask` must have dtype bool and shape {shape}, True for each point that was observed; got {mask.dtype} of "
            f"shape {mask.shape}."
        )
    return mask


def observations(
    y: Any,
    n: int,
    mask: Any,
    remedy: str = MASK,
    name: str = "y",
    like: str = "X",
    shape: tuple[int, ...] | None = None,
    mesh: Mesh | None = None,
) -> tuple[Array, Array | None]:
    """Observations at n points, finite where they were made and 0 elsewhere, and the mask that says where; `shape`: in which
    the user knows them; `mesh`: on which they are solved for."""
    given, y, where = y, _of_length(y, n, name, like), None if mask is None else as_mask(mask, (n,))
    remedy = _tables.in_words_of(given, remedy)
    if shape is not None and len(shape) > 1:
        given, y = (values.reshape(shape) if hasattr(values, "reshape") else values for values in (given, y))
    y = observed(y, remedy, None if where is None else where.reshape(y.shape), given, name, mesh).reshape(n)
    resolved(given, name, None if where is None else where.reshape(np.shape(given)))
    return y, where


def not_inputs(y: Any, X: Array) -> None:
    """Raises where the inputs of a prior were given once more, in place of the observations."""
    if X is y or (
        getattr(y, "shape", None) == X.shape and is_concrete(y) and is_concrete(X) and _same_numbers(known(y), X)
    ):
        raise ValueError(
            "`y` is `X`: the prior has its inputs already. Pass the observations and the variance of their noise alone, "
            "`condition(y, noise_var)`."
        )


def _same_numbers(given: np.ndarray, taken: Array) -> bool:
    return given.dtype.kind in "fiu" and np.array_equal(given.astype(taken.dtype), known(taken))


def key(key: Any, name: str = "key") -> Any:
    """One key of `jax.random`, typed or raw."""
    dtype, shape = getattr(key, "dtype", None), np.shape(key) if hasattr(key, "shape") else None
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if (typed and shape == ()) or (dtype == np.uint32 and shape is not None and len(shape) == 1):
        return key
    got = f"{dtype} of shape {shape}" if shape is not None else repr(key)
    many = f" Take one of them: `{name}[0]`." if typed else ""
    raise ValueError(f"`{name}` must be a key of jax.random, such as `jax.random.key(0)`; got {got}.{many}")


def mapping(values: Any, name: str) -> Mapping[Any, Any]:
    """A mapping, or an error that says where in the results of NumPyro it is."""
    if isinstance(values, Mapping):
        return values
    hint = ""
    if hasattr(values, "get_samples"):
        hint = f" Pass its draws: `{name}.get_samples()`."
    elif hasattr(values, "params"):
        hint = " Pass draws of the guide, `guide.sample_posterior(key, result.params, sample_shape=(100,))`."
    raise ValueError(
        f"`{name}` must be a mapping from the names of sites to values; got {type(values).__name__}.{hint}"
    )


def count(k: Any, name: str, least: int = 1) -> int:
    """A whole number of at least one, or what is the `least`."""
    try:
        k = operator.index(k)
    except TypeError as e:
        raise ValueError(f"`{name}` must be a whole number, known when tracing; got {k!r}.") from e
    if k < least:
        raise ValueError(f"`{name}` must be at least {least}; got {k}.")
    return k


def index(i: Any, length: int, name: str) -> Any:
    """An index along one axis, or an error where it lies outside: an array would clamp it to the last entry."""
    if isinstance(i, (tuple, bool, np.bool_)) or i is None or i is Ellipsis:
        raise TypeError(f"{name}s are indexed along their first axis by a number, a slice or an array; got {i!r}.")
    if isinstance(i, slice) or not is_concrete(i):
        return i
    if np.ndim(i) == 0:
        i = operator.index(i)
    entries = np.asarray(i)
    beyond = entries[:0] if entries.dtype == bool else entries[(entries < -length) | (entries >= length)]
    if beyond.size:
        raise IndexError(f"{name} {beyond.flat[0]} was asked for, but there are {length}.")
    return entries if np.ndim(i) else i


def flag(value: Any, name: str) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"`{name}` must be True or False; got {value!r}.")
    return bool(value)


def every(answers: Iterable[Literal[True] | Bool[Array, ""]]) -> Literal[True] | Bool[Array, ""]:
    """Whether all are true; True itself where that needs no arrays."""
    found: Literal[True] | Array = True
    for answer in answers:
        found = answer if found is True else found if answer is True else found & answer
    return found


def require(
    ok: Bool[Array, ""], value: Float[Array, "..."], message: str, mesh: Mesh | None = None
) -> Float[Array, "..."]:
    """`value`, or an error: a ValueError now where `ok` is concrete, at run time under jit."""
    if is_concrete(ok):
        if not bool(ok):
            raise ValueError(message)
        return value
    return verdict(value, (~ok, message), mesh=mesh)


def verdict(value: Any, *faults: tuple[Bool[Array, ""], str], mesh: Mesh | None = None) -> Any:
    """A pytree, or the error of the first of the faults that is true: now where they are concrete, at run time under jit.

    On a mesh each device finds it by itself: one that waits for what another one finds would wait for good."""
    happened, messages = zip(*faults, strict=True)
    if all(map(is_concrete, happened)):
        for so, message in faults:
            if so:
                raise ValueError(message)
        return value
    zero, which = jnp.zeros(()), jnp.stack(happened)
    look = lambda which: eqx.branched_error_if(zero, jnp.any(which), jnp.argmax(which), messages)
    if mesh is not None:
        everywhere = PartitionSpec()
        look = jax.shard_map(look, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False)
    return hung_on(value, look(which))


def bounds(bounds: Any) -> Float[Array, "2 d"]:
    """The lower and the upper corner of a box."""
    bounds = floating(bounds, "bounds")
    if bounds.ndim != 2 or bounds.shape[0] != 2 or bounds.shape[1] == 0:
        raise ValueError(
            f"`bounds` must have shape (2, d), a row of lower and a row of upper bounds; got {bounds.shape}."
        )
    wanted = "`bounds` must be finite, its lower row below its upper row in each dimension"
    if not is_concrete(bounds):
        return require(jnp.all(jnp.isfinite(bounds)) & jnp.all(bounds[0] < bounds[1]), bounds, f"{wanted}.")
    told = known(bounds)
    if not (np.isfinite(told).all() and (told[0] < told[1]).all()):
        raise ValueError(f"{wanted}; got {bounds}.")
    return bounds
