"""Is a predictive law to be believed? Calibration of paths, and hyperparameters tuned on a proper score.

Data come from a known Gaussian process. Three posteriors, one of them with the right noise, predict new observations; their
PIT histograms and reliability curves tell which. Then the wrong one is tuned: paths are drawn inside the objective, the CRPS
of the observations they predict is differentiated through them, and gradient descent finds the hyperparameters.

    python examples/gallery/calibration.py [--fast] [--figures DIR]
"""

import argparse
import os
import pathlib
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import optax

import pathwise_gp as pgp
from pathwise_gp import scores

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")

FIGURES = pathlib.Path(__file__).parents[1] / "figures"
BLUE, ORANGE, GREY = "#2b6cb0", "#c05621", "#4a5568"
LENGTHSCALE, NOISE = 0.25, 0.04  # of the process that made the data, whose variance is 1
LEVELS = np.linspace(0.05, 0.95, 19)


def simulate(key, n):
    """Observations of one function at random inputs."""
    key_X, key_f, key_noise = jax.random.split(key, 3)
    X = jax.random.uniform(key_X, (n, 1), minval=-2, maxval=2)
    prior = pgp.GPPrior(kernel=pgp.RBF(1.0, LENGTHSCALE), X=X)
    f = prior.sample_paths(key_f, n_features=4096)[0]
    return X, scores.observe(f(X), NOISE, key_noise)


def predictions(theta, key, X, y, X_new, n_paths):
    """Values of paths at new inputs, and observations they predict there: differentiable in the hyperparameters."""
    lengthscale, variance, noise_var = jnp.exp(theta)
    key_paths, key_noise = jax.random.split(key)
    posterior = pgp.GPPrior(kernel=pgp.RBF(variance, lengthscale), X=X, jitter=1e-6).condition(y, noise_var)
    paths = pgp.PathwiseSampler(posterior, n_features=256).sample_paths(key_paths, n_paths)
    values = paths(X_new)
    return values, scores.observe(values, noise_var, key_noise)


def tune(theta, key, train, validation, n_steps):
    """Descends on the mean CRPS of the validation set, with other paths at every step."""
    optimiser = optax.adam(0.05)

    def loss(theta, key):
        _, draws = predictions(theta, key, *train, X_new=validation[0], n_paths=64)
        return scores.crps(draws, validation[1]).mean()

    @jax.jit
    def run(theta, key):
        def step(state, key):
            theta, inner = state
            value, slope = jax.value_and_grad(loss)(theta, key)
            updates, inner = optimiser.update(slope, inner)
            return (optax.apply_updates(theta, updates), inner), value

        return jax.lax.scan(step, (theta, optimiser.init(theta)), jax.random.split(key, n_steps))

    (theta, _), losses = run(theta, key)
    return theta, losses


def plot(names, pits, coverages, losses, levels):
    figure = plt.figure(figsize=(11, 6), constrained_layout=True)
    grid = figure.add_gridspec(2, 6)
    for j, (name, u, colour) in enumerate(zip(names, pits, (ORANGE, BLUE, GREY), strict=True)):
        axes = figure.add_subplot(grid[0, 2 * j : 2 * j + 2])
        axes.hist(u, bins=10, range=(0, 1), density=True, color=colour, alpha=0.8)
        axes.axhline(1, color="black", lw=0.8, ls=":")
        axes.set(title=name, xlabel="PIT", ylim=(0, 3.2), xlim=(0, 1))
        axes.set_ylabel("density" if j == 0 else "")
    left, right = figure.add_subplot(grid[1, :3]), figure.add_subplot(grid[1, 3:])
    left.plot([0, 1], [0, 1], color="black", lw=0.8, ls=":")
    for name, inside, colour in zip(names, coverages, (ORANGE, BLUE, GREY), strict=True):
        left.plot(LEVELS, inside, color=colour, lw=1.5, label=name)
    left.set(xlabel="level of the central interval", ylabel="observations inside", xlim=(0, 1), ylim=(0, 1))
    left.set_title("Reliability")
    left.legend(frameon=False, loc="upper left", fontsize=9)
    right.plot(losses, color=GREY, lw=0.8, label="of the validation set, while tuned")
    for (name, value), (colour, style) in zip(
        levels.items(), ((ORANGE, "-"), (BLUE, "-"), (BLUE, "--"), ("black", ":")), strict=True
    ):
        right.axhline(value, color=colour, ls=style, lw=1.2, label=f"new data, {name}: {value:.4f}")
    right.set(xlabel="step", ylabel="mean CRPS", title="Tuned on the CRPS, through the paths")
    right.legend(frameon=False, loc="center right", fontsize=9)
    return figure


def main(fast: bool, folder: pathlib.Path) -> None:
    started = time.perf_counter()
    n_new, n_paths, n_steps = (400, 100, 60) if fast else (3000, 1000, 300)
    key_data, key_paths, key_pit, key_tune = jax.random.split(jax.random.key(0), 4)
    X, y = simulate(key_data, 160 + n_new)
    train, validation, new = (X[:80], y[:80]), (X[80:160], y[80:160]), (X[160:], y[160:])
    drawn = jax.jit(predictions, static_argnames="n_paths")

    # One function and 80 observations of it: the three posteriors differ in their noise alone.
    names, factors = ("noise four times too small", "the right noise", "noise four times too large"), (0.25, 1, 4)
    thetas = [jnp.log(jnp.asarray([LENGTHSCALE, 1.0, factor * NOISE])) for factor in factors]
    samples = [drawn(theta, key_paths, *train, new[0], n_paths=n_paths) for theta in thetas]
    pits = [np.asarray(scores.pit(draws, new[1], key_pit)) for _, draws in samples]
    coverages = [np.asarray(scores.coverage(draws, new[1], LEVELS)) for _, draws in samples]
    print("                              inside 50 %   inside 90 %   mean CRPS   mean log score")
    for name, theta, (values, draws), inside in zip(names, thetas, samples, coverages, strict=True):
        log_score = scores.log_score(values, new[1], jnp.exp(theta[2])).mean()
        crps = scores.crps(draws, new[1]).mean()
        print(f"{name:28s} {inside[9]:12.2f} {inside[17]:13.2f} {crps:11.4f} {log_score:13.3f}")
    # New observations share the errors of one fitted function, so the tolerance is wider than a binomial one.
    assert coverages[0][9] < 0.42 and abs(coverages[1][9] - 0.5) < 0.08 and coverages[2][9] > 0.62

    # From a noise four times too small and a lengthscale half as long as it should be.
    start = thetas[0] - jnp.log(jnp.asarray([2.0, 1.0, 1.0]))
    tuned, losses = tune(start, key_tune, train, validation, n_steps)
    lengthscale, variance, noise_var = jnp.exp(start)
    prior = pgp.GPPrior(kernel=pgp.RBF(variance, lengthscale), X=X[:160], jitter=1e-6)
    found = pgp.fit(prior, y[:160], noise_var)
    likely = jnp.log(jnp.stack([found.prior.kernel.lengthscale, found.prior.kernel.variance, found.noise_var]))
    by = {"start": start, "tuned": tuned, "maximum likelihood": likely, "the truth": thetas[1]}
    levels = {}
    print("\n                      lengthscale  variance  noise variance  CRPS of new data  inside 90 %")
    for name, theta in by.items():
        _, draws = drawn(theta, key_paths, *train, new[0], n_paths=n_paths)
        levels[name] = float(scores.crps(draws, new[1]).mean())
        values = np.exp(np.asarray(theta))
        inside = float(scores.coverage(draws, new[1], 0.9))
        print(f"{name:20s} {values[0]:12.3f} {values[1]:9.2f} {values[2]:15.4f} {levels[name]:17.4f} {inside:12.2f}")
    assert levels["tuned"] < levels["start"]
    print("A score of new observations needs no likelihood: it can be of any functional of the paths.")

    folder.mkdir(parents=True, exist_ok=True)
    figure = plot(names, pits, coverages, np.asarray(losses), levels)
    figure.savefig(folder / "calibration.png", dpi=130)
    print(f"\nFigure: {folder / 'calibration.png'}\nDone in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="less data and fewer steps")
    parser.add_argument("--figures", type=pathlib.Path, default=FIGURES, help="folder for the figures")
    arguments = parser.parse_args()
    main(arguments.fast, arguments.figures)
