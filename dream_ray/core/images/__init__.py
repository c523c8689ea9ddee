"""Images as tensors: augmentation, normalisation, mosaics, pixel spaces."""
