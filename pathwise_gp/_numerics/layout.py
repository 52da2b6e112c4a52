"""Where the entries of long vectors lie: in blocks, each of them spread over the devices of a mesh.

What is asked for each entry is computed where it lies; all else is left to XLA, which divides what it sees among the devices
and adds up what they find. Blocks are the same on any number of devices, and so is what is drawn for their entries.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Shaped

from .lapack import Orthogonal, qr
from .linalg import inner
from .pivots import Largest, largest

# Whole numbers below this one are exact in single precision, and so are two of them for one that is larger.
_RADIX = 2**20


def saved(module: eqx.Module) -> dict[str, Any]:
    """`__getstate__` of a module with a `mesh`, which is saved as the numbers of its devices."""
    state = dict(vars(module))
    mesh = state["mesh"]
    if mesh is not None:
        numbers = np.vectorize(lambda device: device.id, otypes=[int])(mesh.devices)
        state["mesh"] = numbers, mesh.axis_names
    return state


def restore(module: eqx.Module, state: dict[str, Any]) -> None:
    """`__setstate__` of a module with a `mesh`."""
    mesh = state["mesh"]
    for name, value in (state | {"mesh": None if mesh is None else _mesh_of(*mesh)}).items():
        object.__setattr__(module, name, value)


def _mesh_of(numbers: Int[np.ndarray, "..."], axis_names: tuple[str, ...]) -> Mesh:
    here = {device.id: device for device in jax.devices()}
    if missing := set(numbers.flat) - set(here):
        raise ValueError(
            f"It was saved with a mesh of {numbers.size} device(s), of which {len(missing)} are not here: there are "
            f"{len(here)}. Save `mean` and paths, which know of no mesh, or condition again."
        )
    return Mesh(np.vectorize(here.__getitem__, otypes=[object])(numbers), axis_names)


def as_mesh(mesh: Any) -> Mesh | None:
    """A mesh whose axes XLA divides work along, or None."""
    if mesh is None:
        return None
    if not isinstance(mesh, Mesh):
        raise ValueError(
            f"`mesh` must be a `jax.sharding.Mesh`, such as `jax.make_mesh((jax.device_count(),), ('rows',))`; got {mesh!r}."
        )
    return Mesh(mesh.devices, mesh.axis_names)


class Layout(eqx.Module):
    """n entries as arrays `j b`: j blocks of equal length, the last entries of which may be holes.

    **Fields:** `n`; `n_blocks`: j; `mesh`: each block is spread over all devices of it; None for one that holds all.
    """

    n: int = eqx.field(static=True)
    n_blocks: int = eqx.field(static=True, default=1)
    mesh: Mesh | None = eqx.field(static=True, default=None)

    def __getstate__(self) -> dict[str, Any]:
        return saved(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        restore(self, state)

    @property
    def n_devices(self) -> int:
        return 1 if self.mesh is None else self.mesh.size

    @property
    def each(self) -> int:
        """How many entries a block has."""
        return -(-self.n // self.n_blocks)

    @property
    def width(self) -> int:
        """b: with holes, so that each device has as many."""
        return -(-self.each // self.n_devices) * self.n_devices

    @property
    def full(self) -> bool:
        """Whether there are no holes."""
        return self.n_blocks * self.width == self.n

    @property
    def numbers(self) -> Int[Array, "j b"]:
        """Of each place the entry that lies there; of holes any."""
        return jnp.minimum(self._starts[:, None] + jnp.minimum(self._places, self.each - 1)[None, :], self.n - 1)

    @property
    def filled(self) -> Bool[Array, "j b"]:
        """Of each place whether it is no hole."""
        return (self._starts[:, None] + self._places[None, :] < self.n) & (self._places < self.each)[None, :]

    def place_of(self, number: Any) -> Any:
        """Where an entry lies, counted through all blocks."""
        return number // self.each * self.width + number % self.each

    @property
    def _starts(self) -> Int[Array, "j"]:
        return jnp.arange(self.n_blocks) * self.each

    @property
    def _places(self) -> Int[Array, "b"]:
        return jnp.arange(self.width)

    def fold(self, V: Shaped[Array, "*s n"]) -> Shaped[Array, "*s j b"]:
        """Vectors in this layout, 0 in holes."""
        none = [(0, 0)] * (V.ndim - 1)
        blocks = jnp.pad(V, [*none, (0, self.n_blocks * self.each - self.n)])
        blocks = blocks.reshape(*V.shape[:-1], self.n_blocks, self.each)
        blocks = jnp.pad(blocks, [*none, (0, 0), (0, self.width - self.each)])
        return blocks if self.mesh is None else self._placed(blocks, _along(self.mesh, blocks.ndim - 1))

    def unfold(self, V: Shaped[Array, "*s j b"]) -> Shaped[Array, "*s n"]:
        """Vectors as they were."""
        return V[..., : self.each].reshape(*V.shape[:-2], self.n_blocks * self.each)[..., : self.n]

    def everywhere(self, tree: Any) -> Any:
        """The same arrays, all of each on every device."""
        if self.mesh is None:
            return tree
        return jax.tree.map(lambda leaf: self._placed(leaf, PartitionSpec()) if eqx.is_array(leaf) else leaf, tree)

    def own(self, function: Callable[..., Float[Array, "s m"]], L: Any, *args: Any) -> Float[Array, "s j b"]:
        """`function(L, *args)` for a function that treats the values of a functional L alike, on each device of those that it
        holds."""
        if self.mesh is None:
            return self.fold(function(L, *args))

        def here(numbers: Int[Array, "j b"], L: Any, args: Any) -> Float[Array, "s j b"]:
            return function(L.take(numbers.reshape(-1)), *args).reshape(-1, *numbers.shape)

        everywhere = PartitionSpec()
        specs = _along(self.mesh, 1), everywhere, everywhere
        return _on(self.mesh, here, specs, _along(self.mesh, 2))(self.numbers, L, args)

    def applied(self, K: Float[Array, "c j b"], V: Float[Array, "s c"]) -> Float[Array, "s j b"]:
        """Kᵀv for each vector v of V, on each device for the entries that it holds."""

        def here(K: Float[Array, "c j b"], V: Float[Array, "s c"]) -> Float[Array, "s j b"]:
            return inner(V, K.reshape(K.shape[0], -1).T).reshape(-1, *K.shape[1:])

        if self.mesh is None:
            return here(K, V)
        last = _along(self.mesh, 2)
        return _on(self.mesh, here, (last, PartitionSpec()), last)(K, V)

    def of_blocks(self, function: Callable[..., Float[Array, "b c"]], *args: Any) -> Float[Array, "j b c"]:
        """`function(number, *args)` of each block, of which each device makes its share."""
        numbers, each = jnp.arange(self.n_blocks), lambda own, args: jax.lax.map(lambda i: function(i, *args), own)
        if self.mesh is None:
            return each(numbers, args)
        first = _along(self.mesh, 0)
        own = jnp.pad(numbers, (0, -self.n_blocks % self.n_devices))
        made = _on(self.mesh, each, (first, PartitionSpec()), first)(own, args)
        return self._placed(made[: self.n_blocks], _along(self.mesh, 1))

    def qr(self, A: Float[Array, "b k"]) -> Orthogonal:
        """The factors of a matrix with a row for each entry of a single block: of the rows on each device, and of the
        triangles that these leave (Demmel et al. 2012)."""
        if self.mesh is None:
            return qr(A)
        first = _along(self.mesh, 0)
        Q, R = _on(self.mesh, lambda A: tuple(qr(A)), first, (first, first))(A)
        turn, R = qr(self._placed(R, PartitionSpec()))
        return Orthogonal(_on(self.mesh, lambda Q, turn: inner(Q, turn.T), (first, first), first)(Q, turn), R)

    def largest(self, scores: Float[Array, "b"], *values: Float[Array, "..."]) -> Largest:
        """`largest` of the entries of a single block, in one exchange."""
        if self.mesh is None:
            return largest(scores, *values)

        def here(scores: Float[Array, "b"], values: Any) -> Float[Array, "1 k"]:
            number, column = largest(scores, scores, *values)
            parts = jnp.stack([number // _RADIX, number % _RADIX]).astype(column.dtype)
            return jnp.concatenate([column, parts])[None, :]

        last = tuple(_along(self.mesh, value.ndim - 1) for value in values)
        first = _along(self.mesh, 0)
        found = self._placed(_on(self.mesh, here, (first, last), first)(scores, values), PartitionSpec())
        device = jnp.argmax(found[:, 0])
        high, low = found[device, -2:].astype(int)
        number = device * (self.width // self.n_devices) + high * _RADIX + low
        return Largest(number, found[device, 1:-2])

    def _placed(self, V: Shaped[Array, "..."], spec: PartitionSpec) -> Shaped[Array, "..."]:
        assert self.mesh is not None
        return jax.lax.with_sharding_constraint(V, NamedSharding(self.mesh, spec))


def _along(mesh: Mesh, axis: int) -> PartitionSpec:
    """One axis spread over all devices."""
    return PartitionSpec(*(None,) * axis, mesh.axis_names)


def _on(mesh: Mesh, function: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """A function on each device, of pytrees of which only the arrays are its own."""

    def call(*args: Any) -> Any:
        arrays, rest = eqx.partition(args, eqx.is_array)
        here = lambda *arrays: function(*eqx.combine(arrays, rest))
        # A carry that is the same everywhere at first, as zeros are, is no error.
        return jax.shard_map(here, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)(*arrays)

    return call
