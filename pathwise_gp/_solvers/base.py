"""How (L k Lᵀ + Σ)⁻¹ is applied to right-hand sides."""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from .._functionals import AbstractFunctional
from .._kernels import AbstractKernel
from .._modules import Printed
from .._numerics.solution import AbstractSolution
from .jitter import Shortfall


class System(NamedTuple):
    """A = L k Lᵀ + diag(noise + jitter), with rows and columns of the identity where the mask is False.

    **Fields:** `kernel`; `L`: what was observed, q values; `noise_var`: the noise beside that of the kernel, and `jitter`:
    what was asked for of it, or None; each a scalar, or one for each value, `q`, or as `L.spread` knows them; `mask`: `q`,
    or None.
    """

    kernel: AbstractKernel
    L: AbstractFunctional
    noise_var: Float[Array, "..."]
    jitter: Float[Array, "..."] | None
    mask: Bool[Array, "q"] | None

    @property
    def noise(self) -> Float[Array, "q"]:
        """Of each value, that of the kernel included."""
        return self.L.spread(self.noise_var.astype(self.L.dtype)) + self.L.noise(self.kernel)

    @property
    def given(self) -> Float[Array, "q"] | None:
        """The jitter of each value that was asked for, or None."""
        return None if self.jitter is None else self.L.spread(self.jitter.astype(self.L.dtype))

    @property
    def there(self) -> Bool[Array, "q"]:
        """Of each value whether it was observed."""
        return jnp.ones((self.L.size,), bool) if self.mask is None else self.mask


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


class Evidence(NamedTuple):
    """**Fields:** `log_density`; `lost`: whether the noise is rounding beside the variances."""

    log_density: Float[Array, ""]
    lost: Bool[Array, ""]


class AbstractSolver(Printed, eqx.Module):
    """A way to solve the one linear system of a posterior, A = L k Lᵀ + noise: `GPPrior.condition(…, solver=…)`."""

    @property
    def devices(self) -> Mesh | None:
        """Those that it works on together; None for the one that everything else is on."""
        return None

    @abc.abstractmethod
    def prepare(self, system: System) -> Prepared:
        """What is needed to apply A⁻¹, any number of times."""

    @abc.abstractmethod
    def log_density(self, system: System, residual: Float[Array, "q"]) -> Float[Array, ""]:
        """log N(residual | 0, A), smooth in the hyperparameters: without a jitter that was asked for, only values without
        noise have one. −∞ with zero derivatives where A is not positive definite."""

    @abc.abstractmethod
    def evidence(self, system: System, residual: Float[Array, "q"]) -> Evidence:
        """The same, not to be differentiated, with what it is worth."""

    @abc.abstractmethod
    def check(self, system: System) -> None:
        """Raises ValueError where it is not for such a system, or so many values are too many, before anything is
        computed."""

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
