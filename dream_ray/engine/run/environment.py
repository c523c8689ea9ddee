"""The environment of a run, on which its bits depend besides the settings, and its cost."""

import importlib.metadata
import logging
import platform
import resource
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch

from dream_ray import __version__
from dream_ray.errors import UsageError

_LOG = logging.getLogger(__name__)
_AMPERE = (8, 0)
_PACKAGES = ("numpy", "pyarrow", "torch")
NUMERICS = "e883225eec05e903"
"""Digest of the golden losses of the tests: it changes when equal settings give other numbers."""
# torch's warning if it cannot use the GPU of a driver, for example because the driver is too old, once per process.
_UNUSABLE, _END_OF_REASON = "CUDA initialization: ", " (Triggered internally"


def resolve_device(name: str) -> torch.device:
    """Returns the device for one of `DEVICES`; "auto" is the CPU if PyTorch sees no CUDA device.

    Raises:
        UsageError: If this machine does not have the device.
    """
    if name == "cpu":
        return torch.device("cpu")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        is_available = torch.cuda.is_available()
    if is_available:
        return torch.device("cuda")
    texts = (str(warning.message) for warning in caught)
    reasons = [text.partition(_UNUSABLE)[2].partition(_END_OF_REASON)[0] for text in texts if _UNUSABLE in text]
    if name == "cuda":
        found = ": ".join(["no CUDA device is available", *reasons[:1]])
        raise UsageError(f"device must be one that PyTorch sees; got 'cuda', but {found}")
    for reason in reasons[:1]:
        _LOG.warning("The device is the CPU, because PyTorch cannot use the GPU: %s", reason)
    return torch.device("cpu")


def library_versions() -> dict[str, str]:
    """Returns the versions of the libraries that compute, on any device."""
    versions = {"python": platform.python_version(), "dream-ray": __version__}
    return versions | {package: importlib.metadata.version(package) for package in _PACKAGES}


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Returns what equal bits need: library versions, CPU type and device; plain values for JSON."""
    versions = library_versions()
    cpu = _linux_value("/proc/cpuinfo", "model name") or platform.processor()
    described: dict[str, Any] = {
        "versions": versions,
        "numerics": NUMERICS,
        "machine": platform.machine(),
        "cpu": cpu,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": device.type,
        "device_name": cpu,
    }
    if device.type == "cuda":
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        described["versions"] |= {"cuda": str(torch.version.cuda), "cudnn": str(cudnn)}
        described["device_name"] = torch.cuda.get_device_name(device)
    return described


# Convolutions, and products of matrices.
_TF32: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)


class _Arithmetic:
    """The settings of a process that change last bits; blocks of several threads may overlap."""

    def __init__(self) -> None:
        self._lock, self._blocks = threading.Lock(), 0

    def enter(self, threads: int, *, tf32: bool) -> None:
        """Applies settings; the first block keeps those before it."""
        with self._lock:
            if self._blocks == 0:
                self._threads = torch.get_num_threads()
                self._switches = [switch.allow_tf32 for switch in _TF32]
            self._blocks += 1
            self._apply(threads, [tf32, False])

    def leave(self) -> None:
        """Restores the settings after the last block."""
        with self._lock:
            self._blocks -= 1
            if self._blocks == 0:
                self._apply(self._threads, self._switches)

    @staticmethod
    def _apply(threads: int, switches: Sequence[bool]) -> None:
        torch.set_num_threads(threads)
        for switch, value in zip(_TF32, switches, strict=True):
            switch.allow_tf32 = value


_ARITHMETIC = _Arithmetic()


@contextmanager
def fixed_arithmetic(threads: int, precision: str = "float32") -> Iterator[None]:
    """Fixes inside the block what changes the last bits, for the whole process.

    Args:
        threads: Threads of the CPU, which divide a sum.
        precision: Precision of the networks; with "tf32", convolutions of a GPU round their inputs. Products of
            matrices never do, because distances of k-means are differences of large numbers.
    """
    _ARITHMETIC.enter(threads, tf32=precision == "tf32")
    try:
        yield
    finally:
        _ARITHMETIC.leave()


def check_precision(precision: str, device: torch.device) -> None:
    """Raises UsageError if a device lacks the precision of the networks."""
    if device.type == "cuda" and precision != "float32" and torch.cuda.get_device_capability(device) < _AMPERE:
        name = torch.cuda.get_device_name(device)
        raise UsageError(f"precision must be float32 on a GPU before Ampere; got {precision!r} on {name}")
    if device.type == "cpu" and precision == "tf32":
        raise UsageError("precision must be float32 or bfloat16 on a CPU; got 'tf32', which only GPUs have")


def _linux_value(path: str, name: str) -> str | None:
    """Returns the value of the first line `name: value` of a file; None if there is none."""
    with suppress(OSError), open(path, encoding="utf-8") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return None


def differences(recorded: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """Describes each difference between two environments; a key that one of them lacks is None there."""
    found = []
    for key in recorded | current:
        was, now = recorded.get(key), current.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            found += [f"{key}.{line}" for line in differences(was, now)]
        elif now != was:
            found.append(f"{key} was {was}, is {now}")
    return found


def peak_rss_bytes() -> int:
    """Returns the largest resident memory of this process so far, in bytes."""
    if high_water := _linux_value("/proc/self/status", "VmHWM"):
        return int(high_water.split()[0]) * 1024
    # On Linux, ru_maxrss includes the memory of the parent at the fork. Its unit is KiB, and bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# Process numbers repeat, on other machines and over time.
_PROCESS = uuid.uuid4().hex


class CostMeter:
    """Measures the cost of this process, all threads together, from the construction of the meter on.

    Args:
        device: Device of the process; "cuda" is the current GPU of the thread that makes the meter.
    """

    def __init__(self, device: torch.device) -> None:
        # Other threads read the meter, and the current GPU of a new thread is GPU 0.
        on_gpu = device.type == "cuda" and device.index is None
        self._device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else device
        self._started_at = time.time()
        self._cpu_s = time.process_time()

    def read(self) -> dict[str, Any]:
        """Returns the cost so far.

        Returns:
            process (a unique name), started_at and updated_at (Unix seconds), cpu_since_s (CPU seconds of the process
            before the start), cpu_s, gpu_s (seconds with a GPU), peak_rss_bytes and peak_gpu_bytes (the largest memory
            that PyTorch reserved on the GPU, with fragmentation and without the CUDA context).
        """
        on_gpu = self._device.type == "cuda"
        now = time.time()
        return {
            "process": _PROCESS,
            "started_at": self._started_at,
            "updated_at": now,
            "cpu_since_s": self._cpu_s,
            "cpu_s": time.process_time() - self._cpu_s,
            "gpu_s": now - self._started_at if on_gpu else 0.0,
            "peak_rss_bytes": peak_rss_bytes(),
            "peak_gpu_bytes": torch.cuda.max_memory_reserved(self._device) if on_gpu else 0,
        }


def total_cost(sessions: list[dict[str, Any]]) -> dict[str, float]:
    """Adds up the cost of all sessions of a run, including interrupted ones.

    Returns:
        wall_s (seconds in which at least one process ran), cpu_s and gpu_s (sums over processes; sessions of one
        process that overlap count once), peak_rss_bytes and peak_gpu_bytes (of the largest process).
    """
    processes: dict[str, list[dict[str, Any]]] = {}
    for session in sessions:
        processes.setdefault(session["process"], []).append(session)
    return {
        "wall_s": _covered((s["started_at"], s["updated_at"] - s["started_at"]) for s in sessions),
        "cpu_s": sum(_covered((s["cpu_since_s"], s["cpu_s"]) for s in own) for own in processes.values()),
        "gpu_s": sum(_covered((s["started_at"], s["gpu_s"]) for s in own) for own in processes.values()),
        "peak_rss_bytes": max((s["peak_rss_bytes"] for s in sessions), default=0),
        "peak_gpu_bytes": max((s["peak_gpu_bytes"] for s in sessions), default=0),
    }


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """Returns the total length of spans (start, length); overlaps count once."""
    covered, end = 0.0, float("-inf")
    for start, length in sorted(spans):
        covered += max(0.0, start + length - max(end, start))
        end = max(end, start + length)
    return covered
