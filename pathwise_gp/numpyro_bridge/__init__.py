"""Gaussian processes in NumPyro models: fields of modules as sites and parameters, and posterior draws as paths.

The one part of the package that imports NumPyro.
"""

try:
    import numpyro
except ImportError as e:  # pragma: no cover
    raise ImportError(
        "`pathwise_gp.numpyro_bridge` needs NumPyro, which a whole installation of pathwise_gp brings: pip install numpyro."
    ) from e

from .._addresses import place as place
from .lifting import learn as learn, lift as lift, Site as Site, sites as sites
from .natural import natural_gradients as natural_gradients
from .observing import (
    gp_factor as gp_factor,
    gp_sample as gp_sample,
    GPMarginal as GPMarginal,
    WhitenedGP as WhitenedGP,
)
from .posterior import leave_one_out as leave_one_out, posterior_paths as posterior_paths
from .predicting import PredictivePaths as PredictivePaths
from .sparse import sgpr_factor as sgpr_factor, svgp_factor as svgp_factor
