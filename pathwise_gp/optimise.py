"""Optima of paths: of each path its own, all of them at once."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from . import _checks
from ._descent import descend
from ._numerics.sobol import sobol
from ._paths.paired import at_own_inputs, axes_of
from ._progress import ProgressBar
from ._types import AnyArray, Key, Number

# Of the augmented Lagrangian: rounds at most, the first weight of the penalty, and what it grows by where a round has not
# brought the violation down to a tenth.
_ROUNDS, _WEIGHT, _GROWTH, _ENOUGH = 20, 10.0, 10.0, 0.1
# What rounding leaves of the derivatives of a path through many points with little noise.
_TOLERANCE = 1e-5


class Optimum(NamedTuple):
    """The optimum of each path: a sample of the posterior over the optimum.

    **Fields:**

    - `points`: where it is, `*s d`; not differentiated: `jax.grad` through them gives zeros.
    - `values`: of the path there, `*s`.
    - `converged`: whether the conditions of first order hold there, `*s`.
    - `feasible`: whether all constraints hold there, `*s`; True where there are none.
    """

    points: Float[Array, "*s d"]
    values: Float[Array, "*s"]
    converged: Bool[Array, "*s"]
    feasible: Bool[Array, "*s"]


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
    progress: bool = False,
) -> Optimum:
    """The least value of each path in a box, and where it is taken: min f_i(x) subject to lower ≤ x ≤ upper and g_ij(x) ≤ 0.

    All paths are screened at the same scrambled Sobol points. From the best of them, which lie apart, a projected L-BFGS
    descends, every start of every path at once, in one compiled call. Optima on the boundary have coordinates equal to the
    bound. Constraints enter by an augmented Lagrangian. What is found is a local minimum, the least of those that the starts
    lead to. Other values of the same shapes compile nothing anew.

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
    - `progress`: whether a bar of tqdm shows the steps of the descent, or under constraints the rounds; it may end before all
      are taken.

    **Returns:** points, values and flags of each path. Where no feasible point was found, the point is the one of least
    violation and `feasible` is False. Where values are NaN, `converged` is False.

    **Raises:** ValueError where `bounds` are not `2 d`, finite and increasing, the paths do not map `n d` to `*s n`, the axes
    of the constraints are others, or a count is less than 1. Source: Bertsekas (1982), Projected Newton methods; Nocedal &
    Wright (2006), algorithms 7.4 and 17.4; Milgrom & Segal (2002) for the envelope theorem.
    """
    return _optimise_checked(
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
        progress=progress,
    )


def maximise(paths: Callable[..., Any], bounds: Float[AnyArray, "2 d"], key: Key, **options: Any) -> Optimum:
    """The largest value of each path in a box, and where it is taken; constraints are still g ≤ 0.

    **Arguments:**, **Returns:** and **Raises:** as of `minimise`.
    """
    return _optimise_checked(paths, bounds, key, True, **options)


def credible_intervals(optimum: Optimum, probability: Number = 0.9) -> tuple[Float[Array, "2 d"], Float[Array, "2"]]:
    """Central intervals of each coordinate of the optimum, and of its value, over all paths with a feasible one that is
    finite, whether the search has converged or not.

    Where the optimum may be in several places the intervals span them: look at `optimum.points` too.

    **Arguments:** `optimum`: of at least one path axis; `probability`: of each interval, between 0 and 1.

    **Returns:** lower and upper ends for the location, `2 d`, and for the value, `2`. **Raises:** ValueError where
    `probability` is not between 0 and 1, there is one path only, or none has such an optimum (at run time under jit).
    """
    if optimum.values.ndim == 0:
        raise ValueError("`optimum` must be of several paths; got that of one.")
    probability = _checks.floating(probability, "probability").astype(optimum.values.dtype)
    if _checks.is_concrete(probability) and not (probability.ndim == 0 and 0 < float(probability) < 1):
        raise ValueError(f"`probability` must be a number between 0 and 1; got {probability}.")
    used = (optimum.feasible & jnp.isfinite(optimum.values)).reshape(-1)
    ends = jnp.stack([(1 - probability) / 2, (1 + probability) / 2])

    def interval(samples: Float[Array, "s"]) -> Float[Array, "2"]:
        return jnp.nanquantile(jnp.where(used, samples, jnp.nan), ends)

    message = "`optimum` must have a path with a feasible and finite optimum."
    points = _checks.require(jnp.any(used), optimum.points.reshape(-1, optimum.points.shape[-1]), message)
    return jax.vmap(interval, in_axes=1, out_axes=1)(points), interval(optimum.values.reshape(-1))


class _Settings(NamedTuple):
    n_screen: int
    n_restarts: int
    max_steps: int
    maximise: bool
    progress: bool


def _optimise_checked(
    paths: Any,
    bounds: Any,
    key: Any,
    maximise: bool,
    *,
    n_screen: Any = 2048,
    n_restarts: Any = 16,
    max_steps: Any = 200,
    tolerance: Any = None,
    constraints: Any = (),
    candidates: Any = None,
    progress: Any = False,
) -> Optimum:
    bounds = _checks.bounds(bounds)
    if not callable(constraints) and not isinstance(constraints, Iterable):
        raise ValueError(f"`constraints` must be a function or a sequence of functions; got {constraints!r}.")
    constraints = (constraints,) if callable(constraints) else tuple(constraints)
    if candidates is not None:
        candidates = _checks.inputs(_checks.points(candidates, "candidates"), bounds.shape[1], "candidates")
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
    return _optimise(paths, bounds, key, tolerance, constraints, candidates, settings)


@eqx.filter_jit
def _optimise(
    paths: Any,
    bounds: Float[Array, "2 d"],
    key: Any,
    tolerance: Float[Array, ""] | None,
    constraints: tuple[Any, ...],
    candidates: Float[Array, "m d"] | None,
    settings: _Settings,
) -> Optimum:
    shape, dtype = axes_of(paths, bounds.shape[1], bounds.dtype)
    axes = [axes_of(constraint, bounds.shape[1], bounds.dtype, "constraints")[0] for constraint in constraints]
    for found in axes:
        if found not in (shape, ()):
            raise ValueError(f"`constraints` must have the axes of `paths`, {shape}, or none; got {found}.")
    s, d = math.prod(shape), bounds.shape[1]
    sign = -1 if settings.maximise else 1
    # The search goes on for as long as rounding lets it, unless it is told to end before.
    aim = jnp.asarray(jnp.finfo(dtype).eps ** 0.5 if tolerance is None else tolerance, dtype)
    tolerance = jnp.maximum(aim, _TOLERANCE) if tolerance is None else aim
    # The envelope theorem: the search is not differentiated.
    still, still_constraints, bounds, candidates = _still((paths, constraints, bounds.astype(dtype), candidates))

    def inside(U: Float[Array, "... d"]) -> Float[Array, "... d"]:
        """Points of the unit cube in the box; this form meets both bounds exactly."""
        lower, upper = bounds.reshape(2, *(1,) * (U.ndim - 1), d)
        return lower * (1 - U) + upper * U

    design = sobol(key, settings.n_screen, d).astype(dtype) / 2.0**32
    if candidates is not None:
        given = (candidates.astype(dtype) - bounds[:1]) / (bounds[1:] - bounds[:1])
        design = jnp.concatenate([design, jnp.clip(given, 0, 1)])
    screened = [
        jnp.broadcast_to(f(inside(design)).reshape(-1, design.shape[0]), (s, design.shape[0]))
        for f in (still, *still_constraints)
    ]
    ranges = [_range(values) for values in screened]
    objective = sign * screened[0] / ranges[0]
    violation = _violation([g / scale for g, scale in zip(screened[1:], ranges[1:], strict=True)], objective)
    starts = _starts(design, _merit(objective, violation), settings.n_restarts)  # s r d

    def at(function: Any, axes: tuple[int, ...], X: Float[Array, "s r d"]) -> Float[Array, "s r"]:
        return at_own_inputs(function, X.reshape(*shape, *X.shape[1:]), axes).reshape(X.shape[:2])

    def evaluate(U: Float[Array, "s r d"]) -> tuple[Float[Array, "s r"], Float[Array, "j s r"]]:
        X = inside(U)
        g_at = zip(still_constraints, axes, ranges[1:], strict=True)
        values = [at(g, found, X) / scale for g, found, scale in g_at]
        excess = jnp.stack(values) if values else jnp.zeros((0, *X.shape[:2]), dtype)
        return sign * at(still, shape, X) / ranges[0], excess

    if constraints:
        U, multipliers, solved = _augmented_lagrangian(evaluate, starts, aim, tolerance, settings)
        # Where no search ends in a feasible point, a start may be one.
        U, solved = jnp.concatenate([U, starts], axis=1), jnp.concatenate([solved, jnp.zeros_like(solved)], axis=1)
        multipliers = jnp.concatenate([multipliers, jnp.zeros_like(multipliers)], axis=2)
    else:
        bar = ProgressBar(settings.max_steps, "step") if settings.progress else None
        U, slope = descend(lambda U: evaluate(U)[0], starts, aim, settings.max_steps, bar)
        solved = slope <= tolerance
        multipliers = jnp.zeros((0, *solved.shape), dtype)
    values, excess = evaluate(U)
    violation = _violation(list(excess), values)
    met = violation <= tolerance
    searched = jnp.arange(met.shape[1])[None, :] < settings.n_restarts
    passed_over = ~searched & jnp.any(met & searched, axis=1, keepdims=True)
    excess_of = jnp.where(passed_over, jnp.inf, jnp.where(met, jnp.zeros_like(violation), violation))
    best = jnp.argmin(_merit(values, excess_of), axis=1)
    pick = lambda a: jnp.take_along_axis(a, best[:, None], axis=1)[:, 0]
    points = inside(jnp.take_along_axis(U, best[:, None, None], axis=1))  # s 1 d

    values = at(paths, shape, points)[:, 0]
    for j, constraint in enumerate(constraints):
        # The derivative of the Lagrangian in what the constraints depend on; the value is that of the path.
        weight = sign * pick(multipliers[j]) * ranges[0][:, 0] / ranges[1 + j][:, 0]
        g = at(constraint, axes[j], points)[:, 0]
        values = values + weight * (g - jax.lax.stop_gradient(g))
    return Optimum(
        points[:, 0].reshape(*shape, d),
        values.reshape(shape),
        (pick(solved) & pick(met)).reshape(shape),
        pick(met).reshape(shape),
    )


def _still(tree: Any) -> Any:
    """The same, not to be differentiated."""
    numbers, rest = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.lax.stop_gradient(numbers), rest)


def _range(values: Float[Array, "s m"]) -> Float[Array, "s 1"]:
    """Largest less smallest finite value of each path; 1 where they are all the same."""
    seen = jnp.isfinite(values)
    top = jnp.max(jnp.where(seen, values, -jnp.inf), axis=1, keepdims=True)
    width = top - jnp.min(jnp.where(seen, values, jnp.inf), axis=1, keepdims=True)
    return jnp.where((width > 0) & jnp.isfinite(width), width, jnp.ones_like(width))


def _violation(excess: list[Float[Array, "s m"]], like: Float[Array, "s m"]) -> Float[Array, "s m"]:
    """The largest amount by which a constraint is exceeded."""
    total = jnp.zeros_like(like)
    for g in excess:
        total = jnp.maximum(total, g)  # a NaN stays
    return total


def _merit(values: Float[Array, "s m"], violation: Float[Array, "s m"]) -> Float[Array, "s m"]:
    """An order in which what is feasible comes first, by its value, then the rest by its violation, and NaN last."""
    top = jnp.max(jnp.where(jnp.isfinite(values), values, -jnp.inf), axis=1, keepdims=True)
    top = jnp.where(jnp.isfinite(top), top, jnp.zeros_like(top))
    merit = jnp.where(violation > 0, top + violation, values)
    return jnp.where(jnp.isnan(values) | jnp.isnan(violation), jnp.inf, merit)


def _starts(design: Float[Array, "m d"], merit: Float[Array, "s m"], n_restarts: int) -> Float[Array, "s r d"]:
    """The best points of a design, each farther from those before it than points of the design are from each other."""
    m, d = design.shape
    apart = m ** (-2.0 / d)

    def next_best(order: Float[Array, "s m"], _: Any) -> tuple[Float[Array, "s m"], Int[Array, "s"]]:
        best = jnp.argmin(order, axis=1)
        square = jnp.sum((design[None, :, :] - design[best][:, None, :]) ** 2, axis=2)
        # What is near comes after all else; what was taken, last of all.
        finite = jnp.where(jnp.isfinite(order), order, jnp.zeros_like(order))
        behind = 1 + jnp.max(finite, axis=1, keepdims=True) - jnp.min(finite, axis=1, keepdims=True)
        order = jnp.where(square < apart, order + behind, order)
        return order.at[jnp.arange(order.shape[0]), best].set(jnp.inf), best

    _, chosen = jax.lax.scan(next_best, merit, length=n_restarts)
    return design[chosen.T]


def _augmented_lagrangian(
    evaluate: Callable[..., Any],
    starts: Float[Array, "s r d"],
    aim: Float[Array, ""],
    tolerance: Float[Array, ""],
    settings: _Settings,
) -> tuple[Float[Array, "s r d"], Float[Array, "j s r"], Bool[Array, "s r"]]:
    """Points, multipliers and flags of min f(u) with g(u) ≤ 0: rounds of min f + Σ max(0, λ + ρ g)² / 2ρ, after each of which
    λ becomes max(0, λ + ρ g)."""
    excess = lambda U: jax.lax.stop_gradient(evaluate(U)[1])
    bar = ProgressBar(_ROUNDS, "round") if settings.progress else None

    def going(state: Any) -> Bool[Array, ""]:
        *_, solved, number = state
        return (number < _ROUNDS) & ~jnp.all(solved)

    def round_(state: Any) -> Any:
        U, multipliers, weight, before, left, solved, number = state

        def lagrangian(U: Float[Array, "s r d"]) -> Float[Array, "s r"]:
            f, g = evaluate(U)
            shifted = jnp.maximum(multipliers + weight[None] * g, 0)
            return f + jnp.sum(shifted * shifted, axis=0) / (2 * weight)

        # Early rounds need no exact answers.
        target = jnp.maximum(aim, 0.1 ** (number + 1.0).astype(aim.dtype))
        moved, slope = descend(lagrangian, U, target, settings.max_steps)
        g = excess(moved)
        updated = jnp.maximum(multipliers + weight[None] * g, 0)
        # How far complementarity and feasibility are from holding.
        off = jnp.max(jnp.abs(jnp.maximum(g, -multipliers / weight[None])), axis=0)
        stays = solved[None, :, :]
        grown = jnp.where((off > _ENOUGH * before) & (off > aim), weight * _GROWTH, weight)
        largest = jnp.asarray(1 / aim, weight.dtype)
        following = (
            jnp.where(solved[:, :, None], U, moved),
            jnp.where(stays, multipliers, updated),
            jnp.minimum(jnp.where(solved, weight, grown), largest),
            jnp.where(solved, before, off),
            jnp.where(solved, left, slope),
            solved | (jnp.maximum(slope, off) <= aim),
            number + 1,
        )
        if bar is not None:
            text = f"{{}} of {solved.size} searches solved"
            bar.report(number + 1, ~going(following), text, jnp.sum(following[-2]))
        return following

    weight = jnp.full(starts.shape[:2], _WEIGHT, starts.dtype)
    unsolved = jnp.zeros(weight.shape, bool)
    state = (
        starts,
        jnp.zeros_like(excess(starts)),
        weight,
        jnp.full_like(weight, jnp.inf),
        jnp.full_like(weight, jnp.inf),
        unsolved,
        0,
    )
    U, multipliers, _, off, slope, _, _ = jax.lax.while_loop(going, round_, state)
    return U, multipliers, jnp.maximum(slope, off) <= tolerance
