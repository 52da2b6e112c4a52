"""A path: a draw of a Gaussian process as a function."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .. import _checks, _means
from .._features import AbstractFeatures, NoFeatures, require_covered
from .._functionals import (
    AbstractFunctional,
    as_functional,
    as_inputs,
    Canonical,
    dim_of,
    FeaturesOf,
    MeanOf,
    Observed,
    Values,
)
from .._kernels import AbstractKernel, require_valid
from .._kernels.integrals import has_integrals
from .._modules import Printed, shown
from .._numerics.blocks import as_bytes, map_rows
from .._numerics.lapack import cholesky
from .._numerics.linalg import add_diagonal, CholeskyFactor, inner, seen
from .._scaling import Standardisation
from .._types import AnyArray, Key
from .components import components_of
from .observations import new_noise, noise_of_kernel, observed_with
from .paired import check_own_inputs, map_paired
from .prior_draw import evaluate_prior, take
from .variance import path_variance


class PathwiseFunction(Printed, eqx.Module):
    """Draws of a Gaussian process as functions, f(·) = m(·) + φ(·)ᵀw + k(·, L)α.

    A pytree. The leading axes `*s` run over paths and stand on the random leaves only (`weights`, `coefficients`, and
    the leaves of `features` where each path has its own); one path has none. `len(paths)`, `paths[i]`, slices and
    iteration go along the first of them.

    **Fields:**

    - `prior_mean`: m, a callable that maps `n d` to `n`; the posterior mean is `mean_path`.
    - `features`: φ, the basis of the prior draw.
    - `weights`: w, `*s f`.
    - `kernel`: k.
    - `inputs`: L, what the path is conditioned on: points, `n d`, none (n = 0) for draws of a prior; or a functional.
    - `coefficients`: α, `*s n`.
    - `mean_coefficients`: those of the posterior mean, `n`; of the means of fantasies, `*s n`.
    - `noise`: the variances of ε, which were added to the diagonal of k(L, L) in the solve, `n`: inf for points that were
      not observed; None for a part of a path.
    - `noise_var`: the variance of the noise of a new observation, beside that of the kernel; None where it is not known.
    - `spread`: a square root of the covariance of the inducing values under the guide, `n n`; None where what was observed is
      known.
    - `share_features`: whether one basis serves all paths; part of the structure, not a leaf.

    Source: Matheron's rule, Wilson et al. (2021), equation 12.
    """

    prior_mean: Callable[..., Any]
    features: AbstractFeatures
    weights: Float[Array, "*s f"]
    kernel: AbstractKernel
    inputs: Observed
    coefficients: Float[Array, "*s n"]
    mean_coefficients: Float[Array, "... n"]
    noise: Float[Array, "n"] | None
    spread: Float[Array, "n n"] | None = None
    noise_var: Float[Array, "..."] | None = None
    share_features: bool = eqx.field(static=True, default=True)

    def __call__(self, X: Float[AnyArray, "*n d"], *, block_bytes: int | None = None) -> Float[Array, "..."]:
        """Values of all paths at all inputs.

        **Arguments:** `X`: inputs, `*n d`; they are taken in the dtype of the path. `block_bytes`: many inputs are taken a
        block at a time, of which the features and covariances may take so many bytes, or 64 inputs at the least; unless
        given 12 MiB, which suits the caches of a CPU. It is part of the compiled function.

        **Returns:** the values, `*s *n`: a scalar for one path at one point. Memory beyond them is that of a block.

        **Raises:** ValueError where the last axis of `X` is not the input dimension, or a point lies where the path does not
        hold: not a category of its kernel, or outside the box of its basis (at run time under jit).
        """
        return inside(_evaluate(self, _as_inputs(self, X), as_bytes(block_bytes)))

    def paired(self, X: Float[AnyArray, "..."]) -> Float[Array, "..."]:
        """Values of each path at inputs of its own: path i at `X[i]`.

        **Arguments:** `X`: inputs, `*s *n d`.

        **Returns:** the values, `*s *n`.

        **Raises:** ValueError where the leading axes of `X` are not those of the paths, or its last not the dimension.
        """
        return inside(_evaluate_paired(self, check_own_inputs(_as_inputs(self, X), self.shape)))

    def observe(self, X: Float[AnyArray, "*n d"], key: Key, noise_var: Any = None) -> Float[Array, "..."]:
        """Draws of new observations y* = f(x) + ε of each path, with independent normal noise.

        **Arguments:** `X`: inputs, `*n d`; `key`: of the noise, used up; `noise_var`: its variance, a scalar or `*n`;
        unless given that of the observations that the paths are conditioned on, where it is one number. Noise of
        the kernel (`White`) comes on top.

        **Returns:** `*s *n`. **Raises:** ValueError as a call, and where `noise_var` is not known, negative or of
        another shape.
        """
        X = _as_inputs(self, X)
        noise_var = new_noise(noise_var, self.noise_var, X) + noise_of_kernel(self.kernel, X)
        return observed_with(self(X), noise_var, _checks.key(key))

    def rescaled(self, scaling: Standardisation) -> "PathwiseFunction":
        """Paths of standardised data in the original units: `Standardisation.original`."""
        a = scaling.value.scale.astype(self.weights.dtype)
        L = self.functional.rescaled(scaling)  # says where there are no units
        each = self.functional.spread(a)
        times = lambda leaf, factor: None if leaf is None else leaf * factor
        return dataclasses.replace(
            self,
            prior_mean=scaling.of_mean(self.prior_mean),
            features=scaling.of_features(self.features, a, self.shape if self._own_features else ()),
            kernel=scaling.of_kernel(self.kernel),
            inputs=as_inputs(L),
            coefficients=self.coefficients / jnp.broadcast_to(each, self.coefficients.shape),
            mean_coefficients=self.mean_coefficients / jnp.broadcast_to(each, self.mean_coefficients.shape),
            noise=times(self.noise, each**2),
            noise_var=times(self.noise_var, a**2),
            spread=None if self.spread is None else self.spread * each[:, None],
        )

    @property
    def functional(self) -> AbstractFunctional:
        """What the path is conditioned on."""
        return as_functional(self.inputs).suited_to(self.kernel)

    def over_boxes(self, boxes: Float[Array, "q 2 d"], rule: Callable[[Any], Array]) -> Float[Array, "*s q"]:
        """Integrals over boxes of each path, part by part: in closed form where the kernel has one for both of its arguments,
        else by a rule."""
        if not has_integrals(self.kernel, boxes.shape[-1]):
            return rule(self)
        if self._own_features and math.prod(self.shape):
            return _of_each(self, lambda path: path.over_boxes(boxes, rule))
        of_canonical = Canonical(self.kernel, self.functional).over_boxes(boxes, rule)
        of_features = FeaturesOf(self._one_basis()).over_boxes(boxes, rule)
        flat = lambda rows: rows.reshape(math.prod(self.shape), rows.shape[-1])
        update = inner(flat(self.coefficients), of_canonical.T) + inner(flat(self.weights), of_features.T)
        mean = MeanOf(self.prior_mean).over_boxes(boxes, rule)
        return (mean[None, :] + update).reshape(*self.shape, boxes.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes `*s` of the paths; `()` for one path."""
        return self.weights.shape[:-1]

    @property
    def smoothness(self) -> float:
        """How often the paths can be differentiated. A posterior mean, which is made of kernels, can be twice as often."""
        times = 2 if isinstance(self.features, NoFeatures) else 1
        return times * self.kernel.smoothness(dim_of(self.inputs))

    def marginal_variance(self, X: Float[AnyArray, "*n d"]) -> Float[Array, "..."]:
        """Variance of the value of a path at each input, over its weights and noise, with its features held: in closed form.

        Where it differs from the variance of the posterior the features are too few; see `feature_error`. The covariance of
        the points that the path is conditioned on is factorised anew, which takes O(n³).

        **Arguments:** `X`: inputs, `*n d`.

        **Returns:** the variances, `*n`: they are the same for all paths that share features; else `*s *n`.

        **Raises:** ValueError where the last axis of `X` is not the input dimension, or the features hold no draw (a mean).
        """
        X = _as_inputs(self, X)
        if isinstance(self.features, NoFeatures):
            raise ValueError("`marginal_variance` is of random paths; this is a mean, which has none.")
        if self.noise is None:
            raise ValueError(
                "`marginal_variance` is of whole paths: a part of one has the solve of the whole, and one of inducing values "
                "that went on with observations holds none."
            )
        return inside(_marginal_variance(self, X))

    def components(self) -> tuple["PathwiseFunction", ...]:
        """For a sum of kernels: the part of each of them in the same draws, in their order. The parts add up to the path.

        Each part is a draw of the posterior of that term: f_i(·) = φ_i(·)ᵀw_i + k_i(·, L)α, by Matheron's rule for all terms
        together. A mean that is not zero belongs to none of them: its path comes last.

        **Returns:** one batch of paths for each of `kernel.kernels` (of any other kernel: one), with the axes of this one.
        """
        return components_of(self)

    @property
    def mean_path(self) -> "PathwiseFunction":
        """The posterior mean as one path, m(·) + k(·, L)(L k Lᵀ + Σ)⁻¹(y − L m): exact, whatever the features."""
        return PathwiseFunction(
            prior_mean=self.prior_mean,
            features=NoFeatures(),
            weights=jnp.zeros((*self.mean_coefficients.shape[:-1], 0), self.weights.dtype),
            kernel=self.kernel,
            inputs=self.inputs,
            coefficients=self.mean_coefficients,
            mean_coefficients=self.mean_coefficients,
            noise=self.noise,
            spread=self.spread,
        )

    @property
    def outputs(self) -> Any:
        """All outputs of these paths as functions of the inputs without their number, an `OutputPaths`, which map `*n d` to
        `*s *n p`. **Raises:** ValueError where the kernel is not `Coregionalised`, paths have bases of their own
        (`share_features=False`), or something else than values was observed: evaluate these at `with_outputs(X, p)`."""
        from .outputs import outputs_of  # which are made of paths

        return outputs_of(self)

    def at_outputs(self, X: Float[Array, "n d"], p: int) -> Float[Array, "*s n p"] | None:
        """Values of the first p outputs at points, where that is less work than at all of them one by one; else None."""
        from .outputs import outputs_or_none

        outputs = outputs_or_none(self)
        return None if outputs is None else outputs(X)[..., :p]

    def condition(self, posterior: Any, key: Key, n_new: int | None = None) -> Any:
        """The same functions, now through the observations that their posterior has and they have not: the same w, and
        the same ε for what they are conditioned on; only that of the new observations is drawn. In steps, in any order
        and in any blocks, it is as once with all of these.

        With A α = y − m − φᵀw − ε for what a path has seen it becomes α + A⁻¹E(y′ − f(X′) − ε′), with A of all and E the
        columns of the identity of what is new: O(n² m) for m new observations, and O((f + n) m) for each path.

        **Arguments:** `posterior`: theirs, given more by its `condition`, with the same hyperparameters; `key`: of ε′, used
        up; `n_new`: how many places at the end are new, with those that a mask leaves out, which has to be given under jit
        where a posterior has room for more.

        **Returns:** paths `*s`; of a posterior with fantasies `*t` a `PathEnsemble` with axes `*t *s`, of the same functions
        under other observations: w and ε are the same in all of them.

        **Raises:** ValueError (at run time under jit) where the posterior is not theirs and more, `n_new` is not right,
        or they are a mean or a part of paths.
        """
        return posterior.continued(self, key, n_new)

    def without(self, posterior: Any, numbers: Any) -> "PathwiseFunction":
        """The same functions without some of the observations that they are conditioned on: α − P_:B P_BB⁻¹ α_B, with P =
        A⁻¹.

        **Arguments:** `posterior`: theirs; `numbers`: which, as of `posterior.without`. **Returns:** paths `*s`, of
        `posterior.without(numbers)`. **Raises:** as `posterior.without`, and ValueError where the posterior is not theirs.
        """
        return posterior.continued_without(self, numbers)

    def leave_one_out(self, posterior: Any) -> Float[Array, "*s n"]:
        """Each path where each observation was made, without that observation: f(xⱼ) − αⱼ(1/Pⱼⱼ − noiseⱼ), with P = A⁻¹.

        What all others predict of f there: a check of calibration (`scores.loo_pit`, `scores.loo_crps`) without fitting anew.

        **Arguments:** `posterior`: that of the paths. **Returns:** `*s n`; where nothing was observed the path itself.
        **Raises:** ValueError where the posterior is not theirs.
        """
        return posterior.left_out_of(self)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("One path has no len(); only a batch of paths has.")
        return self.shape[0]

    def __getitem__(self, index: Any) -> "PathwiseFunction":
        index = _checks.index(index, len(self), "Path")
        random, fixed = partition(self)
        return eqx.combine(jax.tree.map(lambda leaf: leaf[index], random), fixed)

    def __iter__(self) -> Iterator["PathwiseFunction"]:
        return (self[i] for i in range(len(self)))

    def _printed(self) -> dict[str, Any]:
        sizes = {"shape": self.shape, "n_features": self.weights.shape[-1], "inputs": shown(self.inputs)}
        return sizes | {"kernel": self.kernel, "prior_mean": self.prior_mean}

    def _one_basis(self) -> AbstractFeatures:
        """The features, or those of the first path where each has its own."""
        if not self._own_features:
            return self.features
        return NoFeatures() if 0 in self.shape else take(self.features, (0,) * len(self.shape))

    @property
    def _own_features(self) -> bool:
        # One path has the basis it has, without a leading axis.
        return not self.share_features and self.shape != ()


def partition(
    paths: PathwiseFunction, *, own_features: bool | None = None
) -> tuple[PathwiseFunction, PathwiseFunction]:
    """The leaves that have the axes `*s`, and the rest."""
    own = paths._own_features if own_features is None else own_features
    none = jax.tree.map(lambda _: False, paths)
    features = jax.tree.map(lambda leaf: own and eqx.is_array(leaf), paths.features)
    random = (features, True, True, paths.mean_coefficients.ndim > 1)
    spec = eqx.tree_at(lambda p: (p.features, p.weights, p.coefficients, p.mean_coefficients), none, random)
    return eqx.partition(paths, spec)


def _flatten(paths: PathwiseFunction) -> tuple[PathwiseFunction, PathwiseFunction]:
    """The same, with the axes `*s` made one."""
    random, fixed = partition(paths)
    n_axes, s = len(paths.shape), math.prod(paths.shape)
    return jax.tree.map(lambda leaf: leaf.reshape(s, *leaf.shape[n_axes:]), random), fixed


def _of_each(paths: PathwiseFunction, function: Callable[[PathwiseFunction], Array]) -> Float[Array, "..."]:
    """What a function makes of each path, one after the other."""
    random, fixed = _flatten(paths)
    values = jax.lax.map(lambda leaves: function(eqx.combine(leaves, fixed)), random)
    return values.reshape(*paths.shape, *values.shape[1:])


def _as_inputs(paths: PathwiseFunction, X: Any) -> Array:
    return _checks.inputs(X, dim_of(paths.inputs)).astype(paths.inputs.dtype)


class Answer(NamedTuple):
    """What was computed at some inputs, and whether they are in the domain of the kernel and covered by the basis.

    Both are found where the values are: in compiled code, or, where they are True, while it is made. A call of a small path
    would take twice as long with Python looking through its kernel and its basis each time.
    """

    values: Float[Array, "..."]
    valid: Literal[True] | Bool[Array, ""]
    covered: Literal[True] | Bool[Array, ""]


def answer(paths: PathwiseFunction, X: Float[Array, "n d"], values: Float[Array, "..."]) -> Answer:
    return Answer(values, paths.kernel.valid(X), paths._one_basis().covers(X))


def inside(answer: Answer) -> Float[Array, "..."]:
    """The values, or an error where an input was outside."""
    return require_covered(answer.covered, require_valid(answer.valid, answer.values, "X"))


@eqx.filter_jit
def _evaluate(paths: PathwiseFunction, X: Float[Array, "*n d"], block_bytes: int | None) -> Answer:
    flat = X.reshape(-1, X.shape[-1])
    return answer(paths, flat, values_at(paths, flat, block_bytes).reshape(*paths.shape, *X.shape[:-1]))


def values_at(paths: PathwiseFunction, X: Float[Array, "n d"], block_bytes: int | None = None) -> Float[Array, "s n"]:
    flat = eqx.combine(*_flatten(paths))
    functional = flat.functional

    def update(rows: Float[Array, "b d"]) -> Float[Array, "s b"]:
        mean = _means.evaluate(flat.prior_mean, rows)[None, :]
        return mean + functional.along(flat.kernel, rows, flat.coefficients)

    def prior_and_update(rows: Float[Array, "b d"]) -> Float[Array, "s b"]:
        return update(rows) + flat.features.draws(rows, flat.weights)

    n, f = functional.width, flat.weights.shape[1]
    if not paths._own_features:
        return map_rows(prior_and_update, X, n + f, block_bytes)
    prior = evaluate_prior(flat.features, flat.weights, Values(X), share_features=False, block_bytes=block_bytes)
    return prior + map_rows(update, X, n, block_bytes)


@eqx.filter_jit
def _evaluate_paired(paths: PathwiseFunction, X: Float[Array, "..."]) -> Answer:
    random, fixed = _flatten(paths)
    rows = X.reshape(*paths.shape, math.prod(X.shape[len(paths.shape) : -1]), X.shape[-1])
    per_path = rows.shape[-2] * (paths.functional.width + paths.weights.shape[-1])
    one = lambda leaves, inputs: values_at(eqx.combine(leaves, fixed), inputs)[0]
    values = map_paired(one, random, rows, paths.shape, per_path)
    return answer(paths, X.reshape(-1, X.shape[-1]), values.reshape(X.shape[:-1]))


@eqx.filter_jit
def _marginal_variance(paths: PathwiseFunction, X: Float[Array, "*n d"]) -> Answer:
    L = paths.functional
    noise = jnp.zeros((L.size,), L.dtype) if paths.noise is None else paths.noise
    mask = jnp.isfinite(noise)
    noise = jnp.where(mask, noise, jnp.zeros_like(noise))
    factor = CholeskyFactor(cholesky(seen(add_diagonal(L.gram(paths.kernel), noise), mask)), mask)
    flat = X.reshape(-1, X.shape[-1])

    def of(features: AbstractFeatures) -> Float[Array, "n"]:
        return path_variance(paths.kernel, factor, noise, paths.spread, features, L, flat)

    if not paths._own_features:
        return answer(paths, flat, of(paths.features).reshape(X.shape[:-1]))
    random, _ = _flatten(paths)
    dynamic, static = random.features, eqx.filter(paths.features, eqx.is_array, inverse=True)
    values = jax.lax.map(lambda leaves: of(eqx.combine(leaves, static)), dynamic)
    return answer(paths, flat, values.reshape(*paths.shape, *X.shape[:-1]))
