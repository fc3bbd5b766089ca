"""Messages that were overheard, signed by somebody else, meant for somebody else, or nonsense."""

import json
from pathlib import Path

import pytest

from failover_agent.core.effects import SendRelease
from failover_agent.core.messages import ReleaseRequest
from failover_agent.core.policy import Role
from failover_agent.core.state import Reason
from failover_agent.protocol.envelope import SIGNATURE_HEADER, sign_request
from tests.integration import hostile
from tests.integration.hostile import Target, at_port, posted
from tests.integration.nodes import SECRET, Node, Relay, listening, node, restarted, speaking
from tests.integration.test_witness import House

pytestmark = pytest.mark.integration


def _at(one: Node | House) -> Target:
    return at_port("127.0.0.1", one.port)


async def _recorded() -> tuple[list[bytes], Node, Node]:
    """What a primary said to a backup on the wire: beats and a release; and who they were."""
    primary = node(Role.PRIMARY)
    async with (
        listening(node(Role.BACKUP)) as backup,
        Relay(backup).listening() as relay,
        speaking(primary, relay.endpoint) as peers,
    ):
        for _ in range(3):
            await peers.perform(primary.beat(deadline_s=hostile.ANSWER_S))
        release = ReleaseRequest(primary.me, 8, None, Reason.OPERATOR)
        await peers.perform(SendRelease(Role.BACKUP, release, hostile.ANSWER_S))
        return list(relay.requests), primary, backup


async def _replay(target: Target, recorded: list[bytes]) -> set[tuple[int, str]]:
    heard = set()
    for raw in recorded:
        status, body = await hostile.ask(target, raw)
        heard.add((status, json.loads(body).get("error", "")))
    return heard


async def test_what_was_recorded_is_worthless_everywhere(tmp_path: Path) -> None:
    recorded, primary, backup = await _recorded()
    before = len(backup.asked)

    async with listening(backup):
        assert await _replay(_at(backup), recorded) == {(409, "replayed"), (409, "unknown_run")}
        elsewhere = [raw.replace(b"/v1/heartbeat", b"/v1/vote") for raw in recorded[1:-1]]
        assert await _replay(_at(backup), elsewhere) == {(400, "malformed")}
    async with listening(restarted(backup)) as again:
        assert await _replay(_at(again), recorded) == {(409, "unknown_run")}
    async with listening(restarted(primary)) as sender:
        assert await _replay(_at(sender), recorded) == {(409, "unknown_run")}
    async with House(tmp_path).listening() as house:
        assert await _replay(_at(house), recorded) == {(409, "unknown_run")}

    assert len(backup.asked) == before
    assert (again.asked, sender.asked, again.posted, sender.posted) == ([], [], [], [])


def _with(raw: bytes, secret: bytes | None, **fields: object) -> bytes:
    """The recorded message with other fields, signed by one who has that secret."""
    head, _, body = raw.partition(b"\r\n\r\n")
    path = head.split(b" ", 2)[1].decode()
    body = json.dumps({**json.loads(body), **fields}).encode()
    headers = [f"{SIGNATURE_HEADER}: {sign_request(secret, body)}"] if secret else []
    return posted(body, *headers, path=path)


async def test_what_is_signed_wrongly_or_for_somebody_else_moves_nothing() -> None:
    recorded, _, backup = await _recorded()
    said, asked = recorded[2], len(backup.asked)
    async with listening(backup):
        fresh = {"path": "0/heartbeat", "seq": 40}
        wrong: list[tuple[bytes, int]] = [
            (_with(said, None, **fresh), 401),
            (_with(said, b"the secret of another pair", **fresh), 401),
            (_with(said, SECRET, **{**fresh, "cluster": "till"}), 409),
            (_with(said, SECRET, **{**fresh, "seq": 41, "protocol": 2}), 409),
            (_with(said, SECRET, **{**fresh, "seq": 2**53 + 1}), 400),
            (_with(said, SECRET, **{**fresh, "seq": -1}), 400),
            (_with(said, SECRET, **{**fresh, "seq": 1e300}), 400),
            (_with(said, SECRET, **{**fresh, "message": {}}), 400),
            (_with(said, SECRET, **{**fresh, "message": []}), 400),
            (_with(said, SECRET, **{**fresh, "sender": {"role": "primary"}}), 400),
            (_with(said, SECRET, **fresh, surprise=1), 400),
        ]
        for number, (raw, wanted) in enumerate(wrong):
            status, _ = await hostile.ask(_at(backup), raw)
            assert (number, status) == (number, wanted)
        role = {"role": "witness", "run_id": backup.me.run_id, "session": 1}
        status, body = await hostile.ask(_at(backup), _with(said, SECRET, seq=42, to=role))
        assert (status, json.loads(body)["error"]) == (409, "wrong_role")

    assert len(backup.asked) == asked


NONSENSE = [
    b'{"cluster": NaN}',
    b'{"seq": Infinity}',
    b'{"seq": ' + b"9" * 5000 + b"}",
    b'{"seq": 1e999}',
    b"[" * 30_000 + b"]" * 30_000,
    b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    b'{"protocol": 1, "protocol": 1, "cluster": "shop", "cluster": "till"}',
    b'\xef\xbb\xbf{"protocol": 1}',
    b'{"cluster": "\xff\xfe"}',
    b'{"cluster": "\\ud800"}',
    b'{"cluster": "\\u0000"}',
    b"null",
    b"\x00",
    b"",
]


@pytest.mark.parametrize("body", NONSENSE, ids=lambda body: repr(body[:20]))
async def test_nonsense_is_malformed_even_with_the_secret(body: bytes, tmp_path: Path) -> None:
    raw = hostile.signed(body, SECRET)
    async with (
        listening(node(Role.BACKUP)) as signs,
        listening(node(Role.BACKUP, secret=None)) as believes,
        House(tmp_path).listening() as house,
    ):
        assert (await hostile.ask(_at(signs), raw))[0] == 400
        assert (await hostile.ask(_at(believes), posted(body)))[0] == 400
        assert (await hostile.ask(_at(believes), raw))[0] == 401
        assert (await hostile.ask(_at(house), raw))[0] in {400, 409}

    assert (signs.asked, signs.posted, believes.asked, believes.posted) == ([], [], [], [])
