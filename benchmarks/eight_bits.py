"""What the clamp and 8 bits cost in accuracy: the same networks on several forms of the same images.

    DREAM_RAY_DATA=... python -m benchmarks.eight_bits --seeds 6 --scratch DIR
    DREAM_RAY_DATA=... python -m benchmarks.eight_bits --framework cim --seeds 5 --scratch DIR

The runs of DREAM+ are those of `benchmarks.learning_curve` (CIFAR-10, 10 images per class, factor 2), ended after 20
inner steps; without the environment variable, those on the digits. CIM runs at 10 images per class of CIFAR-10 with a
ConvNet-3 of width 16, trained for 5 epochs anew for each seed; its optimizer leaves [0, 1], so its exact images are
those before the clamp at the end of a run. A seed distils one set. Networks with equal numbers start from equal weights
and see equal batches, so the difference of a seed is that of the images alone. Each result is kept in DIR, so an
interrupted measurement continues.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dream_ray
from benchmarks.learning_curve import arm_config, settings
from benchmarks.report import provenance, write_result
from dream_ray.config import Config, parse_config, read_settings
from dream_ray.core.intervals import half_width
from dream_ray.data.arrays import eight_bits
from dream_ray.engine.evaluation.evaluate import train_and_test
from dream_ray.engine.networks.training import TensorImages
from dream_ray.engine.run.directory import Run, open_run
from dream_ray.sets import ImageSet

REPEATS = 2
_CIM_STEPS = 200


def _rounded(found: ImageSet) -> ImageSet:
    """Returns a set as an export stores it: its images in 8 bits."""
    return ImageSet((eight_bits(found.stored_LNCHW) / 255).astype("float32"), found.description)


def _clamped(found: ImageSet) -> ImageSet:
    return ImageSet(found.stored_LNCHW.clip(0, 1), found.description)


FORMS: dict[str, Callable[[ImageSet], ImageSet]] = {
    "float32": lambda found: found,
    "float32, clamped": _clamped,
    "8-bit mosaics": _rounded,
    "8-bit decoded images": lambda found: _rounded(found.decoded()),
}


@dataclass(frozen=True)
class Framework:
    """A framework whose sets are measured.

    Attributes:
        settings: Returns the settings that all seeds share, from whether CIFAR-10 is at hand.
        config: Returns the configuration of a seed from these settings, the store and the directory for models.
        exact_step: Step whose images are the exact ones, unclamped; None: the finished set.
        forms: Forms that are measured, keys of `FORMS`.
    """

    settings: Callable[[bool], dict[str, Any]]
    config: Callable[[dict[str, Any], int, str, Path], Config]
    exact_step: int | None
    forms: tuple[str, ...]


def _dream_plus_settings(has_cifar10: bool) -> dict[str, Any]:
    return {**settings("cifar10"), "inner_steps": 20, "checkpoint_every": 5} if has_cifar10 else settings("digits")


def _cim_settings(has_cifar10: bool) -> dict[str, Any]:
    if not has_cifar10:
        raise SystemExit("--framework cim needs DREAM_RAY_DATA: tiles of the digits have 4 x 4 pixels")
    shared = read_settings(preset="cifar10-ipc10-cim")
    shared["network"]["options"]["width"] = 16
    # The clamp follows the last step, so the step before it is the last one of the preset.
    return {**shared, "inner_steps": _CIM_STEPS + 1, "checkpoint_every": _CIM_STEPS}


def _cim_config(shared: dict[str, Any], seed: int, store: str, models: Path) -> Config:
    network = dream_ray.Network(**shared["network"])
    model = dream_ray.train(
        store, out=models / str(seed), network=network, epochs=5, recipe={"seed": seed}, local=True, device="cpu"
    )
    return parse_config({**shared, "seed": seed, "source": {"kind": "frozen", "models": [model.path]}})


FRAMEWORKS = {
    "dream_plus": Framework(
        _dream_plus_settings,
        lambda shared, seed, store, models: arm_config(shared, "DREAM+", seed),
        None,
        ("float32", "8-bit mosaics", "8-bit decoded images"),
    ),
    "cim": Framework(_cim_settings, _cim_config, _CIM_STEPS, tuple(FORMS)),
}


def _data() -> str | None:
    """Returns the folder of the Parquet files of CIFAR-10, or None."""
    data = os.environ.get("DREAM_RAY_DATA")
    return data if data and (Path(data) / "cifar10-train.parquet").exists() else None


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


def _distil(framework: Framework, scratch: Path, seed: int) -> Run:
    run, store = scratch / f"run-{seed}", _store(scratch)
    if (run / "config.yaml").exists():
        dream_ray.resume(run, local=True)
    else:
        config = framework.config(framework.settings(_data() is not None), seed, store, scratch / "models")
        dream_ray.distill(config, store=store, out=run, local=True, device="cpu", compile="off", producers=0)
    return open_run(str(run))


def _exact_images(framework: Framework, run: Run) -> ImageSet:
    found = dream_ray.sets.read(run.path)
    if framework.exact_step is None:
        return found
    stored = run.checkpoints().open_images(framework.exact_step)
    images = [stored.read(label).numpy() for label in range(len(found.class_names))]
    return ImageSet(np.stack(images), found.description)


def measure_seed(framework: Framework, scratch: Path, seed: int) -> dict[str, Any]:
    """Returns the test accuracies of the networks of a seed by form of the images, and the share of values outside."""
    run = _distil(framework, scratch, seed)
    store, found = run.open_store(), _exact_images(framework, run)
    accuracies: dict[str, list[float]] = {form: [] for form in framework.forms}
    for form in framework.forms:
        images = FORMS[form](found)
        data = TensorImages(torch.from_numpy(images.images(layout="NCHW")), torch.from_numpy(images.labels))
        for repeat in range(REPEATS):
            kept = scratch / f"{form.replace(' ', '-')}-{seed}-{repeat}.json"
            if not kept.exists():
                normalise = run.normalise(store, torch.device("cpu"))
                result = train_and_test(
                    run.config, store, data, normalise, protocol="quick", split="test", repeat=repeat
                )
                kept.write_text(json.dumps(result.accuracy))
                print(form, seed, repeat, result, file=sys.stderr, flush=True)
            accuracies[form].append(json.loads(kept.read_text()))
    outside = (found.stored_LNCHW < 0) | (found.stored_LNCHW > 1)
    return {"seed": seed, "accuracies": accuracies, "share_outside": float(outside.mean())}


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns mean accuracy in percent by form, and what a form adds to float32: mean and 95 % interval over seeds."""
    means = {form: [100 * statistics.fmean(row["accuracies"][form]) for row in rows] for form in rows[0]["accuracies"]}
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
    parser.add_argument("--framework", choices=FRAMEWORKS, default="dream_plus")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--scratch", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    name, framework = arguments.framework, FRAMEWORKS[arguments.framework]
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    given = framework.settings(_data() is not None)
    rows = []
    for seed in range(arguments.seeds):
        rows.append(measure_seed(framework, arguments.scratch, seed))
        command = ["--framework", name, "--seeds", str(len(rows)), "--scratch", "DIR"]
        document = {**provenance(command), "settings": given, "repeats": REPEATS, "summary": summarise(rows)}
        of_framework = "" if name == "dream_plus" else f"-{name}"
        data = "digits" if _data() is None else "cifar10"
        write_result(f"eight_bits{of_framework}-{data}", {**document, "rows": rows})


if __name__ == "__main__":
    main()
