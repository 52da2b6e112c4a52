"""Squared distances between two sets of points."""

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from .linalg import inner

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
    return _weighted_squares(X, Z, 1 / lengthscale)


@jax.custom_jvp
def _weighted_squares(X: Float[Array, "n d"], Z: Float[Array, "m d"], rates: Float[Array, "d"]) -> Float[Array, "n m"]:
    """Σ_i (x_i − z_i)² rate_i²."""
    if X.shape[1] > _UNROLLED:
        return jax.vmap(lambda x: jnp.sum(((x[None, :] - Z) * rates[None, :]) ** 2, axis=1))(X)
    total = jnp.zeros((X.shape[0], Z.shape[0]), X.dtype)
    for i, difference in enumerate(differences(X, Z)):
        scaled = difference * rates[i]
        total = total + scaled * scaled
    return total


def _weighted_squares_jvp(primals, tangents):
    X, Z, rates = primals
    dX, dZ, drates = tangents
    value = _weighted_squares(X, Z, rates)
    tangent = jnp.zeros_like(value)
    if not isinstance(drates, SymbolicZero):
        # As accurate as the squares: those of one dimension after the other, times 2 rate drate.
        if X.shape[1] > _UNROLLED:
            by_rate = 2 * rates * drates
            tangent = tangent + jax.vmap(lambda x: jnp.sum((x[None, :] - Z) ** 2 * by_rate[None, :], axis=1))(X)
        else:
            for i, difference in enumerate(differences(X, Z)):
                tangent = tangent + difference * difference * (2 * rates[i] * drates[i])
    if not (isinstance(dX, SymbolicZero) and isinstance(dZ, SymbolicZero)):
        # 2 Σ_i (x_i − z_i)(dx_i − dz_i) rate_i² is linear in what varies: as a matrix product its transpose is one too,
        # where the sums over single entries that it stands for would cost several times as much. What this loses, the size of
        # the region in lengthscales times the unit of rounding, is little; the origin is moved into the region.
        origin = jax.lax.stop_gradient(jnp.mean(Z, axis=0, keepdims=True))
        weights = (2 * rates * rates)[None, :]
        x, z = X - origin, Z - origin
        if not isinstance(dX, SymbolicZero):
            moved = dX * weights
            left = jnp.concatenate([jnp.sum(x * moved, axis=1, keepdims=True), moved], axis=1)
            tangent = tangent + inner(left, jnp.concatenate([jnp.ones_like(z[:, :1]), -z], axis=1))
        if not isinstance(dZ, SymbolicZero):
            moved = dZ * weights
            right = jnp.concatenate([jnp.sum(z * moved, axis=1, keepdims=True), moved], axis=1)
            tangent = tangent + inner(jnp.concatenate([jnp.ones_like(x[:, :1]), -x], axis=1), right)
    return value, tangent


_weighted_squares.defjvp(_weighted_squares_jvp, symbolic_zeros=True)


def differences(X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> list[Float[Array, "n m"]]:
    """x_i − z_i for each dimension i."""
    # Each coordinate of Z by itself in memory, before all else: the compiler would load it with strides, row after row.
    columns = jax.lax.optimization_barrier(Z.T)
    return [X[:, i, None] - columns[None, i, :] for i in range(X.shape[1])]
