"""`failover-agent check`: what is found, and the line that mends it."""

import asyncio
import errno
import json
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from failover_agent import checks, config
from failover_agent.adapters.docker import EngineReport
from failover_agent.adapters.record import Host, RecordStore
from failover_agent.checks import (
    Bounds,
    Finding,
    Level,
    engine,
    host,
    measure,
    peer,
    service,
    timing,
)
from failover_agent.checks import settings as of_configuration
from failover_agent.checks.measure import Measurements
from failover_agent.cli import check, output
from failover_agent.cli.output import Paint
from failover_agent.config import Settings
from failover_agent.core.bounds import Measured
from failover_agent.core.events import ContainerObservation
from failover_agent.core.policy import Role
from failover_agent.core.state import ContainerState, Durable, Holder, Phase
from failover_agent.errors import ExitCode
from failover_agent.protocol.envelope import read_token
from tests.integration.nodes import SECRET, Node, listening, node
from tests.ports import free_ports

RECORDED = Path(__file__).resolve().parents[1] / "recorded" / "engine-20.10"

STATUS: Mapping[str, Any] = {
    "role": "primary",
    "phase": "active",
    "version": "0.1.0",
    "pid": 4711,
    "alarms": [],
}


@pytest.fixture
def here() -> Iterator[Path]:
    """A folder with a name that is short enough for a socket in it."""
    with tempfile.TemporaryDirectory(prefix="fa-") as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("FAILOVER_AGENT_") or name == "DOCKER_HOST":
            monkeypatch.delenv(name)


def free_port() -> int:
    return free_ports(1)[0]


def settings_in(
    here: Path,
    *,
    role: str = "primary",
    top: str = "",
    endpoint: str = "http://127.0.0.1:9",
    node_keys: str = "",
    security: str = f'secret = "{SECRET.decode()}"',
    mode: int = 0o600,
) -> Settings:
    path = here / "config.toml"
    own = f'bind = "127.0.0.1"\nstate_dir = "{here}/state"\ncontrol_socket = "{here}/fa.sock"\n'
    tables = {
        "primary": 'endpoint = "http://10.0.0.2:8000"',
        "backup": 'endpoint = "http://10.0.0.1:8000"',
    }
    tables[role] = f'endpoint = "{endpoint}"\n{own}{node_keys}'
    path.write_text(
        f'cluster = "shop"\ncontainers = ["db", "web"]\n{top}\n[primary]\n{tables["primary"]}\n'
        f'[backup]\n{tables["backup"]}\n[docker]\nhost = "unix://{here}/docker.sock"\n'
        f"[security]\n{security}\n"
    )
    path.chmod(mode)
    return config.load(path, role)


def worth_a_look(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level is not Level.OK]


# --- the configuration --------------------------------------------------------------------------


def test_a_plain_pair_is_told_what_a_cut_wire_costs_it(here: Path) -> None:
    settings = settings_in(here, endpoint="http://10.0.0.2:8000")

    (finding,) = worth_a_look(of_configuration.find(settings))

    assert finding == Finding(
        Level.HINT,
        "partition",
        "availability: while the wire between the nodes is cut both run the containers; at the "
        "first contact the one with the lower term stops",
        "a witness on a third host ends that: [arbiter] in config.example.toml; and with "
        'partition_policy = "consistency" a takeover waits for your word',
    )


def test_consistency_is_told_what_a_dead_host_costs_it(here: Path) -> None:
    findings = list(
        of_configuration.find(settings_in(here, top='partition_policy = "consistency"'))
    )

    finding = worth_a_look(findings)[-1]
    assert finding.sentence == (
        "consistency: when a host dies, nothing takes over until an operator says "
        "`failover-agent takeover --peer-is-off` on the other one, here the backup"
    )
    assert "host dies" not in [finding.subject for finding in findings]


def rows(settings: Settings, measured: Measurements | None = None) -> dict[str, str]:
    return dict(row for row in timing.table(settings, measured or Measurements()).rows if row[0])


def test_the_bounds_that_the_timings_give(here: Path) -> None:
    table = timing.table(settings_in(here), Measurements())

    assert table.title == "What these timings give:"
    assert table.rows == (
        ("host dies", "start on the other host within 10.3 s"),
        ("", "1 s more for each message lost on the way"),
        ("container dies", "moves after 30 s (restart_grace_period), and the stop"),
        ("boots alone", "start after 20.3 s; a new backup waits (lone_start)"),
        ("agent away", "nothing moves for 9 s"),
        ("both run", "while the wire between them is cut"),
    )
    keys = 'startup_grace_period = 1\nheartbeat_timeout = 40\nlone_start = "start"'
    short = settings_in(here, top=keys)
    assert rows(short)["boots alone"] == "start after 40.9 s"


def test_what_was_measured_is_part_of_the_bounds(here: Path) -> None:
    slow = Measurements(rtt_s=0.25, fsync_s=0.5, wake_s=0.125)
    table = timing.table(settings_in(here), slow)

    assert table.title == (
        "What these timings give, with what was measured now (round trip 250 ms, save 500 ms, late "
        "timer 125 ms):"
    )
    assert rows(settings_in(here), slow)["host dies"] == ("start on the other host within 11.6 s")


def test_consistency_and_a_fence_change_what_a_dead_host_costs(here: Path) -> None:
    careful = 'partition_policy = "consistency"'
    fenced = f'{careful}\nfence_command = "true"\nfence_timeout = 5'

    assert rows(settings_in(here, top=careful))["host dies"] == (
        "nothing starts before an operator says takeover"
    )
    assert rows(settings_in(here, top=careful))["both run"] == "never"
    assert rows(settings_in(here, top=fenced))["host dies"] == (
        "start on the other host within 15.3 s (5 s of it fence)"
    )


def test_a_timeout_that_a_busy_host_may_miss(here: Path) -> None:
    settings = settings_in(here, top="heartbeat_timeout = 1.5\nheartbeat_interval = 0.5")

    (finding,) = timing.find(settings, Measurements(), {})

    assert (finding.level, finding.fix) == (Level.WARNING, "heartbeat_timeout = 2")
    assert list(timing.find(settings_in(here), Measurements(), {"db": 100})) == []


async def test_what_this_machine_needs_is_measured_and_leaves_nothing_behind(here: Path) -> None:
    found = await measure.measure(0.5, here / "not" / "there")

    assert found.is_complete
    assert found.measured.rtt_s == 0.5
    for seconds in (found.fsync_s, found.wake_s, found.kill_s):
        assert seconds is not None
        assert 0 < seconds < 5
    assert list(here.iterdir()) == []


async def test_what_cannot_be_measured_has_the_usual_figures() -> None:
    found = await measure.measure(None, Path("/proc/nowhere"))

    assert not found.is_complete
    assert (found.rtt_s, found.fsync_s) == (None, None)
    assert (found.measured.rtt_s, found.measured.fsync_s) == (Measured().rtt_s, Measured().fsync_s)


@pytest.mark.parametrize(
    ("seconds", "above", "below"),
    [(10.296, "10.3 s", "10.2 s"), (10.3, "10.3 s", "10.3 s"), (0.891, "0.9 s", "0.89 s"),
     (3672.4, "3673 s", "3672 s"), (372.45, "372.5 s", "372.4 s"), (-1.0, "-1 s", "0 s")],
)  # fmt: skip
def test_a_bound_is_rounded_to_the_safe_side(seconds: float, above: str, below: str) -> None:
    assert (timing.at_most(seconds), timing.at_least(seconds)) == (above, below)


def test_a_fence_is_looked_for_and_not_tried(here: Path) -> None:
    def told(command: str) -> Finding:
        settings = settings_in(here, top=f'fence_command = "{command}"')
        return next(f for f in of_configuration.find(settings) if f.subject == "fence_command")

    assert told(f"touch {here}/tried") == Finding(
        Level.OK,
        "fence_command",
        "touch can be run, before a takeover and for 30 s at most; it was not tried",
    )
    assert not (here / "tried").exists()
    missing = told("/nowhere/off --now")
    assert missing.level is Level.ERROR
    assert missing.sentence == "there is no program /nowhere/off: no takeover would ever go on"
    settings = settings_in(here, top='fence_command = "true"', endpoint="http://10.0.0.2:8000")
    assert worth_a_look(of_configuration.find(settings)) == []


def test_messages_that_are_not_signed(here: Path) -> None:
    settings = settings_in(here, security="allow_unauthenticated = true")

    finding = worth_a_look(of_configuration.find(settings))[0]

    assert finding.level is Level.WARNING
    assert finding.fix == '[security] secret_file = "/etc/failover-agent/secret"'


def test_a_secret_in_a_file_that_everybody_reads(here: Path) -> None:
    finding = worth_a_look(of_configuration.find(settings_in(here, mode=0o644)))[0]

    assert (finding.level, finding.fix) == (Level.WARNING, f"chmod 600 {here}/config.toml")


def test_whoever_may_read_is_told_what_to_send(here: Path) -> None:
    secretly = f'secret = "{SECRET.decode()}"\nread_access = "secret"'

    told = [f.sentence for f in of_configuration.find(settings_in(here, security=secretly))]

    assert f"a reader sends this header: Authorization: Bearer {read_token(SECRET)}" in told
    assert not any("Bearer" in f.sentence for f in of_configuration.find(settings_in(here)))


def test_ports_that_do_not_fit_each_other(here: Path) -> None:
    told = [f.sentence for f in of_configuration.find(settings_in(here, node_keys="port = 9000"))]

    assert (
        "the primary listens on 9000 ([primary] port), and the backup calls http://10.0.0.1:8000: "
        "that needs a forwarded port"
    ) in told


# --- the engine ---------------------------------------------------------------------------------


def observed(name: str = "web", **parts: Any) -> ContainerObservation:
    usual = ContainerObservation(
        name=name,
        state=ContainerState.DOWN,
        detail="exited (0)",
        exists=True,
        alive=False,
        incarnation="x",
        image="sha256:1",
        settings="2",
        restart_policy="no",
    )
    return replace(usual, **parts)


def report(*containers: ContainerObservation, **parts: Any) -> EngineReport:
    usual = EngineReport(
        version="26.1.5", api_version="1.45", live_restore=True, containers=containers
    )
    return replace(usual, **parts)


def of_containers(
    settings: Settings,
    container: ContainerObservation,
    *,
    made_with_rm: bool = False,
) -> list[Finding]:
    gone = frozenset({container.name}) if made_with_rm else frozenset()
    return list(engine.of_containers(report(container), settings, gone))


def test_a_container_that_is_there_is_told_as_it_is(here: Path) -> None:
    assert of_containers(settings_in(here), observed()) == [
        Finding(Level.OK, "container web", "exited (0)")
    ]


def test_a_container_that_is_missing(here: Path) -> None:
    assert of_containers(settings_in(here), observed(exists=False)) == [
        Finding(
            Level.ERROR,
            "container web",
            "there is no such container on this host",
            "docker create --name web IMAGE, as on the other host",
        )
    ]


def test_a_restart_policy_is_a_hint_where_the_agent_manages_it(here: Path) -> None:
    _, finding = of_containers(settings_in(here), observed(restart_policy="always"))

    assert finding == Finding(
        Level.HINT,
        "container web",
        "Docker's restart policy always would start it after a boot before anybody could forbid "
        "it; the agent will set it to no",
        "docker update --restart=no web",
    )


def test_a_restart_policy_is_an_error_where_the_agent_is_to_refuse_it(here: Path) -> None:
    settings = settings_in(here, top='restart_policy = "refuse"')

    _, finding = of_containers(settings, observed(restart_policy="unless-stopped"))

    assert (finding.level, finding.fix) == (Level.ERROR, "docker update --restart=no web")
    assert of_containers(settings, observed(restart_policy="no"))[1:] == []


def test_a_container_that_a_stop_removes(here: Path) -> None:
    _, finding = of_containers(settings_in(here), observed(), made_with_rm=True)

    assert finding.level is Level.ERROR
    assert finding.fix == "docker rm --force web, and create it without --rm"


def test_a_container_that_runs_before_there_is_an_agent(here: Path) -> None:
    on_primary = list(service.find(settings_in(here), None, ("db", "web"), None))
    on_backup = list(service.find(settings_in(here, role="backup"), None, ("web",), None))

    assert [finding.level for finding in on_primary] == [Level.OK, Level.HINT]
    assert [finding.level for finding in on_backup] == [Level.HINT, Level.HINT]
    assert "if the primary is active already, they are stopped here" in on_backup[0].sentence
    assert on_backup[1].sentence == "none runs on this host yet"


@pytest.mark.parametrize("is_new", [False, True])
def test_containers_that_run_here_while_the_peer_is_active(is_new: bool, here: Path) -> None:
    settings = settings_in(here)
    if not is_new:
        save_record(settings)

    running, agent = service.find(settings, None, ("db", "web"), Phase.ACTIVE)

    assert running == Finding(
        Level.ERROR,
        "containers",
        "db, web: running here without an agent, and the backup is active: both hosts may run them",
        "systemctl start failover-agent (it stops them here); or: docker stop web db",
    )
    assert agent.level is (Level.HINT if is_new else Level.WARNING)


@pytest.mark.parametrize(
    ("phase", "told"), [(None, ", and the backup does not answer:"), (Phase.STANDBY, "an agent:")]
)
def test_containers_that_run_where_an_agent_has_run_before(
    phase: Phase | None, told: str, here: Path
) -> None:
    settings = settings_in(here)
    save_record(settings)

    running, agent = service.find(settings, None, ("db",), phase)

    assert running.level is Level.WARNING
    assert told in running.sentence
    assert agent == Finding(
        Level.WARNING,
        "agent",
        "none answers on this host, where one has run before: nobody looks after it",
        "systemctl start failover-agent",
    )


def test_an_agent_that_is_gone_is_a_weakness_where_nothing_runs_too(here: Path) -> None:
    (here / "state").mkdir()
    (here / "state" / "record.json").write_text("{")

    (agent,) = service.find(settings_in(here), None, (), Phase.ACTIVE)

    assert agent.level is Level.WARNING


def test_where_an_agent_runs_it_answers_for_its_containers(here: Path) -> None:
    (finding,) = service.find(settings_in(here), STATUS, ("db", "web"), Phase.ACTIVE)

    assert finding.level is Level.OK


@pytest.mark.parametrize("api_version", ["1.40", "1.9"])
def test_an_engine_that_is_too_old_is_refused(api_version: str) -> None:
    (finding,) = engine.of_engine(report(api_version=api_version), "unix:///x")

    assert finding.level is Level.ERROR
    assert "the agent needs API 1.41 (Engine 20.10) or newer" in finding.sentence


def test_a_port_without_tls_is_a_weakness_that_is_named() -> None:
    assert not [*engine.of_the_way("unix:///x"), *engine.of_the_way("https://10.0.0.1:2376")]
    (finding,) = engine.of_the_way("tcp://10.0.0.1:2375")

    assert (finding.level, finding.subject) == (Level.WARNING, "docker.host")
    assert "whoever reaches that port commands the engine, and so is root" in finding.sentence


def test_the_socket_of_a_user_is_mended_by_that_user() -> None:
    fix = engine.fix_of("unix:///run/user/1000/docker.sock")

    assert fix.startswith("It is that of a user: as uid 1000, systemctl --user start docker")


def test_an_engine_that_does_not_keep_containers_through_its_own_restart() -> None:
    ok, finding = engine.of_engine(report(live_restore=False), "unix:///x")

    assert ok == Finding(Level.OK, "engine", "unix:///x answers (version 26.1.5, API 1.45)")
    assert finding.level is Level.HINT
    assert finding.fix == (
        '"live-restore": true in /etc/docker/daemon.json, then systemctl reload docker'
    )


@asynccontextmanager
async def recorded_engine(here: Path, **containers: str) -> AsyncIterator[None]:
    """An engine that says what a real one said; `containers` names the inspections."""

    def said(name: str) -> Any:
        return json.loads((RECORDED / f"{name}.json").read_text())

    async def ask(http: web.Request) -> web.Response:
        what = http.path.removeprefix("/v1.41/")
        if what in {"version", "/version"}:
            return web.json_response(said("version"))
        if what == "info":
            return web.json_response(said("info"))
        if what == "containers/json":
            row = said("containers")[0]
            rows = [{**row, "Id": f"id-of-{it}", "Names": [f"/{it}"]} for it in containers]
            return web.json_response(rows)
        name = what.removeprefix("containers/id-of-").removesuffix("/json")
        inspected = said(containers[name])
        inspected["HostConfig"]["AutoRemove"] = name == "db"
        return web.json_response(inspected | {"Id": f"id-of-{name}", "Name": f"/{name}"})

    app = web.Application()
    app.router.add_get("/{path:.*}", ask)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(here / "docker.sock")).start()
        yield
    finally:
        await runner.cleanup()


async def test_the_engine_is_asked_for_everything(here: Path) -> None:
    async with recorded_engine(here, db="inspect-running", web="inspect-exited-0"):
        seen = await engine.look(settings_in(here))

    findings = seen.findings
    assert seen.running == ("db",)
    told = [(finding.level, finding.subject) for finding in findings]
    assert told == [
        (Level.OK, "engine"),
        (Level.HINT, "live-restore"),
        (Level.OK, "container db"),
        (Level.ERROR, "container db"),  # made with --rm
        (Level.OK, "container web"),
    ]


async def test_a_container_that_the_engine_does_not_know(here: Path) -> None:
    async with recorded_engine(here, db="inspect-running"):
        findings = (await engine.look(settings_in(here))).findings

    assert findings[-1].sentence == "there is no such container on this host"


async def test_an_engine_that_is_not_there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = (await engine.look(settings_in(here))).findings

    assert finding == Finding(
        Level.ERROR,
        "engine",
        f"Docker Engine at unix://{here}/docker.sock: there is no such socket: Docker is not "
        "installed, or not running",
        "Try `docker version` as the user the agent runs as; docker.host in the configuration "
        "names another engine.",
    )
    monkeypatch.setattr(engine, "USUAL_DOCKER_HOST", f"unix://{here}/docker.sock")
    (finding,) = (await engine.look(settings_in(here))).findings
    assert finding.fix == "systemctl start docker"


async def test_an_engine_that_has_left_its_socket_behind(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "USUAL_DOCKER_HOST", f"unix://{here}/docker.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{here}/docker.sock")

    (finding,) = (await engine.look(settings_in(here))).findings

    assert "it is not running" in finding.sentence
    assert finding.fix == "systemctl start docker"


# --- the peer -----------------------------------------------------------------------------------


@asynccontextmanager
async def facing(here: Path, other: Node, **options: Any) -> AsyncIterator[Finding]:
    """What the primary in `here` finds where `other` listens."""
    async with listening(other):
        (finding,) = (
            await peer.look(settings_in(here, endpoint=other.endpoint, **options))
        ).findings
        yield finding


def backup(here: Path, **options: Any) -> Node:
    """A node that this configuration was made for."""
    other = node(Role.BACKUP, **options)
    fingerprint = settings_in(here).policy().fingerprint
    other.keeper.me = replace(other.keeper.me, fingerprint=fingerprint)
    return other


async def test_a_peer_that_is_there(here: Path) -> None:
    async with listening(backup(here, phase=Phase.STANDBY)) as other:
        seen = await peer.look(settings_in(here, endpoint=other.endpoint))

    (finding,) = seen.findings
    assert finding.level is Level.OK
    assert "the backup answers" in finding.sentence
    assert seen.phase is Phase.STANDBY


async def test_a_peer_that_is_not_there_yet_is_a_weakness(here: Path) -> None:
    seen = await peer.look(settings_in(here, endpoint=f"http://127.0.0.1:{free_port()}"))

    (finding,) = seen.findings
    assert seen.phase is None

    assert finding.level is Level.WARNING
    assert "no connection" in finding.sentence
    assert "systemctl start failover-agent" in finding.fix


async def test_each_way_to_the_peer_is_asked_and_named(here: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    async with listening(backup(here)) as other:
        ways = f'{other.endpoint}", "{nobody}'
        path = here / "config.toml"
        settings_in(here, endpoint="http://127.0.0.1:9")
        path.write_text(path.read_text().replace('"http://127.0.0.1:9"', f'["{ways}"]'))
        seen = await peer.look(config.load(path, "primary"))

    good, bad = seen.findings
    assert (good.level, bad.level) == (Level.OK, Level.WARNING)
    assert good.sentence.startswith(f"{other.endpoint}: the backup answers")
    assert bad.sentence.startswith(f"{nobody}: no connection to {nobody}")
    assert seen.rtt_s is not None, "by those that lead there"


@pytest.mark.parametrize(
    ("options", "told", "fix"),
    [
        ({"secret": b"another secret altogether"}, "secret", "Copy the file in secret_file"),
        ({"cluster": "other"}, "'other'", 'Write cluster = "shop"'),
    ],
)
async def test_a_peer_that_is_not_ours_is_an_error(
    options: dict[str, Any], told: str, fix: str, here: Path
) -> None:
    async with facing(here, backup(here, **options)) as finding:
        assert finding.level is Level.ERROR
        assert told in finding.sentence
        assert fix in finding.fix


async def test_a_peer_that_was_started_with_our_role(here: Path) -> None:
    async with facing(here, node(Role.PRIMARY)) as finding:
        assert finding.level is Level.ERROR
        assert finding.fix.startswith("Start it with --role backup")


async def test_a_peer_that_is_this_very_node(here: Path) -> None:
    settings = settings_in(here)
    node_id = await asyncio.to_thread(save_record, settings)

    async with facing(here, node(Role.PRIMARY, node_id=node_id)) as finding:
        assert finding.level is Level.ERROR
        assert 'Correct [primary] endpoint = "http://HOST:PORT"' in finding.fix


async def test_a_peer_with_other_decisive_settings(here: Path) -> None:
    async with facing(here, backup(here), top='partition_policy = "consistency"') as finding:
        assert finding.level is not Level.OK
        assert "partition_policy" in finding.sentence


# --- this host ----------------------------------------------------------------------------------


def save_record(
    settings: Settings,
    *,
    cluster: str = "shop",
    role: Role = Role.PRIMARY,
    machine: str = "",
) -> str:
    store = RecordStore.open(
        settings.node.state_dir, cluster=cluster, role=role, host=Host(machine, ""), deadline_s=5
    )
    try:
        asyncio.run(store.save(Durable(term=7, holder=Holder(role, store.node_id), released=False)))
        return store.node_id
    finally:
        store.close()


def test_a_node_that_is_new(here: Path) -> None:
    (finding,) = host.of_state_dir(settings_in(here))

    assert finding == Finding(
        Level.OK, "record", f"{here}/state: there is none yet, this node is new"
    )
    assert not (here / "state").exists()


def test_a_node_with_a_record(here: Path) -> None:
    settings = settings_in(here)
    save_record(settings)

    (finding,) = host.of_state_dir(settings)

    assert finding == Finding(Level.OK, "record", f"{here}/state: term 7, writable")
    assert [path.name for path in (here / "state").iterdir()] == ["record.json"]


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"cluster": "other"}, "the record belongs to the primary of cluster 'other'"),
        ({"role": Role.BACKUP}, "the record belongs to the backup of cluster 'shop'"),
        ({"machine": "another"}, "the record belongs to another machine"),
    ],
)
def test_a_record_that_is_not_ours(
    parts: dict[str, Any], told: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "read_host", lambda: Host("this one", ""))
    settings = settings_in(here)
    save_record(settings, **parts)

    (finding,) = host.of_state_dir(settings)

    assert finding.level is Level.ERROR
    assert told in finding.sentence
    assert finding.fix.startswith("Give this node a state_dir of its own")


def test_a_record_that_cannot_be_read_is_a_weakness(here: Path) -> None:
    (here / "state").mkdir()
    (here / "state" / "record.json").write_text("{")

    (finding,) = host.of_state_dir(settings_in(here))

    assert finding.level is Level.WARNING
    assert "an agent sets it aside and first waits for heartbeat_timeout" in finding.sentence


def test_a_record_of_a_newer_version(here: Path) -> None:
    (here / "state").mkdir()
    (here / "state" / "record.json").write_text('{"schema": 99}')

    (finding,) = host.of_state_dir(settings_in(here))

    assert (finding.level, finding.fix) == (
        Level.ERROR,
        "Install the version that wrote it, or a newer one.",
    )


def test_a_state_dir_that_cannot_be_written_to(here: Path) -> None:
    (here / "state").write_text("a file")

    (finding,) = host.of_state_dir(settings_in(here))

    assert finding.level is Level.ERROR
    assert finding.sentence == f"{here}/state cannot be written to (Not a directory)"


def test_a_disk_that_is_full_takes_files_but_no_bytes(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    (finding,) = host.of_state_dir(settings_in(here))

    assert finding.level is Level.ERROR
    assert "(it cannot be made in " in finding.sentence
    assert finding.sentence.endswith(": No space left on device)")
    assert "[primary] state_dir names another folder" in finding.fix


def test_a_state_dir_that_cannot_be_made(here: Path) -> None:
    settings = settings_in(here)
    (here / "state").symlink_to("/proc/nowhere/state")

    (finding,) = host.of_state_dir(settings)

    assert finding.level is Level.ERROR


def test_a_control_socket_that_can_be_made_is_not_made(here: Path) -> None:
    (finding,) = host.of_control_socket(here / "run" / "fa.sock", None)

    assert (finding.level, finding.sentence) == (Level.OK, f"{here}/run/fa.sock can be made")
    assert not (here / "run").exists()


def test_a_control_socket_at_the_place_of_a_file(here: Path) -> None:
    (here / "fa.sock").write_text("")

    (finding,) = host.of_control_socket(here / "fa.sock", None)

    assert finding.level is Level.ERROR
    assert finding.fix == f"rm {here}/fa.sock, or name another control_socket"


def test_a_control_socket_that_cannot_be_made() -> None:
    (finding,) = host.of_control_socket(Path("/proc/nowhere/fa.sock"), None)

    assert finding.level is Level.ERROR


def test_a_port_that_is_free_ours_or_taken(here: Path) -> None:
    port = free_port()
    settings = settings_in(here, node_keys=f"port = {port}")

    (free,) = host.of_port(settings, None)
    with socket.create_server(("127.0.0.1", port)):
        (ours,) = host.of_port(settings, STATUS)
        (taken,) = host.of_port(settings, None)
        (others,) = host.of_port(settings, {**STATUS, "role": "backup"})

    assert free == Finding(Level.OK, "port", f"127.0.0.1:{port} is free")
    assert ours.sentence == f"127.0.0.1:{port} is held by the agent (pid 4711)"
    assert taken == others
    assert taken == Finding(
        Level.ERROR,
        "port",
        f"[primary] port = {port}: another program already listens on 127.0.0.1:{port}",
        f"`ss -ltnp sport = :{port}` names it: end it, or choose another port here and in the "
        "other node's endpoint.",
    )


def test_an_address_that_is_not_of_this_host(here: Path) -> None:
    settings = settings_in(here)
    keys = settings.keys.model_copy(
        update={"primary": settings.keys.primary.model_copy(update={"bind": "192.0.2.1"})}
    )
    settings = replace(settings, configuration=replace(settings.configuration, keys=keys))

    (finding,) = host.of_port(settings, None)

    assert finding.level is Level.ERROR
    assert finding.sentence.startswith("192.0.2.1:8000 cannot be listened on (")
    assert finding.fix.startswith('[primary] bind = "0.0.0.0" listens on every address')


def test_the_alarms_of_the_agent_are_weaknesses() -> None:
    alarm = {"code": "settings_differ", "sentence": "they differ: heartbeat_timeout", "since_s": 1}

    findings = list(service.of_agent({**STATUS, "alarms": [alarm]}))

    assert findings[0].level is Level.OK
    assert findings[1] == Finding(
        Level.WARNING, "alarm", "settings_differ: they differ: heartbeat_timeout"
    )


# --- all together -------------------------------------------------------------------------------


def of(*levels: Level) -> list[Finding]:
    return [Finding(level, "subject", "sentence") for level in levels]


@pytest.mark.parametrize(
    ("levels", "code"),
    [
        ((), ExitCode.FINE),
        ((Level.OK, Level.HINT), ExitCode.FINE),
        ((Level.HINT, Level.WARNING), ExitCode.DEGRADED),
        ((Level.WARNING, Level.ERROR), ExitCode.FAILED),
    ],
)
def test_the_worst_finding_decides_the_exit_code(levels: tuple[Level, ...], code: ExitCode) -> None:
    assert checks.exit_code(of(*levels)) is code


async def test_everything_is_looked_at(here: Path) -> None:
    port = free_port()
    async with (
        recorded_engine(here, db="inspect-running", web="inspect-exited-0"),
        listening(backup(here)) as other,
    ):
        settings = settings_in(here, endpoint=other.endpoint, node_keys=f"port = {port}")
        report = await checks.find_all(settings, None)

    assert report.bounds is not None
    subjects = [finding.subject for finding in report.findings]
    assert list(dict.fromkeys(subjects)) == [
        "configuration",
        "ports",
        "partition",
        "engine",
        "live-restore",
        "container db",
        "container web",
        "peer",
        "record",
        "control_socket",
        "port",
        "containers",
        "agent",
    ]


@pytest.mark.parametrize(
    ("level", "beside", "verdict"),
    [
        (Level.HINT, (), "1 hint: fit to start; no agent runs here."),
        (
            Level.WARNING,
            (),
            "1 warning: fit to start, with weaknesses; no agent runs here.",
        ),
        (
            Level.HINT,
            (Level.ERROR,),
            "1 error, 1 hint: as it stands this node would not do its part.",
        ),
    ],
)
def test_a_host_without_an_agent_is_at_best_fit_to_start(
    level: Level, beside: tuple[Level, ...], verdict: str
) -> None:
    findings = [*of(*beside), Finding(level, "agent", "none runs on this host yet")]

    assert check.summary(findings, checks.exit_code(findings)) == f"\n{verdict}"


def test_what_is_found_of_the_agent_decides_whether_one_runs(here: Path) -> None:
    none = list(service.find(settings_in(here), None, (), None))
    runs = list(service.find(settings_in(here), STATUS, (), None))

    assert check.summary(none, ExitCode.FINE).endswith("no agent runs here.")
    assert check.summary(runs, ExitCode.FINE) == "\nall is well."


SHOWN = """\
ok       engine: unix:///x answers
ERROR    container web: there is no such container on this host, which is a
         sentence of more than one line
         -> docker create --name web IMAGE, as on the other host; a line to copy stays one line
warning  peer: it is silent"""


def test_findings_fit_the_screen_and_a_fix_stays_one_line() -> None:
    findings = [
        Finding(Level.OK, "engine", "unix:///x answers"),
        Finding(
            Level.ERROR,
            "container web",
            "there is no such container on this host, which is a sentence of more than one line",
            "docker create --name web IMAGE, as on the other host; a line to copy stays one line",
        ),
        Finding(Level.WARNING, "peer", "it is silent"),
    ]

    assert check.render(findings, Paint()) == SHOWN
    assert check.summary(findings, ExitCode.FAILED) == (
        "\n1 error, 1 warning: as it stands this node would not do its part."
    )
    assert check.summary([], ExitCode.FINE) == "\nall is well."
    weak = of(Level.WARNING)
    assert check.summary(weak, ExitCode.DEGRADED) == "\n1 warning: it works, with weaknesses."
    table = Bounds("What these timings give:", (("host dies", "within 10.3 s"), ("", "1 s more")))
    assert check.render_bounds(table) == (
        "\nWhat these timings give:\n  host dies  within 10.3 s\n             1 s more"
    )
    for line in check.render(findings, Paint()).splitlines():
        assert len(line) <= output.WIDTH or "-> " in line
