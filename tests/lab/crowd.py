"""Many small containers in one group, and what the engines say about when each of them ran.

They do not write ticks as others do, which would be thousands of lines a second: here the truth is
what both engines have on record for each container, its last start and its last end.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.lab.agent import PORT
from tests.lab.image import IMAGE
from tests.lab.lab import Lab, Node
from tests.lab.pair import status
from tests.lab.service import Spec
from tests.lab.truth import now_s
from tests.lab.until import until

SLEEPER = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 86400 & wait; done")


def sleepers(number: int) -> tuple[Spec, ...]:
    """So many containers that do nothing and end at once when they are told to."""
    return tuple(Spec(f"app-{one:03}", command=SLEEPER, stop_timeout_s=5) for one in range(number))


@dataclass(frozen=True, slots=True)
class Life:
    """The last run of one container on one host, by its engine; both have the same clock."""

    name: str
    is_running: bool
    started: datetime
    finished: datetime


def lives(node: Node) -> list[Life]:
    """Of all containers of the group, in start order."""
    found = []
    for name in node.services:
        state = node.engine.must("GET", f"/containers/{name}/json").json["State"]
        started, finished = (
            datetime.fromisoformat(state[it]) for it in ("StartedAt", "FinishedAt")
        )
        found.append(Life(name, state["Running"], started, finished))
    return found


def running(node: Node) -> int:
    """How many containers the engine says are running."""
    return len(node.engine.must("GET", "/containers/json").json)


def start(lab: Lab, **settings: Any) -> None:
    """Witness and both agents."""
    endpoint = f"http://{lab.c.address}:{PORT}"
    told = {"arbiter": {"kind": "witness", "endpoint": endpoint}, "witness": {"port": PORT}}
    both = {"max_failovers": 1000, **told, **settings}
    lab.start_agent(lab.c, "witness", both, supervised=True)
    lab.start_agent(lab.a, "primary", both, supervised=True)
    lab.start_agent(lab.b, "backup", both, supervised=True)


def is_serving(node: Node) -> bool:
    """Its agent is active and sees every container up."""
    return _tells_of_service(status(node))


def has_ready_peer(node: Node) -> bool:
    """It serves, and the other could take over."""
    told = status(node)
    return _tells_of_service(told) and told["redundancy"]["ok"] is True


def _tells_of_service(told: dict[str, Any]) -> bool:
    return told.get("phase") == "active" and all(
        container["state"] == "up" for container in told["containers"]
    )


def took_s(condition: Any, limit_s: float, what: str) -> float:
    """How long it took until `condition` was true."""
    begun_s = now_s()
    until(condition, limit_s, what)
    return now_s() - begun_s


def assert_started_in_order(node: Node) -> None:
    """All run, each started after the one before it."""
    told = lives(node)
    assert all(life.is_running for life in told), [life for life in told if not life.is_running]
    starts = [life.started for life in told]
    assert starts == sorted(starts), "the start order"


def assert_never_two(here: Sequence[Life], there: Sequence[Life]) -> None:
    """Those `there` ended before these here started."""
    for one, other in zip(here, there, strict=True):
        assert not other.is_running, f"{other.name} runs on both hosts"
        assert other.finished <= one.started, f"{one.name} ran on both hosts"


class Storm:
    """As many events as the engine makes of containers that nobody manages, until `end()`.

    Renames of one, back and forth, by several senders: each is an event that the agent has to read.
    """

    def __init__(self, node: Node, senders: int = 4) -> None:
        self._node = node
        self._is_over = threading.Event()
        self._counts = [0] * senders
        self._begun_s = now_s()
        self.lasted_s = 0.0
        self.longest_age_s = 0.0
        self._threads = [
            threading.Thread(target=self._send, args=(number,)) for number in range(senders)
        ]
        self._threads.append(threading.Thread(target=self._watch))
        for number in range(senders):
            path = f"/containers/create?name=stranger-{number}"
            node.engine.must("POST", path, {"Image": IMAGE, "Cmd": list(SLEEPER)})
        for thread in self._threads:
            thread.start()

    @property
    def said(self) -> int:
        """How many events so far."""
        return sum(self._counts)

    def end(self) -> None:
        """Nothing is sent any more."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        self.lasted_s = now_s() - self._begun_s

    def _send(self, number: int) -> None:
        name, other = f"stranger-{number}", f"other-{number}"
        while not self._is_over.is_set():
            self._node.engine.must("POST", f"/containers/{name}/rename?name={other}")
            self._counts[number] += 1
            name, other = other, name

    def _watch(self) -> None:
        """By the word of the agent: since when it has not heard its peer."""
        while not self._is_over.wait(0.2):
            age_s = status(self._node).get("peer", {}).get("heartbeat_age_s") or 0.0
            self.longest_age_s = max(self.longest_age_s, age_s)
