"""Lines of the log on stderr."""

import logging
import sys


class Lines(logging.Handler):
    """Prints each line once, above the bar of a command if there is one.

    Two stages of a command may check the same settings. While there is a bar, rich puts an object in
    place of `sys.stderr` that prints above it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a record, unless an equal line was printed."""
        line = self.format(record)
        if line not in self._printed:
            self._printed.add(line)
            print(line, file=sys.stderr, flush=True)
