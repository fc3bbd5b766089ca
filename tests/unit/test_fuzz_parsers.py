"""Whatever is on disk, on the lifeline, in etcd, or said by an engine or an operator: understood,
or refused as each of them says it is; nothing else is ever raised.

Many more examples than the suite has time for: `make fuzz EXAMPLES=100000`.
"""

import base64
import contextlib
import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from failover_agent.adapters.arbiters import parse as etcd
from failover_agent.adapters.docker import parse as docker
from failover_agent.adapters.record import Record, read_record
from failover_agent.core.messages import ReleaseAnswer, Sender
from failover_agent.core.policy import Role
from failover_agent.core.register import Entry, Snapshot, Write
from failover_agent.core.state import Holder
from failover_agent.errors import FailoverAgentError
from failover_agent.guard import file as lease_file
from failover_agent.guard import lifeline
from failover_agent.web.operator_api import command_of
from tests.unit.test_fuzz_wire import bent, many

RECORDED = Path(__file__).parents[1] / "recorded"


def _lines(pattern: str) -> list[bytes]:
    return [line for file in sorted(RECORDED.glob(pattern)) for line in _read(file)]


def _read(file: Path) -> list[bytes]:
    return [line for line in file.read_bytes().splitlines() if line]


# --- the guard ------------------------------------------------------------------------------------

WORDS = [
    lifeline.Hello("/run/x.lease", "unix:///run/docker.sock", 10.0, 1.0, "text"),
    lifeline.Seen("web", "a" * 64, 4711, "123"),
    lifeline.Arm(7, ("db", "web"), 99.5),
    lifeline.Move(7, 100.5),
    lifeline.Disarm(7),
    lifeline.Welcome(1.0),
    lifeline.Armed(7, ""),
]


@many(100)
@given(st.sampled_from(WORDS), st.data(), st.binary(max_size=200))
def test_a_word_on_the_lifeline_is_one_that_we_know_or_garbled(
    word: lifeline.Message, data: Any, noise: bytes
) -> None:
    for datagram in (data.draw(bent(lifeline.encode(word))), noise):
        with contextlib.suppress(lifeline.GarbledError):
            said = lifeline.decode(datagram)
            assert lifeline.decode(lifeline.encode(said)) == said


LEASE = b"""
{"schema": 1, "config": "c", "role": "primary", "boot_id": "boot", "docker_host": "unix://",
"docker_files": {}, "agent": [1, "2"], "heartbeat_timeout_s": 10.0, "kill_budget_s": 1.0,
"child": 1, "term": 7, "names": ["web"], "held": false, "valid_until_s": 99.0,
"targets": [{"name": "web", "container_id": "a", "pid": 1, "started": "2", "folders": ["/x"]}]}
"""


@many(100)
@given(bent(LEASE) | st.binary(max_size=100))
def test_a_lease_file_is_read_or_is_none(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.lease"
    path.write_bytes(content)
    saved = lease_file.read(path, "boot")
    assert saved is None or isinstance(saved, lease_file.Saved)


# --- the record -----------------------------------------------------------------------------------

RECORD = b"""
{"schema": 1, "cluster": "shop", "role": "primary", "node_id": "aa", "machine": "m", "boot_id": "b",
"term": 7, "holder": {"role": "primary", "node_id": "aa"}, "released": false, "led": true,
"hold": false, "longest_lease_s": 10.0, "heard": ["backup"], "peer_fingerprint": "f",
"on_hold_for_flapping": false}
"""


@many(100)
@given(bent(RECORD) | st.binary(max_size=100))
def test_a_record_is_read_or_refused(tmp_path_factory: Any, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "record.json").write_bytes(content)
    with contextlib.suppress(FailoverAgentError):
        record = read_record(folder)
        assert isinstance(record, Record)
        assert record.durable.term >= 0


def test_what_is_bent_is_a_record_and_a_lease_file(tmp_path: Path) -> None:
    (tmp_path / "x.lease").write_bytes(LEASE)
    assert lease_file.read(tmp_path / "x.lease", "boot") is not None
    (tmp_path / "record.json").write_bytes(RECORD)
    record = read_record(tmp_path)
    assert record is not None
    assert record.durable.term == 7


# --- etcd -----------------------------------------------------------------------------------------

ENTRY = Entry(Holder(Role.PRIMARY, "aa"), 7, 10.0, hold=False, released=False)
WRITE = Write(11, ENTRY, ReleaseAnswer(Sender(Role.WITNESS, "etcd", "", ""), 7, 7))
HEADER = {"cluster_id": "14841639068965178418", "member_id": "1", "revision": "12"}


def _ranged(value: bytes) -> dict[str, object]:
    encoded = base64.b64encode(value).decode()
    key = base64.b64encode(b"failover-agent/shop").decode()
    return {"header": HEADER, "kvs": [{"key": key, "mod_revision": "11", "value": encoded}]}


@many(100)
@given(st.data())
def test_what_an_etcd_answers_is_understood_or_unusable(data: Any) -> None:
    value = data.draw(bent(etcd.value_of(ENTRY).encode()))
    ranged = _ranged(value)
    put = {"header": HEADER, "succeeded": False, "responses": [{"response_range": ranged}]}
    for whole in (ranged, put):
        body = data.draw(st.just(json.dumps(whole).encode()) | bent(json.dumps(whole).encode()))
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            continue
        if not isinstance(answer, dict):
            continue
        with contextlib.suppress(etcd.UnusableAnswerError):
            assert isinstance(etcd.read(answer), Snapshot)
        with contextlib.suppress(etcd.UnusableAnswerError):
            done, _ = etcd.written(answer, WRITE)
            assert done in (True, False)


@many(100)
@given(st.integers(100, 599), st.binary(max_size=300) | bent(b'{"code": 16, "message": "no"}'))
def test_a_refusal_of_an_etcd_is_a_code_and_words(status: int, body: bytes) -> None:
    code, words = etcd.refusal(status, body)
    assert isinstance(code, int)
    assert isinstance(words, str)


# --- the engine -----------------------------------------------------------------------------------

EVENTS = _lines("engine-*/events-*.jsonl")


@many(100)
@given(st.data())
def test_an_event_of_an_engine_is_a_hint_or_nothing(data: Any) -> None:
    body = data.draw(bent(data.draw(st.sampled_from(EVENTS))))
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return
    if isinstance(said, dict):
        event = docker.parse_event(said)
        assert event is None or isinstance(event, docker.ContainerEvent)


# --- an operator ----------------------------------------------------------------------------------


@many(100)
@given(bent(b'{"command": "takeover"}') | st.binary(max_size=100))
def test_a_command_is_one_that_we_know_or_none(body: bytes) -> None:
    command = command_of(body)
    assert command is None or json.loads(body) == {"command": command.value}
