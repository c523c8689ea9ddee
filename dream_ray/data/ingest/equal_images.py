"""Equal images of a store: within the training images, between the splits, and of different classes."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from dream_ray.data.arrays import UInt8Array

_DIGEST_BYTES = 8


def image_digest(image_CHW: UInt8Array) -> str:
    """Returns a digest of the pixels of an image."""
    return hashlib.sha256(image_CHW.tobytes()).digest()[:_DIGEST_BYTES].hex()


def count_equal_images(notes: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Counts images with equal pixels.

    Args:
        notes: Of all files: `split`, `label`, and `digests` of the images.

    Returns:
        train: Training images that equal an earlier one.
        validation: Validation images that equal a training image.
        test: Test images that equal a training or validation image.
        classes: Images that equal one of another class.
    """
    digests_N = np.frombuffer(bytes.fromhex("".join("".join(note["digests"]) for note in notes)), dtype=np.uint64)
    sizes = [len(note["digests"]) for note in notes]
    splits_N = np.repeat([note["split"] for note in notes], sizes)
    labels_N = np.repeat(np.array([note["label"] for note in notes], dtype=np.int64), sizes)
    distinct, image_N = np.unique(digests_N, return_inverse=True)
    train_M, validation_M, test_M = (
        np.bincount(image_N[splits_N == split], minlength=len(distinct)) for split in ("train", "validation", "test")
    )
    first_M = np.full(len(distinct), np.iinfo(np.int64).max)
    last_M = np.full(len(distinct), -1)
    np.minimum.at(first_M, image_N, labels_N)
    np.maximum.at(last_M, image_N, labels_N)
    return {
        "train": int(np.maximum(train_M - 1, 0).sum()),
        "validation": int(validation_M[train_M > 0].sum()),
        "test": int(test_M[train_M + validation_M > 0].sum()),
        "classes": int((first_M < last_M)[image_N].sum()),
    }
