"""Paths of several outputs."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks
from .._features import AbstractFeatures, check_covered, NoFeatures
from .._kernels import AbstractKernel, check_valid
from .._modules import Printed, Shape
from .._numerics.blocks import as_bytes, map_rows
from .._numerics.kronecker import factorise
from .._numerics.linalg import inner
from .._scaling import Standardisation
from .._types import AnyArray, Key
from .function import PathwiseFunction
from .observations import new_noise, observed_with
from .paired import check_own_inputs, map_paired


class MultiOutputPaths(Printed, eqx.Module):
    """Draws of p outputs as functions: `paths(X)` is `*s *n p`, f_q(·) = m_q(·) + φ(·)ᵀw_q + k(·, X)α_q.

    All outputs share the basis, the kernel and the inputs, which are stored once. `len(paths)`, `paths[i]` and iteration go
    along the draws.

    **Fields:**

    - `prior_mean`: m, a callable that maps `n d` to `n p`; the posterior mean is `mean_path`.
    - `features`: φ, the basis of the prior draw.
    - `weights`: w, `*s p f`, correlated between outputs.
    - `kernel`: k, of the inputs.
    - `inputs`: X, `n d`.
    - `coefficients`: α, `*s p n`.
    - `mean_coefficients`: those of the posterior mean, `p n`.
    - `root`: a root R of the covariance of the outputs, `p c`.
    - `noise`: the variance of ε of each output, `p`.
    """

    prior_mean: Callable[..., Any]
    features: AbstractFeatures
    weights: Float[Array, "*s p f"]
    kernel: AbstractKernel
    inputs: Float[Array, "n d"]
    coefficients: Float[Array, "*s p n"]
    mean_coefficients: Float[Array, "p n"]
    root: Float[Array, "p c"]
    noise: Float[Array, "p"]

    def __call__(self, X: Float[AnyArray, "*n d"], *, block_bytes: int | None = None) -> Float[Array, "..."]:
        """Values of all outputs of all paths at all inputs.

        **Arguments:** `X`: inputs, `*n d`; `block_bytes`: as for a `PathwiseFunction`. **Returns:** `*s *n p`. **Raises:**
        ValueError where the last axis of `X` is not the input dimension, or a point lies where the path does not hold.
        """
        return _evaluate(self, self._check(X), as_bytes(block_bytes))

    def paired(self, X: Float[AnyArray, "..."]) -> Float[Array, "..."]:
        """Values of all outputs of each path at inputs of its own: path i at `X[i]`.

        **Arguments:** `X`: inputs, `*s *n d`. **Returns:** `*s *n p`. **Raises:** ValueError where the leading axes of `X`
        are not those of the paths, its last is not the input dimension, or a point lies where the path does not hold.
        """
        return _evaluate_paired(self, check_own_inputs(self._check(X), self.shape))

    def observe(self, X: Float[AnyArray, "*n d"], key: Key, noise_var: Any = None) -> Float[Array, "..."]:
        """Draws of new observations y* = f(x) + ε of each output of each path, with independent normal noise.

        **Arguments:** `X`: inputs, `*n d`; `key`: of the noise, used up; `noise_var`: its variance, a scalar or `p`; unless
        given that of the observations, with the jitter.

        **Returns:** `*s *n p`. **Raises:** ValueError as a call, and where `noise_var` is not known, negative or of
        another shape.
        """
        X = self._check(X)
        noise_var = new_noise(noise_var, self.noise, self.noise.shape, X.dtype)
        return observed_with(self(X), noise_var, _checks.key(key))

    def output(self, q: int) -> PathwiseFunction:
        """One of the outputs as paths `*s *n`: what searches, level sets and other functions of scalar paths take.

        Path i of one output belongs to path i of the others. `marginal_variance` of all outputs is a method of this class.

        **Arguments:** `q`: which, from 0. **Returns:** its paths, `*s`. **Raises:** IndexError where there is none of that
        number.
        """
        p = self.noise.shape[0]
        q = range(p)[_checks.index(q, p, "Output")]
        return PathwiseFunction(
            prior_mean=_OutputMean(self.prior_mean, q, p),
            features=self.features,
            weights=self.weights[..., q, :],
            kernel=self.kernel,
            inputs=self.inputs,
            coefficients=self.coefficients[..., q, :],
            mean_coefficients=self.mean_coefficients[q],
            noise=None,
            noise_var=self.noise[q],
        )

    def rescaled(self, scaling: Standardisation) -> "MultiOutputPaths":
        """Paths of standardised data in the original units: `Standardisation.original`."""
        p = self.noise.shape[0]
        a = jnp.broadcast_to(scaling.value.scale.astype(self.noise.dtype), (p,))
        by_output = lambda leaf: leaf * jnp.broadcast_to(a[:, None], leaf.shape)
        return dataclasses.replace(
            self,
            prior_mean=scaling.of_mean(self.prior_mean),
            features=scaling.of_features(self.features, jnp.ones((), self.noise.dtype)),
            weights=by_output(self.weights),
            kernel=scaling.of_inputs(self.kernel),
            inputs=scaling.original_inputs(self.inputs),
            coefficients=by_output(self.coefficients),
            mean_coefficients=by_output(self.mean_coefficients),
            root=by_output(self.root),
            noise=self.noise * a**2,
        )

    def marginal_variance(self, X: Float[AnyArray, "*n d"]) -> Float[Array, "*n p"]:
        """Variance of the value of a path at each input, with its features held, in closed form; see `PathwiseFunction`.

        **Arguments:** `X`: inputs, `*n d`. **Returns:** `*n p`. **Raises:** as a call; and for a mean, which has no variance.
        """
        X = self._check(X)
        if isinstance(self.features, NoFeatures):
            raise ValueError("`marginal_variance` is of random paths; this is a mean, which has none.")
        return _marginal_variance(self, X)

    def condition(self, posterior: Any, key: Key, n_new: int | None = None) -> "MultiOutputPaths":
        """The same functions, now through what their posterior has and they have not: see `PathwiseFunction.condition`.

        **Arguments:** `posterior`: theirs, given all outputs at more inputs by its `condition`; `key`: of the new ε, used
        up; `n_new`: how many inputs are new, which shapes say. **Returns:** paths `*s`. **Raises:** as
        `PathwiseFunction.condition`.
        """
        return posterior.continued(self, key, n_new)

    def without(self, posterior: Any, numbers: Any) -> "MultiOutputPaths":
        """The same functions without all outputs at some of the inputs: see `PathwiseFunction.without`.

        **Arguments:** `posterior`: theirs; `numbers`: which inputs. **Returns:** paths `*s`, of `posterior.without(numbers)`.
        **Raises:** as that, and ValueError where the posterior is not theirs.
        """
        return posterior.continued_without(self, numbers)

    def leave_one_out(self, posterior: Any) -> Float[Array, "*s n p"]:
        """Each path where each observation was made, without that one (other outputs at the same input stay).

        **Arguments:** `posterior`: that of the paths. **Returns:** `*s n p`. **Raises:** ValueError where the posterior
        is not theirs, or the covariance of the outputs has no inverse.
        """
        return posterior.left_out_of(self)

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
    def mean_path(self) -> "MultiOutputPaths":
        """The posterior mean as one path."""
        weights = jnp.zeros((self.noise.shape[0], 0), self.weights.dtype)
        return dataclasses.replace(self, features=NoFeatures(), weights=weights, coefficients=self.mean_coefficients)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("One path has no len(); only a batch of paths has.")
        return self.shape[0]

    def __getitem__(self, index: Any) -> "MultiOutputPaths":
        index = _checks.index(index, len(self), "Path")
        return dataclasses.replace(self, weights=self.weights[index], coefficients=self.coefficients[index])

    def __iter__(self) -> Iterator["MultiOutputPaths"]:
        return (self[i] for i in range(len(self)))

    def _printed(self) -> dict[str, Any]:
        sizes = {"shape": self.shape, "n_outputs": self.weights.shape[-2], "n_features": self.weights.shape[-1]}
        return sizes | {"inputs": Shape(self.inputs), "kernel": self.kernel}

    def _check(self, X: Any) -> Array:
        X = _checks.inputs(X, self.inputs.shape[1]).astype(self.inputs.dtype)
        flat = check_valid(self.kernel, X.reshape(-1, X.shape[-1]), "X")
        return check_covered(self.features, flat).reshape(X.shape)


class _OutputMean(eqx.Module):
    """The mean of one of p outputs."""

    mean: Callable[..., Any]
    q: int = eqx.field(static=True)
    p: int = eqx.field(static=True)

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return jnp.broadcast_to(self.mean(X), (*X.shape[:-1], self.p))[..., self.q]


@eqx.filter_jit
def _evaluate(paths: MultiOutputPaths, X: Float[Array, "*n d"], block_bytes: int | None) -> Float[Array, "..."]:
    rows = X.reshape(math.prod(X.shape[:-1]), X.shape[-1])
    every = math.prod(paths.weights.shape[:-1])
    weights = paths.weights.reshape(every, paths.weights.shape[-1])
    coefficients = paths.coefficients.reshape(every, paths.inputs.shape[0])

    def block(rows: Float[Array, "b d"]) -> Float[Array, "sp b"]:
        return inner(weights, paths.features(rows)) + inner(coefficients, paths.kernel.matrix(rows, paths.inputs))

    values = map_rows(block, rows, weights.shape[1] + coefficients.shape[1], block_bytes)
    values = jnp.moveaxis(values.reshape(*paths.weights.shape[:-1], rows.shape[0]), -2, -1)  # *s n p
    values = values + jnp.broadcast_to(paths.prior_mean(rows), values.shape)
    return values.reshape(*paths.shape, *X.shape[:-1], paths.noise.shape[0])


@eqx.filter_jit
def _evaluate_paired(paths: MultiOutputPaths, X: Float[Array, "..."]) -> Float[Array, "..."]:
    n_axes = len(paths.shape)
    flat = lambda leaf: leaf.reshape(math.prod(paths.shape), *leaf.shape[n_axes:])

    def one(leaves: Any, inputs: Float[Array, "*n d"]) -> Float[Array, "*n p"]:
        weights, coefficients = leaves
        return _evaluate(dataclasses.replace(paths, weights=weights, coefficients=coefficients), inputs, None)

    per_path = math.prod(X.shape[n_axes:-1]) * (paths.inputs.shape[0] + paths.weights.shape[-1])
    return map_paired(one, (flat(paths.weights), flat(paths.coefficients)), X, paths.shape, per_path)


@eqx.filter_jit
def _marginal_variance(paths: MultiOutputPaths, X: Float[Array, "*n d"]) -> Float[Array, "*n p"]:
    root, p = paths.root, paths.noise.shape[0]
    B = inner(root, root)
    factor = factorise(paths.kernel.matrix(paths.inputs, paths.inputs), B, paths.noise)
    at_inputs = paths.features(paths.inputs)

    def block(rows: Float[Array, "b d"]) -> Float[Array, "p b"]:
        # With g = A⁻¹(k(X, x) ⊗ B_q): Σ_c ‖R_qc φ(x) − φ(X)ᵀ(g R)_c‖² + Σ g² D, as for one output.
        g = factor.solve(paths.kernel.matrix(rows, paths.inputs)[None, :, :, None] * B[:, None, None, :])  # p b n p
        loaded = jnp.moveaxis(inner(g.reshape(-1, p), root.T).reshape(*g.shape[:-1], -1), -2, -1)  # p b c n
        update = inner(loaded.reshape(-1, loaded.shape[-1]), at_inputs.T).reshape(*loaded.shape[:-1], -1)
        prior = root[:, None, :, None] * paths.features(rows)[None, :, None, :] - update
        return jnp.sum(prior * prior, axis=(2, 3)) + jnp.sum(g * g * paths.noise[None, None, None, :], axis=(2, 3))

    width = p * (paths.inputs.shape[0] * p + at_inputs.shape[1] * root.shape[1])
    return map_rows(block, X.reshape(-1, X.shape[-1]), width).T.reshape(*X.shape[:-1], p)
