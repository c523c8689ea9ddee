"""The journal of a study, in a file or in a bucket.

One process writes, the one that runs the sweep; any number of processes read.
"""

import io
import json
import threading
from typing import Any

from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

from dream_ray import storage

# Each entry rewrites its part, of at most some hundred entries.
_PART_BYTES = 64_000
_WRITING = threading.Lock()  # one lock for all studies of this process


class FileJournal(JournalFileBackend):
    """A journal in a file that survives an incomplete entry after a kill or on a full disk."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Adds entries; an incomplete entry at the end is removed first."""
        with _WRITING:
            self._remove_incomplete_entry()
            super().append_logs(logs)

    def _remove_incomplete_entry(self) -> None:
        with open(self._file_path, "rb+") as file:
            end = file.seek(0, io.SEEK_END)
            file.seek(max(0, end - 1))
            if file.read() not in (b"", b"\n"):
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)


class BucketJournal(BaseJournalBackend):
    """A journal in a bucket, whose objects cannot grow.

    Entries go to the newest part. Each entry rewrites that part until it is full.

    Args:
        directory: URI of the journal's directory.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        # Full parts never change.
        self._num_full = 0
        self._full: list[str] = []

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """Returns the entries from a number onwards."""
        newest = self._newest()
        return [json.loads(line) for line in [*self._full, *newest.splitlines()][log_number_from:]]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Adds all entries or none."""
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with _WRITING:
            storage.write_text(self._part(), self._newest() + text)

    def _part(self) -> str:
        return storage.join(self._directory, f"{self._num_full:06d}.jsonl")

    def _newest(self) -> str:
        """Returns the text of the part that is not full."""
        while True:
            try:
                text = storage.read_text(self._part())
            except storage.NotReadable:  # the first entry creates it
                return ""
            if len(text) < _PART_BYTES:
                return text
            self._full += text.splitlines()
            self._num_full += 1
