"""Where to measure next: what observations at some inputs would tell, in nats, from draws of functions.

`paths` is a batch of paths, an ensemble, or any function that maps `*n d` to `*s *n`. Criteria are differentiable in inputs.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from . import _checks
from ._types import AnyArray, Key, Number

# Inputs whose prior variance is asked for at once.
_BATCH = 64


class Estimate(NamedTuple):
    """A number from draws. **Fields:** `value`; `standard_error`: of its chance, without its bias."""

    value: Float[Array, "*n"]
    standard_error: Float[Array, "*n"]


class Batch(NamedTuple):
    """Inputs chosen one after the other, made by `greedy_batch`.

    **Fields:** `indices`: among the candidates, `q`; `points`: `q d`; `gains`: what each adds to the information of those
    before it, in nats, `q`. They add up to that of all.
    """

    indices: Int[Array, "q"]
    points: Float[Array, "q d"]
    gains: Float[Array, "q"]


class PathCovariance(eqx.Module):
    """The sample covariance of paths as a function of two sets of inputs; of S paths it has rank S − 1.

    **Fields:** `paths`: maps `*n d` to `*s *n`. **Raises:** at a call, ValueError where there is one path.
    """

    paths: Callable[..., Any]

    def __call__(self, X: Float[AnyArray, "*n d"], Z: Float[AnyArray, "*m d"]) -> Float[Array, "..."]:
        """**Arguments:** `X`: `*n d`; `Z`: `*m d`. **Returns:** `*n *m`."""
        left, right = (_centred(self.paths, inputs) for inputs in (X, Z))
        flat = lambda values: values.reshape(values.shape[0], math.prod(values.shape[1:]))
        product = jnp.matmul(flat(left).T, flat(right), precision=jax.lax.Precision.HIGHEST) / (left.shape[0] - 1)
        return product.reshape(*left.shape[1:], *right.shape[1:])


def path_variance(paths: Callable[..., Any], X: Float[AnyArray, "*n d"]) -> Float[Array, "*n"]:
    """Sample variance of the values of all paths, over S − 1: for an ensemble that within draws and between them.

    To measure where it is largest is uncertainty sampling (MacKay 1992).

    **Arguments:** `paths`; `X`: inputs, `*n d`. **Returns:** `*n`. **Raises:** ValueError where there is one path, or `paths`
    gives other axes than `*s *n`.
    """
    values = _centred(paths, X)
    return jnp.sum(values * values, axis=0) / (values.shape[0] - 1)


def joint_entropy(
    paths: Callable[..., Any],
    X: Float[AnyArray, "*n q d"],
    noise_var: Number | Float[AnyArray, "q"],
    *,
    correct_bias: bool = True,
) -> Float[Array, "*n"]:
    """Differential entropy of observations at q inputs together, ½ log |2πe (Σ̂ + noise)| with the sample covariance Σ̂.

    **Arguments:** as of `information_gain`, which says for which paths it is exact, and what its bias is.

    **Returns:** in nats, `*n`. **Raises:** as `information_gain`.
    """
    gain = information_gain(paths, X, noise_var, correct_bias=correct_bias).value
    noise = _noise(noise_var, jnp.shape(X)[-2], gain.dtype)
    return gain + 0.5 * jnp.sum(jnp.log(2 * math.pi * math.e * noise))


def information_gain(
    paths: Callable[..., Any],
    X: Float[AnyArray, "*n q d"],
    noise_var: Number | Float[AnyArray, "q"],
    *,
    correct_bias: bool = True,
) -> Estimate:
    """Expected information gain about f of observations with normal noise at q inputs together, ½ log |I + Σ̂/noise|.

    Rao-Blackwellised: it is the mean over the paths of KL(p(y | f) ‖ N(μ̂, Σ̂ + noise)), in which y is integrated out, so that
    no noise is drawn. For paths of one posterior it converges to the exact value; for those of an ensemble to an upper
    bound, as the law of y is a mixture then (`nested_information_gain` holds for it too).

    Of S independent normal paths it is too small by ((tr M)² + tr M²)/(4 (S − 1)) in the first order, M = (Σ + noise)⁻¹Σ,
    which is at most q (q + 1)/(4 (S − 1)). With `correct_bias` its estimate is added.

    **Arguments:** `paths`; `X`: sets of q inputs, `*n q d`; `noise_var`: of the observations, a scalar or `q`, positive;
    `correct_bias`.

    **Returns:** the estimate in nats and its standard error, `*n` each; draws are the first axis of the paths.

    **Raises:** ValueError where there is one path, `X` has no axis of inputs, or a variance is not positive. Source: Chaloner
    & Verdinelli (1995); Krause, Singh & Guestrin (2008).
    """
    X = _checks.floating(X, "X")
    if X.ndim < 2:
        raise ValueError(f"`X` must have shape (*n, q, d), sets of q inputs; got {X.shape}. Pass `X[None, :]` for one.")
    correct_bias = _checks.flag(correct_bias, "correct_bias")
    noise = _noise(noise_var, X.shape[-2], X.dtype)
    return _information_gain(paths, X, noise, correct_bias)


def nested_information_gain(
    paths: Callable[..., Any],
    X: Float[AnyArray, "q d"],
    likelihood: Callable[..., Any],
    key: Key,
    *,
    contrastive: bool = False,
) -> Estimate:
    """Expected information gain about f of observations at q inputs, under any likelihood, by nested Monte Carlo:
    E[log p(y | f) − log p(y)], with p(y) the mean of p(y | f′) over paths f′.

    One batch of S paths serves for both: each path makes one set of observations, and the others their density. The
    estimate is too large in expectation (Jensen's inequality); `contrastive` adds the path itself to the others, which makes
    it too small, and at most log S. Where the gain is not far below log S, take more paths.

    **Arguments:**

    - `paths`; `X`: q inputs, `q d`.
    - `likelihood`: maps values `s q`, all axes of the paths made one, to a distribution with the same axes and methods
      `sample(key)` and `log_prob`: `lambda f: dist.Bernoulli(logits=f)`. A function made anew compiles anew.
    - `key`: of the observations.
    - `contrastive`: which of the two bounds.

    **Returns:** the estimate in nats and its standard error, which counts what the paths that are shared do to it.

    **Raises:** ValueError where there is one path, or shapes do not fit. Source: Rainforth et al. (2018); Foster et al.
    (2020).
    """
    X = _checks.points(X, "X")
    return _nested(paths, X, likelihood, key, _checks.flag(contrastive, "contrastive"))


def bald(
    paths: Callable[..., Any], X: Float[AnyArray, "*n d"], likelihood: Callable[..., Any], support: AnyArray
) -> Float[Array, "*n"]:
    """Information of one discrete observation about f, H(E p) − E H(p) with p(y | f(x)) of each path (BALD).

    **Arguments:** `paths`; `X`: inputs, `*n d`; `likelihood`: maps values `s *n` to a distribution with the same axes and a
    method `log_prob`; `support`: all values that an observation can have, `c`: `jnp.arange(2)` of a binary one.

    **Returns:** in nats, `*n`, at most log c. The mean over S paths makes it too small, by at most about (c − 1)/2S.

    **Raises:** ValueError where shapes do not fit, or probabilities do not sum to 1 (at run time under jit). Source: Houlsby
    et al. (2011), equation 2.
    """
    support = jnp.asarray(support)
    if support.ndim != 1 or support.shape[0] < 2:
        raise ValueError(f"`support` must hold at least two observations along one axis; got shape {support.shape}.")
    values = _values(paths, X)
    densities = jnp.stack([_log_prob(likelihood, values, jnp.full(values.shape, c, support.dtype)) for c in support])
    p = jnp.exp(densities)
    whole = jnp.all(jnp.abs(jnp.sum(p, axis=0) - 1) < 1e-3)
    p = _checks.require(whole, p, "The probabilities of `support` must sum to 1: give all values of an observation.")
    mean = jnp.mean(p, axis=1)
    return -jnp.sum(_p_log_p(mean), axis=0) + jnp.mean(jnp.sum(_p_log_p(p), axis=0), axis=0)


def gaussian_bald(
    means: Float[AnyArray, "h *n"], variances: Float[AnyArray, "h *n"], *, n_nodes: int = 32
) -> Float[Array, "*n"]:
    """Information of one observation about the hyperparameters, H(Σ N(mᵢ, vᵢ)/h) − mean H(N(mᵢ, vᵢ)) (BALD).

    The entropy of the mixture is found by Gauss-Hermite quadrature with the nodes of each component, in O(h² n_nodes).

    **Arguments:** `means`, `variances`: of y under each draw of the hyperparameters, noise included, `h *n`: of an
    ensemble `ensemble.mean_path(X)` and `jnp.var(ensemble(X), axis=1, ddof=1) + noise_var`; `n_nodes`.

    **Returns:** in nats, `*n`, at most log h.

    **Raises:** ValueError where shapes do not fit or a variance is not positive. Source: Houlsby et al. (2011); Riis et al.
    (2022).
    """
    means, variances = _checks.floating(means, "means"), _checks.floating(variances, "variances")
    if means.ndim == 0 or means.shape != variances.shape:
        got = f"got {means.shape} and {variances.shape}"
        raise ValueError(f"`means` and `variances` must have the same shape (h, *n); {got}.")
    _checks.finite(means, "means")
    _checks.positive(variances, "variances")
    nodes, weights = np.polynomial.hermite_e.hermegauss(_checks.count(n_nodes, "n_nodes"))
    nodes, weights = jnp.asarray(nodes, means.dtype), jnp.asarray(weights / weights.sum(), means.dtype)
    return _gaussian_bald(means, variances.astype(means.dtype), nodes, weights)


def max_value_entropy(
    mean: Float[AnyArray, "*n"], variance: Float[AnyArray, "*n"], maxima: Float[AnyArray, "s"]
) -> Float[Array, "*n"]:
    """Information of f(x) about the largest value of f (max-value entropy search).

    Mean over the maxima y* of γ φ(γ)/(2 Φ(γ)) − log Φ(γ), γ = (y* − μ(x))/σ(x). For a minimum negate `mean` and the minima.

    **Arguments:** `mean`, `variance`: of f(x), in closed form or of paths, `*n`; `maxima`: the largest values of paths, `s`.

    **Returns:** in nats, `*n`: 0 where the variance is 0.

    **Raises:** ValueError where shapes do not fit, an entry is not finite or a variance is negative. Source: Wang & Jegelka
    (2017), equation 6.
    """
    mean, variance = _checks.floating(mean, "mean"), _checks.floating(variance, "variance")
    maxima = _checks.floating(maxima, "maxima").astype(mean.dtype)
    if mean.shape != variance.shape or maxima.ndim != 1 or maxima.shape[0] == 0:
        got = f"got {mean.shape}, {variance.shape} and {maxima.shape}"
        raise ValueError(f"`mean` and `variance` must have the same shape and `maxima` one axis of paths; {got}.")
    _checks.finite(mean, "mean")
    _checks.finite(maxima, "maxima")
    _checks.positive(variance, "variance", or_zero=True)
    known = variance == 0
    sd = jnp.sqrt(jnp.where(known, jnp.ones_like(mean), variance.astype(mean.dtype)))
    gamma = (maxima.reshape(-1, *(1,) * mean.ndim) - mean[None]) / sd[None]
    log_cdf = jax.scipy.special.log_ndtr(gamma)
    # The ratio of density and distribution function, also where both underflow.
    ratio = jnp.exp(-0.5 * gamma * gamma - 0.5 * math.log(2 * math.pi) - log_cdf)
    return jnp.where(known, jnp.zeros_like(mean), jnp.mean(0.5 * gamma * ratio - log_cdf, axis=0))


def greedy_batch(
    covariance: Callable[..., Any],
    candidates: Float[AnyArray, "n d"],
    n_points: int,
    noise_var: Number | Float[AnyArray, "n"],
) -> Batch:
    """Candidates to be observed together, each the one that tells most beside those before it.

    A pivoted Cholesky factorisation of the covariance of the observations, which takes O(n q²) and q columns of the
    covariance. What it finds has at least 1 − 1/e = 63 % of the information of the best batch of that size.

    **Arguments:** `covariance`: of f, maps `*n d` and `*m d` to `*n *m`: `posterior.covariance`, or `PathCovariance(paths)`;
    `candidates`: `n d`; `n_points`: q, at most n, no candidate twice; `noise_var`: a scalar or `n`, positive.

    **Returns:** the batch. **Raises:** ValueError where shapes do not fit, there are fewer candidates, or a variance is not
    positive. Source: Nemhauser, Wolsey & Fisher (1978) for the bound; Srinivas et al. (2010).
    """
    candidates = _checks.points(candidates, "candidates")
    n, n_points = candidates.shape[0], _checks.count(n_points, "n_points")
    if n_points > n:
        raise ValueError(f"`n_points` must be at most {n}, the number of `candidates`; got {n_points}.")
    if not callable(covariance):
        raise ValueError(f"`covariance` must be a function of two sets of inputs; got {type(covariance).__name__}.")
    noise = _noise(noise_var, n, candidates.dtype)
    return _greedy(covariance, candidates, noise, n_points)


def _noise(noise_var: Any, n: int, dtype: Any) -> Float[Array, "n"]:
    return jnp.broadcast_to(_checks.noise_variance(noise_var, n).astype(dtype), (n,))


def _draws(paths: Any, X: Any) -> Float[Array, "s r *n"]:
    """Values with the first axis of paths, the others made one, and the axes of the inputs."""
    X = _checks.floating(X, "X")
    values = jnp.asarray(paths(X))
    n = X.shape[:-1]
    axes = values.ndim - len(n)
    if axes < 1 or values.shape[axes:] != n:
        raise ValueError(f"`paths` must map inputs of axes {n} to axes of paths followed by these; got {values.shape}.")
    if math.prod(values.shape[:axes]) < 2:
        raise ValueError("`paths` must be at least two: one has no variance.")
    return values.reshape(values.shape[0], math.prod(values.shape[1:axes]), *n)


def _values(paths: Any, X: Any) -> Float[Array, "s *n"]:
    values = _draws(paths, X)
    return values.reshape(values.shape[0] * values.shape[1], *values.shape[2:])


def _centred(paths: Any, X: Any) -> Float[Array, "s *n"]:
    values = _values(paths, X)
    return values - jnp.mean(values, axis=0, keepdims=True)


def _standard_error(terms: Float[Array, "s"], n_draws: int) -> Float[Array, ""]:
    """Of the mean of terms, those of one draw (the first axis of the paths) being dependent."""
    if n_draws > 1:
        terms = jnp.mean(terms.reshape(n_draws, terms.shape[0] // n_draws), axis=1)
    return jnp.std(terms, ddof=1) / math.sqrt(terms.shape[0])


@eqx.filter_jit
def _information_gain(paths: Any, X: Float[Array, "*n q d"], noise: Float[Array, "q"], correct_bias: bool) -> Estimate:
    draws = _draws(paths, X)
    n_draws, q = draws.shape[0], X.shape[-2]
    values = draws.reshape(n_draws * draws.shape[1], math.prod(X.shape[:-2]), q)
    s = values.shape[0]

    def one(values: Float[Array, "s q"]) -> tuple[Array, Array]:
        z = (values - jnp.mean(values, axis=0, keepdims=True)) / jnp.sqrt(noise.astype(values.dtype))[None, :]
        eye = jnp.eye(q, dtype=z.dtype)
        W = jnp.matmul(z.T, z, precision=jax.lax.Precision.HIGHEST) / (s - 1)
        lower = jnp.linalg.cholesky(eye + W)
        gain = jnp.sum(jnp.log(jnp.diagonal(lower)))
        solve = lambda B: jax.scipy.linalg.solve_triangular(lower, B, lower=True)
        white = solve(z.T)
        if correct_bias:
            root = solve(eye)
            M = eye - jnp.matmul(root.T, root, precision=jax.lax.Precision.HIGHEST)
            gain = gain + (jnp.trace(M) ** 2 + jnp.sum(M * M)) / (4 * (s - 1))
        # What a path adds: ½ zᵀ(I + W)⁻¹z and a constant, the term of it in the mean of divergences.
        return gain, _standard_error(0.5 * jnp.sum(white * white, axis=0), n_draws)

    gain, error = jax.vmap(one, in_axes=1)(values)
    return Estimate(gain.reshape(X.shape[:-2]), error.reshape(X.shape[:-2]))


def _log_prob(likelihood: Any, values: Float[Array, "s *n"], y: Array) -> Float[Array, "s *n"]:
    densities = jnp.asarray(likelihood(values).log_prob(y))
    if densities.shape != values.shape:
        wrong = f"for values of shape {values.shape} its log densities have shape {densities.shape}"
        raise ValueError(
            f"`likelihood` must return a distribution with the axes of the values, no event axes; {wrong}."
        )
    return densities.astype(values.dtype)


@eqx.filter_jit
def _nested(paths: Any, X: Float[Array, "q d"], likelihood: Any, key: Key, contrastive: bool) -> Estimate:
    draws = _draws(paths, X)
    values = draws.reshape(-1, X.shape[0])
    s = values.shape[0]
    y = jnp.asarray(likelihood(values).sample(key))
    if y.shape != values.shape:
        raise ValueError(f"`likelihood` must make one observation of each value: {values.shape}; got shape {y.shape}.")

    def row(shares: Float[Array, "s"], i: Int[Array, ""]) -> tuple[Array, Array]:
        densities = jnp.sum(_log_prob(likelihood, values, jnp.broadcast_to(y[i], y.shape)), axis=1)
        others = densities if contrastive else jnp.where(jnp.arange(s) == i, -jnp.inf, densities)
        total = jax.nn.logsumexp(others)
        shares = shares + jnp.exp(others - total)
        return shares, densities[i] - total + math.log(s if contrastive else s - 1)

    one = jax.checkpoint(row, prevent_cse=False)
    shares, terms = jax.lax.scan(one, jnp.zeros((s,), values.dtype), jnp.arange(s))
    # The influence of a path: what its own observations add, less its share in the densities of all.
    return Estimate(jnp.mean(terms), _standard_error(terms - shares, draws.shape[0]))


def _p_log_p(p: Float[Array, "..."]) -> Float[Array, "..."]:
    zero = p <= 0
    return jnp.where(zero, jnp.zeros_like(p), p * jnp.log(jnp.where(zero, jnp.ones_like(p), p)))


@jax.jit
def _gaussian_bald(
    means: Float[Array, "h *n"], variances: Float[Array, "h *n"], nodes: Float[Array, "q"], weights: Float[Array, "q"]
) -> Float[Array, "*n"]:
    def at(pair: tuple[Float[Array, "h"], Float[Array, "h"]]) -> Float[Array, ""]:
        mean, variance = pair
        y = mean[:, None] + jnp.sqrt(variance)[:, None] * nodes[None, :]  # h q
        square = (y[None] - mean[:, None, None]) ** 2 / variance[:, None, None]
        densities = -0.5 * (square + jnp.log(2 * math.pi * variance)[:, None, None])
        log_density = jax.nn.logsumexp(densities, axis=0) - math.log(mean.shape[0])
        mixture = -jnp.mean(jnp.sum(weights[None, :] * log_density, axis=1))
        return mixture - 0.5 * jnp.mean(jnp.log(2 * math.pi * math.e * variance))

    shape = means.shape[1:]
    flat = lambda x: x.reshape(x.shape[0], -1).T
    return jax.lax.map(jax.checkpoint(at, prevent_cse=False), (flat(means), flat(variances))).reshape(shape)


@eqx.filter_jit
def _greedy(covariance: Any, candidates: Float[Array, "n d"], noise: Float[Array, "n"], n_points: int) -> Batch:
    n = candidates.shape[0]

    def values(X: Array, Z: Array, shape: tuple[int, ...]) -> Array:
        found = jnp.asarray(covariance(X, Z))
        if found.shape != shape:
            wrong = f"for inputs of shapes {X.shape} and {Z.shape} it gave {found.shape}"
            raise ValueError(f"`covariance` must map `*n d` and `*m d` to `*n *m`: {wrong}.")
        return found.astype(candidates.dtype)

    def choose(state: tuple[Array, Array, Array], t: Int[Array, ""]) -> tuple[tuple[Array, Array, Array], Any]:
        variance, rows, free = state
        gains = 0.5 * jnp.log1p(jnp.maximum(variance, 0) / noise)
        i = jnp.argmax(jnp.where(free, gains, -jnp.inf))
        seen = jnp.matmul(rows.T, rows[:, i], precision=jax.lax.Precision.HIGHEST)
        column = values(candidates, candidates[i], (n,)) - seen
        row = column / jnp.sqrt(jnp.maximum(variance[i], 0) + noise[i])
        return (variance - row * row, rows.at[t].set(row), free.at[i].set(False)), (i, gains[i])

    variance = jax.lax.map(lambda x: values(x, x, ()), candidates, batch_size=min(_BATCH, n))
    start = (variance, jnp.zeros((n_points, n), candidates.dtype), jnp.ones((n,), bool))
    _, (indices, gains) = jax.lax.scan(choose, start, jnp.arange(n_points))
    return Batch(indices, candidates[indices], gains)
