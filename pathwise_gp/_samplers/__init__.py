from .decoupled import DecoupledPathwiseSampler as DecoupledPathwiseSampler
from .drawing import draw as draw, Drawn as Drawn
from .error import feature_error as feature_error
from .exact import PathwiseSampler as PathwiseSampler
from .sparse_posterior import SparsePosterior as SparsePosterior
