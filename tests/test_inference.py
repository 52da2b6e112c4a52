"""Sites and parameters of modules under NumPyro's inference, and the paths that it ends in."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.infer import autoguide, MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.reparam import LocScaleReparam, TransformReparam
from scipy import stats

import pathwise_gp as pgp
from pathwise_gp import numpyro_bridge as bridge

N = 10
X = np.linspace(-1, 1, N)[:, None]
Y = np.sin(3 * X[:, 0]) + 0.1 * np.cos(20 * X[:, 0])
NOISE = 0.02
TEST = jnp.linspace(-1.5, 1.5, 5)[:, None]
KEY = jax.random.key(0)
SUM = pgp.RBF(1.0, [0.3, 0.4]) + pgp.Matern(1.5, 1.0, 0.7)

pytestmark = pytest.mark.usefixtures("standard_promotion")


def model(X, y, name=None):
    kernel = bridge.lift(pgp.RBF(1.0, 0.4), {"*": dist.LogNormal(-0.5, 0.3)}, name)
    prior = pgp.GPPrior(kernel=kernel, X=X, jitter=1e-4)
    bridge.gp_factor("obs", prior, y, NOISE)
    return prior


class Mixed(eqx.Module):
    """A field of each domain."""

    scale: Float[Array, "2"] = eqx.field(converter=pgp._fields.positive)
    shift: Float[Array, ""] = eqx.field(converter=pgp._fields.real)
    root: Float[Array, "2 2"] = eqx.field(converter=pgp._fields.lower_cholesky)
    shares: Float[Array, "3"] = eqx.field(converter=pgp._fields.simplex)
    layers: dict


def mixed(dtype=jnp.float64):
    cast = lambda x: jnp.asarray(x, dtype)
    layers = {"a": eqx.nn.Linear(1, 2, key=KEY)}
    return Mixed(cast([0.5, 2.0]), cast(-1.0), cast([[-1.0, 0.0], [0.3, 2.0]]), cast([0.2, 0.3, 0.5]), layers)


def names(function, *args):
    with handlers.trace() as trace:
        handlers.seed(function, 0)(*args)
    return list(trace)


def test_sites_show_names_values_and_supports():
    found = bridge.sites(mixed(), "m")
    assert list(found) == ["m.scale", "m.shift", "m.root", "m.shares", "m.layers[a].weight", "m.layers[a].bias"]
    supports = [constraints.positive, constraints.real, constraints.lower_cholesky, constraints.simplex]
    assert [site.support for site in found.values()][:4] == supports
    np.testing.assert_array_equal(found["m.scale"].value, [0.5, 2.0])
    assert set(bridge.sites(SUM)) >= {"Sum.kernels[0].lengthscale", "Sum.kernels[1].variance"}


def test_place_puts_values_where_they_belong():
    placed = bridge.place(
        SUM,
        {"Sum.kernels[0].lengthscale": [1.0, 2.0], "kernels[1].variance": 3, lambda k: k.kernels[1].lengthscale: 4.0},
    )
    assert jax.tree.structure(placed) == jax.tree.structure(SUM)
    np.testing.assert_array_equal(placed.kernels[0].lengthscale, [1.0, 2.0])
    assert (placed.kernels[1].variance, placed.kernels[1].lengthscale, placed.kernels[0].variance) == (3, 4, 1)
    assert SUM.kernels[1].variance == 1
    both = bridge.place(SUM, {"*.variance": 5.0})
    assert [k.variance for k in both.kernels] == [5, 5]
    # What one draw of a model gave, and back.
    values = {name: site.value for name, site in bridge.sites(SUM).items()}
    assert eqx.tree_equal(bridge.place(both, values), SUM)
    # Two fields that are one array are told apart.
    same = jnp.asarray(1.0)
    kernel = bridge.place(pgp.RBF(same, same), {lambda k: k.lengthscale: 2.0})
    assert (kernel.variance, kernel.lengthscale) == (1, 2)


def test_lift_by_pattern_and_by_function():
    priors = {"*.lengthscale": dist.LogNormal(0.0, 0.3), lambda k: k.kernels[1].variance: dist.Gamma(2.0, 2.0)}
    wanted = ["Sum.kernels[0].lengthscale", "Sum.kernels[1].lengthscale", "Sum.kernels[1].variance"]
    assert names(lambda: bridge.lift(SUM, priors)) == wanted


def test_shares_take_laws_on_the_simplex_only():
    assert names(lambda: bridge.lift(mixed(), {"shares": dist.Dirichlet(jnp.ones(3))}, "m")) == ["m.shares"]
    for prior in (dist.Normal(0.0, 1.0), dist.LogNormal(0.0, 1.0)):
        with pytest.raises(ValueError, match="reaches beyond the field's domain, simplex"):
            names(lambda prior=prior: bridge.lift(mixed(), {"shares": prior}))


def test_sites_go_through_handlers():
    place = {"*": dist.LogNormal(0.0, 1.0)}
    lift = lambda: bridge.lift(pgp.RBF(1.0, 0.4), place)
    assert names(handlers.scope(lift, "here")) == ["here/RBF.variance", "here/RBF.lengthscale"]
    assert names(handlers.block(lift, hide=["RBF.variance"])) == ["RBF.lengthscale"]
    for handler in (handlers.substitute, handlers.condition, handlers.do):
        assert handlers.seed(handler(lift, data={"RBF.variance": jnp.asarray(2.5)}), 0)().variance == 2.5
    density = lambda f: handlers.trace(handlers.seed(f, 0)).get_trace()["RBF.variance"]
    assert density(handlers.mask(lift, mask=False))["fn"].log_prob(1.0) == 0

    def centred():
        loc = dist.TransformedDistribution(dist.Normal(jnp.log(0.4), 0.3), dist.transforms.ExpTransform())
        return bridge.lift(pgp.RBF(1.0, 0.4), {"lengthscale": loc})

    config = {"RBF.lengthscale": TransformReparam(), "RBF.lengthscale_base": LocScaleReparam(0.0)}
    trace = handlers.trace(handlers.seed(handlers.reparam(centred, config=config), 0)).get_trace()
    assert trace["RBF.lengthscale_base_decentered"]["type"] == "sample"
    np.testing.assert_allclose(
        trace["RBF.lengthscale"]["value"], 0.4 * np.exp(0.3 * trace["RBF.lengthscale_base_decentered"]["value"])
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64], ids=["float32", "float64"])
def test_learnt_fields_stay_in_their_domains(dtype):
    start = mixed(dtype)
    fields = ["scale", "shift", "root", "shares"]

    def loss():
        module = bridge.learn(start, fields, "m")
        leaves = [module.scale, module.shift, module.root, module.shares]
        assert all(leaf.dtype == dtype for leaf in leaves)
        # It pulls every value past the edge of its domain.
        total = jnp.sum(module.scale) + module.shift + jnp.trace(module.root) + module.shares[0] - module.shares[2]
        numpyro.factor("loss", -100 * total.astype(float))

    # Before any step the values are those of the fields; of a root, with a positive diagonal.
    with handlers.trace() as trace, handlers.seed(rng_seed=0):
        loss()
    assert [trace[f"m.{field}"]["type"] for field in fields] == ["param"] * 4
    root = trace["m.root"]["value"]
    np.testing.assert_allclose(root @ root.T, start.root @ start.root.T, rtol=1e-6)
    svi = SVI(loss, lambda: None, numpyro.optim.SGD(0.05), Trace_ELBO())
    params = jax.jit(lambda key: svi.run(key, 30, progress_bar=False).params)(KEY)
    assert set(params) == {f"m.{field}" for field in fields}
    assert (params["m.scale"] >= 0).all() and (params["m.scale"] < 0.1).all()
    assert params["m.shift"] < -10
    assert (jnp.diagonal(params["m.root"]) >= 0).all()
    assert (params["m.shares"] >= 0).all()
    np.testing.assert_allclose(params["m.shares"].sum(), 1, rtol=1e-6)
    # Nothing else became a parameter, and the values go back into the module.
    assert bridge.place(start, {"m.shift": params["m.shift"]}, "m").shift == params["m.shift"].astype(dtype)


def test_learning_hyperparameters_is_maximum_likelihood():
    prior = pgp.GPPrior(kernel=pgp.RBF(1.0, 0.4), X=X, jitter=1e-4)

    def learning():
        bridge.gp_factor("obs", bridge.learn(prior, "kernel.*"), Y, NOISE)

    svi = SVI(learning, lambda: None, numpyro.optim.Adam(0.05), Trace_ELBO())
    params = svi.run(KEY, 600, progress_bar=False).params
    found = pgp.fit(prior, Y, NOISE, fields="kernel.*", learn_noise=False)
    learnt = bridge.place(prior, params)
    np.testing.assert_allclose(learnt.kernel.variance, found.prior.kernel.variance, rtol=1e-2)
    np.testing.assert_allclose(learnt.kernel.lengthscale, found.prior.kernel.lengthscale, rtol=1e-2)


GUIDES = {
    "normal": autoguide.AutoNormal,
    "multivariate": autoguide.AutoMultivariateNormal,
    "laplace": autoguide.AutoLaplaceApproximation,
    "delta": autoguide.AutoDelta,
}


@pytest.fixture(scope="module")
def exact():
    """Moments of the logarithms of the hyperparameters, by quadrature."""
    with jax.numpy_dtype_promotion("standard"):
        grid = np.linspace(-1.9, 0.9, 61)
        a, b = np.meshgrid(grid, grid, indexing="ij")
        kernel = lambda v, s: pgp.GPPrior(kernel=pgp.RBF(jnp.exp(v), jnp.exp(s)), X=X, jitter=1e-4).log_prob(Y, NOISE)
        density = jax.jit(jax.vmap(kernel))(a.ravel(), b.ravel()).reshape(a.shape)
        weight = np.exp(density - density.max()) * stats.norm(-0.5, 0.3).pdf(a) * stats.norm(-0.5, 0.3).pdf(b)
        weight = weight / weight.sum()
        moments = {}
        for name, u in (("RBF.variance", a), ("RBF.lengthscale", b)):
            mean = (weight * u).sum()
            moments[name] = mean, np.sqrt((weight * (u - mean) ** 2).sum())
        # `AutoDelta` maximises the density of the values, not of their logarithms.
        mode = np.unravel_index(np.argmax(weight * np.exp(-a - b)), weight.shape)
        return moments, {"RBF.variance": a[mode], "RBF.lengthscale": b[mode]}


@pytest.mark.parametrize("kind", GUIDES)
def test_guides_over_hyperparameters_end_in_paths(kind, exact):
    guide = GUIDES[kind](model)
    steps = 300 if kind in ("delta", "laplace") else 1500
    svi = SVI(model, guide, numpyro.optim.Adam(0.03), Trace_ELBO(num_particles=1 if steps == 300 else 8))
    params = svi.run(KEY, steps, X, Y, progress_bar=False).params
    draws = guide.sample_posterior(jax.random.key(1), params, sample_shape=(400,))
    moments, mode = exact
    for name, (mean, sd) in moments.items():
        logs = np.log(draws[name])
        if kind == "delta":  # to within the grid
            np.testing.assert_allclose(logs, mode[name], atol=0.05)
        else:
            # The family leaves out the correlation or the skewness: a part of a standard deviation.
            assert abs(logs.mean() - mean) < 0.35 * sd
            assert 0.6 * sd < logs.std() < 1.4 * sd
    ensemble = bridge.posterior_paths(
        model, {name: draws[name] for name in moments}, KEY, X, Y, n_paths=2, n_features=32, thin=100
    )
    assert ensemble(TEST).shape == (4, 2, 5)


def test_chains_keep_their_axis_and_thinning_changes_no_path():
    mcmc = MCMC(NUTS(model), num_warmup=20, num_samples=6, num_chains=2, chain_method="vectorized", progress_bar=False)
    mcmc.run(KEY, X, Y)
    settings = {"n_paths": 3, "n_features": 16}
    grouped = mcmc.get_samples(group_by_chain=True)
    ensemble = bridge.posterior_paths(model, grouped, KEY, X, Y, group_by_chain=True, **settings)
    assert ensemble.shape == (2, 6, 3)
    assert len(ensemble) == 2
    values = ensemble(TEST)
    assert values.shape == (2, 6, 3, 5)
    flat = bridge.posterior_paths(model, mcmc.get_samples(), KEY, X, Y, **settings)
    np.testing.assert_allclose(flat(TEST), values.reshape(12, 3, 5), rtol=1e-9, atol=1e-11)
    same = lambda path, expected: np.testing.assert_allclose(path(TEST), expected, rtol=1e-9, atol=1e-11)
    same(ensemble[1], values[1])
    same(ensemble[1][4], values[1, 4])
    same(ensemble[1][4][2], values[1, 4, 2])
    same(ensemble[0:1], values[:1])
    same(list(ensemble)[1], values[1])
    assert ensemble.mean_path.shape == (2, 6)
    same(ensemble.mean_path, flat.mean_path(TEST).reshape(2, 6, 5))
    (part,) = ensemble.components()
    same(part, values)
    thinned = bridge.posterior_paths(model, grouped, KEY, X, Y, group_by_chain=True, thin=4, **settings)
    same(thinned, values[:, ::4])
    raw = bridge.posterior_paths(model, mcmc.get_samples(), jax.random.PRNGKey(0), X, Y, **settings)
    same(raw, flat(TEST))
    assert eqx.filter_jit(lambda e: e(TEST))(ensemble).shape == values.shape
    slopes = ensemble.map(lambda paths: {"slope": jax.jacfwd(paths)(TEST[0])})["slope"]
    assert slopes.shape == (2, 6, 3, 1)
    np.testing.assert_allclose(slopes[1, 4], jax.jacfwd(ensemble[1][4])(TEST[0]), rtol=1e-9, atol=1e-11)
    calls = []
    counted = lambda paths: (calls.append(1), paths(TEST))[1]
    first = ensemble.map(counted)
    traced = len(calls)
    np.testing.assert_array_equal(ensemble.map(counted), first)
    assert len(calls) == traced


def test_leave_one_out_is_brute_force():
    noise = np.linspace(0.05, 0.3, N)
    prior = pgp.GPPrior(kernel=pgp.RBF(1.2, 0.4), X=X, mean=0.3, jitter=1e-4)
    posterior = prior.condition(Y, noise)
    found = posterior.leave_one_out()
    for i in range(N):
        rest = np.arange(N) != i
        others = pgp.GPPrior(kernel=prior.kernel, X=X[rest], mean=0.3, jitter=1e-4).condition(Y[rest], noise[rest])
        mean, variance = others.mean(X[i]), others.variance(X[i]) + noise[i] + 1e-4
        np.testing.assert_allclose(found.mean[i], mean, rtol=1e-8)
        np.testing.assert_allclose(found.variance[i], variance, rtol=1e-8)
        np.testing.assert_allclose(found.log_density[i], stats.norm(mean, np.sqrt(variance)).logpdf(Y[i]), rtol=1e-8)


def test_leave_one_out_over_draws():
    draws = {"RBF.variance": jnp.asarray([[0.7, 1.0, 1.4]] * 2), "RBF.lengthscale": jnp.asarray([[0.3] * 3, [0.5] * 3])}
    found = bridge.leave_one_out(model, draws, KEY, X, Y, group_by_chain=True)
    assert found.shape == (2, 3, N)
    kernel = pgp.RBF(1.4, 0.5)
    one = pgp.GPPrior(kernel=kernel, X=X, jitter=1e-4).condition(Y, NOISE).leave_one_out()
    np.testing.assert_allclose(found[1, 2], one.log_density, rtol=1e-9)
    flat = {name: value.reshape(-1) for name, value in draws.items()}
    np.testing.assert_allclose(bridge.leave_one_out(model, flat, KEY, X, Y), found.reshape(6, N), rtol=1e-9)


Z = jnp.linspace(-1, 1, 4)[:, None]
SPARSE = pgp.SparseGPPrior(kernel=pgp.RBF(1.2, 0.5), Z=Z, mean=0.2, jitter=1e-6)
WHITE = pgp.WhitenedGuide([0.3, -0.2, 0.5, 1.0], 0.4 * jnp.eye(4) + 0.1 * jnp.tril(jnp.ones((4, 4))))
LIKELIHOODS = {
    "normal": (lambda f: dist.Normal(f, 0.3), Y),
    "poisson": (lambda f: dist.Poisson(jnp.exp(f)), np.arange(N) % 4),
    "bernoulli": (lambda f: dist.Bernoulli(logits=f), np.arange(N) % 2),
    "student": (lambda f: dist.StudentT(4.0, f, 0.3), Y),
}


def bound(X, y, likelihood, guide=WHITE, **options):
    """The bound, and what it adds to the density of a model."""
    with handlers.trace() as trace, handlers.seed(rng_seed=0):
        value = bridge.svgp_factor("elbo", SPARSE, guide, X, y, likelihood, **options)
    site = trace["elbo"]
    np.testing.assert_allclose(site["fn"].log_prob(site["value"]), value)
    return value


@pytest.mark.parametrize("kind", LIKELIHOODS)
def test_bound_for_any_likelihood_is_quadrature(kind):
    likelihood, y = LIKELIHOODS[kind]
    # The marginals of f from the moments of the guide, without the whitening that the library uses.
    K = SPARSE.kernel(Z, Z) + 1e-6 * np.eye(4)
    mean, scale = WHITE.moments(SPARSE)
    A = np.linalg.solve(K, SPARSE.kernel(Z, X)).T
    m = 0.2 + A @ (mean - 0.2)
    v = np.diagonal(SPARSE.kernel(X, X) - A @ K @ A.T + A @ scale @ scale.T @ A.T)
    grid = np.linspace(-8, 8, 4001)
    f = m + np.sqrt(v) * grid[:, None]
    density = np.asarray(likelihood(jnp.asarray(f)).log_prob(y))
    weight = np.exp(-0.5 * grid**2)
    expected = (weight[:, None] * density).sum(0) / weight.sum()
    wanted = expected.sum() - WHITE.kl_divergence(SPARSE)
    np.testing.assert_allclose(bound(X, y, likelihood, n_points=60), wanted, rtol=1e-5)
    np.testing.assert_allclose(bound(X, y, likelihood), wanted, rtol=1e-3)
    if kind == "normal":
        np.testing.assert_allclose(bound(X, y, likelihood), pgp.elbo(SPARSE, WHITE, X, y, 0.09), rtol=1e-12)


def test_bound_of_several_latent_processes():
    other = pgp.SparseGPPrior(kernel=pgp.RBF(0.4, 0.7), Z=Z[:3], mean=-1.0, jitter=1e-6)
    small = pgp.WhitenedGuide([0.1, 0.2, -0.3], 0.5 * jnp.eye(3))
    likelihood = lambda f, g: dist.Normal(f, jnp.exp(g))
    with handlers.seed(rng_seed=0):
        value = bridge.svgp_factor("elbo", [SPARSE, other], [WHITE, small], X, Y, likelihood)
    # Given g the expectation over f is that of a normal density, and that over g of a log-normal variable: both closed.
    marginals = pgp._guides.bound.marginals
    m, v = marginals(SPARSE, WHITE, SPARSE.checked_factor().lower, pgp.Values(X))
    mg, vg = marginals(other, small, other.checked_factor().lower, pgp.Values(X))
    expected = -0.5 * np.log(2 * np.pi) - mg - 0.5 * ((Y - m) ** 2 + v) * np.exp(-2 * mg + 2 * vg)
    wanted = expected.sum() - WHITE.kl_divergence(SPARSE) - small.kl_divergence(other)
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    # Classes, by the softmax of one process each.
    classes = lambda f, g: dist.Categorical(logits=jnp.stack([f, g, jnp.zeros_like(f)], axis=-1))
    with handlers.seed(rng_seed=0):
        value = bridge.svgp_factor("elbo", [SPARSE, other], [WHITE, small], X, np.arange(N) % 3, classes)
    z = np.random.default_rng(0).normal(size=(2, 40_000, N))
    draws = classes(m + np.sqrt(v) * z[0], mg + np.sqrt(vg) * z[1]).log_prob(jnp.arange(N) % 3).sum(1)
    wanted = draws.mean() - WHITE.kl_divergence(SPARSE) - small.kl_divergence(other)
    assert abs(value - wanted) < 4 * draws.std() / np.sqrt(40_000)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64], ids=["float32", "float64"])
def test_inducing_points_are_where_the_variance_is_largest(dtype):
    inputs = np.random.default_rng(1).normal(size=(40, 2)).astype(dtype)
    kernel = pgp.RBF(1.0, 0.8) + pgp.Linear(0.3)
    found = np.asarray(pgp.inducing_points(kernel, inputs, 12))
    assert found.dtype == dtype
    K = np.asarray(kernel(inputs.astype(float), inputs.astype(float)))
    chosen = []
    for point in found:
        left = (
            np.diagonal(K)
            if not chosen
            else np.diagonal(
                K - K[:, chosen] @ np.linalg.solve(K[np.ix_(chosen, chosen)] + 1e-12 * np.eye(len(chosen)), K[chosen])
            )
        )
        row = int(np.flatnonzero((inputs == point).all(1))[0])
        assert left[row] >= left.max() - (1e-3 if dtype == jnp.float32 else 1e-8)
        chosen.append(row)
    # As many as there are, though the kernel has no such rank: each once.
    line = np.linspace(0, 1, 9, dtype=dtype)[:, None]
    assert sorted(np.asarray(pgp.inducing_points(pgp.Linear(1.0), line, 9))[:, 0]) == list(line[:, 0])


def test_parts_of_the_data_give_the_bound_on_average():
    likelihood, y = LIKELIHOODS["poisson"]
    whole = lambda w: bound(X, y, likelihood, eqx.tree_at(lambda g: g.mean, WHITE, w))
    parts = lambda w: sum(
        bound(X[i::5], y[i::5], likelihood, eqx.tree_at(lambda g: g.mean, WHITE, w), n_data=N) for i in range(5)
    )
    w = WHITE.mean
    np.testing.assert_allclose(parts(w) / 5, whole(w), rtol=1e-12)


def test_a_trained_guide_is_the_best_one_and_ends_in_paths():
    start = pgp.WhitenedGuide(jnp.zeros(4), jnp.eye(4))

    def learning(X, y):
        guide = bridge.learn(start, "*")
        bridge.svgp_factor("elbo", SPARSE, guide, X, y, lambda f: dist.Normal(f, 0.3))

    svi = SVI(learning, lambda *args: None, numpyro.optim.Adam(0.03), Trace_ELBO())
    found = svi.run(KEY, 1500, X, Y, progress_bar=False)
    best = pgp.optimal_guide(SPARSE, X, Y, 0.09)
    np.testing.assert_allclose(-found.losses[-1], pgp.elbo(SPARSE, best, X, Y, 0.09), atol=1e-3)
    params = found.params | {"Other.mean": jnp.zeros(3)}
    guide = bridge.place(start, params, ignore_others=True)
    for got, wanted in zip(guide.moments(SPARSE), best.moments(SPARSE), strict=True):
        np.testing.assert_allclose(got, wanted, atol=0.02)
    paths = pgp.DecoupledPathwiseSampler(SPARSE, guide, 64).sample_paths(KEY, 3)
    assert paths(TEST).shape == (3, 5)
    by_function = bridge.place(start, {lambda g: g.mean: jnp.ones(4), "Other.mean": 1.0}, ignore_others=True)
    assert (by_function.mean == 1).all()
    with pytest.raises(ValueError, match=r"Other\.mean"):
        bridge.place(start, params)


def test_collapsed_bound_is_titsias_and_lower_than_the_evidence():
    noise = 0.09
    K = SPARSE.kernel(Z, Z) + 1e-6 * np.eye(4)
    C = SPARSE.kernel(X, Z)
    Q = C @ np.linalg.solve(K, C.T)
    evidence = stats.multivariate_normal(np.full(N, 0.2), Q + noise * np.eye(N)).logpdf(Y)
    wanted = evidence - 0.5 / noise * np.trace(SPARSE.kernel(X, X) - Q)
    with handlers.trace() as trace, handlers.seed(rng_seed=0):
        value = bridge.sgpr_factor("elbo", SPARSE, X, Y, noise)
    np.testing.assert_allclose(value, wanted, rtol=1e-8)
    np.testing.assert_allclose(trace["elbo"]["fn"].log_prob(trace["elbo"]["value"]), value)
    assert value < pgp.GPPrior(kernel=SPARSE.kernel, X=X, mean=0.2, jitter=0.0).log_prob(Y, noise)
    # It is the bound at its maximum over guides, so its derivatives are those with the guide held.
    guide = pgp.optimal_guide(SPARSE, X, Y, noise)
    place = lambda s: bridge.place(SPARSE, {"kernel.lengthscale": s})
    free = jax.grad(lambda s: bridge.sgpr_factor("b", place(s), X, Y, noise))(0.5)
    held = jax.grad(lambda s: pgp.elbo(place(s), guide, X, Y, noise))(0.5)
    np.testing.assert_allclose(free, held, rtol=1e-6)


def test_a_jitter_stays_positive():
    assert bridge.sites(pgp.SparseGPPrior(kernel=SPARSE.kernel, Z=Z, jitter=1e-3))["SparseGPPrior.jitter"].support == (
        constraints.positive
    )


def bound_in_a_plate():
    with numpyro.plate("rows", 3):
        bound(X, Y, LIKELIHOODS["normal"][0])


DRAWS = {"RBF.variance": jnp.ones((2, 3)), "RBF.lengthscale": jnp.ones((2, 3))}
WRONG = {
    "unknown": (
        lambda: bridge.place(SUM, {"variance": 1.0}),
        "'variance', which is not a field of Sum. Its fields are: k",
    ),
    "pattern": (lambda: bridge.place(SUM, {"*.period": 1.0}), "no field of Sum fits. Its fields are"),
    "twice": (lambda: bridge.place(SUM, {"*": 1.0, "kernels[0].variance": 1.0}), "shape|twice"),
    "shape": (
        lambda: bridge.place(SUM, {"kernels[0].variance": [1.0]}),
        r"has shape \(1,\), but the field has shape \(\)",
    ),
    "domain": (
        lambda: bridge.place(SUM, {"kernels[0].variance": -1.0}),
        "outside the field's domain, positive; got -1",
    ),
    "shares": (lambda: bridge.place(mixed(), {"shares": [0.5, 0.6, 0.1]}), "outside the field's domain, simplex"),
    "nan": (lambda: bridge.place(SUM, {"kernels[0].variance": np.nan}), "must be finite"),
    "text": (lambda: bridge.place(SUM, {"kernels[0].variance": "1"}), "must be an array of numbers"),
    "module": (lambda: bridge.place(3, {}), "`module` must be an Equinox module; got int"),
    "subtree": (lambda: bridge.place(SUM, {lambda k: k.kernels[0]: 1.0}), "must pick one field of Sum; it picked RBF"),
    "no such": (lambda: bridge.place(SUM, {lambda k: k.kernels[7].variance: 1.0}), "failed to pick a field of Sum"),
    "number": (lambda: bridge.place(SUM, {3: 1.0}), "names 3, which is not a field"),
    "learn unknown": (lambda: bridge.learn(SUM, "kernels[0].scale"), "not a field of Sum. Its fields are"),
    "learn twice": (lambda: bridge.learn(SUM, ["*", "kernels[0].variance"]), "twice"),
    "learn at the edge": (
        lambda: bridge.learn(pgp.FullRankGuide([0.0], [[0.0]]), "scale_tril"),
        "cannot be learnt from where it is: its value must be inside its domain, lower_cholesky",
    ),
    "chains": (lambda: bridge.posterior_paths(model, DRAWS, KEY, X, Y), "group_by_chain=True|axis of chains"),
    "no chains": (
        lambda: bridge.posterior_paths(model, {n: v[0] for n, v in DRAWS.items()}, KEY, X, Y, group_by_chain=True),
        "two leading axes, of chains and draws, in common",
    ),
    "key": (lambda: bridge.posterior_paths(model, DRAWS, None, X, Y, group_by_chain=True), "`key` must be a key"),
    "bound, shape": (lambda: bound(X, Y, lambda f: dist.Normal(f, 0.1).to_event(1)), r"gave shape \(20,\)"),
    "bound, y": (lambda: bound(X, Y[:3], LIKELIHOODS["normal"][0]), "leading axis of 10"),
    "bound, nan": (lambda: bound(X, np.nan * Y, LIKELIHOODS["normal"][0]), "`y` must be finite"),
    "bound, n_data": (lambda: bound(X, Y, LIKELIHOODS["normal"][0], n_data=3), "`n_data` counts all.*got 3, but 10"),
    "bound, guide": (
        lambda: bound(X, Y, LIKELIHOODS["normal"][0], pgp.MeanFieldGuide([0.0], [1.0])),
        "has 1 inducing v",
    ),
    "bound, no guide": (
        lambda: bound(X, Y, LIKELIHOODS["normal"][0], 3),
        "`guide` must be a guide over inducing values",
    ),
    "bound, numbers": (
        lambda: bridge.svgp_factor("b", [SPARSE], [WHITE, WHITE], X, Y, LIKELIHOODS["normal"][0]),
        "`prior` and `guide` must be as many; got 1 and 2",
    ),
    "inducing points": (
        lambda: pgp.inducing_points(pgp.RBF(1.0, 1.0), X, 11),
        "at most the number of inputs, 10; got 11",
    ),
    "no inducing points": (lambda: pgp.inducing_points(pgp.RBF(1.0, 1.0), X, 0), "`n_points` must be at least 1"),
    "bound, white noise": (
        lambda: bridge.svgp_factor(
            "b",
            pgp.SparseGPPrior(kernel=pgp.RBF(1.0, 1.0) + pgp.White(0.1), Z=Z),
            WHITE,
            X,
            Y,
            LIKELIHOODS["normal"][0],
        ),
        "holds `White`, which is noise: give it to `likelihood`",
    ),
    "bound, plate": (bound_in_a_plate, "cannot stand inside a plate"),
    "bound, y as a column": (
        lambda: bound(X, Y[:, None], LIKELIHOODS["normal"][0], n_points=N),
        r"`y` must have shape \(10,\), one observation for each input; got \(10, 1\). Pass `y\[:, 0\]`",
    ),
    "thin": (
        lambda: bridge.posterior_paths(model, DRAWS, KEY, X, Y, group_by_chain=True, thin=0),
        "`thin` must be at l",
    ),
}


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize("name", WRONG)
def test_wrong_uses_are_named(name):
    call, words = WRONG[name]
    with pytest.raises(ValueError, match=words):
        call()
