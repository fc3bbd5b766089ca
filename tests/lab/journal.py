"""What an agent of the lab wrote into its journal."""

import json
import math
from collections.abc import Iterator

from tests.lab.lab import Node

JOURNAL = "/var/lib/failover-agent/default/journal.jsonl"


def transitions(node: Node, since_s: float) -> Iterator[tuple[float, str, str]]:
    """(moment, phase, reason) of each since then, as far as it was written."""
    file = node.host.path(JOURNAL)
    if not file.exists():
        return
    for line in file.read_text(errors="replace").splitlines():
        if '"transitions":' in line:
            content = json.loads(line)
            if content["now"] >= since_s:
                for step in content["transitions"]:
                    yield content["now"], step["to"], step["reason"]


def passed_since(node: Node, since_s: float) -> Iterator[str]:
    """`PHASE: REASON` of each transition since that moment, as far as it was written."""
    for _, phase, reason in transitions(node, since_s):
        yield f"{phase}: {reason}"


def promotion_s(node: Node, since_s: float) -> float | None:
    """How long the last promotion took that began since then; infinite until its end is written.

    None where there was none.
    """
    took_s = began_s = None
    for moment_s, phase, _ in transitions(node, since_s):
        if phase == "promoting":
            began_s, took_s = moment_s, math.inf
        elif phase == "active" and began_s is not None:
            took_s = moment_s - began_s
    return took_s
