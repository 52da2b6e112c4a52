"""Whether data lie where a prior expects them: said once, in terms without units."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .. import _checks

# Observations that lie so many prior standard deviations from the prior mean, in root mean square, are not of that prior: of
# one normal value this has probability 1e-15, and of values that are correlated no more.
_AWAY = 8.0
# A largest correlation of so much leaves the posterior between the points as good as the prior; a few points may lie so.
_ALONE, _FEW = 1e-2, 10


class Scales(NamedTuple):
    """**Fields:** `away`: root mean square of the observations less the prior mean, in prior standard deviations, noise
    included; `correlation`: the largest under the prior between two points."""

    away: Float[Array, ""]
    correlation: Float[Array, ""]


def scales_of(
    in_units: Float[Array, "..."],
    K: Float[Array, "r n"],
    mask: Bool[Array, "n"] | None = None,
    rows: Int[Array, "r"] | None = None,
    variances: Float[Array, "n"] | None = None,
    seen: Bool[Array, "..."] | None = None,
) -> Scales:
    """From observations less the prior mean, in prior standard deviations, and the covariance of the points, or of some
    `rows` of it and all `variances`; `seen`: which of the observations were made, where the `mask` is that of the points."""
    there = jnp.ones(K.shape[1:], bool) if mask is None else mask
    everything = jnp.arange(K.shape[1])
    rows, variances = everything if rows is None else rows, jnp.diagonal(K) if variances is None else variances
    seen = there if seen is None else seen
    number = jnp.maximum(jnp.sum(seen), 1).astype(in_units.dtype) * (in_units.size // seen.size)
    away = jnp.sqrt(jnp.sum(in_units * in_units) / number)
    scale = jnp.sqrt(variances)
    product = scale[rows][:, None] * scale[None, :]
    # A point without variance is no other point's stranger.
    correlation = jnp.where(product > 0, jnp.abs(K) / jnp.where(product > 0, product, 1), 1)
    pair = there[rows][:, None] & there[None, :] & (rows[:, None] != everything[None, :])
    few = jnp.sum(there) < _FEW
    return Scales(away, jnp.where(few, 1, jnp.max(jnp.where(pair, correlation, 0))).astype(K.dtype))


def say_scales(found: Scales | None) -> None:
    """Warns where data are far from what a prior expects; not under jit, where nothing is known yet."""
    if found is None or not all(map(_checks.is_concrete, found)):
        return
    said, remedy = [], []
    if found.away > _AWAY:
        said.append(
            f"`y` lies {float(found.away):.3g} prior standard deviations from the prior mean (root mean square)"
        )
        remedy.append("give the prior a `mean` and a kernel with the variance of `y`")
    if found.correlation < _ALONE:
        said.append(f"no two points of `X` have a prior correlation above {float(found.correlation):.1g}")
        remedy.append("give the kernel a lengthscale of the size of the distances over which f varies")
    if said:
        _checks.warn(
            f"The data are far from what the prior expects: {', and '.join(said)}. Scale the data with `pgp.standardise`, "
            f"learn the hyperparameters with `pgp.fit`, or {' and '.join(remedy)}. Pass `check_scales=False` if it is meant.",
            _checks.ScaleWarning,
        )
