"""The functions that a functional is applied to, each a batch that maps `*n d` to `*s *n`."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _means
from .._features import AbstractFeatures, require_covered
from .._features.integrals import feature_integral
from .._kernels import AbstractKernel
from .._kernels.integrals import double_integral, kernel_integral
from .._numerics.boxes import Box, NoClosedForm
from .operators import GradientOperator, LaplacianOperator


class AbstractFunction(eqx.Module):
    """s functions at once."""

    @abc.abstractmethod
    def at(self, X: Float[Array, "n d"]) -> Float[Array, "*s n"]:
        """Their values at points."""

    def __call__(self, X: Float[Array, "*n d"]) -> Float[Array, "..."]:
        values = self.at(X.reshape(-1, X.shape[-1]))
        return values.reshape(*values.shape[:-1], *X.shape[:-1])

    def over_boxes(self, boxes: Float[Array, "q 2 d"], rule: Callable[[Any], Array]) -> Float[Array, "*s q"]:
        """Their integrals over boxes: in closed form where there is one, else by a rule, which is given the functions."""
        return rule(self)

    def gradients(self, X: Float[Array, "n d"]) -> Float[Array, "*s n d"] | None:
        """Their gradients at points where a formula is cheaper than derivatives; else None."""
        return None

    def laplacians(self, X: Float[Array, "n d"]) -> Float[Array, "*s n"] | None:
        """Their Laplacians at points where a formula is cheaper than derivatives; else None."""
        return None


class MeanOf(AbstractFunction):
    """m."""

    mean: Callable[..., Any]

    def at(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return _means.evaluate(self.mean, X)

    def over_boxes(self, boxes: Float[Array, "q 2 d"], rule: Callable[[Any], Array]) -> Float[Array, "q"]:
        try:
            return jax.vmap(lambda box: _means.mean_integral(self.mean, Box(*box)))(boxes)
        except NoClosedForm:
            return rule(self)


class FeaturesOf(AbstractFunction):
    """The functions of a basis, φ."""

    features: AbstractFeatures

    def at(self, X: Float[Array, "n d"]) -> Float[Array, "f n"]:
        return require_covered(self.features.covers(X), self.features(X)).T

    def over_boxes(self, boxes: Float[Array, "q 2 d"], rule: Callable[[Any], Array]) -> Float[Array, "f q"]:
        try:
            return jax.vmap(lambda box: feature_integral(self.features, Box(*box)), out_axes=1)(boxes)
        except NoClosedForm:
            return rule(self)


class KernelAt(AbstractFunction):
    """x ↦ k(z, x), for some points z."""

    kernel: AbstractKernel
    Z: Float[Array, "m d"]

    def at(self, X: Float[Array, "n d"]) -> Float[Array, "m n"]:
        return self.kernel.matrix(self.Z, X)

    def over_boxes(self, boxes: Float[Array, "q 2 d"], rule: Callable[[Any], Array]) -> Float[Array, "m q"]:
        return KernelOverBoxes(self.kernel, boxes).at(self.Z).T

    def gradients(self, X: Float[Array, "n d"]) -> Float[Array, "m n d"] | None:
        return self.kernel.gradients(self.Z, X)

    def laplacians(self, X: Float[Array, "n d"]) -> Float[Array, "m n"] | None:
        return self.kernel.laplacians(self.Z, X)


class Canonical(AbstractFunction):
    """z ↦ k(z, L), the canonical basis functions of what was observed."""

    kernel: AbstractKernel
    functional: Any

    def at(self, X: Float[Array, "n d"]) -> Float[Array, "q n"]:
        return self.functional.of_kernel(self.kernel, X).T

    def over_boxes(self, boxes: Float[Array, "b 2 d"], rule: Callable[[Any], Array]) -> Float[Array, "q b"]:
        return self.functional.apply(KernelOverBoxes(self.kernel, boxes)).T

    def gradients(self, X: Float[Array, "n d"]) -> Float[Array, "q n d"] | None:
        slopes = KernelGradients(self.kernel, X)
        return self.functional.apply(slopes).T.reshape(-1, *X.shape) if slopes.known else None

    def laplacians(self, X: Float[Array, "n d"]) -> Float[Array, "q n"] | None:
        laplacians = KernelLaplacians(self.kernel, X)
        return self.functional.apply(laplacians).T if laplacians.known else None


class KernelOverBoxes(AbstractFunction):
    """z ↦ ∫ k(z, x) dx over boxes, of a kernel of which this and the integral of this are known in closed form."""

    kernel: AbstractKernel
    boxes: Float[Array, "b 2 d"]

    def at(self, X: Float[Array, "n d"]) -> Float[Array, "b n"]:
        return jax.vmap(lambda box: kernel_integral(self.kernel, X, Box(*box)))(self.boxes)

    def over_boxes(self, boxes: Float[Array, "q 2 d"], rule: Callable[[Any], Array]) -> Float[Array, "b q"]:
        of_one = lambda own: jax.vmap(lambda other: double_integral(self.kernel, Box(*own), Box(*other)))(boxes)
        return jax.vmap(of_one)(self.boxes)


class KernelGradients(AbstractFunction):
    """z ↦ ∇ₓk(z, x) at points x, one function for each of their entries, of a kernel that has a formula."""

    kernel: AbstractKernel
    X: Float[Array, "n d"]

    @property
    def known(self) -> bool:
        return jax.eval_shape(self.kernel.gradients, self.X, self.X) is not None

    def at(self, X: Float[Array, "m d"]) -> Float[Array, "k m"]:
        values = self.kernel.gradients(X, self.X)
        assert values is not None
        return values.reshape(X.shape[0], -1).T

    def gradients(self, X: Float[Array, "m d"]) -> Float[Array, "k m d"]:
        return jnp.moveaxis(self.kernel.double_gradients(X, self.X).reshape(*X.shape, -1), -1, 0)

    def over_boxes(self, boxes: Float[Array, "b 2 d"], rule: Callable[[Any], Array]) -> Float[Array, "k b"]:
        slopes = GradientOperator()(KernelOverBoxes(self.kernel, boxes), self.X, 0)
        return slopes.reshape(slopes.shape[0], -1).T


class KernelLaplacians(AbstractFunction):
    """z ↦ Δₓk(z, x) at points x, of a kernel that has a formula."""

    kernel: AbstractKernel
    X: Float[Array, "n d"]

    @property
    def known(self) -> bool:
        return jax.eval_shape(self.kernel.laplacians, self.X, self.X) is not None

    def at(self, X: Float[Array, "m d"]) -> Float[Array, "n m"]:
        values = self.kernel.laplacians(X, self.X)
        assert values is not None
        return values.T

    def laplacians(self, X: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return self.kernel.double_laplacians(X, self.X).T

    def over_boxes(self, boxes: Float[Array, "b 2 d"], rule: Callable[[Any], Array]) -> Float[Array, "n b"]:
        return LaplacianOperator()(KernelOverBoxes(self.kernel, boxes), self.X, 0).T


def times(values: Float[Array, "*s q"], factor: Float[Array, "..."]) -> Float[Array, "*s q"]:
    """Values times a number, or one for each of the last axis."""
    factor = jnp.broadcast_to(factor.astype(values.dtype), values.shape[-1:])
    return values * factor.reshape(*[1] * (values.ndim - 1), -1)
