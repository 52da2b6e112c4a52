"""Quadrature rules: points and weights."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks
from .._functionals.quadrature import as_box as as_box, Quadrature as Quadrature
from .._numerics.lapack import qr
from .._numerics.pointwise import as_array
from .._types import AnyArray, Number

# Points of a rule, and coordinates of all of them, that can only be a mistake.
_MOST_POINTS, _MOST_COORDINATES = 10**7, 10**8
# Gauss-Legendre points come from the eigenvalues of a matrix with as many rows.
_MOST_ON_A_LINE = 2000


def gauss_legendre(bounds: Float[AnyArray, "2 d"], n: int | Sequence[int]) -> Quadrature:
    """The tensor product of Gauss-Legendre rules over a box: exact for polynomials of degree 2n − 1 in each coordinate.

    For functions as smooth as paths of an RBF kernel the error falls faster than any power of n, from about two points a
    lengthscale on. There are nᵈ points: see `sparse_grid` from four dimensions on.

    **Arguments:** `bounds`: lower and upper corner, `2 d`; `n`: points in each dimension, or one number for each.

    **Returns:** the rule, of Πn points.

    **Raises:** ValueError where `bounds` is not `2 d` with the lower corner first, `n` is not a whole number from one to
    2000 (for each dimension), or there would be more than 10⁷ points.
    """
    bounds = as_box(bounds)
    dim = bounds.shape[1]
    counts = list(n) if isinstance(n, (list, tuple)) else [n] * dim
    if len(counts) != dim:
        raise ValueError(f"`n` must be one number, or one for each of the {dim} dimensions; got {n!r}.")
    counts = [_checks.count(k, "n") for k in counts]
    if math.prod(counts) > _MOST_POINTS:
        raise ValueError(f"`n` asks for {math.prod(counts)} points: use fewer, or `sparse_grid`.")
    rules = [_legendre(k, "split the box") for k in counts]
    weights = _product([w for _, w in rules]).prod(axis=1)
    return Quadrature(*_on_box(_product([x for x, _ in rules]), weights, bounds))


def sparse_grid(bounds: Float[AnyArray, "2 d"], level: int) -> Quadrature:
    """Smolyak's sparse grid of nested Clenshaw-Curtis rules over a box: exact for polynomials of total degree 2·level + 1.

    In d dimensions it has of the order of 2^level · level^{d−1} points. Some weights are negative, so that rough functions
    are better integrated by `gauss_legendre` or at random points.

    **Arguments:** `bounds`: lower and upper corner, `2 d`; `level`: at least 1 (2d + 1 points).

    **Returns:** the rule.

    **Raises:** ValueError where `bounds` is not `2 d` with the lower corner first, `level` is not a whole number of at least
    one, or there would be more than 10⁷ points or 10⁸ coordinates of points (a point that belongs to several of the product
    rules counts in each). Source: Novak & Ritter (1996).
    """
    bounds = as_box(bounds)
    dim = bounds.shape[1]
    level = _checks.count(level, "level")
    most = min(_MOST_POINTS, _MOST_COORDINATES // dim)
    if 2 ** min(level, 64) > most or _sparse_size(dim, level) > most:
        raise ValueError(f"`level` {level} in {dim} dimensions asks for more than {most} points: use a lower one.")
    rules = [_clenshaw_curtis(k, level) for k in range(level + 1)]
    indices, weights = [], []
    # The combination technique: products of rules whose levels add up to one from level − d + 1 to level.
    for total in range(max(0, level - dim + 1), level + 1):
        factor = (-1) ** (level - total) * math.comb(dim - 1, level - total)
        for n_active in range(min(1, total), min(total, dim) + 1):
            # In all dimensions but these the rule is that of level 0, one point in the middle of weight 2.
            active = np.array(list(itertools.combinations(range(dim), n_active)), int)[:, None, :]
            for levels in _compositions(total, n_active):
                grid = _product([rules[k][0] for k in levels])
                products = factor * 2.0 ** (dim - n_active) * _product([rules[k][1] for k in levels]).prod(axis=1)
                points = np.full((active.shape[0], grid.shape[0], dim), 2 ** (level - 1), np.int32)
                np.put_along_axis(points, np.broadcast_to(active, (*points.shape[:2], n_active)), grid[None], axis=2)
                indices.append(points.reshape(-1, dim))
                weights.append(np.tile(products, active.shape[0]))
    # The rules are nested: points are numbered on the finest of them, and each is kept once.
    unique, which = np.unique(np.concatenate(indices), axis=0, return_inverse=True)
    total = np.bincount(which.reshape(-1), np.concatenate(weights))
    return Quadrature(*_on_box(_chebyshev(unique, 2**level), total, bounds))


def line(curve: Callable[..., Any], a: Number, b: Number, n: int) -> Quadrature:
    """A Gauss-Legendre rule along a curve: ∫ f ds = ∫ₐᵇ f(c(t)) |c′(t)| dt.

    `integrate` takes it for line integrals of scalar functions, `circulation` for those of vector fields along the tangent,
    and in the plane `flux` for those across the curve: to its right, which is outward where it runs anticlockwise. Where b
    is below a the curve runs the other way. A curve with corners is made of several rules.

    **Arguments:** `curve`: c, a differentiable function of a scalar that returns a point, `d`; `a`, `b`: where it begins and
    ends; `n`: points.

    **Returns:** the rule, with tangents, and in the plane with normals.

    **Raises:** ValueError where the curve does not return a point, a bound is not a finite scalar, or `n` is not a whole
    number from one to 2000.
    """
    ends = [_checks.floating(bound, name) for name, bound in (("a", a), ("b", b))]
    for name, bound in zip("ab", ends, strict=True):
        if bound.ndim:
            raise ValueError(f"`{name}` must be a scalar; got shape {bound.shape}.")
        _checks.finite(bound, name)
    nodes, weights = _legendre(_checks.count(n, "n"), "make several rules of parts of the curve")
    times, weights = _between(nodes, weights, *ends)
    position = lambda u: as_array(curve(u), u, "curve")
    # A curve is any function, and is not compiled: what it closes over may change.
    points, velocities = jax.vmap(lambda u: jax.jvp(position, (u,), (jnp.ones_like(u),)))(times)
    if points.ndim != 2:
        raise ValueError(f"`curve` must return a point of shape (d,); got {points.shape[1:]}.")
    return Quadrature(points, *_along(velocities, weights))


def surface(parametrisation: Callable[..., Any], bounds: Float[AnyArray, "2 k"], n: int | Sequence[int]) -> Quadrature:
    """A Gauss-Legendre rule on a surface: ∫ f dA = ∫ f(x(u)) √det(JᵀJ) du with the Jacobian J of x(u).

    **Arguments:** `parametrisation`: x, a differentiable function that maps parameters `k` to a point `d`, k ≤ d; `bounds`:
    the box of the parameters, `2 k`; `n`: points in each of them, or one number for each.

    **Returns:** the rule; for surfaces in space (k = 2, d = 3) with the normals ∂x/∂u₁ × ∂x/∂u₂ of length 1, for `flux`.

    **Raises:** ValueError as for `gauss_legendre`, or where the parametrisation does not return a point of at least k
    dimensions.
    """
    flat = gauss_legendre(bounds, n)
    k = flat.points.shape[1]
    position = lambda u: as_array(parametrisation(u), u, "parametrisation")
    points = jax.vmap(position)(flat.points)
    if points.ndim != 2 or points.shape[1] < k:
        raise ValueError(
            f"`parametrisation` must map {k} parameter(s) to a point of shape (d,), d ≥ {k}; got {points.shape[1:]}."
        )
    weights, normals = _on_surface(jax.vmap(jax.jacfwd(position))(flat.points), flat.weights)
    return Quadrature(points, weights, normals=normals)


@jax.jit
def _on_box(
    nodes: Float[AnyArray, "m d"], weights: Float[AnyArray, "m"], bounds: Float[Array, "2 d"]
) -> tuple[Float[Array, "m d"], Float[Array, "m"]]:
    """Points and weights of a rule on [−1, 1]ᵈ, moved to a box."""
    lower, upper = bounds
    half = (upper - lower) / 2
    points = ((lower + upper) / 2)[None, :] + half[None, :] * jnp.asarray(nodes, half.dtype)
    return points, jnp.prod(half) * jnp.asarray(weights, half.dtype)


@jax.jit
def _between(
    nodes: Float[AnyArray, "m"], weights: Float[AnyArray, "m"], start: Float[Array, ""], stop: Float[Array, ""]
) -> tuple[Float[Array, "m"], Float[Array, "m"]]:
    """Points and weights of a rule on [−1, 1], moved to between two ends; weights are negative where it runs backwards."""
    dtype = jnp.result_type(start, stop)
    start, stop, nodes, weights = (jnp.asarray(part, dtype) for part in (start, stop, nodes, weights))
    return (start + stop) / 2 + (stop - start) / 2 * nodes, (stop - start) / 2 * weights


@jax.jit
def _along(
    velocities: Float[Array, "m d"], weights: Float[Array, "m"]
) -> tuple[Float[Array, "m"], Float[Array, "m d"], Float[Array, "m d"] | None]:
    """Weights, tangents and normals of a rule on a curve from those of its parameter."""
    way = jnp.where(weights < 0, -jnp.ones_like(weights), jnp.ones_like(weights))
    speeds, tangents = _normalised(way[:, None] * velocities)
    normals = jnp.stack([tangents[:, 1], -tangents[:, 0]], axis=1) if velocities.shape[1] == 2 else None
    return way * weights * speeds, tangents, normals


@jax.jit
def _on_surface(
    J: Float[Array, "m d k"], weights: Float[Array, "m"]
) -> tuple[Float[Array, "m"], Float[Array, "m d"] | None]:
    """Weights and normals of a rule on a surface from its Jacobian and the weights of its parameters."""
    if J.shape[1:] == (3, 2):
        areas, normals = _normalised(jnp.cross(J[:, :, 0], J[:, :, 1]))
    else:
        areas, normals = jnp.abs(jnp.prod(jnp.diagonal(jax.vmap(qr)(J).R, axis1=1, axis2=2), axis=1)), None
    return weights * areas, normals


def _legendre(n: int, instead: str) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights on [−1, 1]."""
    if n > _MOST_ON_A_LINE:
        raise ValueError(f"`n` asks for {n} points in one dimension, more than {_MOST_ON_A_LINE}: {instead}.")
    return np.polynomial.legendre.leggauss(n)


def _product(parts: list[np.ndarray]) -> np.ndarray:
    """All ways to take one entry of each part, the last varying fastest: `m d`, of any d."""
    sizes = [part.shape[0] for part in parts]
    ends = [(math.prod(sizes[:i]), math.prod(sizes[i + 1 :])) for i in range(len(parts))]
    columns = [np.tile(np.repeat(part, inner), outer) for part, (outer, inner) in zip(parts, ends, strict=True)]
    return np.stack(columns, axis=1) if columns else np.zeros((1, 0), int)


def _compositions(total: int, n: int) -> list[tuple[int, ...]]:
    """The ways to write a number as a sum of n numbers of at least 1."""
    if n == 0:
        return [()]
    bars = itertools.combinations(range(1, total), n - 1)
    return [tuple(np.diff([0, *bar, total]).tolist()) for bar in bars]


def _sparse_size(dim: int, level: int) -> int:
    """Points of all product rules of a sparse grid together."""
    # Σ over levels k₁ + … + k_d of each total of Π sizes: coefficients of the d-th power of Σ_k size_k x^k.
    sizes = [1] + [2**k + 1 for k in range(1, level + 1)]

    def times(a: list[int], b: list[int]) -> list[int]:
        return [sum(a[i] * b[k - i] for i in range(k + 1)) for k in range(level + 1)]

    power, factor = [1] + [0] * level, sizes
    for bit in reversed(f"{dim:b}"):  # by squaring
        power, factor = times(power, factor) if bit == "1" else power, times(factor, factor)
    return sum(power[max(0, level - dim + 1) :])


def _chebyshev(index: np.ndarray, n: int) -> np.ndarray:
    """Node number `index` of the n + 1 nodes −cos(πi/n); odd about the middle, so that the middle is 0."""
    return np.sin(np.pi * (2 * index - n) / (2 * n))


def _clenshaw_curtis(k: int, finest: int) -> tuple[np.ndarray, np.ndarray]:
    """Rule k on [−1, 1], of 1, 3, 5, 9, … points: their numbers among those of the finest rule, and the weights.

    Trefethen (2008), section 2: the integral of the polynomial through the values, in closed form.
    """
    if k == 0:
        return np.array([2 ** (finest - 1)]), np.array([2.0])
    n = 2**k
    # Σ_j 2/(1 − 4j²) cos(2πij/n), with the first and the last term halved, is n/2 times an inverse Fourier transform.
    sums = np.fft.irfft(2 / (1 - 4.0 * np.arange(n // 2 + 1) ** 2), n)
    weights = np.concatenate([[sums[0] / 2], sums[1:], [sums[0] / 2]])
    return np.arange(n + 1) * 2 ** (finest - k), weights


def _normalised(vectors: Float[Array, "m d"]) -> tuple[Float[Array, "m"], Float[Array, "m d"]]:
    """Lengths and directions; a vector of length zero has the direction zero."""
    squares = jnp.sum(vectors * vectors, axis=1)
    zero = squares == 0  # where a square root has no derivative
    lengths = jnp.where(zero, jnp.zeros_like(squares), jnp.sqrt(jnp.where(zero, jnp.ones_like(squares), squares)))
    return lengths, vectors / jnp.where(zero, jnp.ones_like(squares), lengths)[:, None]
