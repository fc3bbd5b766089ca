"""Who may speak: signatures, garbage, and who is not whom we took it for (V9)."""

import hmac
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failover_agent.core.events import ConflictKind
from failover_agent.core.messages import (
    BeatAnswer,
    ReleaseRequest,
    Sender,
    VoteKind,
    VoteRequest,
)
from failover_agent.core.policy import Role
from failover_agent.core.state import Phase, Reason
from failover_agent.protocol import envelope, wire
from failover_agent.protocol.auth import (
    AskAgain,
    Denied,
    Heard,
    Keeper,
    Refused,
    Understood,
)
from failover_agent.protocol.envelope import Rival
from failover_agent.protocol.wire import LARGEST_STEP, Hello, HelloAnswer, Kind
from tests.unit import strategies
from tests.unit.speakers import (
    BACKUP,
    LIVING_FOR_S,
    NOW,
    PRIMARY,
    SECRET,
    WITNESS,
    WORD,
    beat,
    changed,
    hear,
    keeper,
    meet,
    read_reply,
    reply,
    say,
    shake_hands,
)

# --- signatures -----------------------------------------------------------------------------------


@given(st.data())
def test_a_request_with_any_bit_flipped_is_refused(data: st.DataObject) -> None:
    primary, backup = meet()
    sent = primary.request(Role.BACKUP, beat(PRIMARY))
    signature = bytes.fromhex(sent.signed.signature)
    bit = data.draw(st.integers(0, 8 * (len(sent.signed.body) + len(signature)) - 1))
    flipped = bytearray(sent.signed.body + signature)
    flipped[bit // 8] ^= 1 << bit % 8
    body, signature = bytes(flipped[: -len(signature)]), bytes(flipped[-len(signature) :])

    refused = backup.admit(sent.kind, signature.hex(), body, NOW)

    assert isinstance(refused, Denied)
    assert (refused.status, refused.receipt, refused.conflict) == (401, None, None)
    assert isinstance(hear(backup, sent), Heard)


@given(st.data())
def test_an_answer_with_any_bit_flipped_is_refused(data: st.DataObject) -> None:
    primary, backup = meet()
    sent = primary.request(Role.BACKUP, beat(PRIMARY))
    status, signed = reply(backup, hear(backup, sent))
    bit = data.draw(st.integers(0, 8 * len(signed.body) - 1))
    flipped = bytearray(signed.body)
    flipped[bit // 8] ^= 1 << bit % 8

    assert isinstance(primary.read_answer(sent, status, signed.signature, bytes(flipped)), Refused)
    assert isinstance(primary.read_answer(sent, 409, signed.signature, signed.body), Refused)
    assert isinstance(read_reply(primary, sent, (status, signed)), Understood)


@pytest.mark.parametrize("signature", ["", "0" * 64, "é" * 64, "\udcff", "x" * 9000])
def test_an_unsigned_or_wrongly_signed_message_is_401_and_no_alarm(signature: str) -> None:
    primary, backup = meet()
    sent = primary.request(Role.BACKUP, beat(PRIMARY))

    refused = backup.admit(sent.kind, signature, sent.signed.body, NOW)

    assert isinstance(refused, Denied)
    assert (refused.status, refused.error, refused.conflict) == (401, "not_authentic", None)
    assert backup.rejected["not_authentic"] == 1


@pytest.mark.parametrize(
    ("mine", "theirs", "who"),
    [
        (SECRET, b"another secret", "does not accept our signature"),
        (SECRET, None, "does not accept our signature"),
        (None, SECRET, "does not accept our signature"),
    ],
)
def test_who_has_another_secret_learns_it_from_the_refusal(
    mine: bytes | None, theirs: bytes | None, who: str
) -> None:
    primary, backup = keeper(PRIMARY, mine), keeper(BACKUP, theirs)
    sent = primary.request(Role.BACKUP, beat(PRIMARY))
    refused = hear(backup, sent)
    assert isinstance(refused, Denied)
    assert (refused.status, refused.receipt) == (401, None)

    body = json.dumps({"error": refused.error, "detail": refused.detail}).encode()
    read = primary.read_answer(sent, 401, "", body)

    assert isinstance(read, Refused)
    assert read.conflict is not None
    assert read.conflict.kind is ConflictKind.NOT_AUTHENTIC
    assert who in read.detail


def test_an_agent_that_answers_with_another_secret_or_none_is_an_alarm() -> None:
    sent = keeper(PRIMARY).request(Role.BACKUP, beat(PRIMARY))
    for secret in (b"another secret", None):
        stranger = keeper(BACKUP, secret)
        signature = envelope.sign_request(secret, sent.signed.body) if secret else ""
        judged = stranger.admit(sent.kind, signature, sent.signed.body, NOW)
        read = read_reply(keeper(PRIMARY), sent, reply(stranger, judged))

        assert isinstance(read, Refused)
        assert read.conflict is not None
        assert read.conflict.kind is ConflictKind.NOT_AUTHENTIC


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b"<html>"), (502, b'{"error": "bad_gateway"}'), (200, b""), (401, b"[1]"), (200, b"{}")],
)
def test_something_else_that_listens_there_is_no_alarm(status: int, body: bytes) -> None:
    primary = keeper(PRIMARY)
    sent = primary.request(Role.BACKUP, beat(PRIMARY))

    read = primary.read_answer(sent, status, "", body)

    assert isinstance(read, Refused)
    assert read.conflict is None
    assert "is it the agent of the backup that listens there?" in read.detail


def test_the_token_for_reading_is_not_the_secret() -> None:
    node = keeper(PRIMARY)

    assert node.is_reader(envelope.read_token(SECRET))
    assert node.is_reader(hmac.new(SECRET, b"failover-agent read", "sha256").hexdigest())
    assert not node.is_reader(SECRET.decode())
    assert not node.is_reader("")
    assert not node.is_reader("ä")
    assert not keeper(PRIMARY, secret=None).is_reader("")


# --- garbage --------------------------------------------------------------------------------------


@given(st.sampled_from(Kind), st.binary(max_size=300))
def test_garbage_is_refused_and_never_raises(kind: Kind, body: bytes) -> None:
    for secret in (SECRET, None):
        signature = envelope.sign_request(secret, body) if secret else ""
        judged = keeper(PRIMARY, secret).admit(kind, signature, body, NOW)
        assert isinstance(judged, Denied)
        assert (judged.status, judged.conflict) == (400, None)

        node = keeper(PRIMARY, secret)
        sent = node.request(Role.BACKUP, beat(PRIMARY))
        signature = envelope.sign_answer(secret, sent.signed.signature, 200, body) if secret else ""
        read = node.read_answer(sent, 200, signature, body)
        assert isinstance(read, Refused)


@given(
    st.sampled_from(["protocol", "cluster", "sender", "to", "path", "seq", "message", "more"]),
    st.none() | st.booleans() | st.integers() | st.text(max_size=80) | st.just({}) | st.just([]),
)
def test_any_value_in_any_field_of_the_envelope_is_judged(field: str, value: object) -> None:
    primary, backup = meet()
    sent = changed(primary.request(Role.BACKUP, beat(PRIMARY)), **{field: value})

    judged = hear(backup, sent)

    assert isinstance(judged, Heard | Denied)
    if isinstance(judged, Denied):
        assert judged.status in (400, 409)
        reply(backup, judged)


@given(strategies.requests)
def test_every_request_arrives_through_the_envelope(request: wire.Request) -> None:
    sender = getattr(request, "sender", PRIMARY)
    node = Keeper(
        cluster="shop", me=sender, secret=SECRET, peers=frozenset(), living_for_s=LIVING_FOR_S
    )
    sent = node.request(Role.BACKUP, request)

    read = envelope.read_request(sent.signed.body)

    assert read.sender == sender
    assert wire.request_of(sent.kind, read.message, read.sender) == request


@given(strategies.answers)
def test_every_answer_arrives_through_the_envelope(answer: tuple[Kind, wire.Answer]) -> None:
    kind, message = answer
    node = keeper(BACKUP)
    receipt = Heard(Hello(), _receipt(node)).receipt

    read = envelope.read_answer(node.answer(receipt, message).body)

    assert read.re == receipt.id
    assert wire.answer_of(kind, read.message, getattr(message, "sender", BACKUP)) == message


def _receipt(node: Keeper) -> Any:
    heard = hear(node, keeper(PRIMARY).request(Role.BACKUP, Hello()))
    assert isinstance(heard, Heard)
    return heard.receipt


def test_a_refusal_that_could_not_read_the_request_is_bound_to_it_all_the_same() -> None:
    primary, backup = meet()
    one, other = (primary.request(Role.BACKUP, beat(PRIMARY)) for _ in range(2))
    refusal = reply(backup, hear(backup, changed(one, seq=-1)))

    read = read_reply(primary, other, refusal)

    assert isinstance(read, Refused)
    assert read.error == "not_authentic"


def test_a_malformed_message_names_the_field_in_a_signed_refusal() -> None:
    primary, backup = meet()
    sent = primary.request(Role.BACKUP, beat(PRIMARY))
    message = {**json.loads(sent.signed.body)["message"], "term": -1}
    bent = changed(sent, message=message)

    refused = hear(backup, bent)

    assert isinstance(refused, Denied)
    assert refused.status == 400
    assert refused.detail.startswith("term: Input should be greater")
    read = read_reply(primary, bent, reply(backup, refused))
    assert isinstance(read, Refused)
    assert read.error == "malformed"
    assert isinstance(say(primary, backup, tries=1)[0], Understood)


# --- identity (V9) --------------------------------------------------------------------------------


def _conflict_of(judged: Heard | Denied) -> tuple[ConflictKind, str, bool, bool]:
    assert isinstance(judged, Denied)
    assert judged.status == 409
    assert judged.conflict is not None
    seen = judged.conflict
    return seen.kind, seen.node_id, seen.holding, seen.may_lead


def test_an_endpoint_that_leads_to_ourselves_is_seen_from_both_ends() -> None:
    node = keeper(PRIMARY)
    sent, judged = shake_hands(node, node, beat(PRIMARY))
    read = read_reply(node, sent, reply(node, judged))

    assert _conflict_of(judged)[0] is ConflictKind.ENDPOINT_IS_SELF
    assert isinstance(read, Refused)
    assert read.conflict is not None
    assert read.conflict.kind is ConflictKind.ENDPOINT_IS_SELF


def test_another_agent_with_a_copy_of_our_record_is_seen() -> None:
    copy = keeper(replace(PRIMARY, run_id="a2"))

    read, judged = say(copy, keeper(PRIMARY))

    assert _conflict_of(judged)[0] is ConflictKind.ENDPOINT_IS_SELF
    assert isinstance(read, Refused)
    assert "another agent has the record of this node (aa)" in read.detail


@pytest.mark.parametrize("renews", [True, False])
@pytest.mark.parametrize("may_lead", [True, False])
def test_two_primaries_learn_of_each_other_whether_the_other_holds_or_could(
    renews: bool, may_lead: bool
) -> None:
    one, other = keeper(PRIMARY), keeper(Sender(Role.PRIMARY, "cc", "c1", "f"))

    sent, judged = shake_hands(one, other, beat(PRIMARY, renews=renews, may_lead=may_lead))

    assert _conflict_of(judged) == (ConflictKind.SAME_ROLE, "aa", renews, may_lead)
    assert isinstance(judged, Denied)
    assert judged.receipt is not None
    rival = Rival("cc", holding=renews, may_lead=may_lead)
    refusal = other.refusal(judged.receipt, 409, judged.error, judged.detail, rival)
    read = read_reply(one, sent, (409, refusal))
    assert isinstance(read, Refused)
    assert read.conflict is not None
    seen = read.conflict
    assert (seen.kind, seen.node_id) == (ConflictKind.SAME_ROLE, "cc")
    assert (seen.holding, seen.may_lead) == (renews, may_lead)


def test_a_prepare_of_the_same_role_comes_from_one_that_holds() -> None:
    one, other = keeper(PRIMARY), keeper(Sender(Role.PRIMARY, "cc", "c1", "f"))
    prepare = VoteRequest(PRIMARY, VoteKind.PREPARE, 7, 10.0, 10.0, Reason.OPERATOR)

    _, judged = shake_hands(one, other, prepare)

    assert _conflict_of(judged) == (ConflictKind.SAME_ROLE, "aa", True, True)


def test_another_cluster_is_seen_from_both_ends() -> None:
    read, judged = say(keeper(PRIMARY, cluster="shop"), keeper(BACKUP, cluster="till"))

    assert _conflict_of(judged)[0] is ConflictKind.OTHER_CLUSTER
    assert isinstance(read, Refused)
    assert read.conflict is not None
    assert read.conflict.kind is ConflictKind.OTHER_CLUSTER
    assert read.detail == "the other node is of cluster 'till', and this one of 'shop'"


def test_an_endpoint_that_leads_to_the_wrong_role_is_seen_from_both_ends() -> None:
    witness, primary = keeper(WITNESS), keeper(PRIMARY)
    sent, judged = shake_hands(primary, witness, beat(PRIMARY))
    read = read_reply(primary, sent, reply(witness, judged))

    assert _conflict_of(judged)[0] is ConflictKind.WRONG_ROLE
    assert isinstance(read, Refused)
    assert read.conflict is not None
    assert read.conflict.kind is ConflictKind.WRONG_ROLE


def test_a_role_that_we_do_not_talk_with_is_refused() -> None:
    release = ReleaseRequest(WITNESS, 7, None, Reason.OPERATOR)

    _, judged = shake_hands(keeper(WITNESS), keeper(PRIMARY), release, Role.PRIMARY)

    assert _conflict_of(judged)[0] is ConflictKind.WRONG_ROLE


def test_an_arbiter_answers_and_is_understood() -> None:
    primary, witness = keeper(PRIMARY), keeper(WITNESS)

    sent, judged = shake_hands(primary, witness, beat(PRIMARY), Role.WITNESS)

    assert isinstance(judged, Heard)
    read = read_reply(primary, sent, reply(witness, judged))
    assert read == Understood(BeatAnswer(WITNESS, None, WORD), WITNESS)


def test_an_arbiter_that_is_not_configured_is_not_believed() -> None:
    primary = Keeper(
        cluster="shop",
        me=PRIMARY,
        secret=SECRET,
        peers=frozenset({Role.BACKUP}),
        living_for_s=LIVING_FOR_S,
    )
    witness = keeper(WITNESS)

    sent, judged = shake_hands(primary, witness, beat(PRIMARY), Role.WITNESS)

    read = read_reply(primary, sent, reply(witness, judged))
    assert isinstance(read, Refused)
    assert read.error == "wrong_role"


def test_a_witness_that_does_not_serve_the_cluster_is_an_alarm_for_who_asks_it() -> None:
    primary = keeper(PRIMARY)
    body = json.dumps({"error": "other_cluster", "detail": "what?"}).encode()

    for to, error in [(Role.WITNESS, "other_cluster"), (Role.BACKUP, "malformed")]:
        read = primary.read_answer(primary.request(to, beat(PRIMARY)), 409, "", body)
        assert isinstance(read, Refused)
        assert read.error == error
        assert (read.conflict is not None) == (to is Role.WITNESS)


def test_a_term_that_nobody_can_have_come_to_is_malformed_from_both_ends() -> None:
    absurd = 7 + LARGEST_STEP + 1
    primary, backup = meet()
    far = replace(beat(BACKUP), term=absurd)
    sent = primary.request(Role.BACKUP, beat(PRIMARY))
    heard = hear(backup, sent)
    assert isinstance(heard, Heard)
    read = read_reply(
        primary, sent, (200, backup.answer(heard.receipt, BeatAnswer(BACKUP, far, None)))
    )

    assert isinstance(read, Refused)
    assert (
        read.detail == f"its answer is malformed: term: {absurd} is absurd: here the highest is 7"
    )
    _, judged = shake_hands(backup, primary, far, Role.PRIMARY)
    assert isinstance(judged, Denied)
    assert (judged.status, judged.error) == (400, "malformed")


def test_a_term_is_measured_by_all_that_was_said_and_recorded_before() -> None:
    far = 2 * LARGEST_STEP
    primary, backup = keeper(PRIMARY), keeper(BACKUP, term=far)

    _, judged = shake_hands(primary, backup, replace(beat(PRIMARY), term=far + 1))

    assert isinstance(judged, Heard)
    again = replace(PRIMARY, run_id="a2")
    _, judged = shake_hands(keeper(again), backup, beat(again))
    assert isinstance(judged, Heard), "a node that lost its record starts from below"


def test_another_protocol_is_refused_and_alarms_who_hears_the_refusal() -> None:
    primary, backup = meet()
    sent = changed(primary.request(Role.BACKUP, beat(PRIMARY)), protocol=2)

    refused = hear(backup, sent)

    assert isinstance(refused, Denied)
    assert (refused.status, refused.error) == (409, "other_protocol")
    assert refused.conflict is None
    read = read_reply(primary, sent, reply(backup, refused))
    assert isinstance(read, Refused)
    assert read.conflict is not None
    assert read.conflict.kind is ConflictKind.OTHER_PROTOCOL


def test_an_answer_in_another_protocol_is_an_alarm() -> None:
    primary, backup = meet()
    sent = primary.request(Role.BACKUP, beat(PRIMARY))
    _, signed = reply(backup, hear(backup, sent))
    body = json.dumps({**json.loads(signed.body), "protocol": 2, "new": 1}).encode()
    signature = envelope.sign_answer(SECRET, sent.signed.signature, 200, body)

    read = primary.read_answer(sent, 200, signature, body)

    assert isinstance(read, Refused)
    assert read.conflict is not None
    assert read.detail == ("the backup speaks protocol 2, and this node 1: upgrade the older one")


def test_a_conflict_is_seen_once_for_each_message_and_not_for_its_replay() -> None:
    one, other = keeper(PRIMARY), keeper(Sender(Role.PRIMARY, "cc", "c1", "f"))
    recorded = []
    for _ in range(4):
        sent = one.request(Role.BACKUP, beat(PRIMARY))
        recorded.append(sent)
        read_reply(one, sent, reply(other, hear(other, sent)))

    for sent in recorded:
        judged = hear(other, sent)
        assert isinstance(judged, Denied)
        assert (judged.error, judged.conflict) == ("unknown_run", None)


def test_the_second_of_two_backups_is_refused_and_the_first_goes_on() -> None:
    primary = keeper(PRIMARY)
    first, second = keeper(BACKUP), keeper(Sender(Role.BACKUP, "cc", "c1", "f"))
    assert isinstance(say(first, primary)[0], Understood)

    read, judged = say(second, primary, NOW + 1)

    assert _conflict_of(judged) == (ConflictKind.SAME_ROLE, "cc", False, False)
    assert isinstance(read, Refused)
    assert read.conflict is not None
    seen = read.conflict
    assert (seen.node_id, seen.holding, seen.may_lead) == ("bb", True, True)
    assert isinstance(say(first, primary, NOW + 1, tries=1)[0], Understood)


def test_the_first_counts_as_alive_from_the_last_time_it_was_heard() -> None:
    primary = keeper(PRIMARY)
    first, second = keeper(BACKUP), keeper(Sender(Role.BACKUP, "cc", "c1", "f"))
    say(first, primary, NOW)
    say(first, primary, NOW + LIVING_FOR_S - 1)

    _, judged = say(second, primary, NOW + LIVING_FOR_S + 1)

    assert _conflict_of(judged)[0] is ConflictKind.SAME_ROLE


def test_a_new_backup_is_taken_once_the_old_one_is_silent_and_the_old_one_refused() -> None:
    primary = keeper(PRIMARY)
    old, new = keeper(BACKUP), keeper(Sender(Role.BACKUP, "cc", "c1", "f"))
    say(old, primary, NOW)

    assert isinstance(say(new, primary, NOW + LIVING_FOR_S + 0.1)[0], Understood)

    _, judged = say(old, primary, NOW + LIVING_FOR_S + 1)
    assert _conflict_of(judged)[0] is ConflictKind.SAME_ROLE
    assert isinstance(say(old, primary, NOW + 3 * LIVING_FOR_S)[0], Understood)


def test_two_living_agents_with_one_record_are_seen() -> None:
    primary = keeper(PRIMARY)
    one, other = keeper(BACKUP), keeper(replace(BACKUP, run_id="b2"))
    say(one, primary, NOW)
    assert isinstance(say(other, primary, NOW + 1)[0], Understood)

    _, judged = say(one, primary, NOW + 2)

    assert _conflict_of(judged)[0] is ConflictKind.SAME_ROLE
    assert isinstance(judged, Denied)
    assert judged.detail == "two agents run as the backup with one record (node bb)"


def test_settings_read_anew_do_not_make_another_node() -> None:
    primary, backup = meet()
    primary.me = replace(PRIMARY, fingerprint="g")

    assert isinstance(say(primary, backup, tries=1)[0], Understood)


# --- hello ----------------------------------------------------------------------------------------


def test_a_check_is_answered_and_leaves_the_running_agent_alone() -> None:
    primary, backup = meet()
    check = keeper(replace(PRIMARY, run_id="check"))
    sent = check.request(Role.BACKUP, Hello())

    heard = hear(backup, sent)

    assert isinstance(heard, Heard)
    read = read_reply(check, sent, reply(backup, heard))
    assert read == Understood(HelloAnswer("0.1.0", Phase.STANDBY), BACKUP)
    assert isinstance(say(primary, backup, tries=1)[0], Understood)


def test_a_check_sees_that_another_role_answers() -> None:
    witness, check = keeper(WITNESS), keeper(replace(PRIMARY, run_id="check"))
    sent = check.request(Role.BACKUP, Hello())

    read = read_reply(check, sent, reply(witness, hear(witness, sent)))

    assert isinstance(read, Refused)
    assert read.conflict is not None
    assert read.conflict.kind is ConflictKind.WRONG_ROLE


def test_a_check_sees_what_is_wrong_without_alarming_the_other_node() -> None:
    other = keeper(Sender(Role.PRIMARY, "cc", "c1", "f"))
    check = keeper(replace(PRIMARY, run_id="check"))
    sent = check.request(Role.BACKUP, Hello())

    heard = hear(other, sent)

    assert isinstance(heard, Heard)
    read = read_reply(check, sent, reply(other, heard))
    assert isinstance(read, Refused)
    assert read.conflict is not None
    assert read.conflict.kind is ConflictKind.SAME_ROLE


def test_the_wire_looks_like_this() -> None:
    primary, backup = meet()
    sent = primary.request(Role.BACKUP, Hello())
    heard = hear(backup, sent)
    assert isinstance(heard, Heard)

    assert json.loads(sent.signed.body) == {
        "protocol": 1,
        "cluster": "shop",
        "sender": {"role": "primary", "node_id": "aa", "run_id": "a1", "fingerprint": "f"},
        "to": {"role": "backup", "run_id": "b1", "session": 1},
        "path": "0/hello",
        "seq": 1,
        "message": {},
    }
    assert json.loads(reply(backup, heard)[1].body) == {
        "protocol": 1,
        "cluster": "shop",
        "sender": {"role": "backup", "node_id": "bb", "run_id": "b1", "fingerprint": "f"},
        "session": 0,
        "re": {"run_id": "a1", "path": "0/hello", "seq": 1},
        "message": {"version": "0.1.0", "phase": "standby"},
    }


# --- one role, two nodes that answer (V9) ---------------------------------------------------------


def answered(asker: Keeper, by: Keeper, endpoint: int) -> Understood | AskAgain | Refused:
    """What the asker makes of the answer over that endpoint, once it is known there."""
    while True:
        sent = asker.request(by.me.role, beat(asker.me), endpoint=endpoint)
        read = read_reply(asker, sent, reply(by, hear(by, sent)))
        if not isinstance(read, AskAgain):
            return read


def test_two_witnesses_behind_two_endpoints_are_none() -> None:
    """Each could give its vote to another node, once the wire between the nodes is cut."""
    primary = keeper(PRIMARY)
    first, second = keeper(WITNESS), keeper(replace(WITNESS, node_id="vv", run_id="v1"))
    assert isinstance(answered(primary, first, 0), Understood)
    assert isinstance(answered(primary, second, 1), Understood), "it may be in its place"

    reads = [answered(primary, *each) for each in 2 * [(first, 0), (second, 1)]]

    for read in reads:
        assert isinstance(read, Refused)
        assert read.conflict is not None
        assert read.conflict.kind is ConflictKind.SAME_ROLE
        assert "two nodes answer as the witness, vv and ww:" in read.detail
        assert (read.conflict.holding, read.conflict.may_lead) == (False, False)


def test_a_witness_in_the_place_of_another_is_believed_and_a_late_answer_says_nothing() -> None:
    primary = keeper(PRIMARY)
    first, second = keeper(WITNESS), keeper(replace(WITNESS, node_id="vv", run_id="v1"))
    assert isinstance(answered(primary, first, 0), Understood)
    sent = primary.request(Role.WITNESS, beat(PRIMARY))
    late = reply(first, hear(first, sent))

    assert isinstance(answered(primary, second, 1), Understood)
    assert isinstance(read_reply(primary, sent, late), Understood)

    assert isinstance(answered(primary, second, 1), Understood)


def test_of_two_backups_the_one_that_speaks_to_us_answers() -> None:
    """Another way leads to an old host with the same file, secret and role."""
    primary, backup = meet()
    old = keeper(replace(BACKUP, node_id="old", run_id="o1"))
    assert isinstance(say(backup, primary)[0], Understood)
    assert isinstance(answered(primary, backup, 0), Understood)
    assert isinstance(answered(primary, old, 1), Understood), "it may be in its place"

    assert isinstance(answered(primary, backup, 0), Understood)
    read = answered(primary, old, 1)

    assert isinstance(read, Refused)
    assert "two nodes answer as the backup, bb and old:" in read.detail
    assert read.conflict is not None
    assert (read.conflict.kind, read.conflict.holding) == (ConflictKind.SAME_ROLE, False)
    assert isinstance(answered(primary, backup, 0), Understood)
