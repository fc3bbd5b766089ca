"""The engine's JSON, understood. Pure; tested on what a real engine said (tests/recorded).

The rule for up and down is section 5 of the design: `State.Status` decides, because `State.Running`
is true while a container is paused and between the rounds of a crash loop.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from failover_agent.core.events import ContainerObservation
from failover_agent.core.state import ContainerState

ENGINE_STOP_TIMEOUT_S = 10
"""What `docker stop` allows a container that says nothing about it."""

ACTIONS = (
    "create", "start", "die", "stop", "pause", "unpause", "rename", "destroy", "update",
    "health_status",
)  # fmt: skip
"""The events worth looking for. `kill` and `oom` prove nothing, `exec_*` come with every check."""

NOTHING_RUNS = ("created", "exited", "removing", "dead")
"""The engine looks at the process first: what it calls one of these has none."""

PROCESS_RUNTIMES = ("", None, "runc", "crun", "io.containerd.runc.v2")
"""With others a container may be a virtual machine, which may outlive the process we see of it."""

LOOKS_LIKE_AN_ID = re.compile(r"[0-9a-f]{64}")
SHOWN_HEALTH = re.compile(r"\((?:health: )?(?P<health>starting|healthy|unhealthy)\)$")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Sight:
    """One look at one container: what the core is told, and what only this adapter needs.

    `status` is the engine's own word ("" where there is no such container), `health` is "" without
    a HEALTHCHECK, `pid` 0 without a process. `stop_timeout_s` is None where the container may take
    for ever (StopTimeout -1). `has_own_pids`: in a pid namespace of its own, the end of its first
    process is the end of all.
    """

    observation: ContainerObservation
    container_id: str = ""
    status: str = ""
    health: str = ""
    exit_code: int = 0
    error: str = ""
    pid: int = 0
    started_at_us: int = 0
    stop_timeout_s: float | None = ENGINE_STOP_TIMEOUT_S
    has_own_pids: bool = True

    @property
    def is_serving(self) -> bool:
        """Running, and healthy where there is a check: what a start waits for."""
        return self.status == "running" and self.health in ("", "healthy")


@dataclass(frozen=True, slots=True)
class Listed:
    """What a list tells of one container: `status` and `health` as in a Sight."""

    container_id: str
    status: str
    health: str


@dataclass(frozen=True, slots=True)
class ContainerEvent:
    """A hint from the stream.

    `name` is the container's name after the event, `at_us` the engine's wall time in microseconds,
    `exit_code` that of a `die`.
    """

    action: str
    container_id: str
    name: str
    old_name: str
    at_us: int
    exit_code: int | None


def missing(name: str, *, was_here: bool = False) -> Sight:
    """There is no container of this name: down, as the engine told us."""
    return Sight(
        ContainerObservation(
            name=name,
            state=ContainerState.DOWN,
            detail="removed" if was_here else "no such container",
            exists=False,
            alive=False,
            incarnation="",
            image="",
            settings="",
            restart_policy="no",
        )
    )


def parse_inspect(name: str, inspected: Mapping[str, Any]) -> Sight:
    """What `GET /containers/ID/json` says about the container that we call `name`."""
    state = inspected["State"]
    status = str(state["Status"])
    health = str((state.get("Health") or {}).get("Status") or "")
    health = "" if health == "none" else health
    exit_code = int(state.get("ExitCode") or 0)
    error = str(state.get("Error") or "")
    container_id = str(inspected["Id"])
    started_at = str(state.get("StartedAt") or "")
    config = inspected.get("Config") or {}
    host = inspected.get("HostConfig") or {}
    is_up = status == "running" and health != "unhealthy"
    return Sight(
        ContainerObservation(
            name=name,
            state=ContainerState.UP if is_up else ContainerState.DOWN,
            detail=_detail(status, health, exit_code, error, bool(state.get("OOMKilled"))),
            exists=True,
            alive=status not in NOTHING_RUNS,
            incarnation=f"{container_id[:12]} {started_at}",
            image=str(inspected.get("Image") or ""),
            settings=settings_digest(inspected),
            restart_policy=str((host.get("RestartPolicy") or {}).get("Name") or "no"),
        ),
        container_id=container_id,
        status=status,
        health=health,
        exit_code=exit_code,
        error=error,
        pid=int(state.get("Pid") or 0),
        started_at_us=_microseconds(started_at),
        stop_timeout_s=_stop_timeout_s(config.get("StopTimeout")),
        has_own_pids=not host.get("PidMode") and host.get("Runtime") in PROCESS_RUNTIMES,
    )


def parse_row(container_id: str, state: str, status: str) -> Listed:
    """A row of `GET /containers/json`; the health is in the words for people ("Up 2 minutes
    (healthy)") and nowhere else.
    """
    word = SHOWN_HEALTH.search(status)
    return Listed(container_id, state, "" if word is None else word["health"])


def parse_event(said: Mapping[str, Any]) -> ContainerEvent | None:
    """A line of `GET /events`; None where it is not about a container, or of an unknown shape: it
    is no more than a hint.

    Read from Type, Action and Actor alone: Engine 29 drops the rest.
    """
    try:
        return _event(said)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None


def _event(said: Mapping[str, Any]) -> ContainerEvent | None:
    if said.get("Type") != "container":
        return None
    actor = said.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    action = str(said.get("Action") or "")
    exit_code = str(attributes.get("exitCode", ""))
    return ContainerEvent(
        action=action.partition(":")[0],  # "health_status: healthy"
        container_id=str(actor.get("ID") or ""),
        name=str(attributes.get("name") or ""),
        old_name=str(attributes.get("oldName") or "").removeprefix("/"),
        at_us=int(said.get("timeNano") or 0) // 1000,
        exit_code=int(exit_code) if exit_code.isdecimal() else None,
    )


def exited(exit_code: int | None) -> str:
    """How a container's end is told to people, here and in an inspection alike."""
    return "exited" if exit_code is None else f"exited ({exit_code})"


def settings_digest(inspected: Mapping[str, Any]) -> str:
    """Equal for two containers made by the same `docker create` line, on whatever engines.

    So there is nothing in it that an engine makes up: ids, times, the host name, generated names
    of volumes, defaults of the daemon (log driver, runtime, cgroups). Labels are out too: tools
    note in them when and where they made a container. The image has a digest of its own.
    """
    config = inspected.get("Config") or {}
    host = inspected.get("HostConfig") or {}
    settings = {
        "command": [config.get("Entrypoint"), config.get("Cmd")],
        "environment": sorted(config.get("Env") or ()),
        "user": config.get("User"),
        "folder": config.get("WorkingDir"),
        "stop": [config.get("StopSignal"), config.get("StopTimeout")],
        "health": config.get("Healthcheck"),
        "mounts": sorted(_mount(mount) for mount in inspected.get("Mounts") or ()),
        "tmpfs": host.get("Tmpfs"),
        "network": _mode(host.get("NetworkMode")),
        "processes": _mode(host.get("PidMode")),
        "ports": host.get("PortBindings"),
        "hosts": sorted(host.get("ExtraHosts") or ()),
        "privileged": host.get("Privileged"),
        "capabilities": [_capabilities(host.get("CapAdd")), _capabilities(host.get("CapDrop"))],
        "devices": host.get("Devices"),
        "read_only": host.get("ReadonlyRootfs"),
        "memory": host.get("Memory"),
        "cpus": host.get("NanoCpus"),
    }
    text = json.dumps(_without_nothing(settings), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _detail(status: str, health: str, exit_code: int, error: str, oom_killed: bool) -> str:
    match status:
        case "running" if health:
            return f"running (health: {health})" if health == "starting" else f"running ({health})"
        case "created" if error:
            return f"created, start failed: {error}"
        case "exited":
            killed = ", OOM killed" if oom_killed else ""
            return exited(exit_code) + killed + (f": {error}" if error else "")
        case "restarting":
            return f"restarting ({exit_code})"
        case _:
            return status


def _stop_timeout_s(told: Any) -> float | None:
    """StopTimeout: absent means the engine's own, -1 no end."""
    if told is None:
        return ENGINE_STOP_TIMEOUT_S
    return None if int(told) < 0 else float(told)


def _microseconds(moment: str) -> int:
    """An RFC 3339 moment since 1970; 0 for "never" (year 1) and for what is none."""
    try:
        return max(0, (datetime.fromisoformat(moment) - EPOCH) // timedelta(microseconds=1))
    except (ValueError, TypeError):
        return 0


def _mount(mount: Mapping[str, Any]) -> list[str]:
    """What a mount must have in common on both hosts.

    A volume's folder is its engine's affair, and the name of an anonymous one means nothing.
    """
    kind = str(mount.get("Type") or "")
    source = str(mount.get("Source") or "") if kind == "bind" else str(mount.get("Name") or "")
    source = "" if LOOKS_LIKE_AN_ID.fullmatch(source) else source
    return [str(mount.get("Destination") or ""), kind, source, "rw" if mount.get("RW") else "ro"]


def _mode(mode: Any) -> str:
    """`container:ID` is some container's; "default" is what older engines call "bridge"."""
    text = LOOKS_LIKE_AN_ID.sub("ID", str(mode or ""))
    return "bridge" if text == "default" else text


def _capabilities(names: Any) -> list[str]:
    return sorted(str(name).upper().removeprefix("CAP_") for name in names or ())


def _without_nothing(value: Any) -> Any:
    """Engines differ in how they say nothing: null, an empty list, zero, or leaving it out."""
    if isinstance(value, Mapping):
        cleaned = {key: _without_nothing(inner) for key, inner in value.items()}
        return {key: inner for key, inner in cleaned.items() if inner not in (None, "", 0, [], {})}
    if isinstance(value, list):
        return [_without_nothing(inner) for inner in value]
    return value
