"""The sections of the settings: frozen, validated on construction, with their help beside them.

Defaults are DREAM+'s published setting for CIFAR-10 at 10 images per class.
"""

from dream_ray.config.sections.evaluation import Evaluation
from dream_ray.config.sections.images import REAL_STRATEGIES, Data, Initialisation, Selection
from dream_ray.config.sections.matching import Matching, Pixels, Weights
from dream_ray.config.sections.networks import Network, PinnedModel, Source, Trajectory, Update

__all__ = [
    "REAL_STRATEGIES",
    "Data",
    "Evaluation",
    "Initialisation",
    "Matching",
    "Network",
    "PinnedModel",
    "Pixels",
    "Selection",
    "Source",
    "Trajectory",
    "Update",
    "Weights",
]
