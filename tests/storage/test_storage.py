"""Tests of the storage module."""

import errno
import hashlib
import io
import os
import subprocess
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from dream_ray import storage
from dream_ray.errors import RunError, TransientError, UsageError
from dream_ray.storage import files
from dream_ray.storage.paths import resolve


@pytest.fixture(params=["local", "file_uri", "fsspec_uri"])
def root(request, tmp_path):
    if request.param == "local":
        return str(tmp_path / "root")
    if request.param == "file_uri":
        return f"file://{tmp_path}/root"
    uri = f"fsspec+memory:///{uuid.uuid4().hex}"
    try:
        pyarrow.fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, ImportError):
        pytest.skip("this pyarrow has no fsspec URIs")
    return uri


class TestEveryKindOfPath:
    def test_write_read_list_and_delete(self, root):
        path = storage.join(root, "a", "b.bin")
        storage.write_bytes(path, b"one")
        storage.write_bytes(path, b"two")
        storage.write_text(storage.join(root, "c.txt"), "grün")
        assert storage.read_bytes(path) == b"two"
        assert storage.read_text(storage.join(root, "c.txt")) == "grün"
        assert storage.list_directory(root) == ["a", "c.txt"]
        assert storage.list_files(root) == ["a/b.bin", "c.txt"]
        assert storage.is_directory(storage.join(root, "a")) and not storage.is_directory(path)
        assert storage.sha256(path) == hashlib.sha256(b"two").hexdigest()
        storage.delete(path)
        assert not storage.exists(path)
        storage.delete(root)
        storage.delete(root)
        assert not storage.exists(storage.join(root, "c.txt"))

    def test_random_access(self, root):
        path = storage.join(root, "x")
        storage.write_bytes(path, bytes(range(100)))
        with storage.open_input(path) as file:
            file.seek(50)
            assert file.read(2) == bytes([50, 51])

    def test_python_file_objects(self, root):
        path = storage.join(root, "x")
        storage.write_bytes(path, bytes(range(100)))
        with storage.open_raw(path) as file:
            assert file.seek(-2, os.SEEK_END) == 98 and file.read(5) == bytes([98, 99]) and file.read(5) == b""
            assert file.seek(1000) == 1000 and file.read(1) == b"" and file.seek(-999, os.SEEK_CUR) == 1
            assert io.BufferedReader(file, 16).read(50) == bytes(range(1, 51))

    def test_a_failing_block_leaves_the_old_file_and_no_other(self, root):
        path = storage.join(root, "x")
        storage.write_bytes(path, b"old")
        with pytest.raises(KeyError), storage.atomic_output(path) as file:
            file.write(b"new")
            raise KeyError
        assert storage.read_bytes(path) == b"old"
        filesystem, target = resolve(root)
        assert len(filesystem.get_file_info(pyarrow.fs.FileSelector(target))) == 1

    def test_missing_things(self, root):
        assert storage.list_directory(root) == storage.list_files(root) == []
        for read in (storage.read_bytes, storage.read_text, storage.open_input, storage.open_raw, storage.sha256):
            with pytest.raises(RunError, match=r"cannot read .*missing"):
                read(storage.join(root, "missing"))

    def test_ensure_writable_leaves_no_files(self, root):
        storage.ensure_writable(root)
        assert storage.is_directory(root) and storage.list_files(root) == []

    def test_arrow_writers_can_use_the_output(self, root):
        path = storage.join(root, "t.parquet")
        table = pa.table({"x": [1, 2]})
        with storage.atomic_output(path) as file, pq.ParquetWriter(file, table.schema) as writer:
            writer.write_table(table)
        assert pq.read_table(pa.BufferReader(storage.read_bytes(path))).equals(table)


def test_join():
    assert storage.join("/", "a") == "/a"
    assert storage.join("a/", "b", "c") == "a/b/c"
    assert storage.join("s3://bucket/", "k") == "s3://bucket/k"
    assert storage.join("", "a") == "a"


class _Elsewhere:
    """A path of another library, which keeps its URI."""

    def __fspath__(self):
        return "s3://bucket/key"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("runs/x", "runs/x"),
        ("s3:/bucket/key", "s3:/bucket/key"),
        (Path("runs/x"), "runs/x"),
        (Path("c:/runs"), "c:/runs"),
        (_Elsewhere(), "s3://bucket/key"),
    ],
)
def test_a_path_is_text_or_os_pathlike(given, text):
    assert storage.text_path("out", given) == text


@pytest.mark.parametrize("uri", ["s3://bucket/key", "file:///tmp/x"])
def test_a_pathlib_path_made_of_a_uri_is_refused(uri):
    with pytest.raises(UsageError, match="out must be a str if it is a URI.*drops a slash.*got PosixPath"):
        storage.text_path("out", Path(uri))


@pytest.mark.parametrize("value", [3, None, b"runs/x"])
def test_a_path_of_another_type_is_refused(value):
    with pytest.raises(UsageError, match="out must be a path"):
        storage.text_path("out", value)


def test_an_empty_path_is_not_the_working_directory():
    for function in (storage.absolute, storage.exists, storage.list_directory):
        with pytest.raises(UsageError, match="a path must not be empty"):
            function("")


def test_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("x/../y") == str(tmp_path / "y")
    assert storage.absolute("s3://bucket/k") == "s3://bucket/k"


@pytest.mark.parametrize(
    ("path", "directory", "within"),
    [
        ("/a/b", "/a", True),
        ("/a", "/a/", True),
        ("/ab", "/a", False),
        ("/a", "/a/b", False),
        ("/a", "/", True),
        ("file:///a/b", "/a", True),
        ("s3://bucket/a/s", "/a", False),
        ("s3://bucket/a/s", "s3://bucket/a", True),
        ("s3://bucket/ab", "s3://bucket/a", False),
        ("s3://bucket/a", "s3://bucket", True),
        ("s3://other/a", "s3://bucket", False),
    ],
)
def test_within(path, directory, within, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert storage.is_within(path, directory) is within


@pytest.mark.parametrize("name", ["a b", "50%", "a%20b", "#1", "what?", "?a=b", "grün", "a@b:c", "x+y&z"])
def test_names_in_a_file_uri_are_literal(tmp_path, name):
    directory = f"file://{tmp_path}/{name}"
    storage.write_text(storage.join(directory, name), name)
    assert (tmp_path / name / name).read_text() == storage.read_text(f"{directory}/{name}") == name
    assert storage.list_files(f"file://{tmp_path}") == [f"{name}/{name}"]


def test_a_question_mark_in_the_name_of_an_object(monkeypatch):
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert resolve("s3://bucket/a/what?.jpg")[1] == "bucket/a/what?.jpg"
    filesystem, target = resolve("s3://bucket/a?region=eu-west-1")
    assert target == "bucket/a" and filesystem.region == "eu-west-1"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "a path must not be empty"),
        ("foo://bar/x", "path foo://bar/x is of a kind that pyarrow cannot open"),
        ("file://server/x", "the URI of a local file must begin with file:///; got file://server/x"),
    ],
)
def test_unknown_kinds_of_path_are_refused(path, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        storage.exists(path)


def test_temporary_files_are_not_listed(tmp_path):
    (tmp_path / f".x.{uuid.uuid4().hex}.partial").write_bytes(b"half")
    (tmp_path / "whole").write_bytes(b"")
    assert storage.list_directory(str(tmp_path)) == storage.list_files(str(tmp_path)) == ["whole"]
    assert storage.sha256(str(tmp_path / "whole")) == hashlib.sha256().hexdigest()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / f".y.{uuid.uuid4().hex}.partial").write_bytes(b"half")
    with storage.claimed(str(tmp_path / "deep" / storage.CLAIM)):
        storage.delete_temporaries(str(tmp_path))
        assert [path.name for path in tmp_path.rglob(".*")] == [storage.CLAIM], "deleting the claim would release it"
        assert storage.list_files(str(tmp_path)) == ["whole"]


def test_a_temporary_file_may_vanish_before_its_deletion(tmp_path, monkeypatch):
    def is_there_no_more(name):
        (tmp_path / name).unlink()
        return True

    (tmp_path / ".probe.partial").touch()
    monkeypatch.setattr("dream_ray.storage.directories.is_temporary", is_there_no_more)
    storage.delete_temporaries(str(tmp_path))
    assert not os.listdir(tmp_path)


def test_a_file_name_must_be_utf8(tmp_path):
    (tmp_path / "d").mkdir()
    try:
        (tmp_path / "d" / os.fsdecode(b"caf\xe9.jpg")).touch()
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    for listing in (storage.list_files, storage.file_sizes, storage.delete_temporaries):
        with pytest.raises(RunError, match=r"cannot list .*: file names must be UTF-8; got b'.*/d/caf\\xe9\.jpg'"):
            listing(str(tmp_path))


def test_a_link_name_must_be_utf8(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.jpg")).symlink_to("nowhere")
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    with pytest.raises(RunError, match="file names must be UTF-8; got "):
        storage.list_leaves(str(tmp_path))


def test_links_to_nothing(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "file.tar").touch()
    for name in ("lost", "lost.tar", "d/deep"):
        (tmp_path / name).symlink_to("nowhere")
    assert storage.list_dangling(str(tmp_path)) == ["lost", "lost.tar"]
    assert storage.list_directory(str(tmp_path)) == ["d", "file.tar"]
    assert storage.list_directories(str(tmp_path)) == ["d"] and storage.list_files(str(tmp_path)) == ["file.tar"]
    assert storage.glob(str(tmp_path), ".tar") == storage.glob(f"{tmp_path}/*.tar")
    assert storage.glob(f"{tmp_path}/*.tar") == [f"{tmp_path}/file.tar", f"{tmp_path}/lost.tar"]


def test_text_must_be_utf8(tmp_path):
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match="not UTF-8"):
        storage.read_text(str(tmp_path / "x"))


def test_a_file_in_the_place_of_a_directory(tmp_path):
    (tmp_path / "file").write_text("x")
    below = str(tmp_path / "file" / "below")
    with pytest.raises(RunError, match="cannot write .*below"):
        storage.write_bytes(below, b"x")
    with pytest.raises(UsageError, match="is not writable: "):
        storage.ensure_writable(below)
    with pytest.raises(UsageError, match="is not writable: "):
        storage.ensure_writable(str(tmp_path / "file"))


def test_a_directory_in_the_place_of_a_file(tmp_path):
    (tmp_path / "directory").mkdir()
    with pytest.raises(RunError, match="cannot write .*directory: Is a directory"):
        storage.write_bytes(str(tmp_path / "directory"), b"x")
    with pytest.raises(RunError, match="cannot read"):
        storage.read_bytes(str(tmp_path / "directory"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["directory"]


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs a file system that nobody may write to")
def test_no_permission():
    with pytest.raises(UsageError, match="is not writable"):
        storage.ensure_writable("/proc/nowhere")
    with pytest.raises(RunError, match="cannot write /proc/nowhere/x"):
        storage.write_bytes("/proc/nowhere/x", b"x")


def test_a_disk_error_names_path_and_reason(tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, "x")

    path = str(tmp_path / "x")
    storage.write_bytes(path, b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=rf"cannot write {path}: No space left on device"):
        storage.write_bytes(path, b"new")
    assert os.listdir(tmp_path) == ["x"] and storage.read_bytes(path) == b"old"


@pytest.mark.parametrize(("path", "error"), [("s3://b/x", storage.RemoteError), ("x", TransientError)])
def test_a_failed_read_names_path_and_reason(tmp_path, monkeypatch, path, error):
    class Lost(io.BytesIO):
        def size(self):
            return 3

        def readinto(self, buffer):
            raise OSError("connection lost")

    monkeypatch.setattr("dream_ray.storage.reading.open_input", lambda path: Lost(b"abc"))
    with pytest.raises(error, match=f"cannot read {path}: connection lost"):
        storage.sha256(path)


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True)
    except OSError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip("mounting is refused")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk(small_disk):
    with pytest.raises(RunError, match="No space left on device"):
        storage.write_bytes(str(small_disk / "x"), bytes(1 << 20))
    table = pa.table({"x": [os.urandom(1 << 20)]})
    with (
        pytest.raises(RunError, match="No space left on device"),
        storage.atomic_output(str(small_disk / "t")) as file,
        pa.ipc.new_file(file, table.schema) as writer,
    ):
        writer.write_table(table)
    assert os.listdir(small_disk) == []


def test_a_path_and_its_uri_share_a_claim(tmp_path):
    path = f"{tmp_path}/below/work.claim"
    with storage.claimed(f"file://{path}") as first, storage.claimed(path) as second:
        assert (first, second) == (True, False)
    with storage.claimed(path) as ours:
        assert ours


def test_json_replaced_during_a_read_is_read_again(tmp_path, monkeypatch):
    path = tmp_path / "progress.json"
    storage.write_json(str(path), {"step": 100})
    arriving = [b'{"ste', path.read_bytes()]
    monkeypatch.setattr(files, "read_bytes", lambda path: arriving.pop(0))
    assert storage.read_json(str(path)) == {"step": 100} and not arriving


def test_truncated_json_is_damaged(tmp_path):
    path = tmp_path / "progress.json"
    path.write_text('{"ste')
    with pytest.raises(RunError, match=r"progress\.json is damaged: it is not JSON: Unterminated string"):
        storage.read_json(str(path))
