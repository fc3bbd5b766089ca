"""Nothing said once is worth anything later, and whoever was restarted is understood at once."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failover_agent.core.messages import (
    BeatAnswer,
    ReleaseRequest,
    VoteKind,
    VoteRequest,
)
from failover_agent.core.policy import Role
from failover_agent.core.state import Reason
from failover_agent.protocol.auth import (
    AskAgain,
    Denied,
    Heard,
    Refused,
    Understood,
)
from failover_agent.protocol.sessions import WINDOW, Window
from failover_agent.protocol.wire import Kind
from tests.unit.speakers import (
    BACKUP,
    PRIMARY,
    SECRET,
    beat,
    changed,
    hear,
    keeper,
    meet,
    read_reply,
    reply,
    say,
)

# --- the handshake --------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [SECRET, None])
def test_a_first_message_is_refused_with_our_run_and_taken_the_second_time(
    secret: bytes | None,
) -> None:
    primary, backup = keeper(PRIMARY, secret), keeper(BACKUP, secret)
    said = beat(PRIMARY)

    first = primary.request(Role.BACKUP, said)
    refused = hear(backup, first)
    assert isinstance(refused, Denied)
    assert (refused.status, refused.error, refused.conflict) == (409, "unknown_run", None)
    assert read_reply(primary, first, reply(backup, refused)) == AskAgain()

    second = primary.request(Role.BACKUP, said)
    heard = hear(backup, second)
    assert isinstance(heard, Heard)
    assert heard.request == said
    read = read_reply(primary, second, reply(backup, heard))
    assert read == Understood(BeatAnswer(BACKUP, beat(BACKUP), None), BACKUP)


def test_once_acquainted_each_message_is_taken_at_once() -> None:
    primary, backup = meet()

    for _ in range(3):
        assert isinstance(say(primary, backup, tries=1)[0], Understood)


def test_several_first_messages_side_by_side_are_all_taken_the_second_time() -> None:
    primary, backup = keeper(PRIMARY), keeper(BACKUP)
    vote = VoteRequest(PRIMARY, VoteKind.POLL, 0, 10.0, 10.0, Reason.PEER_SILENT)

    first = [primary.request(Role.BACKUP, said) for said in (beat(PRIMARY), vote)]
    replies = [reply(backup, hear(backup, sent)) for sent in first]
    for sent, answered in zip(first, replies, strict=True):
        assert read_reply(primary, sent, answered) == AskAgain()

    second = [primary.request(Role.BACKUP, said) for said in (vote, beat(PRIMARY))]
    assert all(isinstance(hear(backup, sent), Heard) for sent in second)


def test_a_restarted_receiver_is_found_again_in_one_more_exchange() -> None:
    primary, _ = meet()
    restarted = keeper(replace(BACKUP, run_id="b2"))

    assert isinstance(say(primary, restarted, tries=2)[0], Understood)


def test_a_restarted_sender_is_taken_at_once() -> None:
    _, backup = meet()
    restarted = keeper(replace(PRIMARY, run_id="a2"))

    assert isinstance(say(restarted, backup, tries=2)[0], Understood)


def test_an_answer_that_was_overtaken_does_not_bring_an_old_run_back() -> None:
    primary, backup = meet()
    late = primary.request(Role.BACKUP, beat(PRIMARY))
    late_answer = reply(backup, hear(backup, late))
    restarted = keeper(replace(BACKUP, run_id="b2"))
    assert isinstance(say(primary, restarted)[0], Understood)

    assert isinstance(read_reply(primary, late, late_answer), Understood)

    assert isinstance(say(primary, restarted, tries=1)[0], Understood)


# --- replay ---------------------------------------------------------------------------------------


def test_a_message_is_taken_once() -> None:
    primary, backup = meet()
    sent = primary.request(Role.BACKUP, beat(PRIMARY))

    assert isinstance(hear(backup, sent), Heard)
    again = hear(backup, sent)

    assert isinstance(again, Denied)
    assert (again.status, again.error, again.conflict) == (409, "replayed", None)
    assert backup.rejected["replayed"] == 1


def test_a_message_overtaken_by_others_is_taken_once_too() -> None:
    primary, backup = meet()
    slow = primary.request(Role.BACKUP, beat(PRIMARY))
    for _ in range(WINDOW - 1):
        assert isinstance(say(primary, backup, tries=1)[0], Understood)

    assert isinstance(hear(backup, slow), Heard)
    assert isinstance(hear(backup, slow), Denied)


def test_a_message_too_old_to_tell_is_not_taken() -> None:
    primary, backup = meet()
    slow = primary.request(Role.BACKUP, beat(PRIMARY))
    for _ in range(WINDOW):
        assert isinstance(say(primary, backup, tries=1)[0], Understood)

    assert isinstance(hear(backup, slow), Denied)


def test_a_beat_overtaken_on_another_path_is_no_replay() -> None:
    primary, backup = meet()
    first = primary.request(Role.BACKUP, beat(PRIMARY), endpoint=1)
    assert read_reply(primary, first, reply(backup, hear(backup, first))) == AskAgain()
    slow = primary.request(Role.BACKUP, beat(PRIMARY), endpoint=1)
    for _ in range(2 * WINDOW):
        assert isinstance(say(primary, backup, tries=1)[0], Understood)

    assert isinstance(hear(backup, slow), Heard)


def test_what_was_said_to_an_earlier_run_of_ours_is_worthless() -> None:
    primary, _ = meet()
    recorded = [primary.request(Role.BACKUP, beat(PRIMARY)) for _ in range(3)]
    restarted = keeper(replace(BACKUP, run_id="b2"))

    for sent in recorded:
        refused = hear(restarted, sent)
        assert isinstance(refused, Denied)
        assert refused.error == "unknown_run"


@pytest.mark.parametrize("was_heard", [True, False])
def test_what_an_earlier_run_of_the_sender_said_is_worthless(was_heard: bool) -> None:
    primary, backup = meet()
    recorded = [primary.request(Role.BACKUP, beat(PRIMARY)) for _ in range(3)]
    if was_heard:
        for sent in recorded:
            hear(backup, sent)
    restarted = keeper(replace(PRIMARY, run_id="a2"))
    assert isinstance(say(restarted, backup)[0], Understood)

    for sent in recorded:
        refused = hear(backup, sent)
        assert isinstance(refused, Denied)
        assert (refused.error, refused.conflict) == ("unknown_run", None)
    assert isinstance(say(restarted, backup, tries=1)[0], Understood)


def test_nothing_of_many_earlier_runs_is_ever_taken_again() -> None:
    backup = keeper(BACKUP)
    recorded = []
    for number in range(50):
        primary = keeper(replace(PRIMARY, run_id=f"a{number}"))
        for _ in range(3):
            sent = primary.request(Role.BACKUP, beat(primary.me))
            recorded.append(sent)
            read_reply(primary, sent, reply(backup, hear(backup, sent)))

    assert not any(isinstance(hear(backup, sent), Heard) for sent in recorded)


def test_a_replay_does_not_take_the_number_from_one_who_shakes_hands() -> None:
    primary, backup = meet()
    recorded = primary.request(Role.BACKUP, beat(PRIMARY))
    hear(backup, recorded)
    restarted = keeper(replace(PRIMARY, run_id="a2"))
    first = restarted.request(Role.BACKUP, beat(restarted.me))
    read_reply(restarted, first, reply(backup, hear(backup, first)))

    for _ in range(5):
        hear(backup, recorded)

    assert isinstance(say(restarted, backup, tries=1)[0], Understood)


def test_a_message_is_worthless_at_another_address() -> None:
    primary, backup = meet()
    release = ReleaseRequest(PRIMARY, 7, None, Reason.OPERATOR)
    sent = primary.request(Role.BACKUP, release)

    for kind in set(Kind) - {Kind.RELEASE}:
        refused = hear(backup, sent, kind=kind)
        assert isinstance(refused, Denied)
        assert refused.status == 400


def test_a_message_counts_in_the_sequence_of_its_own_kind() -> None:
    primary, backup = meet()
    sent = changed(primary.request(Role.BACKUP, beat(PRIMARY)), path="0/vote")

    refused = hear(backup, sent)

    assert isinstance(refused, Denied)
    assert (refused.status, refused.detail) == (400, "path: this is no heartbeat")


def test_an_answer_is_worthless_for_another_request() -> None:
    primary, backup = meet()
    one, other = (primary.request(Role.BACKUP, beat(PRIMARY)) for _ in range(2))
    answered = reply(backup, hear(backup, one))

    read = read_reply(primary, other, answered)

    assert isinstance(read, Refused)
    assert isinstance(read_reply(primary, one, answered), Understood)


def test_without_a_secret_an_answer_still_names_its_request() -> None:
    primary, backup = meet(secret=None)
    one, other = (primary.request(Role.BACKUP, beat(PRIMARY)) for _ in range(2))

    read = read_reply(primary, other, reply(backup, hear(backup, one)))

    assert read == Refused("malformed", "it answered another request")


def test_a_request_sent_back_is_no_answer_and_no_request() -> None:
    primary, _ = meet()
    sent = primary.request(Role.BACKUP, beat(PRIMARY))

    read = read_reply(primary, sent, (200, sent.signed))
    assert isinstance(read, Refused)
    refused = hear(primary, sent)
    assert isinstance(refused, Denied)
    assert (refused.error, refused.conflict) == ("unknown_run", None)


@given(st.lists(st.integers(1, 300), max_size=400))
def test_a_window_takes_no_number_twice_and_none_that_is_new_enough_is_lost(
    numbers: list[int],
) -> None:
    window, taken, highest = Window(), set[int](), 0

    for number in numbers:
        is_new = number not in taken and number > highest - WINDOW
        assert window.take(number) is is_new
        taken.add(number)
        highest = max(highest, number)


def test_a_window_stays_small_whatever_the_number() -> None:
    window = Window()

    assert [window.take(number) for number in (2**53, 2**53, 1, 2**53 - 1)] == [
        True,
        False,
        False,
        True,
    ]
    assert window._taken.bit_length() <= WINDOW
    assert not Window().take(0)
    for number in range(1, 3 * WINDOW):
        window.take(2**53 + number)
    assert window._taken.bit_length() == WINDOW
