"""What goes over the wire to an etcd, and how what a real one answered is read."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from failover_agent.adapters.arbiters import parse
from failover_agent.core.messages import ReleaseAnswer, Sender
from failover_agent.core.policy import Role
from failover_agent.core.register import Entry, Snapshot, Write
from failover_agent.core.state import Holder

RECORDED = Path(__file__).parents[1] / "recorded" / "etcd-3.4" / "answers.json"
SAID = {said["situation"]: said for said in json.loads(RECORDED.read_text())}
CLUSTER = "shop"
ENTRY = Entry(Holder(Role.PRIMARY, "0123456789abcdef"), 7, 10.0)
STORE = SAID["no such key"]["answer"]["header"]["cluster_id"]


def write(mod_revision: int) -> Write:
    return Write(mod_revision, ENTRY, ReleaseAnswer(Sender(Role.WITNESS, "etcd", "", ""), 7, 7))


def with_value(value: object) -> dict[str, Any]:
    """The recorded key, with another value; what is no text is written as JSON."""
    answer: dict[str, Any] = json.loads(json.dumps(SAID["the key"]["answer"]))
    text = value if isinstance(value, str) else json.dumps(value)
    answer["kvs"][0]["value"] = base64.b64encode(text.encode()).decode()
    return answer


def test_what_is_asked_is_what_was_recorded() -> None:
    assert SAID["the key"]["request"] == parse.read_body(CLUSTER)
    assert SAID["put where there was no key"]["request"] == parse.write_body(CLUSTER, write(0))
    assert base64.b64decode(parse.read_body(CLUSTER)["key"]) == b"failover-agent/shop"


def test_a_read_is_linearizable() -> None:
    assert set(parse.read_body(CLUSTER)) == {"key"}  # No "serializable", no "revision".


@pytest.mark.parametrize(
    ("situation", "snapshot"),
    [
        ("no such key", Snapshot(STORE, 1)),
        ("the key", Snapshot(STORE, 2, 2, ENTRY)),
        ("the key was deleted", Snapshot(STORE, 4)),
    ],
)
def test_a_read(situation: str, snapshot: Snapshot) -> None:
    assert parse.read(SAID[situation]["answer"]) == snapshot


@pytest.mark.parametrize(
    ("situation", "is_put", "snapshot"),
    [
        ("put where there was no key", True, Snapshot(STORE, 2, 2, ENTRY)),
        ("put where the key has that mod_revision", True, Snapshot(STORE, 3, 3, ENTRY)),
        ("refused: the key has another mod_revision", False, Snapshot(STORE, 2, 2, ENTRY)),
        ("refused: the key was deleted", False, Snapshot(STORE, 4)),
    ],
)
def test_a_transaction(situation: str, is_put: bool, snapshot: Snapshot) -> None:
    assert parse.written(SAID[situation]["answer"], write(0)) == (is_put, snapshot)


def test_an_entry_comes_back_as_it_was_written() -> None:
    for entry in (
        ENTRY,
        Entry(Holder(Role.BACKUP, "b"), 1, 0.5, hold=True),
        Entry(Holder(Role.BACKUP, "b"), 2**53, 3600.0, released=True),
    ):
        assert parse.read(with_value(parse.value_of(entry))).entry == entry


GOOD = json.loads(parse.value_of(ENTRY))


@pytest.mark.parametrize(
    "value",
    [
        "",
        "no JSON",
        "\0",
        "[" * 40000,
        [],
        7,
        None,
        {},
        {**GOOD, "schema": 2},
        {**GOOD, "schema": None},
        {**GOOD, "term": 0},
        {**GOOD, "term": -1},
        {**GOOD, "term": 2**53 + 1},
        {**GOOD, "term": 7.0},
        {**GOOD, "term": True},
        {**GOOD, "lease_s": 0},
        {**GOOD, "lease_s": -10.0},
        {**GOOD, "lease_s": 3600.1},
        {**GOOD, "lease_s": "10"},
        {**GOOD, "lease_s": float("nan")},
        {**GOOD, "lease_s": float("inf")},
        {**GOOD, "hold": 0},
        {**GOOD, "released": None},
        {**GOOD, "holder": None},
        {**GOOD, "holder": {"role": "witness", "node_id": "w"}},
        {**GOOD, "holder": {"role": "king", "node_id": "w"}},
        {**GOOD, "holder": {"role": "primary"}},
        {**GOOD, "holder": {"role": "primary", "node_id": 7}},
        {**GOOD, "holder": {"role": "primary", "node_id": "x" * 65}},
        {name: value for name, value in GOOD.items() if name != "hold"},
    ],
)
def test_what_was_not_written_by_us_is_nobodys_promise(value: object) -> None:
    with pytest.raises(parse.UnusableAnswerError, match="the value of failover-agent/shop is not"):
        parse.read(with_value(value))


def test_an_empty_value_is_left_out_by_the_gateway_and_is_not_ours() -> None:
    with pytest.raises(parse.UnusableAnswerError):
        parse.read(SAID["an empty value"]["answer"])


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"header": None},
        {"header": {"cluster_id": "1"}},
        {"header": {"cluster_id": "1", "revision": "many"}},
        {"header": {"cluster_id": "1", "revision": "2"}, "kvs": [{}]},
        {"header": {"cluster_id": "1", "revision": "2"}, "kvs": 7},
        {"header": {"cluster_id": "1", "revision": "1"}, "kvs": [{"mod_revision": "2"}]},
        {"header": {"cluster_id": "1", "revision": "2"}, "kvs": [{"mod_revision": "0"}]},
    ],
)
def test_an_answer_of_another_shape_is_none(answer: dict[str, Any]) -> None:
    with pytest.raises(parse.UnusableAnswerError, match="not understood"):
        parse.read(answer)
    several: list[list[dict[str, Any]]] = [[], [{}], [{"response_range": answer}]]
    for responses in several:
        with pytest.raises(parse.UnusableAnswerError, match="not understood"):
            parse.written({**answer, "responses": responses}, write(0))


def test_a_refusal_has_a_code_and_words() -> None:
    def of(situation: str) -> tuple[int, str]:
        said = SAID[situation]
        text = said["answer"]
        body = text if isinstance(text, str) else json.dumps(text)
        return parse.refusal(said["status"], body.encode())

    assert of("a user without leave") == (7, "etcdserver: permission denied")
    assert of("no such call") == (0, "HTTP 404: Not Found")
    assert parse.refusal(502, b"") == (0, "HTTP 502")
    assert parse.refusal(500, b"[" * 60000)[0] == 0
    assert parse.refusal(500, b'{"code": "x", "message": 7}') == (0, "7")
    outdated = {situation for situation in SAID if parse.is_outdated(*of(situation))}
    assert outdated == {
        "no token",
        "a token that has ended",
        "a token where there are no users",
    }
