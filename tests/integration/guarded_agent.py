"""An agent of the tests, under a real guard: speaks the lifeline, and otherwise does as it is told.

    python guarded_agent.py FOLDER

Says hello with what FOLDER/hello.json holds, writes FOLDER/agent-N.json (its pid, its lease) once
it was welcomed, then takes orders, one JSON object each, from the datagram socket FOLDER/orders:
{"send": <a message of the lifeline>}, {"renew": <seconds>} (from now on, ten times a second),
{"exit": code}, {"spin": true}, {"eat": true} (memory, until there is none), {"close": true}. What
the guard says is appended to FOLDER/heard. When the guard dies it writes FOLDER/lost and ends.
"""

import json
import math
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

from failover_agent.guard import lifeline

FOLDER = Path(sys.argv[1])


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: note("signals", "TERM"))
    signal.signal(signal.SIGHUP, lambda *_: note("signals", "HUP"))
    line = socket.socket(fileno=int(os.environ[lifeline.VARIABLE]))
    orders = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    (FOLDER / "orders").unlink(missing_ok=True)
    orders.bind(str(FOLDER / "orders"))
    welcome = json.loads(line.recv(lifeline.LONGEST))
    hello = FOLDER / "hello.json"
    if hello.exists():
        line.send(hello.read_bytes())
    number = len(list(FOLDER.glob("agent-*.json"))) + 1
    state = {"pid": os.getpid(), "lease_until_s": shown(welcome["lease_until_s"])}
    temporary = FOLDER / f"{number}.new"
    temporary.write_text(json.dumps(state))
    temporary.rename(FOLDER / f"agent-{number}.json")

    term, lease_s = 0, 0.0
    while True:
        readable, _, _ = select.select([orders, line], [], [], 0.1)
        if line in readable:
            said = line.recv(lifeline.LONGEST)
            if not said:
                note("lost", "the guard has gone")
                return
            note("heard", said.decode())
        if orders in readable:
            order = json.loads(orders.recv(lifeline.LONGEST))
            if order.get("spin"):
                while True:
                    pass
            if order.get("eat"):
                eaten = []
                while True:
                    eaten.append(os.urandom(1 << 20))
            if "exit" in order:
                sys.exit(order["exit"])
            if "send" in order:
                line.send(json.dumps(order["send"]).encode())
            if "renew" in order:
                term, lease_s = order["term"], order["renew"]
        if lease_s:
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            line.send(lifeline.encode(lifeline.Move(term, now + lease_s)))


def note(name: str, text: str) -> None:
    with (FOLDER / name).open("a") as file:
        file.write(text + "\n")


def shown(moment: float) -> float | str:
    return moment if math.isfinite(moment) else str(moment)


if __name__ == "__main__":
    main()
