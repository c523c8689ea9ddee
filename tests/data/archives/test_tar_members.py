"""Tests of what an archive may hold beside plain files with plain names, whatever the form of the images in it."""

import gc
import gzip
import io
import tarfile
import tracemalloc

import pyarrow as pa
import pytest

from dream_ray import storage
from dream_ray.data.archives import Archive, compression, member, tar_members
from dream_ray.data.ingest import writing
from dream_ray.data.sources import SourceOptions, base, find_source, images_with_labels
from dream_ray.data.sources.archive import archive_per_class
from dream_ray.data.sources.webdataset import kinds_of, web_dataset
from dream_ray.errors import UsageError
from tests.data.samples import FOLDER_TAR, SAMPLES, png, write_tar

FORMS = [("f.tar", "w"), ("f.tar.gz", "w:gz")]


def listed(path, tmp_path):
    """All rows of an archive, as dicts."""
    source = find_source(str(path)).open(str(path), SourceOptions()).train
    tables = [source.list_shard(n, str(tmp_path / f"spool-{n}")) for n in range(len(source.shards))]
    return pa.concat_tables(tables).to_pylist()


def content(row):
    assert row["problem"] is None
    return storage.read_bytes(row["path"], row["offset"], row["length"])


def special(name, kind, target=""):
    """A member that is no regular file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def peak_bytes(work):
    """Return the peak of the memory that a function allocates, and its result."""
    # A full collection empties the free lists of tuples and other small objects, whose reuse is not traced.
    gc.collect()
    tracemalloc.start()
    try:
        result = work()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


def write_with(path, mode, files, *infos):
    """Write an archive of (name, bytes) pairs, and then of headers without content."""
    with tarfile.open(path, mode) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in infos:
            archive.addfile(info)
    return path


@pytest.mark.parametrize(("name", "mode"), FORMS)
class TestNoRegularFiles:
    def test_hard_links_share_the_content_of_an_earlier_file(self, tmp_path, name, mode):
        links = special("x/b/1.png", tarfile.LNKTYPE, "./x/a/1.png"), special("x/b/2.png", tarfile.LNKTYPE, "x/b/1.png")
        rows = listed(write_with(tmp_path / name, mode, FOLDER_TAR, *links), tmp_path)
        assert [(row["class"], content(row)) for row in rows[3:]] == [("b", png(1))] * 2
        assert [row["name"] for row in rows[3:]] == [f"{tmp_path}/{name}: x/b/{key}.png" for key in (1, 2)]

    @pytest.mark.parametrize(
        ("kind", "problem"),
        [
            (tarfile.SYMTYPE, "a link, which is not followed"),
            (tarfile.LNKTYPE, "a link to no earlier file"),
            (tarfile.FIFOTYPE, "a device or a pipe, not a file"),
            (tarfile.CHRTYPE, "a device or a pipe, not a file"),
        ],
    )
    def test_special_files_named_like_images_are_rejects(self, tmp_path, name, mode, kind, problem):
        rows = listed(write_with(tmp_path / name, mode, FOLDER_TAR, special("x/a/9.JPEG", kind, "later.png")), tmp_path)
        assert [row["problem"] for row in rows] == [None, None, None, problem] and rows[3]["class"] == "a"

    def test_special_files_with_other_names_are_skipped(self, tmp_path, name, mode):
        infos = special("x/a/latest", tarfile.SYMTYPE, "0.png"), special("x/a/7.png", tarfile.DIRTYPE)
        assert len(listed(write_with(tmp_path / name, mode, FOLDER_TAR, *infos), tmp_path)) == 3

    def test_sparse_files(self, tmp_path, name, mode):
        info = special("x/a/9.png", tarfile.GNUTYPE_SPARSE)
        header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        # A file of 512 bytes without any data: one entry of the map, (512, 0), then the real size.
        header[386:410] = b"%011o\0%011o\0" % (512, 0)
        header[483:495] = b"%011o\0" % 512
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        whole = write_tar(tmp_path / "whole.tar", FOLDER_TAR).read_bytes()
        (tmp_path / name).write_bytes(bytes(header) + whole if mode == "w" else gzip.compress(bytes(header) + whole))
        rows = listed(tmp_path / name, tmp_path)
        assert len(rows) == 4 and rows[0]["problem"] == "a sparse file, which is not supported"

    def test_special_files_in_a_webdataset(self, tmp_path, name, mode):
        infos = (
            special("s/2.jpg", tarfile.LNKTYPE, "s/0.jpg"),
            special("s/2.cls", tarfile.LNKTYPE, "s/0.cls"),
            special("s/3.jpg", tarfile.SYMTYPE, "0.jpg"),
        )
        path = write_with(tmp_path / name, mode, [*SAMPLES, ("s/4.cls", b"4")], *infos)
        rows = {row["name"][-1]: row for row in listed(path, tmp_path)}
        assert rows["2"]["problem"].startswith("its label cannot be read: a link") and rows["2"]["length"] == len(
            png(0)
        )
        assert "no label" in rows["3"]["problem"] and "no image" in rows["4"]["problem"]


class TestTheEnd:
    def test_concatenated_archives_are_refused(self, tmp_path):
        both = [write_tar(tmp_path / f"{part}.tar", [(f"x/{part}/0.png", png(0))]).read_bytes() for part in "ab"]
        (tmp_path / "f.tar").write_bytes(b"".join(both))
        (tmp_path / "one.tar.gz").write_bytes(gzip.compress(b"".join(both)))
        (tmp_path / "two.tar.gz").write_bytes(b"".join(gzip.compress(each) for each in both))
        for name in ("f.tar", "one.tar.gz", "two.tar.gz"):
            with pytest.raises(UsageError, match=rf"{name} is not a complete tar archive: data follow its end mark"):
                listed(tmp_path / name, tmp_path)

    def test_concatenated_gzip_streams_are_read(self, tmp_path):
        whole = write_tar(tmp_path / "whole.tar", FOLDER_TAR).read_bytes()
        (tmp_path / "f.tar.gz").write_bytes(gzip.compress(whole[:700]) + gzip.compress(whole[700:]))
        assert [content(row) for row in listed(tmp_path / "f.tar.gz", tmp_path)] == [png(0), png(1), png(2)]

    @pytest.mark.parametrize("damage", ["check sum", "data"])
    def test_damaged_compression(self, tmp_path, damage):
        data = bytearray(write_tar(tmp_path / "f.tar.gz", FOLDER_TAR, "w:gz").read_bytes())
        data[-8 if damage == "check sum" else len(data) // 2] ^= 255
        (tmp_path / "f.tar.gz").write_bytes(data)
        with pytest.raises(UsageError, match=r"f\.tar\.gz is not a complete tar archive"):
            listed(tmp_path / "f.tar.gz", tmp_path)

    def test_extra_zeros_at_the_end_are_accepted(self, tmp_path):
        path = write_tar(tmp_path / "f.tar", FOLDER_TAR)
        path.write_bytes(path.read_bytes() + bytes(5000))
        assert len(listed(path, tmp_path)) == 3


@pytest.mark.parametrize(("name", "mode"), FORMS)
class TestNames:
    @pytest.mark.parametrize("nameless", [".", "./."])
    @pytest.mark.parametrize("files", [FOLDER_TAR[:3], SAMPLES], ids=["folder", "webdataset"])
    def test_none(self, tmp_path, name, mode, nameless, files):
        rows = listed(write_tar(tmp_path / name, [*files, (nameless, b"x")], mode), tmp_path)
        assert rows[-1]["name"] == f"{tmp_path}/{name}: (no name)" and rows[-1]["problem"]
        assert not any(row["problem"] for row in rows[:-1])

    def test_paths_that_lead_out_of_an_archive_of_a_class(self, tmp_path, name, mode):
        files = [("0.png", png(0)), ("../1.png", png(1)), ("/2.png", png(2)), (".", png(3)), ("._0.png", b"")]
        source = archive_per_class([Archive.of_file(str(write_tar(tmp_path / name, files, mode)))], None)
        problems = source.list_shard(0, str(tmp_path / "spool"))["problem"].to_pylist()
        out = "its path leads out of the archive"
        assert problems == [None, out, out, "it has no name"]

    def test_paths_that_lead_out_of_a_flat_archive(self, tmp_path, name, mode):
        labels = tmp_path / "labels.txt"
        labels.write_text("0.png a\nlink.png a\n../1.png a\n/2.png a\n")
        files = [("0.png", png(0)), ("../1.png", png(1)), ("/2.png", png(2))]
        root = str(write_with(tmp_path / name, mode, files, special("link.png", tarfile.SYMTYPE, "0.png")))
        rows = images_with_labels(root, str(labels), ("a", "b")).list_shard(0, str(tmp_path / "spool")).to_pylist()
        out = "its path leads out of the archive"
        problems = {row["name"].rpartition(": ")[2]: row["problem"] for row in rows}
        assert problems["0.png"] is None and problems["../1.png"] == problems["/2.png"] == out
        assert "not followed" in problems["link.png"]

    def test_paths_that_lead_out_of_a_webdataset(self, tmp_path, name, mode):
        files = [*SAMPLES, ("../2.jpg", png(2)), ("../2.cls", b"2"), ("/3.jpg", png(3)), ("/3.cls", b"3")]
        rows = listed(write_tar(tmp_path / name, files, mode), tmp_path)
        assert [row["problem"] for row in rows] == [None, None, *["its path leads out of the archive"] * 2]


class TestMemory:
    def test_a_large_member_is_copied_in_blocks(self, tmp_path):
        files = [*FOLDER_TAR, ("x/a/large.png", bytes(100 << 20))]
        path = write_tar(tmp_path / "f.tar.gz", files, "w:gz")
        # The first listing imports modules.
        listed(write_tar(tmp_path / "small.tar.gz", FOLDER_TAR, "w:gz"), tmp_path)
        peak, rows = peak_bytes(lambda: listed(path, tmp_path))
        assert rows[-1]["length"] == len(content(rows[-1])) == 100 << 20 and peak < 20 << 20

    @pytest.mark.parametrize(("name", "mode"), FORMS)
    @pytest.mark.parametrize("suffixes", [(".png",), (".png", ".cls")], ids=["folder", "webdataset"])
    def test_memory_per_member_is_small(self, tmp_path, monkeypatch, name, mode, suffixes):
        monkeypatch.setattr(base, "_ROWS_PER_BATCH", 100)
        monkeypatch.setattr(compression, "BLOCK_BYTES", 1 << 12)
        monkeypatch.setattr(tar_members, "BLOCK_BYTES", 1 << 12)

        def peak(num_members):
            names = [f"{key:060}{suffix}" for key in range(num_members // len(suffixes)) for suffix in suffixes]
            archive = Archive.of_file(str(write_tar(tmp_path / name, [(each, b"1") for each in names], mode)))
            source = (
                web_dataset([archive], kinds_of("image", "label"))
                if ".cls" in suffixes
                else archive_per_class([archive], None)
            )
            measured, listing = peak_bytes(lambda: source.list_shard(0, str(tmp_path / "spool")))
            assert len(listing) == num_members // len(suffixes)
            return measured

        peak(100)  # The first listing imports modules.
        assert (peak(1400) - peak(400)) / 1000 < 350

    def test_a_member_of_many_blocks_keeps_the_offsets(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tar_members, "BLOCK_BYTES", 7)
        rows = listed(write_tar(tmp_path / "f.tar.gz", FOLDER_TAR, "w:gz"), tmp_path)
        assert [content(row) for row in rows] == [png(0), png(1), png(2)]

    def test_a_member_above_the_size_limit_is_not_copied(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tar_members, "MAX_BYTES", 1000)
        files = [("x/a/film.png", bytes(1001)), *FOLDER_TAR]
        rows = listed(write_tar(tmp_path / "f.tar.gz", files, "w:gz"), tmp_path)
        assert rows[0]["problem"] == "it must have at most 1000 bytes; it has 1001"
        assert [content(row) for row in rows[1:]] == [png(0), png(1), png(2)]
        assert (tmp_path / "spool-0").stat().st_size == sum(len(data) for _, data in FOLDER_TAR)

    def test_the_size_limit_equals_that_of_the_ingest(self):
        assert member.MAX_BYTES == writing._MAX_BYTES

    @pytest.mark.parametrize(("name", "mode"), FORMS)
    def test_a_long_label(self, tmp_path, monkeypatch, name, mode):
        monkeypatch.setattr(tar_members, "MAX_TEXT_BYTES", 20)
        files = [*SAMPLES, ("s/2.jpg", png(2)), ("s/2.cls", b"2" * 21)]
        rows = listed(write_tar(tmp_path / name, files, mode), tmp_path)
        assert [row["class"] for row in rows] == ["3", "12", None]
        assert rows[2]["problem"] == "its label cannot be read: a link, or more than 16 MiB"


class TestWebDatasetKinds:
    def test_image_masks_are_not_images(self, tmp_path):
        files = [("0.jpg", png(0)), ("0.seg.png", png(9)), ("0.cls", b"1"), ("1.mask.jpg", png(9)), ("1.cls", b"1")]
        first, second = listed(write_tar(tmp_path / "w.tar", files), tmp_path)
        assert content(first) == png(0) and second["problem"] == "its sample has no image"

    def test_two_images_of_a_sample_are_a_reject(self, tmp_path):
        files = [*SAMPLES, ("s/2.jpg", png(2)), ("s/2.PNG", png(3)), ("s/2.cls", b"1")]
        rows = listed(write_tar(tmp_path / "w.tar", files), tmp_path)
        assert rows[2]["problem"] == "its sample has 2 images: s/2.jpg, s/2.PNG" and rows[2]["class"] == "1"

    def test_hidden_members_are_left_out(self, tmp_path):
        files = [("._0.jpg", b"x"), ("0.JPG", png(0)), ("._0.cls", b"x"), ("0.CLS", b"1"), (".a/2.jpg", b"x")]
        rows = listed(write_tar(tmp_path / "w.tar", files), tmp_path)
        assert [(row["class"], content(row)) for row in rows] == [("1", png(0))]
