"""Paths for what expects a regressor, or an ensemble of predictors.

A regressor of scikit-learn that draws paths underneath goes into a pipeline and is cross-validated like any other. The
paths of three models with different kernels are members of one predictor: with equal weights, or with those under which the
mixture foresees each observation best given all others (stacking). Over many splits of the data: is a mixture better
than the model that is best by the same measure?

    python examples/gallery/ensembles.py [--fast] [--figures DIR]
"""

import argparse
import os
import pathlib

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import pathwise_gp as pgp
from pathwise_gp.ensembles import Predictor
from pathwise_gp.estimator import PathwiseGPRegressor

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")

FIGURES = pathlib.Path(__file__).parents[1] / "figures"
BLUE, ORANGE, GREY = "#2b6cb0", "#c05621", "#4a5568"


WAYS = ("the best one", "equal weights", "stacking")


def kernels(d):
    scales = jnp.full(d, 3.0)
    return {
        "linear": pgp.Linear(0.1),
        "Matérn-5/2": pgp.Matern(2.5, 0.5, scales),
        "both": pgp.Linear(0.1) + pgp.Matern(2.5, 0.2, scales),
    }


class AboutStart(eqx.Module):
    """Log-normal priors of all parameters of a kernel, about the values they start from. Without one a lengthscale of ten can
    collapse, and the fit with it."""

    kernel: pgp.AbstractKernel

    def __call__(self, prior, noise_var):
        ratios = jax.tree.map(lambda here, start: jnp.sum(jnp.log(here / start) ** 2), prior.kernel, self.kernel)
        return -0.5 * sum(jax.tree.leaves(ratios)) / 0.5**2


@eqx.filter_jit
def learn(kernel, X, y, max_steps):
    """Posterior with the most probable hyperparameters, and the log density of each observation given all others."""
    found = pgp.fit(pgp.GPPrior(kernel=kernel, X=X), y, 0.5, log_prior=AboutStart(kernel), max_steps=max_steps)
    posterior = found.prior.condition(y, found.noise_var)
    return posterior, posterior.leave_one_out().log_density


@eqx.filter_jit
def log_density(posterior, X, y):
    variance = posterior.variance(X) + posterior.noise_var
    return -0.5 * ((y - posterior.mean(X)) ** 2 / variance + jnp.log(2 * jnp.pi * variance))


def of_mixture(weights, log_densities):
    """Mean log density of a mixture, from those of its members, `k n`."""
    return float(jax.nn.logsumexp(jnp.log(weights)[:, None] + log_densities, axis=0).mean())


def stack(log_densities, n_steps=500):
    """Weights with which the mixture has the largest mean log density, by expectation maximisation."""

    def step(weights, _):
        return jax.nn.softmax(jnp.log(weights)[:, None] + log_densities, axis=0).mean(axis=1), None

    k = len(log_densities)
    return jax.lax.scan(step, jnp.full(k, 1 / k), length=n_steps)[0]


def split(X, y, seed, n_train=300):
    """Training and held-out data, inputs standardised by those of the first."""
    order = np.random.default_rng(seed).permutation(len(y))
    train, test = order[:n_train], order[n_train:]
    scaler = StandardScaler().fit(X[train])
    return *map(jnp.asarray, (scaler.transform(X[train]), y[train])), *map(
        jnp.asarray, (scaler.transform(X[test]), y[test])
    )


def plot(gains, weights, members, d):
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    order = np.argsort(gains["stacking"])
    for name, colour in zip(WAYS[1:], (GREY, BLUE), strict=True):
        left.plot(np.arange(len(order)), np.asarray(gains[name])[order], "o", color=colour, ms=4, label=name)
        left.axhline(np.mean(gains[name]), color=colour, lw=0.8, ls="--")
    left.axhline(0, color="black", lw=0.8, ls=":")
    left.set(xlabel="split of the data", ylabel="nats an observation", title="Held out, more than the best one")
    left.legend(frameon=False, fontsize=8)
    # One input moved, all others at their means: what the members say.
    line = np.linspace(-2, 3, 60)
    at = lambda x: jnp.zeros((len(x), d)).at[:, 2].set(x[:, 0])
    for (name, paths), weight, colour in zip(members.items(), weights, (GREY, BLUE, ORANGE), strict=True):
        label = f"{name}, weight {weight:.2f}"
        pgp.plots.fan(lambda x, paths=paths: paths(at(x)), line, right, levels=(0.8,), colour=colour, label=label)
    right.legend(frameon=False, fontsize=8)
    right.set(xlabel="body mass index, standardised", ylabel="paths", title="Along one input")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(fast: bool, figures: pathlib.Path) -> None:
    X, y = map(np.asarray, load_diabetes(return_X_y=True))
    y = (y - y.mean()) / y.std()
    n_paths, max_steps, n_splits = (32, 30, 2) if fast else (256, 100, 24)

    held_out, chosen, splits = {way: [] for way in WAYS}, [], []
    for seed in range(n_splits):
        A, b, B, c = split(X, y, seed)
        models = {name: learn(kernel, A, b, max_steps) for name, kernel in kernels(X.shape[1]).items()}
        foreseen = jnp.stack([densities for _, densities in models.values()])
        found = jnp.stack([log_density(posterior, B, c) for posterior, _ in models.values()])
        best = jax.nn.one_hot(jnp.argmax(foreseen.mean(axis=1)), len(models))
        weights = dict(zip(WAYS, (best, jnp.full(len(models), 1 / len(models)), stack(foreseen)), strict=True))
        for way in WAYS:
            held_out[way].append(of_mixture(weights[way], found))
        chosen.append(int(jnp.argmax(best)))
        splits.append((models, weights, foreseen, found, B, c))
    gains = {way: np.asarray(held_out[way]) - np.asarray(held_out[WAYS[0]]) for way in WAYS}

    models, weights, foreseen, found, B, c = splits[0]
    print(
        f"{len(y) - len(c)} training points, {len(c)} held out, {X.shape[1]} inputs. One split, nats an observation:\n"
    )
    print(f"{'':14} leave-one-out   held out   weight by stacking   lengthscales")
    for i, (name, (posterior, _)) in enumerate(models.items()):
        kernel = posterior.prior.kernel
        scales = [k.lengthscale for k in getattr(kernel, "kernels", (kernel,)) if hasattr(k, "lengthscale")]
        shown = f"{scales[0].min():.1f} to {scales[0].max():.1f}" if scales else ""
        print(f"{name:14} {foreseen[i].mean():13.3f} {found[i].mean():10.3f} {weights['stacking'][i]:20.2f}   {shown}")
    for way in WAYS:
        print(f"{way:14} {of_mixture(weights[way] + 1e-300, foreseen):13.3f} {held_out[way][0]:10.3f}")
    names = list(models)
    times = ", ".join(f"{name} {chosen.count(i)}" for i, name in enumerate(names))
    print(f"\nHeld out over {n_splits} splits, more than the model that is best by leave-one-out ({times}):")
    for way in WAYS[1:]:
        error = gains[way].std(ddof=1) / np.sqrt(n_splits)
        print(f"{way:14} {gains[way].mean():+.4f} ± {error:.4f}, in {np.mean(gains[way] > 0):.0%} of them")
    # Splits share observations, so that the errors are too small.
    assert fast or gains["equal weights"].mean() > 2 * gains["equal weights"].std(ddof=1) / np.sqrt(n_splits)

    # The same as one predictor, whose members are paths.
    keys = jax.random.split(jax.random.key(0), len(models))
    members = {
        name: pgp.PathwiseSampler(posterior, n_features=1024).sample_paths(key, n_paths)
        for (name, (posterior, _)), key in zip(models.items(), keys, strict=True)
    }
    mixture = Predictor(list(members.values()), weights["stacking"])
    mean, sd = mixture.predict_mean_std(B)
    exact = sum(w * posterior.mean(B) for w, (posterior, _) in zip(weights["stacking"], models.values(), strict=True))
    assert len(mixture.members) == n_paths * len(models)
    assert float(jnp.max(jnp.abs(mean - exact) / sd)) < 5 / np.sqrt(n_paths * 0.3)
    low, high = mixture.quantiles(B, jnp.asarray([0.1, 0.9]))
    assert bool(jnp.all((low < mean) & (mean < high)))
    off = float(jnp.max(jnp.abs(mean - exact) / sd))
    print(f"\nMean of the {len(mixture.members)} paths within {off:.2f} of their standard deviation of the exact one.")

    pipeline = make_pipeline(StandardScaler(), PathwiseGPRegressor(pgp.Linear(1.0), 0.5))
    scores = cross_val_score(pipeline, X[:300], y[:300], cv=3)
    print(f"R² of a pipeline (linear kernel), three folds: {', '.join(f'{score:.2f}' for score in scores)}")

    figures.mkdir(parents=True, exist_ok=True)
    plot(gains, weights["stacking"], members, X.shape[1]).savefig(figures / "ensembles.png", dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--fast", action="store_true", help="fewer paths and steps")
    parser.add_argument("--figures", type=pathlib.Path, default=FIGURES)
    arguments = parser.parse_args()
    main(arguments.fast, arguments.figures)
