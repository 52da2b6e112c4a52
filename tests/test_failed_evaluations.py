"""Evaluations that failed: at every door NaN or inf in y is an error that says how many, where, and what to do, also where y
is known at run time only; what a mask leaves out may be anything."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO

import pathwise_gp as pgp
from pathwise_gp import numpyro_bridge as bridge, scores
from pathwise_gp.estimator import PathwiseGPRegressor

pytestmark = [pytest.mark.usefixtures("no_hook"), pytest.mark.usefixtures("standard_promotion")]

KEY = jax.random.key(0)
N, NOISE = 5, 0.05
X = np.linspace(-1, 1, N)[:, None]
Y = np.sin(3 * X[:, 0])
OK = np.arange(N) % 3 != 2  # all but the third
KERNEL = pgp.RBF(1.0, 0.6)
PRIOR = pgp.GPPrior(kernel=KERNEL, X=X, mean=0.2, jitter=1e-6)
PRIORS = bridge.lift and pgp.Batched(jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), PRIOR), (2,))
GRID = pgp.MultiOutputGPPrior(kernel=pgp.Coregionalised(KERNEL, [[0.5], [0.4]], [0.3, 0.2]), X=X)
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


def observed(prior, y, mask):
    """The same of a process whose values were observed."""

    def model():
        with handlers.seed(rng_seed=0):
            numpyro.sample("y", NORMAL(bridge.gp_sample("f", prior)).to_event(1), obs=y)

    return model


def two(y):
    return jnp.stack([jnp.asarray(y)] * 2)


# A number made of y and of the mask, or None; whether the door has a mask; what the error is to say.
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
    assert np.isfinite(np.asarray(door(Y))).all()
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
    wanted = np.asarray(door(Y, OK))
    compiled = eqx.filter_jit(door)
    for value in (np.nan, np.inf, -1e300):
        y = spoilt(value)
        np.testing.assert_array_equal(door(y, OK), wanted)
        np.testing.assert_allclose(compiled(jnp.asarray(y), jnp.asarray(OK)), wanted, rtol=1e-9, atol=1e-12)
    # And what is not masked is looked at.
    y = np.where(np.arange(N) == 3, np.nan, spoilt(np.nan))
    with pytest.raises(ValueError, match=r"got [12] NaN or inf entries, the first at index \((0, )?3,?\)"):
        door(y, OK)
    with pytest.raises(eqx.EquinoxRuntimeError, match="`y` must be finite"):
        jax.block_until_ready(compiled(jnp.asarray(y), jnp.asarray(OK)))
