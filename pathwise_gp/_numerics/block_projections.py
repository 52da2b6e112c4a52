"""Accelerated block projections: each step solves a block of rows of A x = b exactly, and two averages of the iterates carry on
what is left (Gower & Richtárik 2015, algorithm 2; Tu et al. 2017; Rathore et al. 2025).

With I the rows of a block, H their block of A, and r the residual of y,

    d ← H⁻¹ r_I,  w ← y + d,  v ← β v + (1 − β) y + γ d,  y ← α v + (1 − α) w,

for ν = n / b, β = 1 − √(μ/ν), γ = 1/√(μν), α = 1/(1 + γν). The residuals of all three are carried: they take the product of A
with d, which is one pass over the rows of the block.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._types import Key
from .linalg import inner
from .conjugate_gradients import _worst as worst
from .solution import Report


class _Iterates(NamedTuple):
    """w, v and y above, with the residuals of each: `s n`."""

    w: Float[Array, "s n"]
    v: Float[Array, "s n"]
    y: Float[Array, "s n"]
    of_w: Float[Array, "s n"]
    of_v: Float[Array, "s n"]
    of_y: Float[Array, "s n"]


class _Passes(NamedTuple):
    """**Fields:** `at`; `w`, `residual` and `energy` of the best pass; `boldness`, by which ν is divided; how many `passes`;
    the `largest` residual; `history`."""

    at: _Iterates
    w: Float[Array, "s n"]
    residual: Float[Array, "s n"]
    energy: Float[Array, ""]
    caution: Float[Array, ""]
    passes: Int[Array, ""]
    largest: Float[Array, ""]
    history: Float[Array, "k 2"]


def block_projections(
    rows: Callable[[Int[Array, ""]], Float[Array, "b n"]],
    inverses: Float[Array, "j b b"],
    starts: Int[Array, "j"],
    diagonal: Float[Array, "n"],
    B: Float[Array, "s n"],
    mu: Float[Array, ""],
    tolerance: float,
    max_passes: int,
    key: Key,
    start: Float[Array, "s n"],
    residual: Float[Array, "s n"],
) -> tuple[Array, Array, Report]:
    (s, n), b = B.shape, inverses.shape[1]

    def visit(carry: tuple[_Iterates, Array], j: Int[Array, ""]) -> tuple[tuple[_Iterates, Array], None]:
        (w, v, y, rw, rv, ry), caution = carry
        nu = caution * n / b
        beta, gamma = 1 - jnp.sqrt(mu / nu), 1 / jnp.sqrt(mu * nu)
        alpha = 1 / (1 + gamma * nu)
        i = starts[j]
        block = lambda Z: jax.lax.dynamic_slice_in_dim(Z, i, b, axis=1)
        d = inner(block(ry), inverses[j])  # symmetric
        put = lambda Z, D: jax.lax.dynamic_update_slice_in_dim(Z, block(Z) + D, i, axis=1)
        U = put(
            jnp.matmul(d, rows(i), precision=jax.lax.Precision.HIGHEST),
            d * jax.lax.dynamic_slice_in_dim(diagonal, i, b)[None, :],
        )
        w, rw = put(y, d), ry - U
        v, rv = put(beta * v + (1 - beta) * y, gamma * d), beta * rv + (1 - beta) * ry - gamma * U
        y, ry = alpha * v + (1 - alpha) * w, alpha * rv + (1 - alpha) * rw
        return (_Iterates(w, v, y, rw, rv, ry), caution), None

    energy_of = lambda w, r: -0.5 * jnp.sum(w * (B + r))

    def a_pass(p: _Passes) -> _Passes:
        order = jax.random.permutation(jax.random.fold_in(key, p.passes), starts.shape[0])
        (at, _), _ = jax.lax.scan(visit, (p.at, p.caution), order)
        energy = energy_of(at.w, at.of_w)
        bad = ~(energy <= p.energy)
        choose = lambda old, new: jnp.where(bad, old, new)
        at = _Iterates(*(choose(p.w, z) for z in at[:3]), *(choose(p.residual, z) for z in at[3:]))
        largest, mean = worst(at.of_w)
        passes = p.passes + 1
        return _Passes(
            at,
            at.w,
            at.of_w,
            choose(p.energy, energy),
            jnp.where(bad, 2 * p.caution, p.caution),
            passes,
            largest,
            p.history.at[passes].set(jnp.stack([largest, mean])),
        )

    going = lambda p: (p.largest > tolerance) & (p.passes < max_passes)
    largest, mean = worst(residual)
    history = jnp.full((max_passes + 1, 2), jnp.nan, B.dtype).at[0].set(jnp.stack([largest, mean]))
    first = _Passes(
        _Iterates(start, start, start, residual, residual, residual),
        start,
        residual,
        energy_of(start, residual),
        jnp.ones_like(mu),
        jnp.zeros((), int),
        largest,
        history,
    )
    last = jax.lax.while_loop(going, a_pass, first)
    return last.w, last.residual, last
