"""A switch with a cable to each host, and the ways to cut them.

The switch is a bridge in a network namespace of its own, held by one small process. A cable is a
veth pair from there into a host's namespace, so a host that ends takes its cable along, and the
machine's own interfaces and firewall see nothing of it all.

A cut is a rule at the switch that drops IP packets: whoever sends waits for an answer and gets no
error, as behind a broken router. `unplug` takes the link down, as a crash does. Cuts of one wire
add up, as two diggers may hit it: it is whole again when each is mended, or at once by `heal()`.

A `Cable` joins two hosts beside the switch, each with an eth1 of its own.
"""

import itertools
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.lab import ground
from tests.lab.process import service_environment

# Ends with the lab (its end of the pipe closes) unless it is told to stay.
_HOLD = 'read -r word; [ "$word" = stay ] && exec sleep infinity'


class Named(Protocol):
    """Whatever has the name of a host."""

    @property
    def name(self) -> str:
        """The host's name, which is also the name of its port at the switch."""


class Plugged(Named, Protocol):
    """A host that is up."""

    @property
    def pid(self) -> int:
        """Its INIT."""


class Network:
    """The wires of one lab. Needs root."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the lab's."""
        self._cuts: Counter[tuple[str, str]] = Counter()  # from, to
        self._loss_percent: dict[tuple[str, str], int] = {}
        self._ports: list[str] = []
        self._switch = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", f"echo up; {_HOLD}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=service_environment(),
            start_new_session=True,
        )
        ground.record(folder, self._switch.pid)
        assert self._switch.stdout is not None
        if self._switch.stdout.readline() != b"up\n":
            raise RuntimeError("no network namespace: the lab needs root")
        self._ip("link add switch type bridge", "link set switch up")

    @property
    def pid(self) -> int:
        """The process that holds the switch."""
        return self._switch.pid

    def plug(self, name: str, init_pid: int, address: str) -> None:
        """Gives the host with this INIT an eth0 with this address, and a MAC that goes with it:
        who knew the host before a reboot still knows it after.
        """
        mac = "02:00:" + ":".join(f"{int(byte):02x}" for byte in address.split("."))
        if name not in self._ports:
            self._ports.append(name)
        self._ip(
            f"link add {name} type veth peer name eth0 address {mac} netns {init_pid}",
            f"link set {name} master switch up",
        )
        _ip_in(init_pid, f"addr add {address}/24 dev eth0", "link set eth0 up")

    def lay(self, ends: Sequence[tuple[str, int, str]]) -> None:
        """A cable beside the switch: at each end a port of this name, and in the network of this
        INIT an eth1 with this address. It can be cut as any other wire between two ports, and is
        left alone by what befalls whole hosts.
        """
        self._ip("link add cable type bridge", "link set cable up")
        for port, init_pid, address in ends:
            self._ip(
                f"link add {port} type veth peer name eth1 netns {init_pid}",
                f"link set {port} master cable up",
            )
            _ip_in(init_pid, f"addr add {address}/24 dev eth1", "link set eth1 up")

    def unplug(self, name: str) -> None:
        """The link is down; what is still on its way is lost."""
        self._ip(f"link set {name} down")

    def remove(self, name: str) -> None:
        """The cable of a host that has ended. Does nothing where the kernel was quicker."""
        self._ip(f"link del {name}", check=False)

    def cut(self, source: Named, target: Named) -> None:
        """One way: nothing from `source` reaches `target` any more."""
        self._cut([(source.name, target.name)])

    def cut_both(self, one: Named, other: Named) -> None:
        """Both ways between these two; a third host still reaches both."""
        self._cut([(one.name, other.name), (other.name, one.name)])

    def isolate(self, host: Named) -> None:
        """Both ways between this host and all others."""
        self._cut(self._wires_of(host))

    def cut_all(self) -> None:
        """No host reaches any other."""
        self._cut(self._wires())

    def mend(self, source: Named, target: Named) -> None:
        """Takes one `cut` back."""
        self._mend([(source.name, target.name)])

    def mend_both(self, one: Named, other: Named) -> None:
        """Takes one `cut_both` back."""
        self._mend([(one.name, other.name), (other.name, one.name)])

    def rejoin(self, host: Named) -> None:
        """Takes one `isolate` back."""
        self._mend(self._wires_of(host))

    def mend_all(self) -> None:
        """Takes one `cut_all` back."""
        self._mend(self._wires())

    def loss(self, percent: int, source: Named | None = None, target: Named | None = None) -> None:
        """Of all packets between hosts, or of those that leave `source`, or arrive at `target`, so
        many at random never arrive. Does not add up; 0 ends it.
        """
        for begin, end in self._wires():
            if (source is None or source.name == begin) and (target is None or target.name == end):
                self._loss_percent[begin, end] = percent
        self._apply()

    def heal(self) -> None:
        """All cables are whole again."""
        self._cuts.clear()
        self._loss_percent.clear()
        self._apply()

    def stay(self) -> None:
        """The switch outlives this process."""
        assert self._switch.stdin is not None
        self._switch.stdin.write(b"stay\n")
        self._switch.stdin.flush()

    def close(self) -> None:
        self._switch.kill()
        self._switch.wait()
        for pipe in (self._switch.stdin, self._switch.stdout):
            assert pipe is not None
            pipe.close()

    def _wires(self) -> list[tuple[str, str]]:
        """From, to: each way of each cable by itself."""
        return list(itertools.permutations(self._ports, 2))

    def _wires_of(self, host: Named) -> list[tuple[str, str]]:
        return [wire for wire in self._wires() if host.name in wire]

    def _cut(self, wires: list[tuple[str, str]]) -> None:
        self._cuts.update(wires)
        self._apply()

    def _mend(self, wires: list[tuple[str, str]]) -> None:
        """What `heal` has mended already stays whole."""
        self._cuts.subtract(wire for wire in wires if self._cuts[wire] > 0)
        self._apply()

    def _apply(self) -> None:
        """One transaction: the rules as they now are, in the place of those that were."""
        rules = [
            f'iifname "{source}" oifname "{target}" ether type ip drop'
            for (source, target), times in sorted(self._cuts.items())
            if times > 0
        ]
        rules += [
            f'iifname "{source}" oifname "{target}" ether type ip '
            f"numgen random mod 100 < {percent} drop"
            for (source, target), percent in sorted(self._loss_percent.items())
            if percent
        ]
        chain = "\n".join(["type filter hook forward priority 0", *rules])
        table = f"table bridge lab {{\nchain forward {{\n{chain}\n}}\n}}\n"
        _in_network(
            self.pid, ["nft", "-f", "-"], "add table bridge lab\ndelete table bridge lab\n" + table
        )

    def _ip(self, *lines: str, check: bool = True) -> None:
        _ip_in(self.pid, *lines, check=check)


@dataclass(frozen=True)
class Port:
    """One end of a cable, by its name at the switch."""

    name: str


class Cable:
    """A direct cable between two hosts that are up. Who boots anew has lost it."""

    def __init__(self, network: Network, *hosts: Plugged) -> None:
        self._network = network
        self.address = {host.name: f"10.78.0.{n}" for n, host in enumerate(hosts, start=1)}
        self._port = {host.name: Port(f"{host.name}-2") for host in hosts}
        network.lay([(self._port[h.name].name, h.pid, self.address[h.name]) for h in hosts])

    def cut(self, source: Named, target: Named) -> None:
        """One way, as a wire of the switch."""
        self._network.cut(self._port[source.name], self._port[target.name])

    def cut_both(self, one: Named, other: Named) -> None:
        """Both ways."""
        self.cut(one, other)
        self.cut(other, one)


def _ip_in(pid: int, *lines: str, check: bool = True) -> None:
    _in_network(pid, ["ip", "-batch", "-"], "\n".join(lines) + "\n", check=check)


def _in_network(pid: int, command: list[str], text: str, *, check: bool = True) -> None:
    done = subprocess.run(
        ["nsenter", f"--net=/proc/{pid}/ns/net", *command],
        input=text,
        capture_output=True,
        text=True,
        env=service_environment(),
        check=False,
        timeout=30,
    )
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}\n{text}")
