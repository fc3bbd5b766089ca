"""Has the engine kill containers: so that its restart policies know, and where we see no process.

Plain HTTP/1.0 by hand, all requests side by side: a hung engine costs one limit, not one for each.
A name is never put into a path, where the engine would also take it for the beginning of an id.
"""

import json
import re
import select
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import quote

from failover_agent.guard.watch import CONTAINER_ID

MOST_ANSWER = 1 << 22
READ = 1 << 16


def kill(host: str, names: Sequence[str], ids: Iterable[str], limit_s: float) -> Mapping[str, bool]:
    """SIGKILL to these containers, and to whatever bears these names now.

    By id: did the engine end it now? Takes at most `limit_s` seconds, but for the resolver, where
    `host` names one; what was not answered by then is left out. Never raises for a bad world.
    """
    ends_at_s = _now() + limit_s
    known = sorted(set(ids))
    wanted = json.dumps({"name": [f"^/{re.escape(name)}$" for name in names]})
    orders = [_kill_order(it) for it in known]
    listing, *answers = _ask(
        host, [f"GET /containers/json?filters={quote(wanted)}", *orders], ends_at_s
    )
    new = [it for it in _ids(listing) if it not in known]
    answers += _ask(host, [_kill_order(it) for it in new], ends_at_s) if new else []
    return {
        it: answer.split(b" ", 2)[1:2] == [b"204"]
        for it, answer in zip((*known, *new), answers, strict=True)
        if answer
    }


def _kill_order(container_id: str) -> str:
    return f"POST /containers/{container_id}/kill"


def _ids(answer: bytes) -> list[str]:
    """The running containers of a list."""
    with suppress(ValueError, KeyError, TypeError):
        rows = json.loads(answer.partition(b"\r\n\r\n")[2])
        return [row["Id"] for row in rows if CONTAINER_ID.fullmatch(row["Id"])]
    return []


@dataclass(slots=True)
class _Question:
    """One request on a connection of its own; `answer` is whole when the engine closes it."""

    socket: socket.socket
    request: bytes
    answer: bytearray = field(default_factory=bytearray)
    has_ended: bool = False


def _ask(host: str, requests: Sequence[str], ends_at_s: float) -> list[bytes]:
    """Their answers, empty where one did not come to its end."""
    questions: list[_Question | None] = []
    for request in requests:
        text = f"{request} HTTP/1.0\r\nHost: docker\r\nContent-Length: 0\r\n\r\n"
        try:
            questions.append(_Question(_connect(host), text.encode()))
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
            if not question.request:
                poll.modify(handle, select.POLLIN)
            if question.has_ended:
                poll.unregister(handle)
                del open_ones[handle]
    for each in questions:
        if each is not None:
            each.socket.close()
    return [bytes(it.answer) if it is not None and it.has_ended else b"" for it in questions]


def _go_on(question: _Question, happened: int) -> None:
    """Raises OSError where the connection broke, BlockingIOError where it is not time yet."""
    if question.request and happened & select.POLLOUT:
        question.request = question.request[question.socket.send(question.request) :]
    elif happened & ~select.POLLOUT:
        part = question.socket.recv(READ)
        question.answer += part
        question.has_ended = not part or len(question.answer) > MOST_ANSWER


def _connect(host: str) -> socket.socket:
    """A socket that is connected, or about to be. Raises OSError, or ValueError for a bad host."""
    if host.startswith("unix://"):
        family, address = socket.AF_UNIX, host.removeprefix("unix://")
        made = socket.socket(family, socket.SOCK_STREAM)
    else:
        name, _, port = host.removeprefix("tcp://").rpartition(":")
        [(found, _, _, _, where), *_] = socket.getaddrinfo(
            name.strip("[]"), int(port), type=socket.SOCK_STREAM
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


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
