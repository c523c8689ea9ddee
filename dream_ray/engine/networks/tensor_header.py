"""The metadata of a tensor file, read without its tensors and without PyTorch."""

import json
import struct

from dream_ray import storage
from dream_ray.errors import RunError

# A file begins with the length of its header, which the format limits.
_LENGTH_BYTES, _MAX_HEADER_BYTES = 8, 100_000_000


def read_metadata(path: str) -> dict[str, str]:
    """Reads the metadata only; raises RunError as `tensor_file.read_tensors` does, but does not see damaged tensors."""
    try:
        head = storage.read_bytes(path, 0, _LENGTH_BYTES)
        length = min(struct.unpack("<Q", head)[0], _MAX_HEADER_BYTES)
        return parse_header(path, head + storage.read_bytes(path, _LENGTH_BYTES, length))
    except storage.NotReadable as error:
        raise RunError(f"{path} is damaged or missing: {error}") from None


def parse_header(path: str, data: bytes) -> dict[str, str]:
    """Returns the metadata of a file that begins with `data`; raises RunError where its header is damaged."""
    try:
        length = struct.unpack("<Q", data[:8])[0]
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    except (struct.error, ValueError, KeyError, TypeError):
        raise RunError(f"{path} is damaged: it has no readable header") from None
    return {str(key): str(value) for key, value in metadata.items()}
