from .base import AbstractPrior as AbstractPrior
from .exact import ConditionedGP as ConditionedGP, GPPrior as GPPrior
from .sparse import SparseGPPrior as SparseGPPrior
