"""What the corpus shares: image folders, as in the tests of the data package."""

from tests.data.conftest import make_folder

__all__ = ["make_folder"]
