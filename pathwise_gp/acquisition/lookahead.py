"""What an observation adds to the best posterior mean, of the posterior itself: nothing is sampled for one observation."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .. import _checks, _fields
from .._numerics.lapack import cholesky, solve_lower
from .._numerics.sobol import sobol
from .._types import Key
from .base import AbstractWorth, largest


def _as_posterior(posterior: Any) -> Any:
    one = posterior.stacked if hasattr(posterior, "stacked") else posterior
    if not callable(getattr(one, "mean", None)) or not callable(getattr(one, "covariance", None)):
        raise ValueError(
            "`posterior` must have a `mean` and a `covariance`, such as what `GPPrior.condition` returns, or be a `Batched` "
            f"of these; got {type(posterior).__name__}."
        )
    return posterior


def _as_noise(noise_var: Any) -> Array:
    noise_var = _fields.scalar("noise_var")(noise_var)
    _checks.positive(noise_var, "noise_var", or_zero=True)
    return noise_var


# Beyond so many standard deviations a normal law has no mass in any precision.
_FAR = 40.0


class ExactKnowledgeGradient(AbstractWorth):
    """E max_a μ'(a) − max_a μ(a): what observations add to the largest posterior mean of g over a finite set, in closed form.

    Given y at x the mean is μ'(a) = μ(a) + σ̃(a, x)Z, with σ̃(a, x) = C(a, x)/√(C(x, x) + σ²) and Z standard normal: a line in
    Z for each a, and the expectation of the largest is a sum over the pieces of their upper envelope. Of q observations
    together it is the mean over a fixed rule of points in q dimensions, of the posteriors that one factor gives them: a look
    ahead at a batch. The set is `candidates` and the inputs themselves; the value is never negative.

    `KnowledgeGradient` has the moments of paths in place of those of one posterior, and `OneShotKnowledgeGradient` a
    continuum in place of the set.

    **Fields:**

    - `posterior`: of f: its `mean` and `covariance`; or a `Batched` of posteriors, such as those of draws of the
      hyperparameters, over which the value is averaged.
    - `candidates`: the points among which the best mean is sought, `m d`, fixed.
    - `noise_var`: σ², a scalar, not negative.
    - `key`: of the rule for q > 1 (scrambled Sobol points made normal), which needs one; `n_fantasies`: its points. Where a
      batch is worth little beside what is not known, the rule has few points where it is worth anything: take more.
    - `maximise`: whether large values of f are sought.

    **Raises:** ValueError where shapes do not fit, `noise_var` is negative, or q > 1 has no key. Source: Frazier, Powell &
    Dayanik (2009), section 3 and algorithm 1; for batches Wu & Frazier (2016).
    """

    posterior: Any = eqx.field(converter=_as_posterior)
    candidates: Float[Array, "m d"] = eqx.field(converter=_fields.points("candidates"))
    noise_var: Float[Array, ""] = eqx.field(converter=_as_noise)
    key: Key | None = eqx.field(converter=_fields.optional(_checks.key), default=None)
    n_fantasies: int = eqx.field(static=True, default=256, converter=_fields.count("n_fantasies"))
    maximise: bool = eqx.field(static=True, default=False, converter=_fields.flag("maximise"))

    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        if X.shape[1] > 1 and self.key is None:
            raise ValueError(
                "`key` must be given for several observations together, whose value is a mean over a rule."
            )
        if not hasattr(self.posterior, "stacked"):
            return self._under(self.posterior, X)
        values = self.posterior.map(lambda posterior: self._under(posterior, X))
        return jnp.mean(values.reshape(-1, X.shape[0]), axis=0)

    def entries(self, q: int, dim: int, dtype: Any) -> int:
        m = self.candidates.shape[0] + q
        return 4 * m if q == 1 else m * self.n_fantasies

    def _under(self, posterior: Any, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        (n, q, d), candidates = X.shape, self.candidates.astype(X.dtype)
        flat = X.reshape(n * q, d)
        there, here = posterior.mean(candidates), posterior.mean(flat).reshape(n, q)
        mean = jnp.concatenate([jnp.broadcast_to(there, (n, *there.shape)), here], axis=1)
        mean = mean if self.maximise else -mean
        inside = jax.vmap(lambda x: posterior.covariance(x, x))(X)
        across = posterior.covariance(flat, candidates).reshape(n, q, -1)
        C = jnp.concatenate([across, inside], axis=2)  # n q m: of what is observed with all among which is sought
        S = inside + _on_diagonal(self.noise_var.astype(X.dtype), inside)
        if q == 1 or self.key is None:
            return jax.vmap(_expected_largest)(mean, jax.vmap(_slope)(C[:, 0], S[:, 0, 0]))
        eps = jnp.finfo(S.dtype).eps
        points = sobol(self.key, self.n_fantasies, q).astype(S.dtype) / 2.0**32
        normals = jax.scipy.special.ndtri(jnp.clip(points, eps, 1 - eps))
        return jax.vmap(lambda *of_set: _over_the_rule(normals, *of_set))(mean, C, S)


def _over_the_rule(
    normals: Float[Array, "s q"], mean: Float[Array, "m"], C: Float[Array, "q m"], S: Float[Array, "q q"]
) -> Float[Array, ""]:
    """The mean over fantasies of what the largest mean is above that of what is best now: the expectation of the latter is
    known, and this way no value is negative."""
    q, eps = S.shape[0], float(jnp.finfo(S.dtype).eps)
    # So much as makes a factor of observations that are one and the same without noise.
    scale = jnp.diagonal(S) + jnp.finfo(S.dtype).tiny
    slopes = solve_lower(cholesky(S + 10 * q * eps * jnp.diag(scale)), C)
    fantasies = mean[None, :] + jnp.matmul(normals, slopes, precision=jax.lax.Precision.HIGHEST)
    return jnp.mean(largest(fantasies, 1) - jnp.take(fantasies, jnp.argmax(mean), axis=1))


def _on_diagonal(noise: Float[Array, ""], like: Float[Array, "n q q"]) -> Float[Array, "n q q"]:
    return jnp.broadcast_to(noise * jnp.eye(like.shape[-1], dtype=like.dtype), like.shape)


def _slope(C: Float[Array, "m"], variance: Float[Array, ""]) -> Float[Array, "m"]:
    """C/√variance, and 0 where there is nothing to learn."""
    none = variance <= jnp.finfo(C.dtype).tiny
    root = jnp.sqrt(jnp.where(none, jnp.ones_like(variance), variance))
    return jnp.where(none, jnp.zeros_like(C), C / root)


@jax.custom_jvp
def _expected_largest(a: Float[Array, "m"], b: Float[Array, "m"]) -> Float[Array, ""]:
    """E max_i (a_i + b_i Z) − max_i a_i for a standard normal Z.

    Less the line that is largest at 0, which is then 0 throughout, lines with positive slopes matter to the right of 0 alone
    and lines with negative ones to the left, and no piece of the envelope is negative: nothing cancels.
    """
    best = jnp.argmax(a)
    a, b = a - a[best], b - b[best]
    (right, at_right), (left, at_left) = _pieces(a, b), _pieces(a, -b)
    return jnp.sum(a * right + b * at_right) + jnp.sum(a * left - b * at_left)


@_expected_largest.defjvp
def _expected_largest_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    # Where pieces begin and end does not matter to first order: the lines are equal there.
    best = jnp.argmax(primals[0])
    (a, b), (da, db) = ([line - line[best] for line in pair] for pair in (primals, tangents))
    (right, at_right), (left, at_left) = _pieces(a, b), _pieces(a, -b)
    return _expected_largest(*primals), jnp.sum(da * (right + left) + db * (at_right - at_left))


def _pieces(a: Float[Array, "m"], b: Float[Array, "m"]) -> tuple[Float[Array, "m"], Float[Array, "m"]]:
    """P(Z in piece i) and E(Z; Z in piece i), where line i is the largest of max(0, a_i + b_i z) over z > 0, of lines that
    are at most 0 at 0: along the envelope, from each line to the first that passes it."""
    far, zero = jnp.asarray(_FAR, a.dtype), jnp.zeros((), a.dtype)

    def step(state: _March) -> _March:
        # The first of those that rise faster; where several pass at once the others are next, after pieces of no length.
        faster = b > state.slope
        crossings = jnp.where(faster, (state.height - a) / jnp.where(faster, b - state.slope, jnp.ones_like(b)), far)
        following = jnp.argmin(crossings)
        end = jnp.minimum(jnp.maximum(crossings[following], state.start), far)
        here = (jnp.arange(a.shape[0]) == state.line) & state.on_a_line
        probability = jnp.where(here, _tail(state.start) - _tail(end), state.probability)
        moment = jnp.where(here, _density(state.start) - _density(end), state.moment)
        return _March(following, a[following], b[following], end, jnp.asarray(True), probability, moment)

    none = jnp.zeros_like(a)
    first = _March(jnp.zeros((), int), zero, zero, zero, jnp.asarray(False), none, none)
    last = jax.lax.while_loop(lambda state: state.start < far, step, first)
    return last.probability, last.moment


class _March(NamedTuple):
    """A place on an envelope: a line of some height at 0 and slope, from where it is the largest; and what was passed."""

    line: Int[Array, ""]
    height: Float[Array, ""]
    slope: Float[Array, ""]
    start: Float[Array, ""]
    on_a_line: Bool[Array, ""]
    probability: Float[Array, "m"]
    moment: Float[Array, "m"]


def _density(z: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


def _tail(z: Float[Array, ""]) -> Float[Array, ""]:
    return jax.scipy.special.ndtr(-z)
