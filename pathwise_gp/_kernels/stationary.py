"""Kernels of the scaled distance r² = Σ_i (x_i − z_i)² / ℓ_i²."""

import abc
import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _fields
from .._features import Coordinates
from .._numerics.distances import squared_distances
from .._numerics.exponential import decay
from .._numerics.linalg import inner
from .._numerics.quantiles import log_gamma, radius
from .._types import Numbers
from .base import AbstractKernel, Spectrum

# A correlation that counts as none.
_UNCORRELATED = 1e-4
# Of the trapezoidal rule over the mixture of a rational quadratic kernel.
_MIXTURE_NODES, _MIXTURE_WIDTH = 512, 60.0


class AbstractStationary(AbstractKernel):
    """k(x, z) = variance · ρ(r²). A subclass gives ρ and the law of its frequencies."""

    variance: eqx.AbstractVar[Float[Array, ""]]
    lengthscale: eqx.AbstractVar[Float[Array, "*d"]]

    @abc.abstractmethod
    def correlation(self, squares: Float[Array, "n m"]) -> Float[Array, "n m"]:
        """ρ(r²), a function with finite derivatives at r² = 0 wherever k has them at x = z."""

    @abc.abstractmethod
    def lengths(self, normals: Float[Array, "h r"], dim: int) -> Float[Array, "h"]:
        """‖2πℓω‖ for frequencies ω of the spectral law, from standard normal variables."""

    @abc.abstractmethod
    def spectral_density_at(self, squares: Float[Array, "h"], dim: int) -> Float[Array, "h"]:
        """(2π)^{d/2} times the density of 2πℓω at a squared length; 1 at 0 for the RBF kernel."""

    def matrix(self, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
        squares = squared_distances(X, Z, jnp.broadcast_to(self.lengthscale, (X.shape[1],)).astype(X.dtype))
        return self.variance.astype(X.dtype) * self.correlation(squares)

    def diagonal(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return jnp.broadcast_to(self.variance.astype(X.dtype), (X.shape[0],))

    # With s = r² and w = 1/ℓ² of each dimension, k = variance · ρ(s) has derivatives by the chain rule, of which ρ′, ρ″, …
    # are the same for all dimensions.

    def gradients(self, Z: Float[Array, "m d"], X: Float[Array, "n d"]) -> Float[Array, "m n d"]:
        step, (_, first) = self._step(Z, X), self._derivatives(Z, X, 1)
        return 2 * first[:, :, None] * step

    def double_gradients(self, Z: Float[Array, "m d"], X: Float[Array, "n d"]) -> Float[Array, "m d n d"]:
        step, (_, first, second) = self._step(Z, X), self._derivatives(Z, X, 2)
        outer = (-4 * second[:, :, None] * step).transpose(0, 2, 1)[:, :, :, None] * step[:, None, :, :]
        diagonal = jnp.diag(self._rates(X))[None, :, None, :]
        return outer - 2 * first[:, None, :, None] * diagonal

    def laplacians(self, Z: Float[Array, "m d"], X: Float[Array, "n d"]) -> Float[Array, "m n"]:
        step, (_, first, second) = self._step(Z, X), self._derivatives(Z, X, 2)
        return 4 * second * jnp.sum(step * step, axis=2) + 2 * first * jnp.sum(self._rates(X))

    def double_laplacians(self, Z: Float[Array, "m d"], X: Float[Array, "n d"]) -> Float[Array, "m n"]:
        step, (_, _, second, third, fourth) = self._step(Z, X), self._derivatives(Z, X, 4)
        w = self._rates(X)
        squares, weighted = jnp.sum(step * step, axis=2), jnp.sum(step * step * w[None, None, :], axis=2)
        of_third = 16 * jnp.sum(w) * squares + 32 * weighted
        # At coincident points the fourth derivative of a rough kernel is infinite, and its factor goes to zero faster.
        quartic = jnp.where(squares * squares > 0, fourth, jnp.zeros_like(fourth)) * squares**2
        return 16 * quartic + of_third * third + (8 * jnp.sum(w * w) + 4 * jnp.sum(w) ** 2) * second

    def _rates(self, X: Float[Array, "n d"]) -> Float[Array, "d"]:
        return 1 / jnp.broadcast_to(self.lengthscale, (X.shape[1],)).astype(X.dtype) ** 2

    def _step(self, Z: Float[Array, "m d"], X: Float[Array, "n d"]) -> Float[Array, "m n d"]:
        """½∇ₓs = w(x − z)."""
        return (X[None, :, :] - Z[:, None, :]) * self._rates(X)[None, None, :]

    def _derivatives(self, Z: Float[Array, "m d"], X: Float[Array, "n d"], order: int) -> list[Float[Array, "m n"]]:
        """variance · (ρ, ρ′, …) at s."""
        squares = squared_distances(Z, X, jnp.broadcast_to(self.lengthscale, (X.shape[1],)).astype(X.dtype))
        functions: list[Callable[[Array], Array]] = [self.correlation]
        for _ in range(order):
            functions.append(_slope(functions[-1]))
        return [self.variance.astype(X.dtype) * function(squares) for function in functions]

    def coordinates(self, dim: int) -> Coordinates:
        # The length of a frequency and, but for its sign, a direction.
        return Coordinates(1, (0,)) if dim == 1 else Coordinates(dim + 1, (0,), ((1, dim + 1),))

    def spectrum(self, normals: Float[Array, "h r"], dim: int) -> Spectrum:
        # The law on ℝᵈ: one length a frequency, shared by its coordinates.
        lengths = self.lengths(normals, dim)[:, None]
        scale = 2 * math.pi * jnp.broadcast_to(self.lengthscale, (dim,))
        frequencies = lengths * unit_vectors(normals, dim) / scale[None, :]
        return Spectrum(frequencies, jnp.broadcast_to(self.variance, (normals.shape[0],)))

    def spectral_density(self, frequencies: Float[Array, "h d"]) -> Float[Array, "h"]:
        dim = frequencies.shape[1]
        lengthscale = jnp.broadcast_to(self.lengthscale, (dim,)).astype(frequencies.dtype)
        squares = jnp.sum((2 * math.pi * frequencies * lengthscale[None, :]) ** 2, axis=1)
        volume = (2 * math.pi) ** (dim / 2) * jnp.prod(lengthscale)
        return self.variance.astype(frequencies.dtype) * volume * self.spectral_density_at(squares, dim)

    def reach(self, dim: int) -> Float[Array, "d"]:
        def halve(_, bounds):
            low, high = bounds
            middle = (low + high) / 2
            far = self.correlation(jnp.exp(2 * middle).reshape(1, 1))[0, 0] < _UNCORRELATED
            return jnp.where(far, low, middle), jnp.where(far, middle, high)

        zero = jnp.zeros((), self.lengthscale.dtype)
        # A kernel with a heavy tail reaches further than a basis can.
        _, high = jax.lax.fori_loop(0, 30, halve, (zero, zero + math.log(100.0)))
        return jax.lax.stop_gradient(jnp.exp(high) * jnp.broadcast_to(self.lengthscale, (dim,)))

    def check_dim(self, dim: int) -> None:
        _fields.check_length(self, dim, "lengthscale")

    def __check_init__(self):
        _fields.check_scalar(self, "variance")
        _fields.check_per_dimension(self, "lengthscale")


def _slope(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """The derivative of a function of each entry."""
    return lambda s: jax.jvp(function, (s,), (jnp.ones_like(s),))[1]


def unit_vectors(normals: Float[Array, "h r"], dim: int) -> Float[Array, "h d"]:
    """Directions from the normal variables 1 to d; in one dimension 1, since ω and −ω are the same frequency."""
    if dim == 1:
        return jnp.ones_like(normals[:, :1])
    z = normals[:, 1 : dim + 1]
    return z / jnp.sqrt(jnp.sum(z * z, axis=1, keepdims=True))


class RBF(AbstractStationary):
    """The squared-exponential kernel, k(x, z) = variance · exp(−r²/2).

    **Fields:**

    - `variance`: of the process at a point; positive, in squared units of the values.
    - `lengthscale`: ℓ, a scalar or one per input dimension, `d` (ARD); positive, in units of the input.

    **Raises:** ValueError where a field is not positive or has the wrong shape. Source: Rasmussen & Williams (2006),
    equation 4.9.
    """

    variance: Float[Array, ""] = eqx.field(converter=_fields.positive)
    lengthscale: Float[Array, "*d"] = eqx.field(converter=_fields.positive)

    def smoothness(self, dim: int) -> float:
        return math.inf

    def correlation(self, squares: Float[Array, "n m"]) -> Float[Array, "n m"]:
        return decay(0.5 * squares)

    def lengths(self, normals: Float[Array, "h r"], dim: int) -> Float[Array, "h"]:
        return radius(normals[:, 0], dim, None)

    def spectral_density_at(self, squares: Float[Array, "h"], dim: int) -> Float[Array, "h"]:
        return jnp.exp(-0.5 * squares)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _matern(p: int, s: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """s^{ν/2} K_ν(√s) / (2^{ν−1} Γ(ν)) for ν = p + ½, as a polynomial in √s times exp(−√s).

    Rasmussen & Williams (2006), equation 4.16, with s = 2ν r².
    """
    a = jnp.sqrt(s)
    # The exponential has long brought the product to zero where the polynomial of a high ν would overflow.
    b = jnp.minimum(a, 0.9 * math.log(jnp.finfo(a.dtype).max))
    polynomial = jnp.ones_like(a)
    for k in reversed(range(p)):  # nested, 1 + r₀a(1 + r₁a(1 + …)): no coefficient underflows
        polynomial = 1 + 2 * (p - k) / ((k + 1) * (2 * p - k)) * b * polynomial
    return polynomial * decay(a)


@_matern.defjvp
def _matern_jvp(p, primals, tangents):
    # d/ds of s^{ν/2} K_ν(√s) is −½ s^{(ν−1)/2} K_{ν−1}(√s): the smoothness falls by one with each derivative, and the
    # square root, which has no derivative at 0, is never differentiated while a derivative of k exists.
    (s,), (ds,) = primals, tangents
    if p > 0:
        return _matern(p, s), -_matern(p - 1, s) / (4 * p - 2) * ds
    # ν = ½ is not differentiable at s = 0: 0 there, the mean of the two sides.
    apart = s > 0
    a = jnp.sqrt(jnp.where(apart, s, jnp.ones_like(s)))
    return _matern(0, s), jnp.where(apart, -decay(a) / (2 * a), jnp.zeros_like(a)) * ds


class Matern(AbstractStationary):
    """The Matérn kernel of half-integer smoothness ν, in closed form.

    k(x, z) = variance · 2^{1−ν}/Γ(ν) · (√(2ν) r)^ν K_ν(√(2ν) r); its paths have ν − ½ derivatives.

    **Fields:**

    - `nu`: ν = ½, 3/2, 5/2, …; part of the structure, not a leaf.
    - `variance`: of the process at a point; positive, in squared units of the values.
    - `lengthscale`: ℓ, a scalar or one per input dimension, `d` (ARD); positive, in units of the input.

    **Raises:** ValueError where `nu` is not a positive half-integer, or a field is not positive or has the wrong shape.
    Source: Rasmussen & Williams (2006), equation 4.16; its frequencies are multivariate Student-t with 2ν degrees of
    freedom (equation 4.15).
    """

    nu: float = eqx.field(static=True)
    variance: Float[Array, ""] = eqx.field(converter=_fields.positive)
    lengthscale: Float[Array, "*d"] = eqx.field(converter=_fields.positive)

    if TYPE_CHECKING:
        # A checker puts the fields that the abstract class names before all others; they come in the order above.

        def __init__(self, nu: float, variance: Numbers, lengthscale: Numbers) -> None: ...

    def smoothness(self, dim: int) -> float:
        return self.nu - 0.5

    def correlation(self, squares: Float[Array, "n m"]) -> Float[Array, "n m"]:
        return _matern(round(self.nu - 0.5), 2 * self.nu * squares)

    def lengths(self, normals: Float[Array, "h r"], dim: int) -> Float[Array, "h"]:
        return radius(normals[:, 0], dim, float(self.nu))

    def spectral_density_at(self, squares: Float[Array, "h"], dim: int) -> Float[Array, "h"]:
        nu = float(self.nu)
        log_scale = math.lgamma(nu + dim / 2) - math.lgamma(nu) - dim / 2 * math.log(nu)
        return jnp.exp(log_scale - (nu + dim / 2) * jnp.log1p(squares / (2 * nu)))

    def __check_init__(self):
        if not isinstance(self.nu, (int, float)) or self.nu <= 0 or (self.nu - 0.5) % 1 != 0:
            raise ValueError(f"`Matern.nu` must be one of 0.5, 1.5, 2.5, …, a Python number; got {self.nu!r}.")


class RationalQuadratic(AbstractStationary):
    """The rational-quadratic kernel, k(x, z) = variance · (1 + r²/(2α))^{−α}: a Gamma mixture of RBF kernels.

    **Fields:**

    - `variance`: of the process at a point; positive, in squared units of the values.
    - `lengthscale`: ℓ, a scalar or one per input dimension, `d` (ARD); positive, in units of the input.
    - `alpha`: α, the shape of the mixture; positive. The RBF kernel is its limit at infinity.

    **Raises:** ValueError where a field is not positive or has the wrong shape. Source: Rasmussen & Williams (2006),
    equation 4.19.
    """

    variance: Float[Array, ""] = eqx.field(converter=_fields.positive)
    lengthscale: Float[Array, "*d"] = eqx.field(converter=_fields.positive)
    alpha: Float[Array, ""] = eqx.field(converter=_fields.positive)

    def smoothness(self, dim: int) -> float:
        return math.inf

    def correlation(self, squares: Float[Array, "n m"]) -> Float[Array, "n m"]:
        alpha = self.alpha.astype(squares.dtype)
        return decay(alpha * jnp.log1p(squares / (2 * alpha)))

    def coordinates(self, dim: int) -> Coordinates:
        plain = super().coordinates(dim)
        return Coordinates(plain.number + 1, (0, plain.number), plain.directions)

    def lengths(self, normals: Float[Array, "h r"], dim: int) -> Float[Array, "h"]:
        # √τ ‖z‖ with τ ~ Gamma(α, rate α); by logarithms, which small draws do not underflow.
        alpha = self.alpha.astype(normals.dtype)
        log_tau = log_gamma(normals[:, self.coordinates(dim).number - 1], alpha) - jnp.log(alpha)
        return jnp.exp(0.5 * log_tau) * radius(normals[:, 0], dim, None)

    def spectral_density_at(self, squares: Float[Array, "h"], dim: int) -> Float[Array, "h"]:
        # The mean of τ^{−d/2} exp(−s/2τ) over τ ~ Gamma(α, rate α): by the trapezoidal rule in log τ, which converges
        # exponentially (Trefethen & Weideman 2014).
        alpha = self.alpha.astype(squares.dtype)
        spread = jnp.minimum(12 / jnp.sqrt(alpha) + 30 / alpha, _MIXTURE_WIDTH)  # of the law of log τ
        t = spread * jnp.linspace(-1.0, 1.0, _MIXTURE_NODES, dtype=squares.dtype)
        # Normalised as a sum: for large α the terms of the density of log τ cancel.
        law = jax.nn.softmax(alpha * (t - jnp.expm1(t)))
        terms = jnp.exp(-dim / 2 * t[None, :] - 0.5 * squares[:, None] * jnp.exp(-t)[None, :])
        return inner(terms, law[None, :])[:, 0]

    def __check_init__(self):
        _fields.check_scalar(self, "alpha")
