"""The structure of a full grid of points and outputs."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._functionals import AbstractFunctional, Values
from .._kernels import AbstractKernel
from .._numerics.kronecker import factorise, KroneckerFactor, rounding_of, scaled
from .._numerics.lapack import eigh
from .base import AbstractSolver, Evidence, Prepared, System
from .cholesky import Cholesky
from .jitter import FIRST, LARGEST, OF_NOISE, OF_VARIANCE, Shortfall, smooth

# What eigenvalues may be off by, beside the least of them, before it is said.
_LOST = 0.1


class Kronecker(AbstractSolver):
    """A = K ⊗ B + I ⊗ diag(noise), of all outputs at all points (`AllOutputs`) under a kernel that is a product
    (`Coregionalised`), with a noise for each output: by the eigenvectors of K and B, in O(n³ + p³) instead of O(n³p³). It is
    what is used where that is so, unless another is asked for.

    **Raises:** ValueError where it is not: outputs are missing, or have a noise for each value. Source: Rakitsch et al.
    (2013), equation 7.
    """

    def prepare(self, system: System) -> Prepared:
        grid = _grid_of(system)
        K = Values(grid.X).gram(grid.kernel)
        given, asked = grid.jitter, grid.noise + grid.jitter
        q, dtype, fixed = system.L.size, system.L.dtype, jax.lax.stop_gradient
        variance = fixed(grid.variance)
        first = FIRST * q * float(jnp.finfo(dtype).eps)
        n_steps = 1 + max(0, math.floor(math.log10(LARGEST / first) + 1e-9))
        steps = jnp.asarray([0.0] + [first * 10.0**i for i in range(n_steps)], dtype)
        # The policy of `settle`: what is needed is known from the eigenvalues, of which those of K stay as they are.
        values = eigh(fixed(K))[0]
        outputs = jax.vmap(lambda step: _eigenvalues(fixed(grid.B), fixed(asked) + step * variance))(steps)
        enough = rounding_of(values, outputs) <= 1
        step = jnp.where(jnp.any(enough), steps[jnp.argmax(enough)], steps[-1])
        added = step * variance
        factor = factorise(K, grid.B, asked + added)
        shortfall = Shortfall(
            raised=(step > 0) & jnp.any(given > 0) if system.jitter is not None else jnp.zeros((), bool),
            drowned=jnp.any((asked > 0) & (added > OF_NOISE * asked)),
            coarse=(step > OF_VARIANCE) & jnp.any(asked <= 0),
            lost=(factor.rounding() > _LOST) & jnp.all(asked > 0),  # where there is none, none is lost
        )
        each = system.L.of_outputs
        return Prepared(
            solution=factor,
            jitter=each(given + added),
            added=each(added),
            scale=fixed(system.L.diagonal(system.kernel)) + each(asked),
            failed=~factor.is_definite(),
            shortfall=shortfall,
        )

    def log_density(self, system: System, residual: Float[Array, "q"]) -> Float[Array, ""]:
        return _density_factor(system).log_density(residual)

    def evidence(self, system: System, residual: Float[Array, "q"]) -> Evidence:
        factor = _density_factor(system)
        lost = (factor.rounding() > _LOST) & jnp.all(_grid_of(system).noise > 0)
        return Evidence(factor.log_density(residual), lost | ~factor.is_definite())

    def check(self, system: System) -> None:
        if why := unstructured(system):
            raise ValueError(f"`Kronecker` is for a full grid of outputs, and {why}. Leave `solver` out.")

    def failure(self, L: AbstractFunctional, name: str) -> str:
        return Cholesky().failure(L, name)


class _Grid(NamedTuple):
    """A system by points and outputs.

    **Fields:** `kernel`: of the points X, `n d`; `B`: of the outputs, `p p`; `noise`, `jitter`: of each output, `p`;
    `variance`: the mean over the points of each output's, `p`.
    """

    kernel: AbstractKernel
    X: Float[Array, "n d"]
    B: Float[Array, "p p"]
    noise: Float[Array, "p"]
    jitter: Float[Array, "p"]
    variance: Float[Array, "p"]


def _grid_of(system: System) -> _Grid:
    L, parts = system.L, system.kernel.outputs(system.L.dim)
    assert L.grid is not None and parts is not None
    (X, p), (kernel, B) = L.grid, parts
    B = B[:p, :p].astype(X.dtype)
    of_outputs = lambda values: jnp.broadcast_to(values.astype(X.dtype), (p,))
    noise, jitter = of_outputs(system.noise_var), system.jitter
    jitter = jnp.zeros_like(noise) if jitter is None else of_outputs(jitter)
    return _Grid(kernel, X, B, noise, jitter, jnp.mean(kernel.diagonal(X)) * jnp.diagonal(B))


def _density_factor(system: System) -> KroneckerFactor:
    grid = _grid_of(system)
    added = smooth(grid.variance, grid.noise, None, system.L.size) if system.jitter is None else grid.jitter
    return factorise(Values(grid.X).gram(grid.kernel), grid.B, grid.noise + added)


def _eigenvalues(B: Float[Array, "p p"], noise: Float[Array, "p"]) -> Float[Array, "p"]:
    """Those of D^{−½}BD^{−½}; infinite where an output has no noise."""
    one = jnp.where(noise > 0, noise, jnp.ones_like(noise))
    return jnp.where(jnp.all(noise > 0), eigh(scaled(B, one))[0], jnp.full_like(noise, jnp.inf))


def suited(system: System) -> AbstractSolver:
    """The solver where none was asked for."""
    return Cholesky() if unstructured(system) else Kronecker()


def unstructured(system: System) -> str | None:
    """Why a system has not the structure of a full grid; None where it has."""
    L, kernel = system.L, system.kernel
    parts, grid = kernel.outputs(L.dim), L.grid
    if grid is None:
        return f"what was observed is a `{type(L).__name__}`, not `AllOutputs`"
    if parts is None:
        return f"`{kernel.label()}` is not a product of a kernel of the inputs and a covariance of the outputs"
    if any(term.basis_size(L.dim - 1) == 0 for term in parts[0].terms(L.dim - 1)):
        return f"`{kernel.label()}` holds noise (`White`)"
    if system.mask is not None:
        return "a `mask` leaves some of the outputs out"
    given = (system.noise_var,) if system.jitter is None else (system.noise_var, system.jitter)
    if any(values.shape not in ((), (grid[1],)) for values in given):
        return "the noise or the jitter was given for each value"
    return None
