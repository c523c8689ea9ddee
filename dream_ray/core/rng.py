"""Keyed random streams: every random number is a function of what it is for, never of what ran before.

A stream is named by (seed, purpose, outer iteration, inner step, class). The same name gives the same numbers on any
worker, after any crash and in any order of calls; that is what makes a run independent of the number of workers.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_AMBIENT = threading.Lock()


def stream(seed: int, purpose: str, *, outer: int = 0, inner: int = 0, label: int = 0) -> np.random.Generator:
    """Returns the random stream of one purpose at one place of a run.

    Args:
        seed: Seed of the run.
        purpose: What the numbers are for, for example "real-batch"; part of the key.
        outer: Outer iteration t.
        inner: Inner step j.
        label: Class label c.

    Returns:
        A counter-based generator (Philox) whose 128-bit key is a hash of the arguments.
    """
    name = f"{seed}/{purpose}/{outer}/{inner}/{label}".encode()
    key = int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


@contextmanager
def torch_randomness(generator: np.random.Generator) -> Iterator[None]:
    """Makes torch's CPU generator, which layer constructors draw from, follow `generator` inside the block.

    The generator's former state comes back afterwards. This is the one place that touches ambient randomness, one
    thread at a time.
    """
    with _AMBIENT, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(generator.integers(2**63)))
        yield
