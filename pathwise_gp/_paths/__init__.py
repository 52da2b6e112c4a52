from .ensemble import map_draws as map_draws, PathEnsemble as PathEnsemble, separate as separate
from .function import PathwiseFunction as PathwiseFunction
from .joining import concatenate as concatenate, stack as stack
from .outputs import OutputPaths as OutputPaths
from .prior_draw import (
    draw_prior as draw_prior,
    evaluate_prior as evaluate_prior,
    fitted as fitted,
)
from .variance import path_variance as path_variance
