"""What is solved by passes over the covariance."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from .. import _checks
from .._functionals import AbstractFunctional
from .._kernels import AbstractKernel
from .._numerics.conjugate_gradients import Preconditioner
from .._numerics.iterations import Found, Product
from .._numerics.lanczos import log_det
from .._numerics.layout import Layout, restore, saved
from .._numerics.linalg import add_diagonal, inner
from .._numerics.solution import AbstractSolution, Estimate, Report, Solved
from .base import AbstractSolver, Evidence, Prepared, System
from .cholesky import Cholesky
from .jitter import Shortfall


class Covariance(eqx.Module):
    """A = L k Lᵀ + diag(diagonal), which is applied to vectors in a layout; rows and columns that are masked, and those of
    holes, are those of the identity.

    **Fields:** `kernel`; `L`; `layout`; `diagonal`: noise and jitter, `j b`, 1 where the mask is False; `there`: the mask, `j
    b`, or None; `cached`: L k Lᵀ where it is held, with a row for each place, `c j b`.
    """

    kernel: AbstractKernel
    L: AbstractFunctional
    layout: Layout
    diagonal: Float[Array, "j b"]
    there: Bool[Array, "j b"] | None
    cached: Float[Array, "c j b"] | None

    def seen(self, V: Float[Array, "*s j b"]) -> Float[Array, "*s j b"]:
        return V if self.there is None else jnp.where(self.there, V, jnp.zeros_like(V))

    @property
    def variances(self) -> Float[Array, "j b"]:
        """The diagonal of L k Lᵀ."""
        return self.seen(self.layout.fold(self.L.diagonal(self.kernel)))

    def row(self, i: Any) -> Float[Array, "j b"]:
        """Row i of L k Lᵀ, by the number of an observation."""
        if self.cached is not None:
            return self.seen(self.cached[self.layout.place_of(i)])
        return self.seen(self.layout.fold(self.L.take(jnp.reshape(i, (1,))).cross(self.kernel, self.L)[0]))

    def corner(self, i: Int[Array, ""]) -> Float[Array, "b b"]:
        """The block of A on the diagonal that has a number."""
        held = self.cached is not None
        K = self._of_block(i)[:, i] if held else self.L.take(self.layout.numbers[i]).gram(self.kernel)
        if self.there is not None:
            here = self.there[i]
            K = jnp.where(here[:, None] & here[None, :], K, jnp.zeros_like(K))
        return add_diagonal(K, self.diagonal[i])

    def from_block(self, D: Float[Array, "s b"], i: Int[Array, ""]) -> Float[Array, "s j b"]:
        """A v for vectors that are those of D in the block that has a number, and 0 elsewhere."""
        seen = D if self.there is None else jnp.where(self.there[i], D, jnp.zeros_like(D))
        if self.cached is not None:
            product = self.layout.applied(self._of_block(i), seen)
        else:
            block = self.L.take(self.layout.numbers[i])
            product = self.layout.own(_times, self.L, self.kernel, block, seen)
        return self.seen(product).at[:, i].add(D * self.diagonal[i][None, :])

    def _of_block(self, i: Int[Array, ""]) -> Float[Array, "b j b"]:
        width = self.layout.width
        assert self.cached is not None
        return jax.lax.dynamic_slice_in_dim(self.cached, i * width, width)

    def matmul(self, V: Float[Array, "s j b"]) -> Float[Array, "s j b"]:
        """A v for each vector v of V: L k Lᵀ a block of rows at a time, of which none is kept."""
        seen = self.seen(V)
        if self.cached is not None:
            product = self.layout.applied(self.cached, seen.reshape(V.shape[0], -1))
        else:
            product = self.layout.own(_times, self.L, self.kernel, self.L, self.layout.unfold(seen))
        return self.seen(product) + V * self.diagonal[None, :, :]

    def holding(self, cached: Float[Array, "c j b"] | None) -> "Covariance":
        """The same with L k Lᵀ."""
        return eqx.tree_at(lambda A: A.cached, self, cached, is_leaf=lambda leaf: leaf is None)

    def laid_out(self, layout: Layout) -> "Covariance":
        """The same for vectors in another layout."""
        if layout == self.layout:
            return self
        move = lambda values: layout.fold(self.layout.unfold(values))
        diagonal = jnp.where(layout.filled, move(self.diagonal), jnp.ones((), self.diagonal.dtype))
        there = layout.filled if self.there is None else move(self.there)
        cached = None
        if self.cached is not None:
            cached = move(self.cached)[self.layout.place_of(layout.numbers.reshape(-1))]
        return Covariance(self.kernel, self.L, layout, diagonal, there, cached)


def _times(
    own: AbstractFunctional, kernel: AbstractKernel, L: AbstractFunctional, V: Float[Array, "s q"]
) -> Float[Array, "s p"]:
    return own.in_parts(lambda part: part.times(kernel, L, V), L.width)


def _columns(own: AbstractFunctional, kernel: AbstractKernel, L: AbstractFunctional) -> Float[Array, "q p"]:
    return L.cross(kernel, own)


class AbstractIterative(AbstractSolver):
    """A⁻¹b by products of A, or of some of its rows: in memory of the order of n, for as many observations as time allows."""

    tolerance: eqx.AbstractVar[float]
    max_passes: eqx.AbstractVar[int]
    cache: eqx.AbstractVar[int]
    throw: eqx.AbstractVar[bool]
    mesh: eqx.AbstractVar[Mesh | None]

    def __getstate__(self) -> dict[str, Any]:
        return saved(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        restore(self, state)

    @property
    def devices(self) -> Mesh | None:
        return self.mesh

    @abc.abstractmethod
    def layout(self, n: int) -> Layout:
        """Where the entries of right-hand sides of n numbers lie."""

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
        B: Float[Array, "s j b"],
        start: Float[Array, "s j b"] | None,
    ) -> Found:
        """A⁻¹b for each vector b of B, and what is left of b."""

    def prepare(self, system: System) -> Prepared:
        noise = system.noise
        jitter = jnp.zeros_like(noise) if system.given is None else system.given
        covariance = self.covariance(system)
        covariance = covariance.holding(self._held(covariance))
        no = jnp.zeros((), bool)
        return Prepared(
            solution=Iterated(system.mask, covariance, self.aid(jax.lax.stop_gradient(covariance)), self),
            jitter=jitter,
            added=jnp.zeros_like(jitter),
            scale=system.L.diagonal(system.kernel) + noise + jitter,
            failed=~jnp.all(jnp.where(system.there, noise + jitter, 1) > 0),
            shortfall=Shortfall(no, no, no, no),
        )

    def covariance(self, system: System) -> Covariance:
        """A, of which nothing is held."""
        noise, layout = system.noise, self.layout(system.L.size)
        diagonal = noise if system.given is None else noise + system.given
        one = jnp.ones((), diagonal.dtype)
        # Where there is no noise the solve has failed, and is to come to an end.
        diagonal = layout.fold(jnp.where(system.there & (diagonal > 0), diagonal, one))
        there = None if system.mask is None and layout.full else layout.fold(system.there)
        kernel, L = layout.everywhere((system.kernel, system.L))
        return Covariance(kernel, L, layout, jnp.where(layout.filled, diagonal, one), there, None)

    def _held(self, A: Covariance) -> Float[Array, "c j b"] | None:
        """L k Lᵀ where it is to be held: where it is small, or the functional cannot be taken apart."""
        L, layout = A.L, A.layout
        places = layout.numbers.reshape(-1)
        if not L.one_by_one:
            K = L.gram(A.kernel)
            K = K if layout.full else K[places][:, places]
            return K.reshape(-1, layout.n_blocks, layout.width)
        if L.size**2 * jnp.dtype(L.dtype).itemsize > self.cache * layout.n_devices:
            return None
        at_all = L if layout.full else L.take(places)
        if layout.mesh is None:
            return at_all.cross(A.kernel, at_all).reshape(-1, layout.n_blocks, layout.width)
        return layout.own(_columns, L, A.kernel, at_all)

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
        return (_checks.verdict(x, *faults, mesh=self.solver.mesh) if faults else x), residual

    def _iterated(self, B: Float[Array, "*s n"], start: Float[Array, "*s n"] | None) -> tuple[Array, Array, Report]:
        """A⁻¹b, what is left of b, and how it ended."""
        layout = self.covariance.layout
        fold = lambda values: layout.fold(self._seen(values).reshape(-1, values.shape[-1]))
        unfold = lambda values: layout.unfold(values).reshape(B.shape)
        first = None if start is None else jax.lax.stop_gradient(fold(start))

        def iterate(matmul: Any, right: Float[Array, "s j b"]) -> tuple[Array, Any]:
            found = self.solver.iterate(jax.lax.stop_gradient(self.covariance), self.aid, matmul, right, first)
            return found.x, (found.residual, found.report)

        # Its derivative is a solve for the derivative: of A and B, not of the iterations.
        x, (residual, report) = jax.lax.custom_linear_solve(
            self.covariance.matmul, fold(B), iterate, symmetric=True, has_aux=True
        )
        report = report._replace(residuals=report.residuals.reshape(B.shape[:-1]))
        return unfold(x), unfold(residual), report

    def faults(self, report: Report | None) -> tuple[tuple[Bool[Array, ""], str], ...]:
        if report is None or not self.solver.throw:
            return ()
        return ((~report.converged, _not_converged(report, self.solver)),)

    def inverse_rows(self, places: Int[Array, "m"], at_the_end: bool) -> Float[Array, "m n"]:
        unit = jnp.zeros((places.shape[0], self.covariance.L.size), self.covariance.diagonal.dtype)
        return self.solve(unit.at[jnp.arange(places.shape[0]), places].set(1))

    def colour(self, Z: Float[Array, "*s n"]) -> Float[Array, "*s n"]:
        raise ValueError(_without_factor(self.solver))

    def inverse_diagonal(self) -> Float[Array, "n"]:
        raise ValueError(_without_factor(self.solver))

    def log_det(self) -> Float[Array, ""]:
        raise ValueError(_without_factor(self.solver))

    def estimated_log_det(self, U: Float[Array, "s n"]) -> Estimate:
        A, E = self._probing()
        matmul = lambda V: A.matmul(V[:, None, :])[:, 0]
        # Rows of the identity have a logarithm of 0.
        return log_det(matmul, E, A.layout.fold(U)[:, 0], _PASSES, A.layout.n)

    def probes(self, U: Float[Array, "s n"]) -> tuple[Float[Array, "s n"], Float[Array, "s n"]]:
        """Draws with the covariance P that is near A and known in full, from standard normal vectors u: P⁻¹z, and z."""
        A, E = self._probing()
        U = A.layout.fold(U)[:, 0]
        vectors = lambda V: self._seen(A.layout.unfold(V[:, None, :]))
        return vectors(E(U)), vectors(E.inverse_transposed(U))

    def _probing(self) -> tuple[Covariance, Preconditioner]:
        A = self.covariance.laid_out(Layout(n=self.covariance.L.size, mesh=self.solver.mesh))
        return A, self.solver.probing(A, self.aid)

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
