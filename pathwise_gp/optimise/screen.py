"""What a screen of points says: the scales of the values, an order, and where to start."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def range_of(values: Float[Array, "s m"]) -> Float[Array, "s 1"]:
    """Largest less smallest finite value of each path; 1 where they are all the same."""
    seen = jnp.isfinite(values)
    top = jnp.max(jnp.where(seen, values, -jnp.inf), axis=1, keepdims=True)
    width = top - jnp.min(jnp.where(seen, values, jnp.inf), axis=1, keepdims=True)
    return jnp.where((width > 0) & jnp.isfinite(width), width, jnp.ones_like(width))


def violation_of(excess: list[Float[Array, "s m"]], like: Float[Array, "s m"]) -> Float[Array, "s m"]:
    """The largest amount by which a constraint is exceeded."""
    total = jnp.zeros_like(like)
    for g in excess:
        total = jnp.maximum(total, g)  # a NaN stays
    return total


def merit_of(values: Float[Array, "s m"], violation: Float[Array, "s m"]) -> Float[Array, "s m"]:
    """An order in which what is feasible comes first, by its value, then the rest by its violation, and NaN last."""
    top = jnp.max(jnp.where(jnp.isfinite(values), values, -jnp.inf), axis=1, keepdims=True)
    top = jnp.where(jnp.isfinite(top), top, jnp.zeros_like(top))
    merit = jnp.where(violation > 0, top + violation, values)
    return jnp.where(jnp.isnan(values) | jnp.isnan(violation), jnp.inf, merit)


def first_of(
    violation: Float[Array, "s m"], values: Float[Array, "s m"]
) -> tuple[Float[Array, "s"], Float[Array, "s"], Int[Array, "s"]]:
    """Of those of least violation the one of least value: both, and where it is. NaN comes last, and is taken for inf."""
    unknown = jnp.isnan(violation) | jnp.isnan(values)
    violation, values = (jnp.where(unknown, jnp.inf, a) for a in (violation, values))
    least = jnp.min(violation, axis=1)
    there = jnp.argmin(jnp.where(violation <= least[:, None], values, jnp.inf), axis=1)
    return least, jnp.take_along_axis(values, there[:, None], axis=1)[:, 0], there


def first_of_blocks(
    judge: Callable[[Int[Array, "b"]], Any], n: int, rows: int, like: Float[Array, "s"]
) -> tuple[Float[Array, "s"], Float[Array, "s"], Int[Array, "s"]]:
    """The same of n things, of which so many are judged at once: a function of their numbers gives `s b` of each."""
    n_blocks = -(-n // max(1, rows))
    rows = -(-n // n_blocks)
    starts = jnp.minimum(jnp.arange(n_blocks) * rows, n - rows)  # the last one overlaps the one before it

    def better(best: Any, start: Int[Array, ""]) -> tuple[Any, None]:
        violation, values, there = first_of(*judge(start + jnp.arange(rows)))
        lower = (violation < best[0]) | ((violation == best[0]) & (values < best[1]))
        new = (violation, values, start + there)
        return tuple(jnp.where(lower, a, b) for a, b in zip(new, best, strict=True)), None

    nothing = jnp.full_like(like, jnp.inf)
    best, _ = jax.lax.scan(better, (nothing, nothing, jnp.zeros(like.shape, starts.dtype)), starts)
    return best


def starts_of(design: Float[Array, "m d"], merit: Float[Array, "s m"], n_restarts: int) -> Float[Array, "s r d"]:
    """The best points of a design, each farther from those before it than points of the design are from each other."""
    m, d = design.shape
    apart = m ** (-2.0 / d)

    def next_best(order: Float[Array, "s m"], _: Any) -> tuple[Float[Array, "s m"], Int[Array, "s"]]:
        best = jnp.argmin(order, axis=1)
        square = jnp.sum((design[None, :, :] - design[best][:, None, :]) ** 2, axis=2)
        # What is near comes after all else; what was taken, last of all.
        finite = jnp.where(jnp.isfinite(order), order, jnp.zeros_like(order))
        behind = 1 + jnp.max(finite, axis=1, keepdims=True) - jnp.min(finite, axis=1, keepdims=True)
        order = jnp.where(square < apart, order + behind, order)
        return order.at[jnp.arange(order.shape[0]), best].set(jnp.inf), best

    _, chosen = jax.lax.scan(next_best, merit, length=n_restarts)
    return design[chosen.T]
