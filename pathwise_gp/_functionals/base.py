"""What was observed of a function: numbers that are linear in it."""

import abc
import math
from collections.abc import Callable
from typing import Any, Literal, TYPE_CHECKING, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .. import _checks, _fields
from .._features import AbstractFeatures
from .._kernels import AbstractKernel
from .._modules import Printed
from .._numerics.linalg import inner
from .._numerics.pointwise import require_scalar
from .._types import AnyArray, Number
from .functions import Canonical, FeaturesOf, KernelAt, MeanOf
from .operators import Function


class AbstractFunctional(Printed, eqx.Module):
    """L: q numbers that are linear in a function f. It is a callable on functions: of f that maps inputs `*n d` to `*s *n` it
    makes `*s q`, and that one method is all there is to say of it, as the library only ever applies L to functions: to
    features, to means, to kernels in each of their arguments, and to paths.

    Functionals add, subtract and scale: `L1 + L2`, `2.0 * L`, `c * L` with a number for each value, `M @ L` with any matrix,
    and a list of them is one below the other.

    To write one, give `apply`, `shape` and `points`, and the `order` of its derivatives where there are any; a
    `LinearFunctional` needs only a function.
    """

    # NumPy would otherwise make `np.ones(2) * L` an array of two functionals.
    __array_ufunc__ = None

    @abc.abstractmethod
    def apply(self, f: Function) -> Float[Array, "*s q"]:
        """L f, for f that maps `*n d` to `*s *n`."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of the values, of which there are q in all."""

    @property
    @abc.abstractmethod
    def points(self) -> Float[Array, "p d"]:
        """Inputs about which the functional looks at f."""

    @property
    def order(self) -> int:
        """Of the highest derivative that is taken."""
        return 0

    @property
    def size(self) -> int:
        """q."""
        return math.prod(self.shape)

    @property
    def width(self) -> int:
        """Entries of the largest temporary that is made of each function."""
        return max(self.size, self.points.shape[-2])

    def suited_to(self, kernel: AbstractKernel) -> "AbstractFunctional":
        """The same for functions of a kernel, whose integrals have a closed form or not."""
        return self

    @property
    def dim(self) -> int:
        """d, the dimension of the inputs."""
        return self.points.shape[-1]

    @property
    def dtype(self) -> Any:
        return self.points.dtype

    def __call__(self, paths: Function) -> Float[Array, "*s q"]:
        """L of each of some paths, or of any function.

        **Arguments:** `paths`: a callable that maps `*n d` to `*s *n`.

        **Returns:** `*s q`. **Raises:** ValueError where it is not callable, or says that it has too few derivatives.
        """
        if not callable(paths):
            raise ValueError(f"`paths` must be a function of inputs `*n d`; got {type(paths).__name__}.")
        if self.order and getattr(paths, "smoothness", math.inf) < self.order:
            raise ValueError(
                f"`paths` have {getattr(paths, 'smoothness', math.inf):g} derivatives in each direction, and one of order "
                f"{self.order} was asked for. Take a smoother kernel, or differences."
            )
        return _applied(self, paths)

    def of_mean(self, mean: Function) -> Float[Array, "q"]:
        """L m."""
        return self.apply(MeanOf(mean))

    def of_features(self, features: AbstractFeatures) -> Float[Array, "q f"]:
        """L φ."""
        return self.apply(FeaturesOf(features)).T

    def of_kernel(self, kernel: AbstractKernel, Z: Float[Array, "n d"]) -> Float[Array, "n q"]:
        """k(z, L) for n points z: the covariance of f(z) and L f."""
        return self.apply(KernelAt(kernel, Z))

    def cross(self, kernel: AbstractKernel, other: "AbstractFunctional") -> Float[Array, "q p"]:
        """L k L′ᵀ: the covariance of L f and L′ f."""
        return self.apply(Canonical(kernel, other)).T

    def gram(self, kernel: AbstractKernel) -> Float[Array, "q q"]:
        """L k Lᵀ."""
        return self.cross(kernel, self)

    def diagonal(self, kernel: AbstractKernel) -> Float[Array, "q"]:
        """The variances of L f."""
        return jnp.diagonal(self.gram(kernel))

    def of_draws(self, features: AbstractFeatures, weights: Float[Array, "s f"]) -> Float[Array, "s q"]:
        """L φᵀw for some vectors w."""
        return inner(weights, self.of_features(features))

    def along(
        self, kernel: AbstractKernel, Z: Float[Array, "n d"], coefficients: Float[Array, "s q"]
    ) -> Float[Array, "s n"]:
        """k(z, L)α for n points z and some vectors α."""
        return inner(coefficients, self.of_kernel(kernel, Z))

    def times(self, kernel: AbstractKernel, other: "AbstractFunctional", V: Float[Array, "s p"]) -> Float[Array, "s q"]:
        """L k L′ᵀ v for some vectors v."""
        return inner(V, self.cross(kernel, other))

    @property
    def grid(self) -> tuple[Float[Array, "n d"], int] | None:
        """Points and how many outputs, where all outputs are looked at, at all of the points; else None."""
        return None

    @property
    def n_each(self) -> int | None:
        """How many outputs a full grid has; None for what is none."""
        return None if self.grid is None else self.grid[1]

    def by_output(
        self, B: Float[Array, "p p"], coefficients: Float[Array, "*s q"]
    ) -> "tuple[Float[Array, 'n d'], Float[Array, '*s p n']] | None":
        """Of a kernel of inputs x times B of the number i of the output, their last column: points, without that number, and
        coefficients α_i with k((x, i), L)α = k(x, points)α_i; None where it does not look at values."""
        return None

    def spread(self, values: Float[Array, "..."]) -> Float[Array, "q"]:
        """Variances that were given as one number, or as many as they may be, for each value."""
        return jnp.broadcast_to(values, (self.size,))

    def of_outputs(self, values: Float[Array, "p"]) -> Float[Array, "q"]:
        """Of numbers that belong to outputs, that of each value."""
        raise ValueError(
            f"`noise_var` of `{type(self).__name__}` must be given: that of the other observations belongs to each output."
        )

    def noise(self, kernel: AbstractKernel) -> Float[Array, "q"]:
        """Variances of the white noise of a kernel, which belongs to values at points alone."""
        return jnp.zeros((self.size,), self.dtype)

    def valid(self, kernel: AbstractKernel) -> Literal[True] | Bool[Array, ""]:
        """Whether it looks at functions where the kernel knows them."""
        return kernel.valid(self.points)

    def where(self, mask: Bool[Array, "q"]) -> "AbstractFunctional":
        """The same with something that was observed in place of what was not, as far as it matters where that lies."""
        return self

    def take(self, numbers: Any) -> "AbstractFunctional":
        """Some of the values, by their numbers: an array, or a tuple where they are part of the structure."""
        from .combine import Taken

        return Taken(parts=(self,), numbers=np.asarray(numbers) if isinstance(numbers, tuple) else numbers)

    @property
    def one_by_one(self) -> bool:
        """Whether any of the values can be left out, and the others be of this kind."""
        return False

    def then(self, other: "AbstractFunctional") -> "AbstractFunctional":
        """This one and another one below it."""
        from .combine import Stack

        return Stack((self, *(other.parts if isinstance(other, Stack) else (other,))))

    def with_room(self, size: int) -> "AbstractFunctional":
        """The same with copies of a value below, `size` in all or a little more, in whose place others can be `put`."""
        raise ValueError(
            "`capacity` is for values at points, or derivatives of one kind at points; leave it out for a "
            f"`{type(self).__name__}`, "
            "below which `posterior.condition` puts what is new, in arrays of a new size."
        )

    def holds(self, other: "AbstractFunctional") -> bool:
        """Whether the other is of this kind, and can be `put`."""
        return False

    def put(self, other: "AbstractFunctional", start: Int[Array, ""]) -> "AbstractFunctional":
        """Others of this kind in place of the values from a number on."""
        raise NotImplementedError

    def in_parts(
        self,
        function: Callable[["AbstractFunctional"], Float[Array, "*s b"]],
        width: int,
        block_bytes: int | None = None,
    ) -> Float[Array, "*s q"]:
        """`function(L)` for a function that treats the values alike; where there are many, a part of L at a time.

        **Arguments:** `function`: of a functional with b values, `*s b`; `width`: entries of its largest temporary for each.
        """
        return function(self)

    def blocks(self, values: Float[Array, "*s q"]) -> Any:
        """Values in the shape of what was observed, `*s` and `shape`; of a list of functionals a tuple of these."""
        return values.reshape(*values.shape[:-1], *self.shape)

    def flatten(self, values: Any, name: str) -> Any:
        """Values in the shape of what was observed as one vector `q`; one number stands for all."""
        shape = np.shape(values)
        if shape in ((), self.shape):
            np_ = jnp if isinstance(values, jax.Array) else np
            return np_.broadcast_to(np_.asarray(values), self.shape).reshape(-1)
        if shape == (self.size,):
            return values
        raise ValueError(
            f"`{name}` must be a number or have the shape of what `{type(self).__name__}` makes, {self.shape}; got {shape}."
        )

    def flatten_variances(self, values: Any, name: str) -> Any:
        """Variances as `flatten` makes them, or as many as there are outputs."""
        return self.flatten(values, name)

    def expanded(self, variances: Any) -> Any:
        """Of variances of each output those of each value; others as they are."""
        return variances

    def astype(self, dtype: Any) -> "AbstractFunctional":
        """The same, of inputs in another precision."""
        cast = lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf
        return jax.tree.map(cast, self)

    def rescaled(self, scaling: Any) -> "AbstractFunctional":
        raise ValueError(
            f"A posterior given `{type(self).__name__}` is read in the units that it was made in: scale the inputs, the "
            "values and the functionals by hand."
        )

    def __add__(self, other: "AbstractFunctional") -> "AbstractFunctional":
        from .combine import add  # combinations are functionals themselves

        return add(self, other)

    def __sub__(self, other: "AbstractFunctional") -> "AbstractFunctional":
        return self + (-1.0) * other if isinstance(other, AbstractFunctional) else NotImplemented

    def __neg__(self) -> "AbstractFunctional":
        return (-1.0) * self

    def __mul__(self, factor: Number | Float[AnyArray, "..."]) -> "AbstractFunctional":
        from .combine import scale

        return scale(factor, self)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Number | Float[AnyArray, "..."]) -> "AbstractFunctional":
        return self * (1 / _checks.floating(divisor, "divisor"))

    def __rmatmul__(self, matrix: Float[AnyArray, "r q"]) -> "AbstractFunctional":
        from .combine import mix

        return mix(matrix, self)


@eqx.filter_jit
def _applied(L: AbstractFunctional, paths: Function) -> Float[Array, "*s q"]:
    require_scalar(paths, L.points)
    return L.apply(paths)


if TYPE_CHECKING:
    # What was observed, where a checker cannot know which it is: points `n d`, a functional, or a list of these.
    Observed: TypeAlias = Any
    # Inputs, a functional, or a list of these.
    Asked: TypeAlias = AnyArray | AbstractFunctional
else:
    Observed: TypeAlias = Float[Array, "n d"] | AbstractFunctional
    Asked: TypeAlias = Any


def is_structured(X: Any) -> bool:
    """Whether something is a functional, or a list with one or of sets of points, and not an array."""
    if isinstance(X, AbstractFunctional):
        return True
    return isinstance(X, (list, tuple)) and any(is_structured(part) or getattr(part, "ndim", 0) > 1 for part in X)


def observed(name: str) -> Callable[[Any], Any]:
    """A converter of points `n d`, a functional, or a list of these, one below the other."""
    points = _fields.points(name)

    def convert(X: Any) -> Any:
        X = as_inputs(X) if isinstance(X, AbstractFunctional) else X
        if isinstance(X, AbstractFunctional):
            return X
        if not is_structured(X):
            return points(X)
        from .combine import Stack

        parts = [as_functional(convert(part)) for part in X]
        dtype = jnp.result_type(*(part.dtype for part in parts))
        return Stack(tuple(part if part.dtype == dtype else part.astype(dtype) for part in parts))

    return convert


def as_functional(X: Any) -> AbstractFunctional:
    """Points as the values there; a functional as it is."""
    from .values import Values

    return X if isinstance(X, AbstractFunctional) else Values(X)


def as_inputs(L: AbstractFunctional) -> Any:
    """The points, of values there; any other functional as it is."""
    from .values import Values

    return L.X if isinstance(L, Values) else L


def size_of(X: Any) -> int:
    """The number of values; also of points that have axes of a batch in front."""
    return X.size if isinstance(X, AbstractFunctional) else X.shape[-2]


def dim_of(X: Any) -> int:
    """The dimension of the inputs."""
    return X.dim if isinstance(X, AbstractFunctional) else X.shape[-1]


def flat_data(X: Any, y: Any, noise_var: Any, mask: Any) -> tuple[Any, Any, Any]:
    """Observations, noise and mask in the structure of a functional as vectors; those of points as they are."""
    if not isinstance(X, AbstractFunctional):
        _checks.not_inputs(y, X)
        return y, noise_var, mask
    noise_var = noise_var if is_number(noise_var) else X.flatten_variances(noise_var, "noise_var")
    return None if y is None else X.flatten(y, "y"), noise_var, None if mask is None else X.flatten(mask, "mask")


def is_number(value: Any) -> bool:
    """Whether something is one number, and not a list of them."""
    return not isinstance(value, (list, tuple)) and np.ndim(value) == 0


def check_functional(L: AbstractFunctional, kernel: AbstractKernel, dim: int | None = None) -> None:
    """Raises where a functional is of no function that the kernel makes, of inputs of some dimension."""
    if dim is not None and L.dim != dim:
        raise ValueError(f"`{type(L).__name__}` looks at inputs of {L.dim} dimension(s), but the prior has {dim}.")
    kernel.check_dim(L.dim)
    L.suited_to(kernel)
    if not L.order:
        return
    smoothness = kernel.smoothness(L.dim)
    if L.order > smoothness:
        raise ValueError(
            f"`{type(L).__name__}` takes derivatives of order {L.order}, and functions of `{kernel.label()}` have "
            f"{smoothness:g} in each direction: take a smoother kernel, or observe differences."
        )
    # What is not known yet may be anything.
    known = jax.tree.map(lambda leaf: leaf if _checks.is_concrete(leaf) else np.ones(leaf.shape, leaf.dtype), L)
    for column in kernel.categories(L.dim):
        with jax.ensure_compile_time_eval():
            along = np.asarray(known.apply(_Step(column)))
        if np.any(along != 0):
            raise ValueError(
                f"`{type(L).__name__}` takes a derivative along column {column} of the inputs, which holds numbers of "
                f"categories or outputs for `{kernel.label()}`: use `Derivative`, or `Directional` with 0 there."
            )


class _Step(eqx.Module):
    """0 at every point, with a derivative along one column and mixed ones with it, and no others."""

    column: int = eqx.field(static=True)

    def __call__(self, X: Float[Array, "*n d"]) -> Float[Array, "*n"]:
        moved = X - jax.lax.stop_gradient(X)
        return moved[..., self.column] * jnp.exp(jnp.sum(moved, axis=-1))
