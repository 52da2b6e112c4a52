"""Integrals of kernels over boxes in closed form: of one argument, and of both."""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._features.integrals import overlap
from .._numerics.boxes import Box, double_integral_on_lines, NoClosedForm
from .base import AbstractKernel
from .dot_product import Constant
from .noise import White
from .stationary import Matern, RBF
from .transform import ActiveDims


def kernel_integral(kernel: AbstractKernel, Z: Float[Array, "n d"], box: Box) -> Float[Array, "n"]:
    """∫ k(x, z) dx over a box, for each z."""
    return _by_terms(
        kernel,
        Z.shape[1],
        lambda factor, columns: _factor_integral(factor, Z[:, np.asarray(columns)], box.along(columns)),
        lambda columns: jnp.broadcast_to(box.along(columns).volume, (Z.shape[0],)),
    )


def double_integral(kernel: AbstractKernel, box: Box, other: Box) -> Float[Array, ""]:
    """∬ k(x, z) dx dz over one box and another."""
    return _by_terms(
        kernel,
        box.lower.shape[0],
        lambda factor, columns: _factor_double(factor, box.along(columns), other.along(columns)),
        lambda columns: box.along(columns).volume * other.along(columns).volume,
    )


def has_integrals(kernel: AbstractKernel, dim: int) -> bool:
    """Whether both have a closed form."""

    def both(bounds: Float[Array, "2 d"]) -> Any:
        return kernel_integral(kernel, bounds, Box(*bounds)), double_integral(kernel, Box(*bounds), Box(*bounds))

    try:
        jax.eval_shape(both, jax.ShapeDtypeStruct((2, dim), jnp.result_type(float)))
    except NoClosedForm:
        return False
    return True


def _by_terms(
    kernel: AbstractKernel,
    dim: int,
    of_factor: Callable[[AbstractKernel, Sequence[int]], Any],
    of_rest: Callable[[Sequence[int]], Any],
) -> Any:
    """By the distributive law a sum over products, of factors in dimensions of their own, and of a volume in the others."""
    return functools.reduce(operator.add, (_of_term(term, dim, of_factor, of_rest) for term in kernel.terms(dim)))


def _of_term(kernel: AbstractKernel, dim: int, of_factor: Any, of_rest: Any) -> Any:
    pairs = [_active(factor, tuple(range(dim))) for factor in kernel.factors(dim)]
    if any(isinstance(factor, White) for factor, _ in pairs):
        return 0 * of_rest(range(dim))  # noise is no part of the function
    others = [(factor, columns) for factor, columns in pairs if not isinstance(factor, Constant)]
    if overlap([columns for _, columns in others]):
        raise NoClosedForm("the kernel", kernel.label())
    seen = {i for _, columns in others for i in columns}
    integral = of_rest([i for i in range(dim) if i not in seen])
    for factor, _ in pairs:
        if isinstance(factor, Constant):
            integral = integral * factor.variance.astype(integral.dtype)
    for factor, columns in others:
        integral = integral * of_factor(factor, columns)
    return integral


def _active(kernel: AbstractKernel, columns: tuple[int, ...]) -> tuple[AbstractKernel, tuple[int, ...]]:
    """A kernel that sees all the dimensions it is given, and the numbers of these."""
    if not isinstance(kernel, ActiveDims):
        return kernel, columns
    return _active(kernel.kernel, tuple(columns[i] for i in kernel.dims))


@functools.singledispatch
def _factor_integral(kernel: AbstractKernel, _Z: Float[Array, "n d"], _box: Box) -> Float[Array, "n"]:
    """∫ k(x, z) dx over a box."""
    raise NoClosedForm("the kernel", kernel.label())


@_factor_integral.register
def _(kernel: RBF, Z, box: Box):
    # Π_i ∫ exp(−(x − z_i)²/2ℓ_i²) dx, each by the error function.
    scale = math.sqrt(2) * jnp.broadcast_to(kernel.lengthscale, (Z.shape[1],)).astype(Z.dtype)
    far, near = ((corner[None, :] - Z) / scale[None, :] for corner in (box.upper, box.lower))
    factors = math.sqrt(math.pi) / 2 * scale[None, :] * (jax.lax.erf(far) - jax.lax.erf(near))
    return kernel.variance.astype(Z.dtype) * jnp.prod(factors, axis=1)


@_factor_integral.register
def _(kernel: Matern, Z, box: Box):
    if Z.shape[1] > 1:
        raise NoClosedForm("the kernel", f"Matern in {Z.shape[1]} dimensions")
    nu, p = kernel.nu, round(kernel.nu - 0.5)
    rate = math.sqrt(2 * nu) / jnp.broadcast_to(kernel.lengthscale, (1,)).astype(Z.dtype)[0]
    tails = _matern_tails(p)

    def antiderivative(x: Float[Array, "n"]) -> Float[Array, "n"]:
        # |x| with a slope at 0, where a bound is an input: the antiderivative is smooth there.
        side = jnp.where(x < 0, -jnp.ones_like(x), jnp.ones_like(x))
        a = side * x
        series = sum((tail / math.factorial(j) * a**j for j, tail in enumerate(tails.tolist())), jnp.zeros_like(a))
        return side * (tails[0].item() - jnp.exp(-a) * series)

    between = antiderivative((box.upper[0] - Z[:, 0]) * rate) - antiderivative((box.lower[0] - Z[:, 0]) * rate)
    return kernel.variance.astype(Z.dtype) / rate * between


def _matern_tails(p: int) -> np.ndarray:
    """t with ∫₀ᵃ k = t₀ − e^{−a} Σ_j t_j aʲ/j! for the Matérn kernel of ν = p + ½ and a = √(2ν) r."""
    # k = Σ_i c_i aⁱ e^{−a} (Rasmussen & Williams 2006, equation 4.16), and the antiderivative of aⁱ e^{−a} from 0 is
    # i! (1 − e^{−a} Σ_{j ≤ i} aʲ/j!).
    coefficients = [
        math.factorial(p) * math.factorial(2 * p - i) * 2**i / (math.factorial(2 * p) * math.factorial(p - i))
        for i in range(p + 1)
    ]  # c_i i!
    return np.cumsum(coefficients[::-1])[::-1]


@functools.singledispatch
def _factor_double(kernel: AbstractKernel, _box: Box, _other: Box) -> Float[Array, ""]:
    """∬ k(x, z) dx dz over two boxes."""
    raise NoClosedForm("the kernel", kernel.label())


@_factor_double.register
def _(kernel: RBF, box: Box, other: Box):
    scale = jnp.broadcast_to(kernel.lengthscale, box.lower.shape).astype(box.lower.dtype)
    profile = lambda u: jnp.exp(-0.5 * u * u)
    # ∫₀ᵘ (u − s) e^{−s²/2} ds
    twice = lambda u: math.sqrt(math.pi / 2) * u * jax.lax.erf(u / math.sqrt(2)) + profile(u) - 1
    powers = np.zeros(_TERMS)
    powers[::2] = [(-0.5) ** m / math.factorial(m) for m in range(_TERMS // 2)]
    lines = double_integral_on_lines(box.over(scale), other.over(scale), profile, twice, powers)
    return kernel.variance.astype(lines.dtype) * jnp.prod(lines * scale**2)


@_factor_double.register
def _(kernel: Matern, box: Box, other: Box):
    if box.lower.shape[0] > 1:
        raise NoClosedForm("the kernel", f"Matern in {box.lower.shape[0]} dimensions")
    p = round(kernel.nu - 0.5)
    scale = jnp.broadcast_to(kernel.lengthscale, (1,)).astype(box.lower.dtype) / math.sqrt(2 * kernel.nu)
    once, again = _matern_tails(p), np.cumsum(_matern_tails(p)[::-1])[::-1]
    inverse = 1 / np.array([math.factorial(j) for j in range(_TERMS)])
    slope = np.diff([*once, 0.0])  # k = e^{−a} Σ_j (t_j − t_{j+1}) aʲ/j!, the slope of what it is integrated to
    series = lambda a, tails: sum((t * c * a**j for j, (t, c) in enumerate(zip(tails, inverse, strict=False))), 0 * a)
    profile = lambda a: -jnp.exp(-a) * series(a, slope.tolist())
    twice = lambda a: once[0].item() * a - again[0].item() + jnp.exp(-a) * series(a, again.tolist())
    # Of the powers of a in k about 0.
    exponential = inverse * (-1.0) ** np.arange(_TERMS)
    powers = np.convolve(-slope * inverse[: p + 1], exponential)[:_TERMS]
    lines = double_integral_on_lines(box.over(scale), other.over(scale), profile, twice, powers)
    return kernel.variance.astype(lines.dtype) * jnp.prod(lines * scale**2)


# Of a power series about 0, used up to 1.
_TERMS = 24
