"""`failover-agent verify`: explores the shipped core with the timings of this configuration."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from failover_agent.cli import output
from failover_agent.core.bounds import Measured, takeover_s
from failover_agent.core.policy import PartitionPolicy, Policy, Role
from failover_agent.errors import ExitCode

if TYPE_CHECKING:
    from failover_agent.verification.explorer import Bounds, Counterexample, Report
    from failover_agent.verification.machines import Pace
    from failover_agent.verification.rules import Longest
    from failover_agent.verification.tale import Line

INDENT = "  "


def main(arguments: argparse.Namespace) -> int:
    """0: it holds within what was explored. 1: it does not, and here is how."""
    from failover_agent import config
    from failover_agent.adapters.clock import Clock
    from failover_agent.verification.explorer import Bounds, explore

    settings = config.load(arguments.config, arguments.role)
    policy = settings.policy(Role.PRIMARY)
    bounds = Bounds(most_faults=arguments.faults, seconds=arguments.seconds or float("inf"))
    output.say(_what(policy, bounds))
    report = explore(policy, bounds, clock=Clock().now)
    output.say(render(report, policy, bounds, with_stories=arguments.story))
    return ExitCode.FINE if report.counterexample is None else ExitCode.FAILED


def _what(policy: Policy, bounds: Bounds) -> str:
    """What is about to be explored."""
    pair = f"a plain pair under {policy.partition_policy}"
    budgets = ""
    if policy.requires_lease:
        pair = "a pair with an arbiter"
        budgets = f", stop_budget {policy.stop_budget_s:g}, kill_budget {policy.kill_budget_s:g}"
    if policy.has_fence:
        pair += " and a fence_command"
    limit = "without a limit" if bounds.seconds == float("inf") else f"{bounds.seconds:g} s"
    return output.paragraph(
        f"Exploring {pair}: heartbeat_timeout {policy.heartbeat_timeout_s:g} s, heartbeat_interval "
        f"{policy.heartbeat_interval_s:g}, startup_grace_period {policy.startup_grace_period_s:g}"
        f"{budgets}; up to {bounds.most_faults} faults in a history, {limit}."
    )


def render(report: Report, policy: Policy, bounds: Bounds, *, with_stories: bool) -> str:
    """The report, at most 80 columns wide."""
    lines = ["", *_table(report), ""]
    if report.counterexample is not None:
        lines += _refutation(report.counterexample)
    else:
        lines += _verdict(report, policy)
    if report.counterexample is None:
        lines += ["", *_figures(report, policy, bounds.pace)]
    if with_stories:
        lines += _stories(report)
    return "\n".join(lines)


def _table(report: Report) -> list[str]:
    rows = [("faults", "histories", "new states", "covered")]
    for level in report.levels:
        share = "all" if level.share >= 1 else f"{100 * level.share:.0f} %, until it was stopped"
        rows.append((f"{level.faults:6}", f"{level.histories:9}", f"{level.states:10}", share))
    return [
        *output.columns(rows),
        f"{INDENT}{report.states} states in {report.took_s:.0f} s",
    ]


def _verdict(report: Report, policy: Policy) -> list[str]:
    within = "in every history within these bounds"
    if not report.is_complete:
        within = "in every history that was explored; it was stopped early, see above"
    if policy.requires_lease:
        promise = "never do the containers run on two hosts"
    elif policy.partition_policy is PartitionPolicy.AVAILABILITY:
        promise = "the containers run on two hosts under a cut or a silence alone, and first"
        promise += " contact ends that"
    else:
        promise = "never do the containers run on two hosts, and nobody takes over on silence"
    return [output.paragraph(f"HOLDS: {promise}; and every state has a way out, {within}.")]


def _refutation(found: Counterexample) -> list[str]:
    lines = [output.paragraph(f"BROKEN: {found.rule}: {found.sentence}.")]
    rates = {-1: "slow", 0: "true", 1: "fast"}
    names = zip(("primary", "backup", "witness"), found.clocks, strict=True)
    lines.append(f"{INDENT}clocks: {', '.join(f'{name} {rates[off]}' for name, off in names)}")
    return [*lines, "", *(_line(line) for line in found.story)]


def _line(line: Line) -> str:
    mark = "!" if line.is_fault else " "
    return output.cut(f"{line.at_s:10.3f} {mark} {line.who:8} {line.what}")


def _figures(report: Report, policy: Policy, pace: Pace) -> list[str]:
    measures = report.measures
    bound_s = takeover_s(policy, measured(pace), fence_timeout_s=pace.fence_s)
    takeover = "none was seen"
    if measures.takeover.seconds:
        takeover = (
            f"{measures.takeover.seconds:.3f} s from a crash to the first start call; "
            f"the closed form says at most {bound_s:.3f} s"
        )
    rows = [
        ("longest takeover", takeover),
        ("longest outage", _longest(measures.outage)),
        ("longest overlap", _longest(measures.overlap)),
    ]
    return [output.paragraph(f"{name}: {told}", INDENT, "    ") for name, told in rows]


def _longest(longest: Longest) -> str:
    if not longest.seconds:
        return "none"
    return f"{longest.seconds:.1f} s, after: {'; '.join(longest.faults)}"


def measured(pace: Pace) -> Measured:
    """What a world at this pace would be measured as: what a node does by itself makes it late."""
    return Measured(
        rtt_s=2 * pace.trip_s,
        fsync_s=pace.save_s,
        wake_s=pace.wake_s + pace.lane_s + pace.guard_s,
    )


def _stories(report: Report) -> list[str]:
    from failover_agent.verification import tale

    measures, lines = report.measures, list[str]()
    for name in ("takeover", "outage", "overlap"):
        longest: Longest = getattr(measures, name)
        if longest.tale is not None:
            lines += ["", f"The longest {name}:", *map(_line, tale.lines(longest.tale))]
    return lines
