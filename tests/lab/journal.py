"""What an agent of the lab wrote into its journal."""

import json
from collections.abc import Iterator

from tests.lab.lab import Node

JOURNAL = "/var/lib/failover-agent/default/journal.jsonl"


def passed_since(node: Node, since_s: float) -> Iterator[str]:
    """`PHASE: REASON` of each transition since that moment, as far as it was written."""
    file = node.host.path(JOURNAL)
    if not file.exists():
        return
    for line in file.read_text(errors="replace").splitlines():
        if '"transitions":' in line:
            content = json.loads(line)
            if content["now"] >= since_s:
                for step in content["transitions"]:
                    yield f"{step['to']}: {step['reason']}"
