"""Hyperparameters of very many observations, by estimates of the derivatives of the log density (Gardner et al. 2018; Lin et
al. 2024).

With α = A⁻¹(y − m) and vectors z = E⁻ᵀu of the covariance P = (E Eᵀ)⁻¹ of a preconditioner, u ~ N(0, I), the derivative

    ½ αᵀ dA α + αᵀ dm − ½ tr(A⁻¹ dA),    tr(A⁻¹ dA) = E[(A⁻¹z)ᵀ dA (P⁻¹z)]

is estimated without a bias for any P, and with the less variance the nearer P is to A. The u are the same at every step, so
that the estimate is a smooth function of the hyperparameters, and each solve begins where the last one ended.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._numerics.solution import Estimate
from .._priors.evidence import without
from .._progress import ProgressBar
from .._solvers import AbstractIterative, System
from .unknowns import Unknowns


class Probed(NamedTuple):
    """The solutions at a point.

    **Fields:** `alpha`: A⁻¹(y − m), `n`; `X`: A⁻¹z of each z, `s n`; `P`: P⁻¹z, `s n`; `converged`: whether the solver did.
    """

    alpha: Float[Array, "n"]
    X: Float[Array, "s n"]
    P: Float[Array, "s n"]
    converged: Bool[Array, ""]


class Estimator:
    """Estimates of a log density and its derivatives, of observations and hyperparameters; `U`: u, `s n`."""

    def __init__(
        self,
        unknowns: Unknowns,
        y: Float[Array, "n"],
        mask: Bool[Array, "n"] | None,
        solver: AbstractIterative,
        U: Float[Array, "s n"],
    ):
        self._unknowns, self._y, self._mask, self._solver, self._U = unknowns, y, mask, solver, U

    @property
    def n(self) -> Float[Array, ""]:
        """How many observations."""
        return jnp.sum(jnp.ones_like(self._y) if self._mask is None else self._mask.astype(self._y.dtype))

    @property
    def must_converge(self) -> bool:
        """Whether a solve that does not reach its tolerance is an error."""
        return self._solver.throw

    def solve(self, point: Any, last: Probed | None = None) -> Probed:
        """The solutions at a point, from those at the last one."""
        system, residual = self._system(jax.lax.stop_gradient(point))
        solution: Any = self._solver.prepare(system).solution
        P, Z = solution.probes(self._U)
        right = jnp.concatenate([residual[None, :], Z])
        alpha = jnp.zeros_like(residual) if last is None else last.alpha
        # Of the solutions the preconditioner gives the most; what was missing at the last point is missing here.
        X = P if last is None else P + (last.X - last.P)
        x, report = solution.solved(right, jnp.concatenate([alpha[None, :], X]))
        return Probed(x[0], x[1:], P, report.converged)

    def gradient(self, point: Any, at: Probed) -> Any:
        """The estimate of the derivatives."""
        s = jnp.asarray(at.X.shape[0], at.X.dtype)
        V, W = jnp.concatenate([at.alpha[None, :], at.P]), jnp.concatenate([at.alpha[None, :], -at.X / s])

        def surrogate(point: Any) -> Float[Array, ""]:
            prior, _ = self._unknowns.at(point)
            return 0.5 * self._between(point, V, W) + jnp.sum(
                at.alpha * prior.mean_at(without(prior, self._mask).functional)
            )

        return jax.grad(surrogate)(point)

    def standard_error(self, point: Any, at: Probed) -> Any:
        """That of each derivative, from the means of groups of vectors."""
        groups = min(_GROUPS, at.X.shape[0])
        split = lambda rows: rows[: groups * (rows.shape[0] // groups)].reshape(groups, -1, rows.shape[1])

        def of_group(rows: tuple[Array, Array]) -> Any:
            P, X = rows
            return jax.grad(lambda point: -0.5 * self._between(point, P, X / P.shape[0]))(point)

        means = jax.lax.map(of_group, (split(at.P), split(at.X)))
        return jax.tree.map(lambda values: jnp.std(values, axis=0, ddof=1) / groups**0.5, means)

    def log_density(self, point: Any, at: Probed) -> Estimate:
        """The estimate of the log density."""
        system, residual = self._system(point)
        found = self._solver.prepare(system).solution.estimated_log_det(self._U)
        n = jnp.sum(system.there).astype(residual.dtype)
        value = -0.5 * (jnp.sum(residual * at.alpha) + found.value + n * math.log(2 * math.pi))
        return Estimate(value, 0.5 * found.standard_error)

    def _system(self, point: Any) -> tuple[System, Float[Array, "n"]]:
        prior, noise_var = self._unknowns.at(point)
        prior = without(prior, self._mask)
        L = prior.functional
        return prior.system(L, noise_var, self._mask), self._seen(self._y - prior.mean_at(L))

    def _between(self, point: Any, V: Float[Array, "s n"], W: Float[Array, "s n"]) -> Float[Array, ""]:
        """Σ wᵀA v, a block of rows at a time."""
        A = self._solver.covariance(self._system(point)[0])
        return jnp.sum(A.layout.fold(W) * A.matmul(A.layout.fold(V)))

    def _seen(self, V: Float[Array, "*s n"]) -> Float[Array, "*s n"]:
        return V if self._mask is None else jnp.where(self._mask, V, jnp.zeros_like(V))


# Groups of vectors, of whose means the error of their mean is known.
_GROUPS = 4


class _Ascent(NamedTuple):
    """Where an ascent has got to, in coordinates t about the start, as one vector.

    **Fields:** `t`; `at`: the solutions there; `gradient`; `error`: its standard error at the point `looked`; `H`: the
    inverse of the negative Hessian, as far as it is known; `step`: the number of gradients, and `failed`, of those where
    nothing could be solved; `length`: the largest coordinate of the last step, taken or not.
    """

    t: Float[Array, "p"]
    at: Probed
    gradient: Float[Array, "p"]
    error: Float[Array, "p"]
    looked: Float[Array, "p"]
    H: Float[Array, "p p"]
    step: Int[Array, ""]
    failed: Int[Array, ""]
    length: Float[Array, ""]


class Ascended(NamedTuple):
    """**Fields:** `point`; `log_density` there; `converged`: whether no derivative is larger than its error; `steps`;
    `solved`: whether the solves reached their tolerance, or need not."""

    point: Any
    log_density: Estimate
    converged: Bool[Array, ""]
    steps: Int[Array, ""]
    solved: Bool[Array, ""]


def ascend(
    estimator: Estimator,
    unknowns: Unknowns,
    log_prior: Any,
    tolerance: Float[Array, ""],
    max_steps: int,
    progress: bool,
    mask: Bool[Array, "n"] | None,
) -> Ascended:
    """The point where the derivatives are within their errors, or a `tolerance`, by BFGS (Nocedal & Wright 2006, section 6.1)
    without values: a step is taken unless the derivative along it has turned round and is as large as before, and either way
    it says what the curvature is. Where the solver does not converge, as in low precision where the noise is small beside the
    variance, no step leads there; and where the estimates are no better than none, it ends."""
    units, unravel = jax.flatten_util.ravel_pytree(unknowns.scales_of_some(unknowns.first, mask))
    first, _ = jax.flatten_util.ravel_pytree(unknowns.first)
    n, dtype = estimator.n, first.dtype
    bar = ProgressBar(max_steps, "step")
    place = lambda t: unravel(first + units * t)
    in_t = lambda tree: jax.flatten_util.ravel_pytree(tree)[0] * units

    def gradient_at(t: Float[Array, "p"], at: Probed) -> Float[Array, "p"]:
        found = in_t(estimator.gradient(place(t), at))
        if log_prior is None:
            return found
        return found + jax.grad(lambda t: jnp.asarray(log_prior(*unknowns.at(place(t))), dtype))(t)

    def error_at(t: Float[Array, "p"], at: Probed) -> Float[Array, "p"]:
        return in_t(estimator.standard_error(place(t), at))

    def advance(now: _Ascent) -> _Ascent:
        d = now.H @ now.gradient
        d = d / jnp.maximum(jnp.max(jnp.abs(d)), 1)  # a factor of e at the most
        t = now.t + d
        at = estimator.solve(place(t), now.at)
        gradient, solved = gradient_at(t, at), at.converged | ~now.at.converged
        H = jnp.where(solved, _with_curvature(now.H, d, now.gradient - gradient), _SHORTER * now.H)
        taken = solved & (jnp.sum(d * gradient) >= -_TURNED * jnp.sum(d * now.gradient))
        keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(taken, a, b), new, old)
        t, at, gradient = keep((t, at, gradient), (now.t, now.at, now.gradient))
        # Errors are looked at where they may be others, and at the end.
        far, near = jnp.max(jnp.abs(t - now.looked)), jnp.sum(gradient * (H @ gradient)) <= 1
        error, looked = jax.lax.cond(
            (far > 1) | (near & (far > _SAME)), lambda: (error_at(t, at), t), lambda: (now.error, now.looked)
        )
        new = _Ascent(t, at, gradient, error, looked, H, now.step + 1, now.failed + ~solved, jnp.max(jnp.abs(d)))
        if progress:
            bar.report(new.step, ~going(new), "largest derivative {:.3g}", jnp.max(jnp.abs(gradient)))
        return new

    def arrived(now: _Ascent) -> Bool[Array, ""]:
        within = jnp.abs(now.gradient) <= jnp.maximum(now.error, tolerance)
        return jnp.all(within) & known(now) & now.at.converged

    def known(now: _Ascent) -> Bool[Array, ""]:
        # From one set of data to the other a derivative differs by √(n/2) at the most.
        return jnp.all(now.error <= jnp.sqrt(n / 2))

    def going(now: _Ascent) -> Bool[Array, ""]:
        stuck = (now.failed >= _FAILURES) | (now.length <= _STANDS) | ~known(now)
        return (now.step < max_steps) & ~stuck & ~arrived(now)

    t = jnp.zeros_like(first)
    at = estimator.solve(place(t))
    # In these coordinates a log density has a curvature of n/2 at the most.
    H = jnp.eye(t.shape[0], dtype=dtype) * (2 / n)
    none, length = jnp.zeros((), int), jnp.asarray(jnp.inf, dtype)
    start = _Ascent(t, at, gradient_at(t, at), error_at(t, at), t, H, none, none, length)
    last = jax.lax.while_loop(going, advance, start)
    point = place(last.t)
    density = estimator.log_density(point, last.at)
    solved = last.at.converged | jnp.asarray(not estimator.must_converge)
    return Ascended(point, density, arrived(last), last.step, solved)


def _with_curvature(H: Float[Array, "p p"], s: Float[Array, "p"], y: Float[Array, "p"]) -> Float[Array, "p p"]:
    """H given that the gradient has become less by y along s; where it has become more, twice as bold."""
    sy, Hy = jnp.sum(s * y), H @ y
    known = sy > _CURVED * jnp.sqrt(jnp.sum(s * s) * jnp.sum(y * y))
    one = jnp.where(known, sy, 1)
    across = (Hy[:, None] * s[None, :] + s[:, None] * Hy[None, :]) / one
    updated = H - across + (1 + jnp.sum(y * Hy) / one) * s[:, None] * s[None, :] / one
    return jnp.where(known, updated, 2 * H)


# Where a derivative along a step has turned round to so much of what it was, the step was too long; a change of the gradient
# whose cosine with the step is less says nothing. So much shorter is a step after one to where nothing could be solved; so
# many of these, or a step that is so short, end the search. Errors of so near a point are the same.
_TURNED, _CURVED, _SHORTER, _FAILURES, _STANDS, _SAME = 0.9, 1e-3, 0.25, 10, 1e-5, 0.1
