"""The conveyor: every worker gets every network, whoever dies, and nobody runs too far ahead."""

import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dream_ray.engine.trajectories.conveyor import Conveyor, Job
from dream_ray.errors import RunError

OUTER, INNER = 3, 4


def conveyor(window: int = 100) -> Conveyor[str]:
    return Conveyor(outer_steps=OUTER, inner_steps=INNER, window=window)


def make(belt: Conveyor[str], producer: int, count: int) -> int:
    """Lets a producer make up to `count` networks; returns how many it made."""
    made = 0
    while made < count:
        job = belt.next_job(producer)
        if job is None:
            return made
        for inner in range(job.first, job.stop):
            made += 1
            if not belt.put(producer, inner, f"{job.outer}.{inner}") or made == count:
                break
    return made


def fetched(belt: Conveyor[str], rank: int, steps: range) -> list[str | None]:
    return [belt.get(rank, step, 0) for step in steps]


def names(steps: range) -> list[str]:
    return [f"{step // INNER}.{step % INNER}" for step in steps]


def test_jobs_are_whole_trajectories_in_order() -> None:
    belt = conveyor()
    belt.begin(0, 1, 0, None)
    jobs = [belt.next_job(producer) for producer in range(OUTER)]
    assert jobs == [Job(outer, 0, None, 0, INNER) for outer in range(OUTER)]


def test_nothing_is_made_before_a_worker_says_where_it_starts() -> None:
    belt = conveyor()
    jobs: list[Job | None] = []
    waiting = threading.Thread(target=lambda: jobs.append(belt.next_job(0)))
    waiting.start()
    assert waiting.is_alive()
    belt.begin(0, 1, 2 * INNER, None)
    waiting.join(timeout=10)
    assert jobs == [Job(2, 0, None, 0, INNER)]


@pytest.mark.parametrize("survivor", [0, 1, 2])
def test_a_smaller_group_goes_on_whoever_survives_for_a_while(survivor: int) -> None:
    """What a worker still asks for that will be ended holds nobody up."""
    belt = conveyor(window=INNER)
    for rank in range(3):
        belt.begin(rank, 3, 0, None)
    make(belt, 0, INNER)
    belt.lose_group()
    assert belt.is_group_lost()
    assert fetched(belt, survivor, range(INNER)) == names(range(INNER))
    assert belt.is_group_lost(), "it is of the group that is lost"
    for rank in range(2):
        belt.begin(rank, 2, 2, None, group=1)
    assert not belt.is_group_lost()
    with ThreadPoolExecutor(3) as pool:
        making = pool.submit(make, belt, 1, OUTER * INNER)
        steps = range(2, OUTER * INNER)
        got = [pool.submit(lambda rank=rank: [belt.get(rank, step, 30) for step in steps]) for rank in range(2)]
        assert [one.result() for one in got] == [names(steps)] * 2
        belt.close()
        making.result()


def test_no_group_is_lost_before_one_has_begun() -> None:
    belt = conveyor()
    belt.lose_group()
    assert not belt.is_group_lost()


def test_a_resumed_run_trains_on_from_the_network_of_its_checkpoint() -> None:
    belt, state = conveyor(), {"network.weight": None}
    belt.begin(0, 1, INNER + 2, state)  # type: ignore[arg-type]
    assert belt.next_job(0) == Job(1, 2, state, 2, INNER)  # type: ignore[arg-type]
    assert belt.next_job(1) == Job(2, 0, None, 0, INNER)


def test_without_the_network_it_is_trained_from_the_start_of_its_trajectory() -> None:
    belt = conveyor()
    belt.begin(0, 1, INNER + 2, None)
    assert belt.next_job(0) == Job(1, 0, None, 2, INNER)


def test_a_network_is_kept_until_every_worker_is_past_it() -> None:
    belt = conveyor()
    for rank in range(2):
        belt.begin(rank, 2, 0, None)
    make(belt, 0, INNER)
    assert fetched(belt, 0, range(4)) == names(range(4))
    assert fetched(belt, 1, range(4)) == names(range(4))
    assert belt.get(0, 4, 0) is None
    assert belt.get(1, 3, 0) == "0.3", "worker 1 has not asked for a later one"


def test_a_look_at_a_later_network_moves_nobody() -> None:
    belt = conveyor()
    with pytest.raises(KeyError, match="worker 0 never began"):
        belt.peek(0, 0, 0)
    belt.begin(0, 1, 0, None)
    make(belt, 0, 3)
    assert belt.peek(0, 2, 0) == "0.2"
    assert belt.peek(0, 3, 0) is None
    assert fetched(belt, 0, range(3)) == names(range(3)), "the earlier ones are still there"


def test_a_producer_waits_for_the_slowest_worker() -> None:
    belt = conveyor(window=2)
    for rank in range(2):
        belt.begin(rank, 2, 0, None)
    made: list[int] = []
    producing = threading.Thread(target=lambda: made.append(make(belt, 0, INNER)))
    producing.start()
    assert belt.get(0, 1, 10) == "0.1"
    assert belt.get(0, 2, 0.05) is None
    assert belt.get(1, 1, 10) == "0.1"
    assert belt.get(0, 2, 10) == "0.2"
    belt.close()
    producing.join(10)
    assert not producing.is_alive()


def test_a_dead_producer_costs_one_training_of_each_of_its_trajectories() -> None:
    """What it had handed over is gone with it; what another made is not."""
    belt = conveyor()
    belt.begin(0, 1, 0, None)
    make(belt, 0, INNER)
    make(belt, 1, INNER)
    make(belt, 0, 2)
    assert belt.get(0, 1, 0) == "0.1"
    belt.abandon(0)
    assert [belt.next_job(number) for number in (2, 3)] == [Job(0, 0, None, 1, INNER), Job(2, 0, None, 0, INNER)]
    assert fetched(belt, 0, range(INNER, 2 * INNER)) == names(range(INNER, 2 * INNER))


def test_what_a_dead_producer_left_is_trained_on_from_a_checkpoint() -> None:
    belt, state = conveyor(), {"network.weight": None}
    belt.begin(0, 1, INNER + 1, state)  # type: ignore[arg-type]
    make(belt, 0, 2)
    belt.abandon(0)
    assert belt.next_job(1) == Job(1, 1, state, 1, INNER)  # type: ignore[arg-type]


def test_the_calls_of_a_dead_producer_take_nothing_and_put_nothing_in() -> None:
    """Ray goes on with them: they wait in the conveyor while the process is gone."""
    belt = conveyor(window=1)
    belt.begin(0, 1, 0, None)
    for number in range(OUTER):
        belt.next_job(number)
    with ThreadPoolExecutor(2) as pool:
        putting, asking = pool.submit(belt.put, 1, 0, "of a dead one"), pool.submit(belt.next_job, OUTER)
        belt.abandon(1)
        belt.abandon(OUTER)
        assert putting.result(10) is False
        assert asking.result(10) is None
    assert belt.next_job(OUTER + 1) == Job(1, 0, None, 0, INNER)
    assert belt.get(0, INNER, 0) is None


def test_what_a_restarted_producer_had_left_comes_back_to_it() -> None:
    belt = conveyor()
    belt.begin(0, 1, 0, None)
    make(belt, 0, 3)
    assert belt.next_job(0) == Job(0, 0, None, 3, INNER)


def test_a_lost_network_is_made_again_with_those_that_are_lost_like_it() -> None:
    belt = conveyor()
    belt.begin(0, 1, 0, None)
    make(belt, 0, 2 * INNER)
    for _ in range(2):
        belt.lose(INNER + 1, "1.1")
    assert belt.next_job(1) == Job(1, 0, None, 1, INNER)
    assert fetched(belt, 0, range(INNER + 1)) == names(range(INNER + 1))


def test_a_network_that_was_made_again_is_not_lost_with_the_one_before() -> None:
    """Who waits for an object of a lost node learns late that it is gone."""
    belt = conveyor()
    belt.begin(0, 1, 0, None)
    make(belt, 0, 1)
    belt.abandon(0)
    belt.next_job(1)
    belt.put(1, 0, "0.0 again")
    belt.lose(0, "0.0")
    assert belt.get(0, 0, 0) == "0.0 again"


def test_what_another_producer_made_is_not_lost() -> None:
    belt = conveyor()
    belt.begin(0, 1, 0, None)
    make(belt, 0, 2)
    belt.lose(1, "0.1")
    make(belt, 1, 1)
    belt.put(0, 2, "0.2")
    belt.lose(0, "0.0")
    assert belt.peek(0, 1, 0) == "0.1"
    assert [belt.next_job(number) for number in (2, 3)] == [Job(0, 0, None, 0, 1), Job(0, 0, None, 2, 3)]


def test_a_group_that_starts_again_gets_what_was_dropped() -> None:
    belt = conveyor()
    belt.begin(0, 1, 0, None)
    make(belt, 0, OUTER * INNER)
    fetched(belt, 0, range(2 * INNER + 2))
    belt.begin(0, 1, INNER + 1, None)
    assert [belt.next_job(number) for number in (1, 2)] == [Job(1, 0, None, 1, INNER), Job(2, 0, None, 0, 1)]


def test_a_worker_that_saw_an_older_checkpoint_gets_what_it_needs() -> None:
    belt = conveyor()
    belt.begin(0, 2, INNER + 2, None)
    make(belt, 0, 2)
    belt.begin(1, 2, INNER, None)
    assert belt.next_job(0) == Job(1, 0, None, 0, 2)


def test_a_producer_that_waits_for_the_workers_serves_them_first() -> None:
    """It is the only one, and they need something earlier than what it holds in its hands."""
    belt = conveyor(window=1)
    belt.begin(0, 1, 2, None)
    steps = range(2, OUTER * INNER)
    producing = threading.Thread(target=make, args=(belt, 0, 100))
    producing.start()
    assert belt.get(0, 2, 10) == "0.2"
    assert belt.get(0, 3, 10) == "0.3"
    belt.begin(0, 1, 2, None)
    assert [belt.get(0, step, 10) for step in steps] == names(steps)
    belt.close()
    producing.join(10)
    assert not producing.is_alive()


def test_producers_begin_the_next_trajectories_before_there_is_room_for_them() -> None:
    """The warm-up of a network may take as long as many matches."""
    belt = conveyor(window=1)
    belt.begin(0, 1, 0, None)
    assert [belt.next_job(number) for number in range(3)] == [Job(outer, 0, None, 0, INNER) for outer in range(3)]


def test_only_as_many_producers_as_are_needed_leave_what_they_hold() -> None:
    belt = conveyor(window=1)
    belt.begin(0, 1, 0, None)
    for number in range(3):
        belt.next_job(number)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(belt.put, number, 0, f"{number}.0") for number in (1, 2)]
        belt.abandon(0)  # it had the first trajectory
        left, _ = wait(waiting, timeout=10, return_when=FIRST_COMPLETED)
        assert [put.result() for put in left] == [False]
        number = 1 + waiting.index(left.pop())
        job = belt.next_job(number)
        assert job is not None and job.outer == 0
        assert [put.done() for put in waiting].count(True) == 1
        belt.close()


def test_close_ends_all_waiting() -> None:
    belt = conveyor(window=1)
    belt.begin(0, 1, OUTER * INNER, None)
    with ThreadPoolExecutor(2) as pool:
        producer, worker = pool.submit(belt.next_job, 0), pool.submit(belt.get, 0, 99, 60)
        belt.close()
        assert producer.result(10) is None
        with pytest.raises(RunError, match="the run has ended"):
            worker.result(10)


def test_a_worker_learns_why_the_producers_cannot_go_on() -> None:
    belt = conveyor()
    belt.begin(0, 1, 0, None)
    belt.close("the store is gone")
    with pytest.raises(RunError, match="the store is gone"):
        belt.get(0, 0, 60)


def test_a_new_conveyor_does_not_know_the_workers_of_the_old_one() -> None:
    belt = conveyor()
    with pytest.raises(KeyError):
        belt.get(0, 0, 0)
    assert not belt.put(0, 0, "of a job that it never gave")


def test_a_new_conveyor_makes_what_the_slower_worker_needs() -> None:
    """The faster worker, which asks first, does not speak for networks before its own."""
    belt = conveyor()
    belt.begin(0, 2, INNER + 2, None)
    with pytest.raises(KeyError):
        belt.get(1, INNER, 0)
    with pytest.raises(KeyError):
        belt.peek(1, INNER + 1, 0)
    belt.begin(1, 2, INNER, None)
    make(belt, 0, 2 * INNER)
    assert fetched(belt, 1, range(INNER, 2 * INNER)) == names(range(INNER, 2 * INNER))
    assert fetched(belt, 0, range(INNER + 2, 2 * INNER)) == names(range(INNER + 2, 2 * INNER))


@settings(max_examples=60)
@given(
    window=st.integers(1, 2 * INNER),
    num_workers=st.integers(1, 3),
    num_producers=st.integers(1, 3),
    deaths=st.lists(st.tuples(st.integers(0, 2), st.integers(1, OUTER * INNER - 1)), max_size=3),
    restart=st.none() | st.tuples(st.integers(0, OUTER * INNER - 1), st.integers(0, OUTER * INNER - 1)),
)
def test_every_worker_gets_every_network(
    window: int,
    num_workers: int,
    num_producers: int,
    deaths: list[tuple[int, int]],
    restart: tuple[int, int] | None,
) -> None:
    """Producers die at any moment, networks are lost, the group goes back to an earlier step: no order, no gap."""
    belt = conveyor(window)
    producers = [
        threading.Thread(target=_produce, args=(belt, number, [step for who, step in deaths if who == number]))
        for number in range(num_producers)
    ]
    for thread in producers:
        thread.start()
    try:
        stop, back = (OUTER * INNER, None) if restart is None else (max(restart), min(restart))
        assert _consume(belt, num_workers, range(stop)) == [names(range(stop))] * num_workers
        if back is not None:
            steps = range(back, OUTER * INNER)
            assert _consume(belt, num_workers, steps) == [names(steps)] * num_workers
    finally:
        belt.close()
        for thread in producers:
            thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in producers)


def _produce(belt: Conveyor[str], number: int, deaths: list[int]) -> None:
    """Makes networks; at some steps it dies with one in its hands and starts again."""
    left = set(deaths)
    while (job := belt.next_job(number)) is not None:
        for inner in range(job.first, job.stop):
            step = job.outer * INNER + inner
            if step in left:
                left.remove(step)
                belt.lose(step - 1, f"{(step - 1) // INNER}.{(step - 1) % INNER}")
                break
            if not belt.put(number, inner, f"{job.outer}.{inner}"):
                break


def _consume(belt: Conveyor[str], num_workers: int, steps: range) -> list[list[str | None]]:
    got: list[list[str | None]] = [[] for _ in range(num_workers)]

    def work(rank: int) -> None:
        belt.begin(rank, num_workers, steps.start, None)
        for step in steps:
            got[rank].append(belt.get(rank, step, 10))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(num_workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return got
