"""Integrals of paths over a box in closed form."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._features.integrals import feature_integral
from .._functionals import as_functional, dim_of
from .._functionals.functions import KernelOverBoxes
from .._means import mean_integral
from .._numerics.boxes import Box
from .._numerics.linalg import inner
from .._paths import OutputPaths, PathEnsemble, PathwiseFunction
from .._types import AnyArray
from .rules import as_box


def integrate_exactly(
    paths: PathwiseFunction | OutputPaths | PathEnsemble, bounds: Float[AnyArray, "2 d"]
) -> Float[Array, "..."]:
    """∫ f dx over a box, for each path, in closed form: ∫m + (∫φ)ᵀw + (∫k(x, L)dx)α.

    Costs O(f + n) a path, whatever the dimension. The integral of `paths.mean_path` is the posterior mean of Bayesian
    quadrature (O'Hagan 1991).

    There is a closed form for RBF kernels in any dimension, Matérn kernels in one, and constants; for these on some of the
    dimensions (`ActiveDims`), products of such on different dimensions, multiples and sums; with Fourier or Hilbert-space
    features, and a mean that is a number. There is none for Matérn kernels of several dimensions, of which the features have
    an integral but k(x, L) has not: a product of Matérn kernels, one of each dimension, has one.

    **Arguments:** `paths`: paths of a posterior or prior, their `outputs`, or an ensemble; `bounds`: lower and
    upper corner, `2 d`.

    **Returns:** the integrals, `*s`, of an ensemble `draws *s`, of p outputs `*s p`; differentiable in the paths and in the
    bounds.

    **Raises:** ValueError where the kernel, the features or the mean have no closed form here, or `bounds` is not `2 d`
    with the lower corner first; an error at run time where it reaches beyond the box of a `HilbertSpace` basis.
    """
    return _integrate_exactly(paths, as_box(bounds))


@eqx.filter_jit
def _integrate_exactly(paths: Any, bounds: Float[Array, "2 d"]) -> Float[Array, "..."]:
    if isinstance(paths, PathEnsemble):
        return jax.lax.map(lambda i: _integrate_exactly(paths[i], bounds), jnp.arange(len(paths)))
    if isinstance(paths, OutputPaths):
        outputs = [_integrate_exactly(paths.output(q), bounds) for q in range(paths.n_outputs)]
        return jnp.stack(outputs, axis=-1)
    if not isinstance(paths, PathwiseFunction):
        raise ValueError(
            "`paths` must be a PathwiseFunction or its `outputs`, whose parts are known, or an ensemble of such; got "
            f"{type(paths).__name__}: use `integrate` with a rule."
        )
    dim, dtype = dim_of(paths.inputs), paths.inputs.dtype
    if bounds.shape[1] != dim:
        raise ValueError(f"`bounds` has {bounds.shape[1]} dimension(s), but the inputs have {dim}.")
    box = Box(*bounds.astype(dtype))
    observed = as_functional(paths.inputs)
    update = _dot(paths.coefficients, observed.apply(KernelOverBoxes(paths.kernel, bounds.astype(dtype)[None]))[0])
    return mean_integral(paths.prior_mean, box) + update + _prior(paths, box)


def _prior(paths: PathwiseFunction, box: Box) -> Float[Array, "*s"]:
    if paths.share_features or len(paths.shape) == 0:
        return _dot(paths.weights, feature_integral(paths.features, box))
    if len(paths) == 0:
        return jnp.zeros(paths.shape, paths.weights.dtype)
    return jax.lax.map(lambda i: _prior(paths[i], box), jnp.arange(len(paths)))


def _dot(rows: Float[Array, "*s k"], integrals: Float[Array, "k"]) -> Float[Array, "*s"]:
    flat = rows.reshape(math.prod(rows.shape[:-1]), rows.shape[-1])
    return inner(flat, integrals.astype(flat.dtype)[None, :]).reshape(rows.shape[:-1])
