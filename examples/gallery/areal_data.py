"""What happens below the cells that were averaged? Averages as data, beside their values at the centres of the cells.

Sea-surface temperatures of the El Niño region are known for each month. They are averaged over quarters, and the months are
predicted from these averages alone: once with each average as what it is, the integral of the process over its quarter, and
once as if it were the value in the middle of it. Both have hyperparameters of maximum likelihood. What is predicted is again
an average, that of a month.

    python examples/gallery/areal_data.py [--fast] [--figures DIR]
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
from scipy.stats import norm
from statsmodels.datasets import elnino

import pathwise_gp as pgp

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")

FIGURES = pathlib.Path(__file__).parents[1] / "figures"
BLUE, ORANGE, GREY = "#2b6cb0", "#c05621", "#4a5568"
COLOURS = {"averages": BLUE, "values at centres": ORANGE}
NOISE = 1e-5  # of averages with variance 1: the table has two digits behind the point


def temperatures():
    """The middle of each month in years, and its temperature in °C."""
    table = elnino.load_pandas()["data"]
    values = table.drop(columns="YEAR").to_numpy(float).reshape(-1)
    return table["YEAR"].iloc[0] + (np.arange(len(values)) + 0.5) / 12, values


def cells(middles, width):
    """Lower and upper end of each, `q 2 1`."""
    return np.stack([middles - width / 2, middles + width / 2], axis=1)[:, :, None]


@eqx.filter_jit
def predict(observed, y, months, grid, learn):
    """Means and standard deviations of the months, means on a grid and of the quarters, and the prior that was found."""
    prior = pgp.GPPrior(kernel=pgp.Matern(2.5, 1.0, 0.25), X=observed, mean=0.0)
    prior = pgp.fit(prior, y, NOISE, learn_noise=False, max_steps=60).prior if learn else prior
    posterior = prior.condition(y, NOISE)
    L = pgp.Integral(months, weight=12.0)
    quarters = pgp.Integral(jnp.stack([months[::3, 0], months[2::3, 1]], axis=1), weight=4.0)
    return posterior.mean(L), jnp.sqrt(posterior.variance(L)), posterior.mean(grid), posterior.mean(quarters), prior


def plot(time_of, monthly, quarters, averages, grid, means, errors):
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4), constrained_layout=True, width_ratios=[2, 1])
    left.stairs(
        averages, np.append(quarters - 1 / 8, quarters[-1] + 1 / 8), color=GREY, alpha=0.6, baseline=None, lw=1.5
    )
    left.plot([], [], color=GREY, alpha=0.6, label="averages of quarters, the data")
    left.plot(time_of, monthly, ".", color="black", ms=6, label="months, not seen")
    for name, mean in means.items():
        left.plot(grid, mean, color=COLOURS[name], lw=1.4, label=f"posterior mean, {name}")
    begin = np.floor(quarters[0]) + 8
    left.set(xlim=(begin, begin + 4), xlabel="year", ylabel="sea-surface temperature, °C", ylim=(18.8, 29.3))
    left.set_title("Four years")
    left.legend(frameon=False, fontsize=8, ncols=2, loc="upper center")
    bins = np.linspace(-5, 5, 41)
    for name, z in errors.items():
        right.hist(np.clip(z, -5, 5), bins, density=True, color=COLOURS[name], alpha=0.5, label=name)
    right.plot(bins, norm.pdf(bins), color="black", lw=1, label="calibrated")
    right.set(xlabel="error / standard deviation, cut off at ±5", ylabel="density", ylim=(0, 0.9))
    right.set_title("All months")
    right.legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def main(fast: bool, folder: pathlib.Path) -> None:
    started = time.perf_counter()
    years = 5 if fast else 20
    times, values = temperatures()
    blocks = range(0, 12 * years if fast else len(values) - 12 * years + 1, 12 * years)
    errors, offs = ({name: [] for name in COLOURS} for _ in range(2))
    shown = []
    for start in blocks:
        of_months, truth = times[start : start + 12 * years], values[start : start + 12 * years]
        quarters, averages = of_months.reshape(-1, 3).mean(axis=1), truth.reshape(-1, 3).mean(axis=1)
        centre, spread = averages.mean(), averages.std()
        grid = np.linspace(of_months[0], of_months[-1], 60 * years)
        y, months = jnp.asarray((averages - centre) / spread), jnp.asarray(cells(of_months, 1 / 12))
        observed = {
            "averages": pgp.Integral(cells(quarters, 1 / 4), weight=4.0),
            "values at centres": jnp.asarray(quarters)[:, None],
        }
        means = {}
        for name, X in observed.items():
            mean, sd, on_grid, of_quarters, prior = predict(X, y, months, jnp.asarray(grid)[:, None], not fast)
            error = spread * np.asarray(mean) + centre - truth
            errors[name].append((error, error / (spread * np.asarray(sd))))
            offs[name].append(spread * np.abs(of_quarters - y))
            means[name] = spread * np.asarray(on_grid) + centre
            print(
                f"{of_months[0]:.0f} to {of_months[-1]:.0f}, {name:18s} lengthscale {prior.kernel.lengthscale:.3f} years"
            )
        shown.append((of_months, truth, quarters, averages, grid, means))

    steps = np.concatenate([values[s : s + 12 * years] for s in blocks]).reshape(-1, 3)
    print(f"\n{'':18s} RMSE of months, °C   inside 90 %   off the averages by up to")
    print(f"{'steps':18s} {np.sqrt(np.mean((steps - steps.mean(axis=1, keepdims=True)) ** 2)):18.2f}")
    scaled, rmse = {}, {}
    for name in COLOURS:
        error, scaled[name] = np.concatenate(errors[name], axis=1)
        rmse[name] = np.sqrt(np.mean(error**2))
        inside = np.mean(np.abs(scaled[name]) < norm.ppf(0.95))
        print(f"{name:18s} {rmse[name]:18.2f} {inside:13.0%} {np.max(offs[name]):23.2f} °C")
    assert rmse["averages"] < rmse["values at centres"]

    folder.mkdir(parents=True, exist_ok=True)
    plot(*shown[0], errors=scaled).savefig(folder / "areal_data.png", dpi=130)
    print(f"\nFigure: {folder / 'areal_data.png'}\nDone in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="five years, and no hyperparameters learnt")
    parser.add_argument("--figures", type=pathlib.Path, default=FIGURES, help="folder for the figures")
    arguments = parser.parse_args()
    main(arguments.fast, arguments.figures)
