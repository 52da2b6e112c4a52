"""Natural gradients for guides over inducing values, as an optimiser."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from .. import _checks
from .._numerics.lapack import cholesky
from .._numerics.linalg import inner, inverse_factor
from .._types import Number

_MEAN, _ROOT = "mean", "scale_tril"
_HALVINGS = 30


def natural_gradients(optimiser: Any, guides: str | Iterable[str] = "WhitenedGuide", *, step_size: Number = 0.1) -> Any:
    """An optimiser for `SVI` that moves guides by natural gradients, and all other parameters by an optimiser of yours.

    The step is one of gradient descent for the natural parameters of q(u), in the metric of the Kullback–Leibler divergence:
    the same for a `WhitenedGuide` and a `FullRankGuide`. With a Gaussian likelihood and all data a step of size 1 ends in
    the optimal guide, from anywhere; with parts of the data the step size is how much of it is replaced.

    **Arguments:**

    - `optimiser`: an optax `GradientTransformation`, for what is learnt besides.
    - `guides`: the name of the guide whose `mean` and `scale_tril` have been given to `learn`, or several.
    - `step_size`: at most 1; about 0.1 for parts of the data and for other likelihoods. Where a step would leave
      the precision of q(u) indefinite it is halved until it does not.

    **Returns:** an optax `GradientTransformation`, to be given to `SVI`.

    **Raises:** ValueError where `optimiser` is none, `step_size` is not between 0 and 1, or a guide's parameters are not
    learnt. Source: Hensman et al. (2013), section 3.3; Salimbeni et al. (2018), section 2.3.
    """
    import optax  # as much again to import as the package

    if not (callable(getattr(optimiser, "init", None)) and callable(getattr(optimiser, "update", None))):
        raise ValueError(f"`optimiser` must be an optax GradientTransformation; got {type(optimiser).__name__}.")
    step = float(_checks.floating(step_size, "step_size"))
    if not 0 < step <= 1:
        raise ValueError(f"`step_size` must be above 0 and at most 1; got {step}.")
    names = (guides,) if isinstance(guides, str) else tuple(guides)
    taken = {f"{name}.{field}" for name in names for field in (_MEAN, _ROOT)}
    others = lambda tree: {site: leaf for site, leaf in tree.items() if site not in taken}

    def init(params: dict[str, Any]) -> Any:
        if missing := sorted(taken - set(params)):
            raise ValueError(
                f"`guides` needs the parameter(s) {', '.join(missing)}, which the model does not learn; it learns "
                f'{", ".join(params)}. Give the guide to `learn`, with "*", under the name given here.'
            )
        return optimiser.init(others(params))

    def update(gradients: dict[str, Any], state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = optimiser.update(others(gradients), state, others(params))
        for name in names:
            mean, root = f"{name}.{_MEAN}", f"{name}.{_ROOT}"
            moved = _step(params[mean], params[root], gradients[mean], gradients[root], step)
            updates = {**updates, mean: moved[0] - params[mean], root: moved[1] - params[root]}
        return updates, state

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def _step(
    mean: Float[Array, "m"],
    free: Float[Array, "k"],
    mean_gradient: Float[Array, "m"],
    free_gradient: Float[Array, "k"],
    step: float,
) -> tuple[Float[Array, "m"], Float[Array, "k"]]:
    """The mean and the unconstrained root of a covariance S after a step.

    With θ₁ = S⁻¹μ, θ₂ = −½S⁻¹ and the expectation parameters η₁ = μ, η₂ = S + μμᵀ the natural gradient for θ is the gradient
    for η: ∂/∂η₁ = ∂/∂μ − 2(∂/∂S)μ and ∂/∂η₂ = ∂/∂S (Salimbeni et al. 2018, section 2.3).
    """
    to_root = dist.biject_to(constraints.lower_cholesky)
    root = to_root(free)
    covariance = inner(root, root)
    # The gradient for S, symmetric, from that for what SVI holds, which is a function of S.
    _, pull_back = jax.vjp(lambda S: to_root.inv(cholesky((S + S.T) / 2)), covariance)
    (gradient,) = pull_back(free_gradient)
    inverse_root = inverse_factor(covariance)  # S⁻¹ = V Vᵀ
    precision = inner(inverse_root, inverse_root)
    times = lambda A, x: inner(A, x[None, :])[:, 0]

    def moved(size: Float[Array, ""]) -> Float[Array, "m m"]:
        return inverse_factor(precision + 2 * size * gradient)

    def failed(state: tuple[Array, Array, Array]) -> Array:
        _, new, halvings = state
        return ~jnp.all(jnp.isfinite(new)) & (halvings < _HALVINGS)

    def halve(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        size, _, halvings = state
        return size / 2, moved(size / 2), halvings + 1

    size = jnp.asarray(step, mean.dtype)
    size, new, _ = jax.lax.while_loop(failed, halve, (size, moved(size), jnp.zeros((), int)))
    first = times(precision, mean) - size * (mean_gradient - 2 * times(gradient, mean))
    return times(new, times(new.T, first)), to_root.inv(new)
