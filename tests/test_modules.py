"""What modules print, and that no two of them are taken for one."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pathwise_gp as pgp

X = np.linspace(0, 1, 28)[:, None]
KERNEL = pgp.RBF(1.2, [0.31234567])
PRIOR = pgp.GPPrior(kernel=KERNEL, X=X)
POSTERIOR = PRIOR.condition(np.sin(X[:, 0]), 0.02)
PATHS = pgp.PathwiseSampler(POSTERIOR, 6).sample_paths(jax.random.key(0), 3)
TEXT = "RBF(variance=1.2, lengthscale=[0.31235])"
ICM = pgp.Coregionalised(KERNEL, [[0.5], [0.4]], [0.3, 0.2])
GRID = pgp.GPPrior(kernel=ICM, X=pgp.AllOutputs(X, 2))
GRID_PATHS = pgp.PathwiseSampler(GRID.condition(np.sin(np.c_[X, X]), 0.1), 6).sample_paths(jax.random.key(0))


def found():
    yes, numbers = jnp.asarray(True), jnp.asarray([-3.25])
    return pgp.Fit(PRIOR, jnp.asarray(0.1), numbers[0], yes, numbers, yes[None], jnp.asarray([7]))


PRINTED = {
    "kernel": (KERNEL, TEXT),
    "structure": (pgp.Matern(2.5, 1.0, 2), "Matern(nu=2.5, variance=1.0, lengthscale=2.0)"),
    "large": (pgp.RBF(1e-6, np.ones(40)), "RBF(variance=1e-06, lengthscale=f64[40])"),
    "sum": (KERNEL + 2.0, f"Sum(kernels=({TEXT}, Constant(variance=2.0)))"),
    "network": (pgp.Warped(KERNEL, eqx.nn.MLP(1, 1, 8, 2, key=jax.random.key(0))), f"kernel={TEXT}, transform=MLP(…))"),
    "function": (pgp.Warped(KERNEL, jnp.tanh), f"Warped(kernel={TEXT}, transform=tanh)"),
    "hyperparameters": (ICM, "W=[[0.5], [0.4]], kappa=[0.3, 0.2]"),
    "prior": (PRIOR, f"GPPrior(kernel={TEXT}, X=f64[28,1])"),
    "two points": (pgp.GPPrior(kernel=KERNEL, X=X[:2]), "X=f64[2,1])"),
    "posterior": (POSTERIOR, f"ConditionedGP(prior=GPPrior(kernel={TEXT}, X=f64[28,1]), noise_var=0.02)"),
    "paths": (PATHS, "PathwiseFunction(shape=(3,), n_features=6, inputs=f64[28,1]"),
    "all outputs": (GRID, "X=AllOutputs(X=f64[28,1], n_outputs=2)"),
    "outputs": (GRID_PATHS.outputs, "OutputPaths(shape=(1,), n_outputs=2, n_features=6, inputs=f64[28,1]"),
    "fit": (found(), "noise_var=0.1, log_density=-3.25, converged=True, log_densities=[-3.25], all_converged=[True]"),
    "guide": (pgp.MeanFieldGuide([0.0, 1.0], [1.0, 2.0]), "MeanFieldGuide(mean=[0.0, 1.0], scale=[1.0, 2.0])"),
    "no arrays": (jax.tree.map(lambda _: None, PATHS), "PathwiseFunction("),
    "other leaves": (jax.tree.map(lambda _: False, PATHS), "weights=False"),
}


@pytest.mark.parametrize("name", PRINTED)
def test_what_is_printed(name):
    module, text = PRINTED[name]
    # On lines of its own where it does not fit on one.
    joined = " ".join(repr(module).split()).replace("( ", "(").replace(" )", ")")
    assert text in joined
    assert max(map(len, repr(module).splitlines())) <= 110


def test_batches_ensembles_and_tracers_are_printed():
    one = eqx.tree_at(lambda p: p.kernel.variance, PATHS, jnp.asarray([1.0, 2.0]))
    varying, common = eqx.partition(one, jax.tree.map(lambda leaf: leaf is one.kernel.variance, one))
    text = repr(pgp.PathEnsemble(varying, common))
    assert "PathEnsemble(" in text and "shape=(2, 3)" in text and "kernel=RBF(variance=[1.0, 2.0]" in text
    stacked = eqx.tree_at(lambda k: (k.variance, k.lengthscale), KERNEL, (jnp.ones(2), jnp.ones((2, 1))))
    assert repr(pgp.Batched(stacked, (2,))) == (
        "Batched(stacked=RBF(variance=[1.0, 1.0], lengthscale=[[1.0], [1.0]]), batch_shape=(2,))"
    )
    seen = []
    eqx.filter_eval_shape(lambda kernel: seen.append(repr(kernel)), KERNEL)
    assert seen == ["RBF(variance=f64[], lengthscale=f64[1])"]


def test_every_public_module_prints_so():
    for name, value in vars(pgp).items():
        if isinstance(value, type) and issubclass(value, eqx.Module):
            assert value.__repr__ is pgp._modules.Printed.__repr__, name


def test_what_has_no_arrays_has_a_hash():
    assert hash(pgp.QuasiMonteCarlo()) == hash(pgp.QuasiMonteCarlo())
    for module in (KERNEL, PATHS, POSTERIOR):
        with pytest.raises(TypeError, match=r"holds arrays and has no hash.*`equinox.filter_jit\(f\)`"):
            hash(module)
