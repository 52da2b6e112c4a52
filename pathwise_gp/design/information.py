"""What observations tell about a function, from draws of it."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks
from .._numerics.blocks import map_rows
from .._numerics.lapack import qr
from .._types import AnyArray, Key, Number
from .draws import as_inputs, draw_axes, draws_at, noise_of, required_positive, values_at
from .nested import log_prob, nested, standard_error

# The law of a component counts up to so many standard deviations; what is beyond is 1e-15 of it.
_REACH = 8


class Estimate(NamedTuple):
    """A number from draws. **Fields:** `value`; `standard_error`: of its chance, without its bias."""

    value: Float[Array, "*n"]
    standard_error: Float[Array, "*n"]


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
    noise = noise_of(noise_var, np.shape(X)[-2], gain.dtype)
    return gain + 0.5 * jnp.sum(jnp.log(2 * math.pi * math.e * noise))


def information_gain(
    paths: Callable[..., Any],
    X: Float[AnyArray, "*n q d"],
    noise_var: Number | Float[AnyArray, "q"],
    *,
    correct_bias: bool = True,
) -> Estimate:
    """Expected information gain about f of observations with normal noise at q inputs together, ½ log |I + Σ̂/noise|.

    No noise is drawn: it is in closed form for f with the sample covariance Σ̂ of the paths. For paths of one posterior it
    converges to the exact value; for those of an ensemble to an upper bound, as the law of y is a mixture then
    (`nested_information_gain` holds for it too).

    Of S independent normal paths it is too small by ((tr M)² + tr M²)/(4 (S − 1)) in the first order, M = (Σ + noise)⁻¹Σ,
    which is at most q (q + 1)/(4 (S − 1)). With `correct_bias` its estimate is added.

    **Arguments:** `paths`; `X`: sets of q inputs, `*n q d`; `noise_var`: of the observations, a scalar or `q`, positive;
    `correct_bias`.

    **Returns:** the estimate in nats and its standard error, `*n` each; draws are the first axis of the paths. Two paths lie
    alike about their mean and have no standard error: NaN. Many sets are taken a block at a time.

    **Raises:** ValueError where there is one path, `X` has no axis of inputs, or a variance is not positive (at run time
    under jit). Source: Chaloner & Verdinelli (1995); Krause, Singh & Guestrin (2008).
    """
    X = _as_sets(X)
    correct_bias = _checks.flag(correct_bias, "correct_bias")
    noise = noise_of(noise_var, X.shape[-2], X.dtype)
    return _information_gain(paths, X, noise, correct_bias)


def nested_information_gain(
    paths: Callable[..., Any],
    X: Float[AnyArray, "*n q d"],
    likelihood: Callable[..., Any],
    key: Key,
    *,
    contrastive: bool = False,
) -> Estimate:
    """Expected information gain about f of observations at q inputs, under any likelihood, by nested Monte Carlo:
    E[log p(y | f) − log p(y)], with p(y) the mean of p(y | f′) over paths f′.

    One batch of S paths serves for both: each path makes one set of observations, and the others their density. Of an
    ensemble these are the paths of the other draws, as those of one draw depend on each other. The estimate is too large in
    expectation (Jensen's inequality), and infinite where no other path allows what one observed; `contrastive` takes all
    paths, also the one that observed, which makes it too small, and at most log S. Where the gain is not far below log S,
    take more paths.

    Derivatives in `X` go through the observations where their distribution says that it has such (`has_rsample`), and by the
    score function where it has not, as for discrete ones: they have no bias for that of the expectation, and more noise.

    **Arguments:**

    - `paths`; `X`: sets of q inputs, `*n q d`. All sets share the paths and the key.
    - `likelihood`: maps values `s q`, all axes of the paths made one, to a distribution with the same axes and methods
      `sample(key)` and `log_prob`: `lambda f: dist.Bernoulli(logits=f)`. A function made anew compiles anew.
    - `key`: of the observations.
    - `contrastive`: which of the two bounds.

    **Returns:** the estimates in nats and their standard errors, `*n` each, which count what the paths that are shared do to
    them; draws are the first axis of the paths.

    **Raises:** ValueError where there is one path, or shapes do not fit. Source: Rainforth et al. (2018); Foster et al.
    (2020); for the derivative Mohamed et al. (2020), sections 4 and 5.
    """
    X = _as_sets(X)
    _checks.finite(X, "X")
    return Estimate(*nested(paths, X, likelihood, _checks.key(key), _checks.flag(contrastive, "contrastive")))


def bald(
    paths: Callable[..., Any], X: Float[AnyArray, "*n d"], likelihood: Callable[..., Any], support: AnyArray
) -> Float[Array, "*n"]:
    """Information of one discrete observation about f, H(E p) − E H(p) with p(y | f(x)) of each path (BALD).

    **Arguments:** `paths`; `X`: inputs, `*n d`; `likelihood`: maps values `s n` to a distribution with the same axes and a
    method `log_prob`: it is asked for a block of inputs at a time, their axes made one; `support`: all values that an
    observation can have, `c`: `jnp.arange(2)` of a binary one.

    **Returns:** in nats, `*n`, at most log c. The mean over S paths makes it too small, by at most about (c − 1)/2S.

    **Raises:** ValueError where shapes do not fit, or probabilities do not sum to 1 (at run time under jit). Source: Houlsby
    et al. (2011), equation 2.
    """
    X, support = as_inputs(X), jnp.asarray(support)
    if support.ndim != 1 or support.shape[0] < 2:
        raise ValueError(f"`support` must hold at least two observations along one axis; got shape {support.shape}.")
    value, error = _bald(paths, X, likelihood, support)
    whole = jnp.all(error < 1e-3)
    return _checks.require(
        whole, value, "The probabilities of `support` must sum to 1: give all values of an observation."
    )


def gaussian_bald(
    means: Float[AnyArray, "h *n"], variances: Float[AnyArray, "h *n"], *, n_nodes: int = 8
) -> Float[Array, "*n"]:
    """Information of one observation about the hyperparameters, H(Σ N(mᵢ, vᵢ)/h) − mean H(N(mᵢ, vᵢ)) (BALD).

    The entropy of the mixture is found by Gauss-Legendre quadrature between all mᵢ + k √vᵢ, k = −8, …, 8, so that components
    of any widths are resolved: ten digits of it, in O(h² n_nodes).

    **Arguments:** `means`, `variances`: of y under each draw of the hyperparameters, noise included, `h *n`: of an
    ensemble `ensemble.mean_path(X)` and `jnp.var(ensemble(X), axis=1, ddof=1) + noise_var`; `n_nodes`: of each interval.

    **Returns:** in nats, `*n`, at most log h.

    **Raises:** ValueError where shapes do not fit or a variance is not positive (at run time under jit). Source: Houlsby et
    al. (2011); Riis et al. (2022).
    """
    means, variances = _checks.floating(means, "means"), _checks.floating(variances, "variances")
    if means.ndim == 0 or means.shape != variances.shape:
        got = f"got {means.shape} and {variances.shape}"
        raise ValueError(f"`means` and `variances` must have the same shape (h, *n); {got}.")
    _checks.finite(means, "means")
    _checks.positive(variances, "variances")
    variances = required_positive(variances.astype(means.dtype), "variances")
    nodes, weights = np.polynomial.legendre.leggauss(_checks.count(n_nodes, "n_nodes"))
    return _gaussian_bald(means, variances, jnp.asarray(nodes, means.dtype), jnp.asarray(weights, means.dtype))


def _as_sets(X: Any) -> Float[Array, "*n q d"]:
    X = _checks.floating(X, "X")
    if X.ndim < 2:
        raise ValueError(f"`X` must have shape (*n, q, d), sets of q inputs; got {X.shape}. Pass `X[None, :]` for one.")
    if X.shape[-1] == 0 or X.shape[-2] == 0:
        raise ValueError(f"`X` must hold sets of at least one input of at least one dimension; got shape {X.shape}.")
    return X


@eqx.filter_jit
def _information_gain(paths: Any, X: Float[Array, "*n q d"], noise: Float[Array, "q"], correct_bias: bool) -> Estimate:
    q, d = X.shape[-2:]
    axes = draw_axes(paths, X)
    s = math.prod(axes)

    def one(values: Float[Array, "s q"]) -> Float[Array, "2"]:
        z = (values - jnp.mean(values, axis=0, keepdims=True)) / jnp.sqrt(noise.astype(values.dtype))[None, :]
        # I + Σ̂/noise = RᵀR without the product, which would lose half of the digits where inputs coincide. Large rows go
        # first, for reflections to keep the small ones (Higham 2002, section 19.4).
        whole = jnp.concatenate([z / math.sqrt(s - 1), jnp.eye(q, dtype=z.dtype)])
        orthogonal, upper = qr(whole)
        white = orthogonal[:s]
        gain = jnp.sum(jnp.log(jnp.abs(jnp.diagonal(upper))))
        if correct_bias:
            M = jnp.matmul(white.T, white, precision=jax.lax.Precision.HIGHEST)
            gain = gain + (jnp.trace(M) ** 2 + jnp.sum(M * M)) / (4 * (s - 1))
        # What a path adds: ½ zᵀ(I + Σ̂/noise)⁻¹z and a constant, the derivative of the gain in its weight.
        terms = 0.5 * (s - 1) * jnp.sum(white * white, axis=1)
        error = standard_error(terms, axes[0]) if s > 2 else jnp.full_like(gain, jnp.nan)
        return jnp.stack([gain, error])

    def block(rows: Float[Array, "b qd"]) -> Float[Array, "2 b"]:
        values = draws_at(paths, rows.reshape(rows.shape[0], q, d)).reshape(s, rows.shape[0], q)
        return jax.vmap(one, in_axes=1, out_axes=1)(values)

    sets = X.reshape(math.prod(X.shape[:-2]), q * d)
    gain, error = map_rows(block, sets, 2 * q * (s + q))
    return Estimate(gain.reshape(X.shape[:-2]), error.reshape(X.shape[:-2]))


@eqx.filter_jit
def _bald(
    paths: Any, X: Float[Array, "*n d"], likelihood: Any, support: Array
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """The information, and how far the probabilities are from a sum of 1."""

    def block(rows: Float[Array, "b d"]) -> Float[Array, "2 b"]:
        values = values_at(paths, rows)
        each = [log_prob(likelihood, values, jnp.full(values.shape, c, support.dtype)) for c in support]
        p = jnp.exp(jnp.stack(each))
        error = jnp.max(jnp.abs(jnp.sum(p, axis=0) - 1), axis=0)
        mean = jnp.mean(p, axis=1)
        value = -jnp.sum(_p_log_p(mean), axis=0) + jnp.mean(jnp.sum(_p_log_p(p), axis=0), axis=0)
        return jnp.stack([value, error])

    rows = X.reshape(math.prod(X.shape[:-1]), X.shape[-1])
    value, error = map_rows(block, rows, support.shape[0] * math.prod(draw_axes(paths, X)))
    return value.reshape(X.shape[:-1]), error.reshape(X.shape[:-1])


def _p_log_p(p: Float[Array, "..."]) -> Float[Array, "..."]:
    zero = p <= 0
    return jnp.where(zero, jnp.zeros_like(p), p * jnp.log(jnp.where(zero, jnp.ones_like(p), p)))


@jax.jit
def _gaussian_bald(
    means: Float[Array, "h *n"], variances: Float[Array, "h *n"], nodes: Float[Array, "q"], weights: Float[Array, "q"]
) -> Float[Array, "*n"]:
    steps = jnp.arange(-_REACH, _REACH + 1).astype(means.dtype)

    def at(pair: tuple[Float[Array, "h"], Float[Array, "h"]]) -> Float[Array, ""]:
        mean, variance = pair
        # About their own mean: a density is of differences.
        mean = mean - jnp.mean(mean)
        # Where the integral is cut to pieces does not change it.
        breaks = jax.lax.stop_gradient(mean[:, None] + jnp.sqrt(variance)[:, None] * steps[None, :])
        breaks = jnp.sort(breaks.reshape(-1))
        half = 0.5 * jnp.diff(breaks)
        y = (breaks[:-1] + half)[:, None] + half[:, None] * nodes[None, :]

        def integrand(y: Float[Array, "b 1"]) -> Float[Array, "b"]:
            # So far from all components there is nothing.
            square = jnp.minimum((y - mean[None, :]) ** 2 / variance[None, :], 1e4)
            densities = -0.5 * (square + jnp.log(2 * math.pi * variance)[None, :])
            log_density = jax.nn.logsumexp(densities, axis=1) - math.log(mean.shape[0])
            return -jnp.exp(log_density) * log_density

        parts = map_rows(integrand, y.reshape(-1, 1), mean.shape[0]).reshape(y.shape)
        mixture = jnp.sum(half * jnp.sum(weights[None, :] * parts, axis=1))
        return mixture - 0.5 * jnp.mean(jnp.log(2 * math.pi * math.e * variance))

    shape = means.shape[1:]
    flat = lambda x: x.reshape(x.shape[0], math.prod(shape)).T
    return jax.lax.map(jax.checkpoint(at, prevent_cse=False), (flat(means), flat(variances))).reshape(shape)
