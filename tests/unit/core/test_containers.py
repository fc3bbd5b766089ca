"""Up, down, unknown; graces and verdicts; repair; a lost engine; restart policies (section 5)."""

from dataclasses import replace

import pytest

from failover_agent.core.containers import beyond_repair, counts_from_s, verdict_at_s
from failover_agent.core.effects import (
    ManageRestartPolicy,
    RepairContainer,
    SendVoteRequest,
    StopContainers,
)
from failover_agent.core.events import (
    ContainerChanged,
    ContainerDied,
    ContainersObserved,
    ContainersStarted,
    RepairFinished,
    RestartPolicySet,
)
from failover_agent.core.messages import VoteKind
from failover_agent.core.policy import OnEngineLost, RestartPolicyMode
from failover_agent.core.state import ContainerState, ContainerView, Phase, Reason
from tests.unit.core.builders import (
    TERM,
    THE_PRIMARY,
    Node,
    a_standby,
    active,
    alarms,
    all_down,
    all_up,
    changed,
    engine_lost,
    failed,
    held_by,
    of_kind,
    phases,
    policy,
    promoting,
    reply,
    seen,
    starting,
)

DOWN, UP, UNKNOWN = ContainerState.DOWN, ContainerState.UP, ContainerState.UNKNOWN


def web(node: Node) -> ContainerView:
    """What the node knows of the container that suffers here."""
    return node.state.containers["web"]


# --- what the engine says -------------------------------------------------------------------------


def test_before_the_first_snapshot_everything_is_unknown() -> None:
    node = starting()

    assert [view.state for view in node.state.containers.values()] == [UNKNOWN, UNKNOWN]
    assert node.state.engine.reachable is None


def test_a_snapshot_says_what_there_is() -> None:
    node = starting()

    node.takes(ContainersObserved((seen("db"), seen("web", DOWN, exists=False))))

    assert node.state.engine.reachable is True
    assert (node.state.containers["db"].state, web(node).state) == (UP, DOWN)
    assert not web(node).exists


def test_a_container_that_nobody_manages_is_ignored() -> None:
    node = active()

    node.takes(changed("other"), ContainerDied("other", "other-1", "exited (0)"))

    assert set(node.state.containers) == {"db", "web"}


def test_a_die_is_down_at_once() -> None:
    node = active()

    node.takes(node.died("web"))

    assert (web(node).state, web(node).alive, web(node).down_since_s) == (DOWN, False, node.now)
    assert web(node).detail == "exited (1)"


def test_a_die_of_an_earlier_incarnation_is_stale() -> None:
    node = active()

    node.takes(ContainerDied("web", "web-0", "exited (1)"))

    assert web(node).state is UP
    assert node.state.counters.stale == 1


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("unhealthy", {"detail": "running (unhealthy)", "alive": True}),
        ("paused", {"detail": "paused", "alive": True}),
        ("removed", {"detail": "no such container", "exists": False, "alive": False}),
    ],
)
def test_down_is_down_however_it_came(name: str, changes: dict[str, object]) -> None:
    node = active(policy(restart_attempts=0))

    node.takes(changed("web", DOWN, **changes))
    step = node.lives(31, node.beat())

    assert len(of_kind(step, SendVoteRequest)) > 0, name


def test_a_container_of_which_the_engine_cannot_tell_is_not_down() -> None:
    node = active()

    node.takes(changed("web", UNKNOWN, alive=True))
    step = node.lives(60, node.beat())

    assert web(node).down_since_s is None
    assert of_kind(step, RepairContainer) + of_kind(step, SendVoteRequest) == []


# --- graces and the verdict -----------------------------------------------------------------------


def test_the_verdict_falls_at_the_end_of_the_restart_grace_and_no_sooner() -> None:
    node = active(policy(restart_attempts=0))
    node.takes(node.died("web"))
    died_at_s = node.now

    assert verdict_at_s(node.state, node.policy, web(node)) == died_at_s + 30.0
    assert beyond_repair(node.state, died_at_s + 29.99, node.policy) == ()
    assert beyond_repair(node.state, died_at_s + 30.0, node.policy) == ("web",)


def test_what_is_down_within_the_startup_grace_counts_from_its_end() -> None:
    node = promoting()
    node.takes(all_up(node), ContainersStarted(TERM + 1))
    started_at_s = node.now

    node.takes(node.died("web"), after_s=5.0)

    assert counts_from_s(node.state, node.policy, web(node)) == started_at_s + 20.0
    assert verdict_at_s(node.state, node.policy, web(node)) == started_at_s + 50.0


def test_after_a_resumption_there_is_no_startup_grace() -> None:
    node = starting(durable=held_by(THE_PRIMARY, led=True), boot_is_new=False)
    node.takes(all_up(node), node.renewed())

    node.takes(node.died("web"))

    assert counts_from_s(node.state, node.policy, web(node)) == node.now


def test_what_is_down_on_a_standby_is_down_on_purpose() -> None:
    node = a_standby()

    assert counts_from_s(node.state, node.policy, web(node)) is None
    assert verdict_at_s(node.state, node.policy, web(node)) is None


def test_a_restart_within_the_grace_moves_nothing() -> None:
    node = active()

    node.takes(node.died("web"))
    node.takes(changed("web", incarnation="web-2"), after_s=0.5)
    step = node.lives(120, node.beat())

    assert of_kind(step, RepairContainer) + of_kind(step, SendVoteRequest) == []
    assert web(node).down_since_s is None


def test_a_recreate_within_the_grace_moves_nothing() -> None:
    node = active()

    node.takes(changed("web", DOWN, exists=False, alive=False))
    node.lives(10, node.beat())
    node.takes(changed("web", incarnation="another id"))
    step = node.lives(120, node.beat())

    assert of_kind(step, SendVoteRequest) == []


def test_a_container_has_settled_after_three_seconds_in_one_incarnation() -> None:
    node = active()
    node.takes(node.died("web"))
    node.takes(changed("web", incarnation="web-2"), after_s=0.5)

    node.lives(2.9, node.beat())
    unsettled = web(node)
    node.lives(0.2, node.beat())

    assert unsettled.down_since_s is not None
    assert web(node).down_since_s is None


def test_a_crash_loop_settles_never_and_the_verdict_falls() -> None:
    node = active(policy(restart_attempts=0))
    node.takes(node.died("web"))
    died_at_s = web(node).down_since_s

    for round_ in range(15):
        node.takes(changed("web", incarnation=f"web-{round_ + 2}"))
        node.lives(1.0, node.beat())
        node.takes(node.died("web"))
        node.lives(1.0, node.beat())

    assert web(node).down_since_s == died_at_s
    assert beyond_repair(node.state, node.now, node.policy) == ("web",)


def test_the_same_incarnation_seen_again_goes_on_settling() -> None:
    node = active()
    node.takes(node.died("web"))
    node.takes(changed("web", incarnation="web-2"))
    up_since_s = web(node).up_since_s

    node.takes(changed("web", incarnation="web-2"), after_s=1.0)

    assert web(node).up_since_s == up_since_s


def test_another_incarnation_settles_anew_though_nobody_saw_the_one_before_die() -> None:
    node = active()
    node.takes(node.died("web"), changed("web", incarnation="web-2"))

    node.takes(changed("web", incarnation="web-3"), after_s=2.0)

    assert web(node).up_since_s == node.now


def test_an_unhealthy_container_that_heals_counts_as_up_from_then() -> None:
    node = active()
    node.takes(changed("web", DOWN, alive=True, detail="running (unhealthy)"))

    node.takes(changed("web"), after_s=1.0)

    assert web(node).up_since_s == node.now


# --- repair ---------------------------------------------------------------------------------------


def repairs(node: Node, seconds: float) -> list[float]:
    """When, from now on, repairs of web are ordered; each fails at once."""
    began_s, times = node.now, []
    while node.now < began_s + seconds:
        step = node.lives(0.25, node.beat())
        for repair in of_kind(step, RepairContainer):
            assert repair == RepairContainer(TERM + 1, "web")
            times.append(node.now - began_s)
            node.takes(RepairFinished(repair.term, repair.name, "no such file"))
    return times


def test_repairs_are_spread_over_the_grace_and_the_first_comes_soon() -> None:
    node = active()
    node.takes(node.died("web"))

    assert repairs(node, 30.0) == pytest.approx([1.0, 11.0, 21.0], abs=0.26)


def test_repair_goes_on_after_the_verdict_while_nobody_can_take_over() -> None:
    node = active()
    node.takes(node.died("web"))
    repairs(node, 30.0)

    assert len(repairs(node, 60.0)) == 6


def test_a_short_grace_leaves_a_short_pause_and_a_long_one_no_longer_than_thirty_seconds() -> None:
    node = active(policy(restart_grace_period_s=0.8, restart_attempts=5))
    node.takes(node.died("web"))
    short = repairs(node, 3.0)
    assert short[0] == pytest.approx(0.25)
    assert short[1] - short[0] == pytest.approx(0.5)

    node = active(policy(restart_grace_period_s=600.0, restart_attempts=2))
    node.takes(node.died("web"))
    long = repairs(node, 100.0)
    assert long[1] - long[0] == pytest.approx(30.0, abs=0.26)


def test_without_a_grace_the_handover_goes_before_the_repair() -> None:
    node = active(policy(restart_grace_period_s=0.0))

    step = node.takes(node.died("web"))

    assert len(of_kind(step, SendVoteRequest)) == 1
    assert repairs(node, 0.9)[0] == 0.5


def test_no_repair_where_none_is_wanted() -> None:
    node = active(policy(restart_attempts=0))
    node.takes(node.died("web"))

    assert repairs(node, 120.0) == []


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"exists": False, "alive": False}, id="removed: nothing to start"),
        pytest.param({"alive": True}, id="paused or unhealthy: it runs"),
    ],
)
def test_only_a_dead_container_is_started(changes: dict[str, object]) -> None:
    node = active()
    node.takes(changed("web", DOWN, **changes))

    assert repairs(node, 60.0) == []


def test_one_repair_at_a_time() -> None:
    node = active()
    node.takes(node.died("web"))

    step = node.lives(120, node.beat())

    assert len(of_kind(step, RepairContainer)) == 1
    assert node.state.repairing == {"web"}


def test_a_repair_that_worked_is_counted_for_people() -> None:
    node = active()
    node.takes(node.died("web"))
    node.lives(1.0, node.beat())

    node.takes(changed("web", incarnation="web-2"), RepairFinished(TERM + 1, "web", ""))
    node.lives(3.5, node.beat())

    assert (web(node).restarts, web(node).attempts, web(node).down_since_s) == (1, 0, None)
    assert node.state.repairing == frozenset()


def test_a_repair_that_failed_says_why() -> None:
    node = active()
    node.takes(node.died("web"))
    node.lives(1.0, node.beat())

    node.takes(RepairFinished(TERM + 1, "web", "port in use"))

    assert web(node).detail == "exited (1); start failed: port in use"
    assert (web(node).restarts, web(node).attempts) == (0, 1)


@pytest.mark.parametrize(("term", "name"), [(TERM + 1, "db"), (TERM, "web")])
def test_a_repair_that_was_not_ordered_now_is_stale(term: int, name: str) -> None:
    node = active()
    node.takes(node.died("web"))
    node.lives(1.0, node.beat())

    node.takes(RepairFinished(term, name, ""))

    assert node.state.counters.stale == 1
    assert node.state.repairing == {"web"}


def test_nothing_is_repaired_on_a_standby() -> None:
    node = a_standby()

    step = node.lives(120, node.leading_beat())

    assert of_kind(step, RepairContainer) == []


# --- the engine is lost: unknown is not down (S4) -------------------------------------------------


def test_an_engine_that_does_not_answer_says_nothing_about_its_containers() -> None:
    node = active()

    node.takes(engine_lost(None))
    step = node.lives(29, node.beat())

    assert [view.state for view in node.state.containers.values()] == [UNKNOWN, UNKNOWN]
    assert of_kind(step, RepairContainer) + of_kind(step, SendVoteRequest) == []
    assert node.state.phase is Phase.ACTIVE
    assert "engine_lost" in alarms(node)


def test_an_engine_that_withholds_its_events_is_no_lost_one_and_is_told_of() -> None:
    node = active()

    node.takes(replace(all_up(node), withheld="a proxy denies GET /events"))
    told = node.state.alarms["engine_withholds"].sentence
    assert told == "a container's death is seen late: a proxy denies GET /events"
    assert (node.state.phase, "engine_lost" in alarms(node)) == (Phase.ACTIVE, False)
    assert [view.state for view in node.state.containers.values()] == [UP, UP]

    node.takes(all_up(node))
    assert "engine_withholds" not in alarms(node)


def test_a_restart_policy_that_cannot_be_set_is_told_of_until_there_is_none() -> None:
    node = active()

    node.takes(all_up(node, restart_policy="always"))
    assert "restart_policy" not in alarms(node)
    node.takes(RestartPolicySet("web", "always", "a proxy denies it"))
    assert node.state.alarms["restart_policy"].sentence == (
        "after a boot Docker may start a container by itself: its restart policy could not be set "
        "to no: a proxy denies it"
    )

    since_s = node.now
    node.takes(all_up(node, restart_policy="always"), after_s=60.0)
    assert node.state.alarms["restart_policy"].since_s == since_s, "it is tried again, and stays"

    node.takes(all_up(node))
    assert "restart_policy" not in alarms(node)
    node.takes(all_up(node), all_up(node, restart_policy="always"))
    assert "restart_policy" not in alarms(node), "another one, and not tried yet"


def test_an_engine_that_is_back_says_it_all_anew() -> None:
    node = active()
    node.takes(engine_lost(None))

    node.takes(all_up(node), after_s=5.0)

    assert node.state.engine.reachable is True
    assert node.state.engine.lost_at_s is None
    assert [view.state for view in node.state.containers.values()] == [UP, UP]
    assert "engine_lost" not in alarms(node)


@pytest.mark.parametrize(
    ("alive", "on_engine_lost", "moves"),
    [
        pytest.param(True, OnEngineLost.HANDOVER, False, id="seen alive: stay"),
        pytest.param(False, OnEngineLost.STAY, True, id="seen gone: hand over"),
        pytest.param(None, OnEngineLost.STAY, False, id="cannot be told: stay"),
        pytest.param(None, OnEngineLost.HANDOVER, True, id="cannot be told: hand over if so set"),
    ],
)
def test_after_the_grace_a_lost_engine_moves_the_service_only_if_it_is_gone(
    alive: bool | None, on_engine_lost: OnEngineLost, moves: bool
) -> None:
    node = active(policy(on_engine_lost=on_engine_lost))

    node.takes(engine_lost(alive, "db", "web"))
    before = node.lives(29.9, engine_lost(alive, "db", "web"), node.beat())
    after = node.lives(1.0, engine_lost(alive, "db", "web"), node.beat())

    assert of_kind(before, SendVoteRequest) == []
    asked = [sent.request.reason for sent in of_kind(after, SendVoteRequest)]
    assert (Reason.ENGINE_LOST in asked) == moves
    assert ("service_lost" in alarms(node)) == moves
    assert of_kind(after, StopContainers) == []


def test_one_process_that_is_seen_alive_keeps_the_service_here() -> None:
    node = active(policy(on_engine_lost=OnEngineLost.HANDOVER))
    lost = replace(engine_lost(False, "db"), alive=(("db", False), ("web", True)))

    node.takes(lost)

    assert of_kind(node.lives(60, node.beat()), SendVoteRequest) == []


def test_with_a_lost_engine_the_service_is_handed_over_like_any_other() -> None:
    node = active()
    node.takes(engine_lost(False, "db", "web"))
    node.lives(30.5, node.beat())

    step = node.takes(node.vote(VoteKind.PREPARE))

    assert phases(step) == [(Phase.DEMOTING, Reason.ENGINE_LOST)]


def test_what_was_gone_before_is_not_forgotten_when_nothing_can_be_told() -> None:
    node = active()
    node.takes(node.died("web"))

    node.takes(engine_lost(None, "db", "web"))

    assert (node.state.containers["db"].alive, web(node).alive) == (None, False)


def test_the_grace_counts_from_the_first_word_of_the_loss() -> None:
    node = active()
    node.takes(engine_lost(False, "db", "web"))
    lost_at_s = node.now

    node.takes(engine_lost(False, "db", "web"), after_s=4.0)

    assert node.state.engine.lost_at_s == lost_at_s


def test_a_failed_node_whose_engine_is_lost_stays() -> None:
    node = failed()
    node.takes(engine_lost(None), node.beat())

    assert of_kind(node.lives(20, node.beat()), SendVoteRequest) == []
    assert node.state.phase is Phase.FAILED


def test_while_it_promotes_a_lost_engine_waits_for_the_end_of_the_start() -> None:
    node = promoting()

    node.takes(engine_lost(False, "db", "web"))
    step = node.lives(60, node.beat())

    assert of_kind(step, SendVoteRequest) == []
    assert "service_lost" not in alarms(node)


# --- Docker's own restart policy ------------------------------------------------------------------


def test_a_restart_policy_of_docker_is_set_to_no_once() -> None:
    node = starting()

    step = node.takes(all_down(node, restart_policy="always"))

    assert of_kind(step, ManageRestartPolicy) == [
        ManageRestartPolicy("db", "always"),
        ManageRestartPolicy("web", "always"),
    ]
    step = node.takes(all_down(node, restart_policy="always"))
    assert of_kind(step, ManageRestartPolicy) == []
    assert node.state.managing == {"db", "web"}


def test_a_policy_that_was_set_is_known_to_be_so() -> None:
    node = starting()
    node.takes(all_down(node, restart_policy="always"))

    node.takes(RestartPolicySet("web", "always", ""))

    assert web(node).restart_policy == "no"
    assert node.state.managing == {"db"}


def test_a_policy_that_could_not_be_set_is_tried_again_with_the_next_snapshot() -> None:
    node = starting()
    node.takes(all_down(node, restart_policy="always"))

    node.takes(RestartPolicySet("web", "always", "timed out"))

    assert web(node).restart_policy == "always"
    step = node.takes(changed("web", DOWN, restart_policy="always"))
    assert of_kind(step, ManageRestartPolicy) == [ManageRestartPolicy("web", "always")]


def test_a_recreate_that_brings_the_policy_back_is_managed_again() -> None:
    node = starting()
    node.takes(all_down(node, restart_policy="always"), RestartPolicySet("web", "always", ""))

    step = node.takes(changed("web", DOWN, incarnation="new", restart_policy="unless-stopped"))

    assert of_kind(step, ManageRestartPolicy) == [ManageRestartPolicy("web", "unless-stopped")]


@pytest.mark.parametrize("changes", [{"restart_policy": ""}, {"exists": False}])
def test_nothing_is_set_where_there_is_nothing_to_set(changes: dict[str, object]) -> None:
    node = starting()
    said = {"restart_policy": "always", **changes}

    step = node.takes(ContainerChanged(seen("web", DOWN, **said)))

    assert of_kind(step, ManageRestartPolicy) == []


def test_the_answer_for_a_container_that_nobody_manages_is_ignored() -> None:
    node = starting()

    node.takes(RestartPolicySet("other", "always", ""))

    assert set(node.state.containers) == {"db", "web"}


def test_where_policies_are_refused_none_is_set_and_the_node_is_not_ready() -> None:
    node = a_standby(replace(a_standby().policy, restart_policy=RestartPolicyMode.REFUSE))

    step = node.takes(changed("web", DOWN, restart_policy="always"))

    assert of_kind(step, ManageRestartPolicy) == []
    beat = reply(node.takes(node.leading_beat())).beat
    assert beat.not_ready_because == (
        "web: its restart policy is not no: docker update --restart=no web",
    )
