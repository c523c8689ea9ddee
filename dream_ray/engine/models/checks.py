"""Whether a model fits its use as a frozen network: classes, images and accuracy."""

from collections.abc import Sequence

from dream_ray.data.store.store import Store
from dream_ray.engine.models.model import Model
from dream_ray.errors import UsageError

_TOLERANCE = 1e-4
_SPLITS = ("validation", "test")
"""Splits whose accuracy may show that a model is useless; validation comes first, because test data guide no choice."""


def check_fits_store(model: Model, store: Store) -> None:
    """Raises UsageError unless a model classifies the classes of a store, in their order, on images of its shape."""
    own, names = model.description.class_names, store.manifest.class_names
    remedy = (
        "Train a model on this store, or bring the outputs into its order with `dream-ray train "
        f"{store.path} --weights {model.path} --out NEW`, and --classes FILE if they have other names"
    )
    if set(own) != set(names):
        missing = [name for name in names if name not in own]
        extra = [name for name in own if name not in names]
        raise UsageError(
            f"model {model.path} must have the classes of store {store.path}; "
            + "; ".join(
                f"{what} {', '.join(map(repr, found[:5]))}{' ...' if len(found) > 5 else ''}"
                for what, found in (("it lacks", missing), ("only it has", extra))
                if found
            )
            + f". {remedy}"
        )
    if own != names:
        first = next(label for label, name in enumerate(names) if own[label] != name)
        raise UsageError(
            f"model {model.path} must have the classes in the order of store {store.path}; its output {first} is "
            f"{own[first]!r}, and class {first} of the store is {names[first]!r}. {remedy}"
        )
    if model.description.shape_CHW != store.shape_CHW:
        raise UsageError(
            f"model {model.path} must take images of the store's shape {store.shape_CHW} (channels, height, width); "
            f"it takes {model.description.shape_CHW}. Train it on this store, or ingest the images at its shape"
        )


def check_normalisation(model: Model, mean: Sequence[float], std: Sequence[float]) -> None:
    """Raises UsageError if a run normalises its images otherwise than a model expects.

    Args:
        model: The model.
        mean: Mean of each channel by the run, for pixels in [0, 1].
        std: Standard deviation of each channel by the run.
    """
    own = model.description.normalisation
    expected, found = (*own.mean, *own.std), (*mean, *std)
    if len(expected) != len(found) or any(abs(e - f) > _TOLERANCE for e, f in zip(expected, found, strict=True)):
        own_mean, own_std, mean, std = ([round(one, 5) for one in values] for values in (own.mean, own.std, mean, std))
        raise UsageError(
            f"data.normalisation must be that of model {model.path}, mean {own_mean} and std {own_std}; got mean "
            f"{mean} and std {std}. Set data.normalisation='{{mean: {own_mean}, std: {own_std}}}', or store if the "
            "model was trained on this store"
        )


def check_accuracy(model: Model, allow: str = "allow weak models") -> None:
    """Raises UsageError if the accuracy of a model may be below twice chance: if its 95 % interval begins below it.

    With two classes, where twice chance is 100 %, the level is halfway between chance and 100 %.

    Args:
        model: The model.
        allow: What to do to use it all the same, for the message.
    """
    of, num_classes = model.description.accuracy, len(model.description.class_names)
    remedy = f"Train it longer, check the order of its classes and its normalisation, or {allow}"
    split = next((split for split in _SPLITS if split in of), None)
    if split is None:
        raise UsageError(
            f"model {model.path} must have a known accuracy; its store had neither a validation nor a test split. "
            f"Ingest with --validation 0.1, or {allow}"
        )
    level = min(2 / num_classes, (1 + 1 / num_classes) / 2)
    if of[split].lowest < level:
        raise UsageError(
            f"model {model.path} must have an accuracy of at least {100 * level:.3g} %, twice chance, with 95 % "
            f"confidence; its {100 * of[split].accuracy:.3g} % on {of[split].n} {split} images may be "
            f"{100 * of[split].lowest:.3g} %. {remedy}"
        )
