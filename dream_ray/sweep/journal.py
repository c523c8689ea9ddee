"""The journal of a study, in a file or in a bucket: one process at a time writes, the one that runs the sweep.

Any number may read.
"""

import io
import json
import threading
from typing import Any

from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

from dream_ray import storage

# Some hundred entries: so much goes to the bucket with each one.
_PART_BYTES = 64_000
_WRITING = threading.Lock()  # the studies of this process


class FileJournal(JournalFileBackend):
    """A journal in a file, in which half an entry costs no other: its writer was killed, or the disk was full."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Adds entries, in the place of what is not whole at the end: they would join it."""
        with _WRITING:
            self._cut_off_half_an_entry()
            super().append_logs(logs)

    def _cut_off_half_an_entry(self) -> None:
        with open(self._file_path, "rb+") as file:
            end = file.seek(0, io.SEEK_END)
            file.seek(max(0, end - 1))
            if file.read() not in (b"", b"\n"):
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)


class BucketJournal(BaseJournalBackend):
    """A journal in a bucket, which cannot append to an object.

    Entries go to the newest of several parts, which is written anew with each of them until it is long enough.

    Args:
        directory: URI of its own directory.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        # Parts that are full do not change any more.
        self._num_full = 0
        self._full: list[str] = []

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """Returns the entries from a number on."""
        newest = self._newest()
        return [json.loads(line) for line in [*self._full, *newest.splitlines()][log_number_from:]]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Adds entries; they are all there afterwards, or none."""
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with _WRITING:
            storage.write_text(self._part(), self._newest() + text)

    def _part(self) -> str:
        return storage.join(self._directory, f"{self._num_full:06d}.jsonl")

    def _newest(self) -> str:
        """Returns what is in the part that is not full yet."""
        while True:
            try:
                text = storage.read_text(self._part())
            except storage.NotReadable:  # it is begun with its first entry
                return ""
            if len(text) < _PART_BYTES:
                return text
            self._full += text.splitlines()
            self._num_full += 1
