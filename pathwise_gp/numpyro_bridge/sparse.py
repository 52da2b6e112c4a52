"""Sparse processes in NumPyro models, by a guide over their inducing values."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float

from .. import _checks
from .._functionals import Asked, dim_of
from .._guides import AbstractGuide
from .._guides.bound import check_guide, check_inputs, expected_log_prob, gauss_hermite, marginals
from .._guides.optimal import collapsed_bound
from .._priors import SparseGPPrior
from .._types import Numbers


def svgp_factor(
    name: str,
    prior: SparseGPPrior | Sequence[SparseGPPrior],
    guide: AbstractGuide | Sequence[AbstractGuide],
    X: Asked,
    y: Any,
    likelihood: Callable[..., Any],
    n_data: int | None = None,
    n_points: int | None = None,
    n_samples: int | None = None,
) -> Float[Array, ""]:
    """Adds the evidence lower bound of a sparse process to a model: Σᵢ E_q[log p(yᵢ | f(xᵢ))] − KL(q(u) ‖ p(u)).

    To be used with `SVI` and a NumPyro guide that is empty (`lambda *args: None`), or one over the hyperparameters; what is
    to be optimised is put in place by `learn`: `learn(guide, "*")`, `learn(prior, "kernel.*")`, inducing points by
    `learn(prior, "Z")`. The trained guide is `place(guide, svi_result.params, ignore_others=True)`, and its paths are those
    of `DecoupledPathwiseSampler`.

    **Arguments:**

    - `name`: of the site.
    - `prior`: with m inducing points; `guide`: of m inducing values. A `WhitenedGuide` is the easiest to optimise. For a
      likelihood of several latent processes, which are independent a priori and in the guide, a sequence of each.
    - `X`: inputs, `n d`; `y`: observations with a leading axis of n: all data, or a part of them drawn at random, such as
      the rows of a `numpyro.plate(..., subsample_size=n)`, of which the bound is an unbiased estimate. The plate is left
      before `svgp_factor` is called.
    - `likelihood`: maps latent values f, `q n`, to a NumPyro distribution of y with the axes of f: `lambda f:
      dist.Poisson(jnp.exp(f))`; of several processes one argument each: `lambda f, g: dist.Normal(f, jnp.exp(g))`.
    - `n_data`: how many observations there are in all; n unless given.
    - `n_points`: of the Gauss–Hermite rule for each latent value, 20 unless given; of p processes it takes the p-th power.
    - `n_samples`: takes the mean over so many random latent values of each point instead, which is unbiased, and as good in
      three or more processes; the key is NumPyro's, new for each step of `SVI`.

    **Returns:** the bound, a scalar; outside of a model too.

    **Raises:** ValueError where shapes do not fit each other or the prior, `y` is not finite, `likelihood` returns another
    shape, `n_data` is less than n, both `n_points` and `n_samples` are given, a kernel holds `White`, or the site stands in a
    plate. Source: Hensman et al. (2015), equation 18.
    """
    priors, guides = _as_tuple(prior), _as_tuple(guide)
    if len(priors) != len(guides) or not priors:
        raise ValueError(f"`prior` and `guide` must be as many; got {len(priors)} and {len(guides)}.")
    points = [check_inputs(p, X) for p in priors]
    for p, g in zip(priors, guides, strict=True):
        check_guide(g, p)
        if any(term.basis_size(dim_of(p.Z)) == 0 for term in p.kernel.terms(dim_of(p.Z))):
            raise ValueError("The kernel of `prior` holds `White`, which is noise: give it to `likelihood` instead.")
    n = points[0].size
    given, y = y, jnp.asarray(y)
    if y.ndim == 0 or y.shape[0] != n:
        raise ValueError(f"`y` must have a leading axis of {n}, one entry for each point of `X`; got shape {y.shape}.")
    if jnp.issubdtype(y.dtype, jnp.floating):
        y = _checks.observed(y, _checks.LEAVE_OUT, given=given)
    n_data = n if n_data is None else _checks.count(n_data, "n_data")
    if n_data < n:
        raise ValueError(f"`n_data` counts all observations; got {n_data}, but {n} are here.")
    rule = _rule(n_points, n_samples, len(priors), n)
    moments = [
        marginals(p, g, p.checked_factor().lower, rows) for p, g, rows in zip(priors, guides, points, strict=True)
    ]
    expected = expected_log_prob(likelihood, y, moments, *rule)
    divergence = sum(g.kl_divergence(p) for p, g in zip(priors, guides, strict=True))
    bound = n_data / n * jnp.sum(expected) - divergence
    numpyro.sample(name, _Bound(bound), obs=jnp.zeros((0,)))
    return bound


def _rule(n_points: int | None, n_samples: int | None, p: int, n: int) -> tuple[Any, Any]:
    """Nodes and weights of an expectation over p standard normal variables."""
    if n_samples is None:
        return gauss_hermite(_checks.count(20 if n_points is None else n_points, "n_points"), p)
    if n_points is not None:
        raise ValueError("Give `n_points` for quadrature or `n_samples` for random latent values, not both.")
    n_samples = _checks.count(n_samples, "n_samples")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no key, which is an error here
        key = numpyro.prng_key()
    if key is None:
        raise ValueError("`n_samples` needs a key: run the model under `SVI`, or `numpyro.handlers.seed`.")
    return jax.random.normal(key, (p, n_samples, n)), jnp.full((n_samples,), 1 / n_samples)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def sgpr_factor(
    name: str,
    prior: SparseGPPrior,
    X: Asked,
    y: Numbers,
    noise_var: Numbers,
) -> Float[Array, ""]:
    """Adds the collapsed bound of a sparse process to a model: the evidence lower bound at the best guide there is.

    It stands in for the log marginal likelihood of `gp_factor` at O(nm²), under NUTS as under `SVI`: where k(Z, Z) with the
    jitter is not positive definite it is −inf with zero derivatives. After inference `optimal_guide` gives that guide, and
    `DecoupledPathwiseSampler` its paths.

    **Arguments:** `name`: of the site; `prior`: with m inducing points; `X`: inputs, `n d`, or a functional; `y`: `n`;
    `noise_var`: variance of the noise, a scalar or one per point.

    **Returns:** the bound, a scalar. **Raises:** ValueError where shapes do not fit, values are not finite, `noise_var` is
    not positive, or the site stands in a plate. Source: Titsias (2009), equation 9.
    """
    bound = collapsed_bound(prior, X, y, noise_var)
    numpyro.sample(name, _Bound(bound), obs=jnp.zeros((0,)))
    return bound


class _Bound(dist.Distribution):
    """A site without values whose log density is a bound."""

    support = dist.constraints.real_vector  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    pytree_data_fields = ("bound",)

    def __init__(self, bound: Float[Array, ""], *, validate_args: bool | None = None):
        self.bound = bound
        super().__init__(batch_shape=(), event_shape=(0,), validate_args=validate_args)

    def expand(self, batch_shape: Any) -> Any:
        if tuple(batch_shape) == ():
            return self
        raise ValueError(
            "A bound cannot stand inside a plate: it would count once for each member. Leave the plate before "
            "it, and pass the rows that it drew."
        )

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        return jnp.zeros((*sample_shape, 0))

    def log_prob(self, value: Any) -> Float[Array, "..."]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return jnp.broadcast_to(self.bound, jnp.shape(value)[:-1])
