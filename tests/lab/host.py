"""A host: a network, a pid, a mount and a name of its own, on this machine.

Its PID 1 is init.py. Programs enter by nsenter and end with it, so a power cut is one SIGKILL.
"""

import ctypes
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from tests.lab import cgroups, ground
from tests.lab.network import Network
from tests.lab.process import Process, first_child, service_environment
from tests.lab.until import until

ENTER = ("--net", "--uts", "--pid", "--mount")
OWN_PROC = ("unshare", "--mount", "sh", "-c", 'mount -t proc proc /proc; exec "$@"', "sh")
INIT = Path(__file__).with_name("init.py")
LAB = "/run/lab"  # on every host: what its containers share with the test
CLONE_NEWNET = 0x40000000


class HostIsOff(ConnectionError):
    """Nobody is there to answer, or to run what was asked for."""


class Host:
    """One host of a lab. Off until `boot()`."""

    def __init__(self, name: str, address: str, network: Network, folder: Path) -> None:
        """`folder` is the lab's: the host's disk lies below it, and the logs."""
        self.name = name
        self.address = address
        self.disk = folder / name
        self.logs = folder / "logs"
        self._folder = folder
        self.cgroup = f"{folder.name}/{name}"
        self._network = network
        self._unshare: subprocess.Popen[bytes] | None = None
        self._init_pid = 0
        self._within_pid = 0
        self._processes: list[Process] = []
        for part in (self.disk / "docker", self.logs):
            part.mkdir(parents=True, exist_ok=True)

    def is_up(self) -> bool:
        return self._unshare is not None

    @property
    def pid(self) -> int:
        """INIT, by the machine's count: `nsenter -t PID --net --uts --pid --mount` goes inside."""
        if not self.is_up():
            raise HostIsOff(f"{self.name} is off")
        return self._init_pid

    # -- power --------------------------------------------------------------------------------

    def boot(self) -> None:
        """A new INIT, a new boot id, the old disk. Returns when the host is on the network."""
        assert not self.is_up(), f"{self.name} is up already"
        (self.disk / "boot_id").write_text(f"{uuid.uuid4()}\n")
        isolate = ("--net", "--uts", "--mount", "--pid", "--fork", "--mount-proc")
        init = (sys.executable, "-I", "-S", INIT, self.disk, self.name)
        with self._log("init").open("ab") as log:
            unshare = subprocess.Popen(
                ["unshare", *isolate, "--kill-child=KILL", *init],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=service_environment(),
                start_new_session=True,
            )
        self._unshare = unshare
        assert unshare.stdout is not None
        if unshare.stdout.readline() != b"up\n":
            self._end()
            raise RuntimeError(f"{self.name} does not boot: {self._log('init').read_text()}")
        self._init_pid = until(lambda: first_child(unshare.pid), 30, "INIT")
        ground.record(self._folder, self._init_pid)
        self.path(LAB).symlink_to(self._folder / "containers" / self.name)
        self._network.plug(self.name, self._init_pid, self.address)

    def crash(self) -> None:
        """The power fails: the cable goes dead, then everything ends without a word."""
        self._network.unplug(self.name)
        self._end()
        self._network.remove(self.name)

    def reboot(self) -> None:
        """`crash()`, then `boot()`."""
        self.crash()
        self.boot()

    def close(self) -> None:
        """Ends the host if it is up, and leaves nothing in the machine but its folder."""
        if self.is_up():
            self._end()

    def stay(self) -> None:
        """The host outlives this process."""
        assert self._unshare is not None
        assert self._unshare.stdin is not None
        self._unshare.stdin.write(b"stay\n")
        self._unshare.stdin.flush()

    def _end(self) -> None:
        unshare, self._unshare = self._unshare, None
        assert unshare is not None
        if self._init_pid:
            with suppress(ProcessLookupError):
                os.kill(self._init_pid, signal.SIGKILL)
        else:
            unshare.kill()
        self._init_pid = self._within_pid = 0
        cgroups.thaw(self.cgroup)
        for process in self._processes:
            process.release()
        for process in self._processes:
            process.wait(10)
        self._processes.clear()
        unshare.wait(10)
        for pipe in (unshare.stdin, unshare.stdout):
            assert pipe is not None
            pipe.close()
        until(lambda: cgroups.remove(self.cgroup), 30, f"control groups of {self.name} removed")

    # -- programs -----------------------------------------------------------------------------

    def spawn(
        self, name: str, command: Sequence[str | Path], env: Mapping[str, str] | None = None
    ) -> Process:
        """Starts a program that goes on. Its output is appended to the log of this name."""
        with self._log(name).open("ab") as log:
            popen = subprocess.Popen(
                self.enter(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=service_environment(env),
                cwd="/",
                start_new_session=True,
            )
        ground.record(self._folder, popen.pid)
        process = Process(name, popen, self._log(name))
        self._processes.append(process)
        return process

    def run(
        self,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        limit_s: float = 60,
    ) -> "subprocess.CompletedProcess[str]":
        """Runs a program to its end. With `check`, raises where it fails."""
        done = subprocess.run(
            self.enter(["timeout", "-k", "1", f"{limit_s:g}", *command]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=service_environment(env),
            cwd="/",
            check=False,
        )
        if check and done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise RuntimeError(
                f"{self.name}: {' '.join(map(str, command))}: exit {done.returncode}: {said}"
            )
        return done

    def processes(self) -> dict[int, list[str]]:
        """Pid, by the machine's count, and arguments of all that runs here outside containers."""
        here = Path(f"/proc/{self._within_pid or self.pid}/ns/pid").readlink()
        found = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                with suppress(OSError):  # it may end while it is looked at
                    if (folder / "ns/pid").readlink() == here:
                        line = (folder / "cmdline").read_text(errors="replace")
                        found[int(folder.name)] = line.split("\0")[:-1]
        return found

    def path(self, inside: str) -> Path:
        """Where this machine finds a file of the running host (not through absolute links)."""
        return Path(f"/proc/{self.pid}/root") / inside.lstrip("/")

    def http_get(self, url: str, *, timeout_s: float = 2.0) -> tuple[int, str]:
        """Status and body, asked from inside the host. Raises OSError where nobody answers."""
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80)
        connection.sock = self.open_socket()
        try:
            connection.sock.settimeout(timeout_s)
            connection.sock.connect((connection.host, connection.port))
            connection.request("GET", parts.path or "/")
            response = connection.getresponse()
            return response.status, response.read().decode()
        except http.client.HTTPException as error:
            raise ConnectionError(f"{url} broke off: {error!r}") from error
        finally:
            connection.close()

    def reaches(self, other: "Host", count: int = 1) -> int:
        """So many of `count` datagrams, which go one way, arrive at the other host."""
        with (
            other.open_socket(socket.SOCK_DGRAM) as ear,
            self.open_socket(socket.SOCK_DGRAM) as mouth,
        ):
            ear.bind((other.address, 9000))
            ear.settimeout(0.3)
            for _ in range(count):
                mouth.sendto(b"hello", (other.address, 9000))
            for number in range(count):
                try:
                    ear.recv(16)
                except TimeoutError:
                    return number
        return count

    def open_socket(self, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        """An IPv4 socket of this host, not connected yet, for the test to use and to close.

        A socket stays in the network in which it was made; only a thread goes there to make it.
        """
        made: list[socket.socket] = []
        with Path(f"/proc/{self.pid}/ns/net").open("rb") as network:

            def make() -> None:
                if ctypes.CDLL(None).setns(network.fileno(), CLONE_NEWNET) == 0:
                    made.append(socket.socket(socket.AF_INET, kind))

            thread = threading.Thread(target=make)
            thread.start()
            thread.join()
        if not made:
            raise HostIsOff(f"{self.name} has no network")
        return made[0]

    def enter(self, command: Sequence[str | Path] = ()) -> list[str]:
        """The command line that runs this one inside, or a shell, from outside as root."""
        if not self._within_pid:
            return ["nsenter", "-t", str(self.pid), *ENTER, *map(str, command)]
        pid = f"--pid=/proc/{self._within_pid}/ns/pid"
        entering = ["nsenter", "-t", str(self.pid), "--net", "--uts", "--mount", pid]
        return [*entering, *OWN_PROC, *map(str, command)]

    def dwell_within(self, pid: int) -> None:
        """From now on programs start in the pid namespace of this process of the host, with the
        mounts and the network of the host: it was made for a system of its own (systemd.py).
        """
        self._within_pid = pid

    def _log(self, name: str) -> Path:
        return self.logs / f"{self.name}-{name}.log"
