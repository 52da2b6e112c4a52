"""Derivatives, integrals and a conservation law, of functions that were measured at a few points.

In one dimension: the slope of a curve and the area under it, with what is not known of both; the area against the closed form
of Bayesian quadrature. In two: the temperature of a plate at 60 places; how much heat is produced inside a circle is the flux
through it, the integral of −ΔT, or in the weak form an integral of T itself, and Gauss's theorem holds for each path.

    python examples/gallery/derivatives_and_integrals.py [--fast] [--figures DIR]
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
import scipy.integrate

import pathwise_gp as pgp
from pathwise_gp import calculus

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")

FIGURES = pathlib.Path(__file__).parents[1] / "figures"
BLUE, ORANGE, GREY = "#2b6cb0", "#c05621", "#4a5568"
A, B = 0.0, 3.0
CENTRE, RADIUS = jnp.asarray([0.5, 0.5]), 0.3


def area_in_closed_form(kernel, X, y, noise_var):
    """Mean zᵀA⁻¹y and variance ∬k − zᵀA⁻¹z of the integral, z = ∫k(x, X)dx, by adaptive quadrature."""
    k = lambda x, z: kernel.variance * np.exp(-0.5 * (x - z) ** 2 / kernel.lengthscale**2)
    z = np.array([scipy.integrate.quad(k, A, B, args=(x,))[0] for x in X[:, 0]])
    weights = np.linalg.solve(k(X, X.T) + noise_var * np.eye(len(X)), z)
    return weights @ y, scipy.integrate.dblquad(k, A, B, A, B, epsabs=1e-6)[0] - z @ weights


def curve(fast):
    rng = np.random.default_rng(1)
    X, noise_var = np.sort(rng.uniform(A, B, 9))[:, None], 0.01
    y = np.sin(2 * X[:, 0]) + 0.1 * rng.normal(size=9)
    kernel = pgp.RBF(variance=1.0, lengthscale=0.6)
    posterior = pgp.GPPrior(kernel=kernel, X=X, jitter=1e-9).condition(y, noise_var)
    paths = pgp.PathwiseSampler(posterior, n_features=2048).sample_paths(jax.random.key(0), 500 if fast else 4000)

    grid = np.linspace(A, B, 200)[:, None]
    slopes = calculus.directional_derivative(paths, jnp.ones(1))(grid)
    bounds = np.array([[A], [B]])
    areas = calculus.integrate_exactly(paths, bounds)
    by_rule = calculus.integrate(paths, calculus.gauss_legendre(bounds, 60))
    assert np.abs(areas - by_rule).max() < 1e-10
    mean, variance = area_in_closed_form(kernel, X, y, noise_var + 1e-9)
    n = len(areas)
    assert abs(areas.mean() - mean) < 4 * (variance / n) ** 0.5
    assert abs(areas.var() / variance - 1) < 4 * (2 / n) ** 0.5 + 0.01
    print(f"Area under the curve: {areas.mean():.4f} ± {areas.std():.4f} from {n} paths")
    print(f"  closed form:        {mean:.4f} ± {variance**0.5:.4f}   (truth {(1 - np.cos(2 * B)) / 2:.4f})")
    return X, y, grid, paths(grid), slopes, areas, (mean, variance)


def temperature(X):
    return jnp.sin(jnp.pi * X[..., 0]) * jnp.sin(jnp.pi * X[..., 1])


def bump(X):
    """(1 − r²)³ inside the circle, which has two derivatives that vanish on it."""
    r2 = jnp.sum((X - CENTRE) ** 2, axis=-1) / RADIUS**2
    return jnp.maximum(1 - r2, 0) ** 3


def plate(fast):
    rng = np.random.default_rng(0)
    X = rng.uniform(0, 1, (60, 2))
    y = np.asarray(temperature(X)) + 0.01 * rng.normal(size=60)
    posterior = pgp.GPPrior(kernel=pgp.RBF(variance=1.0, lengthscale=0.5), X=X).condition(y, 1e-4)
    paths = pgp.PathwiseSampler(posterior, n_features=1024).sample_paths(jax.random.key(1), 100 if fast else 1000)

    around = lambda t: CENTRE + RADIUS * jnp.stack([jnp.cos(t), jnp.sin(t)])
    edge = calculus.line(around, 0.0, 2 * np.pi, 40)
    box = np.array([[0.0, 0.0], [1.0, 2 * np.pi]])
    disc = calculus.surface(lambda u: CENTRE + u[0] * (around(u[1]) - CENTRE), box, (12, 24))

    flux = -calculus.flux(calculus.gradient(paths), edge)
    inside = -calculus.integrate(calculus.laplacian(paths), disc)
    assert np.abs(flux - inside).max() < 1e-8
    # The weak form needs no derivative of the path: −∫ Δf φ = −∫ f Δφ for φ that vanishes on the edge, with its gradient.
    strong = -calculus.inner_product(calculus.laplacian(paths), bump, disc)
    weak = -calculus.inner_product(paths, calculus.laplacian(bump), disc)
    assert np.abs(strong - weak).max() < 1e-8
    truth = -calculus.flux(calculus.gradient(temperature), edge)
    assert abs(flux.mean() - truth) < 4 * flux.std()
    print(f"\nHeat produced inside the circle: {flux.mean():.3f} ± {flux.std():.3f}   (truth {truth:.3f})")
    print(f"  flux through the edge less the integral of −ΔT: at most {np.abs(flux - inside).max():.0e} on any path")
    print(f"  weak form less strong form: at most {np.abs(strong - weak).max():.0e}")
    n = 25 if fast else 60
    ticks = np.linspace(0, 1, n)
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1)
    mean = paths.mean_path
    few = grid[2 :: n // 8, 2 :: n // 8].reshape(-1, 2)
    return (
        X,
        ticks,
        mean(grid),
        -calculus.laplacian(mean)(grid),
        (few, -calculus.gradient(mean)(few)),
        edge,
        flux,
        truth,
    )


def band(axes, x, values, colour, label):
    low, middle, high = np.quantile(values, [0.025, 0.5, 0.975], axis=0)
    axes.fill_between(x, low, high, color=colour, alpha=0.25, lw=0, label="central 95 %")
    axes.plot(x, values[:6].T, color=colour, lw=0.5, alpha=0.7)
    axes.plot(x, middle, color=colour, lw=1.4, label=label)


def histogram(axes, values, truth, title):
    axes.hist(values, bins=30, density=True, color=BLUE, alpha=0.35)
    axes.axvline(truth, color="black", lw=1, ls="--", label="truth")
    axes.set(title=title, yticks=[])
    axes.spines[["left", "top", "right"]].set_visible(False)


def plot(one, two):
    X, y, grid, values, slopes, areas, (mean, variance) = one
    x = np.asarray(grid[:, 0])
    figure = plt.figure(figsize=(11, 6), constrained_layout=True)
    panels = figure.subplot_mosaic([["f", "slope", "area"], ["plate", "source", "flux"]])
    band(panels["f"], x, values, BLUE, "median")
    panels["f"].plot(X[:, 0], y, ".", color="black", ms=6)
    panels["f"].set(title="Nine measurements, and paths", xlabel="x", ylabel="f")
    band(panels["slope"], x, slopes, ORANGE, "median")
    panels["slope"].plot(x, 2 * np.cos(2 * x), "--", color="black", lw=1, label="truth")
    panels["slope"].set(title="Derivative of each path", xlabel="x", ylabel="f′")
    for name in ("f", "slope"):
        panels[name].legend(frameon=False, fontsize=8)
        panels[name].spines[["top", "right"]].set_visible(False)
    histogram(panels["area"], areas, (1 - np.cos(2 * B)) / 2, "Area under each path")
    t = np.linspace(*panels["area"].get_xlim(), 200)
    density = np.exp(-0.5 * (t - mean) ** 2 / variance) / np.sqrt(2 * np.pi * variance)
    panels["area"].plot(t, density, color=ORANGE, lw=1.4, label="closed form")
    panels["area"].legend(frameon=False, fontsize=8)

    X, ticks, mean, source, (few, arrows), edge, flux, truth = two
    for name, values, title in (
        ("plate", mean, "A plate: temperature T, and −∇T"),
        ("source", source, "Heat produced, −ΔT"),
    ):
        axes = panels[name]
        shown = axes.pcolormesh(ticks, ticks, values, cmap="magma", shading="gouraud", rasterized=True)
        figure.colorbar(shown, ax=axes, label="posterior mean", shrink=0.9)
        axes.plot(edge.points[:, 0], edge.points[:, 1], color="white", lw=1.2)
        axes.set(title=title, xlabel="x", ylabel="y", aspect="equal")
    panels["plate"].quiver(*few.T, *arrows.T, color="white", alpha=0.8, width=0.005)
    panels["plate"].plot(X[:, 0], X[:, 1], ".", color="white", ms=3)
    histogram(panels["flux"], flux, truth, "Heat produced inside the circle")
    panels["flux"].legend(frameon=False, fontsize=8)
    return figure


def main(fast: bool, folder: pathlib.Path) -> None:
    started = time.perf_counter()
    figure = plot(curve(fast), plate(fast))
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "derivatives_and_integrals.png", dpi=130)
    print(f"\nFigure: {folder / 'derivatives_and_integrals.png'}")
    print(f"Done in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="few paths")
    parser.add_argument("--figures", type=pathlib.Path, default=FIGURES, help="folder for the figures")
    arguments = parser.parse_args()
    main(arguments.fast, arguments.figures)
