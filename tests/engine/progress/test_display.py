"""Progress on the screen of whoever calls a function of the API."""

import io
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import dream_ray
from dream_ray.api import models
from dream_ray.config import Config
from dream_ray.engine.progress import display
from tests.models import train


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        return True


def use_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Replaces stderr; pytest would replace it again after a fixture."""
    found = Terminal()
    monkeypatch.setattr(sys, "stderr", found)
    monkeypatch.setenv("TERM", "xterm-256color")
    return found


def test_a_function_of_the_api_shows_its_progress_on_a_terminal_only(
    tiny_config: Config, four_digits_store: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keywords: dict[str, Any] = {"store": four_digits_store, "local": True, "compile": "off", "producers": 0}
    monkeypatch.setattr(display, "POLL_S", 0.01)
    terminal = use_terminal(monkeypatch)
    dream_ray.distill(tiny_config, out=out, **keywords)
    assert "Distilling" in terminal.getvalue()
    monkeypatch.setattr(models, "POLL_S", 0.01)
    train(four_digits_store, f"{out}-model")
    assert "Training" in terminal.getvalue()
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    dream_ray.evaluate(out, local=True, repeats=1, baselines=())
    assert log.getvalue() == ""


def test_progress_can_be_turned_off_or_given_away(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = use_terminal(monkeypatch)
    calls: list[tuple[str, int, int]] = []
    with display.showing("Ingesting", progress=False) as show:
        show("files", 1, 2)
    with display.showing("Ingesting", progress=lambda *call: calls.append(call)) as show:
        show("files", 1, 2)
    assert calls == [("files", 1, 2)] and terminal.getvalue() == ""
    with display.showing("Ingesting", progress=True) as show:
        show("files", 1, 2)
    assert "Ingesting" in terminal.getvalue()


def test_a_notebook_shows_one_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    class ZMQInteractiveShell:
        """The shell of a notebook."""

    class Handle:
        def update(self, data: dict[str, str], raw: bool) -> None:
            lines.append(data["text/plain"])

    def show(data: dict[str, str], raw: bool, display_id: bool) -> Handle:
        lines.append(data["text/plain"])
        return Handle()

    module: Callable[[], Any] = ZMQInteractiveShell
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=module))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=show))  # type: ignore[arg-type]
    with display.shown("Distilling") as update:
        update("loss 3", 4, 8)
    assert lines == ["Distilling", "Distilling: 4/8 loss 3"]
