"""The one solve of a posterior, and what may be wrong with it."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .. import _checks
from .base import AbstractPrior
from .jitter import Settled
from .scales import Scales, scales_of


class Conditioned(NamedTuple):
    """What conditioning computes, and what may be wrong with it.

    **Fields:** `misses`: what the posterior mean is off by, for want of noise; `contradicts`: whether that is too much, of
    each point, and `contradictory`, of any; `infinite`: whether a coefficient is not finite; `scales`: where they were asked
    for.
    """

    settled: Settled
    coefficients: Float[Array, "n"]
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
    look_at_scales: bool,
) -> Conditioned:
    L = prior.functional
    settled = prior.settle_at(L, noise_var, mask)
    residual = y - prior.mean_at(L)
    coefficients = settled.factor.solve(residual)
    # The posterior mean misses y by (noise + jitter) α. What no noise explains of that is small, of the order of √added,
    # where there is a function of this kernel through all y, and of the order of y where there is none.
    misses = jnp.abs(settled.added * coefficients)
    deviation = jnp.sqrt(settled.scale)
    in_units = jnp.where(settled.scale > 0, jnp.abs(residual) / deviation, jnp.zeros_like(residual))
    if mask is not None:
        in_units = jnp.where(mask, in_units, jnp.zeros_like(in_units))
    step = jnp.sqrt(jnp.max(jnp.where(settled.scale > 0, settled.added / settled.scale, jnp.zeros_like(residual))))
    least = (_MISS + _MISS_PER_STEP * step) * jnp.max(in_units) * deviation
    asked = prior.noise_at(L, noise_var) + settled.jitter - settled.added
    contradicts = (misses > least) & (asked <= 0)
    infinite = ~jnp.all(jnp.isfinite(coefficients))
    scales = scales_of(in_units, L.gram(prior.kernel), mask) if look_at_scales else None
    return Conditioned(settled, coefficients, misses, contradicts, jnp.any(contradicts), infinite, scales)


# Of the largest observation in units of its standard deviation: by so much may the mean miss one without noise, and by so
# much more for each standard deviation that was added.
_MISS, _MISS_PER_STEP = 0.01, 10.0


def contradiction(found: Conditioned) -> str:
    where = ""
    if all(map(_checks.is_concrete, (found.contradictory, found.contradicts, found.misses))) and found.contradictory:
        points = np.flatnonzero(found.contradicts)
        shown = ", ".join(map(str, points[:8])) + (", …" if points.size > 8 else "")
        where = f" at point(s) {shown} of `X`, which the posterior mean misses by up to {np.max(found.misses):.3g}"
    return (
        f"`y` without noise contradicts itself or the kernel{where}: different values at (nearly) one point, or values that "
        "no function as smooth as those of this kernel takes. Give a `noise_var` or a `jitter`, remove repeated points, or "
        "use a rougher kernel or a shorter lengthscale."
    )
