"""The system solved a block of observations at a time."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

from .. import _fields
from .._numerics.block_projections import block_projections, Blocks
from .._numerics.conjugate_gradients import Preconditioner
from .._numerics.iterations import Found, Product
from .._numerics.lapack import cholesky
from .._numerics.layout import as_mesh, Layout
from .._numerics.linalg import inverse
from .conjugate_gradients import RandomPivots
from .iterative import AbstractIterative, Covariance


class BlockProjections(AbstractIterative):
    """A⁻¹b by steps of which each solves the equations of a block of observations, in a random order, with the momentum of
    two averages. In a pass over the covariance it gets several times as far as conjugate gradients do at first, and slowly
    to a small residual: for predictions from very many observations whose covariance is computed anew in each pass.

    What is left of the residual is mostly along directions that the noise dominates. The mean and the paths are right long
    before it is small: with `throw=False` some 20 passes are taken for what they are.

    **Fields:**

    - `tolerance`: ‖b − Ax‖ / ‖b‖ that each right-hand side is to reach, between 0 and 1.
    - `max_passes`: where it ends at the latest.
    - `cache`, `throw`, `mesh`: as of `ConjugateGradients`.
    - `block`: how many observations a block has at most, at least 1; all blocks have as many. With more of them it takes
      fewer passes, and the inverses of all blocks hold `block` numbers for each observation and take O(block² n).
    - `seed`: of the order, which is another in each pass.

    All of them are part of the structure. What such a posterior does not know is an error, as there.

    **Raises:** ValueError where a field is not such a number, or `mesh` not a mesh.
    Source: Tu et al. (2017), algorithm 2; Rathore et al. (2025).
    """

    tolerance: float = eqx.field(static=True, default=1e-2, converter=_fields.fraction("tolerance"))
    max_passes: int = eqx.field(static=True, default=200, converter=_fields.count("max_passes"))
    cache: int = eqx.field(static=True, kw_only=True, default=2**30)
    throw: bool = eqx.field(static=True, kw_only=True, default=True)
    mesh: Mesh | None = eqx.field(static=True, kw_only=True, default=None, converter=as_mesh)
    block: int = eqx.field(static=True, kw_only=True, default=1000, converter=_fields.count("block"))
    seed: int = eqx.field(static=True, kw_only=True, default=0)

    def layout(self, n: int) -> Layout:
        return Layout(n=n, n_blocks=-(-n // min(self.block, n)), mesh=self.mesh)

    @property
    def remedy(self) -> str:
        return "a larger `block`, or use `ConjugateGradients`"

    def aid(self, covariance: Covariance) -> Blocks:
        layout, variances = covariance.layout, covariance.variances
        # Each device takes the covariance whole, without what is held.
        A = covariance if self.mesh is None else covariance.holding(None)
        inverses = layout.of_blocks(lambda i, A: inverse(cholesky(A.corner(i))), A)
        # The part b/n of what is noise of the mean variance: no unit enters.
        noise, variance = jnp.sum(covariance.seen(covariance.diagonal)), jnp.sum(variances)
        share = jnp.where(variance > 2 * noise, noise / jnp.where(variance > 0, variance, 1), 0.5)
        nu = jnp.asarray(layout.n / layout.each, variances.dtype)
        return Blocks(inverses, share.astype(variances.dtype) / nu, nu)

    def probing(self, covariance: Covariance, aid: Blocks) -> Preconditioner:
        return RandomPivots(seed=self.seed)(covariance)

    def iterate(
        self,
        covariance: Covariance,
        aid: Blocks,
        matmul: Product,
        B: Float[Array, "s j b"],
        start: Float[Array, "s j b"] | None,
    ) -> Found:
        settings = self.tolerance, self.max_passes, jax.random.key(self.seed)
        return block_projections(matmul, covariance.from_block, B, aid, *settings, start)
