"""adapters/journal.py: what is written, read again, bounded, and lost without harm."""

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from failover_agent.adapters import journal as journal_module
from failover_agent.adapters.journal import (
    NAME,
    Journal,
    read_history,
    same_but_for_times,
)
from failover_agent.core import startup
from failover_agent.core.events import (
    ContainerObservation,
    ContainersObserved,
    ContainersStarted,
    Event,
    HeartbeatFailed,
    Tick,
)
from failover_agent.core.machine import step
from failover_agent.core.plan import Step
from failover_agent.core.policy import Policy, Role
from failover_agent.core.state import ContainerState, Counters, Durable, Promise, State
from failover_agent.protocol.codec import decode, decode_event, encode
from tests.lab.until import until

POLICY = Policy(role=Role.PRIMARY, containers=("web",))
WALL = datetime(2026, 11, 22, 3, 4, 5, 123456, UTC)

Taken = tuple[State, Event, float, Step]


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


def steps(*events: tuple[float, Event]) -> Iterator[Taken]:
    state = beginning()
    for now, event in events:
        after = step(state, event, now, POLICY)
        yield state, event, now, after
        state = after.state


def stopped() -> ContainersObserved:
    one = ContainerObservation(
        name="web",
        state=ContainerState.DOWN,
        detail="exited (0)",
        exists=True,
        alive=False,
        incarnation="1",
        image="",
        settings="",
        restart_policy="no",
    )
    return ContainersObserved((one,))


def a_lone_start() -> list[Taken]:
    """From nothing to active, second by second, with nobody on the other side."""
    ticks = [(1000.0 + second, Tick()) for second in range(1, 30)]
    return list(steps((1000.0, stopped()), *ticks, (1030.0, ContainersStarted(term=1))))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path, wall=lambda: WALL)
    yield opened
    opened.close(5.0)


def lines(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / NAME).read_text().splitlines()]


def test_a_line_is_all_that_the_core_needs_to_do_it_again(tmp_path: Path, journal: Journal) -> None:
    journal.started(version="1", run_id="run", node_id="me", policy=POLICY, now=1000.0)
    for taken in a_lone_start():
        journal.stepped(*taken)
    journal.close(5.0)

    first, *others = lines(tmp_path)
    policy = decode(Policy, first["started"]["policy"])
    assert policy == POLICY
    assert others
    for line in others:
        again = step(
            decode(State, line["before"]), decode_event(line["event"]), line["now"], policy
        )
        assert [encode(effect) for effect in again.effects] == line["effects"]
        assert again.state.reason == line["reason"]


def test_a_change_of_phase_is_told_with_its_rule_and_sentence(
    tmp_path: Path, journal: Journal
) -> None:
    for taken in a_lone_start():
        journal.stepped(*taken)
    journal.close(5.0)

    told = [change for line in lines(tmp_path) for change in line.get("transitions", [])]
    assert [(change["from"], change["to"]) for change in told] == [
        ("starting", "acquiring"),
        ("acquiring", "promoting"),
        ("promoting", "active"),
    ]
    assert told[0]["reason"] == "first_start"
    assert told[1]["term"] == 1
    assert told[0]["rule"]
    assert told[0]["sentence"]
    assert {line["rule"] for line in lines(tmp_path) if "transitions" not in line} == {None}
    assert lines(tmp_path)[0]["wall"] == "2026-11-22T03:04:05.123Z"


def test_a_beat_that_changes_nothing_but_times_is_left_out(
    tmp_path: Path, journal: Journal
) -> None:
    *_, last = a_lone_start()
    journal.stepped(*last)
    state = last[3].state
    for second in range(1, 500):
        for event in (Tick(), HeartbeatFailed(Role.BACKUP, 1030.0, "refused")):
            after = step(state, event, 1030.0 + second, POLICY)
            journal.stepped(state, event, 1030.0 + second, after)
            state = after.state
    journal.close(5.0)

    assert len(lines(tmp_path)) < 15


def test_alarms_that_open_and_close_are_named(tmp_path: Path, journal: Journal) -> None:
    for taken in a_lone_start():
        journal.stepped(*taken)
    journal.close(5.0)

    alarms = [line["alarms"] for line in lines(tmp_path) if "alarms" in line]
    assert any("redundancy_lost" in change["opened"] for change in alarms)


def test_history_goes_on_over_a_restart_and_a_line_that_was_cut_off(
    tmp_path: Path, journal: Journal
) -> None:
    for taken in a_lone_start():
        journal.stepped(*taken)
    assert [entry["to"] for entry in journal.history(20)] == ["acquiring", "promoting", "active"]
    journal.close(5.0)
    with (tmp_path / NAME).open("a") as file:
        file.write('{"wall":"2026-11-22T04:00:00.000Z","transitions":[{"from":"act')

    later = Journal(tmp_path, wall=lambda: WALL)
    later.close(5.0)  # What was on disk before has been read by then.
    for taken in a_lone_start():
        later.stepped(*taken)
    later.close(5.0)

    expected = ["acquiring", "promoting", "active"] * 2
    assert [entry["to"] for entry in later.history(20)] == expected
    assert [entry["to"] for entry in read_history(tmp_path, 20)] == expected
    assert [entry["to"] for entry in later.history(1)] == ["active"]
    assert later.history(0) == []
    assert read_history(tmp_path, 3) == later.history(3)
    assert set(later.history(1)[0]) == {
        "wall",
        "from",
        "to",
        "reason",
        "term",
        "rule",
        "sentence",
    }


def test_there_is_no_history_where_there_is_no_journal(tmp_path: Path) -> None:
    assert read_history(tmp_path / "nowhere", 20) == []


def test_it_is_bounded_and_the_history_reaches_over_the_old_files(tmp_path: Path) -> None:
    journal = Journal(tmp_path, wall=lambda: WALL, largest_bytes=20_000)
    for _ in range(20):
        for taken in a_lone_start():
            journal.stepped(*taken)
        journal.close(5.0)

    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == [NAME, f"{NAME}.1", f"{NAME}.2"]
    assert all(path.stat().st_size <= 20_000 for path in tmp_path.iterdir())
    kept = read_history(tmp_path, 1000)
    assert len(kept) > 4
    assert kept == journal.history(1000)[-len(kept) :]


def test_a_disk_that_fails_loses_lines_says_so_once_and_harms_nobody(
    tmp_path: Path, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / NAME).mkdir()
    for taken in a_lone_start():
        journal.stepped(*taken)
    journal.close(5.0)

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert [entry["to"] for entry in journal.history(20)] == ["acquiring", "promoting", "active"]

    (tmp_path / NAME).rmdir()
    with caplog.at_level("INFO"):
        journal.stepped(*a_lone_start()[-1])
        journal.close(5.0)

    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert lines(tmp_path)[0]["lost_before"] > 1


def test_a_disk_that_hangs_holds_nobody_up(
    tmp_path: Path,
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    journal.close(5.0)
    hangs = threading.Event()
    write = os.write

    def hang(file: int, data: bytes) -> int:
        assert hangs.wait(30)
        return write(file, data)

    monkeypatch.setattr(os, "write", hang)
    *_, last = a_lone_start()
    for _ in range(3 * journal_module.LINES_WAITING):
        journal.stepped(*last)

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    hangs.set()
    journal.close(10.0)
    journal.stepped(*last)
    journal.close(10.0)
    until(lambda: len(lines(tmp_path)) > journal_module.LINES_WAITING, limit_s=5)
    assert any("lost_before" in line for line in lines(tmp_path))


def test_a_fault_of_the_core_is_journaled(tmp_path: Path, journal: Journal) -> None:
    journal.broke(beginning(), Tick(), 1000.0, AssertionError("S3: a term went back"))
    journal.close(5.0)

    (line,) = lines(tmp_path)
    assert "S3" in line["broke"]
    assert decode(State, line["before"]) == beginning()


def test_what_counts_as_a_change() -> None:
    state = beginning()
    me = state.me

    assert same_but_for_times(state, replace(state, stepped_at_s=1.0, counters=Counters(stale=9)))
    assert not same_but_for_times(state, replace(state, durable=Durable(longest_lease_s=10.0)))
    assert not same_but_for_times(state, replace(state, promise=Promise(me, 1, 5.0)))
    assert same_but_for_times(
        replace(state, promise=Promise(me, 1, 5.0)), replace(state, promise=Promise(me, 1, 6.0))
    )
    assert not same_but_for_times(state, replace(state, moves_at_s=(1.0,)))
    assert not same_but_for_times(state, replace(state, leading_at_s=5.0))
    assert not same_but_for_times(state, replace(state, peers={}))
