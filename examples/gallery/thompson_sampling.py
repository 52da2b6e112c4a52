"""Where is the minimum? A posterior over the optimum, and a batch of Thompson samples.

Nine noisy observations of a function of one variable leave it open which of several valleys is the deepest. Each posterior
path has a minimum of its own; over many paths these are a sample of the posterior over its location and its value. The first
few of them are a batch of Thompson samples. The same call is then timed in six dimensions.

    python examples/gallery/thompson_sampling.py [--fast] [--figures DIR]
"""

import argparse
import os
import pathlib
import time

# JAX has threads of its own; where LAPACK brings another set, the two wait for each other. To be set before JAX starts.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np

import pathwise_gp as pgp
from pathwise_gp import acquisition, optimise

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")

FIGURES = pathlib.Path(__file__).parents[1] / "figures"
BLUE, ORANGE, GREY = "#2b6cb0", "#c05621", "#4a5568"
BOX = jnp.asarray([[-2.0], [2.0]])
N_SHOWN = 6


def truth(x):
    return 0.5 * np.cos(5 * x) + 0.15 * (x - 0.4) ** 2


def observe():
    rng = np.random.default_rng(3)
    x = np.array([-1.8, -1.5, -1.05, -0.3, -0.05, 0.2, 1.05, 1.6, 1.9])
    return x[:, None], truth(x) + 0.05 * rng.normal(size=x.size)


def plot(X, y, grid, values, optimum, intervals):
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(11, 3.6), width_ratios=[2.2, 1.3, 1], constrained_layout=True
    )
    left.plot(grid, values[:N_SHOWN].T, color=BLUE, lw=0.8, alpha=0.7)
    points, least = np.asarray(optimum.points)[:, 0], np.asarray(optimum.values)
    left.plot([], [], color=BLUE, lw=0.8, label="posterior paths")
    left.plot(points[:N_SHOWN], least[:N_SHOWN], "o", color=ORANGE, ms=6, label="their minima: a batch", zorder=4)
    left.plot(X[:, 0], y, ".", color="black", ms=7, label="observations", zorder=3)
    left.set(xlabel="x", ylabel="f(x)", title="Each path has its own minimum", xlim=BOX[:, 0])
    left.set_ylim(top=left.get_ylim()[1] + 0.3)
    left.legend(frameon=False, loc="upper center", ncols=3, fontsize=8, columnspacing=1.0, handlelength=1.2)
    weights = np.full(len(points), 1 / len(points))
    middle.hist(points, bins=60, range=tuple(map(float, BOX[:, 0])), weights=weights, color=BLUE, alpha=0.8)
    middle.set(xlabel="x", ylabel="probability", title="Where the minimum is", xlim=BOX[:, 0])
    right.hist(least, bins=40, weights=weights, color=ORANGE, alpha=0.8)
    right.axvspan(*np.asarray(intervals[1]), color=GREY, alpha=0.15, lw=0, label="central 90 %", zorder=0)
    right.set(xlabel="f(x)", title="What its value is")
    right.legend(frameon=False, fontsize=8)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def in_one_dimension(n_paths: int, folder: pathlib.Path) -> None:
    X, y = observe()
    prior = pgp.GPPrior(kernel=pgp.Matern(nu=2.5, variance=0.3, lengthscale=0.4), X=X)
    paths = pgp.PathwiseSampler(prior.condition(y, 0.05**2), n_features=1024).sample_paths(jax.random.key(0), n_paths)

    optimum = optimise.minimise(paths, BOX, jax.random.key(1), n_screen=256, n_restarts=4)
    intervals = optimise.credible_intervals(optimum, 0.9)

    grid = np.linspace(*np.asarray(BOX)[:, 0], num=401)
    values = np.asarray(paths(grid[:, None]))
    best_on_grid = values.min(axis=1)
    # A search off the grid ends no higher than the best point of the grid.
    assert (np.asarray(optimum.values) <= best_on_grid + 1e-9).all()
    assert bool(optimum.converged.all())

    points = np.asarray(optimum.points)[:, 0]
    print(f"{n_paths} paths, one variable. Where the minimum is:")
    places = {"-2.0 to -1.0": points < -1, "-1.0 to  0.0": (points >= -1) & (points < 0)}
    places |= {" 0.0 to  1.0": (points >= 0) & (points < 1), " 1.0 to  2.0": (points >= 1) & (points < 2)}
    for name, there in (places | {"at the bound, 2.0": points == 2}).items():
        p = there.mean()
        print(f"  {name:18s} probability {p:.3f} ± {np.sqrt(p * (1 - p) / n_paths):.3f}")
    low, high = np.asarray(intervals[1])
    print(f"Its value: {np.mean(optimum.values):.3f} on average, central 90 % {low:.3f} to {high:.3f}")
    print(
        f"The best observation: {y.min():.3f}. A grid of 401 points misses {np.mean(best_on_grid - optimum.values):.1e}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    plot(X, y, grid, values, optimum, intervals).savefig(folder / "thompson_sampling.png", dpi=130)
    print(f"Figure: {folder / 'thompson_sampling.png'}")


def in_six_dimensions(n_draws: int) -> None:
    rng = np.random.default_rng(0)
    X = rng.uniform(size=(30, 6))
    y = np.sin(5 * X[:, 0]) + np.cos(4 * X[:, 1]) * X[:, 2] + 0.1 * rng.normal(size=30)
    posterior = pgp.GPPrior(kernel=pgp.Matern(nu=2.5, variance=1.0, lengthscale=0.6), X=X).condition(y, 0.01)
    sampler = pgp.PathwiseSampler(posterior, n_features=1024)
    box = jnp.stack([jnp.zeros(6), jnp.ones(6)])

    def search(seed):
        paths = jax.block_until_ready(sampler.sample_paths(jax.random.key(seed), 16))
        started = time.perf_counter()
        batch = jax.block_until_ready(acquisition.thompson_sample(paths, box, jax.random.key(100 + seed)))
        return paths, batch, time.perf_counter() - started

    searches = [search(seed) for seed in range(n_draws)]
    (paths, batch, _), seconds = searches[-1], [took for _, _, took in searches]
    values = np.asarray(paths(rng.uniform(size=(20_000, 6)))).min(axis=1)
    assert (np.asarray(batch.values) < values).all()
    on_the_boundary = np.asarray((batch.points == 0) | (batch.points == 1)).any(axis=1)
    print(f"\n16 paths, six variables, 30 observations, 1024 features: {seconds[0]:.1f} s with compilation,")
    print(
        f"then {1000 * np.median(seconds[1:]):.0f} ms a batch. {on_the_boundary.sum()} of 16 minima are on the boundary."
    )
    gap = np.mean(values - np.asarray(batch.values))
    print(f"The best of 20 000 random points is {gap:.2f} above the minimum on average.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="few paths, and one dimension only")
    parser.add_argument("--figures", type=pathlib.Path, default=FIGURES, help="folder for the figures")
    arguments = parser.parse_args()
    in_one_dimension(200 if arguments.fast else 4000, arguments.figures)
    if not arguments.fast:
        in_six_dimensions(6)
