"""What a finite basis is."""

import abc
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float

from .. import _checks
from .._modules import Printed
from .._numerics.linalg import inner


class AbstractFeatures(Printed, eqx.Module):
    """A finite basis φ: ℝᵈ → ℝᶠ. With w ~ N(0, I), φ(·)ᵀw is a draw of the process with kernel φ(x)ᵀφ(z)."""

    @abc.abstractmethod
    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n f"]:
        """φ at n points, one row a point."""

    def about(self, point: Float[Array, "d"]) -> "AbstractFeatures":
        """A basis of the same process whose rounding errors are smallest near a point; itself where that is all the same."""
        return self

    def draws(self, X: Float[Array, "n d"], weights: Float[Array, "s f"]) -> Float[Array, "s n"]:
        """φ(x)ᵀw for some vectors w."""
        return inner(weights, self(X))

    def covers(self, X: Float[Array, "n d"]) -> Literal[True] | Bool[Array, ""]:
        """Whether all points lie where the basis holds; True where it holds everywhere."""
        return True

    def beside(self, other: "AbstractFeatures") -> "AbstractFeatures | None":
        """One basis that is this one and another side by side, where that costs less than the two; else None."""
        return None

    def block(self, start: int, stop: int) -> "AbstractFeatures":
        """A part of what `beside` has put together."""
        raise NotImplementedError(f"`{type(self).__name__}` is one basis.")

    def by_output(
        self, weights: Float[Array, "*s f"], p: int
    ) -> "tuple[AbstractFeatures, Float[Array, '*s p g']] | None":
        """Where the last column of the inputs is the number i of one of p outputs: a basis ψ of the other columns, and
        weights v_i with φ((x, i))ᵀw = ψ(x)ᵀv_i; None where that is not known."""
        return None

    def in_units(self, of_inputs: Any, scale: Float[Array, "p"]) -> "AbstractFeatures":
        """A basis of several outputs, in other units of the inputs and of each output."""
        raise ValueError(f"`{type(self).__name__}` is not a basis of several outputs, with units of their own.")

    def split(self, n_terms: int) -> "tuple[tuple[AbstractFeatures, np.ndarray], ...]":
        """For the basis of a sum of `n_terms` kernels: the basis of each term, and which of the features it consists of."""
        raise NotImplementedError(f"`{type(self).__name__}` is not the basis of a sum.")


class CallableFeatures(AbstractFeatures):
    """A basis of a user's own: any callable, best a module, that maps `n d` to `n f`.

    **Fields:** `function`: φ.
    """

    function: Callable[..., Any]

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n f"]:
        values = self.function(X)
        shape = getattr(values, "shape", None)
        if shape is None or len(shape) != 2 or shape[0] != X.shape[0]:
            got = type(values).__name__ if shape is None else f"shape {shape}"
            raise ValueError(
                f"The features of a kernel must map inputs `n d` to values `n f`; those of `{type(self.function).__name__}` "
                f"made {got} of inputs of shape {X.shape}."
            )
        return values


def as_features(value: Any) -> AbstractFeatures:
    """What a kernel gives for a basis, as one."""
    if isinstance(value, AbstractFeatures):
        return value
    if not callable(value):
        raise ValueError(
            "The method `features` of a kernel must return a basis, a callable that maps inputs `n d` to values `n f`; got "
            f"{type(value).__name__}."
        )
    return CallableFeatures(value)


def size(features: AbstractFeatures, dim: int) -> int:
    """The number of features at inputs of `dim` dimensions."""
    return eqx.filter_eval_shape(features, _one_point(dim)).shape[1]


def _one_point(dim: int) -> np.ndarray:
    return np.zeros((1, dim), np.result_type(float))


def check_covered(features: AbstractFeatures, X: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """`X`, or an error where a point lies outside the region where a basis holds (at run time under jit)."""
    return require_covered(features.covers(X), X)


def require_covered(inside: Literal[True] | Bool[Array, ""], value: Float[Array, "..."]) -> Float[Array, "..."]:
    """`value`, or the error of `check_covered` where `inside` is not true."""
    if inside is True:
        return value
    return _checks.require(
        inside,
        value,
        "`X` holds points outside the box on which the basis of these paths holds. Give `HilbertSpace` a `box`, "
        "or `Nystrom` `points`, around them.",
    )
