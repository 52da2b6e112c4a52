"""The system solved by products with it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .. import _checks, _fields
from .._functionals import AbstractFunctional
from .._kernels import AbstractKernel
from .._modules import Printed
from .._numerics.conjugate_gradients import block_conjugate_gradients, Preconditioner, preconditioner
from .._numerics.linalg import inner
from .._numerics.pivots import pivoted_cholesky
from .._numerics.solution import AbstractSolution, Report, Solved
from .base import AbstractSolver, Prepared, System
from .cholesky import Cholesky
from .jitter import Shortfall


class RandomPivots(Printed, eqx.Module):
    """A preconditioner: the covariance as far as some of the observations explain it, with the noise. They are drawn in
    proportion to the variance that those before them left open, which halves the passes of always taking the largest.

    **Fields:** `rank`: how many, a whole number of at least 1, part of the structure; it holds `rank` numbers for each
    observation, and takes O(rank² n) once. `seed`: of the draw.

    Source: Chen, Epperly, Tropp & Webber (2024), algorithm 2.1; Díaz et al. (2023).
    """

    rank: int = eqx.field(static=True, default=256, converter=_fields.count("rank"))
    seed: int = eqx.field(static=True, default=0)

    def __call__(self, covariance: "Covariance") -> Preconditioner:
        """The preconditioner of a covariance and its diagonal."""
        variances = jnp.where(covariance.there, covariance.L.diagonal(covariance.kernel), 0).astype(
            covariance.diagonal.dtype
        )
        rank = min(self.rank, covariance.L.size)
        pivots = pivoted_cholesky(covariance.row, variances, rank, jax.random.key(self.seed))
        return preconditioner(pivots.rows, covariance.diagonal)


class Covariance(eqx.Module):
    """A = L k Lᵀ + diag(diagonal), which is applied; rows and columns that are masked are those of the identity.

    **Fields:** `kernel`; `L`; `diagonal`: noise and jitter, `n`, 1 where the mask is False; `mask`: `n`, or None; `cached`:
    L k Lᵀ, `n n`, where it is held.
    """

    kernel: AbstractKernel
    L: AbstractFunctional
    diagonal: Float[Array, "n"]
    mask: Bool[Array, "n"] | None
    cached: Float[Array, "n n"] | None

    @property
    def there(self) -> Bool[Array, "n"]:
        return jnp.ones(self.diagonal.shape, bool) if self.mask is None else self.mask

    def seen(self, V: Float[Array, "*s n"]) -> Float[Array, "*s n"]:
        return V if self.mask is None else jnp.where(self.mask, V, jnp.zeros_like(V))

    def row(self, i: Any) -> Float[Array, "n"]:
        """Row i of L k Lᵀ."""
        if self.cached is not None:
            return self.seen(self.cached[i])
        return self.seen(self.L.take(jnp.reshape(i, (1,))).cross(self.kernel, self.L)[0])

    def matmul(self, V: Float[Array, "s n"]) -> Float[Array, "s n"]:
        """A v for each vector v of V: L k Lᵀ a block of rows at a time, of which none is kept."""
        seen = self.seen(V)
        if self.cached is not None:
            product = inner(self.cached, seen).T
        else:
            product = self.L.in_parts(lambda part: inner(seen, part.cross(self.kernel, self.L)), self.L.width)
        return self.seen(product) + V * self.diagonal[None, :]


class ConjugateGradients(AbstractSolver):
    """A⁻¹b by products with A, of which each is a pass over the covariance: in memory of the order of n, for as many
    observations as time allows. All right-hand sides (the mean, every path) go through one pass together and share their
    search directions.

    **Fields:**

    - `tolerance`: ‖b − Ax‖ / ‖b‖ that each right-hand side is to reach, between 0 and 1.
    - `max_passes`: where it ends at the latest.
    - `preconditioner`: `RandomPivots`, whose `rank` may be raised where there are many passes.
    - `cache`: so many bytes may the n × n covariances take that are kept between passes; where they would take more they
      are computed anew in each, a block of rows at a time. 1 GiB unless given.
    - `throw`: whether a solve that does not reach the tolerance is an error; else see the `report`.

    All but the preconditioner is part of the structure. What such a posterior does not know is an error in words: the
    evidence, leave-one-out, feature errors, `posterior.condition`. Its variance is a solve for each block of inputs.

    **Raises:** ValueError where a field is not such a number. Source: Gardner et al. (2018); Wang et al. (2019), Dubrulle
    (2001) for blocks.
    """

    tolerance: float = eqx.field(static=True, default=1e-3, converter=_fields.fraction("tolerance"))
    max_passes: int = eqx.field(static=True, default=500, converter=_fields.count("max_passes"))
    preconditioner: RandomPivots = eqx.field(kw_only=True, default_factory=RandomPivots)
    cache: int = eqx.field(static=True, kw_only=True, default=2**30)
    throw: bool = eqx.field(static=True, kw_only=True, default=True)

    def prepare(self, system: System) -> Prepared:
        kernel, L, mask, there = system.kernel, system.L, system.mask, system.there
        jitter = jnp.zeros_like(system.noise) if system.jitter is None else system.jitter
        diagonal = jnp.where(there, system.noise + jitter, jnp.ones_like(jitter))
        failed = ~jnp.all(diagonal > 0)
        diagonal = jnp.where(diagonal > 0, diagonal, jnp.ones_like(diagonal))
        small = L.size**2 * jnp.dtype(L.dtype).itemsize <= self.cache
        # A functional that cannot be taken apart has no rows.
        cached = L.gram(kernel) if small or not L.one_by_one else None
        covariance = Covariance(kernel, L, diagonal, mask, cached)
        fixed = jax.lax.stop_gradient(covariance)
        no = jnp.zeros((), bool)
        return Prepared(
            solution=Iterated(mask, covariance, self.preconditioner(fixed), self),
            jitter=jitter,
            added=jnp.zeros_like(jitter),
            scale=L.diagonal(kernel) + system.noise + jitter,
            failed=failed,
            shortfall=Shortfall(no, no, no, no),
        )

    def check(self, L: AbstractFunctional) -> None:
        if not L.one_by_one:
            Cholesky().check(L)

    def failure(self, L: AbstractFunctional, name: str) -> str:
        return (
            f"`noise_var` must be positive at each of the {L.size} points `{name}` for `ConjugateGradients`, which adds "
            "nothing of its own: give one, or a `jitter`, or use `solver=Cholesky()`."
        )

    def __check_init__(self):
        if not isinstance(self.preconditioner, RandomPivots):
            raise ValueError(f"`preconditioner` must be `RandomPivots`; got {type(self.preconditioner).__name__}.")
        _checks.count(self.cache, "cache", least=0)
        _checks.flag(self.throw, "throw")


class Iterated(AbstractSolution):
    """A⁻¹ by conjugate gradients.

    **Fields:** `mask`; `covariance`: A; `preconditioner`; `solver`: its settings.
    """

    mask: Bool[Array, "n"] | None
    covariance: Covariance
    preconditioner: Preconditioner
    solver: ConjugateGradients

    def solved(self, B: Float[Array, "*s n"], start: Float[Array, "*s n"] | None = None) -> Solved:
        x, _, report = self._iterated(B, start)
        return Solved(x, report)

    def solve(self, B: Float[Array, "*s n"]) -> Float[Array, "*s n"]:
        return self._checked(B)[0]

    def explained(self, B: Float[Array, "s n"]) -> Float[Array, "s"]:
        # Off by what is left of the residual, squared: bᵀx + rᵀx = bᵀA⁻¹b − rᵀA⁻¹r.
        x, residual = self._checked(B)
        return jnp.sum((self._seen(B) + residual) * x, axis=1)

    def between(self, B: Float[Array, "s n"], C: Float[Array, "r n"] | None = None) -> Float[Array, "s r"]:
        x, residual = self._checked(B)
        other, C = (x, B) if C is None else (self.solve(C), C)
        return inner(x, self._seen(C)) + inner(residual, other)

    def _checked(self, B: Float[Array, "*s n"]) -> tuple[Float[Array, "*s n"], Float[Array, "*s n"]]:
        x, residual, report = self._iterated(B, None)
        faults = self.faults(report)
        return (_checks.verdict(x, *faults) if faults else x), residual

    def _iterated(self, B: Float[Array, "*s n"], start: Float[Array, "*s n"] | None) -> tuple[Array, Array, Report]:
        """A⁻¹b, what is left of b, and how it ended."""
        flat = lambda values: self._seen(values).reshape(-1, values.shape[-1])
        first = None if start is None else jax.lax.stop_gradient(flat(start))

        def iterate(matmul: Any, right: Float[Array, "s n"]) -> tuple[Array, Any]:
            settings = self.solver.tolerance, self.solver.max_passes
            found = block_conjugate_gradients(matmul, right, self.preconditioner, *settings, first)
            return found.x, (found.residual, found.report)

        # Its derivative is a solve for the derivative: of A and B, not of the iterations.
        x, (residual, report) = jax.lax.custom_linear_solve(
            self.covariance.matmul, flat(B), iterate, symmetric=True, has_aux=True
        )
        report = report._replace(residuals=report.residuals.reshape(B.shape[:-1]))
        return x.reshape(B.shape), residual.reshape(B.shape), report

    def faults(self, report: Report | None) -> tuple[tuple[Bool[Array, ""], str], ...]:
        if report is None or not self.solver.throw:
            return ()
        return ((~report.converged, _not_converged(report, self.solver)),)

    def inverse_rows(self, places: Int[Array, "m"], at_the_end: bool) -> Float[Array, "m n"]:
        unit = jnp.zeros((places.shape[0], self.covariance.diagonal.shape[0]), self.covariance.diagonal.dtype)
        return self.solve(unit.at[jnp.arange(places.shape[0]), places].set(1))

    def inverse_diagonal(self) -> Float[Array, "n"]:
        raise ValueError(_NO_FACTOR)

    def log_det(self) -> Float[Array, ""]:
        raise ValueError(_NO_FACTOR)

    @property
    def factor(self) -> Any:
        raise ValueError(_NO_FACTOR)


_NO_FACTOR = (
    "A posterior that was solved by `ConjugateGradients` has no factor, which the evidence, leave-one-out, feature errors, "
    "updates and a change of units need. Condition with `solver=Cholesky()`, or ask a posterior of fewer observations; its "
    "mean, its variance and paths do without."
)


def _not_converged(report: Report, solver: ConjugateGradients) -> str:
    """The error where iterations did not reach the tolerance."""
    reached = ""
    if all(map(_checks.is_concrete, report)):
        reached = f": the largest residual is {float(jnp.max(report.residuals)):.2g} after {int(report.passes)} passes"
    return (
        f"`ConjugateGradients` did not reach its tolerance of {solver.tolerance:g}{reached}. Give more `max_passes`, a "
        "larger `tolerance`, or `preconditioner=RandomPivots(rank)` with a larger rank; a noise that is small beside the "
        "variance takes many passes, and in low precision rounding may not let it be reached. `throw=False` takes what there "
        "is, with its `report`."
    )
