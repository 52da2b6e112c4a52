"""A Gaussian process conditioned on what was observed."""

import dataclasses
from typing import Any, Generic, TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .. import _checks
from .._features import NoFeatures
from .._functionals import (
    AbstractFunctional,
    as_functional,
    as_inputs,
    Asked,
    check_functional,
    dim_of,
    is_structured,
    observed,
)
from .._kernels import check_valid, KernelT
from .._modules import Printed, shown
from .._numerics.linalg import CholeskyFactor
from .._numerics.solution import AbstractSolution, Estimate
from .._paths import PathwiseFunction
from .._paths.observations import new_noise, noise_of_kernel
from .._scaling import Standardisation
from .._solvers import AbstractSolver
from .._solvers.jitter import say_lost
from .._types import AnyArray, Key, Numbers
from .anew import solved_anew, solved_without, under
from .appending import append, as_new_data, trimmed, with_room
from .base import checked_functional
from .continuing import continued, continued_without, left_out, new_to
from .leave_one_out import LeaveOneOut
from .moments import (
    covariance_of,
    estimated_evidence_of,
    leave_one_out_of,
    log_marginal_likelihood_of,
    mean_of,
    variance_of,
)
from .prediction import Prediction
from .removing import remove

if TYPE_CHECKING:
    from .exact import GPPrior


class ConditionedGP(Printed, eqx.Module, Generic[KernelT]):
    """The posterior of a Gaussian process given y, made by `GPPrior.condition`.

    The factor belongs to the hyperparameters it was made with: to change or differentiate those, change the prior and
    condition again. New data, with these hyperparameters, go on from it: `condition`, `without`.

    **Fields:**

    - `prior`: the prior, with its training inputs X, `n d`.
    - `y`: the observations, `*t n`; 0 where there is none. The axes `*t` are those of fantasies: of other values that were
      observed at the same points.
    - `noise_var`: variance of the noise, `()` or `n`; of `AllOutputs` also `p`.
    - `solution`: of the system A = k(X, X) + noise + jitter, what its solver gives: a Cholesky factor, `n n`, unless another
      was asked for; and its mask: False for points without observations, whose rows and columns of A are those of the
      identity.
    - `coefficients`: A⁻¹(y − m(X)), `*t n`; 0 where nothing was observed.
    - `jitter`: what was added to the diagonal of A beside the noise, a variance for each point, `n`: what was asked for and
      what the factorisation needed beyond that. It is in ε too.
    - `new_noise_var`: the variance of the noise of a new observation, beside that of the kernel: the last that was given as
      one number (or, of `AllOutputs`, one for each output, `p`), with the jitter that was given; None where one of them was
      given for each point.
    - `size`: how many of the n places are taken, where there is room for more; None where there is none.
    - `solver`: how it was asked to be solved, and is again where a solution does not grow; None where that was left open.
    """

    prior: "GPPrior[KernelT]"
    y: Float[Array, "*t n"]
    noise_var: Float[Array, "..."]
    solution: AbstractSolution
    coefficients: Float[Array, "*t n"]
    jitter: Float[Array, "n"]
    new_noise_var: Float[Array, "..."] | None = None
    size: Int[Array, ""] | None = None
    solver: AbstractSolver | None = None

    def condition(
        self, X_new: Asked, y_new: Numbers, noise_var: Numbers | None = None, mask: Numbers | None = None
    ) -> "ConditionedGP[KernelT]":
        """The posterior given more: what was observed stays, and so do the hyperparameters. The factor grows by a block, in
        O(n² m), or, with an iterative solver, all of it is solved anew; `paths.condition` takes paths along.

        Where there is room (`capacity`) shapes stay, nothing is compiled anew, and `jit`, `scan` and `vmap` take it. When all
        places are taken, room is doubled (and the logger `pathwise_gp` says so), or, under jit, it is an error.

        **Arguments:** `X_new`: points, `m d`, or a functional, or a list of these; `y_new`: what was observed there, `m` (in
        blocks where `X_new` is), or fantasies of it, `*t m`, each of which makes a mean of its own with one factor;
        `noise_var`: its variance, a scalar or `m`; `new_noise_var` unless given; `mask`: as of `GPPrior.condition`, `m`.

        **Returns:** the posterior, the new observations last. The jitter is decided for the new ones alone: that of the
        others stays.

        **Raises:** ValueError (at run time under jit) as `GPPrior.condition`, where no noise is known, and where axes of
        fantasies do not fit those that are there. **Warns:** as `GPPrior.condition`, but not of scales.
        """
        new = as_new_data(self, X_new, y_new, noise_var, mask)
        return append(self, *new) if self.solution.grows else solved_anew(self, *new)

    def under(self, prior: "GPPrior[KernelT]", noise_var: Numbers | None = None) -> "ConditionedGP[KernelT]":
        """The posterior of the same observations under another prior, for hyperparameters that were learnt anew (`fit` of
        `posterior.prior` and `posterior.y` with `mask=posterior.mask`): solved from the start, in O(n³). Room stays.

        **Arguments:** `prior`: at the same points; `noise_var`: variance of the noise, a scalar or `n`; that of each
        observation unless given.

        **Returns:** the posterior. **Raises:** as `GPPrior.condition`, and ValueError where the prior has other points.
        """
        return under(self, prior, noise_var)

    def without(self, numbers: Any) -> "ConditionedGP[KernelT]":
        """The posterior without some of the observations, in O(n²) for each of them (without a factor it is solved anew);
        `paths.without` takes paths along.

        **Arguments:** `numbers`: a number or several, `k`, of observations from 0 on, negative ones from the end; each at
        most once.

        **Returns:** the posterior, the others in their order. Where there is room, the places are free for others and shapes
        stay. A functional of which values are left out here and there has no room any longer.

        **Raises:** IndexError where there is none of that number, and ValueError where one comes twice or none is left
        (at run time under jit).
        """
        return remove(self, numbers) if self.solution.grows else solved_without(self, numbers)

    def continued(self, paths: Any, key: Key, n_new: int | None = None) -> Any:
        """Paths through what was observed since they were drawn: `paths.condition`."""
        return continued(self, paths, key, n_new)

    def continued_without(self, paths: Any, numbers: Any) -> Any:
        """Paths through all but some of what was observed: `paths.without`."""
        return continued_without(self, paths, numbers)

    def left_out_of(self, paths: Any) -> Float[Array, "*s n"]:
        """Each path where each observation was, without that one: `paths.leave_one_out`."""
        return left_out(self, paths)

    def new_to(self, paths: Any) -> int:
        """How many places, from the end, hold what is new to some paths."""
        return new_to(self, paths)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The axes `*t` of the fantasies."""
        return self.y.shape[:-1]

    def member(self, number: Any) -> "ConditionedGP[KernelT]":
        """The posterior given one of the fantasies, by its number when their axes are made one."""
        one = lambda values: values.reshape(-1, values.shape[-1])[number]
        return dataclasses.replace(self, y=one(self.y), coefficients=one(self.coefficients))

    def with_room(self, capacity: int) -> "ConditionedGP[KernelT]":
        """The posterior with places for more observations, as `GPPrior.condition` makes it with a `capacity`.

        **Arguments:** `capacity`: so many observations have a place. **Returns:** the posterior. **Raises:** ValueError where
        it is less than there are places now, or what was observed has no room for more.
        """
        return with_room(self, _checks.count(capacity, "capacity"))

    def trimmed(self) -> "ConditionedGP[KernelT]":
        """The posterior of what was observed, without room for more; not under jit, where it is not known how much that
        is."""
        return trimmed(self)

    @property
    def capacity(self) -> int:
        """How many observations the arrays have places for."""
        return self.y.shape[-1]

    @property
    def mask(self) -> Bool[Array, "n"] | None:
        """False for points that were not observed; None where all were."""
        return self.solution.mask

    @property
    def factor(self) -> CholeskyFactor:
        """The Cholesky factor of A; ValueError where it was solved without one."""
        return self.solution.factor

    @property
    def observed(self) -> AbstractFunctional:
        """What was observed of f, with the first input that was in place of those that were not: they may be anywhere."""
        functional = self.prior.functional
        return functional if self.mask is None else functional.where(self.mask)

    @property
    def noise(self) -> Float[Array, "n"]:
        """All that was added to the diagonal of k(X, X), `n`: the variances of ε."""
        return self.prior.noise_at(self.observed, self.noise_var) + self.jitter

    def mean(self, X: Asked) -> Float[Array, "..."]:
        """Posterior mean, m(x) + k(x, X)A⁻¹(y − m(X)) (Rasmussen & Williams 2006, equation 2.38).

        **Arguments:** `X`: inputs, `*n d`, or a functional. **Returns:** `*t *n`, or `*t q`. **Raises:** ValueError where
        d is not.
        """
        if is_structured(X):
            return self._asked(X, "X")[0](self.mean_path)
        X = self._inputs(X, "X")
        return mean_of(self, X.reshape(-1, X.shape[-1])).reshape(*self.y.shape[:-1], *X.shape[:-1])

    @property
    def mean_path(self) -> PathwiseFunction:
        """The posterior mean as one path, a pytree: what `mean` gives, and what a functional is applied to."""
        return PathwiseFunction(
            prior_mean=self.prior.mean,
            features=NoFeatures(),
            weights=jnp.zeros((*self.y.shape[:-1], 0), self.y.dtype),
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

    def predict(self, X: Float[AnyArray, "*n d"], noise_var: Any = None) -> Prediction:
        """Mean and variance of new observations y* = f(x) + ε: those of f, with the noise; draws are `paths.observe`.

        **Arguments:** `X`: inputs, `*n d`; `noise_var`: variance of the noise of the new observations, a scalar or `*n`;
        unless given `new_noise_var`, that of the observations. Noise of the kernel (`White`) comes on top.

        **Returns:** mean, `*t *n`, and variance, `*n`. **Raises:** ValueError where the last axis of `X` is not d, or
        `noise_var` is not known, negative or of another shape. **Warns:** as `variance`.
        """
        X = self._inputs(X, "X")
        noise_var = new_noise(noise_var, self.new_noise_var, X)
        return Prediction(self.mean(X), self.variance(X) + noise_var + noise_of_kernel(self.prior.kernel, X))

    def covariance(self, X: Asked, Z: Asked | None = None) -> Float[Array, "..."]:
        """Posterior covariance of f(x) and f(z): k(x, z) − k(x, X)A⁻¹k(X, z).

        **Arguments:** `X`: inputs, `*n d`, or a functional; `Z`: the same, `*m d`; `X` unless given.

        **Returns:** `*n *m`. **Raises:** ValueError where a last axis is not d.
        """
        left, rows = self._asked(X, "X")
        right, columns = (None, rows) if Z is None else self._asked(Z, "Z")
        return covariance_of(self, left, right).reshape(*rows, *columns)

    def log_marginal_likelihood(self) -> Float[Array, "*t"]:
        """log N(y | m(X), A), `*t`, from the factor at hand (Rasmussen & Williams 2006, equation 2.30)."""
        return log_marginal_likelihood_of(self)

    def estimate_log_marginal_likelihood(self, key: Key, n_probes: int = 16) -> Estimate:
        """log N(y | m(X), A) where there is no factor: the log determinant by stochastic Lanczos quadrature, with a
        preconditioner (Wenger et al. 2022). With a factor it is exact.

        **Arguments:** `key`: of the random vectors, used up; `n_probes`: how many, at least 2. **Returns:** the value, `*t`,
        and its standard error. **Raises:** ValueError where `n_probes` is less.
        """
        return estimated_evidence_of(self, _checks.key(key), _checks.count(n_probes, "n_probes", least=2))

    def leave_one_out(self, block: int | None = None) -> LeaveOneOut:
        """Predictions of each observation by all others, in closed form from the factor at hand, in O(n³).

        yᵢ | y₋ᵢ ~ N(yᵢ − αᵢ/Pᵢᵢ, 1/Pᵢᵢ) with P = A⁻¹ and α = P(y − m(X)) (Sundararajan & Keerthi 2001; Rasmussen & Williams
        2006, equation 5.12). Where nothing was added to the diagonal (no noise and no jitter) the variance is that of f.

        **Arguments:** `block`: where a list of functionals was observed, the number of one of them: only its predictions.

        **Returns:** mean, variance and log density, `*t n` each; of a block in the shape of what it observes. Of what was not
        observed, places that are free among it, mean and variance are those of an observation there, as the `mask` says.

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
        L = prior.functional.rescaled(scaling)  # says where there are no units
        each = prior.functional.spread(a)
        y = scaling.original_values(self.y.reshape(*self.y.shape[:-1], -1, *a.shape)).reshape(self.y.shape)
        original = dataclasses.replace(
            prior,
            kernel=scaling.of_kernel(prior.kernel),
            X=as_inputs(L),
            mean=scaling.of_mean(prior.mean),
            jitter=None if prior.jitter is None else self._times(prior.jitter, a**2),
        )
        noise_var = self._times(self.noise_var, a**2)
        new_noise_var = None if self.new_noise_var is None else self.new_noise_var * a**2
        if not self.solution.grows:
            made = original.condition(y, noise_var, self.mask, solver=self.solver, check_scales=False)
            return dataclasses.replace(made, new_noise_var=new_noise_var)
        lower = self.factor.lower * each[:, None]
        if self.mask is not None:  # what was not observed has rows of the identity
            y = jnp.where(self.mask, y, jnp.zeros_like(y))
            lower = jnp.where(self.mask[:, None], lower, self.factor.lower)
        return dataclasses.replace(
            self,
            prior=original,
            y=y,
            noise_var=noise_var,
            solution=CholeskyFactor(lower, self.mask),
            coefficients=self.coefficients / jnp.broadcast_to(each, self.coefficients.shape),
            jitter=self.jitter * each**2,
            new_noise_var=new_noise_var,
        )

    def _times(self, variances: Float[Array, "..."], factor: Float[Array, "..."]) -> Float[Array, "..."]:
        """Variances, as they were given, times a number, or one for each output."""
        L, factor = self.prior.functional, factor.astype(variances.dtype)
        return variances * factor if 0 in (variances.ndim, factor.ndim) else L.spread(variances) * L.spread(factor)

    def _printed(self) -> dict[str, Any]:
        room = {} if self.size is None else {"size": self.size, "capacity": self.capacity}
        return {"prior": self.prior, "noise_var": shown(self.noise_var)} | room

    def functional_of(self, X: Any, name: str) -> AbstractFunctional:
        """Points `m d`, or a functional, that can be observed."""
        if not is_structured(X):
            X = _checks.points(_checks.inputs(X, dim_of(self.prior.X), name), name)
        return as_functional(self._asked(X, name)[0])

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
