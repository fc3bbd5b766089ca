"""Hundreds of containers in one group: all of them move, in order, none twice."""

import pytest

from tests.simulation.trios import Trio

START_S, STOP_S = 0.02, 0.005


def _names(number: int) -> tuple[str, ...]:
    return tuple(f"c{one:04}" for one in range(number))


def _at_rest(number: int) -> Trio:
    trio = Trio(containers=_names(number))
    trio.take(START_S, STOP_S)
    trio.boot_all()
    trio.serves_within("primary", 30 + 3 * number * START_S)
    trio.running_s(5.0)
    return trio


@pytest.mark.parametrize("number", [200, 1000])
def test_after_a_crash_of_the_host_all_are_started_in_order_on_the_other(number: int) -> None:
    trio = _at_rest(number)
    happened = trio.diary.since()

    trio.world.crash_host("primary")
    took_s = trio.serves_within("backup", 10 + 3 * number * START_S)

    moved = [line for line in happened() if line[1] == "backup"]
    assert moved == [("+", "backup", name) for name in _names(number)]
    assert took_s < 10 + 2 * number * START_S


@pytest.mark.parametrize("number", [200])
def test_one_beyond_repair_moves_all_in_order_and_stops_them_in_reverse(number: int) -> None:
    trio = _at_rest(number)
    happened = trio.diary.since()

    trio.world.break_container("primary", _names(number)[number // 2])
    trio.serves_within("backup", 30 + 5 * number * (START_S + STOP_S))

    names = [name for name in _names(number) if name != _names(number)[number // 2]]
    stopped = [line for line in happened() if line[0] == "-"][1:]
    assert stopped == [("-", "primary", name) for name in reversed(names)]
    started = [line for line in happened() if line[:2] == ("+", "backup")]
    assert started == [("+", "backup", name) for name in _names(number)]
