"""Experiment files: their runs, their errors, and those that come with the package."""

import copy
import re
from typing import Any

import pytest
import yaml

from dream_ray.errors import UsageError
from dream_ray.experiments.file import (
    Experiment,
    dump_experiment,
    parse_experiment,
    read_experiment,
    shipped_experiments,
)
from tests.docs.pages import ROOT
from tests.experiments.tables import BASE


def experiment(**changed: Any) -> Experiment:
    return parse_experiment({**copy.deepcopy(BASE), **changed})


def test_the_runs_of_a_table_come_seed_by_seed() -> None:
    arms = {"random": {"seeds": 3}, "dream_plus": {}}
    cells = experiment(arms=arms, seeds=2).cells()
    assert [cell.name for cell in cells] == [
        "random-seed-0",
        "dream_plus-seed-0",
        "random-seed-1",
        "dream_plus-seed-1",
        "random-seed-2",
    ]
    assert [cell.config.seed for cell in cells] == [0, 0, 1, 1, 2]


def test_an_arm_combines_preset_keys_and_settings() -> None:
    arms = {"first": {}, "second": {"preset": "idc-mnist-ipc1", "settings": {"pixels.momentum": 0.25}, "steps": 4}}
    found = experiment(arms=arms, ipc=2, settings={**BASE["settings"], "pixels.momentum": 0.75})
    first, second = found.config_of("first", 0), found.config_of("second", 5)
    assert (first.framework, second.framework) == ("dream_plus", "idc")
    assert (first.pixels.momentum, second.pixels.momentum) == (0.75, 0.25)
    assert (first.total_steps, second.total_steps, second.seed) == (8, 4, 5)
    assert first.ipc == second.ipc == 2 and first.network == second.network == found.network
    assert found.points_of("second") == (0, 4)


def test_the_preset_of_an_arm_is_resolved_for_the_ipc_of_the_table() -> None:
    arms = {"idc": {"preset": "idc-mnist-ipc10"}, "plain": {"preset": "idc-mnist-ipc10", "settings": {"factor": 1}}}
    found = experiment(arms=arms)
    idc, plain = found.config_of("idc", 0), found.config_of("plain", 0)
    assert (idc.ipc, idc.pixels.lr, idc.factor, idc.evaluation.cutmix_probability) == (1, 1e-5, 2, 0.0)
    assert (plain.ipc, plain.pixels.lr, plain.factor, plain.evaluation.cutmix_probability) == (1, 1e-5, 1, 0.5)


def test_checkpoints_of_all_points_are_kept() -> None:
    config = experiment(evaluation={"steps": [0, 4, 6, 8]}).config_of("random", 0)
    assert (config.checkpoint_keep_every, config.checkpoint_every) == (2, 2)
    config = experiment(steps=400, evaluation={"steps": [100, 400]}).config_of("random", 0)
    assert (config.checkpoint_keep_every, config.checkpoint_every) == (100, 10), "the smoke preset writes one every 10"


def test_metrics_may_be_rarer_than_steps_if_they_cover_every_point() -> None:
    arms = {"a": {"settings": {"log_every": 4}}}
    assert experiment(arms=arms, evaluation={"steps": [0, 4, 8]}).config_of("a", 0).log_every == 4


def test_a_dumped_experiment_is_read_back_equal() -> None:
    found = experiment()
    assert parse_experiment(yaml.safe_load(dump_experiment(found))) == found


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"preset": "smok"}, r"all arms: preset must be the name of one; got 'smok': did you mean smoke\?"),
        (
            {"arms": {"a": {"preset": "cifar-10-ipc1"}}},
            r"arms\.a: preset must be .*: did you mean cifar10-ipc1\?",
        ),
        ({"preset": None}, r"arms\.random\.preset: give a preset here or for the whole file"),
        ({"seed": 3}, r"seed is not a known setting; did you mean seeds\?"),
        (
            {"arms": {"a": {"setting": {}}}},
            r"arms\.a\.setting is not a known setting; did you mean arms\.a\.settings\?",
        ),
        ({"evaluation": {"steps": [8], "repeat": 2}}, r"did you mean evaluation\.repeats\?"),
        ({"settings": {"selection.num_cluster": 4}}, r"all arms: .*did you mean selection\.num_clusters\?"),
        ({"settings": {"seed": 4}}, r"settings must not name seed: the key `seeds` of the file sets it"),
        ({"arms": {"a": {"settings": {"ipc": 4}}}}, r"settings must not name ipc: the key `ipc` of the file sets it"),
        (
            {"arms": {"a": {"settings": {"network.options.width": 8}}}},
            r"settings must not name network\.options\.width: the key `network` of the file sets it",
        ),
        (
            {"settings": {"checkpoint_keep_every": 100}},
            r"settings must not name checkpoint_keep_every: the key `evaluation\.steps` of the file sets it",
        ),
        ({"evaluation": {"steps": [8, 4]}}, r"evaluation\.steps must ascend; got 8, 4"),
        ({"evaluation": {"steps": [0, 4]}}, r"must have the last step of every arm; 8 of random is missing"),
        ({"steps": 6, "evaluation": {"steps": [6]}}, r"steps must be a multiple of inner_steps \(4\); got 6"),
        (
            {"equal_accuracy": {"reference": "none", "targets": [0.5]}},
            r"must be one of the arms random, dream_plus; got n",
        ),
        (
            {"equal_accuracy": {"reference": "random", "targets": [50]}},
            r"targets\.0 must follow the rule: .*less than 1",
        ),
        (
            {
                "evaluation": {"steps": [8], "split": "validation"},
                "settings": {**BASE["settings"], "data.include_validation": True},
            },
            r"evaluation\.split must be unseen; got 'validation', which arms\.random distils too",
        ),
        (
            {"arms": {"a": {"settings": {"log_every": 3}}}, "evaluation": {"steps": [0, 4, 8]}},
            r"arms\.a: log_every must divide the points of evaluation\.steps \(0, 4, 8\), .*got 3\. .*divisor of 4",
        ),
        ({"arms": {"a/b": {}}}, r"arms\.a/b.* must follow the rule"),
        ({"cpu_hours": 0}, r"cpu_hours must follow the rule: .*greater than 0; got 0"),
        ({"set": {"name": "digits"}}, r"set\.classes must be given"),
        ({"version": 2}, r"version must follow the rule"),
    ],
)
def test_a_wrong_file_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        experiment(**changed)


def test_an_unknown_name_lists_the_experiments_at_hand() -> None:
    with pytest.raises(UsageError, match="experiment must be a file or one of .*equal_accuracy.*; got 'curve'"):
        read_experiment("curve")


@pytest.mark.parametrize("name", shipped_experiments())
def test_every_shipped_experiment_is_valid(name: str) -> None:
    found = read_experiment(name)
    assert found.cells() and found.cpu_hours > 0


def test_the_small_tables_take_at_most_eight_cpu_hours_together() -> None:
    assert sum(read_experiment(name).cpu_hours for name in ("ablations", "frameworks", "architectures")) <= 8


def test_the_reference_lists_every_shipped_experiment() -> None:
    page = (ROOT / "docs" / "reference" / "experiment-file.md").read_text()
    assert re.findall(r"^\| `(\w+)` \| .* \|$", page.partition("## The table")[0], re.M) == shipped_experiments()
