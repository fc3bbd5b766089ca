"""`verify`: the explorer covers what it says, holds the shipped core, and bites a bent one."""

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from failover_agent.adapters.clock import Clock
from failover_agent.cli import verify
from failover_agent.cli.main import main
from failover_agent.core.bounds import takeover_s
from failover_agent.core.policy import PartitionPolicy, Policy, Role
from failover_agent.simulation.product import SHIPPED, Product
from failover_agent.verification import canonical
from failover_agent.verification.canonical import Canon
from failover_agent.verification.explorer import Bounds, Report, explore
from failover_agent.verification.faults import ALL, Kind
from failover_agent.verification.machines import Pace
from failover_agent.verification.rules import Measures
from failover_agent.verification.world import World
from tests.mutants.loader import Edit, load

PAIR = Policy(
    role=Role.PRIMARY,
    containers=("db", "web"),
    arbiter=Role.WITNESS,
    heartbeat_timeout_s=3.0,
    heartbeat_interval_s=0.7,
    startup_grace_period_s=3.0,
    stop_budget_s=0.75,
    kill_budget_s=0.3,
)
PLAIN = replace(PAIR, arbiter=None)
TRUE_CLOCKS = ((0, 0, 0),)
ROUNDING_S = 1e-6
"""The closed form is met to the last digit: what an explorer adds up is a few digits shorter."""


def look_into(
    policy: Policy, faults: int, kinds: frozenset[Kind], core: Product = SHIPPED, **bounds: Any
) -> Report:
    """Without a limit of time: on a machine that is busy a test must not become another one."""
    wanted = Bounds(most_faults=faults, seconds=math.inf, kinds=kinds, **bounds)
    return explore(policy, wanted, core, clock=Clock().now)


# --- the shipped core -----------------------------------------------------------------------------


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(PAIR, id="with an arbiter"),
        pytest.param(PLAIN, id="plain, availability"),
        pytest.param(
            replace(PLAIN, partition_policy=PartitionPolicy.CONSISTENCY), id="plain, consistency"
        ),
    ],
)
def test_the_shipped_core_holds_whatever_fault_comes_whenever_it_makes_a_difference(
    policy: Policy,
) -> None:
    report = look_into(policy, 1, ALL, clocks=TRUE_CLOCKS)
    assert report.counterexample is None, report.counterexample
    assert report.is_complete
    assert [level.share for level in report.levels] == [1.0, 1.0]
    assert report.measures.outage.seconds > 0
    overlaps = not policy.requires_lease and (
        policy.partition_policy is PartitionPolicy.AVAILABILITY
    )
    assert (report.measures.overlap.seconds > 0) == overlaps


@pytest.mark.timeout(300)
@pytest.mark.parametrize("arbiter", [Role.WITNESS, None])
@pytest.mark.parametrize(
    ("timeout_s", "interval_s", "stop_s", "kill_s", "grace_s"),
    [(3.0, 0.5, 0.75, 0.3, 3.0), (10.0, 1.0, 2.5, 1.0, 20.0), (6.0, 1.5, 1.0, 0.4, 2.0)],
)
def test_no_takeover_takes_longer_than_the_closed_form_and_one_nearly_as_long(
    arbiter: Role | None,
    timeout_s: float,
    interval_s: float,
    stop_s: float,
    kill_s: float,
    grace_s: float,
) -> None:
    policy = replace(
        PAIR,
        arbiter=arbiter,
        heartbeat_timeout_s=timeout_s,
        heartbeat_interval_s=interval_s,
        stop_budget_s=stop_s,
        kill_budget_s=kill_s,
        startup_grace_period_s=grace_s,
    )
    report = look_into(policy, 1, frozenset({Kind.CRASH}))
    bound_s = takeover_s(policy, verify.measured(Pace()))
    assert report.counterexample is None, report.counterexample
    assert 0.8 * bound_s <= report.measures.takeover.seconds <= bound_s + ROUNDING_S


@pytest.mark.timeout(300)
def test_a_lost_message_costs_a_takeover_one_interval_more_at_most() -> None:
    report = look_into(PLAIN, 2, frozenset({Kind.CRASH, Kind.LOSE}), clocks=TRUE_CLOCKS)
    bound_s = takeover_s(PLAIN, verify.measured(Pace()))
    assert report.counterexample is None, report.counterexample
    assert 0 < report.measures.lossy_takeover.seconds <= bound_s + ROUNDING_S


# --- it bites -------------------------------------------------------------------------------------


BENT = {
    "H1: a lease counts from when the answer arrived": (
        PAIR, 2, {Kind.DELAY, Kind.ISOLATE}, "S1",
        Edit(
            "renewing.py",
            "leases.note_answer(turn, event.to, event.sent_at_s,",
            "leases.note_answer(turn, event.to, turn.now,",
        ),
    ),
    "V1: a promise ends long before it should": (
        PAIR, 1, {Kind.CUT}, "S1",
        Edit(
            "voter.py",
            "until_s = FOREVER if hold else now + lease_s * (1 + CLOCK_DRIFT)",
            "until_s = FOREVER if hold else now + lease_s * 0.1",
        ),
    ),
    "H3: an agent whose lease ends stops nothing": (
        PAIR, 2, {Kind.FREEZE_GUARD, Kind.ISOLATE}, "S1",
        Edit(
            "releasing.py",
            "    if turn.now < leases.must_stop_at_s(state, policy):",
            "    if True:",
        ),
    ),
    "H4: a start call has no deadline": (
        PAIR, 1, {Kind.FREEZE_GUARD}, "S1",
        Edit(
            "leases.py",
            "    return min(stop_at_s(state, policy), awake_until_s)",
            "    return FOREVER",
        ),
    ),
    "V4: a witness that was started again grants at once": (
        PAIR, 2, {Kind.CUT, Kind.WITNESS}, "S1",
        Edit(
            "voter.py",
            "        grants_after_s=now + wait_s * (1 + CLOCK_DRIFT),",
            "        grants_after_s=now,",
        ),
    ),
    "G2: the guard lets a lease end": (
        PAIR, 1, {Kind.KILL}, "S1",
        Edit("guard/watch.py", "return now >= kill_at_s(watch)", "return False"),
    ),
    "first contact ends nothing": (
        PLAIN, 1, {Kind.CUT}, "L2",
        Edit(
            "leading.py",
            "elif theirs > mine and reports.serves(beat.phase, beat.running):",
            "elif False:",
        ),
    ),
}  # fmt: skip


@pytest.mark.mutant
@pytest.mark.timeout(300)
@pytest.mark.parametrize("rule", BENT)
def test_a_rule_that_is_bent_has_a_counterexample(rule: str) -> None:
    policy, faults, kinds, breaks, edit = BENT[rule]
    core = load([edit], checked=False)
    report = look_into(policy, faults, frozenset(kinds), core, clocks=TRUE_CLOCKS)
    assert report.counterexample is not None
    assert report.counterexample.rule.startswith(breaks)
    assert len(report.counterexample.faults) == faults, "there is none with fewer faults"


# --- what it says ---------------------------------------------------------------------------------


def test_a_counterexample_is_a_story_with_the_faults_in_it() -> None:
    policy, faults, kinds, _, edit = BENT["G2: the guard lets a lease end"]
    bounds = Bounds(most_faults=faults, seconds=math.inf, kinds=frozenset(kinds))
    report = explore(policy, bounds, load([edit], checked=False), clock=Clock().now)
    told = verify.render(report, policy, bounds, with_stories=False)
    assert "BROKEN: S1: never two with an arbiter" in told
    assert "! fault    primary: the agent is killed, back after 6 s" in told
    assert told.index("the containers start, in term 1") < told.index("in term 2")
    assert max(map(len, told.splitlines())) <= 80


def test_when_time_is_up_it_says_what_was_covered() -> None:
    bounds = Bounds(most_faults=2, seconds=0.5)
    moments = iter(range(1000000))
    report = explore(PAIR, bounds, clock=lambda: next(moments) / 1000)
    told = verify.render(report, PAIR, bounds, with_stories=False)
    assert not report.is_complete
    assert report.levels[-1].share < 1
    assert "%, until it was stopped" in told
    assert "it was stopped early" in told


CONFIG = """
cluster = "shop"
containers = ["db", "web"]
heartbeat_timeout = 3.0
heartbeat_interval = 0.7
startup_grace_period = 3
[primary]
endpoint = "http://192.0.2.2:8000"
[backup]
endpoint = "http://192.0.2.1:8000"
[arbiter]
kind = "witness"
endpoint = "http://192.0.2.3:8000"
[security]
allow_unauthenticated = true
"""


def test_verify_explores_with_the_timings_of_the_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    where = ["--config", str(path), "--role", "primary"]
    assert main(["verify", *where, "--faults", "1", "--seconds", "3", "--story"]) == 0
    told = capsys.readouterr().out
    assert "heartbeat_timeout 3 s, heartbeat_interval 0.7" in told
    assert "HOLDS: never do the containers run on two hosts" in told
    assert max(map(len, told.splitlines())) <= 80


# --- the same state -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", canonical.LOOKED_AT)
def test_every_field_of_the_core_is_looked_at_or_forgotten(kind: type[Any]) -> None:
    names = {field.name for field in fields(kind)}
    looked_at, forgotten = set(canonical.LOOKED_AT[kind]), canonical.FORGOTTEN[kind]
    assert looked_at | forgotten == names
    assert not looked_at & forgotten


def begun() -> World:
    """Both hosts run, and nothing went wrong."""
    world = World(SHIPPED, Pace(), Measures())
    world.add_witness(1.0, PAIR.heartbeat_timeout_s)
    for role in PAIR.members:
        world.add_host(replace(PAIR, role=role, containers=("db",)), 1.0)
        world.boot(role)
    return world


def run_until(world: World, at_s: float) -> None:
    """To the first checkpoint after `at_s`."""
    while world.now_s < at_s or not world.is_checkpoint:
        world.advance()


def test_a_pair_at_rest_comes_back_to_the_same_state_with_each_interval() -> None:
    world, canon = begun(), Canon(0.35, 3.0, 3.0)
    run_until(world, 20.0)
    before = canon.key(world)
    for _ in range(len(world.hosts)):
        world.advance()
        run_until(world, world.now_s)
    assert canon.key(world) == before


def test_a_fork_goes_its_own_way() -> None:
    world, canon = begun(), Canon(0.35, 3.0, 3.0)
    run_until(world, 10.0)
    before, twin = canon.key(world), world.fork()
    twin.power_off(Role.PRIMARY, 9.0)
    run_until(twin, 16.0)
    assert canon.key(world) == before
    assert world.hosts[Role.PRIMARY].is_alive
    assert twin.hosts[Role.BACKUP].is_alive
