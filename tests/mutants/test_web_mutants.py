"""The limits of web/connections.py and turns.py, and the order in which a message is judged: each
one taken away in turn, and each is missed.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from failover_agent.protocol import auth, envelope, sessions, wire
from failover_agent.web import connections
from failover_agent.web.connections import Connections
from failover_agent.web.turns import Turns
from tests.integration import hostile
from tests.integration import test_hostile_http as tests
from tests.integration import test_hostile_messages as messages
from tests.integration.hostile import request

pytestmark = [pytest.mark.mutant, pytest.mark.integration]


@dataclass(frozen=True)
class Gap:
    """`owner.name` is replaced by `by`; `missed_by` is the test that must fail then."""

    what: str
    owner: object
    name: str
    by: object
    missed_by: Callable[[pytest.MonkeyPatch, Path], Any]


async def _at_once(_: Turns) -> None:
    pass


def _acts_first(
    self: auth.Keeper, kind: wire.Kind, signature: str, body: bytes, now: float
) -> auth.Heard | auth.Denied:
    """Judge what is said before who said it."""
    said = envelope.read_request(body)
    request = wire.request_of(kind, said.message, said.sender)
    self._seats[said.sender.role].give(said.sender, said.session, said.path, said.seq, now)
    if not self._is_authentic_request(signature, body):
        return auth.Denied("not_authentic", "too late")
    return auth.Heard(request, auth.Receipt(signature, said.id, said.session))


UPLOAD = request("POST", "/v1/vote", f"Content-Length: {2**40}")
GAPS = [
    Gap(
        "a message is acted upon before its signature is looked at",
        auth.Keeper,
        "_admit",
        _acts_first,
        lambda *_: messages.test_what_is_signed_wrongly_or_for_somebody_else_moves_nothing(),
    ),
    Gap(
        "what was heard before is heard again",
        sessions.Window,
        "take",
        lambda *_: True,
        lambda _, path: messages.test_what_was_recorded_is_worthless_everywhere(path),
    ),
    Gap(
        "a connection may send without an end",
        Connections,
        "may_send",
        lambda *_: True,
        lambda *_: tests.test_one_that_sends_without_an_end_is_closed_soon(UPLOAD),
    ),
    Gap(
        "a connection may stay as long as it likes",
        Connections,
        "_limit",
        lambda *_: None,
        lambda patch, _: tests.test_one_that_never_reads_its_answer_is_closed(patch),
    ),
    Gap(
        "long answers are given to everybody",
        connections,
        "MOST_LONG_BYTES",
        math.inf,
        lambda *_: tests.test_long_answers_that_nobody_reads_are_bounded_together(),
    ),
    Gap(
        "all hosts are one crowd",
        connections,
        "_address",
        lambda _: "",
        lambda *_: tests.test_a_host_takes_connections_from_itself_alone(),
    ),
    Gap(
        "whoever has recorded a hello is one of ours",
        connections,
        "_was_heard",
        lambda request, response: request.method == "POST" and response.status == 200,
        lambda *_: tests.test_a_recorded_hello_makes_no_stranger_one_of_ours(),
    ),
    Gap(
        "who comes last goes first",
        Connections,
        "_close_one_for",
        lambda self, newcomer: self._lines.pop(newcomer).transport.abort(),
        lambda *_: tests.test_a_thousand_idle_connections_keep_no_node_out(),
    ),
    Gap(
        "all requests begin in one round of the loop",
        Turns,
        "wait",
        _at_once,
        lambda *_: tests.test_each_round_of_the_loop_begins_one(),
    ),
]


@pytest.mark.parametrize("gap", GAPS, ids=lambda gap: gap.what)
def test_the_gap_is_missed(gap: Gap, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gap.owner, gap.name, gap.by)
    monkeypatch.setattr(hostile, "ANSWER_S", 2.0)

    with pytest.raises((AssertionError, TimeoutError, OSError, EOFError)):
        asyncio.run(gap.missed_by(monkeypatch, tmp_path))
