"""The lab itself, on real engines: what it claims to build is there, and what it breaks is broken.

Nothing here knows the product.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import ground
from tests.lab.lab import Lab, Node
from tests.lab.service import Spec
from tests.lab.truth import now_s
from tests.lab.until import LabTimeout, until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

BOOT_ID = "/proc/sys/kernel/random/boot_id"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(["db", Spec("web", port=8080)]) as lab:
        yield lab


def runs(lab: Lab, *places: tuple[Node, str]) -> bool:
    """Exactly these run now."""
    return lab.truth.running_now() == {(node.name, name) for node, name in places}


def answers(asker: Node, asked: Node, *, limit_s: float = 1.0) -> bool:
    """Over the wire: http, from one host to the service on the other."""
    try:
        return asker.host.http_get(f"http://{asked.address}:8080/", timeout_s=limit_s)[0] == 200
    except OSError:
        return False


# -- containers and their truth -------------------------------------------------------------------


def test_each_host_has_an_engine_of_its_own(lab: Lab) -> None:
    ids = {node.engine.must("GET", "/info").json["ID"] for node in (lab.a, lab.b)}
    assert len(ids) == 2
    lab.a.services["web"].start()
    until(lambda: answers(lab.b, lab.a), 30, "web answers to host-b")
    assert lab.a.host.http_get("http://127.0.0.1:8080/") == (200, "web on host-a\n")
    assert "web" in lab.a.docker("ps", "--format", "{{.Names}}").split()
    assert lab.b.services["web"].state == "created"
    until(lambda: runs(lab, (lab.a, "web")), 30, "it runs there alone")


def test_a_container_moved_too_early_is_an_overlap(lab: Lab) -> None:
    one, other = lab.a.services["db"], lab.b.services["db"]
    one.start()
    began_s = now_s()
    other.start()
    until(lambda: runs(lab, (lab.a, "db"), (lab.b, "db")), 30, "both tick")
    both_ran_from_s = now_s()
    until(lambda: now_s() > both_ran_from_s + 0.5, 30, "half a second together")
    one.stop()
    [overlap] = lab.truth.overlaps()
    assert 0.2 < overlap.seconds <= now_s() - began_s


def test_a_container_moved_properly_is_none_and_its_downtime_is_known(lab: Lab) -> None:
    lab.a.services["db"].start()
    until(lambda: runs(lab, (lab.a, "db")), 30, "db runs on host-a")
    lab.a.services["db"].stop()
    last_s = lab.truth.runs(host="host-a", name="db")[-1].last_s
    lab.b.services["db"].start()
    until(lambda: runs(lab, (lab.b, "db")), 30, "db runs on host-b alone")
    assert lab.truth.overlaps(group=True) == []
    assert lab.truth.starts() == [("host-a", "db"), ("host-b", "db")]
    started_s = lab.truth.first_tick_after(last_s, host="host-b")
    assert started_s is not None
    # What ticks late on a busy machine makes it longer, nothing makes it shorter.
    assert started_s - last_s <= lab.truth.downtime("db", last_s) < now_s() - last_s


def test_a_paused_container_does_not_run(lab: Lab) -> None:
    web = lab.a.services["web"]
    web.start()
    web.pause()
    until(lambda: runs(lab), 30, "the paused one is silent")
    lab.b.services["web"].start()
    lab.b.services["web"].stop()
    web.unpause()
    until(lambda: runs(lab, (lab.a, "web")), 30, "it ticks again")
    assert lab.truth.overlaps() == []


def test_each_lever_breaks_what_it_says() -> None:
    specs = [
        Spec("sick", health=True),
        Spec("greedy", memory_mb=16),
        Spec("stubborn", ignores_term=True),
        Spec("plain"),
        Spec("absent", command=("no-such-command",)),
    ]
    with Lab(specs) as lab:
        service = lab.a.services
        for name in ("sick", "greedy", "stubborn", "plain"):
            service[name].start()

        def health() -> str:
            return str(service["sick"].inspect()["State"]["Health"]["Status"])

        until(lambda: health() == "healthy", 30, "healthy")
        service["sick"].make_sick()
        until(lambda: health() == "unhealthy", 30, "unhealthy")
        service["sick"].make_well()
        until(lambda: health() == "healthy", 30, "healthy again")

        service["greedy"].run_out_of_memory()
        until(lambda: service["greedy"].state == "exited", 30, "killed by the kernel")
        until(lambda: service["greedy"].inspect()["State"]["OOMKilled"], 30, "the engine says so")
        service["greedy"].start()

        begun_s = now_s()
        service["stubborn"].stop()
        assert now_s() - begun_s > 1.9, "it let its whole grace pass"

        service["plain"].exit(7)
        until(lambda: service["plain"].state == "exited", 30, "exited by itself")
        assert service["plain"].inspect()["State"]["ExitCode"] == 7
        service["plain"].break_start()
        with pytest.raises(RuntimeError, match="bind source path does not exist"):
            service["plain"].start()
        service["plain"].mend_start()
        service["plain"].break_process()
        service["plain"].start()
        until(lambda: service["plain"].inspect()["State"]["ExitCode"] == 1, 30, "ends at once")
        service["plain"].mend_process()
        service["plain"].start()

        with pytest.raises(RuntimeError, match="executable file not found"):
            service["absent"].start()
        until(
            lambda: runs(lab, *((lab.a, n) for n in ("sick", "greedy", "plain"))), 30, "rest runs"
        )


def test_restart_and_recreate_are_a_second_start(lab: Lab) -> None:
    web = lab.a.services["web"]
    web.start()
    until(lab.truth.starts, 30, "started")  # a TERM before its first word would spare it that word
    web.restart()
    until(lambda: len(lab.truth.starts()) == 2, 30, "restarted")
    before = web.inspect()["Id"]
    web.recreate()
    until(lambda: len(lab.truth.starts()) == 3, 30, "recreated")
    assert web.inspect()["Id"] != before
    web.remove()
    assert web.state == "missing"


# -- power ----------------------------------------------------------------------------------------


def test_a_crash_ends_everything_at_once_and_without_a_word(lab: Lab) -> None:
    lab.a.services["db"].start()
    lab.a.services["web"].start()
    program = lab.a.host.spawn("program", ["sleep", "1000"])
    until(lambda: answers(lab.b, lab.a), 30, "web answers")
    lab.a.crash()
    over_s = now_s()
    until(lambda: runs(lab), 30, "nothing runs")
    assert all(run.last_s <= over_s and not run.has_ended for run in lab.truth.runs())
    assert program.returncode == -signal.SIGKILL
    with pytest.raises(OSError, match=r"timed out|No route"):  # and not: refused
        lab.b.host.http_get(f"http://{lab.a.address}:8080/", timeout_s=1)


def test_a_crash_takes_the_paused_and_the_frozen_along(lab: Lab) -> None:
    lab.a.services["db"].start()
    lab.a.services["db"].pause()
    lab.a.engine.freeze()
    program = lab.a.host.spawn("program", ["sleep", "1000"])
    program.sigstop()
    lab.a.crash()
    assert not program.is_alive()
    lab.a.boot()
    assert lab.a.services["db"].state == "exited"


def test_a_reboot_has_another_boot_id_and_the_same_disk(lab: Lab) -> None:
    host = lab.a.host
    lab.a.services["web"].start()
    until(lambda: answers(lab.b, lab.a), 30, "web answers")
    engine_id = lab.a.engine.must("GET", "/info").json["ID"]
    boot_id = host.run(["cat", BOOT_ID]).stdout
    for folder in ("/etc/mark", "/var/lib/mark", "/run/mark"):
        host.run(["mkdir", folder])
    lab.a.reboot()
    assert host.run(["cat", BOOT_ID]).stdout != boot_id
    assert host.path("/etc/mark").is_dir()
    assert host.path("/var/lib/mark").is_dir()
    assert not host.path("/run/mark").exists()
    assert not Path("/etc/mark").exists()
    assert lab.a.engine.must("GET", "/info").json["ID"] == engine_id
    assert lab.a.services["web"].state == "exited"
    until(lambda: runs(lab), 30, "nothing came back by itself")
    lab.a.services["web"].start()
    until(lambda: answers(lab.b, lab.a), 30, "the same host to its peer")


# -- engine and programs --------------------------------------------------------------------------


def test_containers_run_on_under_a_frozen_or_killed_engine(lab: Lab) -> None:
    lab.a.services["db"].start()
    lab.a.engine.freeze()
    with pytest.raises(TimeoutError):
        lab.a.engine.api("GET", "/_ping", timeout_s=0.5)
    until(lambda: runs(lab, (lab.a, "db")), 30, "db runs under the frozen one")
    lab.a.engine.thaw()
    until(lab.a.engine.is_up, 30, "it answers again")
    lab.a.engine.kill()
    killed_s = now_s()
    assert not lab.a.engine.is_up()
    until(lambda: now_s() > killed_s + 1, 30, "a second later")
    until(lambda: runs(lab, (lab.a, "db")), 30, "db runs under the killed one")
    lab.a.engine.start()
    until(lambda: runs(lab), 30, "the next engine ends what it finds: restart policy no")


def test_an_engine_that_is_stopped_takes_its_containers_along(lab: Lab) -> None:
    lab.a.services["db"].start()
    until(lambda: runs(lab, (lab.a, "db")), 30, "db runs")
    lab.a.engine.stop()
    assert runs(lab)
    [run] = lab.truth.runs()
    assert run.has_ended
    lab.a.engine.start(live_restore=True)
    lab.a.services["db"].start()
    lab.a.engine.restart()
    until(lambda: runs(lab, (lab.a, "db")), 30, "with live-restore it stays")
    assert len(lab.truth.starts()) == 2


def test_a_program_is_signalled_by_its_own_pid(lab: Lab) -> None:
    program = lab.a.host.spawn("count", ["sh", "-c", "while :; do echo line; sleep 0.01; done"])
    until(lambda: "line" in program.log(), 30, "it prints")
    assert b"while" in Path(f"/proc/{program.pid}/cmdline").read_bytes()
    program.sigstop()
    length = len(program.log())
    assert program.is_alive()
    with pytest.raises(LabTimeout):
        until(lambda: len(program.log()) > length, 0.3, "prints while frozen")
    program.sigcont()
    until(lambda: len(program.log()) > length, 30, "it prints again")
    program.sigstop()
    program.sigkill()
    assert program.returncode == -signal.SIGKILL
    other = lab.a.host.spawn("other", ["sleep", "1000"])
    other.sigterm()
    assert other.wait(5) == -signal.SIGTERM


# -- cables ---------------------------------------------------------------------------------------


def test_a_cut_is_silent_and_goes_one_way(lab: Lab) -> None:
    a, b = lab.a.host, lab.b.host
    assert a.reaches(b)
    assert b.reaches(a)
    lab.network.cut(a, b)
    assert not a.reaches(b)
    assert b.reaches(a)
    lab.network.heal()
    assert a.reaches(b)


def test_a_cut_wire_times_out_and_works_again_when_healed(lab: Lab) -> None:
    lab.b.services["web"].start()
    until(lambda: answers(lab.a, lab.b), 30, "web answers")
    lab.network.cut_both(lab.a, lab.b)
    with pytest.raises(TimeoutError):
        lab.a.host.http_get(f"http://{lab.b.address}:8080/", timeout_s=0.5)
    lab.network.heal()
    until(lambda: answers(lab.a, lab.b), 30, "healed")


def test_a_third_host_sees_who_is_isolated() -> None:
    with Lab([], third_host=True) as lab:
        hosts = [node.host for node in (lab.a, lab.b, lab.c)]
        pairs = [(one, other) for one in hosts for other in hosts if one is not other]

        def connected() -> set[tuple[str, str]]:
            return {(one.name, other.name) for one, other in pairs if one.reaches(other)}

        assert len(connected()) == 6
        lab.network.cut_both(lab.a, lab.b)
        assert len(connected()) == 4
        lab.network.heal()
        lab.network.isolate(lab.c)
        assert connected() == {("host-a", "host-b"), ("host-b", "host-a")}
        lab.network.heal()
        assert len(connected()) == 6
        lab.network.loss(50)
        assert 20 < lab.a.host.reaches(lab.b.host, count=100) < 80


# -- what is left ---------------------------------------------------------------------------------


def remains(folder: Path) -> list[str]:
    """What the machine still has of a lab: processes by argument or by mounts, groups, files."""
    found = [str(folder)] if folder.exists() else []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and int(process.name) != os.getpid():
            for file in ("cmdline", "mountinfo"):
                try:
                    if folder.name in (process / file).read_text(errors="replace"):
                        found.append(f"{process.name} {file}")
                except OSError:
                    continue
    return found + [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{folder.name}")]


def test_nothing_remains() -> None:
    with Lab(["web"]) as lab:
        lab.a.services["web"].start()
        lab.b.services["web"].start()
        lab.b.services["web"].pause()
        folder, switch = lab.folder, lab.network.pid
        assert len(remains(folder)) > 10
    assert remains(folder) == []
    assert not Path(f"/proc/{switch}").exists()


def test_nothing_remains_after_a_failure_and_the_logs_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folders = []

    def fail_inside() -> None:
        with Lab(["web"]) as lab:
            folders.append(lab.folder)
            lab.a.host.spawn("talker", ["echo", "last words"]).wait(5)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_inside()
    assert remains(folders[0]) == []
    assert "last words" in capsys.readouterr().err


PROGRAM = """
import sys
from tests.lab.lab import Lab
with Lab(["web"]) as lab:
    lab.a.services["web"].start()
    lab.a.host.spawn("frozen", ["sleep", "1000"]).sigstop()
    {then}
    print(lab.folder, flush=True)
    {last}
"""


def start_lab(then: str, last: str) -> tuple["subprocess.Popen[str]", Path]:
    """A lab of another process."""
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(then=then, last=last)],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert program.stdout is not None
    return program, Path(program.stdout.readline().strip())


def test_a_lab_whose_process_is_killed_is_swept_by_the_next() -> None:
    program, folder = start_lab("", "sys.stdin.read()")
    with program:
        ground.sweep()
        assert len(remains(folder)) > 10, "a living lab is left alone"
        program.kill()
    ground.sweep()
    until(lambda: remains(folder) == [], 30, "swept, by this lab or by one that runs beside it")


def test_a_lab_that_is_kept_stays_until_it_is_cleared() -> None:
    program, folder = start_lab("lab.keep()", "")
    with program:
        program.wait(10)
    ground.sweep()
    assert len(remains(folder)) > 10
    subprocess.run([sys.executable, "-m", "tests.lab.ground", folder], cwd=ROOT, check=True)
    assert remains(folder) == []
