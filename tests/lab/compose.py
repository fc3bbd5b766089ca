"""The product's own image and compose.yaml on the hosts of a lab, as an operator has them there.

    with ComposeTrio.build_compose(image, heartbeat_timeout=3.0) as trio:
        trio.composes["host-a"].run("down")

`image` is what builder.py makes.
"""

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.lab import cgroups
from tests.lab.agent import PORT, Agent, Role, freeze, signal_all
from tests.lab.engine import DOCKER_HOST
from tests.lab.lab import Lab, Node
from tests.lab.metronome import Metronome
from tests.lab.process import Process
from tests.lab.trio import Trio
from tests.lab.until import until

COMPOSE_FILE = Path(__file__).parents[2] / "compose.yaml"
FOLDER = "/opt/failover-agent"
CONTAINER = "failover-agent"
LIMIT_S = 240


class Compose:
    """compose on one node of a lab, whose engine runs. Its files lie on the disk of the host."""

    def __init__(self, lab: Lab, node: Node, image: Path) -> None:
        """`image` is what build_image() has made."""
        self.lab = lab
        self.node = node
        node.docker("load", "--quiet", "--input", str(image))
        folder = node.host.path(FOLDER)
        folder.mkdir(exist_ok=True)
        shutil.copy(COMPOSE_FILE, folder)

    def up(self, role: Role, overrides: Mapping[str, Any]) -> "ComposeAgent":
        """Config and secret, the role, and then `docker compose up`."""
        self.lab.configure(self.node, role, overrides)
        self.node.host.path(f"{FOLDER}/.env").write_text(f"FAILOVER_AGENT_ROLE={role}\n")
        self.run("up", "--detach", "--no-build")
        return ComposeAgent(self, role)

    def run(self, *command: str) -> str:
        """`docker compose COMMAND`; what it prints. Raises RuntimeError where it fails."""
        program = Path(sys.executable).with_name("docker-compose")
        options = ("--project-directory", FOLDER, "--file", f"{FOLDER}/compose.yaml")
        return self.node.host.run(
            [program, *options, *command], env={"DOCKER_HOST": DOCKER_HOST}, limit_s=LIMIT_S
        ).stdout

    def docker(self, *arguments: str) -> str:
        """`docker ARGUMENTS`, of the agent's container."""
        return self.node.docker(*arguments, CONTAINER)


class ComposeAgent(Agent):
    """The product in its container: started, supervised and ended by the engine."""

    def __init__(self, compose: Compose, role: Role) -> None:
        """It was started already."""
        self.role = role
        self.url = f"http://{compose.node.address}:{PORT}"
        self.program = f"docker exec {CONTAINER} failover-agent"
        self.compose = compose
        self._host = compose.node.host
        self._is_supervised = True

    @property
    def process(self) -> Process:
        """Who started it: the engine."""
        return self.compose.node.engine.process

    @process.setter
    def process(self, process: Process) -> None:
        raise AssertionError(process)

    def is_alive(self) -> bool:
        """Running, or about to be started again."""
        engine = self.compose.node.engine
        return engine.is_up() and engine.state(CONTAINER) in ("running", "restarting")

    def restarts(self) -> int:
        """How often the engine has started it anew, since it was created."""
        return int(self.compose.docker("inspect", "--format", "{{.RestartCount}}"))

    def health(self) -> str:
        return self.compose.docker("inspect", "--format", "{{.State.Health.Status}}").strip()

    def cli(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        line = ["docker", "exec", CONTAINER, "failover-agent", *arguments]
        return self._host.run(line, env={"DOCKER_HOST": DOCKER_HOST}, check=False)

    def sigterm(self) -> None:
        """`docker compose down`, which waits for the end."""
        self.compose.run("down")

    def sigkill(self) -> None:
        """Guard and agent at once, as by the kernel: the engine starts them again."""
        pids = self.pids()
        self.sigstop()  # or the one would start the other anew
        signal_all(pids, signal.SIGKILL)
        until(lambda: not {*pids} & {*self.pids()}, 30, "killed")

    def sigstop(self) -> None:
        freeze(self.pids())

    def sigcont(self) -> None:
        signal_all(self.pids(), signal.SIGCONT)

    def end(self) -> None:
        """`docker rm --force`."""
        self.compose.docker("rm", "--force")

    def log(self) -> str:
        command = ["docker", "logs", CONTAINER]
        done = self._host.run(command, env={"DOCKER_HOST": DOCKER_HOST}, check=False)
        return done.stdout + done.stderr


class ComposeTrio(Trio):
    """A pair and its witness, all three in containers; `build_compose()` makes one."""

    def __init__(self, lab: Lab, image: Path, metronome: Metronome, **settings: Any) -> None:
        super().__init__(lab, "witness", metronome, **settings)
        cgroups.favour(lab.folder.name)  # the agents themselves are in there
        lab.c.engine.start()
        nodes = [*self.nodes, lab.c]
        with ThreadPoolExecutor() as beside:
            made = list(beside.map(lambda node: Compose(lab, node, image), nodes))
        self.composes = dict(zip((node.name for node in nodes), made, strict=True))

    @classmethod
    @contextlib.contextmanager
    def build_compose(cls, image: Path, **settings: Any) -> "Iterator[ComposeTrio]":
        """As `build()`."""
        with Lab(["db", "web"], third_host=True) as lab, Metronome() as metronome:
            trio = cls(lab, image, metronome, **settings)
            trio.start()
            yield trio

    def start_agent(self, node: Node, **changes: Any) -> None:
        role: Role = "primary" if node is self.lab.a else "backup"
        node.agent = self.composes[node.name].up(role, {**self.settings, **changes})

    def start_witness(self) -> None:
        self.lab.c.agent = self.composes[self.lab.c.name].up("witness", self.settings)
