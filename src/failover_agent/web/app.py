"""The two servers: the port, for the other node and for readers; the control socket, for operators.

What whoever reaches them may use up is bounded: connections.py, turns.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from failover_agent.core.policy import Role
from failover_agent.errors import FailoverAgentError, PortInUseError
from failover_agent.protocol.wire import MOST_BYTES
from failover_agent.web.connections import MOST_CONNECTIONS, Connections, name_us
from failover_agent.web.context import Context, WitnessContext, error
from failover_agent.web.operator_api import OperatorApi
from failover_agent.web.peer_api import PeerApi
from failover_agent.web.public_api import PublicApi
from failover_agent.web.turns import whole_and_in_turn
from failover_agent.web.witness_api import WitnessPeerApi, WitnessPublicApi

CONNECTIONS_A_PAIR = 8
"""At a witness: one for each node is enough, and slow answers take some more."""
ADMITTED_AT_ONCE = 16
WAITING_OUTSIDE = 1024
"""One for whom there is no room there tries again a second later, or three."""
SHUTDOWN_S = 1.0

Start = Callable[[Connections], Awaitable[asyncio.Server]]


@asynccontextmanager
async def serve_public(context: Context, *, bind: str, port: int) -> AsyncIterator[int]:
    """Listen on the port; yields its number, which the system chose where it was 0.

    Raises PortInUseError, or FailoverAgentError where `bind` cannot be listened on.
    """
    routes = [*PeerApi(context).routes(), *PublicApi(context).routes()]
    start = _on_port(context.policy.role, bind, port)
    async with _serving(routes, start, MOST_CONNECTIONS) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def serve_witness(context: WitnessContext, *, bind: str, port: int) -> AsyncIterator[int]:
    """Listen on the port for the nodes of all pairs; yields and raises as `serve_public` does."""
    routes = [*WitnessPeerApi(context).routes(), *WitnessPublicApi(context).routes()]
    most = max(MOST_CONNECTIONS, CONNECTIONS_A_PAIR * len(context.pairs))
    async with _serving(routes, _on_port(Role.WITNESS, bind, port), most) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def serve_operator(context: Context, *, control_socket: Path) -> AsyncIterator[None]:
    """Listen on the control socket, for orders and for reading."""
    public = PublicApi(context, everybody_reads=True)
    routes = [*OperatorApi(context).routes(), *public.routes()]
    async with _serving_on_socket(routes, control_socket):
        yield


@asynccontextmanager
async def serve_witness_operator(
    context: WitnessContext, *, control_socket: Path
) -> AsyncIterator[None]:
    """Listen on the control socket, for reading: there is nothing to order."""
    routes = WitnessPublicApi(context, everybody_reads=True).routes()
    async with _serving_on_socket(routes, control_socket):
        yield


@asynccontextmanager
async def _serving_on_socket(
    routes: list[web.RouteDef], control_socket: Path
) -> AsyncIterator[None]:
    """The socket is for our own user alone, and gone afterwards.

    Replaces the socket of an agent that has died. Raises FailoverAgentError where another agent
    listens, or the socket cannot be made.
    """

    async def start(connections: Connections) -> asyncio.Server:
        listener = _bind(control_socket)
        return await asyncio.get_running_loop().create_unix_server(
            connections, sock=listener, backlog=ADMITTED_AT_ONCE
        )

    async with _serving(routes, start, MOST_CONNECTIONS):
        mine = _inode(control_socket)
        try:
            yield
        finally:
            _remove(control_socket, mine)


def _on_port(role: Role, bind: str, port: int) -> Start:
    async def start(connections: Connections) -> asyncio.Server:
        try:
            loop = asyncio.get_running_loop()
            return await loop.create_server(connections, bind, port, backlog=ADMITTED_AT_ONCE)
        except OSError as problem:
            if problem.errno == errno.EADDRINUSE:
                raise PortInUseError(bind=bind, port=port, role=role) from problem
            raise FailoverAgentError(
                where=f'[{role}] bind = "{bind}", port = {port}',
                what=f"cannot listen there ({_plain(problem)})",
                todo="bind is an address of this host, or 0.0.0.0 for all of them; a port below "
                "1024 needs root.",
            ) from problem

    return start


def _plain(problem: OSError) -> str:
    """The loop puts words of its own around those of the system."""
    is_systems = problem.errno is not None and problem.errno > 0
    return os.strerror(problem.errno or 0) if is_systems else problem.strerror or str(problem)


@asynccontextmanager
async def _serving(
    routes: list[web.RouteDef], start: Start, most: int
) -> AsyncIterator[asyncio.Server]:
    connections = Connections(most)
    app = web.Application(
        middlewares=[connections.middleware(), _errors_as_json, whole_and_in_turn()],
        client_max_size=MOST_BYTES,
    )
    app.on_response_prepare.append(name_us)
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    connections.server = runner.server
    try:
        server = await start(connections)
        _let_many_wait(server)
        try:
            yield server
        finally:
            server.close()
    finally:
        await runner.cleanup()


def _let_many_wait(server: asyncio.Server) -> None:
    """In one round asyncio lets in as many as may wait outside. Many are to wait, and few to come
    in: who comes in can speak before the next ones take its place.
    """
    for listener in server.sockets:
        with socket.socket(fileno=os.dup(listener.fileno())) as same:
            same.listen(WAITING_OUTSIDE)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _remove(control_socket: Path, mine: int | None) -> None:
    """Leave nothing behind, and let alone what another agent has put there since."""
    if mine is not None and _inode(control_socket) == mine:
        with contextlib.suppress(OSError):
            control_socket.unlink()


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return error(404, "not_found", f"There is nothing at {request.path!r:.100}.")
    except web.HTTPMethodNotAllowed as problem:
        allowed = ", ".join(sorted(problem.allowed_methods))
        refusal = error(405, "method_not_allowed", f"Only {allowed} will do here.")
        refusal.headers["Allow"] = allowed
        return refusal
    except web.HTTPRequestEntityTooLarge:
        return error(413, "too_large", f"More than {MOST_BYTES} bytes.")
    except (web.RequestPayloadError, ConnectionError):
        return error(400, "malformed", "The request breaks off, or is not encoded as it says.")
    except TimeoutError:
        return error(408, "too_slow", "The request took too long to arrive.")


def _bind(control_socket: Path) -> socket.socket:
    """A socket with mode 0600 before anybody can connect: nobody can until it listens."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        control_socket.parent.mkdir(parents=True, exist_ok=True)
        _make_room(control_socket)
        listener.bind(str(control_socket))
        control_socket.chmod(0o600)
    except OSError as problem:
        listener.close()
        raise FailoverAgentError(
            where=str(control_socket),
            what=f"the control socket cannot be made ({problem.strerror or problem})",
            todo="Run as root, or name a place that you may write to: control_socket in the "
            "role's table of the configuration.",
        ) from problem
    except FailoverAgentError:
        listener.close()
        raise
    return listener


def _make_room(control_socket: Path) -> None:
    """Remove a socket that nobody listens on any more, and nothing else."""
    try:
        mode = control_socket.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FailoverAgentError(
            where=str(control_socket),
            what="there is a file here that is no socket",
            todo="Move it away, or name another control_socket in the role's table of the "
            "configuration.",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(control_socket))
        except ConnectionRefusedError:
            control_socket.unlink()
            return
    raise FailoverAgentError(
        where=str(control_socket),
        what="another agent listens on this control socket",
        todo=f"`fuser {control_socket}` names it: end it, or give each agent a control_socket of "
        "its own.",
    )
