"""The log determinant of a matrix that is applied, by stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017) beside that of
its preconditioner (Wenger et al. 2022)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .conjugate_gradients import Preconditioner
from .iterations import Product
from .lapack import eigh
from .solution import Estimate


def log_det(matmul: Product, E: Preconditioner, U: Float[Array, "s m"], passes: int, n: int) -> Estimate:
    """log |A| = log |P| + tr log(EᵀAE) with P⁻¹ = E Eᵀ, from vectors u in directions that are uniform, as those of normal
    ones, and of length √n, of which uᵀ log(EᵀAE) u is a quadrature rule with as many nodes as passes. All but n entries
    are 0, where A is the identity. The error is that of the mean over the vectors, and what the second half of the passes has
    changed."""
    alphas, betas = _tridiagonal(lambda V: E.transposed(matmul(E(V))), U, passes)
    whole, half = (
        jnp.asarray(n, U.dtype) * _quadrature(alphas[:, :k], betas[:, : k - 1]) for k in (passes, max(1, passes // 2))
    )
    of_mean = jnp.std(whole, ddof=1) / jnp.sqrt(jnp.asarray(U.shape[0], U.dtype))
    changed = jnp.abs(jnp.mean(whole) - jnp.mean(half))
    return Estimate(E.log_det() + jnp.mean(whole), jnp.hypot(of_mean, changed))


def _tridiagonal(
    matmul: Product, U: Float[Array, "s n"], passes: int
) -> tuple[Float[Array, "s k"], Float[Array, "s k"]]:
    """The diagonals of the tridiagonal matrices that Lanczos' recurrence makes from each vector, on and beside the middle."""

    def step(state: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], tuple[Array, Array]]:
        before, here, beta = state
        there = matmul(here) - beta[:, None] * before
        alpha = jnp.sum(there * here, axis=1)
        there = there - alpha[:, None] * here
        norm = jnp.sqrt(jnp.sum(there * there, axis=1))
        # What is left where the space is exhausted is rounding.
        done = norm <= 10 * jnp.finfo(U.dtype).eps * jnp.abs(alpha)
        norm = jnp.where(done, jnp.zeros_like(norm), norm)
        after = jnp.where(done[:, None], jnp.zeros_like(there), there / jnp.where(done, 1, norm)[:, None])
        return (here, after, norm), (alpha, norm)

    first = U / jnp.sqrt(jnp.sum(U * U, axis=1))[:, None]
    start = (jnp.zeros_like(U), first, jnp.zeros(U.shape[0], U.dtype))
    _, (alphas, betas) = jax.lax.scan(step, start, None, passes)
    return alphas.T, betas.T


def _quadrature(alphas: Float[Array, "s k"], betas: Float[Array, "s k-1"]) -> Float[Array, "s"]:
    """e₁ᵀ log(T) e₁ of each tridiagonal matrix T."""

    def one(alpha: Float[Array, "k"], beta: Float[Array, "k-1"]) -> Float[Array, ""]:
        values, vectors = eigh(jnp.diag(alpha) + jnp.diag(beta, 1) + jnp.diag(beta, -1))
        # A space that was exhausted leaves zeros, of which the first vector has no part.
        weight = vectors[0] ** 2
        part = (weight > 0) & (values > 0)
        return jnp.sum(jnp.where(part, weight * jnp.log(jnp.where(part, values, 1)), 0))

    return jax.vmap(one)(alphas, betas)
