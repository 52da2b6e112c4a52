"""Paths of an exact posterior."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks
from .._features import AbstractFeatures
from .._paths import draw_prior, evaluate_prior, PathwiseFunction
from .._priors import ConditionedGP
from .._types import Key


class PathwiseSampler(eqx.Module):
    """Draws of a posterior as functions, by Matheron's rule.

    f(·) = m(·) + φ(·)ᵀw + k(·, X)A⁻¹(y − m(X) − φ(X)ᵀw − ε), with w ~ N(0, I), ε ~ N(0, noise + jitter) and
    A = k(X, X) + noise + jitter.

    The mean of the draws is the posterior's for any number of features. Their covariance depends on the basis:

    - `share_features=True`: one set of frequencies for all paths of a call. Evaluating S paths at N points takes N × F
      cosines and two matrix products. Given the frequencies the covariance carries an error of order F^{−½} that more
      paths do not average out: at 1024 features the standard deviations are off by about 3 % (root mean square, 28 points
      in one dimension; 3 to 6 % for 200 points in four).
    - `share_features=False`: a set of frequencies for each path. Mean and covariance are unbiased for any number of
      features, at the price of S × N × F cosines. A single value is a scale mixture of normals: on those 28 points its
      excess kurtosis is about 8 at one feature and 0.4 at 32.

    (Bases with no random part have neither error.)

    **Fields:**

    - `posterior`: made by `GPPrior.condition`, which holds the factorisation.
    - `n_features`: F, a whole number of at least 1, part of the structure.
    - `share_features`: see above; part of the structure.

    **Raises:** ValueError where `n_features` is less than 1. Source: Wilson et al. (2020), equation 13; (2021), equation 12.
    """

    posterior: ConditionedGP
    n_features: int = eqx.field(static=True, default=1024, converter=lambda n: _checks.count(n, "n_features"))
    share_features: bool = eqx.field(
        static=True, default=True, kw_only=True, converter=lambda value: _checks.flag(value, "share_features")
    )

    def sample_paths(self, key: Key, n_paths: int = 1) -> PathwiseFunction:
        """Independent draws of the posterior.

        **Arguments:** `key`: a key, used up; `n_paths`: S, a whole number of at least 1.

        **Returns:** paths with one axis, of length `n_paths`.

        **Raises:** ValueError where `n_paths` is less than 1; NotImplementedError where the kernel has no features.
        """
        return _sample(self, key, _checks.count(n_paths, "n_paths"))

    def update(
        self, features: AbstractFeatures, weights: Float[Array, "s f"], noise: Float[Array, "s n"]
    ) -> PathwiseFunction:
        """The paths that given Gaussian inputs lead to: affine in `weights` and `noise`, both standard normal.

        **Arguments:** `features`: the basis (with a leading axis unless shared); `weights`: w, `s f`; `noise`: ε in units
        of its standard deviation, `s n`.

        **Returns:** paths with one axis, of length s.
        """
        posterior, prior = self.posterior, self.posterior.prior
        epsilon = jnp.sqrt(prior.diagonal_at(prior.X, posterior.noise_var))[None, :] * noise
        draw = evaluate_prior(features, weights, prior.X, share_features=self.share_features)
        residual = (posterior.y - prior.mean_at(prior.X))[None, :] - draw - epsilon
        return PathwiseFunction(
            mean=prior.mean,
            features=features,
            weights=weights,
            kernel=prior.kernel,
            inputs=prior.X,
            coefficients=posterior.factor.solve(residual),
            mean_coefficients=posterior.coefficients,
            share_features=self.share_features,
        )

    def __check_init__(self):
        if not isinstance(self.posterior, ConditionedGP):
            raise ValueError(
                "`posterior` must be what `GPPrior.condition` returns (draws of a prior: `GPPrior.sample_paths`); "
                f"got {type(self.posterior).__name__}."
            )


@eqx.filter_jit
def _sample(sampler: PathwiseSampler, key: Key, n_paths: int) -> PathwiseFunction:
    key_prior, key_noise = jax.random.split(key)
    prior = sampler.posterior.prior
    features, weights = draw_prior(
        prior.kernel,
        prior.X,
        key_prior,
        n_paths=n_paths,
        n_features=sampler.n_features,
        share_features=sampler.share_features,
    )
    noise = jax.random.normal(key_noise, (n_paths, prior.X.shape[0]), prior.X.dtype)
    return sampler.update(features, weights, noise)
