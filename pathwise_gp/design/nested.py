"""Nested Monte Carlo: the density of what one path observes, by the others."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .draws import draw_axes, draws_at


@eqx.filter_jit
def nested(
    paths: Any, X: Float[Array, "*n q d"], likelihood: Any, key: Any, contrastive: bool
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """Bounds of the information gain of sets of inputs, one set after the other, and their standard errors."""
    axes = draw_axes(paths, X)
    # A first axis of length 1 is no sample of draws: its paths are.
    n_draws = axes[0] if axes[0] > 1 else math.prod(axes)
    one = lambda set_: _of_set(draws_at(paths, set_).reshape(-1, X.shape[-2]), n_draws, likelihood, key, contrastive)
    sets = X.reshape(math.prod(X.shape[:-2]), *X.shape[-2:])
    # Derivatives recompute what a set needs instead of keeping it.
    value, error = jax.lax.map(jax.checkpoint(one, prevent_cse=False), sets)
    return value.reshape(X.shape[:-2]), error.reshape(X.shape[:-2])


def _of_set(
    values: Float[Array, "s q"], n_draws: int, likelihood: Any, key: Any, contrastive: bool
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    s = values.shape[0]
    per_draw = s // n_draws
    law = likelihood(values)
    y = jnp.asarray(law.sample(key))
    if y.shape != values.shape:
        raise ValueError(f"`likelihood` must make one observation of each value: {values.shape}; got shape {y.shape}.")
    moves = getattr(law, "has_rsample", True) and jnp.issubdtype(y.dtype, jnp.floating)
    y = y if moves else jax.lax.stop_gradient(y)
    own = jnp.sum(log_prob(likelihood, values, y), axis=1)
    # The paths that p(y) is a mean of know nothing of what made y: hyperparameters that draws share would tell.
    counted = s if contrastive else s - per_draw

    def row(shares: Float[Array, "s"], i: Int[Array, ""]) -> tuple[Array, Array]:
        densities = jnp.sum(log_prob(likelihood, values, jnp.broadcast_to(y[i], y.shape)), axis=1)
        alike = jnp.arange(s) // per_draw == i // per_draw
        others = densities if contrastive else jnp.where(alike, -jnp.inf, densities)
        total = jax.nn.logsumexp(others)
        return shares + jnp.exp(others - total), total

    one = jax.checkpoint(row, prevent_cse=False)
    shares, totals = jax.lax.scan(one, jnp.zeros((s,), values.dtype), jnp.arange(s))
    terms = own - totals + math.log(counted)
    value = jnp.mean(terms)
    if not moves:
        # E_y g = Σ p(y | f) g(y), whose derivative has a part g ∇log p. Less the mean of all others, on which y does not
        # bear, g has less variance.
        above = jax.lax.stop_gradient(terms - value) * (s / (s - 1))
        value = value + jnp.mean(above * (own - jax.lax.stop_gradient(own)))
    # The influence of a path: what its own observations add, less its share in the densities of all.
    return value, standard_error(terms - shares, n_draws)


def standard_error(terms: Float[Array, "s"], n_draws: int) -> Float[Array, ""]:
    """Of the mean of terms, those of one draw (the first axis of the paths) being dependent."""
    if n_draws > 1:
        terms = jnp.mean(terms.reshape(n_draws, terms.shape[0] // n_draws), axis=1)
    return jnp.std(terms, ddof=1) / math.sqrt(terms.shape[0])


def log_prob(likelihood: Any, values: Float[Array, "s *n"], y: Array) -> Float[Array, "s *n"]:
    densities = jnp.asarray(likelihood(values).log_prob(y))
    if densities.shape != values.shape:
        wrong = f"for values of shape {values.shape} its log densities have shape {densities.shape}"
        raise ValueError(
            f"`likelihood` must return a distribution with the axes of the values, no event axes; {wrong}."
        )
    return densities.astype(values.dtype)
