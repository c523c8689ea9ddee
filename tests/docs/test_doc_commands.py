"""Commands of the documentation: each block states its test, and the command line parses every command."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from dream_ray.cli import app
from dream_ray.config import PRESETS, Config, load_config
from dream_ray.config.given import config_of
from dream_ray.config.load import read_assignments
from dream_ray.config.section import paths_of
from tests.docs.pages import ROOT, Block, blocks, commands, inline_code, name_of, pages

MARKS = r"parsed|executed(?: by tests/[\w./]+\.py)?"
OURS = re.compile(r"^(?:\S*dream-ray|(?:\./)?scripts/submit\.sh|\S*python -m dream_ray)\s+(.*)$")
BENCHMARK = re.compile(r"python -m benchmarks\.(\w+)(.*)$")
FILES = re.compile(r"(?<![\w/.-])(?:\./)?((?:deploy|scripts|sweeps|benchmarks|tests)/[\w./-]*\w|cluster\.yaml)")
SECTIONS = ("data", "evaluation", "initialisation", "matching", "network", "pixels", "selection", "source") + (
    "trajectory",
    "update",
    "weights",
)
FOREIGN = {"--head", "--dashboard-host", "--config.file", "--generate", "--logdir", "--working-dir", "-k", "-m", "-n"}

SHELL = blocks("bash")
CLI = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def options_of(command: str) -> set[str]:
    return {name for parameter in CLI[command].params for name in parameter.opts} | {"--help"}


def known_options() -> set[str]:
    """All options of dream-ray, of the scripts and of the benchmarks."""
    sources = [*ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("scripts/*.sh")]
    theirs = {option for file in sources for option in re.findall(r"--[a-z][\w-]*", file.read_text())}
    return theirs.union(FOREIGN, *map(options_of, CLI))


@pytest.mark.parametrize("block", blocks("bash", "python"), ids=lambda block: block.name)
def test_a_block_states_how_it_is_tested(block: Block) -> None:
    assert re.fullmatch(MARKS, block.mark), "write <sub>Tested: executed</sub> or <sub>Tested: parsed</sub> below it"
    if block.mark.startswith("executed by "):
        test = ROOT / block.mark.removeprefix("executed by ")
        assert block.page.name in test.read_text(), f"{test} does not read {block.page.name}"


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.name)
def test_commands_parse(block: Block) -> None:
    for command in commands(block.text):
        parse(command)
        missing = [name for name in FILES.findall(command) if not (ROOT / name).exists()]
        assert not missing, f"{command}: no such file: {missing}"


def parse(command: str) -> None:
    """Raises if dream-ray would refuse the command before it reads a file."""
    if found := OURS.match(command):
        name, *arguments = shlex.split(found[1])
        if name.startswith("-"):
            return
        assert name in CLI, f"{command}: no such command"
        context = CLI[name].make_context(name, arguments)
        values = context.params
        preset, assignments = values.get("preset"), values.get("assignments") or ()
        if name == "select" and not preset:  # the only command that needs no preset to set something
            config_of(Config(), read_assignments(assignments), {})
        elif preset or assignments:
            load_config(preset=preset, assignments=assignments)
    elif found := BENCHMARK.search(command):
        source = benchmark(found[1]).read_text()
        unknown = [option for option in re.findall(r"--[\w-]+", found[2]) if f'"{option}"' not in source]
        assert not unknown, f"{command}: unknown options {unknown}"


def benchmark(name: str) -> Path:
    """Returns the file of the command line of a benchmark, which is a module or a package."""
    module = ROOT / "benchmarks" / f"{name}.py"
    return module if module.exists() else module.with_suffix("") / "__main__.py"


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_inline_commands_options_and_settings_exist(page: Path) -> None:
    wrong = []
    for code in inline_code(page):
        if (found := OURS.match(code)) and (name := found[1].split()[0]).isalpha() and name.islower():
            used = set(re.findall(r"(?<=\s)--[\w-]+", code))
            wrong += [code] if name not in CLI or used - options_of(name) else []
        elif found := BENCHMARK.match(code):
            wrong += [code] if not benchmark(found[1]).exists() else []
        elif code.startswith("--"):
            wrong += [code] if code.split()[0].partition("=")[0] not in known_options() else []
        elif re.fullmatch(rf"(?:{'|'.join(SECTIONS)})\.[\w.]+(?:[:=].*)?", code):
            wrong += [code] if re.split("[:=]", code)[0] not in SETTINGS and "options." not in code else []
    assert not wrong, wrong


SETTINGS = set(paths_of(Config))


def test_benchmarks_name_presets_that_exist() -> None:
    text = "".join(file.read_text() for file in ROOT.glob("benchmarks/**/*.py"))
    names = set(re.findall(r'"([\w-]+-ipc\d+[\w-]*)"', text))
    assert names
    assert names <= PRESETS.keys()
