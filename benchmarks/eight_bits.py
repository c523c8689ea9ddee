"""What 8 bits cost in accuracy: the same networks on float32 images, on 8-bit mosaics and on 8-bit decoded images.

    DREAM_RAY_DATA=... python -m benchmarks.eight_bits --seeds 6 --scratch DIR

The runs are those of DREAM+ in `benchmarks.learning_curve` (CIFAR-10, 10 images per class, factor 2), ended after 20
inner steps; without the environment variable, those on the digits. A seed distils one set. Networks with equal numbers
start from equal weights and see equal batches, so the difference of a seed is that of the images alone. Each result is
kept in DIR, so an interrupted measurement continues.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import dream_ray
from benchmarks.learning_curve import arm_config, settings
from benchmarks.report import provenance, write_result
from dream_ray.core.intervals import half_width
from dream_ray.data.arrays import eight_bits
from dream_ray.data.store.store import Store
from dream_ray.engine.evaluation.evaluate import train_and_test
from dream_ray.engine.networks.training import TensorImages
from dream_ray.engine.run.directory import open_run
from dream_ray.sets import ImageSet

REPEATS = 2


def _rounded(found: ImageSet) -> ImageSet:
    """Returns a set as an export stores it: its images in 8 bits."""
    return ImageSet((eight_bits(found.stored_LNCHW) / 255).astype("float32"), found.description)


FORMS: dict[str, Callable[[ImageSet], ImageSet]] = {
    "float32": lambda found: found,
    "8-bit mosaics": _rounded,
    "8-bit decoded images": lambda found: _rounded(found.decoded()),
}


def _data() -> str | None:
    """Returns the folder of the Parquet files of CIFAR-10, or None."""
    data = os.environ.get("DREAM_RAY_DATA")
    return data if data and (Path(data) / "cifar10-train.parquet").exists() else None


def _settings() -> dict[str, Any]:
    if _data() is None:
        return settings("digits")
    return {**settings("cifar10"), "inner_steps": 20, "checkpoint_every": 5}


def _store(scratch: Path) -> str:
    store, data = str(scratch / "store"), _data()
    if not (scratch / "store" / "manifest.json").exists():
        source = dream_ray.IngestSettings(source="digits")
        if data is not None:
            source = dream_ray.IngestSettings(
                source=f"{data}/cifar10-train.parquet", test=f"{data}/cifar10-test.parquet"
            )
        dream_ray.ingest(source, store, local=True)
    return store


def _distil(scratch: Path, seed: int) -> str:
    run, config = scratch / f"run-{seed}", arm_config(_settings(), "DREAM+", seed)
    if (run / "config.yaml").exists():
        dream_ray.resume(run, local=True)
    else:
        dream_ray.distill(config, store=_store(scratch), out=run, local=True, device="cpu", compile="off", producers=0)
    return str(run)


def measure_seed(scratch: Path, seed: int) -> dict[str, list[float]]:
    """Returns the test accuracies of the networks of a seed, by form of the images."""
    opened, found = open_run(_distil(scratch, seed)), dream_ray.sets.read(scratch / f"run-{seed}")
    store: Store = opened.open_store()
    accuracies: dict[str, list[float]] = {form: [] for form in FORMS}
    for form, make in FORMS.items():
        images = make(found)
        data = TensorImages(torch.from_numpy(images.images(layout="NCHW")), torch.from_numpy(images.labels))
        for repeat in range(REPEATS):
            kept = scratch / f"{form.replace(' ', '-')}-{seed}-{repeat}.json"
            if not kept.exists():
                normalise = opened.normalise(store, torch.device("cpu"))
                result = train_and_test(
                    opened.config, store, data, normalise, protocol="quick", split="test", repeat=repeat
                )
                kept.write_text(json.dumps(result.accuracy))
                print(form, seed, repeat, result, file=sys.stderr, flush=True)
            accuracies[form].append(json.loads(kept.read_text()))
    return accuracies


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns mean accuracy in percent by form, and what 8 bits add to float32: mean and 95 % interval over seeds."""
    means = {form: [100 * statistics.fmean(row["accuracies"][form]) for row in rows] for form in FORMS}
    exact = means.pop("float32")
    summary: dict[str, Any] = {"float32": {"mean": statistics.fmean(exact), "ci95": half_width(exact), "n": len(exact)}}
    for form, values in means.items():
        added = [value - other for value, other in zip(values, exact, strict=True)]
        summary[form] = {
            "mean": statistics.fmean(values),
            "adds": statistics.fmean(added),
            "adds_ci95": half_width(added),
            "n": len(added),
        }
    return summary


def main() -> None:
    """Measures the missing seeds and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--scratch", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in range(arguments.seeds):
        rows.append({"seed": seed, "accuracies": measure_seed(arguments.scratch, seed)})
        command = ["--seeds", str(len(rows)), "--scratch", "DIR"]
        document = {**provenance(command), "settings": _settings(), "repeats": REPEATS, "summary": summarise(rows)}
        write_result(f"eight_bits-{'digits' if _data() is None else 'cifar10'}", {**document, "rows": rows})


if __name__ == "__main__":
    main()
