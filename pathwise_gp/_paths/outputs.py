"""Paths of several outputs as functions of the inputs alone."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks, _means
from .._features import AbstractFeatures, NoFeatures
from .._kernels import AbstractKernel, with_outputs
from .._modules import Printed, Shape
from .._numerics.blocks import as_bytes
from .._types import AnyArray, Key
from .function import Answer, answer, inside, PathwiseFunction, values_at
from .observations import new_noise, observed_with
from .paired import check_own_inputs, map_paired


class OutputPaths(Printed, eqx.Module):
    """All p outputs of some paths, as functions of the inputs without the number of the output: `outputs(X)` is `*s *n p`,
    f_q(·) = m((·, q)) + φ(·)ᵀw_q + k(·, X)α_q. They are `paths.outputs`, the values of the paths at `with_outputs(X, p)`.

    Features and covariances of an input serve all outputs. `len(outputs)`, `outputs[i]` and iteration go along the draws.

    **Fields:**

    - `prior_mean`: m, a callable that maps `n d+1` to `n`, of inputs with the number of the output last.
    - `features`: φ, the basis of the prior draw.
    - `weights`: w, `*s p f`, correlated between outputs.
    - `kernel`: k, of the inputs.
    - `inputs`: X, where something was observed, `n d`.
    - `coefficients`: α, `*s p n`.
    - `mean_coefficients`: those of the posterior mean, `p n`.
    - `noise_var`: the variance of the noise of a new observation, a scalar or `p`; None where it is not known.
    """

    prior_mean: Callable[..., Any]
    features: AbstractFeatures
    weights: Float[Array, "*s p f"]
    kernel: AbstractKernel
    inputs: Float[Array, "n d"]
    coefficients: Float[Array, "*s p n"]
    mean_coefficients: Float[Array, "... p n"]
    noise_var: Float[Array, "..."] | None

    def __call__(self, X: Float[AnyArray, "*n d"], *, block_bytes: int | None = None) -> Float[Array, "..."]:
        """Values of all outputs of all paths at all inputs.

        **Arguments:** `X`: inputs, `*n d`; `block_bytes`: as for a `PathwiseFunction`. **Returns:** `*s *n p`. **Raises:**
        ValueError where the last axis of `X` is not the input dimension, or a point lies where the path does not hold.
        """
        return inside(_evaluate(self, self._check(X), as_bytes(block_bytes)))

    def paired(self, X: Float[AnyArray, "..."]) -> Float[Array, "..."]:
        """Values of all outputs of each path at inputs of its own: path i at `X[i]`.

        **Arguments:** `X`: inputs, `*s *n d`. **Returns:** `*s *n p`. **Raises:** ValueError where the leading axes of `X`
        are not those of the paths, its last is not the input dimension, or a point lies where the path does not hold.
        """
        X = check_own_inputs(self._check(X), self.shape)
        return _evaluate_paired(self, X) + self._mean(X)

    def observe(self, X: Float[AnyArray, "*n d"], key: Key, noise_var: Any = None) -> Float[Array, "..."]:
        """Draws of new observations y* = f(x) + ε of each output of each path, with independent normal noise.

        **Arguments:** `X`: inputs, `*n d`; `key`: of the noise, used up; `noise_var`: its variance, a scalar, `p`, or
        `*n p`; unless given that of the observations, with the jitter.

        **Returns:** `*s *n p`. **Raises:** ValueError as a call, and where `noise_var` is not known, negative or of
        another shape.
        """
        X = self._check(X)
        noise_var = new_noise(noise_var, self.noise_var, self._with_outputs(X))
        return observed_with(self(X), noise_var, _checks.key(key))

    def output(self, q: int) -> PathwiseFunction:
        """One of the outputs as paths `*s *n`: what searches, level sets and other functions of scalar paths take.

        Path i of one output belongs to path i of the others.

        **Arguments:** `q`: which, from 0. **Returns:** its paths, `*s`. **Raises:** IndexError where there is none of that
        number.
        """
        p = self.n_outputs
        q = range(p)[_checks.index(q, p, "Output")]
        known = self.noise_var
        return PathwiseFunction(
            prior_mean=_means.of_output(self.prior_mean, q),
            features=self.features,
            weights=self.weights[..., q, :],
            kernel=self.kernel,
            inputs=self.inputs,
            coefficients=self.coefficients[..., q, :],
            mean_coefficients=self.mean_coefficients[..., q, :],
            noise=None,
            noise_var=known if known is None or known.ndim == 0 else known[q],
        )

    @property
    def n_outputs(self) -> int:
        """p."""
        return self.weights.shape[-2]

    @property
    def smoothness(self) -> float:
        """How often the paths can be differentiated. A posterior mean, which is made of kernels, can be twice as often."""
        times = 2 if isinstance(self.features, NoFeatures) else 1
        return times * self.kernel.smoothness(self.inputs.shape[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes `*s` of the draws; `()` for one."""
        return self.weights.shape[:-2]

    @property
    def mean_path(self) -> "OutputPaths":
        """The posterior mean as one path."""
        mean = self.mean_coefficients
        weights = jnp.zeros((*mean.shape[:-1], 0), self.weights.dtype)
        return dataclasses.replace(self, features=NoFeatures(), weights=weights, coefficients=mean)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("One path has no len(); only a batch of paths has.")
        return self.shape[0]

    def __getitem__(self, index: Any) -> "OutputPaths":
        index = _checks.index(index, len(self), "Path")
        return dataclasses.replace(self, weights=self.weights[index], coefficients=self.coefficients[index])

    def __iter__(self) -> Iterator["OutputPaths"]:
        return (self[i] for i in range(len(self)))

    def _printed(self) -> dict[str, Any]:
        sizes = {"shape": self.shape, "n_outputs": self.n_outputs, "n_features": self.weights.shape[-1]}
        return sizes | {"inputs": Shape(self.inputs), "kernel": self.kernel}

    @property
    def _together(self) -> PathwiseFunction:
        """The outputs as paths of axes `*s p`, but for their mean."""
        n = self.inputs.shape[0]
        return PathwiseFunction(
            prior_mean=_means.ZeroMean(),
            features=self.features,
            weights=self.weights,
            kernel=self.kernel,
            inputs=self.inputs,
            coefficients=self.coefficients,
            mean_coefficients=jnp.zeros((n,), self.coefficients.dtype),
            noise=None,
        )

    def _check(self, X: Any) -> Array:
        return _checks.inputs(X, self.inputs.shape[1]).astype(self.inputs.dtype)

    def _with_outputs(self, X: Float[Array, "*n d"]) -> Float[Array, "*n p e"]:
        rows = with_outputs(X.reshape(math.prod(X.shape[:-1]), X.shape[-1]), self.n_outputs)
        return rows.reshape(*X.shape[:-1], *rows.shape[1:])

    def _mean(self, X: Float[Array, "*n d"]) -> Float[Array, "*n p"]:
        Z = self._with_outputs(X)
        return _means.evaluate(self.prior_mean, Z.reshape(-1, Z.shape[-1])).reshape(Z.shape[:-1])


@eqx.filter_jit
def _evaluate(paths: OutputPaths, X: Float[Array, "*n d"], block_bytes: int | None) -> Answer:
    rows, together = X.reshape(math.prod(X.shape[:-1]), X.shape[-1]), paths._together
    values = values_at(together, rows, block_bytes).reshape(*together.shape, *X.shape[:-1])
    values = jnp.moveaxis(values, len(paths.shape), -1)
    return answer(together, rows, values + jnp.broadcast_to(paths._mean(X), values.shape))


@eqx.filter_jit
def _evaluate_paired(paths: OutputPaths, X: Float[Array, "..."]) -> Float[Array, "..."]:
    together, n_axes = paths._together, len(paths.shape)
    flat = lambda leaf: leaf.reshape(math.prod(paths.shape), *leaf.shape[n_axes:])

    def one(leaves: Any, inputs: Float[Array, "*n d"]) -> Float[Array, "*n p"]:
        weights, coefficients = leaves
        own = dataclasses.replace(together, weights=weights, coefficients=coefficients)
        return jnp.moveaxis(own(inputs), 0, -1)

    per_path = math.prod(X.shape[n_axes:-1]) * (paths.inputs.shape[0] + paths.weights.shape[-1])
    return map_paired(one, (flat(paths.weights), flat(paths.coefficients)), X, paths.shape, per_path)


def outputs_of(paths: PathwiseFunction) -> OutputPaths:
    """`PathwiseFunction.outputs`."""
    found = outputs_or_none(paths)
    if found is None:
        raise ValueError(
            "`outputs` is of paths with a `Coregionalised` kernel and one basis, that are conditioned on values; the kernel "
            f"is `{paths.kernel.label()}`. Evaluate these at `with_outputs(X, n_outputs)`."
        )
    return found


def outputs_or_none(paths: PathwiseFunction) -> OutputPaths | None:
    """The same, or None where the kernel, the basis or what paths are conditioned on has none."""
    L = paths.functional
    parts = paths.kernel.outputs(L.dim)
    if parts is None or paths._own_features:
        return None
    kernel, B = parts
    B = B.astype(L.dtype)
    basis = paths.features.by_output(paths.weights, B.shape[0])
    update, mean = L.by_output(B, paths.coefficients), L.by_output(B, paths.mean_coefficients)
    if basis is None or update is None or mean is None:
        return None
    return OutputPaths(
        prior_mean=paths.prior_mean,
        features=basis[0],
        weights=basis[1],
        kernel=kernel,
        inputs=update[0],
        coefficients=update[1],
        mean_coefficients=mean[1],
        noise_var=paths.noise_var,
    )
