"""Rules of the package that neither ruff nor import-linter has, and a bad example for each rule that they have."""

import graphlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest
from importlinter.api import read_configuration

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent

HEAVY = {"matplotlib", "pandas", "plotly", "ray", "sklearn", "torchvision"}
VAGUE_WORDS = {"helper", "helpers", "manager", "managers", "misc", "util", "utils"}
FORBIDDEN_TEXT = {
    r"allow_pickle=(?!False)": "allow_pickle runs code from a file",
    r"raise SystemExit": "raise an error; only dream_ray/cli exits",
}
MAX_LINES = 300
MAX_ENTRIES = 15
MAX_ENGINE_LEVELS = 10


def long_files(package: Path) -> Iterator[str]:
    for path in package.rglob("*.py"):
        if (num_lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES:
            yield f"{path}: {num_lines} lines; at most {MAX_LINES}"


def crowded_folders(package: Path) -> Iterator[str]:
    for folder in [package, *(path for path in package.rglob("*") if path.is_dir() and path.name != "__pycache__")]:
        entries = {path.name for path in folder.iterdir()} - {"__init__.py", "__pycache__"}
        if len(entries) > MAX_ENTRIES:
            yield f"{folder}: {len(entries)} entries; at most {MAX_ENTRIES}"


def vague_names(package: Path) -> Iterator[str]:
    for path in package.rglob("*.py"):
        for word in re.split(r"[/_]", path.relative_to(package).with_suffix("").as_posix()):
            if word in VAGUE_WORDS:
                yield f"{path}: {word!r} says nothing about the content"


def forbidden_text(package: Path) -> Iterator[str]:
    for path in package.rglob("*.py"):
        if "cli" in path.relative_to(package).parts:
            continue
        for pattern, reason in FORBIDDEN_TEXT.items():
            if re.search(pattern, path.read_text(encoding="utf-8")):
                yield f"{path}: {reason}"


RULES = [long_files, crowded_folders, vague_names, forbidden_text]


@pytest.mark.parametrize("rule", RULES)
def test_package_keeps(rule) -> None:  # type: ignore[no-untyped-def]
    found = list(rule(ROOT / "dream_ray"))
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    [
        (long_files, "core/rng.py", "\n" * (MAX_LINES + 1)),
        (vague_names, "core/tensor_utils.py", ""),
        (vague_names, "helpers/rng.py", ""),
        (forbidden_text, "data/store/store.py", "np.load('x', allow_pickle=True)"),
        (forbidden_text, "errors.py", "raise SystemExit(1)"),
    ],
)
def test_rule_finds(rule, name: str, source: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path / name, source)
    assert len(list(rule(tmp_path))) == 1


def test_a_sub_package_is_one_entry_of_its_folder(tmp_path: Path) -> None:
    for number in range(MAX_ENTRIES):
        write(tmp_path / f"core/part{number}/__init__.py")
    write(tmp_path / "core/__init__.py")
    assert not list(crowded_folders(tmp_path))
    write(tmp_path / "core/one_more.py")
    assert len(list(crowded_folders(tmp_path))) == 1


def num_levels(package: str, graph: grimp.ImportGraph) -> int:
    """Length of the longest chain of imports between the modules and sub-packages that lie directly in a package."""
    children = graph.find_children(package)
    for child in children:
        graph.squash_module(child)
    imported = {child: graph.find_modules_directly_imported_by(child) & children - {child} for child in children}
    levels: dict[str, int] = {}
    for child in graphlib.TopologicalSorter(imported).static_order():
        levels[child] = 1 + max((levels[other] for other in imported[child]), default=0)
    return max(levels.values())


def test_levels_count_sub_packages_once() -> None:
    graph = grimp.ImportGraph()
    for module in ("p", "p.a", "p.a.x", "p.a.y", "p.b", "p.c"):
        graph.add_module(module)
    for importer, imported in (("p.a", "p.a.x"), ("p.a.x", "p.a.y"), ("p.a.y", "p.b"), ("p.a.x", "p.c")):
        graph.add_import(importer=importer, imported=imported)
    assert num_levels("p", graph) == 2


def test_the_engine_has_few_levels() -> None:
    graph = grimp.build_graph("dream_ray", exclude_type_checking_imports=True, cache_dir=None)
    assert num_levels("dream_ray.engine", graph) <= MAX_ENGINE_LEVELS


@pytest.mark.parametrize(
    ("name", "source", "rule"),
    [
        ("engine/run/lifecycle.py", "import torchvision.models", "TID253"),
        ("engine/run/lifecycle.py", "from ..core import rng", "TID252"),
        ("engine/run/lifecycle.py", "from importlib import import_module", "TID251"),
        ("engine/run/lifecycle.py", "import torch\n\ntorch.load('x')", "TID251"),
        ("engine/run/lifecycle.py", "from torch import load", "TID251"),
        ("distributed/cluster/tasks.py", "import numpy as np\n\nnp.random.seed(0)", "TID251"),
        ("api/runs.py", "import sys\n\nsys.exit(1)", "TID251"),
        ("api/runs.py", "exit(1)", "PLR1722"),
        ("api/runs.py", "print(1)", "T201"),
    ],
)
def test_ruff_finds(name: str, source: str, rule: str) -> None:
    command = [BIN / "ruff", "check", "--output-format=concise", "--stdin-filename", f"dream_ray/{name}", "-"]
    result = subprocess.run(command, cwd=ROOT, input=source, capture_output=True, text=True, timeout=60)
    assert rule in result.stdout, result.stdout + result.stderr


def lint_imports(folder: Path) -> str:
    shutil.copy(ROOT / "pyproject.toml", folder)
    command = [BIN / "lint-imports", "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60).stdout


def test_import_linter_finds_a_bad_example_for_each_contract(tmp_path: Path) -> None:
    contracts = read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
    (layers,) = (contract["layers"] for contract in contracts if contract["id"] == "layers")
    package = tmp_path / "dream_ray"
    for layer in " ".join(layers).replace("|", "").split():
        write(package / layer / "__init__.py")
    write(package / "__init__.py")
    write(package / "storage/paths.py", "import os, pathlib")
    write(package / "distributed/session.py", "import ray")
    assert f"{len(contracts)} kept, 0 broken" in lint_imports(tmp_path)

    write(package / "core/rng.py", "from dream_ray import sweeps")
    write(package / "nets/convnet.py", "def f():\n    from dream_ray import storage")
    write(package / "sweeps/a.py", "from dream_ray.sweeps import b\nimport pathlib, os")
    write(package / "sweeps/b.py", "from dream_ray.sweeps import a")
    write(package / "api/run.py", "def f():\n    from ray import train")
    write(package / "distributed/state.py", "import pickle")
    assert f"0 kept, {len(contracts)} broken" in lint_imports(tmp_path)


def write(path: Path, source: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")


def test_heavy_packages_are_imported_on_first_use() -> None:
    names = grimp.build_graph("dream_ray", cache_dir=None).modules
    light = sorted(name for name in names if name.split(".")[1:2] not in (["distributed"], ["__main__"]))
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code, *light], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert HEAVY.isdisjoint(result.stdout.split())
