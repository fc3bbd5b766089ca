"""The lab for three: wires between any two, etcd on its hosts, supervisors. Nothing of the product.

What `Trio` makes of an arbiter is shown by the tests that use it.
"""

import itertools
import signal
import sys
from collections.abc import Iterator

import pytest

from tests.lab.agent import LEVERS, SPIN, SUPERVISOR, freeze, signal_all
from tests.lab.etcd import Etcd
from tests.lab.lab import Lab
from tests.lab.process import first_child, stat
from tests.lab.truth import now_s
from tests.lab.until import LabTimeout, until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    """No container, no agent: cheap to share."""
    with Lab([], third_host=True) as lab:
        yield lab


@pytest.fixture
def lab(shared: Lab) -> Lab:
    shared.network.heal()
    return shared


# -- wires ----------------------------------------------------------------------------------------


def dead_wires(lab: Lab) -> set[str]:
    """Each way by itself, as `ab` for the one from host-a to host-b."""
    nodes = {"a": lab.a, "b": lab.b, "c": lab.c}
    return {
        f"{one}{other}"
        for one, other in itertools.permutations(nodes, 2)
        if not nodes[one].host.reaches(nodes[other].host)
    }


def test_every_wire_can_be_cut_each_way_and_mended_by_itself(lab: Lab) -> None:
    assert dead_wires(lab) == set()
    lab.network.cut(lab.b, lab.c)
    assert dead_wires(lab) == {"bc"}
    lab.network.cut_both(lab.c, lab.a)
    assert dead_wires(lab) == {"bc", "ca", "ac"}
    lab.network.mend(lab.b, lab.c)
    assert dead_wires(lab) == {"ca", "ac"}
    lab.network.mend_both(lab.a, lab.c)
    lab.network.cut_all()
    assert len(dead_wires(lab)) == 6
    lab.network.mend_all()
    assert dead_wires(lab) == set()


def test_a_wire_that_was_cut_twice_is_mended_twice_or_healed(lab: Lab) -> None:
    lab.network.isolate(lab.a)
    lab.network.cut(lab.a, lab.b)
    lab.network.rejoin(lab.a)
    assert dead_wires(lab) == {"ab"}
    lab.network.heal()
    lab.network.mend(lab.a, lab.b)
    lab.network.cut(lab.a, lab.b)
    assert dead_wires(lab) == {"ab"}, "what was healed before owes nothing"


def test_loss_is_of_one_wire_or_of_all(lab: Lab) -> None:
    a, b, c = lab.a.host, lab.b.host, lab.c.host
    lab.network.loss(50, a, b)
    assert 20 < a.reaches(b, count=100) < 80
    assert b.reaches(a, count=100) == 100
    lab.network.loss(30)
    assert 40 < c.reaches(a, count=100) < 95
    lab.network.loss(0, c)
    assert c.reaches(a, count=100) == 100
    assert b.reaches(c, count=100) < 100


# -- etcd -----------------------------------------------------------------------------------------


def test_one_etcd_is_killed_frozen_and_comes_back(lab: Lab) -> None:
    etcd = Etcd([lab.c.host])
    etcd.start()
    [member] = etcd.members
    assert member.endpoint == f"http://{lab.c.address}:2379"
    member.freeze()
    assert not member.is_healthy()
    member.thaw()
    etcd.wait_healthy()
    member.kill()
    assert not member.is_running()
    lab.c.reboot()
    member.start()
    etcd.wait_healthy()
    member.kill()


def test_three_etcds_live_on_as_two_and_not_as_one(lab: Lab) -> None:
    lab.c.host.run(["rm", "-rf", "/var/lib/etcd"])
    etcd = Etcd([node.host for node in (lab.a, lab.b, lab.c)])
    etcd.start()
    one, other, third = etcd.members
    assert etcd.member_on(lab.b.host) is other
    third.freeze()
    until(lambda: one.is_healthy() and other.is_healthy(), 30, "two of three are a quorum")
    other.kill()
    until(lambda: not one.is_healthy(), 30, "one of three is none")
    third.thaw()
    until(lambda: one.is_healthy() and third.is_healthy(), 30, "two again")
    other.start()
    etcd.wait_healthy()


# -- programs -------------------------------------------------------------------------------------


def test_a_supervisor_starts_anew_what_was_killed_and_nothing_is_left_of_it(lab: Lab) -> None:
    program = ["sh", "-c", "sleep 1000 & sleep 1000"]
    supervisor = lab.a.host.spawn("two", [sys.executable, "-I", "-S", SUPERVISOR, *program])

    def parent() -> int:
        """When it has both of its children."""
        return next((p for p, line in lab.a.host.processes().items() if line == program), 0)

    def sleepers() -> list[int]:
        lines = lab.a.host.processes().items()
        return [p for p, line in lines if line[:1] == ["sleep"] and stat(p)[:1] != ["Z"]]

    first = until(parent, 30, "it runs")
    before = set(until(lambda: sleepers() if len(sleepers()) == 2 else [], 30, "with two children"))
    signal_all([first], signal.SIGKILL)
    second = until(lambda: parent() not in (0, first) and parent(), 30, "another one runs")
    until(lambda: len(sleepers()) == 2, 30, "with two children")
    assert not before & set(sleepers()), "the orphans were killed"
    freeze([second])
    assert supervisor.is_alive()
    signal_all([second], signal.SIGKILL)
    until(lambda: parent() not in (0, second), 30, "frozen and killed, it comes back too")
    supervisor.sigterm()
    supervisor.wait(5)
    assert not sleepers()


def test_a_mistake_is_not_started_again(lab: Lab) -> None:
    supervisor = lab.a.host.spawn("bad", [sys.executable, SUPERVISOR, "sh", "-c", "exit 2"])
    assert supervisor.wait(10) == 2


def test_a_python_program_spins_for_as_long_as_it_is_told(lab: Lab) -> None:
    code = "import time\nwhile True: print('turn', flush=True); time.sleep(0.01)"
    command = [sys.executable, "-c", code]
    program = lab.a.host.spawn("spinner", command, env={"PYTHONPATH": str(LEVERS)})
    until(lambda: "turn" in program.log(), 30, "it turns")
    lab.a.host.path(SPIN).write_text(str(now_s() + 5.0))
    signal_all([program.pid], signal.SIGUSR2)
    until(lambda: int(stat(program.pid)[11]) > 20, 30, "it has used the processor")
    length = len(program.log())
    with pytest.raises(LabTimeout):
        until(lambda: len(program.log()) > length, 0.2, "it turns")
    until(lambda: len(program.log()) > length, 30, "it turns again")
    program.sigkill()


def test_processes_of_one_host_are_told_from_those_of_another(lab: Lab) -> None:
    program = lab.a.host.spawn("sleeper", ["sleep", "4711"])
    line = ["sleep", "4711"]
    until(lambda: lab.a.host.processes()[program.pid] == line, 30, "it is what was started")
    assert program.pid not in lab.b.host.processes()
    assert first_child(lab.a.host.pid) != program.pid, "it came in from outside"
    program.sigkill()
