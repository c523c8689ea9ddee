"""How the programs of a run are executed: the choice, its record, and what does not depend on it."""

from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dream_ray import storage
from dream_ray.config import parse_config
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.data.store.store import Store
from dream_ray.engine.networks.program_form import ProgramForm
from dream_ray.engine.planning import plan as planning
from dream_ray.engine.planning.run_plan import RunPlan
from dream_ray.engine.run.directory import CLASSES_TOGETHER, Run, open_run
from dream_ray.engine.run.environment import check_precision, fixed_arithmetic
from dream_ray.engine.run.programs.program_choice import choose_form
from dream_ray.engine.run.spec import RunSpec, check_against_store
from dream_ray.errors import UsageError
from tests.frameworks import tiny_run
from tests.runs import create_run, run_all

CUDA = torch.device("cuda")
SETTINGS: dict[str, dict[str, Any]] = {
    "convnet": {},
    # Its gradients amplify rounding errors, so its pixels take small steps.
    "batch norm": {"network": {"name": "resnet10", "options": {"width": 0.0625}}, "pixels": {"lr": 1e-5}},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Ten classes of 30 images."""
    path = str(tmp_path_factory.mktemp("ten-digits") / "store")
    ingest(IngestSettings(source="digits", max_per_class=30), path)
    return path


def spec(store: str, tiny: dict[str, Any], **options: Any) -> RunSpec:
    return RunSpec(config=parse_config(tiny), store=store, out=None, compile="off", **options)


@pytest.mark.parametrize(
    ("device", "class_batch", "form"),
    [
        ("cpu", None, ProgramForm(1)),
        ("cpu", 4, ProgramForm(4)),
        ("cuda", None, ProgramForm(10, is_batched=True)),
        ("cuda", 3, ProgramForm(3, is_batched=True)),
        ("cuda", 1, ProgramForm(1)),
    ],
)
def test_a_gpu_takes_classes_together(
    store: str, tiny: dict[str, Any], device: str, class_batch: int | None, form: ProgramForm
) -> None:
    assert choose_form(spec(store, tiny, class_batch=class_batch), Store.open(store), torch.device(device)) == form


def test_large_images_are_matched_class_by_class(
    store: str, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "shape_CHW", (3, 224, 224))
    assert choose_form(spec(store, tiny), Store.open(store), CUDA) == ProgramForm(10)


def test_a_network_whose_shapes_depend_on_its_data_is_matched_class_by_class(
    store: str, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pruning.py").write_text(
        "from torch import nn\n"
        "class Pruning(nn.Module):\n"
        "    def __init__(self, num_classes, side):\n"
        "        super().__init__()\n"
        "        self.head = nn.Linear(side * side, num_classes)\n"
        "    def forward(self, x):\n"
        "        bright = x[x.mean(dim=(1, 2, 3)) > 1e9]\n"
        "        return self.head(x.flatten(1)) + len(bright)\n"
        "def make(num_classes, shape_CHW):\n"
        "    return Pruning(num_classes, shape_CHW[1])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = {**tiny, "network": {"name": "pruning:make", "options": {}}}
    assert choose_form(spec(store, settings), Store.open(store), CUDA) == ProgramForm(10)
    (record,) = caplog.records
    assert "matched one by one, which takes longer: network 'pruning:make' over a batch of classes" in record.message


@pytest.mark.parametrize(
    ("class_batch", "framework", "message"),
    [
        (0, None, "class-batch must be an int >= 1; got 0"),
        (11, None, r"class-batch must be at most the number of classes \(10\); got 11"),
        (2, "mtt", "class-batch must be 1 with matching.objective trajectory, which .*; got 2"),
    ],
)
def test_a_class_batch_that_does_not_fit_is_refused(
    store: str, tiny: dict[str, Any], class_batch: int, framework: str | None, message: str
) -> None:
    settings = tiny if framework is None else tiny_run(framework, "representative")
    with pytest.raises(UsageError, match=message):
        check_against_store(spec(store, settings, class_batch=class_batch), Store.open(store))


def test_a_precision_that_the_device_lacks_is_refused(
    store: str, tiny: dict[str, Any], out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="precision must be float32 or bfloat16 on a CPU; got 'tf32'"):
        create_run(out, parse_config({**tiny, "precision": "tf32"}), store)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    for capability, is_refused in (((7, 5), True), ((8, 0), False)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        check_precision("float32", CUDA)
        for precision in ("tf32", "bfloat16"):
            refused = pytest.raises(UsageError, match=f"before Ampere; got '{precision}' on Tesla T4")
            with refused if is_refused else nullcontext():
                check_precision(precision, CUDA)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_only_tf32_rounds_convolutions(precision: str) -> None:
    before = torch.backends.cudnn.allow_tf32
    with fixed_arithmetic(1, precision):
        assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
        assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before


def test_overlapping_blocks_keep_their_arithmetic_until_the_last_ends() -> None:
    """As those of threads do, which end in any order."""
    before = torch.backends.cudnn.allow_tf32, torch.get_num_threads()
    with ExitStack() as first, ExitStack() as second:
        for block in (first, second):
            block.enter_context(fixed_arithmetic(1, "float32"))
        first.close()
        assert not torch.backends.cudnn.allow_tf32
        second.close()
    assert (torch.backends.cudnn.allow_tf32, torch.get_num_threads()) == before


def test_a_run_in_bfloat16_is_the_same_on_any_number_of_workers(
    store: str, tiny: dict[str, Any], tmp_path: Path
) -> None:
    config = parse_config({**tiny, "outer_steps": 1, "precision": "bfloat16"})
    one, two = (images_of(create_run(str(tmp_path / str(n)), config, store), n) for n in (1, 2))
    assert torch.equal(one, two)


def test_a_run_records_its_form_and_a_resumed_one_keeps_it(store: str, tiny: dict[str, Any], out: str) -> None:
    run = create_run(out, parse_config(tiny), store, class_batch=3)
    assert (run.environment["class_batch"], run.environment["matching"]) == (3, "class by class")
    assert open_run(out).form == ProgramForm(3) and open_run(out).spec.class_batch == 3


def test_the_plan_counts_padding(store: str, tiny: dict[str, Any]) -> None:
    """Three workers of ten classes hold 4, 3 and 3 of them: two groups of three, one and one."""
    nothing: Any = None
    plan = RunPlan(
        spec(store, tiny, workers=3, class_batch=3), Store.open(store), nothing, nothing, 0, reserve=False, cores=3
    )
    assert plan.padding == pytest.approx(1 - 10 / 12)


def test_a_budget_takes_fewer_classes_before_smaller_batches(store: str, tiny: dict[str, Any]) -> None:
    candidates = list(planning._candidates(spec(store, tiny, class_batch=10)))
    assert [one.class_batch for one in candidates[:5]] == [10, 5, 2, 1, 1]
    assert len({one.config.selection.embedding_batch for one in candidates[:4]}) == 1


def images_of(run: Run, num_workers: int) -> Tensor:
    run_all(run, num_workers)
    state = run.checkpoints().load(run.config.total_steps)
    return torch.stack([state.classes[label].images_NCHW for label in range(10)])


@pytest.fixture(params=["convnet", pytest.param("batch norm", marks=pytest.mark.slow)])
def settings(request: pytest.FixtureRequest, tiny: dict[str, Any]) -> dict[str, Any]:
    """Settings of one outer step."""
    return {**tiny, "outer_steps": 1, **SETTINGS[request.param]}


def test_class_by_class_any_workers_and_class_batches_give_one_set(
    settings: dict[str, Any], store: str, tmp_path: Path
) -> None:
    config = parse_config(settings)
    sets = []
    for workers in (1, 2, 3):
        for class_batch in (1, 4, 10):
            path = str(tmp_path / f"{workers}-{class_batch}")
            sets.append(images_of(create_run(path, config, store, class_batch=class_batch), workers))
    assert all(torch.equal(one, sets[0]) for one in sets)


def test_together_any_workers_give_the_set_of_a_class_batch(
    settings: dict[str, Any], store: str, tmp_path: Path
) -> None:
    """The form of a GPU, on a CPU; the sets of two class batches are equal up to rounding.

    An activation that rounds to the other side of a ReLU moves some pixels of its class further than rounding.
    """
    config = parse_config(settings)
    alone = images_of(create_run(str(tmp_path / "alone"), config, store), 1)

    def together(class_batch: int) -> Iterator[Tensor]:
        for workers in (1, 2, 3):
            run = create_run(str(tmp_path / f"{class_batch}-{workers}"), config, store, class_batch=class_batch)
            storage.write_json(run.file("env.json"), {**run.environment, "matching": CLASSES_TOGETHER})
            assert open_run(run.path).form.match_batch == class_batch
            yield images_of(open_run(run.path), workers)

    for class_batch in (4, 10):
        first, *others = together(class_batch)
        assert all(torch.equal(one, first) for one in others)
        differences = (first - alone).abs().flatten(1)
        assert differences.max() > 0 and (differences.median(dim=1).values < 1e-3).all()
