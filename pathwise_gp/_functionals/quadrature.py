"""Rules of points and weights."""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from .. import _checks, _fields


class Quadrature(eqx.Module):
    """∫ f ≈ Σ_i w_i f(x_i): points and weights, of any rule.

    **Fields:**

    - `points`: x, `m d`.
    - `weights`: w, `m`; they hold the length or area element where the rule is one on a curve or a surface.
    - `tangents`: of a rule on a curve: unit vectors along it, `m d`; else None.
    - `normals`: of a rule on a curve in the plane or a surface in space: unit vectors at right angles to it, `m d`; else
      None.

    **Raises:** ValueError where shapes do not fit, or an entry is not finite.
    """

    points: Float[Array, "m d"] = eqx.field(converter=_fields.array("points"))
    weights: Float[Array, "m"] = eqx.field(converter=_fields.array("weights"))
    tangents: Float[Array, "m d"] | None = eqx.field(
        converter=_fields.optional(_fields.array("tangents")), default=None
    )
    normals: Float[Array, "m d"] | None = eqx.field(converter=_fields.optional(_fields.array("normals")), default=None)

    def __check_init__(self):
        _checks.points(self.points, "points")
        _checks.vector(self.weights, self.points.shape[0], "weights", "points")
        for name in ("tangents", "normals"):
            vectors = getattr(self, name)
            if vectors is not None and vectors.shape != self.points.shape:
                raise ValueError(f"`{name}` must have the shape of `points`, {self.points.shape}; got {vectors.shape}.")


def as_box(bounds: Any) -> Float[Array, "2 d"]:
    """Lower and upper corner of a box."""
    bounds = _checks.floating(bounds, "bounds")
    if bounds.ndim != 2 or bounds.shape[0] != 2 or bounds.shape[1] == 0:
        raise ValueError(f"`bounds` must have shape (2, d), the lower and the upper corner; got {bounds.shape}.")
    _checks.finite(bounds, "bounds")
    if _checks.is_concrete(bounds) and np.any(np.asarray(bounds)[0] > np.asarray(bounds)[1]):
        raise ValueError(f"`bounds` must hold the lower corner first; got {np.asarray(bounds)}.")
    return bounds
