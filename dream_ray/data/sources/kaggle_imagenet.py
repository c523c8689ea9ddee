"""ImageNet as Kaggle's competition has it: `ILSVRC/Data/CLS-LOC/{train,val,test}` beside `LOC_val_solution.csv`.

The root of the unpacked download is the source. `train` is an image folder. `val` holds the test images of the store;
their labels are in the CSV file. `test` has no labels and is not read.
"""

import logging
from dataclasses import replace

from dream_ray import storage
from dream_ray.data.sources.base import OpenedSource, SourceKind, SourceOptions
from dream_ray.data.sources.flat_images import images_with_labels
from dream_ray.data.sources.image_folder import open_image_folder

_IMAGES = "ILSVRC/Data/CLS-LOC"
_LABELS = "LOC_val_solution.csv"
_LOG = logging.getLogger(__name__)


def open_kaggle_imagenet(source: str, options: SourceOptions) -> OpenedSource:
    """Opens the tree; without the file of labels it has no test images, which a warning says."""
    train = open_image_folder(storage.join(source, _IMAGES, "train"), replace(options, layout="folders")).train
    labels = storage.join(source, _LABELS)
    if not storage.exists(labels):
        _LOG.warning("%s does not exist, so the images of val are not test images of the store", labels)
        return OpenedSource(train)
    val = storage.join(source, _IMAGES, "val")
    return OpenedSource(train, lambda: images_with_labels(val, labels, train.class_names or ()))


KAGGLE_IMAGENET = SourceKind(
    f"the directory of Kaggle's ImageNet (with {_IMAGES} and {_LABELS})",
    lambda source: storage.is_directory(source) and storage.is_directory(storage.join(source, _IMAGES, "train")),
    open_kaggle_imagenet,
)
