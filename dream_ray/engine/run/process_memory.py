"""The memory of a process: settings of the allocator, and one error if memory runs out."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from dream_ray.errors import TransientError

# Parameters of mallopt(3) in the GNU C library.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_KEEP_BYTES = 2**31 - 1
_GROW_BYTES = 256 * 2**20
# torch raises a plain RuntimeError with this text on a CPU.
_ON_CPU = "DefaultCPUAllocator: can't allocate memory"
# torch's message on a GPU contains the numbers up to this text; details of the allocator follow.
_END_OF_NUMBERS = " is free."


def keep_freed_memory() -> None:
    """Sets the GNU C library to keep freed memory in the process, which stays at its largest size.

    By default, every tensor of some MiB is mapped, zeroed page by page and unmapped again. On a CPU that took half of
    the time of a step (`benchmarks/step_time.py`). Other C libraries have no such setting.
    """
    with suppress(AttributeError, OSError, TypeError):  # macOS, musl, Windows
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _KEEP_BYTES), (_M_TOP_PAD, _GROW_BYTES)):
            mallopt(parameter, value)


class OutOfMemory(TransientError):  # noqa: N818 - it names what happened
    """Memory ran out; the message contains the requested size and the settings that need less."""


def out_of_memory(reason: str) -> OutOfMemory:
    """Returns the error for a cause."""
    return OutOfMemory(
        f"memory does not suffice ({reason}): begin a run with --memory, which chooses settings that fit, or with a "
        "smaller selection.embedding_batch, batch_synthetic_max, matching.real_chunk, update.batch_size or "
        "evaluation.batch_size"
    )


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raises OutOfMemory if torch or numpy cannot allocate memory inside the block, on a GPU or a CPU."""
    try:
        yield
    except MemoryError as error:
        raise out_of_memory(str(error) or "the host has no free memory") from None
    except RuntimeError as error:
        text = str(error)
        is_on_cpu = type(error) is RuntimeError and _ON_CPU in text
        if not (is_on_cpu or isinstance(error, torch.OutOfMemoryError)):
            raise
        head, found, _ = text.partition(_END_OF_NUMBERS)
        raise out_of_memory(" ".join((head + found).split()).removesuffix(".")) from None
