"""Two cables between the two hosts: one is cut, and the other carries on; both, and it is as ever.

One lab for the whole file, in a plain pair, where a peer that is thought dead is a second active.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab.lab import Lab, Node
from tests.lab.network import Cable
from tests.lab.pair import (
    LIMIT_S,
    alarms,
    is_redundant,
    runs_all,
    start_pair,
    status,
    term,
    wait_redundant,
    watch,
)
from tests.lab.truth import now_s
from tests.lab.until import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

TIMEOUT_S = 6.0  # heartbeat_timeout
PORT = 8000


@dataclass
class Wired:
    """The pair, and what is between its hosts beside the switch."""

    lab: Lab
    cable: Cable

    def ways(self, to: Node) -> tuple[str, str]:
        """Where `to` is called: over the switch, and over the cable."""
        return f"http://{to.address}:{PORT}", f"http://{self.cable.address[to.name]}:{PORT}"

    def settings(self) -> dict[str, Any]:
        return {
            "heartbeat_timeout": TIMEOUT_S,
            "primary": {"endpoint": [*self.ways(self.lab.b)]},
            "backup": {"endpoint": [*self.ways(self.lab.a)]},
        }

    @property
    def active(self) -> Node:
        return until(
            lambda: next((n for n in (self.lab.a, self.lab.b) if is_redundant(n)), None),
            LIMIT_S,
            "one is active, and its peer ready",
        )


@pytest.fixture(scope="module")
def shared() -> Iterator[Wired]:
    with Lab(["db", "web"]) as lab:
        wired = Wired(lab, Cable(lab.network, lab.a.host, lab.b.host))
        start_pair(lab, **wired.settings())
        yield wired


@pytest.fixture
def wired(shared: Wired) -> Wired:
    """Every wire is whole, and nobody has anything to say against it."""
    shared.lab.network.heal()
    nodes = (shared.lab.a, shared.lab.b)
    until(lambda: not any(alarms(node) for node in nodes), LIMIT_S, "no alarm anywhere")
    wait_redundant(shared.lab, shared.active)
    return shared


def answer(node: Node) -> dict[str, Any]:
    """Its status, when it answers."""
    return until(lambda: status(node), LIMIT_S, f"{node.name} tells its status")


def paths(node: Node) -> dict[str, bool | None]:
    return {path["endpoint"]: path["reachable"] for path in answer(node)["peer"]["paths"]}


def wait_said(node: Node, lost: str, times: int) -> None:
    """Until its log, which a thread writes, has so many lines of the begin, and as many of the end,
    of the loss of this path.
    """
    lines = [f"alarm {word}code=path_lost which={lost}" for word in ("", "ended ")]
    until(
        lambda: [node.agent.log().count(line) for line in lines] == [times] * 2,
        LIMIT_S,
        f"{times} lines at its begin, {times} at its end",
    )


Cut = Callable[[Wired], None]

CUTS: dict[str, tuple[int, Cut]] = {
    "the network": (0, lambda w: w.lab.network.cut_both(w.lab.a, w.lab.b)),
    "the cable": (1, lambda w: w.cable.cut_both(w.lab.a, w.lab.b)),
    "the network, from a to b": (0, lambda w: w.lab.network.cut(w.lab.a, w.lab.b)),
    "the cable, from b to a": (1, lambda w: w.cable.cut(w.lab.b, w.lab.a)),
}


@pytest.mark.parametrize("what", CUTS)
def test_one_of_two_cables_is_cut_and_healed(wired: Wired, what: str) -> None:
    lab, active, nodes = wired.lab, wired.active, (wired.lab.a, wired.lab.b)
    which, cut = CUTS[what]
    before, since_s = term(active), now_s()
    told_before = {
        node.name: node.agent.log().count(
            f"alarm code=path_lost which={wired.ways(lab.peer_of(node))[which]}"
        )
        for node in nodes
    }
    cut(wired)
    cut_at_s = now_s()
    until(lambda: all("path_lost" in alarms(n) for n in nodes), LIMIT_S, "both miss the path")
    print(f"{what} is cut: both say so after {now_s() - cut_at_s:.1f} s (T = {TIMEOUT_S:g} s)")
    for node in nodes:
        ways = wired.ways(lab.peer_of(node))
        lost, good = ways[which], ways[1 - which]
        assert set(alarms(node)) == {"path_lost"}
        assert lost in alarms(node)["path_lost"]
        assert paths(node) == {lost: False, good: True}
        told = answer(node)
        assert told["peer"]["reachable"]
        assert (told["redundancy"]["ok"], told["ready"]) == (False, True)
        assert lost in told["redundancy"]["lost_because"][0]
        shown = node.agent.cli("status")
        assert (shown.returncode, f"{lost} is SILENT" in shown.stdout) == (3, True), shown.stdout
        assert f"{good} answers" in shown.stdout
    watch(lab, TIMEOUT_S, active)

    lab.network.heal()

    until(lambda: not any(alarms(node) for node in nodes), LIMIT_S, "both find it again")
    wait_redundant(lab, active)
    assert all(all(paths(node).values()) for node in nodes)
    assert term(active) == before
    assert not lab.truth.starts(since_s), "nothing moved"
    for node in nodes:
        wait_said(node, wired.ways(lab.peer_of(node))[which], told_before[node.name] + 1)


def test_both_cables_are_cut_and_the_standby_takes_over_as_ever(wired: Wired) -> None:
    lab, active = wired.lab, wired.active
    standby = lab.peer_of(active)
    lab.network.cut_both(active, standby)
    wired.cable.cut_both(active, standby)
    until(lambda: runs_all(lab, standby), LIMIT_S, "the standby starts the service")
    until(lambda: "redundancy_lost" in alarms(active), LIMIT_S, "the other misses its peer")
    assert "path_lost" not in alarms(active) | alarms(standby), "said once: the peer is silent"
    assert not any(paths(active).values())

    lab.network.heal()

    until(lambda: is_redundant(standby), LIMIT_S, "the higher term goes on, the other stands by")
    until(lambda: runs_all(lab, standby) and not lab.truth.running_now(active.name), LIMIT_S, "one")


def test_a_path_that_leads_to_ourselves_is_an_alarm_and_the_good_one_decides(wired: Wired) -> None:
    """The last one: a host ends in it. Its address on the cable is one of many to the program."""
    lab, active = wired.lab, wired.active
    standby = lab.peer_of(active)
    role = standby.agent.role
    own = f"http://{wired.cable.address[standby.name]}:{PORT}"
    good = wired.ways(active)[0]
    standby.agent.sigterm()
    standby.agent.wait()
    settings = {"heartbeat_timeout": TIMEOUT_S, role: {"endpoint": [good, own]}}
    lab.start_agent(standby, role, settings)
    until(lambda: own in alarms(standby).get("endpoint_is_self", ""), LIMIT_S, "the alarm")
    until(lambda: status(standby).get("phase") == "standby", LIMIT_S, "it is a standby")
    until(lambda: status(standby).get("ready"), LIMIT_S, "and ready")
    watch(lab, 2 * TIMEOUT_S, active)
    assert set(alarms(standby)) == {"endpoint_is_self"}
    assert paths(standby) == {good: True, own: False}

    active.crash()

    until(lambda: runs_all(lab, standby), LIMIT_S, "the standby takes over from a dead host")
