"""Arrays of which other devices, or other processes, hold a part."""

from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jaxtyping import Array, Float


def known(x: Any) -> np.ndarray:
    """What is concrete as an array of NumPy; also one of which other processes hold a part, that all of them ask for."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    with jax.ensure_compile_time_eval():
        return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def divisible(x: Any) -> Any:
    """An array that XLA may divide as it sees fit: of one that lies on a mesh with axes of the type `Explicit`, which each
    function would have to follow, the same with axes of the type `Auto`. Anything else as it is."""
    if not isinstance(x, jax.Array) or isinstance(x, jax.core.Tracer) or not isinstance(x.sharding, NamedSharding):
        return x
    mesh, sharding = x.sharding.mesh, x.sharding
    if not isinstance(mesh, Mesh) or AxisType.Explicit not in mesh.axis_types:
        return x
    return jax.device_put(x, NamedSharding(Mesh(mesh.devices, mesh.axis_names), sharding.spec))


def hung_on(value: Any, zero: Float[Array, ""]) -> Any:
    """A pytree whose numbers wait for a zero that is not known to be one: so nothing of it goes through the check itself,
    which would make copies, on one device."""

    def wait(leaf: Any) -> Any:
        if not eqx.is_array(leaf) or jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf
        return leaf | (zero != 0) if leaf.dtype == bool else leaf + zero.astype(leaf.dtype)

    return jax.tree.map(wait, value)
