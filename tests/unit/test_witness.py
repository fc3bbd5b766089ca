"""What an arbiter answers (core/ballot.py), and that it is on disk before (witness.py)."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from failover_agent.cli import status as cli_status
from failover_agent.cli.output import Paint
from failover_agent.core import voter as voters
from failover_agent.core.ballot import Ballot, decide, needs_save
from failover_agent.core.events import ConflictKind, ConflictSeen
from failover_agent.core.messages import (
    LONGEST_LEASE_S,
    Beat,
    BeatAnswer,
    Refusal,
    ReleaseAnswer,
    ReleaseRequest,
    Request,
    Sender,
    Vote,
    VoteAnswer,
    VoteKind,
    VoteRequest,
)
from failover_agent.core.policy import Role
from failover_agent.core.state import FOREVER, Durable, Holder, Reason
from failover_agent.core.voter import Voter
from failover_agent.errors import ExitCode
from failover_agent.web.witness_status import status_of
from failover_agent.witness import Pair, Witness
from tests.lab.until import until_async
from tests.unit.speakers import BACKUP, NOW, PRIMARY, WITNESS, beat

T = 10.0
A, B = Holder(Role.PRIMARY, "aa"), Holder(Role.BACKUP, "bb")
HELD = Durable(term=7, holder=A, released=False, longest_lease_s=T)


def _about(length_s: float) -> Any:
    return pytest.approx(length_s)


def _begin(durable: Durable = HELD, *, forgot: bool = False) -> Voter:
    return voters.begin(durable, NOW, timeout_s=T, forgot=forgot)


def _renewal(sender: Sender = PRIMARY, term: int = 7, **fields: Any) -> Beat:
    return replace(beat(sender, renews=True), term=term, **fields)


def _asks(
    sender: Sender,
    kind: VoteKind = VoteKind.CANDIDACY,
    term: int = 8,
    *,
    reason: Reason = Reason.PEER_SILENT,
    lease_s: float = T,
    longest_lease_s: float = T,
) -> VoteRequest:
    return VoteRequest(sender, kind, term, lease_s, longest_lease_s, reason)


def _vote(voter: Voter, request: Request, now: float) -> tuple[Voter, Vote]:
    after, answer = decide(voter, request, now, WITNESS)
    assert isinstance(answer, BeatAnswer | VoteAnswer)
    assert answer.sender == WITNESS
    assert answer.vote is not None
    return after, answer.vote


def _renewed(now: float = NOW, **fields: Any) -> Voter:
    """A voter, long started, whose promise to the primary runs from `now` on."""
    started = replace(_begin(), grants_after_s=now)
    voter, vote = _vote(started, _renewal(**fields), now)
    assert vote.granted
    return voter


# --- beats (V1, V2, V8) ---------------------------------------------------------------------------


def test_a_renewal_is_granted_at_once_after_a_start_and_runs_on_our_clock() -> None:
    voter, vote = _vote(_begin(), _renewal(), NOW + 1)

    assert vote == Vote(granted=True, term=7, holder=A, remaining_s=_about(T * 1.01))
    assert voter.durable == HELD, "a renewal writes nothing"


def test_a_beat_that_renews_nothing_hears_how_the_promise_stands_and_changes_nothing() -> None:
    voter = _renewed()

    after, answer = decide(voter, beat(BACKUP), NOW + 4, WITNESS)

    assert answer == BeatAnswer(WITNESS, None, Vote(False, 7, A, _about(6.1)))
    assert after == voter
    _, vote = _vote(voter, beat(BACKUP), NOW + T * 1.01)
    assert (vote.holder, vote.remaining_s) == (None, None)


@pytest.mark.parametrize(
    ("request_", "refusal"),
    [
        (_renewal(BACKUP, 7), Refusal.PROMISED),
        (_renewal(BACKUP, 8), Refusal.PROMISED),
        (_renewal(PRIMARY, 6), Refusal.OLD_TERM),
        (_renewal(PRIMARY, 7, lease_s=LONGEST_LEASE_S + 1), Refusal.LEASE_TOO_LONG),
    ],
)
def test_a_renewal_that_is_nobodys_due_is_refused(request_: Beat, refusal: Refusal) -> None:
    voter = _renewed()

    after, vote = _vote(voter, request_, NOW + 1)

    assert (vote.granted, vote.refusal, vote.term, vote.holder) == (False, refusal, 7, A)
    assert after == voter


def test_a_hold_has_no_end_and_the_holders_next_renewal_ends_it() -> None:
    held = _renewed(hold=True)

    assert held.durable.hold
    assert _vote(held, beat(BACKUP), NOW + 1e6)[1].remaining_s == FOREVER
    assert _vote(held, _asks(BACKUP), NOW + 1e6)[1].refusal is Refusal.PROMISED
    back, vote = _vote(held, _renewal(), NOW + 1e6)
    assert (vote.granted, back.durable.hold, vote.remaining_s) == (
        True,
        False,
        _about(T * 1.01),
    )


def test_a_beat_that_was_overtaken_undoes_no_hold_and_a_new_run_counts_from_below() -> None:
    held = _renewed(hold=True, number=5)

    after, vote = _vote(held, _renewal(number=4), NOW + 1)
    assert (vote.granted, vote.remaining_s, after.durable.hold) == (False, FOREVER, True)

    again = replace(PRIMARY, run_id="a2")
    assert not _vote(held, _renewal(again, number=1), NOW + 1)[0].durable.hold


def test_an_operators_takeover_ends_a_hold_and_no_promise_that_has_an_end() -> None:
    word = _asks(BACKUP, reason=Reason.OPERATOR)

    voter, vote = _vote(_renewed(hold=True), word, NOW + 1)
    assert vote.granted
    assert (voter.durable.holder, voter.durable.hold) == (B, False)
    assert _vote(_renewed(), word, NOW + 1)[1].refusal is Refusal.PROMISED


def test_a_hold_stands_across_a_restart_of_the_witness() -> None:
    again = _begin(_renewed(hold=True).durable)

    assert _vote(again, _asks(BACKUP), NOW + 1e6)[1].refusal is Refusal.PROMISED


# --- candidacies (V2, V4) -------------------------------------------------------------------------


def test_a_candidacy_is_granted_when_the_promise_has_ended() -> None:
    voter = _renewed()

    assert _vote(voter, _asks(BACKUP), NOW + 10.0)[1].refusal is Refusal.PROMISED
    after, vote = _vote(voter, _asks(BACKUP), NOW + 10.1)

    assert vote == Vote(granted=True, term=8, holder=B, remaining_s=_about(T * 1.01))
    assert (after.durable.term, after.durable.holder) == (8, B)
    assert _vote(after, _renewal(PRIMARY, 7), NOW + 10.2)[1].refusal is Refusal.PROMISED
    assert _vote(after, _renewal(PRIMARY, 7), NOW + 30)[1].refusal is Refusal.OLD_TERM


def test_a_poll_promises_nothing() -> None:
    voter = _renewed()

    after, vote = _vote(voter, _asks(BACKUP, VoteKind.POLL, 0), NOW + 10.1)

    assert vote.granted
    assert after == voter


def test_a_term_that_was_granted_is_granted_to_nobody_else() -> None:
    voter = _renewed()

    assert _vote(voter, _asks(BACKUP, term=7), NOW + 11)[1].refusal is Refusal.OLD_TERM


def test_an_arbiter_takes_nothing_over() -> None:
    voter = _renewed()

    after, answer = decide(voter, _asks(PRIMARY, VoteKind.PREPARE, 7), NOW, WITNESS)

    assert isinstance(answer, VoteAnswer)
    assert (answer.vote.refusal, answer.phase) == (Refusal.NOT_READY, None)
    assert (answer.kind, answer.asked_term) == (VoteKind.PREPARE, 7)
    assert after == voter


def test_after_a_start_the_holder_on_record_is_served_and_everybody_else_waits() -> None:
    voter = _begin()

    assert _vote(voter, _asks(PRIMARY), NOW)[1].granted
    early = _vote(voter, _asks(BACKUP), NOW + 10.0)[1]
    assert (early.refusal, early.remaining_s) == (Refusal.JUST_STARTED, _about(0.1))
    assert _vote(voter, _asks(BACKUP), NOW + 10.2)[1].granted


def test_after_a_release_on_record_anybody_is_served_at_once() -> None:
    assert _vote(_begin(replace(HELD, released=True)), _asks(BACKUP), NOW)[1].granted


@pytest.mark.parametrize("told", [beat(BACKUP), _asks(BACKUP, VoteKind.POLL, 0)])
def test_without_a_record_it_waits_the_longest_lease_that_anybody_tells_of(told: Any) -> None:
    voter = _begin(Durable(), forgot=True)
    voter, _ = _vote(voter, replace(told, longest_lease_s=60.0), NOW + 1)

    assert _vote(voter, _asks(BACKUP), NOW + 60)[1].refusal is Refusal.JUST_STARTED
    assert _vote(voter, _asks(BACKUP), NOW + 60.7)[1].granted


def test_without_a_record_the_length_asked_for_tells_too() -> None:
    voter = _begin(Durable(), forgot=True)

    long = _asks(BACKUP, lease_s=60.0, longest_lease_s=0.0)
    assert _vote(voter, long, NOW + 11)[1].refusal is Refusal.JUST_STARTED


def test_without_a_record_a_holder_is_renewed_and_its_release_shortens_no_waiting() -> None:
    voter, vote = _vote(_begin(Durable(), forgot=True), _renewal(), NOW + 1)
    assert vote.granted

    voter, _ = decide(voter, _release(PRIMARY, 7), NOW + 2, WITNESS)

    assert voter.durable.released
    assert _vote(voter, _asks(BACKUP), NOW + 3)[1].refusal is Refusal.JUST_STARTED
    assert _vote(voter, _asks(BACKUP), NOW + 10.2)[1].granted


# --- releases (V7) --------------------------------------------------------------------------------


def _release(sender: Sender, term: int) -> ReleaseRequest:
    return ReleaseRequest(sender, term, None, Reason.OPERATOR)


def test_a_release_frees_the_vote_and_a_late_renewal_takes_it_back_for_nobody() -> None:
    voter, answer = decide(_renewed(), _release(PRIMARY, 7), NOW + 1, WITNESS)

    assert answer == ReleaseAnswer(WITNESS, released_term=7, term=7)
    assert _vote(voter, _renewal(), NOW + 1)[1].refusal is Refusal.OLD_TERM
    assert _vote(voter, _asks(BACKUP), NOW + 1)[1].granted


@pytest.mark.parametrize("request_", [_release(BACKUP, 7), _release(PRIMARY, 6)])
def test_a_release_by_another_or_of_an_earlier_term_changes_nothing(
    request_: ReleaseRequest,
) -> None:
    voter = _renewed()

    after, answer = decide(voter, request_, NOW + 1, WITNESS)

    assert after == voter
    assert answer == ReleaseAnswer(WITNESS, request_.term, 7)


# --- what has to be saved (V3) --------------------------------------------------------------------


def test_what_changes_the_record_is_saved_first_and_a_renewal_is_not() -> None:
    voter = _renewed()
    cases: list[tuple[Request, bool]] = [
        (_renewal(), False),
        (beat(BACKUP), False),
        (_asks(BACKUP, VoteKind.POLL, 0), False),
        (_renewal(hold=True), True),
        (_renewal(lease_s=20.0), True),
        (_renewal(term=8), True),
        (_asks(PRIMARY), True),
        (_release(PRIMARY, 7), True),
    ]
    for request, saves in cases:
        after, _ = decide(voter, request, NOW + 1, WITNESS)
        assert needs_save(voter, after, None) is saves, request


def test_a_renewal_is_saved_while_the_disk_may_name_somebody_else() -> None:
    voter = _renewed()
    after, _ = decide(voter, _renewal(), NOW + 1, WITNESS)
    other = Durable(term=8, holder=B, released=False)

    assert needs_save(voter, after, other)
    assert needs_save(voter, after, replace(HELD, released=True))
    assert not needs_save(voter, after, replace(HELD, hold=True))
    assert not needs_save(voter, voter, other), "a word that grants nothing waits for no disk"


# --- the pair around it ---------------------------------------------------------------------------


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.at_s = NOW

    def now(self) -> float:
        return self.at_s


class Disk:
    """A record in memory; a save can be made to wait, and then to fail."""

    def __init__(self, durable: Durable = HELD) -> None:
        self.node_id = "ww"
        self.durable = durable
        self.is_lost = durable.holder is None
        self.error: OSError | None = None
        self.saving: list[Durable] = []
        self.gate: asyncio.Event | None = None

    async def save(self, durable: Durable) -> None:
        self.saving.append(durable)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.durable = durable

    async def probe(self) -> None:
        if self.error is not None:
            raise self.error


def _pair(disk: Disk, clock: Clock) -> Pair:
    return Pair("shop", disk, secret=b"secret", run_id="w1", clock=clock, timeout_s=T)


def _async(condition: Callable[[], object]) -> Callable[[], Awaitable[object]]:
    async def asked() -> object:
        return condition()

    return asked


async def _ask(pair: Pair, request: Request) -> Vote:
    answer = await pair.ask(request)
    assert isinstance(answer, BeatAnswer | VoteAnswer)
    assert answer.vote is not None
    return answer.vote


async def test_a_vote_is_on_disk_before_it_is_given() -> None:
    disk, clock = Disk(), Clock()
    pair = _pair(disk, clock)
    clock.at_s += 11
    disk.gate = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(pair.ask(_asks(BACKUP)))
        await until_async(_async(lambda: disk.saving), 30)
        assert not asked.done()
        assert disk.durable == HELD
        disk.gate.set()

    assert asked.result().vote.granted  # type: ignore[union-attr]
    assert (disk.durable.term, disk.durable.holder) == (8, B)


async def test_a_full_disk_gives_no_new_vote_and_renews_on() -> None:
    disk, clock = Disk(), Clock()
    pair = _pair(disk, clock)
    disk.error = OSError(28, "No space left on device")

    assert (await _ask(pair, _renewal())).granted
    with pytest.raises(TimeoutError):
        await pair.ask(_asks(PRIMARY))
    assert (await _ask(pair, _renewal())).granted
    assert disk.durable == HELD
    assert [alarm.code for alarm in pair.look().alarms] == ["record_not_writable"]

    disk.error = None
    assert (await _ask(pair, _asks(PRIMARY))).granted
    assert pair.look().alarms == ()


async def test_a_hung_save_holds_up_no_renewal_and_nobody_elses_word() -> None:
    disk, clock = Disk(), Clock()
    pair = _pair(disk, clock)
    disk.gate = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(pair.ask(_asks(PRIMARY)))
        await until_async(_async(lambda: disk.saving), 30)
        assert (await _ask(pair, _renewal())).granted
        assert (await _ask(pair, beat(BACKUP))).term == 7
        disk.gate.set()


async def test_while_a_save_for_another_is_in_doubt_no_renewal_goes_without_one() -> None:
    """Or a restart would serve the one that the disk names beside the one that was renewed."""
    disk, clock = Disk(), Clock()
    pair = _pair(disk, clock)
    clock.at_s += 11
    disk.error = OSError(5, "Input/output error")
    with pytest.raises(TimeoutError):
        await pair.ask(_asks(BACKUP))

    with pytest.raises(TimeoutError):
        await pair.ask(_renewal())
    disk.error = None
    assert (await _ask(pair, _renewal())).granted

    assert disk.saving[-1] == disk.durable == HELD
    disk.saving.clear()
    assert (await _ask(pair, _renewal())).granted
    assert disk.saving == []


async def test_two_candidates_at_once_get_one_vote() -> None:
    disk, clock = Disk(replace(HELD, released=True)), Clock()
    pair = _pair(disk, clock)
    disk.gate = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        both = [group.create_task(_ask(pair, _asks(sender))) for sender in (PRIMARY, BACKUP)]
        await until_async(_async(lambda: disk.saving), 30)
        disk.gate.set()

    assert [task.result().granted for task in both] == [True, False]
    assert both[1].result().refusal is Refusal.PROMISED
    assert len(disk.saving) == 1


async def test_what_was_saved_and_could_not_be_given_any_more_is_put_right() -> None:
    disk, clock = Disk(replace(HELD, released=True)), Clock()
    pair = _pair(disk, clock)
    disk.gate = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(_ask(pair, _asks(BACKUP)))
        await until_async(_async(lambda: disk.saving), 30)
        # Nothing can give the vote away meanwhile; so take it away by hand.
        pair._voter = _renewed()
        disk.gate.set()

    assert asked.result().refusal is Refusal.PROMISED
    assert disk.durable.holder == B
    clock.at_s += 1
    assert (await _ask(pair, _renewal())).granted
    assert disk.durable == HELD


# --- what is shown --------------------------------------------------------------------------------


def _seen(kind: ConflictKind = ConflictKind.SAME_ROLE) -> ConflictSeen:
    return ConflictSeen(kind, "two nodes say that they are the primary", received=True)


def _codes(ballot: Ballot) -> list[str]:
    return [alarm.code for alarm in ballot.alarms]


async def test_a_conflict_is_an_alarm_while_it_is_repeated() -> None:
    clock = Clock()
    pair = _pair(Disk(), clock)
    pair.conflict(_seen())
    clock.at_s += 20
    pair.look()
    pair.conflict(_seen())
    clock.at_s += 20

    [alarm] = pair.look().alarms
    assert (alarm.code, alarm.since_s) == ("same_role", NOW + 20)
    clock.at_s += 31
    assert pair.look().alarms == ()


async def test_two_sets_of_rules_are_both_served_and_alarmed_while_both_speak() -> None:
    clock = Clock()
    pair = _pair(Disk(), clock)
    assert (await _ask(pair, _renewal())).granted
    await pair.ask(beat(replace(BACKUP, fingerprint="other")))
    assert _codes(pair.look()) == ["fingerprint_differs"]

    clock.at_s += 5
    assert (await _ask(pair, _renewal())).granted
    clock.at_s += 6
    assert _codes(pair.look()) == []


async def test_a_lost_record_and_a_hold_are_alarms() -> None:
    clock = Clock()
    pair = _pair(Disk(Durable()), clock)
    assert _codes(pair.look()) == [], "nobody has asked for anything yet"
    await pair.ask(_renewal(hold=True))

    assert _codes(pair.look()) == ["held", "record_lost"]
    assert pair.look().alarms[1].sentence == (
        "no vote for this pair was on record when the witness began: it is new, or its disk was"
        " emptied; nobody new gets one before it has run for 10.1 s"
    )
    clock.at_s += 11
    assert _codes(pair.look()) == ["held"]


async def test_the_status_has_every_name_and_a_line_for_each_pair() -> None:
    clock = Clock()
    disk = Disk()
    shop, mill = (
        _pair(disk, clock),
        Pair("mill", Disk(Durable()), secret=None, run_id="w1", clock=clock, timeout_s=T),
    )
    await shop.ask(_renewal(hold=True))
    await mill.ask(_renewal(BACKUP, 3))
    clock.at_s += 2.5
    witness = Witness([shop, mill], clock=clock)

    status = _status(witness.look(), clock)

    assert status["clusters"] == [
        {
            "cluster": "shop",
            "term": 7,
            "holder": "primary",
            "remaining_s": None,
            "hold": True,
            "last_heard_s": {"primary": 2.5, "backup": None},
            "alarms": [status["clusters"][0]["alarms"][0]],
            "rejected": {},
        },
        {
            "cluster": "mill",
            "term": 3,
            "holder": "backup",
            "remaining_s": 7.6,
            "hold": False,
            "last_heard_s": {"primary": None, "backup": 2.5},
            "alarms": [status["clusters"][1]["alarms"][0]],
            "rejected": {},
        },
    ]
    assert [alarm["code"] for alarm in status["alarms"]] == ["held", "record_lost"]
    assert status["alarms"][1]["sentence"].startswith("mill: no vote for this pair was on record")
    assert (status["cluster"], status["term"], status["phase"]) == (None, None, None)
    [alone] = Witness([shop], clock=clock).look()
    assert _status((alone,), clock)["cluster"] == "shop"
    assert _status((alone,), clock)["term"] == 7


def _status(ballots: tuple[Ballot, ...], clock: Clock) -> dict[str, Any]:
    status = status_of(
        ballots, clock.at_s, started_at_s=NOW, version="0.1.0", pid=1, rejected={"malformed": 1}
    )
    told: dict[str, Any] = json.loads(json.dumps(status, allow_nan=False))
    assert told.keys() >= {
        *("cluster", "role", "phase", "term", "reason", "since_s", "version", "protocol"),
        *("paused", "lease", "peer", "arbiter", "containers", "redundancy", "alarms", "held"),
        *("drained", "pid"),
    }
    return told


async def test_a_witness_is_ready_while_its_disk_is_well() -> None:
    disk, clock = Disk(), Clock()
    witness = Witness([_pair(disk, clock)], clock=clock)
    disk.error = OSError(28, "No space left on device")

    async with asyncio.TaskGroup() as group:
        running = group.create_task(witness.run())
        await until_async(_async(witness.not_ready_because), 30)
        assert witness.not_ready_because() == ("shop: its record cannot be written",)
        disk.error = None
        await until_async(_async(lambda: not witness.not_ready_because()), 30)
        running.cancel()


# --- what `failover-agent status` makes of it -----------------------------------------------------


async def test_people_see_a_line_for_each_pair_and_then_the_alarms() -> None:
    clock = Clock()
    shop = _pair(Disk(), clock)
    mill = Pair("mill", Disk(Durable()), secret=None, run_id="w1", clock=clock, timeout_s=T)
    await shop.ask(_renewal())
    clock.at_s += 2.5
    status = _status(Witness([shop, mill], clock=clock).look(), clock)

    text = cli_status.render(status, Paint(is_on=False))

    assert text.splitlines() == [
        "WITNESS of 2 pairs, for 2.5 s",
        "",
        "  PAIR  TERM  VOTE     ENDS IN  PRIMARY HEARD  BACKUP HEARD",
        "  shop  7     primary  7.6 s    2.5 s ago      never",
        "  mill  0     free              never          never",
        "",
        "  agent       version 0.1.0, pid 1",
    ]
    assert cli_status.exit_code(status) is ExitCode.FINE

    await shop.ask(_renewal(hold=True))
    held = _status(Witness([shop], clock=clock).look(), clock)
    text = cli_status.render(held, Paint(is_on=False))
    assert text.startswith("WITNESS of 1 pair, for 2.5 s; 1 alarm\n")
    assert "  shop  7     primary  on hold  0.0 s ago      never\n" in text
    assert "  ALARM held, for 0.0 s\n    shop: the primary left its containers running" in text
    assert max(map(len, text.splitlines())) <= 80
    assert cli_status.exit_code(held) is ExitCode.DEGRADED
