"""S2, S4, S5: nobody stops a service before somebody else is able and willing, or runs it."""

from __future__ import annotations

from failover_agent.core.effects import StopContainers
from failover_agent.core.events import (
    Event,
    HeartbeatAnswered,
    HeartbeatReceived,
    StopFailed,
    StopRequested,
    VoteAnswered,
)
from failover_agent.core.messages import Beat, VoteKind
from failover_agent.core.policy import Policy
from failover_agent.core.state import Phase, Readiness
from failover_agent.simulation.checkers import (
    MARGIN_S,
    Broken,
    Hearing,
    KeepsTalking,
    NeverTwo,
    OperatorsWord,
    TermsGrow,
)
from failover_agent.simulation.facts import (
    AgentEnded,
    Altered,
    Ended,
    Fact,
    Glanced,
    Ordered,
    Said,
    Saw,
)
from failover_agent.simulation.lane import LIST_EVERY_S, LOST_AFTER_S
from failover_agent.simulation.never_two import LeaseBook, NeverTwoAtAll
from failover_agent.simulation.weather import LONG_AGO_S, Kind
from failover_agent.simulation.world import World

SERVING = frozenset({Phase.PROMOTING, Phase.ACTIVE, Phase.FAILED})
FOLLOWING = frozenset({Phase.STARTING, Phase.STANDBY, Phase.ACQUIRING})

DISK = frozenset({Kind.DISK})

BLIND = frozenset({Kind.ENGINE, Kind.AGENT})
"""What keeps an agent from seeing its containers."""


class StopsForAReason:
    """Judges each order to stop something that an agent had started."""

    def __init__(self, world: World, book: LeaseBook) -> None:
        """Nobody is able yet."""
        self._world = world
        self._book = book
        self._prepared_at_s: dict[str, float] = {}
        self._outdone_at_s: dict[str, float] = {}
        self._able_at_s: dict[str, float] = {}
        self._unwell_at_s: dict[str, float] = {}
        self._told_to_stop: set[str] = set()
        self._shuts_down: set[str] = set()
        self._stop_failed: set[str] = set()
        self._last_beat: dict[str, Beat] = {}
        world.chronicle.watchers.append(self)

    def see(self, fact: Fact) -> None:
        """Note what each agent may rely on, and judge."""
        match fact:
            case Said(host, Beat() as beat):
                self._last_beat[host] = beat
            case Saw(host, event):
                self._note(host, event)
            case AgentEnded(host):
                self._forget(host)
            case Glanced():
                for host in self._world.hosts:
                    self._note_health(host)
            case Altered(host):
                self._note_health(host)
            case Ended(host):
                self._unwell_at_s[host] = self._world.now_s
            case Ordered(host, StopContainers()) if self._world.runs_by_us(host):
                self._judge(host)
            case _:
                pass

    def _note(self, host: str, event: Event) -> None:
        match event:
            case HeartbeatReceived(beat=beat):
                self._hear(host, beat)
            case HeartbeatAnswered(answer=answer) if answer.beat is not None:
                self._hear(host, answer.beat)
            case VoteAnswered(answer=answer) if answer.kind is VoteKind.PREPARE:
                if answer.vote.granted:
                    self._prepared_at_s[host] = self._world.now_s
            case StopFailed():
                self._stop_failed.add(host)
            case StopRequested():
                self._told_to_stop.add(host)
                if event.host_is_shutting_down:
                    self._shuts_down.add(host)
            case _:
                pass

    def _hear(self, host: str, beat: Beat) -> None:
        ours = self._last_beat.get(host)
        if beat.phase in SERVING and (ours is None or beat.term >= ours.term):
            self._outdone_at_s[host] = self._world.now_s
        if beat.phase in SERVING or beat.readiness is not Readiness.CANNOT:
            self._able_at_s[host] = self._world.now_s

    def _forget(self, host: str) -> None:
        """What the process knew is gone with it."""
        for moments in (self._prepared_at_s, self._outdone_at_s, self._able_at_s):
            moments.pop(host, None)
        for hosts in (self._told_to_stop, self._shuts_down, self._stop_failed):
            hosts.discard(host)

    def _note_health(self, host: str) -> None:
        if not self._world.serves(host):
            self._unwell_at_s[host] = self._world.now_s

    def _judge(self, host: str) -> None:
        policy = self._world.hosts[host].policy
        if host in self._shuts_down or self._is_recent(self._outdone_at_s, host, policy):
            return
        if policy.requires_lease and self._may_stop_for_its_lease(host):
            return
        if host in self._stop_failed:
            # Half stopped already, for all anybody knows: trying again needs no other reason.
            self._stop_failed.remove(host)
            return
        beat = self._last_beat.get(host)
        if beat is None or beat.phase in FOLLOWING:
            if not self._is_recent(self._able_at_s, host, policy):
                raise Broken("S5", f"{host} stops strays, and knows nobody who could serve")
            return
        if not self._is_recent(self._prepared_at_s, host, policy):
            raise Broken("S5", f"{host} stops its service before anybody was ready to take it")
        self._judge_health(host, policy)

    def _may_stop_for_its_lease(self, host: str) -> bool:
        """Its lease ends, or it was told to leave and nobody would hold, or it cannot know."""
        told = host in self._told_to_stop
        # A save that is said to have failed may be on the disk, for the next agent to read.
        doubtful = self._world.weather.calm_for_s(DISK, host) < self._world.longest_timeout_s()
        return self._book.ends(host) or told or doubtful or self._world.a_record_was_lost

    def _judge_health(self, host: str, policy: Policy) -> None:
        """S2, S4: a service that is well, and has been, is not moved unless people say so."""
        lag_s = MARGIN_S + 2 * policy.heartbeat_interval_s
        blind_s = LIST_EVERY_S + LOST_AFTER_S
        if self._world.weather.calm_for_s(BLIND, host) < blind_s:
            lag_s += blind_s
        well_for_s = self._world.now_s - self._unwell_at_s.get(host, LONG_AGO_S)
        if host not in self._told_to_stop and well_for_s > lag_s:
            raise Broken("S2", f"{host} stops a service that has been well for {well_for_s:.1f} s")

    def _is_recent(self, moments: dict[str, float], host: str, policy: Policy) -> bool:
        ago_s = self._world.now_s - moments.get(host, LONG_AGO_S)
        return ago_s <= policy.heartbeat_timeout_s + MARGIN_S


def watch(world: World, longest_start_s: float) -> None:
    """Set all judges on `world`."""
    hearing, word = Hearing(world), OperatorsWord(world, longest_start_s)
    if world.arbiter:
        NeverTwoAtAll(world)
    else:
        NeverTwo(world, hearing, word, longest_start_s)
    TermsGrow(world, word)
    KeepsTalking(world)
    StopsForAReason(world, LeaseBook(world))
