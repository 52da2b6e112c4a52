"""Maximum likelihood against scipy's optimiser and a likelihood written in numpy."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from tables import CALLS, Counted

import pathwise_gp as pgp

N = 25
RNG = np.random.default_rng(0)
X = np.sort(RNG.uniform(-2, 2, (N, 1)), axis=0)
Y = np.sin(3 * X[:, 0]) + 0.15 * RNG.normal(size=N)
JITTER = 1e-6

pytestmark = pytest.mark.usefixtures("standard_promotion")


def prior(variance=1.0, lengthscale=0.5, mean=0.0, dtype=jnp.float64):
    kernel = pgp.RBF(jnp.asarray(variance, dtype), jnp.asarray(lengthscale, dtype))
    return pgp.GPPrior(kernel=kernel, X=jnp.asarray(X, dtype), mean=jnp.asarray(mean, dtype), jitter=JITTER)


def log_density(variance, lengthscale, mean, noise):
    K = variance * np.exp(-0.5 * (X - X.T) ** 2 / lengthscale**2) + (noise + JITTER) * np.eye(N)
    return scipy.stats.multivariate_normal(np.full(N, mean), K).logpdf(Y)


def by_scipy(objective, start):
    found = scipy.optimize.minimize(lambda t: -objective(t), start, method="BFGS", options={"gtol": 1e-7})
    return found.x, -found.fun


@pytest.fixture(scope="module")
def best():
    return by_scipy(lambda t: log_density(np.exp(t[0]), np.exp(t[1]), t[2], np.exp(t[3])), [0, -0.7, 0, -3])


def values(found):
    p = found.prior
    return np.array([p.kernel.variance, p.kernel.lengthscale, p.mean.value, found.noise_var])


def test_the_maximum_is_scipys(best):
    found = pgp.fit(prior(), Y, 0.05)
    assert found.converged
    assert found.steps[0] < 60
    np.testing.assert_allclose(found.log_density, best[1], rtol=1e-9)
    np.testing.assert_allclose(found.log_density, found.prior.log_prob(Y, found.noise_var), rtol=1e-12)
    np.testing.assert_allclose(values(found), [*np.exp(best[0][:2]), best[0][2], np.exp(best[0][3])], rtol=2e-4)
    # What is no hyperparameter stays.
    np.testing.assert_array_equal(found.prior.X, X)
    assert found.prior.jitter == JITTER


def test_only_what_is_named_is_learnt():
    start = prior(1.3, 0.5, 0.2)
    found = pgp.fit(start, Y, 0.05, fields="kernel.lengthscale", learn_noise=False)
    assert (found.prior.kernel.variance, found.prior.mean.value, found.noise_var) == (1.3, 0.2, 0.05)
    at, value = by_scipy(lambda t: log_density(1.3, np.exp(t[0]), 0.2, 0.05), [-0.7])
    np.testing.assert_allclose(found.prior.kernel.lengthscale, np.exp(at[0]), rtol=1e-4)
    np.testing.assert_allclose(found.log_density, value, rtol=1e-9)
    picked = pgp.fit(start, Y, 0.05, fields=[lambda p: p.kernel.lengthscale], learn_noise=False)
    assert picked.prior.kernel.lengthscale == found.prior.kernel.lengthscale
    noise = pgp.fit(start, Y, jnp.full(N, 0.05), fields=[], learn_noise=True)
    assert noise.noise_var.shape == (N,)
    assert noise.log_density > start.log_prob(Y, 0.05)


def test_variances_that_are_given_for_each_point_are_known():
    errors = np.linspace(0.02, 0.3, N)
    found = pgp.fit(prior(), Y, errors)
    np.testing.assert_array_equal(found.noise_var, errors)
    with pytest.raises(ValueError, match="Nothing is to be learnt"):
        pgp.fit(prior(), Y, errors, fields=[])
    again = pgp.fit(prior(), Y, errors, learn_noise=False)
    np.testing.assert_array_equal(found.log_density, again.log_density)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32], ids=["float64", "float32"])
def test_nothing_depends_on_units(dtype):
    """y → a·y moves the mean by a, the variances by a² and the log density by −n log a; x → c·x the lengthscale by c."""

    def found(a, c):
        kernel = pgp.RBF(jnp.asarray(a * a, dtype), jnp.asarray(0.5 * c, dtype))
        start = pgp.GPPrior(kernel=kernel, X=jnp.asarray(X * c, dtype), mean=jnp.asarray(0.0, dtype))
        fit = pgp.fit(start, jnp.asarray((Y + 2) * a, dtype), jnp.asarray(0.05 * a * a, dtype))
        assert fit.converged
        scales = np.array([a * a, c, a, a * a])
        return values(fit) / scales, float(fit.log_density) + N * np.log(a)

    exact = by_scipy(
        lambda t: scipy.stats.multivariate_normal(
            np.full(N, t[2]),
            np.exp(t[0] - 0.5 * (X - X.T) ** 2 / np.exp(2 * t[1])) + np.exp(t[3]) * np.eye(N),
        ).logpdf(Y + 2),
        [0, -0.7, 2, -3],
    )
    wanted = np.exp(exact[0]) * [1, 1, 0, 1] + [0, 0, exact[0][2], 0]
    # In float32 the density is known to about 1e-6 of itself, and the values to the root of that in their own deviation.
    rtol, atol = (1e-3, 1e-7) if dtype == jnp.float64 else (0.05, 1e-3)
    for a, c in ((1.0, 1.0), (1e3, 1e-3), (1e-3, 1.0), (1e6, 1e6), (1e-6, 1e3)):
        at, density = found(a, c)
        np.testing.assert_allclose(density, exact[1], atol=atol * 100, rtol=1e-6)
        np.testing.assert_allclose(at, wanted, rtol=rtol)


def test_a_field_without_entries_has_nothing_to_learn():
    inputs = np.c_[np.linspace(0, 3, N), np.arange(N) % 2]
    kernel = pgp.Coregionalised(pgp.RBF(1.0, 1.0), np.zeros((2, 0)), kappa=[1.0, 1.0])
    y = np.sin(3 * inputs[:, 0]) * (1 + inputs[:, 1]) + 0.1 * RNG.normal(size=N)
    found = pgp.fit(pgp.GPPrior(kernel=kernel, X=inputs), y, 0.01)
    assert found.converged
    assert found.prior.kernel.W.shape == (2, 0)
    assert found.log_density > pgp.GPPrior(kernel=kernel, X=inputs).log_prob(y, 0.01)


def test_a_large_field_has_one_scale():
    """What a network in a kernel has learnt: more entries than have each a scale of their own."""
    warp = eqx.nn.MLP(1, 2, 16, 1, activation=jnp.tanh, key=jax.random.key(0))
    warp = jax.tree.map(lambda leaf: leaf.astype(float) if eqx.is_inexact_array(leaf) else leaf, warp)
    start = pgp.GPPrior(kernel=pgp.Warped(pgp.RBF(1.0, 1.0), warp), X=X)
    found = pgp.fit(start, Y, 0.05, fields="*.weight", max_steps=5)
    assert found.log_density > start.log_prob(Y, 0.05) + 1


def branin():
    rng = np.random.default_rng(1)
    inputs = rng.uniform(size=(30, 2))
    a, b = 15 * inputs[:, 0] - 5, 15 * inputs[:, 1]
    y = (b - 5.1 / (4 * np.pi**2) * a * a + 5 / np.pi * a - 6) ** 2 + 10 * (1 - 1 / (8 * np.pi)) * np.cos(a)
    return pgp.Matern(2.5, 1.0, [0.3, 0.3]), inputs, (y - 44) / 51, 1e-3


def sine():
    inputs = np.linspace(0, 6, 30)[:, None]
    return pgp.RBF(1.0, 1.0), inputs, np.sin(inputs[:, 0]), 1e-2


@pytest.mark.parametrize("problem", [branin, sine])
def test_the_best_point_is_returned_and_a_lost_search_said(problem):
    """Noise-free values, which pull the noise below what float32 resolves."""
    kernel, inputs, y, noise = problem()
    single = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)
    start, y, noise = pgp.GPPrior(kernel=single(kernel), X=single(inputs)), single(y), single(noise)
    before = -np.inf
    for steps in (5, 20, 200):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = pgp.fit(start, y, noise, max_steps=steps)
            again = found.prior.log_prob(y, found.noise_var)
        # Near the edge a density is rounding: whoever evaluates it again finds another, or none.
        np.testing.assert_allclose(found.log_density, again, rtol=1e-2)
        assert found.noise_var >= 90 * jnp.finfo(jnp.float32).eps * found.prior.kernel.variance
        assert found.log_density >= before
        before = found.log_density
    assert before > start.log_prob(y, noise) + 10
    assert found.converged or "before it converged" in str(said[0].message)


def test_a_prior_on_the_values_makes_it_a_posteriori():
    laws = scipy.stats.norm(0.8, 0.1), scipy.stats.norm(0.3, 0.02)

    def log_prior(here, noise):
        kernel = here.kernel
        return -0.5 * (((kernel.variance - 0.8) / 0.1) ** 2 + ((kernel.lengthscale - 0.3) / 0.02) ** 2) + 0 * noise

    found = pgp.fit(prior(), Y, 0.05, fields="kernel.*", learn_noise=False, log_prior=log_prior)
    target = lambda t: (
        log_density(*np.exp(t), 0.0, 0.05) + sum(law.logpdf(np.exp(u)) for law, u in zip(laws, t, strict=True))
    )
    at, _ = by_scipy(target, [0, -0.7])
    np.testing.assert_allclose([found.prior.kernel.variance, found.prior.kernel.lengthscale], np.exp(at), rtol=1e-4)
    assert found.converged


def test_further_starts_leave_a_poor_maximum():
    # Here the process is white noise, whatever the lengthscale.
    start = prior(1.0, 4e-5)
    one = pgp.fit(start, Y, 1.0, fields="kernel.*")
    many = pgp.fit(start, Y, 1.0, fields="kernel.*", key=jax.random.key(1), n_restarts=23)
    assert many.log_densities.shape == many.all_converged.shape == many.steps.shape == (24,)
    np.testing.assert_allclose(many.log_densities[0], one.log_density, rtol=1e-6)
    assert many.log_density == many.log_densities.max() > one.log_density + 5
    assert many.converged == many.all_converged[many.log_densities.argmax()]
    np.testing.assert_allclose(many.log_density, many.prior.log_prob(Y, many.noise_var), rtol=1e-12)


def test_flags_say_when_it_has_not_converged():
    found = pgp.fit(prior(), Y, 0.05, max_steps=2)
    assert not found.converged
    assert found.steps[0] == 2


def test_points_that_were_not_observed_do_not_count():
    mask = np.arange(len(Y)) % 4 != 1
    found = pgp.fit(prior(), np.where(mask, Y, np.nan), 0.05, mask)
    rest = pgp.GPPrior(kernel=prior().kernel, X=X[mask], mean=prior().mean, jitter=prior().jitter)
    alone = pgp.fit(rest, Y[mask], 0.05)
    np.testing.assert_allclose(found.log_density, alone.log_density, rtol=1e-7)
    np.testing.assert_allclose(found.prior.kernel.lengthscale, alone.prior.kernel.lengthscale, rtol=1e-3)


# On the edge it may converge or not: the last bits decide.
@pytest.mark.filterwarnings("ignore:The search for the largest log density")
def test_a_start_without_density_is_survived():
    # Repeated inputs, and as good as no noise.
    bad = pgp.GPPrior(kernel=pgp.RBF(1.0, 3.0), X=np.r_[X, X], jitter=0.0)
    with pytest.warns(pgp.PrecisionWarning, match="ended at -inf before it converged"):
        found = pgp.fit(bad, np.r_[Y, Y], 1e-18)
    assert found.log_density == -np.inf
    assert not found.converged
    assert found.prior.kernel.lengthscale == 3
    # On the edge of what has a density the search turns back.
    edge = pgp.GPPrior(kernel=pgp.RBF(1.0, 0.8), X=X, jitter=0.0)
    found = pgp.fit(edge, np.sin(3 * X[:, 0]), 1e-10, learn_noise=False)
    assert np.isfinite(found.log_density)
    assert found.log_density > edge.log_prob(np.sin(3 * X[:, 0]), 1e-10)


def test_in_single_precision_and_under_jit(best):
    run = eqx.filter_jit(pgp.fit)
    found = run(prior(dtype=jnp.float32), jnp.asarray(Y, jnp.float32), jnp.asarray(0.05, jnp.float32))
    kernel = found.prior.kernel
    assert {leaf.dtype for leaf in (kernel.variance, kernel.lengthscale, found.noise_var)} == {jnp.dtype("float32")}
    assert found.converged
    np.testing.assert_allclose(found.log_density, best[1], rtol=1e-3)
    again = pgp.fit(prior(), jnp.asarray(Y), 0.05)
    np.testing.assert_allclose(run(prior(), jnp.asarray(Y), 0.05).log_density, again.log_density, rtol=1e-9)


def test_other_values_compile_nothing_anew(capsys):
    run = lambda seed: pgp.fit(
        pgp.GPPrior(kernel=Counted(pgp.RBF(1.0 + seed, 0.5)), X=X + seed), Y + seed, 0.1 + seed, max_steps=3
    )
    run(0)
    CALLS.clear()
    run(1)
    assert not CALLS
    assert capsys.readouterr().err == ""
    pgp.fit(prior(), Y, 0.05, max_steps=3, progress=True)
    jax.effects_barrier()
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert "start 1 of 1, log density" in shown


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((1, Y, 0.1), {}, "`prior` must be a GPPrior; got int"),
        ((prior(), Y[:3], 0.1), {}, r"`y` must have shape \(25,\)"),
        ((prior(), Y, 0.0), {}, "`noise_var` must be positive"),
        ((prior(), Y, 0.1), {"fields": "kernel.length"}, "which is not a field of GPPrior. Its fields are: kernel.var"),
        ((prior(), Y, 0.1), {"fields": ["kernel.*", "kernel.variance"]}, "'kernel.variance' twice"),
        ((prior(), Y, 0.1), {"fields": "*.nothing"}, "no field of GPPrior fits"),
        ((prior(), Y, 0.1), {"fields": [], "learn_noise": False}, "Nothing is to be learnt"),
        ((prior(), Y, 0.1), {"n_restarts": 2}, "`n_restarts` needs a `key`"),
        ((prior(), Y, 0.1), {"n_restarts": -1}, "`n_restarts` must be at least 1"),
        ((prior(), Y, 0.1), {"max_steps": 0}, "`max_steps` must be at least 1"),
    ],
)
def test_fit_refuses(arguments, options, words):
    with pytest.raises(ValueError, match=words):
        pgp.fit(*arguments, **options)
