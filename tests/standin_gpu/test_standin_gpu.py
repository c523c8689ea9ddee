"""The rules of the stand-in GPU, by example."""

import copy
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from dream_ray.core.transfer import to_device
from tests.standin_gpu.gpu import standin_gpu
from tests.standin_gpu.tally import recording

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def gpu() -> Iterator[None]:
    with standin_gpu():
        yield


def on_gpu(*shape: int) -> Tensor:
    return torch.arange(float(np.prod(shape)), device=CUDA).reshape(shape)


def test_results_stay_on_the_device_and_are_those_of_the_cpu() -> None:
    values = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    found = torch.softmax(to_device(values, CUDA) @ to_device(values.T.copy(), CUDA), dim=1)
    assert found.device == torch.device("cuda:0") and found.is_cuda
    cpu = torch.from_numpy(values)
    assert torch.equal(found.cpu(), torch.softmax(cpu @ torch.from_numpy(values.T.copy()), dim=1))
    assert cpu.device.type == "cpu"


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + torch.ones(3),
        lambda x: torch.ones(3, 3) @ x,
        lambda x: torch.cat([x, torch.ones(3)]),
        lambda x: torch.stack([x[0], torch.tensor(1.0)]),
        lambda x: x.index_add(0, torch.tensor([0]), x[:1]),
        lambda x: torch.ones(3)[x.long()],
        lambda x: x.add_(torch.ones(3)),
        lambda x: torch.nn.Linear(3, 2)(x),
        lambda x: torch.nn.functional.cross_entropy(x[None], torch.tensor([1])),
    ],
)
def test_devices_do_not_mix(mix: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(RuntimeError, match="device"):
        mix(on_gpu(3))


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x * torch.tensor(2.0),
        lambda x: torch.where(x > 1, torch.tensor(0.0), x),
        lambda x: x.masked_fill(x > 1, torch.tensor(0.0)),
        lambda x: x.copy_(torch.ones(3)),
        lambda x: x[torch.tensor([0, 2])],
    ],
)
def test_mixes_that_cuda_allows(mix: Callable[[Tensor], Tensor]) -> None:
    assert mix(on_gpu(3)).device.type == "cuda"


@pytest.mark.parametrize(
    ("call", "waits"),
    [
        (lambda x: x.sum().item(), 1),
        (lambda x: float(x[0]), 1),
        (lambda x: x.tolist(), 1),
        (lambda x: bool(x.any()), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: x.to("cpu", torch.float64), 1),
        (lambda x: torch.empty(3).copy_(x), 1),
        (lambda x: torch.nonzero(x), 1),
        (lambda x: x[x > 1], 1),
        (lambda x: torch.bincount(x.long()), 1),
        (lambda x: torch.unique(x), 1),
        (lambda x: torch.equal(x, x), 1),
        (lambda x: x[torch.tensor([0, 2])], 1),
        (lambda x: x[torch.tensor(1, device=CUDA)], 2),
        (lambda x: torch.ones(3).to(CUDA), 1),
        (lambda x: torch.ones(3).pin_memory().to(CUDA), 1),
        (lambda x: torch.ones(3).to(CUDA, non_blocking=True), 1),
        (lambda x: torch.tensor([1.0], device=CUDA), 1),
        (lambda x: torch.as_tensor(1.0, device=CUDA), 1),
        (lambda x: torch.cuda.synchronize(), 1),
        (lambda x: torch.ones(3).pin_memory().to(CUDA, non_blocking=True), 0),
        (lambda x: torch.ones(3).pin_memory()[1:].to(CUDA, non_blocking=True), 0),
        (lambda x: torch.empty(3, pin_memory=True).copy_(x, non_blocking=True), 0),
        (lambda x: torch.func.grad(lambda y: (y * to_device(np.ones(3), y.device)).sum())(x), 0),
        (lambda x: torch.full((), 3, device=CUDA), 0),
        (lambda x: x.to(CUDA), 0),
        (lambda x: x.argmax(), 0),
        (lambda x: torch.where(x > 1, 0.0, x), 0),
        (lambda x: x.sort(), 0),
        (lambda x: x[1:].clone(), 0),
        (lambda x: x.index_select(0, x.long()), 0),
    ],
)
def test_host_waits_are_counted(call: Callable[[Tensor], object], waits: int) -> None:
    x = on_gpu(3)
    with recording() as tally:
        call(x)
    assert tally.waits.total() == waits, tally.lines(tally.waits)


def test_operations_are_counted_without_views_and_allocations() -> None:
    x = on_gpu(2, 3)
    with recording() as tally:
        y = x.T.reshape(3, 2)[1:].unsqueeze(0).detach()
        empty = torch.empty_like(x).to(CUDA)
        (y * 2).sum()
        empty.add_(1)
    assert {name: count for (_, name), count in tally.operations.items()} == {"mul": 1, "sum": 1, "add_": 1}


def test_a_shape_changes_in_place() -> None:
    x = on_gpu(2, 3)
    x.unsqueeze_(0).transpose_(1, 2)
    assert x.shape == (1, 3, 2) and torch.equal(x.cpu(), torch.arange(6.0).reshape(2, 3).T[None])


def test_counts_have_the_line_of_the_package() -> None:
    with recording() as tally:
        to_device(np.ones(3), CUDA)
    ((site, name),) = tally.operations
    assert (site.place, name) == ("core/transfer.py to_device", "_to_copy") and site.line > 0


def test_threads_see_the_gpu_and_are_counted() -> None:
    def compute() -> str:
        return str(torch.zeros(2, device=CUDA).device)

    with recording() as tally, recording(only_this_thread=True) as own, ThreadPoolExecutor(1) as pool:
        assert pool.submit(compute).result() == compute() == "cuda:0"
    assert (tally.operations.total(), own.operations.total()) == (2, 1)


def test_gradients_and_transforms_are_those_of_the_cpu() -> None:
    weights = torch.linspace(-1, 1, 6).reshape(2, 3)

    def loss(x: Tensor) -> Tensor:
        return torch.tanh(x).square().sum()

    plain = weights.clone().requires_grad_()
    loss(plain).backward()
    there = weights.to(CUDA).requires_grad_()
    loss(there).backward()
    assert plain.grad is not None and there.grad is not None
    assert torch.equal(there.grad.cpu(), plain.grad)
    assert torch.equal(torch.func.grad(loss)(weights.to(CUDA)).cpu(), torch.func.grad(loss)(weights))


def test_a_module_moves_copies_and_trains() -> None:
    here = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    there = copy.deepcopy(copy.deepcopy(here).to(CUDA))
    assert {tensor.device.type for tensor in there.state_dict().values()} == {"cuda"}
    x = torch.linspace(-1, 1, 15).reshape(5, 3)
    for network, inputs in ((here, x), (there, x.to(CUDA))):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        for _ in range(2):
            optimizer.zero_grad()
            network(inputs).square().sum().backward()
            optimizer.step()
    found, expected = there.state_dict(), here.state_dict()
    assert all(torch.equal(found[name].cpu(), tensor) for name, tensor in expected.items())


def test_the_host_gets_no_array_and_no_pickle_of_the_gpu() -> None:
    x = on_gpu(3)
    with pytest.raises(TypeError, match="convert cuda:0"):
        x.numpy()
    with pytest.raises(TypeError, match="convert cuda:0"):
        np.asarray(x)
    with pytest.raises(AssertionError, match="pickled"):
        pickle.dumps({"state": x})
