"""Strangers who mean no good, in detail: each request, each slowness, each replay, each limit.

What they do together and for long, to agents that run, is in tests/lab/test_hostile.py.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from failover_agent.core.events import HeartbeatAnswered
from failover_agent.core.policy import Role
from failover_agent.protocol.envelope import SIGNATURE_HEADER
from failover_agent.protocol.wire import Hello
from failover_agent.web import connections, turns
from failover_agent.web.app import serve_operator, serve_public
from failover_agent.web.connections import MOST_CONNECTIONS, MOST_LONG_BYTES
from failover_agent.web.turns import Turns
from tests.integration import hostile
from tests.integration.attacks import IDLE_CONNECTIONS
from tests.integration.hostile import CLOSED, REQUESTS, Target, at_port, at_socket, posted, request
from tests.integration.nodes import Node, Relay, listening, node, speaking
from tests.integration.test_witness import House
from tests.lab.until import until_async

pytestmark = pytest.mark.integration

STRANGER = "127.0.0.66"
"""The other node of these tests comes from 127.0.0.1."""


def _at(one: Node | House, **how: Any) -> Target:
    return at_port("127.0.0.1", one.port, source=STRANGER, **how)


def _async(condition: Callable[[], object]) -> Callable[[], Awaitable[object]]:
    async def asked() -> object:
        return condition()

    return asked


async def _status(target: Target) -> dict[str, Any]:
    status, body = await hostile.ask(target, request())
    assert status == 200
    told: dict[str, Any] = json.loads(body)
    return told


def _without_times(told: object) -> object:
    """What moved, if anything did: counters and times aside."""
    match told:
        case dict():
            return {
                key: _without_times(value)
                for key, value in told.items()
                if key not in ("counters", "rejected") and not key.endswith("_s")
            }
        case list():
            return [_without_times(value) for value in told]
        case _:
            return told


# --- each request ---------------------------------------------------------------------------------


async def _answers(target: Target) -> dict[str, int]:
    """Of those that were not answered as they may be: what came of them."""
    wrong = {}
    for case in REQUESTS:
        status, _ = await hostile.ask(target, case.raw)
        if status not in case.may and not (status == CLOSED and 400 in case.may):
            wrong[case.name] = status
    return wrong


def _complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_node_answers_each_of_them_with_a_4xx_or_not_at_all(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with listening(node(Role.BACKUP)) as one:
        before = await _status(_at(one))
        assert await _answers(_at(one)) == {}
        after = await _status(_at(one))

    assert _without_times(after) == _without_times(before)
    assert (one.asked, one.posted) == ([], [])
    assert after["counters"]["rejected"]["not_authentic"] > 5
    assert _complaints(caplog) == ["rejected"], "one line for all of them"


async def test_a_witness_answers_each_of_them_with_a_4xx_or_not_at_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with House(tmp_path).listening() as house:
        before = await _status(_at(house))
        assert {
            name: status for name, status in (await _answers(_at(house))).items() if status != 409
        } == {}
        after = await _status(_at(house))

    assert _without_times(after) == _without_times(before)
    assert after["counters"]["rejected"]["malformed"] > 3
    assert _complaints(caplog) == ["rejected"]


async def test_the_control_socket_answers_each_of_them_with_a_4xx_or_not_at_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, path = node(Role.BACKUP), tmp_path / "shop.sock"
    async with serve_operator(one.context(), control_socket=path):
        target = at_socket(str(path))
        assert await _answers(target) == {}
        for body in (b"\xff" * 100, b"[" * 60_000, b"1" * 60_000, b'{"command": "\\ud800"}', b""):
            status, answered = await hostile.ask(target, posted(body, path="/v1/command"))
            assert (status, json.loads(answered)["error"]) == (400, "bad_command")
        await _status(target)

    assert one.asked == []
    assert _complaints(caplog) == []


async def test_an_answer_does_not_tell_which_program_in_which_version_wrote_it() -> None:
    async with listening(node(Role.BACKUP)) as one:
        for raw in (request(), request("GET", "/nowhere"), b"\x00\x00\r\n\r\n", posted(b"{}")):
            async with _at(one).line() as (reader, writer):
                writer.write(raw)
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            assert "\r\nServer: failover-agent\r\n" in head
            assert "ython" not in head


async def test_a_fault_of_ours_tells_nothing_and_is_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = node(Role.BACKUP)

    def broken(limit: int) -> list[dict[str, object]]:
        raise RuntimeError(f"the secret of the house: {limit}")

    context = replace(one.context(), history=broken)
    async with serve_public(context, bind="127.0.0.1", port=0) as one.port:
        for _ in range(20):
            status, body = await hostile.ask(_at(one), request("GET", "/v1/history"))
            assert status == 500
            assert json.loads(body)["error"] == "internal"
            assert b"secret of the house" not in body

    assert len(caplog.records) == 1


async def test_a_flood_of_wrong_messages_is_a_line_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = node(Role.BACKUP)
    begin_s = asyncio.get_running_loop().time()
    later_s = 0.0
    context = replace(one.context(), now=lambda: begin_s + later_s)
    async with serve_public(context, bind="127.0.0.1", port=0) as one.port:
        for _ in range(50):
            await hostile.ask(_at(one), posted(b"{}"))
        later_s = 61.0
        await hostile.ask(_at(one), posted(b"{}"))

    fields = [getattr(record, "fields", {}) for record in caplog.records]
    assert [(told["error"], told["messages"]) for told in fields] == [
        ("not_authentic", 1),
        ("not_authentic", 50),
    ]
    assert one.keeper.rejected["not_authentic"] == 51


# --- slow ones ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("FIRST_REQUEST_S", b""),
        ("FIRST_REQUEST_S", b"GET /v1/status HTTP/1.1\r\nX: y"),
        ("IDLE_S", b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\nX: y"),
        ("BODY_S", b"POST /v1/vote HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\nhalf"),
        ("BODY_S", b"GET /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\nhalf"),
        ("BODY_S", b"PUT /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n"),
    ],
)
async def test_half_a_request_and_then_silence_is_closed(
    limit: str, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns if limit == "BODY_S" else connections, limit, 0.1)
    monkeypatch.setattr(connections, "LINGER_S", 0.1)
    async with listening(node(Role.BACKUP)) as one, _at(one).line() as (reader, writer):
        writer.write(said)
        async with asyncio.timeout(hostile.ANSWER_S):
            answer = await hostile.read_to_the_end(reader)
        assert (b"408 Request Timeout" in answer) == (limit == "BODY_S")
        monkeypatch.undo()  # The next connection has all the time that it has otherwise.
        await _status(_at(one))
        assert one.asked == []


async def test_a_request_that_breaks_off_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with listening(node(Role.BACKUP)) as one:
        raw = posted(b"x" * 5000)
        for length in (1, 20, len(raw) - 5000, len(raw) - 1):
            async with _at(one).line() as (_, writer):
                writer.write(raw[:length])
                await writer.drain()
        await _status(_at(one))

    assert one.asked == []
    assert _complaints(caplog) == []


@asynccontextmanager
async def _telling_much(size: int) -> AsyncIterator[Node]:
    """A node whose history is that long."""
    one = node(Role.BACKUP)
    entry: dict[str, object] = {"entry": "x" * size}
    context = replace(one.context(), history=lambda _: [entry])
    async with serve_public(context, bind="127.0.0.1", port=0) as one.port:
        yield one


async def test_one_that_never_reads_its_answer_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", 0.3)
    async with (
        _telling_much(MOST_LONG_BYTES - 1000) as one,
        _at(one, receive_bytes=4096).line() as (reader, writer),
    ):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(request("GET", "/v1/history"))
        async with asyncio.timeout(hostile.ANSWER_S):
            await _until_closed(one)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await hostile.read_to_the_end(reader)) < MOST_LONG_BYTES


async def _until_closed(one: Node) -> None:
    """By the count of the system: nobody is connected to that port any more."""
    wanted = f":{one.port:04X} "

    async def nobody() -> bool:
        lines = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
        ours = [line.split() for line in lines if wanted in line[:24]]
        return all(line[3] != "01" for line in ours)  # 01: established

    await until_async(nobody, hostile.ANSWER_S)


async def test_long_answers_that_nobody_reads_are_bounded_together() -> None:
    async with (
        _telling_much(MOST_LONG_BYTES - 1000) as one,
        _at(one, receive_bytes=4096).line() as (_, writer),
    ):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(request("GET", "/v1/history"))

        async def is_full() -> bool:
            status, _ = await hostile.ask(_at(one), request("GET", "/v1/history"))
            return status == 503

        await until_async(is_full, hostile.ANSWER_S)
        await _status(_at(one))
        writer.transport.abort()

        async def is_free() -> bool:
            status, _ = await hostile.ask(_at(one), request("GET", "/v1/history"))
            return status == 200

        await until_async(is_free, hostile.ANSWER_S)


# --- too much -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        request("GET", "/v1/status", "Upgrade: websocket", "Connection: Upgrade"),
        request("POST", "/v1/vote", f"Content-Length: {2**40}"),
        request("GET", "/v1/status", f"Content-Length: {2**40}"),
        b"\x16\x03\x01",
    ],
    ids=["after an upgrade", "a body", "a body of a GET", "no HTTP"],
)
async def test_one_that_sends_without_an_end_is_closed_soon(first: bytes) -> None:
    async with listening(node(Role.BACKUP)) as one, _at(one).line() as (_, writer):
        writer.write(first.replace(b"Connection: close\r\n", b""))
        async with asyncio.timeout(hostile.ANSWER_S):
            sent = await _send_until_closed(writer)
        await _status(_at(one))

    assert sent < 64 * 2**20, "what lay in the buffers of the system"


async def _send_until_closed(writer: asyncio.StreamWriter) -> int:
    """How many bytes left."""
    sent, blob = 0, bytes(65536)
    try:
        while True:
            writer.write(blob)
            await writer.drain()
            sent += len(blob)
    except OSError:
        return sent


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with listening(node(Role.BACKUP)) as one, _at(one).line() as (reader, writer):
        paths = ["/livez", "/nowhere", "/active"] * 30
        for path in paths:
            writer.write(request("GET", path).replace(b"Connection: close\r\n", b""))
        answers = [(await hostile.read_answer(reader))[0] for _ in paths]

    assert answers == [200, 404, 503] * 30


async def test_each_round_of_the_loop_begins_one() -> None:
    queue, begun = Turns(), list[int]()
    loop = asyncio.get_running_loop()

    async def one() -> None:
        await queue.wait()
        begun.append(rounds)

    rounds = 0

    def count() -> None:
        nonlocal rounds
        rounds += 1
        loop.call_soon(count)

    loop.call_soon(count)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one()) for _ in range(100)]
        gives_up = group.create_task(one())
        await queue.wait()
        gives_up.cancel()
        await asyncio.wait(tasks)

    assert len(set(begun)) == 100


# --- many -----------------------------------------------------------------------------------------


async def _beat(primary: Node, peers: Any) -> bool:
    await peers.perform(primary.beat(deadline_s=hostile.ANSWER_S))
    return isinstance(primary.posted.pop(), HeartbeatAnswered)


async def test_a_thousand_idle_connections_keep_no_node_out() -> None:
    primary = node(Role.PRIMARY)
    async with listening(node(Role.BACKUP)) as backup, AsyncExitStack() as stack:
        for _ in range(IDLE_CONNECTIONS):
            await stack.enter_async_context(_at(backup).line())
        for _ in range(10):
            async with speaking(primary, backup.endpoint) as peers:
                assert await _beat(primary, peers)


async def test_one_host_that_keeps_all_connections_busy_keeps_no_other_out() -> None:
    """Half a message on each of them: they are not idle, and whoever comes is the newest."""
    primary = node(Role.PRIMARY)
    half = posted(b"x" * 100)[:-50]
    async with listening(node(Role.BACKUP)) as backup, AsyncExitStack() as stack:
        for _ in range(MOST_CONNECTIONS):
            _, writer = await stack.enter_async_context(_at(backup).line())
            writer.write(half)
        await _status(_at(backup))
        for _ in range(5):
            async with speaking(primary, backup.endpoint) as peers:
                assert await _beat(primary, peers)
        assert backup.asked


async def test_a_host_takes_connections_from_itself_alone() -> None:
    """Even from one that has not said anything yet, and was there before all of them."""
    async with (
        listening(node(Role.BACKUP)) as backup,
        at_port("127.0.0.1", backup.port).line() as (reader, writer),
        AsyncExitStack() as stack,
    ):
        for _ in range(MOST_CONNECTIONS + 50):
            await stack.enter_async_context(_at(backup).line())
        await _status(_at(backup))
        writer.write(request())
        assert (await hostile.read_answer(reader))[0] == 200


async def test_a_recorded_hello_makes_no_stranger_one_of_ours() -> None:
    """It is answered as often as it comes, so it proves nothing about who sends it."""
    sent = node(Role.PRIMARY).keeper.request(Role.BACKUP, Hello())
    headers = f"{SIGNATURE_HEADER}: {sent.signed.signature}"
    hello = posted(sent.signed.body, headers, path="/v1/hello").replace(
        b"Connection: close\r\n", b""
    )
    async with (
        listening(node(Role.BACKUP)) as backup,
        AsyncExitStack() as stack,
        AsyncExitStack() as later,
    ):
        for _ in range(MOST_CONNECTIONS):
            reader, writer = await stack.enter_async_context(_at(backup).line())
            writer.write(hello)
            assert (await hostile.read_answer(reader))[0] == 200
        async with at_port("127.0.0.1", backup.port).line() as (reader, writer):
            for _ in range(50):
                await later.enter_async_context(_at(backup).line())
            await _status(_at(backup))
            writer.write(request())
            assert (await hostile.read_answer(reader))[0] == 200


async def test_the_connection_of_a_node_is_not_taken_for_a_stranger_on_the_same_host() -> None:
    primary = node(Role.PRIMARY)
    async with (
        listening(node(Role.BACKUP)) as backup,
        Relay(backup).listening() as relay,
        speaking(primary, relay.endpoint) as peers,
        AsyncExitStack() as stack,
    ):
        assert await _beat(primary, peers)
        for _ in range(MOST_CONNECTIONS + 50):
            await stack.enter_async_context(at_port("127.0.0.1", backup.port).line())
        await _status(at_port("127.0.0.1", backup.port))
        assert await _beat(primary, peers)
        assert relay.connections == 1
