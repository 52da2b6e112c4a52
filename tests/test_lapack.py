"""Factorisations in batches: the same values and derivatives as JAX's own, and none that XLA would hand to LAPACK whole."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stress

from pathwise_gp._numerics.lapack import cholesky, eigh, qr, singular, solve_lower
from pathwise_gp._numerics.linalg import gaussian_log_density, semidefinite_part

RNG = np.random.default_rng(0)
ROOTS = RNG.normal(size=(2, 3, 5, 5))
SPD, B = jnp.asarray(ROOTS @ ROOTS.swapaxes(2, 3) + np.eye(5)), jnp.asarray(RNG.normal(size=(2, 3, 5, 2)))
TALL = jnp.asarray(RNG.normal(size=(2, 3, 6, 3)))
triangular = jax.lax.linalg.triangular_solve


def ours(A, B, C):
    L = cholesky(A)
    return (
        jnp.sum(jnp.sin(solve_lower(L, B)))
        + jnp.sum(solve_lower(L, B, transpose=True) ** 3)
        + jnp.sum(qr(C).R ** 2 * qr(C).Q[:3])
    )


def plain(A, B, C):
    L, (Q, R) = jax.lax.linalg.cholesky(A, symmetrize_input=False), jnp.linalg.qr(C)
    there = lambda transpose: triangular(L, B, left_side=True, lower=True, transpose_a=transpose)
    return jnp.sum(jnp.sin(there(False))) + jnp.sum(there(True) ** 3) + jnp.sum(R**2 * Q[:3])


def everything(function):
    """Value, gradient and a product with the Hessian; of the symmetric part of A."""
    symmetric = lambda A, B, C: function((A + A.T) / 2, B, C)

    def of(A, B, C):
        slope = jax.grad(symmetric, (0, 1, 2))
        return symmetric(A, B, C), slope(A, B, C), jax.jvp(slope, (A, B, C), (A, B, C))[1]

    return of


# Which of A, B and C have an axis of members, from the outer to the inner.
AXES = {
    "all": [(0, 0, 0)],
    "all, of all": [(0, 0, 0), (0, 0, 0)],
    "one factor": [(None, 0, None)],
    "one right-hand side": [(0, None, None)],
    "each with each": [(0, None, 0), (None, 0, None)],
}


@pytest.mark.parametrize("name", AXES)
def test_batches_are_those_of_jax_with_derivatives(name):
    depths = [sum(axes[i] == 0 for axes in AXES[name]) for i in range(3)]
    args = [x[(0,) * (2 - depth)] for x, depth in zip((SPD, B, TALL), depths, strict=True)]

    def batch(function):
        for axes in reversed(AXES[name]):
            function = jax.vmap(function, axes)
        return jax.jit(function)

    got, expected = batch(everything(ours))(*args), batch(everything(plain))(*args)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11), got, expected)


def test_eigenvalues_and_what_is_above_zero():
    A = SPD[0] - 4 * jnp.eye(5)[None]
    values, vectors = jax.jit(jax.vmap(eigh))(A)
    np.testing.assert_allclose((vectors * np.asarray(values)[:, None, :]) @ vectors.swapaxes(1, 2), A, atol=1e-12)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(A), rtol=1e-12)
    assert np.all(values[:, 0] < 0) and np.all(values[:, -1] > 0)
    kept = jax.vmap(semidefinite_part)(A)
    np.testing.assert_allclose(np.linalg.eigvalsh(kept), np.maximum(values, 0), atol=1e-12)
    part = lambda x: semidefinite_part((x + x.T) / 2)
    h, direction = 1e-6, SPD[1, 0]
    difference = (part(A[0] + h * direction) - part(A[0] - h * direction)) / (2 * h)
    np.testing.assert_allclose(jax.jvp(part, (A[0],), (direction,))[1], difference, atol=1e-7)
    # Where eigenvalues are equal, those of JAX's eigenvectors are NaN.
    np.testing.assert_allclose(jax.jvp(part, (jnp.eye(5),), (direction,))[1], direction, rtol=1e-12)
    assert (
        semidefinite_part(jnp.asarray([[-2.0]])) == 0
        and jax.grad(lambda a: semidefinite_part(a)[0, 0])(jnp.ones((1, 1))) == 1
    )


def test_singular_values():
    U, sigma = jax.jit(jax.vmap(singular))(TALL[0])
    np.testing.assert_allclose(sigma, np.linalg.svd(TALL[0], compute_uv=False), rtol=1e-12)
    square = np.asarray(TALL[0]) @ np.asarray(TALL[0]).swapaxes(1, 2)
    np.testing.assert_allclose((U * np.asarray(sigma)[:, None, :] ** 2) @ U.swapaxes(1, 2), square, atol=1e-12)


def test_one_entry():
    A = jnp.asarray([[[4.0]], [[0.0]], [[-1.0]]])
    np.testing.assert_array_equal(jax.vmap(cholesky)(A)[:, 0, 0], [2, np.nan, np.nan])
    np.testing.assert_allclose(jax.jacfwd(cholesky)(A[0]).item(), 1 / 4)
    np.testing.assert_allclose(solve_lower(A[0], jnp.ones((1, 3)), transpose=True), 1 / 4)


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("entry", stress.ENTRIES)
def test_no_batch_is_handed_to_lapack_whole(entry):
    lowered = jax.jit(jax.vmap(lambda scale: stress.ENTRIES[entry](11, scale))).lower(jnp.full(3, 0.5)).as_text()
    calls = [
        line for line in lowered.splitlines() if re.search(r"@lapack_|stablehlo\.(cholesky|triangular_solve)", line)
    ]
    assert calls
    assert not [line[-200:] for line in calls if re.search(r"tensor<(\d+x){3,}f", line)]


@pytest.mark.parametrize(
    "function", [cholesky, solve_lower, qr, eigh, singular, gaussian_log_density], ids=lambda f: f.__name__
)
def test_an_accelerator_takes_a_batch_at_once(function):
    args = (
        (SPD[0], B[0]) if function is solve_lower else (SPD[0], B[0, :, :, 0])[: 1 + (function is gaussian_log_density)]
    )
    lowered = lambda platform: jax.jit(jax.vmap(function)).trace(*args).lower(lowering_platforms=(platform,)).as_text()
    assert "stablehlo.while" not in lowered("cuda") and re.search(
        r"(cusolver|triangular_solve).*tensor<3x5", lowered("cuda")
    )
    assert "stablehlo.while" in lowered("cpu")


def test_many_calls_of_a_large_batch_come_back():
    stress.run("evidence", ((300, 100, 4),))
