"""Inputs that nobody thought of: right, or one line and exit code 1 or 2.

The examples are always the same, and take seconds.
"""

import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dream_ray.config import parse_config
from dream_ray.config.yaml_text import dump_yaml, parse_yaml
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.errors import RunError, UsageError
from tests.data.samples import png, write_tar

few = settings(max_examples=15, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
many = settings(few, max_examples=60)


def is_right_or_one_line(tmp_path: Path, given_settings: dict[str, object]) -> None:
    """Ingests a source; checks the counts of the store, or that the error is one line."""
    store = Path(str(tmp_path / "stores"), str(len(list(tmp_path.glob("stores/*")))))
    try:
        manifest = ingest(IngestSettings(size=4, validation=0, **given_settings), str(store), max_rejects=1)
    except (UsageError, RunError) as error:  # exit codes 2 and 1
        store.mkdir(parents=True, exist_ok=True)
        assert "\n" not in str(error) and str(error)
        return
    assert len(manifest.class_names) >= 2 and sum(map(sum, manifest.counts.values())) >= 2


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fuzz")
    for number, label in enumerate(("cat", "dog")):
        (root / "train" / label).mkdir(parents=True)
        for key in range(2):
            (root / "train" / label / f"{key}.png").write_bytes(png(10 * number + key))
    (root / "test").mkdir()
    for key in range(3):
        (root / "test" / f"{key}.png").write_bytes(png(100 + key))
    return root


words = st.sampled_from(
    ["0.png", "1.png", "2", "cat", "dog", "cow", "1", "-1", "9" * 5000, '"', "\0", "\ufeff", "é", "/"]
)
separators = st.sampled_from([",", "\t", " ", ";", "\n", "\r", "\u2028", ""])
lines = st.lists(st.tuples(words, separators), max_size=12).map(lambda pairs: "".join(map("".join, pairs)))
contents = st.one_of(lines.map(str.encode), st.binary(max_size=40))


@few
@given(contents)
def test_label_files(folders: Path, content: bytes) -> None:
    (folders / "labels.txt").write_bytes(content)
    test = {"test": str(folders / "test"), "test_labels": str(folders / "labels.txt")}
    is_right_or_one_line(folders, {"source": str(folders / "train"), **test})


parts = st.sampled_from(
    ["a", "b", "", ".", "..", "train", "é", "e\u0301", "a\nb", "x" * 120, ".hidden", "00", "\udc80", " "]
)
ends = st.sampled_from([".png", ".cls", ".json", ".txt", "", ".PNG", ".tar", "/"])
names = st.tuples(st.lists(parts, min_size=1, max_size=3).map("/".join), ends).map("".join)


@few
@given(st.lists(st.tuples(names, st.integers(0, 4)), max_size=8))
def test_member_names_of_archives(folders: Path, members: list[tuple[str, int]]) -> None:
    texts = [b"1", b"{}", b""]
    files = [(name, png(key) if key < 2 else texts[key - 2]) for name, key in members]
    try:
        write_tar(folders / "a.tar", files)
    except (ValueError, UnicodeError, tarfile.TarError):
        return  # no archive has such a name
    is_right_or_one_line(folders, {"source": str(folders / "a.tar")})


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner))
pieces = st.sampled_from(
    ["ipc", "pixels", "lr", ": ", "\n", "  ", "- ", "[", "]", "{", "}", "&a ", "*a", "!!int ", "010", "~"]
)
sources = st.lists(pieces | st.text(max_size=3), max_size=12).map("".join)


@many
@given(st.dictionaries(st.text(max_size=6), values, max_size=4))
def test_written_settings_are_read_back(written: dict[str, object]) -> None:
    try:
        assert parse_yaml(dump_yaml(written), "file") == written
    except UsageError as error:  # keys that are equal to people
        assert "occurs in line" in str(error) and "\n" not in str(error)


@many
@given(sources)
def test_texts_that_may_be_settings(text: str) -> None:
    try:
        found = parse_yaml(text, "file")
        if isinstance(found, dict):
            parse_config(found)
    except UsageError as error:
        assert str(error) and all(line.strip() for line in str(error).split("\n"))
