"""What `import dream_ray` offers: the functions of the API, typed, and nothing heavy."""

import dataclasses
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import dream_ray
from dream_ray import api, cli
from dream_ray.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]


def public_functions() -> set[str]:
    return {
        name
        for name, value in vars(api).items()
        if inspect.isfunction(value) and value.__module__.startswith(api.__name__) and not name.startswith("_")
    }


def test_every_function_of_the_api_is_public() -> None:
    exported = {name for name in dream_ray.__all__ if inspect.isfunction(getattr(dream_ray, name))}
    assert exported == public_functions() | {"load_config"}


def test_public_names_are_listed_and_can_be_imported() -> None:
    assert dir(dream_ray) == dream_ray.__all__ == sorted(dream_ray.__all__)
    for name in dream_ray.__all__:
        assert getattr(dream_ray, name) is not None
    with pytest.raises(AttributeError, match="module 'dream_ray' has no attribute 'distil'"):
        dream_ray.distil  # noqa: B018


def test_the_docstring_explains_every_function() -> None:
    assert dream_ray.__doc__ is not None
    lines = {line.split()[0] for line in dream_ray.__doc__.splitlines() if line.startswith("    ")}
    assert public_functions() | {"load_config"} <= lines


def test_every_default_is_a_keyword() -> None:
    for name in public_functions():
        for parameter in inspect.signature(getattr(api, name)).parameters.values():
            assert parameter.default is parameter.empty or parameter.kind is parameter.KEYWORD_ONLY, (name, parameter)


PATHS = {"directory", "file", "out", "path", "run", "runs", "snapshot_cache", "store"}
"""Names of arguments that are paths."""


@pytest.mark.parametrize("name", sorted(public_functions() - {"ingest", "project"}))
def test_every_path_is_text_or_a_pathlib_path(name: str) -> None:
    function = getattr(api, name)
    parameters = inspect.signature(function).parameters
    paths = [parameter for parameter in parameters.values() if parameter.name in PATHS]
    assert paths and all("PathLike" in str(inspect.get_annotations(function)[one.name]) for one in paths)
    positional: list[Any] = []
    given: dict[str, Any] = {}
    for parameter in parameters.values():
        broken = Path("s3://bucket/key")
        value = [broken] if parameter.name == "runs" else broken if parameter in paths else None
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            positional.append(value)
        elif parameter.name in PATHS or (
            parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
        ):
            given[parameter.name] = value
    with pytest.raises(UsageError, match="must be a str if it is a URI"):
        function(*positional, **given)


SCRIPT = """
import pathlib

import dream_ray


def main() -> None:
    store = pathlib.Path("stores/photos")
    manifest = dream_ray.ingest("photos", store, size=64, test_fraction=0.2, local=True)
    config = dream_ray.config.load_config(preset="smoke")
    print(manifest.class_names, dream_ray.plan(config, store=store, local=True).forecast().wall_s)
    data = dream_ray.distill("cifar10-ipc10", store=store, out="runs/a", local=True, settings={"pixels.lr": 1}, ipc=10)
    images, labels = data.images_NCHW, data.labels_N
    print(len(images), len(labels))
    rows = dream_ray.evaluate("runs/a", local=True, progress=False)
    accuracy: float = rows[0]["mean"]
    print(accuracy)
    rows.plot().savefig("accuracy.png")
    print(dream_ray.export("runs/a", pathlib.Path("shared"), to="npz").num_images)
    print(dream_ray.sets.read("shared").images("uint8", layout="NHWC").shape)
    dream_ray.compare(["runs/a", pathlib.Path("runs/b")]).plot_images()
    for entry in dream_ray.list_runs("runs"):
        print(entry.path, entry.accuracy)


if __name__ == "__main__":
    main()
"""


def test_type_checkers_see_the_types(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "snippet.py").write_text(
        "import dream_ray\nreveal_type(dream_ray.load_synthetic('x'))\ndream_ray.distil\n"
    )
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        str(ROOT / "pyproject.toml"),
        "--strict",
        str(tmp_path / "snippet.py"),
        str(tmp_path / "script.py"),
    ]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert 'Revealed type is "dream_ray.engine.run.dataset.SyntheticDataset"' in done.stdout
    assert 'Module has no attribute "distil"' in done.stdout
    assert "script.py" not in done.stdout, "mypy --strict passes over a user's script"
    assert (ROOT / "dream_ray" / "py.typed").exists()


def test_no_subpackage_hides_a_public_name() -> None:
    modules = {path.stem for path in (ROOT / "dream_ray").iterdir()}
    assert not modules & set(dream_ray.__all__)


COMMAND_ONLY = {
    "config": {"preset", "assignments", "time_budget"},
    "networks": {"nets", "net_options"},
    "network": {"nets", "net_options"},
    "settings": {field.name for field in dataclasses.fields(dream_ray.IngestSettings)} - {"source"},
}
"""Options from which a command makes an argument of the function."""
OF_THE_SCREEN = {"watch", "observer", "on_result", "progress", "price_per_hour", "scale"}
OF_SWEEPS = {"study", "max_concurrent"}
"""`resume` and `status` take sweeps too; the functions are `resume_sweep` and none."""
OF_PROJECTIONS = {"as_json"}
"""`plan` without a store projects, which `project` does."""
OF_POOLS = {"members"}
"""`train` trains pools too; the function is `train_pool`."""


COMMANDS = (
    "ingest",
    "plan",
    "distill",
    "resume",
    "evaluate",
    "diagnose",
    "sweep",
    "experiment",
    "train",
    "compare",
    "export",
    "status",
)


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_and_functions_take_the_same_arguments(name: str) -> None:
    options = {parameter.name for parameter in typer.main.get_command(cli.app).commands[name].params}  # type: ignore[attr-defined]
    parameters = inspect.signature(getattr(api, name)).parameters
    arguments = set(parameters)
    if "config" in arguments:  # the command has --set for further settings
        arguments -= {"settings", "more"}
    for argument, made_of in COMMAND_ONLY.items():
        if argument in arguments:
            assert options & made_of
            options = (options - made_of) | {argument}
    if name in ("resume", "status"):
        options -= OF_SWEEPS
    options -= {"train": OF_POOLS, "plan": OF_PROJECTIONS}.get(name, set())
    assert options - OF_THE_SCREEN == arguments - OF_THE_SCREEN
