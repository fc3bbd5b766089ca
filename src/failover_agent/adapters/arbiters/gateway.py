"""How an etcd is asked: JSON over HTTP, with TLS and a user's token where it wants them.

One call is one question to one member, and as long as it takes: whoever asks gives it an end.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from failover_agent.adapters.arbiters import parse
from failover_agent.adapters.names import LookUp, Names, name_of
from failover_agent.errors import ConfigError

MOST_BYTES = 64 * 1024
KEPT_S = 60.0
NOT_ENABLED = "etcdserver: authentication is not enabled"
WRONG_PASSWORD = "etcdserver: authentication failed, invalid user ID or password"  # noqa: S105
NO_USER = "etcdserver: user name is empty"
FULL = "database space exceeded"
LATE = "deadline exceeded"
DENIED = 7
UNAVAILABLE = (4, 8, 10, 14)
"""Deadline, exhausted, aborted, unavailable: an etcd that cannot agree with its other members."""


class NotAnsweredError(Exception):
    """A member gave no answer to use: a clause for people, and sentences on what to do.

    `code` is that of gRPC where etcd itself refused.
    """

    def __init__(self, what: str, todo: str, code: int = 0) -> None:
        super().__init__(what)
        self.todo = todo
        self.code = code


class _RefusedError(Exception):
    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code
        self.words = words


@dataclass(frozen=True, slots=True)
class Access:
    """What an etcd wants of its clients. `username` None: no authentication.

    Without `ca_file` the machine's own list of authorities decides.
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


class Member:
    """One member of the etcd, by the address at which it is reached."""

    def __init__(self, url: str, look_up: LookUp) -> None:
        self.url = URL(url)
        host = self.url.host or ""
        self.name = name_of(host, look_up)

    def __str__(self) -> str:
        return str(self.url.origin())

    def doubt(self) -> None:
        """Nobody could be reached there."""
        if self.name is not None:
            self.name.doubt()


class Gateway:
    """Raises ConfigError when a file of TLS cannot be used."""

    def __init__(self, members: Iterable[Member], access: Access) -> None:
        self._members = tuple(members)
        self._username = access.username
        self._password = access.password or ""
        self._tls = _tls(access)
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._token: str | None = None
        """"" where authentication is off, None where it has to be asked for."""

    async def ask(self, member: Member, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer of `member` to POST /v3/`path`. Raises NotAnsweredError."""
        try:
            return await self._ask(member, path, body)
        except _RefusedError as refused:
            what, todo = self._meaning(refused)
            raise NotAnsweredError(f"{member}: {what}", todo, refused.code) from refused

    async def version(self, member: Member) -> str:
        """What it runs, for people; it needs no user. Raises NotAnsweredError."""
        status, body = await self._exchange(member, "GET", "version", None, "")
        try:
            return str(json.loads(body)["etcdserver"])[:32]
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            _, words = parse.refusal(status, body)
            raise _strange(member, words) from error

    async def keep_names(self) -> None:
        """Keep the addresses of host names up to date, forever.

        That one has none is told by the questions to it.
        """
        async with asyncio.TaskGroup() as group:
            for member in self._members:
                if member.name is not None:
                    group.create_task(member.name.keep(lambda _: None))
            await asyncio.Event().wait()

    async def close(self) -> None:
        """End the connections; nothing is to be asked afterwards."""
        for session in self._sessions.values():
            await session.close()

    # --- a user's token -----------------------------------------------------------------------

    async def _ask(self, member: Member, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if self._username is None:
            return await self._post(member, path, body, "")
        token = self._token
        if token is not None:
            try:
                return await self._post(member, path, body, token)
            except _RefusedError as refused:
                if not parse.is_outdated(refused.code, refused.words):
                    raise
        return await self._post(member, path, body, await self._authenticate(member))

    async def _authenticate(self, member: Member) -> str:
        """A new token: etcd forgets them after some minutes, and when it restarts."""
        asked = {"name": self._username, "password": self._password}
        try:
            answer = await self._post(member, "auth/authenticate", asked, "")
        except _RefusedError as refused:
            if refused.words != NOT_ENABLED:
                raise
            answer = {}
        self._token = str(answer.get("token", ""))
        return self._token

    def _meaning(self, refused: _RefusedError) -> tuple[str, str]:
        """A refusal of etcd: what it means, and what to do about it."""
        code, words = refused.code, refused.words
        user = self._username or "without a name"
        if words == WRONG_PASSWORD:
            what = f"etcd knows no user {user} with this password"
            return what, "Correct username and password in [arbiter]."
        if words == NO_USER:
            return "etcd wants a user and a password", "Set username and password in [arbiter]."
        if code == DENIED:
            what = f"etcd denies the user {user} the keys of failover-agent"
            prefix = f"--prefix=true readwrite {parse.PREFIX}"
            return what, f"Let a role of it have them: etcdctl role grant-permission {prefix}"
        if FULL in words:
            todo = "Compact and defragment it, then etcdctl alarm disarm; set auto-compaction."
            return "the database of etcd is full", todo
        if code in UNAVAILABLE or LATE in words:
            todo = "etcdctl endpoint health --cluster tells whether a majority of its members runs."
            return f"etcd cannot decide ({words})", todo
        if code:
            return f"etcd refuses ({words})", "Look into its log."
        return f"no etcd answers there ({words})", "Correct endpoint in [arbiter]."

    # --- one question -------------------------------------------------------------------------

    async def _post(
        self, member: Member, path: str, body: dict[str, Any], token: str
    ) -> dict[str, Any]:
        said = json.dumps(body).encode()
        status, answered = await self._exchange(member, "POST", f"v3/{path}", said, token)
        if status != 200:
            raise _RefusedError(*parse.refusal(status, answered))
        try:
            answer = json.loads(answered)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise _strange(member, "no JSON")
        return answer

    async def _exchange(
        self, member: Member, method: str, path: str, body: bytes | None, token: str
    ) -> tuple[int, bytes]:
        """Status and body. A kept connection may be dead: then once more, on a new one.

        To say a transaction twice is harmless, since it compares.
        """
        try:
            try:
                return await self._send(member, method, path, body, token)
            except aiohttp.ClientConnectorError:
                raise
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
                return await self._send(member, method, path, body, token, on_new_connection=True)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _trouble(member, error) from error

    async def _send(
        self,
        member: Member,
        method: str,
        path: str,
        body: bytes | None,
        token: str,
        *,
        on_new_connection: bool = False,
    ) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if token:
            headers["Authorization"] = token
        answered = bytearray()
        async with self._session(on_new_connection).request(
            method,
            member.url.origin() / path,
            data=body,
            headers=headers,
            allow_redirects=False,
        ) as response:
            async for chunk in response.content.iter_any():
                answered += chunk
                if len(answered) > MOST_BYTES:
                    raise ValueError(f"more than {MOST_BYTES} bytes")
            return response.status, bytes(answered)

    def _session(self, on_new_connection: bool) -> aiohttp.ClientSession:
        """The pool, or one that never uses a connection twice. No proxy, cookie or limit."""
        if on_new_connection not in self._sessions:
            resolver = Names(member.name for member in self._members if member.name is not None)
            connector = aiohttp.TCPConnector(
                resolver=resolver,
                use_dns_cache=False,
                limit=0,
                ssl=self._tls,
                force_close=on_new_connection,
                keepalive_timeout=None if on_new_connection else KEPT_S,
            )
            self._sessions[on_new_connection] = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._sessions[on_new_connection]


def _strange(member: Member, why: object) -> NotAnsweredError:
    what = f"{member} does not answer as an etcd does ({why})"
    return NotAnsweredError(what, "Correct endpoint in [arbiter].")


def _trouble(member: Member, error: Exception) -> NotAnsweredError:
    """Why there was no answer, for people."""
    which = (
        "Is it http or https there? Does it want a certificate of ours (cert_file, key_file)? "
        "Does it still run?"
    )
    # So does an etcd that is killed, and one that misses TLS or a certificate.
    closes = NotAnsweredError(f"{member} closes the connection", which)
    match error:
        case aiohttp.ClientConnectorCertificateError():
            why = getattr(error.certificate_error, "verify_message", "") or str(error)
            what = f"{member}: its certificate is not one to trust ({why})"
            todo = "ca_file in [arbiter] names the authority that signed it, endpoint its host."
            return NotAnsweredError(what, todo)
        case aiohttp.ClientConnectorDNSError():
            todo = "Write an address into endpoint of [arbiter], or the name into /etc/hosts."
            return NotAnsweredError(str(error.os_error), todo)
        case aiohttp.ClientConnectorSSLError() | ssl.SSLError():
            return NotAnsweredError(f"{member}: no TLS ({_reason_of_tls(error)})", which)
        case aiohttp.ClientConnectorError(os_error=ConnectionResetError() | BrokenPipeError()):
            member.doubt()
            return closes  # in the middle of the TLS handshake
        case aiohttp.ClientConnectorError() if error.os_error.errno:
            member.doubt()
            todo = f"Start etcd there, and let port {member.url.port} through its firewall."
            what = f"no connection to {member}: {os.strerror(error.os_error.errno)}"
            return NotAnsweredError(what, todo)
        case aiohttp.ClientConnectionError():
            return closes
        case _:
            return _strange(member, error)


def _reason_of_tls(error: Exception) -> str:
    inner = getattr(error, "os_error", error)
    reason = getattr(inner, "reason", None) or str(inner)
    return str(reason).lower().replace("_", " ")


def _tls(access: Access) -> ssl.SSLContext:
    """Raises ConfigError."""
    try:
        context = ssl.create_default_context(cafile=access.ca_file)
    except OSError as error:
        raise ConfigError(
            where=f"[arbiter] ca_file = {access.ca_file}",
            what=f"no certificates can be read from it ({error.strerror or error})",
            todo="It is a PEM file with the authority that signed etcd's certificates.",
        ) from error
    if access.cert_file is None:
        return context
    try:
        context.load_cert_chain(access.cert_file, access.key_file)
    except OSError as error:
        raise ConfigError(
            where=f"[arbiter] cert_file = {access.cert_file}",
            what=f"certificate and key cannot be used ({error.strerror or error})",
            todo="Both are PEM files, belong together, and are readable for the agent.",
        ) from error
    return context
