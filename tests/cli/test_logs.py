"""Lines of the log while a command runs."""

import io
import logging
import sys

import pytest

from dream_ray.cli.logs import Lines


def test_a_line_is_printed_once_to_the_stderr_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Lines()
    streams = [io.StringIO(), io.StringIO()]
    for stream, messages in zip(streams, (["a", "b"], ["b", "c"]), strict=True):
        monkeypatch.setattr(sys, "stderr", stream)  # as a bar of rich does
        for message in messages:
            lines.handle(logging.makeLogRecord({"msg": message}))
    assert [stream.getvalue() for stream in streams] == ["a\nb\n", "c\n"]
