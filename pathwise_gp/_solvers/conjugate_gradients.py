"""The system solved by conjugate gradients."""

import equinox as eqx
import jax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from .. import _fields
from .._modules import Printed
from .._numerics.conjugate_gradients import block_conjugate_gradients, Preconditioner, preconditioner
from .._numerics.iterations import Found, Product
from .._numerics.layout import as_mesh, Layout
from .._numerics.pivots import pivoted_cholesky
from .iterative import AbstractIterative, Covariance


class RandomPivots(Printed, eqx.Module):
    """A preconditioner: the covariance as far as some of the observations explain it, with the noise. They are drawn in
    proportion to the variance that those before them left open, which halves the passes of always taking the largest.

    **Fields:** `rank`: how many, a whole number of at least 1, part of the structure; it holds `rank` numbers for each
    observation, and takes O(rank² n) once. `seed`: of the draw.

    **Raises:** ValueError where `rank` is less than 1. Source: Chen, Epperly, Tropp & Webber (2024), algorithm 2.1; Díaz et
    al. (2023).
    """

    rank: int = eqx.field(static=True, default=256, converter=_fields.count("rank"))
    seed: int = eqx.field(static=True, default=0)

    def __call__(self, covariance: Covariance) -> Preconditioner:
        """The preconditioner of a covariance in a single block, with its diagonal."""
        row, rank = lambda i: covariance.row(i)[0], min(self.rank, covariance.L.size)
        layout, key = covariance.layout, jax.random.key(self.seed)
        pivots = pivoted_cholesky(row, covariance.variances[0], rank, key, layout.largest)
        return preconditioner(pivots.rows, covariance.diagonal[0], layout.qr)


class ConjugateGradients(AbstractIterative):
    """A⁻¹b by products with A, of which each is a pass over the covariance: in memory of the order of n, for as many
    observations as time allows. All right-hand sides (the mean, every path) go through one pass together and share their
    search directions.

    **Fields:**

    - `tolerance`: ‖b − Ax‖ / ‖b‖ that each right-hand side is to reach, between 0 and 1.
    - `max_passes`: where it ends at the latest.
    - `cache`: so many bytes may the n × n covariances take on a device that are kept between passes; where they would take
      more they are computed anew in each, a block of rows at a time. 1 GiB unless given.
    - `throw`: whether a solve that does not reach the tolerance is an error; else see the `report`.
    - `mesh`: a `jax.sharding.Mesh`, of one process or of many, over all devices of which the observations are spread: each
      makes its rows of the covariance. What is drawn goes by the numbers of observations, so that the answer is that of one
      device but for the order of sums. `X`, `y`, `noise_var` and `mask` may be global arrays; every process calls the same.
    - `preconditioner`: `RandomPivots`, whose `rank` may be raised where there are many passes.

    All but the preconditioner is part of the structure. What such a posterior does not know is an error in words: the
    evidence, leave-one-out, feature errors. Its variance is a solve for each block of inputs.

    **Raises:** ValueError where a field is not such a number, or `mesh` not a mesh.
    Source: Gardner et al. (2018); Wang et al. (2019), Dubrulle (2001) for blocks.
    """

    tolerance: float = eqx.field(static=True, default=1e-3, converter=_fields.fraction("tolerance"))
    max_passes: int = eqx.field(static=True, default=500, converter=_fields.count("max_passes"))
    cache: int = eqx.field(static=True, kw_only=True, default=2**30)
    throw: bool = eqx.field(static=True, kw_only=True, default=True)
    mesh: Mesh | None = eqx.field(static=True, kw_only=True, default=None, converter=as_mesh)
    preconditioner: RandomPivots = eqx.field(kw_only=True, default_factory=RandomPivots)

    def layout(self, n: int) -> Layout:
        return Layout(n=n, mesh=self.mesh)

    @property
    def remedy(self) -> str:
        return "`preconditioner=RandomPivots(rank)` with a larger rank"

    def aid(self, covariance: Covariance) -> Preconditioner:
        return self.preconditioner(covariance)

    def probing(self, covariance: Covariance, aid: Preconditioner) -> Preconditioner:
        return aid

    def iterate(
        self,
        covariance: Covariance,
        aid: Preconditioner,
        matmul: Product,
        B: Float[Array, "s j b"],
        start: Float[Array, "s j b"] | None,
    ) -> Found:
        settings = self.tolerance, self.max_passes, None if start is None else start[:, 0]
        of_rows = lambda V: matmul(V[:, None, :])[:, 0]
        found = block_conjugate_gradients(of_rows, B[:, 0], aid, *settings, covariance.layout.qr)
        return Found(found.x[:, None, :], found.residual[:, None, :], found.report)

    def __check_init__(self):
        if not isinstance(self.preconditioner, RandomPivots):
            raise ValueError(f"`preconditioner` must be `RandomPivots`; got {type(self.preconditioner).__name__}.")
