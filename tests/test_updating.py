"""Posteriors and paths that take new data and give some back: the same functions, the same posterior.

With the features, weights and noise of a path held all is affine, so identities are tested to rounding, not by sampling.
"""

import copy
import logging
import os
import pathlib
import pickle
import signal
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import CALLS, Counted

import pathwise_gp as pgp
from pathwise_gp import scores
from pathwise_gp._numerics.kronecker import KroneckerFactor
from pathwise_gp._numerics.linalg import CholeskyFactor

N, S, D = 8, 3, 2
RNG = np.random.default_rng(3)
X = jnp.asarray(RNG.uniform(-1, 1, (N, D)))
TEST = jnp.asarray(RNG.uniform(-1, 1, (5, D)))
Y = jnp.sin(3 * X[:, 0]) + X[:, 1]
A, B = (jnp.asarray(RNG.uniform(-1, 1, (2, D))) for _ in range(2))
Y_A, Y_B = jnp.asarray([0.3, -0.8]), jnp.asarray([1.1, 0.2])
KERNEL = pgp.Matern(nu=2.5, variance=1.4, lengthscale=0.6)
MASK = jnp.arange(N) != 2
NOISES = jnp.linspace(0.05, 0.3, N)
KEYS = jax.random.split(jax.random.key(7), 4)
SMOOTH = pgp.RBF(variance=1.4, lengthscale=0.6)
SLOPES = pgp.Gradient(A)
AREA = pgp.Integral(jnp.asarray([[[-1.0, -1.0], [1.0, 1.0]]]))


def close(one, two, tolerance=1e-10):
    np.testing.assert_allclose(one, two, rtol=0, atol=tolerance)


class Row:
    """A posterior, two blocks of new data (inputs, observations, noise), and what is given at once."""

    def __init__(self, kernel=KERNEL, given=X, y=Y, noise=0.1, mask=None, blocks=None, join=None, **prior):
        self.kernel, self.given, self.y, self.noise, self.mask, self.prior = kernel, given, y, noise, mask, prior
        self.blocks = blocks or [(A, Y_A, 0.1), (B, Y_B, 0.1)]
        self.join = join or (lambda first, *others: jnp.concatenate([first, *others]))

    def start(self, capacity=None):
        prior = pgp.GPPrior(kernel=self.kernel, X=self.given, **self.prior)
        return prior.condition(self.y, self.noise, self.mask, capacity=capacity, check_scales=False)

    def at_once(self, order=(0, 1)):
        blocks = [self.blocks[i] for i in order]
        n, m = self.y.shape[0], [np.size(y) for _, y, _ in blocks]
        each = lambda value, size: jnp.broadcast_to(jnp.asarray(value, self.y.dtype), (size,))
        join = lambda first, others: jnp.concatenate([each(first, n), *map(each, others, m)])
        prior = dict(self.prior)
        if jnp.ndim(prior.get("jitter", 0.0)):
            prior["jitter"] = join(prior["jitter"], [0.0, 0.0])
        made = pgp.GPPrior(kernel=self.kernel, X=self.join(self.given, *(X for X, _, _ in blocks)), **prior)
        mask = None if self.mask is None else jnp.concatenate([self.mask, jnp.ones(sum(m), bool)])
        y = jnp.concatenate([self.y, *(y.reshape(-1) for _, y, _ in blocks)])
        return made.condition(y, join(self.noise, [s for _, _, s in blocks]), mask, check_scales=False)


def below(first, *others):
    return [first, *others]


ROWS = {
    "plain": Row(),
    "noise of each": Row(noise=NOISES, blocks=[(A, Y_A, jnp.asarray([0.2, 0.01])), (B, Y_B, 0.4)]),
    "missing": Row(mask=MASK),
    "jitter": Row(jitter=0.05, mean=lambda X: 1.0 + X[..., 0]),
    "jitter of each": Row(jitter=NOISES / 3),
    "white": Row(kernel=KERNEL + pgp.White(0.03)),
    "values and slopes": Row(kernel=SMOOTH, blocks=[(SLOPES, jnp.ones((2, 2)), 0.1), (B, Y_B, 0.01)], join=below),
    "slopes": Row(
        kernel=SMOOTH,
        given=pgp.Gradient(X),
        y=jnp.cos(jnp.concatenate([X[:, 0], X[:, 1]])),
        blocks=[
            (SLOPES, Y_A[:, None] * jnp.ones((2, 2)), 0.1),
            (pgp.Gradient(B), Y_B[:, None] * jnp.ones((2, 2)), 0.1),
        ],
        join=lambda first, *others: pgp.Gradient(jnp.concatenate([first.X, *(other.X for other in others)])),
    ),
}
PLAIN = ROWS["plain"]
CASES = [(name, 16) for name in ROWS if name != "values and slopes"]
CASES += [(name, None) for name in ("plain", "jitter of each", "values and slopes")]


@eqx.filter_jit
def moments(posterior):
    return posterior.mean(TEST), posterior.variance(TEST), posterior.log_marginal_likelihood()


def alike(one, two):
    for left, right in zip(moments(one), moments(two), strict=True):
        close(left, right)


def draw(posterior, **options):
    return pgp.PathwiseSampler(posterior, n_features=16, **options).sample_paths(KEYS[0], S)


def noise_in(paths, posterior):
    """ε = y − m − φᵀw − Aα, of the places that are taken."""
    n = posterior.y.shape[0] if posterior.size is None else int(posterior.size)
    L, kernel = posterior.observed, posterior.prior.kernel
    covariance = np.asarray(L.gram(kernel)) + np.diag(posterior.noise)
    there = np.ones(posterior.capacity, bool) if posterior.mask is None else np.asarray(posterior.mask)
    covariance = np.where(np.outer(there, there), covariance, 0)
    prior = np.asarray(L.apply(paths)) - np.asarray(paths.coefficients) @ np.asarray(L.gram(kernel))
    epsilon = np.asarray(posterior.y) - prior - np.asarray(paths.coefficients) @ covariance
    return np.where(there, epsilon, 0)[:, :n]


def new_noise(key, first, m, s=S):
    """What is drawn for m places from one on, in standard deviations: it belongs to the place."""
    drawn = [jax.random.normal(jax.random.fold_in(key, place), (s,)) for place in range(first, first + m)]
    return np.stack(drawn, axis=1)


@pytest.mark.parametrize(("name", "capacity"), CASES)
def test_in_steps_as_at_once(name, capacity):
    row = ROWS[name]
    start = row.start(capacity)
    paths = draw(start)
    found, gone_on, n = {}, {}, row.y.shape[0]
    orders = [(0, 1), (1, 0)] if name != "values and slopes" else [(0, 1)]
    for order in orders:
        posterior, went = start, paths
        for i in order:
            inputs, y, noise = row.blocks[i]
            posterior = posterior.condition(inputs, y, noise)
            before, went = went, went.condition(posterior, KEYS[1 + i])
            assert went.weights is before.weights or np.array_equal(went.weights, before.weights)
        found[order], gone_on[order] = posterior, went
    whole = row.at_once()
    for order, posterior in found.items():
        alike(posterior, whole)
        close(gone_on[order].mean_path(TEST), moments(whole)[0])
        # The same functions: ε of what was seen stays, and that of what is new is drawn with its variance, jitter included.
        epsilon, first = noise_in(gone_on[order], posterior), noise_in(paths, start)
        close(epsilon[:, :n], first)
        at = n
        for i in order:
            m = np.size(row.blocks[i][1])
            scale = np.sqrt(np.asarray(posterior.noise)[at : at + m])
            close(epsilon[:, at : at + m], new_noise(KEYS[1 + i], at, m) * scale)
            at += m
    # Once, with the same w and ε, whatever the order was.
    here = np.sqrt(np.asarray(whole.noise))
    first, second = (np.size(y) for _, y, _ in row.blocks)
    for order in orders:
        epsilon = noise_in(gone_on[order], found[order])
        if order == (1, 0):
            blocks = np.split(epsilon, [n, n + second], axis=1)
            epsilon = np.concatenate([blocks[0], blocks[2], blocks[1]], axis=1)
            assert blocks[2].shape[1] == first
        inputs = jnp.asarray(epsilon / np.where(here > 0, here, 1))
        once = pgp.PathwiseSampler(whole, n_features=16).update(paths.features, paths.weights, inputs)
        close(once(TEST), gone_on[order](TEST))


def test_single_precision():
    cast = lambda tree: jax.tree.map(lambda leaf: leaf.astype("float32") if eqx.is_inexact_array(leaf) else leaf, tree)
    row = Row(
        kernel=cast(KERNEL), given=cast(X), y=cast(Y), blocks=[(cast(A), cast(Y_A), 0.1), (cast(B), cast(Y_B), 0.1)]
    )
    start = row.start(capacity=16)
    paths, posterior = draw(start), start
    for i, (inputs, y, noise) in enumerate(row.blocks):
        posterior = posterior.condition(inputs, y, noise)
        paths = paths.condition(posterior, KEYS[i])
    whole, double = row.at_once(), ROWS["plain"].at_once()
    assert paths(TEST).dtype == posterior.mean(cast(TEST)).dtype == np.float32
    close(posterior.mean(cast(TEST)), double.mean(TEST), 2e-5)
    close(paths.mean_path(cast(TEST)), whole.mean(cast(TEST)), 2e-5)
    with pytest.raises(ValueError, match="one precision"):
        paths.condition(ROWS["plain"].start(16), KEYS[0])


@pytest.mark.parametrize(
    "options",
    [{"share_features": False}, {"features": pgp.HilbertSpace([[-2.0, -2.0], [2.0, 2.0]])}],
    ids=["own", "Hilbert"],
)
def test_bases(options):
    start = ROWS["plain"].start(16)
    posterior = start.condition(A, Y_A, 0.1)
    paths = draw(start, **options)
    went = paths.condition(posterior, KEYS[1])
    epsilon = noise_in(went, posterior)
    close(epsilon[:, :N], noise_in(paths, start))
    close(epsilon[:, N:], np.sqrt(0.1) * new_noise(KEYS[1], N, 2))


def test_own_noisy_values_do_not_move_a_path():
    start = ROWS["plain"].start(16)
    paths = draw(start)
    own = paths(A) + np.sqrt(0.1) * new_noise(KEYS[1], N, 2)
    # Each path makes the observation that the others are given: fantasies, of which path i has seen its own in number i.
    went = paths.condition(start.condition(A, own, 0.1), KEYS[1])
    values = went(TEST)
    assert values.shape == (S, S, 5)
    close(jnp.stack([values[i, i] for i in range(S)]), paths(TEST))


def test_law_of_paths_that_went_on():
    """Their covariance, by the affine map from (w, ε, ε′) to their values, is that of draws of the new posterior."""
    start = ROWS["plain"].start(16)
    posterior = start.condition(A, Y_A, 0.1)
    sampler = pgp.PathwiseSampler(start, n_features=16)
    features = draw(start).features

    @jax.jit
    def values(weights, epsilon, new):
        first = sampler.update(features, weights[None], epsilon[None])
        drawn = first(TEST)[0]
        # Given values of its own with another ε′ the path goes on as if ε′ had been drawn for the data.
        moved = posterior.covariance(TEST, A), start.covariance(TEST, A), start.covariance(A)
        S_A = moved[2] + 0.1 * jnp.eye(2)
        return drawn + moved[1] @ jnp.linalg.solve(S_A, Y_A - first(A)[0] - jnp.sqrt(0.1) * new)

    zero = [jnp.zeros(16), jnp.zeros(16), jnp.zeros(2)]
    J = np.concatenate(jax.jacobian(values, argnums=(0, 1, 2))(*zero), axis=1)
    close(values(*zero), posterior.mean(TEST))
    drawn = np.sqrt(0.1) * new_noise(KEYS[1], N, 2)
    paths = draw(start)
    by_hand = (
        paths(TEST)
        + (
            start.covariance(TEST, A)
            @ jnp.linalg.solve(start.covariance(A) + 0.1 * jnp.eye(2), (Y_A[None] - paths(A) - drawn).T)
        ).T
    )
    close(paths.condition(posterior, KEYS[1])(TEST), by_hand)
    # The law of draws of the new posterior with the same features.
    other = pgp.PathwiseSampler(posterior, n_features=16)
    anew = lambda weights, epsilon: other.update(features, weights[None], epsilon[None])(TEST)[0]
    K = np.concatenate(jax.jacobian(anew, argnums=(0, 1))(jnp.zeros(16), jnp.zeros(16)), axis=1)
    close(J @ J.T, K @ K.T)


def test_two_paths_stay_independent():
    """What is drawn for one path has no part in another, nor has what was drawn before."""
    start = ROWS["plain"].start(16)
    posterior, paths = start.condition(A, Y_A, 0.1), draw(start)
    both = paths.condition(posterior, KEYS[1])
    epsilon = noise_in(both, posterior)
    assert len(np.unique(np.round(epsilon / np.sqrt(0.1), 9))) == epsilon.size
    alone = paths[:1].condition(posterior, KEYS[1])
    close(alone.weights, both.weights[:1])
    # In numbers: of many paths the new ε is uncorrelated with the old and between paths.
    many = pgp.PathwiseSampler(start, n_features=16).sample_paths(KEYS[2], 400)
    epsilon = noise_in(many.condition(posterior, KEYS[3]), posterior) / np.sqrt(0.1)
    correlations = np.corrcoef(epsilon.T)[N:, :N]
    assert np.max(np.abs(correlations)) < 4 / np.sqrt(400)
    assert abs(np.var(epsilon[:, N:]) - 1) < 4 * np.sqrt(2 / 800)
    pairs = np.mean(epsilon[::2, N:] * epsilon[1::2, N:])
    assert abs(pairs) < 4 / np.sqrt(400)


GIVEN_BACK = {"first": [0], "in the middle": [3, 5], "last": [-1], "negative and first": [-2, 0]}


@pytest.mark.parametrize(
    ("numbers", "capacity"), [*((n, 16) for n in GIVEN_BACK.values()), ([3, 5], None)], ids=[*GIVEN_BACK, "no room"]
)
def test_without_some(numbers, capacity):
    posterior = ROWS["noise of each"].start(capacity)
    paths = draw(posterior)
    left = np.delete(np.arange(N), numbers)
    want = pgp.GPPrior(kernel=KERNEL, X=X[left]).condition(Y[left], NOISES[left])
    found, went = posterior.without(numbers), paths.without(posterior, numbers)
    alike(found, want)
    close(went.mean_path(TEST), moments(want)[0])
    close(noise_in(went, found), noise_in(paths, posterior)[:, left])
    assert found.capacity == (N - len(numbers) if capacity is None else capacity)
    close(found.trimmed().prior.X, X[left], 0)


def test_without_what_was_missing():
    posterior = ROWS["missing"].start()
    left = [0, 1, 3, 4, 5, 7]
    want = pgp.GPPrior(kernel=KERNEL, X=X[jnp.asarray(left)]).condition(Y[jnp.asarray(left)], 0.1)
    found = posterior.without([2, 6])
    close(found.mean(TEST), want.mean(TEST))
    close(draw(posterior).without(posterior, [2, 6]).mean_path(TEST), want.mean(TEST))


@pytest.mark.parametrize("name", ["plain", "values and slopes"])
def test_more_and_back_again(name):
    row = ROWS[name]
    start = row.start(16 if name != "values and slopes" else None)
    inputs, y, noise = row.blocks[0]
    posterior, paths = start.condition(inputs, y, noise), draw(start)
    went = paths.condition(posterior, KEYS[1])
    new = list(range(row.y.shape[0], row.y.shape[0] + np.size(y)))
    alike(posterior.without(new), start)
    close(went.without(posterior, new)(TEST), paths(TEST))


def test_each_path_without_each_observation(capacity=16):
    posterior = ROWS["noise of each"].start(capacity)
    paths = draw(posterior)
    found = paths.leave_one_out(posterior)
    assert found.shape == (S, posterior.capacity)
    for j in (0, 4, N - 1):
        close(found[:, j], paths.without(posterior, j)(X[j]))
    here = posterior.leave_one_out()
    close(paths.mean_path(X)[None] * 0 + here.mean[None, :N], posterior.trimmed().leave_one_out().mean[None])
    # Where nothing was observed, the path itself.
    missing = ROWS["missing"].start(capacity)
    paths = draw(missing)
    close(paths.leave_one_out(missing)[:, 2], paths(missing.observed.points[2]))


def test_scores_of_what_is_left_out():
    posterior = ROWS["noise of each"].start(16)
    many = pgp.PathwiseSampler(posterior, n_features=256).sample_paths(KEYS[0], 4000)
    left = posterior.trimmed().leave_one_out()
    normal = np.random.default_rng(0).normal(size=(20000, N))
    exact = scores.crps(np.asarray(left.mean) + np.sqrt(left.variance) * normal, Y)
    places = jax.scipy.stats.norm.cdf((Y - left.mean) / jnp.sqrt(left.variance))
    found = scores.loo_pit(many, posterior, KEYS[2])
    assert found.shape == (N,)
    # Four standard errors of a proportion of 4,000, and the error of 256 features.
    close(found, places, 4 * 0.5 / np.sqrt(4000) + 0.01)
    close(scores.loo_crps(many, posterior, KEYS[2]), exact, 0.03)
    with pytest.raises(ValueError, match="not known under jit"):
        eqx.filter_jit(scores.loo_pit)(many, posterior, KEYS[2])


def state(posterior, paths):
    return eqx.partition((posterior, paths), eqx.is_array)


STREAM = jnp.asarray(RNG.uniform(-1, 1, (8, 1, D)))
Y_STREAM = jnp.sin(3 * STREAM[..., 0]) + STREAM[..., 1]


@eqx.filter_jit
def streamed(posterior, paths, slide):
    """A scan over single observations; with the oldest taken out for each, where `slide`."""
    arrays, rest = state(posterior, paths)

    def step(arrays, new):
        posterior, paths = eqx.combine(arrays, rest)
        X, y, key = new
        if slide:
            paths, posterior = paths.without(posterior, 0), posterior.without(0)
        posterior = posterior.condition(X, y, 0.1)
        return state(posterior, paths.condition(posterior, key, 1))[0], None

    arrays, _ = jax.lax.scan(step, arrays, (STREAM, Y_STREAM, jax.random.split(KEYS[3], 8)))
    return eqx.combine(arrays, rest)


def test_scan_as_outside():
    posterior = ROWS["plain"].start(16)
    paths = draw(posterior)
    scanned, went = streamed(posterior, paths, slide=False)
    for x, y, key in zip(STREAM, Y_STREAM, jax.random.split(KEYS[3], 8), strict=True):
        posterior = posterior.condition(x, y, 0.1)
        paths = paths.condition(posterior, key)
    assert int(scanned.size) == int(posterior.size) == 16
    assert posterior.new_noise_var == 0.1
    close(scanned.mean(TEST), posterior.mean(TEST))
    close(went(TEST), paths(TEST))
    # Paths that have not gone on at each step may do so at the end.
    late = draw(ROWS["plain"].start(16)).condition(posterior, KEYS[1])
    close(late.mean_path(TEST), posterior.mean(TEST))


def test_sliding_window():
    posterior, paths = streamed(ROWS["plain"].start(16), draw(ROWS["plain"].start(16)), slide=True)
    rows = STREAM[-N:, 0]
    want = pgp.GPPrior(kernel=KERNEL, X=rows).condition(Y_STREAM[-N:, 0], 0.1)
    assert int(posterior.size) == N
    alike(posterior, want)
    close(paths.mean_path(TEST), moments(want)[0])


def test_five_hundred_steps_drift_no_more_than_one_factorisation():
    inputs = jnp.asarray(np.random.default_rng(0).uniform(0, 10, (504, 1)))
    y, kernel = jnp.sin(inputs[:, 0]), pgp.Matern(nu=1.5, variance=1.0, lengthscale=0.5)
    start = pgp.GPPrior(kernel=kernel, X=inputs[:4]).condition(y[:4], 1e-2, capacity=504)

    @eqx.filter_jit
    def all_of_them(posterior):
        arrays, rest = eqx.partition(posterior, eqx.is_array)
        step = lambda a, new: (eqx.filter(eqx.combine(a, rest).condition(*new, 1e-2), eqx.is_array), None)
        return eqx.combine(jax.lax.scan(step, arrays, (inputs[4:, None], y[4:, None]))[0], rest)

    found, want = all_of_them(start), pgp.GPPrior(kernel=kernel, X=inputs).condition(y, 1e-2)
    # Of a factorisation: n eps times the condition number of the covariance, about 504 / (0.01 · 10 / 0.5) · ….
    residual = lambda posterior: jnp.max(
        jnp.abs(found.prior.functional.gram(kernel) @ posterior.coefficients + 1e-2 * posterior.coefficients - y)
    )
    drift, once = float(residual(found)), float(residual(want))
    assert drift < max(10 * once, 1e-12)
    close(found.mean(inputs[:9] + 0.1), want.mean(inputs[:9] + 0.1), 1e-11)


def test_nothing_is_compiled_anew_while_there_is_room():
    def rounds(seed, count):
        kernel = Counted(pgp.RBF(1.0, 0.5 + seed / 10))
        posterior = pgp.GPPrior(kernel=kernel, X=X + seed).condition(Y, 0.1, capacity=16)
        paths = draw(posterior)
        for i in range(count):
            posterior = posterior.condition(A[:1] + seed + i / 10, Y_A[:1] - i, 0.1)
            paths = paths.condition(posterior, jax.random.key(i))
            paths(TEST), posterior.mean(TEST), posterior.variance(TEST)
        paths, posterior = paths.without(posterior, 0), posterior.without(0)
        return paths(TEST), paths.leave_one_out(posterior)

    rounds(0, 1)
    assert CALLS
    CALLS.clear()
    rounds(1, 8)
    assert not CALLS


def test_growth(caplog):
    with caplog.at_level(logging.INFO, logger="pathwise_gp"):
        posterior = PLAIN.start(9).condition(A, Y_A, 0.1).condition(B, Y_B, 0.1)
    assert [record.getMessage() for record in caplog.records] == ["Room for 9 observations becomes room for 18."]
    assert (posterior.capacity, int(posterior.size)) == (18, 12)
    want = PLAIN.at_once()
    close(posterior.mean(TEST), want.mean(TEST))
    close(draw(PLAIN.start(9)).condition(posterior, KEYS[1]).mean_path(TEST), want.mean(TEST))
    with caplog.at_level(logging.INFO, logger="pathwise_gp"):
        other = PLAIN.start(16).condition(pgp.Derivative(A, (0,)), Y_A, 0.01)
    assert "given up" in caplog.records[-1].getMessage()
    assert other.size is None
    close(draw(PLAIN.start(16)).condition(other, KEYS[1]).mean_path(TEST), other.mean(TEST))


FANTASIES = Y_A[None] + jnp.linspace(-1, 1, 4)[:, None]


def test_fantasies():
    start = ROWS["plain"].start(16)
    paths = draw(start)
    posterior = start.condition(A, FANTASIES, 0.1)
    went = paths.condition(posterior, KEYS[1])
    assert posterior.factor.lower.ndim == 2
    assert posterior.batch_shape == went.batch_shape == (4,)
    assert went.shape == (4, S)
    assert went.common.weights is not None  # stored once
    means, values = posterior.mean(TEST), went(TEST)
    assert values.shape == (4, S, 5)
    loo = posterior.leave_one_out()
    for t in (0, 3):
        one = start.condition(A, FANTASIES[t], 0.1)
        close(means[t], one.mean(TEST))
        close(posterior.mean(pgp.Values(TEST))[t], one.mean(TEST))
        close(posterior.predict(TEST).mean[t], one.mean(TEST))
        close(posterior.mean_path[t](TEST), one.mean(TEST))
        close(posterior.variance(TEST), one.variance(TEST))
        close(values[t], paths.condition(one, KEYS[1])(TEST))
        close(went.mean_path(TEST)[t], one.mean(TEST))
        close(loo.mean[t], one.leave_one_out().mean)
        close(posterior.log_marginal_likelihood()[t], one.log_marginal_likelihood())
    # More for all of them, and a fantasy for each of several candidates.
    more = posterior.condition(B, Y_B, 0.1)
    close(more.mean(TEST)[3], start.condition(A, FANTASIES[3], 0.1).condition(B, Y_B, 0.1).mean(TEST))
    close(went.condition(more, KEYS[2]).mean_path(TEST), more.mean(TEST))
    with pytest.raises(ValueError, match="has fantasies"):
        pgp.PathwiseSampler(posterior)
    candidates = jnp.stack([A, B, A + 0.1])
    each = eqx.filter_vmap(lambda X: start.condition(X, FANTASIES, 0.1).mean(TEST))(candidates)
    assert each.shape == (3, 4, 5)
    close(each[0], means)


@eqx.filter_jit
def gone_on_under_jit(paths, posterior, n_new):
    return paths.condition(posterior, KEYS[1], n_new)(TEST)


@pytest.mark.parametrize("capacity", [16, None])
@pytest.mark.parametrize("seen", [0, 1])
def test_mask_of_what_is_new(seen, capacity):
    """What is missing among new data, NaN there, is as if it had not been given; also of fantasies."""
    start, mask = PLAIN.start(capacity), jnp.arange(2) == seen
    posterior, paths = start.condition(A, jnp.where(mask, Y_A, jnp.nan), 0.1, mask=mask), draw(start)
    y = jnp.append(Y, Y_A[seen])
    want = pgp.GPPrior(kernel=KERNEL, X=jnp.concatenate([X, A[seen][None]])).condition(y, 0.1)
    alike(posterior, want)
    went = paths.condition(posterior, KEYS[1])
    close(went.mean_path(TEST), moments(want)[0])
    epsilon = noise_in(went, posterior)
    close(epsilon[:, :N], noise_in(paths, start))
    close(epsilon[:, [N + seen]], np.sqrt(0.1) * new_noise(KEYS[1], N + seen, 1))
    # Told how many places are new, with those left out or without the first of them, it is the same; so it is under jit.
    close(paths.condition(posterior, KEYS[1], 2)(TEST), went(TEST))
    close(gone_on_under_jit(paths, posterior, 2), went(TEST))
    if seen:
        close(paths.condition(posterior, KEYS[1], 1)(TEST), went(TEST))
    else:
        with pytest.raises(ValueError, match="`n_new`"):
            paths.condition(posterior, KEYS[1], 1)
    # A path is the same without what it has not seen, and is as before without both.
    close(went.without(posterior, N + 1 - seen)(TEST), went(TEST))
    close(went.without(posterior, [N, N + 1])(TEST), paths(TEST))
    close(went.leave_one_out(posterior)[:, N + seen], went.without(posterior, N + seen)(A[seen]))
    close(
        start.condition(A, FANTASIES, 0.1, mask=mask).mean(TEST)[1],
        start.condition(A[seen][None], FANTASIES[1, seen][None], 0.1).mean(TEST),
    )


def test_room_grows_again_and_again():
    """One input, one observation at a time."""
    inputs = jnp.linspace(0.0, 1.0, 9)[:, None]
    y, test, kernel = jnp.sin(6 * inputs[:, 0]), inputs[:4] + 0.05, pgp.RBF(1.0, 0.3)
    posterior = pgp.GPPrior(kernel=kernel, X=inputs[:2]).condition(y[:2], 0.1, capacity=2)
    paths = draw(posterior)
    first, capacities = noise_in(paths, posterior), []
    for i in range(2, 9):
        posterior = posterior.condition(inputs[i : i + 1], y[i : i + 1])
        paths = paths.condition(posterior, jax.random.key(i))
        capacities.append(posterior.capacity)
    assert capacities == [4, 4, 8, 8, 8, 8, 16]
    want = pgp.GPPrior(kernel=kernel, X=inputs).condition(y, 0.1)
    close(posterior.mean(test), want.mean(test))
    close(posterior.variance(test), want.variance(test))
    close(posterior.log_marginal_likelihood(), want.log_marginal_likelihood())
    close(paths.mean_path(test), want.mean(test))
    epsilon = noise_in(paths, posterior)
    close(epsilon[:, :2], first)
    new = [new_noise(jax.random.key(i), i, 1) for i in range(2, 9)]
    close(epsilon[:, 2:], np.sqrt(0.1) * np.concatenate(new, axis=1))
    taken = eqx.filter_jit(lambda posterior, i: posterior.without(i).mean(test))
    close(taken(posterior, jnp.asarray([-1, 0])), posterior.without([8, 0]).mean(test))


def test_ensembles():
    scales = jnp.asarray([0.4, 0.6, 0.9])
    of_each = pgp.Batched(eqx.filter_vmap(lambda ell: pgp.GPPrior(pgp.RBF(1.0, ell), X))(scales), (3,))
    first = of_each.map(lambda prior: prior.condition(Y, 0.1, check_scales=False))
    from pathwise_gp._paths.ensemble import map_draws

    def one(ell, key):
        posterior = pgp.GPPrior(pgp.RBF(1.0, ell), X).condition(Y, 0.1, check_scales=False)
        return pgp.PathwiseSampler(posterior, n_features=16).sample_paths(key, S)

    keys = jax.random.split(KEYS[0], 3)
    ensemble = pgp.PathEnsemble(*eqx.filter_jit(map_draws)(one, (scales[0], keys[0]), (scales, keys)))
    recovered = pgp.posterior_of(ensemble)
    close(recovered.map(lambda p: p.mean(TEST)), first.map(lambda p: p.mean(TEST)))
    more = recovered.map(lambda posterior: posterior.condition(A, Y_A))
    went = ensemble.condition(more, KEYS[1])
    for i, key in enumerate(jax.random.split(KEYS[1], 3)):
        whole = pgp.GPPrior(pgp.RBF(1.0, scales[i]), jnp.concatenate([X, A])).condition(jnp.concatenate([Y, Y_A]), 0.1)
        close(went[i](TEST), ensemble[i].condition(whole, key)(TEST))
        close(went.mean_path(TEST)[i], whole.mean(TEST))
        close(went.leave_one_out(more)[i], went[i].leave_one_out(whole))
    close(went.without(more, [N, N + 1])(TEST), ensemble(TEST))
    assert scores.loo_pit(went, more, KEYS[2]).shape == (N + 2,)
    with pytest.raises(ValueError, match="one posterior for each draw"):
        ensemble.condition(ROWS["plain"].start(), KEYS[1])


def test_the_posterior_of_paths():
    start = ROWS["missing"].start()
    found = pgp.posterior_of(draw(start))
    close(found.mean(TEST), start.mean(TEST))
    close(found.variance(TEST), start.variance(TEST))
    close(found.y, start.y)
    more, want = found.condition(A, Y_A), start.condition(A, Y_A)
    close(draw(start).condition(more, KEYS[1])(TEST), draw(start).condition(want, KEYS[1])(TEST))
    with pytest.raises(ValueError, match="no such posterior"):
        pgp.posterior_of(draw(start).components()[0])


def test_inducing_values():
    prior = pgp.SparseGPPrior(kernel=KERNEL, Z=X[:5], jitter=0.02)
    guide = pgp.FullRankGuide(jnp.sin(jnp.arange(5.0)), 0.3 * jnp.eye(5) + 0.1 * jnp.tril(jnp.ones((5, 5))))
    sampler = pgp.DecoupledPathwiseSampler(prior, guide, n_features=16)
    start, paths = sampler.posterior(), sampler.sample_paths(KEYS[0], S)
    known = guide.predict(prior, TEST, 0.0)
    close(start.mean(TEST), known.mean)
    close(start.variance(TEST), known.variance)
    posterior = start.condition(A, Y_A, 0.1).condition(B, Y_B, jnp.asarray([0.1, 0.2]))
    # Against the dense conditional law of the process of the guide.
    new, y, noise = jnp.concatenate([A, B]), jnp.concatenate([Y_A, Y_B]), jnp.asarray([0.1, 0.1, 0.1, 0.2])
    cross, inside = start.covariance(TEST, new), start.covariance(new) + jnp.diag(noise)
    gain = jnp.linalg.solve(inside, cross.T).T
    close(posterior.mean(TEST), start.mean(TEST) + gain @ (y - start.mean(new)))
    close(posterior.covariance(TEST), start.covariance(TEST) - gain @ cross.T)
    close(posterior.variance(TEST), jnp.diagonal(posterior.covariance(TEST)))
    went = paths.condition(posterior, KEYS[1])
    epsilon = jnp.sqrt(noise)[None] * jax.random.normal(KEYS[1], (S, 4))
    close(went(TEST), paths(TEST) + (y[None] - paths(new) - epsilon) @ gain.T)
    steps = paths.condition(start.condition(A, Y_A, 0.1), KEYS[1]).condition(posterior, KEYS[2])
    close(steps.mean_path(TEST), posterior.mean(TEST))
    for refused in (
        lambda: went.without(posterior, 0),
        lambda: went.leave_one_out(posterior),
        lambda: went.marginal_variance(TEST),
        lambda: paths.condition(eqx.tree_at(lambda p: p.kernel.variance, posterior, 2.0 * KERNEL.variance), KEYS[1]),
        lambda: paths.condition(ROWS["plain"].start(), KEYS[1]),
        lambda: posterior.condition(A, Y_A[:1], 0.1),
        lambda: paths.condition(posterior, KEYS[1], 3),
    ):
        with pytest.raises(ValueError, match="`"):
            refused()


def test_several_outputs():
    kernel = pgp.Coregionalised(KERNEL, jnp.asarray([[1.0], [0.5]]), jnp.asarray([0.2, 0.3]))
    both = lambda X: jnp.stack([jnp.sin(3 * X[:, 0]), X[:, 1]], axis=1)
    noise = jnp.asarray([0.1, 0.2])
    start = pgp.GPPrior(kernel, pgp.AllOutputs(X, 2), jitter=[0.01, 0.02]).condition(both(X), noise)
    paths = pgp.PathwiseSampler(start, n_features=48).sample_paths(KEYS[0], S)
    posterior = start.condition(pgp.AllOutputs(A, 2), both(A) + 0.2)
    assert isinstance(posterior.solution, KroneckerFactor) and posterior.noise_var.shape == (2,)
    went = paths.condition(posterior, KEYS[1])
    # The same on the grid of all inputs and outputs, densely.
    grid = pgp.with_outputs(jnp.concatenate([X, A, TEST]), 2).reshape(-1, D + 1)
    K, n, m = np.asarray(kernel.matrix(grid, grid)), 2 * N, 4
    old, new, test = slice(0, n), slice(n, n + m), slice(n + m, None)
    added = np.tile(noise + jnp.asarray([0.01, 0.02]), N + 2)
    y, at = np.asarray(jnp.concatenate([both(X), both(A) + 0.2])).reshape(-1), pgp.with_outputs(TEST, 2)
    P = np.linalg.inv(K[: n + m, : n + m] + np.diag(added))
    close(posterior.mean(at).reshape(-1), K[test, : n + m] @ P @ y)
    close(posterior.noise, added[: n + m])
    first = np.linalg.inv(K[old, old] + np.diag(added[old]))
    given = K - K[:, old] @ first @ K[old]
    numbers = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(KEYS[1], i), (S,)), out_axes=1)(n + jnp.arange(m))
    surprise = y[None, new] - paths(grid[new]) - np.sqrt(added[new])[None] * numbers
    gain = np.linalg.solve(given[new, new] + np.diag(added[new]), given[new, test])
    close(went(at), paths(at) + (surprise @ gain).reshape(S, 5, 2))
    close(went.outputs(TEST), went(at))
    close(went.mean_path(at), posterior.mean(at))
    # Observations are counted one by one: all those of two inputs, and one of an input.
    back = posterior.without(range(n, n + m))
    assert isinstance(back.solution, KroneckerFactor) and back.new_noise_var.shape == (2,)
    close(back.mean(at), start.mean(at))
    close(went.without(posterior, range(n, n + m))(at), paths(at))
    fewer = posterior.without(3)
    assert isinstance(fewer.solution, CholeskyFactor) and fewer.capacity == n + m - 1
    close(went.without(posterior, 3).mean_path(at), fewer.mean(at))
    close(went.without(posterior, 3).outputs(TEST), went.without(posterior, 3)(at))
    assert (went.without(posterior, 3).condition(fewer, KEYS[2])(at) == went.without(posterior, 3)(at)).all()
    # One output alone, of which the noise is known; it grows from there.
    one = posterior.condition(grid[n + m : n + m + 1], jnp.asarray([0.4]))
    full = np.r_[0 : n + m + 1]
    precision = np.linalg.inv(K[np.ix_(full, full)] + np.diag(np.r_[added[: n + m], noise[0] + 0.01]))
    close(one.mean(at).reshape(-1), K[test][:, full] @ precision @ np.r_[y, 0.4])
    close(one.condition(pgp.AllOutputs(A + 1, 2), both(A)).noise[-4:], added[:4])
    # Path i at each observation without that one: by Matheron's rule.
    left, alpha = went.leave_one_out(posterior), np.asarray(went.coefficients)
    here = np.asarray(went(grid[: n + m]))
    close(left, here - alpha / np.diagonal(P) * np.einsum("ij,ij->i", P, K[: n + m, : n + m]))
    assert scores.loo_crps(went, posterior, KEYS[2]).shape == (n + m,)
    moved = pgp.GPPrior(kernel, pgp.AllOutputs(X + 1, 2)).condition(both(X), noise)
    with pytest.raises(ValueError, match="not that of the paths"):
        paths.condition(moved.condition(pgp.AllOutputs(A, 2), both(A)), KEYS[1])
    with pytest.raises(ValueError, match="no observation"):
        start.without(range(n))
    with pytest.raises(ValueError, match="several fantasies takes a factor"):
        start.condition(pgp.AllOutputs(A, 2), jnp.zeros((3, m)))
    # The noise of an output that was never given is not known, in place of that of another.
    first = pgp.GPPrior(kernel, pgp.AllOutputs(X, 1)).condition(both(X)[:, :1], noise[:1])
    assert first.new_noise_var is None
    with pytest.raises(ValueError, match="`noise_var` must be given"):
        first.condition(grid[1:2], jnp.asarray([0.4]))
    few = start.condition(pgp.AllOutputs(A, 1), both(A)[:, :1])
    close(few.noise[-2:], added[:1].repeat(2))
    # With a factor there are fantasies, and room.
    room = start.prior.condition(both(X), noise, capacity=3 * N).condition(pgp.AllOutputs(A, 2), both(A) + 0.2)
    assert room.capacity == 2 * -(-3 * N // 2)
    close(room.mean(at), posterior.mean(at))


def test_under_other_hyperparameters():
    posterior = ROWS["plain"].start(16).condition(A, Y_A, 0.1)
    other = eqx.tree_at(lambda prior: prior.kernel.lengthscale, posterior.prior, jnp.asarray(0.9))
    found = posterior.under(other, 0.2)
    want = pgp.GPPrior(pgp.Matern(2.5, 1.4, 0.9), jnp.concatenate([X, A])).condition(jnp.concatenate([Y, Y_A]), 0.2)
    close(found.mean(TEST), want.mean(TEST))
    assert int(found.size) == N + 2
    assert found.new_noise_var == 0.2
    close(found.condition(B, Y_B).variance(TEST), want.condition(B, Y_B).variance(TEST))
    close(posterior.under(posterior.prior).mean(TEST), posterior.mean(TEST))
    with pytest.raises(ValueError, match="points that the posterior has"):
        posterior.under(pgp.GPPrior(KERNEL, posterior.prior.X + 1))


def test_jitter_of_what_is_new_alone():
    prior = pgp.GPPrior(pgp.RBF(1.0, 0.7), X)
    start = prior.condition(Y, 0.0, check_scales=False)
    # Once more at a point that is known: without a jitter no factor, and it is rounding beside the variance.
    posterior = start.condition(X[:1], Y[:1], 0.0)
    assert np.array_equal(posterior.jitter[:N], start.jitter)
    assert 0 < posterior.jitter[N] < 1e-9
    close(posterior.mean(TEST), start.mean(TEST), 1e-6)
    with pytest.raises(ValueError, match=r"contradicts itself.* of `X_new`"):
        start.condition(X[:1], Y[:1] + 0.5, 0.0)


OTHERS = {
    "another kernel": lambda: pgp.GPPrior(pgp.RBF(1.4, 0.6), X),
    "other hyperparameters": lambda: pgp.GPPrior(pgp.Matern(2.5, 1.4, 0.7), X),
    "another mean": lambda: pgp.GPPrior(KERNEL, X, mean=1.0),
    "other points": lambda: pgp.GPPrior(KERNEL, X[::-1]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_posterior_of_others(name):
    other = OTHERS[name]().condition(Y, 0.1, capacity=16, check_scales=False)
    paths = draw(PLAIN.start(16))
    for wrong in (
        lambda: paths.condition(other.condition(A, Y_A, 0.1), KEYS[1]),
        lambda: paths.without(other, 0),
        lambda: paths.leave_one_out(other),
    ):
        with pytest.raises(ValueError, match="not that of the paths"):
            wrong()


def full():
    return PLAIN.start(N)


REFUSED = {
    "other noise": (
        lambda: draw(PLAIN.start()).condition(PLAIN.start().prior.condition(Y, 0.2), KEYS[1]),
        "noise differ",
    ),
    "less than the paths": (lambda: draw(PLAIN.start()).condition(PLAIN.start().without(-1), KEYS[1]), "has not"),
    "not theirs": (lambda: draw(PLAIN.start()).without(PLAIN.start().condition(A, Y_A), 0), "Take paths along"),
    "n_new": (lambda: draw(PLAIN.start()).condition(PLAIN.start().condition(A, Y_A), KEYS[1], 3), "`n_new`"),
    "no n_new": (
        lambda: eqx.filter_jit(lambda s, p: s.condition(p, KEYS[1]))(draw(PLAIN.start(16)), PLAIN.start(16)),
        "Under jit `n_new`",
    ),
    "little capacity": (lambda: PLAIN.start(N - 1), "`capacity` must be at least"),
    "capacity of an integral": (lambda: pgp.GPPrior(SMOOTH, AREA).condition([0.3], 0.1, capacity=4), "leave it out"),
    "an integral under jit": (
        lambda: eqx.filter_jit(lambda p: p.condition(AREA, jnp.asarray([0.3]), 0.1))(PLAIN.start(16)),
        "no places",
    ),
    "length": (lambda: PLAIN.start().condition(A, Y), r"`y_new` must have shape \(2,\)"),
    "length of fantasies": (lambda: PLAIN.start().condition(A, jnp.ones((4, 3))), "`y_new` must have shape"),
    "axes of fantasies": (
        lambda: PLAIN.start().condition(A, jnp.ones((4, 2))).condition(B, jnp.ones((3, 2))),
        "do not fit each other",
    ),
    "NaN in X_new": (lambda: PLAIN.start().condition(A.at[0, 0].set(jnp.nan), Y_A), "`X_new` must be finite"),
    "NaN in y_new": (lambda: PLAIN.start().condition(A, Y_A.at[0].set(jnp.nan)), "`y_new` must be finite"),
    "dimension": (lambda: PLAIN.start().condition(A[:, :1], Y_A), "`X_new`"),
    "negative noise": (lambda: PLAIN.start().condition(A, Y_A, -0.1), "`noise_var` must not be negative"),
    "unknown noise": (lambda: ROWS["noise of each"].start().condition(A, Y_A), "`noise_var` must be given"),
    "a part": (lambda: draw(PLAIN.start()).components()[0].condition(PLAIN.start(), KEYS[1]), "A part of a path"),
    "a mean": (lambda: draw(PLAIN.start()).mean_path.condition(PLAIN.start(), KEYS[1]), "`mean_path`"),
    "twice": (lambda: PLAIN.start().without([1, 1]), "each once"),
    "nothing left": (lambda: PLAIN.start().without(range(N)), "no observation"),
    "fractions": (lambda: PLAIN.start().without([0.5]), "whole numbers"),
    "numbers under jit": (
        lambda: eqx.filter_jit(lambda p, i: p.without(i))(PLAIN.start(), jnp.asarray([1])),
        "needs room",
    ),
    "trimmed under jit": (lambda: eqx.filter_jit(lambda p: p.trimmed())(full()), "not known under jit"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    what, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        what()


def test_refused_beyond_the_end():
    with pytest.raises(IndexError, match="there are 8"):
        PLAIN.start(16).without(N)


def test_refused_at_run_time():
    grown = eqx.filter_jit(lambda posterior, X: posterior.condition(X, Y_A, 0.1).mean(TEST))
    with pytest.raises(Exception, match="all places"):
        grown(full(), A)
    taken = eqx.filter_jit(lambda posterior, i: posterior.without(i).mean(TEST))
    with pytest.raises(Exception, match="each once"):
        taken(PLAIN.start(16), jnp.asarray([1, 1]))
    with pytest.raises(Exception, match="n_new"):
        gone_on_under_jit(draw(PLAIN.start(16)), PLAIN.start(16).condition(A, Y_A).condition(B, Y_B), 2)
    with pytest.raises(Exception, match="not that of the paths"):
        other = OTHERS["other hyperparameters"]().condition(Y, 0.1, capacity=16)
        gone_on_under_jit(draw(PLAIN.start(16)), other.condition(A, Y_A), 2)


def test_are_pytrees(tmp_path):
    posterior = PLAIN.start(16).condition(A, Y_A)
    paths = draw(PLAIN.start(16)).condition(posterior, KEYS[1])
    for copied in (
        jax.tree.map(lambda leaf: leaf, (posterior, paths)),
        eqx.filter_jit(lambda both: both)((posterior, paths)),
        pickle.loads(pickle.dumps((posterior, paths))),
        copy.deepcopy((posterior, paths)),
    ):
        close(copied[0].condition(B, Y_B).mean(TEST), posterior.condition(B, Y_B).mean(TEST))
        close(copied[1](TEST), paths(TEST))
    eqx.tree_serialise_leaves(tmp_path / "state", (posterior, paths))
    like = (PLAIN.start(16), draw(PLAIN.start(16)))
    read, again = eqx.tree_deserialise_leaves(tmp_path / "state", like)
    assert int(read.size) == N + 2
    close(again(TEST), paths(TEST))


LOOP = """
import os, signal, sys, pathlib
import equinox as eqx, jax, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
import pathwise_gp as pgp

file, killed_after = pathlib.Path(sys.argv[1] + ".eqx"), int(sys.argv[2])
X = jnp.linspace(0.0, 1.0, 4)[:, None]
posterior = pgp.GPPrior(pgp.RBF(1.0, 0.3), X).condition(jnp.sin(6 * X[:, 0]), 0.01, capacity=12)
paths = pgp.PathwiseSampler(posterior, n_features=32).sample_paths(jax.random.key(0), 3)
state = (posterior, paths, jnp.zeros((), int))
if file.exists():
    state = eqx.tree_deserialise_leaves(file, state)
posterior, paths, done = state
for i in range(int(done), 6):
    key, of_noise = jax.random.split(jax.random.fold_in(jax.random.key(1), i))
    x = jax.random.uniform(key, (1, 1))
    posterior = posterior.condition(x, jnp.sin(6 * x[:, 0]))
    paths = paths.condition(posterior, of_noise)
    eqx.tree_serialise_leaves(file.with_suffix(".new.eqx"), (posterior, paths, jnp.asarray(i + 1, int)))
    os.replace(file.with_suffix(".new.eqx"), file)
    if i + 1 == killed_after:
        os.kill(os.getpid(), signal.SIGKILL)
values = paths(jnp.linspace(0.0, 1.0, 5)[:, None]).ravel().tolist()
print(*values)
"""


def test_a_loop_goes_on_after_it_was_killed(tmp_path, monkeypatch):
    def run(file, killed_after=0):
        command = [sys.executable, "-c", LOOP, str(tmp_path / file), str(killed_after)]
        root = str(pathlib.Path(__file__).parents[1])
        paths = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
        return subprocess.run(
            command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False
        )

    killed = run("killed", 3)
    assert killed.returncode == -signal.SIGKILL
    again = run("killed")
    assert again.returncode == 0, again.stderr
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "whole"), "0"])
    here = {}
    exec(LOOP, here)
    close(list(map(float, again.stdout.split())), here["values"], 1e-12)
    assert len(here["values"]) == 15
