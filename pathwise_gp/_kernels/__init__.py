from .arc_cosine import ArcCosine as ArcCosine
from .base import (
    AbstractKernel as AbstractKernel,
    check_valid as check_valid,
    KernelT as KernelT,
    require_valid as require_valid,
    Spectrum as Spectrum,
)
from .compose import Product as Product, Sum as Sum
from .dot_product import Constant as Constant, Linear as Linear, Polynomial as Polynomial
from .index import (
    Categorical as Categorical,
    Coregionalised as Coregionalised,
    Index as Index,
    with_outputs as with_outputs,
)
from .noise import White as White
from .periodic import Cosine as Cosine, Periodic as Periodic
from .spectral_mixture import SpectralMixture as SpectralMixture
from .stationary import Matern as Matern, RationalQuadratic as RationalQuadratic, RBF as RBF
from .transform import ActiveDims as ActiveDims, Warped as Warped
