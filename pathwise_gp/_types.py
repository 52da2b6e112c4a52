"""Array aliases. Letters are the same everywhere: n inputs, m inducing points, d dimensions, f features, s paths."""

from typing import Any, Protocol, TYPE_CHECKING, TypeAlias

import numpy as np
from jaxtyping import Array, Float, Int, Key as TypedKey, PRNGKeyArray, UInt32

Key: TypeAlias = PRNGKeyArray
# Several, as `jax.random.split` returns them.
Keys: TypeAlias = TypedKey[Array, "_"] | UInt32[Array, "_ _"]

if TYPE_CHECKING:

    class SupportsArray(Protocol):
        """What NumPy makes an array of: an array of its own or of JAX, a column of a table."""

        def __array__(self) -> np.ndarray[Any, Any]: ...

    # What a checker lets in by a door is what is converted there, whatever its shape; with complex numbers, as what
    # `numpyro.sample` returns may be any, says its annotation.
    Number: TypeAlias = float | complex | SupportsArray
    AnyArray: TypeAlias = Number | list[Any] | tuple[Any, ...]
    Numbers: TypeAlias = AnyArray
else:
    # When the program runs, shapes are checked of arrays, and what else there is by the doors themselves.
    AnyArray: TypeAlias = Array | np.ndarray
    Number: TypeAlias = float | int | Float[AnyArray, ""] | Int[AnyArray, ""]
    Numbers: TypeAlias = Any
