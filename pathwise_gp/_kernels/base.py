"""What a kernel is: a covariance function that also gives a finite basis of its own."""

import abc
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks, _fields
from .._features import AbstractFeatures, random_fourier
from .._types import AnyArray, Key, Number


class Spectrum(NamedTuple):
    """Draws of the spectral law of a stationary kernel: k(x, z) = E[weight · cos(2πω·(x − z))] (Bochner's theorem).

    **Fields:** `frequencies`: ω, `h d`, in turns per unit of the input; `weights`: `h`.
    """

    frequencies: Float[Array, "h d"]
    weights: Float[Array, "h"]


class AbstractKernel(eqx.Module):
    """A covariance function k on ℝᵈ.

    To write one, give `matrix`; give `spectrum` (a stationary kernel), or `features` (any other), and its paths follow.
    Kernels add and multiply: `k1 + k2`, `k1 * k2`, `2.0 * k`.
    """

    # NumPy would otherwise make `np.ones(2) * kernel` an array of two kernels.
    __array_ufunc__ = None

    @abc.abstractmethod
    def matrix(self, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
        """k(xᵢ, zⱼ) for two sets of points of one dtype."""

    def diagonal(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        """k(xᵢ, xᵢ)."""
        return jax.vmap(lambda x: self.matrix(x[None, :], x[None, :])[0, 0])(X)

    def check_dim(self, dim: int) -> None:
        """Raises a ValueError where the kernel does not fit inputs of `dim` dimensions."""

    def terms(self) -> tuple["AbstractKernel", ...]:
        """Kernels, none of them a sum, that add up to this one."""
        return (self,)

    def factors(self) -> tuple["AbstractKernel", ...]:
        """Kernels, none of them a product, that multiply to this one."""
        return (self,)

    def basis_size(self, dim: int) -> int | None:
        """Number of features of the exact finite basis; None where there is none."""
        return None

    def spectrum(self, n: int, dim: int, *, key: Key) -> Spectrum | None:
        """`n` independent draws of the spectral law on ℝᵈ; None where the kernel is not stationary."""
        return None

    def features(self, n_features: int, dim: int, *, key: Key) -> AbstractFeatures:
        """A finite basis φ with E[φ(x)ᵀφ(z)] = k(x, z).

        **Arguments:**

        - `n_features`: how many features the random parts share. An exact part comes on top, with as many as it has; in a
          product each of its features multiplies each random one, of which there are then fewer.
        - `dim`: dimension d of the inputs.
        - `key`: of the random frequencies.

        **Returns:** the basis, a module that maps `n d` to `n f`.

        **Raises:** NotImplementedError, with the kernel's name, where it has none; ValueError where `n_features` < 1 or
        the kernel does not fit `dim`.
        """
        n_features = _checks.count(n_features, "n_features")
        self.check_dim(dim)
        key_spectrum, key_phase = jax.random.split(key)
        spectrum = self.spectrum(-(-n_features // 2), dim, key=key_spectrum)
        if spectrum is None:
            raise NotImplementedError(
                f"`{type(self).__name__}` has no finite basis, so no paths can be drawn from it. "
                "Give the class a method `features`, or `spectrum` if it is stationary."
            )
        return random_fourier(*spectrum, n_features, key_phase)

    def __call__(self, X: Float[AnyArray, "*n d"], Z: Float[AnyArray, "*m d"]) -> Float[Array, "..."]:
        """k(x, z) for all pairs.

        **Arguments:** `X`: inputs, `*n d`; `Z`: inputs, `*m d`.

        **Returns:** the covariances, `*n *m`; a scalar for two points.

        **Raises:** ValueError where the shapes do not fit each other or the kernel.
        """
        X = _checks.floating(X, "X")
        X = _checks.inputs(X, X.shape[-1] if X.ndim else 0)
        dim = X.shape[-1]
        Z = _checks.inputs(Z, dim, "Z")
        self.check_dim(dim)
        dtype = jnp.result_type(X, Z)
        matrix = self.matrix(X.reshape(-1, dim).astype(dtype), Z.reshape(-1, dim).astype(dtype))
        return matrix.reshape(*X.shape[:-1], *Z.shape[:-1])

    def diag(self, X: Float[AnyArray, "*n d"]) -> Float[Array, "*n"]:
        """k(x, x), without forming a matrix.

        **Arguments:** `X`: inputs, `*n d`. **Returns:** `*n`. **Raises:** ValueError where the kernel does not fit d.
        """
        X = _checks.floating(X, "X")
        X = _checks.inputs(X, X.shape[-1] if X.ndim else 0)
        self.check_dim(X.shape[-1])
        return self.diagonal(X.reshape(-1, X.shape[-1])).reshape(X.shape[:-1])

    def __add__(self, other: "AbstractKernel | Number") -> "AbstractKernel":
        from .compose import add  # the composites are kernels themselves

        return add(self, other)

    def __radd__(self, other: Number) -> "AbstractKernel":
        from .compose import add

        return add(other, self)

    def __mul__(self, other: "AbstractKernel | Number") -> "AbstractKernel":
        from .compose import multiply

        return multiply(self, other)

    def __rmul__(self, other: Number) -> "AbstractKernel":
        from .compose import multiply

        return multiply(other, self)

    def __check_init__(self):
        _fields.check(self)
