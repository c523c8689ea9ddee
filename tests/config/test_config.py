"""Settings: rules with their messages, and assignments."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import ValidationError

from dream_ray.config import FRAMEWORKS, PRESETS, Config, dump_config, load_config, parse_config
from dream_ray.config.normalisation import ChannelStatistics
from dream_ray.config.presets import report_misfit
from dream_ray.config.sections import Evaluation, Matching, Network, Selection
from dream_ray.core.images.decode_schedule import DECODE_MODES
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
        r"evaluation\.every must be a multiple of checkpoint_every \(50\), because .*; got 60: "
        r"set evaluation\.every=100 or checkpoint_every=10$",
    ),
    (
        {"initialisation": {"strategy": "easy"}},
        r"initialisation\.models must name one model or more, .* `dream-ray train` wrote, .* easy; got none$",
    ),
    (
        {"initialisation": {"strategy": "herding", "models": ["a", "b"]}},
        r"initialisation\.models must name one model, .* with initialisation\.strategy herding; got 2$",
    ),
    (
        {"initialisation": {"strategy": "representative", "models": ["a", "b"]}},
        r"initialisation\.models must name at most one model with .* representative; got 2$",
    ),
    (
        {"initialisation": {"strategy": "easy", "models": ["a"], "candidates": 39}, "ipc": 10, "factor": 2},
        r"initialisation\.candidates must be at least ipc \* factor\^2 \(40\), the tiles of a class; got 39$",
    ),
    ({"version": 2}, r"version must be 1, the one this dream_ray reads; got 2"),
    (
        {"lr": 0.1},
        r"lr is not a known setting; did you mean pixels\.lr or update\.lr or evaluation\.lr\?$",
    ),
    ({"zzzzzzz": 0.1}, r"zzzzzzz is not a known setting; `dream-ray settings` lists all$"),
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
        ("ipc=2020-13-45", "ipc must follow the rule: .*; got '2020-13-45'"),
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
    assert (made.evaluation.batch_size, made.evaluation.restart_momentum) == (256, True)


def test_a_section_of_another_kind_is_refused() -> None:
    with pytest.raises(ValidationError, match="distance"):
        Config(framework="dc", pixels=Matching(distance="mse"))  # type: ignore[arg-type]


LOOPS = {
    "dc": (1000, 10, 50),
    "dsa": (1000, 10, 50),
    "dm": (200, 100, 1),
    "idc": (2000, 100, 1),
    "dream": (2000, 100, 1),
    "dream_plus": (2000, 100, 1),
    "mtt": (50, 100, 1),
    "cim": (1, 200, 1),
    "statistics": (4000, 1, 1),
}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_framework_alone_has_its_usual_loop(name: str) -> None:
    """Outer and inner steps, and epochs of an update."""
    config = parse_config({"framework": name})
    assert (config.outer_steps, config.inner_steps, config.update.epochs) == LOOPS[name]


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
        (Matching, "distance", tuple(name for name in DISTANCES if name != "statistics")),
        (Selection, "rule", tuple(PICKS)),
        (Selection, "strategy", (*STRATEGIES, "random")),
    ],
)
def test_choices_of_settings_are_those_of_the_core(section: Any, setting: str, known: tuple[str, ...]) -> None:
    assert set(get_args(section.model_fields[setting].annotation)) == set(known)


def test_a_file_lies_on_its_preset_and_assignments_on_both(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("preset: cifar10-ipc10\npixels.momentum: 0.25\nupdate: {epochs: 2}\nipc: 1\n")
    expected = load_config(preset="cifar10-ipc1", assignments=["pixels.momentum=0.25", "update.epochs=2"])
    assert load_config(file=str(path)) == load_config(preset="cifar10-ipc10", file=str(path)) == expected
    assert (
        load_config(file=str(path), assignments=["ipc=50"]).pixels.lr == load_config(preset="cifar10-ipc50").pixels.lr
    )
    path.write_text(path.read_text().replace("preset: cifar10-ipc10\n", ""))
    assert load_config(preset="cifar10-ipc10", file=str(path)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pixels: {lr: 1}\npixels.lr: 2", r"pixels\.lr must be set once; got two values: 1 and 2"),
        ("preset: cifar10-ipc1", r"preset must be cifar10-ipc1 or left out with config file .*; got cifar10-ipc10"),
        ("ipc.x: 1", r"ipc must follow the rule"),
    ],
)
def test_a_file_that_contradicts_itself_or_the_preset_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_config(preset="cifar10-ipc10", file=str(path))


@pytest.mark.parametrize(
    ("preset", "shape_CHW", "num_classes", "is_misfit"),
    [
        ("cifar10-ipc10", (3, 32, 32), 10, False),
        ("cifar10-ipc10", (3, 64, 64), 10, True),
        ("imagenet10-ipc10", (3, 32, 32), 10, True),
        ("mnist-ipc1", (3, 28, 28), 10, True),
        ("cifar10-ipc10", (3, 32, 32), 6, True),
        ("smoke", (3, 64, 64), 6, False),
    ],
)
def test_a_preset_for_other_images_is_named(
    caplog: pytest.LogCaptureFixture, preset: str, shape_CHW: tuple[int, int, int], num_classes: int, is_misfit: bool
) -> None:
    report_misfit(preset, shape_CHW, num_classes)
    assert len(caplog.messages) == is_misfit
    if is_misfit:
        channels, height, width = shape_CHW
        assert f"{num_classes} classes of {channels} x {height} x {width} images" in caplog.messages[0]
