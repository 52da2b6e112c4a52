"""What is solved by passes over the covariance."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from .. import _checks
from .._functionals import AbstractFunctional
from .._kernels import AbstractKernel
from .._numerics.conjugate_gradients import Preconditioner
from .._numerics.iterations import Found, Product
from .._numerics.lanczos import log_det
from .._numerics.linalg import add_diagonal, inner
from .._numerics.solution import AbstractSolution, Estimate, Report, Solved
from .base import AbstractSolver, Evidence, Prepared, System
from .cholesky import Cholesky
from .jitter import Shortfall


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

    def corner(self, start: Int[Array, ""], size: int) -> Float[Array, "b b"]:
        """The block of A on the diagonal from a number on."""
        there, diagonal = (_part(values, start, size) for values in (self.there, self.diagonal))
        if self.cached is not None:
            K = jax.lax.dynamic_slice(self.cached, (start, start), (size, size))
        else:
            K = self._from(start, size).gram(self.kernel)
        return add_diagonal(jnp.where(there[:, None] & there[None, :], K, jnp.zeros_like(K)), diagonal)

    def from_block(self, D: Float[Array, "s b"], start: Int[Array, ""]) -> Float[Array, "s n"]:
        """A v for vectors that are those of D from a number on, and 0 elsewhere."""
        size = D.shape[1]
        there, diagonal = (_part(values, start, size) for values in (self.there, self.diagonal))
        seen = jnp.where(there, D, jnp.zeros_like(D))
        if self.cached is not None:
            product = inner(jax.lax.dynamic_slice_in_dim(self.cached, start, size, axis=1), seen).T
        else:
            block = self._from(start, size)
            product = self.L.in_parts(lambda part: part.times(self.kernel, block, seen), size)
        product = self.seen(product)
        here = _part(product, start, size) + D * diagonal[None, :]
        return jax.lax.dynamic_update_slice_in_dim(product, here, start, axis=1)

    def _from(self, start: Int[Array, ""], size: int) -> AbstractFunctional:
        return self.L.take(start + jnp.arange(size))

    def matmul(self, V: Float[Array, "s n"]) -> Float[Array, "s n"]:
        """A v for each vector v of V: L k Lᵀ a block of rows at a time, of which none is kept."""
        seen = self.seen(V)
        if self.cached is not None:
            product = inner(self.cached, seen).T
        else:
            product = self.L.in_parts(lambda part: part.times(self.kernel, self.L, seen), self.L.width)
        return self.seen(product) + V * self.diagonal[None, :]


def _part(values: Shaped[Array, "*s n"], start: Int[Array, ""], size: int) -> Shaped[Array, "*s b"]:
    return jax.lax.dynamic_slice_in_dim(values, start, size, axis=-1)


class AbstractIterative(AbstractSolver):
    """A⁻¹b by products of A, or of some of its rows: in memory of the order of n, for as many observations as time allows."""

    tolerance: eqx.AbstractVar[float]
    max_passes: eqx.AbstractVar[int]
    cache: eqx.AbstractVar[int]
    throw: eqx.AbstractVar[bool]

    @property
    @abc.abstractmethod
    def remedy(self) -> str:
        """What may help where it does not converge."""

    @abc.abstractmethod
    def aid(self, covariance: Covariance) -> Any:
        """What is made of A once."""

    @abc.abstractmethod
    def probing(self, covariance: Covariance, aid: Any) -> Preconditioner:
        """What is near A and known in full, from which vectors are drawn that probe A⁻¹."""

    @abc.abstractmethod
    def iterate(
        self,
        covariance: Covariance,
        aid: Any,
        matmul: Product,
        B: Float[Array, "s n"],
        start: Float[Array, "s n"] | None,
    ) -> Found:
        """A⁻¹b for each vector b of B, and what is left of b."""

    def prepare(self, system: System) -> Prepared:
        kernel, L, mask, there, noise = system.kernel, system.L, system.mask, system.there, system.noise
        jitter = jnp.zeros_like(noise) if system.given is None else system.given
        diagonal = jnp.where(there, noise + jitter, jnp.ones_like(jitter))
        failed = ~jnp.all(diagonal > 0)
        diagonal = jnp.where(diagonal > 0, diagonal, jnp.ones_like(diagonal))
        small = L.size**2 * jnp.dtype(L.dtype).itemsize <= self.cache
        # A functional that cannot be taken apart has no rows.
        cached = L.gram(kernel) if small or not L.one_by_one else None
        covariance = Covariance(kernel, L, diagonal, mask, cached)
        no = jnp.zeros((), bool)
        return Prepared(
            solution=Iterated(mask, covariance, self.aid(jax.lax.stop_gradient(covariance)), self),
            jitter=jitter,
            added=jnp.zeros_like(jitter),
            scale=L.diagonal(kernel) + noise + jitter,
            failed=failed,
            shortfall=Shortfall(no, no, no, no),
        )

    def log_density(self, system: System, residual: Float[Array, "n"]) -> Float[Array, ""]:
        raise ValueError(_without_factor(self))

    def evidence(self, system: System, residual: Float[Array, "n"]) -> Evidence:
        raise ValueError(_without_factor(self))

    def check(self, system: System) -> None:
        if not system.L.one_by_one:
            Cholesky().check(system)

    def failure(self, L: AbstractFunctional, name: str) -> str:
        return (
            f"`noise_var` must be positive at each of the {L.size} points `{name}` for `{type(self).__name__}`, which adds "
            "nothing of its own: give one, or a `jitter`, or use `solver=Cholesky()`."
        )

    def __check_init__(self):
        _checks.count(self.cache, "cache", least=0)
        _checks.flag(self.throw, "throw")


class Iterated(AbstractSolution):
    """A⁻¹ by iterations.

    **Fields:** `mask`; `covariance`: A; `aid`: what the solver has made of it; `solver`.
    """

    mask: Bool[Array, "n"] | None
    covariance: Covariance
    aid: Any
    solver: AbstractIterative

    @property
    def grows(self) -> bool:
        return False

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
            found = self.solver.iterate(jax.lax.stop_gradient(self.covariance), self.aid, matmul, right, first)
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

    def colour(self, Z: Float[Array, "*s n"]) -> Float[Array, "*s n"]:
        raise ValueError(_without_factor(self.solver))

    def inverse_diagonal(self) -> Float[Array, "n"]:
        raise ValueError(_without_factor(self.solver))

    def log_det(self) -> Float[Array, ""]:
        raise ValueError(_without_factor(self.solver))

    def estimated_log_det(self, U: Float[Array, "s n"]) -> Estimate:
        E = self.solver.probing(self.covariance, self.aid)
        # Rows of the identity have a logarithm of 0.
        return log_det(self.covariance.matmul, E, U, _PASSES)

    @property
    def factor(self) -> Any:
        raise ValueError(_without_factor(self.solver))


# Of a log determinant, whose rule has as many nodes.
_PASSES = 30


def _without_factor(solver: AbstractIterative) -> str:
    return (
        f"A posterior that was solved by `{type(solver).__name__}` has no factor, which the evidence, leave-one-out, feature "
        "errors and `capacity` need. Condition with `solver=Cholesky()`, or ask a posterior of fewer observations; its mean, "
        "its variance and paths do without, and the evidence has an estimate, `estimate_log_marginal_likelihood`."
    )


def unsolved(solver: AbstractIterative) -> str:
    """The error where one of many solves did not reach the tolerance."""
    return (
        f"`{type(solver).__name__}` did not reach its tolerance of {solver.tolerance:g} within {solver.max_passes} passes "
        f"somewhere on the way. Give more `max_passes`, a larger `tolerance`, or {solver.remedy}; start from a larger noise; "
        "or `throw=False` takes what there is."
    )


def _not_converged(report: Report, solver: AbstractIterative) -> str:
    """The error where iterations did not reach the tolerance."""
    reached = ""
    if all(map(_checks.is_concrete, report)):
        reached = f": the largest residual is {float(jnp.max(report.residuals)):.2g} after {int(report.passes)} passes"
    return (
        f"`{type(solver).__name__}` did not reach its tolerance of {solver.tolerance:g}{reached}. Give more `max_passes`, a "
        f"larger `tolerance`, or {solver.remedy}; a noise that is small beside the variance takes many passes, and in low "
        "precision rounding may not let it be reached. `throw=False` takes what there is, with its `report`."
    )
