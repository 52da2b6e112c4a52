from .._numerics.solution import Estimate as Estimate, Report as Report
from .base import (
    AbstractSolver as AbstractSolver,
    as_solver as as_solver,
    Evidence as Evidence,
    Prepared as Prepared,
    System as System,
)
from .block_projections import BlockProjections as BlockProjections
from .cholesky import Cholesky as Cholesky, memory as memory
from .conjugate_gradients import ConjugateGradients as ConjugateGradients, RandomPivots as RandomPivots
from .iterative import AbstractIterative as AbstractIterative, unsolved as unsolved
from .kronecker import Kronecker as Kronecker, suited as suited
