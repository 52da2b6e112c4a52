"""Acquisition functions: what an evaluation at given inputs is worth, as an average over paths.

All of them are to be maximised over their inputs. They work on the gain g = −f, or g = f with `maximise=True`: unless that is
given, small values of f are sought. Paths are any function that maps `*n d` to `*s *n`; the average goes over all axes
`*s`, draws of hyperparameters included, so that an ensemble gives the acquisition of the whole posterior.
"""

from .base import AbstractAcquisition as AbstractAcquisition
from .hypervolume import (
    HypervolumeImprovement as HypervolumeImprovement,
    LogHypervolumeImprovement as LogHypervolumeImprovement,
)
from .improvement import (
    ConstrainedExpectedImprovement as ConstrainedExpectedImprovement,
    ExpectedImprovement as ExpectedImprovement,
    LogConstrainedExpectedImprovement as LogConstrainedExpectedImprovement,
    LogExpectedImprovement as LogExpectedImprovement,
)
from .knowledge import (
    KnowledgeGradient as KnowledgeGradient,
    OneShotKnowledgeGradient as OneShotKnowledgeGradient,
)
from .lookahead import ExactKnowledgeGradient as ExactKnowledgeGradient
from .optimism import (
    Quantile as Quantile,
    thompson_sample as thompson_sample,
    UpperConfidenceBound as UpperConfidenceBound,
)
from .probability import (
    Exceedance as Exceedance,
    ProbabilityOfFeasibility as ProbabilityOfFeasibility,
    ProbabilityOfImprovement as ProbabilityOfImprovement,
)
