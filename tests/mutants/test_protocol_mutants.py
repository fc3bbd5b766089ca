"""S6, nothing moves without the secret; S3 and V3 at a witness: bent in turn, and each is caught.

These modules are small, so a mutant is one named function replaced while the test that guards it
runs. That the same test passes unbent is shown where it lives, in tests/unit.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from failover_agent.core import ballot
from failover_agent.protocol import auth, envelope, sessions, wire
from tests.unit import test_auth, test_sessions, test_wire, test_witness

pytestmark = pytest.mark.mutant


@dataclass(frozen=True)
class Bend:
    """`owner.name` is replaced by `by`; `caught_by` is the test that must fail then."""

    what: str
    owner: object
    name: str
    by: Callable[..., Any]
    caught_by: Callable[[], None]


def _yes(*_: object) -> bool:
    return True


def _nothing(*_: object) -> None:
    pass


BENDS = [
    Bend(
        "any signature is as good as the right one",
        envelope,
        "is_same",
        _yes,
        lambda: test_auth.test_an_unsigned_or_wrongly_signed_message_is_401_and_no_alarm("0" * 64),
    ),
    Bend(
        "an answer needs no signature",
        auth.Keeper,
        "_is_authentic_answer",
        _yes,
        test_auth.test_an_agent_that_answers_with_another_secret_or_none_is_an_alarm,
    ),
    Bend(
        "a message is taken as often as it comes",
        sessions.Window,
        "take",
        _yes,
        test_sessions.test_a_message_is_taken_once,
    ),
    Bend(
        "what an earlier run of the sender said is still taken",
        sessions.Seat,
        "take",
        lambda *_: sessions.Freshness.KNOWN,
        lambda: test_sessions.test_what_an_earlier_run_of_the_sender_said_is_worthless(
            was_heard=True
        ),
    ),
    Bend(
        "a term that nobody can have come to is believed",
        auth.Keeper,
        "_refuse_absurd",
        _nothing,
        test_auth.test_a_term_that_nobody_can_have_come_to_is_malformed_from_both_ends,
    ),
    Bend(
        "an arbiter may speak as a node, and a node as an arbiter",
        wire,
        "_tell_apart",
        _nothing,
        test_wire.test_an_arbiter_has_no_phase_and_no_beat_and_a_node_has_both,
    ),
    Bend(
        "two witnesses have two votes",
        sessions.Answerer,
        "why_not",
        lambda *_: "",
        test_auth.test_two_witnesses_behind_two_endpoints_are_none,
    ),
    Bend(
        "the votes of two backups are one",
        sessions.Answerer,
        "why_not",
        lambda *_: "",
        test_auth.test_of_two_backups_the_one_that_speaks_to_us_answers,
    ),
    Bend(
        "a witness gives its vote before it is on disk",
        ballot,
        "needs_save",
        lambda *_: False,
        lambda: asyncio.run(test_witness.test_a_full_disk_gives_no_new_vote_and_renews_on()),
    ),
    Bend(
        "a witness renews one while its disk may name another",
        ballot,
        "needs_save",
        lambda before, after, _: before.durable != after.durable,
        lambda: asyncio.run(
            test_witness.test_while_a_save_for_another_is_in_doubt_no_renewal_goes_without_one()
        ),
    ),
    Bend(
        "a witness without a record believes nobody about the longest lease",
        ballot,
        "_told",
        lambda voter, *_: voter,
        test_witness.test_without_a_record_the_length_asked_for_tells_too,
    ),
]


@pytest.mark.parametrize("bend", BENDS, ids=lambda bend: bend.what)
def test_the_bend_is_caught(bend: Bend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bend.owner, bend.name, bend.by)

    with pytest.raises((AssertionError, pytest.fail.Exception)):
        bend.caught_by()
