"""Who may speak: signs what this node says, and judges what it hears. Pure.

Why a recorded message is worthless later is told in sessions.py, how things are signed in
envelope.py. An answer is signed together with its request, which no other one equals, so it answers
nothing else.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from failover_agent.core.events import ConflictKind, ConflictSeen
from failover_agent.core.messages import Beat, ReleaseRequest, Sender, VoteKind, VoteRequest
from failover_agent.core.policy import Role
from failover_agent.protocol import envelope, wire
from failover_agent.protocol.envelope import (
    PROTOCOL,
    AnswerEnvelope,
    Id,
    OtherProtocolError,
    RequestEnvelope,
    Rival,
)
from failover_agent.protocol.sessions import Answerer, Freshness, Seat
from failover_agent.protocol.wire import (
    LARGEST_STEP,
    Answer,
    Kind,
    MalformedMessageError,
    Request,
)

UNKNOWN_RUN = "unknown_run"
REPLAYED = "replayed"
MALFORMED = "malformed"
OTHER_CLUSTER = ConflictKind.OTHER_CLUSTER.value

STATUS = {MALFORMED: 400, ConflictKind.NOT_AUTHENTIC.value: 401}
"""By error code; every other refusal is a 409."""

CONFLICTS = frozenset(str(kind) for kind in ConflictKind)


@dataclass(frozen=True, slots=True)
class Signed:
    """A body to send, and what goes into SIGNATURE_HEADER ("" without a secret)."""

    body: bytes
    signature: str


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request as it leaves; needed to read its answer. `number` grows with each one we send."""

    to: Role
    endpoint: int
    kind: Kind
    id: Id
    number: int
    signed: Signed


@dataclass(frozen=True, slots=True)
class Understood:
    """The answer is authentic, and this is what it says."""

    answer: Answer
    sender: Sender


@dataclass(frozen=True, slots=True)
class AskAgain:
    """The receiver did not know us yet; it told us how to address it, so say it again."""


@dataclass(frozen=True, slots=True)
class Refused:
    """There is no answer. `detail` is a clause for people; `conflict` what is wrong for good."""

    error: str
    detail: str
    conflict: ConflictSeen | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the answer to a request is bound to."""

    signature: str
    id: Id | None
    session: int


@dataclass(frozen=True, slots=True)
class Heard:
    """An authentic request, said to us and not heard before."""

    request: Request
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Denied:
    """A request that changes nothing. `receipt` is None where it was not authentic, and its refusal
    is not signed. `rival` is set where `error` is SAME_ROLE and it is not we who are the other.
    """

    error: str
    detail: str
    receipt: Receipt | None = None
    conflict: ConflictSeen | None = None
    rival: Rival | None = None

    @property
    def status(self) -> int:
        """The HTTP status of the refusal."""
        return STATUS.get(self.error, 409)


@dataclass(frozen=True, slots=True)
class _Address:
    """What a receiver last called itself; `number` is that of the request answered."""

    run_id: str
    session: int
    number: int


class Keeper:
    """Signs what one node says, and judges what it hears.

    `peers`: the roles that may speak to us; `arbiters`: those that only ever answer. `secret` None:
    nothing is signed, and whoever can reach us is believed. `term`: the highest on record.
    `rejected` counts refusals by error code, answers that were not taken as "answer_<code>".
    """

    def __init__(
        self,
        *,
        cluster: str,
        me: Sender,
        secret: bytes | None,
        peers: frozenset[Role],
        living_for_s: float,
        arbiters: frozenset[Role] = frozenset(),
        term: int = 0,
    ) -> None:
        assert secret is None or secret, "an empty secret is no secret"
        assert me.role not in peers | arbiters
        self.cluster = cluster
        self.me = me
        self.rejected: Counter[str] = Counter()
        self._secret = secret
        self._peers = peers
        self._answering = peers | arbiters
        self._term = term
        self._seats = {role: Seat(living_for_s) for role in Role}
        self._answerers = {role: Answerer() for role in Role}
        # One for each way there: where one leads astray, it does so for itself alone.
        self._addresses: dict[tuple[Role, int], _Address] = {}
        self._sequences: Counter[tuple[Role, str]] = Counter()
        self._number = 0

    # --- we speak -----------------------------------------------------------------------------

    def request(self, to: Role, request: Request, *, endpoint: int = 0) -> Outgoing:
        """Sign `request` for the node of role `to`, reached over its endpoint of that number.

        Each call is another message, so that saying the same again is no replay.
        """
        assert isinstance(request, wire.Hello) or request.sender == self.me
        kind = wire.kind_of(request)
        path = f"{endpoint}/{kind}"
        self._term = max(self._term, wire.highest_term(request))
        self._sequences[to, path] += 1
        self._number += 1
        address = self._addresses.get((to, endpoint), _Address("", 0, 0))
        written = RequestEnvelope(
            cluster=self.cluster,
            sender=self.me,
            to=to,
            to_run=address.run_id,
            session=address.session,
            path=path,
            seq=self._sequences[to, path],
            message=wire.to_json(request),
        )
        body = envelope.write_request(written)
        signature = envelope.sign_request(self._secret, body) if self._secret else ""
        return Outgoing(to, endpoint, kind, written.id, self._number, Signed(body, signature))

    def read_answer(
        self, sent: Outgoing, status: int, signature: str, body: bytes
    ) -> Understood | AskAgain | Refused:
        """What came back for `sent`. Never raises, whatever it is."""
        read = self._read_answer(sent, status, signature, body)
        if isinstance(read, Refused):
            self.rejected[f"answer_{read.error}"] += 1
        return read

    def _read_answer(
        self, sent: Outgoing, status: int, signature: str, body: bytes
    ) -> Understood | AskAgain | Refused:
        if not self._is_authentic_answer(sent, status, signature, body):
            return _not_authentic_answer(sent, status, signature, body)
        try:
            answered = envelope.read_answer(body)
        except OtherProtocolError as other:
            return _refused(ConflictKind.OTHER_PROTOCOL, _other_protocol(sent.to, other.version))
        except MalformedMessageError as malformed:
            return Refused(MALFORMED, _no_agent(sent, f"it answered {status}: {malformed}"))
        if answered.re is not None and answered.re != sent.id:
            return Refused(MALFORMED, "it answered another request")
        self._learn(sent, answered)
        if answered.error == UNKNOWN_RUN:
            return AskAgain()
        wrong = self._what_is_wrong(answered.cluster, answered.sender, self._answering)
        if wrong is None and answered.sender.role is not sent.to:
            wrong = ConflictKind.WRONG_ROLE, _wrong_role(sent.to, answered.sender.role)
        if wrong is None:
            seated = self._seats[sent.to].node_id
            if two := self._answerers[sent.to].why_not(answered.sender, sent.number, seated):
                wrong = ConflictKind.SAME_ROLE, two
        if wrong is None and answered.error in CONFLICTS:
            wrong = ConflictKind(answered.error), answered.detail
        if wrong is not None:
            return _refused(*wrong, answered.rival or Rival(answered.sender.node_id, False, False))
        if answered.error:
            return Refused(answered.error, f"it refused ({answered.error}): {answered.detail}")
        try:
            answer = wire.answer_of(sent.kind, answered.message, answered.sender)
            self._refuse_absurd(answer)
        except MalformedMessageError as malformed:
            return Refused(MALFORMED, f"its answer is malformed: {malformed}")
        return Understood(answer, answered.sender)

    def _is_authentic_answer(
        self, sent: Outgoing, status: int, signature: str, body: bytes
    ) -> bool:
        if self._secret is None:
            return not signature and status != STATUS[ConflictKind.NOT_AUTHENTIC]
        wanted = envelope.sign_answer(self._secret, sent.signed.signature, status, body)
        return envelope.is_same(signature, wanted)

    def _learn(self, sent: Outgoing, answered: AnswerEnvelope) -> None:
        """Keep how it wants to be addressed. Session 0 names none, and an answer that was overtaken
        by that to a later request tells nothing new.
        """
        known = self._addresses.get((sent.to, sent.endpoint))
        if answered.session and (known is None or known.number <= sent.number):
            run_id, session = answered.sender.run_id, answered.session
            known = _Address(run_id, session, sent.number)
            self._addresses[sent.to, sent.endpoint] = known

    # --- we listen ----------------------------------------------------------------------------

    def admit(self, kind: Kind, signature: str, body: bytes, now: float) -> Heard | Denied:
        """Judge a request that came to the address of `kind` at `now`. Never raises."""
        judged = self._admit(kind, signature, body, now)
        if isinstance(judged, Denied):
            self.rejected[judged.error] += 1
        return judged

    def _admit(self, kind: Kind, signature: str, body: bytes, now: float) -> Heard | Denied:
        if not self._is_authentic_request(signature, body):
            return Denied(ConflictKind.NOT_AUTHENTIC, self._not_authentic_request(signature))
        try:
            said = envelope.read_request(body)
            request = wire.request_of(kind, said.message, said.sender)
            self._refuse_absurd(request)
        except OtherProtocolError as other:
            # Not known to be fresh, so no alarm: it refuses what we say to it, and that is one.
            detail = _other_protocol(None, other.version)
            return Denied(ConflictKind.OTHER_PROTOCOL, detail, Receipt(signature, None, 0))
        except MalformedMessageError as malformed:
            return Denied(MALFORMED, str(malformed), Receipt(signature, None, 0))
        if not said.path.endswith(f"/{kind}"):
            return Denied(MALFORMED, f"path: this is no {kind}", Receipt(signature, None, 0))
        if kind is Kind.HELLO:
            return Heard(request, Receipt(signature, said.id, 0))
        return self._judge(said, request, signature, now)

    def _judge(
        self, said: RequestEnvelope, request: Request, signature: str, now: float
    ) -> Heard | Denied:
        sender, seat = said.sender, self._seats[said.sender.role]
        fresh = Freshness.UNKNOWN
        if said.to_run == self.me.run_id:
            fresh = seat.take(sender, said.session, said.path, said.seq)
        receipt = Receipt(signature, said.id, seat.number_for(sender))  # after a number was taken
        if fresh is Freshness.UNKNOWN:
            return Denied(UNKNOWN_RUN, "say it again to this run and session", receipt)
        if fresh is Freshness.REPLAYED:
            return Denied(REPLAYED, "this was heard before, or is too old to tell", receipt)
        wrong = self._what_is_wrong(said.cluster, sender, self._peers)
        if wrong is None and said.to is not self.me.role:
            wrong = ConflictKind.WRONG_ROLE, _wrong_role(said.to, self.me.role)
        if wrong is not None:
            conflict = ConflictSeen(*wrong, sender.node_id, *_claims(request))
            return Denied(conflict.kind, conflict.detail, receipt, conflict)
        if fresh is Freshness.NEW_RUN:
            if taken := seat.is_taken(sender, now):
                # The second of two is no danger to us; to it, the first counts as one that holds.
                conflict = ConflictSeen(ConflictKind.SAME_ROLE, taken, sender.node_id)
                rival = Rival(seat.node_id, holding=True, may_lead=True)
                return Denied(conflict.kind, taken, receipt, conflict, rival)
            seat.give(sender, said.session, said.path, said.seq, now)
        seat.heard(now)
        return Heard(request, Receipt(signature, said.id, said.session))

    def answer(self, receipt: Receipt, answer: Answer) -> Signed:
        """Sign the answer (status 200) to a request that was heard."""
        self._term = max(self._term, wire.highest_term(answer))
        return self._sign(receipt, 200, wire.to_json(answer))

    def refusal(
        self, receipt: Receipt, status: int, error: str, detail: str, rival: Rival | None = None
    ) -> Signed:
        """Sign a refusal."""
        return self._sign(receipt, status, None, error, detail, rival)

    def _sign(
        self,
        receipt: Receipt,
        status: int,
        message: wire.Json | None,
        error: str = "",
        detail: str = "",
        rival: Rival | None = None,
    ) -> Signed:
        body = envelope.write_answer(
            AnswerEnvelope(
                self.cluster, self.me, receipt.session, receipt.id, message, error, detail, rival
            )
        )
        if self._secret is None:
            return Signed(body, "")
        return Signed(body, envelope.sign_answer(self._secret, receipt.signature, status, body))

    def _refuse_absurd(self, message: Request | Answer) -> None:
        """Raises MalformedMessageError for a term that nobody can have come to (LARGEST_STEP)."""
        term = wire.highest_term(message)
        if term > self._term + LARGEST_STEP:
            raise MalformedMessageError(f"term: {term} is absurd: here the highest is {self._term}")

    def _is_authentic_request(self, signature: str, body: bytes) -> bool:
        if self._secret is None:
            return not signature
        return envelope.is_same(signature, envelope.sign_request(self._secret, body))

    def _not_authentic_request(self, signature: str) -> str:
        if self._secret is None:
            return "this message is signed, and this node has no secret: give both the same one"
        if not signature:
            return "this message is not signed, and this node has a secret: give both the same one"
        return "this message is not signed with the secret of this node"

    def is_reader(self, token: str) -> bool:
        """May whoever shows this token read? Without a secret there is no token."""
        return self._secret is not None and envelope.is_same(
            token, envelope.read_token(self._secret)
        )

    # --- identity (V9) ------------------------------------------------------------------------

    def _what_is_wrong(
        self, cluster: str, sender: Sender, roles: frozenset[Role]
    ) -> tuple[ConflictKind, str] | None:
        """Why `sender` can be none of those `roles` that we talk with, or None."""
        if cluster != self.cluster:
            detail = f"the other node is of cluster {cluster!r}, and this one of {self.cluster!r}"
            return ConflictKind.OTHER_CLUSTER, detail
        if sender.node_id == self.me.node_id:
            if sender.run_id == self.me.run_id:
                detail = "the endpoint leads back to this node: name the other host in it"
            else:
                detail = f"another agent has the record of this node ({sender.node_id}), a copy"
            return ConflictKind.ENDPOINT_IS_SELF, detail
        if sender.role is self.me.role:
            detail = f"another node is started as {sender.role} too (node {sender.node_id})"
            return ConflictKind.SAME_ROLE, detail
        if sender.role not in roles:
            detail = f"a node started as {sender.role} names this {self.me.role} in its endpoint"
            return ConflictKind.WRONG_ROLE, detail
        return None


def _claims(request: Request) -> tuple[bool, bool]:
    """By its own word: does the sender hold a term, and could it?"""
    match request:
        case Beat():
            return request.renews, request.may_lead
        case VoteRequest():
            return request.kind is VoteKind.PREPARE, True
        case ReleaseRequest() | wire.Hello():
            return False, True


def _refused(kind: ConflictKind, detail: str, rival: Rival | None = None) -> Refused:
    rival = rival or Rival("", holding=False, may_lead=False)
    seen = ConflictSeen(kind, detail, rival.node_id, rival.holding, rival.may_lead)
    return Refused(kind, detail, seen)


def _not_authentic_answer(sent: Outgoing, status: int, signature: str, body: bytes) -> Refused:
    """One who speaks as an agent is an alarm; anything else that listens there is none."""
    same = "give both nodes the same secret"
    try:
        value = wire.parse(body)
    except MalformedMessageError:
        value = None
    said = value if isinstance(value, dict) else {}
    if (status, said.get("error")) == (409, OTHER_CLUSTER) and sent.to is Role.WITNESS:
        # Whose secret should it sign with? It is believed as far as an alarm goes.
        return _refused(ConflictKind.OTHER_CLUSTER, "the witness does not serve this cluster")
    if signature and not sent.signed.signature:
        detail = f"the {sent.to} has a secret, and this node has none: {same}"
    elif status == 401 and said.get("error") == ConflictKind.NOT_AUTHENTIC:
        detail = f"the {sent.to} does not accept our signature: {same}"
    elif signature:
        detail = f"the {sent.to} signs with another secret: {same}"
    elif "protocol" in said:
        detail = f"the {sent.to} does not sign its answers: {same}"
    else:
        return Refused(MALFORMED, _no_agent(sent, f"it answered {status} without a signature"))
    return _refused(ConflictKind.NOT_AUTHENTIC, detail)


def _no_agent(sent: Outgoing, what: str) -> str:
    return f"{what}; is it the agent of the {sent.to} that listens there?"


def _other_protocol(role: Role | None, version: int) -> str:
    who = "the other node" if role is None else f"the {role}"
    return f"{who} speaks protocol {version}, and this node {PROTOCOL}: upgrade the older one"


def _wrong_role(wanted: Role, found: Role) -> str:
    return f"an endpoint that should lead to the {wanted} leads to the {found}"
