"""Accelerated block projections: each step solves a block of the equations A x = b exactly, and two averages of the iterates
carry on what it leaves (Gower & Richtárik 2015; Tu et al. 2017, algorithm 2; Rathore et al. 2025).

With I the rows of a block, H their block of A, and r the residual of y,

    d ← H⁻¹r_I,  w ← y + d,  v ← β v + (1 − β) y + γ d,  y ← α v + (1 − α) w,

for ν = n/b, β = 1 − √(μ/ν), γ = 1/√(μν), α = 1/(1 + γν). The residuals of all three are carried: what they take is the
product of A with d, over the rows of the block alone. In a pass each block is visited once, in a fresh random order.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._types import Key
from .iterations import Found, in_rounds, Product, Progress
from .linalg import inner


class Blocks(eqx.Module):
    """Blocks of rows that cover A; the last one may overlap the one before it.

    **Fields:** `starts`: the first row of each, `j`; `inverses`: of the blocks on the diagonal, `j b b`; `mu`: μ, at
    least what a random block brings forward the directions of the smallest eigenvalues, less than b/n; `nu`: ν = n/b.
    """

    starts: Int[Array, "j"]
    inverses: Float[Array, "j b b"]
    mu: Float[Array, ""]
    nu: Float[Array, ""]


class _Iterates(NamedTuple):
    """w, v and y above, with the residuals of each, `s n`."""

    w: Float[Array, "s n"]
    v: Float[Array, "s n"]
    y: Float[Array, "s n"]
    of_w: Float[Array, "s n"]
    of_v: Float[Array, "s n"]
    of_y: Float[Array, "s n"]


class _Passes(NamedTuple):
    """**Fields:** `at`: the best pass; `iterates`; `energy` of the best pass; `caution`: by which ν is multiplied."""

    at: Progress
    iterates: _Iterates
    energy: Float[Array, ""]
    caution: Float[Array, ""]


def block_projections(
    matmul: Product,
    from_block: Callable[[Float[Array, "s b"], Int[Array, ""]], Float[Array, "s n"]],
    B: Float[Array, "s n"],
    blocks: Blocks,
    tolerance: float,
    max_passes: int,
    key: Key,
    start: Float[Array, "s n"] | None = None,
) -> Found:
    """`in_rounds`, of block projections; `from_block` gives A v for v that are 0 outside of a block, from its start on."""
    b = blocks.inverses.shape[1]

    def visit(iterates: _Iterates, j: Int[Array, ""], caution: Float[Array, ""]) -> _Iterates:
        w, v, y, of_w, of_v, of_y = iterates
        mu, nu, i = blocks.mu, caution * blocks.nu, blocks.starts[j]
        beta, gamma = 1 - jnp.sqrt(mu / nu), 1 / jnp.sqrt(mu * nu)
        alpha = 1 / (1 + gamma * nu)
        here = lambda Z: jax.lax.dynamic_slice_in_dim(Z, i, b, axis=1)
        put = lambda Z, d: jax.lax.dynamic_update_slice_in_dim(Z, here(Z) + d, i, axis=1)
        d = inner(here(of_y), blocks.inverses[j])  # which is symmetric
        Ad = from_block(d, i)
        w, of_w = put(y, d), of_y - Ad
        v, of_v = put(beta * v + (1 - beta) * y, gamma * d), beta * of_v + (1 - beta) * of_y - gamma * Ad
        y, of_y = alpha * v + (1 - alpha) * w, alpha * of_v + (1 - alpha) * of_w
        return _Iterates(w, v, y, of_w, of_v, of_y)

    def going(p: _Passes) -> Bool[Array, ""]:
        return (p.at.largest > tolerance) & (p.at.passes < max_passes)

    def run(B: Float[Array, "s n"], at: Progress) -> Progress:
        def energy_of(x: Float[Array, "s n"], residual: Float[Array, "s n"]) -> Float[Array, ""]:
            return -0.5 * jnp.sum(x * (B + residual))

        def a_pass(p: _Passes) -> _Passes:
            order = jax.random.permutation(jax.random.fold_in(key, p.at.passes), blocks.starts.shape[0])
            iterates, _ = jax.lax.scan(lambda z, j: (visit(z, j, p.caution), None), p.iterates, order)
            energy = energy_of(iterates.w, iterates.of_w)
            # ½ xᵀAx − bᵀx falls with each plain step. Where it has not (or is NaN) the averages were too bold: from the last
            # pass on again, and not so bold.
            worse = ~(energy <= p.energy)
            choose = lambda old, new: jnp.where(worse, old, new)
            x, residual = choose(p.at.x, iterates.w), choose(p.at.residual, iterates.of_w)
            same = _Iterates(x, x, x, residual, residual, residual)
            return _Passes(
                p.at.after_a_pass(x, residual),
                jax.tree.map(choose, same, iterates),
                choose(p.energy, energy),
                jnp.where(worse, 2 * p.caution, p.caution),
            )

        x, residual = at.x, at.residual
        same = _Iterates(x, x, x, residual, residual, residual)
        first = _Passes(at, same, energy_of(x, residual), jnp.ones_like(blocks.mu))
        return jax.lax.while_loop(going, a_pass, first).at

    return in_rounds(matmul, B, tolerance, max_passes, start, run)
