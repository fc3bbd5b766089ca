"""adapters/record.py: what survives a crash, and what is refused."""

import asyncio
import dataclasses
import json
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from failover_agent.adapters import record
from failover_agent.adapters.record import Host, RecordStore, read_host, read_record
from failover_agent.core.policy import Role
from failover_agent.core.state import Durable, Holder
from failover_agent.errors import (
    ExitCode,
    ForeignRecordError,
    FutureRecordError,
    RecordError,
    UnreadableRecordError,
)

HOST = Host(machine="this one", boot_id="boot 1")
REBOOTED = Host(machine="this one", boot_id="boot 2")

GRANTED = Durable(
    term=7,
    holder=Holder(Role.BACKUP, "abcd"),
    released=False,
    led=True,
    hold=True,
    longest_lease_s=10.0,
    heard=frozenset({Role.PRIMARY, Role.BACKUP}),
    peer_fingerprint="f",
    on_hold_for_flapping=True,
)


@contextmanager
def opened(state_dir: Path, host: Host = HOST, **other: Any) -> Iterator[RecordStore]:
    asked = {"cluster": "shop", "role": Role.PRIMARY, "deadline_s": 5.0, **other}
    store = RecordStore.open(state_dir, host=host, **asked)
    try:
        yield store
    finally:
        store.close()


async def test_what_was_saved_is_there_after_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path / "state") as store:
        node_id = store.node_id
        await store.save(GRANTED)

    with opened(tmp_path / "state") as store:
        assert (store.node_id, store.durable) == (node_id, GRANTED)
        assert (store.is_lost, store.boot_is_new, store.set_aside) == (False, False, None)


def test_every_field_of_the_durable_part_is_in_the_example_above() -> None:
    """A field that the core gets and the record does not is a promise that a crash breaks."""
    for field in dataclasses.fields(Durable):
        assert getattr(GRANTED, field.name) != getattr(Durable(), field.name), field.name


def test_the_first_start_makes_a_private_directory_and_a_node_id(tmp_path: Path) -> None:
    with opened(tmp_path / "a" / "b") as store, opened(tmp_path / "c") as other:
        assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "a" / "b" / record.NAME).stat().st_mode) == 0o600
        assert len(store.node_id) == 16
        assert store.node_id != other.node_id
        assert store.durable == Durable()
        assert store.is_lost


async def test_a_record_that_never_saw_a_grant_counts_as_lost_however_old_it_is(
    tmp_path: Path,
) -> None:
    with opened(tmp_path) as store:
        await store.save(Durable(heard=frozenset({Role.BACKUP})))

    with opened(tmp_path) as store:
        assert store.is_lost
        assert store.durable.heard == {Role.BACKUP}


async def test_the_boot_counts_from_the_grant_and_not_from_the_last_save(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        await store.save(GRANTED)

    with opened(tmp_path, REBOOTED) as store:
        assert store.boot_is_new
        await store.save(dataclasses.replace(GRANTED, hold=False))

    with opened(tmp_path, REBOOTED) as store:
        assert store.boot_is_new, "the term on record is still one of the boot before"
        await store.save(dataclasses.replace(GRANTED, term=8))

    with opened(tmp_path, REBOOTED) as store:
        assert not store.boot_is_new


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"schema": 1}',
        '{"schema": "1"}',
        "\0" * 300,
        None,
    ],
)
def test_a_damaged_record_is_set_aside_and_counts_as_lost(
    tmp_path: Path, content: str | None
) -> None:
    with opened(tmp_path) as store:
        node_id = store.node_id
    path = tmp_path / record.NAME
    if content is None:
        path.write_text(path.read_text().replace('"term": 0', '"term": true'))
    else:
        path.write_text(content)
    damaged = path.read_text()
    (tmp_path / f"{record.NAME}.broken-1").write_text("an earlier one")

    with pytest.raises(UnreadableRecordError):
        read_record(tmp_path)
    with opened(tmp_path) as store:
        assert store.is_lost
        assert store.node_id != node_id
        assert store.set_aside == tmp_path / f"{record.NAME}.broken-2"
        assert store.set_aside.read_text() == damaged


def test_a_record_of_a_later_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    path = tmp_path / record.NAME
    path.write_text('{"schema": 2, "anything": "else"}')

    with pytest.raises(FutureRecordError, match="schema 2") as caught, opened(tmp_path):
        pass

    assert caught.value.exit_code == ExitCode.USAGE
    assert json.loads(path.read_text())["schema"] == 2


@pytest.mark.parametrize(
    "other",
    [
        {"cluster": "mill"},
        {"role": Role.BACKUP},
        {"host": Host(machine="another", boot_id="boot 1")},
    ],
)
def test_a_record_of_another_cluster_role_or_machine_is_refused(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    with opened(tmp_path):
        pass

    with pytest.raises(ForeignRecordError), opened(tmp_path, **other):
        pass

    with opened(tmp_path):
        pass  # It was left as it was, and the directory is free.


def test_a_machine_without_an_id_is_taken_at_its_word(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        node_id = store.node_id

    with opened(tmp_path, Host(machine="", boot_id="")) as store:
        assert store.node_id == node_id
        assert not store.boot_is_new


def test_two_agents_cannot_use_one_directory(tmp_path: Path) -> None:
    with opened(tmp_path):
        with pytest.raises(RecordError, match="another agent uses this state_dir") as caught:
            RecordStore.open(tmp_path, cluster="shop", role=Role.PRIMARY, host=HOST, deadline_s=5.0)
        assert caught.value.exit_code == ExitCode.FAILED


def test_a_directory_that_cannot_be_one_is_told_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(RecordError, match="names another one"), opened(tmp_path / "file" / "x"):
        pass
    with pytest.raises(RecordError, match="names another one"), opened(tmp_path / "file"):
        pass


async def test_a_save_that_fails_leaves_the_old_record_and_nothing_else(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        before = (tmp_path / record.NAME).read_text()
        # Root may write anywhere, so that it is not a matter of permissions.
        (tmp_path / "record.new").mkdir()
        (tmp_path / "record.probe").mkdir()

        with pytest.raises(IsADirectoryError):
            await store.save(GRANTED)
        with pytest.raises(IsADirectoryError):
            await store.probe()

        (tmp_path / "record.new").rmdir()
        (tmp_path / "record.probe").rmdir()
        await store.probe()
        assert (tmp_path / record.NAME).read_text() == before
        assert [path.name for path in tmp_path.iterdir()] == [record.NAME]
        await store.save(GRANTED)

    saved = read_record(tmp_path)
    assert saved is not None
    assert saved.durable == GRANTED


async def test_a_late_save_never_overwrites_a_newer_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk()
    monkeypatch.setattr(os, "fsync", disk.fsync)
    with opened(tmp_path, deadline_s=1.0) as store:
        disk.hangs = True
        with pytest.raises(TimeoutError, match="not done within 1 s"):
            await store.save(dataclasses.replace(GRANTED, term=8))
        for _ in range(3):
            with pytest.raises(TimeoutError, match="the one before"):
                await store.save(dataclasses.replace(GRANTED, term=9))
        disk.let_go()
        async with asyncio.timeout(5):
            while True:
                try:
                    await store.save(dataclasses.replace(GRANTED, term=10))
                    break
                except TimeoutError:
                    await asyncio.to_thread(disk.was_let_go.wait, 5)

    saved = read_record(tmp_path)
    assert saved is not None
    assert saved.durable.term == 10


def test_no_record_is_none(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None


def test_the_id_of_the_machine_is_never_told_as_it_is(tmp_path: Path) -> None:
    machine_id, boot_id = tmp_path / "machine-id", tmp_path / "boot_id"
    machine_id.write_text("3d1219c7c4c5404aaa1f6d2a48adfda4\n")
    boot_id.write_text("4941090e-ba1e-4f87-8793-5e672e40e4b3\n")

    host = read_host((tmp_path / "missing", machine_id), boot_id)

    assert host.boot_id == "4941090e-ba1e-4f87-8793-5e672e40e4b3"
    assert len(host.machine) == 32
    assert host.machine != "3d1219c7c4c5404aaa1f6d2a48adfda4"
    assert read_host((tmp_path / "missing",), tmp_path / "missing") == Host("", "")
    assert read_host().boot_id != ""


class Disk:
    """An fsync that hangs when told to."""

    def __init__(self) -> None:
        self.hangs = False
        self.was_let_go = threading.Event()
        self._fsync = os.fsync

    def fsync(self, file: int) -> None:
        if self.hangs:
            assert self.was_let_go.wait(10)
        self._fsync(file)

    def let_go(self) -> None:
        self.hangs = False
        self.was_let_go.set()
