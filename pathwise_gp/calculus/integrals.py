"""Integrals of paths by a rule of points and weights."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._numerics.linalg import inner
from .._numerics.pointwise import find_axes, real, sum_in_blocks
from .rules import Quadrature

Function = Callable[..., Any]


def integrate(paths: Function, rule: Quadrature) -> Float[Array, "..."]:
    """∫ f dx ≈ Σ_i w_i f(x_i), for each path; of vector-valued functions that of each component.

    The value of the integral is differentiable in the paths and in the rule. Memory is that of a block of 2048 points.

    **Arguments:** `paths`: a callable that maps `*n d` to `*s *n` (or `*s *n p`); `rule`: points and weights.

    **Returns:** the integrals, `*s` (or `*s p`).

    **Raises:** ValueError where `paths` does not map points to values so, or `rule` is not a `Quadrature`.
    """
    return _integrate(paths, _rule(rule))


def inner_product(paths: Function, test_function: Function, rule: Quadrature) -> Float[Array, "..."]:
    """∫ f φ dx, of each path with each of one or several test functions: the weak form of f.

    Of vector-valued functions ∫ F·Φ dx: `inner_product(gradient(f), gradient(φ), rule)` is the Dirichlet form. Costs the
    values of both at the points and one matrix product.

    **Arguments:**

    - `paths`: a callable that maps `*n d` to `*s *n` (or `*s *n p`).
    - `test_function`: one that maps it to `*t *n` (or `*t *n p`): one function, or a batch of them.
    - `rule`: points and weights.

    **Returns:** the products, `*s *t`.

    **Raises:** ValueError where one of the functions does not map points to values so, their values have different
    components, or `rule` is not a `Quadrature`.
    """
    if not callable(test_function):
        raise ValueError(f"`test_function` must be callable; got {type(test_function).__name__}.")
    return _inner_product(paths, test_function, _rule(rule))


def circulation(field: Function, rule: Quadrature) -> Float[Array, "..."]:
    """∫ F·t ds along a curve with the unit tangent t: the work of a force, the circulation of a flow.

    **Arguments:** `field`: a callable that maps `*n d` to `*s *n d`; `rule`: from `line`.

    **Returns:** the integrals, `*s`.

    **Raises:** ValueError where the rule has no tangents, or the field not d components.
    """
    tangents = _rule(rule).tangents
    if tangents is None:
        raise ValueError("`rule` has no tangents: make it by `line`.")
    return _across(field, rule, tangents)


def flux(field: Function, rule: Quadrature) -> Float[Array, "..."]:
    """∫ F·n dA through a surface in space, or a curve in the plane, with the unit normal n.

    **Arguments:** `field`: a callable that maps `*n d` to `*s *n d`; `rule`: from `surface`, or from `line` in the plane.

    **Returns:** the integrals, `*s`.

    **Raises:** ValueError where the rule has no normals, or the field not d components.
    """
    normals = _rule(rule).normals
    if normals is None:
        raise ValueError("`rule` has no normals: make it by `surface` in three dimensions, or by `line` in two.")
    return _across(field, rule, normals)


def _rule(rule: Any) -> Quadrature:
    if not isinstance(rule, Quadrature):
        raise ValueError(
            f"`rule` must be a Quadrature, of `gauss_legendre`, `sparse_grid`, `line`, `surface` or your own points and "
            f"weights; got {type(rule).__name__}."
        )
    return rule


def _flat(values: Float[Array, "..."], axis: int) -> Float[Array, "s k"]:
    """Axes before that of the points made one, and those from it on."""
    return values.reshape(math.prod(values.shape[:axis]), math.prod(values.shape[axis:]))


@eqx.filter_jit
def _integrate(paths: Function, rule: Quadrature) -> Float[Array, "..."]:
    axis = len(find_axes(paths, rule.points).paths)

    def part(points: Float[Array, "b d"], weights: Float[Array, "b"]) -> Float[Array, "..."]:
        values = jnp.moveaxis(real(paths)(points), axis, -1)
        return jnp.matmul(values, weights.astype(values.dtype), precision=jax.lax.Precision.HIGHEST)

    return sum_in_blocks(part, rule.points, rule.weights)


@eqx.filter_jit
def _inner_product(paths: Function, test_function: Function, rule: Quadrature) -> Float[Array, "..."]:
    (s, components), (t, others) = find_axes(paths, rule.points), find_axes(test_function, rule.points, "test_function")
    if components != others:
        raise ValueError(
            f"`paths` and `test_function` must have the same components; those of a value have the axes {components} and "
            f"{others}."
        )

    def part(points: Float[Array, "b d"], weights: Float[Array, "b"]) -> Float[Array, "..."]:
        f, phi = real(paths)(points), real(test_function, "test_function")(points)
        weighted = phi.astype(f.dtype) * weights.astype(f.dtype).reshape(*[1] * len(t), -1, *[1] * len(components))
        return inner(_flat(f, len(s)), _flat(weighted, len(t))).reshape(*s, *t)

    return sum_in_blocks(part, rule.points, rule.weights)


@eqx.filter_jit
def _across(field: Function, rule: Quadrature, vectors: Float[Array, "m d"]) -> Float[Array, "..."]:
    s, components = find_axes(field, rule.points, "field")
    if components != vectors.shape[1:]:
        raise ValueError(
            f"`field` must have as many components as the inputs have dimensions, {vectors.shape[1]}; its values have the "
            f"axes {components}."
        )

    def part(
        points: Float[Array, "b d"], weights: Float[Array, "b"], vectors: Float[Array, "b d"]
    ) -> Float[Array, "..."]:
        values = real(field, "field")(points)
        weighted = (weights[:, None] * vectors).astype(values.dtype)
        return inner(_flat(values, len(s)), weighted.reshape(1, -1)).reshape(s)

    return sum_in_blocks(part, rule.points, rule.weights, vectors)
