"""What `failover-agent check` finds: whatever would keep this node from doing its part.

Each finding names its subject and says in a sentence what is; where something is to be done, `fix`
is the line that mends it. Nothing is changed anywhere.

settings   what the configuration means, and what it costs
timing     the bounds that its timings give here
engine     the Docker Engine and the containers
peer       the other node
arbiter    the third voter
host       disk, sockets, port
service    where the containers run, and whether an agent looks after them
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from failover_agent.checks import arbiter, engine, host, measure, peer, service, settings, timing
from failover_agent.checks.finding import Finding, Level, Status, exit_code
from failover_agent.checks.timing import Bounds
from failover_agent.config import Settings
from failover_agent.core.policy import Role

__all__ = ["Bounds", "Finding", "Level", "Report", "Status", "exit_code", "find_all"]


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found. `bounds`: what the timings give; None on a witness, which has none."""

    findings: list[Finding]
    bounds: Bounds | None = None


async def find_all(of: Settings, status: Status | None) -> Report:
    """Everything about this node. `status` is what its agent says, None when none answers."""
    if of.role is Role.WITNESS:
        found = [*settings.find(of), *host.find(of, status), *service.find(of, status, (), None)]
        return Report(found)
    async with asyncio.TaskGroup() as group:
        of_engine = group.create_task(engine.look(of))
        of_peer = group.create_task(peer.look(of))
        of_arbiter = group.create_task(arbiter.look(of))
    measured = await measure.measure(
        _slowest_s(of, of_peer.result().rtt_s, of_arbiter.result().rtt_s), of.node.state_dir
    )
    findings = [
        *settings.find(of),
        *timing.find(of, measured, of_engine.result().stop_timeouts_s),
        *of_engine.result().findings,
        *of_peer.result().findings,
        *of_arbiter.result().findings,
        *host.find(of, status),
        *service.find(of, status, of_engine.result().running, of_peer.result().phase),
    ]
    return Report(findings, timing.table(of, measured))


def _slowest_s(of: Settings, peer_s: float | None, arbiter_s: float | None) -> float | None:
    """Of the voters that answered; an arbiter that does not is the one that would matter."""
    if of.arbiter is not None and arbiter_s is None:
        return None
    return max((each for each in (peer_s, arbiter_s) if each is not None), default=None)
