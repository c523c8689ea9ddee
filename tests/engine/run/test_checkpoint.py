"""Checkpoints: complete or ignored, with any number of workers and after any damage."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dream_ray import storage
from dream_ray.core.placement import place_classes
from dream_ray.engine.matching.state import ClassState, RunState
from dream_ray.engine.networks.tensor_file import TensorFile, read_header, read_metadata, read_tensors, write_tensors
from dream_ray.engine.run import checkpoint
from dream_ray.engine.run.checkpoint import Checkpoints, background_writer, prunable
from dream_ray.errors import RunError

NUM_CLASSES = 5


def state(step: int, labels: Any = range(NUM_CLASSES), network: bool = True) -> RunState:
    def class_state(label: int) -> ClassState:
        images = torch.full((2, 1, 4, 4), step + label / 10)
        weights = torch.arange(label) / 7 if label % 2 else None
        return ClassState(images, -images, torch.arange(label), torch.arange(label) % 2, weights)

    tensors = {"network.trunk.weight": torch.full((3,), float(step))} if network else None
    return RunState(step // 4, step % 4, {label: class_state(label) for label in labels}, tensors)


@pytest.fixture
def checkpoints(out: str) -> Checkpoints:
    return Checkpoints(out, NUM_CLASSES, "identity")


def save(checkpoints: Checkpoints, step: int, num_shards: int = 1, shards: Any = None, network: bool = True) -> None:
    for shard, placed in enumerate(place_classes([1.0] * NUM_CLASSES, num_shards)):
        if shards is None or shard in shards:
            checkpoints.save(state(step, placed, network), step=step, shard=shard, num_shards=num_shards)


def assert_equal(found: RunState, expected: RunState) -> None:
    assert (found.outer, found.inner, list(found.classes)) == (expected.outer, expected.inner, list(expected.classes))
    for label, class_state in expected.classes.items():
        for name, tensor in vars(class_state).items():
            own = getattr(found.classes[label], name)
            assert own is tensor is None or torch.equal(own, tensor), (label, name)
    assert (found.network is None) == (expected.network is None)
    for name, tensor in (expected.network or {}).items():
        assert torch.equal((found.network or {})[name], tensor)


@pytest.mark.parametrize("num_shards", [1, 2, 3, 5])
@pytest.mark.parametrize("labels", [None, [0], [1, 4], [2, 3, 4]])
def test_any_number_of_workers_reads_the_checkpoint_of_any_other_number(
    checkpoints: Checkpoints, num_shards: int, labels: list[int] | None
) -> None:
    save(checkpoints, 6, num_shards)
    found = checkpoints.latest(labels)
    assert found is not None
    assert found[0] == 6
    assert_equal(found[1], state(6, range(NUM_CLASSES) if labels is None else labels))


def test_a_new_directory_has_no_checkpoint(checkpoints: Checkpoints) -> None:
    assert checkpoints.latest() is None
    assert checkpoints.steps() == checkpoints.complete_steps() == []


def test_a_step_is_complete_with_all_classes(checkpoints: Checkpoints) -> None:
    save(checkpoints, 4)
    save(checkpoints, 8, num_shards=3, shards=[0, 2])
    assert checkpoints.complete_steps() == [4]
    assert checkpoints.latest()[0] == 4  # type: ignore[index]
    save(checkpoints, 8, num_shards=3, shards=[1])
    assert checkpoints.complete_steps() == [4, 8]


def test_shards_of_two_placements_complete_a_step_together(checkpoints: Checkpoints) -> None:
    """Some workers wrote the step before a crash; workers with another placement write it again afterwards."""
    save(checkpoints, 8, num_shards=2, shards=[0])
    save(checkpoints, 8, num_shards=5, shards=[1, 3])
    assert checkpoints.complete_steps() == [8]
    assert_equal(checkpoints.load(8), state(8))


def test_the_last_step_needs_no_network(checkpoints: Checkpoints) -> None:
    save(checkpoints, 12, network=False)
    assert_equal(checkpoints.load(12), state(12, network=False))


def test_a_missing_network_makes_a_step_incomplete(checkpoints: Checkpoints) -> None:
    save(checkpoints, 4)
    storage.delete(f"{checkpoints.root}/step-00000004/network.safetensors")
    assert checkpoints.complete_steps() == []


@pytest.mark.parametrize("damage", ["cut", "flip", "header", "empty"])
@pytest.mark.parametrize("name", ["network.safetensors", "shard-0000-of-0001.safetensors"])
def test_a_damaged_step_is_skipped(
    checkpoints: Checkpoints, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(checkpoints, 4)
    save(checkpoints, 8)
    path = f"{checkpoints.root}/step-00000008/{name}"
    whole = storage.read_bytes(path)
    middle = len(whole) - 10
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    damaged = {"cut": whole[:-9], "flip": flipped, "header": b"\xff" * 16 + whole[16:], "empty": b""}[damage]
    storage.write_bytes(path, damaged)
    found = checkpoints.latest()
    assert found is not None
    assert found[0] == 4
    assert "step 8" in caplog.text


def test_if_no_checkpoint_can_be_read_the_error_gives_the_reason(checkpoints: Checkpoints) -> None:
    save(checkpoints, 4)
    storage.write_bytes(f"{checkpoints.root}/step-00000004/shard-0000-of-0001.safetensors", b"rubbish")
    with pytest.raises(RunError, match="no checkpoint can be read: .* is damaged"):
        checkpoints.latest()


def test_a_foreign_checkpoint_is_refused(checkpoints: Checkpoints) -> None:
    save(Checkpoints(checkpoints.root, NUM_CLASSES, "another"), 4)
    with pytest.raises(RunError, match="belongs to another run"):
        checkpoints.latest()


def test_pruning_keeps_the_first_and_the_last_two(checkpoints: Checkpoints) -> None:
    for step in (0, 2, 4, 6, 8):
        save(checkpoints, step)
    save(checkpoints, 10, num_shards=2, shards=[1])
    checkpoints.prune(pinned=[2])
    assert checkpoints.steps() == [0, 2, 6, 8, 10]


def test_pruning_reads_only_the_newest_steps(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a bucket, every file that is read takes time, and a curve keeps many steps."""
    for step in range(0, 40, 2):
        save(checkpoints, step)
    read: list[str] = []

    def read_and_list(path: str) -> dict[str, str]:
        read.append(path)
        return read_metadata(path)

    monkeypatch.setattr(checkpoint, "read_metadata", read_and_list)
    checkpoints.prune(pinned=range(0, 40, 4))
    assert checkpoints.steps() == [*range(0, 40, 4), 38] and len(read) == 2


@given(
    steps=st.sets(st.integers(0, 30)).map(sorted),
    data=st.data(),
)
def test_prunable_steps_are_older_than_the_last_two_and_not_pinned(steps: list[int], data: st.DataObject) -> None:
    complete = [step for step in steps if data.draw(st.booleans())]
    pinned = set(data.draw(st.lists(st.sampled_from(steps)))) if steps else set()
    gone = set(prunable(steps, complete, pinned))
    assert not gone & (pinned | {0} | set(complete[-2:]))
    assert all(step < complete[-2] for step in gone) if len(complete) >= 2 else not gone


def test_tensors_round_trip_with_their_types(out: str) -> None:
    tensors = {
        "f": torch.rand(3, 2),
        "i": torch.arange(4),
        "empty": torch.empty(0, dtype=torch.int64),
        "scalar": torch.tensor(2.5),
        "b": torch.tensor([True, False]),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
    }
    write_tensors(f"{out}/x.safetensors", tensors, {"note": "here"})
    found, metadata = read_tensors(f"{out}/x.safetensors")
    assert metadata["note"] == read_metadata(f"{out}/x.safetensors")["note"] == "here"
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items()
    )


@pytest.mark.parametrize("length", range(0, 400, 7))
def test_a_truncated_file_is_an_error(out: str, length: int) -> None:
    path = f"{out}/x.safetensors"
    write_tensors(path, {"a": torch.rand(20), "b": torch.rand(30)}, {"note": "here"})
    whole = storage.read_bytes(path)
    assert length < len(whole)
    storage.write_bytes(path, whole[:length])
    with pytest.raises(RunError, match="is damaged"):
        read_tensors(path)


def test_a_missing_file_is_an_error(out: str) -> None:
    with pytest.raises(RunError, match="nowhere"):
        read_tensors(f"{out}/nowhere")


@pytest.mark.parametrize("num_shards", [1, 3])
def test_images_are_read_without_the_rest_of_the_state(checkpoints: Checkpoints, num_shards: int) -> None:
    save(checkpoints, 6, num_shards)
    # A damaged velocity is not read.
    for file in Path(checkpoints.root).rglob("shard*"):
        flip(file, read_header(str(file)), lambda name: name.endswith("velocity"))
    opened = checkpoints.open_images(6)
    for label, class_state in state(6).classes.items():
        assert torch.equal(opened.read(label), class_state.images_NCHW)
    with pytest.raises(RunError, match="do not match the digest"):
        checkpoints.load(6)


def flip(file: Path, header: TensorFile, is_chosen: Callable[[str], bool]) -> None:
    """Changes the last byte of some tensors."""
    data = bytearray(file.read_bytes())
    for name, tensor in header.tensors.items():
        if is_chosen(name):
            data[header.start + tensor["data_offsets"][1] - 1] ^= 1
    file.write_bytes(data)


def test_damaged_images_are_an_error(checkpoints: Checkpoints) -> None:
    save(checkpoints, 6)
    [file] = Path(checkpoints.root).rglob("shard*")
    flip(file, read_header(str(file)), lambda name: name == "2/images")
    opened = checkpoints.open_images(6)
    opened.read(1)
    with pytest.raises(RunError, match="its tensor 2/images does not match its digest"):
        opened.read(2)


@pytest.mark.parametrize("is_damaged", [False, True])
def test_images_of_a_file_with_one_digest_are_checked_as_a_whole(checkpoints: Checkpoints, is_damaged: bool) -> None:
    """Earlier versions wrote such files."""
    save(checkpoints, 6)
    [file] = Path(checkpoints.root).rglob("shard*")
    tensors, metadata = read_tensors(str(file))
    write_tensors(str(file), tensors, {key: text for key, text in metadata.items() if "sha256" not in key})
    if is_damaged:
        flip(file, read_header(str(file)), lambda name: name == "2/images")
        with pytest.raises(RunError, match="do not match the digest"):
            checkpoints.open_images(6)
        return
    assert torch.equal(checkpoints.open_images(6).read(2), state(6).classes[2].images_NCHW)


def test_learned_tensors_come_with_the_images(checkpoints: Checkpoints) -> None:
    whole = state(6)
    whole.learned = {"step_size": torch.tensor(0.25)}
    checkpoints.save(whole, step=6, shard=0, num_shards=1)
    assert checkpoints.open_images(6).learned == whole.learned


def test_images_of_an_incomplete_step_or_another_run_are_an_error(checkpoints: Checkpoints, out: str) -> None:
    save(checkpoints, 8, num_shards=3, shards=[0, 2])
    with pytest.raises(RunError, match="lacks the classes"):
        checkpoints.open_images(8)
    with pytest.raises(RunError, match="belongs to another run"):
        Checkpoints(out, NUM_CLASSES, "another").open_images(8)


def test_the_run_continues_while_a_state_is_written() -> None:
    """The written state is the one at the call, and at most one write is in progress."""
    may_write, written = threading.Event(), []

    def write(moment: RunState) -> None:
        assert may_write.wait(10)
        written.append(moment)

    moving = state(4)
    with background_writer(write) as writer:
        writer(moving)
        moving.inner, moving.network = 1, None
        for class_state in moving.classes.values():
            class_state.images_NCHW = class_state.images_NCHW + 1
        assert not written
        may_write.set()
        writer(state(5))
        assert len(written) >= 1
    assert_equal(written[0], state(4))
    assert_equal(written[1], state(5))


@pytest.mark.parametrize("ends_with", [None, KeyError("the loop")])
def test_a_checkpoint_that_cannot_be_written_ends_the_run(ends_with: Exception | None) -> None:
    def write(moment: RunState) -> None:
        raise RunError("the disk is full")

    with pytest.raises(RunError, match="the disk is full"), background_writer(write) as writer:
        writer(state(4))
        if ends_with is not None:
            raise ends_with


def test_complete_steps_reads_only_the_given_steps(checkpoints: Checkpoints, out: str) -> None:
    """Other workers may delete older steps at any time."""
    for step in (2, 4):
        save(checkpoints, step)
    [file] = Path(out).rglob("step-00000002/shard*")
    file.write_bytes(b"")
    assert checkpoints.complete_steps({4}) == [4]
    with pytest.raises(RunError, match="damaged or missing"):
        checkpoints.complete_steps()
