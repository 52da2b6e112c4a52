"""The log density of what is observed at the training inputs X of a prior."""

from typing import Any, TypeVar

import equinox as eqx
import jax
from jaxtyping import Array, Bool, Float

from .._solvers import suited, System

# A prior with training inputs X.
PriorT = TypeVar("PriorT", bound=Any)


def without(prior: PriorT, mask: Bool[Array, "n"] | None) -> PriorT:
    """A prior in which what was not observed has no say."""
    if mask is None:
        return prior
    seen = _where(prior.functional, mask)
    return eqx.tree_at(lambda p: p.X, prior, seen.X if isinstance(prior.X, jax.Array) else seen)


@eqx.filter_jit
def _where(L: Any, mask: Bool[Array, "n"]) -> Any:
    return L.where(mask)


@eqx.filter_jit
def log_prob(
    prior: Any, y: Float[Array, "n"], noise_var: Float[Array, "..."], mask: Bool[Array, "n"] | None
) -> Float[Array, ""]:
    """`log_density`, compiled."""
    return log_density(prior, y, noise_var, mask)


@eqx.filter_jit
def log_prob_and_whether_lost(
    prior: Any, y: Float[Array, "n"], noise_var: Float[Array, "..."], mask: Bool[Array, "n"] | None
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """The log density, and whether the noise is lost in rounding."""
    system = _system(prior, y, noise_var, mask)
    found = suited(system[0]).evidence(*system)
    return found.log_density, found.lost


def log_density(
    prior: Any, y: Float[Array, "n"], noise_var: Float[Array, "..."], mask: Bool[Array, "n"] | None
) -> Float[Array, ""]:
    """`GPPrior.log_prob` of values that have been checked."""
    system = _system(without(prior, mask), y, noise_var, mask)
    return suited(system[0]).log_density(*system)


def _system(
    prior: Any, y: Float[Array, "n"], noise_var: Float[Array, "..."], mask: Bool[Array, "n"] | None
) -> tuple[System, Float[Array, "n"]]:
    L = prior.functional
    return prior.system(L, noise_var, mask), y - prior.mean_at(L)
