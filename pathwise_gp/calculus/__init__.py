"""Derivatives and integrals of paths.

Every operator takes a callable that maps `*n d` to `*s *n` (a path, a batch of paths, an ensemble, or any function of the
kind) and gives another one. Every integral is a definite one, over all dimensions, and gives one value a path, `*s` (of
functions with p components one for each, `*s p`), not a function.
"""

from .closed_form import integrate_exactly as integrate_exactly
from .derivatives import (
    curl as curl,
    directional_derivative as directional_derivative,
    divergence as divergence,
    gradient as gradient,
    hessian as hessian,
    jacobian as jacobian,
    laplacian as laplacian,
    PathDerivative as PathDerivative,
    VectorField as VectorField,
)
from .integrals import (
    circulation as circulation,
    flux as flux,
    inner_product as inner_product,
    integrate as integrate,
)
from .rules import (
    gauss_legendre as gauss_legendre,
    line as line,
    Quadrature as Quadrature,
    sparse_grid as sparse_grid,
    surface as surface,
)
