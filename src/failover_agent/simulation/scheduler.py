"""Virtual time: one heap of moments, one seed, and coroutines that wait for nothing real.

Nothing here knows what is simulated. The same seed throws the same dice in the same order; every
part of the world has dice of its own, so that a change in one part leaves the others' luck alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Coroutine, Generator
from random import Random
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Call = Callable[[], None]

MOST_MOMENTS_PER_SECOND = 5_000
"""More than this within one virtual second is a world that runs in a circle."""


class RunsInCircles(AssertionError):  # noqa: N818 - it reads as a sentence in a story
    """Virtual time no longer passes: somebody keeps waking for a moment that is already over."""


class Timer:
    """One planned call. `cancel` is enough; the heap forgets it when its moment comes."""

    __slots__ = ("at_s", "call")

    def __init__(self, at_s: float, call: Call) -> None:
        """Made by `Scheduler.at` alone."""
        self.at_s = at_s
        self.call: Call | None = call

    def cancel(self) -> None:
        """Never make the call. Without effect once it was made."""
        self.call = None


class Signal(Generic[T]):
    """A value that comes once; a coroutine may `await` it, a function may ask to be called."""

    __slots__ = ("_calls", "_value", "fired")

    def __init__(self) -> None:
        """Not fired yet."""
        self.fired = False
        self._value: T | None = None
        self._calls: list[Call] = []

    def fire(self, value: T) -> None:
        """Wake all who wait. A second value is dropped."""
        if self.fired:
            return
        self.fired = True
        self._value = value
        calls, self._calls = self._calls, []
        for call in calls:
            call()

    def then(self, call: Call) -> None:
        """Call when fired; at once if it already is."""
        if self.fired:
            call()
        else:
            self._calls.append(call)

    def __await__(self) -> Generator[Signal[Any], None, T]:
        """Wait for the value."""
        if not self.fired:
            yield self
        return self._value  # type: ignore[return-value] # fired: it is a T


def either(*signals: Signal[Any]) -> Signal[None]:
    """Fires with the first of `signals`; ask them which."""
    first: Signal[None] = Signal()
    for signal in signals:
        signal.then(lambda: first.fire(None))
    return first


Enter = Callable[[Call], None]
"""How a coroutine gets back to work: at once, later (frozen), or never (dead)."""


class Task:
    """A coroutine on its way through virtual time. `enter` guards each of its steps."""

    def __init__(self, coroutine: Coroutine[Signal[Any], None, None], enter: Enter) -> None:
        """Runs until the first wait at once."""
        self._coroutine = coroutine
        self._enter = enter
        self.has_begun = False
        self.ended: Signal[None] = Signal()
        enter(self._advance)

    def cancel(self) -> None:
        """End it where it waits."""
        if not self.ended.fired:
            self._coroutine.close()
            self.ended.fire(None)

    def _advance(self) -> None:
        if self.ended.fired:
            return
        self.has_begun = True
        try:
            waits_for = self._coroutine.send(None)
        except StopIteration:
            self.ended.fire(None)
        else:
            waits_for.then(lambda: self._enter(self._advance))


class Scheduler:
    """The clock on the wall of the simulated world; nobody in it can read this clock."""

    def __init__(self, seed: int | str) -> None:
        """Time begins at 0 seconds."""
        self.seed = seed
        self.now_s = 0.0
        self._heap: list[tuple[float, int, Timer]] = []
        self._planned = 0
        self._second = 0
        self._moments_in_second = 0

    def dice(self, name: str) -> Random:
        """Dice of their own for one part of the world."""
        return Random(f"{self.seed}/{name}")

    def at(self, moment_s: float, call: Call) -> Timer:
        """Make `call` at `moment_s`, or now if that is past. Equal moments keep their order."""
        timer = Timer(max(moment_s, self.now_s), call)
        self._planned += 1
        heapq.heappush(self._heap, (timer.at_s, self._planned, timer))
        return timer

    def after(self, seconds: float, call: Call) -> Timer:
        """Make `call` in `seconds`."""
        return self.at(self.now_s + seconds, call)

    def sleep(self, seconds: float) -> Signal[None]:
        """Fires in `seconds`."""
        signal: Signal[None] = Signal()
        self.after(seconds, lambda: signal.fire(None))
        return signal

    def run_until(self, moment_s: float) -> None:
        """Let time pass. Stands at `moment_s` afterwards."""
        while self._heap and self._heap[0][0] <= moment_s:
            at_s, _, timer = heapq.heappop(self._heap)
            if timer.call is None:
                continue
            self.now_s = at_s
            self._count()
            call, timer.call = timer.call, None
            call()
        self.now_s = moment_s

    def _count(self) -> None:
        if int(self.now_s) != self._second:
            self._second, self._moments_in_second = int(self.now_s), 0
        self._moments_in_second += 1
        if self._moments_in_second > MOST_MOMENTS_PER_SECOND:
            raise RunsInCircles(f"time stands still at {self.now_s:.6f} s")
