"""Gaussian processes in NumPyro models: fields of modules as sample sites, and posterior draws as paths.

The one module of the package that imports NumPyro.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from . import _checks, _fields
from ._features import AbstractBasis, check_basis, QuasiMonteCarlo
from ._numerics.linalg import gaussian_log_density
from ._paths import map_draws, PathEnsemble, PathwiseFunction
from ._priors import ConditionedGP, GPPrior
from ._priors.exact import condition
from ._samplers import PathwiseSampler
from ._types import AnyArray, Key, Number

ModuleT = TypeVar("ModuleT", bound=eqx.Module)

# Where the sites of `gp_factor` and `gp_sample` keep what `posterior_paths` needs of them.
_INFER_KEY = "pathwise_gp"
_WHITE = ".white"


class _Leaf(eqx.Module):
    """A field that can be lifted: how to get at it, its value and its domain."""

    get: Callable[[Any], Any] = eqx.field(static=True)
    value: Array
    domain: _fields.Domain = eqx.field(static=True)


def lift(module: ModuleT, priors: Mapping[str, dist.Distribution], name: str | None = None) -> ModuleT:
    """Replaces fields of a module by NumPyro sample sites. To be called in a model.

    **Arguments:**

    - `module`: a kernel, a prior, a mean, or any Equinox module.
    - `priors`: for each field to be lifted its address, such as `"lengthscale"` or `"kernels[0].lengthscale"`, and the
      distribution of its values. A distribution without axes stands for independent ones over the entries of the field;
      any other must have the shape of the field. All other fields stay as they are.
    - `name`: what the sites' names begin with, the name of the class unless given. Sites are called
      `RBF.lengthscale`, `Sum.kernels[0].lengthscale`. Two modules of one class in a model need different names.

    **Returns:** a module of the same type.

    **Raises:** ValueError, with a list of the fields there are, where an address is unknown or given twice; where the
    support of a distribution reaches beyond the domain of its field (a normal prior for a lengthscale); where the shape
    of a distribution, or of a draw (in a plate), is not that of the field.
    """
    if not isinstance(module, eqx.Module):
        raise ValueError(f"`module` must be an Equinox module; got {type(module).__name__}.")
    leaves = dict(_leaves(module))
    prefix = type(module).__name__ if name is None else name
    chosen: dict[str, dist.Distribution] = {}
    for address, prior in priors.items():
        canonical = address
        if isinstance(address, str) and address not in leaves:
            canonical = re.sub(r"\s+|(?<=\[)0+(?=\d)", "", address)
        if canonical not in leaves:
            raise ValueError(f"`priors` names {address!r}, which is not a field of {prefix}. {_listed(leaves)}")
        if canonical in chosen:
            raise ValueError(f"`priors` names the field {canonical!r} twice. {_listed(leaves)}")
        chosen[canonical] = _check_prior(prior, f"{prefix}.{canonical}", leaves[canonical], leaves)
    if not chosen:
        return module
    values = []
    for address, prior in chosen.items():
        site, field = f"{prefix}.{address}", leaves[address].value
        value = jnp.asarray(numpyro.sample(site, prior))
        if value.shape != field.shape:
            raise ValueError(
                f"Site `{site}` drew shape {value.shape} for a field of shape {field.shape}: a plate, a handler "
                "or an axis of chains in the draws has given it axes that the field does not have. Lift outside the plate, "
                "and flatten chains."
            )
        values.append(value.astype(field.dtype))
    return eqx.tree_at(lambda m: [leaves[address].get(m) for address in chosen], module, values)


def _leaves(node: Any, address: str = "", get: Callable[[Any], Any] = lambda m: m) -> Iterator[tuple[str, _Leaf]]:
    """The array fields of a module, nested ones too, by address."""
    if isinstance(node, eqx.Module):
        for field in dataclasses.fields(node):
            if field.metadata.get("static", False):
                continue
            value, inner = getattr(node, field.name), f"{address}.{field.name}".lstrip(".")
            getter = lambda m, get=get, attribute=field.name: getattr(get(m), attribute)
            if eqx.is_inexact_array(value):
                yield inner, _Leaf(getter, value, _fields.domain(field))
            else:
                yield from _leaves(value, inner, getter)
    elif isinstance(node, (tuple, list, dict)):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            inner = f"{address}[{key}]"
            getter = lambda m, get=get, key=key: get(m)[key]
            if eqx.is_inexact_array(value):
                yield inner, _Leaf(getter, value, "real")
            else:
                yield from _leaves(value, inner, getter)


def _listed(leaves: Mapping[str, _Leaf]) -> str:
    return "Its fields are: " + ", ".join(
        f"{a} ({leaf.domain}, shape {leaf.value.shape})" for a, leaf in leaves.items()
    )


def _check_prior(prior: Any, site: str, leaf: _Leaf, leaves: Mapping[str, _Leaf]) -> dist.Distribution:
    """The prior in the shape of its field, or an error where it does not fit."""
    if not isinstance(prior, dist.Distribution):
        raise ValueError(f"The prior of `{site}` must be a NumPyro distribution; got {type(prior).__name__}.")
    shape = leaf.value.shape
    if prior.shape() == () and shape != ():
        prior = prior.expand(shape).to_event(len(shape))
    if prior.shape() != shape:
        raise ValueError(
            f"The prior of `{site}` has shape {prior.shape()}, but the field has shape {shape}. {_listed(leaves)}"
        )
    if not _lies_in(prior, leaf.domain):
        raise ValueError(
            f"The prior of `{site}` has support {prior.support!r}, which reaches beyond the field's domain, "
            f"{leaf.domain}. Take a distribution on that domain, such as LogNormal for positive. {_listed(leaves)}"
        )
    return prior


def _lies_in(prior: dist.Distribution, domain: _fields.Domain) -> bool:
    """Whether the support lies in the domain, by mapping a grid of unconstrained values into it.

    The grid reaches to within 1e-17 of the width of the support from its bounds, where they show. A support whose bounds
    are themselves sampled and not known while tracing cannot be looked at, and passes.
    """
    try:
        to_support = dist.biject_to(prior.support)
    except NotImplementedError:
        return False  # no continuous values at all
    if domain != "positive":
        return True
    shape = to_support.inverse_shape(prior.shape())
    with jax.ensure_compile_time_eval():  # so that a support known beforehand is looked at under jit too
        probes = [to_support(jnp.full(shape, t, jnp.result_type(float))) for t in (-40.0, -1.0, 0.0, 1.0, 40.0)]
    return all(not _checks.is_concrete(value) or bool(np.all(np.asarray(value) > 0)) for value in probes)


class GPMarginal(dist.Distribution):
    """y ~ N(m(X), k(X, X) + noise + jitter): what is observed of a Gaussian process at its training inputs.

    **Arguments:** `prior`: a `GPPrior` with n training inputs; `noise_var`: variance of the noise, `()` or `n`. Event
    shape: `n`. Where the covariance is not positive definite the log density is −inf with zero derivatives.
    """

    support = constraints.real_vector  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    pytree_data_fields = ("prior", "noise_var")

    def __init__(self, prior: GPPrior, noise_var: Any, *, validate_args: bool | None = None):
        n = prior.X.shape[0]
        self.prior = prior
        self.noise_var = _checks.noise_variance(noise_var, n, or_zero=True).astype(prior.X.dtype)
        super().__init__(batch_shape=(), event_shape=(n,), validate_args=validate_args)

    def expand(self, batch_shape: Any) -> Any:
        if tuple(batch_shape) == ():
            return self
        raise ValueError(
            "A Gaussian process cannot be observed inside a plate: its density would count once for each member. "
            "Call `gp_factor` outside, once for each process."
        )

    @property
    def mean(self) -> Float[Array, "n"]:
        return self.prior.mean_at(self.prior.X)

    @property
    def variance(self) -> Float[Array, "n"]:
        prior = self.prior
        return prior.kernel.diagonal(prior.X) + prior.diagonal_at(prior.X, self.noise_var)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Float[Array, "*s n"]:
        z = jax.random.normal(key, (*sample_shape, *self.event_shape), self.prior.X.dtype)
        factor = self.prior.factor_at(self.prior.X, self.noise_var)
        return _add_mean(self.mean, self.prior.check_factor(factor, self.prior.X, "X").colour(z))

    @validate_sample
    def log_prob(self, value: Any) -> Float[Array, "*s"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        value = jnp.asarray(value, self.prior.X.dtype)
        covariance = self.prior.covariance_at(self.prior.X, self.noise_var)
        residual = _add_mean(-self.mean, value).reshape(-1, *self.event_shape)
        return jax.vmap(lambda r: gaussian_log_density(covariance, r))(residual).reshape(value.shape[:-1])


def _add_mean(mean: Float[Array, "n"], z: Float[Array, "*s n"]) -> Float[Array, "*s n"]:
    return z + jnp.broadcast_to(mean, z.shape)


def gp_factor(
    name: str, prior: GPPrior, y: Float[AnyArray, "n"] | None, noise_var: Number | Float[AnyArray, "n"]
) -> Float[Array, "n"]:
    """Observes y under the marginal likelihood of a Gaussian process: a site with the distribution `GPMarginal`.

    **Arguments:** `name`: of the site; `prior`: with n training inputs; `y`: the observations, `n`, or None, which draws
    them from the prior; `noise_var`: variance of the noise, a scalar or one per point.

    **Returns:** y, `n`.

    **Raises:** ValueError where a shape does not fit, `y` is not finite, `noise_var` is known and negative, or the site
    stands in a plate.
    """
    _check_is_prior(prior, "gp_factor")
    marginal = GPMarginal(prior, noise_var)
    if y is not None:
        y = _checks.vector(y, prior.X.shape[0], "y", "X").astype(prior.X.dtype)
    message = {_INFER_KEY: (prior, marginal.noise_var)}
    return numpyro.sample(name, marginal, obs=y, infer=message)  # pyright: ignore[reportReturnType]


def gp_sample(name: str, prior: GPPrior) -> Float[Array, "n"]:
    """The latent values f(X) of a Gaussian process, for any likelihood: f(X) = m(X) + L z, z ~ N(0, I).

    The site that is sampled is `name.white`, the whitened z, in which a sampler has an easy task whatever the
    hyperparameters; f(X) is the deterministic site `name`.

    **Arguments:** `name`: of the sites; `prior`: with n training inputs; L is the Cholesky factor of
    k(X, X) + jitter.

    **Returns:** f(X), `n`. **Raises:** ValueError where `prior` is not a `GPPrior` or the site stands in a plate.
    """
    _check_is_prior(prior, "gp_sample")
    n, dtype = prior.X.shape[0], prior.X.dtype
    white = dist.Normal(jnp.zeros((n,), dtype), jnp.ones((n,), dtype)).to_event(1)
    z = numpyro.sample(f"{name}{_WHITE}", white, infer={_INFER_KEY: (prior, None)})
    if jnp.shape(z) != (n,):
        raise ValueError(
            f"Site `{name}{_WHITE}` drew shape {jnp.shape(z)} for {n} inputs: a plate has given it axes of its own. "
            "Call `gp_sample` outside the plate."
        )
    f = prior.mean_at(prior.X) + prior.factor_at(prior.X, jnp.zeros((), dtype)).colour(jnp.asarray(z, dtype))
    return numpyro.deterministic(name, f)  # pyright: ignore[reportReturnType]


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
    model_kwargs: Mapping[str, Any] | None = None,
) -> PathEnsemble:
    """Paths of the Gaussian process in a model, under every posterior draw of its hyperparameters.

    The model is replayed with each draw in place of its sample sites, and the process it returns is conditioned and drawn
    from: one compiled call, `chunk_size` draws at a time. Draw i uses the key `fold_in(key, i)`, so neither the chunk
    nor draws added later change its paths.

    **Arguments:**

    - `model`: returns the `GPPrior` that its one `gp_factor` or `gp_sample` was given, or what `condition` made of one. A
      mean that depends on a sampled value must be a module with that value as a field, not a function that closes over it.
    - `samples`: values of the sites by name, each with a leading axis of draws, as from `mcmc.get_samples()`.
    - `key`: a key, used up.
    - `*args`, `model_kwargs`: the arguments of the model. Floats are passed as arrays; one that must stay a Python number
      (a Matérn's `nu`) is bound beforehand, as by `functools.partial`.
    - `n_paths`: S, paths for each draw. With many draws one path each is the better estimator.
    - `n_features`, `features`, `share_features`: as in `PathwiseSampler`; features are drawn anew for each draw, so that
      even shared ones average out over the ensemble.
    - `chunk_size`: draws worked on at once; memory beyond the result is that of a chunk.

    **Returns:** an ensemble of `draws` times `n_paths` paths, with the training inputs stored once.

    **Raises:** ValueError where a sample or param site of the model is missing from `samples` (it is never drawn afresh),
    `samples` has values of an observed site, axes of values do not fit (flatten chains first), the returned process was
    observed at more than one site or under a mask, or the model returns something else; and as `GPPrior.condition` and
    `PathwiseSampler`.
    """
    counts = {k: _checks.count(v, k) for k, v in (("n_paths", n_paths), ("n_features", n_features))}
    chunk_size = _checks.count(chunk_size, "chunk_size")
    samples = {site: jnp.asarray(value) for site, value in samples.items()}
    draws = {value.shape[0] if value.ndim else None for value in samples.values()}
    if len(draws) != 1 or None in draws or 0 in draws:
        shapes = {site: value.shape for site, value in samples.items()}
        raise ValueError(f"`samples` must hold values with one leading axis of draws in common; got shapes {shapes}.")

    # A Python float would be part of the compiled function, which would be compiled again for each of its values.
    as_array = lambda a: jnp.asarray(a) if isinstance(a, float) else a
    args, kwargs = jax.tree.map(as_array, (args, dict(model_kwargs or {})))
    share_features = _checks.flag(share_features, "share_features")
    settings = (counts["n_paths"], counts["n_features"], check_basis(features), share_features, chunk_size)
    return _posterior_paths(model, samples, key, args, kwargs, settings)


@eqx.filter_jit
def _posterior_paths(
    model: Any,
    samples: dict[str, Any],
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

    indices = jnp.arange(next(iter(samples.values())).shape[0])
    first = ({site: value[0] for site, value in samples.items()}, indices[0])
    batch_size = min(chunk_size, indices.size)
    return PathEnsemble(*map_draws(draw, first, (samples, indices), batch_size))


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
    sites = {n: s["infer"][_INFER_KEY] for n, s in trace.items() if _INFER_KEY in s.get("infer", {})}
    matches = [(name, noise_var) for name, (prior, noise_var) in sites.items() if prior is returned]
    if len(matches) != 1:
        raise ValueError(
            f"`model` returns a GPPrior that {len(matches)} of its `gp_factor` and `gp_sample` sites were given; it must be "
            "one. Return the very prior that was observed, or condition it in the model and return that."
        )
    ((name, noise_var),) = matches
    if noise_var is None:  # latent values are exact: what is added to the diagonal is the jitter alone
        dtype, f = returned.X.dtype, trace[name.removesuffix(_WHITE)]["value"]
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
        if kind != "sample" or (name in observed and _INFER_KEY not in site["infer"]):
            continue
        if jnp.shape(site["value"]) != site["fn"].shape():
            raise ValueError(
                f"Site `{name}` has shape {site['fn'].shape()}, but its value in a draw has {jnp.shape(site['value'])}. "
                "`samples` must have one leading axis of draws: flatten chains first."
            )


def _check_is_prior(prior: Any, name: str) -> None:
    if not isinstance(prior, GPPrior):
        raise ValueError(f"`{name}` needs a GPPrior; got {type(prior).__name__}.")
