"""How kernels without an exact basis are given a finite one: rules for drawing frequencies."""

import abc
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

from .._modules import Printed
from .._numerics.lapack import qr
from .._numerics.random import bits
from .._numerics.sobol import BITS, scrambled_sobol
from .._types import Key
from .base import AbstractFeatures, size
from .fourier import random_fourier

# Past this many dimensions the tail is sampled less and less densely.
_MANY_DIMENSIONS = 6


class Coordinates(NamedTuple):
    """What a random frequency of a kernel is made from: a number of independent standard normal variables.

    **Fields:** `number`: how many; `radial`: the indices of those with which the length of the frequency grows, whose upper
    tail a rule may sample more densely; `directions`: ranges `(start, stop)` of which only the direction counts.
    """

    number: int
    radial: tuple[int, ...] = ()
    directions: tuple[tuple[int, int], ...] = ()

    def shift(self, by: int) -> "Coordinates":
        """The same after `by` other variables."""
        radial = tuple(i + by for i in self.radial)
        return Coordinates(self.number, radial, tuple((a + by, b + by) for a, b in self.directions))


class AbstractBasis(Printed, eqx.Module):
    """A rule that gives a kernel without an exact basis a finite one."""

    @abc.abstractmethod
    def features(self, kernel: Any, n_features: int, dim: int, *, key: Key) -> AbstractFeatures:
        """The basis of a kernel, in as near `n_features` features as can be."""

    @property
    @abc.abstractmethod
    def multiplies(self) -> bool:
        """Whether the basis of a product of kernels is the product of their bases (else it is drawn for the product)."""

    @property
    def remedy(self) -> str:
        """What helps where the error stays too large however many features there are, as the end of a sentence."""
        return "use another rule for the features"

    def select(self, dims: tuple[int, ...]) -> "AbstractBasis":
        """The rule for kernels of some of the dimensions."""
        return self

    def warp(self) -> "AbstractBasis":
        """The rule for kernels of transformed inputs."""
        return self

    def suited_to(self, kernel: Any, dim: int) -> "AbstractBasis":
        """The rule itself, or another one for kernels that it is not for."""
        return self

    def fit(self, X: Float[Array, "n d"]) -> "AbstractBasis":
        """The rule for paths that are conditioned on points X."""
        return self


class AbstractRandomBasis(AbstractBasis):
    """Random features: a rule for drawing normal variables. A kernel makes its frequencies, or ramps, from them."""

    @abc.abstractmethod
    def normals(
        self, key: Key, n: int, coordinates: Coordinates, dtype: Any
    ) -> tuple[Float[Array, "n r"], Float[Array, "n"]]:
        """Draws and their weights: the mean of weight · g(draw) is E g(z), z ~ N(0, I), for any n and any g."""

    @property
    def multiplies(self) -> bool:
        return False

    def suited_to(self, kernel: Any, dim: int) -> AbstractBasis:
        from .nystrom import Nystrom  # a rule itself

        return self if kernel.has_basis(dim) else Nystrom()

    @property
    def remedy(self) -> str:
        return (
            "give each path a basis of its own (`share_features=False`, with `n_features` for `tolerance`): their covariance "
            "is the posterior's for any number of features. Where the kernel is smooth, in one or two dimensions, "
            "`features=HilbertSpace()` is better"
        )

    def features(self, kernel: Any, n_features: int, dim: int, *, key: Key) -> AbstractFeatures:
        coordinates = kernel.coordinates(dim)
        if coordinates is None:
            raise NotImplementedError(
                f"`{kernel.label()}` has no basis of its own. Use `features=Nystrom()`, which makes one from points, or give "
                "the class `coordinates` and `spectrum` if it is stationary, or a method `features`."
            )
        dtype = np.result_type(*(leaf.dtype for leaf in jax.tree.leaves(eqx.filter(kernel, eqx.is_inexact_array))))
        if kernel.is_stationary(dim):
            n = -(-n_features // 2)
            phase = None
            if n_features % 2:
                key, key_phase = jax.random.split(key)
                phase = jax.random.uniform(key_phase, (), dtype)
            normals, weights = self.normals(key, n, coordinates, dtype)
            frequencies, own = kernel.spectrum(normals, dim)
            return random_fourier(frequencies, weights * own, phase)
        draw = lambda n: kernel.random_features(*self.normals(key, n, coordinates, dtype), dim)
        width = size(eqx.filter_eval_shape(draw, 1), dim)
        return draw(max(1, n_features // width))


class MonteCarlo(AbstractRandomBasis):
    """Independent random features: frequencies drawn from the spectral law (Rahimi & Recht 2007).

    Given as `features=` to a sampler. Their error falls as F^−½, whatever the kernel and the dimension.
    """

    def normals(
        self, key: Key, n: int, coordinates: Coordinates, dtype: Any
    ) -> tuple[Float[Array, "n r"], Float[Array, "n"]]:
        return jax.random.normal(key, (n, coordinates.number), dtype), jnp.ones((n,), dtype)


class Orthogonal(AbstractRandomBasis):
    """Orthogonal random features: frequencies in blocks of d, at right angles to each other (Yu et al. 2016).

    Given as `features=` to a sampler. Each frequency has the spectral law; their lengths are independent.
    """

    def normals(
        self, key: Key, n: int, coordinates: Coordinates, dtype: Any
    ) -> tuple[Float[Array, "n r"], Float[Array, "n"]]:
        key_normal, key_blocks = jax.random.split(key)
        normals = jax.random.normal(key_normal, (n, coordinates.number), dtype)
        for (start, stop), k in zip(
            coordinates.directions, jax.random.split(key_blocks, max(1, len(coordinates.directions))), strict=False
        ):
            width = stop - start
            Q, R = jax.vmap(qr)(jax.random.normal(k, (-(-n // width), width, width), dtype))
            # Without the signs Q would depend on how the factorisation is done (Mezzadri 2007).
            Q = Q * jnp.sign(jnp.diagonal(R, axis1=1, axis2=2))[:, None, :]
            lengths = jnp.sqrt(jnp.sum(normals[:, start:stop] ** 2, axis=1, keepdims=True))
            normals = normals.at[:, start:stop].set(lengths * Q.reshape(-1, width)[:n])
        return normals, jnp.ones((n,), dtype)


class QuasiMonteCarlo(AbstractRandomBasis):
    """Random features on a scrambled Sobol sequence, with more frequencies, of less weight, in the tail.

    The default of the samplers. The sequence covers the length of the frequencies and their direction evenly: of n
    frequencies each n-th part of the law of their length has one. Every key scrambles it anew, and E[φ(x)ᵀφ(z)] = k(x, z)
    exactly.

    What data leave open of a smooth function is its high frequencies, of which the spectral law has few: drawn from the law,
    they carry the whole error of a path's variance. So the upper tail probability of a length is s^tail with s uniform, and
    the weight tail · s^(tail − 1) makes up for it (less in more than six dimensions, where lengths vary little).

    **Fields:** `tail`: a number of at least 1, part of the structure; at 1 frequencies follow the spectral law.

    **Raises:** ValueError where `tail` is less than 1. Source: the sequence, Sobol (1967) and Matoušek (1998);
    low-discrepancy random features, Avron et al. (2016).
    """

    tail: float | int = eqx.field(static=True, default=2.5)

    def normals(
        self, key: Key, n: int, coordinates: Coordinates, dtype: Any
    ) -> tuple[Float[Array, "n r"], Float[Array, "n"]]:
        points = _points(key, n, max(1, coordinates.number))[:, : coordinates.number]
        # Several lengths share the exponent: their weights multiply. In many dimensions lengths vary little, and the
        # weights would do more harm than the tail good.
        width = max((stop - start for start, stop in coordinates.directions), default=1)
        power = 1 + (self.tail - 1) * min(1.0, (_MANY_DIMENSIONS / width) ** 2) / max(1, len(coordinates.radial))
        scores = _scores(points, dtype)
        if not coordinates.radial or power == 1:
            return scores, jnp.ones((n,), dtype)
        radial = np.asarray(coordinates.radial)
        tail, weights = _in_the_tail(points[:, radial], power, dtype)
        return scores.at[:, radial].set(tail), jnp.prod(weights, axis=1)

    def __check_init__(self):
        if isinstance(self.tail, bool) or not isinstance(self.tail, (int, float)) or not 1 <= self.tail < math.inf:
            raise ValueError(f"`QuasiMonteCarlo.tail` must be a Python number of at least 1; got {self.tail!r}.")


def _points(key: Key, n: int, dim: int) -> UInt32[Array, "n dim"]:
    """Random points of even density: one in each n-th of the first coordinate, for any n, and Sobol points in the others.

    (Hammersley's set: of a Sobol sequence the first n points are that even for powers of two only.)
    """
    edges = [(i << 32) // n for i in range(n + 1)]
    starts, widths = (jnp.asarray(np.array(v, np.uint32)) for v in (edges[:-1], np.minimum(np.diff(edges), 2**32 - 1)))
    scramble, random = bits(jax.random.split(key), (BITS * (dim - 1), n))
    first = random if n == 1 else starts + random % widths
    if dim == 1:
        return first[:, None]
    return jnp.concatenate([first[:, None], scrambled_sobol(scramble.reshape(dim - 1, BITS), n)], axis=1)


def _probability(points: UInt32[Array, "n r"], dtype: Any) -> Float[Array, "n r"]:
    """The middle of the cell of 2⁻³² that a point stands for."""
    return (points.astype(dtype) + 0.5) * 2.0**-32


def _scores(points: UInt32[Array, "n r"], dtype: Any) -> Float[Array, "n r"]:
    # From the nearer end, where a probability has more digits.
    upper = points >= jnp.uint32(2**31)
    score = jax.scipy.special.ndtri(_probability(jnp.where(upper, ~points, points), dtype))
    return jnp.where(upper, -score, score)


def _in_the_tail(
    points: UInt32[Array, "n r"], power: float, dtype: Any
) -> tuple[Float[Array, "n r"], Float[Array, "n r"]]:
    """Scores whose upper tail probability is s^power for uniform s, and their weights."""
    low, s = _probability(points, dtype), _probability(~points, dtype)
    log_s = jnp.where(low < 0.5, jnp.log1p(-low), jnp.log(s))
    upper, lower = jnp.exp(power * log_s), -jnp.expm1(power * log_s)
    score = jax.scipy.special.ndtri(jnp.minimum(upper, lower))
    scores = jnp.where(upper < lower, -score, score)
    return scores, power * jnp.exp((power - 1) * log_s)


def check_basis(value: AbstractBasis) -> AbstractBasis:
    """A rule, or an error that says which there are."""
    if not isinstance(value, AbstractBasis):
        raise ValueError(
            "`features` must be a rule for making features, such as QuasiMonteCarlo(), Orthogonal(), MonteCarlo() or "
            f"HilbertSpace(); got {value!r}."
        )
    return value
