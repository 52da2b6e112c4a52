"""Optima over a list of points."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .. import _checks
from .._paths.paired import axes_of
from .._types import AnyArray
from .base import Choice
from .problem import functions, Problem, Sets, still
from .screen import first_of_blocks, range_of, violation_of

# Values of all paths that are made at once.
_VALUES = 2**20


def minimise_over(
    paths: Callable[..., Any],
    choices: Float[AnyArray, "m d"],
    *,
    constraints: Callable[..., Any] | Sequence[Callable[..., Any]] = (),
) -> Choice:
    """The least value of each path among the points of a list, exactly: of two that are as good, the first.

    Nothing is drawn and nothing is searched: of m choices each path is evaluated at all, a block of them at a time. It is
    Thompson sampling where only what is in a list can be evaluated. `values` has the derivative of the path at its choice.

    **Arguments:** `paths`: as of `minimise`; `choices`: the list, `m d`; `constraints`: g ≤ 0, as of `minimise`: they have to
    hold without a tolerance.

    **Returns:** a choice for each path. Where none is feasible it is the one of least violation, `feasible` is False; choices
    whose value is NaN come last.

    **Raises:** ValueError where `choices` are not `m d` and finite, the paths do not map `n d` to `*s n`, or the axes of the
    constraints are others.
    """
    return _checked(paths, choices, constraints, False)


def maximise_over(
    paths: Callable[..., Any],
    choices: Float[AnyArray, "m d"],
    *,
    constraints: Callable[..., Any] | Sequence[Callable[..., Any]] = (),
) -> Choice:
    """The largest value of each path among the points of a list; constraints are still g ≤ 0.

    **Arguments:**, **Returns:** and **Raises:** as of `minimise_over`.
    """
    return _checked(paths, choices, constraints, True)


def _checked(paths: Any, choices: Any, constraints: Any, maximise: bool) -> Choice:
    return _over(paths, _checks.points(choices, "choices"), functions(constraints, "constraints"), maximise)


@eqx.filter_jit
def _over(paths: Any, choices: Float[Array, "m d"], constraints: tuple[Any, ...], maximise: bool) -> Choice:
    m, d = choices.shape
    moving = Problem(paths, constraints, Sets(), d, choices.dtype)
    dtype = axes_of(paths, d, choices.dtype)[1]
    problem, choices = still((moving, choices.astype(dtype)))
    s = math.prod(problem.axes)
    rows = max(1, _VALUES // max(s, 1))

    def block(of: Int[Array, "b"]) -> tuple[Float[Array, "s b"], list[Float[Array, "s b"]]]:
        f, g = problem.screen(choices[of][:, None])
        return -f if maximise else f, [one[:, :, 0] for one in g]

    def end(j: int, sign: int) -> Float[Array, "s"]:
        """The least of a constraint over the list, or of what it is with another sign."""

        def alone(of: Int[Array, "b"]) -> tuple[Float[Array, "s b"], Float[Array, "s b"]]:
            g = block(of)[1][j]
            return jnp.zeros_like(g), jnp.where(jnp.isfinite(g), sign * g, jnp.nan)

        return first_of_blocks(alone, m, rows, like)[1]

    like = jnp.zeros(s, dtype)
    widths = [range_of(jnp.stack([end(j, 1), -end(j, -1)], axis=1)) for j in range(len(constraints))]

    def judge(of: Int[Array, "b"]) -> tuple[Float[Array, "s b"], Float[Array, "s b"]]:
        f, g = block(of)
        return violation_of([one / width for one, width in zip(g, widths, strict=True)], f), f

    violation, _, chosen = first_of_blocks(judge, m, rows, like)
    points = choices[chosen]
    values = moving.at(points[:, None, None])[0][:, 0]
    axes = problem.axes
    return Choice(
        points.reshape(*axes, d),
        values.reshape(axes),
        jnp.isfinite(values).reshape(axes),
        (violation <= 0).reshape(axes),
        chosen.reshape(axes),
    )
