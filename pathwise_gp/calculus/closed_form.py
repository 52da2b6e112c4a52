"""Integrals of paths over a box in closed form."""

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks, _means
from .._features import (
    AbstractFeatures,
    ConcatenatedFeatures,
    ConstantFeatures,
    FourierFeatures,
    NoFeatures,
    ProductFeatures,
    SelectedFeatures,
)
from .._features.hilbert import SineFeatures
from .._kernels import AbstractKernel, ActiveDims, Constant, Matern, RBF, White
from .._numerics.linalg import inner
from .._numerics.trigonometry import cos_turns
from .._paths import MultiOutputPaths, PathEnsemble, PathwiseFunction
from .._priors import MultiOutputGPPrior
from .._types import AnyArray
from .rules import as_box


def integrate_exactly(
    paths: PathwiseFunction | MultiOutputPaths | PathEnsemble, bounds: Float[AnyArray, "2 d"]
) -> Float[Array, "..."]:
    """∫ f dx over a box, for each path, in closed form: ∫m + (∫φ)ᵀw + (∫k(x, L)dx)α.

    Costs O(f + n) a path, whatever the dimension. The integral of `paths.mean_path` is the posterior mean of Bayesian
    quadrature (O'Hagan 1991).

    There is a closed form for RBF kernels in any dimension, Matérn kernels in one, and constants; for these on some of the
    dimensions (`ActiveDims`), products of such on different dimensions, multiples and sums; with Fourier or Hilbert-space
    features, and a mean that is a number. There is none for Matérn kernels of several dimensions, of which the features have
    an integral but k(x, L) has not: a product of Matérn kernels, one of each dimension, has one.

    **Arguments:** `paths`: paths of a posterior or prior, of one output or of several, or an ensemble; `bounds`: lower and
    upper corner, `2 d`.

    **Returns:** the integrals, `*s`, of an ensemble `draws *s`, of p outputs `*s p`; differentiable in the paths and in the
    bounds.

    **Raises:** ValueError where the kernel, the features or the mean have no closed form here, or `bounds` is not `2 d`
    with the lower corner first; an error at run time where it reaches beyond the box of a `HilbertSpace` basis.
    """
    return _integrate_exactly(paths, as_box(bounds))


class _Box(NamedTuple):
    lower: Float[Array, "d"]
    upper: Float[Array, "d"]

    @property
    def middle(self) -> Float[Array, "d"]:
        return (self.lower + self.upper) / 2

    @property
    def width(self) -> Float[Array, "d"]:
        return self.upper - self.lower

    @property
    def volume(self) -> Float[Array, ""]:
        return jnp.prod(self.width)

    def along(self, columns: Sequence[int]) -> "_Box":
        return _Box(self.lower[np.asarray(columns, int)], self.upper[np.asarray(columns, int)])

    def across(self, columns: Sequence[int]) -> "_Box":
        """The dimensions that are not among these."""
        return self.along([i for i in range(self.lower.shape[0]) if i not in columns])


@eqx.filter_jit
def _integrate_exactly(paths: Any, bounds: Float[Array, "2 d"]) -> Float[Array, "..."]:
    if isinstance(paths, PathEnsemble):
        return jax.lax.map(lambda i: _integrate_exactly(paths[i], bounds), jnp.arange(len(paths)))
    if not isinstance(paths, (PathwiseFunction, MultiOutputPaths)):
        raise ValueError(
            "`paths` must be a PathwiseFunction or MultiOutputPaths, whose parts are known, or an ensemble of such; got "
            f"{type(paths).__name__}: use `integrate` with a rule."
        )
    dim, dtype = paths.inputs.shape[1], paths.inputs.dtype
    if bounds.shape[1] != dim:
        raise ValueError(f"`bounds` has {bounds.shape[1]} dimension(s), but the inputs have {dim}.")
    box = _Box(*bounds.astype(dtype))
    update = _dot(paths.coefficients, _kernel_integral(paths.kernel, paths.inputs, box))
    if isinstance(paths, MultiOutputPaths):
        without_mean = update + _dot(paths.weights, _feature_integral(paths.features, box))
        mean = _mean_of_outputs(paths.prior_mean, box)
        return without_mean + jnp.broadcast_to(mean, without_mean.shape)
    return _mean_integral(paths.prior_mean, box) + update + _prior(paths, box)


def _prior(paths: PathwiseFunction, box: _Box) -> Float[Array, "*s"]:
    if paths.share_features or len(paths.shape) == 0:
        return _dot(paths.weights, _feature_integral(paths.features, box))
    if len(paths) == 0:
        return jnp.zeros(paths.shape, paths.weights.dtype)
    return jax.lax.map(lambda i: _prior(paths[i], box), jnp.arange(len(paths)))


def _dot(rows: Float[Array, "*s k"], integrals: Float[Array, "k"]) -> Float[Array, "*s"]:
    flat = rows.reshape(math.prod(rows.shape[:-1]), rows.shape[-1])
    return inner(flat, integrals.astype(flat.dtype)[None, :]).reshape(rows.shape[:-1])


def _none(part: str, name: str) -> ValueError:
    return ValueError(
        f"`paths` has {part} `{name}`, whose integral over a box has no closed form here: use `integrate` with a rule."
    )


@functools.singledispatch
def _mean_integral(mean: Any, _: _Box) -> Float[Array, ""]:
    raise _none("the mean", type(mean).__name__)


@_mean_integral.register
def _(_: _means.ZeroMean, box: _Box):
    return jnp.zeros((), box.lower.dtype)


@_mean_integral.register
def _(mean: _means.ConstantMean, box: _Box):
    return mean.value.astype(box.lower.dtype) * box.volume


def _mean_of_outputs(mean: Any, box: _Box) -> Float[Array, "..."]:
    """∫ m dx, one number or one for each output."""
    prior = getattr(mean, "prior", None)
    if not isinstance(prior, MultiOutputGPPrior) or callable(prior.mean):
        raise _none("the mean", type(mean if prior is None else prior.mean).__name__)
    return prior.mean.astype(box.lower.dtype) * box.volume


@functools.singledispatch
def _feature_integral(features: AbstractFeatures, _: _Box) -> Float[Array, "f"]:
    """∫ φ(x) dx over a box."""
    raise _none("the features", type(features).__name__)


@_feature_integral.register
def _(features: FourierFeatures, box: _Box):
    # ∫ cos 2π((x − c)·ω + b) over a box of widths L is Π L_i sinc(ω_i L_i) times the cosine at its middle.
    cast = lambda leaf: leaf.astype(box.lower.dtype)
    middle, width = box.middle, box.width
    if features.centre is not None:
        middle = middle - cast(features.centre)
    frequencies = cast(features.frequencies)
    turns = inner(middle[None, :], frequencies)[0] + cast(features.phases)
    damping = jnp.prod(width[None, :] * jnp.sinc(frequencies * width[None, :]), axis=1)
    return cast(features.amplitudes) * damping * cos_turns(turns)


@_feature_integral.register
def _(features: SineFeatures, box: _Box):
    # Each factor is sin π j t with t = (x − c + L)/2L: as above, a width times a sinc times the sine at the middle.
    cast = lambda leaf: leaf.astype(box.lower.dtype)
    orders, length = cast(features.orders), 2 * cast(features.half_width)[None, :]
    middle, width = box.middle[None, :], box.width[None, :]
    start = cast(features.centre)[None, :] - length / 2
    # sin 2πu = cos 2π(u − ¼)
    sines = cos_turns(orders * (middle - start) / (2 * length) - 0.25)
    factors = width * jnp.sinc(orders * width / (2 * length)) * sines
    inside = features.covers(jnp.stack(box))
    values = cast(features.amplitudes) * jnp.prod(factors, axis=1)
    return _checks.require(inside, values, "`bounds` reaches beyond the box on which the basis of these paths holds.")


@_feature_integral.register
def _(_: NoFeatures, box: _Box):
    return jnp.zeros((0,), box.lower.dtype)


@_feature_integral.register
def _(features: ConstantFeatures, box: _Box):
    return (features.scale.astype(box.lower.dtype) * box.volume)[None]


@_feature_integral.register
def _(features: ConcatenatedFeatures, box: _Box):
    return jnp.concatenate([_feature_integral(part, box) for part in features.parts])


@_feature_integral.register
def _(features: SelectedFeatures, box: _Box):
    # A point of no further dimension has the volume 1.
    return _feature_integral(features.features, box.along(features.columns)) * box.across(features.columns).volume


@_feature_integral.register
def _(features: ProductFeatures, box: _Box):
    # Every product of one feature of each part: of parts of different dimensions the integrals are multiplied.
    dim = box.lower.shape[0]
    own = [_columns(part, dim) for part in features.parts]
    if _overlap(own):
        raise _none("the features", "ProductFeatures")
    integral = box.across([i for columns in own for i in columns]).volume[None]
    for part, columns in zip(features.parts, own, strict=True):
        alone = part.features if isinstance(part, SelectedFeatures) else part
        integral = (integral[:, None] * _feature_integral(alone, box.along(columns))[None, :]).reshape(-1)
    return integral


def _columns(features: AbstractFeatures, dim: int) -> tuple[int, ...]:
    """The dimensions that a basis depends on."""
    if isinstance(features, ConstantFeatures):
        return ()
    return features.columns if isinstance(features, SelectedFeatures) else tuple(range(dim))


def _overlap(columns: Sequence[tuple[int, ...]]) -> bool:
    return len({i for own in columns for i in own}) < sum(map(len, columns))


def _kernel_integral(kernel: AbstractKernel, Z: Float[Array, "n d"], box: _Box) -> Float[Array, "n"]:
    """∫ k(x, z) dx over a box, by the distributive law a sum of integrals of products."""
    terms = kernel.terms(Z.shape[1])
    return functools.reduce(operator.add, (_term_integral(term, Z, box) for term in terms))


def _term_integral(kernel: AbstractKernel, Z: Float[Array, "n d"], box: _Box) -> Float[Array, "n"]:
    dim = Z.shape[1]
    pairs = [_active(factor, tuple(range(dim))) for factor in kernel.factors(dim)]
    if any(isinstance(factor, White) for factor, _ in pairs):
        return jnp.zeros((Z.shape[0],), Z.dtype)  # noise is no part of the function
    others = [(factor, columns) for factor, columns in pairs if not isinstance(factor, Constant)]
    if _overlap([columns for _, columns in others]):
        raise _none("the kernel", kernel.label())
    integral = jnp.broadcast_to(box.across([i for _, columns in others for i in columns]).volume, (Z.shape[0],))
    for factor, _ in pairs:
        if isinstance(factor, Constant):
            integral = integral * factor.variance.astype(Z.dtype)
    for factor, columns in others:
        integral = integral * _factor_integral(factor, Z[:, np.asarray(columns)], box.along(columns))
    return integral


def _active(kernel: AbstractKernel, columns: tuple[int, ...]) -> tuple[AbstractKernel, tuple[int, ...]]:
    """A kernel that sees all the dimensions it is given, and the numbers of these."""
    if not isinstance(kernel, ActiveDims):
        return kernel, columns
    return _active(kernel.kernel, tuple(columns[i] for i in kernel.dims))


@functools.singledispatch
def _factor_integral(kernel: AbstractKernel, _Z: Float[Array, "n d"], _box: _Box) -> Float[Array, "n"]:
    """∫ k(x, z) dx over a box."""
    raise _none("the kernel", kernel.label())


@_factor_integral.register
def _(kernel: RBF, Z, box: _Box):
    # Π_i ∫ exp(−(x − z_i)²/2ℓ_i²) dx, each by the error function.
    scale = math.sqrt(2) * jnp.broadcast_to(kernel.lengthscale, (Z.shape[1],)).astype(Z.dtype)
    far, near = ((corner[None, :] - Z) / scale[None, :] for corner in (box.upper, box.lower))
    factors = math.sqrt(math.pi) / 2 * scale[None, :] * (jax.lax.erf(far) - jax.lax.erf(near))
    return kernel.variance.astype(Z.dtype) * jnp.prod(factors, axis=1)


@_factor_integral.register
def _(kernel: Matern, Z, box: _Box):
    if Z.shape[1] > 1:
        raise _none("the kernel", f"Matern in {Z.shape[1]} dimensions")
    nu, p = kernel.nu, round(kernel.nu - 0.5)
    rate = math.sqrt(2 * nu) / jnp.broadcast_to(kernel.lengthscale, (1,)).astype(Z.dtype)[0]
    # k = Σ_i c_i aⁱ e^{−a} with a = √(2ν)|x − z|/ℓ (Rasmussen & Williams 2006, equation 4.16), and the antiderivative of
    # aⁱ e^{−a} from 0 is i! (1 − e^{−a} Σ_{j ≤ i} aʲ/j!).
    coefficients = [
        math.factorial(p) * math.factorial(2 * p - i) * 2**i / (math.factorial(2 * p) * math.factorial(p - i))
        for i in range(p + 1)
    ]  # c_i i!
    tails = np.cumsum(coefficients[::-1])[::-1]

    def antiderivative(x: Float[Array, "n"]) -> Float[Array, "n"]:
        # |x| with a slope at 0, where a bound is an input: the antiderivative is smooth there.
        side = jnp.where(x < 0, -jnp.ones_like(x), jnp.ones_like(x))
        a = side * x
        series = sum((tail / math.factorial(j) * a**j for j, tail in enumerate(tails.tolist())), jnp.zeros_like(a))
        return side * (tails[0].item() - jnp.exp(-a) * series)

    between = antiderivative((box.upper[0] - Z[:, 0]) * rate) - antiderivative((box.lower[0] - Z[:, 0]) * rate)
    return kernel.variance.astype(Z.dtype) / rate * between
