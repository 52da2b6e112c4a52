"""Set-ups of real work, at the defaults, beside closed forms in extended precision: right to a hundredth, or said.

Each set-up gives data, a kernel and a noise and nothing else, and is taken through each route that there is to a posterior.
What must be right: the standard deviation, to 1 %; the mean, to 1 % of the spread of the observations and a tenth of the
posterior standard deviation; the log evidence, to 1 % of itself or of the number of observations; and paths: given its normal
variables, a path must lie within a tenth of the posterior standard deviation of where Matheron's rule puts it (root mean
square over draws), so that its variance is right to a hundredth. Where precision does not suffice a warning or an error is an
answer too.

Run as a script it prints the table.
"""

import math
import sys
import warnings
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pathwise_gp as pgp
from pathwise_gp import numpyro_bridge as bridge
from pathwise_gp._guides.bound import marginals
from pathwise_gp._paths import draw_prior
from pathwise_gp.estimator import PathwiseGPRegressor

pytestmark = pytest.mark.usefixtures("standard_promotion")  # `fit`

Long = np.longdouble
PRECISION = {"float64": np.float64, "float32": np.float32}
N_DRAWS = 8


# ---------------------------------------------------------------------- closed forms in extended precision
def covariance(kernel: Any, X: np.ndarray, Z: np.ndarray) -> np.ndarray:
    """k(X, Z) from the fields of a kernel, written again in NumPy."""
    get = lambda name: np.asarray(getattr(kernel, name)).astype(Long)
    match type(kernel).__name__:
        case "Sum":
            return sum(covariance(k, X, Z) for k in kernel.kernels)
        case "Product":
            return math.prod(covariance(k, X, Z) for k in kernel.kernels)
        case "Constant":
            return np.broadcast_to(get("variance"), (len(X), len(Z)))
        case "Linear":
            return (X * get("variance")) @ Z.T
        case "Polynomial":
            return get("variance") * (X @ Z.T + get("offset")) ** kernel.degree
        case "White":
            return np.zeros((len(X), len(Z)), Long)
        case "Periodic":
            phase = np.sin(np.pi * (X - Z.T) / get("period")) / get("lengthscale")
            return get("variance") * np.exp(-2 * phase**2)
    r2 = sum(
        ((X[:, None, i] - Z[None, :, i]) / np.broadcast_to(get("lengthscale"), X.shape[1:])[i]) ** 2
        for i in range(X.shape[1])
    )
    match type(kernel).__name__:
        case "RBF":
            return get("variance") * np.exp(-r2 / 2)
        case "RationalQuadratic":
            return get("variance") * (1 + r2 / (2 * get("alpha"))) ** -get("alpha")
        case "Matern":
            r = np.sqrt(2 * Long(kernel.nu) * r2)
            return get("variance") * {0.5: 1, 1.5: 1 + r, 2.5: 1 + r + r * r / 3}[kernel.nu] * np.exp(-r)
    raise AssertionError(kernel)


def white(kernel: Any) -> float:
    return sum(float(k.variance) for k in kernel.summands() if isinstance(k, pgp.White))


def cholesky(A: np.ndarray) -> np.ndarray:
    """The lower factor, which NumPy has in double precision only."""
    L = np.zeros_like(A)
    for j in range(len(A)):
        column = A[j:, j] - L[j:, :j] @ L[j, :j]
        assert column[0] > 0, "the oracle itself is out of digits"
        L[j:, j] = column / np.sqrt(column[0])
    return L


def forward(L: np.ndarray, B: np.ndarray) -> np.ndarray:
    """L⁻¹B."""
    X = np.zeros_like(B)
    for i in range(len(L)):
        X[i] = (B[i] - L[i, :i] @ X[:i]) / L[i, i]
    return X


def solve(L: np.ndarray, B: np.ndarray) -> np.ndarray:
    """(L Lᵀ)⁻¹B."""
    return forward(L[::-1, ::-1].T, forward(L, B)[::-1])[::-1]


class Answer(NamedTuple):
    mean: Any
    sd: Any
    evidence: Any
    paths: Any = None


def exact(kernel, X, y, noise, q, draw=None) -> Answer:
    """The posterior at q, log N(y | 0, A), and paths of given prior draws at X and q, and noise."""
    X, y, q, noise = (np.asarray(v).astype(Long) for v in (X, y, q, noise))
    L = cholesky(covariance(kernel, X, X) + np.diag(noise + white(kernel)))
    cross = covariance(kernel, q, X)
    half = forward(L, cross.T)
    variance = np.diag(covariance(kernel, q, q)) - np.sum(half**2, axis=0)
    evidence = -0.5 * np.sum(forward(L, y) ** 2) - np.sum(np.log(np.diag(L))) - 0.5 * len(y) * np.log(2 * Long(np.pi))
    paths = None
    if draw is not None:
        at_X, at_q, epsilon = (np.asarray(v).astype(Long) for v in draw)
        paths = at_q + (cross @ solve(L, (y[None, :] - at_X - epsilon).T)).T
    return Answer(cross @ solve(L, y), np.sqrt(variance), evidence, paths)


def sparse(kernel, Z, X, y, noise, q) -> Answer:
    """Titsias (2009): equations 6, 9 and 10."""
    Z, X, y, q, noise = (np.asarray(v).astype(Long) for v in (Z, X, y, q, noise))
    L = cholesky(covariance(kernel, Z, Z))
    noise = noise + white(kernel)
    A = forward(L, covariance(kernel, Z, X)) / np.sqrt(noise)[None, :]
    root = cholesky(np.eye(len(Z), dtype=Long) + A @ A.T)
    at_q = forward(L, covariance(kernel, Z, q))
    mean = at_q.T @ solve(root, A @ (y / np.sqrt(noise)))
    prior = np.diag(covariance(kernel, q, q))
    variance = prior - np.sum(at_q**2, axis=0) + np.sum(forward(root, at_q) ** 2, axis=0)
    fitted = forward(root, A @ (y / np.sqrt(noise)))
    left_out = np.sum(np.diag(covariance(kernel, X, X)) / noise) - np.sum(A * A)
    value = (
        np.sum(y**2 / noise) - np.sum(fitted**2) + 2 * np.sum(np.log(np.diag(root))) + np.sum(np.log(noise)) + left_out
    )
    return Answer(mean, np.sqrt(variance), -0.5 * (value + len(y) * np.log(2 * Long(np.pi))))


# ---------------------------------------------------------------------- the set-ups
class SetUp(NamedTuple):
    """**Fields:** `kernel`; `X`, `n d`; `noise`: variances, `n`; `inducing`: how many inputs are inducing points too, 0 for
    none; `y`: observations, drawn from the model unless given."""

    kernel: Any
    X: np.ndarray
    noise: np.ndarray
    inducing: int = 0
    y: np.ndarray | None = None
    outputs: tuple[float, float] | None = None


RNG = np.random.default_rng(0)
N = 60
LINE = np.linspace(0, 10, N)[:, None]
SCATTERED = np.sort(RNG.uniform(0, 10, (N, 1)), axis=0)
SMOOTH = pgp.RBF(1.0, 1.0)
TREND = lambda v, slope, amplitude, scale: pgp.Constant(v) + pgp.Linear(slope) + pgp.RBF(amplitude, scale)
MAUNA_LOA = (
    pgp.RBF(66.0**2, 67.0)
    + pgp.RBF(2.4**2, 90.0) * pgp.Periodic(1.0, 1.3, 1.0)
    + pgp.RationalQuadratic(0.66**2, 0.78, 1.2)
    + pgp.RBF(0.18**2, 0.13)
)


def level(variance, n=N):
    return np.full(n, float(variance))


def set_ups() -> dict[str, SetUp]:
    years = np.linspace(1959.0, 2024.0, N)[:, None]
    julian = 2459000.5 + np.arange(N)[:, None] / 48
    seconds = 1.6e9 + 3600.0 * np.arange(N)[:, None]
    months = np.linspace(-20.0, 20.0, 120)[:, None]
    twice = np.repeat(SCATTERED[::2], 2, axis=0)
    two = RNG.uniform(0, 1, (N, 2)) * [1.0, 1e6]
    rows = {
        "years, a vague trend": SetUp(TREND(100.0, 1.0, 0.1, 5.0), years, level(0.0025)),
        "years, centred": SetUp(TREND(100.0, 1.0, 0.1, 5.0), years - 1990, level(0.0025)),
        "Julian dates": SetUp(pgp.Matern(2.5, 1.0, 0.3), julian, level(0.0025)),
        "unix seconds": SetUp(pgp.Matern(2.5, 1.0, 3e4), seconds, level(0.01), 12),
        "Mauna Loa": SetUp(MAUNA_LOA, months, level(0.19**2, 120)),
        "days and decades": SetUp(pgp.RBF(2000.0, 100.0) + pgp.Matern(1.5, 0.3, 0.5), LINE * 6, level(0.01), 20),
        "repeated inputs": SetUp(SMOOTH, twice, level(0.01), 0),
        "noise of 1e-2": SetUp(SMOOTH, LINE, level(1e-2), 12, outputs=(1.0, 1e-5)),
        "noise of 1e-4": SetUp(SMOOTH, LINE, level(1e-4), 12, outputs=(1e5, 1e-3)),
        "noise of 1e-6": SetUp(SMOOTH, LINE, level(1e-6), 15),
        "noise of 1e-8": SetUp(SMOOTH, LINE, level(1e-8), 15),
        "noise of 1e-10": SetUp(SMOOTH, LINE, level(1e-10), 15),
        "no noise, rough": SetUp(pgp.Matern(1.5, 1.0, 1.0), LINE, level(0.0)),
        "no noise, smooth": SetUp(SMOOTH, LINE[::4], level(0.0, 15)),
        "some without noise": SetUp(pgp.Matern(1.5, 1.0, 1.0), LINE, np.where(np.arange(N) % 3 == 0, 0.0, 0.01)),
        "noise over six decades": SetUp(SMOOTH, LINE, np.geomspace(1e-5, 10.0, N), 12),
        "small units": SetUp(pgp.RBF(1e-12, 1e-6), LINE * 1e-6, level(1e-15), 12),
        "large units": SetUp(pgp.RBF(1e12, 1e6), LINE * 1e6, level(1e9), 12),
        "one point": SetUp(SMOOTH, LINE[:1], level(0.01, 1)),
        "one point, little noise": SetUp(pgp.RBF(1e6, 1.0), LINE[:1], level(0.01, 1)),
        "two points": SetUp(SMOOTH, LINE[:2], level(0.01, 2)),
        "a steep trend": SetUp(pgp.Polynomial(1.0, 1.0, 3) + pgp.RBF(1.0, 1.0), LINE, level(0.01)),
        "an irrelevant input": SetUp(pgp.RBF(1.0, [0.5, 1e9]), two, level(0.01), 12),
        "long coherence": SetUp(pgp.RBF(1.0, 1e3) * pgp.Periodic(1.0, 1.0, 1.0), SCATTERED, level(0.01)),
        "white noise of the kernel": SetUp(SMOOTH + pgp.White(0.01), LINE, level(0.005), 12),
    }
    return rows


SET_UPS = set_ups()
MANY = SetUp(SMOOTH, np.linspace(0, 50, 500)[:, None], level(0.01, 500), 0)


def observations(row: SetUp) -> np.ndarray:
    """A draw of the model."""
    K = covariance(row.kernel, row.X.astype(Long), row.X.astype(Long)) + np.diag(row.noise + white(row.kernel))
    values, vectors = np.linalg.eigh(K.astype(float))
    return vectors @ (np.sqrt(np.maximum(values, 0)) * np.random.default_rng(1).normal(size=len(K)))


def test_inputs(X: np.ndarray) -> np.ndarray:
    """Inside of the data, between the points, and a little outside."""
    low, high = X.min(axis=0), X.max(axis=0)
    width = np.where(high > low, high - low, 1.0)
    return low[None, :] + np.array([-0.02, 0.303, 0.5017, 0.77, 0.98])[:, None] * width[None, :]


test_inputs.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]


def cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree)


class Outcome(NamedTuple):
    """Errors in the units of what is allowed, so that 1 is the limit; and whether something was said."""

    mean: float
    sd: float
    evidence: float
    paths: float
    said: str

    def worst(self) -> float:
        return float(np.max(np.nan_to_num([self.mean, self.sd, self.evidence, self.paths], nan=np.inf)))


def compared(got: Answer, wanted: Answer, y: np.ndarray, said: str) -> Outcome:
    spread = max(float(np.std(y)), 1e-3 * float(np.max(np.abs(y)))) or 1.0
    error = np.abs(np.asarray(got.mean).astype(Long) - wanted.mean)
    # Where there is no noise the posterior deviation may be 0: then the mean has the spread alone to be measured by.
    mean = np.max(
        np.maximum(error / (0.01 * spread), np.where(wanted.sd > 1e-6 * spread, error / (0.1 * wanted.sd), 0))
    )
    sd = np.max(np.abs(np.asarray(got.sd).astype(Long) - wanted.sd) / (0.01 * wanted.sd + 1e-6 * spread))
    evidence = abs(float(got.evidence) - wanted.evidence) / (0.01 * max(abs(wanted.evidence), len(y)))
    paths = 0.0
    if got.paths is not None:
        off = np.sqrt(np.mean((np.asarray(got.paths).astype(Long) - wanted.paths) ** 2, axis=0))
        paths = np.max(off / (0.1 * wanted.sd + 1e-5 * spread))
    return Outcome(float(mean), float(sd), float(evidence), float(paths), said)


@eqx.filter_jit
def drawn(sampler: Any, q: Any) -> tuple[Any, ...]:
    """Mean and paths at q; and of what normal variables, and features at X and q, the paths are. Not the variance, which is
    said to be rounding outside of jit alone."""
    prior, keys = sampler.posterior.prior, jax.random.split(jax.random.key(0), 3)
    kernel, X = prior.kernel, prior.X
    options = {"n_features": sampler.n_features, "basis": sampler.features, "share_features": True}
    features, weights, z = draw_prior(kernel, X, keys, n_paths=N_DRAWS, n_noise=len(X), **options)
    paths = sampler.update(features, weights, z)
    return sampler.posterior.mean(q), paths(q), weights, z, features(jnp.concatenate([X, q]))


def by_exact(kernel: Any, X: Any, y: Any, noise: Any, q: Any) -> tuple[Answer, Any]:
    posterior = pgp.GPPrior(kernel=kernel, X=X).condition(y, noise)
    mean, paths, weights, z, features = map(np.asarray, drawn(pgp.PathwiseSampler(posterior, 64), q))
    prior = weights.astype(Long) @ features.astype(Long).T
    draw = (prior[:, : len(y)], prior[:, len(y) :], np.sqrt(np.asarray(noise).astype(Long) + white(kernel)) * z)
    evidence = pgp.GPPrior(kernel=kernel, X=X).log_prob(y, noise)
    return Answer(mean, np.sqrt(np.asarray(posterior.variance(q))), evidence, paths), draw


@eqx.filter_jit
def marginals_and_mean_path(prior: Any, guide: Any, q: Any) -> Any:
    paths = pgp.DecoupledPathwiseSampler(prior, guide, 64).sample_paths(jax.random.key(0), 2)
    return *marginals(prior, guide, prior.checked_factor().lower, pgp.Values(q)), paths.mean_path(q)


def by_sparse(kernel: Any, Z: Any, X: Any, y: Any, noise: Any, q: Any) -> Answer:
    prior = pgp.SparseGPPrior(kernel=kernel, Z=Z)
    guide = pgp.optimal_guide(prior, X, y, noise)
    mean, variance, path = map(np.asarray, marginals_and_mean_path(prior, guide, q))
    np.testing.assert_allclose(path, mean, rtol=1e-2, atol=1e-2 * np.std(np.asarray(y)))
    bound = bridge.sgpr_factor("bound", prior, X, y, noise)
    return Answer(mean, np.sqrt(np.maximum(variance, 0)), bound)


def answer(name: str, route: str, dtype: str) -> Outcome:
    row = MANY if name == "five hundred points" else SET_UPS[name]
    kind = PRECISION[dtype]
    X, noise = row.X.astype(kind), row.noise.astype(kind)
    y = (observations(row) if row.y is None else row.y).astype(kind)
    q, kernel = test_inputs(row.X).astype(kind), cast(row.kernel, kind)
    as_arrays = [jnp.asarray(v) for v in (X, y, noise, q)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if route == "exact":
                got, draw = by_exact(kernel, *as_arrays)
                wanted = exact(kernel, X, y, noise, q, draw)
            elif route == "sparse":
                Z = X[np.linspace(0, len(X) - 1, row.inducing).astype(int)]
                got, wanted = by_sparse(kernel, jnp.asarray(Z), *as_arrays), sparse(kernel, Z, X, y, noise, q)
            elif route == "grid":
                got, wanted, y = by_grid(row, kernel, *as_arrays)
            elif route == "estimator":
                model = PathwiseGPRegressor(kernel, noise, 0.0, learn=False, n_features=64).fit(X, y)
                got = Answer(*model.predict(q, return_std=True), model.log_marginal_likelihood_value_)
                wanted = exact(kernel, X, y, noise, q)
            else:
                found = pgp.fit(pgp.GPPrior(kernel=kernel, X=as_arrays[0]), as_arrays[1], as_arrays[2][0], max_steps=20)
                kernel, learnt = found.prior.kernel, np.full(len(y), found.noise_var)
                posterior = found.prior.condition(as_arrays[1], found.noise_var)
                got = Answer(posterior.mean(q), np.sqrt(np.asarray(posterior.variance(q))), found.log_density)
                wanted = exact(kernel, X, y, learnt, q)
        except ValueError as e:
            return Outcome(np.nan, np.nan, np.nan, np.nan, f"{type(e).__name__}: {str(e)[:40]}")
    said = next((str(w.message)[:60] for w in caught if issubclass(w.category, pgp.PrecisionWarning)), "")
    return compared(got, wanted, y, said)


def by_grid(row: SetUp, kernel: Any, X: Any, y: Any, noise: Any, q: Any) -> tuple[Answer, Answer, np.ndarray]:
    """Two outputs in units of their own, correlated, on a grid; beside the dense process of both."""
    units = np.array(row.outputs)
    W, kappa = np.array([[0.8], [0.5]]) * units[:, None], 0.3 * units**2
    B = (W @ W.T + np.diag(kappa)).astype(Long)
    rng = np.random.default_rng(3)
    both = np.asarray(y)[:, None] * W[:, 0] + units * np.sqrt(float(noise[0])) * rng.normal(size=(len(y), 2))
    both, variances = both.astype(X.dtype), (float(noise[0]) * units**2).astype(X.dtype)
    kernels = cast(pgp.Coregionalised(kernel, W, kappa), X.dtype)
    prior = pgp.GPPrior(kernel=kernels, X=pgp.AllOutputs(X, 2))
    posterior = prior.condition(jnp.asarray(both), jnp.asarray(variances))
    evidence = prior.log_prob(jnp.asarray(both), jnp.asarray(variances))
    K, cross, at = (
        covariance(kernel, *(np.asarray(v).astype(Long) for v in pair)) for pair in ((X, X), (q, X), (q, q))
    )
    L = cholesky(np.kron(B, K) + np.diag(np.repeat(variances.astype(Long), len(y))))
    stacked, k = both.T.reshape(-1).astype(Long), np.kron(B, cross)
    mean = (k @ solve(L, stacked)).reshape(2, -1)
    variance = (np.diag(np.kron(B, at)) - np.sum(forward(L, k.T) ** 2, axis=0)).reshape(2, -1)
    density = -0.5 * np.sum(forward(L, stacked) ** 2) - np.sum(np.log(np.diag(L))) - len(y) * np.log(2 * Long(np.pi))
    # In the unit of each output.
    at_q = pgp.with_outputs(q, 2)
    sd = np.sqrt(np.asarray(posterior.variance(at_q)))
    got = Answer((np.asarray(posterior.mean(at_q)) / units).T, (sd / units).T, evidence)
    return got, Answer(mean / units[:, None], np.sqrt(variance) / units[:, None], density), both / units


ROWS = [(name, "exact", dtype) for name in SET_UPS for dtype in PRECISION]
ROWS += [(name, "sparse", dtype) for name, row in SET_UPS.items() if row.inducing for dtype in PRECISION]
ROWS += [(name, "grid", dtype) for name, row in SET_UPS.items() if row.outputs for dtype in PRECISION]
ROWS += [
    (name, "estimator", "float64") for name in ("years, a vague trend", "noise of 1e-6", "one point", "large units")
]
ROWS += [(name, "fit", dtype) for name in ("noise of 1e-2", "small units", "large units") for dtype in PRECISION]
ROWS += [("years, a vague trend", "fit", "float64"), ("five hundred points", "exact", "float32")]
# What every one of these must be able to answer, and not only warn of.
ANSWERED = {row for row in ROWS if row[2] == "float64" and not row[0].startswith("no noise, smooth")}
ANSWERED |= {("noise of 1e-2", route, "float32") for route in ("exact", "grid", "fit")}


@pytest.mark.parametrize(("name", "route", "dtype"), ROWS, ids=lambda value: value.replace(", ", ","))
def test_defaults_are_right_to_a_hundredth_or_something_is_said(name, route, dtype):
    outcome = answer(name, route, dtype)
    assert outcome.said or outcome.worst() <= 1, outcome
    if (name, route, dtype) in ANSWERED:
        assert not outcome.said, outcome


def main() -> None:
    print("| set-up | route | precision | mean | sd | evidence | paths | said |\n| --- " * 1 + "|" + " --- |" * 7)
    for name, route, dtype in [row for row in ROWS if len(sys.argv) < 2 or sys.argv[1] in row]:
        found = answer(name, route, dtype)
        verdict = "" if found.worst() <= 1 else "SILENTLY WRONG" if not found.said else "wrong, said"
        print(
            f"| {name} | {route} | {dtype} | "
            + " | ".join(f"{v:.2g}" for v in found[:4])
            + f" | {found.said} | {verdict}",
            flush=True,
        )


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main()
