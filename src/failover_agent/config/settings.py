"""What the rest of the program is handed: plain and frozen, without pydantic."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from failover_agent.config import values
from failover_agent.config.values import ArbiterKind
from failover_agent.core.policy import Policy, Role
from failover_agent.guard.engine import NO_FILES, TlsFiles

if TYPE_CHECKING:
    from failover_agent.config.keys import Keys

MEMBERS = (Role.PRIMARY, Role.BACKUP)


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the pair, or the witness, with the defaults that depend on the cluster filled in.

    `endpoints` are the ways to the other node, the usual one first. A witness speaks to nobody, and
    has none.
    """

    role: Role
    bind: str
    port: int
    endpoints: tuple[str, ...]
    state_dir: Path
    control_socket: Path

    @property
    def peer(self) -> Role:
        """The role at the other end of `endpoints`."""
        return Role.BACKUP if self.role is Role.PRIMARY else Role.PRIMARY

    @property
    def peer_host(self) -> str:
        """The host in the first of `endpoints`, without brackets."""
        return values.address_of(self.endpoints[0]).host

    @property
    def lease_file(self) -> Path:
        """Where the guard keeps the end of the lease: beside the control socket, on tmpfs."""
        beside = self.control_socket.with_suffix(".lease")
        if beside == self.control_socket:
            return beside.with_name(f"{beside.name}.lease")
        return beside


@dataclass(frozen=True, slots=True)
class Arbiter:
    """The third voter, as a node reaches it. The files are readable, and fit each other.

    An etcd has any number of `endpoints`, all of one cluster; those of a witness are ways to it.
    """

    kind: ArbiterKind
    endpoints: tuple[str, ...]
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Fence:
    """What makes sure that the peer cannot run the service: a program with its arguments."""

    command: tuple[str, ...]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class WitnessNode:
    """What the witness has for itself, and whom it serves.

    `clusters`: each by its name, with the secret of its pair, its own or the common one; None
    where messages need not be signed.
    """

    bind: str
    port: int
    state_dir: Path
    control_socket: Path
    clusters: tuple[tuple[str, bytes | None], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Configuration:
    """The file and the environment, the same for every node. No secret has been read yet."""

    path: Path
    keys: Keys
    docker_host: str
    docker_files: TlsFiles = NO_FILES

    @property
    def roles(self) -> tuple[Role, ...]:
        """Whom this file is for: the members it has addresses for, and the witness, if any."""
        members = tuple(role for role in MEMBERS if self.keys.table(role).endpoint)
        return (*members, Role.WITNESS) if self.keys.has_witness else members

    def node(self, role: Role) -> Node:
        """What `role` has for itself."""
        cluster = self.keys.cluster
        if role is Role.WITNESS:
            witness = self.keys.witness
            return Node(
                role=role,
                bind=witness.bind,
                port=witness.port,
                endpoints=(),
                state_dir=witness.state_dir,
                control_socket=witness.control_socket,
            )
        table = self.keys.table(role)
        return Node(
            role=role,
            bind=table.bind,
            port=table.port,
            endpoints=table.endpoint,
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
            arbiter=None if keys.arbiter.kind is None else Role.WITNESS,
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
            has_fence=bool(keys.fence_command),
            fingerprint=_fingerprint(keys),
            settings=_equal_on_both(keys),
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration of one node, with what it keeps secret.

    `secret` is None where messages need not be signed. `password` is that of the arbiter;
    `clusters` are those that a witness serves, as in `WitnessNode`, and empty on a node.
    """

    role: Role
    configuration: Configuration
    secret: bytes | None = field(repr=False)
    password: str | None = field(default=None, repr=False)
    clusters: tuple[tuple[str, bytes | None], ...] = field(default=(), repr=False)

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
    def witness(self) -> WitnessNode:
        """This witness."""
        node = self.configuration.node(Role.WITNESS)
        return WitnessNode(
            bind=node.bind,
            port=node.port,
            state_dir=node.state_dir,
            control_socket=node.control_socket,
            clusters=self.clusters,
        )

    @property
    def arbiter(self) -> Arbiter | None:
        """The third voter; None in a plain pair. Names of files count from the configuration's."""
        keys, folder = self.keys.arbiter, self.path.parent
        if keys.kind is None:
            return None
        return Arbiter(
            kind=keys.kind,
            endpoints=keys.endpoint,
            username=keys.username,
            password=self.password,
            ca_file=keys.ca_file and folder / keys.ca_file,
            cert_file=keys.cert_file and folder / keys.cert_file,
            key_file=keys.key_file and folder / keys.key_file,
        )

    @property
    def fence(self) -> Fence | None:
        """The fence_command; None without one."""
        keys = self.keys
        return Fence(keys.fence_command, keys.fence_timeout) if keys.fence_command else None

    @property
    def docker_host(self) -> str:
        """Where the engine listens: docker.host, else DOCKER_HOST, else the usual socket.

        unix:///PATH, tcp://HOST:PORT, and with TLS https://HOST:PORT.
        """
        return self.configuration.docker_host

    @property
    def docker_files(self) -> TlsFiles:
        """With TLS: who signed the engine's certificate, and what is shown to it."""
        return self.configuration.docker_files

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
    arbiter = keys.arbiter
    decisive = {
        "cluster": keys.cluster,
        "members": MEMBERS,
        "arbiter": None if arbiter.kind is None else [arbiter.kind, *sorted(arbiter.endpoint)],
        "partition_policy": keys.partition_policy,
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def _equal_on_both(keys: Keys) -> tuple[tuple[str, str], ...]:
    """What should be the same on both nodes; the command itself is each node's own affair."""
    equal = [(name, _plain(getattr(keys, name))) for name in _EQUAL]
    if keys.arbiter.kind is not None:
        equal.append(("stop_budget", _plain(keys.stop_budget_s)))
        equal.append(("kill_budget", _plain(keys.kill_budget_s)))
    equal.append(("fence_command", "set" if keys.fence_command else "none"))
    return tuple(equal)


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
