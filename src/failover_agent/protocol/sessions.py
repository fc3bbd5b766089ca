"""Said to us, and heard once: what makes a recorded message worthless. Pure.

No clock is involved, and what is remembered is bounded. The signature is checked before anything
here is asked.

1. A run id is random and new with each process. Every message names the receiver's run, so what was
   recorded before our start is not for us.
2. Within our run, our conversation with one run of a sender is a *session*. Its number is counted
   up for each role and never used twice. Every message names it. A run that we do not talk with is
   told the next number, in a refusal that is signed together with its request, and says its message
   again with that. The first message that names the number proves that its sender is alive now; it
   takes the number, and ends the session before. So all messages of earlier sessions name a number
   that nobody takes any more, and nothing has to be remembered of them. The next number stays the
   same until it is taken, so asking for it, even by a replay, takes it from nobody.
3. Within a session each path (endpoint and kind) has its own growing sequence and a window of the
   last 64 numbers (RFC 4303, 3.4.3): a message overtaken by others is taken once, one that was
   taken never again, one that is older than the window never.

So there is, for each of three roles, one session, of at most 40 windows of 64 bits.

What is not fresh is refused before anybody looks at who sent it: a replay raises no alarm. What is
fresh but of a wrong sender takes its number too, so it raises its alarm once. Whoever sits on the
wire can still drop a message, or hold it back while both runs last: a late one is dealt with by
terms and promises, and the window bounds how many can be saved up to make a dead node look alive.

Two nodes of one role, or two living processes with one record: the one that we talk with goes on,
and the other is refused while the first was heard within `living_for_s`. A process that was started
again has its old node id and a run id that was never seen, and is taken at once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto, unique

from failover_agent.core.messages import Sender

WINDOW = 64


@unique
class Freshness(Enum):
    """What a message proves by the numbers that it names."""

    UNKNOWN = auto()
    """It is not for this run and session: its sender is to be told both."""
    REPLAYED = auto()
    """It is, and was heard before, or is too old to tell."""
    KNOWN = auto()
    """It is new, and of the run that we talk with."""
    NEW_RUN = auto()
    """Its sender is alive, and we do not talk with it."""


class Window:
    """The last WINDOW sequence numbers of one path; bit 0 is the highest."""

    def __init__(self) -> None:
        self._highest = 0
        self._taken = 0

    def take(self, seq: int) -> bool:
        """True once for each number; False for it again, and for what is too old to tell."""
        ahead = seq - self._highest
        if ahead > 0:
            kept = self._taken << ahead if ahead < WINDOW else 0
            self._taken = kept & ((1 << WINDOW) - 1) | 1
            self._highest = seq
            return True
        if ahead <= -WINDOW or seq < 1 or self._taken >> -ahead & 1:
            return False
        self._taken |= 1 << -ahead
        return True


@dataclass(slots=True)
class _Session:
    sender: Sender
    number: int
    heard_at_s: float
    windows: dict[str, Window] = field(default_factory=dict)

    def is_with(self, sender: Sender) -> bool:
        return (self.sender.node_id, self.sender.run_id) == (sender.node_id, sender.run_id)

    def take(self, path: str, seq: int) -> bool:
        return self.windows.setdefault(path, Window()).take(seq)


class Seat:
    """Whom we talk with of those who say that they have one role.

    `_left` are runs replaced of late, to see when one of them lives all the same; nothing else
    hangs on it.
    """

    def __init__(self, living_for_s: float) -> None:
        self._session: _Session | None = None
        self._next_number = 1
        self._left: deque[str] = deque(maxlen=8)
        self._living_for_s = living_for_s

    @property
    def node_id(self) -> str:
        """The node that has this seat, or ""."""
        return "" if self._session is None else self._session.sender.node_id

    def number_for(self, sender: Sender) -> int:
        """The session that a message of `sender` is to name now."""
        session = self._session
        return session.number if session and session.is_with(sender) else self._next_number

    def take(self, sender: Sender, number: int, path: str, seq: int) -> Freshness:
        """How fresh is a message to this run of ours that names the session `number`? A number is
        given away here, once.
        """
        if number != self.number_for(sender):
            return Freshness.UNKNOWN
        session = self._session
        if session and session.is_with(sender):
            return Freshness.KNOWN if session.take(path, seq) else Freshness.REPLAYED
        self._next_number += 1
        return Freshness.NEW_RUN

    def heard(self, now: float) -> None:
        """The one who has this seat said something KNOWN."""
        if self._session:
            self._session.heard_at_s = now

    def is_taken(self, sender: Sender, now: float) -> str:
        """Why `sender`, who proved to be alive, may not have this seat now, or ""."""
        session = self._session
        if session is None or now - session.heard_at_s > self._living_for_s:
            return ""
        first = session.sender
        if sender.node_id != first.node_id:
            return (
                f"two nodes say that they are the {sender.role}: {first.node_id} is heard, and "
                f"{sender.node_id} refused"
            )
        if sender.run_id in self._left:
            return f"two agents run as the {sender.role} with one record (node {first.node_id})"
        return ""

    def give(self, sender: Sender, number: int, path: str, seq: int, now: float) -> None:
        """Talk with `sender` from now on, whose NEW_RUN message named `number`."""
        if self._session:
            self._left.append(self._session.sender.run_id)
        self._session = _Session(sender, number, now)
        self._session.take(path, seq)


class Answerer:
    """Which node answers for one role: votes are counted by role, and two nodes would give two.

    One that took the place of another is believed, as a node that lost its record is. But where the
    one before answers again, to what was asked later, both live. From then on, as long as this
    process lives, only the one that also speaks to us is believed. Of two witnesses, which never
    speak first, neither is: the other node of the pair may reach one of them alone, and not the
    same.
    """

    def __init__(self) -> None:
        self._node_id = ""
        self._number = 0
        self._before: deque[str] = deque(maxlen=8)
        self._two = ""

    def why_not(self, sender: Sender, number: int, seated: str) -> str:
        """Why the answer of `sender` to our request of that number is not taken, or "".

        `seated`: the node that speaks to us in this role, "" where none does.
        """
        if sender.node_id != self._node_id and number > self._number:
            if sender.node_id in self._before:
                self._two = " and ".join(sorted((self._node_id, sender.node_id)))
            self._before.append(self._node_id)
            self._node_id = sender.node_id
        self._number = max(self._number, number)
        if not self._two or sender.node_id == seated:
            return ""
        return (
            f"two nodes answer as the {sender.role}, {self._two}: each endpoint of it has to lead "
            "to one and the same; then restart this agent"
        )
