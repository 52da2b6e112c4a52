"""Paths of a sparse posterior."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .. import _checks, _fields
from .._features import AbstractBasis, AbstractFeatures, check_basis, QuasiMonteCarlo
from .._functionals import as_inputs
from .._guides import AbstractGuide
from .._modules import Printed
from .._paths import draw_prior, evaluate_prior, PathwiseFunction
from .._priors import SparseGPPrior
from .._solvers.jitter import drowns_guide, say_beside_guide, Settled
from .._types import Key, Keys
from .sparse_posterior import posterior_of_guide, SparsePosterior


class DecoupledPathwiseSampler(Printed, eqx.Module):
    """Draws of a sparse posterior as functions: Matheron's rule on the inducing values.

    f(·) = m(·) + φ(·)ᵀw + k(·, Z)A⁻¹(u − m(Z) − φ(Z)ᵀw − ε), with u ~ q(u), w ~ N(0, I), ε ~ N(0, jitter) and
    A = k(Z, Z) + jitter. The cost of a value is O(F + m), whatever the number of training points.

    **Fields:**

    - `prior`: with inducing points Z, `m d`.
    - `guide`: q(u), over m values.
    - `n_features`: F, a whole number of at least 1, part of the structure.
    - `features`: the rule for kernels without an exact basis, as in `PathwiseSampler`.
    - `share_features`: as in `PathwiseSampler`, with the same bias and cost; part of the structure.

    **Raises:** ValueError where `n_features` is less than 1 or the guide does not fit the prior. Source: Wilson et al.
    (2020), equation 13.
    """

    prior: SparseGPPrior
    guide: AbstractGuide
    n_features: int = eqx.field(static=True, default=512, converter=_fields.count("n_features"))
    features: AbstractBasis = eqx.field(kw_only=True, converter=check_basis, default=QuasiMonteCarlo())
    share_features: bool = eqx.field(static=True, default=True, kw_only=True, converter=_fields.flag("share_features"))

    def sample_paths(self, key: Key, n_paths: int = 1) -> PathwiseFunction:
        """Independent draws of the sparse posterior.

        **Arguments:** `key`: a key, used up; `n_paths`: S, a whole number of at least 1.

        **Returns:** paths with one axis, of length `n_paths`.

        **Raises:** ValueError where `n_paths` is less than 1 or k(Z, Z) with the jitter is not positive definite;
        NotImplementedError where the kernel has no features.

        **Warns:** outside jit, `PrecisionWarning` where the jitter that was needed is large beside the guide's variance.
        """
        key, n_paths = _checks.key(key), _checks.count(n_paths, "n_paths")
        paths, drowned = _sample(self, self.prior.settled(), key, n_paths)
        say_beside_guide(drowned, self.prior.Z.dtype)
        return paths

    def posterior(self) -> SparsePosterior:
        """The process that the paths are draws of, to be given more: `posterior.condition(X_new, y_new, noise_var)`,
        through which the paths go on by `paths.condition`.

        **Returns:** the posterior. **Raises:** as `sample_paths`.
        """
        return posterior_of_guide(self.prior, self.guide, self.prior.settled().factor)

    def update(
        self,
        settled: Settled,
        features: AbstractFeatures,
        weights: Float[Array, "s f"],
        values: Float[Array, "s m"],
        noise: Float[Array, "s m"],
    ) -> PathwiseFunction:
        """The paths that given Gaussian inputs lead to: affine in all three; `weights` and `noise` are standard normal.

        **Arguments:** `settled`: `prior.settled()`, the factor of k(Z, Z) + jitter, and that; `features`: the basis (with
        a leading axis unless shared); `weights`: w, `s f`; `values`: u, `s m`, from `guide.transform`; `noise`: ε in units of
        its standard deviation, `s m`.

        **Returns:** paths with one axis, of length s.
        """
        prior, L = self.prior, self.prior.functional
        factor = settled.factor
        epsilon = jnp.sqrt(settled.jitter)[None, :] * noise
        draw = evaluate_prior(features, weights, L, share_features=self.share_features)
        mean = prior.mean_at(L)
        guide_mean, spread = self.guide.moments(prior)
        return PathwiseFunction(
            prior_mean=prior.mean,
            features=features,
            weights=weights,
            kernel=prior.kernel,
            inputs=as_inputs(L),
            coefficients=factor.solve(values - mean[None, :] - draw - epsilon),
            mean_coefficients=factor.solve(guide_mean - mean),
            noise=settled.jitter,
            spread=spread,
            share_features=self.share_features,
        )

    def __check_init__(self):
        if not isinstance(self.prior, SparseGPPrior):
            raise ValueError(f"`prior` must be a SparseGPPrior; got {type(self.prior).__name__}.")
        if not isinstance(self.guide, AbstractGuide):
            raise ValueError(f"`guide` must be a guide over inducing values; got {type(self.guide).__name__}.")
        self.guide.check(self.prior)


@eqx.filter_jit
def _sample(
    sampler: DecoupledPathwiseSampler, settled: Settled, key: Key, n_paths: int
) -> tuple[PathwiseFunction, Bool[Array, ""]]:
    keys = jax.random.split(key, 4)
    values = sampler.guide.sample(keys[2], sampler.prior, (n_paths,))
    paths = through(sampler, settled, keys[np.array([0, 1, 3])], values)
    return paths, drowns_guide(settled.added, sampler.guide.moments(sampler.prior)[1])


def through(
    sampler: DecoupledPathwiseSampler, settled: Settled, keys: Keys, values: Float[Array, "s m"]
) -> PathwiseFunction:
    """One path through each row of inducing values, given keys of the features, their weights and the noise."""
    prior = sampler.prior
    features, weights, noise = draw_prior(
        prior.kernel,
        prior.functional.points,
        keys,
        n_paths=values.shape[0],
        n_noise=values.shape[1],
        n_features=sampler.n_features,
        basis=sampler.features,
        share_features=sampler.share_features,
    )
    return sampler.update(settled, features, weights, values, noise)
