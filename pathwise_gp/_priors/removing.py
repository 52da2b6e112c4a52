"""A posterior from which observations are taken."""

import dataclasses
from typing import Any, TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .. import _checks
from .._functionals import AbstractFunctional, as_functional
from .._numerics.lapack import cholesky
from .._numerics.linalg import CholeskyFactor, inner
from .._numerics.updating import without_rows
from .appending import given, is_one

if TYPE_CHECKING:
    from .conditioned import ConditionedGP
else:
    ConditionedGP = Any


def as_numbers(numbers: Any, n: int, size: Int[Array, ""] | None = None) -> Any:
    """Numbers of n observations, or of the first `size` of them, from 0 on, each once: of NumPy where they are known."""
    known = size is None or _checks.is_concrete(size)
    numbers = _checks.index(numbers, int(size) if known and size is not None else n, "Observation")
    np_: Any = np if known and _checks.is_concrete(numbers) else jnp
    numbers = np_.atleast_1d(np_.asarray(numbers))
    if numbers.ndim > 1 or numbers.dtype.kind not in "iu":
        raise ValueError(
            f"`numbers` must be whole numbers, one or several; got {numbers.dtype} of shape {numbers.shape}."
        )
    taken = np_.asarray(n if size is None else size, numbers.dtype)
    numbers = np_.where(numbers < 0, numbers + taken, numbers)
    once = np_.sum(numbers[:, None] == numbers[None, :]) == numbers.shape[0]
    there = np_.all((numbers >= 0) & (numbers < taken))
    message = "`numbers` must be those of observations that there are, each once."
    if np_ is np and not (once and there):
        raise ValueError(message)
    return numbers if np_ is np else _checks.verdict(numbers, (~(once & there), message))


def remove(posterior: ConditionedGP, numbers: Any) -> ConditionedGP:
    """`ConditionedGP.without`."""
    numbers = as_numbers(numbers, posterior.capacity, posterior.size)
    return _removed(posterior, jnp.asarray(numbers), order_without(posterior, numbers))


def order_without(posterior: ConditionedGP, numbers: Any) -> Any:
    """The observations that stay, in their order; where there is room the others behind them. A tuple where arrays shrink,
    or where which values are kept is part of the structure of a functional."""
    n = posterior.capacity
    if posterior.size is not None and as_functional(posterior.prior.X).one_by_one:
        gone = jnp.zeros(n, bool).at[numbers].set(True) | (jnp.arange(n) >= posterior.size)
        return jnp.argsort(gone, stable=True)
    if not _checks.is_concrete(numbers):
        raise ValueError(
            "Under jit `without` needs room (`capacity`): else which observations are left is its structure."
        )
    kept = np.delete(np.arange(n), np.asarray(numbers))
    if posterior.size is None and kept.size == 0:
        raise ValueError("`without` would leave no observation: use the prior.")
    behind = () if posterior.size is None else tuple(np.asarray(numbers).tolist())
    return (*kept.tolist(), *behind)


@eqx.filter_jit
def _removed(posterior: ConditionedGP, numbers: Int[Array, "k"], order: Any) -> ConditionedGP:
    places = jnp.asarray(order)
    seen, size = is_kept(posterior, numbers, order), posterior.size
    pick = lambda values: values[..., places]
    blank = lambda values: values if size is None else jnp.where(seen, values, jnp.zeros_like(values))
    lower = without_rows(posterior.factor.lower, numbers)[places][:, places]
    mask = pick(jnp.ones(posterior.capacity, bool) if posterior.mask is None else posterior.mask) & seen
    L, noise_var = of_functional(posterior.prior.X, order), posterior.noise_var
    if not is_one(noise_var, posterior.prior.functional, L):
        noise_var = blank(pick(posterior.prior.functional.spread(noise_var)))
    return dataclasses.replace(
        posterior,
        prior=given(posterior.prior, L, lambda jitter: blank(pick(jitter))),
        y=blank(pick(posterior.y)),
        noise_var=noise_var,
        solution=CholeskyFactor(lower, None if posterior.mask is None else mask),
        coefficients=pick(coefficients_without(posterior, posterior.coefficients, numbers)),
        jitter=blank(pick(posterior.jitter)),
        size=None if size is None else size - numbers.shape[0],
    )


def of_functional(X: Any, order: Any) -> AbstractFunctional:
    return as_functional(X).take(order)


def is_kept(posterior: ConditionedGP, numbers: Int[Array, "k"], order: Any) -> Bool[Array, "n"]:
    """Of each place in a new order, whether an observation has it."""
    length = len(order) if isinstance(order, tuple) else order.shape[0]
    left = length if posterior.size is None else posterior.size - numbers.shape[0]
    return jnp.arange(length) < left


def coefficients_without(
    posterior: ConditionedGP, coefficients: Float[Array, "*s n"], numbers: Int[Array, "k"]
) -> Float[Array, "*s n"]:
    """α − P_:B P_BB⁻¹ α_B with P = A⁻¹, which is 0 at the observations B that are taken out."""
    n, k = coefficients.shape[-1], numbers.shape[0]
    unit = jnp.zeros((k, n), coefficients.dtype).at[jnp.arange(k), numbers].set(1)
    P = posterior.solution.solve(unit)
    flat = coefficients.reshape(-1, n)
    # A place of what was not observed has a row of the identity, and nothing of it is to come off.
    missing = jnp.zeros(k, bool) if posterior.mask is None else ~posterior.mask[numbers]
    block = jnp.where(missing[:, None] | missing[None, :], jnp.eye(k, dtype=P.dtype), P[:, numbers])
    share = CholeskyFactor(cholesky(block)).solve(flat[:, numbers])
    left = flat - inner(share, P.T)
    return left.at[:, numbers].set(0).reshape(coefficients.shape)
