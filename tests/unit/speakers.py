"""Two nodes that speak to each other without a network, for the tests of protocol/auth.py."""

import json
from dataclasses import replace
from typing import Any

from failover_agent.core.messages import Beat, BeatAnswer, Sender, Vote
from failover_agent.core.policy import Role
from failover_agent.core.state import Health, Phase, Readiness
from failover_agent.protocol import envelope
from failover_agent.protocol.auth import (
    AskAgain,
    Denied,
    Heard,
    Keeper,
    Outgoing,
    Refused,
    Signed,
    Understood,
)
from failover_agent.protocol.wire import Hello, HelloAnswer, Kind, Request

SECRET = b"a secret that nobody knows"
PRIMARY = Sender(Role.PRIMARY, "aa", "a1", "f")
BACKUP = Sender(Role.BACKUP, "bb", "b1", "f")
WITNESS = Sender(Role.WITNESS, "ww", "w1", "")
WORD = Vote(granted=False, term=7, holder=None, remaining_s=None)
NOW = 1000.0
LIVING_FOR_S = 10.0


def keeper(
    me: Sender, secret: bytes | None = SECRET, cluster: str = "shop", term: int = 0
) -> Keeper:
    return Keeper(
        cluster=cluster,
        me=me,
        secret=secret,
        peers=frozenset({Role.PRIMARY, Role.BACKUP} - {me.role}),
        arbiters=frozenset({Role.WITNESS} - {me.role}),
        living_for_s=LIVING_FOR_S,
        term=term,
    )


def beat(sender: Sender, *, renews: bool = False, may_lead: bool = True) -> Beat:
    return Beat(
        sender=sender,
        number=1,
        phase=Phase.STANDBY,
        term=7,
        renews=renews,
        hold=False,
        lease_s=10.0,
        longest_lease_s=10.0,
        holder=None,
        released=True,
        leading_for_s=None,
        health=Health.OK,
        running=0,
        readiness=Readiness.READY,
        not_ready_because=(),
        may_lead=may_lead,
    )


def hear(
    keeper: Keeper, sent: Outgoing, now: float = NOW, kind: Kind | None = None
) -> Heard | Denied:
    return keeper.admit(kind or sent.kind, sent.signed.signature, sent.signed.body, now)


def reply(keeper: Keeper, judged: Heard | Denied) -> tuple[int, Signed]:
    """What a server would send back: a beat of its own, or the refusal."""
    if isinstance(judged, Denied):
        assert judged.receipt is not None
        return judged.status, keeper.refusal(
            judged.receipt, judged.status, judged.error, judged.detail, judged.rival
        )
    if isinstance(judged.request, Hello):
        return 200, keeper.answer(judged.receipt, HelloAnswer("0.1.0", Phase.STANDBY))
    if keeper.me.role is Role.WITNESS:
        return 200, keeper.answer(judged.receipt, BeatAnswer(keeper.me, None, WORD))
    return 200, keeper.answer(judged.receipt, BeatAnswer(keeper.me, beat(keeper.me), None))


def read_reply(
    sender: Keeper, sent: Outgoing, reply: tuple[int, Signed]
) -> Understood | AskAgain | Refused:
    status, signed = reply
    return sender.read_answer(sent, status, signed.signature, signed.body)


def say(
    sender: Keeper, receiver: Keeper, now: float = NOW, tries: int = 3
) -> tuple[Understood | AskAgain | Refused, Heard | Denied]:
    """One beat, with the handshake where one is needed, and what both made of it."""
    for _ in range(tries):
        sent = sender.request(receiver.me.role, beat(sender.me))
        judged = hear(receiver, sent, now)
        read = read_reply(sender, sent, reply(receiver, judged))
        if not isinstance(read, AskAgain):
            return read, judged
    raise AssertionError("it never came to an end")


def meet(secret: bytes | None = SECRET) -> tuple[Keeper, Keeper]:
    """A primary and a backup; the primary has spoken to the backup once."""
    primary, backup = keeper(PRIMARY, secret), keeper(BACKUP, secret)
    read, _ = say(primary, backup)
    assert isinstance(read, Understood)
    return primary, backup


def changed(sent: Outgoing, **fields: Any) -> Outgoing:
    """The same message with other fields, signed anew, as one who has the secret could."""
    body = json.dumps({**json.loads(sent.signed.body), **fields}).encode()
    return replace(sent, signed=Signed(body, envelope.sign_request(SECRET, body)))


def shake_hands(
    sender: Keeper, receiver: Keeper, said: Request, to: Role = Role.BACKUP
) -> tuple[Outgoing, Heard | Denied]:
    """Say it until the receiver knows who speaks: the last message, and its verdict."""
    while True:
        sent = sender.request(to, said)
        judged = hear(receiver, sent)
        if not isinstance(read_reply(sender, sent, reply(receiver, judged)), AskAgain):
            return sent, judged
