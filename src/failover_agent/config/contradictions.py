"""Settings that cannot be meant together, and those that this version has no use for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from failover_agent.config import values
from failover_agent.config.files import SHORTEST_SECRET, making_of
from failover_agent.config.mistakes import EXAMPLES, Source
from failover_agent.config.values import shown
from failover_agent.core.policy import Role
from failover_agent.errors import SecretError
from failover_agent.protocol.wire import MOST_CONTAINERS

if TYPE_CHECKING:
    from failover_agent.config import Keys

_TAKE_OUT = "Take it out."


def find_contradictions(source: Source, keys: Keys) -> None:
    """Complain of what cannot be meant together, and of what this version does not have."""
    _timing(source, keys)
    _containers(source, keys)
    for role in (Role.PRIMARY, Role.BACKUP):
        _node(source, keys, role)
    _both_nodes(source, keys)
    _security(source, keys)
    _later(source, keys)


def _timing(source: Source, keys: Keys) -> None:
    timeout, interval = keys.heartbeat_timeout, keys.heartbeat_interval
    if source.is_fine(("heartbeat_timeout",), ("heartbeat_interval",)) and timeout < 2 * interval:
        source.add(
            ("heartbeat_timeout",),
            f"({timeout}) must be at least 2 x heartbeat_interval ({interval}) = {2 * interval}, "
            "or one lost message looks like a dead peer",
            f"Raise it to {2 * interval:g} or more, or lower heartbeat_interval to "
            f"{timeout / 2:g} or less.",
        )


def _containers(source: Source, keys: Keys) -> None:
    key = ("containers",)
    if not source.is_fine(key):
        return
    names = keys.containers
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names:
        source.add(
            key,
            "names no container" if source.has(key) else "is missing",
            f"Write those of the service in the order of their start: containers = "
            f"{EXAMPLES['containers']}. `docker ps -a` shows them.",
        )
    elif twice:
        source.add(
            key,
            f"({shown(names)}) names {', '.join(twice)} more than once",
            "Name each container once, where it belongs in the order of the start.",
        )
    elif len(names) > MOST_CONTAINERS:
        source.add(
            key,
            f"names {len(names)} containers, and a heartbeat has room for {MOST_CONTAINERS}",
            f"Name {MOST_CONTAINERS} or fewer: the ones that must move together.",
        )


def _node(source: Source, keys: Keys, role: Role) -> None:
    other = Role.BACKUP if role is Role.PRIMARY else Role.PRIMARY
    key, table = (role.value, "endpoint"), keys.table(role)
    if not source.is_fine(key):
        return
    if len(table.endpoint) > 1:
        source.add(
            key,
            f"({shown(table.endpoint)}) is a list of {len(table.endpoint)}, and more than one way "
            "to the other node is not in this version yet",
            f"Name one: {source.assignment(key, shown(table.endpoint[0]))}",
        )
    elif not table.endpoint:
        source.add(
            key,
            "is missing: it is the address of the other agent",
            f"Below [{role}], where does the {other} listen? endpoint = "
            f'"http://ADDRESS-OF-THE-{other.upper()}:{keys.table(other).port}"',
        )
    elif source.is_fine((role.value, "port"), (role.value, "bind")) and values.is_own_address(
        values.parse_endpoint(table.endpoint[0]), table.bind, table.port
    ):
        source.add(
            key,
            f"({table.endpoint[0]}) is where the {role} itself listens (bind {table.bind}, port "
            f"{table.port})",
            f"Write the address of the other agent, the {other}.",
        )


def _both_nodes(source: Source, keys: Keys) -> None:
    first, second = ("primary", "endpoint"), ("backup", "endpoint")
    if source.is_fine(first, second) and keys.primary.endpoint == keys.backup.endpoint:
        source.add(
            second,
            f"({keys.backup.endpoint[0]}) is the same as that of [primary], and so one of the two "
            "nodes would talk to itself",
            "Each names the OTHER agent: below [primary] the address of the backup, below [backup] "
            "that of the primary.",
        )


def _security(source: Source, keys: Keys) -> None:
    security = keys.security
    names = ("secret_file", "secret", "allow_unauthenticated")
    if not source.is_fine(*(("security", name) for name in names)):
        return
    given = [name for name in names if getattr(security, name) not in {None, False}]
    if not given:
        file = source.path.parent / "secret"
        source.mistakes.append(
            SecretError(
                where=str(source.path),
                what="there is no secret, and without one anybody on the network could move the "
                "service",
                todo=f"{making_of(file)} makes one; name it below [security]: secret_file = "
                f'"{file}"',
            )
        )
    elif len(given) > 1:
        named = " and ".join(source.name(("security", name)) for name in given)
        source.mistakes.append(
            SecretError(
                where=str(source.path),
                what=f"{named} exclude each other",
                todo=f"Leave one of them, best {given[0]}.",
            )
        )
    elif security.secret is not None and len(security.secret.strip().encode()) < SHORTEST_SECRET:
        source.add(
            ("security", "secret"),
            f"has {len(security.secret.strip().encode())} bytes, and fewer than "
            f"{SHORTEST_SECRET} can be guessed",
            "Take what `openssl rand -hex 32` prints.",
            SecretError,
        )


def _later(source: Source, keys: Keys) -> None:
    """A setting that is taken and does nothing would be a lie."""
    if keys.arbiter is not None:
        source.add(
            ("arbiter",),
            "is not in this version yet: a pair runs without a third voter, and partition_policy "
            "says what it does when the wire between the two is cut",
            "Take the table out.",
        )
    if keys.witness is not None:
        source.add(
            ("witness",), "is not in this version yet: there are two nodes", "Take the table out."
        )
    if keys.fence_command is not None:
        source.add(
            ("fence_command",),
            "is not in this version yet: no command is run before a takeover",
            _TAKE_OUT,
        )
    if keys.mode != "act":
        source.add(
            ("mode",),
            f"({shown(keys.mode)}) is not in this version yet: an agent that runs also acts",
            'Take it out, or write mode = "act".',
        )
    if keys.failback != "manual" and source.is_fine(("failback",)):
        source.add(
            ("failback",),
            f"({shown(keys.failback)}) is not in this version yet: the service stays where it is "
            "until that node fails or its agent is stopped",
            'Take it out, or write failback = "manual".',
        )
    no_lease = "it bounds a lease, which needs an arbiter"
    for name, usual, because in (
        ("failback_delay", 300.0, 'there is no failback but "manual"'),
        ("fence_timeout", 30.0, "there is no fence_command"),
        ("stop_budget", keys.usual_stop_budget_s, no_lease),
        ("kill_budget", keys.usual_kill_budget_s, no_lease),
    ):
        value = getattr(keys, name)
        if source.is_fine((name,)) and value not in {None, usual}:
            source.add((name,), f"({value}) changes nothing in this version: {because}", _TAKE_OUT)
