"""The third machine: a witness, with a clock, a disk and a process of its own.

It runs the shipped `ballot` with the contract of witness.py: decide, save, then answer; what needs
no save waits for none; and two living nodes of one role are told apart before it decides (V9).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from failover_agent.core.messages import Request, Sender
from failover_agent.core.policy import Role
from failover_agent.core.state import Durable
from failover_agent.simulation.facts import Said
from failover_agent.simulation.machine import Machine
from failover_agent.simulation.network import Exchange
from failover_agent.simulation.scheduler import Call, Signal, Task

if TYPE_CHECKING:
    from failover_agent.simulation.machines import Machines

TRIES = 3
"""So often it decides anew when others were answered while it saved."""


@dataclass(slots=True)
class Note:
    """What is on the disk of the witness."""

    node_id: str
    durable: Durable


class Witness(Machine):
    """A machine without an engine. `timeout_s`: the longest T that it knows without a record."""

    def __init__(self, world: Machines, name: str, timeout_s: float, clock_drift: float) -> None:
        """Off, with an empty disk."""
        super().__init__(world, name, clock_drift)
        self.timeout_s = timeout_s
        self.record: Note | None = None
        self.run: Run | None = None

    def power_on(self) -> None:
        """Boot. The process is started by itself."""
        self.begin_clock()

    def power_off(self) -> None:
        """Crash: the disk stays."""
        self.kill()
        self.is_on = False

    def start(self) -> None:
        """What a supervisor does."""
        assert self.is_on, f"{self.name} is off"
        assert self.run is None, f"{self.name} runs"
        self.run = Run(self)

    def kill(self) -> None:
        """SIGKILL."""
        if self.run is not None:
            self.run.die()
            self.run = None

    def receive(self, request: Request, exchange: Exchange[Any]) -> None:
        """A request has come to its network card."""
        back = exchange.sent_from
        if not self.is_on:
            return
        if self.run is None or self.run.started_at_s > exchange.sent_at_s:
            error = "connection refused" if self.run is None else "409: another run answers here"
            self.world.network.carry(self.name, back, lambda: exchange.refuse(error))
            return
        run = self.run
        run.call(lambda: run.receive(request, exchange))

    def write(self, durable: Durable) -> bool:
        """Write the record; False when that failed. It may be on the disk all the same."""
        assert self.record is not None
        if self.record_fails and self.dice.random() < 0.7:
            return False
        self.record = Note(self.record.node_id, durable)
        return not self.record_fails


class Run:
    """One run of the process: dies with SIGKILL or with its machine."""

    def __init__(self, machine: Witness) -> None:
        """Reads the record, or makes one (V4)."""
        self._machine = machine
        self._world = machine.world
        self._core = machine.world.core
        self._dice = self._world.scheduler.dice(f"witness run {self._world.next_run()}")
        self.started_at_s = self._world.now_s
        self.is_dead = False
        self.is_frozen = False
        self.crash_at_save = ""
        was_lost = machine.record is None
        if machine.record is None:
            machine.record = Note(f"{machine.name}-{self._world.next_node()}", Durable())
        self.me = Sender(
            Role.WITNESS, machine.record.node_id, f"run-{self._world.next_run()}", fingerprint=""
        )
        self._voter = self._core.voter.begin(
            machine.record.durable, machine.clock(), timeout_s=machine.timeout_s, forgot=was_lost
        )
        self._doubtful: Durable | None = None
        self._saving: Signal[None] | None = None
        self._backlog: deque[Call] = deque()
        self._seats: dict[Role, tuple[str, float]] = {}
        self._world.tell(machine.name, f"the witness starts as {self.me.node_id}")

    # --- the process ------------------------------------------------------------------------------

    def call(self, call: Call) -> None:
        """Let the process do something: now, when it is thawed, or never."""
        if self.is_dead:
            return
        if self.is_frozen:
            self._backlog.append(call)
        else:
            call()

    def thaw(self) -> None:
        """SIGCONT: everything that came meanwhile is there at once, in order."""
        self.is_frozen = False
        while self._backlog and not self.is_frozen and not self.is_dead:
            self._backlog.popleft()()

    def die(self) -> None:
        """The process is gone."""
        self.is_dead = True
        self._backlog.clear()

    # --- what witness.py does ---------------------------------------------------------------------

    def receive(self, request: Request, exchange: Exchange[Any]) -> None:
        """Refuse a second node of one role while the first lives (V9), else decide."""
        sender, now = request.sender, self._machine.clock()
        known, heard_at_s = self._seats.get(sender.role, (sender.node_id, now))
        if known != sender.node_id and now - heard_at_s < self._machine.timeout_s:
            error = f"409: {known} is the {sender.role}"
            self._carry(exchange, lambda: exchange.refuse(error))
            return
        self._seats[sender.role] = (sender.node_id, now)
        Task(self._answer(request, exchange), self.call)

    async def _answer(self, request: Request, exchange: Exchange[Any]) -> None:
        """A word on what is saved already waits for nobody's save."""
        after, answer = self._decide(request)
        if not self._core.ballot.needs_save(self._voter, after, self._doubtful):
            self._voter = after
            self._reply(answer, exchange)
            return
        while self._saving is not None:
            await self._saving
        self._saving = Signal()
        try:
            await self._save_and_answer(request, exchange)
        finally:
            done, self._saving = self._saving, None
            done.fire(None)

    async def _save_and_answer(self, request: Request, exchange: Exchange[Any]) -> None:
        """Decided once more after the save, because others were answered meanwhile."""
        for _ in range(TRIES):
            after, answer = self._decide(request)
            if not self._core.ballot.needs_save(self._voter, after, self._doubtful):
                self._voter = after
                self._reply(answer, exchange)
                return
            self._doubtful = saved = after.durable
            if not await self._save(saved):
                return  # No answer: the asker tries again.
            after, answer = self._decide(request)
            if after.durable == saved:
                self._doubtful = None
                self._voter = after
                self._reply(answer, exchange)
                return

    def _decide(self, request: Request) -> tuple[Any, Any]:
        decided: tuple[Any, Any] = self._core.ballot.decide(
            self._voter, request, self._machine.clock(), self.me
        )
        return decided

    async def _save(self, durable: Durable) -> bool:
        if self._crashes("before"):
            return False
        await self._world.scheduler.sleep(self._dice.uniform(*self._machine.save_s))
        is_written = self._machine.write(durable)
        return not self._crashes("after") and is_written

    def _crashes(self, where: str) -> bool:
        if self.crash_at_save == where:
            self._world.kill_witness(f"right {where} a save")
        return self.is_dead

    def _reply(self, answer: Any, exchange: Exchange[Any]) -> None:
        self._world.chronicle.happened(Said(self._machine.name, answer))
        self._carry(exchange, lambda: exchange.answer(answer))

    def _carry(self, exchange: Exchange[Any], call: Call) -> None:
        self._world.network.carry(self._machine.name, exchange.sent_from, call)
