"""False failovers: how short may the timeout be on a machine that is late, and on a bad network?

Two lab hosts, and from a timeout of 1 s on a third with a witness (a lease has at least that);
below it a plain pair, which the configuration refuses and only short.py starts. The interval is a
tenth of the timeout, at least 0.1 s. Each timeout is tried with both cores saturated (one busy
process more than there are cores), and with 20 % of all packets lost, each way, between all hosts.
Nothing fails, so every start of a container is a false failover, or follows a false alarm.

Counted by the containers' own word. "late": the longest that this program, too, woke up late; 0 is
less than 20 ms.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.stress import saturated_cores
from bench.table import print_head, print_table
from tests.lab.agent import PORT
from tests.lab.lab import Lab
from tests.lab.metronome import Metronome
from tests.lab.pair import LIMIT_S, is_redundant, pass_time
from tests.lab.truth import now_s
from tests.lab.until import until

NAME = "web"
SHORTEST_LEASE_S = 1.0
SHORTEST_INTERVAL_S = 0.1
LOSS_PERCENT = 20
# The configuration refuses less than a second; and a plain pair needs no guard.
SHORT = [sys.executable, str(Path(__file__).with_name("short.py")), "failover_agent.run"]
TIMEOUTS = "0.5,1,2,3,5,10"


def _settings(lab: Lab, timeout_s: float) -> dict[str, Any]:
    interval_s = max(SHORTEST_INTERVAL_S, timeout_s / 10)
    settings: dict[str, Any] = {
        "heartbeat_interval": interval_s,
        "check_heartbeat_interval": interval_s,
        "heartbeat_timeout": timeout_s,
        "startup_grace_period": 1.0,
        "restart_grace_period": 60.0,
        "max_failovers": 1000,
    }
    if timeout_s >= SHORTEST_LEASE_S:
        endpoint = f"http://{lab.c.address}:{PORT}"
        settings["arbiter"] = {"kind": "witness", "endpoint": endpoint}
        settings["witness"] = {"port": PORT}
    return settings


def _one(lab: Lab, timeout_s: float, trouble: str, seconds: float) -> tuple[str, ...]:
    """A pair that is well; then the trouble, for so long."""
    settings = _settings(lab, timeout_s)
    nodes = [lab.a, lab.b]
    if "arbiter" in settings:
        lab.start_agent(lab.c, "witness", settings)
        nodes.append(lab.c)
    command = None if timeout_s >= SHORTEST_LEASE_S else SHORT
    lab.start_agent(lab.a, "primary", settings, command)
    lab.start_agent(lab.b, "backup", settings, command)
    until(lambda: any(map(is_redundant, (lab.a, lab.b))), LIMIT_S, "one is active")
    began_s = now_s()
    with ExitStack() as stack, Metronome() as metronome:
        if trouble == "load":
            stack.enter_context(saturated_cores())
        else:
            lab.network.loss(LOSS_PERCENT)
            stack.callback(lab.network.loss, 0)
        pass_time(seconds)
        late_s = metronome.latest_s(began_s)
    starts = lab.truth.starts(began_s)
    overlap_s = sum(it.seconds for it in lab.truth.overlaps(since_s=began_s))
    away_s = max(0.0, lab.truth.downtime(NAME, began_s))
    for node in nodes:
        node.agent.end()
    for node in (lab.a, lab.b):
        if node.services[NAME].state == "running":
            node.services[NAME].kill()
    return (
        f"{timeout_s:g}",
        f"{settings['heartbeat_interval']:g}",
        "witness" if "arbiter" in settings else "plain pair",
        "both cores saturated" if trouble == "load" else f"{LOSS_PERCENT} % loss",
        f"{seconds:g}",
        str(len(starts)),
        f"{away_s:.2f}",
        f"{overlap_s:.1f}",
        f"{1000 * late_s:.0f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--length", type=float, default=12.0, help="of each row, in its timeout")
    parser.add_argument("--timeouts", default=TIMEOUTS)
    parser.add_argument("--troubles", default="load,loss")
    parser.add_argument("--quick", action="store_true", help="6 s each, for 0.5, 1 and 2")
    given = parser.parse_args()
    timeouts = "0.5,1,2" if given.quick else given.timeouts
    print_head("longest absence and overlap in s, lateness in ms")
    with Lab([NAME], third_host=True) as lab:
        rows = [
            _one(lab, timeout_s, trouble, 6.0 if given.quick else given.length * timeout_s)
            for trouble in given.troubles.split(",")
            for timeout_s in map(float, timeouts.split(","))
        ]
    head = (
        "timeout s", "interval s", "set-up", "trouble", "seconds", "false failovers",
        "away s", "both ran s", "late ms",
    )  # fmt: skip
    print_table(head, rows)


if __name__ == "__main__":
    main()
