"""Maximum likelihood, and maximum a posteriori, for the hyperparameters of a Gaussian process."""

from collections.abc import Callable, Iterable
from typing import Any, Generic, NamedTuple, TYPE_CHECKING, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .. import _checks, _fields
from .._addresses import Address, leaves_of, listed, resolve
from .._functionals import flat_data, is_number, size_of
from .._kernels import KernelT
from .._modules import Printed
from .._priors import GPPrior
from .._priors.evidence import log_density as log_density_of
from .._progress import ProgressBar
from .._solvers import AbstractIterative, AbstractSolver, as_solver, unsolved
from .._solvers.jitter import FOR_A_DENSITY
from .._types import Key, Numbers
from .ascent import ascend, Estimator
from .unknowns import Unknowns

# The standard deviation of random starts about the first, in the coordinates of the search: factors of e for positive fields.
_SPREAD = 1.0
# Of a log density, in units of eps: what two of them may differ by where they are the same.
_ROUNDING = 8
# Searches from where the last one ended, with the scales of that point, for each start.
_ROUNDS = 4


if TYPE_CHECKING:
    # A checker cannot know whether it was estimated.
    _Error: TypeAlias = Any
else:
    _Error: TypeAlias = Float[Array, ""] | None


class Fit(Printed, eqx.Module, Generic[KernelT]):
    """The best of all starts of `fit`, and what became of each.

    **Fields:** `prior`, `noise_var`: with the values found; `log_density`: the log marginal likelihood there (and the log
    prior, if one was given), the best that was seen; `converged`: whether its derivatives vanish; and of all starts, `r`:
    `log_densities`, `all_converged` and `steps`. `standard_error`: of a log density that is an estimate, with a `solver`;
    else None.
    """

    prior: GPPrior[KernelT]
    noise_var: Float[Array, "..."]
    log_density: Float[Array, ""]
    converged: Bool[Array, ""]
    log_densities: Float[Array, "r"]
    all_converged: Bool[Array, "r"]
    steps: Int[Array, "r"]
    standard_error: _Error = None


def fit(
    prior: GPPrior[KernelT],
    y: Numbers,
    noise_var: Numbers,
    mask: Numbers | None = None,
    *,
    fields: Address | Iterable[Address] | None = None,
    learn_noise: bool | None = None,
    log_prior: Callable[[GPPrior, Array], Any] | None = None,
    key: Key | None = None,
    n_restarts: int = 0,
    max_steps: int = 200,
    tolerance: float | None = None,
    solver: AbstractSolver | None = None,
    n_probes: int | None = None,
    progress: bool = False,
) -> Fit[KernelT]:
    """The hyperparameters of largest log marginal likelihood, by L-BFGS from several starts.

    Positive fields move on the scale of their logarithms, so that none leaves its domain, and real ones in units of their
    standard deviation under the Fisher information, so that nothing depends on the units of inputs and observations. One
    compiled call, which can itself be part of a jitted function; other values of the same shapes compile nothing anew.

    **Arguments:**

    - `prior`: with the values to start from, and the training inputs, `n d`.
    - `y`: observations, `n`; `noise_var`: variance of the noise to start from (the square of its standard deviation), a
      scalar or one per point; `mask`: False for
      points that were not observed, whose `y` does not count, `n`.
    - `fields`: which fields of the prior are learnt: an address such as `"kernel.lengthscale"`, a pattern (`"kernel.*"`), a
      function that picks one, or several of these; all of the kernel's and the mean's unless given.
    - `learn_noise`: whether the noise is. Unless given, a scalar is, and variances of each point are known: they stay.
    - `log_prior`: for a maximum a posteriori a function of prior and noise variance, which returns a scalar that is added; a
      density of the values themselves, not of their logarithms. A module with arrays as fields compiles once for all their
      values; each new function is compiled anew.
    - `key`, `n_restarts`: so many further starts, whose unconstrained values are normal about the first with standard
      deviation 1; the key is needed where there are any.
    - `max_steps`: of each start.
    - `tolerance`: a start has converged where no derivative of the log density, in the logarithm of a positive field or in
      standard deviations of a real one, is larger; unless given the third root of the rounding unit ε, 6e-6 in float64 and
      5e-3 in float32, or 3n√ε where that is more: what is gained beyond that is rounding.
    - `solver`: for very many observations `ConjugateGradients()` or `BlockProjections()`. Log density and derivatives are
      estimates then, from the same random vectors at every step, steps go by BFGS, and a search has converged where no
      derivative is larger than its standard error, or than the `tolerance`, 0.1 unless given. `n_probes`: how many vectors,
      16 unless given; the `key` is theirs, one of its own unless given.
    - `progress`: whether a bar of tqdm shows the steps of each start; it may end before they are all taken.

    **Returns:** the best point's prior, noise and log density, and the flags of all starts.

    **Warns:** outside jit, `PrecisionWarning` where the best search ended, before it converged, for want of a better point,
    or of one where the solver converges.

    **Raises:** ValueError where an address is unknown or given twice, a value to start from is outside its domain, `y` or
    `noise_var` does not fit, `n_restarts` has no key or is given with an iterative `solver`, or that did not reach its
    tolerance (at run time under jit). Source: Rasmussen & Williams (2006), section 5.4.1; Nocedal & Wright (2006), algorithm
    7.5; for the scales, equation 5.9 of the former, whose variance is the Fisher information; for estimates Gardner et al.
    (2018), section 4, and Lin et al. (2024).
    """
    if not isinstance(prior, GPPrior):
        raise ValueError(f"`prior` must be a GPPrior; got {type(prior).__name__}.")
    n, dtype = size_of(prior.X), prior.X.dtype
    learn_noise = _learns(learn_noise, noise_var)
    y, noise_var, mask = flat_data(prior.X, y, noise_var, mask)
    L = prior.functional
    y, mask = _checks.observations(y, n, mask, shape=L.shape)
    y = y.astype(dtype)
    iterative = solver is not None and isinstance(as_solver(solver), AbstractIterative)
    may_be_zero = not learn_noise and not (iterative and prior.jitter is None)
    noise_var = _checks.noise_variance(noise_var, n, or_zero=may_be_zero, n_outputs=L.n_each).astype(dtype)
    addresses = _chosen(prior, fields)
    if not addresses and not learn_noise:
        raise ValueError("Nothing is to be learnt: `fields` names no field of the prior, and `learn_noise` is False.")
    n_starts = 1 + (_checks.count(n_restarts, "n_restarts") if n_restarts else 0)
    if n_starts > 1 and key is None:
        raise ValueError("`n_restarts` needs a `key`.")
    key = None if key is None else _checks.key(key)
    steps = _checks.count(max_steps, "max_steps")
    if isinstance(solver, AbstractIterative):
        if n_starts > 1:
            raise ValueError("`n_restarts` is for exact solves: with this `solver` call `fit` from each start.")
        n_probes = _checks.count(16 if n_probes is None else n_probes, "n_probes", least=2)
        solver.check(prior.system(L, noise_var, mask))
        key, least = (
            jax.random.key(0) if key is None else key,
            jnp.asarray(0.1 if tolerance is None else tolerance, dtype),
        )
        search = (addresses, learn_noise, n_probes, steps, progress)
        found, lost = _fit_by_estimates(prior.checked(), y, noise_var, mask, key, least, log_prior, solver, search)
        found = _checks.verdict(found, (lost, unsolved(solver)))
        _say_where_it_ended(found, steps, solver)
        return found
    if n_probes is not None:
        raise ValueError("`n_probes` is for a `solver` whose log density is an estimate: leave it out.")
    if tolerance is None:
        eps = float(jnp.finfo(dtype).eps)
        tolerance = max(eps ** (1 / 3), 3 * n * eps**0.5)
    settings = _Settings(addresses, learn_noise, n_starts, steps, progress)
    found, lost = _fit(prior.checked(), y, noise_var, mask, key, jnp.asarray(tolerance, dtype), log_prior, settings)
    if _checks.is_concrete(lost) and lost:
        _checks.warn(
            f"The search for the largest log density ended at {float(found.log_density):.6g} before it converged: no better "
            f"point could be found within the rounding of {dtype}, or none has a density. Start from other values, with more "
            "noise, or compute in float64 (`jax.config.update('jax_enable_x64', True)`)."
        )
    return found


def _say_where_it_ended(found: Fit, max_steps: int, solver: AbstractIterative) -> None:
    if not all(map(_checks.is_concrete, (found.converged, found.steps))):
        return
    if not found.converged and found.steps[0] < max_steps:
        _checks.warn(
            f"The search ended at a log density of {float(found.log_density):.6g} before it converged: beyond it "
            f"`{type(solver).__name__}` does not reach its tolerance in {found.log_density.dtype}, or derivatives are lost "
            "in their errors, as where the noise is small beside the variance. Give more `n_probes`, and the solver a "
            "preconditioner of a larger rank or more `max_passes`, or compute in float64."
        )


@eqx.filter_jit
def _fit_by_estimates(
    prior: GPPrior,
    y: Float[Array, "n"],
    noise_var: Float[Array, "..."],
    mask: Bool[Array, "n"] | None,
    key: Any,
    tolerance: Float[Array, ""],
    log_prior: Any,
    solver: AbstractIterative,
    search: tuple[tuple[str, ...], bool, int, int, bool],
) -> tuple[Fit, Bool[Array, ""]]:
    """The fit, and whether a solve did not reach its tolerance."""
    addresses, learn_noise, n_probes, max_steps, progress = search
    unknowns = Unknowns(prior, noise_var, addresses, learn_noise)
    U = jax.random.normal(key, (n_probes, y.shape[0]), y.dtype)
    found = ascend(Estimator(unknowns, y, mask, solver, U), unknowns, log_prior, tolerance, max_steps, progress, mask)
    best, noise = unknowns.at(found.point)
    value, error = found.log_density
    if log_prior is not None:
        value = value + jnp.asarray(log_prior(best, noise), value.dtype)
    one = lambda value: jnp.reshape(value, (1,))
    converged = found.converged
    return Fit(best, noise, value, converged, one(value), one(converged), one(found.steps), error), ~found.solved


def _learns(learn_noise: Any, noise_var: Any) -> bool:
    """Whether the noise is learnt: unless it is said, a scalar is, and what is given for each point is known."""
    return is_number(noise_var) if learn_noise is None else _checks.flag(learn_noise, "learn_noise")


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


class _Search(NamedTuple):
    """Where a search has got to: in coordinates t about a centre, of which the unconstrained point is centre + scale · t.

    **Fields:** `start`: the number of the start; `centre`, `scale`; `t`, and `inner`, the state of the optimiser; `slope`:
    the largest derivative, in the units of the tolerance; `moved`: whether the last step led anywhere; `step`: their number;
    `best`, `density`: the best point that was seen, unconstrained, and its log density; `sound`: whether the noise there is
    above the rounding of the variances; `best_slope`: the largest derivative there.
    """

    start: Any
    centre: Any
    scale: Any
    t: Any
    inner: Any
    slope: Any
    moved: Any
    step: Any
    best: Any
    density: Any
    sound: Any
    best_slope: Any


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
) -> tuple[Fit, Bool[Array, ""]]:
    import optax  # as much again to import as the package

    n, dtype = y.shape[0], y.dtype
    unknowns = Unknowns(prior, noise_var, settings.addresses, settings.learn_noise)
    first, real, at, unit = unknowns.first, unknowns.real, unknowns.at, unknowns.unit(n)

    def log_density(point: Any) -> Float[Array, ""]:
        here, noise = at(point)
        value = log_density_of(here, y, noise, mask)  # what is checked, once
        return value if log_prior is None else value + jnp.asarray(log_prior(here, noise), value.dtype)

    def is_sound(point: Any) -> Bool[Array, ""]:
        here, noise = at(point)
        L = here.functional if mask is None else here.functional.where(mask)
        noise, jitter = here.noise_at(L, noise), here.given_jitter(L)
        noise = noise if jitter is None else noise + jitter
        least = FOR_A_DENSITY * n * float(jnp.finfo(dtype).eps)
        return jnp.all((noise <= 0) | (noise >= least * (L.diagonal(here.kernel) + noise)))

    def place(search: _Search, t: Any) -> Any:
        return jax.tree.map(lambda centre, scale, t: centre + scale * t, search.centre, search.scale, t)

    wall = jnp.asarray(jnp.finfo(dtype).max ** 0.5, dtype)

    def loss_at(search: _Search) -> Any:
        def loss(t: Any) -> Float[Array, ""]:
            value = -log_density(place(search, t)) / n
            # A wall, flat so that a line search turns back, where there is no density.
            return jnp.where(jnp.isfinite(value), value, wall)

        return loss

    bar, text = ProgressBar(settings.max_steps, "step"), f"start {{}} of {settings.n_starts}, log density {{:.6g}}"
    # A step that gains less than rounding may count as one that gains.
    line_search = optax.scale_by_zoom_linesearch(
        max_linesearch_steps=20,
        approx_dec_rtol=max(1e-6, 30 * float(jnp.finfo(dtype).eps)),
        initial_guess_strategy="one",
    )
    solver = optax.lbfgs(memory_size=10, linesearch=line_search)

    def going(search: _Search) -> Bool[Array, ""]:
        return (search.step < settings.max_steps) & (search.slope > tolerance) & search.moved

    def slope_of(gradient: Any) -> Float[Array, ""]:
        return n * _largest({a: g / unit if a in real else g for a, g in gradient.items()})

    def advance(search: _Search) -> _Search:
        loss = loss_at(search)
        value, gradient = optax.value_and_grad_from_state(loss)(search.t, state=search.inner)
        updates, inner = solver.update(gradient, search.inner, search.t, value=value, grad=gradient, value_fn=loss)
        t = optax.apply_updates(search.t, updates)
        height = jnp.asarray(optax.tree.get(inner, "value"), dtype)
        density = jnp.where(height < wall, -n * height, -jnp.inf)
        point, slope = place(search, t), slope_of(optax.tree.get(inner, "grad"))
        sound = is_sound(point)
        # Of densities that differ by rounding the flatter one is better; and where the noise is rounding, all is.
        rounding = _ROUNDING * float(jnp.finfo(dtype).eps) * jnp.abs(search.density)
        higher = density > search.density + rounding
        as_high = (density >= search.density - rounding) & (slope < search.best_slope)
        better = jnp.where(sound == search.sound, higher | as_high, sound & jnp.isfinite(density))
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), point, search.best)
        search = search._replace(
            t=t,
            inner=inner,
            slope=slope,
            moved=_largest(updates) > 0,
            step=search.step + 1,
            best=best,
            density=jnp.where(better, density, search.density),
            sound=jnp.where(better, sound, search.sound),
            best_slope=jnp.where(better, slope, search.best_slope),
        )
        if settings.progress:
            bar.report(search.step, ~going(search), text, search.start + 1, search.density)
        return search

    def again(state: Any) -> Any:
        """A search about the best point, with the scales that hold there."""
        search, number, _ = state
        t, unknown = jax.tree.map(jnp.zeros_like, search.best), jnp.asarray(jnp.inf, dtype)
        fresh = {"centre": search.best, "scale": unknowns.scales(search.best, mask), "t": t, "inner": solver.init(t)}
        search = search._replace(**fresh, slope=unknown, best_slope=unknown, moved=jnp.asarray(True))
        after = jax.lax.while_loop(going, advance, search)
        return after, number + 1, after.density > search.density

    def unfinished(state: Any) -> Bool[Array, ""]:
        search, number, gained = state
        return (search.step < settings.max_steps) & (search.best_slope > tolerance) & (number < _ROUNDS) & gained

    def run(numbered: Any) -> Any:
        number, point = numbered
        here, unknown = log_density(point), jnp.asarray(jnp.inf, dtype)
        fresh = {"centre": point, "scale": point, "t": point, "inner": solver.init(point), "slope": unknown}
        at_start = {"best": point, "density": here, "sound": is_sound(point), "best_slope": unknown}
        search = _Search(start=number, step=jnp.zeros((), int), moved=jnp.asarray(True), **fresh, **at_start)
        state = jax.lax.while_loop(unfinished, again, (search, jnp.zeros((), int), jnp.asarray(True)))
        search = state[0]
        converged = (search.best_slope <= tolerance) & jnp.isfinite(search.density) & search.sound
        return search.best, search.density, converged, search.step

    starts = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (settings.n_starts, *leaf.shape)), first)
    if settings.n_starts > 1:
        spread, keys = unknowns.scales(first, mask), jax.random.split(key, len(first))
        for (address, leaf), k in zip(starts.items(), keys, strict=True):
            step = _SPREAD * spread[address] * jax.random.normal(k, leaf[1:].shape, leaf.dtype)
            starts[address] = leaf.at[1:].add(step)
    points, densities, converged, steps = jax.lax.map(run, (jnp.arange(settings.n_starts), starts))
    seen_densities = jnp.where(jnp.isnan(densities), -jnp.inf, densities)
    highest = jnp.max(seen_densities)
    # Of starts that differ by rounding, one that has converged.
    as_high = converged & (seen_densities >= highest - _ROUNDING * float(jnp.finfo(dtype).eps) * jnp.abs(highest))
    best = jnp.argmax(jnp.where(jnp.any(as_high) & ~as_high, -jnp.inf, seen_densities))
    found, noise = at(jax.tree.map(lambda leaf: leaf[best], points))
    lost = ~converged[best] & (steps[best] < settings.max_steps)
    return Fit(found, noise, densities[best], converged[best], densities, converged, steps), lost


def _largest(tree: Any) -> Float[Array, ""]:
    return jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree)]))
