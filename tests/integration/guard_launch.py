"""Starts a guard over the command that is given, with a line of it changed where a mutant is.

python guard_launch.py '{"command": [...], "config": "...", "edits": [[module, old, new], ...]}'
"""

import importlib.util
import json
import os
import sys
from pathlib import Path


def main() -> int:
    order = json.loads(sys.argv[1])
    for module, old, new in order["edits"]:
        _change(f"failover_agent.guard.{module}", old, new)
    from failover_agent.guard.supervisor import supervise

    return supervise(
        order["command"], config=Path(order["config"]), role="primary", environ=dict(os.environ)
    )


def _change(name: str, old: str, new: str) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text()
    assert source.count(old) == 1, f"{name}: {old!r} is there {source.count(old)} times, not once"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    exec(compile(source.replace(old, new), spec.origin, "exec"), module.__dict__)
    parent, _, child = name.rpartition(".")
    setattr(sys.modules[parent], child, module)


if __name__ == "__main__":
    sys.exit(main())
