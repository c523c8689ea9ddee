"""The function that exports synthetic sets."""

from dream_ray import storage
from dream_ray.engine.evaluation.kept_reports import read_reports_of_set
from dream_ray.sets import read
from dream_ray.sets.exports import Exported, check_export, read_cost, write_export
from dream_ray.sets.set_file import SET_FILE


def export(
    path: storage.StrPath,
    out: storage.StrPath,
    *,
    to: str,
    mosaics: bool = False,
    picture: str = "png",
    licence: str | None = None,
) -> Exported:
    """Exports a synthetic set, for other programs and for other people, with a README that describes it.

    Args:
        path: A set (synthetic.parquet), the directory of its run, or an export. Of an unfinished run, the set of the
            newest complete checkpoint.
        out: New or empty directory.
        to: "imagefolder", "huggingface" or "webdataset", which hold pictures of 8 bits, or "npz" or "torch"
            (safetensors), which keep float32.
        mosaics: Export the stored images, from which `dream_ray.sets.read` decodes, instead of the decoded images that
            networks train on.
        picture: "png" or "webp" (lossless), for the formats that hold pictures.
        licence: Licence of the source images, such as "cc-by-4.0"; None: the README says that none was stated.

    Returns:
        Number of the images and classes, and code that loads them.

    Raises:
        UsageError: If an argument breaks a rule.
        RunError: If the set is damaged or the files cannot be written.
    """
    path, out = storage.text_path("path", path), storage.text_path("out", out)
    file = path
    if storage.exists(storage.join(path, "config.yaml")) and not storage.exists(storage.join(path, SET_FILE)):
        from dream_ray.engine.run.sets import set_file  # PyTorch, which other sets do not need

        file = set_file(path)
    found = read(file)
    check_export(found, out, to=to, picture=picture)
    return write_export(
        found,
        out,
        to=to,
        mosaics=mosaics,
        picture=picture,
        licence=licence,
        reports=read_reports_of_set(path),
        cost=read_cost(path),
    )
