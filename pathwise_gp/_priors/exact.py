"""A Gaussian process at its training inputs, and conditioned on what was observed there."""

import math
from typing import Any, Generic, TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .. import _checks, _fields, _means
from .._features import AbstractBasis, check_basis, NoFeatures, QuasiMonteCarlo
from .._functionals import (
    AbstractFunctional,
    as_functional,
    as_inputs,
    Asked,
    check_functional,
    dim_of,
    flat_data,
    is_structured,
    Observed,
    observed,
    size_of,
)
from .._kernels import check_valid, KernelT
from .._modules import Printed
from .._numerics.linalg import CholeskyFactor
from .._paths import draw_prior, PathwiseFunction
from .._paths.observations import new_noise, noise_of_kernel
from .._scaling import Standardisation
from .._types import AnyArray, Key, Number, Numbers
from .base import AbstractPrior, check_prior, checked_functional, not_definite
from .conditioning import contradiction, solve
from .evidence import log_prob, log_prob_and_whether_lost, without
from .jitter import say, say_lost
from .leave_one_out import LeaveOneOut
from .moments import covariance_of, leave_one_out_of, mean_of, variance_of
from .prediction import Prediction
from .scales import say_scales


class GPPrior(AbstractPrior[KernelT]):
    """f ~ GP(m, k), to be observed at the training inputs X as y = f(X) + ε, ε ~ N(0, noise).

    **Fields:**

    - `kernel`: k.
    - `X`: the training inputs, `n d`; or what else is observed, n numbers that are linear in f: a functional, or a list.
    - `mean`: m, a callable that maps `n d` to `n`, or a number; zero unless given.
    - `jitter`: variance added to the diagonal of k(X, X), a scalar or one for each point, `n`, which counts as noise
      throughout. None unless given. What the factorisation needs beyond it is added by `condition`, by decades from
      10·n·eps of each point's own variance; the posterior has what was used, and a `PrecisionWarning` says where it matters.

    **Raises:** ValueError where `X` is not a finite `n d` array, the kernel does not fit it, or `jitter` is negative.
    """

    kernel: KernelT
    X: Observed = eqx.field(converter=observed("X"))
    mean: _means.AnyMean = eqx.field(converter=_means.as_mean, default_factory=_means.ZeroMean)
    jitter: Float[Array, "..."] | None = eqx.field(converter=_fields.positive, default=None)

    if TYPE_CHECKING:
        # A checker puts the fields that the abstract class names before all others; they come in the order above.

        def __init__(
            self, kernel: KernelT, X: Asked, mean: _means.Mean | Number = ..., jitter: Numbers | None = None
        ) -> None: ...

    def log_prob(
        self,
        y: Numbers,
        noise_var: Numbers,
        mask: Numbers | None = None,
    ) -> Float[Array, ""]:
        """Log marginal likelihood, log N(y | m(X), k(X, X) + noise + jitter).

        **Arguments:** (in blocks where `X` is) `y`: observations, `n`; `noise_var`: variance of the noise (the square of its
        standard deviation), a scalar or one per point, to which noise of the kernel (`White`) is added; `mask`:
        False for points that were not observed, whose `y` does not count, `n`.

        **Returns:** a scalar: −inf, with zero derivatives, where the covariance is not positive definite in the dtype of
        X, so that a sampler of hyperparameters rejects the step. It is smooth in the hyperparameters: unless a jitter is
        given, a point without noise has 10·n·eps of its own variance, and a point with noise nothing.

        **Warns:** outside jit, `PrecisionWarning` where the noise is lost in the rounding of the dtype.

        **Raises:** ValueError where a shape does not fit, or `y` is not finite or `noise_var` negative (at run time under
        jit).
        """
        y, noise_var, mask = self.check(y, noise_var, mask)
        prior = without(self, mask).checked()
        if not all(map(_checks.is_concrete, jax.tree.leaves((prior, y, noise_var, mask)))):
            return log_prob(prior, y, noise_var, mask)
        density, lost = log_prob_and_whether_lost(prior, y, noise_var, mask)
        say_lost(lost, prior.X.dtype, "X")
        return density

    def condition(
        self,
        y: Numbers,
        noise_var: Numbers,
        mask: Numbers | None = None,
        *,
        check_scales: bool = True,
    ) -> "ConditionedGP[KernelT]":
        """The posterior given y. The one factorisation is made here and serves every draw. Nothing is added to its diagonal
        unless it needs it; `posterior.jitter` is what was.

        **Arguments:** (in blocks where `X` is) `y`: observations, `n`; `noise_var`: variance of the noise (the square of its
        standard deviation), a scalar or one per point; `mask`: False for points that were not observed, whose `y` does not
        count, `n`; `check_scales`: whether it is said that data are far from what the prior expects.

        **Returns:** the posterior.

        **Raises:** ValueError (at run time under jit) where a shape does not fit, `y` is not finite, `noise_var` is negative,
        the covariance is not positive definite with any jitter up to 1e-3 of the variances, or observations without noise
        contradict each other, with the points.

        **Warns:** outside jit, `PrecisionWarning` where a jitter that was given does not suffice, where what was added is
        beyond a hundredth of the noise (a millionth of the variance where there is none), or where the noise is lost in the
        rounding of the dtype; and `ScaleWarning` where the observations lie many prior standard deviations from the prior
        mean, or no two of ten and more points are correlated.
        """
        y, noise_var, mask = self.check(y, noise_var, mask)
        check_scales = _checks.flag(check_scales, "check_scales")
        if not _checks.is_concrete(noise_var):  # else it has been looked at
            noise_var = _checks.require(jnp.all(noise_var >= 0), noise_var, "`noise_var` must not be negative.")
        return condition(self, y, noise_var, mask, check_scales)

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
        return _sample_prior(self, _checks.key(key), n_paths, n_features, check_basis(features), share_features)

    def checked(self) -> "GPPrior[KernelT]":
        """This prior, or an error where an input is outside the kernel's domain (at run time under jit)."""
        X = checked_functional(self.kernel, self.X, "X")
        return self if X is self.X else eqx.tree_at(lambda prior: prior.X, self, X)

    @property
    def functional(self) -> AbstractFunctional:
        """What is observed of f."""
        return as_functional(self.X).suited_to(self.kernel)

    def check(self, y: Any, noise_var: Any, mask: Any) -> tuple[Array, Array, Array | None]:
        """Observations, noise and mask that fit the training inputs."""
        y, noise_var, mask = flat_data(self.X, y, noise_var, mask)
        q, dtype = size_of(self.X), self.X.dtype
        y, mask = _checks.observations(y, q, mask)
        return y.astype(dtype), _checks.noise_variance(noise_var, q, or_zero=True).astype(dtype), mask

    def __check_init__(self):
        check_prior(self, self.X, "X")


class ConditionedGP(Printed, eqx.Module, Generic[KernelT]):
    """The posterior of a Gaussian process given y, made by `GPPrior.condition`.

    The factor belongs to the hyperparameters it was made with: to change or differentiate those, change the prior and
    condition again.

    **Fields:**

    - `prior`: the prior, with its training inputs X, `n d`.
    - `y`: the observations, `n`; 0 where there is none.
    - `noise_var`: variance of the noise, `()` or `n`.
    - `factor`: Cholesky factor of A = k(X, X) + noise + jitter, `n n`, and its mask: False for points without observations,
      whose rows and columns of A are those of the identity.
    - `coefficients`: A⁻¹(y − m(X)), `n`; 0 where nothing was observed.
    - `jitter`: what was added to the diagonal of A beside the noise, a variance for each point, `n`: what was asked for and
      what the factorisation needed beyond that. It is in ε too.
    """

    prior: GPPrior[KernelT]
    y: Float[Array, "n"]
    noise_var: Float[Array, "..."]
    factor: CholeskyFactor
    coefficients: Float[Array, "n"]
    jitter: Float[Array, "n"]

    @property
    def mask(self) -> Bool[Array, "n"] | None:
        """False for points that were not observed; None where all were."""
        return self.factor.mask

    @property
    def observed(self) -> AbstractFunctional:
        """What was observed of f, with the first input that was in place of those that were not: they may be anywhere."""
        functional = self.prior.functional
        return functional if self.mask is None else functional.where(self.mask)

    @property
    def noise(self) -> Float[Array, "n"]:
        """All that was added to the diagonal of k(X, X), `n`: the variances of ε."""
        return self.prior.noise_at(self.observed, self.noise_var) + self.jitter

    def mean(self, X: Asked) -> Float[Array, "*n"]:
        """Posterior mean, m(x) + k(x, X)A⁻¹(y − m(X)) (Rasmussen & Williams 2006, equation 2.38).

        **Arguments:** `X`: inputs, `*n d`, or a functional. **Returns:** `*n`, or `q`. **Raises:** ValueError where d is not.
        """
        if is_structured(X):
            return self._asked(X, "X")[0](self.mean_path)
        X = self._inputs(X, "X")
        return mean_of(self, X.reshape(-1, X.shape[-1])).reshape(X.shape[:-1])

    @property
    def mean_path(self) -> PathwiseFunction:
        """The posterior mean as one path, a pytree: what `mean` gives, and what a functional is applied to."""
        return PathwiseFunction(
            prior_mean=self.prior.mean,
            features=NoFeatures(),
            weights=jnp.zeros((0,), self.y.dtype),
            kernel=self.prior.kernel,
            inputs=as_inputs(self.observed),
            coefficients=self.coefficients,
            mean_coefficients=self.coefficients,
            noise=self.noise_of_paths,
            noise_var=self.new_noise_var,
        )

    @property
    def noise_of_paths(self) -> Float[Array, "n"]:
        """`noise`, and inf for what was not observed."""
        return self.noise if self.mask is None else jnp.where(self.mask, self.noise, jnp.inf)

    def variance(self, X: Asked) -> Float[Array, "*n"]:
        """Posterior variance of f(x), without noise: k(x, x) − k(x, X)A⁻¹k(X, x), at least 0 under rounding.

        **Arguments:** `X`: inputs, `*n d`, or a functional. **Returns:** `*n`, or `q`. **Raises:** ValueError where d is not.

        **Warns:** outside jit, `PrecisionWarning` where the difference is rounding and there is noise, or in low precision.
        """
        L, shape = self._asked(X, "X")
        variance, rounding = variance_of(self, L)
        say_lost(rounding, L.dtype, "X")
        return variance.reshape(shape)

    @property
    def new_noise_var(self) -> Float[Array, ""] | None:
        """The variance of the noise of a new observation, beside that of the kernel: that of the observations, with the
        jitter that was given; None where one of them was given for each point."""
        jitter = jnp.zeros((), self.prior.X.dtype) if self.prior.jitter is None else self.prior.jitter
        one = self.noise_var.ndim == jitter.ndim == 0
        return self.noise_var + jitter.astype(self.noise_var.dtype) if one else None

    def predict(self, X: Float[AnyArray, "*n d"], noise_var: Any = None) -> Prediction:
        """Mean and variance of new observations y* = f(x) + ε: those of f, with the noise; draws are `paths.observe`.

        **Arguments:** `X`: inputs, `*n d`; `noise_var`: variance of the noise of the new observations, a scalar or `*n`;
        unless given `new_noise_var`, that of the observations. Noise of the kernel (`White`) comes on top.

        **Returns:** mean and variance, `*n` each. **Raises:** ValueError where the last axis of `X` is not d, or `noise_var`
        is not known, negative or of another shape. **Warns:** as `variance`.
        """
        X = self._inputs(X, "X")
        noise_var = new_noise(noise_var, self.new_noise_var, X.shape[:-1], X.dtype)
        return Prediction(self.mean(X), self.variance(X) + noise_var + noise_of_kernel(self.prior.kernel, X))

    def covariance(self, X: Asked, Z: Asked | None = None) -> Float[Array, "..."]:
        """Posterior covariance of f(x) and f(z): k(x, z) − k(x, X)A⁻¹k(X, z).

        **Arguments:** `X`: inputs, `*n d`, or a functional; `Z`: the same, `*m d`; `X` unless given.

        **Returns:** `*n *m`. **Raises:** ValueError where a last axis is not d.
        """
        left, rows = self._asked(X, "X")
        right, columns = (None, rows) if Z is None else self._asked(Z, "Z")
        return covariance_of(self, left, right).reshape(*rows, *columns)

    def log_marginal_likelihood(self) -> Float[Array, ""]:
        """log N(y | m(X), A), a scalar, from the factor at hand (Rasmussen & Williams 2006, equation 2.30)."""
        white = self.factor.whiten(self.y - self.prior.mean_at(self.observed))
        n = self.y.shape[0] if self.mask is None else jnp.sum(self.mask).astype(white.dtype)
        return -0.5 * jnp.sum(white * white) - 0.5 * self.factor.log_det() - 0.5 * n * math.log(2 * math.pi)

    def leave_one_out(self, block: int | None = None) -> LeaveOneOut:
        """Predictions of each observation by all others, in closed form from the factor at hand, in O(n³).

        yᵢ | y₋ᵢ ~ N(yᵢ − αᵢ/Pᵢᵢ, 1/Pᵢᵢ) with P = A⁻¹ and α = P(y − m(X)) (Sundararajan & Keerthi 2001; Rasmussen & Williams
        2006, equation 5.12). Where nothing was added to the diagonal (no noise and no jitter) the variance is that of f.

        **Arguments:** `block`: where a list of functionals was observed, the number of one of them: only its predictions.

        **Returns:** mean, variance and log density, `n` each; of a block in the shape of what it observes.

        **Raises:** ValueError where there is no such block.
        """
        found = leave_one_out_of(self)
        if block is None:
            return found
        parts = [self.prior.functional.blocks(values) for values in found]
        if not isinstance(parts[0], tuple) or not 0 <= block < len(parts[0]):
            raise ValueError(f"`block` must be the number of one of the functionals in a list of them; got {block}.")
        return LeaveOneOut(*(part[block] for part in parts))

    def rescaled(self, scaling: Standardisation) -> "ConditionedGP":
        """The posterior of standardised data in the original units: `Standardisation.original`."""
        prior, a = self.prior, scaling.value.scale.astype(self.y.dtype)
        y, lower = scaling.original_values(self.y), self.factor.lower * a
        if self.mask is not None:  # what was not observed has rows of the identity
            y = jnp.where(self.mask, y, jnp.zeros_like(y))
            lower = jnp.where(self.mask[:, None], lower, self.factor.lower)
        original = GPPrior(
            kernel=scaling.of_kernel(prior.kernel),
            X=as_inputs(prior.functional.rescaled(scaling)),
            mean=scaling.of_mean(prior.mean),
            jitter=None if prior.jitter is None else prior.jitter * a.astype(prior.jitter.dtype) ** 2,
        )
        factor, noise_var = CholeskyFactor(lower, self.mask), self.noise_var * a**2
        return ConditionedGP(original, y, noise_var, factor, self.coefficients / a, self.jitter * a**2)

    def _printed(self) -> dict[str, Any]:
        return {"prior": self.prior, "noise_var": self.noise_var}

    def _asked(self, X: Any, name: str) -> tuple[Any, tuple[int, ...]]:
        """Inputs or a functional, and the shape of the values there."""
        if is_structured(X):
            L = as_functional(observed(name)(X)).astype(self.prior.X.dtype)
            check_functional(L, self.prior.kernel, dim_of(self.prior.X))
            return checked_functional(self.prior.kernel, L.suited_to(self.prior.kernel), name), (L.size,)
        X = self._inputs(X, name)
        return X.reshape(-1, X.shape[-1]), X.shape[:-1]

    def _inputs(self, X: Any, name: str) -> Array:
        X = _checks.inputs(X, dim_of(self.prior.X), name).astype(self.prior.X.dtype)
        return check_valid(self.prior.kernel, X.reshape(-1, X.shape[-1]), name).reshape(X.shape)


def condition(
    prior: GPPrior[KernelT],
    y: Float[Array, "n"],
    noise_var: Float[Array, "..."],
    mask: Bool[Array, "n"] | None = None,
    check_scales: bool = False,
) -> ConditionedGP[KernelT]:
    """`GPPrior.condition` for values that have been checked."""
    seen_prior = without(prior, mask).checked()
    known = all(map(_checks.is_concrete, jax.tree.leaves((prior, y, noise_var, mask))))
    found = solve(seen_prior, y, noise_var, mask, check_scales and known)
    settled = found.settled
    message = "`y` and the mean at `X` must be finite; got NaN or inf."
    factor, coefficients = _checks.verdict(
        (settled.factor, found.coefficients),
        not_definite(settled, prior.functional, "X"),
        (found.infinite, message),
        (found.contradictory, contradiction(found)),
    )
    say(settled.shortfall, prior.X.dtype, "X")
    say_scales(found.scales)
    return ConditionedGP(prior, y, noise_var, factor, coefficients, settled.jitter)


def condition_latent(prior: GPPrior, f: Float[Array, "n"]) -> ConditionedGP:
    """The posterior given values f(X) that were drawn with `smooth_jitter` in them."""
    known = jnp.zeros((), prior.X.dtype)
    jitter = prior.smooth_jitter(prior.functional, known)
    prior = eqx.tree_at(lambda p: p.jitter, prior, jitter, is_leaf=lambda leaf: leaf is None)
    return condition(prior, f.astype(prior.X.dtype), known)


@eqx.filter_jit
def _sample_prior(
    prior: GPPrior, key: Key, n_paths: int, n_features: int, basis: AbstractBasis, share_features: bool
) -> PathwiseFunction:
    dtype = prior.X.dtype
    settings = {"n_paths": n_paths, "n_features": n_features, "basis": basis, "share_features": share_features}
    features, weights = draw_prior(prior.kernel, prior.functional.points, *jax.random.split(key), **settings)
    return PathwiseFunction(
        prior_mean=prior.mean,
        features=features,
        weights=weights,
        kernel=prior.kernel,
        inputs=jnp.zeros((0, dim_of(prior.X)), dtype),
        coefficients=jnp.zeros((n_paths, 0), dtype),
        mean_coefficients=jnp.zeros((0,), dtype),
        noise=jnp.zeros((0,), dtype),
        share_features=share_features,
    )
