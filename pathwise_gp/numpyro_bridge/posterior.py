"""Posterior draws of a model as paths."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpyro import handlers

from .. import _checks
from .._features import AbstractBasis, check_basis, QuasiMonteCarlo
from .._paths import map_draws, PathEnsemble, PathwiseFunction
from .._priors import ConditionedGP, GPPrior
from .._priors.exact import condition
from .._samplers import PathwiseSampler
from .._types import Key
from .observing import GPMarginal, INFER_KEY, WHITE


def posterior_paths(
    model: Callable[..., Any],
    samples: Mapping[str, Any],
    key: Key,
    *args: Any,
    n_paths: int = 1,
    n_features: int = 1024,
    features: AbstractBasis = QuasiMonteCarlo(),
    share_features: bool = True,
    chunk_size: int = 1,
    group_by_chain: bool = False,
    thin: int = 1,
    model_kwargs: Mapping[str, Any] | None = None,
) -> PathEnsemble:
    """Paths of the Gaussian process in a model, under every posterior draw of its hyperparameters.

    The model is replayed with each draw in place of its sample sites, and the process it returns is conditioned and drawn
    from: one compiled call, `chunk_size` draws at a time. Draw i uses the key `fold_in(key, i)`, so neither the chunk,
    nor thinning, nor draws added later change its paths.

    **Arguments:**

    - `model`: returns the `GPPrior` that its one `gp_factor` or `gp_sample` was given, or what `condition` made of one. A
      mean that depends on a sampled value must be a module with that value as a field, not a function that closes over it.
    - `samples`: values of the sites by name, each with a leading axis of draws, as from `mcmc.get_samples()`, or a guide's
      `sample_posterior`.
    - `key`: a key, used up; typed, or raw as `jax.random.PRNGKey` makes them.
    - `*args`, `model_kwargs`: the arguments of the model. Floats are passed as arrays; one that must stay a Python number
      (a Matérn's `nu`) is bound beforehand, as by `functools.partial`.
    - `n_paths`: S, paths for each draw. With many draws one path each is the better estimator.
    - `n_features`, `features`, `share_features`: as in `PathwiseSampler`; features are drawn anew for each draw, so that
      even shared ones average out over the ensemble.
    - `chunk_size`: draws worked on at once; memory beyond the result is that of a chunk.
    - `group_by_chain`: whether values have two leading axes, of chains and of draws, as from
      `mcmc.get_samples(group_by_chain=True)`; the ensemble then has both.
    - `thin`: of so many draws (of each chain) the first is used.

    **Returns:** an ensemble of axes `(draws, n_paths)`, or `(chains, draws, n_paths)`, with the training inputs stored once.

    **Raises:** ValueError where a sample or param site of the model is missing from `samples` (it is never drawn afresh),
    `samples` has values of an observed site, axes of values do not fit (flatten chains first), the returned process was
    observed at more than one site or under a mask, or the model returns something else; and as `GPPrior.condition` and
    `PathwiseSampler`.
    """
    counts = {k: _checks.count(v, k) for k, v in (("n_paths", n_paths), ("n_features", n_features))}
    chunk_size = _checks.count(chunk_size, "chunk_size")
    share_features = _checks.flag(share_features, "share_features")
    settings = (counts["n_paths"], counts["n_features"], check_basis(features), share_features, chunk_size)
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
) -> Float[Array, "..."]:
    """log p(yᵢ | y₋ᵢ, θ) for each observation and each posterior draw θ of the hyperparameters, in closed form.

    The observations of a Gaussian process (of `gp_factor`) are one site, whose density has no factors. These are what
    PSIS-LOO takes as the pointwise log likelihood of such a model (Bürkner, Gabry & Vehtari 2021), with a `log_likelihood`
    group of ArviZ.

    **Arguments:** as of `posterior_paths`.

    **Returns:** the log densities, `draws n`, or `chains draws n`. **Raises:** as `posterior_paths`.
    """
    draws = _as_draws(samples, group_by_chain, thin)
    return _leave_one_out(model, draws, _as_key(key), *_as_arguments(args, model_kwargs))


class _Draws(NamedTuple):
    """Posterior draws of the sites, one after the other, and the axes that they had.

    **Fields:** `samples`: values by site, with one leading axis; `indices`: numbers of the draws, in the axes they had.
    """

    samples: dict[str, Array]
    indices: Int[Array, "..."]

    def first(self) -> tuple[dict[str, Array], Int[Array, ""]]:
        return {site: value[0] for site, value in self.samples.items()}, self.indices.reshape(-1)[0]

    def all(self) -> tuple[dict[str, Array], Int[Array, "e"]]:
        return self.samples, self.indices.reshape(-1)

    def apart(self, leaf: Array) -> Array:
        """One leading axis as those that the draws had."""
        return leaf.reshape(*self.indices.shape, *leaf.shape[1:])


def _as_draws(samples: Mapping[str, Any], group_by_chain: bool, thin: int) -> _Draws:
    arrays = {site: jnp.asarray(value) for site, value in samples.items()}
    n_axes = 1 + _checks.flag(group_by_chain, "group_by_chain")
    leading = {value.shape[:n_axes] for value in arrays.values()}
    axes = next(iter(leading), ())
    if len(leading) != 1 or len(axes) != n_axes or 0 in axes:
        shapes = {site: value.shape for site, value in arrays.items()}
        wanted = "two leading axes, of chains and draws," if group_by_chain else "one leading axis of draws"
        raise ValueError(f"`samples` must hold values with {wanted} in common; got shapes {shapes}.")
    kept = np.arange(math.prod(axes)).reshape(axes)[..., :: _checks.count(thin, "thin")]
    flat = {site: value.reshape(-1, *value.shape[n_axes:])[kept.reshape(-1)] for site, value in arrays.items()}
    return _Draws(flat, jnp.asarray(kept))


def _as_key(key: Any) -> Any:
    """A typed key."""
    if not isinstance(key, jax.Array):
        raise ValueError(f"`key` must be a key of jax.random; got {key!r}.")
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
    settings: tuple[int, int, AbstractBasis, bool, int],
) -> PathEnsemble:
    n_paths, n_features, basis, share_features, chunk_size = settings

    def draw(sample: dict[str, Any], index: Any) -> PathwiseFunction:
        # The model's own key serves what it draws besides its sites, such as the rows of a subsample.
        key_model, key_paths = jax.random.split(jax.random.fold_in(key, index))
        posterior = _replay(model, sample, key_model, args, kwargs)
        sampler = PathwiseSampler(posterior, n_features, features=basis, share_features=share_features)
        return sampler.sample_paths(key_paths, n_paths)

    varying, common = map_draws(draw, draws.first(), draws.all(), min(chunk_size, draws.indices.size))
    return PathEnsemble(jax.tree.map(draws.apart, varying), common, n_axes=draws.indices.ndim)


@eqx.filter_jit
def _leave_one_out(model: Any, draws: _Draws, key: Any, args: Any, kwargs: Any) -> Float[Array, "..."]:
    def densities(one: tuple[dict[str, Any], Any]) -> Float[Array, "n"]:
        sample, index = one
        key_model, _ = jax.random.split(jax.random.fold_in(key, index))
        return _replay(model, sample, key_model, args, kwargs).leave_one_out().log_density

    return draws.apart(jax.lax.map(densities, draws.all()))


def _replay(model: Callable[..., Any], sample: dict[str, Any], key: Key, args: Any, kwargs: Any) -> ConditionedGP:
    """The posterior under one draw."""
    seeded = handlers.seed(handlers.substitute(model, data=sample), key)
    with handlers.trace() as trace:
        returned = seeded(*args, **kwargs)
    _check_replayed(trace, sample)
    if isinstance(returned, ConditionedGP):
        return returned
    if not isinstance(returned, GPPrior):
        raise ValueError(
            f"`model` must return the GPPrior given to its `gp_factor` or `gp_sample`, or what `condition` returns; "
            f"got {type(returned).__name__}."
        )
    sites = {n: s["infer"][INFER_KEY] for n, s in trace.items() if INFER_KEY in s.get("infer", {})}
    matches = [(name, noise_var) for name, (prior, noise_var) in sites.items() if prior is returned]
    if len(matches) != 1:
        raise ValueError(
            f"`model` returns a GPPrior that {len(matches)} of its `gp_factor` and `gp_sample` sites were given; it must be "
            "one. Return the very prior that was observed, or condition it in the model and return that."
        )
    ((name, noise_var),) = matches
    if noise_var is None:  # latent values are exact: what is added to the diagonal is the jitter alone
        dtype, f = returned.X.dtype, trace[name.removesuffix(WHITE)]["value"]
        return condition(returned, f.astype(dtype), jnp.zeros((), dtype))
    if not isinstance(trace[name]["fn"], GPMarginal):
        raise ValueError(
            f"Site `{name}` has been masked by a handler, and paths cannot be. Replay the model without it."
        )
    return returned.condition(trace[name]["value"], noise_var)


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
        if kind != "sample" or (name in observed and INFER_KEY not in site["infer"]):
            continue
        if jnp.shape(site["value"]) != site["fn"].shape():
            raise ValueError(
                f"Site `{name}` has shape {site['fn'].shape()}, but its value in a draw has {jnp.shape(site['value'])}. "
                "`samples` must have one leading axis of draws; with one of chains too, say `group_by_chain=True`."
            )
