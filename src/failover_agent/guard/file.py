"""The lease file: what a new guard has to know of the one before it (G3).

It lies beside the control socket, on tmpfs: gone after a reboot, and so are the containers. Nothing
here is fsynced, because there is no disk. Beside it lies a lock, held by the guard that writes it:
there is one, whoever else was started.
"""

import fcntl
import json
import math
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from failover_agent.guard.engine import NO_FILES, TlsFiles
from failover_agent.guard.watch import Lease, Target, Watch

SCHEMA = 1
LONGEST_CONFIG = 1_000_000
"""Bytes."""
SUFFIX = ".lease"
USUAL_FOLDER = Path("/run/failover-agent")
USUAL_CONFIG = Path("/etc/failover-agent/config.toml")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose lease it is: what its agent is started with, and the boot of this host."""

    config: str
    role: str
    boot_id: str


@dataclass(frozen=True, slots=True)
class Saved:
    """What is in a lease file. `path` is the file itself; `agent` the process that was heard last,
    by pid and start time.
    """

    path: Path
    agent: tuple[int, str]
    watch: Watch
    docker_host: str
    docker_files: TlsFiles = NO_FILES


def read_owner(config: Path | None, role: str | None, environ: Mapping[str, str]) -> Owner:
    """As the agent will find its configuration and its role. Raises OSError without a boot id."""
    path = config or Path(environ.get("FAILOVER_AGENT_CONFIG") or USUAL_CONFIG)
    chosen = role or environ.get("FAILOVER_AGENT_ROLE", "")
    return Owner(os.path.realpath(path), chosen, BOOT_ID.read_text().strip())


# --- where it is ----------------------------------------------------------------------------------


def expect(owner: Owner, environ: Mapping[str, str]) -> Path | None:
    """Where the agent will say that it is; None where its configuration cannot be read.

    There is no agent yet to ask: so this is a glance at the only two keys that matter. Whatever is
    wrong with the rest, the agent will tell.
    """
    try:
        keys = tomllib.loads(_glance(owner.config))
        prefix = "FAILOVER_AGENT_"
        cluster = environ.get(f"{prefix}CLUSTER") or keys.get("cluster", "default")
        if owner.role == "witness":
            cluster = "witness"
        chosen = environ.get(f"{prefix}{owner.role.upper()}__CONTROL_SOCKET")
        chosen = chosen or keys.get(owner.role, {}).get("control_socket")
        control_socket = Path(chosen) if chosen else USUAL_FOLDER / f"{cluster}.sock"
        return control_socket.with_suffix(SUFFIX)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def _glance(path: str) -> str:
    """What there is to read at once, as far as it can be a configuration: no pipe is waited for,
    and of what has no end a part is enough. Raises OSError, ValueError.
    """
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(opened, "rb") as content:
        return (content.read(LONGEST_CONFIG) or b"").decode("utf-8-sig")


def search(owner: Owner, environ: Mapping[str, str]) -> Path | None:
    """The one that was written for the same configuration and role, where that cannot be read now.

    None where there is no such file, or more than one.
    """
    found = set()
    folders = filter(None, environ.get("RUNTIME_DIRECTORY", "").split(":"))
    for folder in {USUAL_FOLDER, *map(Path, folders)}:
        with suppress(OSError):
            for path in folder.iterdir():
                content = _content(path, owner.boot_id) if path.suffix == SUFFIX else {}
                if (content.get("config"), content.get("role")) == (owner.config, owner.role):
                    found.add(path)
    return found.pop() if len(found) == 1 else None


class Lock:
    """One guard a lease file. Held until the process ends; no child inherits it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: int | None = None

    def take(self) -> bool:
        """False while another guard has it. Raises OSError where there can be no such file.

        The folder is the agent's to make: where there is none, no guard has left anything.
        """
        name = self.path.with_name(f"{self.path.name}.lock")
        opened = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(opened)
            return False
        self._held = opened
        return True

    def give_back(self) -> None:
        """For whoever comes next."""
        if self._held is not None:
            os.close(self._held)
            self._held = None


# --- what is in it --------------------------------------------------------------------------------


def write(saved: Saved, owner: Owner) -> None:
    """Replaces the file, whole. Raises OSError, and the file is as it was."""
    lease, watch = saved.watch.lease, saved.watch
    assert lease is not None, "without a lease there is no lease file"
    is_held = math.isinf(lease.valid_until_s)
    content = {
        "schema": SCHEMA,
        **asdict(owner),
        "docker_host": saved.docker_host,
        "docker_files": asdict(saved.docker_files),
        "agent": saved.agent,
        "heartbeat_timeout_s": watch.heartbeat_timeout_s,
        "kill_budget_s": watch.kill_budget_s,
        "child": watch.child,
        "term": lease.term,
        "names": lease.names,
        "held": is_held,
        "valid_until_s": None if is_held else lease.valid_until_s,
        "targets": [asdict(target) for target in watch.targets],
    }
    temporary = saved.path.with_name(f"{saved.path.name}.new")
    opened = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(opened, "w") as file:
        json.dump(content, file)
    temporary.replace(saved.path)


def read(path: Path, boot_id: str) -> Saved | None:
    """None where there is none, or one of another boot, or nothing that we wrote."""
    content = _content(path, boot_id)
    try:
        pid, started = content["agent"]
        ends = math.inf if content["held"] else _number(content["valid_until_s"])
        watch = Watch(
            heartbeat_timeout_s=_number(content["heartbeat_timeout_s"]),
            kill_budget_s=_number(content["kill_budget_s"]),
            child=int(content["child"]),
            lease=Lease(int(content["term"]), tuple(content["names"]), ends),
            targets=tuple(_targets(content["targets"])),
        )
        files = TlsFiles(**content.get("docker_files", {}))  # an older guard wrote none
        return Saved(path, (int(pid), str(started)), watch, str(content["docker_host"]), files)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _number(value: Any) -> float:
    """Raises ValueError for what no moment can be compared with."""
    if not math.isfinite(number := float(value)):
        raise ValueError(value)
    return number


def _targets(rows: list[dict[str, Any]]) -> Iterator[Target]:
    for row in rows:
        yield Target(**{**row, "folders": tuple(row["folders"])})


def _content(path: Path, boot_id: str) -> dict[str, Any]:
    """Empty where it is not for us."""
    try:
        content = json.loads(path.read_text())
        is_ours = content["schema"] == SCHEMA and content["boot_id"] == boot_id
        return dict(content) if is_ours else {}
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        return {}
