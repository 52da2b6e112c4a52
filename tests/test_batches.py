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
TEST = jnp.asarray(rng.uniform(-1.2, 1.2, (6, D)))
NOISE = 0.02
PRIOR = pgp.GPPrior(kernel=pgp.RBF(1.2, [0.7, 0.9]), X=X, mean=0.3, jitter=1e-6)

standard = pytest.mark.usefixtures("standard_promotion")  # for what runs NumPyro


def run(function, *args, **values):
    """What a model returns with given values, and the sites."""
    with handlers.trace() as trace:
        returned = handlers.seed(handlers.substitute(function, data=values), 0)(*args)
    return returned, trace


def rest(mask):
    return np.flatnonzero(mask)


@pytest.mark.parametrize("noise", [NOISE, np.linspace(0.01, 0.1, N)], ids=["one noise", "a noise per point"])
def test_a_mask_is_the_block_that_is_left(noise):
    here = rest(MASK)
    y = np.where(MASK, Y, np.nan)
    some = np.asarray(noise)[here] if np.ndim(noise) else noise
    block = pgp.GPPrior(kernel=PRIOR.kernel, X=X[here], mean=0.3, jitter=1e-6)
    masked, dense = PRIOR.condition(y, noise, MASK), block.condition(Y[here], some)
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    same(PRIOR.log_prob(y, noise, MASK), block.log_prob(Y[here], some))
    same(masked.log_marginal_likelihood(), dense.log_marginal_likelihood())
    same(masked.mean(TEST), dense.mean(TEST))
    same(masked.variance(TEST), dense.variance(TEST))
    same(masked.covariance(TEST), dense.covariance(TEST))
    same(masked.coefficients[here], dense.coefficients)
    assert not np.asarray(masked.coefficients)[~MASK].any()
    left, other = masked.leave_one_out(), dense.leave_one_out()
    for a, b in zip(left, other, strict=True):
        same(a[here], b)
    same(left.mean[~MASK], dense.mean(X[~MASK]))
    elsewhere = np.asarray(noise)[~MASK] if np.ndim(noise) else noise
    same(left.variance[~MASK], dense.variance(X[~MASK]) + elsewhere + 1e-6)
    assert not np.asarray(left.log_density)[~MASK].any()
    # Derivatives too.
    gradient = lambda prior, *args: eqx.filter_grad(lambda k: eqx.tree_at(lambda p: p.kernel, prior, k).log_prob(*args))
    a, b = gradient(PRIOR, y, noise, MASK)(PRIOR.kernel), gradient(block, Y[here], some)(PRIOR.kernel)
    same(a.lengthscale, b.lengthscale)
    same(a.variance, b.variance)
    # Paths made of the same random numbers.
    one, two = pgp.PathwiseSampler(masked, 64), pgp.PathwiseSampler(dense, 64)
    features = PRIOR.kernel.features(64, D, key=KEY)
    weights = jax.random.normal(KEY, (3, features(TEST).shape[-1]))
    z = jax.random.normal(jax.random.key(1), (3, N))
    paths, others = one.update(features, weights, z), two.update(features, weights, z[:, here])
    same(paths(TEST), others(TEST))
    same(paths.marginal_variance(TEST), others.marginal_variance(TEST))
    same(paths.mean_path(TEST), dense.mean(TEST))
    same(pgp.feature_error(masked, TEST, 32), pgp.feature_error(dense, TEST, 32))


def test_a_mask_under_jit_and_of_nothing():
    y = jnp.where(MASK, Y, jnp.nan)
    jitted = eqx.filter_jit(lambda prior, y, mask: prior.condition(y, NOISE, mask).mean(TEST))
    np.testing.assert_allclose(jitted(PRIOR, y, MASK), PRIOR.condition(y, NOISE, MASK).mean(TEST), rtol=1e-9)
    none = PRIOR.condition(np.full(N, np.nan), NOISE, np.zeros(N, bool))
    np.testing.assert_allclose(none.mean(TEST), 0.3)
    np.testing.assert_allclose(none.variance(TEST), 1.2)
    assert none.log_marginal_likelihood() == PRIOR.log_prob(Y, NOISE, np.zeros(N, bool)) == 0


@pytest.mark.parametrize("filler", [-999.0, 1e6])
@pytest.mark.parametrize("basis", [pgp.QuasiMonteCarlo(), pgp.HilbertSpace()], ids=["random", "Hilbert"])
def test_a_mask_whatever_stands_where_nothing_was_observed(filler, basis):
    """Neither the default jitter, nor the box of a basis, nor a mean follows inputs that fill up the shape."""
    kernel = pgp.RBF(1.0, 0.7) + pgp.Linear(0.5)
    mean = lambda X: jnp.sqrt(5.0 + X[:, 0])  # which is NaN at a filler
    line = X[:, :1]
    filled = pgp.GPPrior(kernel=kernel, X=np.where(MASK[:, None], line, filler), mean=mean)
    block = pgp.GPPrior(kernel=kernel, X=line[MASK], mean=mean)
    y = np.where(MASK, Y, np.nan)
    a, b = filled.condition(y, NOISE, MASK), block.condition(Y[MASK], NOISE)
    np.testing.assert_allclose(a.jitter[MASK], b.jitter, rtol=1e-12)
    level = np.asarray(mean(line))
    full, few = (eqx.tree_at(lambda prior: prior.kernel, prior, pgp.RBF(1.0, 50.0)) for prior in (filled, block))
    jitter = [full.condition(np.where(MASK, level, np.nan), 0.0, MASK).jitter, few.condition(level[MASK], 0.0).jitter]
    assert np.all(jitter[1] > 0)  # without noise some is needed
    np.testing.assert_allclose(jitter[0][MASK], jitter[1], rtol=1e-12)
    np.testing.assert_array_equal(jitter[0][~MASK], 0)
    free = [full.log_prob(np.where(MASK, level, np.nan), 0.0, MASK), few.log_prob(level[MASK], 0.0)]
    # Of pivots that are rounding: 10·n·eps was added, a pivot is known to some eps, and half of its logarithm counts.
    np.testing.assert_allclose(free[0], free[1], atol=0.05)
    np.testing.assert_allclose(filled.log_prob(y, NOISE, MASK), block.log_prob(Y[MASK], NOISE), rtol=1e-10)
    gradient = lambda v: bridge.place(filled, {"kernel.kernels[0].variance": v}).log_prob(y, NOISE, MASK)
    assert np.isfinite(jax.grad(gradient)(1.0))
    at = jnp.linspace(line[MASK].min(), line[MASK].max(), 6)[:, None]
    np.testing.assert_allclose(a.variance(at), b.variance(at), rtol=1e-8, atol=1e-10)
    paths, others = (pgp.PathwiseSampler(p, 64, features=basis).sample_paths(KEY, 2) for p in (a, b))
    np.testing.assert_allclose(paths.marginal_variance(at), others.marginal_variance(at), rtol=1e-6, atol=1e-8)
    assert np.isfinite(paths(at)).all()
    error = [pgp.feature_error(p, at, 64, features=basis) for p in (a, b)]
    np.testing.assert_allclose(error[0], error[1], rtol=0.3, atol=1e-6)  # the centre is a weighted one


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
    scales = jnp.asarray([0.5, 0.8]) if scalar else jnp.asarray([[0.5, 0.6], [0.7, 0.8]])
    values = {"RBF.variance": jnp.asarray(1.3), "RBF.lengthscale": scales, "noise": jnp.asarray([0.02, 0.03])}
    y = np.where(MASKS, YS, np.nan) if masked else YS
    prior, trace = run(grouped, XS, y, MASKS if masked else None, scalar, **values)
    assert prior.batch_shape == (P,)
    assert trace["RBF.lengthscale"]["fn"].batch_shape == trace["obs"]["fn"].batch_shape == (P,)
    assert trace["RBF.lengthscale"]["fn"].event_shape == (() if scalar else (D,))
    assert run(grouped, XS, YS, None, scalar)[0].stacked.kernel.lengthscale.shape == scales.shape
    density = trace["obs"]["fn"].log_prob(trace["obs"]["value"])
    assert density.shape == (P,)
    for g in range(P):
        here = rest(MASKS[g]) if masked else np.arange(N)
        one = pgp.GPPrior(kernel=pgp.RBF(1.3, scales[g]), X=XS[g][here], jitter=1e-6)
        np.testing.assert_allclose(density[g], one.log_prob(YS[g][here], values["noise"][g]), rtol=1e-12)
    assert prior[1].kernel.lengthscale.shape == (() if scalar else (D,))
    np.testing.assert_array_equal(prior[1].kernel.lengthscale, scales[1])
    # The whole density, with that of the hyperparameters.
    total, _ = log_density(grouped, (XS, y, MASKS if masked else None, scalar), {}, values)
    law = lambda mean, x: stats.lognorm(0.3, scale=np.exp(mean)).logpdf(x).sum()
    expected = density.sum() + law(0.0, 1.3) + law(-0.3, scales) + law(-4.0, values["noise"])
    np.testing.assert_allclose(total, expected, rtol=1e-12)


@standard
def test_groups_end_in_paths():
    draws = {
        "RBF.variance": jnp.asarray([1.1, 1.3, 0.9]),
        "RBF.lengthscale": jnp.asarray([[0.5, 0.8], [0.6, 0.7], [0.9, 0.4]]),
        "noise": jnp.full((3, P), 0.02),
    }
    ensemble = bridge.posterior_paths(grouped, draws, KEY, XS, YS, MASKS, n_paths=4, n_features=32)
    assert ensemble.shape == (3, P, 4)
    values = ensemble(TEST)
    assert values.shape == (3, P, 4, 6)
    means, left = ensemble.mean_path(TEST), bridge.leave_one_out(grouped, draws, KEY, XS, YS, MASKS)
    assert left.shape == (3, P, N)
    for i in range(3):
        for g in range(P):
            here = rest(MASKS[g])
            kernel = pgp.RBF(draws["RBF.variance"][i], draws["RBF.lengthscale"][i, g])
            one = pgp.GPPrior(kernel=kernel, X=XS[g][here], jitter=1e-6).condition(YS[g][here], 0.02)
            np.testing.assert_allclose(means[i, g], one.mean(TEST), rtol=1e-8, atol=1e-10)
            np.testing.assert_allclose(left[i, g][here], one.leave_one_out().log_density, rtol=1e-8)
            np.testing.assert_allclose(ensemble[i][g](TEST), values[i, g], rtol=1e-9, atol=1e-11)
            # Paths go through what was observed, to within the noise.
            assert np.abs(ensemble[i][g](jnp.asarray(XS[g][here])) - YS[g][here]).max() < 6 * np.sqrt(0.02)
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
    variance, lengthscale = trace["RBF.variance"]["value"], trace["RBF.lengthscale"]["value"]
    assert (variance.shape, lengthscale.shape) == ((3,), (2, 3))
    member = prior[1][2]
    assert (member.kernel.variance, member.kernel.lengthscale) == (variance[2], lengthscale[1, 2])
    lower = np.linalg.cholesky(member.kernel(X, X) + 1e-6 * np.eye(N))
    np.testing.assert_allclose(trace["f"]["value"][1, 2], lower @ trace["f.white"]["value"][1, 2], rtol=1e-9)
    draws = {name: site["value"][None] for name, site in trace.items() if site["type"] == "sample" and name != "y"}
    ensemble = bridge.posterior_paths(nested, draws, KEY, n_features=16)
    assert ensemble.shape == (1, 2, 3, 1)
    # Latent values are met but for the jitter, of standard deviation 1e-3.
    np.testing.assert_allclose(ensemble(X)[0, :, :, 0], trace["f"]["value"], atol=6e-3)


@standard
def test_groups_under_nuts_and_in_utilities():
    mcmc = MCMC(NUTS(grouped), num_warmup=30, num_samples=10, progress_bar=False)
    mcmc.run(KEY, XS, YS, MASKS)
    samples = mcmc.get_samples()
    assert samples["RBF.lengthscale"].shape == (10, P)
    assert np.isfinite(samples["RBF.lengthscale"]).all()
    assert bridge.posterior_paths(grouped, samples, KEY, XS, YS, MASKS, n_features=8)(TEST).shape == (10, P, 1, 6)
    drawn = Predictive(grouped, samples)(KEY, XS, None)
    assert drawn["obs"].shape == (10, P, N)
    # Draws of the prior have the moments that the distribution states.
    prior, trace = run(grouped, XS, YS)
    marginal = trace["obs"]["fn"]
    draws = marginal.sample(KEY, (4000,))
    assert draws.shape == (4000, P, N)
    sd = np.sqrt(marginal.variance)
    np.testing.assert_array_less(np.abs(draws.mean(0) - marginal.mean), 4.5 * sd / 4000**0.5)
    np.testing.assert_allclose(draws.var(0), marginal.variance, rtol=4.5 * (2 / 4000) ** 0.5)
    assert marginal.log_prob(draws[:5]).shape == (5, P)
    np.testing.assert_allclose(marginal.log_prob(draws[:5])[3], marginal.log_prob(draws[3]), rtol=1e-10)
    assert prior.batch_shape == (P,)


def test_batches_are_made_by_place_too():
    draws = {"RBF.lengthscale": jnp.asarray([0.5, 0.7, 0.9]), "RBF.variance": 2.0}
    kernels = bridge.place(pgp.RBF(1.0, 1.0), draws, batch_shape=(3,))
    assert isinstance(kernels, pgp.Batched)
    assert len(kernels) == 3
    values = kernels.map(lambda kernel: kernel(X, X))
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

    z = jax.random.normal(KEY, (2, N))
    draws = {"scale": jnp.asarray([0.8, 1.2]), "g.white": z}
    found = bridge.posterior_paths(several, draws, KEY, X, Y, n_paths=3, n_features=32)
    assert found["y"].shape == found["rate"][0].shape == (2, 3)
    one = pgp.GPPrior(kernel=pgp.RBF(1.0, 1.2), X=X, jitter=1e-6).condition(Y, NOISE)
    np.testing.assert_allclose(found["y"].mean_path(TEST)[1], one.mean(TEST), rtol=1e-8, atol=1e-10)
    lower = np.linalg.cholesky(pgp.Matern(1.5, 1.0, 2.4)(X, X) + 1e-6 * np.eye(N))
    np.testing.assert_allclose(found["rate"][0](X)[1], np.broadcast_to(lower @ z[1], (3, N)), atol=6e-3)
    # Their random parts are independent.
    assert not np.allclose(found["y"].varying.weights[..., :8], found["rate"][0].varying.weights[..., :8])


OUTPUTS = pgp.Coregionalised(pgp.RBF(1.0, 0.8), W=[[1.0], [0.5], [-0.4]], kappa=[0.1, 0.2, 0.1])
Y3 = np.stack([Y, 0.5 * Y + 0.2, np.cos(Y)], axis=1)


def outputs(X, y):
    kernel = bridge.lift(OUTPUTS, {"kernel.lengthscale": dist.LogNormal(0.0, 0.3)})
    noise = numpyro.sample("noise", dist.LogNormal(-3.0, 0.3).expand([3]).to_event(1))
    prior = pgp.MultiOutputGPPrior(kernel=kernel, X=X, jitter=1e-6)
    bridge.gp_factor("obs", prior, y, noise)
    return prior


@standard
def test_several_outputs_are_a_site_and_end_in_paths():
    scale, noise = 0.9, jnp.asarray([0.04, 0.05, 0.06])
    values = {"Coregionalised.kernel.lengthscale": jnp.asarray(scale), "noise": noise}
    prior, trace = run(outputs, X, Y3, **values)
    marginal = trace["obs"]["fn"]
    # The same process as one of a single output on the grid of inputs and outputs.
    grid = pgp.with_outputs(X, 3).reshape(-1, D + 1)
    dense = pgp.GPPrior(kernel=prior.kernel, X=grid, jitter=1e-6)
    flat = dense.condition(Y3.reshape(-1), jnp.tile(noise, N))
    np.testing.assert_allclose(marginal.log_prob(Y3), flat.log_marginal_likelihood(), rtol=1e-9)
    np.testing.assert_allclose(
        marginal.variance.reshape(-1), bridge.GPMarginal(dense, jnp.tile(noise, N)).variance, rtol=1e-9
    )
    left = prior.condition(Y3, noise).leave_one_out()
    for a, b in zip(left, flat.leave_one_out(), strict=True):
        np.testing.assert_allclose(a.reshape(-1), b, rtol=1e-7)
    draws = marginal.sample(KEY, (20000,)).reshape(20000, -1)
    covariance = dense.covariance_at(dense.X, jnp.tile(noise, N))
    spread = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)) + np.asarray(covariance) ** 2)
    assert (np.abs(np.cov(draws.T) - covariance) < 5 * spread / 20000**0.5).all()
    ensemble = bridge.posterior_paths(
        outputs, {k: jnp.stack([v, 1.1 * v]) for k, v in values.items()}, KEY, X, Y3, n_paths=2, n_features=32
    )
    assert ensemble.shape == (2, 2)
    assert ensemble(TEST).shape == (2, 2, 6, 3)
    np.testing.assert_allclose(ensemble.mean_path(TEST)[0], prior.condition(Y3, noise).mean(TEST), rtol=1e-7, atol=1e-9)
    assert bridge.leave_one_out(outputs, {k: v[None] for k, v in values.items()}, KEY, X, Y3).shape == (1, N, 3)


@standard
def test_inputs_that_are_not_known():
    def uncertain(X, y):
        prior = bridge.lift(
            pgp.GPPrior(kernel=pgp.RBF(1.0, 0.8), X=X, jitter=1e-6), {"X": dist.Normal(X, 0.1).to_event(2)}
        )
        bridge.gp_factor("obs", prior, y, NOISE)
        return prior

    moved = jnp.stack([X + 0.05, X - 0.1])
    ensemble = bridge.posterior_paths(uncertain, {"GPPrior.X": moved}, KEY, X, Y, n_features=16)
    for i in range(2):
        one = pgp.GPPrior(kernel=pgp.RBF(1.0, 0.8), X=moved[i], jitter=1e-6).condition(Y, NOISE)
        np.testing.assert_allclose(ensemble.mean_path(TEST)[i], one.mean(TEST), rtol=1e-8, atol=1e-10)


@standard
def test_latent_inputs_move_as_the_density_says():
    """One input of three is unknown: its posterior under NUTS beside quadrature."""
    points, y = jnp.asarray([[-1.0], [1.0]]), jnp.asarray([-0.8, 0.9, 0.5])

    def latent():
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        prior = pgp.GPPrior(kernel=pgp.RBF(1.0, 1.0), X=jnp.concatenate([points, x[None, None]]), jitter=1e-6)
        bridge.gp_factor("obs", prior, y, 0.05)

    mcmc = MCMC(NUTS(latent), num_warmup=200, num_samples=1000, progress_bar=False)
    mcmc.run(KEY)
    draws = np.asarray(mcmc.get_samples()["x"])
    grid = np.linspace(-4, 4, 801)
    at = lambda x: pgp.GPPrior(kernel=pgp.RBF(1.0, 1.0), X=jnp.concatenate([points, x[None, None]]), jitter=1e-6)
    density = np.exp(jax.vmap(lambda x: at(x).log_prob(y, 0.05))(grid)) * stats.norm.pdf(grid)
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
            pgp.MultiOutputGPPrior(kernel=kernel, X=X, jitter=1e-6), {"X": dist.Normal(0.0, 1.0)}, name="lvm"
        )
        bridge.gp_factor("obs", prior, y, 0.05)
        return prior

    def potential(X):
        return log_density(lvm, (X, Y3), {}, {"lvm.X": X})[0]

    def each(X):
        prior = pgp.GPPrior(kernel=pgp.RBF(1.0, 1.0), X=X, jitter=1e-6)
        return sum(prior.log_prob(Y3[:, q], 0.05) for q in range(3)) + dist.Normal(0.0, 1.0).log_prob(X).sum()

    start = jnp.asarray(X)
    np.testing.assert_allclose(potential(start), each(start), rtol=1e-10)
    np.testing.assert_allclose(jax.grad(potential)(start), jax.grad(each)(start), rtol=1e-8, atol=1e-8)
    ensemble = bridge.posterior_paths(lvm, {"lvm.X": start[None]}, KEY, X, Y3, n_features=16)
    assert ensemble(TEST).shape == (1, 1, 6, 3)


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
        lambda: bridge.gp_factor("obs", pgp.MultiOutputGPPrior(kernel=OUTPUTS, X=X), Y3, NOISE, MASK),
        "`mask` is not for a MultiOutputGPPrior",
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
    "latent values of outputs": (
        lambda: bridge.gp_sample("f", pgp.MultiOutputGPPrior(kernel=OUTPUTS, X=X)),
        "needs a GPPrior.*got MultiOutputGPPrior",
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
    priors = bridge.place(pgp.RBF(1.0, 1.0), {"lengthscale": jnp.arange(1.0, N + 1)}, batch_shape=(N,)).map(
        lambda kernel: pgp.GPPrior(kernel=kernel, X=X)
    )
    marginal = bridge.GPMarginal(priors, 0.1)
    np.testing.assert_allclose(marginal.log_prob(Y), marginal.log_prob(np.tile(Y, (N, 1))), rtol=1e-12)


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
