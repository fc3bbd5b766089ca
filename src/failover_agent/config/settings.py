"""What the rest of the program is handed: plain and frozen, without pydantic."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from failover_agent.core.policy import Policy, Role

if TYPE_CHECKING:
    from failover_agent.config import Keys

MEMBERS = (Role.PRIMARY, Role.BACKUP)


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the pair, with the defaults that depend on the cluster filled in."""

    role: Role
    bind: str
    port: int
    endpoint: str
    state_dir: Path
    control_socket: Path

    @property
    def peer(self) -> Role:
        """The role at the other end of `endpoint`."""
        return Role.BACKUP if self.role is Role.PRIMARY else Role.PRIMARY


@dataclass(frozen=True, slots=True)
class Configuration:
    """The file and the environment, the same for every node. No secret has been read yet."""

    path: Path
    keys: Keys
    docker_host: str

    def node(self, role: Role) -> Node:
        """What `role` has for itself."""
        table = self.keys.table(role)
        cluster = self.keys.cluster
        return Node(
            role=role,
            bind=table.bind,
            port=table.port,
            endpoint=table.endpoint[0],
            state_dir=table.state_dir or Path("/var/lib/failover-agent", cluster),
            control_socket=table.control_socket or Path(f"/run/failover-agent/{cluster}.sock"),
        )

    def policy(self, role: Role) -> Policy:
        """What the core of `role` decides by; nothing in it is secret."""
        keys = self.keys
        return Policy(
            role=role,
            containers=keys.containers,
            members=MEMBERS,
            heartbeat_interval_s=keys.heartbeat_interval,
            check_heartbeat_interval_s=keys.check_heartbeat_interval,
            heartbeat_timeout_s=keys.heartbeat_timeout,
            startup_grace_period_s=keys.startup_grace_period,
            restart_grace_period_s=keys.restart_grace_period,
            stop_budget_s=keys.stop_budget_s,
            kill_budget_s=keys.kill_budget_s,
            partition_policy=keys.partition_policy,
            restart_attempts=keys.restart_attempts,
            restart_policy=keys.restart_policy,
            max_failovers=keys.max_failovers,
            failover_window_s=keys.failover_window,
            on_engine_lost=keys.on_engine_lost,
            on_stop=keys.on_stop,
            lone_start=keys.lone_start,
            fingerprint=_fingerprint(keys),
            settings=_equal_on_both(keys),
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration of one node. `secret` is None where messages need not be signed."""

    role: Role
    configuration: Configuration
    secret: bytes | None = field(repr=False)

    @property
    def path(self) -> Path:
        """The file it came from."""
        return self.configuration.path

    @property
    def keys(self) -> Keys:
        """Every key, under its own name."""
        return self.configuration.keys

    @property
    def node(self) -> Node:
        """This node."""
        return self.configuration.node(self.role)

    @property
    def docker_host(self) -> str:
        """Where the engine listens: docker.host, else DOCKER_HOST, else the usual socket."""
        return self.configuration.docker_host

    def policy(self, role: Role | None = None) -> Policy:
        """What the core of `role` decides by; of this node's, if none is named."""
        return self.configuration.policy(role or self.role)


_EQUAL = (
    "containers heartbeat_interval check_heartbeat_interval heartbeat_timeout startup_grace_period "
    "restart_grace_period lone_start on_stop on_engine_lost restart_attempts restart_policy "
    "max_failovers failover_window"
).split()


def _fingerprint(keys: Keys) -> str:
    """What decides quorum (V9): nodes whose fingerprints differ are no pair."""
    decisive = {
        "cluster": keys.cluster,
        "members": MEMBERS,
        "arbiter": None,
        "partition_policy": keys.partition_policy,
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def _equal_on_both(keys: Keys) -> tuple[tuple[str, str], ...]:
    return tuple((name, _plain(getattr(keys, name))) for name in _EQUAL)


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
