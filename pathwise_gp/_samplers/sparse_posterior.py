"""What is known of a function through inducing values, and through what was observed since."""

import dataclasses
import math
from typing import Any, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .. import _checks
from .._features import NoFeatures
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
)
from .._guides import AbstractGuide
from .._kernels import AbstractKernel, check_valid
from .._means import AnyMean
from .._modules import Printed, shown
from .._numerics.linalg import CholeskyFactor, inner
from .._paths import PathwiseFunction
from .._priors import SparseGPPrior
from .._priors.base import checked_functional, not_definite
from .._priors.continuing import differ, OTHER
from .._solvers.jitter import say, settle, Settled
from .._types import Key, Numbers


class SparsePosterior(Printed, eqx.Module):
    """The process of a guide over inducing values, as the prior of what is observed after it: made by
    `DecoupledPathwiseSampler.posterior`.

    Its covariance is k(x, x′) − k(x, L) R k(L, x′), with R = A⁻¹ − A⁻¹SA⁻¹ for inducing values of covariance S under the
    guide and A = k(Z, Z) + jitter. Given y′ at X′ it is again of this form, with L and X′ in place of L: conditioning is
    exact for the process of the guide. It is not what a guide fitted to all data would be, and the inducing points stay
    where they are.

    **Fields:** `kernel`; `prior_mean`; `inputs`: L, the inducing points and what was observed since, n values;
    `reduction`: R, `n n`; `coefficients`: of the mean, m(x) + k(x, L)α, `n`; `y`, `noise`: what was observed and all that
    is added to its variance, `n`, 0 for inducing values; `new_noise_var`: the last variance of the noise that was given
    as one number, None before there was one.

    Source: Titsias (2009), equation 6, for the process; Wilson et al. (2021), section 3, for its paths.
    """

    kernel: AbstractKernel
    prior_mean: AnyMean
    inputs: Observed
    reduction: Float[Array, "n n"]
    coefficients: Float[Array, "n"]
    y: Float[Array, "n"]
    noise: Float[Array, "n"]
    new_noise_var: Float[Array, ""] | None = None

    def mean(self, X: Asked) -> Float[Array, "..."]:
        """Mean of f. **Arguments:** `X`: inputs, `*n d`, or a functional. **Returns:** `*n`, or `q`. **Raises:** ValueError
        where the last axis of `X` is not d."""
        L, shape = self._asked(X)
        return L(self.mean_path).reshape(shape)

    def variance(self, X: Asked) -> Float[Array, "..."]:
        """Variance of f, at least 0 under rounding. **Arguments, returns, raises:** as `mean`."""
        L, shape = self._asked(X)
        return _variance(self, L).reshape(shape)

    def covariance(self, X: Asked, Z: Asked | None = None) -> Float[Array, "..."]:
        """Covariance of f(x) and f(z). **Arguments:** `X`, `Z`: inputs, `*n d` and `*m d`, or functionals; `X` unless given.
        **Returns:** `*n *m`. **Raises:** as `mean`."""
        left, rows = self._asked(X)
        right, columns = (left, rows) if Z is None else self._asked(Z)
        return _covariance(self, left, right).reshape(*rows, *columns)

    @property
    def mean_path(self) -> PathwiseFunction:
        """The mean as one path."""
        return PathwiseFunction(
            prior_mean=self.prior_mean,
            features=NoFeatures(),
            weights=jnp.zeros((0,), self.coefficients.dtype),
            kernel=self.kernel,
            inputs=self.inputs,
            coefficients=self.coefficients,
            mean_coefficients=self.coefficients,
            noise=None,
            noise_var=self.new_noise_var,
        )

    def condition(self, X_new: Asked, y_new: Numbers, noise_var: Numbers) -> "SparsePosterior":
        """The process given more, in O(n² m); `paths.condition` takes paths along.

        **Arguments:** `X_new`: points, `m d`, or a functional, or a list of these; `y_new`: what was observed there, `m`;
        `noise_var`: its variance, a scalar or `m`.

        **Returns:** the posterior. **Raises:** ValueError as `ConditionedGP.condition`. **Warns:** as that.
        """
        if not is_structured(X_new):
            X_new = _checks.points(_checks.inputs(X_new, dim_of(self.inputs), "X_new"), "X_new")
        L, _ = self._asked(X_new)
        y, noise_var, _ = flat_data(as_inputs(L), y_new, noise_var, None)
        y, _ = _checks.observations(y, L.size, None, _checks.LEAVE_OUT, "y_new", "X_new")
        noise_var = _checks.noise_variance(noise_var, L.size, or_zero=True, like="X_new").astype(L.dtype)
        found, settled, infinite = _condition(self, L, y.astype(L.dtype), noise_var)
        message = "`y_new` and the mean at `X_new` must be finite; got NaN or inf."
        found = _checks.verdict(found, not_definite(settled, L, "X_new"), (infinite, message))
        say(settled.shortfall, L.dtype, "X_new")
        return found

    def continued(self, paths: Any, key: Key, n_new: int | None = None) -> PathwiseFunction:
        """Paths through what was observed since they were drawn: `paths.condition`."""
        n, old = self.coefficients.shape[0], getattr(paths, "coefficients", self.coefficients).shape[-1]
        if not isinstance(paths, PathwiseFunction) or isinstance(paths.features, NoFeatures) or old > n:
            raise ValueError(OTHER)
        if n_new is not None and _checks.count(n_new, "n_new") != n - old:
            raise ValueError(f"`n_new` must be {n - old}, the number of observations that are new; got {n_new}.")
        found, other = _continue(self, paths, _checks.key(key))
        return _checks.verdict(found, (other, OTHER))

    def continued_without(self, paths: Any, numbers: Any) -> NoReturn:
        """Nothing can be taken from a guide: an error."""
        raise ValueError(
            "`without` is of paths that are conditioned on observations; those of a guide are not held one by one."
        )

    def left_out_of(self, paths: Any) -> NoReturn:
        """Nothing can be taken from a guide: an error."""
        raise ValueError("`leave_one_out` is of observations; those of a guide are not held one by one.")

    def _asked(self, X: Any) -> tuple[AbstractFunctional, tuple[int, ...]]:
        """Inputs or a functional, and the shape of the values there."""
        dim, dtype = dim_of(self.inputs), self.coefficients.dtype
        if is_structured(X):
            L = as_functional(observed("X")(X)).astype(dtype)
            check_functional(L, self.kernel, dim)
            return checked_functional(self.kernel, L.suited_to(self.kernel), "X"), (L.size,)
        X = _checks.inputs(X, dim).astype(dtype)
        return as_functional(check_valid(self.kernel, X.reshape(-1, dim), "X")), X.shape[:-1]

    def _printed(self) -> dict[str, Any]:
        return {"kernel": self.kernel, "inputs": shown(self.inputs), "prior_mean": self.prior_mean}


@eqx.filter_jit
def posterior_of_guide(prior: SparseGPPrior, guide: AbstractGuide, factor: CholeskyFactor) -> SparsePosterior:
    mean, spread = guide.moments(prior)
    white = factor.whiten(spread.T)  # (L⁻¹T)ᵀ
    unit = jnp.eye(mean.shape[0], dtype=mean.dtype)
    left = factor.whiten_back(factor.whiten(unit))  # A⁻¹
    back = factor.whiten_back(white)  # (A⁻¹T)ᵀ
    none = jnp.zeros_like(mean)
    return SparsePosterior(
        kernel=prior.kernel,
        prior_mean=prior.mean,
        inputs=as_inputs(prior.functional),
        reduction=left - inner(back.T, back.T),
        coefficients=factor.solve(mean - prior.mean_at(prior.functional)),
        y=none,
        noise=none,
    )


@eqx.filter_jit
def _variance(posterior: SparsePosterior, L: AbstractFunctional) -> Float[Array, "q"]:
    seen = _functional(posterior)

    def block(part: AbstractFunctional) -> Float[Array, "b"]:
        k = part.cross(posterior.kernel, seen)
        return part.diagonal(posterior.kernel) - jnp.sum(inner(k, posterior.reduction) * k, axis=1)

    return jnp.maximum(L.in_parts(block, seen.width), 0)


@eqx.filter_jit
def _covariance(posterior: SparsePosterior, left: AbstractFunctional, right: AbstractFunctional) -> Float[Array, "q r"]:
    kernel, seen = posterior.kernel, _functional(posterior)
    reduced = inner(left.cross(kernel, seen), posterior.reduction)
    return left.cross(kernel, right) - inner(reduced, right.cross(kernel, seen))


def _functional(posterior: SparsePosterior) -> AbstractFunctional:
    return as_functional(posterior.inputs).suited_to(posterior.kernel)


@eqx.filter_jit
def _condition(
    posterior: SparsePosterior, L: AbstractFunctional, y: Float[Array, "m"], noise_var: Float[Array, "..."]
) -> tuple[SparsePosterior, Settled, Bool[Array, ""]]:
    kernel, seen, m = posterior.kernel, _functional(posterior), L.size
    k = L.cross(kernel, seen)
    reduced = inner(k, posterior.reduction)  # k(X′, L)R
    noise = jnp.broadcast_to(noise_var, (m,)) + L.noise(kernel)
    settled = settle(L.gram(kernel), noise, explained=inner(reduced, k), others=seen.size)
    residual = y - L.of_mean(posterior.prior_mean) - inner(k, posterior.coefficients[None, :])[:, 0]
    # What is new has the covariance k(·, [L, X′])g with what there was, g = [−R k(L, X′); I].
    g = jnp.concatenate([-reduced, jnp.eye(m, dtype=k.dtype)], axis=1)
    white = settled.factor.whiten(g.T).T
    n = seen.size
    before = jnp.zeros((n + m, n + m), k.dtype).at[:n, :n].set(posterior.reduction)
    zeros = jnp.zeros((m,), k.dtype)
    coefficients = jnp.concatenate([posterior.coefficients, zeros])
    found = SparsePosterior(
        kernel=kernel,
        prior_mean=posterior.prior_mean,
        inputs=as_inputs(as_functional(posterior.inputs).then(L)),
        reduction=before + inner(white.T, white.T),
        coefficients=coefficients + inner(settled.factor.solve(residual)[None, :], g.T)[0],
        y=jnp.concatenate([posterior.y, y]),
        noise=jnp.concatenate([posterior.noise, noise + settled.jitter]),
        new_noise_var=noise_var if noise_var.ndim == 0 else None,
    )
    return found, settled, ~jnp.all(jnp.isfinite(found.coefficients))


@eqx.filter_jit
def _continue(
    posterior: SparsePosterior, paths: PathwiseFunction, key: Key
) -> tuple[PathwiseFunction, Bool[Array, ""]]:
    n, old = posterior.coefficients.shape[0], paths.coefficients.shape[-1]
    m, s = n - old, math.prod(paths.shape)
    L = _functional(posterior)
    coefficients = jnp.concatenate(
        [paths.coefficients, jnp.zeros((*paths.shape, m), paths.coefficients.dtype)], axis=-1
    )
    if m:
        # The columns of R of what is new are g S⁻¹, as those of A⁻¹ are for observations.
        epsilon = jnp.sqrt(posterior.noise[old:])[None, :] * jax.random.normal(key, (s, m), posterior.noise.dtype)
        here = L.take(tuple(range(old, n))).apply(paths).reshape(s, m)
        surprise = posterior.y[old:][None, :] - here - epsilon
        coefficients = coefficients + inner(surprise, posterior.reduction[:, old:]).reshape(coefficients.shape)
    made = dataclasses.replace(
        paths,
        inputs=posterior.inputs,
        coefficients=coefficients,
        mean_coefficients=posterior.coefficients,
        noise=None,
        spread=None,
        noise_var=posterior.new_noise_var,
    )
    other = differ(posterior.kernel, posterior.prior_mean, L, paths, jnp.arange(n) < old)
    return made, other
