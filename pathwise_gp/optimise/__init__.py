"""Optima of paths: of each path its own, all of them at once."""

from .base import Choice as Choice, credible_intervals as credible_intervals, Optimum as Optimum
from .finite import maximise_over as maximise_over, minimise_over as minimise_over
from .pareto import (
    hypervolume as hypervolume,
    non_dominated as non_dominated,
    pareto_front as pareto_front,
    ParetoFront as ParetoFront,
)
from .search import maximise as maximise, minimise as minimise
