"""Where a function crosses a level, and where it exceeds it: roots and sets of whole paths.

In one dimension: when a quantity that was measured for a while first passes a threshold, and how often a path crosses zero,
against Rice's formula. In two: the region above a threshold, estimated by the Vorob'ev expectation of the paths' excursion
sets, with the volume by which it is wrong on average.

    python examples/gallery/level_sets.py [--fast] [--figures DIR]
"""

import argparse
import math
import os
import pathlib
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np

import pathwise_gp as pgp
from pathwise_gp import level_sets

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")

FIGURES = pathlib.Path(__file__).parents[1] / "figures"
BLUE, ORANGE, GREY = "#2b6cb0", "#c05621", "#4a5568"
THRESHOLD, END = 0.7, 8.0  # of the passage
LEVEL = 0.6  # of the excursion set


def zero_crossings(fast):
    """The mean number of zeros of a stationary process with k = RBF in length T is T/(πℓ) (Rice 1944)."""
    n, lengthscale, length = (500, 0.5, 6.0) if fast else (3000, 0.5, 6.0)
    prior = pgp.GPPrior(kernel=pgp.RBF(1.0, lengthscale), X=jnp.zeros((1, 1)))
    paths = prior.sample_paths(jax.random.key(0), n, n_features=512)
    found = level_sets.crossings(paths, 0.0, jnp.asarray([0.0, length]), n_scan=200, max_crossings=16)
    count, rice = np.asarray(found.count), length / (math.pi * lengthscale)
    error = count.std() / n**0.5
    assert not found.truncated.any()
    assert abs(count.mean() - rice) < 4 * error + 0.002 * rice
    print(
        f"Zeros of a path in length {length:.0f}: {count.mean():.3f} ± {error:.3f} on average, {rice:.3f} by Rice's formula"
    )
    return count, rice


def first_passage(fast):
    rng = np.random.default_rng(0)
    X = np.linspace(0, 4, 15)[:, None]
    y = 0.25 * X[:, 0] + 0.3 * np.sin(2.5 * X[:, 0]) - 0.5 + 0.05 * rng.normal(size=15)
    posterior = pgp.GPPrior(kernel=pgp.Linear(0.05) + pgp.RBF(0.3, 0.8), X=X).condition(y, 0.0025)
    paths = pgp.PathwiseSampler(posterior, n_features=512).sample_paths(jax.random.key(1), 500 if fast else 3000)
    passage = lambda level: level_sets.first_crossing(paths, level, jnp.asarray([4.0, END]), 150, direction="up")
    # With it the derivative of each root in the threshold: how much later a higher one is passed.
    passed, later = jax.jvp(passage, (jnp.asarray(THRESHOLD),), (jnp.ones(()),))
    share = np.isfinite(passed).mean()
    # The same by brute force, on a fine grid.
    grid = np.linspace(0, END, 4001)
    values = np.asarray(paths[:100](grid[:, None]))
    fine = grid[grid >= 4.0]
    above = values[:, grid >= 4.0] > THRESHOLD
    ups = ~above[:, :-1] & above[:, 1:]
    coarse = np.where(ups.any(1), fine[ups.argmax(1)], np.inf)
    agree = np.isclose(coarse, passed[:100], atol=fine[1] - fine[0]) | (coarse == passed[:100])
    assert agree.mean() > 0.98
    middle = np.quantile(passed, 0.5, method="inverted_cdf")
    print(f"\nThe threshold is passed before {END:.0f} on {share:.0%} of the paths; median {middle:.2f}")
    slopes = np.asarray(later)[np.isfinite(passed)]
    assert (slopes > 0).all()  # where a path goes up
    print(f"  per unit of the threshold the passage is {np.median(slopes):.2f} later (median over paths)")
    return X, y, grid[::20], values[:, ::20], np.asarray(passed)


def hill(X):
    return np.exp(-3 * ((X[..., 0] - 0.3) ** 2 + (X[..., 1] + 0.1) ** 2)) + 0.7 * np.exp(
        -8 * ((X[..., 0] + 0.5) ** 2 + (X[..., 1] - 0.5) ** 2)
    )


def excursion(fast):
    rng = np.random.default_rng(3)
    X = rng.uniform(-1, 1, (40, 2))
    y = hill(X) + 0.05 * rng.normal(size=40)
    posterior = pgp.GPPrior(kernel=pgp.RBF(0.3, 0.45), X=X, mean=0.3).condition(y, 0.0025)
    paths = pgp.PathwiseSampler(posterior, n_features=512).sample_paths(jax.random.key(2), 200 if fast else 2000)
    m = 50 if fast else 100
    ticks = -1 + 2 * (np.arange(m) + 0.5) / m
    points = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    weights = np.full(m * m, 4 / m**2)

    coverage = level_sets.coverage_function(paths, LEVEL)
    p = coverage(points)
    volumes = level_sets.excursion_volume(paths, LEVEL, points, weights)
    found = level_sets.vorobev_expectation(p, weights)
    deviation = level_sets.vorobev_deviation(p, weights)
    np.testing.assert_allclose(volumes.mean(), found.mean_volume, rtol=1e-10)
    inside, p = np.asarray(found.inside), np.asarray(p)
    assert deviation >= level_sets.vorobev_deviation(
        p, weights, p > 0.5
    )  # the smallest of all sets, whatever their volume
    sets = np.asarray(paths[:100](points)) > LEVEL
    drawn = (sets != inside) @ weights
    assert abs(drawn.mean() - deviation) < 4 * drawn.std() / 10
    truth = hill(np.asarray(points)) > LEVEL
    wrong = float(weights @ (truth != inside))
    print(
        f"\nVolume above the threshold: {volumes.mean():.3f} ± {volumes.std():.3f}   (truth {float(weights @ truth):.3f})"
    )
    print(f"  Vorob'ev expectation: coverage at least {found.threshold:.3f}, volume {found.volume:.3f}")
    print(f"  expected symmetric difference {deviation:.3f}; the one with the truth {wrong:.3f}")
    box = np.array([[-1.0, -1.0], [1.0, 1.0]])
    lines = {
        "paths": [line for path in paths[:8] for line in level_sets.contours(path, LEVEL, box, m)],
        "Vorob'ev expectation": level_sets.contours(coverage, found.threshold, box, m),
        "truth": level_sets.contours(hill, LEVEL, box),
    }
    return X, ticks, p.reshape(m, m), lines


def plot_one(zeros, passage):
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(12, 3.4), width_ratios=[1.5, 1, 1], constrained_layout=True
    )
    X, y, grid, values, passed = passage
    left.plot(grid, values[:40].T, color=BLUE, lw=0.5, alpha=0.5)
    left.plot(X[:, 0], y, ".", color="black", ms=5)
    left.axhline(THRESHOLD, color=ORANGE, lw=1)
    left.plot(passed[:40], np.full(40, THRESHOLD), "o", color=ORANGE, ms=3)
    left.set(title="Paths, and where each first passes the threshold", xlabel="time", xlim=(0, END), ylim=(-1.5, 3))
    finite = np.isfinite(passed)
    middle.hist(passed[finite], bins=40, weights=np.full(finite.sum(), 1 / len(passed)), color=ORANGE, alpha=0.7)
    middle.set(title=f"First passage: {finite.mean():.0%} by {END:.0f}", xlabel="time", ylabel="probability")
    count, rice = zeros
    right.hist(count, bins=np.arange(count.max() + 2) - 0.5, density=True, color=BLUE, alpha=0.5, rwidth=0.9)
    right.axvline(rice, color="black", lw=1, ls="--", label="mean by Rice's formula")
    right.set(
        title="Zeros of a stationary process", xlabel="number", ylim=(0, 0.33), xticks=range(0, int(count.max()) + 1, 2)
    )
    right.legend(frameon=False, fontsize=8, loc="upper right")
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_two(X, ticks, p, lines):
    figure, axes = plt.subplots(figsize=(5.6, 4.6), constrained_layout=True)
    shown = axes.pcolormesh(ticks, ticks, p, cmap="Blues", vmin=0, vmax=1, shading="gouraud", rasterized=True)
    figure.colorbar(shown, ax=axes, label=f"P(f(x) > {LEVEL})")
    styles = {"paths": (GREY, 0.5, "-"), "Vorob'ev expectation": (ORANGE, 2, "-"), "truth": ("black", 1.2, "--")}
    for name, (colour, width, style) in styles.items():
        for i, line in enumerate(lines[name]):
            axes.plot(*line.T, color=colour, lw=width, ls=style, label=name if i == 0 else None)
    axes.plot(X[:, 0], X[:, 1], ".", color="black", ms=4, label="measurements")
    axes.set(title="Region above a threshold, from 40 measurements", xlim=(-1, 1), ylim=(-1, 1), aspect="equal")
    axes.legend(fontsize=8, loc="upper right", framealpha=0.9)
    return figure


def main(fast: bool, folder: pathlib.Path) -> None:
    started = time.perf_counter()
    figures = {
        "level_sets.png": plot_one(zero_crossings(fast), first_passage(fast)),
        "level_sets_excursion.png": plot_two(*excursion(fast)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    print()
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=130)
        print(f"Figure: {folder / name}")
    print(f"Done in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="few paths")
    parser.add_argument("--figures", type=pathlib.Path, default=FIGURES, help="folder for the figures")
    arguments = parser.parse_args()
    main(arguments.fast, arguments.figures)
