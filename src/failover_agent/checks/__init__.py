"""What `failover-agent check` finds: whatever would keep this node from doing its part.

Each finding names its subject and says in a sentence what is; where something is to be done, `fix`
is the line that mends it. Nothing is changed anywhere.

settings   what the configuration costs, and the bounds that its timings give
engine     the Docker Engine and the containers
peer       the other node
host       disk, sockets, port
service    where the containers run, and whether an agent looks after them
"""

from __future__ import annotations

import asyncio

from failover_agent.checks import engine, host, peer, service, settings
from failover_agent.checks.finding import Finding, Level, Status, exit_code
from failover_agent.config import Settings

__all__ = ["Finding", "Level", "Status", "exit_code", "find_all"]


async def find_all(of: Settings, status: Status | None) -> list[Finding]:
    """Everything about this node. `status` is what its agent says, None when none answers."""
    async with asyncio.TaskGroup() as group:
        of_engine = group.create_task(engine.look(of))
        of_peer = group.create_task(peer.look(of))
    return [
        *settings.find(of),
        *of_engine.result().findings,
        *of_peer.result().findings,
        *host.find(of, status),
        *service.find(of, status, of_engine.result().running, of_peer.result().phase),
    ]
