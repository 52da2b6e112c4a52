"""Draws φ(·)ᵀw of a zero-mean prior."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float

from .._features import AbstractFeatures
from .._kernels import AbstractKernel
from .._numerics.blocks import map_rows
from .._numerics.linalg import inner
from .._types import Key


def draw_prior(
    kernel: AbstractKernel,
    like: Float[Array, "n d"],
    key: Key,
    *,
    n_paths: int,
    n_features: int,
    share_features: bool,
) -> tuple[AbstractFeatures, Float[Array, "s f"]]:
    """A basis (one for all paths, or with a leading axis of one a path) and weights w ~ N(0, I).

    `like` gives the dimension of the inputs and the dtype of the weights.
    """
    key_features, key_weights = jax.random.split(key)
    dim = like.shape[1]
    if share_features:
        features = kernel.features(n_features, dim, key=key_features)
        one = features
    else:
        keys = jax.random.split(key_features, n_paths)
        features = eqx.filter_vmap(lambda k: kernel.features(n_features, dim, key=k))(keys)
        one = take(features, 0)
    size = eqx.filter_eval_shape(one, like).shape[1]
    return features, jax.random.normal(key_weights, (n_paths, size), like.dtype)


def evaluate_prior(
    features: AbstractFeatures,
    weights: Float[Array, "s f"],
    X: Float[Array, "n d"],
    *,
    share_features: bool,
) -> Float[Array, "s n"]:
    """φ(X)ᵀw, with temporaries bounded in n; one basis for all paths makes it a matrix product."""
    width = weights.shape[1]
    if share_features:
        return map_rows(lambda rows: inner(weights, features(rows)), X, width)

    dynamic, static = eqx.partition(features, eqx.is_array)

    def one_path(path: tuple[Any, Float[Array, "f"]]) -> Float[Array, "n"]:
        own, w = eqx.combine(path[0], static), path[1]
        return map_rows(lambda rows: inner(w[None, :], own(rows))[0], X, width)

    return jax.lax.map(one_path, (dynamic, weights))


def take(tree: Any, index: Any) -> Any:
    """The arrays of a pytree, indexed along their first axis."""
    return jax.tree.map(lambda leaf: leaf[index] if eqx.is_array(leaf) else leaf, tree)
