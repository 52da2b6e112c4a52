"""Periodic kernels and their harmonics."""

import functools
import math
import operator

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks, _fields
from .._features import AbstractBasis, AbstractFeatures, Coordinates, fourier_pairs, FourierFeatures, QuasiMonteCarlo
from .._numerics.distances import differences
from .._numerics.exponential import decay
from .._numerics.trigonometry import cos_turns, sin_turns
from .._types import Key
from .base import AbstractKernel, Spectrum

# Steps of the continued fraction after which its start no longer shows in float64, for lengthscales down to 0.01.
_FRACTION_STEPS = 400
# Harmonics beyond the features that are sampled from.
_TAIL = 512
# Of a sampled frequency, all dimensions together. Where many harmonics have weight q is nearly normal in the order; its power
# c is wider by c^−½, and the lowest harmonics are so much rarer than by their weights.
_LARGEST_WEIGHT = 3.0


def _bessel_ratio(order: Float[Array, "*j"], a: Float[Array, "*j"]) -> Float[Array, "*j"]:
    """I_j(a) / I_{j−1}(a) for orders j ≥ 1, by the continued fraction, downwards from Amos's (1974) bound."""
    top = order + _FRACTION_STEPS
    bound = a / (top - 0.5 + jnp.sqrt((top + 0.5) ** 2 + a**2))
    steps = jnp.arange(_FRACTION_STEPS)[::-1].astype(a.dtype)
    ratio, _ = jax.lax.scan(lambda ratio, step: (1 / (2 * (order + step) / a + ratio), None), bound, steps)
    return ratio


def _log_weights(lengthscale: Float[Array, ""], n: int) -> Float[Array, "n"]:
    """Logarithms of the weights of harmonics 0, …, n − 1 of cos(2πhx): e^{−a} I_h(a) with a = 1/ℓ², twice for h ≥ 1."""
    order = jnp.arange(1, n).astype(lengthscale.dtype)
    # Logarithms: the last weights underflow, and their roots would have no finite derivative.
    log_ratios = jnp.log(_bessel_ratio(order, jnp.broadcast_to(1 / lengthscale**2, order.shape)))
    return jax.nn.log_softmax(jnp.concatenate([jnp.zeros((1,), order.dtype), math.log(2) + jnp.cumsum(log_ratios)]))


@jax.custom_jvp
def _log_weight(_order: Float[Array, "*j"], a: Float[Array, "*j"]) -> Float[Array, "*j"]:
    """log P_j(a)/P_j(a₀) at a = a₀, for P_j(a) = e^{−a} I_j(a): zero, with every derivative in a."""
    return jnp.zeros_like(a)


@_log_weight.defjvp
def _log_weight_jvp(primals, tangents):
    (order, a), (_, da) = primals, tangents
    # d/da log(e^{−a} I_j(a)) = I_{j+1}(a)/I_j(a) + j/a − 1
    return _log_weight(order, a), (_bessel_ratio(order + 1, a) + order / a - 1) * da


def _even_choice(log_q: Float[Array, "n"], power: float, h: int) -> tuple[Float[Array, "n"], Float[Array, "n"]]:
    """Probabilities p of choosing one of n harmonics of weights q, so that those of little weight are chosen often too: their
    logarithms, and what lies beyond each harmonic.

    p is in proportion to q^power, but that the probabilities of the lowest, as long as they are to be chosen once or more in
    h draws, are whole numbers over h: evenly spread draws have each of them exactly so often.
    """
    log_p = jax.nn.log_softmax(power * log_q)
    p = jnp.exp(log_p)
    beyond = jnp.append(jnp.cumsum(p[::-1])[::-1][1:], 0)
    often = jnp.cumprod((p * h >= 1) & (beyond * h >= 1)).astype(bool)
    whole = jnp.floor(beyond * h + 0.5) / h
    # What lies beyond the last of these is stretched to what they leave.
    last = jnp.maximum(jnp.sum(often) - 1, 0)
    left = jnp.where(often[last], whole[last] / jnp.where(often[last], beyond[last], 1), 1)
    beyond = jnp.where(often, whole, left * beyond)
    width = jnp.where(often, -jnp.diff(beyond, prepend=1), 1)
    return jnp.where(often, jnp.log(width), log_p + jnp.log(left)), beyond


class Periodic(AbstractKernel):
    """k(x, z) = variance · exp(−2 Σ_i sin²(π(x_i − z_i)/p_i)/ℓ_i²).

    In one dimension its basis is the cosine series of the kernel, Σ_j q_j cos(2πj(x − z)/p) with
    q_j ∝ I_j(1/ℓ²) (twice for j ≥ 1): exact where the harmonics beyond n_features / 2 have no weight to speak of, which
    falls faster than any power; where they have, one of them is sampled, so that the kernel is right on average. In more
    dimensions, and in products with other stationary kernels, all harmonics are sampled, those of little weight more often
    than that (for which JAX wants a threefry key).

    **Fields:**

    - `variance`: of the process at a point; positive, in squared units of the values.
    - `lengthscale`: ℓ, a scalar or one per input dimension, `d`; positive, a pure number.
    - `period`: p, a scalar or one per input dimension, `d`; positive, in units of the input.

    **Raises:** ValueError where a field is not positive or has the wrong shape. Source: MacKay (1998), in the form of
    Rasmussen & Williams (2006), equation 4.31; the series: Solin & Särkkä (2014), equation 27.
    """

    variance: Float[Array, ""] = eqx.field(converter=_fields.positive)
    lengthscale: Float[Array, "*d"] = eqx.field(converter=_fields.positive)
    period: Float[Array, "*d"] = eqx.field(converter=_fields.positive)

    def smoothness(self, dim: int) -> float:
        return math.inf

    def matrix(self, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
        dim = X.shape[1]
        lengthscale = jnp.broadcast_to(self.lengthscale, (dim,)).astype(X.dtype)
        period = jnp.broadcast_to(self.period, (dim,)).astype(X.dtype)
        total = jnp.zeros((X.shape[0], Z.shape[0]), X.dtype)
        for i, difference in enumerate(differences(X, Z)):
            sine = sin_turns(difference / (2 * period[i])) / lengthscale[i]
            total = total + sine * sine
        return self.variance.astype(X.dtype) * decay(2 * total)

    def diagonal(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return jnp.broadcast_to(self.variance.astype(X.dtype), (X.shape[0],))

    def coordinates(self, dim: int) -> Coordinates:
        return Coordinates(dim)

    def features(
        self, n_features: int, dim: int, *, key: Key, basis: AbstractBasis = QuasiMonteCarlo()
    ) -> AbstractFeatures:
        if dim != 1:
            return super().features(n_features, dim, key=key, basis=basis)
        self.check_dim(dim)
        n_features = _checks.count(n_features, "n_features")
        lengthscale, period = self.lengthscale.reshape(()), self.period.reshape(())
        dtype = lengthscale.dtype
        # The last pair (or one feature with a random phase, where only one is left) stands for the harmonics that do not
        # fit: sampled among them, with the variance of all of them.
        n_tail = 2 if n_features > 1 and n_features % 2 else 1
        n_exact = (n_features - n_tail + 1) // 2  # harmonics 0, …, n_exact − 1
        log_weights = _log_weights(lengthscale, n_exact + _TAIL)
        exact, tail = log_weights[:n_exact], log_weights[n_exact:]
        key_tail, key_phase = jax.random.split(key)
        chosen = jax.random.categorical(key_tail, tail)
        # The choice does not move with ℓ, its probability does: see `spectrum`.
        log_probability = jax.nn.log_softmax(tail)[chosen]
        score = log_probability - jax.lax.stop_gradient(log_probability)
        log_tail = (jax.nn.logsumexp(tail) + score)[None]
        harmonics = jnp.arange(n_exact).astype(dtype)
        last = (n_exact + chosen).astype(dtype)[None]
        quarter = jnp.full_like(harmonics[1:], -0.25)
        if n_tail == 2:
            phases, logs = jnp.asarray([0.0, -0.25], dtype), [log_tail, log_tail]
        else:
            phases, logs = jax.random.uniform(key_phase, (1,), dtype), [log_tail + math.log(2)]
        all_logs = jnp.concatenate([exact, exact[1:], *logs])
        return FourierFeatures(
            frequencies=(jnp.concatenate([harmonics, harmonics[1:], *[last] * n_tail]) / period.astype(dtype))[:, None],
            phases=jnp.concatenate([jnp.zeros_like(harmonics), quarter, phases]),
            amplitudes=jnp.sqrt(self.variance.astype(dtype)) * jnp.exp(0.5 * all_logs),
        )

    def spectrum(self, normals: Float[Array, "h r"], dim: int) -> Spectrum:
        dtype, h = self.lengthscale.dtype, normals.shape[0]
        log_weight = jnp.zeros((h,), dtype)
        columns = []
        for i, lengthscale in enumerate(jnp.broadcast_to(self.lengthscale, (dim,))):
            z = normals[:, i].astype(dtype)
            # Probability that |j| is larger: one sign is enough for the first harmonic, since ω and −ω are the same.
            upper = jax.scipy.special.ndtr(-z) if i == 0 else 2 * jax.scipy.special.ndtr(-jnp.abs(z))
            # Harmonics are the terms of a sum, of which data leave the small ones open.
            log_q = jax.lax.stop_gradient(_log_weights(lengthscale, _TAIL))
            log_p, beyond = _even_choice(log_q, _LARGEST_WEIGHT ** (-2 / dim), h)
            # The harmonic is the number of those that more than this lies beyond.
            order = jnp.searchsorted(-beyond, -upper)
            size = order.astype(dtype)
            columns.append(size if i == 0 else jnp.where(z < 0, -size, size))
            # A harmonic does not move with ℓ, its weight does: so the derivatives of the kernel are unbiased.
            change = _log_weight(size, jnp.broadcast_to(1 / lengthscale**2, size.shape))
            log_weight = log_weight + (log_q - log_p)[order] + change
        frequencies = jnp.stack(columns, axis=1) / jnp.broadcast_to(self.period.astype(dtype), (dim,))[None, :]
        return Spectrum(frequencies, self.variance.astype(dtype) * jnp.exp(log_weight))

    def check_dim(self, dim: int) -> None:
        _fields.check_length(self, dim, "lengthscale", "period")

    def __check_init__(self):
        _fields.check_scalar(self, "variance")
        _fields.check_per_dimension(self, "lengthscale", "period")


class Cosine(AbstractKernel):
    """k(x, z) = variance · cos(2π Σ_i (x_i − z_i)/p_i): plane waves of one frequency, with 2 exact features.

    (The cosine of a Euclidean distance, which has been used for this, is not positive definite in more than one dimension.)

    **Fields:**

    - `variance`: of the process at a point; positive, in squared units of the values.
    - `period`: p, a scalar or one per input dimension, `d`; positive, in units of the input.

    **Raises:** ValueError where a field is not positive or has the wrong shape.
    """

    variance: Float[Array, ""] = eqx.field(converter=_fields.positive)
    period: Float[Array, "*d"] = eqx.field(converter=_fields.positive)

    def smoothness(self, dim: int) -> float:
        return math.inf

    def matrix(self, X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
        dim = X.shape[1]
        period = jnp.broadcast_to(self.period, (dim,)).astype(X.dtype)
        # Differences before anything is lost: see `squared_distances`.
        turns = functools.reduce(
            operator.add, (difference / period[i] for i, difference in enumerate(differences(X, Z)))
        )
        return self.variance.astype(X.dtype) * cos_turns(turns)

    def diagonal(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        return jnp.broadcast_to(self.variance.astype(X.dtype), (X.shape[0],))

    def basis_size(self, dim: int) -> int:
        return 2

    def coordinates(self, dim: int) -> Coordinates:
        return Coordinates(0)

    def spectrum(self, normals: Float[Array, "h r"], dim: int) -> Spectrum:
        h = normals.shape[0]
        frequency = 1 / jnp.broadcast_to(self.period, (dim,))
        return Spectrum(jnp.broadcast_to(frequency[None, :], (h, dim)), jnp.broadcast_to(self.variance, (h,)))

    def features(
        self, n_features: int, dim: int, *, key: Key, basis: AbstractBasis = QuasiMonteCarlo()
    ) -> AbstractFeatures:
        _checks.count(n_features, "n_features")
        self.check_dim(dim)
        return fourier_pairs(*self.spectrum(jnp.zeros((1, 0), self.period.dtype), dim))

    def check_dim(self, dim: int) -> None:
        _fields.check_length(self, dim, "period")

    def __check_init__(self):
        _fields.check_scalar(self, "variance")
        _fields.check_per_dimension(self, "period")
