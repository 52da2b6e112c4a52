"""Where to put inducing points."""

import equinox as eqx
from jaxtyping import Array, Float, Int

from .. import _checks
from .._kernels import AbstractKernel, check_valid
from .._numerics.pivots import pivoted_cholesky
from .._types import AnyArray


def inducing_points(kernel: AbstractKernel, X: Float[AnyArray, "n d"], n_points: int) -> Float[Array, "m d"]:
    """Some of the inputs, chosen one after the other where the variance given those chosen before is largest.

    This is the pivoted Cholesky factorisation of k(X, X), in O(n m²), which never forms it. The choice is near the best of
    all subsets for the bound of a sparse process, and depends on the kernel's hyperparameters.

    **Arguments:** `kernel`; `X`: inputs, `n d`; `n_points`: m, at most n.

    **Returns:** different rows of X, `m d`, in the order of the choice.

    **Raises:** ValueError where `X` is not a finite `n d` array that fits the kernel, or `n_points` is not between 1 and n.
    Source: Burt et al. (2020), section 4.2.
    """
    X = _checks.points(X, "X")
    n_points = _checks.count(n_points, "n_points")
    if n_points > X.shape[0]:
        raise ValueError(f"`n_points` must be at most the number of inputs, {X.shape[0]}; got {n_points}.")
    kernel.check_dim(X.shape[1])
    X = check_valid(kernel, X, "X")
    return X[_pivots(kernel, X, n_points)]


@eqx.filter_jit
def _pivots(kernel: AbstractKernel, X: Float[Array, "n d"], m: int) -> Int[Array, "m"]:
    row = lambda i: kernel.matrix(X[i][None, :], X)[0]
    return pivoted_cholesky(row, kernel.diagonal(X), m).chosen
