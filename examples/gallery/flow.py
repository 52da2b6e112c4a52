"""A flow that neither gains nor loses: the velocity is the turned gradient of one function, of which it was measured.

In the plane a flow without sources has a stream function ψ, with u = ∂ψ/∂y and v = −∂ψ/∂x. A Gaussian process for ψ is given
a few noisy velocities, which are derivatives of it; whatever is drawn has no divergence. It is held against two independent
processes for u and v, over random designs: the error of the field, the coverage of its intervals, the divergence of draws.

    python examples/gallery/flow.py [--fast] [--figures DIR]
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
from pathwise_gp import calculus

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")

FIGURES = pathlib.Path(__file__).parents[1] / "figures"
BLUE, ORANGE, GREY = "#2b6cb0", "#c05621", "#4a5568"
MODELS = {"stream function": BLUE, "u and v apart": ORANGE}
NOISE = 0.1
FIELDS = ("kernel.kernels[0].variance", "kernel.kernels[0].lengthscale")
# A uniform stream of unknown speed: a linear ψ, or constants.
STREAM, LEVEL = pgp.Linear(0.2), pgp.Constant(0.2)


def truth(X):
    """Two vortices in a stream: ψ = 0.4 y + Σ_i a_i exp(−|x − c_i|²/w_i), and the velocity (∂ψ/∂y, −∂ψ/∂x)."""
    u, v = np.full(len(X), 0.4), np.zeros(len(X))
    for a, c, w in ((0.25, (0.3, 0.65), 0.06), (-0.2, (0.7, 0.35), 0.08)):
        dx, dy = (X - np.asarray(c)).T
        bump = 2 * a / w * np.exp(-(dx**2 + dy**2) / w)
        u, v = u - dy * bump, v + dx * bump
    return np.stack([u, v])


def velocities(X):
    """u and v at points, as functionals of the stream function."""
    return [pgp.Derivative(X, (1,)), -pgp.Derivative(X, (0,))]


def velocity(stream):
    """The same of draws of it: a field, `*n 2` to `*s *n 2`."""

    def field(X):
        slope = calculus.gradient(stream)(X)
        return jnp.stack([slope[..., 1], -slope[..., 0]], axis=-1)

    return field


def log_prior(prior, _):
    return dist.LogNormal(-1.0, 0.7).log_prob(prior.kernel.kernels[0].lengthscale)


@eqx.filter_jit
def condition(prior, y, mask, learn):
    if learn:
        best = pgp.fit(prior, y, NOISE**2, mask, fields=FIELDS, learn_noise=False, log_prior=log_prior, max_steps=40)
        prior = best.prior
    return prior.condition(y, NOISE**2, mask, check_scales=False)


def of_stream(X, y, mask, points, learn):
    prior = pgp.GPPrior(kernel=pgp.RBF(0.03, 0.25) + STREAM, X=velocities(X))
    posterior = condition(prior, y.reshape(-1), np.tile(mask, 2), learn)
    return posterior, *_moments(posterior, velocities(points))


def apart(X, y, mask, points, learn):
    found = []
    for values in y:
        posterior = condition(pgp.GPPrior(kernel=pgp.RBF(0.5, 0.25) + LEVEL, X=X), values, mask, learn)
        found.append((posterior, *_moments(posterior, points)))
    posteriors, means, sds = zip(*found, strict=True)
    return posteriors, np.concatenate(means), np.concatenate(sds)


@eqx.filter_jit
def _moments(posterior, asked):
    return posterior.mean(asked), jnp.sqrt(posterior.variance(asked))


def divergences(streams, pair, points):
    """Of draws of both kinds, with the root mean square of the gradient of the field for scale."""
    n = 8
    draw = lambda posterior, i: pgp.PathwiseSampler(posterior, n_features=512).sample_paths(jax.random.key(i), n)
    stream, parts = draw(streams, 0), [draw(posterior, i) for i, posterior in enumerate(pair)]
    fields = velocity(stream), lambda X: jnp.stack([part(X) for part in parts], axis=-1)
    return [np.asarray(eqx.filter_jit(calculus.divergence(field))(points)) for field in fields]


def plot(grid, points, X, y, errors, sizes, traces):
    figure, panels = plt.subplots(1, 4, figsize=(14.5, 3.7), constrained_layout=True, width_ratios=[1, 1, 1, 1.1])
    u, v = truth(points).reshape(2, len(grid), len(grid))
    panels[0].streamplot(grid, grid, u, v, color=GREY, linewidth=0.6, density=0.8, arrowsize=0.7)
    panels[0].quiver(*X.T, *y, color=ORANGE, width=0.009, scale=9)
    panels[0].set_title(f"Flow, and {len(X)} measurements")
    top = max(np.max(error) for error in errors.values())
    for axes, (name, error) in zip(panels[1:3], errors.items(), strict=True):
        square = error.reshape(len(grid), -1)
        axes.pcolormesh(grid, grid, square, vmin=0, vmax=top, cmap="Blues", shading="gouraud")
        axes.plot(*X.T, ".", color=ORANGE, ms=4)
        axes.set_title(f"Error: {name}")
    figure.colorbar(panels[2].collections[0], ax=panels[2], label="speed of the error")
    for axes in panels[:3]:
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    axes = panels[3]
    for name, trace in traces.items():
        lower, middle, upper = np.quantile(trace, [0.25, 0.5, 0.75], axis=0)
        axes.fill_between(sizes, lower, upper, color=MODELS[name], alpha=0.15, lw=0)
        axes.loglog(sizes, middle, "o-", color=MODELS[name], ms=4, label=name)
    axes.set(xlabel="measurements", title="RMSE, median and quartiles")
    axes.set_xticks(sizes, [str(n) for n in sizes])
    ticks = (0.05, 0.1, 0.2, 0.4)
    axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(fast: bool, folder: pathlib.Path) -> None:
    started = time.perf_counter()
    sizes, n_designs, shown = ((10, 20), 1, 20) if fast else ((10, 20, 40, 80), 30, 20)
    grid = np.linspace(0, 1, 11 if fast else 31)
    points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    exact = truth(points).reshape(-1)
    print(f"root mean square of u and v: {np.sqrt(np.mean(exact**2)):.2f}; noise {NOISE}\n")

    traces = {name: np.zeros((n_designs, len(sizes))) for name in MODELS}
    inside = {name: np.zeros((n_designs, len(sizes))) for name in MODELS}
    kept, data = {}, (np.zeros((0, 2)), np.zeros((2, 0)))
    for i in range(n_designs):
        rng = np.random.default_rng(i)
        X = rng.uniform(size=(sizes[-1], 2))
        y = truth(X) + NOISE * rng.normal(size=(2, len(X)))
        for j, n in enumerate(sizes):
            mask = np.arange(len(X)) < n
            for name, solve in zip(MODELS, (of_stream, apart), strict=True):
                posterior, mean, sd = solve(X, y, mask, points, not fast)
                traces[name][i, j] = np.sqrt(np.mean((mean - exact) ** 2))
                inside[name][i, j] = np.mean(np.abs(mean - exact) < 1.96 * sd)
                if i == 0 and n == shown:
                    kept[name] = posterior, np.hypot(*np.asarray(mean - exact).reshape(2, -1))
                    data = X[:n], y[:, :n]

    print("measurements   " + "   ".join(f"{name}: RMSE (quartiles), in 95 %" for name in MODELS))
    for j, n in enumerate(sizes):
        line = f"{n:12d}"
        for name in MODELS:
            lower, middle, upper = np.quantile(traces[name][:, j], [0.25, 0.5, 0.75])
            line += f"   {middle:.3f} ({lower:.3f} to {upper:.3f}), {inside[name][:, j].mean():4.0%}        "
        print(line)
    better = np.mean(traces["stream function"] < traces["u and v apart"], axis=0)
    print("the stream function is better in " + ", ".join(f"{share:.0%}" for share in better) + " of the designs")

    found = divergences(kept["stream function"][0], kept["u and v apart"][0], points)
    print("\nDivergence of draws, largest and root mean square:")
    for name, values in zip(MODELS, found, strict=True):
        print(f"  {name:16s} {np.abs(values).max():.1e}, {np.sqrt(np.mean(values**2)):.1e}")
    assert np.abs(found[0]).max() < 1e-10

    folder.mkdir(parents=True, exist_ok=True)
    errors = {name: kept[name][1] for name in MODELS}
    plot(grid, points, *data, errors, sizes, traces).savefig(folder / "flow.png", dpi=120)
    print(f"\nFigure: {folder / 'flow.png'}\nDone in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="one design, with kernels that are given")
    parser.add_argument("--figures", type=pathlib.Path, default=FIGURES, help="folder for the figures")
    arguments = parser.parse_args()
    main(arguments.fast, arguments.figures)
