"""Draws φ(·)ᵀw of a zero-mean prior."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks
from .._features import AbstractBasis, AbstractFeatures, as_features, size
from .._functionals import AbstractFunctional
from .._kernels import AbstractKernel
from .._numerics.random import normals
from .._types import Keys


def draw_prior(
    kernel: AbstractKernel,
    like: Float[Array, "n d"],
    keys: Keys,
    *,
    n_paths: int,
    n_noise: int,
    n_features: int,
    basis: AbstractBasis,
    share_features: bool,
) -> tuple[AbstractFeatures, Float[Array, "s f"], Float[Array, "s n_noise"]]:
    """A basis (one for all paths, or with a leading axis of one a path), weights w ~ N(0, I), and noise of the same law, by a
    key for each.

    `like` are the points that the paths are conditioned on, or near which they will be evaluated: they give the dimension,
    the dtype, and the region where rounding errors are to be small.
    """
    dim = like.shape[1]
    basis = fitted(basis, kernel, like)
    # Not a gradient's business: the law of the process does not depend on the point.
    centre = jax.lax.stop_gradient(jnp.mean(like, axis=0))
    draw = lambda k: as_features(kernel.features(n_features, dim, key=k, basis=basis)).about(centre)
    if share_features:
        features = draw(keys[0])
        one = features
    else:
        features = eqx.filter_vmap(draw)(jax.random.split(keys[0], n_paths))
        one = take(features, 0)
    n = size(one, dim)
    weights, noise = normals(keys[1:], ((n_paths, n), (n_paths, n_noise)), like.dtype)
    inside = one.covers(like)
    if inside is not True:
        weights = _checks.require(
            inside, weights, "`box` does not contain the points that the paths are conditioned on: give a larger one."
        )
    return features, weights, noise


def fitted(basis: AbstractBasis, kernel: AbstractKernel, like: Float[Array, "n d"]) -> AbstractBasis:
    """The rule for paths of a kernel that are conditioned on points."""
    return basis.suited_to(kernel, like.shape[1]).fit(like)


def evaluate_prior(
    features: AbstractFeatures,
    weights: Float[Array, "s f"],
    L: AbstractFunctional,
    *,
    share_features: bool,
    block_bytes: int | None = None,
) -> Float[Array, "s n"]:
    """L φᵀw, with temporaries bounded in the number of points; one basis for all paths makes it a matrix product."""
    width = weights.shape[1]
    if share_features:
        return L.in_parts(lambda part: part.of_draws(features, weights), width, block_bytes)

    dynamic, static = eqx.partition(features, eqx.is_array)

    def one_path(path: tuple[Any, Float[Array, "f"]]) -> Float[Array, "n"]:
        own, w = eqx.combine(path[0], static), path[1]
        return L.in_parts(lambda part: part.of_draws(own, w[None, :])[0], width, block_bytes)

    # Derivatives recompute what a path needs instead of keeping it.
    return jax.lax.map(jax.checkpoint(one_path, prevent_cse=False), (dynamic, weights))


def take(tree: Any, index: Any) -> Any:
    """The arrays of a pytree, indexed along their first axis."""
    return jax.tree.map(lambda leaf: leaf[index] if eqx.is_array(leaf) else leaf, tree)
