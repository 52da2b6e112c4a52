"""Coordinates that take finitely many values, and the search over them."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .. import _checks
from .._progress import ProgressBar
from .screen import first_of_blocks, violation_of

# Combinations of which each is searched for itself, and rounds of exchanges at most.
_FEW, _ROUNDS = 64, 200
# Entries of the points that are judged at once.
_ENTRIES = 2**22


class Grid(eqx.Module):
    """Groups of columns of a box, each with the rows of values that it takes. In the unit cube a group of m rows divides the
    sides of its columns into m cells, so that a search that moves no such coordinate stays at its values."""

    values: tuple[Float[Array, "_ _"], ...]
    columns: tuple[tuple[int, ...], ...] = eqx.field(static=True)

    def cells(self, U: Float[Array, "... d"]) -> list[Int[Array, "..."]]:
        """Of each group, the row that a point of the cube has."""
        each = [(U[..., columns[0]], len(rows)) for columns, rows in zip(self.columns, self.values, strict=True)]
        return [jnp.clip(jnp.floor(u * m).astype(int), 0, m - 1) for u, m in each]

    def place(self, X: Float[Array, "... d"], U: Float[Array, "... d"]) -> Float[Array, "... d"]:
        """Points of the box with the values of their cells."""
        for columns, rows, cell in zip(self.columns, self.values, self.cells(U), strict=True):
            X = X.at[..., columns].set(rows.astype(X.dtype)[cell])
        return X

    def centred(self, U: Float[Array, "... d"], cells: list[Any]) -> Float[Array, "... d"]:
        """Points of the cube in the middle of given cells."""
        for columns, rows, cell in zip(self.columns, self.values, cells, strict=True):
            middle = (jnp.asarray(cell).astype(U.dtype) + 0.5) / len(rows)
            U = U.at[..., columns].set(jnp.broadcast_to(middle[..., None], (*middle.shape, len(columns))))
        return U

    def nearest(self, U: Float[Array, "... d"], bounds: Float[Array, "2 d"]) -> Float[Array, "... d"]:
        """Points of the cube moved to the nearest rows of values."""
        cells = []
        for columns, rows in zip(self.columns, self.values, strict=True):
            lower, upper = bounds[:, None, columns]
            off = U[..., columns][..., None, :] - jnp.broadcast_to(
                (rows.astype(U.dtype) - lower) / (upper - lower), (*U.shape[:-1], *rows.shape)
            )
            cells.append(jnp.argmin(jnp.sum(off * off, axis=-1), axis=-1))
        return self.centred(U, cells)

    def combinations(self, p: int) -> int:
        """How many there are of p points."""
        return int(np.prod([len(rows) for rows in self.values], dtype=object)) ** p

    def dealt(self, U: Float[Array, "m p d"]) -> Float[Array, "m p d"]:
        """A design whose combinations follow one another, each for as many points of it."""
        m, p = U.shape[:2]
        k = self.combinations(p)
        sizes = [len(rows) for rows in self.values for _ in range(p)]
        cells = np.unravel_index(np.arange(m) * k // m, sizes)
        return self.centred(U, [np.stack(cells[g * p : (g + 1) * p], axis=1) for g in range(len(self.values))])

    def best_of_each(self, U: Float[Array, "m p d"], order: Float[Array, "s m"]) -> Int[Array, "s k"]:
        """Of each combination, the first of its points in an order."""
        p, code = U.shape[1], jnp.zeros(U.shape[0], int)
        for rows, cell in zip(self.values, self.cells(U), strict=True):
            for j in range(p):
                code = code * len(rows) + cell[:, j]
        first = lambda k: jnp.argmin(jnp.where(code[None, :] == k, order, jnp.inf), axis=1)
        return jax.lax.map(first, jnp.arange(self.combinations(p))).T

    def moves(self, p: int, d: int, dtype: Any) -> tuple[Bool[Array, "n v"], Float[Array, "n"]]:
        """All changes of one group of one of p points: which coordinates change, and to what."""
        masks, middles = [], []
        for columns, rows in zip(self.columns, self.values, strict=True):
            for j in range(p):
                mask = np.zeros((p, d), bool)
                mask[j, list(columns)] = True
                masks += [mask] * len(rows)
                middles += [(k + 0.5) / len(rows) for k in range(len(rows))]
        return jnp.asarray(np.stack(masks).reshape(-1, p * d)), jnp.asarray(middles, dtype)


def as_grid(discrete: Any, bounds: Float[Array, "2 d"]) -> Grid:
    """Columns, or tuples of columns, with their values."""
    if not isinstance(discrete, Mapping):
        raise ValueError(f"`discrete` must map columns to the values that they take; got {type(discrete).__name__}.")
    d, groups, found = bounds.shape[1], [], []
    for key, given in discrete.items():
        try:
            columns = tuple(operator.index(c) for c in (key if isinstance(key, tuple) else (key,)))
        except TypeError as e:
            raise ValueError(f"`discrete` must map columns, numbers from 0 or tuples of them; got {key!r}.") from e
        taken = [c for group in groups for c in group]
        if not columns or any(not 0 <= c < d for c in columns) or len({*columns, *taken}) < len(columns) + len(taken):
            raise ValueError(f"`discrete` must name each of the {d} columns once at most, from 0; got {key!r}.")
        values = _checks.floating(np.asarray(given) if isinstance(given, range) else given, "discrete")
        if values.ndim == 1 and not isinstance(key, tuple):
            values = values[:, None]
        if values.ndim != 2 or values.shape[1] != len(columns) or values.shape[0] == 0:
            wanted = f"rows of {len(columns)} values" if isinstance(key, tuple) else "a vector of values"
            raise ValueError(f"`discrete[{key!r}]` must be {wanted}, one or more; got shape {values.shape}.")
        _checks.finite(values, f"discrete[{key!r}]")
        groups.append(columns)
        within = _within(values, bounds, columns)
        found.append(_checks.require(within, values, f"`discrete[{key!r}]` must lie within `bounds`."))
    if not groups:
        raise ValueError("`discrete` must name a column, or be None; it is empty.")
    return Grid(tuple(found), tuple(groups))


@eqx.filter_jit
def _within(values: Float[Array, "m k"], bounds: Float[Array, "2 d"], columns: tuple[int, ...]) -> Bool[Array, ""]:
    lower, upper = bounds[:, None, columns].astype(values.dtype)
    return jnp.all((values >= lower) & (values <= upper))


def few(grid: Grid | None, p: int, n_screen: int) -> bool:
    """Whether each combination is searched for itself."""
    return grid is not None and grid.combinations(p) <= min(_FEW, n_screen)


def alternate(
    solve: Callable[..., Any],
    evaluate: Callable[..., Any],
    grid: Grid,
    starts: Float[Array, "s r v"],
    p: int,
    tolerance: Float[Array, ""],
    progress: bool,
) -> tuple[Float[Array, "s r v"], Float[Array, "j s r"], Bool[Array, "s r"]]:
    """Local minima: descents in the coordinates that are free, each followed by the change of one group of one point that
    gains most, until none does."""
    s, r, v = starts.shape
    bar = ProgressBar(_ROUNDS, "exchange") if progress else None
    mask, middle = grid.moves(p, v // p, starts.dtype)
    margin = 64 * jnp.finfo(starts.dtype).eps

    def judged(U: Float[Array, "s n v"]) -> tuple[Float[Array, "s n"], Float[Array, "s n"]]:
        """How far a point is from what is allowed, beyond the tolerance, and its value; NaN is inf."""
        f, excess = jax.lax.stop_gradient(evaluate(U))
        violation = violation_of(list(excess), f)
        violation = jnp.where(violation <= tolerance, jnp.zeros_like(violation), violation)
        unknown = jnp.isnan(f) | jnp.isnan(violation)
        return jnp.where(unknown, jnp.inf, violation), jnp.where(unknown, jnp.inf, f)

    def lower(new: Any, old: Any) -> Bool[Array, "s r"]:
        gains = new[1] < old[1] - margin * jnp.maximum(1, jnp.abs(new[1]))
        return (new[0] < old[0]) | ((new[0] == old[0]) & gains)

    def going(state: Any) -> Bool[Array, ""]:
        return (state[-1] < _ROUNDS) & jnp.any(state[-2])

    def round_(state: Any) -> Any:
        U, multipliers, solved, before, proposal, still, number = state
        moved, weights, done = solve(proposal)
        there = judged(moved)
        taken = still & lower(there, before)
        pick = lambda new, old: jnp.where(taken, new, old)
        U = jnp.where(taken[:, :, None], moved, U)
        before = tuple(pick(new, old) for new, old in zip(there, before, strict=True))

        def judge(of: Int[Array, "b"]) -> tuple[Float[Array, "l b"], Float[Array, "l b"]]:
            near = jnp.where(mask[of][None, None], middle[of][None, None, :, None], U[:, :, None])
            violation, f = judged(near.reshape(s, r * of.size, v))
            return violation.reshape(s * r, -1), f.reshape(s * r, -1)

        *best, where = first_of_blocks(judge, middle.size, _ENTRIES // (s * r * v), U[:, :, 0].reshape(-1))
        still = taken & lower([a.reshape(s, r) for a in best], before)
        where = where.reshape(s, r)
        proposal = jnp.where(mask[where], middle[where][:, :, None], U)
        following = U, pick(weights, multipliers), pick(done, solved), before, proposal, still, number + 1
        if bar is not None:
            bar.report(number + 1, ~going(following), f"{{}} of {s * r} searches going on", jnp.sum(still))
        return following

    unknown, yes = jnp.full((s, r), jnp.inf, starts.dtype), jnp.ones((s, r), bool)
    none = jnp.zeros_like(jax.lax.stop_gradient(evaluate(starts)[1]))
    state = (starts, none, ~yes, (unknown, unknown), starts, yes, 0)
    U, multipliers, solved, *_, still, _ = jax.lax.while_loop(going, round_, state)
    return U, multipliers, solved & ~still
