"""Can a cheap model help where the dear one is noisy? Differences with common noise, in a Gaussian process of both.

A stochastic simulator has a dear version and a cheap one with a bias. Two runs with the same random numbers have nearly the
same noise, and their difference nearly none. A kernel over the input and the fidelity ties both versions together; what was
observed is a list: values of the cheap one, a few of the dear one, and differences f(x, 1) − f(x, 0). The same number of runs
without common random numbers, and the runs of the dear one alone, are held against it.

    python examples/gallery/multi_fidelity.py [--fast] [--figures DIR]
"""

import argparse
import os
import pathlib
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import numpyro.distributions as dist
from scipy.stats import norm

import pathwise_gp as pgp

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")

FIGURES = pathlib.Path(__file__).parents[1] / "figures"
BLUE, ORANGE, GREY = "#2b6cb0", "#c05621", "#4a5568"
COLOURS = {"dear runs alone": GREY, "independent noise": ORANGE, "common noise": BLUE}
# In units of which the dear function has a standard deviation of about one.
NOISE, LEFT = 0.8**2, 0.06**2  # variances: of a run, and what common random numbers leave of it in a difference
GRID = np.linspace(0, 1, 201)


def dear(x):
    """Forrester's function."""
    return (6 * x - 2) ** 2 * np.sin(12 * x - 4) / 5


def cheap(x):
    return 0.5 * dear(x) + 2 * (x - 0.5) - 1


def at(x, fidelity):
    """Inputs with the number of the fidelity behind them, `n 2`."""
    return np.stack([x, np.full_like(x, fidelity)], axis=1)


def runs(rng):
    """What was observed, with its values and variances: 30 cheap runs, 3 dear ones, and 6 pairs of both."""
    x_cheap, x_all = np.linspace(0, 1, 30), rng.permutation(np.linspace(0, 1, 9))
    x_dear, x_pair = x_all[:3], x_all[3:]
    noise = lambda x, variance=NOISE: variance**0.5 * rng.normal(size=x.shape)
    x_cheap = np.concatenate([x_cheap, x_pair])
    y_cheap, y_dear = cheap(x_cheap) + noise(x_cheap), dear(x_dear) + noise(x_dear)
    difference = pgp.Values(at(x_pair, 1.0)) - pgp.Values(at(x_pair, 0.0))
    y_difference = dear(x_pair) - cheap(x_pair) + noise(x_pair, LEFT)
    # With random numbers of their own the dear runs of the pairs are values with noise like any other.
    y_all = np.concatenate([y_dear, dear(x_pair) + noise(x_pair)])
    return {
        "dear runs alone": ([at(x_all, 1.0)], [y_all], [NOISE]),
        "independent noise": ([at(x_cheap, 0.0), at(x_all, 1.0)], [y_cheap, y_all], [NOISE, NOISE]),
        "common noise": (
            [at(x_cheap, 0.0), at(x_dear, 1.0), difference],
            [y_cheap, y_dear, y_difference],
            [NOISE, NOISE, LEFT],
        ),
    }


def log_prior(prior, _):
    kernel = prior.kernel
    return (
        jnp.sum(dist.Normal(0, 1).log_prob(kernel.W))
        + jnp.sum(dist.LogNormal(-1, 1).log_prob(kernel.kappa))
        + dist.LogNormal(-1.5, 0.5).log_prob(kernel.kernel.lengthscale)
    )


@eqx.filter_jit
def predict(prior, y, noise_var, learn):
    """Mean and standard deviation of the dear function."""
    fields = ("kernel.kernel.lengthscale", "kernel.W", "kernel.kappa")
    if learn:
        prior = pgp.fit(prior, y, noise_var, learn_noise=False, fields=fields, log_prior=log_prior, max_steps=60).prior
    posterior = prior.condition(y, noise_var)
    grid = jnp.asarray(at(GRID, 1.0))
    return posterior.mean(grid), jnp.sqrt(posterior.variance(grid))


def plot(data, drawn, errors):
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), constrained_layout=True, width_ratios=[1.3, 1.3, 1])
    for axis, name in zip(axes, ("independent noise", "common noise"), strict=False):
        mean, sd = drawn[name]
        axis.fill_between(GRID, mean - 1.645 * sd, mean + 1.645 * sd, color=COLOURS[name], alpha=0.2, lw=0)
        axis.plot(GRID, mean, color=COLOURS[name], lw=2, label="dear function, posterior")
        axis.plot(GRID, dear(GRID), "--", color="black", lw=1.2, label="truth")
        axis.plot(GRID, cheap(GRID), ":", color="black", lw=1.2, label="cheap function, truth")
        X, y, _ = data[name]
        axis.plot(X[0][:, 0], y[0], "x", color=GREY, ms=4, label="cheap runs")
        axis.plot(X[1][:, 0], y[1], "o", color="black", ms=5, label="dear runs")
        axis.set(title=name, xlabel="x", ylim=(-4.2, 5.6))
    x_pair = np.asarray(data["common noise"][0][2].points)[:6, 0]
    for i, (x, difference) in enumerate(zip(x_pair, data["common noise"][1][2], strict=True)):
        label = "differences" if i == 0 else None
        axes[1].annotate(
            "", (x, cheap(x) + difference), (x, cheap(x)), arrowprops={"arrowstyle": "->", "color": ORANGE}
        )
        axes[1].plot([], [], color=ORANGE, label=label)
    axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    axes[1].legend(frameon=False, fontsize=8, loc="upper left")
    for i, (name, of_sets) in enumerate(errors.items()):
        axes[2].plot(np.full(len(of_sets), i), of_sets, "o", color=COLOURS[name], alpha=0.5)
        axes[2].plot([i - 0.25, i + 0.25], [np.mean(of_sets)] * 2, color=COLOURS[name], lw=2)
    axes[2].set_xticks(range(3), [name.replace(" ", "\n", 1) for name in errors])
    axes[2].set(
        ylabel="RMSE of the dear function", ylim=(0, None), xlim=(-0.6, 2.6), title="Sets of data, and their mean"
    )
    return figure


def main(fast: bool, folder: pathlib.Path) -> None:
    started = time.perf_counter()
    found = {name: [] for name in COLOURS}
    shown = []
    for seed in range(1 if fast else 12):
        data = runs(np.random.default_rng(seed))
        drawn = {}
        for name, (X, y, noise_var) in data.items():
            kernel = pgp.Coregionalised(pgp.RBF(1.0, 0.2), W=[[0.7], [1.0]], kappa=[0.02, 0.1])
            prior = pgp.GPPrior(kernel=kernel, X=X)
            mean, sd = predict(prior, *([jnp.asarray(v) for v in values] for values in (y, noise_var)), learn=not fast)
            drawn[name] = np.asarray(mean), np.asarray(sd)
            error = drawn[name][0] - dear(GRID)
            inside = np.abs(error) < norm.ppf(0.95) * drawn[name][1]
            found[name].append((np.sqrt(np.mean(error**2)), inside.mean(), drawn[name][1].mean()))
        shown.append((data, drawn))

    print(f"means of {len(found['common noise'])} sets   RMSE   inside 90 %   posterior sd")
    for name, rows in found.items():
        rmse, inside, sd = np.mean(rows, axis=0)
        print(f"{name:18s} {rmse:10.3f} {inside:10.0%} {sd:12.3f}")
    rmse = {name: np.asarray(rows)[:, 0] for name, rows in found.items()}
    won = np.sum(rmse["common noise"] < rmse["independent noise"])
    print(f"With common noise nearer to the truth in {won} of {len(rmse['common noise'])} sets")

    folder.mkdir(parents=True, exist_ok=True)
    plot(*shown[0], errors=rmse).savefig(folder / "multi_fidelity.png", dpi=130)
    print(f"\nFigure: {folder / 'multi_fidelity.png'}\nDone in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="one set of data, and no hyperparameters learnt")
    parser.add_argument("--figures", type=pathlib.Path, default=FIGURES, help="folder for the figures")
    arguments = parser.parse_args()
    main(arguments.fast, arguments.figures)
