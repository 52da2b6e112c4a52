"""Wrong input is an error that names the argument and says what is wanted, without the checks of the import hook."""

import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import numpyro.distributions as dist
import pytest

import pathwise_gp as pgp
from pathwise_gp import numpyro_bridge as bridge

pytestmark = pytest.mark.usefixtures("no_hook")

KEY = jax.random.key(0)
NAN, INF = float("nan"), float("inf")
X = np.linspace(0, 1, 12).reshape(4, 3)
Y = np.array([0.1, -0.4, 0.7, 0.2])
K = pgp.RBF(variance=1.0, lengthscale=0.7)
PRIOR = pgp.GPPrior(kernel=K, X=X)
POSTERIOR = PRIOR.condition(Y, 0.1)
PATHS = pgp.PathwiseSampler(POSTERIOR, n_features=4).sample_paths(KEY, n_paths=3)
OTHER = pgp.PathwiseSampler(PRIOR.condition(Y + 1, 0.1), n_features=4).sample_paths(KEY, n_paths=3)
NESTED = pgp.stack([PATHS, PATHS])
SPARSE = pgp.SparseGPPrior(kernel=K, Z=X[:2])
GUIDE = pgp.MeanFieldGuide(mean=np.zeros(2), scale=np.ones(2))
WIDE = pgp.MeanFieldGuide(mean=np.zeros(5), scale=np.ones(5))
ENSEMBLE = pgp.PathEnsemble(
    *eqx.partition(
        eqx.tree_at(lambda p: p.weights, PATHS, jnp.stack([PATHS.weights] * 2)),
        eqx.tree_at(lambda p: p.weights, jax.tree.map(lambda _: False, PATHS), True),
    )
)

W, KAPPA, Y2 = np.array([[0.5], [0.4]]), np.array([0.3, 0.2]), np.array([Y, -Y]).T
ICM = pgp.Coregionalised(K, W, KAPPA)
ICM_POSTERIOR = pgp.GPPrior(kernel=ICM, X=np.c_[X[:, :2], [0, 1, 1, 0]]).condition(Y, 0.1)
GRID = pgp.GPPrior(kernel=ICM, X=pgp.AllOutputs(X, 2))
GRID_PATHS = pgp.PathwiseSampler(GRID.condition(Y2, 0.1), 12).sample_paths(KEY, 2).outputs

# Fifty inputs within a tenth of a lengthscale: in float32 most eigenvalues are below the rounding.
CLOSE = jnp.linspace(0, 1, 50, dtype=jnp.float32)[:, None]
LONG = pgp.RBF(variance=1.0, lengthscale=10.0)


class Indefinite(pgp.AbstractKernel):
    """Covariances larger than the variances: no covariance function."""

    def matrix(self, X, Z):
        return 1 - 0.5 * jnp.all(X[:, None, :] == Z[None, :, :], axis=2).astype(X.dtype)


WRONG = Indefinite()


class Finished:
    """What has draws, as `MCMC` does."""

    def get_samples(self):
        return {}


class Optimised:
    """What has parameters, as the result of `SVI` does."""

    params = None


def holed(array, value, index):
    array = np.array(array, dtype=float)
    array[index] = value
    return array


def sampler(n_features=4):
    return pgp.PathwiseSampler(POSTERIOR, n_features=n_features)


def decoupled(n_features=4):
    return pgp.DecoupledPathwiseSampler(SPARSE, GUIDE, n_features=n_features)


# What is passed; which exception; which words of its message.
BAD = {
    # ------------------------------------------------------------------ more kernels
    "Cosine period zero": (lambda: pgp.Cosine(1.0, 0.0), ValueError, r"`Cosine.period` must be positive; got 0"),
    "Cosine period length": (lambda: pgp.Cosine(1.0, [1.0, 2.0])(X, X), ValueError, r"`Cosine.period` .*shape \(3,\)"),
    "Cosine variance vector": (lambda: pgp.Cosine([1.0, 1.0], 1.0), ValueError, r"`Cosine.variance` must be a scalar"),
    "Polynomial offset zero": (
        lambda: pgp.Polynomial(1.0, 0.0, 2),
        ValueError,
        r"`Polynomial.offset` must be positive",
    ),
    "Polynomial degree zero": (
        lambda: pgp.Polynomial(1.0, 1.0, 0),
        ValueError,
        r"`Polynomial.degree` must be at least 1",
    ),
    "Polynomial degree half": (
        lambda: pgp.Polynomial(1.0, 1.0, 1.5),
        ValueError,
        r"`Polynomial.degree` .*whole number",
    ),
    "ArcCosine order 3": (lambda: pgp.ArcCosine(1.0, 3), ValueError, r"`ArcCosine.order` must be 0, 1 or 2; got 3"),
    "ArcCosine order True": (lambda: pgp.ArcCosine(1.0, True), ValueError, r"`ArcCosine.order` must be 0, 1 or 2"),
    "ArcCosine variance negative": (
        lambda: pgp.ArcCosine(-1.0, 1),
        ValueError,
        r"`ArcCosine.variance` must be positive",
    ),
    "White variance zero": (lambda: pgp.White(0.0), ValueError, r"`White.variance` must be positive"),
    "White paths": (
        lambda: pgp.GPPrior(kernel=pgp.White(1.0), X=X).sample_paths(KEY),
        NotImplementedError,
        r"`White` is noise, not a function.*pass `noise_var`",
    ),
    "SpectralMixture weight zero": (
        lambda: pgp.SpectralMixture([0.0], [[1.0]], [[1.0]]),
        ValueError,
        r"`SpectralMixture.weights` must be positive",
    ),
    "SpectralMixture no weights": (
        lambda: pgp.SpectralMixture(1.0, [[1.0]], [[1.0]]),
        ValueError,
        r"`SpectralMixture.weights` must be a vector",
    ),
    "SpectralMixture means flat": (
        lambda: pgp.SpectralMixture([1.0], [1.0], [[1.0]]),
        ValueError,
        r"`SpectralMixture.means` must have shape \(1, d\)",
    ),
    "SpectralMixture scales of another number": (
        lambda: pgp.SpectralMixture([1.0], [[1.0]], [[1.0], [2.0]]),
        ValueError,
        r"`SpectralMixture.scales` must have shape \(1, d\)",
    ),
    "SpectralMixture means and scales": (
        lambda: pgp.SpectralMixture([1.0], [[1.0]], [[1.0, 2.0]]),
        ValueError,
        r"`means` and `scales` must have the same shape|must have the same shape",
    ),
    "SpectralMixture scale negative": (
        lambda: pgp.SpectralMixture([1.0], [[1.0]], [[-1.0]]),
        ValueError,
        r"`SpectralMixture.scales` must be positive",
    ),
    "SpectralMixture dimension": (
        lambda: pgp.SpectralMixture([1.0], [[1.0]], [[1.0]])(X, X),
        ValueError,
        r"`SpectralMixture.means` must have one column per input dimension, 3",
    ),
    "Warped kernel a number": (lambda: pgp.Warped(1.0, jnp.tanh), ValueError, r"`Warped.kernel` must be a kernel"),
    "Warped transform a number": (lambda: pgp.Warped(K, 1.0), ValueError, r"`Warped.transform` must be callable"),
    "Warped transform of matrices": (
        lambda: pgp.Warped(K, lambda x: x[None, :])(X, X),
        ValueError,
        r"`Warped.transform` must map one point, shape \(3,\), to a vector; it returned shape \(1, 3\)",
    ),
    "Warped transform that fails": (
        lambda: pgp.Warped(K, lambda x: x @ jnp.ones(5))(X, X),
        ValueError,
        r"`Warped.transform` must map one point, shape \(3,\), to a vector; it failed",
    ),
    "Warped kernel of other dimensions": (
        lambda: pgp.Warped(pgp.RBF(1.0, [1.0, 2.0]), jnp.tanh)(X, X),
        ValueError,
        r"`RBF.lengthscale` must be a scalar or have shape \(3,\)",
    ),
    "Warped in a Hilbert space": (
        lambda: pgp.PathwiseSampler(
            pgp.GPPrior(kernel=pgp.Warped(K, jnp.tanh), X=X).condition(Y, 0.1), features=pgp.HilbertSpace()
        ).sample_paths(KEY),
        ValueError,
        r"`HilbertSpace` needs a `box` here.*use random features for `Warped`",
    ),
    "Categorical none": (lambda: pgp.Categorical(1.0, 0), ValueError, r"`Categorical.n_categories` must be at least 1"),
    "Categorical variance zero": (
        lambda: pgp.Categorical(0.0, 2),
        ValueError,
        r"`Categorical.variance` must be positive",
    ),
    "Categorical of three columns": (
        lambda: pgp.Categorical(1.0, 2)(X, X),
        ValueError,
        r"kernel of one column.*`ActiveDims`",
    ),
    "Index of three columns": (lambda: pgp.Index(W, KAPPA)(X, X), ValueError, r"`Index` is a kernel of one column"),
    "Index W flat": (lambda: pgp.Index(KAPPA, KAPPA), ValueError, r"`Index.W` must have shape \(p, r\)"),
    "Index kappa length": (lambda: pgp.Index(W, np.ones(3)), ValueError, r"`Index.kappa` must have shape \(2,\)"),
    "Index kappa zero": (lambda: pgp.Index(W, np.zeros(2)), ValueError, r"`Index.kappa` must be positive"),
    "category not whole": (
        lambda: pgp.Index(W, KAPPA)([[0.5]], [[1.0]]),
        ValueError,
        r"`X` holds a value that is not one",
    ),
    "category too large": (
        lambda: pgp.Index(W, KAPPA)([[1.0]], [[2.0]]),
        ValueError,
        r"`Z` holds a value that is not one",
    ),
    "category negative": (
        lambda: pgp.Categorical(1.0, 2).diag([[-1.0]]),
        ValueError,
        r"`X` holds a value that is not one",
    ),
    "output number in the inputs": (
        lambda: pgp.GPPrior(kernel=ICM, X=X),
        ValueError,
        r"`X` holds a value that is not one",
    ),
    "output number of a mean": (
        lambda: ICM_POSTERIOR.mean([0.1, 0.2, 2.0]),
        ValueError,
        r"numbers of outputs, holds whole",
    ),
    "output number of a path": (
        lambda: pgp.PathwiseSampler(ICM_POSTERIOR, 4).sample_paths(KEY)([0.1, 0.2, 1.5]),
        ValueError,
        r"`X` holds a value that is not one of the categories",
    ),
    "output number under jit": (
        lambda: jax.block_until_ready(eqx.filter_jit(ICM_POSTERIOR.mean)(np.array([0.1, 0.2, 7.0]))),
        Exception,
        r"`X` holds a value that is not one of the categories",
    ),
    "Coregionalised kernel": (
        lambda: pgp.Coregionalised(1.0, W, KAPPA),
        ValueError,
        r"`Coregionalised.kernel` must be a kernel",
    ),
    "Coregionalised W flat": (
        lambda: pgp.Coregionalised(K, KAPPA, KAPPA),
        ValueError,
        r"`Coregionalised.W` must have shape",
    ),
    "Coregionalised kappa": (
        lambda: pgp.Coregionalised(K, W, np.ones(3)),
        ValueError,
        r"`Coregionalised.kappa` .*\(2,\)",
    ),
    "Coregionalised kappa negative": (
        lambda: pgp.Coregionalised(K, W, -KAPPA),
        ValueError,
        r"`Coregionalised.kappa` must be pos",
    ),
    "Coregionalised of one column": (
        lambda: ICM(X[:, :1], X[:, :1]),
        ValueError,
        r"at least two dimensions.*`with_outputs`",
    ),
    "with_outputs none": (lambda: pgp.with_outputs(X, 0), ValueError, r"`n_outputs` must be at least 1"),
    "with_outputs flat": (lambda: pgp.with_outputs(Y, 2), ValueError, r"`X` must have shape \(n, d\)"),
    # ------------------------------------------------------------------ several outputs on a grid
    "grid kernel": (
        lambda: pgp.GPPrior(kernel=K, X=pgp.AllOutputs(X, 2)).condition(Y2, 0.1, solver=pgp.Kronecker()),
        ValueError,
        r"`Kronecker` is for a full grid of outputs, and `RBF` is not a product.*Leave `solver` out",
    ),
    "grid kernel with noise": (
        lambda: pgp.GPPrior(pgp.Coregionalised(K + pgp.White(1.0), W, KAPPA), pgp.AllOutputs(X, 2)).condition(
            Y2, 0.1, solver=pgp.Kronecker()
        ),
        ValueError,
        r"holds noise \(`White`\)",
    ),
    "grid with gaps": (
        lambda: GRID.condition(Y2, 0.1, np.eye(4, 2) > 0, solver=pgp.Kronecker()),
        ValueError,
        r"a `mask` leaves some of the outputs out",
    ),
    "grid with a noise of each": (
        lambda: GRID.condition(Y2, 0.1 * np.ones((4, 2)), solver=pgp.Kronecker()),
        ValueError,
        r"the noise or the jitter was given for each value",
    ),
    "no grid": (
        lambda: ICM_POSTERIOR.prior.condition(Y, 0.1, solver=pgp.Kronecker()),
        ValueError,
        r"what was observed is a `Values`, not `AllOutputs`",
    ),
    "grid X flat": (lambda: pgp.AllOutputs(Y, 2), ValueError, r"`X` must have shape \(n, d\)"),
    "grid of no outputs": (lambda: pgp.AllOutputs(X, 0), ValueError, r"`AllOutputs.n_outputs` must be at least 1"),
    "grid of more outputs": (
        lambda: pgp.GPPrior(kernel=ICM, X=pgp.AllOutputs(X, 3)),
        ValueError,
        r"`X` holds a value that is not one of the categories",
    ),
    "grid jitter": (
        lambda: pgp.GPPrior(kernel=ICM, X=pgp.AllOutputs(X, 2), jitter=np.ones(3)),
        ValueError,
        r"`jitter` must be a scalar, or one for each point, shape \(8,\)",
    ),
    "means of a matrix": (
        lambda: pgp.OutputMeans(np.ones((2, 2))),
        ValueError,
        r"`OutputMeans.values` must have one number for each output",
    ),
    "means of points": (
        lambda: pgp.GPPrior(ICM, pgp.AllOutputs(X, 2), pgp.OutputMeans(lambda x: x[:, 0])).condition(Y2, 0.1),
        ValueError,
        r"`OutputMeans.values` must map inputs of shape \(8, 3\) to one value per point and output",
    ),
    "grid y of one output": (
        lambda: GRID.condition(Y, 0.1),
        ValueError,
        r"`y` must be a number or have the shape of what `AllOutputs` makes, \(4, 2\); got \(4,\)",
    ),
    "grid y NaN": (lambda: GRID.condition(holed(Y2, NAN, (1, 1)), 0.1), ValueError, r"`y` must be finite.*\(1, 1\)"),
    "grid noise for each point": (
        lambda: GRID.condition(Y2, np.ones(4)),
        ValueError,
        r"`noise_var` must be a number, one for each output, shape \(2,\), or one for each value, \(4, 2\); got \(4,\)",
    ),
    "grid log_prob noise": (lambda: GRID.log_prob(Y2, -1.0), ValueError, r"`noise_var` must not be negative"),
    "grid inputs": (lambda: GRID.condition(Y2, 0.1).mean(X), ValueError, r"last axis of `X`"),
    "grid factor": (
        lambda: GRID.condition(Y2, 0.1).factor,
        ValueError,
        r"Kronecker structure.*has no Cholesky factor.*`solver=Cholesky\(\)`",
    ),
    "outputs of one": (lambda: PATHS.outputs, ValueError, r"`outputs` is of paths with a `Coregionalised` kernel"),
    "grid path inputs": (lambda: GRID_PATHS(X[:, :2]), ValueError, r"last axis of `X` must be the input dimension, 3"),
    "grid path index": (lambda: GRID_PATHS[2], IndexError, r"Path 2 was asked for, but there are 2"),
    "grid output": (lambda: GRID_PATHS.output(2), IndexError, r"Output 2 was asked for, but there are 2"),
    # ------------------------------------------------------------------ rules for features, and their error
    "tail below one": (
        lambda: pgp.QuasiMonteCarlo(0.5),
        ValueError,
        r"`QuasiMonteCarlo.tail` must be .* at least 1; got 0.5",
    ),
    "tail infinite": (lambda: pgp.QuasiMonteCarlo(INF), ValueError, r"`QuasiMonteCarlo.tail`"),
    "tail a flag": (lambda: pgp.QuasiMonteCarlo(True), ValueError, r"`QuasiMonteCarlo.tail`"),
    "features a string": (
        lambda: pgp.PathwiseSampler(POSTERIOR, features="sobol"),
        ValueError,
        r"`features` must be a rule.*QuasiMonteCarlo\(\).*got 'sobol'",
    ),
    "features a class": (
        lambda: pgp.PathwiseSampler(POSTERIOR, features=pgp.MonteCarlo),
        ValueError,
        r"`features` must be a rule",
    ),
    "prior features": (lambda: PRIOR.sample_paths(KEY, features=4), ValueError, r"`features` must be a rule"),
    "decoupled features": (
        lambda: pgp.DecoupledPathwiseSampler(SPARSE, GUIDE, features=None),
        ValueError,
        r"`features` must be a rule",
    ),
    "box flat": (lambda: pgp.HilbertSpace(np.array([0.0, 1.0])), ValueError, r"`box` must have shape \(2, d\)"),
    "box exchanged": (
        lambda: pgp.HilbertSpace(np.array([[1.0], [0.0]])),
        ValueError,
        r"`box` must hold the lower corner first",
    ),
    "box NaN": (lambda: pgp.HilbertSpace(np.array([[NAN], [0.0]])), ValueError, r"`box` must be finite"),
    "boundary one": (lambda: pgp.HilbertSpace(boundary=1.0), ValueError, r"`HilbertSpace.boundary` must be above 1"),
    "boundary a string": (
        lambda: pgp.HilbertSpace(boundary="wide"),
        ValueError,
        r"`HilbertSpace.boundary` must be a Python number",
    ),
    "box of other dimensions": (
        lambda: pgp.PathwiseSampler(POSTERIOR, features=pgp.HilbertSpace(np.array([[0.0], [1.0]]))).sample_paths(KEY),
        ValueError,
        r"`box` has 1 dimension\(s\), but the inputs have 3",
    ),
    "box missing": (
        lambda: K.features(8, 2, key=KEY, basis=pgp.HilbertSpace()),
        ValueError,
        r"`HilbertSpace` needs a `box` here",
    ),
    "no spectral density": (
        lambda: (pgp.Periodic(1.0, 1.0, 1.0)).features(
            8, 2, key=KEY, basis=pgp.HilbertSpace(np.array([[0.0, 0.0], [1.0, 1.0]]))
        ),
        NotImplementedError,
        r"`Periodic` has no spectral density here, which `HilbertSpace` needs",
    ),
    "many dimensions": (
        lambda: K.features(1024, 8, key=KEY, basis=pgp.HilbertSpace(np.array([[0.0] * 8, [1.0] * 8]))),
        ValueError,
        r"`HilbertSpace` is for few dimensions; got 8",
    ),
    "block bytes": (lambda: PATHS(X, block_bytes=0), ValueError, r"`block_bytes` must be at least 1; got 0"),
    "block bytes, a fraction": (
        lambda: PATHS(X, block_bytes=1.5),
        ValueError,
        r"`block_bytes` must be a whole number.*1.5",
    ),
    "n_features and tolerance": (
        lambda: pgp.PathwiseSampler(POSTERIOR, 8, tolerance=0.1),
        ValueError,
        r"`n_features` or `tolerance`",
    ),
    "tolerance zero": (
        lambda: pgp.PathwiseSampler(POSTERIOR, tolerance=0.0),
        ValueError,
        r"`tolerance` is a relative error",
    ),
    "tolerance large": (
        lambda: pgp.PathwiseSampler(POSTERIOR, tolerance=2),
        ValueError,
        r"`tolerance` is a relative error",
    ),
    "tolerance a string": (
        lambda: pgp.PathwiseSampler(POSTERIOR, tolerance="low"),
        ValueError,
        r"`tolerance` must be .*number",
    ),
    "tolerance under jit": (
        lambda: eqx.filter_jit(lambda p: pgp.PathwiseSampler(p, tolerance=0.1).sample_paths(KEY))(POSTERIOR),
        ValueError,
        r"`tolerance` chooses a number of features, which jit must know",
    ),
    "error of a prior": (
        lambda: pgp.feature_error(PRIOR, X, 8),
        ValueError,
        r"`posterior` must be what `GPPrior.condition`",
    ),
    "error of no features": (
        lambda: pgp.feature_error(POSTERIOR, X, 0),
        ValueError,
        r"`n_features` must be at least 1",
    ),
    "error of no draws": (
        lambda: pgp.feature_error(POSTERIOR, X, 8, n_draws=0),
        ValueError,
        r"`n_draws` must be at least 1",
    ),
    "error at other inputs": (lambda: pgp.feature_error(POSTERIOR, X[:, :2], 8), ValueError, r"last axis of `X`"),
    "variance at other inputs": (lambda: PATHS.marginal_variance(X[:, :2]), ValueError, r"last axis of `X`"),
    "variance of a mean": (lambda: PATHS.mean_path.marginal_variance(X), ValueError, r"this is a mean, which has none"),
    # ------------------------------------------------------------------ kernels
    "RBF variance zero": (lambda: pgp.RBF(0.0, 1.0), ValueError, r"`RBF.variance` must be positive; got 0"),
    "RBF variance negative": (lambda: pgp.RBF(-1.0, 1.0), ValueError, r"`RBF.variance` must be positive; got -1"),
    "RBF variance NaN": (lambda: pgp.RBF(NAN, 1.0), ValueError, r"`RBF.variance` must be finite"),
    "RBF variance inf": (lambda: pgp.RBF(INF, 1.0), ValueError, r"`RBF.variance` must be finite"),
    "RBF variance vector": (lambda: pgp.RBF([1.0, 2.0], 1.0), ValueError, r"`RBF.variance` must be a scalar.*\(2,\)"),
    "RBF variance string": (lambda: pgp.RBF("one", 1.0), ValueError, r"`RBF.variance` must be .*number.*str"),
    "RBF variance None": (lambda: pgp.RBF(None, 1.0), ValueError, r"`RBF.variance` must be .*number"),
    "RBF variance complex": (lambda: pgp.RBF(1j, 1.0), ValueError, r"`RBF.variance` must be real.*complex"),
    "RBF lengthscale zero": (lambda: pgp.RBF(1.0, 0.0), ValueError, r"`RBF.lengthscale` must be positive; got 0"),
    "RBF lengthscale negative": (lambda: pgp.RBF(1.0, [1.0, -1.0]), ValueError, r"`RBF.lengthscale` must be positive"),
    "RBF lengthscale NaN": (lambda: pgp.RBF(1.0, [1.0, NAN]), ValueError, r"`RBF.lengthscale` must be finite.*\(1,\)"),
    "RBF lengthscale matrix": (
        lambda: pgp.RBF(1.0, np.ones((3, 1))),
        ValueError,
        r"`RBF.lengthscale` must be a scalar or a vector.*\(3, 1\)",
    ),
    "RBF lengthscale empty": (lambda: pgp.RBF(1.0, []), ValueError, r"`RBF.lengthscale` must be .*\(0,\)"),
    "RBF lengthscale string": (lambda: pgp.RBF(1.0, "long"), ValueError, r"`RBF.lengthscale` must be .*number.*str"),
    "RBF lengthscale too short": (
        lambda: pgp.RBF(1.0, [1.0, 2.0])(X, X),
        ValueError,
        r"`RBF.lengthscale` must be a scalar or have shape \(3,\).*\(2,\)",
    ),
    "RBF lengthscale of one entry": (
        lambda: pgp.RBF(1.0, [1.0])(X, X),
        ValueError,
        r"`RBF.lengthscale` must be a scalar or have shape \(3,\).*\(1,\)",
    ),
    "RBF lengthscale per point": (  # as many entries as points, which would broadcast along the other axis
        lambda: pgp.RBF(1.0, [1.0, 2.0, 3.0, 4.0])(X, X),
        ValueError,
        r"`RBF.lengthscale` must be a scalar or have shape \(3,\).*\(4,\)",
    ),
    "RBF lengthscale column, as many points as dimensions": (
        lambda: pgp.RBF(1.0, np.ones((3, 1)))(X[:3], X[:3]),
        ValueError,
        r"`RBF.lengthscale` must be .*\(3, 1\)",
    ),
    "RBF lengthscale in diag": (lambda: pgp.RBF(1.0, [1.0])(X, X), ValueError, r"`RBF.lengthscale` must be"),
    "Matern nu whole": (lambda: pgp.Matern(1, 1.0, 1.0), ValueError, r"`Matern.nu` must be one of 0.5, 1.5.*got 1"),
    "Matern nu quarter": (lambda: pgp.Matern(2.25, 1.0, 1.0), ValueError, r"`Matern.nu` must be one of.*2.25"),
    "Matern nu zero": (lambda: pgp.Matern(0.0, 1.0, 1.0), ValueError, r"`Matern.nu` must be one of"),
    "Matern nu negative": (lambda: pgp.Matern(-0.5, 1.0, 1.0), ValueError, r"`Matern.nu` must be one of.*-0.5"),
    "Matern nu NaN": (lambda: pgp.Matern(NAN, 1.0, 1.0), ValueError, r"`Matern.nu` must be one of.*nan"),
    "Matern nu inf": (lambda: pgp.Matern(INF, 1.0, 1.0), ValueError, r"`Matern.nu` must be one of.*inf"),
    "Matern nu string": (lambda: pgp.Matern("1.5", 1.0, 1.0), ValueError, r"`Matern.nu` must be .*Python number"),
    "Matern nu None": (lambda: pgp.Matern(None, 1.0, 1.0), ValueError, r"`Matern.nu` must be .*Python number.*None"),
    "Matern variance": (lambda: pgp.Matern(1.5, 0.0, 1.0), ValueError, r"`Matern.variance` must be positive"),
    "Matern lengthscale": (lambda: pgp.Matern(1.5, 1.0, -1.0), ValueError, r"`Matern.lengthscale` must be positive"),
    "RationalQuadratic alpha zero": (
        lambda: pgp.RationalQuadratic(1.0, 1.0, 0.0),
        ValueError,
        r"`RationalQuadratic.alpha` must be positive; got 0",
    ),
    "RationalQuadratic alpha NaN": (
        lambda: pgp.RationalQuadratic(1.0, 1.0, NAN),
        ValueError,
        r"`RationalQuadratic.alpha` must be finite",
    ),
    "RationalQuadratic alpha vector": (
        lambda: pgp.RationalQuadratic(1.0, 1.0, [1.0, 2.0]),
        ValueError,
        r"`RationalQuadratic.alpha` must be a scalar.*\(2,\)",
    ),
    "RationalQuadratic alpha string": (
        lambda: pgp.RationalQuadratic(1.0, 1.0, "one"),
        ValueError,
        r"`RationalQuadratic.alpha` must be .*number.*str",
    ),
    "Periodic period zero": (lambda: pgp.Periodic(1.0, 1.0, 0.0), ValueError, r"`Periodic.period` must be positive"),
    "Periodic period NaN": (lambda: pgp.Periodic(1.0, 1.0, NAN), ValueError, r"`Periodic.period` must be finite"),
    "Periodic period string": (
        lambda: pgp.Periodic(1.0, 1.0, "day"),
        ValueError,
        r"`Periodic.period` must be .*number",
    ),
    "Periodic period too short": (
        lambda: pgp.Periodic(1.0, 1.0, [1.0, 2.0]).diag(X),
        ValueError,
        r"`Periodic.period` must be a scalar or have shape \(3,\).*\(2,\)",
    ),
    "Periodic lengthscale of one entry": (
        lambda: pgp.Periodic(1.0, [1.0], 1.0)(X, X),
        ValueError,
        r"`Periodic.lengthscale` must be a scalar or have shape \(3,\).*\(1,\)",
    ),
    "Linear variance negative": (lambda: pgp.Linear(-1.0), ValueError, r"`Linear.variance` must be positive; got -1"),
    "Linear variance vector": (lambda: pgp.Linear([1.0, 2.0]), ValueError, r"`Linear.variance` must be a scalar"),
    "Linear variance string": (lambda: pgp.Linear("one"), ValueError, r"`Linear.variance` must be .*number"),
    "Constant variance zero": (lambda: pgp.Constant(0), ValueError, r"`Constant.variance` must be positive; got 0"),
    "Constant variance NaN": (lambda: pgp.Constant(NAN), ValueError, r"`Constant.variance` must be finite"),
    "kernel times a negative number": (lambda: -1.0 * K, ValueError, r"`Constant.variance` must be positive; got -1"),
    "kernel plus zero": (lambda: K + 0.0, ValueError, r"`Constant.variance` must be positive; got 0"),
    "kernel plus a string": (lambda: K + "one", ValueError, r"`Constant.variance` must be .*number"),
    "kernel times None": (lambda: K * None, ValueError, r"`Constant.variance` must be .*number"),
    "kernel times a vector": (lambda: np.ones(2) * K, ValueError, r"`Constant.variance` must be a scalar.*\(2,\)"),
    "Sum of nothing": (lambda: pgp.Sum(()), ValueError, r"`Sum.kernels` must be a tuple of at least one kernel"),
    "Sum with a number": (lambda: pgp.Sum((K, 2.0)), ValueError, r"`Sum.kernels` must be a tuple.*2.0"),
    "Sum of a kernel": (lambda: pgp.Sum(K), ValueError, r"`Sum.kernels` must be a tuple"),
    "Product of nothing": (lambda: pgp.Product(()), ValueError, r"`Product.kernels` must be a tuple of at least one"),
    "Product of a list": (lambda: pgp.Product([K, K]), ValueError, r"`Product.kernels` must be a tuple"),
    "ActiveDims of none": (lambda: pgp.ActiveDims(K, ()), ValueError, r"`ActiveDims.dims` must be different indices"),
    "ActiveDims repeated": (lambda: pgp.ActiveDims(K, (0, 0)), ValueError, r"`ActiveDims.dims` must be different"),
    "ActiveDims negative": (lambda: pgp.ActiveDims(K, (-1,)), ValueError, r"`ActiveDims.dims` must be .*0 or above"),
    "ActiveDims fraction": (lambda: pgp.ActiveDims(K, (0.5,)), ValueError, r"`ActiveDims.dims` must be .*whole"),
    "ActiveDims number": (lambda: pgp.ActiveDims(K, 0), ValueError, r"`ActiveDims.dims` must be a sequence.*got 0"),
    "ActiveDims string": (lambda: pgp.ActiveDims(K, "01"), ValueError, r"`ActiveDims.dims` must be .*whole numbers"),
    "ActiveDims beyond the inputs": (
        lambda: pgp.ActiveDims(K, (0, 3))(X, X),
        ValueError,
        r"`ActiveDims.dims` is \(0, 3\), but the inputs have 3 dimension",
    ),
    "ActiveDims lengthscale": (
        lambda: pgp.ActiveDims(pgp.RBF(1.0, np.ones(3)), (0, 1))(X, X),
        ValueError,
        r"`RBF.lengthscale` must be a scalar or have shape \(2,\)",
    ),
    "ActiveDims of no kernel": (lambda: pgp.ActiveDims(2.0, (0,)), ValueError, r"`ActiveDims.kernel` must be a kernel"),
    "kernel of two dimensions": (
        lambda: K(X, X[:, :2]),
        ValueError,
        r"last axis of `Z` must be .*3; got shape \(4, 2\)",
    ),
    "kernel of a number": (lambda: K(1.0, X), ValueError, r"last axis of `X` must be the input dimension"),
    "kernel at strings": (lambda: K("here", X), ValueError, r"`X` must be an array of numbers; got .*str"),
    "diag of a number": (lambda: K.diag(1.0), ValueError, r"last axis of `X` must be the input dimension"),
    "features none": (lambda: K.features(0, 3, key=KEY), ValueError, r"`n_features` must be at least 1; got 0"),
    "features fraction": (lambda: K.features(2.5, 3, key=KEY), ValueError, r"`n_features` must be a whole.*2.5"),
    "features of a sum, none": (
        lambda: (K + K).features(0, 3, key=KEY),
        ValueError,
        r"`n_features` must be at least 1",
    ),
    "features of a scaled kernel, none": (
        lambda: (2.0 * K).features(-3, 3, key=KEY),
        ValueError,
        r"`n_features` must be at least 1; got -3",
    ),
    "features of the wrong dimension": (
        lambda: pgp.RBF(1.0, np.ones(2)).features(4, 3, key=KEY),
        ValueError,
        r"`RBF.lengthscale` must be a scalar or have shape \(3,\)",
    ),
    "mean value NaN": (lambda: pgp.ConstantMean(NAN), ValueError, r"`ConstantMean.value` must be finite"),
    "mean value vector": (lambda: pgp.ConstantMean([1.0, 2.0]), ValueError, r"`ConstantMean.value` must be a scalar"),
    "mean value string": (lambda: pgp.ConstantMean("one"), ValueError, r"`ConstantMean.value` must be .*number"),
    # ------------------------------------------------------------------ priors
    "X of one axis": (lambda: pgp.GPPrior(K, X[:, 0]), ValueError, r"`X` must have shape \(n, d\).*`X\[:, None\]`"),
    "X a number": (lambda: pgp.GPPrior(K, 1.0), ValueError, r"`X` must have shape \(n, d\); got \(\)"),
    "X of three axes": (lambda: pgp.GPPrior(K, X[None]), ValueError, r"`X` must have shape \(n, d\)"),
    "X without points": (lambda: pgp.GPPrior(K, X[:0]), ValueError, r"`X` must hold at least one point.*\(0, 3\)"),
    "X without dimensions": (lambda: pgp.GPPrior(K, X[:, :0]), ValueError, r"`X` must hold at least one.*\(4, 0\)"),
    "X with NaN": (
        lambda: pgp.GPPrior(K, holed(X, NAN, (2, 1))),
        ValueError,
        r"`X` must be finite; got 1 NaN or inf entries, the first at index \(2, 1\)",
    ),
    "X with inf": (lambda: pgp.GPPrior(K, holed(X, INF, (0, 0))), ValueError, r"`X` must be finite.*\(0, 0\)"),
    "X of strings": (lambda: pgp.GPPrior(K, [["one", "two"]]), ValueError, r"`X` must be an array of numbers"),
    "X complex": (lambda: pgp.GPPrior(K, X + 1j), ValueError, r"`X` must be real numbers"),
    "X ragged": (lambda: pgp.GPPrior(K, [[1.0], [1.0, 2.0]]), ValueError, r"`X` must be an array of numbers"),
    "no kernel": (lambda: pgp.GPPrior(2.0, X), ValueError, r"`GPPrior.kernel` must be a kernel; got 2.0"),
    "kernel class": (lambda: pgp.GPPrior(pgp.RBF, X), ValueError, r"`GPPrior.kernel` must be a kernel"),
    "kernel does not fit X": (
        lambda: pgp.GPPrior(pgp.RBF(1.0, np.ones(2)), X),
        ValueError,
        r"`RBF.lengthscale` must be a scalar or have shape \(3,\).*\(2,\)",
    ),
    "kernel of one entry": (lambda: pgp.GPPrior(pgp.RBF(1.0, [1.0]), X), ValueError, r"`RBF.lengthscale` must be"),
    "jitter negative": (lambda: pgp.GPPrior(K, X, jitter=-1e-6), ValueError, r"`jitter` must not be negative"),
    "jitter NaN": (lambda: pgp.GPPrior(K, X, jitter=NAN), ValueError, r"`jitter` must be finite"),
    "jitter vector": (lambda: pgp.GPPrior(K, X, jitter=np.ones(3)), ValueError, r"`jitter` must be a scalar.*\(4,\)"),
    "jitter string": (lambda: pgp.GPPrior(K, X, jitter="small"), ValueError, r"`jitter` must be .*numbers; got .*str"),
    "mean string": (lambda: pgp.GPPrior(K, X, mean="zero"), ValueError, r"`mean` must be a number, or a callable"),
    "mean NaN": (lambda: pgp.GPPrior(K, X, mean=NAN), ValueError, r"`mean` must be a number|`.*mean.*` must be finite"),
    "mean of the wrong shape": (
        lambda: pgp.GPPrior(K, X, mean=lambda X: X).condition(Y, 0.1),
        ValueError,
        r"`mean` must map inputs of shape \(4, 3\) to one value per point, shape \(4,\); it returned shape \(4, 3\)",
    ),
    "mean of no shape": (
        lambda: pgp.GPPrior(K, X, mean=lambda X: 1.0).log_prob(Y, 0.1),
        ValueError,
        r"`mean` must map inputs.*it returned shape \(\)",
    ),
    # ------------------------------------------------------------------ data
    "y with NaN": (lambda: PRIOR.condition(holed(Y, NAN, 2), 0.1), ValueError, r"`y` must be finite.*index \(2,\)"),
    "y with inf": (lambda: PRIOR.condition(holed(Y, -INF, 0), 0.1), ValueError, r"`y` must be finite.*index \(0,\)"),
    "y of one entry": (lambda: PRIOR.condition(Y[:1], 0.1), ValueError, r"`y` must have shape \(4,\).*`X`; got \(1,\)"),
    "y a number": (lambda: PRIOR.condition(1.0, 0.1), ValueError, r"`y` must have shape \(4,\).*got \(\)"),
    "y a column": (lambda: PRIOR.condition(Y[:, None], 0.1), ValueError, r"`y` must have shape.*Pass `y\[:, 0\]`"),
    "y too long": (lambda: PRIOR.condition(np.ones(5), 0.1), ValueError, r"`y` must have shape \(4,\).*got \(5,\)"),
    "y of strings": (lambda: PRIOR.condition(["one"] * 4, 0.1), ValueError, r"`y` must be an array of numbers"),
    "y of bools": (lambda: PRIOR.condition(Y > 0, 0.1), ValueError, r"`y` must be real numbers; got dtype bool"),
    "noise negative": (lambda: PRIOR.condition(Y, -0.1), ValueError, r"`noise_var` must not be negative; got -0.1"),
    "noise NaN": (lambda: PRIOR.condition(Y, NAN), ValueError, r"`noise_var` must be finite"),
    "noise inf": (lambda: PRIOR.condition(Y, INF), ValueError, r"`noise_var` must be finite"),
    "noise too short": (lambda: PRIOR.condition(Y, np.ones(3)), ValueError, r"`noise_var` .*shape \(4,\).*\(3,\)"),
    "noise of one entry": (lambda: PRIOR.condition(Y, np.ones(1)), ValueError, r"`noise_var` .*shape \(4,\).*\(1,\)"),
    "noise a column": (lambda: PRIOR.condition(Y, np.ones((4, 1))), ValueError, r"`noise_var` .*\(4, 1\)"),
    "noise string": (
        lambda: PRIOR.condition(Y, "low"),
        ValueError,
        r"`noise_var` must be an array of numbers; got .*str",
    ),
    "noise None": (lambda: PRIOR.condition(Y, None), ValueError, r"`noise_var` must be .*numbers"),
    "log_prob y with NaN": (lambda: PRIOR.log_prob(holed(Y, NAN, 2), 0.1), ValueError, r"`y` must be finite"),
    "log_prob y of one entry": (lambda: PRIOR.log_prob(Y[:1], 0.1), ValueError, r"`y` must have shape \(4,\)"),
    "log_prob y a column": (lambda: PRIOR.log_prob(Y[:, None], 0.1), ValueError, r"Pass `y\[:, 0\]`"),
    "log_prob noise too long": (lambda: PRIOR.log_prob(Y, np.ones(5)), ValueError, r"`noise_var` .*\(4,\).*\(5,\)"),
    "posterior mean in two dimensions": (
        lambda: POSTERIOR.mean(X[:, :2]),
        ValueError,
        r"`X` must be .*3; got .*\(4, 2\)",
    ),
    "posterior variance of a number": (
        lambda: POSTERIOR.variance(0.5),
        ValueError,
        r"`X` must be the input dimension, 3",
    ),
    "posterior covariance in two": (
        lambda: POSTERIOR.covariance(X, X[:, :2]),
        ValueError,
        r"`Z` must be .*dimension, 3",
    ),
    # ------------------------------------------------------------------ samplers and paths
    "prior n_paths zero": (lambda: PRIOR.sample_paths(KEY, 0), ValueError, r"`n_paths` must be at least 1; got 0"),
    "prior n_features zero": (lambda: PRIOR.sample_paths(KEY, 1, 0), ValueError, r"`n_features` must be at least 1"),
    "n_paths zero": (lambda: sampler().sample_paths(KEY, 0), ValueError, r"`n_paths` must be at least 1; got 0"),
    "n_paths negative": (lambda: sampler().sample_paths(KEY, -2), ValueError, r"`n_paths` must be at least 1; got -2"),
    "n_paths float": (lambda: sampler().sample_paths(KEY, 2.0), ValueError, r"`n_paths` must be a whole.*got 2.0"),
    "n_paths string": (lambda: sampler().sample_paths(KEY, "2"), ValueError, r"`n_paths` must be a whole.*got '2'"),
    "n_features zero": (lambda: sampler(0), ValueError, r"`n_features` must be at least 1; got 0"),
    "n_features negative": (lambda: sampler(-1), ValueError, r"`n_features` must be at least 1; got -1"),
    "n_features float": (lambda: sampler(8.0), ValueError, r"`n_features` must be a whole number.*got 8.0"),
    "sampler of a prior": (
        lambda: pgp.PathwiseSampler(PRIOR),
        ValueError,
        r"`posterior` must be .*`GPPrior.condition`",
    ),
    "path in two dimensions": (
        lambda: PATHS(X[:, :2]),
        ValueError,
        r"last axis of `X` must be .*3; got shape \(4, 2\)",
    ),
    "path at a number": (lambda: PATHS(0.5), ValueError, r"last axis of `X` must be the input dimension, 3"),
    "path at strings": (lambda: PATHS("here"), ValueError, r"`X` must be an array of numbers; got .*str"),
    "path at a grid without its last axis": (
        lambda: pgp.GPPrior(K, X[:, :1]).sample_paths(KEY, 2, 4)(X[:, 0]),
        ValueError,
        r"`X` must be the input dimension, 1.*Pass `X\[:, None\]`",
    ),
    "paired too few": (lambda: PATHS.paired(X[:2]), ValueError, r"leading axes of `X` must be .*\(3,\).*\(2, 3\)"),
    "paired at one point": (lambda: PATHS.paired(X[0]), ValueError, r"leading axes of `X` must be .*\(3,\)"),
    "paired at a number": (lambda: PATHS.paired(1.0), ValueError, r"`X` must be the input dimension, 3"),
    "paired in two dimensions": (lambda: PATHS.paired(X[:3, :2]), ValueError, r"`X` must be the input dimension, 3"),
    "index beyond": (lambda: PATHS[3], IndexError, r"Path 3 was asked for, but there are 3"),
    "index before": (lambda: PATHS[-4], IndexError, r"Path -4 was asked for, but there are 3"),
    "index array beyond": (lambda: PATHS[np.array([0, 7])], IndexError, r"7.*there are 3"),
    "index float": (lambda: PATHS[1.0], TypeError, r"number|integer"),
    "index tuple": (lambda: PATHS[0, 1], TypeError, r"along their first axis.*\(0, 1\)"),
    "index None": (lambda: PATHS[None], TypeError, r"along their first axis"),
    "index string": (lambda: PATHS["a"], TypeError, r"number|integer"),
    "index of one path": (lambda: PATHS[0][0], TypeError, r"One path has no"),
    "length of one path": (lambda: len(PATHS[0]), TypeError, r"One path has no len"),
    "stack of nothing": (lambda: pgp.stack([]), ValueError, r"`stack` needs a sequence of at least one"),
    "stack of numbers": (lambda: pgp.stack([1.0, 2.0]), ValueError, r"`stack` needs a sequence.*PathwiseFunction"),
    "stack of a number": (lambda: pgp.stack(1.0), (TypeError, ValueError), r"`stack` needs a sequence"),
    "stack of different axes": (lambda: pgp.stack([PATHS, PATHS[0]]), ValueError, r"same axes; got \[\(3,\), \(\)\]"),
    "stack of different posteriors": (
        lambda: pgp.stack([PATHS, OTHER]),
        ValueError,
        r"paths of one posterior.*`mean_coefficients` differs",
    ),
    "stack of different kernels": (
        lambda: pgp.stack([PATHS, eqx.tree_at(lambda p: p.kernel.variance, PATHS, jnp.asarray(2.0))]),
        ValueError,
        r"paths of one posterior.*`kernel` differs",
    ),
    "concatenate of nothing": (lambda: pgp.concatenate([]), ValueError, r"`concatenate` needs a sequence of at least"),
    "concatenate of single paths": (
        lambda: pgp.concatenate([PATHS[0], PATHS[1]]),
        ValueError,
        r"`concatenate` needs batches of paths.*`stack`",
    ),
    "concatenate of different axes": (
        lambda: pgp.concatenate([PATHS, NESTED]),
        ValueError,
        r"`concatenate` needs the same axes after the first",
    ),
    "concatenate of different posteriors": (
        lambda: pgp.concatenate([PATHS, OTHER]),
        ValueError,
        r"paths of one posterior.*differs",
    ),
    "ensemble index beyond": (lambda: ENSEMBLE[2], IndexError, r"Draw 2 was asked for, but there are 2"),
    "ensemble index tuple": (lambda: ENSEMBLE[0, 1], TypeError, r"by a number.*\(0, 1\)"),
    "paired ensemble": (
        lambda: ENSEMBLE.paired(jnp.zeros((3, 2, 3))),
        ValueError,
        r"leading axes of `X` must be those of the paths, \(2, 3\)",
    ),
    "paired outputs": (lambda: GRID_PATHS.paired(X), ValueError, r"leading axes of `X` must be .* \(2,\)"),
    "ensemble in two dimensions": (lambda: ENSEMBLE(X[:, :2]), ValueError, r"`X` must be the input dimension, 3"),
    # ------------------------------------------------------------------ sparse priors and guides
    "Z of one axis": (lambda: pgp.SparseGPPrior(K, X[:, 0]), ValueError, r"`Z` must have shape .*`Z\[:, None\]`"),
    "Z with NaN": (lambda: pgp.SparseGPPrior(K, holed(X, NAN, (1, 0))), ValueError, r"`Z` must be finite.*\(1, 0\)"),
    "Z with inf": (lambda: pgp.SparseGPPrior(K, holed(X, INF, (1, 0))), ValueError, r"`Z` must be finite"),
    "Z without points": (lambda: pgp.SparseGPPrior(K, X[:0]), ValueError, r"`Z` must hold at least one point"),
    "sparse prior of no kernel": (lambda: pgp.SparseGPPrior(None, X), ValueError, r"`SparseGPPrior.kernel` must be"),
    "sparse kernel does not fit Z": (
        lambda: pgp.SparseGPPrior(pgp.RBF(1.0, [1.0]), X),
        ValueError,
        r"`RBF.lengthscale` must be a scalar or have shape \(3,\)",
    ),
    "sparse jitter negative": (lambda: pgp.SparseGPPrior(K, X, jitter=-1.0), ValueError, r"`jitter` must not be neg"),
    "sparse mean string": (lambda: pgp.SparseGPPrior(K, X, mean="one"), ValueError, r"`mean` must be a number, or"),
    "FullRankGuide mean matrix": (
        lambda: pgp.FullRankGuide(np.zeros((2, 2)), np.eye(2)),
        ValueError,
        r"`FullRankGuide.mean` must have shape \(m,\); got \(2, 2\)",
    ),
    "FullRankGuide scale vector": (
        lambda: pgp.FullRankGuide(np.zeros(2), np.ones(2)),
        ValueError,
        r"`FullRankGuide.scale_tril` must have shape \(2, 2\).*\(2,\)",
    ),
    "FullRankGuide scale NaN": (
        lambda: pgp.FullRankGuide(np.zeros(2), NAN * np.eye(2)),
        ValueError,
        r"`FullRankGuide.scale_tril` must be finite",
    ),
    "FullRankGuide mean inf": (
        lambda: pgp.FullRankGuide([INF, 0.0], np.eye(2)),
        ValueError,
        r"`FullRankGuide.mean` must be finite",
    ),
    "FullRankGuide mean string": (
        lambda: pgp.FullRankGuide("zero", np.eye(2)),
        ValueError,
        r"`FullRankGuide.mean` must be .*number.*str",
    ),
    "WhitenedGuide of two sizes": (
        lambda: pgp.WhitenedGuide(np.zeros(2), np.eye(3)),
        ValueError,
        r"`WhitenedGuide.scale_tril` must have shape \(2, 2\).*\(3, 3\)",
    ),
    "WhitenedGuide empty": (
        lambda: pgp.WhitenedGuide(np.zeros(0), np.zeros((0, 0))),
        ValueError,
        r"`WhitenedGuide.mean` must have shape \(m,\)",
    ),
    "MeanFieldGuide scale zero": (
        lambda: pgp.MeanFieldGuide(np.zeros(2), [1.0, 0.0]),
        ValueError,
        r"`MeanFieldGuide.scale` must be positive",
    ),
    "MeanFieldGuide scale negative": (
        lambda: pgp.MeanFieldGuide(np.zeros(2), [1.0, -1.0]),
        ValueError,
        r"`MeanFieldGuide.scale` must be positive",
    ),
    "MeanFieldGuide scale number": (
        lambda: pgp.MeanFieldGuide(np.zeros(2), 1.0),
        ValueError,
        r"`MeanFieldGuide.scale` must have shape \(2,\).*\(\)",
    ),
    "NaturalGuide not negative definite": (
        lambda: pgp.NaturalGuide(np.zeros(2), np.eye(2)),
        ValueError,
        r"`NaturalGuide.natural_matrix` must be negative definite",
    ),
    "NaturalGuide vector": (
        lambda: pgp.NaturalGuide(np.zeros(2), -np.ones(2)),
        ValueError,
        r"`NaturalGuide.natural_matrix` must have shape \(2, 2\)",
    ),
    "NaturalGuide NaN": (
        lambda: pgp.NaturalGuide([NAN, 0.0], -np.eye(2)),
        ValueError,
        r"`NaturalGuide.natural_vector` must be finite",
    ),
    "NaturalGuide matrix NaN": (
        lambda: pgp.NaturalGuide(np.zeros(2), NAN * np.eye(2)),
        ValueError,
        r"`NaturalGuide.natural_matrix` must be finite",
    ),
    "DeltaGuide NaN": (lambda: pgp.DeltaGuide([0.0, NAN]), ValueError, r"`DeltaGuide.location` must be finite.*\(1,\)"),
    "DeltaGuide number": (lambda: pgp.DeltaGuide(0.0), ValueError, r"`DeltaGuide.location` must have shape \(m,\)"),
    "DeltaGuide string": (lambda: pgp.DeltaGuide("one"), ValueError, r"`DeltaGuide.location` must be .*number"),
    "guide of the wrong size, kl_divergence": (
        lambda: WIDE.kl_divergence(SPARSE),
        ValueError,
        r"`MeanFieldGuide` has 5 inducing values, but the prior has 2 inducing points `Z`",
    ),
    "guide of the wrong size, sample": (
        lambda: WIDE.sample(KEY, SPARSE, (2,)),
        ValueError,
        r"has 5 inducing values, but the prior has 2",
    ),
    "guide of the wrong size, log_prob": (
        lambda: WIDE.log_prob(np.zeros(5), SPARSE),
        ValueError,
        r"has 5 inducing values, but the prior has 2",
    ),
    "delta guide of the wrong size": (
        lambda: pgp.DeltaGuide(np.zeros(1)).kl_divergence(SPARSE),
        ValueError,
        r"`DeltaGuide` has 1 inducing values, but the prior has 2",
    ),
    "whitened guide of the wrong size": (
        lambda: pgp.WhitenedGuide(np.zeros(3), np.eye(3)).kl_divergence(SPARSE),
        ValueError,
        r"`WhitenedGuide` has 3 inducing values, but the prior has 2",
    ),
    "log_prob of too many values": (lambda: GUIDE.log_prob(np.zeros(3), SPARSE), ValueError, r"`u` must be the 2 ind"),
    "log_prob of a number": (lambda: GUIDE.log_prob(0.0, SPARSE), ValueError, r"`u` must be the 2 inducing values"),
    "optimal_guide of another prior": (
        lambda: pgp.optimal_guide(PRIOR, X, Y, 0.1),
        ValueError,
        r"`prior` must be a SparseGPPrior; got GPPrior",
    ),
    "optimal_guide X of one axis": (
        lambda: pgp.optimal_guide(SPARSE, X[:, 0], Y, 0.1),
        ValueError,
        r"`X` must have shape \(n, d\)",
    ),
    "optimal_guide X in two dimensions": (
        lambda: pgp.optimal_guide(SPARSE, X[:, :2], Y, 0.1),
        ValueError,
        r"`X` must be the input dimension, 3",
    ),
    "optimal_guide X with NaN": (
        lambda: pgp.optimal_guide(SPARSE, holed(X, NAN, (3, 2)), Y, 0.1),
        ValueError,
        r"`X` must be finite.*\(3, 2\)",
    ),
    "optimal_guide y a column": (
        lambda: pgp.optimal_guide(SPARSE, X, Y[:, None], 0.1),
        ValueError,
        r"`y` must have shape \(4,\).*`y\[:, 0\]`",
    ),
    "optimal_guide y of one entry": (
        lambda: pgp.optimal_guide(SPARSE, X, Y[:1], 0.1),
        ValueError,
        r"`y` must have shape \(4,\).*\(1,\)",
    ),
    "optimal_guide noise zero": (
        lambda: pgp.optimal_guide(SPARSE, X, Y, 0.0),
        ValueError,
        r"`noise_var` must be positive",
    ),
    "elbo of another prior": (
        lambda: pgp.elbo(PRIOR, GUIDE, X, Y, 0.1),
        ValueError,
        r"`prior` must be a SparseGPPrior; got GPPrior",
    ),
    "elbo of no guide": (lambda: pgp.elbo(SPARSE, None, X, Y, 0.1), ValueError, r"`guide` must be a guide.*NoneType"),
    "elbo of a guide of the wrong size": (
        lambda: pgp.elbo(SPARSE, WIDE, X, Y, 0.1),
        ValueError,
        r"has 5 inducing values, but the prior has 2",
    ),
    "elbo y with NaN": (lambda: pgp.elbo(SPARSE, GUIDE, X, holed(Y, NAN, 0), 0.1), ValueError, r"`y` must be finite"),
    "elbo noise of one entry": (
        lambda: pgp.elbo(SPARSE, GUIDE, X, Y, np.ones(1)),
        ValueError,
        r"`noise_var` must be a scalar or have shape \(4,\).*\(1,\)",
    ),
    "decoupled sampler of another prior": (
        lambda: pgp.DecoupledPathwiseSampler(PRIOR, GUIDE),
        ValueError,
        r"`prior` must be a SparseGPPrior; got GPPrior",
    ),
    "decoupled sampler of no guide": (
        lambda: pgp.DecoupledPathwiseSampler(SPARSE, np.zeros(2)),
        ValueError,
        r"`guide` must be a guide over inducing values; got ndarray",
    ),
    "decoupled sampler, guide of the wrong size": (
        lambda: pgp.DecoupledPathwiseSampler(SPARSE, WIDE),
        ValueError,
        r"has 5 inducing values, but the prior has 2",
    ),
    "decoupled n_features zero": (lambda: decoupled(0), ValueError, r"`n_features` must be at least 1; got 0"),
    "decoupled n_features float": (lambda: decoupled(4.0), ValueError, r"`n_features` must be a whole number"),
    "decoupled n_paths zero": (lambda: decoupled().sample_paths(KEY, 0), ValueError, r"`n_paths` must be at least 1"),
    "decoupled n_paths float": (lambda: decoupled().sample_paths(KEY, 1.5), ValueError, r"`n_paths` must be a whole"),
    # ------------------------------------------------------------------ what is often passed in place of another
    "key an integer": (
        lambda: sampler().sample_paths(0),
        ValueError,
        r"`key` must be a key.*`jax.random.key\(0\)`; got 0",
    ),
    "key None": (lambda: decoupled().sample_paths(None), ValueError, r"`key` must be a key of jax.random.*got None"),
    "key a number of paths": (lambda: PRIOR.sample_paths(64), ValueError, r"`key` must be a key of jax.random.*got 64"),
    "keys": (
        lambda: sampler().sample_paths(jax.random.split(KEY, 3)),
        ValueError,
        r"`key` must be a key.*of shape \(3,\). Take one of them: `key\[0\]`",
    ),
    "key of features": (lambda: K.features(8, 3, key=0), ValueError, r"`key` must be a key of jax.random"),
    "key of a search": (
        lambda: pgp.optimise.minimise(PATHS, np.array([[0.0] * 3, [1.0] * 3]), 0),
        ValueError,
        r"`key` must be a key of jax.random",
    ),
    "y in the prior": (
        lambda: pgp.GPPrior(K, X, Y),
        ValueError,
        r"`mean` must be a number.*array of shape \(4,\).*`GPPrior\(kernel, X\).condition\(y, noise_var\)`",
    ),
    "X in condition": (lambda: PRIOR.condition(X, Y, 0.1), ValueError, r"`y` is `X`: .*`condition\(y, noise_var\)`"),
    "X in fit": (lambda: pgp.fit(PRIOR, X, Y), ValueError, r"`y` is `X`: the prior has its inputs already"),
    "y of digits": (
        lambda: PRIOR.condition(np.array(list("1234")), 0.1),
        ValueError,
        r"`y` must be an array of numbers; got dtype <U1. Digits become numbers by `.astype\(float\)`",
    ),
    "X of dates": (
        lambda: pgp.GPPrior(K, np.array([["2020-01-01"], ["2021-01-01"]], "datetime64[D]")),
        ValueError,
        r"`X` must be an array of numbers; got dtype datetime64\[D\]. Dates become numbers as days since the first",
    ),
    "jit of paths": (
        lambda: jax.jit(PATHS)(X),
        TypeError,
        r"`PathwiseFunction` holds arrays.*`equinox.filter_jit\(f\)`",
    ),
    "draws in place of a mapping": (
        lambda: bridge.posterior_paths(lambda: PRIOR, Finished(), KEY),
        ValueError,
        r"`samples` must be a mapping.*got Finished. Pass its draws: `samples.get_samples\(\)`",
    ),
    "results of SVI in place of a mapping": (
        lambda: bridge.place(K, Optimised()),
        ValueError,
        r"`values` must be a mapping.*got Optimised. Pass draws of the guide",
    ),
    "lift outside of a handler": (
        lambda: bridge.lift(K, {"lengthscale": dist.LogNormal(0.0, 1.0)}),
        ValueError,
        r"Site `RBF.lengthscale` has no key.*`MCMC\(NUTS\(model\), ...\)`.*`numpyro.handlers.seed",
    ),
    "gp_sample outside of a handler": (
        lambda: bridge.gp_sample("f", PRIOR),
        ValueError,
        r"Gaussian process has no key",
    ),
    "gp_factor outside of a handler": (
        lambda: bridge.gp_factor("y", PRIOR, None, 0.1),
        ValueError,
        r"Gaussian process has no key to be drawn with",
    ),
    # ------------------------------------------------------------------ scales, and new observations
    "check_scales a word": (
        lambda: PRIOR.condition(Y, 0.1, check_scales="no"),
        ValueError,
        r"`check_scales` must be True or False; got 'no'",
    ),
    "standardise flat inputs": (lambda: pgp.standardise(Y, Y), ValueError, r"`X` must have shape \(n, d\); got \(4,\)"),
    "standardise y of another length": (lambda: pgp.standardise(X, Y[:2]), ValueError, r"`y` must have shape \(4,\)"),
    "standardise NaN": (lambda: pgp.standardise(X, holed(Y, NAN, 1)), ValueError, r"`y` must be finite.*`mask=`"),
    "standardise keep": (
        lambda: pgp.standardise(X, Y, keep=[3]),
        IndexError,
        r"Column 3 was asked for, but there are 3",
    ),
    "standardised inputs": (
        lambda: pgp.standardise(X, Y).inputs(X[:, :2]),
        ValueError,
        r"last axis of `X` must have length 3; got shape \(4, 2\)",
    ),
    "original of a number": (
        lambda: pgp.standardise(X, Y).original(1.0),
        ValueError,
        r"`model` must be a posterior or",
    ),
    "noise of new observations": (
        lambda: PRIOR.condition(Y, np.full(4, 0.1)).predict(X),
        ValueError,
        r"`noise_var` of new observations is not known here: give it",
    ),
    "noise of observations of a prior's paths": (
        lambda: PRIOR.sample_paths(KEY, 2, 4).observe(X, KEY),
        ValueError,
        r"`noise_var` of new observations is not known here",
    ),
    "noise of new observations negative": (
        lambda: POSTERIOR.predict(X, -1.0),
        ValueError,
        r"`noise_var` must not be negative",
    ),
    "noise of new observations of another shape": (
        lambda: PATHS.observe(X, KEY, np.ones(3)),
        ValueError,
        r"`noise_var` must be a scalar or have the last of the axes \(4,\).*\(3,\)",
    ),
    "noise of new observations of outputs": (
        lambda: GRID_PATHS.observe(X, KEY, np.ones(3)),
        ValueError,
        r"`noise_var` must be a scalar or have the last of the axes \(4, 2\)",
    ),
    "guide of another size in predict": (lambda: WIDE.predict(SPARSE, X, 0.1), ValueError, r"has 5 inducing values"),
    # ------------------------------------------------------------------ indefinite covariances
    "indefinite": (
        lambda: pgp.GPPrior(WRONG, CLOSE).condition(jnp.zeros(50), 1e-12),
        ValueError,
        r"50 points `X` is not positive definite in float32, not even with a jitter.*larger `jitter`.*float64",
    ),
    "indefinite with a large jitter": (
        lambda: pgp.GPPrior(WRONG, CLOSE, jitter=0.25).condition(jnp.zeros(50), 1e-12),
        ValueError,
        r"not positive definite in float32, not even with a jitter that was raised",
    ),
    "indefinite at inducing points": (
        lambda: pgp.DecoupledPathwiseSampler(
            pgp.SparseGPPrior(WRONG, CLOSE), pgp.DeltaGuide(np.zeros(50)), n_features=4
        ).sample_paths(KEY),
        ValueError,
        r"50 points `Z` is not positive definite in float32",
    ),
    "indefinite in optimal_guide": (
        lambda: pgp.optimal_guide(pgp.SparseGPPrior(WRONG, CLOSE), CLOSE, np.zeros(50), 0.1),
        ValueError,
        r"50 points `Z` is not positive definite in float32",
    ),
    "indefinite in elbo": (
        lambda: pgp.elbo(pgp.SparseGPPrior(WRONG, CLOSE), pgp.DeltaGuide(np.zeros(50)), CLOSE, np.zeros(50), 0.1),
        ValueError,
        r"50 points `Z` is not positive definite in float32",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    wrong, exception, words = BAD[name]
    with pytest.raises(exception, match=f"(?s){words}"):
        wrong()


def test_the_hook_is_off():
    calls = (lambda: K("here", X), lambda: pgp.PathwiseSampler(PRIOR))  # a method, and the fields of a dataclass
    for wrong in calls:
        with pytest.raises(ValueError, match="must be"):
            wrong()
    jaxtyping.config.update("jaxtyping_disable", False)
    for wrong in calls:
        with pytest.raises(jaxtyping.TypeCheckError):
            wrong()


def test_indefinite_covariance_under_jit():
    @eqx.filter_jit
    def mean(prior, y):
        return prior.condition(y, 1e-12).mean(CLOSE)

    with pytest.raises(eqx.EquinoxRuntimeError, match="50 points `X` is not positive definite in float32"):
        mean(pgp.GPPrior(WRONG, CLOSE), jnp.zeros(50))


def test_log_prob_of_an_indefinite_covariance_is_minus_infinity():
    prior = pgp.GPPrior(LONG, CLOSE, jitter=0.0)
    with pytest.warns(pgp.PrecisionWarning, match="rounding takes its place"):
        assert prior.log_prob(jnp.zeros(50), 1e-12) == -INF


def test_a_jitter_that_is_needed_makes_it_definite_and_is_said():
    with pytest.warns(pgp.PrecisionWarning, match="more than a hundredth of the noise was added"):
        posterior = pgp.GPPrior(LONG, CLOSE).condition(np.ones(50), 1e-12)
    np.testing.assert_allclose(posterior.mean(CLOSE), 1, atol=0.01)


def test_one_point():
    posterior = pgp.GPPrior(K, X[:1]).condition(Y[:1], 0.1)
    np.testing.assert_allclose(posterior.mean(X[0]), Y[0] / 1.1, rtol=1e-6)
    assert pgp.PathwiseSampler(posterior, n_features=1).sample_paths(KEY, 1)(X).shape == (1, 4)


def test_repeated_inputs():
    # Two values at one point are one of half the noise.
    twice = pgp.GPPrior(K, X[[0, 0]]).condition([0.2, 0.6], 0.1)
    np.testing.assert_allclose(twice.mean(X[0]), 0.4 / 1.05, rtol=1e-6)
    np.testing.assert_allclose(twice.variance(X[0]), 1 - 1 / 1.05, rtol=1e-6)
    assert np.all(np.isfinite(pgp.PathwiseSampler(twice, n_features=4).sample_paths(KEY, 2)(X)))


def test_integers_are_converted():
    whole = pgp.GPPrior(pgp.RBF(1, 2), np.arange(6).reshape(2, 3), jitter=0).condition([1, 2], 1)
    real = pgp.GPPrior(pgp.RBF(1.0, 2.0), np.arange(6.0).reshape(2, 3), jitter=0.0).condition([1.0, 2.0], 1.0)
    assert whole.y.dtype == jnp.float64
    np.testing.assert_array_equal(whole.mean(np.ones(3, int)), real.mean(np.ones(3)))


def test_mean_may_be_a_number():
    prior = pgp.GPPrior(K, X, mean=2)
    np.testing.assert_array_equal(prior.mean_at(prior.functional), np.full(4, 2.0))


def test_noise_may_differ_between_points():
    one, many = PRIOR.condition(Y, 0.1), PRIOR.condition(Y, np.full(4, 0.1))
    np.testing.assert_allclose(one.mean(X), many.mean(X), rtol=1e-12)


def test_tables_are_advised_on_in_their_words():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"a": Y, "town": list("abcd"), "day": pandas.date_range("2020", periods=4), "on": Y > 0})
    prior = pgp.GPPrior(K, table[["a"]])
    np.testing.assert_array_equal(prior.condition(table["a"], 0.1).y, Y)
    missing = table["a"].where(table["on"])
    wrong = {
        r"`X` must have shape .* pass `X.to_frame\(\)`": lambda: pgp.GPPrior(K, table["a"]),
        r"`y` must have shape .* Pass `y.iloc\[:, 0\]`": lambda: prior.condition(2 * table[["a"]], 0.1),
        r"the column\(s\) 'town' \(.*\) are not. Digits": lambda: pgp.GPPrior(K, table[["a", "town"]]),
        r"'day' \(datetime64.*\) are not. Dates .* by `.astype": lambda: pgp.GPPrior(K, table[["a", "day", "on"]]),
        r"the Series 'town' \(.*\) are not": lambda: prior.condition(table["town"], 0.1),
        r"`y` must be finite.*mask=y.notna\(\)": lambda: prior.condition(missing, 0.1),
    }
    for words, call in wrong.items():
        with pytest.raises(ValueError, match=words):
            call()
    assert np.isfinite(prior.condition(missing, 0.1, mask=missing.notna()).mean(X[:, :1])).all()


def test_what_is_not_installed_is_named_with_its_extra():
    program = """
import importlib, sys
import numpy as np
import pathwise_gp as pgp

for missing, module, words in (
    ("sklearn", "estimator", 'the extra `sklearn`: pip install ".[sklearn]"'),
    ("matplotlib", "plots", 'the extra `plots`: pip install ".[plots]"'),
    ("numpyro", "numpyro_bridge", "needs NumPyro"),
    ("contourpy", "level_sets", 'the extra `plots`: pip install ".[plots]"'),
):
    for name in [name for name in sys.modules if name.split(".")[0] == missing] + [missing]:
        sys.modules[name] = None
    try:
        found = importlib.import_module(f"pathwise_gp.{module}")
        found.contours(None, 0.0, np.zeros((2, 2)))
    except ImportError as e:
        assert words in str(e), e
    else:
        raise AssertionError(missing)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
