from .maximum import Fit as Fit, fit as fit
