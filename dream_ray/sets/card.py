"""The README of an export: what the set is, how it was made and how good it is; valid for the Hugging Face Hub."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dream_ray import __version__
from dream_ray.config import FRAMEWORKS
from dream_ray.config.yaml_text import dump_yaml
from dream_ray.core.tables import accuracy_cell
from dream_ray.sets.formats.content import Content
from dream_ray.sets.image_set import ImageSet

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGEST = "1M<n<10M"
_HUB_LICENCES = frozenset(
    "afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd bsd-2-clause bsd-3-clause cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 "
    "cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 "
    "cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 "
    "gpl-2.0 gpl-3.0 lgpl-3.0 mit odbl odc-by other pddl unknown unlicense".split()
)
"""Identifiers of licences of data that the Hugging Face Hub knows."""
_CITATION = """```bibtex
@article{liu2023dreamplus,
  title   = {DREAM+: Efficient Dataset Distillation by Bidirectional Representative Matching},
  author  = {Liu, Yanqing and Gu, Jianyang and Wang, Kai and Zhu, Zheng and Zhang, Kaipeng and Jiang, Wei and
             You, Yang},
  journal = {arXiv preprint arXiv:2310.15052},
  year    = {2023}
}
```"""


def card(
    found: ImageSet,
    content: Content,
    *,
    to: str,
    load: str,
    licence: str | None,
    reports: Sequence[dict[str, Any]],
    cost: Mapping[str, float],
    outside: float,
    preview: str | None,
) -> str:
    """Returns the text of README.md.

    Args:
        found: The set.
        content: What was exported of it.
        to: Format of the export.
        load: Python code that loads it.
        licence: As for `exports.write_export`.
        reports: Likewise.
        cost: Likewise.
        outside: Share of the pixel values outside [0, 1], which 8 bits cut off.
        preview: Name of the preview beside it, or None.
    """
    lines = [
        "---",
        dump_yaml(_front_matter(content, to, licence)).rstrip(),
        "---",
        "",
        f"# {_title(found)}",
        "",
        *_summary(found, content, to, outside),
        *([f"![Some of the images]({preview})", ""] if preview else []),
        "## Load it",
        "",
        "```python",
        load,
        "```",
        "",
        *_recipe(found, cost),
        "## Accuracy",
        "",
        *_accuracies(reports),
        "## Licence",
        "",
        *_licence(licence),
        "",
        "## Citation",
        "",
        _CITATION,
        "",
        f"Made with dream_ray {__version__}.",
        "",
    ]
    return "\n".join(lines)


def _title(found: ImageSet) -> str:
    kind = "Real" if _is_real(found) else "Distilled"
    return f"{kind} images of {len(found.class_names)} classes, {found.stored_LNCHW.shape[1]} per class"


def _is_real(found: ImageSet) -> bool:
    """Returns whether a set was selected from real images, without a step."""
    return bool(found.recipe.get("config", {}).get("outer_steps") == 0)


def _front_matter(content: Content, to: str, licence: str | None) -> dict[str, Any]:
    """Returns the metadata of a dataset on the Hub."""
    total = len(content.origins)
    matter: dict[str, Any] = {
        "pretty_name": _title(content.images),
        "task_categories": ["image-classification"],
        "tags": ["coreset" if _is_real(content.images) else "synthetic", "dataset-distillation", "dream-ray"],
        "size_categories": [next((name for most, name in _SIZES if total < most), _LARGEST)],
        **_hub_licence(licence),
    }
    if to == "huggingface":
        names = {str(label): name for label, name in enumerate(content.images.class_names)}
        features = [
            {"name": "image", "dtype": "image"},
            {"name": "label", "dtype": {"class_label": {"names": names}}},
        ]
        matter["dataset_info"] = {"features": features}
        data_files = [{"split": "train", "path": "data/train-*"}]
        matter["configs"] = [{"config_name": "default", "data_files": data_files}]
    return matter


def _hub_licence(licence: str | None) -> dict[str, str]:
    """Returns the keys of a licence; one that the Hub does not know has a name beside `other`."""
    if licence is None:
        return {"license": "unknown"}
    name = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")
    return {"license": name} if name in _HUB_LICENCES else {"license": "other", "license_name": name or "stated"}


def _summary(found: ImageSet, content: Content, to: str, outside: float) -> Iterator[str]:
    num_classes, ipc, channels, height, width = found.stored_LNCHW.shape
    what = "A training set of real images, selected" if _is_real(found) else "A synthetic training set, distilled"
    yield (
        f"{what} with dream_ray. Classes: {num_classes}. Stored images of a class: {ipc}, "
        f"each of {channels} x {height} x {width} (channels, height, width)."
    )
    yield ""
    if content.images is not found:
        count = content.images.stored_LNCHW.shape[1]
        yield (
            f"Each stored image is a mosaic of {found.factor} x {found.factor} tiles (multi-formation). This export "
            f"holds the {count} images of a class that they decode into, which networks train on."
        )
    elif found.factor > 1:
        yield (
            f"Each image is a mosaic of {found.factor} x {found.factor} tiles (multi-formation). Cut it into its tiles "
            f"and enlarge each to {height} x {width} (bilinear), or read this directory with `dream_ray.sets.read`, "
            "which does so: networks train on the decoded images."
        )
    if to in ("npz", "torch"):
        yield "Values are float32, as the run stored them."
    else:
        yield "Pixels have 8 bits. docs/how-to/share-a-set.md of dream_ray says what that costs in accuracy."
        if outside:
            yield f"{100 * outside:.2g} % of the values lay outside [0, 1] and were cut off."
    mean, std = (", ".join(f"{value:.4f}" for value in values) for values in (found.mean, found.std))
    yield f"The networks saw pixels in [0, 1], normalised by the mean ({mean}) and the standard deviation ({std})."
    yield ""


def _recipe(found: ImageSet, cost: Mapping[str, float]) -> Iterator[str]:
    config, environment = found.recipe.get("config"), found.recipe.get("environment")
    if not config or not environment:
        return
    lines, made = _selected(config, environment) if _is_real(found) else _distilled(config)
    yield from ("## Recipe", "", *lines, "")
    rows = {
        **made,
        "seed": config["seed"],
        "store": f"checksum {environment['store_checksum'][:16]}",
        "device": environment["device_name"],
        "threads per worker": environment["threads_per_worker"],
        "versions": ", ".join(f"{name} {version}" for name, version in environment["versions"].items()),
    }
    if cost:
        rows["cost"] = f"{cost['wall_s']:.0f} s wall, {cost['cpu_s']:.0f} s CPU, {cost['gpu_s']:.0f} s GPU"
    yield from ("| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows.items()), "")


def _distilled(config: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    """Returns method and command of a distillation, and the first rows of its table."""
    framework = FRAMEWORKS[config["framework"]]
    command = ["```bash", "dream-ray distill --config settings.yaml --store STORE --out RUN", "```"]
    steps = config["outer_steps"] * config["inner_steps"]
    return [f"{framework.title}: {framework.paper}.", "", *command], {
        "network": ", ".join([config["network"]["name"], *_options(config["network"]["options"])]),
        "steps": f"{steps} ({config['outer_steps']} networks, {config['inner_steps']} steps each)",
    }


def _selected(config: Mapping[str, Any], environment: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    """Returns what names the images of a selection, and the first rows of its table."""
    where = "`real_images` in the recipe of the set names position, file and row of each image in the store."
    start = config["initialisation"]
    rows = {"strategy": start["strategy"]}
    rows |= {name: str(start[name]) for name in ("score", "candidates", "crops") if name in start}
    if models := environment.get("initial_models"):
        rows["models"] = ", ".join(f"digest {digest[:16]}" for digest in models)
    return [where], rows


def _options(options: dict[str, Any]) -> list[str]:
    return [f"{name} {value}" for name, value in options.items()]


def _accuracies(reports: Sequence[dict[str, Any]]) -> Iterator[str]:
    if not reports:
        yield "Not evaluated."
        yield ""
    for report in reports:
        network = ", ".join([report["network"]["name"], *_options(report["network"]["options"])])
        tested = next((row["tested"] for row in report["evaluated_sets"] if row.get("tested")), None)
        images = "" if tested is None else f" ({tested} images)"
        yield (
            f"{network}; {report['split']} split{images}, last epoch, protocol {report['protocol']}. Top-1 accuracy "
            "in %, mean of n networks, with its 95 % interval over the networks if n > 1:"
        )
        yield from ("", "| trained on | images | epochs | accuracy | n |", "|---|---|---|---|---|")
        for row in report["evaluated_sets"]:
            name = row.get("shown_as", row["evaluated_set"])
            name = name if row["step"] is None else f"{name}, step {row['step']}"
            yield f"| {name} | {row['num_images']} | {row['epochs']} | {accuracy_cell(row)} | {row['n']} |"
        yield ""


def _licence(licence: str | None) -> Iterator[str]:
    if licence is None:
        yield "Whoever exported the set stated no licence of the source images. Ask before you use or share it."
    else:
        yield f"Licence of the source images, as stated by whoever exported the set: {licence}"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
