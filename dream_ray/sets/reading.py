"""Reading of synthetic sets, from runs, files and exports."""

from dream_ray import storage
from dream_ray.errors import UsageError
from dream_ray.sets.exports import MARK, read_export
from dream_ray.sets.image_set import ImageSet
from dream_ray.sets.set_file import SET_FILE, read_set


def read(path: storage.StrPath) -> ImageSet:
    """Reads a synthetic set as arrays; neither PyTorch nor Ray is imported.

    Args:
        path: A set (synthetic.parquet), the directory of its run, or a directory that `dream_ray.export` wrote; a URI
            must be a str.

    Raises:
        UsageError: If it does not exist, is not a synthetic set or has another format version.
        RunError: If it is damaged.
    """
    text = storage.text_path("path", path)
    if storage.exists(storage.join(text, MARK)):
        return read_export(text)
    in_run = storage.join(text, SET_FILE)
    if storage.exists(in_run):
        return ImageSet(*read_set(in_run))
    if storage.is_directory(text):
        raise UsageError(
            f"{text} must be a set, an export or the directory of a finished run; it has neither {SET_FILE} nor "
            f"{MARK}. dream_ray.load_synthetic loads the newest checkpoint of an unfinished run"
        )
    return ImageSet(*read_set(text))
