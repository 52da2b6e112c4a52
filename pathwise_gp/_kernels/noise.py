"""White noise as a part of a kernel."""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _fields
from .._features import AbstractBasis, AbstractFeatures, QuasiMonteCarlo
from .._types import Key
from .base import AbstractKernel


class White(AbstractKernel):
    """Independent noise of a variance at every observation.

    It is noise, not a function: it adds to the diagonal of the covariance of what is observed (beside `noise_var`, in the
    solve and in the draws of ε alike), each observation has its own even where inputs repeat, and it is no part of the
    function f that paths draw. So `k(X, Z)`, the covariance of f, is zero. A product with another kernel is noise whose
    variance is the product of both at a point: `White(1.0) * ActiveDims(Index(...), (1,))` has a variance for each category.

    **Fields:** `variance`: a scalar, positive, in squared units of the values.

    **Raises:** ValueError where it is not positive or not a scalar.
    """

    variance: Float[Array, ""] = eqx.field(converter=_fields.positive)

    def smoothness(self, dim: int) -> float:
        return math.inf

    def matrix(self, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return jnp.zeros((X.shape[0], Z.shape[0]), X.dtype)

    def diagonal(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return jnp.zeros((X.shape[0],), X.dtype)

    def noise(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return jnp.broadcast_to(self.variance.astype(X.dtype), (X.shape[0],))

    def basis_size(self, dim: int) -> int:
        return 0

    def features(
        self, n_features: int, dim: int, *, key: Key, basis: AbstractBasis = QuasiMonteCarlo()
    ) -> AbstractFeatures:
        raise NotImplementedError(
            "`White` is noise, not a function: it has no features and no paths. Add it to the kernel of a function (its "
            "variance then joins the noise of the observations), or pass `noise_var`."
        )

    def __check_init__(self):
        _fields.check_scalar(self, "variance")
