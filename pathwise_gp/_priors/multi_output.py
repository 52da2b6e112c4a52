"""Gaussian processes with several outputs, all observed at the same inputs."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .. import _checks, _fields
from .._kernels import AbstractKernel, check_valid, Coregionalised
from .._modules import Printed
from .._numerics.blocks import map_rows
from .._numerics.kronecker import factorise, KroneckerFactor, rounding_of, scaled
from .._numerics.lapack import eigh
from .._numerics.linalg import inner
from .._paths.observations import new_noise
from .._scaling import Standardisation
from .._solvers.jitter import FIRST, LARGEST, OF_NOISE, say, say_lost, Shortfall
from .._types import AnyArray, Key, Number, Numbers
from .base import check_jitter
from .continuing_outputs import continued, continued_without, left_out
from .leave_one_out import leave_one_out, LeaveOneOut
from .prediction import Prediction
from .removing import as_numbers
from .scales import say_scales, Scales, scales_of


def _as_output_mean(mean: Callable[..., Any] | Numbers) -> Any:
    return mean if callable(mean) else _checks.floating(mean, "mean")


# What a full grid cannot do.
_GAPS = "A grid with gaps is a `GPPrior` with a `Coregionalised` kernel at `with_outputs(X, p)`, and `mask=jnp.isfinite(y)`."


class MultiOutputGPPrior(Printed, eqx.Module):
    """f ~ GP(m, k ⊗ B) with p outputs, all of them to be observed at each of the training inputs X.

    The same process as a `GPPrior` with a `Coregionalised` kernel on the grid of all inputs and outputs; the Kronecker
    structure of its covariance makes the solve O(n³ + p³) instead of O(n³p³). Where outputs are observed at inputs of their
    own, or for a sum of coregionalised kernels, use that instead.

    **Fields:**

    - `kernel`: `Coregionalised`, with the kernel of the inputs and B = W Wᵀ + diag(κ).
    - `X`: the training inputs, `n d`, without the number of the output.
    - `mean`: m, a number, one number per output, `p`, or a callable that maps `n d` to `n p`; zero unless given.
    - `jitter`: variance added to that of the noise, a scalar or one per output, `p`; none unless given. What `condition`
      needs beyond it is added by decades in proportion to each output's own variance.

    **Raises:** ValueError where `kernel` is not a `Coregionalised` of a kernel without noise of its own, `X` is not a
    finite `n d` array, the kernel does not fit d, the mean does not fit p, or `jitter` is negative. Source: Bonilla et al.
    (2007), section 2; Rakitsch et al. (2013), equation 7.
    """

    kernel: Coregionalised
    X: Float[Array, "n d"] = eqx.field(converter=_fields.points("X"))
    mean: Any = eqx.field(converter=_as_output_mean, default=0.0)
    jitter: Float[Array, "..."] | None = eqx.field(converter=_fields.positive, default=None)

    @property
    def n_outputs(self) -> int:
        """p."""
        return self.kernel.kappa.shape[0]

    @property
    def B(self) -> Float[Array, "p p"]:
        """The covariance of the outputs."""
        return self.kernel.index().covariance().astype(self.X.dtype)

    def mean_at(self, X: Float[Array, "n d"]) -> Float[Array, "n p"]:
        shape = (X.shape[0], self.n_outputs)
        if not callable(self.mean):
            return jnp.broadcast_to(self.mean.astype(X.dtype), shape)
        values = jnp.asarray(self.mean(X))
        if values.shape != shape:
            raise ValueError(
                f"`mean` must map inputs of shape {X.shape} to one value per point and output, shape {shape}; it returned "
                f"shape {values.shape}."
            )
        return values.astype(X.dtype)

    def given_jitter(self) -> Float[Array, "p"]:
        """The jitter that was asked for, of each output."""
        jitter = jnp.zeros((), self.X.dtype) if self.jitter is None else self.jitter.astype(self.X.dtype)
        return jnp.broadcast_to(jitter, (self.n_outputs,))

    def factor(self, noise_var: Float[Array, "p"]) -> KroneckerFactor:
        """The factor of k(X, X) ⊗ B + I ⊗ diag(noise + jitter), with the jitter that was asked for."""
        return factorise(self.kernel.kernel.matrix(self.X, self.X), self.B, noise_var + self.given_jitter())

    def log_prob(self, y: Float[AnyArray, "n p"], noise_var: Number | Float[AnyArray, "p"]) -> Float[Array, ""]:
        """Log marginal likelihood of all outputs, with derivatives of first order.

        **Arguments:** `y`: observations, `n p`; `noise_var`: variance of the noise, a scalar or one per output.

        **Returns:** a scalar; −∞ with zero derivatives where the covariance is not positive definite in its precision.
        **Raises:** ValueError where a shape does not fit, `y` is not finite or `noise_var` not positive. **Warns:** as
        `GPPrior.log_prob`.
        """
        y, noise_var = self.check_observations(y), self.check_noise(noise_var)
        density, lost = _log_prob(self.checked(), y, noise_var)
        say_lost(lost, self.X.dtype, "X")
        return density

    def condition(
        self, y: Float[AnyArray, "n p"], noise_var: Number | Float[AnyArray, "p"], *, check_scales: bool = True
    ) -> "ConditionedMultiOutputGP":
        """The posterior given y. Nothing is added unless the precision of the dtype needs it: see `posterior.jitter`.

        **Arguments:** `y`: observations, `n p`; `noise_var`: variance of the noise, a scalar or one per output;
        `check_scales`: as of `GPPrior.condition`.

        **Returns:** the posterior. **Raises:** ValueError where a shape does not fit, `y` is not finite, `noise_var` is not
        positive, or the covariance is not positive definite (at run time under jit). **Warns:** as `GPPrior.condition`.
        """
        y, noise_var = self.check_observations(y), self.check_noise(noise_var)
        if not _checks.is_concrete(noise_var):
            noise_var = _checks.require(jnp.all(noise_var > 0), noise_var, "`noise_var` must be positive.")
        known = all(map(_checks.is_concrete, jax.tree.leaves((self, y, noise_var))))
        look_at_scales = _checks.flag(check_scales, "check_scales") and known
        factor, coefficients, jitter, shortfall, scales = _condition(self.checked(), y, noise_var, look_at_scales)
        definite = factor.is_definite() & jnp.all(jnp.isfinite(coefficients))
        message = (
            f"The covariance matrix of the {self.X.shape[0]} points `X` is not positive definite in {self.X.dtype}, not even "
            f"with a jitter of {LARGEST} of the variance of each output (or `y` or the mean is not finite). Give a larger "
            "`jitter` or noise, or compute in float64."
        )
        coefficients = _checks.require(definite, coefficients, message)
        say(shortfall, self.X.dtype, "X")
        say_scales(scales)
        return ConditionedMultiOutputGP(self, y, noise_var, factor, coefficients, jitter)

    def checked(self) -> "MultiOutputGPPrior":
        """This prior, or an error where an input is outside the kernel's domain (at run time under jit)."""
        X = check_valid(self.kernel.kernel, self.X, "X")
        return self if X is self.X else eqx.tree_at(lambda prior: prior.X, self, X)

    def check_observations(self, y: Any) -> Float[Array, "n p"]:
        """Observations that fit the training inputs and outputs."""
        shape = (self.X.shape[0], self.n_outputs)
        given, y = y, _checks.floating(y, "y")
        if y.shape != shape:
            raise ValueError(
                f"`y` must have shape {shape}, one row for each point of `X` and one column for each output; got {y.shape}. "
                "Outputs that are observed at inputs of their own go into a `GPPrior` with a `Coregionalised` kernel."
            )
        y = _checks.observed(y, _GAPS, given=given)
        _checks.resolved(given, "y")
        return y.astype(self.X.dtype)

    def check_noise(self, noise_var: Any) -> Float[Array, "p"]:
        """A variance of the noise for each output."""
        shape = (self.n_outputs,)
        noise_var = _checks.floating(noise_var, "noise_var")
        if noise_var.shape not in ((), shape):
            raise ValueError(
                f"`noise_var` must be a scalar or have shape {shape}, one variance per output; got {noise_var.shape}."
            )
        _checks.positive(noise_var, "noise_var")
        return jnp.broadcast_to(noise_var.astype(self.X.dtype), shape)

    def __check_init__(self):
        kernel: Any = self.kernel
        if not isinstance(kernel, Coregionalised):
            raise ValueError(
                f"`MultiOutputGPPrior.kernel` must be a Coregionalised kernel; got {type(kernel).__name__}. For others, sums "
                "included, use a `GPPrior` at inputs `with_outputs`."
            )
        dim = self.X.shape[1]
        kernel.check_dim(dim + 1)
        if any(term.basis_size(dim) == 0 for term in kernel.kernel.terms(dim)):
            raise ValueError(
                "`MultiOutputGPPrior.kernel` holds `White`: give `noise_var`, one variance per output, instead."
            )
        if _checks.is_concrete(self.X):
            check_valid(kernel.kernel, self.X, "X")
        if not callable(self.mean) and self.mean.shape not in ((), (self.n_outputs,)):
            raise ValueError(
                f"`mean` must be a number, one per output, shape ({self.n_outputs},), or a callable; got {self.mean.shape}."
            )
        check_jitter(self.jitter, self.n_outputs)


class ConditionedMultiOutputGP(Printed, eqx.Module):
    """The posterior of several outputs given y, made by `MultiOutputGPPrior.condition`.

    **Fields:** `prior`: with its training inputs X, `n d`, and p outputs; `y`: `n p`; `noise_var`: `p`; `factor`: of
    A = k(X, X) ⊗ B + I ⊗ diag(noise + jitter); `coefficients`: A⁻¹(y − m(X)), `n p`; `jitter`: what was added to the noise
    of each output, `p`.
    """

    prior: MultiOutputGPPrior
    y: Float[Array, "n p"]
    noise_var: Float[Array, "p"]
    factor: KroneckerFactor
    coefficients: Float[Array, "n p"]
    jitter: Float[Array, "p"]

    @property
    def kernel(self) -> AbstractKernel:
        """The kernel of the inputs."""
        return self.prior.kernel.kernel

    @property
    def noise(self) -> Float[Array, "p"]:
        """All that was added to the diagonal for each output, `p`: the variances of ε."""
        return self.factor.noise

    def mean(self, X: Float[AnyArray, "*n d"]) -> Float[Array, "*n p"]:
        """Posterior mean of each output, m(x) + k(x, X) A⁻¹(y − m(X)) B.

        **Arguments:** `X`: inputs, `*n d`. **Returns:** `*n p`. **Raises:** ValueError where the last axis is not d.
        """
        X = self._inputs(X)
        return _mean(self, X.reshape(-1, X.shape[-1])).reshape(*X.shape[:-1], self.prior.n_outputs)

    def condition(self, X_new: Float[AnyArray, "m d"], y_new: Float[AnyArray, "m p"]) -> "ConditionedMultiOutputGP":
        """The posterior given all outputs at more inputs, with the same noise and hyperparameters. The eigenvectors of a
        grid do not grow by a block: it is solved anew, in O(n³ + p³). `paths.condition` takes paths along.

        **Arguments:** `X_new`: points, `m d`; `y_new`: what was observed there, `m p`.

        **Returns:** the posterior, the new observations last. **Raises:** as `MultiOutputGPPrior.condition`. **Warns:**
        as that, but not of scales.
        """
        prior = self.prior
        X_new = _checks.points(_checks.inputs(X_new, prior.X.shape[1], "X_new"), "X_new").astype(prior.X.dtype)
        there = eqx.tree_at(lambda p: p.X, prior, check_valid(self.kernel, X_new, "X_new"))
        y = jnp.concatenate([self.y, there.check_observations(y_new)])
        more = eqx.tree_at(lambda p: p.X, prior, jnp.concatenate([prior.X, X_new]))
        return more.condition(y, self.noise_var, check_scales=False)

    def without(self, numbers: Any) -> "ConditionedMultiOutputGP":
        """The posterior without all outputs at some of the inputs, solved anew; `paths.without` takes paths along.

        **Arguments:** `numbers`: a number or several of inputs from 0 on, negative ones from the end; each at most once.

        **Returns:** the posterior, the others in their order. **Raises:** IndexError where there is none of that number, and
        ValueError where one comes twice or none is left.
        """
        kept = self.kept(numbers)
        fewer = eqx.tree_at(lambda p: p.X, self.prior, self.prior.X[kept])
        return fewer.condition(self.y[kept], self.noise_var, check_scales=False)

    def kept(self, numbers: Any) -> np.ndarray:
        """The inputs that are left without some."""
        n = self.y.shape[0]
        kept = np.delete(np.arange(n), np.asarray(as_numbers(numbers, n)))
        if kept.size == 0:
            raise ValueError("`without` would leave no observation: use the prior.")
        return kept

    def continued(self, paths: Any, key: Key, n_new: int | None = None) -> Any:
        """Paths through what was observed since they were drawn: `paths.condition`."""
        return continued(self, paths, key, n_new)

    def continued_without(self, paths: Any, numbers: Any) -> Any:
        """Paths through all but some of what was observed: `paths.without`."""
        return continued_without(self, paths, numbers)

    def left_out_of(self, paths: Any) -> Float[Array, "*s n p"]:
        """Each path where each observation was, without that one: `paths.leave_one_out`."""
        return left_out(self, paths)

    def leave_one_out(self) -> LeaveOneOut:
        """Predictions of each observation by all others (other outputs at the same input too), in closed form; see
        `ConditionedGP.leave_one_out`.

        **Returns:** mean, variance and log density, `n p` each.
        """
        return leave_one_out(self.y, self.coefficients, self.factor.inverse_diagonal())

    def variance(self, X: Float[AnyArray, "*n d"]) -> Float[Array, "*n p"]:
        """Posterior variance of each output, without noise, at least 0 under rounding.

        **Arguments:** `X`: inputs, `*n d`. **Returns:** `*n p`. **Raises:** ValueError where the last axis is not d.
        """
        X = self._inputs(X)
        return _variance(self, X.reshape(-1, X.shape[-1])).reshape(*X.shape[:-1], self.prior.n_outputs)

    def predict(self, X: Float[AnyArray, "*n d"], noise_var: Any = None) -> Prediction:
        """Mean and variance of new observations of each output: those of f, with the noise; draws are `paths.observe`.

        **Arguments:** `X`: inputs, `*n d`; `noise_var`: variance of their noise, a scalar or `p`; unless given that of the
        observations, with the jitter. **Returns:** `*n p` each. **Raises:** ValueError as `ConditionedGP.predict`.
        """
        X, noise = self._inputs(X), self.noise_var + self.jitter
        noise, variance = new_noise(noise_var, noise, noise.shape, X.dtype), self.variance(X)
        return Prediction(self.mean(X), variance + jnp.broadcast_to(noise, variance.shape))

    def rescaled(self, scaling: Standardisation) -> "ConditionedMultiOutputGP":
        """The posterior of standardised data in the original units, solved anew: `Standardisation.original`."""
        prior, kernel = self.prior, self.prior.kernel
        a = jnp.broadcast_to(scaling.value.scale.astype(self.y.dtype), (prior.n_outputs,))
        mean = (
            scaling.of_mean(prior.mean)
            if callable(prior.mean)
            else scaling.original_values(prior.mean_at(prior.X[:1]))[0]
        )
        original = MultiOutputGPPrior(
            kernel=Coregionalised(scaling.of_inputs(kernel.kernel), kernel.W * a[:, None], kernel.kappa * a**2),
            X=scaling.original_inputs(prior.X),
            mean=mean,
            jitter=None if prior.jitter is None else prior.given_jitter() * a**2,
        )
        return original.condition(scaling.original_values(self.y), self.noise_var * a**2, check_scales=False)

    def _printed(self) -> dict[str, Any]:
        return {"prior": self.prior, "noise_var": self.noise_var}

    def _inputs(self, X: Any) -> Array:
        X = _checks.inputs(X, self.prior.X.shape[1]).astype(self.prior.X.dtype)
        return check_valid(self.kernel, X.reshape(-1, X.shape[-1]), "X").reshape(X.shape)


# What eigenvalues may be off by, beside the least of them, before it is said.
_LOST = 0.1


@eqx.filter_jit
def _log_prob(
    prior: MultiOutputGPPrior, y: Float[Array, "n p"], noise_var: Float[Array, "p"]
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    factor = prior.factor(noise_var)
    return factor.log_density(y - prior.mean_at(prior.X)), factor.rounding() > _LOST


@eqx.filter_jit
def _condition(
    prior: MultiOutputGPPrior, y: Float[Array, "n p"], noise_var: Float[Array, "p"], look_at_scales: bool
) -> tuple[KroneckerFactor, Float[Array, "n p"], Float[Array, "p"], Shortfall, Scales | None]:
    given = prior.given_jitter()
    asked = noise_var + given
    factor = prior.factor(noise_var)
    # The policy of `settle`: what is needed is known from the eigenvalues, of which those of K stay as they are.
    variance = jnp.mean(prior.kernel.kernel.diagonal(prior.X)) * jnp.diagonal(prior.B)
    first = FIRST * y.size * float(jnp.finfo(y.dtype).eps)
    n_steps = 1 + max(0, math.floor(math.log10(LARGEST / first) + 1e-9))
    steps = jnp.asarray([0.0] + [first * 10.0**i for i in range(n_steps)], y.dtype)
    fixed = jax.lax.stop_gradient
    outputs = jax.vmap(lambda step: eigh(scaled(fixed(prior.B), fixed(asked + step * variance))).values)(steps)
    enough = rounding_of(factor.values, outputs) <= 1
    step = jnp.where(jnp.any(enough), steps[jnp.argmax(enough)], steps[-1])
    added = step * fixed(variance)
    factor = factorise(factor.K, factor.B, asked + added)
    shortfall = Shortfall(
        raised=(step > 0) & jnp.any(given > 0) if prior.jitter is not None else jnp.zeros((), bool),
        drowned=jnp.any(added > OF_NOISE * asked),
        coarse=jnp.zeros((), bool),
        lost=factor.rounding() > _LOST,
    )
    residual, scales = y - prior.mean_at(prior.X), None
    if look_at_scales:
        k = prior.kernel.kernel.diagonal(prior.X)
        deviation = jnp.sqrt(k[:, None] * jnp.diagonal(prior.B)[None, :] + asked[None, :])
        scales = scales_of(residual / deviation, prior.kernel.kernel.matrix(prior.X, prior.X))
    return factor, factor.solve(residual), given + added, shortfall, scales


@eqx.filter_jit
def _mean(posterior: ConditionedMultiOutputGP, X: Float[Array, "n d"]) -> Float[Array, "n p"]:
    prior = posterior.prior
    weights = inner(prior.B, posterior.coefficients)  # p n
    update = map_rows(lambda rows: inner(weights, posterior.kernel.matrix(rows, prior.X)), X, prior.X.shape[0])
    return prior.mean_at(X) + update.T


@eqx.filter_jit
def _variance(posterior: ConditionedMultiOutputGP, X: Float[Array, "n d"]) -> Float[Array, "n p"]:
    prior, B = posterior.prior, posterior.prior.B

    def block(rows: Float[Array, "b d"]) -> Float[Array, "p b"]:
        # The covariances of output q at x with all that was observed, k(x, X) ⊗ B_q, for each x and q.
        k = posterior.kernel.matrix(rows, prior.X)
        cross = k[None, :, :, None] * B[:, None, None, :]
        explained = jnp.sum(cross * posterior.factor.solve(cross), axis=(2, 3))
        return jnp.diagonal(B)[:, None] * posterior.kernel.diagonal(rows)[None, :] - explained

    p = prior.n_outputs
    return jnp.maximum(map_rows(block, X, prior.X.shape[0] * p * p), 0).T
