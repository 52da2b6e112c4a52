"""The posterior of paths that were drawn from it."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool

from .. import _checks
from .._batched import Batched
from .._numerics.lapack import cholesky
from .._numerics.linalg import add_diagonal, CholeskyFactor, inner, seen
from .._paths import PathEnsemble, PathwiseFunction
from .conditioned import ConditionedGP
from .exact import GPPrior


def posterior_of(paths: PathwiseFunction | PathEnsemble) -> Any:
    """The posterior that paths are draws of, factorised anew in O(n³): for paths that go on (`paths.condition`) where it
    was not kept, such as those of many draws of the hyperparameters.

    **Arguments:** `paths`: draws of a posterior of one output, or an ensemble of these.

    **Returns:** a `ConditionedGP`; of an ensemble a `Batched` of them, with the axes of its draws, whose factors are held
    all at once, `draws n n`: `posteriors.map(lambda posterior: posterior.condition(X, y))` gives each of them more.

    **Raises:** ValueError where they are parts of paths, or paths of inducing values or of several outputs.
    """
    if isinstance(paths, PathEnsemble):
        return Batched(_recover_each(paths), paths.batch_shape)
    _check(paths)
    found, definite = _recover(paths)
    return _checks.verdict(found, (~definite, _FAILED))


_FAILED = (
    "The covariance that the paths were solved with is not positive definite in this precision: keep their posterior."
)


def _check(paths: Any) -> None:
    if not isinstance(paths, PathwiseFunction) or paths.noise is None or paths.spread is not None:
        raise ValueError(
            f"`paths` must be draws of a posterior of one output, or an ensemble of these; got a {type(paths).__name__} of "
            "which no such posterior is known. (Parts of paths and paths through inducing values hold another solve.)"
        )


@eqx.filter_jit
def _recover(paths: PathwiseFunction) -> tuple[ConditionedGP, Bool[Array, ""]]:
    return _recovered(paths)


def _recovered(paths: PathwiseFunction) -> tuple[ConditionedGP, Bool[Array, ""]]:
    L, noise = paths.functional, jnp.asarray(paths.noise)
    mask, mean = jnp.isfinite(noise), paths.mean_coefficients
    noise = jnp.where(mask, noise, jnp.zeros_like(noise))
    A = seen(add_diagonal(L.gram(paths.kernel), noise), mask)
    factor = CholeskyFactor(cholesky(A), mask)
    y = L.of_mean(paths.prior_mean) + inner(A, mean[None, :])[:, 0]
    given = jnp.where(mask, noise - L.noise(paths.kernel), jnp.zeros_like(noise))
    made = ConditionedGP(
        prior=GPPrior(kernel=paths.kernel, X=paths.inputs, mean=paths.prior_mean),
        y=jnp.where(mask, y, jnp.zeros_like(y)),
        noise_var=jnp.maximum(given, 0),
        solution=factor,
        coefficients=mean,
        jitter=jnp.zeros_like(noise),
        new_noise_var=paths.noise_var,
    )
    return made, factor.is_finite()


@eqx.filter_jit
def _recover_each(ensemble: PathEnsemble) -> ConditionedGP:
    rest: list[Any] = []

    def one(paths: Any) -> Any:
        _check(paths)
        found, definite = _recovered(paths)
        arrays, others = eqx.partition(_checks.verdict(found, (~definite, _FAILED)), eqx.is_array)
        rest.append(others)
        return arrays

    return eqx.combine(ensemble.map(one), rest[-1])
