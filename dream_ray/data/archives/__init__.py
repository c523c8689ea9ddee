"""Iteration over the files in archives without unpacking: no file is written at the path of a member."""

from dream_ray.data.archives.member import Archive, Member
from dream_ray.data.archives.opening import SUFFIXES, inner_archives, is_archive, members, stem

__all__ = ["SUFFIXES", "Archive", "Member", "inner_archives", "is_archive", "members", "stem"]
