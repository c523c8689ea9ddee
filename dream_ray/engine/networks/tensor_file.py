"""Named tensors in one safetensors file with a digest of their bytes; its metadata is read without PyTorch.

Some tensors also have a digest of their own, so that they can be read and checked without the rest of the file.
"""

import hashlib
import json
import math
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dream_ray import storage
from dream_ray.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor

_DIGEST, _OWN_DIGESTS = "sha256", "own_sha256"
# A file begins with the length of its header, which the format limits.
_TYPES, _SIZES = {"F32": "float32", "I64": "int64"}, {"float32": 4, "int64": 8}
"""Types of tensors that can be read alone by their name in the file, and their bytes."""
_LENGTH_BYTES, _MAX_HEADER_BYTES = 8, 100_000_000


@dataclass(frozen=True)
class TensorFile:
    """The header of a file.

    Attributes:
        path: The file.
        metadata: Text metadata.
        tensors: Type, shape and position of every tensor, by name.
        start: Position of the first tensor in the file, in bytes.
        own_digests: Digests of single tensors, by name.
    """

    path: str
    metadata: dict[str, str]
    tensors: dict[str, Any]
    start: int
    own_digests: dict[str, str]

    def read(self, name: str) -> "Tensor":
        """Reads one tensor, float32 or int64, without the rest of the file, and checks its own digest if it has one.

        Raises:
            RunError: If the file is missing or changed.
        """
        import torch

        try:
            begin, end = self.tensors[name]["data_offsets"]
            shape, dtype = tuple(self.tensors[name]["shape"]), _TYPES[self.tensors[name]["dtype"]]
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self.path} is damaged: its header does not locate {name}: {error!r}") from None
        data = bytearray(storage.read_bytes(self.path, self.start + begin, end - begin))
        if len(data) != _SIZES[dtype] * math.prod(shape):
            raise RunError(f"{self.path} is damaged: its tensor {name} has {len(data)} bytes for the shape {shape}")
        if self.own_digests.get(name) not in (None, hashlib.sha256(data).hexdigest()):
            raise RunError(f"{self.path} is damaged: its tensor {name} does not match its digest")
        if not data:
            return torch.empty(shape, dtype=getattr(torch, dtype))
        return torch.frombuffer(data, dtype=getattr(torch, dtype)).reshape(shape)


def open_tensors(path: str) -> TensorFile:
    """Opens a file to read single tensors; raises RunError as `read_tensors` does.

    A file without digests of single tensors, as earlier versions wrote it, is read and checked as a whole.
    """
    file = read_header(path)
    if not file.own_digests:
        read_tensors(path)
    return file


def write_tensors(
    path: str, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str], *, single: Collection[str] = ()
) -> None:
    """Writes tensors atomically, as CPU tensors, with text metadata and a digest of their bytes.

    Args:
        path: The file.
        tensors: Tensors by name.
        metadata: Text metadata.
        single: Names of tensors that get a digest of their own too.
    """
    from safetensors.torch import save

    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    described = {**metadata, _DIGEST: _digest(on_cpu)}
    if single:
        described[_OWN_DIGESTS] = json.dumps(
            {name: hashlib.sha256(_bytes(on_cpu[name])).hexdigest() for name in single}
        )
    storage.write_bytes(path, save(on_cpu, metadata=described))


def read_tensors(path: str) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Reads (tensors, metadata).

    Raises:
        RunError: If the file is missing, truncated, changed or no tensor file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = storage.read_bytes(path)
    metadata = _parse_header(path, data).metadata
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise RunError(f"{path} is damaged: {error}") from None
    if _digest(tensors) != metadata.get(_DIGEST):
        raise RunError(f"{path} is damaged: its tensors do not match the digest in its header")
    return tensors, metadata


def read_metadata(path: str) -> dict[str, str]:
    """Reads the metadata only; raises RunError as `read_tensors` does, but does not detect damaged tensors."""
    return read_header(path).metadata


def read_header(path: str) -> TensorFile:
    """Reads the header only; raises RunError as `read_metadata` does."""
    try:
        head = storage.read_bytes(path, 0, _LENGTH_BYTES)
        length = min(struct.unpack("<Q", head)[0], _MAX_HEADER_BYTES)
        return _parse_header(path, head + storage.read_bytes(path, _LENGTH_BYTES, length))
    except storage.NotReadable as error:
        raise RunError(f"{path} is damaged or missing: {error}") from None


def _parse_header(path: str, data: bytes) -> TensorFile:
    try:
        end = _LENGTH_BYTES + struct.unpack("<Q", data[:_LENGTH_BYTES])[0]
        tensors = json.loads(data[_LENGTH_BYTES:end])
        metadata = {str(key): str(value) for key, value in tensors.pop("__metadata__").items()}
        return TensorFile(path, metadata, tensors, end, json.loads(metadata.get(_OWN_DIGESTS, "{}")))
    except (struct.error, ValueError, KeyError, TypeError, AttributeError):
        raise RunError(f"{path} is damaged: it has no readable header") from None


def _digest(tensors: "Mapping[str, Tensor]") -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(_bytes(tensors[name]))
    return digest.hexdigest()


def _bytes(tensor: "Tensor") -> Any:
    """Returns the bytes of a contiguous CPU tensor, without a copy."""
    import torch

    return tensor.flatten().view(torch.uint8).numpy()
