"""Several objectives: what is best is a front."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .. import _checks
from .._numerics.hypervolume import undominated, volume_of
from .._paths.paired import axes_of, UNLIKELY
from .._types import AnyArray, Numbers


class ParetoFront(NamedTuple):
    """The points of each path that no other point is better than in all objectives.

    Those of path i are `points[mask[i]]`, and what it is worth there `values[i][mask[i]]`.

    **Fields:** `points`: all that were compared, `m d`; `values`: of each path there, `*s m p`; `mask`: whether a point is on
    the front of a path, `*s m`.
    """

    points: Float[Array, "m d"]
    values: Float[Array, "*s m p"]
    mask: Bool[Array, "*s m"]


def pareto_front(
    paths: Callable[..., Any] | Sequence[Callable[..., Any]], points: Float[AnyArray, "m d"], *, maximise: bool = False
) -> ParetoFront:
    """The Pareto front of each path over a set of points: a sample of the posterior over the front.

    **Arguments:**

    - `paths`: of several outputs, a function that maps `*n d` to `*s *n p`; or one function for each objective, which map
      `*n d` to `*s *n`, and of which path i of one belongs to path i of the others.
    - `points`: that are compared, `m d`, such as a design or a list; the cost grows with m².
    - `maximise`: whether large values of all objectives are sought; turn the sign of those that are not alike.

    **Returns:** the front of each path. Points whose values are equal are on it together; one with a NaN is not.

    **Raises:** ValueError where `points` are not `m d`, or the functions do not map as said.
    """
    points, sign = _checks.points(points, "points"), 1 if _checks.flag(maximise, "maximise") else -1
    return ParetoFront(points, *_front(objectives(paths, "paths"), points, sign))


def non_dominated(values: Float[AnyArray, "*s m p"], *, maximise: bool = False) -> Bool[Array, "*s m"]:
    """Whether no other of m points is at least as good in all p objectives and better in one.

    **Arguments:** `values`: `*s m p`, of which each set is compared in itself; `maximise`: whether large values are sought.
    **Returns:** `*s m`. Equal points do not dominate each other; one with a NaN is dominated, and dominates none. **Raises:**
    ValueError where `values` have fewer than two axes, or none of an axis.
    """
    values, sign = _checks.floating(values, "values"), 1 if _checks.flag(maximise, "maximise") else -1
    if values.ndim < 2 or values.size == 0:
        raise ValueError(f"`values` must be those of m points in p objectives, `*s m p`; got shape {values.shape}.")
    return _non_dominated(sign * values)


def hypervolume(
    values: Float[AnyArray, "*s m p"], reference: Float[AnyArray, "p"], *, maximise: bool = False
) -> Float[Array, "*s"]:
    """The volume of what points are better than, up to a reference: that of the union of the boxes between each and it.

    **Arguments:** `values`: of m points in p = 2 or 3 objectives, `*s m p`, m ≥ 0; `reference`: the worst value of each that
    counts, `p`; `maximise`: whether large values are sought.

    **Returns:** `*s`: exact, with derivatives; NaN of a set with a value that is not finite. Dominated points, equal ones and
    such as are not better than the reference add nothing. **Raises:** ValueError where shapes are others.
    """
    values, sign = _checks.floating(values, "values"), 1 if _checks.flag(maximise, "maximise") else -1
    reference = as_reference(reference).astype(values.dtype)
    if values.ndim < 2 or values.shape[-1] != reference.size:
        raise ValueError(f"`values` must have shape (*s, m, {reference.size}); got {values.shape}.")
    return _hypervolume(sign * values, sign * reference)


def as_reference(reference: Numbers) -> Float[Array, "p"]:
    """A value of two or three objectives."""
    reference = _checks.floating(reference, "reference")
    if reference.shape not in ((2,), (3,)):
        raise ValueError(
            f"`reference` must hold a value of each of two or three objectives; got shape {reference.shape}."
        )
    _checks.finite(reference, "reference")
    return reference


def objectives(paths: Any, name: str) -> tuple[Any, ...]:
    """One function of all objectives, or one for each."""
    found = (paths,) if callable(paths) else tuple(paths) if isinstance(paths, Sequence) else ()
    if not found or not all(callable(one) for one in found):
        raise ValueError(
            f"`{name}` must be a function that maps `*n d` to `*s *n p`, or several to `*s *n`; got {paths!r}."
        )
    return found


def values_of(paths: tuple[Any, ...], X: Float[Array, "*n d"]) -> tuple[tuple[int, ...], Float[Array, "..."]]:
    """The axes `*s` of paths, and the values of all objectives, `s *n p`."""
    first, *others = paths
    if others:
        axes, *more = [axes_of(one, X.shape[-1], X.dtype)[0] for one in paths]
        if set(more) != {axes}:
            raise ValueError(f"`paths` of several objectives must have the same axes; got {[axes, *more]}.")
        return axes, jnp.stack([one(X).reshape(math.prod(axes), *X.shape[:-1]) for one in paths], axis=-1)
    found = eqx.filter_eval_shape(first, jax.ShapeDtypeStruct((UNLIKELY, X.shape[-1]), X.dtype))
    shape = getattr(found, "shape", ())
    if len(shape) < 2 or shape[-2] != UNLIKELY or not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(
            f"`paths` must map inputs `n {X.shape[-1]}` to values of several objectives, `*s n p`, or be one function for "
            f"each; of {UNLIKELY} inputs it gives {found}."
        )
    return tuple(shape[:-2]), first(X).reshape(math.prod(shape[:-2]), *X.shape[:-1], shape[-1])


@eqx.filter_jit
def _front(paths: tuple[Any, ...], points: Float[Array, "m d"], sign: int) -> tuple[Array, Array]:
    axes, values = values_of(paths, points)
    values = values.reshape(*axes, *values.shape[1:])
    return values, _non_dominated(sign * values)


@jax.jit
def _non_dominated(gains: Float[Array, "*s m p"]) -> Bool[Array, "*s m"]:
    found = jax.lax.map(undominated, gains.reshape(-1, *gains.shape[-2:]))
    return found.reshape(gains.shape[:-1])


@jax.jit
def _hypervolume(gains: Float[Array, "*s m p"], reference: Float[Array, "p"]) -> Float[Array, "*s"]:
    known = jnp.all(jnp.isfinite(gains), axis=(-2, -1))
    sets = gains.reshape(math.prod(gains.shape[:-2]), *gains.shape[-2:])
    found = jax.vmap(lambda one: volume_of(one, reference))(sets).reshape(gains.shape[:-2])
    return jnp.where(known, found, jnp.nan)
