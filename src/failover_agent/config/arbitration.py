"""The third voter and the lease: what cannot be meant in [arbiter], [witness] and the timings.

A lease exists only with an arbiter (design, section 4).
"""

from __future__ import annotations

import math

from failover_agent.config import values
from failover_agent.config.endpoints import complain_of_list
from failover_agent.config.keys import SHORTEST_INTERVAL_S, Keys
from failover_agent.config.mistakes import EXAMPLES, Key, Source
from failover_agent.config.settings import MEMBERS
from failover_agent.config.values import USUAL_PORTS, ArbiterKind, shown
from failover_agent.core.policy import Role
from failover_agent.core.voter import CLOCK_DRIFT
from failover_agent.errors import SecretError

_ENDPOINT: Key = ("arbiter", "endpoint")
_ETCD_ALONE = ("username", "password_file", "password", "ca_file", "cert_file", "key_file")


def find_contradictions(source: Source, keys: Keys) -> None:
    """Complain of what cannot be meant."""
    kind = keys.arbiter.kind
    if kind is not None:
        _endpoints(source, keys, kind)
        _places(source, keys)
        _lease(source, keys)
        _kill_budget(source, keys)
    elif source.has(("arbiter",)) and source.is_fine(("arbiter", "kind")):
        source.add(
            ("arbiter", "kind"),
            "is missing: it says what the third voter is",
            'Write kind = "witness", which is this same program, or kind = "etcd".',
        )
    elif source.is_fine(("arbiter", "kind")):
        _no_lease(source, keys)
    if kind is ArbiterKind.ETCD:
        _access_to_etcd(source, keys)
    if kind is ArbiterKind.WITNESS:
        _witness(source, keys)


# --- where it is ----------------------------------------------------------------------------------


def _endpoints(source: Source, keys: Keys, kind: ArbiterKind) -> None:
    endpoints = keys.arbiter.endpoint
    if not source.is_fine(_ENDPOINT):
        return
    if not endpoints:
        where = "the witness listens" if kind is ArbiterKind.WITNESS else "etcd listens for clients"
        source.add(
            _ENDPOINT,
            "is missing: it is the address of the third voter",
            f"Where {where}, as both nodes reach it: "
            f'endpoint = "http://ADDRESS:{USUAL_PORTS[kind]}"',
        )
    elif kind is ArbiterKind.WITNESS:
        complain_of_list(source, _ENDPOINT, endpoints)


def _places(source: Source, keys: Keys) -> None:
    """The third voter must not die with a node, and must be the same one for both.

    The members of an etcd may be anywhere, so long as most are elsewhere; a list of ways to a
    witness leads to one host.
    """
    node_keys = [(role.value, name) for role in MEMBERS for name in ("endpoint", "port", "bind")]
    if not source.is_fine(_ENDPOINT, *node_keys):
        return
    hosts = [values.address_of(each).host for each in keys.arbiter.endpoint]
    of_nodes = {role: _hosts_of(keys, role) for role in MEMBERS}
    is_one_host = keys.arbiter.kind is ArbiterKind.WITNESS
    is_local = (any if is_one_host else all)(map(values.is_loopback, hosts))
    if hosts and is_local:
        # All on one machine, to try it out.
        if all(any(map(values.is_loopback, each)) for each in of_nodes.values()):
            _same_port(source, keys)
            return
        source.add(
            _ENDPOINT,
            f"({shown(keys.arbiter.endpoint)}) is every host's own address, so each node would ask "
            "another arbiter, and both could win",
            "Write the address at which both nodes reach the one arbiter.",
        )
        return
    for role, here in of_nodes.items():
        shared = [host for host in hosts if host in here]
        if not shared or (not is_one_host and 2 * len(shared) < len(hosts)):
            continue
        source.add(
            _ENDPOINT,
            f"({shown(keys.arbiter.endpoint)}) is on the host of the {role} ({shared[0]}): when "
            "that host dies two of the three votes are gone, and nothing takes over",
            _elsewhere(keys),
        )
        return


def _elsewhere(keys: Keys) -> str:
    if keys.arbiter.kind is ArbiterKind.ETCD:
        return "Name members of etcd on other hosts too, so that each host has fewer than half."
    return "Run the witness on a third host; a small one will do."


def _same_port(source: Source, keys: Keys) -> None:
    """On one machine: at least the ports differ."""
    at_nodes = {values.address_of(each).port for role in MEMBERS for each in _ends(keys, role)}
    for each in keys.arbiter.endpoint:
        if values.address_of(each).port in at_nodes:
            source.add(_ENDPOINT, f"({each}) is where a node listens", "Choose another port.")
            return


def _hosts_of(keys: Keys, role: Role) -> set[str]:
    """The addresses under which a node is known: where the other one calls it, and its own bind."""
    called = {values.address_of(each).host for each in _ends(keys, role)}
    return called | {keys.table(role).bind.lower()}


def _ends(keys: Keys, role: Role) -> tuple[str, ...]:
    """Where the other node calls `role`."""
    return keys.table(Role.BACKUP if role is Role.PRIMARY else Role.PRIMARY).endpoint


# --- who may ask it -------------------------------------------------------------------------------


def _access_to_etcd(source: Source, keys: Keys) -> None:
    arbiter = keys.arbiter
    if not source.is_fine(_ENDPOINT, *(("arbiter", name) for name in _ETCD_ALONE)):
        return
    has_password = arbiter.password is not None or arbiter.password_file is not None
    if arbiter.password is not None and arbiter.password_file is not None:
        source.add(
            ("arbiter", "password"),
            "and password_file exclude each other",
            "Leave one of them, best password_file.",
            SecretError,
        )
    elif has_password and arbiter.username is None:
        source.add(
            ("arbiter", "username"),
            "is missing: there is a password, and nobody whose it is",
            'Write username = "...", as etcd knows it, or take the password out.',
        )
    elif arbiter.username is not None and not has_password:
        source.add(
            ("arbiter", "username"),
            f"({shown(arbiter.username)}) has no password",
            f"Name a file with it: password_file = {EXAMPLES['password_file']}",
        )
    if arbiter.key_file is not None and arbiter.cert_file is None:
        source.add(
            ("arbiter", "key_file"),
            "is the key of no certificate",
            f"Name the certificate too: cert_file = {EXAMPLES['cert_file']}",
        )
    certificates = [n for n in ("ca_file", "cert_file") if getattr(arbiter, n) is not None]
    if certificates and not any(each.startswith("https:") for each in arbiter.endpoint):
        source.add(
            ("arbiter", certificates[0]),
            "changes nothing: no endpoint begins with https://",
            "Write the endpoint with https://, or take the file out.",
        )


def _witness(source: Source, keys: Keys) -> None:
    for name in _ETCD_ALONE:
        key = ("arbiter", name)
        if source.is_fine(key) and getattr(keys.arbiter, name) is not None:
            source.add(
                key,
                "is for an etcd: a witness knows its nodes by the secret in [security]",
                "Take it out.",
            )
    clusters = keys.witness.clusters
    if source.is_fine(("witness", "clusters")) and clusters and keys.cluster not in clusters:
        source.add(
            ("witness", "clusters"),
            f"names {', '.join(sorted(clusters))}, and not the pair of this file, {keys.cluster}",
            f"Add [witness.clusters.{keys.cluster}], or the witness would turn its nodes away.",
        )


# --- how long -------------------------------------------------------------------------------------


def _lease(source: Source, keys: Keys) -> None:
    """T(1-d) must leave room for three intervals before the stop begins (section 4, Timing)."""
    timeout, interval, stop = keys.heartbeat_timeout, keys.heartbeat_interval, keys.stop_budget_s
    names = (("heartbeat_timeout",), ("heartbeat_interval",), ("stop_budget",))
    lease_s = timeout * (1 - CLOCK_DRIFT)
    if not source.is_fine(*names) or lease_s >= stop + 3 * interval:
        return
    least = least_timeout_s(stop, interval)
    if keys.stop_budget is None:
        # The default grows with the timeout, from half a second on.
        least = max(least_timeout_s(0.5, interval), 3 * interval / (1 - CLOCK_DRIFT - 0.25))
    ways = [f"Raise it to {_up(least):g} or more"]
    most = _down((lease_s - stop) / 3)
    if most >= SHORTEST_INTERVAL_S:
        ways.append(f"lower heartbeat_interval to {most:g} or less")
    if keys.stop_budget is not None and _down(lease_s - 3 * interval) > 2 * keys.kill_budget_s:
        ways.append(f"lower stop_budget to {_down(lease_s - 3 * interval):g} or less")
    source.add(
        ("heartbeat_timeout",),
        f"({timeout:g}) x {1 - CLOCK_DRIFT:g} = {lease_s:g} must be at least stop_budget ({stop:g}"
        f"{source.default_note(('stop_budget',))}) + 3 x heartbeat_interval ({interval:g}) = "
        f"{stop + 3 * interval:g}, or two lost messages would stop the service",
        f"{', or '.join(ways)}.",
    )


def least_timeout_s(stop_budget_s: float, interval_s: float) -> float:
    """The shortest heartbeat_timeout for a lease with these two."""
    return (stop_budget_s + 3 * interval_s) / (1 - CLOCK_DRIFT)


def _kill_budget(source: Source, keys: Keys) -> None:
    stop, kill = keys.stop_budget_s, keys.kill_budget_s
    names = (("heartbeat_timeout",), ("stop_budget",), ("kill_budget",))
    if not source.is_fine(*names) or kill <= stop / 2:
        return
    source.add(
        ("kill_budget",),
        f"({kill:g}{source.default_note(('kill_budget',))}) must be at most half of stop_budget "
        f"({stop:g}{source.default_note(('stop_budget',))}): the containers need time to stop "
        "before they are killed",
        f"Lower kill_budget to {_down(stop / 2):g} or less, or raise stop_budget to "
        f"{_up(2 * kill):g} or more.",
    )


def _no_lease(source: Source, keys: Keys) -> None:
    """A setting that is taken and does nothing would be a lie."""
    for name, usual in (
        ("stop_budget", keys.usual_stop_budget_s),
        ("kill_budget", keys.usual_kill_budget_s),
    ):
        value = getattr(keys, name)
        if source.is_fine((name,)) and value not in {None, usual}:
            source.add(
                (name,),
                f"({value}) changes nothing: it bounds a lease, and there is none without an "
                "[arbiter]",
                "Take it out, or add an [arbiter].",
            )


def _up(number: float) -> float:
    """The next number with two digits behind the point that is not below."""
    return math.ceil(round(number * 100, 6)) / 100


def _down(number: float) -> float:
    """The next number with two digits behind the point that is not above."""
    return math.floor(round(number * 100, 6)) / 100
