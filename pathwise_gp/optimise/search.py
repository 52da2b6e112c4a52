"""The search for optima in a box."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .. import _checks
from .._descent import descend
from .._numerics.sobol import sobol
from .._paths.paired import axes_of
from .._progress import ProgressBar
from .._types import AnyArray, Key, Number
from .base import Optimum
from .lagrangian import augmented_lagrangian
from .mixed import alternate, as_grid, few, Grid
from .problem import functions, Problem, Sets, sets_of, sets_that_meet, still
from .screen import merit_of, range_of, starts_of, violation_of

# What rounding leaves of the derivatives of a path through many points with little noise.
_TOLERANCE = 1e-5


def minimise(
    paths: Callable[..., Any],
    bounds: Float[AnyArray, "2 d"],
    key: Key,
    *,
    n_screen: int = 2048,
    n_restarts: int = 16,
    max_steps: int = 200,
    tolerance: Number | None = None,
    constraints: Callable[..., Any] | Sequence[Callable[..., Any]] = (),
    candidates: Float[AnyArray, "m d"] | None = None,
    discrete: Mapping[Any, Any] | None = None,
    progress: bool = False,
) -> Optimum:
    """The least value of each path in a box, and where it is taken: min f_i(x) subject to lower ≤ x ≤ upper and g_ij(x) ≤ 0.

    All paths are screened at the same scrambled Sobol points. From the best of them, which lie apart, a projected L-BFGS
    descends, every start of every path at once, in one compiled call. Optima on the boundary have coordinates equal to the
    bound. Constraints enter by an augmented Lagrangian. What is found is a local minimum, the least of those that the starts
    lead to. Other values of the same shapes compile nothing anew.

    With discrete columns a descent in the others is followed by the change of one of them that lowers the value most, and so
    on until none does: no such change lowers what is found. Up to 64 combinations of values are each a start as well, from
    the best point of their own part of the design; more are a local search from `n_restarts` starts.

    By the envelope theorem the derivative of `values` in the leaves of the paths is that of the paths (under constraints of
    the Lagrangian) at the optimum held fixed; the search is not differentiated, and bounds count as constants.

    **Arguments:**

    - `paths`: a function that maps `*n d` to `*s *n`: paths, an ensemble, an acquisition, or any other. Of something with a
      method `paired` each path is evaluated at its own points alone; of other functions all s at the points of each, at s
      times the cost. A function that is no pytree of arrays is compiled anew for each new object.
    - `bounds`: the lower bounds and the upper, `2 d`.
    - `key`: of the design, used up.
    - `n_screen`: points of the design; `n_restarts`: starts for each path, at most `n_screen`.
    - `max_steps`: evaluations of each start at most; under constraints in each round of the augmented Lagrangian.
    - `tolerance`: a start has converged where no derivative that the bounds leave free, times the width of the box, is larger
      than this times the range of the path's values in the screen; under constraints that of the Lagrangian, while they may
      be exceeded by this times their range. 1e-5, or the square root of the rounding unit where that is more, unless given.
    - `constraints`: one function or several, which map `*n d` to `*s *n`: path i of theirs belongs to path i of `paths`;
      or to `*n`, where they are known.
    - `candidates`: further points that are screened, `m d`, such as those where the best was observed; coordinates outside
      the bounds are moved to them.
    - `discrete`: what some columns take instead of all that is between their bounds: for a column its values, `m`, in units
      of the input and within the bounds, such as `{2: range(1, 9)}`; for a tuple of columns the rows that they take together,
      such as `{(0, 3): rows}` with rows `m 2`. Candidates are moved to the nearest.
    - `progress`: whether a bar of tqdm shows the steps of the descent, or under constraints or with discrete columns the
      rounds; it may end before all are taken.

    **Returns:** points, values and flags of each path. Where no feasible point was found, the point is the one of least
    violation and `feasible` is False. Where values are NaN, `converged` is False.

    **Raises:** ValueError where `bounds` are not `2 d`, finite and increasing, the paths do not map `n d` to `*s n`, the axes
    of the constraints are others, or a count is less than 1. Source: Bertsekas (1982), Projected Newton methods; Nocedal &
    Wright (2006), algorithms 7.4 and 17.4; Milgrom & Segal (2002) for the envelope theorem.
    """
    return _of_one(
        paths,
        bounds,
        key,
        False,
        n_screen=n_screen,
        n_restarts=n_restarts,
        max_steps=max_steps,
        tolerance=tolerance,
        constraints=constraints,
        candidates=candidates,
        discrete=discrete,
        progress=progress,
    )


def maximise(paths: Callable[..., Any], bounds: Float[AnyArray, "2 d"], key: Key, **options: Any) -> Optimum:
    """The largest value of each path in a box, and where it is taken; constraints are still g ≤ 0.

    **Arguments:**, **Returns:** and **Raises:** as of `minimise`.
    """
    return _of_one(paths, bounds, key, True, **options)


def _of_one(paths: Any, bounds: Any, key: Any, maximise: bool, **options: Any) -> Optimum:
    found = search(paths, bounds, _checks.key(key), maximise, Sets(), **options)
    return found._replace(points=found.points.reshape(*found.values.shape, -1))


class _Settings(NamedTuple):
    n_screen: int
    n_restarts: int
    max_steps: int
    maximise: bool
    progress: bool


def search(
    paths: Any,
    bounds: Any,
    key: Any,
    maximise: bool,
    sets: Sets,
    *,
    n_screen: Any = 2048,
    n_restarts: Any = 16,
    max_steps: Any = 200,
    tolerance: Any = None,
    constraints: Any = (),
    candidates: Any = None,
    progress: Any = False,
    discrete: Any = None,
) -> Optimum:
    """The optima of functions of sets of points, of which `paths` takes all coordinates, one after the other: its points are
    `*s q d`. Constraints are those of each point; what is joint is in `sets`."""
    bounds = _checks.bounds(bounds)
    constraints = functions(constraints, "constraints")
    if candidates is not None:
        candidates = as_sets(candidates, sets.kept, bounds.shape[1])
    n_screen, n_restarts = _checks.count(n_screen, "n_screen"), _checks.count(n_restarts, "n_restarts")
    max_steps, progress = _checks.count(max_steps, "max_steps"), _checks.flag(progress, "progress")
    settings = _Settings(n_screen, n_restarts, max_steps, maximise, progress)
    if n_restarts > n_screen:
        raise ValueError(f"`n_restarts` must be at most `n_screen`, {n_screen}; got {n_restarts}.")
    if tolerance is not None:
        tolerance = _checks.floating(tolerance, "tolerance")
        if tolerance.ndim:
            raise ValueError(f"`tolerance` must be a scalar; got shape {tolerance.shape}.")
        _checks.positive(tolerance, "tolerance")
    grid = None if discrete is None else as_grid(discrete, bounds)
    return _search(paths, bounds, key, tolerance, constraints, candidates, grid, sets, settings)


def as_sets(candidates: Any, q: int, dim: int) -> Float[Array, "..."]:
    """Candidates that are points, `m d`, or sets of q of them, `m q d`."""
    found = _checks.floating(candidates, "candidates")
    if found.ndim != 3:
        return _checks.inputs(_checks.points(candidates, "candidates"), dim, "candidates")
    if found.shape[1] != q:
        raise ValueError(f"`candidates` must be points, `m d`, or sets of {q} of them, `m {q} d`; got {found.shape}.")
    points = _checks.points(found.reshape(-1, found.shape[-1]), "candidates")
    return _checks.inputs(points, dim, "candidates").reshape(found.shape)


@eqx.filter_jit
def _search(
    paths: Any,
    bounds: Float[Array, "2 d"],
    key: Any,
    tolerance: Float[Array, ""] | None,
    constraints: tuple[Any, ...],
    candidates: Float[Array, "..."] | None,
    grid: Grid | None,
    sets: Sets,
    settings: _Settings,
) -> Optimum:
    p, q, d = sets.inputs, sets.kept, bounds.shape[1]
    moving = Problem(paths, constraints, sets, d, bounds.dtype)
    dtype = axes_of(paths, p * d, bounds.dtype)[1]
    # The envelope theorem: the search is not differentiated.
    numbers = (moving, bounds.astype(dtype), candidates, grid, sets.design)
    problem, bounds, candidates, grid, given = still(numbers)
    sign = -1 if settings.maximise else 1
    # The search goes on for as long as rounding lets it, unless it is told to end before.
    aim = jnp.asarray(jnp.finfo(dtype).eps ** 0.5 if tolerance is None else tolerance, dtype)
    tolerance = jnp.maximum(aim, _TOLERANCE) if tolerance is None else aim

    def inside(U: Float[Array, "... p d"]) -> Float[Array, "... p d"]:
        """Points of the unit cube in the box; this form meets both bounds exactly."""
        lower, upper = bounds.reshape(2, *(1,) * (U.ndim - 1), d)
        X = lower * (1 - U) + upper * U
        return X if grid is None else grid.place(X, U)

    def in_cube(X: Float[Array, "... d"]) -> Float[Array, "... d"]:
        lower, upper = bounds.reshape(2, *(1,) * (X.ndim - 1), d)
        U = jnp.clip((X.astype(dtype) - lower) / (upper - lower), 0, 1)
        return U if grid is None else grid.nearest(U, bounds)

    each = grid if given is None and few(grid, p, settings.n_screen) else None
    if given is not None:
        design = in_cube(given)
    else:
        of_design, of_sets, of_candidates = jax.random.split(key, 3) if p > 1 else (key, key, key)
        design = (sobol(of_design, settings.n_screen, p * d).astype(dtype) / 2.0**32).reshape(-1, p, d)
        if grid is not None:
            design = each.dealt(design) if each is not None else grid.centred(design, grid.cells(design))
        if p > 1 and constraints:
            design = sets_that_meet(problem.allows(inside(design)), of_sets, design)
        if candidates is not None:
            wanted = in_cube(candidates)
            wanted = sets_of(wanted, of_candidates, design) if wanted.ndim == 2 and p > 1 else wanted.reshape(-1, p, d)
            design = jnp.concatenate([design, wanted])
    screened, held = problem.screen(inside(design))
    width, widths = range_of(screened), [range_of(g.reshape(g.shape[0], -1)) for g in held]
    scale = lambda found: [g / wide[:, :, None] for g, wide in zip(found, widths, strict=True)]
    objective = sign * screened / width
    violation = violation_of([jnp.max(g, axis=2) for g in scale(held)], objective)
    order = merit_of(objective, violation)
    starts = starts_of(design.reshape(-1, p * d), order, settings.n_restarts)  # s r v
    if each is not None:
        starts = jnp.concatenate([starts, design.reshape(-1, p * d)[each.best_of_each(design, order)]], axis=1)

    def evaluate(U: Float[Array, "s r v"]) -> tuple[Float[Array, "s r"], Float[Array, "j s r"]]:
        values, found = problem.at(inside(U.reshape(*U.shape[:2], p, d)))
        excess = jnp.concatenate([jnp.zeros((*U.shape[:2], 0), dtype), *scale(found)], axis=2)
        return sign * values / width, jnp.moveaxis(excess, 2, 0)

    def solve(U: Float[Array, "s r v"]) -> tuple[Float[Array, "s r v"], Float[Array, "j s r"], Bool[Array, "s r"]]:
        shown = settings.progress and grid is None
        if held:
            return augmented_lagrangian(evaluate, U, aim, tolerance, settings.max_steps, shown)
        bar = ProgressBar(settings.max_steps, "step") if shown else None
        U, slope = descend(lambda U: evaluate(U)[0], U, aim, settings.max_steps, bar)
        return U, jnp.zeros((0, *slope.shape), dtype), slope <= tolerance

    if grid is None:
        U, multipliers, solved = solve(starts)
    else:
        U, multipliers, solved = alternate(solve, evaluate, grid, starts, p, tolerance, settings.progress)
    if held:  # where no search ends in a feasible point, a start may be one
        U, solved = jnp.concatenate([U, starts], axis=1), jnp.concatenate([solved, jnp.zeros_like(solved)], axis=1)
        multipliers = jnp.concatenate([multipliers, jnp.zeros_like(multipliers)], axis=2)
    values, excess = evaluate(U)
    violation = violation_of(list(excess), values)
    met = violation <= tolerance
    searched = jnp.arange(met.shape[1])[None, :] < starts.shape[1]
    passed_over = ~searched & jnp.any(met & searched, axis=1, keepdims=True)
    excess_of = jnp.where(passed_over, jnp.inf, jnp.where(met, jnp.zeros_like(violation), violation))
    best = jnp.argmin(merit_of(values, excess_of), axis=1)
    pick = lambda a: jnp.take_along_axis(a, best[:, None], axis=1)[:, 0]
    points = inside(jnp.take_along_axis(U, best[:, None, None], axis=1).reshape(-1, 1, p, d))

    values, found = moving.at(points)
    values, met_there = values[:, 0], jnp.ones_like(values[:, 0], bool)
    if found:
        excess = jnp.concatenate(scale(found), axis=2)[:, 0]  # s j
        # The derivative of the Lagrangian in what the constraints depend on; the value is that of the path.
        weight = sign * width * jax.vmap(pick, out_axes=1)(multipliers)
        values = values + jnp.sum(weight * (excess - jax.lax.stop_gradient(excess)), axis=1)
        # What is asked of the points that are returned, asked of them.
        met_there = jnp.all(excess[:, problem.returned()] <= tolerance, axis=1)
    axes = problem.axes
    return Optimum(
        points[:, 0, :q].reshape(*axes, q, d),
        values.reshape(axes),
        (pick(solved) & pick(met) & met_there).reshape(axes),
        met_there.reshape(axes),
    )
