"""Kernels of categories, and of several outputs."""

import math
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .. import _checks, _fields
from .._features import AbstractBasis, AbstractFeatures, Coordinates, OutputFeatures, QuasiMonteCarlo, TableFeatures
from .._numerics.linalg import inner
from .._types import AnyArray, Key
from .base import AbstractKernel
from .compose import Product, shared_with
from .transform import ActiveDims


class Categorical(AbstractKernel):
    """k(x, z) = variance where the categories x and z are the same, else 0: a value of its own for each category.

    Inputs have one dimension: a column of whole numbers from 0 to n_categories − 1. For one column of many, use `ActiveDims`.

    **Fields:** `variance`: a scalar, positive, in squared units of the values; `n_categories`: a whole number of at least 1,
    part of the structure.

    **Raises:** ValueError where `variance` is not positive or not a scalar, or `n_categories` is less than 1.
    """

    variance: Float[Array, ""] = eqx.field(converter=_fields.positive)
    n_categories: int = eqx.field(static=True, converter=_fields.count("Categorical.n_categories"))

    def smoothness(self, dim: int) -> float:
        return math.inf

    def matrix(self, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
        same = X[:, 0, None] == Z[None, :, 0]
        return self.variance.astype(X.dtype) * same.astype(X.dtype)

    def diagonal(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return jnp.broadcast_to(self.variance.astype(X.dtype), (X.shape[0],))

    def check_dim(self, dim: int) -> None:
        check_column(self, dim)

    def categories(self, dim: int) -> tuple[int, ...]:
        return (0,)

    def valid(self, X: Float[Array, "n d"]) -> Bool[Array, ""]:
        return are_categories(X, self.n_categories)

    def basis_size(self, dim: int) -> int:
        return self.n_categories

    def features(
        self, n_features: int, dim: int, *, key: Key, basis: AbstractBasis = QuasiMonteCarlo()
    ) -> TableFeatures:
        _checks.count(n_features, "n_features")
        self.check_dim(dim)
        return TableFeatures(jnp.sqrt(self.variance) * jnp.eye(self.n_categories, dtype=self.variance.dtype))

    def __check_init__(self):
        _fields.check_scalar(self, "variance")


class Index(AbstractKernel):
    """k(x, z) = B_xz for categories x and z, with B = W Wᵀ + diag(κ): correlated values for p categories.

    Inputs have one dimension: a column of whole numbers from 0 to p − 1. For one column of many, use `ActiveDims`; for the
    number of an output, `Coregionalised`.

    **Fields:** `W`: `p r`, any rank r, 0 included; `kappa`: κ, `p`, positive. In units whose square is that of the values.

    **Raises:** ValueError where the shapes do not fit or κ is not positive. Source: Bonilla et al. (2007), equation 4.
    """

    W: Float[Array, "p r"] = eqx.field(converter=_fields.real)
    kappa: Float[Array, "p"] = eqx.field(converter=_fields.positive)

    def covariance(self) -> Float[Array, "p p"]:
        """B."""
        return inner(self.W, self.W) + jnp.diag(self.kappa)

    def root(self) -> Float[Array, "p c"]:
        """A square root of B, (W, diag(√κ)), with c = r + p columns."""
        return jnp.concatenate([self.W, jnp.diag(jnp.sqrt(self.kappa))], axis=1)

    def smoothness(self, dim: int) -> float:
        return math.inf

    def matrix(self, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
        B = self.covariance().astype(X.dtype)
        return B[X[:, 0].astype(int)][:, Z[:, 0].astype(int)]

    def diagonal(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return jnp.diagonal(self.covariance()).astype(X.dtype)[X[:, 0].astype(int)]

    def check_dim(self, dim: int) -> None:
        check_column(self, dim)

    def categories(self, dim: int) -> tuple[int, ...]:
        return (0,)

    def valid(self, X: Float[Array, "n d"]) -> Bool[Array, ""]:
        return are_categories(X, self.kappa.shape[0])

    def basis_size(self, dim: int) -> int:
        return sum(self.W.shape)

    def features(
        self, n_features: int, dim: int, *, key: Key, basis: AbstractBasis = QuasiMonteCarlo()
    ) -> TableFeatures:
        _checks.count(n_features, "n_features")
        self.check_dim(dim)
        return TableFeatures(self.root())

    def __check_init__(self):
        _check_coregionalisation(self)


class Coregionalised(AbstractKernel):
    """k((x, i), (z, j)) = B_ij · kernel(x, z) with B = W Wᵀ + diag(κ): p outputs that share one kernel (the intrinsic
    coregionalisation model). A sum of these is the linear model of coregionalisation.

    The last column of the inputs is the number of the output, a whole number from 0 to p − 1; the kernel sees the others.
    Where W is 0, or has no columns, the outputs are independent.

    **Fields:**

    - `kernel`: of the other columns.
    - `W`: `p r`, the loadings of the outputs on r shared processes; r may be 0.
    - `kappa`: κ, `p`, positive: the variance of each output's own process.

    **Raises:** ValueError where `kernel` is not a kernel, the shapes do not fit, or κ is not positive. Source: Bonilla et al.
    (2007), equations 2 and 4; Álvarez et al. (2012), section 4.2.
    """

    kernel: AbstractKernel
    W: Float[Array, "p r"] = eqx.field(converter=_fields.real)
    kappa: Float[Array, "p"] = eqx.field(converter=_fields.positive)

    def index(self) -> Index:
        """The kernel of the numbers of the outputs."""
        return Index(self.W, self.kappa)

    def product(self, dim: int) -> Product:
        """The same kernel as a product of one of the inputs and one of their last column."""
        return Product((ActiveDims(self.kernel, range(dim - 1)), ActiveDims(self.index(), (dim - 1,))))

    def has_basis(self, dim: int) -> bool:
        return self.kernel.has_basis(dim - 1)

    def smoothness(self, dim: int) -> float:
        return self.kernel.smoothness(dim - 1)

    def categories(self, dim: int) -> tuple[int, ...]:
        return self.product(dim).categories(dim)

    def matrix(self, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return self.product(X.shape[1]).matrix(X, Z)

    def diagonal(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return self.product(X.shape[1]).diagonal(X)

    def noise(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return self.product(X.shape[1]).noise(X)

    def check_dim(self, dim: int) -> None:
        if dim < 2:
            raise ValueError(
                "`Coregionalised` needs inputs of at least two dimensions, the last of them the number of the output; "
                f"got {dim}. See `with_outputs`."
            )
        self.kernel.check_dim(dim - 1)

    def valid(self, X: Float[Array, "n d"]) -> Literal[True] | Bool[Array, ""]:
        return self.product(X.shape[1]).valid(X)

    def terms(self, dim: int) -> tuple[AbstractKernel, ...]:
        return tuple(Coregionalised(term, self.W, self.kappa) for term in self.kernel.terms(dim - 1))

    def outputs(self, dim: int) -> "tuple[AbstractKernel, Float[Array, 'p p']]":
        return self.kernel, self.index().covariance()

    def in_units(self, of_inputs: Any, scale: Float[Array, "p"]) -> "Coregionalised":
        a = scale.astype(self.kappa.dtype)
        return Coregionalised(of_inputs(self.kernel), self.W * a[:, None], self.kappa * a**2)

    def factors(self, dim: int) -> tuple[AbstractKernel, ...]:
        return self.product(dim).factors(dim)

    def basis_size(self, dim: int) -> int | None:
        return self.product(dim).basis_size(dim)

    def coordinates(self, dim: int) -> Coordinates | None:
        return self.product(dim).coordinates(dim)

    def is_stationary(self, dim: int) -> bool:
        return False

    def features(
        self, n_features: int, dim: int, *, key: Key, basis: AbstractBasis = QuasiMonteCarlo()
    ) -> AbstractFeatures:
        n_features = _checks.count(n_features, "n_features")
        self.check_dim(dim)
        # Every feature of the inputs has a weight for each column of the root.
        share = shared_with(n_features, sum(self.W.shape))
        own = basis.select(tuple(range(dim - 1)))
        return OutputFeatures(self.kernel.features(share, dim - 1, key=key, basis=own), self.index().root())

    def __check_init__(self):
        if not isinstance(self.kernel, AbstractKernel):
            raise ValueError(f"`Coregionalised.kernel` must be a kernel; got {self.kernel!r}.")
        _check_coregionalisation(self)


def with_outputs(X: Float[AnyArray, "n d"], n_outputs: int) -> Float[Array, "n p d+1"]:
    """Inputs for kernels of several outputs: each point once with the number of each output as its last coordinate.

    **Arguments:** `X`: `n d`; `n_outputs`: p, at least 1.

    **Returns:** `n p d+1`: paths at these give `*s n p`; reshaped to `np d+1`, with `y.reshape(-1)`, they are training data.

    **Raises:** ValueError where `X` is not `n d` or `n_outputs` is less than 1.
    """
    X = _checks.points(X, "X")
    n, p = X.shape[0], _checks.count(n_outputs, "n_outputs")
    numbers = jnp.broadcast_to(jnp.arange(p).astype(X.dtype)[None, :, None], (n, p, 1))
    return jnp.concatenate([jnp.broadcast_to(X[:, None, :], (n, p, X.shape[1])), numbers], axis=2)


def are_categories(X: Float[Array, "n 1"], n: int) -> Bool[Array, ""]:
    return jnp.all((jnp.round(X) == X) & (X >= 0) & (n > X))


def check_column(kernel: AbstractKernel, dim: int) -> None:
    if dim != 1:
        raise ValueError(
            f"`{type(kernel).__name__}` is a kernel of one column of categories; the inputs have {dim} dimensions. "
            "Choose the column with `ActiveDims`."
        )


def _check_coregionalisation(kernel: Index | Coregionalised) -> None:
    name = type(kernel).__name__
    if kernel.W.ndim != 2 or kernel.W.shape[0] == 0:
        raise ValueError(f"`{name}.W` must have shape (p, r), a row for each output; got {kernel.W.shape}.")
    if kernel.kappa.shape != kernel.W.shape[:1]:
        raise ValueError(
            f"`{name}.kappa` must have shape ({kernel.W.shape[0]},), an entry for each row of `W`; got {kernel.kappa.shape}."
        )
    _fields.check(kernel)
