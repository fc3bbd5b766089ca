"""A plain pair under partition_policy = "consistency": nobody takes over on silence.

A host that dies is replaced by the operator's word (`takeover --peer-is-off`), and by nothing else.
"""

from collections.abc import Iterator

import pytest

from tests.lab.conftest import judged
from tests.lab.lab import Lab, Node
from tests.lab.metronome import Metronome
from tests.lab.pair import (
    LIMIT_S,
    alarms,
    is_redundant,
    runs_all,
    status,
    term,
    wait_redundant,
    watch,
)
from tests.lab.truth import now_s
from tests.lab.until import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

TIMEOUT_S = 3.0
STARTUP_S = 2.0
SETTINGS = {"partition_policy": "consistency", "max_failovers": 50}
WORD = ("takeover", "--peer-is-off")


class Pair:
    """Both nodes, and which of them leads at the beginning of a test."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.judged_from_s = 0.0

    def start(self, node: Node) -> None:
        """Its agent."""
        self.lab.start_agent(node, "primary" if node is self.lab.a else "backup", SETTINGS)

    def settle(self) -> tuple[Node, Node]:
        """Whatever was done is undone; the active node, and the standby that is ready."""
        self.lab.network.heal()
        for node in (self.lab.a, self.lab.b):
            if not node.host.is_up():
                node.boot()
            if not node.has_agent or not node.agent.is_alive():
                self.start(node)
        nodes = (self.lab.a, self.lab.b)
        found = until(
            lambda: [node for node in nodes if is_redundant(node)], LIMIT_S, "a settled pair"
        )
        wait_redundant(self.lab, found[0])
        return found[0], self.lab.peer_of(found[0])


@pytest.fixture(scope="module")
def shared() -> Iterator[Pair]:
    with Lab(["db", "web"]) as lab:
        yield Pair(lab)


@pytest.fixture
def pair(shared: Pair, request: pytest.FixtureRequest) -> Iterator[Pair]:
    with judged(shared, request):
        yield shared


def wait_for_the_word(node: Node) -> None:
    """Until `node` alarms that nothing happens by itself, and says what would make it happen."""
    until(lambda: "waiting_for_release" in alarms(node), LIMIT_S, f"{node.name} waits for a word")
    assert "failover-agent takeover --peer-is-off" in alarms(node)["waiting_for_release"]


@pytest.mark.parametrize("wire", ["both ways", "from the active", "to the active"])
def test_a_cut_wire_moves_nothing(pair: Pair, wire: str) -> None:
    (active, standby), network = pair.settle(), pair.lab.network
    before, since_s = term(active), now_s()
    if wire == "both ways":
        network.cut_both(active, standby)
    elif wire == "from the active":
        network.cut(active, standby)
    else:
        network.cut(standby, active)
    wait_for_the_word(standby)
    until(lambda: "redundancy_lost" in alarms(active), LIMIT_S, "the active misses its peer")
    watch(pair.lab, TIMEOUT_S / 2, active)
    until(lambda: status(standby).get("phase") == "standby", LIMIT_S, "the standby stays one")
    network.heal()
    wait_redundant(pair.lab, active)
    until(lambda: not alarms(standby), LIMIT_S, "the standby is content again")
    assert term(active) == before
    assert not pair.lab.truth.starts(since_s), "nothing was started anew"


def test_a_crashed_host_is_replaced_by_the_operators_word(pair: Pair) -> None:
    active, standby = pair.settle()
    before, since_s = term(active), now_s()
    active.crash()
    wait_for_the_word(standby)
    assert not pair.lab.truth.starts(since_s)
    assert standby.agent.cli("status").returncode == 3
    said_at_s = now_s()
    said = standby.agent.cli(*WORD)
    assert (said.returncode, said.stdout.strip()) == (0, "Taking over."), said.stderr
    until(lambda: runs_all(pair.lab, standby), LIMIT_S, "the word is kept")
    first_s = pair.lab.truth.first_tick_after(said_at_s, host=standby.name)
    assert first_s is not None
    print(f"from the word to the first container: {first_s - said_at_s:.2f} s")
    standby.agent.wait_phase("active")
    assert term(standby) > before
    until(lambda: status(standby).get("reason") == "operator", LIMIT_S, "and why")

    active.boot()
    pair.start(active)
    active.agent.wait_phase("standby")
    wait_redundant(pair.lab, standby)
    assert {host for host, _ in pair.lab.truth.starts(since_s)} == {standby.name}


def test_a_container_failure_is_handed_over_as_ever(pair: Pair) -> None:
    active, standby = pair.settle()
    web = active.services["web"]
    web.break_process()
    web.kill()
    until(lambda: runs_all(pair.lab, standby), LIMIT_S, "handed over")
    standby.agent.wait_phase("active")
    web.mend_process()
    wait_redundant(pair.lab, standby)


def test_after_a_power_cut_only_the_last_holder_starts_alone(pair: Pair) -> None:
    holder, other = pair.settle()
    before = term(holder)
    for node in (holder, other):
        node.crash()
    since_s = now_s()
    other.boot()
    pair.start(other)
    until(lambda: "peer_silent" in alarms(other), LIMIT_S, "the other is back, and alone")
    wait_for_the_word(other)
    started_s = until(lambda: status(other).get("since_s"), LIMIT_S, "how long it waits")
    until(
        lambda: (status(other).get("since_s") or 0.0) > max(started_s, 2 * STARTUP_S),
        LIMIT_S,
        "longer than any grace",
    )
    assert not pair.lab.truth.starts(since_s), "what is newest may be on the other disk"
    other.crash()

    holder.boot()
    pair.start(holder)
    until(lambda: runs_all(pair.lab, holder), LIMIT_S, "the last holder starts by itself")
    holder.agent.wait_phase("active")
    assert term(holder) > before, "in a new term: the containers are those of another boot"
    other.boot()
    pair.start(other)
    wait_redundant(pair.lab, holder)


def test_a_word_that_is_wrong_makes_two_until_contact_and_then_one(pair: Pair) -> None:
    active, standby = pair.settle()
    before, since_s = term(active), now_s()
    pair.lab.network.cut_both(active, standby)
    wait_for_the_word(standby)
    said_at_s = now_s()
    assert standby.agent.cli(*WORD).returncode == 0
    until(lambda: runs_all(pair.lab, standby), LIMIT_S, "the word is taken at its face")
    standby.agent.wait_phase("active")
    until(lambda: runs_all(pair.lab, active), LIMIT_S, "and the active, which lives, goes on")
    assert term(standby) > before
    with Metronome() as metronome:
        healed_at_s = now_s()
        pair.lab.network.heal()
        active.agent.wait_phase("standby")
        wait_redundant(pair.lab, standby)
        late_s = metronome.late_s(healed_at_s)
    overlaps = pair.lab.truth.overlaps(since_s=since_s)
    ended_at_s = max(overlap.start_s + overlap.seconds for overlap in overlaps)
    both_s = ended_at_s - min(overlap.start_s for overlap in overlaps)
    after_s = ended_at_s - healed_at_s
    told_s = until(lambda: (status(active).get("overlap") or {}).get("lasted_s"), LIMIT_S, "told")
    print(f"overlap: {both_s:.2f} s, {after_s:.2f} s of it after the contact; told: {told_s:.2f} s")
    assert after_s < TIMEOUT_S + late_s, "the older term stops at the first contact"
    # It counts from the winning of the term, and the first container has yet to start then.
    first_s = pair.lab.truth.first_tick_after(said_at_s, host=standby.name)
    assert first_s is not None
    least_s, most_s = both_s - TIMEOUT_S / 2, both_s + (first_s - said_at_s) + TIMEOUT_S / 2
    assert least_s <= told_s <= most_s, "and has measured what happened"
    assert "code=two_actives" in active.agent.log(), "and alarmed it"
    assert "newer_term" in active.agent.cli("history").stdout
    pair.judged_from_s = now_s()  # the operator lied: it was measured above


def test_a_word_that_makes_no_sense_is_refused(pair: Pair) -> None:
    active, standby = pair.settle()
    before, since_s = term(active), now_s()
    on_active = active.agent.cli(*WORD)
    assert on_active.returncode == 1
    assert "This node holds the service already" in on_active.stderr
    on_standby = standby.agent.cli(*WORD)
    assert on_standby.returncode == 1
    assert "is not off: it answers" in on_standby.stderr
    assert "say this again once nothing is heard from it" in on_standby.stderr
    without = standby.agent.cli("takeover")
    assert without.returncode == 2
    assert "does nothing without --peer-is-off" in without.stderr
    wrong = standby.agent.cli("takeover", "--force")
    assert wrong.returncode == 2
    standby.agent.end()
    nobody = standby.agent.cli(*WORD)
    assert nobody.returncode == 4
    assert "no agent answers" in nobody.stderr
    assert "Traceback" not in nobody.stderr
    assert term(active) == before
    assert not pair.lab.truth.starts(since_s)
