"""From measurements to posterior functions: carbon dioxide over Mauna Loa, 1958 to 2001.

A Gaussian process with unknown hyperparameters is conditioned on 521 monthly means (the record that ships with
statsmodels). NUTS draws the hyperparameters; each draw gives paths; and every answer below is a functional of them: the
forecast, its parts (trend, season, irregularities), the growth rate (a derivative), and the month in which 380 ppm is
first passed (a first crossing).

Run it with `make demo`. `--fast` takes a part of the record and few draws, to see that it runs.
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
import numpyro
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from numpyro.infer import init_to_median, MCMC, NUTS
from numpyro.infer.util import initialize_model
from scipy.optimize import minimize
from statsmodels.datasets import co2

import pathwise_gp as pgp
from pathwise_gp import numpyro_bridge as bridge

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")

FIGURES = pathlib.Path(__file__).parent / "figures"
EPOCH = 1980.0  # times are in years since then
THRESHOLD = 380.0
BLUE, ORANGE, GREY = "#2b6cb0", "#c05621", "#4a5568"


def monthly_means() -> tuple[np.ndarray, np.ndarray]:
    """Decimal years (middle of the month) and the mean of each month's weekly values in ppm; missing months left out."""
    weekly = co2.load_pandas()["data"]["co2"]
    monthly = weekly.resample("MS").mean().dropna()
    return np.asarray(monthly.index.year + (monthly.index.month - 0.5) / 12), monthly.to_numpy()


def model(X, y):
    """A parabola, slow deviations from it, a yearly cycle that may change over decades, and irregularities of a year."""
    parabola = pgp.Constant(100.0) + pgp.Linear(4.0) + pgp.Linear(0.03) * pgp.Linear(0.03)  # vague coefficients
    slow = bridge.lift(
        pgp.RBF(variance=1.0, lengthscale=8.0),
        {"variance": dist.LogNormal(0.0, 1.0), "lengthscale": dist.LogNormal(jnp.log(8.0), 0.5)},
        name="slow",
    )
    season = bridge.lift(
        pgp.RBF(variance=8.0, lengthscale=60.0) * pgp.Periodic(variance=1.0, lengthscale=1.2, period=1.0),
        {
            "kernels[0].variance": dist.LogNormal(jnp.log(8.0), 0.7),
            "kernels[0].lengthscale": dist.LogNormal(jnp.log(60.0), 0.5),
            "kernels[1].lengthscale": dist.LogNormal(jnp.log(1.2), 0.3),
        },
        name="season",
    )
    irregular = bridge.lift(
        pgp.Matern(nu=1.5, variance=0.5, lengthscale=1.0),
        {"variance": dist.LogNormal(jnp.log(0.5), 0.7), "lengthscale": dist.LogNormal(0.0, 0.5)},
        name="irregular",
    )
    noise = numpyro.sample("noise", dist.LogNormal(jnp.log(0.2), 0.5))
    prior = pgp.GPPrior(kernel=parabola + slow + season + irregular, X=X, jitter=1e-6)
    bridge.gp_factor("obs", prior, y, noise**2)
    return prior


def mode(key, *data):
    """The most probable hyperparameters, by site in NUTS's coordinates, and the inverse Hessian there, `q q`.

    Chains that start there with that mass matrix have nothing to find, and little to adapt.
    """
    start = initialize_model(key, model, model_args=data, init_strategy=init_to_median)
    first, by_site = ravel_pytree(start.param_info.z)
    value_and_slope = jax.jit(jax.value_and_grad(lambda at: start.potential_fn(by_site(at))))
    best = minimize(lambda at: tuple(map(np.asarray, value_and_slope(at))), first, jac=True, method="BFGS").x
    steps = 1e-3 * np.eye(len(best))  # central differences of slopes cost no second program
    hessian = np.stack([value_and_slope(best + h)[1] - value_and_slope(best - h)[1] for h in steps]) / 2e-3
    return by_site(jnp.asarray(best)), jnp.asarray(np.linalg.inv((hessian + hessian.T) / 2))


def band(axes, times, values, colour, label):
    """Median and central 95 % of many paths."""
    low, middle, high = np.quantile(values, [0.025, 0.5, 0.975], axis=0)
    axes.fill_between(times, low, high, color=colour, alpha=0.25, lw=0, label=f"{label}, central 95 %")
    axes.plot(times, middle, color=colour, lw=1.2, label=f"{label}, median")


def plot_forecast(times, y, grid, values):
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), width_ratios=[2, 1], constrained_layout=True)
    band(left, grid, values, BLUE, "posterior paths")
    left.plot(times, y, ".", color="black", ms=2, label="monthly means")
    left.axvline(times[-1], color=GREY, lw=0.8, ls=":")
    left.set(xlabel="year", ylabel="CO₂ in ppm", title="The record and ten years beyond", xlim=(grid[0], grid[-1]))
    left.legend(frameon=False, loc="upper left")
    near = (grid > times[-1] - 2) & (grid < times[-1] + 4)
    right.plot(grid[near], values[:: max(1, len(values) // 24), near].T, color=BLUE, lw=0.6, alpha=0.6)
    recent = times > times[-1] - 2
    right.plot(times[recent], y[recent], ".", color="black", ms=5)
    right.axhline(THRESHOLD, color=ORANGE, lw=1)
    right.annotate(f"{THRESHOLD:.0f} ppm", (times[-1] - 1.9, THRESHOLD + 0.25), color=ORANGE)
    right.set(xlabel="year", title="24 single paths about the end")
    return figure


def plot_parts(times, y, grid, parts, trend_at_times):
    figure, panels = plt.subplots(3, 1, figsize=(9, 7), sharex=True, constrained_layout=True)
    for axes, (name, values), colour in zip(panels, parts.items(), (BLUE, ORANGE, GREY), strict=True):
        band(axes, grid, values, colour, name)
        axes.axvline(times[-1], color=GREY, lw=0.8, ls=":")
        axes.set_ylabel(f"{name} in ppm")
    panels[0].plot(times, y, ".", color="black", ms=1, label="monthly means")
    panels[0].legend(frameon=False, loc="upper left")
    panels[1].plot(times, y - trend_at_times, ".", color="black", ms=1, label="monthly means less the median trend")
    # Above the axes: a season fills its panel from end to end.
    panels[1].legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0)
    panels[2].set(xlabel="year", xlim=(grid[0], grid[-1]))
    panels[0].set_title("Parts of the same paths, which add up to them")
    return figure


def plot_growth(times, growth, last):
    figure, axes = plt.subplots(figsize=(8, 3.6), constrained_layout=True)
    band(axes, times, growth, BLUE, "growth rate")
    axes.plot(times, growth[:: max(1, len(growth) // 5)][:5].T, color=GREY, lw=0.5, alpha=0.8)
    axes.axvline(last, color=GREY, lw=0.8, ls=":")
    axes.annotate(" end of the record", (last, 0.04), xycoords=("data", "axes fraction"), color=GREY)
    axes.set(
        xlim=(times[0], times[-1]),
        xlabel="year",
        ylabel="ppm per year",
        title="Derivative of the yearly mean of each path",
    )
    axes.legend(frameon=False, loc="upper left")
    return figure


def plot_first_passage(passed):
    figure, axes = plt.subplots(figsize=(8, 3.2), constrained_layout=True)
    months = np.arange(2002, np.ceil(passed.max()) + 1 / 24, 1 / 12)
    axes.hist(passed, bins=list(months), weights=np.full(len(passed), 1 / len(passed)), color=BLUE, alpha=0.8)
    axes.axvspan(2004 + 2 / 12, 2004 + 5 / 12, color=ORANGE, alpha=0.3, lw=0, label="spring 2004: what later came")
    axes.set(xlabel="year", ylabel="probability", title=f"The month whose mean first passes {THRESHOLD:.0f} ppm")
    axes.legend(frameon=False)
    return figure


def main(fast: bool, folder: pathlib.Path) -> None:
    started = time.perf_counter()
    times, y = monthly_means()
    if fast:
        times, y = times[-120:], y[-120:]
    centre = y.mean()
    X, target = jnp.asarray(times - EPOCH)[:, None], jnp.asarray(y - centre)
    print(f"{len(y)} monthly means, {times[0]:.2f} to {times[-1]:.2f}, {y.min():.1f} to {y.max():.1f} ppm")

    best, covariance = mode(jax.random.key(2), X, target)
    sites = tuple(best)  # in the order of the covariance
    mass = {sites: covariance}
    kernel = NUTS(model, dense_mass=[sites], inverse_mass_matrix=mass, adapt_mass_matrix=False, max_tree_depth=5)
    mcmc = MCMC(kernel, num_warmup=10 if fast else 40, num_samples=20 if fast else 400, thinning=2)
    mcmc.run(jax.random.key(0), X, target, init_params=best, extra_fields=("diverging",))
    mcmc.print_summary()
    print(f"NUTS took {time.perf_counter() - started:.0f} s")

    # One function for each of (draws × 8) worlds that are consistent with the record.
    ensemble = bridge.posterior_paths(
        model, mcmc.get_samples(), jax.random.key(1), X, target, n_paths=8, n_features=1536
    )
    print(f"{ensemble.shape[0]} draws of the hyperparameters with {ensemble.shape[1]} paths each")

    def co2_at(t):
        """All paths at decimal years `n`, in ppm: `(draws × paths) n`."""
        return centre + ensemble((t - EPOCH)[:, None]).reshape(-1, t.shape[0])

    grid = jnp.arange(times[0], times[-1] + 10, 1 / 24)
    values = np.asarray(co2_at(grid))
    print(f"Paths after {time.perf_counter() - started:.0f} s")

    # The parts of each path under the same draw, in the order of the kernel's terms: the parabola has three.
    *parabola, slow, season, irregular = ensemble.components()
    value = lambda part, t: np.asarray(part(jnp.asarray(t - EPOCH)[:, None])).reshape(-1, len(t))
    trend = lambda t: centre + sum(value(part, t) for part in (*parabola, slow))
    parts = {"trend": trend(grid), "season": value(season, grid), "irregularities": value(irregular, grid)}
    off = np.abs(sum(parts.values()) - values).max()
    # Data say what trend and season add up to, but not at which level the season lies: the figure has its mean in the trend.
    level = parts["season"].mean(axis=1, keepdims=True)
    parts["trend"], parts["season"] = parts["trend"] + level, parts["season"] - level
    swing = (
        np.median(np.ptp(parts["season"][:, : 10 * 24], axis=1)),
        np.median(np.ptp(parts["season"][:, -10 * 24 :], axis=1)),
    )
    print(
        f"\nParts add up to the paths within {off:.0e} ppm. The season swings by {swing[0]:.1f} ppm in the first ten years"
    )
    print(f"and by {swing[1]:.1f} in the last ten.")

    # Growth: the derivative of each path, averaged over the twelve months about a time so that the season drops out. A value
    # depends on its own time only, so one forward derivative along ones gives all of them.
    months = jnp.arange(times[0], times[-1] + 10, 1 / 12)
    _, slopes = jax.jvp(co2_at, (months,), (jnp.ones_like(months),))
    growth = np.lib.stride_tricks.sliding_window_view(np.asarray(slopes), 12, axis=1).mean(axis=2)
    years = np.asarray(months[:-11]) + 5.5 / 12
    print("\nGrowth of the yearly mean in ppm per year (median, central 95 %):")
    for year in (1965.5, 1975.5, 1985.5, 1995.5, 2000.5, 2005.5):
        if years[0] <= year <= years[-1]:
            low, middle, high = np.quantile(growth[:, int(np.argmin(np.abs(years - year)))], [0.025, 0.5, 0.975])
            print(f"  {year:.1f}: {middle:.2f}  ({low:.2f} to {high:.2f})")

    # First passage: the first month of each path above the threshold.
    months = jnp.asarray(np.arange(times[-1] + 1 / 12, times[-1] + 10, 1 / 12))
    above = np.asarray(co2_at(months)) >= THRESHOLD
    passed = np.asarray(months)[above.argmax(axis=1)][above.any(axis=1)]
    print(
        f"\nFirst monthly mean above {THRESHOLD:.0f} ppm, of the {len(passed)} of {len(above)} paths that pass it in time:"
    )
    names = ("5 %", "25 %", "50 %", "75 %", "95 %")
    quantiles = np.quantile(passed, [0.05, 0.25, 0.5, 0.75, 0.95], method="inverted_cdf")
    print(
        "  " + "   ".join(f"{n}: {int(q)}-{int((q % 1) * 12) + 1:02d}" for n, q in zip(names, quantiles, strict=True))
    )
    print("  The later record passes it in spring 2004.")

    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "co2_paths.png": plot_forecast(times, y, np.asarray(grid), values),
        "co2_parts.png": plot_parts(times, y, np.asarray(grid), parts, np.median(trend(times) + level, axis=0)),
        "co2_growth.png": plot_growth(years, growth, times[-1]),
        "co2_first_passage.png": plot_first_passage(passed),
    }
    print()
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=130)
        print(f"Figure: {folder / name}")
    print(f"Done in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="a part of the record and few draws")
    parser.add_argument("--figures", type=pathlib.Path, default=FIGURES, help="folder for the figures")
    arguments = parser.parse_args()
    main(arguments.fast, arguments.figures)
