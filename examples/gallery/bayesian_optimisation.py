"""Bayesian optimisation with hyperparameters that are never settled: batches of Thompson samples under NUTS.

In every round NUTS draws the hyperparameters of a Gaussian process given what was observed, each of a few draws becomes one
path, and the minimum of each path is evaluated next. Data are padded to their final number with a mask, so that all is
compiled once for all rounds, seeds and functions of one dimension. Beside it: the same loop with the hyperparameters of
largest posterior density (`pgp.fit`), found anew in each round, or once from the first design and then fixed, where a
posterior with room is given the new values; and random search. Functions: Branin (d = 2) and Hartmann (d = 6).

    python examples/gallery/bayesian_optimisation.py [--fast] [--seeds N] [--no-progress] [--figures DIR]
"""

import argparse
import os
import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

# JAX has threads of its own; where LAPACK brings another set, the two wait for each other. To be set before JAX starts.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import init_to_value, MCMC, NUTS
from scipy.stats import qmc
from tqdm import tqdm

import pathwise_gp as pgp
from pathwise_gp import acquisition, numpyro_bridge as bridge

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")

FIGURES = pathlib.Path(__file__).parents[1] / "figures"
COLOURS = {"NUTS": "#2b6cb0", "MAP": "#c05621", "fixed": "#2f8555", "random": "#4a5568"}
BATCH = 4


def branin(X):
    x, y = 15 * X[..., 0] - 5, 15 * X[..., 1]
    valley = y - 5.1 * x**2 / (4 * np.pi**2) + 5 * x / np.pi - 6
    return valley**2 + 10 * (1 - 1 / (8 * np.pi)) * np.cos(x) + 10


def hartmann(X):
    A = np.array(
        [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
    )
    P = 1e-4 * np.array(
        [
            [1312, 1696, 5569, 124, 8283, 5886],
            [2329, 4135, 8307, 3736, 1004, 9991],
            [2348, 1451, 3522, 2883, 3047, 6650],
            [4047, 8828, 8732, 5743, 1091, 381],
        ]
    )
    return -np.exp(-np.sum(A * (X[..., None, :] - P) ** 2, axis=-1)) @ np.array([1.0, 1.2, 3.0, 3.2])


class Problem(NamedTuple):
    function: Callable[[np.ndarray], np.ndarray]
    dim: int
    minimum: float
    at: list[float]  # of one of its minima
    n_start: int
    n_rounds: int


PROBLEMS = {
    "Branin": Problem(branin, 2, 0.397887, [(np.pi + 5) / 15, 2.275 / 15], 4, 9),
    "Hartmann-6": Problem(hartmann, 6, -3.32237, [0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573], 12, 17),
}
# Prior of the hyperparameters, for inputs in the unit cube and values of standard deviation 1.
LENGTHSCALE, VARIANCE, NOISE = dist.LogNormal(-0.7, 0.7), dist.LogNormal(0.0, 0.5), dist.LogNormal(-7.0, 1.0)


def model(X, y, mask):
    kernel = bridge.lift(
        pgp.Matern(nu=2.5, variance=1.0, lengthscale=jnp.full(X.shape[1], 0.5)),
        {"lengthscale": LENGTHSCALE.expand([X.shape[1]]).to_event(1), "variance": VARIANCE},
    )
    noise = numpyro.sample("noise", NOISE)
    prior = pgp.GPPrior(kernel=kernel, X=X, jitter=1e-6)
    bridge.gp_factor("obs", prior, y, noise, mask)
    return prior


def log_prior(prior, noise):
    kernel = prior.kernel
    return LENGTHSCALE.log_prob(kernel.lengthscale).sum() + VARIANCE.log_prob(kernel.variance) + NOISE.log_prob(noise)


@eqx.filter_jit
def by_nuts(X, y, mask, key, n_warmup):
    """A path for each of a few draws of the hyperparameters, which are far apart in the chain."""
    key_chain, key_paths = jax.random.split(key)
    kernel = NUTS(
        model,
        init_strategy=init_to_value(
            values={"Matern.lengthscale": jnp.full(X.shape[1], 0.5), "noise": jnp.asarray(1e-3)}
        ),
        max_tree_depth=4,
    )
    mcmc = MCMC(kernel, num_warmup=n_warmup, num_samples=8 * BATCH, thinning=8, progress_bar=False)
    mcmc.run(key_chain, X, y, mask)
    return bridge.posterior_paths(model, mcmc.get_samples(), key_paths, X, y, mask, n_features=512)


@eqx.filter_jit
def best_guess(X, y, mask):
    """The kernel and the noise of largest posterior density."""
    prior = pgp.GPPrior(
        kernel=pgp.Matern(nu=2.5, variance=1.0, lengthscale=jnp.full(X.shape[1], 0.5)), X=X, jitter=1e-6
    )
    found = pgp.fit(prior, y, 1e-3, mask, log_prior=log_prior, max_steps=50)
    return found.prior.kernel, found.noise_var


@eqx.filter_jit
def under(guess, X, y, mask, key):
    """As many paths under one kernel and noise."""
    kernel, noise = guess
    posterior = pgp.GPPrior(kernel=kernel, X=X, jitter=1e-6).condition(y, noise, mask)
    return pgp.PathwiseSampler(posterior, 512).sample_paths(key, BATCH)


def settled(X, y, seen):
    """The posterior of the first design under its best guess, with room for all that will be evaluated."""
    kernel, noise = best_guess(X, y, seen)
    prior = pgp.GPPrior(kernel=kernel, X=X[seen], jitter=1e-6)
    return prior.condition(y[seen], noise, capacity=len(X))


def run(problem: Problem, way: str, seed: int, n_warmup: int, n_rounds: int, bar) -> np.ndarray:
    """The regret after each evaluation."""
    d, n_start = problem.dim, problem.n_start
    total = n_start + problem.n_rounds * BATCH
    X = np.full((total, d), 0.5)
    X[:n_start] = qmc.LatinHypercube(d, rng=np.random.default_rng(seed)).random(n_start)
    rng, key = np.random.default_rng(1000 + seed), jax.random.key(seed)
    box = jnp.stack([jnp.zeros(d), jnp.ones(d)])
    values = np.zeros(total)
    values[:n_start] = problem.function(X[:n_start])
    middle, spread = values[:n_start].mean(), values[:n_start].std()
    n, posterior = n_start, None
    for number in range(n_rounds):
        if way == "random":
            batch = rng.uniform(size=(BATCH, d))
        else:
            seen = np.arange(total) < n
            y = np.where(seen, (values - values[:n].mean()) / values[:n].std(), 0.0)
            key_paths, key_search = jax.random.split(jax.random.fold_in(key, number))
            if way == "NUTS":
                paths = by_nuts(X, y, seen, key_paths, n_warmup)
            elif way == "MAP":
                paths = under(best_guess(X, y, seen), X, y, seen, key_paths)
            else:
                posterior = settled(X, y, seen) if posterior is None else posterior
                # Fresh draws: the same functions, conditioned on where their minima were, would not explore.
                paths = pgp.PathwiseSampler(posterior, 512).sample_paths(key_paths, BATCH)
            best = jnp.asarray(X[:n][np.argmin(values[:n])])[None, :]
            found = acquisition.thompson_sample(paths, box, key_search, n_screen=1024, n_restarts=8, candidates=best)
            batch = np.asarray(found.points).reshape(BATCH, d)
        X[n : n + BATCH], values[n : n + BATCH] = batch, problem.function(batch)
        if posterior is not None:
            posterior = posterior.condition(batch, (values[n : n + BATCH] - middle) / spread)
        n += BATCH
        bar.update()
    return np.minimum.accumulate(values[:n]) - problem.minimum


def plot(regrets):
    figure, panels = plt.subplots(
        1, len(regrets), figsize=(5 * len(regrets), 3.8), constrained_layout=True, squeeze=False
    )
    for axes, (name, of_way) in zip(panels[0], regrets.items(), strict=True):
        start = PROBLEMS[name].n_start
        for way, regret in of_way.items():
            evaluations = np.arange(1, regret.shape[1] + 1)
            low, middle, high = np.quantile(regret, [0.25, 0.5, 0.75], axis=0)
            axes.fill_between(evaluations, low, high, color=COLOURS[way], alpha=0.15, lw=0)
            label = "random search" if way == "random" else f"Thompson, {way}"
            axes.plot(evaluations, middle, color=COLOURS[way], lw=1.5, label=label)
        axes.axvline(start, color="grey", lw=0.8, ls=":")
        axes.set(
            yscale="log", xlabel="evaluations", title=name, xlim=(1, max(regret.shape[1] for regret in of_way.values()))
        )
        axes.spines[["top", "right"]].set_visible(False)
    panels[0, 0].set_ylabel("regret: median, middle half of seeds")
    panels[0, 0].legend(frameon=False, loc="lower left")
    return figure


def main(fast: bool, n_seeds: int, progress: bool, folder: pathlib.Path) -> None:
    started = time.perf_counter()
    problems = {name: problem for name, problem in PROBLEMS.items() if not fast or name == "Branin"}
    n_warmup = 20 if fast else 64
    regrets, seconds = {}, {}
    rounds = {name: 2 if fast else problem.n_rounds for name, problem in problems.items()}
    ways = list(COLOURS)
    with tqdm(total=len(ways) * n_seeds * sum(rounds.values()), disable=not progress, unit="round") as bar:
        for name, problem in problems.items():
            # The functions are those of the literature.
            assert abs(problem.function(np.array(problem.at)) - problem.minimum) < 1e-4
            for way in ways:
                bar.set_description(f"{name}, {way}")
                begun = time.perf_counter()
                made = [run(problem, way, seed, n_warmup, rounds[name], bar) for seed in range(n_seeds)]
                regrets.setdefault(name, {})[way] = np.stack(made)
                seconds[name, way] = time.perf_counter() - begun
    print(f"\nRegret over {n_seeds} seeds, batches of {BATCH} (median, and quarter to three quarters):\n")
    print(f"{'':12s}{'':8s}{'evaluations':>12s}{'median':>10s}{'25 %':>10s}{'75 %':>10s}{'s a round':>11s}")
    for name, of_way in regrets.items():
        for way, regret in of_way.items():
            assert (regret > -1e-4).all()
            assert (np.diff(regret, axis=1) <= 0).all()
            low, middle, high = np.quantile(regret[:, -1], [0.25, 0.5, 0.75])
            each = seconds[name, way] / (n_seeds * rounds[name])
            print(f"{name:12s}{way:8s}{regret.shape[1]:12d}{middle:10.4f}{low:10.4f}{high:10.4f}{each:11.3f}")
        for way in ways[1:]:
            wins = np.mean(of_way["NUTS"][:, -1] < of_way[way][:, -1])
            print(f"{'':12s}NUTS ends lower than {way} in {100 * wins:.0f} % of seeds.")
        print()
    folder.mkdir(parents=True, exist_ok=True)
    plot(regrets).savefig(folder / "bayesian_optimisation.png", dpi=130)
    print(f"Figure: {folder / 'bayesian_optimisation.png'}")
    print(f"Done in {time.perf_counter() - started:.0f} s, compilation included")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="Branin alone, one seed, two rounds")
    parser.add_argument("--seeds", type=int, help="how many; 20 unless given, 1 with --fast")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.add_argument("--figures", type=pathlib.Path, default=FIGURES, help="folder for the figures")
    arguments = parser.parse_args()
    seeds = arguments.seeds or (1 if arguments.fast else 20)
    main(arguments.fast, seeds, not arguments.no_progress, arguments.figures)
