"""adapters/worker.py: what is told of a job that a busy or hung disk keeps from its end."""

import threading

import pytest

from failover_agent.adapters.worker import Worker


async def test_a_job_that_is_not_begun_in_time_is_never_done_and_says_so() -> None:
    worker, gate, done = Worker("test", limit=4), threading.Event(), threading.Event()

    def hang() -> None:
        gate.wait(10)

    worker.offer(hang)
    with pytest.raises(TimeoutError, match=r"^not begun within 0.01 s$"):
        await worker.run(done.set, deadline_s=0.01)
    gate.set()
    assert await worker.run(lambda: "the next one", deadline_s=10) == "the next one"
    assert not done.is_set()


async def test_a_job_that_is_not_done_in_time_holds_up_the_next_ones() -> None:
    worker, gate, begun = Worker("test", limit=4), threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        gate.wait(10)

    worker.offer(lambda: None)
    with pytest.raises(TimeoutError, match=r"^not (done|begun) within 0.05 s$"):
        await worker.run(hang, deadline_s=0.05)
    if begun.is_set():
        with pytest.raises(TimeoutError, match="has not come to its end yet"):
            await worker.run(lambda: None, deadline_s=10)
    gate.set()


async def test_a_timeout_of_the_jobs_own_stays_what_it_was() -> None:
    def network() -> None:
        raise TimeoutError("the network under the disk")

    with pytest.raises(TimeoutError, match="the network under the disk"):
        await Worker("test", limit=4).run(network, deadline_s=10)
