"""Sweep files: their trials, start points and errors."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from dream_ray.config import PRESETS, load_config, parse_config
from dream_ray.errors import UsageError
from dream_ray.sweeps.directory import run_directory
from dream_ray.sweeps.file import dump_sweep, num_rungs, parse_sweep, read_sweep
from dream_ray.sweeps.space import Parameter, suggest, value_at

BASE: dict[str, Any] = {
    "preset": "smoke",
    "settings": {"evaluation.every": 10, "checkpoint_every": 10, "data.include_validation": False},
    "space": {"selection.num_clusters": {"int": [8, 64]}, "weights.feature": {"log": [0.01, 10]}},
}
# Only random selection allows batch_real.
CONDITIONAL: dict[str, Any] = {
    "selection.strategy": {"choices": ["representative", "random"]},
    "batch_real": {"int": [16, 64], "step": 16, "when": {"selection.strategy": ["random"]}},
}


def sweep(**changed: Any) -> Any:
    return parse_sweep({**BASE, **changed})


def test_a_trial_combines_defaults_settings_and_values() -> None:
    found = sweep()
    assert found.start == ({},) and found.metrics == ("accuracy",) and found.sampler.name == "tpe"
    [config] = found.configs_of({"selection.num_clusters": 9, "weights.feature": 0.5})
    assert (config.selection.num_clusters, config.weights.feature, config.seed) == (9, 0.5, 0)
    assert [one.seed for one in sweep(seeds=3).configs_of({})] == [0, 1, 2]
    assert config.evaluation.every == 10, "settings of all trials"
    assert num_rungs(config) == config.total_steps // 10


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"space": {"selection.num_cluster": {"int": [8, 16]}}}, r"did you mean selection\.num_clusters\?"),
        ({"space": {"weights.feature": {"uniform": [2, 1]}}}, r"uniform must be \[lower, upper\].*got \[2\.0, 1\.0\]"),
        ({"space": {"weights.feature": {"log": [0, 1]}}}, r"log\.0 must follow the rule: .*greater than 0; got 0"),
        ({"space": {"weights.feature": {"log": [1, 1]}}}, r"lower < upper"),
        ({"space": {"ipc": {"int": [0, 4]}}}, r"space\.ipc: ipc must follow the rule: .*got 0"),
        ({"space": {"ipc": {"choices": []}}}, r"space\.ipc\.choices must follow the rule: .*at least 1 item"),
        ({"space": {"ipc": {"int": [1, 2], "choices": [1]}}}, r"exactly one of choices, int, uniform and log; got 2"),
        ({"space": {"ipc": {"uniform": [1, 2], "step": 2}}}, r"step must come with int; got uniform"),
        (
            {"space": {"weights.feature": {"uniform": [1, float("inf")]}}},
            r"uniform\.1 must follow the rule: .*finite number",
        ),
        ({"space": {"ipc": {"int": [1, 10], "step": 4}}}, r"int must span a whole number of steps; got \[1, 10\]"),
        ({"space": {"num_clusters": {"int": [8, 16]}}}, r"did you mean selection\.num_clusters\?"),
        ({"space": {"network.width": {"int": [8, 16]}}}, r"network\.width is not a known setting"),
        ({"settings": {**BASE["settings"], "weights.featur": 1}}, r"did you mean weights\.feature\?"),
        ({"settings": {**BASE["settings"], "ipc.x": 1}}, r"ipc is a value, not a section"),
        ({"space": {"preset": {"int": [1, 2]}}}, r"space\.preset must have choices"),
        ({"space": {"preset": {"choices": ["smoke", "cifar10"]}}}, r"did you mean cifar10-"),
        (
            {"space": {"preset": {"choices": ["smoke", "cifar10-ipc10"]}}},
            r"space\.preset: .*not comparable; got 200000 steps, 120 with the settings",
        ),
        (
            {"space": {"ipc": {"int": [1, 2], "when": {"factor": []}}}},
            r"when\.factor must follow the rule: .*at least 1 item",
        ),
        (
            {"space": {"factor": {"choices": [1, 2]}, "ipc": {"int": [1, 2], "when": {"factor": [3]}}}},
            r"space\.ipc\.when must name possible values of factor; got \[3\]",
        ),
        (
            {"space": CONDITIONAL, "start": [{"batch_real": 32}]},
            r"start must name settings of the space that vary at this point \(see `when`\); got batch_real",
        ),
        ({"scheduler": {"name": "hyperband", "grace": 2}}, r"grace must be left out with hyperband"),
        ({"scheduler": {"name": "median", "factor": 2}}, r"factor must be left out with median"),
        ({"space": {}}, r"space must follow the rule: .*at least 1 item"),
        ({"spaec": {}}, r"did you mean space\?"),
        ({"preset": None}, r"preset and config: give exactly one"),
        ({"preset": "cifar-ipc10"}, r"did you mean cifar10-ipc10\?"),
        ({"settings": {}}, r"evaluation\.every >= 1"),
        ({"scheduler": {"grace": 10_000}}, r"scheduler\.grace must be less than the rungs of a trial .*got 10000"),
        (
            {"settings": {**BASE["settings"], "outer_steps": 1, "inner_steps": 10}},
            r"grace must be less than the rungs of a trial \(1: .*no trial stops; got 1\. .* scheduler\.name: none",
        ),
        ({"space": {"seed": {"int": [0, 9]}}}, r"space must not name seed"),
        ({"space": {"evaluation.quick_epochs": {"int": [1, 9]}}}, r"all trials must be judged alike"),
        (
            {"space": {"outer_steps": {"int": [1, 9]}}},
            r"space\.outer_steps: settings must fix outer_steps .*got 20 steps",
        ),
        ({"scheduler": {"name": "ashaa"}}, r"scheduler\.name must follow the rule.*got 'ashaa'"),
        ({"sampler": {"name": "grid"}}, r"space\.selection\.num_clusters must have choices and no `when` with"),
        ({"metrics": ["accuracy", "accuracy"]}, r"metrics must be \[accuracy\] or .*; got \[accuracy, accuracy\]"),
        ({"metrics": ["compute_s"]}, r"metrics must be \[accuracy\] or \[accuracy, compute_s\]; got \[compute_s\]"),
        ({"metrics": ["accuracy", "compute_s"]}, r"scheduler\.name must be none with several metrics; got asha"),
        ({"metrics": ["acuracy"]}, r"metrics\.0 must follow the rule.*got 'acuracy'"),
        (
            {"start": [{"selection.num_cluster": 9}]},
            r"selection\.num_cluster is not a known setting; did you mean selection\.num_clusters\?",
        ),
        ({"start": [{"ipc": 2}]}, r"start must name settings of the space that vary .*; got ipc"),
        ({"start": [{"preset": "smoke"}]}, r"start must name settings of the space that vary .*; got preset"),
        ({"version": 2}, r"version must follow the rule: input should be 1; got 2"),
        ({"start": [{"weights.feature": -1}]}, r"weights\.feature must follow the rule.*got -1"),
        ({"start": [{"weights.feature": 11}]}, r"start must lie in the space; got weights\.feature 11\. Widen"),
        (
            {"space": {"ipc": {"int": [2, 10], "step": 4}}, "start": [{"ipc": 4}]},
            r"lie in the space; got ipc 4",
        ),
        ({"budget": {"trials": 0}}, r"budget\.trials must follow the rule.*got 0"),
        (
            {"budget": {"outer_steps": 1}, "settings": {**BASE["settings"], "outer_steps": 4}},
            r"4 of one trial; got 1",
        ),
        (
            {"space": {"ipc": {"int": [1, 2], "when": {"factor": [1]}}}},
            r"space\.ipc\.when must name settings of the space; got factor",
        ),
        (
            {"space": {"ipc": {"int": [1, 2], "when": {"ipc": [1]}}}},
            r"space\.ipc\.when must not depend on itself; got ipc -> ipc",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_the_rule(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        sweep(**changed)


def test_conditions_decide_which_settings_vary() -> None:
    space = {
        "selection.interval": Parameter(choices=(5, 10), when={"selection.strategy": ("representative",)}),
        "selection.strategy": Parameter(choices=("random", "representative")),
        "weights.gradient": Parameter(uniform=(0.5, 2)),
        "selection.restart_steps": Parameter(whole=(1, 5), step=2),
    }
    base, study = (
        parse_config(PRESETS["smoke"].settings),
        optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)),
    )
    seen = [suggest(space, study.ask(), base) for _ in range(40)]
    assert {values["selection.strategy"] for values in seen} == {"random", "representative"}
    for values in seen:
        assert ("selection.interval" in values) == (values["selection.strategy"] == "representative")
        assert 0.5 <= values["weights.gradient"] <= 2 and values["selection.restart_steps"] in (1, 3, 5)


def test_a_value_may_be_valid_only_under_its_condition() -> None:
    found = sweep(space=CONDITIONAL, start=[{}, {"selection.strategy": "random", "batch_real": 32}])
    first, second = found.start_points()
    assert first == {"selection.strategy": "representative"}
    assert found.config_of(second).real_batch == 32


def test_every_setting_can_be_searched() -> None:
    """Except those of the evaluation; options of a network may be missing from the settings."""
    base = sweep().base()
    tried = 0
    for path, value in flat(base.model_dump(mode="json")):
        if path in ("seed", "data.include_validation") or path.startswith("evaluation."):
            continue
        other = {int: 2, float: 0.5}.get(type(value), value)
        if path in ("checkpoint_every", "checkpoint_keep_every", "version", "selection.embedding_batch"):
            other = value  # few values are right
        space = {path: {"choices": list(dict.fromkeys((value, other)))}}
        if path == "batch_real":
            space = {path: {"choices": [32, None]}}
        # No scheduler compares trials of different lengths.
        found = sweep(space=space, scheduler={"name": "none"})
        assert value_at(found.config_of({path: other}), path) == other
        tried += 1
    assert tried > 40
    config = sweep(space={"network.options.kernel": {"int": [3, 5]}}, start=[]).config_of({"network.options.kernel": 4})
    assert config.network.options["kernel"] == 4 and config.network.options["depth"] == 2


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_presets_can_be_searched_and_are_judged_alike() -> None:
    names = ["cifar10-ipc1", "mnist-ipc10"]
    settings = {"outer_steps": 2, "checkpoint_every": 20, "evaluation.every": 40, "data.include_validation": False}
    space = {"preset": {"choices": names}, "pixels.lr": {"log": [1e-5, 1e-2]}}
    found = sweep(preset=names[0], settings=settings, space=space, start=[{}, {"preset": names[1]}])
    lrs = [parse_config(PRESETS[name].settings).pixels.lr for name in names]
    points = found.start_points()
    assert points == [{"preset": name, "pixels.lr": lr} for name, lr in zip(names, lrs, strict=True)]
    first, second = (found.config_of(point) for point in points)
    assert (first.ipc, second.ipc) == (1, 10) and (first.matching.distance, second.matching.distance) == ("mse", "l1")
    assert first.evaluation == second.evaluation and first.outer_steps == second.outer_steps == 2
    kept = parse_sweep(yaml.safe_load(dump_sweep(found.self_contained())))
    assert [kept.config_of(point) for point in points] == [first, second]


def test_a_searched_ipc_factor_or_framework_has_the_settings_of_its_preset(tmp_path: Path) -> None:
    """A resumed sweep makes the same trials from its kept file."""
    settings = {"outer_steps": 2, "checkpoint_every": 20, "evaluation.every": 40, "data.include_validation": False}
    space = {
        "ipc": {"choices": [1, 10]},
        "factor": {"choices": [1, 2]},
        "framework": {"choices": ["dream_plus", "idc", "dream"]},
    }
    found = sweep(preset="mnist-ipc10", settings=settings, space=space)
    kept = parse_sweep(yaml.safe_load(dump_sweep(found.self_contained())))
    for values, preset in (
        ({"ipc": 1, "factor": 2, "framework": "dream_plus"}, "mnist-ipc1"),
        ({"ipc": 1, "factor": 2, "framework": "idc"}, "idc-mnist-ipc1"),
        ({"ipc": 10, "factor": 2, "framework": "dream"}, "dream-mnist-ipc10"),
    ):
        trial, published = found.config_of(values), load_config(preset=preset)
        assert kept.config_of(values) == trial
        assert (trial.framework, trial.ipc, trial.pixels) == (published.framework, published.ipc, published.pixels)
        assert (trial.selection, trial.update) == (published.selection, published.update)
        assert trial.evaluation == found.base().evaluation
    plain = found.config_of({"ipc": 10, "factor": 1, "framework": "idc"})
    assert plain.update.cutmix_probability == 0.5, "no mosaics"


def test_a_sweep_file_says_which_settings_a_changed_ipc_gives(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "sweep.yaml"
    settings = "{ipc: 5, evaluation.every: 100, data.include_validation: false}"
    file.write_text(f"preset: cifar10-ipc10\nsettings: {settings}\nspace: {{weights.feature: {{log: [0.1, 1]}}}}\n")
    assert read_sweep(str(file)).base().pixels.lr == 2.5e-3
    [said] = caplog.messages
    assert said.startswith("Nothing is published for cifar10 with dream_plus at ipc 5 and factor 2: pixels.lr is 0.002")


def test_frameworks_can_be_searched_with_their_own_defaults() -> None:
    settings = {"evaluation.every": 20, "data.include_validation": False, "outer_steps": 2, "inner_steps": 20}
    space = {
        "framework": {"choices": ["dream_plus", "dm", "mtt"]},
        "pixels.lr": {"log": [1e-4, 1e4]},
        "selection.interval": {"choices": [5, 10], "when": {"framework": ["dream_plus"]}},
    }
    start = [{}, {"framework": "dm"}, {"framework": "mtt"}]
    found = sweep(preset=None, config={"ipc": 1, "checkpoint_every": 20}, settings=settings, space=space, start=start)
    points = found.start_points()
    assert points[0] == {"framework": "dream_plus", "pixels.lr": 0.005, "selection.interval": 10}
    assert points[1:] == [{"framework": "dm", "pixels.lr": 1.0}, {"framework": "mtt", "pixels.lr": 1000.0}]
    kept = parse_sweep(yaml.safe_load(dump_sweep(found.self_contained())))
    for one in (found, kept):
        plus, dm, mtt = (one.config_of(point) for point in points)
        assert (plus.source.kind, dm.source.kind, mtt.source.kind) == ("real", "random", "expert")
        assert (plus.factor, dm.factor, dm.weights.gradient) == (2, 1, 0.0)
        assert plus.evaluation == dm.evaluation == mtt.evaluation
    assert dm == parse_config(dm.model_dump(mode="json")), "the resolved settings name the run"


def test_a_kept_sweep_file_makes_the_same_trials(tmp_path: Path) -> None:
    """The file of settings may change later; the resolved settings name the run of a trial."""
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump({"ipc": 3, **PRESETS["smoke"].settings}))
    found = sweep(preset=None, config=str(file))
    values = {"selection.num_clusters": 9, "weights.feature": 0.5}
    [config] = found.configs_of(values)
    kept = parse_sweep(yaml.safe_load(dump_sweep(found.self_contained())))
    file.write_text("{}")
    assert kept.configs_of(values) == [config] and kept.base().ipc == config.ipc
    [resolved] = sweep(preset=None, config=config.model_dump(mode="json")).configs_of({})
    assert run_directory("out", resolved) == run_directory("out", config)


def test_the_documented_example_is_valid() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "search-for-settings.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert len(parse_sweep(yaml.safe_load(example)).start_points()) == 2


def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    space = "{pixels.lr: {choices: [1e-3, 1e-4, 2.5E-2]}, update.lr: {log: [1e-5, 1]}}"
    settings = "{evaluation.every: 20, data.include_validation: false}"
    file.write_text(f"preset: smoke\nsettings: {settings}\nspace: {space}\nstart: [{{pixels.lr: 1e-4}}]\n")
    found = read_sweep(str(file))
    assert found.space["pixels.lr"].choices == (0.001, 0.0001, 0.025)
    assert parse_sweep(yaml.safe_load(dump_sweep(found))) == found


def test_a_condition_on_a_fixed_setting_uses_its_value() -> None:
    base = parse_config(PRESETS["smoke"].settings)
    assert value_at(base, "selection.strategy") == "representative"
    with pytest.raises(UsageError, match=r"intervall is not a known setting; did you mean selection\.interval\?"):
        value_at(base, "selection.intervall")
