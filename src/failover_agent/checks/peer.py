"""The other node: is it there, is it ours, and what does it do?"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from failover_agent.adapters.clock import Clock
from failover_agent.adapters.peer import Peers
from failover_agent.adapters.record import Record, read_record
from failover_agent.checks.finding import Finding, Level
from failover_agent.config import Settings
from failover_agent.core.messages import Sender
from failover_agent.core.state import Phase
from failover_agent.errors import FailoverAgentError
from failover_agent.protocol.auth import AskAgain, Keeper, Outgoing, Refused, Understood
from failover_agent.protocol.wire import HelloAnswer


@dataclass(frozen=True, slots=True)
class Peer:
    """What is known of it. `phase` None: it did not answer, or is not ours."""

    findings: list[Finding]
    phase: Phase | None


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
    role = settings.node.peer
    keeper = _keeper(settings)
    async with _peers(settings, keeper) as peers:
        probed = await peers.probe(role)
    findings = [
        Finding(Level.OK, "peer", f"{each.endpoint}: {each.what}")
        if each.is_fine
        else Finding(
            Level.WARNING if each.conflict is None else Level.ERROR,
            "peer",
            f"{each.endpoint}: {each.what.removeprefix(f'{each.endpoint}: ')}",
            each.todo,
        )
        for each in probed
    ]
    return Peer(findings, keeper.phase)


def _keeper(settings: Settings) -> _Keeper:
    """Someone who may ask in the name of this node, and of nobody else."""
    record = _record_or_none(settings)
    policy = settings.policy()
    return _Keeper(
        cluster=settings.keys.cluster,
        me=Sender(
            role=settings.role,
            node_id=record.node_id if record else secrets.token_hex(8),
            run_id=secrets.token_hex(8),
            fingerprint=policy.fingerprint,
        ),
        secret=settings.secret,
        peers=frozenset(policy.others),
        living_for_s=policy.heartbeat_timeout_s,
    )


@asynccontextmanager
async def _peers(settings: Settings, keeper: Keeper) -> AsyncIterator[Peers]:
    peers = Peers(
        endpoints={settings.node.peer: (settings.node.endpoint,)},
        keeper=keeper,
        post=lambda _: None,
        clock=Clock(),
    )
    try:
        yield peers
    finally:
        await peers.close()


def _record_or_none(settings: Settings) -> Record | None:
    try:
        return read_record(settings.node.state_dir)
    except FailoverAgentError:
        return None
