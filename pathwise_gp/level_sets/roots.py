"""Where paths of one input cross a level."""

import math
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .. import _checks
from .._types import AnyArray, Number
from .arguments import as_box, as_level, several

Function = Callable[..., Any]
Direction = Literal["up", "down"] | None

# Halvings that bring any interval to the rounding unit, with as many steps of Newton's method between them.
_MOST_STEPS = 120


class Crossings(eqx.Module):
    """Where paths cross a level, in ascending order; `k` places for each path.

    **Fields:**

    - `locations`: the inputs, `*s k`; NaN in places that are not taken.
    - `upward`: whether the path goes up there, `*s k`; False in places that are not taken.
    - `count`: how many crossings the scan found, `*s`, which may be more than k.
    - `truncated`: whether they were more, `*s`: then the first k are here.
    """

    locations: Float[Array, "*s k"]
    upward: Bool[Array, "*s k"]
    count: Int[Array, "*s"]
    truncated: Bool[Array, "*s"]

    @property
    def mask(self) -> Bool[Array, "*s k"]:
        """Which places are taken."""
        return _numbers(self.locations.shape) < self.count[..., None]


def crossings(
    paths: Function,
    level: Number,
    bounds: Float[AnyArray, "2"],
    n_scan: int = 256,
    max_crossings: int = 16,
    *,
    direction: Direction = None,
) -> Crossings:
    """All crossings of a level by each path of one input.

    Paths are evaluated on a grid; between two points of it on different sides of the level a root is found to rounding,
    by Newton's method inside a bracket that is halved where a step would not do. An even number of crossings between
    two neighbours of the grid stays unseen: for smooth paths a spacing of a tenth of the lengthscale leaves hardly any.
    A path that touches the level and turns back does not cross it.

    Roots follow the paths and the level: derivatives, of any order, are those of the implicit function, x′ = −∂_θf /
    ∂_x f. They are infinite at a tangency. The bounds have no derivative.

    **Arguments:**

    - `paths`: a callable that maps `*n 1` to `*s *n`. Each path is evaluated at places of its own by the method `paired`;
      without one, one after the other (`paths[i]`); without that, all at the places of all.
    - `level`: a scalar, in units of the values.
    - `bounds`: where to look, from and to, `2`.
    - `n_scan`: points of the grid.
    - `max_crossings`: places in the result.
    - `direction`: `"up"` or `"down"` for crossings in that direction only.

    **Returns:** the crossings; `truncated` says where there were more than places.

    **Raises:** ValueError where an argument has another shape or value, or a path is not finite on the grid (at run time
    under jit).
    """
    level, bounds = as_level(level), as_box(bounds, (2,), "from and to")
    n_scan, k = several(n_scan, "n_scan"), _checks.count(max_crossings, "max_crossings")
    if direction not in ("up", "down", None):
        raise ValueError(f'`direction` must be "up", "down" or None; got {direction!r}.')
    found, finite = _crossings(paths, level, bounds, n_scan, k, direction)
    locations = _checks.require(finite, found.locations, "`paths` must be finite on the grid; got NaN or inf.")
    return Crossings(locations, found.upward, found.count, found.truncated)


def first_crossing(
    paths: Function,
    level: Number,
    bounds: Float[AnyArray, "2"],
    n_scan: int = 256,
    *,
    direction: Direction = None,
) -> Float[Array, "*s"]:
    """The first input at which each path crosses a level: a first-passage time. Infinite where it does not in the bounds.

    **Arguments:**, **Raises:** as for `crossings`. **Returns:** the inputs, `*s`, differentiable in paths and level.
    """
    found = crossings(paths, level, bounds, n_scan, 1, direction=direction)
    first = found.locations[..., 0]
    return jnp.where(found.mask[..., 0], first, jnp.full_like(first, jnp.inf))


@eqx.filter_jit
def _crossings(
    paths: Function, level: Float[Array, ""], bounds: Float[Array, "2"], n_scan: int, k: int, direction: Direction
) -> tuple[Crossings, Bool[Array, ""]]:
    grid = jax.lax.stop_gradient(jnp.linspace(bounds[0], bounds[1], n_scan))
    values = jax.lax.stop_gradient(paths(grid[:, None]))
    if values.ndim == 0 or values.shape[-1] != n_scan:
        raise ValueError(f"`paths` must map inputs `n 1` to values `*s n`; of {n_scan} inputs it makes {values.shape}.")
    level = level.astype(values.dtype)
    above = _sides(values - level)
    up, down = ~above[..., :-1] & above[..., 1:], above[..., :-1] & ~above[..., 1:]
    wanted = {"up": up, "down": down, None: up | down}[direction]
    count = jnp.sum(wanted, axis=-1)
    none = n_scan - 1  # one more than the last cell of the grid
    cells = jnp.sort(jnp.where(wanted, _numbers(wanted.shape), none), axis=-1)[..., :k]
    cells = jnp.concatenate([cells, jnp.full((*count.shape, max(k - none, 0)), none)], axis=-1)
    taken = cells < none
    cells = jnp.where(taken, cells, 0)
    upward = jnp.take_along_axis(up, cells, axis=-1) & taken

    def one_place(place: Any) -> Float[Array, "*s"]:
        cell, upward, taken = place
        low, high = grid[cell].astype(values.dtype), grid[cell + 1].astype(values.dtype)
        ends = [jnp.take_along_axis(values, (cell + i)[..., None], axis=-1)[..., 0] - level for i in range(2)]
        start = low + (high - low) * jnp.where(taken, ends[0] / (ends[0] - ends[1]), jnp.zeros_like(low))
        # A place that is not taken has its own input as the residual: nothing there can spoil a derivative.
        residual = lambda x: jnp.where(taken, _paired(paths, x[..., None, None])[..., 0] - level, x)
        solve = lambda f, x: _bracketed_root(f, x, low, high, upward, taken)
        # Each residual depends on its own place only: the linearisation is a product with its diagonal.
        divide = lambda linear, y: y / linear(jnp.ones_like(y))
        return jax.lax.custom_root(residual, start, solve, divide)

    # One place of all paths after the other: those that no path takes cost nothing.
    places = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), (cells, upward, taken))
    x = jnp.moveaxis(jax.lax.map(one_place, places), 0, -1)
    locations = jnp.where(taken, x, jnp.full_like(x, jnp.nan))
    return Crossings(locations, upward, count, count > k), jnp.all(jnp.isfinite(values))


def _numbers(shape: tuple[int, ...]) -> Int[Array, "*s n"]:
    """0, 1, … along the last axis."""
    return jax.lax.broadcasted_iota(int, shape, len(shape) - 1)


def _sides(difference: Float[Array, "*s n"]) -> Bool[Array, "*s n"]:
    """Whether a path is above the level. Where it is on it, as before; at the beginning, as later."""
    off = difference != 0
    last = jax.lax.cummax(jnp.where(off, _numbers(off.shape), -1), axis=off.ndim - 1)
    at = jnp.where(last < 0, jnp.argmax(off, axis=-1, keepdims=True), last)
    return jnp.take_along_axis(difference > 0, at, axis=-1)


def _bracketed_root(
    f: Function,
    x: Float[Array, "*s"],
    low: Float[Array, "*s"],
    high: Float[Array, "*s"],
    upward: Bool[Array, "*s"],
    taken: Bool[Array, "*s"],
) -> Float[Array, "*s"]:
    """Newton's method, where its steps stay in the bracket and shrink by half; else the bracket is halved."""
    eps = jnp.finfo(low.dtype).eps
    resolution = 2 * eps * jnp.maximum(jnp.abs(low), jnp.abs(high))
    # The error that is left by a step of Newton's method is of the order of its square.
    enough = eps**0.5 * (high - low)

    def going(state: Any) -> Bool[Array, ""]:
        return jnp.any(~state[-2]) & (state[-1] < _MOST_STEPS)

    def advance(state: Any) -> Any:
        low, high, x, last, done, step = state
        value, slope = jax.jvp(f, (x,), (jnp.ones_like(x),))
        beyond = (value > 0) == upward  # the root is to the left
        low, high = jnp.where(beyond, low, x), jnp.where(beyond, x, high)
        newton, middle = x - value / slope, low + (high - low) / 2
        good = (newton >= low) & (newton <= high) & (jnp.abs(newton - x) <= last / 2)
        following = jnp.where(value == 0, x, jnp.where(good, newton, middle))
        moved = jnp.abs(following - x)
        following = jnp.where(done, x, following)
        done = done | (moved <= resolution) | (good & (moved <= enough))
        return low, high, following, moved, done, step + 1

    return jax.lax.while_loop(going, advance, (low, high, x, high - low, ~taken, jnp.zeros((), int)))[2]


def _paired(paths: Function, X: Float[Array, "*s k 1"]) -> Float[Array, "*s k"]:
    """Each path at places of its own."""
    paired = getattr(paths, "paired", None)
    if paired is not None:
        return paired(X)
    if X.ndim == 2:
        return paths(X)
    if hasattr(paths, "__getitem__"):
        one_path = lambda pair: _paired(paths[pair[0]], pair[1])  # pyright: ignore[reportIndexIssue]
        return jax.lax.map(one_path, (jnp.arange(X.shape[0]), X))
    flat = X.reshape(math.prod(X.shape[:-2]), X.shape[-2], 1)
    diagonal = lambda i, x: paths(x).reshape(flat.shape[:2])[i]
    return jax.lax.map(lambda pair: diagonal(*pair), (jnp.arange(flat.shape[0]), flat)).reshape(X.shape[:-1])
