"""Runs at frozen networks: their models, the order of the networks, their features, their weights and their bits."""

import math
import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dream_ray import api, storage
from dream_ray.config import Config, parse_config
from dream_ray.config.frameworks import overlay
from dream_ray.config.sections import Network
from dream_ray.core import rng
from dream_ray.core.images.augment import augment, sample_params, view_of
from dream_ray.core.images.multiformation import decode_factor
from dream_ray.core.process_group import SINGLE_PROCESS_GROUP
from dream_ray.data.store.store import Store
from dream_ray.engine.components import make_components
from dream_ray.engine.matching.class_selector import ClassSelector
from dream_ray.engine.matching.state import RunState
from dream_ray.engine.models.model import Model
from dream_ray.engine.models.pool import load_pool, with_models
from dream_ray.engine.networks.frozen import FrozenNetworks
from dream_ray.engine.planning.measuring.steps import measure_memory
from dream_ray.engine.planning.memory import plan_memory
from dream_ray.engine.progress.heartbeat import Heartbeat
from dream_ray.engine.run.directory import Run
from dream_ray.engine.run.spec import MODEL, RunSpec, check_against_store
from dream_ray.errors import RunError, UsageError
from tests.frameworks import Settings, tiny_run
from tests.models import NETWORK, untrained
from tests.runs import CPU, Killed, create_run, final_images, kill_at, run_all, work

RESNET = Network(name="resnet10", options={"width": 0.05})


@pytest.fixture(scope="module")
def members(split_store: str, tmp_path_factory: pytest.TempPathFactory) -> list[Model]:
    """Three networks of two architectures; the second has batch norms."""
    root = tmp_path_factory.mktemp("pool")
    networks = (NETWORK, RESNET, NETWORK)
    return [untrained(split_store, root / str(seed), network, seed) for seed, network in enumerate(networks)]


def settings(models: list[Model], more: Settings | None = None, framework: str = "dream_plus") -> Settings:
    source = {"kind": "frozen", "models": [model.path for model in models], "allow_weak_models": True}
    strategy = "random" if framework in ("dm", "idc") else "representative"
    return overlay(overlay(tiny_run(framework, strategy), {"source": source, "ipc": 2}), more or {})


def distilled(run: Run, num_workers: int = 1) -> Tensor:
    run_all(run, num_workers)
    return final_images(run)


class TestModels:
    def test_a_run_names_them_by_digest_and_architecture(self, members: list[Model], split_store: str) -> None:
        found = with_models(parse_config(settings(members)), Store.open(split_store)).source.found
        assert found is not None
        assert [one.digest for one in found] == [model.digest for model in members]
        assert [one.network.name for one in found] == ["convnet", "resnet10", "convnet"]

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"source": {"models": []}}, "source.models must have at least one model .*; got none. `dream-ray train"),
            ({"source": {"models": ["nowhere"]}}, "model .*nowhere does not exist or is not finished"),
            ({"source": {"allow_weak_models": False}}, "known accuracy; .* or set source.allow_weak_models=true"),
            (
                {"data": {"normalisation": {"mean": [0.5], "std": [0.5]}}},
                r"data.normalisation must be .*got mean \[0.5\]",
            ),
        ],
    )
    def test_what_does_not_fit_is_refused(
        self, members: list[Model], split_store: str, more: Settings, message: str
    ) -> None:
        with pytest.raises(UsageError, match=message):
            with_models(parse_config(settings(members, more)), Store.open(split_store))

    def test_a_model_of_other_classes_is_refused(self, members: list[Model], digits_store: str) -> None:
        with pytest.raises(UsageError, match="must have the classes of store"):
            with_models(parse_config(settings(members)), Store.open(digits_store))

    def test_whitened_images_are_refused(self, members: list[Model]) -> None:
        with pytest.raises(UsageError, match=r"data\.zca must be false with source\.kind frozen"):
            parse_config(settings(members, {"data": {"zca": True}, "factor": 1, "pixels": {"space": "normalised"}}))

    def test_a_torn_model_is_refused(self, split_store: str, tmp_path: Path) -> None:
        model = untrained(split_store, tmp_path / "model")
        untrained(split_store, tmp_path / "other", seed=5)
        storage.write_text(f"{model.path}/{MODEL}", storage.read_text(str(tmp_path / "other" / MODEL)))
        with pytest.raises(RunError, match="is torn"):
            with_models(parse_config(settings([model])), Store.open(split_store))

    def test_a_run_never_goes_on_with_another_model(self, split_store: str, tmp_path: Path) -> None:
        model = untrained(split_store, tmp_path / "model")
        run = create_run(str(tmp_path / "run"), parse_config(settings([model])), split_store)
        untrained(split_store, tmp_path / "model", seed=7)
        with pytest.raises(
            UsageError,
            match=re.escape(f"must be the one that the run began with (digest {model.digest[:12]})"),
        ):
            work(run.path, range(4))

    def test_a_weak_model_is_taken_if_it_is_allowed(self, trained: Model, split_store: str) -> None:
        config = parse_config(settings([trained], {"source": {"allow_weak_models": False}}))
        assert with_models(config, Store.open(split_store)).source.found is not None  # it is better than twice chance

    def test_easy_images_are_those_of_the_pool(self, members: list[Model], split_store: str) -> None:
        easy = settings(members, {"initialisation": {"strategy": "easy"}})
        start = with_models(parse_config(easy), Store.open(split_store)).initialisation
        assert start.models == tuple(model.path for model in members) and start.allow_weak_models
        herding = overlay(easy, {"initialisation": {"strategy": "herding"}})
        assert with_models(parse_config(herding), Store.open(split_store)).initialisation.models == (members[0].path,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 5}, "workers must be at most the number of classes"),
        ({"producers": 1}, "producers must be 0 with source.kind frozen; got 1"),
        ({"workers": 2}, None),
        ({"workers": 2, "producers": 0}, None),
    ],
)
def test_nobody_trains_networks(
    members: list[Model], split_store: str, options: dict[str, Any], message: str | None
) -> None:
    spec = RunSpec(config=parse_config(settings(members)), store=split_store, out=None, local=True, **options)
    if message is None:
        check_against_store(spec, Store.open(split_store))
    else:
        with pytest.raises(UsageError, match=message):
            check_against_store(spec, Store.open(split_store))


def test_networks_take_turns() -> None:
    networks = [Mock(), Mock(), Mock()]
    pool = FrozenNetworks(networks, [0, 1, 0], inner_steps=4)
    order = [[networks.index(snapshot.network) for snapshot in pool.trajectory(outer)] for outer in range(3)]
    assert order == [[0, 1, 2, 0], [1, 2, 0, 1], [2, 0, 1, 2]]
    (last,) = pool.trajectory(1, start=3)
    assert (last.inner, last.member.number, last.architecture) == (3, 1, 1)  # type: ignore[union-attr]
    assert last.restart_state() is None, "a checkpoint holds no network"


class TestFeatures:
    def test_they_are_those_of_the_plain_network_rounded_to_float16(
        self, members: list[Model], split_store: str, tmp_path: Path
    ) -> None:
        run = create_run(str(tmp_path / "run"), parse_config(settings(members)), split_store)
        store = run.open_store()
        with make_components(run, store, range(4), RunState(), Mock(), None, SINGLE_PROCESS_GROUP) as components:
            source, _, matcher = components
            for snapshot in source.trajectory(0):
                found = matcher.selector.embed(snapshot, 2)
                model = members[snapshot.inner % 3]
                for number, features_D in enumerate(found):
                    image = torch.from_numpy(store.images(2, run.config.splits).take(np.array([number])))
                    expected = model.load(CPU)(model.normalise(CPU)(image.float() / 255))[0][0]
                    torch.testing.assert_close(features_D, expected, rtol=2e-3, atol=2e-3)
                assert torch.equal(found, found.half().float())

    def test_each_class_is_embedded_once_by_each_network(
        self, members: list[Model], split_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        embedded = Mock(side_effect=ClassSelector._embed, autospec=True)
        monkeypatch.setattr(ClassSelector, "_embed", lambda self, *given: embedded(self, *given))
        run = create_run(str(tmp_path / "run"), parse_config(settings(members, {"outer_steps": 7})), split_store)
        distilled(run)
        calls = [(call.args[1].member.number, call.args[2]) for call in embedded.call_args_list]
        assert sorted(calls) == [(number, label) for number in range(3) for label in range(4)]

    def test_an_outer_step_selects_once_and_otherwise_than_the_one_before(
        self, members: list[Model], split_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        chosen: list[tuple[int, int, list[int]]] = []
        original = ClassSelector.select_all

        def select_all(self: ClassSelector, snapshot: Any, previous: Any, **options: Any) -> Any:
            selections = original(self, snapshot, previous, **options)
            chosen.append((snapshot.outer, snapshot.inner, selections[1].indices.tolist()))
            return selections

        monkeypatch.setattr(ClassSelector, "select_all", select_all)
        run = create_run(str(tmp_path / "run"), parse_config(settings(members[:1], {"outer_steps": 3})), split_store)
        distilled(run)
        assert [(outer, inner) for outer, inner, _ in chosen] == [(0, 0), (1, 0), (2, 0)]
        assert len({tuple(indices) for _, _, indices in chosen}) == 3, "the features are the same, k-means starts anew"


def plain_loss(config: Config, store: Store, model: Model, images: Tensor, real: np.ndarray, label: int) -> Tensor:
    """Returns DREAM+'s two losses of a class at the first step, written out, in evaluation mode (2,)."""
    network = model.load(CPU)
    normalise = model.normalise(CPU)
    draw = sample_params(
        config.matching.augmentation,
        rng.stream(config.seed, "siamese", outer=0, inner=0, label=label),
        height=8,
        width=8,
    )
    pixels = torch.from_numpy(store.images(label, config.splits).take(real)).float() / 255
    sides = []
    for batch in (pixels, decode_factor(images, config.factor)):
        views = augment(normalise(batch), view_of(draw, CPU))
        features, logits = network.requires_grad_()(views)
        labels = torch.full((len(views),), label)
        matched = [
            parameter for name, parameter in network.named_parameters() if parameter.ndim > 1 and "head" not in name
        ]
        sides.append((features.mean(dim=0), torch.autograd.grad(F.cross_entropy(logits, labels), matched)))
    (feature, gradients), (of_synthetic, other) = sides
    of_gradients = sum(((a - b) ** 2).sum() for a, b in zip(gradients, other, strict=True))
    return torch.stack([((feature - of_synthetic) ** 2).sum(), torch.as_tensor(of_gradients)]).detach()


def test_the_loss_is_that_of_the_networks_in_evaluation_mode_and_weighs_them_alike(
    members: list[Model], split_store: str, tmp_path: Path
) -> None:
    """At the first step of runs that begin with either network, beside loops that share the random draws only."""
    store = Store.open(split_store)
    weights: list[Tensor] = []
    for pool in (members[:2], members[1::-1]):
        config = parse_config(settings(pool, {"outer_steps": 1, "inner_steps": 1, "log_every": 1}))
        run = create_run(str(tmp_path / pool[0].digest[:6]), config, split_store)
        with make_components(run, store, range(4), RunState(), Mock(), None, SINGLE_PROCESS_GROUP) as components:
            source, select, matcher = components
            snapshot = next(iter(source.trajectory(0)))
            states = matcher.initial_states(snapshot)
            for label, selection in select(snapshot, {}).items():
                states[label].indices = selection.indices
            parts = [
                plain_loss(config, store, pool[0], state.images_NCHW, state.indices.numpy(), label)
                for label, state in states.items()
            ]
            weights.append(matcher.weights_M2)
            for label, part_2 in enumerate(parts):
                found = matcher.match(snapshot, (label,), RunState(classes=states))
                torch.testing.assert_close(found[label], weights[-1][0] @ part_2, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(weights[0], weights[1].flip(0))
    torch.testing.assert_close((1 / weights[0]).mean(dim=0), torch.ones(2))
    assert ((weights[0][0] / weights[0][1]).log().abs() > math.log(1.2)).any(), "the networks have other sizes"


def test_a_pool_of_one_has_the_plain_loss(members: list[Model], split_store: str, tmp_path: Path) -> None:
    run = create_run(str(tmp_path / "run"), parse_config(settings(members[:1])), split_store)
    with make_components(run, run.open_store(), range(4), RunState(), Mock(), None, SINGLE_PROCESS_GROUP) as components:
        assert components[2].weights_M2 is None


def test_a_network_without_features_is_refused(split_store: str, tmp_path: Path) -> None:
    from dream_ray.engine.models.model import write_model

    weak = untrained(split_store, tmp_path / "weak")
    network = weak.load(CPU)
    for parameter in network.parameters():
        parameter.zero_()
    dead = write_model(str(tmp_path / "dead"), network, weak.description)
    run = create_run(str(tmp_path / "run"), parse_config(settings([weak, dead])), split_store)
    with pytest.raises(RunError, match="dead must have features and gradients that are finite and not all zero"):
        work(run.path, range(4))


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("idc", "dm", "dsa")]


@pytest.mark.parametrize("framework", ["dream_plus", *SLOW])
class TestBits:
    def test_neither_workers_nor_a_kill_change_them(
        self, members: list[Model], split_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, framework: str
    ) -> None:
        config = parse_config(settings(members, framework=framework))
        one, two, killed = (create_run(str(tmp_path / name), config, split_store) for name in ("1", "2", "killed"))
        expected = distilled(one)
        assert torch.isfinite(expected).all()
        assert torch.equal(distilled(two, 2), expected)
        with monkeypatch.context() as patch:
            patch.setattr(Heartbeat, "on_step", kill_at(5))
            with pytest.raises(Killed):
                work(killed.path, range(4))
        assert killed.checkpoints().newest() == 4
        assert torch.equal(distilled(killed, 2), expected)


def test_two_workers_in_threads_need_no_producer(members: list[Model], split_store: str, tmp_path: Path) -> None:
    images = []
    for workers in (1, 2):
        found = api.distill(
            parse_config(settings(members)), store=split_store, out=tmp_path / str(workers), local=True, workers=workers
        )
        images.append(found.images_NCHW)
    assert torch.equal(*images)


def test_a_failed_worker_ends_the_others(
    members: list[Model], split_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []

    def load(config: Config, device: torch.device) -> FrozenNetworks:
        opened.append(1)
        if len(opened) == 2:
            raise RunError("a network is lost")
        return load_pool(config, device)

    monkeypatch.setattr("dream_ray.engine.components.load_pool", load)
    monkeypatch.setattr("dream_ray.engine.stopping._POLL_S", 0.0)
    config = parse_config(settings(members, {"outer_steps": 10**6, "checkpoint_every": 10**6}))
    with pytest.raises(RunError, match="a network is lost"):
        api.distill(config, store=split_store, out=tmp_path / "run", local=True, workers=2)


def test_the_plan_has_the_bytes_of_the_features_that_are_kept(
    members: list[Model], split_store: str, tmp_path: Path
) -> None:
    store = Store.open(split_store)
    run = create_run(str(tmp_path / "run"), parse_config(settings(members, {"outer_steps": 3})), split_store)
    measured = measure_memory(run.config, store, threads=1, device=CPU)
    (planned,) = (
        plan_memory(
            run.config, store, measured, threads=1, workers=1, producers=0, ahead=0, ray=False, per_gpu=(1, 0),
            free_gpu=0, device=CPU,
        ),
    )  # fmt: skip
    with make_components(run, store, range(4), RunState(), Mock(), None, SINGLE_PROCESS_GROUP) as components:
        source, select, matcher = components
        for outer in range(3):
            select(next(iter(source.trajectory(outer))), {})
        held = sum(features.nbytes for features in matcher.selector.cache._kept.values())
    assert planned.kept == held > 0
    assert planned.total > planned.kept + planned.step


def test_a_run_says_that_nothing_is_trained(
    members: list[Model], split_store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = parse_config(settings(members, {"update": {"lr": 0.5, "epochs": 7}}))
    with caplog.at_level("INFO"):
        create_run(str(tmp_path / "run"), config, split_store)
    assert "The networks of source.models stay as they are: the settings of update have no effect." in caplog.messages
    (line,) = [message for message in caplog.messages if "update.lr" in message]
    assert "update.epochs" in line and "with source.kind frozen they have no effect on the synthetic set" in line
