"""What is searched: a function of one point or of several, and what constrains them."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._paths.paired import at_own_inputs, axes_of, UNLIKELY
from .._types import Key


class Sets(NamedTuple):
    """Of what a search is: how many points the function takes, how many of them are returned, the constraints that these meet
    together, which map `*n q d` to `*n`, and the sets `m p d` that are screened, unless that is a design of the search."""

    inputs: int = 1
    kept: int = 1
    joint: tuple[Any, ...] = ()
    design: Float[Array, "m p d"] | None = None


class Problem(eqx.Module):
    """f of sets of p points, as all their coordinates, under g ≤ 0 of each point and h ≤ 0 of the first q together."""

    paths: Any
    constraints: tuple[Any, ...]
    joint: tuple[Any, ...]
    axes: tuple[int, ...] = eqx.field(static=True)
    axes_of_constraints: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    p: int = eqx.field(static=True)
    q: int = eqx.field(static=True)
    d: int = eqx.field(static=True)

    def __init__(self, paths: Any, constraints: tuple[Any, ...], sets: Sets, d: int, dtype: Any):
        self.paths, self.constraints, self.joint = paths, constraints, sets.joint
        self.p, self.q, self.d = sets.inputs, sets.kept, d
        self.axes, _ = axes_of(paths, self.p * d, dtype)
        self.axes_of_constraints = tuple(axes_of(g, d, dtype, "constraints")[0] for g in constraints)
        for found in self.axes_of_constraints:
            if found not in (self.axes, ()):
                raise ValueError(
                    f"`constraints` must have the axes of `paths`, {self.axes}, or none; got {found}. Where an acquisition "
                    "is searched they are known functions; unknown ones belong to `ConstrainedExpectedImprovement`."
                )
        for h in sets.joint:
            found = eqx.filter_eval_shape(h, jax.ShapeDtypeStruct((UNLIKELY, self.q, d), dtype))
            if getattr(found, "shape", ()) != (UNLIKELY,) or not jnp.issubdtype(found.dtype, jnp.floating):
                raise ValueError(
                    f"`joint_constraints` must map `*n {self.q} {d}`, the points of a batch, to real values `*n`; of "
                    f"{(UNLIKELY, self.q, d)} one made {found}."
                )

    def screen(self, X: Float[Array, "m p d"]) -> tuple[Float[Array, "s m"], list[Float[Array, "s m w"]]]:
        """Values of all paths at all sets, and those of the constraints: of each point, or of the set."""
        s, m = math.prod(self.axes), X.shape[0]
        everywhere = lambda values, w: jnp.broadcast_to(values.reshape(-1, m, w), (s, m, w))
        f = everywhere(self.paths(X.reshape(m, -1)), 1)[:, :, 0]
        alone = [everywhere(g(X.reshape(-1, self.d)), self.p) for g in self.constraints]
        return f, alone + [everywhere(h(X[:, : self.q]), 1) for h in self.joint]

    def allows(self, X: Float[Array, "m p d"]) -> Bool[Array, "m p"]:
        """Of constraints that are the same for all paths, whether each point meets them."""
        ok = [g(X.reshape(-1, self.d)).reshape(X.shape[:2]) <= 0 for g in self.constraints]
        return jnp.all(jnp.stack(ok), axis=0)

    def at(self, X: Float[Array, "s r p d"]) -> tuple[Float[Array, "s r"], list[Float[Array, "s r w"]]]:
        """The same of each path at sets of its own."""
        s, r = X.shape[:2]
        own = lambda f, rows, axes: at_own_inputs(f, rows.reshape(*self.axes, *rows.shape[1:]), axes).reshape(s, r, -1)
        each = zip(self.constraints, self.axes_of_constraints, strict=True)
        alone = [own(g, X.reshape(s, -1, self.d), axes) for g, axes in each]
        f = own(self.paths, X.reshape(s, r, -1), self.axes)[:, :, 0]
        return f, alone + [own(h, X[:, :, : self.q], ()) for h in self.joint]

    def returned(self) -> Int[np.ndarray, "k"]:
        """Which of the values of the constraints at a set, in their order, are those of what is returned."""
        of_points = np.arange(len(self.constraints) * self.p).reshape(-1, self.p)
        return np.concatenate([of_points[:, : self.q].reshape(-1), of_points.size + np.arange(len(self.joint))])


def sets_of(candidates: Float[Array, "m d"], key: Key, others: Float[Array, "n q d"]) -> Float[Array, "k q d"]:
    """Sets of q of the candidates, each in one or more; what is missing where they are fewer is from other sets."""
    m, q = candidates.shape[0], others.shape[1]
    order = jax.random.permutation(key, m)
    if m <= q:  # all of them
        chosen = candidates[order][None]
        return jnp.concatenate([chosen, others[:1, m:]], axis=1)
    return candidates[order[(jnp.arange(m)[:, None] + jnp.arange(q)[None, :]) % m]]


def sets_that_meet(ok: Bool[Array, "m p"], key: Key, design: Float[Array, "m p d"]) -> Float[Array, "m p d"]:
    """The sets with points that are not allowed replaced by ones of all that are, as where each of many points has to be
    allowed hardly a set would be; nothing is replaced where none is allowed."""
    points, ok = design.reshape(-1, design.shape[2]), ok.reshape(-1)
    allowed = jnp.argsort(~ok, stable=True)
    drawn = allowed[jax.random.randint(key, ok.shape, 0, jnp.maximum(jnp.sum(ok), 1))]
    kept = ok | ~jnp.any(ok)
    return jnp.where(kept[:, None], points, points[drawn]).reshape(design.shape)


def functions(given: Any, name: str) -> tuple[Any, ...]:
    """One function or several, as a tuple."""
    if not callable(given) and not isinstance(given, Iterable):
        raise ValueError(f"`{name}` must be a function or a sequence of functions; got {given!r}.")
    return (given,) if callable(given) else tuple(given)


def still(tree: Any) -> Any:
    """The same, not to be differentiated."""
    numbers, rest = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.lax.stop_gradient(numbers), rest)
