"""Optima of paths: of each path its own, all of them at once."""

from .base import credible_intervals as credible_intervals, Optimum as Optimum
from .search import maximise as maximise, minimise as minimise
