"""The function that writes stores."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypedDict

from dream_ray import storage
from dream_ray.api.backends import DEFAULT_WAIT
from dream_ray.config.sizes import parse_bytes, parse_seconds
from dream_ray.data.class_lists import read_classes
from dream_ray.data.ingest import PATHS, IngestSettings, Mapper
from dream_ray.data.ingest import ingest as write_store
from dream_ray.data.sources.given_images import given_images
from dream_ray.data.sources.in_memory import SurveyedImages, survey
from dream_ray.data.store.manifest import Manifest
from dream_ray.engine.progress.display import Show, showing
from dream_ray.errors import UsageError

if TYPE_CHECKING:
    from typing_extensions import Unpack


class IngestKeywords(TypedDict, total=False):
    """The settings of `IngestSettings` as keywords of `ingest`, where paths and images may be objects."""

    test: storage.StrPath | object | None
    test_fraction: float | None
    test_labels: storage.StrPath | None
    size: int | None
    channels: int | None
    encoding: str
    validation: float
    pixel_range: int | None
    classes: Sequence[str] | str | None
    max_per_class: int | None
    image_column: str
    label_column: str
    root: storage.StrPath | None
    layout: str | None
    labels: storage.StrPath | None
    label_pattern: str | None


def ingest(
    source: storage.StrPath | IngestSettings | object,
    store: storage.StrPath,
    *,
    max_rejects: float = 0.01,
    download: bool = False,
    workers: int | None = None,
    memory: int | str | None = None,
    local: bool = False,
    address: str | None = None,
    wait: float | str = DEFAULT_WAIT,
    progress: Show | bool = True,
    **settings: "Unpack[IngestKeywords]",
) -> Manifest:
    """Writes an image set as a store, or continues an unfinished one, and returns its manifest.

    Args:
        source: Training images: a path or name, see `IngestSettings.source`; arrays (images, labels); a dataset of
            PyTorch or a list with items (image, label); a datasets.Dataset of Hugging Face; a ray.data.Dataset; or all
            settings as `IngestSettings`. Images of the program are passed over twice, see
            docs/how-to/use-from-python.md.
        store: Directory to write.
        max_rejects: Largest fraction of unreadable images, see `dream_ray.data.ingest.ingest`.
        download: Let torchvision download missing files.
        workers: Ray tasks at a time, one CPU each; None: one per CPU.
        memory: Memory of all workers together, in bytes or as text such as "8GB"; fewer workers start if it is short.
            None: no limit.
        local: Run in this process, without Ray.
        address: Ray cluster; None: RAY_ADDRESS, else a private local Ray.
        wait: How long to wait for free resources of Ray, in seconds or as text such as "10min".
        progress: True: shown on a terminal or in a notebook; False: not shown; or a function that is called as the work
            proceeds: (unit, number done, total number).
        **settings: The other settings, by the names of `IngestSettings`. `test` takes images as `source` does;
            `classes` also takes a text, as `--classes` does.

    Raises:
        UsageError: If an argument breaks a rule, or the store exists with other settings.
        RunError: If images or store cannot be read or written; the same call continues.
    """
    store, wait_s = storage.text_path("store", store), parse_seconds(wait)
    given: dict[str, SurveyedImages] = {}
    if isinstance(source, IngestSettings):
        if settings:
            raise UsageError(
                f"settings must be given once, in IngestSettings or as keywords; got both: {next(iter(settings))}"
            )
        chosen = source
    else:
        with showing("Reading images", progress=progress) as show:
            chosen, given = _settings({"source": source, **settings}, show)
    chosen = chosen.absolute()
    if local:
        if workers not in (None, 1):
            raise UsageError(f"workers must be 1 with local, which runs in this process; got {workers}")
        if memory is not None:
            raise UsageError(f"memory must not be set with local, which runs in one process; got {memory!r}")
        runner = None
    else:
        if workers is not None and workers < 1:
            raise UsageError(f"workers must be an int >= 1; got {workers}")
        store = storage.shared_path("store", store)
        memory_bytes = None if memory is None else parse_bytes(memory)
        runner = _ray_jobs(chosen, store, workers, memory_bytes, address, wait_s)
    with showing("Ingesting", progress=progress) as show:
        return write_store(
            chosen, store, max_rejects=max_rejects, download=download, given=given, runner=runner, progress=show
        )


def _settings(
    values: dict[str, Any], progress: Callable[[str, int, int], None]
) -> tuple[IngestSettings, dict[str, SurveyedImages]]:
    """Makes the settings of keywords.

    Returns:
        The settings, in which texts stand for images of the program, and these images by their texts.
    """
    if unknown := values.keys() - IngestSettings.__dataclass_fields__.keys():
        raise UsageError(
            f"{min(unknown)} is not a setting of ingest; those are {', '.join(IngestKeywords.__annotations__)}"
        )
    classes = values.get("classes")
    if classes is not None:
        values["classes"] = read_classes(classes) if isinstance(classes, str) else tuple(classes)
    objects = {name: values[name] for name in ("source", "test") if _is_object(values.get(name))}
    plain = {name: value for name, value in values.items() if name not in objects}
    for name in PATHS:
        if plain.get(name) is not None:
            plain[name] = storage.text_path(name, plain[name])
    # Checked before a pass over the images, which may take minutes.
    checked = IngestSettings(**{**plain, **dict.fromkeys(objects, "in-memory:")})
    columns = {"image_column": checked.image_column, "label_column": checked.label_column}
    surveyed = {name: survey(given_images(name, value, **columns), progress) for name, value in objects.items()}
    texts = {name: images.source for name, images in surveyed.items()}
    return IngestSettings(**{**plain, **texts}), {images.source: images for images in surveyed.values()}


def _is_object(value: Any) -> bool:
    return value is not None and not isinstance(value, (str, bytes)) and not hasattr(value, "__fspath__")


@contextmanager
def _ray_jobs(*arguments: Any) -> Iterator[Mapper]:
    """Imports Ray when the jobs begin, after all other checks."""
    from dream_ray.distributed.ingest import ray_jobs

    with ray_jobs(*arguments) as mapper:
        yield mapper
