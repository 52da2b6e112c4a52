"""Gaussian processes as sites of a NumPyro model."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from .. import _checks
from .._numerics.linalg import gaussian_log_density
from .._priors import GPPrior
from .._types import AnyArray, Number

# Where the sites of `gp_factor` and `gp_sample` keep what `posterior_paths` needs of them.
INFER_KEY = "pathwise_gp"
WHITE = ".white"


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
    message = {INFER_KEY: (prior, marginal.noise_var)}
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
    z = numpyro.sample(f"{name}{WHITE}", white, infer={INFER_KEY: (prior, None)})
    if jnp.shape(z) != (n,):
        raise ValueError(
            f"Site `{name}{WHITE}` drew shape {jnp.shape(z)} for {n} inputs: a plate has given it axes of its own. "
            "Call `gp_sample` outside the plate."
        )
    f = prior.mean_at(prior.X) + prior.factor_at(prior.X, jnp.zeros((), dtype)).colour(jnp.asarray(z, dtype))
    return numpyro.deterministic(name, f)  # pyright: ignore[reportReturnType]


def _check_is_prior(prior: Any, name: str) -> None:
    if not isinstance(prior, GPPrior):
        raise ValueError(f"`{name}` needs a GPPrior; got {type(prior).__name__}.")
