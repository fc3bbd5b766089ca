"""Hosts that die, wires that are cut, pairs that start: truth taken from the containers."""

from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab
from tests.lab.metronome import Metronome
from tests.lab.pair import (
    LIMIT_S,
    alarms,
    assert_never_two,
    runs_all,
    start_pair,
    status,
    term,
    wait_moved,
    wait_redundant,
    watch,
)
from tests.lab.truth import now_s
from tests.lab.until import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

INTERVAL_S = 0.4  # heartbeat_interval of the lab
TIMEOUT_S = 3.0  # heartbeat_timeout of the lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(["db", "web"]) as lab:
        yield lab


def test_a_crashed_host_is_replaced_and_comes_back_as_standby(lab: Lab) -> None:
    start_pair(lab)
    crashed_at_s = now_s()
    lab.a.crash()
    wait_moved(lab, lab.b, crashed_at_s, "host crash")
    first = lab.truth.first_tick_after(crashed_at_s, host="host-b")
    assert first is not None
    assert first - crashed_at_s > TIMEOUT_S - INTERVAL_S, "not before heartbeat_timeout"
    until(lambda: status(lab.b).get("reason") == "peer_silent", LIMIT_S, "and why")
    lab.a.boot()
    lab.start_agent(lab.a, "primary")
    wait_redundant(lab, lab.b)
    lab.a.agent.wait_phase("standby")
    until(lambda: term(lab.a) == term(lab.b), LIMIT_S, "it has promised the new term to its holder")
    watch(lab, 2 * TIMEOUT_S, lab.b)
    assert_never_two(lab)


def test_a_cut_wire_makes_two_until_first_contact_and_then_one(lab: Lab) -> None:
    start_pair(lab)
    cut_at_s = now_s()
    lab.network.cut_both(lab.a.host, lab.b.host)
    until(lambda: runs_all(lab, lab.b), LIMIT_S, "under availability the standby takes over")
    until(lambda: "redundancy_lost" in alarms(lab.a), LIMIT_S, "the active misses its peer")
    until(lambda: runs_all(lab, lab.a), LIMIT_S, "and the active goes on")
    with Metronome() as metronome:
        healed_at_s = now_s()
        lab.network.heal()
        lab.a.agent.wait_phase("standby")
        wait_redundant(lab, lab.b)
        late_s = metronome.late_s(healed_at_s)
    assert not lab.truth.running_now("host-a")
    overlaps = lab.truth.overlaps()
    ended_at_s = max(overlap.start_s + overlap.seconds for overlap in overlaps)
    both_s = ended_at_s - min(overlap.start_s for overlap in overlaps)
    after_s = ended_at_s - healed_at_s
    print(f"overlap: {both_s:.2f} s in all, {after_s:.2f} s of it after the wire was healed")
    told_s = until(lambda: (status(lab.a).get("overlap") or {}).get("lasted_s"), LIMIT_S, "told")
    print(f"overlap as told by the agent that stopped: {told_s:.2f} s")
    assert after_s < TIMEOUT_S + late_s, "one side stops at the first contact"
    # It counts from the winning of the term, and the first container has yet to start then.
    first_s = lab.truth.first_tick_after(cut_at_s, host="host-b")
    assert first_s is not None
    start_s = first_s - (cut_at_s + TIMEOUT_S - INTERVAL_S)
    least_s, most_s = both_s - TIMEOUT_S / 2, both_s + start_s + TIMEOUT_S / 2
    assert least_s <= told_s <= most_s, "and has measured what happened"
    history = lab.a.agent.cli("history").stdout
    assert "newer_term" in history


def test_a_standby_that_dies_is_missed_and_nothing_moves(lab: Lab) -> None:
    start_pair(lab)
    before = term(lab.a)
    since_s = now_s()
    lab.b.crash()
    until(lambda: "redundancy_lost" in alarms(lab.a), LIMIT_S, "the active says so")
    watch(lab, TIMEOUT_S, lab.a)
    assert term(lab.a) == before
    assert not lab.truth.starts(since_s)


def test_the_default_timings_take_over_after_ten_seconds(lab: Lab) -> None:
    defaults = {
        "heartbeat_interval": 1.0,
        "check_heartbeat_interval": 1.0,
        "heartbeat_timeout": 10.0,
        "startup_grace_period": 20.0,
        "restart_grace_period": 30.0,
    }
    start_pair(lab, **defaults)
    crashed_at_s = now_s()
    lab.a.crash()
    wait_moved(lab, lab.b, crashed_at_s, "host crash with the default timings")
    first = lab.truth.first_tick_after(crashed_at_s, host="host-b")
    assert first is not None
    assert first - crashed_at_s > 9.0, "a beat may have been on its way, no more"
    assert_never_two(lab)
