"""The directory of an experiment.

experiment.yaml     the file of the latest session
table.json          what all results of the table share: settings, store, numerics and versions of libraries,
                    evaluation, and the targets of equal accuracy
runs/ARM-seed-N/    the run of an arm and a seed, with its checkpoints and evaluations
sessions/           the CPU time of each session that worked on it
results.json, results.md, curves.png   the report
"""

import hashlib
import json
import subprocess
import uuid
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import torch

from dream_ray import storage
from dream_ray.config import Config, parse_config
from dream_ray.data.store.store import Store
from dream_ray.engine.run.directory import INITIAL_MODELS, Run, open_run, read_sessions
from dream_ray.engine.run.environment import NUMERICS, CostMeter, differences, library_versions, total_cost
from dream_ray.engine.run.spec import model_paths
from dream_ray.errors import UsageError
from dream_ray.experiments.checks import check_networks, check_set, with_checked_models
from dream_ray.experiments.file import EXPERIMENT, Cell, Experiment, dump_experiment, read_experiment
from dream_ray.sweeps.directory import cached_failure

_TABLE, _RUNS, _SESSIONS = "table.json", "runs", "sessions"


@dataclass(frozen=True)
class Table:
    """An experiment with its store and its directory.

    Attributes:
        out: Directory of the experiment, absolute.
        store: Store, absolute.
        experiment: The file.
        device: Type of the device that all runs compute on.
    """

    out: str
    store: str
    experiment: Experiment
    device: str

    def run_path(self, cell: Cell) -> str:
        """Returns the directory of a run."""
        return storage.join(self.out, _RUNS, cell.name)

    def open_run(self, cell: Cell) -> Run | None:
        """Opens a run, or returns None if it has not begun.

        Raises:
            UsageError: If its settings, store, numerics or libraries are not those of the table.
        """
        path = self.run_path(cell)
        if not storage.exists(storage.join(path, "config.yaml")):
            return None
        run, shared = open_run(path), storage.read_json(storage.join(self.out, _TABLE))
        environment = run.environment
        # The settings that the table began with: a later version of the package may resolve a preset to others. It may
        # also have more settings, whose defaults both sides get.
        expected = {
            **shared["origin"],
            "settings": _settings(parse_config(shared["settings"][cell.arm])),
            "models": shared.get(INITIAL_MODELS, {}).get(cell.arm, []),
        }
        found = {
            "store": environment["store_checksum"],
            "device": environment["device"],
            "threads": environment["threads_per_worker"],
            "compile": environment["compile"],
            "numerics": environment["numerics"],
            "versions": {name: environment["versions"].get(name) for name in expected["versions"]},
            "settings": _settings(run.config),
            "models": environment.get(INITIAL_MODELS, []),
        }
        _refuse(path, differences(expected, found))
        return run

    def config_of(self, cell: Cell) -> Config:
        """Returns the settings of a run as the table began with them: with the digests and full paths of its models."""
        settings = storage.read_json(storage.join(self.out, _TABLE))["settings"][cell.arm]
        return parse_config({**settings, "seed": cell.seed})

    def models(self) -> list[str]:
        """Returns the full paths of the models of all arms, each once."""
        resolved = storage.read_json(storage.join(self.out, _TABLE))["settings"].values()
        return list(
            dict.fromkeys(
                path for one in map(parse_config, resolved) for paths in model_paths(one).values() for path in paths
            )
        )

    def failure_of(self, cell: Cell) -> str | None:
        """Returns the reason why a run can never succeed, if one is known."""
        return cached_failure(self.run_path(cell))

    def read_origin(self) -> dict[str, Any]:
        """Returns what all results share: store, numerics, versions of libraries, device, threads and compile mode."""
        origin: dict[str, Any] = storage.read_json(storage.join(self.out, _TABLE))["origin"]
        return origin

    def settings_digests(self) -> dict[str, str]:
        """Returns a digest of the resolved settings of each arm, without the seed."""
        resolved = storage.read_json(storage.join(self.out, _TABLE))["settings"]
        texts = {name: json.dumps(values, sort_keys=True) for name, values in resolved.items()}
        return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in texts.items()}

    def read_sessions(self) -> list[dict[str, Any]]:
        """Returns the cost and the commit of each session of the experiment, see `Session`."""
        directory = storage.join(self.out, _SESSIONS)
        return [storage.read_json(storage.join(directory, name)) for name in storage.list_directory(directory)]

    def spent_s(self) -> float:
        """Returns the CPU seconds of all sessions of the experiment, interrupted ones too."""
        sessions = self.read_sessions()
        for cell in self.experiment.cells():
            # It is called after every evaluated network, so it does not parse the settings of each run.
            sessions += read_sessions(Run(self.run_path(cell), cell.config, {}))
        return total_cost(sessions)["cpu_s"]

    def is_spent(self) -> bool:
        """Tells whether the ceiling is reached."""
        return self.spent_s() >= 3600 * self.experiment.cpu_hours

    def write_session(self, session: "Session") -> None:
        """Writes the cost of a session so far."""
        values = {**session.meter.read(), "commit": session.commit}
        storage.write_json(storage.join(self.out, _SESSIONS, f"{session.name}.json"), values)


@dataclass(frozen=True)
class Session:
    """The work of a process on an experiment; a process may have several sessions, one after the other.

    Attributes:
        name: Unique name of its file.
        meter: Measures its cost from its start on.
        commit: Commit of the package, with "-dirty" after changes; None if it is not in a repository. It is recorded,
            not compared.
    """

    name: str
    meter: CostMeter
    commit: str | None

    @classmethod
    def begin(cls) -> "Session":
        """Begins a session of this process."""
        return cls(uuid.uuid4().hex, CostMeter(torch.device("cpu")), _commit())


def _commit() -> str | None:
    package = str(files("dream_ray"))
    try:
        # Elsewhere, the package may lie in the repository of another project.
        _git(package, "ls-files", "--error-unmatch", "__init__.py")
        return _git(package, "describe", "--always", "--dirty", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(directory: str, *arguments: str) -> str:
    command = ["git", "-C", directory, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def begin_or_continue(table: Table) -> None:
    """Creates the directory of an experiment, or checks that an earlier session's results belong to the same table.

    More seeds, more arms, another ceiling and other names of the report and of the set continue a table; anything else
    makes another one.

    Raises:
        UsageError: If the store does not hold the image set of the file, the directory holds something else, or the
            settings, the store, the numerics, the versions of libraries, the evaluation or the targets of equal
            accuracy have changed.
    """
    experiment, store = table.experiment, Store.open(table.store)
    dumped = experiment.model_dump(mode="json", include={"evaluation", "equal_accuracy"})
    check_set(experiment, store)
    check_networks(experiment, store)
    resolved = {name: with_checked_models(name, experiment.config_of(name, 0), store) for name in experiment.arms}
    models = {name: digests for name, (_, digests) in resolved.items() if digests}
    current = {
        "origin": {
            "store": store.manifest.checksum,
            "device": table.device,
            "threads": experiment.resources.cpus,
            "compile": "off",
            "numerics": NUMERICS,
            "versions": library_versions(),
        },
        "evaluation": dumped["evaluation"],
        "equal_accuracy": dumped["equal_accuracy"],
        "settings": {name: _settings(config) for name, (config, _) in resolved.items()},
        **({INITIAL_MODELS: models} if models else {}),
    }
    path = storage.join(table.out, _TABLE)
    if storage.exists(path):
        _check_all_shown(table)
        recorded = storage.read_json(path)
        added = current["settings"].keys() - recorded["settings"].keys()
        kept = {name: values for name, values in current["settings"].items() if name not in added}
        _refuse(table.out, differences(recorded, {**current, "settings": kept}))
    elif storage.list_directory(table.out):
        raise UsageError(
            f"out must be a new directory or that of the experiment; {table.out} has other files in it. "
            "Use another --out"
        )
    storage.ensure_writable(table.out)
    storage.write_json(path, current, indent=2)
    storage.write_text(storage.join(table.out, EXPERIMENT), dump_experiment(experiment))


def _check_all_shown(table: Table) -> None:
    """Raises UsageError if the file leaves out a run of an earlier session."""
    names = {cell.name for cell in table.experiment.cells()}
    directory = storage.join(table.out, _RUNS)
    for name in storage.list_directory(directory):
        if name not in names and storage.exists(storage.join(directory, name, "config.yaml")):
            raise UsageError(
                f"arms and seeds must include every run of {table.out}; {name} is missing. Put it back into the file, "
                "or use another --out"
            )


def open_table(out: str) -> Table:
    """Opens the directory of an experiment, to read its results."""
    shared = storage.read_json(storage.join(out, _TABLE))
    experiment = read_experiment(storage.join(out, EXPERIMENT))
    return Table(storage.absolute(out), "", experiment, shared["origin"]["device"])


def _settings(config: Config) -> dict[str, Any]:
    """Returns the settings that all runs of an arm share."""
    return {name: value for name, value in config.model_dump(mode="json").items() if name != "seed"}


def _refuse(path: str, changed: list[str]) -> None:
    if changed:
        raise UsageError(
            f"{path} must hold results of the same settings, store, numerics, libraries and targets as the table; "
            f"{'; '.join(changed[:5])}. Use another --out"
        )
