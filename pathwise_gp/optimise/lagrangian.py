"""Local minima under constraints."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._descent import descend
from .._progress import ProgressBar

# Of the augmented Lagrangian: rounds at most, the first weight of the penalty, and what it grows by where a round has not
# brought the violation down to a tenth.
_ROUNDS, _WEIGHT, _GROWTH, _ENOUGH = 20, 10.0, 10.0, 0.1


def augmented_lagrangian(
    evaluate: Callable[..., Any],
    starts: Float[Array, "s r d"],
    aim: Float[Array, ""],
    tolerance: Float[Array, ""],
    max_steps: int,
    progress: bool,
) -> tuple[Float[Array, "s r d"], Float[Array, "j s r"], Bool[Array, "s r"]]:
    """Points, multipliers and flags of min f(u) with g(u) ≤ 0: rounds of min f + Σ max(0, λ + ρ g)² / 2ρ, after each of which
    λ becomes max(0, λ + ρ g)."""
    excess = lambda U: jax.lax.stop_gradient(evaluate(U)[1])
    bar = ProgressBar(_ROUNDS, "round") if progress else None

    def going(state: Any) -> Bool[Array, ""]:
        *_, solved, number = state
        return (number < _ROUNDS) & ~jnp.all(solved)

    def round_(state: Any) -> Any:
        U, multipliers, weight, before, left, solved, number = state

        def lagrangian(U: Float[Array, "s r d"]) -> Float[Array, "s r"]:
            f, g = evaluate(U)
            shifted = jnp.maximum(multipliers + weight[None] * g, 0)
            return f + jnp.sum(shifted * shifted, axis=0) / (2 * weight)

        # Early rounds need no exact answers.
        target = jnp.maximum(aim, 0.1 ** (number + 1.0).astype(aim.dtype))
        moved, slope = descend(lagrangian, U, target, max_steps)
        g = excess(moved)
        updated = jnp.maximum(multipliers + weight[None] * g, 0)
        # How far complementarity and feasibility are from holding.
        off = jnp.max(jnp.abs(jnp.maximum(g, -multipliers / weight[None])), axis=0)
        stays = solved[None, :, :]
        grown = jnp.where((off > _ENOUGH * before) & (off > aim), weight * _GROWTH, weight)
        largest = jnp.asarray(1 / aim, weight.dtype)
        following = (
            jnp.where(solved[:, :, None], U, moved),
            jnp.where(stays, multipliers, updated),
            jnp.minimum(jnp.where(solved, weight, grown), largest),
            jnp.where(solved, before, off),
            jnp.where(solved, left, slope),
            solved | (jnp.maximum(slope, off) <= aim),
            number + 1,
        )
        if bar is not None:
            text = f"{{}} of {solved.size} searches solved"
            bar.report(number + 1, ~going(following), text, jnp.sum(following[-2]))
        return following

    weight = jnp.full(starts.shape[:2], _WEIGHT, starts.dtype)
    unsolved = jnp.zeros(weight.shape, bool)
    state = (
        starts,
        jnp.zeros_like(excess(starts)),
        weight,
        jnp.full_like(weight, jnp.inf),
        jnp.full_like(weight, jnp.inf),
        unsolved,
        0,
    )
    U, multipliers, _, off, slope, _, _ = jax.lax.while_loop(going, round_, state)
    return U, multipliers, jnp.maximum(slope, off) <= tolerance
