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
SAMPLING, NUMERICS, KERNELS, ERROR, OUT, ROBUST = (
    "_features/sampling.py",
    "test_numerics.py",
    "test_kernels.py",
    "test_error.py",
    "test_outputs.py",
    "test_robustness.py",
)
RULES = f"{FEATURES}::test_every_rule_has_the_kernel_as_its_mean"
DENSITY = f"{ERROR}::test_spectral_density_gives_the_kernel"
EXACT_BASES = f"{FEATURES}::test_exact_bases_give_the_kernel"
OUTPUTS = f"{OUT}::test_moments_of_paths_on_a_grid"
BATCHES, LIKELIHOODS = "test_batches.py", "test_likelihoods.py"
FUNCTIONALS = "test_functionals.py"
EVERYDAY, FAILED = "test_everyday.py", "test_failed_evaluations.py"
TYPES = "test_types.py::test_a_checker_knows_what_the_classes_take"
SCALING = "test_scaling.py"
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
        "noise = jax.random.normal(key_noise, (n_paths, size_of(prior.X)), prior.X.dtype)",
        "noise = jnp.broadcast_to(jax.random.normal(key_noise, (1, prior.X.shape[0])), (n_paths, prior.X.shape[0]))",
        INPUTS,
    ),
    Mutant(
        "jitter left out of the noise",
        EXACT,
        "jnp.sqrt(variances)",
        "jnp.sqrt(jnp.broadcast_to(posterior.noise_var, prior.X.shape[:1]))",
        EXACT_MOMENTS,
    ),
    Mutant(
        "noise variance used for its root",
        EXACT,
        "jnp.sqrt(variances)",
        "variances",
        EXACT_MOMENTS,
    ),
    Mutant("mean dropped from the residual", EXACT, "(posterior.y - prior.mean_at(L))", "posterior.y", EXACT_MOMENTS),
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
        "noise = jax.random.normal(key_weights, ",
        INPUTS,
    ),
    Mutant(
        "the same weights for all paths",
        "_paths/prior_draw.py",
        "jax.random.normal(key_weights, (n_paths, n), like.dtype)",
        "jax.numpy.broadcast_to(jax.random.normal(key_weights, (n,), like.dtype), (n_paths, n))",
        INPUTS,
    ),
    Mutant(
        "one set of frequencies where each path should have its own",
        "_paths/prior_draw.py",
        "jax.random.split(key_features, n_paths)",
        "jax.random.split(key_features, 1).repeat(n_paths, axis=0)",
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
        "values = sampler.guide.sample(key_guide, sampler.prior, (n_paths,))",
        "values = jnp.broadcast_to(sampler.guide.sample(key_guide, sampler.prior), (n_paths, sampler.prior.Z.shape[0]))",
        f"{SAMPLERS}::test_inducing_values_and_jitter_are_drawn_anew_for_each_path",
    ),
    Mutant(
        "Matérn frequencies per coordinate",
        STATIONARY,
        "lengths * unit_vectors(normals, dim)",
        "radius(normals[:, 1:].reshape(-1), 1, float(getattr(self, 'nu', 1e3))).reshape(-1, dim) * jnp.sign(normals[:, 1:])",
        LAW,
    ),
    Mutant(
        "ν for 2ν",
        STATIONARY,
        "radius(normals[:, 0], dim, float(self.nu))",
        "radius(normals[:, 0], dim, 0.5 * float(self.nu))",
        MEAN_KERNEL,
    ),
    Mutant("frequencies times 1.1", STATIONARY, "scale = 2 * math.pi * ", "scale = 2 * math.pi / 1.1 * ", MEAN_KERNEL),
    Mutant(
        "outputscale without its root",
        "_features/fourier.py",
        "amplitudes = jnp.sqrt(weights / frequencies.shape[0])",
        "amplitudes = weights / jnp.sqrt(jnp.asarray(frequencies.shape[0], weights.dtype))",
        MEAN_KERNEL,
    ),
    Mutant(
        "prior variance times 0.85",
        "_features/fourier.py",
        "amplitudes = jnp.sqrt(weights / frequencies.shape[0])",
        "amplitudes = jnp.sqrt(0.85 * weights / frequencies.shape[0])",
        MEAN_KERNEL,
    ),
    Mutant(
        "one frequency for all features",
        "_features/fourier.py",
        "    h = frequencies.shape[0]\n",
        "    h = frequencies.shape[0]\n    frequencies = jnp.broadcast_to(frequencies[:1], frequencies.shape)\n",
        f"{FEATURES}::test_error_falls_as_the_root_of_the_number_of_features",
    ),
    Mutant("sines dropped", "_features/fourier.py", "[zero, zero - 0.25]", "[zero, zero]", MEAN_KERNEL),
    Mutant(
        "phases dropped",
        "_features/fourier.py",
        "phases=pairs.phases[:-1].at[h - 1].set(phase)",
        "phases=pairs.phases[:-1].at[h - 1].set(0 * phase)",
        f"{FEATURES}::test_features_of_any_number_are_unbiased",
    ),
    Mutant("rate of the RQ mixture", STATIONARY, "alpha) - jnp.log(alpha)", "alpha)", MEAN_KERNEL),
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
        "self.variance.astype(dtype) * jnp.exp(log_weight)",
        "self.variance.astype(dtype) * jnp.exp(0 * log_weight)",
        f"{FEATURES}::test_derivatives_in_hyperparameters_are_unbiased",
    ),
    Mutant(
        "one key for all terms of a sum",
        COMPOSE,
        "zip(terms, exact, jax.random.split(key, len(terms)), strict=True)",
        "zip(terms, exact, [key] * len(terms), strict=True)",
        f"{FEATURES}::test_terms_of_a_sum_are_independent",
    ),
    Mutant(
        "one key for all draws of the ensemble",
        "numpyro_bridge/posterior.py",
        "key_model, key_paths = jax.random.split(jax.random.fold_in(key, index))",
        "key_model, key_paths = jax.random.split(key)",
        "test_bridge.py::test_ensemble_is_a_loop_over_draws",
    ),
    Mutant(
        "jitter left out of the likelihood",
        "_priors/base.py",
        "added = self.noise_at(L, noise_var) + self.smooth_jitter(L, noise_var, mask)",
        "added = self.noise_at(L, noise_var) + 0 * self.smooth_jitter(L, noise_var, mask)",
        "test_priors.py::test_log_marginal_likelihood",
    ),
    Mutant(
        "transposed factor in the solve",
        "_numerics/linalg.py",
        "return self.whiten_back(self.whiten(B))",
        "return self._triangular(self.whiten_back(B), transpose=False)",
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
    # ------------------------------------------------------------------ rules for features
    Mutant("weights of the tail dropped", SAMPLING, "jnp.prod(weights, axis=1)", "jnp.ones((n,), dtype)", RULES),
    Mutant(
        "weights of the tail used for their roots",
        SAMPLING,
        "jnp.prod(weights, axis=1)",
        "jnp.prod(weights, axis=1) ** 0.5",
        RULES,
    ),
    Mutant(
        "one tail for two lengths",
        SAMPLING,
        "_in_the_tail(points[:, radial], power",
        "_in_the_tail(points[:, 0 * radial], power",
        RULES,
    ),
    Mutant(
        "upper half of the scores mirrored",
        SAMPLING,
        "jnp.where(upper, -score, score)",
        "jnp.where(upper, score, score)",
        RULES,
    ),
    Mutant(
        "sequence not scrambled", "_numerics/sobol.py", "return points ^ random", "return points ^ 0 * random", RULES
    ),
    Mutant(
        "length of orthogonal frequencies dropped",
        SAMPLING,
        "set(lengths * Q",
        "set(0 * lengths + Q",
        f"{NUMERICS}::test_orthogonal_draws",
    ),
    Mutant(
        "the first term of a sum has nearly all features",
        COMPOSE,
        "[2 * max(1, pairs // k + (i < pairs % k)) for i in range(k)]",
        "[2 * max(1, pairs - 4 * (k - 1)) if i == 0 else 8 for i in range(k)]",
        f"{ERROR}::test_a_small_term_that_the_data_leave_open_beside_a_large_one_that_they_pin",
    ),
    Mutant(
        "quantile of the wrong dimension",
        "_numerics/quantiles.py",
        "_log_radius(z, dim, nu), _DEGREE",
        "_log_radius(z, dim + 1, nu), _DEGREE",
        MEAN_KERNEL,
    ),
    Mutant(
        "spectral density in angular frequency",
        STATIONARY,
        "(2 * math.pi * frequencies * lengthscale",
        "(frequencies * lengthscale",
        DENSITY,
    ),
    Mutant(
        "spectral density without the lengthscale",
        STATIONARY,
        "(2 * math.pi) ** (dim / 2) * jnp.prod(lengthscale)",
        "(2 * math.pi) ** (dim / 2)",
        DENSITY,
    ),
    Mutant(
        "boundary of the Hilbert space at the data",
        "_features/hilbert.py",
        "half + reach.astype(half.dtype) / 2",
        "half * 1.01",
        f"{ERROR}::test_hilbert_space_basis_is_the_kernel_inside_its_box",
    ),
    Mutant(
        "noise left out of the variance of a path",
        "_paths/variance.py",
        "g * g * noise[None, :]",
        "0 * g * g * noise[None, :]",
        f"{ERROR}::test_marginal_variance_is_that_of_many_paths",
    ),
    # ------------------------------------------------------------------ kernels, one of each family
    Mutant(
        "no relative sign in a product",
        COMPOSE,
        "signs[:, i, None] * part.frequencies",
        "part.frequencies",
        MEAN_KERNEL,
    ),
    Mutant(
        "draws of a product not rescaled",
        "_features/compose.py",
        "self.n_draws ** ((len(draws) - 1) / 2)",
        "self.n_draws ** 0.5",
        MEAN_KERNEL,
    ),
    Mutant(
        "means of a mixture without signs",
        "_kernels/spectral_mixture.py",
        "signs * self.means",
        "self.means",
        MEAN_KERNEL,
    ),
    Mutant(
        "multinomial coefficients dropped",
        "_features/exact.py",
        "ways = np.sqrt(math.factorial(self.degree) / ",
        "ways = np.sqrt(1 / ",
        EXACT_BASES,
    ),
    Mutant("moment of the ramps dropped", "_kernels/arc_cosine.py", "2 * moment / normals", "2 / normals", MEAN_KERNEL),
    Mutant(
        "slope of the arc-cosine kernel",
        "_kernels/arc_cosine.py",
        "-(order**2) / 2 *",
        "-order / 2 *",
        f"{KERNELS}::test_derivatives_at_different_points",
    ),
    Mutant(
        "cosine of the distance",
        PERIODIC,
        "cos_turns(turns)",
        "cos_turns(jnp.abs(turns) * 1.1)",
        f"{KERNELS}::test_matrix_is_the_formula",
    ),
    Mutant(
        "white noise in the covariance of f",
        "_kernels/noise.py",
        "return jnp.zeros((X.shape[0], Z.shape[0]), X.dtype)",
        "return (X[:, None, 0] == Z[None, :, 0]).astype(X.dtype)",
        f"{ROBUST}::test_white_noise_joins_the_noise_of_observations",
    ),
    Mutant(
        "white noise not observed",
        "_priors/base.py",
        " + L.noise(self.kernel)",
        "",
        f"{ROBUST}::test_white_noise_joins_the_noise_of_observations",
    ),
    Mutant(
        "root of B transposed",
        "_kernels/index.py",
        "return TableFeatures(self.root())",
        "return TableFeatures(self.root()[::-1])",
        MEAN_KERNEL,
    ),
    Mutant(
        "own variances of outputs dropped",
        "_kernels/index.py",
        "jnp.diag(jnp.sqrt(self.kappa))",
        "0 * jnp.diag(jnp.sqrt(self.kappa))",
        MEAN_KERNEL,
    ),
    Mutant(
        "warped features at plain inputs",
        "_features/compose.py",
        "return self.features(self.transform(X))",
        "return self.features(jnp.concatenate([X, X[:, :1]], axis=1))",
        MEAN_KERNEL,
    ),
    # ------------------------------------------------------------------ several outputs, parts, jitter
    Mutant("noise of outputs not drawn", "_samplers/multi_output.py", " - draw - epsilon", " - draw", OUTPUTS),
    Mutant(
        "outputs drawn alike",
        "_samplers/multi_output.py",
        'jnp.einsum("pc,scf->spf", root',
        'jnp.einsum("pc,scf->spf", jnp.abs(root)',
        OUTPUTS,
    ),
    Mutant(
        "trace of the outputs' likelihood",
        "_numerics/kronecker.py",
        "0.5 * trace",
        "0.4 * trace",
        f"{OUT}::test_derivatives_on_the_grid_are_those_of_the_dense_process",
    ),
    Mutant(
        "derivative of a grid's solve",
        "_numerics/kronecker.py",
        "dR - _change(factor, dfactor, X)",
        "dR - 0.9 * _change(factor, dfactor, X)",
        f"{OUT}::test_derivatives_on_the_grid_are_those_of_the_dense_process",
    ),
    Mutant(
        "a part with the frequencies of another",
        "_features/compose.py",
        "if term == i:",
        "if term == 1 - i:",
        f"{ERROR}::test_parts_add_up_and_are_posteriors_of_their_own",
    ),
    Mutant(
        "a part with the whole kernel",
        "_paths/components.py",
        "            kernel=kernel,\n",
        "            kernel=paths.kernel,\n",
        f"{ERROR}::test_parts_add_up_and_are_posteriors_of_their_own",
    ),
    Mutant(
        "raised jitter not reported",
        "_numerics/linalg.py",
        "return cholesky(add_diagonal(A, more * scale)), more, 10 * more",
        "return cholesky(add_diagonal(A, more * scale)), 0 * more, 10 * more",
        f"{ROBUST}::test_jitter_rises_by_decades_and_no_further_than_needed",
    ),
    Mutant(
        "jitter raised by a factor of two",
        "_numerics/linalg.py",
        "more, 10 * more",
        "more, 2 * more",
        f"{ROBUST}::test_jitter_rises_by_decades_and_no_further_than_needed",
    ),
    Mutant(
        "exponential with the wrong remainder",
        "_numerics/exponential.py",
        "(y - n * high) - n * low",
        "(y - n * high)",
        f"{NUMERICS}::test_decay_is_the_exponential_of_a_negative",
    ),
    Mutant(
        "derivative of distances without the origin's share",
        "_numerics/distances.py",
        "left = jnp.concatenate([jnp.sum(x * moved, axis=1, keepdims=True), moved], axis=1)",
        "left = jnp.concatenate([jnp.sum(X * moved, axis=1, keepdims=True), moved], axis=1)",
        f"{NUMERICS}::test_derivatives_of_squared_distances",
    ),
    Mutant(
        "blocks of which the last does not reach the end",
        "_numerics/blocks.py",
        "jnp.minimum(jnp.arange(n_blocks) * rows, n - rows)",
        "jnp.minimum(jnp.arange(n_blocks) * rows, n - rows - 1)",
        f"{NUMERICS}::test_map_rows_is_the_function",
    ),
    Mutant(
        "quadrature without its root of two",
        "_guides/bound.py",
        "[math.sqrt(2) * rule[0]]",
        "[1.3 * rule[0]]",
        "test_inference.py::test_bound_for_any_likelihood_is_quadrature",
    ),
    Mutant(
        "part of the data without its share",
        "numpyro_bridge/sparse.py",
        "n_data / n * jnp.sum",
        "1.0 * jnp.sum",
        "test_inference.py::test_parts_of_the_data_give_the_bound_on_average",
    ),
    Mutant(
        "leave-one-out with the variance of f",
        "_priors/leave_one_out.py",
        "LeaveOneOut(y - error, 1 / precision, log_density)",
        "LeaveOneOut(y - error, 1 / precision - jnp.min(1 / precision), log_density)",
        "test_inference.py::test_leave_one_out_is_brute_force",
    ),
    Mutant(
        "thinned draws with keys of their own",
        "numpyro_bridge/posterior.py",
        "return _Draws(flat, jnp.asarray(kept))",
        "return _Draws(flat, jnp.arange(kept.size).reshape(kept.shape))",
        "test_inference.py::test_chains_keep_their_axis_and_thinning_changes_no_path",
    ),
    Mutant(
        "fit without the mean",
        "_fit.py",
        'in ("kernel", "mean")',
        'in ("kernel",)',
        "test_fit.py::test_the_maximum_is_scipys",
    ),
    Mutant(
        "points that were not observed pull on the others",
        "_numerics/linalg.py",
        "return B if self.mask is None else jnp.where(self.mask, B, jnp.zeros_like(B))",
        "return B",
        f"{BATCHES}::test_a_mask_is_the_block_that_is_left",
    ),
    Mutant(
        "points that were not observed count in the density",
        "_priors/evidence.py",
        "unseen = 0.5 * math.log(2 * math.pi)",
        "unseen = 0.0 * math.log(2 * math.pi)",
        f"{BATCHES}::test_a_mask_is_the_block_that_is_left",
    ),
    Mutant(
        "a plate takes the entries of a field for its own",
        "numpyro_bridge/lifting.py",
        "prior = prior.to_event(len(shape) - len(prior.event_shape))",
        "pass",
        f"{BATCHES}::test_groups_in_a_plate_are_a_loop_over_them",
    ),
    Mutant(
        "all groups conditioned on the data of the first",
        "numpyro_bridge/posterior.py",
        "processes[number].posterior(m)",
        "processes[number].posterior(0)",
        f"{BATCHES}::test_groups_end_in_paths",
    ),
    Mutant(
        "several processes drawn with one key",
        "numpyro_bridge/posterior.py",
        "jax.random.fold_in(key_paths, number) if len(processes) > 1 else key_paths",
        "key_paths",
        f"{BATCHES}::test_several_processes_in_a_model",
    ),
    Mutant(
        "natural step of half the length",
        "numpyro_bridge/natural.py",
        "precision + 2 * size * gradient",
        "precision + size * gradient",
        f"{LIKELIHOODS}::test_a_natural_step_of_one_ends_in_the_optimal_guide",
    ),
    Mutant(
        "natural step that does not follow the mean",
        "numpyro_bridge/natural.py",
        "(mean_gradient - 2 * times(gradient, mean))",
        "mean_gradient",
        f"{LIKELIHOODS}::test_a_natural_step_of_one_ends_in_the_optimal_guide",
    ),
    Mutant(
        "random latent values too near to the mean",
        "numpyro_bridge/sparse.py",
        "jax.random.normal(key, (p, n_samples, n))",
        "0.9 * jax.random.normal(key, (p, n_samples, n))",
        f"{LIKELIHOODS}::test_random_latent_values_give_the_bound_on_average",
    ),
    Mutant(
        "predictive density of the paths' sum",
        "numpyro_bridge/predicting.py",
        " - math.log(math.prod(found.batch_shape[: len(axes)]))",
        "",
        f"{LIKELIHOODS}::test_each_likelihood_ends_in_latent_and_predictive_paths",
    ),
    Mutant(
        "evidence that does not move with the mode",
        "_laplace.py",
        "v = v + root.solve(at(v, lowers, means, constants)",
        "v = v + root.solve(here(v)",
        f"{LIKELIHOODS}::test_laplace_is_scikit_learns",
    ),
    Mutant(
        "processes taken for independent at the mode",
        "_laplace.py",
        "v = found.whitened_mean[None, :, :] + inner(z, found.whitened_scale_tril).reshape(n_paths, p, n)",
        "v = found.whitened_mean[None] + jnp.stack([inner(z[:, :n], g.scale_tril) for g in found.guides], 1)",
        f"{LIKELIHOODS}::test_laplace_of_several_processes_is_the_curvature_at_the_mode",
    ),
    Mutant(
        "a bound without density that is not rejected",
        "_guides/optimal.py",
        "jnp.where(ok & also_ok, value, -jnp.inf)",
        "value",
        f"{LIKELIHOODS}::test_collapsed_bound_is_minus_infinity_where_there_is_no_density",
    ),
    Mutant(
        "latent paths with noise",
        "numpyro_bridge/posterior.py",
        "return condition_latent(prior, y)",
        "return prior.condition(y, 0.05)",
        f"{LIKELIHOODS}::test_each_likelihood_ends_in_latent_and_predictive_paths",
    ),
    Mutant(
        "draws paired with the wrong data",
        "numpyro_bridge/posterior.py",
        '    return _Process(returned, trace[name]["value"], fn.noise_var, fn.observed)',
        '    return _Process(returned, trace[name]["value"], 0.1 * fn.noise_var, fn.observed)',
        "test_calibration.py::test_ranks_of_the_truth_are_uniform",
    ),
    Mutant(
        "leave-one-out of several outputs by the wrong noise",
        "_numerics/kronecker.py",
        "V) / self.noise[None, :]",
        "V)",
        f"{BATCHES}::test_several_outputs_are_a_site_and_end_in_paths",
    ),
    Mutant(
        "a search that leaves the box",
        "_descent.py",
        "trial=jnp.clip(u + direction, 0, 1), step=",
        "trial=u + direction, step=",
        "test_optimise.py::test_quadratic_functions_have_their_optima_in_and_on_the_box",
    ),
    Mutant(
        "the derivative of an optimum without its multipliers",
        "optimise/search.py",
        "values + jnp.sum(weight * (excess",
        "values + 0 * jnp.sum(weight * (excess",
        "test_optimise.py::test_derivatives_of_the_value_follow_from_the_envelope_theorem",
    ),
    Mutant(
        "starts on top of each other",
        "optimise/screen.py",
        "jnp.where(square < apart, order + behind, order)",
        "jnp.where(square < 0 * apart, order + behind, order)",
        "test_optimise.py",
    ),
    Mutant(
        "a constraint of the first input of a batch",
        "optimise/problem.py",
        "own(g, X.reshape(s, -1, self.d), axes)",
        "own(g, jnp.broadcast_to(X[:, :, :1], X.shape).reshape(s, -1, self.d), axes)",
        "test_acquisition.py::test_a_constraint_holds_for_every_input_of_a_batch",
    ),
    Mutant(
        "constraints that hold whatever is returned",
        "optimise/search.py",
        "problem.returned()] <= tolerance",
        "problem.returned()] <= jnp.inf",
        "test_acquisition.py::test_a_constraint_holds_for_every_input_of_a_batch",
    ),
    Mutant(
        "joint constraints that are not asked",
        "optimise/problem.py",
        "return f, alone + [own(h, X[:, :, : self.q], ()) for h in self.joint]",
        "return f, alone + [0 * own(h, X[:, :, : self.q], ()) for h in self.joint]",
        "test_acquisition.py::test_constraints_of_a_batch_are_joint",
    ),
    Mutant(
        "maxima that no constraint holds",
        "optimise/problem.py",
        "alone = [own(g, X.reshape(s, -1, self.d), axes)",
        "alone = [own(g, jnp.where(jnp.arange(self.p)[:, None] < self.q, X, 1.0).reshape(s, -1, self.d), axes)",
        "test_acquisition.py::test_constraints_of_the_one_shot_form_hold_for_inputs_and_maxima",
    ),
    Mutant(
        "candidates of the one-shot form that are not screened",
        "acquisition/knowledge.py",
        "if candidates is not None:\n        X = ",
        "if candidates is not None:\n        _ = ",
        "test_acquisition.py::test_the_one_shot_form_screens_its_candidates",
    ),
    Mutant(
        "the last block of a list for the best",
        "optimise/screen.py",
        "(values < best[1])",
        "(values < jnp.inf)",
        "test_optimise.py::test_the_best_of_a_list_is_that_of_all_values",
    ),
    Mutant(
        "a batch of a list that is never exchanged",
        "acquisition/batches.py",
        "lambda state: state[2] < q",
        "lambda state: state[2] < 0",
        "test_acquisition.py::test_exchanges_end_where_none_improves",
    ),
    Mutant(
        "a row of a list that is taken twice",
        "acquisition/batches.py",
        "& others[None, :], axis=1)",
        "& others[None, :] & ~others[None, :], axis=1)",
        "test_acquisition.py::test_exchanges_end_where_none_improves",
    ),
    Mutant(
        "a discrete coordinate that is not among its values",
        "optimise/search.py",
        "return X if grid is None else grid.place(X, U)",
        "return X if grid is None else 0.5 * X + 0.5 * grid.place(X, U)",
        "test_mixed.py::test_mixed_boxes_of_quadratics_against_all_combinations",
    ),
    Mutant(
        "combinations that are not searched",
        "optimise/search.py",
        "    if each is not None:\n        starts = ",
        "    if each is not None:\n        _ = ",
        "test_mixed.py::test_every_one_of_few_combinations_is_searched",
    ),
    Mutant(
        "discrete coordinates that stay where they start",
        "optimise/mixed.py",
        "still = taken & lower(",
        "still = ~taken & lower(",
        "test_mixed.py::test_many_combinations_are_searched_by_exchanges",
    ),
    Mutant(
        "a box of the hypervolume left out",
        "_numerics/hypervolume.py",
        "jnp.sum(widths * above(point[1] - heights, 1))",
        "jnp.sum((widths * above(point[1] - heights, 1))[1:])",
        "test_hypervolume.py::test_improvement_is_the_difference_of_two_hypervolumes",
    ),
    Mutant(
        "a hypervolume of points that hide behind others",
        "_numerics/hypervolume.py",
        "jnp.where(front[:, 2] >= z_k, front[:, 1], reference[1])",
        "jnp.where(front[:, 2] > z_k, front[:, 1], reference[1])",
        "test_hypervolume.py::test_hypervolume_is_that_of_the_union_of_boxes",
    ),
    Mutant(
        "subsets of a batch that are only added",
        "acquisition/hypervolume.py",
        "np.where(chosen.sum(axis=1) % 2, 1, -1)",
        "np.where(chosen.sum(axis=1) % 2, 1, 0)",
        "test_hypervolume.py::test_improvement_is_the_difference_of_two_hypervolumes",
    ),
    Mutant(
        "equal points dominate each other",
        "_numerics/hypervolume.py",
        "jnp.all(as_large, axis=1) & jnp.any(larger, axis=1)",
        "jnp.all(as_large, axis=1) & (jnp.any(larger, axis=1) | (jnp.sum(as_large) > points.shape[1]))",
        "test_hypervolume.py::test_fronts_are_those_of_brute_force",
    ),
    Mutant(
        "a tolerance that is not used",
        "optimise/search.py",
        "is None else tolerance, dtype)",
        "is None else 0 * tolerance + 1e-9, dtype)",
        "test_options.py::test_options_of_the_effort",
    ),
    Mutant(
        "candidates that are not screened",
        "optimise/search.py",
        "design = jnp.concatenate([design, wanted])",
        "design = jnp.concatenate([design, 0.5 * wanted])[: settings.n_screen]",
        "test_options.py::test_options_that_restrict_what_is_found",
    ),
    Mutant(
        "paths at the inputs of others",
        "_paths/paired.py",
        "return values.reshape(s, *values.shape[n_axes:])[i]",
        "return values.reshape(s, *values.shape[n_axes:])[0 * i]",
        "test_rollout.py::test_every_kind_of_dynamics",
    ),
    Mutant(
        "a best value of the wrong sign",
        "acquisition/probability.py",
        "best if acquisition.maximise else -best",
        "best",
        "test_acquisition.py::test_expected_improvement_is_its_closed_form",
    ),
    Mutant(
        "an improvement without its tail",
        "acquisition/base.py",
        "_TAIL / (1 + z * z)",
        "0 * _TAIL / (1 + z * z)",
        "test_acquisition.py::test_the_log_form_has_a_gradient_where_no_path_improves",
    ),
    Mutant(
        "knowledge without noise",
        "acquisition/knowledge.py",
        "observed = covariance[:, :, m:] + self.noise_var",
        "observed = covariance[:, :, m:] + 0.1 * self.noise_var",
        "test_acquisition.py::test_knowledge_gradient_is_that_of_the_posterior",
    ),
    Mutant(
        "fantasies without noise",
        "acquisition/knowledge.py",
        "cholesky(_between(acquisition, x, x) + noise)",
        "cholesky(_between(acquisition, x, x) + 0.1 * noise)",
        "test_acquisition.py::test_one_shot_knowledge_gradient",
    ),
    Mutant(
        "exact knowledge without noise",
        "acquisition/lookahead.py",
        "covariance[-q:] + noise * ",
        "covariance[-q:] + 0.1 * noise * ",
        "test_acquisition.py::test_exact_knowledge_gradient_against_quadrature",
    ),
    Mutant(
        "an observed input that is not among the maxima",
        "acquisition/lookahead.py",
        "gains if self.maximise else -gains",
        "(gains if self.maximise else -gains).at[:, -q:].add(-9)",
        "test_acquisition.py::test_exact_knowledge_gradient_against_quadrature",
    ),
    Mutant(
        "lines that meet on the other side of 0",
        "_numerics/envelope.py",
        "(a[i] - a) / jnp.where(steeper",
        "(a - a[i]) / jnp.where(steeper",
        "test_acquisition.py::test_exact_knowledge_gradient_against_quadrature",
    ),
    Mutant(
        "directions of two that have the size of one",
        "acquisition/lookahead.py",
        "expected_gain(mean, line, directions.shape[1])",
        "expected_gain(mean, line, 1)",
        "test_acquisition.py::test_exact_knowledge_gradient_of_a_batch",
    ),
    Mutant(
        "a curl that turns the other way",
        "_functionals/operators.py",
        "J[..., j, i] - J[..., i, j]",
        "J[..., i, j] - J[..., j, i]",
        "test_calculus.py::test_closed_forms",
    ),
    Mutant(
        "a crossing that moves the wrong way",
        "level_sets/roots.py",
        "divide = lambda linear, y: y / linear(jnp.ones_like(y))",
        "divide = lambda linear, y: -y / linear(jnp.ones_like(y))",
        "test_level_sets.py::test_derivatives_are_those_of_the_implicit_function",
    ),
    Mutant(
        "an antiderivative without its end",
        "_kernels/integrals.py",
        "side * (tails[0].item() - jnp.exp(-a) * series)",
        "side * (tails[0].item() - jnp.exp(-a))",
        "test_calculus.py::test_closed_forms_of_matern_kernels_are_the_quadrature",
    ),
    Mutant(
        "a world whose increments are not added",
        "rollout.py",
        "following = states + following if increments else following",
        "following = following",
        "test_rollout.py::test_linear_worlds_are_matrix_powers",
    ),
    Mutant(
        "a discount one step too early",
        "rollout.py",
        "(now + discount * later, None)",
        "(discount * (now + later), None)",
        "test_rollout.py::test_returns_are_discounted_sums",
    ),
    Mutant(
        "paths of a draw in the density of its own observations",
        "design/nested.py",
        "jnp.arange(s) // per_draw == i // per_draw",
        "jnp.arange(s) == i",
        "test_design.py::test_nested_estimates_bound_the_gain_of_an_ensemble",
    ),
    Mutant(
        "a gradient without the law of the observations",
        "design/nested.py",
        "above * (own - jax.lax.stop_gradient(own))",
        "0 * above * (own - jax.lax.stop_gradient(own))",
        "test_design.py::test_derivatives_of_nested_estimates",
    ),
    Mutant(
        "the tail of a law that is cut off",
        "design/entropy_search.py",
        "far_share = d * d * (1 + t * (t - c))",
        "far_share = d * d * (1 + t * t)",
        "test_design.py::test_maxima_far_below_what_is_foreseen",
    ),
    Mutant(
        "an optimum that explains too much",
        "design/entropy_search.py",
        "slope * slope * there[None, :]",
        "slope * there[None, :]",
        "test_design.py::test_joint_entropy_search_is_the_variance_of_a_law_that_is_cut_off",
    ),
    Mutant(
        "a mixture on a coarse grid",
        "design/information.py",
        "steps = jnp.arange(-_REACH, _REACH + 1)",
        "steps = 4 * jnp.arange(-2, 3)",
        "test_design.py::test_bald_of_hyperparameters_is_that_of_the_mixture",
    ),
    Mutant(
        "rounding that grows with the members",
        "ensembles.py",
        "jnp.minimum(4 * (1 + math.log2(len(weights))) * jnp.finfo(values.dtype).eps, 0.5 * least)",
        "4 * len(weights) * jnp.finfo(values.dtype).eps",
        "test_ensembles.py::test_quantiles_of_many_members_in_single_precision",
    ),
    Mutant(
        "a negative noise under jit",
        "scores.py",
        "noise_var = _required(noise_var >= 0, noise_var",
        "noise_var = _required(noise_var == noise_var, noise_var",
        "test_scores.py::test_traced_values_are_refused_when_they_are_known",
    ),
    Mutant(
        "a gradient that keeps every draw",
        "_paths/ensemble.py",
        "jax.lax.map(jax.checkpoint(one, prevent_cse=False), ensemble._flat())",
        "jax.lax.map(one, ensemble._flat())",
        "test_paths.py::test_memory_of_a_gradient_does_not_grow_with_the_draws",
    ),
    # ------------------------------------------------------------------ the default answer is that of the model
    Mutant(
        "jitter of the mean variance on every row",
        "_numerics/linalg.py",
        "cholesky(add_diagonal(A, more * scale))",
        "cholesky(add_diagonal(A, more * jnp.mean(scale) + 0 * scale))",
        f"{ROBUST}::test_jitter_rises_by_decades_and_no_further_than_needed",
    ),
    Mutant(
        "jitter whether it is needed or not",
        "_numerics/linalg.py",
        "start = (cholesky(A), jnp.zeros_like(first), first)",
        "start = (cholesky(add_diagonal(A, first * scale)), first, 10 * first)",
        f"{ROBUST}::test_noise_free_values_are_met_to_a_millionth",
    ),
    Mutant(
        "a pivot of the size of rounding is taken for one",
        "_numerics/linalg.py",
        "jnp.all(jnp.isfinite(pivots) & (pivots * pivots >= floor))",
        "jnp.all(jnp.isfinite(pivots))",
        f"{ROBUST}::test_jitter_rises_by_decades_and_no_further_than_needed",
    ),
    Mutant(
        "a smooth density without jitter",
        "_priors/jitter.py",
        "first_step(n, diagonal.dtype) * own)",
        "0 * own)",
        "test_priors.py::test_the_jitter_of_a_smooth_density",
    ),
    Mutant(
        "contradictions pass",
        "_priors/conditioning.py",
        "return misses, (misses > least) & (noise - added <= 0)",
        "return misses, (misses > jnp.inf) & (noise - added <= 0)",
        f"{ROBUST}::test_contradictions_without_noise_are_an_error_that_says_where",
    ),
    Mutant(
        "contradictions in units",
        "_priors/conditioning.py",
        "* furthest * jnp.sqrt(scale)",
        "* furthest",
        f"{ROBUST}::test_contradictions_without_noise_are_an_error_that_says_where",
    ),
    Mutant(
        "lost precision is not said",
        "_priors/jitter.py",
        "(pivots < least * scale)",
        "(pivots < 0 * scale)",
        f"{ROBUST}::test_precision_that_cannot_carry_the_model_is_said",
    ),
    Mutant(
        "a variance that is rounding is not said",
        "_priors/moments.py",
        "_DIGITS, _OF_VARIANCE = 60.0",
        "_DIGITS, _OF_VARIANCE = -1e9",
        f"{ROBUST}::test_precision_that_cannot_carry_the_model_is_said",
    ),
    Mutant(
        "one jitter for all outputs of a grid",
        "_priors/multi_output.py",
        "(prior.kernel.kernel.diagonal(prior.X)) * jnp.diagonal(prior.B)",
        "(prior.kernel.kernel.diagonal(prior.X)) * jnp.mean(prior.B) * jnp.ones_like(given)",
        f"{ROBUST}::test_outputs_on_a_grid_have_the_jitter_policy",
    ),
    Mutant(
        "variances of each point are learnt",
        "_fit.py",
        "return is_number(noise_var) if learn_noise is None",
        "return True if learn_noise is None",
        "test_fit.py::test_variances_that_are_given_for_each_point_are_known",
    ),
    Mutant(
        "a mean is searched for in its own unit",
        "_fit.py",
        "return ones | jax.tree.map(lambda deviation: unit * deviation, deviations)",
        "return ones | jax.tree.map(lambda deviation: unit + 0 * deviation, deviations)",
        "test_fit.py::test_nothing_depends_on_units",
    ),
    Mutant(
        "a density that is rounding counts as one",
        "_fit.py",
        "(noise >= least * (L.",
        "(noise >= 0 * (L.",
        "test_fit.py::test_the_best_point_is_returned_and_a_lost_search_said",
    ),
    Mutant(
        "the estimator in the precision of the session",
        "estimator.py",
        "        with jax.enable_x64(True):\n            return self._fit(",
        "        if True:\n            return self._fit(",
        "test_estimator.py::test_it_computes_in_double_precision_whatever_the_session_does",
    ),
    Mutant(
        "distinct inputs may become equal",
        "_checks.py",
        "if kept < (1 - _MERGED) * there:",
        "if kept < 0 * there:",
        f"{ROBUST}::test_distinct_inputs_that_single_precision_makes_equal_are_an_error",
    ),
    Mutant(
        "observations may lose their spread",
        "_checks.py",
        "if rounding > _COARSE * spread:",
        "if rounding > np.inf:",
        f"{ROBUST}::test_observations_whose_spread_single_precision_loses_are_an_error",
    ),
    Mutant(
        "half precision is let in",
        "_checks.py",
        "if jnp.finfo(x.dtype).bits < 32:",
        "if jnp.finfo(x.dtype).bits < 8:",
        f"{ROBUST}::test_half_precision_is_refused",
    ),
    Mutant(
        "paths of a product are as smooth as its smoothest factor",
        COMPOSE,
        "return min(kernel.smoothness(dim) for kernel in self.kernels)",
        "return max(kernel.smoothness(dim) for kernel in self.kernels)",
        "test_kernels.py::test_smoothness_is_half_the_number_of_derivatives_of_the_kernel",
    ),
    Mutant(
        "a derivative of a derivative counts once",
        "calculus/derivatives.py",
        'return getattr(self.paths, "smoothness", math.inf) - self.operator.order',
        'return math.inf if isinstance(self.paths, PathDerivative) else getattr(self.paths, "smoothness", math.inf) - 1',
        "test_calculus.py::test_derivatives_that_do_not_exist_are_refused",
    ),
    Mutant(
        "a natural gradient for half of a covariance",
        "numpyro_bridge/natural.py",
        "cholesky((S + S.T) / 2)",
        "cholesky(S)",
        "test_likelihoods.py::test_a_natural_step_is_a_mixture_of_natural_parameters",
    ),
    Mutant(
        "a batch of factorisations goes to LAPACK whole",
        "_numerics/lapack.py",
        "cpu=in_turn, default=together",
        "cpu=together, default=together",
        "test_lapack.py::test_no_batch_is_handed_to_lapack_whole",
    ),
    Mutant(
        "an accelerator takes one matrix after the other",
        "_numerics/lapack.py",
        "cpu=in_turn, default=together",
        "cpu=in_turn, default=in_turn",
        "test_lapack.py::test_an_accelerator_takes_a_batch_at_once",
    ),
    Mutant(
        "members of a batch share the first factor",
        "_numerics/lapack.py",
        "in_turn = lambda *mapped: jax.lax.map(lambda member: each(*whole(member)), mapped)",
        "in_turn = lambda *mapped: jax.lax.map(lambda member: each(*whole((mapped[0][0], *member[1:]))), mapped)",
        "test_lapack.py::test_batches_are_those_of_jax_with_derivatives",
    ),
    Mutant(
        "a transposed solve transposes back",
        "_numerics/lapack.py",
        "there, back = (_BACKWARD, _FORWARD) if transpose",
        "there, back = (_BACKWARD, _BACKWARD) if transpose",
        "test_lapack.py::test_batches_are_those_of_jax_with_derivatives",
    ),
    Mutant(
        "columns of a shared factor are members",
        "_numerics/lapack.py",
        "jnp.moveaxis(columns.reshape(n, members, k), 1, 0)",
        "columns.reshape(members, n, k)",
        "test_lapack.py::test_batches_are_those_of_jax_with_derivatives",
    ),
    Mutant(
        "divided differences of one side only",
        "_numerics/linalg.py",
        "kept[:, None] + kept[None, :], size[:, None] + size[None, :]",
        "2 * kept[:, None] + 0 * kept[None, :], size[:, None] + size[None, :]",
        "test_lapack.py::test_eigenvalues_and_what_is_above_zero",
    ),
    Mutant(
        "a pivot that is rounding is a feature",
        "_numerics/pivots.py",
        "enough = left[pivot] > rounding[pivot]",
        "enough = left[pivot] > -1.0",
        f"{FEATURES}::test_points_that_say_nothing_new_are_no_features",
    ),
    Mutant(
        "a masked observation is 0 in the density",
        "_priors/evidence.py",
        "jnp.where(mask, residual, jnp.zeros_like(residual)), unseen",
        "residual, unseen",
        f"{EVERYDAY}::test_the_density_is_that_of_the_model_by_hand[additive]",
    ),
    Mutant(
        "latent values without their mean",
        "numpyro_bridge/observing.py",
        "return prior.mean_at(prior.functional) + prior.factor_at(",
        "return prior.factor_at(",
        f"{EVERYDAY}::test_the_density_is_that_of_the_model_by_hand[noise]",
    ),
    Mutant(
        "one NaN among observations is let through at run time",
        "_checks.py",
        "require(jnp.all(jnp.isfinite(here))",
        "require(jnp.any(jnp.isfinite(here))",
        f"{FAILED}::test_every_door_looks_at_run_time_too[log_prob]",
    ),
    Mutant(
        "an infinite observation is let through at run time",
        "_checks.py",
        "require(jnp.all(jnp.isfinite(here))",
        "require(jnp.all(~jnp.isnan(here))",
        f"{FAILED}::test_every_door_looks_at_run_time_too[crps]",
    ),
    Mutant(
        "NaN counts as an observation outside of an interval",
        "scores.py",
        '_checks.observed(_checks.floating(y, "y"), _UNSCORED, given=y)',
        '_checks.floating(y, "y")',
        f"{FAILED}::test_every_door_names_what_to_do[coverage]",
    ),
    Mutant(
        "NaN in a batch is let through",
        "numpyro_bridge/observing.py",
        "found = _checks.observed(found, mask=mask, given=y)",
        "found = found if mask is None else jnp.where(mask, found, jnp.zeros_like(found))",
        f"{FAILED}::test_every_door_looks_at_run_time_too[gp_factor of a batch]",
    ),
    Mutant(
        "what is masked counts in whether the precision suffices",
        "_checks.py",
        "y = np.asarray(y)[np.asarray(mask)]",
        "y = np.asarray(y)",
        f"{FAILED}::test_what_is_masked_does_not_count_in_whether_precision_suffices",
    ),
    Mutant(
        "a checker takes the arguments of a kernel in another order",
        STATIONARY,
        "def __init__(self, nu: float, variance: Numbers, lengthscale: Numbers)",
        "def __init__(self, variance: Numbers, lengthscale: Numbers, nu: float)",
        TYPES,
    ),
    Mutant(
        "a checker takes no numbers for a field",
        "_fields.py",
        "def __call__(self, x: Numbers) -> Array: ...",
        "def __call__(self, x: Array) -> Array: ...",
        TYPES,
    ),
    Mutant("the type of a kernel is lost in a fit", "_fit.py", ") -> Fit[KernelT]:", ") -> Fit[Any]:", TYPES),
    Mutant(
        "predicted observations without noise",
        "_priors/conditioned.py",
        "self.variance(X) + noise_var + noise_of_kernel(self.prior.kernel, X)",
        "self.variance(X) + 0 * noise_var + noise_of_kernel(self.prior.kernel, X)",
        f"{SCALING}::test_new_observations_have_the_noise",
    ),
    Mutant(
        "observations of paths without the kernel's noise",
        "_paths/function.py",
        "X.dtype) + noise_of_kernel(self.kernel, X)",
        "X.dtype)",
        f"{SCALING}::test_new_observations_have_the_noise",
    ),
    Mutant(
        "the noise of a new observation without the jitter",
        "_priors/appending.py",
        "return noise_var if prior.jitter is None else noise_var + _one_jitter(prior, noise_var.dtype)",
        "return noise_var",
        f"{SCALING}::test_new_observations_have_the_noise",
    ),
    Mutant(
        "one noise for all draws of an ensemble",
        "_paths/ensemble.py",
        "eqx.combine(varying, ensemble.common).observe(X, own_key, noise_var)",
        "ensemble[0].observe(X, own_key, noise_var)",
        f"{SCALING}::test_new_observations_have_the_noise",
    ),
    Mutant(
        "features that stay in their unit",
        "_features/compose.py",
        "self.scale.astype(X.dtype) * self.features(self.transform(X))",
        "(1 + 0 * self.scale.astype(X.dtype)) * self.features(self.transform(X))",
        f"{SCALING}::test_paths_are_read_in_the_original_units",
    ),
    Mutant(
        "the noise of paths stays in its unit",
        "_paths/function.py",
        "noise=square(self.noise),",
        "noise=self.noise,",
        f"{SCALING}::test_paths_are_read_in_the_original_units",
    ),
    Mutant(
        "a factor in the unit of the data",
        "_priors/conditioned.py",
        "scaling.original_values(self.y), self.factor.lower * a",
        "scaling.original_values(self.y), self.factor.lower",
        f"{SCALING}::test_posteriors_are_read_in_the_original_units",
    ),
    Mutant(
        "what is masked moves the scale",
        "_scaling.py",
        "there = np.ones(z.shape[0], bool) if mask is None else np_.asarray(mask)",
        "there = np.ones(z.shape[0], bool)",
        f"{SCALING}::test_data_are_standardised_and_back",
    ),
    Mutant(
        "the distance of data from the prior in their unit",
        "_priors/conditioning.py",
        "scales_of(in_units, L",
        "scales_of(jnp.abs(residual), L",
        f"{SCALING}::test_a_mask_a_unit_and_a_few_points_are_heard",
    ),
    Mutant(
        "what is masked is a neighbour",
        "_priors/scales.py",
        "pair = there[:, None] & there[None, :] & ~jnp",
        "pair = ~jnp",
        f"{SCALING}::test_a_mask_a_unit_and_a_few_points_are_heard",
    ),
    Mutant(
        "a small matrix of data printed as hyperparameters",
        "_modules.py",
        "_rank(value) > 1 and not hyperparameter",
        "_rank(value) > 1 and False",
        "test_modules.py::test_what_is_printed",
    ),
    Mutant(
        "a derivative that does not exist",
        "_functionals/base.py",
        "if L.order > smoothness:",
        "if L.order > 2 * smoothness + 9:",
        f"{FUNCTIONALS}::test_refused",
    ),
    Mutant(
        "a derivative in a function of one's own not counted",
        "_functionals/linear.py",
        "deepest[0] = max(deepest[0], order + 1)",
        "deepest[0] = 0",
        f"{FUNCTIONALS}::test_refused",
    ),
    Mutant(
        "a closed form on one side, a rule on the other",
        "_functionals/functions.py",
        "return self.functional.apply(KernelOverBoxes(self.kernel, boxes)).T",
        "return rule(self)",
        f"{FUNCTIONALS}::test_double_integrals_against_quadrature",
    ),
    Mutant(
        "jitter of the mean variance for all rows",
        "_priors/jitter.py",
        "only(jnp.where(diagonal > 0, diagonal, mean))",
        "only(jnp.where(diagonal > jnp.inf, diagonal, mean))",
        f"{FUNCTIONALS}::test_paths_obey_what_they_were_given",
    ),
    Mutant(
        "a sign in a mixed block",
        "_functionals/combine.py",
        "below = [rows[j][i].T",
        "below = [-rows[j][i].T",
        f"{FUNCTIONALS}::test_covariances_by_a_second_route[list]",
    ),
    Mutant(
        "observations of blocks swapped",
        "_functionals/combine.py",
        "enumerate(zip(self.parts, values, strict=True))",
        "enumerate(zip(self.parts, values[::-1], strict=True))",
        f"{FUNCTIONALS}::test_paths_obey_what_they_were_given[rough]",
    ),
    Mutant(
        "a functional applied to features twice",
        "_functionals/functions.py",
        "self.features(X)).T",
        "2 * self.features(X)).T",
        f"{FUNCTIONALS}::test_exact_paths_have_the_moments_of_their_features",
    ),
    Mutant(
        "values of a factor that is squared",
        "_functionals/combine.py",
        "return times(self.parts[0].apply(f), self.factor)",
        "return times(self.parts[0].apply(f), self.factor**2)",
        f"{FUNCTIONALS}::test_covariances_by_a_second_route[multiple]",
    ),
    Mutant(
        "a Laplacian by a formula that forgets the lengthscales",
        "_kernels/stationary.py",
        "32 * weighted",
        "32 * squares",
        f"{FUNCTIONALS}::test_formulas_are_derivatives",
    ),
    Mutant(
        "narrow boxes by differences that cancel",
        "_numerics/boxes.py",
        "(jnp.maximum(box.width, other.width) <= 1)",
        "(jnp.maximum(box.width, other.width) <= 0)",
        f"{FUNCTIONALS}::test_double_integrals_against_quadrature",
    ),
    Mutant(
        "the old noise drawn again for new observations",
        "_priors/continuing.py",
        "jax.random.fold_in(key, place)",
        "jax.random.fold_in(jax.random.key(0), place)",
        "test_updating.py::test_in_steps_as_at_once[plain-16]",
    ),
    Mutant(
        "jitter not in the noise of new observations",
        "_priors/appending.py",
        "jitter=join(posterior.jitter, settled.jitter),",
        "jitter=join(posterior.jitter, 0 * settled.jitter),",
        "test_updating.py::test_in_steps_as_at_once[jitter-16]",
    ),
    Mutant(
        "the block of a factor upside down",
        "_priors/appending.py",
        "rows = jax.lax.dynamic_update_slice_in_dim(left, new, self.size, axis=1)",
        "rows = jax.lax.dynamic_update_slice_in_dim(left, new.T, self.size, axis=1)",
        "test_updating.py::test_in_steps_as_at_once[plain-16]",
    ),
    Mutant(
        "another observation taken out",
        "_priors/removing.py",
        "numbers = np_.where(numbers < 0, numbers + taken, numbers)",
        "numbers = np_.where(numbers < 0, numbers + taken - 1, numbers)",
        "test_updating.py::test_without_some",
    ),
    Mutant(
        "places that are free counted in the evidence",
        "_priors/conditioned.py",
        "n = self.y.shape[-1] if self.mask is None else",
        "n = self.y.shape[-1] if True else",
        "test_updating.py::test_in_steps_as_at_once[plain-16]",
    ),
    Mutant(
        "the mean of paths left behind",
        "_priors/continuing.py",
        "mean_coefficients=mean.reshape(-1, n)[0],",
        "mean_coefficients=_resized(paths.mean_coefficients, n),",
        "test_updating.py::test_in_steps_as_at_once[plain-16]",
    ),
    Mutant(
        "what was taken out still explains the rest",
        "_numerics/updating.py",
        "return _with_more(upper, below), None",
        "return upper, None",
        "test_updating.py::test_without_some",
    ),
    Mutant(
        "leaving out without the noise",
        "_priors/continuing.py",
        "share = 1 / posterior.factor.inverse_diagonal() - posterior.noise",
        "share = 1 / posterior.factor.inverse_diagonal()",
        "test_updating.py::test_each_path_without_each_observation",
    ),
    Mutant(
        "inducing values that know nothing of their spread",
        "_samplers/sparse_posterior.py",
        "reduction=left - inner(back.T, back.T),",
        "reduction=left,",
        "test_updating.py::test_inducing_values",
    ),
    Mutant(
        "what is missing among new data taken for observed",
        "_priors/appending.py",
        "None if _is_same(posterior.noise_var, noise_var) else noise_var, mask)",
        "None if _is_same(posterior.noise_var, noise_var) else noise_var, None)",
        "test_updating.py::test_mask_of_what_is_new",
    ),
    Mutant(
        "the inverse of an old factor for new observations",
        "_priors/continuing.py",
        "CholeskyFactor(corner).whiten(unit)",
        "unit",
        "test_updating.py::test_room_grows_again_and_again",
    ),
    Mutant(
        "variances in places that are free",
        "_priors/appending.py",
        "lower = jnp.eye(c, dtype=posterior.y.dtype).at",
        "lower = (2 * jnp.eye(c, dtype=posterior.y.dtype)).at",
        "test_updating.py::test_room_grows_again_and_again",
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
    # A fault that only breaks the program would be caught by any test; what counts is a failed assertion, or an
    # error or a warning that was to come and did not.
    asserted = done.returncode == 1 and any(
        words in done.stdout for words in ("AssertionError", "DID NOT RAISE", "DID NOT WARN")
    )
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
