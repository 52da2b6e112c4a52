"""The figures and the error table of the documentation: `make figures` writes them anew."""

import contextlib
import os
import pathlib
import re
import shutil
import tempfile

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np

import pathwise_gp as pgp

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")

FOLDER = pathlib.Path(__file__).parent / "pages" / "figures"
COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#4a5568")
RULES = {
    "`MonteCarlo()`": pgp.MonteCarlo(),
    "`Orthogonal()`": pgp.Orthogonal(),
    "`QuasiMonteCarlo(tail=1)`": pgp.QuasiMonteCarlo(tail=1.0),
    "`QuasiMonteCarlo()`": pgp.QuasiMonteCarlo(),
}
KERNELS = {
    "RBF": pgp.RBF(1.0, 1.0),
    "Matérn-1/2": pgp.Matern(0.5, 1.0, 1.0),
    "Matérn-3/2": pgp.Matern(1.5, 1.0, 1.0),
    "Matérn-5/2": pgp.Matern(2.5, 1.0, 1.0),
    "RQ, α = 1.5": pgp.RationalQuadratic(1.0, 1.0, 1.5),
}


# A term that the data leave open beside a much larger one that they pin: the kernel, the inputs, the noise variance.
MONTHS = np.arange(-15.0, 15.0, 1 / 4)[:, None]
SUMS = {
    "RBF(2000, 100) + Matérn-3/2(0.3, 0.5), 60 points": (
        pgp.RBF(2000.0, 100.0) + pgp.Matern(1.5, 0.3, 0.5),
        np.arange(0.0, 60.0)[:, None],
        0.01,
    ),
    "carbon dioxide over Mauna Loa, 120 points": (
        pgp.RBF(66.0**2, 67.0)
        + pgp.RBF(2.4**2, 90.0) * pgp.Periodic(1.0, 1.3, 1.0)
        + pgp.RationalQuadratic(0.66**2, 1.2, 0.78)
        + pgp.RBF(0.18**2, 0.13),
        MONTHS,
        0.19**2,
    ),
    "SpectralMixture, weights 2000 and 0.3, 60 points": (
        pgp.SpectralMixture([2000.0, 0.3], [[0.0], [0.3]], [[0.003], [0.3]]),
        np.arange(0.0, 60.0)[:, None],
        0.01,
    ),
    "RBF(500, 4) of x₀ + Matérn-3/2(0.1, 0.7) of x₁, 60 points": (
        pgp.ActiveDims(pgp.RBF(500.0, 4.0), (0,)) + pgp.ActiveDims(pgp.Matern(1.5, 0.1, 0.7), (1,)),
        np.random.default_rng(0).uniform(-3, 3, (60, 2)),
        0.01,
    ),
}


def setting(kernel: pgp.AbstractKernel, dim: int) -> tuple[pgp.ConditionedGP, np.ndarray]:
    """200 standard normal training inputs, noise variance 0.01, and 200 test inputs from the same law."""
    rng = np.random.default_rng(1)
    X, test = rng.normal(size=(200, dim)), rng.normal(size=(200, dim))
    return pgp.GPPrior(kernel=kernel, X=X).condition(np.zeros(200), 0.01), test


def error_table() -> None:
    """`feature_error` at 1024 features."""
    print("| kernel | d | " + " | ".join(RULES) + " | `HilbertSpace()` |", "| --- " * (len(RULES) + 3) + "|", sep="\n")
    for name, kernel in KERNELS.items():
        for dim in (1, 2, 4, 8):
            posterior, test = setting(kernel, dim)
            errors = [float(pgp.feature_error(posterior, test, 1024, features=r, n_draws=8)) for r in RULES.values()]
            best = min(errors)
            cells = [f"**{e:.2g}**" if e == best else f"{e:.2g}" for e in errors]
            # The box of the test inputs: what the paths will be asked.
            box = np.stack([np.minimum(test.min(0), -3.5), np.maximum(test.max(0), 3.5)])
            hilbert = pgp.HilbertSpace(box)
            cells.append(
                f"{float(pgp.feature_error(posterior, test, 1024, features=hilbert, n_draws=1)):.2g}"
                if dim <= 2
                else ""
            )
            print(f"| {name} | {dim} | " + " | ".join(cells) + " |", flush=True)


def sums_table() -> None:
    """Deviations and correlations of paths given their features, by the affine map, and `feature_error`, over eight keys."""
    print("| sum | features | deviation | correlation | `feature_error` |", "| --- " * 5 + "|", sep="\n")
    for name, (kernel, X, noise) in SUMS.items():
        posterior = pgp.GPPrior(kernel=kernel, X=X).condition(np.zeros(len(X)), noise)
        low, high = X.min(axis=0), X.max(axis=0)
        test = low + np.random.default_rng(1).uniform(size=(40, X.shape[1])) * (high - low)
        exact, G = np.asarray(posterior.covariance(test)), np.asarray(posterior.factor.solve(kernel(test, X)))
        deviation = np.sqrt(np.diag(exact))
        for n in (256, 1024, 4096):
            off = []
            for seed in range(8):
                features = pgp.PathwiseSampler(posterior, n).sample_paths(jax.random.key(seed)).features
                rest = np.asarray(features(jnp.asarray(test))) - G @ np.asarray(features(posterior.prior.X))
                covariance = rest @ rest.T + (G * np.asarray(posterior.noise)) @ G.T
                path = np.sqrt(np.diag(covariance))
                correlation = covariance / np.outer(path, path) - exact / np.outer(deviation, deviation)
                off.append((np.abs(path / deviation - 1).max(), np.abs(correlation).max()))
            error = pgp.feature_error(posterior, test, n, n_draws=8)
            cells = [f"{e:.2g}" for e in (*np.max(off, axis=0), error)]
            print(f"| {name} | {n} | " + " | ".join(cells) + " |", flush=True)


def plot_errors() -> None:
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.8), sharey=True, constrained_layout=True)
    counts = [64, 128, 256, 512, 1024, 2048, 4096]
    for axes, dim in zip(panels, (1, 2, 4), strict=True):
        posterior, test = setting(KERNELS["Matérn-5/2"], dim)
        rules = dict(RULES)
        if dim < 4:
            rules["`HilbertSpace()`"] = pgp.HilbertSpace(np.array([[-3.7] * dim, [3.7] * dim]))
        for (name, rule), colour in zip(rules.items(), COLOURS, strict=False):
            errors = [float(pgp.feature_error(posterior, test, n, features=rule, n_draws=4)) for n in counts]
            axes.loglog(counts, errors, "o-", color=colour, ms=3, lw=1.2, label=name.strip("`"))
        axes.set(title=f"Matérn-5/2, d = {dim}", xlabel="features", ylim=(1e-5, 3))
    panels[0].set_ylabel("feature_error")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=9
    )
    figure.savefig(FOLDER / "errors.png", dpi=130)


def plot_kernels() -> None:
    x = jnp.linspace(-3, 3, 401)[:, None]
    shapes = {
        "RBF": pgp.RBF(1.0, 0.6),
        "Matérn-1/2": pgp.Matern(0.5, 1.0, 0.6),
        "rational quadratic": pgp.RationalQuadratic(1.0, 0.6, 0.5),
        "periodic": pgp.Periodic(1.0, 0.8, 1.5),
        "locally periodic": pgp.RBF(1.0, 1.5) * pgp.Periodic(1.0, 0.8, 1.0),
        "cosine": pgp.Cosine(1.0, 1.5),
        "spectral mixture": pgp.SpectralMixture([0.7, 0.3], [[0.6], [2.0]], [[0.1], [0.2]]),
        "linear * RBF": pgp.Linear(0.5) * pgp.RBF(1.0, 0.5),
        "polynomial, degree 3": pgp.Polynomial(0.02, 1.0, 3),
        "arc-cosine, order 1, with a bias": pgp.Warped(pgp.ArcCosine(1.0, 1), lambda x: jnp.append(x, 1.0)),
        "warped RBF": pgp.Warped(pgp.RBF(1.0, 0.6), lambda x: jnp.sign(x) * x**2 / 2),
        "categories": pgp.Warped(pgp.Categorical(1.0, 7), lambda x: jnp.floor(x + 3)),
    }
    figure, panels = plt.subplots(3, 4, figsize=(11, 6), sharex=True, constrained_layout=True)
    for axes, (name, kernel) in zip(panels.flat, shapes.items(), strict=True):
        prior = pgp.GPPrior(kernel=kernel, X=x[::40] * 0.99)
        paths = prior.sample_paths(jax.random.key(3), 4)
        for values, colour in zip(np.asarray(paths(x * 0.99)), COLOURS, strict=False):
            axes.plot(x[:, 0], values, color=colour, lw=0.9)
        axes.set_title(name, fontsize=9)
    figure.savefig(FOLDER / "kernels.png", dpi=110)


def plot_outputs() -> None:
    rng = np.random.default_rng(4)
    loadings = np.array([[1.0], [0.8], [-0.9]])
    kernel = pgp.Coregionalised(pgp.RBF(1.0, 0.7), loadings, [0.05, 0.05, 0.05])
    # One output seen everywhere, one on the left, one at two places.
    places = [np.linspace(-3, 3, 14), np.linspace(-3, -0.5, 7), np.array([-2.0, -1.2])]
    X = np.concatenate([np.c_[p, np.full(p.size, i)] for i, p in enumerate(places)])
    prior = pgp.GPPrior(kernel=kernel, X=X)
    y = np.asarray(prior.sample_paths(jax.random.key(7))[0](X)) + 0.05 * rng.normal(size=len(X))
    paths = pgp.PathwiseSampler(prior.condition(y, 0.05**2)).sample_paths(jax.random.key(1), 40)
    x = np.linspace(-3.5, 3.5, 200)
    values = np.asarray(paths(pgp.with_outputs(x[:, None], 3)))
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.2), sharey=True, constrained_layout=True)
    for i, (axes, place) in enumerate(zip(panels, places, strict=True)):
        axes.plot(x, values[:, :, i].T, color=COLOURS[i], lw=0.5, alpha=0.6)
        axes.plot(place, y[X[:, 1] == i], "o", color="black", ms=4)
        axes.set(title=f"output {i}: {place.size} observations", xlabel="x")
    figure.savefig(FOLDER / "outputs.png", dpi=120)


def plot_paths() -> None:
    """Paths of a posterior, their derivatives, and where each has its minimum."""
    X = jnp.asarray([-1.4, -1.25, -0.9, -0.6, -0.1, 0.15, 0.5, 1.3, 1.45])[:, None]
    y = jnp.sin(3 * X[:, 0]) + 0.3 * jnp.cos(11 * X[:, 0])
    posterior = pgp.GPPrior(kernel=pgp.Matern(2.5, 1.0, 0.5), X=X).condition(y, 0.05**2)
    draws = pgp.PathwiseSampler(posterior).sample_paths(jax.random.key(3), 400)
    x = np.linspace(-2, 2, 400)
    slopes = lambda at: jax.vmap(jax.jacfwd(draws))(at)[..., 0].T
    figure, (left, centre, right) = plt.subplots(1, 3, figsize=(11, 3.1), constrained_layout=True)
    pgp.plots.paths(draws, x, left, colour=COLOURS[0])
    left.plot(X[:, 0], y, "o", color="black", ms=4, zorder=3)
    left.set(title="paths of a posterior", xlabel="x")
    pgp.plots.fan(slopes, x, centre, colour=COLOURS[2])
    centre.set(title="their derivatives", xlabel="x")
    lowest = x[np.asarray(draws(x[:, None])).argmin(axis=1)]
    pgp.plots.optimum(lowest[:, None], right, bins=np.linspace(-2, 2, 41), colour=COLOURS[1])
    right.set(title="where each has its minimum", xlabel="x", yticks=[])
    for axes in (left, centre, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(FOLDER / "paths.png", dpi=110)


def plot_pages() -> None:
    """What the code of these pages saves is what they show."""
    for name in ("index.md", "tutorial.md"):
        blocks = re.findall(
            r"^```python\n(.*?)^```", (FOLDER.parent / name).read_text(), flags=re.MULTILINE | re.DOTALL
        )
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            exec(compile("\n".join(blocks), name, "exec"), {"__name__": "page"})
            for figure in pathlib.Path(folder).glob("*.png"):
                shutil.copy(figure, FOLDER)
        plt.close("all")


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    plot_pages()
    plot_paths()
    plot_kernels()
    plot_outputs()
    plot_errors()
    error_table()
    sums_table()
