"""The Engine API calls that the agent needs; the only module that knows aiodocker.

What can go wrong comes out as one of two: nobody answered, or the engine said no. Every call has a
limit but `start` and `unpause`, which must not be given up once they are written.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiodocker
import aiohttp

from failover_agent.adapters.docker import problems
from failover_agent.adapters.docker.parse import ACTIONS, Listed, parse_row
from failover_agent.errors import EngineError
from failover_agent.guard.engine import NO_FILES, TLS, TlsFiles, tls_context

T = TypeVar("T")

ADDRESS = re.compile(r"unix://(?P<path>/.+)|(tcp|https)://[^/]+:\d+")
CONNECT_S = 3.0
KEEPALIVE_S = {socket.TCP_KEEPIDLE: 10, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}
"""Where a start call waits for an engine whose machine is gone, only this notices."""

NOBODY = "_failover-agent-check"
"""No container has this name: none begins so."""

ORDERS = ("start", "stop", "kill", "update", "unpause")
"""What the agent asks an engine to do with a container."""


ROW = ("Id", "State", "Created", "Labels")
"""What is told of a container in a list: enough to know who stands beside us."""

MOST_FILTERED = 32
"""So many names the engine looks for; it tries each on each container, so more of them are found
here, among all."""


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


class EngineDeniedError(EngineRefusedError):
    """This may not be asked there: by the word of a proxy, or of a plugin of the engine."""

    def __init__(self, sentence: str) -> None:
        super().__init__(403, sentence)


NO_ANSWER = (EngineUnreachableError, EngineRefusedError)


class StreamEnd(NamedTuple):
    """Why a stream of events is over; `is_denied`: it may not be asked for there."""

    why: str
    is_denied: bool = False


class NotPermittedError(Exception):
    """Leave to start was withdrawn before the request was written. The engine heard nothing."""


class EngineClient:
    """One engine, at `unix:///path`, `tcp://host:port`, or with TLS and these `files`
    `https://host:port`. Opens nothing before the first call.
    """

    def __init__(self, host: str, files: TlsFiles = NO_FILES) -> None:
        self.host = host
        address = ADDRESS.fullmatch(host)
        if address is None:
            what = "this is neither unix:///PATH, tcp://HOST:PORT nor https://HOST:PORT"
            raise EngineError(engine=host, what=what)
        self._path: str | None = address["path"]
        self._files = files
        self._tls: ssl.SSLContext | None = None
        self._tls_of: tuple[int, ...] = ()  # the moments at which its files were written
        self._main: aiodocker.Docker | None = None
        self._main_tls: ssl.SSLContext | None = None
        self._outdated: list[aiodocker.Docker] = []

    # -- asking ---------------------------------------------------------------------------------

    async def version(self, limit_s: float) -> Mapping[str, Any]:
        """Who the engine is."""
        return await self._ask(lambda docker: docker.version(), limit_s)

    async def denials(self, limit_s: float) -> tuple[str, ...]:
        """What may not be asked there, of all that the agent will ask: a sentence each.

        Nothing is changed by it: the orders are about a container that cannot be.
        """
        # A stream of long ago ends at once.
        looks = ("version", "info", "events?since=1&until=1", f"containers/{NOBODY}/json")
        asked = [self._may("GET", path, limit_s) for path in looks]
        asked += [self._may("POST", f"containers/{NOBODY}/{it}", limit_s) for it in ORDERS]
        return tuple(filter(None, await asyncio.gather(*asked)))

    async def _may(self, method: str, path: str, limit_s: float) -> str:
        async def ask(docker: aiodocker.Docker) -> None:
            # An update would need a body, and is refused without one just as well.
            async with docker._query(path, method, versioned_api=False):  # noqa: SLF001
                pass

        try:
            await self._ask(ask, limit_s)
        except EngineRefusedError as error:
            return str(error) if isinstance(error, EngineDeniedError) else ""
        return ""

    async def info(self, limit_s: float) -> Mapping[str, Any]:
        """How the engine is set up."""
        return await self._ask(lambda docker: docker.system.info(), limit_s)

    async def ids(self, names: Iterable[str], limit_s: float) -> dict[str, str]:
        """The ids of the containers with exactly these names; a missing one is left out."""
        return {name: it.container_id for name, it in (await self.listed(names, limit_s)).items()}

    async def listed(self, names: Iterable[str], limit_s: float) -> dict[str, Listed]:
        """What a list tells of the containers with exactly these names; a missing one is left out.

        An inspect would take the name "db" for the beginning of an id as well; this does not. And
        it answers while the engine starts a container; an inspect of that one blocks.
        """
        wanted = set(names)
        filters = {}
        if len(wanted) <= MOST_FILTERED:
            filters = {"name": [f"^/{re.escape(name)}$" for name in sorted(wanted)]}
        rows = await self._ask(
            lambda docker: docker.containers.list(all=True, filters=filters), limit_s
        )
        # Without names while it is being removed.
        named = [(name.removeprefix("/"), row) for row in rows for name in row["Names"] or ()]
        return {
            name: parse_row(row.id, row["State"], row["Status"])
            for name, row in named
            if name in wanted
        }

    async def rows(
        self, filters: Mapping[str, list[str]], limit_s: float
    ) -> tuple[Mapping[str, Any], ...]:
        """The containers that these filters let through, in the few words of the engine's list."""
        found = await self._ask(
            lambda docker: docker.containers.list(all=True, filters=filters), limit_s
        )
        return tuple({key: row[key] for key in ROW} for row in found)

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
    ) -> StreamEnd:
        """Hands on each event from `since_s` (the engine's wall clock) on, until the stream ends.

        Calls `on_open` when the engine has accepted. Returns what ended it.
        """

        async def answered(_: object, __: object, end: aiohttp.TraceRequestEndParams) -> None:
            if end.url.path.endswith("/events") and end.response.ok:
                on_open()

        opening = aiohttp.TraceConfig()
        opening.on_request_end.append(answered)  # the head of the answer: its body has no end
        try:
            docker = self._open(opening)
        except EngineUnreachableError as error:
            return StreamEnd(str(error))
        filters = {"type": ["container"], "event": list(ACTIONS)}
        since = f"{since_s:.9f}"  # as text: a float loses digits on the way
        # Not the task that subscribe() would make: that one ends with the stream, and for good.
        heard = docker.events.subscribe(create_task=False)  # type: ignore[no-untyped-call]

        async def run() -> StreamEnd:
            try:
                await self._ask(
                    lambda it: it.events.run(since=since, filters=filters), None, docker
                )
            except NO_ANSWER as error:
                return StreamEnd(str(error), isinstance(error, EngineDeniedError))
            return StreamEnd("the engine ended it")

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
        opened = [*self._outdated, *filter(None, (self._main,))]
        self._outdated, self._main = [], None
        for docker in opened:
            await _close(docker)

    # -- how ------------------------------------------------------------------------------------

    def _docker(self) -> aiodocker.Docker:
        """The one for everything but starts. Made late, because it wants a running loop."""
        tls = self._context() if self.host.startswith(TLS) else None
        if self._main is not None and tls is not self._main_tls:
            self._outdated.append(self._main)  # what is under way there goes on
            self._main = None
        if self._main is None:
            self._main, self._main_tls = self._open(), tls
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
                limit=0,
                force_close=True,
                socket_factory=_socket_with_keepalive,
                ssl=self._context() if self.host.startswith(TLS) else True,
            )
        denial = aiohttp.TraceConfig()
        denial.on_request_end.append(_raise_denial)
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_S)
        return aiodocker.Docker(
            url=self.host if self._path is None else "unix://localhost",
            connector=connector,
            session=aiohttp.ClientSession(
                connector=connector, timeout=timeout, trace_configs=[denial, *traces]
            ),
            timeout=timeout,
        )

    def _context(self) -> ssl.SSLContext:
        """Made anew when a certificate was renewed. Raises EngineUnreachableError."""
        paths = (self._files.ca_file, self._files.cert_file, self._files.key_file)
        try:
            written = tuple(Path(path).stat().st_mtime_ns for path in paths if path)
            if self._tls is None or written != self._tls_of:
                self._tls, self._tls_of = tls_context(self._files), written
        except (OSError, ValueError) as error:
            if self._tls is None:  # it may be about to be renewed
                raise EngineUnreachableError(f"its certificates cannot be used: {error}") from error
        return self._tls

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
        docker.api_version = self._docker().api_version  # known by then: no question before it
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
        limit = asyncio.timeout(limit_s)
        docker = docker or self._docker()
        try:
            async with limit:
                return await call(docker)
        except TimeoutError as error:
            what = f"no answer within {limit_s:g} s" if limit.expired() else "no connection"
            raise EngineUnreachableError(what) from error
        except aiodocker.DockerError as error:
            is_version = error.status == 400 and "client version" in error.message
            is_elsewhere = is_version or problems.wants_tls(error)
            if (
                error.status < 900
                and error.status not in problems.GATEWAY_STATUSES
                and not is_elsewhere
            ):
                raise EngineRefusedError(error.status, error.message.strip()) from error
            # It may come back as another version: ask for it anew.
            docker.api_version = "auto"
            raise self._unreachable(error) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> EngineUnreachableError:
        shows_certificate = bool(self._files.cert_file)
        return EngineUnreachableError(problems.problem(error, shows_certificate=shows_certificate))


async def _close(docker: aiodocker.Docker) -> None:
    # Its own close() may raise what ended a stream long ago, and leave the session open.
    await docker.session.close()
    await docker.connector.close()


async def _raise_denial(_: object, __: object, end: aiohttp.TraceRequestEndParams) -> None:
    """Here, because what aiodocker makes of it no longer knows what was asked."""
    if end.response.status == 403:
        words = await end.response.text(errors="replace")
        end.response.close()
        raise EngineDeniedError(problems.denied(end.method, end.url.path, words))


def _socket_with_keepalive(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in KEEPALIVE_S.items():
        made.setsockopt(socket.IPPROTO_TCP, option, seconds)
    return made
