"""All access to artefacts (layer 1): open, list, write atomically, delete.

A path is a text: a local path, with or without `file://`, or a URI that `pyarrow.fs.FileSystem.from_uri` accepts
(`s3://`, `gs://`, `hdfs://`, ...). A failure raises `RunError` with the path and the reason; a path of an unknown kind
raises `UsageError`. A written file is either complete or absent.
"""

from dream_ray.storage.cache import is_cached, make_room, mark_used, open_cached
from dream_ray.storage.claims import CLAIM, claimed, exclusive_lock, is_in_use
from dream_ray.storage.directories import (
    delete_temporaries,
    file_sizes,
    glob,
    list_dangling,
    list_directories,
    list_directory,
    list_files,
    list_leaves,
    writable_directory,
)
from dream_ray.storage.files import (
    atomic_output,
    check_temporary_space,
    delete,
    ensure_writable,
    exists,
    is_directory,
    open_input,
    read_bytes,
    read_json,
    read_text,
    start_write_back,
    write_bytes,
    write_json,
    write_text,
)
from dream_ray.storage.mapped_arrays import in_one_array
from dream_ray.storage.paths import (
    NotReadable,
    RemoteError,
    StrPath,
    absolute,
    is_remote,
    is_within,
    join,
    shared_path,
    sibling,
    text_path,
)
from dream_ray.storage.reading import open_arrow, open_raw, sha256

__all__ = [
    "CLAIM",
    "NotReadable",
    "RemoteError",
    "StrPath",
    "absolute",
    "atomic_output",
    "claimed",
    "delete",
    "delete_temporaries",
    "check_temporary_space",
    "ensure_writable",
    "exclusive_lock",
    "exists",
    "file_sizes",
    "glob",
    "in_one_array",
    "is_cached",
    "is_directory",
    "is_in_use",
    "is_remote",
    "is_within",
    "join",
    "list_dangling",
    "list_directories",
    "list_directory",
    "list_files",
    "list_leaves",
    "make_room",
    "mark_used",
    "open_arrow",
    "open_cached",
    "open_input",
    "open_raw",
    "read_bytes",
    "read_json",
    "read_text",
    "sha256",
    "shared_path",
    "sibling",
    "start_write_back",
    "text_path",
    "writable_directory",
    "write_bytes",
    "write_json",
    "write_text",
]
