"""The sets on which paths exceed a level."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .. import _checks
from .._numerics.pointwise import as_array, as_points, in_blocks, real, require_scalar, sum_in_blocks
from .._types import AnyArray, Number
from .arguments import as_box, as_level, require_finite, several

Function = Callable[..., Any]


class CoverageFunction(eqx.Module):
    """P(f(x) > c) as a function of x, the share of paths above a level: maps `*n d` to `*n`.

    **Fields:** `paths`: a callable that maps `*n d` to `*s *n`; `level`: c, a scalar.
    """

    paths: Function
    level: Float[Array, ""]

    def __call__(self, X: Float[AnyArray, "*n d"]) -> Float[Array, "*n"]:
        """The share of paths above the level at each input.

        **Arguments:** `X`: inputs, `*n d`. **Returns:** the shares, `*n`, of a standard error √(p(1 − p)/s) for s
        independent paths. Memory is that of a block of inputs. **Raises:** ValueError where the paths refuse `X`, are none
        or have several outputs, or are not finite at `X` (at run time under jit).
        """
        shares, finite = _coverage(self, as_points(X))
        return require_finite(finite, shares, "`paths` at the points of `X`")


def coverage_function(paths: Function, level: Number) -> CoverageFunction:
    """P(f(x) > c), the share of paths above a level, as a function.

    **Arguments:** `paths`: a callable that maps `*n d` to `*s *n`, draws of one law; `level`: c, a scalar.

    **Returns:** a callable that maps `*n d` to `*n`.

    **Raises:** ValueError where `paths` is not callable or `level` not a finite scalar. Source: Chevalier et al.
    (2013).
    """
    if not callable(paths):
        raise ValueError(f"`paths` must be callable, a function of inputs `*n d`; got {type(paths).__name__}.")
    return CoverageFunction(paths, as_level(level))


def excursion_volume(
    paths: Function, level: Number, points: Float[AnyArray, "n d"], weights: Float[AnyArray, "n"]
) -> Float[Array, "*s"]:
    """The volume of {x: f(x) > c} of each path, Σ_i w_i 1[f(x_i) > c]. Memory is that of a block of points.

    **Arguments:** `paths`: a callable that maps `*n d` to `*s *n`; `level`: c, a scalar; `points`: a design, `n d`;
    `weights`: the volume that each point stands for, `n`, not negative. A volume is not smooth, so that evenly spread
    points (a grid, a low-discrepancy sequence) serve better than those of a Gauss rule.

    **Returns:** the volumes, `*s`; the derivative in paths and level is 0.

    **Raises:** ValueError where shapes do not fit, an entry is not finite, a weight is negative, or the paths are not finite
    at the points (at run time under jit).
    """
    points = _checks.points(points, "points")
    volumes, finite = _volume(paths, as_level(level), points, _weights(weights, points.shape[0], "points"))
    return require_finite(finite, volumes, "`paths` at `points`")


class VorobevExpectation(eqx.Module):
    """The Vorob'ev expectation of a random set: the quantile of the coverage function whose volume is the mean volume.

    **Fields:**

    - `inside`: which points of the design belong to it, `n`.
    - `threshold`: α, a scalar: it is the set where the coverage is at least α.
    - `volume`: its own; `mean_volume`: that of the random set on average. The first exceeds the second by as little as the
      design allows.
    """

    inside: Bool[Array, "n"]
    threshold: Float[Array, ""]
    volume: Float[Array, ""]
    mean_volume: Float[Array, ""]


def vorobev_expectation(coverage: Float[AnyArray, "n"], weights: Float[AnyArray, "n"]) -> VorobevExpectation:
    """The Vorob'ev expectation of a random set, such as {x: f(x) > c}, on a design.

    It is Q_α = {x: p(x) ≥ α} with the largest α for which the volume of Q_α is not below the mean volume ∫ p dx.
    Of all sets of that volume it is on average closest to the random set (in the volume of the symmetric difference).

    **Arguments:** `coverage`: p at the points of the design, `n`, from `coverage_function` or known; `weights`: the
    volume that each point stands for, `n`.

    **Returns:** the set, its threshold and volumes. For a contour of it see `contours(coverage_function(…), threshold, …)`.

    **Raises:** ValueError where shapes do not fit, the coverage is not within [0, 1], or a weight is negative. Source:
    Molchanov (2005), chapter 2; Chevalier et al. (2013).
    """
    return _vorobev(*_covered(coverage, weights))


def vorobev_deviation(
    coverage: Float[AnyArray, "n"], weights: Float[AnyArray, "n"], inside: Bool[AnyArray, "n"] | None = None
) -> Float[Array, ""]:
    """E vol(A Δ Q), the mean volume of the symmetric difference of a random set A and a set Q: ∫_Q (1 − p) + ∫_{Q^c} p.

    **Arguments:** `coverage`, `weights`: as for `vorobev_expectation`; `inside`: which points belong to Q, `n`; those
    of the Vorob'ev expectation unless given.

    **Returns:** the deviation, in units of the weights.

    **Raises:** ValueError as for `vorobev_expectation`, or where `inside` is not a mask of the design.
    """
    coverage, weights = _covered(coverage, weights)
    if inside is None:
        inside = _vorobev(coverage, weights).inside
    inside = jnp.asarray(inside)
    if inside.dtype != bool or inside.shape != coverage.shape:
        got = f"{inside.dtype} of shape {inside.shape}"
        raise ValueError(f"`inside` must have dtype bool and the shape of `coverage`, {coverage.shape}; got {got}.")
    return jnp.sum(weights * jnp.where(inside, 1 - coverage, coverage))


def contours(path: Function, level: Number, bounds: Float[AnyArray, "2 2"], n: int = 100) -> list[np.ndarray]:
    """The lines f = c of one function of two inputs, for plots: on a grid of n × n points, with linear interpolation.

    **Arguments:** `path`: a callable that maps `*n 2` to `*n`: one path, a coverage function; `level`: c, a scalar;
    `bounds`: lower and upper corner, `2 2`; `n`: points of the grid in each direction.

    **Returns:** the lines, a list of arrays `k 2`; the first point of a closed one is its last too. Not for use under jit.

    **Raises:** ValueError where arguments have another shape, or `path` is a batch or not finite on the grid. Needs contourpy
    (part of matplotlib).
    """
    try:
        import contourpy  # for plots only
    except ImportError as e:  # pragma: no cover
        raise ImportError(
            '`contours` needs contourpy, which comes with the extra `plots`: pip install ".[plots]".'
        ) from e

    level, n = as_level(level), several(n, "n")
    bounds = as_box(bounds, (2, 2), "the lower and the upper corner")
    axes = [jnp.linspace(bounds[0, i], bounds[1, i], n) for i in range(2)]
    grid = jnp.stack(jnp.meshgrid(*axes), axis=-1).reshape(-1, 2)
    values = as_array(path(grid), grid, "path")
    if values.shape != (n * n,):
        raise ValueError(
            f"`path` must be one function; of {n * n} points it makes {values.shape}. Take one of a batch: `paths[i]`."
        )
    require_finite(jnp.all(jnp.isfinite(values)), values, "`path` on the grid")
    x, y = (np.asarray(axis) for axis in axes)
    return contourpy.contour_generator(x, y, np.asarray(values).reshape(n, n)).lines(float(level))  # pyright: ignore[reportReturnType]


def _weights(weights: Any, n: int, like: str) -> Float[Array, "n"]:
    weights = _checks.vector(weights, n, "weights", like)
    _checks.positive(weights, "weights", or_zero=True)
    return weights


def _covered(coverage: Any, weights: Any) -> tuple[Float[Array, "n"], Float[Array, "n"]]:
    coverage = _checks.floating(coverage, "coverage")
    if coverage.ndim != 1 or coverage.shape[0] == 0:
        raise ValueError(f"`coverage` must have shape (n,), a probability for each point; got {coverage.shape}.")
    _checks.finite(coverage, "coverage")
    if _checks.is_concrete(coverage) and np.any((np.asarray(coverage) < 0) | (np.asarray(coverage) > 1)):
        raise ValueError("`coverage` must hold probabilities, from 0 to 1.")
    return coverage, _weights(weights, coverage.shape[0], "coverage").astype(coverage.dtype)


def _above(paths: Function, level: Float[Array, ""], X: Float[Array, "b d"]) -> Float[Array, "*s b"]:
    """1 where a path is above the level, 0 where it is not, NaN where it is NaN or infinite."""
    values = real(paths)(X)
    above = (values > level.astype(values.dtype)).astype(X.dtype)
    return jnp.where(jnp.isfinite(values), above, jnp.full_like(above, jnp.nan))


@eqx.filter_jit
def _coverage(coverage: CoverageFunction, X: Float[Array, "*n d"]) -> tuple[Float[Array, "*n"], Bool[Array, ""]]:
    s = math.prod(require_scalar(coverage.paths, X))
    if s == 0:
        raise ValueError("`paths` must hold at least one path: no share of none is above a level.")

    def share(rows: Float[Array, "b d"]) -> Float[Array, "b"]:
        return jnp.mean(_above(coverage.paths, coverage.level, rows).reshape(s, rows.shape[0]), axis=0)

    shares = in_blocks(share, X.reshape(math.prod(X.shape[:-1]), X.shape[-1]), 0).reshape(X.shape[:-1])
    return shares, jnp.all(jnp.isfinite(shares))


@eqx.filter_jit
def _volume(
    paths: Function, level: Float[Array, ""], points: Float[Array, "n d"], weights: Float[Array, "n"]
) -> tuple[Float[Array, "*s"], Bool[Array, ""]]:
    require_scalar(paths, points)
    inside = lambda X, w: jnp.matmul(_above(paths, level, X).astype(w.dtype), w, precision=jax.lax.Precision.HIGHEST)
    volumes = sum_in_blocks(inside, points, weights)
    return volumes, jnp.all(jnp.isfinite(volumes))


@eqx.filter_jit
def _vorobev(coverage: Float[Array, "n"], weights: Float[Array, "n"]) -> VorobevExpectation:
    order = jnp.argsort(-coverage)
    volumes, mean = jnp.cumsum(weights[order]), jnp.sum(weights * coverage)
    # A volume that falls short by rounding alone is large enough.
    enough = mean * (1 - 64 * jnp.finfo(mean.dtype).eps)
    last = jnp.minimum(jnp.searchsorted(volumes, enough), order.shape[0] - 1)
    threshold = coverage[order[last]]
    inside = (coverage >= threshold) & (coverage > 0)
    return VorobevExpectation(inside, threshold, jnp.sum(jnp.where(inside, weights, jnp.zeros_like(weights))), mean)
