"""A path as a forward model: inference through an emulator of an expensive simulator, with the emulator's own uncertainty.

The simulator is an epidemic (susceptible, infected, recovered), run a dozen times. A Gaussian process in infection rate and
time emulates the logarithm of the infected share, and a rate is inferred from noisy counts by NUTS, which differentiates
through the emulator.
Plugging in the posterior mean of the emulator takes it for the truth. Each path is an emulator that could be right: NUTS
on each, pooled, carries what is not known of the simulator over to the rate; one chain in which the index of the path is
summed out weights them by their evidence. In one dimension everything can be checked by quadrature, and many data sets show
how often a 90 % interval holds the true rate.

    python examples/gallery/surrogate_inference.py [--fast] [--figures DIR]
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
from numpyro.infer import MCMC, NUTS

import pathwise_gp as pgp

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")

FIGURES = pathlib.Path(__file__).parents[1] / "figures"
BLUE, ORANGE, GREY = "#2b6cb0", "#c05621", "#4a5568"
LOW, HIGH = 0.8, 2.4  # of the infection rate, a week
TIMES = jnp.asarray([3.0, 5.0, 7.0, 9.0, 11.0])  # weeks, when infected people are counted
SD = 0.02  # of the counted share
GRID = jnp.linspace(LOW, HIGH, 401)
LEVEL = 0.9


def simulator(rate, time):
    """The infected share after some weeks: recovery in two weeks, one in a thousand infected at the start."""

    def step(state, _):
        susceptible, infected = state
        new, h = rate * susceptible * infected, time / 200
        return (susceptible - h * new, infected + h * (new - 0.5 * infected)), None

    (_, infected), _ = jax.lax.scan(step, (jnp.asarray(0.999), jnp.asarray(0.001)), length=200)
    return infected


simulate = jax.jit(jax.vmap(simulator))


def runs(key, n):
    """Rates and times, spread evenly, at which the simulator is run."""
    shift = jax.random.uniform(key, (2,))
    points = (jnp.arange(n)[:, None] * jnp.asarray([[0.7548776662, 0.5698402910]]) + shift[None, :]) % 1.0
    X = jnp.asarray([LOW, 2.0])[None, :] + points * jnp.asarray([HIGH - LOW, 10.0])[None, :]
    return X, jnp.log(simulate(X[:, 0], X[:, 1]))


@eqx.filter_jit
def emulate(X, y, key, n_paths):
    """Paths of the emulator, with hyperparameters that are most probable."""
    kernel = pgp.RBF(jnp.asarray(4.0), jnp.asarray([0.8, 4.0]))
    prior = pgp.GPPrior(kernel=kernel, X=X, mean=-3.0, jitter=1e-6)

    def log_prior(here, _):
        ratios = jnp.append(here.kernel.lengthscale / kernel.lengthscale, here.kernel.variance / kernel.variance)
        return -0.5 * jnp.sum((jnp.log(ratios) / 0.4) ** 2)

    found = pgp.fit(prior, y, 1e-6, fields="kernel.*", learn_noise=False, log_prior=log_prior, max_steps=60)
    posterior = found.prior.condition(y, 1e-6)
    return pgp.PathwiseSampler(posterior, n_features=1024).sample_paths(key, n_paths)


def at(rate):
    """Inputs of the emulator for rates `*n`: each at all times, `*n t 2`."""
    rate = jnp.broadcast_to(rate[..., None], (*rate.shape, len(TIMES)))
    return jnp.stack([rate, jnp.broadcast_to(TIMES, rate.shape)], axis=-1)


def model(forward, counts):
    rate = numpyro.sample("rate", dist.Uniform(LOW, HIGH))
    numpyro.sample("counts", dist.Normal(jnp.exp(forward(at(rate))), SD).to_event(1), obs=counts)


@eqx.filter_jit
def by_nuts(path, counts, key):
    """Rates from NUTS with one path as the forward model: compiled once, as all paths have one structure."""
    mcmc = MCMC(NUTS(model), num_warmup=100, num_samples=100, progress_bar=False)
    mcmc.run(key, path, counts)
    return mcmc.get_samples()["rate"]


@eqx.filter_jit
def by_quadrature(values, counts):
    """Posterior probabilities on the grid for forward models with values `*s grid t`, and log evidences, `*s`."""
    log_likelihood = dist.Normal(values, SD).log_prob(counts).sum(axis=-1)
    evidence = jax.nn.logsumexp(log_likelihood, axis=-1)
    return jnp.exp(log_likelihood - evidence[..., None]), evidence


def joint_model(paths, counts):
    """Rate and emulator together: which path it is has an even prior, and is summed out."""
    rate = numpyro.sample("rate", dist.Uniform(LOW, HIGH))
    each = dist.Normal(jnp.exp(paths(at(rate))), SD).log_prob(counts).sum(axis=-1)  # of every path, s
    numpyro.factor("counts", jax.nn.logsumexp(each) - jnp.log(len(each)))


def jointly(paths, counts, key, n_samples):
    mcmc = MCMC(NUTS(joint_model), num_warmup=300, num_samples=n_samples, progress_bar=False)
    mcmc.run(key, paths, counts)
    return mcmc.get_samples()["rate"]


def place(probabilities, rate):
    """The probability below a rate."""
    return float(jnp.sum(jnp.where(rate > GRID, probabilities, 0.0)))


def plot(paths, n_runs, rate, counts, densities, chains, places):
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.8), constrained_layout=True)
    weeks = jnp.linspace(2, 12, 80)
    inputs = jnp.stack([jnp.full_like(weeks, rate), weeks], axis=1)
    left.plot(weeks, jnp.exp(paths(inputs)[:40]).T, color=BLUE, lw=0.5, alpha=0.5)
    left.plot([], [], color=BLUE, label="paths of the emulator")
    left.plot(weeks, jnp.exp(paths.mean_path(inputs)), color=ORANGE, lw=1.5, label="its mean")
    left.plot(weeks, simulate(inputs[:, 0], weeks), color="black", lw=1.2, label="the simulator")
    left.plot(TIMES, counts, "o", color="black", ms=4, label="counts")
    left.set(xlabel="weeks", ylabel="infected share", title=f"At the true rate, {n_runs} runs in all")
    left.legend(frameon=False, fontsize=8)
    width = float(GRID[1] - GRID[0])
    middle.hist(chains, 60, density=True, color=BLUE, alpha=0.25, label="NUTS on each path, pooled")
    for (name, p), (colour, style) in zip(
        densities.items(), (("black", "-"), (ORANGE, "-"), (BLUE, "-"), (BLUE, ":")), strict=True
    ):
        middle.plot(GRID, p / width, color=colour, ls=style, lw=1.4, label=name)
    middle.axvline(rate, color=GREY, lw=0.8, ls=":")
    middle.set(xlim=(rate - 0.2, rate + 0.4), xlabel="infection rate", ylabel="density")
    middle.set_title("Posterior of the rate")
    middle.legend(frameon=False, fontsize=8, loc="upper right")
    for (name, u), (colour, style) in zip(
        places.items(), (("black", "-"), (ORANGE, "-"), (BLUE, "-"), (BLUE, ":")), strict=True
    ):
        right.step(np.sort(u), np.arange(1, len(u) + 1) / len(u), color=colour, ls=style, where="post", label=name)
    right.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
    right.set(xlabel="posterior probability below the true rate", ylabel="share of data sets", xlim=(0, 1))
    right.set_title("Calibrated is the diagonal")
    right.legend(frameon=False, fontsize=8)
    return figure


def main(fast: bool, folder: pathlib.Path) -> None:
    started = time.perf_counter()
    n_runs, n_paths, n_chains, n_sets = (12, 128, 3, 10) if fast else (12, 512, 40, 120)
    key_runs, key_paths, key_counts, key_nuts, key_sets = jax.random.split(jax.random.key(3), 5)
    rate = 1.5

    X, y = runs(key_runs, n_runs)
    paths = emulate(X, y, key_paths, n_paths)
    exact = lambda rates: simulate(*(at(rates).reshape(-1, 2).T)).reshape(-1, len(TIMES))
    counts = exact(jnp.asarray([rate]))[0] + SD * jax.random.normal(key_counts, TIMES.shape)

    # Quadrature over the rate. Each path makes a posterior; pooled evenly, or by how well it explains the counts: the
    # posterior of rate and emulator together.
    truly, _ = by_quadrature(exact(GRID), counts)
    plugged, _ = by_quadrature(jnp.exp(paths.mean_path(at(GRID))), counts)
    each, evidence = by_quadrature(jnp.exp(paths(at(GRID))), counts)
    weights = jax.nn.softmax(evidence)
    densities = {
        "the simulator itself": truly,
        "the mean plugged in": plugged,
        "paths, pooled evenly": each.mean(axis=0),
        "paths, by their evidence": weights @ each,
    }

    # The same by NUTS.
    keys = jax.random.split(key_nuts, n_chains)
    chains = [np.asarray(by_nuts(path, counts, key)) for path, key in zip(paths[:n_chains], keys, strict=True)]
    moments = lambda p: (float(p @ GRID), float(jnp.sqrt(p @ GRID**2 - (p @ GRID) ** 2)))
    print(f"True rate {rate}; {n_runs} runs of the simulator. Posterior of the rate:\n")
    print("                             mean      sd")
    for name, p in densities.items():
        print(f"{name:24s} {moments(p)[0]:8.4f} {moments(p)[1]:7.4f}")
    print(f"NUTS on {n_chains:3d} paths        {np.mean(chains):8.4f} {np.std(chains):7.4f}")
    for chain, p in zip(chains, each, strict=False):
        mean, sd = moments(p)
        # A hundred draws with a tenth as many that count at the worst.
        assert abs(chain.mean() - mean) < 4.5 * sd / np.sqrt(10)

    # By its evidence, without quadrature: one chain for all paths, as it is done with many parameters.
    joint = np.asarray(jointly(paths, counts, jax.random.fold_in(key_nuts, 1), 300 if fast else 2000))
    print(f"NUTS on all together     {joint.mean():8.4f} {joint.std():7.4f}")
    mean, sd = moments(densities["paths, by their evidence"])
    assert abs(joint.mean() - mean) < 4.5 * sd / np.sqrt(0.1 * len(joint))

    # Many data sets, rates and runs of the simulator: is the place of the true rate uniform?
    places, sizes = {name: [] for name in densities}, []
    for key in jax.random.split(key_sets, n_sets):
        key_rate, key_runs, key_paths, key_counts = jax.random.split(key, 4)
        true = jax.random.uniform(key_rate, (1,), minval=LOW + 0.1, maxval=HIGH - 0.1)
        counts_here = exact(true)[0] + SD * jax.random.normal(key_counts, TIMES.shape)
        emulators = emulate(*runs(key_runs, n_runs), key_paths, n_paths)
        each, evidence = by_quadrature(jnp.exp(emulators(at(GRID))), counts_here)
        sizes.append(float(1 / jnp.sum(jax.nn.softmax(evidence) ** 2)))
        laws = (
            by_quadrature(exact(GRID), counts_here)[0],
            by_quadrature(jnp.exp(emulators.mean_path(at(GRID))), counts_here)[0],
            each.mean(axis=0),
            jax.nn.softmax(evidence) @ each,
        )
        for kept, p in zip(places.values(), laws, strict=True):
            kept.append(place(p, true[0]))
    print(f"\nOf {n_sets} data sets, share whose central {LEVEL:.0%} interval holds the true rate:")
    inside = {name: float(np.mean(np.abs(np.asarray(u) - 0.5) <= LEVEL / 2)) for name, u in places.items()}
    for name, share in inside.items():
        print(f"{name:26s} {share:.2f}")
    low, middle, high = np.quantile(sizes, [0.1, 0.5, 0.9])
    print(
        f"\nEffective number of the {n_paths} paths by evidence: {middle:.0f} (median; 80 % from {low:.0f} to {high:.0f})"
    )
    few = np.asarray(sizes) < middle
    kept = np.abs(np.asarray(places["paths, by their evidence"]) - 0.5) <= LEVEL / 2
    print(f"With fewer than that {kept[few].mean():.2f} of the intervals hold it, with more {kept[~few].mean():.2f}.")
    assert inside["the mean plugged in"] < inside["paths, by their evidence"]

    folder.mkdir(parents=True, exist_ok=True)
    figure = plot(paths, n_runs, rate, counts, densities, np.concatenate(chains), places)
    figure.savefig(folder / "surrogate_inference.png", dpi=130)
    print(f"\nFigure: {folder / 'surrogate_inference.png'}\nDone in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="fewer paths, chains and data sets")
    parser.add_argument("--figures", type=pathlib.Path, default=FIGURES, help="folder for the figures")
    arguments = parser.parse_args()
    main(arguments.fast, arguments.figures)
