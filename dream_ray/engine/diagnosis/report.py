"""The files of a diagnosis: numbers as JSON, two pictures, and a page that contains all of them."""

import base64
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from dream_ray import storage
from dream_ray.config import Config
from dream_ray.core.figures import make_figure
from dream_ray.data.store.image_grid import tiles, write_grid
from dream_ray.data.store.store import Store
from dream_ray.engine.diagnosis.measuring import Diagnosis
from dream_ray.engine.diagnosis.options import HISTOGRAM, IMAGES, NUMBERS, PAGE
from dream_ray.engine.evaluation.plots import save

_BINS = 40
_SHOWN_CLASSES, _SHOWN_IMAGES = 4, 16
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-size: 13px; }
th, td { padding: 0.2rem 0.6rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; box-sizing: border-box; padding: 0.5rem; border-radius: 0.3rem; background: white; }
"""

COLUMNS = {
    "gradient_norm_of_images": "gradient norm\nof an image",
    "gradient_norm_of_batches": "gradient norm\nof a batch",
    "distinct_images": "distinct\nimages",
    "overlap": "overlap\nin %",
    "squared_mmd": "MMD^2\nx 1000",
    "choosing_s": "choice\nin s",
}
"""Headings of the numbers of a strategy, by key."""


def summarise(diagnosis: Diagnosis, config: Config, store: Store) -> dict[str, Any]:
    """Returns the numbers of a diagnosis as plain values.

    Times are for all its classes together. `distinct_images` is the mean over classes, after all selections; `overlap`
    is the mean fraction of images that the selection before had too, None with a single selection.
    """
    norms = [norm for findings in diagnosis.findings.values() for norm in findings.image_norms]
    edges = np.histogram_bin_edges(norms, bins=_BINS)
    chosen_s = diagnosis.choosing_s.get(config.selection.strategy, 0.0)
    return {
        "strategy": config.selection.strategy,
        "classes": [store.manifest.class_names[label] for label in diagnosis.labels],
        "inner_steps": list(diagnosis.inner_steps),
        "real_batch": config.real_batch,
        "seconds": {
            "embedding": diagnosis.embedding_s,
            "choosing": chosen_s,
            "matching": diagnosis.matching_s,
            "update": diagnosis.update_s,
            # Seconds of a selection over those of the matching steps until the next one.
            "selection_over_matching": (diagnosis.embedding_s + chosen_s)
            / (config.selection.interval * diagnosis.matching_s),
        },
        "histogram_edges": edges.tolist(),
        "strategies": {
            name: {
                "gradient_norm_of_images": _spread(findings.image_norms),
                "gradient_norm_of_batches": _spread(findings.batch_norms),
                "distinct_images": statistics.mean(findings.distinct),
                "overlap": statistics.mean(findings.overlaps) if findings.overlaps else None,
                "squared_mmd": statistics.mean(findings.squared_mmds),
                "choosing_s": diagnosis.choosing_s[name],
                "histogram": np.histogram(findings.image_norms, edges)[0].tolist(),
            }
            for name, findings in diagnosis.findings.items()
        },
    }


def _spread(values: Sequence[float]) -> dict[str, float | int]:
    return {"mean": statistics.mean(values), "std": statistics.pstdev(values), "n": len(values)}


def cells(name: str, found: Mapping[str, Any]) -> list[str]:
    """Returns the numbers of a strategy as texts, in the order of `COLUMNS`, after its name."""
    image, batch = (found[f"gradient_norm_of_{what}"] for what in ("images", "batches"))
    return [
        name,
        f"{image['mean']:.3g} +- {image['std']:.3g}",
        f"{batch['mean']:.3g} +- {batch['std']:.3g}",
        f"{found['distinct_images']:.1f}",
        "" if found["overlap"] is None else f"{100 * found['overlap']:.1f}",
        f"{1000 * found['squared_mmd']:.2f}",
        f"{found['choosing_s']:.2f}",
    ]


def times(numbers: Mapping[str, Any]) -> list[str]:
    """Returns the seconds of a diagnosis as lines of text."""
    seconds, strategy = numbers["seconds"], numbers["strategy"]
    share = f"{100 * seconds['selection_over_matching']:.0f} %"
    chosen = "" if strategy == "random" else f", choosing by {strategy} selection {seconds['choosing']:.2f} s"
    lines = [f"embedding {seconds['embedding']:.2f} s{chosen}", f"matching {seconds['matching']:.2f} s per step"]
    if seconds["update"] is not None:
        lines.append(f"network update {seconds['update']:.2f} s per step")
    if strategy != "random":
        lines.append(f"a selection takes {share} of the matching time until the next one")
    return lines


def write_report(
    out: str, subject: str, diagnosis: Diagnosis, numbers: Mapping[str, Any], store: Store, splits: Sequence[str]
) -> None:
    """Writes all files of a diagnosis.

    Args:
        out: Directory.
        subject: What was diagnosed, for the heading.
        diagnosis: The diagnosis.
        numbers: Of `summarise`.
        store: The store.
        splits: Splits from which images were selected.
    """
    storage.write_json(storage.join(out, NUMBERS), dict(numbers), indent=2)
    _write_histogram(storage.join(out, HISTOGRAM), numbers)
    _write_images(storage.join(out, IMAGES), diagnosis, store, splits)
    storage.write_text(storage.join(out, PAGE), _page(out, subject, numbers))


def _write_histogram(path: str, numbers: Mapping[str, Any]) -> None:
    """Draws the histogram of the gradient norms of images, a line per strategy."""
    figure = make_figure(6.4, 3.6)
    axes = figure.add_subplot()
    for name, found in numbers["strategies"].items():
        shares = np.array(found["histogram"]) / sum(found["histogram"])
        axes.stairs(shares, numbers["histogram_edges"], label=name)
    axes.set_xlabel("norm of the gradient of an image")
    axes.set_ylabel("fraction of the selected images")
    axes.legend(fontsize=8)
    save(path, figure)


def _write_images(path: str, diagnosis: Diagnosis, store: Store, splits: Sequence[str]) -> None:
    """Draws images of the last selection of every strategy, for the first classes, a row each."""
    rows, names = [], []
    for label in diagnosis.labels[:_SHOWN_CLASSES]:
        images = store.images(label, splits)
        for strategy, findings in diagnosis.findings.items():
            rows.append(tiles(images, findings.chosen[label][-1][:_SHOWN_IMAGES].numpy(), width=_SHOWN_IMAGES))
            names.append(f"{strategy} {store.manifest.class_names[label]}")
    write_grid(path, np.concatenate(rows), columns=_SHOWN_IMAGES, row_labels=names)


def _page(out: str, subject: str, numbers: Mapping[str, Any]) -> str:
    headings = "".join(f"<th>{escape(heading)}</th>" for heading in ("strategy", *COLUMNS.values()))
    rows = [
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells(name, found))}</tr>"
        for name, found in numbers["strategies"].items()
    ]
    of_batch = f"{len(numbers['inner_steps'])} selections of {numbers['real_batch']} images"
    classes = escape(", ".join(numbers["classes"]))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Diagnosis of {escape(subject)}</title><style>{_STYLE}</style></head>\n<body>"
        f"<h1>Diagnosis of {escape(subject)}</h1>"
        f"<p>{of_batch} in outer step 0, at inner steps {', '.join(map(str, numbers['inner_steps']))}. "
        f"Classes: {classes}.</p>\n"
        f"<h2>Strategies</h2><table><tr>{headings}</tr>{''.join(rows)}</table>"
        "<p>Means over images, selections and classes; +- is a standard deviation. Distinct images: of all selections "
        "of a class. Overlap: images that the selection before had too. MMD^2: squared maximum mean "
        "discrepancy of a selection and its class, Gaussian kernel on the features. Choice: seconds of a selection "
        "without the embedding.</p>\n"
        f"<h2>Gradient norms</h2>{_image(out, HISTOGRAM, 'Histogram of the gradient norms of images')}\n"
        f"<h2>Time</h2><ul>{''.join(f'<li>{escape(line)}</li>' for line in times(numbers))}</ul>\n"
        f"<h2>Selected images</h2>{_image(out, IMAGES, 'Images of the last selection')}</body></html>\n"
    )


def _image(out: str, name: str, text: str) -> str:
    content = base64.b64encode(storage.read_bytes(storage.join(out, name))).decode()
    return f'<img alt="{text}" src="data:image/png;base64,{content}">'
