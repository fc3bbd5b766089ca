"""Bad days: disks that are full, clocks that jump, names that are gone, records that are not ours.

On each of them: a clear message, no crash loop, nothing lost, and the service runs on unharmed.
"""

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.agent import default_command, signal_all
from tests.lab.lab import Lab, Node
from tests.lab.metronome import Metronome
from tests.lab.pair import LIMIT_S, alarms, pass_time, runs_all, status, term, wait_redundant, watch
from tests.lab.systemd import UNIT, Systemd
from tests.lab.trio import Trio
from tests.lab.truth import now_s
from tests.lab.until import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

TIMEOUT_S = 12.0  # an agent that is started anew has to be back within that, on a busy machine
SHORT_S = 1.5
SEEN_S = 2.5  # so late a running process sees that its clock was set
STATE = "/var/lib/failover-agent"  # of every cluster
RECORD = f"{STATE}/default/record.json"
RUN = "/run/failover-agent"
CLOCK = "/run/lab-clock"
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), Path("libfaketime"))
MISTAKE = 2


FAKED = (
    "env",
    f"LD_PRELOAD={FAKETIME}",
    f"FAKETIME_TIMESTAMP_FILE={CLOCK}",
    "FAKETIME_CACHE_DURATION=1",  # to read a file at each look would cost too much
    "FAKETIME_DONT_FAKE_MONOTONIC=1",  # nor CLOCK_BOOTTIME: on a host, too, only wall time is set
)


@pytest.fixture(scope="module")
def shared() -> Iterator[Trio]:
    """Small disks of their own for the agents' files; endpoints by name."""
    with Lab(["db", "web"], third_host=True) as lab, Metronome() as metronome:
        trio = Trio(
            lab,
            "witness",
            metronome,
            heartbeat_timeout=TIMEOUT_S,
            primary={"endpoint": "http://host-b:8000"},
            backup={"endpoint": "http://host-a:8000"},
        )
        for node in trio.nodes:
            mount_small_disks(node)
        trio.start()
        yield trio


def mount_small_disks(node: Node) -> None:
    for place, options in ((STATE, "size=2m,nr_inodes=64"), (RUN, "size=64k,nr_inodes=64")):
        node.host.run(["mkdir", "-p", place])
        node.host.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place])


def wait_alarm(node: Node, code: str) -> str:
    """Its sentence, when it is open."""
    return until(lambda: alarms(node).get(code), LIMIT_S, f"{node.name} alarms {code}")


# --- disks ---------------------------------------------------------------------------------------


def fill(node: Node, place: str) -> None:
    """Not one byte is free; again, where some came free since."""
    node.host.run(["sh", "-c", f"cat /dev/zero >> {place}/ballast"], check=False)


def free(node: Node, place: str) -> None:
    node.host.run(["sh", "-c", f"rm -f {place}/ballast*"])


def use_up_inodes(node: Node, place: str) -> None:
    """Bytes are free, but no file can be made."""
    line = f"i=0; while touch {place}/ballast$i; do i=$((i+1)); done"
    node.host.run(["sh", "-c", line], check=False)


def remount(node: Node, how: str) -> None:
    """Busy for the moment in which a file is open for writing."""
    line = ["mount", "-o", f"remount,{how}", STATE]
    until(lambda: node.host.run(line, check=False).returncode == 0, LIMIT_S, f"remounted {how}")


@contextlib.contextmanager
def bad_disk(node: Node, kind: str) -> Iterator[None]:
    """The one below the agent's files; whole again afterwards."""
    try:
        if kind == "full":
            fill(node, STATE)
        elif kind == "no inode is free":
            use_up_inodes(node, STATE)
        else:
            remount(node, "ro")
        yield
    finally:
        remount(node, "rw")
        free(node, STATE)


@pytest.mark.parametrize("kind", ["full", "no inode is free", "read-only"])
def test_a_disk_that_takes_nothing_moves_nothing_and_is_told(trio: Trio, kind: str) -> None:
    """On both hosts at once: the active one goes on, the standby could not take over."""
    (active, standby), since_s = trio.ends(), now_s()
    before = term(active)
    problem = "Read-only file system" if kind == "read-only" else "No space left on device"
    with bad_disk(active, kind), bad_disk(standby, kind):
        # The disk is tried at a start, else once a minute; a record that is there can be read.
        restarted = (standby, active) if kind == "full" else (standby,)
        for node in restarted:
            signal_all([node.agent.agent_pid], signal.SIGKILL)
            assert problem in wait_alarm(node, "record_not_writable")
        active.agent.wait_phase("active", LIMIT_S)
        until(
            lambda: "cannot be written" in alarms(active).get("redundancy_lost", ""),
            LIMIT_S,
            "the active knows that its standby is not ready",
        )
    until(lambda: not {*alarms(active), *alarms(standby)}, LIMIT_S, "all is well by itself")
    wait_redundant(trio.lab, active)
    assert not trio.lab.truth.starts(since_s), "nothing was started anew"
    assert term(active) >= before


def test_after_all_that_a_failover_works_and_the_term_has_grown(trio: Trio) -> None:
    (active, standby), since_s = trio.ends(), now_s()
    before = term(active)
    active.crash()
    trio.wait_back(since_s, "crash after bad days", standby)
    assert term(standby) > before
    active.boot()
    mount_small_disks(active)  # a new disk in place of the old one
    trio.start_agent(active)
    trio.settle()


def test_a_run_folder_that_is_full_stops_nothing(trio: Trio) -> None:
    """The lease file is for a guard that takes over from a dead one; this one lives."""
    (active, _), since_s = trio.ends(), now_s()
    said = "the lease file cannot be written: "

    def says_so() -> bool:
        fill(active, RUN)
        return said in active.agent.log()

    until(says_so, LIMIT_S, "the guard says so")
    trio.watch_unmoved(active, SHORT_S, since_s)
    free(active, RUN)
    lease = active.host.path(f"{RUN}/default.lease")
    until(lambda: json.loads(lease.read_text() or "{}"), LIMIT_S, "it is written again")
    trio.watch_unmoved(active, 0.0, since_s)


# --- records -------------------------------------------------------------------------------------


def test_an_active_whose_record_is_damaged_gives_way_and_never_runs_beside_the_other(
    trio: Trio,
) -> None:
    """Its agent alone is started anew, by its guard, and finds garbage: it has forgotten what it
    promised, and even who it was. So its lease ends, and whoever may leads on.
    """
    (active, _), since_s = trio.ends(), now_s()
    before = term(active)
    active.host.path(RECORD).write_text('{"schema": 1, "term": ')
    signal_all([active.agent.agent_pid], signal.SIGKILL)
    said = "could not be read and was set aside"
    until(lambda: said in active.agent.log(), LIMIT_S, "it says what it found")
    until(lambda: term_of_the_active(trio) > before, LIMIT_S, "somebody leads, in a newer term")
    trio.settle()
    print(f"damaged record on the active: away for {trio.absence_s(since_s):.2f} s")
    aside = active.host.path(f"{RECORD}.broken-1")
    assert aside.read_text() == '{"schema": 1, "term": ', "kept for whoever wants to know why"
    lease = active.host.path(f"{RUN}/default.lease")
    if trio.ends()[0] is not active:
        until(lambda: not lease.exists(), LIMIT_S, "its guard has nothing to kill any more")


def term_of_the_active(trio: Trio) -> int:
    """0 where nobody is."""
    node = trio.active()
    return 0 if node is None else term(node)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"cluster": "another"}, "the record belongs to the {role} of cluster 'another'"),
        ({"machine": "f" * 32}, "the record belongs to another machine, and this is not that one"),
        ({"schema": 99}, "the record has schema 99, and this version knows none above 1"),
    ],
)
def test_a_record_that_is_not_ours_ends_the_agent_and_harms_nobody(
    trio: Trio, change: dict[str, object], told: str
) -> None:
    (active, standby), since_s = trio.ends(), now_s()
    file = standby.host.path(RECORD)
    ours = file.read_text()
    theirs = json.dumps({**json.loads(ours), **change})
    file.write_text(theirs)
    signal_all([standby.agent.agent_pid], signal.SIGKILL)
    assert standby.agent.wait(LIMIT_S) == MISTAKE, "and it is not started again: no crash loop"
    assert told.format(role=standby.agent.role) in standby.agent.log()
    assert file.read_text() == theirs, "nothing was overwritten"
    assert standby.agent.cli("status").returncode == 4
    until(lambda: "redundancy_lost" in alarms(active), LIMIT_S, "the active misses it")
    file.write_text(ours)
    trio.settle()
    trio.watch_unmoved(active, 0.0, since_s)


# --- names ---------------------------------------------------------------------------------------


def test_a_name_that_resolves_no_more_leaves_the_last_good_address(trio: Trio) -> None:
    (active, standby), since_s = trio.ends(), now_s()
    known = {node: node.host.path("/etc/hosts").read_text() for node in trio.nodes}
    for node in trio.nodes:
        node.host.path("/etc/hosts").write_text("127.0.0.1 localhost\n")
    trio.lab.network.cut_both(active, standby)  # whoever cannot reach a host looks its name up
    said = f"the last good address is used: {standby.address}"
    until(lambda: said in active.agent.log(), LIMIT_S, "it says that the name is gone")
    trio.lab.network.heal()
    wait_redundant(trio.lab, active)
    standby.agent.sigkill()  # what it knew is forgotten; its supervisor starts it again
    standby.agent.wait_whole()
    unknown = f"{active.name} does not resolve"
    until(lambda: unknown in json.dumps(status(standby)), LIMIT_S, "told by one that never knew")
    checked = standby.agent.cli("check")
    assert unknown in checked.stdout
    assert "/etc/hosts" in checked.stdout, "and what mends it"
    for node, text in known.items():
        node.host.path("/etc/hosts").write_text(text)
    until(lambda: unknown not in json.dumps(status(standby)), LIMIT_S, "known again")
    trio.settle()
    trio.watch_unmoved(active, 0.0, since_s)


# --- containers and engines that are not there ---------------------------------------------------


def test_a_container_that_is_not_there_is_named_and_found_when_it_is_made(trio: Trio) -> None:
    (active, standby), since_s = trio.ends(), now_s()
    web = standby.services["web"]
    web.remove()
    until(lambda: "not_ready" in alarms(standby), LIMIT_S, "it could not take over")
    assert "web" in alarms(standby)["not_ready"]
    told = standby.agent.cli("status").stdout
    assert "web" in told
    checked = standby.agent.cli("check")
    assert checked.returncode == 1
    assert "container web: there is no such container on this host" in checked.stdout
    assert "docker create --name web" in checked.stdout
    until(lambda: "redundancy_lost" in alarms(active), LIMIT_S, "the active says so too")
    web.create()
    wait_redundant(trio.lab, active)
    until(lambda: not alarms(standby), LIMIT_S, "without a restart")
    trio.watch_unmoved(active, 0.0, since_s)


def test_an_engine_that_is_not_there_yet_at_boot_is_waited_for(trio: Trio) -> None:
    """Both hosts come up at once, and their agents before their engines."""
    active, standby = trio.ends()
    before, since_s = term(active), now_s()
    for node in (active, standby):
        node.crash()
    for node in (active, standby):
        node.host.boot()
        mount_small_disks(node)
        trio.start_agent(node)
    for node in (active, standby):
        assert "does not answer" in wait_alarm(node, "engine_lost")
    standby.engine.start()
    active.engine.start()
    found = trio.settle()
    until(lambda: runs_all(trio.lab, found), LIMIT_S, "all containers run there")
    assert term(found) >= before or term(found) >= 1
    assert {host for host, _ in trio.lab.truth.starts(since_s)} == {found.name}
    for node in (active, standby):
        assert node.agent.log().count(" INFO start ") < 40, "no crash loop"


# --- clocks --------------------------------------------------------------------------------------


def start_with_a_clock_of_its_own(trio: Trio, node: Node, offset: str) -> None:
    """Guard and agent; `set_clock` moves it."""
    assert FAKETIME.exists(), "not installed: faketime. Run scripts/install-packages"
    node.agent.end()
    set_clock(node, offset)
    command = [*FAKED, *default_command()]
    trio.lab.start_agent(node, node.agent.role, trio.settings, command, supervised=True)


def set_clock(node: Node, offset: str) -> None:
    """Of guard and agent, within SEEN_S. Replaced as a whole: it is read at any moment."""
    file = node.host.path(CLOCK)
    file.with_suffix(".new").write_text(f"{offset}\n")
    file.with_suffix(".new").rename(file)


def history(node: Node) -> list[dict[str, Any]]:
    """All that its agent knows, the oldest first."""
    told = node.agent.cli("history", "--json", "--limit", "1000").stdout
    return [*json.loads(told)]


def test_a_clock_that_is_set_back_and_forth_moves_nothing(trio: Trio) -> None:
    one, other = trio.ends()
    known = {node: len(history(node)) for node in trio.nodes}
    start_with_a_clock_of_its_own(trio, other, "-1h")
    trio.settle()
    start_with_a_clock_of_its_own(trio, one, "+1h")
    active = trio.settle()
    standby, since_s = trio.lab.peer_of(active), now_s()
    before = term(active)
    for here, there in (("+1h", "-1h"), ("-1h", "+1h")):
        set_clock(active, here)
        set_clock(standby, there)
        watch(trio.lab, SEEN_S, active)
    signal_all([active.agent.agent_pid], signal.SIGKILL)  # it comes back an hour earlier
    active.agent.wait_whole()
    active.agent.wait_phase("active", LIMIT_S)
    wait_redundant(trio.lab, active)
    trio.watch_unmoved(active, SHORT_S, since_s)
    assert term(active) == before
    told = history(active)[known[active] :]
    terms = [transition["term"] for transition in told]
    assert terms == sorted(terms), "in the order in which it happened"
    walls = [transition["wall"] for transition in told]
    assert walls != sorted(walls), "which is not that of the clock"
    for node in (active, standby):
        for line in node.host.path(f"{STATE}/default/journal.jsonl").read_text().splitlines():
            json.loads(line)
        node.agent.end()  # whatever follows has the real clock again


# --- under systemd -------------------------------------------------------------------------------

SQUATTER = """
import signal, socket
server = socket.create_server(("0.0.0.0", 8000))
print("up", flush=True)
signal.pause()
"""


def test_systemd_tries_a_port_again_in_peace_and_a_mistake_never() -> None:
    """The real unit under the real systemd: exit status 1 and 2."""
    with Lab(["db"]) as lab:
        system = Systemd(lab, lab.a)
        system.boot()
        squatter = lab.a.host.spawn("squatter", [sys.executable, "-c", SQUATTER])
        until(lambda: "up" in squatter.log(), LIMIT_S, "it listens")
        with pytest.raises(RuntimeError, match="another program already listens on"):
            system.start_agent("primary", {})
        before, since_s = restarts(system), now_s()
        pass_time(8)
        assert restarts(system) - before <= (now_s() - since_s) / 5 + 1, "a crash loop"
        squatter.sigkill()
        until(lambda: is_active(system), LIMIT_S, "it is started when the port is free")

        config = system.path("/etc/failover-agent/config.toml")
        config.write_text(config.read_text().replace("heartbeat_timeout", "heartbeat_timout"))
        system.run("systemctl", "restart", UNIT, check=False)
        until(lambda: unit(system, "ActiveState") == "failed", LIMIT_S, "it has failed for good")
        before = restarts(system)
        pass_time(1)
        assert restarts(system) == before
        told = system.run("journalctl", "-u", UNIT, "-o", "cat").stdout
        assert "heartbeat_timout is not a setting. Did you mean heartbeat_timeout?" in told
        assert "Traceback" not in told


def unit(system: Systemd, what: str) -> str:
    return system.run("systemctl", "show", "-P", what, UNIT).stdout.strip()


def restarts(system: Systemd) -> int:
    return int(unit(system, "NRestarts"))


def is_active(system: Systemd) -> bool:
    return unit(system, "ActiveState") == "active"
