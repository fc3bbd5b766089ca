"""etcd in the place of a witness: one linearizable register, and how an agent speaks to it.

The store is what etcd promises and no more: a compare-and-set on mod_revision, which may be applied
though its answer is lost, and nothing at all without a quorum. `Client` stands in for the adapter:
it runs the shipped `register` around reads and writes that may be slow, lost or refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from failover_agent.core.messages import Request
from failover_agent.simulation.facts import Said
from failover_agent.simulation.network import Exchange
from failover_agent.simulation.scheduler import Call

if TYPE_CHECKING:
    from failover_agent.simulation.machines import Machines
    from failover_agent.simulation.node import Agent

MOST_MOVES = 8
"""Reads and writes for one order."""

QUICK_S = (0.001, 0.02)
"""How long a store that is well takes for one of them."""

SURVIVES = 0.5
"""The share of what waited for a quorum and is carried out when it is back."""


class Store:
    """All members of one etcd: a value with a revision, and no clock."""

    def __init__(self, world: Machines, name: str) -> None:
        """Empty, with a quorum."""
        self._world = world
        self.name = name
        self._core = world.core.register
        self._dice = world.scheduler.dice(f"store {name}")
        self._made = 0
        self.has_quorum = True
        self.takes_s = QUICK_S
        self._waiting: list[Call] = []
        self.forget()

    def forget(self) -> None:
        """Another etcd, empty: all was lost, and it was made anew."""
        self._made += 1
        self._now = self._core.Snapshot(store=f"store-{self._made}", revision=1)

    def ask(self, write: Any | None, answer: Callable[[tuple[bool, Any]], None]) -> None:
        """A read, or a transaction: carried out at one moment, answered at another."""

        def work() -> None:
            if not self.has_quorum:
                self._waiting.append(work)
                return
            is_put = False
            if write is not None:
                is_put, self._now = self._core.compare_and_set(self._now, write)
            shown = (is_put, self._now)
            late_s = self._dice.uniform(*self.takes_s)
            self._world.scheduler.after(late_s, lambda: answer(shown))

        self._world.scheduler.after(self._dice.uniform(*self.takes_s), work)

    def lose_quorum(self) -> None:
        """Nothing is carried out any more."""
        self.has_quorum = False

    def recover(self) -> None:
        """Well again; some of what waited is carried out now."""
        self.has_quorum = True
        self.takes_s = QUICK_S
        waiting, self._waiting = self._waiting, []
        for work in waiting:
            if self._dice.random() < SURVIVES:
                work()


class Client:
    """What one run of an agent knows of the register."""

    def __init__(self, agent: Agent, store: Store) -> None:
        """Knows nothing yet."""
        self._agent = agent
        self._store = store
        self._core = agent.world.core.register
        self._view: Any = None

    def ask(
        self,
        request: Request,
        deadline_s: float,
        answered: Callable[[float, Any], None],
        failed: Callable[[str], None],
    ) -> None:
        """`answered` is told when what was answered had left, by the clock of this host."""
        if self._view is None:
            self._view = self._core.View(self._core.speaker(request.sender))
        self._view = self._core.begun(self._view, request)
        self._agent.world.chronicle.happened(Said(self._agent.host.name, request))
        order = _Order(self, request, answered, failed)
        self._agent.after(deadline_s, lambda: order.fail("etcd does not answer in time"))
        order.go_on()

    # --- for its orders ---------------------------------------------------------------------------

    def next_move(self, request: Request, *, is_fresh: bool) -> Any:
        """What to do for an order."""
        now = self._agent.host.clock()
        return self._core.next_move(self._view, request, now, is_fresh=is_fresh)

    def is_a(self, move: Any, kind: str) -> bool:
        """`kind` is Read, Write or Overtaken of the register that runs."""
        return isinstance(move, getattr(self._core, kind))

    def now(self) -> float:
        """CLOCK_BOOTTIME of this host."""
        return self._agent.host.clock()

    def carry(self, write: Any | None, seen: Callable[[tuple[bool, Any]], None]) -> None:
        """To the store and back, over the wires of this host."""
        here, there = self._agent.host.name, self._store.name
        network, asked_at_s = self._agent.world.network, self._agent.host.clock()
        exchange: Exchange[tuple[bool, Any]] = Exchange(
            self._agent, 3600.0, lambda shown: self._see(shown, asked_at_s, seen), lambda _: None
        )

        def arrived() -> None:
            self._store.ask(
                write, lambda shown: network.carry(there, here, lambda: exchange.answer(shown))
            )

        network.carry(here, there, arrived)

    def _see(
        self,
        shown: tuple[bool, Any],
        asked_at_s: float,
        seen: Callable[[tuple[bool, Any]], None],
    ) -> None:
        self._view = self._core.saw(
            self._view, shown[1], asked_at_s=asked_at_s, now=self._agent.host.clock()
        )
        seen(shown)


class _Order:
    """One request, with all that is read and written for it."""

    def __init__(
        self,
        client: Client,
        request: Request,
        answered: Callable[[float, Any], None],
        failed: Callable[[str], None],
    ) -> None:
        self._client = client
        self._request = request
        self._answered = answered
        self._failed = failed
        self._sent_at_s = client.now()
        self._is_fresh = False
        self._moves = 0
        self._is_over = False

    def go_on(self) -> None:
        """The next move, until there is an answer."""
        if self._is_over:
            return
        move = self._client.next_move(self._request, is_fresh=self._is_fresh)
        self._moves += 1
        if self._moves > MOST_MOVES:
            self.fail("the key changes faster than it can be written")
        elif self._client.is_a(move, "Overtaken"):
            self.fail("a newer beat overtook this one")
        elif self._client.is_a(move, "Read"):
            self._carry(None)
        elif self._client.is_a(move, "Write"):
            self._carry(move)
        else:
            self._end(lambda: self._answered(self._sent_at_s, move))

    def fail(self, error: str) -> None:
        """It has no answer."""
        self._end(lambda: self._failed(error))

    def _carry(self, write: Any | None) -> None:
        left_at_s = self._client.now()

        def seen(shown: tuple[bool, Any]) -> None:
            self._sent_at_s, self._is_fresh = left_at_s, True
            if shown[0] and write is not None:
                self._end(lambda: self._answered(left_at_s, write.answer))
            else:
                self.go_on()

        self._client.carry(write, seen)

    def _end(self, call: Call) -> None:
        if not self._is_over:
            self._is_over = True
            call()
