"""What an observation adds to the best posterior mean."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .. import _checks, _fields
from .._numerics.blocks import map_rows
from .._numerics.lapack import cholesky, solve_lower
from .._numerics.linalg import CholeskyFactor
from .._numerics.sobol import sobol
from .._types import AnyArray, Key
from ..optimise import Optimum
from ..optimise.mixed import as_grid, Grid
from ..optimise.problem import functions, Problem, Sets, sets_of, sets_that_meet
from ..optimise.search import as_sets, search
from .base import AbstractAcquisition, gain_of, largest


class KnowledgeGradient(AbstractAcquisition):
    """E max_a μ'(a) − max_a μ(a): what an observation adds to the largest posterior mean of g over a finite set.

    Each path makes the observation that it would give, y_i = g_i(x) + ε_i, and μ' is the mean given y_i under the
    covariances of the paths themselves: μ'(a) = μ(a) + C(a, x)(V(x) + σ²)⁻¹(y_i − μ(x)). The set is `candidates` and x; the
    value is never negative. Covariances of a sample need many paths, some hundred, under each draw of the hyperparameters:
    moments are those over the last path axis, and what is before it is averaged. `OneShotKnowledgeGradient` has a continuum
    in place of the set.

    **Fields:**

    - `paths`: of f, with one path axis or more.
    - `candidates`: the points among which the best mean is sought, `m d`, fixed.
    - `key`: of ε, the same at every x; `noise_var`: σ², a positive scalar.
    - `maximise`: whether large values of f are sought.

    **Raises:** ValueError where shapes do not fit, `noise_var` is not positive, or the last path axis has one path. Source:
    Frazier et al. (2009); Scott et al. (2011).
    """

    paths: Callable[..., Any]
    candidates: Float[Array, "m d"] = eqx.field(converter=_fields.points("candidates"))
    key: Key = eqx.field(converter=_checks.key)
    noise_var: Float[Array, ""] = eqx.field(converter=_fields.scalar("noise_var", positive=True))
    maximise: bool = eqx.field(static=True, default=False, converter=_fields.flag("maximise"))

    def of(self, X: Float[Array, "n q d"]) -> Float[Array, "n"]:
        n, q, m = *X.shape[:2], self.candidates.shape[0]
        there = self.paths(self.candidates)
        if there.ndim < 2 or there.shape[-2] < 2:
            raise ValueError(f"`paths` must have a last path axis of two or more; candidates gave {there.shape}.")
        s = there.shape[-2]
        there = (there if self.maximise else -there).reshape(-1, s, 1, m)
        here = gain_of(self.paths, X, self.maximise).reshape(-1, s, n, q)
        gain = jnp.concatenate([jnp.broadcast_to(there, (*here.shape[:3], m)), here], axis=3)
        mean = jnp.mean(gain, axis=1)
        off = gain - mean[:, None]
        noise = jax.random.normal(self.key, (s, q), gain.dtype) * jnp.sqrt(self.noise_var.astype(gain.dtype))
        seen = off[..., m:] + (noise - jnp.mean(noise, axis=0, keepdims=True))[None, :, None, :]
        covariance = jnp.einsum("gsna,gsnq->gnaq", off, off[..., m:]) / (s - 1)
        observed = covariance[:, :, m:] + self.noise_var.astype(gain.dtype) * jnp.eye(q, dtype=gain.dtype)[None, None]
        solve = lambda A, B: CholeskyFactor(cholesky(A)).solve(B)
        weights = jnp.swapaxes(jax.vmap(jax.vmap(solve))(observed, jnp.einsum("gsnq->gnsq", seen)), 2, 3)
        updated = mean[..., None] + jnp.einsum("gnaq,gnqs->gnas", covariance, weights)
        return jnp.mean(jnp.mean(largest(updated, 2), axis=2) - largest(mean, 2), axis=0)

    def width(self, q: int, samples: int) -> int:
        return 2 * samples * (q + self.candidates.shape[0])


# Candidates for the maxima of the one-shot form, from which their search starts.
_CANDIDATES = 1024
# Sets of inputs that are completed at once.
_BATCH = 16
# Entries taken for those of a row's temporaries, which a covariance that is given does not tell.
_WIDTH = 2**14


class OneShotKnowledgeGradient(eqx.Module):
    """E max_a μ'(a) − max_a μ(a) over all a of a box, as one maximisation over what is observed and over the maxima.

    Each of s fantasies of the q observations has a maximum of its own, a_i, among the inputs: the value is the mean over the
    fantasies of the posterior mean of g given fantasy i, at a_i. Its maximum over (x, a_1, …, a_s) is that of the knowledge
    gradient, with the same fantasies at every x. Moments are those of one posterior; where hyperparameters are drawn,
    average several of these.

    **Fields:**

    - `mean`, `covariance`: of the posterior, which map `*n d` to `*n`, and `*n d` with `*m d` to `*n *m`: `posterior.mean`
      and `posterior.covariance`.
    - `key`: of the fantasies.
    - `noise_var`: σ², a positive scalar.
    - `best`: the best posterior mean of f, a scalar: the value is that of μ' less that of `best`. It moves no maximum.
    - `q`: observations made together; `n_fantasies`: s, scrambled Sobol points made normal.
    - `maximise`: whether large values of f are sought.

    **Raises:** ValueError where shapes do not fit, `noise_var` is not positive, or a count is less than 1. Source: Balandat
    et al. (2020), section 4.2; Wu & Frazier (2016) for batches.
    """

    mean: Callable[..., Any]
    covariance: Callable[..., Any]
    key: Key = eqx.field(converter=_checks.key)
    noise_var: Float[Array, ""] = eqx.field(converter=_fields.scalar("noise_var", positive=True))
    best: Float[Array, ""] = eqx.field(converter=_fields.scalar("best"))
    q: int = eqx.field(static=True, default=1, converter=_fields.count("q"))
    n_fantasies: int = eqx.field(static=True, default=32, converter=_fields.count("n_fantasies"))
    maximise: bool = eqx.field(static=True, default=False, converter=_fields.flag("maximise"))

    def __call__(self, X: Float[AnyArray, "*n v"]) -> Float[Array, "*n"]:
        """The value of observations and maxima.

        **Arguments:** `X`: the coordinates of q inputs and of s maxima, one after the other, v = (q + s) d.

        **Returns:** `*n`. **Raises:** ValueError where the last axis of `X` is not a multiple of q + s.
        """
        return _one_shot(self, self._split(X))

    def points(self, X: Float[AnyArray, "*n v"]) -> Float[Array, "*n q d"]:
        """The inputs to be observed. **Arguments:** `X`: as of a call. **Returns:** `*n q d`. **Raises:** as a call."""
        return self._split(X)[..., : self.q, :]

    def complete(self, X: Float[AnyArray, "*n q d"], candidates: Float[AnyArray, "m d"]) -> Float[Array, "*n v"]:
        """Inputs with the best of some candidates for the maximum of each fantasy: at these a call gives the knowledge
        gradient over a finite set, and from these the maximisation of it starts.

        **Arguments:** `X`: the inputs to be observed, `*n q d`; `candidates`: `m d`. **Returns:** `*n v`. **Raises:**
        ValueError where shapes do not fit.
        """
        X = _checks.floating(X, "X")
        candidates = _checks.inputs(
            _checks.points(candidates, "candidates"), X.shape[-1] if X.ndim else 0, "candidates"
        )
        if X.ndim < 2 or X.shape[-2] != self.q:
            raise ValueError(f"`X` must have shape (*n, {self.q}, d); got {X.shape}.")
        return _complete(self, X, candidates.astype(X.dtype), jnp.ones(candidates.shape[0], bool))

    def optimise(
        self,
        bounds: Float[AnyArray, "2 d"],
        key: Key,
        *,
        n_screen: int = 256,
        n_restarts: int = 8,
        constraints: Callable[..., Any] | Sequence[Callable[..., Any]] = (),
        joint_constraints: Callable[..., Any] | Sequence[Callable[..., Any]] = (),
        candidates: Float[AnyArray, "..."] | None = None,
        discrete: Mapping[Any, Any] | None = None,
        **options: Any,
    ) -> Optimum:
        """The inputs at which the knowledge gradient is largest in a box.

        **Arguments:**

        - `bounds`: `2 d`; `key`: of the starts.
        - `n_screen`: sets of q inputs that are screened, each with its maxima among 1024 points; `n_restarts`: starts.
        - `constraints`: one function or several g(x) ≤ 0, which map `*n d` to `*n`, of each input that is observed and of the
          maxima, as a maximum is what is used in the end.
        - `joint_constraints`: h(X) ≤ 0 of the q inputs that are observed, which map `*n q d` to `*n`.
        - `candidates`: further inputs that are screened, `m d`, of which sets of q are made, or such sets, `m q d`.
        - `discrete`: as of `optimise.minimise`, of the inputs that are observed and of the maxima.
        - `options`: the others of `optimise.maximise`.

        **Returns:** the optimum, whose `points` are `q d`, and `feasible` says what holds of these; it has converged only
        where the constraints hold for the maxima too. **Raises:** as `AbstractAcquisition.optimise`.
        """
        bounds, n_screen = _checks.bounds(bounds), _checks.count(n_screen, "n_screen")
        constraints = functions(constraints, "constraints")
        if candidates is not None:
            candidates = as_sets(candidates, self.q, bounds.shape[1]).astype(bounds.dtype)
        sets = Sets(self.q + self.n_fantasies, self.q, functions(joint_constraints, "joint_constraints"))
        of_starts, of_search = jax.random.split(key)
        grid = None if discrete is None else as_grid(discrete, bounds)
        design = _starts(self, bounds, of_starts, constraints, candidates, grid, sets, n_screen)
        options |= {"n_screen": n_screen, "n_restarts": n_restarts, "constraints": constraints, "discrete": discrete}
        return search(self, bounds, of_search, True, sets._replace(design=design), **options)

    def _split(self, X: Any) -> Float[Array, "*n p d"]:
        X, inputs = _checks.floating(X, "X"), self.q + self.n_fantasies
        if X.ndim == 0 or X.shape[-1] == 0 or X.shape[-1] % inputs:
            raise ValueError(
                f"The last axis of `X` must hold the coordinates of {self.q} inputs and {self.n_fantasies} maxima, one after "
                f"the other; got shape {X.shape}."
            )
        return X.reshape(*X.shape[:-1], inputs, X.shape[-1] // inputs)


def _points_in(bounds: Float[Array, "2 d"], key: Key, n: int, q: int, grid: Grid | None) -> Float[Array, "n q d"]:
    """Sets of q scrambled Sobol points in a box."""
    U = (sobol(key, n, q * bounds.shape[1]).astype(bounds.dtype) / 2.0**32).reshape(n, q, bounds.shape[1])
    X = bounds[:1, None] + (bounds[1] - bounds[0])[None, None] * U
    return X if grid is None else grid.place(X, U)


@eqx.filter_jit
def _starts(
    acquisition: OneShotKnowledgeGradient,
    bounds: Float[Array, "2 d"],
    key: Key,
    constraints: tuple[Any, ...],
    candidates: Float[Array, "..."] | None,
    grid: Grid | None,
    sets: Sets,
    n_screen: int,
) -> Float[Array, "m p d"]:
    """Sets of inputs, those given among them, each with the best of the points that are allowed for its maxima."""
    of_points, of_maxima, of_sets, of_candidates = jax.random.split(key, 4)
    X = _points_in(bounds, of_points, n_screen, acquisition.q, grid)
    among = _points_in(bounds, of_maxima, _CANDIDATES, 1, grid)
    allowed = jnp.ones(_CANDIDATES, bool)
    if constraints:
        problem = Problem(acquisition, constraints, sets, bounds.shape[1], bounds.dtype)
        X = sets_that_meet(problem.allows(X), of_sets, X)
        allowed = problem.allows(among)[:, 0]
        allowed = allowed | ~jnp.any(allowed)
    if candidates is not None:
        X = jnp.concatenate([X, sets_of(candidates, of_candidates, X) if candidates.ndim == 2 else candidates])
    return _complete(acquisition, X, among[:, 0], allowed).reshape(-1, sets.inputs, bounds.shape[1])


def _fantasies(acquisition: OneShotKnowledgeGradient, x: Float[Array, "q d"]) -> tuple[Array, Array]:
    """A root of the covariance of q observations, and what L⁻¹(y − μ) is in each fantasy."""
    s, q = acquisition.n_fantasies, acquisition.q
    eps = jnp.finfo(x.dtype).eps
    normals = jax.scipy.special.ndtri(jnp.clip(sobol(acquisition.key, s, q).astype(x.dtype) / 2.0**32, eps, 1 - eps))
    noise = acquisition.noise_var.astype(x.dtype) * jnp.eye(q, dtype=x.dtype)
    return cholesky(_between(acquisition, x, x) + noise), normals


def _between(acquisition: OneShotKnowledgeGradient, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Array:
    found = jnp.asarray(acquisition.covariance(X, Z))
    if found.shape != (X.shape[0], Z.shape[0]):
        raise ValueError(
            f"`covariance` must map `n d` and `m d` to `n m`: of {X.shape} and {Z.shape} it made {found.shape}."
        )
    return found.astype(X.dtype)


def _means(acquisition: OneShotKnowledgeGradient, X: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    """Posterior means of the gain beyond the best."""
    found = jnp.asarray(acquisition.mean(X))
    if found.shape != X.shape[:-1]:
        raise ValueError(f"`mean` must map `*n d` to `*n`: of inputs {X.shape} it made {found.shape}.")
    found = found.astype(X.dtype) - acquisition.best.astype(X.dtype)
    return found if acquisition.maximise else -found


def _learnt(
    acquisition: OneShotKnowledgeGradient, x: Float[Array, "q d"], A: Float[Array, "m d"]
) -> Float[Array, "s m"]:
    """What the fantasies at x add to the posterior mean at A. Normal laws are symmetric: f and −f have the same."""
    root, normals = _fantasies(acquisition, x)
    columns = solve_lower(root, _between(acquisition, x, A))
    return jnp.matmul(normals, columns, precision=jax.lax.Precision.HIGHEST)


@eqx.filter_jit
def _one_shot(acquisition: OneShotKnowledgeGradient, X: Float[Array, "*n p d"]) -> Float[Array, "*n"]:
    q, d = acquisition.q, X.shape[-1]

    def block(rows: Float[Array, "b v"]) -> Float[Array, "b"]:
        inputs = rows.reshape(rows.shape[0], -1, d)
        added = jax.vmap(lambda one: jnp.diagonal(_learnt(acquisition, one[:q], one[q:])))(inputs)
        return jnp.mean(_means(acquisition, inputs[:, q:]) + added, axis=1)

    return map_rows(block, X.reshape(-1, X.shape[-2] * d), _WIDTH).reshape(X.shape[:-2])


@eqx.filter_jit
def _complete(
    acquisition: OneShotKnowledgeGradient,
    X: Float[Array, "*n q d"],
    candidates: Float[Array, "m d"],
    allowed: Bool[Array, "m"],
) -> Array:
    means = jnp.where(allowed, _means(acquisition, candidates), -jnp.inf)

    def one(x: Float[Array, "q d"]) -> Float[Array, "v"]:
        best = jnp.argmax(means[None] + _learnt(acquisition, x, candidates), axis=1)
        return jnp.concatenate([x, candidates[best]]).reshape(-1)

    sets = X.reshape(-1, *X.shape[-2:])
    made = jax.lax.map(one, sets, batch_size=min(_BATCH, sets.shape[0]))
    return made.reshape(*X.shape[:-2], made.shape[-1])
