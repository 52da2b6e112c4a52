from .base import AbstractKernel as AbstractKernel, Spectrum as Spectrum
from .compose import Product as Product, Sum as Sum
from .dot_product import Constant as Constant, Linear as Linear
from .periodic import Periodic as Periodic
from .stationary import Matern as Matern, RationalQuadratic as RationalQuadratic, RBF as RBF
from .transform import ActiveDims as ActiveDims
