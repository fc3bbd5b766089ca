"""A pair with an arbiter in one lab: witness, or etcd, on the third host (or a member on each).

    with Trio.build("witness", heartbeat_timeout=3.0) as trio:
        since_s = now_s()
        active = trio.settle()
        active.crash()
        trio.wait_back(since_s, "crash")

What it was started with it remembers, so that whatever is broken comes back as it was: `settle()`.
"""

import contextlib
import math
import shutil
from collections.abc import Iterator
from typing import Any, Literal

from failover_agent.core import bounds
from failover_agent.core.policy import Policy
from failover_agent.core.policy import Role as PolicyRole
from tests.lab.agent import PORT, TIMINGS, Role
from tests.lab.etcd import Etcd
from tests.lab.journal import promotion_s
from tests.lab.lab import Lab, Node
from tests.lab.metronome import Metronome
from tests.lab.pair import (
    LIMIT_S,
    alarms,
    assert_never_two,
    is_redundant,
    names,
    runs_all,
    status,
    watch,
)
from tests.lab.service import Spec
from tests.lab.truth import now_s
from tests.lab.until import until

Arbiter = Literal["witness", "etcd", "three etcd"]
TICK_S = 0.05  # between two ticks of a container
RECORDS = "/var/lib/failover-agent"
FAILED_START = "the last start here failed"


class Trio:
    """Nothing runs before `start()`; use `build()`."""

    def __init__(self, lab: Lab, arbiter: Arbiter, metronome: Metronome, **settings: Any) -> None:
        """`settings` are the file's, the same on both nodes."""
        self.lab = lab
        self.arbiter = arbiter
        self.metronome = metronome
        self.start_s = 0.0  # how long the containers of one host take to start, as measured
        self.judged_from_s = 0.0
        self.etcd: Etcd | None = None
        if arbiter != "witness":
            nodes = [lab.c] if arbiter == "etcd" else [lab.a, lab.b, lab.c]
            self.etcd = Etcd([node.host for node in nodes])
        # Many faults befall one pair in a short time: no hold for flapping.
        self.settings: dict[str, Any] = {"max_failovers": 1000, **self.arbiter_table, **settings}

    @classmethod
    @contextlib.contextmanager
    def build(
        cls, arbiter: Arbiter = "witness", *, specs: tuple[str | Spec, ...] = (), **settings: Any
    ) -> "Iterator[Trio]":
        """A lab with everything in it, started and settled; cleared away at the end."""
        with Lab(specs or ("db", "web"), third_host=True) as lab, Metronome() as metronome:
            trio = cls(lab, arbiter, metronome, **settings)
            trio.start()
            yield trio

    @property
    def arbiter_table(self) -> dict[str, Any]:
        """What the file says of the arbiter."""
        if self.etcd is not None:
            endpoints = self.etcd.endpoints
            return {"arbiter": {"kind": "etcd", "endpoint": endpoints}}
        endpoint = f"http://{self.lab.c.address}:{PORT}"
        return {"arbiter": {"kind": "witness", "endpoint": endpoint}, "witness": {"port": PORT}}

    @property
    def nodes(self) -> tuple[Node, Node]:
        return self.lab.a, self.lab.b

    # -- starting -----------------------------------------------------------------------------

    def start(self) -> None:
        """Arbiter, then both agents, until one is active and the other ready."""
        self.start_s = self._measure_start()
        self.start_arbiter()
        for node in self.nodes:
            self.start_agent(node)
        self.settle()

    def start_agent(self, node: Node, **changes: Any) -> None:
        """Supervised; with these settings changed on this node alone, those of None left out."""
        role: Role = "primary" if node is self.lab.a else "backup"
        settings = {**self.settings, **changes}
        settings = {key: value for key, value in settings.items() if value is not None}
        self.lab.start_agent(node, role, settings, supervised=True)

    def start_arbiter(self) -> None:
        """Returns when etcd is healthy; a witness may still be on its way."""
        if self.etcd is not None:
            self.etcd.start()
        else:
            self.start_witness()

    def start_witness(self) -> None:
        """On host-c, supervised as the nodes are."""
        self.lab.start_agent(self.lab.c, "witness", self.settings, supervised=True)

    def forget_witness(self) -> None:
        """It is recreated with an empty disk."""
        assert self.etcd is None
        self.lab.c.agent.end()
        shutil.rmtree(self.lab.c.host.path(RECORDS), ignore_errors=True)
        self.start_witness()

    def _measure_start(self) -> float:
        """On host-b, one after the other, as the agent does it; nothing runs afterwards.

        Half as much again as it took, as one start is not like the next, and a tick of the truth.
        """
        begin_s = now_s()
        for service in self.lab.b.services.values():
            service.start()
        seconds = now_s() - begin_s
        for service in self.lab.b.services.values():
            service.kill()
        until(lambda: not self.lab.truth.running_now(), LIMIT_S, "stopped again")
        return 1.5 * seconds + TICK_S

    # -- looking ------------------------------------------------------------------------------

    def active(self) -> Node | None:
        """Whose agent says so; None where nobody's or both do."""
        found = [node for node in self.nodes if status(node).get("phase") == "active"]
        return found[0] if len(found) == 1 else None

    def find_redundant(self) -> Node | None:
        """The active one, where everything is as it should be, by the word of each of the three."""
        found = [node for node in self.nodes if is_redundant(node) and runs_all(self.lab, node)]
        if len(found) != 1 or (self.etcd is None and not status(self.lab.c)):
            return None
        standby = status(self.lab.peer_of(found[0]))
        alone = not standby or standby["phase"] != "standby" or standby["peer"]["phase"] != "active"
        return None if alone or not standby["redundancy"]["ok"] else found[0]

    def find_well(self) -> Node | None:
        """The same, where what failed to start was mended, and an operator says so, as it asks."""
        for node in self.nodes:
            if FAILED_START in alarms(node).get("not_ready", ""):
                node.agent.cli("resume")
        return self.find_redundant()

    def ends(self) -> tuple[Node, Node]:
        """The active one and its standby, when everything is as it should be."""
        active = until(self.find_redundant, LIMIT_S, "settled")
        return active, self.lab.peer_of(active)

    def runs_on(self, node: Node) -> bool:
        """All containers run there."""
        return node.host.is_up() and runs_all(self.lab, node)

    def longest_overlap_s(self, since_s: float) -> float:
        """0 where nothing ran twice."""
        overlaps = self.lab.truth.overlaps(group=True, since_s=since_s)
        return max((overlap.seconds for overlap in overlaps), default=0.0)

    def excuse_overlaps(self) -> None:
        """What was measured until now is no failure of the test that runs (tests/lab/conftest.py).

        Guard and agent were away together, or the engine started containers by itself.
        """
        self.judged_from_s = now_s()

    # -- coming back --------------------------------------------------------------------------

    def come_back(self, node: Node) -> None:
        """Host, engine, etcd and agent of this node, whatever was done to them."""
        if not node.host.is_up():
            node.boot()
        elif node.has_engine:
            if node.engine.is_running():
                node.engine.thaw()
            else:
                node.engine.start()
        member = self.etcd.member_on(node.host) if self.etcd else None
        if member is not None:
            if member.is_running():
                member.thaw()
            else:
                member.start()
        self._revive_agent(node)

    def restore(self) -> None:
        """Every wire, host, engine, arbiter and agent comes back as it was started."""
        self.lab.network.heal()
        for node in (self.lab.c, *self.nodes):
            self.come_back(node)

    def settle(self, limit_s: float = LIMIT_S) -> Node:
        """`restore()`, and then the active one, when everything is as it should be."""
        self.restore()
        return until(self.find_well, limit_s, "one is active, with both others behind it")

    def _revive_agent(self, node: Node) -> None:
        if node is self.lab.c and self.etcd is not None:
            return
        if node.has_agent and node.agent.is_alive():
            node.agent.sigcont()
        elif node is self.lab.c:
            self.start_witness()
        else:
            self.start_agent(node)

    # -- judging ------------------------------------------------------------------------------

    def wait_back(
        self, since_s: float, what: str, node: Node | None = None, *, more_s: float = 0.0
    ) -> Node:
        """Until all containers run on one node (on `node`), within the bound from `since_s` on, and
        `more_s` for what the bound says nothing of.

        The bound ends with the first start call: how long the starts took is allowed besides.
        Prints how long the service was away, and asserts that nothing ever ran twice since.
        """

        def find() -> Node | None:
            found = [it for it in self.nodes if self.runs_on(it)]
            return found[0] if len(found) == 1 and node in (None, found[0]) else None

        found = until(find, LIMIT_S, f"{what}: the service is back")
        start_s = self._starting_s(found, since_s)
        absence_s = self.absence_s(since_s)
        limit_s = self.bound_s() + more_s + start_s + self.metronome.late_s(since_s)
        print(f"{what}: away for {absence_s:.2f} s of at most {limit_s:.2f} s, on {found.name}")
        assert_never_two(self.lab, since_s)
        assert absence_s <= limit_s
        return found

    def absence_s(self, since_s: float) -> float:
        """The longest time since then in which one of the containers ran nowhere."""
        return max(self.lab.truth.downtime(name, since_s) for name in names(self.lab))

    def watch_unmoved(self, node: Node, seconds: float, since_s: float) -> None:
        """For so long the service runs on `node` alone, and no container was touched since."""
        watch(self.lab, seconds, node)
        assert not self.lab.truth.starts(since_s), "nothing was started anew"
        assert_never_two(self.lab, since_s)

    def bound_s(self) -> float:
        """From a crash to the first start call, by the words of `failover-agent check`."""
        is_register = self.etcd is not None
        return bounds.takeover_s(self._policy(), bounds.Measured(), is_register=is_register)

    def start_bound_s(self, since_s: float, active: Node) -> float:
        """From the start of a majority to all containers running on `active`, as they do now."""
        bound_s = bounds.lone_start_s(self._policy(), bounds.Measured())
        return bound_s + self._starting_s(active, since_s) + self.metronome.late_s(since_s)

    def _starting_s(self, active: Node, since_s: float) -> float:
        """How long the containers of `active` took to start, by its journal, since that moment; at
        least what was measured on an idle engine.
        """

        def is_written() -> bool:
            return promotion_s(active, since_s) != math.inf

        until(is_written, LIMIT_S, f"the journal of {active.name} tells of all containers running")
        return max(self.start_s, promotion_s(active, since_s) or 0.0)

    def _policy(self) -> Policy:
        """What the bounds depend on."""
        timings = {**TIMINGS, **self.settings}
        return Policy(
            role=PolicyRole.PRIMARY,
            containers=tuple(names(self.lab)),
            arbiter=PolicyRole.WITNESS,
            heartbeat_interval_s=timings["heartbeat_interval"],
            heartbeat_timeout_s=timings["heartbeat_timeout"],
        )
