"""Sums and products of kernels."""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .. import _checks
from .._features import (
    AbstractBasis,
    AbstractFeatures,
    as_features,
    Coordinates,
    NoFeatures,
    PairedFeatures,
    ProductFeatures,
    QuasiMonteCarlo,
    side_by_side,
    size,
)
from .._types import Key, Number
from .base import AbstractKernel, Spectrum
from .dot_product import Constant

# Random features that a product with exact bases gets at the least, if as many were asked for.
_LEAST_SHARE = 32


class AbstractComposite(AbstractKernel):
    """What sums and products share."""

    kernels: tuple[AbstractKernel, ...]

    def check_dim(self, dim: int) -> None:
        for kernel in self.kernels:
            kernel.check_dim(dim)

    def valid(self, X: Float[Array, "n d"]) -> Literal[True] | Bool[Array, ""]:
        return _checks.every(kernel.valid(X) for kernel in self.kernels)

    def has_basis(self, dim: int) -> bool:
        return all(kernel.has_basis(dim) for kernel in self.kernels)

    def smoothness(self, dim: int) -> float:
        return min(kernel.smoothness(dim) for kernel in self.kernels)

    def categories(self, dim: int) -> tuple[int, ...]:
        return tuple(sorted({column for kernel in self.kernels for column in kernel.categories(dim)}))

    def _values(self, combine: Callable[..., Any], values: Callable[[AbstractKernel], Any]) -> Any:
        return functools.reduce(combine, map(values, self.kernels))

    def __check_init__(self):
        kernels: Any = self.kernels
        if not isinstance(kernels, tuple) or not kernels or not all(isinstance(k, AbstractKernel) for k in kernels):
            raise ValueError(
                f"`{type(self).__name__}.kernels` must be a tuple of at least one kernel; got {kernels!r}."
            )


class Sum(AbstractComposite):
    """k(x, z) = Σ_i k_i(x, z), written `k1 + k2`.

    Its basis is the terms' bases side by side. Terms without an exact basis get equal shares of the features, whatever their
    variances: data that pin the large terms leave the small ones open, and a path shows these.

    **Fields:** `kernels`: a tuple of kernels.

    **Raises:** ValueError where it holds something else or nothing.
    """

    def matrix(self, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return self._values(operator.add, lambda kernel: kernel.matrix(X, Z))

    def diagonal(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return self._values(operator.add, lambda kernel: kernel.diagonal(X))

    def noise(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return self._values(operator.add, lambda kernel: kernel.noise(X))

    def gradients(self, Z: Float[Array, "m d"], X: Float[Array, "n d"]) -> Float[Array, "m n d"] | None:
        return _sum_of_all(kernel.gradients(Z, X) for kernel in self.kernels)

    def double_gradients(self, Z: Float[Array, "m d"], X: Float[Array, "n d"]) -> Float[Array, "m d n d"]:
        return self._values(operator.add, lambda kernel: kernel.double_gradients(Z, X))

    def laplacians(self, Z: Float[Array, "m d"], X: Float[Array, "n d"]) -> Float[Array, "m n"] | None:
        return _sum_of_all(kernel.laplacians(Z, X) for kernel in self.kernels)

    def double_laplacians(self, Z: Float[Array, "m d"], X: Float[Array, "n d"]) -> Float[Array, "m n"]:
        return self._values(operator.add, lambda kernel: kernel.double_laplacians(Z, X))

    def summands(self) -> tuple[AbstractKernel, ...]:
        return self.kernels

    def terms(self, dim: int) -> tuple[AbstractKernel, ...]:
        return tuple(term for kernel in self.kernels for term in kernel.terms(dim))

    def factors(self, dim: int) -> tuple[AbstractKernel, ...]:
        return self.kernels[0].factors(dim) if len(self.kernels) == 1 else (self,)

    def basis_size(self, dim: int) -> int | None:
        sizes = [kernel.basis_size(dim) for kernel in self.kernels]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def features(
        self, n_features: int, dim: int, *, key: Key, basis: AbstractBasis = QuasiMonteCarlo()
    ) -> AbstractFeatures:
        return sum_features(self.kernels, n_features, dim, key, basis)

    def label(self) -> str:
        return " + ".join(kernel.label() for kernel in self.kernels)


class Product(AbstractComposite):
    """k(x, z) = Π_i k_i(x, z), written `k1 * k2` or `2.0 * k`.

    Its basis follows from the distributive law (a product of sums is a sum of products) and then, term by term: exact finite
    bases are multiplied feature by feature; stationary factors add their frequencies (the spectral law of a product is the
    convolution of theirs); other random factors are multiplied draw by draw.

    **Fields:** `kernels`: a tuple of kernels.

    **Raises:** ValueError where it holds something else or nothing.
    """

    def matrix(self, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return self._values(operator.mul, lambda kernel: kernel.matrix(X, Z))

    def diagonal(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return self._values(operator.mul, lambda kernel: kernel.diagonal(X))

    def noise(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        # (f₁ + e₁)(f₂ + e₂) = f₁f₂ + (f₁e₂ + e₁f₂ + e₁e₂), without a difference, of which a small noise would not survive.
        function, noise = self.kernels[0].diagonal(X), self.kernels[0].noise(X)
        for kernel in self.kernels[1:]:
            other, its_noise = kernel.diagonal(X), kernel.noise(X)
            function, noise = function * other, function * its_noise + noise * (other + its_noise)
        return noise

    def terms(self, dim: int) -> tuple[AbstractKernel, ...]:
        expanded = list(itertools.product(*(kernel.terms(dim) for kernel in self.kernels)))
        return (self,) if len(expanded) == 1 else tuple(Product(factors) for factors in expanded)

    def factors(self, dim: int) -> tuple[AbstractKernel, ...]:
        return tuple(factor for kernel in self.kernels for factor in kernel.factors(dim))

    def basis_size(self, dim: int) -> int | None:
        sizes = [kernel.basis_size(dim) for kernel in self.kernels]
        if 0 in sizes:  # noise, whatever multiplies it
            return 0
        return None if None in sizes else math.prod(size or 0 for size in sizes)

    def coordinates(self, dim: int) -> Coordinates | None:
        found = [kernel.coordinates(dim) for kernel in self._discrete_first(dim)]
        known = [c for c in found if c is not None]
        if len(known) < len(found):
            return None
        shifts = itertools.accumulate((c.number for c in known), initial=0)
        shifted = [c.shift(by) for c, by in zip(known, shifts, strict=False)]
        # Of every frequency but the first the sign counts: it is one more variable.
        return Coordinates(
            sum(c.number for c in known) + len(known) - 1,
            tuple(i for c in shifted for i in c.radial),
            tuple(r for c in shifted for r in c.directions),
        )

    def is_stationary(self, dim: int) -> bool:
        return all(kernel.is_stationary(dim) for kernel in self.kernels)

    def spectrum(self, normals: Float[Array, "h r"], dim: int) -> Spectrum:
        parts = [kernel.spectrum(own, dim) for kernel, own in self._shared_out(normals, dim)]
        # cos a · cos b = ½ (cos(a + b) + cos(a − b)): a kernel need not draw ω and −ω, but a sum of frequencies needs both.
        n_signs = len(parts) - 1
        signs = jnp.where(normals[:, normals.shape[1] - n_signs :] < 0, -1, 1).astype(normals.dtype)
        frequencies = parts[0].frequencies
        for i, part in enumerate(parts[1:]):
            frequencies = frequencies + signs[:, i, None] * part.frequencies
        return Spectrum(frequencies, functools.reduce(operator.mul, (part.weights for part in parts)))

    def random_features(self, normals: Float[Array, "h r"], weights: Float[Array, "h"], dim: int) -> AbstractFeatures:
        if self.is_stationary(dim):
            return super().random_features(normals, weights, dim)
        pairs = self._shared_out(normals, dim)
        parts = []
        stationary = [pair for pair in pairs if pair[0].is_stationary(dim)]
        if stationary:
            kernels, own = zip(*stationary, strict=True)
            # The variables of the signs stand last.
            signs = normals[:, normals.shape[1] - len(kernels) + 1 :]
            parts.append((Product(kernels), jnp.concatenate([*own, signs], axis=1)))
        parts += [pair for pair in pairs if not pair[0].is_stationary(dim)]
        # The weights of the draws are for all parts together.
        all_weights = [weights] + [jnp.ones_like(weights)] * (len(parts) - 1)
        drawn = (kernel.random_features(own, w, dim) for (kernel, own), w in zip(parts, all_weights, strict=True))
        return PairedFeatures(tuple(drawn), normals.shape[0])

    def features(
        self, n_features: int, dim: int, *, key: Key, basis: AbstractBasis = QuasiMonteCarlo()
    ) -> AbstractFeatures:
        n_features = _checks.count(n_features, "n_features")
        self.check_dim(dim)
        if len(self.terms(dim)) > 1:
            return sum_features((self,), n_features, dim, key, basis)
        factors = self._factors(dim)
        sizes = [factor.basis_size(dim) for factor in factors]
        exact = [factor for factor, size in zip(factors, sizes, strict=True) if size is not None]
        random = tuple(factor for factor, size in zip(factors, sizes, strict=True) if size is None)
        # Every random feature is multiplied by every exact one; too few of them would be a poor basis however many products.
        n_exact = math.prod(size for size in sizes if size is not None)
        share = shared_with(n_features, n_exact)
        keys = iter(jax.random.split(key, len(factors)))
        parts = [factor.features(n_features, dim, key=next(keys), basis=basis) for factor in exact]
        if basis.multiplies and len(random) > 1:
            each = max(1, math.floor(share ** (1 / len(random)) + 1e-9))
            parts += [factor.features(each, dim, key=next(keys), basis=basis) for factor in random]
        elif len(random) == 1:
            parts.append(random[0].features(share, dim, key=next(keys), basis=basis))
        elif random:
            parts.append(basis.features(Product(random), share, dim, key=next(keys)))
        return parts[0] if len(parts) == 1 else ProductFeatures(tuple(parts))

    def label(self) -> str:
        return " * ".join(kernel.label() for kernel in self.kernels)

    def _factors(self, dim: int) -> tuple[AbstractKernel, ...]:
        """The factors of the one term that there is."""
        return tuple(factor for kernel in self.kernels for factor in kernel.terms(dim)[0].factors(dim))

    def _shared_out(self, normals: Float[Array, "h r"], dim: int) -> list[tuple[AbstractKernel, Float[Array, "h q"]]]:
        """Each kernel with its own of the variables."""
        kernels = self._discrete_first(dim)
        ends = list(itertools.accumulate((_count(kernel, dim) for kernel in kernels), initial=0))
        return [
            (kernel, normals[:, start:end]) for kernel, start, end in zip(kernels, ends[:-1], ends[1:], strict=True)
        ]

    def _discrete_first(self, dim: int) -> list[AbstractKernel]:
        """The kernels, those with a choice of frequencies first: of the variables a rule spreads the first most evenly."""
        continuous = lambda c: c is None or bool(c.radial or c.directions)
        return sorted(self.kernels, key=lambda kernel: continuous(kernel.coordinates(dim)))


def _sum_of_all(values: Iterable[Array | None]) -> Array | None:
    """The sum, or None where one is missing."""
    total = None
    for value in values:
        if value is None:
            return None
        total = value if total is None else total + value
    return total


def _count(kernel: AbstractKernel, dim: int) -> int:
    coordinates = kernel.coordinates(dim)
    assert coordinates is not None
    return coordinates.number


def sum_features(
    kernels: tuple[AbstractKernel, ...], n_features: int, dim: int, key: Key, basis: AbstractBasis
) -> AbstractFeatures:
    """The bases of the kernels side by side, term by term: exact ones as large as they are, the others share `n_features`."""
    n_features = _checks.count(n_features, "n_features")
    for kernel in kernels:
        kernel.check_dim(dim)
    # A term, and the number of the kernel that it is of.
    terms = [(term, i) for i, kernel in enumerate(kernels) for term in kernel.terms(dim)]
    terms = [(term, i) for term, i in terms if term.basis_size(dim) != 0]
    if not terms:
        return NoFeatures()
    exact = [term.basis_size(dim) is not None for term, _ in terms]
    shares = iter(_shares(n_features, exact.count(False)))
    parts = tuple(
        as_features(term.features(n_features if known else next(shares), dim, key=own, basis=basis))
        for (term, _), known, own in zip(terms, exact, jax.random.split(key, len(terms)), strict=True)
    )
    return side_by_side(parts, [(i, size(part, dim)) for (_, i), part in zip(terms, parts, strict=True)])


def shared_with(n_features: int, n_exact: int) -> int:
    """How many features a random factor has that are multiplied by each of so many exact ones."""
    return max(min(n_features, _LEAST_SHARE), n_features // max(n_exact, 1))


def _shares(n: int, k: int) -> list[int]:
    """n features in k equal shares: as far as can be in pairs, a cosine with its sine, and a pair for each at the least."""
    if k < 2:
        return [n] * k
    pairs = n // 2
    shares = [2 * max(1, pairs // k + (i < pairs % k)) for i in range(k)]
    return [*shares[:-1], shares[-1] + (n % 2 if pairs >= k else 0)]


def _as_kernel(value: Any) -> AbstractKernel:
    return value if isinstance(value, AbstractKernel) else Constant(value)


def add(left: AbstractKernel | Number, right: AbstractKernel | Number) -> Sum:
    """The sum of two kernels, of which a number stands for a constant kernel; sums of sums are flattened."""
    kernels = (_as_kernel(left), _as_kernel(right))
    return Sum(tuple(k for kernel in kernels for k in (kernel.kernels if isinstance(kernel, Sum) else (kernel,))))


def multiply(left: AbstractKernel | Number, right: AbstractKernel | Number) -> Product:
    """The product of two kernels, of which a number stands for a constant kernel; products of products are flattened."""
    kernels = (_as_kernel(left), _as_kernel(right))
    return Product(
        tuple(k for kernel in kernels for k in (kernel.kernels if isinstance(kernel, Product) else (kernel,)))
    )
