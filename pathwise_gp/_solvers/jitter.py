"""What is added to the diagonal of a covariance so that it can be factorised: decided here alone, and said.

The factor of an n × n matrix is that of a matrix which differs from it by rounding, some n·eps of each row's own variance. So

- nothing is added where the factorisation succeeds, and no row without noise is left with a conditional variance that is
  rounding;
- else ten times that, and so on by decades, as far as is needed: a vector, in proportion to each row's own variance, as if
  the correlation matrix were factorised. No unit enters.

A density that a sampler or an optimiser follows must be smooth in the hyperparameters, which a decision is not. There rows
without noise always have the first of these steps, a smooth function of the hyperparameters, and other rows nothing; where
that does not suffice the density is −inf.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .. import _checks
from .._numerics.linalg import add_diagonal, CholeskyFactor, seen, settled_cholesky

# What is added first, in units of the rounding of a row, n·eps of its variance: a decade above what factors the covariance of
# many smooth kernels.
FIRST = 10
# In units of the variance of a row: past this, what is added is a noise that ought to be asked for.
LARGEST = 1e-3
# Of the noise: so much may be added to it, and of the variance of a row without noise, before it is said.
OF_NOISE, OF_VARIANCE = 1e-2, 1e-6
# The same of the variance of an inducing value under a guide: a hundredth of its standard deviation.
_OF_GUIDE = 2e-2


class Shortfall(NamedTuple):
    """How a factorisation falls short of the model, true or false: a jitter that was given was `raised`; what was added is
    beyond a hundredth of the noise (`drowned`), or beyond a millionth of the variance where there is no noise (`coarse`); the
    noise is no larger than rounding (`lost`)."""

    raised: Bool[Array, ""]
    drowned: Bool[Array, ""]
    coarse: Bool[Array, ""]
    lost: Bool[Array, ""]


class Settled(NamedTuple):
    """A factorisation of K + noise + jitter.

    **Fields:** `factor`; `jitter`: all that was added beside the noise, `n`; `added`: what of it was not asked for, `n`;
    `scale`: the variance of each row, noise included, `n`; `failed`: whether no jitter was enough; `shortfall`.
    """

    factor: CholeskyFactor
    jitter: Float[Array, "n"]
    added: Float[Array, "n"]
    scale: Float[Array, "n"]
    failed: Bool[Array, ""]
    shortfall: Shortfall


def smooth(
    diagonal: Float[Array, "n"],
    noise: Float[Array, "n"],
    mask: Bool[Array, "n"] | None = None,
    size: int | None = None,
) -> Float[Array, "n"]:
    """The jitter of a density that is to be smooth: of rows without noise the first step, of others nothing; `size`: of how
    many rows in all, where these stand for more."""
    n = (size or diagonal.shape[0]) if mask is None else jnp.sum(mask).astype(diagonal.dtype)
    own = jnp.where(diagonal > 0, diagonal, jnp.mean(diagonal))  # a row without variance has the mean of all
    return jnp.where(noise > 0, jnp.zeros_like(noise), first_step(n, diagonal.dtype) * own)


def first_step(n: int | Float[Array, ""], dtype: jnp.dtype) -> Float[Array, ""]:
    """10·n·eps."""
    return jnp.asarray(FIRST * n * jnp.finfo(dtype).eps, dtype)


def settle(
    K: Float[Array, "n n"],
    noise: Float[Array, "n"],
    given: Float[Array, "n"] | None = None,
    mask: Bool[Array, "n"] | None = None,
    explained: Float[Array, "n n"] | None = None,
    others: int | Int[Array, ""] = 0,
) -> Settled:
    """The factor of K + diag(noise + jitter), with no more jitter than was given and is needed. Of points that are masked it
    knows nothing. Where there are `others`, so many, it is the last block of a factor of all of them: what they have
    `explained` of K comes off, and what is rounding is so of the whole."""
    jitter = jnp.zeros_like(noise) if given is None else given
    there = jnp.ones(noise.shape, bool) if mask is None else mask
    only = lambda values: jnp.where(there, values, jnp.zeros_like(values))
    A = add_diagonal(K, noise + jitter)
    diagonal = only(jnp.diagonal(A))
    A = seen(A if explained is None else A - explained, mask)
    n_eps = (others + jnp.sum(there)).astype(A.dtype) * jnp.finfo(A.dtype).eps
    mean = jnp.sum(diagonal) / jnp.maximum(jnp.sum(there), 1).astype(A.dtype)
    scale = jax.lax.stop_gradient(only(jnp.where(diagonal > 0, diagonal, mean)))
    rounding = n_eps * scale
    floor = jax.lax.stop_gradient(only(jnp.where(noise + jitter < rounding, rounding, jnp.zeros_like(rounding))))
    first = FIRST * n_eps
    lower, tau = settled_cholesky(A, scale, floor, first, jnp.maximum(first, LARGEST))
    added = tau * scale
    asked = noise + jitter
    pivots = jnp.diagonal(lower) ** 2
    shortfall = Shortfall(
        raised=(tau > 0) & jnp.any(only(jitter) > 0) if given is not None else jnp.zeros((), bool),
        drowned=jnp.any((asked > 0) & (added > OF_NOISE * asked)),
        coarse=(tau > OF_VARIANCE) & jnp.any(there & (asked <= 0)),
        lost=is_lost(pivots, only(noise), scale, FOR_THE_LAW * n_eps),
    )
    factor = CholeskyFactor(lower, mask)
    return Settled(factor, jitter + added, added, scale, ~factor.is_finite(), shortfall)


# How many times the rounding of its row, n·eps of the variance, a pivot must be: for a mean and paths that are off by less
# than a tenth of the posterior standard deviation, and for a density that is right to a hundredth (as seen in float32 for
# smooth and rough kernels, sums and years, with 10 to 500 points and noise from 1e-2 to 1e-8 of the variance).
FOR_THE_LAW, FOR_A_DENSITY = 20.0, 3.0


def is_lost(
    pivots: Float[Array, "n"], noise: Float[Array, "n"], scale: Float[Array, "n"], least: Float[Array, ""]
) -> Bool[Array, ""]:
    """Whether the noise of a row is lost in rounding: its pivot is less than so much of its variance."""
    return jnp.any((noise > 0) & (pivots < least * scale))


def drowns_guide(added: Float[Array, "m"], spread: Float[Array, "m m"]) -> Bool[Array, ""]:
    """Whether what was added to inducing values is large beside their variance under a guide, of which `spread` is a root."""
    variance = jnp.sum(spread * spread, axis=1)
    return jnp.any((variance > 0) & (added > _OF_GUIDE * variance))


def say(shortfall: Shortfall, dtype: jnp.dtype, name: str) -> None:
    """Warns where a factorisation fell short of the model; not under jit, where nothing is known yet."""
    if not all(map(_checks.is_concrete, shortfall)):
        return
    if shortfall.raised:
        what = "the `jitter` given did not suffice and was raised"
    elif shortfall.drowned:
        what = "more than a hundredth of the noise was added"
    elif shortfall.coarse:
        what = "more than a millionth of the variance was added where there is no noise"
    else:
        say_lost(shortfall.lost, dtype, name)
        return
    _warn(f"To factorise the covariance of the points `{name}` {what}: see `jitter` of the result.", dtype)


def say_beside_guide(drowned: Bool[Array, ""], dtype: jnp.dtype) -> None:
    """Warns where what was added to inducing values is no longer small beside what a guide leaves open of them."""
    if _checks.is_concrete(drowned) and drowned:
        what = "more than a fiftieth of the guide's variance was added to an inducing value"
        _warn(f"To factorise the covariance of the points `Z` {what}: see `prior.settled().jitter`.", dtype)


def say_lost(lost: Bool[Array, ""], dtype: jnp.dtype, name: str) -> None:
    """Warns where the noise, or what it leaves open, is rounding; not under jit, where nothing is known yet."""
    if _checks.is_concrete(lost) and lost:
        _warn(f"At points of `{name}` the noise is so small beside the variance that rounding takes its place.", dtype)


def _warn(what: str, dtype: jnp.dtype) -> None:
    precision = (
        "" if jnp.finfo(dtype).bits > 32 else "compute in float64 (`jax.config.update('jax_enable_x64', True)`), "
    )
    _checks.warn(
        f"{what} In {dtype} this model has few digits: {precision}subtract an offset from the inputs of a linear kernel, "
        "remove (nearly) repeated points, shorten a lengthscale that is long beside the spread of the points, or give a "
        "larger noise or `jitter`."
    )
