"""The arbiter in a real etcd of one member: promises, and what may happen to them."""

import asyncio
import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from failover_agent.adapters.arbiters import EtcdArbiter
from failover_agent.adapters.names import Addresses
from failover_agent.core.events import Event, HeartbeatAnswered, HeartbeatFailed, VoteAnswered
from failover_agent.core.messages import Refusal, VoteKind
from failover_agent.core.policy import Role
from failover_agent.core.state import Holder, Reason
from tests.integration.etcd import (
    CLOCK,
    CLUSTER,
    KEY,
    Etcd,
    error_of,
    etcd,
    side,
    vote_of,
    wait_s,
    wire,
)
from tests.lab.until import until_async

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

PRIMARY, BACKUP = Role.PRIMARY, Role.BACKUP
THE_PRIMARY = Holder(PRIMARY, "node-primary")
LONGER = 1.01


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with etcd(tmp_path_factory.mktemp("etcd")) as one:
        yield one


@pytest.fixture
def one(running: Etcd) -> Etcd:
    """The same etcd for all, without the key."""
    running.ctl("del", KEY)
    return running


def promise(etcd: Etcd, role: Role, term: int, lease_s: float = 1.0, **more: bool) -> None:
    """Somebody else's promise, written a moment ago."""
    value = {
        "schema": 1,
        "holder": {"role": role, "node_id": f"node-{role}"},
        "term": term,
        "lease_s": lease_s,
        "hold": False,
        "released": False,
    }
    etcd.ctl("put", KEY, json.dumps({**value, **more}))


async def test_a_new_pair_waits_once_and_then_one_of_them_has_the_promise(one: Etcd) -> None:
    async with side(one.endpoints) as primary, side(one.endpoints, BACKUP) as backup:
        began_s = CLOCK.now()
        first = await primary.polls()
        assert (first.granted, first.refusal) == (False, Refusal.JUST_STARTED)
        assert first.remaining_s is not None
        assert 0 < first.remaining_s <= LONGER

        await primary.wins(1)
        assert CLOCK.now() - began_s >= LONGER
        theirs = await backup.looks()

    assert (theirs.granted, theirs.term, theirs.holder) == (False, 1, THE_PRIMARY)
    assert theirs.remaining_s is not None
    assert one.value() == {
        "schema": 1,
        "holder": {"role": "primary", "node_id": "node-primary"},
        "term": 1,
        "lease_s": 1.0,
        "hold": False,
        "released": False,
    }


async def test_a_promise_is_for_nobody_else_until_it_was_seen_unchanged_for_its_length(
    one: Etcd,
) -> None:
    promise(one, PRIMARY, 3)
    async with side(one.endpoints, BACKUP) as backup:
        began_s = CLOCK.now()
        refused = await backup.asks(4)
        assert (refused.refusal, refused.holder) == (Refusal.PROMISED, THE_PRIMARY)

        await backup.wins(4)

    assert CLOCK.now() - began_s >= LONGER
    assert one.value()["holder"]["role"] == "backup"


async def test_each_renewal_begins_the_promise_anew_for_whoever_looks(one: Etcd) -> None:
    promise(one, PRIMARY, 3)
    async with side(one.endpoints) as primary, side(one.endpoints, BACKUP) as backup:
        for _ in range(4):
            await wait_s(0.5)
            assert (await primary.renews(3)).granted
            assert (await backup.polls()).refusal is Refusal.PROMISED
        last_s = CLOCK.now()
        # Beats that ask for nothing keep the sighting fresh: no more than the rest is waited for.
        await wait_s(0.4)
        remaining_s = (await backup.looks()).remaining_s
        assert remaining_s is not None
        assert remaining_s <= LONGER - 0.4
        await backup.wins(4)
        assert CLOCK.now() - last_s >= LONGER - 0.1

        late = await primary.renews(3)

    assert (late.granted, late.refusal, late.term) == (False, Refusal.PROMISED, 4)


async def test_an_answer_counts_from_when_its_question_left(one: Etcd) -> None:
    promise(one, PRIMARY, 3)
    async with side(one.endpoints) as primary:
        before_s = CLOCK.now()
        event = await primary.perform(primary.beat(3, renews=True))
        after_s = CLOCK.now()

    assert isinstance(event, HeartbeatAnswered)
    assert (event.to, event.term, event.answer.beat) == (Role.WITNESS, 3, None)
    assert event.answer.sender.role is Role.WITNESS
    assert before_s <= event.sent_at_s < after_s
    assert vote_of(event).remaining_s == pytest.approx(LONGER)


async def test_what_was_given_back_may_be_taken_at_once_in_a_higher_term(one: Etcd) -> None:
    promise(one, PRIMARY, 3)
    async with side(one.endpoints) as primary, side(one.endpoints, BACKUP) as backup:
        released = await primary.releases(3)
        assert (released.answer.released_term, released.answer.term) == (3, 3)
        assert (await primary.releases(3)).answer.term == 3
        assert (await primary.renews(3)).refusal is Refusal.OLD_TERM
        assert (await backup.asks(3)).refusal is Refusal.OLD_TERM

        assert (await backup.asks(4)).granted
        assert (await primary.releases(3)).answer.term == 4  # It holds nothing: nothing changes.

    assert (one.value()["term"], one.value()["released"]) == (4, False)


async def test_a_hold_has_no_end_until_its_holder_renews(one: Etcd) -> None:
    promise(one, PRIMARY, 3)
    async with side(one.endpoints) as primary, side(one.endpoints, BACKUP) as backup:
        held = await primary.renews(3, hold=True)
        assert (held.granted, held.remaining_s) == (True, float("inf"))
        await backup.looks()
        await wait_s(1.2)
        assert (await backup.asks(4)).refusal is Refusal.PROMISED

        assert (await primary.renews(3)).granted
        await backup.wins(4)


async def test_an_operator_ends_a_hold(one: Etcd) -> None:
    promise(one, PRIMARY, 3, hold=True)
    async with side(one.endpoints, BACKUP) as backup:
        assert (await backup.asks(4)).refusal is Refusal.PROMISED
        assert (await backup.polls(Reason.OPERATOR)).granted
        assert (await backup.asks(4, Reason.OPERATOR)).granted

    assert (one.value()["hold"], one.value()["holder"]["role"]) == (False, "backup")


async def test_of_two_candidates_at_the_same_moment_one_has_it(one: Etcd) -> None:
    promise(one, PRIMARY, 1, released=True)
    async with side(one.endpoints) as primary, side(one.endpoints, BACKUP) as backup:
        for term in range(2, 22):
            await primary.looks()
            await backup.looks()
            votes = await asyncio.gather(primary.asks(term), backup.asks(term))
            assert sorted(vote.granted for vote in votes) == [False, True]
            winner = primary if votes[0].granted else backup
            await winner.releases(term)


async def test_of_orders_side_by_side_the_newest_has_the_last_word(one: Etcd) -> None:
    promise(one, PRIMARY, 3)
    async with side(one.endpoints) as primary:
        holds = [primary.beat(3, renews=True, hold=True) for _ in range(12)]
        last = primary.beat(3, renews=True)
        async with asyncio.TaskGroup() as group:
            for effect in (*holds, last):
                group.create_task(primary.arbiter.perform(effect))
        answered = [event for event in primary.posted if isinstance(event, HeartbeatAnswered)]
        overtaken = [event for event in primary.posted if isinstance(event, HeartbeatFailed)]

    assert len(primary.posted) == 13
    assert vote_of(answered[-1]).remaining_s == pytest.approx(LONGER)
    assert {event.error for event in overtaken} <= {"a newer beat overtook this one"}
    assert one.value()["hold"] is False


async def test_too_many_orders_give_the_oldest_up(one: Etcd) -> None:
    one.members[0].pause()
    try:
        async with side(one.endpoints) as primary, asyncio.TaskGroup() as group:

            async def are_two_posted() -> bool:
                return len(primary.posted) >= 2

            for _ in range(18):
                group.create_task(primary.arbiter.perform(primary.beat()))
            await until_async(are_two_posted, 30)
            await wait_s(0.2)  # And no third one.
            assert len(primary.posted) == 2
            assert {error_of(event) for event in primary.posted} == {"etcd does not answer in time"}
            one.members[0].resume()
    finally:
        one.members[0].resume()


async def test_an_order_that_is_cancelled_posts_nothing(one: Etcd) -> None:
    async with side(one.endpoints) as primary:
        one.members[0].pause()
        try:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await primary.arbiter.perform(primary.beat())
        finally:
            one.members[0].resume()

        assert primary.posted == []


# --- what is lost -------------------------------------------------------------------------------


async def test_an_answer_that_was_lost_is_no_answer_and_its_write_is_found(one: Etcd) -> None:
    promise(one, PRIMARY, 3)
    async with wire(one.members[0]) as cut, side((cut.endpoint,)) as primary:
        assert (await primary.renews(3)).granted
        revision = json.loads(one.ctl("get", KEY, "-w", "json"))["kvs"][0]["mod_revision"]

        cut.swallow = 1
        asked_s = CLOCK.now()
        event = await primary.perform(primary.beat(3, renews=True))

        # The first one was put and its answer lost, the second refused, the third granted.
        assert cut.swallowed == 1
        assert isinstance(event, HeartbeatAnswered)
        assert vote_of(event).granted
        assert event.sent_at_s >= asked_s
        now = json.loads(one.ctl("get", KEY, "-w", "json"))["kvs"][0]["mod_revision"]
        assert now == revision + 2

        cut.swallow = 2
        failed = await primary.perform(primary.beat(3, renews=True))
        assert error_of(failed) == f"{cut.endpoint} closes the connection"
        assert (await primary.renews(3)).granted


async def test_a_candidate_that_does_not_hear_of_its_promise_asks_again_and_has_it(
    one: Etcd,
) -> None:
    promise(one, BACKUP, 3, released=True)
    async with wire(one.members[0]) as cut, side((cut.endpoint,)) as primary:
        await primary.looks()
        cut.swallow = 2
        assert error_of(await primary.perform(primary.question(VoteKind.CANDIDACY, 4)))
        assert one.value()["holder"]["role"] == "primary"

        event = await primary.perform(primary.question(VoteKind.CANDIDACY, 4))

    assert isinstance(event, VoteAnswered)
    assert (event.voter, event.answer.kind, event.answer.asked_term) == (
        Role.WITNESS,
        VoteKind.CANDIDACY,
        4,
    )
    assert vote_of(event).granted


async def test_compaction_and_defragmentation_are_not_noticed(one: Etcd) -> None:
    promise(one, PRIMARY, 3)
    async with side(one.endpoints) as primary, side(one.endpoints, BACKUP) as backup:
        await backup.looks()
        for _ in range(3):
            assert (await primary.renews(3)).granted
            revision = json.loads(one.ctl("get", KEY, "-w", "json"))["header"]["revision"]
            one.ctl("compact", "--physical", str(revision))
            one.ctl("defrag")
            assert (await backup.polls()).refusal is Refusal.PROMISED


async def test_a_key_that_was_deleted_is_a_voter_that_forgot(one: Etcd) -> None:
    promise(one, PRIMARY, 3, lease_s=3.0)
    async with (
        side(one.endpoints, lease_s=3.0) as primary,
        side(one.endpoints, BACKUP, lease_s=3.0) as backup,
    ):
        await backup.looks()
        await wait_s(3.3)
        one.ctl("del", KEY)
        waits = await backup.asks(4)
        assert waits.refusal is Refusal.JUST_STARTED

        assert (await primary.renews(3)).granted  # Its holder is served throughout.
        assert (await backup.asks(4)).refusal is Refusal.JUST_STARTED
        await wait_s(3.3)
        assert (await primary.renews(3)).granted
        assert (await backup.asks(4)).refusal is Refusal.PROMISED


async def test_what_nobody_of_us_wrote_is_nobodys_promise(one: Etcd) -> None:
    async with side(one.endpoints) as primary:
        for value in ("", "hello", "[]", '{"schema": 2}', '{"schema": 1, "term": 4}'):
            one.ctl("put", KEY, "--", value)
            for effect in (
                primary.beat(3, renews=True),
                primary.question(VoteKind.POLL),
                primary.question(VoteKind.CANDIDACY, 5),
            ):
                error = error_of(await primary.perform(effect))
                assert f"the value of {KEY} is not one that this version writes" in error
                assert f"etcdctl del {KEY}" in error


async def test_a_host_name_is_looked_up_in_the_background(one: Etcd) -> None:
    def look_up(host: str) -> Addresses:
        if host == "etcd.example":
            return ((socket.AF_INET, "127.0.0.1"),)
        raise OSError(8, "no such name")

    port = one.members[0].port
    posted: list[Event] = []
    for host, told in (
        ("etcd.example", ""),
        ("nowhere.example", "nowhere.example does not resolve: no such name"),
    ):
        async with side(one.endpoints) as primary:
            arbiter = EtcdArbiter(
                endpoints=(f"http://{host}:{port}",),
                cluster=CLUSTER,
                me=primary.me,
                post=posted.append,
                clock=CLOCK,
                look_up=look_up,
            )
            async with asyncio.TaskGroup() as group:
                names = group.create_task(arbiter.run())
                await arbiter.perform(primary.beat())
                (probed,) = await arbiter.probe()
                names.cancel()
            await arbiter.close()
        assert getattr(posted[-1], "error", "") == told
        assert probed.is_fine is (told == "")
        assert told in probed.what


# --- etcd comes back ----------------------------------------------------------------------------


async def test_an_etcd_that_comes_back_with_its_data_remembers(tmp_path: Path) -> None:
    with etcd(tmp_path) as own:
        promise(own, PRIMARY, 3)
        async with side(own.endpoints) as primary:
            assert (await primary.renews(3)).granted
            own.members[0].kill()
            error = error_of(await primary.perform(primary.beat(3, renews=True)))
            assert error == f"no connection to {own.endpoints[0]}: Connection refused"

            own.start()
            assert (await primary.renews(3)).granted
            assert own.value()["term"] == 3


async def test_an_etcd_that_comes_back_empty_waits_and_serves_the_holder(tmp_path: Path) -> None:
    with etcd(tmp_path) as own:
        promise(own, PRIMARY, 3, lease_s=3.0)
        async with (
            side(own.endpoints, lease_s=3.0) as primary,
            side(own.endpoints, BACKUP, lease_s=3.0) as backup,
        ):
            for _ in range(3):
                assert (await primary.renews(3)).granted
            await backup.looks()
            own.members[0].kill()
            shutil.rmtree(own.members[0].data)
            own.start()

            assert (await backup.asks(4)).refusal is Refusal.JUST_STARTED
            assert (await primary.renews(3)).granted
            assert (await backup.asks(4)).refusal is Refusal.JUST_STARTED
            await backup.wins(4)


async def test_an_older_backup_of_etcd_is_seen_to_be_one(tmp_path: Path) -> None:
    with etcd(tmp_path) as own:
        promise(own, PRIMARY, 3, released=True)
        own.members[0].kill()
        shutil.copytree(own.members[0].data, tmp_path / "copy")
        own.start()
        async with side(own.endpoints) as primary, side(own.endpoints, BACKUP) as backup:
            assert (await primary.asks(4)).granted
            await backup.looks()
            own.members[0].kill()
            shutil.rmtree(own.members[0].data)
            shutil.copytree(tmp_path / "copy", own.members[0].data)
            own.start()

            # By what lies there now anybody may have it; but that is not the last word.
            assert own.value()["released"] is True
            assert (await backup.asks(4)).refusal is Refusal.JUST_STARTED
            assert (await primary.renews(4)).granted
            assert own.value()["term"] == 4


async def test_the_members_of_two_etcds_are_no_arbiter(one: Etcd, tmp_path: Path) -> None:
    with etcd(tmp_path) as other:
        endpoints = (*one.endpoints, *other.endpoints)
        async with side(endpoints, deadline_s=2.0) as primary:
            await primary.looks()
            one.members[0].pause()
            try:
                error = error_of(await primary.perform(primary.beat()))
                assert "are members of different etcds" in error
            finally:
                one.members[0].resume()
            found = await primary.arbiter.probe()

        assert [probed.is_fine for probed in found] == [False, False]
