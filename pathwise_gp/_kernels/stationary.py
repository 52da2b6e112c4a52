"""Kernels of the scaled distance r² = Σ_i (x_i − z_i)² / ℓ_i²."""

import abc
import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _fields
from .._numerics.distances import squared_distances
from .._types import Key
from .base import AbstractKernel, Spectrum


class AbstractStationary(AbstractKernel):
    """k(x, z) = variance · ρ(r²). A subclass gives ρ and the law of its frequencies."""

    variance: eqx.AbstractVar[Float[Array, ""]]
    lengthscale: eqx.AbstractVar[Float[Array, "*d"]]

    @abc.abstractmethod
    def correlation(self, squares: Float[Array, "n m"]) -> Float[Array, "n m"]:
        """ρ(r²), a function with finite derivatives at r² = 0 wherever k has them at x = z."""

    @abc.abstractmethod
    def radius(self, n: int, *, key: Key) -> Float[Array, "n"]:
        """Factors R, such that R z / (2πℓ) with z ~ N(0, I) has the spectral law, in turns: one a frequency."""

    def matrix(self, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
        squares = squared_distances(X, Z, jnp.broadcast_to(self.lengthscale, (X.shape[1],)).astype(X.dtype))
        return self.variance.astype(X.dtype) * self.correlation(squares)

    def diagonal(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return jnp.broadcast_to(self.variance.astype(X.dtype), (X.shape[0],))

    def spectrum(self, n: int, dim: int, *, key: Key) -> Spectrum:
        # The law on ℝᵈ: one radius a frequency, shared by its coordinates.
        key_normal, key_radius = jax.random.split(key)
        dtype = self.lengthscale.dtype
        z = jax.random.normal(key_normal, (n, dim), dtype)
        scale = 2 * math.pi * jnp.broadcast_to(self.lengthscale, (dim,))
        frequencies = self.radius(n, key=key_radius).astype(dtype)[:, None] * z / scale[None, :]
        return Spectrum(frequencies, jnp.broadcast_to(self.variance, (n,)))

    def check_dim(self, dim: int) -> None:
        _fields.check_length(self, dim, "lengthscale")

    def __check_init__(self):
        _fields.check_scalar(self, "variance")
        _fields.check_per_dimension(self, "lengthscale")


class RBF(AbstractStationary):
    """The squared-exponential kernel, k(x, z) = variance · exp(−r²/2).

    **Fields:**

    - `variance`: of the process at a point; positive, in squared units of the values.
    - `lengthscale`: ℓ, a scalar or one per input dimension, `d` (ARD); positive, in units of the input.

    **Raises:** ValueError where a field is not positive or has the wrong shape. Source: Rasmussen & Williams (2006),
    equation 4.9.
    """

    variance: Float[Array, ""] = _fields.positive()
    lengthscale: Float[Array, "*d"] = _fields.positive()

    def correlation(self, squares: Float[Array, "n m"]) -> Float[Array, "n m"]:
        return jnp.exp(-0.5 * squares)

    def radius(self, n: int, *, key: Key) -> Float[Array, "n"]:
        return jnp.ones((n,), self.lengthscale.dtype)


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
    return polynomial * jnp.exp(-a)


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
    return _matern(0, s), jnp.where(apart, -jnp.exp(-a) / (2 * a), jnp.zeros_like(a)) * ds


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
    variance: Float[Array, ""] = _fields.positive()
    lengthscale: Float[Array, "*d"] = _fields.positive()

    def correlation(self, squares: Float[Array, "n m"]) -> Float[Array, "n m"]:
        return _matern(round(self.nu - 0.5), 2 * self.nu * squares)

    def radius(self, n: int, *, key: Key) -> Float[Array, "n"]:
        # √(2ν/χ²_{2ν}) with χ²_{2ν} = 2 Gamma(ν); by logarithms, which small draws do not underflow.
        log_gamma = jax.random.loggamma(key, self.nu, (n,), self.lengthscale.dtype)
        return jnp.exp(0.5 * (math.log(self.nu) - log_gamma))

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

    variance: Float[Array, ""] = _fields.positive()
    lengthscale: Float[Array, "*d"] = _fields.positive()
    alpha: Float[Array, ""] = _fields.positive()

    def correlation(self, squares: Float[Array, "n m"]) -> Float[Array, "n m"]:
        alpha = self.alpha.astype(squares.dtype)
        return jnp.exp(-alpha * jnp.log1p(squares / (2 * alpha)))

    def radius(self, n: int, *, key: Key) -> Float[Array, "n"]:
        # √τ with τ ~ Gamma(α, rate α); by logarithms, which small draws do not underflow.
        log_gamma = jax.random.loggamma(key, self.alpha, (n,), self.alpha.dtype)
        return jnp.exp(0.5 * (log_gamma - jnp.log(self.alpha)))

    def __check_init__(self):
        _fields.check_scalar(self, "alpha")
