"""Groups in plates, points that were not observed, several processes in a model, inputs that are not known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, Predictive
from numpyro.infer.util import log_density
from scipy import stats

import pathwise_gp as pgp
from pathwise_gp import numpyro_bridge as bridge

KEY = jax.random.key(0)
N, D, P = 7, 2, 2  # as many groups as dimensions
rng = np.random.default_rng(0)
X = rng.uniform(-1, 1, (N, D))
Y = np.sin(2 * X.sum(1)) + 0.1 * rng.normal(size=N)
XS = rng.uniform(-1, 1, (P, N, D))
YS = np.sin(2 * XS.sum(-1)) + 0.1 * rng.normal(size=(P, N))
MASK = np.arange(N) % 3 != 1
MASKS = np.stack([MASK, np.arange(N) < 5])
TEST = rng.uniform(-1.2, 1.2, (6, D))
NOISE = 0.02
PRIOR = pgp.GPPrior(kernel=pgp.RBF(1.2, [0.7, 0.9]), X=X, mean=0.3, jitter=1e-6)

standard = pytest.mark.usefixtures("standard_promotion")  # for what runs NumPyro


@eqx.filter_jit
def run(function, *args, **values):
    """What a model returns with given values, and the sites."""
    with handlers.trace() as trace:
        returned = handlers.seed(handlers.substitute(function, data=values), 0)(*args)
    return returned, {name: {key: site.get(key) for key in ("type", "fn", "value")} for name, site in trace.items()}


def rest(mask):
    return np.flatnonzero(mask)


@eqx.filter_jit
def of_a_posterior(prior, y, noise, mask, z=None):
    """All that a prior and its posterior say, of observations that may have a mask."""
    density = lambda kernel: eqx.tree_at(lambda p: p.kernel, prior, kernel).log_prob(y, noise, mask)
    posterior = prior.condition(y, noise, mask)
    found = {
        "density": eqx.filter_value_and_grad(density)(prior.kernel),
        "of the posterior": posterior.log_marginal_likelihood(),
        "moments": (posterior.mean(TEST), posterior.variance(TEST), posterior.covariance(TEST)),
        "coefficients": posterior.coefficients,
        "left out": posterior.leave_one_out(),
        "elsewhere": (posterior.mean(X), posterior.variance(X)),
    }
    if z is not None:
        features = PRIOR.kernel.features(64, D, key=KEY, basis=pgp.MonteCarlo())
        weights = jax.random.normal(KEY, (3, features(jnp.asarray(TEST)).shape[-1]))
        paths = pgp.PathwiseSampler(posterior, 64).update(features, weights, z)
        found["paths"] = paths(TEST), paths.marginal_variance(TEST), paths.mean_path(TEST)
        found["error"] = pgp.feature_error(posterior, TEST, 32, features=pgp.MonteCarlo())
    return found


@pytest.mark.parametrize("noise", [NOISE, np.linspace(0.01, 0.1, N)], ids=["one noise", "a noise per point"])
def test_a_mask_is_the_block_that_is_left(noise):
    here = rest(MASK)
    some = np.asarray(noise)[here] if np.ndim(noise) else noise
    block = pgp.GPPrior(kernel=PRIOR.kernel, X=X[here], mean=0.3, jitter=1e-6)
    # Paths are made of the same random numbers.
    z = np.random.default_rng(1).normal(size=(3, N))
    masked = of_a_posterior(PRIOR, np.where(MASK, Y, np.nan), noise, MASK, None if np.ndim(noise) else z)
    dense = of_a_posterior(block, Y[here], some, None, None if np.ndim(noise) else z[:, here])
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    for name in {"density", "of the posterior", "moments", "paths", "error"} & set(masked):
        jax.tree.map(same, masked[name], dense[name])
    same(masked["of the posterior"], masked["density"][0])
    if "paths" in masked:
        same(masked["paths"][2], dense["moments"][0])
    same(np.asarray(masked["coefficients"])[here], dense["coefficients"])
    assert not np.asarray(masked["coefficients"])[~MASK].any()
    left = jax.tree.map(np.asarray, masked["left out"])
    for a, b in zip(left, dense["left out"], strict=True):
        same(a[here], b)
    mean, variance = (np.asarray(part)[~MASK] for part in dense["elsewhere"])
    same(left.mean[~MASK], mean)
    same(left.variance[~MASK], variance + (np.asarray(noise)[~MASK] if np.ndim(noise) else noise) + 1e-6)
    assert not left.log_density[~MASK].any()


def test_a_mask_of_nothing():
    nothing = np.zeros(N, bool)
    none = PRIOR.condition(np.full(N, np.nan), NOISE, nothing)
    np.testing.assert_allclose(none.mean(TEST), np.full(6, 0.3))
    np.testing.assert_allclose(none.variance(TEST), np.full(6, 1.2))
    assert none.log_marginal_likelihood() == PRIOR.log_prob(Y, NOISE, nothing) == 0


LINE, LEVEL = X[:, :1], np.sqrt(5.0 + X[:, 0])
ALONG = np.linspace(LINE[MASK].min(), LINE[MASK].max(), 6)[:, None]


@eqx.filter_jit
def of_a_line(X, y, level, mask):
    kernel = pgp.RBF(1.0, 0.7) + pgp.Linear(0.5)
    mean = lambda X: jnp.sqrt(5.0 + X[:, 0])  # which is NaN at a filler
    prior = pgp.GPPrior(kernel=kernel, X=X, mean=mean)
    posterior = prior.condition(y, NOISE, mask)
    flat = eqx.tree_at(lambda prior: prior.kernel, prior, pgp.RBF(1.0, 50.0))  # which needs some without noise
    density = lambda v: bridge.place(prior, {"kernel.kernels[0].variance": v}).log_prob(y, NOISE, mask)
    return posterior, {
        "jitter": posterior.jitter,
        "jitter without noise": flat.condition(level, 0.0, mask).jitter,
        "free": flat.log_prob(level, 0.0, mask),
        "density": jax.value_and_grad(density)(1.0),
        "variance": posterior.variance(ALONG),
    }


@eqx.filter_jit
def of_a_basis(posterior, basis):
    paths = pgp.PathwiseSampler(posterior, 64, features=basis).sample_paths(KEY, 2)
    return paths.marginal_variance(ALONG), paths(ALONG), pgp.feature_error(posterior, ALONG, 64, features=basis)


@pytest.mark.parametrize("filler", [-999.0, 1e6])
def test_a_mask_whatever_stands_where_nothing_was_observed(filler):
    """Neither the default jitter, nor the box of a basis, nor a mean follows inputs that fill up the shape."""
    observed = lambda values: np.where(MASK, values, np.nan)
    filled, a = of_a_line(np.where(MASK[:, None], LINE, filler), observed(Y), observed(LEVEL), MASK)
    block, b = of_a_line(LINE[MASK], Y[MASK], LEVEL[MASK], None)
    for name in ("jitter", "jitter without noise"):
        np.testing.assert_allclose(np.asarray(a[name])[MASK], b[name], rtol=1e-12)
    assert np.all(np.asarray(b["jitter without noise"]) > 0)
    np.testing.assert_array_equal(np.asarray(a["jitter without noise"])[~MASK], 0)
    # Of pivots that are rounding: 10·n·eps was added, a pivot is known to some eps, and half of its logarithm counts.
    np.testing.assert_allclose(a["free"], b["free"], atol=0.05)
    np.testing.assert_allclose(a["density"], b["density"], rtol=1e-8)
    np.testing.assert_allclose(a["variance"], b["variance"], rtol=1e-8, atol=1e-10)
    for basis in (pgp.MonteCarlo(), pgp.HilbertSpace()):
        (variance, values, error), (wanted, _, wanted_error) = (of_a_basis(p, basis) for p in (filled, block))
        np.testing.assert_allclose(variance, wanted, rtol=1e-6, atol=1e-8)
        assert np.isfinite(values).all()
        np.testing.assert_allclose(error, wanted_error, rtol=0.3, atol=1e-6)  # the centre is a weighted one


def grouped(XS, YS, masks=None, scalar=True):
    """A process for each group: a common variance, a lengthscale and a noise of its own for each."""
    kernel = bridge.lift(pgp.RBF(1.0, 1.0 if scalar else [1.0, 1.0]), {"variance": dist.LogNormal(0.0, 0.3)})
    with numpyro.plate("groups", len(XS)):
        kernel = bridge.lift(kernel, {"lengthscale": dist.LogNormal(-0.3, 0.3)})
        noise = numpyro.sample("noise", dist.LogNormal(-4.0, 0.3))
        prior = kernel.map(lambda kernel, X: pgp.GPPrior(kernel=kernel, X=X, jitter=1e-6), XS)
        bridge.gp_factor("obs", prior, YS, noise, masks)
    return prior


@standard
@pytest.mark.parametrize("scalar", [True, False], ids=["one lengthscale", "one per dimension"])
@pytest.mark.parametrize("masked", [False, True], ids=["all", "ragged"])
def test_groups_in_a_plate_are_a_loop_over_them(scalar, masked):
    scales = np.asarray([0.5, 0.8]) if scalar else np.asarray([[0.5, 0.6], [0.7, 0.8]])
    values = {"RBF.variance": np.asarray(1.3), "RBF.lengthscale": scales, "noise": np.asarray([0.02, 0.03])}
    y, masks = (np.where(MASKS, YS, np.nan), MASKS) if masked else (YS, None)

    @jax.jit
    def densities(values):
        def model():
            prior = grouped(XS, y, masks, scalar)
            assert prior.batch_shape == (P,)
            assert prior[1].kernel.lengthscale.shape == (() if scalar else (D,))
            return numpyro.deterministic("second", prior[1].kernel.lengthscale)

        total, trace = log_density(model, (), {}, values)
        fn = trace["RBF.lengthscale"]["fn"]
        assert fn.batch_shape == trace["obs"]["fn"].batch_shape == (P,)
        assert fn.event_shape == (() if scalar else (D,))
        return total, trace["obs"]["fn"].log_prob(trace["obs"]["value"]), trace["second"]["value"]

    total, density, second = (np.asarray(part) for part in densities(values))
    assert density.shape == (P,)
    np.testing.assert_array_equal(second, scales[1])
    assert jax.eval_shape(lambda: grouped_drawn(scalar)).shape == scales.shape
    for g in range(P):
        here = rest(MASKS[g]) if masked else np.arange(N)
        one = pgp.GPPrior(kernel=pgp.RBF(1.3, scales[g]), X=XS[g][here], jitter=1e-6)
        np.testing.assert_allclose(density[g], one.log_prob(YS[g][here], values["noise"][g]), rtol=1e-12)
    # The whole density, with that of the hyperparameters.
    law = lambda mean, x: stats.lognorm(0.3, scale=np.exp(mean)).logpdf(x).sum()
    expected = density.sum() + law(0.0, 1.3) + law(-0.3, scales) + law(-4.0, values["noise"])
    np.testing.assert_allclose(total, expected, rtol=1e-12)


def grouped_drawn(scalar):
    return handlers.seed(grouped, 0)(XS, YS, None, scalar).stacked.kernel.lengthscale


@standard
def test_groups_end_in_paths():
    draws = {
        "RBF.variance": np.asarray([1.1, 1.3, 0.9]),
        "RBF.lengthscale": np.asarray([[0.5, 0.8], [0.6, 0.7], [0.9, 0.4]]),
        "noise": np.full((3, P), 0.02),
    }
    ensemble = bridge.posterior_paths(grouped, draws, KEY, XS, YS, MASKS, n_paths=4, n_features=32)
    assert ensemble.shape == (3, P, 4)
    values = np.asarray(ensemble(TEST))
    assert values.shape == (3, P, 4, 6)
    left = np.asarray(bridge.leave_one_out(grouped, draws, KEY, XS, YS, MASKS))
    means = np.asarray(ensemble.mean_path(TEST))
    assert left.shape == (3, P, N)
    for i in range(3):
        for g in range(P):
            here = rest(MASKS[g])
            kernel = pgp.RBF(draws["RBF.variance"][i], draws["RBF.lengthscale"][i, g])
            one = pgp.GPPrior(kernel=kernel, X=XS[g][here], jitter=1e-6).condition(YS[g][here], 0.02)
            np.testing.assert_allclose(means[i, g], one.mean(TEST), rtol=1e-8, atol=1e-10)
            np.testing.assert_allclose(left[i, g][here], one.leave_one_out().log_density, rtol=1e-8)
    one = ensemble[2][1]
    np.testing.assert_allclose(one(TEST), values[2, 1], rtol=1e-9, atol=1e-11)
    # Paths go through what was observed, to within the noise.
    everywhere = np.asarray(ensemble(XS))
    for g in range(P):
        assert np.abs(everywhere[:, g, :, g] - YS[g])[..., MASKS[g]].max() < 6 * np.sqrt(0.02)
    # A posterior made in the model is the same.
    conditioned = lambda *args: grouped(*args).map(lambda p, y, m: p.condition(y, 0.02, m), YS, MASKS)
    again = bridge.posterior_paths(conditioned, draws, KEY, XS, YS, MASKS, n_paths=4, n_features=32)
    np.testing.assert_allclose(again(TEST), values, rtol=1e-8, atol=1e-9)


@standard
def test_nested_plates():
    def nested():
        kernel = pgp.RBF(1.0, 1.0)
        with numpyro.plate("a", 3):
            kernel = bridge.lift(kernel, {"variance": dist.LogNormal(0.0, 0.3)})
            assert kernel.batch_shape == (3,)
            with numpyro.plate("b", 2):
                scale = numpyro.sample("scale", dist.Normal(0.0, 0.1))
                kernel = bridge.lift(kernel, {"lengthscale": dist.LogNormal(scale, 0.3)})
                prior = kernel.map(lambda kernel: pgp.GPPrior(kernel=kernel, X=X, jitter=1e-6))
                f = bridge.gp_sample("f", prior)
                numpyro.sample("y", dist.Bernoulli(logits=f).to_event(1), obs=jnp.ones((2, 3, N)))
        return prior

    prior, trace = run(nested)
    assert prior.batch_shape == trace["f.white"]["fn"].batch_shape == (2, 3)
    value = {name: np.asarray(site["value"]) for name, site in trace.items() if site["type"] != "plate"}
    variance, lengthscale = value["RBF.variance"], value["RBF.lengthscale"]
    assert (variance.shape, lengthscale.shape) == ((3,), (2, 3))
    kernel = prior[1][2].kernel
    assert (kernel.variance, kernel.lengthscale) == (variance[2], lengthscale[1, 2])
    lower = np.linalg.cholesky(np.asarray(kernel(X, X)) + 1e-6 * np.eye(N))
    np.testing.assert_allclose(value["f"][1, 2], lower @ value["f.white"][1, 2], rtol=1e-9)
    draws = {name: value[name][None] for name, site in trace.items() if site["type"] == "sample" and name != "y"}
    ensemble = bridge.posterior_paths(nested, draws, KEY, n_features=16)
    assert ensemble.shape == (1, 2, 3, 1)
    # Latent values are met but for the jitter, of standard deviation 1e-3.
    np.testing.assert_allclose(np.asarray(ensemble(X))[0, :, :, 0], value["f"], atol=6e-3)


@standard
def test_groups_under_nuts_and_in_utilities():
    mcmc = MCMC(NUTS(grouped), num_warmup=30, num_samples=10, progress_bar=False)
    mcmc.run(KEY, XS, YS, MASKS)
    samples = mcmc.get_samples()
    assert samples["RBF.lengthscale"].shape == (10, P)
    assert np.isfinite(samples["RBF.lengthscale"]).all()
    paths = lambda samples: bridge.posterior_paths(grouped, samples, KEY, XS, YS, MASKS, n_features=8)
    assert eqx.filter_eval_shape(lambda samples: paths(samples)(TEST), samples).shape == (10, P, 1, 6)
    assert jax.eval_shape(Predictive(grouped, samples), KEY, XS, None)["obs"].shape == (10, P, N)

    # Draws of the prior have the moments that the distribution states.
    @jax.jit
    def drawn():
        with handlers.trace() as trace:
            assert handlers.seed(grouped, 0)(XS, YS).batch_shape == (P,)
        marginal = trace["obs"]["fn"]
        draws = marginal.sample(KEY, (4000,))
        density = marginal.log_prob(draws[:5]), marginal.log_prob(draws[3])
        return marginal.mean, marginal.variance, draws, density

    mean, variance, draws, (five, fourth) = jax.tree.map(np.asarray, drawn())
    assert draws.shape == (4000, P, N)
    np.testing.assert_array_less(np.abs(draws.mean(0) - mean), 4.5 * np.sqrt(variance) / 4000**0.5)
    np.testing.assert_allclose(draws.var(0), variance, rtol=4.5 * (2 / 4000) ** 0.5)
    assert five.shape == (5, P)
    np.testing.assert_allclose(five[3], fourth, rtol=1e-10)


def test_batches_are_made_by_place_too():
    draws = {"RBF.lengthscale": np.asarray([0.5, 0.7, 0.9]), "RBF.variance": 2.0}
    kernels = bridge.place(pgp.RBF(1.0, 1.0), draws, batch_shape=(3,))
    assert isinstance(kernels, pgp.Batched)
    assert len(kernels) == 3
    values = eqx.filter_jit(lambda kernels: kernels.map(lambda kernel: kernel(X, X)))(kernels)
    assert values.shape == (3, N, N)
    for kernel, scale, value in zip(kernels, draws["RBF.lengthscale"], values, strict=True):
        assert kernel.lengthscale == scale
        np.testing.assert_allclose(value, pgp.RBF(2.0, scale)(X, X), rtol=1e-12)
    np.testing.assert_array_equal(kernels[1:].stacked.lengthscale, [0.7, 0.9])
    np.testing.assert_array_equal(kernels[np.asarray([2, 0])].stacked.lengthscale, [0.9, 0.5])
    again = bridge.place(kernels, {"lengthscale": [1.0, 2.0, 3.0]})
    np.testing.assert_array_equal(again.stacked.lengthscale, [1.0, 2.0, 3.0])
    assert list(bridge.sites(kernels)) == ["RBF.variance", "RBF.lengthscale"]
    _, trace = run(lambda: bridge.learn(kernels, "*"))
    np.testing.assert_allclose(trace["RBF.lengthscale"]["value"], draws["RBF.lengthscale"])


@standard
def test_several_processes_in_a_model():
    def several(X, y):
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.3))  # of both
        first = pgp.GPPrior(kernel=bridge.place(pgp.RBF(1.0, 1.0), {"lengthscale": scale}), X=X, jitter=1e-6)
        second = pgp.GPPrior(
            kernel=bridge.place(pgp.Matern(1.5, 1.0, 1.0), {"lengthscale": 2 * scale}), X=X, jitter=1e-6
        )
        bridge.gp_factor("y", first, y, NOISE)
        g = bridge.gp_sample("g", second)
        numpyro.sample("counts", dist.Poisson(jnp.exp(g)).to_event(1), obs=jnp.arange(N))
        return {"y": first, "rate": (second,)}

    z = np.random.default_rng(1).normal(size=(2, N))
    draws = {"scale": np.asarray([0.8, 1.2]), "g.white": z}
    found = bridge.posterior_paths(several, draws, KEY, X, Y, n_paths=3, n_features=32)
    assert found["y"].shape == found["rate"][0].shape == (2, 3)
    one = pgp.GPPrior(kernel=pgp.RBF(1.0, 1.2), X=X, jitter=1e-6).condition(Y, NOISE)
    np.testing.assert_allclose(np.asarray(found["y"].mean_path(TEST))[1], one.mean(TEST), rtol=1e-8, atol=1e-10)
    lower = np.linalg.cholesky(np.asarray(pgp.Matern(1.5, 1.0, 2.4)(X, X)) + 1e-6 * np.eye(N))
    np.testing.assert_allclose(np.asarray(found["rate"][0](X))[1], np.broadcast_to(lower @ z[1], (3, N)), atol=6e-3)
    # Their random parts are independent.
    weights = [np.asarray(paths.varying.weights)[..., :8] for paths in (found["y"], found["rate"][0])]
    assert not np.allclose(*weights)


OUTPUTS = pgp.Coregionalised(pgp.RBF(1.0, 0.8), W=[[1.0], [0.5], [-0.4]], kappa=[0.1, 0.2, 0.1])
Y3 = np.stack([Y, 0.5 * Y + 0.2, np.cos(Y)], axis=1)
AT3 = pgp.with_outputs(TEST, 3)


def outputs(X, y):
    kernel = bridge.lift(OUTPUTS, {"kernel.lengthscale": dist.LogNormal(0.0, 0.3)})
    noise = numpyro.sample("noise", dist.LogNormal(-3.0, 0.3).expand([3]).to_event(1))
    prior = pgp.GPPrior(kernel=kernel, X=pgp.AllOutputs(X, 3), jitter=1e-6)
    bridge.gp_factor("obs", prior, y, noise)
    return prior


@standard
def test_several_outputs_are_a_site_and_end_in_paths():
    noise = np.asarray([0.04, 0.05, 0.06])
    values = {"Coregionalised.kernel.lengthscale": np.asarray(0.9), "noise": noise}

    @eqx.filter_jit
    def of_both(values):
        with handlers.trace() as trace:
            prior = handlers.substitute(outputs, data=values)(X, Y3)
        marginal = trace["obs"]["fn"]
        # The same process as one of a single output on the grid of inputs and outputs.
        flat_noise = jnp.tile(values["noise"], N)
        grid = jnp.reshape(pgp.with_outputs(X, 3), (-1, D + 1))
        dense = pgp.GPPrior(kernel=prior.kernel, X=grid, jitter=1e-6)
        flat, posterior = dense.condition(Y3.reshape(-1), flat_noise), prior.condition(Y3, values["noise"])
        covariance = dense.covariance_at(dense.functional, flat_noise)
        of_sites = marginal.log_prob(Y3.reshape(-1)), marginal.variance, *posterior.leave_one_out()
        of_grid = flat.log_marginal_likelihood(), bridge.GPMarginal(dense, flat_noise).variance, *flat.leave_one_out()
        return of_sites, of_grid, marginal.sample(KEY, (20000,)), covariance, posterior.mean(AT3)

    of_sites, of_grid, draws, covariance, mean = jax.tree.map(np.asarray, of_both(values))
    for a, b in zip(of_sites, of_grid, strict=True):
        np.testing.assert_allclose(a.reshape(-1), b.reshape(-1), rtol=1e-7)
    np.testing.assert_allclose(of_sites[0], of_grid[0], rtol=1e-9)
    np.testing.assert_allclose(of_sites[1], of_grid[1], rtol=1e-9)
    spread = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2)
    assert (np.abs(np.cov(draws.reshape(20000, -1).T) - covariance) < 5 * spread / 20000**0.5).all()
    samples = {k: np.stack([v, 1.1 * v]) for k, v in values.items()}
    ensemble = bridge.posterior_paths(outputs, samples, KEY, X, Y3, n_paths=2, n_features=32)
    assert ensemble.shape == (2, 2)
    assert ensemble(AT3).shape == (2, 2, 6, 3)
    np.testing.assert_allclose(ensemble.outputs(TEST), ensemble(AT3), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(np.asarray(ensemble.mean_path(AT3))[0], mean, rtol=1e-7, atol=1e-9)
    left = bridge.leave_one_out(outputs, samples, KEY, X, Y3)
    np.testing.assert_allclose(left[0], of_sites[4], rtol=1e-9)
    assert left.shape == (2, 3 * N)


@standard
def test_inputs_that_are_not_known():
    def uncertain(X, y):
        prior = bridge.lift(
            pgp.GPPrior(kernel=pgp.RBF(1.0, 0.8), X=X, jitter=1e-6), {"X": dist.Normal(X, 0.1).to_event(2)}
        )
        bridge.gp_factor("obs", prior, y, NOISE)
        return prior

    moved = np.stack([X + 0.05, X - 0.1])
    ensemble = bridge.posterior_paths(uncertain, {"GPPrior.X": moved}, KEY, X, Y, n_features=16)
    means = np.asarray(ensemble.mean_path(TEST))
    for i in range(2):
        one = pgp.GPPrior(kernel=pgp.RBF(1.0, 0.8), X=moved[i], jitter=1e-6).condition(Y, NOISE)
        np.testing.assert_allclose(means[i], one.mean(TEST), rtol=1e-8, atol=1e-10)


@standard
def test_latent_inputs_move_as_the_density_says():
    """One input of three is unknown: its posterior under NUTS beside quadrature."""
    points, y = np.asarray([[-1.0], [1.0]]), np.asarray([-0.8, 0.9, 0.5])
    at = lambda x: pgp.GPPrior(kernel=pgp.RBF(1.0, 1.0), X=jnp.concatenate([points, x[None, None]]), jitter=1e-6)

    def latent():
        bridge.gp_factor("obs", at(numpyro.sample("x", dist.Normal(0.0, 1.0))), y, 0.05)

    mcmc = MCMC(NUTS(latent), num_warmup=200, num_samples=1000, progress_bar=False)
    mcmc.run(KEY)
    draws = np.asarray(mcmc.get_samples()["x"])
    grid = np.linspace(-4, 4, 801)
    density = np.exp(jax.jit(jax.vmap(lambda x: at(x).log_prob(y, 0.05)))(grid)) * stats.norm.pdf(grid)
    weight = density / density.sum()
    mean, size = (weight * grid).sum(), numpyro.diagnostics.effective_sample_size(draws[None])
    sd = np.sqrt((weight * (grid - mean) ** 2).sum())
    assert abs(draws.mean() - mean) < 4.5 * sd / size**0.5
    assert abs(draws.std() / sd - 1) < 4.5 * (1 / size) ** 0.5  # heavier tails than normal


@standard
def test_latent_variables_of_many_outputs():
    """A GP-LVM: outputs independent given latent inputs, as one site."""
    kernel = pgp.Coregionalised(pgp.RBF(1.0, 1.0), W=np.zeros((3, 1)), kappa=np.ones(3))

    def lvm(X, y):
        prior = bridge.lift(
            pgp.GPPrior(kernel=kernel, X=pgp.AllOutputs(X, 3), jitter=1e-6), {"X.X": dist.Normal(0.0, 1.0)}, name="lvm"
        )
        bridge.gp_factor("obs", prior, y, 0.05)
        return prior

    def potential(X):
        return log_density(lvm, (X, Y3), {}, {"lvm.X.X": X})[0]

    def each(X):
        prior = pgp.GPPrior(kernel=pgp.RBF(1.0, 1.0), X=X, jitter=1e-6)
        densities = jax.vmap(lambda y: prior.log_prob(y, 0.05), in_axes=1)(Y3)
        return jnp.sum(densities) + jnp.sum(jax.scipy.stats.norm.logpdf(X))

    (got, slope), (want, wanted) = (jax.jit(jax.value_and_grad(f))(X) for f in (potential, each))
    np.testing.assert_allclose(got, want, rtol=1e-10)
    np.testing.assert_allclose(slope, wanted, rtol=1e-8, atol=1e-8)
    ensemble = eqx.filter_eval_shape(bridge.posterior_paths, lvm, {"lvm.X.X": X[None]}, KEY, X, Y3, n_features=16)
    assert eqx.filter_eval_shape(lambda paths: paths.outputs(TEST), ensemble).shape == (1, 1, 6, 3)


def batch(n=3):
    return bridge.place(pgp.RBF(1.0, 1.0), {"lengthscale": jnp.arange(1.0, n + 1)}, batch_shape=(n,))


def in_plate(function, size=3):
    with numpyro.plate("p", size):
        return function()


def both_at_once():
    with numpyro.plate("p", 2):
        scale = numpyro.sample("scale", dist.Normal(0.0, 0.1))
        return bridge.lift(pgp.RBF(1.0, [1.0, 1.0]), {"lengthscale": dist.LogNormal(scale, 0.3)})


def plates_that_differ():
    with numpyro.plate("p", 2):
        kernel = bridge.lift(pgp.RBF(1.0, 1.0), {"lengthscale": dist.LogNormal(0.0, 0.3)})
    with numpyro.plate("q", 3):
        return bridge.lift(kernel, {"variance": dist.LogNormal(0.0, 0.3)})


REFUSED = {
    "members or entries": (both_at_once, r"`RBF\.lengthscale` has parameters of shape \(2,\).*Say which"),
    "plates that differ": (plates_that_differ, r"`RBF` has the axes \(2,\) of plates.*\(3,\)"),
    "member beyond the last": (lambda: batch().member(7), "7 was asked for, but there are 3"),
    "mask of numbers": (lambda: PRIOR.condition(Y, NOISE, np.ones(N)), "`mask` must have dtype bool"),
    "mask of another shape": (lambda: PRIOR.log_prob(Y, NOISE, np.ones(3, bool)), r"shape \(7,\)"),
    "NaN that is observed": (lambda: PRIOR.condition(np.full(N, np.nan), NOISE, MASK), "`y` must be finite"),
    "mask of several outputs": (
        lambda: bridge.gp_factor("obs", pgp.GPPrior(kernel=OUTPUTS, X=pgp.AllOutputs(X, 3)), Y3, NOISE, MASK),
        r"`mask` must be a number or have the shape of what `AllOutputs` makes, \(7, 3\); got \(7,\)",
    ),
    "kernels instead of priors": (
        lambda: bridge.gp_factor("obs", batch(), Y, NOISE),
        "got Batched of RBF.*`kernels.map",
    ),
    "y of another batch": (
        lambda: bridge.gp_factor("obs", batch().map(lambda k: pgp.GPPrior(kernel=k, X=X)), Y, NOISE),
        r"`y` must have shape \(3, 7\)",
    ),
    "noise of another batch": (
        lambda: bridge.gp_factor(
            "obs", batch().map(lambda k: pgp.GPPrior(kernel=k, X=X)), np.stack([Y] * 3), np.ones(2)
        ),
        r"`noise_var` must be a scalar, one variance for each member of the batch, \(3,\)",
    ),
    "plate of another size": (
        lambda: in_plate(
            lambda: bridge.gp_factor("obs", batch().map(lambda k: pgp.GPPrior(kernel=k, X=X)), np.stack([Y] * 3), 0.1),
            2,
        ),
        "Incompatible shapes",
    ),
    "prior with axes of no plate": (
        lambda: bridge.lift(pgp.RBF(1.0, 1.0), {"lengthscale": dist.LogNormal(jnp.zeros(3), 1.0)}),
        r"drew shape \(3,\) for a field of shape \(\).*axes that neither has",
    ),
    "batch of no axes": (lambda: pgp.Batched(pgp.RBF(1.0, 1.0), ()), "at least one axis"),
    "batch of wrong axes": (lambda: pgp.Batched(pgp.RBF(1.0, 1.0), (3,)), r"leading axes \(3,\); got shape \(\)"),
    "arguments without the axes": (lambda: batch().map(lambda k, x: x, jnp.ones(2)), r"leading axes \(3,\)"),
    "batch of a batch": (
        lambda: bridge.place(batch(), {"lengthscale": 1.0}, batch_shape=(2,)),
        "is for a module that is not `Batched` already",
    ),
    "stacked value of wrong axes": (
        lambda: bridge.place(pgp.RBF(1.0, 1.0), {"lengthscale": jnp.ones(3)}, batch_shape=(2,)),
        r"has shape \(3,\), but the field has shape \(\) \(or \(2,\)",
    ),
    "stacked value unannounced": (
        lambda: bridge.place(pgp.RBF(1.0, 1.0), {"lengthscale": jnp.ones(3)}),
        r"has shape \(3,\), but the field has shape \(\)",
    ),
}


@standard
@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize("name", REFUSED)
def test_wrong_uses_are_named(name):
    function, words = REFUSED[name]
    with pytest.raises((ValueError, IndexError), match=words):
        run(function)


@standard
def test_in_a_plate_parameters_may_be_those_of_entries_or_of_members():
    def entries():
        with numpyro.plate("p", 2):
            prior = dist.LogNormal(jnp.asarray([-5.0, 5.0]), 0.01).to_event(1)
            return bridge.lift(pgp.RBF(1.0, [1.0, 1.0]), {"lengthscale": prior})

    def members():
        with numpyro.plate("p", 2):
            prior = dist.LogNormal(jnp.asarray([[-5.0], [5.0]]), 0.01).expand([2, 2]).to_event(1)
            return bridge.lift(pgp.RBF(1.0, [1.0, 1.0]), {"lengthscale": prior})

    logs = [np.log(run(model)[0].stacked.lengthscale) for model in (entries, members)]
    np.testing.assert_allclose(logs[0], [[-5, 5], [-5, 5]], atol=0.1)
    np.testing.assert_allclose(logs[1], [[-5, -5], [5, 5]], atol=0.1)


@standard
def test_values_without_the_axes_of_the_batch_are_those_of_each_member():
    @jax.jit
    def densities():
        priors = bridge.place(pgp.RBF(1.0, 1.0), {"lengthscale": jnp.arange(1.0, N + 1)}, batch_shape=(N,)).map(
            lambda kernel: pgp.GPPrior(kernel=kernel, X=X)
        )
        marginal = bridge.GPMarginal(priors, 0.1)
        return marginal.log_prob(Y), marginal.log_prob(np.tile(Y, (N, 1)))

    np.testing.assert_allclose(*densities(), rtol=1e-12)


@standard
def test_a_scaled_likelihood_has_no_paths():
    def model(X, y):
        prior = pgp.GPPrior(kernel=pgp.RBF(1.0, numpyro.sample("s", dist.LogNormal(0.0, 1.0))), X=X)
        with handlers.scale(scale=0.5):
            bridge.gp_factor("obs", prior, y, NOISE)
        return prior

    with pytest.raises(ValueError, match="`obs` has been scaled"):
        bridge.posterior_paths(model, {"s": jnp.ones(2)}, KEY, X, Y)


@standard
@pytest.mark.usefixtures("no_hook")
def test_leaving_out_is_of_what_was_observed():
    def latent(X):
        prior = pgp.GPPrior(kernel=pgp.RBF(1.0, 1.0), X=X)
        bridge.gp_sample("f", prior)
        return prior

    with pytest.raises(ValueError, match=r"`f\.white` has latent values.*log_likelihood"):
        bridge.leave_one_out(latent, {"f.white": jnp.zeros((2, N))}, KEY, X)
