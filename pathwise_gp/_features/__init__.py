from .base import AbstractFeatures as AbstractFeatures
from .compose import (
    ConcatenatedFeatures as ConcatenatedFeatures,
    ProductFeatures as ProductFeatures,
    SelectedFeatures as SelectedFeatures,
)
from .exact import ConstantFeatures as ConstantFeatures, LinearFeatures as LinearFeatures, NoFeatures as NoFeatures
from .fourier import FourierFeatures as FourierFeatures, random_fourier as random_fourier
