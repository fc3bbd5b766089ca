"""The main job, watched: two hosts with a real Docker Engine each, two agents, and disasters.

`make demo` runs a plain pair; `make demo WITNESS=1` a pair with a witness on a third host, and cuts
the wire between the two as well. KEEP=1 leaves it running and says how to look at it.
"""

import os
import shlex
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.lab.agent import PORT, default_command
from tests.lab.engine import DOCKER_HOST
from tests.lab.lab import Lab, Node
from tests.lab.service import Spec
from tests.lab.truth import now_s
from tests.lab.until import until

TOP = Path(__file__).resolve().parents[1]
WIDTH = 80
LIMIT_S = 60
CLUSTER = "shop"
TIMINGS = {
    "heartbeat_interval": 0.5,
    "check_heartbeat_interval": 0.5,
    "heartbeat_timeout": 3.0,
    "startup_grace_period": 2.0,
    "restart_grace_period": 4.0,
}


def title(text: str) -> None:
    print(f"\n{'=' * WIDTH}\n{text}\n{'=' * WIDTH}", flush=True)


def say(text: str) -> None:
    print("\n" + textwrap.fill(text, WIDTH), flush=True)


def show(node: Node, *arguments: str) -> None:
    """Run the command line on a host as its operator would, and show what it prints."""
    print(f"\n{node.name}# failover-agent {' '.join(arguments)}", flush=True)
    print(node.agent.cli(*arguments).stdout.rstrip(), flush=True)


def wait(condition: Callable[[], object], what: str) -> None:
    until(condition, LIMIT_S, what)


def is_redundant(node: Node) -> bool:
    """Active, with a standby that could take over."""
    try:
        status = node.agent.status()
    except OSError:
        return False
    return bool(status["phase"] == "active" and status["redundancy"]["ok"])


def serves(lab: Lab, node: Node) -> bool:
    """Do all containers run on this host, by their own word?"""
    return {name for _, name in lab.truth.running_now(node.name)} == {"db", "web"}


def measure(lab: Lab, since_s: float, what: str) -> None:
    print(f"\n  {what}: web was away for {lab.truth.downtime('web', since_s):.1f} s")
    overlaps = lab.truth.overlaps()
    print(f"  containers that ever ran on both hosts at once: {len(overlaps)}", flush=True)


def settings_of(lab: Lab, *, has_witness: bool) -> dict[str, Any]:
    """What the file of each agent says."""
    if not has_witness:
        return {"cluster": CLUSTER, **TIMINGS}
    endpoint = f"http://{lab.c.address}:{PORT}"
    arbiter = {"kind": "witness", "endpoint": endpoint}
    return {"cluster": CLUSTER, **TIMINGS, "arbiter": arbiter, "witness": {"port": PORT}}


def play(lab: Lab, *, has_witness: bool) -> None:
    a, b, settings = lab.a, lab.b, settings_of(lab, has_witness=has_witness)
    for node in (a, b):
        version = node.docker("version", "--format", "{{.Server.Version}}").strip()
        print(f"  {node.name}  {node.address}  Docker Engine {version}, containers: db, web")

    if has_witness:
        print(f"  {lab.c.name}  {lab.c.address}  the witness, without Docker")
    else:
        print("  no third host: a plain pair (with a witness: make demo WITNESS=1)")

    title("1. The pair starts")
    if has_witness:
        print(f"\n{lab.c.name}# failover-agent run --role witness")
        lab.start_agent(lab.c, "witness", settings)
    print("\nhost-a# failover-agent run --role primary")
    print("host-b# failover-agent run --role backup", flush=True)
    lab.start_pair(settings)
    wait(lambda: is_redundant(a), "the primary is active and the backup ready")
    show(a, "status")

    title("2. A container dies, and cannot be brought back")
    say(
        "web on host-a is killed, and its program is broken: each start ends at once. The agent"
        " tries to repair it for restart_grace_period (4 s), then hands the whole group over."
    )
    a.services["web"].break_process()
    died_at_s = now_s()
    a.services["web"].kill()
    wait(lambda: serves(lab, b), "host-b runs everything")
    measure(lab, died_at_s, "container failure")
    a.services["web"].mend_process()
    wait(lambda: is_redundant(b), "host-a is ready again")
    show(b, "status")

    title("3. The active host loses power")
    say("host-b goes dark: engine, containers and agent at once. heartbeat_timeout: 3 seconds.")
    died_at_s = now_s()
    b.crash()
    wait(lambda: serves(lab, a), "host-a runs everything")
    measure(lab, died_at_s, "host crash")

    title("4. It comes back, as standby")
    b.boot()
    lab.start_agent(b, "backup", settings)
    wait(lambda: is_redundant(a), "host-b is back as standby")
    wait(lambda: b.agent.status()["peer"]["phase"] == "active", "host-b knows who leads")
    show(b, "status")

    if has_witness:
        cut(lab)
    title(f"{6 if has_witness else 5}. What happened, and why")
    show(a, "history")


def cut(lab: Lab) -> None:
    """Host-a leads: it is to go on, and host-b is not to start anything."""
    a, b = lab.a, lab.b
    title("5. The wire between the two healthy hosts is cut")
    say(
        "Each still reaches the witness, and neither the other. A plain pair could not tell this"
        " from a dead host, and both would run. The witness gives nobody else leave to lead while"
        " host-a renews its lease there. Watched for three times heartbeat_timeout:"
    )
    cut_at_s = now_s()
    lab.network.cut_both(a, b)
    wait(lambda: now_s() > cut_at_s + 3 * TIMINGS["heartbeat_timeout"], "the time to pass")
    measure(lab, cut_at_s, "cut wire")
    show(b, "status")
    lab.network.heal()
    wait(lambda: is_redundant(a), "the two hear each other again")


def main() -> int:
    began_at_s = now_s()
    has_witness = bool(os.environ.get("WITNESS"))
    title("failover-agent: two hosts on this machine, a real Docker Engine on each")
    with Lab(["db", Spec("web", port=8080)], third_host=has_witness) as lab:
        play(lab, has_witness=has_witness)
        print(f"\n  the demonstration took {now_s() - began_at_s:.0f} s")
        if os.environ.get("KEEP"):
            keep(lab)
    return 0


def keep(lab: Lab) -> None:
    """Leave the pair running, and say how to look at it and how to end it."""
    title("KEEP=1: the pair goes on running")
    print("\nPaste this into a shell (bash, as root), from anywhere:\n")
    for node, role in ((lab.a, "primary"), (lab.b, "backup")):
        print(f"{node.name}() {{ nsenter -t {node.host.pid} --net --pid --mount env \\")
        print(f"  FAILOVER_AGENT_ROLE={role} DOCKER_HOST={DOCKER_HOST} \\")
        print('  "$@"; }')
    print(f"agent={shlex.quote(' '.join(default_command()))}")
    print("\nThen, for example:\n")
    print("host-a $agent status --watch")
    print("host-b $agent history")
    print("host-a $agent status --json | grep '\"pid\"'    # kill PID: a planned move")
    print("host-a $agent run &       # an agent that was stopped: nothing here restarts it")
    print("\nEnd it, from anywhere:\n")
    print(f"make -C {shlex.quote(str(TOP))} demo-end \\\n  LAB={lab.folder}", flush=True)
    lab.keep()


if __name__ == "__main__":
    sys.exit(main())
