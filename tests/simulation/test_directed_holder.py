"""The rules of the holder (H5 to H7), one agent alone, message by message."""

from dataclasses import replace
from typing import Any

import pytest

from failover_agent.core.effects import StartContainers
from failover_agent.core.events import ContainerDied, ContainersStarted, StopRequested
from failover_agent.core.messages import Refusal, Vote, VoteKind
from failover_agent.core.policy import PartitionPolicy, Role
from failover_agent.core.state import Durable, Holder, Phase, Readiness
from failover_agent.simulation.product import Product
from tests.simulation.alone import Alone, a_leader, a_voter
from tests.simulation.pairs import RESTART_GRACE, STARTUP_GRACE, T

pytestmark = pytest.mark.simulation

MINE: dict[str, Any] = {
    "term": 5,
    "holder": Holder(Role.BACKUP, "backup-1"),
    "released": False,
    "led": True,
    "longest_lease_s": T,
    "heard": frozenset({Role.PRIMARY}),
}


def with_a_container_beyond_repair(core: Product, readiness: Readiness) -> Alone:
    """A leader whose `web` is down longer than the grace, and a peer that is or is not ready."""
    alone = a_leader(core)
    alone.take(ContainerDied("web", "web", "died"))
    for _ in range(int(RESTART_GRACE) + 1):
        alone.now += 1.0
        alone.beats(Phase.STANDBY, 1, holder=Role.PRIMARY, readiness=readiness)
    return alone


def test_it_stops_only_after_a_yes_to_its_prepare(core: Product) -> None:
    for granted in (False, True):
        alone = with_a_container_beyond_repair(core, Readiness.READY)
        assert alone.asked() == (VoteKind.PREPARE, 1)
        assert not alone.stops()

        alone.answers(VoteKind.PREPARE, 1, granted=granted, told=1)
        assert alone.stops() is granted


def test_a_yes_to_another_prepare_stops_nothing(core: Product) -> None:
    alone = with_a_container_beyond_repair(core, Readiness.READY)
    alone.answers(VoteKind.PREPARE, 0, granted=True, told=1)

    assert not alone.stops()


def test_it_asks_nobody_that_is_not_ready(core: Product) -> None:
    for readiness in (Readiness.DIFFERS, Readiness.CANNOT):
        alone = with_a_container_beyond_repair(core, readiness)
        assert alone.asked() is None
        assert not alone.stops()


def test_a_container_that_came_back_is_no_reason_any_more(core: Product) -> None:
    alone = with_a_container_beyond_repair(core, Readiness.READY)
    alone.sees(running=True)
    alone.answers(VoteKind.PREPARE, 1, granted=True, told=1)

    assert not alone.stops()


def test_sigterm_stops_nothing_before_a_yes(core: Product) -> None:
    alone = a_leader(core)
    alone.take(StopRequested())
    assert alone.asked() == (VoteKind.PREPARE, 1)
    assert not alone.stops()


def a_restarted(core: Product, **differing: Any) -> Alone:
    """An agent that led when it was killed; its containers run."""
    alone = Alone(core, Durable(**MINE), **differing)
    alone.sees(running=True)
    return alone


def test_a_restarted_agent_resumes_its_term_once_it_is_renewed(core: Product) -> None:
    alone = a_restarted(core)
    assert alone.says(Phase.STANDBY, 5).renews
    alone.answers_beat(Vote(True, 5, None, T), running=0)

    assert (alone.state.phase, alone.state.held_term) == (Phase.ACTIVE, 5)
    assert not alone.stops()
    assert not any(isinstance(effect, StartContainers) for effect in alone.effects)


def test_a_restarted_agent_that_is_refused_does_not_resume(core: Product) -> None:
    alone = a_restarted(core)
    alone.answers_beat(Vote(False, 6, None, None, Refusal.OLD_TERM), running=0)

    assert alone.state.held_term is None


def test_after_a_boot_there_is_nothing_to_resume(core: Product) -> None:
    alone = a_restarted(core, boot_is_new=True)
    assert not alone.says(Phase.STANDBY, 5).renews
    alone.answers_beat(Vote(True, 5, None, T), running=0)

    assert alone.state.held_term is None


def test_a_holder_that_is_told_of_a_higher_term_asks_for_one_above_it_in_place(
    core: Product,
) -> None:
    alone = a_leader(core)
    alone.answers_beat(Vote(False, 7, None, None, Refusal.OLD_TERM), holder=None)
    assert alone.asked() == (VoteKind.CANDIDACY, 8)
    assert not alone.stops()
    alone.answers(VoteKind.CANDIDACY, 8, granted=True, told=8)

    assert (alone.state.phase, alone.state.held_term) == (Phase.ACTIVE, 8)


def test_a_higher_term_is_not_its_own_before_it_is_granted(core: Product) -> None:
    alone = a_leader(core)
    alone.answers_beat(Vote(False, 7, None, None, Refusal.OLD_TERM), holder=None)
    alone.answers(VoteKind.CANDIDACY, 8, granted=False, told=8)

    assert (alone.state.phase, alone.state.held_term) == (Phase.ACTIVE, 1)


def test_a_holder_stops_for_an_active_peer_of_a_newer_term_and_for_no_older_one(
    core: Product,
) -> None:
    for term, stops in ((0, False), (1, False), (2, True)):
        alone = a_leader(core)
        alone.beats(Phase.ACTIVE, term)
        assert alone.stops() is stops


def test_a_holder_stops_for_nobody_who_gives_it_up_himself(core: Product) -> None:
    alone = a_leader(core)
    alone.beats(Phase.DEMOTING, 2, running=2)
    assert not alone.stops()
    alone.beats(Phase.FAILED, 2, running=0)
    assert not alone.stops()


def test_an_answer_to_an_earlier_start_ends_nothing(core: Product) -> None:
    alone = a_leader(core)
    promoting = replace(alone.state, phase=Phase.PROMOTING, start_job=1)
    alone.state = promoting
    phases = []
    for term in (0, 1):
        alone.take(ContainersStarted(term))
        phases.append(alone.state.phase)
    assert phases == [Phase.PROMOTING, Phase.ACTIVE]


def test_a_late_beat_of_one_that_released_says_nothing(core: Product) -> None:
    alone = a_voter(core, **{**MINE, "holder": Holder(Role.PRIMARY, "primary-1")})
    alone.beats(Phase.ACTIVE, 5)
    assert alone.asks(VoteKind.PREPARE, 5).granted
    alone.releases(5)
    assert alone.state.phase is Phase.ACQUIRING

    alone.beats(Phase.ACTIVE, 5)
    assert alone.state.phase is Phase.ACQUIRING


def test_a_stray_is_left_running_while_nobody_serves_or_could(core: Product) -> None:
    alone = a_voter(core, **{**MINE, "holder": Holder(Role.PRIMARY, "primary-1")})
    alone.policy = replace(alone.policy, partition_policy=PartitionPolicy.CONSISTENCY)
    alone.beats(Phase.ACTIVE, 5)
    assert alone.state.phase is Phase.STANDBY
    alone.wait(2 * T)
    alone.sees(running=True)
    assert not alone.stops()

    alone.beats(Phase.ACTIVE, 5)
    assert alone.stops()


def test_a_restarted_agent_stops_nothing_for_one_that_gives_an_older_term_up(
    core: Product,
) -> None:
    alone = a_restarted(core)
    for _ in range(3):
        alone.now += 1.0
        alone.beats(Phase.DEMOTING, 4, running=2)
        assert not alone.stops()


def test_under_consistency_only_one_that_led_and_kept_starts_alone(core: Product) -> None:
    for differing, starts in (
        ({}, True),
        ({"released": True}, False),
        ({"led": False}, False),
        ({"holder": Holder(Role.PRIMARY, "primary-1")}, False),
    ):
        alone = Alone(
            core,
            Durable(**{**MINE, **differing}),
            boot_is_new=True,
            partition_policy=PartitionPolicy.CONSISTENCY,
        )
        alone.sees(running=False)
        alone.wait(STARTUP_GRACE + 3 * T)

        assert (alone.state.held_term is not None) is starts


def test_a_late_beat_does_not_make_an_active_peer_abstain(core: Product) -> None:
    alone = a_voter(core, **{**MINE, "holder": Holder(Role.PRIMARY, "primary-1")})
    alone.beats(Phase.ACTIVE, 6)
    for _ in range(10):
        alone.wait(T / 4)
        alone.beats(Phase.STANDBY, 5, readiness=Readiness.CANNOT, running=0)
        assert alone.state.held_term is None
        alone.beats(Phase.ACTIVE, 6)
