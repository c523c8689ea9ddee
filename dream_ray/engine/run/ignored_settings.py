"""A table of the settings that have no effect on the synthetic set because of other settings.

The rows are about distillation. The baseline "k-means real" of an evaluation always trains a network with `update` and
`initialisation.warmup_epochs`. Settings that `--memory` chooses, such as `selection.embedding_batch`, are in no row.
"""

from collections.abc import Collection, Mapping
from operator import attrgetter
from typing import NamedTuple

from dream_ray.config import Config
from dream_ray.config.section import Section
from dream_ray.config.usual_rates import usual_configs


class Row(NamedTuple):
    """Settings and the condition under which they are ignored.

    Attributes:
        when: Values by setting; the condition holds if each setting has one of its values.
        ignored: Settings, or sections for all of their settings.
    """

    when: Mapping[str, Collection[object]]
    ignored: tuple[str, ...]


_NO_MODELS = {"initialisation.strategy": ("random", "noise", "set")}
# Strategies that take the features of models embed images as the models do, whatever the settings of a selection are.
_NO_FEATURES_AT_FIRST = {"initialisation.strategy": ("random", "herding", "easy", "noise", "set")}
_RANDOM_SELECTION = {"selection.strategy": ("random",)}
_UNCLUSTERED = {"selection.strategy": ("random", "central", "boundary")}
_UNLESS_REPRESENTATIVE = {"selection.strategy": ("random", "stratified", "central", "boundary")}
_RESTART = ("selection.restart", "selection.restart_steps")
TABLE = (
    # These networks are never trained; only that of the representative initialisation is, for `warmup_epochs`.
    Row({"source.kind": ("random",)}, ("update.warmup_epochs", "update.epochs", "update.num_images")),
    Row({"source.kind": ("random",), **_NO_FEATURES_AT_FIRST}, ("update",)),
    Row({"source.kind": ("frozen",)}, ("update", "selection.interval", *_RESTART)),
    Row({"source.kind": ("real", "random", "synthetic", "expert", "frozen")}, ("source.pool_size",)),
    Row(
        {"source.kind": ("real", "random", "pool", "synthetic", "expert")},
        ("source.models", "source.allow_weak_models"),
    ),
    Row({"source.kind": ("pool", "frozen")}, ("initialisation.warmup_epochs",)),
    Row(_NO_FEATURES_AT_FIRST, ("initialisation.warmup_epochs",)),
    Row(_NO_MODELS, ("initialisation.models", "initialisation.allow_weak_models")),
    Row(
        {"initialisation.strategy": ("representative", "random", "herding", "noise", "set")},
        ("initialisation.score", "initialisation.candidates", "initialisation.crops"),
    ),
    Row(
        {"initialisation.strategy": ("representative", "random", "herding", "easy", "noise")},
        ("initialisation.path", "initialisation.digest"),
    ),
    Row(_RANDOM_SELECTION, ("selection.interval",)),
    Row(_UNCLUSTERED, _RESTART),
    Row({"selection.strategy": ("representative", "stratified", "central", "boundary")}, ("selection.in_passes",)),
    Row({**_RANDOM_SELECTION, **_NO_FEATURES_AT_FIRST}, ("selection.normalise", "selection.precision")),
    Row({**_UNCLUSTERED, **_NO_FEATURES_AT_FIRST}, ("selection.max_steps",)),
    Row({**_UNLESS_REPRESENTATIVE, **_NO_FEATURES_AT_FIRST}, ("selection.rule",)),
    Row({"data.zca": (True,)}, ("data.normalisation",)),
    Row({"weights.gradient": (0.0,)}, ("matching.biases", "matching.classifier")),
    Row({"matching.objective": ("bidirectional",)}, ("trajectory",)),
    Row({"matching.pairing": ("anchor", "statistics")}, ("selection.interval", *_RESTART, "selection.in_passes")),
    Row({"matching.pairing": ("statistics",)}, ("matching.distance",)),
    Row({"pixels.optimizer": ("sgd",)}, ("pixels.weight_decay", "pixels.betas", "pixels.schedule")),
    Row({"pixels.optimizer": ("adamw",)}, ("pixels.momentum", "pixels.coupling")),
    # The training images of an expert are selected from scratch for every update.
    Row(
        {"matching.objective": ("trajectory",)},
        (
            *("weights", "matching.distance", "matching.biases", "matching.classifier", "matching.real_chunk"),
            *("selection.interval", *_RESTART, "selection.in_passes"),
        ),
    ),
    Row(
        {"matching.objective": ("trajectory",), **_RANDOM_SELECTION},
        ("batch_real", "selection.num_clusters", "selection.per_cluster"),
    ),
)


def changed_in_vain(config: Config) -> dict[str, list[str]]:
    """Returns the settings that were changed without effect, by the settings that are the reason.

    A setting was changed if neither its framework nor one of the framework's presets has this value. Presets contain
    settings for other selections and initialisations too.
    """
    found: dict[str, list[str]] = {}
    for path, reason in ignored(config).items():
        value = attrgetter(path)
        if value(config) not in [value(one) for one in usual_configs(config.framework)]:
            found.setdefault(reason, []).append(path)
    return found


def ignored(config: Config) -> dict[str, str]:
    """Returns the paths of the settings without effect, each with the settings that are the first reason."""
    found: dict[str, str] = {}
    for row in TABLE:
        values = {path: attrgetter(path)(config) for path in row.when}
        if all(values[path] in row.when[path] for path in row.when):
            reason = " and ".join(f"{path} {value}" for path, value in values.items())
            for path in (path for name in row.ignored for path in _paths(config, name)):
                found.setdefault(path, reason)
    return found


def _paths(config: Config, name: str) -> list[str]:
    """Returns the paths of the settings of a section, or of a single setting."""
    if "." in name:
        return [name]
    value = attrgetter(name)(config)
    return [f"{name}.{key}" for key in type(value).model_fields] if isinstance(value, Section) else [name]
