"""What the timings give: the bounds of `core.bounds` for people, and where they are too tight."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from failover_agent.checks.finding import Finding, Level
from failover_agent.checks.measure import Measurements
from failover_agent.config import ArbiterKind, Settings
from failover_agent.config.arbitration import least_timeout_s
from failover_agent.core import bounds
from failover_agent.core.bounds import NEVER_S
from failover_agent.core.policy import LoneStart, Policy

SHORT_TIMEOUT_S = 2.0
DOCKERS_STOP_TIMEOUT_S = 10
"""What a container gets that says nothing itself."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """A small table: `title` says what was measured, a row what and how long."""

    title: str
    rows: tuple[tuple[str, str], ...]


def table(settings: Settings, measurements: Measurements) -> Bounds:
    """The bounds that these timings give."""
    return Bounds(_title(measurements), tuple(_rows(settings, measurements)))


def _title(measurements: Measurements) -> str:
    told = [
        f"{name} {1000 * seconds:.3g} ms"
        for name, seconds in (
            ("round trip", measurements.rtt_s),
            ("save", measurements.fsync_s),
            ("late timer", measurements.wake_s),
        )
        if seconds is not None
    ]
    measured = f", with what was measured now ({', '.join(told)})" if told else ""
    return f"What these timings give{measured}:"


def _rows(settings: Settings, measurements: Measurements) -> Iterator[tuple[str, str]]:
    policy, measured = settings.policy(), measurements.measured
    fence_s = settings.keys.fence_timeout
    arbiter = settings.arbiter
    is_etcd = arbiter is not None and arbiter.kind is ArbiterKind.ETCD
    takeover_s = bounds.takeover_s(policy, measured, fence_timeout_s=fence_s, is_register=is_etcd)
    fenced = f" ({fence_s:g} s of it fence)" if policy.has_fence else ""
    if takeover_s == NEVER_S:
        yield "host dies", "nothing starts before an operator says takeover"
    else:
        yield "host dies", f"start on the other host within {at_most(takeover_s)}{fenced}"
        yield "", f"{policy.heartbeat_interval_s:g} s more for each message lost on the way"
        if is_etcd:
            yield "", "and etcd's own election, where its leader died with the host"
    grace_s = policy.restart_grace_period_s
    yield "container dies", f"moves after {grace_s:g} s (restart_grace_period), and the stop"
    lone_s = bounds.lone_start_s(policy, measured, fence_timeout_s=fence_s)
    yield "boots alone", f"start after {at_most(lone_s)}{_lone_note(policy)}"
    if policy.requires_lease:
        begins_s, ends_s = bounds.stop_window_s(policy)
        yield (
            "active cut off",
            f"begins to stop after {at_least(begins_s)}, has stopped after {at_most(ends_s)}",
        )
    yield "agent away", f"nothing moves for {at_least(bounds.absence_s(policy))}"
    yield "both run", _overlap(policy)


def _lone_note(policy: Policy) -> str:
    if policy.requires_lease:
        return ", if the arbiter answers"
    waits = policy.lone_start is LoneStart.WAIT and not policy.has_fence
    return "; a new backup waits (lone_start)" if waits else ""


def _overlap(policy: Policy) -> str:
    overlap_s = bounds.overlap_s(policy)
    if overlap_s == NEVER_S:
        return "while the wire between them is cut"
    if not policy.requires_lease:
        return "never"
    kill = at_most(policy.kill_budget_s)
    return f"never; agent and guard gone together: as long, plus {kill}"


def find(
    settings: Settings, measurements: Measurements, stop_timeouts_s: Mapping[str, float | None]
) -> Iterator[Finding]:
    """Where the timings are tight. `stop_timeouts_s`: what each container says for itself."""
    policy = settings.policy()
    if policy.requires_lease:
        yield from _of_lease(policy, measurements)
        yield from _of_stop_timeouts(settings, stop_timeouts_s)
    elif policy.heartbeat_timeout_s < SHORT_TIMEOUT_S:
        yield _short(policy, "a host that is busy for so long counts as dead")


def _of_lease(policy: Policy, measurements: Measurements) -> Iterator[Finding]:
    is_short = policy.heartbeat_timeout_s < SHORT_TIMEOUT_S
    fits = bounds.fits(policy, measurements.measured)
    if not measurements.is_complete:
        if is_short:
            yield _short(policy, "and what this network and machine need could not all be measured")
        return
    needs = (
        f"round trip {_ms(measurements.rtt_s)}, save {_ms(measurements.fsync_s)}, late timer "
        f"{_ms(measurements.wake_s)}, kill {_ms(measurements.kill_s)}"
    )
    if not fits:
        yield Finding(
            Level.WARNING,
            "heartbeat_timeout",
            f"{policy.heartbeat_timeout_s:g} s leaves too little room for what was measured here: "
            f"{needs}",
            f"heartbeat_timeout = {max(SHORT_TIMEOUT_S, 2 * policy.heartbeat_timeout_s):g}",
        )
    elif is_short:
        yield Finding(
            Level.OK,
            "heartbeat_timeout",
            f"{policy.heartbeat_timeout_s:g} s is short, and here there is room for it: {needs}",
        )


def _short(policy: Policy, why: str) -> Finding:
    return Finding(
        Level.WARNING,
        "heartbeat_timeout",
        f"{policy.heartbeat_timeout_s:g} s is short: {why}",
        f"heartbeat_timeout = {SHORT_TIMEOUT_S:g}",
    )


def _of_stop_timeouts(settings: Settings, own_s: Mapping[str, float | None]) -> Iterator[Finding]:
    """A self-demotion has stop_budget, whatever the containers ask for (section 7)."""
    policy, fixed_s = settings.policy(), settings.keys.docker.stop_timeout
    given_s = policy.stop_budget_s - policy.kill_budget_s
    asked_s = {name: own_s.get(name) if fixed_s is None else fixed_s for name in policy.containers}
    known_s = {
        name: DOCKERS_STOP_TIMEOUT_S if seconds is None else seconds
        for name, seconds in asked_s.items()
    }
    # A microsecond of rounding is no difference.
    longer_s = {name: seconds for name, seconds in known_s.items() if seconds > given_s + 1e-6}
    if not longer_s:
        return
    is_chosen = any(asked_s[name] is not None for name in longer_s)
    told = ", ".join(f"{name} {seconds:g} s" for name, seconds in longer_s.items())
    yield Finding(
        Level.WARNING if is_chosen else Level.HINT,
        "stop_timeout",
        f"on a lost lease you get {given_s:.3g} s (stop_budget {policy.stop_budget_s:g} - "
        f"kill_budget {policy.kill_budget_s:g}), and then they are killed; else {told}",
        _way_to_stop_in_peace(settings, max(longer_s.values())),
    )


def _way_to_stop_in_peace(settings: Settings, wanted_s: float) -> str:
    """Timings with which a self-demotion takes as long as any other stop."""
    keys = settings.keys
    # kill_budget is a tenth of the timeout unless it is set; so the timeout is found in two steps.
    timeout_s: float = keys.heartbeat_timeout
    for _ in range(20):
        kill_s = keys.kill_budget or max(0.25, timeout_s / 10)
        least_s = least_timeout_s(wanted_s + kill_s, keys.heartbeat_interval)
        timeout_s = max(timeout_s, math.ceil(least_s))
    kill_s = keys.kill_budget or max(0.25, timeout_s / 10)
    longer = f"heartbeat_timeout = {timeout_s:g} and " if timeout_s > keys.heartbeat_timeout else ""
    return f"{longer}stop_budget = {wanted_s + kill_s:g} would give them all of it"


def _ms(seconds: float | None) -> str:
    return "?" if seconds is None else f"{1000 * seconds:.3g} ms"


def at_most(seconds: float) -> str:
    """A bound, rounded up."""
    unit = _unit(seconds)
    return f"{math.ceil(round(seconds * unit, 6)) / unit:g} s"


def at_least(seconds: float) -> str:
    """A bound from below, rounded down; nothing is shorter than no time."""
    unit = _unit(seconds)
    return f"{max(0.0, math.floor(round(seconds * unit, 6)) / unit):g} s"


def _unit(seconds: float) -> int:
    """So many parts of a second are of interest."""
    if seconds >= 1000:
        return 1
    return 10 if seconds >= 10 else 100
