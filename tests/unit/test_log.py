"""adapters/log.py and worker.py: what a line looks like, and what happens when nobody reads it."""

import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from failover_agent.adapters.log import (
    LINES_WAITING,
    BesideTheLoop,
    JsonFormatter,
    Narrator,
    TextFormatter,
)
from failover_agent.adapters.worker import Worker
from failover_agent.core import startup
from failover_agent.core.effects import RepairContainer
from failover_agent.core.events import Tick
from failover_agent.core.plan import Step
from failover_agent.core.policy import Policy, Role
from failover_agent.core.state import (
    Alarm,
    Containers,
    ContainerState,
    ContainerView,
    Durable,
    Overlap,
    Phase,
    Reason,
    State,
)
from failover_agent.core.turn import Turn

POLICY = Policy(role=Role.BACKUP, containers=("web",))


class Terminal(io.StringIO):
    """A stream whose reader may hang."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.free.set()

    def write(self, text: str) -> int:
        assert self.free.wait(30)
        return super().write(text)


Open = Callable[[logging.Formatter], Terminal]


@pytest.fixture
def open_log() -> Iterator[Open]:
    logger = logging.getLogger("failover_agent")
    handlers = []

    def open_one(formatter: logging.Formatter) -> Terminal:
        terminal = Terminal()
        handler = BesideTheLoop(terminal)
        handler.setFormatter(formatter)
        logger.addHandler(handler)
        logger.setLevel("INFO")
        handlers.append(handler)
        return terminal

    yield open_one
    logger.setLevel(logging.NOTSET)
    for handler in handlers:
        logger.removeHandler(handler)


def lines(terminal: Terminal) -> list[str]:
    logging.getLogger("failover_agent").handlers[0].flush()
    return terminal.getvalue().splitlines()


def tell(before: State, after: State, *effects: RepairContainer) -> None:
    Narrator().stepped(before, Tick(), 1100.0, Step(after, effects))


def tell_takeover() -> None:
    before = replace(beginning(), phase=Phase.STANDBY)
    turn = Turn(state=before, now=1100.0, policy=POLICY)
    turn.enter(Phase.ACQUIRING, Reason.PEER_SILENT)
    Narrator().stepped(before, Tick(), 1100.0, Step(turn.state, (), tuple(turn.transitions)))


def beginning() -> State:
    return startup.begin(
        POLICY,
        node_id="me",
        run_id="run",
        durable=Durable(),
        record_lost=True,
        boot_is_new=False,
        now=1000.0,
    )


def test_a_transition_is_one_line_of_text(open_log: Open) -> None:
    terminal = open_log(TextFormatter())

    tell_takeover()

    (line,) = lines(terminal)
    moment, rest = line.split(" ", 1)
    assert len(moment) == len("2026-11-22T03:04:05.123Z")
    assert moment[-1] == "Z"
    assert rest == (
        "INFO transition from=standby to=acquiring reason=peer_silent term=0 rule=H0 "
        '"asks for leave to run the service (nothing was heard from the peer for'
        ' heartbeat_timeout)"'
    )


def test_a_transition_is_one_object_of_json(open_log: Open) -> None:
    terminal = open_log(JsonFormatter())

    tell_takeover()

    (line,) = map(json.loads, lines(terminal))
    assert line["message"] == "transition"
    assert (line["level"], line["to"], line["term"]) == ("info", "acquiring", 0)
    assert line["time"].endswith("Z")


def test_alarms_containers_repairs_and_terms_are_a_line_each(open_log: Open) -> None:
    terminal = open_log(TextFormatter())
    before = replace(beginning(), phase=Phase.ACTIVE, held_term=6)
    alarm = Alarm("peer_silent", 'nothing is heard from "it"', 1000.0)
    down = ContainerView("web", state=ContainerState.DOWN, detail="exited (137)")
    after = replace(before, alarms={alarm.code: alarm}, containers=Containers([down]), held_term=7)

    tell(before, after, RepairContainer(term=7, name="web"))
    tell(after, replace(after, alarms={}))
    tell(after, replace(after, overlap=Overlap(1010.0, 1012.5)))

    assert [line.split(" ", 1)[1] for line in lines(terminal)] == [
        "INFO term from=6 to=7",
        r'WARNING alarm code=peer_silent "nothing is heard from \"it\""',
        'INFO container name=web from=unknown to=down "exited (137)"',
        "INFO repair name=web term=7",
        "INFO alarm ended code=peer_silent after_s=100",
        (
            "WARNING overlap length_s=2.5"
            ' "both nodes were active for so long; the other one has stopped"'
        ),
    ]


def test_of_several_alarms_of_one_code_it_is_said_which(open_log: Open) -> None:
    terminal = open_log(TextFormatter())
    alarm = Alarm("path_lost", "it does not answer", 1000.0)
    after = replace(beginning(), alarms={"path_lost http://10.0.0.2:8000": alarm})

    tell(beginning(), after)
    tell(after, replace(after, alarms={}))

    assert [line.split(" ", 1)[1] for line in lines(terminal)] == [
        'WARNING alarm code=path_lost which=http://10.0.0.2:8000 "it does not answer"',
        "INFO alarm ended code=path_lost which=http://10.0.0.2:8000 after_s=100",
    ]


def test_nothing_is_said_when_nothing_changed(open_log: Open) -> None:
    terminal = open_log(TextFormatter())

    tell(beginning(), replace(beginning(), stepped_at_s=2000.0))

    assert lines(terminal) == []


def test_a_fault_is_told_with_all_that_led_to_it(open_log: Open) -> None:
    terminal = open_log(TextFormatter())

    Narrator().broke(beginning(), Tick(), 1000.0, AssertionError("S3"))

    (line,) = lines(terminal)
    assert "CRITICAL broke" in line
    assert "S3" in line
    assert "event=Tick()" in line
    assert "Durable(term=0" in line


def test_what_others_say_stays_on_one_line(open_log: Open) -> None:
    terminal = open_log(TextFormatter())

    logging.getLogger("failover_agent.other").warning("%s", "peer says:\n2026 INFO transition")

    (line,) = lines(terminal)
    assert line.endswith(r"WARNING peer says:\n2026 INFO transition")


def test_a_traceback_is_kept_in_both_forms(open_log: Open) -> None:
    text, as_json = open_log(TextFormatter()), open_log(JsonFormatter())

    try:
        int("wrong")
    except ValueError:
        logging.getLogger("failover_agent").exception("died")

    assert lines(text)[-1].startswith("ValueError: invalid literal")
    logging.getLogger("failover_agent").handlers[1].flush()
    assert "ValueError: invalid" in json.loads(as_json.getvalue())["traceback"]


def test_a_terminal_that_hangs_holds_nobody_up_and_what_was_lost_is_counted(
    open_log: Open,
) -> None:
    terminal = open_log(TextFormatter())
    log = logging.getLogger("failover_agent")
    terminal.free.clear()

    for number in range(LINES_WAITING + 50):
        log.info("%d", number)
    terminal.free.set()
    log.handlers[0].flush()
    log.info("again")

    assert any("lines lost" in line for line in lines(terminal)[-2:])
    assert lines(terminal)[-1].endswith("again")


def test_a_terminal_that_is_gone_is_no_trouble(open_log: Open) -> None:
    terminal = open_log(TextFormatter())
    terminal.close()

    logging.getLogger("failover_agent").info("to nobody")
    logging.getLogger("failover_agent").handlers[0].flush()


async def test_work_is_done_in_order_and_its_errors_come_back() -> None:
    worker = Worker("test", limit=10)
    done: list[int] = []

    def fail() -> None:
        raise OSError(5, "Input/output error")

    assert all(worker.offer(lambda number=number: done.append(number)) for number in range(5))  # type: ignore[misc]

    assert await worker.run(lambda: len(done), deadline_s=5.0) == 5
    with pytest.raises(OSError, match="Input/output"):
        await worker.run(fail, deadline_s=5.0)
    assert done == [0, 1, 2, 3, 4]
    assert worker.drain(5.0)


async def test_while_one_job_is_overdue_the_next_fails_at_once() -> None:
    worker = Worker("test", limit=10)
    free = threading.Event()

    with pytest.raises(TimeoutError, match="not done within"):
        await worker.run(lambda: free.wait(30), deadline_s=1.0)
    with pytest.raises(TimeoutError, match="the one before"):
        await worker.run(lambda: None, deadline_s=30.0)

    free.set()
    assert worker.drain(10.0)
    assert await worker.run(lambda: "again", deadline_s=5.0) == "again"


def test_a_full_queue_takes_nothing_more() -> None:
    worker = Worker("test", limit=2)
    free = threading.Event()
    taken = threading.Event()

    def hang() -> None:
        taken.set()
        free.wait(30)

    assert worker.offer(hang)
    assert taken.wait(5)
    assert worker.offer(hang)
    assert worker.offer(hang)
    assert not worker.offer(hang)
    assert not worker.drain(0.01)
    free.set()
