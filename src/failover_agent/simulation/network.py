"""The wires between hosts: each direction on its own, lossy, slow, out of order, or cut.

`carry` moves anything one way. `Exchange` is a request with its answer and the sender's deadline,
as HTTP gives it: answered once, or failed once; what comes later is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from failover_agent.simulation.scheduler import Call, Scheduler

if TYPE_CHECKING:
    from failover_agent.simulation.node import Agent

QUICK_S = (0.0005, 0.01)
"""One way over a healthy local network, in seconds."""

REMEMBERED = 0.2
"""The share of what met a cut wire and is sent again (by TCP) when the wire is whole."""

A = TypeVar("A")


@dataclass(slots=True)
class Link:
    """One direction of one wire. `is_warm`: a connection waits to be asked over."""

    is_cut: bool = False
    loss: float = 0.0
    doubled: float = 0.0
    delay_s: tuple[float, float] = QUICK_S
    waiting: list[Call] = field(default_factory=list)
    is_warm: bool = False

    @property
    def is_clean(self) -> bool:
        """Does everything arrive, once and quickly?"""
        return not self.is_cut and not self.loss and self.delay_s == QUICK_S


def cable(host: str, number: int) -> str:
    """Where `host` is reached over its cable of that number: 0 is its place on the network.

    So `Network.link(one, cable(other, 1))` is the way from one to the other over the second cable.
    """
    return host if number == 0 else f"{host}#{number}"


class Network:
    """Links by (source host, target host); what is not named is clean."""

    def __init__(self, scheduler: Scheduler) -> None:
        """All links clean."""
        self._scheduler = scheduler
        self._dice = scheduler.dice("network")
        self._links: dict[tuple[str, str], Link] = {}
        self.wants_handshakes = False

    def link(self, source: str, target: str) -> Link:
        """The wire from `source` to `target`; change it to break it."""
        return self._links.setdefault((source, target), Link())

    def mend(self, source: str, target: str) -> None:
        """Clean again. Some of what met the cut arrives now."""
        link = self.link(source, target)
        waiting, link.waiting = link.waiting, []
        link.is_cut, link.loss, link.doubled, link.delay_s = False, 0.0, 0.0, QUICK_S
        for arrive in waiting:
            if self._dice.random() < REMEMBERED:
                self._scheduler.after(self._dice.uniform(*QUICK_S), arrive)

    def carry(self, source: str, target: str, arrive: Call) -> None:
        """Call `arrive` when it has got there: once, twice, or never."""
        link = self.link(source, target)
        if link.is_cut:
            link.waiting.append(arrive)
            return
        if link.loss and self._dice.random() < link.loss:
            return
        self._scheduler.after(self._dice.uniform(*link.delay_s), arrive)
        if link.doubled and self._dice.random() < link.doubled:
            self._scheduler.after(self._dice.uniform(*link.delay_s), arrive)

    def ask(self, source: str, target: str, back: tuple[str, str], arrive: Call) -> None:
        """`carry`, for a question whose answer comes over the link `back`.

        With `wants_handshakes` (TCP) a question needs a connection: one that stands and waits for
        no answer, or the way back as well. So a wire that is cut one way falls silent in the other
        way too, after one question.
        """
        way, way_back = self.link(source, target), self.link(*back)
        was_warm, way.is_warm = way.is_warm, False
        if self.wants_handshakes and way_back.is_cut and not was_warm:
            way_back.waiting.append(lambda: self.carry(source, target, arrive))
        else:
            self.carry(source, target, arrive)


class Exchange(Generic[A]):
    """One request of `sender`. Exactly one of `answered` and `failed` is called, unless it dies."""

    __slots__ = ("_answered", "_failed", "_is_over", "sender", "sent_at_s", "sent_from")

    def __init__(
        self,
        sender: Agent,
        deadline_s: float,
        answered: Callable[[A], None],
        failed: Callable[[str], None],
        over: int = 0,
    ) -> None:
        """`deadline_s` runs on the sender's own clock. The answer comes back as the question went:
        over the cable of that number.
        """
        self.sender = sender
        self.sent_from = cable(sender.host.name, over)
        self._answered = answered
        self._failed = failed
        self._is_over = False
        self.sent_at_s = sender.world.scheduler.now_s
        sender.after(
            deadline_s, lambda: self._end(lambda: failed(f"no answer in {deadline_s:g} s"))
        )

    def answer(self, answer: A) -> None:
        """The answer has arrived at the sender's host."""
        self.sender.call(lambda: self._end(lambda: self._answered(answer)))

    def refuse(self, error: str) -> None:
        """The connection was refused, or the request was."""
        self.sender.call(lambda: self._end(lambda: self._failed(error)))

    def _end(self, call: Call) -> None:
        if not self._is_over:
            self._is_over = True
            call()
