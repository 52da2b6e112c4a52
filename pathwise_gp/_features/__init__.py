from .base import (
    AbstractFeatures as AbstractFeatures,
    as_features as as_features,
    check_covered as check_covered,
    require_covered as require_covered,
    size as size,
)
from .compose import (
    ConcatenatedFeatures as ConcatenatedFeatures,
    PairedFeatures as PairedFeatures,
    ProductFeatures as ProductFeatures,
    RescaledFeatures as RescaledFeatures,
    SelectedFeatures as SelectedFeatures,
    side_by_side as side_by_side,
    WarpedFeatures as WarpedFeatures,
)
from .exact import (
    ConstantFeatures as ConstantFeatures,
    LinearFeatures as LinearFeatures,
    MonomialFeatures as MonomialFeatures,
    NoFeatures as NoFeatures,
    TableFeatures as TableFeatures,
)
from .fourier import fourier_pairs as fourier_pairs, FourierFeatures as FourierFeatures
from .hilbert import HilbertSpace as HilbertSpace
from .nystrom import Nystrom as Nystrom, NystromFeatures as NystromFeatures
from .outputs import OutputFeatures as OutputFeatures
from .rectified import RectifiedFeatures as RectifiedFeatures
from .sampling import (
    AbstractBasis as AbstractBasis,
    AbstractRandomBasis as AbstractRandomBasis,
    check_basis as check_basis,
    Coordinates as Coordinates,
    MonteCarlo as MonteCarlo,
    Orthogonal as Orthogonal,
    QuasiMonteCarlo as QuasiMonteCarlo,
)
