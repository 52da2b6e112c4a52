"""The same draws by other libraries, each in the way that its documentation shows and that is fastest with it.

Each function returns functions that draw and evaluate paths of the posterior under an RBF kernel with given hyperparameters,
or says why it cannot.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Problem(NamedTuple):
    """Training data, test points, and the sizes of the work."""

    X: np.ndarray
    y: np.ndarray
    tests: np.ndarray
    n_features: int
    n_paths: int
    lengthscale: float = 1.0
    noise_var: float = 0.01


class Peer(NamedTuple):
    """`draw`: makes new paths; `evaluate`: their values at the test points. Each to its end; or why it is missing."""

    draw: Callable[[], Any] | str
    evaluate: Callable[[], Any] | str
    evaluate_no_grad: Callable[[], Any] | str = ""


def botorch(problem: Problem) -> Peer:
    try:
        import torch
        from botorch.models import SingleTaskGP
        from botorch.sampling.pathwise import draw_matheron_paths
        from botorch.utils.sampling import manual_seed
        from gpytorch.kernels import RBFKernel, ScaleKernel
    except ImportError as e:
        missing = f"not installed ({e.name})"
        return Peer(missing, missing, missing)
    dtype = torch.float32 if problem.X.dtype == np.float32 else torch.float64
    X, y, tests = (torch.as_tensor(a, dtype=dtype) for a in (problem.X, problem.y[:, None], problem.tests))
    model = SingleTaskGP(
        X,
        y,
        train_Yvar=torch.full_like(y, problem.noise_var),
        covar_module=ScaleKernel(RBFKernel(ard_num_dims=X.shape[1])),
        outcome_transform=None,
    ).to(dtype)
    model.covar_module.base_kernel.lengthscale = problem.lengthscale
    model.covar_module.outputscale = 1.0
    model.eval()

    def draw() -> Any:
        with torch.no_grad(), manual_seed(0):
            return draw_matheron_paths(model, torch.Size([problem.n_paths]))

    paths = draw()

    def evaluate_no_grad() -> Any:
        with torch.no_grad():
            return paths(tests)

    # Products take another way through PyTorch where derivatives are off, and a slower one here.
    return Peer(draw, lambda: paths(tests), evaluate_no_grad)


def botorch_loop(
    start: np.ndarray,
    function: Callable[[np.ndarray], np.ndarray],
    noise_var: float,
    n_rounds: int,
    batch: int,
    n_screen: int,
    n_restarts: int,
) -> Callable[[], Any] | str:
    """A loop of Thompson sampling at given hyperparameters, by paths whose minima its own search finds."""
    try:
        import torch
        from botorch.models import SingleTaskGP
        from botorch.sampling.pathwise import get_matheron_path_model
        from botorch.utils.sampling import manual_seed, optimize_posterior_samples
        from gpytorch.kernels import MaternKernel, ScaleKernel
    except ImportError as e:
        return f"not installed ({e.name})"
    dim = start.shape[1]
    bounds = torch.stack([torch.zeros(dim), torch.ones(dim)]).double()
    values = lambda X: -torch.as_tensor(function(X.numpy()))[:, None]  # it maximises

    def loop() -> Any:
        X = torch.as_tensor(start)
        y = values(X)
        kernel = ScaleKernel(MaternKernel(nu=2.5, ard_num_dims=dim))
        noise = torch.full_like(y, noise_var)
        model = SingleTaskGP(X, y, train_Yvar=noise, covar_module=kernel, outcome_transform=None).double()
        model.covar_module.base_kernel.lengthscale = 0.5
        model.covar_module.outputscale = 1.0
        model.mean_module.constant = 0.0
        model.eval()
        with manual_seed(0):
            for _ in range(n_rounds):
                with torch.no_grad():
                    model.posterior(X[:1])  # `condition_on_observations` needs what this caches
                    paths = get_matheron_path_model(model, torch.Size([batch]))
                found = optimize_posterior_samples(paths, bounds, n_screen, n_restarts)[0].reshape(batch, dim).detach()
                with torch.no_grad():
                    new = values(found)
                    model = model.condition_on_observations(found, new, noise=torch.full_like(new, noise_var))
        return model

    return loop


def gpjax(problem: Problem) -> Peer:
    try:
        import gpjax as gpx
    except ImportError as e:
        return Peer(f"not installed ({e.name})", f"not installed ({e.name})")
    X, y, tests = (jnp.asarray(a) for a in (problem.X, problem.y[:, None], problem.tests))
    data = gpx.Dataset(X, y)
    kernel = gpx.kernels.RBF(lengthscale=jnp.full((X.shape[1],), problem.lengthscale, X.dtype), variance=1.0)
    prior = gpx.gps.Prior(mean_function=gpx.mean_functions.Zero(), kernel=kernel)
    posterior = prior * gpx.likelihoods.Gaussian(obs_stddev=problem.noise_var**0.5)
    conditioned = posterior.condition(data)
    key = jax.random.key(0)

    def draw() -> Any:
        # Half as many frequencies: each is a cosine and a sine.
        return conditioned.sample_approx(problem.n_paths, key, problem.n_features // 2)

    paths = jax.jit(draw())

    def evaluate() -> Any:
        return paths(tests).block_until_ready()

    def draw_to_its_end() -> Any:
        # What a draw computes is held in the closure.
        for cell in draw().__closure__ or ():
            jax.block_until_ready([leaf for leaf in jax.tree.leaves(cell.cell_contents) if isinstance(leaf, jax.Array)])

    return Peer(draw_to_its_end, evaluate)


def scikit_learn(problem: Problem) -> Callable[[], Any] | str:
    """Joint draws at the test points, which scikit-learn has instead of paths."""
    try:
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF
    except ImportError as e:
        return f"not installed ({e.name})"
    kernel = RBF(problem.lengthscale, "fixed")
    model = GaussianProcessRegressor(kernel, alpha=problem.noise_var, optimizer=None).fit(problem.X, problem.y)
    return lambda: model.sample_y(problem.tests, n_samples=problem.n_paths)


def tinygp(problem: Problem) -> Callable[[], Any] | str:
    """Joint draws at the test points, which tinygp has instead of paths."""
    try:
        from tinygp import GaussianProcess, kernels
    except ImportError as e:
        return f"not installed ({e.name})"
    X, y, tests = (jnp.asarray(a) for a in (problem.X, problem.y, problem.tests))

    @jax.jit
    def sample(X: Any, y: Any, tests: Any, key: Any) -> Any:
        process = GaussianProcess(
            kernels.ExpSquared(problem.lengthscale, kernels.L2Distance()), X, diag=problem.noise_var
        )
        return process.condition(y, tests).gp.sample(key, (problem.n_paths,))

    return lambda: sample(X, y, tests, jax.random.key(0)).block_until_ready()


def tinygp_evidence() -> Callable[[Any, Any, Any], Any] | str:
    try:
        from tinygp import GaussianProcess, kernels, transforms
    except ImportError as e:
        return f"not installed ({e.name})"

    def log_prob(z: Any, X: Any, y: Any) -> Any:
        kernel = jnp.exp(z[3]) * transforms.Linear(jnp.exp(-z[:3]), kernels.ExpSquared(distance=kernels.L2Distance()))
        return GaussianProcess(kernel, X, diag=jnp.exp(z[4])).log_probability(y)

    return log_prob
