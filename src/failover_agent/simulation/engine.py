"""A container engine and what runs on it. This is the ground truth that the checkers read.

An engine outlives the agent and dies with its host. It carries out what it was told even when
nobody waits for the answer any more, as a real one does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, unique
from typing import Protocol

from failover_agent.core.events import ContainerObservation
from failover_agent.core.state import ContainerState
from failover_agent.simulation.scheduler import Call, Scheduler, Signal

CALL_S = (0.001, 0.02)
"""How long a plain call takes."""


@unique
class Process(Enum):
    """What is left of a container's main process."""

    GONE = "gone"
    RUNNING = "running"
    PAUSED = "paused"


@unique
class Mode(Enum):
    """What the engine does with a call."""

    ANSWERS = "answers"
    HANGS = "hangs"
    REFUSES = "refuses"


@unique
class Check(Enum):
    """The state of a container's health check."""

    NONE = "no check"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(slots=True)
class Container:
    """One container, and how it will behave. `by_us`: the process was started by an agent, at
    `launched_at_s`, by a call that took `start_took_s`.
    """

    name: str
    exists: bool = True
    process: Process = Process.GONE
    check: Check = Check.NONE
    by_us: bool = False
    starts: int = 0
    image: str = "image-1"
    settings: str = "settings-1"
    restart_policy: str = "no"
    has_check: bool = False
    can_start: bool = True
    gets_healthy: bool = True
    start_takes_s: float = 0.3
    healthy_after_s: float = 0.5
    stop_takes_s: float = 0.3
    lives_for_s: float | None = None
    start_took_s: float = 0.0
    launched_at_s: float = 0.0

    @property
    def is_alive(self) -> bool:
        """Does a process of it exist?"""
        return self.process is not Process.GONE

    @property
    def is_up(self) -> bool:
        """Does it serve?"""
        return self.process is Process.RUNNING and self.check is not Check.UNHEALTHY

    @property
    def incarnation(self) -> str:
        """Another one with each start."""
        return f"{self.name}#{self.starts}" if self.exists else ""


class Witness(Protocol):
    """Who is told what truly happens."""

    def container_started(self, host: str, container: Container) -> None:
        """A process came to life."""

    def container_ended(self, host: str, container: Container, why: str, *, by_agent: bool) -> None:
        """A process ended."""

    def container_altered(self, host: str, container: Container, what: str) -> None:
        """It was paused, became unhealthy, was recreated, ..."""


@dataclass(frozen=True, slots=True)
class Hint:
    """One line of the events stream."""

    name: str
    died: bool
    incarnation: str


class Engine:
    """One engine. Calls answer with an error for people, empty when they worked.

    `age` counts its comings and goings. `ends_survivors`: as without live-restore, an engine that
    starts first ends what runs without one.
    """

    def __init__(
        self, scheduler: Scheduler, host: str, names: tuple[str, ...], witness: Witness
    ) -> None:
        """Every container exists and none runs."""
        self._scheduler = scheduler
        self._dice = scheduler.dice(f"engine of {host}")
        self._host = host
        self._witness = witness
        self._power = 0
        self.age = 0
        self._patient: list[Call] = []
        self._listeners: dict[int, Callable[[Hint], None]] = {}
        self._listens = 0
        self.containers = {name: Container(name) for name in names}
        self.mode = Mode.ANSWERS
        self.can_see_processes = True
        self.has_stream = True
        self.ends_survivors = False
        self.back: Signal[None] = Signal()
        self.gone: Signal[None] = Signal()

    @property
    def answers(self) -> bool:
        """Does it answer calls now?"""
        return self.mode is Mode.ANSWERS

    # --- what an agent can do -------------------------------------------------------------------

    def start(self, name: str) -> Signal[str]:
        """Start it for an agent: a paused one goes on, a running one is left alone."""
        container = self.containers[name]
        called_at_s = self._scheduler.now_s

        def work() -> str:
            if not container.exists:
                return "no such container"
            self.unpause(name)
            if container.is_alive:
                return ""
            if not container.can_start:
                return "its port is taken"
            container.start_took_s = self._scheduler.now_s - called_at_s
            self.launch(name, by_us=True)
            return ""

        return self._call(container.start_takes_s, work)

    def stop(self, name: str, grace_s: float | None) -> Signal[str]:
        """Stop it, kill it after `grace_s` (10 s by itself); fires when it is gone."""
        container = self.containers[name]
        takes_s = min(container.stop_takes_s, 10.0 if grace_s is None else grace_s)

        def work() -> str:
            self._end(container, "stopped by its agent", by_agent=True)
            return ""

        return self._call(takes_s if container.is_alive else 0.0, work)

    def set_restart_policy(self, name: str) -> Signal[str]:
        """Set it to "no"."""
        container = self.containers[name]

        def work() -> str:
            container.restart_policy = "no"
            return "" if container.exists else "no such container"

        return self._call(0.0, work)

    def inspect(self, name: str) -> ContainerObservation:
        """What the engine says of it now. Ask only while it answers."""
        container = self.containers[name]
        state = ContainerState.UP if container.is_up else ContainerState.DOWN
        words = f"{container.process.value} ({container.check.value})"
        return ContainerObservation(
            name=name,
            state=state,
            detail=words if container.exists else "no such container",
            exists=container.exists,
            alive=container.is_alive,
            incarnation=container.incarnation,
            image=container.image if container.exists else "",
            settings=container.settings if container.exists else "",
            restart_policy=container.restart_policy if container.exists else "no",
        )

    def processes(self) -> tuple[tuple[str, bool | None], ...]:
        """What can be told of the processes without the engine."""
        return tuple(
            (name, container.is_alive if self.can_see_processes else None)
            for name, container in self.containers.items()
        )

    def listen(self, hear: Callable[[Hint], None]) -> Call:
        """Subscribe to the events stream; the answer unsubscribes."""
        self._listens += 1
        key = self._listens
        self._listeners[key] = hear
        return lambda: void(self._listeners.pop(key, None))

    # --- what befalls it ------------------------------------------------------------------------

    def launch(self, name: str, *, by_us: bool) -> None:
        """A process comes to life: by an agent, by a person, by a restart policy."""
        container = self.containers[name]
        assert container.exists, f"{name} does not exist on {self._host}"
        if container.is_alive:
            return
        container.process = Process.RUNNING
        container.by_us = by_us
        container.launched_at_s = self._scheduler.now_s
        container.starts += 1
        container.check = Check.STARTING if container.has_check else Check.NONE
        self._witness.container_started(self._host, container)
        self._tell(container, died=False)
        incarnation = container.incarnation
        if container.has_check:
            check = Check.HEALTHY if container.gets_healthy else Check.UNHEALTHY
            self._for_this(container, container.healthy_after_s, lambda: self._checked(name, check))
        if container.lives_for_s is not None:
            self._for_this(container, container.lives_for_s, lambda: self.kill(name, "crashed"))
        assert container.incarnation == incarnation

    def kill(self, name: str, why: str = "killed", *, by_agent: bool = False) -> None:
        """Its process ends, whatever the engine does."""
        self._end(self.containers[name], why, by_agent=by_agent)

    def pause(self, name: str) -> None:
        """Freeze its processes."""
        container = self.containers[name]
        if container.process is Process.RUNNING:
            container.process = Process.PAUSED
            self._alter(container, "paused")

    def unpause(self, name: str) -> None:
        """Let them go on."""
        container = self.containers[name]
        if container.process is Process.PAUSED:
            container.process = Process.RUNNING
            self._alter(container, "unpaused")

    def sicken(self, name: str) -> None:
        """Its health check fails from now on."""
        self._checked(name, Check.UNHEALTHY)

    def cure(self, name: str) -> None:
        """Its health check works again."""
        container = self.containers[name]
        self._checked(name, Check.HEALTHY if container.has_check else Check.NONE)

    def remove(self, name: str) -> None:
        """`docker rm -f`."""
        container = self.containers[name]
        self._end(container, "removed")
        container.exists = False
        self._alter(container, "removed")

    def recreate(self, name: str, image: str | None = None) -> None:
        """`docker create` under the same name."""
        container = self.containers[name]
        container.exists = True
        container.image = image or container.image
        container.starts += 1
        self._alter(container, "recreated")

    def lose(self, mode: Mode, *, processes_die: bool = False) -> None:
        """The engine hangs or is gone; its containers live on unless `processes_die`.

        That is how it ends: one that has gone already ends nothing, nor does it hang.
        """
        was_gone = self.mode is Mode.REFUSES
        processes_die = processes_die and not was_gone
        self.mode = Mode.REFUSES if was_gone else mode
        self.age += 1
        if processes_die:
            for container in self.containers.values():
                self._end(container, "ended with its engine")
        if self.mode is Mode.REFUSES:
            # An open stream breaks at once; one of an engine that hangs just says nothing.
            gone, self.gone = self.gone, Signal()
            gone.fire(None)

    def recover(self) -> None:
        """It answers again; the calls that hung are carried out now."""
        self.mode = Mode.ANSWERS
        self.age += 1
        self.has_stream = True
        patient, self._patient = self._patient, []
        for call in patient:
            self._scheduler.after(self._dice.uniform(*CALL_S), call)
        back, self.back = self.back, Signal()
        back.fire(None)

    def power_off(self) -> None:
        """The host is gone, and everything on it."""
        self._power += 1
        self._patient.clear()
        self._listeners.clear()
        for container in self.containers.values():
            self._end(container, "ended with its host")

    def power_on(self) -> None:
        """A new boot: there is no engine yet."""
        self.mode = Mode.REFUSES
        self.age += 1

    def start_up(self) -> None:
        """A new engine; what has a restart policy comes back before anybody can ask."""
        self.end_survivors()
        for name, container in self.containers.items():
            if container.exists and container.restart_policy != "no":
                self.launch(name, by_us=False)
        self.recover()

    def end_survivors(self) -> None:
        """What an engine before this one left running, where `ends_survivors`."""
        for container in self.containers.values():
            if self.ends_survivors:
                self._end(container, "ended by the next engine")

    # --- inside ---------------------------------------------------------------------------------

    def _call(self, takes_s: float, work: Callable[[], str]) -> Signal[str]:
        """Carry `work` out in a while, as far as engine and power allow."""
        answer: Signal[str] = Signal()
        power = self._power

        def finish() -> None:
            if power != self._power:
                return
            if self.mode is Mode.HANGS:
                self._patient.append(finish)
            elif self.mode is Mode.REFUSES:
                # The connection broke; whether the work was done is a matter of luck.
                if self._dice.random() < 0.3:
                    work()
                answer.fire("the engine went away")
            else:
                answer.fire(work())

        if self.mode is Mode.REFUSES:
            self._scheduler.after(self._dice.uniform(*CALL_S), lambda: answer.fire("no engine"))
        else:
            self._scheduler.after(takes_s + self._dice.uniform(*CALL_S), finish)
        return answer

    def _for_this(self, container: Container, seconds: float, call: Call) -> None:
        """Make `call` in `seconds` if the same process still lives."""
        incarnation = container.incarnation

        def later() -> None:
            if container.is_alive and container.incarnation == incarnation:
                call()

        self._scheduler.after(seconds, later)

    def _checked(self, name: str, check: Check) -> None:
        container = self.containers[name]
        if container.is_alive and container.check is not check:
            container.check = check
            self._alter(container, check.value)

    def _end(self, container: Container, why: str, *, by_agent: bool = False) -> None:
        if not container.is_alive:
            return
        container.process = Process.GONE
        container.check = Check.NONE
        self._witness.container_ended(self._host, container, why, by_agent=by_agent)
        self._tell(container, died=True)
        container.by_us = False

    def _alter(self, container: Container, what: str) -> None:
        self._witness.container_altered(self._host, container, what)
        self._tell(container, died=False)

    def _tell(self, container: Container, *, died: bool) -> None:
        if self.has_stream and self.answers:
            hint = Hint(container.name, died=died, incarnation=container.incarnation)
            for hear in tuple(self._listeners.values()):
                hear(hint)


def void(_: object) -> None:
    """Drop a value."""
