"""What is known of the inverse of a symmetric positive definite matrix: a factor, or a way to solve for one right-hand side
after the other."""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Report(NamedTuple):
    """How iterations ended.

    **Fields:** `residuals`: ‖b − Ax‖ / ‖b‖ as it is, computed anew from x, of each right-hand side, `*s`; `passes`: how often
    all of A was applied; `converged`: whether all residuals are within the tolerance; `history`: the largest and the mean
    residual after each pass as the recurrence has it, NaN beyond the last, `passes+1 2`.
    """

    residuals: Float[Array, "*s"]
    passes: Int[Array, ""]
    converged: Bool[Array, ""]
    history: Float[Array, "k 2"]


class Solved(NamedTuple):
    """**Fields:** `x`: A⁻¹b for each b, `*s n`; `report`: of iterations, else None."""

    x: Float[Array, "*s n"]
    report: Report | None


class Estimate(NamedTuple):
    """A number from random vectors.

    **Fields:** `value`; `standard_error`: of it, 0 where it is exact.
    """

    value: Float[Array, "..."]
    standard_error: Float[Array, "..."]


class AbstractSolution(eqx.Module):
    """A⁻¹ for right-hand sides that carry the n axis last. With a `mask`, `n`, A has rows and columns of the identity where
    it is False, and entries of right-hand sides count as 0 there."""

    mask: eqx.AbstractVar[Bool[Array, "n"] | None]

    @property
    @abc.abstractmethod
    def grows(self) -> bool:
        """Whether it is that of a larger A by what is new alone; else that is solved from the start."""

    @abc.abstractmethod
    def solved(self, B: Float[Array, "*s n"], start: Float[Array, "*s n"] | None = None) -> Solved:
        """A⁻¹b for each vector b of B, and how well. Iterations begin at `start`; what is exact does not need one."""

    def faults(self, report: Report | None) -> tuple[tuple[Bool[Array, ""], str], ...]:
        """Of a solve: what is an error where it is true, and its words."""
        return ()

    @abc.abstractmethod
    def solve(self, B: Float[Array, "*s n"]) -> Float[Array, "*s n"]:
        """A⁻¹b for each vector b of B; an error (at run time) where that did not succeed."""

    @abc.abstractmethod
    def explained(self, B: Float[Array, "s n"]) -> Float[Array, "s"]:
        """bᵀA⁻¹b for each vector b of B."""

    @abc.abstractmethod
    def between(self, B: Float[Array, "s n"], C: Float[Array, "r n"] | None = None) -> Float[Array, "s r"]:
        """B A⁻¹Cᵀ; B A⁻¹Bᵀ where C is not given."""

    @abc.abstractmethod
    def inverse_rows(self, places: Int[Array, "m"], at_the_end: bool) -> Float[Array, "m n"]:
        """Some rows of A⁻¹, by their numbers, of which it may be known that they are the last, one after the other."""

    @abc.abstractmethod
    def inverse_diagonal(self) -> Float[Array, "n"]:
        """The diagonal of A⁻¹."""

    @abc.abstractmethod
    def colour(self, Z: Float[Array, "*s n"]) -> Float[Array, "*s n"]:
        """A root of A times each vector z of Z: of standard normal ones, draws with covariance A."""

    @abc.abstractmethod
    def log_det(self) -> Float[Array, ""]:
        """log |A|."""

    def estimated_log_det(self, U: Float[Array, "s n"]) -> Estimate:
        """log |A|, from standard normal vectors where it is not known exactly."""
        value = self.log_det()
        return Estimate(value, jnp.zeros_like(value))

    @property
    @abc.abstractmethod
    def factor(self) -> Any:
        """The Cholesky factor of A, or an error that says what to do where there is none."""

    def _seen(self, B: Float[Array, "*s n"]) -> Float[Array, "*s n"]:
        return B if self.mask is None else jnp.where(self.mask, B, jnp.zeros_like(B))
