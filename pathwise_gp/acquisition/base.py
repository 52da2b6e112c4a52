"""What all acquisition functions have."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks, _fields
from .._numerics.blocks import map_rows
from .._paths.paired import axes_of
from .._types import AnyArray, Key
from ..optimise import Choice, Optimum
from ..optimise.problem import functions, Sets
from ..optimise.search import search
from .batches import best_batch

# Of the smooth positive part, the weight of its tail.
_TAIL = 0.1


as_bandwidth = _fields.optional(_fields.scalar("bandwidth", positive=True))
as_temperature = _fields.optional(_fields.scalar("temperature", positive=True))


def as_functions(name: str) -> Callable[[Callable[..., Any] | Iterable[Callable[..., Any]]], tuple[Any, ...]]:
    """A converter of one function or several."""

    def convert(x: Any) -> tuple[Any, ...]:
        found = (x,) if callable(x) else tuple(x) if isinstance(x, Iterable) else ()
        if not found or not all(callable(one) for one in found):
            raise ValueError(f"`{name}` must be a function that maps `*n d` to `*s *n`, or several; got {x!r}.")
        return found

    return convert


class AbstractWorth(eqx.Module):
    """What an evaluation is worth: `acquisition(X)` of each input alone, `acquisition.joint(X)` of q inputs together, and
    `acquisition.optimise(bounds, key, q)` the inputs where it is largest."""

    def __call__(self, X: Float[AnyArray, "*n d"]) -> Float[Array, "*n"]:
        """The value of an evaluation at each input.

        **Arguments:** `X`: inputs, `*n d`. **Returns:** `*n`. Memory beyond that is that of a block of inputs. **Raises:**
        ValueError where `X` is a scalar, or the paths do not map `*n d` to `*s *n`.
        """
        X = _checks.floating(X, "X")
        return self.joint(X[..., None, :] if X.ndim else X)

    def joint(self, X: Float[AnyArray, "*n q d"]) -> Float[Array, "*n"]:
        """The value of q evaluations made together.

        **Arguments:** `X`: inputs, `*n q d`. **Returns:** `*n`; for q = 1 what a call gives. **Raises:** as a call, and where
        `X` has no axis of inputs.
        """
        X = _checks.floating(X, "X")
        if X.ndim < 2 or X.shape[-2] == 0:
            raise ValueError(f"`X` must have shape (*n, d), or (*n, q, d) with q > 0 in `joint`; got {X.shape}.")
        return _joint(self, X)

    def optimise(
        self,
        bounds: Float[AnyArray, "2 d"],
        key: Key,
        q: int = 1,
        *,
        joint_constraints: Callable[..., Any] | Sequence[Callable[..., Any]] = (),
        **options: Any,
    ) -> Optimum:
        """The q inputs in a box that are worth most together. Other values of the same shapes compile nothing anew.

        **Arguments:**

        - `bounds`: `2 d`; `key`: of the starts; `q`.
        - `joint_constraints`: one function or several h(X) ≤ 0 of the q inputs together, which map `*n q d` to `*n`.
        - `options`: as of `optimise.maximise`. `constraints` are those of an input, which map `*n d` to `*n`, and hold for
          each of the q; `candidates` are inputs, `m d`, of which sets of q are made, or such sets, `m q d`.

        **Returns:** the optimum, whose `points` are `q d`. **Raises:** ValueError as `optimise.maximise`, and where
        `joint_constraints` map `*n q d` to something else.
        """
        q = _checks.count(q, "q")
        sets = Sets(q, q, functions(joint_constraints, "joint_constraints"))
        return search(Joint(self, q), bounds, _checks.key(key), True, sets, **options)

    def optimise_over(
        self,
        choices: Float[AnyArray, "m d"],
        q: int = 1,
        *,
        constraints: Callable[..., Any] | Sequence[Callable[..., Any]] = (),
        joint_constraints: Callable[..., Any] | Sequence[Callable[..., Any]] = (),
    ) -> Choice:
        """The q inputs of a list that are worth most together, each row at most once.

        For q = 1 exactly. Of more the best of eight searches, each from one of the best single rows: one after the other as
        the best addition to those before it, and then by exchanges of one row for the best in its place until none improves.
        Every step evaluates the whole list; nothing is drawn.

        **Arguments:** `choices`: the list, `m d`; `q`, at most m; `constraints`, `joint_constraints`: as of `optimise`; they
        have to hold without a tolerance.

        **Returns:** the choice, with `points` `q d` and `indices` `q`. Where no feasible batch was found, `feasible` is False
        and it is one of less violation than its neighbours.

        **Raises:** ValueError where `choices` are not `m d` and finite, q is larger than m, or functions do not map as said.
        """
        choices, q = _checks.points(choices, "choices"), _checks.count(q, "q")
        if q > choices.shape[0]:
            raise ValueError(f"`q` must be at most the number of choices, {choices.shape[0]}; got {q}.")
        constraints = functions(constraints, "constraints")
        return best_batch(self, choices, q, constraints, functions(joint_constraints, "joint_constraints"))

    @abstractmethod
    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        """The value of each of n sets of q inputs."""

    @abstractmethod
    def entries(self, q: int, dim: int, dtype: Any) -> int:
        """Entries of the largest temporary for a set of q inputs of some dimension."""


class AbstractAcquisition(AbstractWorth):
    """What an evaluation is worth as an average over paths: `acquisition(X)` of each input alone, `acquisition.joint(X)` of q
    inputs together, and `acquisition.optimise(bounds, key, q)` the inputs where it is largest. A subclass gives `of`."""

    paths: eqx.AbstractVar[Any]

    def width(self, q: int, samples: int) -> int:
        """Entries of the largest temporary for a set of q inputs, for so many paths."""
        return q * samples

    def entries(self, q: int, dim: int, dtype: Any) -> int:
        paths = self.paths[0] if isinstance(self.paths, tuple) else self.paths
        return self.width(q, eqx.filter_eval_shape(paths, jax.ShapeDtypeStruct((1, dim), dtype)).size)


class Joint(eqx.Module):
    """The value of q inputs as a function of all their coordinates, one after the other: `*n qd` to `*n`."""

    acquisition: AbstractWorth
    q: int = eqx.field(static=True)

    def __call__(self, X: Float[Array, "*n v"]) -> Float[Array, "*n"]:
        return self.acquisition.joint(X.reshape(*X.shape[:-1], self.q, X.shape[-1] // self.q))


@eqx.filter_jit
def _joint(acquisition: AbstractWorth, X: Float[Array, "*n q d"]) -> Float[Array, "*n"]:
    q, d = X.shape[-2:]
    of = lambda rows: acquisition.of(rows.reshape(-1, q, d))
    return map_rows(of, X.reshape(-1, q * d), acquisition.entries(q, d, X.dtype)).reshape(X.shape[:-2])


def samples_of(paths: Any, X: Float[Array, "n q d"]) -> Float[Array, "s n q"]:
    """Values of all paths, their axes made one."""
    axes, _ = axes_of(paths, X.shape[-1], X.dtype)
    return paths(X).reshape(math.prod(axes), *X.shape[:-1])


def gain_of(paths: Any, X: Float[Array, "n q d"], maximise: bool) -> Float[Array, "s n q"]:
    return samples_of(paths, X) if maximise else -samples_of(paths, X)


def largest(values: Array, axis: int) -> Array:
    """The maximum along an axis, with the derivative of one entry. That of `jnp.max` finds the entry by comparing values, and
    is NaN where compiled code computes them twice and rounds them differently."""
    place = jnp.expand_dims(jnp.argmax(values, axis=axis), axis)
    return jnp.squeeze(jnp.take_along_axis(values, place, axis=axis), axis)


def deviation(values: Float[Array, "s ..."]) -> Float[Array, "..."]:
    """The standard deviation over paths, kept from 0 by the rounding unit."""
    eps, tiny = jnp.finfo(values.dtype).eps, jnp.finfo(values.dtype).tiny
    # A third of the range of exponents, so that quotients by it have squares.
    floor = eps**2 * jnp.mean(jax.lax.stop_gradient(values) ** 2, axis=0) + tiny ** (2 / 3)
    return jnp.sqrt(jnp.var(values, axis=0) + floor)


def fat_softplus(z: Float[Array, "..."]) -> Float[Array, "..."]:
    """The positive part made smooth, log(1 + eᶻ) + 0.1/(1 + z²), with a tail that falls as 1/z²: increasing and convex."""
    return jax.nn.softplus(z) + _TAIL / (1 + z * z)


def probability(values: Float[Array, "s ..."], bandwidth: Array | None) -> Float[Array, "s ..."]:
    """Whether each value is above 0, made smooth: Φ(value / h)."""
    return jax.scipy.stats.norm.cdf(_in_bandwidths(values, bandwidth))


def log_probability(values: Float[Array, "s ..."], bandwidth: Array | None) -> Float[Array, "s ..."]:
    """The logarithm of the same, which has a derivative wherever the value is."""
    return jax.scipy.special.log_ndtr(_in_bandwidths(values, bandwidth))


def log_mean(logs: Float[Array, "s ..."]) -> Float[Array, "..."]:
    """The logarithm of the mean over paths."""
    return jax.nn.logsumexp(logs, axis=0) - math.log(logs.shape[0])


def _in_bandwidths(values: Float[Array, "s ..."], bandwidth: Array | None) -> Float[Array, "s ..."]:
    s = values.shape[0]
    if bandwidth is not None:
        h = jnp.broadcast_to(bandwidth.astype(values.dtype), values.shape[1:])
    elif s == 1:
        raise ValueError("`bandwidth` must be given where there is one path only.")
    else:
        h = deviation(values) * s ** (-1 / 3)
    return values / h[None]
