"""Draws of Gaussian process posteriors as functions: callable, differentiable, immutable pytrees."""

from ._features import AbstractFeatures as AbstractFeatures
from ._guides import (
    AbstractGuide as AbstractGuide,
    DeltaGuide as DeltaGuide,
    elbo as elbo,
    FullRankGuide as FullRankGuide,
    MeanFieldGuide as MeanFieldGuide,
    NaturalGuide as NaturalGuide,
    optimal_guide as optimal_guide,
    WhitenedGuide as WhitenedGuide,
)
from ._kernels import (
    AbstractKernel as AbstractKernel,
    ActiveDims as ActiveDims,
    Constant as Constant,
    Linear as Linear,
    Matern as Matern,
    Periodic as Periodic,
    Product as Product,
    RationalQuadratic as RationalQuadratic,
    RBF as RBF,
    Spectrum as Spectrum,
    Sum as Sum,
)
from ._means import ConstantMean as ConstantMean, ZeroMean as ZeroMean
from ._paths import (
    concatenate as concatenate,
    PathEnsemble as PathEnsemble,
    PathwiseFunction as PathwiseFunction,
    stack as stack,
)
from ._priors import ConditionedGP as ConditionedGP, GPPrior as GPPrior, SparseGPPrior as SparseGPPrior
from ._samplers import (
    DecoupledPathwiseSampler as DecoupledPathwiseSampler,
    PathwiseSampler as PathwiseSampler,
)

__version__ = "0.1.0"
