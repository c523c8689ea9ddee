"""What goes into a store: the rows of the sources, under the labels of the training classes."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dream_ray.data.images import Int64Array
from dream_ray.data.sources import Source, SourceKind, SourceOptions, find_source
from dream_ray.errors import UsageError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """Rows of a source that are stored under the labels of the training classes."""

    source: Source
    labels_N: Int64Array


def open_parts(source: str, test: str | None, options: SourceOptions) -> dict[str, Part]:
    """Opens the sources.

    Args:
        source: Training images; also test images when it has some and `test` is None.
        test: Test images: those of its test split if it has one, else all of them.
        options: Settings of the sources.

    Returns:
        The parts "train" and, if there are test images, "test".

    Raises:
        UsageError: If a source is missing or not of its form, or the classes break a rule.
    """
    kinds = [find_source(given) for given in (source, test) if given is not None]
    _warn_of_ignored(kinds, options)
    opened = kinds[0].open(source, options)
    train = opened.train
    if test is not None:
        opened_test = kinds[1].open(test, options)
        test_part: Source | None = opened_test.train if opened_test.open_test is None else opened_test.open_test()
    else:
        test_part = None if opened.open_test is None else opened.open_test()
    _check_classes(source, train)
    parts = {"train": Part(train, train.labels_N)}
    if test_part is not None:
        parts["test"] = Part(test_part, _labels_by_name(test_part, train.class_names))
    return parts


def _warn_of_ignored(kinds: Iterable[SourceKind], options: SourceOptions) -> None:
    used = frozenset[str]().union(*(kind.uses for kind in kinds))
    defaults = SourceOptions(scratch=options.scratch)
    for name in ("image_column", "label_column", "root", "download"):
        if name not in used and getattr(options, name) != getattr(defaults, name):
            _log.warning("%s is ignored: no source that was given uses it", name)


def _check_classes(source: str, train: Source) -> None:
    names = train.class_names
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UsageError(f"class names of {source} must differ; {repeated[0]!r} occurs twice")
    if not len(train.labels_N):
        raise UsageError(f"source {source} has no images")
    if len(names) < 2:
        raise UsageError(f"source {source} must have at least 2 classes; got {len(names)} ({', '.join(names)})")
    counts = np.bincount(train.labels_N, minlength=len(names))
    if not counts.all():
        raise UsageError(f"class {names[int(counts.argmin())]!r} of {source} has no images")


def _labels_by_name(test: Source, class_names: tuple[str, ...]) -> Int64Array:
    label_of = {name: label for label, name in enumerate(class_names)}
    used = np.unique(test.labels_N)
    unknown = [test.class_names[label] for label in used if test.class_names[label] not in label_of]
    if unknown:
        raise UsageError(f"test class {unknown[0]!r} is not a training class; those are {', '.join(class_names[:10])}")
    if not len(test.labels_N):
        raise UsageError("the test source has no images")
    labels = np.array([label_of.get(name, -1) for name in test.class_names], dtype=np.int64)
    return labels[test.labels_N]
