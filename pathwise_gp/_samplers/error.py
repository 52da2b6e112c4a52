"""How large the error of a basis is, and how many features make it small enough."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks
from .._features import AbstractBasis, as_features, check_basis, QuasiMonteCarlo
from .._numerics.sobol import sobol
from .._paths import check_covered, fitted, path_variance
from .._priors import ConditionedGP
from .._types import AnyArray, Key

# What `tolerance` tries, and where it looks.
_FEWEST, _MOST = 64, 2**15
_PROBES = 256


def feature_error(
    posterior: ConditionedGP,
    X: Float[AnyArray, "*n d"],
    n_features: int,
    *,
    features: AbstractBasis = QuasiMonteCarlo(),
    key: Key | None = None,
    n_draws: int = 4,
) -> Float[Array, ""]:
    """The error of a basis: the relative error of the variance of a path against that of the posterior.

    Root mean square over the inputs and over some draws of the basis; exact for each draw, with no paths drawn. At a single
    input the variance of a path is (1 ± this) times the posterior's, and about half of it is the error of the standard
    deviation.

    **Arguments:**

    - `posterior`: made by `GPPrior.condition`.
    - `X`: inputs, `*n d`, where paths will be evaluated.
    - `n_features`: F, a whole number of at least 1.
    - `features`: the rule for making features, as in `PathwiseSampler`.
    - `key`: of the draws; one of its own unless given, so that the answer is the same each time.
    - `n_draws`: how many bases to look at, a whole number of at least 1.

    **Returns:** a scalar, without unit.

    **Raises:** ValueError where an argument does not fit; NotImplementedError where the kernel has no features. Source: the
    variance of a path is that of an affine function of its weights and noise (Wilson et al. 2021, section 3).
    """
    if not isinstance(posterior, ConditionedGP):
        raise ValueError(f"`posterior` must be what `GPPrior.condition` returns; got {type(posterior).__name__}.")
    n_features, n_draws = _checks.count(n_features, "n_features"), _checks.count(n_draws, "n_draws")
    exact = posterior.variance(X)
    flat = jnp.asarray(X).reshape(exact.size, -1).astype(posterior.prior.X.dtype)
    keys = jax.random.split(jax.random.key(0) if key is None else key, n_draws)
    return _error(posterior, flat, exact.reshape(-1), n_features, check_basis(features), keys)


@eqx.filter_jit
def _error(
    posterior: ConditionedGP,
    X: Float[Array, "n d"],
    exact: Float[Array, "n"],
    n_features: int,
    basis: AbstractBasis,
    keys: Any,
) -> Float[Array, ""]:
    prior = posterior.prior
    kernel, dim = prior.kernel, X.shape[1]
    variance = functools.partial(path_variance, kernel, posterior.factor, posterior.noise, None)
    # Below this a variance is rounding.
    floor = jnp.sqrt(jnp.finfo(X.dtype).eps) * jnp.maximum(kernel.diagonal(X), jnp.finfo(X.dtype).tiny)
    points = posterior.observed_inputs
    rule, centre = fitted(basis, kernel, points), jnp.mean(points, axis=0)

    def mean_square(key: Any) -> Float[Array, ""]:
        drawn = as_features(kernel.features(n_features, dim, key=key, basis=rule)).about(centre)
        inputs, inside = check_covered(drawn, points), check_covered(drawn, X)
        relative = (variance(drawn, inputs, inside) - exact) / jnp.maximum(exact, floor)
        return jnp.mean(relative * relative)

    return jnp.sqrt(jnp.mean(jax.lax.map(mean_square, keys)))


def enough_features(posterior: ConditionedGP, tolerance: Any, basis: AbstractBasis) -> int:
    """The least power of two for which `feature_error` about the training inputs is within a tolerance."""
    if not all(_checks.is_concrete(leaf) for leaf in jax.tree.leaves((posterior, tolerance))):
        raise ValueError(
            "`tolerance` chooses a number of features, which jit must know: make the sampler outside of it."
        )
    tolerance = float(_checks.floating(tolerance, "tolerance"))
    if not 0 < tolerance < 1:
        raise ValueError(f"`tolerance` is a relative error, between 0 and 1; got {tolerance}.")
    X = _probes(posterior)
    n_features, error = _FEWEST, np.inf
    while n_features <= _MOST:
        error = float(feature_error(posterior, X, n_features, features=basis))
        if error <= tolerance:
            return n_features
        n_features *= 2
    raise ValueError(
        f"`tolerance` of {tolerance} is not reached with {_MOST} features, whose error is {error:.3g}. Allow more, draw a "
        "basis for each path (`share_features=False`), or use `features=HilbertSpace()` in few dimensions."
    )


def _probes(posterior: ConditionedGP) -> Float[Array, "n d"]:
    """Inputs spread over the box of the training inputs; training inputs with their columns shuffled where the kernel has a
    domain of its own that the box is not."""
    prior = posterior.prior
    X, dim = posterior.observed_inputs, prior.X.shape[1]
    lower, upper = jnp.min(X, axis=0), jnp.max(X, axis=0)
    uniform = (sobol(jax.random.key(0), _PROBES, dim).astype(X.dtype) + 0.5) * 2.0**-32
    probes = lower[None, :] + uniform * (upper - lower)[None, :]
    if bool(prior.kernel.valid(probes)):
        return probes
    rows = jax.random.randint(jax.random.key(0), (_PROBES, dim), 0, X.shape[0])
    return jnp.take_along_axis(X, rows, axis=0)
