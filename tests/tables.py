"""The kernels that the tests go through, one row each, with their formulas in plain numpy."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

import pathwise_gp as pgp

Formula = Callable[[Any, np.ndarray, np.ndarray], np.ndarray]


def points(n: int, dim: int, seed: int = 0) -> np.ndarray:
    """Inputs about one lengthscale apart, in any number of dimensions."""
    return np.random.default_rng(seed).uniform(-1.5, 1.5, (n, dim)) / math.sqrt(dim)


N_CATEGORIES = 3


def indexed(n: int, dim: int, seed: int = 0) -> np.ndarray:
    """The same with categories in the last column."""
    X = points(n, dim, seed)
    X[:, -1] = (np.arange(n) + seed) % N_CATEGORIES
    return X


class Row(NamedTuple):
    """One kernel.

    **Fields:**

    - `make`: the kernel for inputs of a number of dimensions.
    - `formula`: its matrix by an independent route, from the fields of the kernel.
    - `smooth`: derivatives of k(·, z) at z along a line, at most 8.
    - `random`: in how many dimensions its features are random.
    - `dims`: for how many dimensions there is such a kernel.
    - `points`: inputs.
    """

    make: Callable[[int], pgp.AbstractKernel]
    formula: Formula
    smooth: int = 8
    random: tuple[int, ...] = (1, 3)
    dims: tuple[int, ...] = (1, 3, 8)
    points: Callable[..., np.ndarray] = points

    def continuous(self, dim: int) -> int:
        """How many of the dimensions can be differentiated in."""
        return dim if self.points is points else dim - 1


def _ard(dim: int) -> np.ndarray:
    return np.linspace(0.7, 1.3, dim)


def _dims(dim: int) -> tuple[int, ...]:
    return (0,) if dim == 1 else (dim - 1, 0)


def _squares(k: Any, X: np.ndarray, Z: np.ndarray) -> np.ndarray:
    return np.sum(((X[:, None, :] - Z[None, :, :]) / np.asarray(k.lengthscale)) ** 2, axis=2)


def _rbf(k: Any, X: np.ndarray, Z: np.ndarray) -> np.ndarray:
    return float(k.variance) * np.exp(-0.5 * _squares(k, X, Z))


def _matern(k: Any, X: np.ndarray, Z: np.ndarray) -> np.ndarray:
    nu, r = k.nu, np.sqrt(_squares(k, X, Z))
    a = math.sqrt(2 * nu) * np.where(r > 0, r, 1)
    log = (1 - nu) * math.log(2) - special.gammaln(nu) + nu * np.log(a) + np.log(special.kve(nu, a)) - a
    return float(k.variance) * np.where(r > 0, np.exp(log), 1)


def _rational_quadratic(k: Any, X: np.ndarray, Z: np.ndarray) -> np.ndarray:
    alpha = float(k.alpha)
    return float(k.variance) * (1 + _squares(k, X, Z) / (2 * alpha)) ** -alpha


def _periodic(k: Any, X: np.ndarray, Z: np.ndarray) -> np.ndarray:
    sine = np.sin(np.pi * (X[:, None, :] - Z[None, :, :]) / np.asarray(k.period))
    return float(k.variance) * np.exp(-2 * np.sum((sine / np.asarray(k.lengthscale)) ** 2, axis=2))


def _linear(k: Any, X: np.ndarray, Z: np.ndarray) -> np.ndarray:
    return float(k.variance) * np.einsum("ni,mi->nm", X, Z)


def _cosine(k: Any, X: np.ndarray, Z: np.ndarray) -> np.ndarray:
    turns = np.sum((X[:, None, :] - Z[None, :, :]) / np.asarray(k.period), axis=2)
    return float(k.variance) * np.cos(2 * np.pi * turns)


def _spectral_mixture(k: Any, X: np.ndarray, Z: np.ndarray) -> np.ndarray:
    t = X[:, None, None, :] - Z[None, :, None, :]
    means, scales = np.asarray(k.means), np.asarray(k.scales)
    parts = np.exp(-2 * np.pi**2 * (t * scales) ** 2) * np.cos(2 * np.pi * t * means)
    return np.prod(parts, axis=3) @ np.asarray(k.weights)


def _polynomial(k: Any, X: np.ndarray, Z: np.ndarray) -> np.ndarray:
    return float(k.variance) * (X @ Z.T + float(k.offset)) ** k.degree


def _arc_cosine(k: Any, X: np.ndarray, Z: np.ndarray) -> np.ndarray:
    # Cho & Saul (2009), equations 3 to 6. The angle from twice the area: arccos loses half the digits at small angles.
    dot = X @ Z.T
    x, z = np.linalg.norm(X, axis=1)[:, None], np.linalg.norm(Z, axis=1)[None, :]
    crosses = X[:, None, :, None] * Z[None, :, None, :] - X[:, None, None, :] * Z[None, :, :, None]
    theta = np.arctan2(np.sqrt(np.sum(crosses**2, axis=(2, 3)) / 2), dot)
    J = [
        np.pi - theta,
        np.sin(theta) + (np.pi - theta) * np.cos(theta),
        3 * np.sin(theta) * np.cos(theta) + (np.pi - theta) * (1 + 2 * np.cos(theta) ** 2),
    ][k.order]
    return float(k.variance) / np.pi * (x * z) ** k.order * J


def _categorical(k: Any, X: np.ndarray, Z: np.ndarray) -> np.ndarray:
    return float(k.variance) * (X == Z.T)


def _index(k: Any, X: np.ndarray, Z: np.ndarray) -> np.ndarray:
    B = np.asarray(k.W) @ np.asarray(k.W).T + np.diag(np.asarray(k.kappa))
    return B[np.ix_(X[:, 0].astype(int), Z[:, 0].astype(int))]


def _coregionalised(part: Formula) -> Formula:
    return lambda k, X, Z: part(k.kernel, X[:, :-1], Z[:, :-1]) * _index(k, X[:, -1:], Z[:, -1:])


def _warped(part: Formula) -> Formula:
    return lambda k, X, Z: part(
        k.kernel, np.array([bend(k.transform, x) for x in X]), np.array([bend(k.transform, z) for z in Z])
    )


def bend(transform: Any, x: np.ndarray) -> np.ndarray:
    x = x + float(transform.strength) * np.sin(2 * x + np.asarray(transform.shift)[: x.size])
    return np.append(x, np.sum(x**2) / 4)


class Bend(eqx.Module):
    """A smooth map of d dimensions to d + 1."""

    strength: jax.Array
    shift: jax.Array

    def __call__(self, x):
        x = x + self.strength * jnp.sin(2 * x + self.shift[: x.size])
        return jnp.append(x, jnp.sum(x**2) / 4)


def _constant(k: Any, X: np.ndarray, Z: np.ndarray) -> np.ndarray:
    return float(k.variance) * np.ones((len(X), len(Z)))


def _sum(*parts: Formula) -> Formula:
    return lambda k, X, Z: sum(part(kernel, X, Z) for part, kernel in zip(parts, k.kernels, strict=True))


def _product(*parts: Formula) -> Formula:
    return lambda k, X, Z: math.prod(part(kernel, X, Z) for part, kernel in zip(parts, k.kernels, strict=True))


def _active(part: Formula) -> Formula:
    return lambda k, X, Z: part(k.kernel, X[:, list(k.dims)], Z[:, list(k.dims)])


def matern(nu: float) -> pgp.Matern:
    return pgp.Matern(nu=nu, variance=1.4, lengthscale=0.8)


RBF = pgp.RBF(variance=1.3, lengthscale=0.9)
PERIODIC = pgp.Periodic(variance=1.2, lengthscale=1.1, period=1.7)
BEND = Bend(jnp.asarray(np.float64(0.3)), jnp.asarray(np.linspace(-1.0, 1.0, 8)))
W, KAPPA = np.array([[0.9], [-0.5], [0.3]]), np.array([0.3, 0.5, 0.2])


def mixture(dim: int) -> pgp.SpectralMixture:
    means = 0.4 * np.array([1.0, -0.6])[:, None] * _ard(dim)[None, :]
    return pgp.SpectralMixture([0.8, 0.5], means, 0.2 * np.array([0.8, 1.3])[:, None] * _ard(dim)[None, ::-1])


def arc(order: int) -> pgp.ArcCosine:
    return pgp.ArcCosine(variance=1.3, order=order)


def last(kernel: pgp.AbstractKernel, dim: int) -> pgp.AbstractKernel:
    """RBF in all but the last dimension, times a kernel of that."""
    if dim == 1:
        return kernel
    return pgp.ActiveDims(RBF, range(dim - 1)) * pgp.ActiveDims(kernel, (dim - 1,))


def _last(part: Formula) -> Formula:
    return lambda k, X, Z: part(k, X, Z) if X.shape[1] == 1 else _product(_active(_rbf), _active(part))(k, X, Z)


LINEAR, CONSTANT = pgp.Linear(variance=0.6), pgp.Constant(variance=0.4)

KERNELS = {
    "RBF": Row(lambda d: RBF, _rbf),
    "RBF ARD": Row(lambda d: pgp.RBF(variance=0.7, lengthscale=_ard(d)), _rbf, random=(1, 3, 8)),
    "Matern 1/2": Row(lambda d: matern(0.5), _matern, smooth=0),
    "Matern 3/2": Row(lambda d: matern(1.5), _matern, smooth=2),
    "Matern 5/2": Row(lambda d: matern(2.5), _matern, smooth=4),
    "Matern 7/2": Row(lambda d: matern(3.5), _matern, smooth=6),
    "Matern 21/2": Row(lambda d: matern(10.5), _matern),
    "Matern 5/2 ARD": Row(
        lambda d: pgp.Matern(nu=2.5, variance=1.4, lengthscale=_ard(d)), _matern, smooth=4, random=(1, 3, 8)
    ),
    "RationalQuadratic": Row(
        lambda d: pgp.RationalQuadratic(variance=1.1, lengthscale=0.8, alpha=1.6), _rational_quadratic
    ),
    "RationalQuadratic ARD": Row(
        lambda d: pgp.RationalQuadratic(variance=1.1, lengthscale=_ard(d), alpha=0.7),
        _rational_quadratic,
        random=(1, 3, 8),
    ),
    "Periodic": Row(lambda d: PERIODIC, _periodic, random=(3,)),
    "Periodic ARD": Row(
        lambda d: pgp.Periodic(variance=0.8, lengthscale=1.2 * _ard(d), period=2 * _ard(d)[::-1]),
        _periodic,
        random=(3, 8),
    ),
    "Linear": Row(lambda d: LINEAR, _linear, random=()),
    "Constant": Row(lambda d: CONSTANT, _constant, random=()),
    "Linear * Linear": Row(lambda d: LINEAR * LINEAR, _product(_linear, _linear), random=()),
    "(Linear + 0.5) * (Linear + 2)": Row(
        lambda d: (LINEAR + 0.5) * (LINEAR + 2),
        _product(_sum(_linear, _constant), _sum(_linear, _constant)),
        random=(),
    ),
    "RBF + Matern 5/2": Row(lambda d: RBF + matern(2.5), _sum(_rbf, _matern), smooth=4, random=(3,)),
    "RBF + 1.0": Row(lambda d: RBF + 1.0, _sum(_rbf, _constant), random=(1,)),
    "2.0 * RBF": Row(lambda d: 2.0 * RBF, _product(_constant, _rbf), random=(3,)),
    "RBF * Matern 5/2": Row(lambda d: RBF * matern(2.5), _product(_rbf, _matern), smooth=4, random=(1,)),
    "Linear * RBF": Row(lambda d: LINEAR * RBF, _product(_linear, _rbf), random=(3,)),
    "Periodic * RBF": Row(lambda d: PERIODIC * RBF, _product(_periodic, _rbf)),
    "(RBF + Linear) * (Matern 5/2 + 0.5)": Row(
        lambda d: (RBF + LINEAR) * (matern(2.5) + 0.5),
        _product(_sum(_rbf, _linear), _sum(_matern, _constant)),
        smooth=4,
        random=(3,),
    ),
    "ActiveDims": Row(
        lambda d: pgp.ActiveDims(pgp.RBF(variance=0.9, lengthscale=_ard(len(_dims(d)))), _dims(d)), _active(_rbf),
        random=(3,),
    ),
    "2.0 * (ActiveDims(RBF + Linear) * RationalQuadratic + 0.3)": Row(
        lambda d: 2.0 * (
            pgp.ActiveDims(RBF + LINEAR, _dims(d)) * pgp.RationalQuadratic(variance=1.0, lengthscale=1.1, alpha=2.0)
            + 0.3
        ),
        _product(_constant, _sum(_product(_active(_sum(_rbf, _linear)), _rational_quadratic), _constant)),
        random=(3,),
    ),
    "Cosine": Row(lambda d: pgp.Cosine(variance=1.2, period=2.3), _cosine, random=()),
    "Cosine ARD": Row(lambda d: pgp.Cosine(variance=0.8, period=3 * _ard(d)), _cosine, random=()),
    "Cosine * RBF": Row(lambda d: pgp.Cosine(variance=1.2, period=2.3) * RBF, _product(_cosine, _rbf), random=(3,)),
    "SpectralMixture": Row(mixture, _spectral_mixture, random=(1, 3, 8)),
    "SpectralMixture * RBF": Row(lambda d: mixture(d) * RBF, _product(_spectral_mixture, _rbf), random=(3,)),
    "Polynomial": Row(lambda d: pgp.Polynomial(variance=0.7, offset=0.6, degree=3), _polynomial, random=()),
    "Polynomial * RBF": Row(
        lambda d: pgp.Polynomial(variance=0.7, offset=0.6, degree=1) * RBF, _product(_polynomial, _rbf),
        random=(3,),
    ),
    "ArcCosine 0": Row(lambda d: arc(0), _arc_cosine, smooth=0, random=(3,)),
    "ArcCosine 1": Row(lambda d: arc(1), _arc_cosine, smooth=2, random=(3, 8)),
    "ArcCosine 2": Row(lambda d: arc(2), _arc_cosine, smooth=4, random=(3,)),
    "ArcCosine 1 * RBF": Row(lambda d: arc(1) * RBF, _product(_arc_cosine, _rbf), smooth=2, random=(3,)),
    "ArcCosine 1 * ArcCosine 2 * RBF * Linear": Row(
        lambda d: arc(1) * arc(2) * RBF * LINEAR, _product(_arc_cosine, _arc_cosine, _rbf, _linear), smooth=2,
        random=(3,),
    ),
    "RBF + White": Row(lambda d: RBF + pgp.White(0.3), lambda k, X, Z: _rbf(k.kernels[0], X, Z), random=(1,)),
    "Warped RBF": Row(lambda d: pgp.Warped(pgp.RBF(variance=0.9, lengthscale=_ard(d + 1)), BEND), _warped(_rbf), random=(3,)),
    "Warped(RBF + Linear * Matern 5/2)": Row(
        lambda d: pgp.Warped(RBF + LINEAR * matern(2.5), BEND),
        _warped(_sum(_rbf, _product(_linear, _matern))),
        smooth=4,
        random=(1,),
    ),
    "Warped RBF * Warped Matern 5/2 * Periodic": Row(
        lambda d: pgp.Warped(RBF, BEND) * pgp.Warped(matern(2.5), BEND) * PERIODIC,
        _product(_warped(_rbf), _warped(_matern), _periodic),
        smooth=4,
        random=(1,),
    ),
    "Categorical": Row(
        lambda d: last(pgp.Categorical(1.2, N_CATEGORIES), d), _last(_categorical), random=(3,), points=indexed
    ),
    "Index": Row(lambda d: last(pgp.Index(W, KAPPA), d), _last(_index), random=(3,), points=indexed),
    "Coregionalised": Row(
        lambda d: pgp.Coregionalised(RBF, W, KAPPA), _coregionalised(_rbf), random=(3,), dims=(3, 8), points=indexed
    ),
    "Coregionalised + Coregionalised": Row(
        lambda d: pgp.Coregionalised(RBF, W, KAPPA) + pgp.Coregionalised(matern(2.5), W[::-1], KAPPA),
        _sum(_coregionalised(_rbf), _coregionalised(_matern)),
        smooth=4,
        random=(3,),
        dims=(3, 8),
        points=indexed,
    ),
    "Coregionalised(Linear + ArcCosine 1) * RBF": Row(
        lambda d: pgp.Coregionalised(LINEAR + arc(1), W, KAPPA) * pgp.ActiveDims(RBF, (0,)),
        _product(_coregionalised(_sum(_linear, _arc_cosine)), _active(_rbf)),
        smooth=2,
        random=(3,),
        dims=(3, 8),
        points=indexed,
    ),
}  # fmt: skip


class Counted(pgp.AbstractKernel):
    """Notes every time that Python runs through its matrix: when tracing, and never else."""

    kernel: pgp.RBF

    def matrix(self, X, Z):
        CALLS.append(None)
        return self.kernel.matrix(X, Z)

    def coordinates(self, dim):
        return self.kernel.coordinates(dim)

    def smoothness(self, dim):
        return self.kernel.smoothness(dim)

    def spectrum(self, normals, dim):
        return self.kernel.spectrum(normals, dim)


CALLS = []
