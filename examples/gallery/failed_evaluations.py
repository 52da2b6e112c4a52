"""What to do with runs that fail? Where they fail is learnt beside what they give.

A reaction that gives off heat runs the faster the hotter it is. Temperature of the coolant and concentration of the charge
are to be chosen, for the largest yield; where the heat is not carried off in time the reaction runs away, and the run is
stopped without a result. The best settings lie at the edge of these. A run that was stopped is NaN: it is left out of the
objective by a mask, and is an observation of something else, of which a second process learns where runs fail. The search
that takes both is held against one that forgets failures, and one that puts the worst value seen in their place.

    python examples/gallery/failed_evaluations.py [--fast] [--figures DIR]
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
from jax.scipy.special import log_ndtr

import pathwise_gp as pgp
from pathwise_gp import acquisition

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")

FIGURES = pathlib.Path(__file__).parents[1] / "figures"
BLUE, ORANGE, GREY = "#2b6cb0", "#c05621", "#4a5568"
KINDS = {"learnt": BLUE, "worst value": ORANGE, "left out": GREY}
BOX = jnp.asarray([[0.0, 0.0], [1.0, 1.0]])
LOW, HIGH = np.asarray([-2.5, 0.5]), np.asarray([1.0, 3.0])  # temperature of the coolant, concentration of the charge
FIRST, NOISE = 6, 1e-4


def simulate(x):
    """−b at the end of a → b → waste, by Heun's rule; NaN where the temperature passes a limit."""
    coolant, charge = LOW + (HIGH - LOW) * x

    def rates(state):
        a, b, temperature = state
        made, spoilt = a * jnp.exp(temperature), 0.02 * b * jnp.exp(1.6 * temperature)
        return jnp.stack([-made, made - spoilt, 3 * made - 4 * (temperature - coolant)])

    def step(_, carry):
        state, top = carry
        k = rates(state)
        state = state + 0.005 * (k + rates(state + 0.01 * k))
        return state, jnp.maximum(top, state[2])

    start = jnp.stack([charge, jnp.zeros_like(charge), coolant])
    state, top = jax.lax.fori_loop(0, 400, step, (start, coolant))
    return jnp.where(top < 1.5, -state[1], jnp.nan)  # also where `top` is NaN


class Probit(eqx.Module):
    """failed ~ Bernoulli(Φ(c)), for the runs that were made."""

    made: jax.Array

    def __call__(self, c):
        return dist.Bernoulli(logits=log_ndtr(c) - log_ndtr(-c)).mask(self.made)


def log_prior(prior, _):
    return jnp.sum(dist.LogNormal(-1.0, 0.5).log_prob(prior.kernel.lengthscale))


@eqx.filter_jit
def processes(X, y, made, key):
    """Paths of the objective, and of c, which is above 0 where runs fail. X is filled up to the number of all runs, so that
    one program serves them all."""
    failed, key_f, key_c = jnp.isnan(y), *jax.random.split(key)
    mask = made & ~failed
    prior = pgp.GPPrior(kernel=pgp.Matern(2.5, 1.0, jnp.full(2, 0.4)), X=X, mean=jnp.mean(y, where=mask))
    best = pgp.fit(prior, y, NOISE, mask, learn_noise=False, log_prior=log_prior, max_steps=50)
    posterior = best.prior.condition(y, NOISE, mask)
    paths = pgp.PathwiseSampler(posterior, n_features=512).sample_paths(key_f, 128)
    prior = pgp.GPPrior(kernel=pgp.Matern(2.5, 100.0, 0.6), X=X, mean=-1.0, jitter=1e-4)
    return paths, pgp.laplace(prior, failed, Probit(made)).sample_paths(key_c, 128, 512)


@eqx.filter_jit
def propose(paths, c, best, h, key):
    gain = acquisition.LogConstrainedExpectedImprovement(paths, constraints=c, best=best, bandwidth=h)
    return gain.optimise(BOX, key, n_screen=256, n_restarts=4, max_steps=50).points[0]


def search(kind, key, n_runs):
    """Inputs and values of all runs, of which the first few are the same for every kind."""
    key_first, *keys = jax.random.split(key, 1 + n_runs)
    X = jax.random.uniform(key_first, (n_runs, 2))
    y = jax.jit(jax.vmap(simulate))(X)
    # Φ(−c/h) with h = 1 is the probability that a run succeeds; with a wide h it is the same everywhere.
    h = jnp.asarray(1.0 if kind == "learnt" else 1e6)
    for t in range(FIRST, n_runs):
        made = jnp.arange(n_runs) < t
        worst = jnp.nanmax(jnp.where(made, y, jnp.nan))
        seen = jnp.where(jnp.isnan(y), worst, y) if kind == "worst value" else y
        key_paths, key_search = jax.random.split(keys[t])
        paths, c = processes(X, seen, made, key_paths)
        x = propose(paths, c, jnp.nanmin(jnp.where(made, seen, jnp.inf)), h, key_search)
        X, y = X.at[t].set(x), y.at[t].set(simulate(x))
    return np.asarray(X), np.asarray(y)


def plot(grid, values, chance, X, y, traces, low):
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9), constrained_layout=True, width_ratios=[1.1, 1])
    axes, at = np.stack([grid, grid], axis=1) * (HIGH - LOW) + LOW, X * (HIGH - LOW) + LOW
    shown = left.contourf(*axes.T, -values, 14, cmap="Blues")
    figure.colorbar(shown, ax=left, label="yield")
    lines = left.contour(*axes.T, chance, [0.1, 0.5, 0.9], colors=ORANGE, linewidths=1.2)
    left.clabel(lines, fmt="%.1f", fontsize=8)
    failed = np.isnan(y)
    left.plot(*at[~failed].T, "o", color="black", ms=4, label="runs")
    left.plot(*at[failed].T, "x", color=ORANGE, ms=6, label="failed runs")
    left.set(xlabel="temperature of the coolant", ylabel="concentration of the charge")
    left.set_title("Probability of failure, learnt; in white runs fail")
    left.legend(frameon=False, fontsize=8, loc="lower left")
    n_searches, n_runs = traces["learnt"].shape
    runs = np.arange(FIRST, n_runs + 1)
    for kind, trace in traces.items():
        lower, middle, upper = np.quantile(trace[:, FIRST - 1 :] - low, [0.25, 0.5, 0.75], axis=0)
        right.fill_between(runs, lower, upper, color=KINDS[kind], alpha=0.15, lw=0)
        right.plot(runs, middle, color=KINDS[kind], label=kind)
    right.set(xlabel="runs", ylabel="regret", title=f"Median and quartiles of {n_searches} searches")
    right.set_ylim(bottom=0)
    right.legend(frameon=False, fontsize=8, title="failed runs")
    return figure


def main(fast: bool, folder: pathlib.Path) -> None:
    started = time.perf_counter()
    n_searches, n_runs = (1, 8) if fast else (12, 20)
    grid = np.linspace(0, 1, 60 if fast else 200)
    mesh = jnp.stack(jnp.meshgrid(jnp.asarray(grid), jnp.asarray(grid)), axis=-1)
    values = np.asarray(jax.jit(jax.vmap(jax.vmap(simulate)))(mesh))
    low = np.nanmin(values)
    print(f"{np.isnan(values).mean():.0%} of all settings fail; the best yield is {-low:.3f}\n")

    runs, traces, shown = {}, {}, (min(10, n_runs), n_runs)
    print(f"{'':12s} proposals that fail   regret after {shown[0]} runs (quartiles)   after {shown[1]}")
    for kind in KINDS:
        runs[kind] = [search(kind, key, n_runs) for key in jax.random.split(jax.random.key(0), n_searches)]
        of_runs = np.stack([y for _, y in runs[kind]])
        traces[kind] = np.minimum.accumulate(np.where(np.isnan(of_runs), np.inf, of_runs), axis=1)
        line = f"{kind:12s} {np.isnan(of_runs)[:, FIRST:].mean():19.0%}"
        for t in shown:
            lower, middle, upper = np.quantile(traces[kind][:, t - 1] - low, [0.25, 0.5, 0.75])
            line += f"   {middle:.3f} ({lower:.3f} to {upper:.3f})"
        print(line)

    X, y = runs["learnt"][0]
    _, c = processes(X, y, jnp.ones(n_runs, bool), jax.random.key(1))
    succeeds = acquisition.ProbabilityOfFeasibility(c, bandwidth=1.0)
    chance = 1 - np.asarray(succeeds(mesh))
    right = np.mean((chance > 0.5) == np.isnan(values))
    print(f"\nAfter {n_runs} runs the more probable answer is right for {right:.0%} of all settings")

    folder.mkdir(parents=True, exist_ok=True)
    plot(grid, values, chance, X, y, traces, low).savefig(folder / "failed_evaluations.png", dpi=130)
    print(f"\nFigure: {folder / 'failed_evaluations.png'}\nDone in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="one short search of each kind")
    parser.add_argument("--figures", type=pathlib.Path, default=FIGURES, help="folder for the figures")
    arguments = parser.parse_args()
    main(arguments.fast, arguments.figures)
