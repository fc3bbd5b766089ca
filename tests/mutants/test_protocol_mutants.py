"""S6, nothing moves without the secret: the protocol bent in turn, and each bend is caught.

The protocol's modules are small and pure, so a mutant is one named function replaced while the test
that guards it runs. That the same test passes unbent is shown where it lives, in tests/unit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from failover_agent.protocol import auth, envelope, sessions
from tests.unit import test_auth, test_sessions

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
]


@pytest.mark.parametrize("bend", BENDS, ids=lambda bend: bend.what)
def test_the_bend_is_caught(bend: Bend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bend.owner, bend.name, bend.by)

    with pytest.raises(AssertionError):
        bend.caught_by()
