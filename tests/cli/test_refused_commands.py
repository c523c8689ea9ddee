"""Refused commands, and commands that only read, import neither PyTorch nor Ray; refused ones no Rich either."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dream_ray import api
from dream_ray.config import parse_config
from dream_ray.sweeps.directory import SweepContext, create_sweep
from dream_ray.sweeps.file import parse_sweep
from tests.experiments.tables import BASE

WITHOUT = """
import sys
from dream_ray.cli import main

try:
    main()
finally:  # a search for a module, as Typer 0.19 searches for Rich, is no import
    imported = [name for name in LIBRARIES if name in sys.modules]
    assert not imported, f"{imported} imported"
"""


@pytest.fixture(scope="module")
def runs(digits_store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a store, a finished run, a sweep and settings."""
    path = tmp_path_factory.mktemp("runs")
    (path / "store").symlink_to(digits_store)
    tiny = {"ipc": 1, "factor": 1, "outer_steps": 1, "inner_steps": 1, "network": {"options": {"depth": 1, "width": 2}}}
    tiny |= {"selection": {"num_clusters": 2}, "update": {"num_images": 2, "epochs": 1}}
    api.distill(parse_config(tiny), store=str(path / "store"), out=str(path / "run"), local=True)
    settings = {"evaluation.every": 20, "data.include_validation": False}
    sweep: dict[str, Any] = {"preset": "smoke", "settings": settings, "space": {"pixels.lr": {"log": [1e-4, 1]}}}
    (path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    (path / "typo.yaml").write_text(yaml.safe_dump({**sweep, "sampler": {"name": "tree"}}))
    (path / "table").mkdir()
    (path / "table" / "experiment.yaml").write_text(yaml.safe_dump(BASE))
    (path / "model").mkdir()
    (path / "model" / "training.json").write_text("{}")
    (path / "table.yaml").write_text(yaml.safe_dump({**BASE, "preset": "smok"}))
    create_sweep(parse_sweep(sweep), SweepContext(str(path / "sweep"), str(path / "store"), "cpu"))
    return path


def run_without(libraries: tuple[str, ...], arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    code = WITHOUT.replace("LIBRARIES", repr(libraries))
    command = [sys.executable, "-c", code, *arguments.split()]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120, check=False)


DISTILL = "distill --preset smoke --store store --out new"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (f"{DISTILL} --device tpu", "device must be one of auto, cpu, cuda; got 'tpu'"),
        (f"{DISTILL} --class-batch 0", "class-batch must be an int >= 1; got 0"),
        (f"{DISTILL} --class-batch 11", "class-batch must be at most the number of classes (10); got 11"),
        (f"{DISTILL} --compile maybe", "compile must be one of auto, on, off, graphs; got 'maybe'"),
        (f"{DISTILL} --workers 0", "workers must be an int >= 1; got 0"),
        (f"{DISTILL} --workers 11", "workers must be at most the number of classes (10); got 11"),
        (f"{DISTILL} --memory much", "memory must be a size such as 4GB or 512MiB; got 'much'"),
        (f"{DISTILL} --set ipc=0", "ipc must follow the rule: input should be greater than or equal to 1; got 0"),
        (f"{DISTILL} --set selection.num_cluster=3", "did you mean selection.num_clusters?"),
        (
            f"{DISTILL} --set framework=x",
            "framework must be one of dc, dsa, dm, idc, dream, dream_plus, mtt, cim, statistics; got 'x'",
        ),
        (f"{DISTILL} --set matching.distance=x", "matching.distance must follow the rule: input should be 'mse'"),
        (f"{DISTILL} --set update.augmentation=x", "augmentation must be 'none' or operations of flip, color"),
        ("distill --preset smok --store store --out new", "got 'smok': did you mean smoke?"),
        ("distill --config nowhere.yaml --store store --out new", "config file nowhere.yaml does not exist"),
        ("distill --preset smoke --store nowhere --out new", "it contains no manifest.json"),
        ("distill --preset smoke --store nowhere --out new --local", "it contains no manifest.json"),
        ("distill --preset smoke --store store --out run", "already holds a run; continue it with `dream-ray resume"),
        (f"{DISTILL} --ipc 10", "--ipc is a setting, not an option; use --set ipc=VALUE"),
        (f"{DISTILL} --lr=0.1", "use --set pixels.lr=0.1 or --set update.lr=0.1 or --set evaluation.lr=0.1"),
        (f"{DISTILL} --time-budget 1h", "--preset must be left out with --time-budget"),
        ("suggest store --time-budget soon", "time-budget must be a time such as 30s, 10min or 2h; got 'soon'"),
        ("suggest store --out run/config.yaml", "out run/config.yaml exists already"),
        ("suggest nowhere", "it contains no manifest.json"),
        ("plan --preset smoke --store nowhere", "it contains no manifest.json"),
        ("plan --preset smoke --store store --scale 1,x", "scale must be ints >= 1 with commas between them"),
        ("resume nowhere", "there is no config.yaml in it"),
        ("resume table", "table is an experiment; continue it with the `dream-ray experiment` command that began it"),
        ("resume model", "model is a model or a pool; continue it with the `dream-ray train` command that began it"),
        (
            "train store --net convnet --out new",
            "network and epochs must be given, with --net and --epochs",
        ),
        ("train store --weights w.pt --out new --members 2", "--weights is for one model, not a pool"),
        ("resume store --local", "it is that of a store"),
        ("resume run --max-concurrent 2", "--max-concurrent is for sweeps"),
        ("resume sweep --workers 2", "--workers is for runs"),
        ("evaluate nowhere", "there is no config.yaml in it"),
        ("evaluate store --local", "it is that of a store"),
        ("evaluate run --protocol slow", "protocol must be one of quick, published; got 'slow'"),
        ("evaluate run --baselines hole", "baselines must be of random real, k-means real"),
        ("evaluate run --split train --local", "split must be one of test, validation; got 'train'"),
        ("evaluate run --step 2", "run (it has 0, 1); got 2. With checkpoint_keep_every"),
        ("evaluate run --repeats 0", "repeats must be an int >= 1; got 0"),
        ("diagnose", "give either a run, or a store with settings (--preset or --config); got none"),
        ("diagnose run --store store", "got run and store"),
        ("diagnose nowhere", "there is no config.yaml in it"),
        (
            "diagnose run --selections 2",
            "selections must be an int from 1 to the selections of an outer step (1); got 2",
        ),
        ("diagnose --store store --preset smoke", "out must be given without a run"),
        ("diagnose --store store --preset smoke --out new --device tpu", "device must be one of auto, cpu, cuda"),
        ("ingest nowhere new", "nowhere', which does not exist"),
        ("ingest digits new --encoding png", "encoding must be one of raw, jpeg; got 'png'"),
        ("ingest digits new --workers 0", "workers must be an int >= 1; got 0"),
        ("inspect nowhere", "it contains no manifest.json"),
        ("sweep nowhere.yaml --store store", "sweep file nowhere.yaml does not exist"),
        ("sweep typo.yaml --store store", "sampler.name"),
        ("sweep sweep.yaml --out new", "store must be given, with --store"),
        ("sweep sweep.yaml --store nowhere --out new", "it contains no manifest.json"),
        ("sweep sweep.yaml --store store --out sweep", "already holds a sweep"),
        ("experiment nowhere.yaml --store store --out new", "experiment must be a file or one of"),
        ("experiment table.yaml --store store --out new --local", "got 'smok': did you mean smoke?"),
        ("experiment equal_accuracy --store store --out new --wait soon", "wait must be a time"),
        ("experiment equal_accuracy --store store --out new --local --max-concurrent 2", "must be 1 with local; got 2"),
        ("status nowhere", "there is no config.yaml in it"),
        ("presets --framework x", "framework must be one of dc, dsa, dm, idc, dream, dream_plus, mtt, cim, statistics"),
        ("quickstart --out run", "out must be a new directory or one that quickstart wrote"),
        ("distil", "No such command 'distil'"),
    ],
)
def test_a_refused_command_imports_neither_torch_nor_ray_nor_rich(arguments: str, message: str, runs: Path) -> None:
    done = run_without(("torch", "ray", "rich"), arguments, runs)
    assert message in done.stderr, done.stderr
    assert (done.returncode, done.stdout) == (2, "")
    assert not (runs / "new").exists()


@pytest.mark.parametrize(
    "command", ["status run", "status sweep", "presets", "settings", "--help", "distill --help", "--version"]
)
def test_a_command_that_reads_imports_neither_torch_nor_ray(command: str, runs: Path) -> None:
    done = run_without(("torch", "ray"), command, runs)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout) > 10


def test_help_imports_no_library_but_typer() -> None:
    code = (
        "import sys; from dream_ray import cli; print(*({'numpy', 'pyarrow', 'pydantic', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("typed", "completed"), [("dream-ray sug", "suggest"), ("dream-ray distill --pre", "--preset")]
)
def test_a_shell_completes_words_without_heavy_libraries(typed: str, completed: str, tmp_path: Path) -> None:
    words = {"_DREAM_RAY_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    code = WITHOUT.replace("LIBRARIES", "('torch', 'ray', 'rich')")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env={**os.environ, **words}
    )
    assert (done.returncode, done.stderr) == (0, "") and completed in done.stdout.split()
