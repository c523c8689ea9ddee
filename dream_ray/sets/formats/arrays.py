"""Exports as arrays, float32 and without loss: NumPy's npz without pickles, and safetensors for PyTorch."""

import io
import json
import zipfile

import numpy as np
import numpy.typing as npt

from dream_ray import storage
from dream_ray.data.arrays import Float32Array
from dream_ray.errors import RunError
from dream_ray.sets.formats.content import Content
from dream_ray.sets.set_file import Description

_NPZ, _SAFETENSORS = "images.npz", "images.safetensors"


def _arrays(content: Content) -> dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]]:
    """Returns images (L * N, C, H, W), labels, and mean and std of each channel."""
    found = content.images
    return {
        "images": np.ascontiguousarray(found.mosaics(layout="NCHW")),
        "labels": found.mosaic_labels,
        "mean": np.array(found.mean, dtype=np.float32),
        "std": np.array(found.std, dtype=np.float32),
    }


def write_npz(out: str, content: Content) -> None:
    """Writes images.npz with images, labels, class_names, mean and std."""
    with storage.atomic_output(storage.join(out, _NPZ)) as file:
        np.savez(file, allow_pickle=False, class_names=np.array(content.images.class_names), **_arrays(content))


def read_npz(path: str, description: Description) -> Float32Array:
    """Reads the images (L * N, C, H, W) of an export."""
    file = storage.join(path, _NPZ)
    try:
        with np.load(io.BytesIO(storage.read_bytes(file)), allow_pickle=False) as arrays:
            images: Float32Array = arrays["images"]
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"{file} is damaged: {error}") from None
    return images


def write_safetensors(out: str, content: Content) -> None:
    """Writes images.safetensors with images, labels, mean and std; its metadata has the class names as JSON."""
    from safetensors.numpy import save

    names = {"class_names": json.dumps(content.images.class_names)}
    storage.write_bytes(storage.join(out, _SAFETENSORS), save(_arrays(content), names))


def read_safetensors(path: str, description: Description) -> Float32Array:
    """Reads the images (L * N, C, H, W) of an export."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    file = storage.join(path, _SAFETENSORS)
    try:
        images: Float32Array = load(storage.read_bytes(file))["images"]
    except (SafetensorError, KeyError) as error:
        raise RunError(f"{file} is damaged: {error}") from None
    return images
