"""Every command as a user types it; wrong input gives one line, the right exit code and no traceback."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dream_ray import api, cli, storage
from dream_ray.cli import progress
from dream_ray.cli.console import console
from dream_ray.config import PRESETS, load_config, parse_config
from dream_ray.config.yaml_text import parse_yaml
from dream_ray.engine.local_backend import LocalBackend
from dream_ray.engine.progress.display import make_bar
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.errors import UsageError
from tests.runs import create_run

Answer = tuple[int, str, str]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Runs `dream-ray ARGUMENTS` in this process and returns (exit code, stdout, stderr)."""

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["dream-ray", *map(str, arguments)])
        monkeypatch.setattr(sys, "path", list(sys.path))
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def settings_file(tiny: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny))
    return path


def test_all_commands_work_without_ray(
    call: Callable[..., Answer], settings_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LINE_S", 0.1)
    store, run = tmp_path / "store", tmp_path / "run"
    code, text, _ = call("ingest", "digits", store, "--local")
    assert code == 0
    assert "images: 1797" in text.splitlines()
    code, text, _ = call("inspect", store)
    assert code == 0
    assert "images: 1797" in text.splitlines()
    assert (store / "contact_sheet.png").stat().st_size > 1000

    code, text, log = call("distill", "--config", settings_file, "--store", store, "--out", run, "--local")
    assert code == 0
    assert re.search(r"^Distilling: \d of 8, ", log, re.M), "a log has lines of progress"
    assert str(run / "synthetic.parquet") in text
    for name in ("config.yaml", "env.json", "cost.json", "metrics.jsonl", "grid.png", "initial.parquet"):
        assert (run / name).stat().st_size > 0, name
    cost = json.loads((run / "cost.json").read_text())
    assert cost["wall_s"] > 0
    assert cost["peak_rss_bytes"] > 2**20

    code, text, log = call("diagnose", run, "--num-classes", 2)
    assert code == 0
    assert re.search(r"^Diagnosing: \d of 4, inner step \d$", log, re.M)
    assert text.splitlines()[-1] == f"page: {run / 'diagnosis' / 'diagnosis.html'}"

    code, text, _ = call("evaluate", run, "--local", "--repeats", 2)
    assert code == 0
    for name in ("distilled", "random real", "k-means real", "initial mosaics", "whole set"):
        assert name in text
    rows = json.loads((run / "evaluation" / "convnet-quick-test-n=2.json").read_text())["evaluated_sets"]
    assert [row["n"] for row in rows] == [2] * 5
    assert (run / "evaluation" / "convnet-quick-test-n=2.png").stat().st_size > 1000

    code, text, _ = call("resume", run, "--local")
    assert code == 0, "a finished run is no error"


def test_the_whole_set_result_is_kept_beside_the_store(
    call: Callable[..., Answer], settings_file: Path, digits_store: str, out: str
) -> None:
    call("distill", "--config", settings_file, "--store", digits_store, "--out", out, "--local")
    call("evaluate", out, "--local", "--repeats", 1, "--baselines", "whole set")
    kept = [name for name in storage.list_directory(f"{digits_store}/evaluations") if name.startswith("whole-set-")]
    assert kept
    times = [os.stat(f"{digits_store}/evaluations/{name}").st_mtime_ns for name in kept]
    code, text, _ = call("evaluate", out, "--local", "--repeats", 1, "--baselines", "whole set")
    assert code == 0
    assert [os.stat(f"{digits_store}/evaluations/{name}").st_mtime_ns for name in kept] == times


def test_evaluate_takes_another_network(
    call: Callable[..., Answer], settings_file: Path, four_digits_store: str, out: str
) -> None:
    call("distill", "--config", settings_file, "--store", four_digits_store, "--out", out, "--local")
    options = ("--net", "convnet", "--net-option", "depth=1", "--net-option", "width=3")
    code, text, _ = call("evaluate", out, "--local", "--repeats", 1, "--baselines", "none", *options)
    assert code == 0
    document = json.loads(Path(out, "evaluation", "convnet-depth=1-width=3-quick-test-distilled-n=1.json").read_text())
    assert document["network"] == {"name": "convnet", "options": {"depth": 1, "width": 3}}


def test_a_run_writes_validation_accuracies_while_it_works(
    call: Callable[..., Answer], settings_file: Path, four_digits_store: str, out: str
) -> None:
    code, _, _ = call(
        *("distill", "--config", settings_file, "--store", four_digits_store, "--out", out, "--local"),
        *("--set", "evaluation.every=4", "--set", "data.include_validation=false", "--set", "evaluation.repeats=2"),
    )
    assert code == 0
    rows = [json.loads(path.read_text()) for path in sorted(Path(out, "validation").iterdir())]
    assert [row["step"] for row in rows] == [0, 4, 8]
    assert all(row["accuracy"] == pytest.approx(sum(row["accuracies"]) / 2) for row in rows)
    options = ("--local", "--repeats", 2, "--split", "validation")
    assert call("evaluate", out, *options, "--baselines", "none")[0] == 0
    code, text, _ = call("evaluate", out, *options, "--step", 0, "--step", 8)
    assert code == 0
    assert re.search(r"distilled, step 0 .*\n.*distilled, step 8 ", text)
    name = "evaluation/convnet-quick-validation-distilled-steps=0_8-n=2.json"
    evaluated = storage.read_json(f"{out}/{name}")["evaluated_sets"]
    assert [row["accuracies"] for row in evaluated] == [rows[0]["accuracies"], rows[-1]["accuracies"]]


def test_presets_are_listed(call: Callable[..., Answer]) -> None:
    code, text, _ = call("presets")
    assert code == 0
    for name in ("smoke", "cifar10-ipc10", "tiny-imagenet-ipc50", "imagenet100-ipc20"):
        assert name in text
    assert re.search(r"^\W*mtt\W+Matching training", text, re.M), "a row of the frameworks"
    code, text, _ = call("presets", "--framework", "dm")
    assert code == 0
    assert re.search(r"^\W*dm\W+Distribution matching", text, re.M)
    assert "dm-cifar10-ipc10" in text and "mtt" not in text
    assert re.search(r"^dm-svhn-ipc1 +by rule ", text, re.M)
    code, text, _ = call("presets", "--framework", "dream")
    assert len(re.findall(r"^dream-imagenet10+-ipc\d+ +extrapolated ", text, re.M)) == 4
    code, text, _ = call("presets", "--framework", "statistics")
    assert "  matches batch-norm statistics, and labels by cross-entropy\n" in text


def test_a_preset_is_printed_as_a_file_with_the_source_of_its_values(
    call: Callable[..., Answer], tmp_path: Path
) -> None:
    code, text, _ = call("presets", "idc-cifar10-ipc1")
    assert code == 0
    assert "# published accuracy: 50.6 %\n#     source: README of IDC's authors\n" in text
    assert re.search(r"^#   \[1\] published code: IDC, --reproduce$", text, re.M)
    assert re.search(r"^  lr: 0\.0005 +# \[1\] 0\.005 \* \(ipc / 10\)$", text, re.M)
    assert re.search(r"^checkpoint_every: 50$", text, re.M), "unsourced"
    assert "not published, or not in a source that we read" in call("presets", "svhn-ipc1")[1]
    assert all(len(line) <= 80 for line in text.splitlines())
    code, _, error = call("presets", "cifar10-ipc2")
    assert code == 2 and error == (
        "error: preset must be the name of one; got 'cifar10-ipc2': use --preset cifar10-ipc1 --set ipc=2, whose "
        "settings follow the published rules\n"
    )
    code, _, error = call("presets", "cifar10")
    assert code == 2 and error.endswith("did you mean cifar10-ipc1 or cifar10-ipc10 or cifar10-ipc50?\n")
    code, _, error = call("presets", "cifar10-ipc1", "--framework", "dm")
    assert code == 2 and "--framework is for the list of presets, not for cifar10-ipc1" in error


def test_every_printed_preset_is_its_settings(call: Callable[..., Answer]) -> None:
    for name, preset in PRESETS.items():
        written = parse_yaml(call("presets", name)[1], name)
        assert parse_config(written) == parse_config(preset.settings), name


def test_a_changed_ipc_says_which_settings_it_gives(
    call: Callable[..., Answer], caplog: pytest.LogCaptureFixture
) -> None:
    for ipc in (1, 5):
        code, _, error = call(
            *("distill", "--preset", "cifar10-ipc10", "--store", "nowhere", "--out", "run", "--local"),
            *("--set", f"ipc={ipc}"),
        )
        assert code == 2 and "nowhere" in error
    published, by_rule = caplog.messages
    assert published == "The settings are those of preset cifar10-ipc1 (published)."
    assert by_rule.startswith("Nothing is published for cifar10 with dream_plus at ipc 5 and factor 2: ")


def test_a_run_from_the_set_of_another(
    call: Callable[..., Answer],
    settings_file: Path,
    digits_store: str,
    out: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    base = ("distill", "--config", settings_file, "--store", digits_store, "--local", "--set", "outer_steps=1")
    assert call(*base, "--out", out)[0] == 0
    assert call("resume", out, "--local")[0] == 0
    assert "was finished before; nothing was done" in caplog.text
    code, text, error = call(*base, "--out", f"{out}-next", "--from", out)
    assert code == 0, error
    assert "changed to fit" not in text + error, "there is no limit of memory"
    assert f"dream-ray evaluate {out}-next --local" in text
    again = ("distill", "--time-budget", "1min", "--store", digits_store, "--out", out)
    code, text, error = call(*again)
    assert (code, text) == (2, "") and f"out {out} already holds a run" in error, "refused before the measurement"


WRONG = {
    "no store": (("--store", "nowhere"), r"nowhere"),
    "unknown setting": (
        ("--set", "selection.num_cluster=3"),
        r"selection\.num_cluster .*did you mean selection\.num_clusters",
    ),
    "no such compile mode": (("--compile", "maybe"), r"compile must be one of auto, on, off, graphs; got 'maybe'"),
    "wrong value": (("--set", "ipc=0"), r"ipc .*greater than or equal to 1; got 0"),
    "not a setting": (("--set", "ipc"), r"--set must look like section\.key=value; got 'ipc'"),
    "other version": (("--set", "version=99"), r"version must be 1.*got 99"),
    "factor too large": (
        ("--set", "factor=9"),
        r"factor must have .* < side \(8\), .*; got 9 \(the next smaller one is 8\)",
    ),
    "depth too large": (("--set", "network.options.depth=4"), r"depth"),
    "unknown network": (("--set", "network.name=convnot"), r"got 'convnot': did you mean convnet\?"),
    "no such device": (("--device", "tpu"), r"device must be one of auto, cpu, cuda; got 'tpu'"),
    "threads": (("--cpus-per-worker", "0"), r"cpus-per-worker must be an int >= 1; got 0"),
    "workers": (("--workers", "0"), r"workers must be an int >= 1; got 0"),
    "fewest workers": (("--min-workers", "2"), r"min-workers must be an int from 1 to workers \(1\); got 2"),
    "local workers": (("--workers", "11"), r"workers must be at most the number of classes \(10\); got 11"),
    "local producers": (
        ("--workers", "2", "--producers", "0"),
        r"producers must be an int >= 1 with local and 2 workers; got 0",
    ),
    "validation distilled": (
        ("--set", "evaluation.every=2"),
        r"every needs data\.include_validation=false",
    ),
    "batch": (("--set", "batch_real=7"), r"batch_real must be .*\(6\) with selection.strategy representative; got 7"),
    "out not writable": (("--out", "/proc/dream_ray_run"), r"/proc/dream_ray_run"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_to_distill(
    call: Callable[..., Answer], settings_file: Path, digits_store: str, out: str, case: str
) -> None:
    arguments, message = WRONG[case]
    base = ("distill", "--config", settings_file, "--store", digits_store, "--out", out, "--local")
    code, _, error = call(*base, *arguments)
    assert code == 2
    assert error.startswith("error: ")
    assert "Traceback" not in error
    assert re.search(message, error), error
    assert not Path(out, "config.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ingest", "nowhere", "store"), "nowhere"),
        (("ingest", "digits", "store", "--memory", "much"), "memory must be a size such as 4GB or 512MiB; got 'much'"),
        (("ingest", "digits", "store", "--classes", "one"), "classes must be one of imagenet-10, imagenet-100,"),
        (("ingest", "digits", "store", "--encoding", "png"), "encoding must be one of raw, jpeg; got 'png'"),
        (("ingest", "digits", "store", "--test-labels", "x"), "test_labels needs test"),
        (("ingest", "digits", "store", "--local", "--workers", "2"), "workers must be 1 with local"),
        (("ingest", "digits", "store", "--workers", "0"), "workers must be an int >= 1; got 0"),
        (("ingest", "digits", "store", "--workers", "-1"), "workers must be an int >= 1; got -1"),
        (("ingest", "digits", "store", "--local", "--memory", "4GB"), "memory must not be set with local"),
        (("ingest", "digits", ""), "the argument after digits must not be empty"),
        (("ingest", "digits", "store", "--test", ""), "the argument after --test must not be empty"),
        (("distill", "--preset", "cifar10-ipc10", "--out=", "--store", "s"), "the argument --out must not be empty"),
        (("inspect", "nowhere"), "nowhere"),
        (("resume", "nowhere"), "/nowhere does not exist: there is no config.yaml in it"),
        (("evaluate", "nowhere"), "/nowhere does not exist: there is no config.yaml in it"),
        (("train", ".", "--net", "convnet", "--epochs", "1", "--out", "m", "--local"), "ingest IMAGES STORE` makes"),
        (
            ("evaluate", "nowhere", "--net", "convnet", "--net-option", "width=["),
            "--net-option 'width=[': the value must be YAML",
        ),
        (
            ("evaluate", "nowhere", "--net", "convnet", "--net-option", "width"),
            "--net-option must look like key=value; got 'width'",
        ),
        (("distill", "--preset", "cifar10_ipc10", "--store", "s", "--out", "o"), "did you mean cifar10-ipc10?"),
        (("distill", "--store", "s", "--out", "o"), "give --preset NAME, --config FILE or both"),
        (
            ("distill", "--config", "nowhere.yaml", "--store", "s", "--out", "o"),
            "config file nowhere.yaml does not exist",
        ),
    ],
)
def test_other_wrong_input(call: Callable[..., Answer], arguments: tuple[str, ...], message: str) -> None:
    code, _, error = call(*arguments)
    assert code == 2
    assert message in error
    assert "Traceback" not in error


def test_a_directory_that_is_no_run_is_named(call: Callable[..., Answer], digits_store: str) -> None:
    code, _, error = call("evaluate", digits_store)
    assert code == 2 and f"{digits_store} must be the directory of a run; it is that of a store" in error
    code, _, error = call("status", Path(digits_store).parent)
    assert code == 2 and f"`dream-ray list {Path(digits_store).parent}` lists the runs below it" in error


def test_progress_shows_names_without_markup() -> None:
    bar = make_bar(console(stderr=True))
    bar.add_task("Ingesting b[/x]", total=None, status="[y] of [/z]")
    texts = [str(column(bar.tasks[0])) for column in bar.columns if not isinstance(column, str)]
    assert texts[0] == "Ingesting b[/x]" and texts[-1] == "[y] of [/z]"


def test_an_existing_run_is_not_overwritten(
    call: Callable[..., Answer], settings_file: Path, four_digits_store: str, out: str
) -> None:
    base = ("distill", "--config", settings_file, "--store", four_digits_store, "--out", out, "--local")
    assert call(*base)[0] == 0
    before = Path(out, "synthetic.parquet").read_bytes()
    code, _, error = call(*base)
    assert code == 2
    assert f"continue it with `dream-ray resume {out}`" in error
    assert Path(out, "synthetic.parquet").read_bytes() == before


def test_a_run_in_use_by_another_process_is_refused(
    call: Callable[..., Answer], settings_file: Path, four_digits_store: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    create_run(str(out), load_config(file=str(settings_file)), four_digits_store)
    with storage.exclusive_lock("run", str(out)):
        code, _, error = call("resume", out, "--local")
    assert code == 2 and f"only one process at a time may use run {out}" in error
    assert call("resume", out, "--local")[0] == 0


def test_a_run_that_is_refused_before_it_begins_leaves_its_directory_free(
    tiny: dict[str, Any], digits_store: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **keywords: Any) -> Any:
        raise UsageError("8 workers need 8 CPUs")

    monkeypatch.setattr(LocalBackend, "run_workers", refuse)
    for _ in range(2):
        with pytest.raises(UsageError, match="8 workers"):
            api.distill(parse_config(tiny), store=digits_store, out=out, local=True)


def test_resume_with_other_versions_needs_the_option(
    call: Callable[..., Answer], settings_file: Path, four_digits_store: str, out: str
) -> None:
    base = ("distill", "--config", settings_file, "--store", four_digits_store, "--out", out, "--local")
    call(*base)
    Path(out, "synthetic.parquet").unlink()
    environment = json.loads(Path(out, "env.json").read_text())
    environment["versions"]["torch"] = "1.0"
    Path(out, "env.json").write_text(json.dumps(environment))
    code, _, error = call("resume", out, "--local")
    assert code == 2
    assert "versions.torch was 1.0" in error
    assert "--allow-different-bits" in error
    assert call("resume", out, "--local", "--allow-different-bits")[0] == 0


def test_a_run_that_fails_exits_with_1(
    call: Callable[..., Answer], settings_file: Path, digits_store: str, out: str
) -> None:
    base = ("distill", "--config", settings_file, "--store", digits_store, "--out", out, "--local")
    code, _, error = call(*base, "--set", "pixels.lr=1e30")
    assert code == 1
    assert "loss must be finite" in error
    assert "Traceback" not in error


def test_help_needs_no_torch() -> None:
    script = (
        "import sys; sys.argv = ['dream-ray', '--help']\n"
        "from dream_ray.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "distill" in done.stdout


@pytest.mark.ray
def test_plan_gives_the_memory_of_a_run_on_ray(
    call: Callable[..., Answer], settings_file: Path, digits_store: str
) -> None:
    base = ("plan", "--config", settings_file, "--store", digits_store, "--workers", 2, "--producers", 1)
    code, text, _ = call(*base, "--memory", "64GB")
    assert code == 0
    assert re.search(r"total +[0-9,]+", text)
    assert re.search(r"2 workers, 1 producer of [0-9,]+ MB and [0-9,]+ MB of queued snapshots", " ".join(text.split()))
    # The smallest batches: the first attempt of the fit fails at once.
    code, _, error = call(*base, "--set", "selection.embedding_batch=8", "--memory", "100MB")
    assert code == 2
    assert re.search(r"memory must be at least \d+\.\d\d GB, for 2 workers of \d+\.\d\d GB.*; got 0\.10 GB", error)


@pytest.mark.slow
def test_plan_predicts_the_time_of_a_run(call: Callable[..., Answer], settings_file: Path, digits_store: str) -> None:
    base = ("plan", "--local", "--config", settings_file, "--store", digits_store, "--workers", 2)
    code, text, error = call(*base, "--producers", 1, "--price-per-hour", "3600", "--scale", "1,2,10")
    assert code == 0, error
    assert "prediction for 2 workers, 1 producer" in text and "prediction, not a measurement" in text
    assert re.search(r"time of an inner step +[0-9.]+ s", text) and re.search(r"cost +[0-9,.]+", text)
    assert len(re.findall(r"^ +(?:1|2|10)  ", text, flags=re.MULTILINE)) == 3
    code, _, error = call(*base, "--scale", "4,two")
    assert code == 2
    assert "scale must be ints >= 1 with commas between them" in error


@pytest.mark.slow
def test_plan_shows_why_a_run_refuses_a_number_of_workers(
    call: Callable[..., Answer], settings_file: Path, digits_store: str
) -> None:
    base = ("plan", "--local", "--config", settings_file, "--store", digits_store)
    code, text, error = call(*base, "--scale", "20,2,10")
    assert code == 0, error
    assert re.search(r"^ +20(?: +-)+ *$", text, flags=re.MULTILINE)
    assert re.search(r"^ +2 +[0-9.]+ +[0-9:]+ +1\.00 ", text, flags=re.MULTILINE), (
        "the speedup is relative to the first possible number"
    )
    reason = "refused: workers must be at most the number of classes (10); got 20"
    assert reason in " ".join(text.split())
    code, text, error = call(*base, "--scale", "20")
    assert code == 0, error
    assert "all workers train the same networks" not in text


def test_inspect_shows_a_store_of_some_classes(call: Callable[..., Answer], tmp_path: Path) -> None:
    code, _, error = call(
        "ingest", "digits", tmp_path / "s", "--local", "--classes", "7,1", "--max-per-class", 20, "--encoding", "jpeg"
    )
    assert code == 0, error
    code, text, _ = call("inspect", tmp_path / "s")
    assert code == 0
    assert {"images: 80", "classes: 2", "encoding: jpeg", "train: 36 (18 to 18 per class)"} <= set(text.splitlines())
    assert (tmp_path / "s" / "contact_sheet.png").stat().st_size > 500


def test_inspect_verifies_a_store(call: Callable[..., Answer], tmp_path: Path) -> None:
    store = tmp_path / "s"
    assert call("ingest", "digits", store, "--local", "--classes", "7,1", "--max-per-class", 20)[0] == 0
    code, text, _ = call("inspect", store, "--verify")
    assert code == 0 and "checksums: all 6 files match" in text.splitlines()
    file = sorted(store.glob("images/*/*.arrow"))[0]
    written = file.read_bytes()
    file.write_bytes(written[:-1] + bytes([written[-1] ^ 1]))
    assert call("inspect", store)[0] == 0
    code, _, error = call("inspect", store, "--verify")
    assert code == 1 and f"{file} is damaged: its sha256 is" in error


def test_inspect_shows_a_read_only_store(call: Callable[..., Answer], tmp_path: Path) -> None:
    call("ingest", "digits", tmp_path / "s", "--local")
    (tmp_path / "s" / "contact_sheet.png").mkdir()
    code, text, error = call("inspect", tmp_path / "s")
    assert code == 1 and "cannot write" in error
    assert "images: 1797" in text.splitlines()


@pytest.mark.slow
def test_ingest_after_sigkill_gives_the_same_store(tmp_path: Path) -> None:
    pixels = np.random.Generator(np.random.Philox(key=0)).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    for label in range(12):
        (tmp_path / "photos" / f"{label:02d}").mkdir(parents=True)
        for key in range(30):
            image = Image.fromarray(np.roll(pixels, 997 * label + key))
            image.save(tmp_path / "photos" / f"{label:02d}" / f"{key}.jpg", quality=90)
    base = [sys.executable, "-m", "dream_ray", "ingest", str(tmp_path / "photos")]
    options = ["--size", "64", "--local"]
    subprocess.run([*base, str(tmp_path / "whole"), *options], check=True, capture_output=True)

    broken = tmp_path / "broken"
    process = subprocess.Popen([*base, str(broken), *options])
    deadline = time.monotonic() + 120
    while not (broken / "work" / "done" / "000004.json").exists():
        assert process.poll() is None, "finished before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (broken / "manifest.json").exists()
    kept = {file: file.stat().st_mtime_ns for file in sorted(broken.glob("images/*/*.arrow"))[:2]}

    subprocess.run([*base, str(broken), *options], check=True, capture_output=True)
    assert (broken / "manifest.json").read_bytes() == (tmp_path / "whole" / "manifest.json").read_bytes()
    assert {file: file.stat().st_mtime_ns for file in kept} == kept, "finished files are not written again"
    assert not list(broken.rglob(".*.partial"))


@pytest.mark.slow
def test_ctrl_c_prints_the_resume_command(settings_file: Path, four_digits_store: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "dream_ray", "distill", "--config", str(settings_file)]
    command += ["--store", four_digits_store, "--out", str(out), "--local", "--set", "outer_steps=500"]
    command += ["--set", "evaluation.every=4", "--set", "data.include_validation=false", "--set", "pixels.lr=0.0005"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 400
    while not (out / "checkpoints" / "step-00000004").is_dir():
        assert process.poll() is None, "finished before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # to the whole group, as a terminal does: also to the validating process
    _, stderr = process.communicate(timeout=400)
    assert process.returncode == 130
    assert stderr == f"interrupted; run `dream-ray resume {out}` to continue from the newest checkpoint\n"
    assert len(list((out / "checkpoints").iterdir())) >= 2


def test_resume_after_sigkill_gives_the_same_set(
    call: Callable[..., Answer], settings_file: Path, four_digits_store: str, tmp_path: Path
) -> None:
    """SIGKILL hits the process at any point; another process continues the run."""
    longer = ("--set", "outer_steps=5", "--set", "inner_steps=10", "--local")
    base = ["distill", "--config", str(settings_file), "--store", four_digits_store]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert call(*base, "--out", whole, *longer)[0] == 0

    process = subprocess.Popen([sys.executable, "-m", "dream_ray", *base, "--out", str(broken), *longer])
    deadline = time.monotonic() + 120
    while not (broken / "checkpoints" / "step-00000012").is_dir():
        assert process.poll() is None, "finished before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (broken / "synthetic.parquet").exists()

    code, _, error = call("resume", broken, "--local")
    assert code == 0, error
    sets = [read_synthetic(str(run / "synthetic.parquet"))[0].images_LNCHW for run in (whole, broken)]
    assert torch.equal(*sets)
