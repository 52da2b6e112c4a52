"""Optima of paths: of each path its own, all of them at once."""

from .base import Choice as Choice, credible_intervals as credible_intervals, Optimum as Optimum
from .finite import maximise_over as maximise_over, minimise_over as minimise_over
from .search import maximise as maximise, minimise as minimise
