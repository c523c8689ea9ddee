"""Memory that is freed stays with the process: large activations come and go every step."""

import ctypes

# Parameters of mallopt(3) in the GNU C library.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_KEEP_BYTES = 2**31 - 1
_GROW_BYTES = 256 * 2**20


def keep_freed_memory() -> bool:
    """Asks the C library not to hand freed memory back to the system.

    By default every tensor of some MiB is mapped, zeroed page by page and unmapped again: on a CPU that took half of
    the time of a step (`benchmarks/step_time.py` measures it). The process keeps its largest size instead.

    Returns:
        Whether it was done; on other C libraries nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _KEEP_BYTES), (_M_TOP_PAD, _GROW_BYTES))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
