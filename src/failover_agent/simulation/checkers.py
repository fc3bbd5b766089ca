"""The judges: they know what ran where, what was said on the wire, and what befell the world.

None of them looks into the core or asks an agent what it thinks. Each names the rule it stands for
(design, section 4), so that a story says what was broken. Why services are stopped is judged in
`reasons`.
"""

from __future__ import annotations

from failover_agent.core.effects import StartContainers
from failover_agent.core.events import (
    CommandKind,
    CommandReceived,
    HeartbeatAnswered,
    HeartbeatReceived,
    ReleaseAnswered,
    ReleaseReceived,
    VoteAnswered,
    VoteRequested,
)
from failover_agent.core.messages import Beat, VoteAnswer, VoteKind
from failover_agent.core.policy import PartitionPolicy
from failover_agent.core.state import Holder
from failover_agent.simulation.engine import Container
from failover_agent.simulation.facts import (
    AgentBegan,
    AgentEnded,
    Ended,
    Fact,
    Glanced,
    Ordered,
    Said,
    Saw,
    Started,
)
from failover_agent.simulation.lane import STOPPED_WITHIN_S
from failover_agent.simulation.weather import LONG_AGO_S, PATH, Kind
from failover_agent.simulation.world import World

MARGIN_S = 2.0
"""For timers, round trips, saves and engine calls that take a moment each."""


KEEP_MUTE = frozenset({Kind.AGENT, Kind.DISK})
"""What keeps an agent from speaking: an agent that saves does nothing else."""


class Broken(AssertionError):  # noqa: N818 - it reads as a sentence in a story
    """A rule was broken."""

    def __init__(self, rule: str, sentence: str) -> None:
        """`rule` as in the design."""
        super().__init__(f"{rule}: {sentence}")
        self.rule = rule


class Hearing:
    """Since when each agent has heard nothing from the other: the excuse of `availability`."""

    def __init__(self, world: World) -> None:
        """Everybody is deaf at first."""
        self._world = world
        self._heard_at_s: dict[str, float] = {}
        self._silence_ended_at_s: dict[str, float] = {}
        world.chronicle.watchers.append(self)

    def see(self, fact: Fact) -> None:
        """Any message counts; silence counts from the start of a run, and ends with it."""
        match fact:
            case AgentBegan(host):
                self._heard_at_s[host] = self._world.now_s
            case AgentEnded(host):
                self._note_silence(host)
                self._heard_at_s.pop(host, None)
            case Saw(host, event) if is_message(event):
                self._note_silence(host)
                self._heard_at_s[host] = self._world.now_s
            case _:
                pass

    def _note_silence(self, host: str) -> None:
        if self._is_silence(host):
            self._silence_ended_at_s[host] = self._world.now_s

    def was_silent_lately(self, host: str, within_s: float) -> bool:
        """Had `host` heard nothing for T at some moment of the last `within_s`?"""
        ended_at_s = self._silence_ended_at_s.get(host, LONG_AGO_S)
        return self._is_silence(host) or self._world.now_s - ended_at_s <= within_s

    def _is_silence(self, host: str) -> bool:
        heard_at_s = self._heard_at_s.get(host)
        timeout_s = self._world.hosts[host].policy.heartbeat_timeout_s
        return heard_at_s is not None and self._world.now_s - heard_at_s >= timeout_s * 0.99


def is_message(event: object) -> bool:
    """Does this event show that another node lives?"""
    return isinstance(
        event,
        HeartbeatReceived
        | HeartbeatAnswered
        | VoteRequested
        | VoteAnswered
        | ReleaseReceived
        | ReleaseAnswered,
    )


class OperatorsWord:
    """An operator said "takeover": his word that the other one is off, whether it is or not."""

    def __init__(self, world: World, longest_start_s: float) -> None:
        """Nobody said anything."""
        self._world = world
        self._within_s = longest_start_s + world.longest_timeout_s()
        self._said_at_s = LONG_AGO_S
        self._heard_since: set[str] = set()
        world.chronicle.watchers.append(self)

    def see(self, fact: Fact) -> None:
        """The word, and who heard of the other since."""
        match fact:
            case Saw(_, CommandReceived(command=CommandKind.TAKEOVER)):
                self._said_at_s = self._world.now_s
                self._heard_since = set()
            case Saw(host, event) if is_message(event):
                self._heard_since.add(host)
            case _:
                pass

    @property
    def stands(self) -> bool:
        """Is it fresh, or have the two not talked since?"""
        if self._said_at_s == LONG_AGO_S:
            return False
        is_fresh = self._world.now_s - self._said_at_s <= self._within_s
        return is_fresh or len(self._heard_since) < len(self._world.hosts)


class NeverTwo:
    """S1 as far as a plain pair can promise it: nothing, started by us, on two hosts at once."""

    def __init__(
        self, world: World, hearing: Hearing, word: OperatorsWord, longest_start_s: float
    ) -> None:
        """`longest_start_s`: from a decision to the last start call of its promotion."""
        self._world = world
        self._hearing = hearing
        self._word = word
        self._longest_start_s = longest_start_s
        self._overlap_since_s: float | None = None
        world.chronicle.watchers.append(self)

    def see(self, fact: Fact) -> None:
        """Two at once, and for how long?"""
        match fact:
            case Started(host, container) if container.by_us:
                self._judge_start(host, container)
            case Ended():
                if len([name for name in self._world.hosts if self._world.runs_by_us(name)]) < 2:
                    self._overlap_since_s = None
            case Glanced() if self._overlap_since_s is not None:
                self._judge_length(self._overlap_since_s)
            case _:
                pass

    def _judge_start(self, host: str, container: Container) -> None:
        world = self._world
        others = [name for name in world.hosts if name != host and world.runs_by_us(name)]
        if not others or self._overlap_since_s is not None:
            return
        self._overlap_since_s = world.now_s
        excuse = self._excuse()
        world.tell("world", f"OVERLAP: {excuse or 'no excuse'}")
        if not excuse:
            raise Broken("S1", f"{container.name} was started on {host} while {others[0]} runs it")

    def _excuse(self) -> str:
        world = self._world
        policy = next(iter(world.hosts.values())).policy
        if self._word.stands:
            return "the operator gave his word"
        if policy.partition_policy is PartitionPolicy.CONSISTENCY or policy.has_fence:
            return ""
        if world.weather.calm_for_s(PATH) > policy.heartbeat_timeout_s + self._longest_start_s:
            return ""
        for host in world.hosts:
            if self._hearing.was_silent_lately(host, self._longest_start_s):
                return f"{host} had heard nothing for T"
        return ""

    def _judge_length(self, since_s: float) -> None:
        lasts_s = min(self._world.now_s - since_s, self._world.weather.calm_for_s())
        if lasts_s > self.longest_overlap_s():
            raise Broken("S1", f"an overlap goes on {lasts_s:.2f} s after the last fault")

    def longest_overlap_s(self) -> float:
        """How long two may run on once wires, agents and engines are well again."""
        hosts = self._world.hosts.values()
        interval_s = max(host.policy.heartbeat_interval_s for host in hosts)
        stop_s = max(sum(c.stop_takes_s for c in h.engine.containers.values()) for h in hosts)
        # A start call that was under way must end first; a stop that failed is tried again.
        start_s = max(c.start_takes_s for h in hosts for c in h.engine.containers.values())
        return 2 * interval_s + start_s + stop_s + STOPPED_WITHIN_S + MARGIN_S


class TermsGrow:
    """S3: terms only grow, and no voter grants one term to two."""

    def __init__(self, world: World, word: OperatorsWord) -> None:
        """Nothing granted yet."""
        self._world = world
        self._word = word
        self._said: dict[str, int] = {}
        self._started: dict[str, int] = {}
        self._granted: dict[tuple[str, int], Holder] = {}
        self._starters: dict[int, str] = {}
        world.chronicle.watchers.append(self)

    def see(self, fact: Fact) -> None:
        """What goes on the wire binds, whatever becomes of it; whoever starts granted itself."""
        match fact:
            case Said(_, VoteAnswer() as answer) if answer.kind is VoteKind.CANDIDACY:
                if answer.vote.granted and answer.vote.holder is not None:
                    self._grant(answer.sender.node_id, answer.asked_term, answer.vote.holder)
            case Said(_, Beat() as beat):
                self._said[beat.sender.node_id] = self._grows(self._said, beat)
            case Ordered(host, StartContainers(term=term)):
                self._judge_start(host, term)
            case _:
                pass

    def _grows(self, said: dict[str, int], beat: Beat) -> int:
        node, before = beat.sender.node_id, said.get(beat.sender.node_id, 0)
        if beat.term < before:
            raise Broken("S3", f"{node} said term {beat.term} after {before}")
        return beat.term

    def _judge_start(self, host: str, term: int) -> None:
        policy, record = self._world.hosts[host].policy, self._world.hosts[host].record
        assert record is not None, "an agent runs without a record"
        node = record.node_id
        if term < self._started.get(node, 0):
            raise Broken("S3", f"{node} starts in term {term} after {self._started[node]}")
        self._started[node] = term
        self._grant(node, term, Holder(policy.role, node))
        first = self._starters.setdefault(term, node)
        # One that fenced its peer asked it for nothing, and may not know its term.
        waits = policy.partition_policy is PartitionPolicy.CONSISTENCY and not policy.has_fence
        strict = policy.requires_lease or waits
        rivals = first != node and strict
        if rivals and not self._world.a_record_was_lost and not self._word.stands:
            raise Broken("S3", f"{first} and {node} both start in term {term}")

    def _grant(self, voter: str, term: int, holder: Holder) -> None:
        before = self._granted.setdefault((voter, term), holder)
        if before != holder:
            raise Broken("S3", f"{voter} granted term {term} to {before} and to {holder}")


class KeepsTalking:
    """H2: an agent that runs is heard; silence is the world's doing, never the agent's."""

    def __init__(self, world: World) -> None:
        """Nobody has said anything."""
        self._world = world
        self._beat_at_s: dict[str, float] = {}
        world.chronicle.watchers.append(self)

    def see(self, fact: Fact) -> None:
        """Is somebody mute who is well?"""
        match fact:
            case AgentBegan(host) | Said(host, Beat()):
                self._beat_at_s[host] = self._world.now_s
            case AgentEnded(host):
                self._beat_at_s.pop(host, None)
            case Glanced():
                for host, at_s in self._beat_at_s.items():
                    self._judge(host, at_s)
            case _:
                pass

    def _judge(self, host: str, at_s: float) -> None:
        interval_s = self._world.hosts[host].policy.heartbeat_interval_s
        well_for_s = self._world.weather.calm_for_s(KEEP_MUTE, host)
        if min(self._world.now_s - at_s, well_for_s) > interval_s * 2.05 + 0.5:
            raise Broken("H2", f"{host} has said nothing for {self._world.now_s - at_s:.2f} s")
