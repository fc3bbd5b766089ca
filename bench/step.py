"""How many steps the state machine makes in a second, and what a step costs with many containers.

    python bench/step.py [--containers 2,20,200,1000] [--runs 9] [--profile]

Two nodes (and the voter of an arbiter) are brought up by events, one active and one standby, and
then beat on in virtual time, all on one core and in one process: nothing is sent and nothing waits.
A step is what the agent does with one event before it can act: `step`, the check of the invariants,
`plan`, and `next_deadline`. What each side takes in is written down, in rounds of one heartbeat
interval (Tick, the beat of the other node, the answers to its own), and then taken again by that
side alone, from the same state: this is what is timed, in processor time, best of several runs.

As a machine that does other things besides makes everything slower, a fixed piece of plain Python
is timed in turn with it, and the last column is the ratio of the two bests: steps in the time of
1,000 such pieces. `--profile` prints where the time of each row goes.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.table import print_head, print_table
from failover_agent.core import ballot, invariants, machine, startup, voter
from failover_agent.core.effects import (
    ArmGuard,
    Effect,
    Reply,
    SendHeartbeat,
    SendRelease,
    SendVoteRequest,
    StartContainers,
)
from failover_agent.core.events import (
    ContainerObservation,
    ContainersObserved,
    ContainersStarted,
    Event,
    GuardArmed,
    HeartbeatAnswered,
    HeartbeatReceived,
    ReleaseAnswered,
    ReleaseReceived,
    Tick,
    VoteAnswered,
    VoteRequested,
)
from failover_agent.core.messages import (
    Answer,
    Beat,
    BeatAnswer,
    ReleaseAnswer,
    ReleaseRequest,
    Request,
    Sender,
    VoteAnswer,
    VoteRequest,
)
from failover_agent.core.plan import Save, plan
from failover_agent.core.policy import Policy, Role
from failover_agent.core.state import ContainerState, Durable, Phase, State

AIM = 20_000
"""Steps a second, for a pair with an arbiter."""
ROUNDS = 300
PIECES = 2000

WITNESS = Sender(Role.WITNESS, "node-w", "run-w", "rules")


@dataclass(slots=True)
class Node:
    """One side, and what it took in."""

    state: State
    policy: Policy
    taken: list[tuple[Event, float]] = field(default_factory=list)


@dataclass(slots=True)
class Exchange:
    """Two nodes, the voter of an arbiter or none, and what is under way between them."""

    nodes: dict[Role, Node]
    ballot: voter.Voter | None
    now: float = 1000.0
    mail: deque[tuple[Node, Event]] = field(default_factory=deque)

    @classmethod
    def of(cls, containers: int, *, arbiter: bool) -> Exchange:
        """The primary active, the backup standby, for longer than any grace."""
        names = tuple(f"shop-service-{number:03}-1" for number in range(containers))
        pair = cls({}, None)
        if arbiter:
            pair.ballot = voter.begin(Durable(), 0.0, timeout_s=10.0, forgot=False, is_own=False)
        for role in (Role.PRIMARY, Role.BACKUP):
            policy = Policy(
                role=role,
                containers=names,
                arbiter=Role.WITNESS if arbiter else None,
                fingerprint="rules",
                settings=(("containers", ", ".join(names)), ("heartbeat_timeout", "10")),
            )
            state = startup.begin(
                policy,
                node_id=f"node-{role}",
                run_id=f"run-{role}",
                durable=Durable(),
                record_lost=False,
                boot_is_new=True,
                now=pair.now,
            )
            node = pair.nodes[role] = Node(state, policy)
            pair.mail.append((node, _seen(policy, ContainerState.DOWN)))
        for _ in range(60):
            pair.beat()
        phases = [node.state.phase for node in pair.nodes.values()]
        assert phases == [Phase.ACTIVE, Phase.STANDBY], phases
        return pair

    def beat(self) -> None:
        """One heartbeat interval."""
        self.now += 1.0
        for node in self.nodes.values():
            self.mail.append((node, Tick()))
        while self.mail:
            node, event = self.mail.popleft()
            self._take(node, event)

    def _take(self, node: Node, event: Event) -> None:
        node.taken.append((event, self.now))
        node.state, orders = take(node.state, event, self.now, node.policy)
        for order in orders:
            match order:
                case SendHeartbeat():
                    self._ask(node, order.to, order.beat)
                case SendVoteRequest() | SendRelease():
                    self._ask(node, order.to, order.request)
                case ArmGuard():
                    self.mail.append((node, GuardArmed(order.term)))
                case StartContainers():
                    self.mail.append((node, _seen(node.policy, ContainerState.UP)))
                    self.mail.append((node, ContainersStarted(order.term)))
                case Reply():
                    other = next(one for one in self.nodes.values() if one is not node)
                    self.mail.append((other, self._answered(other, node.policy.role, order.answer)))
                case _:
                    pass

    def _ask(self, node: Node, to: Role, request: Request) -> None:
        if to is Role.WITNESS:
            assert self.ballot is not None
            self.ballot, answer = ballot.decide(self.ballot, request, self.now, WITNESS)
            self.mail.append((node, self._answered(node, to, answer)))
            return
        match request:
            case Beat():
                self.mail.append((self.nodes[to], HeartbeatReceived(1, request)))
            case VoteRequest():
                self.mail.append((self.nodes[to], VoteRequested(1, request)))
            case ReleaseRequest():
                self.mail.append((self.nodes[to], ReleaseReceived(1, request)))

    def _answered(self, node: Node, by: Role, answer: Answer) -> Event:
        held = node.state.held_term
        term = node.state.durable.term if held is None else held
        match answer:
            case BeatAnswer():
                return HeartbeatAnswered(by, self.now, term, answer)
            case VoteAnswer():
                return VoteAnswered(by, self.now, answer)
            case ReleaseAnswer():
                return ReleaseAnswered(by, answer)


def take(
    before: State, event: Event, now: float, policy: Policy
) -> tuple[State, tuple[Effect | Save, ...]]:
    """One step, with all that the agent asks of the core for it."""
    after = machine.step(before, event, now, policy)
    invariants.check(before, after, policy)
    orders = plan(before, after)
    machine.next_deadline(after.state, policy)
    return after.state, orders


def _seen(policy: Policy, state: ContainerState) -> ContainersObserved:
    is_up = state is ContainerState.UP
    return ContainersObserved(
        tuple(
            ContainerObservation(
                name=name,
                state=state,
                detail="running" if is_up else "created",
                exists=True,
                alive=is_up,
                incarnation=f"{number:012} {state}",
                image=f"sha256:{number:064}",
                settings=f"{number:016}",
                restart_policy="no",
            )
            for number, name in enumerate(policy.containers)
        )
    )


def piece() -> int:
    """Plain Python of a fixed size: what a thousand of them cost is what the machine gives."""
    found = {number: str(number) for number in range(20)}
    return sum(len(text) for text in found.values())


def _pieces_s() -> float:
    """What one piece costs now, in processor time."""
    begun_s = time.process_time()
    for _ in range(PIECES):
        piece()
    return (time.process_time() - begun_s) / PIECES


def _steps_s(state: State, policy: Policy, events: list[tuple[Event, float]]) -> float:
    """What one step costs now, in processor time."""
    begun_s = time.process_time()
    for event, now in events:
        state, _ = take(state, event, now, policy)
    return (time.process_time() - begun_s) / len(events)


def rows(counts: list[int], runs: int, *, profile: bool) -> Iterator[list[str]]:
    """One for each side, with and without an arbiter."""
    for count in counts:
        for arbiter in (False, True):
            for role, word in ((Role.PRIMARY, "active"), (Role.BACKUP, "standby")):
                pair = Exchange.of(count, arbiter=arbiter)
                node = pair.nodes[role]
                state, node.taken = node.state, []
                for _ in range(ROUNDS):
                    pair.beat()
                both = [
                    (_steps_s(state, node.policy, node.taken), _pieces_s()) for _ in range(runs)
                ]
                step_s, piece_s = map(min, zip(*both, strict=True))
                if profile:
                    profiler = cProfile.Profile()
                    profiler.runcall(_steps_s, state, node.policy, node.taken)
                    pstats.Stats(profiler).sort_stats("tottime").print_stats(40)
                yield [
                    f"{word}, {'with an arbiter' if arbiter else 'plain pair'}",
                    str(count),
                    f"{1 / step_s:,.0f}",
                    f"{1e6 * step_s:.1f}",
                    f"{1000 * piece_s / step_s:.0f}",
                ]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--containers", default="2,20,200,1000")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.containers.split(",")]
    print_head(f"aim: {AIM:,} steps a second for a pair with an arbiter")
    head = ["a beat, taken by", "containers", "steps a second", "us a step", "per 1,000 pieces"]
    print_table(head, rows(counts, arguments.runs, profile=arguments.profile))
    return 0


if __name__ == "__main__":
    sys.exit(main())
