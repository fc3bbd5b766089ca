"""A lab host under systemd: PID 1 is the real one, and it runs the real unit of the product.

    system = Systemd(lab.a, lab.configure)
    system.boot()
    agent = system.start_agent("primary", settings)

systemd-nspawn with `--volatile=yes` needs no root file system: the machine's /usr, an empty /etc,
and in it what is bound or written. The engine lives in the same pid namespace, so that a guard sees
the processes of the containers, as it does on a host; it is started by the test, not by a unit.
"""

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.lab.agent import CONFIG, PORT, Agent, Role
from tests.lab.lab import Lab, Node
from tests.lab.process import PATH, Process, first_child, service_environment
from tests.lab.until import until

ROOT = Path(__file__).parents[2]
UNIT = "failover-agent.service"
HOME = "/opt/failover-agent"  # where the unit expects the product
PYTHON = "/opt/python"
ENGINE = "/run/engine"
STATE = "/var/lib/failover-agent"
# Nothing of the machine's own is to come up in there.
MASKED = (
    "containerd.service",
    "docker.service",
    "docker.socket",
    "nftables.service",
    "systemd-firstboot.service",
    "systemd-networkd-wait-online.service",
    "systemd-networkd.service",
)
# Its control groups lie below the host's, where the lab clears them away: v1 has one tree for them
# and perhaps an empty v2 beside it, v2 has one for all.
IN_GROUP = """
cd /sys/fs/cgroup
for tree in systemd unified .; do
    [ -e $tree/cgroup.procs ] || continue
    mkdir -p $tree/$0
    echo $$ >$tree/$0/cgroup.procs
done
exec "$@"
"""


class Systemd:
    """systemd on one node of a lab. It has to be booted after each boot of the host."""

    def __init__(self, lab: Lab, node: Node) -> None:
        if shutil.which("systemd-nspawn", path=PATH) is None:
            raise RuntimeError("not installed: systemd-nspawn. Run scripts/install-packages")
        self.lab = lab
        self.node = node
        self._nspawn: Process | None = None
        self._pid = 0

    def boot(self) -> None:
        """Moves the engine in, with what it knows; what ran in it is stopped."""
        host = self.node.host
        if self.node.engine.is_running():
            self.node.engine.stop()
        for folder in (ENGINE, STATE):
            host.path(folder).mkdir(exist_ok=True)
        host.path("/run/docker.sock").unlink(missing_ok=True)
        host.path("/run/docker.sock").symlink_to("engine/docker.sock")
        self._nspawn = host.spawn("systemd", self._command())
        self._pid = until(self._find_up, 120, f"systemd is up on {self.node.name}")
        host.dwell_within(self._pid)
        self.node.engine.start(hosts=[f"unix://{ENGINE}/docker.sock"])

    def start_agent(self, role: Role, overrides: Mapping[str, Any]) -> "UnitAgent":
        """As an operator does it: unit, config, secret and role, and then `systemctl start`."""
        self.lab.configure(self.node, role, overrides)
        outside, inside = self.node.host.path("/etc/failover-agent"), self.path("/etc")
        shutil.copytree(outside, inside / "failover-agent", dirs_exist_ok=True)
        (inside / "failover-agent/environment").write_text(_environment(role))
        (inside / "systemd/system").mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "deploy/systemd" / UNIT, inside / "systemd/system")
        self.run("systemctl", "daemon-reload")
        agent = UnitAgent(self, role)
        self.node.agent = agent
        return agent

    def run(self, *command: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """A program inside, as root in a shell there."""
        line = ["nsenter", "-t", str(self._pid), "--all", *command]
        environment = service_environment()
        return subprocess.run(
            line, capture_output=True, text=True, check=check, env=environment, timeout=120
        )

    def path(self, inside: str) -> Path:
        return Path(f"/proc/{self._pid}/root") / inside.lstrip("/")

    @property
    def process(self) -> Process:
        assert self._nspawn is not None, f"{self.node.name} has no systemd yet"
        return self._nspawn

    def _command(self) -> list[str]:
        binds = {
            sys.base_prefix: PYTHON,  # it may lie below a home, where the unit lets nobody look
            str(ROOT / "src"): f"{HOME}/src",
            sysconfig.get_path("purelib"): f"{HOME}/packages",
            str(self._bin()): f"{HOME}/bin",
        }
        return [
            *("sh", "-c", IN_GROUP, f"{self.node.host.cgroup}/systemd"),
            *"systemd-nspawn --quiet --directory=/ --volatile=yes --boot --register=no".split(),
            *f"--keep-unit --machine={self.node.name} --console=pipe".split(),
            "--network-namespace-path=/proc/1/ns/net",
            "--capability=CAP_NET_ADMIN",
            # The record is bound to the machine, and this is still the same.
            f"--uuid={self.node.host.path('/etc/machine-id').read_text().strip()}",
            *(f"--bind-ro={source}:{target}" for source, target in binds.items()),
            *(f"--bind={folder}" for folder in (ENGINE, STATE)),
            "systemd.unit=basic.target",
            *(f"systemd.mask={unit}" for unit in MASKED),
        ]

    def _bin(self) -> Path:
        """The console script, for the interpreter that is bound in."""
        folder = self.lab.folder / "bin"
        folder.mkdir(exist_ok=True)
        script = folder / "failover-agent"
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        script.write_text(
            f"#!{PYTHON}/bin/{version}\n"
            "import sys\n"
            "from failover_agent.cli.main import main\n"
            "sys.exit(main())\n"
        )
        script.chmod(0o755)
        return folder

    def _find_up(self) -> int:
        """PID 1 of systemd, when it has booted; else 0."""
        if not self.process.is_alive():
            raise RuntimeError(f"no systemd on {self.node.name}: {self.process.log()}")
        self._pid = first_child(self.process.pid)
        if not self._pid:
            return 0
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return self._pid if state in ("running", "degraded") else 0


class UnitAgent(Agent):
    """The product as a unit: started, supervised and ended by systemd."""

    def __init__(self, system: Systemd, role: Role) -> None:
        """Starts it; returns when the unit is active, which the agent itself has to say."""
        self._system = system
        self.role = role
        self.url = f"http://{system.node.address}:{PORT}"
        self.program = f"{HOME}/bin/failover-agent"
        self.process = system.process
        self._host = system.node.host
        self._is_supervised = True
        if system.run("systemctl", "start", UNIT, check=False).returncode != 0:
            raise RuntimeError(f"{UNIT} does not start:\n{self.log()}")

    def is_alive(self) -> bool:
        return self.process.is_alive() and bool(self.pids())

    def cli(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        variables = [line for line in _environment(self.role).splitlines() if line]
        line = ("env", *variables, self.program, *arguments, "--config", CONFIG)
        return self._system.run(*line, check=False)

    def sigterm(self) -> None:
        """`systemctl stop`, which waits for the end."""
        self._system.run("systemctl", "stop", UNIT)

    def end(self) -> None:
        self._system.run("systemctl", "kill", "--signal=KILL", UNIT, check=False)
        self._system.run("systemctl", "stop", UNIT, check=False)

    def restarts(self) -> int:
        """How often systemd has started it anew."""
        return int(self._system.run("systemctl", "show", "-P", "NRestarts", UNIT).stdout)

    def log(self) -> str:
        return self._system.run("journalctl", "-u", UNIT, "-o", "cat", check=False).stdout


def _environment(role: Role) -> str:
    return (
        f"FAILOVER_AGENT_ROLE={role}\n"
        f"DOCKER_HOST=unix://{ENGINE}/docker.sock\n"
        f"PYTHONPATH={HOME}/src:{HOME}/packages\n"
        f"LD_LIBRARY_PATH={PYTHON}/lib\n"
    )
