"""What are gradients worth? Values alone, values with gradients, and as many values as both have numbers.

A simulation with an adjoint gives its gradient in all inputs for a few times the price of the value. Franke's function of two
inputs is evaluated at the points of random designs, and learnt from the values alone, from values and gradients, and from
three times as many values: errors, and how often central intervals hold the truth.

    python examples/gallery/gradient_data.py [--fast] [--figures DIR]
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
from scipy.special import ndtri

import pathwise_gp as pgp

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")

FIGURES = pathlib.Path(__file__).parents[1] / "figures"
BLUE, ORANGE, GREY = "#2b6cb0", "#c05621", "#4a5568"
MODELS = {"values": ORANGE, "values and gradients": BLUE, "3n values": GREY}
KERNEL, NOISE = pgp.Matern(3.5, 0.3, 0.4), 1e-8
LEVELS = np.asarray([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95])


def franke(X):
    """Franke's function (1979) on the unit square, and its gradient."""
    value, slope = np.zeros(len(X)), np.zeros(X.shape)
    for a, centre, width, power in (
        (0.75, (2, 2), (4, 4), (2, 2)),
        (0.75, (-1, -1), (49, 10), (2, 1)),
        (0.5, (7, 3), (4, 4), (2, 2)),
        (-0.2, (4, 7), (1, 1), (2, 2)),
    ):
        t, w, p = 9 * X - np.asarray(centre), np.asarray(width), np.asarray(power)
        bump = a * np.exp(-np.sum(t**p / w, axis=1))
        value += bump
        slope -= bump[:, None] * 9 * p * t ** (p - 1) / w
    return value, slope


def log_prior(prior, _):
    return dist.LogNormal(-1.0, 1.0).log_prob(prior.kernel.lengthscale)


@eqx.filter_jit
def solve(prior, y, mask, points, learn):
    if learn:
        prior = pgp.fit(prior, y, NOISE, mask, learn_noise=False, log_prior=log_prior, max_steps=50).prior
    posterior = prior.condition(y, NOISE, mask, check_scales=False)
    return posterior.mean(points), jnp.sqrt(posterior.variance(points))


def learnt(name, X, n, points, learn):
    """Mean and standard deviation from the first n points of a design, of which the others are masked."""
    value, slope = franke(X)
    mask = np.arange(len(X)) < (3 * n if name == "3n values" else n)
    seen, y = X, value
    if name == "values and gradients":
        # Of this one there are as many numbers at a third of the points.
        third = len(X) // 3
        seen = [X[:third], pgp.Gradient(X[:third])]
        y, mask = [value[:third], slope[:third]], [mask[:third], np.repeat(mask[:third, None], 2, axis=1)]
    prior = pgp.GPPrior(kernel=KERNEL, X=seen)
    y, _, mask = prior.check(y, NOISE, mask)
    return solve(prior, y, mask, points, learn)


def plot(grid, points, X, n, errors, sizes, traces, shares):
    figure, panels = plt.subplots(1, 4, figsize=(15, 3.7), constrained_layout=True, width_ratios=[1, 1, 1.1, 1.1])
    square = lambda values: values.reshape(len(grid), -1)
    top = max(np.max(error) for error in errors.values())
    for axes, (name, error) in zip(panels, errors.items(), strict=False):
        axes.pcolormesh(grid, grid, square(error), vmin=0, vmax=top, cmap="Blues", shading="gouraud")
        axes.contour(grid, grid, square(franke(points)[0]), 8, colors=GREY, linewidths=0.5)
        axes.plot(*X[:n].T, ".", color="black", ms=5)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axes.set_title(f"Error: {n} {name}")
    slope = franke(X[:n])[1]
    panels[1].quiver(*X[:n].T, *slope.T, color=ORANGE, width=0.009, scale=25)
    figure.colorbar(panels[1].collections[0], ax=panels[1])
    for name, trace in traces.items():
        lower, middle, upper = np.quantile(trace, [0.25, 0.5, 0.75], axis=0)
        panels[2].fill_between(sizes, lower, upper, color=MODELS[name], alpha=0.15, lw=0)
        panels[2].loglog(sizes, middle, "o-", color=MODELS[name], ms=4, label=name)
        panels[3].plot(LEVELS, np.mean(shares[name], axis=0), "o-", color=MODELS[name], ms=4, label=name)
    panels[2].set(xlabel="points n", title="RMSE, median and quartiles")
    panels[2].set_xticks(sizes, [str(n) for n in sizes])
    panels[2].minorticks_off()
    panels[3].plot([0, 1], [0, 1], color="black", lw=1, ls="--")
    panels[3].set(xlabel="probability of the central interval", title=f"Share that holds the truth, n = {n}")
    for axes in panels[2:]:
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(fast: bool, folder: pathlib.Path) -> None:
    started = time.perf_counter()
    sizes, n_designs, shown = ((10, 30), 1, 30) if fast else ((10, 20, 30, 60), 30, 30)
    grid = np.linspace(0, 1, 11 if fast else 31)
    points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    truth = franke(points)[0]
    print(f"standard deviation of the function over the square: {truth.std():.2f}\n")

    traces = {name: np.zeros((n_designs, len(sizes))) for name in MODELS}
    shares = {name: np.zeros((n_designs, len(sizes), len(LEVELS))) for name in MODELS}
    errors, first = {}, None
    for i in range(n_designs):
        X = np.random.default_rng(i).uniform(size=(3 * sizes[-1], 2))
        first = X if first is None else first
        for name in MODELS:
            for j, n in enumerate(sizes):
                mean, sd = learnt(name, X, n, points, not fast)
                error = np.abs(np.asarray(mean) - truth)
                traces[name][i, j] = np.sqrt(np.mean(error**2))
                shares[name][i, j] = np.mean(error[:, None] < np.asarray(sd)[:, None] * ndtri((1 + LEVELS) / 2), axis=0)
                if i == 0 and n == shown and name != "3n values":
                    errors[name] = error

    print("points   " + "   ".join(f"{name}: RMSE (quartiles), in 50 %, in 95 %" for name in MODELS))
    for j, n in enumerate(sizes):
        line = f"{n:6d}"
        for name in MODELS:
            lower, middle, upper = np.quantile(traces[name][:, j], [0.25, 0.5, 0.75])
            half, most = (shares[name][:, j, k].mean() for k in (4, 9))
            line += f"   {middle:.4f} ({lower:.4f} to {upper:.4f}), {half:4.0%}, {most:4.0%}   "
        print(line)
    better = np.mean(traces["values and gradients"] < traces["values"], axis=0)
    print("gradients help in " + ", ".join(f"{share:.0%}" for share in better) + " of the designs")

    folder.mkdir(parents=True, exist_ok=True)
    there = {name: shares[name][:, sizes.index(shown)] for name in MODELS}
    plot(grid, points, first, shown, errors, sizes, traces, there).savefig(folder / "gradient_data.png", dpi=120)
    print(f"\nFigure: {folder / 'gradient_data.png'}\nDone in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="one design, with a kernel that is given")
    parser.add_argument("--figures", type=pathlib.Path, default=FIGURES, help="folder for the figures")
    arguments = parser.parse_args()
    main(arguments.fast, arguments.figures)
