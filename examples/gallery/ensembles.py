"""Paths for what expects a regressor, or an ensemble of predictors.

A regressor of scikit-learn that draws paths underneath goes into a pipeline and is cross-validated like any other. The
paths of three such regressors with different kernels are members of one predictor, weighted by how well each
foresees each observation given all others, which is at hand from the fit.

    python examples/gallery/ensembles.py [--fast] [--figures DIR]
"""

import argparse
import os
import pathlib

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

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


def kernels(d):
    scales = np.full(d, 3.0)
    return {
        "linear": 0.3 * pgp.Linear(1.0),
        "Matérn-5/2": pgp.Matern(2.5, 1.0, scales),
        "both": 0.3 * pgp.Linear(1.0) + pgp.Matern(2.5, 0.3, scales),
    }


def main(fast: bool, figures: pathlib.Path) -> None:
    X, y = load_diabetes(return_X_y=True)
    y = (y - y.mean()) / y.std()
    order = np.random.default_rng(0).permutation(len(y))
    train, test = order[:300], order[300:]
    scaler = StandardScaler().fit(X[train])
    A, B = scaler.transform(X[train]), scaler.transform(X[test])
    n_paths, max_steps = (32, 10) if fast else (256, 200)

    models, gains = {}, {}
    for name, kernel in kernels(X.shape[1]).items():
        models[name] = PathwiseGPRegressor(kernel, 0.5, max_steps=max_steps, random_state=0).fit(A, y[train])
        gains[name] = float(models[name].posterior_.leave_one_out().log_density.sum())
    best = max(gains.values())
    weights = np.exp([gain - best for gain in gains.values()])
    members = {name: model.sample_paths(n_paths, random_state=i) for i, (name, model) in enumerate(models.items())}
    mixture = Predictor(lambda X: jnp.stack([paths(X) for paths in members.values()]), weights)

    print(f"{len(train)} training points, {len(test)} held out, {X.shape[1]} inputs\n")
    print(f"{'':12} leave-one-out   weight    RMSE, held out   inside 80 %")
    rows = {}
    for name, model in models.items():
        rows[name] = (
            Predictor(members[name]),
            gains[name],
            weights[list(models).index(name)] / weights.sum(),
            model.noise_var_,
        )
    noise = sum(row[2] * row[3] for row in rows.values())
    rows["mixture"] = mixture, float("nan"), 1.0, noise
    inside = {}
    for name, (predictor, gain, weight, noise_var) in rows.items():
        mean, sd = predictor.predict_mean_std(B)
        low, high = (np.asarray(mean) + sign * 1.2816 * np.sqrt(np.asarray(sd) ** 2 + noise_var) for sign in (-1, 1))
        inside[name] = np.mean((y[test] > low) & (y[test] < high))
        error = np.sqrt(np.mean((y[test] - mean) ** 2))
        shown = f"{gain:13.1f}" if np.isfinite(gain) else " " * 13
        print(f"{name:12} {shown}   {weight:6.3f}   {error:14.3f}   {inside[name]:11.0%}")
    # The mean of the mixture is that of its parts, with their weights.
    parts = sum(row[2] * row[0].predict(B) for name, row in rows.items() if name != "mixture")
    assert np.allclose(mixture.predict(B), parts, atol=1e-10)
    quantiles = mixture.quantiles(B, jnp.asarray([0.1, 0.5, 0.9]))
    assert bool(jnp.all(jnp.diff(quantiles, axis=0) >= 0))

    pipeline = make_pipeline(StandardScaler(), PathwiseGPRegressor(pgp.Linear(1.0), 0.5, max_steps=max_steps))
    scores = cross_val_score(pipeline, X[train], y[train], cv=3)
    print(f"\nR² of a pipeline (linear kernel), three folds: {', '.join(f'{score:.2f}' for score in scores)}")

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    mean, sd = map(np.asarray, mixture.predict_mean_std(B))
    left.errorbar(mean, y[test], xerr=1.2816 * sd, fmt="o", color=BLUE, ms=3, lw=0.7, alpha=0.6)
    left.plot([-1.5, 2], [-1.5, 2], color=GREY, lw=0.8, ls=":")
    left.set(xlabel="mean of the mixture, and 80 % of its members", ylabel="observed", title="Held out")
    # One input moved, all others at their means: what the members say.
    line = np.linspace(-2, 3, 60)
    at = np.zeros((60, X.shape[1]))
    at[:, 2] = line
    for (name, paths), colour in zip(members.items(), (GREY, BLUE, ORANGE), strict=True):
        pgp.plots.fan(lambda x, paths=paths: paths(at), line, right, levels=(0.8,), colour=colour, label=name)
    right.legend(frameon=False, fontsize=8)
    right.set(xlabel="body mass index, standardised", ylabel="paths", title="Along one input")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figures.mkdir(parents=True, exist_ok=True)
    figure.savefig(figures / "ensembles.png", dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fast", action="store_true", help="fewer paths and steps")
    parser.add_argument("--figures", type=pathlib.Path, default=FIGURES)
    arguments = parser.parse_args()
    main(arguments.fast, arguments.figures)
