"""Descent to local minima in the unit cube, from many starts at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._progress import ProgressBar

# Pairs that are kept, the longest step in units of the box, and steps in a row that may gain nothing.
_MEMORY, _LONGEST, _IDLE = 10, 0.3, 5


class _Lane(NamedTuple):
    """A start of the descent: where it is, what it tries next, and the pairs (s, y) of L-BFGS, the newest last."""

    point: Float[Array, "d"]
    value: Float[Array, ""]
    gradient: Float[Array, "d"]
    trial: Float[Array, "d"]
    direction: Float[Array, "d"]
    step: Float[Array, ""]
    scale: Float[Array, ""]
    moves: Float[Array, "m d"]
    changes: Float[Array, "m d"]
    idle: Int[Array, ""]
    going: Bool[Array, ""]


def descend(
    function: Callable[..., Any],
    starts: Float[Array, "s r d"],
    tolerance: Float[Array, ""],
    max_steps: int,
    bar: ProgressBar | None = None,
) -> tuple[Float[Array, "s r d"], Float[Array, "s r"]]:
    """Local minima in the unit cube, and the largest derivative that is left there: L-BFGS on the coordinates that no bound
    holds, until that is as small as the tolerance, or nothing is gained.

    All starts take an evaluation together, each as the next step of its own search: a new direction or a shorter step.
    """
    over = lambda f: jax.vmap(jax.vmap(f))

    def value_and_gradient(U: Float[Array, "s r d"]) -> tuple[Float[Array, "s r"], Float[Array, "s r d"]]:
        values, pull = jax.vjp(function, U)
        # Each value depends on its own point alone. The search is not differentiated, in what functions close over neither.
        return jax.lax.stop_gradient((values, pull(jnp.ones_like(values))[0]))

    def going(state: tuple[_Lane, Any]) -> Bool[Array, ""]:
        return (state[1] < max_steps) & jnp.any(state[0].going)

    def begin(point: Float[Array, "d"]) -> _Lane:
        # Its first trial is where it starts.
        zero, none = jnp.zeros_like(point), jnp.zeros((_MEMORY, point.size), point.dtype)
        unknown, one = jnp.full_like(point[0], jnp.inf), jnp.ones_like(point[0])
        return _Lane(point, unknown, zero, point, zero, one, one, none, none, jnp.zeros((), int), jnp.asarray(True))

    def left(lane: _Lane) -> Float[Array, ""]:
        return jnp.where(jnp.isfinite(lane.value), _slope(lane.point, lane.gradient), jnp.inf)

    def advance(state: tuple[_Lane, Any]) -> tuple[_Lane, Any]:
        lanes, number = state
        lanes = over(_advance)(lanes, *value_and_gradient(lanes.trial))
        lanes = lanes._replace(going=lanes.going & (over(left)(lanes) > tolerance))
        if bar is not None:
            last, still = ~going((lanes, number + 1)), jnp.sum(lanes.going)
            bar.report(number + 1, last, f"{{}} of {lanes.going.size} searches going on", still)
        return lanes, number + 1

    lanes, _ = jax.lax.while_loop(going, advance, (over(begin)(starts), 0))
    return lanes.point, over(left)(lanes)


def _slope(u: Float[Array, "d"], g: Float[Array, "d"]) -> Float[Array, ""]:
    """The largest derivative that no bound holds."""
    held = ((u <= 0) & (g > 0)) | ((u >= 1) & (g < 0))
    return jnp.max(jnp.where(held, jnp.zeros_like(g), jnp.abs(g)))


def _advance(lane: _Lane, value: Float[Array, ""], gradient: Float[Array, "d"]) -> _Lane:
    """What follows from the value and the gradient at the trial point."""
    eps = jnp.finfo(value.dtype).eps
    first = jnp.isinf(lane.value)
    move, change = lane.trial - lane.point, gradient - lane.gradient
    slope = jnp.sum(lane.gradient * move)
    rounding = 4 * eps * jnp.maximum(jnp.abs(value), 1)
    lower = value <= lane.value + 1e-4 * jnp.minimum(slope, 0) + rounding
    # Where values say no more, derivatives still do (Hager & Zhang 2005).
    flatter = _slope(lane.trial, gradient) < 0.9 * _slope(lane.point, lane.gradient)
    taken = jnp.isfinite(value) & (lower | (flatter & (value <= lane.value + 100 * rounding)))
    idle = jnp.where(taken & ~flatter & (value > lane.value - rounding), lane.idle + 1, 0)
    # Taken: the next direction. What bends upwards is remembered; elsewhere steps grow.
    bend, size = jnp.sum(move * change), jnp.sum(change * change)
    curved = taken & (bend > 100 * eps * jnp.sqrt(size * jnp.sum(move * move)))
    push = lambda rows, row: jnp.where(curved, jnp.concatenate([rows[1:], row[None]]), rows)
    scale = jnp.where(curved, bend / jnp.where(curved, size, 1), jnp.where(taken, 4 * lane.scale, lane.scale))
    steepest = jnp.max(jnp.abs(gradient))
    scale = jnp.where(first, 0.1 / jnp.where(steepest > 0, steepest, 1), scale)
    pick = lambda new, old: jnp.where(taken, new, old)
    # Not taken: a shorter step by the parabola through what is known; in the end along the gradient.
    parabola = -0.5 * slope / (value - lane.value - slope)
    shorter = lane.step * jnp.where(jnp.isfinite(parabola), jnp.clip(parabola, 0.01, 0.5), 0.1)
    fresh = jnp.all(lane.moves == 0)
    nowhere = shorter * jnp.max(jnp.abs(lane.direction)) <= 4 * eps
    spent = ~taken & (first | nowhere | (~fresh & (shorter < 1e-4)))
    forget = lambda rows: jnp.where(spent, jnp.zeros_like(rows), rows)
    aimed = _aim(
        lane._replace(
            point=pick(lane.trial, lane.point),
            value=pick(value, lane.value),
            gradient=pick(gradient, lane.gradient),
            scale=jnp.where(spent, 0.1 * scale, scale),
            moves=forget(push(lane.moves, move)),
            changes=forget(push(lane.changes, change)),
            idle=idle,
            going=lane.going & ~(spent & fresh) & (idle < _IDLE) & (first | ~(taken & jnp.all(move == 0))),
        )
    )
    trial = jnp.clip(lane.point + shorter * lane.direction, 0, 1)
    retried = lane._replace(trial=trial, step=shorter, going=lane.going)
    following = jax.tree.map(lambda new, old: jnp.where(taken | spent, new, old), aimed, retried)
    return jax.tree.map(lambda new, old: jnp.where(lane.going, new, old), following, lane)


def _aim(lane: _Lane) -> _Lane:
    """The lane with a new direction: −H g on the free coordinates, and down the gradient on those at a bound."""
    u, g, zero = lane.point, lane.gradient, jnp.zeros_like(lane.gradient)
    near = jnp.minimum(0.01, jnp.max(jnp.abs(u - jnp.clip(u - lane.scale * g, 0, 1))))
    held = ((u <= near) & (g > 0)) | ((u >= 1 - near) & (g < 0))
    moves, changes = (jnp.where(held[None, :], 0, rows) for rows in (lane.moves, lane.changes))
    bends, sizes = jnp.sum(moves * changes, axis=1), jnp.sum(changes * changes, axis=1)
    kept = bends > 0
    inverse = jnp.where(kept, 1 / jnp.where(kept, bends, 1), 0)
    newest = jnp.max(jnp.where(kept, jnp.arange(_MEMORY), -1))
    scale = jnp.where(newest >= 0, bends[newest] / jnp.where(kept, sizes, 1)[newest], lane.scale)

    def down(q: Float[Array, "d"], pair: Any) -> tuple[Float[Array, "d"], Float[Array, ""]]:
        s, y, rho = pair
        along = rho * jnp.sum(s * q)
        return q - along * y, along

    def up(q: Float[Array, "d"], pair: Any) -> tuple[Float[Array, "d"], None]:
        s, y, rho, along = pair
        return q + s * (along - rho * jnp.sum(y * q)), None

    q, along = jax.lax.scan(down, jnp.where(held, zero, g), (moves, changes, inverse), reverse=True)
    q, _ = jax.lax.scan(up, scale * q, (moves, changes, inverse, along))
    longest = jnp.max(jnp.abs(q))
    q = q * jnp.minimum(1, _LONGEST / jnp.where(longest > 0, longest, 1))
    direction = -jnp.where(held, jnp.clip(lane.scale * g, -_LONGEST, _LONGEST), q)
    return lane._replace(direction=direction, trial=jnp.clip(u + direction, 0, 1), step=jnp.ones_like(lane.step))
