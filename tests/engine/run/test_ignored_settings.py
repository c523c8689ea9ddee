"""Settings without effect because of others: they change no bit, and a change gives a warning."""

import copy
from operator import attrgetter
from typing import Any

import pytest
import torch
from torch import Tensor

from dream_ray import api
from dream_ray.config import FRAMEWORKS, PRESETS, Config, load_config, parse_config, put
from dream_ray.config.frameworks import overlay
from dream_ray.data.store.store import Store
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.checks import check_fit
from dream_ray.engine.run.ignored_settings import TABLE, Row, changed_in_vain, ignored
from tests.frameworks import tiny_run
from tests.models import with_untrained

# Another value for every setting that is ignored somewhere; switches are turned.
OTHER: dict[str, Any] = {
    "batch_real": 3,
    "data.normalisation": {"mean": [0.5], "std": [0.25]},
    "initialisation.warmup_epochs": 2,
    "initialisation.path": "nowhere.parquet",
    "initialisation.digest": "0",
    "initialisation.models": ("nowhere",),
    "initialisation.score": "el2n",
    "initialisation.candidates": 999,
    "initialisation.crops": 3,
    "matching.distance": "cosine",
    "matching.real_chunk": 2,
    "selection.interval": 1,
    "selection.max_steps": 1,
    "selection.num_clusters": 4,
    "selection.per_cluster": 2,
    "selection.precision": "bfloat16",
    "selection.rule": "any",
    "selection.restart": "warm",
    "selection.restart_steps": 0,
    "pixels.betas": (0.5, 0.5),
    "pixels.coupling": "joint",
    "pixels.momentum": 0.25,
    "pixels.schedule": "cosine",
    "pixels.weight_decay": 0.5,
    "source.models": ("nowhere",),
    "source.pool_size": 2,
    "trajectory.expert_steps": 3,
    "trajectory.max_start": 4,
    "trajectory.num_experts": 5,
    "trajectory.segments": 2,
    "trajectory.start_growth": 6,
    "trajectory.step_size": 0.5,
    "trajectory.step_size_lr": 0.5,
    "trajectory.student_batch": 2,
    "trajectory.student_steps": 7,
    "update.augmentation": "none",
    "update.batch_size": 8,
    "update.cutmix_probability": 0.25,
    "update.epochs": 3,
    "update.sam_radius": 0.1,
    "update.lr": 0.5,
    "update.momentum": 0.25,
    "update.num_images": 8,
    "update.warmup_epochs": 2,
    "update.weight_decay": 0.125,
    "weights.feature": 3.0,
    "weights.gradient": 2.0,
    "weights.label": 2.0,
}

# Framework, selection, and what else; together they meet the condition of every row.
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("dm", "random", {}),
    ("dm", "representative", {}),
    ("dm", "random", {"initialisation": {"strategy": "representative"}}),
    ("dc", "random", {"initialisation": {"strategy": "noise"}}),
    ("dream_plus", "representative", {"source": {"kind": "pool"}}),
    ("dream_plus", "representative", {"initialisation": {"strategy": "random"}}),
    ("idc", "random", {"initialisation": {"strategy": "representative"}}),
    ("dream_plus", "stratified", {}),
    ("dream_plus", "boundary", {}),
    ("mtt", "random", {}),
    ("mtt", "random", {"data": {"zca": True}}),
    ("mtt", "representative", {}),
    ("dream_plus", "representative", {"source": {"kind": "frozen", "allow_weak_models": True}}),
    ("cim", "representative", {}),
    ("statistics", "representative", {}),
]


def settings_of(framework: str, strategy: str, more: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(overlay(tiny_run(framework, strategy), more))


def holds(row: Row, config: Config) -> bool:
    return all(attrgetter(path)(config) in values for path, values in row.when.items())


def distilled(settings: dict[str, Any], store: str, out: str) -> Tensor:
    api.distill(parse_config(settings), store=store, out=out, local=True)
    return read_synthetic(f"{out}/synthetic.parquet")[0].images_LNCHW


def test_the_cases_cover_every_row() -> None:
    configs = [parse_config(settings_of(*case)) for case in CASES]
    assert all(any(holds(row, config) for config in configs) for row in TABLE)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_ignored_settings_change_no_bit(
    case: tuple[str, str, dict[str, Any]], four_digits_store: str, out: str
) -> None:
    settings = settings_of(*case)
    settings = with_untrained(settings, four_digits_store, f"{out}-model")
    before = distilled(settings, four_digits_store, f"{out}-before")
    paths = ignored(parse_config(settings))
    for path in paths:
        value = attrgetter(path)(parse_config(settings))
        assert isinstance(value, bool) or value != OTHER[path]
        put(settings, path, not value if isinstance(value, bool) else OTHER[path])
    # Some are conditions themselves, and what they make of the others is another matter.
    assert paths.keys() <= ignored(parse_config(settings)).keys()
    assert torch.equal(distilled(settings, four_digits_store, f"{out}-after"), before)


@pytest.mark.parametrize(
    ("framework", "changed", "named"),
    [
        (
            "mtt",
            {"weights": {"feature": 0.5}, "matching": {"distance": "l1"}},
            ["weights.feature", "matching.distance"],
        ),
        ("mtt", {"matching": {"real_chunk": 32, "classifier": True}}, ["matching.classifier", "matching.real_chunk"]),
        ("mtt", {"trajectory": {"student_steps": 5}, "update": {"lr": 0.5}}, []),
        ("mtt", {"batch_real": 64}, ["batch_real"]),
        ("mtt", {"data": {"zca": True, "normalisation": {"mean": [0.5], "std": [0.5]}}}, ["data.normalisation"]),
        (
            "mtt",
            {"data": {"zca": True, "normalisation": {"mean": [0.5] * 3, "std": [0.5] * 3}}},
            ["data.normalisation"],
        ),
        ("mtt", {"data": {"zca": True}}, []),
        ("dm", {"trajectory": {"student_steps": 5}}, ["trajectory.student_steps"]),
        ("dm", {"matching": {"distance": "l1"}}, []),
        ("dm", {"matching": {"biases": True}}, ["matching.biases"]),
        ("dm", {"update": {"lr": 0.5, "epochs": 3}}, ["update.epochs", "update.lr"]),
        (
            "dm",
            {"update": {"lr": 0.5, "epochs": 3}, "initialisation": {"strategy": "representative"}},
            ["update.epochs"],
        ),
        ("dm", {"source": {"pool_size": 3}}, ["source.pool_size"]),
        ("dm", {"selection": {"interval": 3}}, ["selection.interval"]),
        ("dm", {"selection": {"interval": 3, "strategy": "representative"}}, []),
        ("dm", {"initialisation": {"warmup_epochs": 3}}, ["initialisation.warmup_epochs"]),
        ("dm", {"update": {"lr": 0.01}, "selection": {"interval": 10}}, []),
        ("idc", {"source": {"kind": "pool", "pool_size": 3}}, []),
    ],
)
def test_settings_changed_without_effect_are_named(
    four_digits_store: str,
    caplog: pytest.LogCaptureFixture,
    framework: str,
    changed: dict[str, Any],
    named: list[str],
) -> None:
    check_fit(
        parse_config({"ipc": 1, "framework": framework, "network": {"options": {"depth": 2}}, **changed}),
        Store.open(four_digits_store),
    )
    told = [message.partition("changed; with")[0] for message in caplog.messages if "changed; with" in message]
    names = [name for text in told for name in text.removesuffix(" were ").removesuffix(" was ").split(", ")]
    assert sorted(names) == sorted(named)
    assert len(told) <= 2, "one for each reason"


def test_the_warning_gives_the_reason(four_digits_store: str, caplog: pytest.LogCaptureFixture) -> None:
    changed = {"selection": {"rule": "any"}, "network": {"options": {"depth": 2}}}
    check_fit(parse_config({"ipc": 1, "framework": "dm", **changed}), Store.open(four_digits_store))
    assert caplog.messages == [
        "selection.rule was changed; with selection.strategy random and initialisation.strategy random it has no "
        "effect on the synthetic set."
    ]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_change_no_setting_without_effect(name: str) -> None:
    assert not list(changed_in_vain(load_config(preset=name)))


@pytest.mark.parametrize("strategy", ["random", "representative"])
@pytest.mark.parametrize("name", PRESETS)
def test_another_selection_of_a_preset_gives_no_warning_about_the_preset(name: str, strategy: str) -> None:
    """The settings of a preset are for its own selection, and the user did not change them."""
    assignments = [f"selection.strategy={strategy}", f"initialisation.strategy={strategy}"]
    assert not list(changed_in_vain(load_config(preset=name, assignments=assignments)))


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_framework_alone_changes_no_setting_without_effect(name: str) -> None:
    assert not list(changed_in_vain(parse_config({"framework": name})))
