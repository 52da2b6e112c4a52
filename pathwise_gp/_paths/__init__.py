from .ensemble import PathEnsemble as PathEnsemble
from .function import concatenate as concatenate, PathwiseFunction as PathwiseFunction, stack as stack
from .prior_draw import draw_prior as draw_prior, evaluate_prior as evaluate_prior
