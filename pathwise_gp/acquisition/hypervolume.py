"""How much better than the front so far, of several objectives."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks, _fields
from .._numerics.hypervolume import Staircase, staircase, volume_beyond
from .._types import Numbers
from ..optimise.pareto import as_reference, objectives, values_of
from .base import AbstractAcquisition, deviation, fat_softplus, largest, log_mean

# Inputs of a batch, whose subsets are summed over, and the temperature in standard deviations of the gain.
_LARGEST, _TEMPERATURE = 8, 0.01


def _as_objectives(paths: Callable[..., Any] | Sequence[Callable[..., Any]]) -> tuple[Any, ...]:
    return objectives(paths, "paths")


def _as_front(front: Numbers) -> Float[Array, "*s m p"]:
    front = _checks.floating(front, "front")
    if front.ndim < 2:
        raise ValueError(
            f"`front` must hold the values of m points, `m p`, or those of each path, `*s m p`; got {front.shape}."
        )
    _checks.finite(front, "front")
    return front


class HypervolumeImprovement(AbstractAcquisition):
    """E of the volume that f(x_1), …, f(x_q) add to what the front is better than, up to a reference (EHVI, qEHVI).

    Of each path exactly: by a decomposition of what the front leaves into boxes, and inclusion and exclusion over the 2^q − 1
    subsets of the q inputs. Where no path improves it is 0 and has no gradient, and a search ends there: search with
    `LogHypervolumeImprovement`.

    **Fields:**

    - `paths`: of two or three objectives: a function that maps `*n d` to `*s *n p` (`paths.outputs`), or one function for
      each, as of `optimise.pareto_front`.
    - `reference`: the worst value of each objective that counts, `p`.
    - `front`: the values observed so far, `m p` with m ≥ 0, dominated ones included as they add nothing; with noise they are
      not known, and may be those of each path at the inputs evaluated, `*s m p` (`paths(X)`).
    - `maximise`: whether large values of all objectives are sought; turn the sign of those that are not alike.

    **Raises:** ValueError where shapes do not fit, `reference` or `front` are not finite, or q is larger than 8. Source:
    Daulton et al. (2020), equations 3 and 4; Daulton et al. (2021) for a front of each path.
    """

    paths: tuple[Any, ...] = eqx.field(converter=_as_objectives)
    reference: Float[Array, "p"] = eqx.field(converter=as_reference)
    front: Float[Array, "*s m p"] = eqx.field(converter=_as_front)
    maximise: bool = eqx.field(static=True, default=False, converter=_fields.flag("maximise"))

    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        gains, stairs = _gains(self, X)
        each = jax.vmap(lambda one, there: jax.vmap(lambda G: _improvement(there, G, _positive))(one))
        return jnp.mean(each(gains, stairs), axis=0)

    def width(self, q: int, samples: int) -> int:
        return samples * (q + 2 * self.front.shape[-2])

    def __check_init__(self):
        _check(self)


class LogHypervolumeImprovement(AbstractAcquisition):
    """log E of the volume that f(x_1), …, f(x_q) add to what the front is better than, with positive parts made smooth.

    The sides of each box are differences of τ φ(·/τ), with the φ of `LogExpectedImprovement`, in place of those of the
    positive part. As φ is convex and increasing, the volume of every box is positive: there is a gradient where no path
    improves. The maximum over q inputs is not smoothed.

    **Fields:** `paths`, `reference`, `front`, `maximise`: as of `HypervolumeImprovement`; `temperature`: τ in units of each
    objective, `p`; a hundredth of the standard deviation of its gain over the paths unless given.

    **Raises:** ValueError as `HypervolumeImprovement`, and where `temperature` is not positive, of another shape, or not
    given for a single path. Source: Ament et al. (2023), section 4.
    """

    paths: tuple[Any, ...] = eqx.field(converter=_as_objectives)
    reference: Float[Array, "p"] = eqx.field(converter=as_reference)
    front: Float[Array, "*s m p"] = eqx.field(converter=_as_front)
    temperature: Float[Array, "p"] | None = eqx.field(
        converter=_fields.optional(_fields.array("temperature", positive=True)), default=None
    )
    maximise: bool = eqx.field(static=True, default=False, converter=_fields.flag("maximise"))

    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        gains, stairs = _gains(self, X)
        tau = _temperatures(self, gains)

        def each(one: Float[Array, "n q p"], there: Staircase) -> Float[Array, "n"]:
            smooth = lambda t: lambda gap, i: t[i] * fat_softplus(gap / t[i])
            return jax.vmap(lambda G, t: _improvement(there, G, smooth(t)))(one, tau)

        return log_mean(jnp.log(jax.vmap(each)(gains, stairs)))

    def width(self, q: int, samples: int) -> int:
        return samples * (q + 2 * self.front.shape[-2])

    def __check_init__(self):
        _check(self)
        if self.temperature is not None and self.temperature.shape != self.reference.shape:
            raise ValueError(
                f"`temperature` must have shape {self.reference.shape}, one of each objective; got {self.temperature.shape}."
            )


def _check(acquisition: Any) -> None:
    p = acquisition.reference.size
    if acquisition.front.shape[-1] != p:
        raise ValueError(
            f"`front` must have the {p} objectives of `reference` last; got shape {acquisition.front.shape}."
        )
    if len(acquisition.paths) not in (1, p):
        raise ValueError(
            f"`paths` must be one function, or one for each of {p} objectives; got {len(acquisition.paths)}."
        )


def _gains(acquisition: Any, X: Float[Array, "n q d"]) -> tuple[Float[Array, "s n q p"], Staircase]:
    """What is gained in each objective, and what the front of each path leaves."""
    if X.shape[1] > _LARGEST:
        raise ValueError(f"`q` must be at most {_LARGEST}, as the cost doubles with each input; got {X.shape[1]}.")
    axes, values = values_of(acquisition.paths, X)
    sign, p = 1 if acquisition.maximise else -1, acquisition.reference.size
    if values.shape[-1] != p:
        raise ValueError(f"`paths` must have the {p} objectives of `reference`; got {values.shape[-1]}.")
    front, reference = (sign * a.astype(values.dtype) for a in (acquisition.front, acquisition.reference))
    if front.shape[:-2] not in ((), axes):
        raise ValueError(
            f"`front` must be `m {p}`, or `*s m {p}` with the axes {axes} of the paths; got {front.shape}."
        )
    fronts = jnp.broadcast_to(front, (*axes, *front.shape[-2:])).reshape(values.shape[0], *front.shape[-2:])
    return sign * values, jax.vmap(lambda one: staircase(one, reference))(fronts)


def _improvement(stairs: Staircase, gains: Float[Array, "q p"], above: Any) -> Float[Array, ""]:
    """The volume that is added: of each subset of the inputs what all of them dominate, with alternating signs."""
    q = gains.shape[0]
    if q == 1:
        return volume_beyond(stairs, gains[0], above)
    chosen = (np.arange(1, 2**q)[:, None] >> np.arange(q)[None, :]) & 1
    signs = jnp.asarray(np.where(chosen.sum(axis=1) % 2, 1, -1), gains.dtype)

    def add(total: Float[Array, ""], subset: tuple[Array, Array]) -> tuple[Float[Array, ""], None]:
        sign, members = subset
        corner = -largest(jnp.where(members[:, None], -gains, -jnp.inf), 0)
        return total + sign * volume_beyond(stairs, corner, above), None

    total, _ = jax.lax.scan(jax.checkpoint(add), jnp.zeros((), gains.dtype), (signs, jnp.asarray(chosen, bool)))
    return total


def _positive(gap: Float[Array, "..."], _: int) -> Float[Array, "..."]:
    return jnp.maximum(gap, 0)


def _temperatures(acquisition: Any, gains: Float[Array, "s n q p"]) -> Float[Array, "n p"]:
    """Those given, or of the gain; one for all inputs of a batch, so that the largest of them stays the largest."""
    n, p = gains.shape[1], gains.shape[3]
    if acquisition.temperature is not None:
        return jnp.broadcast_to(acquisition.temperature.astype(gains.dtype), (n, p))
    if gains.shape[0] == 1:
        raise ValueError("`temperature` must be given where there is one path only.")
    # Where paths hardly differ, enough for the square of the quotient.
    size = jnp.maximum(
        jnp.max(jnp.abs(jax.lax.stop_gradient(gains)), axis=(0, 2)),
        jnp.abs(acquisition.reference.astype(gains.dtype))[None],
    )
    return jnp.maximum(_TEMPERATURE * jnp.mean(deviation(gains), axis=1), jnp.finfo(gains.dtype).eps * size)
