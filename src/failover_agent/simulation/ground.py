"""The ground of a simulated world: hosts, wires, time, what happened, and what can be asked.

What befalls all this is told in `world`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from failover_agent.core.messages import Request
from failover_agent.core.state import Phase
from failover_agent.simulation.etcd import Store
from failover_agent.simulation.facts import Chronicle, Glanced
from failover_agent.simulation.network import Exchange, Network
from failover_agent.simulation.node import Agent, Host
from failover_agent.simulation.product import SHIPPED, Product
from failover_agent.simulation.scheduler import Scheduler
from failover_agent.simulation.weather import LONG_AGO_S, Weather
from failover_agent.simulation.witness import Witness

GLANCE_S = 0.25
"""The checkers look at the whole world this often."""

AT_ONCE_S = (0.0, 0.0)
"""From the word to start an agent, or to boot an engine, until it is there."""


class Ground:
    """What there is in one run of the simulation."""

    def __init__(self, seed: int | str, core: Product = SHIPPED) -> None:
        """Empty, at 0 seconds."""
        self.scheduler = Scheduler(seed)
        self.core = core
        self.network = Network(self.scheduler)
        self.weather = Weather(lambda: self.scheduler.now_s)
        self.hosts: dict[str, Host] = {}
        self.witness: Witness | None = None
        self.store: Store | None = None
        self.chronicle = Chronicle(lambda: self.scheduler.now_s)
        self._runs = 0
        self._nodes = 0
        self.commands = 0
        self.is_healed = False
        self.a_record_was_lost = False
        self.forgot_at_s = LONG_AGO_S
        self.agent_starts_s = self.engine_boots_s = AT_ONCE_S
        self.scheduler.after(GLANCE_S, self._glance)

    def next_run(self) -> int:
        """The number of a new run of an agent."""
        self._runs += 1
        return self._runs

    def next_node(self) -> int:
        """The number of a new record."""
        self._nodes += 1
        return self._nodes

    @property
    def arbiter(self) -> str:
        """The name of the third machine, empty in a plain pair."""
        third = self.witness or self.store
        return "" if third is None else third.name

    @property
    def places(self) -> tuple[str, ...]:
        """All that wires lead to."""
        return (*self.hosts, self.arbiter) if self.arbiter else tuple(self.hosts)

    # --- time -------------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """Seconds since the world began."""
        return self.scheduler.now_s

    def run_for(self, seconds: float) -> None:
        """Let time pass."""
        self.scheduler.run_until(self.now_s + seconds)

    def run_until(self, what: Callable[[], bool], within_s: float) -> float:
        """Let time pass until `what` is true; the answer is how long it took."""
        began_s = self.now_s
        while not what():
            assert self.now_s < began_s + within_s, f"not within {within_s:g} s\n{self.tale()}"
            self.run_for(0.05)
        return self.now_s - began_s

    def _glance(self) -> None:
        self.chronicle.happened(Glanced())
        self.scheduler.after(GLANCE_S, self._glance)

    # --- the story --------------------------------------------------------------------------------

    def tell(self, who: str, what: str) -> None:
        """Add a line to the story."""
        self.chronicle.tell(who, what)

    def tale(self, last: int = 80) -> str:
        """The last lines of the story, for people."""
        return self.chronicle.tale(last)

    def last_words(self) -> Iterator[tuple[str, str]]:
        """What each agent would say of itself, for people; no checker may ask."""
        for name, host in self.hosts.items():
            if host.agent is None:
                yield name, "no agent"
                continue
            state = host.agent.state
            durable = state.durable
            holder = "nobody" if durable.holder is None else durable.holder.node_id
            yield (
                name,
                f"{state.phase} ({state.reason}), holds {state.held_term}; on disk term"
                f" {durable.term} of {holder}{', released' if durable.released else ''}"
                f"{', on hold' if durable.hold else ''}; alarms: "
                + (", ".join(alarm.sentence for alarm in state.alarms.values()) or "none"),
            )

    # --- wires ------------------------------------------------------------------------------------

    def arrive(self, target: str, request: Request, exchange: Exchange[Any]) -> None:
        """A request has come to the network card of `target`."""
        if self.witness is not None and target == self.witness.name:
            self.witness.receive(request, exchange)
            return
        host = self.hosts[target]
        if not host.is_on:
            return
        agent = host.agent
        if agent is None or agent.started_at_s > exchange.sent_at_s:
            error = "connection refused" if agent is None else "409: another run answers here"
            back = exchange.sent_from
            self.network.carry(target, back, lambda: exchange.refuse(error))
            return
        agent.mail.receive(request, exchange)

    # --- what can be asked ------------------------------------------------------------------------

    def runs(self, host: str) -> tuple[str, ...]:
        """The containers with a living process on `host`."""
        containers = self.hosts[host].engine.containers.values()
        return tuple(container.name for container in containers if container.is_alive)

    def runs_by_us(self, host: str) -> tuple[str, ...]:
        """Those of them that an agent started."""
        containers = self.hosts[host].engine.containers.values()
        return tuple(c.name for c in containers if c.is_alive and c.by_us)

    def serves(self, host: str) -> bool:
        """Are all containers up on `host`?"""
        return all(container.is_up for container in self.hosts[host].engine.containers.values())

    def longest_timeout_s(self) -> float:
        """T, or the longer one where they differ."""
        return max(host.policy.heartbeat_timeout_s for host in self.hosts.values())

    def agent(self, host: str) -> Agent:
        """The running agent of `host`."""
        agent = self.hosts[host].agent
        assert agent is not None, f"no agent runs on {host}\n{self.tale()}"
        return agent

    def phase(self, host: str) -> Phase | None:
        """What the agent of `host` says of itself, None without an agent."""
        agent = self.hosts[host].agent
        return None if agent is None else agent.state.phase
