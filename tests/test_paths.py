"""Paths as functions and as pytrees."""

import copy
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import pathwise_gp as pgp

N, DIM, S = 9, 2, 5
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.uniform(-1, 1, (N, DIM)))
Y = jnp.asarray(np.sin(3 * np.asarray(X)[:, 0]) + 0.1 * RNG.normal(size=N))
TEST = jnp.asarray(RNG.uniform(-1.5, 1.5, (3, 4, DIM)))
KERNEL = pgp.RBF(variance=1.2, lengthscale=[0.5, 0.9]) + pgp.Linear(0.5)


def trend(x):
    return 0.3 * x[..., 0] + 1.0


def posterior(kernel=KERNEL, y=Y, dtype=None):
    points = X if dtype is None else X.astype(dtype)
    return pgp.GPPrior(kernel=kernel, X=points, mean=trend, jitter=1e-6).condition(y.astype(points.dtype), 0.01)


def draw(seed=0, n_paths=S, kernel=KERNEL, n_features=30, **kwargs):
    return pgp.PathwiseSampler(posterior(kernel), n_features, **kwargs).sample_paths(jax.random.key(seed), n_paths)


def sparse(seed=0):
    prior = pgp.SparseGPPrior(kernel=KERNEL, Z=X[:4], mean=trend, jitter=1e-6)
    guide = pgp.optimal_guide(prior, X, Y, 0.01)
    return pgp.DecoupledPathwiseSampler(prior, guide, 30).sample_paths(jax.random.key(seed), S)


def of_prior(seed=0):
    return pgp.GPPrior(kernel=KERNEL, X=X, mean=trend).sample_paths(jax.random.key(seed), S, 30)


KINDS = {"shared": draw, "own": lambda seed=0: draw(seed, share_features=False), "sparse": sparse, "prior": of_prior}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def paths(kind):
    return kind()


def same(left, right, atol=1e-12):
    np.testing.assert_allclose(left, right, rtol=0, atol=atol)


def by_hand(path, x):
    """One path at one point, from its formula."""
    phi = path.features(x[None, :])[0]
    update = path.kernel(x, path.inputs) @ path.coefficients if path.inputs.shape[0] else 0.0
    return path.prior_mean(x[None, :])[0] + phi @ path.weights + update


def test_values_follow_the_formula_and_the_shape_rule(paths):
    values = paths(TEST)
    assert values.shape == (S, 3, 4)
    assert values.dtype == jnp.float64
    for s in (0, S - 1):
        same(values[s, 1, 2], by_hand(paths[s], TEST[1, 2]))
    assert paths[2](TEST).shape == (3, 4)
    assert paths[2](TEST[0, 0]).shape == ()
    assert paths(TEST[0, 0]).shape == (S,)
    assert paths(TEST[:, :0]).shape == (S, 3, 0)


def test_a_draw_is_one_function_however_it_is_called(paths):
    values = paths(TEST)
    same(jnp.stack([paths(x) for x in TEST.reshape(-1, DIM)], axis=1).reshape(values.shape), values)
    same(eqx.filter_jit(lambda p, x: p(x))(paths, TEST), values)
    same(jax.vmap(paths, out_axes=1)(TEST), values)
    same(paths(np.asarray(TEST)), values, atol=0)
    same(paths(TEST), values, atol=0)


def test_values_in_blocks_are_those_in_one(paths):
    x = jnp.asarray(RNG.normal(size=(200, DIM)))
    total = lambda x, **options: jnp.sum(paths(x, **options) ** 2)
    # One byte stands for 64 rows, the least there is.
    same(paths(x, block_bytes=1), paths(x))
    same(jax.grad(total)(x, block_bytes=1), jax.grad(total)(x), atol=1e-10)


def test_memory_of_a_call_does_not_grow_with_its_inputs():
    paths, rows = draw(0), (2_000, 8_000)
    compiled = [
        jax.jit(lambda x: paths(x, block_bytes=2**17)).lower(jax.ShapeDtypeStruct((n, DIM), jnp.float64)).compile()
        for n in rows
    ]
    memory = [program.memory_analysis() for program in compiled]
    few, many = (m.temp_size_in_bytes for m in memory)
    assert memory[1].output_size_in_bytes - memory[0].output_size_in_bytes == (rows[1] - rows[0]) * S * 8
    # Less than a quarter of a copy of the result, and than a hundredth of the features at those rows.
    assert many - few < (rows[1] - rows[0]) * S * 8 / 4


def test_paired_gives_each_path_its_own_inputs(paths, monkeypatch):
    x = jnp.asarray(RNG.normal(size=(S, 3, DIM)))
    wanted = jnp.stack([paths[s](x[s]) for s in range(S)])
    same(paths.paired(x), wanted)
    same(paths.paired(x[:, 0]), wanted[:, 0])
    same(paths[1].paired(x[1]), wanted[1])
    monkeypatch.setattr("pathwise_gp._paths.paired._ENTRIES", 1)
    jax.clear_caches()
    same(paths.paired(x), wanted)


def outputs():
    kernel = pgp.Coregionalised(pgp.RBF(1.0, 0.9), np.ones((2, 1)), np.ones(2))
    conditioned = pgp.GPPrior(kernel, pgp.AllOutputs(X, 2)).condition(np.stack([Y, -Y], axis=1), 0.1)
    return pgp.PathwiseSampler(conditioned, 48).sample_paths(jax.random.key(0), S).outputs


def ensemble_of(paths, n_draws=2):
    """Draws that differ in their coefficients: all else, such as a variance that is a scalar, they have in common."""
    scaled = paths.coefficients[None] * (1 + jnp.arange(float(n_draws))).reshape(
        n_draws, *(1,) * paths.coefficients.ndim
    )
    varies = eqx.tree_at(lambda p: p.coefficients, jax.tree.map(lambda _: False, paths), True)
    return pgp.PathEnsemble(*eqx.partition(eqx.tree_at(lambda p: p.coefficients, paths, scaled), varies))


@pytest.mark.parametrize("made", [draw, outputs, lambda: draw()[0]], ids=["paths", "outputs", "one path"])
def test_paired_of_ensembles_and_of_several_outputs(made, monkeypatch):
    paths = made()
    ensemble = ensemble_of(paths)
    inputs = jnp.asarray(RNG.normal(size=(*ensemble.shape, 3, DIM)))
    of = lambda paths, x: jnp.stack([one(at) for one, at in zip(paths, x, strict=True)]) if paths.shape else paths(x)
    wanted = jnp.stack([of(ensemble[i], inputs[i]) for i in range(2)])
    same(ensemble.paired(inputs), wanted)
    same(ensemble.paired(inputs[..., 0, :]), jnp.take(wanted, 0, axis=len(ensemble.shape)))
    same(ensemble[1].paired(inputs[1]) if paths.shape else paths(inputs[0]), wanted[1 if paths.shape else 0])
    chains = pgp.PathEnsemble(jax.tree.map(lambda leaf: leaf[None], ensemble.varying), ensemble.common, 2)
    same(chains.paired(inputs[None]), wanted[None])
    slope = jax.grad(lambda x: jnp.sum(ensemble.paired(x)))(inputs)
    same(slope[0], jax.grad(lambda x: jnp.sum(of(ensemble[0], x)))(inputs[0]))
    monkeypatch.setattr("pathwise_gp._paths.paired._ENTRIES", 1)
    jax.clear_caches()
    same(ensemble.paired(inputs), wanted)


def all_vary(paths, n_draws):
    arrays, rest = eqx.partition(paths, eqx.is_array)
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * n_draws), arrays), rest


@pytest.mark.parametrize("own", [False, True], ids=["ensemble", "bases of their own"])
def test_memory_of_a_gradient_does_not_grow_with_the_draws(own):
    """Beyond the gradient itself: what a draw needs is computed again, not kept."""
    x, rest = jnp.asarray(RNG.normal(size=(300, DIM))), []
    for n in (8, 32):
        made = (
            draw(n_paths=n, n_features=256, share_features=False)
            if own
            else pgp.PathEnsemble(*all_vary(draw(n_paths=2, n_features=256), n))
        )
        value = eqx.filter_grad(lambda paths: jnp.sum(paths(x) ** 2))
        analysis = (
            jax.jit(lambda leaves, s=made: value(eqx.combine(leaves, eqx.filter(s, eqx.is_array, inverse=True))))
            .lower(eqx.filter(made, eqx.is_array))
            .compile()
            .memory_analysis()
        )
        rest.append(analysis.temp_size_in_bytes - 3 * 8 * n * 300 * (1 if own else 2))
    assert rest[1] < 1.5 * rest[0]


def test_sequence_protocol(paths):
    values = paths(TEST)
    assert len(paths) == S
    same(jnp.stack([path(TEST) for path in paths]), values)
    same(paths[-1](TEST), values[-1])
    same(paths[1:4:2](TEST), values[1:4:2])
    same(paths[jnp.asarray([3, 0])](TEST), values[jnp.asarray([3, 0])])
    same(eqx.filter_jit(lambda p, i: p[i](TEST))(paths, 2), values[2])
    same(jax.jit(lambda i: paths[i](TEST))(2), values[2])
    assert paths[:0](TEST).shape == (0, 3, 4)
    with pytest.raises(TypeError, match="no len"):
        len(paths[0])
    for bad in (S, -S - 1):
        with pytest.raises(IndexError, match=f"Path .* there are {S}"):
            paths[bad]


def test_stack_and_concatenate(kind):
    one, other = kind(0), kind(1)
    a, b = one(TEST), other(TEST)
    same(pgp.stack([one[0], one[3]])(TEST), a[jnp.asarray([0, 3])])
    same(pgp.stack([one, one])(TEST), jnp.stack([a, a]))
    same(pgp.concatenate([one[:2], one[4:]])(TEST), a[jnp.asarray([0, 1, 4])])
    assert pgp.concatenate([one[:2], one[4:]]).share_features == one.share_features
    # Paths of two draws have different bases, which are then kept one a path.
    mixed = pgp.concatenate([one, other])
    assert len(mixed) == 2 * S
    assert not mixed.share_features
    same(mixed(TEST), jnp.concatenate([a, b]))
    same(mixed[S + 1](TEST), b[1])
    both = pgp.stack([one, other])
    assert both.shape == (2, S)
    same(both(TEST), jnp.stack([a, b]))
    same(both[1][2](TEST), b[2])
    same(both.paired(jnp.broadcast_to(TEST, (2, S, *TEST.shape))), jnp.stack([a, b]))
    same(pgp.stack([one[0], other[1]]).paired(TEST[:2]), jnp.stack([one[0](TEST[0]), other[1](TEST[1])]))


def test_mean_path_is_the_posterior_mean():
    exact = posterior()
    mean = draw().mean_path
    assert mean.shape == ()
    same(mean(TEST), exact.mean(TEST))
    same(jax.grad(mean)(TEST[0, 0]), jax.grad(exact.mean)(TEST[0, 0]))
    same(of_prior().mean_path(TEST), trend(TEST))


def test_training_inputs_are_stored_once():
    paths = draw()
    assert paths.inputs.shape == (N, DIM)
    assert paths.weights.shape == (S, 32)  # 30 random features and two exact ones
    assert paths[0].inputs is paths.inputs
    assert draw(share_features=False).inputs.shape == (N, DIM)


def test_pytree_laws(paths, tmp_path):
    leaves = lambda tree: [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array))]
    again = [
        jax.tree.map(lambda leaf: leaf, paths),
        eqx.filter_jit(lambda p: p)(paths),
        copy.deepcopy(paths),
        pickle.loads(pickle.dumps(paths)),
        eqx.tree_at(lambda p: p.weights, paths, paths.weights),
    ]
    eqx.tree_serialise_leaves(tmp_path / "paths.eqx", paths)
    blank = jax.tree.map(lambda leaf: jnp.zeros_like(leaf) if eqx.is_array(leaf) else leaf, paths)
    again.append(eqx.tree_deserialise_leaves(tmp_path / "paths.eqx", blank))
    for copied in again:
        assert type(copied) is type(paths)
        assert jax.tree.structure(copied) == jax.tree.structure(paths)
        for left, right in zip(leaves(copied), leaves(paths), strict=True):
            np.testing.assert_array_equal(left, right)
            assert left.dtype == right.dtype
        same(copied(TEST), paths(TEST), atol=0)


def test_vmap_over_stacked_paths_is_a_loop():
    paths = [draw(seed)[0] for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves) if eqx.is_array(leaves[0]) else leaves[0], *paths)
    values = eqx.filter_vmap(lambda p, x: p(x), in_axes=(eqx.if_array(0), None))(stacked, TEST)
    same(values, jnp.stack([path(TEST) for path in paths]))


def test_paths_of_one_structure_do_not_retrace():
    traces = []

    @eqx.filter_jit
    def evaluate(paths, x):
        traces.append(None)
        return paths(x)

    evaluate(draw(0), TEST)
    evaluate(draw(1), TEST)
    evaluate(draw(2, kernel=pgp.RBF(2.0, [0.4, 0.3]) + pgp.Linear(0.1)), TEST)
    evaluate(pickle.loads(pickle.dumps(draw(0))), TEST)
    assert len(traces) == 1


def difference(f, x, step):
    """Central differences along each axis; the error is of order step² and eps/step."""
    directions = step * np.eye(len(x))
    return np.stack([(np.asarray(f(x + e)) - np.asarray(f(x - e))) / (2 * step) for e in directions], axis=-1)


@pytest.mark.parametrize("nu", [None, 0.5, 1.5, 2.5, 3.5])
def test_derivatives_in_x_are_those_of_differences(nu):
    kernel = pgp.RBF(1.0, 0.6) if nu is None else pgp.Matern(nu, 1.0, 0.6)
    path = draw(kernel=kernel)[1]
    away = jnp.asarray([0.31, -0.42])
    # Frequencies of the roughest go to millions of turns, which a difference does not resolve.
    step = 1e-9 if nu == 0.5 else 1e-6
    scale = 1e4 if nu == 0.5 else 1
    same(jax.grad(path)(away), difference(path, away, step), atol=1e-7 * scale)
    if nu != 0.5:
        same(jax.hessian(path)(away), difference(jax.grad(path), away, 1e-6), atol=1e-6)
    at = X[2]  # a training input, where the square root in the kernel has no derivative
    assert np.all(np.isfinite(jax.grad(path)(at)))
    assert np.all(np.isfinite(jax.hessian(path)(at)))
    if nu is None or nu >= 1.5:
        same(jax.grad(path)(at), difference(path, at, 1e-6), atol=1e-3 if nu == 1.5 else 1e-6)
    if nu is None or nu >= 2.5:
        # The third derivative of a Matérn-5/2 kernel jumps there, and so the difference is of first order.
        same(jax.hessian(path)(at), difference(jax.grad(path), at, 1e-6), atol=1e-3)


def test_grad_jacobian_and_filter_grad():
    paths = draw()
    point = TEST[0, 0]
    assert jax.jacobian(paths)(point).shape == (S, DIM)
    same(jax.jacobian(paths)(point)[3], jax.grad(paths[3])(point))
    gradient = eqx.filter_grad(lambda path: path(point) ** 2)(paths[1])
    assert type(gradient) is pgp.PathwiseFunction
    flat, unravel = ravel_pytree(eqx.filter(paths[1], eqx.is_inexact_array))
    rest = eqx.filter(paths[1], eqx.is_inexact_array, inverse=True)
    value = lambda z: eqx.combine(unravel(z), rest)(point) ** 2
    direction = jnp.asarray(RNG.normal(size=flat.shape))
    numeric = (value(flat + 1e-6 * direction) - value(flat - 1e-6 * direction)) / 2e-6
    same(ravel_pytree(gradient)[0] @ direction, numeric, atol=1e-6)


@pytest.mark.parametrize(
    "kernel",
    [
        pgp.RBF(1.1, [0.5, 0.9]),
        pgp.Matern(1.5, 1.1, 0.7) + pgp.Linear(0.5),
        pgp.RBF(1.1, 0.7) * pgp.Linear(0.6) + pgp.Matern(2.5, 0.4, 0.5),
        pgp.ActiveDims(pgp.Periodic(1.0, 0.8, 1.7), [0]) + pgp.Constant(0.4),
    ],
)
def test_gradients_in_hyperparameters_go_through_the_draw(kernel):
    @eqx.filter_jit
    def loss(kernel, noise_var):
        conditioned = pgp.GPPrior(kernel=kernel, X=X, jitter=1e-6).condition(Y, noise_var)
        # So many that the sampled harmonics of the periodic kernel, whose derivative is right on average only, weigh nothing.
        paths = pgp.PathwiseSampler(conditioned, 40).sample_paths(jax.random.key(4), 3)
        return jnp.sum(paths(TEST) ** 2)

    variables = (kernel, jnp.asarray(0.05))
    gradient = ravel_pytree(eqx.filter_jit(eqx.filter_grad(lambda v: loss(*v)))(variables))[0]
    flat, unravel = ravel_pytree(eqx.filter(variables, eqx.is_inexact_array))
    rest = eqx.filter(variables, eqx.is_inexact_array, inverse=True)
    numeric = difference(lambda z: loss(*eqx.combine(unravel(jnp.asarray(z)), rest)), np.asarray(flat), 1e-6)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-5)


def test_float32_paths_are_float32_and_agree_with_float64():
    single = pgp.PathwiseSampler(posterior(dtype=jnp.float32), 64)
    double = pgp.PathwiseSampler(posterior(), 64)
    paths = single.sample_paths(jax.random.key(0), 3)
    assert {leaf.dtype for leaf in (paths.weights, paths.coefficients, paths.inputs)} == {jnp.dtype("float32")}
    assert paths(TEST.astype(jnp.float32)).dtype == jnp.float32
    assert paths(TEST).dtype == jnp.float32  # test inputs are taken in the dtype of the path
    # The same Gaussian inputs in both: rounding in the solve (condition number about 1e3) is all that differs.
    noise = jnp.asarray(RNG.normal(size=(3, N)))
    other = double.update(paths.features, paths.weights.astype(jnp.float64), noise)
    again = single.update(paths.features, paths.weights, noise.astype(jnp.float32))
    same(again(TEST), other(TEST), atol=1e-3)
