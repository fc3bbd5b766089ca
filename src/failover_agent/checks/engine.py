"""The Docker Engine and the managed containers."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from failover_agent.adapters.clock import Clock
from failover_agent.adapters.docker import DockerEngine, EngineReport
from failover_agent.adapters.docker.client import (
    EngineClient,
    EngineRefusedError,
    EngineUnreachableError,
)
from failover_agent.checks.finding import Finding, Level
from failover_agent.config import Settings
from failover_agent.config.values import USUAL_DOCKER_HOST
from failover_agent.core.policy import RestartPolicyMode
from failover_agent.errors import EngineError

OLDEST_API = (1, 41)
"""Engine 20.10, the oldest that was tried."""
ENGINE_S = 5.0
CONNECT_S = 1.0


@dataclass(frozen=True, slots=True)
class Engine:
    """What is known of it; `running`: the managed containers that run, in the order of start.

    `stop_timeouts_s`: what each container says for itself, None where it says nothing.
    """

    findings: list[Finding]
    running: tuple[str, ...] = ()
    stop_timeouts_s: Mapping[str, float | None] = field(default_factory=dict)


async def look(settings: Settings) -> Engine:
    """Ask the engine for all there is."""
    names = settings.keys.containers
    engine = DockerEngine(
        host=settings.docker_host,
        names=names,
        post=lambda _: None,
        may_act=lambda _: False,
        clock=Clock(),
        stop_timeout_s=None,
        start_timeout_s=settings.keys.docker.start_timeout,
    )
    try:
        report = await engine.probe()
        inspected = await _inspect(settings.docker_host, names)
    except EngineError as error:
        fix = _fix_of(settings.docker_host) or error.todo
        return Engine([Finding(Level.ERROR, "engine", f"{error.where}: {error.what}", fix)])
    finally:
        await engine.close()
    gone_when_stopped = frozenset(
        name for name, seen in inspected.items() if (seen.get("HostConfig") or {}).get("AutoRemove")
    )
    findings = [
        *of_engine(report, settings.docker_host),
        *of_containers(report, settings, gone_when_stopped),
    ]
    return Engine(
        findings,
        running=tuple(seen.name for seen in report.containers if seen.alive),
        stop_timeouts_s={
            name: (seen.get("Config") or {}).get("StopTimeout") for name, seen in inspected.items()
        },
    )


def _fix_of(host: str) -> str:
    """The line that mends a socket that is missing, dead, or not ours to use; "" for the rest."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(CONNECT_S)
            connection.connect(host.removeprefix("unix://"))
    except (FileNotFoundError, ConnectionRefusedError):
        return "systemctl start docker" if host == USUAL_DOCKER_HOST else ""
    except PermissionError:
        return "Run as root, or: usermod --append --groups docker $USER"
    except OSError:
        return ""
    return ""


async def _inspect(host: str, names: tuple[str, ...]) -> Mapping[str, Mapping[str, Any]]:
    """What an agent does not ask for: was it made with --rm, how long may it take to stop?"""
    client = EngineClient(host)
    try:
        ids = await client.ids(names, ENGINE_S)
        return {name: await client.inspect(ids[name], ENGINE_S) for name in ids}
    except (EngineUnreachableError, EngineRefusedError) as error:
        raise EngineError(engine=host, what=str(error)) from error
    finally:
        await client.close()


def of_engine(report: EngineReport, host: str) -> Iterator[Finding]:
    """The engine itself."""
    api = tuple(int(part) for part in report.api_version.split(".") if part.isdecimal())
    told = f"{host} answers (version {report.version}, API {report.api_version})"
    if api < OLDEST_API:
        oldest = ".".join(map(str, OLDEST_API))
        yield Finding(
            Level.WARNING,
            "engine",
            f"{told}; nothing older than API {oldest} (Engine 20.10) was tried",
            "Install a newer Docker Engine.",
        )
    else:
        yield Finding(Level.OK, "engine", told)
    if not report.live_restore:
        yield Finding(
            Level.HINT,
            "live-restore",
            "it is off, so a restart of the Docker Engine stops the containers, and may move them",
            '"live-restore": true in /etc/docker/daemon.json, then systemctl reload docker',
        )


def of_containers(
    report: EngineReport,
    settings: Settings,
    gone_when_stopped: frozenset[str],
) -> Iterator[Finding]:
    """Each managed container."""
    manages = settings.keys.restart_policy is RestartPolicyMode.MANAGE
    for container in report.containers:
        name, subject = container.name, f"container {container.name}"
        if not container.exists:
            yield Finding(
                Level.ERROR,
                subject,
                "there is no such container on this host",
                f"docker create --name {name} IMAGE, as on the other host",
            )
            continue
        yield Finding(Level.OK, subject, container.detail)
        if name in gone_when_stopped:
            yield Finding(
                Level.ERROR,
                subject,
                "it was made with --rm, so a stop removes it, and it could never come back here",
                f"docker rm --force {name}, and create it without --rm",
            )
        elif container.restart_policy not in ("", "no"):
            policy = container.restart_policy
            yield Finding(
                Level.HINT if manages else Level.ERROR,
                subject,
                f"Docker's restart policy {policy} would start it after a boot before anybody "
                "could forbid it" + ("; the agent will set it to no" if manages else ""),
                f"docker update --restart=no {name}",
            )
