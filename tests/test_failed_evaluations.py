"""Evaluations that failed: at every door NaN or inf in y is an error that says how many, where, and what to do, also where y
is known at run time only; what a mask leaves out may be anything."""

import pathlib
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.special import log_ndtr
from numpyro import handlers
from numpyro.infer import SVI, Trace_ELBO
from scipy import stats

import pathwise_gp as pgp
from pathwise_gp import acquisition, numpyro_bridge as bridge, scores
from pathwise_gp.estimator import PathwiseGPRegressor

pytestmark = [pytest.mark.usefixtures("no_hook"), pytest.mark.usefixtures("standard_promotion")]

KEY = jax.random.key(0)
N, NOISE = 5, 0.05
X = np.linspace(-1, 1, N)[:, None]
Y = np.sin(3 * X[:, 0])
OK = np.arange(N) % 3 != 2  # all but the third
KERNEL = pgp.RBF(1.0, 0.6)
PRIOR = pgp.GPPrior(kernel=KERNEL, X=X, mean=0.2, jitter=1e-6)
PRIORS = pgp.Batched(jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), PRIOR), (2,))
GRID = pgp.GPPrior(kernel=pgp.Coregionalised(KERNEL, [[0.5], [0.4]], [0.3, 0.2]), X=pgp.AllOutputs(X, 2))
SPARSE = pgp.SparseGPPrior(kernel=KERNEL, Z=X[::2], jitter=1e-6)
GUIDE = pgp.WhitenedGuide(jnp.zeros(3), jnp.eye(3))
NORMAL = lambda f: dist.Normal(f, 0.3)
SAMPLES = np.random.default_rng(0).normal(size=(7, N))
PATHS = lambda X: jnp.stack([X[..., 0], -X[..., 0]])


def factor(prior, y, mask=None):
    """The density that a model has of y."""
    with handlers.trace() as trace, handlers.seed(rng_seed=0):
        bridge.gp_factor("obs", prior, y, NOISE, mask)
    return trace["obs"]["fn"].log_prob(trace["obs"]["value"])


def two(y):
    return jnp.stack([jnp.asarray(y)] * 2)


# Numbers made of y, and of a mask where the door has one.
MASKED = {
    "condition": lambda y, mask: PRIOR.condition(y, NOISE, mask).coefficients,
    "log_prob": lambda y, mask: PRIOR.log_prob(y, NOISE, mask),
    "leave one out": lambda y, mask: PRIOR.condition(y, NOISE, mask).leave_one_out().log_density,
    "fit": lambda y, mask: pgp.fit(PRIOR, y, NOISE, mask, max_steps=2).log_density,
    "gp_factor": lambda y, mask: factor(PRIOR, y, mask),
    "gp_factor of a batch": lambda y, mask: factor(PRIORS, two(y), None if mask is None else two(mask)),
}
UNMASKED = {
    "laplace": lambda y: pgp.laplace(PRIOR, y, NORMAL).log_marginal_likelihood,
    "optimal_guide": lambda y: pgp.optimal_guide(SPARSE, X, y, NOISE).mean,
    "elbo": lambda y: pgp.elbo(SPARSE, GUIDE, X, y, NOISE),
    "sgpr_factor": lambda y: handlers.seed(bridge.sgpr_factor, 0)("b", SPARSE, X, y, NOISE),
    "svgp_factor": lambda y: handlers.seed(bridge.svgp_factor, 0)("b", SPARSE, GUIDE, X, y, NORMAL),
    "PredictivePaths": lambda y: bridge.PredictivePaths(PATHS, NORMAL, KEY).log_density(X, y),
}
SCORES = {
    "crps": lambda y: scores.crps(SAMPLES, y),
    "energy_score": lambda y: scores.energy_score(SAMPLES, y),
    "variogram_score": lambda y: scores.variogram_score(SAMPLES, y),
    "log_score": lambda y: scores.log_score(SAMPLES, y, NOISE),
    "interval_score": lambda y: scores.interval_score(SAMPLES, y, 0.5),
    "pit": lambda y: scores.pit(SAMPLES, y),
    "coverage": lambda y: scores.coverage(SAMPLES, y, 0.5),
}
DOORS = (
    {name: (lambda y, door=door: door(y, None), r"`mask=`.*`mask=jnp.isfinite\(y\)`") for name, door in MASKED.items()}
    | {name: (door, r"`X\[ok\]`, `y\[ok\]`.*`gp_factor` take them with a `mask=`") for name, door in UNMASKED.items()}
    | {name: (door, r"`samples\[..., ok\]` and `y\[ok\]`") for name, door in SCORES.items()}
)


def spoilt(*values):
    y = Y.copy()
    y[2 : 2 + len(values)] = values
    return y


@pytest.mark.parametrize("name", DOORS)
def test_every_door_names_what_to_do(name):
    door, words = DOORS[name]
    for values in ([np.nan], [np.inf], [-np.inf, np.nan]):
        where = r"\(0, 2\)" if "batch" in name else r"\(2,\)"
        count = len(values) * (2 if "batch" in name else 1)
        message = rf"`y` must be finite; got {count} NaN or inf entries, the first at index {where}.*{words}"
        for y in (spoilt(*values), jnp.asarray(spoilt(*values))):
            with pytest.raises(ValueError, match=message):
                door(y)
            if "batch" not in name:  # which makes an array of it
                with pytest.raises(ValueError, match=message):
                    jax.jit(lambda _, y=y: door(y))(0.0)  # known, though what is made of it is not


@pytest.mark.parametrize("name", DOORS)
def test_every_door_looks_at_run_time_too(name):
    door, words = DOORS[name]
    compiled = eqx.filter_jit(door)
    assert np.isfinite(np.asarray(compiled(jnp.asarray(Y)))).all()
    for value in (np.nan, np.inf):
        with pytest.raises(eqx.EquinoxRuntimeError, match=rf"`y` must be finite; got NaN or inf.*{words}"):
            jax.block_until_ready(compiled(jnp.asarray(spoilt(value))))


@pytest.mark.parametrize("name", MASKED)
def test_what_is_masked_may_be_anything(name):
    door = MASKED[name]
    # A site of a model is made of many small programs where it is not compiled; in one its data are known all the same.
    known = (lambda y: jax.jit(lambda: door(y, OK))()) if "factor" in name else lambda y: door(y, OK)
    wanted = np.asarray(known(Y))
    compiled = eqx.filter_jit(door)
    for value in (np.nan, np.inf, -1e300):
        y = spoilt(value)
        np.testing.assert_array_equal(known(y), wanted)
        np.testing.assert_allclose(compiled(jnp.asarray(y), jnp.asarray(OK)), wanted, rtol=1e-9, atol=1e-12)
    # And what is not masked is looked at.
    y = np.where(np.arange(N) == 3, np.nan, spoilt(np.nan))
    with pytest.raises(ValueError, match=r"got [12] NaN or inf entries, the first at index \((0, )?3,?\)"):
        door(y, OK)
    with pytest.raises(eqx.EquinoxRuntimeError, match="`y` must be finite"):
        jax.block_until_ready(compiled(jnp.asarray(y), jnp.asarray(OK)))


def test_the_estimator_says_what_to_do():
    with pytest.raises(
        ValueError, match=r"`y` must be finite; got 1 NaN or inf.*at index \(2,\).*`X\[ok\]`, `y\[ok\]`"
    ):
        PathwiseGPRegressor().fit(X, spoilt(np.nan))


def test_several_outputs_are_looked_at():
    y = np.stack([Y, spoilt(np.nan)], axis=1)
    for door in (GRID.condition, GRID.log_prob, lambda y, noise: factor(GRID, y)):
        with pytest.raises(
            ValueError, match=r"`y` must be finite; got 1 NaN or inf entries, the first at index \(2, 1\)\. .*`mask="
        ):
            door(y, NOISE)
    with pytest.raises(Exception, match="`y` must be finite; got NaN or inf"):
        jax.block_until_ready(jax.jit(lambda y: GRID.log_prob(y, NOISE))(jnp.asarray(y)))
    # Those that were not made have no say.
    other = np.where(np.isfinite(y), y, 7.0)
    assert factor(GRID, y, np.isfinite(y)) == factor(GRID, other, np.isfinite(y)) != factor(GRID, other)


def test_a_subsample_with_a_failed_run_stops_the_search():
    def model():
        with numpyro.plate("rows", N, subsample_size=2) as rows:
            pass
        guide = bridge.learn(GUIDE, "mean")
        bridge.svgp_factor(
            "b", SPARSE, guide, jnp.asarray(X)[rows], jnp.asarray(spoilt(np.nan))[rows], NORMAL, n_data=N
        )

    svi = SVI(model, lambda: None, numpyro.optim.Adam(0.01), Trace_ELBO())
    with pytest.raises(Exception, match="`y` must be finite; got"):
        jax.block_until_ready(jax.jit(lambda: svi.run(KEY, 40, progress_bar=False).losses)())


def test_what_is_masked_does_not_count_in_whether_precision_suffices():
    here = X.astype("float32")
    with jax.enable_x64(False):
        prior = pgp.GPPrior(kernel=pgp.RBF(1.0, 0.6), X=here, jitter=1e-3)
        y = np.asarray([1e6 + 0.01, 1e6, np.nan, 1e6 + 0.02, 1e6])  # float64, and single precision has steps of 0.06
        for filler in (0.0, np.nan, np.inf):
            with pytest.raises(ValueError, match=r"`y` has a standard deviation of 0\.00829"):
                prior.condition(np.where(OK, y, filler), 0.1, OK, check_scales=False)
        assert np.isfinite(prior.log_prob(np.where(OK, Y, np.inf), 0.1, OK))
        assert prior.log_prob(np.full(N, np.nan), 0.1, np.zeros(N, bool)) == 0


class Probit(eqx.Module):
    made: jax.Array

    def __call__(self, c):
        return dist.Bernoulli(logits=log_ndtr(c) - log_ndtr(-c)).mask(self.made)


def test_the_mask_of_a_likelihood_is_the_block_that_is_left():
    failed = Y > 0.2
    whole = pgp.laplace(PRIOR, failed, Probit(jnp.asarray(OK)))
    some = pgp.GPPrior(kernel=KERNEL, X=X[OK], mean=0.2, jitter=1e-6)
    part = pgp.laplace(some, failed[OK], Probit(jnp.ones(N - 1, bool)))
    assert whole.converged
    assert part.converged
    np.testing.assert_allclose(whole.log_marginal_likelihood, part.log_marginal_likelihood, rtol=1e-9)
    for a, b in zip(whole.latent_moments(X), part.latent_moments(X), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # with the jitter in f(X)


def test_the_page_learns_where_runs_fail():
    page = pathlib.Path(__file__).parents[1] / "docs" / "pages" / "gallery" / "failed_evaluations.md"
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL):
        exec(block, names)
    at, failed, y, x = np.linspace(0, 1, 21)[:, None], names["failed"], names["y"], np.asarray(names["next_run"])
    assert failed.sum() == 3
    # The objective is that of the runs that succeeded.
    block = pgp.GPPrior(kernel=names["prior"].kernel, X=names["X"][:6]).condition(y[:6], 1e-4)
    np.testing.assert_allclose(names["posterior"].mean(at), block.mean(at), rtol=1e-9)
    # Of a normal c, E Φ(−c) = Φ(−m/√(1 + v)).
    m, v = map(np.asarray, names["failing"].latent_moments(at))
    exact = stats.norm.cdf(-m / np.sqrt(1 + v))
    values = stats.norm.cdf(-np.asarray(names["c"](at)))
    error = 4.5 * values.std(axis=0) / np.sqrt(len(values))
    np.testing.assert_allclose(names["succeeds"](at), values.mean(axis=0), rtol=1e-9)
    assert (np.abs(values.mean(axis=0) - exact) < error + 0.01).all()
    assert exact[:11].min() > 0.75
    assert exact[-5:].max() < 0.25
    # Without the constraint what is best lies past the first run that failed, at 0.75, with it not so far.
    free = np.asarray(acquisition.LogExpectedImprovement(names["paths"], names["best"])(at))
    assert x[0, 0] < 0.75 < at[free.argmax(), 0]
    found = acquisition.ConstrainedExpectedImprovement(names["paths"], names["c"], names["best"], bandwidth=1.0)
    gain = np.maximum(np.asarray(names["best"]) - np.asarray(names["paths"](x)), 0)
    by_hand = gain * stats.norm.cdf(-np.asarray(names["c"](x)))
    np.testing.assert_allclose(found(x), by_hand.mean(axis=0), rtol=1e-9)
