"""One thing that `check` found, and what a list of them means for the exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Any

from failover_agent.errors import ExitCode

Status = Mapping[str, Any]
"""What the agent of this node says of itself (GET /v1/status)."""


@unique
class Level(StrEnum):
    """ok: as it should be. hint: good to know. warning: works, with a weakness. error: does not."""

    OK = "ok"
    HINT = "hint"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """`sentence` has no full stop; `fix` is a line to type or to write, or whole sentences."""

    level: Level
    subject: str
    sentence: str
    fix: str = ""


def exit_code(findings: Sequence[Finding]) -> ExitCode:
    """FAILED with an error among them, DEGRADED with a warning."""
    levels = {finding.level for finding in findings}
    if Level.ERROR in levels:
        return ExitCode.FAILED
    return ExitCode.DEGRADED if Level.WARNING in levels else ExitCode.FINE
