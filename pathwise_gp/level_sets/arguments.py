"""Arguments that crossings and excursion sets have in common."""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float

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


def require_finite(finite: Bool[Array, ""], result: Any, what: str) -> Any:
    """A pytree, or an error: a ValueError now where `finite` is concrete, at run time under jit, whichever leaf is used."""
    message = f"{what} must be finite; got NaN or inf."
    if not _checks.is_concrete(finite):
        return eqx.error_if(result, ~finite, message)
    if not bool(finite):
        raise ValueError(message)
    return result
