"""What will a policy earn? A pendulum learned from forty observed steps, and the return of a policy on it.

The change of angle and of angular velocity over a step are two Gaussian processes of state and torque. Each pair of paths is
one world that could have made the data; the policy is rolled out in all of them. Beside it stands what is often done instead:
at every step the next state is drawn from the posterior at the present one, independently of the steps before. Then errors of
the model average out along a trajectory, and the spread of returns is too small. Many data sets show which of the two
predictive distributions covers the return on the true pendulum.

    python examples/gallery/policy_evaluation.py [--fast] [--figures DIR]
"""

import argparse
import os
import pathlib
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np

import pathwise_gp as pgp
from pathwise_gp import scores
from pathwise_gp.rollout import returns, rollout

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")

FIGURES = pathlib.Path(__file__).parents[1] / "figures"
BLUE, ORANGE, GREY = "#2b6cb0", "#c05621", "#4a5568"
STEP, N_STEPS, N_DATA, SD = 0.1, 40, 40, 0.01
START = jnp.asarray([2.0, 0.0])  # radians from hanging down, and radians a second
LEVEL = 0.9


def pendulum(inputs):
    """Next states, `*n 2`, of states and torques, `*n 3`: gravity, friction and the torque."""
    angle, velocity, torque = inputs[..., 0], inputs[..., 1], inputs[..., 2]
    velocity = velocity + STEP * (-4 * jnp.sin(angle) - 0.2 * velocity + torque)
    return jnp.stack([angle + STEP * velocity, velocity], axis=-1)


class Brake(eqx.Module):
    """A torque against the motion."""

    gain: jax.Array

    def __call__(self, state):
        return -self.gain * jnp.tanh(state[1:])


def reward(_, action, following):
    return STEP * (jnp.cos(following[0]) - 0.05 * action[0] ** 2)


def observe(key):
    """States and torques anywhere, and the changes that followed, with noise."""
    key_inputs, key_noise = jax.random.split(key)
    inputs = jax.random.uniform(key_inputs, (N_DATA, 3), minval=-1, maxval=1) * jnp.asarray([jnp.pi, 5.0, 2.0])
    changes = pendulum(inputs) - inputs[:, :2]
    return inputs, changes + SD * jax.random.normal(key_noise, changes.shape)


@eqx.filter_jit
def learn(inputs, changes):
    """The posteriors of the two changes, with hyperparameters that are most probable."""
    posteriors = []
    for j in range(2):
        kernel = pgp.RBF(jnp.asarray(0.3), jnp.asarray([1.5, 6.0, 6.0]))
        prior = pgp.GPPrior(kernel=kernel, X=inputs, jitter=1e-7)

        def log_prior(here, _, kernel=kernel):
            ratios = jnp.append(here.kernel.lengthscale / kernel.lengthscale, here.kernel.variance / kernel.variance)
            return -0.5 * jnp.sum((jnp.log(ratios) / 0.3) ** 2)

        found = pgp.fit(prior, changes[:, j], SD**2, learn_noise=False, log_prior=log_prior, max_steps=60)
        posteriors.append(found.prior.condition(changes[:, j], SD**2))
    return posteriors


@eqx.filter_jit
def in_worlds(posteriors, policy, key, n_paths):
    """Trajectories in coherent worlds, one path each."""
    keys = jax.random.split(key)
    worlds = [
        pgp.PathwiseSampler(posterior, n_features=512).sample_paths(k, n_paths)
        for posterior, k in zip(posteriors, keys, strict=True)
    ]
    return rollout(worlds, policy, START, N_STEPS, increments=True, reward=reward)


@eqx.filter_jit
def step_by_step(posteriors, policy, key, n_paths):
    """Returns where each step draws anew from the posterior at the present state."""

    def step(states, key):
        actions = jax.vmap(policy)(states)
        inputs = jnp.concatenate([states, actions], axis=1)
        mean = jnp.stack([posterior.mean(inputs) for posterior in posteriors], axis=1)
        variance = jnp.stack([posterior.variance(inputs) for posterior in posteriors], axis=1)
        following = states + mean + jnp.sqrt(variance) * jax.random.normal(key, mean.shape)
        return following, jax.vmap(reward)(states, actions, following)

    _, rewards = jax.lax.scan(step, jnp.tile(START, (n_paths, 1)), jax.random.split(key, N_STEPS))
    return returns(rewards.T)


def plot(found, drawn, truth, true_states, pits):
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.8), constrained_layout=True)
    times = STEP * np.arange(N_STEPS + 1)
    left.plot(times, np.asarray(found.states[:40, :, 0]).T, color=BLUE, lw=0.5, alpha=0.5)
    left.plot([], [], color=BLUE, label="one line, one world")
    left.plot(times, true_states[:, 0], color="black", lw=1.5, label="the pendulum")
    left.set(xlabel="seconds", ylabel="angle in radians", title="One data set: 40 worlds")
    left.legend(frameon=False)
    coherent = np.asarray(returns(found.rewards))
    bins = np.linspace(*np.quantile(coherent, [0.002, 0.998]), num=40)
    middle.hist(coherent, bins, density=True, color=BLUE, alpha=0.6, label="one function a world")
    middle.hist(np.asarray(drawn), bins, density=True, color=ORANGE, alpha=0.6, label="drawn anew at each step")
    middle.axvline(truth, color="black", lw=1.5, label="the pendulum")
    middle.set(xlabel="return", ylabel="density", title="The same data set: returns")
    middle.set_ylim(top=1.35 * middle.get_ylim()[1])
    middle.legend(loc="upper left", framealpha=1, edgecolor="white", fontsize=8)
    for u, colour, name in zip(pits, (BLUE, ORANGE), ("one function a world", "drawn anew at each step"), strict=True):
        right.step(np.sort(u), np.arange(1, len(u) + 1) / len(u), color=colour, where="post", label=name)
    right.plot([0, 1], [0, 1], color="black", lw=0.8, ls=":")
    right.set(xlabel="place of the true return among those predicted", ylabel="share of data sets", xlim=(0, 1))
    right.set_title(f"{len(pits[0])} data sets: calibrated is the diagonal")
    right.legend(frameon=False)
    return figure


def main(fast: bool, folder: pathlib.Path) -> None:
    started = time.perf_counter()
    n_sets, n_paths = (6, 64) if fast else (60, 300)
    policy = Brake(jnp.asarray(1.0))
    true = rollout(pendulum, policy, START, N_STEPS, reward=reward)
    truth = float(returns(true.rewards))

    kinds = ("one function a world", "drawn anew at each step")
    samples, sets = ([], []), []
    for key in jax.random.split(jax.random.key(0), n_sets):
        key_data, key_worlds, key_steps = jax.random.split(key, 3)
        posteriors = learn(*observe(key_data))
        found = in_worlds(posteriors, policy, key_worlds, n_paths)
        drawn = step_by_step(posteriors, policy, key_steps, n_paths)
        sets.append((posteriors, found, drawn))
        for kept, new in zip(samples, (returns(found.rewards), drawn), strict=True):
            kept.append(new)
    samples = [jnp.stack(kept, axis=1) for kept in samples]
    truths = jnp.full((n_sets,), truth)
    print(
        f"Return on the pendulum: {truth:.3f}. {n_sets} data sets of {N_DATA} observed steps, {n_paths} draws each:\n"
    )
    print(f"                          sd of returns   data sets whose {LEVEL:.0%} interval holds the truth")
    inside = [float(scores.coverage(draws, truths, LEVEL)) for draws in samples]
    for name, draws, share in zip(kinds, samples, inside, strict=True):
        print(f"{name:24s} {float(jnp.median(draws.std(axis=0))):14.3f} {share:12.2f}")
    # A share of n data sets has a standard error of at most √(0.9 · 0.1/n), 0.04 for 60 of them.
    assert inside[0] > LEVEL - 4 * np.sqrt(0.09 / n_sets)
    assert inside[1] < inside[0]

    # The expected return is differentiable in the policy, through every step of every world.
    posteriors, found, drawn = sets[0]
    expected = lambda policy: returns(in_worlds(posteriors, policy, jax.random.key(1), n_paths).rewards).mean()
    slope = eqx.filter_grad(expected)(policy).gain
    difference = (expected(Brake(policy.gain + 1e-4)) - expected(Brake(policy.gain - 1e-4))) / 2e-4
    print(f"\nDerivative of the expected return in the gain of the brake: {slope:.5f}; by differences {difference:.5f}")
    np.testing.assert_allclose(slope, difference, rtol=1e-4)

    folder.mkdir(parents=True, exist_ok=True)
    pits = [np.asarray(scores.pit(draws, truths)) for draws in samples]
    plot(found, drawn, truth, np.asarray(true.states), pits).savefig(folder / "policy_evaluation.png", dpi=130)
    print(f"\nFigure: {folder / 'policy_evaluation.png'}\nDone in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="fewer data sets and draws")
    parser.add_argument("--figures", type=pathlib.Path, default=FIGURES, help="folder for the figures")
    arguments = parser.parse_args()
    main(arguments.fast, arguments.figures)
