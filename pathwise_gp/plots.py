"""Plots of paths and of what is computed from them: each takes a Matplotlib Axes and returns it.

They need Matplotlib, which comes with the extra `plots`. What they draw is the data; limits, titles and labels of axes are
the caller's.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from . import _checks
from ._paths.paired import axes_of

try:
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
except ImportError as e:  # pragma: no cover
    raise ImportError(
        '`pathwise_gp.plots` needs Matplotlib, which comes with the extra `plots`: pip install ".[plots]".'
    ) from e

_COLOUR = "#2b6ca3"
_SHOWN = 20


def paths(
    paths: Callable[..., Any],
    x: Any,
    ax: Axes | None = None,
    *,
    level: float = 0.9,
    n_shown: int = _SHOWN,
    colour: Any = _COLOUR,
    label: str | None = None,
) -> Axes:
    """Some paths of one input as lines, over the central band of all of them.

    **Arguments:** `paths`: any function that maps `n 1` to `*s n`, with at least two paths for a band; `x`: inputs, `n`;
    `ax`: the current one unless given; `level`: share of the paths in the band at each input; `n_shown`: how many are
    drawn as lines, spread evenly over all; `colour`; `label`: of the lines, for a legend.

    **Returns:** the Axes. **Raises:** ValueError where `x` is not a vector, `paths` gives other axes than `*s n` or a value
    that is not finite, or `level` is not between 0 and 1.
    """
    ax, x, values = _axes(ax), _inputs(x), _values(paths, x)
    _band(ax, x, values, _level(level), colour, 0.2)
    shown = values[
        np.unique(
            np.linspace(0, len(values) - 1, min(_checks.count(n_shown, "n_shown"), len(values))).round().astype(int)
        )
    ]
    lines = ax.plot(x, shown.T, color=colour, lw=0.7, alpha=0.6)
    lines[0].set_label(label or "_paths")
    return ax


def fan(
    paths: Callable[..., Any],
    x: Any,
    ax: Axes | None = None,
    *,
    levels: Sequence[float] = (0.5, 0.8, 0.95),
    colour: Any = _COLOUR,
    label: str | None = None,
) -> Axes:
    """Central bands of several levels, one over the other, and the median: of an ensemble, over all draws and paths.

    **Arguments:** as of `paths`; `levels`: shares of the paths in each band.

    **Returns:** the Axes. **Raises:** ValueError where `x` is not a vector, `paths` gives other axes than `*s n` or a value
    that is not finite, or a level is not between 0 and 1.
    """
    ax, x, values = _axes(ax), _inputs(x), _values(paths, x)
    checked = sorted((_level(level) for level in levels), reverse=True)
    if not checked:
        raise ValueError("`levels` must hold at least one level.")
    for level in checked:
        _band(ax, x, values, level, colour, 0.5 / len(checked))
    ax.plot(x, np.median(values, axis=0), color=colour, lw=1.6, label=label)
    return ax


def level_set_density(positions: Any, ax: Axes | None = None, *, bins: Any = 30, colour: Any = _COLOUR) -> Axes:
    """How many crossings of a level there are for each path and unit of the input, as a histogram.

    **Arguments:** `positions`: of the crossings of each path, `*s k`, NaN where a path has fewer: `locations` of
    `level_sets.crossings`; `ax`: the current one unless given; `bins`: a number of bins or their edges; `colour`.

    **Returns:** the Axes. **Raises:** ValueError where `positions` has another shape, or holds no crossing.
    """
    ax, positions = _axes(ax), np.asarray(positions)
    if positions.ndim < 2:
        raise ValueError(f"`positions` must have shape (*paths, crossings); got {positions.shape}.")
    positions = _flat(positions, 1)
    found = positions[np.isfinite(positions)]
    if not found.size:
        raise ValueError("`positions` holds no crossing.")
    edges = np.histogram_bin_edges(found, bins)
    heights = np.histogram(found, edges)[0] / (len(positions) * np.diff(edges))
    ax.stairs(heights, edges, fill=True, color=colour, alpha=0.6)
    return ax


def excursion(
    paths: Callable[..., Any],
    level: Any,
    bounds: Any,
    ax: Axes | None = None,
    *,
    n_points: int = 60,
    colour: Any = _COLOUR,
) -> Axes:
    """For two inputs, the share of the paths that are above a level at each point, and where it is one half.

    **Arguments:** `paths`: any function that maps `*n 2` to `*s *n`; `level`: a number; `bounds`: the lower and the upper
    corner, `2 2`; `ax`: the current one unless given; `n_points`: of the grid, along each input; `colour`: of the line.

    **Returns:** the Axes. **Raises:** ValueError where `bounds` is not of two inputs, or not in order.
    """
    ax, bounds = _axes(ax), np.asarray(bounds, float)
    if bounds.shape != (2, 2) or not (bounds[1] > bounds[0]).all():
        raise ValueError(
            f"`bounds` must hold a lower corner and an upper one of two inputs, shape (2, 2); got {bounds}."
        )
    x, y = np.linspace(bounds[0], bounds[1], _checks.count(n_points, "n_points")).T
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    above = _flat(np.asarray(paths(jnp.asarray(grid))) > float(level), 2).mean(axis=0)
    ax.pcolormesh(x, y, above, cmap="Greys", vmin=0, vmax=1, shading="gouraud", rasterized=True)
    ax.contour(x, y, above, levels=[0.5], colors=[colour], linewidths=1.4)
    return ax


def optimum(points: Any, ax: Axes | None = None, *, bins: Any = 30, colour: Any = _COLOUR) -> Axes:
    """Where the optima of paths are: of one input a histogram, of two a point for each.

    **Arguments:** `points`: those of `optimise.minimise`, `*s d` with d = 1 or 2 (of more, choose columns); `ax`: the current
    one unless given; `bins`: a number of bins or their edges; `colour`.

    **Returns:** the Axes. **Raises:** ValueError where `points` has another shape.
    """
    ax, points = _axes(ax), np.asarray(points)
    if points.ndim < 2 or points.shape[-1] not in (1, 2):
        raise ValueError(f"`points` must have shape (*s, 1) or (*s, 2); got {points.shape}. Choose columns to show.")
    points = _flat(points, 1)
    if points.shape[1] == 1:
        ax.hist(points[:, 0], bins, density=True, color=colour, alpha=0.6)
    else:
        ax.plot(*points.T, "o", color=colour, ms=3, alpha=0.5)
    return ax


def pit(values: Any, ax: Axes | None = None, *, bins: int = 10, colour: Any = _COLOUR) -> Axes:
    """Histogram of probability integral transforms, uniform for calibrated predictions, with the range in which 95 % of the
    bars of uniform ones lie.

    **Arguments:** `values`: between 0 and 1, as from `scores.pit`, `n`; `ax`: the current one unless given; `bins`: how many;
    `colour`.

    **Returns:** the Axes. **Raises:** ValueError where values are not a vector of numbers between 0 and 1.
    """
    from scipy import stats

    ax, values = _axes(ax), np.asarray(values)
    if values.ndim != 1 or not values.size or not ((values >= 0) & (values <= 1)).all():
        raise ValueError("`values` must be a vector of one or more numbers between 0 and 1.")
    bins, n = _checks.count(bins, "bins"), len(values)
    low, high = (float(stats.binom.ppf(share, n, 1 / bins)) * bins / n for share in (0.025, 0.975))
    ax.hist(values, np.linspace(0, 1, bins + 1).tolist(), density=True, color=colour, alpha=0.6)
    ax.axhspan(low, high, color="0.5", alpha=0.25, lw=0)
    ax.axhline(1, color="0.3", lw=0.8)
    return ax


def reliability(
    levels: Any,
    covered: Any,
    ax: Axes | None = None,
    *,
    n: int | None = None,
    colour: Any = _COLOUR,
    label: str | None = None,
) -> Axes:
    """The share of observations in central intervals against what it should be.

    **Arguments:** `levels`: of the intervals, `k`; `covered`: the shares, as from `scores.coverage`, `k`; `ax`: the current
    one unless given; `n`: how many observations there were, for two standard errors about the diagonal; `colour`; `label`.

    **Returns:** the Axes. **Raises:** ValueError where both are not vectors of one length.
    """
    ax, levels, covered = _axes(ax), np.asarray(levels), np.asarray(covered)
    if levels.ndim != 1 or levels.shape != covered.shape:
        raise ValueError(
            f"`levels` and `covered` must be vectors of one length; got {levels.shape} and {covered.shape}."
        )
    ideal = np.linspace(0, 1, 101)
    ax.plot(ideal, ideal, color="0.3", lw=0.8)
    if n is not None:
        width = 2 * np.sqrt(ideal * (1 - ideal) / _checks.count(n, "n"))
        ax.fill_between(ideal, ideal - width, ideal + width, color="0.5", alpha=0.2, lw=0)
    ax.plot(levels, covered, "o-", color=colour, ms=3, lw=1.2, label=label)
    return ax


def _axes(ax: Axes | None) -> Axes:
    return plt.gca() if ax is None else ax


def _inputs(x: Any) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim != 1:
        raise ValueError(
            f"`x` must be a vector of inputs; got shape {x.shape}. Plots over one input only are drawn here."
        )
    return x


def _level(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"A level is a share of the paths, between 0 and 1; got {level}.")
    return float(level)


def _values(paths: Callable[..., Any], x: np.ndarray) -> np.ndarray:
    """Values of all paths, with their axes made one."""
    inputs = jnp.asarray(x)[:, None]
    axes, _ = axes_of(paths, 1, inputs.dtype)
    values = np.asarray(paths(inputs))
    if not np.isfinite(values).all():
        raise ValueError("`paths` must be finite at `x`; got NaN or inf.")
    return values.reshape(math.prod(axes), len(x))


def _flat(values: np.ndarray, n_axes: int) -> np.ndarray:
    return values.reshape(-1, *values.shape[values.ndim - n_axes :])


def _band(ax: Axes, x: np.ndarray, values: np.ndarray, level: float, colour: Any, alpha: float) -> None:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    ax.fill_between(x, low, high, color=colour, alpha=alpha, lw=0)
