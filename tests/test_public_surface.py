"""What `import dream_ray` offers: the functions of the API, typed, and nothing heavy."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dream_ray
from dream_ray import api

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


def test_type_checkers_see_the_types(tmp_path: Path) -> None:
    (tmp_path / "snippet.py").write_text(
        "import dream_ray\nreveal_type(dream_ray.load_synthetic('x'))\ndream_ray.distil\n"
    )
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        str(ROOT / "pyproject.toml"),
        str(tmp_path / "snippet.py"),
    ]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert 'Revealed type is "dream_ray.engine.run.artefacts.SyntheticDataset"' in done.stdout
    assert 'Module has no attribute "distil"' in done.stdout
    assert (ROOT / "dream_ray" / "py.typed").exists()


def test_no_subpackage_hides_a_public_name() -> None:
    modules = {path.stem for path in (ROOT / "dream_ray").iterdir()}
    assert not modules & set(dream_ray.__all__)
