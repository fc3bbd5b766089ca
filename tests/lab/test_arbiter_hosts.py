"""With a witness: hosts that lose their power, alone and together, and come back in any order."""

import functools
import itertools
from collections.abc import Iterator

import pytest

from tests.lab.pair import LIMIT_S, alarms, status
from tests.lab.service import Service
from tests.lab.trio import Trio
from tests.lab.truth import now_s
from tests.lab.until import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

TIMEOUT_S = 3.0


@pytest.fixture(scope="module")
def shared() -> Iterator[Trio]:
    with Trio.build("witness", heartbeat_timeout=TIMEOUT_S, restart_grace_period=30.0) as trio:
        yield trio


def test_a_crashed_active_is_replaced_in_time_and_comes_back_as_standby(trio: Trio) -> None:
    active, standby = trio.ends()
    since_s = now_s()
    active.crash()
    trio.wait_back(since_s, "host crash", standby)
    until(lambda: status(standby).get("reason") == "peer_silent", LIMIT_S, "its reason")
    assert trio.settle() is standby


@pytest.mark.parametrize("who", ["standby", "witness"])
def test_a_crashed_standby_or_witness_moves_nothing_and_is_an_alarm(trio: Trio, who: str) -> None:
    active, standby = trio.ends()
    since_s = now_s()
    (standby if who == "standby" else trio.lab.c).crash()
    until(lambda: "redundancy_lost" in alarms(active), LIMIT_S, "the alarm")
    trio.watch_unmoved(active, TIMEOUT_S, since_s)
    assert trio.settle() is active
    until(lambda: "redundancy_lost" not in alarms(active), LIMIT_S, "the alarm ends")
    assert not trio.lab.truth.starts(since_s)


def test_both_nodes_that_crash_come_back_as_one_active(trio: Trio) -> None:
    for node in trio.nodes:
        node.crash()
    since_s = now_s()
    trio.settle()
    print(f"both nodes crashed: away for {trio.absence_s(since_s):.2f} s after the boot")


@pytest.mark.parametrize("order", list(itertools.permutations("abc")), ids="".join)
def test_after_a_power_cut_one_is_active_in_whatever_order_they_return(
    trio: Trio, order: tuple[str, ...]
) -> None:
    hosts = {"a": trio.lab.a, "b": trio.lab.b, "c": trio.lab.c}
    for node in hosts.values():
        node.crash()
    back_s = []
    for letter in order:
        node = hosts[letter]
        trio.come_back(node)
        until(functools.partial(status, node), LIMIT_S, f"the agent of {node.name} answers")
        back_s.append(now_s())
    active = trio.settle()
    since_s = back_s[1]  # two of three are a majority
    absence_s, limit_s = trio.absence_s(since_s), trio.start_bound_s(since_s, active)
    told = f"{active.name} {absence_s:.2f} s after the second, of at most {limit_s:.2f} s"
    print(f"power cut, back as {'-'.join(order)}: {told}")
    assert absence_s <= limit_s


def starts_nothing(service: Service) -> bool:
    """Docker does not start it by itself."""
    return bool(service.inspect()["HostConfig"]["RestartPolicy"]["Name"] == "no")


def test_restart_always_put_back_while_the_agent_is_away_is_stopped_at_once_after_a_reboot(
    trio: Trio,
) -> None:
    """The engine starts them before anybody has leave; nobody but the agent can stop them."""
    active, standby = trio.ends()
    active.agent.end()
    for name in active.services:
        active.docker("update", "--restart", "always", name)
    active.crash()
    until(lambda: trio.runs_on(standby), LIMIT_S, "the other has taken over")
    since_s = now_s()
    trio.come_back(active)
    assert trio.settle() is standby
    until(lambda: not trio.lab.truth.running_now(active.name), LIMIT_S, "stopped")
    overlap_s = trio.longest_overlap_s(since_s)
    print(f"restart: always, and a reboot: both ran for {overlap_s:.2f} s")
    for name in active.services:
        until(
            functools.partial(starts_nothing, active.services[name]),
            LIMIT_S,
            "it will not happen again",
        )
    trio.excuse_overlaps()
