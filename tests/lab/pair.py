"""A pair of agents in the lab: what the tests ask of it, and wait for."""

from typing import Any

from tests.lab.lab import Lab, Node
from tests.lab.truth import now_s
from tests.lab.until import until

LIMIT_S = 60.0  # generous: a condition that is met ends the wait


def names(lab: Lab) -> set[str]:
    """The managed containers."""
    return {spec.name for spec in lab.specs}


def status(node: Node) -> dict[str, Any]:
    """The status, or {} where no agent answers."""
    try:
        return node.agent.status()
    except OSError:
        return {}


def alarms(node: Node) -> dict[str, str]:
    """Open alarms: code and sentence."""
    return {alarm["code"]: alarm["sentence"] for alarm in status(node).get("alarms", [])}


def is_redundant(node: Node) -> bool:
    """Active, everything up, with a peer that could take over."""
    told = status(node)
    up = all(container["state"] == "up" for container in told.get("containers", []))
    return bool(told and told["phase"] == "active" and told["redundancy"]["ok"] and up)


def runs_all(lab: Lab, node: Node) -> bool:
    """Do all containers run on this host, by their own word?"""
    return {name for _, name in lab.truth.running_now(node.name)} == names(lab)


def wait_redundant(lab: Lab, node: Node) -> None:
    """Until `node` is active, runs everything, and its peer is ready."""
    until(lambda: is_redundant(node), LIMIT_S, f"{node.name} is active and its peer ready")
    until(lambda: runs_all(lab, node), LIMIT_S, f"all containers run on {node.name}")


def start_pair(lab: Lab, **settings: Any) -> None:
    """Both agents; the primary on host-a becomes active."""
    lab.start_pair(settings)
    wait_redundant(lab, lab.a)


def wait_moved(lab: Lab, node: Node, since_s: float, what: str) -> None:
    """Until the service runs on `node` and its agent says so; prints the downtime."""
    until(lambda: runs_all(lab, node), LIMIT_S, f"{what}: all containers run on {node.name}")
    node.agent.wait_phase("active", LIMIT_S)
    for name in sorted(names(lab)):
        print(f"downtime: {what}: {name} {lab.truth.downtime(name, since_s):.2f} s")


def pass_time(seconds: float) -> None:
    """Nothing is asked meanwhile: what is to be seen is in the truth afterwards."""
    end_s = now_s() + seconds
    until(lambda: now_s() >= end_s, seconds + LIMIT_S, f"{seconds} s pass", poll_s=0.05)


def watch(lab: Lab, seconds: float, node: Node) -> None:
    """For so long: the service runs on `node` alone; fails at the first look that differs."""
    end_s = now_s() + seconds

    def has_strayed_or_ended() -> bool:
        there = lab.truth.running_now(lab.peer_of(node).name)
        assert not there, f"{there} run beside {node.name}"
        return now_s() >= end_s

    until(has_strayed_or_ended, seconds + LIMIT_S, f"{seconds} s pass")
    until(lambda: runs_all(lab, node), LIMIT_S, f"everything runs on {node.name}")


def assert_never_two(lab: Lab, since_s: float = 0.0) -> None:
    """No container, nor any two of the group, ever ran on both hosts since that moment."""
    overlaps = lab.truth.overlaps(group=True, since_s=since_s)
    assert not overlaps, "; ".join(str(overlap) for overlap in overlaps)


def term(node: Node) -> int:
    return int(until(lambda: status(node), LIMIT_S, f"{node.name} answers")["term"])
