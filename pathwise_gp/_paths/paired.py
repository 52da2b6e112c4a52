"""Each path at inputs of its own."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Entries of the largest temporary when members are evaluated each at inputs of its own; values, of functions whose
# temporaries are not known.
_ENTRIES, _VALUES = 2**20, 2**16


# A number of inputs that is that of no other axis by chance.
UNLIKELY = 7919


def axes_of(paths: Any, dim: int, dtype: Any, name: str = "paths") -> tuple[tuple[int, ...], Any]:
    """The axes `*s` of a function that maps inputs `*n d` to real values `*s *n`, and the dtype of the values; an error where
    it maps them to something else."""
    if not callable(paths):
        raise ValueError(f"`{name}` must be a function that maps `*n d` to `*s *n`; got {type(paths).__name__}.")
    values = eqx.filter_eval_shape(paths, jax.ShapeDtypeStruct((UNLIKELY, dim), dtype))
    shape = getattr(values, "shape", ())
    if not shape or shape[-1] != UNLIKELY or not jnp.issubdtype(values.dtype, jnp.floating):
        hint = " Of paths of several outputs take one: `paths.output(0)`." if UNLIKELY in shape else ""
        raise ValueError(
            f"`{name}` must map inputs of shape (n, {dim}) to real values of shape (*s, n); for n = {UNLIKELY} it gives "
            f"{values}.{hint}"
        )
    return tuple(shape[:-1]), values.dtype


def at_own_inputs(paths: Callable[..., Any], X: Float[Array, "..."], axes: tuple[int, ...]) -> Float[Array, "..."]:
    """Values of each path of any function of inputs, at inputs of its own.

    By its method `paired` where it has one; else all s paths are asked at the inputs of each, at s times the cost.

    **Arguments:** `paths`: maps `*n d` to `*s *n`, and behind it axes of its own; `X`: inputs, `*s *n d`; `axes`: `*s`. One
    path (`axes` is empty) takes all inputs.

    **Returns:** `*s *n`, and behind it the axes of the function.
    """
    if axes == ():
        return paths(X)
    if hasattr(paths, "paired"):
        return paths.paired(X)  # pyright: ignore[reportFunctionMemberAccess]
    n_axes, s = len(axes), math.prod(axes)

    def one(i: Any, inputs: Float[Array, "*n d"]) -> Float[Array, "..."]:
        values = paths(inputs)
        return values.reshape(s, *values.shape[n_axes:])[i]

    per_path = _ENTRIES // _VALUES * s * math.prod(X.shape[n_axes:-1])
    return map_paired(one, jnp.arange(s), X, axes, per_path)


def map_paired(
    one: Callable[[Any, Float[Array, "*n d"]], Float[Array, "..."]],
    members: Any,
    X: Float[Array, "..."],
    axes: tuple[int, ...],
    entries: int,
) -> Float[Array, "..."]:
    """`one` of each member and the inputs that are its own; of as many at once as temporaries of bounded size allow.

    **Arguments:** `one`: maps a member and `*n d` to `*n …`; `members`: a pytree of leaves `s …`; `X`: inputs, `*s *n d`;
    `axes`: `*s`; `entries`: those of the largest temporary of one member.

    **Returns:** `*s *n …`. Reverse-mode derivatives recompute what a member needs instead of keeping it.
    """
    s = math.prod(axes)
    rows = X.reshape(s, *X.shape[len(axes) :])
    n_batches = -(-s // max(1, _ENTRIES // max(entries, 1)))
    # In batches `lax.map` cannot handle arrays without entries.
    batched = all(leaf.size for leaf in jax.tree.leaves((members, rows)))
    batch_size = -(-s // max(n_batches, 1)) if batched else None
    values = jax.lax.map(
        jax.checkpoint(lambda pair: one(*pair), prevent_cse=False), (members, rows), batch_size=batch_size
    )
    return values.reshape(*axes, *values.shape[1:])


def check_own_inputs(X: Array, axes: tuple[int, ...]) -> Array:
    """Inputs whose leading axes are those of the paths."""
    if X.shape[: len(axes)] != axes or X.ndim <= len(axes):
        raise ValueError(
            f"The leading axes of `X` must be those of the paths, {axes}, followed by any number of axes and the input "
            f"dimension; got shape {X.shape}."
        )
    return X
