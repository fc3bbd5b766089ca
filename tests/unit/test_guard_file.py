"""guard/file.py and guard/lifeline.py: what outlives a guard, and what it is told."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from failover_agent.guard import file, lifeline
from failover_agent.guard.engine import NO_FILES, TlsFiles
from failover_agent.guard.file import Lock, Owner, Saved
from failover_agent.guard.lifeline import (
    Arm,
    Armed,
    Disarm,
    GarbledError,
    Hello,
    Move,
    Seen,
    Welcome,
)
from failover_agent.guard.watch import Lease, Target, Watch

BOOT = "a-boot-id"
FILES = TlsFiles("/etc/docker/ca.pem", "/etc/docker/cert.pem", "/etc/docker/key.pem")
WATCH = Watch(
    heartbeat_timeout_s=10.0,
    kill_budget_s=1.0,
    child=3,
    lease=Lease(7, ("db", "web"), 1234.5),
    targets=(Target("db", "a" * 64, 12, "345", ("/sys/fs/cgroup/x/" + "a" * 64,)),),
)


def owner(tmp_path: Path, role: str = "primary", boot_id: str = BOOT) -> Owner:
    return Owner(str(tmp_path / "config.toml"), role, boot_id)


def saved(tmp_path: Path, watch: Watch = WATCH) -> Saved:
    return Saved(tmp_path / "shop.lease", (42, "99"), watch, "https://10.0.0.1:2376", FILES)


@pytest.mark.parametrize("until_s", [1234.5, math.inf])
def test_what_was_written_is_read(tmp_path: Path, until_s: float) -> None:
    written = saved(
        tmp_path,
        Watch(10.0, 1.0, 3, Lease(7, ("db",), until_s), targets=WATCH.targets),
    )
    file.write(written, owner(tmp_path))

    assert file.read(written.path, BOOT) == written
    assert json.loads(written.path.read_text())["held"] is math.isinf(until_s)
    assert written.path.stat().st_mode & 0o077 == 0
    assert [it.name for it in tmp_path.iterdir()] == ["shop.lease"]


def test_what_a_guard_of_an_earlier_version_has_written_names_no_files(tmp_path: Path) -> None:
    written = saved(tmp_path)
    file.write(written, owner(tmp_path))
    content = json.loads(written.path.read_text())
    del content["docker_files"]
    written.path.write_text(json.dumps(content))

    assert file.read(written.path, BOOT) == replace(written, docker_files=NO_FILES)


def test_a_file_of_another_boot_is_none(tmp_path: Path) -> None:
    file.write(saved(tmp_path), owner(tmp_path))

    assert file.read(tmp_path / "shop.lease", "another") is None


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "nonsense", '{"schema": 1, "boot_id": "a-boot-id"}']
)
def test_what_is_not_ours_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "shop.lease").write_text(text)

    assert file.read(tmp_path / "shop.lease", BOOT) is None
    assert file.read(tmp_path / "none.lease", BOOT) is None


def test_the_real_owner_is_read_as_the_agent_will(tmp_path: Path) -> None:
    environ = {"FAILOVER_AGENT_CONFIG": str(tmp_path), "FAILOVER_AGENT_ROLE": "backup"}
    boot_id = file.BOOT_ID.read_text().strip()

    assert file.read_owner(None, None, environ) == Owner(str(tmp_path), "backup", boot_id)
    assert file.read_owner(Path("/x"), "primary", environ) == Owner("/x", "primary", boot_id)
    assert file.read_owner(None, None, {}).config == "/etc/failover-agent/config.toml"


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        ("", {}, "/run/failover-agent/default.lease"),
        ('cluster = "my.shop"', {}, "/run/failover-agent/my.shop.lease"),
        ('cluster = "shop"', {"FAILOVER_AGENT_CLUSTER": "b"}, "/run/failover-agent/b.lease"),
        ('[primary]\ncontrol_socket = "/tmp/x.sock"', {}, "/tmp/x.lease"),
        ('[backup]\ncontrol_socket = "/tmp/x.sock"', {}, "/run/failover-agent/default.lease"),
        ("", {"FAILOVER_AGENT_PRIMARY__CONTROL_SOCKET": "/tmp/y.sock"}, "/tmp/y.lease"),
    ],
)
def test_it_is_expected_where_the_agent_will_say(
    tmp_path: Path, text: str, environ: dict[str, str], expected: str
) -> None:
    (tmp_path / "config.toml").write_text(text)

    assert file.expect(owner(tmp_path), environ) == Path(expected)


@pytest.mark.parametrize("text", ["cluster = ", "primary = 3", "[primary]\ncontrol_socket = 3"])
def test_a_broken_configuration_leaves_the_search_for_one_of_the_same(
    tmp_path: Path, text: str
) -> None:
    mine, environ = owner(tmp_path), {"RUNTIME_DIRECTORY": f"/none:{tmp_path}"}
    (tmp_path / "config.toml").write_text(text)
    assert file.expect(mine, environ) is None
    assert file.search(mine, environ) is None

    file.write(saved(tmp_path), mine)
    assert file.search(mine, environ) == tmp_path / "shop.lease"
    assert file.search(owner(tmp_path, role="backup"), environ) is None
    assert file.search(owner(tmp_path, boot_id="another"), environ) is None
    (tmp_path / "shop.lease").rename(tmp_path / "one.lease")
    file.write(saved(tmp_path), mine)
    assert file.search(mine, environ) is None, "which of the two is anybody's guess"


def test_one_has_the_lock(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "shop.lease"), Lock(tmp_path / "shop.lease")

    assert (first.take(), second.take()) == (True, False)
    first.give_back()
    assert second.take()
    second.give_back()
    with pytest.raises(FileNotFoundError):
        Lock(tmp_path / "none" / "shop.lease").take()


@pytest.mark.parametrize(
    "message",
    [
        Hello("/run/x.lease", "unix:///run/docker.sock", 10.0, 1.0, "text"),
        Seen("db", "a" * 64, 12, "345"),
        Arm(7, ("db", "web"), 1234.5),
        Move(7, math.inf),
        Disarm(7),
        Welcome(-math.inf),
        Armed(7, "no space left"),
    ],
)
def test_every_message_comes_through_whole(message: lifeline.Message) -> None:
    assert lifeline.decode(lifeline.encode(message)) == message


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'"move"',
        b'{"say": "shout"}',
        b'{"say": []}',
        b'{"say": "move", "term": 7}',
        b'{"say": "move", "term": -7, "valid_until_s": 1.0}',
        b'{"say": "move", "term": true, "valid_until_s": 1.0}',
        b'{"say": "move", "term": 7, "valid_until_s": NaN}',
        b'{"say": "move", "term": 7, "valid_until_s": "1.0"}',
        b'{"say": "move", "term": 7, "valid_until_s": true}',
        b'{"say": "arm", "term": 7, "valid_until_s": 1.0, "names": "db"}',
        b'{"say": "arm", "term": 7, "valid_until_s": 1.0, "names": [3]}',
        b'{"say": "seen", "name": 1, "container_id": "", "pid": 1, "started": ""}',
        b"[" * 60_000,
    ],
)
def test_what_is_no_message_is_an_error(datagram: bytes) -> None:
    with pytest.raises(GarbledError):
        lifeline.decode(datagram)
