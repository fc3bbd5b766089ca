"""Has the engine kill containers: so that its restart policies know, and where we see no process.

Plain HTTP/1.0 by hand, all requests side by side: a hung engine costs one limit, not one for each.
A name is never put into a path, where the engine would also take it for the beginning of an id.
"""

from __future__ import annotations

import json
import re
import select
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from failover_agent.guard.watch import CONTAINER_ID

if TYPE_CHECKING:
    import ssl

MOST_ANSWER = 1 << 22
READ = 1 << 16

MOST_FILTERED = 32
"""The engine tries each name of a filter on each of its containers: with more, all are listed."""

TLS = "https://"
"""An engine behind TLS; unix:// and tcp:// have none."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Of a host that begins with https://: who signed the engine's certificate, and our own with
    its key. Each the path of a PEM file, or empty: the authorities of this system, no certificate.
    """

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


NO_FILES = TlsFiles()


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """Asks for the engine's certificate and checks it, name and all. Raises OSError (ssl.SSLError
    among them) where a file cannot be used; never asks for a passphrase.
    """
    import ssl  # some megabytes, for those who use TLS

    context = ssl.create_default_context(cafile=files.ca_file or None)
    if files.cert_file:
        context.load_cert_chain(files.cert_file, files.key_file or None, password="")
    return context


def prepare(files: TlsFiles) -> None:
    """All that TLS needs is in memory afterwards. What is wrong with the files is the agent's to
    say.
    """
    with suppress(OSError, ValueError):
        tls_context(files)


def kill(
    host: str,
    names: Sequence[str],
    ids: Iterable[str],
    limit_s: float,
    files: TlsFiles = NO_FILES,
) -> Mapping[str, bool]:
    """SIGKILL to these containers, and to whatever bears these names now.

    By id: did the engine end it now? Takes at most `limit_s` seconds, but for the resolver, where
    `host` names one; what was not answered by then is left out. Never raises for a bad world.
    """
    ends_at_s = _now() + limit_s
    known = sorted(set(ids))
    filtered = [f"^/{re.escape(name)}$" for name in names] if len(names) <= MOST_FILTERED else []
    wanted = json.dumps({"name": filtered} if filtered else {})
    orders = [_kill_order(it) for it in known]
    try:
        context = tls_context(files) if host.startswith(TLS) else None
    except (OSError, ValueError):
        return {}
    listing, *answers = _ask(
        host, context, [f"GET /containers/json?filters={quote(wanted)}", *orders], ends_at_s
    )
    new = [it for it in _ids(listing, frozenset(names)) if it not in known]
    answers += _ask(host, context, [_kill_order(it) for it in new], ends_at_s) if new else []
    return {
        it: answer.split(b" ", 2)[1:2] == [b"204"]
        for it, answer in zip((*known, *new), answers, strict=True)
        if answer
    }


def _kill_order(container_id: str) -> str:
    return f"POST /containers/{container_id}/kill"


def _ids(answer: bytes, names: frozenset[str]) -> list[str]:
    """The running containers of a list that bear these names."""
    with suppress(ValueError, KeyError, TypeError):
        rows = json.loads(answer.partition(b"\r\n\r\n")[2])
        return [
            row["Id"]
            for row in rows
            if CONTAINER_ID.fullmatch(row["Id"]) and not names.isdisjoint(_names(row))
        ]
    return []


def _names(row: Mapping[str, Any]) -> list[str]:
    return [name.removeprefix("/") for name in row["Names"]]


class _Tls:
    """What goes over the wire for one request, and what came. Raises OSError for what is not right:
    a certificate, or no TLS at all.
    """

    def __init__(self, context: ssl.SSLContext, name: str, request: bytes) -> None:
        import ssl

        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._waits: tuple[type[Exception], ...] = (ssl.SSLWantReadError,)
        self._ends: tuple[type[Exception], ...] = (ssl.SSLZeroReturnError, ssl.SSLEOFError)
        self._request = request

    def to_send(self) -> bytes:
        """Takes a step, as far as it goes."""
        if self._request:
            with suppress(*self._waits):
                self._tls.do_handshake()
                self._tls.write(self._request)
                self._request = b""
        return self._outgoing.read()

    def receive(self, part: bytes) -> tuple[bytes, bool]:
        """What the engine said, and whether that was all. `part` empty: the connection ended."""
        if part:
            self._incoming.write(part)
        else:
            self._incoming.write_eof()
        plain = bytearray()
        with suppress(*self._waits):
            try:
                while not self._request and (said := self._tls.read(READ)):
                    plain += said
            except self._ends:
                return bytes(plain), True
        return bytes(plain), not part


@dataclass(slots=True)
class _Question:
    """One request on a connection of its own; `answer` is whole when the engine closes it."""

    socket: socket.socket
    unsent: bytes
    tls: _Tls | None = None
    answer: bytearray = field(default_factory=bytearray)
    has_ended: bool = False


def _ask(
    host: str, context: ssl.SSLContext | None, requests: Sequence[str], ends_at_s: float
) -> list[bytes]:
    """Their answers, empty where one did not come to its end."""
    questions: list[_Question | None] = []
    for request in requests:
        text = f"{request} HTTP/1.0\r\nHost: docker\r\nContent-Length: 0\r\n\r\n"
        try:
            questions.append(_question(host, context, text.encode()))
        except (OSError, ValueError):
            questions.append(None)
    open_ones = {it.socket.fileno(): it for it in questions if it is not None}
    poll = select.poll()
    for handle in open_ones:
        poll.register(handle, select.POLLIN | select.POLLOUT)
    while open_ones and (wait_s := ends_at_s - _now()) > 0:
        for handle, happened in poll.poll(wait_s * 1000):
            question = open_ones[handle]
            try:
                _go_on(question, happened)
            except BlockingIOError:
                continue
            except OSError:
                question.answer.clear()
                question.has_ended = True
            poll.modify(handle, select.POLLIN | (select.POLLOUT if question.unsent else 0))
            if question.has_ended:
                poll.unregister(handle)
                del open_ones[handle]
    for each in questions:
        if each is not None:
            each.socket.close()
    return [bytes(it.answer) if it is not None and it.has_ended else b"" for it in questions]


def _question(host: str, context: ssl.SSLContext | None, request: bytes) -> _Question:
    """Raises OSError, or ValueError for a bad host."""
    if context is None:
        return _Question(_connect(host), request)
    tls = _Tls(context, _name_and_port(host)[0], request)
    return _Question(_connect(host), tls.to_send(), tls)


def _go_on(question: _Question, happened: int) -> None:
    """Raises OSError where the connection broke, BlockingIOError where it is not time yet."""
    if question.unsent and happened & select.POLLOUT:
        question.unsent = question.unsent[question.socket.send(question.unsent) :]
    elif happened & ~select.POLLOUT:
        part = question.socket.recv(READ)
        if question.tls is None:
            question.answer += part
            question.has_ended = not part
        else:
            plain, question.has_ended = question.tls.receive(part)
            question.answer += plain
            question.unsent += question.tls.to_send()
        question.has_ended |= len(question.answer) > MOST_ANSWER


def _connect(host: str) -> socket.socket:
    """A socket that is connected, or about to be. Raises OSError, or ValueError for a bad host."""
    if host.startswith("unix://"):
        family, address = socket.AF_UNIX, host.removeprefix("unix://")
        made = socket.socket(family, socket.SOCK_STREAM)
    else:
        [(found, _, _, _, where), *_] = socket.getaddrinfo(
            *_name_and_port(host), type=socket.SOCK_STREAM
        )
        made = socket.socket(found, socket.SOCK_STREAM)
        address = where  # type: ignore[assignment]  # of another family
    made.setblocking(False)
    try:
        made.connect(address)
    except BlockingIOError as error:
        # Under way; but a unix socket whose queue is full refuses so, and for good.
        if made.family == socket.AF_UNIX:
            made.close()
            raise ConnectionRefusedError from error
    except OSError:
        made.close()
        raise
    return made


def _name_and_port(host: str) -> tuple[str, int]:
    """Raises ValueError."""
    name, _, port = host.partition("://")[2].rpartition(":")
    return name.strip("[]"), int(port)


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
