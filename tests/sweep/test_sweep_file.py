"""Sweep files: what they say, and what is said of wrong ones."""

from typing import Any

import optuna
import pytest

from dream_ray.config import PRESETS, parse_config
from dream_ray.errors import UsageError
from dream_ray.sweep.file import num_rungs, parse_sweep
from dream_ray.sweep.space import Parameter, suggest, value_at

BASE: dict[str, Any] = {
    "preset": "smoke",
    "settings": {"evaluation.every": 10, "checkpoint_every": 10, "data.include_validation": False},
    "space": {"selection.num_clusters": {"int": [8, 64]}, "weights.feature": {"log": [0.01, 10]}},
}


def sweep(**changed: Any) -> Any:
    return parse_sweep({**BASE, **changed})


def test_defaults_and_what_a_trial_is_made_of() -> None:
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
        ({"space": {"weights.feature": {"log": [0, 1]}}}, r"log must lie above 0; got \[0\.0, 1\.0\]"),
        ({"space": {"weights.feature": {"log": [1, 1]}}}, r"lower < upper"),
        ({"space": {"ipc": {"int": [0, 4]}}}, r"space\.ipc: ipc must follow the rule: .*got 0"),
        ({"space": {"ipc": {"choices": []}}}, r"choices must not be empty"),
        ({"space": {"ipc": {"int": [1, 2], "choices": [1]}}}, r"exactly one of choices, int, uniform and log; got 2"),
        ({"space": {"ipc": {"uniform": [1, 2], "step": 2}}}, r"step must come with int; got uniform"),
        ({"space": {}}, r"space must name at least one setting"),
        ({"spaec": {}}, r"did you mean space\?"),
        ({"preset": None}, r"preset and config: give exactly one"),
        ({"preset": "cifar-ipc10"}, r"did you mean cifar10-ipc10\?"),
        ({"settings": {}}, r"evaluation\.every >= 1"),
        ({"scheduler": {"grace": 10_000}}, r"scheduler\.grace must be at most the rungs of a trial .*got 10000"),
        ({"space": {"seed": {"int": [0, 9]}}}, r"space must not name seed"),
        ({"space": {"evaluation.quick_epochs": {"int": [1, 9]}}}, r"comparable only if they are judged alike"),
        ({"space": {"outer_steps": {"int": [1, 9]}}}, r"scheduler\.name must be none where space names outer_steps"),
        ({"scheduler": {"name": "ashaa"}}, r"scheduler\.name must follow the rule.*got 'ashaa'"),
        ({"sampler": {"name": "grid"}}, r"space\.selection\.num_clusters must have choices with sampler\.name grid"),
        ({"metrics": ["accuracy", "accuracy"]}, r"metrics must be \[accuracy\] or .*; got \[accuracy, accuracy\]"),
        ({"metrics": ["compute_s"]}, r"metrics must be \[accuracy\] or \[accuracy, compute_s\]; got \[compute_s\]"),
        ({"metrics": ["accuracy", "compute_s"]}, r"scheduler\.name must be none with several metrics; got asha"),
        ({"metrics": ["acuracy"]}, r"metrics\.0 must follow the rule.*got 'acuracy'"),
        (
            {"start": [{"selection.num_cluster": 9}]},
            r"start must name settings.*did you mean selection\.num_clusters\?",
        ),
        ({"start": [{"weights.feature": -1}]}, r"weights\.feature must follow the rule.*got -1"),
        ({"start": [{"weights.feature": 11}]}, r"start must lie in the space; got weights\.feature 11\. Widen"),
        (
            {"space": {"ipc": {"int": [2, 8], "step": 4}}, "start": [{"ipc": 4}]},
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
def test_wrong_files(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        sweep(**changed)


def test_conditions_decide_what_is_varied() -> None:
    space = {
        "selection.interval": Parameter(choices=(5, 10), when={"selection.strategy": ("representative",)}),
        "selection.strategy": Parameter(choices=("random", "representative")),
        "weights.gradient": Parameter(uniform=(0.5, 2)),
        "selection.warm_steps": Parameter(whole=(1, 5), step=2),
    }
    base, study = parse_config(PRESETS["smoke"]()), optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = [suggest(space, study.ask(), base) for _ in range(40)]
    assert {values["selection.strategy"] for values in seen} == {"random", "representative"}
    for values in seen:
        assert ("selection.interval" in values) == (values["selection.strategy"] == "representative")
        assert 0.5 <= values["weights.gradient"] <= 2 and values["selection.warm_steps"] in (1, 3, 5)


def test_a_condition_on_what_is_not_varied_looks_at_the_settings() -> None:
    base = parse_config(PRESETS["smoke"]())
    assert value_at(base, "selection.strategy") == "representative"
    with pytest.raises(UsageError, match=r"intervall is not a known setting; did you mean selection\.interval\?"):
        value_at(base, "selection.intervall")
