"""What a kernel is: a covariance function that also gives a finite basis of its own."""

import abc
import math
import warnings
from typing import Any, Literal, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .. import _checks, _fields
from .._features import AbstractBasis, AbstractFeatures, Coordinates, fourier_pairs, QuasiMonteCarlo
from .._modules import Printed
from .._types import AnyArray, Key, Number


class Spectrum(NamedTuple):
    """Draws of the spectral law of a stationary kernel: k(x, z) = E[weight · cos(2πω·(x − z))] (Bochner's theorem).

    **Fields:** `frequencies`: ω, `h d`, in turns per unit of the input; `weights`: `h`.
    """

    frequencies: Float[Array, "h d"]
    weights: Float[Array, "h"]


class AbstractKernel(Printed, eqx.Module):
    """A covariance function k on ℝᵈ.

    To write one, give `matrix`; for paths give `coordinates` and `spectrum` (a stationary kernel), or `features` (any other).
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

    def noise(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        """Variances of the white noise that belongs to the kernel: part of what is observed at X, and of no function."""
        return jnp.zeros((X.shape[0],), X.dtype)

    def check_dim(self, dim: int) -> None:
        """Raises a ValueError where the kernel does not fit inputs of `dim` dimensions."""

    def valid(self, X: Float[Array, "n d"]) -> Literal[True] | Bool[Array, ""]:
        """Whether all points are in the kernel's domain; True where that is ℝᵈ."""
        return True

    def summands(self) -> tuple["AbstractKernel", ...]:
        """The kernels that this one was written as a sum of; itself alone where it is not a sum."""
        return (self,)

    def terms(self, dim: int) -> tuple["AbstractKernel", ...]:
        """Kernels, none of them a sum, that add up to this one."""
        return (self,)

    def factors(self, dim: int) -> tuple["AbstractKernel", ...]:
        """Kernels, none of them a product, that multiply to this one."""
        return (self,)

    def basis_size(self, dim: int) -> int | None:
        """Number of features of the exact finite basis; None where there is none, 0 where the kernel is noise."""
        return None

    def has_basis(self, dim: int) -> bool:
        """Whether there is a basis that needs nothing but the kernel; else it is made from points of the data's region."""
        return self.basis_size(dim) is not None or self.coordinates(dim) is not None or self._gives_features

    @property
    def _gives_features(self) -> bool:
        return type(self).features is not AbstractKernel.features

    def coordinates(self, dim: int) -> Coordinates | None:
        """What a random frequency (or another random feature) is made from; None where there is no such recipe."""
        return None

    def is_stationary(self, dim: int) -> bool:
        """Whether `spectrum` gives its spectral law."""
        return type(self).spectrum is not AbstractKernel.spectrum

    def spectrum(self, normals: Float[Array, "h r"], dim: int) -> Spectrum:
        """Draws of the spectral law on ℝᵈ, made from standard normal variables, as many as `coordinates` asks for."""
        raise NotImplementedError(f"`{self.label()}` is not stationary.")

    def random_features(self, normals: Float[Array, "h r"], weights: Float[Array, "h"], dim: int) -> AbstractFeatures:
        """A basis of h draws, ordered with the number of the draw last; the mean of weight · (φφᵀ of a draw) is k."""
        frequencies, own = self.spectrum(normals, dim)
        return fourier_pairs(frequencies, own * weights)

    def spectral_density(self, frequencies: Float[Array, "h d"]) -> Float[Array, "h"]:
        """S(ω) with k(x, z) = ∫ S(ω) cos(2πω·(x − z)) dω, at frequencies in turns per unit of the input."""
        raise NotImplementedError(f"`{self.label()}` has no spectral density here.")

    def reach(self, dim: int) -> Float[Array, "d"] | None:
        """Distances along the axes at which the correlation is as good as zero; None where there is no spectral density."""
        return None

    def features(
        self, n_features: int, dim: int, *, key: Key, basis: AbstractBasis = QuasiMonteCarlo()
    ) -> AbstractFeatures:
        """A finite basis φ with E[φ(x)ᵀφ(z)] = k(x, z).

        **Arguments:**

        - `n_features`: how many features the random parts share. An exact part comes on top, with as many as it has; in a
          product each of its features multiplies each random one, of which there are then fewer.
        - `dim`: dimension d of the inputs.
        - `key`: of the random frequencies.
        - `basis`: the rule for what has no exact basis.

        **Returns:** the basis, a module that maps `n d` to `n f`.

        **Raises:** NotImplementedError, with the kernel's name, where it has none; ValueError where `n_features` < 1 or
        the kernel does not fit `dim`.
        """
        n_features = _checks.count(n_features, "n_features")
        self.check_dim(dim)
        return basis.features(self, n_features, dim, key=_checks.key(key))

    def smoothness(self, dim: int) -> float:
        """How often the paths can be differentiated, in mean square: as often as k(x, z) in each argument at x = z; inf where
        there is no limit.

        A kernel that does not say is believed to have every derivative, and a warning says so.
        """
        warnings.warn(
            f"`{self.label()}` does not say how often its paths can be differentiated, and is believed to have the "
            "derivative that is asked for. Give its class a method `smoothness(dim)`, which returns that number.",
            UserWarning,
            stacklevel=2,
        )
        return math.inf

    def gradients(self, Z: Float[Array, "m d"], X: Float[Array, "n d"]) -> Float[Array, "m n d"] | None:
        """∇ₓk(z, x) where a formula is cheaper than d derivatives; else None."""
        return None

    def double_gradients(self, Z: Float[Array, "m d"], X: Float[Array, "n d"]) -> Float[Array, "m d n d"]:
        """∇_z∇ₓk(z, x), where there are `gradients`."""
        raise NotImplementedError(f"`{self.label()}` has no formula for its gradients.")

    def laplacians(self, Z: Float[Array, "m d"], X: Float[Array, "n d"]) -> Float[Array, "m n"] | None:
        """Δₓk(z, x) where a formula is cheaper than 2d derivatives; else None."""
        return None

    def double_laplacians(self, Z: Float[Array, "m d"], X: Float[Array, "n d"]) -> Float[Array, "m n"]:
        """Δ_zΔₓk(z, x), where there are `laplacians`."""
        raise NotImplementedError(f"`{self.label()}` has no formula for its Laplacians.")

    def categories(self, dim: int) -> tuple[int, ...]:
        """The columns of the inputs that hold numbers of categories or of outputs, along which nothing has a derivative."""
        return ()

    def outputs(self, dim: int) -> "tuple[AbstractKernel, Float[Array, 'p p']] | None":
        """Where the last column of the inputs is the number of an output, and the kernel a product: the kernel of the other
        columns, and the covariance B of the outputs; else None."""
        return None

    def in_units(self, of_inputs: Any, scale: Float[Array, "p"]) -> "AbstractKernel":
        """A kernel of several outputs, in other units of the inputs and of each output."""
        raise ValueError(f"`{self.label()}` is not a kernel of several outputs, with units of their own.")

    def label(self) -> str:
        """The kernel's name in errors."""
        return type(self).__name__

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
        flat = [points.reshape(-1, dim).astype(dtype) for points in (X, Z)]
        matrix = self.matrix(check_valid(self, flat[0], "X"), check_valid(self, flat[1], "Z"))
        return matrix.reshape(*X.shape[:-1], *Z.shape[:-1])

    def diag(self, X: Float[AnyArray, "*n d"]) -> Float[Array, "*n"]:
        """k(x, x), without forming a matrix.

        **Arguments:** `X`: inputs, `*n d`. **Returns:** `*n`. **Raises:** ValueError where the kernel does not fit d.
        """
        X = _checks.floating(X, "X")
        X = _checks.inputs(X, X.shape[-1] if X.ndim else 0)
        self.check_dim(X.shape[-1])
        flat = check_valid(self, X.reshape(-1, X.shape[-1]), "X")
        return self.diagonal(flat).reshape(X.shape[:-1])

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


KernelT = TypeVar("KernelT", bound=AbstractKernel)


def check_valid(kernel: AbstractKernel, X: Float[Array, "n d"], name: str) -> Float[Array, "n d"]:
    """`X`, or an error where a point lies outside the kernel's domain (at run time under jit)."""
    return require_valid(kernel.valid(X), X, name)


def require_valid(ok: Literal[True] | Bool[Array, ""], value: Float[Array, "..."], name: str) -> Float[Array, "..."]:
    """`value`, or the error of `check_valid` where `ok` is not true."""
    if ok is True:
        return value
    return _checks.require(
        ok,
        value,
        f"`{name}` holds a value that is not one of the categories of the kernel: a column of categories, or of the numbers "
        "of outputs, holds whole numbers from 0 to one less than there are.",
    )
