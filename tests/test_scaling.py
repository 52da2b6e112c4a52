"""Data in other units, what is said where a prior does not expect them, and new observations."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pathwise_gp as pgp
from pathwise_gp._priors.conditioning import _scales

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
N = 12
# Years, and a temperature; a concentration.
X = np.c_[np.linspace(1959, 2024, N), 280 + 5 * RNG.normal(size=N)]
Y = 340 + 10 * np.sin(X[:, 0] / 9)
MASK = np.arange(N) != 3
SCALING = pgp.standardise(X, Y, MASK)
AT = X[:5] + np.array([0.7, -1.0])
KERNEL = pgp.RBF(1.0, [0.5, 1.0]) + pgp.Matern(1.5, 0.5, 1.0) + pgp.White(0.05)
PRIOR = pgp.GPPrior(kernel=KERNEL, X=SCALING.inputs(X), mean=0.2, jitter=1e-3)
POSTERIOR = PRIOR.condition(SCALING.values(Y), 0.1, MASK)
THERE = SCALING.inputs(AT)


def close(left, right):
    np.testing.assert_allclose(left, right, rtol=1e-8, atol=1e-10)


def test_data_are_standardised_and_back():
    values = SCALING.values(Y)
    close(np.mean(SCALING.inputs(X), axis=0), 0)
    close(np.std(SCALING.inputs(X), axis=0), 1)
    close([values[MASK].mean(), values[MASK].std()], [0, 1])
    close(SCALING.original_inputs(SCALING.inputs(X)), X)
    close(SCALING.original_values(values), Y)
    close(SCALING.original_variances(SCALING.variances(0.3)), 0.3)
    kept = pgp.standardise(X, np.full(N, 7.0), keep=[0])
    close(kept.inputs(X)[:, 0], X[:, 0])
    close(kept.values(np.full(N, 7.0)), 0)
    # Seconds since 1970 keep their digits in single precision.
    with jax.enable_x64(False):
        seconds = 1.7e9 + np.arange(6.0)[:, None]
        small = pgp.standardise(seconds, np.arange(6.0)).inputs(seconds)
        assert small.dtype == jnp.float32
        np.testing.assert_allclose(np.diff(small[:, 0]), 1 / np.std(np.arange(6.0)), rtol=1e-5)


def test_posteriors_are_read_in_the_original_units():
    original = SCALING.original(POSTERIOR)
    close(original.mean(AT), SCALING.original_values(POSTERIOR.mean(THERE)))
    density = POSTERIOR.log_marginal_likelihood() - MASK.sum() * np.log(SCALING.value.scale)
    close(original.log_marginal_likelihood(), density)
    close(original.variance(AT), SCALING.original_variances(POSTERIOR.variance(THERE)))
    close(original.predict(AT).variance, SCALING.original_variances(POSTERIOR.predict(THERE).variance))
    close(original.leave_one_out().mean, SCALING.original_values(POSTERIOR.leave_one_out().mean))
    # It is the posterior of its own prior.
    again = original.prior.condition(Y, original.noise_var, MASK)
    close(again.mean(AT), original.mean(AT))
    close(again.y, original.y)


@pytest.mark.parametrize("share_features", [True, False])
def test_paths_are_read_in_the_original_units(share_features):
    drawn = pgp.PathwiseSampler(POSTERIOR, 16, share_features=share_features).sample_paths(KEY, 3)
    paths = SCALING.original(drawn)
    close(paths(AT), SCALING.original_values(drawn(THERE)))
    close(paths.mean_path(AT), SCALING.original(POSTERIOR).mean(AT))
    close(paths.marginal_variance(AT), SCALING.original_variances(drawn.marginal_variance(THERE)))
    close(paths.observe(AT, KEY), SCALING.original_values(drawn.observe(THERE, KEY)))
    slope = jax.grad(drawn[1])(THERE[0]) * SCALING.value.scale / SCALING.input.scale
    close(jax.grad(paths[1])(jnp.asarray(AT[0])), slope)
    if share_features:
        close(sum(part(AT) for part in paths.components()), paths(AT))
        close(paths.components()[1](AT), SCALING.value.scale * drawn.components()[1](THERE))
        ensemble = pgp.PathEnsemble(*eqx.partition(_stacked(drawn), _varies(drawn)))
        close(SCALING.original(ensemble)(AT)[1], SCALING.original(ensemble[1])(AT))


def _stacked(drawn):
    """Two draws, of which the coefficients differ."""
    return eqx.tree_at(lambda p: p.coefficients, drawn, jnp.stack([drawn.coefficients, 2 * drawn.coefficients]))


def _varies(drawn):
    return eqx.tree_at(lambda p: p.coefficients, jax.tree.map(lambda _: False, drawn), True)


def test_outputs_are_read_in_units_of_their_own():
    both = np.c_[Y, 5 - 3 * np.cos(X[:, 0] / 9)]
    scaling = pgp.standardise(X, both)
    kernel = pgp.Coregionalised(pgp.RBF(1.0, 0.8), [[0.5], [0.4]], [0.3, 0.2])
    all_outputs, at = pgp.AllOutputs(scaling.inputs(X), 2), pgp.with_outputs(AT, 2)
    there = pgp.with_outputs(scaling.inputs(AT), 2)
    for mean, solver in ((pgp.OutputMeans([0.1, 0.2]), None), (0.3, pgp.Cholesky())):
        prior = pgp.GPPrior(kernel=kernel, X=all_outputs, mean=mean, jitter=1e-3)
        posterior = prior.condition(scaling.values(both), 0.1, solver=solver)
        original = scaling.original(posterior)
        close(original.mean(at), scaling.original_values(posterior.mean(there)))
        close(original.variance(at), scaling.original_variances(posterior.variance(there)))
        close(original.predict(at).variance, scaling.original_variances(posterior.predict(there).variance))
        drawn = pgp.PathwiseSampler(posterior, 48).sample_paths(KEY, 2)
        paths = scaling.original(drawn)
        close(paths(at), scaling.original_values(drawn(there)))
        close(paths.outputs(AT), paths(at))
        close(paths.marginal_variance(at), scaling.original_variances(drawn.marginal_variance(there)))
        close(paths.outputs.output(1).noise_var, scaling.value.scale[1] ** 2 * drawn.noise_var)


YEARS = np.arange(-15.0, 15.0)[:, None]
LEVEL = 340 + 20 * np.sin(YEARS[:, 0] / 3)
GRID = pgp.Coregionalised(pgp.RBF(1.0, 0.3), [[0.5], [0.4]], [0.3, 0.2])
FAR = {
    "level": (
        pgp.GPPrior(pgp.RBF(1.0, 3.0), YEARS),
        LEVEL,
        r"`y` lies 24\d prior standard deviations from the prior mean",
    ),
    "lengthscale": (
        pgp.GPPrior(pgp.RBF(100.0, 0.3), YEARS, 340.0),
        LEVEL,
        r"expects: no two points of `X` have a prior",
    ),
    "both": (pgp.GPPrior(pgp.RBF(1.0, 0.3), YEARS), LEVEL, r"deviations .*, and no two .*`check_scales=False`"),
    "outputs": (
        pgp.GPPrior(GRID, pgp.AllOutputs(YEARS, 2)),
        np.c_[LEVEL, LEVEL],
        r"lies 28\d prior .*, and no two points",
    ),
}


@pytest.mark.parametrize("name", FAR)
def test_data_far_from_the_prior_are_said_once_and_only_then(name):
    prior, y, words = FAR[name]
    with pytest.warns(pgp.ScaleWarning, match=words) as said:
        posterior = prior.condition(y, 1.0)
    assert len(said) == 1
    assert said[0].filename == __file__
    # Warnings are errors here: by the flag, under jit, and where the same data are scaled, nothing is said.
    prior.condition(y, 1.0, check_scales=False)
    at = YEARS[:3] if y.ndim == 1 else pgp.with_outputs(YEARS[:3], 2)
    mean = eqx.filter_jit(lambda prior, y: prior.condition(y, 1.0).mean(at))(prior, jnp.asarray(y))
    close(mean, posterior.mean(at))
    scaling = pgp.standardise(YEARS, y)
    points = lambda p: p.X if y.ndim == 1 else p.X.X
    wider = eqx.tree_at(points, prior, scaling.inputs(YEARS))
    eqx.tree_at(lambda p: p.mean, wider, pgp.ZeroMean()).condition(scaling.values(y), 0.1)


def test_a_mask_a_unit_and_a_few_points_are_heard():
    prior = pgp.GPPrior(pgp.RBF(1.0, 0.3), YEARS)
    few = np.arange(30) < 9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prior.condition(np.where(few, 0.5, 1e6), 0.1, few)
    with pytest.warns(pgp.ScaleWarning, match="`y` lies 50 prior"):  # whatever the unit
        pgp.GPPrior(pgp.RBF(1e-4, 3.0), YEARS).condition(np.full(30, 0.5), 1e-7)
    with pytest.warns(pgp.ScaleWarning, match="expects: no two points"):
        prior.condition(np.full(30, 0.5), 0.1, np.arange(30) < 15)


def test_of_very_many_points_some_are_asked():
    prior = pgp.GPPrior(pgp.RBF(2.0, 0.3), 0.1 * np.arange(5_000.0)[:, None])
    neighbours, some = np.exp(-0.5 / 9), np.zeros(5_000, bool)
    residual = jnp.ones(5_000)
    correlation = lambda mask: _scales(prior, prior.functional, residual, mask).correlation
    close(correlation(None), neighbours)
    close(correlation(jnp.asarray(some).at[3_001:3_021].set(True)), neighbours)
    apart = correlation(jnp.asarray(some).at[::250].set(True))
    assert apart < 1e-100
    one_twice = jnp.asarray(some).at[::250].set(True).at[2_502].set(True)
    close(correlation(one_twice), np.exp(-0.5 * 4 / 9))


def test_new_observations_have_the_noise():
    at, noise = THERE[:2], 0.1 + 1e-3 + 0.05  # of the observations, the jitter that was asked for, and of the kernel
    mean, variance = POSTERIOR.predict(at)
    close(mean, POSTERIOR.mean(at))
    close(variance, POSTERIOR.variance(at) + noise)
    close(POSTERIOR.predict(at, [0.3, 0.4]).variance, POSTERIOR.variance(at) + np.array([0.3, 0.4]) + 0.05)
    paths = pgp.PathwiseSampler(POSTERIOR, 16).sample_paths(KEY, 4_000)
    off = np.asarray(paths.observe(at, jax.random.key(1)) - paths(at))
    error = np.sqrt(2 / off.size)
    assert abs(np.var(off) / noise - 1) < 4 * error
    assert abs(np.mean(off[:, 0] * off[:, 1])) < 4 * noise / np.sqrt(4_000)
    # Of an ensemble each draw has its own.
    both = eqx.tree_at(lambda p: p.noise_var, _stacked(paths), jnp.asarray([0.0, 1.0]))
    spec = eqx.tree_at(lambda p: p.noise_var, _varies(paths), True)
    ensemble = pgp.PathEnsemble(*eqx.partition(both, spec))
    off = np.asarray(ensemble.observe(at, jax.random.key(1)) - ensemble(at))
    np.testing.assert_allclose(off.var(axis=(1, 2)), [0.05, 1.05], rtol=4 * error)
    guide = pgp.optimal_guide(pgp.SparseGPPrior(PRIOR.kernel.kernels[0], PRIOR.X), PRIOR.X, SCALING.values(Y), 0.1)
    exact = pgp.GPPrior(PRIOR.kernel.kernels[0], PRIOR.X).condition(SCALING.values(Y), 0.1)
    found = guide.predict(pgp.SparseGPPrior(PRIOR.kernel.kernels[0], PRIOR.X), at, 0.1)
    np.testing.assert_allclose(found, exact.predict(at), atol=1e-5)
    two = pgp.with_outputs(YEARS[:2], 2)
    outputs = pgp.GPPrior(GRID, pgp.AllOutputs(YEARS, 2)).condition(
        np.c_[LEVEL, LEVEL] - 340, np.array([4.0, 9.0]), check_scales=False
    )
    close(outputs.predict(two).variance - outputs.variance(two), np.array([[4.0, 9.0]] * 2))
    drawn = pgp.PathwiseSampler(outputs, 4).sample_paths(KEY, 2_000)
    for observed in (drawn.observe(two, jax.random.key(1)), drawn.outputs.observe(YEARS[:2], jax.random.key(1))):
        off = np.asarray(observed - drawn(two))
        np.testing.assert_allclose(off.var(axis=(0, 1)), [4.0, 9.0], rtol=4 * np.sqrt(2 / 4_000))
    close(drawn.outputs.output(1).noise_var, 9.0)
