"""Several outputs: on a grid, with numbers in a column, and observed at inputs of their own."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import pathwise_gp as pgp
from pathwise_gp._numerics.kronecker import KroneckerFactor

RNG = np.random.default_rng(5)
N, P, DIM = 6, 3, 2
X, TEST = RNG.normal(size=(N, DIM)), RNG.normal(size=(4, DIM))
Y = RNG.normal(size=(N, P))
NOISE = np.array([0.1, 0.3, 0.05])
MEANS = np.array([0.5, -1.0, 0.2])
KAPPA = np.array([0.4, 0.4, 0.4])
# Independent outputs of one variance: eigenvalues of B are all the same, and have no derivatives of their own.
LOADINGS = {"correlated": RNG.normal(size=(P, 2)), "independent": np.zeros((P, 0))}
INDEXED = pgp.with_outputs(X, P).reshape(N * P, DIM + 1)


def kernel(name):
    return pgp.Coregionalised(pgp.RBF(1.3, 0.9) + pgp.Linear(0.4), LOADINGS[name], KAPPA)


AT = pgp.with_outputs(TEST, P)
ALL = pgp.AllOutputs(X, P)
MASK = np.arange(N * P).reshape(N, P) % 4 != 1


def grid(kernel, noise_var=NOISE):
    prior = pgp.GPPrior(kernel=kernel, X=ALL, mean=pgp.OutputMeans(MEANS), jitter=1e-3)
    return prior, prior.condition(Y, noise_var)


def dense(kernel, noise_var=NOISE):
    """The same with an observation for each input and output."""
    mean = lambda Z: jnp.asarray(MEANS)[Z[:, -1].astype(int)]
    prior = pgp.GPPrior(kernel=kernel, X=INDEXED, mean=mean, jitter=1e-3)
    noise = jnp.tile(noise_var, N)
    return prior, prior.condition(Y.reshape(-1), noise), noise


def close(got, wanted, atol=1e-10):
    np.testing.assert_allclose(got, wanted, rtol=0, atol=atol)


MOMENTS = {
    "mean": lambda posterior, where: posterior.mean(where),
    "variance": lambda posterior, where: posterior.variance(where),
    "covariance": lambda posterior, where: posterior.covariance(where),
    "cross": lambda posterior, where: posterior.covariance(where, INDEXED[:5]),
}


@pytest.mark.parametrize("name", LOADINGS)
def test_the_grid_is_the_dense_process(name):
    (prior, posterior), (dense_prior, dense_posterior, noise) = grid(kernel(name)), dense(kernel(name))
    assert isinstance(posterior.solution, KroneckerFactor)
    close(prior.log_prob(Y, NOISE), dense_prior.log_prob(Y.reshape(-1), noise))
    assert posterior.mean(AT).shape == posterior.variance(AT).shape == (4, P)
    there = pgp.AllOutputs(TEST, P)
    for what in MOMENTS.values():
        close(what(posterior, there), what(dense_posterior, AT.reshape(-1, DIM + 1)))
        close(what(posterior, AT.reshape(-1, DIM + 1)), what(posterior, there))
    close(posterior.mean(AT[0]), posterior.mean(AT)[0])
    close(posterior.log_marginal_likelihood(), prior.log_prob(Y, NOISE))
    for found, wanted in zip(posterior.leave_one_out(), dense_posterior.leave_one_out(), strict=True):
        close(found, wanted)
    # A noise of one value is that of all outputs.
    close(prior.log_prob(Y, 0.1), dense_prior.log_prob(Y.reshape(-1), 0.1))


@pytest.mark.parametrize("name", LOADINGS)
def test_derivatives_on_the_grid_are_those_of_the_dense_process(name):
    values = {
        "likelihood": (
            lambda k, noise: grid(k, noise)[0].log_prob(Y, noise),
            lambda k, noise: dense(k, noise)[0].log_prob(Y.reshape(-1), jnp.tile(noise, N)),
        ),
        "mean and variance": (
            lambda k, noise: jnp.sum(grid(k, noise)[1].mean(AT) ** 2 + grid(k, noise)[1].variance(AT)),
            lambda k, noise: jnp.sum(dense(k, noise)[1].mean(AT) ** 2 + dense(k, noise)[1].variance(AT)),
        ),
        "evidence of the posterior": (
            lambda k, noise: grid(k, noise)[1].log_marginal_likelihood(),
            lambda k, noise: dense(k, noise)[1].log_marginal_likelihood(),
        ),
    }
    for what, functions in values.items():
        got, wanted = (
            ravel_pytree(eqx.filter_jit(eqx.filter_grad(lambda pair: f(*pair)))((kernel(name), jnp.asarray(NOISE))))[0]
            for f in functions
        )
        assert np.abs(wanted).max() > 0.1
        np.testing.assert_allclose(got, wanted, atol=1e-9, err_msg=what)


@eqx.filter_jit
def grid_moments(sampler, features, x):
    n_features = features(AT[:, 0]).shape[1]
    flat, unravel = ravel_pytree((jnp.zeros((1, n_features)), jnp.zeros((1, N * P))))
    value = lambda z: sampler.update(features, *unravel(z)).outputs(x)[0].reshape(-1)
    jacobian = jax.jacfwd(value)(flat)
    return value(flat), jacobian @ jacobian.T


@pytest.mark.parametrize("name", LOADINGS)
def test_moments_of_paths_on_a_grid(name):
    # With an exact basis those of the posterior; with random features those of the process that has them for a kernel.
    index = pgp.Index(LOADINGS[name], KAPPA)
    for base in (pgp.Linear(0.7) + pgp.Polynomial(0.3, 0.8, 2), pgp.RBF(1.3, 0.9)):
        posterior = grid(pgp.Coregionalised(base, index.W, KAPPA))[1]
        sampler = pgp.PathwiseSampler(posterior, 20 * sum(index.W.shape))
        paths = sampler.sample_paths(jax.random.key(0), 2)
        mean, covariance = grid_moments(sampler, paths.features, jnp.asarray(TEST))
        close(mean.reshape(4, P), posterior.mean(AT))
        B = np.asarray(index.covariance())
        sigma = np.kron(np.eye(N), np.diag(NOISE + 1e-3))
        K, cross = np.asarray(base(X, X)), np.asarray(base(TEST, X))
        H = np.kron(cross, B) @ np.linalg.inv(np.kron(K, B) + sigma)
        phi, phi_test = (np.asarray(paths.features(rows)) for rows in (INDEXED, AT.reshape(-1, DIM + 1)))
        np.testing.assert_allclose(phi[::P] @ phi[1::P].T, np.asarray(B[0, 1] / B[0, 0] * (phi[::P] @ phi[::P].T)))
        spread = phi_test - H @ phi
        close(covariance, spread @ spread.T + H @ sigma @ H.T, 1e-9)
        close(paths.marginal_variance(AT).reshape(-1), np.diagonal(covariance), 1e-9)
        if base.basis_size(DIM) is not None:
            close(paths.marginal_variance(AT), posterior.variance(AT), 1e-9)


def test_draws_on_a_grid():
    posterior = grid(kernel("correlated"))[1]
    drawn = pgp.PathwiseSampler(posterior, 320).sample_paths(jax.random.key(1), 4000)
    paths = drawn.outputs
    values = np.asarray(paths(TEST))
    assert values.shape == (4000, 4, P)
    close(drawn(AT), values)
    close(ALL(drawn), drawn(INDEXED))
    close(pgp.AllOutputs(X, 2)(drawn), drawn(pgp.with_outputs(X, 2)).reshape(4000, -1))
    standard_error = np.sqrt(np.asarray(drawn.marginal_variance(AT)) / 4000)
    assert np.all(np.abs(values.mean(0) - posterior.mean(AT)) < 4 * standard_error)
    # The variance of a sample variance of a normal is 2σ⁴/n.
    assert np.all(np.abs(values.var(0) / np.asarray(drawn.marginal_variance(AT)) - 1) < 4 * math.sqrt(2 / 4000))
    # One path, one point, and the laws of a pytree.
    one = paths[3]
    assert (paths.shape, one.shape, one(TEST).shape, one(TEST[0]).shape) == ((4000,), (), (4, P), (P,))
    close(one(TEST), values[3])
    close(paths[:2](TEST.reshape(2, 2, DIM)), values[:2].reshape(2, 2, 2, P))
    close(paths.mean_path(TEST), posterior.mean(AT))
    close(drawn.mean_path.outputs(TEST), posterior.mean(AT))
    close(one.output(1)(TEST), values[3][:, 1])
    assert len(paths[:5]) == 5 and [path.shape for path in paths[:3]] == [()] * 3
    close(eqx.filter_jit(lambda p, x: p(x))(paths[:3], TEST), values[:3])
    assert jax.jacobian(one)(jnp.asarray(TEST[0])).shape == (P, DIM)
    # X is stored once, whatever the number of outputs and paths.
    assert paths.inputs.shape == (N, DIM)
    with pytest.raises(TypeError, match="no len"):
        len(one)
    own = pgp.PathwiseSampler(posterior, 320, share_features=False).sample_paths(jax.random.key(1), 2)
    with pytest.raises(ValueError, match=r"one basis.*`with_outputs\(X, n_outputs\)`"):
        _ = own.outputs
    close(ALL(own), own(INDEXED))


def test_independent_outputs_are_independent():
    posterior = grid(kernel("independent"))[1]
    values = np.asarray(pgp.PathwiseSampler(posterior, 768).sample_paths(jax.random.key(2), 4000)(AT))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        for a in range(4):
            correlation = np.corrcoef(values[:, a, i], values[:, a, j])[0, 1]
            assert abs(correlation) < 4 / math.sqrt(4000)
    # What one output saw does not move another.
    other = Y.copy()
    other[:, 1] += 3.0
    prior = posterior.prior
    moved = prior.condition(other, NOISE).mean(AT) - posterior.mean(AT)
    close(moved[:, [0, 2]], 0)
    assert np.abs(moved[:, 1]).max() > 0.1
    shared = grid(kernel("correlated"))[0]
    moved = shared.condition(other, NOISE).mean(AT) - shared.condition(Y, NOISE).mean(AT)
    assert np.abs(moved[:, [0, 2]]).min() > 1e-3


def test_outputs_observed_at_inputs_of_their_own():
    # Output 0 at four inputs, output 1 at two, output 2 nowhere; one input twice.
    rows = np.concatenate([np.c_[X[:4], np.zeros(4)], np.c_[X[3:5], np.ones(2)], np.c_[X[:1], np.zeros(1)]])
    y = RNG.normal(size=7)
    for name in LOADINGS:
        k = kernel(name)
        posterior = pgp.GPPrior(kernel=k, X=rows, jitter=0.0).condition(y, 0.2)
        index, base = k.index().covariance(), k.kernel
        full = lambda a, b: (
            np.asarray(base(a[:, :-1], b[:, :-1]))
            * np.asarray(index)[np.ix_(a[:, -1].astype(int), b[:, -1].astype(int))]
        )
        at = np.asarray(pgp.with_outputs(TEST, P)).reshape(-1, DIM + 1)
        H = full(at, rows) @ np.linalg.inv(full(rows, rows) + 0.2 * np.eye(7))
        close(posterior.mean(at), H @ y)
        close(posterior.covariance(at), full(at, at) - H @ full(rows, at))
        paths = pgp.PathwiseSampler(posterior, 4096).sample_paths(jax.random.key(0), 3)
        assert paths(at).shape == (3, 4 * P) and paths(pgp.with_outputs(TEST, P)).shape == (3, 4, P)
        np.testing.assert_allclose(paths.marginal_variance(at), posterior.variance(at), rtol=0.2)
        if name == "independent":  # nothing is known of output 2
            close(posterior.mean(at).reshape(4, P)[:, 2], 0)
            close(posterior.variance(at).reshape(4, P)[:, 2], 0.4 * base.diag(TEST))


def test_with_outputs():
    grid = np.asarray(pgp.with_outputs(X, 2))
    assert grid.shape == (N, 2, DIM + 1)
    np.testing.assert_array_equal(grid[:, 1, :-1], X)
    np.testing.assert_array_equal(grid[..., -1], np.tile([0.0, 1.0], (N, 1)))
    assert pgp.with_outputs(X.astype(np.float32), 2).dtype == jnp.float32


def test_grid_in_single_precision():
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), kernel("correlated"))
    all_outputs, at = pgp.AllOutputs(X.astype(np.float32), P), AT.astype(jnp.float32)
    prior = pgp.GPPrior(kernel=single, X=all_outputs, mean=pgp.OutputMeans(MEANS), jitter=1e-3)
    posterior = prior.condition(Y, NOISE)
    assert isinstance(posterior.solution, KroneckerFactor)
    paths = pgp.PathwiseSampler(posterior, 16).sample_paths(jax.random.key(0), 2)
    assert posterior.mean(at).dtype == paths(at).dtype == paths.outputs(TEST).dtype == jnp.float32
    close(posterior.mean(at), grid(kernel("correlated"))[1].mean(AT), 1e-4)
    close(posterior.variance(at), grid(kernel("correlated"))[1].variance(AT), 1e-4)


def test_means_of_outputs():
    k = kernel("correlated")
    trend = lambda Z: jnp.stack([Z[:, 0], 0 * Z[:, 0] + 1, Z[:, 1]], axis=1)
    prior = pgp.GPPrior(kernel=k, X=ALL, mean=pgp.OutputMeans(trend), jitter=1e-3)
    centred = pgp.GPPrior(kernel=k, X=ALL, jitter=1e-3).condition(Y - np.asarray(trend(X)), NOISE)
    posterior = prior.condition(Y, NOISE)
    close(posterior.mean(AT), centred.mean(AT) + trend(TEST))
    draw = lambda p: pgp.PathwiseSampler(p, 8).sample_paths(jax.random.key(0), 2).outputs
    close(draw(posterior)(TEST), draw(centred)(TEST) + trend(TEST)[None])
    close(draw(posterior).output(2)(TEST), draw(centred).output(2)(TEST) + trend(TEST)[None, :, 2])
    close(pgp.OutputMeans([2.0, 3.0])(AT[:, :2]), np.tile([2.0, 3.0], (4, 1)))
    close(pgp.OutputMeans([2.0, 3.0])(AT[0, 1]), 3.0)


def test_what_is_not_a_full_grid_is_the_same_model():
    """Gaps, a noise for each value, a sum of kernels, and other observations beside: dense, or by iterations."""
    k = kernel("correlated")
    prior, (dense_prior, _, noise) = grid(k)[0], dense(k)
    seen = np.flatnonzero(MASK.reshape(-1))
    some = pgp.GPPrior(kernel=k, X=INDEXED[seen], mean=prior.mean, jitter=1e-3)
    wanted, y = some.condition(Y.reshape(-1)[seen], noise[seen]), np.where(MASK, Y, np.nan)
    iterative = pgp.ConjugateGradients(1e-12, cache=0, preconditioner=pgp.RandomPivots(8))
    for solver in (None, pgp.Cholesky(), iterative):
        posterior = prior.condition(y, NOISE, MASK, solver=solver)
        assert not isinstance(posterior.solution, KroneckerFactor)
        close(posterior.mean(AT), wanted.mean(AT), 1e-9)
        close(posterior.variance(AT), wanted.variance(AT), 1e-9)
    close(prior.log_prob(y, NOISE, MASK), some.log_prob(Y.reshape(-1)[seen], noise[seen]))
    paths = pgp.PathwiseSampler(prior.condition(y, NOISE, MASK), 40).sample_paths(jax.random.key(0), 3)
    close(paths.outputs(TEST), paths(AT))
    each = np.linspace(0.1, 0.3, N * P).reshape(N, P)
    close(prior.condition(Y, each).mean(AT), dense_prior.condition(Y.reshape(-1), each.reshape(-1)).mean(AT))
    # The solvers of a full grid are one another's second route.
    for solver in (pgp.Cholesky(), pgp.Kronecker(), iterative):
        close(prior.condition(Y, NOISE, solver=solver).mean(AT), prior.condition(Y, NOISE).mean(AT), 1e-9)
    both = k + pgp.Coregionalised(pgp.Matern(2.5, 0.5, 0.4), np.ones((P, 1)), KAPPA)
    two = pgp.GPPrior(both, ALL).condition(Y, NOISE)
    rows = pgp.GPPrior(both, INDEXED).condition(Y.reshape(-1), noise)
    close(two.mean(pgp.AllOutputs(TEST, P)), rows.mean(AT.reshape(-1, DIM + 1)))
    close(two.covariance(pgp.AllOutputs(TEST, P)), rows.covariance(AT.reshape(-1, DIM + 1)))
    # A slope of one output, and all of them.
    along = pgp.Directional(pgp.with_outputs(X[:2], P)[:, 1], np.eye(DIM + 1)[0])
    beside = pgp.GPPrior(pgp.Coregionalised(pgp.RBF(1.3, 0.9), k.W, KAPPA), [ALL, along])
    listed = pgp.GPPrior(beside.kernel, [INDEXED, along])
    given, noises = [Y, np.array([0.3, -0.2])], [NOISE, 0.1]
    flat = [Y.reshape(-1), given[1]], [noise, 0.1]
    close(beside.condition(given, noises).mean(AT), listed.condition(*flat).mean(AT))
    close(beside.log_prob(given, noises), listed.log_prob(*flat))


def test_outputs_without_noise():
    """Of all outputs or of one: as by the dense factorisation, and nothing is said of a noise that is not there."""
    k = pgp.Coregionalised(pgp.Matern(1.5, 1.3, 0.9), LOADINGS["correlated"], KAPPA)
    for noise in (0.0, [0.0, 0.1, 0.2]):
        prior = pgp.GPPrior(k, ALL)
        posterior, dense_posterior = prior.condition(Y, noise), prior.condition(Y, noise, solver=pgp.Cholesky())
        close(posterior.mean(AT), dense_posterior.mean(AT))
        close(posterior.variance(AT), dense_posterior.variance(AT))
        close(prior.log_prob(Y, noise), dense_posterior.log_marginal_likelihood(), 1e-8)


@pytest.mark.usefixtures("standard_promotion")
def test_hyperparameters_of_a_grid_are_learnt():
    prior = pgp.GPPrior(pgp.Coregionalised(pgp.RBF(1.0, 1.0), np.ones((P, 1)), KAPPA), ALL)
    rows = pgp.GPPrior(prior.kernel, INDEXED)
    fields = ("kernel.kernel.*", "kernel.kappa")
    found = pgp.fit(prior, Y, NOISE, fields=fields, learn_noise=True, max_steps=15)
    assert found.noise_var.shape == (P,) and found.log_density > prior.log_prob(Y, NOISE) + 1
    close(
        found.log_density, pgp.GPPrior(found.prior.kernel, INDEXED).log_prob(Y.reshape(-1), np.tile(found.noise_var, N))
    )
    # One noise for all: the search is that of the dense process.
    one, other = (pgp.fit(p, y, 0.1, fields=fields, max_steps=15) for p, y in ((prior, Y), (rows, Y.reshape(-1))))
    np.testing.assert_allclose(one.log_density, other.log_density, rtol=1e-6)


def test_a_full_grid_takes_no_dense_matrix():
    """n = 300 points of 5 outputs: nothing that is made has as many entries as the dense covariance."""
    n, p = 300, 5
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(n, 2)))
    y, test = jnp.asarray(rng.normal(size=(n, p))), jnp.asarray(rng.normal(size=(7, 2)))

    def answers(inputs, y):
        k = pgp.Coregionalised(pgp.RBF(1.0, 0.5), jnp.ones((p, 1)), jnp.ones(p))
        prior = pgp.GPPrior(k, pgp.AllOutputs(inputs, p))
        posterior = prior.condition(y, 0.1, check_scales=False)
        paths = pgp.PathwiseSampler(posterior, 64).sample_paths(jax.random.key(0), 2)
        return prior.log_prob(y, 0.1), posterior.mean(pgp.AllOutputs(test, p)), paths.outputs(test)

    assert largest(jax.make_jaxpr(answers)(inputs, y).jaxpr) < (n * p) ** 2 // 8
    assert largest(jax.make_jaxpr(jax.grad(lambda y: answers(inputs, y)[0]))(y).jaxpr) < (n * p) ** 2 // 8


def largest(jaxpr):
    """Entries of the largest array that a program makes, in its own programs too."""
    sizes = [1]
    for equation in jaxpr.eqns:
        sizes += [variable.aval.size for variable in equation.outvars if hasattr(variable.aval, "size")]
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            program = getattr(inner, "jaxpr", inner)
            if hasattr(program, "eqns"):
                sizes.append(largest(program))
    return max(sizes)
