"""GET /v1/status: what scripts rely on, for every state there can be."""

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from failover_agent.core.policy import PartitionPolicy, Policy, Role
from failover_agent.core.state import (
    Alarm,
    Containers,
    ContainerState,
    ContainerView,
    Counters,
    Durable,
    EngineView,
    Health,
    Holder,
    Overlap,
    PathView,
    PeerView,
    Phase,
    Readiness,
    Reason,
    State,
    Stopping,
)
from failover_agent.web.status import not_ready_because, status_of

NOW = 1000.0
POLICY = Policy(role=Role.PRIMARY, containers=("db", "web"), heartbeat_timeout_s=10.0)


def _container(name: str) -> ContainerView:
    return ContainerView(
        name=name, state=ContainerState.UP, detail="running (healthy)", exists=True, alive=True
    )


STATE = State(
    role=Role.PRIMARY,
    node_id="aa",
    run_id="a1",
    may_resume=False,
    boot_is_new=False,
    durable=Durable(term=7, holder=Holder(Role.PRIMARY, "aa"), released=False),
    phase=Phase.ACTIVE,
    reason=Reason.FIRST_START,
    since_s=NOW - 812.4,
    started_at_s=NOW - 820.0,
    stepped_at_s=NOW,
    next_beat_at_s=NOW + 1,
    held_term=7,
    engine=EngineView(reachable=True),
    containers=Containers([_container("db"), _container("web")]),
    peers={
        Role.BACKUP: PeerView(
            Role.BACKUP,
            node_id="bb",
            heard_at_s=NOW - 0.4,
            phase=Phase.STANDBY,
            term=7,
            readiness=Readiness.READY,
        )
    },
)
STANDBY = replace(
    STATE,
    phase=Phase.STANDBY,
    held_term=None,
    containers=Containers(
        replace(view, state=ContainerState.DOWN, detail="exited (0)", alive=False)
        for view in STATE.containers.values()
    ),
    peers={Role.BACKUP: replace(STATE.peers[Role.BACKUP], phase=Phase.ACTIVE, holding=True)},
)


def _status(state: State = STATE, now: float = NOW, **fields: Any) -> dict[str, Any]:
    status = status_of(
        state,
        replace(POLICY, **fields),
        now,
        cluster="shop",
        version="0.1.0",
        pid=4711,
        rejected={"replayed": 2, "not_authentic": 1},
        arbiter_kind="etcd",
    )
    told: dict[str, Any] = json.loads(json.dumps(status, allow_nan=False))
    return told


def _peer(**fields: Any) -> State:
    return replace(STATE, peers={Role.BACKUP: replace(STATE.peers[Role.BACKUP], **fields)})


def test_an_active_node_says_all_that_scripts_rely_on() -> None:
    status = _status()

    assert {
        "cluster": "shop",
        "role": "primary",
        "phase": "active",
        "term": 7,
        "reason": "first_start",
        "since_s": 812.4,
        "version": "0.1.0",
        "protocol": 1,
        "paused": None,
        "lease": {"required": False, "held": None, "remaining_s": None, "votes": []},
        "arbiter": None,
        "redundancy": {"ok": True, "lost_because": []},
        "alarms": [],
        "held": None,
        "drained": None,
        "pid": 4711,
    }.items() <= status.items()
    assert {
        "role": "backup",
        "reachable": True,
        "phase": "standby",
        "term": 7,
        "heartbeat_age_s": 0.4,
        "ready": True,
        "not_ready_because": [],
    }.items() <= status["peer"].items()
    assert status["containers"][1] == {
        "name": "web",
        "state": "up",
        "detail": "running (healthy)",
        "down_for_s": None,
        "restarts": 0,
    }
    assert [container["name"] for container in status["containers"]] == ["db", "web"]


def test_what_is_added_helps_to_see_why() -> None:
    status = _status(
        replace(
            STATE,
            failed_because="web did not start",
            refused_because="the backup refused: promised",
            overlap=Overlap(NOW - 60, NOW - 58.5),
            counters=Counters(stale=3, promotions=1),
        )
    )

    assert status["node_id"] == "aa"
    assert status["ready"] is True
    assert status["not_ready_because"] == []
    assert status["failed_because"] == "web did not start"
    assert status["refused_because"] == "the backup refused: promised"
    assert status["overlap"] == {"since_s": 60.0, "lasted_s": 1.5}
    assert status["engine"] == {"reachable": True, "error": None}
    assert status["counters"] == {
        "promotions": 1,
        "overlaps": 0,
        "stale": 3,
        "rejected": {"not_authentic": 1, "replayed": 2},
    }


def test_a_peer_never_heard_is_not_reachable_and_the_rest_is_null() -> None:
    status = _status(replace(STATE, peers={Role.BACKUP: PeerView(Role.BACKUP)}))

    assert status["peer"] == {
        "role": "backup",
        "reachable": False,
        "phase": None,
        "term": None,
        "heartbeat_age_s": None,
        "ready": None,
        "not_ready_because": None,
        "node_id": None,
        "health": None,
        "error": None,
        "paths": None,
        "running": None,
        "released_term": None,
        "ending": False,
    }
    assert status["redundancy"] == {
        "ok": False,
        "lost_because": ["the backup is not heard, and never was since this agent began"],
    }


def test_a_peer_is_reachable_within_heartbeat_timeout() -> None:
    assert _status(_peer(heard_at_s=NOW - 9.99))["peer"]["reachable"] is True

    silent = _status(_peer(heard_at_s=NOW - 10.0, error="no connection"))

    assert silent["peer"]["reachable"] is False
    assert silent["peer"]["heartbeat_age_s"] == 10.0
    assert silent["peer"]["phase"] == "standby"
    assert silent["redundancy"]["lost_because"] == ["the backup is not heard (no connection)"]


def test_the_health_of_a_peer_is_that_of_an_active_one() -> None:
    degraded = _peer(health=Health.DEGRADED)
    active = _peer(health=Health.DEGRADED, phase=Phase.ACTIVE, holding=True)

    assert _status(degraded)["peer"]["health"] is None
    assert _status(active)["peer"]["health"] == "degraded"


def test_what_a_peer_gave_back_and_still_runs_is_told() -> None:
    status = _status(_peer(running=0, released_term=6))

    assert (status["peer"]["running"], status["peer"]["released_term"]) == (0, 6)


def test_a_peer_that_said_that_it_ends_is_not_ready() -> None:
    ending = _peer(run_id="b1", ending_run="b1")
    again = _peer(run_id="b2", ending_run="b1")

    status = _status(ending)

    assert status["peer"]["ready"] is False
    assert status["peer"]["not_ready_because"] == ["its agent was told to stop"]
    assert status["redundancy"] == {
        "ok": False,
        "lost_because": ["the backup is not ready: its agent was told to stop"],
    }
    assert _status(again)["peer"]["ready"] is True
    assert _status(again)["redundancy"]["ok"] is True


STARTING = replace(
    STATE,
    phase=Phase.STARTING,
    held_term=None,
    started_at_s=NOW - 5.8,
    peers={Role.BACKUP: PeerView(Role.BACKUP, silent_since_s=NOW - 5.8)},
)


def test_a_node_that_starts_says_what_it_waits_for_and_what_goes_on_running() -> None:
    status = _status(STARTING)

    assert status["waits"] == {
        "for": "backup",
        "setting": "startup_grace_period",
        "remaining_s": 14.2,
    }
    assert status["left_running"] == ["db", "web"]


def test_a_wait_without_an_end_has_no_rest() -> None:
    waits = _status(STARTING, partition_policy=PartitionPolicy.CONSISTENCY)["waits"]

    assert waits == {"for": "backup", "setting": "partition_policy", "remaining_s": None}


def test_a_node_that_waits_for_nobody_says_so() -> None:
    status = _status()

    assert (status["waits"], status["left_running"]) == (None, [])


LAN, CABLE, VPN = (f"http://10.0.{number}.2:8000" for number in range(3))


def test_the_ways_to_the_peer_are_told_in_their_order() -> None:
    paths = (PathView(LAN, True), PathView(CABLE, False, NOW - 3.0, "no answer"), PathView(VPN))

    status = _status(_peer(paths=paths))

    assert status["peer"]["paths"] == [
        {"endpoint": LAN, "reachable": True, "silent_for_s": None, "error": None},
        {"endpoint": CABLE, "reachable": False, "silent_for_s": 3.0, "error": "no answer"},
        {"endpoint": VPN, "reachable": None, "silent_for_s": None, "error": None},
    ]
    assert status["redundancy"]["ok"], "not before it was silent for T"


def test_a_path_that_is_lost_is_no_redundancy_and_nothing_else() -> None:
    paths = (PathView(LAN, True), PathView(CABLE, False, NOW - 10.0, "no answer"))

    status = _status(_peer(paths=paths))

    assert status["redundancy"] == {
        "ok": False,
        "lost_because": [f"one of the paths to the backup is lost: {CABLE} (no answer)"],
    }
    assert (status["ready"], status["peer"]["reachable"]) == (True, True)


def test_the_ways_to_a_witness_are_told_too() -> None:
    witness = PeerView(Role.WITNESS, heard_at_s=NOW, paths=(PathView(LAN, True),))
    state = replace(STATE, peers={**STATE.peers, Role.WITNESS: witness})

    status = _status(state, arbiter=Role.WITNESS)

    assert status["arbiter"]["paths"] == [
        {"endpoint": LAN, "reachable": True, "silent_for_s": None, "error": None}
    ]


def test_a_peer_that_could_not_take_over_is_no_redundancy() -> None:
    status = _status(
        _peer(readiness=Readiness.CANNOT, not_ready_because=("web: gone", "disk full"))
    )

    assert status["peer"]["ready"] is False
    assert status["peer"]["not_ready_because"] == ["web: gone", "disk full"]
    assert status["redundancy"] == {
        "ok": False,
        "lost_because": ["the backup is not ready: web: gone; disk full"],
    }


def test_a_standby_that_could_not_take_over_is_no_redundancy_either() -> None:
    lost = replace(STANDBY, engine=EngineView(reachable=False, error="no socket"))

    assert _status(STANDBY)["redundancy"] == {"ok": True, "lost_because": []}
    assert _status(lost)["redundancy"] == {
        "ok": False,
        "lost_because": ["this node is not ready: the Docker Engine does not answer: no socket"],
    }
    assert _status(lost)["engine"] == {"reachable": False, "error": "no socket"}


def test_a_container_that_is_down_says_for_how_long() -> None:
    down = replace(
        _container("web"),
        state=ContainerState.DOWN,
        detail="exited (137)",
        down_since_s=NOW - 4.2,
        restarts=2,
    )
    status = _status(replace(STATE, containers=STATE.containers.seen([down])))

    assert status["containers"][1] == {
        "name": "web",
        "state": "down",
        "detail": "exited (137)",
        "down_for_s": 4.2,
        "restarts": 2,
    }
    assert status["ready"] is False
    assert status["not_ready_because"] == ["web is down: exited (137)"]


def test_a_container_that_was_down_is_up_while_it_settles() -> None:
    settling = replace(_container("web"), down_since_s=NOW - 4.2)

    status = _status(replace(STATE, containers=STATE.containers.seen([settling])))

    assert status["containers"][1]["down_for_s"] is None


def test_a_container_not_seen_yet_is_unknown() -> None:
    status = _status(replace(STATE, containers=Containers([])))

    assert [container["state"] for container in status["containers"]] == ["unknown", "unknown"]


def test_alarms_say_since_when() -> None:
    alarm = Alarm("redundancy_lost", "nothing is heard from the backup", NOW - 5)

    assert _status(replace(STATE, alarms={alarm.code: alarm}))["alarms"] == [
        {
            "code": "redundancy_lost",
            "sentence": "nothing is heard from the backup",
            "since_s": 5.0,
        }
    ]


def test_a_hold_says_who_asked_for_it() -> None:
    held = replace(
        STANDBY,
        durable=replace(STANDBY.durable, holder=Holder(Role.BACKUP, "bb"), hold=True),
        alarms={"held": Alarm("held", "left running", NOW - 30)},
    )
    leaving = replace(STATE, stopping=Stopping(asked_at_s=NOW, leave=True))

    assert _status(held)["held"] == {"by": "backup", "since_s": 30.0}
    assert _status(leaving)["held"] == {"by": "primary", "since_s": None}
    assert _status(replace(STATE, stopping=Stopping(NOW, leave=False)))["held"] is None


def test_an_arbiter_makes_a_lease() -> None:
    status = _status(replace(STATE, renewed_at_s={Role.WITNESS: NOW - 1.0}), arbiter=Role.WITNESS)

    assert status["lease"] == {
        "required": True,
        "held": True,
        "remaining_s": 8.9,
        "votes": ["primary", "witness"],
    }


def test_a_lease_that_ended_is_not_held_and_one_on_hold_has_no_end() -> None:
    ended = replace(STATE, renewed_at_s={Role.BACKUP: NOW - 9.9})
    on_hold = replace(ended, on_hold_at=frozenset({Role.BACKUP}))

    assert _status(ended, arbiter=Role.WITNESS)["lease"] == {
        "required": True,
        "held": False,
        "remaining_s": 0.0,
        "votes": ["primary"],
    }
    assert _status(on_hold, arbiter=Role.WITNESS)["lease"] == {
        "required": True,
        "held": True,
        "remaining_s": None,
        "votes": ["primary", "backup"],
    }
    peers = {**STANDBY.peers, Role.WITNESS: PeerView(Role.WITNESS)}
    assert _status(replace(STANDBY, peers=peers), arbiter=Role.WITNESS)["lease"] == {
        "required": True,
        "held": False,
        "remaining_s": None,
        "votes": [],
    }


def test_an_arbiter_is_of_the_kind_that_is_configured_and_may_be_silent() -> None:
    silent = PeerView(Role.WITNESS, heard_at_s=NOW - 10.0, error="no connection")
    state = replace(STATE, peers={**STATE.peers, Role.WITNESS: silent})

    status = _status(state, arbiter=Role.WITNESS)

    assert status["arbiter"] == {
        "kind": "etcd",
        "reachable": False,
        "error": "no connection",
        "paths": None,
    }
    assert status["redundancy"]["lost_because"] == ["the witness is not heard (no connection)"]


def test_the_term_is_the_one_held_or_else_the_highest_granted() -> None:
    assert _status(replace(STATE, held_term=6))["term"] == 6
    assert _status(STANDBY)["term"] == 7


def test_ready_is_an_active_with_all_up_or_a_standby_that_could_take_over() -> None:
    unknown = replace(_container("db"), state=ContainerState.UNKNOWN, detail="engine gone")

    assert not_ready_because(STATE, POLICY, NOW) == ()
    assert not_ready_because(STANDBY, POLICY, NOW) == ()
    assert not_ready_because(
        replace(STATE, containers=STATE.containers.seen([unknown])), POLICY, NOW
    ) == ("db is unknown: engine gone",)
    assert not_ready_because(
        replace(STANDBY, record_error="No space left on device"), POLICY, NOW
    ) == ("the record cannot be written: No space left on device",)
    for phase in set(Phase) - {Phase.ACTIVE, Phase.STANDBY}:
        assert not_ready_because(replace(STATE, phase=phase), POLICY, NOW) == (
            f"this node is {phase}",
        )


st.register_type_strategy(
    Containers, st.lists(st.from_type(ContainerView), max_size=3).map(Containers)
)


@given(st.from_type(State), st.from_type(Policy), st.floats())
def test_every_state_has_a_status(state: State, policy: Policy, now: float) -> None:
    others = (*policy.others, *([policy.arbiter] if policy.arbiter else []))
    peers = {**{role: PeerView(role) for role in others}, **state.peers}
    state = replace(state, role=policy.role, peers=peers)

    status = status_of(state, policy, now, cluster="shop", version="0.1.0", pid=1, rejected={})

    json.dumps(status, allow_nan=False)
    assert not [key for key in _status() if key not in status]
