"""The NumPyro bridge: sites, densities, and ensembles of paths."""

import copy
import inspect
import math
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import log_likelihood, MCMC, NUTS, Predictive
from numpyro.infer.util import potential_energy
from scipy import stats

import pathwise_gp as pgp
from pathwise_gp import numpyro_bridge as bridge

N = 12
X = jnp.linspace(-1, 1, N)[:, None]
Y = jnp.sin(3 * X[:, 0]) + 0.1 * jnp.cos(20 * X[:, 0])
TEST = jnp.linspace(-1.5, 1.5, 7)[:, None]
NOISE = 0.02

pytestmark = pytest.mark.usefixtures("standard_promotion")


def model(X, y, noise_var=NOISE):
    kernel = bridge.lift(
        pgp.RBF(variance=1.0, lengthscale=0.3),
        {"variance": dist.LogNormal(0.0, 0.3), "lengthscale": dist.LogNormal(jnp.log(0.4), 0.3)},
    )
    prior = pgp.GPPrior(kernel=kernel, X=X, jitter=1e-4)
    bridge.gp_factor("obs", prior, y, noise_var)
    return prior


def hyperparameters(draws, seed=0):
    keys = jax.random.split(jax.random.key(seed))
    return {
        "RBF.variance": jnp.exp(0.3 * jax.random.normal(keys[0], (draws,))),
        "RBF.lengthscale": 0.4 * jnp.exp(0.3 * jax.random.normal(keys[1], (draws,))),
    }


def run(function, *args, seed=0):
    """The value of a function with sites, and its trace."""
    with handlers.trace() as trace:
        value = handlers.seed(function, seed)(*args)
    return value, trace


def test_lift_makes_sites_and_changes_only_what_it_names():
    kernel = pgp.RBF(1.0, [0.3, 0.4]) * pgp.Periodic(1.0, 0.7, 2.0) + 2.0 * pgp.Matern(1.5, 1.0, 1.0)
    priors = {
        "kernels[0].kernels[0].lengthscale": dist.LogNormal(0.0, 0.3),
        "kernels[1].kernels[1].variance": dist.Uniform(0.0, 1.0),
    }
    lifted, trace = run(lambda: bridge.lift(kernel, priors))
    assert list(trace) == [f"Sum.{address}" for address in priors]
    assert jax.tree.structure(lifted) == jax.tree.structure(kernel)
    np.testing.assert_array_equal(
        lifted.kernels[0].kernels[0].lengthscale, trace["Sum.kernels[0].kernels[0].lengthscale"]["value"]
    )
    assert lifted.kernels[0].kernels[0].lengthscale.shape == (2,)
    assert len(set(np.asarray(lifted.kernels[0].kernels[0].lengthscale))) == 2  # independent over the entries
    changed = [not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(kernel), jax.tree.leaves(lifted), strict=True)]
    assert sum(changed) == 2
    _, trace = run(lambda: bridge.lift(kernel, priors, name="k"))
    assert list(trace) == [f"k.{address}" for address in priors]
    assert bridge.lift(kernel, {}) is kernel


def test_lift_reaches_into_any_module():
    prior = pgp.GPPrior(kernel=pgp.RBF(1.0, 1.0), X=X, mean=3.0)
    priors = {"kernel.lengthscale": dist.Gamma(2.0, 2.0), "mean.value": dist.Normal(0.0, 1.0)}
    lifted, trace = run(lambda: bridge.lift(prior, priors))
    assert list(trace) == ["GPPrior.kernel.lengthscale", "GPPrior.mean.value"]
    assert lifted.mean.value == trace["GPPrior.mean.value"]["value"]
    _, trace = run(lambda: bridge.lift(eqx.nn.Linear(2, 3, key=jax.random.key(0)), {"bias": dist.Normal(0.0, 1.0)}))
    assert trace["Linear.bias"]["value"].shape == (3,)
    guide = pgp.FullRankGuide(jnp.zeros(2), jnp.eye(2))
    _, trace = run(lambda: bridge.lift(guide, {"mean": dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2))}))
    assert trace["FullRankGuide.mean"]["value"].shape == (2,)


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize(
    ("priors", "words"),
    [
        ({"lengthscal": dist.LogNormal(0.0, 1.0)}, r"'lengthscal', which is not a field of RBF.*variance.*lengthscale"),
        ({"kernels[0].variance": dist.LogNormal(0.0, 1.0)}, "not a field of RBF"),
        ({0: dist.LogNormal(0.0, 1.0)}, "not a field of RBF"),
        ({"lengthscale": dist.LogNormal(0.0, 1.0), " lengthscale": dist.LogNormal(0.0, 1.0)}, "twice.*variance"),
        ({"lengthscale": dist.Normal(0.0, 1.0)}, r"`RBF.lengthscale` has support.*positive.*LogNormal.*variance"),
        ({"lengthscale": dist.Uniform(-0.1, 1.0)}, "beyond the field's domain"),
        ({"lengthscale": dist.Uniform(-1e-3, 1e6)}, "beyond the field's domain"),
        ({"lengthscale": dist.TruncatedNormal(1.0, 1.0, low=-1e-3)}, "beyond the field's domain"),
        ({"lengthscale": dist.Poisson(3.0)}, "beyond the field's domain"),
        ({"lengthscale": dist.LogNormal(0.0, 1.0).expand([2])}, r"drew shape \(2,\) for a field of shape \(\)"),
        ({"lengthscale": 1.0}, "must be a NumPyro distribution; got float"),
    ],
)
def test_lift_refuses(priors, words):
    with pytest.raises(ValueError, match=words):
        run(lambda: bridge.lift(pgp.RBF(1.0, 1.0), priors))


@pytest.mark.parametrize(
    "prior",
    [
        dist.HalfNormal(1.0),
        dist.Gamma(2.0, 1.0),
        dist.InverseGamma(2.0, 1.0),
        dist.Uniform(0.1, 2.0),
        dist.Beta(2.0, 2.0),
        dist.TruncatedNormal(1.0, 1.0, low=0.0),
        dist.HalfCauchy(1.0),
        dist.Weibull(1.0, 2.0),
        dist.TransformedDistribution(dist.Normal(0.0, 1.0), dist.transforms.SoftplusTransform()),
    ],
)
def test_lift_takes_any_positive_prior(prior):
    kernel, _ = run(lambda: bridge.lift(pgp.RBF(1.0, 1.0), {"lengthscale": prior}))
    assert kernel.lengthscale > 0


def test_names_are_not_shared():
    def twice():
        for _ in range(2):
            bridge.lift(pgp.RBF(1.0, 1.0), {"lengthscale": dist.LogNormal(0.0, 1.0)})

    with pytest.raises(AssertionError, match=r"RBF\.lengthscale"):
        run(twice)


def test_gp_factor_is_the_marginal_likelihood():
    sample = {site: value[0] for site, value in hyperparameters(1).items()}
    trace = handlers.trace(handlers.substitute(handlers.seed(model, 0), sample)).get_trace(X, Y)
    K = float(sample["RBF.variance"]) * np.exp(-0.5 * ((X - X.T) / float(sample["RBF.lengthscale"])) ** 2)
    wanted = stats.multivariate_normal(np.zeros(N), K + (NOISE + 1e-4) * np.eye(N))
    site = trace["obs"]
    assert site["is_observed"]
    np.testing.assert_allclose(site["fn"].log_prob(site["value"]), wanted.logpdf(np.asarray(Y)), rtol=1e-10)
    two = jnp.stack([Y, 2 * Y])
    np.testing.assert_allclose(site["fn"].log_prob(two), wanted.logpdf(np.asarray(two)), rtol=1e-10)
    np.testing.assert_allclose(site["fn"].variance, np.diagonal(wanted.cov), rtol=1e-12)
    draws = np.asarray(site["fn"].sample(jax.random.key(0), (4000,)))
    covariance = draws[:, :, None] * draws[:, None, :]
    error = np.abs(covariance.mean(0) - wanted.cov)
    assert np.all(error < 4 * covariance.std(0) / math.sqrt(len(draws)))
    assert type(site["fn"])(*(getattr(site["fn"], f) for f in ("prior", "noise_var"))).event_shape == (N,)


def test_gp_factor_in_numpyro_utilities():
    samples = hyperparameters(3)
    densities = log_likelihood(model, samples, X, Y)
    assert densities["obs"].shape == (3,)
    prior_predictive = Predictive(model, num_samples=4)(jax.random.key(0), X, None)
    assert prior_predictive["obs"].shape == (4, N)
    conditioned = handlers.condition(model, {"obs": Y})
    (_, with_condition), (_, plain) = run(conditioned, X, None), run(model, X, Y)
    np.testing.assert_allclose(
        with_condition["obs"]["fn"].log_prob(with_condition["obs"]["value"]),
        plain["obs"]["fn"].log_prob(plain["obs"]["value"]),
    )
    _, scoped = run(handlers.scope(model, prefix="a"), X, Y)
    assert set(scoped) == {"a/RBF.variance", "a/RBF.lengthscale", "a/obs"}


def test_gp_factor_is_minus_infinity_where_the_covariance_fails():
    def density(variance):
        prior = pgp.GPPrior(kernel=pgp.RBF(1.0, 1.0), X=X, jitter=1e-6)
        # A negative variance cannot come from a lifted field; it stands in for a factorisation that fails.
        prior = eqx.tree_at(lambda p: p.kernel.variance, prior, variance)
        return bridge.GPMarginal(prior, NOISE).log_prob(Y)

    value, gradient = jax.value_and_grad(density)(jnp.asarray(-1.0))
    assert value == -jnp.inf
    assert gradient == 0
    assert np.isfinite(density(jnp.asarray(1.0)))


@pytest.mark.parametrize("share_features", [True, False])
def test_ensemble_is_a_loop_over_draws(share_features):
    samples, key, settings = hyperparameters(5), jax.random.key(3), {"share_features": share_features}
    ensemble = bridge.posterior_paths(model, samples, key, X, Y, n_paths=3, n_features=20, **settings)
    values = ensemble(TEST)
    assert values.shape == (5, 3, 7)
    assert (len(ensemble), ensemble.shape) == (5, (5, 3))
    for i, paths in enumerate(ensemble):
        kernel = pgp.RBF(samples["RBF.variance"][i], samples["RBF.lengthscale"][i])
        posterior = pgp.GPPrior(kernel=kernel, X=X, jitter=1e-4).condition(Y, NOISE)
        wanted = pgp.PathwiseSampler(posterior, 20, **settings).sample_paths(
            jax.random.split(jax.random.fold_in(key, i))[1], 3
        )
        np.testing.assert_allclose(values[i], wanted(TEST), rtol=0, atol=1e-10)
        np.testing.assert_allclose(paths(TEST), values[i], rtol=0, atol=1e-12)
        np.testing.assert_allclose(ensemble.mean_path(TEST)[i], posterior.mean(TEST), rtol=0, atol=1e-10)
    assert ensemble.mean_path.shape == (5,)
    np.testing.assert_array_equal(ensemble[1:3](TEST), values[1:3])
    np.testing.assert_array_equal(ensemble[jnp.asarray([4, 0])](TEST), values[jnp.asarray([4, 0])])
    np.testing.assert_allclose(ensemble[-1](TEST), values[-1], rtol=0, atol=1e-12)
    assert ensemble(TEST[0]).shape == (5, 3)
    assert ensemble(TEST.reshape(7, 1, 1)).shape == (5, 3, 7, 1)
    with pytest.raises(IndexError, match="there are 5"):
        ensemble[5]


def test_ensemble_is_a_pytree_that_stores_the_inputs_once(tmp_path):
    ensemble = bridge.posterior_paths(model, hyperparameters(4), jax.random.key(0), X, Y, n_paths=2, n_features=10)
    assert ensemble.common.inputs.shape == (N, 1)
    assert ensemble.varying.inputs is None
    leaves = jax.tree.leaves(ensemble)
    assert sum(leaf.shape == (4, N, 1) for leaf in leaves) == 0
    values = ensemble(TEST)
    np.testing.assert_array_equal(eqx.filter_jit(lambda e: e(TEST))(ensemble), values)
    for again in (jax.tree.map(lambda x: x, ensemble), copy.deepcopy(ensemble), pickle.loads(pickle.dumps(ensemble))):
        assert jax.tree.structure(again) == jax.tree.structure(ensemble)
        np.testing.assert_array_equal(again(TEST), values)
    eqx.tree_serialise_leaves(tmp_path / "ensemble.eqx", ensemble)
    blank = jax.tree.map(jnp.zeros_like, ensemble)
    np.testing.assert_array_equal(eqx.tree_deserialise_leaves(tmp_path / "ensemble.eqx", blank)(TEST), values)
    slope = jax.jvp(ensemble, (TEST,), (jnp.ones_like(TEST),))[1]
    step = (ensemble(TEST + 1e-6) - ensemble(TEST - 1e-6)) / 2e-6
    np.testing.assert_allclose(slope, step, rtol=0, atol=1e-7)


def test_neither_the_chunk_nor_later_draws_change_a_path():
    samples, key = hyperparameters(6), jax.random.key(1)
    settings = {"n_paths": 2, "n_features": 10}
    values = bridge.posterior_paths(model, samples, key, X, Y, **settings)(TEST)
    for chunk_size in (1, 5):
        other = bridge.posterior_paths(model, samples, key, X, Y, chunk_size=chunk_size, **settings)
        np.testing.assert_allclose(other(TEST), values, rtol=0, atol=1e-10)
    fewer = {site: value[:2] for site, value in samples.items()}
    np.testing.assert_allclose(
        bridge.posterior_paths(model, fewer, key, X, Y, **settings)(TEST), values[:2], rtol=0, atol=1e-10
    )
    raw = bridge.posterior_paths(model, samples, jax.random.PRNGKey(1), X, Y, **settings)
    np.testing.assert_allclose(raw(TEST), values, rtol=0, atol=1e-10)


def test_new_draws_keys_data_and_floats_do_not_compile_again():
    traces = []

    def counted(X, y, noise_var):
        traces.append(None)
        return model(X, y, noise_var)

    for seed in range(3):
        key = jax.random.key(seed)
        bridge.posterior_paths(counted, hyperparameters(3, seed), key, X, Y + seed, 0.1 * (1 + seed), n_features=8)
    first = len(traces)
    bridge.posterior_paths(counted, hyperparameters(3), jax.random.key(9), X, Y, 0.7, n_features=8)
    assert len(traces) == first <= 4  # to see what is returned, what varies, and what does not; and in the loop


def test_the_ensemble_has_the_mixture_moments():
    samples = hyperparameters(400)
    ensemble = bridge.posterior_paths(model, samples, jax.random.key(5), X, Y, n_paths=4, n_features=64)
    values = np.asarray(ensemble(TEST))

    def closed(variance, lengthscale):
        posterior = pgp.GPPrior(kernel=pgp.RBF(variance, lengthscale), X=X, jitter=1e-4).condition(Y, NOISE)
        return posterior.mean(TEST), posterior.variance(TEST)

    means, variances = map(np.asarray, jax.vmap(closed)(samples["RBF.variance"], samples["RBF.lengthscale"]))
    # Given the draws, values have these means and variances: compare sums over draws with their standard errors.
    error = (values.mean(1) - means).mean(0)
    np.testing.assert_array_less(np.abs(error), 4 * np.sqrt(variances.mean(0) / values[..., 0].size))
    squares = (values - means[:, None]) ** 2
    spread = squares.std(axis=(0, 1)) / math.sqrt(squares[..., 0].size / 4)  # the four paths of a draw share features
    np.testing.assert_array_less(np.abs(squares.mean(axis=(0, 1)) - variances.mean(0)), 4 * spread)


@pytest.mark.parametrize("share_features", [True, False])
def test_parts_of_an_ensemble_are_those_of_its_members(share_features):
    def additive(X, y):
        variance = numpyro.sample("variance", dist.LogNormal(0.0, 0.5))
        kernel = pgp.RBF(variance, 0.5) + pgp.Linear(0.7) + pgp.Matern(1.5, 0.3, 0.4) + pgp.White(0.01)
        prior = pgp.GPPrior(kernel=kernel, X=X, mean=0.3, jitter=1e-4)
        bridge.gp_factor("obs", prior, y, NOISE)
        return prior

    # The shares of the frequencies vary with the variances.
    samples = {"variance": jnp.asarray([0.1, 1.0, 10.0])}
    settings = {"n_paths": 2, "n_features": 24, "share_features": share_features}
    ensemble = bridge.posterior_paths(additive, samples, jax.random.key(0), X, Y, **settings)
    parts = ensemble.components()
    assert [part.shape for part in parts] == [(3, 2)] * 5  # four terms and the mean
    np.testing.assert_allclose(sum(np.asarray(part(TEST)) for part in parts), ensemble(TEST), atol=1e-10)
    for i in range(3):
        for part, own in zip(parts, ensemble[i].components(), strict=True):
            np.testing.assert_allclose(part[i](TEST), own(TEST), atol=1e-11)
            np.testing.assert_allclose(part.mean_path[i](TEST), own.mean_path(TEST), atol=1e-11)
    assert parts[0].common.inputs is not None  # stored once


def latent(X, y):
    kernel = bridge.lift(pgp.RBF(1.0, 0.4), {"variance": dist.LogNormal(0.0, 0.3)})
    prior = pgp.GPPrior(kernel=kernel, X=X, mean=0.5, jitter=1e-6)
    f = bridge.gp_sample("f", prior)
    numpyro.sample("y", dist.Poisson(jnp.exp(f)), obs=y)
    return prior


def test_gp_sample_is_a_whitened_process_and_its_paths_go_through_it():
    counts = jnp.ones(N, int)
    prior, trace = run(latent, X, counts)
    assert list(trace) == ["RBF.variance", "f.white", "f", "y"]
    L = np.linalg.cholesky(np.asarray(prior.kernel(X, X)) + 1e-6 * np.eye(N))
    np.testing.assert_allclose(trace["f"]["value"], 0.5 + L @ np.asarray(trace["f.white"]["value"]), atol=1e-10)
    samples = {"RBF.variance": hyperparameters(3)["RBF.variance"]}
    samples["f.white"] = jax.random.normal(jax.random.key(0), (3, N))
    ensemble = bridge.posterior_paths(latent, samples, jax.random.key(1), X, counts, n_paths=4, n_features=200)
    for i, variance in enumerate(samples["RBF.variance"]):
        A = np.asarray(pgp.RBF(variance, 0.4)(X, X)) + 1e-6 * np.eye(N)
        f = 0.5 + np.linalg.cholesky(A) @ np.asarray(samples["f.white"][i])
        # Given f, a path at X is off by the jitter, of standard deviation 1e-3, at the most.
        np.testing.assert_allclose(ensemble[i](X), np.broadcast_to(f, (4, N)), atol=5e-3)
        assert np.asarray(ensemble[i](jnp.asarray([[3.0]]))).std() > 0.1


@pytest.mark.usefixtures("no_hook")
def test_posterior_paths_refuses():
    samples, key = hyperparameters(3), jax.random.key(0)
    one_missing = {"RBF.variance": samples["RBF.variance"]}
    with pytest.raises(ValueError, match=r"no values for the site\(s\) RBF.lengthscale"):
        bridge.posterior_paths(model, one_missing, key, X, Y)
    with pytest.raises(ValueError, match=r"no values for the site\(s\) obs.*observations"):
        bridge.posterior_paths(model, samples, key, X, None)
    with pytest.raises(ValueError, match="one leading axis of draws in common"):
        bridge.posterior_paths(model, one_missing | {"RBF.lengthscale": jnp.ones(2)}, key, X, Y)
    with pytest.raises(ValueError, match="one leading axis of draws in common"):
        bridge.posterior_paths(model, {}, key, X, Y)
    with pytest.raises(ValueError, match=r"must return the prior.*got NoneType"):
        bridge.posterior_paths(lambda X, y: [model(X, y)][1:].append(0), samples, key, X, Y)

    def other(X, y):
        model(X, y)
        return pgp.GPPrior(kernel=pgp.RBF(1.0, 1.0), X=X)

    with pytest.raises(ValueError, match=r"that 0 of its.*Return the very prior"):
        bridge.posterior_paths(other, samples, key, X, Y)
    for argument in ("n_paths", "n_features", "chunk_size"):
        with pytest.raises(ValueError, match=f"`{argument}` must be at least 1"):
            bridge.posterior_paths(model, samples, key, X, Y, **{argument: 0})
    with pytest.raises(ValueError, match="`gp_factor` needs a GPPrior"):
        run(lambda: bridge.gp_factor("obs", pgp.RBF(1.0, 1.0), Y, NOISE))
    with pytest.raises(ValueError, match=r"`y` must have shape \(12,\)"):
        run(model, X, Y[:1])
    with pytest.raises(ValueError, match="`noise_var` must not be negative"):
        run(lambda: model(X, Y, -0.1))


@pytest.mark.usefixtures("no_hook")
def test_replay_takes_only_what_was_drawn():
    samples, key = hyperparameters(2), jax.random.key(0)

    def replay(model, samples=samples):
        return bridge.posterior_paths(model, samples, key, X, Y, n_features=8)

    def twice(X, y):
        prior = model(X, y)
        bridge.gp_factor("again", prior, y, NOISE)
        return prior

    def with_param(X, y):
        return model(X, y, numpyro.param("noise", 0.1))

    with pytest.raises(ValueError, match=r"that 2 of its.*condition it in the model"):
        replay(twice)
    with pytest.raises(ValueError, match=r"no values for the site\(s\) noise"):
        replay(with_param)
    assert replay(with_param, samples | {"noise": jnp.full(2, 0.1)})(TEST).shape == (2, 1, 7)
    with pytest.raises(ValueError, match=r"site\(s\) obs, which the model observes"):
        replay(model, samples | {"obs": jnp.ones((2, N))})
    with pytest.raises(ValueError, match=r"`RBF.variance` drew shape \(2,\).*Flatten chains"):
        replay(model, {site: value.reshape(1, 2) for site, value in samples.items()})

    def with_sampled_noise(X, y):
        return model(X, y, numpyro.sample("noise", dist.LogNormal(-3.0, 0.1)))

    with pytest.raises(
        ValueError, match=r"`noise` has shape \(\), but its value in a draw has \(12,\).*group_by_chain=True"
    ):
        replay(with_sampled_noise, samples | {"noise": jnp.full((2, N), 0.1)})
    with pytest.raises(ValueError, match="has been masked"):
        replay(handlers.mask(model, mask=False))
    with pytest.raises(Exception, match="`noise_var` must not be negative"):
        jax.block_until_ready(replay(lambda X, y: model(X, y, -0.05)).varying)


@pytest.mark.usefixtures("no_hook")
def test_processes_do_not_go_into_plates():
    prior = pgp.GPPrior(kernel=pgp.RBF(1.0, 1.0), X=X)

    def in_plate(function):
        with numpyro.plate("p", 3):
            function()

    with pytest.raises(ValueError, match="cannot be a site in a plate of shape"):
        run(in_plate, lambda: bridge.gp_factor("obs", prior, Y, NOISE))
    with pytest.raises(ValueError, match=r"cannot be a site in a plate.*`Batched` prior"):
        run(in_plate, lambda: bridge.gp_sample("f", prior))


def test_support_is_looked_at_under_jit():
    def lifted(key):
        with handlers.seed(rng_seed=key):
            return bridge.lift(pgp.RBF(1.0, 1.0), {"lengthscale": dist.Normal(0.0, 1.0)}).lengthscale

    with pytest.raises(ValueError, match="beyond the field's domain"):
        jax.jit(lifted)(jax.random.key(0))


class Network(eqx.Module):
    layer: eqx.nn.MLP

    def __call__(self, x):
        return jax.vmap(self.layer)(x)


@pytest.mark.parametrize(
    "mean", [lambda x: 2 * x[..., 0], Network(eqx.nn.MLP(1, "scalar", 4, 1, key=jax.random.key(0)))]
)
def test_any_mean_goes_through_posterior_paths(mean):
    def with_mean(X, y):
        kernel = bridge.lift(pgp.RBF(1.0, 0.4), {"variance": dist.LogNormal(0.0, 0.3)})
        prior = pgp.GPPrior(kernel=kernel, X=X, mean=mean, jitter=1e-4)
        bridge.gp_factor("obs", prior, y, NOISE)
        return prior

    samples = {"RBF.variance": jnp.asarray([0.8, 1.3])}
    ensemble = bridge.posterior_paths(with_mean, samples, jax.random.key(0), X, Y, n_paths=2, n_features=8)
    posterior = pgp.GPPrior(kernel=pgp.RBF(1.3, 0.4), X=X, mean=mean, jitter=1e-4).condition(Y, NOISE)
    np.testing.assert_allclose(ensemble[1].mean_path(TEST), posterior.mean(TEST), atol=1e-10)
    np.testing.assert_allclose(ensemble.mean_path(TEST)[1], posterior.mean(TEST), atol=1e-10)


def test_a_model_may_return_the_conditioned_process():
    def conditioned(X, y):
        return model(X, y).condition(y, NOISE)

    samples, key = hyperparameters(2), jax.random.key(0)
    settings = {"n_paths": 2, "n_features": 10}
    one = bridge.posterior_paths(conditioned, samples, key, X, Y, **settings)
    other = bridge.posterior_paths(model, samples, key, X, Y, **settings)
    np.testing.assert_allclose(one(TEST), other(TEST), rtol=0, atol=1e-12)


def test_nuts_agrees_with_quadrature_and_ends_in_paths():
    mcmc = MCMC(NUTS(model), num_warmup=200, num_samples=400, progress_bar=False)
    mcmc.run(jax.random.key(0), X, Y)
    samples = mcmc.get_samples()
    # The posterior of two log hyperparameters on a grid of ±4 prior standard deviations.
    z = jnp.linspace(-1.2, 1.2, 41)
    log_v, log_l = jnp.meshgrid(z, z + jnp.log(0.4), indexing="ij")

    def log_joint(log_v, log_l):
        prior = pgp.GPPrior(kernel=pgp.RBF(jnp.exp(log_v), jnp.exp(log_l)), X=X, jitter=1e-4)
        return prior.log_prob(Y, NOISE) - 0.5 * (log_v / 0.3) ** 2 - 0.5 * ((log_l - jnp.log(0.4)) / 0.3) ** 2

    density = jax.vmap(log_joint)(log_v.ravel(), log_l.ravel())
    weights = np.asarray(jax.nn.softmax(density))
    for site, axis in (("RBF.variance", log_v), ("RBF.lengthscale", log_l)):
        values, grid = np.log(np.asarray(samples[site])), np.asarray(axis).ravel()
        mean = weights @ grid
        sd = math.sqrt(weights @ (grid - mean) ** 2)
        n_eff = float(numpyro.diagnostics.effective_sample_size(values[None, :]))
        assert n_eff > 50
        assert abs(values.mean() - mean) < 4 * sd / math.sqrt(n_eff)
        assert abs(values.std() - sd) < 4 * sd / math.sqrt(n_eff)
    ensemble = bridge.posterior_paths(model, samples, jax.random.key(1), X, Y, n_features=32)
    assert np.all(np.isfinite(ensemble(TEST)))


@pytest.mark.parametrize("latent", [False, True])
def test_a_density_outside_of_jit_is_few_programs(latent, caplog):
    """NumPyro looks for a start one operation after the other, each a program of its own: of sizes that no other test has."""

    def potential(n):
        X = np.linspace(-1, 1, n)[:, None]

        def model():
            prior = pgp.GPPrior(bridge.lift(pgp.RBF(1.0, 0.4), {"*": dist.LogNormal(0.0, 0.3)}), X)
            if latent:
                numpyro.sample("y", dist.Normal(bridge.gp_sample("f", prior), 0.3), obs=np.sin(X[:, 0]))
            else:
                bridge.gp_factor("y", prior, np.sin(X[:, 0]), NOISE)

        z = {"RBF.variance": jnp.zeros(()), "RBF.lengthscale": jnp.zeros(())}
        z |= {"f.white": jnp.ones(n)} if latent else {}
        jax.value_and_grad(lambda z: potential_energy(model, (), {}, z))(z)

    potential(13)  # what scalars take, which other tests may have compiled or not
    with jax.log_compiles(), caplog.at_level("WARNING"):
        potential(14 + latent)
    programs = [record.getMessage() for record in caplog.records if "Finished XLA compilation" in record.getMessage()]
    assert 1 <= len(programs) <= 40, programs


def test_public_functions_say_what_they_take():
    for function in (bridge.lift, bridge.gp_factor, bridge.gp_sample, bridge.posterior_paths):
        text = inspect.getdoc(function)
        for word in ("**Arguments:**", "**Returns:**", "**Raises:**"):
            assert word in text
