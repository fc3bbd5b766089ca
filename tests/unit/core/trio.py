"""Nodes of a pair with an arbiter, brought into a phase by events, and what the witness says.

The settings are the defaults: T = 10, so a lease of 9.9 s from when a question left, a stop 2.5 s
and a kill 1 s before its end, and a promise of 10.1 s from its receipt.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from failover_agent.core import machine, startup
from failover_agent.core.effects import Exit, SendHeartbeat
from failover_agent.core.events import (
    ContainersStarted,
    Event,
    FenceFinished,
    GuardArmed,
    HeartbeatAnswered,
    ReleaseAnswered,
    Tick,
    VoteAnswered,
)
from failover_agent.core.messages import (
    BeatAnswer,
    Refusal,
    ReleaseAnswer,
    Sender,
    Vote,
    VoteAnswer,
    VoteKind,
)
from failover_agent.core.plan import Step
from failover_agent.core.policy import Policy, Role
from failover_agent.core.state import FOREVER, NEVER, Durable, Holder, Phase
from tests.unit.core.builders import (
    BACKUP,
    NODE,
    PRIMARY,
    START_S,
    Node,
    all_down,
    all_up,
    held_by,
    held_term,
    joined,
    of_kind,
    peer_beat,
    peer_sender,
    policy,
)

WITNESS = Role.WITNESS
LEASE_S = 9.9
STOP_S, KILL_S = 2.5, 1.0
"""So long before the end of a lease the containers are stopped, and killed."""

Voice = Callable[[Node], Event]
"""What another voter says, made anew each time: its numbers grow, and it counts from now."""


def trio(role: Role = PRIMARY, **changes: Any) -> Policy:
    """The defaults, with a witness."""
    return policy(role, arbiter=WITNESS, **changes)


# --- what the witness says ------------------------------------------------------------------------


def witness_sender() -> Sender:
    """The witness, as its messages name it."""
    return Sender(WITNESS, "node-w", "run-w", "a pair")


def word(
    node: Node,
    *,
    granted: bool = False,
    term: int | None = None,
    holder: Holder | None = None,
    remaining_s: float | None = None,
    refusal: Refusal | None = None,
    sent_at_s: float | None = None,
) -> HeartbeatAnswered:
    """The witness answers a beat; one that we sent just now, unless `sent_at_s` says when."""
    durable = node.state.durable
    vote = Vote(granted, durable.term if term is None else term, holder, remaining_s, refusal)
    said = durable.term if node.state.held_term is None else node.state.held_term
    sent = node.now if sent_at_s is None else sent_at_s
    return HeartbeatAnswered(WITNESS, sent, said, BeatAnswer(witness_sender(), None, vote))


def witness_renews(node: Node, sent_at_s: float | None = None) -> HeartbeatAnswered:
    """The witness renews its promise to us."""
    return word(node, granted=True, holder=node.state.me, remaining_s=10.1, sent_at_s=sent_at_s)


def witness_holds(node: Node) -> HeartbeatAnswered:
    """The witness makes its promise to us endless."""
    return word(node, granted=True, holder=node.state.me, remaining_s=FOREVER)


def witness_is_free(node: Node) -> HeartbeatAnswered:
    """The witness has promised nobody anything."""
    return word(node)


def witness_is_promised(node: Node) -> HeartbeatAnswered:
    """The witness has promised our peer, for 5 s more."""
    return word(node, holder=node.peer, remaining_s=5.0)


def witness_votes(
    node: Node,
    kind: VoteKind,
    refusal: Refusal | None = None,
    *,
    sent_at_s: float | None = None,
    **changes: Any,
) -> VoteAnswered:
    """The witness answers the question of our candidacy."""
    candidacy = node.state.candidacy
    asked = candidacy.term if candidacy is not None and kind is VoteKind.CANDIDACY else 0
    said = {"term": node.state.durable.term, "holder": None, "remaining_s": None, **changes}
    vote = Vote(granted=refusal is None, refusal=refusal, **said)
    answer = VoteAnswer(witness_sender(), kind, asked, vote, None)
    return VoteAnswered(WITNESS, node.now if sent_at_s is None else sent_at_s, answer)


def witness_knows(term: int) -> ReleaseAnswered:
    """The witness has our release of `term` on disk."""
    return ReleaseAnswered(WITNESS, ReleaseAnswer(witness_sender(), term, term))


# --- what the peer says ---------------------------------------------------------------------------


def peer_stands_by(node: Node) -> Event:
    """A beat of a ready standby."""
    return node.beat()


def peer_leads(node: Node) -> Event:
    """A beat of a peer that is active in the term we know."""
    return node.leading_beat()


def peer_renews(node: Node, sent_at_s: float | None = None) -> HeartbeatAnswered:
    """The peer, a standby, renews its promise to us."""
    vote = Vote(True, held_term(node), node.state.me, 10.1)
    answer = BeatAnswer(peer_sender(node), peer_beat(node), vote)
    sent = node.now if sent_at_s is None else sent_at_s
    return HeartbeatAnswered(node.peer.role, sent, held_term(node), answer)


# --- time -----------------------------------------------------------------------------------------


def goes_on(node: Node, seconds: float, *voices: Voice) -> Step:
    """Live so long, waking at each deadline; every heartbeat interval each of `voices` is heard."""
    end = node.now + seconds
    next_at_s = node.now + node.policy.heartbeat_interval_s
    steps: list[Step] = []
    while node.now < end and not any(of_kind(step, Exit) for step in steps[-len(voices) - 1 :]):
        deadline_s = machine.next_deadline(node.state, node.policy)
        node.now = min(deadline_s, next_at_s, end)
        steps.append(node.takes(Tick()))
        if node.now >= next_at_s:
            next_at_s += node.policy.heartbeat_interval_s
            steps += [node.takes(voice(node)) for voice in voices]
    return joined(node.state, steps)


# --- nodes in a phase -----------------------------------------------------------------------------


def begun(
    policy_: Policy | None = None,
    durable: Durable | None = None,
    *,
    lease_until_s: float = NEVER,
    was_enforced: bool = False,
    boot_is_new: bool = False,
    record_lost: bool = False,
) -> Node:
    """A process that has just begun; `lease_until_s`, `was_enforced` are what the guard says."""
    policy_ = trio() if policy_ is None else policy_
    me = NODE[policy_.role]
    record = held_by(me, released=True) if durable is None else durable
    state = startup.begin(
        policy_,
        node_id=me.node_id,
        run_id="run-me",
        durable=Durable() if record_lost else record,
        record_lost=record_lost,
        boot_is_new=boot_is_new,
        now=START_S,
        before=startup.Predecessor(lease_until_s, was_enforced),
    )
    return Node(state, policy_, START_S)


def restarted(lease_until_s: float, policy_: Policy | None = None) -> Node:
    """The agent of an active node was killed and started again; its containers run."""
    policy_ = trio() if policy_ is None else policy_
    me = NODE[policy_.role]
    node = begun(policy_, held_by(me, led=True), lease_until_s=lease_until_s)
    node.takes(all_up(node))
    return node


def a_standby_of_three(policy_: Policy | None = None) -> Node:
    """Its peer is active in `TERM` and renews; the witness is promised to it."""
    policy_ = trio(BACKUP) if policy_ is None else policy_
    node = begun(policy_, held_by(NODE[policy_.others[0]]))
    node.takes(all_down(node), peer_leads(node), witness_is_promised(node))
    assert node.state.phase is Phase.STANDBY
    return node


def a_candidate_of_three(policy_: Policy | None = None) -> Node:
    """It asks a peer that stands by and a witness whether they would grant a term."""
    node = begun(policy_)
    node.takes(all_down(node), node.beat(), witness_is_free(node))
    assert node.state.phase is Phase.ACQUIRING
    return node


def winner(policy_: Policy | None = None) -> Node:
    """The witness alone granted it a term; nothing has been begun but to arm the guard (or to
    fence).
    """
    node = a_candidate_of_three(policy_)
    node.takes(witness_votes(node, VoteKind.POLL))
    node.takes(witness_votes(node, VoteKind.CANDIDACY))
    return node


def fencing_winner(**said: Any) -> Node:
    """The same with a fence_command, and a peer that cannot tell whether anything runs there, or
    that says this of itself.
    """
    node = begun(trio(has_fence=True))
    node.takes(all_down(node), node.beat(**{"running": None, **said}), witness_is_free(node))
    node.takes(witness_votes(node, VoteKind.POLL))
    node.takes(witness_votes(node, VoteKind.CANDIDACY))
    return node


def promoting_of_three(policy_: Policy | None = None) -> Node:
    """It won by the vote of the witness, its guard watches, and its containers are started."""
    node = winner(policy_)
    node.takes(GuardArmed(held_term(node)))
    assert node.state.start_job == held_term(node)
    return node


def active_of_three(policy_: Policy | None = None) -> Node:
    """All its containers run, peer and witness renew, and startup_grace_period is over."""
    node = promoting_of_three(policy_)
    node.takes(all_up(node), ContainersStarted(held_term(node)), after_s=2.0)
    assert node.state.phase is Phase.ACTIVE
    goes_on(node, node.policy.startup_grace_period_s, peer_renews, witness_renews)
    return node


def phase(node: Node) -> Phase:
    """Where it is now; asked anew each time."""
    return node.state.phase


def fenced(node: Node, error: str = "") -> FenceFinished:
    """fence_command came to its end."""
    fencing = node.state.fencing
    assert fencing is not None
    return FenceFinished(fencing.term, fencing.target, error)


def beats_to(step: Step, roles: Collection[Role]) -> list[SendHeartbeat]:
    """The beats of a step to these voters."""
    return [effect for effect in of_kind(step, SendHeartbeat) if effect.to in roles]
