"""What looks at points alone."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .base import AbstractFunctional


class AbstractOfPoints(AbstractFunctional):
    """What looks at points alone."""

    X: eqx.AbstractVar[Float[Array, "n d"]]

    @property
    def rows(self) -> Float[Array, "n r"]:
        """All that belongs to each point."""
        return self.X

    @abc.abstractmethod
    def of_rows(self, rows: Float[Array, "b r"]) -> "AbstractOfPoints":
        """The same at other points."""

    def take(self, numbers: Any) -> AbstractFunctional:
        if self.one_by_one:
            return self.of_rows(self.rows[jnp.asarray(numbers, int)])
        k = self._each
        if isinstance(numbers, tuple) and numbers == tuple(i + j for i in numbers[::k] if i % k == 0 for j in range(k)):
            return self.of_rows(self.rows[np.asarray(numbers[::k], int) // k])
        return super().take(numbers)

    @property
    def one_by_one(self) -> bool:
        return self.size == self.X.shape[0]

    def then(self, other: AbstractFunctional) -> AbstractFunctional:
        if not isinstance(other, AbstractOfPoints) or not self.holds(other):
            return super().then(other)
        return self.of_rows(jnp.concatenate([self.rows, other.rows]))

    def with_room(self, size: int) -> "AbstractOfPoints":
        more = -(-size // self._each) - self.X.shape[0]
        return self.of_rows(jnp.concatenate([self.rows, jnp.broadcast_to(self.rows[:1], (more, self.rows.shape[1]))]))

    def holds(self, other: AbstractFunctional) -> bool:
        return jax.tree.structure(self) == jax.tree.structure(other)

    def put(self, other: AbstractFunctional, start: Int[Array, ""]) -> "AbstractOfPoints":
        assert isinstance(other, AbstractOfPoints)
        return self.of_rows(jax.lax.dynamic_update_slice_in_dim(self.rows, other.rows, start // self._each, 0))

    @property
    def _each(self) -> int:
        """The values of each point."""
        return max(1, self.size // max(1, self.X.shape[0]))

    @property
    def points(self) -> Float[Array, "n d"]:
        return self.X

    @property
    def dim(self) -> int:
        return self.X.shape[-1]

    @property
    def dtype(self) -> Any:
        return self.X.dtype
