"""The same ten functions as data arrive: carbon dioxide over Mauna Loa, month by month from 1991 on.

A posterior that is given one more monthly mean keeps its factor, which grows by a row, and paths stay the functions that
they are: the same weights and the same noise, now through one more point. What the record of 1975 to 1990 left open closes
month by month. Arrays have room from the start, so that no step compiles anything. Then the oldest months are taken out as
new ones come in, and whether predictions are calibrated is asked of the observations themselves, each left out in turn.

    python examples/gallery/streaming.py [--fast] [--figures DIR]
"""

import argparse
import os
import pathlib
import tempfile
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import norm
from statsmodels.datasets import co2

import pathwise_gp as pgp
from pathwise_gp import scores

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")

FIGURES = pathlib.Path(__file__).parents[1] / "figures"
EPOCH = 1990.0  # times are in years since then
FIRST, START, SHOWN = 1975.0, 1991.0, (1990.0, 1997.0)
WINDOW = 36  # months that are kept in the end
# What `pgp.fit` finds for the years before, rounded: a trend, a yearly cycle that changes slowly, and irregularities.
KERNEL = (
    pgp.RBF(variance=1500.0, lengthscale=38.0)
    + pgp.RBF(variance=9.0, lengthscale=100.0) * pgp.Periodic(variance=1.4, lengthscale=1.7, period=1.0)
    + pgp.Matern(nu=1.5, variance=0.2, lengthscale=0.8)
)
NOISE = 0.04  # ppm²
FEATURES, CAPACITY = 2048, 384
LEVELS = (0.5, 0.9)


def monthly_means() -> tuple[np.ndarray, np.ndarray]:
    """Middle of each month in years since 1990, and the mean of its weekly values in ppm above 350; no month that lacks."""
    weekly = co2.load_pandas()["data"]["co2"]
    monthly = weekly.resample("MS").mean().dropna()
    times = np.asarray(monthly.index.year + (monthly.index.month - 0.5) / 12)
    return times[times > FIRST] - EPOCH, monthly.to_numpy()[times > FIRST] - 350


@eqx.filter_jit
def updated(posterior, paths, x, y, key):
    """Both given one more observation, and what was forecast of it."""
    said = posterior.predict(x[None, None])
    posterior = posterior.condition(x[None, None], y[None])
    return posterior, paths.condition(posterior, key, n_new=1), (y - said.mean[0], jnp.sqrt(said.variance[0]))


@eqx.filter_jit
def slide(posterior, paths, X, y, keys):
    """One observation after the other, and with each the oldest leaves: one program for all."""

    def step(state, new):
        posterior, paths = state
        posterior, paths = posterior.without([0]), paths.without(posterior, [0])
        posterior, paths, error = updated(posterior, paths, *new)
        return (posterior, paths), error

    return jax.lax.scan(step, (posterior, paths), (X, y, keys))


@eqx.filter_jit
def anew(X, y, mask, key, n_paths):
    """Both from the start, at the same shapes."""
    posterior = pgp.GPPrior(kernel=KERNEL, X=X).condition(y, NOISE, mask)
    return posterior, pgp.PathwiseSampler(posterior, FEATURES).sample_paths(key, n_paths)


def within(residual, deviation):
    """The share of residuals in the central interval of each level, and their size in deviations."""
    z = np.asarray(residual) / np.asarray(deviation)
    return [np.mean(np.abs(z) < norm.ppf((1 + level) / 2)) for level in LEVELS], np.sqrt(np.mean(z**2))


def plot(panels, times, y, forecast):
    """Ten functions less the first forecast, in colours that they keep."""
    figure, axes = plt.subplots(2, 3, figsize=(11, 5.6), sharex=True, sharey=True, constrained_layout=True)
    colours = plt.colormaps["viridis"](np.linspace(0, 0.92, 10))
    grid, rest = np.linspace(*SHOWN, 500) - EPOCH, y - forecast(times)
    for ax, (title, seen, paths) in zip(axes.flat, panels, strict=False):
        for line, colour in zip(np.asarray(paths[:10](grid[:, None])) - forecast(grid), colours, strict=True):
            ax.plot(grid + EPOCH, line, color=colour, lw=0.9)
        ax.plot(times + EPOCH, rest, ".", color="#bbbbbb", ms=3.5, zorder=1)
        ax.plot(times[seen] + EPOCH, rest[seen], ".", color="black", ms=3.5, zorder=3)
        ax.axhline(0, color="grey", lw=0.6, zorder=0)
        ax.set_title(title, fontsize=10)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set(xlim=SHOWN, ylim=(-4.2, 3.2), xticks=np.arange(SHOWN[0], SHOWN[1], 2))
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    figure.supylabel("ppm beyond the forecast of December 1990", fontsize=10)
    return figure


def main(fast: bool, folder: pathlib.Path) -> None:
    started = time.perf_counter()
    compiled = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    times, y = monthly_means()
    n_start = int(np.sum(times < START - EPOCH))
    end, n_paths = (n_start + 26, 32) if fast else (len(times), 512)
    key, key_paths, key_pit = jax.random.split(jax.random.key(1), 3)
    keys = jax.random.split(key, len(times))
    prior = pgp.GPPrior(kernel=KERNEL, X=times[:n_start, None])
    first = posterior = prior.condition(y[:n_start], NOISE, capacity=CAPACITY)
    drawn = paths = pgp.PathwiseSampler(posterior, FEATURES).sample_paths(key_paths, n_paths)

    shown = {1: "one month later", 6: "six months later", 24: "two years later", 48: "four years later"}
    panels = [("until December 1990", np.arange(n_start), paths)]
    milliseconds, errors, at_last = [], [], (n_start, posterior, paths)
    for i in range(n_start, end):
        begun = time.perf_counter()
        posterior, paths, error = updated(posterior, paths, jnp.asarray(times[i]), jnp.asarray(y[i]), keys[i])
        errors.append(np.asarray(error))
        jax.block_until_ready(paths)
        milliseconds.append(1e3 * (time.perf_counter() - begun))
        if i == n_start:
            compiled.clear()
        if i + 1 - n_start in shown:
            panels.append((shown[i + 1 - n_start], np.arange(i + 1), paths))
            at_last = i + 1, posterior, paths
    assert not compiled
    print(f"{end - n_start} months came one by one after {n_start}; {n_paths} paths. Milliseconds of an update:")
    print(f"  the first, which compiles  {milliseconds[0]:8.0f}")
    print(f"  the others, median         {np.median(milliseconds[1:]):8.1f}   (programs compiled: {len(compiled)})")
    data, again = (posterior.prior.X, posterior.y, posterior.mask), []
    whole, _ = anew(*data, key_paths, n_paths)
    for _ in range(3 if fast else 11):
        begun = time.perf_counter()
        jax.block_until_ready(anew(*data, key_paths, n_paths))
        again.append(1e3 * (time.perf_counter() - begun))
    print(f"  all from the start         {np.median(again):8.1f}")
    X = times[:end, None]
    difference = float(jnp.abs(whole.mean(X) - posterior.mean(X)).max())
    print(f"The mean differs from that given all months at once by {difference:.0e} ppm.")
    assert difference < 1e-6

    # Saved, and taken up again in arrays of the same shapes.
    with tempfile.TemporaryFile() as file:
        eqx.tree_serialise_leaves(file, (posterior, paths))
        file.seek(0)
        posterior, paths = eqx.tree_deserialise_leaves(file, (first, drawn))

    n, left_out = int(posterior.size), posterior.leave_one_out()
    assert n == end
    shares, size = {}, {}
    shares["the next month, forecast"], size["the next month, forecast"] = within(*np.transpose(errors))
    name = "each month by all others"
    shares[name], size[name] = within(y[:n] - left_out.mean[:n], np.sqrt(left_out.variance[:n]))
    assert abs(size[name] - 1) < 0.2
    pit = np.asarray(scores.loo_pit(paths, posterior, key_pit))
    shares["the same by the paths"] = [np.mean(np.abs(2 * pit - 1) < level) for level in LEVELS]

    # A window of as many months as there were at first moves along the record.
    later = slice(n_start, end)
    (windowed, _), moved = slide(first, drawn, jnp.asarray(times[later]), jnp.asarray(y[later]), keys[later])
    assert int(windowed.size) == n_start
    begun = time.perf_counter()
    jax.block_until_ready(slide(first, drawn, jnp.asarray(times[later]), jnp.asarray(y[later]), keys[later]))
    each = 1e3 * (time.perf_counter() - begun) / (end - n_start)
    name = f"the next month by the last {n_start}"
    shares[name], size[name] = within(*moved)
    print(f"\nA window of {n_start} months moves on by one in {each:.1f} ms.")
    print(f"\n{'Observations in the central intervals of':42s}" + "".join(f"{level:8.0%}" for level in LEVELS), end="")
    print("   root mean square, in deviations")
    for name, found in shares.items():
        print(f"  {name:40s}" + "".join(f"{share:8.0%}" for share in found), end="")
        print(f"{size[name]:10.2f}" if name in size else "")

    # And the last months alone: all others given back.
    n, posterior, paths = at_last
    alone = paths.without(posterior, np.arange(n - WINDOW))
    panels.append(("the last three years alone", np.arange(n - WINDOW, n), alone))
    folder.mkdir(parents=True, exist_ok=True)
    forecast = lambda x: np.asarray(first.mean(x[:, None]))
    plot(panels, times, y, forecast).savefig(folder / "streaming.png", dpi=130)
    print(f"\nFigure: {folder / 'streaming.png'}\nDone in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="fewer months and paths")
    parser.add_argument("--figures", type=pathlib.Path, default=FIGURES, help="folder for the figures")
    arguments = parser.parse_args()
    main(arguments.fast, arguments.figures)
