"""Selections made ahead: those of the next interval are computed while this one is matched.

A selection needs a network and the assignment before it, nothing that matching changes. So it is the same whenever it
is made, and where the networks come from producers it need not wait for its turn.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from dream_ray.config import Config
from dream_ray.core.selection.strategies import Selection
from dream_ray.engine.matching.class_matcher import Assignments, ClassMatcher, Select
from dream_ray.engine.networks.prefetched import FetchedNetworks
from dream_ray.engine.networks.sources import Snapshot


@contextmanager
def prefetch_selection(config: Config, matcher: ClassMatcher, source: FetchedNetworks) -> Iterator[Select]:
    """Yields `matcher.select_all`, made one selection ahead by a thread that ends with the block.

    Args:
        config: Settings.
        matcher: Selects.
        source: Gives snapshots before their turn.
    """
    ended = threading.Event()
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch-selection")
    try:
        yield _Ahead(config, matcher, source, pool, ended)
    finally:
        ended.set()
        pool.shutdown(cancel_futures=True)


class _Ahead:
    def __init__(
        self,
        config: Config,
        matcher: ClassMatcher,
        source: FetchedNetworks,
        pool: ThreadPoolExecutor,
        ended: threading.Event,
    ) -> None:
        self._config, self._matcher, self._source = config, matcher, source
        self._pool, self._ended = pool, ended
        self._next: tuple[tuple[int, int], Future[dict[int, Selection]]] | None = None

    def __call__(self, snapshot: Snapshot, previous: Assignments) -> dict[int, Selection]:
        """Returns the selections that are due now, and begins those that come after them."""
        if self._next is not None and self._next[0] == (snapshot.outer, snapshot.inner):
            chosen = self._next[1].result()
        else:  # the first of this process
            chosen = self._matcher.select_all(snapshot, previous)
        outer, inner = snapshot.outer, snapshot.inner + self._config.selection.interval
        if inner >= self._config.inner_steps:
            outer, inner = outer + 1, 0
        if outer < self._config.outer_steps:
            assignments = {label: selection.assignment_N for label, selection in chosen.items()}
            self._next = (outer, inner), self._pool.submit(self._select, outer, inner, assignments)
        return chosen

    def _select(self, outer: int, inner: int, previous: Assignments) -> dict[int, Selection]:
        while not self._ended.is_set():
            if (snapshot := self._source.try_get(outer, inner)) is not None:
                return self._matcher.select_all(snapshot, previous, is_over=self._ended.is_set)
        return {}
