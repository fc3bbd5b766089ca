"""Where the containers run, and whether an agent looks after them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from failover_agent.adapters.record import read_record
from failover_agent.checks.finding import Finding, Level, Status
from failover_agent.config import Settings
from failover_agent.core.policy import Role
from failover_agent.core.state import Phase
from failover_agent.errors import FailoverAgentError

START = "systemctl start failover-agent"
START_WITNESS = "systemctl start failover-agent-witness"

_LEADING = frozenset({Phase.PROMOTING, Phase.ACTIVE, Phase.DEMOTING, Phase.FAILED})


def find(
    settings: Settings, status: Status | None, running: tuple[str, ...], peer: Phase | None
) -> Iterator[Finding]:
    """`running`: the managed containers that run on this host; `peer`: what the other node is."""
    if status is not None:
        yield from of_agent(status)
        return
    is_new = _is_new(settings)
    if running:
        yield _of_running(settings, running, peer, is_new=is_new)
    if is_new:
        yield Finding(Level.HINT, "agent", "none runs on this host yet")
    else:
        is_witness = settings.role is Role.WITNESS
        lost = "the third vote is missing" if is_witness else "nobody looks after it"
        yield Finding(
            Level.WARNING,
            "agent",
            f"none answers on this host, where one has run before: {lost}",
            START_WITNESS if is_witness else START,
        )


def of_agent(status: Status) -> Iterator[Finding]:
    """What the running agent, or witness, says of itself."""
    clusters = status.get("clusters")
    does = status["phase"]
    if clusters is not None:
        does = f"the witness of {len(clusters)} cluster{'s' if len(clusters) != 1 else ''}"
    yield Finding(Level.OK, "agent", f"it runs (version {status['version']}, {does})")
    for alarm in status["alarms"]:
        yield Finding(Level.WARNING, "alarm", f"{alarm['code']}: {alarm['sentence']}")


def _is_new(settings: Settings) -> bool:
    """Has no agent run here? A record that cannot be read is one all the same."""
    state_dir = settings.node.state_dir
    folders = [state_dir / name for name, _ in settings.clusters] or [state_dir]
    try:
        return all(read_record(folder) is None for folder in folders)
    except FailoverAgentError:
        return False


def _of_running(
    settings: Settings, running: tuple[str, ...], peer: Phase | None, *, is_new: bool
) -> Finding:
    names, role = ", ".join(running), settings.node.peer
    if peer in _LEADING:
        stop = f"docker stop {shlex.join(reversed(running))}"
        return Finding(
            Level.ERROR,
            "containers",
            f"{names}: running here without an agent, and the {role} is {peer}: both hosts may "
            "run them",
            f"{START} (it stops them here); or: {stop}",
        )
    if not is_new:
        unheard = "" if peer is not None else f", and the {role} does not answer"
        return Finding(
            Level.WARNING,
            "containers",
            f"{names}: running here without an agent{unheard}: another host may start them too",
            START,
        )
    where_they_run = "a pair that starts for the first time goes on where its containers run"
    if settings.role is Role.PRIMARY:
        return Finding(
            Level.OK, "containers", f"{names}: running, and go on running here: {where_they_run}"
        )
    return Finding(
        Level.HINT,
        "containers",
        f"{names}: running on the backup, without an agent: {where_they_run}; if the primary is "
        "active already, they are stopped here",
    )
