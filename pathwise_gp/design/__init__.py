"""Where to measure next: what observations at some inputs would tell, in nats, from draws of functions.

`paths` is a batch of paths, an ensemble, or any function that maps `*n d` to `*s *n`. Criteria are differentiable in inputs.
"""

from .batches import Batch as Batch, greedy_batch as greedy_batch
from .draws import path_variance as path_variance, PathCovariance as PathCovariance
from .entropy_search import joint_entropy_search as joint_entropy_search, max_value_entropy as max_value_entropy
from .information import (
    bald as bald,
    Estimate as Estimate,
    gaussian_bald as gaussian_bald,
    information_gain as information_gain,
    joint_entropy as joint_entropy,
    nested_information_gain as nested_information_gain,
)
