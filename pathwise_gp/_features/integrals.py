"""Integrals of bases over a box."""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks
from .._numerics.boxes import Box, NoClosedForm
from .._numerics.linalg import inner
from .._numerics.trigonometry import cos_turns
from .base import AbstractFeatures
from .compose import ConcatenatedFeatures, ProductFeatures, SelectedFeatures
from .exact import ConstantFeatures, NoFeatures
from .fourier import FourierFeatures
from .hilbert import SineFeatures


@functools.singledispatch
def feature_integral(features: AbstractFeatures, _: Box) -> Float[Array, "f"]:
    """∫ φ(x) dx over a box."""
    raise NoClosedForm("the features", type(features).__name__)


@feature_integral.register
def _(features: FourierFeatures, box: Box):
    # ∫ cos 2π((x − c)·ω + b) over a box of widths L is Π L_i sinc(ω_i L_i) times the cosine at its middle.
    cast = lambda leaf: leaf.astype(box.lower.dtype)
    middle, width = box.middle, box.width
    if features.centre is not None:
        middle = middle - cast(features.centre)
    frequencies = cast(features.frequencies)
    turns = inner(middle[None, :], frequencies)[0] + cast(features.phases)
    damping = jnp.prod(width[None, :] * jnp.sinc(frequencies * width[None, :]), axis=1)
    return cast(features.amplitudes) * damping * cos_turns(turns)


@feature_integral.register
def _(features: SineFeatures, box: Box):
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


@feature_integral.register
def _(_: NoFeatures, box: Box):
    return jnp.zeros((0,), box.lower.dtype)


@feature_integral.register
def _(features: ConstantFeatures, box: Box):
    return (features.scale.astype(box.lower.dtype) * box.volume)[None]


@feature_integral.register
def _(features: ConcatenatedFeatures, box: Box):
    return jnp.concatenate([feature_integral(part, box) for part in features.parts])


@feature_integral.register
def _(features: SelectedFeatures, box: Box):
    # A point of no further dimension has the volume 1.
    return feature_integral(features.features, box.along(features.columns)) * box.across(features.columns).volume


@feature_integral.register
def _(features: ProductFeatures, box: Box):
    # Every product of one feature of each part: of parts of different dimensions the integrals are multiplied.
    dim = box.lower.shape[0]
    own = [_columns(part, dim) for part in features.parts]
    if overlap(own):
        raise NoClosedForm("the features", "ProductFeatures")
    integral = box.across([i for columns in own for i in columns]).volume[None]
    for part, columns in zip(features.parts, own, strict=True):
        alone = part.features if isinstance(part, SelectedFeatures) else part
        integral = (integral[:, None] * feature_integral(alone, box.along(columns))[None, :]).reshape(-1)
    return integral


def _columns(features: AbstractFeatures, dim: int) -> tuple[int, ...]:
    """The dimensions that a basis depends on."""
    if isinstance(features, ConstantFeatures):
        return ()
    return features.columns if isinstance(features, SelectedFeatures) else tuple(range(dim))


def overlap(columns: Sequence[tuple[int, ...]]) -> bool:
    return len({i for own in columns for i in own}) < sum(map(len, columns))
