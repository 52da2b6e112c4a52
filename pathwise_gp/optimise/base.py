"""What a search returns."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .. import _checks
from .._types import Number


class Optimum(NamedTuple):
    """The optimum of each path: a sample of the posterior over the optimum.

    **Fields:**

    - `points`: where it is, `*s d`; not differentiated: `jax.grad` through them gives zeros.
    - `values`: of the path there, `*s`.
    - `converged`: whether the conditions of first order hold there, `*s`, and no change of one discrete column is better.
    - `feasible`: whether all constraints hold there, `*s`; True where there are none.
    """

    points: Float[Array, "*s d"]
    values: Float[Array, "*s"]
    converged: Bool[Array, "*s"]
    feasible: Bool[Array, "*s"]


class Choice(NamedTuple):
    """The best of a list, for each path or as a batch.

    **Fields:**

    - `points`: rows of the list, `*s d`, or `q d` of a batch.
    - `values`: of the path there, `*s`, or of the batch.
    - `converged`: whether that is a number; of a batch, which no exchange of one row for another improves.
    - `feasible`: whether all constraints hold there; True where there are none.
    - `indices`: of the rows, `*s` or `q`.
    """

    points: Float[Array, "*s d"]
    values: Float[Array, "..."]
    converged: Bool[Array, "..."]
    feasible: Bool[Array, "..."]
    indices: Int[Array, "..."]


def credible_intervals(
    optimum: Optimum | Choice, probability: Number = 0.9
) -> tuple[Float[Array, "2 d"], Float[Array, "2"]]:
    """Central intervals of each coordinate of the optimum, and of its value, over all paths with a feasible one that is
    finite, whether the search has converged or not.

    Where the optimum may be in several places the intervals span them: look at `optimum.points` too.

    **Arguments:** `optimum`: of at least one path axis; `probability`: of each interval, between 0 and 1.

    **Returns:** lower and upper ends for the location, `2 d`, and for the value, `2`. **Raises:** ValueError where
    `probability` is not between 0 and 1, there is one path only, or none has such an optimum (at run time under jit).
    """
    if optimum.values.ndim == 0:
        raise ValueError("`optimum` must be of several paths; got that of one.")
    probability = _checks.floating(probability, "probability").astype(optimum.values.dtype)
    if _checks.is_concrete(probability) and not (probability.ndim == 0 and 0 < float(probability) < 1):
        raise ValueError(f"`probability` must be a number between 0 and 1; got {probability}.")
    used = (optimum.feasible & jnp.isfinite(optimum.values)).reshape(-1)
    message = "`optimum` must have a path with a feasible and finite optimum."
    points = _checks.require(jnp.any(used), optimum.points.reshape(-1, optimum.points.shape[-1]), message)
    return _intervals(points, optimum.values.reshape(-1), used, probability)


@jax.jit
def _intervals(
    points: Float[Array, "s d"], values: Float[Array, "s"], used: Bool[Array, "s"], probability: Float[Array, ""]
) -> tuple[Float[Array, "2 d"], Float[Array, "2"]]:
    ends = jnp.stack([(1 - probability) / 2, (1 + probability) / 2])

    def interval(samples: Float[Array, "s"]) -> Float[Array, "2"]:
        return jnp.nanquantile(jnp.where(used, samples, jnp.nan), ends)

    return jax.vmap(interval, in_axes=1, out_axes=1)(points), interval(values)
