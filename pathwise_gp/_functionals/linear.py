"""A functional that is written as a function."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks
from .base import AbstractFunctional
from .operators import Function

# Of the largest values, what a sum may be off by: differences of near values lose most of their digits.
_ROUNDING = 0.02


class _Fixed(eqx.Module):
    """A function that holds no arrays, as a module without leaves."""

    function: Callable[..., Any] = eqx.field(static=True)

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


class LinearFunctional(AbstractFunctional):
    """What a function makes of paths: `fn(f, *arrays)`, linear in f, as one would write it to evaluate it on them.

    `LinearFunctional(lambda u, X: -calculus.laplacian(u)(X) + 2 * u(X), X)`. f is a batch of functions, which maps `*n d` to
    `*s *n`; what is returned keeps the axes `*s` in front. How many derivatives are taken is found by tracing.

    **Fields:** `fn`: the function, defined once, or a module (each new function is compiled anew); `arrays`: what it is
    called with: the inputs, `… d`, at which it looks at f among them, and anything else; `input_dim`, `value_shape`,
    `derivatives`, `looked_at`: d, the shape of the values, the order of the derivatives, and which of the arrays f is called
    with; all found by tracing.

    **Raises:** ValueError where `fn` returns something else, never calls f, or is not linear in it.
    """

    fn: Callable[..., Any]
    arrays: tuple[Float[Array, "..."], ...]
    input_dim: int = eqx.field(static=True)
    value_shape: tuple[int, ...] = eqx.field(static=True)
    derivatives: int = eqx.field(static=True)
    looked_at: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, fn: Callable[..., Any], *arrays: Any):
        if not callable(fn):
            raise ValueError(f"`fn` must be a function of a function f and arrays; got {type(fn).__name__}.")
        module: Any = fn if isinstance(fn, eqx.Module) else _Fixed(fn)
        self.fn = module
        self.arrays = tuple(_checks.floating(a, f"arrays[{i}]") for i, a in enumerate(arrays))
        for i, a in enumerate(self.arrays):
            _checks.finite(a, f"arrays[{i}]")
        self.input_dim, self.value_shape, self.derivatives, shapes = _traced(self.fn, self.arrays)
        points = [i for i, a in enumerate(self.arrays) if a.ndim and a.shape[-1] == self.input_dim]
        # What f is called with as it was given; what was made of something else, such as X + 1, lies about all that there is.
        self.looked_at = tuple(i for i in points if self.arrays[i].shape in shapes) or tuple(points)
        if not points:
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
        own = [self.arrays[i].reshape(-1, self.input_dim) for i in self.looked_at]
        return jnp.concatenate([a.astype(self.dtype) for a in own])

    @property
    def dim(self) -> int:
        return self.input_dim

    @property
    def dtype(self) -> Any:
        return self.arrays[self.looked_at[0]].dtype

    @property
    def order(self) -> int:
        return self.derivatives

    def _check_linear(self) -> None:
        if not all(map(_checks.is_concrete, self.arrays)):
            return
        none, wave, bump, multiple, total, several = map(np.asarray, _on_some(self))
        size = np.max(np.abs(wave), initial=0) + np.max(np.abs(bump), initial=0)
        # Multiples by −2 are exact in binary.
        if np.any(none != 0) or np.any(multiple != -2 * wave) or np.any(np.abs(total - wave - bump) > _ROUNDING * size):
            raise ValueError(
                "`fn` must be linear in the function that it is given: L(f + g) is not L f + L g, or L 0 not 0."
            )
        if np.any(np.abs(several - np.stack([wave, bump, none])) > _ROUNDING * size):
            raise ValueError(
                "`fn` must treat each of the functions that it is given by itself, along the axes in front of its values: of "
                "three at once it made something else than of each alone. Name axes from the back: `axis=-1`."
            )


@eqx.filter_jit
def _on_some(L: LinearFunctional) -> tuple[Array, ...]:
    none = lambda X: 0 * _wave(X)
    total = lambda X: _wave(X) + _bump(X)
    several = lambda X: jnp.stack([_wave(X), _bump(X), none(X)])
    return tuple(L.apply(f) for f in (none, _wave, _bump, lambda X: -2 * _wave(X), total, several))


def _wave(X: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    return jnp.sin(jnp.sum(X, axis=-1) + 0.3)


def _bump(X: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    return jnp.cos(X[..., 0] - 0.7)


def _traced(
    fn: Callable[..., Any], arrays: tuple[Array, ...]
) -> tuple[int, tuple[int, ...], int, set[tuple[int, ...]]]:
    """The dimension of the inputs that `fn` calls f with, the shape of its values, the order of its derivatives, and the
    shapes of the inputs."""
    shapes: set[tuple[int, ...]] = set()
    deepest = [0]

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
        shapes.add(X.shape)
        return probe(0)(X)

    values = eqx.filter_eval_shape(lambda a: fn(looked_at, *a), arrays)
    shape, dims = getattr(values, "shape", None), {shape[-1] for shape in shapes}
    if len(dims) != 1 or shape is None:
        got = f"inputs of {sorted(dims)} dimensions" if len(dims) > 1 else "no inputs" if not dims else "no array"
        raise ValueError(
            f"`fn` must call the function that it is given with inputs of one dimension and return an array; {got}."
        )
    try:
        several = getattr(eqx.filter_eval_shape(lambda a: fn(_Several(), *a), arrays), "shape", None)
    except (TypeError, ValueError) as e:
        several = f"an error, {str(e).splitlines()[0]}"
    if several != (_BATCH, *shape):
        raise ValueError(
            f"`fn` must keep the axes of the functions that it is given in front: of {_BATCH} functions it made "
            f"{several}, of one {shape}. Derivatives of a batch are those of `calculus`."
        )
    return dims.pop(), tuple(shape), deepest[0], shapes


_BATCH = 7


class _Several(eqx.Module):
    """Functions of which there are several."""

    def __call__(self, X: Float[Array, "*n d"]) -> Float[Array, "..."]:
        values = jnp.sum(jnp.sin(X), axis=-1)
        return jnp.arange(1, _BATCH + 1, dtype=values.dtype).reshape(_BATCH, *[1] * values.ndim) * values[None]
