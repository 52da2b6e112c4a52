"""Paths of a posterior of several outputs."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks, _fields
from .._features import AbstractBasis, AbstractFeatures, check_basis, QuasiMonteCarlo
from .._modules import Printed
from .._numerics.linalg import inner
from .._paths import draw_prior, MultiOutputPaths
from .._priors import ConditionedMultiOutputGP, MultiOutputGPPrior
from .._types import Key


class MultiOutputPathwiseSampler(Printed, eqx.Module):
    """Draws of several outputs as functions, by Matheron's rule with the Kronecker structure of their covariance.

    f(·) = m(·) + φ(·)ᵀ w Rᵀ + k(·, X) α B with B = R Rᵀ, α = A⁻¹(y − m(X) − φ(X)ᵀ w Rᵀ − ε), w and ε normal as in
    `PathwiseSampler`. All outputs use one basis of the kernel of the inputs, with `n_features` features.

    **Fields:**

    - `posterior`: made by `MultiOutputGPPrior.condition`, with p outputs.
    - `n_features`: F, a whole number of at least 1, part of the structure.
    - `features`: the rule for kernels without an exact basis, as in `PathwiseSampler`.

    **Raises:** ValueError where a field does not fit. Source: Wilson et al. (2021), equation 12.
    """

    posterior: ConditionedMultiOutputGP
    n_features: int = eqx.field(static=True, default=1024, converter=_fields.count("n_features"))
    features: AbstractBasis = eqx.field(kw_only=True, converter=check_basis, default=QuasiMonteCarlo())

    def sample_paths(self, key: Key, n_paths: int = 1) -> MultiOutputPaths:
        """Independent draws of the posterior.

        **Arguments:** `key`: a key, used up; `n_paths`: S, a whole number of at least 1.

        **Returns:** paths with one axis, of length `n_paths`; at inputs `*n d` they give `S *n p`.

        **Raises:** ValueError where `n_paths` is less than 1; NotImplementedError where the kernel has no features.
        """
        return _sample(self, _checks.key(key), _checks.count(n_paths, "n_paths"))

    def update(
        self, features: AbstractFeatures, weights: Float[Array, "s c f"], noise: Float[Array, "s n p"]
    ) -> MultiOutputPaths:
        """The paths that given Gaussian inputs lead to: affine in `weights` and `noise`, both standard normal.

        **Arguments:** `features`: the basis; `weights`: w, `s c f` with c the columns of the root R of B; `noise`: ε in
        units of its standard deviation, `s n p`.

        **Returns:** paths with one axis, of length s.
        """
        posterior, prior = self.posterior, self.posterior.prior
        root = prior.kernel.index().root().astype(prior.X.dtype)
        s, n, p = noise.shape
        by_output = jnp.einsum("pc,scf->spf", root, weights, precision=jax.lax.Precision.HIGHEST)
        draw = inner(by_output.reshape(s * p, -1), features(prior.X)).reshape(s, p, n).swapaxes(1, 2)
        epsilon = jnp.sqrt(posterior.factor.noise)[None, None, :] * noise
        residual = (posterior.y - prior.mean_at(prior.X))[None, :, :] - draw - epsilon
        loaded = lambda alpha: inner(alpha.reshape(-1, p), prior.B).reshape(alpha.shape).swapaxes(-1, -2)
        return MultiOutputPaths(
            prior_mean=_OutputMean(prior),
            features=features,
            weights=by_output,
            kernel=posterior.kernel,
            inputs=prior.X,
            coefficients=loaded(posterior.factor.solve(residual)),
            mean_coefficients=loaded(posterior.coefficients),
            root=root,
            noise=posterior.factor.noise,
        )

    def __check_init__(self):
        posterior: Any = self.posterior
        if not isinstance(posterior, ConditionedMultiOutputGP):
            raise ValueError(
                f"`posterior` must be what `MultiOutputGPPrior.condition` returns; got {type(posterior).__name__}."
            )


class _OutputMean(eqx.Module):
    """The mean of a prior as a callable."""

    prior: MultiOutputGPPrior

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n p"]:
        return self.prior.mean_at(X)


@eqx.filter_jit
def _sample(sampler: MultiOutputPathwiseSampler, key: Key, n_paths: int) -> MultiOutputPaths:
    key_features, key_weights, key_noise = jax.random.split(key, 3)
    posterior, prior = sampler.posterior, sampler.posterior.prior
    c, p = sum(prior.kernel.W.shape), prior.n_outputs
    features, weights = draw_prior(
        posterior.kernel,
        prior.X,
        key_features,
        key_weights,
        n_paths=n_paths * c,
        n_features=sampler.n_features,
        basis=sampler.features,
        share_features=True,
    )
    noise = jax.random.normal(key_noise, (n_paths, prior.X.shape[0], p), prior.X.dtype)
    return sampler.update(features, weights.reshape(n_paths, c, -1), noise)
