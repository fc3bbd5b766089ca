"""The Docker Engine and the managed containers."""

from __future__ import annotations

import re
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
from failover_agent.config.values import AGENT, USUAL_DOCKER_HOST
from failover_agent.core.policy import RestartPolicyMode
from failover_agent.errors import EngineError

OLDEST_API = (1, 41)
"""Engine 20.10, the oldest that was tried."""
ROOTLESS = re.compile(r"unix:///run/user/(\d+)/")
TITLE = "org.opencontainers.image.title"
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
        files=settings.docker_files,
        names=names,
        post=lambda _: None,
        may_act=lambda _: False,
        clock=Clock(),
        stop_timeout_s=None,
        start_timeout_s=settings.keys.docker.start_timeout,
    )
    try:
        report = await engine.probe()
        if not report.version:
            return Engine([*of_the_way(settings.docker_host), *of_denials(report)])
        inspected = await _inspect(settings, names)
    except EngineError as error:
        fix = fix_of(settings.docker_host) or error.todo
        return Engine([Finding(Level.ERROR, "engine", f"{error.where}: {error.what}", fix)])
    finally:
        await engine.close()
    gone_when_stopped = frozenset(
        name for name, seen in inspected.items() if (seen.get("HostConfig") or {}).get("AutoRemove")
    )
    findings = [
        *of_engine(report, settings.docker_host),
        *of_the_way(settings.docker_host),
        *of_denials(report),
        *of_containers(report, settings, gone_when_stopped),
        *of_agents(inspected),
    ]
    return Engine(
        findings,
        running=tuple(seen.name for seen in report.containers if seen.alive),
        stop_timeouts_s={
            name: (seen.get("Config") or {}).get("StopTimeout") for name, seen in inspected.items()
        },
    )


def fix_of(host: str) -> str:
    """The line that mends a socket that is missing, dead, or not ours to use; "" for the rest."""
    if not host.startswith("unix://"):
        return "What docker.host, and with TLS ca_file, cert_file and key_file say, has to fit it."
    if rootless := ROOTLESS.match(host):
        return (
            f"It is that of a user: as uid {rootless[1]}, systemctl --user start docker (or "
            "podman.socket); loginctl enable-linger keeps it there when nobody is logged in"
        )
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


async def _inspect(settings: Settings, names: tuple[str, ...]) -> Mapping[str, Mapping[str, Any]]:
    """What an agent does not ask for: was it made with --rm, how long may it take to stop?"""
    client = EngineClient(settings.docker_host, settings.docker_files)
    try:
        ids = await client.ids(names, ENGINE_S)
        return {name: await client.inspect(ids[name], ENGINE_S) for name in ids}
    except (EngineUnreachableError, EngineRefusedError) as error:
        raise EngineError(engine=client.host, what=str(error)) from error
    finally:
        await client.close()


def of_engine(report: EngineReport, host: str) -> Iterator[Finding]:
    """The engine itself."""
    api = tuple(int(part) for part in report.api_version.split(".") if part.isdecimal())
    told = f"{host} answers (version {report.version}, API {report.api_version})"
    if api < OLDEST_API:
        oldest = ".".join(map(str, OLDEST_API))
        yield Finding(
            Level.ERROR,
            "engine",
            f"{told}, and the agent needs API {oldest} (Engine 20.10) or newer",
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


def of_the_way(host: str) -> Iterator[Finding]:
    """How the engine is reached."""
    if host.startswith("tcp://"):
        yield Finding(
            Level.WARNING,
            "docker.host",
            f"{host} is without TLS: whoever reaches that port commands the engine, and so is root "
            "on this host",
            "Use its socket, or TLS: docker.tls_verify, ca_file, cert_file and key_file; or let no "
            "network but a container's own lead there.",
        )


def of_denials(report: EngineReport) -> Iterator[Finding]:
    """What the agent may not ask."""
    for denial in report.denials:
        what, _, fix = denial.partition(": ")
        yield Finding(Level.ERROR, "engine", what, fix)


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


def of_agents(inspected: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """An agent, be it under another name, is no container for an agent to stop."""
    for name, seen in inspected.items():
        labels = (seen.get("Config") or {}).get("Labels") or {}
        if labels.get(TITLE) == AGENT:
            yield Finding(
                Level.ERROR,
                f"container {name}",
                "an agent runs in it, which would stop itself",
                "Take it out of containers in the configuration.",
            )
