"""Networks: each is a `Classifier` of a feature trunk and a linear head (layer 1)."""

from dream_ray.nets.classifier import Classifier
from dream_ray.nets.registry import NETWORKS, build_network

__all__ = ["NETWORKS", "Classifier", "build_network"]
