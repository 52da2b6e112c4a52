"""The parts of a path, one for each term of a sum of kernels."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import _means
from .._features import NoFeatures


def components_of(paths: Any) -> tuple[Any, ...]:
    """`PathwiseFunction.components`."""
    kernels = paths.kernel.summands()
    if len(kernels) == 1:
        parts = ((paths.features, np.arange(paths.weights.shape[-1])),)
    else:
        parts = paths.features.split(len(kernels))
    made = [
        dataclasses.replace(
            paths,
            prior_mean=_means.ZeroMean(),
            kernel=kernel,
            features=features,
            weights=paths.weights[..., columns],
            noise=None,
            noise_var=None,
        )
        for kernel, (features, columns) in zip(kernels, parts, strict=True)
    ]
    if not isinstance(paths.prior_mean, _means.ZeroMean):
        # No features and a weight of zero on the kernel: what is left is the mean.
        alone = dataclasses.replace(
            paths,
            features=NoFeatures(),
            weights=paths.weights[..., :0],
            coefficients=jnp.zeros_like(paths.coefficients),
            mean_coefficients=jnp.zeros_like(paths.mean_coefficients),
            noise=None,
            noise_var=None,
        )
        made.append(alone)
    return tuple(made)
