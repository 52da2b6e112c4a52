"""Gaussian processes as sites of a NumPyro model."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from .. import _checks
from .._batched import Batched, unstack
from .._functionals import as_functional, flat_data, size_of
from .._priors import GPPrior
from .._priors.evidence import log_density
from .._solvers import suited
from .._types import Numbers
from .lifting import NO_KEY

WHITE = ".white"

Prior = GPPrior | Batched[GPPrior]


class AbstractGPSite(dist.Distribution):
    """A distribution of a Gaussian process at its training inputs, which no plate can repeat. It holds its `prior`."""

    prior: Any

    def expand(self, batch_shape: Any) -> Any:
        if tuple(batch_shape) == self.batch_shape:
            return self
        raise ValueError(
            f"A Gaussian process of batch shape {self.batch_shape} cannot be a site in a plate of shape "
            f"{tuple(batch_shape)}: it would count once for each member. Call `gp_factor` or `gp_sample` outside of the "
            "plate, or give it a `Batched` prior, one for each member, as made from what `lift` returns in a plate."
        )


class AbstractGPMarginal(AbstractGPSite):
    """What is observed of a Gaussian process. It holds its noise, `noise_var`, and its mask, `observed`, or None."""

    noise_var: Array
    observed: Array | None = None


class WhitenedGP(AbstractGPSite):
    """z ~ N(0, I), of which the latent values of a Gaussian process are made: f(X) = m(X) + L z.

    **Arguments:** `prior`: a `GPPrior` with n training inputs, or a `Batched` of them of axes `*b`. Batch shape: `*b`; event
    shape: `n`.
    """

    support = constraints.real_vector  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    pytree_data_fields = ("prior",)

    def __init__(self, prior: Any, *, validate_args: bool | None = None):
        self.prior = prior
        _, batch_shape = unstack(prior)
        super().__init__(batch_shape=batch_shape, event_shape=(_size(prior),), validate_args=validate_args)

    @property
    def mean(self) -> Float[Array, "*b n"]:
        return jnp.zeros(self.shape(), unstack(self.prior)[0].X.dtype)

    @property
    def variance(self) -> Float[Array, "*b n"]:
        return jnp.ones(self.shape(), unstack(self.prior)[0].X.dtype)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Float[Array, "*axes"]:
        return jax.random.normal(_as_key(key), (*sample_shape, *self.shape()), unstack(self.prior)[0].X.dtype)

    @validate_sample
    def log_prob(self, value: Any) -> Float[Array, "..."]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return jnp.sum(jax.scipy.stats.norm.logpdf(value), axis=-1)


class GPMarginal(AbstractGPMarginal):
    """y ~ N(m(X), k(X, X) + noise + jitter): what is observed of a Gaussian process at its training inputs.

    **Arguments:** `prior`: a `GPPrior` with n training inputs, or a `Batched` of them of axes `*b`; `noise_var`: variance of
    the noise, `()` or `n`, and of a batch `()`, `*b` or `*b n`; `mask`: False for points that were not observed, which do
    not count in the density, `*b n`. Batch shape: `*b`; event shape: `n`. Where the covariance is not positive definite
    the log density is −inf with zero derivatives.
    """

    support = constraints.real_vector  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    pytree_data_fields = ("prior", "noise_var", "observed")

    def __init__(self, prior: Any, noise_var: Any, mask: Any = None, *, validate_args: bool | None = None):
        one, batch_shape = unstack(prior)
        n = _size(prior)
        self.prior = prior
        self.noise_var = _noise(noise_var, batch_shape, n, None if batch_shape else as_functional(one.X).n_each)
        self.noise_var = self.noise_var.astype(one.X.dtype)
        self.observed = None if mask is None else _checks.as_mask(mask, (*batch_shape, n))
        super().__init__(batch_shape=batch_shape, event_shape=(n,), validate_args=validate_args)

    @property
    def mean(self) -> Float[Array, "*b n"]:
        return self._map(lambda prior, *_: prior.mean_at(prior.functional))

    @property
    def variance(self) -> Float[Array, "*b n"]:
        return self._map(
            lambda prior, noise_var, _: (
                prior.functional.diagonal(prior.kernel)
                + prior.noise_at(prior.functional, noise_var)
                + prior.smooth_jitter(prior.functional, noise_var)
            )
        )

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Float[Array, "*axes"]:
        """Draws of all points, also of those that are masked."""

        def draw(prior: GPPrior, noise_var: Array, _: Any, z: Float[Array, "*s n"]) -> Float[Array, "*s n"]:
            L = prior.functional
            system = prior.system(L, noise_var)
            solver = suited(system)
            prepared = solver.prepare(system)
            solution = _checks.verdict(prepared.solution, (prepared.failed, solver.failure(L, "X")))
            return _add_mean(prior.mean_at(L), solution.colour(z))

        dtype = unstack(self.prior)[0].X.dtype
        z = jax.random.normal(_as_key(key), (*self.batch_shape, *sample_shape, *self.event_shape), dtype)
        return _axes_to_back(self._map(draw, z), len(self.batch_shape), len(sample_shape))

    @validate_sample
    def log_prob(self, value: Any) -> Float[Array, "..."]:  # pyright: ignore[reportIncompatibleMethodOverride]
        value = jnp.broadcast_to(value, jnp.broadcast_shapes(jnp.shape(value), self.shape()))
        return _log_density(self.prior, self.noise_var, self.observed, value, len(self.batch_shape))

    def _map(self, function: Callable[..., Array], *args: Any) -> Array:
        """What a function of the prior, its noise, its mask and more gives for each prior of the batch."""
        return _map(function, self.prior, self.noise_var, self.observed, *args)


def _map(function: Callable[..., Array], prior: Any, *args: Any) -> Array:
    """A function of a prior and more, or of each of a batch."""
    return prior.map(function, *args) if isinstance(prior, Batched) else function(prior, *args)


# NumPyro looks for a start, and evaluates a model outside of an inference, one operation after the other: each would be a
# program of its own.
@eqx.filter_jit
def _log_density(
    prior: Any, noise_var: Float[Array, "..."], mask: Array | None, value: Float[Array, "..."], n_batch: int
) -> Float[Array, "..."]:
    def density(prior: GPPrior, noise_var: Array, mask: Any, y: Float[Array, "*s n"]) -> Float[Array, "*s"]:
        rows = y.astype(prior.X.dtype).reshape(-1, y.shape[-1])
        return jax.vmap(lambda row: log_density(prior, row, noise_var, mask))(rows).reshape(y.shape[:-1])

    n_samples = value.ndim - n_batch - 1
    values = _map(density, prior, noise_var, mask, _axes_to_front(value, n_batch, n_samples))
    return _axes_to_back(values, n_batch, n_samples)


@eqx.filter_jit
def _latent_values(prior: Any, z: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
    def values(prior: GPPrior, z: Float[Array, "n"]) -> Float[Array, "n"]:
        L = prior.functional
        return prior.mean_at(L) + prior.factor_at(L, jnp.zeros((), z.dtype)).colour(z)

    return _map(values, prior, z)


def _as_key(key: Any) -> Any:
    if key is None:
        raise ValueError(f"The site of a Gaussian process {NO_KEY}")
    return _checks.key(key)


def gp_factor(
    name: str,
    prior: Prior,
    y: Numbers | None,
    noise_var: Numbers,
    mask: Numbers | None = None,
) -> Float[Array, "..."]:
    """Observes y under the marginal likelihood of a Gaussian process: a site with the distribution `GPMarginal`.

    **Arguments:**

    - `name`: of the site.
    - `prior`: a `GPPrior` with n training inputs; or a `Batched` of them, one for each member of a plate, in or outside of
      that plate.
    - `y`: the observations, `n` (`*b n`, or in the shape of a functional: `n p` of `AllOutputs`), or None, which draws them
      from the prior.
    - `noise_var`: variance of the noise (the square of its standard deviation), a scalar or one per point (of a batch, one
      per member or one per point of each; of several outputs, one per output).
    - `mask`: False for points that were not observed, in the shape of `y`, whose values do not count; for groups that are not
      all of one size.

    **Returns:** y.

    **Raises:** ValueError where a shape does not fit, `y` is not finite, `noise_var` is known and negative, or the site
    stands in a plate that is not of the batch of `prior`.
    """
    one, batch_shape = unstack(_check_is_prior(prior, "gp_factor"))
    if not batch_shape:
        y, noise_var, mask = flat_data(one.X, y, noise_var, mask)
    elif isinstance(y, (list, tuple)):
        raise ValueError(
            "`y` of a batch must be one array, `*b n`, with the blocks of a list of functionals side by side."
        )
    marginal = GPMarginal(prior, noise_var, mask)
    observed = None if y is None else _observations(y, marginal)
    return numpyro.sample(name, marginal, obs=observed)  # pyright: ignore[reportReturnType]


def gp_sample(name: str, prior: GPPrior | Batched[GPPrior]) -> Any:
    """The latent values f(X) of a Gaussian process, for any likelihood: f(X) = m(X) + L z, z ~ N(0, I).

    The site that is sampled is `name.white`, the whitened z, in which a sampler has an easy task whatever the
    hyperparameters; f(X) is the deterministic site `name`.

    **Arguments:** `name`: of the sites; `prior`: with n training inputs, or a `Batched` of such; L is the Cholesky factor of
    k(X, X) + jitter.

    **Returns:** f(X), `*b n`. **Raises:** ValueError where `prior` is not a `GPPrior` or the site stands in a plate that is
    not of its batch.
    """
    prior = _check_is_prior(prior, "gp_sample")
    (one, batch_shape), dtype = unstack(prior), unstack(prior)[0].X.dtype
    shape = (*batch_shape, _size(prior))
    z = numpyro.sample(f"{name}{WHITE}", WhitenedGP(prior))
    if jnp.shape(z) != shape:
        raise ValueError(
            f"Site `{name}{WHITE}` has shape {jnp.shape(z)} for inputs of shape {shape}: a handler or an axis of chains has "
            "given it axes of its own. Flatten chains."
        )

    f = _latent_values(prior, jnp.asarray(z, dtype))
    f = numpyro.deterministic(name, f)
    return f if isinstance(one.X, Array) or batch_shape else one.X.blocks(f)  # pyright: ignore[reportReturnType]


def _size(prior: Any) -> int:
    """The number of values of a prior, or of each of a batch."""
    if not isinstance(prior, Batched):
        return size_of(prior.X)
    return eqx.filter_eval_shape(lambda: jnp.zeros(size_of(prior.member(0).X))).shape[0]


def _check_is_prior(prior: Any, name: str) -> Any:
    one, batch_shape = unstack(prior)
    if not isinstance(one, GPPrior):
        hint = " Make priors of a batch of kernels by `kernels.map(lambda kernel: GPPrior(kernel=kernel, X=X))`."
        raise ValueError(
            f"`{name}` needs a GPPrior, or a Batched of them; got {type(prior).__name__} of {type(one).__name__}.{hint}"
            if batch_shape
            else f"`{name}` needs a GPPrior, or a Batched of them; got {type(prior).__name__}."
        )
    return prior


def _noise(noise_var: Any, batch_shape: tuple[int, ...], n: int, n_outputs: int | None) -> Float[Array, "..."]:
    """The noise with the axes of the batch in front."""
    if not batch_shape:
        return _checks.noise_variance(noise_var, n, or_zero=True, n_outputs=n_outputs)
    noise_var = _checks.floating(noise_var, "noise_var")
    _checks.positive(noise_var, "noise_var", or_zero=True)
    full = (*batch_shape, n) if noise_var.ndim > len(batch_shape) else batch_shape
    try:
        return jnp.broadcast_to(noise_var, full)
    except ValueError as e:
        raise ValueError(
            f"`noise_var` must be a scalar, one variance for each member of the batch, {batch_shape}, or one for each point "
            f"of each, {(*batch_shape, n)}; got shape {noise_var.shape}."
        ) from e


def _observations(y: Any, marginal: GPMarginal) -> Float[Array, "..."]:
    """Observations in the shape of a marginal; 0 where there is none."""
    shape, mask = marginal.shape(), marginal.observed
    if len(shape) == 1:
        found, _ = _checks.observations(y, shape[0], mask, shape=as_functional(unstack(marginal.prior)[0].X).shape)
    else:
        found = _checks.floating(y, "y")
        if found.shape != shape:
            raise ValueError(f"`y` must have shape {shape}, one row for each prior of the batch; got {found.shape}.")
        found = _checks.observed(found, mask=mask, given=y)
    return found.astype(unstack(marginal.prior)[0].X.dtype)


def _add_mean(mean: Float[Array, "..."], z: Float[Array, "..."]) -> Float[Array, "..."]:
    return z + jnp.broadcast_to(mean, z.shape)


def _axes_to_front(value: Array, n_batch: int, n_samples: int) -> Array:
    """`*s *b ...` as `*b *s ...`."""
    return jnp.moveaxis(value, range(n_samples, n_samples + n_batch), range(n_batch)) if n_batch * n_samples else value


def _axes_to_back(value: Array, n_batch: int, n_samples: int) -> Array:
    """`*b *s ...` as `*s *b ...`."""
    return jnp.moveaxis(value, range(n_batch), range(n_samples, n_samples + n_batch)) if n_batch * n_samples else value
