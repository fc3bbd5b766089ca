"""The floor: the least that any agent could do, as a bare script on persistent connections.

    python floor.py death FROM TO NAME    waits for `die` of NAME at FROM, starts it at TO
    python floor.py switch FROM TO NAME   at a line on its input: stops it at FROM, starts it at TO
    python floor.py start FROM TO NAME    at a line on its input: starts it at TO

FROM and TO are the engines' unix sockets. It asks nobody, writes nothing down, and would start a
second copy without noticing. Prints "ready", and one line of JSON with its moments (CLOCK_BOOTTIME)
when the start call has returned.
"""

import http.client
import json
import socket
import sys
import time
from urllib.parse import quote

STOP_GRACE_S = 2


class Engine(http.client.HTTPConnection):
    """One connection that stays open."""

    def __init__(self, path: str) -> None:
        super().__init__("engine")
        self._path = path
        self.connect()

    def connect(self) -> None:
        """To the unix socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)

    def order(self, path: str) -> None:
        """A POST that has to succeed."""
        self.request("POST", path)
        answer = self.getresponse()
        said = answer.read().decode()
        if answer.status not in (204, 304):
            raise RuntimeError(f"POST {path}: {answer.status} {said}")

    def wait_for_death(self, name: str) -> None:
        """Opens the stream of events, says so, and returns with the first `die`."""
        filters = {"type": ["container"], "event": ["die"], "container": [name]}
        self.request("GET", f"/events?filters={quote(json.dumps(filters))}")
        answer = self.getresponse()
        print("ready", flush=True)
        answer.readline()


def now_s() -> float:
    """CLOCK_BOOTTIME."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def main() -> None:
    what, source_path, target_path, name = sys.argv[1:]
    target = Engine(target_path)
    moments = {}
    if what == "death":
        Engine(source_path).wait_for_death(name)
        moments["died"] = now_s()
    else:
        source = Engine(source_path) if what == "switch" else None
        print("ready", flush=True)
        sys.stdin.readline()
        moments["told"] = now_s()
        if source is not None:
            source.order(f"/containers/{name}/stop?t={STOP_GRACE_S}")
            moments["stopped"] = now_s()
    target.order(f"/containers/{name}/start")
    moments["started"] = now_s()
    print(json.dumps(moments), flush=True)


if __name__ == "__main__":
    main()
