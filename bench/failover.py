"""How long a move takes, beside the least that it could take on this machine in the same minutes.

Two lab hosts with a real Docker Engine each, a third with the client and the witness. Every fault
befalls by turns the agents' container and one that a bare script looks after (floor.py): the same
image, the same engines. The graces are 0. All times are medians, the longest in brackets, in ms.

  death        the container's first process is killed -> the service answers on the other host
  switch       SIGTERM to the active agent; the gap: the last the client has of the old host ->
               the service answers on the other; and from the signal on
  crash        the power of the active host fails -> answers, counted from the end of the timeout:
               heartbeat_timeout and 1 % after the standby last heard it (a promise ends by the
               slower of two clocks). Its floor is a start call -> answers.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.client import Client
from bench.story import Moments, print_story, read
from bench.table import ms, print_head, print_table
from tests.lab.agent import PORT
from tests.lab.lab import Lab, Node
from tests.lab.pair import LIMIT_S, is_redundant, status
from tests.lab.service import Spec
from tests.lab.truth import now_s
from tests.lab.until import until

OURS = Spec("web", port=8080)
BARE = Spec("bare", port=8081)
INTERVAL_S = 0.5
TIMEOUT_S = 3.0
DRIFT = 0.01
SETTINGS: Mapping[str, Any] = {
    "heartbeat_interval": INTERVAL_S,
    "check_heartbeat_interval": INTERVAL_S,
    "heartbeat_timeout": TIMEOUT_S,
    "startup_grace_period": 0,
    "restart_grace_period": 0,
    "max_failovers": 1000,
    "containers": [OURS.name],
}
FLOOR = Path(__file__).with_name("floor.py")
DEATH_AIM, CRASH_AIM_S = 1.10, 0.050


@dataclass
class Series:
    """What was measured of one fault, in seconds."""

    ours: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    whole_floor: list[float] = field(default_factory=list)
    moves: list[Moments] = field(default_factory=list)


class Bench:
    """A pair, with a witness or without, and a client."""

    def __init__(
        self, lab: Lab, client: Client, *, witness: bool, settings: Mapping[str, Any] = SETTINGS
    ) -> None:
        self.lab = lab
        self.client = client
        self._settings = dict(settings)
        if witness:
            endpoint = f"http://{lab.c.address}:{PORT}"
            self._settings |= {
                "arbiter": {"kind": "witness", "endpoint": endpoint},
                "witness": {"port": PORT},
            }
            lab.start_agent(lab.c, "witness", self._settings)
        for node in (lab.a, lab.b):
            self._start_agent(node)

    def _start_agent(self, node: Node) -> None:
        role = "primary" if node is self.lab.a else "backup"
        self.lab.start_agent(node, role, self._settings)  # type: ignore[arg-type]

    def end(self) -> None:
        """Agents and containers."""
        for node in (self.lab.c, self.lab.a, self.lab.b):
            if node.has_agent:
                node.agent.end()
        for node in (self.lab.a, self.lab.b):
            if runs_on(node, OURS):
                node.services[OURS.name].kill()

    # -- the agents' container ----------------------------------------------------------------

    def ends(self) -> tuple[Node, Node]:
        """The active node and its standby, when everything is as it should be."""

        def find() -> Node | None:
            return next((node for node in (self.lab.a, self.lab.b) if self._is_whole(node)), None)

        active = until(find, LIMIT_S, "one is active, and its standby ready")
        return active, self.lab.peer_of(active)

    def _is_whole(self, node: Node) -> bool:
        peer = status(self.lab.peer_of(node)) if is_redundant(node) else {}
        return bool(peer) and peer["phase"] == "standby" and peer["peer"]["phase"] == "active"

    def death(self, series: Series) -> None:
        """Ours."""
        old, new = self.ends()
        answered = self.client.first_answer(new.address, OURS.port or 0)
        pid = first_pid(old, OURS)
        began_s = now_s()
        os.kill(pid, signal.SIGKILL)
        self._note(series, old, new, began_s, began_s, answered.result())

    def switch(self, series: Series) -> None:
        """Ours; the agent is started again afterwards."""
        old, new = self.ends()
        answered = self.client.first_answer(new.address, OURS.port or 0)
        silent = self.client.silence(old.address, OURS.port or 0)
        began_s = now_s()
        old.agent.sigterm()
        answered_s = answered.result()
        silent_s = silent.result()
        series.whole.append(answered_s - began_s)
        old.agent.wait()
        self._start_agent(old)
        self._note(series, old, new, silent_s, began_s, answered_s)

    def crash(self, series: Series) -> None:
        """Ours; host and agent are started again afterwards."""
        old, new = self.ends()
        answered = self.client.first_answer(new.address, OURS.port or 0)
        began_s = now_s()
        old.crash()
        told = status(new)
        heard_s = now_s() - told["peer"]["heartbeat_age_s"]
        ends_s = heard_s + TIMEOUT_S * (1 + DRIFT)
        answered_s = answered.result()
        series.whole.append(answered_s - began_s)
        old.boot()
        self._start_agent(old)
        self._note(series, old, new, ends_s, ends_s, answered_s)

    def _note(
        self,
        series: Series,
        old: Node,
        new: Node,
        counted_from_s: float,
        told_from_s: float,
        answered_s: float,
    ) -> None:
        series.ours.append(answered_s - counted_from_s)
        self.ends()  # The journals are complete by now.
        marks = {"answers": answered_s, **read(old, new, told_from_s - TIMEOUT_S)}
        if counted_from_s > told_from_s:
            marks["silent"] = counted_from_s
        since = {name: at_s - told_from_s for name, at_s in marks.items()}
        series.moves.append({name: at_s for name, at_s in since.items() if at_s > -0.5})

    # -- the bare script's --------------------------------------------------------------------

    def floor_death(self, series: Series) -> None:
        """The floor of `death`."""
        with self._floor("death") as (floor, old, new):
            pid = first_pid(old, BARE)
            answered = self.client.first_answer(new.address, BARE.port or 0)
            began_s = now_s()
            os.kill(pid, signal.SIGKILL)
            series.floor.append(answered.result() - began_s)
            floor.wait()

    def floor_switch(self, series: Series) -> None:
        """The floor of `switch`."""
        with self._floor("switch") as (floor, old, new):
            answered = self.client.first_answer(new.address, BARE.port or 0)
            silent = self.client.silence(old.address, BARE.port or 0)
            began_s = now_s()
            _tell(floor)
            answered_s = answered.result()
            series.floor.append(answered_s - silent.result())
            series.whole_floor.append(answered_s - began_s)
            floor.wait()

    def floor_crash(self, series: Series) -> None:
        """The floor of `crash`: a start call."""
        with self._floor("start") as (floor, _, new):
            answered = self.client.first_answer(new.address, BARE.port or 0)
            began_s = now_s()
            _tell(floor)
            series.floor.append(answered.result() - began_s)
            floor.wait()

    @contextmanager
    def _floor(self, what: str) -> Iterator[tuple[subprocess.Popen[str], Node, Node]]:
        """Ready to go, in the direction in which the agents will move next; nothing runs after."""
        old, new = self.ends()
        if what != "start":
            old.services[BARE.name].start()
            self.client.first_answer(old.address, BARE.port or 0).result()
        sockets = [str(old.engine.socket), str(new.engine.socket)]
        command = [sys.executable, "-I", str(FLOOR), what, *sockets, BARE.name]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as floor:
            try:
                assert floor.stdout is not None
                assert floor.stdout.readline() == "ready\n"
                yield floor, old, new
            finally:
                floor.kill()
        for node in (old, new):
            if runs_on(node, BARE):
                node.services[BARE.name].kill()


def _tell(floor: subprocess.Popen[str]) -> None:
    assert floor.stdin is not None
    floor.stdin.write("go\n")
    floor.stdin.flush()


def runs_on(node: Node, spec: Spec) -> bool:
    """By its engine's word."""
    return node.services[spec.name].state == "running"


def first_pid(node: Node, spec: Spec) -> int:
    """The container's first process, by this machine's count."""
    container_id = node.services[spec.name].inspect()["Id"]
    return next(
        int(folder.name)
        for folder in Path("/proc").iterdir()
        if folder.name.isdigit()
        and container_id in _read(folder / "cgroup")
        and re.search(r"^NSpid:.*\t1$", _read(folder / "status"), re.MULTILINE)
    )


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""  # The process has ended.


def _measure(bench: Bench, fault: str, runs: int) -> Series:
    """A/B/A/B; of the quick faults the first round does not count, it warms everything up."""
    series = Series()
    for number in range(runs + (fault != "crash")):
        if number == 1 and fault != "crash":
            series = Series()
        getattr(bench, f"floor_{fault}")(series)
        getattr(bench, fault)(series)
    return series


def _row(what: str, fault: str, series: Series) -> Sequence[str]:
    ours, floor = median(series.ours), median(series.floor)
    if fault == "crash":
        verdict = f"{1000 * (ours - floor):+.0f} ms"
        aim = f"{1000 * CRASH_AIM_S:+.0f} ms"
        is_met = ours - floor <= CRASH_AIM_S
    else:
        verdict, aim = f"{ours / floor:.2f} x", f"{DEATH_AIM:.2f} x"
        is_met = ours / floor <= DEATH_AIM
    met = "yes" if is_met else "no"
    return what, str(len(series.ours)), ms(series.floor), ms(series.ours), verdict, aim, met


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=8, help="of death and switch each")
    parser.add_argument("--crashes", type=int, default=3)
    parser.add_argument("--faults", default="death,switch,crash")
    parser.add_argument("--pairs", default="plain,witness")
    parser.add_argument("--quick", action="store_true", help="3 runs of each")
    parser.add_argument("--json", type=Path, help="write every measurement there, too")
    given = parser.parse_args()
    if given.quick:
        given.runs, given.crashes = 3, 2
    print_head(
        f"graces 0, heartbeat_interval {INTERVAL_S:g}, heartbeat_timeout {TIMEOUT_S:g};"
        " median (longest) in ms"
    )
    rows, raw = [], {}
    with Lab([OURS, BARE], third_host=True) as lab, Client(lab.c.host) as client:
        for pair in given.pairs.split(","):
            bench = Bench(lab, client, witness=pair == "witness")
            for fault in given.faults.split(","):
                series = _measure(bench, fault, given.crashes if fault == "crash" else given.runs)
                what = f"{fault}, {'with a witness' if pair == 'witness' else 'plain pair'}"
                rows.append(_row(what, fault, series))
                if fault == "switch":
                    whole = Series(ours=series.whole, floor=series.whole_floor)
                    rows.append(_row(f"{what}: from the signal on", fault, whole))
                print_story(what, series.moves)
                raw[what] = vars(series)
            bench.end()
    head = ("fault", "runs", "floor", "failover-agent", "beside the floor", "aim", "met")
    print_table(head, rows)
    if given.json:
        given.json.write_text(json.dumps(raw, indent=1))


if __name__ == "__main__":
    main()
