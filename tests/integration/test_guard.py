"""The guard as a process: G1 to G4, with real agents, processes and control groups."""

import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from failover_agent.cli.run import BROKE
from tests.integration.guarded import (
    KILL_BUDGET_S,
    LIMIT_S,
    T_S,
    Guard,
    is_running,
    now_s,
)
from tests.lab.process import stat
from tests.lab.until import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

MOST_PSS_KB = 20_000
CAP_SYS_RESOURCE = 24
LONG_S = 8.0
"""A lease that still runs when the next guard or agent has started. No longer than the limit that
the mutants wait for.
"""


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Guard]:
    made = Guard(tmp_path)
    yield made
    made.close()


def after(moment_s: float) -> None:
    until(lambda: now_s() > moment_s, LIMIT_S)


def hears_all(guard: Guard) -> None:
    """The guard has read what its agent sent before: an arm that it refuses is answered, too."""
    before = len(guard.heard())
    guard.say("arm", term=0, names=[], valid_until_s=now_s() + T_S)
    until(lambda: len(guard.heard()) > before, LIMIT_S)


# -- G1: armed, moved, disarmed -----------------------------------------------------------------


def test_what_is_armed_and_not_renewed_is_killed_before_its_lease_ends(guard: Guard) -> None:
    container = guard.container()
    container.run()
    container.run(inner=True)
    guard.start()
    agent = guard.agent()

    until_s = guard.arm(container)
    until(lambda: guard.is_killed(container), LIMIT_S)
    killed_at_s = now_s()

    assert killed_at_s >= until_s - KILL_BUDGET_S
    until(lambda: not is_running(agent["pid"]), LIMIT_S)
    print(f"killed {1000 * (killed_at_s - until_s + KILL_BUDGET_S):.0f} ms after its moment")


def test_nothing_is_killed_before_that_while_it_is_renewed_nor_once_it_is_disarmed(
    guard: Guard,
) -> None:
    container = guard.container()
    container.run()
    guard.start()
    agent = guard.agent()
    first_s = guard.arm(container)
    guard.order(renew=T_S - 0.1, term=7)
    after(first_s + T_S)
    assert container.alive() == 1

    guard.order(renew=0, term=7)
    guard.say("disarm", term=7)
    until(lambda: not guard.lease_file.exists(), LIMIT_S)
    after(now_s() + T_S)

    assert container.alive() == 1
    assert is_running(agent["pid"])


def test_a_hold_has_no_deadline_and_ends_with_the_next_renewal(guard: Guard) -> None:
    container = guard.container()
    container.run()
    guard.start()
    guard.agent()
    until_s = guard.arm(container)
    guard.order(send={"say": "move", "term": 7, "valid_until_s": float("inf")})
    until(lambda: json.loads(guard.lease_file.read_text())["held"], LIMIT_S)
    after(until_s + 0.5)
    assert container.alive() == 1

    guard.say("move", term=7, valid_until_s=now_s() + T_S)
    until(lambda: guard.is_killed(container), LIMIT_S)


def test_a_deadline_too_far_ahead_of_another_term_or_before_hello_is_refused(guard: Guard) -> None:
    container = guard.container()
    container.run()
    guard.start()
    guard.agent()
    until_s = guard.arm(container)
    guard.say("move", term=7, valid_until_s=now_s() + 10 * T_S)
    guard.say("move", term=6, valid_until_s=now_s() + T_S)
    guard.say("disarm", term=6)
    until(lambda: guard.is_killed(container), LIMIT_S)

    assert now_s() < until_s + 5 * T_S
    assert guard.logged().count("refused what the agent said") == 3


def test_an_agent_without_hello_and_one_that_speaks_nonsense_arm_nothing(guard: Guard) -> None:
    (guard.folder / "hello.json").unlink()
    guard.start()
    agent = guard.agent()
    guard.say("arm", term=7, names=["db"], valid_until_s=now_s() + 1)
    until(guard.heard, LIMIT_S)
    garbled: list[object] = [
        {"say": "what"},
        {},
        [],
        {"say": "move", "term": -1, "valid_until_s": "soon"},
    ]
    for nonsense in garbled:
        guard.order(send=nonsense)
    hears_all(guard)

    assert "has not told its timings" in guard.heard()[0]["error"]
    assert not guard.lease_file.exists()
    assert is_running(agent["pid"])


def test_a_lease_file_that_cannot_be_written_is_an_answer(guard: Guard) -> None:
    guard.greet(lease_file="/proc/failover-agent/shop.lease")
    guard.start()
    guard.agent()
    guard.say("arm", term=7, names=["db"], valid_until_s=now_s() + T_S)
    until(guard.heard, LIMIT_S)

    assert "/proc/failover-agent" in guard.heard()[0]["error"]


# -- G2: the agent first, then all, until the next one disarms ----------------------------------


@pytest.mark.parametrize("fault", ["killed", "frozen", "spinning", "deaf"])
def test_it_holds_whatever_has_become_of_the_agent(guard: Guard, fault: str) -> None:
    container = guard.container()
    container.run()
    lease_s = LONG_S if fault == "killed" else T_S
    guard.greet(heartbeat_timeout_s=lease_s)
    guard.start()
    agent = guard.agent()
    until_s = guard.arm(container, left_s=lease_s)
    match fault:
        case "killed":
            os.kill(agent["pid"], signal.SIGKILL)
        case "frozen":
            os.kill(agent["pid"], signal.SIGSTOP)
        case "spinning":
            guard.order(spin=True)
        case _:
            guard.order(renew=0, term=7)

    until(lambda: guard.is_killed(container), LIMIT_S)
    killed_at_s = now_s()
    again = guard.agent(2)

    assert killed_at_s >= until_s - KILL_BUDGET_S
    assert not is_running(agent["pid"])
    if fault == "killed":  # The next one came while the lease still ran, and did nothing with it.
        assert again["lease_until_s"] == pytest.approx(until_s)
        again = guard.agent(3)
    assert again["lease_until_s"] == "-inf"
    until(lambda: is_running(again["pid"]), LIMIT_S)


def test_an_agent_that_takes_all_the_memory_goes_and_the_guard_stays(guard: Guard) -> None:
    group = Path("/sys/fs/cgroup/memory") / guard.group
    group.mkdir()
    container = guard.container()
    container.run()
    (group / "memory.limit_in_bytes").write_text(str(80 << 20))
    guard.greet(heartbeat_timeout_s=LONG_S)
    guard.start(before=["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"])
    agent = guard.agent()
    until_s = guard.arm(container, left_s=LONG_S)
    guard.order(eat=True)
    until(lambda: not is_running(agent["pid"]), LIMIT_S)
    again = guard.agent(2)

    assert again["lease_until_s"] == pytest.approx(until_s)
    until(lambda: guard.is_killed(container), LIMIT_S)
    assert guard.process.poll() is None


def test_what_comes_up_late_is_killed_until_the_next_agent_disarms(guard: Guard) -> None:
    container = guard.container()
    guard.start()
    first = guard.agent()
    guard.arm(container)
    guard.agent(2)
    assert not is_running(first["pid"])

    for _ in range(3):  # As if starts that were under way came to an end now.
        container.run(inner=True)
        until(lambda: guard.is_killed(container), LIMIT_S)
    guard.say("disarm", term=8)
    until(lambda: not guard.lease_file.exists(), LIMIT_S)
    container.run()
    after(now_s() + 1)

    assert container.alive() == 1


def test_a_new_term_of_the_next_agent_ends_the_killing_and_the_old_term_is_over(
    guard: Guard,
) -> None:
    container = guard.container()
    guard.start()
    guard.agent()
    guard.arm(container)
    guard.agent(2)

    guard.say("arm", term=7, names=["db"], valid_until_s=now_s() + T_S)
    until(lambda: len(guard.heard()) == 2, LIMIT_S)
    assert "is armed, or over" in guard.heard()[1]["error"]
    guard.order(renew=T_S - 0.1, term=8)
    guard.arm(container, term=8)
    container.run()
    after(now_s() + T_S)

    assert container.alive() == 1


def test_frozen_containers_are_killed_and_strangers_are_not(guard: Guard) -> None:
    frozen, stranger = guard.container("db"), guard.container("other")
    frozen.run()
    frozen.freeze()
    stranger.run()
    guard.start()
    guard.agent()
    guard.order(send=stranger.seen())
    guard.arm(frozen)
    until(lambda: guard.is_killed(frozen), LIMIT_S)
    guard.agent(2)

    assert stranger.alive() == 1


def test_what_an_agent_had_said_when_its_time_was_over_is_void(guard: Guard) -> None:
    container = guard.container()
    container.run()
    guard.start()
    agent = guard.agent()
    guard.arm(container)
    os.kill(agent["pid"], signal.SIGSTOP)
    until(lambda: guard.is_killed(container), LIMIT_S)
    guard.agent(2)

    until(lambda: not is_running(agent["pid"]), LIMIT_S)
    assert guard.lease_file.exists()


def test_a_guard_that_was_frozen_hears_its_agent_before_it_kills(guard: Guard) -> None:
    container = guard.container()
    container.run()
    guard.start()
    agent = guard.agent()
    until_s = guard.arm(container)
    guard.order(renew=T_S - 0.1, term=7)
    os.kill(guard.pid, signal.SIGSTOP)
    after(until_s + T_S)
    os.kill(guard.pid, signal.SIGCONT)
    after(now_s() + T_S)

    assert container.alive() == 1
    assert is_running(agent["pid"])
    assert guard.agents() == 1


# -- G3: what outlives the guard ----------------------------------------------------------------


def test_a_new_guard_takes_the_lease_up_and_the_agent_with_it(guard: Guard) -> None:
    container = guard.container()
    container.run()
    guard.greet(heartbeat_timeout_s=LONG_S)
    guard.start()
    guard.agent()
    until_s = guard.arm(container, left_s=LONG_S)
    os.kill(guard.pid, signal.SIGKILL)
    until((guard.folder / "lost").exists, LIMIT_S)
    guard.start()
    again = guard.agent(2)
    assert again["lease_until_s"] == pytest.approx(until_s)

    until(lambda: guard.is_killed(container), LIMIT_S)
    assert now_s() >= until_s - KILL_BUDGET_S


def test_an_overdue_lease_is_enforced_before_an_agent_starts(guard: Guard) -> None:
    container = guard.container()
    container.run()
    guard.start()
    agent = guard.agent()
    until_s = guard.arm(container)
    _kill_both(guard, agent["pid"])
    after(until_s)
    assert container.alive() == 1
    guard.config.write_text("this is no TOML any more")
    seen = guard.folder / "seen"
    look = f"cat /proc/{container.processes[0].pid}/stat > {seen}; exit 2"
    guard.start(
        command=["/bin/sh", "-c", look],
        environ={"RUNTIME_DIRECTORY": str(guard.folder)},
    )

    assert guard.wait() == 2
    assert guard.is_killed(container)
    assert seen.read_text().rpartition(")")[2].split()[:1] in ([], ["Z"])


def _kill_both(guard: Guard, agent: int) -> None:
    """The guard first. Its agent ends without it, and may have done so by then."""
    os.kill(guard.pid, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.kill(agent, signal.SIGKILL)


def test_a_lease_of_another_boot_is_none(guard: Guard) -> None:
    container = guard.container()
    container.run()
    guard.start()
    agent = guard.agent()
    guard.arm(container)
    _kill_both(guard, agent["pid"])
    content = json.loads(guard.lease_file.read_text())
    guard.lease_file.write_text(json.dumps({**content, "boot_id": "another"}))
    guard.start()
    again = guard.agent(2)
    after(now_s() + T_S)

    assert again["lease_until_s"] == "-inf"
    assert container.alive() == 1


def test_a_frozen_agent_of_a_dead_guard_does_not_go_on_beside_the_next_one(guard: Guard) -> None:
    container = guard.container()
    container.run()
    guard.start()
    agent = guard.agent()
    guard.arm(container)
    os.kill(agent["pid"], signal.SIGSTOP)
    os.kill(guard.pid, signal.SIGKILL)
    guard.start()
    guard.agent(2)

    assert not is_running(agent["pid"])


def test_there_is_one_guard_and_the_second_waits_for_its_end(guard: Guard) -> None:
    guard.start()
    guard.agent()
    first = guard.process
    guard.start()
    until(lambda: "another guard writes" in guard.logged(), LIMIT_S)
    assert guard.agents() == 1

    first.kill()
    first.wait()
    guard.agent(2)


def test_a_second_guard_that_waits_can_be_stopped(guard: Guard) -> None:
    guard.start()
    guard.agent()
    guard.start()
    until(lambda: "another guard writes" in guard.logged(), LIMIT_S)
    guard.process.terminate()

    assert guard.wait() == 0


# -- the agent as a child -----------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 2])
def test_an_agent_that_leaves_with_0_or_2_is_not_started_again(guard: Guard, code: int) -> None:
    guard.start()
    guard.agent()
    guard.order(exit=code)

    assert guard.wait() == code
    assert guard.agents() == 1


def test_a_first_agent_that_ends_with_1_is_our_end_too_and_a_later_one_is_not(guard: Guard) -> None:
    guard.start()
    guard.agent()
    guard.order(exit=3)
    guard.agent(2)
    guard.order(exit=1)
    guard.agent(3)
    guard.process.kill()
    guard.wait()
    guard.start()
    guard.agent(4)
    guard.order(exit=1)

    assert guard.wait() == 1


def test_an_agent_that_leaves_while_its_lease_runs_leaves_no_container_behind(guard: Guard) -> None:
    container = guard.container()
    container.run()
    guard.start()
    guard.agent()
    until_s = guard.arm(container)
    guard.order(exit=2)

    assert guard.wait() == 2
    assert guard.is_killed(container)
    assert now_s() >= until_s - KILL_BUDGET_S


def test_an_agent_that_leaves_on_hold_leaves_its_containers_running(guard: Guard) -> None:
    container = guard.container()
    container.run()
    guard.start()
    guard.agent()
    guard.arm(container)
    guard.order(send={"say": "move", "term": 7, "valid_until_s": float("inf")})
    guard.order(exit=0)
    assert guard.wait() == 0
    assert container.alive() == 1

    guard.start()
    assert guard.agent(2)["lease_until_s"] == "inf"


def test_one_that_keeps_dying_is_started_ever_more_slowly(guard: Guard) -> None:
    moments = guard.folder / "moments"
    clock = "import time; print(time.clock_gettime(time.CLOCK_BOOTTIME))"
    guard.start(command=["/bin/sh", "-c", f"{sys.executable} -c '{clock}' >> {moments}; exit 3"])
    until(lambda: moments.exists() and len(moments.read_text().split()) >= 5, LIMIT_S)
    at_s = [float(moment) for moment in moments.read_text().split()]
    pauses = [later - earlier for earlier, later in itertools.pairwise(at_s)]

    assert all(pause >= 0.1 * 2**n for n, pause in enumerate(pauses))


def test_signals_are_passed_on_and_a_young_agent_gets_them_when_it_can(guard: Guard) -> None:
    guard.start()
    until(lambda: _has_handlers(guard.pid), LIMIT_S)
    guard.process.terminate()
    guard.agent()
    signals = guard.folder / "signals"
    until(lambda: signals.exists() and "TERM" in signals.read_text(), LIMIT_S)
    guard.process.send_signal(signal.SIGHUP)
    until(lambda: "HUP" in signals.read_text(), LIMIT_S)
    guard.order(exit=0)

    assert guard.wait() == 0


def _has_handlers(pid: int) -> bool:
    caught = re.search(r"SigCgt:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_it_works_as_pid_1_and_buries_orphans(guard: Guard) -> None:
    assert shutil.which("unshare"), "unshare is missing: apt-get install util-linux"
    orphan = "(sh -c 'sleep 0.2 & echo orphan' >&2 &) ; "
    agent = f"exec {sys.executable} {Path(__file__).with_name('guarded_agent.py')} {guard.folder}"
    guard.start(
        before=["unshare", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"],
        command=["/bin/sh", "-c", orphan + agent],
    )
    assert guard.agent()["pid"] > 1
    first = until(lambda: _children(guard.pid), LIMIT_S)[0]
    until(lambda: len(_children(first)) == 1, LIMIT_S, "the orphan is buried")
    container = guard.container()
    guard.arm(container)
    guard.agent(2)
    os.kill(first, signal.SIGTERM)
    until((guard.folder / "signals").exists, LIMIT_S)
    guard.say("disarm", term=8)
    guard.order(exit=0)

    assert guard.wait() == 0


def _children(pid: int) -> list[int]:
    return [int(it) for it in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# -- G4: small, and never waiting ---------------------------------------------------------------


PROGRAM = """
import errno, socket, sys
import failover_agent.cli.main as main, failover_agent.guard.supervisor as supervisor
pair, refusals = socket.socketpair, [OSError(errno.EMFILE, "too many open files")]
def refuse(*arguments):
    if arguments and refusals:
        raise refusals.pop()
    return pair(*arguments)
{change}
start = supervisor.os.posix_spawn
supervisor.os.posix_spawn = lambda _, __, environ, **more: start(
    "/bin/sh", ["sh", "-c", "exit 2"], environ, **more)
sys.exit(main.main(["run", "--role", "primary", "--config", sys.argv[1]]))
"""


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        ("supervisor.socket.socketpair = refuse", 2, "too many open files"),
        ("supervisor.select.poll = None", BROKE, "Traceback"),
    ],
    ids=["no file left for the line to its agent", "a fault of its own"],
)
def test_a_guard_tries_again_and_its_own_end_is_no_failed_start(
    change: str, code: int, told: str, tmp_path: Path
) -> None:
    """The unit waits after a failed start (1), and nobody would watch over a lease meanwhile."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(change=change), tmp_path / "config.toml"],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )

    assert (done.returncode, told in done.stderr) == (code, True), done.stderr


def test_the_guard_of_failover_agent_run_is_small_and_has_loaded_nothing_of_the_agent(
    tmp_path: Path,
) -> None:
    """The real command line, but for the agent: instead of it something sleeps."""
    program = (
        "import sys, failover_agent.cli.run as run, failover_agent.guard.supervisor as supervisor\n"
        "import failover_agent.cli.main as main\n"
        "start = supervisor.os.posix_spawn\n"
        "supervisor.os.posix_spawn = lambda _, __, environ, **more: start('/bin/sleep', "
        "['sleep', '1000'], environ, **more)\n"
        "print(*sys.modules, flush=True)\n"
        "main.main(['run', '--role', 'primary', '--config', sys.argv[1]])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "config.toml"], stdout=subprocess.PIPE, text=True
    )
    children: list[int] = []
    try:
        assert process.stdout is not None
        loaded = {name.partition(".")[0] for name in process.stdout.readline().split()}
        [child] = children = until(lambda: _children(process.pid), LIMIT_S)
        smaps = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        sizes = dict(re.findall(r"(\w+): +(\d+) kB", smaps))
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        print(f"guard: {sizes['Pss']} kB PSS, {sizes['Rss']} kB RSS, {sizes['Locked']} kB locked")

        assert loaded & {"asyncio", "aiohttp", "aiodocker", "pydantic", "pydantic_core"} == set()
        assert not re.search("aiohttp|pydantic|asyncio", maps)
        assert int(sizes["Pss"]) < MOST_PSS_KB
        before = Path("/proc/self/oom_score_adj").read_text()
        lowest = "-1000\n" if _has_power(CAP_SYS_RESOURCE) else before
        assert Path(f"/proc/{process.pid}/oom_score_adj").read_text() == lowest
        # The guard gives it back only after it has started the child.
        until(lambda: Path(f"/proc/{child}/oom_score_adj").read_text() == before, LIMIT_S)
    finally:
        process.kill()
        process.wait()
        orphans = [pid for pid in _sleepers() if stat(pid)[1:2] == ["1"]]
        for pid in {*children, *orphans}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()  # Its output ends with the last of them.


def _has_power(number: int) -> bool:
    powers = re.search(r"CapEff:\s+(\w+)", Path("/proc/self/status").read_text())
    return powers is not None and bool(int(powers[1], 16) >> number & 1)


def _sleepers() -> list[int]:
    found = subprocess.run(
        ["pgrep", "-fx", "sleep 1000"], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in found.stdout.split()]


def test_a_log_that_nobody_reads_holds_up_nothing(guard: Guard) -> None:
    container = guard.container()
    container.run()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with pytest.raises(BlockingIOError):
        _write_for_ever(writer)
    os.set_blocking(writer, True)
    guard.start(log=writer)
    os.close(writer)
    guard.agent()
    guard.arm(container)
    until(lambda: guard.is_killed(container), LIMIT_S)
    guard.agent(2)
    os.close(reader)


def _write_for_ever(handle: int) -> None:
    while True:
        os.write(handle, b"x" * 4096)


def test_the_watchdog_is_pinged_by_the_guard_and_unknown_to_the_agent(guard: Guard) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(guard.folder / "notify"))
        listener.settimeout(LIMIT_S)
        environ = {"NOTIFY_SOCKET": str(guard.folder / "notify"), "WATCHDOG_USEC": "600000"}
        guard.start(environ=environ)
        agent = guard.agent()

        assert [listener.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        its = Path(f"/proc/{agent['pid']}/environ").read_text().split("\0")
        assert [it for it in its if it.startswith("WATCHDOG")] == []
        assert f"NOTIFY_SOCKET={guard.folder}/notify" in its
        os.kill(guard.pid, signal.SIGSTOP)
        listener.settimeout(1.0)
        with pytest.raises(TimeoutError):
            _listen_for_ever(listener)
        os.kill(guard.pid, signal.SIGCONT)


def _listen_for_ever(listener: socket.socket) -> None:
    while True:
        listener.recv(100)
