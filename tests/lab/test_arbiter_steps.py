"""With a witness: a handover, and a promotion, interrupted at each step, on either side.

Stops and starts are slow here, so that each step can be met: a container that lets its grace pass,
and one that is up when it is healthy.
"""

import signal
from collections.abc import Callable, Iterator

import pytest

from tests.lab.agent import freeze, signal_all
from tests.lab.lab import Node
from tests.lab.pair import LIMIT_S, pass_time
from tests.lab.service import Spec
from tests.lab.trio import Trio
from tests.lab.until import LabTimeout, until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

TIMEOUT_S = 3.0
SPECS = (Spec("db", ignores_term=True, stop_timeout_s=1), Spec("web", health=True))


@pytest.fixture(scope="module")
def shared() -> Iterator[Trio]:
    settings = {"heartbeat_timeout": TIMEOUT_S, "restart_grace_period": 30.0}
    with Trio.build("witness", specs=SPECS, **settings) as trio:
        yield trio


Break = Callable[[Trio, Node], None]


def crash(_trio: Trio, node: Node) -> None:
    node.crash()


def cut(trio: Trio, node: Node) -> None:
    trio.lab.network.isolate(node)


def freeze_agent(_trio: Trio, node: Node) -> None:
    freeze([node.agent.agent_pid])


BREAKS: dict[str, Break] = {
    "crash": crash,
    "cut": cut,
    "freeze": freeze_agent,
}
# Longer than a lease, where it may run out; who has crashed has none.
AWAY_S = {"crash": 0.2 * TIMEOUT_S, "cut": 1.1 * TIMEOUT_S, "freeze": 1.1 * TIMEOUT_S}


def meet(node: Node, phases: set[str]) -> None:
    """Looks as often as it can. A step that was too quick to be met is met at its end."""
    try:
        until(lambda: node.agent.phase() in phases, 15, f"{node.name} in {phases}", poll_s=0.002)
    except LabTimeout:
        print(f"{phases} of {node.name} went by unseen")


@pytest.mark.parametrize("what", BREAKS)
@pytest.mark.parametrize("side", ["old", "new"])
@pytest.mark.parametrize("step", ["stopping", "starting"])
def test_a_handover_that_is_interrupted_ends_with_one_active(
    trio: Trio, step: str, side: str, what: str
) -> None:
    old, new = trio.ends()
    signal_all([old.agent.guard_pid], signal.SIGTERM)
    if step == "stopping":
        meet(old, {"demoting"})
    else:
        meet(new, {"acquiring", "promoting"})
    BREAKS[what](trio, old if side == "old" else new)
    pass_time(AWAY_S[what])
    trio.settle()


@pytest.mark.parametrize("what", BREAKS)
def test_a_takeover_that_is_interrupted_ends_with_one_active(trio: Trio, what: str) -> None:
    old, new = trio.ends()
    old.crash()
    meet(new, {"acquiring", "promoting"})
    BREAKS[what](trio, new)
    pass_time(0.3 * TIMEOUT_S)
    trio.come_back(old)
    until(lambda: trio.runs_on(old) or trio.runs_on(new), LIMIT_S, "one of them runs all")
    trio.settle()
