"""Results in a console and in a notebook: text, HTML and plots."""

import html
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import dream_ray
from dream_ray.config import Config
from dream_ray.core.images.synthetic import SyntheticSet
from dream_ray.core.tables import Table, html_table, text_table
from dream_ray.data.store.store import Store
from dream_ray.engine.evaluation.result import Evaluation
from dream_ray.engine.planning.forecast import StepCosts
from dream_ray.engine.planning.memory import MemoryPlan
from dream_ray.engine.planning.run_plan import RunPlan
from dream_ray.engine.progress.status import Progress, Status
from dream_ray.engine.run.artefacts import write_synthetic
from dream_ray.engine.run.spec import RunSpec


def row(evaluated_set: str, step: int | None = None, network: str = "convnet", **changed: Any) -> dict[str, Any]:
    """A row of `evaluate.summarise`."""
    known = {"mean": 0.5, "std": 0.01, "half_width": 0.02, "n": 2, "accuracies": [0.49, 0.51]}
    return {"network": network, "evaluated_set": evaluated_set, "step": step, "num_images": 9, "epochs": 3} | {
        **known,
        **changed,
    }


def check_shown(result: Any, *texts: str) -> None:
    """Checks that a result shows texts in a console and in a notebook, and draws a picture for a notebook."""
    assert all(text in repr(result) for text in texts), repr(result)
    assert all(html.escape(text) in result._repr_html_() for text in texts)
    assert result.plot()._repr_png_().startswith(b"\x89PNG")


def test_an_evaluation_is_a_list_that_shows_a_table() -> None:
    rows = [row("distilled"), row("random real", mean=None, diverged=1, half_width=None, accuracies=[None, 0.5])]
    found = Evaluation(rows)
    assert found == rows and found[0]["mean"] == 0.5 and isinstance(found, list)
    check_shown(found, "50.0 +- 2.0", "1 of 2 diverged", "random real")


def test_an_evaluation_says_what_its_test_images_can_tell() -> None:
    tested = {"tested": 100, "balanced": 0.45, "test_interval": [0.4, 0.6]}
    found = Evaluation([row("distilled", **tested), row("random real", mean=0.52, **tested)])
    # By hand: 100 * sqrt(2 * 0.02**2 + 1.96**2 * (0.25 + 0.52 * 0.48) / 100) = 14.1
    check_shown(found, "45.0", "40.0 to 60.0", "random real +2.0 +- 14.1 points: within noise", "one image = 1 points")


@pytest.mark.parametrize(
    ("rows", "label"),
    [
        ([row("distilled"), row("whole set")], "top-1 accuracy in %, last epoch"),
        ([row("distilled", 4), row("distilled", 8), row("whole set")], "inner steps"),
        ([row("distilled", 4), row("distilled", 8, network="resnet")], "top-1 accuracy in %, last epoch"),
    ],
)
def test_several_steps_of_one_network_are_a_curve(rows: list[dict[str, Any]], label: str) -> None:
    assert Evaluation(rows).plot().axes[0].get_xlabel() == label


def test_a_manifest_shows_its_classes(four_digits_store: str) -> None:
    manifest = Store.open(four_digits_store).manifest
    images = sum(map(sum, manifest.counts.values()))
    assert repr(manifest).splitlines()[0] == f"{images} images of 4 classes, 1 x 8 x 8; 0 rejects"
    assert repr(manifest).splitlines()[2].split() == ["0", *(str(of[0]) for of in manifest.counts.values() if any(of))]
    many = replace(manifest, class_names=tuple(map(str, range(30))), counts={"train": (1,) * 30})
    assert repr(many).splitlines()[-1] == "and 10 more"
    assert html.escape("0 rejects") in manifest._repr_html_()


def test_a_dataset_shows_its_images(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    synthetic = SyntheticSet(images, ("<b>", "猫"), 2, "single", 128, (0.4,), (0.2,))
    write_synthetic(str(tmp_path / "set.parquet"), synthetic, recipe={})
    for found in (dream_ray.load_synthetic(tmp_path / "set.parquet"), dream_ray.sets.read(tmp_path / "set.parquet")):
        check_shown(found, "24 images of 2 classes, 1 x 4 x 4, in 6 mosaics of 2 x 2")
        assert '<img src="data:image/png;base64,' in found._repr_html_()


def test_a_status_shows_what_is_known() -> None:
    progress = Progress("matching", 40, 120, 3.25, 2.0, 0.0)
    found = Status("running", "", progress, [{"shard": 0, "step": 40}], 1.0, 1.0, 20, 70.0, 6, 20)
    check_shown(found, "running", "40 of 120", "3.25", "2:40", "step 20, 1:10 ago")
    waiting = Status("waiting", "", None, [], None, None, None, None, 6, 20)
    check_shown(waiting, "waiting")


def test_a_plan_shows_its_prediction(tiny_config: Config, four_digits_store: str) -> None:
    memory = MemoryPlan(**{field.name: 0 for field in fields(MemoryPlan)} | {"step": 5_000_000, "workers": 2})
    costs = StepCosts(1.0, 0.0, 0.0, 0.0, 450.0, 0.0)
    spec = RunSpec(config=tiny_config, store=four_digits_store, out=None, workers=2, local=True)
    found = RunPlan(spec, Store.open(four_digits_store), memory, costs, 0, False, 4)
    assert found.forecast().wall_s == pytest.approx(8 * 900 + 6)  # a network is updated between two steps
    check_shown(found, "prediction for 2 workers", "2 h 00 min", f"{found.forecast().step_s:.2f}")
    assert found.plot().axes[0].lines[0].get_xydata()[:, 0].tolist() == [1, 2, 4]


def test_tables_are_aligned_and_escaped() -> None:
    shown = Table("a title", ("name", "n"), [["<script>", "1"], ["b", "22"]])
    assert text_table(shown) == "a title\nname      n\n<script>  1\nb         22"
    assert "&lt;script&gt;" in html_table(shown) and "<script>" not in html_table(shown)
