"""Paths that go on as observations come and go: the same functions, with the same w and ε."""

import dataclasses
import math
from typing import Any, NamedTuple, TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .. import _checks
from .._features import NoFeatures
from .._functionals import AbstractFunctional, as_inputs
from .._kernels import AbstractKernel
from .._numerics.linalg import inner
from .._paths import PathEnsemble, PathwiseFunction
from .._types import Key
from .removing import as_numbers, coefficients_without, is_kept, of_functional, order_without

if TYPE_CHECKING:
    from .conditioned import ConditionedGP
else:
    ConditionedGP = Any


def continued(posterior: ConditionedGP, paths: Any, key: Key, n_new: int | None) -> Any:
    """`PathwiseFunction.condition`."""
    _check_whole(posterior, paths)
    if paths.spread is not None:
        raise ValueError(_OF_INDUCING)
    found = _continue(posterior, paths, _checks.key(key), *_new_numbers(posterior, paths, n_new))
    return _unless(found.paths, (found.other, OTHER), (found.lost, _LOST), (found.left, _LEFT))


_OF_INDUCING = (
    "Paths through inducing values, of a `DecoupledPathwiseSampler`, go on from its `posterior()`, and from what `condition` "
    "makes of that."
)
OTHER = (
    "`posterior` is not that of the paths, given more: its kernel, mean, points or noise differ from theirs. Paths keep the "
    "hyperparameters that they were drawn with; under others draw anew."
)
_LOST = (
    "The paths are conditioned on observations that `posterior` has not: take these out by `paths.without` first, with the "
    "posterior that had them."
)
_LEFT = "`n_new` is not the number of places, at the end of `posterior`, of what the paths have not."


def _unless(paths: Any, *faults: tuple[Bool[Array, ""], str]) -> Any:
    """Paths, or the error of the first of the faults that is true. It hangs on the coefficients: the leaves that draws
    have in common stay so."""

    def where(p: Any) -> Any:
        return (p.varying if isinstance(p, PathEnsemble) else p).coefficients

    leaf = where(paths)
    checked = _checks.verdict(leaf, *faults)
    return paths if checked is leaf else eqx.tree_at(where, paths, checked)


def new_to(posterior: ConditionedGP, paths: PathwiseFunction) -> int:
    """How many places of a posterior, from the end, hold what is new to some paths."""
    numbers, _ = _new_numbers(posterior, paths, None)
    end = posterior.capacity if posterior.size is None else int(posterior.size)
    return end - int(numbers[0]) if len(numbers) else 0


def _check_whole(posterior: ConditionedGP, paths: Any) -> None:
    if not isinstance(paths, PathwiseFunction) or isinstance(paths.features, NoFeatures):
        raise ValueError(
            f"`paths` must be draws of the posterior; got a {type(paths).__name__} that is none. The mean of a posterior is "
            "its `mean_path`."
        )
    if paths.noise is None:
        raise ValueError(
            "A part of a path (of `components`) has no solve of its own: take the parts of the whole path."
        )
    if paths.coefficients.dtype != posterior.y.dtype:
        raise ValueError(
            f"`paths` and `posterior` must be of one precision; got {paths.coefficients.dtype} and {posterior.y.dtype}."
        )


def _seen_by(paths: PathwiseFunction, n: int, np_: Any) -> Any:
    """Of n places those whose observations the paths are conditioned on."""
    seen = np_.isfinite(np_.asarray(paths.noise))
    return np_.concatenate([seen, np_.zeros(max(0, n - seen.shape[0]), bool)])[:n]


def _new_numbers(posterior: ConditionedGP, paths: PathwiseFunction, n_new: int | None) -> tuple[Any, bool]:
    """The places of what is new to the paths, an array, or a tuple where it is part of the structure; and whether they are
    known to be the last, one after the other."""
    n, size = posterior.capacity, posterior.size
    if n_new is not None:
        n_new = _checks.count(n_new, "n_new")
        if n_new > n:
            raise ValueError(f"{_LEFT} There are {n} in all; got {n_new}.")
        return tuple(range(n - n_new, n)) if size is None else size - n_new + jnp.arange(n_new), True
    if all(map(_checks.is_concrete, (paths.noise, posterior.mask, size))):
        there = np.ones(n, bool) if posterior.mask is None else np.asarray(posterior.mask)
        numbers = np.flatnonzero(there & ~_seen_by(paths, n, np))
        last = numbers.size > 0 and numbers[0] == (n if size is None else int(size)) - numbers.size
        return tuple(numbers.tolist()) if size is None else jnp.asarray(numbers), bool(last)
    if size is None and posterior.mask is None:
        # Shapes say how many there are.
        numbers = tuple(range(paths.coefficients.shape[-1], n))
        return numbers, bool(numbers)
    raise ValueError("Under jit `n_new` must say how many places are new to the paths: it is not known there.")


def _noise_at(key: Key, places: Int[Array, "m"], s: int, dtype: Any) -> Float[Array, "s m"]:
    """Standard normal numbers of s paths, which belong to each place: whatever others are new, and however these are told."""
    of_place = lambda place: jax.random.normal(jax.random.fold_in(key, place), (s,), dtype)
    return jax.vmap(of_place, out_axes=1)(places)


class _Continued(NamedTuple):
    """**Fields:** `paths`; and whether the posterior is another's (`other`), has not all that the paths have (`lost`), or has
    more that is new (`left`)."""

    paths: Any
    other: Bool[Array, ""]
    lost: Bool[Array, ""]
    left: Bool[Array, ""]


@eqx.filter_jit
def _continue(
    posterior: ConditionedGP, paths: PathwiseFunction, key: Key, numbers: Any, at_the_end: bool
) -> _Continued:
    n, places = posterior.capacity, jnp.asarray(numbers, int)
    noise, seen = posterior.noise, _seen_by(paths, n, jnp)
    there = jnp.ones(n, bool) if posterior.mask is None else posterior.mask
    lost, new = jnp.any(seen & ~there) | jnp.any(jnp.isfinite(jnp.asarray(paths.noise)[n:])), there & ~seen
    left = jnp.any(new.at[places].set(False)) | jnp.any(seen[places])
    coefficients = _resized(paths.coefficients, n)
    axes = posterior.y.shape[:-1]
    if places.shape[0] == 0:
        coefficients = jnp.broadcast_to(coefficients, (*axes, *coefficients.shape))
    else:
        # With A α = y − m − φᵀw − ε for what the paths have seen, α + A⁻¹E (y′ − f(X′) − ε′) solves that of all of it.
        L = posterior.prior.functional.take(numbers)
        epsilon = jnp.sqrt(noise[places])[None, :] * _noise_at(key, places, math.prod(paths.shape), noise.dtype)
        here = L.apply(paths).reshape(epsilon.shape) + epsilon
        surprise = posterior.y.reshape(-1, n)[:, None, places] - here[None]
        surprise = jnp.where(there[places][None, None], surprise, jnp.zeros_like(surprise))
        step = posterior.solution.inverse_rows(places, at_the_end)
        change = inner(surprise.reshape(-1, surprise.shape[-1]), step.T).reshape(*axes, *coefficients.shape)
        coefficients = jnp.broadcast_to(coefficients, change.shape) + change
    mean = posterior.coefficients
    made = dataclasses.replace(
        paths,
        inputs=as_inputs(posterior.observed),
        coefficients=coefficients.reshape(-1, *paths.shape, n)[0],
        mean_coefficients=mean.reshape(-1, n)[0],
        noise=posterior.noise_of_paths,
        noise_var=posterior.new_noise_var,
    )
    if axes:
        ours = lambda p: (p.coefficients, p.mean_coefficients)
        spec = eqx.tree_at(ours, jax.tree.map(lambda _: False, made), (True, True))
        varying, common = eqx.partition(made, spec)
        made = PathEnsemble(eqx.tree_at(ours, varying, (coefficients, mean)), common, len(axes))
    return _Continued(made, _other(posterior, paths, seen), lost, left)


def _resized(values: Float[Array, "*s m"], n: int) -> Float[Array, "*s n"]:
    """With zeros behind, or without what is behind."""
    more = jnp.zeros((*values.shape[:-1], max(0, n - values.shape[-1])), values.dtype)
    return jnp.concatenate([values, more], axis=-1)[..., :n]


# Of a noise or a covariance, in units of eps: by so much may what was computed twice differ.
_TWICE = 1e3


def differ(
    kernel: AbstractKernel, mean: Any, L: AbstractFunctional, paths: PathwiseFunction, seen: Bool[Array, "n"]
) -> Bool[Array, ""]:
    """Whether a kernel, a mean, or the points of L are others than those of paths, where these have seen them."""
    (ours, structure), (theirs, other) = map(jax.tree.flatten, ((kernel, mean), (paths.kernel, paths.prior_mean)))
    if structure != other:
        raise ValueError(OTHER)
    equal = [_equal(one, two) for one, two in zip(ours, theirs, strict=True)]
    # Where points are the same a kernel is the same function of them.
    M = paths.functional
    column = lambda functional: functional.of_kernel(kernel, M.points[:1])[0]
    here, there = column(L), _resized(column(M), L.size)
    return ~jnp.all(jnp.stack([*equal, _close(here, jnp.where(seen, there, here))]))


def _other(posterior: ConditionedGP, paths: PathwiseFunction, seen: Bool[Array, "n"]) -> Bool[Array, ""]:
    """Whether the posterior is not that of the paths: `differ`, or the noise is another."""
    noise, prior = posterior.noise, posterior.prior
    theirs = jnp.where(seen, _resized(jnp.asarray(paths.noise), noise.shape[0]), noise)
    return ~_close(noise, theirs) | differ(prior.kernel, prior.mean, posterior.observed, paths, seen)


def _close(one: Float[Array, "n"], two: Float[Array, "n"]) -> Bool[Array, ""]:
    eps = _TWICE * float(jnp.finfo(one.dtype).eps)
    return jnp.all(jnp.abs(one - two) <= eps * jnp.maximum(jnp.abs(one), jnp.abs(two)))


def _equal(one: Any, two: Any) -> Bool[Array, ""]:
    if not (eqx.is_array(one) and eqx.is_array(two)):
        return jnp.asarray(one is two or bool(one == two))
    if one.shape != two.shape:
        raise ValueError(OTHER)
    return jnp.all(one == two.astype(one.dtype))


def continued_without(posterior: ConditionedGP, paths: Any, numbers: Any) -> PathwiseFunction:
    """`PathwiseFunction.without`."""
    _check_same_size(posterior, paths, "without")
    numbers = as_numbers(numbers, posterior.capacity, posterior.size)
    found = _without(posterior, paths, jnp.asarray(numbers), order_without(posterior, numbers))
    return _unless(found.paths, (found.other, OTHER), (found.lost | found.left, _APART))


_APART = (
    "`posterior` is not the one that the paths are conditioned on: it has observations that they have not, or the other way "
    "round. Take paths along by `paths.condition` first."
)


def _check_same_size(posterior: ConditionedGP, paths: Any, name: str) -> None:
    _check_whole(posterior, paths)
    if paths.spread is not None:
        raise ValueError(f"`{name}` is of paths that are conditioned on observations; these are, on inducing values.")
    if paths.coefficients.shape[-1] != posterior.capacity or posterior.y.ndim > 1:
        raise ValueError(_APART)


@eqx.filter_jit
def _without(posterior: ConditionedGP, paths: PathwiseFunction, numbers: Int[Array, "k"], order: Any) -> _Continued:
    seen, there, left = _same_observations(posterior, paths)
    places = jnp.asarray(order, int)
    kept = is_kept(posterior, numbers, order) & there[places]
    coefficients = lambda values: coefficients_without(posterior, values, numbers)[..., places]
    L = of_functional(posterior.prior.X, order).suited_to(posterior.prior.kernel)
    made = dataclasses.replace(
        paths,
        inputs=as_inputs(L if posterior.mask is None else L.where(kept)),
        coefficients=coefficients(paths.coefficients),
        mean_coefficients=coefficients(paths.mean_coefficients),
        noise=jnp.where(kept, posterior.noise[places], jnp.inf),
    )
    return _Continued(made, _other(posterior, paths, seen), jnp.any(seen & ~there), left)


def _same_observations(posterior: ConditionedGP, paths: PathwiseFunction) -> tuple[Array, Array, Array]:
    n = posterior.capacity
    seen, there = _seen_by(paths, n, jnp), jnp.ones(n, bool) if posterior.mask is None else posterior.mask
    return seen, there, jnp.any(there & ~seen)


def left_out(posterior: ConditionedGP, paths: Any) -> Float[Array, "*s n"]:
    """`PathwiseFunction.leave_one_out`."""
    _check_same_size(posterior, paths, "leave_one_out")
    found = _left_out(posterior, paths)
    return _checks.verdict(found.paths, (found.other, OTHER), (found.lost | found.left, _APART))


@eqx.filter_jit
def _left_out(posterior: ConditionedGP, paths: PathwiseFunction) -> _Continued:
    # Without observation j a path is f(·) − k(·, X)P_:j α_j/P_jj, with P = A⁻¹, and (k(X, X)P)_jj = 1 − D_j P_jj.
    seen, there, left = _same_observations(posterior, paths)
    share = 1 / posterior.solution.inverse_diagonal() - posterior.noise
    values = posterior.observed.apply(paths)
    values = values - paths.coefficients * jnp.broadcast_to(share, paths.coefficients.shape)
    return _Continued(values, _other(posterior, paths, seen), jnp.any(seen & ~there), left)
