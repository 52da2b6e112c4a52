"""Squared distances between two sets of points."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Past this many dimensions the differences are formed by a fused reduction: it is slower, but compiles in constant time.
_UNROLLED = 64


def squared_distances(
    X: Float[Array, "n d"], Z: Float[Array, "m d"], lengthscale: Float[Array, "d"]
) -> Float[Array, "n m"]:
    """Σ_i (x_i − z_i)² / ℓ_i² by direct differences.

    The difference of two nearby numbers is exact, so it comes before the division. The expansion ‖x‖² + ‖z‖² − 2x·z is no
    faster to speak of and loses every digit where ‖x‖² is large beside the distance, which makes a covariance matrix
    indefinite in float32.

    **Returns:** `n m`, exactly zero at coincident points and smooth there.
    """
    rates = 1 / lengthscale
    dim = X.shape[1]
    if dim > _UNROLLED:
        return jax.vmap(lambda x: jnp.sum(((x[None, :] - Z) * rates[None, :]) ** 2, axis=1))(X)
    total = jnp.zeros((X.shape[0], Z.shape[0]), X.dtype)
    for difference, rate in zip(differences(X, Z), rates, strict=True):
        scaled = difference * rate
        total = total + scaled * scaled
    return total


def differences(X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> list[Float[Array, "n m"]]:
    """x_i − z_i for each dimension i."""
    # Each coordinate of Z by itself in memory, before all else: the compiler would load it with strides, row after row.
    columns = jax.lax.optimization_barrier(Z.T)
    return [X[:, i, None] - columns[None, i, :] for i in range(X.shape[1])]
