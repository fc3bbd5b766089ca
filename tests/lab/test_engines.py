"""Engines that are restarted, killed, or hung under a running service."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.pair import (
    LIMIT_S,
    alarms,
    assert_never_two,
    start_pair,
    status,
    term,
    wait_redundant,
    watch,
)
from tests.lab.process import Process
from tests.lab.truth import now_s
from tests.lab.until import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

GRACE_S = 60.0  # longer than an engine needs to come back on a busy machine


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(["db", "web"]) as lab:
        yield lab


@pytest.mark.parametrize("place", ["active", "standby"])
def test_an_engine_that_is_restarted_moves_nothing_within_the_grace(lab: Lab, place: str) -> None:
    start_pair(lab, restart_grace_period=GRACE_S)
    before = term(lab.a)
    (lab.a if place == "active" else lab.b).engine.restart()
    wait_redundant(lab, lab.a)
    assert term(lab.a) == before
    assert_never_two(lab)


def test_an_engine_that_is_killed_and_back_moves_nothing_within_the_grace(lab: Lab) -> None:
    start_pair(lab, restart_grace_period=GRACE_S)
    before = term(lab.a)
    lab.a.engine.kill()
    until(lambda: "engine_lost" in alarms(lab.a), LIMIT_S, "the engine is missed")
    states = {item["state"] for item in status(lab.a)["containers"]}
    assert states == {"unknown"}, "unknown is not down"
    lab.a.engine.start()
    wait_redundant(lab, lab.a)
    assert term(lab.a) == before
    assert "engine_lost" not in alarms(lab.a)
    assert_never_two(lab)


def test_a_hung_engine_is_unknown_and_the_service_stays(lab: Lab) -> None:
    """Beyond the grace too: the processes are seen alive, so it stays, and says so."""
    start_pair(lab)
    before = term(lab.a)
    lab.a.engine.freeze()
    until(lambda: "engine_lost" in alarms(lab.a), LIMIT_S, "the engine is missed")
    since_s = now_s()
    watch(lab, 6.0, lab.a)
    assert not lab.truth.starts(since_s)
    lab.a.engine.thaw()
    wait_redundant(lab, lab.a)
    assert term(lab.a) == before


RELAY = "/run/relay.sock"


def start_relay(host: Host) -> Process:
    """Between the agent and the engine of this host: its SIGKILL cuts the stream of events."""
    program = Path(__file__).with_name("relay.py")
    command: list[str | Path] = [sys.executable, "-I", program, RELAY, "/run/docker.sock"]
    relay = host.spawn("relay", command)
    until(host.path(RELAY).exists, LIMIT_S, "the relay listens")
    return relay


def test_a_cut_stream_hides_nothing_for_longer_than_the_cut(lab: Lab) -> None:
    """What happened meanwhile is known after it, and repaired; the cut itself moves nothing."""
    relay = start_relay(lab.a.host)
    settings = {"restart_grace_period": GRACE_S}
    lab.start_agent(lab.a, "primary", {**settings, "docker": {"host": f"unix://{RELAY}"}})
    lab.start_agent(lab.b, "backup", settings)
    wait_redundant(lab, lab.a)
    before = term(lab.a)
    relay.sigkill()
    until(lambda: "engine_lost" in alarms(lab.a), LIMIT_S, "the engine is out of reach")
    since_s = now_s()
    lab.a.services["db"].kill()
    lab.a.host.path(RELAY).unlink()
    start_relay(lab.a.host)
    until(lambda: ("host-a", "db") in lab.truth.starts(since_s), LIMIT_S, "db is repaired")
    wait_redundant(lab, lab.a)
    assert term(lab.a) == before
    assert_never_two(lab)
