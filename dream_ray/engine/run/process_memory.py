"""The memory of a process: settings of the allocator, one error if memory runs out, and a process of its own."""

import ctypes
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.synchronize import Event

import torch

from dream_ray.errors import TransientError, UsageError

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


@contextmanager
def spawned_process(what: str, work: str, begin: Callable[[], object] | None = None) -> Iterator[Executor]:
    """Yields an executor of one process, which starts with the first call and ends with the block.

    Args:
        what: What needs the process, such as "plan", for the error.
        work: What the process does, such as "ran the steps", likewise.
        begin: Called in the process before anything else.

    Raises:
        OutOfMemory: If the process is killed.
        UsageError: If it cannot import the script that called.
    """
    context = multiprocessing.get_context("spawn")
    has_begun = context.Event()
    with ProcessPoolExecutor(1, context, initializer=_begin, initargs=(has_begun, begin)) as pool:
        try:
            yield pool
        except BrokenProcessPool:
            if not has_begun.is_set():
                raise UsageError(
                    f'{what} needs a process of its own, which imports the script: call it below `if __name__ == "'
                    '__main__":`'
                ) from None
            raise out_of_memory(f"the process that {work} was killed, as Linux does if memory ends") from None


def _begin(has_begun: Event, begin: Callable[[], object] | None) -> None:
    if begin is not None:
        begin()
    has_begun.set()
