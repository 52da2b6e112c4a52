"""Trajectories against matrix powers, and against paths iterated by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import CALLS, Counted

import pathwise_gp as pgp
from pathwise_gp._paths.ensemble import map_draws
from pathwise_gp.rollout import returns, rollout

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
N, K, A, S, T = 6, 2, 1, 3, 4
X = RNG.normal(size=(N, K + A))
Y = np.stack([np.sin(X @ [0.5, 0.2, 0.3]), np.cos(X @ [0.1, 0.6, -0.4])], axis=1)
X0 = jnp.asarray([0.4, -0.3])
GAIN = jnp.asarray([[-0.3, 0.2]])


def posterior(kernel, j):
    return pgp.GPPrior(kernel=kernel, X=X, jitter=1e-6).condition(Y[:, j], 0.05)


def batches(kernel, n_paths=S):
    samplers = [pgp.PathwiseSampler(posterior(kernel, j), n_features=16) for j in range(K)]
    return [sampler.sample_paths(key, n_paths) for sampler, key in zip(samplers, jax.random.split(KEY), strict=True)]


class Gain(eqx.Module):
    matrix: jax.Array

    def __call__(self, x):
        return self.matrix @ x


POLICY = Gain(GAIN)
RBF = batches(pgp.RBF(1.0, 0.9))
GRID = pgp.GPPrior(pgp.Coregionalised(pgp.RBF(1.0, 0.9), np.ones((K, 1)), np.ones(K)), pgp.AllOutputs(X, K))
MULTI = pgp.PathwiseSampler(GRID.condition(Y, 0.05), 48).sample_paths(KEY, S).outputs


def cost(x, u, following, xp=jnp):
    return -xp.sum(x * x) - 0.1 * xp.sum(u * u) + 0.01 * following[0]


def ensemble_of(j):
    """Two draws of the lengthscale, with S paths each."""

    def draw(lengthscale, key):
        return pgp.PathwiseSampler(posterior(pgp.RBF(1.0, lengthscale), j), n_features=16).sample_paths(key, S)

    arguments = jnp.asarray([0.8, 1.1]), jax.random.split(jax.random.fold_in(KEY, j))
    drawn = eqx.filter_jit(lambda arguments: map_draws(draw, tuple(a[0] for a in arguments), arguments))
    return pgp.PathEnsemble(*drawn(arguments))


def by_hand(step, x0, n_steps):
    states, actions = [np.asarray(x0)], []
    for _ in range(n_steps):
        actions.append(np.asarray(GAIN) @ states[-1])
        states.append(np.asarray(step(np.concatenate([states[-1], actions[-1]]))))
    return np.stack(states), np.stack(actions)


@pytest.mark.parametrize("increments", [False, True])
def test_linear_worlds_are_matrix_powers(increments):
    paths = batches(pgp.Linear(0.5))
    found = rollout(paths, POLICY, X0, T, increments=increments)
    assert found.states.shape == (S, T + 1, K)
    assert found.actions.shape == (S, T, A)
    assert found.rewards is None
    # f(x, u) = A x + B u in each world; under u = G x a step multiplies by A + B G.
    slope = eqx.filter_jit(lambda path: jax.jacobian(path)(jnp.zeros(K + A)))
    matrices = np.stack([slope(path) for path in paths], axis=1)
    closed = matrices[:, :, :K] + matrices[:, :, K:] @ np.asarray(GAIN) + (np.eye(K) if increments else 0)
    states = np.asarray(found.states)
    for world in range(S):
        powers = [np.linalg.matrix_power(closed[world], t) @ np.asarray(X0) for t in range(T + 1)]
        np.testing.assert_allclose(states[world], powers, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.actions, states[:, :-1] @ np.asarray(GAIN).T, rtol=1e-12)


def test_a_world_is_one_function_at_every_step():
    found = jax.tree.map(np.asarray, rollout(RBF, POLICY, X0, T, reward=cost))
    for world in range(S):
        states, actions = by_hand(lambda xu, w=world: [np.asarray(p(xu))[w] for p in RBF], X0, T)
        np.testing.assert_allclose(found.states[world], states, rtol=1e-9)
        np.testing.assert_allclose(found.actions[world], actions, rtol=1e-9)
        rewards = [cost(states[t], actions[t], states[t + 1], np) for t in range(T)]
        np.testing.assert_allclose(found.rewards[world], rewards, rtol=1e-9)
    # Worlds differ, and known actions are the policy that chose them.
    assert np.ptp(found.states[:, -1, 0]) > 1e-3
    known = rollout(RBF, found.actions[0], X0, T)
    np.testing.assert_allclose(known.states[0], found.states[0], rtol=1e-9)


def test_every_kind_of_dynamics():
    x0 = np.asarray(X0)
    several = np.stack([x0, x0 + 0.5, x0 - 1])
    expected = np.asarray(rollout(RBF, POLICY, several, T).states)
    assert expected.shape == (S, 3, T + 1, K)
    np.testing.assert_allclose(expected[:, 1], rollout(RBF, POLICY, several[1], T).states, rtol=1e-9)
    # Any function; of one world; of several outputs; of ensembles.
    together = lambda Z: jnp.stack([path(Z) for path in RBF], axis=-1)
    function = rollout(together, POLICY, several, T)
    np.testing.assert_allclose(function.states, expected, rtol=1e-9)
    one = rollout([path[0] for path in RBF], POLICY, several, T)
    np.testing.assert_allclose(one.states, expected[0], rtol=1e-9)
    outputs = np.asarray(rollout(MULTI, POLICY, X0, T).states)
    for world in range(S):
        multi = by_hand(lambda xu, w=world: np.asarray(MULTI(xu))[w], X0, T)[0]
        np.testing.assert_allclose(outputs[world], multi, rtol=1e-9)
    ensembles = [ensemble_of(j) for j in range(K)]
    drawn = rollout(ensembles, POLICY, several, T)
    assert drawn.states.shape == (2, S, 3, T + 1, K)
    states = np.asarray(drawn.states)
    for draw in range(2):
        each = rollout([ensemble[draw] for ensemble in ensembles], POLICY, several, T)
        np.testing.assert_allclose(states[draw], each.states, rtol=1e-8)
    nested = [pgp.stack([path, path[::-1]]) for path in RBF]
    np.testing.assert_allclose(np.asarray(rollout(nested, POLICY, X0, T).states)[1, 0], expected[2, 0], rtol=1e-9)


def test_a_bar_shows_the_steps(capsys):
    quiet = rollout(RBF, POLICY, X0, T)
    assert capsys.readouterr().err == ""
    for _ in range(2):  # each run of the compiled code has its own
        shown = rollout(RBF, POLICY, X0, T, progress=True)
        jax.effects_barrier()
        assert f"{T}/{T}" in capsys.readouterr().err
        np.testing.assert_array_equal(shown.states, quiet.states)


def value(policy, dynamics, discount=0.9):
    return returns(rollout(dynamics, policy, X0, T, reward=cost).rewards, discount).mean()


@pytest.mark.parametrize("dynamics", [RBF, MULTI], ids=["paths", "several outputs"])
def test_derivatives_in_the_policy_are_differences(dynamics):
    both = eqx.filter_jit(eqx.filter_value_and_grad(value))
    at = lambda step: both(Gain(jnp.asarray(np.asarray(GAIN) + step)), dynamics)
    slope, h = np.asarray(at(0.0)[1].matrix), 1e-6
    for j in range(K):
        step = h * np.eye(K)[j][None, :]
        difference = (float(at(step)[0]) - float(at(-step)[0])) / (2 * h)
        np.testing.assert_allclose(slope[0, j], difference, rtol=1e-6)


def test_returns_are_discounted_sums():
    rewards = RNG.normal(size=(2, 3, T))
    for discount in (0.0, 0.7, 1.0):
        np.testing.assert_allclose(returns(rewards, discount), rewards @ discount ** np.arange(T), rtol=1e-12)
    np.testing.assert_allclose(jax.grad(lambda g: returns(rewards[0, 0], g))(0.0), rewards[0, 0, 1], rtol=1e-12)


def test_other_values_compile_nothing_anew():
    paths = batches(Counted(pgp.RBF(1.0, 0.9)))
    rollout(paths, POLICY, X0, T, reward=cost)
    CALLS.clear()
    again = [eqx.tree_at(lambda p: p.weights, path, 2 * path.weights) for path in paths]
    rollout(again, Gain(2 * GAIN), X0 + 1, T, reward=cost)
    assert not CALLS


@pytest.mark.usefixtures("standard_promotion")
def test_single_precision_and_a_network():
    paths = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, RBF)
    network = eqx.nn.MLP(K, A, 4, 1, key=KEY, dtype=jnp.float32)
    found = rollout(paths, network, X0.astype(jnp.float32), T, reward=cost)
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf, network)
    np.testing.assert_allclose(found.states, rollout(RBF, wide, X0, T).states, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((RBF[:1], POLICY, X0, T), {}, "`dynamics` must hold one batch of paths for each of the 2 entries"),
        (([RBF[0], 3], POLICY, X0, T), {}, "`dynamics` must be a function"),
        (([RBF[0], RBF[1][:2]], POLICY, X0, T), {}, "`dynamics` must have the same axes of paths"),
        ((RBF[0][:2], POLICY, X0, T), {}, "Paths of one output go in a sequence"),
        (([MULTI, MULTI], POLICY, X0, T), {}, "`dynamics` must give one value of each path"),
        # Of one input; with as many starts as states and inputs nothing but the order of the axes tells.
        (
            (lambda z: jnp.ones((2, 3)) @ z, POLICY, jnp.ones((3, 2)), T),
            {},
            r"`dynamics` must map inputs of shape \(3, 3\)",
        ),
        ((RBF, lambda x: x[0], X0, T), {}, "`policy` must map a state"),
        ((RBF, jnp.zeros((T + 1, A)), X0, T), {}, r"`policy`, as actions, must have shape \(4, a\)"),
        ((RBF, lambda x: x, X0, T), {}, "last axis of `X` must be the input dimension, 3"),
        ((RBF, POLICY, jnp.full(K, jnp.nan), T), {}, "`x0` must be finite"),
        ((RBF, POLICY, 1.0, T), {}, "`x0` must have a last axis"),
        ((RBF, POLICY, X0, 0), {}, "`n_steps` must be at least 1"),
        ((RBF, POLICY, X0, T), {"increments": 1}, "`increments` must be True or False"),
        ((RBF, POLICY, X0, T), {"reward": 1.0}, "`reward` must be a function"),
        ((RBF, POLICY, X0, T), {"reward": lambda x, u, z: x}, "`reward` must give a scalar"),
    ],
)
def test_rollout_refuses(arguments, options, words):
    with pytest.raises(ValueError, match=words):
        rollout(*arguments, **options)


@pytest.mark.usefixtures("no_hook")
def test_returns_refuse():
    with pytest.raises(ValueError, match="`discount` must be a scalar between 0 and 1"):
        returns(np.ones(3), 1.5)
    with pytest.raises(ValueError, match="`rewards` must have a last axis"):
        returns(np.ones(()))
