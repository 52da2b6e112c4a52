"""Draws of Gaussian process posteriors as functions: callable, differentiable, immutable pytrees."""

import typing as _typing

from ._batched import Batched as Batched
from ._checks import PrecisionWarning as PrecisionWarning, ScaleWarning as ScaleWarning
from ._features import (
    AbstractBasis as AbstractBasis,
    AbstractFeatures as AbstractFeatures,
    Coordinates as Coordinates,
    HilbertSpace as HilbertSpace,
    MonteCarlo as MonteCarlo,
    Nystrom as Nystrom,
    Orthogonal as Orthogonal,
    QuasiMonteCarlo as QuasiMonteCarlo,
)
from ._fit import Fit as Fit, fit as fit
from ._functionals import (
    AbstractFunctional as AbstractFunctional,
    AllOutputs as AllOutputs,
    Derivative as Derivative,
    Directional as Directional,
    Gradient as Gradient,
    Hessian as Hessian,
    Integral as Integral,
    Laplacian as Laplacian,
    LinearFunctional as LinearFunctional,
    Values as Values,
)
from ._guides import (
    AbstractGuide as AbstractGuide,
    DeltaGuide as DeltaGuide,
    elbo as elbo,
    FullRankGuide as FullRankGuide,
    inducing_points as inducing_points,
    MeanFieldGuide as MeanFieldGuide,
    NaturalGuide as NaturalGuide,
    optimal_guide as optimal_guide,
    WhitenedGuide as WhitenedGuide,
)
from ._kernels import (
    AbstractKernel as AbstractKernel,
    ActiveDims as ActiveDims,
    ArcCosine as ArcCosine,
    Categorical as Categorical,
    Constant as Constant,
    Coregionalised as Coregionalised,
    Cosine as Cosine,
    Index as Index,
    Linear as Linear,
    Matern as Matern,
    Periodic as Periodic,
    Polynomial as Polynomial,
    Product as Product,
    RationalQuadratic as RationalQuadratic,
    RBF as RBF,
    SpectralMixture as SpectralMixture,
    Spectrum as Spectrum,
    Sum as Sum,
    Warped as Warped,
    White as White,
    with_outputs as with_outputs,
)
from ._laplace import Laplace as Laplace, laplace as laplace
from ._means import ConstantMean as ConstantMean, OutputMeans as OutputMeans, ZeroMean as ZeroMean
from ._paths import (
    concatenate as concatenate,
    OutputPaths as OutputPaths,
    PathEnsemble as PathEnsemble,
    PathwiseFunction as PathwiseFunction,
    stack as stack,
)
from ._priors import (
    ConditionedGP as ConditionedGP,
    GPPrior as GPPrior,
    LeaveOneOut as LeaveOneOut,
    posterior_of as posterior_of,
    Prediction as Prediction,
    SparseGPPrior as SparseGPPrior,
)
from ._samplers import (
    DecoupledPathwiseSampler as DecoupledPathwiseSampler,
    draw as draw,
    Drawn as Drawn,
    feature_error as feature_error,
    PathwiseSampler as PathwiseSampler,
    SparsePosterior as SparsePosterior,
)
from ._scaling import Standardisation as Standardisation, standardise as standardise
from ._solvers import (
    AbstractSolver as AbstractSolver,
    BlockProjections as BlockProjections,
    Cholesky as Cholesky,
    ConjugateGradients as ConjugateGradients,
    Estimate as Estimate,
    Kronecker as Kronecker,
    RandomPivots as RandomPivots,
    Report as Report,
)

# What paths are for: each of these is imported when it is first used.
_USES = (
    "acquisition",
    "calculus",
    "design",
    "ensembles",
    "estimator",
    "level_sets",
    "optimise",
    "plots",
    "rollout",
    "scores",
)

__version__ = "0.1.0"

if _typing.TYPE_CHECKING:
    from . import (
        acquisition as acquisition,
        calculus as calculus,
        design as design,
        ensembles as ensembles,
        estimator as estimator,
        level_sets as level_sets,
        optimise as optimise,
        plots as plots,
        rollout as rollout,
        scores as scores,
    )
else:

    def __getattr__(name: str) -> object:
        if name in _USES:
            import importlib

            return importlib.import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
