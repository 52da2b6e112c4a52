"""How to say that a function only ever rises? Derivatives at a grid, under a probit likelihood.

A dose response is measured with noise at few doses, and is known to be monotone. Values and slopes of a Gaussian process are
sampled together by NUTS: the values under the normal likelihood of the measurements, the slopes at a grid under Φ(f′/ν),
which is 1 where a slope is well above zero and 0 where it is well below. Every draw goes on as a path. The same Gaussian
process without slopes, whose posterior is in closed form, is held against it, over several sets of data.

    python examples/gallery/monotone.py [--fast] [--figures DIR]
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
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import log_ndtr
from numpyro.infer import MCMC, NUTS

import pathwise_gp as pgp
from pathwise_gp import numpyro_bridge as bridge

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")

FIGURES = pathlib.Path(__file__).parents[1] / "figures"
BLUE, ORANGE = "#2b6cb0", "#c05621"
COLOURS = {"unconstrained": ORANGE, "monotone": BLUE}
NOISE = 0.04
SCALE = 0.05  # ν, in units of a slope
SLOPES_AT = jnp.linspace(0, 1, 31)[:, None]
GRID = jnp.linspace(0, 1, 151)[:, None]


def truth(x):
    """Hill's equation: a threshold, a rise, and a response that is nearly saturated."""
    return x**3 / (x**3 + 0.4**3)


def model(X, y, kernel):
    slopes_at = pgp.Derivative(SLOPES_AT, (0,))
    prior = pgp.GPPrior(kernel=kernel, X=[X, slopes_at], mean=0.5, jitter=1e-6)
    f, slope = bridge.gp_sample("u", prior)  # a list of functionals gives a block for each
    numpyro.factor("monotone", jnp.sum(log_ndtr(slope / SCALE)))
    numpyro.sample("y", dist.Normal(f, NOISE**0.5).to_event(1), obs=y)
    return prior


def log_prior(prior, _):
    return jnp.sum(dist.LogNormal(-1.0, 0.5).log_prob(prior.kernel.lengthscale))


@eqx.filter_jit
def learn(X, y):
    """The kernel of largest posterior density, which knows nothing of slopes."""
    prior = pgp.GPPrior(kernel=pgp.Matern(2.5, 0.5, 0.4), X=X, mean=0.5)
    return pgp.fit(prior, y, NOISE, learn_noise=False, log_prior=log_prior, max_steps=50).prior.kernel


@eqx.filter_jit
def unconstrained(X, y, kernel, key, n_paths):
    posterior = pgp.GPPrior(kernel=kernel, X=X, mean=0.5).condition(y, NOISE)
    return pgp.PathwiseSampler(posterior, n_features=512).sample_paths(key, n_paths)(GRID)


def rising(values):
    """Of each path whether it falls nowhere by more than a hundredth of the range of the truth."""
    return np.all(np.maximum.accumulate(values, axis=1) - values < 0.01, axis=1)


def plot(X, y, drawn):
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.9), constrained_layout=True, sharey=True)
    grid = np.asarray(GRID)[:, 0]
    for axis, (name, values) in zip(axes, drawn.items(), strict=True):
        lower, upper = np.quantile(values, [0.05, 0.95], axis=0)
        axis.fill_between(grid, lower, upper, color=COLOURS[name], alpha=0.15, lw=0, label="90 % of paths")
        axis.plot(grid, values[:15].T, color=COLOURS[name], lw=0.6, alpha=0.7)
        axis.plot(grid, values.mean(axis=0), color=COLOURS[name], lw=2, label="mean")
        axis.plot(grid, truth(grid), "--", color="black", lw=1.2, label="truth")
        axis.plot(X[:, 0], y, ".", color="black", ms=7, label="measurements")
        axis.set(title=f"{name}: {rising(values).mean():.0%} of paths rise", xlabel="dose", xlim=(-0.02, 1.02))
    axes[0].set_ylabel("response")
    axes[0].set_ylim(-0.4, 1.6)
    axes[0].legend(frameon=False, fontsize=9, loc="upper left")
    axes[1].plot(np.asarray(SLOPES_AT)[:, 0], np.full(len(SLOPES_AT), -0.3), "|", color=BLUE, label="slopes looked at")
    axes[1].legend(frameon=False, fontsize=9, loc="upper left")
    return figure


def main(fast: bool, folder: pathlib.Path) -> None:
    started = time.perf_counter()
    n_sets, n_draws = (1, 20) if fast else (6, 250)
    mcmc = MCMC(
        NUTS(model, max_tree_depth=4 if fast else 8), num_warmup=n_draws, num_samples=n_draws, progress_bar=False
    )
    grid, rng = np.asarray(GRID)[:, 0], np.random.default_rng(0)
    found = {name: [] for name in COLOURS}
    shown = []
    for key in jax.random.split(jax.random.key(0), n_sets):
        x = np.sort(rng.uniform(size=15))
        X, y = jnp.asarray(x)[:, None], jnp.asarray(truth(x) + NOISE**0.5 * rng.normal(size=15))
        kernel = learn(X, y)
        mcmc.run(key, X, y, kernel)
        draws = {"u.white": mcmc.get_samples()["u.white"]}
        paths = bridge.posterior_paths(model, draws, key, X, y, kernel, n_features=512)
        drawn = {"unconstrained": unconstrained(X, y, kernel, key, n_draws), "monotone": paths(GRID)[:, 0]}
        drawn = {name: np.asarray(values) for name, values in drawn.items()}
        for name, values in drawn.items():
            lower, upper = np.quantile(values, [0.05, 0.95], axis=0)
            rmse = np.sqrt(np.mean((values.mean(axis=0) - truth(grid)) ** 2))
            inside = np.mean((lower <= truth(grid)) & (truth(grid) <= upper))
            found[name].append((rising(values).mean(), rmse, inside, np.mean(upper - lower)))
        shown.append((x[:, None], np.asarray(y), drawn))

    print(f"means of {n_sets} sets   paths that rise   RMSE (and in each set)   inside 90 %   width of 90 %")
    for name, rows in found.items():
        rises, rmse, inside, width = np.transpose(rows)
        each = " ".join(f"{r:.3f}" for r in rmse)
        print(f"{name:18s} {rises.mean():13.0%} {rmse.mean():10.3f} ({each}) {inside.mean():8.0%} {width.mean():8.2f}")
    better = np.asarray(found["monotone"])[:, 1] < np.asarray(found["unconstrained"])[:, 1]
    print(f"The monotone one is nearer to the truth in {better.sum()} of {n_sets} sets")
    assert np.mean([row[0] for row in found["monotone"]]) > 0.6

    folder.mkdir(parents=True, exist_ok=True)
    plot(*shown[0]).savefig(folder / "monotone.png", dpi=130)
    print(f"\nFigure: {folder / 'monotone.png'}\nDone in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="one set of data, few draws")
    parser.add_argument("--figures", type=pathlib.Path, default=FIGURES, help="folder for the figures")
    arguments = parser.parse_args()
    main(arguments.fast, arguments.figures)
