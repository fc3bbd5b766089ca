"""The Engine API calls that the agent needs; the only module that knows aiodocker.

What can go wrong comes out as one of two: nobody answered, or the engine said no. Every call has a
limit but `start` and `unpause`, which must not be given up once they are written.
"""

import asyncio
import errno
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

import aiodocker
import aiohttp

from failover_agent.adapters.docker.parse import ACTIONS
from failover_agent.errors import EngineError

T = TypeVar("T")

ADDRESS = re.compile(r"unix://(?P<path>/.+)|tcp://[^/]+:\d+")
CONNECT_S = 3.0
KEEPALIVE_S = {socket.TCP_KEEPIDLE: 10, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}
"""Where a start call waits for an engine whose machine is gone, only this notices."""

GATEWAY_STATUSES = (502, 503, 504)
"""A proxy's word that the engine behind it does not answer."""

PROBLEMS = {
    errno.ENOENT: "there is no such socket: Docker is not installed, or not running",
    errno.EACCES: "no permission to use it: run as root, or as a member of the group docker",
    errno.ECONNREFUSED: "it is not running: docker.host was tried, and nobody listens there",
}


class EngineUnreachableError(Exception):
    """Nobody answered, or not to the end: nothing is known, and a written order may be at work."""


class EngineRefusedError(Exception):
    """The engine said no, with this status and in these words; the order is not at work."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def is_no_such_container(self) -> bool:
        """A 404 alone proves nothing: a missing network is one too, and so is a proxy's."""
        return self.status == 404 and "no such container" in str(self).lower()


NO_ANSWER = (EngineUnreachableError, EngineRefusedError)


class NotPermittedError(Exception):
    """Leave to start was withdrawn before the request was written. The engine heard nothing."""


class EngineClient:
    """One engine, at `unix:///path` or `tcp://host:port`. Opens nothing before the first call."""

    def __init__(self, host: str) -> None:
        self.host = host
        address = ADDRESS.fullmatch(host)
        if address is None:
            raise EngineError(engine=host, what="this is neither unix:///PATH nor tcp://HOST:PORT")
        self._path: str | None = address["path"]
        self._main: aiodocker.Docker | None = None

    # -- asking ---------------------------------------------------------------------------------

    async def version(self, limit_s: float) -> Mapping[str, Any]:
        """Who the engine is."""
        return await self._ask(lambda docker: docker.version(), limit_s)

    async def info(self, limit_s: float) -> Mapping[str, Any]:
        """How the engine is set up."""
        return await self._ask(lambda docker: docker.system.info(), limit_s)

    async def ids(self, names: Iterable[str], limit_s: float) -> dict[str, str]:
        """The ids of the containers with exactly these names; a missing one is left out.

        An inspect would take the name "db" for the beginning of an id as well; this does not. And
        it answers while the engine starts a container; an inspect of that one blocks.
        """
        wanted = set(names)
        filters = {"name": [f"^/{re.escape(name)}$" for name in sorted(wanted)]}
        rows = await self._ask(
            lambda docker: docker.containers.list(all=True, filters=filters), limit_s
        )
        # Without names while it is being removed.
        named = [(name.removeprefix("/"), row.id) for row in rows for name in row["Names"] or ()]
        return {name: container_id for name, container_id in named if name in wanted}

    async def inspect(self, container_id: str, limit_s: float) -> Mapping[str, Any]:
        """All about one container."""
        return await self._ask(
            lambda docker: docker.containers.container(container_id).show(), limit_s
        )

    async def follow(
        self,
        since_s: float,
        on_event: Callable[[Mapping[str, Any]], None],
        on_open: Callable[[], None],
    ) -> str:
        """Hands on each event from `since_s` (the engine's wall clock) on, until the stream ends.

        Calls `on_open` when the engine has accepted. Returns what ended it.
        """

        async def answered(_: object, __: object, end: aiohttp.TraceRequestEndParams) -> None:
            if end.url.path.endswith("/events") and end.response.ok:
                on_open()

        opening = aiohttp.TraceConfig()
        opening.on_request_end.append(answered)  # the head of the answer: its body has no end
        docker = self._open(opening)
        filters = {"type": ["container"], "event": list(ACTIONS)}
        since = f"{since_s:.9f}"  # as text: a float loses digits on the way
        # Not the task that subscribe() would make: that one ends with the stream, and for good.
        heard = docker.events.subscribe(create_task=False)  # type: ignore[no-untyped-call]

        async def run() -> str:
            try:
                await self._ask(
                    lambda it: it.events.run(since=since, filters=filters), None, docker
                )
            except (EngineUnreachableError, EngineRefusedError) as error:
                return str(error)
            return "the engine ended it"

        try:
            async with asyncio.TaskGroup() as group:
                running = group.create_task(run())
                while (event := await heard.get()) is not None:
                    on_event(event)
            return running.result()
        finally:
            await _close(docker)

    # -- ordering -------------------------------------------------------------------------------

    async def start(self, container_id: str, may_start: Callable[[], bool]) -> None:
        """Starts a container, if `may_start` is true at the moment of writing the request.

        Has no limit: while this waits, the start may be at work, or still come to be.
        """
        await self._ask_with_leave(
            may_start, lambda docker: docker.containers.container(container_id).start()
        )

    async def unpause(self, container_id: str, may_start: Callable[[], bool]) -> None:
        """As `start`, for a paused one."""
        await self._ask_with_leave(
            may_start, lambda docker: docker.containers.container(container_id).unpause()
        )

    async def stop(self, container_id: str, grace_s: int, limit_s: float) -> None:
        """TERM, and after `grace_s` seconds KILL by the engine."""
        await self._ask(
            lambda docker: docker.containers.container(container_id).stop(t=grace_s), limit_s
        )

    async def kill(self, container_id: str, limit_s: float) -> None:
        """KILL."""
        await self._ask(lambda docker: docker.containers.container(container_id).kill(), limit_s)

    async def drop_restart_policy(self, container_id: str, limit_s: float) -> None:
        """Sets Docker's own restart policy to "no"."""
        path = f"containers/{container_id}/update"
        data = {"RestartPolicy": {"Name": "no"}}
        # aiodocker has no call for it; this is how it makes its own.
        await self._ask(
            lambda docker: docker._query_json(path, "POST", data=data),  # noqa: SLF001
            limit_s,
        )

    async def close(self) -> None:
        """Ends every connection."""
        docker, self._main = self._main, None
        if docker is not None:
            await _close(docker)

    # -- how ------------------------------------------------------------------------------------

    def _docker(self) -> aiodocker.Docker:
        """The one for everything but starts. Made late, because it wants a running loop."""
        if self._main is None:
            self._main = self._open()
        return self._main

    def _open(self, *traces: aiohttp.TraceConfig) -> aiodocker.Docker:
        # Any number of connections, or a hundred slow stops would block every look; and a new one
        # for each request, because the first order after the engine's restart must not be lost on
        # a dead one.
        connector: aiohttp.BaseConnector
        if self._path is not None:
            connector = aiohttp.UnixConnector(self._path, limit=0, force_close=True)
        else:
            connector = aiohttp.TCPConnector(
                limit=0, force_close=True, socket_factory=_socket_with_keepalive
            )
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_S)
        return aiodocker.Docker(
            url=self.host if self._path is None else "unix://localhost",
            connector=connector,
            session=aiohttp.ClientSession(
                connector=connector, timeout=timeout, trace_configs=list(traces)
            ),
            timeout=timeout,
        )

    async def _ask_with_leave(
        self, may_start: Callable[[], bool], call: Callable[[aiodocker.Docker], Awaitable[None]]
    ) -> None:
        """By a session of its own, which asks `may_start` right before a request is written.

        Between any earlier check and that moment lies the opening of a connection.
        """

        async def ask_leave(*_: object) -> None:
            if not may_start():
                raise NotPermittedError

        leave = aiohttp.TraceConfig()
        leave.on_request_headers_sent.append(ask_leave)  # called before the first byte is sent
        docker = self._open(leave)
        try:
            await self._ask(call, None, docker)
        finally:
            await _close(docker)

    async def _ask(
        self,
        call: Callable[[aiodocker.Docker], Awaitable[T]],
        limit_s: float | None,
        docker: aiodocker.Docker | None = None,
    ) -> T:
        docker = docker or self._docker()
        limit = asyncio.timeout(limit_s)
        try:
            async with limit:
                return await call(docker)
        except TimeoutError as error:
            what = f"no answer within {limit_s:g} s" if limit.expired() else "no connection"
            raise EngineUnreachableError(what) from error
        except aiodocker.DockerError as error:
            is_version = error.status == 400 and "client version" in error.message
            if error.status < 900 and error.status not in GATEWAY_STATUSES and not is_version:
                raise EngineRefusedError(error.status, error.message.strip()) from error
            # It may come back as another version: ask for it anew.
            docker.api_version = "auto"
            raise EngineUnreachableError(_problem(error)) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise EngineUnreachableError(_problem(error)) from error


async def _close(docker: aiodocker.Docker) -> None:
    # Its own close() may raise what ended a stream long ago, and leave the session open.
    await docker.session.close()
    await docker.connector.close()


def _problem(error: BaseException) -> str:
    """For people. What aiodocker raises hides the errno below it."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and below.errno in PROBLEMS:
            return PROBLEMS[below.errno]
        below = below.__cause__ or below.__context__
    if isinstance(error, aiodocker.DockerError) and error.status < 900:
        return error.message.strip()
    return f"the connection broke off ({error})"


def _socket_with_keepalive(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in KEEPALIVE_S.items():
        made.setsockopt(socket.IPPROTO_TCP, option, seconds)
    return made
