"""Named tensors in one safetensors file with a digest of their bytes; its metadata is read without PyTorch."""

import hashlib
import json
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dream_ray import storage
from dream_ray.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor

_DIGEST = "sha256"
# A file begins with the length of its header, which the format limits.
_LENGTH_BYTES, _MAX_HEADER_BYTES = 8, 100_000_000


def write_tensors(path: str, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str]) -> None:
    """Writes tensors atomically, as CPU tensors, with text metadata and a digest of their bytes."""
    from safetensors.torch import save

    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    storage.write_bytes(path, save(on_cpu, metadata={**metadata, _DIGEST: _digest(on_cpu)}))


def read_tensors(path: str) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Reads (tensors, metadata).

    Raises:
        RunError: If the file is missing, truncated, changed or no tensor file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = storage.read_bytes(path)
    metadata = _parse_header(path, data)
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise RunError(f"{path} is damaged: {error}") from None
    if _digest(tensors) != metadata.get(_DIGEST):
        raise RunError(f"{path} is damaged: its tensors do not match the digest in its header")
    return tensors, metadata


def read_metadata(path: str) -> dict[str, str]:
    """Reads the metadata only; raises RunError as `read_tensors` does, but does not detect damaged tensors."""
    try:
        head = storage.read_bytes(path, 0, _LENGTH_BYTES)
        length = min(struct.unpack("<Q", head)[0], _MAX_HEADER_BYTES)
        return _parse_header(path, head + storage.read_bytes(path, _LENGTH_BYTES, length))
    except storage.NotReadable as error:
        raise RunError(f"{path} is damaged or missing: {error}") from None


def _parse_header(path: str, data: bytes) -> dict[str, str]:
    try:
        length = struct.unpack("<Q", data[:_LENGTH_BYTES])[0]
        metadata = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])["__metadata__"]
    except (struct.error, ValueError, KeyError, TypeError):
        raise RunError(f"{path} is damaged: it has no readable header") from None
    return {str(key): str(value) for key, value in metadata.items()}


def _digest(tensors: "Mapping[str, Tensor]") -> str:
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
