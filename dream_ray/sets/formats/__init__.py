"""The formats of an export, one file per family."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dream_ray.data.arrays import Float32Array, UInt8Array
from dream_ray.sets.formats import arrays, huggingface, imagefolder, webdataset
from dream_ray.sets.formats.content import Content
from dream_ray.sets.set_file import Description


@dataclass(frozen=True)
class Format:
    """A format of an export.

    Attributes:
        write: Writes the content of an export into its directory.
        read: Reads the images of a directory, in the order in which they were written: pictures as uint8 (C, H, W),
            or all images as float32 (L * N, C, H, W).
        is_exact: Whether it keeps float32; otherwise it stores pictures of 8 bits.
        load: Python code that loads an export, with `{path}` for its directory.
    """

    write: Callable[[str, Content], None]
    read: Callable[[str, Description], "Sequence[UInt8Array] | Float32Array"]
    is_exact: bool
    load: str


FORMATS = {
    "imagefolder": Format(
        imagefolder.write,
        imagefolder.read,
        is_exact=False,
        load='from torchvision.datasets import ImageFolder\n\ndata = ImageFolder("{path}")',
    ),
    "huggingface": Format(
        huggingface.write,
        huggingface.read,
        is_exact=False,
        load='from datasets import load_dataset\n\ndata = load_dataset("{path}", split="train")',
    ),
    "webdataset": Format(
        webdataset.write,
        webdataset.read,
        is_exact=False,
        load="import webdataset\n\n"
        'data = webdataset.WebDataset("{path}/train-000000.tar", shardshuffle=False)\n'
        'data = data.decode("pil").to_tuple("{picture}", "cls")',
    ),
    "npz": Format(
        arrays.write_npz,
        arrays.read_npz,
        is_exact=True,
        load='import numpy\n\ndata = numpy.load("{path}/images.npz")  # images (N, C, H, W) in [0, 1], labels',
    ),
    "torch": Format(
        arrays.write_safetensors,
        arrays.read_safetensors,
        is_exact=True,
        load="from safetensors.torch import load_file\n\n"
        'data = load_file("{path}/images.safetensors")  # images (N, C, H, W) in [0, 1], labels',
    ),
}
