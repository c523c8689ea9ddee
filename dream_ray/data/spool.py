"""The spool of a listed shard: encoded images of a source without random access, one after the other."""

from typing import Any


def append(spool: Any, data: Any) -> dict[str, int]:
    """Appends an encoded image to a spool; returns its offset and length as fields of a listing."""
    offset = spool.tell()
    spool.write(data)
    return {"offset": offset, "length": len(data)}
