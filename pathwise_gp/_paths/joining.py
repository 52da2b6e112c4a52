"""Paths put together."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import _checks
from .function import partition, PathwiseFunction


def stack(paths: Sequence[PathwiseFunction]) -> PathwiseFunction:
    """Paths along a new first axis.

    **Arguments:** `paths`: paths of one posterior, all of the same axes `*s`. Where their bases differ (they come from
    different draws) each path gets its own.

    **Returns:** paths with axes `(len(paths), *s)`.

    **Raises:** ValueError where there are none, the axes differ, or the paths are of different posteriors.
    """
    paths = _check_joinable(paths, "stack")
    if len({path.shape for path in paths}) > 1:
        raise ValueError(f"`stack` needs paths of the same axes; got {[path.shape for path in paths]}.")
    return _join(paths, jnp.stack)


def concatenate(paths: Sequence[PathwiseFunction]) -> PathwiseFunction:
    """Paths along their first axis.

    **Arguments:** `paths`: batches of paths of one posterior. Where their bases differ (they come from different draws)
    each path gets its own.

    **Returns:** paths with axes `(Σ len, *rest)`.

    **Raises:** ValueError where there are none, one is a single path, the other axes differ, or the paths are of
    different posteriors.
    """
    paths = _check_joinable(paths, "concatenate")
    if any(path.shape == () for path in paths):
        raise ValueError("`concatenate` needs batches of paths; put single paths together with `stack`.")
    if len({path.shape[1:] for path in paths}) > 1:
        raise ValueError(f"`concatenate` needs the same axes after the first; got {[path.shape for path in paths]}.")
    return _join(paths, jnp.concatenate)


def _check_joinable(paths: Sequence[PathwiseFunction], name: str) -> list[PathwiseFunction]:
    paths = list(paths) if isinstance(paths, Iterable) else []
    if not paths or not all(isinstance(path, PathwiseFunction) for path in paths):
        raise ValueError(f"`{name}` needs a sequence of at least one PathwiseFunction; got {paths!r}.")
    first = paths[0]
    for path in paths[1:]:
        for part in ("prior_mean", "kernel", "inputs", "mean_coefficients", "noise", "noise_var", "spread"):
            if not _same(getattr(first, part), getattr(path, part)):
                raise ValueError(
                    f"Only paths of one posterior can be joined, but `{part}` differs between them (or cannot be seen "
                    "to be the same under jit). Keep paths of different posteriors in a list."
                )
    return paths


def _join(paths: list[PathwiseFunction], join: Callable[..., Array]) -> PathwiseFunction:
    shared = all(p.share_features and _same(p.features, paths[0].features) for p in paths)
    if not shared:
        paths = [_with_own_features(path) for path in paths]
    parts = [partition(path, own_features=not shared) for path in paths]
    if len({jax.tree.structure(random) for random, _ in parts}) > 1:
        raise ValueError("Only paths whose bases are of one structure can be joined.")
    try:
        random = jax.tree.map(lambda *leaves: join(leaves), *(random for random, _ in parts))
    except TypeError as e:
        raise ValueError("Only paths with the same number of features can be joined.") from e
    return eqx.combine(random, parts[0][1])


def _with_own_features(path: PathwiseFunction) -> PathwiseFunction:
    def repeat(leaf: Any) -> Any:
        return jnp.broadcast_to(leaf, (*path.shape, *leaf.shape)) if eqx.is_array(leaf) else leaf

    features = path.features if path._own_features else jax.tree.map(repeat, path.features)
    return dataclasses.replace(path, features=features, share_features=False)


def _same(left: Any, right: Any) -> bool:
    left_leaves, left_structure = jax.tree.flatten(left)
    right_leaves, right_structure = jax.tree.flatten(right)
    return left_structure == right_structure and all(map(_same_leaf, left_leaves, right_leaves))


def _same_leaf(left: Any, right: Any) -> bool:
    if left is right:
        return True
    if not (_checks.is_concrete(left) and _checks.is_concrete(right)):
        return False
    return bool(np.array_equal(left, right)) if eqx.is_array(left) else left == right
