"""What befalls a trio, each with its end: the list from which the nemesis draws.

Each is a context manager: what it breaks at its begin is whole again after its end. `things` are
what it needs for itself meanwhile; faults that share none may happen at the same time.
"""

import contextlib
import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.lab.agent import freeze, signal_all
from tests.lab.lab import Node
from tests.lab.trio import Trio

Hurt = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """`excused`: the host of which agent and guard are away together, or whose engine starts
    containers by itself. There, and in that time, something may run twice; it is measured.
    """

    sentence: str
    things: frozenset[str]
    hurt: Hurt
    excused: str = ""


Draw = Callable[[Trio, random.Random], Fault]


def draw(trio: Trio, dice: random.Random) -> Fault:
    """One of all, each kind as likely as any other."""
    return dice.choice(_kinds(trio))(trio, dice)


def _kinds(trio: Trio) -> Sequence[Draw]:
    arbiter = _ETCD if trio.etcd is not None else _WITNESS
    return (*_WIRES, *_HOSTS, *_AGENTS, *_ENGINES, *_CONTAINERS, *_WEATHER, *arbiter)


# -- wires ----------------------------------------------------------------------------------------


def _two(trio: Trio, dice: random.Random) -> tuple[Node, Node]:
    one, other = dice.sample([*trio.nodes, trio.lab.c], 2)
    return one, other


def cut_one_way(trio: Trio, dice: random.Random) -> Fault:
    source, target = _two(trio, dice)
    network = trio.lab.network

    @contextlib.contextmanager
    def hurt() -> Iterator[None]:
        network.cut(source, target)
        yield
        network.mend(source, target)

    return Fault(f"cut {source.name} -> {target.name}", frozenset(), hurt)


def cut_both_ways(trio: Trio, dice: random.Random) -> Fault:
    one, other = _two(trio, dice)
    network = trio.lab.network

    @contextlib.contextmanager
    def hurt() -> Iterator[None]:
        network.cut_both(one, other)
        yield
        network.mend_both(one, other)

    return Fault(f"cut {one.name} <-> {other.name}", frozenset(), hurt)


def isolate(trio: Trio, dice: random.Random) -> Fault:
    node, _ = _two(trio, dice)
    network = trio.lab.network

    @contextlib.contextmanager
    def hurt() -> Iterator[None]:
        network.isolate(node)
        yield
        network.rejoin(node)

    return Fault(f"isolate {node.name}", frozenset(), hurt)


def cut_all(trio: Trio, _dice: random.Random) -> Fault:
    network = trio.lab.network

    @contextlib.contextmanager
    def hurt() -> Iterator[None]:
        network.cut_all()
        yield
        network.mend_all()

    return Fault("cut every wire", frozenset(), hurt)


def loss(trio: Trio, dice: random.Random) -> Fault:
    percent = dice.choice([10, 20, 40])
    network = trio.lab.network

    @contextlib.contextmanager
    def hurt() -> Iterator[None]:
        network.loss(percent)
        yield
        network.loss(0)

    return Fault(f"lose {percent} % on every wire", frozenset({"loss"}), hurt)


_WIRES = (cut_one_way, cut_both_ways, isolate, cut_all, loss)


# -- hosts ----------------------------------------------------------------------------------------


def crash(trio: Trio, dice: random.Random) -> Fault:
    node = dice.choice([*trio.nodes, trio.lab.c])

    @contextlib.contextmanager
    def hurt() -> Iterator[None]:
        node.crash()
        yield
        trio.come_back(node)

    return Fault(f"crash {node.name}", frozenset({node.name}), hurt)


def power_cut(trio: Trio, dice: random.Random) -> Fault:
    hosts = [*trio.nodes, trio.lab.c] if dice.random() < 0.5 else [*trio.nodes]
    order = dice.sample(hosts, len(hosts))

    @contextlib.contextmanager
    def hurt() -> Iterator[None]:
        for node in hosts:
            node.crash()
        yield
        for node in order:
            trio.come_back(node)

    names = ", ".join(node.name for node in order)
    return Fault(
        f"power cut; back in the order {names}", frozenset(node.name for node in hosts), hurt
    )


def restart_always_and_reboot(trio: Trio, dice: random.Random) -> Fault:
    """While the agent is down its containers are made anew, to come back with the engine."""
    node = dice.choice(trio.nodes)

    @contextlib.contextmanager
    def hurt() -> Iterator[None]:
        node.agent.end()
        for name in node.services:
            node.docker("update", "--restart", "always", name)
        node.crash()
        yield
        trio.come_back(node)

    things = frozenset({node.name})
    return Fault(f"restart: always on {node.name}, and a reboot", things, hurt, node.name)


_HOSTS = (crash, power_cut, restart_always_and_reboot)


# -- agents and guards ----------------------------------------------------------------------------


def kill_agent(trio: Trio, dice: random.Random) -> Fault:
    node = dice.choice(trio.nodes)
    return _once(node, "kill the agent", lambda: _signal(node.agent.agent_pid, signal.SIGKILL))


def kill_guard(trio: Trio, dice: random.Random) -> Fault:
    node = dice.choice(trio.nodes)
    return _once(node, "kill the guard", lambda: _signal(node.agent.guard_pid, signal.SIGKILL))


def kill_both(trio: Trio, dice: random.Random) -> Fault:
    node = dice.choice(trio.nodes)
    return _once(node, "kill guard and agent", node.agent.sigkill, excused=node.name)


def tell_to_leave(trio: Trio, dice: random.Random) -> Fault:
    """As systemd at a stop, and a start right after it."""
    node = dice.choice(trio.nodes)
    return _once(
        node, "SIGTERM to the agent", lambda: _signal(node.agent.guard_pid, signal.SIGTERM)
    )


def freeze_agent(trio: Trio, dice: random.Random) -> Fault:
    node = dice.choice(trio.nodes)
    return _frozen(node, "freeze the agent", lambda: [node.agent.agent_pid])


def freeze_guard(trio: Trio, dice: random.Random) -> Fault:
    node = dice.choice(trio.nodes)
    return _frozen(node, "freeze the guard", lambda: [node.agent.guard_pid])


def freeze_both(trio: Trio, dice: random.Random) -> Fault:
    node = dice.choice(trio.nodes)
    return _frozen(node, "freeze guard and agent", node.agent.pids, excused=node.name)


def spin_agent(trio: Trio, dice: random.Random) -> Fault:
    node = dice.choice(trio.nodes)
    seconds = dice.uniform(0.5, 10)
    sentence = f"spin {seconds:.1f} s in the agent"
    return _once(node, sentence, lambda: node.agent.spin(seconds))


_AGENTS = (
    kill_agent,
    kill_guard,
    kill_both,
    tell_to_leave,
    freeze_agent,
    freeze_guard,
    freeze_both,
    spin_agent,
)


# -- engines and containers -----------------------------------------------------------------------


def kill_engine(trio: Trio, dice: random.Random) -> Fault:
    node = dice.choice(trio.nodes)

    @contextlib.contextmanager
    def hurt() -> Iterator[None]:
        node.engine.kill()
        yield
        node.engine.start()

    return Fault(f"kill the engine of {node.name}", frozenset({node.name}), hurt)


def freeze_engine(trio: Trio, dice: random.Random) -> Fault:
    node = dice.choice(trio.nodes)

    @contextlib.contextmanager
    def hurt() -> Iterator[None]:
        node.engine.freeze()
        yield
        node.engine.thaw()

    return Fault(f"hang the engine of {node.name}", frozenset({node.name}), hurt)


def restart_engine(trio: Trio, dice: random.Random) -> Fault:
    node = dice.choice(trio.nodes)
    return _once(node, "restart the engine", node.engine.restart)


def kill_container(trio: Trio, dice: random.Random) -> Fault:
    node, name = _running(trio, dice)

    def kill() -> None:
        with contextlib.suppress(RuntimeError):  # it does not run at the moment
            node.services[name].kill()

    return _once(node, f"kill {name}", kill)


def break_container(trio: Trio, dice: random.Random) -> Fault:
    node, name = _running(trio, dice)
    service = node.services[name]

    @contextlib.contextmanager
    def hurt() -> Iterator[None]:
        service.break_process()
        with contextlib.suppress(RuntimeError):
            service.kill()
        yield
        service.mend_process()

    return Fault(f"break {name} on {node.name}", frozenset({node.name}), hurt)


def _running(trio: Trio, dice: random.Random) -> tuple[Node, str]:
    """A container where the service is, or else anywhere."""
    node = trio.active() or dice.choice(trio.nodes)
    return node, dice.choice(sorted(node.services))


_ENGINES = (kill_engine, freeze_engine, restart_engine)
_CONTAINERS = (kill_container, break_container)


# -- the arbiter, and what befalls all ------------------------------------------------------------


def kill_witness(trio: Trio, _dice: random.Random) -> Fault:
    return _once(trio.lab.c, "kill the witness", trio.lab.c.agent.sigkill)


def freeze_witness(trio: Trio, _dice: random.Random) -> Fault:
    return _frozen(trio.lab.c, "freeze the witness", trio.lab.c.agent.pids)


def forget_witness(trio: Trio, _dice: random.Random) -> Fault:
    return _once(trio.lab.c, "empty the witness's disk", trio.forget_witness)


def kill_member(trio: Trio, dice: random.Random) -> Fault:
    assert trio.etcd is not None
    member = dice.choice(trio.etcd.members)

    @contextlib.contextmanager
    def hurt() -> Iterator[None]:
        member.kill()
        yield
        member.start()

    return Fault(f"kill etcd on {member.name}", frozenset({member.name}), hurt)


def freeze_members(trio: Trio, dice: random.Random) -> Fault:
    """One, or all of them: then their quorum has gone."""
    assert trio.etcd is not None
    members = trio.etcd.members[:] if dice.random() < 0.5 else [dice.choice(trio.etcd.members)]

    @contextlib.contextmanager
    def hurt() -> Iterator[None]:
        for member in members:
            member.freeze()
        yield
        for member in members:
            member.thaw()

    names = frozenset(member.name for member in members)
    return Fault(f"freeze etcd on {', '.join(sorted(names))}", names, hurt)


def saturate(trio: Trio, _dice: random.Random) -> Fault:
    """All processors of the machine are busy."""

    @contextlib.contextmanager
    def hurt() -> Iterator[None]:
        with burning(trio.lab.c):
            yield

    return Fault("saturate every processor", frozenset({"processors", "host-c"}), hurt)


_WITNESS = (kill_witness, freeze_witness, forget_witness)
_ETCD = (kill_member, freeze_members)
_WEATHER = (saturate,)


@contextlib.contextmanager
def burning(node: Node) -> Iterator[None]:
    """A busy loop for each processor of the machine, on this host."""
    loops = [
        node.host.spawn("burner", ["sh", "-c", "while :; do :; done"])
        for _ in range(os.cpu_count() or 1)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.sigkill()


# -- parts ----------------------------------------------------------------------------------------


def _once(node: Node, what: str, act: Callable[[], None], *, excused: str = "") -> Fault:
    """Over at once; it keeps the host for a while, as what follows takes its time."""

    @contextlib.contextmanager
    def hurt() -> Iterator[None]:
        act()
        yield

    return Fault(f"{what} on {node.name}", frozenset({node.name}), hurt, excused)


def _frozen(
    node: Node, what: str, find: Callable[[], Sequence[int]], *, excused: str = ""
) -> Fault:
    """Stands still from begin to end; the guard may have killed it meanwhile."""

    @contextlib.contextmanager
    def hurt() -> Iterator[None]:
        pids = [pid for pid in find() if pid]
        freeze(pids)
        yield
        signal_all(pids, signal.SIGCONT)

    return Fault(f"{what} on {node.name}", frozenset({node.name}), hurt, excused)


def _signal(pid: int, number: signal.Signals) -> None:
    signal_all([pid], number)
