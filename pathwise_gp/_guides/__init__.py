from .base import AbstractGuide as AbstractGuide
from .bound import elbo as elbo
from .delta import DeltaGuide as DeltaGuide
from .full_rank import FullRankGuide as FullRankGuide
from .mean_field import MeanFieldGuide as MeanFieldGuide
from .natural import NaturalGuide as NaturalGuide
from .optimal import optimal_guide as optimal_guide
from .whitened import WhitenedGuide as WhitenedGuide
