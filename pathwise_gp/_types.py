"""Array aliases. Letters are the same everywhere: n inputs, m inducing points, d dimensions, f features, s paths."""

from typing import TypeAlias

import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

Key: TypeAlias = PRNGKeyArray
AnyArray: TypeAlias = Array | np.ndarray
Number: TypeAlias = float | int | Float[AnyArray, ""] | Int[AnyArray, ""]
