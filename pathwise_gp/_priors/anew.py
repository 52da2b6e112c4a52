"""Posteriors that are solved from the start."""

import dataclasses
from typing import Any, TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .. import _checks
from .._functionals import AbstractFunctional, as_functional
from .appending import given, is_one, jitter_of_new, Join, known_noise, noise_of_new
from .removing import as_numbers, of_functional, order_without

if TYPE_CHECKING:
    from .conditioned import ConditionedGP
    from .exact import GPPrior
else:
    ConditionedGP = GPPrior = Any


def solved_anew(
    posterior: ConditionedGP,
    L: AbstractFunctional,
    y: Float[Array, "*t m"],
    noise_var: Float[Array, "..."] | None,
    mask: Bool[Array, "m"] | None,
) -> ConditionedGP:
    """The same where the solution does not grow: all of it is solved, and the noise of what was there stays."""
    if y.ndim > 1:
        raise ValueError(
            "`y_new` of several fantasies takes a factor, from which each is made: condition with `solver=Cholesky()`, or on "
            "one set of values after the other."
        )
    prior, n, m = posterior.prior, posterior.capacity, L.size
    join = Join(None, n, m)
    old, new_noise_var = prior.functional, posterior.new_noise_var
    same = noise_var is None and is_one(posterior.noise_var, old, L)
    if noise_var is None:
        noise_var = known_noise(posterior, L)
    else:
        new_noise_var = noise_of_new(prior, L, noise_var)
    made = given(prior, join.functionals(prior, L), lambda jitter: join(jitter, jitter_of_new(prior, L))).condition(
        join(posterior.y, y),
        posterior.noise_var if same else join(old.spread(posterior.noise_var), L.spread(noise_var)),
        join.masks(posterior.mask, mask),
        solver=posterior.solver,
        start=posterior,
        check_scales=False,
    )
    return dataclasses.replace(made, new_noise_var=new_noise_var)


def solved_without(posterior: ConditionedGP, numbers: Any) -> ConditionedGP:
    """`ConditionedGP.without` where the solution does not shrink."""
    numbers = as_numbers(numbers, posterior.capacity)
    order, prior = order_without(posterior, numbers), posterior.prior
    L, places = of_functional(prior.X, order), jnp.asarray(order)
    noise_var = posterior.noise_var
    if not is_one(noise_var, prior.functional, L):
        noise_var = prior.functional.spread(noise_var)[places]
    made = given(prior, L, lambda jitter: jitter[places]).condition(
        posterior.y[places],
        noise_var,
        None if posterior.mask is None else posterior.mask[places],
        solver=posterior.solver,
        start=posterior.coefficients[places],
        check_scales=False,
    )
    return dataclasses.replace(made, new_noise_var=posterior.new_noise_var)


def under(posterior: ConditionedGP, prior: GPPrior, noise_var: Any) -> ConditionedGP:
    """`ConditionedGP.under`."""
    if posterior.y.ndim > 1:
        raise ValueError(
            "`under` is of one set of observations; this posterior has fantasies: condition the prior on each."
        )
    old, new = as_functional(posterior.prior.X), as_functional(prior.X)
    same = jax.tree.structure(old) == jax.tree.structure(new) and old.size == new.size
    if not same or (
        _checks.is_concrete(old.points) and _checks.is_concrete(new.points) and bool(jnp.any(old.points != new.points))
    ):
        raise ValueError("`prior` must be at the points that the posterior has, places that are free among them.")
    number = noise_var is None or np.ndim(noise_var) == 0
    made = prior.condition(
        posterior.y,
        posterior.noise_var if noise_var is None else noise_var,
        posterior.mask,
        solver=posterior.solver,
        start=posterior,
        check_scales=False,
    )
    if posterior.size is None:
        return made
    places = jnp.arange(posterior.capacity) < posterior.size
    each = jnp.where(places, new.spread(made.noise_var), jnp.zeros_like(posterior.y))
    known = posterior.new_noise_var if noise_var is None else made.new_noise_var if number else None
    return dataclasses.replace(made, noise_var=each, size=posterior.size, new_noise_var=known)
