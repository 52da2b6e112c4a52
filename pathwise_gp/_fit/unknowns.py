"""Hyperparameters as a point without bounds, in coordinates in which no unit enters."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .. import _fields
from .._addresses import leaves_of, put
from .._functionals import as_inputs
from .._numerics.lapack import cholesky
from .._numerics.linalg import CholeskyFactor, seen
from .._priors import GPPrior
from .._priors.evidence import without

# Of the noise among the addresses of a prior's fields.
NOISE = "noise_var"
# So many observations say the scales of very many.
_SOME = 512
# Entries of a field that have each a scale of their own; of a larger one all have the same.
_SCALED_ONE_BY_ONE = 32


class Unknowns:
    """What is looked for: some fields of a prior, and the noise.

    **Fields:** `first`: the values to start from, unconstrained, by address; `real`: those of real fields among them.
    """

    def __init__(self, prior: GPPrior, noise_var: Float[Array, "..."], addresses: tuple[str, ...], learn_noise: bool):
        self._prior, self._noise_var, self._leaves = prior, noise_var, leaves_of(prior)
        # A field without entries has nothing to learn.
        leaves = {address: self._leaves[address] for address in addresses if self._leaves[address].value.size}
        self._domains: dict[str, _fields.Domain] = {address: leaf.domain for address, leaf in leaves.items()}
        self.first = {a: _fields.unconstrained(leaf.value, self._domains[a]) for a, leaf in leaves.items()}
        if learn_noise:
            self.first[NOISE] = jnp.log(noise_var)
        known = ("positive", "simplex")
        self.real = {a: value for a, value in self.first.items() if self._domains.get(a, "positive") not in known}

    def at(self, point: Any) -> tuple[GPPrior, Float[Array, "..."]]:
        """The prior and the noise at a point."""
        found = {address: _fields.constrained(point[address], domain) for address, domain in self._domains.items()}
        noise_var = jnp.exp(point[NOISE]) if NOISE in point else self._noise_var
        return put(self._prior, self._leaves, found), noise_var

    def unit(self, n: int) -> float:
        """In units of so many standard deviations a log density of n observations has about the curvature in a real field
        that it has in the logarithm of a positive one."""
        return (n / 2) ** 0.5

    def scales(self, point: Any, mask: Bool[Array, "n"] | None) -> Any:
        """The units of the coordinates at a point: 1 of logarithms, `unit` standard deviations of real fields."""
        ones = jax.tree.map(jnp.ones_like, point)
        if not self.real:
            return ones

        def system(fields: Any) -> tuple[Float[Array, "n n"], Float[Array, "n"]]:
            here, noise = self.at(point | fields)
            here = without(here, mask)
            L = here.functional
            return seen(here.covariance_at(L, noise), mask), here.mean_at(L)

        deviations = _deviations(system, {address: point[address] for address in self.real}, mask)
        unit = self.unit(self._prior.functional.size)
        return ones | jax.tree.map(lambda deviation: unit * deviation, deviations)

    def scales_of_some(self, point: Any, mask: Bool[Array, "n"] | None) -> Any:
        """`scales`, from some of the observations where there are very many."""
        prior = self._prior
        L, n = prior.functional, prior.functional.size
        if not self.real or n <= _SOME:
            return self.scales(point, mask)
        there = jnp.ones(n, bool) if mask is None else mask
        rows = jnp.argsort(~there, stable=True)[jnp.arange(_SOME) * jnp.sum(there) // _SOME]
        spread = lambda values: values if values.ndim == 0 else L.spread(values)[rows]
        some = eqx.tree_at(
            lambda p: (p.X, p.jitter),
            prior,
            (as_inputs(L.take(rows)), None if prior.jitter is None else spread(prior.jitter)),
            is_leaf=lambda leaf: leaf is None or leaf is prior.X,
        )
        return Unknowns(some, spread(self._noise_var), tuple(self._domains), NOISE in self.first).scales(
            {a: spread(value) if a == NOISE else value for a, value in point.items()}, None
        )


def _deviations(system: Callable[..., Any], fields: Any, mask: Bool[Array, "n"] | None) -> Any:
    """The standard deviation of each entry of some fields, the others held, under the Fisher information of
    y ~ N(m, A) = N(system(fields)): I = ½ tr (A⁻¹ ∂A A⁻¹ ∂A) + ∂mᵀA⁻¹∂m. Entries of a large field have one in common, from
    the information in a random direction."""
    flat, unravel = jax.flatten_util.ravel_pytree(fields)
    sizes = [leaf.size for leaf in jax.tree.leaves(fields)]
    directions, owners, at = [], np.zeros(flat.size, int), 0
    for size in sizes:
        alone = size <= _SCALED_ONE_BY_ONE
        signs = np.random.default_rng(0).choice([-1.0, 1.0], size) / size**0.5
        owners[at : at + size] = len(directions) + (np.arange(size) if alone else 0)
        for row in np.eye(size) if alone else signs[None]:
            directions.append(np.zeros(flat.size))
            directions[-1][at : at + size] = row
        at += size
    A, _ = system(fields)
    factor = CholeskyFactor(cholesky(A), mask)

    def information(direction: Array) -> Array:
        _, (dA, dm) = jax.jvp(lambda flat: system(unravel(flat)), (flat,), (direction,))
        white = factor.whiten(factor.whiten(dA).T)
        return 0.5 * jnp.sum(white * white) + jnp.sum(factor.whiten(dm) ** 2)

    found = jax.lax.map(information, jnp.asarray(np.stack(directions), flat.dtype))
    deviation = jax.lax.rsqrt(jnp.where((found > 0) & jnp.isfinite(found), found, jnp.ones_like(found)))
    return unravel(deviation[owners])
