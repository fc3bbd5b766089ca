"""The other node: is it there, is it ours, and what does it do?"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from failover_agent.adapters.clock import Clock
from failover_agent.adapters.peer import Peers, Probed
from failover_agent.adapters.record import Record, read_record
from failover_agent.checks.finding import Finding, Level
from failover_agent.config import Settings
from failover_agent.core.messages import Sender
from failover_agent.core.policy import Role
from failover_agent.core.state import Phase
from failover_agent.errors import FailoverAgentError
from failover_agent.protocol.auth import AskAgain, Keeper, Outgoing, Refused, Understood
from failover_agent.protocol.wire import HelloAnswer

TRIES = 5
"""How often a voter that answers is asked again, to see how long it takes."""


@dataclass(frozen=True, slots=True)
class Peer:
    """What is known of it. `phase` None: it did not answer, or is not ours; `rtt_s` likewise."""

    findings: list[Finding]
    phase: Phase | None
    rtt_s: float | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking a node or a witness. `rtt_s`: the slowest of a few answers."""

    probed: tuple[Probed, ...]
    phase: Phase | None
    rtt_s: float | None


class _Keeper(Keeper):
    """Notes the phase that the peer answers with."""

    phase: Phase | None = None

    def read_answer(
        self, sent: Outgoing, status: int, signature: str, body: bytes
    ) -> Understood | AskAgain | Refused:
        read = super().read_answer(sent, status, signature, body)
        if isinstance(read, Understood) and isinstance(read.answer, HelloAnswer):
            self.phase = read.answer.phase
        return read


async def look(settings: Settings) -> Peer:
    """Ask it who it is. Not there yet is a weakness; there and not our peer is an error."""
    asked = await ask(settings, settings.node.peer, settings.node.endpoints)
    return Peer([of_probe("peer", each) for each in asked.probed], asked.phase, asked.rtt_s)


async def ask(settings: Settings, role: Role, endpoints: tuple[str, ...]) -> Asked:
    """Ask who listens at each of `endpoints`, in the name of this node, and how long an answer
    takes over those that lead there.
    """
    keeper, clock = _keeper(settings), Clock()
    peers = Peers(endpoints={role: endpoints}, keeper=keeper, post=lambda _: None, clock=clock)
    try:
        probed = await peers.probe(role)
        fine = frozenset(each.endpoint for each in probed if each.is_fine)
        slowest_s = 0.0 if fine else None
        for _ in range(TRIES if fine else 0):
            began_at_s = clock.now()
            await peers.probe(role, fine)
            slowest_s = max(slowest_s or 0.0, clock.now() - began_at_s)
    finally:
        await peers.close()
    return Asked(probed, keeper.phase, slowest_s)


def of_probe(subject: str, probed: Probed) -> Finding:
    """Not there yet is a weakness; there and not ours is an error."""
    if probed.is_fine:
        return Finding(Level.OK, subject, f"{probed.endpoint}: {probed.what}")
    level = Level.WARNING if probed.conflict is None else Level.ERROR
    what = probed.what.removeprefix(f"{probed.endpoint}: ")
    return Finding(level, subject, f"{probed.endpoint}: {what}", probed.todo)


def me(settings: Settings) -> Sender:
    """Who asks: this node, in a run of its own."""
    record = _record_or_none(settings)
    return Sender(
        role=settings.role,
        node_id=record.node_id if record else secrets.token_hex(8),
        run_id=secrets.token_hex(8),
        fingerprint=settings.policy().fingerprint,
    )


def _keeper(settings: Settings) -> _Keeper:
    """Someone who may ask in the name of this node, and of nobody else."""
    policy = settings.policy()
    return _Keeper(
        cluster=settings.keys.cluster,
        me=me(settings),
        secret=settings.secret,
        peers=frozenset(policy.others),
        arbiters=frozenset({Role.WITNESS}),
        living_for_s=policy.heartbeat_timeout_s,
    )


def _record_or_none(settings: Settings) -> Record | None:
    try:
        return read_record(settings.node.state_dir)
    except FailoverAgentError:
        return None
