"""The container that the agent itself runs in, where it does: is another about to take its place?

A container is told to stop in the same way when it is taken away and when compose recreates it, for
an upgrade. But compose makes the new one first, and notes in a label what it is to replace.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

REPLACES = "com.docker.compose.replace"
SERVICE = ("com.docker.compose.project", "com.docker.compose.service")
OF_COMPOSE = {"label": [*SERVICE], "status": ["created", "running"]}
"""As the engine filters its list."""

FRESH_S = 60.0
"""Compose stops the old one right after it has made the new one: an older one was left behind."""

MOUNTS = Path("/proc/self/mountinfo")
OF_ENGINE = re.compile(r"/containers/([0-9a-f]{64})/(?:hostname|hosts|resolv\.conf) ")
"""The files that an engine makes for each container, and mounts into it."""


def own_id(mounts: Path = MOUNTS) -> str:
    """The id of the container that we run in; empty outside of one."""
    try:
        found = OF_ENGINE.search(mounts.read_text())
    except OSError:
        return ""
    return found[1] if found else ""


def is_replaced(own: str, rows: Iterable[Mapping[str, Any]], wall_s: float) -> bool:
    """Is one of these containers, as the engine lists them, there to replace `own`?

    `wall_s`: the engine's time of day, in seconds since 1970.
    """
    by_id = {row["Id"]: row for row in rows}
    if own not in by_id:
        return False
    ours = by_id[own]["Labels"] or {}

    def is_next(row: Mapping[str, Any]) -> bool:
        labels = row["Labels"] or {}  # of an engine that does not heed the filter
        is_same = all(it in ours and labels.get(it) == ours[it] for it in SERVICE)
        is_fresh = abs(wall_s - row["Created"]) < FRESH_S
        return row["State"] == "created" and REPLACES in labels and is_same and is_fresh

    return any(map(is_next, by_id.values()))
