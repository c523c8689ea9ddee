"""Named tensors in one safetensors file that can tell whether it is whole: no pickle, a digest of the content."""

import hashlib
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dream_ray import storage
from dream_ray.engine.networks.tensor_header import parse_header
from dream_ray.errors import RunError

_DIGEST = "sha256"


def write_tensors(path: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes the tensors atomically, on the CPU, with text metadata and a digest of their bytes."""
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    storage.write_bytes(path, save(on_cpu, metadata={**metadata, _DIGEST: _digest(on_cpu)}))


def read_tensors(path: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads (tensors, metadata) back.

    Raises:
        RunError: If the file is missing, cut short, changed, or no such file at all.
    """
    data = storage.read_bytes(path)
    metadata = parse_header(path, data)
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise RunError(f"{path} is damaged: {error}") from None
    if _digest(tensors) != metadata.get(_DIGEST):
        raise RunError(f"{path} is damaged: its tensors do not have the digest that was written with them")
    return tensors, metadata


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
