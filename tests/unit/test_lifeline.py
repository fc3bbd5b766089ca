"""adapters/lifeline.py on a real pair of sockets, whose other end the test holds."""

import asyncio
import math
import os
import select
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from failover_agent.adapters.lifeline import NO_GUARD, Lifeline, Line, hello
from failover_agent.core.effects import ArmGuard, DisarmGuard, MoveDeadline
from failover_agent.core.events import Event, GuardArmed, GuardFailed
from failover_agent.guard import lifeline
from failover_agent.guard.lifeline import Arm, Armed, Disarm, Message, Move, Seen, Welcome
from tests.lab.until import until_async

LIMIT_S = 20.0
ID = "a" * 64
HELLO = hello(
    lease_file=Path("/run/failover-agent/shop.lease"),
    docker_host="unix:///run/docker.sock",
    heartbeat_timeout_s=10.0,
    kill_budget_s=1.0,
    log_format="text",
)


class Other:
    """The guard's end, and what the agent made of it all."""

    def __init__(self, line: socket.socket) -> None:
        self.line = line
        self.line.setblocking(False)
        self.events: list[Event] = []
        self.is_lost = False

    def lose(self) -> None:
        assert not self.is_lost, "once is enough"
        self.is_lost = True

    def heard(self) -> list[Message]:
        messages: list[Message] = []
        while True:
            try:
                datagram = self.line.recv(lifeline.LONGEST)
            except BlockingIOError:
                return messages
            messages.append(lifeline.decode(datagram))

    def say(self, message: Message) -> None:
        self.line.send(lifeline.encode(message))

    async def sees(self, condition: Callable[[], object]) -> None:
        async def ask() -> object:
            return condition()

        await until_async(ask, LIMIT_S)


@asynccontextmanager
async def pair(patience_s: float = LIMIT_S) -> AsyncIterator[tuple[Lifeline, Other]]:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    other = Other(ours)
    other.say(Welcome(1234.5))
    line = Lifeline(
        Line(its), HELLO, post=other.events.append, patience_s=patience_s, on_guard_lost=other.lose
    )
    with ours, its:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(line.run())
            await other.sees(lambda: select.select([ours], [], [], 0)[0])
            assert other.heard() == [HELLO]
            yield line, other
            running.cancel()


def test_the_welcome_tells_of_the_lease_and_the_environment_forgets_the_line() -> None:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.send(lifeline.encode(Welcome(1234.5, was_enforced=True)))
    environ = {lifeline.VARIABLE: str(its.detach()), "PATH": "/bin"}
    line = Line.take(environ)

    assert environ == {"PATH": "/bin"}
    assert line.lease_until_s == 1234.5
    assert line.was_enforced
    assert line.socket is not None
    assert not os.get_inheritable(line.socket.fileno())
    line.socket.close()
    ours.close()


async def test_without_a_guard_there_is_no_lease_and_arming_fails() -> None:
    events: list[Event] = []
    line = Line.take({})
    lost: list[str] = []
    alone = Lifeline(
        line, HELLO, post=events.append, patience_s=1.0, on_guard_lost=lambda: lost.append("lost")
    )

    await alone.run()
    alone.saw("db", ID, 12, "345")
    await alone.perform(ArmGuard(7, ("db",), 1234.5))
    await alone.perform(MoveDeadline(7, 1235.5))
    await alone.perform(DisarmGuard(7))

    assert line.lease_until_s == -math.inf
    assert not line.was_enforced
    assert events == [GuardFailed(7, NO_GUARD)]
    assert lost == []


async def test_orders_reach_the_guard_in_order_and_arming_is_answered() -> None:
    async with pair() as (line, other), asyncio.TaskGroup() as group:
        line.saw("db", ID, 12, "345")
        line.saw("db", ID, 12, "345")
        group.create_task(line.perform(ArmGuard(7, ("db",), 1234.5)))
        await other.sees(lambda: line._arming)
        await line.perform(MoveDeadline(7, 1235.5))
        assert other.heard() == [
            Seen("db", ID, 12, "345"),
            Arm(7, ("db",), 1234.5),
            Move(7, 1235.5),
        ]
        assert other.events == []

        other.say(Armed(6, ""))
        other.line.send(b"nonsense")
        other.say(Armed(7, ""))
        await other.sees(lambda: other.events)
        await line.perform(DisarmGuard(7))

        assert other.events == [GuardArmed(7)]
        assert other.heard() == [Disarm(7)]


async def test_a_guard_that_refuses_or_says_nothing_has_failed() -> None:
    async with pair(patience_s=0.05) as (line, other):
        await line.perform(ArmGuard(7, ("db",), 1234.5))
        assert other.events == [GuardFailed(7, "the guard has not answered within 0.05 s")]
        other.say(Armed(7, ""))  # too late

    async with pair() as (line, other), asyncio.TaskGroup() as group:
        group.create_task(line.perform(ArmGuard(8, ("db",), 1234.5)))
        await other.sees(lambda: line._arming)
        other.say(Armed(8, "no space left"))
        await other.sees(lambda: other.events)
        assert other.events == [GuardFailed(8, "no space left")]


async def test_a_guard_that_stands_still_holds_up_nothing_and_hears_the_newest_in_the_end() -> None:
    async with pair() as (line, other):
        for number in range(5000):
            await line.perform(MoveDeadline(7, float(number)))
            line.saw("db", ID, number, "345")
        await line.perform(DisarmGuard(7))

        heard: list[Message] = []

        def hears_the_last() -> bool:
            heard.extend(other.heard())
            return Disarm(7) in heard

        await other.sees(hears_the_last)
        moves = [it.valid_until_s for it in heard if isinstance(it, Move)]
        assert moves[-1] == 4999.0
        assert moves == sorted(moves)
        assert len(heard) < 5000
        assert heard[-1] == Disarm(7)
        assert Seen("db", ID, 4999, "345") in heard


async def test_the_end_of_the_guard_is_told_once() -> None:
    async with pair() as (line, other):
        await line.perform(MoveDeadline(7, 1.0))  # which it dies without having read
        other.line.close()
        await other.sees(lambda: other.is_lost)
        await line.perform(DisarmGuard(7))
        await line.perform(MoveDeadline(7, 2.0))


@pytest.mark.parametrize("arguments", [["--help"], ["--role", "nobody", "--help"]])
def test_an_agent_without_its_guard_becomes_one(arguments: list[str]) -> None:
    program = f"from failover_agent.adapters.lifeline import reexecute; reexecute({arguments})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )

    assert "run [-h]" in done.stdout
