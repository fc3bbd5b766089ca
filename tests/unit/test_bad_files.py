"""Files of ours that are cut off, foreign, of another kind or of another time.

Record, journal, lease file: none ends a process with a traceback, and no part passes for the whole.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failover_agent.adapters import record
from failover_agent.adapters.journal import NAME as JOURNAL
from failover_agent.adapters.journal import read_history
from failover_agent.adapters.record import LARGEST_BYTES, RecordStore, read_record
from failover_agent.core.policy import Role
from failover_agent.errors import (
    ExitCode,
    ForeignRecordError,
    FutureRecordError,
    RecordError,
    UnreadableRecordError,
)
from failover_agent.guard import file as lease_file
from tests.unit.test_guard_file import BOOT, owner, saved
from tests.unit.test_record import GRANTED, HOST, opened

TEXTS = st.sampled_from(
    """null true false 0 -1 1.5 1e400 -1e400 NaN 9007199254740993 "" "x" [] {} [[]] {"a":1}
    "primary" 99999999999999999999999999""".split()
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A record as we write it, of one who leads."""
    top = tmp_path_factory.mktemp("record")
    host = record.Host(HOST.machine, HOST.boot_id)
    record._write(top / record.NAME, record.Record("shop", Role.PRIMARY, "me", host, GRANTED))
    return (top / record.NAME).read_text()


def complaint(folder: Path) -> str:
    with pytest.raises(UnreadableRecordError) as caught:
        read_record(folder)
    told = str(caught.value)
    assert told.startswith(f"{folder / record.NAME}: the record cannot be read (")
    assert "Error(" not in told, "no word of Python's"
    return told


def test_a_record_cut_off_at_any_byte_counts_as_lost_and_is_kept(
    whole: str, tmp_path: Path
) -> None:
    path = tmp_path / record.NAME
    content = whole.encode()
    for length in range(len(content) - 1):  # the newline at the end says nothing
        if content[:length].decode(errors="ignore").strip() == whole.strip():
            continue
        path.write_bytes(content[:length])
        complaint(tmp_path)
    with opened(tmp_path) as store:
        assert store.is_lost
        assert store.durable.term == 0
        assert store.set_aside is not None
        assert store.set_aside.read_bytes() == content[: len(content) - 2]


@settings(deadline=None)
@given(data=st.data())
def test_a_record_with_any_value_changed_is_read_or_refused(
    data: st.DataObject, whole: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """And what is read is within what this node would ever have written."""
    folder = tmp_path_factory.mktemp("changed")
    rows = json.loads(whole)
    key = data.draw(st.sampled_from(sorted(rows)))
    rows[key] = "@"
    (folder / record.NAME).write_text(json.dumps(rows).replace('"@"', data.draw(TEXTS)))
    try:
        found = read_record(folder)
    except RecordError:
        return
    assert found is not None
    assert 0 <= found.durable.term <= 2**53
    assert 0 <= found.durable.longest_lease_s <= 3600


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "damaged: it is empty"),
        ("[" * 100_000, "damaged: "),
        ("x" * (LARGEST_BYTES + 1), "it has more than 100000 bytes"),
        (b"\xff\xfe", "damaged: it is no text"),
        ("{}", "damaged: nothing stands under 'schema'"),
        ('{"schema": true}', "damaged: True is no int"),
        ('{"schema": 0}', "damaged: schema is 0"),
    ],
)
def test_a_record_that_is_no_record(content: str | bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / record.NAME
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert f"({told}" in complaint(tmp_path)


@pytest.mark.parametrize("kind", ["directory", "pipe"])
def test_something_else_in_place_of_the_record_is_set_aside(kind: str, tmp_path: Path) -> None:
    """A pipe that nobody writes to was once waited for."""
    path = tmp_path / record.NAME
    if kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    assert "(it is no file)" in complaint(tmp_path)
    with opened(tmp_path) as store:
        assert store.is_lost
    assert read_record(tmp_path) is not None


async def test_what_a_crash_in_the_middle_of_a_save_leaves_is_no_trouble(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        await store.save(GRANTED)
    for name in ("record.new", "record.probe"):
        (tmp_path / name).write_text('{"schema": 1, "ter')
    with opened(tmp_path) as store:
        assert store.durable == GRANTED
        await store.probe()
        await store.save(GRANTED)
    assert [path.name for path in tmp_path.iterdir()] == [record.NAME]


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        (
            {"cluster": "other"},
            ForeignRecordError,
            ("the record belongs to the primary of cluster 'other', and this is the primary of "
            "cluster 'shop'. Give this node a state_dir of its own; or, if the record was copied "
            "here by mistake, or the machine has a new /etc/machine-id, move the file away."),
        ),
        (
            {"role": "witness"},
            ForeignRecordError,
            "the record belongs to the witness of cluster 'shop', and this is the primary of ",
        ),
        (
            {"machine": "another"},
            ForeignRecordError,
            "the record belongs to another machine, and this is not that one. Give this node ",
        ),
        (
            {"schema": 99, "term": "a new kind"},
            FutureRecordError,
            ("the record has schema 99, and this version knows none above 1. "
            "Install the version that wrote it, or a newer one."),
        ),
    ],
)  # fmt: skip
def test_a_record_that_is_not_ours_is_refused_and_left_alone(
    change: dict[str, Any], error: type[RecordError], told: str, whole: str, tmp_path: Path
) -> None:
    path = tmp_path / record.NAME
    path.write_text(json.dumps({**json.loads(whole), **change}))
    before = path.read_bytes()
    with pytest.raises(error) as caught:
        RecordStore.open(tmp_path, cluster="shop", role=Role.PRIMARY, host=HOST, deadline_s=5.0)
    assert str(caught.value).startswith(f"{path}: {told}")
    assert caught.value.exit_code is ExitCode.USAGE, "no supervisor starts it again"
    assert path.read_bytes() == before
    assert [it.name for it in tmp_path.iterdir()] == [record.NAME]


# --- journal --------------------------------------------------------------------------------------

GOOD = {
    "wall": "2026-11-22T03:04:05.000Z",
    "transitions": [
        {
            "from": "starting",
            "to": "standby",
            "reason": "peer_active",
            "term": 3,
            "rule": "F1",
            "sentence": "the peer is active",
        }
    ],
}


@pytest.mark.parametrize(
    "line",
    [
        '{"transitions":[5]}',
        '{"transitions":[{}],"wall":"x"}',
        '{"transitions":5,"wall":"x"}',
        '{"transitions":[{"from":1}],"wall":"x"}',
        json.dumps({**GOOD, "wall": 5}, separators=(",", ":")),
        '{"transitions":' + "[" * 100_000,
        '"transitions":',
        '\x00\xff"transitions":',
        json.dumps(GOOD, separators=(",", ":"))[:-5],
    ],
)
def test_a_line_that_is_none_of_ours_is_passed_over(line: str, tmp_path: Path) -> None:
    good = json.dumps(GOOD, separators=(",", ":"))
    (tmp_path / JOURNAL).write_bytes(
        b"\n".join([good.encode(), line.encode("latin-1"), good.encode(), b'{"wall":"20'])
    )
    assert [told["term"] for told in read_history(tmp_path, 10)] == [3, 3]


@pytest.mark.parametrize("kind", ["directory", "pipe", "device", "huge"])
def test_something_else_in_place_of_the_journal(kind: str, tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as journal:
            journal.truncate(10_000_000_000)  # with a hole: no disk is filled here
    assert read_history(tmp_path, 10) == []


# --- lease file -----------------------------------------------------------------------------------


def test_a_lease_file_cut_off_at_any_byte_is_none(tmp_path: Path) -> None:
    written = saved(tmp_path)
    lease_file.write(written, owner(tmp_path))
    content = written.path.read_bytes()
    for length in range(len(content)):
        written.path.write_bytes(content[:length])
        assert lease_file.read(written.path, BOOT) is None
    written.path.write_bytes(content)
    assert lease_file.read(written.path, BOOT) == written


@settings(deadline=None)
@given(data=st.data())
def test_a_lease_file_with_any_value_changed_is_read_or_none(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("lease")
    written = saved(folder)
    lease_file.write(written, owner(folder))
    rows = json.loads(written.path.read_text())
    rows[data.draw(st.sampled_from(sorted(rows)))] = "@"
    written.path.write_text(json.dumps(rows).replace('"@"', data.draw(TEXTS)))
    found = lease_file.read(written.path, BOOT)
    if found is not None and found.watch.lease is not None:
        watch = found.watch
        assert math.isfinite(watch.heartbeat_timeout_s)
        assert math.isfinite(watch.kill_budget_s)
        assert not math.isnan(found.watch.lease.valid_until_s)


@pytest.mark.parametrize("kind", ["pipe", "device", "deep"])
def test_a_guard_glances_at_any_configuration_and_goes_on(kind: str, tmp_path: Path) -> None:
    """The agent tells what is wrong with it; a guard that waits for a pipe would never start it."""
    path = tmp_path / "config.toml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_text("x = " + "[" * 50_000)
    found = lease_file.expect(owner(tmp_path), {})
    assert found in (None, Path("/run/failover-agent/default.lease"))
