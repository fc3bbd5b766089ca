"""The third voter: is it there, is it ours, and how far away?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from failover_agent.adapters.arbiters.etcd import EtcdArbiter
from failover_agent.adapters.arbiters.gateway import Access
from failover_agent.adapters.clock import Clock
from failover_agent.adapters.peer import Probed
from failover_agent.checks import peer
from failover_agent.checks.finding import Finding, Level
from failover_agent.config import Arbiter, ArbiterKind, Settings
from failover_agent.core.policy import Role
from failover_agent.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Seen:
    """`rtt_s`: of a question and its answer; None where it was not answered, or there is none."""

    findings: list[Finding]
    rtt_s: float | None = None


async def look(settings: Settings) -> Seen:
    """Ask it who it is. While it does not answer, one more failure stops the service."""
    arbiter = settings.arbiter
    if arbiter is None:
        return Seen([])
    if arbiter.kind is ArbiterKind.WITNESS:
        asked = await peer.ask(settings, Role.WITNESS, arbiter.endpoints)
        return Seen([peer.of_probe("arbiter", each) for each in asked.probed], asked.rtt_s)
    try:
        probed, rtt_s = await _ask_etcd(settings, arbiter)
    except ConfigError as error:
        return Seen([Finding(Level.ERROR, "arbiter", f"{error.where}: {error.what}", error.todo)])
    findings = [peer.of_probe("arbiter", each) for each in probed]
    return Seen([*findings, *_of_etcd(arbiter)], rtt_s)


async def _ask_etcd(
    settings: Settings, arbiter: Arbiter
) -> tuple[tuple[Probed, ...], float | None]:
    """All members together; then one that answers, for how long it takes."""
    async with _etcd(settings, arbiter, arbiter.endpoints) as members:
        probed = await members.probe()
    answering = [each.endpoint for each in probed if each.is_fine]
    if not answering:
        return probed, None
    clock, slowest_s = Clock(), 0.0
    async with _etcd(settings, arbiter, tuple(answering[:1])) as member:
        await member.probe()
        for _ in range(peer.TRIES):
            # It asks for more than one thing, so this is more than a round trip.
            began_at_s = clock.now()
            await member.probe()
            slowest_s = max(slowest_s, clock.now() - began_at_s)
    return probed, slowest_s


@asynccontextmanager
async def _etcd(
    settings: Settings, arbiter: Arbiter, endpoints: tuple[str, ...]
) -> AsyncIterator[EtcdArbiter]:
    etcd = EtcdArbiter(
        endpoints=endpoints,
        cluster=settings.keys.cluster,
        me=peer.me(settings),
        post=lambda _: None,
        clock=Clock(),
        access=Access(
            username=arbiter.username,
            password=arbiter.password,
            ca_file=arbiter.ca_file,
            cert_file=arbiter.cert_file,
            key_file=arbiter.key_file,
        ),
    )
    try:
        yield etcd
    finally:
        await etcd.close()


def _of_etcd(arbiter: Arbiter) -> list[Finding]:
    findings = []
    if arbiter.password is not None and any(e.startswith("http:") for e in arbiter.endpoints):
        findings.append(
            Finding(
                Level.WARNING,
                "arbiter",
                "the password crosses the network as it is: an endpoint begins with http://",
                'endpoint = "https://...", and ca_file where the certificate is your own',
            )
        )
    findings.append(
        Finding(
            Level.HINT,
            "arbiter",
            "each renewal is a revision that etcd keeps: without auto-compaction its disk fills up",
            "--auto-compaction-mode=periodic --auto-compaction-retention=1h (options of etcd)",
        )
    )
    return findings
