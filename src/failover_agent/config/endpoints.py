"""Where the other agent listens: one address, or a list of ways to it.

Each is a path of its own: messages go over all of them side by side, and the first answer counts.
"""

from __future__ import annotations

from failover_agent.config import values
from failover_agent.config.keys import Keys
from failover_agent.config.mistakes import Key, Source
from failover_agent.config.settings import MEMBERS
from failover_agent.config.values import shown
from failover_agent.core.policy import Role
from failover_agent.protocol.envelope import MOST_PATHS


def find_contradictions(source: Source, keys: Keys) -> None:
    """Complain of what cannot be meant in the endpoints of the two nodes."""
    for role in MEMBERS:
        _of_node(source, keys, role)
    _of_both(source, keys)


def _of_node(source: Source, keys: Keys, role: Role) -> None:
    other = Role.BACKUP if role is Role.PRIMARY else Role.PRIMARY
    key, table = (role.value, "endpoint"), keys.table(role)
    if not source.is_fine(key):
        return
    if not table.endpoint:
        source.add(
            key,
            "is missing: it is the address of the other agent",
            f"Below [{role}], where does the {other} listen? endpoint = "
            f'"http://ADDRESS-OF-THE-{other.upper()}:{keys.table(other).port}"',
        )
        return
    if complain_of_list(source, key, table.endpoint):
        return
    if not source.is_fine((role.value, "port"), (role.value, "bind")):
        return
    for each in table.endpoint:
        if values.is_own_address(values.address_of(each), table.bind, table.port):
            source.add(
                key,
                f"({each}) is where the {role} itself listens (bind {table.bind}, port "
                f"{table.port})",
                f"Write the address of the other agent, the {other}.",
            )
            return


def complain_of_list(source: Source, key: Key, endpoints: tuple[str, ...]) -> bool:
    """Complain of too many paths, and of one that is there twice; did it?"""
    twice = sorted({each for each in endpoints if endpoints.count(each) > 1})
    if twice:
        source.add(
            key,
            f"({shown(endpoints)}) names {', '.join(twice)} more than once, and the same way twice "
            "is no second one",
            "Name each way once: the address on the network, and that on the cable.",
        )
    elif len(endpoints) > MOST_PATHS:
        source.add(
            key,
            f"names {len(endpoints)} addresses, and there can be {MOST_PATHS} paths",
            f"Name {MOST_PATHS} or fewer; two on cables of their own are enough.",
        )
    return bool(twice) or len(endpoints) > MOST_PATHS


def _of_both(source: Source, keys: Keys) -> None:
    first, second = ("primary", "endpoint"), ("backup", "endpoint")
    if not source.is_fine(first, second):
        return
    shared = [each for each in keys.backup.endpoint if each in keys.primary.endpoint]
    if shared:
        source.add(
            second,
            f"({shared[0]}) is the same as that of [primary], and so one of the two nodes would "
            "talk to itself",
            "Each names the OTHER agent: below [primary] the address of the backup, below [backup] "
            "that of the primary.",
        )
