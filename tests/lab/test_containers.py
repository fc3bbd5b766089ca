"""Containers that die, on real engines: what is repaired, what moves, and what does neither."""

from collections.abc import Callable, Iterator

import pytest

from tests.lab import crowd
from tests.lab.lab import Lab, Node
from tests.lab.pair import (
    LIMIT_S,
    alarms,
    assert_never_two,
    start_pair,
    status,
    term,
    wait_moved,
    wait_redundant,
    watch,
)
from tests.lab.service import Spec
from tests.lab.truth import now_s
from tests.lab.until import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]


@pytest.fixture
def lab() -> Iterator[Lab]:
    specs: list[str | Spec] = ["db", Spec("cache", memory_mb=16), Spec("web", health=True)]
    with Lab(specs) as lab:
        yield lab


def restarts(node: Node, name: str) -> int:
    """By the word of its agent; -1 where that does not answer."""
    found = [item for item in status(node).get("containers", []) if item["name"] == name]
    return int(found[0]["restarts"]) if found else -1


def test_a_container_that_is_killed_is_repaired_where_it_is(lab: Lab) -> None:
    start_pair(lab, restart_grace_period=10.0)  # a busy machine needs its time to start one
    before = term(lab.a)
    died_at_s = now_s()
    lab.a.services["db"].kill()
    until(lambda: restarts(lab.a, "db") == 1, LIMIT_S, "the agent starts db again")
    wait_redundant(lab, lab.a)
    print(f"downtime: repair: db {lab.truth.downtime('db', died_at_s):.2f} s")
    assert term(lab.a) == before
    until(lambda: status(lab.b).get("phase") == "standby", LIMIT_S, "the standby is still one")
    assert lab.truth.starts(died_at_s) == [("host-a", "db")]


def test_one_container_beyond_repair_moves_all_in_order_and_none_runs_twice(lab: Lab) -> None:
    start_pair(lab)
    lab.a.services["web"].break_process()
    died_at_s = now_s()
    lab.a.services["web"].kill()
    wait_moved(lab, lab.b, died_at_s, "container beyond repair")
    moved = [name for host, name in lab.truth.starts(died_at_s) if host == "host-b"]
    assert sorted(moved) == ["cache", "db", "web"], "each of them once"
    crowd.assert_started_in_order(lab.b)
    ends = {run.name: run.last_s for run in lab.truth.runs("host-a") if run.has_ended}
    assert ends["cache"] < ends["db"], "they are stopped in reverse order"
    assert_never_two(lab)
    until(lambda: status(lab.b).get("reason") == "container_down", LIMIT_S, "and why")
    lab.a.services["web"].mend_process()
    wait_redundant(lab, lab.b)


def unhealthy(node: Node) -> None:
    node.services["web"].make_sick()


def killed_for_memory(node: Node) -> None:
    node.services["cache"].run_out_of_memory()


def removed(node: Node) -> None:
    node.services["cache"].remove()


def paused(node: Node) -> None:
    node.services["cache"].pause()


@pytest.mark.parametrize("fault", [unhealthy, killed_for_memory, removed, paused])
def test_this_is_down_and_moves_the_service(lab: Lab, fault: Callable[[Node], None]) -> None:
    start_pair(lab, restart_attempts=0)
    since_s = now_s()
    fault(lab.a)
    wait_moved(lab, lab.b, since_s, fault.__name__)
    until(lambda: status(lab.b).get("reason") == "container_down", LIMIT_S, "and why")
    assert_never_two(lab)


@pytest.mark.parametrize("deed", ["restart", "recreate"])
def test_a_restart_or_a_recreate_within_the_grace_moves_nothing(lab: Lab, deed: str) -> None:
    start_pair(lab, restart_grace_period=10.0)
    before = term(lab.a)
    since_s = now_s()
    service = lab.a.services["db"]
    service.restart() if deed == "restart" else service.recreate()
    wait_redundant(lab, lab.a)
    watch(lab, 3.0, lab.a)
    assert term(lab.a) == before
    assert ("host-b", "db") not in lab.truth.starts(since_s)


def test_a_peer_without_the_container_makes_nothing_worse(lab: Lab) -> None:
    """Beyond repair, but nobody to take over: the rest runs on, repair goes on, status says why."""
    start_pair(lab)
    lab.b.services["web"].remove()
    missed = "web: no such container"
    until(
        lambda: missed in alarms(lab.a).get("redundancy_lost", ""), LIMIT_S, "the active knows why"
    )
    lab.a.services["web"].break_process()
    since_s = now_s()
    lab.a.services["web"].kill()
    until(lambda: "container_down" in alarms(lab.a), LIMIT_S, "the verdict falls")
    until(lambda: now_s() > since_s + 6, LIMIT_S, "two more graces pass")
    rest = {("host-a", "db"), ("host-a", "cache")}
    until(lambda: lab.truth.running_now() == rest, LIMIT_S, "the rest runs")
    assert lab.truth.starts(since_s) == [], "and was never stopped"
    until(lambda: status(lab.a).get("phase") == "active", LIMIT_S, "the active stays active")
    lab.a.services["web"].mend_process()
    until(lambda: "container_down" not in alarms(lab.a), LIMIT_S, "repair goes on")
    assert not lab.truth.running_now("host-b")


def test_a_start_that_fails_on_the_peer_comes_back(lab: Lab) -> None:
    """Never stopped on both sides: the peer cannot start web, so the service comes home."""
    start_pair(lab)
    lab.b.services["web"].break_start()
    lab.a.services["web"].break_process()
    since_s = now_s()
    lab.a.services["web"].kill()
    until(lambda: "failed" in phases(lab.b), LIMIT_S, "the peer fails to start it")
    lab.a.services["web"].mend_process()
    wait_moved(lab, lab.a, since_s, "failed promotion")
    until(
        lambda: "the last start here failed" in alarms(lab.b).get("not_ready", ""), LIMIT_S, "why"
    )
    assert_never_two(lab)


def test_a_container_that_somebody_starts_on_the_standby_is_stopped(lab: Lab) -> None:
    start_pair(lab)
    before = term(lab.a)
    lab.b.services["cache"].start()
    until(lambda: lab.b.services["cache"].state == "exited", LIMIT_S, "its agent stops it")
    until(lambda: "stray_container" not in alarms(lab.b), LIMIT_S, "and is content")
    until(lambda: not lab.truth.running_now("host-b"), LIMIT_S, "nothing runs there")
    assert "stray_container" in lab.b.agent.log()
    watch(lab, 2.0, lab.a)
    assert term(lab.a) == before


def phases(node: Node) -> list[str]:
    """Every phase of the history, oldest first."""
    listed = node.agent.cli("history", "--json").stdout
    return [line for line in listed.split('"') if line in ("failed", "active", "standby")]
