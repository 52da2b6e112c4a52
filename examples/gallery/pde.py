"""A linear partial differential equation is solved by conditioning on it: Poisson's on a square, and the heat equation.

What the equation says at collocation points are values of a linear functional of the solution, and boundary and initial
values are others. The posterior mean is the solution by symmetric collocation; its standard deviation is held against the
actual error, as the number of points grows. The heat equation is then solved once more for a rod whose initial temperatures
were measured with noise: the solutions that are drawn differ in how the rod began, and agree as it cools.

    python examples/gallery/pde.py [--fast] [--figures DIR]
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

import pathwise_gp as pgp

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")

FIGURES = pathlib.Path(__file__).parents[1] / "figures"
BLUE, ORANGE, GREY = "#2b6cb0", "#c05621", "#4a5568"
A, NOISE = 0.1, 0.05  # diffusivity, standard deviation of a thermometer
EDGE = 48  # values on the edges of the square, or at the ends and the beginning of the rod


def operator(X, xx, yy, y):
    """a u_xx + b u_yy + c u_y at points: with numbers as factors one program serves both equations."""
    return xx * pgp.Derivative(X, (0, 0)) + yy * pgp.Derivative(X, (1, 1)) + y * pgp.Derivative(X, (1,))


def membrane(X):
    """u = sin πx e^{2x} sin 2πy, and −Δu."""
    (x, y), pi = X.T, np.pi
    u = np.sin(pi * x) * np.exp(2 * x) * np.sin(2 * pi * y)
    return u, (5 * pi**2 - 4) * u - 4 * pi * np.cos(pi * x) * np.exp(2 * x) * np.sin(2 * pi * y)


def rod(X):
    """u = Σ_k c_k exp(−A k²π² t) sin kπx with c_1 = 1 and c_3 = ½, and u_t − A u_xx = 0."""
    x, t = X.T
    mode = lambda k: np.exp(-A * (k * np.pi) ** 2 * t) * np.sin(k * np.pi * x)
    return mode(1) + 0.5 * mode(3), np.zeros(len(X))


def collocation(n):
    """The first n points of a sequence that fills the square (Kronecker's, with the plastic number)."""
    return np.mod(0.5 + np.arange(1, n + 1)[:, None] * np.array([0.7548776662466927, 0.5698402909980532]), 1)


def around(n):
    t, zero, one = np.arange(n) / n, np.zeros(n), np.ones(n)
    return np.concatenate([np.stack(p, axis=1) for p in ((t, zero), (one, t), (1 - t, one), (zero, 1 - t))])


def beginning(n):
    inside, times = np.arange(1, n + 1) / (n + 1), np.linspace(0, 1, n // 2)
    sides = [np.stack([np.full(n // 2, x), times], axis=1) for x in (0.0, 1.0)]
    return np.concatenate([np.stack([inside, np.zeros(n)], axis=1), *sides])


@eqx.filter_jit
def solve(prior, y, noise_var, mask, points):
    posterior = prior.condition(y, noise_var, mask, check_scales=False)
    mean, sd = posterior.mean(points), jnp.sqrt(posterior.variance(points))
    return posterior.log_marginal_likelihood(), (posterior, mean, sd)


def likeliest(prior, kernels, y, noise_var, mask, points, given=None):
    """The solution by the kernel under which the data are likeliest; those in the mask `given` are taken for granted."""
    found = []
    for kernel in kernels:
        now = eqx.tree_at(lambda p: p.kernel, prior, kernel)
        evidence, solution = solve(now, y, noise_var, mask, points)
        if given is not None:
            evidence = evidence - solve(now, y, noise_var, given, points)[0]
        found.append((float(evidence), solution))
    return max(found, key=lambda pair: pair[0])[1]


def scores(mean, sd, truth):
    error = np.asarray(mean - truth)
    return np.sqrt(np.mean(error**2)), np.sqrt(np.mean(sd**2)), np.mean(np.abs(error) < 1.96 * sd)


def converge(name, interior, factors, edge, truth, sizes, kernels, points):
    """Solutions with more and more collocation points, of which the others are masked: one program serves all."""
    L = operator(interior, *factors)
    prior = pgp.GPPrior(kernel=kernels[0], X=[L, edge])
    y = np.concatenate([truth(interior)[1], truth(edge)[0]])
    found = []
    for n in sizes:
        mask = (np.arange(len(y)) < n) | (np.arange(len(y)) >= L.size)
        posterior, mean, sd = likeliest(prior, kernels, y, np.zeros(len(y)), mask, points)
        found.append((mean, sd, scores(mean, sd, truth(points)[0])))
        rmse, spread, share = found[-1][2]
        kernel = posterior.prior.kernel
        print(
            f"{name:8s} {n:4d}   {rmse:9.2e}   {spread:9.2e}   {share:4.0%}"
            f"   {float(kernel.lengthscale):.2f}, {float(kernel.variance):g}"
        )
    return found


def measured(L, edge, kernels, points, n_repeats, n_paths):
    """The rod whose initial temperatures were measured: the solution, draws of it, and coverage over new measurements."""
    prior = pgp.GPPrior(kernel=kernels[0], X=[L, edge])
    noise = np.zeros(L.size + EDGE)
    noise[L.size : L.size + EDGE // 2] = NOISE  # the rest are the ends, held at 0
    rng, exact = np.random.default_rng(0), np.append(np.zeros(L.size), rod(edge)[0])
    everywhere = np.ones(len(noise), bool)
    y = exact + noise * rng.normal(size=len(noise))
    # The zeros of the equation are no data: they are likeliest under kernels that make every solution small and smooth.
    posterior, mean, sd = likeliest(prior, kernels, y, noise**2, everywhere, points, noise == 0)
    truth, inside = rod(points)[0], []
    for _ in range(n_repeats):
        y_again = exact + noise * rng.normal(size=len(y))
        _, (_, again, _) = solve(posterior.prior, y_again, noise**2, everywhere, points)
        inside.append(np.abs(again - truth) < 1.96 * sd)
    paths = pgp.PathwiseSampler(posterior, n_features=1024).sample_paths(jax.random.key(0), n_paths)
    return y[L.size : L.size + EDGE // 2], mean, sd, np.mean(inside, axis=0), paths


def plot(grid, poisson, sizes, tables, shown, rods):
    figure, panels = plt.subplots(2, 3, figsize=(12, 6.8), constrained_layout=True)
    error, sd = poisson
    top = max(error.max(), sd.max())
    square = lambda values: np.asarray(values).reshape(len(grid), -1).T
    for axes, values, title in (
        (panels[0, 0], error, "Poisson: actual error"),
        (panels[0, 1], sd, "Poisson: posterior sd"),
    ):
        drawn = axes.pcolormesh(grid, grid, square(values), vmin=0, vmax=top, cmap="Blues", shading="gouraud")
        axes.plot(*collocation(shown).T, ".", color=ORANGE, ms=5)
        axes.set(title=f"{title}, {shown} points", xlabel="x", ylabel="y", aspect="equal")
    figure.colorbar(drawn, ax=panels[0, 1])
    axes = panels[0, 2]
    for (name, table), colour in zip(tables.items(), (BLUE, ORANGE), strict=True):
        axes.loglog(sizes, [row[0] for row in table], "o-", color=colour, label=f"{name}: error")
        axes.loglog(sizes, [row[1] for row in table], "s--", color=colour, mfc="white", label=f"{name}: posterior sd")
    axes.set(title="Root mean squares", xlabel="collocation points", xticks=sizes)
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)

    x, times, draws, y = rods["x"], rods["times"], rods["draws"], rods["y"]
    for axes, t, values, truth in zip(panels[1, :2], times, draws, rods["truth"], strict=True):
        axes.plot(x, values.T, color=BLUE, lw=0.7, alpha=0.5)
        axes.plot([], [], color=BLUE, lw=1, label="solutions drawn")
        axes.plot(x, truth, color="black", lw=1.5, ls="--", label="truth")
        axes.set(title=f"Rod at t = {t:g}", xlabel="x", ylabel="temperature", ylim=(-0.25, 1.25))
        axes.axhline(0, color=GREY, lw=0.5)
    panels[1, 0].plot(np.arange(1, len(y) + 1) / (len(y) + 1), y, "o", color=ORANGE, ms=4, label="measured, t = 0")
    panels[1, 0].legend(frameon=False, fontsize=8, loc="lower center")
    axes = panels[1, 2]
    axes.plot(grid, rods["sd"], color=BLUE, label="posterior sd")
    axes.plot(grid, rods["error"], color="black", ls="--", label="actual error")
    axes.set(title="Rod: root mean squares over x", xlabel="t", ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)
    for axes in panels.flat[2:]:
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(fast: bool, folder: pathlib.Path) -> None:
    started = time.perf_counter()
    sizes, shown = ((10, 20), 20) if fast else ((10, 20, 40, 80, 160), 40)
    lengths, powers = ((0.7,), (1, 2)) if fast else ((0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0), range(-1, 6))
    kernels = [pgp.Matern(4.5, 4.0**k, length) for length in lengths for k in powers]
    grid = np.linspace(0, 1, 11 if fast else 41)
    points = np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1).reshape(-1, 2)
    interior = collocation(sizes[-1])

    print("equation points      RMSE   posterior sd   in 95 %   lengthscale, variance")
    found = {
        "Poisson": converge(
            "Poisson", interior, (-1.0, -1.0, 0.0), around(EDGE // 4), membrane, sizes, kernels, points
        ),
        "heat": converge("heat", interior, (-A, 0.0, 1.0), beginning(EDGE // 2), rod, sizes, kernels, points),
    }

    repeats, n_paths = (1, 8) if fast else (100, 200)
    heat = operator(interior, -A, 0.0, 1.0)
    kernels = [pgp.Matern(4.5, 4.0**k, 0.5) for k in powers]
    y, mean, sd, share, paths = measured(heat, beginning(EDGE // 2), kernels, points, repeats, n_paths)
    square = lambda values: np.asarray(values).reshape(len(grid), len(grid))
    over_x = lambda values: np.sqrt(np.mean(square(values) ** 2, axis=0))
    error = np.asarray(mean) - rod(points)[0]
    print(f"\nA rod with {len(y)} measurements: root mean squares over x")
    for i in np.searchsorted(grid, [0.0, 0.3, 1.0] if not fast else [0.0, 1.0]):
        inside = square(share)[1:-1, i].mean()
        print(
            f"  t = {grid[i]:.2f}: error {over_x(error)[i]:.4f}, posterior sd {over_x(sd)[i]:.4f}; "
            f"in 95 % over {repeats} sets of measurements {inside:.0%}"
        )
    # As many points again of the sequence lie between those where the equation was imposed.
    n, both = sizes[-1], operator(collocation(2 * sizes[-1]), -A, 0.0, 1.0)
    residual = np.asarray(eqx.filter_jit(both.apply)(paths))
    there, between = (np.sqrt(np.mean(part**2)) for part in (residual[:, :n], residual[:, n:]))
    print(f"  u_t − a u_xx of {n_paths} draws: {there:.1e} at the collocation points, {between:.1e} between them")

    times, x = (0.0, 0.3), np.linspace(0, 1, 101)
    lines = [np.stack([x, np.full_like(x, t)], axis=1) for t in times]
    rods = {"x": x, "times": times, "y": y, "sd": over_x(sd), "error": over_x(error)}
    rods["draws"] = [np.asarray(paths[:40](line)) for line in lines]
    rods["truth"] = [rod(line)[0] for line in lines]
    folder.mkdir(parents=True, exist_ok=True)
    tables = {name: [row[2] for row in rows] for name, rows in found.items()}
    mean, sd, _ = found["Poisson"][sizes.index(shown)]
    figure = plot(grid, (np.abs(mean - membrane(points)[0]), sd), sizes, tables, shown, rods)
    figure.savefig(folder / "pde.png", dpi=130)
    print(f"\nFigure: {folder / 'pde.png'}\nDone in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="few points and kernels")
    parser.add_argument("--figures", type=pathlib.Path, default=FIGURES, help="folder for the figures")
    arguments = parser.parse_args()
    main(arguments.fast, arguments.figures)
