"""A Gaussian process at its training inputs, and conditioned on what was observed there."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .. import _checks, _means
from .._features import AbstractBasis, check_basis, QuasiMonteCarlo
from .._kernels import AbstractKernel, check_valid
from .._numerics.blocks import map_rows
from .._numerics.linalg import CholeskyFactor, default_jitter, gaussian_log_density, inner, seen
from .._paths import draw_prior, PathwiseFunction
from .._types import AnyArray, Key, Number
from .base import AbstractPrior, check_prior, jitter_field, settle


class GPPrior(AbstractPrior):
    """f ~ GP(m, k), to be observed at the training inputs X as y = f(X) + ε, ε ~ N(0, noise).

    **Fields:**

    - `kernel`: k.
    - `X`: the training inputs, `n d`.
    - `mean`: m, a callable that maps `n d` to `n`, or a number; zero unless given.
    - `jitter`: variance added to the diagonal of k(X, X), a scalar; √eps times the mean of the diagonal unless given. It
      counts as noise throughout, so give it where the variances are large beside the noise (inputs far from 0 under a
      linear kernel, say). Where it does not suffice `condition` raises it by decades; the posterior has what was used.

    **Raises:** ValueError where `X` is not a finite `n d` array, the kernel does not fit d, or `jitter` is negative.
    """

    kernel: AbstractKernel
    X: Float[Array, "n d"] = eqx.field(converter=lambda X: _checks.points(X, "X"))
    mean: _means.Mean = eqx.field(converter=_means.as_mean, default_factory=_means.ZeroMean)
    jitter: Float[Array, ""] | None = jitter_field()

    def log_prob(
        self,
        y: Float[AnyArray, "n"],
        noise_var: Number | Float[AnyArray, "n"],
        mask: Bool[AnyArray, "n"] | None = None,
    ) -> Float[Array, ""]:
        """Log marginal likelihood, log N(y | m(X), k(X, X) + noise + jitter).

        **Arguments:** `y`: observations, `n`; `noise_var`: variance of the noise, a scalar or one per point, to which noise
        of the kernel (`White`) is added; `mask`: False for points that were not observed, whose `y` does not count, `n`.

        **Returns:** a scalar: −inf, with zero derivatives, where the covariance is not positive definite in the dtype of
        X, so that a sampler of hyperparameters rejects the step.

        **Raises:** ValueError where a shape does not fit, `y` is not finite or `noise_var` is negative.
        """
        y, noise_var, mask = self.check(y, noise_var, mask)
        return _log_prob(without(self, mask).checked(), y, noise_var, mask)

    def condition(
        self,
        y: Float[AnyArray, "n"],
        noise_var: Number | Float[AnyArray, "n"],
        mask: Bool[AnyArray, "n"] | None = None,
    ) -> "ConditionedGP":
        """The posterior given y. The one factorisation is made here and serves every draw. A jitter that does not suffice for
        it is raised by decades: `posterior.jitter` is what was used.

        **Arguments:** `y`: observations, `n`; `noise_var`: variance of the noise, a scalar or one per point; `mask`: False
        for points that were not observed, whose `y` does not count, `n`.

        **Returns:** the posterior.

        **Raises:** ValueError where a shape does not fit, `y` is not finite, `noise_var` is negative, or the
        covariance is not positive definite with any jitter up to 1e-3 of its mean diagonal (at run time under jit).
        """
        y, noise_var, mask = self.check(y, noise_var, mask)
        if not _checks.is_concrete(noise_var):  # else it has been looked at
            noise_var = _checks.require(jnp.all(noise_var >= 0), noise_var, "`noise_var` must not be negative.")
        return condition(self, y, noise_var, mask)

    def sample_paths(
        self,
        key: Key,
        n_paths: int = 1,
        n_features: int = 1024,
        *,
        features: AbstractBasis = QuasiMonteCarlo(),
        share_features: bool = True,
    ) -> PathwiseFunction:
        """Draws of the prior as functions.

        **Arguments:** see `PathwiseSampler`.

        **Returns:** paths with one axis of length `n_paths`, conditioned on nothing.

        **Raises:** ValueError where `n_paths` or `n_features` is less than 1; NotImplementedError where the kernel has no
        features.
        """
        n_paths, n_features = _checks.count(n_paths, "n_paths"), _checks.count(n_features, "n_features")
        share_features = _checks.flag(share_features, "share_features")
        return _sample_prior(self, key, n_paths, n_features, check_basis(features), share_features)

    def checked(self) -> "GPPrior":
        """This prior, or an error where an input is outside the kernel's domain (at run time under jit)."""
        X = check_valid(self.kernel, self.X, "X")
        return self if X is self.X else eqx.tree_at(lambda prior: prior.X, self, X)

    def check(self, y: Any, noise_var: Any, mask: Any) -> tuple[Array, Array, Array | None]:
        """Observations, noise and mask that fit the training inputs."""
        n, dtype = self.X.shape[0], self.X.dtype
        y, mask = _checks.observations(y, n, mask)
        return y.astype(dtype), _checks.noise_variance(noise_var, n, or_zero=True).astype(dtype), mask

    def __check_init__(self):
        check_prior(self, self.X, "X")


class LeaveOneOut(NamedTuple):
    """What all observations but one predict of it, for each of them, made by `ConditionedGP.leave_one_out`.

    **Fields:** `mean`, `variance`: of yᵢ, its noise included, given all others, `n`; `log_density`: of yᵢ under that, `n`,
    0 for what was not observed.
    """

    mean: Float[Array, "*n"]
    variance: Float[Array, "*n"]
    log_density: Float[Array, "*n"]


class ConditionedGP(eqx.Module):
    """The posterior of a Gaussian process given y, made by `GPPrior.condition`.

    The factor belongs to the hyperparameters it was made with: to change or differentiate those, change the prior and
    condition again.

    **Fields:**

    - `prior`: the prior, with its training inputs X, `n d`, and the jitter that was used.
    - `y`: the observations, `n`; 0 where there is none.
    - `noise_var`: variance of the noise, `()` or `n`.
    - `factor`: Cholesky factor of A = k(X, X) + noise + jitter, `n n`, and its mask: False for points without observations,
      whose rows and columns of A are those of the identity.
    - `coefficients`: A⁻¹(y − m(X)), `n`; 0 where nothing was observed.
    """

    prior: GPPrior
    y: Float[Array, "n"]
    noise_var: Float[Array, "..."]
    factor: CholeskyFactor
    coefficients: Float[Array, "n"]

    @property
    def jitter(self) -> Float[Array, ""]:
        """The jitter on the diagonal of A: the prior's, or more where that did not suffice. It is in ε too."""
        return self.prior.jitter_at(self.prior.X)

    @property
    def mask(self) -> Bool[Array, "n"] | None:
        """False for points that were not observed; None where all were."""
        return self.factor.mask

    @property
    def observed_inputs(self) -> Float[Array, "n d"]:
        """X, with the first input that was observed in place of those that were not: they may be anywhere."""
        return observed_rows(self.prior.X, self.mask)

    @property
    def noise(self) -> Float[Array, "n"]:
        """All that was added to the diagonal of k(X, X), `n`: the variances of ε."""
        return self.prior.diagonal_at(self.prior.X, self.noise_var)

    def mean(self, X: Float[AnyArray, "*n d"]) -> Float[Array, "*n"]:
        """Posterior mean, m(x) + k(x, X)A⁻¹(y − m(X)) (Rasmussen & Williams 2006, equation 2.38).

        **Arguments:** `X`: inputs, `*n d`. **Returns:** `*n`. **Raises:** ValueError where the last axis is not d.
        """
        X = self._inputs(X, "X")
        return _mean(self, X.reshape(-1, X.shape[-1])).reshape(X.shape[:-1])

    def variance(self, X: Float[AnyArray, "*n d"]) -> Float[Array, "*n"]:
        """Posterior variance of f(x), without noise: k(x, x) − k(x, X)A⁻¹k(X, x), at least 0 under rounding.

        **Arguments:** `X`: inputs, `*n d`. **Returns:** `*n`. **Raises:** ValueError where the last axis is not d.
        """
        X = self._inputs(X, "X")
        return _variance(self, X.reshape(-1, X.shape[-1])).reshape(X.shape[:-1])

    def covariance(self, X: Float[AnyArray, "*n d"], Z: Float[AnyArray, "*m d"] | None = None) -> Float[Array, "..."]:
        """Posterior covariance of f(x) and f(z): k(x, z) − k(x, X)A⁻¹k(X, z).

        **Arguments:** `X`: inputs, `*n d`; `Z`: inputs, `*m d`, the same as `X` unless given.

        **Returns:** `*n *m`. **Raises:** ValueError where a last axis is not d.
        """
        X = self._inputs(X, "X")
        Z = X if Z is None else self._inputs(Z, "Z")
        flat = _covariance(self, X.reshape(-1, X.shape[-1]), Z.reshape(-1, X.shape[-1]))
        return flat.reshape(*X.shape[:-1], *Z.shape[:-1])

    def log_marginal_likelihood(self) -> Float[Array, ""]:
        """log N(y | m(X), A), a scalar, from the factor at hand (Rasmussen & Williams 2006, equation 2.30)."""
        white = self.factor.whiten(self.y - self.prior.mean_at(self.observed_inputs))
        n = self.y.shape[0] if self.mask is None else jnp.sum(self.mask).astype(white.dtype)
        return -0.5 * jnp.sum(white * white) - 0.5 * self.factor.log_det() - 0.5 * n * math.log(2 * math.pi)

    def leave_one_out(self) -> LeaveOneOut:
        """Predictions of each observation by all others, in closed form from the factor at hand, in O(n³).

        yᵢ | y₋ᵢ ~ N(yᵢ − αᵢ/Pᵢᵢ, 1/Pᵢᵢ) with P = A⁻¹ and α = P(y − m(X)) (Sundararajan & Keerthi 2001; Rasmussen & Williams
        2006, equation 5.12). Where nothing was added to the diagonal (no noise and no jitter) the variance is that of f.

        **Returns:** mean, variance and log density, `n` each.
        """
        return _leave_one_out(self)

    def _inputs(self, X: Any, name: str) -> Array:
        X = _checks.inputs(X, self.prior.X.shape[1], name).astype(self.prior.X.dtype)
        return check_valid(self.prior.kernel, X.reshape(-1, X.shape[-1]), name).reshape(X.shape)


def condition(
    prior: GPPrior, y: Float[Array, "n"], noise_var: Float[Array, "..."], mask: Bool[Array, "n"] | None = None
) -> ConditionedGP:
    """`GPPrior.condition` for values that have been checked, or are known exactly (a noise of zero)."""
    X = prior.X
    prior, factor = _settle(without(prior, mask).checked(), noise_var, mask)
    factor = prior.check_factor(factor, prior.X, "X")
    coefficients = _coefficients(prior, factor, y)
    prior = prior if mask is None else eqx.tree_at(lambda p: p.X, prior, X)
    finite = jnp.all(jnp.isfinite(coefficients))
    # Under jit neither could be looked at before.
    coefficients = _checks.require(finite, coefficients, "`y` and the mean at `X` must be finite; got NaN or inf.")
    return ConditionedGP(prior, y, noise_var, factor, coefficients)


def observed_rows(X: Float[Array, "n d"], mask: Bool[Array, "n"] | None) -> Float[Array, "n d"]:
    """The inputs, with the first that was observed in place of those that were not."""
    return X if mask is None else jnp.where(mask[:, None], X, X[jnp.argmax(mask)][None, :])


def without(prior: GPPrior, mask: Bool[Array, "n"] | None) -> GPPrior:
    """A prior in which inputs that were not observed have no say: not in the jitter either, nor in where the mean is
    evaluated."""
    if mask is None:
        return prior
    if prior.jitter is None:
        diagonal = prior.kernel.diagonal(observed_rows(prior.X, mask))
        shares = mask.astype(diagonal.dtype) / jnp.maximum(jnp.sum(mask), 1).astype(diagonal.dtype)
        mean = jnp.where(jnp.any(mask), jnp.sum(shares * diagonal), jnp.mean(diagonal))
        jitter = default_jitter(mean[None])
        prior = eqx.tree_at(lambda p: p.jitter, prior, jitter, is_leaf=lambda leaf: leaf is None)
    return eqx.tree_at(lambda p: p.X, prior, observed_rows(prior.X, mask))


@eqx.filter_jit
def _settle(
    prior: GPPrior, noise_var: Float[Array, "..."], mask: Bool[Array, "n"] | None
) -> tuple[GPPrior, CholeskyFactor]:
    return settle(prior, prior.X, noise_var, mask)


@eqx.filter_jit
def _coefficients(prior: GPPrior, factor: CholeskyFactor, y: Float[Array, "n"]) -> Float[Array, "n"]:
    return factor.solve(y - prior.mean_at(prior.X))


@eqx.filter_jit
def _log_prob(
    prior: GPPrior, y: Float[Array, "n"], noise_var: Float[Array, "..."], mask: Bool[Array, "n"] | None
) -> Float[Array, ""]:
    return log_density(prior, y, noise_var, mask)


def log_density(
    prior: GPPrior, y: Float[Array, "n"], noise_var: Float[Array, "..."], mask: Bool[Array, "n"] | None
) -> Float[Array, ""]:
    """`GPPrior.log_prob` of values that have been checked."""
    prior = without(prior, mask)
    residual = y - prior.mean_at(prior.X)
    covariance = prior.covariance_at(prior.X, noise_var)
    if mask is None:
        return gaussian_log_density(covariance, residual)
    # What is not observed is left as independent standard normal values, all 0.
    density = gaussian_log_density(seen(covariance, mask), jnp.where(mask, residual, jnp.zeros_like(residual)))
    return density + 0.5 * math.log(2 * math.pi) * jnp.sum(~mask).astype(density.dtype)


@eqx.filter_jit
def _leave_one_out(posterior: ConditionedGP) -> LeaveOneOut:
    found = leave_one_out(posterior.y, posterior.coefficients, posterior.factor.inverse_diagonal())
    mask = posterior.mask
    if mask is None:
        return found
    X = posterior.prior.X
    elsewhere = LeaveOneOut(_mean(posterior, X), _variance(posterior, X) + posterior.noise, jnp.zeros_like(posterior.y))
    choose = lambda here, there: jnp.where(mask, here, there)
    return jax.tree.map(choose, found, elsewhere)


def leave_one_out(
    y: Float[Array, "*n"], coefficients: Float[Array, "*n"], precision: Float[Array, "*n"]
) -> LeaveOneOut:
    """From α = P(y − m(X)) and the diagonal of P = A⁻¹."""
    error = coefficients / precision  # of the prediction
    log_density = 0.5 * (jnp.log(precision) - error * error * precision - math.log(2 * math.pi))
    return LeaveOneOut(y - error, 1 / precision, log_density)


@eqx.filter_jit
def _mean(posterior: ConditionedGP, X: Float[Array, "n d"]) -> Float[Array, "n"]:
    prior = posterior.prior

    def block(rows: Float[Array, "b d"]) -> Float[Array, "b"]:
        return inner(posterior.coefficients[None, :], prior.kernel.matrix(rows, prior.X))[0]

    return prior.mean_at(X) + map_rows(block, X, prior.X.shape[0])


@eqx.filter_jit
def _variance(posterior: ConditionedGP, X: Float[Array, "n d"]) -> Float[Array, "n"]:
    prior = posterior.prior

    def block(rows: Float[Array, "b d"]) -> Float[Array, "b"]:
        white = posterior.factor.whiten(prior.kernel.matrix(rows, prior.X))
        return prior.kernel.diagonal(rows) - jnp.sum(white * white, axis=1)

    return jnp.maximum(map_rows(block, X, prior.X.shape[0]), 0)


@eqx.filter_jit
def _covariance(posterior: ConditionedGP, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
    kernel, points = posterior.prior.kernel, posterior.prior.X
    left, right = (posterior.factor.whiten(kernel.matrix(inputs, points)) for inputs in (X, Z))
    return kernel.matrix(X, Z) - inner(left, right)


@eqx.filter_jit
def _sample_prior(
    prior: GPPrior, key: Key, n_paths: int, n_features: int, basis: AbstractBasis, share_features: bool
) -> PathwiseFunction:
    settings = {"n_paths": n_paths, "n_features": n_features, "basis": basis, "share_features": share_features}
    features, weights = draw_prior(prior.kernel, prior.X, *jax.random.split(key), **settings)
    return PathwiseFunction(
        mean=prior.mean,
        features=features,
        weights=weights,
        kernel=prior.kernel,
        inputs=prior.X[:0],
        coefficients=jnp.zeros((n_paths, 0), prior.X.dtype),
        mean_coefficients=jnp.zeros((0,), prior.X.dtype),
        noise=jnp.zeros((0,), prior.X.dtype),
        share_features=share_features,
    )
