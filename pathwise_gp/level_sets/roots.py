"""Where paths of one input cross a level."""

import math
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .. import _checks
from .._numerics.pointwise import as_array, real, require_scalar
from .._paths.paired import at_own_inputs
from .._types import AnyArray, Number
from .arguments import as_box, as_level, require_finite, several

Function = Callable[..., Any]
Direction = Literal["up", "down"] | None

# Halvings that bring any interval to the rounding unit, with as many steps of Newton's method between them.
_MOST_STEPS = 120


class Crossings(eqx.Module):
    """Where paths cross a level, in ascending order; `k` places for each path.

    **Fields:**

    - `locations`: the inputs, `*s k`; NaN in places that are not taken.
    - `upward`: whether the path goes up there, `*s k`; False in places that are not taken. It goes by the sides of the level
      on which the neighbours on the grid lie: where a path crosses thrice between them it is the direction of all three
      together, and may not be that of the one at `locations`.
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
    two neighbours of the grid stays unseen, and an odd number counts as one: for smooth paths a spacing of a tenth of the
    lengthscale leaves hardly any. A path that touches the level and turns back does not cross it.

    Roots follow the paths and the level: derivatives, of any order, are those of the implicit function, x′ = −∂_θf /
    ∂_x f. They are infinite at a tangency. The bounds have no derivative.

    **Arguments:**

    - `paths`: a callable that maps `*n 1` to `*s *n`. Each path is evaluated at places of its own by the method `paired`;
      without one, all at the places of all.
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
    return require_finite(finite, found, "`paths` on the grid")


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
    require_scalar(paths, grid[:, None])
    values = jax.lax.stop_gradient(real(paths)(grid[:, None]))
    # Somewhere within the bounds, and at no likely place of a singularity, as their ends and their middle are.
    somewhere = (grid[0] + (math.sqrt(5) - 1) / 2 * (grid[-1] - grid[0])).astype(values.dtype)
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

    # `paired` is a method of the paths themselves.
    function = paths if hasattr(paths, "paired") else real(paths)

    def one_place(place: Any) -> Float[Array, "*s"]:
        cell, upward, taken = place
        low, high = grid[cell].astype(values.dtype), grid[cell + 1].astype(values.dtype)
        ends = [jnp.take_along_axis(values, (cell + i)[..., None], axis=-1)[..., 0] - level for i in range(2)]
        start = low + (high - low) * jnp.where(taken, ends[0] / (ends[0] - ends[1]), jnp.zeros_like(low))

        def residual(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
            # A place that is not taken has its own input as the residual. The path is evaluated there too, and an infinite
            # derivative times the zero of what is not chosen would be NaN.
            own = at_own_inputs(function, jnp.where(taken, x, somewhere)[..., None, None], count.shape)[..., 0]
            return jnp.where(taken, as_array(own, values, "paths") - level, x)

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
    """Newton's method, where its steps stay in the bracket and shrink by half; else the bracket is halved.

    It ends where a step is below the resolution, or the next one will be: where convergence is quadratic, steps h and Ch²
    are followed by C(Ch²)², the second times the square of their ratio. That is believed after two steps of Newton's method
    in a row. At a root of multiplicity m, which is 3 or more where a path crosses, steps shrink by 1 − 1/m only, and no
    two in a row pass.
    """
    eps = jnp.finfo(low.dtype).eps
    resolution = 2 * eps * jnp.maximum(jnp.abs(low), jnp.abs(high))

    def going(state: Any) -> Bool[Array, ""]:
        return jnp.any(~state[-2]) & (state[-1] < _MOST_STEPS)

    def advance(state: Any) -> Any:
        low, high, x, last, was_good, done, step = state
        value, slope = jax.jvp(f, (x,), (jnp.ones_like(x),))
        beyond = (value > 0) == upward  # the root is to the left
        low, high = jnp.where(beyond, low, x), jnp.where(beyond, x, high)
        newton, middle = x - value / slope, low + (high - low) / 2
        good = (newton >= low) & (newton <= high) & (jnp.abs(newton - x) <= last / 2)
        following = jnp.where(value == 0, x, jnp.where(good, newton, middle))
        moved = jnp.abs(following - x)
        following = jnp.where(done, x, following)
        ratio = moved / last
        done = done | (moved <= resolution) | (good & was_good & (moved * ratio * ratio <= resolution))
        return low, high, following, moved, good, done, step + 1

    start = (low, high, x, high - low, jnp.zeros_like(taken), ~taken, jnp.zeros((), int))
    return jax.lax.while_loop(going, advance, start)[2]
