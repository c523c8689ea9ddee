"""Presets against the table of published values, their origins, and their values at other scales."""

import logging
import re
from typing import Any

import pytest

from dream_ray.config import FRAMEWORKS, PRESETS, Config, load_config, parse_config
from dream_ray.config.frameworks import Scale
from dream_ray.config.nested import leaves
from dream_ray.config.presets import presets_of
from dream_ray.errors import UsageError
from tests.config.published import ROWS, Row

NAMES = [name for name in PRESETS if name != "smoke"]
TRAINED_BEFORE = [
    f"{data}-ipc{ipc}" for data in ("imagenet1k", "imagenet100", "imagenet10", "tiny-imagenet") for ipc in (1, 10, 50)
]
EXTRAPOLATED = [f"{prefix}imagenet{n}-ipc{ipc}" for prefix in ("", "dream-") for n in (10, 100) for ipc in (10, 20)]


def rows_of(name: str) -> list[Row]:
    return [row for row in ROWS if re.fullmatch(row.presets, name)]


def value_at(config: Config, path: str) -> Any:
    return leaves(config.model_dump(mode="json"))[path]


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_has_the_published_values(name: str) -> None:
    config = load_config(preset=name)
    for row in rows_of(name):
        for path, value in row.values.items():
            assert value_at(config, path) == (
                pytest.approx(value, rel=1e-12) if isinstance(value, (float, list)) else value
            ), f"{path}, {row.source}"


@pytest.mark.parametrize("name", NAMES)
def test_every_value_that_counts_as_published_is_in_the_table(name: str) -> None:
    known = {path for row in rows_of(name) for path in row.values}
    stated = {path for path, one in PRESETS[name].stated.items() if one.origin.kind != "ours"}
    assert stated <= known


def test_every_row_has_a_source_and_a_preset() -> None:
    for row in ROWS:
        assert row.source and any(re.fullmatch(row.presets, name) for name in NAMES), row.presets


@pytest.mark.parametrize("name", PRESETS)
def test_every_value_of_a_preset_states_its_origin(name: str) -> None:
    """What a preset does not state is the default of the settings, which counts as ours."""
    stated = PRESETS[name].stated
    assert all(one.origin.where for one in stated.values())
    changed = leaves(load_config(preset=name).model_dump(mode="json"))
    defaults = leaves(Config().model_dump(mode="json"))
    different = {path for path, value in changed.items() if value != defaults.get(path)}
    assert different - stated.keys() <= {"framework", "ipc", "factor"}


def test_the_origin_of_a_preset_is_that_of_its_weakest_value() -> None:
    origins = {name: preset.origin for name, preset in PRESETS.items() if preset.origin != "published"}
    assert origins == {
        "smoke": "ours",
        **dict.fromkeys(EXTRAPOLATED, "extrapolated"),
        **{f"{name}-cifar100-ipc50": "ours" for name in ("dc", "dsa")},
        **{f"dm-{data}-ipc{ipc}": "by rule" for data in ("fashion-mnist", "svhn") for ipc in (1, 10, 50)},
        **{f"mtt-tiny-imagenet-ipc{ipc}": "partly ours" for ipc in (1, 10)},
        **{f"cifar10-ipc{ipc}-cim": "ours" for ipc in (1, 10, 50)},
        **{f"cifar10-ipc{ipc}-statistics": "partly ours" for ipc in (1, 10, 50)},
        **{f"tiny-imagenet-ipc{ipc}-cim": "by rule" for ipc in (1, 10, 50)},
        **{f"{of}-cim": "partly by rule" for of in TRAINED_BEFORE if not of.startswith("tiny")},
        **{f"{of}-statistics": "partly by rule" for of in TRAINED_BEFORE},
        **{f"{of}-dream-plus-frozen": "partly ours" for of in TRAINED_BEFORE},
        **{f"{of}-easy": "partly by rule" for of in TRAINED_BEFORE},
    }


def test_a_preset_of_networks_that_were_trained_before_says_that_nobody_ran_it() -> None:
    noted = {name for name, preset in PRESETS.items() if preset.family.note == "never run with published weights"}
    forms = "cim", "statistics", "dream-plus-frozen", "easy"
    assert noted == {f"{of}-{form}" for of in TRAINED_BEFORE for form in forms}
    assert all(load_config(preset=name).is_selection == name.endswith("-easy") for name in noted)


def test_the_presets_are_those_of_the_papers() -> None:
    assert len(PRESETS) == 181
    for framework in ("dc", "dsa", "dm"):
        for data in ("mnist", "fashion-mnist", "svhn"):
            assert {f"{framework}-{data}-ipc{ipc}" for ipc in (1, 10, 50)} <= PRESETS.keys()
    assert {f"idc-i-cifar10-ipc{ipc}" for ipc in (1, 10, 50)} <= PRESETS.keys()
    assert all(load_config(preset=f"idc-i-cifar10-ipc{ipc}").factor == 1 for ipc in (1, 10, 50))


@pytest.mark.parametrize("name", NAMES)
def test_2000_outer_steps_are_those_of_published_code(name: str) -> None:
    outer = PRESETS[name].stated["outer_steps"]
    if outer.value == 2000:
        assert outer.origin.kind == "published code" and "--reproduce" in outer.origin.where


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_ipc_and_factor_give_the_settings_of_that_preset(name: str) -> None:
    """From any preset of the same framework and data set."""
    preset = PRESETS[name]
    for other in PRESETS.values():
        if (other.framework, other.data) == (preset.framework, preset.data) and other.name is not None:
            changes = [f"ipc={preset.scale.ipc}", f"factor={preset.scale.factor}"]
            assert load_config(preset=other.name, assignments=changes) == load_config(preset=name)


@pytest.mark.parametrize(
    ("name", "changes", "level", "said"),
    [
        ("cifar10-ipc10", ["ipc=1"], "INFO", "The settings are those of preset cifar10-ipc1 (published)."),
        ("cifar10-ipc10", ["selection.num_clusters=5"], "", ""),
        ("cifar10-ipc10", ["ipc=10"], "", ""),
        ("smoke", ["ipc=3"], "", ""),
        (
            "cifar10-ipc10",
            ["ipc=5"],
            "WARNING",
            "Nothing is published for cifar10 with dream_plus at ipc 5 and factor 2: pixels.lr is 0.0025 (0.005 * "
            "(ipc / 10)).",
        ),
        (
            "fashion-mnist-ipc1",
            ["ipc=20"],
            "WARNING",
            "Nothing is published for fashion-mnist with dream_plus at ipc 20 and factor 2: pixels.lr is 0.000153125 "
            "(0.0001 * (ipc / 10) * (28 / 32)^2).",
        ),
        (
            "cifar10-ipc10",
            ["ipc=5", "pixels.lr=1"],
            "WARNING",
            "Nothing is published for cifar10 with dream_plus at ipc 5 and factor 2: all other settings are those of "
            "cifar10-ipc10.",
        ),
        (
            "dc-cifar10-ipc10",
            ["ipc=7"],
            "WARNING",
            "Nothing is published for cifar10 with dc at ipc 7 and factor 1: inner_steps is 7 (a match per image of a "
            "class), update.epochs is 71 (500 / ipc epochs).",
        ),
        ("dc-cifar100-ipc10", ["ipc=50"], "INFO", "The settings are those of preset dc-cifar100-ipc50 (ours)."),
        ("imagenet10-ipc10", ["ipc=20"], "INFO", "The settings are those of preset imagenet10-ipc20 (extrapolated)."),
        ("cifar10-ipc10", ["framework=dm"], "INFO", "The settings are those of preset dm-cifar10-ipc10 (published)."),
        (
            "idc-cifar10-ipc10",
            ["factor=1"],
            "INFO",
            "The settings are those of preset idc-i-cifar10-ipc10 (published).",
        ),
        (
            "mtt-cifar10-ipc10",
            ["ipc=20"],
            "WARNING",
            "Nothing is published for cifar10 with mtt at ipc 20 and factor 1: all other settings are those of "
            "mtt-cifar10-ipc10.",
        ),
    ],
)
def test_a_changed_scale_or_framework_says_which_settings_it_gives(
    caplog: pytest.LogCaptureFixture, name: str, changes: list[str], level: str, said: str
) -> None:
    caplog.set_level(logging.INFO, "dream_ray.config")
    load_config(preset=name, assignments=changes)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == ([(level, said)] if said else [])


def test_settings_without_a_preset_keep_the_rate_of_the_usual_ipc_and_say_so(
    caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("framework: idc\nipc: 1\n")
    assert load_config(file=str(path)).pixels.lr == 5e-3
    assert caplog.messages == [
        "Without a preset, pixels.lr stays 0.005 (by rule at ipc 1: 0.0005): set it, or name a preset."
    ]
    caplog.clear()
    path.write_text("framework: idc\nipc: 1\npixels: {lr: 1e-3}\n")
    load_config(file=str(path))
    assert not caplog.messages


def test_exceptions_of_factor_1() -> None:
    svhn = load_config(preset="idc-svhn-ipc1", assignments=["factor=1"])
    assert (svhn.evaluation.cutmix_probability, svhn.update.cutmix_probability) == (0.0, 0.5)
    mnist = load_config(preset="idc-mnist-ipc10", assignments=["factor=1"])
    assert (mnist.matching.augmentation, mnist.evaluation.cutmix_probability) == ("color_crop_cutout", 0.5)


@pytest.mark.parametrize(
    ("classes", "ipc", "factor", "epochs"),
    [
        *((10, ipc, factor, epochs) for ipc, factor, epochs in ((1, 1, 3000), (1, 3, 2000), (10, 2, 1500))),
        *((10, ipc, 3, epochs) for ipc, epochs in ((20, 1000), (50, 500), (100, 300))),
        *((100, ipc, 3, epochs) for ipc, epochs in ((1, 1300), (20, 600), (50, 300), (100, 200))),
    ],
)
def test_epochs_on_imagenet_follow_the_decoded_images(classes: int, ipc: int, factor: int, epochs: int) -> None:
    changes = [f"ipc={ipc}", f"factor={factor}"]
    assert load_config(preset=f"idc-imagenet{classes}-ipc10", assignments=changes).evaluation.epochs == epochs


def test_a_framework_without_settings_for_the_data_set_is_refused() -> None:
    with pytest.raises(UsageError, match="framework must have settings for svhn; got mtt, which has them for cifar10,"):
        load_config(preset="svhn-ipc1", assignments=["framework=mtt"])


def test_settings_of_ours_fit_every_framework() -> None:
    for name in FRAMEWORKS:
        if name != "mtt":
            config = load_config(preset="smoke", assignments=[f"framework={name}"])
            assert (config.framework, config.update.num_images, config.outer_steps) == (name, 256, 6)


@pytest.mark.parametrize("assignment", ["ipc=0", "ipc=many", "factor=0", "ipc=1.5", "ipc=null"])
def test_a_wrong_scale_is_reported_as_such(assignment: str) -> None:
    with pytest.raises(UsageError, match=f"^{assignment.partition('=')[0]} must follow the rule"):
        load_config(preset="cifar10-ipc10", assignments=[assignment])


def test_defaults_are_the_values_of_dream_plus() -> None:
    """The defaults of the sections in Python, and the framework over them, are two lists of the same numbers."""
    made = Config.model_construct()
    usual = parse_config({"framework": "dream_plus"})
    for name in Config.model_fields:
        assert getattr(made, name) == getattr(usual, name), name


def test_a_preset_is_a_copy() -> None:
    first = PRESETS["cifar10-ipc10"].settings
    first["evaluation"]["lr_milestones"].append(0.9)
    first["network"]["options"]["width"] = 1
    assert PRESETS["cifar10-ipc10"].settings["network"]["options"]["width"] == 128
    assert len(PRESETS["cifar10-ipc10"].settings["evaluation"]["lr_milestones"]) == 2


def test_the_names_of_presets_have_that_of_their_framework() -> None:
    for name, framework in FRAMEWORKS.items():
        before = "" if name in ("dream_plus", "cim", "statistics") else f"{name}-"
        after = f"-{name}" if name in ("cim", "statistics") else ""
        assert all(one.startswith(before) and one.endswith(after) for one in presets_of(name, framework))
    assert PRESETS["dm-cifar10-ipc10"].scale == Scale(10, 1)
