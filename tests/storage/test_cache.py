"""Tests of the cache of remote files, but for those that need a bucket (tests/s3)."""

import os
import time

from dream_ray import storage


def write(directory, name, num_bytes, age_s):
    path = directory / name
    path.write_bytes(bytes(num_bytes))
    os.utime(path, times=(time.time() - age_s,) * 2)


def test_files_being_written_count_and_stay(tmp_path):
    write(tmp_path, ".a.1.partial", 100, 3600)
    write(tmp_path, "old", 100, 1800)
    write(tmp_path, "young", 100, 10)
    storage.make_room(str(tmp_path), 100, 300)
    assert sorted(os.listdir(tmp_path)) == [".a.1.partial", "young"]


def test_temporary_files_are_deleted_after_a_day(tmp_path):
    write(tmp_path, ".a.1.partial", 100, 25 * 3600)
    write(tmp_path, "old", 100, 1800)
    storage.make_room(str(tmp_path), 100, 200)
    assert os.listdir(tmp_path) == ["old"]
