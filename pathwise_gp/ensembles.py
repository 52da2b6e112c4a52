"""Paths as the members of an ensemble predictor, for what expects one: weighted means, spreads and quantiles."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from . import _checks
from ._types import AnyArray


def _as_functions(paths: Any) -> Any:
    paths = tuple(paths) if isinstance(paths, (tuple, list)) else paths
    if paths == ():
        raise ValueError("`paths` must hold at least one function; got none.")
    if not all(map(callable, paths if isinstance(paths, tuple) else (paths,))):
        raise ValueError(f"`paths` must be a function, or a sequence of functions; got {paths!r}.")
    return paths


def _as_weights(weights: Any) -> Any:
    """Weights that sum to 1."""
    if weights is None:
        return None
    weights = _checks.floating(weights, "weights")
    if weights.ndim == 0 or weights.size == 0:
        raise ValueError(f"`weights` must have an axis of members; got shape {weights.shape}.")
    _checks.positive(weights, "weights", or_zero=True)
    total = jnp.sum(weights)
    if _checks.is_concrete(total) and not float(total) > 0:
        raise ValueError("`weights` must not all be 0.")
    return weights / total


class Predictor(eqx.Module):
    """Members with weights, as one predictive law at each input: Σᵢ wᵢ δ(f − fᵢ(x)).

    **Fields:**

    - `paths`: paths or an ensemble of them, or any function that maps `*n d` to `*s *n`; or a sequence of functions that each
      map `*n d` to `*n`, which are the members.
    - `weights`: of the members, `*s`, or of the first of these axes alone (of the draws of an ensemble, say), each then
      shared evenly; not negative; here divided by their sum. Equal unless given.

    **Raises:** ValueError where `paths` is not callable, or a weight is negative or not finite or all are 0; at a call, where
    weights and values do not fit each other.
    """

    paths: Callable[..., Any] | tuple[Callable[..., Any], ...] = eqx.field(converter=_as_functions)
    weights: Float[Array, "..."] | None = eqx.field(converter=_as_weights, default=None)

    @property
    def members(self) -> tuple[Callable[..., Any], ...]:
        """Each member as a function, in the order of the axes `*s`."""
        if isinstance(self.paths, tuple):
            return self.paths
        if not hasattr(self.paths, "shape"):
            raise ValueError(
                "`members` are those of paths, of an ensemble or of a sequence; of another function, which gives all its "
                "values at once, there are none. Pass a sequence of functions as `paths`."
            )
        return _members(self.paths)

    def predict(self, X: Float[AnyArray, "*n d"]) -> Float[Array, "*n"]:
        """Weighted mean, Σᵢ wᵢ fᵢ(x).

        **Arguments:** `X`: inputs, `*n d`. **Returns:** `*n`. **Raises:** as the members, and where weights do not fit.
        """
        values, weights = self._values(X)
        return jnp.tensordot(weights, values, 1)

    def predict_mean_std(self, X: Float[AnyArray, "*n d"]) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
        """Mean and standard deviation of the law of the members, √Σᵢ wᵢ (fᵢ(x) − mean)²: with n equal weights it has n, not
        n − 1, in the denominator. Noise is not in it.

        **Arguments:** `X`: inputs, `*n d`. **Returns:** `*n` each. **Raises:** as `predict`.
        """
        values, weights = self._values(X)
        mean = jnp.tensordot(weights, values, 1)
        square = jnp.tensordot(weights, (values - mean[None]) ** 2, 1)
        # The root has no derivative at 0, where all members agree.
        agree = square == 0
        root = jnp.sqrt(jnp.where(agree, jnp.ones_like(square), square))
        return mean, jnp.where(agree, jnp.zeros_like(square), root)

    def quantiles(self, X: Float[AnyArray, "*n d"], q: Any) -> Float[Array, "..."]:
        """Weighted quantiles: the least value of a member for which those up to it have a weight of q or more.

        **Arguments:** `X`: inputs, `*n d`; `q`: probabilities, `*q`, between 0 and 1.

        **Returns:** `*q *n`. **Raises:** as `predict`; and where a probability is outside [0, 1].
        """
        values, weights = self._values(X)
        q = _checks.floating(q, "q").astype(values.dtype)
        if _checks.is_concrete(q) and not bool(jnp.all((q >= 0) & (q <= 1))):
            raise ValueError(f"`q` must lie between 0 and 1; got {q}.")
        order = jnp.argsort(values, axis=0)
        ordered = jnp.take_along_axis(values, order, axis=0)
        total = jnp.cumsum(weights[order], axis=0)
        # Sums of weights such as 1/3 miss a probability by rounding.
        slack = 4 * len(weights) * jnp.finfo(values.dtype).eps
        flat = q.reshape(-1, *(1,) * values.ndim) * (1 - slack)
        # A member of weight 0 is never a quantile, also at q = 0.
        reached = (total[None] >= flat) & (total[None] > 0)
        found = jnp.argmax(reached, axis=1)
        picked = jnp.take_along_axis(ordered, found.reshape(-1, *values.shape[1:]), axis=0)
        return picked.reshape(*q.shape, *values.shape[1:])

    def _values(self, X: Any) -> tuple[Float[Array, "s *n"], Float[Array, "s"]]:
        """Values of all members, and weights."""
        X = _checks.floating(X, "X")
        if X.ndim == 0:
            raise ValueError("`X` must have a last axis, of the input dimension; got a scalar.")
        n = X.shape[:-1]
        paths, several = self.paths, isinstance(self.paths, tuple)
        values = jnp.stack([one(X) for one in paths]) if isinstance(paths, tuple) else jnp.asarray(paths(X))
        axes = values.ndim - len(n)
        if axes < 1 or values.shape[axes:] != n:
            raise ValueError(
                f"`paths` must give values of several members at inputs of axes {n}, `*s *n`"
                f"{' (`*n` of each)' if several else ''}; got shape {values.shape}."
            )
        members = values.shape[:axes]
        weights = self.weights
        if weights is None:
            weights = jnp.full(members, 1 / math.prod(members), values.dtype)
        elif weights.shape == members[:1]:
            share = weights.reshape(-1, *(1,) * (axes - 1)) / math.prod(members[1:])
            weights = jnp.broadcast_to(share, members)
        elif weights.shape != members:
            raise ValueError(
                f"`weights` must have the axes of the members, {members}, or the first of them; got shape {weights.shape}."
            )
        return values.reshape(-1, *n), weights.astype(values.dtype).reshape(-1)


def _members(paths: Any) -> tuple[Callable[..., Any], ...]:
    """Paths one by one, along all their axes."""
    if paths.shape == ():
        return (paths,)
    return tuple(member for path in paths for member in _members(path))
