"""The faults of the simulator, struck on a real pair: the same kinds, the same luck, real levers.

What a kind does to a simulated world is in `failover_agent.simulation.faults`; here is the hand
that does it to hosts, wires, engines and agents. NOT_HERE names the kinds that have no lever.
"""

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from failover_agent.simulation import faults
from failover_agent.simulation.faults import Fault
from tests.lab.agent import LEVER_FILES
from tests.lab.chronicle import Chronicle
from tests.lab.lab import Lab, Node
from tests.lab.truth import now_s

Undo = Callable[[], None]

RECORDS = "/var/lib/failover-agent"
RECORD = f"{RECORDS}/default/record.json"
HEARS_S = 0.3  # a container looks for its levers every 0.05 s
SHORT_S = 5.0  # for a call to an engine that may hang

NOT_HERE: Mapping[str, str] = {
    "slow": "no netem on this machine: wires that delay and reorder are the simulator's",
    "crash in plan": "an agent cannot be told between which two of its effects to die",
    "lose stream": "a real stream is lost with its connection, which `lose engine` breaks",
    "shut down": "wants systemd: tests/lab/test_guard.py and tests/unit/test_systemd.py",
}


class Strokes:
    """Levers on one lab whose pair runs; each fault may come at any time, on top of any other."""

    def __init__(
        self, lab: Lab, timeout_s: float, start_agent: Callable[[Node], None], book: Chronicle
    ) -> None:
        """`start_agent` starts the one of this node as it was; `book` is told what befalls it."""
        self.lab = lab
        self._timeout_s = timeout_s
        self._start_agent = start_agent
        self._book = book
        self._later: list[tuple[float, Undo]] = []
        self._broken: set[tuple[str, str, str]] = set()
        self._lives_s: dict[tuple[str, str], float] = {}
        self._aside = ThreadPoolExecutor(max_workers=6)

    # -- time -----------------------------------------------------------------------------------

    def strike(self, fault: Fault) -> None:
        """Now; its end comes in `fault.lasts_s`."""
        undo = _HANDS[fault.kind](self, fault)
        self.after(fault.lasts_s, undo)

    def after(self, seconds: float, call: Undo) -> None:
        """`pass_by` makes it when it is due."""
        self._later.append((now_s() + seconds, call))

    def pass_by(self) -> None:
        """Call this every few hundredths of a second: what is due, and containers that crash."""
        for due in sorted((it for it in self._later if it[0] <= now_s()), key=lambda it: it[0]):
            self._later.remove(due)
            due[1]()
        for (host, name), lives_s in self._lives_s.items():
            for run in self.lab.truth.runs(host, name)[-1:]:
                if now_s() - run.first_s > lives_s and not run.has_ended:
                    self._end_process(self.node(host), name)
        for node in self.nodes:
            self._book.note_agent(self.host_of(node), is_there=self.has_agent(node))

    def heal(self) -> None:
        """Everything is whole, and every agent runs; what was to end later has ended."""
        self._later.clear()
        self._lives_s.clear()
        for wire in (("primary", "backup"), ("backup", "primary")):
            self.mend_wire(*wire)
        for node in self.nodes:
            for service in node.services.values():
                self.allow_start(node, service.name)
                service.make_well()
                service.stay()
        for node in self.nodes:
            self._heal_host(node)
        self._aside.shutdown(wait=True)
        self._aside = ThreadPoolExecutor(max_workers=6)
        for node in self.nodes:
            node.engine.wait_up()
            self._heal_containers(node)

    def close(self) -> None:
        self._aside.shutdown(wait=True, cancel_futures=True)

    # -- places ---------------------------------------------------------------------------------

    @property
    def nodes(self) -> tuple[Node, Node]:
        return self.lab.a, self.lab.b

    def node(self, host: str) -> Node:
        """Of the simulator's name, or of the lab's."""
        return self.lab.a if host in ("primary", self.lab.a.name) else self.lab.b

    def host_of(self, node: Node) -> str:
        """The simulator's name."""
        return "primary" if node is self.lab.a else "backup"

    def has_agent(self, node: Node) -> bool:
        return bool(node.host.is_up() and node.has_agent and node.agent.process.is_alive())

    # -- wires ----------------------------------------------------------------------------------

    def cut_wire(self, source: str, target: str) -> None:
        if self._note(source, "wire", "cut"):
            self.lab.network.cut(self.node(source), self.node(target))
        self._book.begin("wire", source, f"to {target}")

    def mend_wire(self, source: str, target: str) -> None:
        """Cut, lossy or both: whole, as the simulator mends it."""
        ends = self.node(source), self.node(target)
        if self._drop(source, "wire", "cut"):
            self.lab.network.mend(*ends)
        if self._drop(source, "wire", "lossy"):
            self.lab.network.loss(0, *ends)
        self._book.end("wire", source, f"to {target}")

    def lose_on_wire(self, source: str, target: str, percent: int) -> None:
        self._note(source, "wire", "lossy")
        self.lab.network.loss(percent, self.node(source), self.node(target))
        self._book.begin("wire", source, f"to {target}")

    # -- agents and hosts -----------------------------------------------------------------------

    def kill_agent(self, node: Node) -> None:
        if self.has_agent(node):
            node.agent.sigkill()

    def start_agent(self, node: Node) -> None:
        """As systemd would; does nothing where one runs, or the host is off.

        What is to befall the next save of an agent befalls no other agent.
        """
        if node.host.is_up() and not self.has_agent(node):
            self.lever(node, "die at save")
            self._start_agent(node)

    def crash(self, node: Node) -> None:
        if node.host.is_up():
            self._book.begin("host", self.host_of(node), "is off")
            node.crash()
            self._forget(self.host_of(node), "frozen", "hung", "disk", "slow")

    def boot(self, node: Node) -> None:
        """Engine and agent start side by side, as at any boot."""
        if not node.host.is_up():
            node.host.boot()
            node.engine.begin_start()
            self._book.end("host", self.host_of(node), "is off")
            self._book.end("disk", self.host_of(node), "record")
            self._start_agent(node)

    def lever(self, node: Node, name: str, text: str = "") -> None:
        """Sets a lever of levers/sitecustomize.py; without a text it is released."""
        if node.host.is_up():
            file = node.host.path(LEVER_FILES[name])
            if text:
                file.write_text(text)
            else:
                file.unlink(missing_ok=True)

    # -- engines and containers -----------------------------------------------------------------

    def aside(self, call: Callable[[], object]) -> None:
        """In a thread: it may take its time, or fail where its host or engine has gone."""

        def attempt() -> None:
            with suppress(OSError, RuntimeError, AssertionError):
                call()

        self._aside.submit(attempt)

    def start_engine(self, node: Node) -> None:
        """Where it hangs it is thawed, where it is gone it starts; its end is its first answer."""
        if not node.host.is_up():
            return
        if self._drop(self.host_of(node), "hung", "engine") and node.engine.is_running():
            node.engine.thaw()
        if not node.engine.is_running():
            node.engine.begin_start()

    def stop_engine(self, node: Node) -> None:
        """SIGTERM, and nobody waits: its containers end first."""
        if node.host.is_up() and node.engine.is_running():
            node.engine.process.sigterm()

    def call_engine(self, node: Node, method: str, path: str, body: object = None) -> None:
        node.engine.api(method, path, body, timeout_s=SHORT_S)

    def container(self, fault: Fault) -> str:
        """The same as the simulator's."""
        names = [spec.name for spec in self.lab.specs]
        return names[int(fault.luck * 7919) % len(names)]

    def _end_process(self, node: Node, name: str) -> None:
        """It ends by itself, whatever its engine does; nothing happens where it does not run."""
        if (node.name, name) in self.lab.truth.running_now(node.name):
            node.services[name].exit(1)
            self.after(HEARS_S, node.services[name].stay)

    def end_process(self, node: Node, name: str) -> None:
        self._book.strike("container", self.host_of(node))
        self._end_process(node, name)

    def forbid_start(self, node: Node, name: str) -> None:
        if self._note(self.host_of(node), name, "cannot start"):
            node.services[name].break_start()

    def allow_start(self, node: Node, name: str) -> None:
        if self._drop(self.host_of(node), name, "cannot start"):
            node.services[name].mend_start()

    # -- the end of all faults ------------------------------------------------------------------

    def _heal_host(self, node: Node) -> None:
        host = self.host_of(node)
        if not node.host.is_up():
            self.boot(node)
        self.start_engine(node)
        self.mend_disk(node)
        self.lever(node, "die at save")
        if self.has_agent(node):
            node.agent.sigcont()
        self.start_agent(node)
        for what in ("frozen", "no agent"):
            self._book.end("agent", host, what)

    def _heal_containers(self, node: Node) -> None:
        for service in node.services.values():
            node_name = self.host_of(node)
            with suppress(OSError, RuntimeError):
                if service.state == "missing":
                    service.create()
                if service.state == "paused":
                    service.unpause()
            for what in ("paused", "unhealthy", "removed"):
                self._book.end("container", node_name, f"{service.name} is {what}")

    def break_disk(self, node: Node) -> None:
        """Nothing can be written below the state directory of the agent any more."""
        if node.host.is_up() and self._note(self.host_of(node), "disk", "broken"):
            for options in (["--bind", RECORDS, RECORDS], ["-o", "remount,bind,ro", RECORDS]):
                node.host.run(["mount", *options])
            self._book.begin("disk", self.host_of(node), "record")

    def mend_disk(self, node: Node) -> None:
        if self._drop(self.host_of(node), "disk", "broken") and node.host.is_up():
            node.host.run(["umount", "--lazy", RECORDS])
        self.lever(node, "slow save")
        self._book.end("disk", self.host_of(node), "record")

    # -- what is broken at present --------------------------------------------------------------

    def _note(self, host: str, thing: str, how: str) -> bool:
        """False where it is so already."""
        is_new = (host, thing, how) not in self._broken
        self._broken.add((host, thing, how))
        return is_new

    def _drop(self, host: str, thing: str, how: str) -> bool:
        """False where it was not so."""
        was = (host, thing, how) in self._broken
        self._broken.discard((host, thing, how))
        return was

    def _forget(self, host: str, *things: str) -> None:
        """What a power cut takes along."""
        self._broken = {it for it in self._broken if it[0] != host or it[1] not in things}

    # -- the hands ------------------------------------------------------------------------------

    def _cut(self, fault: Fault, *, both_ways: bool = True) -> Undo:
        other = other_of(fault.host)
        ways = [(fault.host, other), (other, fault.host)][: 2 if both_ways else 1]
        for way in ways:
            self.cut_wire(*way)

        def undo() -> None:
            for way in ways:
                self.mend_wire(*way)

        return undo

    def _lossy(self, fault: Fault) -> Undo:
        other = other_of(fault.host)
        self.lose_on_wire(fault.host, other, int(100 * (0.1 + 0.7 * fault.luck)))
        return lambda: self.mend_wire(fault.host, other)

    def _kill_agent(self, fault: Fault) -> Undo:
        node = self.node(fault.host)
        self.kill_agent(node)
        return lambda: self.start_agent(node)

    def _crash_at_save(self, fault: Fault) -> Undo:
        node = self.node(fault.host)
        if self.has_agent(node):
            self.lever(node, "die at save", "after" if fault.luck < 0.5 else "before")

        return lambda: self.start_agent(node)

    def _freeze(self, fault: Fault) -> Undo:
        node = self.node(fault.host)
        if not self.has_agent(node):
            return _nothing
        agent = node.agent
        agent.sigstop()
        self._book.begin("agent", fault.host, "frozen")

        def undo() -> None:
            self._book.end("agent", fault.host, "frozen")
            if node.host.is_up() and node.agent is agent and agent.process.is_alive():
                agent.sigcont()

        return undo

    def _crash_host(self, fault: Fault) -> Undo:
        node = self.node(fault.host)
        self.crash(node)
        return lambda: self.boot(node)

    def _power_cut(self, fault: Fault) -> Undo:
        first, second = self.node(fault.host), self.node(other_of(fault.host))
        self.crash(first)
        self.crash(second)

        def undo() -> None:
            self.boot(first)
            self.after(2 * self._timeout_s * fault.luck, lambda: self.boot(second))

        return undo

    def _lose_record(self, fault: Fault) -> Undo:
        node = self.node(fault.host)
        self.kill_agent(node)
        if node.host.is_up():
            with suppress(OSError):  # a disk that is broken keeps what it has
                node.host.path(RECORD).unlink(missing_ok=True)
                self._book.a_record_was_lost = True
        return lambda: self.start_agent(node)

    def _break_disk(self, fault: Fault) -> Undo:
        node = self.node(fault.host)
        self.break_disk(node)
        return lambda: self.mend_disk(node)

    def _slow_disk(self, fault: Fault) -> Undo:
        node = self.node(fault.host)
        self.lever(node, "slow save", f"{2 * fault.luck:.3f}")
        self._book.begin("disk", fault.host, "record")
        return lambda: self.mend_disk(node)

    def _terminate(self, fault: Fault) -> Undo:
        node = self.node(fault.host)
        if self.has_agent(node):
            node.agent.sigterm()
        return lambda: self.start_agent(node)

    def _command(self, fault: Fault, *words: str) -> Undo:
        node = self.node(fault.host)
        if self.has_agent(node):
            if words[0] == "takeover":
                self._book.note_word(fault.host)
            self.aside(lambda: node.agent.cli(*words))
        return _nothing

    def _hang_engine(self, fault: Fault) -> Undo:
        node = self.node(fault.host)
        if node.host.is_up() and node.engine.is_running():
            self._note(fault.host, "hung", "engine")
            node.engine.freeze()
        return lambda: self.start_engine(node)

    def _lose_engine(self, fault: Fault) -> Undo:
        node = self.node(fault.host)
        if fault.luck < 0.4:
            self.stop_engine(node)
        elif node.host.is_up() and node.engine.is_running():
            node.engine.kill()
        return lambda: self.start_engine(node)

    def _kill_container(self, fault: Fault) -> Undo:
        self.end_process(self.node(fault.host), self.container(fault))
        return _nothing

    def _break_container(self, fault: Fault) -> Undo:
        undo = self._forbid_start(fault)
        self.end_process(self.node(fault.host), self.container(fault))
        return undo

    def _forbid_start(self, fault: Fault) -> Undo:
        node, name = self.node(fault.host), self.container(fault)
        self.forbid_start(node, name)
        return lambda: self.allow_start(node, name)

    def _pause_container(self, fault: Fault) -> Undo:
        service = self.node(fault.host).services[self.container(fault)]
        self.aside(service.pause)
        return lambda: self.aside(service.unpause)

    def _sicken_container(self, fault: Fault) -> Undo:
        service = self.node(fault.host).services[self.container(fault)]
        if service.spec.health:
            service.make_sick()
        return service.make_well

    def _remove_container(self, fault: Fault) -> Undo:
        service = self.node(fault.host).services[self.container(fault)]
        self.aside(service.remove)

        def create() -> None:
            if service.state == "missing":
                service.create()

        return lambda: self.aside(create)

    def _crash_loop(self, fault: Fault) -> Undo:
        node, name = self.node(fault.host), self.container(fault)
        self._lives_s[node.name, name] = 0.3 + 4 * fault.luck
        self.end_process(node, name)

        def undo() -> None:
            self._lives_s.pop((node.name, name), None)

        return undo

    def _run_by_hand(self, fault: Fault) -> Undo:
        node, name = self.node(fault.host), self.container(fault)
        if node.host.is_up():
            self._book.note_by_hand(node.name, name)
            self.aside(node.services[name].start)
        return _nothing


def other_of(host: str) -> str:
    return "backup" if host == "primary" else "primary"


def _nothing() -> None:
    """What there is to undo after a stroke."""


def forget(node: Node) -> None:
    """As on the first day: no agent, no record, nothing running. Its engine answers."""
    node.agent.end()
    for service in node.services.values():
        if service.state not in {"exited", "created"}:
            service.kill()
    shutil.rmtree(node.host.path(RECORDS), ignore_errors=True)


Hand = Callable[[Strokes, Fault], Undo]

_HANDS: Mapping[str, Hand] = {
    "cut": Strokes._cut,
    "cut one way": partial(Strokes._cut, both_ways=False),
    "lossy": Strokes._lossy,
    "kill agent": Strokes._kill_agent,
    "crash at save": Strokes._crash_at_save,
    "freeze": Strokes._freeze,
    "crash host": Strokes._crash_host,
    "power cut": Strokes._power_cut,
    "lose record": Strokes._lose_record,
    "break disk": Strokes._break_disk,
    "slow disk": Strokes._slow_disk,
    "terminate": Strokes._terminate,
    "takeover": lambda it, fault: it._command(fault, "takeover", "--peer-is-off"),
    "resume": lambda it, fault: it._command(fault, "resume"),
    "hang engine": Strokes._hang_engine,
    "lose engine": Strokes._lose_engine,
    "kill container": Strokes._kill_container,
    "break container": Strokes._break_container,
    "forbid start": Strokes._forbid_start,
    "pause container": Strokes._pause_container,
    "sicken container": Strokes._sicken_container,
    "remove container": Strokes._remove_container,
    "crash loop": Strokes._crash_loop,
    "run by hand": Strokes._run_by_hand,
}

KINDS = tuple(sorted(_HANDS))
assert {*KINDS, *NOT_HERE} == {*faults.KINDS}, "every kind has a lever, or a reason for none"
