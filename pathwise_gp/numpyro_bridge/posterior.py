"""Posterior draws of a model as paths."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Int
from numpyro import handlers

from .. import _checks
from .._batched import Batched, unstack
from .._features import AbstractBasis, check_basis, QuasiMonteCarlo
from .._paths import PathEnsemble, PathwiseFunction, separate
from .._priors import ConditionedGP, GPPrior
from .._priors.exact import condition_latent
from .._samplers import draw, PathwiseSampler
from .._solvers import AbstractSolver, as_solver
from .._types import Key
from .observing import AbstractGPMarginal, AbstractGPSite, WHITE


class _Settings(NamedTuple):
    n_paths: int
    n_features: int
    basis: AbstractBasis
    share_features: bool
    solver: AbstractSolver | None
    chunk_size: int


class _Process(NamedTuple):
    """A process that a model returned, and how it was observed.

    **Fields:** `prior`: or what `condition` made of it; `y`, `noise_var`, `mask`: of its site, with the axes of its batch;
    `noise_var` is None where values are known exactly.
    """

    prior: Any
    y: Any = None
    noise_var: Any = None
    mask: Any = None

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return unstack(self.prior)[1]

    def member(self, number: Any) -> "_Process":
        """That of a member of the batch."""
        if not isinstance(self.prior, Batched):
            return self
        return _Process(self.prior.member(number), *self.prior.take(tuple(self[1:]), number))

    def posterior(self) -> ConditionedGP:
        """The posterior, of one that is no batch."""
        if isinstance(self.prior, ConditionedGP):
            return self.prior
        if self.noise_var is None:
            return condition_latent(self.prior, self.y)
        return self.prior.condition(self.y, self.noise_var, self.mask)

    def paths(self, key: Any, settings: _Settings) -> PathwiseFunction:
        """Draws of the posterior, of one that is no batch."""
        n_paths, n_features, basis, share_features, solver, _ = settings
        of_features: dict[str, Any] = {"features": basis, "share_features": share_features}
        if isinstance(self.prior, ConditionedGP) or self.noise_var is None:
            if solver is not None:
                raise ValueError(
                    "`solver` is for a process that `gp_factor` observed: where the model conditions, give it to `condition` "
                    "there; latent values of `gp_sample` have a factor."
                )
            return PathwiseSampler(self.posterior(), n_features, **of_features).sample_paths(key, n_paths)
        data = self.prior, self.y, self.noise_var, key, n_paths, n_features
        return draw(*data, solver=solver, mask=self.mask, **of_features).paths


def posterior_paths(
    model: Callable[..., Any],
    samples: Mapping[str, Any],
    key: Key,
    *args: Any,
    n_paths: int = 1,
    n_features: int = 1024,
    features: AbstractBasis = QuasiMonteCarlo(),
    share_features: bool = True,
    solver: AbstractSolver | None = None,
    chunk_size: int = 1,
    group_by_chain: bool = False,
    thin: int = 1,
    model_kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """Paths of the Gaussian process in a model, under every posterior draw of its hyperparameters.

    The model is replayed with each draw in place of its sample sites, and the process it returns is conditioned and drawn
    from: one compiled call, `chunk_size` draws at a time. Draw i uses the key `fold_in(key, i)`, so neither the chunk,
    nor thinning, nor draws added at the end change its paths. Latent values of `gp_sample` are conditioned on without noise.

    **Arguments:**

    - `model`: a function, defined once (each new one is compiled anew, and what it reads from outside is read once), that
      returns the prior that one of its `gp_factor` or `gp_sample` was given (a `GPPrior` or a `Batched` of them), or
      what `condition` made of one; or a tuple, list or dict of such, for several processes. A mean
      that depends on a sampled value must be a module with that value as a field, not a function that closes over it.
    - `samples`: values of the sites by name, each with a leading axis of draws, as from `mcmc.get_samples()`, or a guide's
      `sample_posterior`.
    - `key`: a key, used up; typed, or raw as `jax.random.PRNGKey` makes them.
    - `*args`, `model_kwargs`: the arguments of the model. Floats are passed as arrays; one that must stay a Python number
      (a Matérn's `nu`) is bound beforehand, as by `functools.partial`.
    - `n_paths`: S, paths for each draw. With many draws one path each is the better estimator.
    - `n_features`, `features`, `share_features`: as in `PathwiseSampler`; features are drawn anew for each draw, so that
      even shared ones average out over the ensemble.
    - `solver`: as of `GPPrior.condition`, for processes that `gp_factor` observed: one solve for each draw.
    - `chunk_size`: draws worked on at once; memory beyond the result is that of a chunk.
    - `group_by_chain`: whether values have two leading axes, of chains and of draws, as from
      `mcmc.get_samples(group_by_chain=True)`; the ensemble then has both.
    - `thin`: of so many draws (of each chain) the first is used.

    **Returns:** an ensemble of axes `(draws, n_paths)`, or `(chains, draws, n_paths)`, with training inputs stored once. The
    axes of a `Batched` prior stand behind those of the draws. Of several processes the tuple, list or dict that the model
    returned, of ensembles.

    **Raises:** ValueError where a sample or param site of the model is missing from `samples` (it is never drawn afresh),
    `samples` has values of an observed site, axes of values do not fit (flatten chains first), a returned process was
    observed at more than one site or under a handler that masks, or the model returns something else; and as
    `GPPrior.condition` and `PathwiseSampler`.
    """
    counts = {k: _checks.count(v, k) for k, v in (("n_paths", n_paths), ("n_features", n_features))}
    chunk_size = _checks.count(chunk_size, "chunk_size")
    share_features = _checks.flag(share_features, "share_features")
    solver = None if solver is None else as_solver(solver)
    settings = _Settings(
        counts["n_paths"], counts["n_features"], check_basis(features), share_features, solver, chunk_size
    )
    draws = _as_draws(samples, group_by_chain, thin)
    return _posterior_paths(model, draws, _as_key(key), *_as_arguments(args, model_kwargs), settings)


def leave_one_out(
    model: Callable[..., Any],
    samples: Mapping[str, Any],
    key: Key,
    *args: Any,
    group_by_chain: bool = False,
    thin: int = 1,
    model_kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """log p(yᵢ | y₋ᵢ, θ) for each observation and each posterior draw θ of the hyperparameters, in closed form.

    The observations of a Gaussian process (of `gp_factor`) are one site, whose density has no factors. These are what
    PSIS-LOO takes as the pointwise log likelihood of such a model (Bürkner, Gabry & Vehtari 2021), with a `log_likelihood`
    group of ArviZ.

    **Arguments:** as of `posterior_paths`.

    **Returns:** the log densities, `draws n`, or `chains draws n` (axes of a batch before n, that of outputs behind it; of
    several processes a tuple, list or dict). **Raises:** as `posterior_paths`, and ValueError where what was observed is not
    the process itself but a likelihood of its latent values.
    """
    draws = _as_draws(samples, group_by_chain, thin)
    return _leave_one_out(model, draws, _as_key(key), *_as_arguments(args, model_kwargs))


class _Draws(NamedTuple):
    """Posterior draws of the sites, one after the other, and the axes that they had.

    **Fields:** `samples`: values by site, with one leading axis; `indices`: numbers of the draws, in the axes they had.
    """

    samples: dict[str, Array]
    indices: Int[Array, "..."]

    def at(self, i: Any) -> tuple[dict[str, Array], Int[Array, ""]]:
        return {site: value[i] for site, value in self.samples.items()}, self.indices.reshape(-1)[i]


def _as_draws(samples: Mapping[str, Any], group_by_chain: bool, thin: int) -> _Draws:
    arrays = {site: jnp.asarray(value) for site, value in _checks.mapping(samples, "samples").items()}
    n_axes = 1 + _checks.flag(group_by_chain, "group_by_chain")
    leading = {value.shape[:n_axes] for value in arrays.values()}
    axes = next(iter(leading), ())
    if len(leading) != 1 or len(axes) != n_axes or 0 in axes:
        shapes = {site: value.shape for site, value in arrays.items()}
        wanted = "two leading axes, of chains and draws," if group_by_chain else "one leading axis of draws"
        raise ValueError(f"`samples` must hold values with {wanted} in common; got shapes {shapes}.")
    kept = np.arange(math.prod(axes)).reshape(axes)[..., :: _checks.count(thin, "thin")]
    return _Draws(_take(arrays, kept.reshape(-1), n_axes), jnp.asarray(kept))


@eqx.filter_jit
def _take(arrays: dict[str, Array], kept: Int[Array | np.ndarray, "k"], n_axes: int) -> dict[str, Array]:
    """Entries of the leading axes, made one."""
    return {site: value.reshape(-1, *value.shape[n_axes:])[kept] for site, value in arrays.items()}


def _as_key(key: Any) -> Any:
    """A typed key."""
    key = _checks.key(key)
    return key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)


def _as_arguments(args: tuple[Any, ...], model_kwargs: Mapping[str, Any] | None) -> tuple[Any, Any]:
    # A Python float would be part of the compiled function, which would be compiled again for each of its values.
    as_array = lambda a: jnp.asarray(a) if isinstance(a, float) else a
    return jax.tree.map(as_array, (args, dict(model_kwargs or {})))


@eqx.filter_jit
def _posterior_paths(
    model: Any,
    draws: _Draws,
    key: Any,
    args: Any,
    kwargs: Any,
    settings: _Settings,
) -> Any:
    def sample(process: _Process, key: Any) -> Any:
        return process.paths(key, settings)

    def ensemble(first: Callable[..., Any], over: Callable[..., Any], n_axes: int) -> PathEnsemble:
        pick, common = separate(first, (jnp.zeros((), int), jnp.zeros((), int)))
        return PathEnsemble(over(pick, settings.chunk_size), common, n_axes=n_axes)

    return _of_each_process(model, draws, key, args, kwargs, sample, ensemble)


@eqx.filter_jit
def _leave_one_out(model: Any, draws: _Draws, key: Any, args: Any, kwargs: Any) -> Any:
    def densities(process: _Process, _: Any) -> Array:
        return process.posterior().leave_one_out().log_density

    def stacked(_: Callable[..., Any], over: Callable[..., Any], __: int) -> Array:
        return over(lambda values: values, 1)

    return _of_each_process(model, draws, key, args, kwargs, densities, stacked, latent=False)


def _of_each_process(
    model: Any,
    draws: _Draws,
    key: Any,
    args: Any,
    kwargs: Any,
    function: Callable[..., Any],
    collect: Callable[..., Any],
    *,
    latent: bool = True,
) -> Any:
    """What `collect` makes of `function(process, key)`, over all draws and all members of its batch, for each process that
    the model returns; in the tuple, list or dict of them.

    `collect` is given a function of a draw and a member; a function that goes over all of them and keeps what its argument
    picks, some draws at once; and how many axes they have.
    """

    def replayed(i: Any) -> tuple[Any, Any, Any]:
        sample, index = draws.at(i)
        # The model's own key serves what it draws besides its sites, such as the rows of a subsample.
        key_model, key_paths = jax.random.split(jax.random.fold_in(key, index))
        return *_replay(model, sample, key_model, args, kwargs, latent), key_paths

    structure, processes, _ = replayed(0)
    results = []
    for number, process in enumerate(processes):
        size, axes = math.prod(process.batch_shape), (*draws.indices.shape, *process.batch_shape)

        def members(i: Any, number: int = number, size: int = size) -> Callable[[Any], Any]:
            """What the function gives for each member, under one draw."""
            _, processes, key_paths = replayed(i)
            key_paths = jax.random.fold_in(key_paths, number) if len(processes) > 1 else key_paths
            own_key = lambda m: jax.random.fold_in(key_paths, m) if size > 1 else key_paths
            return lambda m: function(processes[number].member(m), own_key(m))

        def over(
            pick: Callable[[Any], Any], chunk_size: int, members: Any = members, size: int = size, axes: Any = axes
        ):
            def of_draw(i: Any) -> Any:
                member = members(i)
                if size == 1:
                    return pick(member(0))
                return jax.lax.map(lambda m: pick(member(m)), jnp.arange(size))

            n_draws = draws.indices.size
            made = jax.lax.map(
                of_draw, jnp.arange(n_draws), batch_size=min(chunk_size, n_draws) if chunk_size > 1 else None
            )
            skipped = 1 if size == 1 else 2
            return jax.tree.map(lambda leaf: leaf.reshape(*axes, *leaf.shape[skipped:]), made)

        results.append(collect(lambda i, m, members=members: members(i)(m), over, len(axes)))
    return jax.tree.unflatten(structure, results)


def _is_process(node: Any) -> bool:
    return isinstance(unstack(node)[0], (GPPrior, ConditionedGP))


def _replay(
    model: Callable[..., Any], sample: dict[str, Any], key: Key, args: Any, kwargs: Any, latent: bool
) -> tuple[Any, list[_Process]]:
    """The processes under one draw, and the structure in which the model returned them."""
    seeded = handlers.seed(handlers.substitute(model, data=sample), key)
    with handlers.trace() as trace:
        returned = seeded(*args, **kwargs)
    _check_replayed(trace, sample)
    nodes, structure = jax.tree.flatten(returned, is_leaf=lambda node: _is_process(node) or node is None)
    if not nodes or not all(_is_process(node) for node in nodes):
        raise ValueError(
            "`model` must return the prior given to its `gp_factor` or `gp_sample`, or what `condition` returns (or a tuple, "
            f"list or dict of such); got {type(returned).__name__}."
        )
    return structure, [_observed(node, trace, latent) for node in nodes]


def _observed(returned: Any, trace: Mapping[str, Any], latent: bool) -> _Process:
    if isinstance(unstack(returned)[0], ConditionedGP):
        return _Process(returned)
    sites = {name: _without_masks(site["fn"]) for name, site in trace.items() if site["type"] == "sample"}
    matches = [(n, fn) for n, fn in sites.items() if isinstance(fn, AbstractGPSite) and fn.prior is returned]
    if len(matches) != 1:
        raise ValueError(
            f"`model` returns a prior that {len(matches)} of its `gp_factor` and `gp_sample` sites were given; it must be "
            "one. Return the very prior that was observed, or condition it in the model and return that."
        )
    ((name, fn),) = matches
    if not isinstance(fn, AbstractGPMarginal):
        if not latent:
            raise ValueError(
                f"Site `{name}` has latent values, of which something else was observed: take `numpyro.infer.log_likelihood` "
                "for the likelihood of that. The closed form is for `gp_factor`."
            )
        return _Process(returned, trace[name.removesuffix(WHITE)]["value"])
    if trace[name]["fn"] is not fn:
        raise ValueError(
            f"Site `{name}` has been masked by a handler, and paths cannot be. Replay the model without it; points that were "
            "not observed go into the `mask` of `gp_factor`."
        )
    if trace[name].get("scale") is not None and not trace[name]["cond_indep_stack"]:
        raise ValueError(
            f"Site `{name}` has been scaled by a handler, and paths cannot be. Replay the model without it."
        )
    return _Process(returned, trace[name]["value"], fn.noise_var, fn.observed)


def _without_masks(fn: Any) -> Any:
    while isinstance(fn, dist.MaskedDistribution):
        fn = fn.base_dist
    return fn


def _check_replayed(trace: Mapping[str, Any], sample: Mapping[str, Any]) -> None:
    """Raises unless every site has the value that it had in the posterior draw."""
    kinds = {name: site["type"] for name, site in trace.items()}
    observed = {name for name, kind in kinds.items() if kind == "sample" and trace[name]["is_observed"]}
    missing = [n for n, kind in kinds.items() if kind in ("sample", "param") and n not in observed and n not in sample]
    if missing:
        raise ValueError(
            f"`samples` has no values for the site(s) {', '.join(missing)} of the model; it has {', '.join(sample)}. "
            "Pass the draws of every sample site (and the values of every param), and the observations to the model."
        )
    if both := sorted(observed & set(sample)):
        raise ValueError(
            f"`samples` has values for the site(s) {', '.join(both)}, which the model observes. Leave them out of `samples`."
        )
    for name, kind in kinds.items():
        site = trace[name]
        if kind != "sample" or (name in observed and not isinstance(site["fn"], AbstractGPSite)):
            continue
        if jnp.shape(site["value"]) != site["fn"].shape():
            raise ValueError(
                f"Site `{name}` has shape {site['fn'].shape()}, but its value in a draw has {jnp.shape(site['value'])}. "
                "`samples` must have one leading axis of draws; with one of chains too, say `group_by_chain=True`."
            )
