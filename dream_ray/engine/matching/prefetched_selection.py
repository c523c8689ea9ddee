"""Prefetched selections: a thread computes those of the next interval while this one is matched.

A selection depends on a network and the previous assignment only, not on the synthetic images. So its result does not
depend on when it is computed.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from dream_ray.config import Config
from dream_ray.core.selection.strategies import Selection
from dream_ray.engine.matching.class_selector import Assignments, ClassSelector, Select
from dream_ray.engine.networks.prefetched import FetchedNetworks
from dream_ray.engine.networks.sources import Snapshot


@contextmanager
def prefetch_selection(config: Config, selector: ClassSelector, source: FetchedNetworks) -> Iterator[Select]:
    """Yields `selector.select_all`, computed one selection ahead by a thread that ends with the block.

    Args:
        config: Settings.
        selector: Selects.
        source: Returns snapshots before their turn.
    """
    ended = threading.Event()
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch-selection")
    prefetched: dict[tuple[int, int], Future[dict[int, Selection]]] = {}

    def prefetch(outer: int, inner: int, previous: Assignments) -> dict[int, Selection]:
        while not ended.is_set():
            if (snapshot := source.try_get(outer, inner)) is not None:
                return selector.select_all(snapshot, previous, is_over=ended.is_set)
        return {}

    def select(snapshot: Snapshot, previous: Assignments) -> dict[int, Selection]:
        due = prefetched.pop((snapshot.outer, snapshot.inner), None)
        # The first selection of a process is not prefetched.
        chosen = selector.select_all(snapshot, previous) if due is None else due.result()
        outer, inner = snapshot.outer, snapshot.inner + config.selection.interval
        if inner >= config.inner_steps:
            outer, inner = outer + 1, 0
        if outer < config.outer_steps:
            assignments = {label: selection.assignment_N for label, selection in chosen.items()}
            prefetched[outer, inner] = pool.submit(prefetch, outer, inner, assignments)
        return chosen

    try:
        yield select
    finally:
        ended.set()
        pool.shutdown(cancel_futures=True)
