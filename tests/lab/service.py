"""A service container on one host, and the levers that a test has on it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.engine import Engine
from tests.lab.host import LAB
from tests.lab.image import IMAGE

ONE_MS = 1_000_000  # the engine counts health intervals in ns


@dataclass(frozen=True, slots=True)
class Spec:
    """How a container is made, the same on every host."""

    name: str
    port: int | None = None  # serves "NAME on HOST" over http there, on the host's network
    health: bool = False  # with a HEALTHCHECK, every 0.5 s, unhealthy at the second failure
    ignores_term: bool = False
    stop_timeout_s: int = 2  # between TERM and KILL
    memory_mb: int | None = None  # 16 is enough for it, and can be OOM-killed
    restart: str = "no"
    command: tuple[str, ...] | None = None  # instead of the service: it will not tick

    def config(self) -> dict[str, Any]:
        """The body of the engine's create call: the same on every host, to the letter."""
        folder = f"{LAB}/{self.name}"
        environment = {"NAME": self.name, "PORT": self.port or ""}
        environment["IGNORES_TERM"] = "1" if self.ignores_term else ""
        memory = (self.memory_mb or 0) * 1024 * 1024
        config: dict[str, Any] = {
            "Image": IMAGE,
            "Env": [f"{key}={value}" for key, value in environment.items()],
            "StopTimeout": self.stop_timeout_s,
            "HostConfig": {
                "NetworkMode": "host",
                "RestartPolicy": {"Name": self.restart},
                "Memory": memory,
                "MemorySwap": memory,
                "Mounts": [
                    {"Type": "bind", "Source": folder, "Target": "/lab"},
                    {"Type": "bind", "Source": f"{folder}/volume", "Target": "/volume"},
                ],
            },
        }
        if self.command is not None:
            config["Cmd"] = list(self.command)
        if self.health:
            config["Healthcheck"] = {
                "Test": ["CMD-SHELL", "test ! -e /lab/sick"],
                "Interval": 500 * ONE_MS,
                "Timeout": 5000 * ONE_MS,
                "Retries": 2,
            }
        return config


class Service:
    """One container on one host. Levers outlive it: they hold for a recreated one too."""

    def __init__(self, engine: Engine, spec: Spec, folder: Path) -> None:
        self.spec = spec
        self._engine = engine
        self._folder = folder
        (folder / "volume").mkdir(parents=True, exist_ok=True)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def state(self) -> str:
        """`running`, `exited`, ... by the engine's word; `missing` where it knows none."""
        return self._engine.state(self.name)

    # -- by the engine ------------------------------------------------------------------------

    def create(self, name: str | None = None) -> None:
        """Not started. Under another name for a recreate: see `recreate`."""
        path = f"/containers/create?name={name or self.name}"
        self._engine.must("POST", path, self.spec.config())

    def start(self) -> None:
        self._do("start")

    def stop(self) -> None:
        self._do("stop")

    def kill(self) -> None:
        """`docker kill`: SIGKILL."""
        self._do("kill")

    def restart(self) -> None:
        self._do("restart")

    def pause(self) -> None:
        """Pauses are made here and not by the docker command, so that the truth knows of them."""
        self._do("pause")
        with (self._folder / "ticks").open("a") as ticks:
            ticks.write("pause\n")

    def unpause(self) -> None:
        self._do("unpause")

    def remove(self) -> None:
        """`docker rm -f`."""
        self._engine.must("DELETE", f"/containers/{self.name}?force=1")

    def recreate(self) -> None:
        """As `docker compose up --force-recreate` does it: gone for a moment, then another id."""
        new = f"0123456789ab_{self.name}"
        self.create(new)
        self._do("stop")
        self.remove()  # by force: an agent may have started it again
        self._engine.must("POST", f"/containers/{new}/rename?name={self.name}")
        self._do("start")

    # -- by its levers ------------------------------------------------------------------------

    def make_sick(self) -> None:
        """Its health check fails from now on (`health=True`)."""
        assert self.spec.health, f"{self.name} has no health check"
        (self._folder / "sick").touch()

    def make_well(self) -> None:
        (self._folder / "sick").unlink(missing_ok=True)

    def exit(self, code: int = 1) -> None:
        """It ends by itself, once."""
        _write(self._folder / "exit", f"{code}\n")

    def stay(self) -> None:
        """Takes `exit` back, where it has not ended yet: or its next start would."""
        (self._folder / "exit").unlink(missing_ok=True)

    def run_out_of_memory(self) -> None:
        """The kernel kills it, once (`memory_mb=...`)."""
        assert self.spec.memory_mb, f"{self.name} has no memory limit"
        (self._folder / "eat").touch()

    def break_process(self) -> None:
        """From its next start on, it exits with 1 at once; a running one runs on."""
        (self._folder / "broken").touch()

    def mend_process(self) -> None:
        (self._folder / "broken").unlink(missing_ok=True)

    def break_start(self) -> None:
        """Its volume is gone: the engine refuses the next start; a running one runs on."""
        (self._folder / "volume").rename(self._folder / "volume-away")

    def mend_start(self) -> None:
        (self._folder / "volume-away").rename(self._folder / "volume")

    def inspect(self) -> dict[str, Any]:
        answer = self._engine.must("GET", f"/containers/{self.name}/json")
        inspected: dict[str, Any] = json.loads(answer.text)
        return inspected

    def _do(self, verb: str) -> None:
        self._engine.must("POST", f"/containers/{self.name}/{verb}")


def _write(file: Path, text: str) -> None:
    """Whole or not at all: the container may read it at any moment."""
    unfinished = file.with_suffix(".new")
    unfinished.write_text(text)
    unfinished.rename(file)
