"""What is an integral worth, from few values of the integrand? Bayesian quadrature, beside quasi-Monte Carlo.

The integral of a Gaussian process is a normal number, whose mean and variance given values of the process are in closed
form. Integrands of four of Genz's families, with parameters at random, are evaluated at the first points of a scrambled Sobol
sequence. Their mean is the estimate of quasi-Monte Carlo; the posterior of the integral given the same values, with
hyperparameters of maximum likelihood, is that of Bayesian quadrature. Errors of both are measured, and how often the
integral lies in the posterior's central intervals.

    python examples/gallery/bayesian_quadrature.py [--fast] [--figures DIR]
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
from scipy.stats import norm, qmc

import pathwise_gp as pgp
from pathwise_gp import calculus

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")

FIGURES = pathlib.Path(__file__).parents[1] / "figures"
BLUE, ORANGE, GREY = "#2b6cb0", "#c05621", "#4a5568"
COLOURS = {"Sobol": GREY, "RBF": BLUE, "Matérn": ORANGE}
BOX = jnp.asarray([[0.0, 0.0], [1.0, 1.0]])
NOISE = 1e-8  # of values with variance 1: none, but for rounding
LEVELS = np.linspace(0.02, 0.98, 49)

# Of how hard an integrand is in each dimension, a, which sums to 1, and where it lies, u; Genz's constants.
GENZ = {
    "oscillatory": lambda X, a, u: jnp.cos(2 * jnp.pi * u[0] + 9 * X @ a),
    "product peak": lambda X, a, u: jnp.prod(1 / ((7.25 * a) ** -2 + (X - u) ** 2), axis=-1),
    "corner peak": lambda X, a, u: (1 + 1.85 * X @ a) ** -3,
    "Gaussian": lambda X, a, u: jnp.exp(-jnp.sum((7.03 * a * (X - u)) ** 2, axis=-1)),
}


def kernels():
    """Both have closed forms for integrals over boxes; Matérn kernels as products over the dimensions."""
    along = [pgp.ActiveDims(pgp.Matern(2.5, 1.0, 0.5), (i,)) for i in range(2)]
    return {"RBF": pgp.RBF(1.0, jnp.full(2, 0.5)), "Matérn": along[0] * along[1]}


@eqx.filter_jit
def quadrature(kernel, X, y, counts):
    """Mean and standard deviation of the integral given the first so many values, `counts functions`."""

    def given(arguments):
        X, y, mask = arguments
        centre, spread = jnp.mean(y, where=mask), jnp.std(y, where=mask)
        values = (y - centre) / spread
        prior = pgp.GPPrior(kernel=kernel, X=X, mean=0.0)
        found = pgp.fit(prior, values, NOISE, mask, learn_noise=False, max_steps=60)
        posterior = found.prior.condition(values, NOISE, mask)
        integral = pgp.Integral(BOX)
        return centre + spread * posterior.mean(integral)[0], spread * jnp.sqrt(posterior.variance(integral)[0])

    # One program serves all counts: what has not been evaluated is masked.
    masks = jnp.arange(X.shape[1]) < counts[:, None]
    of_count = lambda mask: jax.lax.map(given, (X, y, jnp.broadcast_to(mask, y.shape)))
    return jax.lax.map(of_count, masks)


def integrands(rng, n_functions, n_points):
    """Points and values of each integrand, its integral, and its standard deviation over the box."""
    rule = calculus.gauss_legendre(BOX, 64)  # exact to rounding
    found = []
    for function in GENZ.values():
        a = rng.uniform(size=(n_functions, 2))
        a, u = jnp.asarray(a / a.sum(axis=1, keepdims=True)), jnp.asarray(rng.uniform(size=(n_functions, 2)))
        X = jnp.asarray(np.stack([qmc.Sobol(2, rng=rng).random(n_points) for _ in range(n_functions)]))
        values = jax.vmap(lambda a, u, function=function: function(rule.points, a, u))(a, u)
        truth = values @ rule.weights
        spread = jnp.sqrt((values - truth[:, None]) ** 2 @ rule.weights)
        found.append((X, jax.vmap(function)(X, a, u), truth, spread))
    return [jnp.concatenate(arrays) for arrays in zip(*found, strict=True)]


def plot(counts, errors, coverages):
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True, width_ratios=[1.15, 1])
    for name, of_counts in errors.items():
        lower, middle, upper = np.quantile(of_counts, [0.25, 0.5, 0.75], axis=1)
        left.fill_between(counts, lower, upper, color=COLOURS[name], alpha=0.15, lw=0)
        label = "quasi-Monte Carlo" if name == "Sobol" else f"Bayesian quadrature, {name} kernel"
        left.plot(counts, middle, "o-", ms=4, color=COLOURS[name], label=label)
    left.set(xscale="log", yscale="log", xlabel="evaluations", ylabel="error of the integral")
    left.set_xticks(counts, [str(n) for n in counts])
    left.minorticks_off()
    left.set_title(f"Median and quartiles of {errors['Sobol'].shape[1]} integrands")
    left.legend(frameon=False, fontsize=9, loc="lower left")
    right.plot([0, 1], [0, 1], color="black", lw=0.8, ls=":")
    for name, of_counts in coverages.items():
        for i, style in ((0, "--"), (-1, "-")):
            label = f"{name} kernel, {counts[i]} evaluations"
            right.plot(LEVELS, of_counts[i], style, color=COLOURS[name], label=label)
    right.set(xlabel="level of the central interval", ylabel="integrals inside", xlim=(0, 1), ylim=(0, 1))
    right.set_title("Calibration of the posterior")
    right.legend(frameon=False, fontsize=9, loc="upper left")
    return figure


def main(fast: bool, folder: pathlib.Path) -> None:
    started = time.perf_counter()
    counts = np.asarray([8, 16] if fast else [8, 16, 32, 64])
    X, y, truth, spread = integrands(np.random.default_rng(0), 2 if fast else 32, counts[-1])
    # In units of the integrand's standard deviation, which is what plain Monte Carlo has with one evaluation.
    scaled = lambda estimates: np.asarray(jnp.abs(estimates - truth) / spread)
    errors = {"Sobol": scaled(jnp.stack([y[:, :n].mean(axis=1) for n in counts]))}
    coverages, inside = {}, {}
    for name, kernel in list(kernels().items())[: 1 if fast else 2]:
        mean, sd = quadrature(kernel, X, y, jnp.asarray(counts))
        errors[name] = scaled(mean)
        # The level of the smallest central interval that holds the integral.
        needed = 2 * norm.cdf(np.asarray(jnp.abs(mean - truth) / sd)) - 1
        coverages[name] = (needed[:, None, :] <= LEVELS[:, None]).mean(axis=2)
        inside[name] = needed <= 0.9

    print("median error      " + "".join(f"{n:10d}" for n in counts))
    for name, of_counts in errors.items():
        print(f"{name:18s}" + "".join(f"{np.median(e):10.1e}" for e in of_counts))
    print("\ninside 90 %")
    for name, of_counts in inside.items():
        print(f"{name:18s}" + "".join(f"{share:10.0%}" for share in of_counts.mean(axis=1)))
        for i, family in enumerate(GENZ):
            shares = of_counts.reshape(len(counts), len(GENZ), -1)[:, i].mean(axis=1)
            print(f"  {family:16s}" + "".join(f"{share:10.0%}" for share in shares))
    assert np.median(errors["RBF"][-1]) < np.median(errors["Sobol"][-1])

    folder.mkdir(parents=True, exist_ok=True)
    plot(counts, errors, coverages).savefig(folder / "bayesian_quadrature.png", dpi=130)
    print(f"\nFigure: {folder / 'bayesian_quadrature.png'}\nDone in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="few integrands, one kernel")
    parser.add_argument("--figures", type=pathlib.Path, default=FIGURES, help="folder for the figures")
    arguments = parser.parse_args()
    main(arguments.fast, arguments.figures)
