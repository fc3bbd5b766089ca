"""The agent's end of the line to its guard: what is armed, until when, and which processes.

Nothing here waits for the guard but the answer to ArmGuard: one that stands still must not hold up
the agent. What the line does not take at once is sent when it does, and of several deadlines only
the newest.
"""

import asyncio
import contextlib
import math
import os
import socket
import sys
from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path
from typing import NoReturn, assert_never

from failover_agent.core.effects import ArmGuard, DisarmGuard, MoveDeadline
from failover_agent.core.events import Event, GuardArmed, GuardFailed
from failover_agent.guard import lifeline
from failover_agent.guard.engine import NO_FILES, TlsFiles
from failover_agent.guard.lifeline import Arm, Armed, Disarm, Hello, Message, Move, Seen, Welcome

NO_LEASE_S = -math.inf
NO_GUARD = "no guard watches over this agent: start it as `failover-agent run`"


class Line:
    """What the guard gave us at our start. `lease_until_s`, `was_enforced`: as in `Welcome`.

    Without a guard (`python -m failover_agent.run`) there is no socket, and no lease.
    """

    def __init__(self, line: socket.socket | None) -> None:
        self.socket = line
        self.lease_until_s = NO_LEASE_S
        self.was_enforced = False
        if line is not None:
            line.setblocking(False)
            line.set_inheritable(False)
            # It was written before we were started.
            with contextlib.suppress(OSError, lifeline.GarbledError):
                welcome = lifeline.decode(line.recv(lifeline.LONGEST))
                if isinstance(welcome, Welcome):
                    self.lease_until_s = welcome.lease_until_s
                    self.was_enforced = welcome.was_enforced

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> "Line":
        """Our end, and out of the environment: nobody whom we start shall find it there."""
        number = environ.pop(lifeline.VARIABLE, "")
        return cls(socket.socket(fileno=int(number)) if number.isdecimal() else None)


class Lifeline:
    """Speaks for the agent. `run()` has to be a task for as long as the agent lives.

    `post` takes GuardArmed or GuardFailed, one for each ArmGuard, at the latest after `patience_s`.
    `on_guard_lost` is called once, when the guard has gone.
    """

    def __init__(
        self,
        line: Line,
        hello: Hello | None,
        *,
        post: Callable[[Event], None],
        patience_s: float,
        on_guard_lost: Callable[[], None],
    ) -> None:
        """`hello` is None where there can be no lease: then the line only tells of its end."""
        self._socket = line.socket
        self._post = post
        self._patience_s = patience_s
        self._on_guard_lost = on_guard_lost
        self._seen: dict[str, Seen] = {}
        self._unsent: dict[object, bytes] = {}
        self._arming: dict[int, asyncio.Future[str]] = {}
        self._hello = hello

    async def run(self) -> None:
        """Listens until the guard has gone; returns at once where there never was one.

        Says hello first: before anything else that is sent, if this is started before.
        """
        if self._socket is None:
            return
        if self._hello is not None:
            self._send(self._hello)
        loop = asyncio.get_running_loop()
        try:
            while datagram := await self._receive(loop, self._socket):
                with contextlib.suppress(lifeline.GarbledError):
                    self._hear(lifeline.decode(datagram))
        finally:
            loop.remove_writer(self._socket)
        self._on_guard_lost()

    async def perform(self, effect: ArmGuard | MoveDeadline | DisarmGuard) -> None:
        """Never raises for a bad world; waits for nothing but the answer to ArmGuard."""
        match effect:
            case ArmGuard():
                await self._arm(effect)
            case MoveDeadline():
                self._send(Move(effect.term, effect.valid_until_s), key=Move)
            case DisarmGuard():
                self._send(Disarm(effect.term))
            case _:
                assert_never(effect)

    def saw(self, name: str, container_id: str, pid: int, started: str) -> None:
        """A managed container, as it is now; `pid` 0: no process of it is known. Told when new."""
        seen = Seen(name, container_id, pid, started)
        if self._seen.get(name) != seen:
            self._seen[name] = seen
            self._send(seen, key=(Seen, name))

    async def _arm(self, effect: ArmGuard) -> None:
        if self._socket is None:
            self._post(GuardFailed(effect.term, NO_GUARD))
            return
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._arming[effect.term] = answer
        self._send(Arm(effect.term, effect.names, effect.valid_until_s))
        try:
            async with asyncio.timeout(self._patience_s):
                error = await answer
        except TimeoutError:
            error = f"the guard has not answered within {self._patience_s:g} s"
        finally:
            if self._arming.get(effect.term) is answer:
                del self._arming[effect.term]
        self._post(GuardFailed(effect.term, error) if error else GuardArmed(effect.term))

    def _hear(self, message: Message) -> None:
        if isinstance(message, Armed) and message.term in self._arming:
            answer = self._arming[message.term]
            if not answer.done():
                answer.set_result(message.error)

    # -- sending --------------------------------------------------------------------------------

    def _send(self, message: Message, *, key: object = None) -> None:
        """In order; what waits under the same `key` is left out for this."""
        if self._socket is None:
            return
        self._unsent.pop(key, None)
        self._unsent[key or message] = lifeline.encode(message)
        self._flush()

    def _flush(self) -> None:
        assert self._socket is not None, "there is nothing to send on"
        loop = asyncio.get_running_loop()
        try:
            while self._unsent:
                key, datagram = next(iter(self._unsent.items()))
                self._socket.send(datagram)
                del self._unsent[key]
        except BlockingIOError:
            loop.add_writer(self._socket, self._flush)
            return
        except OSError:
            self._unsent.clear()  # It has gone: run() is about to see that.
        loop.remove_writer(self._socket)

    @staticmethod
    async def _receive(loop: asyncio.AbstractEventLoop, line: socket.socket) -> bytes:
        """Empty when the guard has gone."""
        while True:
            try:
                return await loop.sock_recv(line, lifeline.LONGEST)
            except ConnectionResetError:
                continue  # It did not read all of ours; its end comes next.


def reexecute(arguments: Sequence[str]) -> NoReturn:
    """Become guard and agent, in place of an agent whose guard has died (G3).

    `arguments` are those of this agent, as of `failover-agent run`. The containers are not touched:
    the new guard finds the lease file of the old one.
    """
    command = [sys.executable, "-P", "-m", "failover_agent.cli.main", "run", *arguments]
    os.execv(sys.executable, command)  # noqa: S606 - no shell has to do with it


def hello(  # what the composition root knows
    *,
    lease_file: Path,
    docker_host: str,
    heartbeat_timeout_s: float,
    kill_budget_s: float,
    log_format: str,
    docker_files: TlsFiles = NO_FILES,
) -> Hello:
    """The first word to the guard."""
    return Hello(
        str(lease_file),
        docker_host,
        heartbeat_timeout_s,
        kill_budget_s,
        log_format,
        docker_files.ca_file,
        docker_files.cert_file,
        docker_files.key_file,
    )
