"""Engines of other releases than the machine's own, alike on both hosts and not: the same faults.

docs/engines.md names what was run here.
"""

from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab
from tests.lab.pair import (
    LIMIT_S,
    assert_never_two,
    names,
    start_pair,
    status,
    term,
    wait_moved,
    wait_redundant,
)
from tests.lab.truth import now_s
from tests.lab.until import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(420)]

# Who leaves waits three intervals for an answer: time for a busy machine to give it.
PATIENT = {"heartbeat_interval": 1.0, "heartbeat_timeout": 6.0}


@pytest.fixture(
    params=[("26.1", "26.1"), ("", "26.1"), ("28.5", "26.1")],
    ids=["26.1 and 26.1", "20.10 and 26.1", "28.5 and 26.1"],
)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(["db", "web"], releases=request.param) as lab:
        yield lab


def test_a_dead_container_a_stopped_agent_and_a_dead_host_move_the_service(lab: Lab) -> None:
    for node, release in zip((lab.a, lab.b), lab.releases, strict=True):
        version = str(node.engine.must("GET", "/version").json["Version"])
        assert version.startswith(release or "20.10")
        print(f"{node.name}: Engine {version}")
    start_pair(lab, **PATIENT)

    lab.a.services["web"].break_process()
    since_s = now_s()
    lab.a.services["web"].kill()
    wait_moved(lab, lab.b, since_s, "a container that does not come back")
    until(lambda: status(lab.b).get("reason") == "container_down", LIMIT_S, "and why")
    lab.a.services["web"].mend_process()
    wait_redundant(lab, lab.b)

    since_s = now_s()
    lab.b.agent.sigterm()
    wait_moved(lab, lab.a, since_s, "SIGTERM to the agent")
    assert lab.b.agent.wait() == 0
    assert {host for host, _ in lab.truth.starts(since_s)} == {"host-a"}
    lab.start_agent(lab.b, "backup", PATIENT)
    wait_redundant(lab, lab.a)

    since_s, before = now_s(), term(lab.a)
    lab.a.crash()
    wait_moved(lab, lab.b, since_s, "host crash")
    assert term(lab.b) > before
    lab.a.boot()
    lab.start_agent(lab.a, "primary", PATIENT)
    wait_redundant(lab, lab.b)
    assert {name for _, name in lab.truth.starts(since_s)} == names(lab)
    assert_never_two(lab)
