"""etcd in the lab: the machine's own binary, a member a host, killed and frozen like everything.

Data lies on the host's disk and outlives a reboot, as a member's has to.
"""

import json
import shutil
from collections.abc import Sequence

from tests.lab.host import Host
from tests.lab.process import PATH, Process
from tests.lab.until import until

CLIENT_PORT = 2379
PEER_PORT = 2380
DATA = "/var/lib/etcd"
START_LIMIT_S = 60


class Member:
    """One member, on one host. Off until `start()`; ends with its host."""

    def __init__(self, host: Host, cluster: str) -> None:
        """`cluster` is etcd's own list of all members."""
        self.host = host
        self._cluster = cluster
        self._process: Process | None = None

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def endpoint(self) -> str:
        return f"http://{self.host.address}:{CLIENT_PORT}"

    @property
    def process(self) -> Process:
        assert self._process is not None, f"no etcd was started on {self.name}"
        return self._process

    def is_running(self) -> bool:
        return self._process is not None and self._process.is_alive()

    def start(self) -> None:
        """Returns at once: a member of three answers when a second one is there."""
        if shutil.which("etcd", path=PATH) is None:
            raise RuntimeError("not installed: etcd. Run scripts/install-packages")
        peer = f"http://{self.host.address}:{PEER_PORT}"
        settings = {
            "name": self.name,
            "data-dir": DATA,
            "listen-client-urls": self.endpoint,
            "advertise-client-urls": self.endpoint,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": self._cluster,
            "logger": "zap",
        }
        command = ["etcd", *(f"--{key}={value}" for key, value in settings.items())]
        self._process = self.host.spawn("etcd", command)

    def is_healthy(self) -> bool:
        """It answers, and its quorum stands."""
        try:
            code, body = self.host.http_get(f"{self.endpoint}/health", timeout_s=1)
        except OSError:
            return False
        return code == 200 and json.loads(body)["health"] in ("true", True)

    def kill(self) -> None:
        self.process.sigkill()

    def freeze(self) -> None:
        """It accepts connections, and does not answer."""
        self.process.sigstop()

    def thaw(self) -> None:
        self.process.sigcont()


class Etcd:
    """One member, or three."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        cluster = ",".join(f"{host.name}=http://{host.address}:{PEER_PORT}" for host in hosts)
        self.members = [Member(host, cluster) for host in hosts]

    @property
    def endpoints(self) -> list[str]:
        return [member.endpoint for member in self.members]

    def start(self) -> None:
        """Returns when all members are healthy."""
        for member in self.members:
            member.start()
        self.wait_healthy()

    def wait_healthy(self, limit_s: float = START_LIMIT_S) -> None:
        until(lambda: all(it.is_healthy() for it in self.members), limit_s, "etcd is healthy")

    def member_on(self, host: Host) -> Member | None:
        """None where none was meant to be."""
        return next((it for it in self.members if it.host is host), None)
