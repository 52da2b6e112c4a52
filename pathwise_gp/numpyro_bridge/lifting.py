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
from numpyro.primitives import Messenger

from .. import _checks, _fields
from .._addresses import Address, Addressed, Leaf, leaves_of, listed, ModuleT, prefix_of, put, resolve
from .._batched import Batched, spread, unstack

_CONSTRAINTS: dict[_fields.Domain, Any] = {
    "positive": constraints.positive,
    "real": constraints.real,
    "lower_cholesky": constraints.lower_cholesky,
    "simplex": constraints.simplex,
}


# What is said of a site outside of all handlers.
NO_KEY = (
    "has no key to be drawn with. A model is run by an inference algorithm, such as `MCMC(NUTS(model), ...)`, or under a "
    "handler, `numpyro.handlers.seed(model, rng_seed=0)`, and not called by itself."
)


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
    leaves = leaves_of(unstack(module)[0])
    return {f"{prefix}.{a}": Site(leaf.value, _CONSTRAINTS[leaf.domain]) for a, leaf in leaves.items()}


def lift(module: ModuleT, priors: Addressed[dist.Distribution], name: str | None = None) -> ModuleT:
    """Replaces fields of a module by NumPyro sample sites. To be called in a model.

    **Arguments:**

    - `module`: a kernel, a prior, a mean, or any Equinox module.
    - `priors`: for each field to be lifted its address, such as `"lengthscale"` or `"kernels[0].lengthscale"`, and the
      distribution of its values. A pattern (`"*.lengthscale"`) lifts all fields that it fits, each to a site of its own; a
      function (`lambda kernel: kernel.kernels[0].lengthscale`) the one that it picks. A distribution without axes stands
      for independent ones over the entries of the field; any other must have the shape of the field (behind the axes of
      plates, if its parameters have them). All other fields stay as they are.
    - `name`: what the sites' names begin with, the name of the class unless given. Sites are called
      `RBF.lengthscale`, `Sum.kernels[0].lengthscale`. Two modules of one class in a model need different names.

    **Returns:** a module of the same type. In a plate, or in several, it is a `Batched` of them, one for each member of the
    plate; what is lifted outside of it, and what is not lifted, is the same for all.

    **Raises:** ValueError, with a list of the fields there are, where an address is unknown or given twice; where the
    support of a distribution reaches beyond the domain of its field (a normal prior for a lengthscale); where the shape
    of a distribution, or of a draw, is not that of the field and the plates.
    """
    prefix = prefix_of(module, name)
    module, batch_shape = unstack(module)
    leaves = leaves_of(module)
    chosen: dict[str, tuple[dist.Distribution, tuple[int, ...]]] = {}
    for address, prior in _checks.mapping(priors, "priors").items():
        for canonical in _once(resolve(module, leaves, address, prefix, "priors"), chosen, "priors", leaves):
            shape = leaves[canonical].value.shape[len(batch_shape) :]
            chosen[canonical] = _check_prior(prior, f"{prefix}.{canonical}", leaves[canonical], shape, leaves)
    values: dict[str, tuple[tuple[int, ...], Array]] = {}
    for address, prior in chosen.items():
        field = leaves[address].value
        axes, value = _sample(f"{prefix}.{address}", *prior, field.shape[len(batch_shape) :])
        values[address] = axes, value.astype(field.dtype)
    try:
        full = jnp.broadcast_shapes(batch_shape, *(axes for axes, _ in values.values()))
    except ValueError as e:
        raise ValueError(
            f"`{prefix}` has the axes {batch_shape} of plates that it was lifted in before, which do not fit those of the "
            f"plates here, {[axes for axes, _ in values.values()]}. Give plates of different members different dimensions."
        ) from e
    lifted = put(
        spread(module, batch_shape, full), leaves, {a: spread(value, axes, full) for a, (axes, value) in values.items()}
    )
    return Batched(lifted, full) if full else lifted  # pyright: ignore[reportReturnType]


def _sample(
    site: str, prior: dist.Distribution, entries: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[tuple[int, ...], Array]:
    """A draw for a field of a given shape, and the axes of plates in front of it. `entries` are the axes of parameters of the
    prior that are taken for those of the field."""
    frames = _Frames(site)
    with frames:
        value = jnp.asarray(_draw(site, prior))
    axes = value.shape[: value.ndim - len(shape)]
    plates = frames.shape()
    if value.shape != (*plates, *shape):
        where = f" in plates of shape {plates}" if plates else ""
        raise ValueError(
            f"Site `{site}` drew shape {value.shape} for a field of shape {shape}{where}: its prior, a handler or an axis of "
            "chains in the draws has given it axes that neither has. Flatten chains."
        )
    if entries and plates[-len(entries) :] == entries:
        raise ValueError(
            f"The prior of `{site}` has parameters of shape {entries}, which is that of the field and of the plates. Say "
            "which: `prior.to_event()` for the entries of the field; for the members of the plates put an axis of length 1 "
            "behind and expand it to the field, as in `LogNormal(mu[:, None], 1.0).expand([members, entries]).to_event(1)`."
        )
    return axes, value


def _draw(site: str, law: dist.Distribution) -> Any:
    """`numpyro.sample`, or an error that says why there is nothing to draw with."""
    try:
        return numpyro.sample(site, law)
    except AssertionError as e:
        if str(e):
            raise
        # What NumPyro's distributions say of a key that is None.
        raise ValueError(f"Site `{site}` {NO_KEY}") from e


class _Frames(Messenger):
    """Sees in which plates a site stands."""

    def __init__(self, site: str):
        super().__init__()
        self.site, self.message = site, {}

    def process_message(self, msg: dict[str, Any]) -> None:
        # A transformation may pass sites of its own through here. The plates add themselves later, to the same message.
        if msg.get("name") == self.site:
            self.message = msg

    def shape(self) -> tuple[int, ...]:
        frames = self.message.get("cond_indep_stack", ())
        sizes = [1] * max((-frame.dim for frame in frames), default=0)
        for frame in frames:
            sizes[frame.dim] = frame.size
        return tuple(sizes)


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
    prefix = prefix_of(module, name)
    module, batch_shape = unstack(module)
    leaves = leaves_of(module)
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
    learnt = put(module, leaves, values)
    return Batched(learnt, batch_shape) if batch_shape else learnt  # pyright: ignore[reportReturnType]


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


def _check_prior(
    prior: Any, site: str, leaf: Leaf, shape: tuple[int, ...], leaves: Mapping[str, Leaf]
) -> tuple[dist.Distribution, tuple[int, ...]]:
    """The prior with all axes of its field as those of an event, and those that were not before; or an error where it does
    not fit.

    As axes of a batch a plate of the same length would take them for its own.
    """
    if not isinstance(prior, dist.Distribution):
        raise ValueError(f"The prior of `{site}` must be a NumPyro distribution; got {type(prior).__name__}.")
    entries: tuple[int, ...] = ()
    if prior.shape() == () and shape != ():
        prior = prior.expand(shape)
    elif len(prior.event_shape) < len(shape):
        entries = prior.batch_shape[len(prior.shape()) - len(shape) :] if len(prior.shape()) >= len(shape) else ()
    fits = len(prior.event_shape) <= len(shape) <= len(prior.shape())
    if fits and prior.shape()[len(prior.shape()) - len(shape) :] == shape:
        prior = prior.to_event(len(shape) - len(prior.event_shape))
    else:
        raise ValueError(
            f"The prior of `{site}` has shape {prior.shape()}, but the field has shape {shape}. {listed(leaves)}"
        )
    if not _lies_in(prior, leaf.domain):
        raise ValueError(
            f"The prior of `{site}` has support {prior.support!r}, which reaches beyond the field's domain, "
            f"{leaf.domain}. Take a distribution on that domain, such as LogNormal for positive. {listed(leaves)}"
        )
    return prior, entries


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
