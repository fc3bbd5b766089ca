"""What the configuration costs, and the bounds that its timings give."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from failover_agent.checks.finding import Finding, Level
from failover_agent.config import Settings
from failover_agent.core.policy import PartitionPolicy, Role

SHORT_TIMEOUT_S = 2.0


def find(settings: Settings) -> Iterator[Finding]:
    """Everything that can be said without looking at the world."""
    yield from of_settings(settings)
    yield from of_timing(settings)


def of_settings(settings: Settings) -> Iterator[Finding]:
    """What can be meant, and may still not be what one wants."""
    keys, node = settings.keys, settings.node
    yield Finding(
        Level.OK,
        "configuration",
        f"{settings.path} can be used: this is the {settings.role} of cluster {keys.cluster}",
    )
    if settings.secret is None:
        yield Finding(
            Level.WARNING,
            "secret",
            "there is none: whoever reaches the port can move the service",
            '[security] secret_file = "/etc/failover-agent/secret"',
        )
    elif keys.security.secret is not None and _is_open_to_others(settings.path):
        yield Finding(
            Level.WARNING,
            "secret",
            f"{settings.path} may hold it and can be read by other users",
            f"chmod 600 {shlex.quote(str(settings.path))}",
        )
    for role in (Role.PRIMARY, Role.BACKUP):
        listens = settings.configuration.node(role)
        other = settings.configuration.node(listens.peer)
        if not other.endpoint.endswith(f":{listens.port}"):
            yield Finding(
                Level.HINT,
                "ports",
                f"the {role} listens on {listens.port}, and the {other.role} calls "
                f"{other.endpoint}: that needs a forwarded port",
            )
    if keys.partition_policy is PartitionPolicy.AVAILABILITY:
        yield Finding(
            Level.HINT,
            "partition",
            "availability: while the wire between the nodes is cut both run the containers; at the "
            "first contact the one with the lower term stops",
        )
    else:
        yield Finding(
            Level.HINT,
            "partition",
            f"consistency: when a host dies, nothing takes over until an operator says `failover-"
            f"agent takeover --peer-is-off` on the other one, here the {node.peer}",
        )


def _is_open_to_others(path: Path) -> bool:
    try:
        return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)
    except OSError:
        return False


def of_timing(settings: Settings) -> Iterator[Finding]:
    """The bounds that these timings give, in closed form (design, section 4, without a lease)."""
    policy = settings.policy()
    silence_s = policy.promise_length_s
    lone_s = max(policy.startup_grace_period_s, silence_s)
    if policy.partition_policy is PartitionPolicy.AVAILABILITY:
        yield Finding(
            Level.OK,
            "host dies",
            f"the other node begins to start the containers {silence_s:.4g} s after the last "
            f"message it heard (heartbeat_timeout {policy.heartbeat_timeout_s:g} s x "
            f"{1 + policy.clock_drift:g}), plus a late timer and one write to its disk",
        )
    yield Finding(
        Level.OK,
        "container dies",
        f"it has {policy.restart_grace_period_s:g} s to come back (restart_grace_period); then the "
        "others are stopped and all are started on the other node",
    )
    yield Finding(
        Level.OK,
        "boots alone",
        f"a node that does not hear the other one starts after {lone_s:.4g} s at the earliest",
    )
    if policy.heartbeat_timeout_s < SHORT_TIMEOUT_S:
        yield Finding(
            Level.WARNING,
            "heartbeat_timeout",
            f"{policy.heartbeat_timeout_s:g} s is short: a host that is busy for so long counts as "
            "dead",
            f"heartbeat_timeout = {SHORT_TIMEOUT_S:g}",
        )
