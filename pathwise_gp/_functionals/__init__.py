from .base import (
    AbstractFunctional as AbstractFunctional,
    as_functional as as_functional,
    as_inputs as as_inputs,
    Asked as Asked,
    check_functional as check_functional,
    dim_of as dim_of,
    flat_data as flat_data,
    is_number as is_number,
    is_structured as is_structured,
    Observed as Observed,
    observed as observed,
    size_of as size_of,
)
from .combine import Added as Added, Mixed as Mixed, Scaled as Scaled, Stack as Stack
from .derivatives import (
    Derivative as Derivative,
    Directional as Directional,
    Gradient as Gradient,
    Hessian as Hessian,
    Laplacian as Laplacian,
)
from .functions import Canonical as Canonical, FeaturesOf as FeaturesOf, MeanOf as MeanOf
from .integrals import Integral as Integral
from .linear import LinearFunctional as LinearFunctional
from .outputs import AllOutputs as AllOutputs
from .values import Values as Values
