"""The dense factorisation."""

import math
import os
import pathlib

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._functionals import AbstractFunctional
from .._numerics.lapack import cholesky
from .._numerics.linalg import add_diagonal, CholeskyFactor, density_of, gaussian_log_density, seen
from .base import AbstractSolver, Evidence, Prepared, System
from .jitter import FOR_A_DENSITY, is_lost, LARGEST, settle, smooth


class Cholesky(AbstractSolver):
    """A = L Lᵀ, factorised once, in O(n³) and two or three n × n matrices. It is exact, and all that a posterior can say
    (variances, the evidence, leave-one-out, updates) is at hand. The default.

    **Raises:** ValueError where the matrix and its factor do not fit into memory.
    """

    def prepare(self, system: System) -> Prepared:
        return Prepared(*settle(system.L.gram(system.kernel), system.noise, system.given, system.mask))

    def log_density(self, system: System, residual: Float[Array, "q"]) -> Float[Array, ""]:
        A, residual, unseen = _seen(system, residual)
        return gaussian_log_density(A, residual) + unseen

    def evidence(self, system: System, residual: Float[Array, "q"]) -> Evidence:
        A, residual, unseen = _seen(system, residual)
        factor = CholeskyFactor(cholesky(A))
        n_eps = jnp.asarray(residual.shape[0] * jnp.finfo(A.dtype).eps, A.dtype)
        pivots = jnp.diagonal(factor.lower) ** 2
        lost = ~factor.is_finite() | is_lost(pivots, system.noise, jnp.diagonal(A), FOR_A_DENSITY * n_eps)
        return Evidence(density_of(factor, residual) + unseen, lost)

    def check(self, system: System) -> None:
        n, dtype = system.L.size, system.L.dtype
        needed = 2 * n * n * jnp.dtype(dtype).itemsize
        there = memory() if needed > _ALWAYS_THERE else None
        if there is not None and needed > there:
            raise ValueError(
                f"A Cholesky factorisation of {n:,} observations holds at least {needed / 2**30:.1f} GiB in {dtype}, and "
                f"there are {there / 2**30:.1f} GiB. Pass `solver=ConjugateGradients()`, whose memory grows with n alone; or "
                "condition inducing values (`SparseGPPrior`)."
            )

    def failure(self, L: AbstractFunctional, name: str) -> str:
        return (
            f"The covariance matrix of the {L.size} points `{name}` is not positive definite in {L.dtype}, not even with a "
            f"jitter that was raised by decades to {LARGEST} of the variance of each. Give a larger `jitter` or noise, "
            "remove (nearly) repeated points, shorten a lengthscale that is long beside the spread of the points, subtract "
            "an offset from the inputs of a linear kernel, or compute in float64."
        )


def _seen(
    system: System, residual: Float[Array, "q"]
) -> tuple[Float[Array, "q q"], Float[Array, "q"], Float[Array, ""]]:
    """A and the residual, and what is to be added to their log density for what was not observed, which is left in them as
    independent standard normal values, all 0."""
    kernel, L, mask, noise, jitter = system.kernel, system.L, system.mask, system.noise, system.given
    added = noise + (smooth(L.diagonal(kernel), noise, mask) if jitter is None else jitter)
    A = add_diagonal(L.gram(kernel), added)
    if mask is None:
        return A, residual, jnp.zeros((), residual.dtype)
    unseen = 0.5 * math.log(2 * math.pi) * jnp.sum(~mask).astype(residual.dtype)
    return seen(A, mask), jnp.where(mask, residual, jnp.zeros_like(residual)), unseen


# So many bytes are not asked about.
_ALWAYS_THERE = 2**28
# Of a container, in the second and in the first version of control groups.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory() -> int | None:
    """Bytes of memory of the device that computes, in all; None where that is not known."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    try:
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):
        return None
    for path in _LIMITS:
        try:
            found.append(int(pathlib.Path(path).read_text()))
        except (OSError, ValueError):  # no such file, or no limit
            continue
    return min(found)
