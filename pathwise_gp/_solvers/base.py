"""How (L k Lᵀ + Σ)⁻¹ is applied to right-hand sides."""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._functionals import AbstractFunctional
from .._kernels import AbstractKernel
from .._modules import Printed
from .._numerics.solution import AbstractSolution
from .jitter import Shortfall


class System(NamedTuple):
    """A = L k Lᵀ + diag(noise + jitter), with rows and columns of the identity where the mask is False.

    **Fields:** `kernel`; `L`: what was observed, q values; `noise`: `q`; `jitter`: what was asked for, `q`, or None; `mask`:
    `q`, or None.
    """

    kernel: AbstractKernel
    L: AbstractFunctional
    noise: Float[Array, "q"]
    jitter: Float[Array, "q"] | None
    mask: Bool[Array, "q"] | None

    @property
    def there(self) -> Bool[Array, "q"]:
        """Of each value whether it was observed."""
        return jnp.ones(self.noise.shape, bool) if self.mask is None else self.mask


class Prepared(NamedTuple):
    """A system that can be solved.

    **Fields:** `solution`; `jitter`: all that was added to the diagonal beside the noise, `q`; `added`: what of it was not
    asked for, `q`; `scale`: the variance of each value, noise included, `q`; `failed`: whether it cannot be solved;
    `shortfall`: how it falls short of the model.
    """

    solution: AbstractSolution
    jitter: Float[Array, "q"]
    added: Float[Array, "q"]
    scale: Float[Array, "q"]
    failed: Bool[Array, ""]
    shortfall: Shortfall


class AbstractSolver(Printed, eqx.Module):
    """A way to solve the one linear system of a posterior, A = L k Lᵀ + noise: `GPPrior.condition(…, solver=…)`."""

    @abc.abstractmethod
    def prepare(self, system: System) -> Prepared:
        """What is needed to apply A⁻¹, any number of times."""

    @abc.abstractmethod
    def check(self, L: AbstractFunctional) -> None:
        """Raises ValueError where so many values are too many, before anything is computed."""

    @abc.abstractmethod
    def failure(self, L: AbstractFunctional, name: str) -> str:
        """The error where `prepare` failed, for values of L, which the user knows as `name`."""


def as_solver(solver: Any) -> AbstractSolver:
    """A solver, or an error."""
    if isinstance(solver, AbstractSolver):
        return solver
    hint = (
        f" Make one of it: `{solver.__name__}()`."
        if isinstance(solver, type) and issubclass(solver, AbstractSolver)
        else ""
    )
    raise ValueError(
        f"`solver` must be a solver, such as `Cholesky()` or `ConjugateGradients()`; got {solver!r}.{hint}"
    )
