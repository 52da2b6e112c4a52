"""The kernels that the tests go through, one row each, with their formulas in plain numpy."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import special

import pathwise_gp as pgp

Formula = Callable[[Any, np.ndarray, np.ndarray], np.ndarray]


class Row(NamedTuple):
    """One kernel.

    **Fields:**

    - `make`: the kernel for inputs of a number of dimensions.
    - `formula`: its matrix by an independent route, from the fields of the kernel.
    - `smooth`: derivatives of k(·, z) at z along a line, at most 8.
    - `random`: in how many dimensions its features are random.
    """

    make: Callable[[int], pgp.AbstractKernel]
    formula: Formula
    smooth: int = 8
    random: tuple[int, ...] = (1, 3, 8)


def points(n: int, dim: int, seed: int = 0) -> np.ndarray:
    """Inputs about one lengthscale apart, in any number of dimensions."""
    return np.random.default_rng(seed).uniform(-1.5, 1.5, (n, dim)) / math.sqrt(dim)


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
LINEAR, CONSTANT = pgp.Linear(variance=0.6), pgp.Constant(variance=0.4)

KERNELS = {
    "RBF": Row(lambda d: RBF, _rbf),
    "RBF ARD": Row(lambda d: pgp.RBF(variance=0.7, lengthscale=_ard(d)), _rbf),
    "Matern 1/2": Row(lambda d: matern(0.5), _matern, smooth=0),
    "Matern 3/2": Row(lambda d: matern(1.5), _matern, smooth=2),
    "Matern 5/2": Row(lambda d: matern(2.5), _matern, smooth=4),
    "Matern 7/2": Row(lambda d: matern(3.5), _matern, smooth=6),
    "Matern 21/2": Row(lambda d: matern(10.5), _matern),
    "Matern 5/2 ARD": Row(lambda d: pgp.Matern(nu=2.5, variance=1.4, lengthscale=_ard(d)), _matern, smooth=4),
    "RationalQuadratic": Row(
        lambda d: pgp.RationalQuadratic(variance=1.1, lengthscale=0.8, alpha=1.6), _rational_quadratic
    ),
    "RationalQuadratic ARD": Row(
        lambda d: pgp.RationalQuadratic(variance=1.1, lengthscale=_ard(d), alpha=0.7), _rational_quadratic
    ),
    "Periodic": Row(lambda d: PERIODIC, _periodic, random=(3, 8)),
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
    "RBF + Matern 5/2": Row(lambda d: RBF + matern(2.5), _sum(_rbf, _matern), smooth=4),
    "RBF + 1.0": Row(lambda d: RBF + 1.0, _sum(_rbf, _constant)),
    "2.0 * RBF": Row(lambda d: 2.0 * RBF, _product(_constant, _rbf)),
    "RBF * Matern 5/2": Row(lambda d: RBF * matern(2.5), _product(_rbf, _matern), smooth=4),
    "Linear * RBF": Row(lambda d: LINEAR * RBF, _product(_linear, _rbf)),
    "Periodic * RBF": Row(lambda d: PERIODIC * RBF, _product(_periodic, _rbf)),
    "(RBF + Linear) * (Matern 5/2 + 0.5)": Row(
        lambda d: (RBF + LINEAR) * (matern(2.5) + 0.5),
        _product(_sum(_rbf, _linear), _sum(_matern, _constant)),
        smooth=4,
    ),
    "ActiveDims": Row(
        lambda d: pgp.ActiveDims(pgp.RBF(variance=0.9, lengthscale=_ard(len(_dims(d)))), _dims(d)), _active(_rbf)
    ),
    "2.0 * (ActiveDims(RBF + Linear) * RationalQuadratic + 0.3)": Row(
        lambda d: 2.0 * (
            pgp.ActiveDims(RBF + LINEAR, _dims(d)) * pgp.RationalQuadratic(variance=1.0, lengthscale=1.1, alpha=2.0)
            + 0.3
        ),
        _product(_constant, _sum(_product(_active(_sum(_rbf, _linear)), _rational_quadratic), _constant)),
    ),
}  # fmt: skip
