"""A host that attacks a node, its peer, or the witness, with all that it can send.

The attacker has host-c to itself but for the witness, and gives way to everybody else on this
machine: on a real one it would have processors of its own.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.lab.agent import PORT
from tests.lab.lab import Node
from tests.lab.pair import LIMIT_S, alarms, status, term
from tests.lab.process import Process
from tests.lab.trio import Trio
from tests.lab.truth import now_s
from tests.lab.until import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

TIMEOUT_S = 4.0
ATTACK_S = 5.0
LOOK_S = 6.0
"""An operator waits that long for a status."""
HOUSE = Path(__file__).parents[2]
MOST_MB = 128
"""All connections together, each with one message and 64 KiB, and some for Python."""
ATTACKS = {
    "floods": ("status", "signed", "small"),
    "nonsense": ("garbage", "pipelines", "history"),
    "crowds": ("idlers", "churn", "slow headers", "slow bodies"),
    "gluttons": ("uploads", "upgrades"),
    "the deaf": ("deaf",),
}
CASES = [
    *(("active", what) for what in ATTACKS),
    ("standby", "floods"),
    *(("witness", what) for what in ATTACKS),
]


@pytest.fixture(scope="module")
def shared() -> Iterator[Trio]:
    with Trio.build("witness", specs=("web",), heartbeat_timeout=TIMEOUT_S) as trio:
        yield trio


@dataclass
class Seen:
    """What was seen of the three while one of them was attacked."""

    answered: int = 0
    silent: int = 0
    oldest_beat_s: float = 0.0
    alarms: set[str] = field(default_factory=set)
    most_mb: dict[str, float] = field(default_factory=dict)


def _memory_mb(node: Node) -> float:
    """Resident, of the agent alone; 0 where it has ended."""
    try:
        text = Path(f"/proc/{node.agent.agent_pid}/status").read_text()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in text.splitlines() if "VmRSS" in line)


def _answers(node: Node, asked_by: Node) -> bool:
    """Does it tell another host its status in time?"""
    try:
        code, _ = asked_by.host.http_get(f"{node.agent.url}/v1/status", timeout_s=LOOK_S)
    except OSError:
        return False
    return code == 200


@contextmanager
def _attack(trio: Trio, on: Node, attacks: tuple[str, ...]) -> Iterator[Process]:
    command = ["nice", "-n", "19", str(HOUSE / ".venv/bin/python"), "-m"]
    program = ["tests.integration.attacks", on.address, str(PORT), str(ATTACK_S), *attacks]
    folders = f"{HOUSE}:{HOUSE / 'src'}"
    process = trio.lab.c.host.spawn("attacker", [*command, *program], env={"PYTHONPATH": folders})
    try:
        yield process
    finally:
        if process.is_alive():
            process.sigkill()


def _watch(trio: Trio, attacker: Process) -> Seen:
    seen = Seen()
    a, b = trio.nodes

    def is_over() -> bool:
        for node, asked_by in ((a, b), (b, a), (trio.lab.c, a)):
            if _answers(node, asked_by):
                seen.answered += 1
            else:
                seen.silent += 1
            seen.most_mb[node.name] = max(seen.most_mb.get(node.name, 0.0), _memory_mb(node))
        for node in trio.nodes:
            seen.alarms |= alarms(node).keys()
            age_s = (status(node).get("peer") or {}).get("heartbeat_age_s") or 0.0
            seen.oldest_beat_s = max(seen.oldest_beat_s, age_s)
        return not attacker.is_alive()

    until(is_over, ATTACK_S + LIMIT_S, "the attack ends", poll_s=0.1)
    return seen


@pytest.mark.parametrize(("target", "what"), CASES)
def test_nothing_that_a_stranger_sends_moves_or_starves_anything(
    trio: Trio, target: str, what: str
) -> None:
    active, standby = trio.ends()
    on = {"active": active, "standby": standby, "witness": trio.lab.c}[target]
    nodes = (active, standby, trio.lab.c)
    before = {node.name: (_memory_mb(node), node.agent.agent_pid) for node in nodes}
    held, logged, since_s = term(active), len(on.agent.log().splitlines()), now_s()
    with _attack(trio, on, ATTACKS[what]) as attacker:
        told = on.agent.cli("status", "--json")
        assert told.returncode == 0, told.stderr
        seen = _watch(trio, attacker)
        assert attacker.returncode == 0, attacker.log()
        tally = json.loads(attacker.log().splitlines()[-1])

    print(f"{what} at the {target}: {seen}, before {before}, {tally}")
    assert tally or what in ("crowds", "the deaf"), "it has done something"
    trio.watch_unmoved(active, 0.1, since_s)
    assert term(active) == held
    assert not seen.alarms, "beats were on time, and the lease was renewed"
    assert seen.silent == 0, "status answers"
    assert seen.answered >= 3, "each of them at least once"
    for node in nodes:
        memory_mb, pid = before[node.name]
        assert node.agent.agent_pid == pid, "it was not started anew"
        assert seen.most_mb[node.name] < memory_mb + MOST_MB
    lines = on.agent.log().splitlines()[logged:]
    assert not any("Traceback" in line or " ERROR " in line for line in lines), lines
    assert len(lines) < 10, "a flood does not fill the log"


def _not_authentic(node: Node) -> int:
    """How many such messages it has refused."""
    counters = until(lambda: status(node).get("counters"), LIMIT_S, f"{node.name} tells its status")
    return int(counters["rejected"].get("not_authentic", 0))


def test_a_message_without_the_secret_is_counted_and_no_more(trio: Trio) -> None:
    active, standby = trio.ends()
    counted = _not_authentic(active)
    since_s = now_s()
    body = json.dumps({"protocol": 1, "cluster": "default", "message": {}}).encode()
    with active.host.open_socket() as one:
        one.settimeout(LOOK_S)
        one.connect((active.address, PORT))
        head = f"POST /v1/release HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        one.sendall(head.encode() + b"Failover-Signature: " + b"0" * 64 + b"\r\n\r\n" + body)
        assert one.recv(4096).startswith(b"HTTP/1.1 401 ")
    assert _not_authentic(active) == counted + 1
    trio.watch_unmoved(active, 1.0, since_s)
    until(lambda: trio.find_redundant() is active, LIMIT_S, "all is as it was")
    until(lambda: standby.agent.phase() == "standby", LIMIT_S, "the standby stands by")
