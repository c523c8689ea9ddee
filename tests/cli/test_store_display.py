"""What `ingest` and `inspect` print of a store."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dream_ray.cli.store_display import show_store
from dream_ray.data.store.manifest import Manifest
from dream_ray.data.store.rejects import write_rejects


@pytest.fixture
def shown(digits_store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Returns what is printed of a store with these classes, in a directory that holds only its rejects."""

    def show(counts: dict[str, tuple[int, ...]], names: tuple[str, ...]) -> str:
        show_store(str(tmp_path), replace(Manifest.read(digits_store), counts=counts, class_names=names))
        return capsys.readouterr().out

    return show


def rows(text: str) -> list[list[str]]:
    """Returns the cells of the table of classes below its heading."""
    lines = [line.split() for line in text.splitlines()]
    return lines[next(number for number, cells in enumerate(lines) if cells[:1] == ["class"]) :]


def test_every_class_is_shown_with_its_images(shown: Callable[..., str]) -> None:
    text = shown({"train": (30, 4), "validation": (3, 0), "test": (0, 0)}, ("[red]", "猫\x1b[31m"))
    assert "train: 34 (4 to 30 per class)" in text
    assert "validation: 3 (0 to 3 per class; 1 of 2 classes have none)" in text
    assert "test: 0 (none)" in text
    [heading, _, first, second, *_] = rows(text)
    assert heading == ["class", "train", "validation"]
    assert (first, second) == (["[red]", "30", "3"], [r"猫\x1b[31m", "4", "0"])


def test_of_many_classes_the_biggest_and_the_smallest_are_shown(shown: Callable[..., str]) -> None:
    names = tuple(f"class {number}" for number in range(1000))
    text = shown({"train": tuple(range(1000)), "validation": (1,) * 1000, "test": (1,) * 1000}, names)
    assert "the 5 biggest and smallest of 1000 classes" in text
    labels = [int(cells[1]) for cells in rows(text) if cells[:1] == ["class"] and cells[1:2] != ["train"]]
    assert labels == [999, 998, 997, 996, 995, 4, 3, 2, 1, 0]
    assert len(text.splitlines()) < 40


def test_a_long_name_is_not_cut(shown: Callable[..., str]) -> None:
    """It goes on in the next lines, and the table fits into 80 columns."""
    name = "".join(chr(ord("a") + number % 26) for number in range(200))
    text = shown({"train": (30, 4), "validation": (3, 1), "test": (9, 9)}, (name, "b"))
    lines = rows(text)[2:7]
    assert "".join(cells[0] for cells in lines) == name and lines[0][1:] == ["30", "3", "9"]
    assert all(len(" ".join(cells)) <= 80 for cells in lines)


def test_rejects_are_summed_with_an_example(shown: Callable[..., str], tmp_path: Path) -> None:
    rejects = [
        {
            "path": f"photos/{number}.jpg",
            "split": "train",
            "label": 0,
            "reason": f"cannot read photos/{number}.jpg: gone",
        }
        for number in range(3)
    ]
    other = [
        {"path": f"x/{number}", "split": "test", "label": None, "reason": f"reason {number}"} for number in range(6)
    ]
    write_rejects(str(tmp_path), rejects + other)
    lines = shown({"train": (1, 1), "validation": (0, 0), "test": (0, 0)}, ("a", "b")).splitlines()
    assert "  3 x cannot read it: gone: photos/0.jpg, for example" in lines
    assert "  1 x reason 0: x/0" in lines and "  1 x reason 3: x/3" in lines
    assert "  and 2 other reasons" in lines and f"  all of them: {tmp_path}/rejects.parquet" in lines
