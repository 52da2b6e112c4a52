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
    """Blocks of rows that make up A.

    **Fields:** `inverses`: of the blocks on the diagonal, `j b b`; `mu`: μ, at
    least what a random block brings forward the directions of the smallest eigenvalues, less than b/n; `nu`: ν = n/b.
    """

    inverses: Float[Array, "j b b"]
    mu: Float[Array, ""]
    nu: Float[Array, ""]


class _Iterates(NamedTuple):
    """w, v and y above, with the residuals of each, `s j b`."""

    w: Float[Array, "s j b"]
    v: Float[Array, "s j b"]
    y: Float[Array, "s j b"]
    of_w: Float[Array, "s j b"]
    of_v: Float[Array, "s j b"]
    of_y: Float[Array, "s j b"]


class _Passes(NamedTuple):
    """**Fields:** `at`: the best pass; `iterates`; `energy` of the best pass; `caution`: by which ν is multiplied."""

    at: Progress
    iterates: _Iterates
    energy: Float[Array, ""]
    caution: Float[Array, ""]


def block_projections(
    matmul: Product,
    from_block: Callable[[Float[Array, "s b"], Int[Array, ""]], Float[Array, "s j b"]],
    B: Float[Array, "s j b"],
    blocks: Blocks,
    tolerance: float,
    max_passes: int,
    key: Key,
    start: Float[Array, "s j b"] | None = None,
) -> Found:
    """`in_rounds`, of block projections; `from_block` gives A v for v that are 0 outside of the block with a number."""

    def visit(iterates: _Iterates, i: Int[Array, ""], caution: Float[Array, ""]) -> _Iterates:
        w, v, y, of_w, of_v, of_y = iterates
        mu, nu = blocks.mu, caution * blocks.nu
        beta, gamma = 1 - jnp.sqrt(mu / nu), 1 / jnp.sqrt(mu * nu)
        alpha = 1 / (1 + gamma * nu)
        put = lambda Z, d: Z.at[:, i].add(d)
        d = inner(of_y[:, i], blocks.inverses[i])  # which is symmetric
        Ad = from_block(d, i)
        w, of_w = put(y, d), of_y - Ad
        v, of_v = put(beta * v + (1 - beta) * y, gamma * d), beta * of_v + (1 - beta) * of_y - gamma * Ad
        y, of_y = alpha * v + (1 - alpha) * w, alpha * of_v + (1 - alpha) * of_w
        return _Iterates(w, v, y, of_w, of_v, of_y)

    def going(p: _Passes) -> Bool[Array, ""]:
        return (p.at.largest > tolerance) & (p.at.passes < max_passes)

    def run(B: Float[Array, "s j b"], at: Progress) -> Progress:
        def energy_of(x: Float[Array, "s j b"], residual: Float[Array, "s j b"]) -> Float[Array, ""]:
            return -0.5 * jnp.sum(x * (B + residual))

        def a_pass(p: _Passes) -> _Passes:
            order = jax.random.permutation(jax.random.fold_in(key, p.at.passes), blocks.inverses.shape[0])
            iterates, _ = jax.lax.scan(lambda z, i: (visit(z, i, p.caution), None), p.iterates, order)
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
