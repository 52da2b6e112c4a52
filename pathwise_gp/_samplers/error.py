"""How large the error of a basis is, and how many features make it small enough."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks
from .._features import (
    AbstractBasis,
    AbstractFeatures,
    as_features,
    check_basis,
    check_covered,
    QuasiMonteCarlo,
)
from .._functionals import AbstractFunctional, dim_of
from .._kernels import AbstractKernel
from .._numerics.blocks import map_rows
from .._numerics.lapack import eigh
from .._numerics.linalg import inner
from .._numerics.sobol import sobol
from .._paths import fitted
from .._priors import ConditionedGP
from .._types import AnyArray, Key

# What `tolerance` tries, and where it looks.
_FEWEST, _MOST = 64, 2**15
_PROBES = 256
# A variance of so many units of rounding of the prior's has two digits.
_ROUNDING = 60


def feature_error(
    posterior: ConditionedGP,
    X: Float[AnyArray, "*n d"],
    n_features: int,
    *,
    features: AbstractBasis = QuasiMonteCarlo(),
    key: Key | None = None,
    n_draws: int = 4,
) -> Float[Array, ""]:
    """The error of a basis: how far the law of a path is from the posterior's, relative to it, with no paths drawn.

    Every input x is taken together with two others: x′, the one of `X` most correlated with it under the prior, and x″ from
    the other half of `X`. With C the posterior covariance of f(x), f(x′) and f(x″), and Ĉ that of a path with its features
    held, the variance of any combination of the three is off by a factor between the least and the greatest eigenvalue λ of
    C⁻¹Ĉ: of a value, of the difference of neighbours, of a sum over a distance. The error is the root mean square of λ − 1,
    over the eigenvalues, the inputs and some draws of the basis.

    At a single input it is the relative error of the variance, and about half of it that of the standard deviation.
    Combinations whose variance is lost in rounding are left out.

    **Arguments:**

    - `posterior`: made by `GPPrior.condition`.
    - `X`: inputs, `*n d`, where paths will be evaluated.
    - `n_features`: F, a whole number of at least 1.
    - `features`: the rule for making features, as in `PathwiseSampler`.
    - `key`: of the draws; one of its own unless given, so that the answer is the same each time.
    - `n_draws`: how many bases to look at, a whole number of at least 1.

    **Returns:** a scalar, without unit.

    **Raises:** ValueError where an argument does not fit; NotImplementedError where the kernel has no features. Source: a
    path is an affine function of its weights and noise (Wilson et al. 2021, section 3), which gives its covariance.
    """
    if not isinstance(posterior, ConditionedGP):
        raise ValueError(f"`posterior` must be what `GPPrior.condition` returns; got {type(posterior).__name__}.")
    n_features, n_draws = _checks.count(n_features, "n_features"), _checks.count(n_draws, "n_draws")
    posterior.variance(X)  # checks the inputs, and warns where no digits are left
    flat = jnp.asarray(X).astype(posterior.prior.X.dtype).reshape(-1, dim_of(posterior.prior.X))
    keys = jax.random.split(jax.random.key(0) if key is None else _checks.key(key), n_draws)
    return _error(posterior, flat, n_features, check_basis(features), keys)


@eqx.filter_jit
def _error(
    posterior: ConditionedGP, X: Float[Array, "n d"], n_features: int, basis: AbstractBasis, keys: Any
) -> Float[Array, ""]:
    kernel, dim, L = posterior.prior.kernel, X.shape[1], posterior.observed
    points = L.points
    rule, centre = fitted(basis, kernel, points), jnp.mean(points, axis=0)
    groups = _groups(kernel, X)

    def mean_square(key: Any) -> Float[Array, ""]:
        drawn = as_features(kernel.features(n_features, dim, key=key, basis=rule)).about(centre)
        inside = check_covered(drawn, jnp.concatenate([groups.reshape(-1, dim), points]))[: groups.size // dim]
        return jnp.mean(_squares(posterior, drawn, L, inside.reshape(groups.shape)))

    return jnp.sqrt(jnp.mean(jax.lax.map(mean_square, keys)))


def _groups(kernel: AbstractKernel, X: Float[Array, "n d"]) -> Float[Array, "n g d"]:
    """Each input, the other one most correlated with it, and one from the other half of the inputs."""
    n = X.shape[0]
    if n < 3:
        return jnp.broadcast_to(X[None, :, :], (n, *X.shape))
    sd = jnp.sqrt(jnp.maximum(kernel.diagonal(X), jnp.finfo(X.dtype).tiny))

    def nearest(rows: Float[Array, "b d"]) -> Float[Array, "d b"]:
        # Correlations with a row, but for its own standard deviation: distances in units that every kernel has.
        similar = kernel.matrix(rows, X) / sd[None, :]
        same = jnp.all(rows[:, None, :] == X[None, :, :], axis=2)
        return X[jnp.argmax(jnp.where(same, -jnp.inf, similar), axis=1)].T

    near, middle = map_rows(nearest, X, n * X.shape[1]).T, n // 2
    across = jnp.roll(X, -middle, axis=0)
    taken = jnp.all(across == near, axis=1, keepdims=True)
    return jnp.stack([X, near, jnp.where(taken, jnp.roll(X, -middle - 1, axis=0), across)], axis=1)


def _squares(
    posterior: ConditionedGP, features: AbstractFeatures, L: AbstractFunctional, groups: Float[Array, "b g d"]
) -> Float[Array, "b"]:
    """The mean of (λ − 1)², of each group of inputs."""
    kernel, factor, (g, dim) = posterior.prior.kernel, posterior.factor, groups.shape[1:]
    at_inputs = L.of_features(features)
    lost = _ROUNDING * jnp.finfo(L.dtype).eps

    def block(rows: Float[Array, "b gd"]) -> Float[Array, "b"]:
        grouped = rows.reshape(-1, g, dim)
        flat = rows.reshape(-1, dim)
        cross = L.of_kernel(kernel, flat)
        white, G = factor.whiten(cross).reshape(-1, g, L.size), factor.solve(cross)
        residual = (features(flat) - inner(G, at_inputs.T)).reshape(-1, g, at_inputs.shape[1])
        noise = (G * jnp.sqrt(posterior.noise)[None, :]).reshape(-1, g, L.size)
        prior = jax.vmap(lambda Z: kernel.matrix(Z, Z))(grouped)
        exact = prior - _products(white)
        return _mean_square(exact, _products(residual) + _products(noise), lost * _diagonals(prior))

    return map_rows(block, groups.reshape(-1, g * dim), g * (L.width + at_inputs.shape[1]))


def _mean_square(C: Float[Array, "b g g"], path: Float[Array, "b g g"], lost: Float[Array, "b g"]) -> Float[Array, "b"]:
    """‖C^{−½}(Ĉ − C)C^{−½}‖² / g in the Frobenius norm, without the combinations whose variance is at most `lost`."""
    variances = jnp.maximum(_diagonals(C), lost)
    units = jnp.sqrt(variances[:, :, None] * variances[:, None, :])
    eigenvalues, U = jax.vmap(eigh)(C / units)
    seen = eigenvalues > jnp.max(lost / variances, axis=1)[:, None]
    scale = jnp.where(seen, 1 / jnp.sqrt(jnp.where(seen, eigenvalues, 1)), 0)
    error = scale[:, :, None] * scale[:, None, :] * (jnp.swapaxes(U, 1, 2) @ ((path - C) / units) @ U)
    return jnp.sum(error * error, axis=(1, 2)) / jnp.maximum(jnp.sum(seen.astype(C.dtype), axis=1), 1)


def _products(rows: Float[Array, "b g m"]) -> Float[Array, "b g g"]:
    return jnp.einsum("bim,bjm->bij", rows, rows, precision=jax.lax.Precision.HIGHEST)


def _diagonals(C: Float[Array, "b g g"]) -> Float[Array, "b g"]:
    return jnp.diagonal(C, axis1=1, axis2=2)


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
        f"`tolerance` of {tolerance} is not reached with {_MOST} features, whose error is {error:.3g}. Allow as much, or "
        f"{basis.remedy}."
    )


@eqx.filter_jit
def _probes(posterior: ConditionedGP) -> Float[Array, "n d"]:
    """Inputs spread over the box of the training inputs; training inputs with their columns shuffled where the kernel has a
    domain of its own that the box is not."""
    prior = posterior.prior
    X, dim = posterior.observed.points, dim_of(prior.X)
    lower, upper = jnp.min(X, axis=0), jnp.max(X, axis=0)
    uniform = (sobol(jax.random.key(0), _PROBES, dim).astype(X.dtype) + 0.5) * 2.0**-32
    probes = lower[None, :] + uniform * (upper - lower)[None, :]
    valid = prior.kernel.valid(probes)
    if valid is True:
        return probes
    rows = jax.random.randint(jax.random.key(0), (_PROBES, dim), 0, X.shape[0])
    return jnp.where(valid, probes, jnp.take_along_axis(X, rows, axis=0))
