"""The mean and standard deviation of network inputs: those of the store or of the settings, everywhere the same."""

from typing import Any

import pytest
import torch

from dream_ray import api, storage
from dream_ray.config import Config, load_config, parse_config
from dream_ray.core.images.normalisation import Normalisation
from dream_ray.data.store.store import Store
from dream_ray.engine.evaluation import tasks
from dream_ray.engine.planning.measuring.steps import measure_costs
from dream_ray.engine.prefetch.producer import _identity
from dream_ray.engine.progress import heartbeat
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.checks import check_fit
from dream_ray.engine.run.directory import Run, open_run
from dream_ray.engine.run.programs.compilation import _check_network
from dream_ray.errors import UsageError
from tests.runs import Killed, create_run, kill_at

CPU = torch.device("cpu")
MINE: dict[str, Any] = {"mean": [0.25], "std": [0.5]}
NORMALISED: dict[str, Any] = {"factor": 1, "pixels": {"space": "normalised", "coupling": "joint"}}


def config_of(tiny: dict[str, Any], statistics: Any, **more: Any) -> Config:
    return parse_config({**tiny, **more, "data": {"normalisation": statistics}})


def images_of(config: Config, store: str, out: str) -> torch.Tensor:
    api.distill(config, store=store, out=out, local=True, device="cpu", producers=0)
    return read_synthetic(f"{out}/synthetic.parquet")[0].images_LNCHW


@pytest.mark.parametrize("space", [{}, NORMALISED], ids=["unit", "normalised"])
def test_the_statistics_of_the_store_written_out_change_no_bit(
    tiny: dict[str, Any], four_digits_store: str, out: str, space: dict[str, Any]
) -> None:
    manifest = Store.open(four_digits_store).manifest
    written = {"mean": list(manifest.mean), "std": list(manifest.std)}
    by_store, by_numbers, others = (
        images_of(config_of(tiny, statistics, **space), four_digits_store, f"{out}-{number}")
        for number, statistics in enumerate(("store", written, MINE))
    )
    assert torch.equal(by_store, by_numbers)
    assert not torch.equal(by_store, others)


def test_every_user_of_a_normalisation_takes_that_of_the_settings(
    tiny: dict[str, Any], four_digits_store: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Distil with a kill and a resume, load, evaluate with all baselines, plan and check the compiler."""
    seen: set[tuple[tuple[float, ...], tuple[float, ...]]] = set()
    original = Normalisation.of

    def recorded(mean: Any, std: Any, device: torch.device) -> Normalisation:
        seen.add((tuple(mean), tuple(std)))
        return original(mean, std, device)

    monkeypatch.setattr(Normalisation, "of", recorded)
    config = config_of(tiny, MINE)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(heartbeat.Heartbeat, "on_step", kill_at(5))
        images_of(config, four_digits_store, out)
    data = api.resume(out, local=True, producers=0)
    api.evaluate(out, repeats=1, local=True)
    store = Store.open(four_digits_store)
    measure_costs(config, store, threads=1, device=CPU)
    _check_network(config, store)
    assert seen == {((0.25,), (0.5,))}
    assert (data.mean, data.std) == ((0.25,), (0.5,))
    grey = torch.full((1, 1, 8, 8), 0.75)
    assert torch.equal(data.normalise(grey), torch.ones(1, 1, 8, 8))
    assert open_run(out).config.data == config.data


def test_a_step_of_normalised_pixels_is_longer_by_the_square_of_the_deviation(
    tiny: dict[str, Any], four_digits_store: str, out: str
) -> None:
    once = {**tiny, "outer_steps": 1, "inner_steps": 1, "checkpoint_every": 1}
    pixels: list[dict[str, Any]] = [{"space": "normalised", "lr": 0.1}, {"space": "unit", "lr": 0.1 * 0.5**2}]
    normalised, unit = (
        images_of(
            config_of(once, MINE, factor=1, pixels={**one, "coupling": "joint"}), four_digits_store, f"{out}-{number}"
        )
        for number, one in enumerate(pixels)
    )
    before = read_synthetic(f"{out}-1/initial.parquet")[0].images_LNCHW
    assert (unit - before).abs().max() > 1e-3
    # Only pixels in [0, 1] are clamped.
    torch.testing.assert_close(normalised.clamp(0, 1) - before, unit - before, rtol=1e-3, atol=1e-6)


def test_caches_of_other_statistics_are_not_shared(tiny: dict[str, Any], four_digits_store: str, out: str) -> None:
    runs = [
        create_run(f"{out}-{number}", config_of(tiny, statistics), four_digits_store)
        for number, statistics in enumerate(("store", MINE))
    ]
    assert _identity(runs[0]) != _identity(runs[1])
    task = tasks.distilled_task(runs[0], "test")

    def whole_set(run: Run) -> str:
        return tasks._whole_set_file(task, run, run.open_store(), CPU)

    assert whole_set(runs[0]) != whole_set(runs[1])


@pytest.mark.parametrize("numbers", [[], [0.5] * 3])
def test_statistics_of_another_number_of_channels_are_refused(
    tiny: dict[str, Any], four_digits_store: str, out: str, numbers: list[float]
) -> None:
    config = config_of(tiny, {"mean": numbers, "std": numbers})
    message = (
        rf"data\.normalisation must have one mean and std per channel of the store \(1\); got {len(numbers)}\. "
        r"Correct the numbers, or set data\.normalisation=store"
    )
    with pytest.raises(UsageError, match=message):
        check_fit(config, Store.open(four_digits_store))
    with pytest.raises(UsageError, match=message):
        api.plan(config, store=four_digits_store, local=True)
    with pytest.raises(UsageError, match=message):
        api.distill(config, store=four_digits_store, out=out, local=True)
    assert not storage.exists(f"{out}/config.yaml")


def test_the_remedy_works(four_digits_store: str) -> None:
    """A preset for colour images on grey ones."""
    changes = ["data.normalisation=store", "network.options.depth=2"]
    check_fit(load_config(preset="cifar10-ipc1", assignments=changes), Store.open(four_digits_store))
