"""Sums and products of kernels."""

import functools
import itertools
import math
import operator
from typing import Any

import jax
from jaxtyping import Array, Float

from .. import _checks
from .._features import AbstractFeatures, ConcatenatedFeatures, ProductFeatures, random_fourier
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

    def __check_init__(self):
        kernels: Any = self.kernels
        if not isinstance(kernels, tuple) or not kernels or not all(isinstance(k, AbstractKernel) for k in kernels):
            raise ValueError(
                f"`{type(self).__name__}.kernels` must be a tuple of at least one kernel; got {kernels!r}."
            )


class Sum(AbstractComposite):
    """k(x, z) = Σ_i k_i(x, z), written `k1 + k2`. Its basis is the terms' bases side by side.

    **Fields:** `kernels`: a tuple of kernels.

    **Raises:** ValueError where it holds something else or nothing.
    """

    def matrix(self, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return functools.reduce(operator.add, (kernel.matrix(X, Z) for kernel in self.kernels))

    def diagonal(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return functools.reduce(operator.add, (kernel.diagonal(X) for kernel in self.kernels))

    def terms(self) -> tuple[AbstractKernel, ...]:
        return tuple(term for kernel in self.kernels for term in kernel.terms())

    def factors(self) -> tuple[AbstractKernel, ...]:
        return self.kernels[0].factors() if len(self.kernels) == 1 else (self,)

    def basis_size(self, dim: int) -> int | None:
        sizes = [kernel.basis_size(dim) for kernel in self.kernels]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def features(self, n_features: int, dim: int, *, key: Key) -> AbstractFeatures:
        return _sum_features(self.terms(), n_features, dim, key)


class Product(AbstractComposite):
    """k(x, z) = Π_i k_i(x, z), written `k1 * k2` or `2.0 * k`.

    Its basis follows from the distributive law (a product of sums is a sum of products) and then, term by term: exact
    finite bases are multiplied feature by feature, and the remaining stationary factors add their frequencies (the
    spectral law of a product is the convolution of theirs).

    **Fields:** `kernels`: a tuple of kernels.

    **Raises:** ValueError where it holds something else or nothing.
    """

    def matrix(self, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return functools.reduce(operator.mul, (kernel.matrix(X, Z) for kernel in self.kernels))

    def diagonal(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return functools.reduce(operator.mul, (kernel.diagonal(X) for kernel in self.kernels))

    def terms(self) -> tuple[AbstractKernel, ...]:
        expanded = list(itertools.product(*(kernel.terms() for kernel in self.kernels)))
        return (self,) if len(expanded) == 1 else tuple(Product(factors) for factors in expanded)

    def factors(self) -> tuple[AbstractKernel, ...]:
        return tuple(factor for kernel in self.kernels for factor in kernel.factors())

    def basis_size(self, dim: int) -> int | None:
        sizes = [kernel.basis_size(dim) for kernel in self.kernels]
        return None if None in sizes else math.prod(size or 0 for size in sizes)

    def spectrum(self, n: int, dim: int, *, key: Key) -> Spectrum | None:
        keys = jax.random.split(key, len(self.kernels))
        spectra = [kernel.spectrum(n, dim, key=k) for kernel, k in zip(self.kernels, keys, strict=True)]
        found = [spectrum for spectrum in spectra if spectrum is not None]
        if len(found) < len(spectra):
            return None
        return Spectrum(
            frequencies=functools.reduce(operator.add, (spectrum.frequencies for spectrum in found)),
            weights=functools.reduce(operator.mul, (spectrum.weights for spectrum in found)),
        )

    def features(self, n_features: int, dim: int, *, key: Key) -> AbstractFeatures:
        n_features = _checks.count(n_features, "n_features")
        self.check_dim(dim)
        if len(self.terms()) > 1:
            return _sum_features(self.terms(), n_features, dim, key)
        factors = [factor for kernel in self.kernels for factor in kernel.terms()[0].factors()]
        sizes = [factor.basis_size(dim) for factor in factors]
        exact = [factor for factor, size in zip(factors, sizes, strict=True) if size is not None]
        random = tuple(factor for factor, size in zip(factors, sizes, strict=True) if size is None)
        # Every random feature is multiplied by every exact one; too few of them would be a poor basis however many products.
        share = max(min(n_features, _LEAST_SHARE), n_features // math.prod(size for size in sizes if size is not None))
        parts = [factor.features(n_features, dim, key=key) for factor in exact]
        if len(random) == 1:
            parts.append(random[0].features(share, dim, key=key))
        elif random:
            key_spectrum, key_phase = jax.random.split(key)
            spectrum = Product(random).spectrum(-(-share // 2), dim, key=key_spectrum)
            if spectrum is None:
                names = ", ".join(type(factor).__name__ for factor in random)
                raise NotImplementedError(
                    f"The product of {names} has no finite basis: of factors without an exact basis all must be "
                    "stationary, or there may be one only."
                )
            parts.append(random_fourier(*spectrum, share, key_phase))
        return parts[0] if len(parts) == 1 else ProductFeatures(tuple(parts))


def _sum_features(terms: tuple[AbstractKernel, ...], n_features: int, dim: int, key: Key) -> AbstractFeatures:
    """The terms' bases side by side: exact ones as large as they are, the others share `n_features` evenly."""
    n_features = _checks.count(n_features, "n_features")
    for term in terms:
        term.check_dim(dim)
    sizes = [term.basis_size(dim) for term in terms]
    n_random = sizes.count(None)
    shares = iter(max(1, n_features // n_random + (i < n_features % n_random)) for i in range(n_random))
    keys = jax.random.split(key, len(terms))
    return ConcatenatedFeatures(
        tuple(
            term.features(next(shares) if size is None else size, dim, key=k)
            for term, size, k in zip(terms, sizes, keys, strict=True)
        )
    )


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
