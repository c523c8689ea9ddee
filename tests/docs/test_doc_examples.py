"""Executed commands and Python examples succeed; other examples are parsed and their names resolved."""

import ast
import importlib
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dream_ray import api, cli
from dream_ray.config import load_config, parse_config
from dream_ray.experiments.file import parse_experiment
from dream_ray.sweeps.file import parse_sweep
from tests.conftest import TINY
from tests.docs.pages import Block, blocks, commands, name_of

EXECUTED = [block for block in blocks("bash", "python") if block.mark == "executed"]


def resolve(tree: ast.Module) -> None:
    """Imports the modules of the code, and looks up the attributes that it uses."""
    modules: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                modules[alias.asname or alias.name.partition(".")[0]] = importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                modules[alias.asname or alias.name] = getattr(module, alias.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            getattr(modules[node.value.id], node.attr)


def test_names_of_parsed_examples_resolve() -> None:
    for block in blocks("python"):
        if block.mark == "parsed":
            resolve(ast.parse(block.text))


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory, digits_store: str) -> str:
    """A finished run of the digits."""
    run = str(tmp_path_factory.mktemp("finished") / "run")
    config = parse_config({**TINY, "outer_steps": 1})
    api.distill(config, store=digits_store, out=run, local=True)
    return run


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished_run: str, digits_store: str) -> Path:
    """A working directory with the store stores/digits and the finished run runs/quickstart/run."""
    for name, target in {"runs/quickstart/run": finished_run, "stores/digits": digits_store}.items():
        (tmp_path / name).parent.mkdir(parents=True)
        os.symlink(target, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path


@pytest.mark.parametrize("page", sorted({block.page for block in EXECUTED}), ids=name_of)
def test_executed_blocks_succeed(page: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The executed blocks of a page run in order in one directory; its Python blocks share names."""
    names: dict[str, Any] = {"__name__": "__main__"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for block in EXECUTED:
            if block.page == page and block.language == "python":
                exec(compile(block.text, block.name, "exec"), names)
            elif block.page == page:
                execute(block, workspace, monkeypatch)
    if "network" in names:
        check_that_it_learned(names)


def execute(block: Block, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in commands(block.text):
        program, *arguments = shlex.split(command)
        assert program == "dream-ray", f"{command}: only dream-ray commands are executed here"
        if arguments[0] == "ingest":  # the page writes its own store
            (workspace / arguments[2]).unlink(missing_ok=True)
        monkeypatch.setattr("sys.argv", [program, *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code, command


def check_that_it_learned(names: dict[str, Any]) -> None:
    images, labels = names["data"].images_NCHW, names["data"].labels_N
    with torch.no_grad():
        reached = (names["network"](images).argmax(dim=1) == labels).float().mean()
    assert reached > 0.9, "the network has learned its training images"


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.name)
def test_yaml_is_read(block: Block, tmp_path: Path) -> None:
    """Sweep and experiment files are checked completely; other blocks are settings of a run."""
    values = yaml.safe_load(block.text)
    if "space" in values:
        parse_sweep(values)
    elif "arms" in values:
        parse_experiment(values)
    else:
        (tmp_path / "settings.yaml").write_text(block.text)
        load_config(file=str(tmp_path / "settings.yaml"))
