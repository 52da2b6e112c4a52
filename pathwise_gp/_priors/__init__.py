from .base import AbstractPrior as AbstractPrior
from .conditioned import ConditionedGP as ConditionedGP
from .conditioning import AbstractOthers as AbstractOthers
from .exact import condition_with as condition_with, GPPrior as GPPrior
from .leave_one_out import LeaveOneOut as LeaveOneOut
from .prediction import Prediction as Prediction
from .recovered import posterior_of as posterior_of
from .sparse import SparseGPPrior as SparseGPPrior
