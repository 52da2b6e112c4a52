"""A posterior and draws of it from one solve."""

from typing import Any, Generic, TYPE_CHECKING, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks
from .._features import AbstractBasis, check_basis, QuasiMonteCarlo
from .._kernels import KernelT
from .._modules import Printed
from .._numerics.solution import Report
from .._paths import PathwiseFunction
from .._priors import condition_with, ConditionedGP, GPPrior
from .._solvers import AbstractSolver
from .._types import AnyArray, Key, Numbers
from .exact import draw_right_sides, PathwiseSampler, RightSides

if TYPE_CHECKING:
    # A checker cannot know which solver there was.
    _Reported: TypeAlias = Any
else:
    _Reported: TypeAlias = Report | None


class Drawn(Printed, eqx.Module, Generic[KernelT]):
    """What `draw` returns.

    **Fields:** `posterior`: its mean belongs to the same solve; `paths`: with one axis, of length `n_paths`; `report`: of
    iterations, with the residual of y first and then those of the paths, `s+1`; None of a factorisation.
    """

    posterior: ConditionedGP[KernelT]
    paths: PathwiseFunction
    report: _Reported

    @property
    def solutions(self) -> Float[Array, "s1 n"]:
        """What was solved for, that of y first and then those of the paths, `s+1 n`: all that another process needs as the
        `start` of the same draw."""
        return _solutions(self.paths)


def draw(
    prior: GPPrior[KernelT],
    y: Numbers,
    noise_var: Numbers,
    key: Key,
    n_paths: int = 1,
    n_features: int = 1024,
    *,
    solver: AbstractSolver | None = None,
    mask: Numbers | None = None,
    start: PathwiseFunction | Float[AnyArray, "s1 n"] | None = None,
    features: AbstractBasis = QuasiMonteCarlo(),
    share_features: bool = True,
    check_scales: bool = True,
) -> Drawn[KernelT]:
    """The posterior given y and draws of it, from one solve for all of them: with an iterative solver a pass over the
    covariance serves the mean and every path. The paths are those of a `PathwiseSampler` with this key.

    **Arguments:** `prior`, `y`, `noise_var`, `mask`, `solver`, `check_scales`: as of `GPPrior.condition`; `key`, `n_paths`,
    `n_features`, `features`, `share_features`: as of `PathwiseSampler`. `start`: as many paths, or the `solutions` of a
    draw, from which iterations begin: of this key at other hyperparameters, or of a draw that did not get to its end
    (`throw=False`); of the first observations where there are more now. A factor needs none.

    **Returns:** the posterior, the paths, and the report of the solve.

    **Raises:** ValueError as `GPPrior.condition` and `PathwiseSampler`, and where the solver did not reach its tolerance (at
    run time under jit) or `start` has another number of paths or more observations. **Warns:** as `GPPrior.condition`.
    """
    y, noise_var, mask = prior.check(y, noise_var, mask, solver)
    n_paths = _checks.count(n_paths, "n_paths")
    settings = {
        "n_features": _checks.count(n_features, "n_features"),
        "basis": check_basis(features),
        "share_features": _checks.flag(share_features, "share_features"),
    }
    right_sides = _draw(prior, mask, _checks.key(key), n_paths, settings)
    first = None if start is None else _from(start, n_paths, prior.functional.size, prior.X.dtype)
    check_scales = _checks.flag(check_scales, "check_scales")
    posterior, coefficients, report = condition_with(
        prior, y, noise_var, mask, check_scales, solver, right_sides, first
    )
    sampler = PathwiseSampler(posterior, n_features, features=features, share_features=share_features)
    assert coefficients is not None
    return Drawn(posterior, sampler.with_coefficients(right_sides.features, right_sides.weights, coefficients), report)


@eqx.filter_jit
def _draw(prior: GPPrior, mask: Any, key: Key, n_paths: int, settings: dict[str, Any]) -> RightSides:
    L = prior.functional if mask is None else prior.functional.where(mask)
    return draw_right_sides(prior.kernel, L, key, n_paths=n_paths, **settings)


def _solutions(paths: PathwiseFunction) -> Float[Array, "s1 n"]:
    return jnp.concatenate([paths.mean_coefficients[None, :], paths.coefficients])


def _from(start: Any, n_paths: int, n: int, dtype: Any) -> Float[Array, "s1 n"]:
    """Solutions, that of the mean first, with zeros for observations that they have not seen."""
    rows = _solutions(start) if isinstance(start, PathwiseFunction) and start.shape == (n_paths,) else start
    shape = getattr(rows, "shape", ())
    if isinstance(rows, PathwiseFunction) or len(shape) != 2 or shape[0] != n_paths + 1 or shape[1] > n:
        raise ValueError(
            f"`start` must be {n_paths} path(s), as many as are drawn, or the `solutions` of such a draw, of at most the {n} "
            f"observations that there are now; got {start!r}."
        )
    rows = _checks.floating(rows, "start")
    return jnp.pad(jax.lax.stop_gradient(rows).astype(dtype), ((0, 0), (0, n - rows.shape[1])))
