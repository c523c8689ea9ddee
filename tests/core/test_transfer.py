"""Transfers to a device: no copy where the values are, and no host wait on the way to a GPU."""

import copy

import numpy as np
import torch
from torch import nn

from dream_ray.core.transfer import module_to_device, to_device
from tests.standin_gpu.gpu import standin_gpu
from tests.standin_gpu.tally import recording

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_values_on_their_device_are_not_copied() -> None:
    values = np.arange(3.0)
    tensor = to_device(values, CPU)
    values[0] = 7
    assert tensor[0] == 7 and to_device(tensor, CPU) is tensor
    assert to_device(values, CPU, torch.float32).dtype == torch.float32
    network = nn.Linear(2, 3)
    weight = network.weight
    assert module_to_device(network, CPU) is network and network.weight is weight
    with standin_gpu():
        there = to_device(values, CUDA)
        assert to_device(there, CUDA) is there


def test_the_host_does_not_wait_for_a_transfer() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    expected = copy.deepcopy(network.state_dict())
    with standin_gpu(), recording() as tally:
        array, tensor = to_device(np.arange(3.0), CUDA), to_device(torch.arange(4), CUDA)
        moved = module_to_device(network, CUDA).state_dict()
        assert {one.device.type for one in (array, tensor, *moved.values())} == {"cuda"}
        assert not tally.waits, tally.lines(tally.waits)
        assert tensor.tolist() == [0, 1, 2, 3] and array.tolist() == [0, 1, 2]
        assert all(torch.equal(moved[name].cpu(), value) for name, value in expected.items())
