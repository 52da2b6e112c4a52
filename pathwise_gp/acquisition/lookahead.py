"""What an observation adds to the best posterior mean, of the posterior itself."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks, _fields
from .._batched import Batched
from .._numerics.envelope import expected_gain
from .._numerics.sobol import sobol
from .._types import Key
from .base import AbstractWorth

# Of the variance of an observation, how many roundings are nothing that the others leave open.
_ROUNDINGS = 8


class ExactKnowledgeGradient(AbstractWorth):
    """E max_a μ'(a) − max_a μ(a) over a finite set, of a posterior itself: no paths are drawn.

    Given one observation y = f(x) + ε the mean is μ'(a) = μ(a) + C(a, x)/√(C(x, x) + σ²) Z with a standard normal Z, for
    every a a line in Z, and the expected maximum of lines has a closed form. Of q observations Z has q entries: along each
    direction through 0 there are lines again, in a variable of either sign with the size of Z, and the value is the mean of
    closed forms over directions that are the same at every x. The set is `candidates` and the inputs observed; the value is
    never negative, and 0 where nothing is learnt. `KnowledgeGradient` is of paths, `OneShotKnowledgeGradient` has a continuum
    in place of the set.

    **Fields:**

    - `posterior`: has `mean`, which maps `*n d` to `*n`, and `covariance`, `*n d` with `*m d` to `*n *m`. Of a `Batched` of
      posteriors, one for each draw of the hyperparameters, the value is the average.
    - `candidates`: the points among which the best mean is sought, `m d`, fixed.
    - `noise_var`: σ², a scalar, positive or 0; of `Batched` posteriors also one for each.
    - `key`: of the directions; needed where q > 1, without effect for q = 1.
    - `n_fantasies`: how many directions; scrambled Sobol points made normal, for q = 2 at equal angles. For q = 2 a few are
      as good as exact; for q = 3 and 4 values are off by some 3 to 5 % with 64.
    - `maximise`: whether large values of f are sought.

    **Raises:** ValueError where shapes do not fit, `noise_var` is negative or `n_fantasies` less than 1; where q > 1 without
    `key`. Source: Frazier et al. (2009), algorithm 1 and equation 14; Wu & Frazier (2016) for batches.
    """

    posterior: Any
    candidates: Float[Array, "m d"] = eqx.field(converter=_fields.points("candidates"))
    noise_var: Float[Array, "*b"] = eqx.field(converter=lambda x: _checks.floating(x, "noise_var"))
    key: Key | None = eqx.field(default=None, converter=_fields.optional(_checks.key))
    n_fantasies: int = eqx.field(static=True, default=32, converter=_fields.count("n_fantasies"))
    maximise: bool = eqx.field(static=True, default=False, converter=_fields.flag("maximise"))

    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        directions, noise = self._directions(X.shape[1], X.dtype), self.noise_var.astype(X.dtype)
        if not isinstance(self.posterior, Batched):
            return self._of_one(self.posterior, noise, X, directions)
        axes = self.posterior.batch_shape
        each = self.posterior.map(
            lambda posterior, noise: self._of_one(posterior, noise, X, directions), jnp.broadcast_to(noise, axes)
        )
        return jnp.mean(each, axis=tuple(range(len(axes))))

    def entries(self, q: int, dim: int, dtype: Any) -> int:
        lines = 4 * (self.n_fantasies if q > 1 else 1)
        return (q + self.candidates.shape[0]) * (q + lines) * max(1, self.noise_var.size)

    def _directions(self, q: int, dtype: Any) -> Float[Array, "s q"]:
        """Directions of q normal variables, one of each and its opposite: of two, at equal angles."""
        if q == 1:
            return jnp.ones((1, 1), dtype)
        if self.key is None:
            raise ValueError("`key` must be given for q > 1: it turns the directions of what is observed.")
        s, pairs = self.n_fantasies, -(-q // 2)
        points = (sobol(self.key, s, 2 * pairs).astype(dtype) + 0.5) / 2.0**32
        points = jnp.minimum(points, 1 - jnp.finfo(dtype).eps)
        # One coordinate of a finite set of points may be equally spaced (Hammersley); here an angle, over a half turn.
        half = (jnp.arange(s).astype(dtype)[:, None] + points[:1, :1]) / (2 * s)
        angles = 2 * jnp.pi * jnp.concatenate([half, points[:, 1:pairs]], axis=1)
        radii = jnp.sqrt(-2 * jnp.log(points[:, pairs:]))
        normals = radii[..., None] * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=2)
        normals = normals.reshape(s, 2 * pairs)[:, :q]
        return normals / jnp.sqrt(jnp.sum(normals**2, axis=1, keepdims=True))

    def _of_one(
        self, posterior: Any, noise: Float[Array, ""], X: Float[Array, "n q d"], directions: Float[Array, "s q"]
    ) -> Float[Array, "n"]:
        n, q, d = X.shape
        candidates = self.candidates.astype(X.dtype)
        there, here = _mean(posterior, candidates), _mean(posterior, X)
        gains = jnp.concatenate([jnp.broadcast_to(there, (n, there.size)), here], axis=1)
        gains = gains if self.maximise else -gains
        across = _covariance(posterior, candidates, X.reshape(n * q, d)).reshape(-1, n, q)
        within = jax.vmap(lambda x: _covariance(posterior, x, x))(X)
        covariance = jnp.concatenate([jnp.moveaxis(across, 0, 1), within], axis=1)
        return jax.vmap(lambda gain, learnt: _of_set(gain, learnt, noise, directions))(gains, covariance)

    def __check_init__(self):
        one = self.posterior.stacked if isinstance(self.posterior, Batched) else self.posterior
        if not all(callable(getattr(one, name, None)) for name in ("mean", "covariance")):
            raise ValueError(
                "`posterior` must have a `mean` and a `covariance`, as what `condition` gives, or be a `Batched` of such; "
                f"got {type(self.posterior).__name__}."
            )
        axes = self.posterior.batch_shape if isinstance(self.posterior, Batched) else ()
        if self.noise_var.shape not in ((), axes):
            wanted = f"a scalar or have shape {axes}, one for each posterior" if axes else "a scalar"
            raise ValueError(f"`noise_var` must be {wanted}; got shape {self.noise_var.shape}.")
        _checks.positive(self.noise_var, "noise_var", or_zero=True)


def _of_set(
    mean: Float[Array, "a"], covariance: Float[Array, "a q"], noise: Float[Array, ""], directions: Float[Array, "s q"]
) -> Float[Array, ""]:
    """The value of q observations, of the means of the gain and its covariances with f(x); the last q of a are x."""
    lines = jnp.matmul(directions, _slopes(covariance, noise), precision=jax.lax.Precision.HIGHEST)
    return jnp.mean(jax.vmap(lambda line: expected_gain(mean, line, directions.shape[1]))(lines))


def _slopes(covariance: Float[Array, "a q"], noise: Float[Array, ""]) -> Float[Array, "q a"]:
    """C(a, x)L⁻ᵀ with LLᵀ = C(x, x) + σ², column by column: 0 in the column of an observation that the others make known."""
    q = covariance.shape[1]
    observed = covariance[-q:] + noise * jnp.eye(q, dtype=covariance.dtype)
    least = _ROUNDINGS * q * jnp.finfo(covariance.dtype).eps * jnp.abs(jnp.diagonal(observed))
    slopes = []
    for j in range(q):
        open_ = observed[j, j] > jax.lax.stop_gradient(least[j])
        scale = jnp.where(open_, jax.lax.rsqrt(jnp.where(open_, observed[j, j], 1)), 0)
        slope, column = covariance[:, j] * scale, observed[:, j] * scale
        slopes.append(slope)
        covariance = covariance - slope[:, None] * column[None]
        observed = observed - column[:, None] * column[None]
    return jnp.stack(slopes)


def _mean(posterior: Any, X: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    found = jnp.asarray(posterior.mean(X))
    if found.shape != X.shape[:-1]:
        raise ValueError(f"`posterior.mean` must map `*n d` to `*n`: of inputs {X.shape} it made {found.shape}.")
    return found.astype(X.dtype)


def _covariance(posterior: Any, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
    found = jnp.asarray(posterior.covariance(X, Z))
    if found.shape != (X.shape[0], Z.shape[0]):
        raise ValueError(
            f"`posterior.covariance` must map `n d` and `m d` to `n m`: of {X.shape} and {Z.shape} it made {found.shape}."
        )
    return found.astype(X.dtype)
