"""Synthetic sets without PyTorch and Ray (layer 2): the file format, reading as arrays, and export to other formats.

    from dream_ray import sets

    synthetic = sets.read("runs/cifar10")
    images, labels = synthetic.images("uint8", layout="NHWC"), synthetic.labels

Reading needs NumPy and PyArrow, and Pillow for exports as pictures.
"""

from dream_ray.sets.image_set import ImageSet
from dream_ray.sets.reading import read

__all__ = ["ImageSet", "read"]
