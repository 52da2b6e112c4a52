"""What a finite basis is."""

import abc

import equinox as eqx
from jaxtyping import Array, Float


class AbstractFeatures(eqx.Module):
    """A finite basis φ: ℝᵈ → ℝᶠ. With w ~ N(0, I), φ(·)ᵀw is a draw of the process with kernel φ(x)ᵀφ(z)."""

    @abc.abstractmethod
    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n f"]:
        """φ at n points, one row a point."""
