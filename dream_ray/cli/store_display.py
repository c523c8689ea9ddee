"""What a store holds, on the screen: numbers, classes and rejects."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from typer import echo

from dream_ray.cli.console import number, print_table

if TYPE_CHECKING:
    from dream_ray.data.store.manifest import Manifest

# More classes are shown by the biggest and the smallest ones.
_ALL_CLASSES = 20
_SOME_CLASSES = 5
_NAME_CELLS = 40
_REASONS = 5


def show_store(path: str, manifest: "Manifest") -> None:
    """Prints what a store holds."""
    values = {
        "store": path,
        "images": sum(map(sum, manifest.counts.values())),
        "classes": len(manifest.class_names),
        "shape": f"{manifest.channels} x {manifest.height} x {manifest.width}",
        "encoding": manifest.encoding,
        **{split: _images_of(counts) for split, counts in manifest.counts.items()},
        "mean": ", ".join(f"{value:.4f}" for value in manifest.mean),
        "std": ", ".join(f"{value:.4f}" for value in manifest.std),
        "source": manifest.source,
        "rejects": manifest.num_rejects,
    }
    for name, value in values.items():
        echo(f"{name}: {value}")
    _show_rejects(path)
    _show_other_files(manifest)
    _show_equal_images(manifest)
    echo()
    _show_classes(manifest)


def _images_of(counts: Sequence[int]) -> str:
    if not any(counts):
        return "0 (none)"
    without = f"; {counts.count(0)} of {len(counts)} classes have none" if 0 in counts else ""
    return f"{sum(counts)} ({min(counts)} to {max(counts)} per class{without})"


def _show_equal_images(manifest: "Manifest") -> None:
    """Prints how many images equal others, if any do."""
    meanings = {
        "train": "of train equal an earlier one",
        "validation": "of validation equal one of train",
        "test": "of test equal one of train or validation",
        "classes": "equal one of another class",
    }
    found = [f"{count} {meanings[kind]}" for kind, count in manifest.equal_images.items() if count]
    if found:
        echo("equal images: " + "; ".join(found))


def _show_other_files(manifest: "Manifest") -> None:
    """Prints how many files of the source are no images, if there are any."""
    found = Counter(manifest.other_files)
    if found:
        kinds = ", ".join(f"{count} {kind}" for kind, count in found.most_common(_REASONS))
        echo(f"other files: {found.total()} ({kinds}{', ...' if len(found) > _REASONS else ''})")


def _show_classes(manifest: "Manifest") -> None:
    """Prints the images of every class by split, or those of the biggest and smallest classes."""
    splits = [split for split, counts in manifest.counts.items() if any(counts)]
    by_label = list(zip(*(manifest.counts[split] for split in splits), strict=True))
    labels = list(range(len(by_label)))
    sections, title = [labels], None
    if len(labels) > _ALL_CLASSES:
        by_size = sorted(labels, key=lambda label: -sum(by_label[label]))
        sections = [by_size[:_SOME_CLASSES], by_size[-_SOME_CLASSES:]]
        title = f"the {_SOME_CLASSES} biggest and smallest of {len(labels)} classes"
    rows = [
        [(_folded(manifest.class_names[label]), *map(str, by_label[label])) for label in section]
        for section in sections
    ]
    print_table(["class", *map(number, splits)], *rows, title=title)


def _folded(name: str) -> str:
    """Returns a name in lines that fit into a table; characters that a terminal would obey are escaped."""
    from rich.cells import chop_cells

    printable = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in name)
    return "\n".join(chop_cells(printable, _NAME_CELLS))


def _show_rejects(store: str) -> None:
    """Prints how often each reason for a reject occurs, the most frequent first, with an example."""
    from dream_ray import storage
    from dream_ray.data.store.rejects import REJECTS, read_rejects

    rejects = read_rejects(store)
    reasons = Counter(reason for _, reason in rejects)
    examples = {reason: name for name, reason in reversed(rejects)}
    for reason, count in reasons.most_common(_REASONS):
        echo(f"  {count} x {reason}: {examples[reason]}" + (", for example" if count > 1 else ""))
    if len(reasons) > _REASONS:
        echo(f"  and {len(reasons) - _REASONS} other reasons")
    if rejects:
        echo(f"  all of them: {storage.join(store, REJECTS)}")
