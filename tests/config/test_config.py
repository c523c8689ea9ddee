"""Settings: rules with their messages, assignments, and presets against the published table."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import ValidationError

from dream_ray.config import FRAMEWORKS, PRESETS, Config, dump_config, load_config, parse_config
from dream_ray.config.sections import ChannelStatistics, Evaluation, Matching, Network, Selection
from dream_ray.core.images.multiformation import DECODE_MODES
from dream_ray.core.matching.objectives import DISTANCES
from dream_ray.core.selection.picking import PICKS
from dream_ray.core.selection.strategies import STRATEGIES
from dream_ray.errors import UsageError

BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"ipc": 0}, r"ipc must follow the rule: input should be greater than or equal to 1; got 0"),
    ({"ipc": "many"}, r"ipc must follow the rule: .*valid integer.*; got 'many'"),
    ({"pixels": {"momentum": 1.0}}, r"pixels\.momentum must follow the rule: .*less than 1; got 1\.0"),
    ({"decode": "double"}, r"decode must follow the rule: .*'single', 'multi' or 'bound'; got 'double'"),
    ({"weights": {"feature": 0, "gradient": 0}}, r"weights\.feature and gradient cannot both be 0"),
    ({"matching": {"augmentation": "colour"}}, r"augmentation must be 'none' or .*got 'colour'"),
    ({"batch_real": 100}, r"batch_real must be .* \(128\) with selection.strategy representative; got 100"),
    ({"evaluation": {"every": 50}}, r"evaluation\.every needs data\.include_validation=false"),
    (
        {"evaluation": {"every": 60}, "data": {"include_validation": False}},
        r"evaluation\.every must be a multiple of checkpoint_every \(50\); got 60",
    ),
    ({"version": 2}, r"version must be 1, the one this dream_ray reads; got 2"),
    ({"ipx": 3}, r"ipx is not a known setting; did you mean ipc\?"),
    (
        {"selection": {"intervall": 3}},
        r"selection\.intervall is not a known setting; did you mean selection\.interval\?",
    ),
    (
        {"evaluation": {"network": {"nam": "x"}}},
        r"evaluation\.network\.nam is .*did you mean evaluation\.network\.name\?",
    ),
    (
        {"data": {"normalisation": {"mean": [0.5], "std": [0.0]}}},
        r"data\.normalisation\.std\.0 must follow the rule: input should be greater than 0; got 0\.0$",
    ),
    (
        {"data": {"normalisation": {"mean": [0.5, 0.5], "std": [0.2]}}},
        r"data\.normalisation\.mean and std must have one number per channel; got 2 and 1$",
    ),
    (
        {"data": {"normalisation": {"mean": [0.5], "std": [float("inf")]}}},
        r"data\.normalisation\.std\.0 must follow the rule: input should be a finite number; got inf$",
    ),
    (
        {"data": {"normalisation": 0.5}},
        r"data\.normalisation must follow the rule: input should be 'store' or a mapping of mean and std; got 0\.5$",
    ),
    (
        {"data": {"normalisation": "cifar10"}},
        r"data\.normalisation must follow the rule: input should be 'store'; got 'cifar10'$",
    ),
    (
        {"data": {"normalisation": {"mean": [0.5], "std": [0.5], "sdt": [0.5]}}},
        r"data\.normalisation\.sdt is not a known setting; did you mean data\.normalisation\.std\?$",
    ),
    ({"update": {"zzz": 3}}, r"update\.zzz is not a known setting; settings there: warmup_epochs, epochs, .*"),
]


@pytest.mark.parametrize(("values", "message"), BROKEN)
def test_a_broken_rule_names_setting_rule_and_value(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        parse_config(values)


def test_each_broken_rule_has_a_line() -> None:
    with pytest.raises(UsageError) as error:
        parse_config({"ipc": 0, "factor": 0})
    assert len(str(error.value).splitlines()) == 2


def test_random_selection_takes_any_batch() -> None:
    assert parse_config({"batch_real": 100, "selection": {"strategy": "random"}}).real_batch == 100


@pytest.mark.parametrize(
    ("assignment", "section", "expected"),
    [
        ("pixels.lr=5e-3", "pixels.lr", 0.005),
        ("selection.num_clusters=64", "selection.num_clusters", 64),
        ("network.options.width=32", "network.options", {"depth": 3, "width": 32, "norm": "instance"}),
        ("evaluation.network.name=resnet18", "evaluation.network.name", "resnet18"),
        ("batch_real=null", "batch_real", None),
        ("data.normalisation={mean: [0.5], std: [2]}", "data.normalisation", ChannelStatistics(mean=(0.5,), std=(2,))),
        ("data.normalisation=store", "data.normalisation", "store"),
        ("network.options.drop=5e-1", "network.options", {"depth": 3, "width": 128, "norm": "instance", "drop": 0.5}),
    ],
)
def test_assignments(assignment: str, section: str, expected: object) -> None:
    value: Any = load_config(preset="cifar10-ipc10", assignments=[assignment])
    for part in section.split("."):
        value = getattr(value, part)
    assert value == expected


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("ipc", "--set must look like section.key=value; got 'ipc'"),
        ("ipc.x=1", "ipc is a value, not a section"),
        ("ipc=[", r"--set 'ipc=\[': the value must be YAML"),
        ("ipc=2020-13-45", "--set 'ipc=2020-13-45': the value must be YAML: month must be in"),
    ],
)
def test_wrong_assignments(assignment: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_config(preset="cifar10-ipc10", assignments=[assignment])


def test_an_assignment_changes_no_other_configuration() -> None:
    """Presets share values."""
    before = {name: load_config(preset=name) for name in PRESETS}
    for name in PRESETS:
        load_config(preset=name, assignments=["selection.num_clusters=5", "evaluation.epochs=7", "pixels.lr=1.5"])
    assert {name: load_config(preset=name) for name in PRESETS} == before


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("- a list", "contain a mapping"),
        ("a: [", "be YAML"),
        ("just text", "contain a mapping"),
        ("ipc: 2020-13-45", "be YAML"),
    ],
)
def test_a_file_without_a_mapping_is_refused(tmp_path: Path, text: str, rule: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=f"must {rule}"):
        load_config(file=str(path))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_a_round_trip_through_a_file(name: str, tmp_path: Path) -> None:
    config = load_config(preset=name)
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    assert load_config(file=str(path)) == config
    assert yaml.safe_load(path.read_text())["version"] == 1


@pytest.mark.parametrize("value", ["5e-1", 0.5, "1e3", 1e-7, "2", 2, ".5e3", "no", "text"])
def test_numbers_and_texts_survive_a_round_trip_through_a_file(tmp_path: Path, value: object) -> None:
    """Unquoted 5e-1 is a number everywhere, unlike in YAML 1.1."""
    config = parse_config({"network": {"options": {"mine": value}}})
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    found = load_config(file=str(path)).network.options["mine"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["5e-1", "+5.e-1", ".5e0", "50E-2"])
def test_numbers_in_a_file_may_be_scientific(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"network: {{options: {{drop: {text}}}}}")
    assert load_config(file=str(path)).network.options["drop"] == 0.5


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load_config(preset="smoke").ipc = 3  # type: ignore[misc]


# The published settings: preset, network, ipc, distance, scaled pixel lr, images per update, clusters, CutMix while
# distilling, evaluation epochs.
PUBLISHED = [
    ("cifar10-ipc1", "convnet", 1, "mse", 5e-4, 2000, 128, 0.5, 1000),
    ("cifar10-ipc10", "convnet", 10, "mse", 5e-3, 2000, 128, 0.5, 1000),
    ("cifar10-ipc50", "convnet", 50, "mse", 2.5e-2, 2000, 128, 0.5, 1000),
    ("cifar100-ipc10", "convnet", 10, "mse", 5e-3, 2000, 128, 0.5, 1000),
    ("svhn-ipc10", "convnet", 10, "mse", 5e-3, 500, 128, 0.5, 1000),
    ("mnist-ipc10", "convnet", 10, "l1", 1e-4, 500, 128, 0.0, 1000),
    ("fashion-mnist-ipc10", "convnet", 10, "l1", 1e-4, 500, 128, 0.5, 1000),
    ("tiny-imagenet-ipc10", "convnet", 10, "mse", 2e-2, 1000, 64, 0.5, 1000),
    ("tiny-imagenet-ipc50", "convnet", 50, "mse", 2e-5, 1000, 64, 0.5, 1000),
    ("imagenet10-ipc10", "resnetap10", 10, "l1", 3e-3, 500, 128, 1.0, 1000),
    ("imagenet10-ipc20", "resnetap10", 20, "l1", 6e-3, 500, 128, 1.0, 1000),
    ("imagenet100-ipc10", "resnetap10", 10, "l1", 1e-3, 500, 128, 1.0, 600),
    ("imagenet100-ipc20", "resnetap10", 20, "l1", 2e-3, 500, 128, 1.0, 600),
]


@pytest.mark.parametrize("row", PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_presets_hold_the_published_settings(row: tuple[Any, ...]) -> None:
    config = load_config(preset=row[0])
    assert (config.network.name, config.ipc, config.matching.distance) == row[1:4]
    assert config.pixels.lr == pytest.approx(row[4])
    assert (config.update.num_images, config.real_batch, config.update.cutmix_probability) == row[5:8]
    assert config.evaluation.epochs == row[8]
    assert config.update.batch_size == (64 if "tiny" in row[0] else 128)
    assert (config.pixels.momentum, config.batch_synthetic_max, config.inner_steps) == (0.5, 128, 100)
    assert (config.weights.feature, config.weights.gradient, config.selection.interval) == (1.0, 1.0, 10)


def test_presets_with_special_settings() -> None:
    assert load_config(preset="tiny-imagenet-ipc10").selection.rule == "any"
    assert load_config(preset="tiny-imagenet-ipc10").network.options["depth"] == 4
    assert load_config(preset="mnist-ipc10").matching.augmentation == "color_crop"
    assert "flip" not in load_config(preset="svhn-ipc10").evaluation.augmentation
    imagenet10, imagenet100 = (load_config(preset=f"imagenet{n}-ipc20") for n in (10, 100))
    assert (imagenet10.decode, imagenet10.evaluation_decode, imagenet10.factor) == ("bound", "single", 3)
    assert (imagenet10.update.warmup_epochs, imagenet100.update.warmup_epochs) == (10, 5)
    assert (imagenet100.update.lr, imagenet100.update.weight_decay) == (0.1, 1e-4)
    assert (imagenet10.evaluation.batch_size, imagenet100.evaluation.batch_size) == (64, 128)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_other_settings_override_those_of_a_framework(name: str) -> None:
    config = parse_config({"framework": name, "pixels": {"lr": 0.125}, "selection": {"strategy": "representative"}})
    assert config.framework == name
    assert config.pixels.lr == 0.125
    assert config.selection.strategy == "representative"
    for section, values in FRAMEWORKS[name].settings.items():
        if section not in ("pixels", "selection") and isinstance(values, dict):
            found = getattr(config, section).model_dump()
            assert {key: found[key] for key in values} == {
                key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
            }


# The other frameworks' settings at 10 images per class: outer and inner steps, pixel lr, epochs between two matches.
OTHERS = [
    ("dc-cifar10-ipc1", 1000, 1, 0.1, 1),
    ("dc-cifar10-ipc10", 1000, 10, 0.1, 50),
    ("dsa-cifar100-ipc50", 1000, 50, 0.1, 10),
    ("dm-cifar10-ipc10", 200, 100, 1.0, 1),
    ("idc-cifar10-ipc10", 2000, 100, 5e-3, 1),
    ("dream-cifar10-ipc10", 1200, 100, 5e-3, 1),
    ("mtt-cifar100-ipc1", 50, 100, 1e3, 1),
]


@pytest.mark.parametrize("row", OTHERS, ids=[row[0] for row in OTHERS])
def test_presets_of_other_frameworks_hold_their_published_settings(row: tuple[Any, ...]) -> None:
    config = load_config(preset=row[0])
    assert (config.outer_steps, config.inner_steps) == row[1:3]
    assert config.pixels.lr == pytest.approx(row[3])
    assert config.update.epochs == row[4]
    assert config.framework == row[0].split("-")[0]


def test_sections_made_in_python_override_a_framework_as_plain_values_do() -> None:
    made = Config(
        framework="dc",
        matching=Matching(biases=True),
        evaluation=Evaluation(network=Network(name="resnet10"), epochs=7),
        selection=Selection(),
    )
    written = {"matching": {"biases": True}, "evaluation": {"network": {"name": "resnet10"}, "epochs": 7}}
    assert made == parse_config({"framework": "dc", **written})
    assert (made.matching.distance, made.matching.classifier, made.matching.biases) == ("cosine", True, True)
    assert (made.evaluation.batch_size, made.evaluation.lr_milestones) == (256, (0.5,))


def test_a_section_of_another_kind_is_refused() -> None:
    with pytest.raises(ValidationError, match="distance"):
        Config(framework="dc", pixels=Matching(distance="mse"))  # type: ignore[arg-type]


LOOPS = {
    "dc": (1000, 10, 50),
    "dsa": (1000, 10, 50),
    "dm": (200, 100, 1),
    "idc": (2000, 100, 1),
    "dream": (1200, 100, 1),
    "dream_plus": (1200, 100, 1),
    "mtt": (50, 100, 1),
}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_framework_alone_has_its_usual_loop(name: str) -> None:
    """Outer and inner steps, and epochs of an update."""
    config = parse_config({"framework": name})
    assert (config.outer_steps, config.inner_steps, config.update.epochs) == LOOPS[name]


# MTT's rows: data, ipc, student steps, expert epochs, latest start, lr of pixels and of the step size, step size, ZCA,
# batch.
MTT = [
    ("cifar10", 1, 50, 2, 2, 100, 1e-7, 0.01, True, None),
    ("cifar10", 10, 30, 2, 20, 100, 1e-5, 0.001, True, None),
    ("cifar10", 50, 30, 2, 40, 1000, 1e-5, 0.001, False, None),
    ("cifar100", 1, 20, 3, 20, 1000, 1e-5, 0.01, True, None),
    ("cifar100", 10, 20, 2, 20, 1000, 1e-5, 0.01, False, None),
    ("cifar100", 50, 80, 2, 40, 1000, 1e-5, 0.01, True, 125),
    ("tiny-imagenet", 1, 10, 2, 10, 10_000, 1e-4, 0.01, False, None),
    ("tiny-imagenet", 10, 20, 2, 40, 10_000, 1e-4, 0.01, False, 200),
    ("tiny-imagenet", 50, 20, 2, 40, 10_000, 1e-4, 0.01, False, 300),
]


@pytest.mark.parametrize("row", MTT, ids=[f"{row[0]}-ipc{row[1]}" for row in MTT])
def test_presets_of_mtt_are_its_authors_commands(row: tuple[Any, ...]) -> None:
    config = load_config(preset=f"mtt-{row[0]}-ipc{row[1]}")
    found = config.trajectory
    assert (config.ipc, found.student_steps, found.expert_steps, found.max_start) == row[1:5]
    assert (config.pixels.lr, found.step_size_lr, found.step_size) == row[5:8]
    assert (config.data.zca, found.student_batch) == row[8:]
    assert len(FRAMEWORKS["mtt"].presets) == len(MTT)


def test_frameworks_with_special_settings() -> None:
    dc, dsa, dm = (load_config(preset=f"{name}-cifar10-ipc10") for name in ("dc", "dsa", "dm"))
    assert (dc.matching.distance, dc.matching.classifier, dc.matching.biases) == ("cosine", True, False)
    assert (dc.initialisation.strategy, dsa.initialisation.strategy) == ("noise", "random")
    assert {config.real_batch for config in (dc, dsa, dm)} == {256}
    assert {(config.pixels.coupling, config.pixels.space) for config in (dc, dsa, dm)} == {("joint", "normalised")}
    assert (dc.evaluation.epochs, dsa.evaluation.epochs, dm.evaluation.epochs) == (300, 1000, 1000)
    mtt = load_config(preset="mtt-cifar100-ipc1")
    assert (mtt.trajectory.student_steps, mtt.trajectory.expert_steps, mtt.trajectory.max_start) == (20, 3, 20)
    assert (mtt.data.zca, mtt.trajectory.step_size_lr, mtt.trajectory.num_experts) == (True, 1e-5, 100)
    idc, dream = load_config(preset="idc-cifar10-ipc10"), load_config(preset="dream-cifar10-ipc10")
    assert (idc.real_batch, dream.real_batch) == (64, 128)
    assert (idc.update.batch_size, dream.update.batch_size) == (64, 128)
    assert (idc.update.warmup_epochs, dream.update.warmup_epochs) == (0, 0)


@pytest.mark.parametrize("data", FRAMEWORKS["idc"].presets)
def test_idc_trains_its_networks_in_batches_of_its_real_batch(data: str) -> None:
    config = load_config(preset=f"idc-{data}")
    size = 128 if data.startswith("imagenet100") else 64
    assert (config.update.batch_size, config.real_batch) == (size, size)


@pytest.mark.parametrize("framework", ["", "dream-", "idc-"])
def test_the_networks_of_imagenet100_are_a_pool(framework: str) -> None:
    hundred, ten = (load_config(preset=f"{framework}imagenet{number}-ipc10") for number in (100, 10))
    assert (hundred.source.kind, hundred.source.pool_size) == ("pool", 10)
    assert (hundred.update.batch_size, hundred.update.warmup_epochs) == (128, 5)
    assert (ten.source.kind, ten.update.warmup_epochs) == ("real", 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"framework": "mt"}, "framework must be one of dc, dsa, .*; got 'mt'"),
        ({"framework": "mtt", "source": {"kind": "pool"}}, "source.kind must be expert with .*trajectory; got pool"),
        ({"source": {"kind": "expert"}, "update": {"warmup_epochs": 0}}, "objective must be trajectory with .*expert"),
        ({"framework": "mtt", "pixels": {"coupling": "sequential"}}, "pixels.coupling must be joint .*got sequential"),
        ({"framework": "dc", "update": {"warmup_epochs": 2}}, "update.warmup_epochs must be 0 .*synthetic; got 2"),
        ({"framework": ["dc"]}, r"framework must be one of dc, dsa, .*; got \['dc'\]"),
        ({"framework": "mtt", "update": {"epochs": 0}}, "update.epochs must be an int >= 1 with .*expert.*; got 0"),
        ({"evaluation": {"lr": None}}, "evaluation.lr must be a number > 0 .*got null"),
        ({"data": {"zca": True}}, "pixels.space must be normalised and factor 1 with data.zca.*got unit and 2"),
        (
            {"evaluation": {"lr_milestones": [0.5, 1.5]}},
            r"evaluation\.lr_milestones\.1 must follow the rule: input should be less than 1; got 1\.5",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_config(settings)


@pytest.mark.parametrize(
    ("section", "setting", "known"),
    [
        (Config, "decode", DECODE_MODES),
        (Matching, "distance", tuple(DISTANCES)),
        (Selection, "rule", tuple(PICKS)),
        (Selection, "strategy", (*STRATEGIES, "random")),
    ],
)
def test_choices_of_settings_are_those_of_the_core(section: Any, setting: str, known: tuple[str, ...]) -> None:
    assert set(get_args(section.model_fields[setting].annotation)) == set(known)
