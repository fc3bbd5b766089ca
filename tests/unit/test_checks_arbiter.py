"""`failover-agent check` where there is a third voter: a real witness, and a real etcd."""

from pathlib import Path
from typing import Any

import pytest

from failover_agent import checks, config
from failover_agent.checks import Finding, Level, arbiter, host, service, timing
from failover_agent.checks import settings as of_configuration
from failover_agent.checks.measure import Measurements
from failover_agent.cli import check, output
from failover_agent.config import Settings
from tests.integration.etcd import etcd
from tests.integration.nodes import SECRET
from tests.integration.test_witness import House
from tests.unit.test_checks import _no_environment, free_port, here, settings_in, worth_a_look

__all__ = ["_no_environment", "here"]  # fixtures

QUICK = Measurements(rtt_s=0.001, fsync_s=0.002, wake_s=0.003, kill_s=0.004)


def with_witness(here: Path, endpoint: str = "http://10.0.0.3:8000", top: str = "") -> Settings:
    return settings_in(
        here,
        top=top,
        endpoint="http://127.0.0.1:9" if "127" in endpoint else "http://10.0.0.2:8000",
        node_keys=f'[arbiter]\nkind = "witness"\nendpoint = "{endpoint}"',
    )


def with_etcd(here: Path, *endpoints: str, keys: str = "") -> Settings:
    listed = ", ".join(f'"{each}"' for each in endpoints)
    return settings_in(here, node_keys=f'[arbiter]\nkind = "etcd"\nendpoint = [{listed}]\n{keys}')


def witness_in(here: Path, clusters: str = "") -> Settings:
    path = here / "witness.toml"
    path.write_text(
        f'[witness]\nport = {free_port()}\nbind = "127.0.0.1"\nstate_dir = "{here}/state"\n'
        f'control_socket = "{here}/witness.sock"\n{clusters}\n'
        f'[security]\nsecret = "{SECRET.decode()}"\n'
    )
    path.chmod(0o600)
    return config.load(path, "witness")


# --- the configuration ----------------------------------------------------------------------------


def test_a_pair_with_an_arbiter_is_told_that_a_cut_wire_is_no_danger(here: Path) -> None:
    findings = list(of_configuration.find(with_witness(here)))

    assert findings[-1] == Finding(
        Level.OK,
        "lease",
        "two of three votes decide, and the third is the witness at http://10.0.0.3:8000: a cut "
        "wire never makes both run",
    )
    assert worth_a_look(findings) == []


def test_a_partition_policy_has_no_use_beside_an_arbiter(here: Path) -> None:
    findings = of_configuration.find(with_witness(here, top='partition_policy = "consistency"'))

    (finding,) = worth_a_look(findings)
    assert (finding.level, finding.subject) == (Level.HINT, "partition")


def test_a_witness_that_listens_elsewhere(here: Path) -> None:
    (finding,) = worth_a_look(
        of_configuration.find(with_witness(here, endpoint="http://10.0.0.3:9000"))
    )

    assert (finding.level, finding.subject) == (Level.HINT, "ports")
    assert "the witness listens on 8000 ([witness] port), and the nodes call" in finding.sentence


# --- the timings ----------------------------------------------------------------------------------


def test_the_bounds_of_a_lease(here: Path) -> None:
    told = dict(timing.table(with_witness(here), Measurements()).rows)

    assert told == {
        "host dies": "start on the other host within 10.3 s",
        "": "1 s more for each message lost on the way",
        "container dies": "moves after 30 s (restart_grace_period), and the stop",
        "boots alone": "start after 10.3 s, if the arbiter answers",
        "active cut off": "begins to stop after 7.4 s, has stopped after 9.9 s",
        "agent away": "nothing moves for 7.9 s",
        "both run": "never; agent and guard gone together: as long, plus 1 s",
    }


def test_no_bound_is_too_long_for_the_screen(here: Path) -> None:
    top = 'heartbeat_timeout = 3567.89\nfence_command = "true"\nfence_timeout = 1234.5'
    slow = Measurements(rtt_s=1.2345, fsync_s=2.3456, wake_s=3.4567)

    shown = check.render_bounds(timing.table(with_witness(here, top=top), slow))

    assert "..." not in shown
    assert all(len(line) <= output.WIDTH for line in shown.splitlines())


def test_an_etcd_is_read_once_an_interval(here: Path) -> None:
    told = dict(timing.table(with_etcd(here, "http://10.0.0.3:2379"), Measurements()).rows)

    assert told["host dies"] == "start on the other host within 11.4 s"


def test_the_bound_with_an_etcd_leaves_its_own_election_out_and_says_so(here: Path) -> None:
    election = ("", "and etcd's own election, where its leader died with the host")

    assert election in timing.table(with_etcd(here, "http://10.0.0.3:2379"), Measurements()).rows
    assert election not in timing.table(with_witness(here), Measurements()).rows


SHORT = "heartbeat_timeout = 1\nheartbeat_interval = 0.1"


def test_a_short_lease_is_fine_where_it_was_measured_to_fit(here: Path) -> None:
    settings = with_witness(here, top=SHORT)

    def told(measurements: Measurements) -> Finding:
        return next(iter(timing.find(settings, measurements, {"db": 0, "web": 0})))

    assert told(QUICK) == Finding(
        Level.OK,
        "heartbeat_timeout",
        "1 s is short, and here there is room for it: round trip 1 ms, save 2 ms, late timer 3 ms, "
        "kill 4 ms",
    )
    slow = told(Measurements(rtt_s=0.001, fsync_s=0.25, wake_s=0.003, kill_s=0.004))
    assert (slow.level, slow.fix) == (Level.WARNING, "heartbeat_timeout = 2")
    assert (
        "1 s leaves too little room for what was measured here: round trip 1 ms, save 250 ms"
        in (slow.sentence)
    )
    unknown = told(Measurements(fsync_s=0.001, wake_s=0.003, kill_s=0.004))
    assert (unknown.level, unknown.fix) == (Level.WARNING, "heartbeat_timeout = 2")


def test_a_machine_that_is_too_slow_for_a_long_lease(here: Path) -> None:
    crawling = Measurements(rtt_s=3, fsync_s=3, wake_s=3, kill_s=3)

    (finding,) = timing.find(with_witness(here), crawling, {"db": 0, "web": 0})

    assert (finding.level, finding.fix) == (Level.WARNING, "heartbeat_timeout = 20")


def test_containers_that_get_less_time_to_stop_than_they_ask_for(here: Path) -> None:
    settings = with_witness(here)

    def told(**own_s: float | None) -> list[Finding]:
        return list(timing.find(settings, QUICK, own_s))

    assert told(db=1, web=1.5) == []
    assert told(db=1, web=30) == [
        Finding(
            Level.WARNING,
            "stop_timeout",
            "on a lost lease you get 1.5 s (stop_budget 2.5 - kill_budget 1), and then they are "
            "killed; else web 30 s",
            "heartbeat_timeout = 38 and stop_budget = 33.8 would give them all of it",
        )
    ]
    # Docker's own ten seconds are nobody's choice.
    (hint,) = told(db=None, web=None)
    assert (hint.level, hint.sentence.partition("else ")[2]) == (Level.HINT, "db 10 s, web 10 s")


def test_a_stop_timeout_of_ours_stands_for_that_of_each_container(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILOVER_AGENT_DOCKER__STOP_TIMEOUT", "5")
    settings = with_witness(here)

    (finding,) = timing.find(settings, QUICK, {"db": 100, "web": None})

    assert finding.level is Level.WARNING
    assert finding.sentence.endswith("else db 5 s, web 5 s")


@pytest.mark.parametrize("wanted_s", [2, 5, 10, 30, 120])
def test_the_way_to_stop_in_peace_is_one(wanted_s: float, here: Path) -> None:
    (finding,) = timing.find(with_witness(here), QUICK, {"db": wanted_s, "web": 0})

    way = finding.fix.removesuffix(" would give them all of it").replace(" and ", "\n")
    mended = with_witness(here, top=way)

    assert list(timing.find(mended, QUICK, {"db": wanted_s, "web": 0})) == []


# --- the witness ----------------------------------------------------------------------------------


async def test_a_witness_that_is_there(here: Path) -> None:
    async with House(here / "house").listening() as house:
        seen = await arbiter.look(with_witness(here, house.endpoint))

    (finding,) = seen.findings
    assert finding.level is Level.OK
    assert finding.sentence.startswith(f"{house.endpoint}: the witness answers (version ")
    assert seen.rtt_s is not None
    assert 0 < seen.rtt_s < 5


async def test_a_witness_that_is_not_there_yet_is_a_weakness(here: Path) -> None:
    seen = await arbiter.look(with_witness(here, f"http://127.0.0.1:{free_port()}"))

    (finding,) = seen.findings
    assert (finding.level, finding.subject, seen.rtt_s) == (Level.WARNING, "arbiter", None)
    assert "systemctl start failover-agent-witness" in finding.fix


async def test_a_witness_with_another_secret_or_for_others_is_an_error(here: Path) -> None:
    for secrets, fix in (
        ({"shop": b"another secret altogether"}, "secret_file"),
        ({"lab": SECRET}, "[witness.clusters.shop]"),
    ):
        async with House(here / fix[:4], secrets=secrets).listening() as house:
            (finding,) = (await arbiter.look(with_witness(here, house.endpoint))).findings
        assert finding.level is Level.ERROR
        assert fix in finding.fix


async def test_without_an_arbiter_nobody_is_asked(here: Path) -> None:
    assert await arbiter.look(settings_in(here)) == arbiter.Seen([])


# --- an etcd --------------------------------------------------------------------------------------


async def test_an_etcd_that_is_there_and_its_disk(here: Path) -> None:
    with etcd(here) as cluster:
        seen = await arbiter.look(with_etcd(here, *cluster.endpoints))

    answers, compaction = seen.findings
    assert answers.level is Level.OK
    assert "nothing promised yet" in answers.sentence
    assert seen.rtt_s is not None
    assert compaction.level is Level.HINT
    assert compaction.fix.startswith("--auto-compaction-mode=periodic")


async def test_an_etcd_of_which_one_member_is_missing(here: Path) -> None:
    with etcd(here) as cluster:
        gone = f"http://127.0.0.1:{free_port()}"
        seen = await arbiter.look(with_etcd(here, gone, *cluster.endpoints))

    levels = sorted(each.level for each in seen.findings)
    assert levels == [Level.HINT, Level.OK, Level.WARNING]
    assert seen.rtt_s is not None
    assert seen.rtt_s < 5


async def test_a_password_that_everybody_on_the_way_can_read(here: Path) -> None:
    gone = f"http://127.0.0.1:{free_port()}"

    seen = await arbiter.look(with_etcd(here, gone, keys='username = "a"\npassword = "b"'))

    assert [each.level for each in seen.findings] == [Level.WARNING, Level.WARNING, Level.HINT]
    assert "the password crosses the network as it is" in seen.findings[1].sentence
    assert seen.rtt_s is None


# --- on the witness itself ------------------------------------------------------------------------


async def test_a_witness_is_checked_without_an_engine_and_a_peer(here: Path) -> None:
    report = await checks.find_all(witness_in(here), None)

    assert report.bounds is None
    assert [(each.level, each.subject) for each in report.findings] == [
        (Level.OK, "configuration"),
        (Level.OK, "record"),
        (Level.OK, "control_socket"),
        (Level.OK, "port"),
        (Level.HINT, "agent"),
    ]
    assert report.findings[0].sentence.endswith("can be used: this is the witness of default")
    assert (
        report.findings[1].sentence == f"{here}/state/default: there is none yet, this pair is new"
    )


async def test_a_witness_that_has_run_before_has_a_record_for_each_pair(here: Path) -> None:
    async with House(here / "state", secrets={"shop": SECRET, "lab": SECRET}).listening():
        pass
    settings = witness_in(here, "[witness.clusters.shop]\n[witness.clusters.lab]")

    records = list(host.of_state_dir(settings))
    (agent,) = service.find(settings, None, (), None)

    assert [each.sentence for each in records] == [
        f"{here}/state/shop: term 0, writable",
        f"{here}/state/lab: term 0, writable",
    ]
    assert agent == Finding(
        Level.WARNING,
        "agent",
        "none answers on this host, where one has run before: the third vote is missing",
        "systemctl start failover-agent-witness",
    )


def test_a_record_of_another_pair_is_not_ours(here: Path) -> None:
    (here / "state").mkdir()
    settings = witness_in(here, "[witness.clusters.lab]")
    record = here / "state" / "lab"
    record.mkdir()
    (record / "record.json").write_text("{")

    (finding,) = host.of_state_dir(settings)
    assert finding.level is Level.WARNING


def test_what_a_running_witness_says(here: Path) -> None:
    status: dict[str, Any] = {"phase": None, "version": "0.1.0", "alarms": []}

    (finding,) = service.find(witness_in(here), {**status, "clusters": [{}, {}]}, (), None)

    assert finding.sentence == "it runs (version 0.1.0, the witness of 2 clusters)"


def test_a_witness_that_signs_nothing(here: Path) -> None:
    path = here / "open.toml"
    path.write_text("[witness]\n[security]\nallow_unauthenticated = true\n")

    (finding,) = worth_a_look(of_configuration.find(config.load(path, "witness")))

    assert (finding.level, finding.subject) == (Level.WARNING, "secret")
