"""Text that people take for equal, or for a number, and programs do not."""

import io
import os
import tarfile
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dream_ray import storage
from dream_ray.config import parse_config
from dream_ray.config.yaml_text import parse_assignment, parse_yaml
from dream_ray.data.class_lists import read_classes
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.data.store.manifest import Manifest
from dream_ray.errors import UsageError
from dream_ray.storage import paths
from dream_ray.sweeps.file import Sweep

NFC = "caf\u00e9"
NFD = unicodedata.normalize("NFD", NFC)

IN_YAML: dict[str, tuple[str, Any]] = {
    "repeated key": ("ipc: 1\nfactor: 2\nipc: 3", "key 'ipc' occurs in line 1 and again in line 3"),
    "repeated key of a section": ("pixels:\n  lr: 1\n  lr: 2", "key 'lr' occurs in line 2 and again in line 3"),
    "repeated key in one line": ("pixels: {lr: 1, lr: 2}", "key 'lr' occurs in line 1 and again in line 1"),
    "repeated key in quotes": ("ipc: 1\n'ipc': 2", "key 'ipc' occurs in line 1"),
    "repeated number in another spelling": ("16: a\n0x10: b", "key '0x10' occurs in line 1 and again in line 2"),
    "repeated truth value": ("yes: a\ntrue: b", "key 'true' occurs in line 1 and again in line 2"),
    "repeated key in another Unicode form": (
        f"{NFC}: 1\n{NFD}: 2",
        f"key '{NFD}' occurs in line 1 and again in line 2",
    ),
    "merged key": ("a: &a {x: 1}\nb: {<<: *a, x: 2}", {"a": {"x": 1}, "b": {"x": 2}}),
    "number and text": ("1: a\n'1': b", {1: "a", "1": "b"}),
    "octal": ("factor: 1\nipc: 010", "line 2 has the number 010, which YAML reads as 8"),
    "negative octal": ("x: -012", "the number -012, which YAML reads as -10"),
    "base 60": ("x: 1:30", "the number 1:30, which YAML reads as 90"),
    "base 60 with a point": ("x: 1:30.5", "the number 1:30.5, which YAML reads as 90.5"),
    "date": ("x: 2020-01-02\n2020-01-02: y", {"x": "2020-01-02", "2020-01-02": "y"}),
    "alias": ("a: &a [1]\nb: *a", {"a": [1], "b": [1]}),
    "alias of itself": ("a: 1\nb: &b [*b]", "the part that begins in line 2 contains an alias of itself"),
    "kind that is not plain": ("x: !!set {a}", "line 1 has a value of the kind !!set"),
    "code": ("x: !!python/name:os.system", "line 1 has a value of the kind !!python/name:os.system"),
    "wrong kind": ("x: !!int yes", "has a value that is not of its kind: invalid literal"),
    "no number": ("x: !!int ''", "has a value that is not of its kind: string index"),
    "list as a key": ("? [a]\n: b", "found unhashable key .line 1, column 3."),
    "two documents": ("a: 1\n---\nb: 2", "must be YAML: .* but found another document .line 2, column 1."),
    "tab": ("a:\n\tb: 1", "must be YAML: .* found character .* .line 2, column 1."),
    "not closed": ("a: [1, 2", "must be YAML: .*expected ',' or ']'"),
    "no text": ("a: \0", "must be YAML: unacceptable character #x0000"),
    "deep": ("[" * 5000, "must be YAML; it is nested too deep"),
    "zero": ("x: 0", {"x": 0}),
    "quoted octal": ("x: '010'", {"x": "010"}),
    "hexadecimal": ("x: 0x10", {"x": 16}),
}


@pytest.mark.parametrize("name", IN_YAML)
def test_yaml_has_one_meaning(name: str) -> None:
    text, expected = IN_YAML[name]
    if isinstance(expected, dict):
        assert parse_yaml(text, "file") == expected
        return
    with pytest.raises(UsageError, match=f"^file.*{expected}") as error:
        parse_yaml(text, "file")
    assert "\n" not in str(error.value)


def test_blanks_around_the_key_of_an_assignment_are_no_part_of_it() -> None:
    assert parse_assignment("pixels.lr = 0.1", "--set", "key=value") == ("pixels.lr", 0.1)


NO_NUMBERS = {
    "yes": "ipc=yes",
    "true": "pixels.lr=true",
    "off for a number that may be null": "evaluation.lr=off",
    "no for a number": "outer_steps=no",
    "in a list": "evaluation.lr_milestones=[true]",
}


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1e999"])
@pytest.mark.parametrize("path", ["pixels.lr", "weights.feature", "evaluation.lr"])
def test_settings_are_finite(path: str, value: str) -> None:
    section, _, name = path.partition(".")
    with pytest.raises(UsageError, match=f"^{path} must follow the rule: input should be a finite number; got"):
        parse_config({section: {name: parse_yaml(value, "file")}})


@pytest.mark.parametrize("name", NO_NUMBERS)
def test_truth_values_are_no_numbers(name: str) -> None:
    path, value = parse_assignment(NO_NUMBERS[name], "--set", "key=value")
    settings: Any = value
    for part in reversed(path.split(".")):
        settings = {part: settings}
    with pytest.raises(UsageError, match=rf"^{path} must have numbers only; got .*truth values$"):
        parse_config(settings)


def test_truth_values_stay_where_they_belong() -> None:
    config = parse_config(parse_yaml("data: {include_validation: no}\nnetwork: {options: {bias: yes}}", "file"))
    assert not config.data.include_validation
    assert config.network.options == {"bias": True}
    with pytest.raises(ValueError, match="trials must have numbers only"):
        Sweep.model_validate({"preset": "smoke", "space": {}, "budget": {"trials": True}})


def picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), seed, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def folder(root: Path, names: Iterable[str]) -> str:
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for image in range(4):
            (root / name / f"{image}.png").write_bytes(picture(10 * number + image))
    return str(root)


def one_archive(root: Path, names: Iterable[str]) -> str:
    with tarfile.open(root.with_suffix(".tar"), "w") as archive:
        archive.add(folder(root, names), arcname="set")
    return str(root.with_suffix(".tar"))


def archive_per_class(root: Path, names: Iterable[str]) -> str:
    names = list(names)
    folder(root / "images", names)
    for name in names:
        with tarfile.open(root / f"{name}.tar", "w") as archive:
            for image in (root / "images" / name).iterdir():
                archive.add(image, arcname=image.name)
    return str(root / "*.tar")


def shards(root: Path, names: Iterable[str]) -> str:
    root.mkdir(parents=True)
    with tarfile.open(root / "0.tar", "w") as archive:
        for number, name in enumerate(names):
            for image in range(4):
                for suffix, content in ((".png", picture(10 * number + image)), (".cls", name.encode())):
                    info = tarfile.TarInfo(f"{number}-{image}{suffix}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    return str(root / "0.tar")


SOURCES: dict[str, Callable[[Path, Iterable[str]], str]] = {
    "folder": folder,
    "one archive": one_archive,
    "archive per class": archive_per_class,
    "WebDataset": shards,
}


def ingested(tmp_path: Path, source: str, **settings: Any) -> Manifest:
    ingest(IngestSettings(source=source, size=4, channels=1, validation=0, **settings), str(tmp_path / "store"))
    return Manifest.read(str(tmp_path / "store"))


@pytest.mark.parametrize("form", SOURCES)
def test_numbers_are_labels_in_the_order_of_numbers(form: str, tmp_path: Path) -> None:
    source = SOURCES[form](tmp_path / "set", ["10", "9", "100", "1"])
    assert ingested(tmp_path, source).class_names == ("1", "9", "10", "100")


@pytest.mark.parametrize("form", SOURCES)
def test_names_are_in_one_unicode_form(form: str, tmp_path: Path) -> None:
    """Training names are written in parts, as macOS does; those of the test images and of the list are composed."""
    train, test = SOURCES[form](tmp_path / "set", [NFD, "b"]), folder(tmp_path / "test", [NFC, "b"])
    manifest = ingested(tmp_path, train, test=test, classes=("b", NFC))
    assert manifest.class_names == ("b", NFC)
    assert manifest.counts["test"] == (4, 4)


@pytest.mark.parametrize("form", ["folder", "one archive", "archive per class"])
def test_two_names_of_one_text_are_refused(form: str, tmp_path: Path) -> None:
    source = SOURCES[form](tmp_path / "set", [NFD, NFC, "b"])
    with pytest.raises(UsageError, match=rf"must be unique; '{NFC}' occurs twice, in two Unicode forms"):
        ingested(tmp_path, source)


ALIKE = {
    "case": ("Cat", "cat"),
    "a blank at the end": ("cat", "cat "),
    "an invisible letter": ("cat", "\u200bcat"),
    "full-width letters": ("cat", "\uff43at"),
    "zeros": ("01", "1"),
}


@pytest.mark.parametrize("name", ALIKE)
def test_names_that_look_alike_are_told(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = folder(tmp_path / "set", [*ALIKE[name], "dog"])
    assert len(ingested(tmp_path, source).class_names) == 3
    first, second = map(repr, sorted(ALIKE[name]))
    assert f"The class names {first} and {second} of {source} are two classes, although they look alike." in caplog.text


def test_a_label_file_names_images_and_classes_in_any_form(tmp_path: Path) -> None:
    source, test = folder(tmp_path / "set", [NFD, "b"]), tmp_path / "test"
    test.mkdir()
    (test / f"{NFD}.png").write_bytes(picture(1))
    (tmp_path / "labels.txt").write_text(f"{NFC}.png,{NFC}\n")
    manifest = ingested(tmp_path, source, test=str(test), test_labels=str(tmp_path / "labels.txt"))
    assert manifest.counts["test"] == (0, 1)


def test_a_chosen_class_twice_in_two_forms_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="classes must be unique"):
        ingested(tmp_path, folder(tmp_path / "set", [NFD, "b"]), classes=(NFC, NFD, "b"))


def test_the_home_directory_is_found_where_shells_leave_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "classes.txt").write_text("a\nb\n")
    assert read_classes("~/classes.txt") == ("a", "b")
    assert storage.absolute("~/run") == f"{tmp_path}/run"
    assert storage.absolute("./~/run") == f"{os.getcwd()}/~/run"


IN_BUCKETS = {
    "a question mark": ("s3://bucket/a?x=1/b", "bucket/a?x=1/b"),
    "an unknown option": ("s3://bucket/a?regoin=1", "bucket/a?regoin=1"),
    "a percent sign": ("s3://bucket/a%20b?v=2", "bucket/a%20b?v=2"),
    "an option": ("s3://bucket/a?region=eu-west-1", "bucket/a"),
    "names below an option": ("s3://bucket/a?region=eu-west-1&scheme=http/run/x.json", "bucket/a/run/x.json"),
}


@pytest.mark.parametrize("name", IN_BUCKETS)
def test_question_marks_belong_to_names_unless_pyarrow_has_the_option(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FakeFileSystem:
        @staticmethod
        def from_uri(uri: str) -> tuple[None, str]:
            return None, uri.removeprefix("s3://").partition("?")[0]

    monkeypatch.setattr(paths, "FileSystem", FakeFileSystem)
    paths._bucket.cache_clear()
    uri, target = IN_BUCKETS[name]
    assert paths.resolve(uri)[1] == target
    paths._bucket.cache_clear()
