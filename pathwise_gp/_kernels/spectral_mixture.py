"""Mixtures of normal spectral laws."""

import functools
import math
import operator

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _fields
from .._features import AbstractBasis, AbstractFeatures, Coordinates, QuasiMonteCarlo
from .._numerics.distances import differences
from .._numerics.exponential import decay
from .._numerics.quantiles import radius
from .._numerics.trigonometry import cos_turns
from .._types import Key
from .base import AbstractKernel, Spectrum
from .compose import sum_features


class SpectralMixture(AbstractKernel):
    """k(x, z) = Σ_q w_q Π_i exp(−2π² t_i² s_qi²) cos(2π t_i μ_qi) with t = x − z: any stationary kernel, with enough
    components.

    The spectral law of a component is normal about μ_q, and about its mirror images in each dimension.

    **Fields:**

    - `weights`: w, `q`; positive, in squared units of the values: their sum is the variance of the process.
    - `means`: μ, `q d`, in cycles per unit of the input.
    - `scales`: s, `q d`; positive, standard deviations in cycles per unit of the input (1/(2πℓ) of an RBF kernel).

    **Raises:** ValueError where a weight or scale is not positive or the shapes do not fit. Source: Wilson & Adams (2013),
    equation 12.
    """

    weights: Float[Array, "q"] = eqx.field(converter=_fields.positive)
    means: Float[Array, "q d"] = eqx.field(converter=_fields.real)
    scales: Float[Array, "q d"] = eqx.field(converter=_fields.positive)

    def smoothness(self, dim: int) -> float:
        return math.inf

    def matrix(self, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
        weights, means, scales = (leaf.astype(X.dtype) for leaf in (self.weights, self.means, self.scales))
        by_dimension = differences(X, Z)

        def component(q: int) -> Float[Array, "n m"]:
            squares, product = jnp.zeros_like(by_dimension[0]), weights[q]
            for i, t in enumerate(by_dimension):
                squares = squares + (t * scales[q, i]) ** 2
                product = product * cos_turns(t * means[q, i])
            return product * decay(2 * math.pi**2 * squares)

        return functools.reduce(operator.add, map(component, range(weights.shape[0])))

    def diagonal(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return jnp.broadcast_to(jnp.sum(self.weights).astype(X.dtype), (X.shape[0],))

    def terms(self, dim: int) -> tuple[AbstractKernel, ...]:
        if self.weights.shape[0] == 1:
            return (self,)
        parts = (slice(q, q + 1) for q in range(self.weights.shape[0]))
        return tuple(SpectralMixture(self.weights[q], self.means[q], self.scales[q]) for q in parts)

    def coordinates(self, dim: int) -> Coordinates:
        # Of a component: the length of its deviation from the mean, a direction, and a sign for each mean but the first.
        return Coordinates(2 * dim, (0,), ((1, dim + 1),))

    def spectrum(self, normals: Float[Array, "h r"], dim: int) -> Spectrum:
        assert self.weights.shape[0] == 1  # composites work with terms
        z = normals[:, 1 : dim + 1]
        z = radius(normals[:, 0], dim, None)[:, None] * z / jnp.sqrt(jnp.sum(z * z, axis=1, keepdims=True))
        # Of ω and −ω one is enough, so the first mean has one sign.
        signs = jnp.where(normals[:, dim + 1 :] < 0, -1, 1).astype(normals.dtype)
        signs = jnp.concatenate([jnp.ones_like(normals[:, :1]), signs], axis=1)
        frequencies = signs * self.means + self.scales * z
        return Spectrum(frequencies, jnp.broadcast_to(self.weights, (normals.shape[0],)))

    def spectral_density(self, frequencies: Float[Array, "h d"]) -> Float[Array, "h"]:
        total = jnp.zeros_like(frequencies[:, 0])
        for q in range(self.weights.shape[0]):
            product = self.weights[q].astype(frequencies.dtype)
            for i in range(frequencies.shape[1]):
                mean, scale = (leaf[q, i].astype(frequencies.dtype) for leaf in (self.means, self.scales))
                both = [jnp.exp(-0.5 * ((frequencies[:, i] + sign * mean) / scale) ** 2) for sign in (-1, 1)]
                product = product * (both[0] + both[1]) / (2 * math.sqrt(2 * math.pi) * scale)
            total = total + product
        return total

    def reach(self, dim: int) -> Float[Array, "d"]:
        # exp(−2π²t²s²) is 1e-4 at t = √(log 1e4 / 2) / (πs).
        return math.sqrt(math.log(1e4) / 2) / (math.pi * jnp.min(self.scales, axis=0))

    def features(
        self, n_features: int, dim: int, *, key: Key, basis: AbstractBasis = QuasiMonteCarlo()
    ) -> AbstractFeatures:
        if basis.multiplies or self.weights.shape[0] == 1:
            return super().features(n_features, dim, key=key, basis=basis)
        return sum_features((self,), n_features, dim, key, basis)

    def check_dim(self, dim: int) -> None:
        if self.means.shape[1] != dim:
            raise ValueError(
                f"`SpectralMixture.means` must have one column per input dimension, {dim}; got shape {self.means.shape}."
            )

    def __check_init__(self):
        _fields.check(self)
        if self.weights.ndim != 1 or self.weights.size == 0:
            raise ValueError(
                f"`SpectralMixture.weights` must be a vector with one entry per component; got shape {self.weights.shape}."
            )
        for name in ("means", "scales"):
            shape = getattr(self, name).shape
            if len(shape) != 2 or shape[0] != self.weights.shape[0] or shape[1] == 0:
                raise ValueError(
                    f"`SpectralMixture.{name}` must have shape ({self.weights.shape[0]}, d), a row for each weight; "
                    f"got {shape}."
                )
        if self.means.shape != self.scales.shape:
            raise ValueError(
                f"`SpectralMixture.means` and `scales` must have the same shape; got {self.means.shape} and "
                f"{self.scales.shape}."
            )
