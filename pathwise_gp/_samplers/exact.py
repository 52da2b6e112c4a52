"""Paths of an exact posterior."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks
from .._features import AbstractBasis, AbstractFeatures, check_basis, QuasiMonteCarlo
from .._functionals import AbstractFunctional, as_inputs
from .._kernels import AbstractKernel
from .._modules import Printed
from .._paths import draw_prior, evaluate_prior, PathwiseFunction
from .._priors import AbstractOthers, ConditionedGP
from .._types import Key, Number
from .error import enough_features

_DEFAULT_FEATURES = 1024


class PathwiseSampler(Printed, eqx.Module):
    """Draws of a posterior as functions, by Matheron's rule.

    f(·) = m(·) + φ(·)ᵀw + k(·, X)A⁻¹(y − m(X) − φ(X)ᵀw − ε), with w ~ N(0, I), ε ~ N(0, noise + jitter) and
    A = k(X, X) + noise + jitter.

    The mean of the draws is the posterior's for any number of features. Their covariance depends on the basis:

    - `share_features=True`: one basis for all paths of a call. Evaluating S paths at N points takes N × F cosines and two
      matrix products. Given the basis the covariance carries an error that more paths do not average out. `feature_error`
      says how large it is, and `tolerance` chooses the number of features by it.
    - `share_features=False`: a basis for each path. Mean and covariance are unbiased for any number of features, at the
      price of S × N × F cosines. A single value is a scale mixture of normals.

    (Bases with no random part have neither error.)

    **Fields:**

    - `posterior`: made by `GPPrior.condition`, which holds the factorisation.
    - `n_features`: F, a whole number of at least 1, part of the structure; 1024 unless given or found from a `tolerance`.
    - `features`: the rule for kernels without an exact basis: `QuasiMonteCarlo()`, which is the default, `Orthogonal()`,
      `MonteCarlo()`, or `HilbertSpace()` in few dimensions.
    - `share_features`: see above; part of the structure.

    **Arguments:** the fields, and `tolerance`: the `feature_error`, over the region of the training inputs, that is to be
    reached with the fewest features, a power of two: the root mean square of the relative errors of the variances of values,
    of differences between neighbours, and of other combinations of few values. Standard deviations are off by half of it.

    **Raises:** ValueError where `n_features` is less than 1, both it and `tolerance` are given, or `tolerance` is not
    between 0 and 1, cannot be reached with 32768 features, or is given under jit. Source: Wilson et al. (2020), equation
    13; (2021), equation 12.
    """

    posterior: ConditionedGP
    n_features: int = eqx.field(static=True)
    features: AbstractBasis
    share_features: bool = eqx.field(static=True)

    def __init__(
        self,
        posterior: ConditionedGP,
        n_features: int | None = None,
        *,
        tolerance: Number | None = None,
        features: AbstractBasis = QuasiMonteCarlo(),
        share_features: bool = True,
    ):
        self.posterior = _as_posterior(posterior)
        self.features = check_basis(features)
        self.share_features = _checks.flag(share_features, "share_features")
        if tolerance is not None:
            if n_features is not None:
                raise ValueError("Give `n_features` or `tolerance`, not both.")
            self.n_features = enough_features(posterior, tolerance, features)
        else:
            self.n_features = _checks.count(_DEFAULT_FEATURES if n_features is None else n_features, "n_features")

    def sample_paths(self, key: Key, n_paths: int = 1) -> PathwiseFunction:
        """Independent draws of the posterior.

        **Arguments:** `key`: a key, used up; `n_paths`: S, a whole number of at least 1.

        **Returns:** paths with one axis, of length `n_paths`.

        **Raises:** ValueError where `n_paths` is less than 1; NotImplementedError where the kernel has no features.
        """
        return _sample(self, _checks.key(key), _checks.count(n_paths, "n_paths"))

    def update(
        self, features: AbstractFeatures, weights: Float[Array, "s f"], noise: Float[Array, "s n"]
    ) -> PathwiseFunction:
        """The paths that given Gaussian inputs lead to: affine in `weights` and `noise`, both standard normal.

        **Arguments:** `features`: the basis (with a leading axis unless shared); `weights`: w, `s f`; `noise`: ε in units
        of its standard deviation, `s n`.

        **Returns:** paths with one axis, of length s.
        """
        posterior, L = self.posterior, self.posterior.observed
        right_sides = RightSides(features, weights, noise, self.share_features)
        residuals = right_sides(L, posterior.y - posterior.prior.mean_at(L), posterior.noise)
        return self.with_coefficients(features, weights, posterior.solution.solve(residuals))

    def with_coefficients(
        self, features: AbstractFeatures, weights: Float[Array, "s f"], coefficients: Float[Array, "s n"]
    ) -> PathwiseFunction:
        """The paths with given weights and solutions of the system."""
        posterior, prior = self.posterior, self.posterior.prior
        return PathwiseFunction(
            prior_mean=prior.mean,
            features=features,
            weights=weights,
            kernel=prior.kernel,
            inputs=as_inputs(posterior.observed),
            coefficients=coefficients,
            mean_coefficients=posterior.coefficients,
            noise=posterior.noise_of_paths,
            noise_var=posterior.new_noise_var,
            share_features=self.share_features,
        )


class RightSides(AbstractOthers):
    """y − m − Lφᵀw − ε, what the system is solved for by Matheron's rule.

    **Fields:** `features`; `weights`: `s f`; `noise`: ε in units of its standard deviation, `s n`; `share_features`.
    """

    features: AbstractFeatures
    weights: Float[Array, "s f"]
    noise: Float[Array, "s n"]
    share_features: bool = eqx.field(static=True)

    def __call__(
        self, L: AbstractFunctional, residual: Float[Array, "n"], noise: Float[Array, "n"]
    ) -> Float[Array, "s n"]:
        epsilon = jnp.sqrt(noise)[None, :] * self.noise
        draw = evaluate_prior(self.features, self.weights, L, share_features=self.share_features)
        return residual[None, :] - draw - epsilon


def _as_posterior(posterior: Any) -> ConditionedGP:
    if not isinstance(posterior, ConditionedGP):
        raise ValueError(
            "`posterior` must be what `GPPrior.condition` returns (draws of a prior: `GPPrior.sample_paths`); "
            f"got {type(posterior).__name__}."
        )
    if posterior.y.ndim > 1:
        raise ValueError(
            "`posterior` has fantasies: draw from the posterior before, and take its paths along by `paths.condition`."
        )
    return posterior


@eqx.filter_jit
def _sample(sampler: PathwiseSampler, key: Key, n_paths: int) -> PathwiseFunction:
    posterior = sampler.posterior
    settings = {"n_features": sampler.n_features, "basis": sampler.features, "share_features": sampler.share_features}
    drawn = draw_right_sides(posterior.prior.kernel, posterior.observed, key, n_paths=n_paths, **settings)
    return sampler.update(drawn.features, drawn.weights, drawn.noise)


def draw_right_sides(
    kernel: AbstractKernel,
    L: AbstractFunctional,
    key: Key,
    *,
    n_paths: int,
    n_features: int,
    basis: AbstractBasis,
    share_features: bool,
) -> RightSides:
    """What is random in paths."""
    features, weights, noise = draw_prior(
        kernel,
        L.points,
        jax.random.split(key, 3),
        n_paths=n_paths,
        n_noise=L.size,
        n_features=n_features,
        basis=basis,
        share_features=share_features,
    )
    return RightSides(features, weights, noise, share_features)
