"""Where the time of one move went, by the journals of both nodes (one clock: CLOCK_BOOTTIME)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from bench.table import print_table
from tests.lab.lab import Node

JOURNAL = "var/lib/failover-agent/default/journal.jsonl"

Moments = Mapping[str, float]


def read(old: Node, new: Node, since_s: float) -> dict[str, float]:
    """When each step of the move from `old` to `new` was decided; what did not happen is left out.

    A crashed host's disk is read too, as far as it came.
    """
    marks: dict[str, float] = {}
    for line in _lines(old, since_s):
        event, effects = line["event"]["is"], {effect["is"] for effect in line["effects"]}
        if event in ("ContainerDied", "ContainerChanged"):
            marks.setdefault("down seen", line["now"])
        if "StopContainers" in effects:
            marks.setdefault("stop ordered", line["now"])
        if event == "ContainersStopped":
            marks.setdefault("stop confirmed", line["now"])
    for line in _lines(new, since_s):
        event, effects = line["event"]["is"], {effect["is"] for effect in line["effects"]}
        if event == "ReleaseReceived":
            marks.setdefault("release heard", line["now"])
        if "acquiring" in {change["to"] for change in line.get("transitions", ())}:
            marks.setdefault("candidate", line["now"])
        if "promoting" in {change["to"] for change in line.get("transitions", ())}:
            marks.setdefault("term won", line["now"])
        if "StartContainers" in effects:
            marks.setdefault("start ordered", line["now"])
    return marks


def _lines(node: Node, since_s: float) -> list[dict[str, Any]]:
    overlay = node.host.disk / "files/var/lib" / JOURNAL.removeprefix("var/lib/")
    found = []
    for text in overlay.read_text().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # The last one of a crashed host.
        if line["now"] >= since_s and "event" in line:
            found.append(line)
    return found


def print_story(title: str, moves: Sequence[Moments]) -> None:
    """Medians, from the fault on: when each step was reached, and how long it took."""
    names: list[str] = []
    for move in moves:
        names += [name for name in move if name not in names]
    at_ms = {name: 1000 * median(_of(name, moves)) for name in names}
    rows, before = [], 0.0
    for name in sorted(names, key=at_ms.__getitem__):
        rows.append((name, f"{at_ms[name]:.0f}", f"+{at_ms[name] - before:.0f}"))
        before = at_ms[name]
    print_table((title, "at ms", "step ms"), rows)


def _of(name: str, moves: Iterable[Moments]) -> list[float]:
    return [move[name] for move in moves if name in move]
