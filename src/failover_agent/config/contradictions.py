"""Settings that cannot be meant together, and those that this version has no use for.

What concerns the third voter and the lease is in `arbitration`.
"""

from __future__ import annotations

from failover_agent.config import arbitration, endpoints
from failover_agent.config.files import SHORTEST_SECRET, making_of
from failover_agent.config.keys import Keys
from failover_agent.config.mistakes import EXAMPLES, Source
from failover_agent.config.settings import MEMBERS
from failover_agent.config.values import shown
from failover_agent.core.policy import Role
from failover_agent.errors import SecretError
from failover_agent.protocol.wire import LONGEST_NAMES, MOST_CONTAINERS


def find_contradictions(source: Source, keys: Keys, role: Role | None) -> None:
    """Complain of what cannot be meant together, and of what this version does not have.

    `role` None: nobody said for which one the configuration is read.
    """
    arbitration.find_contradictions(source, keys)
    if keys.arbiter.kind is None:
        _timing(source, keys)
    if not _is_for_a_witness_alone(source, role):
        _containers(source, keys)
        endpoints.find_contradictions(source, keys)
    _security(source, keys, role)
    _later(source, keys)


def _is_for_a_witness_alone(source: Source, role: Role | None) -> bool:
    """Is nothing needed here that only the nodes of a pair use?"""
    of_nodes = any(source.has((key,)) for key in ("containers", *MEMBERS))
    return role is Role.WITNESS or (role is None and source.has(("witness",)) and not of_nodes)


def _timing(source: Source, keys: Keys) -> None:
    """Without a lease."""
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
            f"names {len(names)} containers, and a message has room for {MOST_CONTAINERS}",
            f"Name {MOST_CONTAINERS} or fewer: the ones that must move together.",
        )
    elif (length := sum(map(len, names))) > LONGEST_NAMES:
        source.add(
            key,
            f"has names of {length} letters together, and a message has room for {LONGEST_NAMES}",
            "Give the containers shorter names.",
        )


def _security(source: Source, keys: Keys, role: Role | None) -> None:
    security = keys.security
    names = ("secret_file", "secret", "allow_unauthenticated")
    if not source.is_fine(*(("security", name) for name in names)):
        return
    given = [name for name in names if getattr(security, name) not in {None, False}]
    if not given and not (_is_for_a_witness_alone(source, role) and _all_have_their_own(keys)):
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


def _all_have_their_own(keys: Keys) -> bool:
    """Has each pair that a witness serves a secret of its own?"""
    clusters = keys.witness.clusters.values()
    return bool(clusters) and all(own.secret_file is not None for own in clusters)


def _later(source: Source, keys: Keys) -> None:
    """A setting that is taken and does nothing would be a lie."""
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
    if keys.failback_delay != 300.0 and source.is_fine(("failback_delay",)):
        source.add(
            ("failback_delay",),
            f"({keys.failback_delay}) changes nothing in this version: there is no failback but "
            '"manual"',
            "Take it out.",
        )
    if (
        not keys.fence_command
        and keys.fence_timeout != 30.0
        and source.is_fine(("fence_command",), ("fence_timeout",))
    ):
        source.add(
            ("fence_timeout",),
            f"({keys.fence_timeout}) changes nothing: there is no fence_command",
            "Take it out.",
        )
