"""Compressed streams, recognised by their first bytes, and their content as Python files."""

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import IO, Any, cast

import pyarrow as pa

from dream_ray.data.archives.member import BLOCK_BYTES

HEAD_BYTES = 512
"""Bytes at the begin of a file that tell its kind."""


def _zstd(file: IO[bytes]) -> Any:
    return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")


_STREAMS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": _zstd,
}
"""Readers by the first bytes. tarfile itself would read only the first of several concatenated streams."""


def is_compressed(head: bytes) -> bool:
    """Tells whether a file with these first bytes is a compressed stream."""
    return head.startswith(tuple(_STREAMS))


def decompressed(file: IO[bytes], head: bytes) -> AbstractContextManager[IO[bytes]]:
    """Opens the content of a compressed stream, whose defects become `tarfile.ReadError`.

    Args:
        file: The stream, at its begin.
        head: Its first bytes.
    """
    open_stream = next(reader for first, reader in _STREAMS.items() if head.startswith(first))
    return cast(IO[bytes], io.BufferedReader(_Decompressed(open_stream(file)), BLOCK_BYTES))


class _Decompressed(io.RawIOBase):
    # Errors of the storage are no OSError here (`storage.open_raw`), so every one is a defect of the stream.

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        try:
            data = self._stream.read(len(buffer))
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise tarfile.ReadError(str(error)) from None
        buffer[: len(data)] = data
        return len(data)
