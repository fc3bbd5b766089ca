"""What an agent costs while nothing happens: processor, memory, wake-ups; agent and guard apart.

Two lab hosts with ten running containers, the defaults of the configuration (a beat a second, a
timeout of 10 s), first as a plain pair, then with a witness. "of a core" is the processor time of
all threads by the kernel's account, divided by the time that passed; PSS shares out what several
processes have in common (guard and agent have most of an interpreter in common).
"""

from __future__ import annotations

import argparse
import time

from bench.table import print_head, print_table
from bench.usage import Usage, pss_mb, usage
from tests.lab.agent import PORT
from tests.lab.lab import Lab, Node
from tests.lab.service import Spec
from tests.lab.truth import now_s

CONTAINERS = 10
DEFAULTS = {
    "heartbeat_interval": 1.0,
    "check_heartbeat_interval": 1.0,
    "heartbeat_timeout": 10.0,
    "startup_grace_period": 20.0,
    "restart_grace_period": 30.0,
}
SETTLE_S = 8.0
"""After the start; the first seconds are not idle."""

AIM_PERCENT, AIM_MB = 0.5, 60.0


def _sleepers() -> list[Spec]:
    """They tick in the lab's own way, but rarely: what is measured are the agents."""
    return [Spec(f"app-{number}", command=("sleep", "infinity")) for number in range(CONTAINERS)]


def _pids(node: Node) -> dict[str, int]:
    node.agent.wait_whole()
    return {"agent": node.agent.agent_pid, "guard": node.agent.guard_pid}


def _measure(nodes: dict[str, Node], seconds: float) -> list[tuple[str, ...]]:
    pids = {name: _pids(node) for name, node in nodes.items()}
    engines = {name: node.engine.process.pid for name, node in nodes.items() if node.has_engine}
    began_s, before = now_s(), _usages(pids, engines)
    time.sleep(seconds)
    lasted_s, after = now_s() - began_s, _usages(pids, engines)
    rows = []
    for name, of in pids.items():
        sizes = {part: pss_mb(pid) for part, pid in of.items()}
        used = {part: after[name, part] - before[name, part] for part in of}
        whole = Usage(
            sum(each.processor_s for each in used.values()),
            sum(each.wakes for each in used.values()),
        )
        engine = (name, "engine")
        cost = _percent(after[engine] - before[engine], lasted_s) if name in engines else "-"
        rows.append(_row(name, "agent and guard", whole, lasted_s, sum(sizes.values()), cost))
        rows += [_row("", part, used[part], lasted_s, sizes[part], "") for part in of]
    return rows


def _usages(
    pids: dict[str, dict[str, int]], engines: dict[str, int]
) -> dict[tuple[str, str], Usage]:
    found = {(name, part): usage(pid) for name, of in pids.items() for part, pid in of.items()}
    return found | {(name, "engine"): usage(pid) for name, pid in engines.items()}


def _row(
    name: str, part: str, used: Usage, lasted_s: float, size_mb: float, engine: str
) -> tuple[str, ...]:
    woken = f"{used.wakes / lasted_s:.0f}"
    met = ""
    if name:
        is_met = 100 * used.processor_s / lasted_s < AIM_PERCENT and size_mb < AIM_MB
        met = "yes" if is_met else "no"
    return name, part, _percent(used, lasted_s), woken, f"{size_mb:.1f}", engine, met


def _percent(used: Usage, lasted_s: float) -> str:
    return f"{100 * used.processor_s / lasted_s:.2f} %"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="for each set-up")
    parser.add_argument("--pairs", default="plain,witness")
    parser.add_argument("--quick", action="store_true", help="10 seconds for each")
    given = parser.parse_args()
    seconds = 10.0 if given.quick else given.seconds
    print_head(
        f"{CONTAINERS} containers, a beat a second, over {seconds:g} s;"
        f" the aim: under {AIM_PERCENT:g} % of a core and {AIM_MB:g} MB"
    )
    rows: list[tuple[str, ...]] = []
    with Lab(_sleepers(), third_host=True) as lab:
        for pair in given.pairs.split(","):
            rows += _one(lab, pair, seconds)
    head = ("node", "process", "of a core", "wakes/s", "PSS MB", "its engine", "met")
    print_table(head, rows)


def _one(lab: Lab, pair: str, seconds: float) -> list[tuple[str, ...]]:
    settings: dict[str, object] = dict(DEFAULTS)
    nodes = {f"active, {pair}": lab.a, f"standby, {pair}": lab.b}
    if pair == "witness":
        endpoint = f"http://{lab.c.address}:{PORT}"
        settings["arbiter"] = {"kind": "witness", "endpoint": endpoint}
        settings["witness"] = {"port": PORT}
        lab.start_agent(lab.c, "witness", settings)
        nodes["witness"] = lab.c
    lab.start_pair(settings)
    _wait(lab)
    time.sleep(SETTLE_S)
    rows = _measure(nodes, seconds)
    for node in nodes.values():
        node.agent.end()
    for service in lab.a.services.values():
        service.kill()
    return rows


def _wait(lab: Lab) -> None:
    lab.a.agent.wait_phase("active", 90)
    lab.b.agent.wait_phase("standby", 90)


if __name__ == "__main__":
    main()
