"""A lab: hosts with engines, the same containers on each, agents where asked, and cables to cut.

    with Lab(["db", Spec("web", port=8080)]) as lab:
        lab.a.services["web"].start()
        lab.a.crash()
        until(lambda: not lab.truth.running_now(), 30, "the crash ends the container")

Everything it makes - processes, namespaces, mounts, control groups, files - is gone at the end of
the block, whatever happened in it, and even where this process is killed: the hosts wait at a pipe
for its end. Only files can be left then; the next lab sweeps them.
"""

import contextlib
import secrets
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.lab import ground
from tests.lab.agent import CONFIG, SECRET, Agent, Role, default_command, pair_config, to_toml
from tests.lab.engine import Engine
from tests.lab.host import Host
from tests.lab.network import Network
from tests.lab.service import Service, Spec
from tests.lab.truth import Truth

LOG_TAIL_LINES = 40


class Node:
    """One host with its engine, its containers and its agent."""

    def __init__(
        self,
        host: Host,
        specs: Iterable[Spec],
        containers: Path,
        *,
        has_engine: bool,
        release: str = "",
    ) -> None:
        self.host = host
        self.engine = Engine(host, release)
        self.has_engine = has_engine
        self.services = {
            spec.name: Service(self.engine, spec, containers / host.name / spec.name)
            for spec in specs
        }
        self._agent: Agent | None = None

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def address(self) -> str:
        return self.host.address

    @property
    def has_agent(self) -> bool:
        """One was started, be it dead by now."""
        return self._agent is not None

    @property
    def agent(self) -> Agent:
        """The one started last."""
        assert self._agent is not None, f"no agent was started on {self.name}"
        return self._agent

    @agent.setter
    def agent(self, agent: Agent) -> None:
        self._agent = agent

    def crash(self) -> None:
        """The power fails: engine, containers and agent end at once, and the cable is dead."""
        self.host.crash()

    def boot(self) -> None:
        """Another boot id, the same disk; the engine starts, the agent is the caller's to start."""
        self.host.boot()
        if self.has_engine:
            self.engine.start()

    def reboot(self) -> None:
        """`crash()`, then `boot()`."""
        self.crash()
        self.boot()

    def docker(self, *arguments: str) -> str:
        """The docker command line on this host; what it prints."""
        return self.engine.docker(*arguments)


class Lab:
    """Hosts `host-a` and `host-b` (and `host-c`, without an engine, for a third party)."""

    def __init__(
        self,
        containers: Sequence[str | Spec],
        *,
        third_host: bool = False,
        releases: tuple[str, str] = ("", ""),
    ) -> None:
        """Nothing is made before `with`. Container names have two letters or more.

        `releases`: of the engines of both hosts, as in engine_root.py; "" for the machine's own.
        """
        self.releases = releases
        self.specs = [Spec(item) if isinstance(item, str) else item for item in containers]
        self._letters = "abc" if third_host else "ab"
        self._secret = secrets.token_hex(32)
        self._undo = contextlib.ExitStack()

    # -- building and clearing away -----------------------------------------------------------

    def __enter__(self) -> Self:
        ground.check_machine()
        ground.sweep()
        with contextlib.ExitStack() as undo:
            self.folder = ground.claim(undo)
            self.network = Network(self.folder)
            undo.callback(self.network.close)
            self.truth = Truth(self.folder / "containers")
            self._nodes: dict[str, Node] = {}
            for number, letter in enumerate(self._letters, start=1):
                host = Host(f"host-{letter}", f"10.77.0.{number}", self.network, self.folder)
                undo.callback(host.close)
                has_engine = letter != "c"
                specs = self.specs if has_engine else ()
                release = dict(zip("ab", self.releases, strict=True)).get(letter, "")
                node = Node(host, specs, self.truth.folder, has_engine=has_engine, release=release)
                self._nodes[letter] = node
                host.boot()
            self._name_hosts()
            self._start_engines()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            sys.stderr.write(self.report())
        self._undo.close()

    def keep(self) -> None:
        """Leaves everything as it is when this process ends: `python -m tests.lab.ground FOLDER`
        clears it away. The lab must not be used afterwards.
        """
        for node in self._nodes.values():
            node.host.stay()
        self.network.stay()
        ground.keep(self.folder)
        self._undo.pop_all()

    def _name_hosts(self) -> None:
        """Every host knows every other by name."""
        lines = [f"{node.address} {node.name}" for node in self._nodes.values()]
        for node in self._nodes.values():
            node.host.path("/etc/hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))

    def _start_engines(self) -> None:
        """Side by side: that takes half the time."""
        nodes = [self.a, self.b]
        for node in nodes:
            node.engine.begin_start()
        for node in nodes:
            node.engine.wait_up()
            node.engine.load_image()
            for service in node.services.values():
                service.create()

    # -- the hosts ----------------------------------------------------------------------------

    @property
    def a(self) -> Node:
        return self._nodes["a"]

    @property
    def b(self) -> Node:
        return self._nodes["b"]

    @property
    def c(self) -> Node:
        """Only with `third_host`; it has no engine."""
        return self._nodes["c"]

    def peer_of(self, node: Node) -> Node:
        return self.b if node is self.a else self.a

    # -- agents -------------------------------------------------------------------------------

    def start_agent(
        self,
        node: Node,
        role: Role,
        overrides: Mapping[str, Any] | None = None,
        command: Sequence[str] | None = None,
        *,
        supervised: bool = False,
    ) -> Agent:
        """Writes config and secret, and starts the agent of this role there.

        `overrides` are settings as in the file: a key's value, or a table's additions. `command`
        stands for `failover-agent`, for another version of it. `supervised`: started again 100 ms
        after each death, as by systemd.
        """
        port = self.configure(node, role, overrides)[role]["port"]
        node.agent = Agent(
            node.host, role, port, command or default_command(), supervised=supervised
        )
        return node.agent

    def start_pair(self, overrides: Mapping[str, Any] | None = None) -> None:
        """The primary on `a`, the backup on `b`."""
        self.start_agent(self.a, "primary", overrides)
        self.start_agent(self.b, "backup", overrides)

    def configure(
        self, node: Node, role: Role, overrides: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Writes what an agent of this role on this node reads at its start; gives the config."""
        names = [spec.name for spec in self.specs]
        own, peer = (self.a, self.b) if role == "witness" else (node, self.peer_of(node))
        config = pair_config(role, own.host, peer.host, names, overrides or {})
        for file, text in ((CONFIG, to_toml(config)), (SECRET, self._secret + "\n")):
            path = node.host.path(file)
            path.parent.mkdir(exist_ok=True)
            path.touch(mode=0o600)
            path.write_text(text)
        return config

    # -- looking ------------------------------------------------------------------------------

    def report(self) -> str:
        """The last lines of every log, for a failed test."""
        parts = []
        for log in sorted((self.folder / "logs").iterdir()):
            lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
            parts.append("\n".join([f"--- {log.name}", *lines, ""]))
        return "\n".join(parts)
