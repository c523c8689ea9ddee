"""Runs in one process: workers that are threads."""

import shutil
import threading
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dream_ray import api
from dream_ray.config import parse_config
from dream_ray.data.ingest import ingest
from dream_ray.data.store import encodings
from dream_ray.data.store.manifest import Manifest
from dream_ray.engine.progress import heartbeat
from dream_ray.engine.progress.losses import Losses
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.directory import Run, open_run
from dream_ray.errors import RunError
from tests.conftest import FOUR_DIGITS
from tests.frameworks import tiny_run

Report = Callable[[Any, int, dict[int, float]], None]


def names_of_threads() -> set[str]:
    return {thread.name.partition("_")[0].partition("-")[0] for thread in threading.enumerate()}


def test_threads_change_no_bit(tiny: dict[str, Any], four_digits_store: str, tmp_path: Any) -> None:
    sets = []
    for workers, producers in ((1, 0), (3, None), (2, 2)):
        out = str(tmp_path / f"{workers}-{producers}")
        config = parse_config(tiny)
        api.distill(config, store=four_digits_store, out=out, workers=workers, producers=producers, local=True)
        sets.append(read_synthetic(f"{out}/synthetic.parquet")[0].images_LNCHW)
    assert all(torch.equal(found, sets[0]) for found in sets)


@pytest.fixture(scope="module")
def jpeg_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("jpeg") / "store")
    ingest(replace(FOUR_DIGITS, encoding="jpeg"), path)
    return path


@pytest.mark.parametrize("producers", [0, 1])
def test_threads_that_decode_change_no_bit_and_end_with_the_run(
    tiny: dict[str, Any], jpeg_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, producers: int
) -> None:
    decoding, config = set(), parse_config(tiny)
    decode_jpegs = encodings.decode_jpegs

    def recording(*what: Any) -> Any:
        decoding.add(threading.current_thread().name.partition("_")[0])
        return decode_jpegs(*what)

    monkeypatch.setattr(encodings, "decode_jpegs", recording)
    sets = []
    for name in ("threads", "none"):
        decoding.clear()
        if name == "none":
            monkeypatch.setattr(Run, "reading_store", lambda run: nullcontext(run.open_store()))
        api.distill(config, store=jpeg_store, out=str(tmp_path / name), producers=producers, local=True)
        assert ("decode" in decoding) == (name == "threads") and "decode" not in names_of_threads()
        sets.append(read_synthetic(str(tmp_path / name / "synthetic.parquet"))[0].images_LNCHW)
    assert torch.equal(*sets)


@pytest.mark.parametrize("producers", [0, 1])
def test_a_damaged_image_ends_a_run_and_its_threads(
    tiny: dict[str, Any], jpeg_store: str, tmp_path: Path, producers: int
) -> None:
    copy = Path(shutil.copytree(jpeg_store, tmp_path / "damaged"))
    file = copy / Manifest.read(str(copy)).files[0].path
    data = bytearray(file.read_bytes())
    scan = data.index(b"\xff\xda", data.index(b"\xff\xd8\xff"))
    data[scan : scan + 20] = bytes(20)
    file.write_bytes(data)
    with pytest.raises(RunError, match=rf"^{file} is damaged: .*; ingest the store again$"):
        api.distill(parse_config(tiny), store=str(copy), out=str(tmp_path / "run"), producers=producers, local=True)
    assert not names_of_threads() & {"decode", "producer", "prefetch", "checkpoint"}


@pytest.mark.parametrize("shard", [0, 1])
@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (RunError("loss must be finite"), pytest.raises(RunError, match="^loss must be finite$")),
        (ZeroDivisionError("by accident"), pytest.raises((ZeroDivisionError, RunError), match="by accident")),
    ],
)
def test_a_failing_worker_ends_all_workers(
    tiny: dict[str, Any],
    four_digits_store: str,
    out: str,
    monkeypatch: pytest.MonkeyPatch,
    shard: int,
    error: Exception,
    seen: Any,
) -> None:
    original: Report = heartbeat.Heartbeat.on_step

    def report(self: Any, step: int, losses: dict[int, float]) -> None:
        original(self, step, losses)
        if step == 3 and self._shard == shard:
            raise error

    monkeypatch.setattr(heartbeat.Heartbeat, "on_step", report)
    with seen:
        api.distill(parse_config({**tiny, "outer_steps": 50}), store=four_digits_store, out=out, workers=2, local=True)
    assert not names_of_threads() & {"worker", "producer", "prefetch", "checkpoint"}


@pytest.mark.parametrize(
    ("framework", "producers", "saved"),
    [("dream_plus", 0, [0, 5]), ("dream_plus", 1, [0, 5]), ("dm", 1, [0, 5]), ("mtt", 0, [0, 5]), ("dc", 0, [0])],
)
def test_ctrl_c_saves_the_state_before_the_step(
    four_digits_store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    framework: str,
    producers: int,
    saved: list[int],
) -> None:
    config = parse_config({**tiny_run(framework, "representative"), "checkpoint_every": 1000})
    sets = []
    for name in ("whole", "broken"):
        out = str(tmp_path / name)
        with ExitStack() as ending:
            if name == "broken":
                ending.enter_context(monkeypatch.context()).setattr(Losses, "add", interrupting_at(5))
                ending.enter_context(pytest.raises(KeyboardInterrupt))
            api.distill(config, store=four_digits_store, out=out, producers=producers, local=True)
        if name == "broken":
            assert open_run(out).checkpoints().complete_steps() == saved
            api.resume(out, local=True)
        sets.append(read_synthetic(f"{out}/synthetic.parquet")[0].images_LNCHW)
    assert torch.equal(*sets)


def test_ctrl_c_saves_no_state_that_is_not_finite(
    tiny: dict[str, Any], four_digits_store: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise every resume would start from it."""
    config = parse_config({**tiny, "checkpoint_every": 1000, "log_every": 1000, "pixels": {"lr": 1e30}})
    monkeypatch.setattr(Losses, "add", interrupting_at(3))
    with pytest.raises(RunError, match="must be finite"):
        api.distill(config, store=four_digits_store, out=out, producers=0, local=True)
    assert open_run(out).checkpoints().complete_steps() == [0]


def interrupting_at(at: int) -> Callable[..., None]:
    """Stands in for the losses: Ctrl-C arrives when some classes of a step have moved and others have not."""
    add = Losses.add

    def interrupting(self: Any, step: int, losses: dict[int, torch.Tensor]) -> None:
        add(self, step, losses)
        if step == at:
            raise KeyboardInterrupt

    return interrupting


@pytest.mark.parametrize("strategy", ["representative", "random"])
def test_classes_with_fewer_images_than_tiles_start_from_repeated_images(
    tiny: dict[str, Any], four_digits_store: str, out: str, strategy: str
) -> None:
    """The classes have 60 images; 20 mosaics have 80 tiles, and a selection wants 100."""
    changes = {"ipc": 20, "outer_steps": 1, "inner_steps": 1, "initialisation": {"strategy": strategy}}
    config = parse_config({**tiny, **changes, "selection": {"num_clusters": 100}})
    api.distill(config, store=four_digits_store, out=out, local=True)
    tiles = read_synthetic(f"{out}/initial.parquet")[0].images_LNCHW[0].unfold(2, 4, 4).unfold(3, 4, 4)
    tiles = tiles.permute(0, 2, 3, 1, 4, 5).reshape(80, -1)
    assert len(tiles.unique(dim=0)) == 60
