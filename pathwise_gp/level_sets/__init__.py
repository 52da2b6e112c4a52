"""Where paths cross a level, and the sets on which they exceed it."""

from .excursions import (
    contours as contours,
    coverage_function as coverage_function,
    CoverageFunction as CoverageFunction,
    excursion_volume as excursion_volume,
    vorobev_deviation as vorobev_deviation,
    vorobev_expectation as vorobev_expectation,
    VorobevExpectation as VorobevExpectation,
)
from .roots import Crossings as Crossings, crossings as crossings, first_crossing as first_crossing
