"""Keyed random streams: every random number is a function of its purpose, never of earlier calls.

The key of a stream is (seed, purpose, outer step, inner step, class). A key gives the same numbers on any worker, after
any crash and in any order of calls. So the number of workers does not change a run.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

_AMBIENT = threading.Lock()
_CPU = torch.device("cpu")


def stream(seed: int, purpose: str, *, outer: int = 0, inner: int = 0, label: int = 0) -> np.random.Generator:
    """Returns the random stream of a purpose at a step of a run.

    Args:
        seed: Seed of the run.
        purpose: Use of the numbers, for example "real-batch"; part of the key.
        outer: Outer step t.
        inner: Inner step j.
        label: Class label c.

    Returns:
        A counter-based generator (Philox) whose 128-bit key is a hash of the arguments.
    """
    name = f"{seed}/{purpose}/{outer}/{inner}/{label}".encode()
    key = int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


@contextmanager
def torch_randomness(generator: np.random.Generator, device: torch.device = _CPU) -> Iterator[None]:
    """Seeds torch's ambient generators, which layer constructors and dropout use, from `generator` for a block.

    The block restores their states at its end. Only this module uses ambient randomness, one thread at a time.

    Args:
        generator: Draws the seed.
        device: Device of the computation; its generator is seeded in addition to that of the CPU.
    """
    on_gpu = device.type == "cuda"
    with _AMBIENT, torch.random.fork_rng(devices=[device] if on_gpu else []):
        seed = int(generator.integers(2**63))
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            torch.cuda.manual_seed(seed)
        yield


def draws_at_random(call: Callable[[], object]) -> bool:
    """Returns whether a call that computes on the CPU draws from torch's ambient generator."""
    with _AMBIENT, torch.random.fork_rng(devices=[]):
        before = torch.default_generator.get_state()
        call()
        return not torch.equal(before, torch.default_generator.get_state())
