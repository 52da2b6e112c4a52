"""Hyperparameters by estimates: each against the exact density and its derivatives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pathwise_gp as pgp
from pathwise_gp._fit.ascent import Estimator
from pathwise_gp._fit.unknowns import Unknowns
from pathwise_gp._numerics.lanczos import log_det

pytestmark = pytest.mark.usefixtures("standard_promotion")

N = 60
RNG = np.random.default_rng(0)
X = RNG.uniform(-2, 2, (N, 2))
Y = 0.5 + np.sin(X.sum(axis=1)) + 0.2 * RNG.standard_normal(N)
KERNEL = pgp.Matern(1.5, 1.3, [0.8, 1.1])
TWO = pgp.Coregionalised(pgp.RBF(1.2, 0.9), [[0.8], [0.5]], [0.3, 0.2])
FIELDS = ("kernel.variance", "kernel.lengthscale", "mean.value")
CG = pgp.ConjugateGradients(1e-9, preconditioner=pgp.RandomPivots(10))
MASK = np.arange(N) % 5 > 0
# The prior, y, noise, mask, fields and solver.
PROBLEMS = {
    "plain": (pgp.GPPrior(KERNEL, X, 0.3), Y, 0.05, None, FIELDS, CG),
    "mask": (pgp.GPPrior(KERNEL, X, 0.3, jitter=0.01), Y, 0.05, MASK, FIELDS, CG),
    "noise of each": (pgp.GPPrior(KERNEL, X, 0.3), Y, np.linspace(0.03, 0.1, N), None, FIELDS, CG),
    "by blocks": (
        pgp.GPPrior(KERNEL, X, 0.3), Y, 0.05, None, FIELDS, pgp.BlockProjections(1e-8, 3000, block=20, cache=0)
    ),
    "outputs with gaps": (
        pgp.GPPrior(TWO, pgp.AllOutputs(X[:30], 2)), np.stack([Y[:30], -Y[:30]], axis=1).reshape(-1),
        np.array([0.05, 0.1]), MASK, ("kernel.W", "kernel.kernel.lengthscale"), CG,
    ),
}  # fmt: skip


def prepared(name):
    prior, y, noise_var, mask, fields, solver = PROBLEMS[name]
    mask = None if mask is None else jnp.asarray(mask)
    return prior, jnp.asarray(y), jnp.asarray(noise_var), mask, fields, solver


@eqx.filter_jit
def estimated(prior, y, noise_var, mask, fields, solver, keys):
    """Of each key a gradient and the error that it says, and a log density."""
    unknowns = Unknowns(prior, noise_var, fields, True)
    flat = lambda tree: jax.flatten_util.ravel_pytree(tree)[0]

    def one(key):
        U = jax.random.normal(key, (16, y.shape[0]))
        estimator = Estimator(unknowns, y, mask, solver, U)
        at = estimator.solve(unknowns.first)
        error = estimator.standard_error(unknowns.first, at)
        density = estimator.log_density(unknowns.first, at)
        return flat(estimator.gradient(unknowns.first, at)), flat(error), density, at.converged

    return jax.lax.map(one, keys)


@eqx.filter_jit
def exact(prior, y, noise_var, mask, fields):
    unknowns = Unknowns(prior, noise_var, fields, True)

    def density(point):
        here, noise = unknowns.at(point)
        return here.log_prob(y, noise, mask)

    value, gradient = jax.value_and_grad(density)(unknowns.first)
    return value, jax.flatten_util.ravel_pytree(gradient)[0]


@pytest.mark.parametrize("name", PROBLEMS)
def test_estimates_have_no_bias_and_the_error_that_they_say(name):
    prior, y, noise_var, mask, fields, solver = prepared(name)
    n_keys = 60
    keys = jax.random.split(jax.random.key(1), n_keys)
    gradients, errors, density, converged = estimated(prior, y, noise_var, mask, fields, solver, keys)
    value, gradient = exact(prior, y, noise_var, mask, fields)
    assert converged.all()
    spread = np.std(gradients, axis=0, ddof=1)
    # A mean has no part in the trace: its derivative is exact. So is all of it with as many pivots as points.
    certain = 1e-5 * np.abs(gradient)
    assert np.all(np.abs(np.mean(gradients, axis=0) - gradient) < 4 * spread / n_keys**0.5 + certain)
    assert np.sum(spread > certain) >= (0 if name == "by blocks" else len(gradient) - 1)
    # The error of a standard deviation is 1/√(2(n − 1)) of it; those of groups are of three degrees of freedom each.
    said = np.sqrt(np.mean(np.asarray(errors) ** 2, axis=0))
    off = 4 * (1 / (2 * (n_keys - 1)) + 1 / (2 * 3 * n_keys)) ** 0.5
    assert np.all(np.abs(spread - said) <= off * said + certain)
    values, of_values = map(np.asarray, density)
    assert abs(values.mean() - value) < 4 * values.std(ddof=1) / n_keys**0.5 + 1e-6 * abs(value)
    assert abs(values.std(ddof=1) - np.sqrt(np.mean(of_values**2))) < off * values.std(ddof=1) + 1e-6 * abs(value)


def test_estimates_go_on_from_the_last_point():
    prior, y, noise_var, mask, fields, solver = prepared("plain")

    @eqx.filter_jit
    def differences(y):
        unknowns = Unknowns(prior, noise_var, fields, True)
        estimator = Estimator(unknowns, y, mask, solver, jax.random.normal(jax.random.key(0), (4, N)))
        near = jax.tree.map(lambda leaf: leaf + 0.05, unknowns.first)
        new, begun = estimator.solve(near), estimator.solve(near, estimator.solve(unknowns.first))
        return jax.tree.map(lambda one, two: jnp.max(jnp.abs(one - two)), (new.alpha, new.X), (begun.alpha, begun.X))

    assert max(differences(y)) < 1e-7


def test_a_log_determinant_is_exact_where_the_preconditioner_is():
    prior = pgp.GPPrior(KERNEL, X[:20])
    everything = pgp.ConjugateGradients(1e-9, preconditioner=pgp.RandomPivots(20))
    solution = prior.condition(Y[:20], 0.05, solver=everything).solution
    exactly = prior.condition(Y[:20], 0.05).factor.log_det()
    U = jax.random.normal(jax.random.key(0), (3, 20))
    found = log_det(lambda V: solution.covariance.matmul(V[:, None])[:, 0], solution.aid, U, 5, 20)
    np.testing.assert_allclose(found.value, exactly, rtol=1e-9)
    assert found.standard_error < 1e-6
    # A posterior that was solved by iterations, and one with a factor.
    prior = pgp.GPPrior(KERNEL, X, 0.3)
    value = prior.log_prob(Y, 0.05, MASK)
    estimate = prior.condition(Y, 0.05, MASK, solver=CG).estimate_log_marginal_likelihood(jax.random.key(0), 32)
    assert 0 < abs(estimate.value - value) < 4 * estimate.standard_error < 0.2 * N
    exactly = prior.condition(Y, 0.05, MASK).estimate_log_marginal_likelihood(jax.random.key(0))
    np.testing.assert_allclose(exactly.value, value, rtol=1e-9)
    assert exactly.standard_error == 0


def test_fits_end_near_the_exact_ones():
    prior = pgp.GPPrior(pgp.Matern(1.5, 3.0, [2.0, 0.3]), X, 0.0)
    for mask in (None, MASK):
        best = pgp.fit(prior, Y, 0.5, mask)
        found = pgp.fit(prior, Y, 0.5, mask, solver=CG, n_probes=32)
        assert found.converged and found.steps[0] < 12 and best.standard_error is None
        there = found.prior.log_prob(Y, found.noise_var, mask)
        assert 0 <= best.log_density - there < 0.01 * N
        assert abs(found.log_density - there) < 4 * found.standard_error
    # Of a prior of the hyperparameters the mode.
    penalty = lambda prior, noise_var: -50 * (jnp.log(noise_var) - jnp.log(0.2)) ** 2
    held = pgp.fit(prior, Y, 0.5, solver=CG, log_prior=penalty)
    assert abs(np.log(held.noise_var / 0.2)) < 0.5 * abs(np.log(found.noise_var / 0.2))
    # Another key has other vectors, the same key the same.
    again, other = (pgp.fit(prior, Y, 0.5, MASK, solver=CG, n_probes=32, key=jax.random.key(i)) for i in (0, 1))
    assert again.noise_var == found.noise_var != other.noise_var


def test_a_fit_is_that_of_any_unit():
    a, b, c = 2.0**20, 2.0**30, 2.0**-8
    fields = lambda u, scale: pgp.GPPrior(
        pgp.Matern(1.5, 3.0 * u**2, [2.0 * scale, 0.3 * scale]), scale * X, b * (u > 1)
    )
    one = pgp.fit(fields(1.0, 1.0), Y, 0.5, solver=CG)
    other = pgp.fit(fields(a, c), a * Y + b, 0.5 * a**2, solver=CG)
    assert one.steps[0] == other.steps[0]
    np.testing.assert_allclose(other.noise_var / a**2, one.noise_var, rtol=1e-5)
    np.testing.assert_allclose((other.prior.mean.value - b) / a, one.prior.mean.value, atol=1e-4)
    np.testing.assert_allclose(other.prior.kernel.lengthscale / c, one.prior.kernel.lengthscale, rtol=1e-5)


@pytest.mark.parametrize("solver", [
    pgp.ConjugateGradients(1e-6, preconditioner=pgp.RandomPivots(2)),
    pgp.ConjugateGradients(1e-6, 3, preconditioner=pgp.RandomPivots(20)),
], ids=["errors", "passes"])  # fmt: skip
def test_a_search_ends_where_it_knows_no_more(solver):
    """Without noise in the data the maximum has none either: derivatives are lost in their errors, or nothing is solved."""
    smooth, prior = np.sin(X.sum(axis=1)), pgp.GPPrior(pgp.Matern(1.5, 1.0, [1.0, 1.0]), X)
    with pytest.warns(pgp.PrecisionWarning, match=r"beyond it `ConjugateGradients` does not reach its tolerance"):
        found = pgp.fit(prior, smooth, 1.0, solver=solver)
    assert not found.converged and found.steps[0] < 60
    # It has come far, and not gone on from there.
    assert found.prior.log_prob(smooth, found.noise_var) > prior.log_prob(smooth, 1.0) + 10


FEW = pgp.ConjugateGradients(1e-12, 2, preconditioner=pgp.RandomPivots(1))
REFUSED = {
    "restarts": (lambda: pgp.fit(*PLAIN, 0.1, solver=CG, key=jax.random.key(0), n_restarts=2), "call `fit` from each"),
    "probes of none": (lambda: pgp.fit(*PLAIN, 0.1, n_probes=8), "`n_probes` is for a `solver`"),
    "one probe": (lambda: pgp.fit(*PLAIN, 0.1, solver=CG, n_probes=1), "`n_probes` must be at least 2"),
    "no noise": (lambda: pgp.fit(*PLAIN, 0.0, solver=CG, learn_noise=False), "`noise_var` must be positive"),
    "a name": (lambda: pgp.fit(*PLAIN, 0.1, solver="cg"), "`solver` must be a solver"),
    "too few passes": (
        lambda: pgp.fit(*PLAIN, 1e-6, solver=FEW, max_steps=2),
        "did not reach its tolerance of 1e-12 within 2 passes",
    ),
}
PLAIN = PROBLEMS["plain"][:2]


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    make, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        make()
