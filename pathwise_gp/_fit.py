"""Maximum likelihood, and maximum a posteriori, for the hyperparameters of a Gaussian process."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from . import _checks, _fields
from ._addresses import Address, leaves_of, listed, put, resolve
from ._priors import GPPrior
from ._progress import ProgressBar
from ._types import AnyArray, Key, Number

# The standard deviation of random starts about the first, in the unconstrained space: factors of e for positive fields.
_SPREAD = 1.0


class Fit(eqx.Module):
    """The best of all starts of `fit`, and what became of each.

    **Fields:** `prior`, `noise_var`: with the values found; `log_density`: the log marginal likelihood there (and the log
    prior, if one was given); `converged`: whether its derivatives vanish; and of all starts, `r`: `log_densities`,
    `all_converged` and `steps`.
    """

    prior: GPPrior
    noise_var: Float[Array, "..."]
    log_density: Float[Array, ""]
    converged: Bool[Array, ""]
    log_densities: Float[Array, "r"]
    all_converged: Bool[Array, "r"]
    steps: Int[Array, "r"]


def fit(
    prior: GPPrior,
    y: Float[AnyArray, "n"],
    noise_var: Number | Float[AnyArray, "..."],
    mask: Bool[AnyArray, "n"] | None = None,
    *,
    fields: Address | Iterable[Address] | None = None,
    learn_noise: bool = True,
    log_prior: Callable[[GPPrior, Array], Any] | None = None,
    key: Key | None = None,
    n_restarts: int = 0,
    max_steps: int = 200,
    tolerance: float | None = None,
    progress: bool = False,
) -> Fit:
    """The hyperparameters of largest log marginal likelihood, by L-BFGS from several starts.

    Positive fields move on the scale of their logarithms, so that none leaves its domain. One compiled call, which can itself
    be part of a jitted function; other values of the same shapes compile nothing anew.

    **Arguments:**

    - `prior`: with the values to start from, and the training inputs, `n d`.
    - `y`: observations, `n`; `noise_var`: variance of the noise to start from, a scalar or one per point; `mask`: False for
      points that were not observed, whose `y` does not count, `n`.
    - `fields`: which fields of the prior are learnt: an address such as `"kernel.lengthscale"`, a pattern (`"kernel.*"`), a
      function that picks one, or several of these; all of the kernel's and the mean's unless given.
    - `learn_noise`: whether the noise is.
    - `log_prior`: for a maximum a posteriori a function of prior and noise variance, which returns a scalar that is added; a
      density of the values themselves, not of their logarithms. A module with arrays as fields compiles once for all their
      values; each new function is compiled anew.
    - `key`, `n_restarts`: so many further starts, whose unconstrained values are normal about the first with standard
      deviation 1; the key is needed where there are any.
    - `max_steps`: of each start.
    - `tolerance`: a start has converged where no derivative of the log density per observation, in the unconstrained space,
      is larger; the third root of the rounding unit unless given (6e-6 in float64, 5e-3 in float32).
    - `progress`: whether a bar of tqdm shows the steps of each start; it may end before they are all taken.

    **Returns:** the best start's prior, noise and log density, and the flags of all.

    **Raises:** ValueError where an address is unknown or given twice, a value to start from is outside its domain, `y` or
    `noise_var` does not fit, or `n_restarts` has no key. Source: Rasmussen & Williams (2006), section 5.4.1; Nocedal & Wright
    (2006), algorithm 7.5.
    """
    if not isinstance(prior, GPPrior):
        raise ValueError(f"`prior` must be a GPPrior; got {type(prior).__name__}.")
    n, dtype = prior.X.shape[0], prior.X.dtype
    y, mask = _checks.observations(y, n, mask)
    y = y.astype(dtype)
    noise_var = _checks.noise_variance(noise_var, n, or_zero=not learn_noise).astype(dtype)
    addresses = _chosen(prior, fields)
    if not addresses and not learn_noise:
        raise ValueError("Nothing is to be learnt: `fields` names no field of the prior, and `learn_noise` is False.")
    n_starts = 1 + (_checks.count(n_restarts, "n_restarts") if n_restarts else 0)
    if n_starts > 1 and key is None:
        raise ValueError("`n_restarts` needs a `key`.")
    if tolerance is None:
        tolerance = float(jnp.finfo(dtype).eps) ** (1 / 3)
    settings = _Settings(addresses, learn_noise, n_starts, _checks.count(max_steps, "max_steps"), progress)
    return _fit(prior.checked(), y, noise_var, mask, key, jnp.asarray(tolerance, dtype), log_prior, settings)


class _Settings(NamedTuple):
    addresses: tuple[str, ...]
    learn_noise: bool
    n_starts: int
    max_steps: int
    progress: bool


def _chosen(prior: GPPrior, fields: Any) -> tuple[str, ...]:
    """Canonical addresses of the fields to be learnt."""
    leaves = leaves_of(prior)
    if fields is None:
        return tuple(address for address in leaves if address.split(".")[0] in ("kernel", "mean"))
    chosen: list[str] = []
    for address in [fields] if isinstance(fields, str) or callable(fields) else fields:
        for canonical in resolve(prior, leaves, address, "GPPrior", "fields"):
            if canonical in chosen:
                raise ValueError(f"`fields` names the field {canonical!r} twice. {listed(leaves)}")
            if not _fields.lies_in(leaves[canonical].value, leaves[canonical].domain):
                raise ValueError(f"`{canonical}` starts outside its domain, {leaves[canonical].domain}.")
            chosen.append(canonical)
    return tuple(chosen)


@eqx.filter_jit
def _fit(
    prior: GPPrior,
    y: Float[Array, "n"],
    noise_var: Float[Array, "..."],
    mask: Bool[Array, "n"] | None,
    key: Any,
    tolerance: Float[Array, ""],
    log_prior: Any,
    settings: _Settings,
) -> Fit:
    import optax  # as much again to import as the package

    leaves = leaves_of(prior)
    domains: dict[str, _fields.Domain] = {address: leaves[address].domain for address in settings.addresses}
    values = {address: _fields.unconstrained(leaves[address].value, domain) for address, domain in domains.items()}
    first = (values, jnp.log(noise_var) if settings.learn_noise else None)
    starts = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (settings.n_starts, *leaf.shape)), first)
    if settings.n_starts > 1:
        flat, structure = jax.tree.flatten(starts)
        keys = jax.random.split(key, len(flat))
        moved = [
            leaf.at[1:].add(_SPREAD * jax.random.normal(k, leaf[1:].shape, leaf.dtype))
            for leaf, k in zip(flat, keys, strict=True)
        ]
        starts = jax.tree.unflatten(structure, moved)

    def at(point: Any) -> tuple[GPPrior, Float[Array, "..."]]:
        found = {address: _fields.constrained(point[0][address], domain) for address, domain in domains.items()}
        return put(prior, leaves, found), jnp.exp(point[1]) if settings.learn_noise else noise_var

    def log_density(point: Any) -> Float[Array, ""]:
        here, noise = at(point)
        value = here.log_prob(y, noise, mask)
        return value if log_prior is None else value + jnp.asarray(log_prior(here, noise), value.dtype)

    def loss(point: Any) -> Float[Array, ""]:
        value = -log_density(point) / y.shape[0]
        # A wall, flat so that a line search turns back, where there is no density.
        return jnp.where(jnp.isfinite(value), value, jnp.asarray(jnp.finfo(value.dtype).max ** 0.5, value.dtype))

    bar, text = ProgressBar(settings.max_steps, "step"), f"start {{}} of {settings.n_starts}, log density {{:.6g}}"
    solver = optax.lbfgs(memory_size=10)
    value_and_grad = optax.value_and_grad_from_state(loss)

    def going(state: Any) -> Bool[Array, ""]:
        _, _, _, step, slope, moved = state
        return (step < settings.max_steps) & (slope > tolerance) & moved

    def advance(state: Any) -> Any:
        start, point, inner, step, _, _ = state
        value, gradient = value_and_grad(point, state=inner)
        updates, inner = solver.update(gradient, inner, point, value=value, grad=gradient, value_fn=loss)
        following = optax.apply_updates(point, updates)
        slope = _largest(optax.tree.get(inner, "grad"))
        moved = _largest(updates) > 0
        if settings.progress:
            density = -y.shape[0] * jnp.asarray(value)
            last = ~going((start, point, inner, step + 1, slope, moved))
            bar.report(step + 1, last, text, start + 1, density)
        return start, following, inner, step + 1, slope, moved

    def run(numbered: Any) -> Any:
        number, point = numbered
        infinity = jnp.asarray(jnp.inf, y.dtype)
        state = (number, point, solver.init(point), jnp.zeros((), int), infinity, jnp.asarray(True))
        _, point, _, step, slope, _ = jax.lax.while_loop(going, advance, state)
        density = log_density(point)
        return point, density, (slope <= tolerance) & jnp.isfinite(density), step

    points, densities, converged, steps = jax.lax.map(run, (jnp.arange(settings.n_starts), starts))
    best = jnp.argmax(jnp.where(jnp.isnan(densities), -jnp.inf, densities))
    found, noise = at(jax.tree.map(lambda leaf: leaf[best], points))
    return Fit(found, noise, densities[best], converged[best], densities, converged, steps)


def _largest(tree: Any) -> Float[Array, ""]:
    return jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree)]))
