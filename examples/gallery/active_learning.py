"""Which five points to measure next? Batches that are chosen for what they tell together.

A function of two inputs is measured in rounds, five points at a time. Points where single predictions are least certain lie
close together and tell the same thing five times. A greedy batch conditions on each of its points before it chooses the
next, and maximises the expected information gain of all of them; the covariance it needs is that of paths. The gain of a
batch is estimated from paths in two ways, and both are held against the closed form.

    python examples/gallery/active_learning.py [--fast] [--figures DIR]
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

import pathwise_gp as pgp
from pathwise_gp import design

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")

FIGURES = pathlib.Path(__file__).parents[1] / "figures"
BLUE, ORANGE, GREY = "#2b6cb0", "#c05621", "#4a5568"
KERNEL, NOISE, BATCH, FIRST = pgp.Matern(2.5, 1.0, 0.4), 0.01, 5, 5
KINDS = ("greedy information gain", "largest variances", "at random")
TEST = jnp.stack(jnp.meshgrid(jnp.linspace(-1, 1, 15), jnp.linspace(-1, 1, 15)), axis=-1).reshape(-1, 2)


@eqx.filter_jit
def condition(X, y, mask, key, n_paths):
    """Posterior given the points measured so far (the others are masked, so that all rounds have one shape), and paths."""
    posterior = pgp.GPPrior(kernel=KERNEL, X=X, jitter=1e-8).condition(y, NOISE, mask)
    return posterior, pgp.PathwiseSampler(posterior, n_features=1024).sample_paths(key, n_paths)


@eqx.filter_jit
def choose(kind, paths, candidates, taken, key):
    """Indices of the next batch. What has been measured is left out by a noise that makes it worthless."""
    if kind == KINDS[0]:
        noise = jnp.where(taken, 1e12, NOISE)
        return design.greedy_batch(design.PathCovariance(paths), candidates, BATCH, noise).indices
    by_variance = kind == KINDS[1]
    score = design.path_variance(paths, candidates) if by_variance else jax.random.uniform(key, taken.shape)
    return jax.lax.top_k(jnp.where(taken, -jnp.inf, score), BATCH)[1]


def learn(kind, key, n_rounds, n_candidates, n_paths):
    """Errors after each round, and what was chosen in the first one."""
    key_f, key_noise, key_candidates, key_first, *keys = jax.random.split(key, 4 + n_rounds)
    truth = pgp.GPPrior(kernel=KERNEL, X=TEST).sample_paths(key_f, n_features=2048)[0]
    candidates = jax.random.uniform(key_candidates, (n_candidates, 2), minval=-1, maxval=1)
    y = truth(candidates) + np.sqrt(NOISE) * jax.random.normal(key_noise, (n_candidates,))
    chosen = [int(i) for i in jax.random.choice(key_first, n_candidates, (FIRST,), replace=False)]
    at_test, size, errors, first = truth(TEST), FIRST + BATCH * n_rounds, [], None
    for t, k in enumerate([*keys, keys[-1]]):
        key_paths, key_random = jax.random.split(jax.random.fold_in(k, t))
        index = jnp.asarray(chosen + [0] * (size - len(chosen)))
        mask = jnp.arange(size) < len(chosen)
        posterior, paths = condition(candidates[index], y[index], mask, key_paths, n_paths)
        errors.append(float(jnp.sqrt(jnp.mean((posterior.mean(TEST) - at_test) ** 2))))
        if t == n_rounds:
            break
        taken = jnp.zeros(n_candidates, bool).at[jnp.asarray(chosen)].set(True)
        batch = choose(kind, paths, candidates, taken, key_random)
        first = first or (posterior, paths, candidates, list(chosen), np.asarray(batch))
        chosen += [int(i) for i in batch]
    return errors, first


def plot(firsts, gains, errors):
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.9), constrained_layout=True, width_ratios=[1, 1, 1.2])
    axis = jnp.linspace(-1, 1, 60)
    mesh = jnp.stack(jnp.meshgrid(axis, axis), axis=-1)
    for axes, kind, colour in zip(panels, KINDS, (BLUE, ORANGE), strict=False):
        posterior, _, candidates, before, batch = firsts[kind]
        sd = np.sqrt(np.asarray(posterior.variance(mesh)))
        axes.contourf(axis, axis, sd, 12, cmap="Greys", alpha=0.6)
        axes.plot(*candidates[jnp.asarray(before)].T, "x", color="black", ms=6, label="measured")
        axes.plot(*candidates[jnp.asarray(batch)].T, "o", color=colour, ms=8, mec="white", label="the next five")
        axes.set(title=f"{kind}: {gains[kind]:.1f} nats", xlabel="$x_1$", aspect="equal")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False, fontsize=8)
    panels[0].set_ylabel("$x_2$")
    for kind, colour in zip(KINDS, (BLUE, ORANGE, GREY), strict=True):
        low, middle, high = np.quantile(errors[kind], [0.25, 0.5, 0.75], axis=0)
        measured = FIRST + BATCH * np.arange(len(middle))
        panels[2].fill_between(measured, low, high, color=colour, alpha=0.2, lw=0)
        panels[2].plot(measured, middle, "o-", color=colour, ms=3, lw=1.3, label=kind)
    panels[2].set(xlabel="measurements", ylabel="error (root mean square)")
    panels[2].set_ylim(bottom=0)
    panels[2].set_title(f"Median and quartiles of {len(errors[KINDS[0]])} functions")
    panels[2].legend(frameon=False, fontsize=8)
    return figure


def main(fast: bool, folder: pathlib.Path) -> None:
    started = time.perf_counter()
    n_functions, n_rounds, n_candidates, n_paths = (3, 4, 150, 128) if fast else (24, 8, 400, 256)
    errors, firsts, gains = {}, {}, {}
    for kind in KINDS:
        runs = [
            learn(kind, key, n_rounds, n_candidates, n_paths)
            for key in jax.random.split(jax.random.key(0), n_functions)
        ]
        errors[kind], firsts[kind] = np.asarray([e for e, _ in runs]), runs[0][1]

    print("Information of the first batch about the function, in nats: in closed form, from paths, and between the two")
    print("bounds of nested Monte Carlo, of which the lower cannot pass log 2000 = 7.6\n")
    likelihood = lambda f: dist.Normal(f, np.sqrt(NOISE))
    for kind in KINDS:
        posterior, _, candidates, _, batch = firsts[kind]
        points = candidates[batch]
        covariance = posterior.covariance(points)
        exact = float(0.5 * jnp.linalg.slogdet(jnp.eye(BATCH) + covariance / NOISE)[1])
        gains[kind] = exact
        paths = pgp.PathwiseSampler(posterior, n_features=2048).sample_paths(jax.random.key(1), 2000)
        gain = design.information_gain(paths, points, NOISE)
        lower = design.nested_information_gain(paths, points, likelihood, jax.random.key(2), contrastive=True)
        upper = design.nested_information_gain(paths, points, likelihood, jax.random.key(2))
        nested = f"{float(lower.value):.2f} ± {float(lower.standard_error):.2f} to {float(upper.value):.2f}"
        print(f"{kind:24s} {exact:6.2f} {float(gain.value):9.2f} ± {float(gain.standard_error):.2f}     {nested}")
        # Paths of so many features miss the posterior's covariance by a per cent or so.
        assert abs(gain.value - exact) < 4 * gain.standard_error + 0.02 * exact
    assert gains[KINDS[0]] > gains[KINDS[1]]

    print(f"\nMedian error after {FIRST} to {FIRST + BATCH * n_rounds} measurements, {n_functions} functions:")
    for kind in KINDS:
        print(f"{kind:24s} " + " ".join(f"{e:7.3f}" for e in np.median(errors[kind], axis=0)))

    folder.mkdir(parents=True, exist_ok=True)
    plot(firsts, gains, errors).savefig(folder / "active_learning.png", dpi=130)
    print(f"\nFigure: {folder / 'active_learning.png'}\nDone in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="fewer functions, rounds and paths")
    parser.add_argument("--figures", type=pathlib.Path, default=FIGURES, help="folder for the figures")
    arguments = parser.parse_args()
    main(arguments.fast, arguments.figures)
