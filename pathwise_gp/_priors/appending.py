"""A posterior that is given more: its factor grows by a block.

With V = L⁻¹k(X, X′) for what is new, X′, the factor of all is [L, 0; Vᵀ, L′] with L′L′ᵀ = S = k(X′, X′) + noise − VᵀV. With
b = S⁻¹(y′ − μ(X′)), the coefficients become [α − L⁻ᵀV b; b].
"""

import dataclasses
import logging
from typing import Any, NamedTuple, TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .. import _checks
from .._functionals import AbstractFunctional, as_functional, as_inputs, flat_data
from .._numerics.linalg import CholeskyFactor, inner
from .._solvers.jitter import say, settle, Settled
from .base import not_definite
from .conditioning import contradiction, contradictions, in_deviations

if TYPE_CHECKING:
    from .conditioned import ConditionedGP
    from .exact import GPPrior
else:
    ConditionedGP = GPPrior = Any

_LOGGER = logging.getLogger("pathwise_gp")


class NewData(NamedTuple):
    """**Fields:** `L`: what was observed; `y`: `*t m`; `noise_var`: `()` or `m`, None for that of the others; `mask`: `m`."""

    L: AbstractFunctional
    y: Float[Array, "*t m"]
    noise_var: Float[Array, "..."] | None
    mask: Bool[Array, "m"] | None


def as_new_data(posterior: ConditionedGP, X: Any, y: Any, noise_var: Any, mask: Any) -> NewData:
    """Observations, noise and mask that fit what is new."""
    L = posterior.functional_of(X, "X_new")
    dtype, m, inputs = L.dtype, L.size, as_inputs(L)
    # A list is that of the blocks of a functional; of points it is an array.
    as_blocks = isinstance(y, (list, tuple)) and isinstance(inputs, AbstractFunctional)
    if not as_blocks and np.ndim(y) > 1 and np.shape(y) != L.shape:
        _, noise_var, mask = flat_data(inputs, None, noise_var, mask)
        y, mask = _fantasies(posterior, y, m, mask)
    else:
        y, noise_var, mask = flat_data(inputs, y, noise_var, mask)
        y, mask = _checks.observations(y, m, mask, _checks.MASK, "y_new", "X_new", L.shape)
    y = y.astype(dtype)
    if noise_var is None:
        if posterior.new_noise_var is None:
            raise ValueError("`noise_var` must be given: that of the other observations was given for each of them.")
        return NewData(L, y, None, mask)
    noise_var = _checks.noise_variance(noise_var, m, or_zero=True, like="X_new", n_outputs=L.n_each).astype(dtype)
    if not _checks.is_concrete(noise_var):
        noise_var = _checks.require(jnp.all(noise_var >= 0), noise_var, "`noise_var` must not be negative.")
    return NewData(L, y, None if _is_same(posterior.noise_var, noise_var) else noise_var, mask)


def _fantasies(posterior: ConditionedGP, y: Any, m: int, mask: Any) -> tuple[Float[Array, "*t m"], Array | None]:
    mask = None if mask is None else _checks.as_mask(mask, (m,))
    given, y = y, _checks.floating(y, "y_new")
    if y.shape[-1] != m:
        raise ValueError(
            f"`y_new` must have shape ({m},), or (*t, {m}) of fantasies, for what `X_new` observes; got {y.shape}."
        )
    try:
        jnp.broadcast_shapes(y.shape[:-1], posterior.y.shape[:-1])
    except ValueError as e:
        raise ValueError(
            f"The axes {y.shape[:-1]} of `y_new` and {posterior.y.shape[:-1]} of the fantasies that the posterior has do not "
            "fit each other."
        ) from e
    everywhere = None if mask is None else jnp.broadcast_to(mask, y.shape)
    return _checks.observed(y, _checks.MASK, everywhere, given, "y_new"), mask


def _is_same(old: Float[Array, "..."], new: Float[Array, "..."]) -> bool:
    """Whether both are one number, and the same as far as can be seen."""
    return old.ndim == new.ndim == 0 and all(map(_checks.is_concrete, (old, new))) and float(old) == float(new)


def is_one(variance: Float[Array, "..."], *observed: AbstractFunctional) -> bool:
    """Whether a variance is one number, or one for each output of what was all observed on full grids."""
    return variance.ndim == 0 or all(variance.shape == (L.n_each,) for L in observed)


def noise_of_new(prior: GPPrior, L: AbstractFunctional, noise_var: Float[Array, "..."]) -> Float[Array, "..."] | None:
    """The variance of the noise of a new observation beside that of the kernel: what was given as one number for those of L,
    or as one for each output; else None."""
    if not is_one(noise_var, L) or not (prior.jitter is None or is_one(prior.jitter, prior.functional)):
        return None
    parts = prior.kernel.outputs(L.dim)
    if noise_var.ndim and (parts is None or parts[1].shape[0] != noise_var.shape[0]):
        return None  # there are outputs of which none was given
    return noise_var if prior.jitter is None else noise_var + one_jitter(prior, noise_var.dtype)


def one_jitter(prior: GPPrior, dtype: Any) -> Float[Array, "..."]:
    if prior.jitter is None or not is_one(prior.jitter, prior.functional):
        return jnp.zeros((), dtype)
    return prior.jitter.astype(dtype)


def jitter_of_new(prior: GPPrior, L: AbstractFunctional) -> Float[Array, "m"]:
    """The jitter that was asked for of new values: none where it was given for each of the others."""
    return _of_each(one_jitter(prior, L.dtype), L)


def _of_each(variance: Float[Array, "..."], L: AbstractFunctional) -> Float[Array, "m"]:
    """A variance of each new value, of one for all of them or for each output."""
    return L.spread(variance) if is_one(variance, L) else L.of_outputs(variance)


class _Appended(NamedTuple):
    posterior: ConditionedGP
    settled: Settled
    misses: Float[Array, "nm"]
    contradicts: Bool[Array, "nm"]
    infinite: Bool[Array, ""]
    full: Bool[Array, ""]


def append(
    posterior: ConditionedGP,
    L: AbstractFunctional,
    y: Float[Array, "*t m"],
    noise_var: Float[Array, "..."] | None,
    mask: Bool[Array, "m"] | None,
) -> ConditionedGP:
    """`ConditionedGP.condition` for values that have been checked."""
    posterior = _with_room_for(posterior, L)
    found = _append(posterior, L, y, noise_var, mask)
    # What is made of the factor needs the inputs or the coefficients too. A condition on itself would make a copy of it.
    lower = lambda posterior: posterior.factor.lower
    new = _checks.verdict(
        eqx.tree_at(lower, found.posterior, None),
        (found.full, _FULL),
        not_definite(found.settled, L, "X_new"),
        (found.infinite, "`y_new` and the mean at `X_new` must be finite; got NaN or inf."),
        (jnp.any(found.contradicts), contradiction(found.contradicts[-L.size :], found.misses[-L.size :], "X_new")),
    )
    say(found.settled.shortfall, L.dtype, "X_new")
    return eqx.tree_at(lower, new, lower(found.posterior), is_leaf=lambda leaf: leaf is None)


_FULL = (
    "`X_new` does not fit: all places of the posterior are taken, and under jit it cannot grow. Give a larger `capacity`, or "
    "take observations out with `without`."
)


@eqx.filter_jit
def _append(
    posterior: ConditionedGP,
    L: AbstractFunctional,
    y: Float[Array, "*t m"],
    noise_var: Float[Array, "..."] | None,
    mask: Bool[Array, "m"] | None,
) -> _Appended:
    prior, factor, m = posterior.prior, posterior.factor, L.size
    kernel, seen = prior.kernel, posterior.observed
    between = L.cross(kernel, seen)
    if mask is not None:
        between = jnp.where(mask[:, None], between, jnp.zeros_like(between))
    white = factor.whiten(between)  # Vᵀ
    jitter = None if prior.jitter is None else jitter_of_new(prior, L)
    same_noise, new_noise_var = noise_var is None, posterior.new_noise_var
    if noise_var is not None:
        new_noise_var = noise_of_new(prior, L, noise_var)
    elif is_one(posterior.noise_var, seen, L):
        noise_var = posterior.noise_var
    else:
        same_noise, noise_var = False, known_noise(posterior, L)
    noise, others = prior.noise_at(L, noise_var), seen.size if factor.mask is None else jnp.sum(factor.mask)
    settled = settle(L.gram(kernel), noise, jitter, mask, inner(white, white), others)

    axes = jnp.broadcast_shapes(y.shape[:-1], posterior.y.shape[:-1])
    old, y = (jnp.broadcast_to(v, (*axes, v.shape[-1])) for v in (posterior.coefficients, y))
    if mask is not None:
        y = jnp.where(mask, y, jnp.zeros_like(y))
    flat = old.reshape(-1, old.shape[-1])
    residual = y - jnp.broadcast_to(prior.mean_at(L), y.shape)
    b = settled.factor.solve(residual.reshape(-1, m) - inner(flat, between))
    back = factor.whiten_back(white)
    coefficients = (flat - inner(b, back.T)).reshape(old.shape)
    b = b.reshape(y.shape)
    # Of `back` nothing. It says that the old factor has been read when the new one is written: in a scan that is in place.
    block = settled.factor.lower + 0 * back[0, 0]

    misses, contradicts = _contradictions(posterior, settled, noise, residual, mask, coefficients, b)
    join = Join(posterior.size, seen.size, m)
    made = dataclasses.replace(
        posterior,
        prior=given(prior, join.functionals(prior, L), lambda jitter: join(jitter, jitter_of_new(prior, L))),
        y=join(jnp.broadcast_to(posterior.y, old.shape), y),
        noise_var=posterior.noise_var if same_noise else join(seen.spread(posterior.noise_var), L.spread(noise_var)),
        solution=CholeskyFactor(join.factors(factor.lower, white, block), join.masks(factor.mask, mask)),
        coefficients=join(coefficients, b),
        jitter=join(posterior.jitter, settled.jitter),
        new_noise_var=new_noise_var,
        size=None if posterior.size is None else posterior.size + m,
    )
    full = jnp.zeros((), bool) if posterior.size is None else posterior.size + m > seen.size
    infinite = ~jnp.all(jnp.isfinite(b)) | ~jnp.all(jnp.isfinite(coefficients))
    return _Appended(made, settled, misses, contradicts, infinite, full)


def _contradictions(
    posterior: ConditionedGP,
    settled: Settled,
    noise: Float[Array, "m"],
    residual: Float[Array, "*t m"],
    mask: Bool[Array, "m"] | None,
    coefficients: Float[Array, "*t n"],
    b: Float[Array, "*t m"],
) -> tuple[Float[Array, "nm"], Bool[Array, "nm"]]:
    """`contradictions` of the old observations and of the new ones."""
    prior, L = posterior.prior, posterior.observed
    given = jnp.zeros_like(posterior.jitter) if prior.jitter is None else L.spread(prior.jitter.astype(L.dtype))
    there = jnp.ones(L.size, bool) if posterior.mask is None else posterior.mask
    # Of places without observations nothing was asked.
    added = jnp.where(there, posterior.jitter - given, jnp.zeros_like(given))
    scale = L.diagonal(prior.kernel) + posterior.noise
    before = in_deviations(posterior.y - jnp.broadcast_to(prior.mean_at(L), posterior.y.shape), scale, posterior.mask)
    furthest = jnp.maximum(jnp.max(before), jnp.max(in_deviations(residual, settled.scale, mask)))
    both = lambda old, new: jnp.concatenate([old, new], axis=-1)
    return contradictions(
        both(added, settled.added),
        both(scale, settled.scale),
        both(posterior.noise, noise + settled.jitter),
        both(coefficients, b),
        furthest,
    )


def known_noise(posterior: ConditionedGP, L: AbstractFunctional) -> Float[Array, "m"]:
    """The noise of new observations that is known from those before, without the jitter."""
    return _of_each(jnp.asarray(posterior.new_noise_var) - one_jitter(posterior.prior, L.dtype), L)


def given(prior: GPPrior, L: AbstractFunctional, of_jitter: Any) -> GPPrior:
    """A prior at other points, with a jitter for each of them where there was one for each."""
    jitter, old = prior.jitter, prior.functional
    if jitter is not None and not is_one(jitter, old, L):
        jitter = of_jitter(old.spread(jitter))
    where = lambda p: (p.X, p.jitter)
    return eqx.tree_at(where, prior, (as_inputs(L), jitter), is_leaf=lambda leaf: leaf is None or leaf is prior.X)


class Join:
    """m values put behind n others: in the places from `size` on, or below them in arrays that are larger."""

    def __init__(self, size: Int[Array, ""] | None, n: int, m: int):
        self.size, self.n, self.m = size, n, m

    def __call__(self, old: Array, new: Array) -> Array:
        if self.size is None:
            return jnp.concatenate([old, new], axis=-1)
        return jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), self.size, axis=-1)

    def functionals(self, prior: GPPrior, L: AbstractFunctional) -> AbstractFunctional:
        old = as_functional(prior.X)
        return old.then(L) if self.size is None else old.put(L, self.size)

    def masks(self, old: Bool[Array, "n"] | None, new: Bool[Array, "m"] | None) -> Bool[Array, "..."] | None:
        if old is None and new is None:
            return None
        return self(*(jnp.ones(n, bool) if mask is None else mask for mask, n in ((old, self.n), (new, self.m))))

    def factors(self, old: Float[Array, "n n"], left: Float[Array, "m n"], new: Float[Array, "m m"]) -> Array:
        if self.size is None:
            return jnp.block([[old, jnp.zeros_like(left).T], [left, new]])
        # To the right of the places that are taken V is 0.
        rows = jax.lax.dynamic_update_slice_in_dim(left, new, self.size, axis=1)
        return jax.lax.dynamic_update_slice_in_dim(old, rows, self.size, axis=0)


def _with_room_for(posterior: ConditionedGP, L: AbstractFunctional) -> ConditionedGP:
    """The same with places enough, or without room where what is new does not fit in its places."""
    if posterior.size is None:
        return posterior
    holds, known = as_functional(posterior.prior.X).holds(L), _checks.is_concrete(posterior.size)
    if not holds:
        if not known:
            raise ValueError(
                f"`X_new` is a `{type(L).__name__}`, for which the posterior has no places, and under jit it cannot make "
                "them: leave out `capacity`."
            )
        _LOGGER.info("Room for more is given up: there are no places for a %s.", type(L).__name__)
        return trimmed(posterior)
    needed, capacity = int(posterior.size) + L.size if known else 0, posterior.capacity
    while capacity < needed:
        capacity *= 2
    if capacity == posterior.capacity:
        return posterior
    _LOGGER.info("Room for %d observations becomes room for %d.", posterior.capacity, capacity)
    return with_room(posterior, capacity)


def with_room(posterior: ConditionedGP, capacity: int) -> ConditionedGP:
    """The same with places for so many observations, of which those that it has are the first."""
    n = posterior.capacity
    if capacity < n:
        raise ValueError(f"`capacity` must be at least the number of observations, {n}; got {capacity}.")
    return _with_room(posterior, as_functional(posterior.prior.X).with_room(capacity))


@eqx.filter_jit
def _with_room(posterior: ConditionedGP, L: AbstractFunctional) -> ConditionedGP:
    n, c = posterior.capacity, L.size

    def pad(values: Array) -> Array:
        return jnp.concatenate([values, jnp.zeros((*values.shape[:-1], c - n), values.dtype)], axis=-1)

    mask = jnp.ones(n, bool) if posterior.mask is None else posterior.mask
    lower = jnp.eye(c, dtype=posterior.y.dtype).at[:n, :n].set(posterior.factor.lower)
    return dataclasses.replace(
        posterior,
        prior=given(posterior.prior, L, pad),
        y=pad(posterior.y),
        noise_var=pad(posterior.prior.functional.spread(posterior.noise_var)),
        solution=CholeskyFactor(lower, pad(mask)),
        coefficients=pad(posterior.coefficients),
        jitter=pad(posterior.jitter),
        size=jnp.asarray(n, jnp.result_type(int)) if posterior.size is None else posterior.size,
    )


def trimmed(posterior: ConditionedGP) -> ConditionedGP:
    """`ConditionedGP.trimmed`."""
    if posterior.size is None:
        return posterior
    if not _checks.is_concrete(posterior.size):
        raise ValueError("`trimmed` makes arrays of the size that is taken, which is not known under jit.")
    n = int(posterior.size)
    if n == 0:
        raise ValueError("`trimmed` leaves nothing: no place is taken. Keep the room, or use the prior.")
    cut = lambda values: values[..., :n]
    mask = cut(posterior.mask)
    return dataclasses.replace(
        posterior,
        prior=given(posterior.prior, as_functional(posterior.prior.X).take(tuple(range(n))), cut),
        y=cut(posterior.y),
        noise_var=_as_one(cut(posterior.noise_var)),
        solution=CholeskyFactor(posterior.factor.lower[:n, :n], None if bool(jnp.all(mask)) else mask),
        coefficients=cut(posterior.coefficients),
        jitter=cut(posterior.jitter),
        size=None,
    )


def _as_one(noise_var: Float[Array, "n"]) -> Float[Array, "..."]:
    """One number where all are the same."""
    return noise_var[0] if bool(jnp.all(noise_var == noise_var[0])) else noise_var
