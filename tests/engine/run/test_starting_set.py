"""Runs that start from the images of another set."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dream_ray import api, storage
from dream_ray.config import load_config, parse_config
from dream_ray.config.schema import Config
from dream_ray.engine.run.artefacts import read_synthetic, write_synthetic
from dream_ray.engine.run.directory import open_run
from dream_ray.engine.run.sets import starting_from
from dream_ray.errors import UsageError
from dream_ray.sets import set_file
from tests.conftest import TINY
from tests.frameworks import tiny_run


def distil(out: Path, store: str, **options: Any) -> str:
    settings = options.pop("settings", {**TINY, "outer_steps": 1})
    api.distill(parse_config(settings), store=store, out=out, local=True, **options)
    return str(out)


def images(path: str, name: str) -> torch.Tensor:
    return read_synthetic(f"{path}/{name}.parquet")[0].images_LNCHW  # type: ignore[return-value]


@pytest.fixture(scope="module")
def first(four_digits_store: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return distil(tmp_path_factory.mktemp("first") / "run", four_digits_store)


@pytest.mark.parametrize("to", [None, "npz", "torch"])
def test_a_run_starts_at_the_images_of_a_set(
    first: str, four_digits_store: str, tmp_path: Path, to: str | None
) -> None:
    start = first
    if to is not None:
        start = str(tmp_path / "export")
        api.export(first, start, to=to, mosaics=True)
    run = distil(tmp_path / "run", four_digits_store, from_set=start)
    assert torch.equal(images(run, "initial"), images(first, "synthetic"))
    assert not torch.equal(images(run, "synthetic"), images(run, "initial"))
    initialisation = open_run(run).config.initialisation
    assert (initialisation.strategy, len(initialisation.digest or "")) == ("set", 64)
    assert initialisation.path == (f"{first}/synthetic.parquet" if to is None else start)


@pytest.mark.parametrize("framework", ["dm", "mtt"])
def test_other_sources_start_from_a_set_too(framework: str, four_digits_store: str, tmp_path: Path) -> None:
    settings = {**tiny_run(framework, "random"), "outer_steps": 1}
    start = distil(tmp_path / "start", four_digits_store, settings=settings)
    run = distil(tmp_path / "run", four_digits_store, settings=settings, from_set=start)
    # Their pixels are those of network inputs, and are mapped there and back.
    assert torch.allclose(images(run, "initial"), images(start, "synthetic"), atol=1e-6)


def test_workers_and_a_resume_change_no_bit(first: str, four_digits_store: str, tmp_path: Path) -> None:
    one, two = (
        distil(tmp_path / str(workers), four_digits_store, from_set=first, workers=workers) for workers in (1, 2)
    )
    assert torch.equal(images(one, "synthetic"), images(two, "synthetic"))


def test_a_run_starts_at_the_newest_checkpoint_of_an_unfinished_one(
    first: str, four_digits_store: str, tmp_path: Path
) -> None:
    stopped = shutil.copytree(first, tmp_path / "stopped")
    (stopped / "synthetic.parquet").unlink()
    config = starting_from(parse_config(TINY), str(stopped))
    assert config.initialisation.path == f"{stopped}/partial-step-00000004.parquet"
    assert config.initialisation.digest == starting_from(parse_config(TINY), first).initialisation.digest


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ipc": 2}, r"has ipc 1, the run has ipc 2"),
        ({"factor": 1}, r"has factor 2, the run has factor 1"),
        ({"ipc": 3, "factor": 1}, r"has ipc 1, factor 2, the run has ipc 3, factor 1"),
    ],
)
def test_sets_of_another_size_are_refused_with_both_values(
    first: str, four_digits_store: str, out: str, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=f"must be a set of the same classes, shape, ipc and factor .*{message}"):
        distil(Path(out), four_digits_store, settings={**TINY, **changed}, from_set=first)
    assert not storage.exists(f"{out}/config.yaml")


def test_a_set_of_other_classes_is_refused(first: str, digits_store: str, out: str) -> None:
    message = r"has classes 4 classes: 0, 3, 5, 8, the run has classes 10 classes: 0, 1, 2, 3, 4 and 5 more"
    with pytest.raises(UsageError, match=message):
        distil(Path(out), digits_store, from_set=first)


def test_a_set_of_another_format_version_is_refused(
    first: str, four_digits_store: str, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = str(tmp_path / "later.parquet")
    synthetic, _ = read_synthetic(f"{first}/synthetic.parquet")
    with monkeypatch.context() as patch:
        patch.setattr(set_file, "FORMAT_VERSION", 99)
        write_synthetic(later, synthetic, recipe={})
    with pytest.raises(UsageError, match="later.parquet has format_version 99; this dream_ray reads 1"):
        distil(Path(out), four_digits_store, from_set=later)


def test_a_set_that_was_replaced_is_refused(first: str, four_digits_store: str, out: str, tmp_path: Path) -> None:
    file = str(shutil.copy(f"{first}/synthetic.parquet", tmp_path / "set.parquet"))
    config = starting_from(parse_config(TINY), file)
    shutil.copy(f"{first}/initial.parquet", file)
    with pytest.raises(UsageError, match=r"initialisation.digest must be the digest of the images of .*set.parquet, "):
        api.distill(config, store=four_digits_store, out=out, local=True)


def test_a_file_of_settings_may_name_a_set(first: str, four_digits_store: str, out: str, tmp_path: Path) -> None:
    start = {"strategy": "set", "path": first}
    run = distil(Path(out), four_digits_store, settings={**TINY, "outer_steps": 1, "initialisation": start})
    again = load_config(file=f"{run}/config.yaml")
    assert again.initialisation.digest == starting_from(again, first).initialisation.digest
    with pytest.raises(UsageError, match="initialisation.path must be a synthetic set with .* got null"):
        parse_config({"initialisation": {"strategy": "set"}})


def test_settings_without_a_set_are_written_as_before() -> None:
    """Their digests name checkpoints and trials of earlier versions."""
    assert Config().model_dump(mode="json")["initialisation"] == {"strategy": "representative", "warmup_epochs": 1}
