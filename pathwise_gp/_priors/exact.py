"""A Gaussian process at its training inputs, and conditioned on what was observed there."""

from typing import Any, NamedTuple, TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .. import _checks, _fields, _means
from .._features import AbstractBasis, check_basis, QuasiMonteCarlo
from .._functionals import (
    AbstractFunctional,
    as_functional,
    Asked,
    dim_of,
    flat_data,
    Observed,
    observed,
)
from .._kernels import KernelT
from .._numerics.solution import Report
from .._paths import draw_prior, PathwiseFunction
from .._solvers import AbstractSolver, as_solver, Cholesky, suited
from .._solvers.jitter import say, say_lost
from .._types import AnyArray, Key, Number, Numbers
from .appending import noise_of_new
from .base import AbstractPrior, check_prior, checked_functional
from .conditioned import ConditionedGP
from .conditioning import AbstractOthers, contradiction, solve
from .evidence import log_prob, log_prob_and_whether_lost, without
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
        solver: AbstractSolver | None = None,
        capacity: int | None = None,
        start: ConditionedGP | Float[AnyArray, "m"] | None = None,
        check_scales: bool = True,
    ) -> ConditionedGP[KernelT]:
        """The posterior given y. The one factorisation is made here and serves every draw. Nothing is added to its diagonal
        unless it needs it; `posterior.jitter` is what was.

        **Arguments:** (in blocks where `X` is) `y`: observations, `n`; `noise_var`: variance of the noise (the square of
        its standard deviation), a scalar or one per point; `mask`: False for points that were not observed, whose `y`
        does not count, `n`; `solver`: how the system is solved: for very many observations
        `ConjugateGradients()`; unless given `Kronecker()` where it fits (`AllOutputs`), else `Cholesky()`; `capacity`: so
        many observations have a place, at least n: for `posterior.condition`, which then keeps all shapes; places that are
        free count for nothing; `start`: a posterior, or its `coefficients`, from which iterations begin: at other
        hyperparameters, of a solve that was cut off, or of the first observations where there are more now (a factor needs
        none); `check_scales`: whether it is said that data are far from what the prior expects.

        **Returns:** the posterior.

        **Raises:** ValueError (at run time under jit) where a shape does not fit, `y` is not finite, `noise_var` is negative,
        the covariance is not positive definite with any jitter up to 1e-3 of the variances, or observations without noise
        contradict each other, with the points.

        **Warns:** outside jit, `PrecisionWarning` where a jitter that was given does not suffice, where what was added is
        beyond a hundredth of the noise (a millionth of the variance where there is none), or where the noise is lost in the
        rounding of the dtype; and `ScaleWarning` where the observations lie many prior standard deviations from the prior
        mean, or no two of ten and more points are correlated.
        """
        y, noise_var, mask = self.check(y, noise_var, mask, solver)
        check_scales = _checks.flag(check_scales, "check_scales")
        solver = Cholesky() if solver is None and capacity is not None else solver
        first = None if start is None else _from(start, self.functional.size, self.X.dtype)
        posterior = condition_with(self, y, noise_var, mask, check_scales, solver, None, first).posterior
        return posterior if capacity is None else posterior.with_room(capacity)

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

    def check(
        self, y: Any, noise_var: Any, mask: Any, solver: AbstractSolver | None = None
    ) -> tuple[Array, Array, Array | None]:
        """Observations, noise and mask that fit the training inputs, for a solver."""
        y, noise_var, mask = flat_data(self.X, y, noise_var, mask)
        L, dtype = as_functional(self.X), self.X.dtype
        q, p = L.size, L.n_each
        mesh = None if solver is None else as_solver(solver).devices
        y, mask = _checks.observations(y, q, mask, shape=L.shape, mesh=mesh)
        return y.astype(dtype), _checks.noise_variance(noise_var, q, or_zero=True, n_outputs=p).astype(dtype), mask

    def __check_init__(self):
        check_prior(self, self.X, "X")


class ConditionedWith(NamedTuple):
    """**Fields:** `posterior`; `of_others`: solutions of what else was asked for, `s n`, or None; `report`: of iterations."""

    posterior: ConditionedGP[Any]
    of_others: Float[Array, "s n"] | None
    report: Report | None


def condition(
    prior: GPPrior[KernelT],
    y: Float[Array, "n"],
    noise_var: Float[Array, "..."],
    mask: Bool[Array, "n"] | None = None,
    check_scales: bool = False,
) -> ConditionedGP[KernelT]:
    """`GPPrior.condition` for values that have been checked."""
    return condition_with(prior, y, noise_var, mask, check_scales, None).posterior


def condition_with(
    prior: GPPrior[KernelT],
    y: Float[Array, "n"],
    noise_var: Float[Array, "..."],
    mask: Bool[Array, "n"] | None,
    check_scales: bool,
    solver: AbstractSolver | None,
    others: AbstractOthers | None = None,
    start: Float[Array, "s1 n"] | None = None,
) -> ConditionedWith:
    """The posterior given y, for values that have been checked, and from the same solve what `others` asks for."""
    if not _checks.is_concrete(noise_var):  # else it has been looked at
        mesh = None if solver is None else solver.devices
        noise_var = _checks.require(jnp.all(noise_var >= 0), noise_var, "`noise_var` must not be negative.", mesh)
    seen_prior = without(prior, mask).checked()
    system = prior.system(prior.functional, noise_var, mask)
    used = suited(system) if solver is None else as_solver(solver)
    used.check(system)
    known = all(map(_checks.is_concrete, jax.tree.leaves((prior, y, noise_var, mask))))
    found = solve(seen_prior, y, noise_var, mask, used, check_scales and known, others, start)
    prepared = found.prepared
    message = "`y` and the mean at `X` must be finite; got NaN or inf."
    solution, coefficients, of_others = _checks.verdict(
        (prepared.solution, found.coefficients, found.of_others),
        (prepared.failed, used.failure(prior.functional, "X")),
        (found.infinite, message),
        (found.contradictory, contradiction(found.contradicts, found.misses, "X")),
        *prepared.solution.faults(found.report),
        mesh=used.devices,
    )
    say(prepared.shortfall, prior.X.dtype, "X")
    say_scales(found.scales)
    new_noise_var = noise_of_new(prior, system.L, noise_var)
    posterior = ConditionedGP(
        prior, y, noise_var, solution, coefficients, prepared.jitter, new_noise_var, solver=solver
    )
    return ConditionedWith(posterior, of_others, found.report)


def _from(start: Any, n: int, dtype: Any) -> Float[Array, "1 n"]:
    """Coefficients to begin with, and zeros for observations that they have not seen."""
    found = start.coefficients if isinstance(start, ConditionedGP) else start
    shape = getattr(found, "shape", ())
    if len(shape) != 1 or shape[0] > n:
        raise ValueError(
            f"`start` must be a posterior of one set of at most the {n} observations that there are now, or its "
            f"`coefficients`; got {start!r}."
        )
    found = jax.lax.stop_gradient(_checks.floating(found, "start")).astype(dtype)
    return jnp.pad(found, (0, n - shape[0]))[None, :]


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
    settings = {
        "n_paths": n_paths,
        "n_features": n_features,
        "basis": basis,
        "share_features": share_features,
        "n_noise": 0,
    }
    features, weights, _ = draw_prior(prior.kernel, prior.functional.points, jax.random.split(key, 3), **settings)
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
