"""The command line, mostly as people meet it: a process, its output and its exit code."""

import asyncio
import json
import os
import pty
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from failover_agent import __version__, config
from failover_agent.adapters.record import Host, Record, RecordStore
from failover_agent.cli import control, disk, output, status
from failover_agent.cli.main import main
from failover_agent.cli.output import Paint
from failover_agent.core.policy import Role
from failover_agent.core.state import Durable, Holder
from tests.lab.until import until_async

LIMIT_S = 30.0

FINE: Mapping[str, Any] = {
    "cluster": "shop",
    "role": "primary",
    "phase": "active",
    "term": 7,
    "reason": "first_start",
    "since_s": 812.4,
    "version": "0.1.0",
    "protocol": 1,
    "paused": None,
    "drained": None,
    "held": None,
    "lease": {"required": False, "held": None, "remaining_s": None, "votes": []},
    "ready": True,
    "not_ready_because": [],
    "failed_because": None,
    "peer": {
        "role": "backup",
        "reachable": True,
        "phase": "standby",
        "term": 7,
        "heartbeat_age_s": 0.4,
        "ready": True,
        "not_ready_because": [],
    },
    "arbiter": None,
    "containers": [
        {"name": "db", "state": "up", "detail": "running", "down_for_s": None, "restarts": 0},
        {
            "name": "web",
            "state": "up",
            "detail": "running (healthy)",
            "down_for_s": None,
            "restarts": 2,
        },
    ],
    "redundancy": {"ok": True, "lost_because": []},
    "alarms": [],
    "overlap": None,
    "waits": None,
    "left_running": [],
    "pid": 4711,
}

HISTORY = [
    {
        "wall": "2026-11-22T03:04:05.123Z",
        "from": "standby",
        "to": "acquiring",
        "reason": "peer_silent",
        "term": 7,
        "rule": "H0",
        "sentence": "asks for leave to run the service (nothing was heard from the peer for "
        "heartbeat_timeout)",
    },
    {
        "wall": "2026-11-22T03:04:06.000Z",
        "from": "promoting",
        "to": "active",
        "reason": "peer_silent",
        "term": 8,
        "rule": "start",
        "sentence": "all containers are started",
    },
]


@dataclass
class Agent:
    """A server on a control socket that says what it is told to, and notes what it was asked."""

    socket: Path
    status: Mapping[str, Any] = field(default_factory=lambda: dict(FINE))
    reply: Mapping[str, Any] = field(
        default_factory=lambda: {"accepted": True, "sentence": "Taking over."}
    )
    code: int = 200
    asked: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Agent"]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.UnixSite(runner, str(self.socket)).start()
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, http: web.Request) -> web.Response:
        self.asked.append(f"{http.method} {http.path_qs} {await http.text()}".strip())
        answers = {"/v1/status": self.status, "/v1/history": {"history": HISTORY}}
        return web.json_response(answers.get(http.path, self.reply), status=self.code)


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in os.environ.keys() - environment().keys():
        monkeypatch.delenv(name)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def here() -> Iterator[Path]:
    """A folder with a name that is short enough for a socket in it."""
    with tempfile.TemporaryDirectory(prefix="fa-") as folder:
        yield Path(folder)


@pytest.fixture
def agent(here: Path) -> Agent:
    return Agent(here / "shop.sock")


def pair_in(here: Path) -> Path:
    """A configuration whose files are all in `here`."""
    path = here / "config.toml"
    node = f'state_dir = "{here}/state"\ncontrol_socket = "{here}/shop.sock"\n'
    path.write_text(
        'cluster = "shop"\ncontainers = ["db", "web"]\n'
        f'[primary]\nendpoint = "http://127.0.0.1:2"\n{node}'
        f'[backup]\nendpoint = "http://127.0.0.1:1"\n{node}'
        '[security]\nsecret = "sixteen letters!"\n'
    )
    return path


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FAILOVER_AGENT", "DOCKER"))}
    return {**kept, "TZ": "UTC", "PYTHONUNBUFFERED": "1"}


async def start(*arguments: object) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "failover_agent.cli.main",
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )


async def process(*arguments: object) -> Done:
    """As people meet it, exit code and all."""
    started = await start(*arguments)
    async with asyncio.timeout(LIMIT_S):
        out, err = await started.communicate()
    assert "Traceback" not in err.decode()
    return Done(started.returncode or 0, out.decode(), err.decode())


async def run(*arguments: object) -> Done:
    """The same within this process, which is ten times faster."""

    def call() -> Done:
        with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
            code = main([*map(str, arguments)])
        return Done(code, out.getvalue(), err.getvalue())

    return await asyncio.to_thread(call)


def changed(**parts: Any) -> dict[str, Any]:
    """FINE with other parts; a mapping is merged."""
    return {
        **FINE,
        **{k: {**FINE[k], **v} if isinstance(v, dict) and FINE[k] else v for k, v in parts.items()},
    }


# --- the program --------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
async def test_the_version(arguments: list[str]) -> None:
    assert await process(*arguments) == Done(0, f"failover-agent {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments", [["version"], ["--help"], ["run", "--help"], ["status", "--socket", "/none"]]
)
def test_a_command_loads_what_it_needs_and_no_more(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom failover_agent.cli.main import main\n"
        f"try:\n    main({arguments})\nexcept SystemExit:\n    pass\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )

    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=LIMIT_S
    )

    loaded = set(shown.stdout.splitlines()[-1].split())
    assert "argparse" in loaded
    assert loaded & {"aiohttp", "aiodocker", "pydantic", "pydantic_settings"} == set()


async def test_the_help_names_every_command_and_exit_code_within_80_columns() -> None:
    done = await process("--help")

    assert done.code == 0
    for word in "run init check status history takeover resume version".split():
        assert f"\n    {word} " in done.out
    assert "0 fine, 1 failed, 2 usage or configuration, 3 degraded, 4 no agent" in done.out
    assert max(map(len, done.out.splitlines())) <= output.WIDTH


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["stauts"],
        ["run", "--rol", "primary", "--nonsense"],
        ["status", "--json", "--watch"],
        ["history", "--limit", "0"],
        ["history", "--limit", "1001"],
        ["history", "--limit", "many"],
    ],
)
async def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    done = await process(*arguments)

    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("usage: failover-agent")


@pytest.mark.parametrize("command", ["run", "check"])
async def test_all_that_is_wrong_with_a_configuration_is_told_at_once(
    command: str, here: Path
) -> None:
    path = pair_in(here)
    path.write_text(path.read_text().replace("containers", "hartbeat_timeout = 5\ncontainrs"))

    done = await process(command, "--role", "master", "--config", path)

    assert done.code == 2
    assert done.err.splitlines() == [
        (
            '--role: "master" is not a role. It is primary on one host, backup on the other, and '
            "witness on a third, where there is one."
        ),
        f"{path}: hartbeat_timeout is not a setting. Did you mean heartbeat_timeout?",
        f"{path}: containrs is not a setting. Did you mean containers?",
    ]


async def test_a_missing_configuration_says_how_to_write_one() -> None:
    done = await process("run", "--role", "primary", "--config", "/nowhere/config.toml")

    assert done.code == 2
    assert "`failover-agent init --primary HOST" in done.err


# --- status -------------------------------------------------------------------------------------


ALL_IS_WELL = """\
shop: ACTIVE on this node (primary), term 7, for 13 min; standby backup is ready

  CONTAINER  STATE  DOWN FOR  RESTARTS  DETAIL
  db         up               0         running
  web        up               2         running (healthy)

  reason      first_start: the first start of this pair
  peer        backup, standby, term 7, heard 0.4 s ago, ready
  agent       version 0.1.0, pid 4711
"""


async def test_the_status_of_a_pair_that_is_well(agent: Agent) -> None:
    async with agent.listening():
        assert await process("status", "--socket", agent.socket) == Done(0, ALL_IS_WELL, "")
    assert agent.asked == ["GET /v1/status"]


NOT_WELL = """\
shop: ACTIVE on this node (primary), term 7, for 13 min;
  standby backup is NOT READY

  CONTAINER  STATE  DOWN FOR  RESTARTS  DETAIL
  db         up               0         running
  web        down   12 s      2         exited (137), OOM killed: the cgroup...

  reason      container_down: a container stayed down for restart_grace_period
  peer        backup, standby, term 7, heard 2 min 5 s ago, not ready:
              - web: no such container
              - the Docker Engine does not answer: nobody listens there: the
                engine is not running
  agent       version 0.1.0, pid 4711

  ALARM redundancy_lost, for 2 d
    the backup is not ready: web: no such container; the Docker Engine does not
    answer: nobody listens there: the engine is not running

  ALARM container_down, for 9.0 s
    down beyond restart_grace_period: web
"""


async def test_the_status_of_a_pair_that_is_not_well(agent: Agent) -> None:
    because = [
        "web: no such container",
        "the Docker Engine does not answer: nobody listens there: the engine is not running",
    ]
    web_down = {
        "name": "web",
        "state": "down",
        "detail": "exited (137), OOM killed: the cgroup had no memory left for it",
        "down_for_s": 12.3,
        "restarts": 2,
    }
    lost = f"the backup is not ready: {'; '.join(because)}"
    agent.status = changed(
        reason="container_down",
        containers=[FINE["containers"][0], web_down],
        peer={"ready": False, "not_ready_because": because, "heartbeat_age_s": 125.0},
        redundancy={"ok": False, "lost_because": [lost]},
        alarms=[
            {"code": "redundancy_lost", "sentence": lost, "since_s": 172900.0},
            {
                "code": "container_down",
                "sentence": "down beyond restart_grace_period: web",
                "since_s": 9.0,
            },
        ],
    )

    async with agent.listening():
        assert await process("status", "--socket", agent.socket) == Done(3, NOT_WELL, "")


STANDBY = """\
shop: ACTIVE on the primary, term 7;
  this node (backup) is standby and ready, for 13 min

  CONTAINER  STATE    DOWN FOR  RESTARTS  DETAIL
  db         stopped            0         exited (0)

  reason      peer_active: the peer is active
  peer        primary, active, term 7, heard 0.4 s ago
  agent       version 0.1.0, pid 4711"""


def standby(**parts: Any) -> dict[str, Any]:
    return changed(
        **{
            "role": "backup",
            "phase": "standby",
            "reason": "peer_active",
            "peer": {"role": "primary", "phase": "active", "ready": None},
            "containers": [
                {
                    "name": "db",
                    "state": "down",
                    "detail": "exited (0)",
                    "down_for_s": 812.0,
                    "restarts": 0,
                }
            ],
        }
        | parts
    )


def test_the_status_of_a_standby() -> None:
    assert status.render(standby(), Paint()) == STANDBY
    assert status.exit_code(standby()) == 0


NEVER_HEARD = {
    "role": "primary",
    "reachable": False,
    "phase": None,
    "term": None,
    "heartbeat_age_s": None,
    "ready": None,
    "not_ready_because": None,
}


def starting(**parts: Any) -> dict[str, Any]:
    """Its service ran before there were agents, and the other agent has yet to come."""
    return changed(
        **{
            "phase": "starting",
            "reason": "agent_started",
            "since_s": 5.8,
            "peer": {**NEVER_HEARD, "role": "backup"},
            "waits": {"for": "backup", "setting": "startup_grace_period", "remaining_s": 14.2},
            "left_running": ["db", "web"],
        }
        | parts
    )


@pytest.mark.parametrize(
    ("told", "headline"),
    [
        (
            changed(peer={**NEVER_HEARD, "role": "backup"}),
            "shop: ACTIVE on this node (primary), term 7, for 13 min; backup was NEVER HEARD",
        ),
        (
            changed(peer={"reachable": False}),
            "shop: ACTIVE on this node (primary), term 7, for 13 min; backup is SILENT",
        ),
        (
            changed(peer={"phase": "active"}),
            "shop: ACTIVE on this node (primary), term 7, for 13 min; backup is ACTIVE TOO",
        ),
        (
            changed(phase="failed"),
            "shop: FAILED on this node (primary), term 7, for 13 min; standby backup is ready",
        ),
        (
            changed(phase="promoting", since_s=3.21),
            "shop: promoting on this node (primary), term 7, for 3.2 s; standby backup is ready",
        ),
        (
            standby(ready=False),
            (
                "shop: ACTIVE on the primary, term 7; "
                "this node (backup) is standby but NOT READY, for 13 min"
            ),
        ),
        (
            standby(peer={"role": "primary", "phase": "active", "reachable": False}),
            (
                "shop: ACTIVE on the primary, term 7, but SILENT; "
                "this node (backup) is standby and ready, for 13 min"
            ),
        ),
        (
            standby(phase="starting", peer=NEVER_HEARD),
            "shop: NOBODY is seen to be active; this node (backup) is starting, for 13 min",
        ),
        (
            starting(),
            (
                "shop: waits to hear the backup (startup_grace_period, 14 s left); "
                "this node (primary) is starting, and what runs here goes on running"
            ),
        ),
        (
            starting(left_running=[], containers=[]),
            (
                "shop: NOBODY is seen to be active; "
                "this node (primary) waits to hear the backup (startup_grace_period, 14 s left)"
            ),
        ),
        (
            starting(waits={"for": "backup", "setting": "lone_start", "remaining_s": None}),
            (
                "shop: waits to hear the backup (lone_start); "
                "this node (primary) is starting, and what runs here goes on running"
            ),
        ),
        (
            starting(phase="standby", waits=None),
            (
                "shop: nobody leads yet, but what runs here is left running; "
                "this node (primary) is standby and ready, for 5.8 s"
            ),
        ),
        (
            standby(peer={"role": "primary", "phase": "standby", "running": 2}),
            (
                "shop: nobody leads yet, but containers run on the primary; "
                "this node (backup) is standby and ready, for 13 min"
            ),
        ),
        (
            standby(
                peer={"role": "primary", "phase": "standby", "running": 2},
                containers=FINE["containers"],
            ),
            (
                "shop: nobody leads, and containers run on BOTH nodes; "
                "this node (backup) is standby and ready, for 13 min"
            ),
        ),
        (
            standby(
                peer={"role": "primary", "phase": "standby", "running": 2},
                containers=[{**FINE["containers"][0], "state": "unknown"}],
            ),
            (
                "shop: nobody leads yet, but containers run on the primary; "
                "this node (backup) is standby and ready, for 13 min"
            ),
        ),
        (
            standby(peer={"role": "primary", "phase": "standby", "running": 2, "reachable": False}),
            (
                "shop: NOBODY is seen to be active; "
                "this node (backup) is standby and ready, for 13 min"
            ),
        ),
    ],
)
def test_the_first_line_says_what_matters(told: dict[str, Any], headline: str) -> None:
    assert status.headline(told) == headline


@pytest.mark.parametrize(
    "told",
    [
        changed(phase="promoting"),
        changed(phase="failed", failed_because="web: no such image"),
        changed(redundancy={"ok": False, "lost_because": ["the backup is not heard"]}),
        changed(alarms=[{"code": "settings_differ", "sentence": "they differ", "since_s": None}]),
        changed(containers=[{**FINE["containers"][0], "state": "unknown"}]),
        changed(held={"by": None, "since_s": None}),
        changed(overlap={"since_s": 400.0, "lasted_s": 2.25}),
        changed(overlap={"since_s": 4.0, "lasted_s": None}),
        changed(reason="a_reason_of_a_newer_version"),
        changed(peer=None),
        standby(ready=False, not_ready_because=["web: no such container"]),
        standby(phase="starting", peer=NEVER_HEARD),
        starting(),
        starting(phase="standby", waits=None),
        changed(cluster="c" * 63),
    ],
)
def test_every_status_fits_the_screen_and_the_first_line_stands_alone(told: dict[str, Any]) -> None:
    lines = status.render(told, Paint()).splitlines()

    assert max(map(len, lines)) <= output.WIDTH
    assert lines[0].startswith(told["cluster"][:60])
    for sentence in [*told["redundancy"]["lost_because"], *told["not_ready_because"]]:
        assert sentence in " ".join(" ".join(lines).split())


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (dict(FINE), 0),
        (standby(), 0),
        (changed(phase="promoting"), 3),
        (changed(phase="demoting"), 3),
        (changed(phase="failed"), 3),
        (changed(redundancy={"ok": False}), 3),
        (changed(alarms=[{"code": "x", "sentence": "y", "since_s": 1}]), 3),
        (changed(containers=[{**FINE["containers"][0], "state": "down"}]), 3),
        (standby(peer={"phase": "standby"}), 3),
        (standby(phase="starting"), 3),
    ],
)
def test_the_exit_code_of_a_status(told: dict[str, Any], code: int) -> None:
    assert status.exit_code(told) == code


SILENT = """\
  peer        backup, last heard 9.1 s ago: it was active, term 3. The
              connection is refused, so its host is up and its agent is not: the
              containers may run there. On that host: systemctl start
              failover-agent
"""


def test_of_a_silent_peer_is_told_what_it_was_and_whether_its_host_is_up() -> None:
    peer = {"reachable": False, "phase": "active", "term": 3, "heartbeat_age_s": 9.1}
    refused = "no connection to http://10.0.0.2:8000: Connection refused"

    assert SILENT in status.render(changed(peer={**peer, "error": refused}), Paint())
    unheard = status.render(changed(peer={**peer, "error": "does not answer in time"}), Paint())
    assert "  backup, last heard 9.1 s ago: it was active, term 3\n" in unheard
    never = status.render(changed(peer={**NEVER_HEARD, "error": refused}), Paint())
    assert "primary, never heard. The connection is refused" in never


GONE_IN_GOOD_ORDER = """\
  peer        primary, last heard 13 s ago: it was standby, term 4, and had
              stopped all containers and given term 3 back. The connection is
              refused, so its host is up and its agent is not. On that host:
              systemctl start failover-agent
"""


def test_of_a_peer_that_went_in_good_order_no_more_is_feared_than_is_so() -> None:
    peer = {
        "role": "primary",
        "reachable": False,
        "phase": "standby",
        "term": 4,
        "heartbeat_age_s": 13.2,
        "running": 0,
        "released_term": 3,
        "ending": True,
        "error": "no connection to http://10.0.0.1:8000: Connection refused",
    }

    def told(**parts: Any) -> str:
        text = status.render(changed(peer={**peer, **parts}), Paint())
        return " ".join(text.split())

    assert GONE_IN_GOOD_ORDER in status.render(changed(peer=peer), Paint())
    assert "primary, never heard. The connection" in told(phase=None, term=None)
    for unknown in ({"running": None}, {"running": 1}, {"ending": False}):
        assert "term 4. The connection is refused" in told(**unknown)
        assert "its agent is not: the containers may run there. On that host" in told(**unknown)


def test_what_is_left_running_while_nobody_leads_is_no_outage() -> None:
    whole = status.render(starting(), Paint(is_on=True))
    down = {**FINE["containers"][1], "state": "down"}
    parted = status.render(
        starting(left_running=["db"], containers=[FINE["containers"][0], down]), Paint(is_on=True)
    )

    assert whole.startswith("\x1b[1;33mshop: waits to hear")
    assert parted.startswith("\x1b[1;31mshop: waits to hear")
    assert status.exit_code(starting()) == 3


def test_why_a_node_failed_is_told_once() -> None:
    cause = "web did not start"
    alarm = {"code": "failed", "sentence": f"failed: {cause}", "since_s": 1}
    failed = changed(phase="failed", failed_because=cause)

    assert status.render(failed, Paint()).count(cause) == 1
    assert status.render({**failed, "alarms": [alarm]}, Paint()).count(cause) == 1


def test_why_nobody_is_active_is_told() -> None:
    text = status.render(
        standby(phase="standby", refused_because="the primary refused: promised"), Paint()
    )

    assert "  asked       to run the service, but the primary refused: promised\n" in text


LAN, CABLE = "http://10.0.0.2:8000", "http://192.168.100.2:8000"


def way(endpoint: str, reachable: bool | None, **told: Any) -> dict[str, Any]:
    return {
        "endpoint": endpoint,
        "reachable": reachable,
        "silent_for_s": None,
        "error": None,
        **told,
    }


def test_the_ways_to_the_peer_are_shown_where_there_is_more_than_one() -> None:
    silent = way(CABLE, False, silent_for_s=72.0, error=f"no connection to {CABLE}: No route")
    peer = {**FINE["peer"], "paths": [way(LAN, True), silent]}

    text = status.render(changed(peer=peer), Paint())

    assert (
        f"              - {LAN} answers\n"
        f"              - {CABLE} is SILENT for 72 s: no connection to\n"
        f"                {CABLE}: No route\n"
    ) in text
    assert max(map(len, text.splitlines())) <= output.WIDTH
    unknown = {**FINE["peer"], "paths": [way(LAN, None), way(CABLE, False, error="no")]}
    text = status.render(changed(peer=unknown), Paint())
    assert f"- {LAN}: nothing known yet\n" in text
    assert f"- {CABLE} is SILENT: no\n" in text
    one = {**FINE["peer"], "paths": [way(LAN, True)]}
    assert LAN not in status.render(changed(peer=one), Paint())


def test_the_ways_to_a_witness_are_shown_too() -> None:
    paths = [way(LAN, True), way(CABLE, True)]
    arbiter = {"kind": "witness", "reachable": True, "error": None, "paths": paths}

    text = status.render(changed(arbiter=arbiter), Paint())

    assert f"- {LAN} answers\n" in text
    assert f"- {CABLE} answers\n" in text


async def test_config_and_role_may_stand_before_the_command(agent: Agent, here: Path) -> None:
    path = pair_in(here)

    async with agent.listening():
        before = await run("--config", path, "--role", "primary", "status")
        behind = await run("--config", "/nowhere", "status", "--config", path)

    assert (before.code, behind.code) == (0, 0)


async def test_the_status_as_json_is_what_the_agent_said(agent: Agent) -> None:
    agent.status = changed(redundancy={"ok": False})

    async with agent.listening():
        done = await run("status", "--json", "--socket", agent.socket)

    assert (done.code, json.loads(done.out)) == (3, agent.status)


async def test_without_a_role_the_agent_of_this_host_is_found_all_the_same(
    agent: Agent, here: Path
) -> None:
    path = pair_in(here)
    text = path.read_text().replace("shop.sock", "nobody.sock", 1)  # that of the primary
    path.write_text(text)

    async with agent.listening():
        found = await run("status", "--config", path)
        asked_for_another = await run("status", "--config", path, "--role", "primary")

    assert (found.code, asked_for_another.code) == (0, 4)


async def test_a_broken_configuration_points_to_the_socket(agent: Agent, here: Path) -> None:
    path = pair_in(here)
    path.write_text("x = ")

    async with agent.listening():
        done = await run("status", "--config", path)

    assert done.code == 2
    assert "name its socket with --socket" in done.err


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What is started in the background of a shell ignores SIGINT, and so do its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
async def test_watching_redraws_until_it_is_interrupted(agent: Agent) -> None:
    async with agent.listening():
        watching = await start("status", "--watch", "--socket", agent.socket)
        assert watching.stdout is not None

        async def asked_again() -> bool:
            return len(agent.asked) >= 3

        await until_async(asked_again, LIMIT_S)
        watching.send_signal(signal.SIGINT)
        async with asyncio.timeout(LIMIT_S):
            out, err = await watching.communicate()

    assert (watching.returncode, err) == (0, b"")
    assert out.decode().startswith(ALL_IS_WELL * 2)


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    controller, terminal = pty.openpty()
    try:
        with os.fdopen(terminal, "w") as stream, Path(os.devnull).open("w") as nothing:
            assert Paint.of(stream)("x", "bold", "red") == "\x1b[1;31mx\x1b[0m"
            assert Paint.of(nothing)("x", "bold", "red") == "x"
            monkeypatch.setenv("NO_COLOR", "1")
            assert Paint.of(stream)("x", "bold", "red") == "x"
    finally:
        os.close(controller)

    painted = status.render(
        changed(alarms=[{"code": "x", "sentence": "y", "since_s": 1}]), Paint(is_on=True)
    )
    assert painted.startswith("\x1b[1;33mshop: ACTIVE")


def test_what_an_engine_or_a_peer_says_does_not_command_the_terminal() -> None:
    nasty = "\x1b[2Jgone\n\u202eevil"
    told = changed(
        containers=[{**FINE["containers"][0], "name": nasty, "detail": nasty}],
        peer={"ready": False, "not_ready_because": [nasty]},
        alarms=[{"code": nasty, "sentence": nasty, "since_s": 1}],
    )

    text = status.render(told, Paint())

    assert "\x1b" not in text
    assert "\u202e" not in text


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.9, "59 s"),
        (119.9, "119 s"),
        (120, "2 min"),
        (125, "2 min 5 s"),
        (812.4, "13 min"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (86399, "23 h"),
        (86400, "1 d"),
        (90000, "1 d 1 h"),
        (864000000, "10000 d"),
    ],
)
def test_a_length_of_time_as_people_say_it(seconds: float, told: str) -> None:
    assert output.length(seconds) == told


# --- where nobody answers -----------------------------------------------------------------------


def record_in(here: Path, durable: Durable) -> str:
    store = RecordStore.open(
        here / "state", cluster="shop", role=Role.PRIMARY, host=Host("", ""), deadline_s=5
    )
    try:
        mine = Holder(Role.PRIMARY, store.node_id)
        holder = durable.holder and replace(mine, role=durable.holder.role)
        asyncio.run(store.save(replace(durable, holder=holder)))
        return store.node_id
    finally:
        store.close()


def journal_in(here: Path) -> None:
    lines = [
        json.dumps(
            {
                "wall": entry["wall"],
                "transitions": [{k: v for k, v in entry.items() if k != "wall"}],
            }
        )
        for entry in HISTORY
    ]
    text = "\n".join([*lines, '{"wall": "cut of', ""]).replace('"transitions": ', '"transitions":')
    (here / "state" / "journal.jsonl").write_text(text)


FROM_DISK = """\
From disk ({state}):
  shop, primary: this node led in term 7 when its agent last ran: its containers
  may run here
  the last change:
    2026-11-22 03:04:06 UTC  term 8  promoting -> active  (peer_silent)
        all containers are started
"""


async def test_where_no_agent_answers_the_disk_is_asked(here: Path) -> None:
    path = pair_in(here)
    await asyncio.to_thread(
        record_in, here, Durable(term=7, holder=Holder(Role.PRIMARY, ""), released=False, led=True)
    )
    journal_in(here)

    done = await process("status", "--config", path)
    as_json = await process("status", "--config", path, "--json")

    assert (done.code, done.out) == (4, FROM_DISK.format(state=here / "state"))
    assert done.err.startswith(
        f"{here}/shop.sock: no agent answers (No such file or directory). See"
    )
    assert as_json.code == 4
    assert json.loads(as_json.out)["known"] == [
        {
            "state_dir": str(here / "state"),
            "problem": None,
            "cluster": "shop",
            "role": "primary",
            "term": 7,
            "holder": "primary",
            "released": False,
            "held": False,
            "last_transition": HISTORY[-1],
        }
    ]


MINE, OTHER = Holder(Role.PRIMARY, "aa"), Holder(Role.BACKUP, "bb")
WITNESS = Holder(Role.WITNESS, "ww")
STOPPED = {**HISTORY[-1], "to": "standby", "reason": "all_stopped", "term": 3}


@pytest.mark.parametrize(
    ("me", "durable", "last", "sentence"),
    [
        (MINE, Durable(), None, "no term was granted yet"),
        (
            MINE,
            Durable(4, OTHER, released=False),
            STOPPED,
            (
                "stopped here in good order (term 3 released); the backup held term 4 when this "
                "agent last ran"
            ),
        ),
        (
            MINE,
            Durable(4, OTHER, released=False),
            HISTORY[-1],
            "the backup held term 4 when this agent last ran",
        ),
        (
            MINE,
            Durable(4, OTHER, released=True),
            None,
            "the backup gave term 4 back",
        ),
        (
            MINE,
            Durable(4, OTHER, released=False, hold=True),
            None,
            (
                "the backup held term 4 when this agent last ran, and left its containers running "
                "(on hold)"
            ),
        ),
        (
            MINE,
            Durable(3, MINE, released=True, led=True),
            STOPPED,
            "stopped here in good order (term 3 released)",
        ),
        (MINE, Durable(3, MINE, released=True, led=True), None, "this node gave term 3 back"),
        (
            MINE,
            Durable(3, MINE, released=False, led=True),
            None,
            "this node led in term 3 when its agent last ran: its containers may run here",
        ),
        (
            MINE,
            Durable(3, MINE, released=False),
            None,
            "this node asked for term 3 when its agent last ran",
        ),
        (
            WITNESS,
            Durable(4, OTHER, released=False),
            None,
            "the backup held term 4 when this agent last ran",
        ),
    ],
)
def test_the_disk_is_told_in_words_and_no_more_than_is_known(
    me: Holder, durable: Durable, last: dict[str, Any] | None, sentence: str
) -> None:
    record = Record("shop", me.role, me.node_id, Host("", ""), durable)

    told = disk.lines(disk.Known(Path("/state"), record, "", last))

    first = " ".join(" ".join(told).partition(" the last change:")[0].split())
    assert first == f"From disk (/state): shop, {me.role}: {sentence}"


async def test_where_there_is_nothing_on_disk_either(here: Path) -> None:
    done = await run("status", "--config", pair_in(here))

    assert (done.code, done.out) == (
        4,
        f"From disk ({here}/state):\n  no record: no agent has run here yet\n",
    )


async def test_a_damaged_record_is_told_and_not_raised(here: Path) -> None:
    (here / "state").mkdir()
    (here / "state" / "record.json").write_text("{")

    done = await run("status", "--config", pair_in(here))

    assert done.code == 4
    assert "the record cannot be read" in done.out


@pytest.mark.parametrize("command", ["status", "history", "resume"])
async def test_a_socket_that_is_not_for_us_is_not_taken_for_a_missing_agent(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def denied(self: control._UnixConnection) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(control._UnixConnection, "connect", denied)  # as root nothing is denied
    done = await run(command, "--socket", agent.socket)

    assert (done.code, done.out) == (1, "")
    assert done.err.strip() == (
        f"{agent.socket}: this user (uid {os.geteuid()}) may not speak to the agent. The socket is "
        "for the user that the agent runs as: try again with sudo."
    )


async def test_a_socket_without_an_agent_is_refused(agent: Agent) -> None:
    async with agent.listening():
        pass
    agent.socket.touch()

    done = await run("resume", "--socket", agent.socket)

    assert (done.code, done.out) == (4, "")
    assert done.err.startswith(f"{agent.socket}: no agent answers (Connection refused). ")


def test_an_agent_that_is_frozen_does_not_freeze_the_command(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(control, "ANSWER_S", 0.2)
    with socket.socket(socket.AF_UNIX) as frozen:
        frozen.bind(str(agent.socket))
        frozen.listen()
        code = main(["status", "--socket", str(agent.socket)])

    assert code == 4
    assert "it listens, but says nothing for 0.2 s" in capsys.readouterr().err


async def test_an_agent_that_answers_with_an_error(agent: Agent) -> None:
    agent.code, agent.status = 503, {"error": "no_decision", "detail": "not in time"}

    async with agent.listening():
        done = await run("status", "--socket", agent.socket)

    assert (done.code, done.out) == (1, "")
    assert "the agent answered 503 Service Unavailable to /v1/status: " in done.err


# --- history ------------------------------------------------------------------------------------


HISTORY_SHOWN = """\
What the agent of this host did; the other one has a history of its own.

2026-11-22 03:04:05 UTC  term 7  standby -> acquiring  (peer_silent)
    asks for leave to run the service (nothing was heard from the peer for
    heartbeat_timeout)
2026-11-22 03:04:06 UTC  term 8  promoting -> active  (peer_silent)
    all containers are started
"""


async def test_the_history(agent: Agent) -> None:
    async with agent.listening():
        assert await run("history", "--socket", agent.socket) == Done(0, HISTORY_SHOWN, "")
        as_json = await run("history", "--json", "--limit", "5", "--socket", agent.socket)

    assert json.loads(as_json.out) == HISTORY
    assert agent.asked == ["GET /v1/history?limit=20", "GET /v1/history?limit=5"]


async def test_the_history_on_disk_where_no_agent_answers(here: Path) -> None:
    path = pair_in(here)
    (here / "state").mkdir()
    nothing = await run("history", "--config", path)
    journal_in(here)

    done = await run("history", "--config", path)
    last = await run("history", "--config", path, "--limit", "1", "--json")

    assert (nothing.code, nothing.out) == (4, "Nothing has happened yet.\n")
    assert (done.code, done.out) == (4, HISTORY_SHOWN)
    assert (last.code, json.loads(last.out)) == (4, HISTORY[-1:])


async def test_a_reader_who_has_seen_enough_is_no_error(agent: Agent) -> None:
    async with agent.listening():
        shell = await asyncio.create_subprocess_shell(
            f"{sys.executable} -m failover_agent.cli.main history --socket {agent.socket} | :; "
            'exit "${PIPESTATUS[0]}"',
            executable="/bin/bash",
            stderr=asyncio.subprocess.PIPE,
            env=environment(),
        )
        async with asyncio.timeout(LIMIT_S):
            _, err = await shell.communicate()

    assert (shell.returncode, err) == (0, b"")


# --- orders -------------------------------------------------------------------------------------


async def test_takeover_without_your_word_orders_nothing(agent: Agent) -> None:
    async with agent.listening():
        done = await run("takeover", "--socket", agent.socket)

    assert (done.code, done.out, agent.asked) == (2, "", [])
    assert "you give your word that the containers do not run on the other host" in done.err
    assert "If it is off: failover-agent takeover --peer-is-off" in done.err


async def test_takeover_and_resume_are_ordered_and_the_answer_is_told(agent: Agent) -> None:
    async with agent.listening():
        takeover = await run("takeover", "--peer-is-off", "--socket", agent.socket)
        agent.reply = {"accepted": True, "sentence": "Automatic moves are allowed again."}
        resume = await run("resume", "--socket", agent.socket)

    assert takeover == Done(0, "Taking over.\n", "")
    assert resume == Done(0, "Automatic moves are allowed again.\n", "")
    assert agent.asked == [
        'POST /v1/command {"command": "takeover"}',
        'POST /v1/command {"command": "resume"}',
    ]


async def test_an_order_that_is_refused_exits_with_1(agent: Agent) -> None:
    agent.reply = {"accepted": False, "sentence": "The primary is not off: it answers."}

    async with agent.listening():
        done = await process("takeover", "--peer-is-off", "--socket", agent.socket)

    assert done == Done(1, "", "The primary is not off: it answers.\n")


# --- init ---------------------------------------------------------------------------------------


def init(here: Path, **options: str) -> Sequence[object]:
    given = {"primary": "10.0.0.1", "backup": "10.0.0.2", "containers": "db,web"} | options
    return ["init", *(f"--{name}={text}" for name, text in given.items()), "--dir", here / "new"]


async def test_init_writes_one_configuration_and_one_secret_for_both_hosts(here: Path) -> None:
    done = await process(*init(here, cluster="shop"))

    path, secret = here / "new" / "config.toml", here / "new" / "secret"
    primary, backup = config.load(path, "primary"), config.load(path, "backup")
    assert (done.code, done.err) == (0, "")
    assert primary.keys == backup.keys
    assert (primary.keys.cluster, primary.keys.containers) == ("shop", ("db", "web"))
    assert primary.node.endpoints == ("http://10.0.0.2:8000",)
    assert backup.node.endpoints == ("http://10.0.0.1:8000",)
    assert primary.secret == backup.secret == secret.read_bytes().strip()
    assert len(secret.read_bytes()) > 40
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    for step in (
        f"scp -p {path} {secret} root@10.0.0.2:{here}/new/",
        f"failover-agent check --role primary --config {path}",
        f"failover-agent run --role backup --config {path}",
    ):
        assert step in done.out
    assert "systemctl" not in done.out  # its unit reads another file


async def test_init_in_the_usual_place_goes_on_with_systemd(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("failover_agent.cli.init.USUAL_DIR", here / "new")

    done = await run(*init(here))

    for step in (
        "     echo FAILOVER_AGENT_ROLE=primary > /etc/failover-agent/environment\n",
        "     failover-agent check --role primary\n",
        "     systemctl enable --now failover-agent ",
        "failover-agent status\n",
    ):
        assert step in done.out
    assert "--config" not in done.out


async def test_init_with_a_witness_writes_one_file_for_three_hosts(here: Path) -> None:
    done = await run(*init(here, cluster="shop", witness="fd00::3"))

    path, secret = here / "new" / "config.toml", here / "new" / "secret"
    primary, witness = config.load(path, "primary"), config.load(path, "witness")
    assert done.code == 0
    assert primary.arbiter == config.Arbiter(config.ArbiterKind.WITNESS, ("http://[fd00::3]:8000",))
    assert primary.policy().requires_lease
    assert witness.witness.clusters == (("shop", secret.read_bytes().strip()),)
    steps = (
        "Written, the same for all three hosts:",
        f"scp -p {path} {secret} root@10.0.0.2:{here}/new/",
        f"scp -p {path} {secret} root@[fd00::3]:{here}/new/",
        "  2. Create the containers on primary and backup. ",
        "On fd00::3, the witness:",
        f"failover-agent run --role witness --config {path}",
        f"failover-agent run --role primary --config {path}",
        f"failover-agent run --role backup --config {path}",
        f"failover-agent status --config {path}",
    )
    places = [done.out.index(step) for step in steps]
    assert places == sorted(places)
    assert "Without a witness" not in done.out


async def test_init_without_a_witness_says_what_a_cut_wire_does(here: Path) -> None:
    done = await run(*init(here))

    assert done.out.endswith(
        "Without a witness both hosts run the containers while the wire between them is cut. "
        "A third machine\n(--witness) ends that; without one, partition_policy in "
        "config.example.toml has the choice.\n"
    )


async def test_init_with_a_witness_in_the_usual_place_names_its_unit(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("failover_agent.cli.init.USUAL_DIR", here / "new")

    done = await run(*init(here, witness="10.0.0.3"))

    for step in (
        "  3. On 10.0.0.3, the witness, which needs no Docker:\n",
        "     failover-agent check --role witness\n",
        "     systemctl enable --now failover-agent-witness ",
        "  4. On primary and backup say which it is, check, and start (here the primary):\n",
        "  5. See who is active: failover-agent status\n",
    ):
        assert step in done.out
    # What stands to be copied stays one line.
    assert all(len(line) <= output.WIDTH or str(here) in line for line in done.out.splitlines())


async def test_two_pairs_do_not_share_a_secret(here: Path) -> None:
    await run(*init(here / "a"))
    await run(*init(here / "b"))

    assert (here / "a/new/secret").read_text() != (here / "b/new/secret").read_text()


async def test_init_puts_ipv6_addresses_in_brackets(here: Path) -> None:
    done = await run(*init(here, primary="fd00::1", backup="fd00::2"))

    text = (here / "new" / "config.toml").read_text()
    assert tomllib.loads(text)["primary"]["endpoint"] == "http://[fd00::2]:8000"
    assert tomllib.loads(text)["backup"]["endpoint"] == "http://[fd00::1]:8000"
    assert " root@[fd00::2]:" in done.out
    assert "ssh root@fd00::2 " in done.out


@pytest.mark.parametrize("name", ["config.toml", "secret"])
async def test_init_overwrites_nothing_and_then_writes_neither(name: str, here: Path) -> None:
    (here / "new").mkdir()
    (here / "new" / name).write_text("mine")

    done = await run(*init(here))

    assert done.code == 1
    assert done.err.startswith(
        f"{here}/new/{name}: this file exists already, and init overwrites nothing: neither file "
        "was written. "
    )
    assert [path.name for path in (here / "new").iterdir()] == [name]
    assert (here / "new" / name).read_text() == "mine"


async def test_init_says_where_it_may_not_write(here: Path) -> None:
    (here / "new").write_text("a file")

    done = await run(*init(here))

    assert done.code == 1
    assert done.err.startswith(f"{here}/new: nothing was written here (File exists). ")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"witness": "10.0.0.2"},
            "--witness: it is the same host as --backup (10.0.0.2). The third vote must not die ",
        ),
        ({"witness": "localhost"}, "--witness: localhost is every host's own address, so a node "),
        ({"witness": "http://w:1"}, '--witness: ("http://w:1") is a URL. Write "w" alone.'),
        ({"backup": "10.0.0.1"}, "--backup: it is the same host as --primary (10.0.0.1). "),
        ({"containers": "db,web,db"}, "--containers: it names a container twice. "),
        ({"containers": ","}, "--containers: it names no container. "),
        ({"containers": "d"}, '--containers: ("d") is not a name that Docker gives to a '),
        ({"cluster": "a/b"}, '--cluster: ("a/b") is part of file names. '),
        (
            {"primary": "http://10.0.0.1:8000"},
            '--primary: ("http://10.0.0.1:8000") is a URL. Write "10.0.0.1" alone.',
        ),
        ({"primary": "10.0.0.1:8000"}, '--primary: ("10.0.0.1:8000") has a port. Write "10.0.0.1"'),
        ({"primary": "localhost"}, "--primary: localhost is every host's own address, so a node "),
        ({"backup": "127.0.1.1"}, "--backup: 127.0.1.1 is every host's own address, so a node "),
        ({"backup": "::1"}, "--backup: ::1 is every host's own address, so a node would call "),
        ({"backup": "a b"}, '--backup: ("a b") is neither a host name nor an IP address. '),
    ],
)
async def test_init_refuses_what_cannot_be_meant(
    options: dict[str, str], told: str, here: Path
) -> None:
    done = await run(*init(here, **options))

    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(told)
    assert not (here / "new").exists()
