"""Blocking work beside the loop: a disk or a terminal may hang, and the agent goes on."""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class Worker:
    """One thread that does jobs in the order in which they came.

    At most `limit` jobs wait. The thread is a daemon: one that hangs keeps no process from ending.
    """

    def __init__(self, name: str, *, limit: int) -> None:
        self._jobs: queue.Queue[Callable[[], None]] = queue.Queue(limit)
        self._overdue: Future[None] | None = None
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def offer(self, job: Callable[[], None]) -> bool:
        """Have `job` done some time; False when too many wait. From any thread; never blocks.

        A job has to deal with its own errors: one that raises ends the thread, loudly.
        """
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            return False
        return True

    async def run(self, job: Callable[[], T], *, deadline_s: float) -> T:
        """What `job` returns or raises; TimeoutError when it is not done in `deadline_s` seconds.

        What is overdue is not undone: it may still be finished later. Until then every further call
        fails at once, so that no job is overtaken by an older one.
        """
        if self._overdue is not None and not self._overdue.done():
            raise TimeoutError("the one before has not come to its end yet")
        future: Future[T] = Future()
        ended: Future[None] = Future()

        def answer() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(job())
                except Exception as error:  # noqa: BLE001 - carried over to whoever waits
                    future.set_exception(error)
            ended.set_result(None)

        if not self.offer(answer):
            raise TimeoutError("too much waits to be written")
        try:
            async with asyncio.timeout(deadline_s):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            if future.cancelled():  # It will not be begun any more.
                raise TimeoutError(f"not begun within {deadline_s:g} s") from None
            if future.done():
                raise  # The job's own: the network under a disk can time out too.
            self._overdue = ended
            raise TimeoutError(f"not done within {deadline_s:g} s") from None

    def drain(self, deadline_s: float) -> bool:
        """Block until all that was offered before is done; False when that takes too long.

        Only for the end of the process: it may block for twice `deadline_s` seconds.
        """
        done = threading.Event()
        try:
            self._jobs.put(done.set, timeout=deadline_s)
        except queue.Full:
            return False
        return done.wait(deadline_s)

    def _work(self) -> None:
        while True:
            self._jobs.get()()
