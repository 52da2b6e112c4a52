"""Arguments that crossings and excursion sets have in common."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float

from .. import _checks


def as_level(level: Any) -> Float[Array, ""]:
    level = _checks.floating(level, "level")
    if level.ndim:
        raise ValueError(f"`level` must be a scalar; got shape {level.shape}.")
    _checks.finite(level, "level")
    return level


def several(n: Any, name: str) -> int:
    if _checks.count(n, name) < 2:
        raise ValueError(f"`{name}` must be at least 2; got {n}.")
    return _checks.count(n, name)


def as_box(bounds: Any, shape: tuple[int, ...], what: str) -> Array:
    bounds = _checks.floating(bounds, "bounds")
    if bounds.shape != shape:
        raise ValueError(f"`bounds` must have shape {shape}, {what}; got {bounds.shape}.")
    _checks.finite(bounds, "bounds")
    if _checks.is_concrete(bounds) and not np.all(np.asarray(bounds)[0] < np.asarray(bounds)[1]):
        raise ValueError(f"`bounds` must be in ascending order; got {np.asarray(bounds)}.")
    return bounds
