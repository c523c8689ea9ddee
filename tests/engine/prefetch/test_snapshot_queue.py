"""The snapshot queue: every worker gets every snapshot within the window, whichever process dies."""

import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dream_ray.engine.prefetch.snapshot_queue import Job, SnapshotQueue
from dream_ray.errors import RunError

OUTER, INNER = 3, 4


def new_queue(window: int = 100) -> SnapshotQueue[str]:
    return SnapshotQueue(outer_steps=OUTER, inner_steps=INNER, window=window)


def make(queue: SnapshotQueue[str], producer: int, count: int) -> int:
    """Runs a producer for up to `count` snapshots; returns how many it made."""
    made = 0
    while made < count:
        job = queue.next_job(producer)
        if job is None:
            return made
        for inner in range(job.first, job.stop):
            made += 1
            if not queue.put(producer, inner, f"{job.outer}.{inner}") or made == count:
                break
    return made


def fetched(queue: SnapshotQueue[str], rank: int, steps: range) -> list[str | None]:
    return [queue.get(rank, step, 0) for step in steps]


def names(steps: range) -> list[str]:
    return [f"{step // INNER}.{step % INNER}" for step in steps]


def test_jobs_are_whole_trajectories_in_order() -> None:
    queue = new_queue()
    queue.begin(0, 1, 0, None)
    jobs = [queue.next_job(producer) for producer in range(OUTER)]
    assert jobs == [Job(outer, 0, None, 0, INNER) for outer in range(OUTER)]


def test_producers_wait_until_a_worker_registers() -> None:
    queue = new_queue()
    jobs: list[Job | None] = []
    waiting = threading.Thread(target=lambda: jobs.append(queue.next_job(0)))
    waiting.start()
    assert waiting.is_alive()
    queue.begin(0, 1, 2 * INNER, None)
    waiting.join(timeout=10)
    assert jobs == [Job(2, 0, None, 0, INNER)]


@pytest.mark.parametrize("survivor", [0, 1, 2])
def test_a_smaller_group_continues_whichever_worker_survives(survivor: int) -> None:
    """Calls of a worker of the lost group have no effect."""
    queue = new_queue(window=INNER)
    for rank in range(3):
        queue.begin(rank, 3, 0, None)
    make(queue, 0, INNER)
    queue.mark_group_lost()
    assert queue.is_group_lost()
    assert fetched(queue, survivor, range(INNER)) == names(range(INNER))
    assert queue.is_group_lost(), "the call came from the lost group"
    for rank in range(2):
        queue.begin(rank, 2, 2, None, incarnation=1)
    assert not queue.is_group_lost()
    with ThreadPoolExecutor(3) as pool:
        making = pool.submit(make, queue, 1, OUTER * INNER)
        steps = range(2, OUTER * INNER)
        got = [pool.submit(lambda rank=rank: [queue.get(rank, step, 30) for step in steps]) for rank in range(2)]
        assert [one.result() for one in got] == [names(steps)] * 2
        queue.close()
        making.result()


def test_no_group_is_lost_before_one_registers() -> None:
    queue = new_queue()
    queue.mark_group_lost()
    assert not queue.is_group_lost()


def test_a_resumed_run_trains_from_the_network_in_its_checkpoint() -> None:
    queue, state = new_queue(), {"network.weight": None}
    queue.begin(0, 1, INNER + 2, state)  # type: ignore[arg-type]
    assert queue.next_job(0) == Job(1, 2, state, 2, INNER)  # type: ignore[arg-type]
    assert queue.next_job(1) == Job(2, 0, None, 0, INNER)


def test_without_a_network_in_the_checkpoint_the_trajectory_restarts() -> None:
    queue = new_queue()
    queue.begin(0, 1, INNER + 2, None)
    assert queue.next_job(0) == Job(1, 0, None, 2, INNER)


def test_a_snapshot_is_held_until_every_worker_has_passed_it() -> None:
    queue = new_queue()
    for rank in range(2):
        queue.begin(rank, 2, 0, None)
    make(queue, 0, INNER)
    assert fetched(queue, 0, range(4)) == names(range(4))
    assert fetched(queue, 1, range(4)) == names(range(4))
    assert queue.get(0, 4, 0) is None
    assert queue.get(1, 3, 0) == "0.3", "worker 1 has not passed it"


def test_try_get_does_not_move_the_worker() -> None:
    queue = new_queue()
    with pytest.raises(KeyError, match="worker 0 is not registered"):
        queue.try_get(0, 0, 0)
    queue.begin(0, 1, 0, None)
    make(queue, 0, 3)
    assert queue.try_get(0, 2, 0) == "0.2"
    assert queue.try_get(0, 3, 0) is None
    assert fetched(queue, 0, range(3)) == names(range(3)), "the earlier ones are still held"


def test_a_producer_waits_for_the_slowest_worker() -> None:
    queue = new_queue(window=2)
    for rank in range(2):
        queue.begin(rank, 2, 0, None)
    made: list[int] = []
    producing = threading.Thread(target=lambda: made.append(make(queue, 0, INNER)))
    producing.start()
    assert queue.get(0, 1, 10) == "0.1"
    assert queue.get(0, 2, 0.05) is None
    assert queue.get(1, 1, 10) == "0.1"
    assert queue.get(0, 2, 10) == "0.2"
    queue.close()
    producing.join(10)
    assert not producing.is_alive()


def test_each_trajectory_of_a_dead_producer_is_trained_once_more() -> None:
    """Its snapshots are lost; those of another producer are not."""
    queue = new_queue()
    queue.begin(0, 1, 0, None)
    make(queue, 0, INNER)
    make(queue, 1, INNER)
    make(queue, 0, 2)
    assert queue.get(0, 1, 0) == "0.1"
    queue.remove_producer(0)
    assert [queue.next_job(number) for number in (2, 3)] == [Job(0, 0, None, 1, INNER), Job(2, 0, None, 0, INNER)]
    assert fetched(queue, 0, range(INNER, 2 * INNER)) == names(range(INNER, 2 * INNER))


def test_the_job_of_a_dead_producer_restarts_from_the_checkpoint() -> None:
    queue, state = new_queue(), {"network.weight": None}
    queue.begin(0, 1, INNER + 1, state)  # type: ignore[arg-type]
    make(queue, 0, 2)
    queue.remove_producer(0)
    assert queue.next_job(1) == Job(1, 1, state, 1, INNER)  # type: ignore[arg-type]


def test_pending_calls_of_a_dead_producer_have_no_effect() -> None:
    """Ray keeps such calls in the queue after the process has died."""
    queue = new_queue(window=1)
    queue.begin(0, 1, 0, None)
    for number in range(OUTER):
        queue.next_job(number)
    with ThreadPoolExecutor(2) as pool:
        putting, asking = pool.submit(queue.put, 1, 0, "of a dead one"), pool.submit(queue.next_job, OUTER)
        queue.remove_producer(1)
        queue.remove_producer(OUTER)
        assert putting.result(10) is False
        assert asking.result(10) is None
    assert queue.next_job(OUTER + 1) == Job(1, 0, None, 0, INNER)
    assert queue.get(0, INNER, 0) is None


def test_a_producer_that_asks_again_gets_the_rest_of_its_job() -> None:
    queue = new_queue()
    queue.begin(0, 1, 0, None)
    make(queue, 0, 3)
    assert queue.next_job(0) == Job(0, 0, None, 3, INNER)


def test_a_lost_snapshot_is_recomputed_with_later_ones_of_its_producer() -> None:
    queue = new_queue()
    queue.begin(0, 1, 0, None)
    make(queue, 0, 2 * INNER)
    for _ in range(2):
        queue.mark_lost(INNER + 1, "1.1")
    assert queue.next_job(1) == Job(1, 0, None, 1, INNER)
    assert fetched(queue, 0, range(INNER + 1)) == names(range(INNER + 1))


def test_a_late_report_of_loss_keeps_the_recomputed_snapshot() -> None:
    """A worker that waits for an object of a lost node learns of the loss late."""
    queue = new_queue()
    queue.begin(0, 1, 0, None)
    make(queue, 0, 1)
    queue.remove_producer(0)
    queue.next_job(1)
    queue.put(1, 0, "0.0 again")
    queue.mark_lost(0, "0.0")
    assert queue.get(0, 0, 0) == "0.0 again"


def test_snapshots_of_another_producer_are_not_lost() -> None:
    queue = new_queue()
    queue.begin(0, 1, 0, None)
    make(queue, 0, 2)
    queue.mark_lost(1, "0.1")
    make(queue, 1, 1)
    queue.put(0, 2, "0.2")
    queue.mark_lost(0, "0.0")
    assert queue.try_get(0, 1, 0) == "0.1"
    assert [queue.next_job(number) for number in (2, 3)] == [Job(0, 0, None, 0, 1), Job(0, 0, None, 2, 3)]


def test_a_restarted_group_gets_snapshots_that_were_dropped() -> None:
    queue = new_queue()
    queue.begin(0, 1, 0, None)
    make(queue, 0, OUTER * INNER)
    fetched(queue, 0, range(2 * INNER + 2))
    queue.begin(0, 1, INNER + 1, None)
    assert [queue.next_job(number) for number in (1, 2)] == [Job(1, 0, None, 1, INNER), Job(2, 0, None, 0, 1)]


def test_a_worker_that_resumes_from_an_older_checkpoint_gets_earlier_snapshots() -> None:
    queue = new_queue()
    queue.begin(0, 2, INNER + 2, None)
    make(queue, 0, 2)
    queue.begin(1, 2, INNER, None)
    assert queue.next_job(0) == Job(1, 0, None, 0, 2)


def test_a_producer_at_the_window_switches_to_an_earlier_gap() -> None:
    """It is the only producer, and the workers need an earlier snapshot than the one it wants to put in."""
    queue = new_queue(window=1)
    queue.begin(0, 1, 2, None)
    steps = range(2, OUTER * INNER)
    producing = threading.Thread(target=make, args=(queue, 0, 100))
    producing.start()
    assert queue.get(0, 2, 10) == "0.2"
    assert queue.get(0, 3, 10) == "0.3"
    queue.begin(0, 1, 2, None)
    assert [queue.get(0, step, 10) for step in steps] == names(steps)
    queue.close()
    producing.join(10)
    assert not producing.is_alive()


def test_producers_start_trajectories_beyond_the_window() -> None:
    """A warm-up may take as long as many steps of matching."""
    queue = new_queue(window=1)
    queue.begin(0, 1, 0, None)
    assert [queue.next_job(number) for number in range(3)] == [Job(outer, 0, None, 0, INNER) for outer in range(3)]


def test_only_as_many_producers_as_needed_are_called_off() -> None:
    queue = new_queue(window=1)
    queue.begin(0, 1, 0, None)
    for number in range(3):
        queue.next_job(number)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(queue.put, number, 0, f"{number}.0") for number in (1, 2)]
        queue.remove_producer(0)  # its job was the first trajectory
        left, _ = wait(waiting, timeout=10, return_when=FIRST_COMPLETED)
        assert [put.result() for put in left] == [False]
        number = 1 + waiting.index(left.pop())
        job = queue.next_job(number)
        assert job is not None and job.outer == 0
        assert [put.done() for put in waiting].count(True) == 1
        queue.close()


def test_close_ends_every_wait() -> None:
    queue = new_queue(window=1)
    queue.begin(0, 1, OUTER * INNER, None)
    with ThreadPoolExecutor(2) as pool:
        producer, worker = pool.submit(queue.next_job, 0), pool.submit(queue.get, 0, 99, 60)
        queue.close()
        assert producer.result(10) is None
        with pytest.raises(RunError, match="the run has ended"):
            worker.result(10)


def test_a_worker_gets_the_reason_why_the_queue_was_closed() -> None:
    queue = new_queue()
    queue.begin(0, 1, 0, None)
    queue.close("the store is gone")
    with pytest.raises(RunError, match="the store is gone"):
        queue.get(0, 0, 60)


def test_a_replaced_queue_asks_workers_to_register_again() -> None:
    queue = new_queue()
    with pytest.raises(KeyError):
        queue.get(0, 0, 0)
    assert not queue.put(0, 0, "of a job of the old queue")


def test_a_replaced_queue_serves_the_slower_worker() -> None:
    """The faster worker registers first, and the slower one still gets earlier snapshots."""
    queue = new_queue()
    queue.begin(0, 2, INNER + 2, None)
    with pytest.raises(KeyError):
        queue.get(1, INNER, 0)
    with pytest.raises(KeyError):
        queue.try_get(1, INNER + 1, 0)
    queue.begin(1, 2, INNER, None)
    make(queue, 0, 2 * INNER)
    assert fetched(queue, 1, range(INNER, 2 * INNER)) == names(range(INNER, 2 * INNER))
    assert fetched(queue, 0, range(INNER + 2, 2 * INNER)) == names(range(INNER + 2, 2 * INNER))


@settings(max_examples=60)
@given(
    window=st.integers(1, 2 * INNER),
    num_workers=st.integers(1, 3),
    num_producers=st.integers(1, 3),
    deaths=st.lists(st.tuples(st.integers(0, 2), st.integers(1, OUTER * INNER - 1)), max_size=3),
    restart=st.none() | st.tuples(st.integers(0, OUTER * INNER - 1), st.integers(0, OUTER * INNER - 1)),
)
def test_every_worker_gets_every_snapshot_in_order(
    window: int,
    num_workers: int,
    num_producers: int,
    deaths: list[tuple[int, int]],
    restart: tuple[int, int] | None,
) -> None:
    """Producers die at any moment, snapshots are lost, the group goes back to an earlier step."""
    queue = new_queue(window)
    producers = [
        threading.Thread(target=_produce, args=(queue, number, [step for who, step in deaths if who == number]))
        for number in range(num_producers)
    ]
    for thread in producers:
        thread.start()
    try:
        stop, back = (OUTER * INNER, None) if restart is None else (max(restart), min(restart))
        assert _consume(queue, num_workers, range(stop)) == [names(range(stop))] * num_workers
        if back is not None:
            steps = range(back, OUTER * INNER)
            assert _consume(queue, num_workers, steps) == [names(steps)] * num_workers
    finally:
        queue.close()
        for thread in producers:
            thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in producers)


def _produce(queue: SnapshotQueue[str], number: int, deaths: list[int]) -> None:
    """Makes snapshots; at some steps it dies before `put` and asks again."""
    left = set(deaths)
    while (job := queue.next_job(number)) is not None:
        for inner in range(job.first, job.stop):
            step = job.outer * INNER + inner
            if step in left:
                left.remove(step)
                queue.mark_lost(step - 1, f"{(step - 1) // INNER}.{(step - 1) % INNER}")
                break
            if not queue.put(number, inner, f"{job.outer}.{inner}"):
                break


def _consume(queue: SnapshotQueue[str], num_workers: int, steps: range) -> list[list[str | None]]:
    got: list[list[str | None]] = [[] for _ in range(num_workers)]

    def work(rank: int) -> None:
        queue.begin(rank, num_workers, steps.start, None)
        for step in steps:
            got[rank].append(queue.get(rank, step, 10))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(num_workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return got
