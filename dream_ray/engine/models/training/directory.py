"""The directory of a model while it is trained: what it was begun with, and the files beside those of the model."""

import hashlib
import json
from typing import Any

from dream_ray import storage
from dream_ray.data.store.store import Store
from dream_ray.engine.models.model import BEGUN, FORMAT_VERSION, is_model
from dream_ray.engine.models.spec import TrainSpec, check_training_store
from dream_ray.engine.networks.from_config import build_named
from dream_ray.engine.run.environment import check_precision, describe_environment, differences, resolve_device
from dream_ray.errors import UsageError
from dream_ray.nets.user_networks import source_digest

CHECKPOINT, METRICS, COST, PROGRESS = (
    "checkpoint.safetensors",
    "metrics.jsonl",
    "cost.json",
    "progress.json",
)
FAILURE, RAY_FILES = "failure.json", "ray_train"
"""Written by workers on Ray, and deleted at the end."""


def begin_training(spec: TrainSpec) -> dict[str, Any]:
    """Creates the directory of a training, or checks that it was begun with the same arguments; runs on a worker node.

    Args:
        spec: The training; its directory is new or empty, or that of an earlier call.

    Returns:
        What the training was begun with, the content of training.json.

    Raises:
        UsageError: If the recipe does not fit the store or the machine, or the directory holds something else.
    """
    store, device, path = Store.open(spec.store), resolve_device(spec.device), storage.join(spec.out, BEGUN)
    check_training_store(spec.recipe, store)
    check_precision(spec.recipe.precision, device)
    build_named(spec.recipe.network, store)  # raises if the network does not fit the images
    begun = {
        "format_version": FORMAT_VERSION,
        "asked": {
            "recipe": spec.recipe.model_dump(mode="json"),
            "store_checksum": store.manifest.checksum,
            "network_source": source_digest(spec.recipe.network.name),
        },
        "bits": {"workers": spec.workers, "threads": spec.threads, **describe_environment(device)},
    }
    if storage.exists(path):
        _check_same(spec, storage.read_json(path), begun)
    elif found := storage.list_directory(spec.out):
        raise UsageError(f"out must be a new or empty directory; {spec.out} has files in it, such as {found[0]}")
    storage.write_json(path, begun, indent=1)
    return begun


def _check_same(spec: TrainSpec, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises UsageError if an earlier call began another training, or one that would have other bits here."""
    if before.get("format_version") != FORMAT_VERSION:
        raise UsageError(f"{spec.out} holds the training of another version of dream_ray; use another out")
    if changed := differences(before["asked"], now["asked"]):
        raise UsageError(
            f"out {spec.out} holds another training: {'; '.join(changed)}. Repeat the command that began it to "
            "continue, or use another out"
        )
    is_bound = not spec.allow_different_bits and not is_model(spec.out)
    if is_bound and (changed := differences(before["bits"], now["bits"])):
        raise UsageError(
            f"the training in {spec.out} would continue with other bits: {'; '.join(changed)}. Allow it with "
            "--allow-different-bits"
        )


def identity(begun: dict[str, Any]) -> str:
    """Returns the digest of the arguments of a training, which its checkpoint carries."""
    return hashlib.sha256(json.dumps(begun["asked"], sort_keys=True).encode()).hexdigest()


def clean_up(path: str) -> None:
    """Deletes what only an unfinished training needs."""
    for name in (CHECKPOINT, PROGRESS, FAILURE, RAY_FILES):
        storage.delete(storage.join(path, name))


def read_progress(path: str) -> tuple[str, int, int]:
    """Returns a summary of a training that runs, the steps done, and all steps."""
    file = storage.join(path, PROGRESS)
    if not storage.exists(file):
        return "starting", 0, 0
    now = storage.read_json(file)
    parts = [f"epoch {now['epoch']} of {now['epochs']}"]
    if now["images_per_second"] is not None:
        parts.append(f"{now['images_per_second']:.0f} images/s")
    if now["validation"] is not None:
        parts.append(f"validation {100 * now['validation']:.1f} %")
    return ", ".join(parts), now["step"], now["total_steps"]
