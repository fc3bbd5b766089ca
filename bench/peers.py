"""The same faults with keepalived as people set it up, with ours, and with the floor.

Two lab hosts with a real Docker Engine each, and one container on each. keepalived (Debian's
package): VRRP adverts every second, a check script every second that asks `docker inspect` while
this host is master, notify scripts that start and stop the container with the docker command line.
Ours: a pair with a witness, heartbeat_timeout 3 and all else as it is by default; and the same with
the graces at 0. The floor: a bare script on the events stream (floor.py).

  death    the container's first process is killed -> the service answers on the other host
  crash    the power of the active host fails -> it answers on the other
  planned  keepalived: SIGTERM to it, ours: SIGTERM to the agent, floor: a stop; the gap in which a
           client has no answer
  cut      the wire between the two hosts is cut for 8 s: how long both ran

With the default graces ours starts a dead container again where it is, after 1 s: the answer then
comes from the same host, and that is what is measured. The floor of a crash is a start call.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.client import Client
from bench.failover import BARE, OURS, Bench, Series, first_pid, runs_on
from bench.table import print_head, print_table, seconds
from tests.lab.engine import DOCKER_HOST
from tests.lab.lab import Lab, Node
from tests.lab.pair import LIMIT_S, pass_time
from tests.lab.process import PATH, Process
from tests.lab.service import Spec
from tests.lab.truth import now_s
from tests.lab.until import until

THEIRS = Spec("vrrp", port=8082)
PRIORITIES = {"host-a": 150, "host-b": 100}
CUT_S = 8.0
SETTLED_S = 3.5
CONFIG = """
global_defs {{
    enable_script_security
    script_user root
}}
vrrp_script check {{
    script "/etc/keepalived/check"
    interval 1
    fall 1
    rise 1
}}
vrrp_instance shop {{
    state BACKUP
    nopreempt
    interface eth0
    virtual_router_id 51
    priority {priority}
    advert_int 1
    virtual_ipaddress {{
        10.77.0.100/24
    }}
    track_script {{
        check
    }}
    notify_master "/etc/keepalived/master"
    notify_backup "/etc/keepalived/backup"
    notify_fault "/etc/keepalived/backup"
    notify_stop "/etc/keepalived/backup"
}}
"""
SCRIPTS = {
    # A master whose container is away is no master; one that is just starting it is let be.
    "check": f"""#!/bin/sh
export DOCKER_HOST=unix:///run/docker.sock
export DOCKER_HOST=unix:///run/docker.sock
[ -e /run/keepalived.master ] || exit 0
[ "$(docker inspect -f '{{{{.State.Running}}}}' {THEIRS.name})" = true ]
""",
    "master": f"""#!/bin/sh
export DOCKER_HOST=unix:///run/docker.sock
export DOCKER_HOST=unix:///run/docker.sock
docker start {THEIRS.name} && touch /run/keepalived.master
""",
    "backup": f"""#!/bin/sh
export DOCKER_HOST=unix:///run/docker.sock
export DOCKER_HOST=unix:///run/docker.sock
rm -f /run/keepalived.master
docker stop -t 2 {THEIRS.name}
""",
}


class Keepalived:
    """One on each host; the container runs on the master."""

    def __init__(self, lab: Lab, client: Client) -> None:
        self._lab = lab
        self._client = client
        self._processes: dict[str, Process] = {}
        for node in (lab.a, lab.b):
            self.start(node)
        self.ends()

    def start(self, node: Node) -> None:
        """Writes what it needs, and starts it."""
        folder = node.host.path("/etc/keepalived")
        folder.mkdir(exist_ok=True)
        (folder / "keepalived.conf").write_text(CONFIG.format(priority=PRIORITIES[node.name]))
        for name, text in SCRIPTS.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        node.host.path("/run/keepalived.master").unlink(missing_ok=True)
        command = ["keepalived", "--dont-fork", "--log-console", "--no-syslog", "--vrrp"]
        self._processes[node.name] = node.host.spawn(
            "keepalived", command, env={"DOCKER_HOST": DOCKER_HOST}
        )

    def end(self) -> None:
        """Both, and the containers."""
        for node in (self._lab.a, self._lab.b):
            self._processes[node.name].sigterm()
            self._processes[node.name].wait(LIMIT_S)

    def ends(self) -> tuple[Node, Node]:
        """The master and the other, when one runs it and both keepalived live."""

        def find() -> Node | None:
            nodes = (self._lab.a, self._lab.b)
            masters = [it for it in nodes if it.host.path("/run/keepalived.master").exists()]
            running = [it for it in nodes if runs_on(it, THEIRS)]
            alive = all(self._processes[it.name].is_alive() for it in nodes)
            return masters[0] if alive and len(masters) == 1 and masters == running else None

        master = until(find, LIMIT_S, "one keepalived is master and runs the container")
        pass_time(1.5)  # A backup must have heard the new master.
        return master, self._lab.peer_of(master)

    def death(self, series: Series) -> None:
        old, new = self.ends()
        answered = self._client.first_answer(new.address, THEIRS.port or 0)
        pid = first_pid(old, THEIRS)
        began_s = now_s()
        os.kill(pid, signal.SIGKILL)
        series.ours.append(answered.result() - began_s)

    def planned(self, series: Series) -> None:
        old, new = self.ends()
        answered = self._client.first_answer(new.address, THEIRS.port or 0)
        silent = self._client.silence(old.address, THEIRS.port or 0)
        self._processes[old.name].sigterm()
        series.ours.append(answered.result() - silent.result())
        self._processes[old.name].wait(LIMIT_S)
        self.start(old)

    def crash(self, series: Series) -> None:
        old, new = self.ends()
        answered = self._client.first_answer(new.address, THEIRS.port or 0)
        began_s = now_s()
        old.crash()
        series.ours.append(answered.result() - began_s)
        old.boot()
        self.start(old)

    def cut(self, series: Series) -> None:
        """How long both ran."""
        old, new = self.ends()
        series.ours.append(_cut(self._lab, old, new, self.ends))


class Ours(Bench):
    """As bench/failover.py has it, with what is counted here."""

    def planned(self, series: Series) -> None:
        self.switch(series)

    def crash(self, series: Series) -> None:
        """From the crash on."""
        super().crash(series)
        series.ours[-1] = series.whole[-1]

    def repaired(self, series: Series) -> None:
        """`death` with a restart_grace_period: the first answer from the same host."""
        old, _ = self.ends()
        silent = self.client.silence(old.address, OURS.port or 0)
        pid = first_pid(old, OURS)
        began_s = now_s()
        os.kill(pid, signal.SIGKILL)
        silent.result()
        answered = self.client.first_answer(old.address, OURS.port or 0)
        series.ours.append(answered.result() - began_s)
        pass_time(SETTLED_S)  # Or the next one is another death of the same, and waits longer.

    def cut(self, series: Series) -> None:
        """How long both ran."""
        old, new = self.ends()
        series.ours.append(_cut(self.lab, old, new, self.ends))


def _cut(lab: Lab, old: Node, new: Node, settle: Callable[[], object]) -> float:
    began_s = now_s()
    lab.network.cut_both(old.host, new.host)
    pass_time(CUT_S)
    lab.network.heal()
    settle()
    return max((it.seconds for it in lab.truth.overlaps(since_s=began_s)), default=0.0)


# What the file says of a pair by default, with a timeout of 3 s; the graces count in whole seconds
# after a start, so the first fault comes after that.
DEFAULTS: Mapping[str, Any] = {
    "heartbeat_interval": 0.5,
    "check_heartbeat_interval": 0.5,
    "heartbeat_timeout": 3.0,
    "startup_grace_period": 20.0,
    "restart_grace_period": 30.0,
    "max_failovers": 1000,
    "containers": [OURS.name],
}


def _measure(it: Keepalived | Ours, faults: Mapping[str, int]) -> dict[str, Series]:
    found = {fault: Series() for fault in faults}
    for fault, runs in faults.items():
        for _ in range(runs):
            getattr(it, fault)(found[fault])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5, help="of death and planned each")
    parser.add_argument("--crashes", type=int, default=2)
    parser.add_argument("--cuts", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="2 runs, 1 crash")
    given = parser.parse_args()
    if shutil.which("keepalived", path=PATH) is None:
        sys.exit("keepalived is not installed: scripts/install-packages keepalived, as root")
    runs, crashes = (2, 1) if given.quick else (given.runs, given.crashes)
    faults = {"death": runs, "planned": runs, "crash": crashes, "cut": given.cuts}
    print_head("median (longest) in s")
    with Lab([OURS, BARE, THEIRS], third_host=True) as lab, Client(lab.c.host) as client:
        keepalived = Keepalived(lab, client)
        theirs = _measure(keepalived, faults)
        keepalived.end()
        pair = Ours(lab, client, witness=True)
        floor = {fault: Series() for fault in ("death", "switch", "crash")}
        for _ in range(runs):
            for fault, series in floor.items():
                getattr(pair, f"floor_{fault}")(series)
        ours = _measure(pair, faults)
        pair.end()
        calm = Ours(lab, client, witness=True, settings=DEFAULTS)
        calm.ends()
        pass_time(DEFAULTS["startup_grace_period"])
        repaired = _measure(calm, {"repaired": runs})["repaired"]
        calm.end()

    def row(what: str, fault: str, floor_of: Sequence[float], by_default: str) -> Sequence[str]:
        cells = (seconds(floor_of), seconds(theirs[fault].ours), seconds(ours[fault].ours))
        return (what, *cells, by_default)

    print_table(
        ("fault", "floor", "keepalived", "failover-agent, graces 0", "failover-agent, defaults"),
        (
            row("death", "death", floor["death"].floor, f"{seconds(repaired.ours)} repaired"),
            row("planned: the gap", "planned", floor["switch"].floor, "the same"),
            row("crash", "crash", floor["crash"].floor, "the same"),
            row(f"wire cut for {CUT_S:g} s: both ran", "cut", (), "the same"),
        ),
    )


if __name__ == "__main__":
    main()
