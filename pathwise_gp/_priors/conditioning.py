"""The one solve of a posterior, and what may be wrong with it."""

import abc
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .. import _checks
from .._functionals import AbstractFunctional
from .._numerics.solution import Report
from .._solvers import AbstractSolver, Prepared
from .base import AbstractPrior
from .scales import Scales, scales_of


class AbstractOthers(eqx.Module):
    """More right-hand sides of the system that y is solved with."""

    @abc.abstractmethod
    def __call__(
        self, L: AbstractFunctional, residual: Float[Array, "n"], noise: Float[Array, "n"]
    ) -> Float[Array, "s n"]:
        """From what was observed, y less the mean there, and all that was added to the diagonal."""


class Conditioned(NamedTuple):
    """What conditioning computes, and what may be wrong with it.

    **Fields:** `prepared`: the system; `coefficients`; `of_others`: the solutions of what else was asked for, or None;
    `report`: of iterations; `misses`: what the posterior mean is off by, for want of noise; `contradicts`: whether that is
    too much, of each point, and `contradictory`, of any; `infinite`: whether a coefficient is not finite; `scales`: where
    they were asked for.
    """

    prepared: Prepared
    coefficients: Float[Array, "n"]
    of_others: Float[Array, "s n"] | None
    report: Report | None
    misses: Float[Array, "n"]
    contradicts: Bool[Array, "n"]
    contradictory: Bool[Array, ""]
    infinite: Bool[Array, ""]
    scales: Scales | None


@eqx.filter_jit
def solve(
    prior: AbstractPrior,
    y: Float[Array, "n"],
    noise_var: Float[Array, "..."],
    mask: Bool[Array, "n"] | None,
    solver: AbstractSolver,
    look_at_scales: bool,
    others: "AbstractOthers | None" = None,
    start: Float[Array, "s1 n"] | None = None,
) -> Conditioned:
    """One solve for y, and for what `others` makes of it, from a `start` for all of these."""
    L = prior.functional
    prepared = solver.prepare(prior.system(L, noise_var, mask))
    residual = y - prior.mean_at(L)
    noise = prior.noise_at(L, noise_var) + prepared.jitter
    if others is None:
        first = None if start is None else start[0]
        (coefficients, report), of_others = prepared.solution.solved(residual, first), None
    else:
        all_of_them = jnp.concatenate([residual[None, :], others(L, residual, noise)])
        together, report = prepared.solution.solved(all_of_them, start)
        coefficients, of_others = together[0], together[1:]
    in_units = in_deviations(residual, prepared.scale, mask)
    misses, contradicts = contradictions(prepared.added, prepared.scale, noise, coefficients, jnp.max(in_units))
    infinite = ~jnp.all(jnp.isfinite(coefficients))
    infinite = infinite if of_others is None else infinite | ~jnp.all(jnp.isfinite(of_others))
    scales = _scales(prior, L, in_units, mask) if look_at_scales else None
    return Conditioned(
        prepared, coefficients, of_others, report, misses, contradicts, jnp.any(contradicts), infinite, scales
    )


# Of so many points whether any two are correlated is asked of so many alone, beside all.
_MANY, _SOME = 4096, 256


def _scales(
    prior: AbstractPrior, L: AbstractFunctional, in_units: Float[Array, "n"], mask: Bool[Array, "n"] | None
) -> Scales:
    seen = mask
    if L.n_each is not None:
        # Outputs are correlated wherever points are: one of them says whether points are.
        seen = jnp.ones(L.size, bool) if mask is None else mask
        L, mask = L.take(jnp.arange(0, L.size, L.n_each)), jnp.any(seen.reshape(-1, L.n_each), axis=1)
    if L.size <= _MANY or not L.one_by_one:
        return scales_of(in_units, L.gram(prior.kernel), mask, seen=seen)
    # Spread over those that were observed.
    there = jnp.ones(L.size, bool) if mask is None else mask
    rows = jnp.argsort(~there, stable=True)[jnp.arange(_SOME) * jnp.sum(there) // _SOME]
    K = L.take(rows).cross(prior.kernel, L)
    return scales_of(in_units, K, mask, rows, L.diagonal(prior.kernel), seen)


def in_deviations(
    residual: Float[Array, "*t n"], variance: Float[Array, "n"], mask: Bool[Array, "n"] | None
) -> Float[Array, "*t n"]:
    """How far observations are from the prior mean, in standard deviations; 0 for those that were not made."""
    there = variance > 0 if mask is None else mask & (variance > 0)
    deviation = jnp.sqrt(jnp.where(there, variance, jnp.ones_like(variance)))
    there, deviation = (jnp.broadcast_to(values, residual.shape) for values in (there, deviation))
    return jnp.abs(jnp.where(there, residual / deviation, jnp.zeros_like(residual)))


def contradictions(
    added: Float[Array, "n"],
    scale: Float[Array, "n"],
    noise: Float[Array, "n"],
    coefficients: Float[Array, "*t n"],
    furthest: Float[Array, ""],
) -> tuple[Float[Array, "n"], Bool[Array, "n"]]:
    """What the posterior mean is off by at each point, for want of noise, and whether that is too much where there is none.

    `added` is what the factorisation needed of `noise`, which is all that was added, `scale` the variance of each point, and
    `furthest` the largest observation in standard deviations.
    """
    # The posterior mean misses y by (noise + jitter) α. What no noise explains of that is small, of the order of √added,
    # where there is a function of this kernel through all y, and of the order of y where there is none.
    misses = added * jnp.max(jnp.abs(coefficients.reshape(-1, coefficients.shape[-1])), axis=0)
    step = jnp.max(jnp.where(scale > 0, added / scale, jnp.zeros_like(scale)))
    least = (_MISS + _MISS_PER_STEP * jnp.sqrt(step)) * furthest * jnp.sqrt(scale)
    return misses, (misses > least) & (noise - added <= 0)


# Of the largest observation in units of its standard deviation: by so much may the mean miss one without noise, and by so
# much more for each standard deviation that was added.
_MISS, _MISS_PER_STEP = 0.01, 10.0


def contradiction(contradicts: Bool[Array, "n"], misses: Float[Array, "n"], name: str) -> str:
    """The error where the points `name` contradict each other."""
    where = ""
    if all(map(_checks.is_concrete, (contradicts, misses))) and np.any(contradicts):
        points = np.flatnonzero(contradicts)
        shown = ", ".join(map(str, points[:8])) + (", …" if points.size > 8 else "")
        where = f" at point(s) {shown} of `{name}`, which the posterior mean misses by up to {np.max(misses):.3g}"
    return (
        f"`y` without noise contradicts itself or the kernel{where}: different values at (nearly) one point, or values that "
        "no function as smooth as those of this kernel takes. Give a `noise_var` or a `jitter`, remove repeated points, or "
        "use a rougher kernel or a shorter lengthscale."
    )
