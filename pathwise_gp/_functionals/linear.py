"""A functional that is written as a function."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks
from .base import AbstractFunctional, point_sets
from .operators import Function

# Of the largest value, what a functional that is linear may be off by.
_ROUNDING = 1e3


class LinearFunctional(AbstractFunctional):
    """What a function makes of paths: `fn(f, *arrays)`, linear in f, as one would write it to evaluate it on them.

    `LinearFunctional(lambda u, X: -calculus.laplacian(u)(X) + 2 * u(X), X)`. f is a batch of functions, which maps `*n d` to
    `*s *n`; what is returned keeps the axes `*s` in front. How many derivatives are taken is found by tracing.

    **Fields:** `fn`: the function, defined once, or a module (each new function is compiled anew); `arrays`: what it is
    called with: the inputs, `… d`, at which it looks at f among them, and anything else.

    **Raises:** ValueError where `fn` returns something else, never calls f, or is not linear in it.
    """

    fn: Callable[..., Any]
    arrays: tuple[Float[Array, "..."], ...]
    input_dim: int = eqx.field(static=True)
    value_shape: tuple[int, ...] = eqx.field(static=True)
    derivatives: int = eqx.field(static=True)

    def __init__(self, fn: Callable[..., Any], *arrays: Any):
        if not callable(fn):
            raise ValueError(f"`fn` must be a function of a function f and arrays; got {type(fn).__name__}.")
        self.fn = fn
        self.arrays = tuple(_checks.floating(a, f"arrays[{i}]") for i, a in enumerate(arrays))
        for i, a in enumerate(self.arrays):
            _checks.finite(a, f"arrays[{i}]")
        self.input_dim, self.value_shape, self.derivatives = _traced(fn, self.arrays)
        if not point_sets(self.arrays, self.input_dim):
            raise ValueError(
                f"`arrays` must hold the inputs at which `fn` looks at f, shape (…, {self.input_dim}): what it closes over "
                "is no part of the functional."
            )
        self._check_linear()

    def apply(self, f: Function) -> Float[Array, "*s q"]:
        values = self.fn(f, *self.arrays)
        n = values.ndim - len(self.value_shape)
        if n < 0 or values.shape[n:] != self.value_shape:
            raise ValueError(
                f"`fn` must keep the axes of the functions in front of those of its values, {self.value_shape}; of functions "
                f"of which there are several it made {values.shape}."
            )
        return values.reshape(*values.shape[:n], self.size)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value_shape

    @property
    def points(self) -> Float[Array, "p d"]:
        return jnp.concatenate([a.astype(self.dtype) for a in point_sets(self.arrays, self.input_dim)])

    @property
    def dim(self) -> int:
        return self.input_dim

    @property
    def dtype(self) -> Any:
        return point_sets(self.arrays, self.input_dim)[0].dtype

    @property
    def order(self) -> int:
        return self.derivatives

    def _check_linear(self) -> None:
        if not all(map(_checks.is_concrete, self.arrays)):
            return
        f, g, both = _on_three(self)
        wanted = 2 * np.asarray(f) - 3 * np.asarray(g)
        off = np.abs(np.asarray(both) - wanted)
        eps = float(jnp.finfo(self.dtype).eps)
        if off.size and not np.max(off) <= _ROUNDING * eps * (np.max(np.abs(f)) + np.max(np.abs(g)) + 1):
            raise ValueError(
                "`fn` must be linear in the function that it is given: of 2f − 3g it made something else than of f and of g."
            )


@eqx.filter_jit
def _on_three(L: LinearFunctional) -> tuple[Array, Array, Array]:
    return L.apply(_wave), L.apply(_bump), L.apply(_both)


def _wave(X: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    return jnp.sin(jnp.sum(X, axis=-1) + 0.3)


def _bump(X: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    return jnp.cos(X[..., 0] - 0.7)


def _both(X: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    return 2 * _wave(X) - 3 * _bump(X)


def _traced(fn: Callable[..., Any], arrays: tuple[Array, ...]) -> tuple[int, tuple[int, ...], int]:
    """The dimension of the inputs that `fn` calls f with, the shape of its values, and the order of its derivatives."""
    dims, deepest = set(), [0]

    def probe(order: int) -> Function:
        """A function that counts how often it is differentiated."""

        @jax.custom_jvp
        def f(X: Array) -> Array:
            return jnp.sum(X, axis=-1)

        @f.defjvp
        def derivative(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
            deepest[0] = max(deepest[0], order + 1)
            return f(*primals), probe(order + 1)(*primals) * jnp.sum(tangents[0], axis=-1)

        return f

    def looked_at(X: Any) -> Array:
        X = jnp.asarray(X)
        if X.ndim == 0:
            raise ValueError("`fn` must call f with inputs of shape (…, d); it called it with a number.")
        dims.add(X.shape[-1])
        return probe(0)(X)

    values = eqx.filter_eval_shape(lambda a: fn(looked_at, *a), arrays)
    shape = getattr(values, "shape", None)
    if len(dims) != 1 or shape is None:
        got = f"inputs of {sorted(dims)} dimensions" if len(dims) > 1 else "no inputs" if not dims else "no array"
        raise ValueError(
            f"`fn` must call the function that it is given with inputs of one dimension and return an array; {got}."
        )
    several = eqx.filter_eval_shape(lambda a: fn(_Several(), *a), arrays)
    if getattr(several, "shape", None) != (_BATCH, *shape):
        raise ValueError(
            f"`fn` must keep the axes of the functions that it is given in front: of {_BATCH} functions it made shape "
            f"{getattr(several, 'shape', None)}, of one {shape}. Derivatives of a batch are those of `calculus`."
        )
    return dims.pop(), tuple(shape), deepest[0]


_BATCH = 7


class _Several(eqx.Module):
    """Functions of which there are several."""

    def __call__(self, X: Float[Array, "*n d"]) -> Float[Array, "..."]:
        values = jnp.sum(jnp.sin(X), axis=-1)
        return jnp.arange(1, _BATCH + 1, dtype=values.dtype).reshape(_BATCH, *[1] * values.ndim) * values[None]
