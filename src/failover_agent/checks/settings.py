"""What the configuration means, and what it costs."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from failover_agent.adapters.fence import why_not_runnable
from failover_agent.checks.finding import Finding, Level
from failover_agent.config import Arbiter, ArbiterKind, Fence, Node, Settings
from failover_agent.config.values import address_of, is_unspecified
from failover_agent.core.policy import PartitionPolicy, Role
from failover_agent.protocol.envelope import read_token


def find(settings: Settings) -> Iterator[Finding]:
    """Everything that can be said without looking at the world."""
    if settings.role is Role.WITNESS:
        yield from _of_witness(settings)
    else:
        yield from _of_node(settings)


def _of_witness(settings: Settings) -> Iterator[Finding]:
    names = ", ".join(name for name, _ in settings.clusters)
    yield Finding(
        Level.OK,
        "configuration",
        f"{settings.path} can be used: this is the witness of {names}",
    )
    secrets = [secret for _, secret in settings.clusters]
    yield from _of_secret(settings, is_signed=None not in secrets)


def _of_node(settings: Settings) -> Iterator[Finding]:
    """What can be meant, and may still not be what one wants."""
    yield Finding(
        Level.OK,
        "configuration",
        f"{settings.path} can be used: this is the {settings.role} of cluster "
        f"{settings.keys.cluster}",
    )
    yield from _of_secret(settings, is_signed=settings.secret is not None)
    if settings.keys.security.read_access == "secret" and settings.secret is not None:
        token = read_token(settings.secret)
        yield Finding(
            Level.OK, "read_access", f"a reader sends this header: Authorization: Bearer {token}"
        )
    yield from _of_ports(settings)
    if settings.arbiter is None:
        yield _of_partition(settings)
    else:
        yield from _of_arbiter(settings, settings.arbiter)
    if settings.fence is not None:
        yield _of_fence(settings.fence)


def _of_secret(settings: Settings, *, is_signed: bool) -> Iterator[Finding]:
    keys = settings.keys
    may_hold = (keys.security.secret, keys.arbiter.password)
    if not is_signed:
        yield Finding(
            Level.WARNING,
            "secret",
            "there is none: whoever reaches the port can move the service",
            '[security] secret_file = "/etc/failover-agent/secret"',
        )
    if any(secret is not None for secret in may_hold) and _is_open_to_others(settings.path):
        yield Finding(
            Level.WARNING,
            "secret",
            f"{settings.path} may hold it and can be read by other users",
            f"chmod 600 {shlex.quote(str(settings.path))}",
        )


def _of_ports(settings: Settings) -> Iterator[Finding]:
    for role in (Role.PRIMARY, Role.BACKUP):
        listens = settings.configuration.node(role)
        other = settings.configuration.node(listens.peer)
        yield from _of_port(listens, f"the {other.role} calls", other.endpoints)
    arbiter, witness = settings.arbiter, settings.configuration.node(Role.WITNESS)
    if arbiter is None or arbiter.kind is not ArbiterKind.WITNESS:
        return
    yield from _of_port(witness, "the nodes call", arbiter.endpoints)


def _of_port(listens: Node, callers: str, endpoints: tuple[str, ...]) -> Iterator[Finding]:
    """Who is called at another port than its own, as behind a forwarding router or container."""
    for endpoint in endpoints:
        if not endpoint.endswith(f":{listens.port}"):
            yield Finding(
                Level.HINT,
                "ports",
                f"the {listens.role} listens on {listens.port} ([{listens.role}] port), and "
                f"{callers} {endpoint}: that needs a forwarded port",
            )
    yield from _of_bind(listens, endpoints)


def _of_bind(listens: Node, endpoints: tuple[str, ...]) -> Iterator[Finding]:
    """Several ways to one who listens at one address: all but that one need to be forwarded."""
    if len(endpoints) < 2 or is_unspecified(listens.bind):
        return
    others = [each for each in endpoints if address_of(each).host != listens.bind.lower()]
    if others:
        yield Finding(
            Level.WARNING,
            "ports",
            f"the {listens.role} listens at {listens.bind} alone, and is called at "
            f"{', '.join(others)} too",
            f'[{listens.role}] bind = "0.0.0.0", or "::" where addresses are IPv6',
        )


WITHOUT_ARBITER = """\
a witness on a third host ends that: [arbiter] in config.example.toml; and with \
partition_policy = "consistency" a takeover waits for your word"""


def _of_partition(settings: Settings) -> Finding:
    """What a cut wire costs a plain pair."""
    if settings.fence is not None:
        return Finding(
            Level.OK,
            "partition",
            "a silent peer is fenced before anything starts here: fence_command has to reach it "
            "while the wire between the nodes is cut",
        )
    if settings.keys.partition_policy is PartitionPolicy.AVAILABILITY:
        return Finding(
            Level.HINT,
            "partition",
            "availability: while the wire between the nodes is cut both run the containers; at the "
            "first contact the one with the lower term stops",
            WITHOUT_ARBITER,
        )
    return Finding(
        Level.HINT,
        "partition",
        "consistency: when a host dies, nothing takes over until an operator says `failover-"
        f"agent takeover --peer-is-off` on the other one, here the {settings.node.peer}",
    )


def _of_arbiter(settings: Settings, arbiter: Arbiter) -> Iterator[Finding]:
    yield Finding(
        Level.OK,
        "lease",
        f"two of three votes decide, and the third is the {arbiter.kind} at "
        f"{', '.join(arbiter.endpoints)}: a cut wire never makes both run",
    )
    if settings.keys.partition_policy is not PartitionPolicy.AVAILABILITY:
        yield Finding(
            Level.HINT,
            "partition",
            "partition_policy changes nothing here: it is for a pair without an arbiter",
        )


def _of_fence(fence: Fence) -> Finding:
    """It is not tried: that would switch the peer off."""
    problem = why_not_runnable(fence.command, os.environ)
    if problem:
        return Finding(
            Level.ERROR,
            "fence_command",
            f"{problem.removeprefix('fence_command: ')}: no takeover would ever go on",
            'fence_command = ["/the/whole/path", "ARGUMENT"], executable for the agent',
        )
    return Finding(
        Level.OK,
        "fence_command",
        f"{fence.command[0]} can be run, before a takeover and for {fence.timeout_s:g} s at most; "
        "it was not tried",
    )


def _is_open_to_others(path: Path) -> bool:
    try:
        return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)
    except OSError:
        return False
