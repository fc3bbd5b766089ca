"""The arbiter in a real etcd of three members, of which some are killed, paused or overruled."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from failover_agent.core.events import Event, HeartbeatAnswered, VoteAnswered
from failover_agent.core.messages import Refusal, VoteKind
from failover_agent.core.policy import Role
from tests.integration.etcd import (
    CLOCK,
    DEADLINE_S,
    KEY,
    Etcd,
    Member,
    Side,
    error_of,
    etcd,
    side,
    vote_of,
    wait_s,
)
from tests.lab.until import until, until_async

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

BACKUP = Role.BACKUP
UNHEARD = ("etcd does not answer in time", "no connection to", "closes the connection", "decide")


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Etcd]:
    with etcd(tmp_path, 3) as cluster:
        yield cluster


def leader_first(cluster: Etcd) -> list[str]:
    """The endpoints, the leader's first: it is the one that is asked, and the one that goes."""
    leader = cluster.leader()
    return sorted(cluster.endpoints, key=lambda endpoint: endpoint != leader.endpoint)


async def lead(node: Side, term: int) -> None:
    await node.wins(term)
    assert (await node.renews(term)).granted


async def is_renewed(node: Side, term: int) -> bool:
    event = await node.perform(node.beat(term, renews=True))
    return isinstance(event, HeartbeatAnswered) and vote_of(event).granted


async def refuses_all(node: Side, other: Side, term: int) -> None:
    """No answer is a yes, whoever asks and for what."""
    effects = (
        (node, node.beat(term, renews=True)),
        (node, node.question(VoteKind.CANDIDACY, term + 1)),
        (other, other.question(VoteKind.POLL)),
        (other, other.question(VoteKind.CANDIDACY, term + 1)),
    )
    for asker, effect in effects:
        error = error_of(await asker.perform(effect))
        assert any(words in error for words in UNHEARD), error


async def one_holds(node: Side, other: Side) -> None:
    """Whose answer was lost may have been heard all the same, and in which order nobody knows."""

    async def holder() -> Side | None:
        for asker, term in ((node, 1), (node, 2), (other, 2)):
            if await is_renewed(asker, term):
                return asker
        return None

    holds = await until_async(holder, 30, "somebody holds")
    loses = other if holds is node else node
    loses.deadline_s = DEADLINE_S
    assert (await loses.polls()).refusal is Refusal.PROMISED


async def test_a_member_that_is_killed_costs_one_try(three: Etcd) -> None:
    async with side(leader_first(three), lease_s=2.0, deadline_s=10.0) as primary:
        await lead(primary, 1)
        three.leader().kill()
        # Within the time of one beat; or of a second one, which is what a node would send.
        assert await is_renewed(primary, 1) or await is_renewed(primary, 1), primary.posted[-2:]


async def test_without_a_majority_nothing_is_granted_and_with_one_it_goes_on(three: Etcd) -> None:
    endpoints = leader_first(three)
    async with (
        side(endpoints, lease_s=1.0) as primary,
        side(endpoints, BACKUP, lease_s=1.0) as backup,
    ):
        await lead(primary, 1)
        await backup.looks()
        primary.deadline_s = backup.deadline_s = 1.5
        killed = three.members[1:]
        for member in killed:
            member.kill()
        await wait_s(1.1)  # By the clock the promise has ended, and yet nobody may have it.
        await refuses_all(primary, backup, 1)

        three.start(*killed)
        await one_holds(primary, backup)


async def test_a_paused_member_costs_little_and_a_paused_majority_grants_nothing(
    three: Etcd,
) -> None:
    endpoints = leader_first(three)
    by_endpoint = {member.endpoint: member for member in three.members}
    first, second, _ = (by_endpoint[endpoint] for endpoint in endpoints)
    async with (
        side(endpoints, lease_s=2.0) as primary,
        side(endpoints, BACKUP, lease_s=2.0) as backup,
    ):
        await lead(primary, 1)
        await backup.looks()
        first.pause()
        await until_async(lambda: is_renewed(primary, 1), 30, "the others have a leader")
        began_s = CLOCK.now()
        for _ in range(10):
            assert (await primary.renews(1)).granted
        took_s = CLOCK.now() - began_s
        assert took_s < 6.0, "who answered last is asked first: the silent one costs a second"

        primary.deadline_s = backup.deadline_s = 2.0
        second.pause()
        await wait_s(2.1)
        await refuses_all(primary, backup, 1)

        first.resume()
        second.resume()
        await one_holds(primary, backup)


async def test_a_candidacy_that_sleeps_in_a_paused_etcd_takes_nothing_from_who_came_before(
    three: Etcd,
) -> None:
    async with (
        side(three.endpoints, lease_s=1.0) as primary,
        side(three.endpoints, BACKUP, lease_s=1.0) as backup,
    ):
        await lead(primary, 1)
        await backup.looks()
        primary.deadline_s = backup.deadline_s = 1.0
        await wait_s(1.1)
        for member in three.members:
            member.pause()
        # Both are on their way to etcd before it wakes: the one may go on, the other may begin.
        renewal = primary.beat(1, renews=True)
        candidacy = backup.question(VoteKind.CANDIDACY, 2)
        await asyncio.gather(primary.arbiter.perform(renewal), backup.arbiter.perform(candidacy))
        for member in three.members:
            member.resume()
        three.wait_healthy()

        await one_holds(primary, backup)


def hand_over(cluster: Etcd, heir: Member) -> None:
    """Who leads is asked to give way, and asked again: a busy machine may elect another one."""
    heir_id = cluster.member_id(heir)

    def leads() -> bool:
        cluster._run([cluster.leader().endpoint], "move-leader", heir_id)
        return cluster.leader() is heir

    until(leads, 30, "the heir leads")


async def test_a_change_of_leader_ends_no_promise(three: Etcd) -> None:
    async with (
        side(three.endpoints, lease_s=10.0, deadline_s=10.0) as primary,
        side(three.endpoints, BACKUP, lease_s=10.0, deadline_s=10.0) as backup,
    ):
        three.ctl(
            "put",
            KEY,
            json.dumps(
                {
                    "schema": 1,
                    "holder": {"role": "primary", "node_id": "node-primary"},
                    "term": 1,
                    "lease_s": 10.0,
                    "hold": False,
                    "released": False,
                }
            ),
        )
        for _ in range(3):
            assert await is_renewed(primary, 1)
            leader = three.leader()
            heir = next(member for member in three.members if member is not leader)
            hand_over(three, heir)
            assert await is_renewed(primary, 1), primary.posted[-1]
            assert (await backup.polls()).refusal is Refusal.PROMISED


async def test_while_members_come_and_go_two_candidates_never_both_have_it(three: Etcd) -> None:
    """What each holds, by its own reckoning (H1), never overlaps with what the other holds."""
    lease_s = 1.0
    held: list[tuple[float, float, Role]] = []
    over = asyncio.Event()

    async def compete(node: Side) -> None:
        """Take it, lead for three beats, fall silent until somebody else has it."""
        term = 0
        while not over.is_set():
            await wait_s(0.05)
            event = await node.perform(node.question(VoteKind.CANDIDACY, term + 1))
            if not isinstance(event, VoteAnswered):
                continue
            term = max(term, vote_of(event).term)
            if not vote_of(event).granted:
                continue
            held.append((event.sent_at_s, event.sent_at_s + lease_s * 0.99, node.me.role))
            for _ in range(3):
                renewed = await node.perform(node.beat(term, renews=True))
                if isinstance(renewed, HeartbeatAnswered) and vote_of(renewed).granted:
                    until_s = renewed.sent_at_s + lease_s * 0.99
                    held.append((renewed.sent_at_s, until_s, node.me.role))
            while not over.is_set():
                seen = await node.perform(node.beat())
                if isinstance(seen, HeartbeatAnswered) and vote_of(seen).term > term:
                    break
                await wait_s(0.05)

    async def disturb() -> None:
        for rounds, member in enumerate(three.members * 10):
            if rounds >= 6 and {role for _, _, role in held} == {Role.PRIMARY, Role.BACKUP}:
                break
            await asyncio.to_thread(member.pause)
            await wait_s(0.7)
            await asyncio.to_thread(member.resume)
            await asyncio.to_thread(three.leader)
        over.set()

    async with (
        side(three.endpoints, lease_s=lease_s, deadline_s=1.0) as primary,
        side(three.endpoints[::-1], BACKUP, lease_s=lease_s, deadline_s=1.0) as backup,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(compete(primary))
        group.create_task(compete(backup))
        group.create_task(disturb())

    roles = {role for _, _, role in held}
    assert roles == {Role.PRIMARY, Role.BACKUP}, "nobody ever took over: nothing was shown"
    mine = [(start, end) for start, end, role in held if role is Role.PRIMARY]
    theirs = [(start, end) for start, end, role in held if role is Role.BACKUP]
    both = [(a, b) for a in mine for b in theirs if max(a[0], b[0]) < min(a[1], b[1])]
    assert both == []


async def test_each_member_is_probed(three: Etcd) -> None:
    def is_silent(event: Event) -> bool:
        return "does not answer" in error_of(event)

    async with side(three.endpoints, deadline_s=1.0) as primary:
        found = await primary.arbiter.probe()
        assert {probed.endpoint for probed in found} == set(three.endpoints)
        assert [probed.todo for probed in found] == ["", "", ""]
        assert all("answers (nothing promised yet)" in probed.what for probed in found)

        three.members[0].kill()
        three.wait_healthy(*three.members[1:])
        (gone, *alive) = sorted(
            await primary.arbiter.probe(), key=lambda probed: probed.endpoint != three.endpoints[0]
        )
        assert gone.what == f"no connection to {three.endpoints[0]}: Connection refused"
        assert gone.todo.startswith("Start etcd there")
        assert all(probed.is_fine for probed in alive)

        three.members[1].kill()
        (alone,) = [
            probed
            for probed in await primary.arbiter.probe()
            if probed.endpoint == three.endpoints[2]
        ]
        assert "majority of its members" in alone.todo
        assert is_silent(await primary.perform(primary.beat()))
