"""Policies in worlds that are drawn: each path of a model of the dynamics is one world, the same at every step."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from . import _checks
from ._paths.paired import at_own_inputs
from ._progress import ProgressBar
from ._types import AnyArray, Number


class Rollout(eqx.Module):
    """Trajectories of a policy in each world, made by `rollout`.

    **Fields:** `states`: `*s *b t+1 k`, the first of them the start; `actions`: `*s *b t a`; `rewards`: `*s *b t`; None where
    no reward was given.
    """

    states: Float[Array, "..."]
    actions: Float[Array, "..."]
    rewards: Float[Array, "..."] | Any  # None only where no reward was given, which a checker cannot know


def rollout(
    dynamics: Any,
    policy: Callable[..., Any] | Float[AnyArray, "t a"],
    x0: Float[AnyArray, "*b k"],
    n_steps: int,
    *,
    increments: bool = False,
    reward: Callable[..., Any] | None = None,
    progress: bool = False,
) -> Rollout:
    """Rolls a policy out in worlds drawn from a model of the dynamics, x_{t+1} = f(x_t, π(x_t)) with one f per trajectory.

    A world is a path, so that it answers alike when a state comes back, and the trajectories of one world from several
    starts belong together. Noise drawn anew at every step has not that: its errors average out along a trajectory, and the
    spread of what is predicted far ahead is too small. Each path is evaluated at its own states only, so that a step of S
    worlds costs S values; derivatives go through all of it.

    **Arguments:**

    - `dynamics`: k batches of paths (or ensembles), one for each entry of the state, all of axes `*s`: path i of one belongs
      to path i of the others; or all of them at once (`paths.outputs`); or one function that maps `*n k+a`, states
      followed by actions, to `*s *n k`. A function with axes `*s` and no method `paired` is asked for all its paths
      at all states, of which each keeps its own: S² values a step.
    - `policy`: maps a state, `k`, to an action, `a`; or actions known beforehand, `t a`.
    - `x0`: start, `k`, or several, `*b k`, each of which is used in every world.
    - `n_steps`: t.
    - `increments`: whether the dynamics give x_{t+1} − x_t instead of x_{t+1}.
    - `reward`: maps a state, an action and the next state to a scalar.
    - `progress`: whether a bar of tqdm shows the steps.

    Policy and reward are compiled in: pass the same function again, or an Equinox module whose arrays change, to compile
    nothing anew.

    **Returns:** the trajectories.

    **Raises:** ValueError where the shapes of states, actions and dynamics do not fit each other, or `x0` is not finite.
    Source: Deisenroth, Fox & Rasmussen (2015) for the setting; Wilson et al. (2020) for paths as simulators.
    """
    n_steps = _checks.count(n_steps, "n_steps")
    increments = _checks.flag(increments, "increments")
    x0 = _checks.floating(x0, "x0")
    if x0.ndim == 0 or x0.shape[-1] == 0:
        raise ValueError(f"`x0` must have a last axis of states; got shape {x0.shape}.")
    _checks.finite(x0, "x0")
    models = tuple(dynamics) if isinstance(dynamics, (tuple, list)) else dynamics
    if isinstance(models, tuple) and len(models) != x0.shape[-1]:
        raise ValueError(
            f"`dynamics` must hold one batch of paths for each of the {x0.shape[-1]} entries of `x0`; got {len(models)}."
        )
    if not all(map(callable, models if isinstance(models, tuple) else (models,))):
        raise ValueError(f"`dynamics` must be a function, or a sequence of functions; got {dynamics!r}.")
    if not callable(policy):
        policy = _checks.floating(policy, "policy")
        if policy.ndim != 2 or policy.shape[0] != n_steps:
            raise ValueError(f"`policy`, as actions, must have shape ({n_steps}, a); got {policy.shape}.")
        _checks.finite(policy, "policy")
    if reward is not None and not callable(reward):
        raise ValueError(f"`reward` must be a function of state, action and next state; got {reward!r}.")
    return _rollout(models, policy, x0, n_steps, increments, reward, _checks.flag(progress, "progress"))


def returns(rewards: Float[AnyArray, "*s t"], discount: Number = 1.0) -> Float[Array, "*s"]:
    """Discounted returns, Σ_t γᵗ r_t.

    **Arguments:** `rewards`: `*s t`; `discount`: γ, between 0 and 1. **Returns:** `*s`. **Raises:** ValueError where
    `rewards` has no axis of steps, or `discount` is not such a scalar.
    """
    rewards = _checks.floating(rewards, "rewards")
    if rewards.ndim == 0:
        raise ValueError("`rewards` must have a last axis of steps; got a scalar.")
    discount = _checks.floating(discount, "discount").astype(rewards.dtype)
    if discount.shape != () or (_checks.is_concrete(discount) and not 0 <= float(discount) <= 1):
        raise ValueError(f"`discount` must be a scalar between 0 and 1; got {discount}.")
    # Horner's rule has a derivative at a discount of 0.
    total, _ = jax.lax.scan(
        lambda later, now: (now + discount * later, None),
        jnp.zeros(rewards.shape[:-1], rewards.dtype),
        jnp.moveaxis(rewards, -1, 0),
        reverse=True,
    )
    return total


@eqx.filter_jit
def _rollout(
    models: Any, policy: Any, x0: Float[Array, "*b k"], n_steps: int, increments: bool, reward: Any, progress: bool
) -> Rollout:
    k, starts = x0.shape[-1], x0.shape[:-1]
    start = x0.reshape(math.prod(starts), k)
    actions = None if callable(policy) else policy.astype(x0.dtype)
    act = lambda state: jnp.asarray(policy(state))
    first = jax.eval_shape(act, jax.ShapeDtypeStruct((k,), x0.dtype)) if actions is None else actions[0]
    if len(first.shape) != 1 or not jnp.issubdtype(first.dtype, jnp.floating):
        raise ValueError(f"`policy` must map a state, {(k,)}, to an action, (a,); got {first.dtype} of {first.shape}.")
    worlds = _worlds(models, k, first.shape[0], x0.dtype)

    def pay(state: Float[Array, "k"], action: Float[Array, "a"], following: Float[Array, "k"]) -> Float[Array, ""]:
        value = jnp.asarray(reward(state, action, following))
        if value.shape != ():
            raise ValueError(f"`reward` must give a scalar; got shape {value.shape}.")
        return value.astype(state.dtype)

    bar = ProgressBar(n_steps, "step") if progress else None

    def step(states: Float[Array, "s b k"], at: Any) -> tuple[Array, tuple[Any, ...]]:
        number, given = at
        if bar is not None:
            bar.report(number, number == n_steps)
        if actions is None:
            chosen = jax.vmap(jax.vmap(act))(states).astype(states.dtype)
        else:
            chosen = jnp.broadcast_to(given, (*states.shape[:2], *given.shape))
        inputs = jnp.concatenate([states, chosen], axis=-1)
        values = _values(models, inputs.reshape(*worlds, *inputs.shape[1:]), worlds)
        wanted = (*worlds, *states.shape[1:])
        if values.shape != wanted:
            raise ValueError(
                f"`dynamics` must map inputs of shape {inputs.shape[1:]} to values of shape {wanted} of paths with axes "
                f"{worlds}; got {values.shape}. Functions take any number of inputs, `*n d`."
            )
        following = values.reshape(states.shape).astype(states.dtype)
        following = states + following if increments else following
        rewards = None if reward is None else jax.vmap(jax.vmap(pay))(states, chosen, following)
        return following, (following, chosen, rewards)

    begin = jnp.broadcast_to(start, (math.prod(worlds), *start.shape))
    _, (states, chosen, rewards) = jax.lax.scan(step, begin, (1 + jnp.arange(n_steps), actions))

    def put(values: Float[Array, "t s b ..."]) -> Float[Array, "..."]:
        values = jnp.moveaxis(values, 0, 2)
        return values.reshape(*worlds, *starts, *values.shape[2:])

    states = jnp.concatenate([begin[None], states])
    return Rollout(put(states), put(chosen), None if rewards is None else put(rewards))


def _worlds(models: Any, k: int, a: int, dtype: Any) -> tuple[int, ...]:
    """The axes `*s` of the dynamics, from their values at one input."""
    several = isinstance(models, tuple)
    point = jax.ShapeDtypeStruct((k + a,), dtype)
    found = []
    for model in models if several else (models,):
        shape = eqx.filter_eval_shape(lambda model, x: model(x), model, point).shape
        outputs = () if several else (k,)
        worlds = getattr(model, "shape", shape[: len(shape) - len(outputs)])
        if shape != (*worlds, *outputs):
            wanted = "one value" if several else f"{k} values, one for each entry of `x0`,"
            raise ValueError(
                f"`dynamics` must give {wanted} of each path at one input, {(k + a,)}; got shape {shape} for paths of axes "
                f"{worlds}. Paths of one output go in a sequence."
            )
        found.append(worlds)
    if len(set(found)) > 1:
        raise ValueError(f"All of `dynamics` must have the same axes of paths; got {found}.")
    return found[0]


def _values(models: Any, X: Float[Array, "..."], worlds: tuple[int, ...]) -> Float[Array, "..."]:
    """Of each path at inputs of its own, `*s b d`: `*s b k`."""
    if isinstance(models, tuple):
        return jnp.stack([at_own_inputs(model, X, worlds) for model in models], axis=-1)
    return at_own_inputs(models, X, worlds)
