"""The floors of the package and the things that no module may do, read from the source of every module."""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOOR_0 = {"core", "errors"}
FLOOR_1 = {"config", "data", "nets", "storage"} | FLOOR_0
FLOOR_2 = {"engine"} | FLOOR_1
FLOOR_3 = {"distributed"} | FLOOR_2 | {"sweep"}

# Part of the package -> the other parts that it may import. Every part may import itself.
MAY_IMPORT = {
    "__init__": set(),
    "errors": set(),
    "core": {"errors"},
    "storage": FLOOR_0,
    "nets": FLOOR_0,
    "config": {"storage"} | FLOOR_0,
    "data": {"storage"} | FLOOR_0,
    "engine": FLOOR_1,
    "sweep": FLOOR_2,
    "distributed": FLOOR_2 | {"sweep"},
    "dispatch": FLOOR_3,
    "api": {"dispatch"} | FLOOR_3,
    "cli": {"api"} | FLOOR_3,
    "__main__": {"api", "cli"} | FLOOR_3,
}
# What a part may import from the package itself: the names its __init__ really holds, not the API it looks up.
ROOT_NAMES = {"__version__"}

HEAVY = {"matplotlib", "pandas", "plotly", "ray", "sklearn", "torchvision"}
UNSAFE = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
NAMES_THAT_SAY_NOTHING = {"helper", "helpers", "manager", "managers", "misc", "util", "utils"}
MAX_LINES = 300

Found = Iterator[tuple[int, str]]


@dataclass(frozen=True)
class Module:
    """A module: its path below the package, such as engine/run.py, and its source."""

    path: str
    source: str

    @property
    def part(self) -> str:
        return self.path.split("/")[0].removesuffix(".py")

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)


def modules() -> list[Module]:
    package = ROOT / "dream_ray"
    return [
        Module(path.relative_to(package).as_posix(), path.read_text(encoding="utf-8"))
        for path in sorted(package.rglob("*.py"))
    ]


def imported_names(node: ast.AST) -> list[str]:
    """Full dotted names that a statement imports; a `from` import counts with each of its names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and dotted(node.func) in ("import_module", "importlib.import_module", "__import__"):
        return [name.value for name in node.args[:1] if isinstance(name, ast.Constant)]
    return []


def imports(module: Module) -> Found:
    for node in ast.walk(module.tree):
        for name in imported_names(node):
            yield node.lineno, name


def imports_at_module_level(node: ast.AST) -> Found:
    """What runs when the module is imported: everything but the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        for name in imported_names(child):
            yield child.lineno, name
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports_at_module_level(child)


def dotted(node: ast.AST) -> str:
    """`torch.load` for the expression torch.load; "" for what is no plain dotted name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := dotted(node.value)):
        return f"{owner}.{node.attr}"
    return ""


def top(name: str) -> str:
    return name.split(".")[0]


def imports_point_down(module: Module) -> Found:
    if module.part not in MAY_IMPORT:
        yield 1, f"dream_ray.{module.part} has no floor: give it a row in MAY_IMPORT"
        return
    allowed = MAY_IMPORT[module.part] | {module.part} | ROOT_NAMES
    for line, name in imports(module):
        if name.startswith("."):
            yield line, "relative import"
        elif name.startswith("dream_ray.") and name.split(".")[1] not in allowed:
            yield line, f"{module.part} may not import {name}"


def only_distributed_imports_ray(module: Module) -> Found:
    for line, name in imports(module):
        if top(name) == "ray" and module.part != "distributed":
            yield line, f"{name} is for dream_ray.distributed only"


def heavy_imports_are_late(module: Module) -> Found:
    for line, name in imports_at_module_level(module.tree):
        if top(name) in HEAVY - {"ray"}:
            yield line, f"{name} is imported with the module; import it in the function that needs it"


def only_the_command_line_prints_and_exits(module: Module) -> Found:
    if module.part in ("cli", "__main__"):
        return
    nodes = list(ast.walk(module.tree))
    caught = {node.type for node in nodes if isinstance(node, ast.ExceptHandler)}
    for node in nodes:
        if isinstance(node, ast.Call) and (name := dotted(node.func)) in ("print", "exit", "quit", "sys.exit"):
            yield node.lineno, f"{name}() is for dream_ray.cli only"
        elif isinstance(node, ast.Name) and node.id == "SystemExit" and node not in caught:
            yield node.lineno, "SystemExit is for dream_ray.cli only"
        elif "sys.exit" in imported_names(node):
            yield node.lineno, "sys.exit is for dream_ray.cli only"


def nothing_is_unpickled(module: Module) -> Found:
    for node in ast.walk(module.tree):
        for name in imported_names(node):
            if top(name) in UNSAFE or name == "torch.load":
                yield node.lineno, f"{name} runs what a file tells it to"
        if dotted(node) == "torch.load":
            yield node.lineno, "torch.load runs what a file tells it to; tensors are stored with safetensors"
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            yield node.lineno, "allow_pickle runs what a file tells it to"


def files_are_short(module: Module) -> Found:
    num_lines = len(module.source.splitlines())
    if num_lines > MAX_LINES:
        yield num_lines, f"has {num_lines} lines; at most {MAX_LINES}"


def names_say_something(module: Module) -> Found:
    for word in module.path.removesuffix(".py").replace("/", "_").split("_"):
        if word in NAMES_THAT_SAY_NOTHING:
            yield 1, f"{word!r} in a module's name says nothing about what is in it"


RULES: list[Callable[[Module], Found]] = [
    imports_point_down,
    only_distributed_imports_ray,
    heavy_imports_are_late,
    only_the_command_line_prints_and_exits,
    nothing_is_unpickled,
    files_are_short,
    names_say_something,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_package_keeps(rule: Callable[[Module], Found]) -> None:
    found = [f"dream_ray/{module.path}:{line}: {what}" for module in modules() for line, what in sorted(rule(module))]
    assert not found, "\n" + "\n".join(found)


def test_table_has_a_row_for_every_part_and_no_other() -> None:
    assert set(MAY_IMPORT) == {module.part for module in modules()}


@pytest.mark.parametrize(
    ("rule", "path", "source"),
    [
        (imports_point_down, "core/rng.py", "import dream_ray.storage"),
        (imports_point_down, "core/rng.py", "from dream_ray import storage"),
        (imports_point_down, "engine/run.py", "def f():\n from dream_ray.distributed import session"),
        (imports_point_down, "engine/run.py", "from dream_ray import distill"),
        (imports_point_down, "nets/convnet.py", "from ..engine import run"),
        (imports_point_down, "data/store.py", "from dream_ray.nets import Classifier"),
        (imports_point_down, "storage.py", "from importlib import import_module\nimport_module('dream_ray.data')"),
        (imports_point_down, "api.py", "from dream_ray.cli import main"),
        (imports_point_down, "viewer/app.py", ""),
        (only_distributed_imports_ray, "engine/run.py", "def f():\n import ray.train"),
        (only_distributed_imports_ray, "api.py", "from ray import train"),
        (heavy_imports_are_late, "nets/resnet.py", "import torchvision.models"),
        (
            heavy_imports_are_late,
            "distributed/sweep.py",
            "try:\n from pandas import DataFrame\nexcept ImportError: ...",
        ),
        (heavy_imports_are_late, "engine/plots.py", "class Plot:\n import matplotlib"),
        (only_the_command_line_prints_and_exits, "engine/run.py", "print('x')"),
        (only_the_command_line_prints_and_exits, "api.py", "import sys\nsys.exit(1)"),
        (only_the_command_line_prints_and_exits, "api.py", "from sys import exit"),
        (only_the_command_line_prints_and_exits, "errors.py", "raise SystemExit(1)"),
        (nothing_is_unpickled, "engine/state.py", "import pickle"),
        (nothing_is_unpickled, "engine/state.py", "import torch\ntorch.load('x')"),
        (nothing_is_unpickled, "engine/state.py", "from torch import load"),
        (nothing_is_unpickled, "data/store.py", "np.load('x', allow_pickle=True)"),
        (files_are_short, "core/rng.py", "\n" * (MAX_LINES + 1)),
        (names_say_something, "core/tensor_utils.py", ""),
        (names_say_something, "helpers/rng.py", ""),
    ],
)
def test_rule_sees(rule: Callable[[Module], Found], path: str, source: str) -> None:
    assert list(rule(Module(path, source)))


@pytest.mark.parametrize(
    ("rule", "path", "source"),
    [
        (
            imports_point_down,
            "core/kmeans.py",
            "from dream_ray.core import rng\nfrom dream_ray import errors",
        ),
        (imports_point_down, "data/ingest.py", "import dream_ray\nfrom dream_ray import __version__, storage"),
        (only_distributed_imports_ray, "distributed/session.py", "import ray"),
        (heavy_imports_are_late, "engine/plots.py", "def plot():\n from matplotlib.figure import Figure"),
        (only_the_command_line_prints_and_exits, "cli/display.py", "print('x')"),
        (only_the_command_line_prints_and_exits, "engine/run.py", "console.print('x')"),
        (only_the_command_line_prints_and_exits, "engine/run.py", "try: f()\nexcept SystemExit: g()"),
        (nothing_is_unpickled, "data/store.py", "np.load('x', allow_pickle=False)"),
        (files_are_short, "core/rng.py", "\n" * MAX_LINES),
    ],
)
def test_rule_lets_pass(rule: Callable[[Module], Found], path: str, source: str) -> None:
    assert not list(rule(Module(path, source)))


@pytest.mark.parametrize("name", ["dream_ray", "dream_ray.engine.distill"])
def test_import_is_light(name: str) -> None:
    code = f"import sys, {name}; print(*sorted({HEAVY} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert not result.stdout.split(), f"import {name} also imports {result.stdout.strip()}"
