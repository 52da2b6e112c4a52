"""What is predicted of new observations."""

from typing import NamedTuple

from jaxtyping import Array, Float


class Prediction(NamedTuple):
    """Mean and variance of new observations y* = f(x) + ε, which are normal, each by itself.

    **Fields:** `mean`: that of f(x), as the noise has none; `variance`: that of f(x) with the noise added; `*n` each, or
    `*n p` of p outputs.
    """

    mean: Float[Array, "..."]
    variance: Float[Array, "..."]
