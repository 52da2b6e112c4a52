"""The scikit-learn estimator against scikit-learn: its own checks, and its Gaussian process."""

import json
import pickle
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.gaussian_process import GaussianProcessRegressor, kernels as sk
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import pathwise_gp as pgp
from pathwise_gp.estimator import PathwiseGPRegressor

RNG = np.random.default_rng(0)
N = 12
X = RNG.uniform(-2, 2, (N, 2))
Y = 3 + np.sin(2 * X[:, 0]) + 0.5 * X[:, 1] + 0.1 * RNG.normal(size=N)
TEST = RNG.uniform(-2, 2, (5, 2))

pytestmark = pytest.mark.usefixtures("standard_promotion")


def test_it_passes_the_checks_of_scikit_learn():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about estimators in general
        check_estimator(PathwiseGPRegressor(learn=False, n_features=16), on_skip=None)


def test_learnt_it_passes_those_of_the_values():
    # The rest of the checks are about arguments; these fit, and each shape compiles an optimiser.
    estimator = PathwiseGPRegressor(random_state=0)
    assert clone(estimator).get_params() == estimator.get_params()
    found = cross_val_score(make_pipeline(StandardScaler(), estimator), X, Y, cv=3)
    assert found.mean() > 0.5


def theirs(**options):
    kernel = sk.ConstantKernel(1.2) * sk.RBF([0.9, 1.5])
    return GaussianProcessRegressor(kernel, alpha=0.05, **options).fit(X, Y - 3)


KERNEL = pgp.RBF(1.2, jnp.asarray([0.9, 1.5]))


def test_kept_hyperparameters_predict_as_scikit_learn_does():
    other = theirs(optimizer=None)
    ours = PathwiseGPRegressor(KERNEL, 0.05, 3.0, learn=False).fit(X, Y)
    mean, sd = ours.predict(TEST, return_std=True)
    expected, expected_sd = other.predict(TEST, return_std=True)
    # Theirs has no jitter, ours √eps of the variance.
    np.testing.assert_allclose(mean, 3 + expected, atol=1e-6)
    np.testing.assert_allclose(sd, expected_sd, rtol=1e-6)
    np.testing.assert_allclose(
        ours.predict(TEST, return_cov=True)[1], other.predict(TEST, return_cov=True)[1], atol=1e-6
    )
    np.testing.assert_array_equal(ours.predict(TEST), mean)
    assert mean.dtype == sd.dtype == float
    np.testing.assert_allclose(ours.log_marginal_likelihood_value_, other.log_marginal_likelihood_value_, rtol=1e-5)
    assert (ours.kernel_.variance, ours.noise_var_, ours.mean_.value, ours.converged_) == (1.2, 0.05, 3.0, True)


def test_learning_finds_what_fit_finds():
    ours = PathwiseGPRegressor(KERNEL, 0.05, n_restarts=2, random_state=1).fit(X, Y)
    assert ours.converged_
    prior = pgp.GPPrior(kernel=KERNEL, X=X, mean=float(Y.mean()))
    found = pgp.fit(prior, Y, 0.05)
    assert ours.log_marginal_likelihood_value_ >= found.log_density - 1e-6
    # At least as good as the maximum that scikit-learn finds without learning mean or noise.
    assert ours.log_marginal_likelihood_value_ > theirs().log_marginal_likelihood_value_
    again = clone(ours).fit(X, Y)
    np.testing.assert_array_equal(again.predict(TEST), ours.predict(TEST))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(ours)).predict(TEST), ours.predict(TEST))


def test_it_warns_where_learning_did_not_converge():
    with pytest.warns(ConvergenceWarning, match="not converged after 2 steps. Give more `max_steps`"):
        ours = PathwiseGPRegressor(KERNEL, 0.05, max_steps=2).fit(X, Y)
    assert not ours.converged_
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert PathwiseGPRegressor(KERNEL, 0.05).fit(X, Y).converged_


def test_samples_are_paths_with_the_moments_of_the_posterior():
    ours = PathwiseGPRegressor(KERNEL, 0.05, 3.0, learn=False, n_features=512, random_state=3).fit(X, Y)
    draws = ours.sample_y(TEST, 4_000, random_state=0)
    assert draws.shape == (5, 4_000)
    mean, sd = ours.predict(TEST, return_std=True)
    assert (np.abs(draws.mean(1) - mean) < 4.5 * sd / np.sqrt(4_000)).all()
    # A standard deviation has a relative error of 1/√(2S); 512 shared features add two per cent.
    np.testing.assert_allclose(draws.std(1), sd, rtol=4 / np.sqrt(8_000) + 0.06)
    # With one state the same functions, wherever they are evaluated.
    np.testing.assert_allclose(ours.sample_y(TEST[:2], 3, 7), ours.sample_y(TEST, 3, 7)[:2], rtol=1e-10)
    paths = ours.sample_paths(3, 7)
    np.testing.assert_allclose(paths(TEST).T, ours.sample_y(TEST, 3, 7), rtol=1e-10)
    assert jax.grad(paths[0])(jnp.asarray(TEST[0])).shape == (2,)
    np.testing.assert_array_equal(ours.sample_paths(2)(TEST), ours.sample_paths(2)(TEST))


def test_it_computes_in_double_precision_whatever_the_session_does():
    """Little noise, for which single precision is too coarse; a process of its own, which never had double precision."""
    rng = np.random.default_rng(0)
    inputs = np.linspace(0, 10, 40)[:, None]
    y = np.sin(inputs[:, 0]) + 1e-3 * rng.normal(size=40)
    here = PathwiseGPRegressor(pgp.RBF(1.0, 1.0), 1e-6, 0.0, learn=False).fit(inputs, y)
    program = """
import json
import numpy as np
import pathwise_gp as pgp
from pathwise_gp.estimator import PathwiseGPRegressor

rng = np.random.default_rng(0)
X = np.linspace(0, 10, 40)[:, None]
y = np.sin(X[:, 0]) + 1e-3 * rng.normal(size=40)
model = PathwiseGPRegressor(pgp.RBF(1.0, 1.0), 1e-6, 0.0, learn=False).fit(X, y)
mean, sd = model.predict(X, return_std=True)
paths, draws = model.sample_paths(3, random_state=0), model.sample_y(X, 3, random_state=0)
print(json.dumps([mean.tolist(), sd.tolist(), draws.T.tolist(), np.asarray(paths(X)).tolist(), str(paths(X).dtype)]))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    mean, sd, draws, values, dtype = json.loads(done.stdout)
    expected_mean, expected_sd = here.predict(inputs, return_std=True)
    np.testing.assert_allclose(mean, expected_mean, atol=1e-9)
    np.testing.assert_allclose(sd, expected_sd, rtol=1e-6)
    np.testing.assert_allclose(draws, here.sample_y(inputs, 3, random_state=0).T, atol=1e-8)
    # Paths are of the session, right to its rounding.
    assert dtype == "float32"
    largest = np.abs(here.sample_paths(3, random_state=0).coefficients).sum(axis=1).max()
    np.testing.assert_allclose(values, draws, atol=2 * np.finfo(np.float32).eps * largest + 1e-5)


def test_a_jitter_is_noise():
    with_jitter = PathwiseGPRegressor(pgp.RBF(1.0, 1.0), 0.1, 0.0, learn=False, jitter=0.2).fit(X, Y)
    without = PathwiseGPRegressor(pgp.RBF(1.0, 1.0), 0.3, 0.0, learn=False).fit(X, Y)
    np.testing.assert_allclose(with_jitter.predict(X), without.predict(X), rtol=1e-10)


def test_a_normalised_y_is_one_in_other_units():
    kernel = pgp.RBF(1.2, jnp.asarray([0.9, 1.5]))
    mean, sd = Y.mean(), Y.std()
    ours = PathwiseGPRegressor(kernel, 0.05, 0.0, learn=False, normalize_y=True).fit(X, Y)
    same = PathwiseGPRegressor(pgp.RBF(1.2 * sd**2, kernel.lengthscale), 0.05 * sd**2, mean, learn=False).fit(X, Y)
    for one, other in zip(ours.predict(TEST, return_std=True), same.predict(TEST, return_std=True), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8)
    draws = ours.sample_y(TEST, 400)
    assert (np.abs(draws.mean(1) - ours.predict(TEST)) < 4.5 * draws.std(1) / 20).all()
    assert (ours.kernel_.variance, ours.noise_var_, ours.mean_.value) == (1.2, 0.05, 0.0)
    np.testing.assert_allclose(
        ours.posterior_.predict(TEST).variance, same.posterior_.predict(TEST).variance, rtol=1e-8
    )
    theirs = GaussianProcessRegressor(
        sk.ConstantKernel(1.2) * sk.RBF([0.9, 1.5]), alpha=0.05, normalize_y=True, optimizer=None
    )
    np.testing.assert_allclose(ours.predict(TEST), theirs.fit(X, Y).predict(TEST), rtol=1e-8)


def test_the_package_does_not_import_scikit_learn():
    code = "import sys, pathwise_gp; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kernel": 1.0}, "`kernel` must be a kernel of pathwise_gp"),
        ({"noise_var": -1.0}, "`noise_var` must be positive"),
        ({"mean": "zero"}, "`mean` must be a number"),
        ({"normalize_y": 1}, "`normalize_y` must be True or False"),
        ({"learn": "yes"}, "`learn` must be True or False"),
        ({"n_restarts": -1}, "`n_restarts` must not be negative; got -1"),
        # Also while nothing is learnt.
        ({"learn": False, "n_restarts": -3}, "`n_restarts` must not be negative; got -3"),
        ({"learn": False, "n_restarts": 0.5}, "`n_restarts` must be a whole number"),
        ({"learn": False, "max_steps": "x"}, "`max_steps` must be a whole number"),
        ({"learn": False, "n_features": 0}, "`n_features` must be at least 1"),
        ({"kernel": pgp.RBF(1.0, jnp.ones(3))}, "lengthscale"),
    ],
)
def test_fit_refuses(options, words):
    with pytest.raises(ValueError, match=words):
        PathwiseGPRegressor(**options).fit(X, Y)


@pytest.mark.usefixtures("no_hook")
def test_methods_refuse():
    with pytest.raises(ValueError, match="cannot be learnt from one sample"):
        PathwiseGPRegressor().fit(X[:1], Y[:1])
    with pytest.raises(ValueError, match=r"cannot be learnt from a `y` that is 2\.0 throughout"):
        PathwiseGPRegressor().fit(X, np.full(N, 2.0))
    with pytest.raises(NotFittedError):
        PathwiseGPRegressor().sample_paths()
    fitted = PathwiseGPRegressor(KERNEL, 0.05, learn=False).fit(X, Y)
    with pytest.raises(ValueError, match="cannot both be True"):
        fitted.predict(TEST, return_std=True, return_cov=True)
    with pytest.raises(ValueError, match="`n_paths` must be at least 1"):
        fitted.sample_paths(0)
    with pytest.raises(ValueError, match="expecting 2 features"):
        fitted.predict(TEST[:, :1])
