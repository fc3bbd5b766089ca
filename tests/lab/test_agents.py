"""Agents that are killed, stopped, told to leave, or set up wrongly."""

from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab
from tests.lab.pair import (
    LIMIT_S,
    alarms,
    assert_never_two,
    runs_all,
    start_pair,
    status,
    term,
    wait_moved,
    wait_redundant,
    watch,
)
from tests.lab.truth import now_s
from tests.lab.until import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

TIMEOUT_S = 3.0  # heartbeat_timeout of the lab
# Who leaves waits three intervals for an answer: time for a busy machine to give it.
PATIENT_TIMEOUT_S = 6.0
PATIENT = {"heartbeat_interval": 1.0, "heartbeat_timeout": PATIENT_TIMEOUT_S}
LEAVING = {"on_stop": "leave", **PATIENT}


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(["db", "web"]) as lab:
        yield lab


@pytest.mark.parametrize("place", ["active", "standby"])
def test_an_agent_killed_and_back_within_the_timeout_touches_nothing(lab: Lab, place: str) -> None:
    start_pair(lab, heartbeat_timeout=10.0)  # a busy machine needs its time to start an agent
    node, role = (lab.a, "primary") if place == "active" else (lab.b, "backup")
    before = term(lab.a)
    since_s = now_s()
    node.agent.sigkill()
    node.agent.wait()
    lab.start_agent(node, "primary" if role == "primary" else "backup", {"heartbeat_timeout": 10.0})
    wait_redundant(lab, lab.a)
    watch(lab, TIMEOUT_S, lab.a)
    assert term(lab.a) == before
    assert not lab.truth.starts(since_s), "no container was touched"
    assert all(not run.has_ended for run in lab.truth.runs())


def test_sigterm_moves_the_service(lab: Lab) -> None:
    start_pair(lab, **PATIENT)
    since_s = now_s()
    lab.a.agent.sigterm()
    wait_moved(lab, lab.b, since_s, "SIGTERM")
    assert lab.a.agent.wait() == 0
    assert_never_two(lab)
    until(lambda: status(lab.b).get("reason") == "agent_stopping", LIMIT_S, "and why")


def test_sigterm_with_leave_holds_for_three_timeouts(lab: Lab) -> None:
    start_pair(lab, **LEAVING)
    since_s = now_s()
    lab.a.agent.sigterm()
    assert lab.a.agent.wait() == 0
    watch(lab, 3 * PATIENT_TIMEOUT_S, lab.a)
    assert not lab.truth.starts(since_s)
    until(lambda: "held" in alarms(lab.b), LIMIT_S, "the standby says that it holds")
    assert "held" in lab.a.agent.log()
    until(lambda: status(lab.b).get("held") is not None, LIMIT_S, "and in its status")
    lab.start_agent(lab.a, "primary", LEAVING)
    wait_redundant(lab, lab.a)
    until(lambda: "held" not in alarms(lab.b), LIMIT_S, "it holds no more")
    assert not lab.truth.starts(since_s), "it took its service up again, untouched"


def test_an_operator_takes_over_from_a_peer_that_is_off(lab: Lab) -> None:
    start_pair(lab, **LEAVING)
    refused = lab.b.agent.cli("takeover", "--peer-is-off")
    assert refused.returncode == 1
    assert "not off" in refused.stdout + refused.stderr
    lab.a.agent.sigterm()
    lab.a.agent.wait()
    since_s = now_s()
    lab.a.crash()
    until(lambda: "peer_silent" in alarms(lab.b), LIMIT_S, "the peer is missed, and held for")
    assert not lab.truth.running_now("host-b")
    taken = lab.b.agent.cli("takeover", "--peer-is-off")
    assert taken.returncode == 0, taken.stderr
    wait_moved(lab, lab.b, since_s, "takeover")
    until(lambda: status(lab.b).get("reason") == "operator", LIMIT_S, "and why")


def test_an_endpoint_that_points_to_itself_is_an_alarm_and_no_second_active(lab: Lab) -> None:
    lab.start_agent(lab.a, "primary")
    lab.start_agent(lab.b, "backup", {"backup": {"endpoint": f"http://{lab.b.name}:8000"}})
    until(lambda: "endpoint_is_self" in alarms(lab.b), LIMIT_S, "the alarm")
    until(lambda: runs_all(lab, lab.a), LIMIT_S, "the primary starts")
    watch(lab, 2 * TIMEOUT_S, lab.a)
    until(lambda: status(lab.a).get("phase") == "active", LIMIT_S, "the primary is active")
    assert_never_two(lab)


def test_two_primaries_are_an_alarm_and_one_active(lab: Lab) -> None:
    lab.start_agent(lab.a, "primary")
    lab.start_agent(lab.b, "primary")
    nodes = (lab.a, lab.b)
    active = until(
        lambda: next((node for node in nodes if runs_all(lab, node)), None),
        LIMIT_S,
        "one of them starts",
    )
    watch(lab, 2 * TIMEOUT_S, active)
    assert "same_role" in alarms(lab.a) | alarms(lab.b)
    assert_never_two(lab)
