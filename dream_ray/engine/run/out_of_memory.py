"""Memory that does not suffice: one error for it, which says what to do, wherever PyTorch meets it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dream_ray.errors import TransientError

# What torch says on a CPU, in a RuntimeError like any other.
_ON_CPU = "DefaultCPUAllocator: can't allocate memory"
# The numbers are before it, and after it what only concerns who writes allocators.
_END_OF_NUMBERS = " is free."


class OutOfMemory(TransientError):  # noqa: N818 - it names what happened
    """Memory ran out, which others may share: the message says how much was asked for, and what needs less."""


def ran_out(reason: str) -> OutOfMemory:
    """Makes the error from what happened."""
    return OutOfMemory(
        f"memory does not suffice ({reason}): begin a run with --memory, which chooses settings that fit, or with a "
        "smaller selection.embedding_batch, batch_synthetic_max, matching.real_chunk, update.batch_size or "
        "evaluation.batch_size"
    )


@contextmanager
def saying_what_needs_less_memory() -> Iterator[None]:
    """Raises OutOfMemory where torch cannot allocate what the block asks for, on a GPU or a CPU."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        is_on_cpu = type(error) is RuntimeError and _ON_CPU in text
        if not (is_on_cpu or isinstance(error, torch.OutOfMemoryError)):
            raise
        head, found, _ = text.partition(_END_OF_NUMBERS)
        raise ran_out(" ".join((head + found).split()).removesuffix(".")) from None
