"""Paths of several outputs that go on as observations come and go, as those of one output do."""

import dataclasses
from typing import Any, TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .. import _checks
from .._features import NoFeatures
from .._numerics.lapack import cholesky
from .._numerics.linalg import CholeskyFactor, inner
from .._paths import MultiOutputPaths
from .._types import Key
from .continuing import OTHER

if TYPE_CHECKING:
    from .multi_output import ConditionedMultiOutputGP
else:
    ConditionedMultiOutputGP = Any


def continued(posterior: ConditionedMultiOutputGP, paths: Any, key: Key, n_new: int | None) -> MultiOutputPaths:
    """`MultiOutputPaths.condition`."""
    _check(posterior, paths)
    new = posterior.y.shape[0] - paths.inputs.shape[0]
    if new < 0 or (n_new is not None and _checks.count(n_new, "n_new") != new):
        raise ValueError(
            f"`posterior` must have more inputs than the paths are conditioned on, by `n_new`; it has {new} more."
        )
    found, other = _continue(posterior, paths, _checks.key(key))
    return _checks.verdict(found, (other, _OTHER))


_OTHER = OTHER + " (Where a full grid of outputs needed another jitter, its noise is another too.)"


def _check(posterior: ConditionedMultiOutputGP, paths: Any) -> None:
    if not isinstance(paths, MultiOutputPaths) or isinstance(paths.features, NoFeatures):
        raise ValueError(f"`paths` must be draws of the posterior of several outputs; got a {type(paths).__name__}.")
    same = jax.tree.structure(posterior.kernel) == jax.tree.structure(paths.kernel)
    if (
        not same
        or paths.inputs.shape[1] != posterior.prior.X.shape[1]
        or paths.noise.shape != posterior.noise_var.shape
    ):
        raise ValueError(_OTHER)


def _differ(posterior: ConditionedMultiOutputGP, paths: MultiOutputPaths) -> Bool[Array, ""]:
    """Whether kernels, noise or the inputs that both have are others."""
    ours, theirs = (jax.tree.leaves(eqx.filter(kernel, eqx.is_array)) for kernel in (posterior.kernel, paths.kernel))
    if [leaf.shape for leaf in ours] != [leaf.shape for leaf in theirs]:
        raise ValueError(_OTHER)
    n = min(paths.inputs.shape[0], posterior.prior.X.shape[0])
    same = [jnp.all(one == two) for one, two in zip(ours, theirs, strict=True)]
    same.append(jnp.all(paths.inputs[:n] == posterior.prior.X[:n]))
    B, noise = inner(paths.root, paths.root), posterior.factor.noise
    eps = 1e3 * float(jnp.finfo(noise.dtype).eps)
    same.append(jnp.all(jnp.abs(noise - paths.noise) <= eps * noise))
    same.append(jnp.all(jnp.abs(B - posterior.prior.B) <= eps * jnp.max(jnp.abs(B))))
    return ~jnp.all(jnp.stack(same))


def _loaded(posterior: ConditionedMultiOutputGP, alpha: Float[Array, "*s n p"]) -> Float[Array, "*s p n"]:
    """α B, with the axis of the inputs last: what paths hold."""
    return jnp.swapaxes(inner(alpha.reshape(-1, alpha.shape[-1]), posterior.prior.B).reshape(alpha.shape), -1, -2)


@eqx.filter_jit
def _continue(
    posterior: ConditionedMultiOutputGP, paths: MultiOutputPaths, key: Key
) -> tuple[MultiOutputPaths, Bool[Array, ""]]:
    old, (n, p) = paths.inputs.shape[0], posterior.y.shape
    noise = posterior.factor.noise
    shape = (*paths.shape, n - old, p)
    draws = jnp.broadcast_to(jnp.sqrt(noise), shape) * jax.random.normal(key, shape, noise.dtype)
    surprise = jnp.broadcast_to(posterior.y[old:], shape) - paths(posterior.prior.X[old:]) - draws
    # α + A⁻¹E (y′ − f(X′) − ε′), as for one output.
    rhs = jnp.concatenate([jnp.zeros((*paths.shape, old, p), noise.dtype), surprise], axis=-2)
    change = _loaded(posterior, posterior.factor.solve(rhs))
    before = jnp.concatenate([paths.coefficients, jnp.zeros((*paths.shape, p, n - old), noise.dtype)], axis=-1)
    made = dataclasses.replace(
        paths,
        inputs=posterior.prior.X,
        coefficients=before + change,
        mean_coefficients=_loaded(posterior, posterior.coefficients),
        noise=noise,
    )
    return made, _differ(posterior, paths)


def continued_without(posterior: ConditionedMultiOutputGP, paths: Any, numbers: Any) -> MultiOutputPaths:
    """`MultiOutputPaths.without`."""
    _check(posterior, paths)
    if paths.inputs.shape != posterior.prior.X.shape:
        raise ValueError(_OTHER)
    found, other = _without(posterior, posterior.without(numbers), paths, jnp.asarray(posterior.kept(numbers)))
    return _checks.verdict(found, (other, _OTHER))


@eqx.filter_jit
def _without(
    posterior: ConditionedMultiOutputGP, fewer: ConditionedMultiOutputGP, paths: MultiOutputPaths, kept: Int[Array, "k"]
) -> tuple[MultiOutputPaths, Bool[Array, ""]]:
    # With K for those that stay and B for those that go, α_K + A_KK⁻¹ A_KB α_B; paths hold α B, of which A_KB α_B is made.
    gone = paths.coefficients.at[..., kept].set(0)
    flat = gone.reshape(-1, gone.shape[-1])
    rhs = inner(flat, posterior.kernel.matrix(fewer.prior.X, posterior.prior.X)).reshape(
        *gone.shape[:-1], kept.shape[0]
    )
    change = _loaded(posterior, fewer.factor.solve(jnp.swapaxes(rhs, -1, -2)))
    made = dataclasses.replace(
        paths,
        inputs=fewer.prior.X,
        coefficients=paths.coefficients[..., kept] + change,
        mean_coefficients=_loaded(fewer, fewer.coefficients),
        noise=fewer.factor.noise,
    )
    return made, _differ(posterior, paths) | _differ(fewer, made)


def left_out(posterior: ConditionedMultiOutputGP, paths: Any) -> Float[Array, "*s n p"]:
    """`MultiOutputPaths.leave_one_out`."""
    _check(posterior, paths)
    if paths.inputs.shape != posterior.prior.X.shape:
        raise ValueError(_OTHER)
    values, other = _left_out(posterior, paths)
    return _checks.verdict(values, (other, _OTHER))


@eqx.filter_jit
def _left_out(
    posterior: ConditionedMultiOutputGP, paths: MultiOutputPaths
) -> tuple[Float[Array, "*s n p"], Bool[Array, ""]]:
    # Paths hold α B.
    alpha = CholeskyFactor(cholesky(posterior.prior.B)).solve(jnp.swapaxes(paths.coefficients, -1, -2))
    share = 1 / posterior.factor.inverse_diagonal() - posterior.factor.noise[None, :]
    values = paths(posterior.prior.X) - alpha * jnp.broadcast_to(share, alpha.shape)
    return values, _differ(posterior, paths)
