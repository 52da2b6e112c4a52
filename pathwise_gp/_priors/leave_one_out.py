"""What all observations but one predict of it, in closed form."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class LeaveOneOut(NamedTuple):
    """What all observations but one predict of it, for each of them, made by `ConditionedGP.leave_one_out`.

    **Fields:** `mean`, `variance`: of yᵢ, its noise included, given all others, `n`; `log_density`: of yᵢ under that, `n`,
    0 for what was not observed.
    """

    mean: Float[Array, "*n"]
    variance: Float[Array, "*n"]
    log_density: Float[Array, "*n"]


def leave_one_out(
    y: Float[Array, "*n"], coefficients: Float[Array, "*n"], precision: Float[Array, "..."]
) -> LeaveOneOut:
    """From α = P(y − m(X)) and the diagonal of P = A⁻¹, whose axes are the last of theirs."""
    precision = jnp.broadcast_to(precision, coefficients.shape)
    error = coefficients / precision  # of the prediction
    log_density = 0.5 * (jnp.log(precision) - error * error * precision - math.log(2 * math.pi))
    return LeaveOneOut(y - error, 1 / precision, log_density)
