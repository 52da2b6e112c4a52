"""Every solver against the dense system, and what iterations say of themselves."""

import dataclasses
import pickle
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import pathwise_gp as pgp
from pathwise_gp import numpyro_bridge as bridge
from pathwise_gp._numerics.conjugate_gradients import block_conjugate_gradients, preconditioner
from pathwise_gp._numerics.pivots import pivoted_cholesky
from pathwise_gp._solvers import memory

N, DIM = 60, 2
RNG = np.random.default_rng(0)
X = RNG.uniform(-2, 2, (N, DIM))
Y = np.sin(X.sum(axis=1)) + 0.1 * RNG.standard_normal(N)
AT = RNG.uniform(-2, 2, (7, DIM))
KERNEL = pgp.Matern(2.5, 1.3, [0.8, 1.1])
KEY = jax.random.key(3)
NOISE = 0.02

TIGHT = pgp.ConjugateGradients(1e-10, preconditioner=pgp.RandomPivots(16))
SOLVERS = {
    "cached": TIGHT,
    "by blocks": pgp.ConjugateGradients(1e-10, preconditioner=pgp.RandomPivots(16), cache=0),
    "one pivot": pgp.ConjugateGradients(1e-10, preconditioner=pgp.RandomPivots(1)),
    "block projections": pgp.BlockProjections(1e-7, 2000, block=7),
    "blocks of rows": pgp.BlockProjections(1e-7, 2000, block=16, cache=0),
    "one block": pgp.BlockProjections(1e-7, block=100),
    "more pivots than points": pgp.ConjugateGradients(1e-10, preconditioner=pgp.RandomPivots(500)),
}
SLOPES = pgp.Derivative(X[:20], (0,))
# The prior, y, noise and mask.
PROBLEMS = {
    "plain": (pgp.GPPrior(KERNEL, X), Y, NOISE, None),
    "mask": (pgp.GPPrior(KERNEL, X), Y, NOISE, np.arange(N) % 5 > 0),
    "noise of each": (pgp.GPPrior(KERNEL, X), Y, np.linspace(0.01, 0.1, N), None),
    "mean": (pgp.GPPrior(KERNEL, X, mean=0.7, jitter=0.01), Y, NOISE, None),
    "noise of the kernel": (pgp.GPPrior(KERNEL + pgp.White(0.03), X), Y, NOISE, None),
    "slopes": (pgp.GPPrior(KERNEL, SLOPES), np.cos(X[:20].sum(axis=1)), NOISE, None),
    "values and slopes": (pgp.GPPrior(KERNEL, [X[:30], SLOPES]), [Y[:30], np.zeros(20)], NOISE, None),
    "one": (pgp.GPPrior(KERNEL, X[:1]), Y[:1], NOISE, None),
}


@eqx.filter_jit
def covariance_and_mean(prior):
    L = prior.functional
    return L.gram(prior.kernel), prior.mean_at(L)


def system(posterior):
    """A and y − m by hand, from what the posterior says of itself."""
    n = posterior.prior.functional.size
    there = np.ones(n, bool) if posterior.mask is None else np.asarray(posterior.mask)
    K, mean = map(np.asarray, covariance_and_mean(posterior.prior))
    A = np.where(there[:, None] & there[None, :], K + np.diag(posterior.noise), np.eye(n))
    return A, np.where(there, np.asarray(posterior.y) - mean, 0)


@eqx.filter_jit
def said(drawn):
    """What a posterior and its paths say at points, by one program."""
    posterior = drawn.posterior
    moments = [posterior.mean(AT), posterior.variance(AT), posterior.covariance(AT), posterior.covariance(AT, X[:2])]
    return [*moments, drawn.paths(AT), drawn.paths.mean_path(AT)]


PAIRS = (
    [(problem, "cached") for problem in PROBLEMS]
    + [("values and slopes", "block projections")]
    + [(p, s) for p in ("plain", "mask") for s in list(SOLVERS)[1:]]
)


@pytest.mark.parametrize(("problem", "solver"), PAIRS)
def test_moments_and_paths_are_those_of_the_factorisation(problem, solver):
    prior, y, noise_var, mask = PROBLEMS[problem]
    drawn = pgp.draw(prior, y, noise_var, KEY, 9, 32, solver=SOLVERS[solver], mask=mask)
    exact = pgp.draw(prior, y, noise_var, KEY, 9, 32, mask=mask)
    # What is left of the residual is one of the values, times ‖y‖/√noise at the most, about 50.
    tolerance = 50 * SOLVERS[solver].tolerance
    close = lambda one, two: np.testing.assert_allclose(one, two, rtol=0, atol=tolerance)
    ours, wanted = said(drawn), said(exact)
    for one, two in zip(ours, wanted, strict=True):
        close(one, two)
    close(ours[-1], wanted[0])  # the mean, by its path
    A, residual = system(drawn.posterior)
    np.testing.assert_allclose(
        drawn.posterior.coefficients, np.linalg.solve(A, residual), rtol=0, atol=tolerance / NOISE
    )
    assert exact.report is None and drawn.report.converged


def test_draw_gives_the_paths_of_the_sampler():
    for share, problem in ((True, "plain"), (False, "plain"), (True, "mask"), (True, "slopes")):
        *data, mask = PROBLEMS[problem]
        drawn = pgp.draw(*data, KEY, 3, 16, share_features=share, mask=mask)
        paths = pgp.PathwiseSampler(drawn.posterior, 16, share_features=share).sample_paths(KEY, 3)
        assert jax.tree.structure(paths) == jax.tree.structure(drawn.paths)
        np.testing.assert_allclose(drawn.paths(AT), paths(AT), rtol=0, atol=1e-12)


def test_the_residuals_reported_are_the_true_ones():
    loose = pgp.ConjugateGradients(0.05, preconditioner=pgp.RandomPivots(4))
    drawn = pgp.draw(*PROBLEMS["plain"][:3], KEY, 4, 32, solver=loose)
    A, residual = system(drawn.posterior)
    np.testing.assert_allclose(
        drawn.report.residuals[0],
        np.linalg.norm(residual - A @ np.asarray(drawn.posterior.coefficients)) / np.linalg.norm(residual),
        rtol=1e-9,
    )
    # Those of the paths from their ε, which they are at the inputs: y − f(X) − Dα.
    alpha = np.asarray(drawn.paths.coefficients)
    exact = pgp.draw(*PROBLEMS["plain"][:3], KEY, 4, 32)
    right = np.asarray(exact.paths.coefficients) @ A
    wanted = np.linalg.norm(right - alpha @ A, axis=1) / np.linalg.norm(right, axis=1)
    np.testing.assert_allclose(drawn.report.residuals[1:], wanted, rtol=1e-6)
    history = np.asarray(drawn.report.history)
    passes = int(drawn.report.passes)
    assert 1 < passes < 40 and np.all(np.isfinite(history[: passes + 1])) and np.all(np.isnan(history[passes + 1 :]))
    assert history[passes, 0] <= 0.05 < history[passes - 1, 0]
    np.testing.assert_allclose(history[passes, 0], np.max(drawn.report.residuals), rtol=1e-6)


def test_variances_are_better_than_their_solves():
    posterior = PROBLEMS["plain"][0].condition(Y, NOISE, solver=pgp.BlockProjections(1e-3, block=8))
    A, _ = system(posterior)
    solution, k = posterior.solution, KERNEL(AT, X)
    exact = k @ np.linalg.solve(A, np.asarray(k).T)
    of_one = np.max(np.abs(k @ solution.solve(k).T - exact))
    for ours in (solution.between(k), solution.between(k, k)):
        assert np.max(np.abs(ours - exact)) < 0.5 * of_one
    np.testing.assert_allclose(solution.explained(k), np.diag(solution.between(k)), rtol=1e-12)


def test_the_order_of_the_data_does_not_matter():
    order = np.random.default_rng(1).permutation(N)
    one = pgp.GPPrior(KERNEL, X).condition(Y, NOISE, solver=TIGHT)
    two = pgp.GPPrior(KERNEL, X[order]).condition(Y[order], NOISE, solver=TIGHT)
    np.testing.assert_allclose(two.coefficients, one.coefficients[order], rtol=0, atol=1e-6)


def test_a_block_shares_its_directions():
    # Alone each right-hand side needs more passes than all of them together, and one that is zero or a copy is no harm.
    prior = PROBLEMS["plain"][0]
    bare = pgp.ConjugateGradients(1e-8, preconditioner=pgp.RandomPivots(1))
    solution = prior.condition(Y, NOISE, solver=bare).solution
    B = jnp.asarray(np.random.default_rng(2).standard_normal((6, N))).at[4].set(0).at[5].set(jnp.asarray(Y))
    B = B.at[3].set(B[2])
    alone = [int(solution.solved(b).report.passes) for b in B]
    together = solution.solved(B)
    assert int(together.report.passes) < 0.7 * max(alone)
    A, _ = system(prior.condition(Y, NOISE))
    np.testing.assert_allclose(together.x, np.linalg.solve(A, B.T).T, rtol=0, atol=1e-5)
    assert np.all(np.asarray(together.x[4]) == 0) and float(together.report.residuals[4]) == 0
    many = jnp.asarray(np.random.default_rng(3).standard_normal((N + 5, N)))  # more than there are rows
    np.testing.assert_allclose(solution.solve(many), np.linalg.solve(A, many.T).T, rtol=0, atol=1e-5)


def covariance_of(problem, cache):
    prior, y, noise_var, mask = PROBLEMS[problem]
    solver = pgp.BlockProjections(0.5, block=7, cache=cache, throw=False)
    posterior = prior.condition(y, noise_var, mask, solver=solver)
    return posterior.solution.covariance, posterior.solution.aid, system(posterior)[0]


# Compiled whole.
fold = eqx.filter_jit(lambda layout, V: layout.fold(jnp.asarray(V)))
unfold = eqx.filter_jit(lambda layout, V: layout.unfold(V))
from_block = eqx.filter_jit(lambda covariance, V, i: covariance.from_block(jnp.asarray(V), jnp.asarray(i)))
matmul = eqx.filter_jit(lambda covariance, V: covariance.matmul(jnp.asarray(V)))


@pytest.mark.parametrize("cache", [0, 2**30])
@pytest.mark.parametrize("problem", ["mask", "noise of each", "slopes"])
def test_blocks_are_those_of_the_matrix(problem, cache):
    covariance, blocks, A = covariance_of(problem, cache)
    n, layout = len(A), covariance.layout
    assert (covariance.cached is None) == (cache == 0)
    numbers, filled = np.asarray(layout.numbers), np.asarray(layout.filled)
    assert numbers.shape == (-(-n // 7), layout.each) and not layout.full
    np.testing.assert_array_equal(numbers[filled], np.arange(n))
    vectors = lambda V: np.asarray(unfold(layout, V))
    np.testing.assert_array_equal(vectors(fold(layout, A)), A)
    for i, inverse in enumerate(blocks.inverses):
        here, m = numbers[i][filled[i]], int(filled[i].sum())
        found = np.asarray(from_block(covariance, np.eye(layout.width), i))
        np.testing.assert_allclose(vectors(found)[:m], A[here], rtol=0, atol=1e-12)
        wanted = np.eye(layout.width)
        wanted[:m, :m] = np.linalg.inv(A[np.ix_(here, here)])
        np.testing.assert_allclose(inverse, wanted, rtol=0, atol=1e-9)
        # What is in holes stays there.
        np.testing.assert_array_equal(
            found[m:], np.eye(layout.width)[m:, None, :] * (np.arange(len(numbers)) == i)[None, :, None]
        )
    np.testing.assert_allclose(vectors(matmul(covariance, fold(layout, np.eye(n)))), A, rtol=0, atol=1e-12)
    # In one block it is the same, and what is held stays so.
    flat = covariance.laid_out(dataclasses.replace(layout, n_blocks=1))
    assert (flat.cached is None) == (cache == 0)
    np.testing.assert_allclose(matmul(flat, np.eye(n)[:, None])[:, 0], A, rtol=0, atol=1e-12)
    np.testing.assert_allclose(flat.row(9)[0], vectors(covariance.row(9)), rtol=0, atol=1e-12)
    row, diagonal = vectors(covariance.row(1)), vectors(covariance.diagonal)
    np.testing.assert_allclose(row, (A - np.diag(diagonal))[1], rtol=0, atol=1e-12)


def test_projections_take_few_passes():
    # Far fewer than plain steps, block after block, which are Gauss-Seidel's.
    posterior = PROBLEMS["plain"][0].condition(Y, NOISE, solver=pgp.BlockProjections(1e-6, block=6, throw=False))
    _, report = posterior.solution.solved(jnp.asarray(Y))
    A, _ = system(posterior)
    x, passes = np.zeros(N), 0
    while np.linalg.norm(Y - A @ x) > 1e-6 * np.linalg.norm(Y):
        passes += 1
        for start in range(0, N, 6):
            here = slice(start, start + 6)
            x[here] += np.linalg.solve(A[here, here], (Y - A @ x)[here])
    assert report.converged and int(report.passes) < passes / 4


def test_projections_come_back_from_a_bold_step():
    covariance, blocks, A = covariance_of("plain", 2**30)
    bold = eqx.tree_at(lambda b: b.nu, blocks, 0.02 * blocks.nu)
    solver = pgp.BlockProjections(1e-4, 2000, block=7)
    layout = covariance.layout
    found = solver.iterate(covariance, bold, covariance.matmul, layout.fold(jnp.asarray(Y)[None]), None)
    assert found.report.converged
    np.testing.assert_allclose(layout.unfold(found.x)[0], np.linalg.solve(A, Y), rtol=0, atol=1e-2)


def test_the_preconditioner_is_the_root_of_the_inverse():
    R, D = np.random.default_rng(4).standard_normal((5, 30)), np.linspace(0.1, 2, 30)
    E = preconditioner(jnp.asarray(R), jnp.asarray(D))
    root = np.asarray(E(jnp.eye(30))).T  # columns are E of the unit vectors
    np.testing.assert_allclose(root @ root.T, np.linalg.inv(R.T @ R + np.diag(D)), rtol=0, atol=1e-10)
    np.testing.assert_allclose(np.asarray(E.transposed(jnp.eye(30))).T, root.T, rtol=0, atol=1e-12)


def test_pivots_are_drawn_in_proportion_to_what_is_left():
    # Independent variables keep their variances until they are chosen: of 4000 draws each is first by its share.
    variances = jnp.asarray([1.0, 2.0, 3.0, 4.0])
    K = jnp.diag(variances)
    draws = jax.vmap(lambda key: pivoted_cholesky(lambda i: K[i], variances, 2, key).chosen)(
        jax.random.split(KEY, 4000)
    )
    share = np.bincount(np.asarray(draws[:, 0]), minlength=4) / 4000
    np.testing.assert_allclose(share, [0.1, 0.2, 0.3, 0.4], rtol=0, atol=4 * np.sqrt(0.25 / 4000))
    second = np.bincount(np.asarray(draws[np.asarray(draws[:, 0]) == 3, 1]), minlength=4)
    np.testing.assert_allclose(second / second.sum(), [1 / 6, 2 / 6, 3 / 6, 0], rtol=0, atol=4 * np.sqrt(0.25 / 1200))
    assert np.all(np.asarray(draws[:, 0]) != np.asarray(draws[:, 1]))


def test_a_warm_start_goes_on():
    prior, arguments = PROBLEMS["plain"][0], (Y, NOISE, KEY, 3, 32)
    bare = pgp.ConjugateGradients(1e-8, preconditioner=pgp.RandomPivots(2))
    whole = pgp.draw(prior, *arguments, solver=bare)
    passes = int(whole.report.passes)
    # Cut off in the middle, and taken up again.
    half = pgp.draw(
        prior,
        *arguments,
        solver=pgp.ConjugateGradients(1e-8, passes // 2, preconditioner=pgp.RandomPivots(2), throw=False),
    )
    assert not half.report.converged and int(half.report.passes) == passes // 2
    rest = pgp.draw(prior, *arguments, solver=bare, start=half.paths)
    assert rest.report.converged and int(rest.report.passes) < passes
    np.testing.assert_allclose(rest.paths(AT), whole.paths(AT), rtol=0, atol=1e-5)
    assert int(pgp.draw(prior, *arguments, solver=bare, start=whole.paths).report.passes) == 0
    # Hyperparameters nearby, and more data.
    near = pgp.GPPrior(pgp.Matern(2.5, 1.31, [0.8, 1.1]), X)
    assert int(pgp.draw(near, *arguments, solver=bare, start=whole.paths).report.passes) < passes
    fewer = pgp.draw(pgp.GPPrior(KERNEL, X[:-1]), Y[:-1], *arguments[1:], solver=bare)
    more = pgp.draw(prior, *arguments, solver=bare, start=fewer.paths)
    np.testing.assert_allclose(more.posterior.mean(AT), whole.posterior.mean(AT), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"`start` must be 3 path\(s\)"):
        pgp.draw(prior, *arguments, solver=bare, start=whole.paths[:2])
    again = pgp.draw(prior, *arguments, solver=bare, start=np.asarray(whole.solutions))
    assert int(again.report.passes) == 0
    with pytest.raises(ValueError, match=r"`start` must be 3 path\(s\)"):
        pgp.draw(prior, *arguments, solver=bare, start=whole.solutions[:2])


def test_a_posterior_begins_where_another_ended():
    prior = PROBLEMS["plain"][0]
    exact, near = prior.condition(Y, NOISE), pgp.GPPrior(pgp.Matern(2.5, 1.3002, [0.8, 1.1]), X)
    # From scratch it takes 32 passes.
    few, most = (pgp.ConjugateGradients(1e-3, passes, preconditioner=pgp.RandomPivots(2)) for passes in (12, 30))
    close = lambda found, wanted: np.testing.assert_allclose(found.mean(AT), wanted.mean(AT), rtol=0, atol=1e-2)
    with pytest.raises(ValueError, match="did not reach its tolerance"):
        near.condition(Y, NOISE, solver=most)
    found = near.condition(Y, NOISE, solver=few, start=exact)
    close(found, exact)
    # So does what is solved anew: for one more, for one less, and under other hyperparameters.
    at = AT[:1], exact.mean(AT[:1])
    close(found.condition(*at, NOISE), exact.condition(*at, NOISE))
    close(found.under(prior), exact)
    close(prior.condition(Y, NOISE, solver=most, start=exact.coefficients).without([3]), exact.without([3]))
    with pytest.raises(ValueError, match="`start` must be a posterior of one set of at most the 60 observations"):
        prior.condition(Y, NOISE, solver=few, start=np.zeros(61))


def test_derivatives_are_those_of_the_solution():
    def total(solver, lengthscale, y):
        kernel = pgp.RBF(1.3, lengthscale * jnp.ones(DIM))
        drawn = pgp.draw(pgp.GPPrior(kernel, X), y, NOISE, KEY, 2, 16, solver=solver)
        return jnp.sum(drawn.paths(AT)) + jnp.sum(drawn.posterior.mean(AT))

    arguments = jnp.asarray(0.9), jnp.asarray(Y)
    for solver in (TIGHT, SOLVERS["by blocks"]):
        ours = jax.grad(total, argnums=(1, 2))(solver, *arguments)
        for one, two in zip(ours, jax.grad(total, argnums=(1, 2))(pgp.Cholesky(), *arguments), strict=True):
            np.testing.assert_allclose(one, two, rtol=0, atol=1e-5)


def test_a_solution_is_a_pytree():
    posterior = pgp.GPPrior(KERNEL, X).condition(Y, NOISE, solver=TIGHT)
    wanted = posterior.mean(AT)
    again = eqx.filter_jit(lambda posterior: posterior)(posterior)
    for copy in (again, pickle.loads(pickle.dumps(posterior)), jax.tree.map(lambda leaf: leaf, posterior)):
        np.testing.assert_array_equal(copy.mean(AT), wanted)
    inside = eqx.filter_jit(lambda y: pgp.GPPrior(KERNEL, X).condition(y, NOISE, solver=TIGHT).variance(AT))
    np.testing.assert_allclose(inside(jnp.asarray(Y)), posterior.variance(AT), rtol=0, atol=1e-9)
    batch = eqx.filter_vmap(lambda y: pgp.draw(pgp.GPPrior(KERNEL, X), y, NOISE, KEY, 2, 16, solver=TIGHT).paths(AT))
    both = batch(jnp.asarray([Y, 2 * Y]))
    np.testing.assert_allclose(
        both[1], pgp.draw(pgp.GPPrior(KERNEL, X), 2 * Y, NOISE, KEY, 2, 16).paths(AT), rtol=0, atol=1e-6
    )


def test_paths_go_on_through_what_was_solved_by_iterations():
    # All of it is solved anew: noise, and what is not there, stay with their observations.
    old, there = N - 4, np.arange(N - 4) % 7 > 0
    prior = pgp.GPPrior(KERNEL, X[:old])
    for noise_of_new, mask in ((None, None), (0.1, None), (0.1, np.array([True, True, False, True]))):
        new = (X[old:], Y[old:], noise_of_new, mask)
        found = []
        for solver in (TIGHT, pgp.Cholesky()):
            drawn = pgp.draw(prior, Y[:old], NOISE, KEY, 3, 32, solver=solver, mask=there)
            posterior = drawn.posterior.condition(*new)
            np.testing.assert_allclose(posterior.noise[:old], NOISE)
            paths = drawn.paths.condition(posterior, KEY)
            fewer, left = posterior.without([1, 7, old]), paths.without(posterior, [1, 7, old])
            assert fewer.new_noise_var == posterior.new_noise_var
            of_more = (posterior.mean(AT), posterior.variance(AT), posterior.noise, posterior.new_noise_var, paths(AT))
            found.append((*of_more, fewer.mean(AT), fewer.noise, left(AT), left.noise))
        for ours, theirs in zip(*found, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    again = drawn.posterior.under(pgp.GPPrior(pgp.RBF(1.0, [1.0, 1.0]), X[:old]))
    assert isinstance(again.solver, pgp.Cholesky)
    other = prior.condition(Y[:old], NOISE, solver=TIGHT).under(pgp.GPPrior(pgp.RBF(1.0, [1.0, 1.0]), X[:old]))
    assert isinstance(other.solver, pgp.ConjugateGradients) and not other.solution.grows


def test_what_was_solved_by_iterations_is_read_in_other_units():
    scaling = pgp.standardise(X, 5 + 3 * Y)
    inputs, values = scaling.inputs(X), scaling.values(5 + 3 * Y)
    ours, theirs = (
        scaling.original(pgp.GPPrior(KERNEL, inputs, 0.2).condition(values, NOISE, solver=solver))
        for solver in (TIGHT, None)
    )
    assert isinstance(ours.solver, pgp.ConjugateGradients)
    np.testing.assert_allclose(ours.new_noise_var, theirs.new_noise_var, rtol=1e-12)
    for one, two in (
        (ours.mean(AT), theirs.mean(AT)),
        (ours.variance(AT), theirs.variance(AT)),
        (ours.noise, theirs.noise),
    ):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-6)


def test_a_model_may_return_what_was_solved_by_iterations():
    def model(solver):
        kernel = bridge.lift(pgp.RBF(1.0, 1.0), {"lengthscale": dist.LogNormal(0.0, 0.3)})
        return pgp.GPPrior(kernel, X[:20]).condition(Y[:20], NOISE, solver=solver)

    samples = {"RBF.lengthscale": np.array([0.8, 1.2])}
    ours, theirs = (
        bridge.posterior_paths(model, samples, KEY, solver, n_paths=2, n_features=16)(AT)
        for solver in (TIGHT, pgp.Cholesky())
    )
    assert ours.shape == (2, 2, 7)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-7)

    def observed(y):
        prior = pgp.GPPrior(bridge.lift(pgp.RBF(1.0, 1.0), {"lengthscale": dist.LogNormal(0.0, 0.3)}), X[:20])
        bridge.gp_factor("y", prior, y, NOISE, np.arange(20) % 4 > 0)
        return prior

    by = lambda **how: bridge.posterior_paths(observed, samples, KEY, Y[:20], n_paths=2, n_features=16, **how)(AT)
    np.testing.assert_allclose(by(solver=TIGHT), by(), rtol=0, atol=1e-7)
    # One solve for the mean and the paths of each draw: a draw by hand has the same.
    one = pgp.GPPrior(pgp.RBF(1.0, 1.2), X[:20]).condition(Y[:20], NOISE, np.arange(20) % 4 > 0)
    np.testing.assert_allclose(
        bridge.posterior_paths(observed, samples, KEY, Y[:20], n_features=16, solver=TIGHT).mean_path(AT)[1],
        one.mean(AT), rtol=0, atol=1e-7,
    )  # fmt: skip
    with pytest.raises(ValueError, match="`solver` is for a process that `gp_factor` observed"):
        bridge.posterior_paths(model, samples, KEY, None, solver=TIGHT)


def test_what_does_not_converge_is_an_error():
    prior, y, noise_var, _ = PROBLEMS["plain"]
    short = pgp.ConjugateGradients(1e-8, 3, preconditioner=pgp.RandomPivots(2))
    words = r"did not reach its tolerance of 1e-08: the largest residual is .* after 3 passes"
    with pytest.raises(ValueError, match=words):
        prior.condition(y, noise_var, solver=short)
    with pytest.raises(ValueError, match=r"`BlockProjections` did not reach its tolerance.*or a larger `block`"):
        prior.condition(y, noise_var, solver=pgp.BlockProjections(1e-8, 2, block=5))
    with pytest.raises(ValueError, match=words):
        pgp.draw(prior, y, noise_var, KEY, 2, 16, solver=short)
    with pytest.raises(Exception, match="did not reach its tolerance"):
        eqx.filter_jit(lambda y: prior.condition(y, noise_var, solver=short).mean(AT))(jnp.asarray(y))
    # The observations converge, what is asked later does not.
    solved = eqx.tree_at(lambda p: p.solution.solver, prior.condition(y, noise_var, solver=TIGHT), short)
    for ask in (lambda p: p.variance(AT), lambda p: pgp.PathwiseSampler(p, 16).sample_paths(KEY)):
        with pytest.raises(Exception, match="did not reach its tolerance"):
            ask(solved)
    loose = eqx.tree_at(lambda p: p.solution.solver, solved, pgp.ConjugateGradients(1e-8, 3, throw=False))
    assert np.all(np.isfinite(loose.variance(AT)))


def test_single_precision_says_where_it_ends():
    prior = pgp.GPPrior(pgp.RBF(np.float32(1), np.float32([1, 1])), np.float32(X))
    fine = pgp.draw(prior, np.float32(Y), np.float32(NOISE), KEY, 2, 16, solver=pgp.ConjugateGradients(1e-4))
    assert fine.report.residuals.dtype == jnp.float32 and float(jnp.max(fine.report.residuals)) <= 1e-4
    with pytest.raises(ValueError, match="in low precision rounding may not let it be reached"):
        pgp.draw(prior, np.float32(Y), np.float32(NOISE), KEY, 2, 16, solver=pgp.ConjugateGradients(1e-10))


def test_a_negative_noise_is_an_error_under_jit():
    draw = eqx.filter_jit(lambda noise_var: pgp.draw(PROBLEMS["plain"][0], Y, noise_var, KEY, 2, 16).paths(AT))
    assert np.all(np.isfinite(draw(jnp.asarray(NOISE))))
    with pytest.raises(Exception, match="`noise_var` must not be negative"):
        draw(jnp.asarray(-1e-9))


REFUSED = {
    "no noise": (
        lambda: PROBLEMS["plain"][0].condition(Y, 0.0, solver=TIGHT),
        "`noise_var` must be positive at each of the 60",
    ),
    "evidence": (lambda: solved().log_marginal_likelihood(), "has no factor"),
    "leave one out": (lambda: solved().leave_one_out(), "has no factor"),
    "fantasies": (lambda: solved().condition(AT, np.zeros((3, 7))), "`y_new` of several fantasies takes a factor"),
    "room": (lambda: PROBLEMS["plain"][0].condition(Y, NOISE, solver=TIGHT, capacity=64), "has no factor"),
    "tolerance": (lambda: pgp.ConjugateGradients(0.0), "`tolerance` must be between 0 and 1"),
    "words": (lambda: pgp.ConjugateGradients("fast"), "`tolerance` must be a number"),
    "passes": (lambda: pgp.ConjugateGradients(max_passes=0), "`max_passes` must be at least 1"),
    "rank": (lambda: pgp.RandomPivots(0), "`rank` must be at least 1"),
    "cache": (lambda: pgp.ConjugateGradients(cache=-1), "`cache` must be at least 0"),
    "throw": (lambda: pgp.ConjugateGradients(throw=1), "`throw` must be True or False"),
    "preconditioner": (lambda: pgp.ConjugateGradients(preconditioner=3), "`preconditioner` must be `RandomPivots`"),
    "a name": (lambda: PROBLEMS["plain"][0].condition(Y, NOISE, solver="cg"), "`solver` must be a solver"),
    "a class": (
        lambda: PROBLEMS["plain"][0].condition(Y, NOISE, solver=pgp.Cholesky),
        r"Make one of it: `Cholesky\(\)`",
    ),
}


def solved():
    return PROBLEMS["plain"][0].condition(Y, NOISE, solver=TIGHT)


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    make, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        make()


def test_a_jitter_is_noise():
    prior = pgp.GPPrior(KERNEL, X, jitter=NOISE)
    for noise_var in (0.01, 0.0):
        posterior = prior.condition(Y, noise_var, solver=TIGHT)
        np.testing.assert_allclose(posterior.mean(AT), prior.condition(Y, noise_var).mean(AT), rtol=0, atol=1e-7)
        np.testing.assert_allclose(posterior.noise, NOISE + noise_var)


def test_what_does_not_fit_is_refused_before_it_is_made():
    n = int(np.sqrt(memory() / 16)) + 1000
    prior = pgp.GPPrior(pgp.RBF(1.0, 1.0), np.zeros((n, 1)))
    with pytest.raises(ValueError, match=r"holds at least .* GiB in float64.*`solver=ConjugateGradients\(\)`"):
        prior.condition(np.zeros(n), 0.1)
    with pytest.raises(ValueError, match="holds at least"):
        jax.eval_shape(lambda y: prior.condition(y, 0.1).coefficients, jnp.zeros(n))


def arrays_of(jaxpr, found):
    for equation in jaxpr.eqns:
        found |= {v.aval.size for v in equation.outvars if hasattr(v.aval, "size")}
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "jaxpr") or hasattr(p, "eqns")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                arrays_of(inner, found)
    return found


def test_no_array_is_of_the_size_of_the_covariance():
    # The blocks of rows are of a size of their own, beyond which n is.
    n, solver = 20_000, pgp.ConjugateGradients(preconditioner=pgp.RandomPivots(8), cache=0)

    def work(X, y):
        drawn = pgp.draw(pgp.GPPrior(KERNEL, X), y, NOISE, KEY, 2, 16, solver=solver, check_scales=False)
        return drawn.paths(AT), drawn.posterior.mean(AT)

    closed = jax.make_jaxpr(work)(jax.ShapeDtypeStruct((n, DIM), X.dtype), jax.ShapeDtypeStruct((n,), X.dtype))
    largest = max(arrays_of(closed.jaxpr, set()))
    assert n * 16 <= largest < n * n / 50


CHILD = """
import resource
import jax, numpy as np, pathwise_gp as pgp
solver = pgp.BlockProjections(1e-3, 2, block=500, cache=0, throw=False)
peaks = []
for n in (600, 12_000):
    X = np.random.default_rng(0).uniform(-2, 2, (n, 2)).astype(np.float32)
    prior = pgp.GPPrior(pgp.Matern(1.5, np.float32(1), np.float32(1)), X)
    drawn = pgp.draw(prior, np.sin(X[:, 0]), np.float32(0.1), jax.random.key(0), 3, 64, solver=solver)
    assert np.isfinite(drawn.paths(X[:2])).all() and drawn.report.passes == 2
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
print(peaks[1] - peaks[0])
"""


def test_memory_grows_with_the_number_of_points_alone():
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    # The covariance of the larger set would be 6e8 bytes.
    assert int(done.stdout) < 0.4 * 12_000**2 * 4


def test_what_rounding_leaves_is_seen():
    # In single precision the recurrence says less than is left.
    rng = np.random.default_rng(5)
    Q, _ = np.linalg.qr(rng.standard_normal((80, 80)))
    A = jnp.asarray((Q * np.geomspace(1e-4, 1, 80)) @ Q.T, jnp.float32)
    B = jnp.asarray(rng.standard_normal((2, 80)), jnp.float32)
    E = preconditioner(jnp.zeros((1, 80), jnp.float32), jnp.ones(80, jnp.float32))
    report = {}
    for tolerance in (1e-3, 1e-5):
        found = jax.jit(lambda B, t=tolerance: block_conjugate_gradients(lambda V: V @ A, B, E, t, 400))(B)
        left = np.linalg.norm(np.float64(B) - np.float64(found.x) @ np.float64(A), axis=1)
        report[tolerance] = found.report
        np.testing.assert_allclose(found.report.residuals, left / np.linalg.norm(B, axis=1), rtol=0.3)
    assert report[1e-3].converged and not report[1e-5].converged
    history = np.asarray(report[1e-5].history)
    assert np.nanmin(history[:, 0]) < 0.2 * np.max(report[1e-5].residuals)
