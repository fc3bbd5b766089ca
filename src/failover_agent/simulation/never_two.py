"""S1 with an arbiter: at no moment does a container that we started run on two hosts.

There are four excuses, all of them said plainly in the documents: guard and agent of the one that
runs were both absent when its lease ended; an engine came to a start later than the rest of the
lease; an operator ended a hold by his word; the voter that held alone lost its record, before it
told the other node that it holds, or to an agent that was restarted since. Each of them ends soon
after what excuses it.
"""

from __future__ import annotations

from failover_agent.core.events import (
    CommandKind,
    CommandReceived,
    HeartbeatAnswered,
    HeartbeatReceived,
    ReleaseReceived,
    VoteAnswered,
)
from failover_agent.core.messages import Beat, BeatAnswer, Vote, VoteAnswer, VoteKind
from failover_agent.core.policy import Role
from failover_agent.core.state import FOREVER, NEVER
from failover_agent.simulation.checkers import Broken
from failover_agent.simulation.engine import Container
from failover_agent.simulation.facts import (
    AgentBegan,
    Booted,
    Ended,
    Fact,
    Glanced,
    Said,
    Saw,
    Started,
)
from failover_agent.simulation.weather import LONG_AGO_S, Kind
from failover_agent.simulation.world import World

KILL_WITHIN_S = 1.0
"""From the return of a guard, or of an agent without one, until everything is killed."""

BY_WORD = "the operator ended a hold by his word"
FORGOTTEN = "a voter that held lost its record, and nobody else had been told"
OF_A_HOLD = (BY_WORD, FORGOTTEN)
"""Nothing runs there that could stop the containers, until somebody starts the agent again."""

GUARD, AGENT = frozenset({Kind.GUARD}), frozenset({Kind.AGENT})


class LeaseBook:
    """Until when the lease of each host runs, from what it was answered; nobody is asked."""

    def __init__(self, world: World) -> None:
        """No leases."""
        self._world = world
        self._sent_at_s: dict[tuple[str, Role], float] = {}
        self._on_hold: set[tuple[str, Role]] = set()
        self._won: dict[str, int] = {}
        world.chronicle.watchers.append(self)

    def see(self, fact: Fact) -> None:
        """Only what was granted counts, from when the question left (H1)."""
        match fact:
            case Saw(host, HeartbeatAnswered(answer=answer) as event) if answer.vote is not None:
                # What is about to be killed is renewed no more (H6).
                if self._world.hosts[host].clock() < self._kill_at_s(host):
                    self._note(host, event.to, event.sent_at_s, answer.vote)
            case Saw(host, VoteAnswered(answer=answer) as event):
                # One yes wins a term, and what comes after it is no renewal.
                if answer.kind is VoteKind.CANDIDACY and self._is_first(host, answer):
                    self._note(host, event.voter, event.sent_at_s, answer.vote)
            case AgentBegan(host):  # It holds what it is told itself, and nothing older.
                self._on_hold = {key for key in self._on_hold if key[0] != host}
            case Booted(host):
                self._forget(host)
            case _:
                pass

    def _note(self, host: str, voter: Role, sent_at_s: float, vote: Vote) -> None:
        if not vote.granted:
            return
        key = (host, voter)
        self._sent_at_s[key] = max(sent_at_s, self._sent_at_s.get(key, NEVER))
        self._on_hold.discard(key)
        if vote.remaining_s == FOREVER:
            self._on_hold.add(key)

    def _is_first(self, host: str, answer: VoteAnswer) -> bool:
        is_first = self._won.get(host, 0) < answer.asked_term
        if answer.vote.granted and is_first:
            self._won[host] = answer.asked_term
        return is_first

    def until_s(self, host: str) -> float:
        """By the clock of `host`."""
        if any(name == host for name, _ in self._on_hold):
            return FOREVER
        policy = self._world.hosts[host].policy
        newest_s = max((at for (name, _), at in self._sent_at_s.items() if name == host), default=0)
        return newest_s + policy.heartbeat_timeout_s * (1 - policy.clock_drift)

    def _kill_at_s(self, host: str) -> float:
        return self.until_s(host) - self._world.hosts[host].policy.kill_budget_s

    def ends(self, host: str) -> bool:
        """Has the time to stop come, or gone?"""
        machine = self._world.hosts[host]
        early_s = machine.policy.stop_budget_s + 0.001
        return machine.clock() >= self.until_s(host) - early_s

    def _forget(self, host: str) -> None:
        """Its clock begins anew."""
        self._sent_at_s = {key: at for key, at in self._sent_at_s.items() if key[0] != host}
        self._on_hold = {key for key in self._on_hold if key[0] != host}


class NeverTwoAtAll:
    """Two at once is a broken promise, but for the excuses above, and then only for so long."""

    def __init__(self, world: World) -> None:
        """Nothing runs."""
        self._world = world
        self._since_s: float | None = None
        self._excuse = ""
        self._asked_to_hold: dict[str, float] = {}
        self._told_of_hold: set[str] = set()
        self._word_at_s = LONG_AGO_S
        self.longest_s = 0.0
        world.chronicle.watchers.append(self)

    def see(self, fact: Fact) -> None:
        """Two at once, and for how long?"""
        match fact:
            case Started(host, container) if container.by_us:
                self._judge_start(host, container)
            case Ended():
                if len(self._who_runs()) < 2:
                    self._since_s = None
            case Said(host, Beat(renews=True, hold=hold)):
                self._note_hold(host, hold=hold)
            case Saw(_, CommandReceived(command=CommandKind.TAKEOVER)) if self._asked_to_hold:
                self._word_at_s = self._world.now_s
            case Saw(host, HeartbeatAnswered(to=Role.WITNESS, answer=answer)) if answer.vote:
                self._note_told(host, answer.vote)
            case Saw(host, HeartbeatReceived(beat=Beat(renews=True, hold=False))) | Saw(
                host, HeartbeatAnswered(answer=BeatAnswer(beat=Beat(renews=True, hold=False)))
            ):
                self._told_of_hold.discard(host)
            case AgentBegan(host) | Saw(host, ReleaseReceived()):
                self._told_of_hold.discard(host)
            case Glanced() if self._since_s is not None:
                self._judge_length(self._since_s)
            case _:
                pass

    def _note_hold(self, host: str, *, hold: bool) -> None:
        if hold:
            self._asked_to_hold.setdefault(host, self._world.now_s)
        else:
            self._asked_to_hold.pop(host, None)

    def _note_told(self, host: str, vote: Vote) -> None:
        """Was it told by the arbiter that it holds for another? One that forgot unsays nothing."""
        role = self._world.hosts[host].policy.role
        if vote.holder is not None and vote.holder.role is not role:
            if vote.remaining_s == FOREVER:
                self._told_of_hold.add(host)
            else:
                self._told_of_hold.discard(host)

    def _was_forgotten(self, host: str) -> bool:
        """Did a voter lose its record, and with it perhaps the only word of a hold?

        Not where the agent of `host` had been told of it: whoever knows waits (V8).
        """
        lost = any(self._world.forgot_at_s > at_s for at_s in self._asked_to_hold.values())
        return lost and host not in self._told_of_hold

    def _who_runs(self) -> list[str]:
        return [name for name in self._world.hosts if self._world.runs_by_us(name)]

    def _judge_start(self, host: str, container: Container) -> None:
        others = [name for name in self._who_runs() if name != host]
        if not others or self._since_s is not None:
            return
        self._since_s = self._world.now_s
        self._excuse = self._find_excuse(host, others[0])
        self._world.tell("world", f"OVERLAP: {self._excuse or 'no excuse'}")
        if not self._excuse:
            raise Broken("S1", f"{container.name} was started on {host} while {others[0]} runs it")

    def _find_excuse(self, host: str, other: str) -> str:
        if self._word_at_s > LONG_AGO_S:
            return BY_WORD
        if self._was_forgotten(host):
            return FORGOTTEN
        if self._is_unwatched(other):
            return f"neither guard nor agent of {other} were there"
        for name in (host, other):
            if self._was_late(name):
                return f"the engine of {name} was slower at a start than the rest of the lease"
        return ""

    def _is_unwatched(self, host: str) -> bool:
        weather = self._world.weather
        return max(weather.calm_for_s(GUARD, host), weather.calm_for_s(AGENT, host)) < KILL_WITHIN_S

    def _was_late(self, host: str) -> bool:
        machine = self._world.hosts[host]
        return any(
            container.is_alive
            and container.by_us
            and container.start_took_s > machine.policy.stop_budget_s
            and self._world.now_s - container.launched_at_s < KILL_WITHIN_S
            for container in machine.engine.containers.values()
        )

    def _judge_length(self, since_s: float) -> None:
        lasts_s = self._world.now_s - since_s
        self.longest_s = max(self.longest_s, lasts_s)
        unwatched = any(self._is_unwatched(name) for name in self._who_runs())
        if self._excuse in OF_A_HOLD:
            lasts_s = min(
                lasts_s, self._world.weather.calm_for_s() - self._world.longest_timeout_s()
            )
        if lasts_s > KILL_WITHIN_S and not unwatched:
            raise Broken("S1", f"an overlap goes on for {lasts_s:.2f} s: {self._excuse}")
