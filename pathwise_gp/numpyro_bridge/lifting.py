"""Fields of modules as sites: what they are called, and as sample sites or parameters."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from .. import _checks, _fields
from .._addresses import Address, Leaf, leaves_of, listed, ModuleT, prefix_of, put, resolve

_CONSTRAINTS: dict[_fields.Domain, Any] = {
    "positive": constraints.positive,
    "real": constraints.real,
    "lower_cholesky": constraints.lower_cholesky,
    "simplex": constraints.simplex,
}


class Site(NamedTuple):
    """A field as a site. **Fields:** `value`; `support`: the constraint of NumPyro that values of the field meet."""

    value: Float[Array, "..."]
    support: Any


def sites(module: eqx.Module, name: str | None = None) -> dict[str, Site]:
    """The fields of a module that can be lifted, learnt and placed, by the names that their sites have.

    **Arguments:** `module`: any Equinox module; `name`: what the names begin with, the name of the class unless given.

    **Returns:** value and support of each field, by name. **Raises:** ValueError where `module` is not an Equinox module.
    """
    prefix = prefix_of(module, name)
    return {f"{prefix}.{a}": Site(leaf.value, _CONSTRAINTS[leaf.domain]) for a, leaf in leaves_of(module).items()}


def lift(module: ModuleT, priors: Mapping[Address, dist.Distribution], name: str | None = None) -> ModuleT:
    """Replaces fields of a module by NumPyro sample sites. To be called in a model.

    **Arguments:**

    - `module`: a kernel, a prior, a mean, or any Equinox module.
    - `priors`: for each field to be lifted its address, such as `"lengthscale"` or `"kernels[0].lengthscale"`, and the
      distribution of its values. A pattern (`"*.lengthscale"`) lifts all fields that it fits, each to a site of its own; a
      function (`lambda kernel: kernel.kernels[0].lengthscale`) the one that it picks. A distribution without axes stands
      for independent ones over the entries of the field; any other must have the shape of the field. All other fields stay
      as they are.
    - `name`: what the sites' names begin with, the name of the class unless given. Sites are called
      `RBF.lengthscale`, `Sum.kernels[0].lengthscale`. Two modules of one class in a model need different names.

    **Returns:** a module of the same type.

    **Raises:** ValueError, with a list of the fields there are, where an address is unknown or given twice; where the
    support of a distribution reaches beyond the domain of its field (a normal prior for a lengthscale); where the shape
    of a distribution, or of a draw (in a plate), is not that of the field.
    """
    leaves, prefix = _look(module, name)
    chosen: dict[str, dist.Distribution] = {}
    for address, prior in priors.items():
        for canonical in _once(resolve(module, leaves, address, prefix, "priors"), chosen, "priors", leaves):
            chosen[canonical] = _check_prior(prior, f"{prefix}.{canonical}", leaves[canonical], leaves)
    values = {}
    for address, prior in chosen.items():
        site, field = f"{prefix}.{address}", leaves[address].value
        value = jnp.asarray(numpyro.sample(site, prior))
        if value.shape != field.shape:
            raise ValueError(
                f"Site `{site}` drew shape {value.shape} for a field of shape {field.shape}: a plate, a handler "
                "or an axis of chains in the draws has given it axes that the field does not have. Lift outside the plate, "
                "and flatten chains."
            )
        values[address] = value.astype(field.dtype)
    return put(module, leaves, values)


def learn(module: ModuleT, fields: Address | Iterable[Address], name: str | None = None) -> ModuleT:
    """Replaces fields of a module by NumPyro parameters, which `SVI` optimises. To be called in a model or a guide.

    Each starts at the value that the field has, and stays in its domain, whatever the optimiser does: it moves in the
    unconstrained space of that domain.

    **Arguments:**

    - `module`: a kernel, a prior, a guide over inducing values, or any Equinox module.
    - `fields`: the address of a field, a pattern (`"*"` for all fields, which of a prior include its inputs; `"kernel.*"` for
      the hyperparameters), a function that picks one, or several of these.
    - `name`: what the parameters' names begin with, the name of the class unless given; see `lift`.

    **Returns:** a module of the same type.

    **Raises:** ValueError, with a list of the fields there are, where an address is unknown or given twice; where the value
    that a field has is outside its domain or at its edge.
    """
    leaves, prefix = _look(module, name)
    chosen: dict[str, None] = {}
    for address in [fields] if isinstance(fields, str) or callable(fields) else fields:
        for canonical in _once(resolve(module, leaves, address, prefix, "fields"), chosen, "fields", leaves):
            chosen[canonical] = None
    values = {}
    for address in chosen:
        leaf, site = leaves[address], f"{prefix}.{address}"
        # In the widest precision there is: a transform of NumPyro refuses matrices of any other.
        start = _start(leaf, site).astype(jnp.result_type(float))
        value = numpyro.param(site, start, constraint=_CONSTRAINTS[leaf.domain])
        values[address] = jnp.asarray(value, leaf.value.dtype)
    return put(module, leaves, values)


def _look(module: Any, name: str | None) -> tuple[dict[str, Leaf], str]:
    prefix = prefix_of(module, name)
    return leaves_of(module), prefix


def _once(found: list[str], chosen: Mapping[str, Any], argument: str, leaves: Mapping[str, Leaf]) -> list[str]:
    for canonical in found:
        if canonical in chosen:
            raise ValueError(f"`{argument}` names the field {canonical!r} twice. {listed(leaves)}")
    return found


def _start(leaf: Leaf, site: str) -> Array:
    """The value of a field, as its parameter holds it."""
    if _checks.is_concrete(leaf.value) and not _is_inside(np.asarray(leaf.value), leaf.domain):
        raise ValueError(
            f"`{site}` cannot be learnt from where it is: its value must be inside its domain, {leaf.domain}; "
            f"got {np.asarray(leaf.value)}."
        )
    if leaf.domain != "lower_cholesky":
        return leaf.value
    # The covariance is the same with other signs of the columns; a parameter has a positive diagonal.
    negative = jnp.diagonal(leaf.value, axis1=-2, axis2=-1) < 0
    return jnp.tril(leaf.value) * jnp.where(negative, -1.0, 1.0).astype(leaf.value.dtype)[..., None, :]


def _is_inside(value: np.ndarray, domain: _fields.Domain) -> bool:
    """Whether a value is in a domain, and not at its edge."""
    if domain == "lower_cholesky":
        return bool(np.all(np.diagonal(value, axis1=-2, axis2=-1) != 0))
    return bool(np.all(value > 0)) if domain in ("positive", "simplex") else True


def _check_prior(prior: Any, site: str, leaf: Leaf, leaves: Mapping[str, Leaf]) -> dist.Distribution:
    """The prior in the shape of its field, or an error where it does not fit."""
    if not isinstance(prior, dist.Distribution):
        raise ValueError(f"The prior of `{site}` must be a NumPyro distribution; got {type(prior).__name__}.")
    shape = leaf.value.shape
    if prior.shape() == () and shape != ():
        prior = prior.expand(shape).to_event(len(shape))
    if prior.shape() != shape:
        raise ValueError(
            f"The prior of `{site}` has shape {prior.shape()}, but the field has shape {shape}. {listed(leaves)}"
        )
    if not _lies_in(prior, leaf.domain):
        raise ValueError(
            f"The prior of `{site}` has support {prior.support!r}, which reaches beyond the field's domain, "
            f"{leaf.domain}. Take a distribution on that domain, such as LogNormal for positive. {listed(leaves)}"
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
    if domain not in ("positive", "simplex"):
        return True
    shape = to_support.inverse_shape(prior.shape())
    with jax.ensure_compile_time_eval():  # so that a support known beforehand is looked at under jit too
        probes = [to_support(jnp.full(shape, t, jnp.result_type(float))) for t in (-40.0, -1.0, 0.0, 1.0, 40.0)]
    return all(_fields.lies_in(value, domain) for value in probes)
