"""The device of a run, as the machine allows it."""

import logging
import warnings
from typing import Any

import pytest
import torch

from dream_ray.engine.run.environment import CostMeter, differences, resolve_device
from dream_ray.errors import UsageError

TOO_OLD = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU "
    "driver by downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx "
    "(Triggered internally at /pytorch/c10/cuda/CUDAFunctions.cpp:119.)"
)


@pytest.fixture
def too_old_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that is older than the CUDA of torch, as torch reports it."""

    def is_available() -> bool:
        warnings.warn(TOO_OLD, stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)


def test_auto_says_why_it_leaves_out_a_gpu(too_old_driver: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert resolve_device("auto").type == "cpu"
    (message,) = caplog.messages
    assert message.startswith("The device is the CPU, because PyTorch cannot use the GPU: The NVIDIA driver on your")
    assert "(found version 11040)" in message and "Triggered" not in message and "\n" not in message


def test_cuda_is_refused_with_the_reason(too_old_driver: None) -> None:
    with pytest.raises(UsageError, match=r"no CUDA device is available: The NVIDIA driver .* is too old"):
        resolve_device("cuda")


def test_a_machine_without_a_gpu_gets_no_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto").type == resolve_device("cpu").type == "cpu"
    assert not caplog.messages
    with pytest.raises(UsageError, match="no CUDA device is available$"):
        resolve_device("cuda")


def test_the_cost_is_that_of_the_gpu_of_the_thread_that_began(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread of a heartbeat reads it, whose own current GPU is GPU 0."""
    current = [2]
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[0])
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 100 + device.index)
    meter = CostMeter(torch.device("cuda"))
    current[0] = 0
    assert meter.read()["peak_gpu_bytes"] == 102
    assert CostMeter(torch.device("cpu")).read()["peak_gpu_bytes"] == 0


@pytest.mark.parametrize(
    ("recorded", "current", "expected"),
    [
        ({"options": {"width": 4}}, {"options": {"width": 4}}, []),
        ({"options": {"width": 4}}, {"options": {"width": 8}}, ["options.width was 4, is 8"]),
        ({"options": {"width": 4}}, {"options": {}}, ["options.width was 4, is None"]),
        ({"options": {}}, {"options": {"width": 8}}, ["options.width was None, is 8"]),
        ({}, {"source": "abc"}, ["source was None, is abc"]),
    ],
)
def test_changed_removed_and_added_values_are_differences(
    recorded: dict[str, Any], current: dict[str, Any], expected: list[str]
) -> None:
    assert differences(recorded, current) == expected
