"""Factorisations and triangular solves that come back: in a batch, one matrix after the other on a CPU.

XLA hands a batch to LAPACK in pieces, on the pool of threads in which the call itself waits for them. Where as many such
calls run at once as the pool has threads, each waits for work that none is left to do, and the program stops for good (two
triangular solves of one batch of factors on two cores). A matrix on its own is no such call.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def one_at_a_time(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function of arrays, which under `vmap` goes member by member on a CPU and all at once elsewhere.

    It has no derivatives of its own: the caller gives them. `vmap` of `vmap`, loops and jit are as ever.
    """
    each = jax.custom_batching.custom_vmap(function)

    @each.def_vmap
    def _rule(_: int, batched: list[bool], *args: Array) -> tuple[Any, Any]:
        axes = [0 if has_axis else None for has_axis in batched]
        mapped = [x for x, has_axis in zip(args, batched, strict=True) if has_axis]

        def whole(mapped: Iterable[Array]) -> list[Array]:
            own = iter(mapped)
            return [next(own) if has_axis else x for x, has_axis in zip(args, batched, strict=True)]

        in_turn = lambda *mapped: jax.lax.map(lambda member: each(*whole(member)), mapped)
        together = lambda *mapped: jax.vmap(function, axes)(*whole(mapped))
        out = jax.lax.platform_dependent(*mapped, cpu=in_turn, default=together)
        return out, jax.tree.map(lambda _: True, out)

    return each


@one_at_a_time
def _cholesky(K: Float[Array, "n n"]) -> Float[Array, "n n"]:
    return jax.lax.linalg.cholesky(K, symmetrize_input=False)


@jax.custom_jvp
def cholesky(K: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Lower Cholesky factor of a symmetric matrix; NaN where it is not positive definite."""
    # One entry needs no LAPACK, nor one member after the other.
    return jnp.where(K > 0, jnp.sqrt(K), jnp.nan) if K.shape[0] == 1 else _cholesky(K)


@cholesky.defjvp
def _cholesky_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    lower = cholesky(*primals)
    return lower, change_of_factor(lower, tangents[0])


def change_of_factor(lower: Float[Array, "n n"], dA: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """dL of A = L Lᵀ: dL = L Φ(L⁻¹ dA L⁻ᵀ) with Φ the lower triangle and half the diagonal (Murray 2016)."""
    inside = jnp.tril(_linear_solve(lower, _linear_solve(lower, dA).T))
    inside = inside - 0.5 * jnp.diag(jnp.diagonal(inside))
    return jnp.matmul(lower, inside, precision=jax.lax.Precision.HIGHEST)


def _substitution(transpose: bool) -> Callable[..., Any]:
    """L⁻¹B or L⁻ᵀB; in a batch with one factor, of all columns at once."""

    def solve(L: Float[Array, "n n"], B: Float[Array, "n k"]) -> Float[Array, "n k"]:
        # By Lᵀ, which in the order of LAPACK is L as it lies in memory: no copy of it is made.
        return jax.lax.linalg.triangular_solve(L.T, B, left_side=True, transpose_a=not transpose)

    in_turn, shared = one_at_a_time(solve), jax.custom_batching.custom_vmap(solve)

    @shared.def_vmap
    def _rule(_: int, batched: list[bool], L: Array, B: Array) -> tuple[Array, bool]:
        if batched[0]:
            return jax.vmap(in_turn, [0 if has_axis else None for has_axis in batched])(L, B), True
        members, n, k = B.shape
        columns = shared(L, jnp.moveaxis(B, 0, 1).reshape(n, members * k))
        return jnp.moveaxis(columns.reshape(n, members, k), 1, 0), True

    return shared


_FORWARD, _BACKWARD = _substitution(transpose=False), _substitution(transpose=True)


def _product(L: Float[Array, "n n"], X: Float[Array, "n k"], transpose: bool) -> Float[Array, "n k"]:
    lower = jnp.tril(L)
    return jnp.matmul(lower.T if transpose else lower, X, precision=jax.lax.Precision.HIGHEST)


def _linear_solve(L: Float[Array, "n n"], B: Float[Array, "n k"], *, transpose: bool = False) -> Float[Array, "n k"]:
    """The same for tangents: it can be transposed, which takes several times as long to trace."""
    there, back = (_BACKWARD, _FORWARD) if transpose else (_FORWARD, _BACKWARD)
    product = lambda X: _product(L, X, transpose)
    return jax.lax.custom_linear_solve(product, B, lambda _, B: there(L, B), lambda _, B: back(L, B))


def _with_derivatives(transpose: bool) -> Callable[..., Any]:
    @jax.custom_jvp
    def solve(L: Float[Array, "n n"], B: Float[Array, "n k"]) -> Float[Array, "n k"]:
        return (_BACKWARD if transpose else _FORWARD)(L, B)

    def rule(primals: Any, tangents: Any) -> tuple[Array, Array]:
        (L, B), (dL, dB) = primals, tangents
        X = solve(L, B)
        is_zero = lambda tangent: isinstance(tangent, jax.custom_derivatives.SymbolicZero)
        change = jnp.zeros_like(X) if is_zero(dB) else dB
        if not is_zero(dL):
            change = change - _product(dL, X, transpose)
        return X, _linear_solve(L, change, transpose=transpose)

    solve.defjvp(rule, symbolic_zeros=True)
    return solve


_SOLVE, _SOLVE_TRANSPOSED = _with_derivatives(transpose=False), _with_derivatives(transpose=True)


def solve_lower(L: Float[Array, "n n"], B: Float[Array, "n k"], *, transpose: bool = False) -> Float[Array, "n k"]:
    """L⁻¹B for a lower-triangular L, or L⁻ᵀB; with derivatives of any order."""
    if L.shape[0] == 1:
        return B / L
    return (_SOLVE_TRANSPOSED if transpose else _SOLVE)(L, B)


class Orthogonal(NamedTuple):
    """A = QR: orthonormal columns Q, `n k`, and an upper triangle R, `k k`."""

    Q: Float[Array, "n k"]
    R: Float[Array, "k k"]


@one_at_a_time
def _qr(A: Float[Array, "n k"]) -> Orthogonal:
    return Orthogonal(*jnp.linalg.qr(A))


@jax.custom_jvp
def qr(A: Float[Array, "n k"]) -> Orthogonal:
    """The factors of a matrix with at least as many rows as columns."""
    return _qr(A)


@qr.defjvp
def _qr_jvp(primals: Any, tangents: Any) -> tuple[Orthogonal, Orthogonal]:
    # From QᵀdQ antisymmetric and dR upper triangular (Walter & Lehmann 2018).
    product = lambda A, B: jnp.matmul(A, B, precision=jax.lax.Precision.HIGHEST)
    Q, R = found = qr(*primals)
    change = _linear_solve(R.T, tangents[0].T).T  # dA R⁻¹
    along = product(Q.T, change)
    below = jnp.tril(along, -1)
    turn = below - below.T
    return found, Orthogonal(change + product(Q, turn - along), product(along - turn, R))


class Eigen(NamedTuple):
    """Of a symmetric matrix: eigenvalues in rising order, `n`, and eigenvectors as columns, `n n`."""

    values: Float[Array, "n"]
    vectors: Float[Array, "n n"]


@one_at_a_time
def eigh(A: Float[Array, "n n"]) -> Eigen:
    """Eigenvalues and eigenvectors of a symmetric matrix, without derivatives."""
    return Eigen(*jnp.linalg.eigh(A))


class Singular(NamedTuple):
    """A = U diag(σ) V: orthonormal columns U, `n k`, and singular values in falling order, `k`."""

    U: Float[Array, "n k"]
    sigma: Float[Array, "k"]


@one_at_a_time
def singular(A: Float[Array, "n k"]) -> Singular:
    """Singular values and left vectors of a matrix with at least as many rows as columns, without derivatives."""
    return Singular(*jnp.linalg.svd(A, full_matrices=False)[:2])
