"""Paths as the members of an ensemble predictor, for what expects one: weighted means, spreads and quantiles."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from . import _checks, _fields
from ._numerics.blocks import map_rows
from ._paths.paired import axes_of
from ._types import AnyArray, Numbers

# Values held at once of functions that are called one by one.
_ENTRIES = 2**20


def _as_functions(paths: Callable[..., Any] | Sequence[Callable[..., Any]]) -> Any:
    paths = tuple(paths) if isinstance(paths, (tuple, list)) else paths
    if paths == ():
        raise ValueError("`paths` must hold at least one function; got none.")
    if not all(map(callable, paths if isinstance(paths, tuple) else (paths,))):
        raise ValueError(f"`paths` must be a function, or a sequence of functions; got {paths!r}.")
    return paths


def _as_weights(weights: Numbers) -> Array:
    """Weights that sum to 1."""
    weights = _checks.floating(weights, "weights")
    if weights.ndim == 0 or weights.size == 0:
        raise ValueError(f"`weights` must have an axis of members; got shape {weights.shape}.")
    _checks.positive(weights, "weights", or_zero=True)
    total = jnp.sum(weights)
    if _checks.is_concrete(total) and not float(total) > 0:
        raise ValueError("`weights` must not all be 0.")
    return weights / total


class Predictor(eqx.Module):
    """Members with weights, as one predictive law at each input: Σᵢ wᵢ δ(f − fᵢ(x)).

    **Fields:**

    - `paths`: paths or an ensemble of them, or any function that maps `*n d` to `*s *n`; or a sequence of k of these, of one
      posterior or of several, whose members are those of all.
    - `weights`: of the members, `*s`, or of the first of these axes alone (of the draws of an ensemble, say), each then
      shared evenly by what is behind it; for a sequence these axes are `k *s`, and k alone where its functions have different
      ones. Not negative; here divided by their sum. Unless given, equal for all members.

    **Raises:** ValueError where `paths` is not callable, or a weight is negative or not finite or all are 0; at a call, where
    weights and values do not fit each other. Many inputs are taken a block at a time.
    """

    paths: Callable[..., Any] | tuple[Callable[..., Any], ...] = eqx.field(converter=_as_functions)
    weights: Float[Array, "..."] | None = eqx.field(converter=_fields.optional(_as_weights), default=None)

    @property
    def members(self) -> tuple[Callable[..., Any], ...]:
        """Each member as a function, in the order of the axes `*s`: of a sequence those of its first entry come first. An
        entry that is a function but no paths is given as it is."""
        if isinstance(self.paths, tuple):
            each = (_members(one) if hasattr(one, "shape") else (one,) for one in self.paths)
            return tuple(member for members in each for member in members)
        if not hasattr(self.paths, "shape"):
            raise ValueError(
                "`members` are those of paths, of an ensemble or of a sequence; of another function, which gives all its "
                "values at once, there are none. Pass a sequence of functions as `paths`."
            )
        return _members(self.paths)

    def predict(self, X: Float[AnyArray, "*n d"]) -> Float[Array, "*n"]:
        """Weighted mean, Σᵢ wᵢ fᵢ(x).

        **Arguments:** `X`: inputs, `*n d`. **Returns:** `*n`. **Raises:** as the members, and where weights do not fit.
        """
        return self._at(_mean, X)

    def predict_mean_std(self, X: Float[AnyArray, "*n d"]) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
        """Mean and standard deviation of the law of the members, √Σᵢ wᵢ (fᵢ(x) − mean)²: with n equal weights it has n, not
        n − 1, in the denominator. Noise is not in it.

        **Arguments:** `X`: inputs, `*n d`. **Returns:** `*n` each. **Raises:** as `predict`.
        """
        mean, std = self._at(_mean_std, X)
        return mean, std

    def quantiles(self, X: Float[AnyArray, "*n d"], q: Any) -> Float[Array, "..."]:
        """Weighted quantiles: the least value of a member for which those up to it have a weight of q or more.

        **Arguments:** `X`: inputs, `*n d`; `q`: probabilities, `*q`, between 0 and 1.

        **Returns:** `*q *n`. **Raises:** as `predict`; and where a probability is outside [0, 1] (at run time under jit).
        """
        q = _checks.floating(q, "q")
        message = (
            f"`q` must lie between 0 and 1; got {q}." if _checks.is_concrete(q) else "`q` must lie between 0 and 1."
        )
        q = _checks.require(jnp.all((q >= 0) & (q <= 1)), q, message)
        found = self._at(_quantiles, X, q.reshape(-1))
        return found.reshape(*q.shape, *found.shape[1:])

    def _at(self, law: Callable[..., Any], X: Any, *arguments: Any) -> Float[Array, "..."]:
        X = _checks.floating(X, "X")
        if X.ndim == 0 or X.shape[-1] == 0:
            raise ValueError(f"`X` must have a last axis, of the input dimension; got shape {X.shape}.")
        return _at(self, law, X, arguments)


def _members(paths: Any) -> tuple[Callable[..., Any], ...]:
    """Paths one by one, along all their axes."""
    if paths.shape == ():
        return (paths,)
    return tuple(member for path in paths for member in _members(path))


def _at(predictor: Predictor, law: Any, X: Float[Array, "*n d"], arguments: tuple[Any, ...]) -> Float[Array, "..."]:
    """What a function makes of values `s b` and weights `s`, a block of inputs at a time."""
    several, rows = isinstance(predictor.paths, tuple), X.reshape(math.prod(X.shape[:-1]), X.shape[-1])
    if several:
        # Many functions in one program would take long to compile: each is called by itself.
        block, width = _of_blocks(predictor, law, X, arguments)
        starts = range(0, max(1, len(rows)), max(64, _ENTRIES // width))
        found = jnp.concatenate([block(rows[i : i + starts.step]) for i in starts], axis=-1)
    else:
        found = _compiled(predictor, law, rows, arguments)
    return found.reshape(*found.shape[:-1], *X.shape[:-1])


@eqx.filter_jit
def _compiled(predictor: Predictor, law: Any, rows: Float[Array, "n d"], arguments: tuple[Any, ...]) -> Any:
    block, width = _of_blocks(predictor, law, rows, arguments)
    return map_rows(block, rows, width)


def _of_blocks(predictor: Predictor, law: Any, X: Float[Array, "*n d"], arguments: tuple[Any, ...]) -> tuple[Any, int]:
    """The function of a block of inputs, and the entries of its largest temporary for each of them."""
    paths = predictor.paths
    functions: tuple[Any, ...] = paths if isinstance(paths, tuple) else (paths,)
    axes = [_axes(function, X) for function in functions]
    if not isinstance(paths, tuple) and axes[0] == ():
        raise ValueError(
            "`paths` must give values of several members; it is one. Pass `[path]` for a law of one member."
        )
    weights = _spread(predictor.weights, axes, isinstance(paths, tuple))

    def block(rows: Float[Array, "b d"]) -> Float[Array, "..."]:
        values = jnp.concatenate([_values(one, of, rows) for one, of in zip(functions, axes, strict=True)])
        return law(values, weights.astype(values.dtype), *arguments)

    return block, sum(map(math.prod, axes)) * max([1, *(argument.size for argument in arguments)])


def _axes(paths: Any, X: Float[Array, "*n d"]) -> tuple[int, ...]:
    """The axes `*s`. Not read off the values at `X`, of which an axis of outputs could be taken for one of inputs."""
    return paths.shape if hasattr(paths, "shape") else axes_of(paths, X.shape[-1], X.dtype)[0]


def _values(paths: Any, axes: tuple[int, ...], rows: Float[Array, "b d"]) -> Float[Array, "s b"]:
    values = jnp.asarray(paths(rows))
    if values.shape != (*axes, len(rows)):
        raise ValueError(
            f"`paths` must map inputs of shape {rows.shape} to values of shape {(*axes, len(rows))}; got {values.shape}. Of "
            "paths of several outputs take one: `paths.output(0)`."
        )
    return values.reshape(math.prod(axes), len(rows))


def _spread(weights: Any, axes: list[tuple[int, ...]], several: bool) -> Float[Array, "s"]:
    """The weight of each member."""
    counts = [math.prod(one) for one in axes]
    if weights is None:
        return jnp.full((sum(counts),), 1 / sum(counts))
    alike = len(set(axes)) == 1
    members = (len(axes), *(axes[0] if alike else ())) if several else axes[0]
    if weights.shape != members[: weights.ndim]:
        raise ValueError(
            f"`weights` must have the axes of the members, {members}, or the first of them; got shape {weights.shape}."
        )
    if alike:
        behind = members[weights.ndim :]
        share = weights.reshape(*weights.shape, *(1,) * len(behind)) / math.prod(behind)
        return jnp.broadcast_to(share, members).reshape(-1)
    return jnp.concatenate(
        [jnp.full((count,), 1 / count) * weight for count, weight in zip(counts, weights, strict=True)]
    )


@jax.jit
def _mean(values: Float[Array, "s b"], weights: Float[Array, "s"]) -> Float[Array, "b"]:
    # Accelerators would round the factors to ten bits.
    return jnp.matmul(weights, values, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _mean_std(values: Float[Array, "s b"], weights: Float[Array, "s"]) -> Float[Array, "2 b"]:
    mean = _mean(values, weights)
    square = _mean((values - mean[None]) ** 2, weights)
    # The root has no derivative at 0, where all members agree.
    agree = square == 0
    root = jnp.sqrt(jnp.where(agree, jnp.ones_like(square), square))
    return jnp.stack([mean, jnp.where(agree, jnp.zeros_like(square), root)])


@jax.jit
def _quantiles(values: Float[Array, "s b"], weights: Float[Array, "s"], q: Float[Array, "q"]) -> Float[Array, "q b"]:
    order = jnp.argsort(values, axis=0)
    ordered = jnp.take_along_axis(values, order, axis=0)
    total = jnp.cumsum(weights[order], axis=0)
    # Sums of weights such as 1/3 miss a probability by rounding, which grows with the depth of the sum; by less than a
    # member all the same.
    least = jnp.min(jnp.where(weights > 0, weights, jnp.ones_like(weights)))
    slack = jnp.minimum(4 * (1 + math.log2(len(weights))) * jnp.finfo(values.dtype).eps, 0.5 * least)
    wanted = q.astype(values.dtype) * (1 - slack)
    # A member of weight 0 is never a quantile, also at q = 0.
    reached = (total[None] >= wanted[:, None, None]) & (total[None] > 0)
    return jnp.take_along_axis(ordered, jnp.argmax(reached, axis=1), axis=0)
