"""What a node answers to readers on its port and to operators on its control socket."""

import asyncio
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from failover_agent.core.effects import ReplyToOperator
from failover_agent.core.events import CommandKind, CommandReceived
from failover_agent.core.policy import Role
from failover_agent.core.state import Phase
from failover_agent.errors import FailoverAgentError, PortInUseError
from failover_agent.protocol.envelope import read_token
from failover_agent.web import connections
from failover_agent.web.app import serve_operator, serve_public
from failover_agent.web.connections import MOST_CONNECTIONS
from failover_agent.web.context import Asked
from tests.integration import hostile
from tests.integration.nodes import SECRET, Node, listening, node
from tests.lab.until import until_async

pytestmark = pytest.mark.integration

Answered = tuple[int, Any]


@asynccontextmanager
async def _reading(one: Node) -> AsyncIterator[aiohttp.ClientSession]:
    async with listening(one), aiohttp.ClientSession(one.endpoint) as session:
        yield session


async def _get(session: aiohttp.ClientSession, path: str, **headers: str) -> Answered:
    async with session.get(path, headers=headers) as response:
        return response.status, await response.json()


# --- readers --------------------------------------------------------------------------------------


async def test_status_is_told_to_whoever_asks() -> None:
    async with _reading(node(Role.BACKUP)) as session:
        status, told = await _get(session, "/v1/status")

    assert status == 200
    assert (told["cluster"], told["role"], told["phase"]) == ("shop", "backup", "standby")
    assert (told["version"], told["pid"]) == ("0.1.0", os.getpid())


@pytest.mark.parametrize(
    ("phase", "ready", "active"),
    [(Phase.ACTIVE, 200, 200), (Phase.STANDBY, 200, 503), (Phase.FAILED, 503, 503)],
)
async def test_ready_and_active_are_told_by_the_status_code(
    phase: Phase, ready: int, active: int
) -> None:
    async with _reading(node(Role.BACKUP, phase=phase)) as session:
        assert (await _get(session, "/readyz"))[0] == ready
        status, told = await _get(session, "/active")

    assert status == active
    assert told == {
        "ok": active == 200,
        "because": [] if active == 200 else [f"this node is {phase}"],
    }


async def test_a_loop_that_does_not_step_is_not_alive() -> None:
    one = node(Role.BACKUP)
    async with _reading(one) as session:
        one.stepped_ago_s = 3.0
        assert await _get(session, "/livez") == (200, {"ok": True, "because": []})
        one.stepped_ago_s = 3.1
        assert await _get(session, "/livez") == (
            503,
            {"ok": False, "because": ["no step was taken for 3.1 s"]},
        )


async def test_history_has_a_limit() -> None:
    async with _reading(node(Role.BACKUP)) as session:
        assert await _get(session, "/v1/history?limit=2") == (
            200,
            {"history": [{"entry": 3}, {"entry": 4}]},
        )
        assert len((await _get(session, "/v1/history"))[1]["history"]) == 5
        for limit in ("0", "-1", "1001", "many", "", "%C2%B2"):
            status, told = await _get(session, f"/v1/history?limit={limit}")
            assert (status, told["error"]) == (400, "bad_limit")


async def test_a_head_is_a_get_without_a_body() -> None:
    async with _reading(node(Role.BACKUP)) as session:
        for path, status in (("/v1/status", 200), ("/active", 503), ("/livez", 200)):
            async with session.head(path) as response:
                assert (response.status, await response.read()) == (status, b"")


async def test_errors_are_json() -> None:
    async with _reading(node(Role.BACKUP)) as session:
        assert await _get(session, "/v1/nothing") == (
            404,
            {"error": "not_found", "detail": "There is nothing at '/v1/nothing'."},
        )
        assert await _get(session, "/v1/heartbeat") == (
            405,
            {"error": "method_not_allowed", "detail": "Only POST will do here."},
        )
        async with session.post("/v1/status") as response:
            assert response.status == 405
            assert response.headers["Allow"] == "GET, HEAD"
        async with session.post("/v1/command", json={"command": "takeover"}) as response:
            assert response.status == 404


async def test_reading_wants_the_token_where_it_is_configured_so() -> None:
    one = node(Role.BACKUP, phase=Phase.STANDBY)
    one.read_access = "secret"
    async with _reading(one) as session:
        for path in ("/v1/status", "/v1/history"):
            assert (await _get(session, path))[0] == 401
            assert (await _get(session, path, Authorization="Bearer nonsense"))[0] == 401
            assert (await _get(session, path, Authorization=f"Bearer {SECRET.decode()}"))[0] == 401
            token = f"Bearer {read_token(SECRET)}"
            assert (await _get(session, path, Authorization=token))[0] == 200
        assert await _get(session, "/active") == (503, {"ok": False, "because": []})


async def test_reading_may_be_for_this_host_alone() -> None:
    one = node(Role.BACKUP)
    one.read_access = "local"
    async with _reading(one) as session:
        assert (await _get(session, "/v1/status"))[0] == 200


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/vote HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf",
        b"POST /v1/vote HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_a_request_that_is_no_http_harms_nobody_and_is_not_logged(
    nonsense: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    one = node(Role.BACKUP)
    async with _reading(one) as session:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(nonsense)
        with suppress(ConnectionError):  # It may be refused before it has said all.
            writer.write_eof()
            await reader.read()
        writer.close()
        assert (await _get(session, "/v1/status"))[0] == 200

    assert one.asked == []
    assert [record for record in caplog.records if record.levelno >= logging.INFO] == []


async def test_a_port_in_use_is_a_clear_error() -> None:
    async with listening(node(Role.BACKUP)) as first:
        second = node(Role.PRIMARY)
        with pytest.raises(PortInUseError) as refused:
            async with serve_public(second.context(), bind="127.0.0.1", port=first.port):
                pass

    assert str(refused.value).startswith(
        f"[primary] port = {first.port}: another program already listens on 127.0.0.1:"
    )


async def test_an_address_of_another_host_is_a_clear_error() -> None:
    with pytest.raises(FailoverAgentError, match=r"^\[backup\] bind = \"192\.0\.2\.1\", port = 0"):
        async with serve_public(node(Role.BACKUP).context(), bind="192.0.2.1", port=0):
            pass


async def test_beyond_256_connections_idle_ones_are_closed_and_the_rest_is_served() -> None:
    one = node(Role.BACKUP)
    async with _reading(one) as session, AsyncExitStack() as stack:
        assert (await _get(session, "/v1/status"))[0] == 200
        readers = []
        for _ in range(MOST_CONNECTIONS + 50):
            reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
            stack.callback(writer.close)
            readers.append(reader)

        def closed() -> int:
            return sum(reader.at_eof() for reader in readers)

        async def is_enough() -> bool:
            return closed() >= 51

        await until_async(is_enough, 30)
        assert (await _get(session, "/v1/status"))[0] == 200
        assert closed() == 51
        assert [reader.at_eof() for reader in readers[:51]] == [True] * 51


async def test_a_connection_that_asks_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "FIRST_REQUEST_S", 0.05)
    one = node(Role.BACKUP)
    async with _reading(one) as session:
        for said in (b"", b"GET /livez HTTP/1.1\r\nHost:"):
            reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
            writer.write(said)
            assert await hostile.read_to_the_end(reader) == b""
            writer.close()
        monkeypatch.undo()  # Who asks has all the time that it has otherwise.
        for _ in range(3):
            assert (await _get(session, "/livez"))[0] == 200


# --- operators ------------------------------------------------------------------------------------


@asynccontextmanager
async def _operating(one: Node, path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    async with (
        serve_operator(one.context(), control_socket=path),
        aiohttp.ClientSession(
            "http://agent", connector=aiohttp.UnixConnector(str(path))
        ) as session,
    ):
        yield session


async def _command(session: aiohttp.ClientSession, body: bytes) -> Answered:
    async with session.post("/v1/command", data=body) as response:
        return response.status, await response.json()


async def test_an_operator_orders_and_reads_over_the_control_socket(tmp_path: Path) -> None:
    one = node(Role.BACKUP)
    one.read_access = "secret"
    path = tmp_path / "run" / "shop.sock"
    async with _operating(one, path) as session:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await _command(session, b'{"command": "takeover"}') == (
            200,
            {"accepted": True, "sentence": "takeover it is."},
        )
        assert (await _get(session, "/v1/status"))[0] == 200
        assert (await _get(session, "/v1/history"))[0] == 200

    assert one.asked == [CommandReceived(1, CommandKind.TAKEOVER)]
    assert not path.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"takeover",
        b"{}",
        b'{"command": "dance"}',
        b'{"command": "resume", "x": 1}',
        b'{"command": []}',
        b"[" * 5000,
    ],
)
async def test_a_command_that_is_none_is_refused(tmp_path: Path, body: bytes) -> None:
    one = node(Role.BACKUP)
    async with _operating(one, tmp_path / "shop.sock") as session:
        status, told = await _command(session, body)

    assert (status, told["error"]) == (400, "bad_command")
    assert told["detail"].endswith("with one of: takeover, resume.")
    assert one.asked == []


async def test_a_command_that_is_not_decided_in_time_is_a_503(tmp_path: Path) -> None:
    one = node(Role.BACKUP)

    async def too_late(_: Asked) -> ReplyToOperator:
        raise TimeoutError

    one.rule = too_late
    async with _operating(one, tmp_path / "shop.sock") as session:
        status, told = await _command(session, b'{"command": "resume"}')

    assert (status, told["error"]) == (503, "no_decision")


async def test_messages_of_other_nodes_do_not_come_over_the_control_socket(tmp_path: Path) -> None:
    async with (
        _operating(node(Role.BACKUP), tmp_path / "shop.sock") as session,
        session.post("/v1/vote", data=b"{}") as response,
    ):
        assert response.status == 404


async def test_the_socket_of_a_dead_agent_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "shop.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async with _operating(node(Role.BACKUP), path) as session:
        assert (await _get(session, "/v1/status"))[0] == 200


async def test_the_socket_of_a_living_agent_is_not(tmp_path: Path) -> None:
    path = tmp_path / "shop.sock"
    async with _operating(node(Role.BACKUP), path) as session:
        with pytest.raises(
            FailoverAgentError, match="another agent listens on this control socket"
        ):
            async with _operating(node(Role.PRIMARY), path):
                pass
        assert (await _get(session, "/v1/status"))[1]["role"] == "backup"


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "shop.sock"
    path.write_text("precious")

    with pytest.raises(FailoverAgentError, match="there is a file here that is no socket"):
        async with _operating(node(Role.BACKUP), path):
            pass

    assert path.read_text() == "precious"


async def test_a_control_socket_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    for path in (tmp_path / "file" / "shop.sock", tmp_path / ("x" * 120)):
        with pytest.raises(FailoverAgentError, match="the control socket cannot be made"):
            async with _operating(node(Role.BACKUP), path):
                pass
