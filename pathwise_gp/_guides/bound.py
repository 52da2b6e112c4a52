"""What a guide says of the process at inputs, and the evidence lower bound."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks
from .._functionals import (
    AbstractFunctional,
    as_functional,
    Asked,
    check_functional,
    dim_of,
    flat_data,
    is_structured,
    observed,
)
from .._priors import SparseGPPrior
from .._priors.base import checked_functional
from .._types import Numbers
from .base import AbstractGuide, marginals as marginals


def elbo(
    prior: SparseGPPrior,
    guide: AbstractGuide,
    X: Asked,
    y: Numbers,
    noise_var: Numbers,
) -> Float[Array, ""]:
    """Evidence lower bound Σ_i E_q[log N(y_i | f(x_i), noise_i)] − KL(q(u) ‖ p(u)), in closed form.

    **Arguments:** as for `optimal_guide`, with a `guide` of m values.

    **Returns:** a scalar, at most the log marginal likelihood (but for a `DeltaGuide`, which has no density).

    **Raises:** ValueError where shapes do not fit, values are not finite or `noise_var` is not positive. Source: Hensman
    et al. (2013), equation 4.
    """
    data = check_data(prior, X, y, noise_var)
    check_guide(guide, prior)
    return _elbo(prior, guide, prior.checked_factor().lower, *data)


@eqx.filter_jit
def _elbo(
    prior: SparseGPPrior,
    guide: AbstractGuide,
    lower: Float[Array, "m m"],
    X: AbstractFunctional,
    y: Float[Array, "n"],
    noise_var: Float[Array, "n"],
) -> Float[Array, ""]:
    mean, variance = marginals(prior, guide, lower, X)
    residual = y - mean
    expected = -0.5 * (jnp.log(noise_var) + (residual * residual + variance) / noise_var + math.log(2 * math.pi))
    return jnp.sum(expected) - guide.kl_divergence(prior)


def expected_log_prob(
    likelihood: Callable[..., Any],
    y: Any,
    moments: Sequence[tuple[Float[Array, "n"], Float[Array, "n"]]],
    nodes: Float[Array | np.ndarray, "p q r"],
    weights: Float[Array | np.ndarray, "q"],
) -> Float[Array, "n"]:
    """E[log p(yᵢ | fᵢ)] for p independent normal latent values of given means and variances, by a rule for standard normal
    ones: nodes for each point (r = n), or for all of them (r = 1). `likelihood(f, ...)` has a method `log_prob`."""
    # At least 0 under rounding, with a derivative there.
    latent = [
        mean[None, :] + jnp.asarray(z, mean.dtype) * jnp.sqrt(jnp.maximum(variance, _tiny(variance)))[None, :]
        for (mean, variance), z in zip(moments, nodes, strict=True)
    ]
    dtype = latent[0].dtype
    values = pointwise_log_prob(likelihood, latent, y).astype(dtype)
    return jnp.sum(jnp.asarray(weights, dtype)[:, None] * values, axis=0)


def pointwise_log_prob(likelihood: Callable[..., Any], latent: Sequence[Float[Array, "*s n"]], y: Any) -> Array:
    """log p(yᵢ | fᵢ) for each latent value, `*s n`, or an error where the shapes are such that something is broadcast."""
    shape, distribution = latent[0].shape, likelihood(*latent)
    values = jnp.asarray(distribution.log_prob(y))
    if values.shape != shape:
        raise ValueError(
            f"`likelihood` must give one log density for each latent value: for f of shape {shape} and y of shape "
            f"{jnp.shape(y)} it gave shape {values.shape}. Return a distribution with the axes of f and no event axes."
        )
    wanted = (shape[-1], *getattr(distribution, "event_shape", ()))
    if jnp.shape(y) != wanted:
        hint = " Pass `y[:, 0]`." if jnp.shape(y) == (*wanted, 1) else ""
        raise ValueError(f"`y` must have shape {wanted}, one observation for each input; got {jnp.shape(y)}.{hint}")
    return values


def gauss_hermite(n_points: int, p: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes, `p q 1`, and weights, `q`, of the Gauss–Hermite rule for p standard normal variables: q = n_points**p."""
    rule = np.polynomial.hermite.hermgauss(n_points)
    grid = np.stack(np.meshgrid(*[math.sqrt(2) * rule[0]] * p, indexing="ij")).reshape(p, -1, 1)
    return grid, functools.reduce(np.multiply.outer, [rule[1] / math.sqrt(math.pi)] * p).reshape(-1)


def _tiny(x: Array) -> float:
    return float(jnp.finfo(x.dtype).tiny)


def check_guide(guide: Any, prior: SparseGPPrior) -> None:
    if not isinstance(guide, AbstractGuide):
        raise ValueError(f"`guide` must be a guide over inducing values; got {type(guide).__name__}.")
    guide.check(prior)


def check_inputs(prior: Any, X: Any) -> AbstractFunctional:
    """What is observed of a sparse process: values at inputs, or of a functional, that fit its prior."""
    if not isinstance(prior, SparseGPPrior):
        raise ValueError(f"`prior` must be a SparseGPPrior; got {type(prior).__name__}.")
    X = observed("X")(X)
    if not isinstance(X, AbstractFunctional):
        _checks.inputs(X, dim_of(prior.Z))
    L = as_functional(X.astype(prior.Z.dtype))
    check_functional(L, prior.kernel, dim_of(prior.Z))
    return checked_functional(prior.kernel, L.suited_to(prior.kernel), "X")


def check_data(
    prior: SparseGPPrior, X: Any, y: Any, noise_var: Any
) -> tuple[AbstractFunctional, Float[Array, "n"], Float[Array, "n"]]:
    L = check_inputs(prior, X)
    n, dtype = L.size, L.dtype
    if is_structured(X):
        y, noise_var, _ = flat_data(L, y, noise_var, None)
    y = _checks.observations(y, n, None, _checks.LEAVE_OUT)[0].astype(dtype)
    noise = jnp.broadcast_to(_checks.noise_variance(noise_var, n).astype(dtype), (n,))
    return L, y, noise + L.noise(prior.kernel)
