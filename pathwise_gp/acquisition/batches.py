"""Batches from a list: one after the other, and then by exchanges."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..optimise import Choice
from ..optimise.problem import Problem, Sets, still
from ..optimise.screen import first_of, range_of, violation_of

# Of the best single choices, how many a batch is begun with.
_FIRSTS = 8


@eqx.filter_jit
def best_batch(
    acquisition: Any, choices: Float[Array, "m d"], q: int, constraints: tuple[Any, ...], joint: tuple[Any, ...]
) -> Choice:
    """The q choices that are worth most together: of a list whose rows each have a violation, and sets of them another."""
    (m, d), moving = choices.shape, acquisition
    acquisition, choices, constraints, joint = still((acquisition, choices, constraints, joint))
    problem = Problem(lambda X: 0 * X[..., 0], constraints, Sets(q, q, joint), d, choices.dtype)
    rolled = (jnp.arange(m)[:, None] + jnp.arange(q)[None, :]) % m
    _, found = problem.screen(choices[rolled])  # m q of what is alone, m 1 of what is joint
    scaled = [g[0] / range_of(g.reshape(1, -1)) for g in found]
    alone = violation_of([g[:, :1].T for g in scaled[: len(constraints)]], jnp.zeros((1, m), choices.dtype))[0]
    widths = [range_of(g.reshape(1, -1)) for g in found[len(constraints) :]]

    def together(sets: Int[Array, "n q"]) -> list[Float[Array, "1 n"]]:
        return [h(choices[sets])[None] / wide for h, wide in zip(joint, widths, strict=True)]

    def best_in(place: Any, batch: Int[Array, "j"]) -> tuple[Array, Array, Int[Array, ""], Array, Array]:
        """Least violation and largest value of the batch with another row in a place, and those of the batch itself."""
        sets = jnp.broadcast_to(batch, (m, batch.size)).at[:, place].set(jnp.arange(m))
        gain = acquisition.joint(choices[sets]).astype(choices.dtype)
        others = jnp.arange(batch.size) != place
        taken = jnp.any((batch[None, :] == jnp.arange(m)[:, None]) & others[None, :], axis=1)
        violation = jnp.max(alone[sets], axis=1)
        if batch.size == q:
            violation = violation_of([violation[None], *together(sets)], violation[None])[0]
        violation = jnp.where(taken | jnp.isnan(violation), jnp.inf, violation)
        least, loss, there = first_of(violation[None], jnp.where(taken, jnp.inf, -gain)[None])
        return least[0], -loss[0], there[0], violation[batch[place]], gain[batch[place]]

    def exchange(state: Any) -> Any:
        batch, place, idle = state
        violation, gain, there, violation_now, gain_now = best_in(place, batch)
        more = gain > gain_now + 8 * jnp.finfo(gain.dtype).eps * jnp.abs(gain_now)
        better = (more | jnp.isnan(gain_now)) & jnp.isfinite(gain)
        better = (violation < violation_now) | ((violation == violation_now) & better)
        better = better & (there != batch[place])
        return jnp.where(better, batch.at[place].set(there), batch), (place + 1) % q, jnp.where(better, 1, idle + 1)

    def complete(first: Int[Array, ""]) -> tuple[Int[Array, "q"], Float[Array, ""], Float[Array, ""]]:
        batch = first[None]
        for j in range(1, q):
            extended = jnp.concatenate([batch, batch[:1]])
            batch = extended.at[j].set(best_in(j, extended)[2])
        batch, *_ = jax.lax.while_loop(lambda state: state[2] < q, exchange, (batch, 0, 0))
        violation, gain = best_in(0, batch)[3:]
        return batch, violation, -gain

    gain, violation = acquisition.joint(choices[:, None]), alone
    if q == 1:
        violation = violation_of([violation[None], *together(jnp.arange(m)[:, None])], violation[None])[0]
    unknown = jnp.isnan(gain) | jnp.isnan(violation)
    firsts = jnp.lexsort((jnp.where(unknown, jnp.inf, -gain), jnp.where(unknown, jnp.inf, violation)))[:_FIRSTS]
    if q > 1:
        batches, violations, losses = jax.lax.map(complete, firsts)
        batch = batches[first_of(violations[None], losses[None])[2][0]]
    else:
        batch = firsts[:1]
    points = choices[batch]
    value = moving.joint(points)
    _, held = problem.at(points[None, None])
    feasible = jnp.all(jnp.asarray([jnp.all(g <= 0) for g in held], bool)) if held else jnp.asarray(True)
    return Choice(points, value, jnp.isfinite(value), feasible, batch)
