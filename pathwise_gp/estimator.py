"""A scikit-learn regressor, in the one module that imports scikit-learn: it is imported by its own name only."""

import operator
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from . import _checks, _tables
from ._fit import fit
from ._kernels import AbstractKernel, RBF
from ._means import as_mean
from ._paths import PathwiseFunction
from ._priors import GPPrior
from ._samplers import PathwiseSampler
from ._scaling import standardise
from ._types import Key

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as e:  # pragma: no cover
    raise ImportError(
        '`pathwise_gp.estimator` needs scikit-learn, which comes with the extra `sklearn`: pip install ".[sklearn]".'
    ) from e


class PathwiseGPRegressor(RegressorMixin, BaseEstimator):
    """Gaussian process regression as a scikit-learn estimator, whose posterior draws are functions.

    Inputs and outputs are NumPy arrays in double precision, and so is all that is computed, also where JAX's default is
    single precision. Paths are the exception: they belong to the session that calls them, so they are drawn in double
    precision and handed over in the default one, in which a value is right to about ε k(x, x) ‖α‖ for its rounding unit ε.

    **Arguments:**

    - `kernel`: with the values to start from; unless given an RBF with the variance of y, and one lengthscale for each
      input, √d times its standard deviation.
    - `noise_var`: variance of the noise (the square of its standard deviation) to start from; unless given a tenth of
      the variance of y.
    - `mean`: a number, or a callable that maps `n d` to `n`; unless given a constant, which starts at the mean of y.
    - `normalize_y`: whether y is shifted to mean 0 and scaled to standard deviation 1. `kernel`, `noise_var`, `mean` and
      `jitter` are then in these units, and so are `kernel_`, `noise_var_`, `mean_` and the likelihood; predictions, paths,
      `prior_` and `posterior_` are in those of y.
    - `jitter`: as of `GPPrior`: a variance that is added to the diagonal and counts as noise; none unless given.
    - `learn`: whether kernel, mean and noise are learnt by `fit` (maximum marginal likelihood), or kept as they start.
    - `n_restarts`: further starts from random values.
    - `max_steps`: of each start.
    - `n_features`: of the prior part of paths.
    - `random_state`: an integer, a `RandomState` or None; of the further starts, and of `sample_paths` where that is not
      given one.

    **Fields**, after `fit`: `prior_`, `posterior_` (a `ConditionedGP`), `kernel_`, `mean_`, `noise_var_`,
    `log_marginal_likelihood_value_`, `converged_` (True where nothing was learnt), `n_features_in_`. The first four are in
    double precision, and to be called under `jax.enable_x64(True)` where that is not the default.

    **Raises:** in `fit`, ValueError where an argument is not valid (by scikit-learn's conventions the constructor only keeps
    its arguments), or `y` is constant and is to be learnt from; and where learning did not converge sklearn's
    `ConvergenceWarning`. Source: Rasmussen & Williams (2006), algorithm 2.1; for the
    paths, Wilson et al. (2021), equation 12.
    """

    def __init__(
        self,
        kernel: Any = None,
        noise_var: Any = None,
        mean: Any = None,
        *,
        normalize_y: Any = False,
        jitter: Any = None,
        learn: Any = True,
        n_restarts: Any = 0,
        max_steps: Any = 200,
        n_features: Any = 1024,
        random_state: Any = None,
    ):
        # Nothing is looked at here, by the conventions of scikit-learn: `set_params` would go round it.
        self.kernel = kernel
        self.noise_var = noise_var
        self.mean = mean
        self.normalize_y = normalize_y
        self.jitter = jitter
        self.learn = learn
        self.n_restarts = n_restarts
        self.max_steps = max_steps
        self.n_features = n_features
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> "PathwiseGPRegressor":
        """Learns the hyperparameters, and conditions on the observations.

        **Arguments:** `X`: inputs, `n d`; `y`: observations, `n`. **Returns:** itself. **Raises:** ValueError where an
        argument does not fit or is not valid, and a `ConvergenceWarning` where learning did not converge.
        """
        for given, name in ((X, "X"), (y, "y")):
            _tables.refuse_columns(given, name)
        given = np.asarray(y)
        if given.dtype.kind == "f":  # of which scikit-learn would not say where, and what to do
            _checks.finite(given, "y", _checks.LEAVE_OUT)
        X, y = validate_data(self, X, y, y_numeric=True, dtype="numeric")
        with jax.enable_x64(True):
            return self._fit(np.asarray(X, dtype=float), np.asarray(y, dtype=float))

    def partial_fit(self, X: Any, y: Any) -> "PathwiseGPRegressor":
        """Conditions on more observations, with the hyperparameters as they are; the first call is `fit`.

        The posterior has room for more then (`posterior_.capacity`, doubled as it fills), so that most calls compile nothing
        anew.

        **Arguments:** `X`: inputs, `n d`; `y`: observations, `n`. **Returns:** itself. **Raises:** as `fit`, and ValueError
        where the noise was given for each observation.
        """
        if not hasattr(self, "posterior_"):
            return self.fit(X, y)
        for given, name in ((X, "X"), (y, "y")):
            _tables.refuse_columns(given, name)
        X, y = validate_data(self, X, y, y_numeric=True, dtype="numeric", reset=False)
        with jax.enable_x64(True):
            before = self.posterior_
            roomy = before if before.size is not None else before.with_room(2 * before.capacity)
            self.posterior_ = roomy.condition(np.asarray(X, dtype=float), np.asarray(y, dtype=float))
            gained = self.posterior_.log_marginal_likelihood() - before.log_marginal_likelihood()
            # Of observations in units of their own.
            self.log_marginal_likelihood_value_ += float(gained) + len(y) * float(np.log(self._unit))
            self.prior_ = self.posterior_.prior
        return self

    def _fit(self, X: np.ndarray, y: np.ndarray) -> "PathwiseGPRegressor":
        if self.kernel is not None and not isinstance(self.kernel, AbstractKernel):
            raise ValueError(f"`kernel` must be a kernel of pathwise_gp, or None; got {self.kernel!r}.")
        # All are looked at, also those that nothing is made of while nothing is learnt.
        learn = _checks.flag(self.learn, "learn")
        normalize_y = _checks.flag(self.normalize_y, "normalize_y")
        n_restarts = _restarts(self.n_restarts)
        max_steps = _checks.count(self.max_steps, "max_steps")
        _checks.count(self.n_features, "n_features")
        # A constant y has no variance, and one point no spread.
        variance = float(np.var(y)) or 1.0
        if learn and np.ptp(y) == 0:
            what = "one sample" if len(y) == 1 else f"a `y` that is {y[0]} throughout"
            raise ValueError(f"Hyperparameters cannot be learnt from {what}. Pass `learn=False` to keep them.")
        scaling = standardise(X, y, keep=range(X.shape[1])) if normalize_y else None
        if scaling is not None:
            y = np.asarray(scaling.values(y))
            variance = float(np.var(y)) or 1.0
        kernel = self.kernel
        if kernel is None:
            scale = np.sqrt(X.shape[1]) * np.std(X, axis=0)
            kernel = RBF(jnp.asarray(variance), jnp.asarray(np.where(scale > 0, scale, 1.0)))
        noise_var = 0.1 * variance if self.noise_var is None else self.noise_var
        mean = float(np.mean(y)) if self.mean is None else self.mean
        kernel, mean, noise_var = (_in_dtype(part, float) for part in (kernel, as_mean(mean), noise_var))
        prior = GPPrior(kernel=kernel, X=jnp.asarray(X), mean=mean, jitter=self.jitter)
        self.converged_ = True
        if learn:
            key = _key(self.random_state) if n_restarts else None
            found = fit(prior, y, noise_var, key=key, n_restarts=n_restarts, max_steps=max_steps)
            prior, noise_var = found.prior, found.noise_var
            self.converged_ = bool(found.converged)
            if not self.converged_:
                message = f"The hyperparameters had not converged after {int(jnp.max(found.steps))} steps. Give more "
                warnings.warn(message + "`max_steps`, or other values to start from.", ConvergenceWarning, stacklevel=3)
        posterior = prior.condition(y, noise_var)
        self.kernel_, self.mean_ = prior.kernel, prior.mean
        self.noise_var_ = np.asarray(posterior.noise_var, dtype=float)
        self.log_marginal_likelihood_value_ = float(posterior.log_marginal_likelihood())
        self.posterior_ = posterior if scaling is None else scaling.original(posterior)
        self.prior_ = self.posterior_.prior
        self._unit = 1.0 if scaling is None else float(scaling.value.scale)
        return self

    def predict(self, X: Any, return_std: bool = False, return_cov: bool = False) -> Any:
        """Posterior mean of the function, without noise, and its standard deviations or covariance.

        **Arguments:** `X`: inputs, `n d`; `return_std`, `return_cov`: what else is returned, at most one of them. New
        observations are predicted by `posterior_.predict`.

        **Returns:** the mean, `n`; with it, where asked for, standard deviations, `n`, or the covariance, `n n`.

        **Raises:** ValueError where `X` does not fit, or both are asked for.
        """
        X = self._inputs(X)
        if return_std and return_cov:
            raise ValueError("`return_std` and `return_cov` cannot both be True: the covariance holds the variances.")
        with jax.enable_x64(True):
            mean = np.asarray(self.posterior_.mean(X), dtype=float)
            if return_std:
                return mean, np.sqrt(np.asarray(self.posterior_.variance(X), dtype=float))
            if return_cov:
                return mean, np.asarray(self.posterior_.covariance(X), dtype=float)
        return mean

    def sample_paths(self, n_paths: int = 1, random_state: Any = None) -> PathwiseFunction:
        """Independent draws of the posterior as functions of JAX arrays.

        **Arguments:** `n_paths`; `random_state`: an integer or a `RandomState`; the estimator's own unless given.

        **Returns:** paths, callable at any inputs and differentiable, with one axis of length `n_paths`.

        **Raises:** ValueError where `n_paths` or the estimator's `n_features` is less than 1.
        """
        check_is_fitted(self)
        paths = self._draw(n_paths, self.random_state if random_state is None else random_state)
        return _in_dtype(paths, jnp.result_type(float))

    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = 0) -> np.ndarray:
        """Values of posterior draws, without noise, in the order of scikit-learn's Gaussian processes.

        The draws are paths: with one `random_state` other inputs give other values of the same functions.

        **Arguments:** `X`: inputs, `n d`; `n_samples`: S; `random_state`: an integer, a `RandomState` or None.

        **Returns:** `n S`.

        **Raises:** ValueError where `X` does not fit or `n_samples` is less than 1.
        """
        X = self._inputs(X)
        paths = self._draw(n_samples, random_state)
        with jax.enable_x64(True):
            return np.asarray(paths(X), dtype=float).T

    def _draw(self, n_paths: int, random_state: Any) -> PathwiseFunction:
        key = _key(random_state)
        with jax.enable_x64(True):
            return PathwiseSampler(self.posterior_, n_features=self.n_features).sample_paths(key, n_paths)

    def _inputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return np.asarray(validate_data(self, X, reset=False, dtype="numeric"), dtype=float)


def _in_dtype(tree: Any, dtype: Any) -> Any:
    """A pytree with its floating-point arrays in a dtype. (NumPy casts them: JAX knows float64 in its own context only.)"""
    cast = lambda leaf: jnp.asarray(np.asarray(leaf).astype(dtype))
    return jax.tree.map(lambda leaf: cast(leaf) if eqx.is_inexact_array(leaf) else leaf, tree)


def _restarts(n: Any) -> int:
    try:
        n = operator.index(n)
    except TypeError as e:
        raise ValueError(f"`n_restarts` must be a whole number; got {n!r}.") from e
    if n < 0:
        raise ValueError(f"`n_restarts` must not be negative; got {n}.")
    return n


def _key(random_state: Any) -> Key:
    """A key from what scikit-learn takes for a source of randomness."""
    return jax.random.key(int(check_random_state(random_state).randint(2**31 - 1)))
