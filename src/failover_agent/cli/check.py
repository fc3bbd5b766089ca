"""`failover-agent check`: whatever would keep this node from doing its part, and what mends it."""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from failover_agent.cli import control, output
from failover_agent.cli.output import Paint
from failover_agent.errors import ExitCode, FailoverAgentError

if TYPE_CHECKING:
    from failover_agent.checks import Bounds, Finding

_STYLES = {"ok": ("green",), "hint": (), "warning": ("yellow",), "error": ("red", "bold")}
_INDENT = " " * 9

_VERDICTS = {
    ExitCode.FINE: "all is well",
    ExitCode.DEGRADED: "it works, with weaknesses",
    ExitCode.FAILED: "as it stands this node would not do its part",
}
_WITHOUT_AGENT = {  # Nothing works there yet, and nothing is looked after.
    **_VERDICTS,
    ExitCode.FINE: "fit to start; no agent runs here",
    ExitCode.DEGRADED: "fit to start, with weaknesses; no agent runs here",
}


def main(arguments: argparse.Namespace) -> int:
    """0 fine, 1 errors, 2 the configuration cannot be used, 3 warnings."""
    from failover_agent import checks, config

    settings = config.load(arguments.config, arguments.role)
    try:
        status = control.ask((control.Place(settings.node.control_socket),), "/v1/status")
    except FailoverAgentError:
        status = None
    report = asyncio.run(checks.find_all(settings, status))
    code = checks.exit_code(report.findings)
    output.say(render(report.findings, output.paint()))
    if report.bounds is not None:
        output.say(render_bounds(report.bounds))
    output.say(summary(report.findings, code))
    return code


def render(findings: Sequence[Finding], paint: Paint) -> str:
    """A paragraph each, at most 80 columns wide; below it the line that mends it, as it is."""
    lines: list[str] = []
    for finding in findings:
        text = f"{finding.level.upper() if finding.level == 'error' else finding.level:<9}"
        told = output.paragraph(f"{finding.subject}: {finding.sentence}", _INDENT)
        lines.append(paint(text, *_STYLES[finding.level]) + told.removeprefix(_INDENT))
        if finding.fix:
            lines.append(f"{_INDENT}-> {output.printable(finding.fix)}")
    return "\n".join(lines)


def render_bounds(bounds: Bounds) -> str:
    """A small table for a tired person."""
    return "\n".join(["", output.paragraph(bounds.title), *output.columns(bounds.rows)])


def summary(findings: Sequence[Finding], code: ExitCode) -> str:
    """The last line."""
    counts = Counter(str(finding.level) for finding in findings)
    told = [
        f"{counts[level]} {level}{'s' if counts[level] > 1 else ''}"
        for level in ("error", "warning", "hint")
        if counts[level]
    ]
    has_no_agent = any(each.subject == "agent" and each.level != "ok" for each in findings)
    verdict = (_WITHOUT_AGENT if has_no_agent else _VERDICTS)[code]
    return f"\n{', '.join(told)}{': ' if told else ''}{verdict}."
