"""The agents come to a service that runs already: whatever their order, nothing is touched."""

from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab, Node
from tests.lab.metronome import Metronome
from tests.lab.pair import LIMIT_S, assert_never_two, pass_time, runs_all, status
from tests.lab.trio import Trio
from tests.lab.truth import now_s
from tests.lab.until import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

TIMEOUT_S = 3.0
APART_S = TIMEOUT_S + 3.0  # longer than a lease, and than the first answer of a peer takes

ORDERS = (
    ("primary", "backup", "witness"),
    ("witness", "primary", "backup"),
    ("witness", "backup", "primary"),
)


def start(trio: Trio, who: str) -> None:
    if who == "witness":
        trio.start_witness()
    else:
        trio.start_agent(trio.lab.a if who == "primary" else trio.lab.b)


@pytest.fixture(scope="module")
def metronome() -> Iterator[Metronome]:
    with Metronome() as made:
        yield made


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_a_running_service_is_not_touched_by_the_first_start_of_its_agents(
    order: tuple[str, ...], metronome: Metronome
) -> None:
    with Lab(("db", "web"), third_host=True) as lab:
        trio = Trio(lab, "witness", metronome, heartbeat_timeout=TIMEOUT_S)
        for service in lab.a.services.values():
            service.start()
        until(lambda: runs_all(lab, lab.a), LIMIT_S, "the service runs without agents")
        since_s = now_s()
        for who in order:
            start(trio, who)
            pass_time(APART_S)
        until(lambda: is_led(lab.a), LIMIT_S, "the primary leads")
        assert lab.truth.starts(since_s) == []
        assert runs_all(lab, lab.a)
        assert_never_two(lab, since_s)


def is_led(node: Node) -> bool:
    return bool(status(node).get("phase") == "active")
