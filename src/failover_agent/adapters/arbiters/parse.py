"""What an etcd is sent and what it answers, over its JSON gateway (3.4 and later). Pure.

The gateway's ways: whole numbers of 64 bits are strings, what is false, zero or empty is left out,
keys and values are base64, and a refused transaction is an answer without `succeeded`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from failover_agent.core.messages import LONGEST_LEASE_S
from failover_agent.core.policy import Role
from failover_agent.core.register import Entry, Snapshot, Write
from failover_agent.core.state import Holder

PREFIX = "failover-agent/"
"""Every key of ours begins with this; what a user of etcd needs is readwrite on it."""
SCHEMA = 1
LARGEST_TERM = 2**53
"""Terms grow by one an attempt: nobody gets here, and JSON tells all below apart."""
MOST_CHARACTERS = 64

UNAUTHENTICATED = 16
OUTDATED = (
    "etcdserver: user name is empty",
    "etcdserver: revision of auth store is old",
    "etcdserver: invalid auth token",
)
"""Said of a token, or of none, by an etcd whose authentication was switched on, or changed."""


class UnusableAnswerError(Exception):
    """An answer that is not understood, as a clause for people."""


def key_of(cluster: str) -> str:
    """The key under which the promise of this pair lies."""
    return PREFIX + cluster


def read_body(cluster: str) -> dict[str, Any]:
    """A range of one key. Linearizable, which is what a range is unless it says otherwise."""
    return {"key": _encoded(key_of(cluster))}


def write_body(cluster: str, write: Write) -> dict[str, Any]:
    """A transaction: put, if the key has that mod_revision (0: is not there), and else read it."""
    key = _encoded(key_of(cluster))
    compare = {
        "target": "MOD",
        "result": "EQUAL",
        "key": key,
        "mod_revision": str(write.mod_revision),
    }
    return {
        "compare": [compare],
        "success": [{"request_put": {"key": key, "value": _encoded(value_of(write.entry))}}],
        "failure": [{"request_range": {"key": key}}],
    }


def value_of(entry: Entry) -> str:
    """The value, as a person finds it with etcdctl."""
    return json.dumps(
        {
            "schema": SCHEMA,
            "holder": {"role": entry.holder.role, "node_id": entry.holder.node_id},
            "term": entry.term,
            "lease_s": entry.lease_s,
            "hold": entry.hold,
            "released": entry.released,
        }
    )


def read(answer: Mapping[str, Any]) -> Snapshot:
    """The answer to `read_body`. Raises UnusableAnswerError."""
    try:
        return _snapshot(answer["header"], answer)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UnusableAnswerError(f"what it answers is not understood ({error!r})") from error


def written(answer: Mapping[str, Any], write: Write) -> tuple[bool, Snapshot]:
    """The answer to `write_body`: was it put, and what is there now. Raises UnusableAnswerError."""
    try:
        header = answer["header"]
        if answer.get("succeeded") is True:
            revision = int(header["revision"])
            return True, Snapshot(str(header["cluster_id"]), revision, revision, write.entry)
        return False, _snapshot(header, answer["responses"][0]["response_range"])
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UnusableAnswerError(f"what it answers is not understood ({error!r})") from error


def refusal(status: int, body: bytes) -> tuple[int, str]:
    """The code (of gRPC; 0 where there is none) and the words of an answer that is not a 200."""
    try:
        answer = json.loads(body)
        code, words = answer["code"], answer["message"]
    except (KeyError, TypeError, ValueError, RecursionError):
        text = body[:200].decode(errors="replace").strip()
        return 0, f"HTTP {status}" + (f": {text}" if text else "")
    return (code if isinstance(code, int) else 0), str(words)[:200]


def is_outdated(code: int, words: str) -> bool:
    """Does this refusal ask for a new token?"""
    return code == UNAUTHENTICATED or words in OUTDATED


def _snapshot(header: Mapping[str, Any], ranged: Mapping[str, Any]) -> Snapshot:
    store, revision = str(header["cluster_id"]), int(header["revision"])
    found = ranged.get("kvs", [])
    if not found:
        return Snapshot(store, revision)
    mod_revision = int(found[0]["mod_revision"])
    if not 0 < mod_revision <= revision:
        raise ValueError(f"mod_revision {mod_revision} at revision {revision}")
    key = base64.b64decode(found[0]["key"]).decode(errors="replace")
    return Snapshot(store, revision, mod_revision, _entry(key, found[0].get("value", "")))


def _entry(key: str, value: str) -> Entry:
    """Raises UnusableAnswerError: nobody's promise may be guessed."""
    try:
        return _entry_of(json.loads(base64.b64decode(value, validate=True)))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UnusableAnswerError(
            f"the value of {key} is not one that this version writes ({error}); once it is certain "
            f"which node runs the service, etcdctl del {key} lets the pair begin anew"
        ) from error


def _entry_of(raw: Any) -> Entry:
    if raw["schema"] != SCHEMA:
        raise ValueError(f"its schema is {raw['schema']}")
    role, node_id = Role(raw["holder"]["role"]), raw["holder"]["node_id"]
    term, lease_s, hold, released = (raw[name] for name in ("term", "lease_s", "hold", "released"))
    if role is Role.WITNESS or type(node_id) is not str or len(node_id) > MOST_CHARACTERS:
        raise ValueError("its holder is no node")
    if type(term) is not int or not 0 < term <= LARGEST_TERM:
        raise ValueError("its term cannot be")
    if type(lease_s) not in (int, float) or not 0 < lease_s <= LONGEST_LEASE_S:
        raise ValueError("its lease_s cannot be")
    if type(hold) is not bool or type(released) is not bool:
        raise ValueError("hold and released are true or false")
    return Entry(Holder(role, node_id), term, float(lease_s), hold, released)


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
