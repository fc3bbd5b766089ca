"""The Docker Engine of a host: the machine's dockerd binary with a containerd of its own.

Everything is where a host has it: the socket at /run/docker.sock, the data in /var/lib/docker, the
settings in /etc/docker/daemon.json. It starts containers by itself at start, or not, by their
restart policies, as any engine does; nothing here helps it.
"""

import json
from pathlib import Path

from tests.lab import engine_api, engine_root
from tests.lab.engine_api import Answer
from tests.lab.host import Host
from tests.lab.image import image_tar
from tests.lab.process import Process
from tests.lab.until import until

DOCKER_HOST = "unix:///run/docker.sock"  # inside the host
START_LIMIT_S = 60  # an engine that finds survivors of a killed one ends them first, with grace
STOP_LIMIT_S = 60


class Engine:
    """Off until `start()`; ends with its host. `release`: of engine_root.py, or the machine's."""

    def __init__(self, host: Host, release: str = "") -> None:
        self._host = host
        self.release = release
        self._process: Process | None = None
        self._settings: dict[str, object] = {
            "iptables": False,
            "ip6tables": False,
            "bridge": "none",
            "log-level": "warn",
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "cgroup-parent": f"/{host.cgroup}",
        }

    @property
    def process(self) -> Process:
        """The running dockerd."""
        if self._process is None or not self._process.is_alive():
            raise RuntimeError(f"the engine of {self._host.name} does not run")
        return self._process

    def is_running(self) -> bool:
        """The process is there, be it frozen."""
        return self._process is not None and self._process.is_alive()

    def is_up(self) -> bool:
        """It answers."""
        try:
            return self.api("GET", "/_ping", timeout_s=1).status == 200
        except OSError:
            return False

    # -- its life -----------------------------------------------------------------------------

    def begin_start(self, **settings: object) -> None:
        """Starts dockerd. `settings` go into daemon.json for good (`live_restore=True`)."""
        self._settings |= {key.replace("_", "-"): value for key, value in settings.items()}
        file = self._host.path("/etc/docker/daemon.json")
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(self._settings, indent=2))
        command = engine_root.dockerd(self._host, self.release) if self.release else ["dockerd"]
        self._process = self._host.spawn("dockerd", command)

    def wait_up(self, limit_s: float = START_LIMIT_S) -> None:
        process = self.process
        what = f"the engine of {self._host.name} answers"
        until(lambda: self.is_up() or not process.is_alive(), limit_s, what)
        if not process.is_alive():
            raise RuntimeError(f"{what}: no, it ended: {process.log()[-2000:]}")

    def start(self, **settings: object) -> None:
        """Returns when it answers."""
        self.begin_start(**settings)
        self.wait_up()

    def stop(self) -> None:
        """SIGTERM: it stops its containers, with their grace, and ends."""
        process = self.process
        process.sigterm()
        process.wait(STOP_LIMIT_S)

    def restart(self, **settings: object) -> None:
        self.stop()
        self.start(**settings)

    def kill(self) -> None:
        """SIGKILL to dockerd: containers run on, until the next dockerd finds and ends them."""
        self.process.sigkill()

    def freeze(self) -> None:
        """SIGSTOP: the socket accepts, nobody answers. Containers run on."""
        self.process.sigstop()

    def thaw(self) -> None:
        self.process.sigcont()

    # -- talking to it ------------------------------------------------------------------------

    @property
    def socket(self) -> Path:
        """Where this machine reaches it, as long as the host is up."""
        return self._host.path("/run/docker.sock")

    def api(self, method: str, path: str, body: object = None, *, timeout_s: float = 30) -> Answer:
        """One request. Raises OSError where the engine does not answer."""
        return engine_api.call(self.socket, method, path, body, timeout_s=timeout_s)

    def must(self, method: str, path: str, body: object = None) -> Answer:
        """A request that has to succeed. Raises RuntimeError with the engine's words."""
        answer = self.api(method, path, body)
        if answer.status >= 400:
            raise RuntimeError(
                f"{self._host.name}: {method} {path}: {answer.status} {answer.text.strip()}"
            )
        return answer

    def docker(self, *arguments: str) -> str:
        """The docker command line inside the host; what it prints. Raises where it fails."""
        return self._host.run(["docker", *arguments], env={"DOCKER_HOST": DOCKER_HOST}).stdout

    def load_image(self) -> None:
        said = self.must("POST", "/images/load?quiet=1", image_tar()).text
        if "error" in said:
            raise RuntimeError(f"{self._host.name}: the image was not taken: {said}")

    def state(self, name: str) -> str:
        """`State.Status` of a container, or `missing`."""
        answer = self.api("GET", f"/containers/{name}/json")
        return "missing" if answer.status == 404 else str(answer.json["State"]["Status"])
