from .decoupled import DecoupledPathwiseSampler as DecoupledPathwiseSampler
from .exact import PathwiseSampler as PathwiseSampler
