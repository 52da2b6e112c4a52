"""Plants faults in a copy of the package, one at a time; the named tests must catch each.

A fault is a piece of source that must stand exactly once, and what replaces it. Run it with `make mutants`; a name as an
argument runs the faults whose names contain it.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]


class Mutant(NamedTuple):
    """A planted fault: `old` in `file` becomes `new`, and the tests that `tests` selects must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: str


EXACT, DECOUPLED = "_samplers/exact.py", "_samplers/decoupled.py"
STATIONARY, COMPOSE, PERIODIC = "_kernels/stationary.py", "_kernels/compose.py", "_kernels/periodic.py"
MOMENTS, SAMPLERS, FEATURES = "test_moments.py", "test_samplers.py", "test_features.py"
EXACT_MOMENTS = f"{MOMENTS}::test_exact_paths_have_the_moments_of_their_features"
SPARSE_MOMENTS = f"{MOMENTS}::test_sparse_paths_have_the_moments_of_their_features"
INPUTS = f"{SAMPLERS}::test_paths_of_one_call_differ_in_weights_and_noise"
LAW = f"{FEATURES}::test_matern_frequencies_are_multivariate_t"
MEAN_KERNEL = f"{FEATURES}::test_features_have_the_kernel_as_their_mean"

MUTANTS = [
    Mutant("noise dropped", EXACT, " - draw - epsilon", " - draw", EXACT_MOMENTS),
    Mutant("noise doubled", EXACT, " - draw - epsilon", " - draw - 2 * epsilon", EXACT_MOMENTS),
    Mutant(
        "noise of half the scale in the draw",
        EXACT,
        "noise = jax.random.normal(",
        "noise = 0.5 * jax.random.normal(",
        INPUTS,
    ),
    Mutant(
        "the same noise for all paths",
        EXACT,
        "noise = jax.random.normal(key_noise, (n_paths, prior.X.shape[0]), prior.X.dtype)",
        "noise = jnp.broadcast_to(jax.random.normal(key_noise, (1, prior.X.shape[0])), (n_paths, prior.X.shape[0]))",
        INPUTS,
    ),
    Mutant(
        "jitter left out of the noise",
        EXACT,
        "jnp.sqrt(prior.diagonal_at(prior.X, posterior.noise_var))",
        "jnp.sqrt(jnp.broadcast_to(posterior.noise_var, prior.X.shape[:1]))",
        EXACT_MOMENTS,
    ),
    Mutant(
        "noise variance used for its root",
        EXACT,
        "jnp.sqrt(prior.diagonal_at(prior.X, posterior.noise_var))",
        "prior.diagonal_at(prior.X, posterior.noise_var)",
        EXACT_MOMENTS,
    ),
    Mutant(
        "mean dropped from the residual", EXACT, "(posterior.y - prior.mean_at(prior.X))", "posterior.y", EXACT_MOMENTS
    ),
    Mutant(
        "mean dropped from the values",
        "_paths/function.py",
        "return mean + inner(flat.coefficients",
        "return 0 * mean + inner(flat.coefficients",
        EXACT_MOMENTS,
    ),
    Mutant(
        "update weights times 0.9",
        EXACT,
        "coefficients=posterior.factor.solve(residual)",
        "coefficients=0.9 * posterior.factor.solve(residual)",
        EXACT_MOMENTS,
    ),
    Mutant(
        "features drawn again between training and evaluation",
        EXACT,
        "draw = evaluate_prior(features, weights",
        "draw = evaluate_prior(jax.tree.map(lambda a: a[::-1], features), weights",
        EXACT_MOMENTS,
    ),
    Mutant(
        "key reused for weights and noise",
        EXACT,
        "noise = jax.random.normal(key_noise, ",
        "noise = jax.random.normal(jax.random.split(key_prior)[1], ",
        INPUTS,
    ),
    Mutant(
        "the same weights for all paths",
        "_paths/prior_draw.py",
        "jax.random.normal(key_weights, (n_paths, size), like.dtype)",
        "jax.numpy.broadcast_to(jax.random.normal(key_weights, (size,), like.dtype), (n_paths, size))",
        INPUTS,
    ),
    Mutant(
        "one set of frequencies where each path should have its own",
        "_paths/prior_draw.py",
        "keys = jax.random.split(key_features, n_paths)",
        "keys = jax.random.split(key_features, 1).repeat(n_paths, axis=0)",
        f"{SAMPLERS}::test_own_features_differ_between_paths_and_shared_ones_are_one_set",
    ),
    Mutant(
        "inducing values at their mean",
        "_guides/base.py",
        "return mean[None, :] + inner(z, scale)",
        "return mean[None, :] + 0 * inner(z, scale)",
        SPARSE_MOMENTS,
    ),
    Mutant(
        "factor transposed in a guide",
        "_guides/base.py",
        "return mean[None, :] + inner(z, scale)",
        "return mean[None, :] + inner(z, scale.T)",
        SPARSE_MOMENTS,
    ),
    Mutant(
        "upper triangle of a guide counted",
        "_guides/full_rank.py",
        "jnp.tril(self.scale_tril)",
        "self.scale_tril",
        SPARSE_MOMENTS,
    ),
    Mutant("jitter not drawn in the sparse update", DECOUPLED, " - draw - epsilon", " - draw", SPARSE_MOMENTS),
    Mutant("mean dropped in the sparse update", DECOUPLED, "values - mean[None, :]", "values", SPARSE_MOMENTS),
    Mutant(
        "one inducing value for all paths",
        DECOUPLED,
        "values = sampler.guide.sample(key_guide, prior, (n_paths,))",
        "values = jnp.broadcast_to(sampler.guide.sample(key_guide, prior), (n_paths, prior.Z.shape[0]))",
        f"{SAMPLERS}::test_inducing_values_and_jitter_are_drawn_anew_for_each_path",
    ),
    Mutant(
        "Matérn frequencies per coordinate",
        STATIONARY,
        "self.radius(n, key=key_radius).astype(dtype)[:, None]",
        "jnp.stack([self.radius(n, key=k).astype(dtype) for k in jax.random.split(key_radius, dim)], axis=1)",
        LAW,
    ),
    Mutant(
        "ν for 2ν",
        STATIONARY,
        "jax.random.loggamma(key, self.nu, (n,)",
        "jax.random.loggamma(key, 0.5 * self.nu, (n,)",
        MEAN_KERNEL,
    ),
    Mutant("frequencies times 1.1", STATIONARY, "scale = 2 * math.pi * ", "scale = 2 * math.pi / 1.1 * ", MEAN_KERNEL),
    Mutant(
        "outputscale without its root",
        "_features/fourier.py",
        "amplitudes = jnp.sqrt(weights / h)",
        "amplitudes = weights / jnp.sqrt(jnp.asarray(h, weights.dtype))",
        MEAN_KERNEL,
    ),
    Mutant(
        "prior variance times 0.85",
        "_features/fourier.py",
        "amplitudes = jnp.sqrt(weights / h)",
        "amplitudes = jnp.sqrt(0.85 * weights / h)",
        MEAN_KERNEL,
    ),
    Mutant(
        "one frequency for all features",
        "_features/fourier.py",
        "    pairs = n_features // 2\n",
        "    pairs = n_features // 2\n    frequencies = jnp.broadcast_to(frequencies[:1], frequencies.shape)\n",
        f"{FEATURES}::test_error_falls_as_the_root_of_the_number_of_features",
    ),
    Mutant("sines dropped", "_features/fourier.py", "zero - 0.25, zero, phase", "zero, zero, phase", MEAN_KERNEL),
    Mutant(
        "phases dropped",
        "_features/fourier.py",
        "phase = jax.random.uniform(key, (h - pairs,), amplitudes.dtype)",
        "phase = jnp.zeros((h - pairs,), amplitudes.dtype) + 0 * jax.random.uniform(key, (1,), amplitudes.dtype)",
        f"{FEATURES}::test_features_of_any_number_are_unbiased",
    ),
    Mutant(
        "rate of the RQ mixture", STATIONARY, "0.5 * (log_gamma - jnp.log(self.alpha))", "0.5 * log_gamma", MEAN_KERNEL
    ),
    Mutant(
        "harmonics counted once",
        PERIODIC,
        "math.log(2) + jnp.cumsum",
        "jnp.cumsum",
        f"{FEATURES}::test_periodic_basis_is_exact_with_enough_harmonics",
    ),
    Mutant(
        "score of the harmonics dropped",
        PERIODIC,
        "jnp.exp(jnp.sum(_log_weight(jnp.abs(harmonics), a), axis=1))",
        "jnp.exp(0 * jnp.sum(_log_weight(jnp.abs(harmonics), a), axis=1))",
        f"{FEATURES}::test_derivatives_in_hyperparameters_are_unbiased",
    ),
    Mutant(
        "one key for all terms of a sum",
        COMPOSE,
        "keys = jax.random.split(key, len(terms))",
        "keys = [key] * len(terms)",
        f"{FEATURES}::test_terms_of_a_sum_are_independent",
    ),
    Mutant(
        "one key for all draws of the ensemble",
        "numpyro_bridge.py",
        "jax.random.fold_in(key, index)",
        "key",
        "test_bridge.py::test_ensemble_is_a_loop_over_draws",
    ),
    Mutant(
        "jitter left out of the likelihood",
        "_priors/base.py",
        "return diagonal + jnp.broadcast_to(noise_var",
        "return 0 * diagonal + jnp.broadcast_to(noise_var",
        "test_priors.py::test_log_marginal_likelihood",
    ),
    Mutant(
        "transposed factor in the solve",
        "_numerics/linalg.py",
        "self._triangular(B, transpose=False), transpose=True)",
        "self._triangular(B, transpose=True), transpose=False)",
        EXACT_MOMENTS,
    ),
    Mutant(
        "slope of the cosine",
        "_numerics/trigonometry.py",
        "-2 * math.pi * sin_turns(u) * du",
        "2 * math.pi * sin_turns(u) * du",
        "test_numerics.py",
    ),
    Mutant(
        "slope of the Matérn kernel",
        STATIONARY,
        "/ (4 * p - 2) * ds",
        "/ (4 * p + 2) * ds",
        "test_kernels.py",
    ),
]


def run(mutant: Mutant, folder: pathlib.Path) -> tuple[bool, str]:
    """Whether the tests catch the fault, and how."""
    for name in ("pathwise_gp", "tests", "pyproject.toml"):
        source, target = ROOT / name, folder / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    path = folder / "pathwise_gp" / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        return False, f"stands {text.count(mutant.old)} times in {mutant.file}"
    path.write_text(text.replace(mutant.old, mutant.new))
    command = [sys.executable, "-m", "pytest", "-n0", "-x", "-q", "--no-header", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(folder), "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax")}
    done = subprocess.run(
        [*command, f"tests/{mutant.tests}"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    # A fault that only breaks the program would be caught by any test; what counts is a failed assertion.
    asserted = done.returncode == 1 and "AssertionError" in done.stdout
    return asserted, failed[0].split(" - ")[0].removeprefix("FAILED ") if failed else done.stdout[-1500:]


def main() -> int:
    chosen = [mutant for mutant in MUTANTS if len(sys.argv) < 2 or sys.argv[1] in mutant.name]
    survivors = []
    for mutant in chosen:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            caught, how = run(mutant, pathlib.Path(folder))
        print(
            f"{'caught  ' if caught else 'SURVIVED'} {mutant.name} ({time.perf_counter() - started:.0f} s): {how}",
            flush=True,
        )
        if not caught:
            survivors.append(mutant.name)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} faults caught")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
