"""Functionals made of functionals."""

import itertools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .. import _fields
from .._features import AbstractFeatures
from .._kernels import AbstractKernel
from .._numerics.linalg import inner
from .base import AbstractFunctional
from .functions import times
from .operators import Function


class AbstractCombination(AbstractFunctional):
    """Linear in the values of its parts."""

    parts: eqx.AbstractVar[tuple[AbstractFunctional, ...]]

    @property
    def points(self) -> Float[Array, "p d"]:
        return jnp.concatenate([part.points.astype(self.dtype) for part in self.parts])

    @property
    def dim(self) -> int:
        return self.parts[0].dim

    @property
    def dtype(self) -> Any:
        return self.parts[0].dtype

    @property
    def order(self) -> int:
        return max(part.order for part in self.parts)

    @property
    def width(self) -> int:
        return max(self.size, sum(part.width for part in self.parts))

    def suited_to(self, kernel: AbstractKernel) -> "AbstractCombination":
        parts = tuple(part.suited_to(kernel) for part in self.parts)
        same = all(new is old for new, old in zip(parts, self.parts, strict=True))
        return self if same else eqx.tree_at(lambda L: L.parts, self, parts)

    def __check_init__(self):
        dims = {part.dim for part in self.parts}
        if len(dims) > 1:
            raise ValueError(
                f"Functionals can be put together that look at inputs of one dimension; got {sorted(dims)}."
            )


class Stack(AbstractCombination):
    """One functional below the other, which a list stands for wherever one is taken. Values, observations and noise are lists
    in the same structure, or one vector.

    **Fields:** `parts`: functionals; sets of points stand for the values there.

    **Raises:** ValueError where there are none, or they look at inputs of different dimensions.
    """

    parts: tuple[AbstractFunctional, ...]

    def apply(self, f: Function) -> Float[Array, "*s q"]:
        return jnp.concatenate([part.apply(f) for part in self.parts], axis=-1)

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(part.size for part in self.parts),)

    def of_mean(self, mean: Function) -> Float[Array, "q"]:
        return jnp.concatenate([part.of_mean(mean) for part in self.parts])

    def of_features(self, features: AbstractFeatures) -> Float[Array, "q f"]:
        return jnp.concatenate([part.of_features(features) for part in self.parts])

    def of_kernel(self, kernel: AbstractKernel, Z: Float[Array, "n d"]) -> Float[Array, "n q"]:
        return jnp.concatenate([part.of_kernel(kernel, Z) for part in self.parts], axis=1)

    def cross(self, kernel: AbstractKernel, other: AbstractFunctional) -> Float[Array, "q p"]:
        return jnp.concatenate([part.cross(kernel, other) for part in self.parts])

    def gram(self, kernel: AbstractKernel) -> Float[Array, "q q"]:
        # The blocks on one side of the diagonal, and their mirror images: half of the work, and symmetric to the last digit.
        rows: list[list[Array]] = []
        for i, part in enumerate(self.parts):
            below = [rows[j][i].T for j in range(i)]
            right = [part.cross(kernel, other) for other in self.parts[i + 1 :]]
            rows.append([*below, part.gram(kernel), *right])
        return jnp.block(rows)

    def diagonal(self, kernel: AbstractKernel) -> Float[Array, "q"]:
        return jnp.concatenate([part.diagonal(kernel) for part in self.parts])

    def noise(self, kernel: AbstractKernel) -> Float[Array, "q"]:
        return jnp.concatenate([part.noise(kernel) for part in self.parts])

    def where(self, mask: Bool[Array, "q"]) -> "Stack":
        # A part of which nothing was observed stays where it is.
        own = [(part, mask[there]) for part, there in zip(self.parts, self._slices, strict=True)]
        return Stack(tuple(part.where(seen | ~jnp.any(seen)) for part, seen in own))

    def take(self, numbers: Any) -> AbstractFunctional:
        if not isinstance(numbers, tuple):
            return super().take(numbers)
        # Where they are known and in order, the parts of which nothing is left are left out.
        inside = [[i - there.start for i in numbers if there.start <= i < there.stop] for there in self._slices]
        if [i + there.start for own, there in zip(inside, self._slices, strict=True) for i in own] != list(numbers):
            return super().take(numbers)
        kept = [(part, own) for part, own in zip(self.parts, inside, strict=True) if own]
        some = tuple(part if own == list(range(part.size)) else part.take(tuple(own)) for part, own in kept)
        return some[0] if len(some) == 1 else Stack(some)

    def then(self, other: AbstractFunctional) -> AbstractFunctional:
        last = self.parts[-1].then(other)
        return Stack((*self.parts[:-1], *(last.parts if isinstance(last, Stack) else (last,))))

    def in_parts(
        self, function: Callable[[AbstractFunctional], Float[Array, "*s b"]], width: int, block_bytes: int | None = None
    ) -> Float[Array, "*s q"]:
        return jnp.concatenate([part.in_parts(function, width, block_bytes) for part in self.parts], axis=-1)

    def blocks(self, values: Float[Array, "*s q"]) -> Any:
        return tuple(part.blocks(values[..., there]) for part, there in zip(self.parts, self._slices, strict=True))

    def flatten(self, values: Any, name: str) -> Any:
        return self._flat(values, name, lambda part, value, own: part.flatten(value, own))

    def flatten_variances(self, values: Any, name: str) -> Any:
        return self._flat(values, name, lambda part, value, own: part.flatten(part.expanded(value), own))

    def _flat(self, values: Any, name: str, of_part: Callable[[AbstractFunctional, Any, str], Any]) -> Any:
        if not isinstance(values, (list, tuple)) or (len(values) != len(self.parts) and len(values) == self.size):
            return super().flatten(values, name)
        if len(values) != len(self.parts):
            raise ValueError(
                f"`{name}` must be a list of {len(self.parts)}, an entry for each functional; got {len(values)}."
            )
        flat = [
            of_part(part, value, f"{name}[{i}]") for i, (part, value) in enumerate(zip(self.parts, values, strict=True))
        ]
        np_ = np if all(isinstance(value, np.ndarray) for value in flat) else jnp
        return np_.concatenate([np_.asarray(value) for value in flat])

    @property
    def _slices(self) -> list[slice]:
        ends = np.cumsum([0, *(part.size for part in self.parts)]).tolist()
        return [slice(start, stop) for start, stop in itertools.pairwise(ends)]

    def __check_init__(self):
        if not isinstance(self.parts, tuple) or not self.parts:
            raise ValueError("A list of functionals must hold one at least.")


class Scaled(AbstractCombination):
    """c L. **Fields:** `factor`: c, a scalar or one for each value, `q`; `parts`: (L,)."""

    factor: Float[Array, "..."]
    parts: tuple[AbstractFunctional, ...]

    def apply(self, f: Function) -> Float[Array, "*s q"]:
        return times(self.parts[0].apply(f), self.factor)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.parts[0].shape

    def noise(self, kernel: AbstractKernel) -> Float[Array, "q"]:
        return times(self.parts[0].noise(kernel), self.factor**2)

    def diagonal(self, kernel: AbstractKernel) -> Float[Array, "q"]:
        return times(self.parts[0].diagonal(kernel), self.factor**2)

    def flatten(self, values: Any, name: str) -> Any:
        return self.parts[0].flatten(values, name)


class Added(AbstractCombination):
    """Σ_i L_i. **Fields:** `parts`: functionals with values of one shape."""

    parts: tuple[AbstractFunctional, ...]

    def apply(self, f: Function) -> Float[Array, "*s q"]:
        total = self.parts[0].apply(f)
        for part in self.parts[1:]:
            total = total + part.apply(f)
        return total

    @property
    def shape(self) -> tuple[int, ...]:
        return self.parts[0].shape

    def flatten(self, values: Any, name: str) -> Any:
        return self.parts[0].flatten(values, name)


class Mixed(AbstractCombination):
    """M L. **Fields:** `matrix`: M, `r q`; `parts`: (L,)."""

    matrix: Float[Array, "r q"]
    parts: tuple[AbstractFunctional, ...]

    def apply(self, f: Function) -> Float[Array, "*s r"]:
        values = self.parts[0].apply(f)
        mixed = inner(values.reshape(-1, values.shape[-1]), self.matrix.astype(values.dtype))
        return mixed.reshape(*values.shape[:-1], -1)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.matrix.shape[0],)


class Taken(AbstractCombination):
    """Some of the values of L. **Fields:** `parts`: (L,); `numbers`: which, `r`."""

    parts: tuple[AbstractFunctional, ...]
    numbers: Int[Array | np.ndarray, "r"]

    def apply(self, f: Function) -> Float[Array, "*s r"]:
        return self.parts[0].apply(f)[..., self.numbers]

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.numbers.shape[0],)

    def noise(self, kernel: AbstractKernel) -> Float[Array, "r"]:
        return self.parts[0].noise(kernel)[self.numbers]

    def diagonal(self, kernel: AbstractKernel) -> Float[Array, "r"]:
        return self.parts[0].diagonal(kernel)[self.numbers]


def scale(factor: Any, L: AbstractFunctional) -> Scaled:
    """c L, of a number or one for each value."""
    factor = _fields.array("factor")(factor)
    if factor.shape == L.shape:
        factor = factor.reshape(-1) if factor.ndim else factor
    if factor.shape not in ((), (L.size,)):
        raise ValueError(
            f"A functional can be multiplied by a number, or by one for each of its values, shape {L.shape}; got "
            f"{factor.shape}. A matrix multiplies it by `M @ L`."
        )
    return Scaled(factor=factor, parts=(L,))


def add(left: AbstractFunctional, right: Any) -> Any:
    """The sum of two functionals; sums of sums are flattened."""
    if not isinstance(right, AbstractFunctional):
        return NotImplemented
    if left.shape != right.shape:
        raise ValueError(f"Functionals can be added whose values have one shape; got {left.shape} and {right.shape}.")
    return Added(tuple(p for L in (left, right) for p in (L.parts if isinstance(L, Added) else (L,))))


def mix(matrix: Any, L: AbstractFunctional) -> Mixed:
    """M L."""
    matrix = _fields.array("matrix")(matrix)
    if matrix.ndim != 2 or matrix.shape[1] != L.size or matrix.shape[0] == 0:
        raise ValueError(f"A matrix that multiplies a functional must have shape (r, {L.size}); got {matrix.shape}.")
    return Mixed(matrix=matrix, parts=(L,))
